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
# # 8. Prompt, decoding and the cache
#
# | | |
# | --- | --- |
# | **You will be able to** | say what a cache saves, to the FLOP; use one without the two classic mistakes; compute the arithmetic intensity of a step, and from it how fast a model can decode on a given machine |
# | **It assumes** | lessons [04](04_attention.ipynb), [05](05_grouped_query_attention.ipynb) and [07](07_forward_pass.ipynb) |
# | **Minutes** | 45 |
#
# T new tokens, S tokens seen so far, D model width, F feed-forward width, V vocabulary, H query heads, G key/value heads,
# d head width, L layers.

# %% tags=["hide"]
import sys
import time

sys.path.insert(0, "..")
from course import STORY, config, nl, tokenizer, weights

import figures
import ipywidgets
import numpy as np
from checks import check

# %% [markdown]
# ## Two phases
#
# A Llama first reads the prompt: T tokens at once. Then it writes: one token goes in, one row of logits comes out, a
# token is drawn, and that one goes in next. The first phase is called *prefill*, the second *decoding*. The papers do
# not speak of it, as it changes no number; every program does it.
#
# The mask (lesson [04](04_attention.ipynb)) makes it possible: row t depends on tokens 0 to t only, so what was computed
# for earlier tokens stays right. Of all that, later tokens need the keys and the values alone. They are kept in a *cache*.
#
# **Predict.** The story has 228 tokens. If they are decoded one by one *without* a cache, how many rows go through the
# layers in all? And with one?

# %%
story = tokenizer.encode(STORY)
T = len(story)
print(f"T {T}: without a cache 1 + 2 + ... + {T} = {T * (T + 1) // 2:,} rows, with a cache {T}")


def flops(T, S, c=config):
    """FLOPs of T new tokens that see S tokens in all, with logits for the last one only."""
    projections = 2 * T * c.dim * 2 * (c.n_heads + c.n_kv_heads) * c.head_dim
    attention = 2 * 2 * c.n_heads * T * S * c.head_dim    # scores and mix
    feed_forward = 2 * T * 3 * c.dim * c.hidden_dim
    return c.n_layers * (projections + attention + feed_forward) + 2 * c.dim * c.vocab_size


without = np.cumsum([flops(n, n) for n in range(1, T + 1)])
cached = np.cumsum([flops(1, n) for n in range(1, T + 1)])
for n in (10, 50, T):
    a, b = without[n - 1], cached[n - 1]
    print(f"{n:3} tokens: {a / 1e9:6.2f} billion FLOPs without, {b / 1e9:4.2f} with: "
          f"{a / b:3.0f} times as many")

# %% [markdown]
# On this machine, in seconds. What is timed is the whole story, token by token, as if each had just been drawn.

# %% tags=["timing"]
seconds = {"without a cache": [], "with a cache": []}
cache = nl.new_cache(weights, config, T)
for n in range(1, T + 1, 1):
    start = time.perf_counter()
    nl.forward(story[n - 1:n], weights, config, cache)
    seconds["with a cache"].append(time.perf_counter() - start)
    if n % 12 == 1:                                       # every twelfth is enough to see it
        start = time.perf_counter()
        nl.forward(story[:n], weights, config)
        seconds["without a cache"].append(time.perf_counter() - start)
figure, ax = figures.new(2.7)
ax.plot(range(1, T + 1, 12), 1000 * np.array(seconds["without a cache"]), "o-", markersize=4)
ax.plot(range(1, T + 1), 1000 * np.array(seconds["with a cache"]))
ax.set(xlabel="tokens so far", ylabel="milliseconds for the next", ylim=(0, None))
ax.legend(["without a cache (every twelfth token)", "with a cache"])
figures.show(figure, "Without a cache every token takes longer than the one before; with one, time "
                     "hardly grows.")

# %% [markdown]
# **Explain.** Without a cache each token costs as much as a prompt of all tokens so far. With it, what grows is only
# attention's own part: one query, S keys.
#
# ## What the cache holds
#
# For each layer two arrays, (G, S, d): turned keys, and values. They are allocated once for the longest text wanted, and
# filled from the left; nothing is moved.
#
# **Predict.** How many bytes does one token add here, in float32? And in 7B, in float16?

