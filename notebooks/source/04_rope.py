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
# | **You will be able to** | turn queries and keys by hand; say why attention then sees distances only; tell Meta's pairs from Hugging Face's, and know what the wrong ones look like; find out which pairs a model uses, and why it fails beyond the length that it was trained on |
# | **It assumes** | lesson [03](03_attention.ipynb); sine and cosine |
# | **Minutes** | 60 |
#
# T tokens, D model width, H query heads, G key/value heads, d head width, L layers.

# %% tags=["hide"]
import textwrap
from dataclasses import replace

import checks
import figures
import ipywidgets
import ml_dtypes
import numpy as np
from course import STORY, config, exact, loss, nl, tokenizer, weights

check = checks.lesson("04")

# %% [markdown]
# ## Attention cannot count
#
# Attention compares a *query* q with the *key* k of every earlier token by their inner product q·k. Nothing in that
# product says how far apart the two tokens stand: change the order of the keys, and the same weights go to the same
# values (question 3 of lesson [03](03_attention.ipynb)).
#
# RoPE, *rotary position embedding*, changes that with a clock. Think of each query and each key as hands of a clock.
# Before they are compared, a hand is turned by an angle that grows with the token's position. Two hands that stood
# alike now differ by an angle that tells how many positions lie between them.
#
# ## One pair by hand
#
# Take d = 2: q and k are points in the plane. To keep the numbers whole, let a position be a quarter of a full turn. A
# quarter turn takes (a, b) to (−b, a). Let $q = (1, 2)$ and $k = (2, 1)$.
#
# | position | 0 | 1 | 2 | 3 | 4 |
# | --- | --- | --- | --- | --- | --- |
# | q | $(1, 2)$ | $(-2, 1)$ | $(-1, -2)$ | $(2, -1)$ | $(1, 2)$ |
# | k | $(2, 1)$ | $(-1, 2)$ | $(-2, -1)$ | $(1, -2)$ | $(2, 1)$ |
#
# - q at position 3 and k at position 1: $2 \cdot (-1) + (-1) \cdot 2 = -4$.
# - Both moved by one, q at 4 and k at 2: $1 \cdot (-2) + 2 \cdot (-1) = -4$. The same.
# - q at 3 and k at 2: $2 \cdot (-2) + (-1) \cdot (-1) = -3$. Another distance, another product.
#
# **Predict.** Which product do q at position 4 and k at position 0 have, and which other distance gives the same?

# %%
def turned(point, angle):
    """A point in the plane, turned about the origin: two numbers, radians -> two numbers."""
    a, b = point
    return np.array([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)])


quarter = np.pi / 2
print("q·k   k at 0    1    2    3    4")
for m in range(5):
    row = [turned((1, 2), m * quarter) @ turned((2, 1), n * quarter) for n in range(5)]
    print(f"q at {m} " + "".join(f"{product:5.0f}" for product in row))

# %% [markdown]
# **Explain.** 4, the same as at distance 0: after four quarter turns the hand is where it began. Along each diagonal
# the number is the same, as only the distance m − n counts. That is what was wanted. But one hand that turns fast
# cannot tell 0 from 4, and one that turns slowly cannot tell 0 from 1. A clock has several hands.
#
# ## Several speeds
#
# RoPE (its paper, section 3.2.2; LLaMA, section 2.2) cuts the d numbers of a head into d/2 pairs. At position p, pair i
# turns by the angle
#
# $$p\,\theta^{-2i/d}, \qquad \theta = 10000, \quad i = 0 \dots d/2 - 1$$
#
# $$\begin{pmatrix} a' \\ b' \end{pmatrix} =
# \begin{pmatrix} \cos & -\sin \\ \sin & \cos \end{pmatrix}
# \begin{pmatrix} a \\ b \end{pmatrix}$$
#
# Pair 0 turns by one radian per token, the others ever more slowly. (The paper counts i from 1 and writes i − 1.)
#
# **Predict.** A full turn is 2π radians. After how many tokens is pair 0 back where it began? The last of this model's
# 16 pairs turns by 0.00018 radians per token: is it round after about $350$, $3500$ or $35000$ tokens?

