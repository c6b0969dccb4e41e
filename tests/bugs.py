"""The bug zoo: every classic mistake in a port of Llama, as a few lines that turn the right run into the wrong one.

A bug replaces intermediate values by a tap, or changes the weights, the configuration or the tokens; everything after
that is computed by numpy_llama.py. So a diagnosis needs no guessing: a dump is compared with the run of each bug.

    python tests/bugs.py                         the list: what is done wrong, the symptom, the fix
    python tests/bugs.py rope-neighbours x.npz   a dump of the model that ships, with that bug: feed it to compare.py
"""
import math
import os
import sys
import textwrap
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path

import ml_dtypes
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from large_models import FileMatrix, Opened, dense  # noqa: E402,F401

import numpy_llama as nl  # noqa: E402

BOS, EOS = 1, 2                                           # in every Llama 1 and 2
MATRICES = {"attn": ("wq", "wk", "wv", "wo"), "ffn": ("gate", "up", "down")}


def names_of(n_layers):
    """Every name of a trace, in order of computation."""
    layer = ("attn_norm", "attn.q", "attn.k", "attn.v", "attn.q_rope", "attn.k_rope", "attn.scores", "attn.probs",
             "attn.heads", "attn.out", "x_attn", "ffn_norm", "ffn.gate", "ffn.silu", "ffn.up", "ffn.hidden", "ffn.out",
             "x_ffn")
    return ["embedding", *(f"layers.{i}.{name}" for i in range(n_layers) for name in layer), "norm", "logits"]


# ---- Runs ----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Run:
    """Tokens through a model, in chunks through the cache. Its trace is that of the last chunk."""
    tokens: tuple
    weights: dict
    config: nl.Config
    chunks: tuple = ()                                    # their sizes; () is all tokens at once
    text: str = None                                      # where the tokens come from, if they come from a text
    tokenizer: Path = None                                # its tokenizer.model
    # For a single function, run as a part of a model of one layer (functions.py):
    given: dict = field(default_factory=dict)             # {name: values of all positions}, instead of computed ones
    start: int = 0                                        # position of the first token
    until: str = None                                     # the last tensor that is computed


@dataclass(frozen=True)
class Bug:
    """One mistake; `what` completes the sentence "this is what you get when ..."."""
    name: str
    first: str                                            # the first tensor it changes, at the earliest
    what: str
    symptom: str
    fix: str
    taps: dict = field(default_factory=dict)              # {name within a layer: (at, right value) -> wrong value}
    change: object = None                                 # Run -> wrong Run, or None where it does not apply
    subtle: bool = False                                  # so small that rounding may hide it
    across: bool = False                                  # it reads what later layers left behind in earlier chunks
    rounds_to: str = None                                 # a type to which it rounds, which may be meant

    def apply(self, run):
        return run if self.change is None else self.change(run)


class At:
    """Where a tap stands: what a bug needs to compute its wrong value."""

    def __init__(self, run, dtype, name, layer, positions, now, past):
        self.run, self.config, self.dtype, self.name, self.layer = run, run.config, dtype, name, layer
        self.positions, self.now, self.past = positions, now, past

    def __getitem__(self, name):
        """A value of this layer that was computed before."""
        return self.now[f"layers.{self.layer}.{name}"]

    def weight(self, *path):
        where = self.run.weights if self.layer is None else self.run.weights["layers"][self.layer]
        for key in path:
            where = where[key]
        return dense(where, self.dtype)

    @property
    def x(self):
        """The residual stream that enters this layer."""
        return self.now[f"layers.{self.layer - 1}.x_ffn"] if self.layer else self.now["embedding"]

    @property
    def norm_input(self):
        return {"attn_norm": lambda: self.x, "ffn_norm": lambda: self["x_attn"],
                "norm": lambda: self.now[f"layers.{self.config.n_layers - 1}.x_ffn"]}[self.name]()

    def seen(self, name):
        """The keys (attn.k_rope, or attn.k before rotation) or values (attn.v) of all positions so far: (G, S, d)."""
        return np.concatenate(self.past[f"layers.{self.layer}.{name}"], axis=1)

    def scores(self, scale=None, mask=None, heads=None, blocked=-np.inf, keys=None):
        """Attention scores computed anew: (H, T, S)."""
        keys = self.seen("attn.k_rope") if keys is None else keys
        keys = keys[self.key_heads if heads is None else heads]
        scores = self["attn.q_rope"] @ keys.swapaxes(1, 2) * (scale or 1 / math.sqrt(self.config.head_dim))
        columns = np.arange(keys.shape[1])
        return np.where(self.positions[:, None] >= columns if mask is None else mask(self.positions[:, None], columns),
                        scores, blocked)

    @property
    def key_heads(self):
        """The key head of every query head."""
        return np.arange(self.config.n_heads) // (self.config.n_heads // self.config.n_kv_heads)


class Stop(Exception):
    """Raised by a tap that has seen enough."""


class Layers:
    """Layers that are changed only while they are used: a large model is never held twice."""

    def __init__(self, layers, change):
        self.layers, self.change = layers, change

    def __iter__(self):
        return (self.change(layer) for layer in self.layers)

    def __getitem__(self, i):
        return self.change(self.layers[i])

    def __len__(self):
        return len(self.layers)


class LayersByIndex:
    """Layers that are made while they are used, by their number."""

    def __init__(self, at, n):
        self.at, self.n = at, n

    def __iter__(self):
        return (self.at(i) for i in range(self.n))

    def __getitem__(self, i):
        return self.at(range(self.n)[i])

    def __len__(self):
        return self.n


def map_weights(change, weights):
    """The same nested dict, with change(name, array) for every array."""
    def walk(tree):
        return {key: walk(value) if isinstance(value, dict) else change(key, value) for key, value in tree.items()}

    return {**walk({key: value for key, value in weights.items() if key != "layers"}),
            "layers": Layers(weights["layers"], walk)}


