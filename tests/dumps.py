"""Dumps as they come: files, names and layouts of other code, read into tensors under the names of the trace.

Nothing is unpickled, and headers are read before numbers.
"""
import json
import math
import re
import zipfile
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import ml_dtypes
import numpy as np

from numpy_llama import InputError


def shorten(value):
    """A value as one short line, for an error message."""
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else text[:120] + "..."


# ---- Names ---------------------------------------------------------------------------------------------------

# What other code calls each tensor, the innermost first; < is the input of a module, all else its output. Prefixes such
# as "model." and "LlamaForCausalLM." are dropped before. In this order: transformers (and MLX), Meta, TensorRT-LLM,
# TransformerLens, llama.cpp, SGLang's tuples, ONNX export.
OTHER_NAMES = {
    "embedding": "embed_tokens tok_embeddings vocab_embedding hook_embed embd inp_embd embed_tokens.Gather",
    "layers.{}.attn_norm": "layers.{}.input_layernorm layers.{}.attention_norm attn_norm-{} "
                           "layers.{}.input_layernorm.0 layers.{}.input_layernorm.Mul_1 "
                           "<layers.{}.self_attn.q_proj <layers.{}.self_attn.k_proj "
                           "<layers.{}.self_attn.v_proj <layers.{}.self_attn.qkv_proj <layers.{}.self_attn "
                           "<layers.{}.attention.wq <layers.{}.attention.wk <layers.{}.attention.wv "
                           "<layers.{}.attention.qkv <layers.{}.attention",
    "layers.{}.attn.q": "layers.{}.self_attn.q_proj layers.{}.attention.wq blocks.{}.attn.hook_q Qcur-{} "
                        "layers.{}.self_attn.q_proj.MatMul",
    "layers.{}.attn.k": "layers.{}.self_attn.k_proj layers.{}.attention.wk blocks.{}.attn.hook_k Kcur-{} "
                        "layers.{}.self_attn.k_proj.MatMul",
    "layers.{}.attn.v": "layers.{}.self_attn.v_proj layers.{}.attention.wv blocks.{}.attn.hook_v Vcur-{} "
                        "layers.{}.self_attn.v_proj.MatMul",
    "layers.{}.attn.q_rope": "layers.{}.self_attn.rope blocks.{}.attn.hook_rot_q layers.{}.self_attn.rotary_emb.0 "
                             "layers.{}.self_attn.Add",
    "layers.{}.attn.k_rope": "layers.{}.self_attn.rope#2 blocks.{}.attn.hook_rot_k layers.{}.self_attn.rotary_emb.1 "
                             "layers.{}.self_attn.Add_1",
    "layers.{}.attn.scores": "blocks.{}.attn.hook_attn_scores layers.{}.self_attn.Add_2",
    "layers.{}.attn.probs": "blocks.{}.attn.hook_pattern kq_soft_max-{} kq_soft_max_ext-{} "
                            "layers.{}.self_attn.1 layers.{}.self_attn.Softmax",
    "layers.{}.attn.heads": "layers.{}.self_attn.attn blocks.{}.attn.hook_z kqv-{} kqv_merged-{} kqv_merged_cont-{} "
                            "kqv_out-{} <layers.{}.self_attn.o_proj <layers.{}.attention.wo <layers.{}.attention.dense",
    "layers.{}.attn.out": "layers.{}.self_attn.o_proj layers.{}.attention.wo layers.{}.attention.dense attn_out-{} "
                          "layers.{}.self_attn.o_proj.MatMul layers.{}.self_attn layers.{}.self_attn.0 "
                          "layers.{}.attention layers.{}.attention_output blocks.{}.hook_attn_out",
    "layers.{}.x_attn": "blocks.{}.hook_resid_mid ffn_inp-{} layers.{}.post_attention_layernorm.1 layers.{}.Add "
                        "<layers.{}.post_attention_layernorm <layers.{}.ffn_norm <layers.{}.post_layernorm",
    "layers.{}.ffn_norm": "layers.{}.post_attention_layernorm layers.{}.post_layernorm ffn_norm-{} "
                          "layers.{}.post_attention_layernorm.0 layers.{}.post_attention_layernorm.Mul_1 "
                          "<layers.{}.mlp.gate_proj <layers.{}.mlp.up_proj <layers.{}.mlp.gate_up_proj "
                          "<layers.{}.mlp.fc <layers.{}.mlp.gate <layers.{}.mlp <layers.{}.feed_forward.w1 "
                          "<layers.{}.feed_forward.w3 <layers.{}.feed_forward",
    "layers.{}.ffn.gate": "layers.{}.mlp.gate_proj layers.{}.feed_forward.w1 layers.{}.mlp.fc blocks.{}.mlp.hook_pre "
                          "ffn_gate-{} layers.{}.mlp.gate_proj.MatMul <layers.{}.mlp.act_fn",
    "layers.{}.ffn.silu": "layers.{}.mlp.act_fn ffn_silu-{} layers.{}.mlp.act_fn.Mul",
    "layers.{}.ffn.up": "layers.{}.mlp.up_proj layers.{}.feed_forward.w3 layers.{}.mlp.gate "
                        "blocks.{}.mlp.hook_pre_linear ffn_up-{} layers.{}.mlp.up_proj.MatMul",
    "layers.{}.ffn.hidden": "blocks.{}.mlp.hook_post ffn_swiglu-{} ffn_gate_par-{} layers.{}.mlp.Mul "
                            "<layers.{}.mlp.down_proj <layers.{}.feed_forward.w2 <layers.{}.mlp.proj",
    "layers.{}.ffn.out": "layers.{}.mlp.down_proj layers.{}.feed_forward.w2 layers.{}.mlp.proj ffn_out-{} "
                         "layers.{}.mlp.down_proj.MatMul layers.{}.mlp layers.{}.mlp_output layers.{}.feed_forward "
                         "blocks.{}.hook_mlp_out",
    "layers.{}.x_ffn": "layers.{} layers.{}.0 blocks.{}.hook_resid_post l_out-{} layers.{}.Add_1",
    "the layer before": "<layers.{} <layers.{}.input_layernorm <layers.{}.attention_norm blocks.{}.hook_resid_pre "
                        "layers.{}.input_layernorm.1",
    "the last layer": "<norm <ln_f norm.1",
    "norm": "norm model ln_f result_norm norm.0 norm.Mul_1 <lm_head <output",
    "logits": "lm_head output result_output logits_processor lm_head.MatMul",
}
PLACES = {theirs: (ours, rank) for ours, others in OTHER_NAMES.items() for rank, theirs in enumerate(others.split(), 1)}
# SGLang adds the residual inside the norms, and its activation takes gate and up together.
FUSED = {"layers.{}.0": ("layers.{}.ffn.out", 9), "layers.{}.1": ("layers.{}.x_attn", 9),
         "layers.{}": ("", 0), "layers.{}.mlp.act_fn": ("layers.{}.ffn.hidden", 0)}
