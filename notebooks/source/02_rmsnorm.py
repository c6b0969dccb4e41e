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
# | **Minutes** | 45 |
#
# T tokens, D model width, L layers.

# %% tags=["hide"]
from dataclasses import replace

import checks
import figures
import numpy as np
from course import STORY, config, loss, nl, tokenizer, weights

check = checks.lesson("02")

# %% [markdown]
# ## The stream that everything is added to
#
# Each token travels through the model as one row of D numbers, the *residual stream*. Attention and feed-forward, in
# turn, read the row and add something to it. No step overwrites the row; but an addend can point the other way, and
# then it cancels a part of what is there.
#
# **Predict.** The row starts as an embedding. How large are its numbers after every layer: the same, a little larger,
# ten times, a hundred times? The *root mean square*, the square root of the mean of the squares, is the size of a
# typical number.

# %%
def root_mean_square(x):                                  # (T, D) -> (T,)
    return np.sqrt(np.mean(x * x, axis=-1))


tokens = tokenizer.encode(STORY)
trace = nl.Trace()
nl.forward(tokens, weights, config, tap=trace)
stream = ["embedding"]
stream += [name for name in trace if name.endswith(("x_attn", "x_ffn"))]
sizes = np.array([root_mean_square(trace[name]) for name in stream])    # (1 + 2 L, T)

print(f"T {len(tokens)}, D {config.dim}, L {config.n_layers}")
for name, size in zip(stream, sizes):
    print(f"{name:16} {size.mean():5.2f}")
print(f"from the embedding to the end: {sizes[-1].mean() / sizes[0].mean():.0f} times")
shrunk = np.mean(sizes[1:] < sizes[:-1], axis=1)          # share of tokens, for each step
for name, share in zip(stream[1:], shrunk):
    if share > 0:
        print(f"{name} is smaller than the row before it at {share:.0%} of the tokens")

# %%
figure, ax = figures.new(3.2)
ax.fill_between(range(len(stream)), sizes.min(axis=1), sizes.max(axis=1),
                color=figures.SKY, alpha=0.3, linewidth=0)
ax.plot(sizes.mean(axis=1), "o-", color=figures.BLUE)
ax.set(yscale="log", ylabel="root mean square of a row (D)", title="The residual stream grows")
ax.set_xticks(range(len(stream)), [name.replace("layers.", "") for name in stream],
              rotation=45, ha="right")
figures.show(figure, "The line is the mean over T tokens, the band reaches from the smallest token "
                     "to the largest: the first feed-forward step lifts the stream thirtyfold, and "
                     "the mean goes on growing.")

# %% [markdown]
# **Explain.** Here the sum grows, though single addends shrink single rows. A layer that expects numbers near 1 would get numbers near 0.1 at the start and near 8 at the
# end, and different ones for different tokens. So each layer first brings its input to a standard size, reads *that*,
# and leaves the stream itself alone.
#
# ## RMSNorm, by hand
#
# LLaMA (section 2.2) normalises the input of every sub-layer with RMSNorm, whose paper defines it (section 4,
# equation 4) as
#
# $$\bar{a}_i = \frac{a_i}{\mathrm{RMS}(a)}\, g_i, \qquad \mathrm{RMS}(a) = \sqrt{\frac{1}{D}\sum_{j=1}^{D} a_j^2}$$
#
# with one learned number $g_i$ for each of the D columns. Code adds a small $\epsilon$ under the root, so that a row of
# zeros stays zeros instead of becoming 0/0.
#
# With a pencil, three tokens, D = 2, g = 1: the row $(1, 7)$ has squares $1, 49$, their mean is $25$, the root $5$, and
# the result $(0.2, 1.4)$. The row $(10, 70)$, ten times as large, has the root $50$ and the *same* result. And $(-1, 7)$
# has the root 5 again and gives $(-0.2, 1.4)$: signs stay. Now four numbers, step by step:

# %%
a = np.array([3.0, -1.0, 1.0, 1.0], np.float32)
mean_square = np.mean(a * a)
print("squares     ", a * a)
print("their mean  ", mean_square)
print("its root    ", np.sqrt(mean_square).round(4))
print("normalised  ", (a / np.sqrt(mean_square)).round(4))
print("their size  ", np.sqrt(np.mean((a / np.sqrt(mean_square)) ** 2)).round(4))

