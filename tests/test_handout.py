"""The handout: its numbers are those of a run, a pencil gets them, and its second page says what the files say."""
import itertools
import math
import re
import sys
from decimal import ROUND_DOWN, ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

matplotlib.use("agg")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))

import build  # noqa: E402
import handout  # noqa: E402
import pencil  # noqa: E402

import numpy_llama as nl  # noqa: E402

WITHIN = 0.04       # what the page promises; of all ways below, the worst was off by 0.0306
OTHER = [0, 2, 3]   # <s> dogs and
LAYER = pencil.weights["layers"][0]


@pytest.fixture(scope="module")
def pages():
    made = [handout.pencil_page(), handout.names_page()]
    yield made
    for figure in made:
        plt.close(figure)


def texts(figure):
    return [text for text in figure.axes[0].texts if text.get_text().strip()]


def printed(steps):
    """Every number of the steps, in order."""
    return [float(number) for step in steps for fields in step.lines for _, numbers in fields for number in numbers]


# ---- The Llama -----------------------------------------------------------------------------------------------

def test_weights_are_whole_or_half_numbers():
    c = pencil.config
    assert (c.vocab_size, c.dim, c.n_heads, c.n_layers, c.hidden_dim) == (4, 2, 1, 1, 2)
    arrays = [pencil.weights[name] for name in ("embedding", "norm", "output")]
    arrays += [LAYER["attn_norm"], LAYER["ffn_norm"], *LAYER["attn"].values(), *LAYER["ffn"].values()]
    assert all(np.array_equal(2 * x, np.round(2 * x)) and x.dtype == np.float64 for x in arrays)


def without(name):
    return lambda at, x: 0 * x if at.endswith(name) else x


@pytest.mark.parametrize("ids, tap, said", [
    (pencil.PROMPT, nl.ignore, "cats and dogs"), (OTHER, nl.ignore, "cats and cats"),
    (pencil.PROMPT, without("attn.out"), "cats cats cats"), (OTHER, without("attn.out"), "cats and cats"),
    (pencil.PROMPT, without("ffn.out"), "cats dogs and")])
def test_it_needs_both_steps(ids, tap, said):
    """What it expects after each token; without attention, the last row does not know which noun stood before."""
    logits = nl.forward(ids, pencil.weights, pencil.config, tap=tap)
    assert " ".join(pencil.NAMES[i] for i in logits.argmax(axis=-1)) == said


# ---- Page 1 --------------------------------------------------------------------------------------------------

def with_a_pencil(ids, rounded, products, methods):
    """The numbers of the page's blanks, in their order, by its own steps in plain Python.

    `rounded` is applied to what is written down, `products` to single products within a sum; `methods` are those by
    which tables are read: in attention one for each of two entries (the third is e to the power of 0), in the
    feed-forward step one for each gate, in the end one. Cosines and sines have two digits.
    """
    weights, attn, ffn, written = pencil.weights, LAYER["attn"], LAYER["ffn"], []

    def number(x):
        return Decimal(repr(float(x)))

    def note(*numbers):
        written.extend(numbers)
        return list(numbers)

    def dot(a, b):
        return rounded(sum(products(x * y) for x, y in zip(a, b)))

    def times(x, matrix):
        return [dot(x, [number(row[j]) for row in matrix]) for j in range(len(matrix[0]))]

    def size(x):
        return rounded((rounded(sum(products(a * a) for a in x) / 2)).sqrt())

    def normed(x, rms, g):
        return [rounded(rounded(a / rms) * number(scale)) for a, scale in zip(x, g)]

    def sigmoid(x, method):
        positive = method(lambda x: 1 / (1 + math.exp(-x)), abs(x))
        return positive if x >= 0 else 1 - positive

    def to_the_e(below, methods):
        methods = iter(methods)
        return [next(methods)(lambda x: math.exp(-x), -t) if t else Decimal(1) for t in below]

    def turned(x, p):
        cos, sin = rounded(number(math.cos(p))), rounded(number(math.sin(p)))
        return [rounded(products(x[0] * cos) - products(x[1] * sin)),
                rounded(products(x[1] * cos) + products(x[0] * sin))]

    in_attention, at_gates, in_the_end = methods[:2], methods[2:4], methods[4]
    x = [note(*map(number, weights["embedding"][i])) for i in ids]
    rms = note(*map(size, x))
    h = [note(*normed(a, r, LAYER["attn_norm"])) for a, r in zip(x, rms)]
    q = note(*times(h[2], attn["wq"]))
    k = [note(*times(a, attn["wk"])) for a in h]
    v = [note(*times(a, attn["wv"])) for a in h]
    q = note(*turned(q, 2))
    k = [k[0], note(*turned(k[1], 1)), note(*turned(k[2], 2))]
    root = rounded(Decimal(2).sqrt())
    scores = note(*(rounded(dot(q, a) / root) for a in k))
    below = note(*(s - max(scores) for s in scores))
    e = to_the_e(below, in_attention)
    note(*e, sum(e))
    p = note(*(rounded(a / sum(e)) for a in e))
    heads = note(*(dot(p, [a[j] for a in v]) for j in range(2)))
    out = note(*times(heads, attn["wo"]))
    stream = note(*(a + b for a, b in zip(x[2], out)))
    rms, = note(size(stream))
    h = note(*normed(stream, rms, LAYER["ffn_norm"]))
    gate = note(*times(h, ffn["gate"]))
    up = note(*times(h, ffn["up"]))
    silu = note(*(rounded(g * sigmoid(g, method)) for g, method in zip(gate, at_gates)))
    hidden = note(*(rounded(a * b) for a, b in zip(silu, up)))
    out = note(*times(hidden, ffn["down"]))
    stream = note(*(a + b for a, b in zip(stream, out)))
    rms, = note(size(stream))
    y = note(*normed(stream, rms, weights["norm"]))
    logits = note(*times(y, weights["output"]))
    below = note(*(a - max(logits) for a in logits))
    e = to_the_e(below, [in_the_end] * 3)
    note(*e, sum(e))
    note(*(rounded(a / sum(e)) for a in e))
    return [float(a) for a in written]