SPLIT = {"layers.{}.self_attn.qkv_proj": ("q", "k", "v"), "layers.{}.attention.qkv": ("q", "k", "v"),
         "layers.{}.mlp.gate_up_proj": ("gate", "up")}
UNKNOWN = "is not a name of the trace"
LLAMA_CPP = re.compile(r"(attn_norm|Qcur|kqv_out|ffn_inp|ffn_norm|l_out)-\d+$")
PREFIXES = re.compile(r"^((LlamaForCausalLM|LlamaModel|Llama|Transformer|transformer|model|module|base_model)\.)+")
INPUT = re.compile(r"(_inputs_args_0|_inputs_kwargs_(hidden_states|x)|_inputs?|\.inputs?(\.0)?)$")
IDS = re.compile(r"(^|[._])(input_?ids|inp_tokens|token_ids|tokens?)$|^ids$|(tokens|LM|Model)_inputs_args_0$")


def plain_name(name):
    """A name of other code in the form of OTHER_NAMES, and its layer: (name with {} for the number, number or None)."""
    if name.startswith("/"):                              # ONNX: /model/norm/Mul_1_output_0
        name = name[1:].replace("/", ".").removesuffix("_output_0")
    if name.endswith("_outputs_logits"):
        return "logits", None
    name = re.sub(r"_outputs(_(\d))?$", lambda m: f".{m[2]}" if m[2] else "", name)
    name, is_input = (INPUT.sub("", name), True) if INPUT.search(name) else (name, False)
    name = PREFIXES.sub("", name)
    number = re.search(r"(?<=layers\.)\d+(?=\.|$)|(?<=blocks\.)\d+(?=\.)|(?<=-)\d+(?=$|#)", name)
    if number:
        name = name[:number.start()] + "{}" + name[number.end():]
    return "<" * is_input + name, int(number[0]) if number else None


