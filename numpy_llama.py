# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy>=2", "safetensors>=0.4", "ml_dtypes", "sentencepiece", "threadpoolctl", "tqdm"]
# ///
"""Llama 1 and 2 in NumPy: every step between a prompt and its next token, in the order of the papers.

Read it from top to bottom; each section uses only those above it.

     1  taps         how an intermediate value is watched, recorded or changed
     2  config       the numbers that define a Llama; the published sizes
     3  primitives   softmax, silu, rms_norm, matmul
     4  positions    rotary embeddings
     5  attention    causal mask, heads, grouped-query attention, key/value cache
     6  the model    feed-forward, block, forward
     7  objective    next-token cross-entropy, perplexity
     8  generation   from logits to tokens
     9  tokenizer    SentencePiece, the Llama 2 chat format
    10  weights      safetensors, and the two layouts in which Llamas are published
    11  command line

Size letters, the same everywhere:

    T new tokens   S tokens seen so far   D model width    F feed-forward width   V vocabulary
    H query heads  G key/value heads      d head width     L layers

One sequence at a time: a batch is a for loop. Float32 by default, float64 on request; the reference for every
number is Hugging Face's LlamaForCausalLM in float32 on the CPU. No training, no quantisation, no Llama 3.

Where speed or memory asks for more than the plain line, it stands in one place: side_by_side (section 6) uses all
cores for a long prompt, and Stored (section 10) computes with weights that do not fit in memory.

Papers: LLaMA (arXiv 2302.13971), Llama 2 (2307.09288), RMSNorm (1910.07467), RoPE (2104.09864),
attention (1706.03762), multi-query attention (1911.02150), GQA (2305.13245), GLU variants (2002.05202).
"""
import argparse
import contextvars
import functools
import itertools
import json
import math
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np


class InputError(ValueError):
    """Input that this file refuses, in one sentence for a person: a wrong number is worse than no number."""


def refuse(wrong, message):
    """Raise InputError if something is wrong."""
    if wrong:
        raise InputError(message)