def exactly(x):
    return x


def fives_up(x):
    return x.quantize(Decimal("0.01"), ROUND_HALF_UP)


def fives_down(x):
    return x.quantize(Decimal("0.01"), ROUND_HALF_DOWN)


def value(function, x):
    return Decimal(repr(function(float(x))))


def entry(function, tenths):
    """What the page's table shows."""
    return fives_up(value(function, tenths))


def nearest(function, x):
    """The nearest entry; of two as near, the upper."""
    return entry(function, x.quantize(Decimal("0.1"), ROUND_HALF_UP))


def nearest_lower(function, x):
    return entry(function, x.quantize(Decimal("0.1"), ROUND_HALF_DOWN))


def between(function, x):
    """By the place of x between two entries."""
    below = x.quantize(Decimal("0.1"), ROUND_DOWN)
    weight = (x - below) * 10
    return fives_up((1 - weight) * entry(function, below) + weight * entry(function, below + Decimal("0.1")))


def calculator(function, x):
    return fives_up(value(function, x))


METHODS = [nearest, nearest_lower, between, calculator]


def solution(ids, monkeypatch):
    monkeypatch.setattr(pencil, "PROMPT", ids)
    return printed(handout.steps(pencil.run(ids)))


@pytest.mark.parametrize("ids", [pencil.PROMPT, OTHER], ids=["cats", "dogs"])
def test_the_solution_is_what_plain_python_computes(ids, monkeypatch):
    expected = with_a_pencil(ids, exactly, exactly, [value] * 5)
    assert solution(ids, monkeypatch) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("rounded", [fives_up, fives_down])
@pytest.mark.parametrize("products_too", [False, True], ids=["sums rounded", "products rounded too"])
@pytest.mark.parametrize("ids", [pencil.PROMPT, OTHER], ids=["cats", "dogs"])
def test_a_pencil_gets_the_solution(ids, products_too, rounded, monkeypatch):
    """By the page's steps, within what the page says, whatever a reader does: every entry read by every method."""
    products = rounded if products_too else exactly
    exact, worst = solution(ids, monkeypatch), 0
    for methods in itertools.product(METHODS, repeat=5):
        written = with_a_pencil(ids, rounded, products, methods)
        worst = max(worst, *(abs(a - b) for a, b in zip(written, exact, strict=True)))
        assert written[-4:].index(max(written[-4:])) == int(np.argmax(exact[-4:]))
    print(f"off by at most {worst:.4f}")
    assert worst < WITHIN


@pytest.mark.parametrize("ids", [pencil.PROMPT, OTHER], ids=["cats", "dogs"])
def test_an_entry_further_is_noticed(ids, monkeypatch):
    """The bound can fail: who takes the wrong row for both gates is outside of it."""
    def a_tenth_off(function, x):
        return nearest(function, x + Decimal("0.3"))
    written = with_a_pencil(ids, fives_up, exactly, [nearest, nearest, a_tenth_off, a_tenth_off, nearest])
    assert max(abs(a - b) for a, b in zip(written, solution(ids, monkeypatch), strict=True)) > WITHIN


