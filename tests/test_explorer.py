"""The explorer tells the truth: its engine, taken out of the built page, against PyTorch, NumPy and SentencePiece.

Node runs it; playwright's wheel brings one. What the page shows is tested in a browser, by test_explorer_page.py.
"""
import base64
import contextlib
import hashlib
import io
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import bugs
import checkpoints
import compare
import numpy as np
import playwright
import pytest
import wasmtime
from conftest import FAIRYTALES, ROOT
from explorer import build as explorer
from safetensors.numpy import load_file, save_file

import numpy_llama as nl

EXPLORER = ROOT / "notebooks" / "explorer"
REFERENCE = ROOT / "tests" / "reference"
DRIVER = Path(playwright.__file__).parent / "driver"
NODE = next(DRIVER.glob("node*"))                         # node, or node.exe
CASES = json.loads((REFERENCE / "cases.json").read_text())["cases"]
PROMPT = "Once upon a time there was a king who"
OTHER = "The old wolf went into the dark wood and"

# How far the page's numbers may be from NumPy's, as a share of a tensor's largest number. The page adds up in float64,
# NumPy in float32; measured, over all tests here: 4e-6.
ALLOWED = 1e-5


# ---- Pages and jobs ----------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """A function that builds the page of a folder, once: Path -> Path."""
    folder, built = tmp_path_factory.mktemp("pages"), {}

    def page(model):
        if model not in built:
            built[model] = folder / f"{len(built)}.html"
            assert explorer.main(["--model", str(model), "--output", str(built[model])]) == 0
        return built[model]

    return page


