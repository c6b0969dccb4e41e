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
# | **You will be able to** | compute RMSNorm by hand; say what it leaves out of LayerNorm; explain why Llama normalises *before* each step, and show what breaks when a trained model loses it |
# | **It assumes** | lesson [00](00_start_here.ipynb); the mean and the square root |
# | **Minutes** | 90 |
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
# and feed-forward; each reads the row and adds something to it. (In a trace, `x_attn` and `x_ffn` are the stream after
# each.)
#
# Call the *root mean square* of a row, the square root of the mean of its squares, its *size*: how large a typical
# number of the row is.
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
for label, row in (("embedding", sizes[0]), ("after layer 0", sizes[2]), ("at the end", sizes[-1])):
    print(f"{label:13} {row.mean():5.2f}")

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

# %% [markdown]
# **Explain.** Three times. The first step meets rows of size 0.08, the last of size 6. Each, with matrices of its own,
# could learn its size; but sizes differ within a text too (the band), and change in training with every earlier step.
# So each step reads a copy of the row, brought to a standard size.
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
# With a pencil, D = 2, g = 1: the row $(1, 7)$ has squares $1, 49$, their mean is $25$, the root $5$, and the result
# $(0.2, 1.4)$. The row $(10, 70)$, ten times as large, has the root $50$ and the *same* result. And $(-1, 7)$ has the
# root 5 and gives $(-0.2, 1.4)$: signs stay.
#
# The Llama on the [handout](handout.pdf) does the same in its steps 1 and 2. For `<s>` *cats and* it looks up
# $(-1, 7)$, $(2, 2)$ and $(-3.5, 0.5)$. Do the last two with a pencil, then run:

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

norms = [name for name in trace if name.endswith("norm")]
reads = dict(zip(norms, stream))                          # what each of the 1 + 2 L norms reads
turned = [cosine(trace[reads[name]], trace[name]).mean() for name in norms]

print("the same bits as the model:", np.array_equal(by_hand, trace["layers.1.ffn_norm"]))
print(f"smallest and largest g: {g.min():.2f}, {g.max():.2f}")
print(f"cosine of a row before and after: {cosine(x, by_hand).mean():.2f}; "
      f"in the {len(norms)} norms {min(turned):.2f} to {max(turned):.2f}")

# %%
before = trace["layers.1.x_attn"][:12]
divided = before / root_mean_square(before)[:, None]
after = trace["layers.1.ffn_norm"][:12]
labels = figures.pieces(tokenizer, tokens[:12])
figure, axes = figures.new(3.8, columns=3)
for ax, title, limit, rows in ((axes[0], "before (16 of D columns)", 6, before),
                               (axes[1], "divided by its size", 2, divided),
                               (axes[2], "and scaled by g", 0.6, after)):
    sized = [f"{label} {r:.1f}" for label, r in zip(labels, root_mean_square(rows))]
    figures.matrix(ax, rows[:, :16], rows=sized, title=title, limit=limit)
figures.show(figure, "Each row is a token, with its size beside it. The division makes all of "
                     "size 1 and keeps each pattern; the scale weakens all, here to 0.3, and some "
                     "columns more than others, which turns a row by about 22 degrees (in the "
                     "norm that turns most, 45). A dash marks a negative number; the "
                     "deepest colour is 6, 2 and 0.6.")

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). One number of a norm, and the row that it was made from. Move along that
# row with the arrow keys, and see what changes and what stays:
#
#     python notebooks/explorer/build.py --open "#t=layers.3.attn_norm&i=9.0"

# %% [markdown]
# ## What LayerNorm does besides
#
# The older LayerNorm also subtracts the row's mean $\mu$, and adds a learned bias $b$:
#
# $$\mathrm{LayerNorm}(x)_i = \frac{x_i - \mu}{\sqrt{\frac{1}{D}\sum_j (x_j-\mu)^2 + \epsilon}}\, g_i + b_i$$
#
# RMSNorm's paper (section 1) supposes that the rescaling is what helps, and that the recentring can go, saving time.
# How much is there to recentre? D numbers of size 1 with random signs have a mean that is typically $1/\sqrt D$ away
# from 0: here $1/16 = 0.06$.

# %%
shares = [root_mean_square(trace[name].mean(axis=-1) / root_mean_square(trace[name]))
          for name in stream]                             # one number for each norm
print(f"what the {len(norms)} norms read: the mean of a row is typically "
      f"{min(shares):.3f} to {max(shares):.3f} of its size")

