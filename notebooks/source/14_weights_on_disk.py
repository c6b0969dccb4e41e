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
# # 14. Weights on disk
#
# | | |
# | --- | --- |
# | **The question** | How are weights stored, and how does a file become a model? |
# | **You will be able to** | read a safetensors file with nothing but `open` and NumPy; turn bfloat16 into float32 and back by hand; say what 16-bit storage costs; know how to load a larger Llama, and tell Meta's files from Hugging Face's |
# | **It assumes** | lessons [00](00_start_here.ipynb) to [08](08_looking_inside.ipynb), and the loss of lesson [10](10_objective_and_sampling.ipynb); what a bit and a byte are |
# | **Minutes** | 110 |
#
# D model width, F feed-forward width, V vocabulary, H query heads, G key/value heads, d head width, L layers.

# %% tags=["hide"]
import textwrap
from dataclasses import replace

import checks
import figures
import ipywidgets
import numpy as np
from course import FOLDER, STORY, config, loss, nl, tokenizer, weights

check = checks.lesson("14")

# %% [markdown]
# ## A model is a folder
#
# In every lesson so far the weights were a Python dictionary. On disk they are a folder of a few files:

# %%
purpose = {"config.json": "the sizes D, L, H, G, F, V, the activation and more",
           "model.safetensors": "the numbers",
           "tokenizer.model": "the pieces and their scores, for SentencePiece",
           "tokenizer.json": "the same, for Hugging Face's tokenizers",
           "tokenizer_config.json": "how transformers should call it",
           "generation_config.json": "temperature, top-p, the last token of a text"}
for name, text in purpose.items():
    print(f"{name:23} {(FOLDER / name).stat().st_size / 1000:8,.0f} kB  {text}")

# %% [markdown]
# ## Eight bytes, a header, numbers
#
# Eight bytes hold a whole number n, least significant byte first (*little-endian*). Then come n bytes of JSON, the
# *header*, which give each tensor's type, its shape, and where it begins and ends (and may hold notes, `__metadata__`).
# All that follows are the numbers, little-endian too, each tensor row after row. Beginning and end count from the
# first number; the end is one past the last byte.
#
# With a pencil: the first bytes `2c 01 00 00 00 00 00 00` mean $44 + 1 \cdot 256 = 300$ (2c is $2 \cdot 16 + 12 = 44$).
# So the numbers begin at byte $308$. A tensor of shape (3, 2) in 16 bits takes $12$ bytes. If it comes first, the
# header says $[0, 12]$ for it, its numbers are bytes $308$ to $319$ of the file, and the next tensor begins at $12$.
#
# **Predict.** The model has 5,803,264 parameters of 16 bits each, and its header is 6,120 bytes long. How large is
# `model.safetensors`, to the byte?

# %%
import json

data = (FOLDER / "model.safetensors").read_bytes()
n = int.from_bytes(data[:8], "little")
header = json.loads(data[8:8 + n])
start = 8 + n                                             # offsets count from here

print("the first eight bytes ", " ".join(f"{byte:02x}" for byte in data[:8]), f" = {n:,}")
print("the header begins     ", data[8:76].decode(), "...")
parameters = sum(nl.parameter_counts(config).values())
print(f"8 + {n:,} + 2 * {parameters:,} = {8 + n + 2 * parameters:,}; "
      f"the file has {len(data):,} bytes")

# %%
figures.show(figures.draw_file(header, start, len(data)),
             "The file from left to right: a count, a header (not to scale), and every tensor in "
             "the order of its name (to scale).")

# %% [markdown]
# **Explain.** A program can learn every shape without reading a number, and read one tensor without the others. It can
# also check that they lie end to end:

# %%
tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
end = 0
for name, entry in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]):
    begin, after = entry["data_offsets"]
    assert begin == end and after - begin == 2 * np.prod(entry["shape"])
    end = after
print(f"{len(tensors)} tensors, without gap or overlap:", start + end == len(data))
for name in list(tensors)[2:6]:
    entry = tensors[name]
    print(f"{name:42} {entry['dtype']} {str(entry['shape']):12} {entry['data_offsets']}")

# %% [markdown]
# ## One tensor
#
# The type `BF16` is not one of NumPy's. It is the upper half of a float32: put sixteen zeros behind it, and call the 32
# bits a float32. In NumPy, `astype` keeps a number and changes its bits; `view` keeps the bits and changes what they
# mean.