@pytest.fixture(scope="session")
def run(pages):
    """A function that runs jobs on a folder's page in Node: what run.mjs answers, job by job."""
    command = [NODE, ROOT / "tests" / "explorer" / "run.mjs"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as node:
        def run(jobs, model=FAIRYTALES, mutation=None):
            node.stdin.write(json.dumps({"page": str(pages(model)), "mutation": mutation, "jobs": jobs}) + "\n")
            node.stdin.flush()
            answer = node.stdout.readline()
            results = json.loads(answer)
            assert len(results) == len(jobs), results
            return results

        yield run
        node.stdin.close()


def distance(x, right):
    """The largest difference, as a share of the largest number; masked scores must be masked in both."""
    finite = np.isfinite(right)
    assert x.shape == right.shape and np.array_equal(x[~finite], right[~finite])
    largest = np.abs(right[finite]).max()
    return np.abs(x[finite].astype(np.float64) - right[finite]).max() / (largest or 1)


def assert_same(trace, right, allowed=ALLOWED):
    """Every tensor of the page's trace is NumPy's."""
    assert set(trace) == set(right)
    for name in right:
        assert distance(trace[name], right[name]) < allowed, name


# ---- The model -----------------------------------------------------------------------------------------------

def judge(path, case):
    """compare.py's exit status for a dump, and what it says."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = compare.main([str(path), "--reference", case, "--json"])
    return status, said.getvalue()


def trace_job(case, file):
    return {"do": "trace", "tokens": CASES[case]["tokens"], "chunks": CASES[case]["chunks"], "file": str(file)}


@pytest.mark.parametrize("case", CASES)
def test_reference_cases_in_both_layouts(case, run, tmp_path):
    """PyTorch's numbers, from pages of float32, float16 and bfloat16 checkpoints; Meta's layout gives the same bits."""
    dump, metas = tmp_path / "hf.safetensors", tmp_path / "meta.safetensors"
    assert run([trace_job(case, dump)], REFERENCE / CASES[case]["checkpoint"]) == [None]
    status, said = judge(dump, case)
    assert status == 0, said
    if "same_in_metas_layout" in CASES[case]:
        assert run([trace_job(case, metas)], REFERENCE / CASES[case]["same_in_metas_layout"]) == [None]
        assert metas.read_bytes() == dump.read_bytes()


# One line each, the third so small that only a comparison shows it.
MUTATIONS = {
    "a sign in the rotation": ("first] = a * c - b * s;", "first] = a * c + b * s;"),
    "a mask that sees the next token": ("const future = s > start + t;", "const future = s > start + t + 1;"),
    "frequencies in float64": ("return 1 / Math.fround(Math.pow(theta, exponent));",
                               "return Math.pow(theta, -2 * i / d) * (1 + 2 ** -18);"),
    "query heads share keys in turn": ("Math.floor(h / (H / G))", "h % G"),
    "eps outside the root": ("Math.sqrt(sum / D + eps)", "(Math.sqrt(sum / D) + eps)"),
    "scores divided by d": ("product / Math.sqrt(d)", "product / d"),
    "a cache that forgets its length": ("  cache.length = end;\n", ""),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_wrong_engine_is_refused(mutation, run, tmp_path):
    case = "gqa-float32/chunk"
    run([trace_job(case, tmp_path / "x.safetensors")], REFERENCE / CASES[case]["checkpoint"], MUTATIONS[mutation])
    assert judge(tmp_path / "x.safetensors", case)[0] == 1


PLAIN = ("if (!kernel || n % 2) return false;", "return false;")


@pytest.mark.parametrize("mutation", [None, PLAIN], ids=["WebAssembly", "JavaScript"])
@pytest.mark.parametrize(("T", "m", "n"), [(1, 1, 2), (1, 4, 2), (2, 3, 6), (3, 9, 7), (16, 64, 256), (65, 10, 1026)])
def test_a_product_is_that_of_float64_rounded_once(T, m, n, mutation, run):
    """Even and odd rows, columns and lengths; 1e-12 and half a unit of float32's last place, 2^-24, are allowed."""
    rng = np.random.default_rng(T)
    x, w = rng.standard_normal((T, n), np.float32), rng.standard_normal((m, n), np.float32)
    [found] = run([{"do": "matmul", "x": x.tolist(), "w": w.tolist()}], mutation=mutation)
    np.testing.assert_allclose(found, (x.astype(np.float64) @ w.T.astype(np.float64)).ravel(), rtol=2**-24, atol=1e-12)


def test_the_kernel_in_the_page_is_its_source_assembled():
    text = (EXPLORER / "fast_matmul.js").read_text()
    code = "".join(re.findall(r'^  "([\w+/=]+)"', text, re.M))
    assert base64.b64decode(code) == wasmtime.wat2wasm((EXPLORER / "matmul.wat").read_text())


@pytest.mark.parametrize("model", ["weights/fairytales", "tests/reference/checkpoints/mqa-float16-meta",
                                   "tests/reference/checkpoints/mha-float32-hf"])
def test_weights_in_the_page_are_those_of_the_file_to_the_bit(model, run):
    weights, _ = nl.load(ROOT / model)
    [found] = run([{"do": "weights"}], ROOT / model)
    named = dict(explorer.named_weights(weights))
    named.setdefault("output", named["embedding"])        # tied
    assert found == {name: hashlib.sha256(x.tobytes()).hexdigest() for name, x in named.items()}


# ---- Tokenizer, sampling, drawing ------------------------------------------------------------------------------

def random_texts(tokenizer, count):
    """Texts of letters, spaces, words of the vocabulary, and characters that it lacks."""
    rng = np.random.default_rng(0)
    alphabet = list("abcdefghijklmnopqrst uvwxyz  ,.!?\n\t\"'09äß▁")
    alphabet += ["é", "株", "🙂", "e\u0301", "king", " the", "ing"]
    return ["".join(rng.choice(alphabet, rng.integers(1, 40))) for _ in range(count)]


def test_tokenizer_is_sentencepiece(run, tokenizer):
    vectors = json.loads((REFERENCE / "tokenizer.json").read_text())["vectors"]
    texts = [vector["text"] for vector in vectors] + random_texts(tokenizer, 300)
    rng = np.random.default_rng(0)
    ids = [vector["ids"] for vector in vectors] + [rng.integers(0, 3072, 12).tolist() for _ in range(300)]
    ids += [rng.integers(0, 280, 12).tolist() for _ in range(100)]                        # bytes, mostly
    encoded, spelled, decoded = run([{"do": "encode", "texts": texts}, {"do": "spell", "texts": texts},
                                     {"do": "decode", "ids": ids}])
    assert encoded == [tokenizer.encode(text) for text in texts]
    assert encoded[:len(vectors)] == [[1, *vector["ids"]] for vector in vectors]
    assert spelled == [some[1:] for some in encoded]      # the last step of the merges, spelled
    assert decoded == [tokenizer.decode(some) for some in ids]
    assert decoded[:len(vectors)] == [vector["decoded"] for vector in vectors]


def test_merges_are_shown_one_by_one(run, tokenizer):
    [[steps]] = run([{"do": "merges", "texts": ["king ö"]}])
    assert [step["parts"] for step in steps] == [
        ["▁", "k", "i", "n", "g", "▁", "ö"], ["▁", "k", "in", "g", "▁", "ö"], ["▁", "k", "ing", "▁", "ö"],
        ["▁k", "ing", "▁", "ö"], ["▁king", "▁", "ö"]]
    assert [step["at"] for step in steps] == [None, 2, 2, 0, 0]
    for step in steps[1:]:
        made = tokenizer.sp.piece_to_id(step["parts"][step["at"]])
        assert (step["id"], step["score"]) == (made, tokenizer.sp.get_score(made))


def test_text_that_is_not_unicode_is_refused(run):
    [answer] = run([{"do": "encode", "texts": ["\ud800"]}])
    assert answer == {"error": "the text is not valid Unicode"}


def test_sampling_is_that_of_transformers(run):
    vectors = json.loads((REFERENCE / "sampling.json").read_text())["vectors"]
    [probs] = run([{"do": "probs", "vectors": vectors}])
    for found, vector in zip(probs, vectors, strict=True):
        np.testing.assert_allclose(found, vector["probs"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.5}])
def test_sampling_settings_out_of_range_are_refused(wrong, run):
    vector = {"logits": [0.0, 1.0], "temperature": 1, "top_k": 0, "top_p": 1, **wrong}
    assert f"not {list(wrong.values())[0]}" in run([{"do": "probs", "vectors": [vector]}])[0]["error"]


def test_random_numbers_are_numpys(run):
    seeds = [0, 1, 2, 123456789, 2**32 - 1, 2**32, 2**53 - 1]
    numbers, refused = run([{"do": "random", "seeds": seeds, "count": 50}, {"do": "random", "seeds": [-1], "count": 1}])
    assert numbers == [np.random.default_rng(seed).random(50).tolist() for seed in seeds]
    assert "a seed must be" in refused["error"]


def test_same_seed_same_story_as_the_command_line(run, fairytales, tokenizer):
    weights, config = fairytales
    tokens = tokenizer.encode("Once upon a time")
    for seed, settings in [(1, dict(temperature=0.8, top_p=0.95)), (5, dict(top_k=40)), (0, dict(temperature=0))]:
        right = list(nl.generate(tokens, weights, config, 25, np.random.default_rng(seed), stop={2}, **settings))
        [made] = run([{"do": "generate", "tokens": tokens, "seed": seed, "count": 25, "stop": [2], **settings}])
        assert made == right


# ---- Changes -------------------------------------------------------------------------------------------------

def change(kind, **fields):
    """A change as the page has it."""
    return {"kind": kind, **fields}


def scaled_head(head, scale):
    def apply(x):
        x[head] *= scale
    return apply


