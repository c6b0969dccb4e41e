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
# # 4. RoPE: positions as rotations
#
# | | |
# | --- | --- |
# | **The question** | How does attention know where a token stands? |
# | **You will be able to** | turn queries and keys by hand; say why attention then sees distances only; tell Meta's pairs from Hugging Face's, and know what the wrong ones look like; stretch a model past the length that it was trained on, and say what that costs |
# | **It assumes** | lesson [03](03_attention.ipynb); sine and cosine |
# | **Minutes** | 50 |
#
# T tokens, D model width, H query heads, G key/value heads, d head width, L layers.

# %% tags=["hide"]
import textwrap
from dataclasses import replace

import checks
import figures
import ipywidgets
import numpy as np
from course import STORY, config, exact, loss, nl, tokenizer, weights

check = checks.lesson("04")

# %% [markdown]
# ## Attention cannot count
#
# Attention (lesson [03](03_attention.ipynb)) compares a *query* q with the *key* k of every earlier token by their inner product, q·k.
# Nothing in that product says how far apart the two tokens stand. "The wolf ate the girl" and "The girl ate the wolf"
# hold the same keys. RoPE, *rotary position embedding*, turns q and k by an angle that grows with the position before
# they are compared.
#
# **Predict.** What is the loss on our story, 2.12 nats per token, if nothing is turned?

# %%
def turning(turn):
    """A tap that turns q and k anew: turn(x, positions) -> x."""
    before = {}

    def tap(name, x):
        kind = name.split(".")[-1]
        if kind in ("q", "k"):
            before[kind] = x
        if kind in ("q_rope", "k_rope"):
            x = turn(before[kind[0]], np.arange(x.shape[1])).astype(np.float32)
        return x
    return tap


print(f"loss {loss():.2f}, without rotation {loss(turning(lambda x, positions: x)):.2f}")

# %% [markdown]
# **Explain.** Without positions the model still knows which words there are, and hardly their order.
#
# ## A pair of numbers is a point
#
# RoPE (its paper, section 3.2.2; LLaMA, section 2.2) cuts the d numbers of a head into d/2 pairs, and takes each pair
# for a point in the plane. At position p, pair i turns about the origin by
#
# $$p\,\theta^{-2i/d}, \qquad \theta = 10000, \quad i = 0 \dots d/2 - 1$$
#
# $$\begin{pmatrix} a' \\ b' \end{pmatrix} = \begin{pmatrix} \cos & -\sin \\ \sin & \cos \end{pmatrix} \begin{pmatrix} a \\ b \end{pmatrix}$$
#
# Pair 0 turns by one radian per token, the others ever more slowly. (The paper counts i from 1 and writes i − 1.)
#
# **Predict.** d is 32 here. After how many tokens is pair 0 back where it began? And the last pair?