def test_the_page_shows_the_solution_and_as_many_blanks(pages):
    steps = handout.steps(pencil.run())
    right = [text for text in texts(pages[0]) if text.get_position()[0] > handout.RIGHT]
    bold = [text.get_text() for text in right if text.get_fontweight() == "bold"]
    assert all(re.fullmatch(r"−?\d+\.\d\d", text) for text in bold)
    shown = [float(text.replace("−", "-")) for text in bold]
    assert shown == pytest.approx(printed(steps), abs=0.00501)
    rules = [line.get_xdata() for line in pages[0].axes[0].lines]
    blanks = [x for x in rules if math.isclose(x[1] - x[0], handout.SLOT - 2)]
    assert len(blanks) == len(shown) >= 60


def test_nothing_crosses_the_fold(pages):
    """What is needed stands on the left: numbers of the steps on the right alone."""
    renderer = pages[0].canvas.get_renderer()
    scale = 72 / pages[0].dpi
    for text in texts(pages[0]):
        box = text.get_window_extent(renderer)
        assert (box.x1 * scale < handout.FOLD - 3) or (box.x0 * scale > handout.FOLD + 3), text
        is_on_the_left = text.get_position()[0] < handout.FOLD
        assert not (is_on_the_left and re.fullmatch(r"−?\d+\.\d\d", text.get_text()))
    for line in pages[0].axes[0].lines:
        assert max(line.get_xdata()) <= handout.FOLD
    assert handout.WITHIN == WITHIN and f"within {WITHIN}" in " ".join(text.get_text() for text in texts(pages[0]))


def test_what_the_solution_says_is_so():
    """Its sentences, but for the numbers in them, are written by hand."""
    run = {name.removeprefix("layers.0."): x for name, x in pencil.run().items()}
    noun, cats_or_dogs = pencil.weights["embedding"].T
    assert (noun > 0).tolist() == [False, True, True, False] and cats_or_dogs[1] > 0 > cats_or_dogs[2]
    assert np.array_equal(LAYER["attn"]["wk"][1], [0, 0]) and np.array_equal(LAYER["attn"]["wv"][0], [0, 0])
    assert run["attn.scores"][0, -1].argmax() == run["attn.probs"][0, -1].argmax() == 1
    assert run["x_attn"][-1, 1] < 0 < run["x_ffn"][-1, 0] and run["x_attn"][-1, 0] < 0
    assert run["ffn.gate"][-1, 0] > 0 > run["ffn.gate"][-1, 1]
    k, v = run["attn.k"][0], run["attn.v"][0]
    assert np.array_equal(k[:, 0], run["attn_norm"][:, 0]) and np.array_equal(v[:, 1], run["attn_norm"][:, 1])


def test_what_is_given_is_the_models(pages):
    """Every number of every weight stands above the line; the tables are right to two digits."""
    above = [text for text in texts(pages[0]) if text.get_position()[1] < handout.TOP
             and text.get_position()[0] < handout.FOLD]
    given = re.findall(r"−?\d+\.?\d*", " ".join(text.get_text() for text in above))
    arrays = [pencil.weights["embedding"], pencil.weights["output"], *LAYER["attn"].values(), *LAYER["ffn"].values()]
    for number in {handout.short(x) for array in arrays for x in array.ravel()}:
        assert number in given
    black = [text for text in above if text.get_color() == "black"]
    table = [float(text) for text in (one.get_text() for one in black) if re.fullmatch(r"\.\d\d|1", text)]
    table = table[-100:]                                  # a weight can be 1 too
    steps = [n / 10 for n in range(50)]
    expected = [math.exp(-x) for x in steps] + [1 / (1 + math.exp(-x)) for x in steps]
    assert table == pytest.approx(expected, abs=0.00501)


def test_another_weight_is_another_page(monkeypatch):
    before = [step.lines for step in handout.steps(pencil.run())]
    monkeypatch.setitem(LAYER["attn"], "wo", LAYER["attn"]["wo"] * 1.5)
    after = [step.lines for step in handout.steps(pencil.run())]
    changed = [i for i, (a, b) in enumerate(zip(before, after), start=1) if repr(a) != repr(b)]
    assert changed == [7, 8, 9, 10, 11, 12, 13]


