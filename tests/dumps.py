"""Dumps as they come: files, names and layouts, read into tensors under the names of the trace.

Nothing is unpickled, and headers are read before numbers.
"""
import math
import re
import zipfile
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy_llama import InputError


def shorten(value):
    """A value as one short line, for an error message."""
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else text[:120] + "..."


# ---- Names and shapes ----------------------------------------------------------------------------------------

OTHER_NAMES = {     # what transformers and Meta's code call the module whose output it is
    "embedding": "model.embed_tokens tok_embeddings",
    "layers.{}.attn_norm": "model.layers.{}.input_layernorm layers.{}.attention_norm",
    "layers.{}.attn.q": "model.layers.{}.self_attn.q_proj layers.{}.attention.wq",
    "layers.{}.attn.k": "model.layers.{}.self_attn.k_proj layers.{}.attention.wk",
    "layers.{}.attn.v": "model.layers.{}.self_attn.v_proj layers.{}.attention.wv",
    "layers.{}.attn.out": "model.layers.{}.self_attn.o_proj model.layers.{}.self_attn layers.{}.attention.wo "
                          "layers.{}.attention",
    "layers.{}.ffn_norm": "model.layers.{}.post_attention_layernorm",
    "layers.{}.ffn.gate": "model.layers.{}.mlp.gate_proj layers.{}.feed_forward.w1",
    "layers.{}.ffn.silu": "model.layers.{}.mlp.act_fn",
    "layers.{}.ffn.up": "model.layers.{}.mlp.up_proj layers.{}.feed_forward.w3",
    "layers.{}.ffn.out": "model.layers.{}.mlp.down_proj model.layers.{}.mlp layers.{}.feed_forward.w2 "
                         "layers.{}.feed_forward",
    "layers.{}.x_ffn": "model.layers.{} layers.{}",
    "norm": "model.norm model",
    "logits": "lm_head output",
}
ALIASES = {other: ours for ours, others in OTHER_NAMES.items() for other in others.split()}
NOT_COMPARED = ("model.rotary_emb", "model.rotary_emb.0", "model.rotary_emb.1")      # tables, not activations


def our_name(name, known, path):
    """The trace name that a dump's name stands for; None for those that are not compared."""
    number = re.search(r"(?<=layers\.)\d+(?=\.|$)", name)
    number = number[0] if number else ""
    ours = ALIASES.get(name.replace(f"layers.{number}", "layers.{}", 1) if number else name, name).replace("{}", number)
    if ours in known:
        return ours
    if name in NOT_COMPARED:
        return None
    layers = {int(n.split(".")[1]) for n in known if n.startswith("layers.")}
    if number and layers and int(number) > max(layers):
        raise InputError(f"{path}: {shorten(name)} is of layer {number}, the model's last is layer {max(layers)}")
    close = get_close_matches(name, [*known, *(a.replace("{}", number or "0") for a in ALIASES)], 1, 0.5)
    raise InputError(f"{path}: {shorten(name)!r} is not a name of the trace"
                     + (f"; did you mean {close[0]!r}?" if close else "") + " (names: tests/reference/README.md)")


def layouts(name, shape, like, n_seen=None):
    """Ways to read an array of `shape` as the tensor `name` of shape `like`: [(remark, function)].

    Where the function gives fewer positions than `like` has, they are the last ones.
    """
    found = []
    for batch, s in [("", shape)] + [("batch axis", shape[1:])] * (len(shape) > 1 and shape[0] == 1):
        def add(remark, f, s=s, batch=batch):
            remark = ", ".join(filter(None, (batch, remark)))
            if all(remark != other for other, _ in found):
                found.append((remark, lambda x: f(x.reshape(s))))

        *heads, T, n = like
        if s == tuple(like):
            add("", lambda x: x)
        elif T > 1 and s in ((*heads, 1, n), (n,) if not heads else None):
            add("last position only", lambda x: x.reshape(*heads, 1, n))
        if s == (math.prod(like),) and s != tuple(like):
            add("flat", lambda x: x.reshape(like))
        if heads:
            h = heads[0]
            if s == (T, h, n) and (h, T) != (1, 1):
                add("positions before heads", lambda x: x.swapaxes(0, 1))
            if s == (T, h * n):
                add("heads side by side", lambda x: x.reshape(T, h, n).swapaxes(0, 1))
            if s == (h * T * n,):
                add("flat, heads side by side", lambda x: x.reshape(T, h, n).swapaxes(0, 1))
            if s == (h * T, n) and h > 1:
                add("heads one below the other", lambda x: x.reshape(h, T, n))
            is_key = name.rsplit(".")[-1] in ("k", "k_rope", "v")
            if is_key and len(s) == 3 and s[0] > h and s[0] % h == 0 and s[1:] == (T, n):
                # the mean over copies, so that a copy that differs shows
                add("key heads repeated", lambda x: x.reshape(h, -1, T, n).mean(1, np.float64).astype(x.dtype))
            if is_key and n_seen and n_seen > T and s == (h, n_seen, n):
                add("with the cached positions", lambda x: x[:, -T:])
    return found


