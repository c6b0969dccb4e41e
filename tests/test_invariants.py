"""What must hold for every Llama, whatever its weights: properties, over tiny random models.

The oracles are identities (a prompt in chunks is the same prompt), the documented names and shapes, and exact zeros.
"""
import copy

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import numpy_llama as nl

few = settings(max_examples=40, deadline=None, derandomize=True, report_multiple_bugs=False)
dtypes = st.sampled_from([np.float32, np.float64])


@st.composite
def configs(draw):
    def number(low, high):
        return draw(st.integers(low, high))

    kv_heads = number(1, 3)
    return nl.Config(number(2, 12), number(1, 3), kv_heads * number(1, 3), kv_heads, number(1, 16), number(2, 30),
                     max_seq_len=64, norm_eps=draw(st.sampled_from([1e-3, 1e-5, 1e-6])),
                     rope_theta=draw(st.sampled_from([1e4, 1e6])), head_dim=2 * number(1, 5))


@st.composite
def runs(draw, dtype=None, least=1):
    """(tokens, weights, config) of one random run."""
    config = draw(configs())
    weights = tiny.random_weights(config, draw(st.integers(0, 2**32)), dtype or draw(dtypes))
    tokens = draw(st.lists(st.integers(0, config.vocab_size - 1), min_size=least, max_size=20))
    return np.array(tokens), weights, config


def trace_of(tokens, weights, config, cache=None):
    trace = nl.Trace()
    nl.forward(tokens, weights, config, cache, trace)
    return trace


def shapes(config, T, S):
    """{name: shape} in the order of computation, as documented."""
    D, H, G, d, F = config.dim, config.n_heads, config.n_kv_heads, config.head_dim, config.hidden_dim
    layer = {
        "attn_norm": (T, D), "attn.q": (H, T, d), "attn.k": (G, T, d), "attn.v": (G, T, d), "attn.q_rope": (H, T, d),
        "attn.k_rope": (G, T, d), "attn.scores": (H, T, S), "attn.probs": (H, T, S), "attn.heads": (H, T, d),
        "attn.out": (T, D), "x_attn": (T, D), "ffn_norm": (T, D), "ffn.gate": (T, F), "ffn.silu": (T, F),
        "ffn.up": (T, F), "ffn.hidden": (T, F), "ffn.out": (T, D), "x_ffn": (T, D)}
    layers = {f"layers.{i}.{name}": shape for i in range(config.n_layers) for name, shape in layer.items()}
    return {"embedding": (T, D), **layers, "norm": (T, D), "logits": (T, config.vocab_size)}


# ---- Cache and mask ------------------------------------------------------------------------------------------

@few
@given(runs(), st.data())
def test_any_split_into_chunks_gives_the_same_logits(run, data):
    tokens, weights, config = run
    cuts = sorted({0, len(tokens), *data.draw(st.sets(st.integers(1, len(tokens))))})
    dtype = weights["embedding"].dtype
    cache = tiny.new_cache(config, len(tokens), dtype)
    parts = [nl.forward(tokens[start:end], weights, config, cache) for start, end in zip(cuts, cuts[1:])]
    whole = nl.forward(tokens, weights, config)
    # BLAS adds in another order for another number of rows, so the last bits differ.
    # Measured over 1,200 models: at most 2.8e-5 and 1.2e-13 of the largest logit, where a norm divides by almost
    # nothing, and otherwise 2.4e-6 and 1.3e-14. A mistake is of order one.
    tolerance = 2e-4 if dtype == np.float32 else 1e-12
    assert np.max(np.abs(np.concatenate(parts) - whole)) <= tolerance * np.max(np.abs(whole))


@few
@given(runs(least=2), st.data())
def test_a_changed_future_token_changes_no_past_logit(run, data):
    tokens, weights, config = run
    changed, i = tokens.copy(), data.draw(st.integers(1, len(tokens) - 1))
    changed[i:] = (changed[i:] + 1) % config.vocab_size
    before, after = trace_of(tokens, weights, config), trace_of(changed, weights, config)
    # Not one bit: which numbers are added to which depends on the shapes, and those are the same.
    np.testing.assert_array_equal(before["logits"][:i], after["logits"][:i])
    assert not np.array_equal(before["logits"][i], after["logits"][i])


