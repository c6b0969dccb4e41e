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
# # 11. Learning
#
# | | |
# | --- | --- |
# | **The question** | How do weights that begin as random numbers come to predict text? |
# | **You will be able to** | say what a gradient is, and pull it back through every part of a Llama in a few lines of NumPy; check any gradient by a measurement; compute a step of AdamW by hand; train a tiny Llama, and tell what it has learned from what it has memorised; read the curve of a training run |
# | **It assumes** | lessons [02](02_rmsnorm.ipynb) to [07](07_forward_pass.ipynb) and [10](10_objective_and_sampling.ipynb); the derivative of a function of one variable, with the product rule and the chain rule |
# | **Minutes** | 125 |
#
# T tokens, V vocabulary, D model width, F feed-forward width, H query heads, G key/value heads, d head width, L layers.

# %% tags=["hide"]
import copy
import csv
import itertools
import json
import math
import textwrap
from unittest.mock import patch

import checks
import figures
import ml_dtypes
import numpy as np
from course import FOLDER, ROOT, SENTENCE, STORY, config, exact, nl, tokenizer

check = checks.lesson("11")

# %% [markdown]
# ## Which way, and how far?
#
# Think of the weights as dials, and of the loss as the number on the display. For each dial, ask: *if I turn it up a
# little, how fast does the loss rise?* That is a derivative, or *slope*. The slopes of all dials, in arrays of the
# same shapes as the weights, are the *gradient*. To learn is to turn every dial a little against its own slope, to look
# at the next text, and to do it again, some thousand times. (This is *gradient descent*, *stochastic* if each step
# looks at a few texts only; the rule that makes a step of a gradient is the *optimizer*.)
#
# So there are two questions. *Which way*: how does one find millions of slopes at once? *How far*: by how much
# does one turn each dial?
#
# ### One weight, with a pencil
#
# Take one weight $w = 3$, one input $x = 2$, and a loss that wants their product to be $5$:
#
# $$h = w x = 6, \qquad e = h - 5 = 1, \qquad \mathcal L = e^2 = 1$$
#
# Walk back from the loss, one step at a time. $\mathcal L = e^2$ rises $2e = 2$ times as fast as $e$. Then $e$ rises
# just as fast as $h$. Last, $h = wx$ rises $x = 2$ times as fast as $w$. The *chain rule* multiplies the three:
# $\mathcal L$ rises $2 \cdot 1 \cdot 2 = 4$ times as fast as $w$.
#
# We write `dw = 4`, and so `dh = 2` and `de = 2`: the letter d in front always means *derivative of the loss*, and `dx`
# has the shape of `x`. Computing the values is the *forward pass*,
# this walk the *backward pass* (*backpropagation*).
#
# **Predict.** What is `dx`? What becomes of the loss if w takes a step of $0.1$ times its gradient downhill, to
# $3 - 0.1 \cdot 4 = 2.6$? And with $0.26$ instead of $0.1$? (This factor is called the *learning rate*.)

# %%
def small_loss(w, x):
    return (w * x - 5) ** 2


figures.show(figures.draw_chain({"w": 3, "x": 2, "h": 6, "e": 1, "L": 1},
                                {"w": 4, "x": 6, "h": 2, "e": 2, "L": 1}),
             "Forward (black), each step computes its value. Backward (orange), each step takes a "
             "gradient, multiplies it by its own slope, and passes it on.")
print(f"measured: dw = {(small_loss(3.01, 2) - small_loss(2.99, 2)) / 0.02:.2f}, "
      f"dx = {(small_loss(3, 2.01) - small_loss(3, 1.99)) / 0.02:.2f}")
for rate in (0.1, 0.26):
    w = 3 - rate * 4
    print(f"rate {rate}: w becomes {w:.2f}, the loss {small_loss(w, 2):.2f}")

# %% [markdown]
# **Explain.** `dx` is `dh` times w, 6. The gradient says which way is down *here*, and how steep it is, but not how far
# the valley goes. (The measured slopes are the loss a little to the right, minus the loss a little to the left, divided
# by the distance between them.)

# %%
paths = {}
for rate in (0.02, 0.1, 0.26):
    paths[rate] = [3.0]
    for _ in range(6):
        w = paths[rate][-1]
        paths[rate].append(w - rate * 2 * (w * 2 - 5) * 2)        # dw = 2 e · x
figures.show(figures.draw_descent(paths, lambda w: small_loss(w, 2)),
             "Six steps from w = 3: a small rate creeps, a good one arrives, one that is too large "
             "jumps over the valley, each time a little higher.")

# %% [markdown]
# ### Two rules for everything
#
# - *One after the other: multiply.* That was the chain rule above.
# - *Several ways: add.* If w is used twice, it acts on the loss in two ways, and its derivative is the sum of both. For
#   $y = 2w + 3w$ it is $2 + 3$. In a Llama almost everything is used more than once: a weight for every token, a key
#   for its own and every later query, the residual stream by every layer.
#
# ## A judge: measuring slopes
#
# Every formula below will be held against such a measurement, a *finite difference*.
#
# **Predict.** The slope of $x^3$ at 1 is 3. Measured with the step s it is $((1 + s)^3 - (1 - s)^3) / 2s = 3 + s^2$, so
# take a tiny s? But then one subtracts two numbers that agree in nearly all digits. In float64, with about 16 digits,
# is 1e-1, 1e-5 or 1e-13 best? And will float32, with about 7, do?

# %%
for step in (1e-1, 1e-3, 1e-5, 1e-13):
    for dtype in (np.float64, np.float32):
        right, left = dtype(1) + dtype(step), dtype(1) - dtype(step)
        slope = (right * right * right - left * left * left) / (2 * dtype(step))
        print(f"{dtype.__name__}: step {step:.0e}, relative error {abs(slope - 3) / 3:.0e}")


# %%
def measured(f, x, step=1e-5):
    """The gradient of f() with respect to the array x: each number is moved, and put back."""
    dx = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + step
        above = f()
        x[index] = kept - step
        below = f()
        x[index] = kept
        dx[index] = (above - below) / (2 * step)
    return dx


def compare(name, f, x, dx):
    """Print how far the gradient dx of f() is from the measured one, as a share of the largest."""
    error = np.abs(measured(f, x) - dx).max() / np.abs(dx).max()
    off = "less than 1e-7" if error < 1e-7 else f"{error:.0%}"
    print(f"{name:9} {str(dx.shape):10} off by {off}")


