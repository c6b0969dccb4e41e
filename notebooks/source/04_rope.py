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
# | **You will be able to** | turn queries and keys by hand; say why attention then sees positions only as distances; tell Meta's pairs from Hugging Face's, and know what the wrong ones look like; find out which rotations a model needs, and what breaks in a text longer than those of its training |
# | **It assumes** | lesson [03](03_attention.ipynb); sine and cosine |
# | **Minutes** | 110 |
#
# T tokens, D model width, H query heads, G key/value heads, d head width, L layers.

# %% tags=["hide"]
import textwrap
from dataclasses import replace

import checks
import figures
import ml_dtypes
import numpy as np
import pencil
from course import STORY, config, exact, loss, nl, tokenizer, weights

check = checks.lesson("04")

# %% [markdown]
# ## One score cannot count
#
# Attention compares a *query* q with the *key* k of every earlier token by their inner product q·k. Nothing in that
# product says how far apart the two tokens stand: change the order of the keys, and the same weights go to the same
# values (question 3 of lesson [03](03_attention.ipynb)). Only the mask gives a little away: the first token sees one
# key, the tenth sees ten. (Models trained with nothing else do learn something about order, arXiv 2203.16634.)
#
# RoPE, *rotary position embedding*, adds the distance, with a clock. Think of each query and each key as a hand of a
# clock. Before they are compared, each hand is turned by an angle that grows with its token's position. Two hands that
# pointed the same way now differ by an angle that tells how many positions lie between them.
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
# the number is the same, as only the distance m − n counts. But one hand that turns fast cannot tell 0 from 4, and one
# that turns slowly can hardly tell 0 from 1. A clock has several hands.
#
# ### The Llama for pencil
#
# The Llama on the [handout](handout.pdf) has one hand, which turns by one radian per position (its step 4). *and*, at
# position 2, asks with $q = (0.9, -1.4)$; *cats*, at position 1, is found under $k = (1, 0)$.
#
# **Predict.** Turn both with a pencil ($\cos 1 = 0.54$, $\sin 1 = 0.84$, $\cos 2 = -0.42$, $\sin 2 = 0.91$) and
# multiply. A full turn takes $2\pi = 6.28$ positions: at which distance will the product be about the same again?

# %%
q_and, k_noun = (0.9, -1.4), (1, 0)
print("q at 2:", turned(q_and, 2).round(2), "  k at 1:", turned(k_noun, 1).round(2))
print("distance " + "".join(f"{n:6}" for n in range(9)))
print("product  " + "".join(f"{turned(q_and, n) @ k_noun:6.2f}" for n in range(9)))
said = [0, *nl.generate([0], pencil.weights, pencil.config, 11, temperature=0)]
print("greedy:", *[pencil.NAMES[i] for i in said])


def hide_seven_back(name, x):
    if name.endswith("attn.scores"):
        x = x.copy()                                      # a tapped array is never changed in place
        x[0, -1, -8] = -np.inf
    return x


looks = pencil.run(said[:-1])["layers.0.attn.probs"][0, -1]
print("the last and, its weight 1, 3, 5, 7 and 9 back:", looks[[-2, -4, -6, -8, -10]].round(2))
print(f"all cats {looks[1::4].sum():.2f}, all dogs {looks[3::4].sum():.2f}")
for label, tap in (("as it is", nl.ignore), ("7 back hidden", hide_seven_back)):
    logits = nl.forward(said[:-1], pencil.weights, pencil.config, tap=tap)
    print(f"{label:13} logits of the next word: cats {logits[-1, 1]:.2f}, dogs {logits[-1, 2]:.2f}")

# %% [markdown]
# **Explain.** The product is largest one position back: this head was built to look at the token before, and the model
# to answer with the *other* noun. At distance 7 the hand is nearly where it was at 1, so the last *and* gives *dogs*,
# seven back, nearly as much weight (19 %) as *cats*, one back (20 %). All *cats* together have 28 %, all *dogs* 23:
# that still speaks for *dogs*, but so little that the rest of the model, which leans to *cats*, decides by a hair. With
# that one token hidden, *dogs* is clearly ahead.
#
# ## Several speeds
#
# RoPE (its paper, section 3.2.2; LLaMA, section 2.2) cuts the d numbers of a head into d/2 pairs, and gives each pair
# its own speed. At position p, pair i, the two numbers (a, b), turns by the angle
#
# $$\varphi = p\,\theta^{-2i/d}, \qquad \theta = 10000, \quad i = 0 \dots d/2 - 1$$
#
# $$\begin{pmatrix} a' \\ b' \end{pmatrix} =
# \begin{pmatrix} \cos \varphi & -\sin \varphi \\ \sin \varphi & \cos \varphi \end{pmatrix}
# \begin{pmatrix} a \\ b \end{pmatrix}$$
#
# (The quarter turn above is $\cos \varphi = 0$, $\sin \varphi = 1$: it gives $(-b, a)$.) Pair 0 turns by one radian per
# token, the others more and more slowly. Which two numbers of a head make a pair is a convention; here pair i is
# $(x_i, x_{i + d/2})$.
#
# **Predict.** A full turn is 2π radians. After how many tokens is pair 0 back where it began? The last of this model's
# 16 pairs turns by 0.00018 radians per token: is it round after about $350$, $3500$ or $35000$ tokens?