class Names:
    """The names of one dump: which tensor each stands for."""

    def __init__(self, entries, known):
        self.known = known
        self.n_layers = 1 + max((int(name.split(".")[1]) for name in known if name.startswith("layers.")), default=-1)
        self.is_llama_cpp = any(LLAMA_CPP.match(entry.name) for entry in entries)
        self.is_fused = any(plain_name(entry.name)[0] in SPLIT for entry in entries)
        self.has_attn_out = any(entry.name.startswith("attn_out-") for entry in entries)

    def of(self, entry):
        """[(our name, rank: 0 is the innermost, part of a fused one)]; empty if it is no tensor of the trace."""
        name, number = plain_name(entry.name)
        if entry.name in self.known and not (self.is_llama_cpp and entry.name == "norm"):
            return [(entry.name, 0, None)]
        if name in SPLIT:
            half = "attn" if SPLIT[name][0] == "q" else "ffn"
            return self.kept([(f"layers.{number}.{half}.{part}", 0, part) for part in SPLIT[name]])
        if self.is_llama_cpp and name in ("norm", "Qcur-{}", "Kcur-{}", "kqv_out-{}", "") or entry.operation:
            return self.kept(self.of_llama_cpp(entry, name, number))
        ours, rank = (FUSED if self.is_fused and name in FUSED else PLACES).get(name, ("", 0))
        if ours == "the layer before":
            ours = "embedding" if number == 0 else f"layers.{number - 1}.x_ffn"
            rank = 50                                     # what a layer reads is outside of what the one before wrote
        elif ours == "the last layer":
            ours, rank = f"layers.{self.n_layers - 1}.x_ffn", 50
        return self.kept([(ours.replace("{}", str(number)), rank, None)])

    def of_llama_cpp(self, entry, name, number):
        """Its graph gives queries and keys one name before and after rotation; the operation tells, or the numbers do.

        kqv_out was the product with wo, until that one was named attn_out.
        """
        kind = {"Qcur-{}": "q", "Kcur-{}": "k"}.get(name)
        if kind:
            turned = entry.operation == "ROPE" or entry.turned
            stored = entry.operation in ("", "MUL_MAT", "ADD", "ROPE")
            return [(f"layers.{number}.attn.{kind}{'_rope' * turned}", 1, None)] if stored else []
        if name == "kqv_out-{}" and not self.has_attn_out:
            return [(f"layers.{number}.attn.{'out' if entry.operation == 'MUL_MAT' else 'heads'}", 9, None)]
        if entry.operation == "MUL_MAT" and re.match(r"(output|token_embd)\.weight", entry.operands):
            return [("logits", 1, None)]
        ours, rank = PLACES.get(name, ("", 0)) if name != "norm" else ("", 0)
        return [(ours.replace("{}", str(number)), rank, None)]

    def kept(self, found):
        return [place for place in found if place[0] in self.known]

    def why_not(self, entry):
        """Why an entry is left out, in a few words."""
        _, number = plain_name(entry.name)
        if number is not None and self.n_layers and number >= self.n_layers:
            return f"is of layer {number}, the model's last is layer {self.n_layers - 1}"
        close = [] if self.is_llama_cpp else get_close_matches(entry.name, self.known, 1, 0.85)
        return f"is not a name of the trace; did you mean {close[0]!r}?" if close else UNKNOWN


# ---- Layouts ---------------------------------------------------------------------------------------------------

def layouts(name, shape, like, n_seen=None):
    """Ways to read an array of `shape` as the tensor `name` of shape `like`: [(remark, function)].

    Where the function gives fewer positions than `like` has, they are the last ones.
    """
    found = {}
    *heads, T, n = like
    n_ones = next((i for i, size in enumerate(shape) if size != 1), len(shape))
    counts = {T: "", 1: "last position only"} | ({n_seen: "with the cached positions"} if n_seen and n_seen > T else {})
    for ones in range(n_ones + 1):
        batch = ("", "batch axis")[ones] if ones < 2 else f"{ones} leading axes of 1"
        for t, part in counts.items():
            for remark, f in fixed_layouts(name, shape[ones:], tuple(heads), t, n):
                if ones < n_ones or remark or not batch or len(shape[ones:]) >= len(like):
                    remark = ", ".join(filter(None, (batch, part, remark)))
                    found.setdefault(remark, lambda x, f=f, s=shape[ones:]: f(x.reshape(s))[..., -T:, :])
    return list(found.items())