# %% [markdown]
# **Explain.** In the middle: the error from curvature shrinks with the square of the step, the error of the
# subtraction grows as the step shrinks. In float32 the best of these steps leaves five digits, and 1e-5 only three. So
# this lesson computes in float64, with `exact`, the shipped model's weights in that type.
#
# Why not train by measuring, then? Each of the 5.8 million weights would take two forward passes a step.
# The backward pass gets all slopes for about two.
#
# ## The gradient of the loss
#
# Start at the end. A row of logits z, the token that really came has the id y, and the loss is
# $\mathcal L = -\ln p_y = \ln \sum_j e^{z_j} - z_y$ (lesson [10](10_objective_and_sampling.ipynb)).
#
# 1. The first term: $\dfrac{\partial}{\partial z_i} \ln \sum_j e^{z_j} = \dfrac{e^{z_i}}{\sum_j e^{z_j}} = p_i$, the
#    probability of token i.
# 2. The second term: $\partial z_y / \partial z_i$ is 1 for $i = y$, and 0 for all others.
# 3. So `dz` is *probabilities minus truth*: $p_i$ everywhere, and $p_y - 1$ at the token that came.
#
# With a pencil: $z = (\ln 2, 0, 0)$ has the probabilities $(1/2, 1/4, 1/4)$. If the second token comes,
# `dz` $= (1/2, -3/4, 1/4)$.
#
# **Predict.** Against the gradient, which logits go up and which go down? What is the sum of `dz`, always? And what is
# `dz` if the model was certain, and right?

# %%
def cross_entropy_back(logits, targets):
    """The gradient of the mean surprise: (T, V), (T,) -> (T, V)."""
    dlogits = nl.softmax(logits)
    dlogits[np.arange(len(targets)), targets] -= 1
    return dlogits / len(targets)                         # a mean: each token counts 1/T


z = np.log([[2.0, 1, 1]])                                 # (1, 3)
came = np.array([1])
dz = cross_entropy_back(z, came)
print("dz =", dz[0])
compare("dz", lambda: nl.cross_entropy(z, came).mean(), z, dz)

# %%
story = np.array(tokenizer.encode(STORY))
logits = nl.forward(story[:-1], exact, config)            # (T, V)
before = figures.pieces(tokenizer, story).index(" golden") - 1          # the place before it
row = cross_entropy_back(logits[[before]], story[[before + 1]])[0]       # of this token alone
print("after:", tokenizer.decode(story[:before + 1])[-42:])
for i in [story[before + 1], *np.argsort(-row)[:4]]:
    print(f"{tokenizer.sp.id_to_piece(int(i)):10} {row[i]:+.3f}")
print(f"all that is above zero {row[row > 0].sum():.3f}")

# %% [markdown]
# **Explain.** We go *against* the gradient: the token that came is pulled up, by what it lacked to be certain;
# every other is pushed down, by the probability that it wrongly got. The sum is 0. A model that was certain and right
# has a gradient of 0.
#
# **Explore** ([explorer](explorer/README.md)). For each token of a text, what the model says comes next, and which
# token did come:
#
#     python notebooks/explorer/build.py --open "#p=Once+upon+a+time+there+was+a+king&t=logits&i=7.569"
#
# ## A matrix product
#
# $y = xW$, and the step after it hands us `dy`. Written out, $y_{tj} = \sum_i x_{ti} W_{ij}$.
#
# 1. If $W_{ij}$ rises by 1, $y_{tj}$ rises by $x_{ti}$, for every token t. Several ways, so add: `dW[i, j]` is
#    $\sum_t x_{ti}\, dy_{tj}$. So `dW = x.T @ dy`.
# 2. If $x_{ti}$ rises by 1, $y_{tj}$ rises by $W_{ij}$, for every j. Add again: `dx = dy @ W.T`.
# 3. The shapes agree: $(D, T)(T, V)$ is $(D, V)$ like W, and $(T, V)(V, D)$ is $(T, D)$ like x.
#
# With a pencil, one token $x = (1, 2)$ in front of the logits above:
#
# $$dW = \begin{pmatrix} 1 \\ 2 \end{pmatrix} \begin{pmatrix} \tfrac12 & -\tfrac34 & \tfrac14 \end{pmatrix}
# = \begin{pmatrix} \tfrac12 & -\tfrac34 & \tfrac14 \\ 1 & -\tfrac32 & \tfrac12 \end{pmatrix}$$
#
# How to check a function with many results: take the sum of its results times fixed numbers `dy` as the loss. Then `dy`
# is what the loss hands back.
#
# **Predict.** The forward product takes $T D V$ multiplications. How many does the way back take: half as many, as
# many, or twice as many?

# %%
def product_back(dy, x, w):
    """Back through y = x @ w: (T, out), (T, in), (in, out) -> dx (T, in), dw (in, out)."""
    return dy @ w.T, x.T @ dy


x, w = np.array([[1.0, 2]]), np.array([[0.5, -1, 0], [2, 0, 1]])
dx, dw = product_back(dz, x, w)
print(dw)

rng = np.random.default_rng(0)
x, w, dy = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
dx, dw = product_back(dy, x, w)
compare("x", lambda: np.sum(dy * (x @ w)), x, dx)
compare("w", lambda: np.sum(dy * (x @ w)), w, dw)

# %% [markdown]
# **Explain.** Twice as many: two products of the same size. A Llama is almost nothing but such products, so a backward
# pass costs about two forward passes.
#
# ## RMSNorm
#
# $y = n \otimes g$ with $n = x / r$ and $r = \sqrt{\mathrm{mean}(x^2) + \epsilon}$ (lesson [02](02_rmsnorm.ipynb)). y
# rises g times as fast as n, so for one token `dn` $= dy \otimes g$. Then:
#
# 1. The mean of the squares rises $2 x_j / D$ times as fast as $x_j$, and the root of it $1 / 2r$ times as fast again:
#    $\partial r / \partial x_j = x_j / (D r) = n_j / D$.
# 2. So $n_i = x_i / r$ moves in two ways. By the numerator: $\delta_{ij} / r$, where $\delta_{ij}$ is 1 for $i = j$ and
#    0 otherwise. By the denominator: $-\frac{x_i}{r^2} \cdot \frac{n_j}{D} = -\frac{n_i n_j}{D r}$.
# 3. Add over i: $dx_j = \sum_i dn_i\, (\delta_{ij} - n_i n_j / D) / r$, which is
#    $\big(dn_j - n_j \cdot \tfrac1D \sum_i dn_i n_i\big) / r$. The sum over D is a mean:
#    `dx` $= \big(dn - n \cdot \mathrm{mean}(dn \otimes n)\big) / r$. And g meets every token: `dg` is the sum of
#    $dy \otimes n$ over tokens.
#
# The subtraction has a meaning. RMSNorm forgets how long x is (but for ε), so moving x along itself changes nothing,
# and the gradient must have no part in that direction. With a pencil (ε = 0, g = 1): $x = (1, 7)$ has $r = 5$ and
# $n = (0.2, 1.4)$. For $dy = (1, 0)$ the mean is $0.1$, and
# $dx = \big((1, 0) - 0.1 \cdot (0.2, 1.4)\big) / 5 = (0.196, -0.028)$. Along x: $1 \cdot 0.196 - 7 \cdot 0.028 = 0$.
#
# **Predict.** Suppose we forget the subtraction, in the pencil example. What is `dx` then? Does it point roughly the
# right way? Will the measurement notice?