def from_interleaved(x):
    """The last axis in Meta's order (neighbours are pairs) -> in Hugging Face's (halves are)."""
    return np.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1)


# ---- Dumps ---------------------------------------------------------------------------------------------------

@dataclass
class Entry:
    """A tensor of a dump, before it is read."""
    name: str                                             # as the dump calls it
    shape: tuple
    dtype: str
    read: object


DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
          "float64": "float64", "float32": "float32", "float16": "float16", "bfloat16": "bfloat16",
          "void16": "bfloat16"}                           # what NumPy makes of bfloat16 in an .npz


def open_dump(path):
    """The entries of a dump, or InputError. Reads headers only."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    if path.suffix not in (".safetensors", ".npz"):
        raise InputError(f"{path}: a dump is a .safetensors or .npz file (pickles can run code)")
    try:
        entries = open_safetensors(path) if path.suffix == ".safetensors" else open_npz(path)
    except (InputError, MemoryError):
        raise
    except Exception as error:                            # whatever the library finds wrong with the file
        raise InputError(f"{path} is not a valid {path.suffix} file: {shorten(str(error))}") from None
    if not entries:
        raise InputError(f"{path} holds no tensors")
    for entry in entries:
        if entry.dtype not in DTYPES:
            raise InputError(f"{path}: {shorten(entry.name)} is {entry.dtype}; a dump holds floating-point numbers "
                             "(float64, float32, float16, bfloat16)")
        entry.dtype = DTYPES[entry.dtype]
        if 0 in entry.shape:
            raise InputError(f"{path}: {shorten(entry.name)} is empty, shape {entry.shape}")
    return entries


def open_safetensors(path):
    from safetensors import safe_open
    file = safe_open(path, framework="numpy")
    slices = {name: file.get_slice(name) for name in file.keys()}
    return [Entry(name, tuple(s.get_shape()), s.get_dtype(), lambda name=name: file.get_tensor(name))
            for name, s in slices.items()]


def open_npz(path):
    entries = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                if version not in read_header:
                    raise InputError(f"{path}: {shorten(name)} is not a plain array")
                shape, _, dtype = read_header[version](file)
                header = file.tell()
            if not dtype.hasobject and header + math.prod(shape) * dtype.itemsize != member.file_size:
                raise InputError(f"{path}: {shorten(name)} says that its shape is {shape}, but its data is cut short "
                                 "or too long")
            read = lambda name=name: np.load(path, allow_pickle=False)[name]  # noqa: E731
            entries.append(Entry(name, tuple(shape), "pickled objects" if dtype.hasobject else dtype.name, read))
    return entries


def read_entry(entry, path):
    """An entry's numbers in float64 (float32 loses nothing for the narrow types), or InputError."""
    try:
        x = entry.read()
    except Exception as error:
        raise InputError(f"{path}: {shorten(entry.name)} cannot be read: {shorten(str(error))}") from None
    x = x.view(ml_dtypes.bfloat16) if x.dtype.kind == "V" else x
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32)


@dataclass
class Tensor:
    """A tensor of the dump under our name."""
    name: str
    theirs: str
    dtype: str
    x: np.ndarray
    n_seen: int = None
    interleaved: bool = False                             # the queries or keys of this layer are in Meta's order

    def readings(self, like):
        """The dump's numbers in each layout that fits the shape `like`: [(remark, array)]."""
        return [(remark, f(self.x)) for remark, f in layouts(self.name, self.x.shape, like, self.n_seen)]

    @property
    def may_be_interleaved(self):
        return self.name.endswith(("attn.q", "attn.k", "attn.q_rope", "attn.k_rope"))


def read_dump(path, known, room, n_seen=None):
    """The dump's tensors under our names, in order of computation. `room(name)`: how many numbers are plausible."""
    tensors = {}
    for entry in open_dump(path):
        name = our_name(entry.name, known, path)
        if name is None:
            continue
        size = math.prod(entry.shape)
        if size > room(name):
            raise InputError(f"{path}: {shorten(entry.name)} has shape {entry.shape}, far larger than {name} can be")
        x = read_entry(entry, path)
        if name in tensors and not np.array_equal(tensors[name].x.ravel(), x.ravel()):
            raise InputError(f"{path}: {tensors[name].theirs} and {entry.name} are both {name}, but differ")
        tensors.setdefault(name, Tensor(name, entry.name, entry.dtype, x, n_seen))
    if not tensors:
        raise InputError(f"{path} holds no tensor that can be compared")
    return sorted(tensors.values(), key=lambda tensor: known.index(tensor.name))