# %%
cache = nl.new_cache(weights, config, 64)
print(f"{len(cache)} layers, keys of one {cache[0].k.shape}, values {cache[0].v.shape}")
for part in (story[:20], story[20:21], story[21:22]):
    logits = nl.forward(part, weights, config, cache)
    print(f"{len(part):2} tokens in, logits {logits.shape}, the cache holds {cache[0].length}")
per_token = sum(c.k.nbytes + c.v.nbytes for c in cache) // 64
print(f"bytes per token: {per_token:,}; 2·L·G·d·4 = "
      f"{2 * config.n_layers * config.n_kv_heads * config.head_dim * 4:,}")
for name in ("llama-2-7b", "llama-2-70b"):
    c = nl.PRESETS[name]
    each = 2 * c.n_layers * c.n_kv_heads * c.head_dim * 2
    print(f"{name:11} in float16: {each // 1024} KiB per token, "
          f"{4096 * each / 2**30:.2f} GiB for 4,096")

# %%
figures.show(figures.cache_filling(cache[0].k[0], 20),
             "The keys of one head in the cache: a column for each token, the first 20 from the "
             "prompt, two more from decoding; the rest is still empty.")

# %% [markdown]
# ## The same numbers, in any pieces
#
# **Predict.** We feed the story in pieces of 1, 7 and 64 tokens, and all at once. Are the logits the same? To the bit?

# %%
whole = nl.forward(story, weights, config)                # (T, V)
for size in (1, 7, 64, T):
    cache = nl.new_cache(weights, config, T)
    parts = [nl.forward(story[i:i + size], weights, config, cache) for i in range(0, T, size)]
    logits = np.concatenate(parts)
    apart = np.abs(logits - whole).max()
    print(f"pieces of {size:3}: largest difference below 1e-4: {apart < 1e-4}; "
          f"same likeliest token everywhere: {np.array_equal(logits.argmax(-1), whole.argmax(-1))}")

# %% [markdown]
# **Explain.** The same up to rounding. A product with one row runs other machine code than one with many, and adds
# up in another order. The mask of a piece is the lower part of the whole triangle:

# %%
figure, axes = figures.new(2.3, columns=3)
for ax, (first, new) in zip(axes, ((0, 6), (6, 4), (10, 1))):
    mask = nl.causal_mask(np.arange(first, first + new), first + new)        # (T, S)
    figures.matrix(ax, mask.astype(float), range(first, first + new), range(first + new),
                   title=f"T {new}, S {first + new}", kind=figures.SHARE, limit=1.5)
    ax.set_xlabel("token seen")
axes[0].set_ylabel("token that asks")
figures.show(figure, "Six tokens, then four, then one: the last token of each piece sees all that "
                     "the cache holds, so decoding needs no mask at all.")

# %% [markdown]
# ## The classic mistake
#
# The new token stands at position S − 1, and must be turned by that angle. A program that counts positions anew in
# each call turns every decoded token by 0.
#
# **Predict.** A prompt of 100 tokens is read rightly; the others come one by one, all turned as if at position 0. What
# is their loss?

# %%
def as_position_0(name, x):                               # RoPE at position 0 turns nothing
    kind = name.split(".")[-1]
    if kind in ("q", "k"):
        before[kind] = x
    return before[kind[0]] if kind in ("q_rope", "k_rope") else x


before, losses = {}, {}
for label, tap in (("right", nl.ignore), ("position 0", as_position_0)):
    cache = nl.new_cache(weights, config, T)
    rows = [nl.forward(story[:100], weights, config, cache)[-1:]]
    rows += [nl.forward([token], weights, config, cache, tap=tap) for token in story[100:-1]]
    losses[label] = nl.cross_entropy(np.concatenate(rows), story[100:])
    print(f"{label:10}: first 10 decoded tokens {losses[label][:10].mean():.2f}, "
          f"last 100 {losses[label][-100:].mean():.2f} nats per token")

# %% [markdown]
# **Explain.** The new token claims to stand at the beginning, in front of all that it should look back to: every distance
# has the wrong sign. It is worst at once, when there is nothing but the prompt to look at.
#
# ## Why decoding is slow: memory
#
# To multiply one row by a matrix, every number of the matrix is read once, and used for one multiplication and one
# addition. In float32 that is 2 FLOPs for 4 bytes. With T rows, each number that is read serves T times. The *arithmetic
# intensity* is FLOPs per byte read:
#
# $$\text{intensity} \approx \frac{2\,T \cdot \text{parameters}}{\text{bytes per parameter} \cdot \text{parameters}} = \frac{2\,T}{\text{bytes per parameter}}$$
#
# A machine has a peak of arithmetic (FLOPs per second) and a peak of memory traffic (bytes per second). A step cannot
# be faster than either allows. Drawn against the intensity, that is a roof with a slope and a flat part.
#
# **Predict.** Where on the roof is decoding, and where a prompt of 500 tokens?