def scaled_column(column, scale):
    def apply(x):
        x[:, column] *= scale
    return apply


def all_scaled(scale):
    def apply(x):
        x *= scale
    return apply


def number(index, value):
    def apply(x):
        x[index] = value
    return apply


# What the page is asked for, and the same by a tap: {name: function that changes a copy}.
TAPPED = [
    ([change("head", layer=3, head=2, scale=0)], {"layers.3.attn.heads": scaled_head(2, 0)}),
    ([change("head", layer=0, head=7, scale=2.5)], {"layers.0.attn.heads": scaled_head(7, 2.5)}),
    ([change("neuron", layer=2, neuron=5, scale=-3)], {"layers.2.ffn.hidden": scaled_column(5, -3)}),
    ([change("part", layer=4, part="attn", scale=0)], {"layers.4.attn.out": all_scaled(0)}),
    ([change("part", layer=1, part="ffn", scale=0.5)], {"layers.1.ffn.out": all_scaled(0.5)}),
    ([change("norm", layer=2, norm="ffn_norm", scale=0.5)], {"layers.2.ffn_norm": all_scaled(0.5)}),
    ([change("norm", layer=None, norm="norm", scale=2)], {"norm": all_scaled(2)}),
    ([change("set", name="layers.2.x_attn", index=[4, 17], value=5)],
     {"layers.2.x_attn": number((4, 17), 5)}),
    ([change("set", name="layers.1.attn.scores", index=[3, 8, 2], value=9.5)],
     {"layers.1.attn.scores": number((3, 8, 2), 9.5)}),
    ([change("set", name="layers.0.attn.k", index=[1, 0, 31], value=-2),
      change("head", layer=5, head=1, scale=0)],
     {"layers.0.attn.k": number((1, 0, 31), -2), "layers.5.attn.heads": scaled_head(1, 0)}),
]


def changed_trace(tokens, weights, config, changes):
    """The trace of a run in which each named tensor is changed."""
    trace = nl.Trace()

    def tap(name, x):
        if name in changes:
            x = x.copy()
            changes[name](x)
        return trace(name, x)

    nl.forward(tokens, weights, config, tap=tap)
    return trace


def traces_with(run, tokens, change_lists, tmp_path, model=FAIRYTALES, **more):
    """What the page computes with each list of changes: [trace]."""
    files = [str(tmp_path / f"change-{i}.safetensors") for i in range(len(change_lists))]
    answers = run([{"do": "trace", "tokens": tokens, "changes": changes, "file": file, **more}
                   for changes, file in zip(change_lists, files)], model)
    assert answers == [None] * len(files)
    return [load_file(file) for file in files]


def test_changes_are_what_a_tap_does(run, fairytales, tokenizer, tmp_path):
    tokens = tokenizer.encode(PROMPT)
    found = traces_with(run, tokens, [changes for changes, _ in TAPPED], tmp_path)
    for trace, (_, changes) in zip(found, TAPPED):
        assert_same(trace, changed_trace(tokens, *fairytales, changes))


def test_a_norm_that_is_off_is_left_out(run, fairytales, tokenizer, tmp_path):
    tokens = tokenizer.encode(PROMPT)
    lists = [[change("norm", layer=3, norm="attn_norm", scale=0)],
             [change("norm", layer=None, norm="norm", scale=0)]]
    for trace, name, source in zip(traces_with(run, tokens, lists, tmp_path), ["layers.3.attn_norm", "norm"],
                                   ["layers.2.x_ffn", "layers.5.x_ffn"]):
        right = nl.Trace()

        def tap(now, x):
            return right(now, right[source] if now == name else x)

        nl.forward(tokens, *fairytales, tap=tap)
        assert_same(trace, right, 1e-4)                   # scores of thousands, rounded, move a probability by 3e-5


def neighbours(x, cos, sin):
    y, a, b = np.empty_like(x), x[..., ::2], x[..., 1::2]
    y[..., ::2], y[..., 1::2] = a * cos - b * sin, b * cos + a * sin
    return y


def test_rope_with_another_theta_pairing_and_shift(run, fairytales, tokenizer, tmp_path, monkeypatch):
    weights, config = fairytales
    tokens = tokenizer.encode(PROMPT)
    theta, pairing, shift, back = traces_with(run, tokens, [
        [change("theta", value=500)], [change("pairing", value="neighbours")], [change("shift", value=7)],
        [change("shift", value=-3)]], tmp_path)
    plain = changed_trace(tokens, weights, config, {})
    assert_same(theta, changed_trace(tokens, weights, replace(config, rope_theta=500.0), {}))
    for name in ("layers.0.attn.q_rope", "layers.0.attn.k_rope"):             # both turn, and scores do not mind
        cos_sin = nl.rope_cos_sin(np.arange(len(tokens)) + 7, config.head_dim, config.rope_theta)
        assert distance(shift[name], nl.rope(plain[name.removesuffix("_rope")], *cos_sin)) < ALLOWED
        assert distance(shift[name], plain[name]) > 0.1
    assert distance(shift["logits"], plain["logits"]) < 1e-4
    assert distance(back["logits"], plain["logits"]) < 1e-4
    monkeypatch.setattr(nl, "rope", neighbours)
    assert_same(pairing, changed_trace(tokens, weights, config, {}))


