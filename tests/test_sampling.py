"""From logits to tokens: the distribution against its definition and transformers' warpers, and generate.

Draws are compared with the distribution by a chi-squared test of fixed seed, greedy text with transformers' generate.
"""
import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import numpy_llama as nl

many = settings(max_examples=300, deadline=None, derandomize=True, report_multiple_bugs=False)
logits_with_ties = st.lists(st.integers(-8, 8).map(lambda n: n / 2), min_size=1, max_size=12)
CONFIG = tiny.CONFIG
WEIGHTS = tiny.random_weights(CONFIG)
PROMPT = [1, 5, 9, 2]


def definition(logits, temperature=1.0, top_k=0, top_p=1.0):
    """The distribution, token by token, from the most likely down."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if top_k:
        last = logits[order[min(top_k, len(order)) - 1]]
        order = [i for i in order if logits[i] >= last]       # those that tie with the k-th stay
    weight = {i: math.exp((logits[i] - logits[order[0]]) / temperature) for i in order}
    total = math.fsum(weight.values())
    kept, held = [], 0.0
    for i in order:                                           # the smallest set that holds at least p
        if top_p == 1 or held < top_p * total:
            kept.append(i)
            held += weight[i]
    return [weight[i] / held if i in kept else 0.0 for i in range(len(logits))]


def new_tokens(n=8, prompt=PROMPT, weights=WEIGHTS, config=CONFIG, seed=0, **settings):
    return list(nl.generate(prompt, weights, config, n, rng=np.random.default_rng(seed), **settings))


# ---- The distribution ----------------------------------------------------------------------------------------

@many
@given(logits_with_ties, st.sampled_from([0.3, 1.0, 2.5]), st.integers(0, 14),
       st.sampled_from([0.05, 0.37, 0.71, 0.93, 1]))
def test_next_token_probs_against_the_definition(logits, temperature, top_k, top_p):
    probs = nl.next_token_probs(np.array(logits, np.float32), temperature, top_k, top_p)
    expected = definition(logits, temperature, top_k, top_p)
    # Measured: at most 2.3e-16. A token kept by one and cut by the other would differ by its whole probability.
    np.testing.assert_allclose(probs, expected, rtol=0, atol=1e-14)
    assert probs.dtype == np.float64 and abs(probs.sum() - 1) < 1e-14


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
@pytest.mark.parametrize("top_k", [0, 1, 5, 49, 50, 60])
@pytest.mark.parametrize("top_p", [0.02, 0.5, 0.9, 0.999, 1.0])
def test_next_token_probs_against_transformers(temperature, top_k, top_p):
    import torch  # here, so that the rest starts at once
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
    for seed in range(5):
        logits = 2 * np.random.default_rng(seed).normal(size=50)
        scores = TemperatureLogitsWarper(temperature)(None, torch.tensor(logits)[None])
        scores = TopKLogitsWarper(top_k)(None, scores) if top_k else scores
        scores = TopPLogitsWarper(top_p)(None, scores)
        # Measured: at most 3.4e-16.
        np.testing.assert_allclose(nl.next_token_probs(logits, temperature, top_k, top_p),
                                   torch.softmax(scores, -1)[0].numpy(), rtol=0, atol=1e-14)


def test_top_k_keeps_ties_and_more_than_there_are_is_all():
    np.testing.assert_allclose(nl.next_token_probs([2.0, 1, 2, 0], top_k=1), [0.5, 0, 0.5, 0])
    np.testing.assert_allclose(nl.next_token_probs([2.0, 1, 1, 0], top_k=2)[3], 0)
    for k in (0, 4, 5, 10**9):
        np.testing.assert_array_equal(nl.next_token_probs([2.0, 1, 1, 0], top_k=k), nl.next_token_probs([2.0, 1, 1, 0]))


def test_top_p_at_its_borders():
    quarters = np.zeros(4)                                    # probabilities that are exact: a quarter each
    for top_p, kept in [(1e-9, 1), (0.25, 1), (0.2500001, 2), (0.5, 2), (0.75, 3), (0.7500001, 4), (1, 4)]:
        np.testing.assert_array_equal(nl.next_token_probs(quarters, top_p=top_p), [1 / kept] * kept + [0] * (4 - kept))


def test_temperature_at_its_borders():
    logits = np.array([1.0, 3, 2, 3 - 1e-6])
    np.testing.assert_array_equal(nl.next_token_probs(logits, 0), [0, 1, 0, 0])
    np.testing.assert_array_equal(nl.next_token_probs(logits, 1e-300), [0, 1, 0, 0])
    np.testing.assert_array_equal(nl.next_token_probs([5.0, 5, 1], 0), [1, 0, 0])       # greedy: the first of equals
    np.testing.assert_array_equal(nl.next_token_probs([5.0, 5, 1], 1e-300), [0.5, 0.5, 0])
    np.testing.assert_allclose(nl.next_token_probs(logits, 1e9), [0.25] * 4, rtol=1e-8)
    np.testing.assert_array_equal(nl.next_token_probs([1e30, -1e30], 1.0), [1, 0])


def test_the_logits_are_not_modified():
    logits = np.random.default_rng(0).normal(size=20)
    before = logits.copy()
    nl.next_token_probs(logits, 0.7, 3, 0.8)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize("setting", [
    {"temperature": -0.1}, {"temperature": math.inf}, {"temperature": math.nan}, {"top_k": -1}, {"top_p": 0},
    {"top_p": -0.5}, {"top_p": 1.0001}, {"top_p": math.nan}], ids=str)
def test_settings_outside_their_range_are_refused(setting):
    (name, value), = setting.items()
    with pytest.raises(nl.InputError, match=f"{name} must be .*, not {value}"):
        nl.next_token_probs([1.0, 2.0], **setting)
    with pytest.raises(nl.InputError, match=name):
        new_tokens(**setting)


@pytest.mark.parametrize("top_p", [1e-300, 1e-17, 1e-9])
def test_the_smallest_top_p_keeps_the_likeliest(top_p):
    np.testing.assert_array_equal(nl.next_token_probs([0.0, 0.0, 0.0, 0.0], top_p=top_p), [1, 0, 0, 0])
    np.testing.assert_array_equal(nl.next_token_probs([1.0, 3.0, 2.0], top_p=top_p), [0, 1, 0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused_before_anything_is_drawn(bad):
    with pytest.raises(nl.InputError, match="not finite"):
        nl.next_token_probs([1.0, bad, 2.0])
    weights, rng = copy.deepcopy(WEIGHTS), np.random.default_rng(0)
    weights["embedding"][PROMPT[2], 0] = bad
    state = copy.deepcopy(rng.bit_generator.state)
    with np.errstate(all="ignore"), pytest.raises(nl.InputError, match="the logits at position . are not finite"):
        next(nl.generate(PROMPT, weights, CONFIG, 5, rng=rng))
    assert rng.bit_generator.state == state


@pytest.mark.parametrize("at", [0, 3, 128, 260])
def test_the_position_of_logits_that_are_not_finite_is_named(at):
    """The first for a loss, which needs them all; for the next token only those of the last position count."""
    config, weights = replace(CONFIG, max_seq_len=512), copy.deepcopy(WEIGHTS)
    for layer in weights["layers"]:                           # each logit depends on its own token only
        layer["attn"]["wo"][:], layer["ffn"]["down"][:] = 0, 0
    weights["embedding"][:, 0] = 0
    weights["embedding"][7] = np.eye(CONFIG.dim)[0]           # the one token that meets the row that overflows
    weights["output"][0] = 3e38
    text = [1] * 300
    text[at] = 7
    cache = tiny.new_cache(config)
    nl.forward([1] * 10, weights, config, cache)
    with np.errstate(all="ignore"):
        with pytest.raises(nl.InputError, match=f"position {at} are not finite"):
            nl.perplexity(text, weights, config)
        with pytest.raises(nl.InputError, match=f"position {10 + at} are not finite"):
            next(nl.generate(text[:at + 1], weights, config, 1, cache=cache))
        next(nl.generate(text, weights, config, 1))


# ---- generate ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("settings", [{}, {"temperature": 1.7}, {"top_k": 5}, {"temperature": 0.8, "top_p": 0.9}],
                         ids=str)
def test_frequencies_of_draws_follow_the_distribution(settings):
    n, rng = 2000, np.random.default_rng(0)                   # one generator for all: each draw must be a new one
    drawn = [next(nl.generate(PROMPT, WEIGHTS, CONFIG, 1, rng=rng, **settings)) for _ in range(n)]
    logits = nl.forward(PROMPT, WEIGHTS, CONFIG)[-1]
    expected = n * np.array(definition(logits.astype(float).tolist(), **settings))
    counts = np.bincount(drawn, minlength=CONFIG.vocab_size)
    assert not counts[expected == 0].any()
    # Classes of at least five, the rest together, as the test asks for.
    often = expected >= 5
    expected, counts = (np.append(x[often], x[~often].sum()) for x in (expected, counts))
    expected, counts = expected[expected > 0], counts[expected > 0]
    chi2, df = np.sum((counts - expected) ** 2 / expected), len(expected) - 1
    # The 0.999 quantile by Wilson and Hilferty (z = 3.09), right to one per cent.
    assert chi2 < df * (1 - 2 / (9 * df) + 3.09 * math.sqrt(2 / (9 * df))) ** 3


def test_same_seed_same_tokens():
    assert new_tokens(20, seed=3) == new_tokens(20, seed=3)
    assert new_tokens(20, seed=3) != new_tokens(20, seed=4)


def test_draws_within_one_text_differ():
    """A generator made anew for each token would meet the same number each time."""
    flat = WEIGHTS | {"output": np.zeros_like(WEIGHTS["output"])}
    assert len(set(new_tokens(20, weights=flat))) > 5


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_max_new_tokens(n):
    assert new_tokens(7)[:n] == new_tokens(n) and len(new_tokens(n)) == n


@pytest.mark.parametrize("form", [set, list, tuple, lambda ids: np.array(list(ids))])
def test_a_stop_id_is_yielded_and_ends_it(form):
    plain = new_tokens(20)
    stop = plain[6]
    first = plain.index(stop)
    assert new_tokens(20, stop=form({stop})) == plain[:first + 1]
    assert new_tokens(20, stop=form({CONFIG.vocab_size})) == plain


@pytest.mark.parametrize("n_prompt, n_new", [(10, 7), (15, 2), (16, 1)])
def test_a_full_context_ends_it(n_prompt, n_new):
    """The last token is predicted from a full context, and has no room to be read itself."""
    assert len(new_tokens(100, [1] * n_prompt, config=replace(CONFIG, max_seq_len=16))) == n_new


@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_of_several_tokens_are_refused(temperature):
    """As when [-1] was forgotten: an id would come out, drawn from nonsense."""
    with pytest.raises(nl.InputError, match=r"one row .* not \(4, "):
        nl.sample(nl.forward(PROMPT, WEIGHTS, CONFIG), np.random.default_rng(0), temperature)


def test_a_prompt_longer_than_the_context_is_refused():
    with pytest.raises(nl.InputError, match="17 tokens does not fit in the context of 16"):
        new_tokens(5, [1] * 17, config=replace(CONFIG, max_seq_len=16))


def test_greedy_is_the_argmax_step_by_step():
    tokens = list(PROMPT)
    for _ in range(CONFIG.max_seq_len - len(PROMPT)):
        tokens.append(int(np.argmax(nl.forward(tokens, WEIGHTS, CONFIG)[-1])))        # no cache: all from the start
    assert new_tokens(CONFIG.max_seq_len - len(PROMPT), temperature=0) == tokens[len(PROMPT):]


def test_a_drawn_token_is_drawn_from_what_came_before():
    """The same draws, from the definition and without a cache."""
    tokens, rng, V = list(PROMPT), np.random.default_rng(0), CONFIG.vocab_size
    for _ in range(12):
        logits = nl.forward(tokens, WEIGHTS, CONFIG)[-1]
        tokens.append(int(rng.choice(V, p=definition(logits.astype(float).tolist(), 0.9, 10, 0.8))))
    assert new_tokens(12, temperature=0.9, top_k=10, top_p=0.8) == tokens[len(PROMPT):]


@pytest.mark.parametrize("held", [1, 3])
def test_a_cache_is_continued_until_it_is_full(held):
    cache = tiny.new_cache(CONFIG, 10)
    nl.forward(PROMPT[:held], WEIGHTS, CONFIG, cache)
    assert new_tokens(20, PROMPT[held:], cache=cache) == new_tokens(7)
    assert cache[0].length == 10


def test_a_long_prompt_goes_through_in_chunks():
    config = replace(CONFIG, max_seq_len=1024)
    prompt = np.random.default_rng(0).integers(0, config.vocab_size, 600)
    logits = nl.forward(prompt, WEIGHTS, config)[-1]
    assert new_tokens(1, prompt, config=config, temperature=0) == [int(np.argmax(logits))]


@pytest.mark.parametrize("seed", range(3))
def test_greedy_is_transformers_generate(seed):
    import oracle  # here, so that the rest starts at once
    import torch
    config = nl.Config(24, 2, 4, 2, 40, 97, max_seq_len=64)
    model = oracle.random_llama(config, seed)
    prompt = np.random.default_rng(seed).integers(3, 97, 7)
    theirs = model.generate(torch.tensor(prompt)[None], attention_mask=torch.ones(1, 7, dtype=torch.long),
                            do_sample=False, max_new_tokens=40, eos_token_id=None, pad_token_id=0)[0, 7:].tolist()
    weights, config = oracle.weights_from(model)
    assert new_tokens(40, prompt, weights, config, temperature=0) == theirs
