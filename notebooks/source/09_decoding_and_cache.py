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
# | **You will be able to** | say what a cache saves, to the FLOP; write the loop that generates; use a cache without the two classic mistakes; compute the arithmetic intensity of a step, and from it how fast a model can decode on a given machine |
# | **It assumes** | lessons [03](03_attention.ipynb), [05](05_grouped_query_attention.ipynb) and [07](07_forward_pass.ipynb) |
# | **Minutes** | 115 |
#
# T new tokens, S tokens seen so far, D model width, F feed-forward width, V vocabulary, H query heads, G key/value
# heads, d head width, L layers.

# %% tags=["hide"]
import textwrap
import time

import checks
import figures
import ipywidgets
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
# $$q_t = R_t\,h_t W_q, \qquad K_{0..t} = [K_{0..t-1};\ R_t\,h_t W_k], \qquad V_{0..t} = [V_{0..t-1};\ h_t W_v]$$
#
# Here h is the normalised row of token t, R turns by the token's position (lesson [04](04_rope.ipynb)), and the semicolon
# puts a row below the others.
#
# Llama 2 (appendix A.2.1) calls the cache standard practice. The GQA paper (section 1) says what is left to pay: every
# step of decoding reads all weights, and all keys and values so far.
#
# From here on, one *row* of work means: one token goes through all layers once.
#
# **Predict.** The story has 228 tokens. If they are decoded one by one *without* a cache, how many rows of work is that in
# all? And with a cache?

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
# And in time, on the machine that built this page: the whole story, token by token, as if each had just been drawn.

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
            nl.prefill(story[:n], weights, config, nl.new_cache(weights, config, n))
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
# ## The loop that generates
#
# With a cache, generation is a loop of three steps: sample a token, feed it, take the new logits.
#
# **Predict.** The loop below writes 20 tokens. How many times does it call `forward`, and could one call be saved?

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
# cache holds one token less. That matters to whoever goes on with the same cache, as a chat does: the last token must
# be fed first. `nl.prefill` computes what `forward(...)[-1]` computes; how, is told below under *Long prompts*.
#
# ## What the cache holds
#
# For each layer two arrays, (G, room, d): turned keys, and values. They are allocated once for the longest text wanted,
# and filled from the left; the first S columns are in use.
#
# **Predict.** How many bytes does one token add here (L 6, G 2, d 32) in float32? And in 7B (L 32, G 32, d 128) in float16?

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
             "The keys of layer 0's first key head in the cache: a column of d numbers for each "
             "token (blue below zero, red above), the first 20 from the prompt, two more from "
             "decoding; the rest is still empty.")

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). Draw tokens, and see the slots fill:
#
#     python notebooks/explorer/build.py --open "#t=layers.3.attn.k_rope&i=0.9.0&tab=cache"

# %% [markdown]
# ## The same numbers, in any pieces
#
# **Predict.** We feed the story in pieces of 1, 7 and 64 tokens, and all at once. Are the logits the same? To the bit?

# %%
whole, apart = nl.forward(story, weights, config), {}     # (T, V), {size of a piece: difference}
for size in (1, 7, 64, T):
    cache = nl.new_cache(weights, config, T)
    parts = [nl.forward(story[i:i + size], weights, config, cache) for i in range(0, T, size)]
    logits = np.concatenate(parts)
    apart[size] = np.abs(logits - whole).max()
    print(f"pieces of {size:3}: within 1e-4 {apart[size] < 1e-4}; same likeliest tokens "
          f"{np.array_equal(logits.argmax(-1), whole.argmax(-1))}")
print(f"to the bit: one by one {apart[1] == 0}, all at once {apart[T] == 0}")

# %% [markdown]
# In float64 a number is rounded after 52 binary digits instead of 23: rounding is 500 million times smaller. If the
# differences are rounding, they must shrink by about as much:

# %%
whole = nl.forward(story, exact, config)
cache = nl.new_cache(exact, config, T)
logits = np.concatenate([nl.forward([token], exact, config, cache) for token in story])
apart = np.abs(logits - whole).max()
print("float64, one by one: within 1e-12", apart < 1e-12)

