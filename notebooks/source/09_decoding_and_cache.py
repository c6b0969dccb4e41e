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
# # 9. Prompt, decoding and the cache
#
# | | |
# | --- | --- |
# | **The question** | How does a model write token after token without computing everything again? |
# | **You will be able to** | say what a cache saves, to the FLOP; use one without the two classic mistakes; compute the arithmetic intensity of a step, and from it how fast a model can decode on a given machine |
# | **It assumes** | lessons [03](03_attention.ipynb), [05](05_grouped_query_attention.ipynb) and [07](07_forward_pass.ipynb) |
# | **Minutes** | 45 |
#
# T new tokens, S tokens seen so far, D model width, F feed-forward width, V vocabulary, H query heads, G key/value
# heads, d head width, L layers.

# %% tags=["hide"]
import time

import checks
import figures
import ipywidgets
import numpy as np
from course import STORY, config, nl, tokenizer, weights

check = checks.lesson("09")

# %% [markdown]
# ## Two phases
#
# A Llama first reads the prompt: T tokens at once. Then it writes: one token goes in, one row of logits comes out, a
# token is drawn, and that one goes in next. The first phase is called *prefill*, the second *decoding*.
#
# The mask (lesson [03](03_attention.ipynb)) makes it possible: row t depends on tokens 0 to t only, so what was
# computed for earlier tokens stays right. Of all that, later tokens need the keys and the values alone. They are kept
# in a *cache*, which Llama 2 (appendix A.2.1) calls standard practice. The GQA paper (section 1) says what is left to
# pay: every step of decoding reads all weights, and all keys and values so far.
#
# $$q_t = x_t W_q, \qquad K_{0..t} = [K_{0..t-1};\ x_t W_k], \qquad V_{0..t} = [V_{0..t-1};\ x_t W_v]$$
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
# Without a cache, token n costs n rows, and T tokens cost T(T + 1)/2. With a prompt, both ways read it once; what
# differs is each token after it.

# %%
def work(prompt=28, new=200):
    """FLOPs for a prompt and new tokens after it, with and without a cache."""
    steps = np.arange(1, new + 1)
    without = np.cumsum([flops(prompt + n, prompt + n) for n in range(new)])
    cached = flops(prompt, prompt) + np.cumsum([0] + [flops(1, prompt + n) for n in range(1, new)])
    figure, ax = figures.new(2.5)
    figures.lines(ax, steps, {f"without: {without[-1] / 1e9:.1f}": without / 1e9,
                              f"with: {cached[-1] / 1e9:.1f}": cached / 1e9})
    ax.set(xlabel=f"new tokens after a prompt of {prompt}", ylabel="billion FLOPs",
           ylim=(-0.08 * without[-1] / 1e9, None))         # room for the label below
    figures.show(figure, "Without a cache the work bends upwards, since each new token costs more "
                         "than the last; with one it is nearly a straight line.")


work()

# %% tags=["sliders"]
ipywidgets.interact(work, prompt=(1, 256), new=(2, 256));

# %% [markdown]
# On this machine, in seconds. What is timed is the whole story, token by token, as if each had just been drawn.

# %% tags=["timing"]
cached, without = np.full((3, T), np.inf), np.full((3, T), np.inf)
for again in range(3):                                    # the fastest of three counts
    cache = nl.new_cache(weights, config, T)
    for n in range(1, T + 1):
        start = time.perf_counter()
        nl.forward(story[n - 1:n], weights, config, cache)
        cached[again, n - 1] = time.perf_counter() - start
        if n % 12 == 1:                                   # every twelfth is enough to see it
            start = time.perf_counter()
            nl.forward(story[:n], weights, config)
            without[again, n - 1] = time.perf_counter() - start
figure, ax = figures.new(2.7)
ax.plot(range(1, T + 1, 12), 1000 * without.min(axis=0)[::12], "o-", markersize=4)
ax.plot(range(1, T + 1), 1000 * cached.min(axis=0))
ax.set(xlabel="tokens so far", ylabel="milliseconds for the next", ylim=(0, None))
ax.legend(["without a cache (every twelfth token)", "with a cache"])
figures.show(figure, "Without a cache, the time for one token grows with all that stands before "
                     "it; with one, it hardly grows.")

# %% [markdown]
# **Explain.** Without a cache each token costs as much as a prompt of all tokens so far. With it, what grows is only
# attention's own part: one query, S keys.
#
# ## What the cache holds
#
# For each layer two arrays, (G, S, d): turned keys, and values. They are allocated once for the longest text wanted,
# and filled from the left; nothing is moved.
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
# ## Two classic mistakes
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
# **Explain.** The new token claims to stand at the beginning, in front of all that it should look back to: every
# distance to the prompt has the wrong sign, and every distance between two new tokens is 0. It is worst at once, when
# there is nothing but the prompt to look at.
#
# The other mistake is in the mask. A program that knows only T = S draws its triangle from the left, so that the first
# row of a piece sees token 0 alone; another leaves the mask out when there is a cache, as decoding needs none.
#
# **Predict.** The story is read in pieces of 57 tokens. What does each mask cost?

