"""The tests, tested: each mistake below is put into a copy of numpy_llama.py, and the test named beside it must fail.

The mistakes are those seen in published ports of Llama. Each test runs in a Python of its own, which finds the copy
first; it must fail by an assertion, because a copy that does not even run proves nothing.
"""
import multiprocessing
import os
import re

import in_a_process
import pytest
from conftest import ROOT

ROPE, SCALE = "a, b = x[..., :half], x[..., half:]", "scores /= math.sqrt(d)"
MASK = "positions[:, None] >= np.arange(n_seen)"

MUTATIONS = {       # the mistake: (what the file says, what it would say, the test that must fail)
    "rotation pairs neighbours": (ROPE, "a, b = x[..., ::2], x[..., 1::2]", "test_components.py::test_rope"),
    "rotation turns the other way": (
        "[a * cos - b * sin, b * cos + a * sin]", "[a * cos + b * sin, b * cos - a * sin]",
        "test_components.py::test_rope"),
    "frequencies rounded twice": (
        "1 / np.power(theta, exponents, dtype=np.float64).astype(dtype)",
        "(1 / np.power(theta, exponents, dtype=np.float64)).astype(dtype)",
        "test_components.py::test_rope_cos_sin_at_every_position_against_transformers"),
    "Meta's rows not reordered": (
        "return pairs.swapaxes(1, 2).reshape(w.shape)", "return w", "test_components.py::test_interleaved_to_halves"),
    "Meta's keys not reordered": (
        'name in ("wq", "wk"):', 'name in ("wq",):', "test_config.py::test_metas_layout_gives_the_same_weights"),
    "float64 weights read by way of float32": (
        "rows).astype(dtype).T", "rows).astype(np.float32).T", "test_config.py::test_every_dtype_is_upcast_exactly"),
    "eps omitted": ("np.sqrt(mean_square + eps)", "np.sqrt(mean_square)", "test_components.py::test_forward"),
    "eps 1e-6 for a 1e-5 model": (
        "mask=mask, eps=config.norm_eps", "mask=mask, eps=1e-6", "test_components.py::test_forward"),
    "last norm forgotten": (
        'rms_norm(x, weights["norm"], config.norm_eps)', "x", "test_components.py::test_forward"),
    "mask lets the next token through": (
        MASK, "positions[:, None] + 1 >= np.arange(n_seen)",
        "test_invariants.py::test_a_changed_future_token_changes_no_past_logit"),
    "mask hides the token itself": (
        MASK, "positions[:, None] > np.arange(n_seen)", "test_components.py::test_causal_mask"),
    "mask skipped after a cache": (
        "mask = causal_mask(positions, n_seen)", "mask = causal_mask(positions, n_seen) | (start > 0)",
        "test_invariants.py::test_any_split_into_chunks_gives_the_same_logits"),
    "positions start again after a cache": (
        "positions = np.arange(start, n_seen)", "positions = np.arange(n_seen - start)",
        "test_invariants.py::test_any_split_into_chunks_gives_the_same_logits"),
    "keys cached before rotation": (
        "k, v = cache.extend(k, v)", "k, v = cache.extend(rope(k, cos, -sin), v)",
        "test_invariants.py::test_the_cache_holds_the_traced_keys_and_values"),
    "key heads dealt out in turn": (
        "= q.reshape(G, (H // G) * T, d) @", "= q.reshape(H // G, G, T, d).swapaxes(0, 1).reshape(G, H // G * T, d) @",
        "test_components.py::test_attention"),
    "heads cut the wrong way": (
        "x.reshape(len(x), -1, head_dim).swapaxes(0, 1)", "np.moveaxis(x.reshape(len(x), head_dim, -1), -1, 0)",
        "test_components.py::test_split_and_merge_heads"),
    "scores not scaled": (SCALE, "scores /= 1", "test_components.py::test_attention"),
    "softmax along the queries": (
        "e /= e.sum(axis=-1, keepdims=True)", "e /= e.sum(axis=-2, keepdims=True)",
        "test_components.py::test_softmax"),
    "float64 from a square root": (
        SCALE, "scores = scores / np.sqrt(d)", "test_invariants.py::test_names_shapes_and_dtypes_are_as_documented"),
    "float64 from the tables": (
        "config.rope_theta, dtype)", "config.rope_theta, np.float64)",
        "test_invariants.py::test_names_shapes_and_dtypes_are_as_documented"),
    "float64 in the cache": (
        "self.max_len, config.head_dim), dtype)\n        self.v", "self.max_len, config.head_dim))\n        self.v",
        "test_components.py::test_cache"),
    "gate and up swapped": (
        'tap("gate", x @ gate)', 'tap("gate", x @ up)', "test_components.py::test_feed_forward"),
    "residual stream cut": ('tap("x_attn", x + h)', 'tap("x_attn", h)', "test_components.py::test_block"),
    "residual stream added to in place": (
        'tap("x_attn", x + h)', 'tap("x_attn", np.add(x, h, out=x))',
        "test_invariants.py::test_tapped_arrays_and_inputs_are_never_modified"),
    "a tap that only watches": (
        'k = tap("k_rope", rope(k, cos, sin))', 'k = rope(k, cos, sin); tap("k_rope", k)',
        "test_invariants.py::test_what_a_tap_returns_is_what_follows"),
    "loss of the token itself": ("targets = window[1:]", "targets = window",
                                 "test_components.py::test_perplexity"),
    "feed-forward width rounded down": (
        "math.ceil(width / multiple_of) * multiple_of", "width // multiple_of * multiple_of",
        "test_components.py::test_feed_forward_dim"),
    "Llama 1 with the eps of Llama 2": (
        "max_seq_len=2048, norm_eps=1e-6", "max_seq_len=2048, norm_eps=1e-5", "test_config.py::test_published_sizes"),
    "top-p keeps one too many": (
        "kept = order[before < top_p]", "kept = order[before <= top_p]", "test_sampling.py::test_top_p_at_its_borders"),
    "top-k keeps one too few": (
        "np.partition(logits, -top_k)[-top_k]", "np.partition(logits, -top_k)[1 - top_k]",
        "test_sampling.py::test_top_k_keeps_ties_and_more_than_there_are_is_all"),
    "the same random number each time": (
        "rng.random(), side", "np.random.default_rng(0).random(), side",
        "test_sampling.py::test_draws_within_one_text_differ"),
    "the wrong position named": (
        "{position + np.argmin(finite)}", "{np.argmin(finite)}",
        "test_sampling.py::test_the_position_of_logits_that_are_not_finite_is_named"),
    "stop ids ignored": (
        "if token in stop or n == n_max:", "if n == n_max:", "test_sampling.py::test_a_stop_id_is_yielded_and_ends_it"),
    "next token from the first position": (
        "x = x[-1:]", "x = x[:1]",
        "test_sampling.py::test_greedy_is_the_argmax_step_by_step"),
    "keys copied for every token": (
        "@ k.swapaxes(1, 2)", "@ k.swapaxes(1, 2).copy()", "test_resources.py::test_a_decoded_token_copies_no_keys"),
    "all scores at once": (
        "CHUNK = 128 ", "CHUNK = 4096 ", "test_resources.py::test_a_long_prompt_never_holds_all_scores"),
    "logits that nobody asked for": (
        "x = x[-1:]", "pass",
        "test_resources.py::test_of_a_prompt_only_last_rows_meet_the_output_matrix"),
    "float16 widened with too many signs": (
        "bits &= ~0x70000000", "bits &= ~0x60000000",
        "test_resources.py::test_every_finite_float16_is_widened_exactly"),
    "minus infinity taken for a number": (
        "(w.view(np.uint16) & 0x7FFF).max()", "w.view(np.int16).max()",
        "test_resources.py::test_a_float16_that_is_not_finite_is_refused"),
    "float16 not scaled back": (
        "return (out * scale).reshape(shape)", "return out.reshape(shape)",
        "test_resources.py::test_lazy_logits_of_every_dtype"),
    "the file held in memory beside what is read from it": (
        "    def map(self):", "    @functools.cache\n    def map(self):",
        "test_resources.py::test_resident_load_peaks_at_what_it_keeps"),
    "a block that is the whole matrix": (
        "2**19 // w.shape[1]", "2**40 // w.shape[1]",
        "test_resources.py::test_a_layer_of_a_published_size_holds_one_block"),
    "a cache as long as the text": (
        "new_cache(weights, config, len(window))", "new_cache(weights, config, len(tokens))",
        "test_resources.py::test_perplexity_of_a_longer_text_holds_no_more"),
    "a bar that stands still": (
        "    progress.update()\n            elif", "    pass\n            elif",
        "test_resources.py::test_a_bar_counts_every_layer_of_every_chunk"),
    "imported before it is needed": (
        "import numpy as np\n", "import numpy as np\nimport tqdm\n",
        "test_resources.py::test_importing_imports_nothing_heavy"),
    "weights that do not fit are loaded": (
        "size > 0.9 * memory()", "size > 2.5 * memory()",
        "test_resources.py::test_lazy_is_chosen_where_the_weights_do_not_fit"),
    "BOS missing": ("[self.bos, *ids] if bos else ids", "ids", "test_tokenizer.py::test_text"),
    "two dummy prefixes": ("self.sp.encode(text)", 'self.sp.encode(" " + text)', "test_tokenizer.py::test_text"),
    "<s> stripped as letters": (
        "        return text\n\n\ndef stream", '        return text.strip("<s>")\n\n\ndef stream',
        "test_tokenizer.py::test_text"),
}