# %%
read_once = sum(w.size for layer in weights["layers"] for part in ("attn", "ffn")
                for w in layer[part].values()) + weights["output"].size
print(f"{read_once:,} parameters are read for each step, {4 * read_once / 1e6:.1f} MB in float32")
for rows in (1, 16, 500):
    per_byte = flops(rows, rows) / (4 * read_once)
    print(f"T {rows:3}: {per_byte:6.1f} FLOPs per byte; 2·T/4 = {2 * rows / 4:.1f}")

# %% tags=["timing"]
def fastest(step, repeat=7):
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)


rng = np.random.default_rng(0)
square = rng.standard_normal((1500, 1500), dtype=np.float32)
tall = rng.standard_normal((8000, 8000), dtype=np.float32)                   # larger than any cache
row = rng.standard_normal((1, 8000), dtype=np.float32)
peak = 2 * 1500**3 / fastest(lambda: square @ square)
bandwidth = tall.nbytes / fastest(lambda: row @ tall)
print(f"this machine: {peak / 1e9:.0f} billion FLOPs/s, {bandwidth / 1e9:.0f} GB/s")

points = {}
for rows in (1, 4, 16, 64, 256, 500):
    ids = (story * 3)[:rows]
    took = fastest(lambda: nl.forward(ids, weights, config), 5)
    all_logits = 2 * (rows - 1) * config.dim * config.vocab_size     # flops has those of one row
    work = flops(rows, rows) + all_logits
    points[f"T {rows}"] = (work / (4 * read_once), work / took)
figures.show(figures.roofline(peak, bandwidth, points),
             "The roof of the machine that built this page, and this model's forward pass under "
             "it: with more rows at once it climbs towards the flat part.")

# %% [markdown]
# **Explain.** One row uses a small part of the arithmetic: the processor waits for numbers. Many rows come nearer to the
# flat part, where arithmetic is the limit. What is missing to the roof is softmax, norms and all that is not a matrix
# product, and with very many rows the scores, which grow with T².
#
# ## How fast can 7B decode?
#
# Whatever the program, each token needs all weights once. So the memory bandwidth divided by the size of the weights is
# a bound on tokens per second.

# %%
parameters = sum(nl.parameter_counts(nl.PRESETS["llama-2-7b"]).values())
print("memory that reads, in GB/s:       20       50      100     1000")
for label, width in (("float32", 4), ("float16", 2), ("4 bits", 0.5)):
    size = parameters * width / 1e9
    speeds = "  ".join(f"{gigabytes / size:7.1f}" for gigabytes in (20, 50, 100, 1000))
    print(f"7B in {label:8} {size:5.1f} GB: at most {speeds}  tokens/s")


# %%
def batch(sequences, gigabytes_per_second=100, trillion_flops=1.0):
    """Tokens per second of 7B in float16, all sequences together, against their number."""
    many = np.arange(1, 257)
    by_memory = gigabytes_per_second * 1e9 / (2 * parameters) * many
    by_arithmetic = np.full(len(many), trillion_flops * 1e12 / (2 * parameters))
    figure, ax = figures.new(2.7)
    ax.plot(many, by_memory, label="memory allows")
    ax.plot(many, by_arithmetic, label="arithmetic allows")
    bound = min(by_memory[sequences - 1], by_arithmetic[0])
    ax.plot([sequences], [bound], "o", color="k", label=f"{sequences}: {bound:.0f} tokens/s")
    ax.set(xscale="log", yscale="log", xlabel="sequences at once", ylabel="tokens/s in all")
    ax.legend()
    figures.show(figure, "Weights that are read once serve every sequence: more sequences are "
                         "nearly free, until arithmetic is the limit.")


batch(8)

# %% tags=["sliders"]
ipywidgets.interact(batch, sequences=(1, 256), gigabytes_per_second=(20, 1000, 20),
                    trillion_flops=(0.5, 20.0, 0.5));

