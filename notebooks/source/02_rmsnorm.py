# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2. RMSNorm and pre-normalisation
#
# | | |
# | --- | --- |
# | **The question** | Why is every row brought to one size before it is worked on, and how? |
# | **You will be able to** | compute RMSNorm by hand; say what it leaves out of LayerNorm; explain why Llama normalises *before* each step, and show what breaks without it |
# | **It assumes** | lesson [00](00_start_here.ipynb); the mean and the square root |
# | **Minutes** | 85 |
#
# T tokens, D model width, L layers.

# %% tags=["hide"]
from dataclasses import replace                           # a config with one number changed

import checks
import figures
import numpy as np
import pencil
from course import STORY, config, loss, nl, tokenizer, weights

check = checks.lesson("02")

# %% [markdown]
# ## The stream that everything is added to
#
# Each token travels through the model as one row of D numbers, the *residual stream*. A layer has two steps, attention
# and feed-forward; each reads the row and adds something to it. Rows are only ever added to. But what is added can
# point the other way and cancel a part of the row, or be so much longer that it drowns what was there.
#
# Call the *root mean square* of a row, the square root of the mean of its squares, its *size*: it is how large a
# typical number of the row is.
#
# **Predict.** In lesson [00](00_start_here.ipynb), the first feed-forward step wrote rows thirty times as long as the
# embedding. Ten more steps follow. At the end, is a row about as large as after layer 0, three times as large, or
# thirty times?

# %%
def root_mean_square(x):                                  # (T, D) -> (T,)
    return np.sqrt(np.mean(x * x, axis=-1))


tokens = tokenizer.encode(STORY)
trace = nl.Trace()
nl.forward(tokens, weights, config, tap=trace)
stream = ["embedding"]
stream += [name for name in trace if name.endswith(("x_attn", "x_ffn"))]
sizes = np.array([root_mean_square(trace[name]) for name in stream])    # (1 + 2 L, T)

print(f"T {len(tokens)}, D {config.dim}, L {config.n_layers}; mean size of a row")
for name, row in zip(stream, sizes):
    print(f"{name:16} {row.mean():5.2f}")

# %%
figure, ax = figures.new(3.2)
ax.fill_between(range(len(stream)), sizes.min(axis=1), sizes.max(axis=1),
                color=figures.SKY, alpha=0.3, linewidth=0)
ax.plot(sizes.mean(axis=1), "o-", color=figures.BLUE)
ax.set(yscale="log", ylabel="size of a row", title="The residual stream, from step to step")
ax.set_xticks(range(len(stream)), [name.replace("layers.", "") for name in stream],
              rotation=45, ha="right")
figures.show(figure, "The line is the mean over T tokens, the band reaches from the smallest token "
                     "to the largest: the first feed-forward step lifts the stream thirtyfold, and "
                     "the mean goes on growing.")

shrunk = np.sum(sizes[1:] < sizes[:-1], axis=1)           # of T rows, for each step
for name, count in zip(stream[1:], shrunk):
    if count:
        print(f"{count} of {len(tokens)} rows become smaller by the addition at {name}")

# %% [markdown]
# **Explain.** Three times. The rows grow on the whole, though some additions make some rows smaller. A step that read
# the stream as it is would meet rows of size 0.08 at the start, of 7.7 at the end, and different ones in one text. So
# each step reads a copy of the row that was brought to a standard size. The stream itself is left alone.
#
# ## RMSNorm, by hand
#
# LLaMA (section 2.2) normalises the input of both steps of a layer with RMSNorm, whose paper defines it (section 4,
# equation 4, in other letters) as
#
# $$y_i = \frac{x_i}{\mathrm{RMS}(x)}\, g_i, \qquad \mathrm{RMS}(x) = \sqrt{\frac{1}{D}\sum_{j=1}^{D} x_j^2}$$
#
# with one learned number $g_i$ for each of the D columns, the *scale*. Code adds a small $\epsilon$ under the root, so
# that a row of zeros stays zeros instead of becoming 0/0.
#
# With a pencil, three tokens, D = 2, g = 1: the row $(1, 7)$ has squares $1, 49$, their mean is $25$, the root $5$, and
# the result $(0.2, 1.4)$. The row $(10, 70)$, ten times as large, has the root $50$ and the *same* result. And $(-1,
# 7)$ has the root 5 again and gives $(-0.2, 1.4)$: signs stay. Now four numbers, step by step:

