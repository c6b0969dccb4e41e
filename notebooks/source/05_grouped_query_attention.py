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
# # 5. Grouped-query attention
#
# | | |
# | --- | --- |
# | **The question** | How can a model store fewer keys and values, and what does that cost? |
# | **You will be able to** | say which query head reads which key head; compute the cache of any Llama; share keys without copying them; explain what changed from Llama 1 to the largest Llama 2 |
# | **It assumes** | lessons [03](03_attention.ipynb) and [04](04_rope.ipynb) |
# | **Minutes** | 95 |
#
# T new tokens, S tokens seen so far (the new ones among them), D model width, H query heads, G key/value heads, d head
# width, L layers, F width of the feed-forward step (lesson [06](06_swiglu.ipynb): 3·D·F more numbers per layer).

# %% tags=["hide"]
import math
from dataclasses import replace
from itertools import combinations

import checks
import figures
import ipywidgets
import numpy as np
from course import SENTENCE, STORY, config, loss, nl, tokenizer, weights

check = checks.lesson("05")

# %% [markdown]
# ## Many questions, few keys
#
# While a Llama generates, it keeps the keys and values of every token that it has seen: the *cache* (lesson
# [09](09_decoding_and_cache.ipynb)). With each new token all of them are read again. A query is used once, for its own
# token, and forgotten. So the cache grows with the text, and with the number of texts generated at the same time.
#
# Several query heads can share the keys and values of one head. Three ways to do it (GQA paper: Ainslie and others,
# [arXiv 2305.13245](https://arxiv.org/abs/2305.13245), section 2.2; MQA: Shazeer,
# [arXiv 1911.02150](https://arxiv.org/abs/1911.02150); Llama 2, [arXiv 2307.09288](https://arxiv.org/abs/2307.09288),
# section A.2.1):
#
# - *multi-head attention*, MHA: G = H. Each query head has a key/value head of its own.
# - *grouped-query attention*, GQA: 1 < G < H. Each group of H/G query heads shares one.
# - *multi-query attention*, MQA: G = 1. All share one.
#
# ## Four query heads by hand
#
# Take H = 4, G = 2, d = 2. One new token asks (T = 1); with it two have been seen (S = 2). Query heads 0 and 1 share
# key head 0, query heads 2 and 3 share key head 1. Its four queries, and the two keys of each key head:
#
# $$q_0 = (1, 0), \quad q_1 = (0, 1), \quad q_2 = (1, 1), \quad q_3 = (1, -1)$$
#
# $$K_0 = \begin{pmatrix} 2 & 0 \\ 0 & 1 \end{pmatrix} \qquad K_1 = \begin{pmatrix} 1 & 1 \\ 3 & 1 \end{pmatrix}$$
#
# - Scores (undivided): $q_0$ with the rows of $K_0$: $2, 0$. $q_1$ with the same rows: $0, 1$.
# - To store: 2 tokens · 2 key heads · 2 numbers for the keys, and as many for the values: $16$ numbers. With G = H it
#   would be $32$, with G = 1 only $8$.
#
# **Predict.** Which scores do $q_2$ and $q_3$ get? And which would they get with G = 1, if only $K_0$ were there?

# %%
queries = np.array([[1, 0], [0, 1], [1, 1], [1, -1]])     # (H, d), one token
keys = np.array([[[2, 0], [0, 1]], [[1, 1], [3, 1]]])     # (G, S, d)

for h in range(4):
    g = h // 2                                            # H / G = 2 query heads share a key head
    print(f"query head {h}: key head {g} gives the scores {keys[g] @ queries[h]}; "
          f"with G = 1 it would be {keys[0] @ queries[h]}")

# %% [markdown]
# **Explain.** The arithmetic of a head stays as it was; sharing only says whose keys it reads.
#
# ## In the model
#
# **Predict.** This model has H 8 and G 2, d 32 and D 256. What shapes do `wq`, `wk`, `wv` and `wo` have?

# %%
H, G, d = config.n_heads, config.n_kv_heads, config.head_dim
for name, w in weights["layers"][0]["attn"].items():
    print(f"{name} {w.shape}")
print(f"H·d = {H * d}, G·d = {G * d}")

# %%
figures.show(figures.sharing(H, (H, G, 1), d), "The eight query heads of this model (above) and "
                                               "the key/value heads that they would read in each "
                                               "scheme; the model has the middle one.")