# %% [markdown]
# The direction of the row stays; only its length changes. That is all, and it is one line of
# [numpy_llama.py](../numpy_llama.py). On the real stream, the line and the function give the same bits:

# %%
x, g = trace["layers.2.x_ffn"], weights["layers"][3]["attn_norm"]       # (T, D), (D,)
by_hand = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + config.norm_eps) * g

print("the function  ", np.array_equal(by_hand, nl.rms_norm(x, g, config.norm_eps)))
print("and the model ", np.array_equal(by_hand, trace["layers.3.attn_norm"]))

# %%
before = trace["layers.0.x_ffn"][:12]
after = nl.rms_norm(before, np.float32(1), config.norm_eps)
labels = figures.pieces(tokenizer, tokens[:12])
figure, axes = figures.new(3.8, columns=2)
for ax, title, rows in ((axes[0], "before (24 of D columns)", before), (axes[1], "after", after)):
    sized = [f"{label} {size:.1f}" for label, size in zip(labels, root_mean_square(rows))]
    figures.matrix(ax, rows[:, :24], rows=sized, title=title, limit=5)
figures.show(figure, "Each row is a token, with its size beside it: before, some rows are three "
                     "times as strong as others; after, all have size 1, and each keeps its "
                     "pattern.")

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). One number of a norm, and the row that it was made from. Move along that
# row with the arrow keys, and see what changes and what stays:
#
#     python notebooks/explorer/build.py --open "#t=layers.3.attn_norm&i=9.0"

# %% [markdown]
# ## What LayerNorm does more
#
# LayerNorm, which came first, also takes the mean of the row away, and adds a learned bias:
#
# $$\mathrm{LayerNorm}(a)_i = \frac{a_i - \mu}{\sqrt{\frac{1}{D}\sum_j (a_j-\mu)^2 + \epsilon}}\, g_i + b_i$$
#
# RMSNorm's claim (section 1 of its paper) is that the rescaling is what helps, and that the recentring can go.
#
# **Predict.** If we replace all the model's norms by LayerNorm (same $g$, no bias) *without training it again*, does it
# still tell stories? Look first at how large the mean of a row is, next to its root mean square.

# %%
def layer_norm(x, weight, eps):
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + eps) * weight


last = trace[f"layers.{config.n_layers - 1}.x_ffn"]
print(f"mean of a row {np.abs(last.mean(axis=-1)).mean():.2f}, "
      f"root mean square {root_mean_square(last).mean():.1f}")


def scale_of(name):                                 # the weight g of a norm, by its trace name
    if name == "norm":
        return weights["norm"]
    _, i, kind = name.split(".")                          # layers.3.attn_norm
    return weights["layers"][int(i)][kind]


def replace_norms(norm, chosen):
    """A tap that computes the norms with the chosen trace names anew, by norm(x, weight, eps)."""
    seen = {}                                             # the residual stream, as it came by last

    def tap(name, x):
        if name.endswith(("embedding", "x_attn", "x_ffn")):
            seen["stream"] = x
        if name in chosen:
            x = norm(seen["stream"], scale_of(name), config.norm_eps)
        return x
    return tap


norms = [name for name in trace if name.endswith("norm")]
print(f"{len(norms)} norms; loss with RMSNorm {loss():.3f}, "
      f"with LayerNorm {loss(replace_norms(layer_norm, norms)):.3f}")

# %% [markdown]
# **Explain.** The mean of a row is small beside its size, so taking it away changes almost nothing, and the model
# hardly notices. What LayerNorm does more is work that need not be done.
#
# ## A small number with consequences: eps
#
# Llama 1 used $\epsilon = 10^{-6}$ at 7B, 13B and 33B, but $10^{-5}$ at 65B; Llama 2 uses $10^{-5}$. It is added to the *mean square*: it matters where that is
# small, and the embedding is where it is smallest.
#
# **Predict.** From which eps on does this model suffer?

# %%
base = loss()
for eps in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
    print(f"eps {eps:.0e}: loss {loss(config=replace(config, norm_eps=eps)) - base:+.4f}")
print(f"mean square of an embedding row: {np.mean(trace['embedding'] ** 2):.4f}")