# %%
right = nl.causal_mask
masks = {"by positions": right,
         "triangle from the left": lambda p, S: np.tri(len(p), S, dtype=bool),
         "none": lambda p, S: np.ones((len(p), S), bool)}
for label, mask in masks.items():
    nl.causal_mask = mask                                 # forward looks it up by this name
    cache = nl.new_cache(weights, config, T)
    rows = [nl.forward(story[i:i + 57], weights, config, cache) for i in range(0, T, 57)]
    lost = nl.cross_entropy(np.concatenate(rows)[:-1], story[1:])
    print(f"{label:22}: first piece {lost[:57].mean():.2f}, the others {lost[57:].mean():.2f}")
nl.causal_mask = right

# %% [markdown]
# **Explain.** In the first piece T = S, and the triangle is right. From the second on, row t of a piece sees the first
# t + 1 tokens of the story, and not the words just before its own. No mask at all shows each token those that follow it
# in its piece, the answer among them. Even so the loss rises, in the first piece too: the model never learned to read
# what comes next. One token at a time, no mask is right.
#
# ## Why decoding is slow: memory
#
# To multiply one row by a matrix, every number of the matrix is read once, and used for one multiplication and one
# addition. In float32 that is 2 FLOPs for 4 bytes. With T rows, each number that is read serves T times. The
# *arithmetic intensity* is FLOPs per byte read:
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
scores_and_mix = 4 * config.n_layers * config.n_heads * config.head_dim
print("flops(1, 1) is 2 per parameter, plus attention:",
      flops(1, 1) == 2 * read_once + scores_and_mix)

# %% [markdown]
# With 16 rows it is less than 2·T/4, as only the last row needs the output matrix; with 500 it is more, as attention
# grows with T·S and has no parameters. Now on this machine:

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

done, seconds = {}, {}
for rows in (1, 4, 16, 64, 256, 500):
    ids = (story * 3)[:rows]
    all_logits = 2 * (rows - 1) * config.dim * config.vocab_size     # flops has those of one row
    done[rows] = flops(rows, rows) + all_logits
    seconds[rows] = fastest(lambda: nl.forward(ids, weights, config), 5)
points = {f"T {rows}": (done[rows] / (4 * read_once), done[rows] / seconds[rows]) for rows in done}
figures.show(figures.roofline(peak, bandwidth, points),
             "The roof of the machine that built this page, and this model's forward pass under "
             "it: with more rows at once it climbs towards the flat part.")

# %% [markdown]
# **Explain.** One row uses a small part of the arithmetic: the processor waits for numbers. Many rows come nearer to the
# flat part, where arithmetic is the limit. What is missing to the roof is softmax, norms and all that is not a matrix
# product, and with very many rows the scores, which grow with T².
#
# ## Three limits
#
# The roof has a slope and a flat part, and under both lies a third limit: a step is a few hundred calls of NumPy, and
# each costs a microsecond or more, however small its arrays are. A model with the same wiring and almost no width has
# nothing but calls:

# %% tags=["timing"]
def narrow(D=16, d=2):
    """Weights and configuration of a model with our layers and heads, next to nothing in them."""
    c = nl.Config(D, config.n_layers, config.n_heads, config.n_kv_heads, D, D, head_dim=d)

    def ones(*shape):
        return np.ones(shape, np.float32)

    query, key = c.n_heads * d, c.n_kv_heads * d
    attn = {"wq": ones(D, query), "wk": ones(D, key), "wv": ones(D, key), "wo": ones(query, D)}
    ffn = {"gate": ones(D, D), "up": ones(D, D), "down": ones(D, D)}
    layer = {"attn_norm": ones(D), "attn": attn, "ffn_norm": ones(D), "ffn": ffn}
    return {"embedding": ones(D, D), "layers": [layer] * c.n_layers, "norm": ones(D),
            "output": ones(D, D)}, c


calls = fastest(lambda: nl.forward([1], *narrow()), 50)
print(f"a step of nothing but calls: {1000 * calls:.2f} ms, "
      f"of this model {1000 * seconds[1]:.2f} ms")

many, flops_done = np.array(list(done)), np.array(list(done.values()))
reading = 4 * read_once / bandwidth
bounds = {"memory: all weights are read once": many / reading,
          "arithmetic: all FLOPs are done": many / (flops_done / peak),
          "memory and calls, one after the other": many / (reading + calls)}
