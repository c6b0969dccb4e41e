"""The exercises of the course: `check(function)` says whether it is right, and if not, which mistake it looks like.

    python notebooks/checks.py student/02_rmsnorm.ipynb ...       grades notebooks in bulk, one line each

An exercise is known by the name of its function. The right answer here is written in another way than in
numpy_llama.py (loops, float64), so that the two can be wrong only independently. A mistake is a wrong function with a
sentence: an answer that computes the same numbers as it, on every input, is told that sentence.
"""
import copy
import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]
EXERCISES = {}


@dataclass
class Exercise:
    """One function that the reader writes."""
    lesson: str                       # "02"
    ask: str                          # what to write, for an answer that is still empty
    answer: object                    # the right function
    inputs: list                      # tuples of arguments: several shapes, and the edges
    mistakes: list = field(default_factory=list)      # (the sentence that names it, the wrong function)
    tolerance: float = 1e-5           # of the largest number of an answer; the reason stands where it differs
    picture: bool = False             # draw a wrong answer beside the right one
    run: object = None                # how the function is tried, where that is more than a call: run(function, *inputs)

    def outcome(self, function, arguments):
        """What a function makes of the arguments."""
        with np.errstate(all="ignore"):
            return self.run(function, *arguments) if self.run else function(*arguments)


def exercise(lesson, ask, inputs, **options):
    """Registers the right answer that it decorates, under that function's name."""
    def register(answer):
        assert answer.__name__ not in EXERCISES, answer.__name__
        EXERCISES[answer.__name__] = Exercise(lesson, ask, answer, inputs, **options)
        return answer
    return register


def mistake(name, sentence):
    """Registers a wrong answer to the exercise `name`, and the sentence that names what is wrong."""
    def register(wrong):
        EXERCISES[name].mistakes.append((sentence, wrong))
        return wrong
    return register


def check(function):
    """Run a reader's function on the exercise of the same name, and print what that shows."""
    name = function.__name__
    if name not in EXERCISES:
        print(f"There is no exercise called {name}: keep the name that the function had.")
        return
    verdict, sentence, failed = judge(function)
    print(f"{ {'right': '✓', 'empty': '…', 'wrong': '✗'}[verdict]} {name}: {sentence}")
    if failed and EXERCISES[name].picture:
        picture(*failed)


def judge(function):
    """("right", "empty" or "wrong", a sentence, None or (yours, right) where they differ first)."""
    task = EXERCISES[function.__name__]
    yours, rights = [], []
    for arguments in task.inputs:
        rights.append(task.outcome(task.answer, copy.deepcopy(arguments)))
        mine = copy.deepcopy(arguments)
        try:
            got = task.outcome(function, mine)
        except Exception as error:                        # whatever a reader's code may do
            return "wrong", f"it stops with {type(error).__name__}: {error}, for {describe(arguments)}.", None
        if got is None or got is ...:
            if all(y is None or y is ... for y in yours):
                return "empty", f"nothing yet. {task.ask}", None
            return "wrong", f"it returns nothing for {describe(arguments)}.", None
        if not same(mine, arguments, 0):
            return "wrong", "it changes the arrays that it was given; work on a copy, or make a new array.", None
        yours.append(got)
    if all(same(got, right, task.tolerance) for got, right in zip(yours, rights)):
        promoted = next((got for got, right in zip(yours, rights) if dtype_of(got) != dtype_of(right)), None)
        if promoted is not None:
            wanted = next(dtype_of(right) for got, right in zip(yours, rights) if dtype_of(got) != dtype_of(right))
            return "wrong", (f"the numbers are right, but their type is {dtype_of(promoted)}, not {wanted}. NumPy's own "
                             "scalars promote: np.sqrt(48) is float64 and makes an array float64, math.sqrt(48) does not."
                             ), None
        return "right", f"right, on {len(yours)} inputs.", None
    at = next(i for i, (got, right) in enumerate(zip(yours, rights)) if not same(got, right, task.tolerance))
    for sentence, wrong in task.mistakes:
        try:
            if all(same(got, task.outcome(wrong, copy.deepcopy(arguments)), task.tolerance)
                   for got, arguments in zip(yours, task.inputs)):
                return "wrong", sentence, (yours[at], rights[at])
        except Exception:                                 # a mistake that does not fit every input
            continue
    return "wrong", difference(yours[at], rights[at], task.inputs[at]), (yours[at], rights[at])