def fixed_layouts(name, s, heads, t, n):
    """The same for exactly t positions."""
    if s == (*heads, t, n):
        yield "", lambda x: x
    if not heads:
        if s == (t * n,):
            yield ("flat" if t > 1 else ""), lambda x: x.reshape(t, n)
        return
    h, size = heads[0], math.prod(s)
    if s == (t, h, n) and (h, t) != (1, 1):
        yield "positions before heads", lambda x: x.swapaxes(0, 1)
    if s == (t, h * n):
        yield "heads side by side", lambda x: x.reshape(t, h, n).swapaxes(0, 1)
    if s == (h * t * n,):
        yield "flat", lambda x: x.reshape(h, t, n)
        if t > 1 and h > 1:
            yield "flat, heads side by side", lambda x: x.reshape(t, h, n).swapaxes(0, 1)
    if s == (h * t, n) and h > 1:
        yield "heads one below the other", lambda x: x.reshape(h, t, n)
    if s == (h, n) and t == 1:
        yield "", lambda x: x.reshape(h, 1, n)
    if name.endswith((".k", ".k_rope", ".v")) and len(s) == 3 and size % (h * t * n) == 0 and size > h * t * n:
        # the mean over copies, so that a copy that differs shows
        if s[1:] == (t, n):
            yield "key heads repeated", lambda x: x.reshape(h, -1, t, n).mean(1, np.float64).astype(x.dtype)
        elif (s[0], s[2]) == (t, n):
            yield "positions before heads, key heads repeated", \
                lambda x: x.swapaxes(0, 1).reshape(h, -1, t, n).mean(1, np.float64).astype(x.dtype)


def from_interleaved(x):
    """The last axis in Meta's order (neighbours are pairs) -> in Hugging Face's (halves are)."""
    return np.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1)


@dataclass
class Tensor:
    """A tensor of the dump under our name."""
    name: str
    theirs: str
    dtype: str
    x: np.ndarray
    n_seen: int = None
    order: str = None                                     # of the pairs of queries and keys, as the judge found it
    agrees: bool = False                                  # with the right run, as the judge found it
    outer: list = field(default_factory=list)             # what modules around it call the same, but is not
    partial: bool = False                                 # x is NaN where the source does not say
    step: float = 0.0                                     # numbers are rounded to this step (four decimals: 1e-4)
    total: float = None                                   # the sum over all, where the source says it
    precision: str = "float32"                            # set by the judge

    def readings(self, like):
        """The dump's numbers in each layout that fits the shape `like`: [(remark, array)]."""
        fitting = layouts(self.name, self.x.shape, like, self.n_seen)
        if fitting:
            return [(remark, f(self.x)) for remark, f in fitting]
        return self.cut_readings(like)

    def cut_readings(self, like):
        """The same where there is more than fits: columns beyond the last key, or zeros at the end of a buffer."""
        columns, found = like[-1], []
        if self.name.endswith(("scores", "probs")):
            rows = math.prod(like[:-1])
            counts = {rows, rows // like[-2]} | ({rows // like[-2] * self.n_seen} if self.n_seen else set())
            widths = {self.x.shape[-1]} if self.x.ndim > 1 else {self.x.size // count for count in counts
                                                                 if self.x.size % count == 0}
            for width in sorted(width for width in widths if width > columns):
                seen = self.x.reshape(-1, width)[:, :columns]
                found += self.cut_to(seen, like, "columns beyond the last key left out")
        if not found:
            flat, at = self.x.ravel(), 1 + max(np.flatnonzero(self.x.ravel()), default=-1)
            for t in {like[-2], self.n_seen or like[-2]}:
                size = math.prod(like[:-2]) * t * like[-1]
                if at <= size < flat.size and self.buffer_of_rows(t, like):
                    shape = (*self.x.shape[:-2], t, self.x.shape[-1]) if self.x.ndim > 1 else (size,)
                    found += self.cut_to(flat[:size], like, "zeros at the end left out", shape)
        return found

    def buffer_of_rows(self, t, like):
        """Does the buffer hold one row for each position, all heads side by side, so that its end can be cut off?"""
        return self.x.ndim == 1 or math.prod(self.x.shape[:-2]) == 1 and self.x.shape[-2] > t

    def cut_to(self, x, like, remark, shape=None):
        shape = shape or ((*self.x.shape[:-1], like[-1]) if self.x.ndim > 1 else (x.size,))
        return [(", ".join(filter(None, (other, remark))), f(x.reshape(shape)))
                for other, f in layouts(self.name, shape, like, self.n_seen)]

    @property
    def may_be_interleaved(self):
        return self.name.endswith(("attn.q", "attn.k", "attn.q_rope", "attn.k_rope"))


# ---- Files -----------------------------------------------------------------------------------------------------

@dataclass
class Entry:
    """A tensor of a dump, before it is read."""
    name: str                                             # as the dump calls it
    shape: tuple
    dtype: str
    read: object
    operation: str = ""                                   # of llama.cpp's graph, where a log tells
    operands: str = ""
    total: float = None
    step: float = 0.0
    turned: bool = False                                  # queries or keys of llama.cpp, after rotation


DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
          "float64": "float64", "float32": "float32", "float16": "float16", "bfloat16": "bfloat16",
          "void16": "bfloat16"}                           # what NumPy makes of bfloat16 in an .npz