# %%
def bits_of(name):
    """One tensor of the file, as its 16 bits, with the shape that it has on disk."""
    begin, after = tensors[name]["data_offsets"]
    bits = np.frombuffer(data[start + begin:start + after], np.uint16)
    return bits.reshape(tensors[name]["shape"])


def widened(bits):
    """bfloat16 bits as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def read(name):
    return widened(bits_of(name))


gate = read("model.layers.0.mlp.gate_proj.weight")
ours = weights["layers"][0]["ffn"]["gate"]
print("on disk  ", gate.shape, "= (F, D): out, in")
print("in memory", ours.shape, "= (D, F): in, out, so that x @ w reads as in the papers")
print("the same numbers, transposed:", np.array_equal(gate.T, ours))

# %% [markdown]
# The same holds for all of them. Each of our names stands beside Hugging Face's in `nl.TENSORS`:

# %%
def in_memory(ours, layer):
    """The array that nl.load made, by our name of it."""
    held = weights if layer is None else weights["layers"][layer]
    parts = held, held.get("attn", {}), held.get("ffn", {})
    return next(part[ours] for part in parts if ours in part)


equal = []
for ours, (theirs, _, _) in nl.TENSORS.items():
    for layer in (range(config.n_layers) if "{}" in theirs else [None]):
        on_disk = read(theirs.format(layer))
        expected = on_disk if ours == "embedding" else on_disk.T      # a look-up needs no transpose
        equal.append(np.array_equal(in_memory(ours, layer), expected))
print(f"{sum(equal)} of {len(tensors)} tensors are what nl.load made of them")

# %% [markdown]
# A file that is larger than memory need not be read at once. A *memory map* looks like an array, and the system fetches
# from disk only the pages (pieces of a few thousand bytes) that are used:

# %%
begin, after = tensors["model.embed_tokens.weight"]["data_offsets"]
table = np.memmap(FOLDER / "model.safetensors", np.uint16, "r", start + begin,
                  (config.vocab_size, config.dim))        # (V, D)
king = tokenizer.encode("king", bos=False)[0]
row = widened(table[king])
print("the row of king, by itself:", np.array_equal(row, weights["embedding"][king]))

# %% [markdown]
# ## Sixteen bits of a number
#
# A floating-point number is a sign s, an exponent e and a mantissa m, and means
#
# $$(-1)^s \cdot 2^{\,e - b} \cdot \left(1 + \frac{m}{2^{M}}\right)$$
#
# with M bits of mantissa, and b = 127 for eight bits of exponent (float32, bfloat16), 15 for five (float16). The
# exponent sets how large and how small a number can be, the mantissa how finely. Two exponents are special: with the
# largest, all ones, the number is infinite (or not a number); with e = 0 the bracket is m / 2^M without the 1, times
# 2^(1 − b), so that 0 can be written.
#
# With a pencil: which bits has $-6$ in bfloat16? $6 = 4 \cdot 1.5 = 2^2 \cdot (1 + 64/128)$. So $s = 1$, $e = 127 + 2 =
# 129$ and $m = 64$: the bits `1`, `10000001` and `1000000`. The next cell prints them, and goes the other way for the
# first weight of the gate matrix.

# %%
bits = int(bits_of("model.layers.0.mlp.gate_proj.weight")[0, 0])
minus_six = int(np.float32(-6).view(np.uint32)) >> 16      # the upper half of the float32
print(f"{minus_six:016b}: -6")
s, e, m = bits >> 15, (bits >> 7) & 0xFF, bits & 0x7F
print(f"{bits:016b}: sign {s}, exponent {e}, mantissa {m}")
print(f"by hand {(-1) ** s * 2.0 ** (e - 127) * (1 + m / 128)}, as loaded {float(gate[0, 0])}")

# %%
def draw(value):
    figures.show(figures.draw_bits(float(value)),
                 f"{value} in three types, sign, exponent, mantissa between heavy lines: bfloat16 "
                 "keeps the exponent of float32 and rounds the mantissa; float16 has a shorter "
                 "exponent, and a longer mantissa than bfloat16.")


draw("0.1")

# %% tags=["sliders"]
ipywidgets.interact(draw, value=["0.1", "1", "-2.5", "0.333333333", "3.14159265", "65504", "70000",
                                 "6e-8", "1e-8", "1e38"]);

# %% [markdown]
# ## The relative error of rounding
#
# Rounding errs by half the distance to the next number at most; a number exactly in the middle goes to the neighbour
# whose last bit is 0. Between 1 and 2 that distance is $2^{-7}$ in bfloat16, which has 7 bits of mantissa, and
# $2^{-10}$ in float16. So the relative error is at most $2^{-8}$ or $2^{-11}$, as long as the exponent suffices. Below
# $2^{-14}$ float16 runs out of exponents and loses mantissa bits one by one; the smallest number that it can write is
# $2^{-24}$, the largest 65,504.
#
# **Predict.** What becomes of 1/3, 70,000 and 0.00000001 in each type?

# %%
import ml_dtypes                                          # teaches NumPy the name bfloat16


def as_bfloat16(x):
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def as_float16(x):
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


three = np.array([1 / 3, 70000, 1e-8], np.float32)
for label, store in (("float32", np.array), ("bfloat16", as_bfloat16), ("float16", as_float16)):
    print(f"{label:9}", "  ".join(f"{x:.6g}" for x in store(three)))

# %% [markdown]
# **Explain.** bfloat16 keeps about two and a half digits of each, float16 three and a half of 1/3. But 70,000 is more
# than its largest number and becomes infinite, and 0.00000001 is less than half of its smallest and becomes 0.
#
# **Predict.** How many of this model's 5,803,264 weights does float16 change: none, a few hundred, or most? (They are
# bfloat16 numbers, so float16's finer mantissa can hold each, if the exponent suffices.)

# %%
every = np.concatenate([np.abs(read(name)).ravel() for name in tensors])
lost = as_float16(every) != every
print(f"largest {every.max()}, smallest {every.min():.1e}, median {np.median(every):.3f}")
print(f"changed by float16: {lost.sum()} of {every.size:,}, all below {every[lost].max():.1e}")

# %% [markdown] tags=["result"]
# 7.6e-6 is $2^{-17}$. Why? A bfloat16 number uses 7 of float16's 10 bits of mantissa. Below $2^{-14}$ float16 loses one
# at each halving: three can go unnoticed.

# %%
magnitude = np.logspace(-28, 18, 461, base=2)
largest = {}
for label, store in (("bfloat16", as_bfloat16), ("float16", as_float16)):
    around = (magnitude[:, None] * np.linspace(1, 2, 2049)).astype(np.float32)
    largest[label] = np.max(np.abs(store(around) / around - 1), axis=1)
one = np.argmin(np.abs(magnitude - 1))
print(f"numbers from 1 to 2: bfloat16 {largest['bfloat16'][one]:.5f}, 2^-8 = {2**-8:.5f}; "
      f"float16 {largest['float16'][one]:.5f}, 2^-11 = {2**-11:.5f}")
figure, ax = figures.new(3.2)
for label in ("bfloat16", "float16"):
    ax.plot(magnitude, np.minimum(largest[label], 2))     # infinitely wrong: the upper edge
print(f"weights that are not below 2^-14: {np.mean(every >= 2**-14):.1%}")
ax.axvspan(2**-14, every.max(), color=figures.SKY, alpha=0.4, linewidth=0)
ax.text(2.0**-6.3, 2.0**-5, "99.9% of the weights\nof this model", ha="center", fontsize=9.5)
ax.text(2.0**8, 2.0**-7.7, "bfloat16", fontsize=10)
ax.text(2.0**8, 2.0**-10.7, "float16", fontsize=10)
ax.set(xscale="log", yscale="log", xlabel="size m of a number (worst from m to 2m)",
       ylabel="relative error at most", ylim=(2.0**-14, 2))
figures.show(figure, "Float16 (dashed) is eight times finer than bfloat16 where 99.9 percent of "
                     "the weights lie (shaded), and fails at both ends (upper edge: "
                     "infinite, once 2m passes 65,504); bfloat16 does not, in this range.")

# %% [markdown]
# Do the few weights that float16 changes matter? And a program that also *computes* in float16 stores in it what flows
# through the model, even the sum of squares in a norm: is all that below 65,504?

# %%
tokens = tokenizer.encode(STORY)


def each(store, tree):
    """Every array of nested weights, stored and read again."""
    if isinstance(tree, dict):
        return {key: each(store, part) for key, part in tree.items()}
    return [each(store, part) for part in tree] if isinstance(tree, list) else store(tree)


in_float16 = each(as_float16, weights)
apart = np.abs(nl.forward(tokens, in_float16, config) - nl.forward(tokens, weights, config)).max()
print("stored in float16, logits differ by less than 0.001:", bool(apart < 1e-3))
trace = nl.Trace()
nl.forward(tokens, weights, config, tap=trace)
sizes = {name: np.abs(x[np.isfinite(x)]).max() for name, x in trace.items()}
widest = max(sizes, key=sizes.get)
print(f"largest value on the way: {sizes[widest]:.0f}, in {widest}")
squares = {name: (x**2).sum(axis=-1).max() for name, x in trace.items()
           if name == "embedding" or name.endswith((".x_attn", ".x_ffn"))}    # what the norms read
widest = max(squares, key=squares.get)
print(f"largest sum of squares in a norm: {squares[widest]:,.0f}, of {widest}")

# %% [markdown]
# **Explain.** A few hundred, and on this text they do not matter. What flows through the model fits too, the sum of
# squares at little more than half the limit. In Llama 2 7B single values exceed 1,000
# ([arXiv 2402.17762](https://arxiv.org/abs/2402.17762)): they fit, but their squares do not ($256^2$ is too large
# already). Meta's program and Hugging Face's compute the norm in float32.
#
# ## What storage costs
#
# To see what rounding costs, we need a model whose weights are not bfloat16 yet. Folding the scale of each norm into
# the matrices behind it (lesson [02](02_rmsnorm.ipynb), exercise 1) gives the same function with products that need
# more bits: a model in float32. No norm stands before the embedding, `wo` and `down`: 39% of the weights stay bfloat16.
#
# **Predict.** The logits lie between −23 and 17. By how much does a logit typically change if the folded model is
# stored in bfloat16: by about 1, 0.1 or 0.01?
#
# As a control (does rounding act like chance?) the other 61% get random errors as large as rounding's, in three draws.

# %%
def fold(weights):
    """The same model with each norm's scale multiplied into the matrices that read from it."""
    layers = []
    for w in weights["layers"]:
        g, h = w["attn_norm"][:, None], w["ffn_norm"][:, None]
        attn = {k: m if k == "wo" else g * m for k, m in w["attn"].items()}
        ffn = {k: m if k == "down" else h * m for k, m in w["ffn"].items()}
        layers.append({"attn_norm": np.ones_like(w["attn_norm"]), "attn": attn,
                       "ffn_norm": np.ones_like(w["ffn_norm"]), "ffn": ffn})
    return {"embedding": weights["embedding"], "layers": layers,
            "norm": np.ones_like(weights["norm"]),
            "output": weights["norm"][:, None] * weights["output"]}