def dtype_of(x):
    return x.dtype if isinstance(x, np.ndarray) else None


def same(got, right, tolerance):
    """Are two results the same? Tuples, lists and dicts piece by piece, numbers within the tolerance."""
    if isinstance(right, dict):
        return isinstance(got, dict) and got.keys() == right.keys() and all(
            same(got[key], right[key], tolerance) for key in right)
    if isinstance(right, (tuple, list)) and not all(isinstance(x, (int, float, np.number)) for x in right):
        return isinstance(got, (tuple, list)) and len(got) == len(right) and all(
            same(a, b, tolerance) for a, b in zip(got, right))
    if isinstance(right, (str, bytes, type(None))) or callable(right):
        return type(got) is type(right) and got == right
    try:
        got, right = np.asarray(got), np.asarray(right)
        if got.shape != right.shape or got.dtype.kind not in "biufV" or not np.array_equal(
                np.isfinite(got), np.isfinite(right)):
            return False
        finite = np.isfinite(right)
        if not np.array_equal(got[~finite], right[~finite], equal_nan=True):
            return False
        size = np.abs(right[finite], dtype=np.float64).max(initial=0) if right.dtype.kind != "b" else 1
        return bool(np.all(np.abs(got[finite].astype(np.float64) - right[finite]) <= tolerance * size))
    except (TypeError, ValueError):
        return False


def describe(arguments):
    """The arguments in a few words: shapes of arrays, small values as they are."""
    def one(x):
        if isinstance(x, np.ndarray):
            return f"an array {x.shape}"
        if isinstance(x, (list, tuple, dict)) and len(repr(x)) > 60 or callable(x):
            return f"a {type(x).__name__}" + (f" of {len(x)}" if hasattr(x, "__len__") else "")
        return repr(x)
    return ", ".join(map(one, arguments)) or "no arguments"


def difference(got, right, arguments):
    """Where two results differ first, in one sentence."""
    where = f"for {describe(arguments)}"
    if isinstance(right, (np.ndarray, float, int, np.number)) and isinstance(got, (np.ndarray, float, int, np.number)):
        got, right = np.asarray(got), np.asarray(right)
        if got.shape != right.shape:
            return f"the shape is {got.shape}, not {right.shape}, {where}."
        far = ~np.isclose(got.astype(np.float64), right.astype(np.float64), rtol=1e-5, equal_nan=True)
        index = tuple(int(i) for i in np.argwhere(far)[0]) if far.any() else (0,) * got.ndim
        place = f" at {list(index)}" if index else ""
        return f"yours{place} is {got[index]:.6g}, it should be {right[index]:.6g}, {where}."
    short = [text if len(text) < 100 else text[:100] + " …" for text in (repr(got), repr(right))]
    return f"yours is {short[0]}, it should be {short[1]}, {where}."


def picture(yours, right):
    """A wrong answer beside the right one, and their difference."""
    import figures
    yours, right = (np.asarray(x, np.float64) for x in (yours, right))
    if yours.shape != right.shape or right.ndim not in (1, 2):
        return
    finite = np.where(np.isfinite(yours - right), yours - right, 0)
    figure, axes = figures.new(2.4, columns=3)
    limit = max(np.abs(x[np.isfinite(x)]).max(initial=1e-9) for x in (yours, right))
    for ax, title, x in zip(axes, ("yours", "right", "difference"), (yours, right, finite)):
        figures.matrix(ax, x, title=title, limit=limit)
    figures.show(figure, "Yours, the right answer, and the difference, all on the same scale of colours.")