# %% [markdown]
# Now take the mean away in all norms of the model. A tap is handed what a norm has made; to find what the norm had
# read, it keeps all values of the run as they pass.
#
# **Predict.** All norms become LayerNorms (same g, no bias). Does the loss on the story (the text of all losses here),
# 2.12 nats per token, rise by about 0.02, 0.2 or 2?

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


def without(direction):                                   # (1, ..., 1) gives layer_norm
    unit = direction / np.linalg.norm(direction)
    return lambda x, g: nl.rms_norm(x - (x @ unit)[:, None] * unit, g, config.norm_eps)


drawn = np.random.default_rng(0).standard_normal((5, config.dim))
costs = [loss(with_norm(without(direction), norms)) - base for direction in drawn]
print(f"a random direction taken away instead: {min(costs):+.3f} to {max(costs):+.3f}")

# %% [markdown]
# **Explain.** By 0.02. The mean of a row is as large as chance would make it, and a model trained *without* recentring
# hardly notices when it is taken away: what rows have in a random direction, in five draws, costs up to as much. One
# trained *with* it does about as well, the paper finds.
#
# ## The small number under the root: eps
#
# Llama 1 used $\epsilon = 10^{-6}$ at 7B, 13B and 33B, but $10^{-5}$ at 65B; Llama 2 and this model use $10^{-5}$. It
# is added to the *mean square* of a row, so it matters most where that is smallest: in the two rows that layer 0 reads,
# the embedding and, hardly larger, the row after its attention (first figure).
#
# **Predict.** The embedding has the size 0.08; square it. At which eps does the loss first rise by more than 0.1 nats:
# at $10^{-4}$, $10^{-3}$ or $10^{-2}$?

# %%
for eps in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
    print(f"eps {eps:.0e} in all norms: {loss(config=replace(config, norm_eps=eps)) - base:+.4f}")
for chosen in (norms[:2], norms[:1], norms[1:2]):
    only = with_norm(lambda x, g: nl.rms_norm(x, g, 1e-2), chosen)
    print(f"eps 1e-02 in {' and '.join(chosen)} alone: {loss(only) - base:+.4f}")
print(f"mean square of an embedding row: {np.mean(trace['embedding'] ** 2):.4f}")

# %% [markdown]
# **Explain.** At $10^{-2}$. Beside a mean square of 0.007, an eps of 0.001 changes little. One of 0.01 makes the
# divisor $\sqrt{0.017 / 0.007} = 1.56$ times as large, so layer 0 reads rows of $1 / 1.56 = 0.64$ of the usual size:
# that is the whole cost, nearly all of it by the feed-forward step.
#
# ## Before or after?
#
# The first Transformer normalised *after* adding (post-norm). Llama normalises the *input* of each step and leaves the
# sum alone (pre-norm; LLaMA, section 2.2, takes it from GPT-3, "to improve the training stability"):
#
# $$\text{post: } x \leftarrow \mathrm{norm}(x + f(x)) \qquad\qquad \text{pre: } x \leftarrow x + f(\mathrm{norm}(x))$$
#
# First a *toy*: 64 layers of one random matrix each (our 6 layers are 12 of these), stacked both ways. How much of the
# start is left? We measure the cosine of the row after each layer with the row that went in.
#
# **Predict.** Each layer adds a row of the size of the one it read, about at a right angle to it. So the sum is
# $\sqrt 2$ times as long, and post-norm divides by that in every layer. After 8 layers, what is left of the start in
# post-norm: a half, a quarter, a sixteenth? And in pre-norm, where eight rows of size 1 have been added to it?

# %%
rng = np.random.default_rng(0)
depth, D = 64, config.dim
matrices = rng.standard_normal((depth, D, D)) / np.sqrt(D)        # keep the size of what they read
start = rng.standard_normal((256, D))


def normed(x):
    return nl.rms_norm(x, 1, config.norm_eps)


def toy(kind, matrices, strength=1):
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
kept = {kind: [cosine(x, start).mean() for x in toy(kind, matrices)] for kind in kinds}
grown = {kind: [root_mean_square(x).mean() for x in toy(kind, matrices)] for kind in kinds}
for n in (1, 8, 64):
    for kind in kinds:
        print(f"after {n:2} layers, {kind:9}: cosine with the start {kept[kind][n]:5.2f}, "
              f"size {grown[kind][n]:.1f}")

# %%
figure, axes = figures.new(3, columns=2)
for ax, values, title in ((axes[0], kept, "cosine with the start"),
                          (axes[1], grown, "size of a row")):
    figures.lines(ax, range(depth + 1), values)
    ax.set(title=title, xlabel="layers", xlim=(0, depth * 1.35), xticks=range(0, depth + 1, 16))
