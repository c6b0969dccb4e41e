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
# | **You will be able to** | read a safetensors file with nothing but `open` and NumPy; turn bfloat16 into float32 and back by hand; say what 16-bit storage costs; load a larger Llama, and tell Meta's files from Hugging Face's |
# | **It assumes** | lessons [00](00_start_here.ipynb) and [04](04_rope.ipynb); what a bit and a byte are |
# | **Minutes** | 45 |
#
# D model width, F feed-forward width, V vocabulary, H query heads, G key/value heads, d head width, L layers.

# %% tags=["hide"]
import textwrap

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
purpose = {"config.json": "the sizes: D, L, H, G, F, V", "model.safetensors": "the numbers",
           "tokenizer.model": "the pieces and their scores, for SentencePiece",
           "tokenizer.json": "the same, for Hugging Face's tokenizers",
           "tokenizer_config.json": "how transformers should call it",
           "generation_config.json": "temperature, top-p, the last token of a text"}
for name, text in purpose.items():
    print(f"{name:23} {(FOLDER / name).stat().st_size:12,} bytes  {text}")

# %% [markdown]
# **Predict.** The model has 5,803,264 parameters, stored in 16 bits each. How large is `model.safetensors`, to the
# byte?
#
# ## Eight bytes, a header, numbers
#
# The format has no paper; it is short enough to be told in three lines. Eight bytes hold a whole number n, least
# significant byte first. Then come n bytes of JSON, which give each tensor's type, shape, and first and last byte. All
# that follows are the numbers.

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
             "The file from left to right: a count, a header, and every tensor in the order of its "
             "name; a quarter of this small model is embedding and output.")

# %% [markdown]
# **Explain.** Half a thousandth of the file says what the rest is. A program can learn every shape without reading a
# number, read one tensor without the others, and check that they lie end to end:

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
# bits a float32.

# %%
def read(name):
    """One tensor of the file, in float32, with the shape that it has on disk."""
    begin, after = tensors[name]["data_offsets"]
    bits = np.frombuffer(data[start + begin:start + after], np.uint16)
    return (bits.astype(np.uint32) << 16).view(np.float32).reshape(tensors[name]["shape"])


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
    for layer in range(config.n_layers) if "{}" in theirs else [None]:
        on_disk = read(theirs.format(layer))
        expected = on_disk if ours == "embedding" else on_disk.T      # a look-up needs no transpose
        equal.append(np.array_equal(in_memory(ours, layer), expected))
print(f"{sum(equal)} of {len(tensors)} tensors are what nl.load made of them")

# %% [markdown]
# A file that is larger than memory need not be read at all. A *memory map* looks like an array, and fetches from disk
# only what is used:

# %%
begin, after = tensors["model.embed_tokens.weight"]["data_offsets"]
table = np.memmap(FOLDER / "model.safetensors", np.uint16, "r", start + begin,
                  (config.vocab_size, config.dim))        # (V, D), nothing read yet
king = tokenizer.encode("king", bos=False)[0]
row = (table[king].astype(np.uint32) << 16).view(np.float32)
print(f"{row.nbytes // 2} bytes used of {len(data):,}:",
      np.array_equal(row, weights["embedding"][king]))

# %% [markdown]
# ## Sixteen bits of a number
#
# A floating-point number is a sign s, an exponent e and a mantissa m, and means
#
# $$(-1)^s \cdot 2^{\,e - b} \cdot \left(1 + \frac{m}{2^{M}}\right)$$
#
# with M bits of mantissa, and b = 127 for eight bits of exponent, 15 for five. The exponent sets how large and how
# small a number can be, the mantissa how finely. By hand, for the first weight of the gate matrix:

# %%
bits = int(np.frombuffer(data, np.uint16, 1, start + tensors[
    "model.layers.0.mlp.gate_proj.weight"]["data_offsets"][0])[0])
