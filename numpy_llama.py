# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy>=2,<3", "safetensors>=0.4,<1", "ml_dtypes>=0.5,<1", "sentencepiece>=0.2,<1",
#                 "threadpoolctl>=3,<4", "tqdm>=4.60,<5"]
# ///
"""Llama 1 and 2 in NumPy: every step between a prompt and its next token, with its place in the papers.

    x = embedding[tokens]                             for each token (a piece of text) its row of D numbers
    for each layer:
        x = x + self_attention(rms_norm(x))           a token gathers what it needs from itself and those before it
        x = x + feed_forward(rms_norm(x))             and works on what it has, alone
    logits = rms_norm(x) @ output                     a score for every token that could come next

Sections 1 to 7 are the model, in plain NumPy, to be read from top to bottom. Functions called check_... are defined
further down: each raises InputError if what it is given is unfit.

    the model         1 config   2 primitives   3 taps   4 positions   5 attention   6 forward   7 generation
    around it         8 tokenizer   9 objective   10 sizes
    behind the model  11 long prompts   12 weights   13 lazy weights   14 command line

Two sections give up plainness: 11 for speed (a long prompt on all cores), 13 for memory (models that do not fit).
Float32 by default, float64 on request; one sequence at a time: a batch is a for loop. The reference for the model's
numbers is Hugging Face's LlamaForCausalLM in float32 on the CPU. No training, no quantisation, no Llama 3.

Size letters, the same everywhere. (T, D), (D,) -> (T, D) means: arrays of these shapes go in, and this one comes out.

    T tokens of this call    S tokens seen so far: these T, and those kept in a cache (section 5)
    V vocabulary             D model width           F feed-forward width     L layers
    H query heads            G key/value heads       d head width (section 5)

Papers: LLaMA (arXiv 2302.13971), Llama 2 (2307.09288), RMSNorm (1910.07467), RoPE (2104.09864),
attention (1706.03762), multi-query attention (1911.02150), GQA (2305.13245), GLU variants (2002.05202).
"""
import math
from dataclasses import asdict, dataclass

import numpy as np


class InputError(ValueError):
    """The input is refused, as a wrong number is worse than none; the message is one sentence for a person."""


# ---- 1. Config -----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Config:
    """The numbers that define a Llama (D, L and H: LLaMA, table 2).

    Raises InputError for a number that is not positive, for an odd d (section 4 needs pairs), if G does not divide H,
    and if d is not given and H does not divide D.
    """
    dim: int                     # D
    n_layers: int                # L
    n_heads: int                 # H
    n_kv_heads: int              # G: as many as H, or fewer (section 5)
    hidden_dim: int              # F
    vocab_size: int              # V
    max_seq_len: int = 4096      # the context: how many tokens it can see; 4096 is Llama 2's
    norm_eps: float = 1e-5       # keeps rms_norm from dividing by 0; 1e-5 is Llama 2's
    rope_theta: float = 10000.0  # RoPE's base (section 4)
    head_dim: int = None         # d: D / H unless given

    def __post_init__(self):
        check_config(self)
        if self.head_dim is None:
            object.__setattr__(self, "head_dim", self.dim // self.n_heads)       # how a frozen dataclass is set


# The weights are a dict. Its `layers` is a list with a dict for each layer: the arguments of `block` (section 6). In
# each, attn and ffn are dicts again: arguments of `self_attention` and `feed_forward`. Matrices are (in, out): x @ w.
#
#     embedding (V, D)   norm (D,), rms_norm's weight after the last layer   output (D, V)
#     layers[i]: attn_norm (D,)   attn: wq (D, H*d)  wk, wv (D, G*d)  wo (H*d, D)
#                ffn_norm (D,)    ffn: gate, up (D, F)  down (F, D)


# ---- 2. Primitives -------------------------------------------------------------------------------------------

def softmax(x):
    """Numbers to probabilities along the last axis: (..., n) -> (..., n)."""
    e = x - x.max(axis=-1, keepdims=True)                 # the largest becomes 0: exp cannot overflow
    np.exp(e, out=e)                                      # the exponential, in place; the division too
    e /= e.sum(axis=-1, keepdims=True)
    return e


def silu(x):
    """x * sigmoid(x) = x / (1 + e^-x), also called Swish with beta = 1 (GLU variants, section 1)."""
    with np.errstate(over="ignore"):                      # exp(-x) = inf does no harm: x / inf = 0
        return x / (1 + np.exp(-x))


def rms_norm(x, weight, eps):
    """Divide each row by its root mean square, scale each column: (T, D), (D,) -> (T, D) (RMSNorm, equation 4)."""
    mean_square = np.mean(x * x, axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + eps) * weight


# ---- 3. Taps -------------------------------------------------------------------------------------------------
#
# The model passes its intermediate values through a tap, and goes on with what the tap returns:
#
#     x = tap("norm", rms_norm(x, weight, eps))
#
# So a tap can watch a value, record it, or change it, and the model's code stays the same.

def ignore(name, x):
    """The tap that does nothing."""
    return x


class Trace(dict):
    """A tap that records what passes through it under its name, in order of computation."""

    def __call__(self, name, x):
        if name in self:
            raise KeyError(f"{name} is recorded already: use a new Trace for each forward pass")
        self[name] = x
        return x


def under(prefix, tap):
    """The same tap, with `prefix.` before every name: "q" becomes "attn.q"."""
    if tap is ignore:                                     # no names to build: faster
        return ignore
    return lambda name, x: tap(f"{prefix}.{name}", x)


# ---- 4. Positions --------------------------------------------------------------------------------------------
#
# Attention (section 5) runs as H heads side by side. In each, a token's query (what it looks for) meets the key (what
# it is found by) of every token so far, in a dot product of d numbers. To tell where tokens stand, queries and keys are
# read as d/2 pairs, i with i + d/2: points in a plane, each turned by an angle that grows with the position: RoPE,
# rotary position embedding.

def rope_cos_sin(positions, head_dim, theta, dtype=np.float32):
    """Cosine and sine of the angle by which each pair turns: (T,) -> (T, d/2), (T, d/2).

    Pair i = 0, 1, ... turns by its frequency, theta^(-2i/d) radians, per position (RoPE, section 3.2.2, has i from 1).
    """
    # Powers are computed in float64, as float32 powers differ from library to library, and rounded where Hugging Face
    # rounds: the last bit of a frequency moves a cosine at position 4095 by up to 2.5e-4.
    exponents = np.arange(0, head_dim, 2, dtype=dtype) / head_dim
    frequencies = 1 / np.power(theta, exponents, dtype=np.float64).astype(dtype)
    angles = np.asarray(positions)[:, None].astype(dtype) * frequencies          # (T, 1) * (d/2,) -> (T, d/2)
    return np.cos(angles), np.sin(angles)


def rope(x, cos, sin):
    """Turn each pair (x_i, x_{i + d/2}) by its angle: (heads, T, d), (T, d/2), (T, d/2) -> (heads, T, d).

    Position enters the dot product of a query at m and a key at n only as m - n: turning both back by n's angles
    leaves it as it is, and then the key is not turned at all, and the query as if it stood at position m - n.

    These are the pairs of Hugging Face's files; the paper and Meta's files pair neighbours, (x_{2i}, x_{2i+1}). The two
    differ only in the order of each head's columns in wq and wk (section 5); `load` (section 12) reorders Meta's.
    """
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]                   # (heads, T, d/2); cos and sin serve every head
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


# ---- 5. Attention --------------------------------------------------------------------------------------------
#
# Products with wq, wk and wv turn each token's row into H queries, G keys and G values (what it hands over). No token
# looks at a later one, so a new token leaves all earlier rows as they are, in every layer, and needs only their keys
# and values: a cache keeps those. To save room, several heads may share them.

def causal_mask(positions, n_seen):
    """True where a token may look, up to and including its own position: (T,) -> (T, S). `n_seen` is S."""
    return positions[:, None] >= np.arange(n_seen)


def split_heads(x, head_dim):
    """(T, heads*d) -> (heads, T, d)"""
    return x.reshape(len(x), -1, head_dim).swapaxes(0, 1)


def merge_heads(x):
    """(heads, T, d) -> (T, heads*d)"""
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)