# %%
a = np.array([3.0, -1.0, 1.0, 1.0], np.float32)
mean_square = np.mean(a * a)
print("squares     ", a * a)
print("their mean  ", mean_square)
print("its root    ", np.sqrt(mean_square).round(4))
print("normalised  ", (a / np.sqrt(mean_square)).round(4))
print("their size  ", np.sqrt(np.mean((a / np.sqrt(mean_square)) ** 2)).round(4))

# %% [markdown]
# The Llama on the [handout](handout.pdf) does the same in its steps 1 and 2. For `<s>` *cats and* it looks up
# $(-1, 7)$, $(2, 2)$ and $(-3.5, 0.5)$. The first has the mean square $(1 + 49)/2 = 25$ and the size $5$. Do the other
# two with a pencil, then run:

# %%
looked_up = pencil.weights["embedding"][pencil.PROMPT]    # (T, D)
size = root_mean_square(looked_up)
print("sizes       ", size)
print("normalised  ", (looked_up / size[:, None]).tolist())
print("in the trace", pencil.run()["layers.0.attn_norm"].tolist())

# %% [markdown]
# The division changes the length of a row and keeps its direction. The scale then stretches some columns more than
# others, and that turns the row: with $g = (3, 1)$, the row $(0.2, 1.4)$ becomes $(0.6, 1.4)$. How far does it turn in
# the model? The *cosine* of two rows is 1 if they have the same direction, and 0 at a right angle.

# %%
def cosine(a, b):                                         # (T, D), (T, D) -> (T,)
    return np.sum(a * b, axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


x, g = trace["layers.1.x_attn"], weights["layers"][1]["ffn_norm"]       # (T, D), (D,)
by_hand = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + config.norm_eps) * g

print("the same bits as the function:", np.array_equal(by_hand, nl.rms_norm(x, g, config.norm_eps)))
print("and as the model:             ", np.array_equal(by_hand, trace["layers.1.ffn_norm"]))
print(f"smallest and largest g: {g.min():.2f}, {g.max():.2f}")
print(f"cosine of a row before and after: {cosine(x, by_hand).mean():.2f}")

# %%
before = trace["layers.1.x_attn"][:12]
divided = before / root_mean_square(before)[:, None]
after = trace["layers.1.ffn_norm"][:12]
labels = figures.pieces(tokenizer, tokens[:12])
figure, axes = figures.new(3.8, columns=3)
for ax, title, limit, rows in ((axes[0], "before (16 of D columns)", 6, before),
                               (axes[1], "divided by its size", 2, divided),
                               (axes[2], "and scaled by g", 1, after)):
    sized = [f"{label} {r:.1f}" for label, r in zip(labels, root_mean_square(rows))]
    figures.matrix(ax, rows[:, :16], rows=sized, title=title, limit=limit)
figures.show(figure, "Each row is a token, with its size beside it: before, some rows are more "
                     "than twice as strong as others; the division makes all of size 1 and keeps "
                     "each pattern; the scale weakens some columns more than others.")

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). One number of a norm, from the row that it was made of. Move along the
# row with the arrow keys: all its numbers are divided by the same root.
#
#     python notebooks/explorer/build.py --open "#t=layers.3.attn_norm&i=9.0"

# %% [markdown]
# ## What LayerNorm does besides
#
# LayerNorm, which came first, also subtracts the row's mean $\mu$, and adds a learned bias $b$:
#
# $$\mathrm{LayerNorm}(x)_i = \frac{x_i - \mu}{\sqrt{\frac{1}{D}\sum_j (x_j-\mu)^2 + \epsilon}}\, g_i + b_i$$
#
# RMSNorm's paper (section 1) claims that the rescaling is what helps, and that the recentring can go. How much is there
# to recentre? The mean of D random numbers of size 1 is typically $1/\sqrt D$ away from 0: here $1/16 = 0.06$.

# %%
norms = [name for name in trace if name.endswith("norm")]
reads = dict(zip(norms, stream))                          # what each of the 1 + 2 L norms reads
for name in (norms[0], norms[1], norms[2], norms[-1]):
    x = trace[reads[name]]                                # (T, D)
    shares = x.mean(axis=-1) / root_mean_square(x)        # (T,)
    print(f"{name:18} reads rows with a mean of {root_mean_square(shares):.2f} of their size")

# %% [markdown]
# Now take the mean away in all norms of the model, which was trained without that. A norm's output does not tell what
# went in, so the tap below keeps the values of its run as they pass, and looks up what the norm has read.
#
# **Predict.** All norms become LayerNorms (same g, no bias). Does the loss, 2.12 nats per token, rise by about 0.02,
# 0.2 or 2?

