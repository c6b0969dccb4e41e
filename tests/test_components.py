"""Every component against its formula, worked out one number at a time in plain Python.

The loops are the specification. They run on Python's floats, so in float64 only the last digits may differ, and in
float32 only the rounding.
"""
import cmath
import math
import warnings

import numpy as np
import pytest
import tiny

import numpy_llama as nl

# The largest difference as a share of the largest value. Measured: components 4.8e-16 and 2.0e-7, a whole model 1.6e-15
# and 6.6e-7; the rest is room for another processor's order of summation.
TOLERANCE = {np.float64: 1e-14, np.float32: 2e-6}
both = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])


def assert_close(ours, specified, dtype, steps=1):
    """The same, within the tolerance of one step for each of the steps whose rounding adds up."""
    specified = np.array(specified)
    assert ours.dtype == dtype and ours.shape == specified.shape
    assert np.max(np.abs(ours - specified)) <= steps * TOLERANCE[dtype] * np.max(np.abs(specified))


def numbers(*shape, dtype, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


# ---- The specification ---------------------------------------------------------------------------------------

def product(row, matrix):
    return [sum(row[i] * matrix[i][j] for i in range(len(row))) for j in range(len(matrix[0]))]


def softmax(row):
    """exp(x_i) / sum_j exp(x_j)"""
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def silu(x):
    """x sigmoid(x)"""
    return x / (1 + math.exp(-x))


def rms_norm(row, weight, eps):
    """x / sqrt(mean(x^2) + eps) * g  (RMSNorm, equation 4)"""
    mean = sum(x * x for x in row) / len(row)
    return [x / math.sqrt(mean + eps) * g for x, g in zip(row, weight)]


def angle(position, i, head_dim, theta):
    """p theta^(-2i/d)  (RoPE, section 3.2.2)"""
    return position * theta ** (-2 * i / head_dim)


def rope(vector, position, theta):
    """The pair (x_i, x_{i + d/2}), as a complex number, times e^(i angle)."""
    half = len(vector) // 2
    turned = [complex(vector[i], vector[i + half]) * cmath.exp(1j * angle(position, i, 2 * half, theta))
              for i in range(half)]
    return [z.real for z in turned] + [z.imag for z in turned]


def rope_neighbours(vector, position, theta):
    """The pair (x_2i, x_2i+1) instead, as in the paper and in Meta's code."""
    turned = [complex(vector[2 * i], vector[2 * i + 1]) * cmath.exp(1j * angle(position, i, len(vector), theta))
              for i in range(len(vector) // 2)]
    return [part for z in turned for part in (z.real, z.imag)]


def attention(q, k, v, positions):
    """softmax(q k / sqrt(d)) v over the keys up to each query's own position; H / G query heads share a key head."""
    shared = len(q) // len(k)
    heads = []
    for h in range(len(q)):
        keys, values = k[h // shared], v[h // shared]
        rows = []
        for query, position in zip(q[h], positions):
            probs = softmax([sum(a * b for a, b in zip(query, keys[s])) / math.sqrt(len(query))
                             for s in range(position + 1)])
            rows.append([sum(p * value[j] for p, value in zip(probs, values)) for j in range(len(query))])
        heads.append(rows)
    return heads


def feed_forward(row, gate, up, down):
    """(silu(x gate) * (x up)) down  (GLU variants, equation 6)"""
    return product([silu(a) * b for a, b in zip(product(row, gate), product(row, up))], down)


def heads_of(rows, head_dim):
    """Numbers h d to (h + 1) d of a row belong to head h."""
    return [[row[start:start + head_dim] for row in rows] for start in range(0, len(rows[0]), head_dim)]


def block(rows, layer, config):
    """x + attention(norm(x)), then x + feed_forward(norm(x)), for a sequence from position 0."""
    attn, eps = layer["attn"], config.norm_eps
    normed = [rms_norm(row, layer["attn_norm"], eps) for row in rows]
    q, k, v = (heads_of([product(row, attn[w]) for row in normed], config.head_dim) for w in ("wq", "wk", "wv"))
    q, k = ([[rope(vector, position, config.rope_theta) for position, vector in enumerate(head)] for head in x]
            for x in (q, k))
    mixed = attention(q, k, v, range(len(rows)))
    joined = [[number for head in mixed for number in head[t]] for t in range(len(rows))]
    rows = [[a + b for a, b in zip(row, product(out, attn["wo"]))] for row, out in zip(rows, joined)]
    fed = [feed_forward(rms_norm(row, layer["ffn_norm"], eps), **layer["ffn"]) for row in rows]
    return [[a + b for a, b in zip(row, out)] for row, out in zip(rows, fed)]


def forward(tokens, weights, config):
    rows = [weights["embedding"][token] for token in tokens]
    for layer in weights["layers"]:
        rows = block(rows, layer, config)
    return [product(rms_norm(row, weights["norm"], config.norm_eps), weights["output"]) for row in rows]


def as_lists(x):
    """A nest of arrays as a nest of Python floats."""
    if isinstance(x, dict):
        return {name: as_lists(value) for name, value in x.items()}
    return [as_lists(value) for value in x] if isinstance(x, list) else x.tolist()


# ---- Primitives ----------------------------------------------------------------------------------------------

@both
def test_softmax(dtype):
    x = 3 * numbers(2, 3, 7, dtype=dtype)
    x[0, 0, 2:] = -np.inf                                     # as masked scores are
    assert_close(nl.softmax(x), [[softmax(row) for row in rows] for rows in x.tolist()], dtype)


@both
def test_softmax_of_large_numbers(dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(nl.softmax(np.array([[1e4, 1e4], [1e4, -1e4], [-1e4, -1e4]], dtype)),
                                      [[0.5, 0.5], [1, 0], [0.5, 0.5]])


@both
def test_silu(dtype):
    x = 4 * numbers(5, 9, dtype=dtype)
    assert_close(nl.silu(x), [[silu(number) for number in row] for row in x.tolist()], dtype)


@both
def test_silu_of_large_numbers(dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(nl.silu(np.array([-1000, -1e4, 0, 1000, 1e4], dtype)), [0, 0, 0, 1000, 1e4])


@both
@pytest.mark.parametrize("eps", [1e-5, 1e-6, 1e-3])
@pytest.mark.parametrize("size", [1, 1e-2, 1e-4, 0])          # in small rows, eps decides
def test_rms_norm(eps, size, dtype):
    x, weight = size * numbers(3, 8, dtype=dtype), numbers(8, dtype=dtype)
    assert_close(nl.rms_norm(x, weight, eps), [rms_norm(row, weight.tolist(), eps) for row in x.tolist()], dtype)


# ---- Positions -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("theta", [1e4, 1e6])
@pytest.mark.parametrize("head_dim", [2, 6, 128])
def test_rope_cos_sin(head_dim, theta):
    positions = [0, 1, 2, 17, 4095]
    angles = [[angle(p, i, head_dim, theta) for i in range(head_dim // 2)] for p in positions]
    cos, sin = nl.rope_cos_sin(positions, head_dim, theta, np.float64)
    # The last digit of an angle near 4,095 is 4.5e-13. Measured: 2.3e-13.
    np.testing.assert_allclose(cos, np.cos(angles), rtol=0, atol=4e-12)
    np.testing.assert_allclose(sin, np.sin(angles), rtol=0, atol=4e-12)
    # In float32 it has one of 2.4e-4, and rounds three times on the way. Measured: 2.7e-4.
    for exact, rounded in zip((cos, sin), nl.rope_cos_sin(positions, head_dim, theta)):
        assert rounded.dtype == np.float32 and rounded.shape == (5, head_dim // 2)
        np.testing.assert_allclose(rounded, exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("head_dim, theta, bits", [
    *((d, 1e4, 0) for d in (8, 16, 32, 64, 128)), (48, 1e4, 2),
    *((d, theta, 2) for d in (96, 128) for theta in (1e4, 1e6))])
def test_rope_cos_sin_at_every_position_against_transformers(head_dim, theta, bits):
    """Bits by which a frequency may differ: none for the widths and the theta of Llama 1 and 2.

    Elsewhere PyTorch's vectorised power is off by one or two in about one frequency of a hundred; ours is rounded
    once. The two libraries' cosines of one and the same angle differ by at most one unit in the last place, 1.2e-7;
    an angle at position 4095 is off by 2.4e-4 if its frequency is off by one bit.
    """
    import torch  # here, so that the rest starts at once
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    module = LlamaRotaryEmbedding(LlamaConfig(
        head_dim=head_dim, rope_parameters={"rope_type": "default", "rope_theta": theta}))
    positions, half = np.arange(4096), head_dim // 2
    theirs = module(torch.zeros(1), torch.from_numpy(positions)[None])
    tolerance = 1.2e-7 + bits * positions[:, None] * np.spacing(module.inv_freq.numpy())
    if bits:
        tolerance += np.spacing(positions[:, None] * module.inv_freq.numpy())         # the angle's own rounding
    for ours, other in zip(nl.rope_cos_sin(positions, head_dim, theta), theirs):
        assert np.all(np.abs(ours - other[0, :, :half].numpy()) <= tolerance)


@both
def test_rope(dtype):
    x, positions = numbers(3, 4, 10, dtype=dtype), [0, 1, 5, 9]
    cos, sin = nl.rope_cos_sin(positions, 10, 1e4, dtype)
    expected = [[rope(vector, p, 1e4) for p, vector in zip(positions, head)] for head in x.tolist()]
    assert_close(nl.rope(x, cos, sin), expected, dtype)


# ---- Attention -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("start, n", [(0, 1), (0, 5), (3, 1), (3, 4)])
def test_causal_mask(start, n):
    mask = nl.causal_mask(np.arange(start, start + n), start + n)
    np.testing.assert_array_equal(mask, [[seen <= start + t for seen in range(start + n)] for t in range(n)])


def test_split_and_merge_heads():
    x = numbers(3, 8, dtype=np.float32)
    np.testing.assert_array_equal(nl.split_heads(x, 2), heads_of(x.tolist(), 2))
    np.testing.assert_array_equal(nl.merge_heads(nl.split_heads(x, 2)), x)


@both
@pytest.mark.parametrize("start, n", [(0, 1), (0, 5), (6, 1), (6, 3)])
@pytest.mark.parametrize("H, G", [(1, 1), (4, 4), (4, 2), (6, 2), (3, 1)])
def test_attention(H, G, start, n, dtype):
    q = numbers(H, n, 6, dtype=dtype)
    k, v = numbers(G, start + n, 6, dtype=dtype, seed=1), numbers(G, start + n, 6, dtype=dtype, seed=2)
    positions = np.arange(start, start + n)
    expected = attention(q.tolist(), k.tolist(), v.tolist(), positions.tolist())
    assert_close(nl.attention(q, k, v, nl.causal_mask(positions, start + n)), expected, dtype)


@both
def test_cache(dtype):
    cache = nl.KVCache(tiny.CONFIG, 5, dtype)
    k, v = numbers(2, 5, 6, dtype=dtype), numbers(2, 5, 6, dtype=dtype, seed=1)
    for start, end in [(0, 3), (3, 4), (4, 5)]:
        all_k, all_v = cache.extend(k[:, start:end], v[:, start:end])
        assert cache.length == end and all_k.dtype == all_v.dtype == dtype
        np.testing.assert_array_equal(all_k, k[:, :end])
        np.testing.assert_array_equal(all_v, v[:, :end])


def test_full_cache_refuses_and_is_unchanged():
    cache, k = nl.KVCache(tiny.CONFIG, 4), numbers(2, 3, 6, dtype=np.float32)
    cache.extend(k, 2 * k)
    before = cache.k.copy(), cache.v.copy()
    with pytest.raises(nl.InputError, match="5 tokens do not fit in 4"):
        cache.extend(k[:, :2], k[:, :2])
    assert cache.length == 3
    np.testing.assert_array_equal(cache.k, before[0])
    np.testing.assert_array_equal(cache.v, before[1])


def test_cache_is_as_long_as_the_context_unless_told():
    assert nl.KVCache(tiny.CONFIG).k.shape == nl.KVCache(tiny.CONFIG).v.shape == (2, 32, 6)
    assert nl.KVCache(tiny.CONFIG).k.dtype == np.float32


# ---- The model -----------------------------------------------------------------------------------------------

@both
@pytest.mark.parametrize("n", [1, 4])
def test_feed_forward(n, dtype):
    x, ffn = numbers(n, 12, dtype=dtype), tiny.random_weights(tiny.CONFIG, dtype=dtype)["layers"][0]["ffn"]
    assert_close(nl.feed_forward(x, **ffn), [feed_forward(row, **as_lists(ffn)) for row in x.tolist()], dtype)


@both
def test_block(dtype):
    config, x = tiny.CONFIG, numbers(5, 12, dtype=dtype)
    layer, positions = tiny.random_weights(config, dtype=dtype)["layers"][0], np.arange(5)
    cos, sin = nl.rope_cos_sin(positions, config.head_dim, config.rope_theta, dtype)
    ours = nl.block(x, **layer, cos=cos, sin=sin, mask=nl.causal_mask(positions, 5), eps=config.norm_eps)
    assert_close(ours, block(x.tolist(), as_lists(layer), config), dtype)


SHAPES = {      # D, L, H, G, F, V, and what is not the default
    "grouped": tiny.CONFIG,
    "multi-head, d = D/H": nl.Config(16, 1, 4, 4, 24, 19),
    "multi-query, theta 1e6, eps 1e-3": nl.Config(15, 2, 3, 1, 11, 23, norm_eps=1e-3, rope_theta=1e6, head_dim=8),
    "six heads on two": nl.Config(7, 2, 6, 2, 13, 17, norm_eps=1e-6, head_dim=4),
    "one of everything": nl.Config(2, 1, 1, 1, 1, 2),
}


@both
@pytest.mark.parametrize("n", [1, 9])
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_forward(config, n, dtype):
    weights = tiny.random_weights(config, dtype=dtype)
    weights["embedding"] *= dtype(0.01)                       # small enough for eps to matter
    tokens = np.random.default_rng(n).integers(0, config.vocab_size, n)
    # Two layers and the output: measured 2.1e-6 at most, in float32.
    assert_close(nl.forward(tokens, weights, config), forward(tokens, as_lists(weights), config), dtype, steps=3)


@pytest.mark.parametrize("tokens", [[-1], [0, 31], [[1, 2]], [], [0.5], [True], ["1"]], ids=str)
def test_forward_refuses_what_is_not_a_token(tokens):
    with pytest.raises(nl.InputError, match="token"):
        nl.forward(tokens, tiny.random_weights(tiny.CONFIG), tiny.CONFIG)


def test_forward_refuses_more_than_the_context():
    with pytest.raises(nl.InputError, match="33 tokens do not fit in the context of 32"):
        nl.forward([1] * 33, tiny.random_weights(tiny.CONFIG), tiny.CONFIG)


# ---- The objective -------------------------------------------------------------------------------------------

@both
def test_cross_entropy(dtype):
    logits, targets = 3 * numbers(6, 9, dtype=dtype), np.array([0, 8, 3, 3, 1, 0])
    expected = [-math.log(softmax(row)[target]) for row, target in zip(logits.tolist(), targets)]
    assert_close(nl.cross_entropy(logits, targets), expected, dtype)


@both
def test_cross_entropy_of_extreme_logits(dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses = nl.cross_entropy(np.array([[1e4, -1e4], [1e4, -1e4], [-1e4, -1e4]], dtype), [0, 1, 1])
    np.testing.assert_array_equal(losses, np.array([0, 2e4, math.log(2)], dtype))


def test_cross_entropy_refuses_targets_outside_the_vocabulary():
    with pytest.raises(nl.InputError, match="token id -1"):
        nl.cross_entropy(numbers(1, 9, dtype=np.float32), [-1])


def test_cross_entropy_refuses_one_target_for_several_rows():
    with pytest.raises(nl.InputError, match="3 rows, 1 targets"):                 # NumPy would take it for each row
        nl.cross_entropy(numbers(3, 9, dtype=np.float32), [2])


@pytest.mark.parametrize("n", [2, 31, 32, 33, 48, 49, 80])
def test_perplexity(n):
    """Windows of the context move by half; a token is predicted in the first window that holds it."""
    config, context = tiny.CONFIG, tiny.CONFIG.max_seq_len
    weights = tiny.random_weights(config, dtype=np.float64)
    tokens, losses = np.random.default_rng(n).integers(0, config.vocab_size, n), []
    for i in range(1, n):
        start = next(s for s in range(0, n, context // 2) if i < s + context)
        assert i - start >= min(i, context // 2)              # what the docstring promises
        logits = nl.forward(tokens[start:i], weights, config)[-1]
        losses.append(-math.log(softmax(logits.tolist())[tokens[i]]))
    expected = math.exp(sum(losses) / (n - 1))
    # Measured: 8.9e-16.
    assert abs(nl.perplexity(tokens, weights, config) / expected - 1) < 1e-13


# ---- Sizes and layouts ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("dim", [1, 12, 288, 4096, 5120, 6656, 8192])
@pytest.mark.parametrize("multiple_of, multiplier", [(256, 1.0), (32, 1.0), (4096, 1.3), (1, 0.5)])
def test_feed_forward_dim(dim, multiple_of, multiplier):
    least = int(multiplier * int(2 * (4 * dim) / 3))          # as Meta's model.py has it
    assert nl.feed_forward_dim(dim, multiple_of, multiplier) == next(
        n for n in range(least, least + multiple_of) if n % multiple_of == 0)


@pytest.mark.parametrize("heads, head_dim", [(1, 2), (4, 6), (2, 16)])
def test_interleaved_to_halves(heads, head_dim):
    w = numbers(heads * head_dim, 5, dtype=np.float32)
    expected = [w[h * head_dim + 2 * i + part] for h in range(heads) for part in (0, 1) for i in range(head_dim // 2)]
    np.testing.assert_array_equal(nl.interleaved_to_halves(w, head_dim), expected)


def test_both_layouts_give_the_same_scores():
    # Meta's rows with Meta's rotation, and our rows with ours: two heads of width 6, keys at position 2, queries at 7.
    x = numbers(1, 5, dtype=np.float64)
    wq, wk = (numbers(12, 5, dtype=np.float64, seed=seed) for seed in (1, 2))
    for start in (0, 6):
        q, k = (product(x[0], w[start:start + 6].T) for w in (wq, wk))
        meta = np.dot(rope_neighbours(q, 7, 1e4), rope_neighbours(k, 2, 1e4))
        q, k = (nl.split_heads(x @ nl.interleaved_to_halves(w, 6).T, 6)[start // 6] for w in (wq, wk))
        ours = nl.rope(q, *nl.rope_cos_sin([7], 6, 1e4, np.float64)) @ nl.rope(
            k, *nl.rope_cos_sin([2], 6, 1e4, np.float64)).T
        assert abs(ours[0, 0] - meta) < 1e-13 * abs(meta)     # measured: 1.8e-16