def test_patch_from_a_second_prompt(run, fairytales, tokenizer, tmp_path):
    """The positions that both prompts have, whichever is longer."""
    weights, config = fairytales
    names = ["layers.3.x_ffn", "layers.2.attn.k_rope", "layers.1.attn.probs", "embedding"]
    for text, other in [(PROMPT, OTHER), (OTHER, PROMPT)]:
        tokens, source = tokenizer.encode(text), changed_trace(tokenizer.encode(other), weights, config, {})
        lists = [[change("patch", name=name, text=other)] for name in names]
        for name, trace in zip(names, traces_with(run, tokens, lists, tmp_path, patches=[other])):
            def paste(x):
                both = min(x.shape[-2], source[name].shape[-2])
                width = min(x.shape[-1], source[name].shape[-1])
                x[..., :both, :width] = source[name][..., :both, :width]

            assert_same(trace, changed_trace(tokens, weights, config, {name: paste}))
    [answer] = run([{"do": "trace", "tokens": tokens, "file": "", "changes": lists[0]}])
    assert "has not been run" in answer["error"]


def test_drawing_with_the_cache_obeys_changes(run, tokenizer):
    """Also those of one position, and of a position that has yet to come."""
    tokens = tokenizer.encode(PROMPT)
    lists = [[], [change("set", name="layers.5.x_ffn", index=[9, 3], value=40)],
             [change("set", name="layers.2.x_attn", index=[11, 3], value=60)],
             [change("set", name="logits", index=[9, 777], value=99)],
             [change("patch", name="layers.3.x_ffn", text=OTHER)], [change("theta", value=200)],
             [change("shift", value=5)], [change("bug", bug="bos-missing")],
             [change("bug", bug="heads-round-robin")]]
    jobs = [{"tokens": tokens, "changes": changes, "patches": [OTHER], "count": 4, "temperature": 0}
            for changes in lists]
    with_cache = run([{"do": "generate", **job} for job in jobs])
    assert with_cache == run([{"do": "greedyWithoutCache", **job} for job in jobs])
    assert with_cache[3][0] == 777
    assert len(set(map(tuple, with_cache))) >= 6          # the changes are felt; a shift alone is not


@pytest.mark.parametrize("model, chunks", [("gqa-float32-hf", (12,)), ("gqa-float32-hf", (5, 7)),
                                           ("mha-float32-hf", (8, 4))])
def test_mistakes_are_those_of_the_bug_zoo(model, chunks, run, tmp_path):
    """Every mistake, in one piece and through the cache, is tests/bugs.py's to rounding."""
    folder = REFERENCE / "checkpoints" / model
    weights, config = nl.load(folder)
    tokens = tuple(CASES["gqa-float32/prompt"]["tokens"])
    zoo = {bug.name: bug for bug in bugs.BUGS}
    [offered] = run([{"do": "bugs"}], folder)
    assert len(offered) == 53 and set(offered) <= set(zoo)
    assert [bug["name"] for bug in explorer.words_of_bugs()] == [name for name in zoo if name in offered]
    lists = [[change("bug", bug=name)] for name in offered]
    found = traces_with(run, tokens, lists, tmp_path, folder, chunks=chunks)
    right = bugs.compute(bugs.Run(tokens, weights, config, chunks))
    for name, trace in zip(offered, found):
        wrong = bugs.compute(bugs.Run(tokens, weights, config, chunks), zoo[name]) or right
        assert_same(trace, wrong)


def test_first_tensor_that_a_mistake_changes(run):
    folder, tokens = REFERENCE / "checkpoints" / "gqa-float32-hf", CASES["gqa-float32/prompt"]["tokens"]
    [offered] = run([{"do": "bugs"}], folder)
    first = {bug.name: bug.first for bug in bugs.BUGS} | {"not-permuted": "layers.0.attn.q"}      # in another order
    answers = run([{"do": "differences", "tokens": tokens, "changes": [change("bug", bug=name)]}
                   for name in offered], folder)
    for name, rows in zip(offered, answers):
        differs = [row["name"] for row in rows if row["differs"]]
        unseen = name in ("positions-restart", "cache-ignored")               # with the cache only
        assert differs[:1] == ([] if unseen else [first[name]]), name


def test_how_far_tensors_moved(run, fairytales, tokenizer):
    tokens = tokenizer.encode(PROMPT)
    changes, taps = TAPPED[0]
    [moved] = run([{"do": "moved", "tokens": tokens, "changes": changes}])
    was, now = changed_trace(tokens, *fairytales, {}), changed_trace(tokens, *fairytales, taps)
    for name, share in moved.items():
        x, y = (np.where(np.isfinite(trace[name]), trace[name], 0).astype(np.float64) for trace in (now, was))
        assert share == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(y), rel=1e-3, abs=1e-5), name
    assert moved["layers.3.attn.probs"] == 0 and moved["layers.3.attn.heads"] > 0.1


ALL_KINDS = [one for changes, _ in TAPPED for one in changes] + [
    change("theta", value=500.5), change("pairing", value="neighbours"), change("shift", value=-4),
    change("norm", layer=None, norm="norm", scale=0), change("bug", bug="gelu"),
    change("patch", name="layers.3.x_ffn", text="a * b ** c, 50% & “größer” *"),
    change("patch", name="norm", text="")]


def test_changes_as_text(run):
    lists = [[], *([one] for one in ALL_KINDS), ALL_KINDS]
    [texts] = run([{"do": "text", "changes": lists}])
    [back] = run([{"do": "changes", "texts": texts}])
    assert back == lists


@pytest.mark.parametrize("text", [
    "nonsense", "head*3*2", "head*3*2*0*1", "head*6*2*0", "head*3*8*0", "head*3*2*x", "head*3*2*", "head*-1*2*0",
    "neuron*0*704*0", "part*0*ffnn*0", "norm*0*norm*0", "norm**attn_norm*0", "set*nothing*1.2*3", "set*logits*1*3",
    "set*logits*1.3072*3", "set*logits*1.2*", "set*logits*1.2*NaN", "theta*0", "theta*-1", "pairing*halves",
    "shift*1.5", "bug*none", "bug*constructor", "head*3*2*0*theta*500", "head*3*2*0**", "patch*logits*%", "toString*1",
    "constructor*1*2", "part*3*toString*0"])
