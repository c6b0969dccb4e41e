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
# | **Minutes** | 40 |
#
# T new tokens, S tokens seen so far, D model width, H query heads, G key/value heads, d head width, L layers.

# %% tags=["hide"]
import math
from dataclasses import replace

import checks
import figures
import ipywidgets
import numpy as np
from course import SENTENCE, config, loss, nl, tokenizer, weights

check = checks.lesson("05")

# %% [markdown]
# ## Many questions, few answers
#
# While a Llama writes, it keeps the keys and values of every token that it has seen: the *cache*. With each new token
# all of them are read again. Queries are used once and forgotten. So keys and values are the expensive part, and one
# can have fewer of them. Three ways to do it (GQA paper, section 2.2; Llama 2, section A.2.1):
#
# - *multi-head attention*, MHA: G = H. Each query head has a key/value head of its own.
# - *grouped-query attention*, GQA: 1 < G < H. H/G query heads share one.
# - *multi-query attention*, MQA: G = 1. All share one.
#
# **Predict.** This model has H 8 and G 2. Which shapes have `wq`, `wk`, `wv`, `wo`? D is 256.

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
# **Predict.** A port deals the keys out in turns instead: head h reads key head h mod G. All shapes fit. What is the
# loss on our story, 2.12 in the right order?

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


