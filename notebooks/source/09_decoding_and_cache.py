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
# | **You will be able to** | count what a cache saves; write the loop that generates; use a cache without the two classic mistakes; compute the arithmetic intensity of a step, and from it how fast a model can decode on a given machine |
# | **It assumes** | lessons [03](03_attention.ipynb) to [05](05_grouped_query_attention.ipynb) and [07](07_forward_pass.ipynb) |
# | **Minutes** | 100 |
#
# T new tokens, S tokens seen so far, D model width, F feed-forward width, V vocabulary, H query heads, G key/value
# heads, d head width, L layers.

# %% tags=["hide"]
import textwrap
import time

import checks
import figures
import numpy as np
from course import FOLDER, STORY, config, exact, nl, tokenizer, weights

check = checks.lesson("09")

# %% [markdown]
# ## Three tokens, with a pencil
#
# Attention gives each token an average of the values so far, weighted by how well the keys match its query (lesson
# [03](03_attention.ipynb)). Take three tokens whose queries and keys are all zero. Then all scores are equal, and each
# token gets the plain average of the values so far. With the values $3$, $6$ and $9$:
#
# - token 0 gets $3$; token 1 gets $(3 + 6) / 2 = 4.5$; token 2 gets $(3 + 6 + 9) / 3 = 6$.
#
# Now a fourth token comes, with the value $2$. It gets $(3 + 6 + 9 + 2) / 4 = 5$. What tokens 0, 1 and 2 got does not
# change, because no token looks ahead. To compute the $5$ we need the *values* $3, 6, 9$ (and the keys, to know the
# weights), but none of the results $3$, $4.5$ and $6$. So it is enough to keep keys and values: that is the *cache*.
# (The next layer needs $3$, $4.5$ and $6$ once, to make keys and values of its own, and keeps those instead.)

# %%
q = k = np.zeros((1, 4, 2), np.float32)                   # (H, T, d) and (G, S, d)
v = np.array([[[3, 0], [6, 0], [9, 0], [2, 0]]], np.float32)            # (G, S, d)
first_three = nl.attention(q[:, :3], k[:, :3], v[:, :3], nl.causal_mask(np.arange(3), 3))
all_four = nl.attention(q, k, v, nl.causal_mask(np.arange(4), 4))
only_new = nl.attention(q[:, 3:], k, v, nl.causal_mask(np.array([3]), 4))
print("three tokens     ", first_three[0, :, 0])
print("four tokens      ", all_four[0, :, 0])
print("only the fourth, with the keys and values of the others:", only_new[0, :, 0])

# %% [markdown]
# ## Two phases
#
# A Llama first reads the prompt: T tokens at once. Then it writes: one token goes in, one row of logits comes out, a
# token is drawn, and that one goes in next. The first phase is called *prefill*, the second *decoding*. Every layer has
# a cache of its own:
#
# $$q_t = R_t(h_t W_q), \qquad K_{0..t} = [K_{0..t-1};\ R_t(h_t W_k)], \qquad V_{0..t} = [V_{0..t-1};\ h_t W_v]$$
#
# Here $h_t$ is the normalised row of token t, $R_t$ turns by the token's position (lesson [04](04_rope.ipynb)), and the
# semicolon puts a row below the others. Llama 2 (appendix A.2.1) calls the cache standard practice.
#
# From here on, one *row* of work means: one token goes through all layers once.
#
# **Predict.** The story has 228 tokens. If they are decoded one by one *without* a cache, how many rows of work is that
# in all? And with a cache?

# %%
story = tokenizer.encode(STORY)
T = len(story)
print(f"T {T}: without a cache 1 + 2 + ... + {T} = {T * (T + 1) // 2:,} rows, with a cache {T}")


def flops(T, S, n_logits=1):
    """FLOPs of all products: T new tokens that see S tokens in all, logits for n_logits of them."""
    projections = 2 * T * config.dim * 2 * (config.n_heads + config.n_kv_heads) * config.head_dim
    attention = 2 * 2 * config.n_heads * T * S * config.head_dim    # scores and mix
    feed_forward = 2 * T * 3 * config.dim * config.hidden_dim
    output = 2 * n_logits * config.dim * config.vocab_size
    return config.n_layers * (projections + attention + feed_forward) + output