# %%
scales = [g for layer in weights["layers"] for g in (layer["attn_norm"], layer["ffn_norm"])]
scale = dict(zip(norms, scales + [weights["norm"]]))      # the g of each norm


def with_norm(norm, chosen):
    """A tap that computes the norms named in `chosen` anew, by norm(x, g)."""
    passed = {}                                           # the values of this run so far

    def tap(name, x):
        if name in chosen:
            x = norm(passed[reads[name]], scale[name])
        passed[name] = x
        return x
    return tap


def layer_norm(x, g):
    return nl.rms_norm(x - x.mean(axis=-1, keepdims=True), g, config.norm_eps)


base = loss()
print(f"loss {base:.3f}; with LayerNorm {loss(with_norm(layer_norm, norms)) - base:+.3f}")

# %% [markdown]
# Is it the mean that matters there? To subtract it is to remove what the row has in one direction, $(1, 1, \dots, 1)$.
# The control removes what it has in another one: plus and minus ones, drawn at random.

# %%
def without(direction):
    """A norm that first removes from each row what it has in a direction (D,)."""
    u = direction / np.linalg.norm(direction)
    return lambda x, g: nl.rms_norm(x - (x @ u)[:, None] * u, g, config.norm_eps)


rng = np.random.default_rng(0)
costs = []
for _ in range(12):
    signs = rng.choice([-1, 1], config.dim).astype(np.float32)
    costs.append(loss(with_norm(without(signs), norms)) - base)
print(f"{len(costs)} random directions: mean {np.mean(costs):+.3f}, largest {max(costs):+.3f}")

# %% [markdown]
# **Explain.** By 0.02. The mean of a row is as large as chance would make it, and taking it away costs what some other
# directions cost too. So a model trained *without* recentring does not suffer much from it. That one trained *with* it
# is no better is the paper's claim, and not tested here.
#
# ## A small number with consequences: eps
#
# Llama 1 used $\epsilon = 10^{-6}$ at 7B, 13B and 33B, but $10^{-5}$ at 65B; Llama 2 uses $10^{-5}$. It is added to the
# *mean square* of a row, so it matters where that is small, and the embedding is where it is smallest.
#
# **Predict.** The embedding has the size 0.08; square it. At which eps does the loss first rise by more than 0.1 nats:
# at $10^{-4}$, $10^{-3}$ or $10^{-2}$?

# %%
for eps in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
    print(f"eps {eps:.0e} in all norms: {loss(config=replace(config, norm_eps=eps)) - base:+.4f}")
print(f"mean square of an embedding row: {np.mean(trace['embedding'] ** 2):.4f}")


def large_eps(x, g):
    return nl.rms_norm(x, g, 1e-2)


for name in norms[:2]:
    print(f"eps 1e-02 in {name} alone: {loss(with_norm(large_eps, [name])) - base:+.4f}")

# %% [markdown]
# **Explain.** Beside a mean square of 0.007, an eps of 0.001 changes little. One of 0.01 makes the divisor $\sqrt{0.017
# / 0.007} = 1.56$ times as large, so rows of size $1 / 1.56 = 0.64$ are read instead of size 1. It is the first
# feed-forward step that suffers; the first attention step, which reads rows as small, hardly matters in this model.
#
# ## Before or after?
#
# The first Transformer normalised *after* adding (post-norm). Llama normalises the *input* of each step and leaves the
# sum alone (pre-norm; LLaMA, section 2.2, takes it from GPT-3):
#
# $$\text{post: } x \leftarrow \mathrm{norm}(x + f(x)) \qquad\qquad \text{pre: } x \leftarrow x + f(\mathrm{norm}(x))$$
#
# First a *toy*: 64 layers of random matrices, stacked both ways, with nothing learned. How much of the start is left
# after each layer? We measure the cosine between the row that went in and the row that is there now.
#
# **Predict.** In the toy, each layer adds a row of the same size as the one it read, about at a right angle to it. So
# the sum is $\sqrt 2$ times as long, and post-norm divides by that in every layer. After 8 layers, what is left of the
# start in post-norm: a half, a quarter, a sixteenth? And in pre-norm, where eight rows of size 1 have been added to a
# start of size 1?

# %%
rng = np.random.default_rng(0)
depth, D = 64, config.dim
matrices = rng.standard_normal((depth, D, D)) / np.sqrt(D)        # keep the size of what they read
start = rng.standard_normal((256, D))