figures.show(figure, "In this toy, post-norm has forgotten the start after ten layers; pre-norm "
                     "keeps a share of it all the way, and its rows grow.")

# %% [markdown]
# **Explain.** A sixteenth: $\sqrt 2$ eight times is $2^4$. (0.05 in this draw, whose right angles are not exact.) In
# pre-norm, a third: nine rows of size 1 at right angles make a row of size $\sqrt 9 = 3$, and the start is one of them.
# After n layers it is $2^{-n/2}$ there, and $1/\sqrt{n + 1}$ here: pre-norm forgets too, only slowly.
#
# ### What a small change of all matrices does
#
# Training changes all matrices a little: here by 1 percent, at random. How far does the row after layer 64 move, once
# it is brought to size 1? And with addends a tenth as large?
#
# **Predict.** In post-norm, each layer moves what it adds by 1 percent, so the row of size 1 by $1/\sqrt 2$ percent,
# and the later layers hand this on about as large: a change $d$ of the row becomes $(d + d\,W)/\sqrt 2$ with the
# layer's matrix $W$, two rows of one size at a right angle, divided by $\sqrt 2$. All 64 changes are at right angles.
# By about how many percent does that row move: 1, 6 or 45? And in pre-norm, by less or by more?

# %%
noise = rng.standard_normal(matrices.shape) / np.sqrt(D)
print("                     cosine with the start     row after layer 64 moves by")
print("addends times        pre-norm   post-norm      pre-norm   post-norm")
for strength in (1, 0.1):
    ends = [normed(toy(kind, matrices, strength)[-1]) for kind in kinds]
    moved = [normed(toy(kind, matrices + 0.01 * noise, strength)[-1]) for kind in kinds]
    by = [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in zip(ends, moved)]
    cosines = [cosine(end, start).mean() for end in ends]
    print(f"{strength:<18} {cosines[0]:10.2f} {cosines[1]:11.2f} {by[0]:13.1%} {by[1]:11.1%}")

# %% [markdown]
# **Explain.** By 6 percent: $\sqrt{64} / \sqrt 2 = 5.7$. In pre-norm by 2, as the addend of layer n is one of n + 1
# rows in the sum and moves it by $1/\sqrt{n + 1}$ percent: $\sqrt{1/2 + 1/3 + \dots + 1/65} = 1.9$. So the same change
# throws a deep post-norm stack further: for Liu and others ([arXiv 2004.08249](https://arxiv.org/abs/2004.08249)), why
# it is hard to train. (Real changes need not be random.) With addends of one size, as here, pre-norm has a price: the
# later a layer, the smaller its part. The authors find, in translation with LayerNorm, that a stack leaning so lightly
# on its layers ends up worse, where both train. With addends a tenth as large, the two hardly differ.
#
# ### And in the model?
#
# A trained model chooses what it adds: from layer 1 to 5 our feed-forward steps add rows of size 0.47, 0.73, 1.09, 1.59
# and 3.96 (a table below), while the stream that they read only doubles. So there the later has the larger part.

# %% [markdown]
# ## Take each norm away
#
# Skip one norm of the trained model, but keep its scale g: on average its step now reads rows 3 to 6 times too large
# (in layer 0, twelve times too small). That shows what weights trained with norms rely on, not what training needs.
#
# **Predict.** Is a step without its norm better than a deleted one (which adds nothing), about as good, or worse?

# %%
def no_norm(x, g):
    return x * g


def silenced(where):
    """A tap that puts zeros in one place."""
    def tap(name, x):
        return np.zeros_like(x) if name == where else x
    return tap


skipped = {name: loss(with_norm(no_norm, [name])) - base for name in norms}
steps = [name.replace("_norm", ".out") for name in norms[:-1]]    # attn_norm serves attn.out
deleted = [loss(silenced(step)) - base for step in steps]

ratios = [skipped[name] / cost for name, cost in zip(norms[2:], deleted[2:])]
print(f"from layer 1 on, without its norm a step costs {min(ratios):.1f} to {max(ratios):.0f} "
      "times as much as the step deleted")
figure, ax = figures.new(4.4)
places = np.arange(len(norms))
ax.barh(places - 0.2, skipped.values(), 0.4, color=figures.BLUE, label="its norm skipped")
ax.barh(places[:-1] + 0.2, deleted, 0.4, color=figures.ORANGE, hatch="///",
        edgecolor="white", label="the step deleted")
ax.set_yticks(places, norms)
ax.invert_yaxis()
ax.set(xlabel=f"nats per token more than {base:.2f}")
ax.legend(loc="lower right", bbox_to_anchor=(1, 0.6))
figures.show(figure, "In layer 0 the two bars of a step are about equal; from layer 1 on, the "
                     "upper one is longer in every pair.")

