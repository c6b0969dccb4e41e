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
# | **It assumes** | lesson [03](03_attention.ipynb) |
# | **Minutes** | 45 |
#
# T new tokens, S tokens seen so far, D model width, H query heads, G key/value heads, d head width, L layers.

# %% tags=["hide"]
import math
from dataclasses import replace

import checks
import figures
import ipywidgets
import numpy as np
from course import SENTENCE, STORY, config, loss, nl, tokenizer, weights

check = checks.lesson("05")

# %% [markdown]
# ## Many questions, few answers
#
# While a Llama writes, it keeps the keys and values of every token that it has seen: the *cache* (lesson
# [09](09_decoding_and_cache.ipynb)). With each new token all of them are read again. A query is used once, for its own
# token, and forgotten. So keys and values are what fills the memory, and one would like to have fewer of them.
#
# A library does not buy a copy of each book for each reader: several readers share one. Likewise, several query heads
# can share the keys and values of one head. Three ways to do it (GQA paper, section 2.2; Llama 2, section A.2.1):
#
# - *multi-head attention*, MHA: G = H. Each query head has a key/value head of its own.
# - *grouped-query attention*, GQA: 1 < G < H. Each group of H/G query heads shares one.
# - *multi-query attention*, MQA: G = 1. All share one.
#
# ## Four query heads by hand
#
# Take H = 4, G = 2, d = 2. One new token asks (T = 1); two tokens have been seen (S = 2). Query heads 0 and 1 share key
# head 0, query heads 2 and 3 share key head 1. Its four queries, and the two keys of each key head:
#
# $$q_0 = (1, 0), \quad q_1 = (0, 1), \quad q_2 = (1, 1), \quad q_3 = (1, -1)$$
#
# $$K_0 = \begin{pmatrix} 2 & 0 \\ 0 & 1 \end{pmatrix} \qquad K_1 = \begin{pmatrix} 1 & 1 \\ 3 & 1 \end{pmatrix}$$
#
# - Scores (undivided): $q_0$ with the rows of $K_0$: $2, 0$. $q_1$ with the same rows: $0, 1$. $q_2$ with $K_1$: $2,
#   4$. $q_3$ with $K_1$: $0, 2$.
# - The heads of a group ask different questions of the same keys, and get different answers.
# - To store: 2 tokens · 2 key heads · 2 numbers for the keys, and as many for the values: $16$ numbers. With G = H it
#   would be $32$.
#
# **Predict.** Stack $q_0$ and $q_1$ as the rows of one matrix and multiply it by $K_0^\top$. What do you get, and was
# any key copied?

# %%
queries = np.array([[1, 0], [0, 1], [1, 1], [1, -1]])     # (H, d), one token
keys = np.array([[[2, 0], [0, 1]], [[1, 1], [3, 1]]])     # (G, S, d)

for h in range(4):
    g = h // 2                                            # H / G = 2 query heads share a key head
    print(f"query head {h}, key head {g}: scores {keys[g] @ queries[h]}")
print("stacked, group 0:", (queries[:2] @ keys[0].T).tolist())
print("stacked, group 1:", (queries[2:] @ keys[1].T).tolist())

# %% [markdown]
# **Explain.** One product gives the scores of the whole group. That is all there is to grouped-query attention: the
# queries of a group are rows of one matrix, and each key head is read once.
#
# ## In the model
#
# **Predict.** This model has H 8 and G 2, d 32 and D 256. Which shapes have `wq`, `wk`, `wv`, `wo`?

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
# **Explain.** Queries are as wide as ever; `wk` and `wv` have a quarter of the columns, and the cache a quarter of the
# numbers.
#
# ## Who reads whom
#
# Query head h reads key head ⌊h / (H/G)⌋: the first four read key head 0, the others key head 1. The order is a
# convention, and the weights were trained with it.
#
# **Predict.** A port deals the keys out in turns instead: head h reads key head h mod G. All shapes fit. How many of
# the eight heads then read the keys that they were trained with: 0, 2 or 4? The loss on our story is 2.12 nats per
# token (the mean of −log of the probability of each right next token). What becomes of it?

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