# %%
def rms_norm_back(dy, x, g, eps):
    """Back through rms_norm: (T, D), (T, D), (D,) -> dx (T, D), dg (D,)."""
    r = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    n = x / r
    dn = dy * g
    dx = (dn - n * np.mean(dn * n, axis=-1, keepdims=True)) / r
    return dx, np.sum(dy * n, axis=0)


def forgetful(dy, x, g, eps):
    """rms_norm_back without the subtraction, which is wrong."""
    r = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return dy * g / r, np.sum(dy * x / r, axis=0)


dx, dg = rms_norm_back(np.array([[1.0, 0]]), np.array([[1.0, 7]]), np.ones(2), 0)
print("pencil:", dx[0].round(3), "forgetful:", np.array([1.0, 0]) / 5)

x, g, dy = rng.normal(size=(3, 6)), rng.normal(size=6), rng.normal(size=(3, 6))
dx, dg = rms_norm_back(dy, x, g, 1e-5)
compare("x", lambda: np.sum(dy * nl.rms_norm(x, g, 1e-5)), x, dx)
compare("g", lambda: np.sum(dy * nl.rms_norm(x, g, 1e-5)), g, dg)
dx, dg = forgetful(dy, x, g, 1e-5)
compare("forgetful", lambda: np.sum(dy * nl.rms_norm(x, g, 1e-5)), x, dx)

# %% [markdown]
# **Explain.** `dx` is $(0.2, 0)$: nearly right, by luck. For $dy = (0, 1)$ it would be $(0, 0.2)$ instead of
# $(-0.028, 0.004)$: seven times too long, and across. The more of `dn` lies along x, the worse. The measurement notices
# at once. Would a training run?
#
# ## SwiGLU
#
# hidden = silu(a) ⊗ u with $a = x\,\mathrm{gate}$ and $u = x\,\mathrm{up}$, then out = hidden @ down (lesson
# [06](06_swiglu.ipynb)).
#
# 1. A product of two: each gets `dhidden` times the other. `du = dhidden * silu(a)`, and `dhidden * u` goes to the
#    silu.
# 2. The slope of $\mathrm{silu}(a) = a\,\sigma(a)$, with $\sigma' = \sigma (1 - \sigma)$, is
#    $\sigma + a\,\sigma (1 - \sigma) = \sigma\big(1 + a (1 - \sigma)\big)$.
# 3. x is used twice, by gate and by up: its two gradients are added.
#
# With a pencil: at $a = 0$, σ is 1/2, and so is the slope: $\tfrac12 (1 + 0)$.
#
# The way back needs the numbers of the forward pass. They are in `seen`, a trace as in lesson
# [00](00_start_here.ipynb): here `gate` (that is a), `up` (u), `silu` and `hidden`.

# %%
def silu_back(dy, a):
    """Back through silu: two arrays of one shape -> the same shape."""
    sigma = 1 / (1 + np.exp(-a))
    return dy * sigma * (1 + a * (1 - sigma))


def feed_forward_back(dout, x, ffn, seen):
    """Back through feed_forward: (T, D), (T, D) -> dx (T, D), gradients of gate, up, down."""
    dhidden, ddown = product_back(dout, seen["hidden"], ffn["down"])
    dup = dhidden * seen["silu"]
    dgate = silu_back(dhidden * seen["up"], seen["gate"])
    dx_gate, dw_gate = product_back(dgate, x, ffn["gate"])
    dx_up, dw_up = product_back(dup, x, ffn["up"])
    return dx_gate + dx_up, {"gate": dw_gate, "up": dw_up, "down": ddown}


x, dy = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
ffn = {"gate": rng.normal(size=(4, 6)), "up": rng.normal(size=(4, 6)),
       "down": rng.normal(size=(6, 4))}
seen = nl.Trace()
nl.feed_forward(x, **ffn, tap=seen)
dx, dffn = feed_forward_back(dy, x, ffn, seen)
compare("x", lambda: np.sum(dy * nl.feed_forward(x, **ffn)), x, dx)
for name in ffn:
    compare(name, lambda: np.sum(dy * nl.feed_forward(x, **ffn)), ffn[name], dffn[name])

# %% [markdown]
# ## Attention
#
# Attention is two matrix products with a softmax between them: scores $= q k^\top / \sqrt d$, p = softmax(scores),
# heads = p v. In both products both factors come from x, and the rule gives both gradients. In p v, v stands for W:
# $dp = dheads\, v^\top$ and $dv = p^\top dheads$. In $q k^\top / \sqrt d$, $k^\top$ stands for W, and $1 / \sqrt d$
# stays in front: $dq = ds\, k / \sqrt d$, and from $d(k^\top) = q^\top ds / \sqrt d$ comes $dk = ds^\top q / \sqrt d$.
# The softmax, for one row of scores s:
#
# 1. $\ln p_j = s_j - \ln \sum_i e^{s_i}$ has the slope $\delta_{ij} - p_i$ in $s_i$, as in the loss. $p_j$ moves $p_j$
#    times as fast as its logarithm: $\partial p_j / \partial s_i = p_j (\delta_{ij} - p_i)$.
# 2. Add over j: $ds_i = p_i\, dp_i - p_i \sum_j p_j\, dp_j$.
# 3. So `ds = p * (dp - sum(p * dp))`: what counts is how a weight's `dp` compares with the average.
#
# With a pencil: $p = (1/2, 1/4, 1/4)$ and $\mathcal L = -\ln p_2$. The slope of $-\ln$ at $1/4$ is $-4$, so
# $dp = (0, -4, 0)$, its average $-1$, and $ds = (1/2, -3/4, 1/4)$: *probabilities minus truth* again.
#
# Three things are left:
#
# - *The mask.* A masked score has p = 0, and so `ds` = 0.
# - *RoPE* turns pairs by an angle (lesson [04](04_rope.ipynb)): it multiplies each by
#   $\begin{pmatrix} \cos & -\sin \\ \sin & \cos \end{pmatrix}$. The gradient meets the transpose, as at any matrix.
#   There −sin and sin change places: it is the rotation *back*, the same function with −sin for sin.
# - *Shared keys* (lesson [05](05_grouped_query_attention.ipynb)): `add_shared` below.
#
# **Predict.** 8 query heads share 2 key heads, all of the same width. Over how many query heads is the gradient of one
# shared key summed: 2, 4 or 8?

# %%
def softmax_back(dp, p):
    """Back through softmax: two arrays (..., n) -> (..., n)."""
    return p * (dp - np.sum(p * dp, axis=-1, keepdims=True))


def rope_back(dy, cos, sin):
    """Back through rope, by turning back: (heads, T, d) -> (heads, T, d)."""
    return nl.rope(dy, cos, -sin)