# %% [markdown]
# **Explain.** Beside a mean square of 0.007, an eps of a hundredth of it changes little; one of its own size halves
# what the first layer reads.
#
# ## Before or after?
#
# The first Transformer normalised *after* adding (post-norm). Llama normalises the *input* of each sub-layer and leaves
# the sum alone (pre-norm; LLaMA, section 2.2, takes it from GPT-3):
#
# $$\text{post: } x \leftarrow \mathrm{norm}(x + f(x)) \qquad\qquad \text{pre: } x \leftarrow x + f(\mathrm{norm}(x))$$
#
# First a *toy*: 64 layers of random matrices, stacked both ways, with nothing learned. How much of the start is left
# at each depth? We measure the cosine between the row that went in and the row that is there now: 1 is the same
# direction, 0 a right angle.
#
# **Predict.** Suppose that a random step adds a row of the same size, at a right angle. Then post-norm divides by
# $\sqrt 2$ in every layer. How much of the start is left after 8 layers: a half, a quarter, a sixteenth?

# %%
rng = np.random.default_rng(0)
depth, D = 64, config.dim
matrices = rng.standard_normal((depth, D, D)) / np.sqrt(D)        # keep the size of what they read
start = rng.standard_normal((16, D))


def norm(x):
    return nl.rms_norm(x, 1, config.norm_eps)


def cosine(a, b):
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.mean(np.sum(a * b, axis=-1) / lengths)


kept = {"pre-norm": [1.0], "post-norm": [1.0]}
size = {"pre-norm": [1.0], "post-norm": [1.0]}
pre = post = start
for w in matrices:
    pre, post = pre + norm(pre) @ w, norm(post + post @ w)
    for label, x in (("pre-norm", pre), ("post-norm", post)):
        kept[label].append(cosine(x, start))
        size[label].append(root_mean_square(x).mean())

for n in (1, 8, 64):
    for label in ("pre-norm", "post-norm"):
        print(f"after {n:2} layers, {label:9}: cosine with the embedding {kept[label][n]:5.2f}, "
              f"size {size[label][n]:.1f}")

# %%
figure, axes = figures.new(3, columns=2)
for ax, values, title in ((axes[0], kept, "cosine with the embedding"),
                          (axes[1], size, "size of the stream")):
    figures.lines(ax, range(depth + 1), values)
    ax.set(title=title, xlabel="layers", xlim=(0, depth * 1.35))
figures.show(figure, "Post-norm shrinks what is there at every layer and has forgotten the "
                     "embedding after ten; pre-norm keeps a share of it all the way, and pays with "
                     "a stream that grows.")

# %% [markdown]
# **Explain.** About a sixteenth (0.04 in this draw), $2^{-8/2}$. Post-norm divides everything, old and new, at every layer; pre-norm leaves the
# old as it is, and pays with growth. That is what *random* addends do. A trained model chooses its addends, and can
# cancel what it likes. So look at the real one:

# %%
print("cosine with the embedding, in the model:")
for name in stream[2::2]:
    print(f"   {name:16} {cosine(trace[name], trace['embedding']):+.2f}")


def without_embedding(name, x):
    """A tap that subtracts the embedding from the stream after layer 0."""
    if name == "layers.0.x_ffn":
        x = x - trace["embedding"]
    return x


print(f"loss with the embedding subtracted after layer 0: {loss(without_embedding) - loss():+.4f}")

# %% [markdown]
# **Explain.** The toy does not describe this model: its stream has left the embedding's direction long before the end,
# and does not even need the embedding after layer 0, which has written down anew what the token is. Pre-norm *allows* a
# row to reach the end unchanged; it does not keep it there. Where the toy does hold is the way back: gradients pass
# through the plain sums from the loss to any depth, undivided. Whether that is why pre-norm trains more easily cannot be
# seen without training.
#
# ## Take each norm away
#
# Now in the trained model: skip one norm, keep its scale $g$, and watch the loss on our story. A norm does two things: it
# brings rows to the right size *on the whole*, and it makes rows *equal* in size. To tell the two apart, replace it also
# by a division of all rows by one and the same number, the root mean square of all of them together.
#
# **Predict.** Which of the two will cost more: no norm at all, or one number for all rows?