base = loss()
orders = {"in turns": [0, 2, 4, 6, 1, 3, 5, 7],           # the first four then share key head 0
          "groups swapped": [4, 5, 6, 7, 0, 1, 2, 3],
          "within the groups": [3, 2, 1, 0, 7, 6, 5, 4]}
print("heads:          ", *range(H))
print("h // (H / G):   ", *[h // (H // G) for h in range(H)])
print("h % G:          ", *[h % G for h in range(H)])
print(f"loss as trained {base:.2f}")
for label, order in orders.items():
    kept = sum(h // 4 == place // 4 for place, h in enumerate(order))
    print(f"{label:18} {kept} heads keep their keys, loss {loss(weights=reordered(order)):.2f}")

# %% [markdown]
# **Explain.** In turns, four of the eight heads read keys that were not made for them, and the loss rises by one nat.
# With the groups swapped no head keeps its keys, and it is worse. Within a group the order does not matter: that is the
# control which shows that reordering by itself does no harm.
#
# ## The same keys, different maps
#
# **Predict.** Two heads that share keys: do they look at the same tokens? The difference of two maps can be measured as
# the share of weight that one of them would have to move to become the other: 0 for equal maps, 1 for maps that have
# nothing in common. Which value do you expect: near 0, about $0.3$, or more than $0.5$?

# %%
tokens = tokenizer.encode(SENTENCE)
words = figures.pieces(tokenizer, tokens)
trace, on_story = nl.Trace(), nl.Trace()
nl.forward(tokens, weights, config, tap=trace)
nl.forward(tokenizer.encode(STORY), weights, config, tap=on_story)

for label, run in (("sentence", trace), ("story", on_story)):
    shared, others = [], []
    for i in range(1, config.n_layers):                   # in layer 0 all maps are alike
        probs = run[f"layers.{i}.attn.probs"][:, 2:]      # without the first two tokens
        for h in range(H):
            for other in range(h):
                moved = np.abs(probs[h] - probs[other]).sum(axis=-1).mean() / 2
                if h // (H // G) == other // (H // G):
                    shared.append(moved)
                else:
                    others.append(moved)
    print(f"{label:8}: weight to move, same keys {np.mean(shared):.2f}, other keys "
          f"{np.mean(others):.2f}")


def two(layer, first, second):
    """The maps of two heads side by side."""
    figure, axes = figures.new(3.9, columns=2, sharey=True)
    for ax, h in zip(axes, (first, second)):
        figures.matrix(ax, trace[f"layers.{layer}.attn.probs"][h], words, words,
                       f"layer {layer}, query head {h}, key head {h // (H // G)}",
                       kind=figures.SHARE)
        ax.tick_params(axis="x", rotation=90)
    figures.show(figure, "Where each token looks, for two query heads of one layer; above each map "
                         "stands the key head that it reads.")


two(4, 2, 3)

# %% tags=["sliders"]
ipywidgets.interact(two, layer=(0, config.n_layers - 1), first=(0, H - 1), second=(0, H - 1));

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). All eight maps of a layer; those in one row share a key head. The keys
# `[` and `]` go to the layer before and after:
#
#     python notebooks/explorer/build.py --open "#t=layers.4.attn.probs&i=2.9.8"

# %% [markdown]
# **Explain.** They differ nearly as much as two heads with different keys. So shared keys do not make shared maps: the
# queries tell the heads apart. What sharing costs in quality, this model cannot say: it was trained with shared keys
# from the start.
#
# ## No copy is made
#
# The simple way is to repeat each key head H/G times, and then do as in MHA. It reads and writes again what sharing was
# meant to save. numpy_llama.py stacks the queries instead, as in the pencil example.
#
# **Predict.** Which of the two ways gives the model's scores: stacked queries, repeated keys, or both?

# %%
q, k = trace["layers.4.attn.q_rope"], trace["layers.4.attn.k_rope"]          # (H, T, d), (G, S, d)
T, S = q.shape[1], k.shape[1]
stacked = q.reshape(G, H // G * T, d)                                        # (G, H/G * T, d)
scores = (stacked @ k.swapaxes(1, 2)).reshape(H, T, S) / math.sqrt(d)
repeated = np.repeat(k, H // G, axis=0)                                      # (H, S, d)
scores_repeated = q @ repeated.swapaxes(1, 2) / math.sqrt(d)

mask = nl.causal_mask(np.arange(T), S)
model = trace["layers.4.attn.scores"]
print("stacked queries: ", np.allclose(np.where(mask, scores, -np.inf), model, atol=1e-4))
print("repeated keys:   ", np.allclose(np.where(mask, scores_repeated, -np.inf), model, atol=1e-4))
print(f"keys of {S} tokens {k.nbytes:,} bytes, repeated {repeated.nbytes:,}")
one = q[:, -1:].copy()                                                       # one new token
stacked_one = one.reshape(G, -1, d)
print("the stacked queries of a prompt are a copy:", not np.shares_memory(q, stacked))
print("those of one new token are a copy:         ", not np.shares_memory(one, stacked_one))

# %% [markdown]
# **Explain.** Both are right; one of them moves four times as many bytes. In a prompt the queries must be copied once
# to stand in the right order; for one new token they already do.
#
# ### Optional: repeating without a copy
#
# NumPy can also *pretend* to repeat. `np.broadcast_to(k[:, None], (G, H // G, S, d))` has the shape of the repeated
# keys and no memory of its own. An array's *stride* says how many bytes to step for the next index; along the repeated
# axis it is 0, so the same numbers are read again. The product with it gives the same scores.
#
# ## What it saves
#
# The cache holds, for each token and layer, G keys and G values of d numbers:
#
# $$\text{bytes per token} = 2 \cdot L \cdot G \cdot d \cdot \text{bytes per number}$$
#
# **Predict.** Llama 2 70B is ten times as large as 7B. Whose cache is larger?

# %%
def bytes_per_token(c, width=2):                          # width 2: float16
    return 2 * c.n_layers * c.n_kv_heads * c.head_dim * width


print("float16 cache          per token   at 2,048 tokens   at 4,096 tokens")
for name, c in nl.PRESETS.items():
    each = bytes_per_token(c)
    print(f"{name:12} H/G {c.n_heads}/{c.n_kv_heads:<3} {each / 2**10:6.0f} KiB "
          f"{2048 * each / 2**30:13.2f} GiB {4096 * each / 2**30:13.2f} GiB")
as_mha = replace(nl.PRESETS["llama-2-70b"], n_kv_heads=64)
print(f"70B with G = H: {bytes_per_token(as_mha) / 2**10:.0f} KiB per token, "
      f"{sum(nl.parameter_counts(as_mha).values()) / 1e9:.1f} billion parameters "
      f"instead of {sum(nl.parameter_counts(nl.PRESETS['llama-2-70b']).values()) / 1e9:.1f}")

# %%
sizes = {name: 4096 * bytes_per_token(c) / 2**30 for name, c in nl.PRESETS.items()}
sizes["70b if G were H"] = 4096 * bytes_per_token(as_mha) / 2**30
figure, ax = figures.new(2.9)
figures.bars(ax, sizes, ".2f", marked=[n for n in sizes if n in ("llama-2-34b", "llama-2-70b")])
ax.set(xlabel="GiB of float16 cache for 4,096 tokens")
figures.show(figure, "Hatched, the two sizes with grouped queries: the cache of the largest Llama "
                     "2 is smaller than that of the smallest.")


# %%
def by_groups(layers, heads):
    """Cache of a model of head width 128 for every G that divides H."""
    choices = [g for g in range(1, heads + 1) if heads % g == 0]
    figure, ax = figures.new(2.2)
    figures.bars(ax, {f"G {g}": 2 * layers * g * 128 * 2 * 4096 / 2**30 for g in choices}, ".2f")
    ax.set(xlabel="GiB of float16 cache for 4,096 tokens", title=f"L {layers}, H {heads}, d 128")
    figures.show(figure, "The cache grows with G; for the same G, H does not matter.")


by_groups(80, 64)

# %% tags=["sliders"]
ipywidgets.interact(by_groups, layers=(8, 96, 8), heads=[8, 16, 32, 64]);

# %% [markdown]
# The cache is not all that is saved. `wk` and `wv` shrink too, and each new token has to read less: all weights, once
# for all sequences that are written at the same time, and the whole cache of each.

# %%
for label, c in (("70B, G 8", nl.PRESETS["llama-2-70b"]), ("70B, G 64", as_mha)):
    counts = nl.parameter_counts(c)
    read = 2 * sum(counts.values()) / 2**30
    kept = 4096 * bytes_per_token(c) / 2**30
    print(f"{label:9} attention {counts['attention'] / 1e9:4.1f} billion parameters, "
          f"all weights {read:.0f} GiB;\n{'':9} caches of 4,096 tokens: {kept:.2f} GiB for one "
          f"sequence, {32 * kept:.0f} GiB for 32")

# %% [markdown]
# **Explain.** "Llama 2 has the same architecture as Llama 1" is a common error: 34B and 70B have G 8. The 70B is also
# wider in the feed-forward step; with G = H it would have 78.4 billion parameters. For one sequence the cache is small
# beside the weights. A server writes many at the same time: with 32 of them and G = H, the caches would be more than
# twice as large as the weights; with G 8 they are less than a third.
#
# ## From two heads to one
#
# The GQA paper (section 2.1) turns a multi-head model into one with fewer key heads: it takes the *mean* of the
# matrices of the heads that are to share, and trains a little further. Here is the first half of that, without the
# training: two key/value heads become one.
#
# **Predict.** The mean of the two heads, or just one of them: which costs less?

# %%
def with_one_head(how):
    """MQA made of the shipped model: how(w) takes (D, G, d) to (D, d)."""
    layers = []
    for layer in weights["layers"]:
        one = {name: np.ascontiguousarray(how(layer["attn"][name].reshape(-1, G, d)))
               for name in ("wk", "wv")}
        layers.append(layer | {"attn": layer["attn"] | one})
    return weights | {"layers": layers}


def long_mean(w):
    """The mean of both heads, made as long as the heads are: (D, G, d) -> (D, d)."""
    mean = w.mean(axis=1)
    length_of_one = np.linalg.norm(w) / math.sqrt(G)
    return mean * (length_of_one / np.linalg.norm(mean))


def random_head(w):
    return np.random.default_rng(0).normal(0, w.std(), w[:, 0].shape).astype(w.dtype)


mqa = replace(config, n_kv_heads=1)
ways = {"mean of both": lambda w: w.mean(axis=1), "mean, made longer": long_mean,
        "head 0 alone": lambda w: w[:, 0], "head 1 alone": lambda w: w[:, 1],
        "random numbers": random_head}
nats = {}
for text, label in ((STORY, "story"), (SENTENCE, "sentence")):
    nats[label] = {"as trained": loss(text=text)}
    for way, how in ways.items():
        nats[label][way] = loss(weights=with_one_head(how), config=mqa, text=text)
print("nats per token        story  sentence")
for way, x in nats["story"].items():
    print(f"{way:20} {x:6.2f} {nats['sentence'][way]:9.2f}")

# %%
figure, ax = figures.new(2.3)
figures.bars(ax, nats["story"], ".2f", marked=["mean of both", "mean, made longer"])
ax.set(xlabel="nats per token, story")
figures.show(figure, "Without training again every way is costly; the mean (hatched) costs much "
                     "less if it is made as long as the heads that it replaces.")

# %% [markdown] tags=["result"]
# On the story head 0 alone does better than head 1 alone, although each leaves four of the eight query heads with the
# keys that they were trained with. Why? Two measurements: how much do the query heads of each group matter, and how
# alike are the two heads that were averaged?

# %%
def cut(heads):
    """A tap that silences some query heads in all layers."""
    def tap(name, x):
        if name.endswith("attn.heads"):
            x = x.copy()
            x[heads] = 0
        return x
    return tap


print(f"without query heads 0 to 3: {loss(cut(slice(0, 4))):.2f}, without 4 to 7: "
      f"{loss(cut(slice(4, 8))):.2f} nats per token")
cosines, shorter = [], []
for layer in weights["layers"]:
    for name in ("wk", "wv"):
        first, second = layer["attn"][name].reshape(-1, G, d).swapaxes(0, 1)  # (D, d) each
        lengths = np.linalg.norm(first), np.linalg.norm(second)
        cosines.append(np.sum(first * second) / (lengths[0] * lengths[1]))
        shorter.append(np.linalg.norm((first + second) / 2) / np.mean(lengths))
print(f"cosine of the two heads' matrices: from {min(cosines):.2f} to {max(cosines):.2f}")
print(f"length of the mean, as a share of theirs: {np.mean(shorter):.2f}")

# %% [markdown]
# **Explain.** The query heads of group 0 matter more on this story, so it costs more to take *their* keys away. And the
# two heads' matrices are nearly orthogonal, so their mean is shorter by the root of 2: too small in scores and in
# values. Made longer, it is about as good as the better single head. The paper compares mean, first head and random
# *after* training further, and finds the mean best there. This lesson does not train, so it says what the change costs
# at first, not what it is worth in the end.
#
# ## In the wild
#
# - **G set to 1 by mistake** for a model without sharing: every shape of `wk` is then refused
#   ([llama#427](https://github.com/meta-llama/llama/issues/427)). Where `n_kv_heads` is missing from a file, G = H.
# - **Right with 7B and 13B, wrong with 70B only**
#   ([transformers#27545](https://github.com/huggingface/transformers/issues/27545)). Where G = H, and where G = 1, most
#   mistakes in the sharing are invisible. Test with 1 < G < H:

# %%
def attention_in_turns(q, k):                             # the mistake from above
    return np.stack([q[h] @ k[h % len(k)].T for h in range(len(q))])


def attention_in_groups(q, k):
    return np.stack([q[h] @ k[h // (len(q) // len(k))].T for h in range(len(q))])


for heads in (H, G, 1):
    some = np.random.default_rng(1).standard_normal((heads, S, d))
    same = np.allclose(attention_in_turns(q, some), attention_in_groups(q, some))
    print(f"G {heads}: right and wrong give the same scores: {same}")

# %% [markdown]
# ## Questions
#
# **1.** Pencil: a model has L 2, H 8, G 2, d 4, and stores numbers of 2 bytes. How large is its cache for 10 tokens?
# And with H 16 and the same G?
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
# **3.** A model with G = H can be turned into one with twice the query heads and the same outputs, and one with G < H
# into one with G = H. Which of the two costs nothing in quality, and what does it cost otherwise?
#
# <details>
# <summary>Answer</summary>
#
# From G < H to G = H: copy each key/value head H/G times; every number stays the same, and the cache grows by H/G.
# (Also the first is possible without loss, by query heads whose rows of `wo` are zero; they would do nothing.) The way
# from G = H to G < H is the one that loses something.
#
# </details>
#
# ## Exercises
#
# Fill in each function; `check` runs it on several inputs, and says what a wrong answer looks like.
#
# ### 1. How many at the same time?
#
# A machine has `memory` bytes. The weights, `parameters` numbers, stand there once; each sequence that is written at
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
# 2. Heads that share keys still look at different tokens, as their queries differ.
# 3. The cache is 2·L·G·d numbers per token: H does not matter to it.
# 4. Sharing copies no key: the queries of a group are stacked as rows of one matrix.
# 5. In Llama 2, 34B and 70B share; 7B and 13B do not, so a test on them finds no mistake in the sharing.