# %% [markdown]
# **Explain.** Queries are as wide as before; `wk` and `wv` have a quarter of the columns, and the cache a quarter of
# the numbers.
#
# ## Who reads whom
#
# Query head h reads key head ⌊h / (H/G)⌋: the first four read key head 0, the others key head 1. The order is a
# convention, and the weights were trained with it. Suppose a port (the model rewritten in another language) deals the
# keys out in turn instead: head h reads key head h mod G. All shapes fit.
#
# We leave the program alone and move the query heads instead: if heads 0, 2, 4 and 6 stand first, they meet key head 0,
# as in the port.
#
# **Predict.** How many of the eight heads does the port give the keys that they were trained with: 0, 2 or 4? The loss
# (lesson [00](00_start_here.ipynb): the mean of −log of the right token's probability) on our story is 2.12 nats as
# trained. Is it about $2.2$, $3$ or $5$ in the port?

# %%
def reordered(order):
    """The query heads in another order, outputs too, so that only the sharing changes."""
    layers = []
    for layer in weights["layers"]:
        attn = layer["attn"]
        wq = attn["wq"].reshape(-1, H, d)[:, order].reshape(attn["wq"].shape)
        wo = attn["wo"].reshape(H, d, -1)[order].reshape(attn["wo"].shape)
        layers.append(layer | {"attn": attn | {"wq": wq, "wo": wo}})
    return weights | {"layers": layers}


def silence(heads):
    """A tap that sets the answers of some query heads to zero, in all layers."""
    def tap(name, x):
        if name.endswith("attn.heads"):
            x = x.copy()
            x[heads] = 0
        return x
    return tap


orders = {"as trained": [0, 1, 2, 3, 4, 5, 6, 7],
          "in turn": [0, 2, 4, 6, 1, 3, 5, 7],            # the first four meet key head 0
          "groups swapped": [4, 5, 6, 7, 0, 1, 2, 3],
          "within the groups": [3, 2, 1, 0, 7, 6, 5, 4]}