def random(*shape, seed=0, scale=1.0):
    """Float32 numbers to try a function on, the same every time."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


# ---- 00 Start here -------------------------------------------------------------------------------------------

@exercise("00", "Take the last row of logits, and return the index of its largest number (np.argmax).", [
    (random(5, 12, seed=3),), (np.array([[1, 0.5, -2, 3]], np.float32),), (-np.abs(random(6, 30, seed=3)) - 1,),
    (np.array([[9, 8, 7, 6], [2, -3, 5, -8], [0, 4, 3, -5]], np.float32),)])
def most_likely_next(logits):
    last = [float(x) for x in logits[len(logits) - 1]]
    return last.index(max(last))


mistake("most_likely_next", "you took the first row; the last row is what comes after the whole prompt: logits[-1].")(
    lambda logits: np.argmax(logits[0]))
mistake("most_likely_next", "you returned the logit itself (np.max); the id is its index (np.argmax).")(
    lambda logits: np.max(logits[-1]))
mistake("most_likely_next", "you searched all T rows at once; only the last row counts, logits[-1].")(
    lambda logits: np.argmax(logits))
mistake("most_likely_next", "you returned one id for each of the T rows; only the last one is asked for.")(
    lambda logits: np.argmax(logits, axis=-1))
mistake("most_likely_next", "you searched down the columns; V runs along a row (axis=-1), and T down.")(
    lambda logits: np.argmax(logits, axis=0))
mistake("most_likely_next", "you took the smallest logit; the likeliest token has the largest.")(
    lambda logits: np.argmin(logits[-1]))
mistake("most_likely_next", "you took the logit farthest from 0; a strongly negative one is an unlikely token.")(
    lambda logits: np.argmax(np.abs(logits[-1])))
mistake("most_likely_next", "you returned the probability (a number from 0 to 1); the id is its index (np.argmax).")(
    lambda logits: np.max(np.exp(logits[-1] - logits[-1].max()) / np.exp(logits[-1] - logits[-1].max()).sum()))


def try_keep_only(function, names, passed):
    """What is kept, and what the model would go on with."""
    answer = function(names)
    if answer is None or answer is ...:
        return None
    kept, tap = answer
    given = [tap(name, x) for name, x in passed]
    return given, dict(kept)


@exercise("00", "Return (kept, tap): tap stores x in kept[name] if name is in names, and always returns x.", [
    (["norm", "layers.0.attn.q"], [("embedding", random(2, 4)), ("layers.0.attn.q", random(2, 2, 2)),
                                   ("layers.0.attn.q_rope", random(2, 2, 2, seed=1)), ("norm", random(2, 4, seed=2)),
                                   ("layers.0.attn_norm", random(2, 4, seed=3)), ("logits", random(2, 6))]),
    ([], [("embedding", random(1, 4)), ("norm", random(1, 4, seed=5))]),
    (["layers.1.ffn.out"], [("layers.1.ffn.out", random(3, 2)), ("layers.1.x_ffn", random(3, 2, seed=1)),
                            ("layers.0.ffn.out", random(3, 2, seed=2))])], run=try_keep_only)
def keep_only(names):
    class Kept(dict):
        def __call__(self, name, x):
            for wanted in names:
                if wanted == name:
                    self[name] = x
            return x
    kept = Kept()
    return kept, kept


def keeping(keep, give=lambda name, names, x: x, put=lambda kept, name, x: kept.__setitem__(name, x)):
    """A wrong keep_only: what it keeps, what its tap returns, and how it stores."""
    def wrong(names):
        kept = {}

        def tap(name, x):
            if keep(name, names):
                put(kept, name, x)
            return give(name, names, x)
        return kept, tap
    return wrong


mistake("keep_only", "the tap returns nothing, and the model goes on with None: end it with return x.")(
    keeping(lambda name, names: name in names, lambda name, names, x: None))
mistake("keep_only", "the tap returns x only for the names that it keeps; all others become None. Move return x out of the if.")(
    keeping(lambda name, names: name in names, lambda name, names, x: x if name in names else None))
mistake("keep_only", "it keeps every value; look whether name is in names.")(keeping(lambda name, names: True))
mistake("keep_only", "it keeps names that only begin alike or are part of each other (q and q_rope); compare whole names.")(
    keeping(lambda name, names: any(wanted in name for wanted in names)))
mistake("keep_only", "it keeps the shapes; the values themselves were asked for: kept[name] = x.")(
    keeping(lambda name, names: name in names, put=lambda kept, name, x: kept.__setitem__(name, x.shape)))
mistake("keep_only", "it keeps what is not in names, and drops what is: the condition is the wrong way round.")(
    keeping(lambda name, names: name not in names))
mistake("keep_only", "nothing is kept: kept[name] = x is missing, or fills another dictionary than the one returned.")(
    keeping(lambda name, names: False))
mistake("keep_only", "the tap returns the dictionary; the model goes on with what the tap returns, and needs x.")(
    lambda names: (lambda kept: (kept, lambda name, x: (kept.__setitem__(name, x) if name in names else None, kept)[1]))({}))


def toy_forward(width, weight):
    """Logits that depend on all tokens so far: function (T,) -> (T, V)."""
    def forward(tokens):
        seen = np.cumsum([(int(token) + 2) * weight ** (i % 4) for i, token in enumerate(tokens)])
        return np.cos(np.outer(seen, np.arange(1, width + 1)) * 0.7).astype(np.float32)
    return forward


def try_continuing(function, tokens, n, forward):
    new = function(tokens, n, forward)
    return new if new is None or new is ... else list(map(int, new))


@exercise("00", "n times: run forward on the prompt and what is new, take np.argmax of the last row, append it.", [
    ([1, 5, 3], 6, toy_forward(11, 2)), ([4], 5, toy_forward(9, 3)), ([2, 2, 7, 1], 1, toy_forward(16, 2)),
    ([1, 2], 0, toy_forward(5, 2))], run=try_continuing)
def continue_greedily(tokens, n, forward):
    if n == 0:
        return []
    last = forward(tokens)[len(tokens) - 1]
    best = max(range(len(last)), key=lambda i: last[i])
    return [best] + continue_greedily(list(tokens) + [best], n - 1, forward)


def greedily(step, steps=lambda n: n, result=lambda tokens, new: new):
    """A wrong continue_greedily: step(tokens, new, forward) is the next id."""
    def wrong(tokens, n, forward):
        new = []
        for _ in range(steps(n)):
            new.append(int(step(tokens, new, forward)))
        return result(list(tokens), new)
    return wrong


def greedy_step(tokens, new, forward):
    return np.argmax(forward(list(tokens) + new)[-1])


mistake("continue_greedily", "it asks about the prompt again and again: what is new must go through forward too.")(
    greedily(lambda tokens, new, forward: np.argmax(forward(tokens)[-1])))
mistake("continue_greedily", "the prompt is in what you return; only the n new ids were asked for.")(
    greedily(greedy_step, result=lambda tokens, new: tokens + new))
mistake("continue_greedily", "it takes the first row of the logits; the next token is predicted by the last, [-1].")(
    greedily(lambda tokens, new, forward: np.argmax(forward(list(tokens) + new)[0])))
mistake("continue_greedily", "forward sees only the newest token, without what came before: it has no memory of its own.")(
    greedily(lambda tokens, new, forward: np.argmax(forward(new[-1:] or tokens)[-1])))
mistake("continue_greedily", "that is one token too many: the loop runs n times.")(greedily(greedy_step, lambda n: n + 1))
mistake("continue_greedily", "that is one token too few: the loop runs n times.")(greedily(greedy_step, lambda n: max(n - 1, 0)))
mistake("continue_greedily", "it takes the least likely token (np.argmin); np.argmax is the likeliest.")(
    greedily(lambda tokens, new, forward: np.argmin(forward(list(tokens) + new)[-1])))
mistake("continue_greedily", "the new tokens go in front of the prompt; they belong behind it.")(
    greedily(lambda tokens, new, forward: np.argmax(forward(new[::-1] + list(tokens))[-1])))
mistake("continue_greedily", "forward runs once, and you take the last n rows: each new token needs a run of its own.")(
    lambda tokens, n, forward: forward(tokens)[-n:].argmax(-1) if n else [])


# ---- 01 Tokens -----------------------------------------------------------------------------------------------


# ---- 02 RMSNorm ----------------------------------------------------------------------------------------------

@exercise("02", "Divide x by the root of the mean of its squares (plus eps), row by row, and multiply by weight.", [
    (random(3, 8), random(8, seed=1), 1e-5), (random(1, 64, scale=30), random(64, seed=2), 1e-6),
    (random(5, 6, scale=0.01), np.ones(6, np.float32), 1e-3), (np.zeros((2, 4), np.float32), np.ones(4, np.float32), 1e-5)])
def rms_norm(x, weight, eps):
    rows = [[v / math.sqrt(math.fsum(float(u) ** 2 for u in row) / len(row) + eps) * g for v, g in zip(row, weight)]
            for row in x]
    return np.array(rows, np.float32)


def rms(x, axis=-1, eps=0.0):
    return np.sqrt(np.mean(x * x, axis=axis, keepdims=True) + eps)


mistake("rms_norm", "you left eps out: a row of zeros becomes 0/0, and a small row comes out too large.")(
    lambda x, weight, eps: x / rms(x) * weight)
mistake("rms_norm", "you added eps to the root; it belongs under the root, to the mean of the squares.")(
    lambda x, weight, eps: x / (rms(x) + eps) * weight)
mistake("rms_norm", "you took the mean over all rows at once; each row has its own (axis=-1, keepdims=True).")(
    lambda x, weight, eps: x / rms(x, None, eps) * weight)
mistake("rms_norm", "you took the mean down the columns; it goes along each row (axis=-1).")(
    lambda x, weight, eps: x / rms(x, 0, eps) * weight)
mistake("rms_norm", "you divided by the mean square; its square root is missing.")(
    lambda x, weight, eps: x / rms(x, eps=eps) ** 2 * weight)
mistake("rms_norm", "you took the sum of the squares, not their mean: the rows come out sqrt(D) times too small.")(
    lambda x, weight, eps: x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + eps) * weight)
mistake("rms_norm", "you forgot weight, the learned scale of each column.")(
    lambda x, weight, eps: x / rms(x, eps=eps))
mistake("rms_norm", "that is LayerNorm without a bias: RMSNorm does not take the mean of the row away.")(
    lambda x, weight, eps: (x - x.mean(-1, keepdims=True)) / rms(x - x.mean(-1, keepdims=True), eps=eps) * weight)


@exercise("02", "Multiply each row of w by its number in g.", [
    (random(4), random(4, 6, seed=1)), (random(5, seed=2), random(5, 5, seed=3)), (random(3, seed=4), random(3, 1, seed=5))])
def fold(g, w):
    return np.array([[a * b for b in row] for a, row in zip(g, w)], np.float32)


mistake("fold", "you scaled the columns of w; the columns of x, which g scales, meet the rows of w.")(
    lambda g, w: w * np.resize(g, w.shape[1]))
mistake("fold", "you divided by g: that takes the scale away instead of folding it in.")(lambda g, w: w / g[:, None])
mistake("fold", "you multiplied g into w and summed: that is g @ w, one row, and the matrix is gone.")(lambda g, w: g @ w)
mistake("fold", "that is w as it was: g is missing.")(lambda g, w: w)


def norm_of(x):
    return x / rms(x, eps=1e-5)


def attend(x):
    return np.tanh(np.cumsum(x, axis=0))


def feed(x):
    return x * x - 1


@exercise("02", "First x + attend(norm_1(x)), then the same with norm_2 and feed, on what came out.", [
    (random(3, 4, seed=1, scale=3), norm_of, attend, lambda x: 2 * norm_of(x), feed),
    (random(1, 8, seed=2), norm_of, attend, lambda x: norm_of(x) + 1, feed)])
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    middle = attend(norm_1(x)) + x
    return feed(norm_2(middle)) + middle


mistake("pre_norm_block", "that is post-norm: you normalised the sums. Normalise what attend and feed read.")(
    lambda x, n1, a, n2, f: n2(n1(x + a(x)) + f(n1(x + a(x)))))
mistake("pre_norm_block", "you added to the normalised rows; the stream itself is what the results are added to.")(
    lambda x, n1, a, n2, f: n2(n1(x) + a(n1(x))) + f(n2(n1(x) + a(n1(x)))))
mistake("pre_norm_block", "feed read the stream from before attention; it comes after, and reads the new sum.")(
    lambda x, n1, a, n2, f: x + a(n1(x)) + f(n2(x)))
mistake("pre_norm_block", "you left out the residual sums: the stream is replaced instead of added to.")(
    lambda x, n1, a, n2, f: f(n2(a(n1(x)))))
mistake("pre_norm_block", "you normalised nothing: attend and feed read norm_1(x) and norm_2(x).")(
    lambda x, n1, a, n2, f: x + a(x) + f(x + a(x)))
mistake("pre_norm_block", "you dropped the second sum: the result of feed is added to the stream as well.")(
    lambda x, n1, a, n2, f: f(n2(x + a(n1(x)))))
mistake("pre_norm_block", "norm_1 and norm_2 are swapped.")(
    lambda x, n1, a, n2, f: x + a(n2(x)) + f(n1(x + a(n2(x)))))


# ---- 03 RoPE -------------------------------------------------------------------------------------------------


# ---- 04 Attention --------------------------------------------------------------------------------------------


# ---- 05 Grouped-query attention ------------------------------------------------------------------------------


# ---- 06 SwiGLU -----------------------------------------------------------------------------------------------


# ---- 07 The whole forward pass -------------------------------------------------------------------------------


# ---- 08 Decoding and the cache -------------------------------------------------------------------------------


# ---- 09 The objective and sampling ---------------------------------------------------------------------------


# ---- 10 Sizes, data, compute ---------------------------------------------------------------------------------


# ---- 11 Chat -------------------------------------------------------------------------------------------------


# ---- 12 Weights on disk --------------------------------------------------------------------------------------


# ---- The command line ----------------------------------------------------------------------------------------

def grade(path, seconds=300):
    """{exercise: (verdict, sentence)} of a notebook that somebody filled in: it is run, then every exercise checked."""
    import nbclient
    import nbformat
    notebook = nbformat.read(path, as_version=4)
    wanted = [name for name, task in EXERCISES.items() if any(f"def {name}(" in cell.source for cell in notebook.cells)]
    code = ("import json, checks\nprint(json.dumps({name: checks.judge(globals()[name])[:2]\n"
            f"    for name in {wanted!r} if callable(globals().get(name))}}))")
    notebook.cells.append(nbformat.v4.new_code_cell(code))
    nbclient.NotebookClient(notebook, timeout=seconds, allow_errors=True,
                            resources={"metadata": {"path": str(Path(path).parent)}}).execute()
    printed = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    found = json.loads(printed) if printed else {}
    return {name: tuple(found.get(name, ("empty", "the function is missing."))) for name in wanted}


def main(paths):
    if not paths or paths[0].startswith("-"):
        print(__doc__.strip())
        return 0 if paths else 2
    print(f"{'notebook':32} right  of  not yet right")
    for path in paths:
        marks = grade(path)
        right = [name for name, (verdict, _) in marks.items() if verdict == "right"]
        rest = ", ".join(f"{name} ({verdict})" for name, (verdict, _) in marks.items() if verdict != "right")
        print(f"{Path(path).name:32} {len(right):5}  {len(marks):2}  {rest}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