# %% [markdown]
# **Explain.** Not to the bit, except all at once, which is the same computation. They are the same up to rounding: what differs is the order in which products are added up. Differences of
# another origin, such as a wrong position, would stay in float64. So a test of a cache is best made there.
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
figures.show(figure, "Six tokens, then four, then one: each mask is the lower part of the whole "
                     "triangle, and the last token of a piece sees all that the cache holds.")

# %% [markdown]
# ## Two classic mistakes
#
# The new token stands at position S − 1, and must be turned by that angle. A program that counts positions anew in
# each call turns every decoded token by 0.
#
# **Predict.** A prompt of 100 tokens is read correctly; the others come one by one, all turned as if at position 0. Their
# loss is 1.9 if all is right, and blind guessing costs 8. Is it about 2, 5 or 10 nats?

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
counts = np.bincount(story, minlength=config.vocab_size)[story[100:]]
print(f"a table of how often each token occurs in the story: {-np.log(counts / T).mean():.2f}")

# %% [markdown]
# **Explain.** The new token claims to stand at the beginning. Its distance to prompt token n should be t − n and is
# −n, the distance of a token that lies ahead; the distance between two new tokens is 0. The loss is about that of a table
# which knows nothing but how often each token occurs in this story: the model has lost the thread.
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
nl.causal_mask = right                                    # put back

# %% [markdown]
# **Explain.** In the first piece T = S, and the triangle is right. From the second on, row t of a piece sees the first
# t + 1 tokens of the story, and not the words just before its own. No mask at all shows each token those that follow it
# in its piece, the answer among them. Even so the loss rises, in the first piece too: in training the model never saw what
# follows, and on balance it is disturbed more than helped. One token at a time, all of these masks but the triangle from the left are right.
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
# **Predict.** On which part of the roof is decoding, and on which a prompt of 500 tokens: slope or flat?

# %%
read_once = sum(w.size for layer in weights["layers"] for part in ("attn", "ffn")
                for w in layer[part].values()) + weights["output"].size
print(f"{read_once:,} parameters are read for each step, {4 * read_once / 1e6:.1f} MB in float32")
for rows in (1, 16, 500):
    per_byte = flops(rows, rows) / (4 * read_once)
    print(f"T {rows:3}: {per_byte:6.1f} FLOPs per byte; 2·T/4 = {2 * rows / 4:.1f}")

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
print("billion FLOPs/s:", ", ".join(f"{label} {y / 1e9:.0f}" for label, (_, y) in points.items()))
figures.show(figures.roofline(peak, bandwidth, points),
             "The roof of the machine that built this page, and this model's forward pass under "
             "it, from one row (left) to 500: all points stay below the roof, and from 64 rows on "
             "more rows bring nothing.")

# %% [markdown]
# **Explain.** One row lies under the slope, left of the corner: memory bounds it. From a few dozen rows on the points lie
# under the flat part: arithmetic would be the bound. But none of them reaches the roof. A guess would be: because of
# everything that is not a matrix product. The control is to run the products alone, with arrays of the same shapes:

# %% tags=["timing"]
def weight_products(rows):
    """All products of a forward pass with a weight matrix, and nothing else."""
    inputs = {n: np.ones((rows, n), np.float32) for n in (config.dim, config.hidden_dim)}
    for layer in weights["layers"]:
        for w in [*layer["attn"].values(), *layer["ffn"].values()]:
            inputs[len(w)] @ w                            # len(w): how many numbers a row must have
    inputs[config.dim] @ weights["output"]