def test_text_that_is_no_change_is_refused(text, run):
    [[answer]] = run([{"do": "changes", "texts": [text]}])
    assert "change" in answer["error"]


def test_sentences(run):
    [said] = run([{"do": "sentences", "changes": [TAPPED[0][0][0], TAPPED[1][0][0], *ALL_KINDS[-6:-1]]}])
    assert said == ["layer 3: head 2 off", "layer 0: head 7 × 2.5", "pairs (2i, 2i + 1)", "positions − 4", "norm off",
                    "mistake: gelu", "layers.3.x_ffn from “a * b ** c, 50% & “größer” *”"]


def test_a_new_change_takes_the_place_of_the_same_one(run):
    off, half, whole = (change("head", layer=3, head=2, scale=scale) for scale in (0, 0.5, 1))
    other, theta = change("head", layer=3, head=1, scale=0), change("theta", value=500)
    trained = change("theta", value=10000)
    answers = run([{"do": "withChange", "steps": steps} for steps in (
        [off, other, half], [off, other, whole], [theta, off, trained], [theta, theta])])
    assert answers == [[half, other], [other], [off], [theta]]


# ---- The number panel and the logits -----------------------------------------------------------------------------

def test_explanations_are_the_run(run, tokenizer):
    """Thousands of random numbers over every name, as trained and with every kind of change and every mistake."""
    [offered] = run([{"do": "bugs"}])
    lists = [[], *(changes for changes, _ in TAPPED), [change("theta", value=500), change("shift", value=3)],
             [change("pairing", value="neighbours")], [change("norm", layer=2, norm="attn_norm", scale=0)],
             *([change("bug", bug=name)] for name in offered)]
    tokens = tokenizer.encode("There was a king who")
    [some] = run([{"do": "explain", "tokens": tokens, "changeLists": lists, "each": 2, "seed": 0}])
    assert some["names"] == 111 and some["count"] == 2 * 111 * len(lists) > 10000
    assert some["worst"]["share"] < 1e-6, some["worst"]
    print(f"{some['count']} numbers explained, the farthest {some['worst']['share']:.1e} of its tensor's largest")


@pytest.mark.parametrize("mutation", [
    ("isFirst ? a.value * cos - b.value * sin", "isFirst ? a.value * cos + b.value * sin"),
    ("result: product.sum / Math.sqrt(d) };", "result: product.sum / d };"),
    ("result = isFactor ? result * change.scale : left;", "result = left + 1;"),
])
def test_a_wrong_explanation_is_refused(mutation, run, tokenizer):
    job = {"do": "explain", "tokens": tokenizer.encode(PROMPT), "changeLists": [TAPPED[0][0]], "each": 9, "seed": 0}
    assert run([job], mutation=mutation)[0]["worst"]["share"] > 1e-3


def test_a_change_is_the_last_step(run, tokenizer):
    tokens, half = tokenizer.encode(PROMPT), change("head", layer=3, head=2, scale=0.5)
    number_set = change("set", name="layers.3.attn.heads", index=[2, 4, 7], value=3)
    job = {"do": "explainOne", "tokens": tokens, "name": "layers.3.attn.heads"}
    trained, halved, both, none = run([{**job, "changes": changes, "index": index} for changes, index in (
        ([], [2, 4, 7]), ([half], [2, 4, 7]), ([half, number_set], [2, 4, 7]), ([half, number_set], [1, 4, 7]))])
    assert halved["result"] == halved["sum"] / 2 == trained["result"] / 2
    assert halved["steps"][-1][0] == "× 0.5, your change: layer 3: head 2 × 0.5"
    assert [step[1] for step in both["steps"]] == [both["sum"] / 2, 3] and both["result"] == 3
    assert both["note"] == "“layers.3.attn.heads[2, 4, 7] = 3” has replaced this number."
    assert none["steps"] == [] and "note" not in none


def test_next_token_after_every_layer_and_loss(run, fairytales, tokenizer):
    weights, config = fairytales
    tokens = tokenizer.encode(PROMPT)
    lens, loss = run([{"do": "lens", "tokens": tokens, "position": 7}, {"do": "loss", "tokens": tokens}])
    trace = changed_trace(tokens, weights, config, {})
    assert [name for name, _ in lens] == ["embedding", *(f"layers.{i}.x_ffn" for i in range(6))]
    for name, probs in lens:
        x = nl.rms_norm(trace[name].astype(np.float64), weights["norm"], config.norm_eps)
        np.testing.assert_allclose(probs, nl.next_token_probs(x[7] @ weights["output"]), rtol=0, atol=1e-5)
    assert loss == pytest.approx(nl.cross_entropy(trace["logits"][:-1], tokens[1:]).mean(), abs=1e-5)


def test_a_logit_split_into_heads_and_feed_forwards(run, fairytales, tokenizer):
    weights, config = fairytales
    tokens, t, token = tokenizer.encode(PROMPT), 8, 300
    [found] = run([{"do": "contributions", "tokens": tokens, "position": t, "token": token}])
    trace = changed_trace(tokens, *nl.load(FAIRYTALES, dtype=np.float64), {})
    x = trace["layers.5.x_ffn"][t]
    direction = weights["norm"] * weights["output"][:, token] / np.sqrt(np.mean(x * x) + config.norm_eps)
    right = [trace["embedding"][t] @ direction]
    for i, layer in enumerate(weights["layers"]):
        per_head = layer["attn"]["wo"].reshape(config.n_heads, config.head_dim, -1)
        right += [trace[f"layers.{i}.attn.heads"][h, t] @ per_head[h] @ direction for h in range(config.n_heads)]
        right.append(trace[f"layers.{i}.ffn.out"][t] @ direction)
    np.testing.assert_allclose([part["value"] for part in found["list"]], right, rtol=0, atol=1e-4)
    assert found["sum"] == pytest.approx(trace["logits"][t, token], abs=1e-4)
    assert found["sum"] == pytest.approx(found["logit"], abs=1e-4)