@few
@given(runs(), st.data())
def test_the_cache_holds_the_traced_keys_and_values(run, data):
    tokens, weights, config = run
    room = data.draw(st.integers(len(tokens), 64))
    cut = data.draw(st.integers(0, len(tokens)))
    cache = tiny.new_cache(config, room, weights["embedding"].dtype)
    traces = [trace_of(part, weights, config, cache) for part in (tokens[:cut], tokens[cut:]) if len(part)]
    for i, layer in enumerate(cache):
        assert layer.length == len(tokens) and layer.k.shape[1] == layer.v.shape[1] == room
        for held, name in ((layer.k, "k_rope"), (layer.v, "v")):
            given_to_it = np.concatenate([trace[f"layers.{i}.attn.{name}"] for trace in traces], axis=1)
            np.testing.assert_array_equal(held[:, :len(tokens)], given_to_it)
            assert not held[:, len(tokens):].any()


@few
@given(runs(least=2))
def test_a_full_cache_refuses_and_is_unchanged(run):
    tokens, weights, config = run
    cache = tiny.new_cache(config, len(tokens) - 1, weights["embedding"].dtype)
    nl.forward(tokens[:-1], weights, config, cache)
    before = copy.deepcopy(cache)
    with pytest.raises(nl.InputError, match="full"):
        nl.forward(tokens[-1:], weights, config, cache)
    for ours, theirs in zip(cache, before):
        assert ours.length == theirs.length
        np.testing.assert_array_equal(ours.k, theirs.k)
        np.testing.assert_array_equal(ours.v, theirs.v)


# ---- Rotation and probabilities ------------------------------------------------------------------------------

@few
@given(st.integers(1, 32), st.integers(0, 2000), st.integers(0, 2000), st.integers(1, 2000), st.integers(0, 2**32),
       st.sampled_from([1e4, 1e6]))
def test_rotated_products_depend_on_distance_only_and_norms_are_kept(half, m, n, shift, seed, theta):
    q, k = np.random.default_rng(seed).normal(size=(2, 1, 1, 2 * half))

    def turn(x, position):
        return nl.rope(x, *nl.rope_cos_sin([position], 2 * half, theta, np.float64))

    # Angles near 4,000 are rounded to 4.5e-13, half at most of that each. Measured: 2.5e-14 and 4.4e-16.
    size = np.linalg.norm(q) * np.linalg.norm(k)
    here, there = np.sum(turn(q, m) * turn(k, n)), np.sum(turn(q, m + shift) * turn(k, n + shift))
    assert abs(here - there) <= 1e-12 * size
    assert abs(np.linalg.norm(turn(q, m)) / np.linalg.norm(q) - 1) <= 1e-14


@few
@given(runs())
def test_probabilities_sum_to_one_and_the_future_has_none(run):
    tokens, weights, config = run
    trace, T = trace_of(tokens, weights, config), len(tokens)
    future = np.triu(np.ones((T, T), bool), 1)
    # n numbers near 1/n, each rounded, and their sum: measured, at most 3 units in the last place.
    tolerance = 8 * np.finfo(weights["embedding"].dtype).eps
    for i in range(config.n_layers):
        scores, probs = trace[f"layers.{i}.attn.scores"], trace[f"layers.{i}.attn.probs"]
        assert np.all(np.abs(probs.sum(axis=-1, dtype=np.float64) - 1) <= tolerance)
        assert np.all(probs >= 0) and not probs[:, future].any()
        assert np.all(scores[:, future] == -np.inf) and np.isfinite(scores[:, ~future]).all()


# ---- Taps ----------------------------------------------------------------------------------------------------