PRECISIONS = {"float64": None, "float32": None, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def compute(run, bug=None, precision="float32", until=None):
    """The trace of a run with a bug, up to the tensor named `until`; None where the bug does not apply.

    float16 and bfloat16: weights and every intermediate are rounded to that type, the arithmetic is float32.
    """
    from tqdm import tqdm
    run = bug.apply(run) if bug else run
    if run is None:
        return None
    dtype = np.float64 if precision == "float64" else np.float32
    grid, until = PRECISIONS[precision], until or run.until

    def rounded(x):
        if isinstance(x, FileMatrix):
            return x.on_grid(grid)
        return x.astype(grid).astype(dtype) if grid else x.astype(dtype, copy=False)

    weights = map_weights(lambda name, x: x if name == "embedding" else rounded(x), run.weights)
    sizes = list(run.chunks) or [len(run.tokens)]
    sizes[0] += len(run.tokens) - sum(sizes)              # a bug that adds or drops tokens
    last_layer = f"layers.{run.config.n_layers - 1}.attn."
    cache = [nl.KVCache(run.config, run.start + len(run.tokens), dtype) for _ in range(run.config.n_layers)]
    for layer in cache:
        layer.length = run.start
    past, start, trace = {}, 0, None
    for size in filter(None, sizes):
        end, trace = start + size, nl.Trace()

        def tap(name, x):
            parts = name.split(".", 2)
            layer, local = (int(parts[1]), parts[2]) if parts[0] == "layers" else (None, name)
            if name in run.given:
                x = run.given[name][..., start:end, :].astype(dtype)
            elif bug and local in bug.taps:
                at = At(run, dtype, local, layer, run.start + np.arange(start, end), trace, past)
                x = bug.taps[local](at, x).astype(dtype)
            x = trace(name, rounded(x))
            if local in ("attn.k", "attn.k_rope", "attn.v"):
                past.setdefault(name, []).append(x)
            if local == "x_ffn":
                progress.update()
            if name == last_layer + "k_rope" and end < len(run.tokens):
                cache[-1].extend(x, past[last_layer + "v"][-1])   # all that an earlier chunk leaves behind
                raise Stop
            if name == until and not (bug and bug.across and end < len(run.tokens)):
                raise Stop
            return x

        progress = tqdm(total=run.config.n_layers, desc="computing", unit="layer", delay=2, leave=False)
        try:
            with np.errstate(all="ignore"), progress:     # some bugs overflow, and that is what they look like
                nl.forward(run.tokens[start:end], weights, run.config, cache, tap)
        except Stop:
            for layer in cache:                           # what was skipped is not read before `until`
                layer.length = run.start + end
        start = end
    return trace


# ---- The parts bugs are made of --------------------------------------------------------------------------------

def norms(f):
    """RMSNorm done as f(x, gain, eps), everywhere."""
    def tap(at, right):
        gain = at.weight(at.name)
        return f(at.norm_input, gain, at.config.norm_eps)

    return {"attn_norm": tap, "ffn_norm": tap, "norm": tap}


def mean_square(x, axis=-1):
    return np.mean(x * x, axis=axis, keepdims=True)


def ropes(f):
    """Rotation done as f(x, positions, frequencies, at), for queries and keys."""
    def tap(at, right):
        c = at.config
        exponents = np.arange(0, c.head_dim, 2, dtype=at.dtype) / c.head_dim
        frequencies = 1 / np.power(c.rope_theta, exponents, dtype=np.float64).astype(at.dtype)
        return f(at[at.name.removesuffix("_rope")], at.positions.astype(at.dtype), frequencies, at)

    return {"attn.q_rope": tap, "attn.k_rope": tap}


def turn(x, angles):
    """Rotate halves, as it should be: (heads, T, d), (T, d/2)."""
    return nl.rope(x, np.cos(angles), np.sin(angles))


def turn_neighbours(x, angles):
    a, b, cos, sin = x[..., 0::2], x[..., 1::2], np.cos(angles), np.sin(angles)
    return np.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)


def on_grid(x, grid):
    return x.astype(grid).astype(x.dtype)


def layers(f):
    """A change of every layer's weights; f(layer, config) -> {name: array} to replace, or None: does not apply."""
    def change(run):
        def changed(layer):
            new = f(Opened(layer), run.config)
            return {key: {k: new.get(k, w) for k, w in value.items()} if key in ("attn", "ffn") else new.get(key, value)
                    for key, value in layer.items()}

        if f(Opened(run.weights["layers"][0]), run.config) is None:
            return None
        return replace(run, weights={**run.weights, "layers": Layers(run.weights["layers"], changed)})

    return change


def next_layers(*path):
    """The run in which each layer but the last uses the next one's weights at `path`."""
    def change(run):
        layers = run.weights["layers"]
        if len(layers) == 1:
            return None

        def at(i):
            layer, other = layers[i], layers[min(i + 1, len(layers) - 1)]
            if len(path) == 1:
                return {**layer, path[0]: other[path[0]]}
            return {**layer, path[0]: {**layer[path[0]], path[1]: other[path[0]][path[1]]}}

        return replace(run, weights={**run.weights, "layers": LayersByIndex(at, len(layers))})

    return change


def reorder_rows(w, head_dim, to):
    """Reorder the outputs of wq or wk, (in, out), within each head: to "meta" (neighbours) or to "halves"."""
    halves = w.reshape(len(w), -1, 2, head_dim // 2) if to == "meta" else w.reshape(len(w), -1, head_dim // 2, 2)
    return halves.swapaxes(-1, -2).reshape(w.shape)


def keys_by(heads, first):
    """wk permuted as if it had heads(config) heads: `first` "halves" for Meta's file, "meta" for Hugging Face's."""
    def change(layer, c):
        rows, n = c.n_kv_heads * c.head_dim, heads(c)
        if n == c.n_kv_heads or rows % (2 * n):
            return None
        width = rows // n                                 # what that converter takes for the width of a head
        wk = layer["attn"]["wk"]
        if first == "halves":
            return {"wk": reorder_rows(reorder_rows(wk, c.head_dim, "meta"), width, "halves")}
        return {"wk": reorder_rows(reorder_rows(wk, width, "meta"), c.head_dim, "halves")}

    return layers(change)


def transposed_in_meta(layer, c):
    """Meta's file, (out, in) and in its order, read as (in, out); as a port that rotates neighbours sees it."""
    new = {k: misread(layer[part][k]) for part in MATRICES for k in MATRICES[part]}
    for k in ("wq", "wk"):
        meta = misread(reorder_rows(layer["attn"][k], c.head_dim, "meta"))
        new[k] = reorder_rows(meta, c.head_dim, "halves")
    return new


def misread(w):
    """The (out, in) numbers on disk taken for (in, out)."""
    return np.ascontiguousarray(w.T).reshape(w.shape)


def setting(name, value):
    """The configuration with another value, where that is another value."""
    def change(run):
        return None if getattr(run.config, name) == value else replace(run, config=replace(run.config, **{name: value}))

    return change


def tokens(f):
    """The run with other tokens; f(run) -> tokens, or None: does not apply."""
    def change(run):
        new = f(run)
        if not new or tuple(new) == tuple(run.tokens):
            return None
        room = max(run.config.max_seq_len, len(new))
        return replace(run, tokens=tuple(new), config=replace(run.config, max_seq_len=room))

    return change


def without_dummy_prefix(run):
    if run.text is None or run.tokenizer is None:
        return None
    import sentencepiece
    spec = b"\x1a\x02\x18\x00"                            # normalizer_spec { add_dummy_prefix: false }, appended
    sp = sentencepiece.SentencePieceProcessor(model_proto=Path(run.tokenizer).read_bytes() + spec)
    return [BOS] * (run.tokens[0] == BOS) + sp.encode(run.text)


def frequencies(at, exponents):
    return (1 / np.power(at.config.rope_theta, np.asarray(exponents, np.float64))).astype(at.dtype)


def pairs(at):
    return np.arange(at.config.head_dim // 2)


def turn_apart(x, first, second):
    """Rotate halves, the first by some angles and the second by others."""
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * np.cos(first) - b * np.sin(first), b * np.cos(second) + a * np.sin(second)], axis=-1)