def test_a_logit_with_changes_is_split_too(run, tokenizer):
    """What a change breaks into the stream stands in the list, so that the sum is the logit of the run."""
    tokens = tokenizer.encode(PROMPT)
    job = {"do": "contributions", "tokens": tokens, "position": 9, "token": 300}
    lists = [*(changes for changes, _ in TAPPED), [change("norm", layer=None, norm="norm", scale=0)],
             [change("bug", bug="post-norm")], [change("set", name="logits", index=[9, 300], value=50)],
             [change("set", name="layers.2.x_attn", index=[9, 3], value=50)]]
    answers = run([{**job, "changes": changes} for changes in lists])
    for changes, found in zip(lists, answers):
        assert found["sum"] == pytest.approx(found["logit"], abs=2e-4, rel=1e-6), changes
    assert [part["name"] for part in answers[-1]["list"] if part["part"] == "change"] == ["layers.2.x_attn"]


def test_names_have_the_axes_of_the_readme_and_the_inputs_of_the_code(run):
    [names] = run([{"do": "names"}])
    reference = explorer.reference()
    assert [name for name, _, _ in names] == bugs.names_of(6)
    seen = set()
    for name, letters, inputs in names:
        short = name.split(".", 2)[2] if name.startswith("layers.") else name
        assert letters == reference[short]["shape"]
        assert set(inputs) <= seen                        # computed before
        seen.add(name)


# ---- Traces as files -----------------------------------------------------------------------------------------------

def test_a_saved_run_can_be_read_by_others_and_by_the_page(run, fairytales, tokenizer, tmp_path):
    tokens = tokenizer.encode(PROMPT)
    [trace] = traces_with(run, tokens, [[]], tmp_path)
    right = changed_trace(tokens, *fairytales, {})
    assert_same(trace, right)
    job = {"do": "readTrace", "tokens": tokens, "files": [str(tmp_path / "change-0.safetensors")], "allowed": 0}
    [[read]] = run([job])
    assert read["dtype"] == "F32" and read["ignored"] == []
    assert len(read["differences"]) == 111 and not any(row["differs"] for row in read["differences"])


def laid_out(x, how):
    """A tensor as other programs hold it."""
    if how == "batch":
        return x[None]
    if how == "flat":
        return x.reshape(-1)
    if x.ndim == 3 and how == "positions first":
        return x.swapaxes(0, 1)
    if x.ndim == 3 and how == "side by side":
        return x.swapaxes(0, 1).reshape(1, x.shape[1], -1)
    return x


@pytest.mark.parametrize("dtype, name", [(np.float64, "F64"), (np.float32, "F32"), (np.float16, "F16"),
                                         (explorer.ml_dtypes.bfloat16, "BF16")])
@pytest.mark.parametrize("how", ["as it is", "batch", "flat", "positions first", "side by side"])
def test_somebody_elses_trace(how, dtype, name, run, fairytales, tokenizer, tmp_path):
    """In any type and usual layout, numpy_llama.py's numbers are the page's; one wrong number is found."""
    tokens = tokenizer.encode(PROMPT)
    theirs = {key: x for key, x in changed_trace(tokens, *fairytales, {}).items()
              if key.startswith(("layers.0.", "layers.4.")) and not key.endswith("scores")}
    wrong = theirs | {"layers.4.attn.v": theirs["layers.4.attn.v"].copy()}
    wrong["layers.4.attn.v"][1, 3, 5] += 10
    files = [tmp_path / "right.safetensors", tmp_path / "wrong.safetensors"]
    for file, tensors in zip(files, (theirs, wrong)):
        save_file({key: np.ascontiguousarray(laid_out(x, how).astype(dtype)) for key, x in tensors.items()}, file)
    allowed = {"F64": 1e-5, "F32": 1e-5, "F16": 2e-2, "BF16": 1.5e-1}[name]
    right, found = run([{"do": "readTrace", "tokens": tokens, "files": list(map(str, files)), "allowed": allowed}])[0]
    assert right["dtype"] == name and right["ignored"] == [] and len(right["differences"]) == len(theirs)
    assert not any(row["differs"] for row in right["differences"])
    [row] = [row for row in found["differences"] if row["differs"]]
    place = np.ravel_multi_index((1, 3, 5), wrong["layers.4.attn.v"].shape)
    assert (row["name"], row["at"]) == ("layers.4.attn.v", place)


def test_names_of_transformers_are_understood(run, fairytales, tokenizer, tmp_path):
    tokens, theirs = tokenizer.encode(PROMPT), changed_trace(tokenizer.encode(PROMPT), *fairytales, {})
    save_file({"model.layers.2.mlp.up_proj": theirs["layers.2.ffn.up"], "lm_head": theirs["logits"],
               "something.else": theirs["norm"], "norm": theirs["norm"][:4].copy()}, tmp_path / "x.safetensors")
    [[read]] = run([{"do": "readTrace", "tokens": tokens, "files": [str(tmp_path / "x.safetensors")]}])
    assert {row["name"] for row in read["differences"]} == {"layers.2.ffn.up", "logits"}
    assert sorted(read["ignored"]) == ["norm is 4 × 256, and 10 × 256 in this run: is it of the same prompt?",
                                       "something.else is not a name of this run"]


def header(entries, data=b"", length=None):
    text = json.dumps(entries).encode() if not isinstance(entries, bytes) else entries
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