# %% [markdown]
# **Explain.** A *batch* decodes many sequences at once, and raises the intensity like a prompt does. The cache is read
# for each sequence separately, so with long texts it becomes the new limit (lesson
# [05](05_grouped_query_attention.ipynb)).
#
# ## When the context is full
#
# The model was trained on 512 tokens, and lesson [03](03_rope.ipynb) shows what comes after that. numpy_llama.py stops
# rather than go on with wrong numbers:

# %%
full = nl.new_cache(weights, config, 8)
for ids, held in (((story * 3)[:513], None), (story[:9], full)):
    try:
        nl.forward(ids, weights, config, held)
    except nl.InputError as error:
        print("InputError:", error)
print("the cache is as it was:", full[0].length)
prompt = (story * 3)[:505]
new = list(nl.generate(prompt, weights, config, 100, temperature=0))
print("new tokens after a prompt of 505:", len(new))

# %% [markdown]
# ## In the wild
#
# - **Cached and uncached differ.** 1e-5 in float32, 0.02 in float16 and 0.125 in bfloat16 were reported
#   ([transformers#25420](https://github.com/huggingface/transformers/issues/25420),
#   [transformers#26869](https://github.com/huggingface/transformers/issues/26869)): rounding, as above, in fewer bits. A
#   test of a cache is made in float32, or better in float64:

# %%
precise, _ = nl.load(nl.Path(nl.__file__).parent / "weights" / "fairytales", np.float64)
whole = nl.forward(story, precise, config)
cache = nl.new_cache(precise, config, T)
logits = np.concatenate([nl.forward([token], precise, config, cache) for token in story])
print("float64, one by one: largest difference below 1e-12:", np.abs(logits - whole).max() < 1e-12)

# %% [markdown]
# - **Positions that start again** with every call, and **a mask for T = S only**: the two mistakes of this lesson. Both
#   are invisible as long as the prompt is read at once.
#
# ## Exercises
#
# Fill in each function; `check` runs it on several inputs, and says what a wrong answer looks like.
#
# ### 1. Intensity (easy)
#
# A product of (T, n) and (n, m): 2·T·n·m FLOPs. Count as traffic the matrix (n, m) only, `width` bytes for each number.

# %% tags=["exercise"]
def intensity(T, n, m, width):
    """FLOPs per byte of a matrix product that reads its (n, m) matrix once: -> number."""
    ...

# %%
check(intensity)

# %% tags=["solution"]
def intensity(T, n, m, width):
    return 2 * T * n * m / (n * m * width)

# %% [markdown]
# ### 2. Append to a cache (medium)
#
# `store` (G, room, d) holds `length` keys per head. Write the new ones behind them, in place, and return those that are
# valid now and the new length.

# %% tags=["exercise"]
def append(store, length, new):
    """Keys behind those held: (G, room, d), number, (G, T, d) -> (G, length + T, d), number."""
    ...

# %%
check(append)

# %% tags=["solution"]
def append(store, length, new):
    end = length + new.shape[1]
    store[:, length:end] = new
    return store[:, :end], end

# %% [markdown]
# ### 3. Decode with a cache (harder)
#
# `forward(tokens, cache)` takes a list of new ids, appends to the cache, and returns (T, V) logits. Return the n next
# ids, always the likeliest. No token may go through `forward` twice, and the last one not at all.

# %% tags=["exercise"]
def decode(prompt, n, forward, cache):
    """The n next ids, greedily: list, number, function, cache -> list."""
    ...

# %%
check(decode)

# %% tags=["solution"]
def decode(prompt, n, forward, cache):
    new, tokens = [], prompt
    while len(new) < n:
        tokens = [int(forward(tokens, cache)[-1].argmax())]
        new += tokens
    return new

# %% [markdown]
# ## In five lines
#
# 1. A prompt goes through at once, an answer token by token; keys and values of what was seen are kept.
# 2. Without a cache a text of n tokens costs n(n + 1)/2 rows, with it n.
# 3. New tokens have positions and a mask that continue those in the cache; programs that start again are wrong.
# 4. In pieces or at once, the numbers are the same up to rounding, and in float64 to twelve decimals.
# 5. Decoding reads all weights for each token, so memory bandwidth bounds its speed; batches and prompts share the reading.
#
# Next: [9. The objective and sampling](09_objective_and_sampling.ipynb): what the logits are trained for, and used for.