def read(path):
    """The bytes of a file, or InputError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


# ---- 1. Taps -------------------------------------------------------------------------------------------------
#
# The model passes every intermediate value through a tap, and goes on with what the tap returns:
#
#     q = tap("q_rope", rope(q, cos, sin))
#
# So a tap can watch a value, record it, or change it, and there is no second code path to keep true.

def ignore(name, x):
    """The tap that does nothing."""
    return x


class Trace(dict):
    """A tap that records every value under its name, in order of computation."""

    def __call__(self, name, x):
        if name in self:
            raise KeyError(f"{name} is recorded already: use a new Trace for each forward pass")
        self[name] = x
        return x


def under(prefix, tap):
    """The same tap, with `prefix.` before every name."""
    return tap if tap is ignore else lambda name, x: tap(f"{prefix}.{name}", x)


# ---- 2. Config -----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Config:
    """The numbers that define a Llama (LLaMA, table 2; Llama 2, table 1, for context and grouped queries).

    Raises InputError for sizes that are not positive integers, and for heads that do not divide.
    """
    dim: int                     # D
    n_layers: int                # L
    n_heads: int                 # H
    n_kv_heads: int              # G: H is multi-head, 1 multi-query, in between grouped-query attention
    hidden_dim: int              # F
    vocab_size: int              # V
    max_seq_len: int = 4096      # the context, in tokens
    norm_eps: float = 1e-5       # 1e-6 in Llama 1
    rope_theta: float = 10000.0
    head_dim: int = None         # d; D / H unless given

    def __post_init__(self):
        for name, value in asdict(self).items():
            check_field(name, value, name)
        if self.head_dim is None:
            refuse(self.dim % self.n_heads,
                   f"n_heads {self.n_heads} does not divide dim {self.dim}, and head_dim is not given")
            object.__setattr__(self, "head_dim", self.dim // self.n_heads)
        refuse(self.n_heads % self.n_kv_heads, f"n_kv_heads {self.n_kv_heads} does not divide n_heads {self.n_heads}")
        refuse(self.head_dim % 2, f"head_dim {self.head_dim} is odd: rotary embeddings turn pairs")


def check_field(name, value, label):
    """Raise InputError, which speaks of `label`, for a value that this field of Config cannot have."""
    kind, types, limit = "integer", (int,), 2**31
    if name in ("norm_eps", "rope_theta"):
        kind, types, limit = "number", (int, float), 1e38
    refuse((type(value) not in types or not 0 < value < limit) and (name, value) != ("head_dim", None),
           f"{label} must be a positive {kind}, not {value!r}")


def feed_forward_dim(dim, multiple_of=256, multiplier=1.0):
    """F: two thirds of 4 D, so that three matrices cost what two did (LLaMA, section 2.2), rounded up as Meta does."""
    return -(-int(multiplier * (2 * 4 * dim // 3)) // multiple_of) * multiple_of


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
    "llama-1-65b": Config(8192, 80, 64, 64, feed_forward_dim(8192), **LLAMA_1),
    "llama-2-7b":  Config(4096, 32, 32, 32, feed_forward_dim(4096), **LLAMA_2),
    "llama-2-13b": Config(5120, 40, 40, 40, feed_forward_dim(5120), **LLAMA_2),
    "llama-2-34b": Config(8192, 48, 64, 8, feed_forward_dim(8192), **LLAMA_2),     # never released
    "llama-2-70b": Config(8192, 80, 64, 8, feed_forward_dim(8192, 4096, 1.3), **LLAMA_2),
}


# ---- 3. Primitives -------------------------------------------------------------------------------------------

def softmax(x):
    """Numbers to probabilities along the last axis: (..., n) -> (..., n)."""
    e = x - x.max(axis=-1, keepdims=True)                 # the largest is exp(0): nothing overflows
    np.exp(e, out=e)
    e /= e.sum(axis=-1, keepdims=True)
    return e


def silu(x):
    """x * sigmoid(x), also called Swish with beta = 1 (GLU variants, section 1)."""
    with np.errstate(over="ignore"):                      # exp(-x) = inf is right: x / inf = 0
        return x / (1 + np.exp(-x))


def rms_norm(x, weight, eps):
    """Divide each row by its root mean square, then scale: (T, D), (D,) -> (T, D) (RMSNorm, equation 4)."""
    mean_square = np.sum(x * x, axis=-1, keepdims=True) / x.shape[-1]
    return x / np.sqrt(mean_square + eps) * weight


def matmul(x, w):
    """x @ w, added up in two halves: (T, n), (n, m) -> (T, m).

    Rounding errors grow with the number of terms added in a row; two shorter sums have less of it. Used where the
    residual stream and the logits are written, it makes float32 logits as exact as PyTorch's in the median model.
    """
    half = len(w) // 2
    return x[:, :half] @ w[:half] + x[:, half:] @ w[half:]


# ---- 4. Positions --------------------------------------------------------------------------------------------

def rope_cos_sin(positions, head_dim, theta, dtype=np.float32):
    """Cosine and sine of the angle by which each pair turns: (T,) -> (T, d/2), (T, d/2).

    Pair i at position p turns by p * theta^(-2i/d) radians (RoPE, section 3.2.2, which counts i from 1).
    """
    # At position 4095 one wrong bit in a float32 frequency moves a cosine by 2e-4. So each step is rounded to float32
    # where transformers rounds it; the power is taken in float64 first, as float32 powers differ between libraries.
    exponents = np.arange(0, head_dim, 2, dtype=dtype) / head_dim
    frequencies = 1 / np.power(theta, exponents, dtype=np.float64).astype(dtype)
    angles = np.asarray(positions)[:, None].astype(dtype) * frequencies
    return np.cos(angles), np.sin(angles)


def rope(x, cos, sin):
    """Turn each pair (x_i, x_{i + d/2}) by its angle: (heads, T, d) -> (heads, T, d).

    The paper and Meta's files pair neighbours (x_2i, x_2i+1); Hugging Face pairs halves. Section 10 reorders
    Meta's weights once, at load, after which the two are the same.
    """
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


# ---- 5. Attention --------------------------------------------------------------------------------------------

def causal_mask(positions, n_seen):
    """True where the token at a position may look at a token seen so far: (T,) -> (T, S)."""
    return positions[:, None] >= np.arange(n_seen)


def split_heads(x, head_dim):
    """(T, heads * d) -> (heads, T, d)"""
    return x.reshape(len(x), -1, head_dim).swapaxes(0, 1)


def merge_heads(x):
    """(heads, T, d) -> (T, heads * d)"""
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)


def attention(q, k, v, mask, tap=ignore):
    """Each query's average of the values, weighted by how well the keys match it.

    (H, T, d), (G, S, d), (G, S, d), (T, S) -> (H, T, d)

    Query head h uses key/value head h // (H / G): G = H is multi-head, G = 1 multi-query attention, anything
    between grouped-query attention (GQA, section 2.2). The queries that share a key head are stacked as rows.
    """
    H, T, d = q.shape
    G, S, _ = k.shape
    scores = (q.reshape(G, H // G * T, d) @ k.swapaxes(1, 2)).reshape(H, T, S)
    scores /= math.sqrt(d)
    np.copyto(scores, -np.inf, where=~mask)
    probs = tap("probs", softmax(tap("scores", scores)))
    return tap("heads", (probs.reshape(G, H // G * T, S) @ v).reshape(H, T, d))


class KVCache:
    """The rotated keys and the values of the tokens seen so far, for one layer: two arrays (G, max_len, d).

    One per layer: cache = [KVCache(config, n) for _ in range(config.n_layers)]
    """

    def __init__(self, config, max_len=None, dtype=np.float32):
        self.k, self.v = np.zeros((2, config.n_kv_heads, max_len or config.max_seq_len, config.head_dim), dtype)
        self.length = 0

    def extend(self, k, v):
        """Append T keys and values, return all: (G, T, d), (G, T, d) -> (G, S, d), (G, S, d).

        Raises InputError, and changes nothing, if they do not fit.
        """
        end = self.length + k.shape[1]
        refuse(end > self.k.shape[1], f"the cache is full: {end} tokens do not fit in {self.k.shape[1]}")
        self.k[:, self.length:end], self.v[:, self.length:end] = k, v
        self.length = end
        return self.k[:, :end], self.v[:, :end]


def self_attention(x, wq, wk, wv, wo, cos, sin, mask, cache=None, tap=ignore):
    """Project, rotate, remember, attend, project back: (T, D) -> (T, D) (Attention, section 3.2.2)."""
    head_dim = 2 * cos.shape[-1]
    q = tap("q", split_heads(x @ wq, head_dim))           # (H, T, d)
    k = tap("k", split_heads(x @ wk, head_dim))           # (G, T, d)
    v = tap("v", split_heads(x @ wv, head_dim))           # (G, T, d)
    q = tap("q_rope", rope(q, cos, sin))
    k = tap("k_rope", rope(k, cos, sin))
    if cache is not None:
        k, v = cache.extend(k, v)                         # (G, S, d)
    return tap("out", matmul(merge_heads(attention(q, k, v, mask, tap)), wo))


# ---- 6. The model --------------------------------------------------------------------------------------------

def feed_forward(x, gate, up, down, tap=ignore):
    """SwiGLU: (silu(x gate) * (x up)) down, (T, D) -> (T, D) (GLU variants, equation 6)."""
    silu_gate = tap("silu", silu(tap("gate", x @ gate)))  # (T, F)
    hidden = tap("hidden", silu_gate * tap("up", x @ up))
    return tap("out", matmul(hidden, down))


def block(x, attn_norm, attn, ffn_norm, ffn, cos, sin, mask, eps, cache=None, tap=ignore):
    """One layer: attention, then feed-forward, each normalised before and added after: (T, D) -> (T, D)."""
    h = tap("attn_norm", rms_norm(x, attn_norm, eps))
    h = self_attention(h, **attn, cos=cos, sin=sin, mask=mask, cache=cache, tap=under("attn", tap))
    x = tap("x_attn", x + h)
    h = tap("ffn_norm", rms_norm(x, ffn_norm, eps))
    return tap("x_ffn", x + feed_forward(h, **ffn, tap=under("ffn", tap)))


def forward(tokens, weights, config, cache=None, tap=ignore):
    """The logits of the token after each token: (T,) -> (T, V).

    With a cache, the tokens continue those that it holds, and are added to it.
    Raises InputError for ids outside the vocabulary and for more tokens than the context or the cache holds.
    """
    tokens = check_tokens(tokens, config.vocab_size)
    start = cache[0].length if cache else 0
    seen = start + len(tokens)
    refuse(seen > config.max_seq_len, f"{seen} tokens do not fit in the context of {config.max_seq_len}")
    positions = np.arange(start, seen)
    dtype = weights["norm"].dtype
    cos, sin = rope_cos_sin(positions, config.head_dim, config.rope_theta, dtype)
    mask = causal_mask(positions, seen)

    x = tap("embedding", weights["embedding"][tokens].astype(dtype, copy=False))
    for i, layer in enumerate(weights["layers"]):
        x = block(x, **layer, cos=cos, sin=sin, mask=mask, eps=config.norm_eps,
                  cache=cache[i] if cache else None, tap=under(f"layers.{i}", tap))
    x = tap("norm", rms_norm(x, weights["norm"], config.norm_eps))
    return tap("logits", matmul(x, weights["output"]))


def check_tokens(tokens, vocab_size):
    """Token ids as an array (T,), or InputError: NumPy would take -1 for the last token of the vocabulary."""
    tokens = np.asarray(tokens)
    refuse(tokens.ndim != 1 or len(tokens) == 0 or tokens.dtype.kind not in "iu",
           f"tokens must be a sequence of at least one integer, not {tokens.dtype} {tokens.shape}")
    outside = tokens[(tokens < 0) | (tokens >= vocab_size)]
    if len(outside):
        raise InputError(f"token id {outside[0]} is outside the vocabulary of {vocab_size}")
    return tokens


@functools.cache
def blas():
    """Control of the threads that BLAS uses for one matrix product; ours are of use only if BLAS starts no more."""
    from threadpoolctl import ThreadpoolController
    return ThreadpoolController().select(user_api="blas")


def cores():
    """How many cores there are to use: as many as BLAS uses now, or all, if it does not tell (macOS's Accelerate)."""
    return max((library["num_threads"] for library in blas().info()), default=os.cpu_count() or 1)


CHUNK = 128                # rows enough to keep BLAS busy, few enough that little of their scores is masked

def forward_in_chunks(tokens, weights, config, cache, last=False):
    """Logits of a long prompt, yielded (<= CHUNK, V) at a time, or (1, V): with `last`, of each chunk's last row.

    Scores never hold (H, T, T) at once. Raises InputError before any work if the prompt is too long, and at the first
    logits that are not finite.
    """
    start, context = cache[0].length, min(config.max_seq_len, cache[0].k.shape[1])
    refuse(start + len(tokens) > context,
           f"a prompt of {start + len(tokens)} tokens does not fit in the context of {context}")
    chunks = [tokens[i:i + CHUNK] for i in range(0, len(tokens), CHUNK)]
    decoding = [forward(tokens, weights, config, cache)] if len(tokens) == 1 else []
    for chunk, logits in zip(chunks, decoding or side_by_side(chunks, weights, config, cache, last)):
        start, finite = start + len(chunk), np.isfinite(logits).all(axis=-1)
        if not finite.all():
            bad = start - len(logits) + np.argmin(finite)
            raise InputError(f"the logits at position {bad} are not finite: the weights are damaged")
        yield logits


def side_by_side(chunks, weights, config, cache, last):
    """The logits of each chunk of a prompt, in order, from a thread for each core.

    What a layer does to a chunk needs of the others only the keys and values before it. So all go through the model
    at the same time, each behind the one before: at each layer a tap waits until those are in the cache. In this way
    every line of the model uses all cores, not only BLAS.
    """
    from concurrent.futures import ThreadPoolExecutor
    from tqdm import tqdm
    starts = [cache[0].length + CHUNK * c for c in range(len(chunks))]
    n_cores, running, turn, trouble = cores(), [], threading.Condition(), []
    n_threads = min(n_cores, len(chunks))

    def wait(c, layer):
        with turn:
            turn.wait_for(lambda: trouble or cache[layer].length == starts[c])
        if trouble:
            raise trouble[0]

    def give_up(error):
        with turn:
            trouble.append(error)
            turn.notify_all()

    def run(c):
        def follow(name, x):
            if name.endswith("attn_norm"):
                wait(c, int(name.split(".")[1]))
            elif name.endswith("scores"):                 # its own keys are in the cache
                with turn:
                    turn.notify_all()
                    progress.update()
            return x[-1:] if name == "norm" and last else x

        try:
            wait(c, 0)                                    # forward asks layer 0 at which position it starts
            return forward(chunks[c], weights, config, cache, follow)
        except BaseException as error:
            give_up(error)                                # the others would wait for ever
            raise

    progress = tqdm(total=len(chunks) * len(cache), desc="reading", unit="layer", delay=2, leave=False)
    with progress, blas().limit(limits=n_cores // n_threads), ThreadPoolExecutor(n_threads) as threads:
        try:
            for c in range(len(chunks) + n_threads):      # no more are under way than there are threads
                if c < len(chunks):
                    running.append(threads.submit(contextvars.copy_context().run, run, c))
                if c >= n_threads:
                    yield running.pop(0).result()
        finally:
            give_up(GeneratorExit())
            threads.shutdown(cancel_futures=True)


def new_cache(weights, config, max_len):
    """An empty cache of max_len tokens for every layer."""
    return [KVCache(config, max_len, weights["norm"].dtype) for _ in range(config.n_layers)]


# ---- 7. The objective ----------------------------------------------------------------------------------------

def cross_entropy(logits, targets):
    """How surprised the model is by each next token, in nats: (T, V), (T,) -> (T,).

    -log softmax(logits)[target], without ever forming a probability that could underflow.
    """
    targets = check_tokens(targets, logits.shape[-1])
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    return np.log(np.sum(np.exp(shifted), axis=-1)) - shifted[np.arange(len(targets)), targets]


def sequence_losses(tokens, weights, config):
    """Nats of every token but the first, yielded as arrays, for a sequence of any length.

    A window of the whole context moves by half its length, so that every token is predicted from at least half
    a context, or from all that comes before it.
    """
    tokens = check_tokens(tokens, config.vocab_size)
    refuse(min(len(tokens), config.max_seq_len) < 2, "a loss needs at least two tokens")
    context, half = config.max_seq_len, config.max_seq_len // 2
    for start in range(0, max(len(tokens) - context + half, 1), half):
        window = tokens[start:start + context]
        chunks = forward_in_chunks(window[:-1], weights, config, new_cache(weights, config, len(window)))
        losses = [cross_entropy(logits, window[1 + i * CHUNK:][:len(logits)]) for i, logits in enumerate(chunks)]
        yield np.concatenate(losses)[context - half - 1 if start else 0:]          # the rest was in the window before


def perplexity(tokens, weights, config):
    """exp of the mean cross-entropy: between how many equally likely tokens the model hesitates: (T,) -> number."""
    losses = np.concatenate(list(sequence_losses(tokens, weights, config)))
    return float(np.exp(np.mean(losses, dtype=np.float64)))


# ---- 8. Generation -------------------------------------------------------------------------------------------

def check_sampling(temperature, top_k, top_p):
    """Raise InputError for settings outside their range."""
    refuse(not 0 <= temperature < math.inf, f"temperature must be 0 (greedy) or a positive number, not {temperature}")
    refuse(top_k < 0, f"top_k must be 0 (off) or a positive integer, not {top_k}")
    refuse(not 0 < top_p <= 1, f"top_p must be above 0 and at most 1 (off), not {top_p}")


def next_token_probs(logits, temperature=1.0, top_k=0, top_p=1.0):
    """The distribution to draw the next token from: (V,) -> (V,), in float64 so that it sums to 1.

    Temperature divides the logits (0 is greedy); top_k keeps the k most likely tokens, and any that tie with the
    last of them; top_p then keeps the smallest set of most likely tokens that holds at least p.
    """
    check_sampling(temperature, top_k, top_p)
    logits = np.asarray(logits, np.float64)
    refuse(not np.isfinite(logits).all(), "the logits are not finite")
    if temperature == 0:
        return np.eye(1, len(logits), np.argmax(logits))[0]       # all on the largest
    with np.errstate(over="ignore"):                      # a tiny temperature: -inf is right
        logits = (logits - np.max(logits)) / temperature
    if 0 < top_k < len(logits):
        logits[logits < np.partition(logits, -top_k)[-top_k]] = -np.inf
    probs = softmax(logits)
    if top_p < 1:
        likely = np.flatnonzero(probs > (1 - top_p) / len(probs))     # all others together hold less than 1 - top_p
        order = likely[np.argsort(-probs[likely], kind="stable")]
        before = np.cumsum(probs[order]) - probs[order]   # what the more likely tokens hold
        rest = np.ones(len(probs), bool)
        rest[order[before < top_p]] = False
        probs[rest] = 0
        probs /= np.sum(probs)
    return probs


def generate(tokens, weights, config, max_new_tokens, rng=None, stop=(), temperature=1.0, top_k=0, top_p=1.0,
             cache=None):
    """Yield new token ids, one by one; a stop id is yielded and ends it, and so does a full context.

    With a cache, the tokens continue those that it holds. The last token yielded has not been through the model.
    """
    check_sampling(temperature, top_k, top_p)
    rng = rng or np.random.default_rng()
    tokens = check_tokens(tokens, config.vocab_size)
    cache = cache or new_cache(weights, config, min(len(tokens) + max_new_tokens, config.max_seq_len))
    room = min(config.max_seq_len, cache[0].k.shape[1]) - cache[0].length - len(tokens)
    for _ in range(min(max_new_tokens, max(room, 0) + 1)):   # the last token needs no room of its own
        *_, logits = forward_in_chunks(tokens, weights, config, cache, last=True)
        if temperature == 0:
            token = int(np.argmax(logits[-1]))            # to draw from a distribution of one would take 5 % longer
        else:
            sums = np.cumsum(next_token_probs(logits[-1], temperature, top_k, top_p))
            token = int(np.searchsorted(sums / sums[-1], rng.random(), side="right"))
        yield token
        if token in stop:
            return
        tokens = np.array([token])


# ---- 9. Tokenizer --------------------------------------------------------------------------------------------

class Tokenizer:
    """Text to token ids and back, by the SentencePiece model that comes with the weights."""

    def __init__(self, path):
        import sentencepiece                              # here, because the model itself does not need it
        data = read(path)
        refuse(not data, f"{path} is empty")
        try:
            self.sp = sentencepiece.SentencePieceProcessor(model_proto=data)
            self.bos, self.eos, self.vocab_size = self.sp.bos_id(), self.sp.eos_id(), self.sp.vocab_size()
            self.sp.id_to_piece(list(range(self.vocab_size)))                 # raises if a piece is not UTF-8
        except (RuntimeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not a SentencePiece model: {error}") from None
        refuse(min(self.bos, self.eos) < 0, f"{path} has no <s> or no </s>")

    def encode(self, text, bos=True):
        """Text to a list of ids. `<s>` inside the text is text: only `bos` puts the control token in front."""
        refuse(text.encode(errors="ignore").decode() != text, "the text is not valid Unicode")
        return [self.bos] * bos + self.sp.encode(text)

    def decode(self, ids):
        """Ids to text; control tokens are silent, and bytes that are not UTF-8 become U+FFFD."""
        return self.sp.decode([int(i) for i in check_tokens(ids, self.vocab_size)]) if len(ids) else ""


def stream_text(ids, tokenizer):
    """Yield text as ids arrive, never half a character; the pieces join to exactly tokenizer.decode(all ids)."""
    seen, shown, text = [], 0, ""
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
    system, turns = "", list(messages)
    if turns and turns[0]["role"] == "system":
        system = f"<<SYS>>\n{turns.pop(0)['content']}\n<</SYS>>\n\n"
    roles = [turn["role"] for turn in turns]
    refuse(not roles or any(role != ("user", "assistant")[i % 2] for i, role in enumerate(roles)),
           f"a chat must be [system,] user, assistant, user, ...: not {', '.join(roles) or 'empty'}")
    texts = [(system * (i == 0) + turn["content"]).strip() for i, turn in enumerate(turns)]
    ids = []
    for user, answer in itertools.zip_longest(texts[::2], texts[1::2]):
        ids += tokenizer.encode(f"[INST] {user} [/INST]" + ("" if answer is None else f" {answer} "))
        ids += [] if answer is None else [tokenizer.eos]
    return ids


# ---- 10. Weights ---------------------------------------------------------------------------------------------
#
# `weights` is a nested dict of arrays, and the wiring diagram of the model:
#
#     embedding (V, D)   norm (D,)   output (D, V)
#     layers[i]: attn_norm (D,)   attn: wq (D, H d)  wk, wv (D, G d)  wo (H d, D)
#                ffn_norm (D,)    ffn: gate, up (D, F)  down (F, D)
#
# Matrices are (out, in) on disk and (in, out) in memory, so that every line reads x @ w, as in the papers: transposed
# once, when they are loaded, or in place of an array a Stored, which stays in the file.

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
LLAMA_ONLY = {      # what config.json may say of features that we do not compute
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
    "attention_bias": False, "mlp_bias": False, "sliding_window": False, "quantization_config": False,
    "num_experts": False, "num_local_experts": False, "partial_rotary_factor": 1, "rope_type": "default",
    "type": "default", "use_scaled_rope": False,
}


def load(folder, dtype=np.float32, lazy=False):
    """Read a folder of safetensors weights: (weights, config), every array in `dtype` (float32 or float64).

    Hugging Face's or Meta's layout; F64, F32, F16 or BF16; one file, or shards with an index; tied or untied.
    With lazy=True matrices stay in the files, and cost time instead of memory: see Stored.
    Raises InputError for whatever is missing, inconsistent, or not Llama 1 or 2.
    """
    from tqdm import tqdm
    refuse(np.dtype(dtype) not in (np.float32, np.float64), f"dtype must be float32 or float64, not {np.dtype(dtype)}")
    refuse(lazy and dtype != np.float32, "lazy=True computes in float32 only")
    config, tensors, is_meta = open_checkpoint(folder)
    if lazy:
        pool()                                            # a thread for each core that BLAS had: its own, waiting for
        blas().limit(limits=1)                            # work, would keep the cores from them

    def array(name, layer=None):
        w = tensors[name, layer].map()
        if w.ndim == 1 or name == "embedding":            # of which each token takes one row
            return w if lazy and w.ndim == 2 else w.astype(dtype)
        rows = None
        if is_meta and name in ("wq", "wk"):
            rows = interleaved_to_halves(np.arange(len(w))[:, None], config.head_dim)[:, 0]
        return Stored(w, rows) if lazy else Stored(w, rows).transposed(dtype)

    top = {name: array(name) for name in ("embedding", "norm", "output")}
    layers = [{"attn_norm": array("attn_norm", i), "attn": {w: array(w, i) for w in ("wq", "wk", "wv", "wo")},
               "ffn_norm": array("ffn_norm", i), "ffn": {w: array(w, i) for w in ("gate", "up", "down")}}
              for i in tqdm(range(config.n_layers), "loading", unit="layer", delay=2, leave=False)]
    return {**top, "layers": layers}, config


class Stored:
    """A matrix (out, in) in a file, used as (in, out): x @ it is computed from the file, in float32.

    The file is mapped into memory, which the system fills and frees as it likes. A block of rows at a time, small
    enough to stay in cache, is widened to float32 and multiplied, by a thread for each core: numbers of 16 bits are
    read once and never kept as 32. So a model runs that would not fit, at about half the speed of one that does.
    """
    __array_ufunc__ = None                                # NumPy leaves x @ w to us

    def __init__(self, w, rows=None):
        self.w, self.rows = w, rows                       # rows: their order, if it is not that of the file

    def __len__(self):
        return self.w.shape[1]

    def __getitem__(self, some):
        return Stored(self.w[:, some], self.rows)

    def for_blocks(self, work):
        """work(slice of rows, those rows) for all rows; each thread takes its share."""
        threads, n = pool()
        step = max(1, 2**19 // len(self))
        slices = [slice(i, i + step) for i in range(0, len(self.w), step)]

        def share(k):
            for s in slices[k::n]:
                work(s, self.w[s if self.rows is None else self.rows[s]])

        list(threads.map(share, range(n)))                # an error in a thread is raised here

    def transposed(self, dtype):
        """An array (in, out): a row times it is up to 3.5 times as fast as times a view of (out, in)."""
        out = np.empty((len(self), len(self.w)), dtype)
        self.for_blocks(lambda s, block: np.copyto(out[:, s], block.astype(dtype).T))
        return out

    def __rmatmul__(self, x):
        out = np.empty((len(x), len(self.w)), np.float32)
        scale = np.float32(2**56 if self.w.dtype == np.float16 else 1)     # see widen
        x = x * scale
        self.for_blocks(lambda s, block: np.matmul(x, widen(block).T, out=out[:, s]))
        return out * scale


@functools.cache
def pool():
    """Threads for Stored, and how many they are: one for each core."""
    from concurrent.futures import ThreadPoolExecutor
    return ThreadPoolExecutor(cores()), cores()


def widen(w):
    """16-bit numbers to float32 by shifting bits, many times as fast as astype: (n, m) -> (n, m).

    bfloat16 is the upper half of a float32. float16 has three bits less of exponent, so that what comes out is 2^112
    times too small: to multiply by 2^56 before and after a product puts that right, to the bit above 1e-18.
    """
    wide = np.empty(w.shape, np.float32)
    if w.dtype == np.float16:
        refuse((w.view(np.uint16) & 0x7FFF).max() >= 0x7C00, "a weight is not finite: the weights are damaged")
        bits = wide.view(np.int32)
        bits[:] = w.view(np.int16)
        bits <<= 13
        bits &= ~0x70000000                               # the sign, which int16 to int32 repeats in the bits after it
    elif w.dtype.itemsize == 2:
        bits = wide.view(np.uint32)
        bits[:] = w.view(np.uint16)
        bits <<= 16
    else:
        wide[:] = w
    return wide


def interleaved_to_halves(w, head_dim):
    """Reorder the rows of Meta's wq or wk, which pair neighbours, to Hugging Face's halves: (out, in) -> (out, in).

    The number of heads follows from the shape, so grouped keys are reordered rightly too.
    """
    pairs = w.reshape(-1, head_dim // 2, 2, w.shape[-1])  # (heads, d/2, 2, in)
    return pairs.swapaxes(1, 2).reshape(w.shape)


def open_checkpoint(folder):
    """Check a folder: (config, {(our name, layer or None): tensor on disk}, is it Meta's layout?).

    No numbers are read, unless an output is stored that should be tied to the embedding.
    """
    folder = Path(folder)
    on_disk = {name: tensor for name, tensor in open_tensors(folder).items() if not name.endswith(STALE_TABLES)}
    is_meta = "tok_embeddings.weight" in on_disk
    config, tied = read_config(folder, on_disk)
    sizes = {"V": config.vocab_size, "D": config.dim, "F": config.hidden_dim,
             "Hd": config.n_heads * config.head_dim, "Gd": config.n_kv_heads * config.head_dim}
    tensors = {}
    for ours, (*names, letters) in TENSORS.items():
        expected = tuple(sizes[size] for size in letters.split())
        for layer in range(config.n_layers) if "{}" in names[0] else [None]:
            name = names[is_meta].format(layer)
            if ours == "output" and tied and name not in on_disk:
                tensors[ours, None] = tensors["embedding", None]
                continue
            refuse(name not in on_disk, f"{folder}: tensor {name} is missing")
            tensor = tensors[ours, layer] = on_disk.pop(name)
            refuse(tensor.shape != expected or tensor.dtype not in ("F64", "F32", "F16", "BF16"),
                   f"{folder}: tensor {name} is {tensor.dtype} {tensor.shape}, not {expected} in F64, F32, F16 or BF16")
    refuse(on_disk, f"{folder}: a Llama of {config.n_layers} layers has no tensor {min(on_disk, default=None)}")
    output, embedding = tensors["output", None], tensors["embedding", None]
    refuse(tied and output is not embedding and not np.array_equal(output.map(), embedding.map()),
           f"{folder}: tie_word_embeddings is true, but output and embedding are two different tensors")
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
    from safetensors import safe_open
    refuse(not folder.is_dir(), f"{folder} is not a folder")
    files, index = sorted(path.name for path in folder.glob("*.safetensors")), folder / "model.safetensors.index.json"
    if "model.safetensors" in files:
        files = ["model.safetensors"]
    elif index.exists():
        weight_map = read_json(index).get("weight_map")
        refuse(not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()),
               f"{index} has no weight_map from tensors to files")
        files = sorted(set(weight_map.values()))
    if not files:
        others = min((path.name for path in folder.iterdir() if path.suffix in OTHER_FORMATS), default=None)
        raise InputError(f"{folder} has no .safetensors file" + (f", only {others}: a pickle could run code, so only "
                         "safetensors are read; weights/README.md says how to convert" if others else ""))
    tensors = {}
    for file in files:
        path = folder / file
        refuse(Path(file).name != file, f"{index} points outside the folder: {file}")
        refuse(not path.is_file(), f"{path} is missing")
        try:
            with safe_open(path, framework="numpy"), path.open("rb") as data:      # which checks the header
                size = int.from_bytes(data.read(8), "little")
                header = json.loads(data.read(size))
            header.pop("__metadata__", None)
            found = {name: Tensor(path, t["dtype"], tuple(t["shape"]), 8 + size + t["data_offsets"][0])
                     for name, t in header.items()}
        except Exception as error:                        # whatever the library finds wrong with the header
            raise InputError(f"{path} is not a valid safetensors file: {error}") from None
        refuse(tensors.keys() & found.keys(), f"{path} holds tensors that another file holds too")
        tensors |= found
    return tensors


def read_json(path):
    """The object in a JSON file, or InputError."""
    try:
        value = json.loads(read(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    refuse(not isinstance(value, dict), f"{path} must hold a JSON object, not a {type(value).__name__}")
    return value


def read_config(folder, tensors):
    """(Config, is the output tied to the embedding?) from config.json, or Meta's params.json."""
    path = next((folder / name for name in ("config.json", "params.json") if (folder / name).exists()), None)
    refuse(path is None, f"{folder} has no config.json (or params.json, in Meta's layout)")
    raw = read_json(path)
    for key in ("rope_scaling", "rope_parameters"):       # before and since transformers 5
        rope = raw.pop(key, None) or {}
        refuse(not isinstance(rope, dict), f"{path}: {key} must be an object, not {rope!r}")
        raw |= rope
    for key, value in LLAMA_ONLY.items():
        refuse(raw.get(key) not in (None, value), f"{path} is not Llama 1 or 2: {key} is {raw.get(key)!r}")
    keys = CONFIG_KEYS if path.name == "config.json" else {key: key for key in CONFIG_KEYS}
    defaults = {"rope_theta": 10000.0, "n_kv_heads": raw.get(keys["n_heads"])}
    if keys is not CONFIG_KEYS:                           # Meta leaves three numbers to be worked out
        multiplier = raw.get("ffn_dim_multiplier") or 1
        refuse(type(multiplier) not in (int, float) or not 0 < multiplier < 100,
               f"{path}: ffn_dim_multiplier must be a number from 0 to 100, not {multiplier!r}")
        for key in ("dim", "multiple_of"):
            check_field("dim", raw.get(key), f"{path}: {key}")
        defaults["hidden_dim"] = feed_forward_dim(raw["dim"], raw["multiple_of"], multiplier)
        defaults["max_seq_len"] = 2048 if raw.get("norm_eps") == 1e-6 else 4096       # Llama 1 or 2
        if raw.get("vocab_size", -1) == -1 and "tok_embeddings.weight" in tensors:
            raw["vocab_size"] = (*tensors["tok_embeddings.weight"].shape, 0)[0]      # 0 is refused below
    fields = {ours: defaults.get(ours) if raw.get(key) is None else raw[key] for ours, key in keys.items()}
    for ours, key in keys.items():
        refuse(fields[ours] is None and ours != "head_dim", f"{path}: the key {key} is missing")
        check_field(ours, fields[ours], f"{path}: {key}")
    return Config(**fields), bool(raw.get("tie_word_embeddings"))


# ---- 11. Command line ----------------------------------------------------------------------------------------

EXAMPLES = """\
examples:
  python numpy_llama.py                                    a story, from "Once upon a time"
  python numpy_llama.py "The old king" -n 100 --seed 1     100 tokens; the same seed gives the same text
  python numpy_llama.py "The old king" --temperature 0     always the most likely token
  python numpy_llama.py "The old king" --trace run.npz     every intermediate value, by name
  python numpy_llama.py --perplexity book.txt              how well the model predicts a text
  python numpy_llama.py --model Llama-2-7b-chat-hf --chat --system "Answer in one sentence."
  python numpy_llama.py --model Llama-2-7b-hf --info       what is in a folder, without reading the weights
"""


def parse(argv):
    """The command line's options, checked."""
    def error(message):
        raise InputError(f"{message} (--help shows the options)")

    parser = argparse.ArgumentParser(
        prog="numpy_llama.py", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Continue a text with a Llama 1 or 2, computed step by step in NumPy.")
    parser.error, add = error, parser.add_argument
    add("prompt", nargs="?", metavar="PROMPT", help='text to continue (default: "Once upon a time")')
    add("--model", metavar="DIR", type=Path, default=Path(__file__).resolve().parent / "weights" / "fairytales",
        help="folder with config.json, safetensors and tokenizer.model (default: the small model that ships)")
    add("-n", "--max-new-tokens", metavar="N", type=int, default=256, help="stop after N tokens (default: 256)")
    add("--temperature", metavar="X", type=float, default=0.8, help="0 is greedy, 1 the model's own (default: 0.8)")
    add("--top-k", metavar="K", type=int, default=0, help="draw from the K most likely tokens (default: 0, all)")
    add("--top-p", metavar="P", type=float, default=0.95,
        help="... from the likeliest that hold P together (default: 0.95)")
    add("--seed", metavar="N", type=int, default=int(np.random.SeedSequence().entropy % 10**6),
        help="same seed, same text (default: a new one each time, shown at the end)")
    add("--lazy", action="store_true",
        help="leave the weights in their file: little memory, half the speed (default: if they do not fit)")
    add("--system", metavar="TEXT", help="with --chat: how the assistant should behave")
    mode = parser.add_mutually_exclusive_group().add_argument
    mode("--chat", action="store_true", help="talk in the Llama 2 chat format, a line at a time")
    mode("--trace", metavar="FILE", type=Path, help="list and save every intermediate value (.safetensors or .npz)")
    mode("--perplexity", metavar="FILE", type=Path, help="how well the model predicts a text file")
    mode("--info", action="store_true", help="sizes, parameters and memory, without reading weights")
    args = parser.parse_args(argv)
    check_sampling(args.temperature, args.top_k, args.top_p)
    refuse(args.max_new_tokens < 1, f"--max-new-tokens must be positive, not {args.max_new_tokens}")
    refuse(args.seed < 0, f"--seed must not be negative, not {args.seed}")
    refuse(args.system is not None and not args.chat, "--system goes with --chat")
    if args.prompt is None and not args.chat:
        args.prompt = "Once upon a time"
    args.sampling = dict(max_new_tokens=args.max_new_tokens, rng=np.random.default_rng(args.seed),
                         temperature=args.temperature, top_k=args.top_k, top_p=args.top_p)
    return args


def main(argv=None):
    """Run the command line and return its exit status: 0, 2 after an error, 130 after Ctrl-C."""
    try:
        with np.errstate(all="ignore"):                   # damaged weights: logits are checked before they are used
            args = parse(argv)
            run = (show_info if args.info else save_trace if args.trace else
                   show_perplexity if args.perplexity else chat if args.chat else tell)
            run(args)
            sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        print(file=sys.stderr)                            # the shell's next prompt gets a line of its own
        return 130
    except BrokenPipeError:                               # the reader has what it wanted; nothing is left to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, MemoryError, OSError) as error:   # OSError: a full disk, a name that is too long
        print(f"error: {' '.join(str(error).split())[:500] or 'not enough memory'}", file=sys.stderr)
        return 2


def memory():
    """How many bytes of memory this machine has, as far as it tells."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else math.inf


def load_with_tokenizer(folder, lazy):
    """(weights, config, tokenizer, ids that end a text); `lazy` or not, weights that do not fit stay in their file."""
    config, tensors, _ = open_checkpoint(folder)          # so that a wrong tokenizer is refused before weights are read
    vocab_size, size = config.vocab_size, sum(4 * math.prod(tensor.shape) for tensor in tensors.values())
    tokenizer = Tokenizer(folder / "tokenizer.model")
    refuse(tokenizer.vocab_size > vocab_size,
           f"{folder}: tokenizer.model has {tokenizer.vocab_size} pieces, the embedding {vocab_size}")
    stop = {tokenizer.eos}
    for path in (folder / "config.json", folder / "generation_config.json"):
        ids = read_json(path).get("eos_token_id") if path.exists() else None
        stop |= {i for i in (ids if isinstance(ids, list) else [ids]) if type(i) is int}
    if size > 0.9 * memory() and not lazy:
        lazy = True
        print(f"{size / 2**30:.1f} GiB in float32 do not fit in {memory() / 2**30:.1f} GiB of memory: "
              "the weights stay in their file (--lazy)", file=sys.stderr)
    return *load(folder, lazy=lazy), tokenizer, stop


def show(ids, tokenizer):
    """Print text as its ids arrive, and return them as a list."""
    ids, printed = itertools.tee(ids)
    for piece in stream_text(printed, tokenizer):
        print(piece, end="", flush=True)
    print(flush=True)
    return list(ids)


def tell(args):
    """Print the prompt and what the model makes of it, then one line of figures on standard error."""
    weights, config, tokenizer, stop = load_with_tokenizer(args.model, args.lazy)
    prompt = tokenizer.encode(args.prompt)
    began, new = time.perf_counter(), generate(prompt, weights, config, stop=stop, **args.sampling)
    first_id, first = next(new), time.perf_counter()      # before anything is shown, so that a refusal stands alone
    n_new = len(show(itertools.chain(prompt, [first_id], new), tokenizer)) - len(prompt)
    rate = f", {(n_new - 1) / (time.perf_counter() - first):.0f} tokens/s" if n_new > 1 else ""
    print(f"prompt {len(prompt)} tokens, {len(prompt) / (first - began):.0f} tokens/s; "
          f"new {n_new} tokens{rate}; seed {args.seed}", file=sys.stderr)


def chat(args):
    """Read a line, answer it, and so on. Only tokens that the cache does not hold go through the model."""
    weights, config, tokenizer, stop = load_with_tokenizer(args.model, args.lazy)
    cache, held = new_cache(weights, config, config.max_seq_len), []      # held: the tokens in the cache
    messages = [{"role": "system", "content": args.system}] if args.system else []
    for line in itertools.chain([args.prompt or ""], iter(sys.stdin.readline, "")):
        if line.strip():
            messages.append({"role": "user", "content": line})
            tokens = chat_tokens(messages, tokenizer)
            same = [a == b for a, b in zip(tokens, held)] + [False]
            for layer in cache:                           # an answer may be spelled in other tokens than it came in
                layer.length = same.index(False)
            new = generate(tokens[cache[0].length:], weights, config, stop=stop, cache=cache, **args.sampling)
            answer = show(new, tokenizer)
            messages.append({"role": "assistant", "content": tokenizer.decode(answer)})
            held = (tokens + answer)[:cache[0].length]
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
    if sys.stdin.isatty():                                # Ctrl-D
        print(file=sys.stderr)


def save_trace(args):
    """Print name, shape, mean and standard deviation of every intermediate value, and save them all."""
    from safetensors.numpy import save_file
    refuse(args.trace.suffix not in (".safetensors", ".npz") or args.trace.is_dir(),
           f"{args.trace} must be a file that ends in .safetensors or .npz")
    part, trace = args.trace.with_name(f".part-{args.trace.name}"), Trace()
    try:
        part.touch()                                      # no work is done in vain, and no older trace is lost
    except OSError as error:
        raise InputError(f"{args.trace} cannot be written: {error.strerror}") from None
    try:
        weights, config, tokenizer, _ = load_with_tokenizer(args.model, args.lazy)
        forward(tokenizer.encode(args.prompt), weights, config, tap=trace)
        if args.trace.suffix == ".npz":
            np.savez(part, **trace)
        else:
            save_file({name: np.ascontiguousarray(x) for name, x in trace.items()}, part)
        os.replace(part, args.trace)
    finally:
        part.unlink(missing_ok=True)
    for name, x in trace.items():
        seen = x[np.isfinite(x)] if np.isfinite(x).any() else x           # masked scores are -inf
        print(f"{name:28} {str(x.shape):16} mean {seen.mean():10.5f}  std {seen.std():10.5f}")


def show_perplexity(args):
    """Print nats per token, perplexity and bits per byte of a text file."""
    from tqdm import tqdm
    try:
        text = read(args.perplexity).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{args.perplexity} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    weights, config, tokenizer, _ = load_with_tokenizer(args.model, args.lazy)
    tokens, nats = tokenizer.encode(text), 0.0
    with tqdm(total=len(tokens) - 1, unit="token", delay=2, leave=False) as progress:
        for some in sequence_losses(tokens, weights, config):
            nats += math.fsum(some)
            progress.update(len(some))
    mean, n_bytes = nats / (len(tokens) - 1), len(text.encode())
    print(f"{mean:.4f} nats per token, perplexity {np.exp(mean):.3f}, "
          f"{nats / math.log(2) / n_bytes:.4f} bits per byte ({len(tokens) - 1} tokens, {n_bytes} bytes)")


def show_info(args):
    """Print configuration, parameters by component, memory, and the published sizes that match."""
    config, tensors, is_meta = open_checkpoint(args.model)
    tied = tensors["output", None] is tensors["embedding", None]
    counts, mib = parameter_counts(config, tied), 4 / 2**20               # MiB of a float32
    total, cache = sum(counts.values()), 2 * config.n_layers * config.n_kv_heads * config.head_dim * config.max_seq_len
    dtypes = ", ".join(sorted({tensor.dtype for tensor in tensors.values()}))
    print(f"{args.model.resolve().name}: {'Meta' if is_meta else 'Hugging Face'} layout, {dtypes}")
    for name, value in asdict(config).items():
        print(f"  {name:14} {value}")
    print(f"{total:,} parameters{', output tied to embedding' * tied}")
    for name, count in counts.items():
        print(f"  {name:14} {count:14,}  {count / total:6.1%}")
    print(f"memory in float32\n  weights        {mib * (total + tied * counts['embedding']):,.1f} MiB\n"
          f"  cache          {mib * cache:,.1f} MiB for {config.max_seq_len} tokens")
    same = [name for name, preset in PRESETS.items()
            if replace(preset, max_seq_len=config.max_seq_len, norm_eps=config.norm_eps) == config]
    print(f"sizes of {' and '.join(same)}" if same else "not one of the published sizes")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")              # whatever the locale says
    sys.exit(main())