s, e, m = bits >> 15, bits >> 7 & 0xFF, bits & 0x7F
print(f"{bits:016b}: sign {s}, exponent {e}, mantissa {m}")
print(f"by hand {(-1) ** s * 2.0 ** (e - 127) * (1 + m / 128)}, as loaded {float(gate[0, 0])}")

# %%
def draw(value):
    figures.show(figures.draw_bits(float(value)),
                 f"{value} in three types, sign, exponent, mantissa between heavy lines: bfloat16 "
                 "keeps the exponent of float32 and rounds the mantissa; float16 has a shorter "
                 "exponent and a longer mantissa.")


draw("0.1")

# %% tags=["sliders"]
ipywidgets.interact(draw, value=["0.1", "1", "-2.5", "0.333333333", "3.14159265", "65504", "70000",
                                 "6e-8", "1e-8", "1e38"]);

# %% [markdown]
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
# ## What the rounding is relative to
#
# The relative error is half the distance to the next number: at most $2^{-9}$ in bfloat16 and $2^{-12}$ in float16, as
# long as the exponent suffices. Below $2^{-14}$ float16 runs out of exponents and loses mantissa bits one by one; above
# 65,504 it has only infinity.
#
# **Predict.** Is this model's range one that float16 can hold?

# %%
every = np.concatenate([np.abs(read(name)).ravel() for name in tensors])
lost = as_float16(every) != every
print(f"largest {every.max()}, smallest {every.min():.1e}, median {np.median(every):.3f}")
print(f"changed by float16: {lost.sum()} of {every.size:,}, all below {every[lost].max():.1e}")

# %%
magnitude = np.logspace(-28, 18, 461, base=2)
largest = {}
for label, store in (("bfloat16", as_bfloat16), ("float16", as_float16)):
    around = (magnitude[:, None] * np.linspace(1, 2, 999)).astype(np.float32)
    largest[label] = np.max(np.abs(store(around) / around - 1), axis=1)
figure, ax = figures.new(3.2)
ax.plot(magnitude, largest["bfloat16"]), ax.plot(magnitude, largest["float16"])
counts, edges = np.histogram(every, np.logspace(-28, 18, 93, base=2))
ax.fill_between(edges[:-1], 2.0**-14, 2.0**-14 * (1 + 60 * counts / counts.max()), step="post",
                color=figures.SKY, alpha=0.4, linewidth=0)
ax.text(2.0**-4, 2.0**-10, "this model's\nweights", ha="center", va="top", fontsize=9.5)
ax.text(2.0**8, 2.0**-8.8, "bfloat16", fontsize=10)
ax.text(2.0**8, 2.0**-11.8, "float16", fontsize=10)
ax.set(xscale="log", yscale="log", xlabel="size of a number", ylabel="relative error at most",
       ylim=(2.0**-14, 2))
figures.show(figure, "Float16 (dashed) is eight times finer than bfloat16 where the weights lie "
                     "(shaded), and fails at both ends, where bfloat16 stays as it is.")

# %% [markdown]
# **Explain.** Weights of a trained Llama lie well inside float16's range, and the few that do not are so small that
# nothing depends on them. What flows *through* a model is another matter: there the range counts, which is why bfloat16
# is used to train.
#
# ## What storage costs
#
# This file was bfloat16 from the start, so storing it in bfloat16 again changes nothing, and the comparison would not
# be fair. A model with true float32 numbers is needed. Folding the scale of each norm into the matrices behind it
# (lesson [02](02_rmsnorm.ipynb), exercise 2) makes one: it computes the same function, and its products need more bits.
#
# **Predict.** The logits lie between −23 and 17. By how much do they change if every weight is stored in bfloat16?

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


def each(store, tree):
    """Every array of nested weights, stored and read again."""
    if isinstance(tree, dict):
        return {key: each(store, part) for key, part in tree.items()}
    return [each(store, part) for part in tree] if isinstance(tree, list) else store(tree)