without = sum(flops(n, n) for n in range(1, T + 1))
cached = sum(flops(1, n) for n in range(1, T + 1))
print(f"{without / 1e9:.1f} billion FLOPs without, {cached / 1e9:.2f} with: "
      f"{without / cached:.0f} times as many")

# %% [markdown]
# Without a cache, token n costs n rows, and T tokens cost T(T + 1)/2, so about T/2 times as many. (The FLOPs stay
# below that: each token needs one row of logits either way.)
#
# And in time, on the machine that built this page, for the whole story:

# %% tags=["timing"]
def last_row(name, x):                                    # a tap: logits for the last row only
    return x[-1:] if name == "norm" else x


cached, without = np.full((3, T), np.inf), np.full((3, T), np.inf)
for again in range(3):                                    # the fastest of three runs
    cache = nl.new_cache(weights, config, T)
    for n in range(1, T + 1):
        start = time.perf_counter()
        nl.forward(story[n - 1:n], weights, config, cache)
        cached[again, n - 1] = time.perf_counter() - start
        if n % 20 == 1:                                   # one in twenty is enough to see it
            start = time.perf_counter()
            nl.forward(story[:n], weights, config, tap=last_row)
            without[again, n - 1] = time.perf_counter() - start
cached, without = 1000 * cached.min(axis=0), 1000 * without.min(axis=0)[::20]
figure, ax = figures.new(2.7)
ax.plot(range(1, T + 1, 20), without, "o-", markersize=4)
ax.plot(range(1, T + 1), cached)
ax.set(xlabel="tokens so far", ylabel="milliseconds for the next", ylim=(0, None))
ax.legend(["without a cache (one token in twenty)", "with a cache"])
figures.show(figure, "Without a cache, the time for one token grows with all that stands before "
                     "it; with one, it hardly grows.")
print(f"the mean token takes {without.mean() / cached.mean():.0f} times as long without a cache")

# %% [markdown]
# **Explain.** Without a cache each token costs as much as a prompt of all tokens so far. With it, what grows is only
# attention's own part: one query, S keys. But a hundredth of the FLOPs takes far more than a hundredth of the time: see
# *Why decoding is slow*, below.
#
# ## The loop that generates
#
# With a cache, generation is a loop of three steps: sample a token, feed it, take the new logits.
#
# **Predict.** The loop below writes 20 tokens. How many times does it call `forward` itself, and could one call be
# saved? (`exact` holds the weights in float64, so that rounding hardly ever changes the text. Temperature, lesson
# [10](10_objective_and_sampling.ipynb): below 1 it favours likely tokens.)

# %%
def write(tokens, n, rng):
    """n new tokens after a prompt."""
    cache = nl.new_cache(exact, config, len(tokens) + n)
    logits = nl.prefill(tokens, exact, config, cache)     # the prompt, once: (V,)
    new = []
    for _ in range(n):
        token = nl.sample(logits, rng, temperature=0.8)
        new.append(token)
        logits = nl.forward([token], exact, config, cache)[-1]               # one row
    return new, cache[0].length


opening = tokenizer.encode("Once upon a time there was")
new, n_cached = write(opening, 20, np.random.default_rng(4))
print(textwrap.fill(tokenizer.decode(opening + new), 94))
print(f"{len(opening)} + {len(new)} tokens, {n_cached} in the cache")

cache = nl.new_cache(exact, config, 64)
same = list(nl.generate(opening, exact, config, 20, np.random.default_rng(4), temperature=0.8,
                        cache=cache))
print(f"nl.generate: the same tokens {same == new}, {cache[0].length} in the cache")

# %% [markdown]
# **Explain.** Twenty calls, of which the last is wasted: nobody reads its logits. `nl.generate` stops before it, so its
# cache holds one token less. Whoever goes on with that cache, as a chat does, must feed the last token first.
#
# ## What the cache holds
#
# For each layer two arrays, (G, room, d): turned keys, and values. They are allocated once for the longest text wanted,
# and filled from the left; the first S rows of each head are in use.
#
# **Predict.** How many bytes does one token add here (L 6, G 2, d 32) in float32? And in 7B (L 32, G 32, d 128) in
# float16?