def add_shared(dx, G):
    """Add up what the query heads of each group hand back: (H, T, d) -> (G, T, d)."""
    H, T, d = dx.shape
    return dx.reshape(G, H // G, T, d).sum(axis=1)


def attention_back(dheads, q, k, v, p):
    """Back through attention: (H, T, d), (H, T, d), 2 × (G, T, d), (H, T, T) -> dq, dk, dv."""
    H, _, d = q.shape
    G = len(k)
    keys = np.repeat(k, H // G, axis=0)                   # (H, T, d): one for each query head
    values = np.repeat(v, H // G, axis=0)
    dp = dheads @ values.swapaxes(1, 2)                   # (H, T, T)
    dvalues = p.swapaxes(1, 2) @ dheads
    dscores = softmax_back(dp, p) / math.sqrt(d)
    dq = dscores @ keys
    dkeys = dscores.swapaxes(1, 2) @ q
    return dq, add_shared(dkeys, G), add_shared(dvalues, G)


print("pencil:", softmax_back(np.array([0.0, -4, 0]), np.array([1 / 2, 1 / 4, 1 / 4])))
H, G, T, d = 8, 2, 5, 6
q, k, v = (rng.normal(size=(heads, T, d)) for heads in (H, G, G))
dy = rng.normal(size=(H, T, d))
cos, sin = nl.rope_cos_sin(np.arange(T), d, 10000.0, np.float64)
mask = nl.causal_mask(np.arange(T), T)


def attended_loss(tap=nl.ignore):
    heads = nl.attention(nl.rope(q, cos, sin), nl.rope(k, cos, sin), v, mask, tap)
    return np.sum(dy * heads)


seen = nl.Trace()
attended_loss(seen)
dq, dk, dv = attention_back(dy, nl.rope(q, cos, sin), nl.rope(k, cos, sin), v, seen["probs"])
compare("q", attended_loss, q, rope_back(dq, cos, sin))
compare("k", attended_loss, k, rope_back(dk, cos, sin))
compare("v", attended_loss, v, dv)

# %% [markdown]
# **Explain.** Of 4: query heads 0 to 3 read the first key head, 4 to 7 the second. Several ways, so add.
#
# ## A whole layer
#
# A layer is two branches that are added to the residual stream. At each `+` the gradient goes both ways, unchanged (the
# slope of a sum is 1). At each fork, where a branch leaves, the gradients of branch and stream are added. (`part` takes
# from `seen` what belongs to one part of the model, such as `ffn.`.)

# %% tags=["hide"]
def part(seen, prefix):
    """The values of one part of the model, under their short names."""
    return {name.removeprefix(prefix): x for name, x in seen.items() if name.startswith(prefix)}


def by_name(weights, prefix=""):
    """Every array of the nested dict under one name, such as layers.0.attn.wq."""
    named = {}
    items = weights.items() if isinstance(weights, dict) else enumerate(weights)
    for key, value in items:
        if isinstance(value, np.ndarray):
            named[f"{prefix}{key}"] = value
        else:
            named |= by_name(value, f"{prefix}{key}.")
    return named


# %%
figures.show(figures.draw_back(),
             "Forward (black), each branch reads the stream and adds to it. Backward (orange), "
             "the stream hands its gradient on and to each branch, and adds what comes back.")


# %%
def self_attention_back(dout, x, attn, cos, sin, seen):
    """Back through self_attention: (T, D), (T, D) -> dx (T, D), gradients of wq, wk, wv, wo."""
    dheads, dwo = product_back(dout, nl.merge_heads(seen["heads"]), attn["wo"])
    dheads = nl.split_heads(dheads, 2 * cos.shape[-1])
    dq, dk, dv = attention_back(dheads, seen["q_rope"], seen["k_rope"], seen["v"], seen["probs"])
    dx_q, dwq = product_back(nl.merge_heads(rope_back(dq, cos, sin)), x, attn["wq"])
    dx_k, dwk = product_back(nl.merge_heads(rope_back(dk, cos, sin)), x, attn["wk"])
    dx_v, dwv = product_back(nl.merge_heads(dv), x, attn["wv"])
    return dx_q + dx_k + dx_v, {"wq": dwq, "wk": dwk, "wv": dwv, "wo": dwo}


def block_back(dout, x, layer, cos, sin, eps, seen):
    """Back through block: (T, D), (T, D) -> dx (T, D), gradients of the layer's weights."""
    dh, dffn = feed_forward_back(dout, seen["ffn_norm"], layer["ffn"], part(seen, "ffn."))
    dbranch, dffn_norm = rms_norm_back(dh, seen["x_attn"], layer["ffn_norm"], eps)
    dmiddle = dout + dbranch                              # between the two halves of the layer
    dh, dattn = self_attention_back(dmiddle, seen["attn_norm"], layer["attn"], cos, sin,
                                    part(seen, "attn."))
    dbranch, dattn_norm = rms_norm_back(dh, x, layer["attn_norm"], eps)
    return dmiddle + dbranch, {"attn_norm": dattn_norm, "attn": dattn,
                               "ffn_norm": dffn_norm, "ffn": dffn}


# %% [markdown]
# ## A whole Llama
#
# The rest is the way back through `nl.forward`, last line first: loss, output matrix, last norm, layers from last to
# first, embedding. The embedding is a table of rows. A row used for several tokens gets the sum of their gradients
# (`np.add.at`), an unused row 0.

# %%
def loss_and_gradient(tokens, weights, config):
    """The mean surprise, and its gradient in the same nested dict as the weights."""
    tokens, targets = tokens[:-1], tokens[1:]
    seen = nl.Trace()
    logits = nl.forward(tokens, weights, config, tap=seen)
    loss = nl.cross_entropy(logits, targets).mean()

    L, eps = config.n_layers, config.norm_eps
    positions = np.arange(len(tokens))
    cos, sin = nl.rope_cos_sin(positions, config.head_dim, config.rope_theta, logits.dtype)
    streams = [seen["embedding"]] + [seen[f"layers.{i}.x_ffn"] for i in range(L)]
    dlogits = cross_entropy_back(logits, targets)
    dx, doutput = product_back(dlogits, seen["norm"], weights["output"])
    dx, dnorm = rms_norm_back(dx, streams[L], weights["norm"], eps)
    dlayers = [None] * L
    for i in reversed(range(L)):
        dx, dlayers[i] = block_back(dx, streams[i], weights["layers"][i], cos, sin, eps,
                                    part(seen, f"layers.{i}."))
    dembedding = np.zeros_like(weights["embedding"])
    np.add.at(dembedding, tokens, dx)
    return loss, {"embedding": dembedding, "layers": dlayers, "norm": dnorm, "output": doutput}


# %% [markdown]
# The shipped model's gradient on our story has 5.8 million numbers (`by_name` names its arrays). One measurement tests
# them all: move every weight at once, each by its own random number times a tiny step. The slope of the loss along this
# direction u must be the sum of all u times slope.
#
# **Predict.** Which rows of the embedding's gradient are 0: none, about half, or nearly all of the $V = 3072$?

# %%
loss, gradient = loss_and_gradient(story, exact, config)
slopes = by_name(gradient)
n_slopes = sum(g.size for g in slopes.values())
print(f"loss {loss:.3f} nats per token; {n_slopes / 1e6:.1f} million slopes")
used = np.any(gradient["embedding"] != 0, axis=1)
print(f"{used.sum()} rows of the embedding are used, {len(np.unique(story[:-1]))} different tokens")

direction = {name: rng.normal(size=g.shape) for name, g in slopes.items()}
ends = []
for step in (1e-6, -1e-6):
    moved = copy.deepcopy(exact)                          # a copy: `exact` stays as it is
    for name, w in by_name(moved).items():
        w += step * direction[name]
    ends.append(nl.cross_entropy(nl.forward(story[:-1], moved, config), story[1:]).mean())
parts = [np.sum(direction[name] * g) for name, g in slopes.items()]      # one of each array
formula = sum(parts)
error = abs((ends[0] - ends[1]) / 2e-6 / formula - 1)
print(f"random direction: by formula {formula:+.6f}, off by less than 1e-6: {error < 1e-6}")
print(f"the smallest part that an array has in it: {np.abs(parts).min() / abs(formula):.0e}")

# %% [markdown]
# **Explain.** Nearly all: only the rows of tokens that were read have slopes. (Every column of the *output* matrix has
# some, from every token: p − y is nowhere quite 0.) A mistake in any array would show, unless tiny: even the smallest
# part of the sum is far above 1e-6.
#
# ## How far: AdamW
#
# One learning rate must serve slopes of very different sizes:

# %%
for name in ("output", "layers.0.ffn.down", "layers.0.attn.wq"):
    print(f"{name:17} root mean square of the slopes {np.sqrt(np.mean(slopes[name] ** 2)):.1e}")

# %% [markdown]
# *Adam* gives each weight a step of its own. It keeps two running averages for each: m of its slopes g, called
# *momentum*, and v of their squares, which tells their size. The weight moves by m divided by the root of v. *AdamW*
# (arXiv:1711.05101) adds *weight decay*: each step also shrinks the weight by a small share. In PyTorch's form, at step
# t = 1, 2, ..., with a learning rate η:
#
# 1. $m \leftarrow 0.9\, m + 0.1\, g$ and $v \leftarrow 0.95\, v + 0.05\, g^2$, both from 0. They begin too small: with
#    equal slopes g, m is $(1 - 0.9^t)\, g$ after t steps ($0.1\, g$, then $0.19\, g$). So divide by that share:
#    $\hat m = m / (1 - 0.9^t)$, $\hat v = v / (1 - 0.95^t)$.
# 2. $w \leftarrow w - \eta\, \hat m / (\sqrt{\hat v} + \epsilon) - \eta \cdot 0.1\, w$. The last term is the decay, of
#    the w before the step.
#
# The numbers 0.9, 0.95 and 0.1 are both papers' (LLaMA, section 2.3; Llama 2, section 2.2). ε is 1e-5 in Llama 2, and
# 1e-8 here, as in train.py. The papers do not say whether the gains of the norms decay; here they do not.
#
# With a pencil, without decay. First step, $g = 4$: $m = 0.4$, $\hat m = 4$; $v = 0.8$, $\hat v = 16$; the weight moves
# by $\eta \cdot 4 / 4 = \eta$.
#
# **Predict.** Three weights have these slopes in three steps: 4, 4, 4; then 0.004, 0.004, 0.004; then 4, −4, 4. How far
# has each moved after three steps: by about 3 η, about η, or hardly at all?

# %%
def adamw(w, g, m, v, t, rate, decay=0.0):
    """Step t = 1, 2, ... of AdamW for an array of weights w with the gradient g: new w, m, v."""
    m = 0.9 * m + 0.1 * g
    v = 0.95 * v + 0.05 * g * g
    mean = m / (1 - 0.9 ** t)
    size = np.sqrt(v / (1 - 0.95 ** t))
    return w - rate * mean / (size + 1e-8) - rate * decay * w, m, v


w, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
for t, g in enumerate(np.array([[4, 0.004, 4], [4, 0.004, -4], [4, 0.004, 4]]), start=1):
    w, m, v = adamw(w, g, m, v, t, rate=1.0)
    print(f"after step {t}:", *(f"{x:+.3f}" for x in w))

# %% [markdown]
# **Explain.** By 3 η, 3 η and 1.3 η. Equal slopes move their weight by η in each step, whether they are 4 or 0.004, as
# long as they are well above ε. Slopes that contradict each other largely cancel after the first step. So η is about
# the farthest that a weight moves in one step.
#
# ### Three precautions
#
# - *Clipping.* The *norm* of the gradient is the root of the sum of all squares. If it is above 1.0, the whole gradient
#   is scaled down to 1.0, so that one huge gradient does not rule m and v.
# - *Warm-up.* The learning rate rises from nearly 0 over the first steps (in the papers $2{,}000$; no reason is given).
# - *Decay of the rate.* It falls along half a cosine, in the papers to a tenth of its peak.

# %% [markdown]
# A *batch* is the texts of one step, each a *window* of the long text. `training` hands out the loss of each step
# (`yield`), so that one can look at the weights in between: `for loss in training(...)` takes one step per turn, and
# `list(training(...))` all. It changes the weights where they are (`w[:] =`).

# %%
def clip(slopes, largest=1.0):
    """Scale the slopes {name: array}, in place, to a norm of at most `largest`."""
    norm = math.sqrt(sum(np.sum(g * g) for g in slopes.values()))
    for g in slopes.values():
        g *= min(1.0, largest / (norm + 1e-6))            # 1e-6, as PyTorch has it


def learning_rate(step, steps, peak, warmup):
    """The papers' schedule for step 0, 1, ...: up in a line (our choice), down half a cosine."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / (steps - warmup)             # 0 to 1
    return peak * (0.55 + 0.45 * math.cos(math.pi * done))


WINDOW, BATCH = 48, 4                                     # tokens of a window, windows of a step


def batch_gradient(texts, weights, config):
    """The mean loss of texts of one length, and its slopes {name: array}: a batch is a loop."""
    loss = 0.0
    slopes = {name: np.zeros_like(w) for name, w in by_name(weights).items()}
    for text in texts:
        loss_of_text, gradient = loss_and_gradient(text, weights, config)
        loss += loss_of_text / len(texts)
        for name, g in by_name(gradient).items():
            slopes[name] += g / len(texts)
    return loss, slopes


def training(weights, ids, config, steps, peak, warmup=20, update=adamw, seed=0):
    """Train the weights, in place, on windows of the text `ids`; yields the loss of each step."""
    rng = np.random.default_rng(seed)
    arrays = by_name(weights)
    m = {name: np.zeros_like(w) for name, w in arrays.items()}
    v = {name: np.zeros_like(w) for name, w in arrays.items()}
    for step in range(steps):
        starts = rng.integers(len(ids) - WINDOW, size=BATCH)
        texts = [ids[start:start + WINDOW + 1] for start in starts]
        loss, slopes = batch_gradient(texts, weights, config)
        clip(slopes)
        rate = learning_rate(step, steps, peak, warmup)
        for name, g in slopes.items():
            w = arrays[name]
            decay = 0.1 if g.ndim == 2 else 0.0           # no decay for gains, which begin at 1
            w[:], m[name], v[name] = update(w, g, m[name], v[name], step + 1, rate, decay)
        yield loss


# %% [markdown]
# Helpers: read `new_weights`, skip the rest.

# %% tags=["hide"]
def new_weights(config):
    """Random weights to begin with: normal, of standard deviation 0.02, and gains of 1."""
    rng = np.random.default_rng(0)
    D, F, V = config.dim, config.hidden_dim, config.vocab_size
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim

    def matrix(n_in, n_out):
        return rng.normal(scale=0.02, size=(n_in, n_out))

    layers = [{"attn_norm": np.ones(D),
               "attn": {"wq": matrix(D, queries), "wk": matrix(D, keys), "wv": matrix(D, keys),
                        "wo": matrix(queries, D)},
               "ffn_norm": np.ones(D),
               "ffn": {"gate": matrix(D, F), "up": matrix(D, F), "down": matrix(F, D)}}
              for _ in range(config.n_layers)]
    return {"embedding": matrix(V, D), "layers": layers, "norm": np.ones(D),
            "output": matrix(D, V)}


def says(weights, start="The ", n=70):
    """What the pupil says after these characters, each time looking back one window."""
    rng = np.random.default_rng(0)
    said = [characters.index(c) for c in start]
    for _ in range(n):
        row = nl.forward(said[-WINDOW:], weights, tiny)[-1]
        said.append(nl.sample(row, rng, temperature=0.5))
    return "".join(characters[i] for i in said).replace("\n", "/")


def held_out_loss(weights, sentences):
    """The mean loss of a list of sentences."""
    losses = []
    for sentence in sentences:
        read = np.array([characters.index(c) for c in sentence])
        losses.append(nl.cross_entropy(nl.forward(read[:-1], weights, tiny), read[1:]).mean())
    return np.mean(losses)


def wrapped(text):
    """The text in indented lines of a page's width."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return textwrap.indent(textwrap.fill(" ".join(printable.split()), 90), "    ")


def smooth(values, n=10):
    """The means of n values in a row."""
    return np.convolve(values, np.ones(n) / n, mode="valid")


# %% [markdown]
# ## A tiny Llama
#
# The pupil is a Llama of two layers whose tokens are single characters: the 35 that occur in our story of 914. It
# begins with small random weights (`new_weights`). Each step shows it four windows of 48 characters from random places.
# Now and then it writes (`says`). To know what it learns, we need controls:
#
# - *The story in disorder*: a second pupil trains on the same 914 characters in random order. What it learns is not
#   order.
# - *Text that was held out*, of characters that the pupil knows. Once carelessly: a sentence about a king, his youngest
#   daughter and a golden ball, all words of the story. And once with care: three sentences that share little with the
#   story but words like *the*, *a* and *of*.
#
# In 300 steps the pupil reads each character some $300 \cdot 4 \cdot 48 / 914 \approx 63$ times, so many *epochs*.
#
# **Predict.** What is the loss before the first step, when all logits are near 0? And at the end, will the loss be
# above or below that: on the careless sentence, on the careful ones, for the pupil in disorder?

# %%
characters = sorted(set(STORY))
ids = np.array([characters.index(c) for c in STORY])
disorder = np.random.default_rng(0).permutation(ids)
CARELESS = [SENTENCE[:49]]
CAREFUL = ["They found a wolf asleep in the shade of the tree",
           "On that night it began to snow and she lit a fire",
           "Nobody opened the little door until one bird sang"]
tiny = nl.Config(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=96,
                 vocab_size=len(characters), max_seq_len=64)

known = set(STORY.lower().replace(",", "").split())
for name, sentences in (("careless", CARELESS), ("careful", CAREFUL)):
    words = set(" ".join(sentences).lower().replace(",", "").split())
    print(f"{name}: {len(words & known)} of {len(words)} words are in the story:",
          *sorted(words & known))
steps, pupil, losses = 300, new_weights(tiny), []
looked_at, careless, careful = np.arange(10, steps + 1, 10), [], []
print(f"{sum(w.size for w in by_name(pupil).values()):,} weights, {len(STORY)} characters, "
      f"{len(characters)} different ones")
print(f"step   0  {says(pupil)}")
for loss in training(pupil, ids, tiny, steps, peak=1e-2):
    losses.append(loss)
    if len(losses) in looked_at:
        careless.append(held_out_loss(pupil, CARELESS))
        careful.append(held_out_loss(pupil, CAREFUL))
    if len(losses) in (20, 50, 100, steps):
        print(f"step {len(losses):3}  {says(pupil)}")

# %%
other_pupil = new_weights(tiny)
in_disorder = list(training(other_pupil, disorder, tiny, steps, peak=1e-2))
print(f"in disorder {says(other_pupil)}")
shares = np.bincount(ids) / len(ids)
entropy = -np.sum(shares * np.log(shares))
to_predict = [characters.index(c) for sentence in CAREFUL for c in sentence[1:]]
own_shares = np.bincount(to_predict, minlength=len(characters)) / len(to_predict)
print(f"before the first step {losses[0]:.2f} nats; ln 35 is {np.log(35):.2f}; "
      f"frequencies alone {entropy:.2f}")
for label, known_shares in (("the story's", shares), ("their own", own_shares)):
    print(f"careful sentences by {label} frequencies: "
          f"{-np.mean(np.log(known_shares[to_predict])):.2f}")

curves = {"story": smooth(losses), "in disorder": smooth(in_disorder)}
held_out = {"held out, careless": careless, "held out, careful": careful}
figures.show(figures.draw_learning(steps, curves, looked_at, held_out,
                                   {"even guesses": np.log(35), "frequencies, story": entropy}),
             "The story's loss falls and falls. In disorder it rests for a while where frequencies "
             "bring it. On careful sentences it falls, turns early, and ends above even guesses. "
             "(The training curves are means of the last ten steps, so they lag.)")
for label, values in curves.items():
    points = [f"{values[n - 10]:.1f} at {n}" for n in (50, 100, 200, steps)]
    print(f"{label:18}", ", ".join(points))
for label, values in held_out.items():
    print(f"{label:18} lowest {min(values):.1f} at {looked_at[np.argmin(values)]}, "
          f"{values[-1]:.1f} at {steps}")

# %% [markdown]
# **Explain.** It begins near ln 35: a pupil that knows nothing spreads its guesses evenly. Down to about 2.9 nats it
# can be frequencies: the pupil in disorder gets there as well. What the first learns below that is order, or the text
# itself. Memorising does happen: from step 100 or so the second gets better, too, at a text in which nothing but
# frequencies can be learned.
#
# The first writes short words at 50 and 100 steps, longer pieces at 300, yet does not recite. 0.6 nats are a
# probability of $e^{-0.6} = 0.55$ per character (geometric mean, at temperature 1, behind the true text; `says` draws
# at 0.5, which favours the likely). But after one slip it reads its own text.
#
# On the careful sentences the loss falls below the 2.82 that the story's frequencies give, and below 2.65, the best
# that any frequencies could: some of the order that the pupil learns holds for other English, too. It turns after 60
# steps or so and ends above ln 35: sure of what the story says, the pupil is worse at other text than even guesses.
# That is called *overfitting*.
#
# The careless sentence shows little of this, if any, perhaps because all its words are in what was memorised. A test
# that repeats pieces of the training text is called *contaminated*, or *leaking*; this one is a mild case.
#
# ## What if part of the recipe is wrong?
#
# Runs of 30 steps, all from the same initial weights, each on three choices of windows (seeds):
#
# - *No warm-up*, at the pupil's peak of the learning rate, 0.01, and at three times that. (Warm-up takes 20 of these 30
#   steps, in the papers under 1 % of a run; without it, the half cosine begins at step 0.)
# - *A wrong gradient*: RMSNorm's without its second term, as above. And its control, *cut off*: the norms hand nothing
#   down, so that only the output matrix and the last norm's gains learn.
#
# And a longer run, with one seed: *plain descent*, $w \leftarrow w - \eta\, g$, with the same clipping and schedule,
# no weight decay, and the best rate of 0.3, 0.5, 1 and 2.
#
# **Predict.** After 30 steps AdamW is near 2.3 nats; frequencies alone give 2.9. Which of the two is the pupil with the
# wrong gradient nearer to? Is it better or worse than the one that is cut off? At which peak does warm-up matter more?

# %%
def three_runs(name, peak=1e-2, **changed):
    """Print the mean loss of the last five of 30 steps, for each of three seeds."""
    ends = []
    for seed in range(3):
        losses = list(training(new_weights(tiny), ids, tiny, 30, peak, seed=seed, **changed))
        ends.append(np.mean(losses[-5:]))
    print(f"{name:14} {peak:5}:", *(f"{loss:.2f}" for loss in ends))


def cut_off(dy, x, g, eps):
    return 0 * dy, forgetful(dy, x, g, eps)[1]


def plain(w, g, m, v, t, rate, decay):
    return w - rate * g, m, v


for peak in (0.01, 0.03):
    three_runs("AdamW", peak)
    three_runs("no warm-up", peak, warmup=0)
for name, function in (("wrong gradient", forgetful), ("cut off", cut_off)):
    with patch.dict(globals(), rms_norm_back=function):   # in these lines, the name means this
        three_runs(name)


def right_and_wrong(label, weights):
    texts = [ids[start:start + WINDOW + 1] for start in (0, 300, 600)]
    right = batch_gradient(texts, weights, tiny)[1]["embedding"]
    with patch.dict(globals(), rms_norm_back=forgetful):
        wrong = batch_gradient(texts, weights, tiny)[1]["embedding"]
    lengths = np.linalg.norm(right), np.linalg.norm(wrong)
    print(f"{label}: cosine with the right {np.sum(right * wrong) / np.prod(lengths):.2f}, "
          f"{lengths[1] / lengths[0]:.1f} times as long")


a_pupil = new_weights(tiny)
right_and_wrong("wrong gradient, first weights", a_pupil)
list(itertools.islice(training(a_pupil, ids, tiny, 30, peak=1e-2), 10))
right_and_wrong("wrong gradient, after 10 steps", a_pupil)
run = training(new_weights(tiny), ids, tiny, steps, peak=0.5, update=plain)
plain_losses = list(itertools.islice(run, 150))           # of 300
print(f"150 steps: AdamW {np.mean(losses[140:150]):.1f}, plain {np.mean(plain_losses[140:]):.1f}")

# %% [markdown]
# **Explain.** Warm-up makes little difference at the lower peak (0.00 to 0.06); at three times that, 0.4 nats or more,
# with each seed. Plain descent is 0.5 nats behind AdamW after 150 steps.
#
# The wrong gradient gives no alarm: the loss falls from 3.54 to 2.9, where frequencies alone bring it. But at this rate
# it is worse than handing nothing down: cut off, the pupil gets to 2.5 (its stream still tells which character was
# read, so the output matrix can learn what follows). At the first weights the wrong gradient is nearly right; after ten
# right steps it points elsewhere, and is ten times too long. So measure a gradient; a falling loss does not judge it.
#
# ## The real run
#
# The model of this course was trained in the same way by [train.py](../weights/train.py), in PyTorch: 7,500 steps of 8
# windows of 512 tokens. Its losses were recorded every 500 steps, as *bits per byte* (lesson
# [10](10_objective_and_sampling.ipynb)), on what it had just read and on books that it had never read. The papers'
# learning rate falls from the end of the warm-up on. This run's stays level first, and then falls in a straight line to
# 0, so that one can decide late when to end it. (At step 4,500 the end was moved from 8,400 to 7,500.)
#
# **Predict.** Does the loss on held-out books rise again at some point, as our sentences' did? (The run reads each book
# 4.6 times.)

# %%
def shipped_rate(step):
    """The learning rate of the shipped model's run, whose end was moved at step 4500."""
    planned = 8400 if step < 4500 else 7500
    return 2e-3 * min((step + 1) / 300, 1, (planned - step) / (planned / 2))


with open(FOLDER / "training.csv", newline="") as file:
    rows = list(csv.DictReader(file))
at = np.array([int(row["step"]) for row in rows])
print(f"{at[-1] * 8 * 512 / 6_655_328:.1f} passes over 6.7 million tokens")
bits = {"training": [float(row["training_bits_per_byte"]) for row in rows],
        "held out": [float(row["held_out_bits_per_byte"]) for row in rows]}
every = np.arange(7500)
rates = {"this run": [shipped_rate(step) for step in every],
         "the papers' form, same peak": [learning_rate(step, 7500, 2e-3, 300) for step in every]}
figures.show(figures.draw_run(at, bits, rates),
             "Both losses fall, held-out loss faster again from about step 4,000, training loss (a "
             "mean over the 500 steps before) one point later. (The hollow point, on more stories, "
             "cannot be compared with the others.)")

# %% [markdown]
# **Explain.** It does not rise, as far as one can compare, to step 7,000. There are more tokens to read here, 6.7
# million, than weights, 5.8 million, and each is read fewer times than the pupil's; this run cannot tell which counts,
# or what else. The gap to the training loss opens early, and widens again only at the end.
#
# Both losses fall faster again for a while, soon after the rate begins to fall. *Because* of it? For that one has to
# train twice.
#
# ## What it says on the way
#
# No checkpoints of that run were kept. Here is a smaller sister of 1.5 million weights, trained on the same books by
# [milestones.py](../weights/milestones.py) with train.py's optimizer, for 600 steps of 2 windows: a fiftieth of the
# tokens. What it said on the way is recorded in [milestones.json](../weights/milestones.json), and so is its control: a
# second run that keeps the rate level where the first begins to lower it.
#
# **Predict.** Its tokens are pieces of words (lesson [01](01_tokens.ipynb)), so words come for free. What comes first
# then, and what last: the frequency of words, word order, sentences, a story?

# %%
recorded = json.loads((ROOT / "weights" / "milestones.json").read_text(encoding="utf-8"))
for milestone in [m for m in recorded["milestones"] if m["step"] in (0, 100, 600)]:
    print(f"the sister, step {milestone['step']}, {milestone['tokens']:,} tokens: "
          f"{milestone['held_out_bits_per_byte']:.2f} bits per byte on every eighth held-out story")
    print(wrapped(milestone["said"]))
level = recorded["level_to_the_end"]["held_out_bits_per_byte"]
fallen = recorded["milestones"][-1]["held_out_bits_per_byte"]
print(f"its control, with a level rate to the end: {level:.4f}, against {fallen:.4f}")
prompt = tokenizer.encode("Once upon a time")
new = list(nl.generate(prompt, exact, config, 40, np.random.default_rng(0), temperature=0.8,
                       top_p=0.95))
print(f"\nthe shipped model, step 7500: {bits['held out'][-1]:.2f} bits per byte on all held-out "
      "stories")
print(wrapped(tokenizer.decode(prompt + new)))

# %% [markdown]
# **Explain.** At first pieces come in any order, then mostly frequent ones, then runs of words that fit each other,
# with commas. The sister tells no story; the shipped model begins one, but model, batch and number of tokens differ.
# The control ends within 0.003 bits per byte of the sister: in this one short pair the falling rate brings nothing that
# one could see. In longer runs the loss is reported to drop while a level rate is lowered (arXiv:2508.01483).
#
# ## In the wild
#
# - **Steps in bfloat16.** Between 1 and 2, bfloat16 has steps of `1/128` (lesson
#   [14](14_weights_on_disk.ipynb)). A training step that is smaller than half of that is rounded away,
#   every time ([pytorch/ao#1124](https://github.com/pytorch/ao/pull/1124) rounds up or down by chance instead).
#   train.py keeps its weights in float32 and computes only products in bfloat16. The shipped weights (stored as
#   bfloat16), moved by one learning rate:

# %%
stored = np.concatenate([w.ravel() for w in by_name(exact).values()])
for rate in (2e-3, 2e-4, 2e-5):
    lost = np.mean((stored + rate).astype(ml_dtypes.bfloat16) == stored)
    print(f"rate {rate:.0e}: {lost:4.0%} of the weights stay where they are")

# %% [markdown] tags=["result"]
# At the peak rate nearly all weights move; at a tenth of it four of ten would stand still, at a hundredth nine of ten.

# %% [markdown]
# ## Questions
#
# **1.** Two texts are trained on together. The first has one token to predict, with a loss of 4; the second has three,
# with losses of 2, 2 and 2. What is the mean over tokens? What is the mean of the two texts' means? By what factor does
# the second way change the pull of the first text's token?
#
# <details>
# <summary>Answer</summary>
#
# $(4 + 2 + 2 + 2) / 4 = 2.5$ against $(4 + 2) / 2 = 3$. In the first way each token's gradient counts $1/4$. In the
# second the single token counts $1/2$, twice as much. (Hugging Face's trainer took the mean of means, where a batch
# did not fit into memory, until [transformers#34191](https://github.com/huggingface/transformers/pull/34191).)
#
# </details>
#
# **2.** All F columns of gate begin equal, all columns of up, and all rows of down. What do the F neurons learn?
#
# <details>
# <summary>Answer</summary>
#
# The same. Equal weights compute equal numbers and get equal gradients, in every step, so they stay equal: F neurons
# that act as one. Random numbers at the beginning break the tie.
#
# </details>
#
# **3.** For a long time programs added the decay to the gradient instead: $g + 0.1\, w$ (called L2). Why is that the
# same for plain descent, and not for Adam? Which weights does Adam then shrink most?
#
# <details>
# <summary>Answer</summary>
#
# Plain descent subtracts $\eta\, (g + 0.1\, w)$: that is decay. Adam divides the sum by the size of the slopes. For
# $w = 1$, the term $0.1\, w$ nearly vanishes beside slopes of $10$, and rules the step beside slopes of $0.01$: so the
# weights with the smallest slopes shrink most. AdamW took decay out of the gradient for this reason (arXiv:1711.05101).
#
# </details>
#
# ## Exercises
#
# `check(name)` runs your function on several inputs and says what a wrong answer looks like; `check(name, hint=1)`
# gives a hint.
#
# ### 1. The other schedule
#
# Write the shipped model's schedule, as planned: a warm-up of `warmup` steps, in which step 0, 1, 2, ... has 1/warmup,
# 2/warmup, 3/warmup, ... of the peak; then the peak until the middle of the run; then a straight line that reaches 0
# at step `steps`.

# %% tags=["exercise"]
def level_schedule(step, steps, peak, warmup):
    """The learning rate of a step, counted from 0: int, int, number, int -> number."""
    ...

# %%
check(level_schedule)

# %% tags=["solution"]
def level_schedule(step, steps, peak, warmup):
    if step < warmup:
        return peak * (step + 1) / warmup
    if step < steps / 2:
        return peak
    return peak * (steps - step) / (steps / 2)

# %% [markdown]
# ### 2. Answers only
#
# A chat model is fine-tuned on dialogues, and its loss is the mean surprise of the *answer* tokens; prompts are read,
# but not learned (lesson [13](13_chat.ipynb)). `is_answer` tells which targets count.

# %% tags=["exercise"]
def answer_gradient(logits, targets, is_answer):
    """The gradient of the mean surprise over answers: (T, V), (T,), (T,) of bool -> (T, V)."""
    ...

# %%
check(answer_gradient)

# %% tags=["solution"]
def answer_gradient(logits, targets, is_answer):
    dlogits = nl.softmax(logits)
    dlogits[np.arange(len(targets)), targets] -= 1
    dlogits[~is_answer] = 0
    return dlogits / int(is_answer.sum())                 # int: keeps float32

# %% [markdown]
# ### 3. LayerNorm
#
# GPT-2 normalises with LayerNorm: first the mean of each row is subtracted, then what is left is divided by
# $\sqrt{\mathrm{variance} + \epsilon}$ and multiplied by g. Pull a gradient back to x. Derive it as for RMSNorm; the
# mean is one more way in which each x acts.

# %% tags=["exercise"]
def layer_norm_back(dy, x, g, eps):
    """Pull dy back through LayerNorm: (T, D), (T, D), (D,), number -> (T, D)."""
    ...

# %%
check(layer_norm_back)

# %% tags=["solution"]
def layer_norm_back(dy, x, g, eps):
    std = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    n = (x - x.mean(axis=-1, keepdims=True)) / std
    dn = dy * g
    along = n * np.mean(dn * n, axis=-1, keepdims=True)
    return (dn - dn.mean(axis=-1, keepdims=True) - along) / std

# %% [markdown]
# ## In five lines
#
# 1. A gradient holds one slope of the loss for each weight. One after the other: multiply; several ways: add.
# 2. At the logits it is p − y; through a matrix product it meets the transposed matrix, and that is most of the work.
# 3. A measured slope in float64 judges every formula: with a wrong gradient the loss may still fall.
# 4. AdamW moves each weight by about the learning rate, whatever the size of its slopes, if they agree and are above ε.
# 5. A falling loss can mean learning or memorising; a text that was held out tells, if no piece of it was read.