def normed(x):
    return nl.rms_norm(x, 1, config.norm_eps)


def toy(kind, strength=1):
    """The rows after each layer, the start included; `strength` makes what is added smaller."""
    x, rows = start, [start]
    for w in matrices:
        if kind == "pre-norm":
            x = x + strength * (normed(x) @ w)
        else:
            x = normed(x + strength * (x @ w))
        rows.append(x)
    return rows


kinds = ("pre-norm", "post-norm")
kept = {kind: [cosine(x, start).mean() for x in toy(kind)] for kind in kinds}
grown = {kind: [root_mean_square(x).mean() for x in toy(kind)] for kind in kinds}
for n in (1, 8, 64):
    for kind in kinds:
        print(f"after {n:2} layers, {kind:9}: cosine with the start {kept[kind][n]:5.2f}, "
              f"size {grown[kind][n]:.1f}")

# %%
figure, axes = figures.new(3, columns=2)
for ax, values, title in ((axes[0], kept, "cosine with the start"),
                          (axes[1], grown, "size of a row")):
    figures.lines(ax, range(depth + 1), values)
    ax.set(title=title, xlabel="layers", xlim=(0, depth * 1.35))
figures.show(figure, "In this toy, where what is added is as large as what was read, post-norm has "
                     "forgotten the start after ten layers; pre-norm keeps a share of it all the "
                     "way, and its rows grow.")

# %% [markdown]
# **Explain.** A sixteenth: $\sqrt 2$ eight times is $2^4$. In pre-norm, a third: nine rows of size 1 at right angles
# make a row of size $\sqrt 9 = 3$, and the start is one of them. After n layers it is $2^{-n/2}$ there, and $1/\sqrt{n
# + 1}$ here: pre-norm forgets too, only slowly, because its addends stay as they are while the stream grows.
#
# ### And if less is added?
#
# The same toy, with addends made smaller:

# %%
for strength in (1, 0.3, 0.1):
    pre, post = (cosine(toy(kind, strength)[-1], start).mean() for kind in kinds)
    print(f"addends times {strength:3}: after {depth} layers, cosine {pre:.2f} in pre-norm, "
          f"{post:.2f} in post-norm")

# %% [markdown]
# With a tenth, both keep the start. And a trained model chooses what it adds. So look at the real one:

# %%
print("cosine with the embedding, in the model:")
for name in stream[2::2]:
    print(f"   {name:16} {cosine(trace[name], trace['embedding']).mean():.2f}")

# %% [markdown] tags=["result"]
# The toy does not describe this model. Right after layer 0 the embedding is drowned by rows thirty times longer, and at
# the end the cosine is what two random rows of D numbers typically have, $1/16$. Pre-norm *allows* a row to reach the
# end unchanged; it does not keep it there. That pre-norm trains more easily is about gradients, which no run of a
# finished model shows (Xiong and others, [arXiv 2002.04745](https://arxiv.org/abs/2002.04745)).

# %% [markdown]
# ## Take each norm away
#
# Back to the trained model. Skip one norm, but keep its scale g: its step now reads rows of size 3 to 6 instead of 1
# (and of size 0.08 in layer 0).
#
# **Predict.** Compare with deleting the whole step, so that it adds nothing. Is a step without its norm better than no
# step, about as good, or worse?

# %%
def no_norm(x, g):
    return x * g


def silenced(where):
    """A tap that puts zeros in one place."""
    def tap(name, x):
        return np.zeros_like(x) if name == where else x
    return tap


skipped = {name: loss(with_norm(no_norm, [name])) - base for name in norms}
deleted = {}
print("nats more            norm skipped   step deleted")
for name in norms[:-1]:
    step = name.replace("_norm", ".out")                  # attn_norm is what attn.out comes from
    deleted[name] = loss(silenced(step)) - base
    print(f"{name:20} {skipped[name]:12.2f} {deleted[name]:14.2f}")
print(f"{'norm':20} {skipped['norm']:12.2f}")

# %%
figure, ax = figures.new(4.4)
places = np.arange(len(norms))
ax.barh(places - 0.2, skipped.values(), 0.4, color=figures.BLUE, label="its norm skipped")
ax.barh(places[:-1] + 0.2, deleted.values(), 0.4, color=figures.ORANGE, hatch="///",
        edgecolor="white", label="the step deleted")
ax.set_yticks(places, norms)
ax.invert_yaxis()
ax.set(xlabel=f"nats per token more than {base:.2f}")
ax.legend(loc="lower right", bbox_to_anchor=(1, 0.6))
figures.show(figure, "Behind layer 0, a step that reads without its norm costs several times as "
                     "much as no step at all; in layer 0, whose rows are small, it costs about the "
                     "same.")