# %%
cache = nl.new_cache(weights, config, 64)
print(f"{len(cache)} layers, keys of one {cache[0].k.shape}, values {cache[0].v.shape}")
for part in (story[:20], story[20:21], story[21:22]):
    logits = nl.forward(part, weights, config, cache)
    print(f"{len(part):2} tokens in, logits {logits.shape}, the cache holds {cache[0].length}")
per_token = sum(c.k.nbytes + c.v.nbytes for c in cache) // 64  # by chance the vocabulary's size
print(f"bytes per token: {per_token:,}; 2·L·G·d·4 = "
      f"{2 * config.n_layers * config.n_kv_heads * config.head_dim * 4:,}")
c = nl.PRESETS["llama-2-7b"]
each = 2 * c.n_layers * c.n_kv_heads * c.head_dim * 2
print(f"7B in float16: {each:,} bytes per token, {4096 * each / 1e9:.1f} GB for 4,096")

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). Draw tokens, and see the slots fill:
#
#     python notebooks/explorer/build.py --open "#t=layers.3.attn.k_rope&i=0.9.0&tab=cache"

# %% [markdown]
# ## The same numbers, in any pieces
#
# In float64 a number is rounded after $52$ binary digits, in float32 after $23$: the errors of rounding are 500 million
# times smaller.
#
# **Predict.** We feed the story in pieces of 1 and 64 tokens, and all at once. Are the logits the same? To the bit?
# And does that change in float64?

# %%
for label, precision, bound in (("float32", weights, 1e-4), ("float64", exact, 1e-12)):
    whole = nl.forward(story, precision, config)          # (T, V), without a cache
    for size in (1, 64, T):
        cache = nl.new_cache(precision, config, T)
        pieces = [story[i:i + size] for i in range(0, T, size)]
        logits = np.concatenate([nl.forward(piece, precision, config, cache) for piece in pieces])
        apart = np.abs(logits - whole).max()
        print(f"{label}, pieces of {size:3}: within {bound} {apart < bound}; "
              f"to the bit {apart == 0}")

# %% [markdown]
# **Explain.** Not to the bit, except all at once, which is the same computation. The order in which products are added
# up differs, and with it the rounding: in float64 the differences all but vanish. Differences of another origin, such
# as a wrong position, would stay. So a good test of a cache reads a text in pieces of several sizes, in float64.
#
# ## The mask of a piece
#
# Draw it first: tokens 6 to 9 come as a piece, after six others. Which of the ten may each of the four see?

# %%
figure, axes = figures.new(2.3, columns=3)
for ax, (first, new) in zip(axes, ((0, 6), (6, 4), (10, 1))):
    mask = nl.causal_mask(np.arange(first, first + new), first + new)        # (T, S)
    figures.matrix(ax, mask.astype(float), range(first, first + new), range(first + new),
                   title=f"T {new}, S {first + new}", kind=figures.SHARE, limit=1.5)
    ax.set_xlabel("token seen")
axes[0].set_ylabel("token that asks")
figures.show(figure, "Six tokens, then four, then one (blue: may be seen): each mask is the lower "
                     "part of the whole triangle, and its last row sees all that the cache holds.")

# %% [markdown]
# ## Two classic mistakes
#
# The new token stands at position S − 1, and must be turned by the angles of that position. A program that counts
# positions anew in each call turns every decoded token by 0.
#
# **Predict.** A prompt of 100 tokens is read correctly; the others come one by one, all turned as if at position 0.
# Their loss (lesson [00](00_start_here.ipynb)) is 1.9 nats if all is right, log V = 8 for blind guessing. Is it about
# 2, 4 or 8?

# %%
def as_position_0(name, x):                               # RoPE at position 0 turns nothing
    kind = name.split(".")[-1]
    if kind in ("q", "k"):
        before[kind] = x
    return before[kind[0]] if kind in ("q_rope", "k_rope") else x