in_turns = [h for g in range(G) for h in range(H) if h % G == g]       # who then shares key head g
print("heads:          ", *range(H))
print("h // (H / G):   ", *[h // (H // G) for h in range(H)])
print("h % G:          ", *[h % G for h in range(H)])
print(f"loss {loss():.2f}, dealt out in turns {loss(weights=reordered(in_turns)):.2f}")
within = [3, 2, 1, 0, 7, 6, 5, 4]
print(f"other order within the groups: {loss(weights=reordered(within)):.2f}")

# %% [markdown]
# **Explain.** Half of the heads read keys that were not made for them. Within a group the order does not matter.
#
# ## The same keys, different maps
#
# **Predict.** Heads that share keys and values: do they look at the same tokens?

# %%
tokens = tokenizer.encode(SENTENCE)
words = figures.pieces(tokenizer, tokens)
trace = nl.Trace()
nl.forward(tokens, weights, config, tap=trace)
print("queries", trace["layers.4.attn.q_rope"].shape, " keys", trace["layers.4.attn.k_rope"].shape)


def two(layer, first, second):
    """The maps of two heads side by side."""
    figure, axes = figures.new(3.9, columns=2, sharey=True)
    for ax, h in zip(axes, (first, second)):
        figures.matrix(ax, trace[f"layers.{layer}.attn.probs"][h], words, words,
                       f"layer {layer}, query head {h}, key head {h // (H // G)}",
                       kind=figures.SHARE)
        ax.tick_params(axis="x", rotation=90)
    figures.show(figure, "Where each token looks: what a head asks decides, even where the keys "
                         "are the same.")


two(4, 2, 3)

# %% tags=["sliders"]
ipywidgets.interact(two, layer=(0, config.n_layers - 1), first=(0, H - 1), second=(0, H - 1));

# %%
probs = np.stack([trace[f"layers.{i}.attn.probs"] for i in range(1, config.n_layers)])[:, :, 2:]
apart = np.abs(probs[:, :, None] - probs[:, None]).sum(-1).mean(-1) / 2       # (L - 1, H, H)
same_keys = np.arange(H)[:, None] // (H // G) == np.arange(H) // (H // G)
np.fill_diagonal(same_keys, False)
other_keys = np.arange(H)[:, None] // (H // G) != np.arange(H) // (H // G)
print(f"weight that differs between two heads: same keys {apart[:, same_keys].mean():.2f}, "
      f"other keys {apart[:, other_keys].mean():.2f}")

# %% [markdown]
# (Layer 0 and the first two tokens are left out of these means.)
#
# **Explain.** They differ nearly as much as two heads with different keys: the questions decide. What sharing costs in
# quality, this model cannot say: it was trained with shared keys from the start.
#
# ## No copy is made
#
# The simple way is to repeat each key head H/G times, and then do as in MHA. It costs what sharing was meant to save.
# numpy_llama.py stacks the *queries* that share a key head instead, as rows of one matrix, so that no key is copied.
#
# **Predict.** A new token arrives, and 17 are in the cache already. Which arrays are copied: the keys, the queries,
# both?

# %%
q, k = trace["layers.4.attn.q_rope"], trace["layers.4.attn.k_rope"]          # (H, T, d), (G, S, d)
T, S = q.shape[1], k.shape[1]
stacked = q.reshape(G, H // G * T, d)                                        # (G, H/G * T, d)
scores = (stacked @ k.swapaxes(1, 2)).reshape(H, T, S) / math.sqrt(d)
mask = nl.causal_mask(np.arange(T), S)
print("the scores, to the bit:", np.array_equal(np.where(mask, scores, -np.inf),
                                                trace["layers.4.attn.scores"]))
repeated = np.repeat(k, H // G, axis=0)                                      # (H, S, d)
print("and close to those of repeated keys:",
      np.allclose(scores, q @ repeated.swapaxes(1, 2) / math.sqrt(d), atol=1e-4))

# %%
cache = [nl.KVCache(config) for _ in range(config.n_layers)]
nl.forward(tokens, weights, config, cache=cache)
step = nl.Trace()
nl.forward([tokenizer.eos], weights, config, cache=cache, tap=step)          # one token more
one, held = step["layers.4.attn.q_rope"], cache[4]
seen = held.k[:, :held.length]                                               # (G, S, d)

for label, x in (("a prompt of T 17", q), ("one new token", one)):
    moved = not np.shares_memory(x, x.reshape(G, -1, d))
    print(f"{label:17} queries {x.shape}, strides {x.strides}; stacking copies: {moved}")
print("the keys that are read are a view of the cache:", np.shares_memory(seen, held.k))
print(f"keys of {held.length} tokens {seen.nbytes:,} bytes, "
      f"repeated {np.repeat(seen, H // G, axis=0).nbytes:,} bytes, a copy")
view = np.broadcast_to(seen[:, None], (G, H // G, held.length, d))
print(f"the same as a view: strides {view.strides}, shares memory: {np.shares_memory(seen, view)}")

# %% [markdown]
# **Explain.** A stride says how many bytes to step for the next index; zero means the same numbers again, so a
# broadcast repeats keys for nothing. The keys are never copied, and they are what grows with S. In a prompt the
# queries are: splitting the heads leaves them token by token in memory, and stacking needs them head by head. That
# copy is made once a layer. For one new token there is nothing to bring into order, and the reshape is a view.
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
    read, kept = 2 * sum(counts.values()) / 2**30, 4096 * bytes_per_token(c) / 2**30
    print(f"{label:9} attention {counts['attention'] / 1e9:4.1f} billion parameters, "
          f"all weights {read:.0f} GiB;\n{'':9} caches of 4,096 tokens: {kept:.2f} GiB for one "
          f"sequence, {32 * kept:.0f} GiB for 32")

# %% [markdown]
# **Explain.** "Llama 2 has the same architecture as Llama 1" is a common error: 34B and 70B have G 8. The 70B is also
# wider in the feed-forward step; with G = H it would have 78.4 billion parameters. For one sequence the cache is small
# beside the weights. A server writes many at the same time: with 32 and G = H, the caches would be more than twice as
# large as the weights; with G 8 they are less than a third.
#
# ## From two heads to one
#
# The GQA paper (section 2.1) turns a multi-head model into one with fewer key heads: it takes the *mean* of the
# matrices of the heads that are to share, and trains a little further. Here is the first half of that, without the
# training: two key/value heads become one.
#
# **Predict.** The mean of the two, or just the first of them: which costs less?

# %%
def with_one_head(how):
    """MQA made of the shipped model: how(w) takes (D, G, d) to (D, d)."""
    layers = []
    for layer in weights["layers"]:
        one = {name: np.ascontiguousarray(how(layer["attn"][name].reshape(-1, G, d)))
               for name in ("wk", "wv")}
        layers.append(layer | {"attn": layer["attn"] | one})
    return weights | {"layers": layers}


def random_heads(seed):
    rng = np.random.default_rng(seed)
    return lambda w: rng.normal(0, w.std(), w[:, 0].shape).astype(w.dtype)


mqa = replace(config, n_kv_heads=1)
ways = {"two heads, as trained": loss()}
for label, how in (("the mean of both", lambda w: w.mean(axis=1)),
                   ("only head 0", lambda w: w[:, 0]),
                   ("only head 1", lambda w: w[:, 1])):
    ways[label] = loss(weights=with_one_head(how), config=mqa)
random = [loss(weights=with_one_head(random_heads(seed)), config=mqa) for seed in range(5)]
ways["random, mean of 5 draws"] = np.mean(random)
for label, nats in ways.items():
    print(f"{label:24} {nats:.2f} nats per token")
print(f"random draws from {min(random):.1f} to {max(random):.1f}")

# %%
figure, ax = figures.new(2.2)
figures.bars(ax, ways, ".2f", marked=["the mean of both"])
ax.set(xlabel="nats per token")
figures.show(figure, "Without training again every way is costly: the mean (hatched) costs as "
                     "much as head 1 alone and more than head 0 alone; random heads cost most.")

# %% [markdown]
# **Explain.** Here the first head alone is the better start. Four of the eight query heads then still read the keys
# and values that they were trained with; with the mean, none does. The paper compares the two *after* training
# further, and finds the mean best there. This lesson does not train, so it can say what the change costs, not what it
# is worth.
#
# ## In the wild
#
# - **Keys have their own head count.** A converter reordered the rows of `wk` as if there were H heads
#   ([llama.cpp#2376](https://github.com/ggml-org/llama.cpp/issues/2376)). Lesson [14](14_weights_on_disk.ipynb) says
#   what that costs.
# - **`n_kv_heads` is missing** from the files of models without sharing: then G = H, not 1.
# - **Tests on 7B find nothing.** There G = H, and every mistake in the sharing is invisible. Test with 1 < G < H.

# %%
def attention_in_turns(q, k):                             # the mistake from above
    return np.stack([q[h] @ k[h % len(k)].T for h in range(len(q))])


def attention_in_groups(q, k):
    return np.stack([q[h] @ k[h // (len(q) // len(k))].T for h in range(len(q))])


for heads in (H, G, 1):
    some = np.random.default_rng(1).standard_normal((heads, S, d))
    same = np.allclose(attention_in_turns(q, some), attention_in_groups(q, some))
    print(f"G {heads}: the two agree: {same}")

# %% [markdown]
# ## Exercises
#
# Fill in each function; `check` runs it on several inputs, and says what a wrong answer looks like.
#
# ### 1. The cache
#
# `config` has the fields of `nl.Config`; `width` is the number of bytes of one number.

# %% tags=["exercise"]
def cache_bytes(config, tokens, width):
    """Bytes of the whole cache: Config, number of tokens, bytes per number -> number."""
    ...

# %%
check(cache_bytes)

# %% tags=["solution"]
def cache_bytes(config, tokens, width):
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * tokens * width

# %% [markdown]
# ### 2. Scores with shared keys
#
# The scores of all query heads, without scale and mask. A loop will do; a reshape is shorter.

# %% tags=["exercise"]
def grouped_scores(q, k):
    """Each query head with the key head of its group: (H, T, d), (G, S, d) -> (H, T, S)."""
    ...

# %%
check(grouped_scores)

# %% tags=["solution"]
def grouped_scores(q, k):
    H, T, d = q.shape
    G, S, _ = k.shape
    return (q.reshape(G, H // G * T, d) @ k.swapaxes(1, 2)).reshape(H, T, S)

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
# 2. Heads that share keys still look at different tokens, as their questions differ.
# 3. The cache is 2·L·G·d numbers per token: H does not matter to it.
# 4. Sharing copies no key: stack the queries, or broadcast the keys as a view.
# 5. In Llama 2, 34B and 70B share; 7B and 13B do not, so a test on them finds no mistake in it.