@few
@given(runs(), st.data())
def test_names_shapes_and_dtypes_are_as_documented(run, data):
    tokens, weights, config = run
    dtype, start = weights["embedding"].dtype, data.draw(st.integers(0, len(tokens) - 1))
    cache = tiny.new_cache(config, None, dtype)
    if start:
        nl.forward(tokens[:start], weights, config, cache)
    trace = trace_of(tokens[start:], weights, config, cache)
    expected = shapes(config, len(tokens) - start, len(tokens))
    assert {name: x.shape for name, x in trace.items()} == expected and list(trace) == list(expected)
    assert {name: x.dtype for name, x in trace.items()} == {name: dtype for name in expected}


@few
@given(runs())
def test_trace_on_and_off_give_identical_bits(run):
    tokens, weights, config = run
    off, on = nl.forward(tokens, weights, config), nl.Trace()
    assert nl.forward(tokens, weights, config, tap=on) is on["logits"]
    assert off.dtype == on["logits"].dtype
    np.testing.assert_array_equal(off, on["logits"])


def test_trace_refuses_a_name_twice():
    run = np.array([1, 2]), tiny.random_weights(tiny.CONFIG), tiny.CONFIG
    trace = trace_of(*run)
    first = dict(trace)
    with pytest.raises(KeyError, match="embedding"):
        nl.forward(*run, tap=trace)
    assert trace == first


@few
@given(runs(), st.data())
def test_tapped_arrays_and_inputs_are_never_modified(run, data):
    tokens, weights, config = run
    cut, seen, weights_before = data.draw(st.integers(0, len(tokens))), [], copy.deepcopy(weights)

    def watch(name, x):
        seen.append((name, x, x.copy()))
        return x

    cache = tiny.new_cache(config, len(tokens), weights["embedding"].dtype)
    for part in (tokens[:cut], tokens[cut:]):
        if len(part):
            nl.forward(part, weights, config, cache, watch)
    for name, x, at_the_time in seen:
        np.testing.assert_array_equal(x, at_the_time, err_msg=name)
    np.testing.assert_equal(weights, weights_before)


ALL_NAMES = list(shapes(tiny.CONFIG, 1, 1))


@pytest.mark.parametrize("name", ALL_NAMES)
def test_what_a_tap_returns_is_what_follows(name):
    tokens, weights = np.array([3, 14, 15, 9]), tiny.random_weights(tiny.CONFIG)
    plain = trace_of(tokens, weights, tiny.CONFIG)
    changed = plain[name].copy()
    changed[..., 0] += 1                                      # not all of a row alike, which a norm would undo

    trace = nl.Trace()
    logits = nl.forward(tokens, weights, tiny.CONFIG,
                        tap=lambda at, x: trace(at, changed if at == name else x))
    for earlier in ALL_NAMES[:ALL_NAMES.index(name)]:
        np.testing.assert_array_equal(trace[earlier], plain[earlier], err_msg=earlier)
    assert trace[name] is changed
    assert not np.array_equal(logits, plain["logits"]) and logits is trace["logits"]
    np.testing.assert_array_equal(trace_of(tokens, weights, tiny.CONFIG)["logits"], plain["logits"])


@few
@given(runs(), st.data())
def test_ablations_by_tap_are_ablations_of_weights(run, data):
    tokens, weights, config = run
    i, head = data.draw(st.integers(0, config.n_layers - 1)), data.draw(st.integers(0, config.n_heads - 1))
    without = copy.deepcopy(weights)
    without["layers"][i]["attn"]["wo"][head * config.head_dim:(head + 1) * config.head_dim] = 0
    without["layers"][i]["ffn"]["up"][:, 0] = 0

    def ablate(name, x):
        if name == f"layers.{i}.attn.heads":
            x = x.copy()
            x[head] = 0
        if name == f"layers.{i}.ffn.up":
            x = x.copy()
            x[:, 0] = 0
        return x

    # Zeros add nothing, whichever side of the product they stand on: the same bits.
    np.testing.assert_array_equal(nl.forward(tokens, weights, config, tap=ablate),
                                  nl.forward(tokens, without, config))