# %% [markdown]
# **Explain.** Worse, but for layer 0, whose rows are small.
#
# ### Wrong, or only of the wrong size?
#
# Let each step read without the norm, but give what it adds the size that it has with the norm.

# %%
def right_size(chosen):
    """A tap that gives what these steps add, row by row, the size that it had in `trace`."""
    def tap(name, x):
        if name in chosen:
            sizes = root_mean_square(trace[name]) / root_mean_square(x)
            x = x * sizes[:, None]
        return x
    return tap


def in_turn(first, second):                               # two taps, one after the other
    return lambda name, x: second(name, first(name, x))


print("                      size of what it adds     nats more: norm   at right   step")
print("                      with norm   without      skipped           size       deleted")
for name, step, without_step in zip(norms, steps, deleted):
    run = nl.Trace()
    nl.forward(tokens, weights, config, tap=in_turn(with_norm(no_norm, [name]), run))
    quiet = loss(in_turn(with_norm(no_norm, [name]), right_size([step]))) - base
    print(f"{step:18} {root_mean_square(trace[step]).mean():12.2f} "
          f"{root_mean_square(run[step]).mean():9.2f} {skipped[name]:12.2f} {quiet:15.2f} "
          f"{without_step:13.2f}")


def usual(chosen):                                        # a tap that puts back what `trace` holds
    return lambda name, x: trace[name] if name in chosen else x


left = []
for name, step in zip(norms[:-1:2], steps[::2]):          # attention's
    q_and_k = step.replace("out", "q"), step.replace("out", "k")
    wrong_v = in_turn(with_norm(no_norm, [name]), usual(q_and_k))
    left.append(loss(in_turn(wrong_v, right_size([step]))) - base)
print("attention at its right size, with its usual q and k: less than 0.01 in each layer:",
      max(left) < 0.01)

# %% [markdown] tags=["result"]
# From layer 1 on too loud, in layer 0 too quiet (its feed-forward step adds 0.01 instead of 2.55): at the right size,
# no step costs more than 0.10. (Not only: in layers 0, 1 and 4, attention then still costs more than half of its
# deletion. What it says is wrong too; nearly all of that comes from its q and k, by which it weighs the tokens: lesson
# 03.) In layer 5, the feed-forward step without its norm adds rows of size 155 to a stream of size 6, and drowns it: it
# multiplies two numbers that it makes of the row (lesson 06), so rows about 6 times too large add about $6^2 = 36$
# times too much (here $155 / 3.96 = 39$).

# %% [markdown]
# ### The last norm
#
# Without the last norm, the loss rises most. No step reads it; the logits do, and their size says how sure the
# model is:

# %%
for label, tap in (("with", nl.ignore), ("without", with_norm(no_norm, ["norm"]))):
    logits = nl.forward(tokens, weights, config, tap=tap)
    sure = nl.softmax(logits).max(axis=-1).mean()
    right = np.mean(logits[:-1].argmax(axis=-1) == tokens[1:])
    print(f"{label:7} the last norm: the favourite gets {sure:.0%} on average, "
          f"and is right in {right:.0%}")
print(f"without it, the loss rises by {skipped['norm']:.1f}")

# %% [markdown] tags=["result"]
# The order of the logits stays, but they are some 8 times too large: where the favourite is wrong, the model is sure of
# it.

# %% [markdown]
# ## On the whole, or row by row?
#
# A norm brings rows to the right size *on the whole*, and makes the rows of a text *equal* in size. Which of the two
# does this model need? Divide all rows by one number, the root mean square of all of them (later tokens' too, which no
# generator has).
#
# **Predict.** With one number for all rows, in one norm at a time: does the worst norm cost about 0.1 nats, 1 nat, or
# as much as without any division (5.7, in the last norm)? And in all 13 norms at once?

# %%
def one_number(x, g):
    return x / root_mean_square(x.ravel()) * g


def usual_first(name, x):                                 # what attention reads of <s>, as usual
    if name.endswith(("attn.k", "attn.v")):
        x = x.copy()
        x[:, 0] = trace[name][:, 0]
    return x


def but_the_first(x, g):                                  # the row of <s> by its own size
    return np.concatenate([nl.rms_norm(x[:1], g, config.norm_eps), one_number(x, g)[1:]])


single = {name: loss(with_norm(one_number, [name])) - base for name in norms}
worst = max(single, key=single.get)
print(f"one number in one norm: at most {single[worst]:.2f} nats more, in {worst}; "
      f"in the last {single['norm']:.2f}")