before = {}
for label, tap in (("right", nl.ignore), ("position 0", as_position_0)):
    cache = nl.new_cache(weights, config, T)
    rows = [nl.forward(story[:100], weights, config, cache)[-1:]]
    rows += [nl.forward([token], weights, config, cache, tap=tap) for token in story[100:-1]]
    nats = nl.cross_entropy(np.concatenate(rows), story[100:])
    print(f"{label:10}: {nats.mean():.2f} nats per decoded token")
counts = np.bincount(story, minlength=config.vocab_size)[story[100:]]
print(f"a table of how often each token occurs in the story: {-np.log(counts / T).mean():.2f}")

# %% [markdown]
# **Explain.** The new token claims to stand at the beginning. Its distance to prompt token n should be t − n and is
# −n, the distance of a token that lies ahead; the distance between two new tokens is 0. That costs about as much as
# knowing nothing but how often each token occurs in this very story (the scored tokens included).
#
# The other mistake is in the mask. A program that knows only T = S draws its triangle from the left, so that the first
# row of a piece sees token 0 alone; another leaves the mask out when there is a cache, as a single token needs none.
#
# **Predict.** The story is read in pieces of 57 tokens. What does each mask cost?

# %%
right = nl.causal_mask
masks = {"by positions": right,
         "triangle from the left": lambda p, S: np.tri(len(p), S, dtype=bool),
         "none": lambda p, S: np.ones((len(p), S), bool),
         "none after piece one": lambda p, S: np.ones((len(p), S), bool) if p[0] else right(p, S)}
for label, mask in masks.items():
    nl.causal_mask = mask                                 # forward looks it up by this name
    cache = nl.new_cache(weights, config, T)
    rows = [nl.forward(story[i:i + 57], weights, config, cache) for i in range(0, T, 57)]
    lost = nl.cross_entropy(np.concatenate(rows)[:-1], story[1:])
    print(f"{label:22}: first piece {lost[:57].mean():.2f}, the others {lost[57:].mean():.2f}")
nl.causal_mask = right                                    # put back

# %% [markdown]
# **Explain.** In the first piece T = S, and the triangle is right. From the second on, attention shows row i of a piece
# only the first i + 1 tokens of the story, neither its own (which it has only in its row) nor those just before it. No
# mask at all shows each token those that follow it in its piece, the answer among them (but for the last). A model that
# was trained to look back does not profit on the whole: the loss rises, in the first piece too.
#
# ## Why decoding is slow
#
# To multiply one row by a matrix, every number of the matrix is read once, and used for one multiplication and one
# addition. In float32 that is 2 FLOPs for 4 bytes. With T rows, each number that is read serves T times. The
# *arithmetic intensity* is FLOPs per byte read:
#
# $$\text{intensity} \approx \frac{2\,T \cdot \text{parameters}}{\text{bytes per parameter} \cdot \text{parameters}} = \frac{2\,T}{\text{bytes per parameter}}$$
#
# A machine has a peak of arithmetic (FLOPs per second) and a peak of memory traffic (bytes per second). A step cannot
# be faster than either allows: its FLOPs per second are at most the smaller of the first peak and intensity times the
# second. Drawn over the intensity, both axes logarithmic, that is a slope and then a flat line, the *roof*. A machine
# that can compute $60$ billion FLOPs and read $15$ GB in a second has time for $60 / 15 = 4$ FLOPs per byte: there the
# roof bends. With a smaller intensity a step waits for memory, with a larger one for arithmetic.
#
# **Predict.** Which of the two bounds decoding on that machine, and which a prompt of 500 tokens? From how many rows on
# is it arithmetic?

# %% tags=["timing"]
def seconds(step):
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def fastest(step, repeat=9):
    return min(seconds(step) for _ in range(repeat))


rng = np.random.default_rng(0)
square = rng.standard_normal((1200, 1200), dtype=np.float32)
tall = np.ones((8000, 8000), np.float32)                  # 256 MB
row = np.ones((1, 8000), np.float32)
peak = 2 * 1200**3 / fastest(lambda: square @ square)
bandwidth = tall.nbytes / min(fastest(lambda: row @ tall), fastest(lambda: tall.max()))
busy = time.process_time()                                # seconds of all cores together
elapsed = seconds(lambda: square @ square)
print(f"this machine: {peak / 1e9:.0f} billion FLOPs/s, {bandwidth / 1e9:.0f} GB/s; "
      f"cores at work: {(time.process_time() - busy) / elapsed:.0f}")