# %% [markdown]
# **Explain.** Worse, behind layer 0. A step without its norm does not fall silent, it shouts.
#
# ### Wrong, or only too loud?
#
# Let each step read without the norm, but give what it adds the size that it has with the norm.

# %%
def right_size(step):
    """A tap that gives what a step adds, row by row, the size that it had in `trace`."""
    def tap(name, x):
        if name == step:
            sizes = root_mean_square(trace[name]) / root_mean_square(x)
            x = x * sizes[:, None]
        return x
    return tap


def in_turn(first, second):                               # two taps, one after the other
    return lambda name, x: second(name, first(name, x))


print("size of what is added:    with norm   without   nats more   at the right size")
for name in norms[:-1]:
    step = name.replace("_norm", ".out")
    run = nl.Trace()
    nl.forward(tokens, weights, config, tap=in_turn(with_norm(no_norm, [name]), run))
    quiet = loss(in_turn(with_norm(no_norm, [name]), right_size(step))) - base
    print(f"{step:18} {root_mean_square(trace[step]).mean():15.2f} "
          f"{root_mean_square(run[step]).mean():9.2f} {skipped[name]:11.2f} {quiet:14.2f}")

# %% [markdown] tags=["result"]
# Too loud: at the right size, no step costs more than 0.10. (That can be nearly as much as deleting it, as in the first
# line of layer 1. So what it says is wrong as well, but that is the smaller damage.) In layer 5, the feed-forward step
# without its norm adds rows of size 155 to a stream of size 6, and drowns it: it multiplies two things, and what reads
# 6 times too large adds $39$ times too much. In layer 0 it is the other way round: the rows are small, and the step
# whispers.

# %% [markdown]
# ## On the whole, or row by row?
#
# A norm brings rows to the right size *on the whole*, and it makes the rows of a text *equal* in size. Which of the two
# does this model need? Divide all rows by one and the same number, the root mean square of all of them together.
#
# **Predict.** With one number for all rows, in one norm at a time: does the worst norm cost about 0.1 nats, 1 nat, or
# as much as without any division? And in all 13 norms at once?

# %%
def one_number(x, g):
    return x / root_mean_square(x.ravel()) * g


single = {name: loss(with_norm(one_number, [name])) - base for name in norms}
worst = max(single, key=single.get)
run = nl.Trace()
nl.forward(tokens, weights, config, tap=in_turn(with_norm(one_number, norms), run))
print(f"one number in one norm: at most {single[worst]:.2f} nats more, in {worst}")
print(f"one number in all {len(norms)} norms: {loss(with_norm(one_number, norms)) - base:.1f}")
for label, values in (("with norms", trace), ("with one number", run)):
    sizes = root_mean_square(values[reads["norm"]])
    print(f"rows at the end {label:16}: sizes from {sizes.min():.1f} to {sizes.max():.1f}")

# %% [markdown]
# **Explain.** 0.11 nats, and 4.1: the model needs both. One norm may leave rows unequal, as the next ones put it right.
# If none does, a row that is too large is read too large, gets too much added, and grows: the largest ends at 95
# instead of 12.
#
# ### The last norm
#
# No step reads what the last norm gives; the logits do, and their size says how sure the model is:

# %%
for label, tap in (("with", nl.ignore), ("without", with_norm(no_norm, ["norm"]))):
    logits = nl.forward(tokens, weights, config, tap=tap)
    sure = nl.softmax(logits).max(axis=-1).mean()
    right = np.mean(logits[:-1].argmax(axis=-1) == tokens[1:])
    print(f"{label:7} the last norm: the favourite gets {sure:.0%} on average, "
          f"and is right in {right:.0%}")