unequal = with_norm(one_number, norms)
print(f"one number in all {len(norms)} norms: {loss(unequal) - base:.1f}")
resized = loss(in_turn(unequal, right_size(steps)))
print(f"   what is added at its right size:   {resized - base:.1f}")
print(f"   k and v of the first row as usual: {loss(in_turn(unequal, usual_first)) - base:.1f}")
print(f"   first row divided by its own size: {loss(with_norm(but_the_first, norms)) - base:.1f}")

run = nl.Trace()
nl.forward(tokens, weights, config, tap=in_turn(unequal, run))
print("size of a row, divided by the median: 10th and 90th percentile, largest")
print("                   with norms           one number      (its row)")
for name in stream:
    spread = []
    for values in (trace, run):
        sizes = root_mean_square(values[name])
        spread.extend(np.percentile(sizes, (10, 90, 100)) / np.median(sizes))
    print(f"{name:15} {spread[0]:5.1f} {spread[1]:5.1f} {spread[2]:5.1f}    "
          f"{spread[3]:5.1f} {spread[4]:5.1f} {spread[5]:5.1f} {sizes.argmax():7}")

# %% [markdown]
# **Explain.** 0.11 nats, and 4.1. The right size on the whole is needed in each norm from layer 1 on (above). Equal
# rows are not, in any norm alone: eight in ten rows are 0.8 to 1.3 times the median. If no norm makes them equal, what
# is too large is read too large, and adds too much: rows drift apart, row 0 (`<s>`) furthest. Every later token can
# read that row in its attention, through its k and v (lesson 03), so it can spoil all: with these two as usual, 0.9 of
# the 4.1 remain; with that row divided by its own size, 0.8; with all that is added at its right size, 0.2.

# %% [markdown]
# ## In the wild
#
# - **LayerNorm instead of RMSNorm.** The first llama.cpp subtracted the mean. It was found by reading the code, and
#   hardly expected to show, "because the mean is probably around 0"
#   ([llama.cpp#173](https://github.com/ggml-org/llama.cpp/issues/173)).
# - **The wrong eps costs a little, or more.** Later it had $10^{-6}$ written into its code
#   ([llama.cpp#2373](https://github.com/ggml-org/llama.cpp/issues/2373)); for Llama 2 7B, stored in 5 bits, that made
#   the perplexity ($e$ to the loss) 5.90 instead of 5.83, 0.01 nats more
#   ([llama.cpp#2374](https://github.com/ggml-org/llama.cpp/pull/2374)). Files err too: one user's 7B chat model came
#   with $10^{-6}$ in its config, and spoke random German words until that was corrected
#   ([llama#771](https://github.com/meta-llama/llama/issues/771)). (Here the same exchange changes 0.0001 nats: our mean
#   squares are 0.007 or more on average, 700 times eps.)
# - **Half precision.** Float16 ends at $65{,}504$, so the square of $300$ overflows. With
#   PyTorch's own RMSNorm in place of the one in transformers, a Llama in float16 gave wrong answers for that reason
#   ([pytorch#133085](https://github.com/pytorch/pytorch/pull/133085)). So compute the norm in float32.
#
# ## Questions
#
# **1.** A row is $(3, 3, 3, 3)$. What do RMSNorm and LayerNorm make of it (g = 1, no bias, eps tiny)?
#
# <details>
# <summary>Answer</summary>
#
# RMSNorm: the root mean square is 3, the result $(1, 1, 1, 1)$. LayerNorm subtracts the mean first, which leaves only
# zeros. The two agree on rows whose mean is 0.
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
# from `ffn_norm` on everything changes.
#
# </details>
#
# **3.** Why can the last norm not be folded away altogether, as its scale g can (exercise 1, below)?
#
# <details>
# <summary>Answer</summary>
#
# Its scale is a fixed number per column and can move into the next matrix. Its division is another number for each row,
# known only when the row is. Greedy decoding would not mind, as the largest logit stays the largest. Probabilities
# would change.
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
# Say one machine holds 4 columns of every row and another 2: `parts` is the list of what they hold, an array (T, D_i)
# from each, and `scales` their pieces of g. Return the list of their parts of the normalised rows. Every machine need
# send only one number for each row. Which?

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
# 2. LayerNorm also subtracts the row's mean; this model, trained without that, loses 0.02 nats by it on this story.
# 3. Rows of the stream are only added to, and grow; a step reads a normalised copy, or (from layer 1 on) adds too much.
# 4. Pre-norm keeps all that was added in the sum as it was; post-norm rescales the whole sum in every layer.
# 5. eps is part of the model, to be read from its files: 1e-6 in most of Llama 1, 1e-5 in its 65B and in Llama 2.