def cut(x):                                       # the lower half thrown away instead of rounded
    return (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


tokens = tokenizer.encode(STORY)
full = fold(weights)
exact = nl.forward(tokens, full, config)                  # (T, V)
print(f"logits from {exact.min():.0f} to {exact.max():.0f}")
print("folding changed them by less than 1e-4:",
      bool(np.abs(exact - nl.forward(tokens, weights, config)).max() < 1e-4))
base, error = loss(weights=full), {}
for label, store in (("bfloat16, cut", cut), ("bfloat16, rounded", as_bfloat16),
                     ("float16", as_float16)):
    stored = each(store, full)
    logits = nl.forward(tokens, stored, config)
    error[label] = np.sqrt(np.mean((logits - exact) ** 2, dtype=float))
    other = np.sum(logits.argmax(axis=-1) != exact.argmax(axis=-1))
    print(f"{label:18} a logit's error {error[label]:.4f}, "
          f"largest {np.abs(logits - exact).max():.2f}; "
          f"loss off by {abs(loss(weights=stored) - base):.3f}; {other} other choices")

# %%
figure, ax = figures.new(1.7)
figures.bars(ax, error, ".4f", marked=["bfloat16, cut"])
ax.set(xlabel="typical error of a logit (root mean square)")
figures.show(figure, "Rounding to bfloat16 halves the error of cutting (hatched), and float16, "
                     "with three more bits, is about eight times more exact.")

# %% [markdown]
# **Explain.** Rounding errors of millions of weights have no common direction, and mostly cancel. Storage in 16 bits
# halves the file and does not change a single choice on this text. *Computing* in 16 bits is another matter: cached and
# uncached passes of a large model then differ by 0.02 in float16 and by 0.125 in bfloat16
# ([transformers#25420](https://github.com/huggingface/transformers/issues/25420)). So we store 16 bits and compute in
# 32.
#
# ## Two layouts
#
# Llamas are published by Meta and through Hugging Face: the same numbers under other names, and with the rows of
# `wq` and `wk` in another order, because the two programs rotate other pairs (lesson [04](04_rope.ipynb)).

# %%
print(f"{'ours':10} {'Hugging Face':40} {'Meta':34} on disk")
for ours, (theirs, meta, letters) in nl.TENSORS.items():
    print(f"{ours:10} {theirs:40} {meta:34} {letters}")
rows = nl.interleaved_to_halves(np.arange(8)[:, None], 8)
print("\nrows of one head of width 8, from Meta's order to Hugging Face's:", *rows[:, 0])

# %% [markdown]
# Writing a file is as short as reading one. We write the shipped model in Meta's layout, rows of `wq` and `wk` put
# back into neighbours, and load it again. `load` knows Meta's files by the name `tok_embeddings.weight`.
#
# **Predict.** Which bits of the weights differ afterwards?

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


def bits_of(name):
    begin, after = tensors[name]["data_offsets"]
    bits = np.frombuffer(data[start + begin:start + after], np.uint16)
    return bits.reshape(tensors[name]["shape"])


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
print("the same logits, to the bit:",
      np.array_equal(nl.forward(tokens, from_meta, config), nl.forward(tokens, weights, config)))

# %% [markdown]
# **Explain.** None. A large model is cut into several files besides, *shards*, with an index that says which tensor is
# in which. That is all there is to it:

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
# Older checkpoints (`.bin`, `.pth`) are pickles: not a table of numbers but a list of instructions, and an instruction
# may call any function. Opening this one prints; it could as well delete.

# %%
import pickle


class Weights:
    def __reduce__(self):                                 # what a pickle does when it is opened
        return print, ("I was only opened, and ran this.",)


pickle.loads(pickle.dumps(Weights()));

# %% [markdown]
# ## What loading refuses
#
# A wrong number is worse than no number. Each of these folders is a copy of the model with one thing wrong, and each is
# an error in one sentence, before anything is computed.
#
# **Predict.** Which of them would a careless program load without noticing?

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
    "only a pickle": ("pytorch_model.bin", data, config_text),
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
# **Explain.** The last layer dropped, another activation: both would run, and tell worse stories.
#
# ## A larger Llama
#
# The same function loads any Llama 1 or 2. [weights/README.md](../weights/README.md) has the commands that fetch
# TinyLlama or Llama 2. Put the folder into `weights/`, beside `fairytales`; the next cell finds it, and reads its
# header only. To hear it, run `python numpy_llama.py --model weights/NAME "Once upon a time"`.

# %% tags=["timing"]
others = [path.parent for path in sorted(FOLDER.parent.glob("*/config.json"))
          if path.parent != FOLDER]
for other in others:
    larger, _, is_meta = nl.open_checkpoint(other)
    total = sum(nl.parameter_counts(larger).values())
    print(f"{other.name}: {total:,} parameters, {4 * total / 2**30:.1f} GiB in float32")
if not others:
    print("There is no other model in weights/: nothing to show.")

# %% [markdown]
# ## In the wild
#
# - **NumPy has no bfloat16.** Readers stop at the type, or take the bits for another one
#   ([safetensors#598](https://github.com/huggingface/safetensors/issues/598),
#   [tinygrad#3310](https://github.com/tinygrad/tinygrad/issues/3310)): widen the 16 bits to the upper half of a
#   float32.
# - **Keys have their own number of heads.** To reorder `wk` from Meta's pairs to halves as if it had H heads mixes the
#   rows of its G heads ([llama.cpp#2376](https://github.com/ggml-org/llama.cpp/issues/2376)).
# - **Square matrices.** `wq` and `wo` are D by D here: if they are not transposed, no shape complains.
#
# All three load without an error. What they cost:

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
                     ("wq read as float16", change(["wq"], taken_for_float16)),
                     ("wk reordered for H heads", change(["wk"], too_many_heads)),
                     ("wq not transposed", change(["wq"], lambda w: w.T)),
                     ("wo not transposed", change(["wo"], lambda w: w.T))):
    print(f"{what:25} loss {loss(weights=broken):.2f}")