print(f"both allow the same at {peak / bandwidth:.1f} FLOPs per byte, about "
      f"{peak / bandwidth * 4 / 2:.0f} rows")

# %% [markdown]
# **Explain.** For one row memory is the tighter of the two limits, for 500 arithmetic. In float32 the intensity is T /
# 2, so in the example arithmetic takes over at $8$ rows; the second line says where it does here.
#
# **Predict.** A real step takes longer than either limit. We time it, its products with weights alone, and a model of
# the same layers and heads with next to no width. That one's products cost next to nothing, but it makes the same calls
# and as many scores, (H, T, S): its time is most of the rest (*forward* less *products*). Do products or rest take more
# of a single row? Of 500?

# %% tags=["timing"]
small = {config.dim: 16, config.n_kv_heads * config.head_dim: 4, config.hidden_dim: 16,
         config.vocab_size: 16}                           # the width of each axis, and its new one


def cut(weights):
    """Ones in place of weights, in shapes of almost no width."""
    if isinstance(weights, dict):
        return {name: cut(part) for name, part in weights.items()}
    if isinstance(weights, list):
        return [cut(layer) for layer in weights]
    return np.ones([small[n] for n in weights.shape], np.float32)


narrow, layout = cut(weights), nl.Config(16, config.n_layers, config.n_heads, config.n_kv_heads,
                                         16, 16, head_dim=2)
matrices = [w for layer in weights["layers"] for part in ("attn", "ffn")
            for w in layer[part].values()] + [weights["output"]]
weight_bytes = sum(w.nbytes for w in matrices)            # what a step reads
print(f"the weights that each step reads: {weight_bytes / 1e6:.1f} MB; the scores of 500 rows: "
      f"{config.n_layers * config.n_heads * 500 * 500 * 4 / 1e6:.0f} MB")