# %%
def no_norm(x, weight, eps):
    return x * weight


def one_number(x, weight, eps):
    return x / np.sqrt(np.mean(x * x) + eps) * weight


def silenced(where):
    """A tap that puts zeros in one place."""
    def tap(name, x):
        return np.zeros_like(x) if name == where else x
    return tap


cost = {name: loss(replace_norms(no_norm, [name])) - base for name in norms}
print("nats more             no norm   one number   its step deleted")
for name, nats in cost.items():
    one = loss(replace_norms(one_number, [name])) - base
    step = name.replace("_norm", ".out")                  # attn_norm feeds attn.out
    deleted = f"{loss(silenced(step)) - base:+18.2f}" if step != name else ""
    print(f"{name:18} {nats:+9.2f} {one:+12.2f} {deleted}")

# %%
figure, ax = figures.new(3.6)
figures.bars(ax, cost, "+.2f", marked=[min(cost, key=cost.get)])
ax.set(xlabel="nats per token lost",
       title=f"One norm skipped at a time (loss with all: {base:.2f})")
figures.show(figure, "Only one norm can be spared, the very first (hatched); every other costs "
                     "between half a nat and six, the last one most.")

# %% [markdown]
# **Explain.** One number for all rows costs at most 0.11 nats: what this model needs of a norm is the size on the
# whole, and hardly that rows be equal. In the first layer attention does little yet: what comes in small goes out small. The last norm sets the
# size of the logits themselves: without it they are several times too large, and the model is several times too sure.
#
# ## In the wild
#
# - **The wrong eps reads fluently.** A program had $10^{-6}$ written into its code, and met a $10^{-5}$ model:
#   perplexity 5.90 instead of 5.83 ([llama.cpp#2373](https://github.com/ggml-org/llama.cpp/issues/2373)). Read a number
#   like this from the file.
# - **A norm too many or too few.** Ports forget the last norm before the logits. The figure above says what it costs.
# - **Half precision.** The squares of a large stream overflow float16 (its largest number is 65,504), so ports compute
#   the norm in float32 even where all else is float16.

# %%
large = np.float16(300)
with np.errstate(over="ignore"):
    print(f"largest float16: {np.finfo(np.float16).max:,.0f}")
    print(f"the square of {large:.0f} in float16: {large * large}")

# %% [markdown]
# ## Questions
#
# **1.** A row is $(3, 3, 3, 3)$. What do RMSNorm and LayerNorm make of it (g = 1, no bias, eps tiny)?
#
# <details>
# <summary>Answer</summary>
#
# RMSNorm: the root mean square is 3, the result $(1, 1, 1, 1)$. LayerNorm takes the mean away first, which leaves only
# zeros. The two agree on rows whose mean is 0, and differ the more, the larger the mean is beside the size.
#
# </details>
#
# **2.** Double every number of the embedding. Which values of the trace change, which (but for eps) do not?
#
# <details>
# <summary>Answer</summary>
#
# `embedding` doubles; `layers.0.attn_norm` does not change, nor does what layer 0's attention adds. But that is added
# to a row twice as large, so `layers.0.x_attn` points another way than before, and from its norm on everything changes.
# The norm protects what reads the row directly, not the mixture.
#
# </details>
#
# **3.** Why can the last norm not be folded away altogether, as its scale $g$ can (exercise 2)?
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
# ### 1. RMSNorm

# %% tags=["exercise"]
def rms_norm(x, weight, eps):
    """Each row divided by its root mean square, then scaled: (T, D), (D,), number -> (T, D)."""
    ...

# %%
check(rms_norm)

# %% tags=["solution"]
def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight

# %% [markdown]
# ### 2. One scale less
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
# ### 3. A pre-norm block
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
# ## In five lines
#
# 1. RMSNorm divides each row by its root mean square and scales each column by a learned number; directions stay.
# 2. LayerNorm also takes the mean away; this model hardly notices the difference, as the mean is small.
# 3. The residual stream is a sum that grows here; every sub-layer reads a normalised copy and adds to the original.
# 4. Pre-norm lets a row pass from end to end unchanged; whether it does is up to the addends, and here it does not.
# 5. eps is part of the model, to be read from its files: 1e-6 in most of Llama 1, 1e-5 in its 65B and in Llama 2.