def cut(x):                                       # the lower half thrown away instead of rounded
    return (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


rng = np.random.default_rng(0)


def at_random(x):                                 # off by up to half the distance, as in rounding
    if np.array_equal(as_bfloat16(x), x):
        return x                                  # the 39%, and the norms' scales, now 1
    distance = np.spacing(x) * 2**16              # between bfloat16s; spacing: between float32s
    return (x + distance * rng.uniform(-0.5, 0.5, x.shape)).astype(np.float32)


full = fold(weights)
unrounded = nl.forward(tokens, full, config)              # (T, V)
print(f"logits from {unrounded.min():.0f} to {unrounded.max():.0f}")
print("folding changed them by less than 1e-4:",
      bool(np.abs(unrounded - nl.forward(tokens, weights, config)).max() < 1e-4))
kept = full["embedding"].size + sum(w["attn"]["wo"].size + w["ffn"]["down"].size
                                    for w in full["layers"])
print(f"embedding, wo and down: {kept / every.size:.0%} of the weights")
base = loss(weights=full)
for label, store in (("bfloat16, cut", cut), ("bfloat16, rounded", as_bfloat16),
                     ("float16", as_float16), *3 * [("at random, in 61%", at_random)]):
    stored = each(store, full)
    logits = nl.forward(tokens, stored, config)
    error = np.sqrt(np.mean((logits - unrounded) ** 2, dtype=float))
    other = np.sum(logits.argmax(axis=-1) != unrounded.argmax(axis=-1))
    print(f"{label:18} a logit's error {error:.4f}, "
          f"loss off by {loss(weights=stored) - base:+.4f}; "
          f"{other} of {len(tokens)} likeliest tokens differ")

# %% [markdown]
# **Explain.** By about 0.01 (the root of the mean square), with 61% of the weights rounded. Errors at random in those
# do about as much. They turn one likeliest token in each draw, a near tie, and rounding none: do not count on 0.
# Cutting errs nearly twice as much, float16, with three more bits, seven times less.
#
# Each weight is off by up to $2^{-8}$ of itself, and a logit adds up the errors of many. They might cancel, as each is
# as likely up as down: D = 256 errors of one size, with random signs, add up to about $\sqrt{256} = 16$ of them. In one
# product of the model, add the errors up with their signs, and without them.
#
# **Predict.** What is left with the signs: nearly all, half, or a tenth? And if each error gets a sign drawn at random,
# as a control: more or less than that?

# %%
w = full["layers"][3]["ffn"]["gate"]                      # (D, F)
x = nl.rms_norm(trace["layers.3.x_attn"], np.float32(1), config.norm_eps)    # (T, D)
signs = np.random.default_rng(0).choice([-1, 1], w.shape)
for label, off in (("bfloat16, rounded", as_bfloat16(w) - w), ("bfloat16, cut", cut(w) - w),
                   ("x @ w itself", w)):
    without = (np.abs(x) @ np.abs(off)).mean()           # as if no two errors cancelled
    left, by_chance = np.abs(x @ off).mean(), np.abs(x @ (off * signs)).mean()
    print(f"{label:17} with signs {left / without:.1%}, random signs {by_chance / without:.1%}, "
          f"of {without:.4f}")

# %% [markdown]
# **Explain.** A tenth, as much as random signs leave: rounding errors cancel like chance. (More than 1/16, as they are
# not of one size.) Cutting takes a small part off each weight, so its errors add up much as x @ w itself does, and in
# this product that cancels less than chance. (The logits do not show it: there, errors
# $0.0235 / 0.0122 = 1.9$ times as large do $0.0147 / 0.0081 = 1.8$ times the harm.)
#
# ## Two layouts
#
# Llamas are published by Meta and through Hugging Face: the same numbers under other names, and with the rows of `wq`
# and `wk` in another order, because the two programs rotate other pairs (lesson [04](04_rope.ipynb)). (Nearly the same:
# Llama 2 was bfloat16, and Hugging Face's is [float16](https://github.com/huggingface/transformers/issues/25446), so
# the smallest lost bits. Meta's own files are pickles, see below; for 7B, `weights/README.md` has the line that makes
# them safetensors, names and order kept.)

# %%
print(f"{'ours':9} {'Hugging Face':47} {'Meta':32} disk")
for ours, (theirs, meta, letters) in nl.TENSORS.items():
    print(f"{ours:9} {theirs:47} {meta:32} {letters}")
rows = nl.interleaved_to_halves(np.arange(8)[:, None], 8)
print("\nrows of one head of width 8, from Meta's order to Hugging Face's:", *rows[:, 0])

# %% [markdown]
# We write the shipped model in Meta's layout, with the rows of `wq` and `wk` put back so that the two of a pair are
# neighbours again, and load it. `load` knows Meta's files by the name `tok_embeddings.weight`, and should undo this.

# %%
import tempfile
from pathlib import Path


def write(path, tensors):
    """{name: bfloat16 bits (out, in)} as a safetensors file."""
    header, end = {}, 0
    for name, bits in tensors.items():
        header[name] = {"dtype": "BF16", "shape": bits.shape,
                        "data_offsets": [end, end + bits.nbytes]}
        end += bits.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)                 # the numbers begin at a multiple of eight
    numbers = b"".join(bits.tobytes() for bits in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)


