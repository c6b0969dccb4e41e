"""What a run holds, copies, imports and computes: counts, not seconds. How fast it is, benchmark.py says.

The oracles are the resident weights (which other tests hold against PyTorch), astype, and what the system counts.
"""
import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import checkpoints as ck
import ml_dtypes
import numpy as np
import pytest
import tiny
from conftest import FAIRYTALES, ROOT

import numpy_llama as nl

CHECKPOINTS = sorted(path.name for path in (ROOT / "tests" / "reference" / "checkpoints").iterdir())
LONG = replace(tiny.CONFIG, max_seq_len=4096)
needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def in_a_process(code, *argv):
    """What a Python of its own prints as JSON, after `nl` is imported."""
    code = f"""
import json, re, sys
sys.path[:0] = {[str(Path(nl.__file__).parent), str(ROOT / "tests")]}
import numpy as np
import numpy_llama as nl

def memory(kind):
    return int(re.search(kind + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 2**10     # MiB
{code}"""
    done = subprocess.run([sys.executable, "-c", code, *map(str, argv)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- 16 bits to 32 -------------------------------------------------------------------------------------------

def test_every_bfloat16_is_widened_exactly():
    bits = np.arange(2**16, dtype=np.uint16)[None]
    wide = nl.to_float32(bits.view(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(wide.view(np.uint32)[0], bits[0] * np.uint32(2**16))


def test_every_finite_float16_is_widened_exactly():
    numbers = np.arange(2**16, dtype=np.uint16)[None].view(np.float16)
    numbers = numbers[np.isfinite(numbers)][None]
    wide = nl.to_float32(numbers).astype(np.float64) * 2.0**112
    np.testing.assert_array_equal(wide, numbers)
    np.testing.assert_array_equal(np.signbit(wide), np.signbit(numbers))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, -np.nan])
def test_a_float16_that_is_not_finite_is_refused(bad):
    w = np.ones((5, 4), np.float16)
    w[3, 2] = bad
    with pytest.raises(nl.InputError, match="not finite"):
        np.ones((1, 4), np.float32) @ nl.LazyMatrix(w)


@pytest.mark.parametrize("size", [1e-12, 1, 1e4, 1e8])
def test_the_scale_of_float16_costs_no_bit(size):
    w = np.random.default_rng(0).normal(size=(40, 24)).astype(np.float16)
    x = np.float32(size) * np.random.default_rng(1).normal(size=(3, 24)).astype(np.float32)
    # Sums of powers of two times the same numbers, by the same kernel.
    with nl.blas().limit(limits=1):
        np.testing.assert_array_equal(x @ nl.LazyMatrix(w), x @ w.astype(np.float32).T)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_lazy_matrix_takes_what_an_array_takes(shape, dtype):
    w, x = np.arange(20).reshape(5, 4).astype(dtype), np.arange(24)[:np.prod(shape)].reshape(shape).astype(np.float32)
    product = x @ nl.LazyMatrix(w)
    assert product.shape == (*shape[:-1], 5)
    np.testing.assert_array_equal(product, x @ w.astype(np.float32).T)            # whole numbers: exact


# ---- Lazy weights --------------------------------------------------------------------------------------------

def assert_lazy_is_resident(folder, *texts):
    """The logits of each text are those of resident weights: the sums are the same up to their order."""
    (weights, config), (lazy, same) = nl.load(folder), nl.load(folder, lazy=True)
    assert same == config
    for tokens in texts:
        logits = nl.forward(tokens, weights, config)
        # Measured: at most 4e-7 of the largest logit.
        np.testing.assert_allclose(nl.forward(tokens, lazy, config), logits, rtol=0, atol=1e-6 * np.abs(logits).max())


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_lazy_logits_are_those_of_resident_weights(name):
    folder = ROOT / "tests" / "reference" / "checkpoints" / name
    vocab_size = nl.open_checkpoint(folder)[0].vocab_size
    assert_lazy_is_resident(folder, *(np.random.default_rng(T).integers(0, vocab_size, T) for T in (1, 2, 40)))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", ck.DTYPES)
def test_lazy_logits_of_every_dtype(dtype, tied, tmp_path):
    config = ck.CONFIG | {"tie_word_embeddings": tied}
    files = {"config.json": config, "model.safetensors": ck.safetensors_bytes(ck.random_tensors(config), dtype)}
    assert_lazy_is_resident(ck.write_folder(tmp_path, files), [5, 300, 7])


@pytest.mark.parametrize("T", [1, 5, 300])
def test_lazy_logits_of_the_model_that_ships(T, tokenizer):
    text = "Once upon a time there was a king who had three sons. " * 30
    assert_lazy_is_resident(FAIRYTALES, tokenizer.encode(text)[:T])


def test_lazy_is_float32():
    with pytest.raises(nl.InputError, match="float32 only"):
        nl.load(FAIRYTALES, np.float64, lazy=True)


@needs_proc
@pytest.mark.parametrize("name, limit", [("llama-2-7b", 40), ("llama-2-70b", 60)])
def test_a_layer_of_a_published_size_holds_one_block(name, limit, tmp_path):
    """A file that is a hole of 13.5 or 138 GB: what is measured is memory of the process's own, beyond the cache."""
    try:
        ck.write_shape(tmp_path, nl.PRESETS[name])
    except OSError as error:
        pytest.skip(f"this disk holds no sparse file: {error}")
    loaded, peak = in_a_process("""
before = memory("RssAnon")
weights, config = nl.load(sys.argv[1], lazy=True)
loaded, peak = memory("RssAnon") - before, 0
cos, sin = nl.rope_cos_sin([0], config.head_dim, config.rope_theta)

def tap(name, x):
    global peak
    peak = max(peak, memory("RssAnon") - before)
    return x

to_float32 = nl.to_float32
nl.to_float32 = lambda w: tap("", to_float32(w))                    # while a block is held
x = np.ones((1, config.dim), np.float32)
nl.block(x, **weights["layers"][1], cos=cos, sin=sin, mask=np.ones((1, 1), bool), eps=1e-5, tap=tap)
print(json.dumps([loaded, peak]))""", tmp_path)
    # Measured: 5 and 10 MiB when loaded; 9 and 18 with a block of 2 MiB in each of two threads. Of 7B one gate matrix
    # is 172 MiB in float32, of 70B 896.
    assert loaded < 20 and peak < limit


@needs_proc
def test_resident_load_peaks_at_what_it_keeps(tmp_path):
    config = nl.Config(512, 8, 8, 8, 1408, 16000)
    ck.write_shape(tmp_path, config, "BF16", ck.random_numbers())
    size = 4 * sum(nl.parameter_counts(config).values()) / 2**20
    grown = in_a_process("""
from safetensors import safe_open
import ml_dtypes, tqdm, threadpoolctl
before = memory("VmRSS")
nl.load(sys.argv[1])
print(json.dumps(memory("VmHWM") - before))""", tmp_path)
    assert size > 150 and size < grown <= 1.15 * size         # measured: 1.05, pages of the file included


# ---- Bounded memory ------------------------------------------------------------------------------------------

def held_at_most(work):
    """The most bytes that were allocated at one time while work() ran, beyond those before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_long_prompt_never_holds_all_scores(monkeypatch):
    sizes, attention = [], nl.attention

    def watched(q, k, v, mask, tap=nl.ignore):
        sizes.append(len(mask))
        return attention(q, k, v, mask, tap)

    monkeypatch.setattr(nl, "attention", watched)
    next(nl.generate([1] * 4096, tiny.random_weights(LONG), LONG, 1))
    assert max(sizes) == nl.CHUNK <= 256 and sum(sizes) == 4096 * LONG.n_layers


def test_perplexity_of_a_longer_text_holds_no_more():
    config = replace(tiny.CONFIG, max_seq_len=64)
    weights, tokens = tiny.random_weights(config), np.random.default_rng(0).integers(0, config.vocab_size, 20000)

    def losses(n):
        return lambda: [float(some.sum()) for some in nl.sequence_losses(tokens[:n], weights, config)]

    losses(200)()                                             # what is imported and kept once
    short, long = held_at_most(losses(1000)), held_at_most(losses(20000))
    assert long < short + 2 * 10**5                           # logits alone would be 2.5 MB


def test_a_decoded_token_copies_no_keys():
    config = replace(LONG, n_heads=8, n_kv_heads=4, head_dim=32)
    weights, cache = tiny.random_weights(config), tiny.new_cache(config)
    for layer in cache:
        layer.length = 4000
    keys = cache[0].k[:, :4000].nbytes
    assert keys > 2 * 10**6
    nl.forward([1], weights, config, cache)
    assert held_at_most(lambda: nl.forward([1], weights, config, cache)) < keys / 2      # scores: 8 heads, 4,002 keys


# ---- Work ----------------------------------------------------------------------------------------------------

class Watched(np.ndarray):
    """A matrix that notes how many rows are multiplied by it."""
    rows = []

    def __rmatmul__(self, x):
        self.rows.append(len(x))
        return x @ self.view(np.ndarray)


def test_of_a_prompt_only_last_rows_meet_the_output_matrix(monkeypatch):
    weights = tiny.random_weights(LONG)
    weights["output"] = weights["output"].view(Watched)
    monkeypatch.setattr(Watched, "rows", [])
    list(nl.generate([1] * 300, weights, LONG, 3))
    assert Watched.rows == [1] * (3 + 2)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("last", [False, True])
def test_side_by_side_is_one_after_the_other(threads, last, monkeypatch):
    """The same bits, however the threads come to stand: a chunk that went too far ahead would miss keys."""
    monkeypatch.setattr(nl, "cores", lambda: threads)
    weights, tokens = tiny.random_weights(LONG), np.random.default_rng(0).integers(0, 31, 10 * nl.CHUNK + 3)
    cache, again = tiny.new_cache(LONG), tiny.new_cache(LONG)
    with nl.blas().limit(limits=1):
        expected = [nl.forward(chunk, weights, LONG, cache) for chunk in np.array_split(tokens, 11)]
        found = list(nl.forward_in_chunks(tokens, weights, LONG, again, last))
    for ours, theirs in zip(found, expected, strict=True):
        if last:                                              # one row times the output matrix is another kernel's sum
            np.testing.assert_allclose(ours, theirs[-1:], rtol=0, atol=1e-6 * np.abs(theirs).max())
        else:
            np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(again, cache):
        assert ours.length == theirs.length
        np.testing.assert_array_equal(ours.k, theirs.k)


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("trouble", [KeyboardInterrupt, MemoryError, nl.InputError])
def test_trouble_in_one_chunk_ends_all(threads, trouble, monkeypatch):
    monkeypatch.setattr(nl, "cores", lambda: threads)
    started, forward = [], nl.forward

    def watched(tokens, weights, config, cache, tap):
        started.append(cache[0].length)
        if len(started) == 3:
            raise trouble("here")
        return forward(tokens, weights, config, cache, tap)

    monkeypatch.setattr(nl, "forward", watched)
    before = blas_threads()
    with pytest.raises(trouble, match="here"):
        list(nl.forward_in_chunks([1] * 4000, tiny.random_weights(LONG), LONG, tiny.new_cache(LONG)))
    assert len(started) <= 3 + 2 * threads                    # of 32
    assert blas_threads() == before


def blas_threads():
    return [library["num_threads"] for library in nl.blas().info()]


def test_blas_has_its_threads_back_whoever_ends_first():
    """Two prompts at the same time, and a lazy product in between: one BLAS thread inside, as before outside."""
    with nl.blas().limit(limits=2):
        nl.cores.cache_clear()
        before, weights = blas_threads(), tiny.random_weights(LONG)
        one, two = (nl.forward_in_chunks([1] * 1000, weights, LONG, tiny.new_cache(LONG)) for _ in range(2))
        next(one), next(two)
        during = blas_threads()
        np.ones((2, 4), np.float32) @ nl.LazyMatrix(np.ones((5, 4), np.float16))
        one.close()
        assert set(before) == {2} and set(during) == set(blas_threads()) == {1}
        two.close()
        assert blas_threads() == before
    nl.cores.cache_clear()


def test_a_lazy_product_has_one_blas_thread_and_gives_the_others_back(monkeypatch):
    """Counted inside a product and after it, in a process that also has resident weights."""
    inside, to_float32 = [], nl.to_float32
    monkeypatch.setattr(nl, "to_float32", lambda w: inside.append(blas_threads()) or to_float32(w))
    with nl.blas().limit(limits=2):
        nl.cores.cache_clear()
        weights, config = nl.load(FAIRYTALES, lazy=True)
        before = blas_threads()
        nl.forward([1, 2, 3], weights, config)
        assert set(before) == {2} == set(blas_threads()) and inside and all(set(count) == {1} for count in inside)
        assert nl.cores() == 2                                # first asked for within the product, and kept
    nl.cores.cache_clear()


def test_a_short_prompt_with_lazy_weights_has_one_blas_thread_all_the_way(monkeypatch):
    """Attention too: BLAS's own threads, once started, would spin and take the cores from those of the products."""
    inside, attention = [], nl.attention
    monkeypatch.setattr(nl, "attention", lambda *args: inside.append(blas_threads()) or attention(*args))
    with nl.blas().limit(limits=2):
        for lazy, threads in ((True, 1), (False, 2)):
            weights, config = nl.load(FAIRYTALES, lazy=lazy)
            inside.clear()
            nl.prefill([1, 2, 3], weights, config, nl.new_cache(weights, config, 3))
            assert len(inside) == config.n_layers and all(set(count) == {threads} for count in inside)
            assert set(blas_threads()) == {2}


@pytest.mark.parametrize("n_wanted", [1, 3])
def test_a_prompt_given_up_leaves_a_cache_that_can_go_on(n_wanted):
    """After an early end all layers hold the same tokens, and what follows them is what follows them without it."""
    weights, cache, tokens = tiny.random_weights(LONG), tiny.new_cache(LONG), list(range(31)) * 40
    chunks = nl.forward_in_chunks(tokens, weights, LONG, cache)
    for _ in range(n_wanted):
        next(chunks)
    chunks.close()
    lengths = {layer.length for layer in cache}
    assert len(lengths) == 1 and 0 < min(lengths) < len(tokens)
    known = tokens[:lengths.pop()]
    logits = nl.forward(known + [7], weights, LONG)[-1]
    # Another number of rows is another kernel's sum: measured 2e-6 of the largest at most.
    np.testing.assert_allclose(nl.forward([7], weights, LONG, cache)[-1], logits, rtol=0, atol=1e-5 * abs(logits).max())


def test_a_bar_counts_every_layer_of_every_chunk(monkeypatch):
    import tqdm
    bars = []

    class Bar(tqdm.tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            bars.append((self, options))

        def update(self, n=1):
            self.n += n

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    next(nl.generate([1] * 300, tiny.random_weights(LONG), LONG, 1))
    (bar, options), = bars
    assert bar.n == bar.total == 3 * LONG.n_layers and options["delay"] == 2


# ---- Start ---------------------------------------------------------------------------------------------------

def test_importing_imports_nothing_heavy():
    modules = in_a_process("print(json.dumps(sorted(sys.modules)))")
    heavy = {"safetensors", "ml_dtypes", "sentencepiece", "tqdm", "threadpoolctl", "concurrent.futures", "matplotlib",
             "torch", "transformers", "IPython"}
    assert not heavy & set(modules)


def test_a_story_imports_no_more_than_it_needs():
    modules = in_a_process("""
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()):
    nl.main(["Once", "-n", "2", "--seed", "1"])
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))""")
    assert {"safetensors", "sentencepiece"} <= set(modules)
    assert not {"matplotlib", "torch", "transformers", "IPython", "scipy", "pandas"} & set(modules)


# ---- Command line --------------------------------------------------------------------------------------------

def tell(capsys, *argv):
    capsys.readouterr()
    assert nl.main(["Once upon a time", "-n", "30", "--seed", "1", *argv]) == 0
    return capsys.readouterr()


def test_lazy_tells_the_same_story(capsys):
    assert tell(capsys, "--lazy").out == tell(capsys).out


def test_lazy_is_chosen_where_the_weights_do_not_fit(capsys, monkeypatch):
    given, read = [], nl.read_weights
    monkeypatch.setattr(nl, "read_weights", lambda *args, lazy: given.append(lazy) or read(*args, lazy=lazy))
    size = 4 * 5_803_264                                      # of the model that ships
    for have, lazy in ((size / 0.89, False), (size / 0.91, True), (size / 2, True)):
        monkeypatch.setattr(nl, "memory", lambda have=have: have)
        words = tell(capsys).err
        assert given[-1] == lazy and ("do not fit" in words and "--lazy" in words) == lazy