print("milliseconds          allowed by                     measured")
print("   rows     memory   arithmetic     forward   for each row   products   the rest   no width")
rates = {"products": {}, "forward": {}}
for rows in (1, 2, 4, 8, 16, 64, 500):
    ids = (story * 3)[:rows]
    inputs = {n: np.ones((rows, n), np.float32) for n in (config.dim, config.hidden_dim)}
    best = np.full(3, np.inf)
    for _ in range(max(3, 30 // rows)):                   # in turn: other work meets all three
        again = [seconds(lambda: nl.forward(ids, weights, config)),
                 seconds(lambda: [inputs[len(w)] @ w for w in matrices]),
                 seconds(lambda: nl.forward([1] * rows, narrow, layout))]
        best = np.minimum(best, again)
    whole, products, no_width = 1000 * best
    reading = 1000 * weight_bytes / bandwidth
    work = flops(rows, 0, rows)                           # S = 0: without the scores, as *products*
    print(f"{rows:7} {reading:10.1f} {1000 * work / peak:12.1f} {whole:11.1f} "
          f"{whole / rows:14.2f} {products:10.1f} {whole - products:11.1f} {no_width:10.1f}")
    rates["products"][rows] = work / weight_bytes, work / best[1]
    rates["forward"][rows] = work / weight_bytes, work / best[0]
scores = np.zeros((2, config.n_heads, 500, 500), np.float32)
exps = fastest(lambda: [np.exp(scores[0], out=scores[1]) for _ in range(config.n_layers)])
print(f"np.exp of 500 rows' scores alone: {1000 * exps:.0f} ms")
figures.show(figures.roofline(peak, bandwidth, rates),
             "The same times as FLOPs of the products per second, under the roof (dotted: its "
             "bend). Products are furthest below it near the bend; forward is always below them, "
             "and at 500 rows it falls further behind.")

# %% [markdown]
# **Explain.** The products take more of a single row; at 500 the rest takes as much or more, most of it *no width*. In
# the figure, the products of one row, where memory is the tighter limit, and those of 500, where arithmetic is, come
# within about a factor of two of the roof; between them the gap is widest. By the slope, 4 rows should take as long as
# 1. Here even 2 take much longer: NumPy has another routine for a single row (why the other is slower, we have not
# measured). The rest of a single row is hundreds of calls of NumPy, each with a price however small the arrays. (With
# many rows the rest is more than *no width*, which makes its scores from 2 numbers per head, not 32, and has narrow
# norms, SiLU and additions.) Each limit asks for another remedy:
#
# - *Memory*: read less. Weights of 16 bits halve the traffic, if they are widened only inside the processor; a batch
#   shares it.
# - *Arithmetic*: do less, or use all cores.
# - *Scores*: from 64 rows to 500, *no width* grows much faster than the rows, to about as much as the products or more.
#   Reading 48 MB takes a few milliseconds at this bandwidth, the exponentials far more (last line). FlashAttention
#   ([Dao et al.](https://arxiv.org/abs/2205.14135)) works on pieces that stay in fast memory: that saves traffic, not
#   exponentials.
# - *Calls*: make fewer; a compiler joins several in one.
#
# So, without a cache, a hundred times the FLOPs took far less than a hundred times the time: each of many rows together
# costs a fraction of a row alone (column *for each row*).
#
# ## How fast can 7B decode?
#
# With one sequence, each token needs all weights once, but for the embedding, of which it reads one row. The memory
# bandwidth divided by their size bounds the tokens per second. The GQA paper (section 1) names the loading of the
# weights, and of all keys and values, at each step as what makes decoding slow.

# %%
counts = nl.parameter_counts(nl.PRESETS["llama-2-7b"])
parameters = sum(counts.values()) - counts["embedding"]
print(f"7B in float16: {2 * sum(counts.values()) / 1e9:.1f} GB, "
      f"of which a token reads {2 * parameters / 1e9:.1f}")
print("memory that reads, in GB/s:       50      100     1000")
for label, width in (("float32", 4), ("float16", 2), ("4 bits", 0.5)):
    size = parameters * width / 1e9
    speeds = "  ".join(f"{gigabytes / size:7.1f}" for gigabytes in (50, 100, 1000))
    print(f"7B in {label:8} {size:5.1f} GB: at most {speeds}  tokens/s")

# %% [markdown]
# **Explain.** It is the slope: one row of float16 has 1 FLOP per byte, so 50 GB/s allow 50 billion FLOPs/s, and a token
# needs $2 \cdot 6.6 = 13.2$ billion: $3.8$ tokens. Calls hardly count here: 32 layers for our 6 take about five times
# *the rest* of a single row above, a few milliseconds beside $13.2 / 50$ s $= 264$ ms for reading. At 1000 GB/s and 4
# bits reading takes $3.3$ ms, and they would count again.
#
# A *batch* decodes many sequences at once: weights read once serve all, like the rows of a prompt, until arithmetic is
# the limit. But the cache is read for each sequence separately: a batch does not raise the intensity of attention.
#
# **Predict.** In float16 the weights of 7B take 13.2 GB, and one cache of 4,096 tokens 2.1 GB. With how many full
# caches does a step read as much cache as weights? Is it more or fewer for 70B, with 8 key heads for 64 query heads?

# %%
for name in ("llama-2-7b", "llama-2-70b"):
    c, counts = nl.PRESETS[name], nl.parameter_counts(nl.PRESETS[name])
    read = 2 * (sum(counts.values()) - counts["embedding"])
    full = 4096 * 2 * c.n_layers * c.n_kv_heads * c.head_dim * 2
    print(f"{name:11}: weights {read / 1e9:5.1f} GB, a cache of 4,096 tokens {full / 1e9:.1f} GB: "
          f"equal at {read / full:.0f}")

# %% [markdown]
# **Explain.** From about six sequences with full caches on, the caches of 7B are the larger part of what a step reads,
# and a larger batch gains less and less. With grouped queries (lesson [05](05_grouped_query_attention.ipynb)) the cache
# is smaller, and the weights of 70B are larger, so it takes a hundred.
#
# ## Weights that stay in the file
#
# Most Llama files hold 16 bits for each weight, float16 or bfloat16; in memory float32 takes twice as much, and a large
# model may not fit. Could NumPy multiply the 16 bits as they are?

# %% tags=["timing"]
w16 = rng.standard_normal((1000, 1000)).astype(np.float16)
row16, w32 = w16[:1], w16.astype(np.float32)
slower = fastest(lambda: row16 @ w16) / fastest(lambda: row16.astype(np.float32) @ w32)
print(f"a product in float16 takes {slower:.0f} times as long as in float32")

# %% [markdown]
# float16 it could, but slowly: NumPy hands float32 to a fast library, and multiplies float16 in a plain loop. bfloat16,
# as in our file, is no type of NumPy's own (the package `ml_dtypes` adds it). So `nl.load(folder, lazy=True)`
# leaves the matrices in their file, and puts a `LazyMatrix` in place of each array. Its `x @ w` takes a block of rows
# of the file, widens it to float32, multiplies, and forgets it.
#
# **Predict.** The model is loaded lazily. Does any line of `forward` have to change? Are the logits the same?

# %%
lazy, _ = nl.load(FOLDER, lazy=True)
apart = np.abs(nl.forward(story, lazy, config) - nl.forward(story, weights, config)).max()
print(f"{type(lazy['output']).__name__}, {lazy['output'].w.dtype} on disk; "
      f"logits within 1e-4: {apart < 1e-4}")

# %% [markdown]
# **Explain.** No line changes: `LazyMatrix` tells NumPy to stand back (`__array_ufunc__ = None`), so `x @ w` calls its
# own `__rmatmul__`. The numbers are the same up to rounding, as widening 16 bits to 32 is exact. So a model can run
# that would not fit, at the price of widening every weight anew for each token, and of reading it from disk each time
# if memory cannot hold the file either: at 2 GB/s, the 13.2 GB of 7B take 7 seconds a token.
#
# ## Long prompts
#
# For a prompt, attention makes a score for every head and every pair of tokens: (H, T, T) numbers. `nl.prefill` instead
# cuts the prompt into chunks of 128 tokens, which go through the cache one after the other. A chunk's scores are
# (H, 128, S) only.
#
# **Predict.** One layer of 7B (H 32) reads 4,096 tokens in float32. How large are all scores at once, and how large are
# those of the last chunk?

# %%
heads, long, chunk = nl.PRESETS["llama-2-7b"].n_heads, 4096, nl.CHUNK
print(f"7B, {long} tokens at once: {4 * heads * long * long / 2**20:,.0f} MiB of scores in a layer")
print(f"in chunks of {chunk}: {4 * heads * chunk * long / 2**20:.0f} MiB at most")
cache = nl.new_cache(exact, config, T)
last = nl.prefill(story, exact, config, cache)
apart = np.abs(last - nl.forward(story, exact, config)[-1]).max()
print("here, in float64: prefill is forward(...)[-1], up to 1e-12:", apart < 1e-12)

# %% [markdown]
# ## When the context is full
#
# The model was trained on texts of at most 512 tokens; lesson [04](04_rope.ipynb) shows what comes after that.
# numpy_llama.py stops rather than go on with wrong numbers.
#
# **Predict.** A prompt has 505 tokens. How many new ones can `generate` give?

# %%
prompt = (story * 3)[:505]
new = list(nl.generate(prompt, weights, config, 100, temperature=0))
print("new tokens after a prompt of 505:", len(new))
try:
    nl.forward((story * 3)[:513], weights, config)
except nl.InputError as error:
    print("InputError:", error)

# %% [markdown]
# **Explain.** One more than there is room for: 505 and 7 fill the context, and the eighth is drawn from the last
# logits, but goes through the model no more. `generate` just ends early: count what it gave. Another program may stop
# so, or read the last part of the text again as a new prompt, at positions from 0, and say so. To overwrite the oldest
# tokens in the cache is not the same: the keys and values kept were computed while those tokens were still seen.
#
# ## In the wild
#
# - **Cached and uncached differ.** 1e-5 in float32, 0.02 in float16 and 0.125 in bfloat16 were reported for one model
#   ([transformers#25420](https://github.com/huggingface/transformers/issues/25420)): the fewer digits of the
#   fraction ($23$, $10$ and $7$), the more rounding.
#
# ## Questions
#
# **1.** A program keeps the queries in the cache as well. What for?
#
# <details>
# <summary>Answer</summary>
#
# For nothing. The query of token t is used once, when token t asks. Later tokens compare their own queries with its
# key and read its value.
#
# </details>
#
# **2.** A model has 2 layers, 4 query heads, 1 key/value head of width 8. How many numbers does the cache hold after 10
# tokens? How many if all heads had their own keys and values?
#
# <details>
# <summary>Answer</summary>
#
# Keys and values, layers, heads, width, tokens: $2 \cdot 2 \cdot 1 \cdot 8 \cdot 10 = 320$; with 4 heads,
# $4 \cdot 320 = 1280$.
#
# </details>
#
# **3.** A machine reads 100 GB/s and its weights weigh 10 GB. Someone reports $25$ tokens per second for one sequence.
# What do you ask?
#
# <details>
# <summary>Answer</summary>
#
# Whether all weights were read for each token. $100 / 10 = 10$ tokens per second is the bound if they are. More is
# possible only with fewer bytes (fewer bits for each weight, or part of the weights left out), with several tokens for
# one reading (guessed tokens that are checked together, exercise 3; or were the tokens of a whole batch counted?), or
# if weights stay in a faster memory.
#
# </details>
#
# ## Exercises
#
# `check(name)` runs your function on several inputs; `check(name, hint=1)` gives a hint.
#
# ### 1. The bound for a batch
#
# In a step of decoding, every sequence of a batch gets one token. The weights are read once for all sequences, a cache
# of `cache_bytes` for each. Memory gives `bandwidth` bytes per second, and is the only limit.

# %% tags=["exercise"]
def batch_bound(sequences, weight_bytes, cache_bytes, bandwidth):
    """Tokens per second of all sequences together, at most: four numbers -> number."""
    ...

# %%
check(batch_bound)

# %% tags=["solution"]
def batch_bound(sequences, weight_bytes, cache_bytes, bandwidth):
    steps_per_second = bandwidth / (weight_bytes + sequences * cache_bytes)
    return sequences * steps_per_second

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
# ### 3. Guess several tokens, check them at once
#
# Where memory is the limit, a few rows should cost little more than one (how much here: see the table). *Speculative
# decoding* ([Leviathan et al.](https://arxiv.org/abs/2211.17192)) uses this: a small model guesses the next n tokens,
# and the large one checks all of them in one forward pass. It gets the last token before the draft and then the draft,
# and gives n + 1 rows. Row i says which token it would write in place of `draft[i]`; the last row, what comes after the
# draft. Both models are greedy. Return the tokens that the large model alone would have written: for the draft 5, 7, 8
# and rows that say 5, 9, 4, 2, these are 5 and 9, as row 2 saw the wrong 7. (Both caches must then drop keys and values
# from a wrong guess on.)

# %% tags=["exercise"]
def checked(draft, logits):
    """The tokens that are certain after one pass of the large model: (n,), (n + 1, V) -> list."""
    ...

# %%
check(checked)

# %% tags=["solution"]
def checked(draft, logits):
    own = [int(i) for i in logits.argmax(axis=-1)]        # the large model's own choices
    sure = []
    for guess, choice in zip(draft, own):
        sure.append(choice)
        if guess != choice:                               # rows after this one saw a wrong token
            return sure
    return sure + own[-1:]

# %% [markdown]
# ## In five lines
#
# 1. A prompt goes through at once, an answer token by token; keys and values of what was seen are kept.
# 2. To write n tokens one by one costs n(n + 1)/2 rows without a cache, n with it.
# 3. New tokens have positions and a mask that continue those in the cache; programs that start again are wrong.
# 4. In pieces or at once, the numbers are the same up to rounding; so a long prompt can be read in chunks.
# 5. Decoding reads all weights for each token, so memory bandwidth bounds its speed; batches and prompts share the
#    reading.