NORM = {"dtype": "F32", "shape": [10, 256], "data_offsets": [0, 10240]}
BROKEN = {
    "empty": (b"", "shorter than eight bytes"),
    "a web page": (b"<!DOCTYPE html><html>nothing</html>", "no length of a header"),
    "a header that is cut short": (header({"norm": NORM}, length=10**6), "no length of a header"),
    "no JSON": (header(b"{nonsense"), "header is not JSON"),
    "a list": (header([]), "header is no object"),
    "no tensors": (header({}), "holds no tensors"),
    "data cut short": (header({"norm": NORM}, bytes(100)), "cut short or damaged"),
    "a shape that lies": (header({"norm": {**NORM, "shape": [10, 255]}}, bytes(10240)), "cut short or damaged"),
    "integers": (header({"norm": {**NORM, "dtype": "I32"}}, bytes(10240)), "norm is I32"),
    "no shape": (header({"norm": {**NORM, "shape": [-1]}}, bytes(10240)), "norm has no shape"),
    "no offsets": (header({"norm": {**NORM, "data_offsets": 3}}, bytes(10240)), "norm has no data_offsets"),
    "not a number": (header({"norm": NORM}, np.full(2560, np.nan, np.float32).tobytes()), "norm holds NaN"),
    "another model": (header({"norm": {**NORM, "shape": [20, 128]}}, bytes(10240)), "nothing in the file fits"),
    "twice": (header({"norm": NORM, "model.norm": NORM}, bytes(10240)), "norm is in the file twice"),
    "an entry that is a number": (header({"norm": 3}), "norm is of no type"),
    "an entry that is null": (header({"norm": None}), "norm is of no type"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_trace_is_refused_in_a_sentence(kind, run, tokenizer, tmp_path):
    content, expected = BROKEN[kind]
    (tmp_path / "x.safetensors").write_bytes(content)
    job = {"do": "readTrace", "tokens": tokenizer.encode(PROMPT), "files": [str(tmp_path / "x.safetensors")]}
    [[answer]] = run([job])
    assert expected in answer["error"] and "\n" not in answer["error"]


# ---- The page's script ---------------------------------------------------------------------------------------------

def test_the_page_is_small_and_whole(pages):
    page = pages(FAIRYTALES).read_text(encoding="utf-8")
    assert len(page.encode()) < 12e6
    assert "src=" not in page.split('<script type="text/plain"')[0] and "{data}" not in page
    for mark in ("/*{style}*/", "{weights}", "/*{script}*/"):
        assert mark not in page


def test_what_the_page_says_of_code_and_papers():
    reference, source = explorer.reference(), (ROOT / "numpy_llama.py").read_text().splitlines()
    assert [f"layers.0.{name}" if name not in ("embedding", "norm", "logits") else name
            for name in reference] == bugs.names_of(1)
    for name, about in reference.items():
        assert f'tap("{name.split(".")[-1]}"' in source[about["line"] - 1]
        assert about["what"] and all(paper["url"].startswith("https://arxiv.org/abs/") for paper in about["where"])
        for code in about["code"]:
            assert source[code["line"] - 1].startswith(f"def {code['name']}(")
    assert [code["name"] for code in reference["attn_norm"]["code"]] == ["block", "rms_norm"]


def test_a_mistake_without_words_is_refused(tmp_path, monkeypatch):
    text = (EXPLORER / "bugs.js").read_text(encoding="utf-8")
    (tmp_path / "bugs.js").write_text(text.replace('  "rope-neighbours": ', '  "rope-neighbors": '), encoding="utf-8")
    monkeypatch.setattr(explorer, "HERE", tmp_path)
    with pytest.raises(nl.InputError, match="tests/bugs.py has no mistake rope-neighbors, which bugs.js makes"):
        explorer.words_of_bugs()


@pytest.mark.parametrize("modules, message", [
    ({"main": 'import { a as b } from "./x.js";\n', "x": "export const a = 1;\n"}, "import {a as b} cannot be joined"),
    ({"main": 'import a from "./x.js";\n', "x": "export default 1;\n"}, "cannot be joined"),
    ({"main": 'import * as a from "./x.js";\n', "x": "export const a = 1;\n"}, "cannot be joined"),
    ({"main": 'import { a } from "./x.js";\n', "x": "const a = 1;\nexport { a };\n"}, "cannot be joined"),
    ({"main": 'import { b } from "./x.js";\n', "x": "export const a = 1;\n"}, "which does not export it"),
    ({"main": 'import { a } from "./x.js";\nconst b = 1;\n', "x": "export const a = 1;\nfunction b() {}\n"},
     "both declare b"),
    ({"main": 'import { a } from "./x.js";\nexport const c = 1;\n',
      "x": 'import { c } from "./main.js";\nexport const a = 1;\n'}, "main -> x -> main"),
    ({"main": 'const a = "</script>";\n'}, "would end the page's script"),
])
def test_modules_that_cannot_be_joined_are_refused(modules, message, tmp_path):
    for name, text in modules.items():
        (tmp_path / f"{name}.js").write_text(text)
    with pytest.raises(nl.InputError, match=message.replace("{", r"\{").replace("->", "->")):
        explorer.join_modules(tmp_path)


def test_modules_are_joined_in_the_order_of_use(tmp_path):
    for name, text in {"main": 'import { a,\n  b } from "./x.js";\nimport { c } from "./y.js";\na(b, c);\n',
                       "x": 'import { c } from "./y.js";\nexport const b = c;\nexport function a() {}\n',
                       "y": "export const c = 1;\n"}.items():
        (tmp_path / f"{name}.js").write_text(text)
    assert explorer.join_modules(tmp_path) == ("// ==== y.js ====\nconst c = 1;\n\n// ==== x.js ====\nconst b = c;\n"
                                               "function a() {}\n\n// ==== main.js ====\na(b, c);\n")


def build_error(arguments, capsys):
    assert explorer.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err


def test_what_build_refuses(capsys, tmp_path, monkeypatch):
    assert "nowhere" in build_error(["--model", str(tmp_path / "nowhere")], capsys)
    assert "--help" in build_error(["--nonsense"], capsys)
    monkeypatch.setattr(explorer, "LARGEST_PAGE", 6e6)    # 5.8 million parameters: read, and found too large
    assert "choose a smaller model" in build_error(["--output", str(tmp_path / "x.html")], capsys)
    monkeypatch.setattr(explorer, "LARGEST_PAGE", 5e6)
    monkeypatch.setattr(nl, "load", None)                 # refused before anything is read
    assert "choose a smaller model" in build_error(["--output", str(tmp_path / "x.html")], capsys)
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize("output, message", [
    (".", "is a folder"), ("folder", "is a folder"), ("no/x.html", "no/x.html cannot be written: "),
    ("file/x.html", "file/x.html cannot be written: "), ("x" * 300, "x cannot be written: ")])
def test_where_no_page_can_be_written(output, message, capsys, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(explorer, "build", None)          # refused before anything is built
    assert message in build_error(["--output", output], capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_file_that_cannot_be_read_is_named_and_the_old_page_stays(capsys, tmp_path, monkeypatch):
    (tmp_path / "x.html").write_text("old")
    monkeypatch.setattr(explorer, "HERE", tmp_path)       # without the modules
    assert "state.js cannot be read: " in build_error(["--output", str(tmp_path / "x.html")], capsys)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("state, message", [
    ("#x=1", "'#x=1' has the key x, which is none of p, keep, add, t, i, layer, h,"),
    ("rotation", "has the key rotation,"),
    ("#t=layers.6.attn.q", "t=layers.6.attn.q, which this model's page does not have"),
    ("#p=a&tab=rotatoin", "tab=rotatoin, which this model's page does not have: tabs are next, logit, rotation,")])
def test_a_state_that_the_page_does_not_know_is_refused(state, message, capsys, tmp_path):
    assert message in build_error(["--open", state, "--output", str(tmp_path / "x.html")], capsys)
    assert not (tmp_path / "x.html").exists()


def test_the_page_is_opened_in_a_state(capsys, tmp_path, monkeypatch):
    """The state stands in the page: many systems drop what follows # when a program opens a file in the browser."""
    opened, state = [], "#p=a+%22b%22&t=logits&tab=logit"
    monkeypatch.setattr(explorer.webbrowser, "open", lambda address: opened.append(address) or len(opened) == 1)
    arguments = ["--model", str(REFERENCE / "checkpoints" / "gqa-float32-hf"), "--output", str(tmp_path / "x.html")]
    for options, start in ((["--open", state], state), (["--open", state[1:]], state), (["--open"], ""), ([], "")):
        assert explorer.main(arguments + options) == 0
        page = (tmp_path / "x.html").read_text(encoding="utf-8")
        data = page.split('<script type="application/json" id="data">')[1].split("</script>")[0]
        assert json.loads(data)["start"] == start
    assert opened == [(tmp_path / "x.html").as_uri()] * 3
    assert capsys.readouterr().out.count("in one yourself") == 2


def test_another_kind_of_tokenizer_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(checkpoints.sentencepiece_model("unigram"))
    with pytest.raises(nl.InputError, match="not a Llama 1 or 2 tokenizer"):
        explorer.read_tokenizer(tmp_path / "tokenizer.model", 320)


@pytest.mark.parametrize("add_bos", [True, False])
def test_another_models_tokenizer_is_that_of_the_command_line(add_bos, run, tmp_path):
    """With <s> in front or without, and with rows of the embedding that have a name or stand for nothing."""
    folder = checkpoints.write_folder(tmp_path, checkpoints.hugging_face(vocab_size=340) | {
        "tokenizer_config.json": {"add_bos_token": add_bos}, "added_tokens.json": {"[END]": 338}})
    tokenizer, text = nl.Tokenizer(folder / "tokenizer.model"), "there was a king"
    king = tokenizer.sp.encode(text)
    lists = [[*king, 338, *king], [1, *king, 339, 338], [339, *king], [198, 339, 185], [338], []]
    encoded, decoded = run([{"do": "encode", "texts": [text]}, {"do": "decode", "ids": lists}], folder)
    assert encoded == [tokenizer.encode(text)] and (encoded[0][0] == tokenizer.bos) == add_bos
    assert decoded == [tokenizer.decode(ids) for ids in lists]
    read = explorer.read_tokenizer(folder / "tokenizer.model", 340)
    assert len(read["pieces"]) == len(read["kinds"]) == 340 and read["pieces"][338:] == ["[END]", "id 339"]
    with pytest.raises(nl.InputError, match=f"has {tokenizer.vocab_size} pieces, the embedding 300 rows"):
        explorer.read_tokenizer(folder / "tokenizer.model", 300)


def test_a_model_without_a_tokenizer_takes_ids(run):
    folder = REFERENCE / "checkpoints" / "gqa-float32-hf"
    ids, wrong, decoded, spelled = run([
        {"do": "encode", "texts": ["1 5  23", ""]}, {"do": "encode", "texts": ["1 king"]},
        {"do": "decode", "ids": [[1, 5]]}, {"do": "spell", "texts": ["1 5"]}], folder)
    assert (ids, decoded, spelled) == ([[1, 5, 23], []], ["1 5"], [[1, 5]])
    assert 'write token ids from 0 to 71, not "king"' in wrong["error"]