@pytest.fixture(scope="module")
def processes():
    """Processes that start with PyTorch loaded, where the system can fork: loading it takes longer than most tests."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "hypothesis", "torch", "transformers.models.llama.modeling_llama",
                                     "sentencepiece", "ml_dtypes", "threadpoolctl"])
    return context


def run_with(processes, folder, scratch, *tests):
    """(status, output) of pytest in another process, with the numpy_llama.py of this folder."""
    environment, output = os.environ | {"NUMPY_LLAMA_DIR": str(folder), "COLUMNS": "300"}, scratch / "output.txt"
    process = processes.Process(target=in_a_process.run_pytest, args=(
        environment, ROOT, [f"tests/{test}" for test in tests], output))
    process.start()
    process.join()
    return process.exitcode, output.read_text(encoding="utf-8")


def test_without_a_mistake_the_same_tests_pass(processes, tmp_path):
    status, output = run_with(processes, ROOT, tmp_path, *sorted({test for _, _, test in MUTATIONS.values()}))
    assert status == 0, output


@pytest.mark.parametrize("mistake", MUTATIONS)
def test_a_mistake_is_found(mistake, processes, tmp_path):
    right, wrong, test = MUTATIONS[mistake]
    source = (ROOT / "numpy_llama.py").read_text(encoding="utf-8")
    assert source.count(right) == 1, f"numpy_llama.py must say this exactly once: {right}"
    (tmp_path / "numpy_llama.py").write_text(source.replace(right, wrong), encoding="utf-8")

    status, output = run_with(processes, tmp_path, tmp_path, test)
    failures = re.findall(r"^FAILED tests/(\S+?::\w+)\S* ?(?:.*\])? - (.*)", output, re.MULTILINE)
    assert status == 1 and failures, output
    for name, reason in failures:
        assert name == test and reason.startswith(("assert ", "AssertionError", "Failed: DID NOT RAISE")), output