# %%
d, theta = config.head_dim, config.rope_theta
pairs = np.arange(d // 2)
speed = theta ** (-2 * pairs / d)                         # radians per token
for i in (0, 1, 4, 8, 12, 15):
    print(f"pair {i:2}: {speed[i]:8.5f} radians per token, "
          f"once round in {2 * np.pi / speed[i]:8.0f} tokens")
large = theta ** (-2 * np.arange(64) / 128)
print(f"d 128, as in the large models: once round in {2 * np.pi / large[0]:.1f} "
      f"to {2 * np.pi / large[-1]:,.0f} tokens")

# %%
tokens = tokenizer.encode(STORY)
trace = nl.Trace()
nl.forward(tokens, weights, config, tap=trace)
q = trace["layers.3.attn.q"][1]                   # (T, d): head 1 of layer 3, not turned yet


def turned(pair, position, steps=8):
    """One pair of a real query at `steps` positions from `position` on: (steps, 2)."""
    angles = (position + np.arange(steps)) * speed[pair]
    a, b = q[20, pair], q[20, pair + d // 2]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([a * cos - b * sin, b * cos + a * sin], axis=1)


def draw(pair, position):
    chosen = sorted({0, 4, 9, pair})[:4] if pair in (0, 4, 9) else [0, 4, 9, pair]
    figures.show(figures.circles({f"pair {i}": turned(i, position) for i in chosen}, position),
                 f"One query at eight positions from {position} on: every pair keeps its distance "
                 "from the middle, and the higher its number, the slower it turns.")


draw(15, 0)

# %% tags=["sliders"]
ipywidgets.interact(draw, pair=(0, 15), position=(0, 500));

# %% [markdown]
# **Explain.** Pair 0 is round in 6 tokens: it tells neighbours apart, and says nothing about a hundred tokens. The last
# pair has hardly moved after a whole context. Together they are like the hands of a clock, from seconds to years.
#
# ## The table of angles
#
# The angles depend on the position and the pair only, not on the text. So they are computed once, for all heads and
# layers, and the rotation is four products. On real queries, by hand and by the functions of numpy_llama.py:

# %%
positions = np.arange(len(tokens))
cos, sin = nl.rope_cos_sin(positions, d, theta)           # (T, d/2) each
x = trace["layers.3.attn.q"]                              # (H, T, d)
a, b = x[..., :d // 2], x[..., d // 2:]                   # pair i is (x_i, x_{i + d/2})
by_hand = np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
print("the function ", np.array_equal(by_hand, nl.rope(x, cos, sin)))
print("and the model", np.array_equal(by_hand, trace["layers.3.attn.q_rope"]))
longer = np.linalg.norm(by_hand, axis=-1) / np.linalg.norm(x, axis=-1)
print("lengths stay ", np.allclose(longer, 1, atol=1e-5))

# %%
figure, ax = figures.new(3)
figures.matrix(ax, cos[:64].T, rows=[str(i) if i % 5 == 0 else "" for i in pairs])
ax.set(xlabel="position", ylabel="pair", title="cosine of the angle")
ax.set_xticks(range(0, 64, 8), range(0, 64, 8))
figures.show(figure, "Blue is 1, orange −1: pair 0 swings ten times in 64 positions, from pair 10 "
                     "on the cosine hardly leaves 1.")

# %% [markdown]
# ## Only the distance counts
#
# Turn q by the angle of its position m, and k by that of n. Turning both by the same angle does not change their inner
# product, so what is left is the difference (RoPE paper, section 3.2.1):
#
# $$\langle R_m\, q,\; R_n\, k \rangle = \langle R_{m-n}\, q,\; k \rangle$$
#
# **Predict.** Take a real q and k, 7 positions apart, and move both by 100, 1,000, 100,000 positions. Does float32 keep
# the second decimal?

# %%
k = trace["layers.3.attn.k"][0]                           # (T, d): the key head that head 1 reads


def turn(x, positions, dtype=np.float64):
    """Rows at their positions: (T, d), (T,) -> (T, d)."""
    cos, sin = nl.rope_cos_sin(np.asarray(positions), d, theta, dtype)
    return nl.rope(x.astype(dtype), cos, sin)


def product(m, n, dtype=np.float64):
    return float(turn(q[20:21], [m], dtype)[0] @ turn(k[10:11], [n], dtype)[0])


print(f"distance  7: {product(7, 0):.3f}")
print(f"distance 30: {product(30, 0):.3f}")
for far in (100, 1000, 100000):
    off = {dtype: abs(product(7 + far, far, dtype) - product(7, 0))
           for dtype in (np.float64, np.float32)}
    print(f"moved by {far:7,}: float64 keeps nine digits {off[np.float64] < 1e-9}, "
          f"float32 the second decimal {off[np.float32] < 5e-3}")

# %%
scores = turn(np.repeat(q[20:21], 24, 0), range(24)) @ turn(np.repeat(k[10:11], 24, 0), range(24)).T
figure, axes = figures.new(3.3, columns=2, gridspec_kw=dict(width_ratios=[1, 1.5]))
figures.matrix(axes[0], scores, title="the same q and k at all positions")
axes[0].set(xlabel="position n of k", ylabel="position m of q",
            xticks=range(0, 24, 8), yticks=range(0, 24, 8))
distance = np.arange(300)
axes[1].plot(distance, [product(s, 0) for s in distance])
axes[1].set(xlabel="distance m − n", ylabel="q·k", title="q·k by distance")
figures.show(figure, "Left, every diagonal has one colour: only m − n counts. Right, the same q "
                     "and k at growing distance: fast pairs make the ripple, slow ones the trend.")

# %% [markdown]
# **Explain.** The product is a function of the distance, up to rounding. So RoPE keeps nothing of the absolute
# position, and needs no table of learned positions.
#
# ## Does attention fade with distance?
#
# The paper (section 3.4.3) shows that an upper bound of q·k falls with the distance: the more the pairs have turned
# against each other, the more they cancel. For q = k, all pairs alike, the product itself is the mean of the cosines.
# What a trained head does with it is its own affair.
#
# **Predict.** How many of this model's L · H heads look, on the average, further back than 20 tokens?

# %%
def mean_distance(probs):                                 # (H, T, S) -> (H,)
    T = probs.shape[1]
    back = np.arange(T)[:, None] - np.arange(T)           # (T, S)
    weight = probs[:, :, 1:] * (back[:, 1:] >= 0)         # without <s>, where idle heads look
    return (weight * back[:, 1:]).sum((1, 2)) / weight.sum((1, 2))


looks = np.concatenate([mean_distance(trace[f"layers.{i}.attn.probs"])
                        for i in range(config.n_layers)])
print(f"{np.sum(looks > 20)} of {len(looks)} heads look further back than 20 tokens on the average")
print(f"nearest {looks.min():.1f}, median {np.median(looks):.0f}, furthest {looks.max():.0f}; "
      f"an even gaze: {(len(tokens) - 1) / 4:.0f} tokens back")

# %%
alike = np.cos(distance[:, None] * speed).mean(1)
figure, axes = figures.new(2.8, columns=2)
axes[0].plot(distance, alike)
axes[0].set(xlabel="distance", ylabel="mean cosine", title="q = k, all pairs alike")
axes[1].hist(looks, np.arange(0, 88, 4), color=figures.SKY, edgecolor="white")
axes[1].axvline((len(tokens) - 1) / 4, color=figures.BLACK, linestyle="--", linewidth=1.2)
axes[1].set(xlabel="tokens back, on the average", ylabel="heads", title="what the heads look at")
figures.show(figure, "Left, what RoPE by itself prefers: the near. Right, what was learned: most "
                     "heads look nearer than an even gaze would (dashed), each at a distance of "
                     "its own.")

# %% [markdown]
# **Explain.** RoPE makes the near easy, and does not forbid the far: a head that puts its numbers into slow pairs sees
# across the whole context.
#
# ## Two ways to pair
#
# The paper pairs neighbours: $(x_0, x_1), (x_2, x_3)$ and so on. So do Meta's files. Hugging Face's code pairs halves:
# $(x_0, x_{d/2}), (x_1, x_{d/2+1})$ and so on, and its files hold the rows of `wq` and `wk` in another order, so that
# the same numbers meet. Both are right, each with its own files. numpy_llama.py turns halves, and reorders Meta's rows
# once, at load.

# %%
def rope_neighbours(x, cos, sin):
    """Turn (x_2i, x_2i+1) by angle i: (heads, T, d) -> (heads, T, d)."""
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 1::2] * cos + x[..., 0::2] * sin
    return out


print("d 8, neighbours:", *[(2 * i, 2 * i + 1) for i in range(4)])
print("d 8, halves:    ", *[(i, i + 4) for i in range(4)])

to_halves = np.arange(d).reshape(-1, 2).T.ravel()         # 0, 2, 4, ..., 1, 3, 5, ...
queries, keys = trace["layers.3.attn.q"], trace["layers.3.attn.k"][:1]    # taken as neighbours


def scores_of(turned, queries, keys):
    return turned(queries, cos, sin) @ turned(keys, cos, sin).swapaxes(1, 2)


left = scores_of(rope_neighbours, queries, keys)
right = scores_of(nl.rope, queries[..., to_halves], keys[..., to_halves])
mixed = scores_of(nl.rope, queries, keys)
print("the same scores from neighbours and")
print("   from halves of reordered numbers:      ", np.allclose(left, right, atol=1e-4))
print("   from halves of numbers not reordered:  ", np.allclose(left, mixed, atol=1e-4))

# %%
figures.show(figures.pairings(), "Which of eight numbers turn together: neighbours in the paper "
                                 "and in Meta's files, halves in Hugging Face's.")

# %% [markdown]
# **Predict.** Someone loads files of the one kind into code of the other. Shapes fit, nothing complains. Will the story
# be gibberish from the first word?

# %%
def wrongly_paired(w):                            # (D, heads * d): neighbours, read as halves
    heads = w.T.reshape(-1, 2, d // 2, len(w)).swapaxes(1, 2)
    return np.ascontiguousarray(heads.reshape(w.T.shape).T)


def wrong_pairs(weights):
    layers = []
    for layer in weights["layers"]:
        attn = {name: wrongly_paired(w) if name in ("wq", "wk") else w
                for name, w in layer["attn"].items()}
        layers.append(layer | {"attn": attn})
    return weights | {"layers": layers}


wrong = wrong_pairs(weights)
nats = {label: nl.cross_entropy(nl.forward(tokens, w, config)[:-1], tokens[1:])
        for label, w in (("right pairs", weights), ("wrong pairs", wrong))}
for first, last in ((0, 4), (4, 16), (16, 64), (64, 227)):
    print(f"tokens {first + 1:3} to {last:3}: " + ", ".join(
        f"{label} {x[first:last].mean():.2f}" for label, x in nats.items()))

prompt = tokenizer.encode("Once upon a time")
for label, w in (("right", exact), ("wrong", wrong_pairs(exact))):       # in float64, see below
    new = list(nl.generate(prompt, w, config, 70, np.random.default_rng(1), temperature=0.6))
    text = " ".join(tokenizer.decode(prompt + new).split())
    print(textwrap.fill(f"{label}: {text}", 94, subsequent_indent="       "))

# %%
figure, ax = figures.new(2.8)
smooth = np.ones(12) / 12
figures.lines(ax, np.arange(12, 228),
              {label: np.convolve(x, smooth, "valid") for label, x in nats.items()})
ax.set(xlabel="position", ylabel="nats per token", xlim=(0, 290), title="mean of twelve tokens")
figures.show(figure, "With the wrong pairs the loss is twice as high from the first tokens on, and "
                     "climbs with the position: by twenty tokens little is left.")

# %% [markdown]
# **Explain.** At position 0 nothing turns, so nothing is wrong. A few tokens on, fast pairs have turned against their
# true partners, and soon the model hardly knows what stands where. It begins like a tale: a look at the first words is
# no test.
#
# ## Beyond the training context
#
# This model never saw a distance above 511. A longer text is made here of our story and of stories that the model
# tells (in float64, so that a seed tells the same one on every processor). For every token we compare three ways to
# predict it: with all that comes before it, positions up to 1,023, as they are; with *position interpolation*, which
# divides all positions by two, so that no distance is new; and with the last tokens only, at most 256 of them, all
# distances known.
#
# **Predict.** From which position on does the first way fail? What does the second cost *below* 512?

# %%
long = list(tokens)
for seed in range(20):
    if len(long) < 1024:
        rng = np.random.default_rng(seed)
        long += prompt[1:] + list(nl.generate(prompt, exact, config, 200, rng, temperature=0.8))
long = long[:1024]
double = replace(config, max_seq_len=1024)


def half_positions(x, positions):                         # position interpolation
    return turn(x, positions / 2)


def nats_of(tap):
    return nl.cross_entropy(nl.forward(long, weights, double, tap=tap)[:-1], long[1:])


windows = [nl.cross_entropy(nl.forward(long[i:i + 256], weights, config)[:-1], long[i + 1:i + 256])
           for i in range(0, 1024 - 128, 128)]
short = np.concatenate([windows[0], *[w[127:] for w in windows[1:]]])          # (1023,)
ways = {"as trained": nats_of(nl.ignore), "positions / 2": nats_of(turning(half_positions)),
        "last 256": short}
print("tokens        " + "  ".join(f"{label:>13}" for label in ways))
for i in range(0, 1024, 128):
    means = (f"{x[i:i + 128].mean():13.2f}" for x in ways.values())
    print(f"{i:4} to {i + 127:4}  " + "  ".join(means))
worst = max(ways["as trained"][i:i + 128].mean() / short[i:i + 128].mean()
            for i in range(0, 1024, 128))
print(f"as trained, at most {worst:.1f} times the last 256")

# %%
figure, ax = figures.new(3)
mean = np.ones(96) / 96
figures.lines(ax, np.arange(96, 1024),
              {label: np.convolve(x, mean, "valid") for label, x in ways.items()})
ax.axvline(512, color=figures.GREY, linestyle=":", linewidth=1.2)
ax.set(xlabel="position (dotted: the training context)", ylabel="nats per token", xlim=(0, 1250))
figures.show(figure, "Past 512 the model as trained goes wrong; with halved positions it goes on, "
                     "and is worse than it could be throughout; the last 256 tokens alone do best.")

# %% [markdown]
# **Explain.** Past its training context the loss rises to 1.8 times what the last 256 tokens give. Interpolated
# positions never leave the range that the model knows, and the loss stays level. But the fast pairs, which tell
# neighbours apart, now turn half as fast, and every token pays about a third of a nat for it. Without further training,
# this model is best served by forgetting the far past; training it further at the new positions might change that, and
# is not done here.
#
# ## In the wild
#
# - **Which pairs turn** is what ports ask about most
#   ([transformers#25199](https://github.com/huggingface/transformers/issues/25199),
#   [#31859](https://github.com/huggingface/transformers/issues/31859),
#   [LLMs-from-scratch#747](https://github.com/rasbt/LLMs-from-scratch/issues/747),
#   [llama3-from-scratch#20](https://github.com/naklecha/llama3-from-scratch/issues/20)). The files decide, not taste.
# - **Fluent, then gibberish after about 20 tokens**: a missing reordering
#   ([llama2.c#286](https://github.com/karpathy/llama2.c/issues/286)), as above.
# - **Keys have fewer heads.** Reordered as if there were H of them, the rows of G key heads are mixed up
#   ([llama.cpp#2376](https://github.com/ggml-org/llama.cpp/issues/2376)). Lesson [14](14_weights_on_disk.ipynb)
#   measures it, and exercise 3 takes the number of heads from the shape.
# - **Angles in half precision** were off by up to 0.78 radians
#   ([transformers#29285](https://github.com/huggingface/transformers/issues/29285)). Float16 has no room for the
#   position and the fraction at once; with this model's sizes:

# %%
exact = np.arange(2048)[:, None] * speed                  # float64 radians
half = np.arange(2048, dtype=np.float16)[:, None] * speed.astype(np.float16)
print(f"positions below 2,048: float16 angles are off by up to {np.abs(half - exact).max():.2f},")
print(f"float32 angles by less than 0.001: {np.abs(np.float32(exact) - exact).max() < 1e-3}")

# %% [markdown]
# ## Exercises
#
# Fill in each function; `check` runs it on several inputs, and says what a wrong answer looks like.
#
# ### 1. The table of angles

# %% tags=["exercise"]
def angle_table(positions, d, theta):
    """Radians by which each pair turns at each position: (T,), d, number -> (T, d/2)."""
    ...

# %%
check(angle_table)

# %% tags=["solution"]
def angle_table(positions, d, theta):
    return positions[:, None] * theta ** (-np.arange(0, d, 2) / d)

# %% [markdown]
# ### 2. Turn halves
#
# Pair i is $(x_i, x_{i + d/2})$, as in numpy_llama.py.

# %% tags=["exercise"]
def turn_halves(x, angles):
    """Each pair of each row turned by its angle: (T, d), (T, d/2) -> (T, d)."""
    ...

# %%
check(turn_halves)

# %% tags=["solution"]
def turn_halves(x, angles):
    a, b = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

# %% [markdown]
# ### 3. From Meta's rows to Hugging Face's
#
# `w` is `wq` or `wk` as it is on disk, (heads · d, D). In each head, rows 2i and 2i + 1 are a pair; bring them to i and
# i + d/2. How many heads there are follows from the shape.

# %% tags=["exercise"]
def meta_to_halves(w, d):
    """Rows from neighbours to halves, head by head: (heads * d, D), d -> (heads * d, D)."""
    ...

# %%
check(meta_to_halves)

# %% tags=["solution"]
def meta_to_halves(w, d):
    heads = w.reshape(-1, d // 2, 2, w.shape[1])          # (heads, pair, first or second, D)
    return heads.swapaxes(1, 2).reshape(w.shape)

# %% [markdown]
# ## In five lines
#
# 1. RoPE turns pair i of every query and key by position · θ^(−2i/d) radians; values are not turned.
# 2. Turned queries and keys have the same lengths, and their product depends on the distance only.
# 3. Fast pairs tell neighbours apart, slow pairs see across the context.
# 4. Meta pairs neighbours, Hugging Face halves: with the wrong one only the first words of a text still read well.
# 5. Distances that were never trained break the model; dividing the positions helps, and costs something within.