def attention(q, k, v, mask, tap=ignore):
    """In each head softmax(q k^T / sqrt(d)) v: the values, weighted by how well their keys match the query.

    (H, T, d), (G, S, d), (G, S, d), (T, S) -> (H, T, d) (Attention, section 3.2.1)

    Query head h uses key/value head h // (H / G): G = H is multi-head attention, G = 1 multi-query, anything between
    them grouped-query attention (GQA, section 2.2). With H = 8 and G = 2, heads 0 to 3 use key/value head 0: they are
    neighbours, so `reshape` makes one matrix of their 4·T rows, and one product serves all four.
    """
    H, T, d = q.shape
    G, S, _ = k.shape
    scores = q.reshape(G, (H // G) * T, d) @ k.swapaxes(1, 2)         # (G, H/G * T, S)
    scores = scores.reshape(H, T, S)
    scores /= math.sqrt(d)                                # random q·k ~ sqrt(d): unscaled, one key gets most weight
    np.copyto(scores, -np.inf, where=~mask)               # in every head, the future gets probability 0
    probs = tap("probs", softmax(tap("scores", scores)))
    averages = probs.reshape(G, (H // G) * T, S) @ v      # (G, H/G * T, d)
    return tap("heads", averages.reshape(H, T, d))


class KVCache:
    """The turned keys and the values of the tokens seen so far, for one layer: two arrays (G, max_len, d)."""

    def __init__(self, config, max_len=None, dtype=np.float32):
        self.max_len = config.max_seq_len if max_len is None else max_len
        self.k = np.zeros((config.n_kv_heads, self.max_len, config.head_dim), dtype)
        self.v = np.zeros((config.n_kv_heads, self.max_len, config.head_dim), dtype)
        self.length = 0

    def extend(self, k, v):
        """Append T keys and values, return all: (G, T, d), (G, T, d) -> (G, S, d), (G, S, d).

        Raises InputError, and changes nothing, if they do not fit.
        """
        end = self.length + k.shape[1]
        if end > self.max_len:
            raise InputError(f"the cache is full: {end} tokens do not fit in {self.max_len}")
        self.k[:, self.length:end] = k
        self.v[:, self.length:end] = v
        self.length = end
        return self.k[:, :end], self.v[:, :end]


def self_attention(x, wq, wk, wv, wo, cos, sin, mask, cache=None, tap=ignore):
    """Project, turn, remember, attend, project back: (T, D) -> (T, D) (Attention, section 3.2.2)."""
    head_dim = 2 * cos.shape[-1]                          # cos has a column for each pair of numbers
    q = tap("q", split_heads(x @ wq, head_dim))           # (H, T, d)
    k = tap("k", split_heads(x @ wk, head_dim))           # (G, T, d)
    v = tap("v", split_heads(x @ wv, head_dim))           # (G, T, d)
    q = tap("q_rope", rope(q, cos, sin))
    k = tap("k_rope", rope(k, cos, sin))
    if cache is not None:
        k, v = cache.extend(k, v)                         # (G, S, d)
    heads = attention(q, k, v, mask, tap)
    return tap("out", merge_heads(heads) @ wo)            # (T, H*d) @ (H*d, D)


# ---- 6. The model --------------------------------------------------------------------------------------------

def feed_forward(x, gate, up, down, tap=ignore):
    """SwiGLU: (silu(x @ gate) * (x @ up)) @ down, (T, D) -> (T, D) (GLU variants, equation 6)."""
    opened = tap("silu", silu(tap("gate", x @ gate)))     # (T, F): what each number of x @ up is multiplied by
    hidden = tap("hidden", opened * tap("up", x @ up))
    return tap("out", hidden @ down)


def block(x, attn_norm, attn, ffn_norm, ffn, cos, sin, mask, eps, cache=None, tap=ignore):
    """One layer, (T, D) -> (T, D): each part reads x normalised and adds to x itself (pre-norm: LLaMA, section 2.2)."""
    h = tap("attn_norm", rms_norm(x, attn_norm, eps))
    h = self_attention(h, **attn, cos=cos, sin=sin, mask=mask, cache=cache, tap=under("attn", tap))
    x = tap("x_attn", x + h)
    h = tap("ffn_norm", rms_norm(x, ffn_norm, eps))
    h = feed_forward(h, **ffn, tap=under("ffn", tap))
    return tap("x_ffn", x + h)


def forward(tokens, weights, config, cache=None, tap=ignore):
    """For each token, one score (logit) for every token that could come next: (T,) -> (T, V).

    `cache` is a list with a KVCache for each layer: the tokens continue those that it holds, and are added to it.
    Raises InputError for ids outside the vocabulary and for more tokens than the context or the cache holds.
    """
    tokens = check_tokens(tokens, config.vocab_size)      # an array of integers now
    start = cache[0].length if cache else 0               # after a completed call, all layers hold the same number
    n_seen = start + len(tokens)
    if n_seen > config.max_seq_len:
        raise InputError(f"{n_seen} tokens do not fit in the context of {config.max_seq_len}")
    positions = np.arange(start, n_seen)
    dtype = weights["norm"].dtype                         # to compute in; the embedding may have another (section 12)
    cos, sin = rope_cos_sin(positions, config.head_dim, config.rope_theta, dtype)
    mask = causal_mask(positions, n_seen)

    x = tap("embedding", weights["embedding"][tokens].astype(dtype, copy=False))
    caches = cache or [None] * config.n_layers
    for i, layer in enumerate(weights["layers"]):
        x = block(x, **layer, cos=cos, sin=sin, mask=mask, eps=config.norm_eps, cache=caches[i],
                  tap=under(f"layers.{i}", tap))
    x = tap("norm", rms_norm(x, weights["norm"], config.norm_eps))
    return tap("logits", x @ weights["output"])


# ---- 7. Generation -------------------------------------------------------------------------------------------

def next_token_probs(logits, temperature=1.0, top_k=0, top_p=1.0):
    """The distribution to draw the next token from: (V,) -> (V,), in float64.

    Temperature divides the logits (0: all on the most likely token); top_k keeps that many of the most likely tokens,
    and any that tie with the last of them (0: all); top_p then keeps the smallest set of most likely tokens whose
    probabilities add up to at least top_p (1: all).
    """
    check_sampling(temperature, top_k, top_p)
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 1:
        raise InputError(f"one row of logits is needed, such as the last, [-1], not {logits.shape}")
    if not np.isfinite(logits).all():
        raise InputError("the logits are not finite")
    if temperature == 0:
        probs = np.zeros(len(logits))
        probs[np.argmax(logits)] = 1
        return probs
    with np.errstate(over="ignore"):                      # a tiny temperature sends all but the largest, now 0, to -inf
        logits = (logits - np.max(logits)) / temperature
    if 0 < top_k < len(logits):
        kth_largest = np.partition(logits, -top_k)[-top_k]
        logits[logits < kth_largest] = -np.inf
    probs = softmax(logits)
    if top_p < 1:
        # Sorting all V is slow, so tokens below (1 - top_p) / V are left out first. They are at most V, and so sum
        # to less than 1 - top_p: the others, all more likely, reach top_p without them.
        likely = np.flatnonzero(probs >= (1 - top_p) / len(probs))
        order = likely[np.argsort(-probs[likely], kind="stable")]
        before = np.cumsum(probs[order]) - probs[order]   # what those ranked above add up to
        kept = order[before < top_p]                      # while that is not enough, one more is needed
        nucleus = np.zeros(len(probs))
        nucleus[kept] = probs[kept]
        probs = nucleus / np.sum(nucleus)
    return probs


def sample(logits, rng, temperature=1.0, top_k=0, top_p=1.0):
    """Draw a token id: (V,) -> int. Temperature 0 takes the most likely one, and needs no random number."""
    probs = next_token_probs(logits, temperature, top_k, top_p)
    if temperature == 0:
        return int(np.argmax(probs))
    sums = np.cumsum(probs)
    sums /= sums[-1]                                      # rounding may have left the last a little off 1
    return int(np.searchsorted(sums, rng.random(), side="right"))     # the first sum above the draw


def new_cache(weights, config, max_len):
    """A list with an empty KVCache for each layer, with room for max_len tokens."""
    return [KVCache(config, max_len, weights["norm"].dtype) for _ in range(config.n_layers)]


def generate(tokens, weights, config, max_new_tokens, rng=None, stop=(), temperature=1.0, top_k=0, top_p=1.0,
             cache=None):
    """Yield up to max_new_tokens ids; it ends with a stop id, or when the context or the cache is full.

    With a cache, the tokens continue those that it holds. The last token yielded is not in it, as it has not been
    through `forward`: begin the next `tokens` with it. Nothing is checked until a token is asked for; then the
    InputErrors of `forward` and `sample` are raised, and the one for logits that are not finite names the position.
    """
    check_sampling(temperature, top_k, top_p)
    tokens = check_tokens(tokens, config.vocab_size)
    if max_new_tokens < 1:
        return
    rng = rng or np.random.default_rng()
    cache = cache or new_cache(weights, config, min(len(tokens) + max_new_tokens - 1, config.max_seq_len))
    room = min(cache[0].max_len, config.max_seq_len) - cache[0].length - len(tokens)
    n_max = min(max_new_tokens, room + 1)                 # the last token never goes through forward: it takes no room

    logits = prefill(tokens, weights, config, cache)      # forward(..., cache)[-1], checked, in chunks (section 11)
    for n in range(1, n_max + 1):
        token = sample(logits, rng, temperature, top_k, top_p)
        yield token
        if token in stop or n == n_max:
            return
        position = cache[0].length
        logits = forward([token], weights, config, cache)[-1]
        check_finite(logits, position)                    # as `prefill` does; `sample` could not name the position


# ==== Behind the model: from here on, more than NumPy =========================================================

import argparse
import contextlib
import functools
import itertools
import json
import os
import re
import sys
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path


def check_config(config):
    """Numbers that are not positive, and heads that do not divide, are refused."""
    c = config
    for name, value in asdict(c).items():
        if name != "head_dim" or value is not None:
            check_number(name, value, label=name)
    if c.n_heads % c.n_kv_heads:
        raise InputError(f"n_kv_heads {c.n_kv_heads} does not divide n_heads {c.n_heads}")
    if c.head_dim is None and c.dim % c.n_heads:
        raise InputError(f"n_heads {c.n_heads} does not divide dim {c.dim}, and head_dim is not given")
    head_dim = c.head_dim or c.dim // c.n_heads
    if head_dim % 2:
        raise InputError(f"head_dim {head_dim} is odd: rotary embeddings turn pairs")


def check_number(name, value, label):
    """A value that the field `name` of Config cannot have is refused; the message calls it `label`."""
    kind, types, limit = "integer", (int,), 2**31
    if name in ("norm_eps", "rope_theta"):
        kind, types, limit = "number", (int, float), 1e38
    if type(value) not in types or not 0 < value < limit:
        raise InputError(f"{label} must be a positive {kind}, not {value!r}")


def check_tokens(tokens, vocab_size):
    """Token ids as an array (T,); ids outside the vocabulary are refused: NumPy would take -1 for the last one."""
    if len(tokens) == 0:
        raise InputError("there are no tokens: at least one is needed")
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise InputError(f"tokens must be a sequence of integers, not {tokens.dtype} {tokens.shape}")
    outside = tokens[(tokens < 0) | (tokens >= vocab_size)]
    if len(outside):
        raise InputError(f"token id {outside[0]} is outside the vocabulary of {vocab_size}")
    return tokens


def check_sampling(temperature, top_k, top_p):
    """Settings that mean nothing are refused."""
    if not 0 <= temperature < math.inf:
        raise InputError(f"temperature must be 0 (greedy) or a positive number, not {temperature}")
    if top_k < 0:
        raise InputError(f"top_k must be 0 (off) or a positive integer, not {top_k}")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p must be above 0 and at most 1 (off), not {top_p}")


def check_finite(logits, position):
    """Logits (T, V) or (V,) that are not finite are refused; the first row stands at `position`."""
    finite = np.isfinite(logits).all(axis=-1)
    if not finite.all():
        raise InputError(f"the logits at position {position + np.argmin(finite)} are not finite: "
                         "the weights are damaged")


def read_file(path):
    """The bytes of a file, or InputError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def check_downloaded(path, start):
    """Raise InputError if a file begins like what is found in the place of one that was not downloaded."""
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder")
    if start[:100].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise InputError(f"{path} is a web page, not the file itself: download it again")


def read_json(path):
    """The object in a JSON file, or InputError."""
    data = read_file(path)
    check_downloaded(path, data)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold a JSON object, not a {type(value).__name__}")
    return value


def read_optional_json(path):
    """The same, or {} if there is no such file."""
    return read_json(path) if path.exists() else {}


# ---- 8. Tokenizer --------------------------------------------------------------------------------------------

class Tokenizer:
    """Text to token ids and back, by the SentencePiece model that comes with the weights.

    Of two files beside it, if they are there, tokenizer_config.json says whether a text begins with <s>, and
    added_tokens.json names ids beyond the SentencePiece model.
    """

    def __init__(self, path):
        import sentencepiece                              # here, because the model itself does not need it
        data = read_file(path)
        check_downloaded(path, data)
        if not data:
            raise InputError(f"{path} is empty")
        try:
            self.sp = sentencepiece.SentencePieceProcessor(model_proto=data)
            self.bos, self.eos, self.vocab_size = self.sp.bos_id(), self.sp.eos_id(), self.sp.vocab_size()
            self.sp.id_to_piece(list(range(self.vocab_size)))                 # raises if a piece is not UTF-8
        except (RuntimeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not a SentencePiece model: {error}") from None
        if self.bos < 0 or self.eos < 0:
            raise InputError(f"{path} has no <s> or no </s>")
        folder = Path(path).parent
        self.add_bos = read_optional_json(folder / "tokenizer_config.json").get("add_bos_token") is not False
        added = read_optional_json(folder / "added_tokens.json")
        self.added = {i: name for name, i in added.items() if type(i) is int and i >= self.vocab_size}

    def encode(self, text, bos=None):
        """Text to a list of ids, with <s> in front unless `bos` or tokenizer_config.json says no.

        `<s>` inside the text is text.
        """
        if text.encode(errors="ignore").decode() != text:
            raise InputError("the text is not valid Unicode")
        if bos is None:
            bos = self.add_bos
        ids = self.sp.encode(text)
        return [self.bos, *ids] if bos else ids

    def decode(self, ids):
        """Ids to text: control tokens and padding are silent, and bytes that are not UTF-8 become U+FFFD."""
        if len(ids) == 0:
            return ""
        ids = check_tokens(ids, math.inf).tolist()        # an embedding may have more rows than there are pieces
        known = [i for i in ids if i < self.vocab_size or i in self.added]
        text = ""
        for is_piece, run in itertools.groupby(known, lambda i: i < self.vocab_size):
            ids = list(run)
            text += self.sp.decode(ids) if is_piece else "".join(self.added[i] for i in ids)
        return text


def stream_text(ids, tokenizer):
    """Yield text as ids arrive, never half a character; the pieces join to exactly tokenizer.decode(all ids)."""
    seen = []
    text = ""
    shown = 0                                             # how much of the text
    for i in ids:
        seen.append(i)
        text = tokenizer.decode(seen)
        whole = len(text.rstrip("\ufffd"))                # a character whose bytes are not all here yet
        if whole > shown:
            yield text[shown:whole]
            shown = whole
    if len(text) > shown:
        yield text[shown:]


def chat_tokens(messages, tokenizer):
    """The Llama 2 chat format: [{"role", "content"}, ...] -> token ids, as Meta's own code has it.

    <s>[INST] <<SYS>>\\n{system}\\n<</SYS>>\\n\\n{user} [/INST] {answer} </s><s>[INST] {user} [/INST]

    Each user message and its answer are one string between <s> and </s>. An optional system message comes first,
    then user and assistant take turns. Raises InputError for any other order.
    """
    turns = list(messages)
    found = ", ".join(turn["role"] for turn in turns) or "empty"
    system = ""
    if turns and turns[0]["role"] == "system":
        system = f"<<SYS>>\n{turns.pop(0)['content']}\n<</SYS>>\n\n"
    roles = [turn["role"] for turn in turns]
    expected = ["user", "assistant"] * len(roles)
    if not roles or roles != expected[:len(roles)]:
        raise InputError(f"a chat must be [system,] user, assistant, user, ...: not {found}")
    texts = [turn["content"].strip() for turn in turns]
    texts[0] = (system + turns[0]["content"]).strip()
    ids = []
    for user, answer in itertools.zip_longest(texts[::2], texts[1::2]):
        if answer is None:
            ids += tokenizer.encode(f"[INST] {user} [/INST]", bos=True)
        else:
            ids += tokenizer.encode(f"[INST] {user} [/INST] {answer} ", bos=True) + [tokenizer.eos]
    return ids


# ---- 9. The objective ----------------------------------------------------------------------------------------

def cross_entropy(logits, targets):
    """How surprised the model is by each next token, in nats: (T, V), (T,) -> (T,).

    -log softmax(logits)[target], without ever forming a probability that could underflow.
    """
    targets = check_tokens(targets, logits.shape[-1])
    if len(targets) != len(logits):
        raise InputError(f"each row of logits needs a target: {len(logits)} rows, {len(targets)} targets")
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    return np.log(np.sum(np.exp(shifted), axis=-1)) - shifted[np.arange(len(targets)), targets]


def sequence_losses(tokens, weights, config):
    """Nats of every token but the first, yielded as arrays, for a sequence of any length.

    A window of the whole context moves by half its length, so that every token is predicted from at least half
    a context, or from all that comes before it.
    """
    tokens = check_tokens(tokens, config.vocab_size)
    context = config.max_seq_len
    if min(len(tokens), context) < 2:
        raise InputError(f"a loss needs at least two tokens: there are {len(tokens)}, in a context of {context}")
    half = context // 2
    for start in range(0, max(len(tokens) - context + half, 1), half):
        window = tokens[start:start + context]
        targets = window[1:]
        losses = []
        cache = new_cache(weights, config, len(window))
        for logits in forward_in_chunks(window[:-1], weights, config, cache, start=start):
            losses.append(cross_entropy(logits, targets[:len(logits)]))
            targets = targets[len(logits):]
        losses = np.concatenate(losses)
        if start > 0:
            losses = losses[context - half - 1:]          # the rest was in the window before
        yield losses


def perplexity(tokens, weights, config):
    """exp of the mean cross-entropy: (T,) -> number.

    The model is as uncertain as if it had to choose among this many equally likely tokens.
    """
    losses = np.concatenate(list(sequence_losses(tokens, weights, config)))
    return float(np.exp(np.mean(losses, dtype=np.float64)))


# ---- 10. Sizes -----------------------------------------------------------------------------------------------

def feed_forward_dim(dim, multiple_of=256, multiplier=1.0):
    """F: two thirds of 4 D, so that three matrices cost what two did (LLaMA, section 2.2), rounded up as Meta does."""
    width = int(multiplier * (2 * 4 * dim // 3))
    return math.ceil(width / multiple_of) * multiple_of


def parameter_counts(config, tied=False):
    """How many parameters each component has, as {component: count}; `tied` shares embedding and output."""
    c = config
    return {
        "embedding": c.vocab_size * c.dim,
        "attention": c.n_layers * 2 * c.dim * (c.n_heads + c.n_kv_heads) * c.head_dim,
        "feed-forward": c.n_layers * 3 * c.dim * c.hidden_dim,
        "norms": (2 * c.n_layers + 1) * c.dim,
        "output": 0 if tied else c.dim * c.vocab_size,
    }


LLAMA_1 = dict(vocab_size=32000, max_seq_len=2048, norm_eps=1e-6)
LLAMA_2 = dict(vocab_size=32000, max_seq_len=4096, norm_eps=1e-5)
PRESETS = {                #  D     L   H   G   F
    "llama-1-7b":  Config(4096, 32, 32, 32, feed_forward_dim(4096), **LLAMA_1),
    "llama-1-13b": Config(5120, 40, 40, 40, feed_forward_dim(5120), **LLAMA_1),
    "llama-1-33b": Config(6656, 60, 52, 52, feed_forward_dim(6656), **LLAMA_1),
    "llama-1-65b": Config(8192, 80, 64, 64, feed_forward_dim(8192), **LLAMA_1 | {"norm_eps": 1e-5}),
    "llama-2-7b":  Config(4096, 32, 32, 32, feed_forward_dim(4096), **LLAMA_2),
    "llama-2-13b": Config(5120, 40, 40, 40, feed_forward_dim(5120), **LLAMA_2),
    "llama-2-34b": Config(8192, 48, 64, 8, feed_forward_dim(8192), **LLAMA_2),     # never released
    "llama-2-70b": Config(8192, 80, 64, 8, feed_forward_dim(8192, 4096, 1.3), **LLAMA_2),
}


# ---- 11. Long prompts ----------------------------------------------------------------------------------------

CHUNK = 128                # rows enough to keep BLAS busy, few enough that little of their scores is masked


@functools.cache
def blas():
    """Control of the threads that BLAS uses for a matrix product."""
    from threadpoolctl import ThreadpoolController
    return ThreadpoolController().select(user_api="blas")


@functools.cache
def cores():
    """How many cores there are to use: as many as BLAS uses, or all, if it does not tell (macOS's Accelerate)."""
    return max((library["num_threads"] for library in blas().info()), default=os.cpu_count() or 1)


class OneBlasThread:
    """`with ONE_BLAS_THREAD:` BLAS starts no threads of its own, so that ours have the cores.

    The limit holds for the whole process, from the first thread that comes in to the last that goes out.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.n_inside = 0
        self.limit = None

    def __enter__(self):
        with self.lock:
            if self.n_inside == 0:
                cores()                                   # counted now: under the limit it would be one
                self.limit = blas().limit(limits=1)
            self.n_inside += 1

    def __exit__(self, *error):
        with self.lock:
            self.n_inside -= 1
            if self.n_inside == 0:
                self.limit.restore_original_limits()


ONE_BLAS_THREAD = OneBlasThread()


def prefill(tokens, weights, config, cache):
    """A prompt of any length through the cache: the logits after its last token, (T,) -> (V,).

    The same as forward(tokens, weights, config, cache)[-1], but no scores are larger than (H, CHUNK, S). Raises
    InputError before any work if the prompt does not fit, and at the first chunk whose last logits are not finite.
    """
    [logits] = deque(forward_in_chunks(tokens, weights, config, cache, last=True), maxlen=1)     # of the last chunk
    return logits[-1]


def forward_in_chunks(tokens, weights, config, cache, last=False, start=0):
    """The logits of a prompt, yielded chunk by chunk: (<= CHUNK, V), or with `last` (1, V), of the chunk's last row.

    `start` is where a window stands in its text: an error names the position in the text.
    All that a layer needs of earlier chunks is their keys and values. So each chunk goes through the model on a thread
    of its own, and at each layer a tap makes it wait until the chunk before has cached its keys and values: every line
    of forward then uses all cores, not only the matrix products.
    """
    from concurrent.futures import Future, ThreadPoolExecutor                # here, as they take time to import
    from tqdm import tqdm
    tokens = check_tokens(tokens, config.vocab_size)
    done = cache[0].length
    context = min(config.max_seq_len, cache[0].max_len)
    if done + len(tokens) > context:
        raise InputError(f"a prompt of {done + len(tokens)} tokens does not fit in the context of {context}")
    chunks = np.array_split(tokens, math.ceil(len(tokens) / CHUNK))          # of nearly equal lengths
    n_threads = min(cores(), len(chunks))
    keys_cached = [[Future() for _ in cache] for _ in chunks]
    numpy_errors = np.geterr()                            # a new thread does not inherit them

    def run(c):
        def follow(name, x):
            if name.endswith("attn_norm") and c > 0:
                keys_cached[c - 1][layer_of(name)].result()
            elif name.endswith("scores"):                 # its own keys are in the cache
                keys_cached[c][layer_of(name)].set_result(None)
                with tqdm.get_lock():
                    progress.update()
            elif name == "norm" and last:
                x = x[-1:]
            return x

        try:
            if c > 0:
                keys_cached[c - 1][0].result()            # forward asks layer 0 at which position it starts
            with np.errstate(**numpy_errors):
                return forward(chunks[c], weights, config, cache, follow)
        finally:
            give_up(keys_cached[c])                       # after an error, those behind would wait for ever

    progress = tqdm(total=len(chunks) * len(cache), desc="reading", unit="layer", delay=2, leave=False)
    ours = n_threads > 1 or isinstance(weights["output"], LazyMatrix)        # threads of ours compute, not BLAS's
    one_blas_thread = ONE_BLAS_THREAD if ours else contextlib.nullcontext()
    with progress, one_blas_thread, ThreadPoolExecutor(n_threads) as threads:
        try:
            running = deque()
            for c in range(len(chunks) + n_threads):      # as many are under way as there are threads
                if c < len(chunks):
                    running.append(threads.submit(run, c))
                if c >= n_threads:
                    logits = running.popleft().result()
                    end = done + len(chunks[c - n_threads])
                    check_finite(logits, start + end - len(logits))
                    done = end
                    yield logits
        finally:                                          # Ctrl-C, an error, or nobody wants the rest
            give_up(itertools.chain(*keys_cached))
            threads.shutdown(cancel_futures=True)
            for layer in cache:                           # all of them hold the same tokens again
                layer.length = min(layer.length, done)


def layer_of(name):
    """The i in layers.i.attn.scores."""
    return int(name.split(".")[1])


def give_up(futures):
    """Cancel those that are not done: who waits for one of them, or sets its result, gets an error."""
    for future in futures:
        future.cancel()


# ---- 12. Weights ---------------------------------------------------------------------------------------------
#
# Matrices are (out, in) on disk and (in, out) in memory, so that every line reads x @ w, as in the papers: transposed
# once, when they are loaded, or in place of an array a LazyMatrix (section 13), which stays in the file.

TENSORS = {     # ours: (Hugging Face's name, Meta's name, shape on disk)
    "embedding": ("model.embed_tokens.weight", "tok_embeddings.weight", "V D"),
    "attn_norm": ("model.layers.{}.input_layernorm.weight", "layers.{}.attention_norm.weight", "D"),
    "wq": ("model.layers.{}.self_attn.q_proj.weight", "layers.{}.attention.wq.weight", "Hd D"),
    "wk": ("model.layers.{}.self_attn.k_proj.weight", "layers.{}.attention.wk.weight", "Gd D"),
    "wv": ("model.layers.{}.self_attn.v_proj.weight", "layers.{}.attention.wv.weight", "Gd D"),
    "wo": ("model.layers.{}.self_attn.o_proj.weight", "layers.{}.attention.wo.weight", "D Hd"),
    "ffn_norm": ("model.layers.{}.post_attention_layernorm.weight", "layers.{}.ffn_norm.weight", "D"),
    "gate": ("model.layers.{}.mlp.gate_proj.weight", "layers.{}.feed_forward.w1.weight", "F D"),
    "up": ("model.layers.{}.mlp.up_proj.weight", "layers.{}.feed_forward.w3.weight", "F D"),
    "down": ("model.layers.{}.mlp.down_proj.weight", "layers.{}.feed_forward.w2.weight", "D F"),
    "norm": ("model.norm.weight", "norm.weight", "D"),
    "output": ("lm_head.weight", "output.weight", "V D"),
}
OTHER_FORMATS = (".bin", ".pth", ".pt", ".ckpt", ".gguf")
STALE_TABLES = ("rotary_emb.inv_freq", "rope.freqs")      # old files carry rotary tables; we compute them

CONFIG_KEYS = {     # ours, and Meta's in params.json: Hugging Face's in config.json
    "dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads", "hidden_dim": "intermediate_size", "vocab_size": "vocab_size",
    "max_seq_len": "max_position_embeddings", "norm_eps": "rms_norm_eps", "rope_theta": "rope_theta",
    "head_dim": "head_dim",
}
LLAMA_ONLY = {      # what these keys of a config may say, if anything: all else is a feature not computed here
    "model_type": ["llama"],
    "architectures": [["LlamaForCausalLM"], ["LLaMAForCausalLM"]],            # the second in early 2023
    "hidden_act": ["silu", "swish"], "attention_bias": [False], "mlp_bias": [False],
    "sliding_window": [False], "quantization_config": [False], "num_experts": [False], "num_local_experts": [False],
    "partial_rotary_factor": [1],                         # the share of each head that is rotated
    "rope_type": ["default"], "type": ["default"],        # the kind of rope_scaling, by its new and its old name
    "factor": [1],                                        # ... and how far it stretches positions
    "use_scaled_rope": [False],                           # Meta's word for it, in params.json
}
ROPE_KEYS = ("rope_theta", "rope_type", "type", "factor", "partial_rotary_factor")       # what rope_scaling may say
DEFAULT_CONTEXT = 2048      # where a config states none: what transformers takes, and the context of Llama 1


def load(folder, dtype=np.float32, lazy=False, max_seq_len=None):
    """Read a folder of safetensors weights: (weights, config), every array in `dtype` (float32 or float64).

    Hugging Face's or Meta's layout; F64, F32, F16 or BF16; one file, or shards with an index; tied or untied.
    With lazy=True matrices stay in the files, and cost time instead of memory: see LazyMatrix. max_seq_len sets
    another context than the folder's. Raises InputError for whatever is missing, inconsistent, or not Llama 1 or 2.
    """
    config, tensors, is_meta = open_checkpoint(folder, max_seq_len)
    return read_weights(config, tensors, is_meta, dtype, lazy), config


def read_weights(config, tensors, is_meta, dtype=np.float32, lazy=False):
    """The weights of a checkpoint that open_checkpoint has checked."""
    from tqdm import tqdm
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise InputError(f"dtype must be float32 or float64, not {np.dtype(dtype)}")
    if lazy and dtype != np.float32:
        raise InputError("lazy=True computes in float32 only")

    def vector(name, layer=None):
        return tensors[name, layer].map().astype(dtype)

    def matrix(name, layer=None):
        w = tensors[name, layer].map()
        order = None
        if is_meta and name in ("wq", "wk"):
            order = interleaved_to_halves(np.arange(len(w))[:, None], config.head_dim)[:, 0]
        return LazyMatrix(w, order) if lazy else transposed(w, order, dtype)

    embedding = tensors["embedding", None].map()          # of which each token takes one row: never transposed
    if not lazy:
        embedding = embedding.astype(dtype)
    layers = [{"attn_norm": vector("attn_norm", i), "attn": {w: matrix(w, i) for w in ("wq", "wk", "wv", "wo")},
               "ffn_norm": vector("ffn_norm", i), "ffn": {w: matrix(w, i) for w in ("gate", "up", "down")}}
              for i in tqdm(range(config.n_layers), "loading", unit="layer", delay=2, leave=False)]
    return {"embedding": embedding, "layers": layers, "norm": vector("norm"), "output": matrix("output")}


def transposed(w, order, dtype):
    """An array (in, out) of a matrix (out, in): one row times it is up to 3.5 times as fast as times a view of w."""
    out = np.empty(w.shape[::-1], dtype)

    def copy(rows):
        out[:, rows] = some_rows(w, order, rows).astype(dtype).T

    for_blocks(copy, w)
    return out


def some_rows(w, order, rows):
    """The rows of w in that slice, counted in another order if one is given."""
    return w[rows] if order is None else w[order[rows]]


def for_blocks(work, w):
    """work(slice of rows) for all rows of w; each thread takes its share of the blocks.

    A block is small enough for a core's cache, and so large that the time of a call does not matter.
    """
    step = max(1, 2**19 // w.shape[1])
    blocks = [slice(i, i + step) for i in range(0, len(w), step)]

    def share(k):
        with np.errstate(all="ignore"):                   # what overflows shows in the logits, which are checked
            for rows in blocks[k::cores()]:
                work(rows)

    list(pool().map(share, range(cores())))               # list: an error in a thread is raised here


@functools.cache
def pool():
    """A thread for each core."""
    from concurrent.futures import ThreadPoolExecutor
    return ThreadPoolExecutor(cores())


def interleaved_to_halves(w, head_dim):
    """Reorder the rows of Meta's wq or wk, which pair neighbours, to Hugging Face's halves: (out, in) -> (out, in).

    The number of heads follows from the shape, so grouped keys are reordered rightly too.
    """
    pairs = w.reshape(-1, head_dim // 2, 2, w.shape[-1])  # (heads, d/2, 2, in)
    return pairs.swapaxes(1, 2).reshape(w.shape)


def open_checkpoint(folder, max_seq_len=None):
    """Check a folder: (config, {(our name, layer or None): tensor on disk}, is it Meta's layout?).

    No numbers are read, unless an output is stored that should be tied to the embedding.
    """
    folder = Path(folder)
    on_disk = {name: tensor for name, tensor in open_tensors(folder).items() if not name.endswith(STALE_TABLES)}
    is_meta = "tok_embeddings.weight" in on_disk or "output.weight" in on_disk
    config, tied = read_config(folder, on_disk)
    if max_seq_len is not None:
        config = replace(config, max_seq_len=max_seq_len)
    embedding_name, output_name = TENSORS["embedding"][is_meta], TENSORS["output"][is_meta]
    if tied:                                              # the files may hold either of the two
        for one, other in ((embedding_name, output_name), (output_name, embedding_name)):
            if one not in on_disk and other in on_disk:
                on_disk[one] = on_disk[other]
    sizes = {"V": config.vocab_size, "D": config.dim, "F": config.hidden_dim,
             "Hd": config.n_heads * config.head_dim, "Gd": config.n_kv_heads * config.head_dim}
    tensors = {}
    for ours, (*names, letters) in TENSORS.items():
        expected = tuple(sizes[size] for size in letters.split())
        in_layers = "{}" in names[0]
        for layer in range(config.n_layers) if in_layers else [None]:
            name = names[is_meta].format(layer)
            if name not in on_disk:
                raise InputError(f"{folder}: tensor {name} is missing")
            tensor = on_disk.pop(name)
            if tensor.shape != expected or tensor.dtype not in ("F64", "F32", "F16", "BF16"):
                raise InputError(f"{folder}: tensor {name} is {tensor.dtype} {tensor.shape}, "
                                 f"not {expected} in F64, F32, F16 or BF16")
            tensors[ours, layer] = tensor
    if on_disk:
        raise InputError(f"{folder}: a Llama of {config.n_layers} layers has no tensor {min(on_disk)}")
    embedding, output = tensors["embedding", None], tensors["output", None]
    if tied and output is not embedding and not np.array_equal(output.map(), embedding.map()):
        raise InputError(f"{folder}: tie_word_embeddings is true, but output and embedding are two different tensors")
    if tied:
        tensors["output", None] = embedding
    return config, tensors, is_meta


@dataclass(frozen=True)
class Tensor:
    """A tensor in a safetensors file, of which no number has been read yet."""
    path: Path
    dtype: str
    shape: tuple
    offset: int

    def map(self):
        """Its numbers, as an array that is read from the file when it is used."""
        dtype = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16"}[self.dtype]
        return np.asarray(np.memmap(self.path, dtype, "r", self.offset, self.shape))


def open_tensors(folder):
    """Every tensor in the folder's safetensors files, by its name on disk, without reading the numbers."""
    import ml_dtypes                                      # noqa: F401  teaches NumPy the name bfloat16
    tensors = {}
    for path in weight_files(folder):
        found = read_header(path)
        if tensors.keys() & found.keys():
            raise InputError(f"{path} holds tensors that another file holds too (parts of one model, as Meta's "
                             "consolidated.00 and .01, must be merged first)")
        tensors |= found
    return tensors


def weight_files(folder):
    """The folder's safetensors files: model.safetensors, or the shards of the index, or all there are."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    files = sorted(path.name for path in folder.glob("*.safetensors") if not path.name.startswith("._"))    # macOS's
    index = folder / "model.safetensors.index.json"
    if "model.safetensors" in files:
        files = ["model.safetensors"]
    elif index.exists():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
            raise InputError(f"{index} has no weight_map from tensors to files")
        files = sorted(set(weight_map.values()))
    if not files:
        others = sorted(path.name for path in folder.iterdir() if path.suffix in OTHER_FORMATS)
        if others:
            raise InputError(f"{folder} has no .safetensors file, only {others[0]}: a pickle could run code, so only "
                             "safetensors are read; weights/README.md says how to convert")
        raise InputError(f"{folder} has no .safetensors file")
    for file in files:
        if Path(file).name != file or file == "":
            raise InputError(f"{index} points outside the folder: {file}")
        if not (folder / file).is_file():
            raise InputError(f"{folder / file} is missing")
    return [folder / file for file in files]


def read_header(path):
    """The tensors of one safetensors file: {name on disk: Tensor}."""
    from safetensors import safe_open
    try:
        with path.open("rb") as data:
            start = data.read(100)
            check_downloaded(path, start)
            with safe_open(path, framework="numpy"):      # which checks the header
                pass
            size = int.from_bytes(start[:8], "little")
            data.seek(8)
            header = json.loads(data.read(size))
        header.pop("__metadata__", None)
        return {name: Tensor(path, t["dtype"], tuple(t["shape"]), 8 + size + t["data_offsets"][0])
                for name, t in header.items()}
    except InputError:
        raise
    except Exception as error:                            # whatever the library finds wrong with the header
        raise InputError(f"{path} is not a valid safetensors file: {error}") from None


def read_config(folder, tensors):
    """(Config, is the output tied to the embedding?) from config.json, or Meta's params.json."""
    path = folder / "config.json"
    if not path.exists():
        path = folder / "params.json"
    if not path.exists():
        raise InputError(f"{folder} has no config.json (or params.json, in Meta's layout)")
    raw = read_json(path)
    for key in ("rope_scaling", "rope_parameters"):       # before and since transformers 5
        rope_settings = raw.pop(key, None) or {}
        if not isinstance(rope_settings, dict):
            raise InputError(f"{path}: {key} must be an object, not {rope_settings!r}")
        raw |= {key: value for key, value in rope_settings.items() if key in ROPE_KEYS}
    for key, values in LLAMA_ONLY.items():
        if raw.get(key) is not None and raw[key] not in values:
            raise InputError(f"{path} is not Llama 1 or 2: {key} is {raw[key]!r}")
    keys = CONFIG_KEYS if path.name == "config.json" else {ours: ours for ours in CONFIG_KEYS}
    defaults = {"rope_theta": 10000.0, "n_kv_heads": raw.get(keys["n_heads"]),
                "max_seq_len": raw.get("max_sequence_length", DEFAULT_CONTEXT)}                 # a name of early 2023
    if keys is not CONFIG_KEYS:
        defaults |= meta_defaults(path, raw, tensors)
    fields = {}
    for ours, key in keys.items():
        value = raw.get(key)
        if value is None:
            value = defaults.get(ours)
        if value is None and ours == "head_dim":
            continue
        if value is None:
            raise InputError(f"{path}: the key {key} is missing")
        check_number(ours, value, f"{path}: {key}")
        fields[ours] = value
    tied = raw.get("tie_word_embeddings") or False
    if type(tied) is not bool:
        raise InputError(f"{path}: tie_word_embeddings must be true or false, not {tied!r}")
    return Config(**fields), tied


def meta_defaults(path, raw, tensors):
    """What Meta's params.json leaves to be worked out: F, and V where it says -1."""
    multiplier = raw.get("ffn_dim_multiplier") or 1
    if type(multiplier) not in (int, float) or not 0 < multiplier < 100:
        raise InputError(f"{path}: ffn_dim_multiplier must be a number from 0 to 100, not {multiplier!r}")
    for key in ("dim", "multiple_of"):
        check_number("dim", raw.get(key), f"{path}: {key}")
    if raw.get("vocab_size") == -1:
        raw["vocab_size"] = None
    defaults = {"hidden_dim": feed_forward_dim(raw["dim"], raw["multiple_of"], multiplier)}
    embedding = tensors.get("tok_embeddings.weight")
    if embedding is not None and len(embedding.shape) == 2:
        defaults["vocab_size"] = embedding.shape[0]
    return defaults


# ---- 13. Lazy weights ----------------------------------------------------------------------------------------

class LazyMatrix:
    """A matrix (out, in) in a file, used as (in, out): x @ it is computed from the file, in float32.

    The file is mapped into memory, which the system fills and frees as it likes. A block of rows at a time is widened
    to float32 and multiplied, by a thread for each core: numbers of 16 bits are read once and never kept as 32. So a
    model runs that would not fit, at about half the speed of one that does.
    """
    __array_ufunc__ = None                                # NumPy leaves x @ w to us

    def __init__(self, w, order=None):
        self.w = w
        self.order = order                                # of the rows, if it is not that of the file
        self.shape = w.shape[::-1]

    def __rmatmul__(self, x):
        shape = (*x.shape[:-1], len(self.w))
        x = x.reshape(-1, x.shape[-1])                    # one row, a few, or rows in groups
        out = np.empty((len(x), len(self.w)), np.float32)
        scale = np.float32(1)
        if self.w.dtype == np.float16:
            scale = np.float32(2**56)                     # see to_float32
        x = x * scale

        def multiply(rows):
            block = to_float32(some_rows(self.w, self.order, rows))
            if len(x) == 1:                               # np.matmul would keep Python's lock for results this small:
                np.dot(block, x[0], out=out[0, rows])     # the other threads would wait
            else:
                np.matmul(x, block.T, out=out[:, rows])

        with ONE_BLAS_THREAD:
            for_blocks(multiply, self.w)
        return (out * scale).reshape(shape)


def to_float32(w):
    """16-bit numbers to float32: (n, m) -> (n, m); float16 comes out 2^112 times too small, but five times as fast.

    float16 has three bits of exponent fewer than float32: its bits in the place of a float32's are the number times
    2^-112. To multiply by 2^56 before and after a product puts that right, to the bit where the result is above 1e-18.
    """
    if w.dtype != np.float16:
        return w.astype(np.float32)
    if (w.view(np.uint16) & 0x7FFF).max() >= 0x7C00:
        raise InputError("a weight is not finite: the weights are damaged")
    wide = np.empty(w.shape, np.float32)
    bits = wide.view(np.int32)
    bits[:] = w.view(np.int16)
    bits <<= 13
    bits &= ~0x70000000                                   # the sign, which int16 to int32 repeats in the bits after it
    return wide


# ---- 14. Command line ----------------------------------------------------------------------------------------

EXAMPLES = """\
examples:
  python numpy_llama.py                                    a story, from "Once upon a time"
  python numpy_llama.py "The old king" -n 100 --seed 1     100 tokens; the same seed gives the same text
  python numpy_llama.py "The old king" --temperature 0     always the most likely token
  echo "The old king" | python numpy_llama.py -            the prompt from standard input
  python numpy_llama.py "The old king" --trace run.npz     every intermediate value, by name
  python numpy_llama.py --perplexity book.txt              how well the model predicts a text
  python numpy_llama.py --model Llama-2-7b-chat-hf --chat --system "Answer in one sentence."
  python numpy_llama.py --model Llama-2-7b-hf --info       what is in a folder, without reading the weights
"""


class Mode(argparse.Action):
    """An option with a file that says what to run instead of `complete`."""

    def __call__(self, parser, args, file, option=None):
        args.run, args.file = self.const, file


def parse(argv):
    """The command line's options, checked."""
    def error(message):
        hint = "--help shows the options"
        if re.search(r"unrecognized|invalid int value: '\D", message):
            hint += "; put -- before a prompt that starts with a dash"
        raise InputError(f"{message} ({hint})")

    parser = argparse.ArgumentParser(
        prog="numpy_llama.py", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Continue a text with a Llama 1 or 2, computed step by step in NumPy.")
    parser.error = error
    parser.set_defaults(run=complete)
    add = parser.add_argument
    add("prompt", nargs="?", metavar="PROMPT",
        help='text to continue, or - to read it from standard input (default: "Once upon a time")')
    add("--model", metavar="DIR", type=Path, default=Path(__file__).resolve().parent / "weights" / "fairytales",
        help="folder with config.json, safetensors and tokenizer.model (default: the small model that ships)")
    add("-n", "--max-new-tokens", metavar="N", type=int, default=256, help="stop after N tokens (default: 256)")
    add("--temperature", metavar="X", type=float, default=0.8,
        help="0 always takes the most likely token, 1 samples as the model predicts (default: 0.8)")
    add("--top-k", metavar="K", type=int, default=0, help="sample from the K most likely tokens (default: 0, all)")
    add("--top-p", metavar="P", type=float, default=0.95,
        help="sample from the smallest set of tokens whose probabilities add up to P (default: 0.95)")
    add("--seed", metavar="N", type=int, default=int(np.random.SeedSequence().entropy % 10**6),
        help="same seed, same text (default: a new one each time; a story shows it at the end)")
    add("--context", metavar="N", type=int, help="use a context of N tokens instead of the folder's own")
    add("--lazy", action="store_true",
        help="leave the weights in their file: little memory, half the speed (default: if they do not fit)")
    add("--system", metavar="TEXT", help="with --chat: how the assistant should behave")
    add("--chat-format", choices=["llama-2"], help="with --chat: use this format, whatever the folder's own is")
    mode = parser.add_mutually_exclusive_group().add_argument
    mode("--chat", dest="run", action="store_const", const=chat,
         help="talk in the Llama 2 chat format, a line at a time")
    mode("--trace", metavar="FILE", type=Path, action=Mode, const=save_trace,
         help="list and save every intermediate value (.safetensors or .npz)")
    mode("--perplexity", metavar="FILE", type=Path, action=Mode, const=show_perplexity,
         help="how well the model predicts a text file")
    mode("--info", dest="run", action="store_const", const=show_info,
         help="sizes, parameters and memory, without reading the weights")
    args = parser.parse_args(argv)
    check_sampling(args.temperature, args.top_k, args.top_p)
    if args.max_new_tokens < 1:
        raise InputError(f"--max-new-tokens must be positive, not {args.max_new_tokens}")
    if args.seed < 0:
        raise InputError(f"--seed must not be negative, not {args.seed}")
    if args.context is not None:
        check_number("max_seq_len", args.context, "--context")
    if args.run is chat and args.prompt == "-":
        raise InputError("--chat reads standard input by itself: leave out the -")
    if args.run is not chat and (args.system is not None or args.chat_format):
        raise InputError("--system and --chat-format go with --chat")
    if args.run in (show_perplexity, show_info) and args.prompt is not None:
        raise InputError(f"--perplexity and --info take no PROMPT, but there is one: {args.prompt}")
    return args


def main(argv=None):
    """Run the command line and return its exit status: 0, 2 after an error, 130 after Ctrl-C."""
    try:
        with np.errstate(all="ignore"):                   # damaged weights: logits are checked before they are used
            args = parse(argv)
            status = args.run(args) or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        note("")                                          # the shell's next prompt gets a line of its own
        return 130
    except BrokenPipeError:                               # the reader has what it wanted
        drop_output()
        return 0
    except UnicodeDecodeError as error:
        return fail(f"standard input is not UTF-8 text: {error.reason} at byte {error.start}")
    except (InputError, MemoryError) as error:
        return fail(str(error) or "not enough memory")
    except OSError as error:                              # a full disk, a name that is too long
        drop_output()
        return fail(str(error))


def drop_output():
    """Forget what standard output has not taken, or Python would try again, and complain, when it ends."""
    with contextlib.suppress(OSError):                    # a notebook's stream has no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(message):
    """Print a line on standard error, if anybody listens."""
    with contextlib.suppress(OSError):
        print(message, file=sys.stderr, flush=True)


def fail(message):
    """Print an error in one line on standard error, and return the exit status of an error."""
    note(f"error: {' '.join(message.split())[:500]}")
    return 2


def memory():
    """How many bytes of memory this machine has, as far as it tells."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else math.inf


def context_is_assumed(args):
    """Does nobody say how long the context is? Meta's params.json does not."""
    is_meta = not (args.model / "config.json").exists() and (args.model / "params.json").exists()
    return is_meta and args.context is None


def load_model(args, to_sample=False):
    """(weights, config, tokenizer, ids that end a text) of --model; weights that do not fit stay in their file.

    With to_sample, the output has no column that stands for no token (padding), so that none is ever sampled.
    """
    config, tensors, is_meta = open_checkpoint(args.model, args.context)
    if context_is_assumed(args):
        note(f"{args.model / 'params.json'} states no context: {config.max_seq_len} tokens are assumed "
             "(--context N sets another)")
    tokenizer = Tokenizer(args.model / "tokenizer.model")
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(f"{args.model}: tokenizer.model has {tokenizer.vocab_size} pieces, "
                         f"the embedding {config.vocab_size}")
    n_tokens = max([tokenizer.vocab_size - 1, *tokenizer.added]) + 1
    if to_sample and n_tokens < config.vocab_size:
        output = tensors["output", None]
        tensors["output", None] = replace(output, shape=(n_tokens, config.dim))       # its first rows in the file
    stop = {tokenizer.eos}
    for file in ("config.json", "generation_config.json"):
        ids = read_optional_json(args.model / file).get("eos_token_id")
        stop |= {i for i in (ids if isinstance(ids, list) else [ids]) if type(i) is int}
    size = sum(4 * math.prod(tensor.shape) for tensor in tensors.values())
    lazy = args.lazy or size > 0.9 * memory()
    if lazy and not args.lazy:
        note(f"{size / 2**30:.1f} GiB in float32 do not fit in {memory() / 2**30:.1f} GiB of memory: "
             "the weights stay in their file (--lazy)")
    return read_weights(config, tensors, is_meta, lazy=lazy), config, tokenizer, stop


def sampling(args):
    """The settings of `generate` that are options."""
    return dict(max_new_tokens=args.max_new_tokens, rng=np.random.default_rng(args.seed),
                temperature=args.temperature, top_k=args.top_k, top_p=args.top_p)


def as_text(text):
    """The same text however it was saved: with a byte order mark or not, with any line ends."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read_prompt(args):
    """The text to continue."""
    if args.prompt is None:
        return "Once upon a time"
    return as_text(sys.stdin.read()).removesuffix("\n") if args.prompt == "-" else args.prompt


def show(ids, tokenizer):
    """Print text as its ids arrive, and return them as a list."""
    ids, printed = itertools.tee(ids)
    for piece in stream_text(printed, tokenizer):
        print(piece, end="", flush=True)
    print(flush=True)
    return list(ids)


def rate(n_tokens, seconds):
    """Tokens per second, with two significant digits where it is slow."""
    per_second = n_tokens / seconds
    return f"{per_second:.0f} tokens/s" if per_second >= 10 else f"{per_second:.2g} tokens/s"


def complete(args):
    """Print the prompt and how the model continues it, then one line of figures on standard error."""
    weights, config, tokenizer, stop = load_model(args, to_sample=True)
    prompt = tokenizer.encode(read_prompt(args))
    began = time.perf_counter()
    new = generate(prompt, weights, config, stop=stop, **sampling(args))
    first_id = next(new)                                  # before anything is shown, so that a refusal stands alone
    first = time.perf_counter()
    n_new = len(show(itertools.chain(prompt, [first_id], new), tokenizer)) - len(prompt)
    figures = f"prompt {len(prompt)} tokens, {rate(len(prompt), first - began)}; new {n_new} tokens"
    if n_new > 1:
        figures += f", {rate(n_new - 1, time.perf_counter() - first)}"
    note(f"{figures}; seed {args.seed}")


def check_chat_template(folder):
    """Raise InputError if the folder has a chat template that is not Llama 2's."""
    template = read_optional_json(folder / "tokenizer_config.json").get("chat_template")
    jinja = folder / "chat_template.jinja"
    if jinja.exists():
        template = read_file(jinja).decode(errors="replace")
    template = str(template or "[INST] <<SYS>>")          # some folders have a list of templates
    if "[INST]" not in template or "<<SYS>>" not in template:
        marker = re.search(r"<\|\w+\|>|\[[A-Z_]+\]|### ?\w+|\b[A-Z]\w+:", template)
        found = f"it begins with {marker[0]}" if marker else "it has no <<SYS>>"
        raise InputError(f"the chat template of {folder} is not Llama 2's ({found}): --chat-format llama-2 talks in "
                         "Llama 2's format all the same")


def without_oldest(messages, tokenizer, room):
    """(messages, their tokens) of a chat, without as many of its oldest turns as it takes to have at most `room`.

    The system message and the last message stay, even if they alone are more.
    """
    n_system = int(messages[0]["role"] == "system")
    system, turns = messages[:n_system], messages[n_system:]
    tokens = chat_tokens(messages, tokenizer)
    while len(tokens) > room and len(turns) > 1:
        turns = turns[2:]                                 # a message and its answer
        tokens = chat_tokens(system + turns, tokenizer)
    return system + turns, tokens


class Conversation:
    """A chat and its cache: only tokens that the cache does not hold go through the model."""

    def __init__(self, args):
        if not args.chat_format:
            check_chat_template(args.model)
        self.weights, self.config, self.tokenizer, self.stop = load_model(args, to_sample=True)
        self.sampling = sampling(args)
        self.messages = [{"role": "system", "content": args.system}] if args.system else []
        self.cache = new_cache(self.weights, self.config, 1)
        self.cached_tokens = []

    def answer(self, text):
        """Print the answer to a message, or refuse one that does not fit: exit status 0 or 2.

        When there is no room, the oldest messages are dropped.
        """
        asked = [*self.messages, {"role": "user", "content": text}]
        context = self.config.max_seq_len
        n_new = self.sampling["max_new_tokens"]
        kept, tokens = without_oldest(asked, self.tokenizer, context - min(n_new, context // 2))
        if len(tokens) > context:
            return fail(f"a message of {len(tokens)} tokens does not fit in the context of {context}")
        if len(kept) < len(asked):
            note(f"the context of {context} tokens is full: the oldest {len(asked) - len(kept)} messages are dropped")
        self.rewind(tokens, min(len(tokens) + n_new, context))
        new = generate(tokens[self.cache[0].length:], self.weights, self.config, stop=self.stop, cache=self.cache,
                       **self.sampling)
        answer = show(new, self.tokenizer)
        self.messages = [*kept, {"role": "assistant", "content": self.tokenizer.decode(answer)}]
        self.cached_tokens = (tokens + answer)[:self.cache[0].length]
        return 0

    def rewind(self, tokens, max_len):
        """Let the cache hold the tokens that it shares with these, and have room for max_len."""
        if self.cache[0].max_len < max_len:               # grows with the chat: a context may have a million tokens
            small = self.cache
            n = small[0].length
            self.cache = new_cache(self.weights, self.config, min(2 * max_len, self.config.max_seq_len))
            for large_layer, small_layer in zip(self.cache, small, strict=True):
                large_layer.extend(small_layer.k[:, :n], small_layer.v[:, :n])
        shared = zip(tokens[:-1], self.cached_tokens, strict=False)         # an answer may come back in other tokens
        differs = [a != b for a, b in shared]
        for layer in self.cache:
            layer.length = [*differs, True].index(True)


def chat(args):
    """Read a line, answer it, and so on; the exit status is 2 if a message was refused."""
    conversation = Conversation(args)
    status = 0
    first = read_prompt(args) if args.prompt else ""
    for line in itertools.chain([first], iter(sys.stdin.readline, "")):
        if line.strip():
            status = max(status, conversation.answer(line))
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
    if sys.stdin.isatty():                                # Ctrl-D
        print(file=sys.stderr)
    return status


def save_trace(args):
    """Print name, shape, mean and standard deviation of every intermediate value, and save them all."""
    from safetensors.numpy import save_file
    path = args.file
    if path.suffix not in (".safetensors", ".npz") or path.is_dir():
        raise InputError(f"{path} must be a file that ends in .safetensors or .npz")
    part = path.with_name(f".part-{path.name}")
    try:
        part.touch()                                      # no work is done in vain, and no older trace is lost
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    try:
        weights, config, tokenizer, _ = load_model(args)
        trace = Trace()
        forward(tokenizer.encode(read_prompt(args)), weights, config, tap=trace)
        if path.suffix == ".npz":
            np.savez(part, **trace)
        else:
            save_file({name: np.ascontiguousarray(x) for name, x in trace.items()}, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    for name, x in trace.items():
        seen = x[np.isfinite(x)] if np.isfinite(x).any() else x           # masked scores are -inf
        print(f"{name:28} {str(x.shape):16} mean {seen.mean():10.5f}  std {seen.std():10.5f}")


def read_text(path):
    """The text of a file, or of standard input for -."""
    if str(path) == "-":
        return as_text(sys.stdin.read())
    try:
        return as_text(read_file(path).decode())
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def show_perplexity(args):
    """Print nats per token, perplexity and bits per byte of a text file."""
    from tqdm import tqdm
    text = read_text(args.file)
    weights, config, tokenizer, _ = load_model(args)
    tokens = tokenizer.encode(text)
    nats = 0.0
    with tqdm(total=len(tokens) - 1, unit="token", delay=2, leave=False) as progress:
        for some in sequence_losses(tokens, weights, config):
            nats += math.fsum(some)
            progress.update(len(some))
    mean = nats / (len(tokens) - 1)
    n_bytes = len(text.encode())
    print(f"{mean:.4f} nats per token, perplexity {np.exp(mean):.3f}, "
          f"{nats / math.log(2) / n_bytes:.4f} bits per byte ({len(tokens) - 1} tokens, {n_bytes} bytes)")


def show_info(args):
    """Print configuration, parameters by component, memory, and the published sizes that match."""
    config, tensors, is_meta = open_checkpoint(args.model, args.context)
    tied = tensors["output", None] is tensors["embedding", None]
    counts = parameter_counts(config, tied)
    total = sum(counts.values())
    n_weights = total
    if tied:
        n_weights += counts["embedding"]                  # in memory there are two of them
    n_cache = 2 * config.n_layers * config.n_kv_heads * config.head_dim * config.max_seq_len
    mib = 4 / 2**20                                       # of a float32
    dtypes = ", ".join(sorted({tensor.dtype for tensor in tensors.values()}))
    layout = "Meta" if is_meta else "Hugging Face"
    print(f"{args.model.resolve().name}: {layout} layout, {dtypes}")
    for name, value in asdict(config).items():
        remark = "   assumed: params.json states none" if name == "max_seq_len" and context_is_assumed(args) else ""
        print(f"  {name:14} {value}{remark}")
    remark = ", output tied to embedding" if tied else ""
    print(f"{total:,} parameters{remark}")
    for name, count in counts.items():
        print(f"  {name:14} {count:14,}  {count / total:6.1%}")
    print(f"memory in float32\n  weights        {mib * n_weights:,.1f} MiB\n"
          f"  cache          {mib * n_cache:,.1f} MiB for {config.max_seq_len} tokens")
    same = [name for name, preset in PRESETS.items()
            if replace(preset, max_seq_len=config.max_seq_len, norm_eps=config.norm_eps) == config]
    print(f"sizes of {' and '.join(same)}" if same else "not one of the published sizes")


def prepare_streams():
    """Standard streams in UTF-8, whatever the locale says; a closed one reads as empty and writes to nobody."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):                # not so in a notebook or in IDLE
            stream.reconfigure(encoding="utf-8", errors="strict" if name == "stdin" else "backslashreplace")


if __name__ == "__main__":
    prepare_streams()
    sys.exit(main())