# ---- Page 2 --------------------------------------------------------------------------------------------------

def bare(code):
    return re.sub(r"[()\s]", "", code)


def test_names_are_the_readmes_and_the_files(fairytales, tokenizer, pages):
    """In order of computation, each with the README's words, the shape of a run, a line that taps it and its code."""
    weights, config = fairytales
    trace = nl.Trace()
    tokens = tokenizer.encode("Once upon a time")
    nl.forward(tokens, weights, config, tap=trace)
    size = dict(T=len(tokens), S=len(tokens), D=config.dim, F=config.hidden_dim, V=config.vocab_size,
                H=config.n_heads, G=config.n_kv_heads, d=config.head_dim)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    source = (ROOT / "numpy_llama.py").read_text(encoding="utf-8")
    plain = bare(re.sub(r'tap\("\w+", ', "", source))
    rows = handout.names()
    assert [row[0] for row in rows] == [name.replace(".0.", ".{i}.") for name in trace
                                        if not re.match(r"layers\.[1-9]", name)]
    shown = " ".join(text.get_text() for text in texts(pages[1]))
    for name, shape, what, papers, line, code in rows:
        assert trace[name.replace("{i}", "0")].shape == tuple(size[letter] for letter in re.findall(r"\w", shape))
        assert f" | {what} | " in readme.replace("`", "") and all(re.sub(r"^(\S+(?: 2)?) ", r"[\1] ", paper) in readme
                                                                 for paper in papers.split("; "))
        assert f'tap("{name.split(".")[-1]}", ' in source.splitlines()[int(line) - 1]
        assert bare(code) in plain, code
        for cell in (name, shape, what, papers, line, code):
            assert all(word in shown for word in cell.split())


def test_a_row_that_is_missing_in_the_readme_is_named(monkeypatch):
    read = Path.read_text

    def shorter(path, *args, **options):
        text = read(path, *args, **options)
        return re.sub(r"^\| `norm` .*\n", "", text, flags=re.M) if path.name == "README.md" else text
    monkeypatch.setattr(Path, "read_text", shorter)
    with pytest.raises(build.BuildError, match="no row for norm"):
        build.write_handout(check=True)


# ---- The file ------------------------------------------------------------------------------------------------

def test_the_file_is_the_one_that_is_made():
    """By its fingerprint, on every machine; and by its bytes from run to run."""
    made = handout.make()
    assert handout.stamp(handout.PATH.read_bytes()) == handout.stamp(made)
    assert handout.make() == made and len(re.findall(rb"/Type /Page\b", made)) == 2


def test_the_build_notices_a_stale_file(monkeypatch, tmp_path):
    monkeypatch.setattr(handout, "PATH", tmp_path / "handout.pdf")
    with pytest.raises(build.BuildError, match="handout.pdf is stale"):
        build.write_handout(check=True)
    build.write_handout(check=False)
    build.write_handout(check=True)
    monkeypatch.setitem(LAYER["ffn"], "up", LAYER["ffn"]["up"] * 2)
    with pytest.raises(build.BuildError, match="handout.pdf is stale"):
        build.write_handout(check=True)
    monkeypatch.undo()
    monkeypatch.setattr(handout, "PATH", tmp_path / "handout.pdf")
    monkeypatch.setattr(handout, "read", lambda name, read=handout.read: read(name).replace("V vocabulary", "V words"))
    with pytest.raises(build.BuildError, match="handout.pdf is stale"):
        build.write_handout(check=True)


def test_pages_can_be_read_in_print(pages):
    """A4, grey, no text below 9 pt or beyond the margins, none upon another."""
    for figure in pages:
        assert figure.get_size_inches() == pytest.approx([11.69, 8.27], abs=0.01)
        renderer = figure.canvas.get_renderer()
        boxes = []
        for text in texts(figure):
            assert text.get_fontsize() >= 9
            red, green, blue = matplotlib.colors.to_rgb(text.get_color())
            assert red == green == blue < 0.5
            boxes.append((text.get_window_extent(renderer).transformed(figure.dpi_scale_trans.inverted()), text))
        for i, (box, text) in enumerate(boxes):
            assert 0.3 < box.x0 and box.x1 < 11.4 and 0.2 < box.y0 and box.y1 < 8.1, text
            for other, words in boxes[:i]:
                across = min(box.x1, other.x1) - max(box.x0, other.x0)
                down = min(box.y1, other.y1) - max(box.y0, other.y0)
                assert across < 0.01 or down < 0.04, (text, words)