measured = many / np.array(list(seconds.values()))
figures.show(figures.limits(flops_done / (4 * read_once), bounds, measured),
             "What each limit allows, and what was measured: few rows stay under the line of "
             "memory and calls, many rows under that of arithmetic.")

# %% [markdown]
# **Explain.** Each limit asks for another remedy.
#
# - *Memory*: read less. Weights of 16 bits halve the traffic, a batch shares it. It is the limit of decoding in every
#   large model: in 7B a step reads a thousand times as much as here, and calls no longer count.
# - *Arithmetic*: do less, or use all cores. It is the limit of long prompts. numpy_llama.py masks no more scores than it
#   must, computes the logits of the last row only, and lets the pieces of a prompt go through the layers side by side,
#   each behind the one before, so that every core has a piece.
# - *Calls*: make fewer. A compiler fuses them; here they are the price of lines that can be read. It is the limit of
#   small models such as this one.
#
# [tests/benchmark.py](../tests/benchmark.py) measures how near the file comes to these limits, next to PyTorch, for models
# from 15 million parameters to 7 billion. The [README](../README.md#how-fast) shows what it found.
#
# ## How fast can 7B decode?
#
# Whatever the program, each token needs all weights once, but for the embedding, of which it reads one row. So the
# memory bandwidth divided by the size of the weights is a bound on tokens per second.

# %%
counts = nl.parameter_counts(nl.PRESETS["llama-2-7b"])
parameters = sum(counts.values()) - counts["embedding"]
print(f"7B in float16: {2 * sum(counts.values()) / 1e9:.1f} GB, "
      f"of which a token reads {2 * parameters / 1e9:.1f}")
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
# **Explain.** A *batch* decodes many sequences at once, and raises the intensity like a prompt does. But the cache is
# read for each sequence separately. How many full caches weigh as much as the weights?

# %%
for name in ("llama-2-7b", "llama-2-70b"):
    c, counts = nl.PRESETS[name], nl.parameter_counts(nl.PRESETS[name])
    read = 2 * (sum(counts.values()) - counts["embedding"])
    full = 4096 * 2 * c.n_layers * c.n_kv_heads * c.head_dim * 2
    print(f"{name:11}: weights {read / 1e9:5.1f} GB, a cache of 4,096 tokens {full / 1e9:.1f} GB: "
          f"equal at {read / full:.0f}; queries per key {c.n_heads // c.n_kv_heads}")

# %% [markdown]
# From there on a larger batch reads mostly caches, and its intensity hardly rises. Grouped queries help twice (lesson
# [05](05_grouped_query_attention.ipynb)): the cache is smaller, and each key that is read serves several queries.
#
# ## When the context is full
#
# The model was trained on 512 tokens, and lesson [04](04_rope.ipynb) shows what comes after that. numpy_llama.py stops
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
# **Explain.** An answer may have one token more than there is room for: 505 and 7 fill the context, and the eighth is
# drawn from the last logits, but goes through the model no more. Nothing is written when the cache refuses. A port may
# stop as here, or read the last part of the text again as a new prompt, at positions from 0, and say so. To write past
# the end, or over the oldest tokens without a word, is to go on with other numbers than the model's.
#
# ## In the wild
#
# - **Cached and uncached differ.** 1e-5 in float32, 0.02 in float16 and 0.125 in bfloat16 were reported
#   ([transformers#25420](https://github.com/huggingface/transformers/issues/25420),
#   [transformers#26869](https://github.com/huggingface/transformers/issues/26869)): rounding, as above, in fewer bits.
#   A test of a cache is made in float32, or better in float64:

# %%
precise, _ = nl.load(nl.Path(nl.__file__).parent / "weights" / "fairytales", np.float64)
whole = nl.forward(story, precise, config)
cache = nl.new_cache(precise, config, T)
logits = np.concatenate([nl.forward([token], precise, config, cache) for token in story])
print("float64, one by one: largest difference below 1e-12:", np.abs(logits - whole).max() < 1e-12)

# %% [markdown]
# - **Positions that start again** with every call, and **a mask for T = S only**: the two mistakes of this lesson. A
#   test that reads one prompt, all at once, finds neither. Read it in pieces of 1, 7 and 64, and compare.
#
# ## Exercises
#
# Fill in each function; `check` runs it on several inputs, and says what a wrong answer looks like.
#
# ### 1. Intensity
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
# ### 2. Append to a cache
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
# ### 3. Decode with a cache
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
# 5. Decoding reads all weights for each token, so memory bandwidth bounds its speed; batches and prompts share the
#    reading.