# %% [markdown]
# ## Exercises
#
# Fill in each function; `check` runs it on several inputs, and says what a wrong answer looks like.
#
# ### 1. The header

# %% tags=["exercise"]
def read_header(data):
    """A safetensors file's header, and where its numbers begin: bytes -> (dict, int)."""
    ...

# %%
check(read_header)

# %% tags=["solution"]
def read_header(data):
    import json
    n = int.from_bytes(data[:8], "little")
    return json.loads(data[8:8 + n]), 8 + n

# %% [markdown]
# ### 2. bfloat16 to float32

# %% tags=["exercise"]
def widen(bits):
    """The numbers whose bfloat16 bits these are: uint16 array -> float32, same shape."""
    ...

# %%
check(widen)

# %% tags=["solution"]
def widen(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)

# %% [markdown]
# ### 3. Some rows of a tensor
#
# `header` and `start` are what `read_header` returns. Every tensor here is `F32`, with shape (rows, columns). Return
# the rows from `first` up to, and not including, `last`; a program that runs a large model a block at a time reads like
# this.

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
    last = bits >> 16 & 1                                 # of the upper half: 1 if it is odd
    return (bits + 0x7FFF + last >> 16).astype(np.uint16)     # a tie is carried to the even side

# %% [markdown]
# ## In five lines
#
# 1. A safetensors file is a count of eight bytes, a JSON header, and the numbers, end to end; nothing in it can run.
# 2. bfloat16 is the upper half of a float32: widen it by sixteen zeros, and nothing is lost.
# 3. bfloat16 has range, float16 has precision; stored in either, this model makes the same choices.
# 4. Matrices are (out, in) on disk; Meta and Hugging Face differ in names, and in the order of the rows of wq and wk.
# 5. What loads without an error can still be wrong: check shapes, types, names, and the loss on a text you know.