def to_neighbours(w, d):                                  # the reverse of nl.interleaved_to_halves
    return w.reshape(-1, 2, d // 2, w.shape[-1]).swapaxes(1, 2).reshape(w.shape)


meta = {}
for ours, (theirs, name, _) in nl.TENSORS.items():
    for i in range(config.n_layers) if "{}" in name else [None]:
        bits = bits_of(theirs.format(i))
        rotated = ours in ("wq", "wk")
        meta[name.format(i)] = to_neighbours(bits, config.head_dim) if rotated else bits
params = {"dim": 256, "n_layers": 6, "n_heads": 8, "n_kv_heads": 2, "multiple_of": 64,
          "norm_eps": 1e-5, "vocab_size": -1}

with tempfile.TemporaryDirectory() as folder:
    write(Path(folder) / "model.safetensors", meta)
    (Path(folder) / "params.json").write_text(json.dumps(params))
    from_meta, config_meta = nl.load(folder)
print("F, worked out from dim and multiple_of:", config_meta.hidden_dim)
for part in ("attn", "ffn"):
    same = [np.array_equal(w, weights["layers"][i][part][name])
            for i, layer in enumerate(from_meta["layers"]) for name, w in layer[part].items()]
    print(f"matrices of {part:4} that are equal, to the bit: {sum(same)} of {len(same)}")
print("the same logits, to the bit:", np.array_equal(
    nl.forward(tokens, from_meta, config_meta), nl.forward(tokens, weights, config)))

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). The model with its rows of `wq` and `wk` left in Meta's order: the first
# tensor that is wrong, and what it writes:
#
#     python notebooks/explorer/build.py --open "#t=layers.0.attn.q&i=1.9.0&tab=mistakes&c=bug*not-permuted"
#
# In Hugging Face's layout a large model is several files, *shards*, with whole tensors in each, and an index says which
# tensor is in which. (In Meta's models from 13B on, most matrices are themselves cut, a part in each file; `load` does
# not join those.)