# %%
d, theta = config.head_dim, config.rope_theta
pairs = np.arange(d // 2)
speed = theta ** (-2 * pairs / d)                         # radians per token
for i in (0, 1, 4, 8, 9, 12, 15):
    print(f"pair {i:2}: {speed[i]:8.5f} radians per token, "
          f"once round in {2 * np.pi / speed[i]:8.0f} tokens")
large = theta ** (-2 * np.arange(64) / 128)
print(f"d 128, as in the published models: once round in {2 * np.pi / large[0]:.1f} "
      f"to {2 * np.pi / large[-1]:,.0f} tokens")

# %%
tokens = tokenizer.encode(STORY)
trace = nl.Trace()
nl.forward(tokens, weights, config, tap=trace)
q = trace["layers.3.attn.q"][1]                           # (T, d): head 1, before its rotation
k = trace["layers.3.attn.k"][0]                           # (T, d): the keys that it reads


def draw(pair, position):
    named = {}
    for i in sorted({0, 4, 9, pair}):
        point = q[20, i], q[20, i + d // 2]
        named[f"pair {i}"] = np.array([turned(point, (position + n) * speed[i]) for n in range(8)])
    figures.show(figures.circles(named, position),
                 f"One query at eight positions from {position} on: every pair keeps its distance "
                 "from the middle, and the higher its number, the slower it turns.")


draw(15, 0)

# %% tags=["sliders"]
ipywidgets.interact(draw, pair=(0, 15), position=(0, 500));

# %% [markdown]
# ## In numpy_llama.py
#
# The angles depend on the position and the pair, not on the text. So cosines and sines are computed once, for all heads
# and layers, and the rotation is four products. Here pair i is $(x_i, x_{i + d/2})$: the first half of the numbers
# holds all a, the second all b.

# %%
positions = np.arange(len(tokens))
cos, sin = nl.rope_cos_sin(positions, d, theta)           # (T, d/2) each
x = trace["layers.3.attn.q"]                              # (H, T, d)
a, b = x[..., :d // 2], x[..., d // 2:]
by_hand = np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
print("as the model has it:", np.array_equal(by_hand, trace["layers.3.attn.q_rope"]))
longer = np.linalg.norm(by_hand, axis=-1) / np.linalg.norm(x, axis=-1)
print("lengths stay:       ", np.allclose(longer, 1, atol=1e-5))

# %% [markdown]
# ## Only the distance counts
#
# To turn both q and k by the same angle does not change their inner product, as lengths and the angle between them
# stay. So of two rotations only the difference is left (RoPE paper, section 3.2.1):
#
# $$\langle R_m\, q,\; R_n\, k \rangle = \langle R_{m-n}\, q,\; k \rangle$$
#
# Test it on the whole model. A tap can turn q and k anew, by any angles that we like.
#
# **Predict.** The loss on the story is 2.12 nats per token. What is it if all positions are moved by 300, so that the
# story begins at position 300? And if nothing is turned at all: about $2.2$, $3$ or $4$?

# %%
def turn(x, angles):
    """Pairs turned by their angles, in float64: (heads, T, d), (T, d/2) -> (heads, T, d)."""
    return nl.rope(x.astype(np.float64), np.cos(angles), np.sin(angles))


def turning(turn_at):
    """A tap that turns q and k anew: turn_at(x, positions) -> x."""
    before = {}

    def tap(name, x):
        kind = name.split(".")[-1]                        # q, k, q_rope, k_rope, ...
        if kind in ("q", "k"):
            before[kind] = x
        if kind in ("q_rope", "k_rope"):
            x = turn_at(before[kind[0]], np.arange(x.shape[1])).astype(np.float32)
        return x
    return tap


def at_speeds(speeds, start=0):
    """A tap: pair i turns by speeds[i] per token, and the first token stands at `start`."""
    return turning(lambda x, positions: turn(x, np.outer(positions + start, speeds)))


base = loss()
print(f"loss {base:.2f}")
for start in (1, 300, 10000):
    print(f"moved by {start:6,}: {loss(at_speeds(speed, start)):.2f}, "
          f"change below one millionth: {abs(loss(at_speeds(speed, start)) - base) < 1e-6}")
print(f"nothing turned:  {loss(at_speeds(0 * speed)):.2f}")

# %%
distance = np.arange(300)
one = turn(np.repeat(q[None, 20:21], 300, axis=1), np.outer(distance, speed))[0]       # (300, d)
other = turn(np.repeat(k[None, 10:11], 300, axis=1), np.outer(distance, speed))[0]
figure, axes = figures.new(3.3, columns=2, gridspec_kw=dict(width_ratios=[1, 1.4]))
grid = one[:24] @ other[:24].T
figures.matrix(axes[0], grid - grid.min(), kind=figures.SHARE, limit=np.ptp(grid),
               title="q·k, white: small, dark: large")
axes[0].set(xlabel="position n of k", ylabel="position m of q",
            xticks=range(0, 24, 8), yticks=range(0, 24, 8))
axes[1].plot(distance, one @ k[10])
axes[1].set(xlabel="distance m − n", ylabel="q·k", title="q·k by distance")
figures.show(figure, "Left, along every diagonal the colour is the same: only m − n counts. Right, "
                     "the same q and k at growing distance: fast pairs make the ripple, slow ones "
                     "the trend.")

# %% [markdown]
# **Explain.** Moved by any number of positions, the model computes the same: its scores hold no absolute position. (It
# can still find out where a text begins, as `<s>` stands there.) Without any rotation the loss doubles.

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). Shift all positions: both arrows turn, and no score moves. Then drag θ,
# or pair neighbours:
#
#     python notebooks/explorer/build.py --open "#t=layers.3.attn.scores&i=1.9.8&tab=rotation&pair=4"
#
# ## Which pairs does this model use?
#
# RoPE offers 16 speeds; which of them did training take up? Let one pair at a time stand still, and measure the loss.
# A second look: how long are the numbers of pair i in q and k? If they are short, the pair hardly counts in q·k.
#
# **Predict.** Pair 0 is the fastest, pair 15 the slowest. The story has over two hundred tokens. Which of pairs 0, 9
# and 15 can stand still at no cost?

# %%
def pair_lengths(x):                                      # (heads, T, d) -> (heads, d/2)
    return np.hypot(x[..., :d // 2], x[..., d // 2:]).mean(axis=1)


still = np.zeros(d // 2)                                  # nats per token if that pair stands still
for i in pairs:
    still[i] = loss(at_speeds(np.where(pairs == i, 0, speed))) - base
strength = np.zeros((config.n_layers, d // 2))
for i in range(config.n_layers):
    keys = np.repeat(trace[f"layers.{i}.attn.k"], config.n_heads // config.n_kv_heads, axis=0)
    product = pair_lengths(trace[f"layers.{i}.attn.q"]) * pair_lengths(keys)      # (H, d/2)
    strength[i] = (product / product.sum(axis=1, keepdims=True)).mean(axis=0)
for i in (0, 1, 8, 9, 10, 15):
    print(f"pair {i:2} standing still: {still[i]:+.3f} nats per token; share of the strength: "
          f"layer 0 {strength[0, i]:3.0%}, layer 5 {strength[5, i]:3.0%}")
print(f"half a turn of pair 9: {np.pi / speed[9]:.0f} tokens; the training context: "
      f"{config.max_seq_len}")

# %%
figure, axes = figures.new(2.6, columns=2)
axes[0].bar(pairs, still, color=figures.BLUE)
axes[0].set(xlabel="pair that stands still", ylabel="nats per token lost")
figures.matrix(axes[1], strength, [f"layer {i}" for i in range(config.n_layers)],
               [str(i) if i % 3 == 0 else "" for i in pairs], kind=figures.SHARE, limit=0.5)
axes[1].set(xlabel="pair", title="share of the strength in q·k")
figures.show(figure, "Left, two pairs matter most, the fastest and pair 9. Right, from layer 2 on "
                     "pair 9 has the largest share.")

# %% [markdown]
# **Explain.** The slowest pairs can stand still: over this story they hardly turn anyway. The fastest pair costs most;
# it is the one that tells neighbours apart. And there is pair 9. It makes half a turn in 559 tokens, a little more than
# the 512 of the training context. So over all distances of training its cosine falls from 1 to nearly −1 and never
# comes back. The pairs before it do come back, and those after it use less of the range. Whether that is *why* training
# made this pair strong, from layer 2 on, these numbers cannot tell; that it did, they show.
#
# ## A puzzle from lesson 03
#
# Layer 5 head 5 looked at `<s>` early in the story and stopped later. Is that because of the tokens that ask, or
# because of the distance? RoPE lets us separate the two: take the same queries, and put `<s>` at distances of our
# choice.
#
# **Predict.** If the distance is the reason, what will the early and the late queries have in common?

# %%
asking = trace["layers.5.attn.q"][5][None]                # (1, T, d)
start = trace["layers.5.attn.k"][1][0]                    # (d,): the key of <s>, at position 0
for apart in (5, 60, 200):
    at = turn(asking, np.repeat(apart * speed[None], len(tokens), axis=0))[0] * start
    by_pair = (at[:, :d // 2] + at[:, d // 2:]) / np.sqrt(d)                  # (T, d/2)
    total = by_pair.sum(axis=1)
    print(f"<s> {apart:3} back: mean score with tokens 2 to 15 {total[2:16].mean():5.1f}, with the "
          f"last 100 {total[-100:].mean():5.1f}; pair 9 alone {by_pair[:, 9].mean():4.1f}")

# %% [markdown]
# **Explain.** Early and late queries give nearly the same score at the same distance. So it is the distance: this head
# has learned "look at `<s>` while it is near", and the rotation turns the match into a mismatch. Pair 9 alone moves the
# score by 8.5 of about 20.
#
# The RoPE paper (section 3.4.3) shows that an upper bound of q·k falls with the distance. That is a bound, for given
# sizes of q and k; what a head does with the distance is learned. Some pairs of q and k could as well grow with it: see
# question 2.
#
# ## Two ways to pair
#
# The paper pairs neighbours: $(x_0, x_1), (x_2, x_3)$ and so on. So do Meta's files. Hugging Face's code pairs halves:
# $(x_0, x_{d/2}), (x_1, x_{d/2+1})$ and so on, and its files hold the columns of `wq` and `wk` (on disk, the rows) in
# another order, so that the same numbers meet. Both are right, each with its own files. numpy_llama.py turns halves,
# and reorders Meta's files once, at load.

# %%
figures.show(figures.pairings(), "Which of eight numbers turn together: neighbours in the paper "
                                 "and in Meta's files, halves in Hugging Face's.")

# %% [markdown]
# Someone loads files of the one kind into code of the other. All shapes fit, and nothing complains. We imitate it: in
# each head, the columns of `wq` and `wk` are put into an order that belongs to the other code.
#
# **Predict.** How wrong is a score between a token and itself? Between neighbours? Between tokens 100 apart? And does
# it help to move the whole story to other positions?

# %%
to_halves = np.concatenate([np.arange(0, d, 2), np.arange(1, d, 2)])          # 0, 2, 4, ... 1, 3, 5


def wrong_pairs(weights):
    layers = []
    for layer in weights["layers"]:
        attn = dict(layer["attn"])
        for name in ("wq", "wk"):
            heads = attn[name].reshape(config.dim, -1, d)
            attn[name] = heads[:, :, to_halves].reshape(attn[name].shape)
        layers.append(layer | {"attn": attn})
    return weights | {"layers": layers}


errors = []
angles = np.outer(positions, speed)
for i in range(config.n_layers):
    queries = trace[f"layers.{i}.attn.q"]                                     # (H, T, d)
    keys = np.repeat(trace[f"layers.{i}.attn.k"], config.n_heads // config.n_kv_heads, axis=0)
    right = turn(queries, angles) @ turn(keys, angles).swapaxes(1, 2)
    wrong = (turn(queries[..., to_halves], angles)
             @ turn(keys[..., to_halves], angles).swapaxes(1, 2))
    errors.append(np.abs(wrong - right) / np.sqrt(d))
error = np.mean(errors, axis=(0, 1))                      # (T, T): all layers and heads
back = positions[:, None] - positions
half = len(tokens) // 2
print("distance     mean error of a score      first half of the story, second half")
for low, high in ((0, 0), (1, 1), (2, 7), (8, 15), (16, 63), (64, 199)):
    chosen = (back >= low) & (back <= high)
    print(f"{low:3} to {high:3} {error[chosen].mean():15.1f} "
          f"{error[:half][chosen[:half]].mean():23.1f} {error[half:][chosen[half:]].mean():12.1f}")
swapped = wrong_pairs(weights)
there = loss(weights=swapped)
moved = loss(at_speeds(speed, 300), weights=swapped)
print(f"loss {there:.2f}; moved by 300, change below one millionth: {abs(moved - there) < 1e-6}")

# %%
nats = {label: nl.cross_entropy(nl.forward(tokens, w, config)[:-1], tokens[1:])
        for label, w in (("right pairs", weights), ("wrong pairs", swapped))}
for first, last in ((0, 4), (4, 16), (16, 64), (64, 227)):
    print(f"tokens {first + 1:3} to {last:3}: " + ", ".join(
        f"{label} {x[first:last].mean():.2f}" for label, x in nats.items()))

prompt = tokenizer.encode("Once upon a time")
for label, w in (("right", exact), ("wrong", wrong_pairs(exact))):            # float64, see below
    new = list(nl.generate(prompt, w, config, 70, np.random.default_rng(1), temperature=0.6))
    text = " ".join(tokenizer.decode(prompt + new).split())
    print(textwrap.fill(f"{label}: {text}", 94, subsequent_indent="       "))

# %% [markdown]
# (In float64 a seed tells the same story on every processor.)
#
# **Explain.** A token's score with itself is right: at distance 0 nothing turns, whatever the pairs. The error grows
# with the *distance* between query and key, and is the same early and late in the story; to move the story changes
# nothing. The beginning of a text is read almost rightly, as there are no large distances yet. So the first words prove
# nothing: test a port with a text of a hundred tokens.
#
# ## Beyond the training context
#
# This model never saw a distance above 511. We make a longer text of our story and of stories that the model tells, one
# after the other, and let it predict every token, positions up to 1,023.
#
# - *As trained*: the angles simply grow on.
# - *All positions halved*, called position interpolation: no pair turns further than it did in training.
# - *Only pair 9 halved*: the other 15 pairs turn as trained.
# - *The last 256 tokens*: the same tokens, predicted with at most 256 tokens in view, so that every distance is known.
#   This is the control: it tells what is due to the distances, and what to the text.
#
# **Predict.** From which position on does the first way fail? Is one pair of 16 enough?

# %%
long = list(tokens)
for seed in range(20):
    if len(long) < 1024:
        rng = np.random.default_rng(seed)
        long += prompt[1:] + list(nl.generate(prompt, exact, config, 200, rng, temperature=0.8))
long = long[:1024]
double = replace(config, max_seq_len=1024)


def nats_at(speeds):
    logits = nl.forward(long, weights, double, tap=at_speeds(speeds))
    return nl.cross_entropy(logits[:-1], long[1:])        # (1023,)


near = []                                                 # windows of 256 that overlap by half
for i in range(0, 1024 - 128, 128):
    part = long[i:i + 256]
    window = nl.cross_entropy(nl.forward(part, weights, config)[:-1], part[1:])
    near.append(window if i == 0 else window[127:])
ways = {"as trained": nats_at(speed), "all halved": nats_at(speed / 2),
        "pair 9 halved": nats_at(np.where(pairs == 9, speed / 2, speed)),
        "0 to 8 halved": nats_at(np.where(pairs < 9, speed / 2, speed)),
        "last 256": np.concatenate(near)}
print("tokens        " + "  ".join(f"{label:>13}" for label in ways))
for i in range(0, 1024, 128):
    means = (f"{x[i:i + 128].mean():13.2f}" for x in ways.values())
    print(f"{i:4} to {i + 127:4}  " + "  ".join(means))
print("below 512     " + "  ".join(f"{x[:511].mean():13.2f}" for x in ways.values()))
print("from 512 on   " + "  ".join(f"{x[511:].mean():13.2f}" for x in ways.values()))
cost = (ways["all halved"] - ways["as trained"])[:511].mean()
print(f"all halved costs {cost:.1f} nats per token below 512")
alone = [nats_at(np.where(pairs == i, speed / 2, speed))[511:].mean() for i in pairs]
by_rank = np.argsort(alone)
print("only one pair halved, from 512 on, the best three: "
      + ", ".join(f"pair {i} {alone[i]:.2f}" for i in by_rank[:3]))

# %%
figure, ax = figures.new(3)
mean = np.ones(96) / 96
for label in ("as trained", "all halved", "pair 9 halved"):
    ax.plot(np.arange(96, 1024), np.convolve(ways[label], mean, "valid"), label=label)
ax.axvline(512, color=figures.GREY, linestyle=":", linewidth=1.2)
ax.set(xlabel="position (dotted: the training context)", ylabel="nats per token")
ax.legend(loc="upper left")
figures.show(figure, "Past 512 the model as trained goes wrong. All pairs halved, it goes on, and "
                     "is worse than it could be from the first token. One pair halved is enough.")

# %% [markdown]
# **Explain.** The model fails from 512 on: 3.90 nats, where the last 256 tokens alone give 2.45. All positions halved,
# it goes on, at a cost of 0.3 nats *below* 512. The controls say which pair does what. With only the fast pairs halved,
# nearly the whole cost is there, and almost none of the gain: they tell neighbours apart, and now misjudge them. With
# only pair 9 halved, all of the gain is there, and no cost; no other single pair comes near. So this one pair carries
# the failure. Its geometry would explain it: beyond 559 tokens it comes round on the other side, so that what is far
# begins to look near again.
#
# That a single pair does it is a fact about this model. Published methods for longer contexts, such as YaRN
# (arXiv 2309.00071), also slow the slow pairs more than the fast ones. What a longer context is *worth* cannot be
# measured here: the text is made of unrelated stories.
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
# - **Angles in bfloat16** are useless at far positions
#   ([transformers#29285](https://github.com/huggingface/transformers/pull/29285); training in float16 was not affected
#   there). A bfloat16 has 8 significant bits, so the position itself is rounded:

# %%
true = np.outer(np.arange(2048), speed)                   # float64 radians
for dtype in (ml_dtypes.bfloat16, np.float16, np.float32):
    table = np.arange(2048).astype(dtype)[:, None] * speed.astype(dtype)
    print(f"positions below 2,048, {np.dtype(dtype).name:8}: angles off by up to "
          f"{np.abs(table.astype(np.float64) - true).max():.4f} radians")

# %% [markdown]
# ## Questions
#
# **1.** Values are not turned. What would go wrong if they were, by the angle of their own position?
#
# <details>
# <summary>Answer</summary>
#
# Scores compare a query with a key, and the two rotations leave a difference. A value is not compared with anything: it
# would arrive turned by its absolute position, and the reader does not know that position. The same word would say
# something else in each place.
#
# </details>
#
# **2.** Pencil: with quarter turns, $q = (1, 2)$ and $k = (2, 1)$, the product is 4 at distance 0. Find a k for which
# the product is *largest* at distance 1. Does RoPE force attention to fade with distance?
#
# <details>
# <summary>Answer</summary>
#
# q turned once is $(-2, 1)$, so $k = (-2, 1)$ gives 5 at distance 1, and 0 at distance 0. A head can learn to look
# exactly one token back. So RoPE does not force anything to fade.
#
# </details>
#
# **3.** A port with a cache reads the length of the cache *after* it has added the new token, so new queries stand one
# position too far. Keys are right. Which scores are wrong? What if keys were too far by one as well?
#
# <details>
# <summary>Answer</summary>
#
# Every distance of a new query is too large by one, also that to itself, which should be 0. If all queries and keys
# were moved by one, nothing would change.
#
# </details>
#
# ## Exercises
#
# Fill in each function; `check` runs it on several inputs, and says what a wrong answer looks like.
#
# ### 1. Pairs that never come round
#
# In a text of n tokens, how many pairs make less than one full turn (in n tokens)? Those are the ones that cannot
# mistake one distance for another.

# %% tags=["exercise"]
def slow_pairs(d, theta, n):
    """How many of d/2 pairs make less than a full turn in n tokens: d, theta, n -> number."""
    ...

# %%
check(slow_pairs)

# %% tags=["solution"]
def slow_pairs(d, theta, n):
    speed = theta ** (-np.arange(0, d, 2) / d)
    return int(np.sum(n * speed < 2 * np.pi))

# %% [markdown]
# ### 2. Turn neighbours
#
# The other convention: pair i is $(x_{2i}, x_{2i+1})$, as in the paper and in Meta's code.

# %% tags=["exercise"]
def turn_neighbours(x, angles):
    """Each pair of neighbours turned by its angle: (T, d), (T, d/2) -> (T, d)."""
    ...

# %%
check(turn_neighbours)

# %% tags=["solution"]
def turn_neighbours(x, angles):
    cos, sin = np.cos(angles), np.sin(angles)
    out = np.empty_like(x)
    out[:, 0::2] = x[:, 0::2] * cos - x[:, 1::2] * sin
    out[:, 1::2] = x[:, 1::2] * cos + x[:, 0::2] * sin
    return out

# %% [markdown]
# ### 3. From Hugging Face's rows to Meta's
#
# `w` is `wq` or `wk` as Hugging Face's file has it, (heads · d, D). In each head, rows i and i + d/2 are a pair; Meta's
# code wants them at 2i and 2i + 1. How many heads there are follows from the shape.

# %% tags=["exercise"]
def halves_to_meta(w, d):
    """Rows from halves to neighbours, head by head: (heads * d, D), d -> (heads * d, D)."""
    ...

# %%
check(halves_to_meta)

# %% tags=["solution"]
def halves_to_meta(w, d):
    heads = w.reshape(-1, 2, d // 2, w.shape[1])          # (heads, first or second, pair, D)
    return heads.swapaxes(1, 2).reshape(w.shape)

# %% [markdown]
# ## In five lines
#
# 1. RoPE turns pair i of every query and key by position · θ^(−2i/d) radians; values are not turned.
# 2. The product of a turned query and a turned key depends on their distance only: to move a text changes nothing.
# 3. Fast pairs tell neighbours apart, slow ones near from far; this model uses one slow pair more than all others.
# 4. Meta pairs neighbours, Hugging Face halves; with the wrong pairs, scores go wrong with the distance.
# 5. Beyond the training context the slow pair comes round; slowing it down mends this model.