ON_DISK = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16, "I64": "<i8", "I32": "<i4"}
SINGLE = ("data", "tensor", "arr_0", "")                  # names that say nothing: the file's name is the tensor's


def open_dump(path):
    """The entries of a dump, a file or a folder of files, or InputError. Reads headers only."""
    path = Path(path)
    if path.is_dir():
        return open_folder(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file or folder")
    if path.suffix not in READERS:
        raise InputError(f"{path}: a dump is a {', '.join(READERS)} file, or a folder of them (other pickles can run "
                         "code)")
    try:
        entries = READERS[path.suffix](path)
    except (InputError, MemoryError):
        raise
    except Exception as error:                            # whatever the library finds wrong with the file
        raise InputError(f"{path} is not a valid {path.suffix} file: {shorten(str(error))}") from None
    if not entries:
        raise InputError(f"{path} holds no tensors")
    if len(entries) == 1 and entries[0].name in SINGLE:
        entries[0].name = path.name.removesuffix(path.suffix)
    return entries


def open_folder(folder):
    """The entries of every file in a folder; those that cannot hold tensors are passed over."""
    entries = []
    for path in sorted(folder.iterdir()):
        if path.suffix in READERS and path.is_file():
            if path.resolve().parent != folder.resolve():
                raise InputError(f"{path} points outside the folder")
            entries += open_dump(path)
    if not entries:
        raise InputError(f"{folder} holds no {', '.join(READERS)} file")
    return entries


def open_safetensors(path):
    """The library checks a header; one that has a name twice, which it refuses, is read here."""
    from safetensors import SafetensorError, safe_open
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(size) if size < min(100_000_000, path.stat().st_size) else b""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError:
        pairs = json.loads(header, object_pairs_hook=list) if header else []
        names = [name for name, _ in pairs if name != "__metadata__"] if isinstance(pairs, list) else []
        if len(set(names)) == len(names):
            raise
    entries, end = [], 0
    for name, about in json.loads(header, object_pairs_hook=list):
        if name == "__metadata__":
            continue
        about = dict(about)
        shape, (start, stop) = tuple(about["shape"]), about["data_offsets"]
        if about["dtype"] in ON_DISK:
            width = np.dtype(ON_DISK[about["dtype"]]).itemsize
            if stop - start != width * math.prod(shape) or start != end or 8 + size + stop > path.stat().st_size:
                raise InputError(f"{path}: {shorten(name)} says that its shape is {shape}, but its data is cut short, "
                                 "too long or not in its place")
        end = stop
        read = lambda d=about["dtype"], at=8 + size + start, s=shape: np.fromfile(  # noqa: E731
            path, ON_DISK[d], math.prod(s), offset=at).reshape(s)
        entries.append(Entry(name, shape, about["dtype"], read))
    return entries


def array_header(file, name, path, size):
    """(shape, dtype) from the head of an .npy file of this size, or InputError."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise InputError(f"{path}: {shorten(name)} is not a plain array")
    shape, _, dtype = read[version](file)
    if not dtype.hasobject and file.tell() + math.prod(shape) * dtype.itemsize != size:
        raise InputError(f"{path}: {shorten(name)} says that its shape is {shape}, but its data is cut short or "
                         "too long")
    return tuple(shape), "pickled objects" if dtype.hasobject else dtype.name


def open_npz(path):
    entries = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                shape, dtype = array_header(file, name, path, member.file_size)
            read = lambda name=name: np.load(path, allow_pickle=False)[name]  # noqa: E731
            entries.append(Entry(name, shape, dtype, read))
    return entries


def open_npy(path):
    with path.open("rb") as file:
        shape, dtype = array_header(file, path.stem, path, path.stat().st_size)
    return [Entry("", shape, dtype, lambda: np.load(path, allow_pickle=False))]


def open_pt(path):
    """What torch.save wrote: tensors in dictionaries and lists, however deep. Nothing else is unpickled."""
    try:
        import torch
    except ImportError:
        raise InputError(f"{path}: reading .pt takes PyTorch (pip install torch); or save as .safetensors") from None

    def walk(value, name):
        if isinstance(value, torch.Tensor):
            dtype = str(value.dtype).removeprefix("torch.")
            read = lambda: (value.float() if dtype == "bfloat16" else value).detach().cpu().numpy()  # noqa: E731
            yield Entry(name, tuple(value.shape), dtype, read)
        elif isinstance(value, (dict, list, tuple)):
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            for key, part in parts:
                yield from walk(part, f"{name}.{key}" if name else str(key))

    return list(walk(torch.load(path, map_location="cpu", weights_only=True), ""))


HEAD = re.compile(r"(?:ggml_debug|common_debug_cb_eval):\s+(.*?) = \((\w+)\)\s+(\w+)\((.*)\) = \{([\d, ]+)\}")
NUMBER = re.compile(r"[\[\]]|\.\.\.|[-+]?(?:nan|inf|\d+\.?\d*(?:e[-+]?\d+)?)")


def open_log(path):
    """What llama.cpp's eval-callback prints: of each tensor the first and last values of each row, and a sum."""
    entries, lines = [], path.read_text(encoding="utf-8", errors="replace").splitlines()
    heads = [(i, HEAD.search(line)) for i, line in enumerate(lines) if HEAD.search(line)]
    for (i, head), (end, _) in zip(heads, heads[1:] + [(len(lines), None)]):
        name, dtype, operation, operands, sizes = head.groups()
        shape = tuple(int(size) for size in reversed(sizes.split(",")))
        body = "\n".join(lines[i + 1:end])
        numbers, _, rest = body.partition("sum =")
        total = re.match(r"\s*(\S+)", rest)
        printed = NUMBER.findall(numbers)
        if printed.count("[") != printed.count("]"):
            raise InputError(f"{path}: what it prints of {shorten(name)} (line {i + 1}) is cut short")
        decimals = next((len(n.partition(".")[2]) for n in printed if n[-1].isdigit()), 0)
        entry = Entry(name, shape, {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}.get(dtype, dtype),
                      lambda printed=printed, shape=shape, path=path: from_print(printed, shape),
                      operation, operands, float(total[1]) if total else None, 10.0 ** -decimals)
        entries.append(entry)
    return entries


def from_print(printed, shape):
    """An array from its printed form, NaN where that has dots."""
    lists, stack = [], []
    for token in printed:
        if token == "[":
            stack.append([])
        elif token == "]":
            done = stack.pop()
            (stack[-1] if stack else lists).append(done)
        elif stack:
            stack[-1].append(token if token == "..." else float(token))

    x = np.full(shape[1:], np.nan, np.float32)            # (.., rows, columns); a batch of several is not printed apart

    def fill(target, values):
        gap = values.index("...") if "..." in values else len(values)
        first, last = values[:gap], values[gap + 1:]
        if len(first) + len(last) > len(target) or gap == len(values) != len(target):
            raise ValueError("more or fewer numbers than its shape")
        for i, value in [*enumerate(first), *enumerate(last, len(target) - len(last))]:
            if isinstance(value, list):
                fill(target[i], value)
            else:
                target[i] = value

    fill(x, lists[0])
    return x


READERS = {".safetensors": open_safetensors, ".npz": open_npz, ".npy": open_npy, ".pt": open_pt, ".pth": open_pt,
           ".log": open_log, ".txt": open_log}


def read_entry(entry, path):
    """An entry's numbers in float64 (float32 loses nothing for the narrow types), or InputError."""
    try:
        x = entry.read()
    except Exception as error:
        raise InputError(f"{path}: {shorten(entry.name)} cannot be read: {shorten(str(error))}") from None
    x = x.view(ml_dtypes.bfloat16) if x.dtype.kind == "V" else x
    return x.astype(np.float64 if x.dtype == np.float64 else np.float32)


# ---- From entries to tensors -----------------------------------------------------------------------------------

def read_dump(path, known, room, n_seen=None, config=None):
    """(the dump's tensors under our names in order of computation, sentences on how it was read), or InputError.

    room(name): how many numbers are plausible. With a config, fused queries, keys and values are split.
    """
    entries = open_dump(path)
    left_out, found = {}, {}
    names = Names(entries, known)
    notes = about_positions(entries, names)
    for name, group in grouped(entries, names).items():
        places = names.of(group[0])
        reason = unusable(group) if places else names.why_not(group[0])
        if not reason and sum(math.prod(entry.shape) for entry in group) > room(places[0][0]) * len(places):
            reason = f"has shape {group[0].shape}, far larger than {places[0][0]} can be"
        if not reason and places[0][2] in ("q", "gate") and not splits(group[0].shape, places, config):
            reason = f"has shape {group[0].shape}: it is not known how to split it"
        if reason:
            if not is_ids(group[0]):
                left_out[name] = reason
            continue
        x = joined([read_entry(entry, path) for entry in group], places[0][0])
        for ours, rank, part in places:
            tensor = Tensor(ours, name, DTYPES[group[0].dtype], part_of(x, part, config), n_seen, step=group[0].step,
                            total=group[0].total)
            tensor.partial = bool(tensor.step) and bool(np.isnan(x).any())
            if tensor.total is not None and sums_what_is_printed(tensor):
                tensor.total = None
            found.setdefault(ours, []).append((rank, tensor))
    if not found:
        raise InputError(f"{path} holds no tensor that can be compared" + "".join(
                f": {shorten(name)} {reason} (tests/reference/README.md has the names)" for name, reason in
            list(left_out.items())[:1]))
    notes += about_left_out(left_out)
    if any(entry.step for entry in entries):
        notes.append("A log has the first and last values of each row, to four decimals, and a sum: what is between "
                     "them, and what is smaller, it cannot tell. Only what it prints is compared.")
    return [innermost(found[name]) for name in known if name in found], notes


def by_position(entries):
    """{name: its entries}, more than one where a dump was written a position at a time: name@0, name@1, or one name."""
    groups = {}
    for entry in entries:
        name, _, position = entry.name.rpartition("@")
        if name and position.isdigit():
            groups.setdefault(name, []).append((int(position), entry))
        else:
            groups.setdefault(entry.name, []).append((len(groups.get(entry.name, ())), entry))
    return {name: [entry for _, entry in sorted(group, key=lambda pair: pair[0])] for name, group in groups.items()}


def grouped(entries, names):
    """The same, with the names that llama.cpp uses twice told apart."""
    groups = by_position(entries)
    if names.is_llama_cpp:
        return {name: group for each in groups.items() for name, group in passes_of_llama_cpp(*each, groups).items()}
    for name, group in groups.items():
        for entry in group:
            entry.name = name
    return groups


def passes_of_llama_cpp(name, group, groups):
    """Which of the tensors that llama.cpp gives one name is which: {name: [entry]}."""
    base, _, number = name.partition("#")
    if "(" in base or base.startswith("node_") and group[0].operation != "MUL_MAT":
        return {}                                         # views of what is there under its own name
    if not base.startswith(("Qcur-", "Kcur-")):
        return {} if number else {name: group[:1]}
    for entry in group:
        entry.name = base
        entry.turned = bool(number) and not same_numbers(entry, groups.get(base, [entry])[0])
    by_operation = {f"{base} {entry.operation}": [entry] for entry in reversed(group) if entry.operation}
    return by_operation or {name: group[:1]}


def same_numbers(entry, other):
    a, b = (np.sort(e.read().ravel()) for e in (entry, other))
    return np.array_equal(a, b, equal_nan=True)


def unusable(group):
    """Why these entries are no numbers to compare, or None."""
    for entry in group:
        if entry.dtype not in DTYPES:
            return f"is {entry.dtype}, not floating-point (float64, float32, float16, bfloat16)"
        if 0 in entry.shape:
            return f"is empty, shape {entry.shape}"
    return None


def joined(arrays, name):
    """Arrays of one position each, one below the other; rows of scores grow, and what is missing is beyond the mask."""
    if len(arrays) == 1:
        return arrays[0]
    sizes = [x.size for x in arrays]
    if name.endswith(("scores", "probs")) and sizes[0] and all(s == sizes[0] * (i + 1) for i, s in enumerate(sizes)):
        blocked = -np.inf if name.endswith("scores") else 0
        out = np.full((sizes[0], len(arrays), len(arrays)), blocked, arrays[0].dtype)
        for i, x in enumerate(arrays):
            out[:, i, :i + 1] = x.reshape(sizes[0], i + 1)
        return out
    if len(set(sizes)) > 1:
        return arrays[0]
    return np.stack([x.ravel() for x in arrays])


def splits(shape, places, config):
    """Can the last axis of this shape be split into these parts?"""
    if places[0][2] == "gate":
        return shape[-1] % 2 == 0
    return config is not None and shape[-1] == (config.n_heads + 2 * config.n_kv_heads) * config.head_dim


def part_of(x, part, config):
    """The queries, keys, values, gate or up of a product that holds several, or all of it."""
    if part is None:
        return x
    if part in ("gate", "up"):
        return np.split(x, 2, -1)[part == "up"]
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    return np.split(x, [queries, queries + keys], -1)["qkv".index(part)]


def sums_what_is_printed(tensor):
    """Until August 2025, llama.cpp added up only the numbers that it prints."""
    printed = tensor.x[~np.isnan(tensor.x)].astype(np.float64)
    return abs(printed.sum() - tensor.total) <= printed.size * tensor.step


def innermost(candidates):
    """Of several arrays under one of our names the innermost; it keeps those around it that hold other numbers."""
    _, tensor = min(candidates, key=lambda pair: pair[0])
    inside = np.sort(tensor.x.ravel())
    for _, other in sorted(candidates, key=lambda pair: pair[0]):
        if other is not tensor and not np.array_equal(np.sort(other.x.ravel()), inside, equal_nan=True):
            tensor.outer.append(other)
    return tensor


def about_positions(entries, names):
    """Advice where a name is there more than once."""
    if names.is_llama_cpp:
        return []
    plain = [entry.name for entry in entries]
    twice = next((name for name in plain if plain.count(name) > 1), None) if len(set(plain)) < len(plain) else None
    if not twice:
        return []
    times = plain.count(twice)
    return [f"{shorten(twice)} is there {times} times: read as one position each. A safetensors file may have "
            "a name once only, so most programs will refuse it: write name@0, name@1, ... (tests/reference/README.md)."]


def is_ids(entry):
    """Are these the token ids that the dump was made from?"""
    return entry.dtype in ("I64", "I32", "int64", "int32") and bool(IDS.search(entry.name))


def own_ids(path):
    """The token ids that a dump holds, or None."""
    entry = next((entry for entry in open_dump(path) if is_ids(entry)), None)
    if entry is None or not 0 < math.prod(entry.shape) <= 2**17:
        return None
    try:
        return tuple(int(i) for i in np.asarray(entry.read()).ravel())
    except Exception as error:
        raise InputError(f"{path}: {shorten(entry.name)} cannot be read: {shorten(str(error))}") from None


def about_left_out(left_out):
    """Sentences on what is not compared: unknown names together, all else by itself."""
    unknown = [name for name, reason in left_out.items() if reason == UNKNOWN]
    others = [f"Left out: {shorten(name)} {reason}." for name, reason in left_out.items() if reason != UNKNOWN]
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        others.append(f"Left out, as no tensors of the trace: {', '.join(map(shorten, unknown[:5]))}{more}.")
    return others[:6]


# ---- What a run's tensors look like ----------------------------------------------------------------------------

def shape_of(name, config, T, n_seen):
    """The shape of a tensor of the trace, for T new tokens of n_seen."""
    local = name.split(".", 2)[-1]
    if local in ("attn.q", "attn.q_rope", "attn.heads"):
        return config.n_heads, T, config.head_dim
    if local in ("attn.k", "attn.k_rope", "attn.v"):
        return config.n_kv_heads, T, config.head_dim
    if local in ("attn.scores", "attn.probs"):
        return config.n_heads, T, n_seen
    if local in ("ffn.gate", "ffn.silu", "ffn.up", "ffn.hidden"):
        return T, config.hidden_dim
    return T, config.vocab_size if name == "logits" else config.dim


def room_for(config, n_seen):
    """name -> how many numbers a tensor of this name may have, in a buffer made for the whole context."""
    positions = max(2 * (n_seen + 1), config.max_seq_len)
    return lambda name: 2 * math.prod(shape_of(name, config, positions if name != "logits" else n_seen + 1, n_seen + 1))


def is_of_last_position(tensors, config, T, n_seen):
    """Do all shapes of this dump of T tokens say one position, the last? Those of logits alone often do."""
    inner = [tensor for tensor in tensors if tensor.name not in ("norm", "logits")]
    readings = [tensor.readings(shape_of(tensor.name, config, T, n_seen)) for tensor in inner]
    return T > 1 and bool(inner) and all(
        found and all(x.shape[-2] == 1 for _, x in found) for found in readings)