# %%
with tempfile.TemporaryDirectory() as folder:
    folder, names = Path(folder), list(tensors)
    shards = {"model-1-of-2.safetensors": names[:20], "model-2-of-2.safetensors": names[20:]}
    for file, some in shards.items():
        write(folder / file, {name: bits_of(name) for name in some})
    index = {"weight_map": {name: file for file, some in shards.items() for name in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_bytes((FOLDER / "config.json").read_bytes())
    from_shards, _ = nl.load(folder)
print("from two shards, to the bit:",
      np.array_equal(nl.forward(tokens, from_shards, config), nl.forward(tokens, weights, config)))

# %% [markdown]
# ## Why not a pickle
#
# Older checkpoints (`.bin`, `.pth`) contain a pickle: a list of instructions that puts the tensors together, and an
# instruction may call any function. (PyTorch's `torch.load` refuses that by default today; `pickle.load` does not.)
#
# **Predict.** What happens when this one is opened?

# %%
import pickle


class Weights:
    def __reduce__(self):                                 # what a pickle does when it is opened
        return print, ("I was only opened, and ran this.",)


pickle.loads(pickle.dumps(Weights()));

# %% [markdown]
# **Explain.** It prints; it could as well delete.
#
# ## What loading refuses
#
# Take seven copies of the model's folder, each with one thing wrong: the file cut short; a header of a trillion bytes
# announced; a tensor renamed; in the config $F = 708$ for 704, 5 layers for 6, or GELU for SiLU; a pickle only.
# `nl.load` answers each with an error in one sentence, before anything is computed.
#
# **Predict.** Which of the seven would load without complaint in a program that takes each tensor that it needs by its
# name, in the shape that it finds, and checks nothing? What would they cost?

# %%
config_text = (FOLDER / "config.json").read_text()
renamed = data.replace(b"model.norm.weight", b"model.norm.wEight", 1)
lying = (10**12).to_bytes(8, "little") + data[8:]
damaged = {
    "cut short": ("model.safetensors", data[:-1000], config_text),
    "a header that lies": ("model.safetensors", lying, config_text),
    "a tensor renamed": ("model.safetensors", renamed, config_text),
    "another F": ("model.safetensors", data, config_text.replace("704", "708")),
    "fewer layers": ("model.safetensors", data, config_text.replace('layers": 6', 'layers": 5')),
    "another activation": ("model.safetensors", data, config_text.replace("silu", "gelu")),
    "only a pickle": ("pytorch_model.bin", data, config_text),        # by its name, which decides
}
for what, (file, content, text) in damaged.items():
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / file).write_bytes(content)
        (Path(folder) / "config.json").write_text(text)
        try:
            nl.load(folder)
        except nl.InputError as error:
            sentence = str(error).replace(folder, "COPY").replace("\\", "/")
            print(textwrap.fill(f"{what}: {sentence}", 96, subsequent_indent="    "))

# %% [markdown]
# **Explain.** *Another F*, *fewer layers* and *another activation*: all that such a program asks for is there. (Each of
# the other four lacks something: numbers of two tensors, a header that can be parsed, a name, the file.) What the three
# cost:

# %%
shorter = weights | {"layers": weights["layers"][:5]}
print(f"as it should be     {loss():.2f} nats per token")
print(f"another F           {loss(config=replace(config, hidden_dim=708)):.2f}")
print(f"fewer layers        {loss(weights=shorter, config=replace(config, n_layers=5)):.2f}")


def gelu_instead(name, x):                                # the usual approximation with tanh
    if name.endswith(".gate"):
        gates[0] = x
    if name.endswith(".silu"):
        g = gates[0]
        return g / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (g + 0.044715 * g**3)))
    return x