# %% [markdown]
# ## In the wild
#
# - **LayerNorm instead of RMSNorm.** The first llama.cpp subtracted the mean. Somebody who read the code found it, and
#   guessed why the texts had not shown it: the mean is near 0
#   ([llama.cpp#173](https://github.com/ggml-org/llama.cpp/issues/173)).
# - **The wrong eps reads fluently.** Later it had $10^{-6}$ written into its code
#   ([llama.cpp#2373](https://github.com/ggml-org/llama.cpp/issues/2373)); for Llama 2 7B, stored in 5 bits, that made
#   the perplexity 5.90 instead of 5.83 ([llama.cpp#2374](https://github.com/ggml-org/llama.cpp/pull/2374)). Read such a
#   number from the model's files.
# - **Half precision.** Float16 ends at $65{,}504$, so the square of $300$ overflows. With
#   PyTorch's own RMSNorm in place of its port's, a Llama in float16 gave wrong answers for that reason
#   ([pytorch#133085](https://github.com/pytorch/pytorch/pull/133085)). So compute the norm in float32, even where all
#   else is float16.
#
# ## Questions
#
# **1.** A row is $(3, 3, 3, 3)$. What do RMSNorm and LayerNorm make of it (g = 1, no bias, eps tiny)?
#
# <details>
# <summary>Answer</summary>
#
# RMSNorm: the root mean square is 3, the result $(1, 1, 1, 1)$. LayerNorm subtracts the mean first, which leaves only
# zeros. The two agree on rows whose mean is 0, and differ the more, the larger the mean is beside the size.
#
# </details>
#
# **2.** Double every number of the embedding. Which values of layer 0 change, and which do not (but for eps)?
#
# <details>
# <summary>Answer</summary>
#
# `layers.0.attn_norm` does not: twice the row has twice the size. So nothing in layer 0's attention does, up to
# `attn.out`. But that is added to a row twice as long, so `x_attn` points more along the embedding than before, and
# from `ffn_norm` on everything changes. The norm protects what reads the row directly, not the mixture. (In this model
# the change is small, as layer 0's attention adds rows nine times smaller than the embedding.)
#
# </details>
#
# **3.** Why can the last norm not be folded away altogether, as its scale g can (exercise 1)?
#
# <details>
# <summary>Answer</summary>
#
# Its scale is a fixed number per column and can move into the next matrix. Its division is another number for each row,
# known only when the row is. Greedy decoding would not mind: dividing all logits of a row by one number leaves the
# largest the largest. Probabilities would change.
#
# </details>
#
# ## Exercises
#
# Fill in each function; `check` runs it on several shapes, and says what a wrong answer looks like.
#
# ### 1. One scale fewer
#
# The scale $g$ is followed by a matrix: `(x * g) @ w`. Some programs fold $g$ into the matrix once, at load. Return the
# matrix for which `x @ fold(g, w)` is the same.

# %% tags=["exercise"]
def fold(g, w):
    """The matrix that scales and projects at once: (D,), (D, n) -> (D, n)."""
    ...

# %%
check(fold)

# %% tags=["solution"]
def fold(g, w):
    return g[:, None] * w             # g scales the rows of w, which the columns of x meet

# %% [markdown]
# ### 2. A pre-norm block
#
# `attend` and `feed` are functions (T, D) -> (T, D), `norm_1` and `norm_2` too. Wire them as Llama does.

# %% tags=["exercise"]
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    """One layer around the residual stream: (T, D) -> (T, D)."""
    ...

# %%
check(pre_norm_block)

# %% tags=["solution"]
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    x = x + attend(norm_1(x))
    return x + feed(norm_2(x))

# %% [markdown]
# ### 3. A row on several machines
#
# Large models are spread over machines. Say one holds 4 columns of every row and another 2: `parts` is the list of what
# they hold, an array (T, D_i) from each, and `scales` their pieces of g. Return the list of their parts of the
# normalised rows. It can be done with little traffic: every machine sends one number for each row. Which?

# %% tags=["exercise"]
def norm_in_parts(parts, scales, eps):
    """RMSNorm of rows whose D columns are split up: [(T, D_i)], [(D_i,)], number -> [(T, D_i)]."""
    ...

# %%
check(norm_in_parts)

# %% tags=["solution"]
def norm_in_parts(parts, scales, eps):
    D = sum(part.shape[1] for part in parts)
    sent = [np.sum(part * part, axis=1, keepdims=True) for part in parts]     # (T, 1) from each
    size = np.sqrt(sum(sent) / D + eps)
    return [part / size * scale for part, scale in zip(parts, scales)]

# %% [markdown]
# ## In five lines
#
# 1. RMSNorm divides each row by its root mean square, which keeps its direction; then it scales each column.
# 2. LayerNorm also subtracts the row's mean; this model, which was trained without that, loses 0.02 nats by it.
# 3. Rows of the stream are only added to, and here they grow; each step reads a normalised copy.
# 4. Pre-norm lets a row pass from end to end unchanged; whether it does is up to what is added, and here it does not.
# 5. eps is part of the model, to be read from its files: 1e-6 in most of Llama 1, 1e-5 in its 65B and in Llama 2.