# %%
d, theta = config.head_dim, config.rope_theta
pairs = np.arange(d // 2)
speed = theta ** (-2 * pairs / d)                         # radians per token
for i in (0, 4, 8, 9, 15):
    print(f"pair {i:2}: {speed[i]:8.5f} radians per token, "
          f"once round in {2 * np.pi / speed[i]:8.0f} tokens")
print(f"pair 15 in {config.max_seq_len} tokens: {config.max_seq_len * speed[15]:.2f} radians")

# %% [markdown]
# **Explain.** Pair 0 is round after 6 tokens, pair 15 after 35,333. A fast pair turns far between neighbours and so
# tells them apart, but 6 tokens back looks to it like here. A slow pair, such as 9, tells near from far, but hardly one
# token from the next. Together the hands tell both, like seconds and hours. Pair 15 turns by 0.09 radians in the 512
# tokens of this model's context: here it hardly tells positions at all.

# %%
tokens = tokenizer.encode(STORY)
trace = nl.Trace()
nl.forward(tokens, weights, config, tap=trace)
q = trace["layers.3.attn.q"][1]                           # (T, d): head 1, before its rotation
k = trace["layers.3.attn.k"][0]                           # (T, d): the keys that it reads

named = {}
for i in (0, 4, 9, 15):
    point = q[20, i], q[20, i + d // 2]
    named[f"pair {i}"] = np.array([turned(point, n * speed[i]) for n in range(8)])
figures.show(figures.circles(named, 0),
             "One query at eight positions in a row, from light to dark: every pair keeps its "
             "distance from the middle; pairs 9 and 15 turn so little that their dots lie on "
             "one another.")

# %% [markdown]
# ## In numpy_llama.py
#
# The angles depend on the position and the pair, not on the text. So cosines and sines are computed once, for all heads
# and layers, and the rotation is four products. The first half of a head's numbers holds all a, the second all b.

# %%
positions = np.arange(len(tokens))
cos, sin = nl.rope_cos_sin(positions, d, theta)           # (T, d/2) each
x = trace["layers.3.attn.q"]                              # (H, T, d)
a, b = x[..., :d // 2], x[..., d // 2:]
by_hand = np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
print("as in the model:", np.array_equal(by_hand, trace["layers.3.attn.q_rope"]))
longer = np.linalg.norm(by_hand, axis=-1) / np.linalg.norm(x, axis=-1)
print("lengths stay:   ", np.allclose(longer, 1, atol=1e-5))

# %% [markdown]
# ## Two rotations, one product
#
# Turning both q and k by the same angle does not change their inner product, as lengths and the angle between them
# stay. So turn both back by the angle of k: then k is unturned, and q is turned by the difference alone. With $R_m$ for
# "turn every pair by its angle at position m" (RoPE paper, section 3.2.1):
#
# $$\langle R_m\, q,\; R_n\, k \rangle = \langle R_{m-n}\, q,\; k \rangle$$
#
# Test it on the whole model, with a tap that turns by angles of our choice.
#
# **Predict.** The loss on the story is 2.12 nats per token. What is it if all positions are moved by 300, so that the
# story begins at position 300? And if nothing is turned at all: about $2.2$, $3$ or $4$?

# %%
def turn(x, angles):
    """Pairs turned by their angles, in float64: (heads, T, d), (T, d/2) -> (heads, T, d)."""
    return nl.rope(x.astype(np.float64), np.cos(angles), np.sin(angles))


def at_speeds(speeds, start=0):
    """A tap: pair i turns by speeds[i] per token, and the first token stands at `start`."""
    unturned = {}

    def tap(name, x):
        kind = name.split(".")[-1]                        # q, k, q_rope, k_rope, ...
        if kind in ("q", "k"):                            # comes first, and is kept
            unturned[kind + "_rope"] = x
        if kind in ("q_rope", "k_rope"):                  # comes next, and is replaced
            angles = np.outer(np.arange(x.shape[1]) + start, speeds)
            x = turn(unturned[kind], angles).astype(np.float32)
        return x
    return tap


base = loss()
print(f"loss {base:.2f}")
moved = loss(at_speeds(speed, 300))
print(f"moved by 300: {moved:.2f}, change below one millionth: {abs(moved - base) < 1e-6}")
print(f"nothing turned: {loss(at_speeds(0 * speed)):.2f}")

# %%
distance = np.arange(300)
one = turn(np.repeat(q[None, 20:21], 300, axis=1), np.outer(distance, speed))[0]       # (300, d)
other = turn(np.repeat(k[None, 10:11], 300, axis=1), np.outer(distance, speed))[0]
figure, axes = figures.new(3.3, columns=2, gridspec_kw=dict(width_ratios=[1, 1.4]))
grid = np.where(np.tri(24, dtype=bool), one[:24] @ other[:24].T, np.nan)
least, most = np.nanmin(grid), np.nanmax(grid)
figures.matrix(axes[0], grid - least, kind=figures.SHARE, limit=most - least,
               title=f"q·k, white: {least:.0f}, darkest: {most:.0f}")
axes[0].set(xlabel="position n of k", ylabel="position m of q",
            xticks=range(0, 24, 8), yticks=range(0, 24, 8))
by_pair = one * k[10]                                     # (300, d)
by_pair = by_pair[:, :d // 2] + by_pair[:, d // 2:]       # (300, d/2): what each pair adds to q·k
for label, chosen in (("all pairs", pairs >= 0), ("pairs 0 to 7", pairs < 8),
                      ("pairs 8 to 15", pairs >= 8)):
    axes[1].plot(distance, by_pair[:, chosen].sum(axis=1), label=label)
axes[1].set(xlabel="distance m − n", ylabel="part of q·k", title="q·k by distance")
axes[1].legend()
figures.show(figure, "One q and one k of layer 3, head 1 (tokens 20 and 10), at other positions. "
                     "Left, along every diagonal the colour is the same: only m − n counts (grey: "
                     "keys after the query). Right, at growing distance: the fast pairs make the "
                     "ripple, the slow ones the trend.")

# %% [markdown]
# **Explain.** Moved, the model computes the same, but for rounding: RoPE brings no absolute position into it (what the
# mask gives away stays as it was). With nothing turned the loss doubles. That says how much *this* model relies on its
# rotations, not how well a model would do that was trained without.
#
# **Explore** ([explorer](explorer/README.md)). Shift all positions: both arrows turn, and no score moves. Then drag θ,
# or pair neighbours:
#
#     python notebooks/explorer/build.py --open "#t=layers.3.attn.scores&i=1.9.8&tab=rotation&pair=4"
#
# ## Which rotations does this model need?
#
# Let one pair at a time *stand still*: it still counts in q·k, but as if every token stood here. A control *takes the
# pair out* of every query and key. And how long are the hands? The length of pair i in q times its length in k is the
# most that it can add to q·k. With mean lengths over the story's tokens, as a share of all 16 pairs, averaged over the
# heads, we call it the pair's *strength*.
#
# **Predict.** Pair 0 is the fastest, pair 15 the slowest. The story has over two hundred tokens. Which of pairs 0, 9
# and 15 can stand still at no cost?

# %%
def without(pair):
    """A tap that takes one pair out of every query and key."""
    def tap(name, x):
        if name.endswith(("q_rope", "k_rope")):
            x = x.copy()
            x[..., [pair, pair + d // 2]] = 0
        return x
    return tap


def pair_lengths(x):                                      # (heads, T, d) -> (heads, d/2)
    return np.hypot(x[..., :d // 2], x[..., d // 2:]).mean(axis=1)


still, out = np.zeros(d // 2), np.zeros(d // 2)           # nats per token lost
for i in pairs:
    still[i] = loss(at_speeds(np.where(pairs == i, 0, speed))) - base
    out[i] = loss(without(i)) - base
strength = np.zeros((config.n_layers, d // 2))
readers = config.n_heads // config.n_kv_heads             # query heads that read the same keys
for i in range(config.n_layers):
    keys = np.repeat(trace[f"layers.{i}.attn.k"], readers, axis=0)            # a copy for each
    product = pair_lengths(trace[f"layers.{i}.attn.q"]) * pair_lengths(keys)      # (H, d/2)
    strength[i] = (product / product.sum(axis=1, keepdims=True)).mean(axis=0)
for i in (0, 1, 2, 3, 4, 9, 15):
    print(f"pair {i:2} standing still {still[i]:+.2f} nats per token, taken out {out[i]:+.2f}")
for first, last in ((1, 4), (10, 15)):
    cost = loss(at_speeds(np.where((first <= pairs) & (pairs <= last), 0, speed))) - base
    print(f"standing still together: pairs {first} to {last} {cost:+.2f}")
print("the strongest pair of layers 0 to 5:", strength.argmax(axis=1))

# %%
figure, axes = figures.new(2.6, columns=2)
axes[0].bar(pairs - 0.2, still, 0.4, color=figures.BLUE, label="standing still")
axes[0].bar(pairs + 0.2, out, 0.4, color=figures.ORANGE, hatch="///", edgecolor="white",
            label="taken out")
axes[0].set(xlabel="pair", ylabel="nats per token lost", xticks=range(0, 16, 3))
axes[0].legend()
figures.matrix(axes[1], strength, [f"layer {i}" for i in range(config.n_layers)],
               [str(i) if i % 3 == 0 else "" for i in pairs], kind=figures.SHARE, limit=0.5)
axes[1].set(xlabel="pair", title="strength (darkest: 50 % or more)")
figures.show(figure, "Left, one at a time, two pairs matter most, the fastest and pair 9. Right, "
                     "from layer 2 on pair 9 has the largest share.")

# %% [markdown]
# **Explain.** Pair 15, and every pair but 0 and 9, can stand still for 0.03 nats or less, *one at a time*. Pairs 10 to
# 15 can even do so together, in this story. But such costs don't add up: pairs 1 to
# 4 cost 0.02 or 0.03 each, and 0.50 together. A pair that stands still can do more harm than one that is gone: pair 0
# then says "here" of every token (0.17 against 0.10).
#
# **Predict.** Layer 4 head 3 gives most of its weight to the token just before its own (lesson
# [03](03_attention.ipynb)). If pair 0 stands still, in layer 4 alone, will the weight that the token before loses go to
# tokens beside it, or to tokens far away? And if pair 9 stands still?

# %%
def weight_by_distance(speeds):
    """How much of its weight head 4.3 puts on tokens so far back, with such speeds in layer 4."""
    run, turning = nl.Trace(), at_speeds(speeds)

    def tap(name, x):
        if name.startswith("layers.4."):                  # the other layers turn as trained
            x = turning(name, x)
        return run(name, x)

    nl.forward(tokens, weights, config, tap=tap)
    probs = run["layers.4.attn.probs"][3, 20:]            # (T - 20, T): not the first 20 queries
    back = np.arange(20, len(tokens))[:, None] - np.arange(len(tokens))
    back[:, 0] = len(tokens)                              # <s> is counted apart
    return [probs[(back >= low) & (back <= high)].sum() / len(probs)
            for low, high in ((0, 0), (1, 1), (2, 4), (5, 20), (21, len(tokens) - 1),
                              (len(tokens), len(tokens)))]


print("tokens back:        0        1   2 to 4  5 to 20  over 20      <s>")
for label, speeds in (("as trained", speed), ("pair 0 still", np.where(pairs == 0, 0, speed)),
                      ("pair 9 still", np.where(pairs == 9, 0, speed))):
    print(f"{label:12}" + "".join(f"{part:9.2f}" for part in weight_by_distance(speeds)))

# %% [markdown]
# **Explain.** With pair 0 still, this head (4.3) confuses neighbours: of what the token before loses, two thirds go to
# tokens 2 to 4 back. With pair 9 still it confuses near and far: nearly half goes to tokens more than 20 back, `<s>`
# apart.
#
# ## A puzzle from lesson 03
#
# Layer 5 head 5 looks at `<s>` early in the story, and hardly any more at its end. Is that because of the tokens that
# ask, or because of the distance? RoPE lets us separate the two: leave all queries and keys as they are, and put only
# `<s>` at a distance of our choice. As a control, put other tokens there.
#
# **Predict.** The last 100 tokens give `<s>` less than 1 percent of their weight. How much if it stands 5 back for each
# of them: still about 1, about $10$, or more than $50$ percent?

# %%
asking = trace["layers.5.attn.q"][5][None]                # (1, T, d)
all_keys = trace["layers.5.attn.k"][1]                    # (T, d); <s> is the first
scores = trace["layers.5.attn.scores"][5]                 # (T, T)


def weight_if(key, apart):
    """The weight on one key if it alone stood so many tokens back: (T,)."""
    # as above: q is turned by the distance alone, and the key is left unturned
    turned_q = turn(asking, np.tile(apart * speed, (len(tokens), 1)))[0]      # (T, d)
    moved = scores.copy()
    moved[:, key] = turned_q @ all_keys[key] / np.sqrt(d)
    return nl.softmax(moved)[:, key]


print("weight on <s>     by tokens 2 to 15   by the last 100")
for label, x in (("where it stands", nl.softmax(scores)[:, 0]), ("5 back", weight_if(0, 5)),
                 ("60 back", weight_if(0, 60)), ("200 back", weight_if(0, 200))):
    print(f"{label:17} {x[2:16].mean():17.1%} {x[-100:].mean():17.1%}")
others = [weight_if(key, 5)[-100:].mean() for key in range(1, 60)]
print(f"tokens 1 to 59, each 5 back: the last 100 give {np.mean(others):.1%} on average, "
      f"{np.max(others):.0%} at most")
falls = np.zeros(d // 2)                                  # what each pair takes from the score
for i in pairs:
    pair, key = asking[0][:, [i, i + d // 2]].T, all_keys[0, [i, i + d // 2]]
    near, far = (key @ turned(pair, apart * speed[i]).mean(axis=1) for apart in (5, 200))
    falls[i] = (near - far) / np.sqrt(d)
print(f"from 5 to 200 back its score falls by {falls.sum():.1f} (all queries): "
      + ", ".join(f"pair {i} {falls[i]:.1f}" for i in (7, 8, 9)))

# %% [markdown]
# **Explain.** It is mostly the distance. With `<s>` 5 back the late tokens look at it too, with 60 percent of their
# weight; with `<s>` 60 back the early ones let it go. (At 5 back the early ones still give more, 97 percent: how they
# ask, or how few keys they see, counts too.) Being near is not enough: another token 5 back gets less than 1 percent on
# average, 8 at most. Of the score's fall by 20, pair 9 does the largest part, 8.5, and pairs 7 and 8 most of the rest.
#
# ## Two ways to pair
#
# The paper pairs neighbours: $(x_0, x_1), (x_2, x_3)$ and so on. So do Meta's files. Hugging Face's code pairs halves:
# $(x_0, x_{d/2}), (x_1, x_{d/2+1})$ and so on. Its files store `wq` and `wk` with the numbers of each head in another
# order (rows in its files, which are (H·d, D) and (G·d, D); columns in ours), so that neighbours now stand d/2 apart.
# Both are right, each with its own files. numpy_llama.py turns halves, and reorders Meta's files once, at load.

# %%
figures.show(figures.pairings(), "Which of eight numbers turn together: neighbours in the paper "
                                 "and in Meta's files, halves in Hugging Face's.")

# %% [markdown]
# Load files of the one kind into code of the other: all shapes fit, nothing complains. To imitate it, we reorder our
# columns of `wq` and `wk`, which are for halves, as if they were for neighbours.
#
# **Predict.** By how much is a score wrong, on average: between a token and itself, between neighbours, between tokens
# 80 apart? Choose for each from about $0$, $0.5$ and $3$. And does it help to move the whole story to other positions?

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


errors, spread = [], []
angles = np.outer(positions, speed)
back = positions[:, None] - positions
for i in range(config.n_layers):
    queries = trace[f"layers.{i}.attn.q"]                                     # (H, T, d)
    keys = np.repeat(trace[f"layers.{i}.attn.k"], readers, axis=0)
    right = turn(queries, angles) @ turn(keys, angles).swapaxes(1, 2)
    wrong = (turn(queries[..., to_halves], angles)
             @ turn(keys[..., to_halves], angles).swapaxes(1, 2))
    errors.append(np.abs(wrong - right) / np.sqrt(d))
    spread.append(right[:, back >= 0].std(axis=1) / np.sqrt(d))               # of a head's scores
error = np.mean(errors, axis=(0, 1))                      # (T, T): all layers and heads
print(f"right scores: standard deviation {np.mean(spread):.1f}, mean of all heads")
print("distance     mean error of a score (q and k as the right model has them)")
for low, high in ((0, 0), (1, 1), (2, 7), (8, 15), (16, 31), (32, 63), (64, 99), (100, 226)):
    chosen = (back >= low) & (back <= high)
    print(f"{low:3} to {high:3} {error[chosen].mean():15.1f}")
swapped = wrong_pairs(weights)
there = loss(weights=swapped)
moved = loss(at_speeds(speed, 300), weights=swapped)
print(f"loss {there:.2f}; moved by 300, change below one millionth: {abs(moved - there) < 1e-6}")

# %%
def nats_in_pieces(n, w, tap):
    """The story cut into pieces of n tokens, each read by itself -> nats per token."""
    pieces = [tokens[t:t + n] for t in range(0, len(tokens), n)]
    return np.concatenate([nl.cross_entropy(nl.forward(piece, w, config, tap=tap)[:-1], piece[1:])
                           for piece in pieces]).mean()


print("nats per token        right pairs   wrong pairs   nothing turned")
for n in (4, 64, len(tokens)):
    print(f"pieces of {n:3} tokens {nats_in_pieces(n, weights, nl.ignore):12.2f} "
          f"{nats_in_pieces(n, swapped, nl.ignore):13.2f} "
          f"{nats_in_pieces(n, weights, at_speeds(0 * speed)):16.2f}")

prompt = tokenizer.encode("Once upon a time")
for label, w in (("right", exact), ("wrong", wrong_pairs(exact))):
    new = list(nl.generate(prompt, w, config, 50, np.random.default_rng(1), temperature=0.6))
    text = " ".join(tokenizer.decode(prompt + new).split())
    print(textwrap.fill(f"{label}: {text}", 94, subsequent_indent="       "))

# %% [markdown]
# (`exact` holds the weights in float64: there rounding is too small to change which token is drawn.)
#
# **Explain.** A token's score with itself is right: at distance 0 both are turned alike, whatever the pairs. The error
# grows with the *distance* between query and key; moving the story changes nothing. In pieces of 4 tokens, each read by
# itself, there are no large distances, and the wrong pairs cost only 0.06. But there even no rotation at all costs only
# 0.11: such short pieces hardly tell right from wrong. So a sample may begin well: don't judge a port by its first
# words. Compare scores (lesson [07](07_forward_pass.ipynb)): there the error shows at distance 1.
#
# ## Beyond the training context
#
# This model never saw a distance above 511. We let it predict a text of 720 tokens: our story, then stories that it
# tells itself, each cut after 200 tokens, even in mid-sentence (so the next *Once* surprises).
#
# - *As trained*: the angles simply grow on.
# - *All halved*, called position interpolation: no pair turns further than it did in training. (The published
#   method, arXiv 2306.15595, then trains a little further; we don't.)
# - *0 to 8 halved*, *9 halved*: only these pairs, the others turn as trained.
# - *Windows*: the same tokens, read in windows of 256 that overlap by half, so that each is predicted from the last 128
#   or more (near the start, from all), and every distance is known (only the first has `<s>`): a control for how hard
#   the text is.
#
# **Predict.** From which position on does the model fail as trained: right at 512, soon after, or far later? And which
# of the three halvings will help?

# %%
long, begins = list(tokens), []
for seed in range(3):
    begins.append(len(long))
    rng = np.random.default_rng(seed)
    count = min(200, 720 - len(long))
    long += prompt[1:] + list(nl.generate(prompt, exact, config, count, rng, temperature=0.8))
long = long[:720]
print("a new story begins at", begins)
double = replace(config, max_seq_len=1024)                # a copy with a longer context


def nats(tap):
    """Nats of each token but the first: (719,)."""
    return nl.cross_entropy(nl.forward(long, weights, double, tap=tap)[:-1], long[1:])


def nats_at(speeds):
    return nats(at_speeds(speeds))


near = []                                                 # windows of 256 that overlap by half
for i in range(0, 720 - 128, 128):
    part = long[i:i + 256]
    window = nl.cross_entropy(nl.forward(part, weights, config)[:-1], part[1:])
    near.append(window if i == 0 else window[127:])
ways = {"as trained": nats_at(speed), "all halved": nats_at(speed / 2),
        "0 to 8 halved": nats_at(np.where(pairs < 9, speed / 2, speed)),
        "9 halved": nats_at(np.where(pairs == 9, speed / 2, speed)),
        "windows": np.concatenate(near)}
print("tokens       " + " ".join(f"{label:>10}" for label in ways))
for first, end in ((0, 512), (512, 559), (559, 640), (640, 719)):
    means = (f"{x[first:end].mean():{max(10, len(label))}.2f}" for label, x in ways.items())
    print(f"{first:4} to {end - 1:4} " + " ".join(means))
surprise = [round(float(ways["windows"][t - 1]), 1) for t in begins]
print("nats of the first word of each new story, windows:", surprise)

# %%
figure, ax = figures.new(3)
mean = np.ones(64) / 64
for label in ("as trained", "all halved", "9 halved"):
    ax.plot(np.arange(32, 688), np.convolve(ways[label], mean, "valid"), label=label)
ax.plot(np.arange(32, 688), np.convolve(ways["windows"], mean, "valid"), label="windows",
        color=figures.BLACK, linestyle="-", linewidth=0.8)
for position in (512, np.pi / speed[9]):
    ax.axvline(position, color=figures.GREY, linestyle=":", linewidth=1.2)
ax.set(xlabel="position (dotted: the training context, 512, and half a turn of pair 9, 559)",
       ylabel="nats per token, mean of 64")
ax.legend(loc="upper left", ncols=2)
figures.show(figure, "As trained, the model holds out past 512 and fails from about 559 on. Pair "
                     "9 halved is enough. (A mean of 64 rises up to 32 tokens early.) At 432 and "
                     "636 a new story begins: its first word alone costs over 12 nats.")

# %% [markdown]
# **Explain.** 512 is no cliff: up to 558 the model is nearly as good as in windows, and then it fails. All halved, it
# goes on, but loses 0.3 nats from the beginning, and 0.6 from 559 to 639 (why, we leave open). Pairs 0 to 8 alone have
# most of the cost (2.46 against 2.51), but little of the gain. Pair 9 alone gains more than all halved, stays within
# 0.1 of the windows, and costs 0.01. As each story was told without the ones before, this shows only that far tokens no
# longer harm, not that they help.
#
# ### Is it the half turn?
#
# (For a second reading.) 559 is where pair 9 has made half a turn. What does it add to a score there? In layers 2 to 5,
# where it is the strongest, we put each head's mean query and mean key at some distances (as the product is linear in
# both, this is the mean over every query with every key), and print the mean over the heads. Then a tap prints layer
# 5's weight on tokens more than 480 back, and what an even spread would give them.

# %%
nine = [9, 9 + d // 2]
distances = (0, 75, 280, 512, 559, 700)
print("distance" + "".join(f"{n:7}" for n in distances))
for i in range(2, 6):
    queries, keys = trace[f"layers.{i}.attn.q"], trace[f"layers.{i}.attn.k"]
    mean_q, mean_k = (x.mean(axis=1)[:, nine].T for x in (queries, keys))     # (2, H), (2, G)
    k_nine = np.repeat(mean_k, readers, axis=1)                               # (2, H)
    adds = [(turned(mean_q, n * speed[9]) * k_nine).sum(axis=0) / np.sqrt(d) for n in distances]
    print(f"layer {i} " + "".join(f"{add.mean():7.1f}" for add in adds))


def watch(name, x):
    """A tap that prints how much weight of layer 5 goes to tokens over 480 back, without <s>."""
    if name == "layers.5.attn.probs":
        for t in (490, 560, 680):
            at = range(t, t + 20)
            far = np.mean([x[:, n, 1:n - 480].sum(axis=1).mean() for n in at])
            even = np.mean([(n - 481) / (n + 1) for n in at])
            print(f"positions {t} to {t + 19}: {far:.0%} on tokens more than 480 back, "
                  f"evenly {even:.0%}")
    return x


nats(watch)
print(f"in training: up to {511 * speed[9] / np.pi:.2f} half turns of pair 9")

# %% [markdown]
# **Explain.** At distance 0 the pair adds little, as if query and key stood at a right angle. So it pushes down most a
# quarter turn away (280), and half a turn (559) only reverses the little: 0.9 and −0.9 in layer 5. There a third of the
# push is left at 512, as for a token 75 back; later the pair even *adds*. And far tokens do come back: from about half
# of an even share to two and a half times one.
#
# **Predict.** If that is the cause, the failure must move when pair 9 alone turns 1.5 or 2 times as fast. Where will it
# be (the middle of the first 48 tokens in a row whose mean loss is over half a nat above that in windows)? Can it be
# *within* the 512 positions of training?

# %%
def pair_9_times(factor):
    return nats_at(np.where(pairs == 9, factor * speed, speed))


print("pair 9    half a turn at   fails from about   angle of pair 9 there")
for factor, found in ((1, ways["as trained"]), (1.5, pair_9_times(1.5)), (2, pair_9_times(2))):
    lost = found - ways["windows"]
    onset = (np.convolve(lost, np.ones(48) / 48, "valid") > 0.5).argmax() + 24
    print(f"times {factor:4} {np.pi / (factor * speed[9]):9.0f} {onset:18} "
          f"{onset * factor * speed[9] / np.pi:17.2f} half turns")

# %% [markdown]
# **Explain.** The failure follows the half turn, down to 298 (good to about 24 tokens). So it is not the positions but
# the angle, which in training never passed 0.91 half turns. Do angles beyond harm because the model does not know them,
# or because the pair no longer pushes far tokens down?
#
# **Predict.** Hold the pair at one angle for all tokens 512 or more back: take away what it adds to each such score,
# and put in what it would add at that angle. In the last row (`first=1`), token 0, `<s>`, still turns as trained. Which
# angles harm: 0 half turns (as if here), 0.5 or 0.9, all known from training, or 1, which is not?

# %%
def nine_adds(q, k):
    """What pair 9 adds to the scores of queries from 512 on: (H, T - 512, T - 512)."""
    k = np.repeat(k, readers, axis=0)
    return q[:, 512:, nine] @ k[:, :-512, nine].swapaxes(1, 2) / np.sqrt(d)


def held(angle, first=0):
    """A tap: pair 9 stands at one angle for tokens 512 or more back, from token `first` on."""
    seen = {}

    def tap(name, x):
        kind = name.split(".")[-1]
        seen[kind] = x                                    # q, k, q_rope, k_rope come before scores
        if kind == "scores":
            held_q = turn(seen["q"], np.full((1, d // 2), angle))
            change = nine_adds(held_q, seen["k"]) - nine_adds(seen["q_rope"], seen["k_rope"])
            change[..., :first] = 0
            x = x.copy()
            x[:, 512:, :-512] += np.tril(change)          # tril: where the distance is 512 or more
        return x
    return tap


def print_lost(label, found):
    lost = found - ways["windows"]
    print(f"{label:39}{lost[559:640].mean():12.2f}{lost[640:].mean():13.2f}")


print("nats per token lost                      559 to 639   640 to 718")
print_lost("as trained", ways["as trained"])
for half, first in ((0, 0), (0.5, 0), (0.9, 0), (1, 0), (0.5, 1)):
    print_lost(f"held at {half:3} half turns, from token {first} on",
               nats(held(half * np.pi, first)))

# %% [markdown]
# **Explain.** Held at 0, which the model knows, it fails from 559 to 639 as at 1, which it doesn't. Held at 0.5 or 0.9,
# where the pair pushes down, it loses little, though all other pairs turn on. So it is the push that is missing (later
# the pair as trained even adds, and costs more than at 0). Nor does it begin with `<s>`: with `<s>` alone turning on,
# all others held at 0.5, little is lost before 640, but 0.57 after. That a single pair does it is a fact about this
# model, measured on one long text.
#
# ## In the wild
#
# - **Which pairs turn** is asked again and again
#   ([transformers#25199](https://github.com/huggingface/transformers/issues/25199),
#   [#31859](https://github.com/huggingface/transformers/issues/31859),
#   [LLMs-from-scratch#747](https://github.com/rasbt/LLMs-from-scratch/issues/747),
#   [llama3-from-scratch#20](https://github.com/naklecha/llama3-from-scratch/issues/20)). The files decide, not taste.
# - **Fluent, then gibberish after about 20 tokens**: a missing reordering
#   ([llama2.c#286](https://github.com/karpathy/llama2.c/pull/286)); more mildly, as above.
# - **Longer contexts.** Llama 3.1 slows its slow pairs only: by 8 where a turn takes more than 8,192 tokens, its
#   context before, and by less down to 2,048 ([llama.cpp#8676](https://github.com/ggml-org/llama.cpp/pull/8676)).
# - **Angles in bfloat16** are wrong ([transformers#29285](https://github.com/huggingface/transformers/pull/29285)). A
#   bfloat16 (in NumPy by the package `ml_dtypes`) has 8 significant bits, so between 1,024 and 2,048 it knows every
#   eighth position only; being 3 off turns pair 0 by nearly half a turn:

# %%
print("2,001 to 2,008 in bfloat16:", np.arange(2001, 2009).astype(ml_dtypes.bfloat16).astype(int))

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
# distance 1 gives the largest product of the distances 0 to 3. Does RoPE force attention to fade with distance?
#
# <details>
# <summary>Answer</summary>
#
# q turned once is $(-2, 1)$, so $k = (-2, 1)$ gives $5$ at distance 1, and $0, 0, -5$ at distances 0, 2, 3. A head can
# learn to look one token back (here five back, too). So RoPE does not force anything to fade. The paper (section 3.4.3)
# has an upper bound of q·k that falls with the distance, on the whole; what a head does within it is learned.
#
# </details>
#
# **3.** A program keeps the keys of earlier tokens (a *cache*). As a new query's position it takes the number of keys
# kept, but counts after the new key has been added: one too far. Keys are right. Which scores are wrong? What if keys
# were too far by one as well?
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
# In a text of n tokens, how many pairs make less than one full turn (in n tokens)? Those never point the same way at
# two distances.

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
# 2. The product of a turned q and a turned k sees positions only as a distance: moving a text changes nothing.
# 3. Fast pairs tell neighbours apart, slow ones near from far; one at a time, this model misses pairs 0 and 9 most.
# 4. Meta pairs neighbours, Hugging Face halves; with the wrong pairs, scores go wrong with the distance.
# 5. Past 512, near half a turn, pair 9 no longer pushes far tokens down, and this model fails; halving its speed mends
#    most of it.