def turn_overwriting(x, angles):
    """The second half is computed from the first one's new values."""
    a, b = np.split(x, 2, axis=-1)
    a = a * np.cos(angles) - b * np.sin(angles)
    return np.concatenate([a, b * np.cos(angles) + a * np.sin(angles)], axis=-1)


def caches(f):
    """Attention with f(at, contents, name) in the cache instead of the right contents, (G, S, d)."""
    def keys(at, right):
        return at.scores(keys=f(at, at.seen("attn.k_rope"), "attn.k_rope"))

    def values(at, right):
        return at["attn.probs"] @ f(at, at.seen("attn.v"), "attn.v")[at.key_heads]

    return {"attn.scores": keys, "attn.heads": values}


def one_slot_late(at, x, name):
    return np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)


def one_slot_early(at, x, name):
    """The first chunk is where it belongs; each later one covers the last slot of the one before."""
    wrong, start = np.zeros_like(x), 0
    for part in at.past[f"layers.{at.layer}.{name}"]:
        n = part.shape[1]
        slot = max(start - 1, 0)
        wrong[:, slot:slot + n] = part
        start += n
    return wrong


def of_last_layer(at, x, name):
    """What one cache for all layers holds: of earlier chunks, the last layer's."""
    earlier = at.past[f"layers.{at.config.n_layers - 1}.{name}"] if at.positions[0] > at.run.start else []
    n = sum(part.shape[1] for part in earlier)
    new = x.shape[1] - (at.positions[0] - at.run.start)
    return np.concatenate([*earlier, x[:, -new:]], axis=1)[:, -x.shape[1]:] if n else x


def from_slot_zero(at, x, name):
    wrong = np.zeros_like(x)
    for part in at.past[f"layers.{at.layer}.{name}"]:
        wrong[:, :part.shape[1]] = part
    return wrong


def turned_again(at, x, name):
    """What comes from the cache is turned once more."""
    old = at.positions[0] - at.run.start
    if name == "attn.v" or not old:
        return x
    again = nl.rope(x[:, :old], *nl.rope_cos_sin(at.run.start + np.arange(old), at.config.head_dim,
                                                 at.config.rope_theta, at.dtype))
    return np.concatenate([again, x[:, old:]], axis=1)


def unturned(at, x, name):
    return x if name == "attn.v" else at.seen("attn.k")


def past_unturned(at, x, name):
    old = at.positions[0] - at.run.start
    return x if name == "attn.v" else np.concatenate([at.seen("attn.k")[:, :old], x[:, old:]], axis=1)


def without_group(at, x):
    """Query head h reads at h * d from the start of each slot: (G, S, d) -> (H, S, d), zeros beyond the last slot."""
    G, S, d = x.shape
    flat = np.concatenate([x.swapaxes(0, 1).ravel(), np.zeros(at.config.n_heads * d, x.dtype)])
    start = np.arange(S) * G * d
    return np.stack([flat[start[:, None] + h * d + np.arange(d)] for h in range(at.config.n_heads)])


def to_int8(x):
    """Each vector in 8 bits with one scale."""
    scale = np.maximum(np.abs(x).max(axis=-1, keepdims=True), 1e-30) / 127
    return np.round(x / scale) * scale


def softmax_over_cache(at, right):
    """Softmax over every slot of the cache: those that hold nothing score 0."""
    scores = np.maximum(at["attn.scores"], np.finfo(np.float32).min / 2)
    top = np.maximum(scores.max(axis=-1, keepdims=True), 0)
    e = np.exp(scores - top)
    empty = at.config.max_seq_len - scores.shape[-1]
    return e / (e.sum(axis=-1, keepdims=True) + empty * np.exp(-top))


def stale_heads(at, right):
    return right + nl.split_heads(at["attn_norm"], at.config.head_dim)


def tied(run):
    embedding = run.weights["embedding"].T
    if np.array_equal(dense(run.weights["output"]), embedding):
        return None
    return replace(run, weights={**run.weights, "output": embedding})


def gelu(x):
    return x * (1 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2))) / 2


def gelu_tanh(x):
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))) / 2


def weighted(at, heads):
    return at["attn.probs"] @ at.seen("attn.v")[heads]


def softmax_over(axis):
    def tap(at, right):
        scores = np.maximum(at["attn.scores"], np.finfo(np.float32).min / 2)      # finite, as in most ports
        e = np.exp(scores - scores.max(axis=axis, keepdims=True))
        return e / e.sum(axis=axis, keepdims=True)

    return {"attn.probs": tap}


def after(name):
    """Post-norm: the sum is normalised, not the input."""
    return lambda at, right: nl.rms_norm(right, at.weight(name), at.config.norm_eps)


# ---- The zoo, in order of computation ----------------------------------------------------------------------------