print("query head:   ", *range(H))
print("h // (H / G): ", *[h // (H // G) for h in range(H)])
print("h % G:        ", *[h % G for h in range(H)])
for label, order in orders.items():
    lost = [h for place, h in enumerate(order) if place // 4 != h // 4]   # meet other keys
    print(f"{label:17} {H - len(lost)} heads keep their keys, "
          f"loss {loss(weights=reordered(order)):.2f}; the others silent {loss(silence(lost)):.2f}")

# %% [markdown]
# **Explain.** In turn, four of the eight heads read keys and values that were not made for them, and the loss rises by
# one nat. With the groups swapped no head keeps its keys, and it is worse. Within a group reordering does no harm. The
# last column is another control: on this story, heads that read the wrong keys do more harm than silent ones (with the
# groups swapped: than no attention at all).
#
# ## Do shared keys make shared maps?
#
# How different are two maps of attention? Count the share of weight that must move to turn one into the other. With a
# pencil: from $(\tfrac12, \tfrac12, 0)$ to $(1, 0, 0)$ it is $0.5$. Equal maps give 0, maps with nothing in common 1.
#
# Do heads with other keys differ more? The keys split the eight heads into $\{0, 1, 2, 3\}$ and $\{4, 5, 6, 7\}$;
# another split is $\{0, 1, 2, 4\}$ and $\{3, 5, 6, 7\}$. There are 35; for each we take the mean over all pairs within
# a four. If keys did not matter, the split by keys would have the smallest in one case of 35. Layer 0 is counted apart;
# and as some heads look at little but `<s>`, we also count without it.
#
# **Predict.** How much of the weight must move between two heads of a layer that share keys: almost none, about $0.3$,
# or more than $0.5$?

# %%
tokens = tokenizer.encode(SENTENCE)
words = figures.pieces(tokenizer, tokens)
trace, on_story = nl.Trace(), nl.Trace()
nl.forward(tokens, weights, config, tap=trace)
nl.forward(tokenizer.encode(STORY), weights, config, tap=on_story)


def maps(run, layer, first=0):
    """The maps of a layer, from key `first` on, without the first two rows (little choice)."""
    x = run[f"layers.{layer}.attn.probs"][:, 2:, first:]
    return x / x.sum(axis=-1, keepdims=True)


def to_move(one, other):                                  # two maps, (T, S) each
    return np.abs(one - other).sum(axis=1).mean() / 2


later = range(1, config.n_layers)
print("share of weight to move   same keys   other keys   splits with more similar maps")
for label, run, layers, first in (
        ("sentence", trace, later, 0), ("sentence without <s>", trace, later, 1),
        ("story", on_story, later, 0), ("story without <s>", on_story, later, 1),
        ("sentence, layer 0", trace, [0], 0)):
    moves = np.zeros((H, H))                              # for each two heads, mean over layers
    for i in layers:
        probs = maps(run, i, first)
        for a, b in combinations(range(H), 2):
            moves[a, b] += to_move(probs[a], probs[b]) / len(layers)
    splits = {}
    for three in combinations(range(1, H), 3):            # head 0 and these, and the other four
        fours = [0, *three], [h for h in range(1, H) if h not in three]
        splits[three] = np.mean([moves[pair] for four in fours for pair in combinations(four, 2)])
    by_keys = splits[1, 2, 3]                             # heads 0 to 3, and 4 to 7
    print(f"{label:20} {by_keys:14.2f} {moves[:4, 4:].mean():12.2f} "
          f"{sum(x < by_keys for x in splits.values()):25} of {len(splits)}")

# %%
def two(layer, first, second):
    """The maps of two heads side by side."""
    figure, axes = figures.new(3.9, columns=2, sharey=True)
    for ax, h in zip(axes, (first, second)):
        figures.matrix(ax, trace[f"layers.{layer}.attn.probs"][h], words, words,
                       f"layer {layer}, query head {h}, key head {h // (H // G)}",
                       kind=figures.SHARE)
        ax.tick_params(axis="x", rotation=90)
    return figure


same_keys = [pair for four in (range(4), range(4, H)) for pair in combinations(four, 2)]
most, layer, a, b = max((to_move(*maps(trace, i, 1)[[a, b]]), i, a, b)
                        for i in later for a, b in same_keys)
each = [np.mean([to_move(*maps(trace, i)[[one, other]]) for one, other in same_keys])
        for i in range(config.n_layers)]
print("sentence, same keys, layers 0 to 5:", *[f"{x:.2f}" for x in each])
print(f"most, without <s>: layer {layer}, heads {a} and {b}, {most:.2f}")
figures.show(two(layer, a, b), "Where each token (row) looks, from none (white) to all (dark), for "
                               "the two heads that share keys and differ most without <s>: the "
                               "left one often looks far back, the right one mostly at the token "
                               "before.")

# %% tags=["sliders"]
def choose(layer, first, second):
    figures.show(two(layer, first, second), "Where each token looks, for any two heads of a layer.")


ipywidgets.interact(choose, layer=(0, config.n_layers - 1), first=(0, H - 1), second=(0, H - 1));

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). All eight maps of a layer; those in one row share a key head. Which two
# of a row differ most? The keys `[` and `]` go to the layer before and after:
#
#     python notebooks/explorer/build.py --open "#t=layers.4.attn.probs&i=2.9.8"

# %% [markdown]
# **Explain.** Averaged over all layers but the first, more than half must move: 0.56 on the sentence (0.46 or more in
# each), 0.64 on the story, without `<s>` 0.51 and 0.63; the figure shows the extreme. (In layer 0 all maps are much
# alike: 0.03.) With other keys it is a little more, and on both texts no split has more similar maps than the one by
# keys. (Two texts of one model are not two trials.) Still the queries tell heads apart.
#
# ## What is copied?
#
# The simple way to compute it repeats each key head H/G times (values too), and then does as in MHA. numpy_llama.py
# *stacks the queries* instead: in the pencil example, $q_2$ and $q_3$ are the rows of one matrix, and its product with
# $K_1^\top$ gives the scores of the whole group at once:
#
# $$\begin{pmatrix} 1 & 1 \\ 1 & -1 \end{pmatrix} \begin{pmatrix} 1 & 3 \\ 1 & 1 \end{pmatrix} =
# \begin{pmatrix} 2 & 4 \\ 0 & 2 \end{pmatrix}$$
#
# Queries come token by token, all heads of a token side by side. To stand one group after the other, the queries of
# several tokens must be copied into another order.
#
# **Predict.** In one layer of this model, 17 tokens are computed at once. Which way copies more bytes, repeated keys or
# stacked queries? And if 16 tokens are in the cache, and only the 17th is computed?

# %%
caches = [nl.KVCache(config) for _ in range(config.n_layers)]
nl.forward(tokens[:16], weights, config, caches)
last = nl.Trace()
nl.forward(tokens[16:], weights, config, caches, tap=last)

k = trace["layers.4.attn.k_rope"]                                            # (G, S, d)
repeated = np.repeat(k, H // G, axis=0)                                      # (H, S, d)
for label, run in (("17 tokens at once", trace), ("the 17th alone", last)):
    q = run["layers.4.attn.q_rope"]                                          # (H, T, d)
    T, S = q.shape[1], k.shape[1]
    stacked = q.reshape(G, H // G * T, d)
    by_stacking = (stacked @ k.swapaxes(1, 2)).reshape(H, T, S) / math.sqrt(d)
    by_repeating = q @ repeated.swapaxes(1, 2) / math.sqrt(d)
    model = run["layers.4.attn.scores"]
    seen = np.isfinite(model)                                                # not masked
    same = (np.allclose(by_stacking[seen], model[seen], atol=1e-4)
            and np.allclose(by_repeating[seen], model[seen], atol=1e-4))
    copied = 0
    for x in (q, run["layers.4.attn.probs"]):             # to meet the keys; to meet the values
        if not np.shares_memory(x, x.reshape(G, H // G * T, -1)):
            copied += x.nbytes
    print(f"{label:17}: stacking copies {copied:6,} bytes, "
          f"repeating {2 * repeated.nbytes:,}; the model's scores: {same}")

# %% [markdown]
# **Explain.** Repeating copies H·S·d keys and as many values. All at once, stacking copies only the H·T·d queries; as
# T = S here, that is half. For the values it copies nothing, as the attention weights (`probs`) already stand group by
# group. One token at a time it copies nothing, as the queries of one token stand in the right order too; repeating
# copies *all* keys and values again.
#
# ## What it saves
#
# The cache holds, for each token and layer, G keys and G values of d numbers:
#
# $$\text{bytes per token} = 2 \cdot L \cdot G \cdot d \cdot \text{bytes per number}$$
#
# **Predict.** Llama 2 7B has L 32 and G 32. The 70B, ten times as large, has L 80 and G 8; d is 128 in both. Whose
# cache is larger?

# %%
def bytes_per_token(c, width=2):                          # width 2: float16
    return 2 * c.n_layers * c.n_kv_heads * c.head_dim * width


print("float16 cache            per token     context   full context")
for name, c in nl.PRESETS.items():
    each = bytes_per_token(c)
    print(f"{name:12} H {c.n_heads}, G {c.n_kv_heads:<3} {each / 2**10:6.0f} KiB "
          f"{c.max_seq_len:11,} {c.max_seq_len * each / 2**30:10.2f} GiB")

# %% [markdown]
# **Explain.** That of 7B: 512 against 320 KiB for each token. In Llama 2 the 70B and the 34B (never released; its other
# sizes here are Code Llama 34B's) have G 8; the smaller ones share nothing, as in Llama 1.
#
# One reason for 8: Meta spreads such a model over eight GPUs, a key/value head on each. In its tests with G 1 the one
# head was copied to all eight, so the cache was no smaller than with G 8 (section A.2.1).
#
# To write the next token of several texts at the same time, a machine reads the weights once, and of each text the
# whole cache.
#
# **Predict.** The 70B, 2 bytes per number, takes about $130$ GiB, and a server generates 32 texts of 4,096 tokens at
# the same time. Do their caches take more or less than the weights? And if G were H, 64?

# %%
llama_70b, llama_65b = nl.PRESETS["llama-2-70b"], nl.PRESETS["llama-1-65b"]
for label, c in (("70B", llama_70b), ("70B with G 64", replace(llama_70b, n_kv_heads=64)),
                 ("65B of Llama 1", llama_65b)):
    parameters = sum(nl.parameter_counts(c).values())
    cache = 4096 * bytes_per_token(c) / 2**30
    print(f"{label:14} F {c.hidden_dim:,}, {parameters / 1e9:.1f} billion numbers, "
          f"{2 * parameters / 2**30:.0f} GiB; cache: {cache:5.2f} GiB, "
          f"of 32 texts {32 * cache:3.0f} GiB")

# %% [markdown]
# **Explain.** With G 8 they take less, with G = H more than twice as much.
#
# A 70B with G = H nearly exists, Llama 1's 65B. From it to the 70B three sizes changed: G from 64 to 8, F from 22,016
# to 28,672 (1.3 times), and the context from 2,048 to 4,096 tokens (we count 4,096 for all three). D, H and L stayed.
#
# ## What it costs
#
# Does sharing make a worse model? Ours cannot tell: it was trained with G 2 from the start. Meta trained three models
# of about 30B, on 150 billion tokens each: MHA, GQA with G 8, and MQA. To make up for the numbers that `wk` and `wv`
# lost, F was made 1.3 times as large with GQA, $1.33$ times with MQA: the three are of similar size. (In the 65B,
# with 64 heads, G 8 leaves out $1 - 8/64 = 7/8$ of `wk` and `wv`: $2 \cdot D^2 \cdot 7/8 = 1.75 \cdot D^2$ per layer. A
# larger F adds $3 \cdot D \cdot 0.3 \cdot F$; with $F = 2.69 \cdot D$ that is $2.4 \cdot D^2$, more than was saved. So
# the trial says what sharing costs *with a larger F*.)
#
# **Predict.** Over eleven tests the model with MHA gets 44.2 points on average. And the others: about $35$, $40$ or
# $44$?

# %%
points = {  # Llama 2, table 18, 150 billion tokens each: from BoolQ to HumanEval, percent
    "MHA": [71.0, 79.3, 48.2, 75.1, 71.2, 43.0, 12.4, 44.7, 28.0, 4.9, 7.9],
    "GQA": [69.4, 78.8, 48.6, 75.4, 72.1, 42.5, 14.0, 46.2, 26.9, 5.3, 7.9],
    "MQA": [70.6, 79.0, 47.9, 74.5, 71.6, 41.9, 14.5, 42.8, 26.5, 4.8, 7.3]}
mha = np.array(points["MHA"])
print(f"MHA: {mha.mean():.1f} points on average")
for name in ("GQA", "MQA"):
    x = np.array(points[name])
    better, worse, most = np.sum(x > mha), np.sum(x < mha), np.max(mha - x)
    print(f"{name}: {x.mean():.1f} points on average; "
          f"better than MHA in {better} tests, worse in {worse}, by {most:.1f} at most")
# GQA paper, table 1: mean of seven summarising, translation and question tasks; s per sample
t5 = {"MHA": (47.2, 1.51), "GQA, G 8": (47.1, 0.28), "MQA": (46.6, 0.24)}
for name, (average, seconds) in t5.items():
    print(f"T5-XXL, {name:8} {average} points, {t5['MHA'][1] / seconds:.1f} times as fast")

# %% [markdown]
# **Explain.** In Meta's trial both are within half a point of MHA: GQA is better in six tests and worse in four, MQA
# worse in nine of eleven, by at most 1.9 points. (One training of each: such differences can also be chance.) The GQA
# paper (table 1) converted a trained MHA model, T5-XXL (its decoder; the encoder keeps all heads), and trained it for
# another 5 percent of its first training. GQA keeps nearly all points there, and is nearly as fast as MQA.
#
# ## From two heads to one
#
# The GQA paper (section 2.1) shares the heads of a model that was trained *without* sharing: it replaces the matrices
# of the heads that are to share by their *mean*, and trains a little further. We do the first half alone: the two
# key/value heads of each layer become one. The ways: the *mean of both*; *head 0 alone* or *head 1 alone*; and, as a
# control, *random numbers* of the same spread (two heads, one draw).
#
# Think of the score of a query of group 0, trained with $k_0$. With head 0 alone it keeps $q \cdot k_0$, while the
# queries of group 1 get nothing that they know. With the mean it gets $\tfrac12 q \cdot k_0 + \tfrac12 q \cdot k_1$:
# half of what it knows, and half of something foreign. The values fare likewise.
#
# **Predict.** Which costs less: the mean, or one head alone?

# %%
def with_heads(how, names=("wk", "wv")):
    """The model with other key/value heads: how(w) takes (D, G, d) to (D, G, d)."""
    layers = []
    for layer in weights["layers"]:
        attn = dict(layer["attn"])
        for name in names:
            w = attn[name]
            attn[name] = how(w.reshape(-1, G, d)).reshape(w.shape)
        layers.append(layer | {"attn": attn})
    return weights | {"layers": layers}


def mean_of_both(w):                                      # twice the same head: as with G = 1
    return np.repeat(w.mean(axis=1, keepdims=True), G, axis=1)


rng = np.random.default_rng(0)                            # one for all: new numbers in each layer


def random_heads(w):
    return rng.normal(0, w.std(), w.shape).astype(w.dtype)


def compare(ways, names=("wk", "wv")):
    """Nats per token, on the story and on the sentence, for each {label: how}."""
    for label, how in ways.items():
        model = with_heads(how, names)
        print(f"{label:25} {loss(weights=model):8.2f} {loss(weights=model, text=SENTENCE):9.2f}")


print("nats per token               story  sentence")
compare({"as trained": lambda w: w, "mean of both": mean_of_both,
         "head 0 alone": lambda w: w[:, [0, 0]], "head 1 alone": lambda w: w[:, [1, 1]],
         "random numbers": random_heads})
for label, heads in (("query heads 4 to 7 silent", slice(4, 8)),
                     ("query heads 0 to 3 silent", slice(0, 4))):
    print(f"{label:25} {loss(silence(heads)):8.2f} {loss(silence(heads), text=SENTENCE):9.2f}")

# %% [markdown]
# **Explain.** It depends on the head. Head 0 alone costs least on both texts; the last two lines suggest why: the query
# heads that it serves, 0 to 3, matter more here than 4 to 7. And again, heads that lose their keys and values do at
# least as much harm as silent ones. Each of the three is better than random numbers, which on the story do as
# much harm as no attention at all (4.91).
#
# ### Why the mean costs so much
#
# Two things happened to the keys of every query, and to the values: its own were halved, and foreign ones added. Each
# can be had alone. *Half of its own*: both heads stay, halved. *Own plus foreign*: the sum of both heads (the mean is
# half of the sum, so the sum leaves out only the halving). Two controls: *own minus foreign*, as large a part with the
# wrong sign; and *own plus random*, random numbers of the same spread.
#
# **Predict.** Which does damage: only the halving, only the foreign head, or each of them? And is a foreign head better
# than the controls?

# %%
print("nats per token               story  sentence")
compare({"as trained": lambda w: w, "half of its own": lambda w: w / 2,
         "own plus foreign": lambda w: 2 * mean_of_both(w), "mean of both": mean_of_both,
         "own minus foreign": lambda w: w - w[:, ::-1]})
compare({"mean of the keys alone": mean_of_both}, ["wk"])
compare({"mean of the values alone": mean_of_both}, ["wv"])
rng = np.random.default_rng(1)
draws = [with_heads(lambda w: w + random_heads(w)) for _ in range(5)]
for label, text in (("story", STORY), ("sentence", SENTENCE)):
    found = [loss(weights=model, text=text) for model in draws]
    print(f"own plus random, five draws, {label}: {min(found):.2f} to {max(found):.2f}")

# %% [markdown]
# **Explain.** Each does, halving more on the story, the foreign head more on the sentence; together they do more. The
# mean of the keys alone, or of the values alone, does damage too. Against both controls the texts disagree: the foreign
# head is worse on the story, better on the sentence. So we see no clear gain from its being a trained head.
#
# The paper compares mean, first head and random numbers *after* training further, and finds the mean best there. We
# see only what the change costs at first.
#
# ## In the wild
#
# - **Right with 7B and 13B, an error with 70B**
#   ([transformers#27545](https://github.com/huggingface/transformers/issues/27545)): with FlashAttention, the queries
#   of several texts at once were reshaped to G heads, not H. With G = H that is the same.
# - **Right with 70B, wrong with TinyLlama**: a converter took H/G for G. In the 70B both are 8, and nobody noticed
#   ([llama.cpp#3364](https://github.com/ggml-org/llama.cpp/pull/3364)).
#
# Two mistakes in the index: dealing in turn (h % G, as in the port above), and dividing by G where H/G belongs (the
# converter's, the other way round). *Other heads*: it runs, and reads wrong keys. *No such head*: the index is too
# large. Which sizes show which?

# %%
print("                   h % G reads       h // G reads")
for heads, groups in ((8, 8), (8, 1), (4, 2), (64, 8), (32, 4), (8, 2), (32, 8)):
    h = np.arange(heads)
    right = h // (heads // groups)
    found = []
    for read in (h % groups, h // groups):                # two mistakes
        if np.array_equal(read, right):
            found.append("the same")
        else:
            found.append("other heads" if max(read) < groups else "no such head")
    print(f"H {heads:2}, G {groups} {found[0]:>20} {found[1]:>18}")

# %% [markdown] tags=["result"]
# "No such head" is loud: NumPy stops with an IndexError. But where G is larger than H/G, as in H 32, G 8, this mistake
# is silent too: half of the key heads are never read. Dealing in turn never raises an error, and is wrong only with
# 1 < G < H. So test with such a G, *and* with G other than H/G.

# %% [markdown]
# ## Questions
#
# **1.** Pencil: a model has L 2, H 8, G 2, d 4, and stores numbers of 2 bytes. How large is its cache for 10 tokens?
# And with H 16, the same G and the same d?
#
# <details>
# <summary>Answer</summary>
#
# $2 \cdot L \cdot G \cdot d = 2 \cdot 2 \cdot 2 \cdot 4 = 32$ numbers per token, $64$ bytes, so $640$ bytes for ten
# tokens. With more query heads nothing changes: H is not in the formula.
#
# </details>
#
# **2.** In MQA all heads share the keys *and* the values. Can two heads still give different answers? What could they
# do with values of their own that they cannot do now?
#
# <details>
# <summary>Answer</summary>
#
# Yes: their queries differ, so their weights differ, and so does the mean of the values. But if two heads put the same
# weights on the tokens, they now get the same vector, and their parts of `wo` can only read it differently. With values
# of their own they could take different things from the same tokens.
#
# </details>
#
# **3.** One of these changes is possible without changing any output, the other is not: from G < H to G = H, and from
# G = H to G < H. Which is which, and what does the first cost?
#
# <details>
# <summary>Answer</summary>
#
# From G < H to G = H: copy each key/value head H/G times; every output stays the same, and the cache, `wk` and `wv`
# become H/G times as large. The other way, different heads must become one, and something is lost.
#
# </details>
#
# ## Exercises
#
# Fill in each function; `check` runs it on several inputs.
#
# ### 1. How many at the same time?
#
# A machine has `memory` bytes. The weights, `parameters` numbers, are stored once; each sequence that is generated at
# the same time has a cache of `tokens` tokens. Every number has `width` bytes. How many sequences fit? `config` has the
# fields of `nl.Config`.

# %% tags=["exercise"]
def sequences_that_fit(config, parameters, memory, tokens, width):
    """How many whole caches fit beside the weights: Config and four numbers -> number."""
    ...

# %%
check(sequences_that_fit)

# %% tags=["solution"]
def sequences_that_fit(config, parameters, memory, tokens, width):
    cache = 2 * config.n_layers * config.n_kv_heads * config.head_dim * tokens * width
    left = memory - parameters * width
    return max(left // cache, 0)

# %% [markdown]
# ### 2. Mix shared values
#
# The second half of attention: each query head takes the mean of the *values* of its group, with its own weights. A
# loop will do; a reshape is shorter.

# %% tags=["exercise"]
def grouped_mix(probs, v):
    """Each head's weights times its group's values: (H, T, S), (G, S, d) -> (H, T, d)."""
    ...

# %%
check(grouped_mix)

# %% tags=["solution"]
def grouped_mix(probs, v):
    H, T, S = probs.shape
    G, _, d = v.shape
    return (probs.reshape(G, H // G * T, S) @ v).reshape(H, T, d)

# %% [markdown]
# ### 3. Fewer key heads
#
# `wk` holds n heads of width d side by side. Make `groups` heads of them, each the mean of n / groups *neighbouring*
# heads.

# %% tags=["exercise"]
def mean_pool(wk, d, groups):
    """Key heads averaged group by group: (D, n * d), d, number -> (D, groups * d)."""
    ...

# %%
check(mean_pool)

# %% tags=["solution"]
def mean_pool(wk, d, groups):
    heads = wk.reshape(len(wk), groups, -1, d)            # (D, groups, n / groups, d)
    return heads.mean(axis=2).reshape(len(wk), groups * d)

# %% [markdown]
# ## In five lines
#
# 1. H query heads share G key/value heads: head h reads head ⌊h / (H/G)⌋.
# 2. Heads that share keys can still look at different tokens, as their queries differ (here in all layers but layer 0).
# 3. The cache is 2·L·G·d numbers per token: at a given d, H does not matter to it.
# 4. In Meta's trial (about 30B, one training each, F larger where keys are shared) GQA was as good as MHA, and MQA
#    slightly worse.
# 5. G = H hides dealing in turn, G = H/G hides taking G for H/G: test with 1 < G < H, and G other than H/G.