gates = [None]
print(f"another activation  {loss(gelu_instead):.2f}")

# %% [markdown]
# **Explain.** *Another F* is harmless, as F stands in the shapes. The other activation costs only 0.05 nats: that is
# easily overlooked.
#
# ## A larger Llama
#
# The same function loads any Llama 1 or 2 in Hugging Face's layout, and Meta's 7B, once it is safetensors.
# [weights/README.md](../weights/README.md) has the commands that fetch TinyLlama or Llama 2. Put the folder into
# `weights/` and run `python numpy_llama.py --model weights/NAME "Once upon a time"`.
#
# A parameter takes 2 bytes in a file of 16-bit numbers, and 4 in memory, as float32:

# %%
# each Config: D, L, H, G, F, V, context
for name, sizes in (("TinyLlama", nl.Config(2048, 22, 32, 4, 5632, 32000, 2048)),
                    ("Llama 2 7B", nl.Config(4096, 32, 32, 32, 11008, 32000, 4096))):
    billion = sum(nl.parameter_counts(sizes).values()) / 1e9
    print(f"{name:10} {billion:.2f} billion parameters, {2 * billion:4.1f} GB on disk, "
          f"{4 * billion:4.1f} GB in memory")

# %% [markdown]
# If that is too much, the command line by itself leaves the numbers in the file (`--lazy` always does) and widens them
# as they are used. On two cores, TinyLlama's shapes wrote about four tokens a second from memory, and Llama 2 7B's one
# in two seconds from a file that the system's cache held ([README](../README.md)).
#
# ## In the wild
#
# - **NumPy has no bfloat16.** Readers stopped at the type, which NumPy did not know
#   ([safetensors#598](https://github.com/huggingface/safetensors/issues/598)) or their own list
#   ([tinygrad#3310](https://github.com/tinygrad/tinygrad/pull/3310)). It is easy to take the bits for float16.
# - **Keys have their own number of heads** (lesson [05](05_grouped_query_attention.ipynb)): reordered as if it had H
#   heads, `wk` has its rows in a wrong order
#   ([flash-attention#546](https://github.com/Dao-AILab/flash-attention/pull/546)).
# - **Square matrices.** `wq` and `wo` are D by D here: if they are not transposed, no shape complains.
#
# Each can be made without an error message. What they cost:

# %%
def change(names, new):
    """The model with some matrices of each layer's attention replaced: w -> new(w)."""
    layers = [layer | {"attn": {k: new(w) if k in names else w for k, w in layer["attn"].items()}}
              for layer in weights["layers"]]
    return weights | {"layers": layers}


def taken_for_float16(w):                                 # the bits of bfloat16, read as float16
    return (w.view(np.uint32) >> 16).astype(np.uint16).view(np.float16).astype(np.float32)


def too_many_heads(w):                              # (in, out): reordered for H heads instead of G
    neighbours = to_neighbours(w.T, config.head_dim)
    return nl.interleaved_to_halves(neighbours, len(neighbours) // config.n_heads).T


for what, broken in (("as it should be", weights),
                     ("all read as float16", each(taken_for_float16, weights)),
                     ("wq read as float16", change(["wq"], taken_for_float16)),
                     ("wq with all sizes 1", change(["wq"], np.sign)),
                     ("wq with all sizes its rms",
                      change(["wq"], lambda w: np.sign(w) * np.sqrt(np.mean(w**2)))),
                     ("wq with random signs",
                      change(["wq"], lambda w: w * rng.choice(np.float32([-1, 1]), w.shape))),
                     ("wk reordered for H heads", change(["wk"], too_many_heads)),
                     ("wq not transposed", change(["wq"], lambda w: w.T)),
                     ("wo not transposed", change(["wo"], lambda w: w.T))):
    print(f"{what:25} loss {loss(weights=broken):.2f}")
print("1/16 and 1/64 read as float16:", *taken_for_float16(np.float32([1 / 16, 1 / 64])))

# %% [markdown]
# **Explain.** Read as float16, 1/16 becomes 1.375, and 1/64 1.125: little is left of a weight but its sign, and all are
# far too large. In `wq` alone that costs about as much as all sizes set to 1, and most of it is the scale: set to the
# matrix's root mean square, they cost 0.05. In all tensors, as a program would make this mistake, it ruins the model.
#
# ## Questions
#
# **1.** Bytes $0$ to $7$ of a file are `00 02 00 00 00 00 00 00`. Where do the numbers begin? And why would a program
# refuse the bytes `00 00 00 00 00 00 00 02`?
#
# <details>
# <summary>Answer</summary>
#
# The first means $2 \cdot 256 = 512$, so the numbers begin at byte $520$. The second means $2 \cdot 256^7$, about
# $10^{17}$ bytes of header: no file is that long.
#
# </details>
#
# **2.** The number 1 + 1/256 lies exactly between two neighbours in bfloat16. Which are they, and which one does
# rounding choose?
#
# <details>
# <summary>Answer</summary>
#
# The mantissa has 7 bits, so the neighbours are $1$ (m = 0) and $1 + 1/128$ (m = 1). A tie goes to the even mantissa:
# $1$.
#
# </details>
#
# **3.** A file in float16 is stored anew in bfloat16, and a file in bfloat16 anew in float16. What is lost in each?
#
# <details>
# <summary>Answer</summary>
#
# To bfloat16: up to three bits of each mantissa. To float16: nothing from $2^{-17}$ to 65,504: 7 bits of mantissa fit
# into 10, so three of these can be lost below $2^{-14}$. Smaller numbers may lose bits or become 0, larger ones become
# infinite.
#
# </details>
#
# ## Exercises
#
# `check(name)` runs your function on several inputs and says what a wrong answer looks like; `check(name, hint=1)`
# gives a hint.
#
# ### 1. How many parameters?
#
# `data` is a whole safetensors file. Count its parameters without reading one. (`__metadata__` is not a tensor; a
# tensor of shape `[]` is one number.)

# %% tags=["exercise"]
def n_parameters(data):
    """How many numbers a safetensors file holds: bytes -> int."""
    ...

# %%
check(n_parameters)

# %% tags=["solution"]
def n_parameters(data):
    import json
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    return sum(int(np.prod(entry["shape"])) for entry in header.values())

# %% [markdown]
# ### 2. Some rows of a tensor
#
# `header` is the JSON as a dict, `start` the byte where the numbers begin. Every tensor here is `F32`, with shape
# (rows, columns). Return the rows from `first` up to, and not including, `last`; a program that runs a large model a
# block at a time reads like this.

# %% tags=["exercise"]
def read_rows(data, header, start, name, first, last):
    """Rows of a tensor in a file, bytes and a header -> float32 array (last - first, columns)."""
    ...

# %%
check(read_rows)

# %% tags=["solution"]
def read_rows(data, header, start, name, first, last):
    columns = header[name]["shape"][1]
    begin = start + header[name]["data_offsets"][0] + 4 * columns * first
    return np.frombuffer(data, np.float32, (last - first) * columns, begin).reshape(-1, columns)

# %% [markdown]
# ### 3. float16 by hand
#
# The bits of float16 are one of sign, five of exponent, ten of mantissa, with b = 15. With e = 0 the number is
# *subnormal*: there is no 1 before the mantissa, and the exponent is that of e = 1. (No input has $e = 31$.) Compute
# the numbers without NumPy's float16.

# %% tags=["exercise"]
def from_float16(bits):
    """The numbers whose float16 bits these are: (n,) of uint16 -> (n,) of float32."""
    ...

# %%
check(from_float16)

# %% tags=["solution"]
def from_float16(bits):
    s, e, m = bits >> 15, (bits >> 10 & 31).astype(int), bits & 1023
    one = np.where(e == 0, 0, 1)
    size = (one + m / 1024) * 2.0 ** (np.maximum(e, 1) - 15)
    return np.where(s == 1, -size, size).astype(np.float32)

# %% [markdown]
# ### 4. float32 to bfloat16
#
# Not cut, but rounded to the nearest, and a tie to the even one, whose last bit is 0. (Add to the 32 bits, as a whole
# number, what makes the upper half round rightly. No input is a NaN.)

# %% tags=["exercise"]
def to_bfloat16(x):
    """The bfloat16 bits nearest to x: float32 array -> uint16 array of the same shape."""
    ...

# %%
check(to_bfloat16)

# %% tags=["solution"]
def to_bfloat16(x):
    bits = x.view(np.uint32)
    last = (bits >> 16) & 1                               # of the upper half: 1 if it is odd
    return ((bits + 0x7FFF + last) >> 16).astype(np.uint16)   # a tie is carried to the even side

# %% [markdown]
# ## In five lines
#
# 1. A safetensors file is a count of eight bytes, a JSON header, and the numbers, end to end; nothing is executed.
# 2. bfloat16 is the upper half of a float32: widen it by sixteen zeros, and nothing is lost.
# 3. bfloat16 has range, float16 has precision; stored in either, the folded model's loss on our text moves by at
#    most 0.0001.
# 4. Matrices are (out, in) on disk; Meta and Hugging Face differ in names, and in the order of the rows of wq and wk.
# 5. What loads without an error can still be wrong: check shapes, types, names, and the loss on a text you know.