BUGS = [
    # tokens and embedding
    Bug("bos-missing", "embedding", "the prompt does not start with <s>",
        "fluent but distracted: the first tokens take over the role of <s>, on which much attention rests",
        "put the BOS id (1) in front of the prompt",
        change=tokens(lambda run: run.tokens[1:] if run.tokens[0] == BOS else None)),
    Bug("bos-twice", "embedding", "the prompt starts with <s> twice",
        "slightly worse answers, every position off by one",
        "the tokenizer adds BOS already: do not add another, nor write <s> into the text",
        change=tokens(lambda run: (BOS, *run.tokens) if run.tokens[0] == BOS else None)),
    Bug("eos-appended", "embedding", "the prompt ends with </s>",
        "the model starts something new instead of continuing the prompt",
        "encode prompts without EOS",
        change=tokens(lambda run: (*run.tokens, EOS))),
    Bug("dummy-prefix-missing", "embedding", "SentencePiece's dummy prefix (a space before the text) is missing",
        "the first word is split into odd pieces, answers start badly",
        "put a space in front of the text before encoding (and drop it after decoding)",
        change=tokens(without_dummy_prefix)),
    Bug("embedding-scaled", "embedding", "the embedding is multiplied by sqrt(D)",
        "nonsense: the residual stream drowns what the layers add",
        "use the rows of the embedding as they are; the factor belongs to other models",
        taps={"embedding": lambda at, right: right * math.sqrt(at.config.dim)}),

    # RMSNorm
    Bug("norm-mean-subtracted", "layers.0.attn_norm", "RMSNorm subtracts the mean (LayerNorm)",
        "nearly right at the start, worse with every layer",
        "divide by sqrt(mean(x^2) + eps); no mean, no bias",
        taps=norms(lambda x, gain, eps: nl.rms_norm(x - x.mean(-1, keepdims=True), gain, eps))),
    Bug("eps-omitted", "layers.0.attn_norm", "RMSNorm has no eps",
        "hardly visible; NaN for a row of zeros",
        "add norm_eps to the mean square, under the root",
        taps=norms(lambda x, gain, eps: x / np.sqrt(mean_square(x)) * gain), subtle=True),
    Bug("eps-outside-root", "layers.0.attn_norm", "RMSNorm adds eps after the root",
        "hardly visible: perplexity a little worse",
        "x / sqrt(mean(x^2) + eps), not x / (sqrt(mean(x^2)) + eps)",
        taps=norms(lambda x, gain, eps: x / (np.sqrt(mean_square(x)) + eps) * gain), subtle=True),
    *(Bug(f"eps-{eps:g}", "layers.0.attn_norm", f"norm_eps is {eps:g}",
          "hardly visible: 7B's perplexity goes from 5.83 to 5.90 with the other eps",
          "read norm_eps (rms_norm_eps) from the configuration: Llama 1 has 1e-6, Llama 2 has 1e-5",
          change=setting("norm_eps", eps), subtle=True) for eps in (1e-5, 1e-6, 1e-8, 1e-12)),
    Bug("norm-over-positions", "layers.0.attn_norm", "RMSNorm averages over the positions (the wrong axis)",
        "a token's values depend on tokens after it; a single token becomes all +1 and -1",
        "average over the D numbers of each position",
        taps=norms(lambda x, gain, eps: x / np.sqrt(mean_square(x, axis=0) + eps) * gain)),
    Bug("norm-by-sum", "layers.0.attn_norm", "RMSNorm divides by the root of the sum of squares, not of their mean",
        "nonsense: everything is sqrt(D) times too small",
        "take the mean over D",
        taps=norms(lambda x, gain, eps: x / np.sqrt(np.sum(x * x, -1, keepdims=True) + eps) * gain)),
    Bug("norm-by-deviation", "layers.0.attn_norm", "RMSNorm divides by the standard deviation",
        "nearly right at the start, worse with every layer",
        "divide by sqrt(mean(x^2) + eps): the mean is not subtracted, neither above nor below",
        taps=norms(lambda x, gain, eps: x / np.sqrt(x.var(-1, keepdims=True) + eps) * gain)),
    Bug("attn-norm-of-next-layer", "layers.0.attn_norm",
        "each layer uses the next one's norm weight before attention",
        "worse text, or nonsense", "look at the offset of the norm weights: layer * D",
        change=next_layers("attn_norm")),
    Bug("ffn-norm-of-next-layer", "layers.0.ffn_norm",
        "each layer uses the next one's norm weight before the feed-forward",
        "worse text, or nonsense", "look at the offset of the norm weights: layer * D",
        change=next_layers("ffn_norm")),
    Bug("norm-weight-forgotten", "layers.0.attn_norm", "RMSNorm's weight is not applied",
        "nonsense, or dull repetition",
        "multiply by the layer's weight after dividing",
        taps=norms(lambda x, gain, eps: x / np.sqrt(mean_square(x) + eps))),
    Bug("norm-weight-plus-one", "layers.0.attn_norm", "RMSNorm multiplies by 1 + weight",
        "nonsense from the first token",
        "multiply by the weight itself; 1 + weight belongs to other models",
        taps=norms(lambda x, gain, eps: x / np.sqrt(mean_square(x) + eps) * (1 + gain))),
    Bug("norms-swapped", "layers.0.attn_norm", "the two norms' weights of a layer are swapped",
        "nonsense, or dull repetition",
        "input_layernorm (attention_norm) goes before attention, post_attention_layernorm (ffn_norm) before the "
        "feed-forward",
        change=layers(lambda layer, c: {"attn_norm": layer["ffn_norm"], "ffn_norm": layer["attn_norm"]})),
    Bug("post-norm", "layers.0.attn_norm", "each residual sum is normalised (post-norm), not the input of each part",
        "nonsense from the first token",
        "normalise the input of attention and of the feed-forward; leave the residual stream alone",
        taps={"attn_norm": lambda at, right: at.x, "x_attn": after("attn_norm"),
              "ffn_norm": lambda at, right: at["x_attn"], "x_ffn": after("ffn_norm")}),
    Bug("norm-forgotten", "layers.0.attn_norm", "nothing is normalised before attention and feed-forward",
        "nonsense; numbers that grow or vanish with depth",
        "normalise the input of attention and of the feed-forward",
        taps={"attn_norm": lambda at, right: at.x, "ffn_norm": lambda at, right: at["x_attn"]}),

    # projections
    Bug("matrices-transposed", "layers.0.attn.q", "the (out, in) matrices on disk are read as (in, out)",
        "nonsense from the first token",
        "y[o] = sum over i of w[o * n_in + i] * x[i]: each output is a row of the file times x",
        change=layers(lambda layer, c: {k: misread(layer[part][k]) for part in MATRICES for k in MATRICES[part]})),
    Bug("meta-matrices-transposed", "layers.0.attn.q",
        "the (out, in) matrices of Meta's file are read as (in, out)",
        "nonsense from the first token",
        "y[o] = sum over i of w[o * n_in + i] * x[i]: each output is a row of the file times x",
        change=layers(transposed_in_meta)),
    Bug("permuted-twice", "layers.0.attn.q", "wq and wk, in half-split order already, are permuted once more",
        "fluent for a few tokens, then gibberish",
        "Hugging Face's weights are in half-split order already: permute Meta's only, and once",
        change=layers(lambda layer, c: {
            k: reorder_rows(layer["attn"][k], c.head_dim, "halves") for k in ("wq", "wk")})),
    Bug("split-without-transpose", "layers.0.attn.q",
        "(T, heads * d) is reshaped to (heads, T, d) without a transposition",
        "right for a single token, nonsense for a prompt",
        "reshape to (T, heads, d), then swap the first two axes",
        taps=dict.fromkeys(("attn.q", "attn.k", "attn.v"),
                           lambda at, right: nl.merge_heads(right).reshape(right.shape))),
    Bug("keys-permuted-by-query-heads", "layers.0.attn.k", "wk is permuted with the number of query heads",
        "models with grouped keys read fluently, then turn to gibberish; others are right",
        "permute wk with its own number of heads, n_kv_heads",
        change=keys_by(lambda c: c.n_heads, "halves")),
    Bug("keys-unpermuted-by-query-heads", "layers.0.attn.k",
        "wk is brought from Hugging Face's order to Meta's with the number of query heads",
        "models with grouped keys read fluently, then turn to gibberish; others are right",
        "un-permute wk with its own number of heads, n_kv_heads",
        change=keys_by(lambda c: c.n_heads, "meta")),
    Bug("keys-permuted-by-group", "layers.0.attn.k", "wk is permuted with H / G heads",
        "models with grouped keys read fluently, then turn to gibberish, unless H / G = G",
        "permute wk with its own number of heads, n_kv_heads",
        change=keys_by(lambda c: c.n_heads // c.n_kv_heads, "halves")),
    Bug("keys-unpermuted-by-group", "layers.0.attn.k",
        "wk is brought from Hugging Face's order to Meta's with H / G heads",
        "models with grouped keys read fluently, then turn to gibberish, unless H / G = G",
        "un-permute wk with its own number of heads, n_kv_heads",
        change=keys_by(lambda c: c.n_heads // c.n_kv_heads, "meta")),
    Bug("keys-and-values-swapped", "layers.0.attn.k", "wk and wv are swapped",
        "nonsense from the second token on",
        "the order on disk is q, k, v, o; look at the names",
        change=layers(lambda layer, c: {"wk": layer["attn"]["wv"], "wv": layer["attn"]["wk"]})),
    Bug("values-from-wk", "layers.0.attn.v", "the values are computed with wk",
        "nonsense from the second token on",
        "look at the name or the offset of wv, and at fused matrices: q, then k, then v",
        change=layers(lambda layer, c: {"wv": layer["attn"]["wk"]})),
    Bug("wv-of-next-layer", "layers.0.attn.v", "each layer uses the wv of the next",
        "nonsense from the first token",
        "look at the offset of wv: layer * G * d * D numbers",
        change=next_layers("attn", "wv")),
    Bug("rope-on-v", "layers.0.attn.v", "the values are rotated too",
        "right for the first token, then gibberish",
        "rotate queries and keys only",
        taps={"attn.v": lambda at, right: nl.rope(right, *nl.rope_cos_sin(
            at.positions, at.config.head_dim, at.config.rope_theta, at.dtype))}),

    # rotary embeddings
    Bug("rope-neighbours", "layers.0.attn.q_rope",
        "neighbouring pairs (x_2i, x_2i+1) are rotated, though the weights are in half-split order",
        "fluent for about twenty tokens, then gibberish",
        "your weights are in Hugging Face's half-split order: un-permute them, or rotate halves (x_i, x_i+d/2)",
        taps=ropes(lambda x, p, f, at: turn_neighbours(x, p[:, None] * f))),
    Bug("not-permuted", "layers.0.attn.q_rope",
        "halves (x_i, x_i+d/2) are rotated, though wq and wk are in Meta's interleaved order",
        "fluent for about twenty tokens, then gibberish",
        "permute the rows of wq and wk to half-split order at load, or rotate neighbours (x_2i, x_2i+1)",
        change=layers(lambda layer, c: {k: reorder_rows(layer["attn"][k], c.head_dim, "meta") for k in ("wq", "wk")})),
    Bug("rope-reversed", "layers.0.attn.q_rope", "pairs are rotated in the other direction",
        "almost right for close tokens, then gibberish",
        "(a cos - b sin, b cos + a sin): the minus belongs to the first half",
        taps=ropes(lambda x, p, f, at: turn(x, -p[:, None] * f))),
    Bug("rope-forgotten", "layers.0.attn.q_rope", "nothing is rotated",
        "a bag of words: the order of the prompt makes no difference",
        "rotate queries and keys by their positions before the scores",
        taps=ropes(lambda x, p, f, at: x)),
    Bug("rope-forgotten-on-keys", "layers.0.attn.k_rope", "queries are rotated, keys are not",
        "gibberish after a few tokens",
        "rotate the keys too, each by its own position, before they enter the cache",
        taps={"attn.k_rope": lambda at, right: at["attn.k"]}),
    Bug("rope-twice", "layers.0.attn.q_rope", "queries and keys are rotated twice",
        "gibberish after a few tokens",
        "rotate once, before the keys enter the cache",
        taps=ropes(lambda x, p, f, at: turn(turn(x, p[:, None] * f), p[:, None] * f))),
    Bug("rope-wrong-exponent", "layers.0.attn.q_rope", "frequencies are theta^(-i/d) instead of theta^(-2i/d)",
        "fluent for a few tokens, then gibberish",
        "pair i turns by p * theta^(-2i/d), i from 0 to d/2 - 1",
        taps=ropes(lambda x, p, f, at: turn(x, p[:, None] * np.sqrt(f)))),
    Bug("rope-exponent-doubled", "layers.0.attn.q_rope", "frequencies are theta^(-4i/d) instead of theta^(-2i/d)",
        "fluent for a few tokens, then gibberish",
        "pair i turns by p * theta^(-2i/d); where the loop counts 0, 2, 4, ... the 2 is in it already",
        taps=ropes(lambda x, p, f, at: turn(x, p[:, None] * f * f))),
    Bug("rope-integer-division", "layers.0.attn.q_rope",
        "the exponent 2i/d is an integer division, so that every pair turns by the position itself",
        "gibberish after a few tokens",
        "divide as floating-point numbers: theta^(-2i/(float)d)",
        taps=ropes(lambda x, p, f, at: turn(x, p[:, None] * np.ones_like(f)))),
    Bug("rope-frequency-over-dim", "layers.0.attn.q_rope", "frequencies are theta^(-2i/D), over the model's width",
        "fluent for a few tokens, then gibberish",
        "pair i turns by p * theta^(-2i/d), with d the width of one head",
        taps=ropes(lambda x, p, f, at: turn(x, p[:, None] * frequencies(at, 2 * pairs(at) / at.config.dim)))),
    Bug("rope-frequency-not-modulo", "layers.0.attn.q_rope",
        "the index of the frequency runs on over the heads instead of starting again at each",
        "the first head is right, the others lose the order of the text",
        "take the index modulo d: each head has the same frequencies",
        taps=ropes(lambda x, p, f, at: turn(x, p[:, None] * frequencies(
            at, np.arange(len(x))[:, None, None] + 2 * pairs(at) / at.config.head_dim)))),
    Bug("rope-frequency-over-heads", "layers.0.attn.q_rope",
        "the index of the frequency runs on over the heads, and is divided by the model's width: theta^(-i/D)",
        "fluent for a few tokens, then gibberish",
        "pair i of each head turns by p * theta^(-2i/d): take the index modulo d, and divide by d",
        taps=ropes(lambda x, p, f, at: turn(x, p[:, None] * frequencies(
            at, (np.arange(len(x))[:, None, None] * at.config.head_dim + 2 * pairs(at)) / at.config.dim)))),
    Bug("rope-pairs-from-one", "layers.0.attn.q_rope", "pairs are counted from 1: frequencies are theta^(-2(i+1)/d)",
        "fluent for a few tokens, then gibberish",
        "the first pair turns by the position itself: i runs from 0 to d/2 - 1",
        taps=ropes(lambda x, p, f, at: turn(x, p[:, None] * frequencies(
            at, 2 * (pairs(at) + 1) / at.config.head_dim)))),
    Bug("rope-overwritten", "layers.0.attn.q_rope",
        "the first number of a pair is overwritten before the second is computed from it",
        "gibberish after a few tokens",
        "keep both numbers of the pair before you write either",
        taps=ropes(lambda x, p, f, at: turn_overwriting(x, p[:, None] * f))),
    Bug("rope-tables-in-pair-order", "layers.0.attn.q_rope",
        "tables in pair order (each frequency twice in a row) are used with halves",
        "gibberish after a few tokens",
        "halves need the frequencies once through, and then again: concatenate, do not repeat_interleave",
        taps=ropes(lambda x, p, f, at: turn_apart(
            x, p[:, None] * f[pairs(at) // 2], p[:, None] * f[(pairs(at) + len(f)) // 2]))),
    Bug("rope-tables-in-halves-order", "layers.0.attn.q_rope",
        "tables for halves (the frequencies once through, and then again) are used with neighbours",
        "gibberish after a few tokens",
        "neighbours need each frequency twice in a row: repeat_interleave, do not concatenate",
        taps=ropes(lambda x, p, f, at: turn_apart(
            x, p[:, None] * f[2 * pairs(at) % len(f)], p[:, None] * f[(2 * pairs(at) + 1) % len(f)]))),
    Bug("rope-some-heads", "layers.0.attn.q_rope", "only the first G of the query heads are rotated",
        "models with grouped keys turn to gibberish, others are right",
        "rotate all H query heads: the loop over keys ends sooner than the loop over queries",
        taps={"attn.q_rope": lambda at, right: np.where(
            np.arange(len(right))[:, None, None] < at.config.n_kv_heads, right, at["attn.q"])}),
    Bug("rope-by-head", "layers.0.attn.q_rope", "the angle comes from the head's number, not from the position",
        "a bag of words: the order of the prompt makes no difference",
        "rotate along the axis of positions: look at which axis comes first",
        taps=ropes(lambda x, p, f, at: turn(x, np.arange(len(x))[:, None, None] * f))),
    Bug("queries-too-far", "layers.0.attn.q_rope",
        "queries are rotated as many positions too far as there are new tokens",
        "fluent at first, worse the longer the prompt",
        "read the offset before the cache is updated, not after",
        taps={"attn.q_rope": lambda at, right: turn(at["attn.q"], (at.positions + len(at.positions))[:, None].astype(
            at.dtype) * frequencies(at, 2 * pairs(at) / at.config.head_dim))}),
    *(Bug(f"theta-{theta:g}", "layers.0.attn.q_rope", f"rope_theta is {theta:,.0f}",
          "right at the start, worse the longer the text",
          "read rope_theta from the configuration: 10,000 in Llama 1 and 2, 1,000,000 in Code Llama",
          change=setting("rope_theta", theta)) for theta in (1e4, 5e5, 1e6)),
    Bug("positions-from-one", "layers.0.attn.q_rope", "positions start at 1",
        "none in the logits (only distances count), but no intermediate can be compared",
        "the first token, BOS, has position 0",
        taps=ropes(lambda x, p, f, at: turn(x, (p + 1)[:, None] * f))),
    Bug("positions-restart", "layers.0.attn.q_rope", "positions start at 0 again after what is in the cache",
        "the prompt is right, what is generated after it is gibberish",
        "start at the number of tokens in the cache",
        taps=ropes(lambda x, p, f, at: turn(x, (p - p[0])[:, None] * f))),
    Bug("frequencies-float16", "layers.0.attn.q_rope", "rotary frequencies are rounded to float16",
        "right at the start, worse over thousands of tokens",
        "keep the table of frequencies in float32: model.half() rounds it, loading in float16 does not",
        taps=ropes(lambda x, p, f, at: turn(x, p[:, None] * on_grid(f, np.float16))), subtle=True),
    Bug("frequencies-bfloat16", "layers.0.attn.q_rope", "rotary frequencies are rounded to bfloat16",
        "right at the start, worse over hundreds of tokens",
        "keep the table of frequencies in float32: model.to(bfloat16) rounds it, loading in bfloat16 does not",
        taps=ropes(lambda x, p, f, at: turn(x, p[:, None] * on_grid(f, ml_dtypes.bfloat16))), subtle=True),
    Bug("angles-float16", "layers.0.attn.q_rope", "positions times frequencies are computed in float16",
        "worse over hundreds of tokens: at position 2,000 an angle is off by up to half a radian",
        "compute angles, cosines and sines in float32, whatever the model's type",
        taps=ropes(lambda x, p, f, at: turn(x, on_grid(on_grid(p, np.float16)[:, None] * on_grid(f, np.float16),
                                                       np.float16))), subtle=True),
    Bug("angles-bfloat16", "layers.0.attn.q_rope", "positions times frequencies are computed in bfloat16",
        "worse after a few dozen tokens; positions above 256 are no longer all different",
        "compute angles, cosines and sines in float32, whatever the model's type",
        taps=ropes(lambda x, p, f, at: turn(x, on_grid(on_grid(p, ml_dtypes.bfloat16)[:, None]
                                                       * on_grid(f, ml_dtypes.bfloat16), ml_dtypes.bfloat16))),
        subtle=True),

    # attention
    Bug("scale-sqrt-dim", "layers.0.attn.scores", "scores are divided by sqrt(D)",
        "vague text: attention is spread too evenly",
        "divide by sqrt(d), the width of one head",
        taps={"attn.scores": lambda at, right: at.scores(scale=1 / math.sqrt(at.config.dim))}),
    Bug("scale-forgotten", "layers.0.attn.scores", "scores are not divided by sqrt(d)",
        "repetition: attention locks on single tokens",
        "divide by sqrt(d), the width of one head",
        taps={"attn.scores": lambda at, right: at.scores(scale=1)}),
    Bug("scale-by-width", "layers.0.attn.scores", "scores are divided by d",
        "vague text: attention is spread too evenly",
        "divide by sqrt(d), not by d",
        taps={"attn.scores": lambda at, right: at.scores(scale=1 / at.config.head_dim)}),
    Bug("mask-missing", "layers.0.attn.scores", "there is no causal mask",
        "a prompt gives other logits at once than token by token",
        "a token at position p sees positions 0 to p only",
        taps={"attn.scores": lambda at, right: at.scores(mask=lambda p, s: s >= 0)}),
    Bug("mask-sees-next", "layers.0.attn.scores", "the mask is off by one: each token sees the next one",
        "a prompt gives other logits at once than token by token; a perplexity too good to be true",
        "position p sees s <= p, not s <= p + 1",
        taps={"attn.scores": lambda at, right: at.scores(mask=lambda p, s: p + 1 >= s)}),
    Bug("mask-hides-itself", "layers.0.attn.scores", "the mask is off by one: a token does not see itself",
        "nonsense; NaN at the first position where blocked scores are -infinity",
        "position p sees s <= p, not s < p",
        taps={"attn.scores": lambda at, right: at.scores(mask=lambda p, s: p > s, blocked=np.finfo(np.float32).min)}),
    Bug("mask-skipped-with-cache", "layers.0.attn.scores", "the mask is skipped when the cache holds something",
        "right at once and token by token, wrong when a second chunk has several tokens",
        "compare positions, whatever is cached: the query's position >= the key's",
        taps={"attn.scores": lambda at, right: at.scores(mask=lambda p, s: (s >= 0) if p[0] else p >= s)}),
    Bug("mask-ignores-cache", "layers.0.attn.scores",
        "the mask counts rows from 0 although the cache holds earlier positions",
        "right at once, wrong after a cached prompt: new tokens see only its beginning",
        "compare positions: the query's row number plus what is cached >= the key's",
        taps={"attn.scores": lambda at, right: at.scores(mask=lambda p, s: p - p[0] >= s)}),
    Bug("cache-ignored", "layers.0.attn.scores", "new tokens do not see those in the cache",
        "right at once, forgetful in chat: each new token stands alone",
        "attend over the cached keys and values and the new ones together",
        taps={"attn.scores": lambda at, right: at.scores(mask=lambda p, s: (p >= s) & (s >= p[0]))}),
    Bug("mask-with-zeros", "layers.0.attn.scores", "blocked scores are 0, not -infinity",
        "a prompt gives other logits at once than token by token; attention is spread over the future",
        "write -infinity into blocked scores before softmax; a product with 0 and 1 does not block",
        taps={"attn.scores": lambda at, right: at.scores(blocked=0.0)}),
    Bug("cache-slot-late", "layers.0.attn.scores", "keys and values are written one slot too far",
        "vague text: the newest token is not seen, and slot 0 is empty",
        "position p belongs into slot p: write before you add to the length",
        taps=caches(one_slot_late)),
    Bug("cache-slot-early", "layers.0.attn.scores",
        "keys and values are written one slot too early, once the cache holds something",
        "a prompt is right, what is generated after it is vague: the newest slot is empty",
        "position p belongs into slot p: the first free slot is the number of tokens in the cache",
        taps=caches(one_slot_early)),
    Bug("cache-shared-by-layers", "layers.0.attn.scores", "all layers share one cache",
        "a prompt is right, what is generated after it is nonsense",
        "each layer needs a cache of its own: look at the layer's offset",
        taps=caches(of_last_layer), across=True),
    Bug("cache-overwritten", "layers.0.attn.scores", "each call writes into the cache from slot 0 on",
        "a prompt is right, what is generated after it forgets it",
        "write behind what is there: from the number of tokens in the cache on",
        taps=caches(from_slot_zero)),
    Bug("cache-before-rope", "layers.0.attn.scores",
        "keys enter the cache before they are rotated, and are read from it",
        "gibberish after a few tokens",
        "rotate first, then write to the cache; or rotate all keys when they are read",
        taps=caches(unturned)),
    Bug("cache-past-before-rope", "layers.0.attn.scores",
        "keys enter the cache before they are rotated, and only the newest are rotated when read",
        "a prompt is right, what is generated after it is gibberish",
        "rotate first, then write to the cache; or rotate all keys when they are read",
        taps=caches(past_unturned)),
    Bug("cache-turned-again", "layers.0.attn.scores",
        "keys in the cache are rotated already, and rotated again when read",
        "a prompt is right, what is generated after it is gibberish",
        "rotate each key once: before it enters the cache, or when it is read",
        taps=caches(turned_again)),
    *(Bug(f"cache-{name}", "layers.0.attn.scores", f"keys and values are kept in {name}",
          "hardly visible: a little worse over long texts",
          f"nothing, if it is meant; else keep the cache in the type of the rest{hint}",
          taps=caches(lambda at, x, _, grid=grid: on_grid(x, grid)), subtle=True, rounds_to=name)
      for name, grid, hint in (("float16", np.float16, ""), ("bfloat16", ml_dtypes.bfloat16, ""))),
    Bug("cache-int8", "layers.0.attn.scores", "keys and values are kept in 8 bits, each vector with one scale",
        "a little worse over long texts",
        "nothing, if it is meant; else keep the cache in the type of the rest",
        taps=caches(lambda at, x, name: to_int8(x)), subtle=True),
    Bug("key-offset-without-group", "layers.0.attn.scores",
        "query head h reads keys and values at offset h * d of a slot that holds only G heads",
        "models with grouped keys write nonsense, others are right",
        "the offset is (h / (H / G)) * d: divide the number of the query head by the size of its group",
        taps={"attn.scores": lambda at, right: at.scores(
                  keys=without_group(at, at.seen("attn.k_rope")), heads=np.arange(at.config.n_heads)),
              "attn.heads": lambda at, right: at["attn.probs"] @ without_group(at, at.seen("attn.v"))}),
    Bug("heads-round-robin", "layers.0.attn.scores", "query head h uses key head h % G (round-robin)",
        "models with grouped keys write nonsense, others are right",
        "query head h uses key head h // (H / G): repeat each key head in a block (repeat_interleave, not tile)",
        taps={"attn.scores": lambda at, right: at.scores(heads=np.arange(at.config.n_heads) % at.config.n_kv_heads),
              "attn.heads": lambda at, right: weighted(at, np.arange(at.config.n_heads) % at.config.n_kv_heads)}),
    Bug("heads-first-only", "layers.0.attn.scores", "every query head uses key head 0",
        "models with grouped keys write nonsense, others are right",
        "query head h uses key head h // (H / G)",
        taps={"attn.scores": lambda at, right: at.scores(heads=0 * at.key_heads),
              "attn.heads": lambda at, right: weighted(at, 0 * at.key_heads)}),
    Bug("softmax-over-queries", "layers.0.attn.probs", "softmax runs over the queries, not the keys",
        "nonsense; rows of probabilities do not sum to 1",
        "normalise each query's row: the last axis of (heads, queries, keys)",
        taps=softmax_over(-2)),
    Bug("softmax-over-heads", "layers.0.attn.probs", "softmax runs over the heads, not the keys",
        "nonsense; rows of probabilities do not sum to 1",
        "normalise each query's row: the last axis of (heads, queries, keys)",
        taps=softmax_over(0)),
    Bug("softmax-over-cache", "layers.0.attn.probs",
        "softmax runs over the whole cache: slots that hold nothing score 0, and take their share",
        "vague text, the more so the emptier the cache; rows of probabilities do not sum to 1",
        "softmax over the slots that are filled: 0 to p",
        taps={"attn.probs": softmax_over_cache}),
    Bug("buffer-not-cleared", "layers.0.attn.heads",
        "heads are added to a buffer that still holds the normalised input",
        "nonsense from the first token",
        "set the buffer to zero before you add values to it",
        taps={"attn.heads": stale_heads},
        change=lambda run: run if run.config.n_heads * run.config.head_dim == run.config.dim else None),
    Bug("merged-without-transpose", "layers.0.attn.out",
        "(heads, T, d) is reshaped to (T, heads * d) without a transposition",
        "right for a single token, nonsense for a prompt",
        "swap the first two axes, then reshape",
        taps={"attn.out": lambda at, right: at["attn.heads"].reshape(len(right), -1) @ at.weight("attn", "wo")}),
    Bug("wo-transposed", "layers.0.attn.out", "wo, (out, in) on disk, is read as (in, out)",
        "nonsense from the first token; no complaint about shapes, since wo is square",
        "y[o] = sum over i of wo[o * n_in + i] * x[i]",
        change=layers(lambda layer, c: {"wo": misread(layer["attn"]["wo"])})),
    Bug("residual-forgotten-attention", "layers.0.x_attn", "the input is not added after attention",
        "nonsense from the first token",
        "x = x + attention(norm(x))",
        taps={"x_attn": lambda at, right: at["attn.out"]}),
    Bug("attention-added-twice", "layers.0.x_attn", "attention's output is added twice",
        "worse text, or nonsense",
        "x = x + attention(norm(x)), once: look for a += inside the function and another after it",
        taps={"x_attn": lambda at, right: right + at["attn.out"]}),
    Bug("residual-added-twice", "layers.0.x_attn", "the input is added twice, after attention and after feed-forward",
        "nonsense: the residual stream doubles with every part",
        "x = x + attention(norm(x)), once: look for a += inside the function and another after it",
        taps={"x_attn": lambda at, right: right + at.x, "x_ffn": lambda at, right: right + at["x_attn"]}),
    Bug("residual-from-norm", "layers.0.x_attn",
        "after attention and feed-forward, the normalised input is added, not the input",
        "nonsense: the residual stream is replaced in every layer",
        "keep x from before the norm: x = x + attention(norm(x))",
        taps={"x_attn": lambda at, right: at["attn_norm"] + at["attn.out"],
              "x_ffn": lambda at, right: at["ffn_norm"] + at["ffn.out"]}),

    # feed-forward
    Bug("ffn-reads-input", "layers.0.ffn_norm",
        "the feed-forward reads the layer's input, beside attention, not after it",
        "nonsense: this is another architecture (parallel layers)",
        "first x = x + attention(norm(x)), then x = x + feed_forward(norm(x))",
        taps={"ffn_norm": lambda at, right: nl.rms_norm(at.x, at.weight("ffn_norm"), at.config.norm_eps)}),
    Bug("gate-up-swapped", "layers.0.ffn.gate", "gate and up are swapped",
        "dull or slightly wrong text: silu(x up) * (x gate) looks much like the right thing",
        "silu goes on gate_proj (w1); up_proj is w3, down_proj is w2",
        change=layers(lambda layer, c: {"gate": layer["ffn"]["up"], "up": layer["ffn"]["gate"]})),
    Bug("gelu", "layers.0.ffn.silu", "GELU is used for SiLU",
        "fluent but worse: the two curves differ by at most 0.2",
        "silu(x) = x / (1 + exp(-x))",
        taps={"ffn.silu": lambda at, right: gelu(at["ffn.gate"])}),
    Bug("gelu-tanh", "layers.0.ffn.silu", "GELU (its tanh approximation) is used for SiLU",
        "fluent but worse: the two curves differ by at most 0.2",
        "silu(x) = x / (1 + exp(-x))",
        taps={"ffn.silu": lambda at, right: gelu_tanh(at["ffn.gate"])}),
    Bug("relu", "layers.0.ffn.silu", "ReLU is used for SiLU",
        "worse text, often repetition",
        "silu(x) = x / (1 + exp(-x))",
        taps={"ffn.silu": lambda at, right: np.maximum(at["ffn.gate"], 0)}),
    Bug("sigmoid", "layers.0.ffn.silu", "the sigmoid is used for SiLU",
        "nonsense from the first token",
        "silu(x) = x * sigmoid(x): do not forget the x",
        taps={"ffn.silu": lambda at, right: 1 / (1 + np.exp(-at["ffn.gate"]))}),
    Bug("activation-forgotten", "layers.0.ffn.silu", "no activation is applied to the gate",
        "worse text, often repetition",
        "hidden = silu(x gate) * (x up)",
        taps={"ffn.silu": lambda at, right: at["ffn.gate"]}),
    Bug("silu-on-product", "layers.0.ffn.silu", "SiLU is applied to the product of gate and up",
        "worse text, often repetition",
        "hidden = silu(x gate) * (x up), not silu((x gate) * (x up))",
        taps={"ffn.silu": lambda at, right: at["ffn.gate"], "ffn.hidden": lambda at, right: nl.silu(right)}),
    Bug("up-forgotten", "layers.0.ffn.hidden", "the product with up is forgotten",
        "nonsense: this is the feed-forward of older models",
        "hidden = silu(x gate) * (x up)",
        taps={"ffn.hidden": lambda at, right: at["ffn.silu"]}),
    Bug("residual-forgotten-ffn", "layers.0.x_ffn", "the input is not added after the feed-forward",
        "nonsense from the first token",
        "x = x + feed_forward(norm(x))",
        taps={"x_ffn": lambda at, right: at["ffn.out"]}),
    Bug("feed-forward-added-twice", "layers.0.x_ffn", "the feed-forward's output is added twice",
        "worse text, or nonsense",
        "x = x + feed_forward(norm(x)), once",
        taps={"x_ffn": lambda at, right: right + at["ffn.out"]}),
    Bug("residual-without-attention", "layers.0.x_ffn",
        "the feed-forward's output is added to the layer's input, so that attention's is lost",
        "nonsense: attention reaches the stream through the feed-forward only",
        "x = x + attention(norm(x)), then x = x + feed_forward(norm(x)): keep the sum",
        taps={"x_ffn": lambda at, right: at.x + at["ffn.out"]}),
    Bug("one-layer-repeated", "layers.1.attn_norm", "every layer uses the weights of layer 0",
        "nonsense from the first token",
        "look at the offset of each layer's weights",
        change=lambda run: None if run.config.n_layers == 1 else replace(
            run, weights={**run.weights, "layers": [run.weights["layers"][0]] * run.config.n_layers})),

    # output
    Bug("final-norm-forgotten", "norm", "the final norm is forgotten",
        "nonsense, or very sure of the wrong token",
        "normalise once more after the last layer, before the output matrix",
        taps={"norm": lambda at, right: at.norm_input}),
    Bug("output-transposed", "logits", "the output matrix, (V, D) on disk, is read as (D, V)",
        "random tokens from all of the vocabulary",
        "logit[t] = sum over i of output[t * D + i] * x[i]",
        change=lambda run: replace(run, weights={**run.weights, "output": misread(dense(run.weights["output"]))})),
    Bug("output-tied", "logits", "the embedding is used as output matrix, though the model has its own",
        "nonsense, often the prompt's own words",
        "use lm_head.weight (output.weight) unless tie_word_embeddings is true",
        change=tied),
]


def main(arguments):
    if not arguments:
        for bug in BUGS:
            print(f"{bug.name}  ({bug.first})")
            for label, text in (("when", bug.what), ("symptom", bug.symptom), ("fix", bug.fix)):
                print(textwrap.fill(text, 100, initial_indent=f"    {label:8} ", subsequent_indent=" " * 13))
        print(f"{len(BUGS)} bugs")
        return 0
    bug = next((bug for bug in BUGS if bug.name == arguments[0]), None)
    if bug is None or len(arguments) != 2 or not arguments[1].endswith(".npz"):
        print("error: python tests/bugs.py [BUG DUMP.npz]; without arguments it lists the bugs", file=sys.stderr)
        return 2
    text, folder = "Once upon a time", Path(__file__).resolve().parents[1] / "weights" / "fairytales"
    tokens = tuple(nl.Tokenizer(folder / "tokenizer.model").encode(text))
    trace = compute(Run(tokens, *nl.load(folder), text=text, tokenizer=folder / "tokenizer.model"), bug)
    if trace is None:
        print(f"error: {bug.name} changes nothing in this model", file=sys.stderr)
        return 2
    try:
        np.savez(arguments[1], **trace)
    except OSError as error:
        print(f"error: {arguments[1]} cannot be written: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


def start(main):
    """Run a command line: Ctrl-C just ends it, and what cannot be written or went wrong is no verdict: 2."""
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130
    except OSError as error:                              # a full disk, a closed pipe
        print(f"error: the result cannot be written: {error.strerror or error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 2
    except Exception:                                     # a mistake in this program must not look like a verdict
        traceback.print_exc()
        status = 2
    sys.exit(status)


if __name__ == "__main__":
    start(main)