def attention_products(rows):
    """The products of queries with keys, and of weights with values."""
    G, d = config.n_kv_heads, config.head_dim
    q = np.ones((G, config.n_heads // G * rows, d), np.float32)
    k = np.ones((G, rows, d), np.float32)
    for _ in weights["layers"]:
        (q @ k.swapaxes(1, 2)) @ k


print("rows   forward   products with weights   of attention   all else")
for rows in (1, 16, 64, 500):
    ids = (story * 3)[:rows]
    best = np.full(3, np.inf)
    for _ in range(5):                                    # in turn: other work meets all three
        again = [fastest(lambda: nl.forward(ids, weights, config), 1),
                 fastest(lambda: weight_products(rows), 1),
                 fastest(lambda: attention_products(rows), 1)]
        best = np.minimum(best, again)
    whole_pass, with_weights, of_attention = best
    rest = 1 - (with_weights + of_attention) / whole_pass
    print(f"{rows:4} {1000 * whole_pass:6.1f} ms {with_weights / whole_pass:23.0%} "
          f"{of_attention / whole_pass:14.0%} {rest:10.0%}")

# %% [markdown]
# **Explain.** The last column is what the guess is right about (at most: alone, the products find their inputs in cache). It
# grows with the number of rows, as the scores and their softmax grow with T·S: for a long prompt of a narrow model they
# are the larger part. The rest of the gap lies in the products themselves: the peak was measured with one large square
# product, and ours are smaller and narrower. These times differ from machine to machine; the table shows which of the
# two, products or all else, holds for yours.
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
reading, alone = 4 * read_once / bandwidth, fastest(lambda: weight_products(1), 50)
print(f"one row of this model: {1000 * seconds[1]:.2f} ms. Of this, nothing but calls "
      f"{1000 * calls:.2f}; its products alone {1000 * alone:.2f},")
print(f"where reading the weights at full bandwidth would take {1000 * reading:.2f}")

c = nl.PRESETS["llama-2-7b"]
reads_7b = sum(nl.parameter_counts(c).values()) - c.vocab_size * c.dim
print(f"a step of 7B reads {reads_7b / read_once:.0f} times as many weights, "
      f"in {c.n_layers} layers instead of {config.n_layers}")
many, flops_done = np.array(list(done)), np.array(list(done.values()))
bounds = {"memory: all weights are read once": many / reading,
          "arithmetic: all FLOPs are done": many / (flops_done / peak),
          "memory and calls, one after the other": many / (reading + calls)}
measured = many / np.array(list(seconds.values()))
figures.show(figures.limits(flops_done / (4 * read_once), bounds, measured),
             "What each limit allows, and what was measured: few rows stay under the line of "
             "memory and calls, many rows by a factor of more than two under that of arithmetic.")

# %% [markdown]
# **Explain.** The limits explain a part of a step, not all of it: products with a single row of these sizes also run below
# the full bandwidth. Each limit asks for another remedy.
#
# - *Memory*: read less. Weights of 16 bits halve the traffic, if the machine multiplies them as they are; a batch shares
#   it. The larger the weights of a layer, the longer a step reads; the number of calls per layer stays the same. So in 7B
#   the reading dominates, and calls hardly count.
# - *Arithmetic*: do less, or use all cores. For large models this is the limit of long prompts; in this narrow one, softmax
#   and other steps that do little arithmetic per number take longer (the table above).
# - *Calls*: make fewer. A compiler joins several steps in one; here calls are the price of lines that can be read. The
#   smaller the model, the more they weigh.
#
# [tests/benchmark.py](../tests/benchmark.py) measures how near the file comes to these limits, next to PyTorch, for
# models from 15 million parameters to 7 billion. The [README](../README.md#how-fast) shows what it found.
#
# ## How fast can 7B decode?
#
# With one sequence, each token needs all weights once, but for the embedding, of which it reads one row. So, if they do
# not fit in the processor's cache, the memory bandwidth divided by the size of the weights is a bound on tokens per second.

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
    figures.show(figure, "Computed, without the caches: weights that are read once serve every "
                         "sequence, so more sequences cost nothing until arithmetic is the limit.")


batch(8)

# %% tags=["sliders"]
ipywidgets.interact(batch, sequences=(1, 256), gigabytes_per_second=(20, 1000, 20),
                    trillion_flops=(0.5, 20.0, 0.5));

# %% [markdown]
# **Explain.** A *batch* decodes many sequences at once, and raises the intensity like a prompt does. But the cache is
# read for each sequence separately.
#
# **Predict.** In float16 the weights of 7B take 13.2 GB, and one cache of 4,096 tokens 2.1 GB. With how many full caches
# does a step read as much cache as weights? Is it more or fewer for 70B, with 8 key heads instead of 64?

# %%
for name in ("llama-2-7b", "llama-2-70b"):
    c, counts = nl.PRESETS[name], nl.parameter_counts(nl.PRESETS[name])
    read = 2 * (sum(counts.values()) - counts["embedding"])
    full = 4096 * 2 * c.n_layers * c.n_kv_heads * c.head_dim * 2
    print(f"{name:11}: weights {read / 1e9:5.1f} GB, a cache of 4,096 tokens {full / 1e9:.1f} GB: "
          f"equal at {read / full:.0f}; queries per key {c.n_heads // c.n_kv_heads}")

# %% [markdown]
# **Explain.** From about six sequences on, the caches of 7B are the larger part of what a step reads, and a larger batch
# gains less and less. With grouped queries (lesson [05](05_grouped_query_attention.ipynb)) the cache is smaller, and the
# weights of 70B are larger, so a hundred sequences share them first.
#
# ## Weights that stay in the file
#
# Files hold 16 bits for each weight; in memory float32 takes twice as much, and a large model may not fit. Could NumPy
# multiply the 16 bits as they are?

# %% tags=["timing"]
narrow_w = rng.standard_normal((1000, 1000)).astype(np.float16)
narrow_row, wide_w = narrow_w[:1], narrow_w.astype(np.float32)
slower = (fastest(lambda: narrow_row @ narrow_w)
          / fastest(lambda: narrow_row.astype(np.float32) @ wide_w))
print(f"a product in float16 takes {slower:.0f} times as long as in float32")

# %% [markdown]
# It could, but slowly: NumPy hands float32 to a fast library, and multiplies float16 in a plain loop. `nl.load(folder, lazy=True)` therefore leaves the matrices in their file, as they are, and puts
# a `LazyMatrix` in place of each array. Its `x @ w` takes a block of rows of the file, widens it to float32,
# multiplies, and forgets it. The principle fits in a few lines:

# %%
def lazy_product(x, w, rows=64):
    """x times the transpose of a 16-bit matrix (out, in), block by block: (T, in) -> (T, out)."""
    out = np.empty((len(x), len(w)), np.float32)
    for i in range(0, len(w), rows):
        block = w[i:i + rows].astype(np.float32)          # the only copy in float32
        out[:, i:i + rows] = x @ block.T
    return out


rng = np.random.default_rng(1)
w = rng.standard_normal((704, 256)).astype(np.float16)    # as on disk: (out, in)
x = rng.standard_normal((1, 256)).astype(np.float32)
print("same product:", np.allclose(lazy_product(x, w), x @ w.T.astype(np.float32), atol=1e-4))
print(f"in float32 at once {4 * w.size:,} bytes, in blocks {4 * 64 * 256:,}")

# %% [markdown]
# **Predict.** The model is loaded lazily. Does any line of `forward` have to change? Are the logits the same?

# %%
lazy, _ = nl.load(FOLDER, lazy=True)
apart = np.abs(nl.forward(story, lazy, config) - nl.forward(story, weights, config)).max()
print(type(lazy["output"]).__name__, lazy["output"].w.dtype, "on disk")
print("largest difference of the logits below 1e-4:", apart < 1e-4)

# %% [markdown]
# **Explain.** No line changes: where `w` is not an array of NumPy's, `x @ w` calls its method `__rmatmul__`. The numbers
# are the same up to rounding, as widening 16 bits to 32 is exact. What is saved is memory: the operating system brings in
# what is read, and drops it when room is needed. So a model can run that would not fit, at the price of widening every
# weight anew for each token (the README says how fast that is for 7B).
#
# ## Long prompts
#
# For a prompt, attention makes a score for every head and every pair of tokens: (H, T, T) numbers, nearly half of them
# masked. `nl.prefill` instead cuts the prompt into chunks of 128 tokens, which go through the cache one after the
# other. A chunk's scores are (H, 128, S) only, and of the masked part little is computed.

# %%
c, T_long, chunk = nl.PRESETS["llama-2-7b"], 4096, nl.CHUNK
at_once = T_long * T_long
in_chunks = sum(chunk * seen for seen in range(chunk, T_long + 1, chunk))
needed = T_long * (T_long + 1) // 2
print(f"7B, {T_long} tokens at once: "
      f"{4 * c.n_heads * at_once / 2**30:.1f} GiB of scores in a layer, "
      f"{1 - needed / at_once:.0%} masked")
print(f"in chunks of {chunk}: {4 * c.n_heads * chunk * T_long / 2**20:.0f} MiB of scores at most, "
      f"{1 - needed / in_chunks:.0%} masked")
cache = nl.new_cache(exact, config, T)
last = nl.prefill(story, exact, config, cache)
apart = np.abs(last - nl.forward(story, exact, config)[-1]).max()
print("here, in float64: prefill is forward(...)[-1], up to 1e-12:", apart < 1e-12)

# %% [markdown]
# A chunk need not wait until the one before it is through all layers. In layer l, a chunk needs only two things: its own result of layer
# l − 1, and the keys and values of the chunks before it *in layer l*. So chunk 1 can be in layer 0 while chunk 0 is in
# layer 1: they go through the layers side by side, each one step behind the one before, on a core each.
#
# **Predict.** Four chunks, three layers, every step takes the same time: 12 steps on one core. How many on two cores?
# On four?

# %%
def finished(chunks, layers, cores):
    """The step in which each chunk leaves each layer: (chunks, layers)."""
    done = np.zeros((chunks, layers), int)
    core_is_free = [0] * cores
    for c in range(chunks):
        step = core_is_free[c % cores]
        for layer in range(layers):
            if c > 0:
                step = max(step, done[c - 1, layer])      # its keys must be in the cache
            step = step + 1
            done[c, layer] = step
        core_is_free[c % cores] = step
    return done


figure, axes = figures.new(2.4, columns=3)
for ax, cores in zip(axes, (1, 2, 4)):
    done = finished(4, 3, cores)
    figures.matrix(ax, done, [f"chunk {c}" for c in range(4)], range(3), kind=figures.SHARE,
                   limit=18, numbers="d", size=11, title=f"{cores} core(s): {done.max()} steps")
    ax.set_xlabel("layer")
figures.show(figure, "In which step each chunk leaves each layer: on several cores the chunks "
                     "follow each other through the layers, a step apart.")

# %%
for cores in (1, 2, 4):
    print(f"{cores} core(s): {finished(4, 3, cores).max()} steps; with 32 chunks and 32 layers "
          f"{finished(32, 32, cores).max()}")

# %% [markdown]
# **Explain.** Seven on two cores, six on four, if every step takes as long: the cores wait at the start and the end. With many chunks that hardly
# matters. In `nl.forward_in_chunks` each chunk runs plain `forward` on a thread, and a tap (lesson
# [07](07_forward_pass.ipynb)) makes it wait at each layer until the chunk before has cached its keys. That way softmax
# and norms use all cores as well; the library behind NumPy's products would use several cores for products only.
#
# ## When the context is full
#
# The model was trained on texts of at most 512 tokens, and lesson [04](04_rope.ipynb) shows what comes after that. numpy_llama.py stops
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
#   [transformers#26869](https://github.com/huggingface/transformers/issues/26869)): rounding in fewer bits.
# - **Positions that start again** with every call, and **a mask for T = S only**: the two mistakes of this lesson. A
#   test that reads one prompt, all at once, finds neither. Read it in pieces of 1, 7 and 64, and compare.
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
# one reading (a batch, or guessed tokens that are checked together, exercise 3), or if weights stay in a faster memory.
#
# </details>
#
# ## Exercises
#
# `check(name)` runs your function on several inputs and says what a wrong answer looks like; `check(name, hint=1)`
# gives a hint.
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
# Reading the weights once for several rows is nearly as cheap as for one. So let a small model guess the next n tokens,
# and let the large one check all of them in one forward pass: it gets the last token before the draft and then the
# draft, and gives n + 1 rows. Row i says which token it would have written in the place of `draft[i]`; the last row
# says what comes after it. Both models are greedy. Return the tokens that the large model alone would have written,
# as far as these rows tell.

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
# 2. Without a cache a text of n tokens costs n(n + 1)/2 rows, with it n.
# 3. New tokens have positions and a mask that continue those in the cache; programs that start again are wrong.
# 4. In pieces or at once, the numbers are the same up to rounding; chunks of a long prompt go side by side.
# 5. Decoding reads all weights for each token, so memory bandwidth bounds its speed; batches and prompts share the
#    reading.
