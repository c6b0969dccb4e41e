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
import textwrap
from dataclasses import dataclass, field, is_dataclass
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
    mark = {"right": "✓", "empty": "…", "wrong": "✗"}[verdict]
    print(textwrap.fill(f"{mark} {name}: {sentence}", 96, subsequent_indent="  ", break_on_hyphens=False))
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
    if isinstance(right, (str, bytes, type(None))) or callable(right) or is_dataclass(right):
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


@dataclass
class Sizes:
    """The sizes of a model, as nl.Config names them."""
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    hidden_dim: int
    vocab_size: int
    head_dim: int
    max_seq_len: int = 4096
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    def __repr__(self):
        return f"Config(D {self.dim}, L {self.n_layers}, H {self.n_heads}, G {self.n_kv_heads})"


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

@exercise("01", "Encode the character in UTF-8, and write each byte as <0x..>, with two hexadecimal digits.", [
    ("ö",), ("👑",), ("株",), ("7",), ("\n",), ("\u200d",)])
def byte_pieces(character):
    digits = "0123456789ABCDEF"
    return ["<0x" + digits[byte // 16] + digits[byte % 16] + ">" for byte in bytearray(character, "utf-8")]


mistake("byte_pieces", "you wrote the bytes in decimal; the pieces are named in hexadecimal (format 02X).")(
    lambda c: [f"<0x{byte}>" for byte in c.encode()])
mistake("byte_pieces", "the letters of a hexadecimal number are capitals here: <0xC3>, not <0xc3>.")(
    lambda c: [f"<0x{byte:02x}>" for byte in c.encode()])
mistake("byte_pieces", "a small byte needs its leading zero: a new line is <0x0A>, not <0xA>.")(
    lambda c: [f"<0x{byte:X}>" for byte in c.encode()])
mistake("byte_pieces", "that is the character's number in Unicode; its bytes in UTF-8 are character.encode('utf-8').")(
    lambda c: [f"<0x{ord(c):02X}>"])
mistake("byte_pieces", "those are the bytes of UTF-16; the pieces are bytes of UTF-8.")(
    lambda c: [f"<0x{byte:02X}>" for byte in c.encode("utf-16-be")])
mistake("byte_pieces", "the bytes are in the wrong order: the first byte of UTF-8 comes first.")(
    lambda c: [f"<0x{byte:02X}>" for byte in c.encode()[::-1]])
mistake("byte_pieces", "those are the bytes as numbers; what is asked for are their pieces, such as '<0xC3>'.")(
    lambda c: list(c.encode()))
mistake("byte_pieces", "those are token ids (3 + byte); what is asked for are the pieces, such as '<0xC3>'.")(
    lambda c: [3 + byte for byte in c.encode()])


LADDER = {"ab": -5.0, "bc": -2.0, "abc": -7.0, "aa": -3.0, "cd": -1.0, "abcd": -9.0, "ca": -4.0}


@exercise("01", "Find the neighbours whose piece has the highest score, and join those two.", [
    (list("abcd"), LADDER), (list("cabab"), LADDER), (["ab", "cd", "a", "b"], LADDER), (list("aaa"), LADDER),
    (list("dcba"), LADDER), (["a"], LADDER), (["a", "bc", "a", "bc"], LADDER), (list("bcabc"), LADDER),
    (["▁", "t", "he"], {"▁t": -1.0, "he": 0.0, "▁the": -3.0, "the": -40.0})])
def merge_once(symbols, scores):
    at, best = None, -math.inf
    for i in range(1, len(symbols)):
        if scores.get(symbols[i - 1] + symbols[i], -math.inf) > best:
            at, best = i, scores[symbols[i - 1] + symbols[i]]
    return symbols if at is None else [*symbols[:at - 1], symbols[at - 1] + symbols[at], *symbols[at + 1:]]


def join_best(symbols, scores, key, rest=2):
    known = [i for i in range(len(symbols) - 1) if symbols[i] + symbols[i + 1] in scores]
    if not known:
        return symbols
    i = max(known, key=lambda i: key(i, symbols[i] + symbols[i + 1]))
    return symbols[:i] + [symbols[i] + symbols[i + 1]] + symbols[i + rest:]


def join_everywhere(symbols, scores):
    known = [a + b for a, b in zip(symbols, symbols[1:]) if a + b in scores]
    best, out = max(known, key=scores.get, default=None), []
    for symbol in symbols:
        if out and out[-1] + symbol == best:
            out[-1] = best
        else:
            out.append(symbol)
    return out


def join_until_done(symbols, scores):
    while (longer := join_best(symbols, scores, lambda i, pair: scores[pair])) != symbols:
        symbols = longer
    return symbols


mistake("merge_once", "you joined the pair that was learned last; the highest score (the one nearest 0) goes first.")(
    lambda symbols, scores: join_best(symbols, scores, lambda i, pair: -scores[pair]))
mistake("merge_once", "you joined the leftmost pair that makes a piece; the one with the highest score goes first.")(
    lambda symbols, scores: join_best(symbols, scores, lambda i, pair: -i))
mistake("merge_once", "you joined the longest piece; its score decides, not its length.")(
    lambda symbols, scores: join_best(symbols, scores, lambda i, pair: len(pair)))
mistake("merge_once", "of equal pairs you joined the rightmost; the leftmost goes first.")(
    lambda symbols, scores: join_best(symbols, scores, lambda i, pair: (scores[pair], i)))
mistake("merge_once", "you joined every occurrence of the pair; one step joins one, the leftmost.")(join_everywhere)
mistake("merge_once", "the second symbol of the pair is still there; the rest begins at i + 2.")(
    lambda symbols, scores: join_best(symbols, scores, lambda i, pair: scores[pair], 1))
mistake("merge_once", "you lost a symbol after the pair; the rest begins at i + 2.")(
    lambda symbols, scores: join_best(symbols, scores, lambda i, pair: scores[pair], 3))
mistake("merge_once", "you climbed the whole ladder; one call is one merge.")(join_until_done)
mistake("merge_once", "those are the symbols as they were: nothing is joined.")(lambda symbols, scores: symbols)


@exercise("01", "Collect bytes: of byte pieces their byte, of other pieces their UTF-8 with ▁ as a space; then decode.", [
    (["<s>", "▁The", "▁king"],), (["<s>", "▁", "<0xF0>", "<0x9F>", "<0x91>", "<0x91>", "▁was"],),
    (["<s>", "▁", "▁", "▁two", "▁", "▁spaces", "▁"],), (["<s>", "▁ca", "f", "<0xC3>", "<0xA9>", "</s>"],),
    (["▁tag", "▁", "<0x3C>", "s", "<0x3E>", "."],), (["ing", "▁up"],), ([],), (["<s>", "▁a", "<0x0A>", "b", "</s>"],)])
def pieces_to_text(pieces):
    data = bytearray()
    for piece in pieces:
        if len(piece) == 6 and piece[:3] == "<0x":
            data.append(int(piece[1:-1], 0))
        elif piece != "<s>" and piece != "</s>":
            data.extend(" ".join(piece.split("▁")).encode())
    text = bytes(data).decode()
    return text[1:] if text[:1] == " " else text


def spell(pieces, space=" ", silent=("<s>", "</s>"), end=lambda text: text.removeprefix(" "), byte=None, between=""):
    texts = []
    for piece in pieces:
        if piece.startswith("<0x"):
            raw = bytes([int(piece[3:5], 16)])
            texts.append(raw.decode("latin-1") if byte is None else byte(raw, piece))
        elif piece not in silent:
            texts.append(piece.replace("▁", space).encode().decode("latin-1") if byte is None
                         else piece.replace("▁", space))
    text = between.join(texts)
    return end(text.encode("latin-1").decode() if byte is None else text)


mistake("pieces_to_text", "the space of the dummy prefix is still there: it goes, once, at the beginning.")(
    lambda pieces: spell(pieces, end=lambda text: text))
mistake("pieces_to_text", "you stripped more than the dummy prefix: only one space goes, and only in front.")(
    lambda pieces: spell(pieces, end=str.strip))
mistake("pieces_to_text", "you stripped all spaces in front; only one of them is the dummy prefix.")(
    lambda pieces: spell(pieces, end=str.lstrip))
mistake("pieces_to_text", "you cut the first character off; cut it only if it is a space.")(
    lambda pieces: spell(pieces, end=lambda text: text[1:]))
mistake("pieces_to_text", "you made each byte a character by its number; the bytes of a character belong together (UTF-8).")(
    lambda pieces: spell(pieces, byte=lambda raw, piece: raw.decode("latin-1")))
mistake("pieces_to_text", "you decoded each byte alone, which is half a character; collect the bytes, decode once.")(
    lambda pieces: spell(pieces, byte=lambda raw, piece: raw.decode(errors="replace")))
mistake("pieces_to_text", "you dropped the byte pieces: each stands for a byte of the text.")(
    lambda pieces: spell(pieces, byte=lambda raw, piece: ""))
mistake("pieces_to_text", "the byte pieces are still spelled out; <0x41> stands for the byte 0x41.")(
    lambda pieces: spell(pieces, byte=lambda raw, piece: piece))
mistake("pieces_to_text", "<s> and </s> are in the text: control tokens are silent.")(
    lambda pieces: spell(pieces, silent=()))
mistake("pieces_to_text", "you took <s> out of the finished text, which may say <s> itself; leave out the piece instead.")(
    lambda pieces: spell(pieces, silent=(), end=lambda text: text.replace("<s>", "").replace("</s>", "")
                         .removeprefix(" ")))
mistake("pieces_to_text", "you left ▁ out; it is a space.")(lambda pieces: spell(pieces, space=""))
mistake("pieces_to_text", "▁ is still in the text; it is a space.")(lambda pieces: spell(pieces, space="▁"))


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

@exercise("03", "Multiply each position by theta ** (-2 i / d), for i = 0 ... d/2 - 1.", [
    (np.arange(5), 8, 10000.0), (np.array([0, 7, 300]), 32, 10000.0), (np.array([4095]), 128, 500000.0),
    (np.arange(3), 2, 10000.0)])
def angle_table(positions, d, theta):
    return np.array([[int(p) * math.exp(-math.log(theta) * 2 * i / d) for i in range(d // 2)] for p in positions])


mistake("angle_table", "the exponent is -2 i / d; you left the 2 out, and the pairs slow down too little.")(
    lambda p, d, theta: p[:, None] * theta ** (-np.arange(d // 2) / d))
mistake("angle_table", "you divided by d/2 where i runs over even numbers already: the 2 is counted twice.")(
    lambda p, d, theta: p[:, None] * theta ** (-2 * np.arange(0, d, 2) / d))
mistake("angle_table", "the exponent is negative: later pairs turn more slowly, not faster.")(
    lambda p, d, theta: p[:, None] * theta ** (np.arange(0, d, 2) / d))
mistake("angle_table", "there are d/2 pairs, not d: i runs from 0 to d/2 - 1.")(
    lambda p, d, theta: p[:, None] * theta ** (-2 * np.arange(d) / d))
mistake("angle_table", "i counts from 0: the first pair turns by one radian per token.")(
    lambda p, d, theta: p[:, None] * theta ** (-2 * (np.arange(d // 2) + 1) / d))
mistake("angle_table", "positions count from 0 here, as given; you added one.")(
    lambda p, d, theta: (p[:, None] + 1) * theta ** (-np.arange(0, d, 2) / d))
mistake("angle_table", "rows are positions and columns are pairs; yours is the other way round.")(
    lambda p, d, theta: (p[:, None] * theta ** (-np.arange(0, d, 2) / d)).T)
mistake("angle_table", "these are the cosines; the angles themselves were asked for.")(
    lambda p, d, theta: np.cos(p[:, None] * theta ** (-np.arange(0, d, 2) / d)))


@exercise("03", "Split x into halves a and b; return [a cos - b sin, b cos + a sin], side by side.", [
    (random(5, 8), np.linspace(0, 3, 20).reshape(5, 4).astype(np.float32)),
    (random(3, 4, seed=1), random(3, 2, seed=2, scale=2)), (random(1, 32, seed=3), random(1, 16, seed=4)),
    (random(2, 2, seed=5), random(2, 1, seed=6))], picture=True)
def turn_halves(x, angles):
    points = x[:, :x.shape[1] // 2].astype(np.complex128) + 1j * x[:, x.shape[1] // 2:]
    turned = points * np.exp(1j * angles.astype(np.float64))
    return np.concatenate([turned.real, turned.imag], axis=1).astype(np.float32)


def halves(x, angles, first, second):
    """[first(a, b, cos, sin), second(a, b, cos, sin)] side by side."""
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([f(a, b, np.cos(angles), np.sin(angles)) for f in (first, second)], axis=-1)


mistake("turn_halves", "you turned backwards: a sign is wrong. a' = a cos - b sin, b' = b cos + a sin.")(
    lambda x, t: halves(x, t, lambda a, b, c, s: a * c + b * s, lambda a, b, c, s: b * c - a * s))
mistake("turn_halves", "that is not a rotation: both signs are plus, so lengths change. One of them is a minus.")(
    lambda x, t: halves(x, t, lambda a, b, c, s: a * c + b * s, lambda a, b, c, s: b * c + a * s))
mistake("turn_halves", "that is not a rotation: both signs are minus, so lengths change. b' = b cos + a sin.")(
    lambda x, t: halves(x, t, lambda a, b, c, s: a * c - b * s, lambda a, b, c, s: b * c - a * s))
mistake("turn_halves", "cosine and sine are swapped: at angle 0 nothing should move.")(
    lambda x, t: halves(x, t, lambda a, b, c, s: a * s - b * c, lambda a, b, c, s: b * s + a * c))
mistake("turn_halves", "you overwrote a before b used it: b' needs the old a.")(
    lambda x, t: halves(x, t, lambda a, b, c, s: a * c - b * s, lambda a, b, c, s: b * c + (a * c - b * s) * s))


def turn_neighbours(x, angles):
    out = np.empty_like(x)
    a, b = x[:, 0::2], x[:, 1::2]
    out[:, 0::2] = a * np.cos(angles) - b * np.sin(angles)
    out[:, 1::2] = b * np.cos(angles) + a * np.sin(angles)
    return out


mistake("turn_halves", "you turned neighbours (x_2i, x_2i+1), as the paper and Meta do; here pairs are halves.")(turn_neighbours)
mistake("turn_halves", "the numbers are right, but interleaved: first all a', then all b'.")(
    lambda x, t: np.stack(np.split(turn_halves(x, t), 2, axis=-1), axis=-1).reshape(x.shape))
mistake("turn_halves", "you multiplied by cosines only; a rotation mixes the two numbers of a pair.")(
    lambda x, t: halves(x, t, lambda a, b, c, s: a * c, lambda a, b, c, s: b * c))


@exercise("03", "In each head of d rows: first rows 0, 2, 4, ..., then rows 1, 3, 5, ...", [
    (random(16, 6), 8), (random(8, 3, seed=1), 8), (random(24, 4, seed=2), 4), (random(64, 64, seed=3), 16)])
def meta_to_halves(w, d):
    rows = []
    for head in range(0, len(w), d):
        rows += [w[head + i] for i in range(0, d, 2)] + [w[head + i] for i in range(1, d, 2)]
    return np.array(rows)


def as_one_head(w, d):
    return np.concatenate([w[0::2], w[1::2]])


mistake("meta_to_halves", "you took the whole matrix for one head: reorder within each head of d rows.")(as_one_head)
mistake("meta_to_halves", "that is the way back, from halves to neighbours.")(
    lambda w, d: w.reshape(-1, 2, d // 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape))
mistake("meta_to_halves", "you reordered the columns; the rows of w are what a head's numbers come from.")(
    lambda w, d: np.concatenate([w[:, 0::2], w[:, 1::2]], axis=1))
mistake("meta_to_halves", "nothing moved: a reshape alone keeps the order, the two axes must be swapped.")(lambda w, d: w.copy())
mistake("meta_to_halves", "the odd rows come second: first 0, 2, 4, ..., then 1, 3, 5, ...")(
    lambda w, d: w.reshape(-1, d // 2, 2, w.shape[1])[:, :, ::-1].swapaxes(1, 2).reshape(w.shape))


# ---- 04 Attention --------------------------------------------------------------------------------------------

@exercise("04", "Subtract each row's largest number, take exp, and divide by the row's sum.", [
    (random(3, 5),), (random(2, 7, seed=1, scale=200),), (np.array([[0, 1], [300, 302]], np.float32),), (np.array([[0, -np.inf, 1], [5, -np.inf, -np.inf]], np.float32),),
    (random(4, 4, seed=2, scale=3),)], picture=True)
def stable_softmax(x):
    rows = []
    for row in x.astype(float).tolist():
        weights = [math.exp(value - max(row)) for value in row]
        rows.append([w / math.fsum(weights) for w in weights])
    return np.array(rows, np.float32)


def softmax_of(x, axis=-1):
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


mistake("stable_softmax", "exp overflows: large scores become inf, and inf / inf is not a number. Subtract the largest first.")(
    lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True))
mistake("stable_softmax", "that is the softmax of the columns; each row is one token's question (axis=-1).")(
    lambda x: softmax_of(x, 0))
mistake("stable_softmax", "you divided by the sum of the whole matrix; each row has its own.")(
    lambda x: np.exp(x - x.max(-1, keepdims=True)) / np.exp(x - x.max(-1, keepdims=True)).sum())
mistake("stable_softmax", "you subtracted one number from all rows: rows far below it underflow to 0/0. Take each row's own largest.")(
    lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum(-1, keepdims=True))
mistake("stable_softmax", "the rows do not sum to 1: the division by the sum is missing.")(
    lambda x: np.exp(x - x.max(-1, keepdims=True)))
mistake("stable_softmax", "that is the softmax of -x: the largest score should get the largest weight.")(lambda x: softmax_of(-x))
mistake("stable_softmax", "you divided the scores by their sum, without exp.")(lambda x: x / x.sum(-1, keepdims=True))


@exercise("04", "q @ k.T / sqrt(d), with -inf where the key's index is larger than S - T + the query's.", [
    (random(4, 8), random(4, 8, seed=1)), (random(1, 16, seed=2), random(6, 16, seed=3)),
    (random(3, 4, seed=4), random(5, 4, seed=5)), (random(1, 2, seed=6), random(1, 2, seed=7))], picture=True)
def causal_scores(q, k):
    out = np.full((len(q), len(k)), -np.inf, np.float32)
    for i in range(len(q)):
        for j in range(len(k) - len(q) + i + 1):
            out[i, j] = math.fsum(float(a) * float(b) for a, b in zip(q[i], k[j])) / math.sqrt(q.shape[1])
    return out


def scores_with(q, k, divide=lambda q, k: math.sqrt(q.shape[1]), seen=None, hidden=-np.inf):
    """Scores with another divisor, mask (query i, key j, T, S) or number for what is hidden."""
    i, j = np.indices((len(q), len(k)))
    mask = (j <= len(k) - len(q) + i) if seen is None else seen(i, j, len(q), len(k))
    return np.where(mask, q @ k.T / divide(q, k), np.float32(hidden))


mistake("causal_scores", "the scores are not divided by the root of d.")(lambda q, k: scores_with(q, k, lambda q, k: 1))
mistake("causal_scores", "you divided by d, not by its square root.")(lambda q, k: scores_with(q, k, lambda q, k: q.shape[1]))
mistake("causal_scores", "you divided by the root of the number of keys; d, the width of a head, is what counts.")(
    lambda q, k: scores_with(q, k, lambda q, k: math.sqrt(len(k))))
mistake("causal_scores", "you multiplied by the root of d instead of dividing.")(
    lambda q, k: scores_with(q, k, lambda q, k: 1 / math.sqrt(q.shape[1])))
mistake("causal_scores", "the future is not hidden: the mask is missing.")(
    lambda q, k: scores_with(q, k, seen=lambda i, j, T, S: j >= 0))
mistake("causal_scores", "the mask is not shifted: with S > T, query i is token S - T + i, and sees all up to there.")(
    lambda q, k: scores_with(q, k, seen=lambda i, j, T, S: j <= i))
mistake("causal_scores", "a token does not see itself; it may: <=, not <.")(
    lambda q, k: scores_with(q, k, seen=lambda i, j, T, S: j < S - T + i))
mistake("causal_scores", "the past is hidden and the future seen: turn the mask round.")(
    lambda q, k: scores_with(q, k, seen=lambda i, j, T, S: j >= S - T + i))
mistake("causal_scores", "hidden scores are 0, which is not small: exp(0) is 1. They must be -inf.")(
    lambda q, k: scores_with(q, k, hidden=0))


@exercise("04", "Scores, mask, softmax of each row, and the weights times v.", [
    (random(4, 8, scale=3), random(4, 8, seed=1), random(4, 8, seed=2)),
    (random(1, 16, seed=3), random(6, 16, seed=4), random(6, 16, seed=5)),
    (random(3, 4, seed=6, scale=5), random(5, 4, seed=7), random(5, 4, seed=8))], picture=True)
def one_head(q, k, v):
    rows = []
    for i, query in enumerate(q.astype(float)):
        n = len(k) - len(q) + i + 1
        raw = [math.exp(float(query @ key) / math.sqrt(len(query))) for key in k[:n].astype(float)]
        rows.append(sum(w / math.fsum(raw) * value for w, value in zip(raw, v[:n].astype(float))))
    return np.array(rows, np.float32)


def head_with(q, k, v, axis=-1, **options):
    return softmax_of(scores_with(q, k, **options), axis) @ v


mistake("one_head", "the scores are not divided by the root of d.")(lambda q, k, v: head_with(q, k, v, divide=lambda q, k: 1))
mistake("one_head", "you divided by d, not by its square root.")(
    lambda q, k, v: head_with(q, k, v, divide=lambda q, k: q.shape[1]))
mistake("one_head", "every token sees the future: the mask is missing.")(
    lambda q, k, v: head_with(q, k, v, seen=lambda i, j, T, S: j >= 0))
mistake("one_head", "the mask is not shifted: query i is token S - T + i.")(
    lambda q, k, v: head_with(q, k, v, seen=lambda i, j, T, S: j <= i))
mistake("one_head", "masked after the softmax: the rows no longer sum to 1. Mask the scores.")(
    lambda q, k, v: (softmax_of(scores_with(q, k, seen=lambda i, j, T, S: j >= 0))
                     * (scores_with(q, k) > -np.inf)) @ v)
mistake("one_head", "the softmax is missing: scores are not weights.")(
    lambda q, k, v: scores_with(q, k, hidden=0) @ v)
mistake("one_head", "you mixed the keys; keys are compared, values are mixed.")(lambda q, k, v: head_with(q, k, k))
mistake("one_head", "keys and values are swapped.")(lambda q, k, v: head_with(q, v, k))
mistake("one_head", "hidden scores are 0, which is not small: exp(0) is 1. They must be -inf.")(
    lambda q, k, v: head_with(q, k, v, hidden=0))


# ---- 05 Grouped-query attention ------------------------------------------------------------------------------

@exercise("05", "Keys and values: 2 * L * G * d numbers for each token, each of `width` bytes.", [
    (Sizes(4096, 32, 32, 32, 11008, 32000, 128), 2048, 2), (Sizes(8192, 80, 64, 8, 28672, 32000, 128), 4096, 2),
    (Sizes(256, 6, 8, 2, 704, 3072, 32), 1, 4), (Sizes(64, 3, 4, 1, 176, 100, 24), 10, 4)])
def cache_bytes(config, tokens, width):
    total = 0
    for _ in range(config.n_layers):
        for _ in ("keys", "values"):
            total += sum(config.head_dim for _ in range(config.n_kv_heads)) * tokens * width
    return total


def cache_with(two=2, layers=True, heads=lambda c: c.n_kv_heads * c.head_dim, tokens=True, width=True):
    return lambda c, n, w: (two * (c.n_layers if layers else 1) * heads(c) * (n if tokens else 1) * (w if width else 1))


mistake("cache_bytes", "keys and values: you counted one of the two.")(cache_with(1))
mistake("cache_bytes", "you took H, the query heads; the cache holds the G key/value heads.")(
    cache_with(heads=lambda c: c.n_heads * c.head_dim))
mistake("cache_bytes", "you took D for G * d; the two are the same only without sharing.")(cache_with(heads=lambda c: c.dim))
mistake("cache_bytes", "that is one layer; each of L layers has its own cache.")(cache_with(layers=False))
mistake("cache_bytes", "that is one token; there are `tokens` of them.")(cache_with(tokens=False))
mistake("cache_bytes", "you counted numbers; each has `width` bytes.")(cache_with(width=False))
mistake("cache_bytes", "the head width d is missing: a key is d numbers.")(cache_with(heads=lambda c: c.n_kv_heads))


@exercise("05", "Query head h meets key head h // (H / G): stack q[h] @ k[h // (H // G)].T.", [
    (random(4, 3, 8), random(2, 3, 8, seed=1)), (random(8, 1, 4, seed=2), random(2, 6, 4, seed=3)),
    (random(6, 2, 4, seed=4), random(3, 5, 4, seed=5)), (random(4, 2, 4, seed=6), random(4, 2, 4, seed=7)),
    (random(4, 2, 4, seed=8), random(1, 3, 4, seed=9))])
def grouped_scores(q, k):
    size = len(q) // len(k)
    return np.array([[[math.fsum(float(a) * float(b) for a, b in zip(query, key)) for key in k[h // size]]
                      for query in q[h]] for h in range(len(q))], np.float32)


def scores_by(q, k, reads):
    return np.stack([q[h] @ k[reads(h, len(q), len(k))].T for h in range(len(q))])


mistake("grouped_scores", "you dealt the key heads out in turns (h % G); neighbouring query heads share one: h // (H / G).")(
    lambda q, k: scores_by(q, k, lambda h, H, G: h % G))
mistake("grouped_scores", "all query heads read key head 0; head h reads h // (H / G).")(
    lambda q, k: scores_by(q, k, lambda h, H, G: 0))
mistake("grouped_scores", "h // G is not the group: a group has H / G heads, so it is h // (H / G).")(
    lambda q, k: scores_by(q, k, lambda h, H, G: h // G % G))
mistake("grouped_scores", "the groups are in reverse: the first query heads read key head 0.")(
    lambda q, k: scores_by(q, k, lambda h, H, G: G - 1 - h // (H // G)))
mistake("grouped_scores", "the scores are divided by the root of d here; leave scale and mask out.")(
    lambda q, k: grouped_scores(q, k) / math.sqrt(q.shape[2]))
mistake("grouped_scores", "you have keys down and queries across; it should be (H, T, S).")(
    lambda q, k: grouped_scores(q, k).swapaxes(1, 2))
mistake("grouped_scores", "the shape is still that of the groups; bring it back to (H, T, S).")(
    lambda q, k: q.reshape(len(k), -1, q.shape[2]) @ k.swapaxes(1, 2))


@exercise("05", "Reshape to (D, groups, n / groups, d), take the mean over the third axis, and put the heads side by side.", [
    (random(5, 8), 2, 2), (random(4, 24, seed=1), 4, 1), (random(3, 12, seed=2), 2, 3), (random(2, 8, seed=3), 2, 4)])
def mean_pool(wk, d, groups):
    n, out = wk.shape[1] // d, []
    for g in range(groups):
        members = range(g * (n // groups), (g + 1) * (n // groups))
        for j in range(d):
            out.append([math.fsum(float(row[h * d + j]) for h in members) / len(members) for row in wk])
    return np.array(out, np.float32).T


def pooled(wk, d, groups, shape, axis):
    return wk.reshape(shape).mean(axis=axis).reshape(len(wk), -1)


mistake("mean_pool", "you averaged heads that lie apart; those of a group are neighbours: (D, groups, n / groups, d).")(
    lambda wk, d, groups: pooled(wk, d, groups, (len(wk), -1, groups, d), 1))
mistake("mean_pool", "you averaged within the heads: d, the last axis, must stay; the mean is over heads.")(
    lambda wk, d, groups: pooled(wk, d, groups, (len(wk), groups, d, -1), 3))
mistake("mean_pool", "you added the heads up; the mean divides by their number.")(
    lambda wk, d, groups: mean_pool(wk, d, groups) * np.float32(wk.shape[1] // d // groups))
mistake("mean_pool", "you took the first head of each group, not the mean.")(
    lambda wk, d, groups: wk.reshape(len(wk), groups, -1, d)[:, :, 0].reshape(len(wk), -1))
mistake("mean_pool", "all heads became one; there should be `groups` of them.")(
    lambda wk, d, groups: wk.reshape(len(wk), -1, d).mean(axis=1))
mistake("mean_pool", "the shape should be (D, groups * d), heads side by side.")(
    lambda wk, d, groups: wk.reshape(len(wk), groups, -1, d).mean(axis=2))


# ---- 06 SwiGLU -----------------------------------------------------------------------------------------------

@exercise("06", "int(multiplier * int(2 * 4 * dim / 3)), rounded up to a multiple of multiple_of.", [
    (4096, 256, 1), (8192, 4096, 1.3), (5120, 256, 1), (256, 64, 1), (6656, 256, 1), (96, 256, 1), (24, 64, 1), (8192, 256, 1.3)],
    tolerance=0)
def feed_forward_width(dim, multiple_of, multiplier):
    hidden = math.floor(multiplier * (8 * dim // 3))
    while hidden % multiple_of:
        hidden += 1
    return hidden


def width_of(dim, multiple_of, multiplier, parts=8 / 3, rounded=lambda n, m: -(-n // m) * m):
    return rounded(int(multiplier * int(parts * dim)), multiple_of)


mistake("feed_forward_width", "you rounded down; it is rounded up to the next multiple.")(
    lambda d, m, k: width_of(d, m, k, rounded=lambda n, m: n // m * m))
mistake("feed_forward_width", "you rounded to the nearest multiple; it is rounded up.")(
    lambda d, m, k: width_of(d, m, k, rounded=lambda n, m: round(n / m) * m))
mistake("feed_forward_width", "that is always one multiple more: a number that is a multiple already stays.")(
    lambda d, m, k: width_of(d, m, k, rounded=lambda n, m: (n // m + 1) * m))
mistake("feed_forward_width", "that is 4 dim; with a gate it is two thirds of that.")(lambda d, m, k: width_of(d, m, k, 4))
mistake("feed_forward_width", "that is two thirds of dim; it is two thirds of 4 dim.")(lambda d, m, k: width_of(d, m, k, 2 / 3))
mistake("feed_forward_width", "the multiplier is missing.")(lambda d, m, k: width_of(d, m, 1))
mistake("feed_forward_width", "you rounded first and multiplied after; it is the other way round.")(
    lambda d, m, k: int(k * width_of(d, m, 1)))
mistake("feed_forward_width", "it is not rounded to a multiple of multiple_of.")(
    lambda d, m, k: width_of(d, m, k, rounded=lambda n, m: n))


@exercise("06", "(silu(x @ gate) * (x @ up)) @ down, with silu(g) = g / (1 + exp(-g)).", [
    (random(3, 8), random(8, 12, seed=1), random(8, 12, seed=2), random(12, 8, seed=3)),
    (random(1, 4, seed=4, scale=2), random(4, 4, seed=5), random(4, 4, seed=6), random(4, 4, seed=7)),
    (np.zeros((2, 4), np.float32), random(4, 6, seed=8), random(4, 6, seed=9), random(6, 4, seed=10))], picture=True)
def swiglu(x, gate, up, down):
    out = np.zeros((len(x), down.shape[1]))
    for row, token in zip(out, x.astype(float)):
        for f in range(gate.shape[1]):
            g, u = math.fsum(token * gate[:, f]), math.fsum(token * up[:, f])
            row += g / (1 + math.exp(-g)) * u * down[f]
    return out.astype(np.float32)


def swish_of(g):
    return g / (1 + np.exp(-g))


def gated(x, gate, up, down, on_gate=swish_of, on_up=lambda u: u, join=np.multiply):
    return join(on_gate(x @ gate), on_up(x @ up)) @ down


mistake("swiglu", "Swish belongs on gate, not on up.")(
    lambda x, g, u, d: gated(x, g, u, d, lambda g: g, swish_of))
mistake("swiglu", "Swish is on both; only the gate gets it, up stays as it is.")(
    lambda x, g, u, d: gated(x, g, u, d, swish_of, swish_of))
mistake("swiglu", "that is GLU: you took the sigmoid; Swish is x times the sigmoid.")(
    lambda x, g, u, d: gated(x, g, u, d, lambda g: 1 / (1 + np.exp(-g))))
mistake("swiglu", "that is ReGLU: the activation here is Swish, not ReLU.")(
    lambda x, g, u, d: gated(x, g, u, d, lambda g: np.maximum(g, 0)))
mistake("swiglu", "the two are added; a gate multiplies.")(lambda x, g, u, d: gated(x, g, u, d, join=np.add))
mistake("swiglu", "up is missing: that is the plain form with Swish.")(lambda x, g, u, d: swish_of(x @ g) @ d)
mistake("swiglu", "there is no activation: gate times up alone is not SwiGLU.")(lambda x, g, u, d: gated(x, g, u, d, lambda g: g))
mistake("swiglu", "a sign is wrong: that is g / (1 + exp(g)); Swish is g / (1 + exp(-g)).")(
    lambda x, g, u, d: gated(x, g, u, d, lambda g: g / (1 + np.exp(g))))
mistake("swiglu", "you applied Swish to the product; it goes on the gate before.")(
    lambda x, g, u, d: swish_of((x @ g) * (x @ u)) @ d)
mistake("swiglu", "you added x: the residual sum is the block's affair, not this step's.")(
    lambda x, g, u, d: x + gated(x, g, u, d))


@exercise("06", "Sort the squares of each row, largest first, and count until their running sum reaches share of the total.", [
    (random(4, 9), 0.5), (random(2, 5, seed=1), 0.9), (np.array([[0, 3, 0, -4], [1, 1, 1, 1]], np.float32), 0.6),
    (random(3, 30, seed=2, scale=2), 0.75), (random(2, 6, seed=3), 1e-6)], tolerance=0)
def neurons_needed(hidden, share):
    counts = []
    for row in hidden.astype(float):
        squares, total, n = sorted((v * v for v in row), reverse=True), 0.0, 0
        while total < share * math.fsum(squares):
            total, n = total + squares[n], n + 1
        counts.append(n)
    return np.array(counts)


def counted(hidden, share, size=np.square, largest=True, more=1):
    sizes = np.sort(size(hidden.astype(float)), axis=-1)
    sizes = sizes[:, ::-1] if largest else sizes
    return (np.cumsum(sizes, axis=-1) < share * sizes.sum(-1, keepdims=True)).sum(-1) + more


mistake("neurons_needed", "you added up the smallest first; the largest come first.")(lambda h, s: counted(h, s, largest=False))
mistake("neurons_needed", "you added up sizes, not squares.")(lambda h, s: counted(h, s, np.abs))
mistake("neurons_needed", "you took the products as they are; their squares are what is added up.")(lambda h, s: counted(h, s, lambda x: x))
mistake("neurons_needed", "one too few: the product that crosses the share is needed too.")(lambda h, s: counted(h, s, more=0))
mistake("neurons_needed", "that is a share of F, not a number of products.")(lambda h, s: counted(h, s) / h.shape[1])
mistake("neurons_needed", "the squares are in the order of the neurons; sort them first.")(
    lambda h, s: (np.cumsum(h.astype(float) ** 2, -1) < s * (h.astype(float) ** 2).sum(-1, keepdims=True)).sum(-1) + 1)
mistake("neurons_needed", "that is one number for all tokens; each row has its own.")(lambda h, s: counted(h, s).mean())


# ---- 07 The whole forward pass -------------------------------------------------------------------------------

@exercise("07", "2 * n * m for each row and each (n, m) matrix, plus scores and mix: 2 * H * T * T * d each; L layers.", [
    (Sizes(256, 6, 8, 2, 704, 3072, 32), 228), (Sizes(64, 2, 4, 4, 176, 100, 16), 1),
    (Sizes(4096, 32, 32, 32, 11008, 32000, 128), 100), (Sizes(32, 3, 4, 1, 48, 72, 16), 50)])
def forward_flops(config, T):
    heads, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    products = [(config.dim, config.vocab_size)]
    for _ in range(config.n_layers):
        products += [(config.dim, heads), (config.dim, keys), (config.dim, keys), (heads, config.dim)]
        products += [(config.dim, config.hidden_dim), (config.dim, config.hidden_dim), (config.hidden_dim, config.dim)]
        for _ in range(config.n_heads):
            products += [(config.head_dim, T), (T, config.head_dim)]
    return sum(2 * T * n * m for n, m in products)


def flops_with(two=2, query=None, key=None, ffn=3, attention=2, layers=None, output=None, embedding=0):
    """A wrong count: the factor or the size that a reader may get wrong."""
    def wrong(config, T):
        c = config
        q, k = query(c) if query else c.n_heads * c.head_dim, key(c) if key else c.n_kv_heads * c.head_dim
        one = T * c.dim * (2 * q + 2 * k + ffn * c.hidden_dim) + attention * c.n_heads * T * T * c.head_dim
        last = T if output is None else output
        return two * ((c.n_layers if layers is None else layers) * one + (last + embedding * T) * c.dim * c.vocab_size)
    return wrong


mistake("forward_flops", "you counted one operation for each product; the additions count too: 2 * T * n * m.")(flops_with(1))
mistake("forward_flops", "wk and wv have G heads, not H: they are (D, G * d).")(
    flops_with(key=lambda c: c.n_heads * c.head_dim))
mistake("forward_flops", "you took D for H * d in wq and wo; the two are the same only where d = D / H.")(
    flops_with(query=lambda c: c.dim))
mistake("forward_flops", "the feed-forward step has three matrices, not two: gate, up and down.")(flops_with(ffn=2))
mistake("forward_flops", "scores and mix are missing: two products without weights, 2 * H * T * T * d each.")(
    flops_with(attention=0))
mistake("forward_flops", "scores and mix are two products; you counted one of them.")(flops_with(attention=1))
mistake("forward_flops", "that is one layer; there are L of them.")(flops_with(layers=1))
mistake("forward_flops", "the logits are missing: T rows times the (D, V) output matrix.")(flops_with(output=0))
mistake("forward_flops", "you counted the logits of the last token only; forward computes them for all T.")(flops_with(output=1))
mistake("forward_flops", "you counted the embedding as a product; it is a lookup, and costs no FLOPs.")(flops_with(embedding=1))
mistake("forward_flops", "that is for one token; T of them go through the model.")(lambda config, T: forward_flops(config, 1))
mistake("forward_flops", "scores grow with T * T: each of T queries meets each of T keys.")(
    lambda c, T: forward_flops(c, T) - c.n_layers * 4 * c.n_heads * (T * T - T) * c.head_dim)


@exercise("07", "For each column: go up from the last row as long as the guess equals the last; return that row's index.", [
    (np.array([[7, 1, 5, 3], [2, 1, 4, 3], [7, 1, 5, 2], [9, 1, 5, 3]]),), (np.array([[4, 8, 2]]),),
    (np.array([[3, 1], [5, 1], [3, 1], [3, 2], [3, 1]]),),
    (np.array([[6, 0, 1, 2, 2], [1, 0, 1, 0, 2], [6, 0, 6, 0, 0], [6, 6, 6, 0, 0], [6, 6, 5, 1, 0], [6, 6, 6, 1, 2]]),)])
def settled_at(guesses):
    found = []
    for t in range(guesses.shape[1]):
        i = len(guesses) - 1
        while i > 0 and guesses[i - 1, t] == guesses[-1, t]:
            i -= 1
        found.append(i)
    return np.array(found)


mistake("settled_at", "that is the first depth with the final guess; it may still change its mind in between.")(
    lambda guesses: np.argmax(guesses == guesses[-1], axis=0))
mistake("settled_at", "that is the last depth with another guess; it is settled one row later.")(
    lambda guesses: settled_at(guesses) - 1)
mistake("settled_at", "you counted how many depths have the final guess, not from which one on they all do.")(
    lambda guesses: (guesses == guesses[-1]).sum(axis=0))
mistake("settled_at", "you counted how many depths differ from the final guess; one that agrees in between must not help.")(
    lambda guesses: (guesses != guesses[-1]).sum(axis=0))
mistake("settled_at", "you counted from the end: how many depths agree in a row. Take that from the number of rows.")(
    lambda guesses: len(guesses) - settled_at(guesses))
mistake("settled_at", "you returned the tokens; the depth (row) at which they settle was asked for.")(
    lambda guesses: guesses[-1])
mistake("settled_at", "you compared each depth with the first one; the last row is the model's answer.")(
    lambda guesses: settled_at(guesses[::-1]))
mistake("settled_at", "you looked for the first depth that repeats the one before it; later ones may still differ.")(
    lambda guesses: np.array([next((i for i in range(1, len(column)) if column[i] == column[i - 1]), len(column) - 1)
                              for column in guesses.T]))
mistake("settled_at", "that is one depth for all positions; each column has its own.")(
    lambda guesses: settled_at(guesses).max())


@exercise("07", "Head h meets rows h * d to (h + 1) * d of wo: stack heads[h] @ wo[h * d:(h + 1) * d].", [
    (random(4, 3, 8), random(32, 16, seed=1)), (random(2, 1, 4, seed=2), random(8, 8, seed=3)),
    (random(1, 5, 6, seed=4), random(6, 10, seed=5)), (random(3, 3, 3, seed=6), random(9, 9, seed=7))])
def head_addends(heads, wo):
    H, T, d = heads.shape
    out = np.zeros((H, T, wo.shape[1]))
    for h in range(H):
        for j in range(d):
            out[h] += np.outer(heads[h, :, j].astype(np.float64), wo[h * d + j])
    return out.astype(np.float32)


def rows_apart(wo, H):                                    # rows h, h + H, h + 2 H, ... for head h
    return wo.reshape(-1, H, wo.shape[1]).swapaxes(0, 1)


mistake("head_addends", "that is the sum already; return the addends apart, one (T, D) for each head.")(
    lambda heads, wo: head_addends(heads, wo).sum(axis=0))
mistake("head_addends", "you gave head h every H-th row of wo; its rows stand together, from h * d to (h + 1) * d.")(
    lambda heads, wo: heads @ rows_apart(wo, len(heads)))
mistake("head_addends", "every head meets the first d rows of wo; head h has its own, from h * d to (h + 1) * d.")(
    lambda heads, wo: heads @ wo[:heads.shape[-1]])
mistake("head_addends", "the heads come second; the shape should be (H, T, D).")(
    lambda heads, wo: head_addends(heads, wo).swapaxes(0, 1))
mistake("head_addends", "you shared the sum out equally; each head adds what it computed itself.")(
    lambda heads, wo: np.repeat(head_addends(heads, wo).mean(axis=0, keepdims=True), len(heads), axis=0))
mistake("head_addends", "the rows of wo are taken in reverse: head 0 meets the first d rows, not the last.")(
    lambda heads, wo: heads @ wo.reshape(len(heads), -1, wo.shape[1])[::-1])
mistake("head_addends", "that is the running sum over the heads; the addends themselves were asked for.")(
    lambda heads, wo: np.cumsum(head_addends(heads, wo), axis=0, dtype=np.float32))


def try_blend(function, name, position, donor, share, passed):
    """What the model would go on with."""
    tap = function(name, position, donor, share)
    return None if tap is None or tap is ... else [tap(at, x) for at, x in passed]


def blend_inputs(name, position, share, shape, seed):
    names = ["embedding", "layers.0.x_attn", "layers.0.x_ffn", "layers.1.x_ffn"]
    donor = {at: random(*shape, seed=seed + i) for i, at in enumerate(names)}
    return name, position, donor, share, [(at, random(*shape, seed=seed + 10 + i)) for i, at in enumerate(names)]


@exercise("07", "Return a function tap(at, x): if at is name, a copy of x with the mixed row; x itself otherwise.", [
    blend_inputs("layers.0.x_ffn", 2, 0.25, (4, 6), 0), blend_inputs("layers.1.x_ffn", -1, 1.0, (3, 3), 20),
    blend_inputs("embedding", 0, 0.0, (2, 5), 40), blend_inputs("layers.0.x_attn", 1, 0.7, (5, 5), 60)], run=try_blend)
def blend(name, position, donor, share):
    def tap(at, x):
        own, theirs = x.astype(np.float64), donor[at].astype(np.float64)
        row = own[position] + share * (theirs[position] - own[position])
        rows = list(range(len(x)))
        return x if at != name else np.array([row if i == rows[position] else own[i] for i in rows]).astype(np.float32)
    return tap


def blending(change, chosen=lambda at, name: at == name, otherwise=lambda x: x):
    """A wrong blend: change(x, donor's tensor, position, share), at the chosen names."""
    return lambda name, position, donor, share: lambda at, x: (
        change(x.copy(), donor[at], position, share) if chosen(at, name) else otherwise(x))


def put_row(x, position, row):
    x[position] = row
    return x


def mix_row(x, y, position, share):
    return put_row(x, position, (1 - share) * x[position] + share * y[position])


mistake("blend", "share is the donor's part: 1 takes all from the donor. You gave it to the run's own row.")(
    blending(lambda x, y, t, share: mix_row(x, y, t, 1 - share)))
mistake("blend", "you mixed all rows; only the one at `position` changes.")(
    blending(lambda x, y, t, share: (1 - share) * x + share * y))
mistake("blend", "you added share of the donor's row on top; the own row keeps only 1 - share.")(
    blending(lambda x, y, t, share: put_row(x, t, x[t] + share * y[t])))
mistake("blend", "you mixed a column: x[:, position]; a position is a row, x[position].")(
    blending(lambda x, y, t, share: (1 - share) * x + share * y if x.ndim < 2 else mix_row(x.T, y.T, t, share).T))
mistake("blend", "the whole row is replaced, whatever share says: mix the two.")(
    blending(lambda x, y, t, share: put_row(x, t, y[t])))
mistake("blend", "every tensor is mixed; only the one called `name` changes.")(blending(mix_row, lambda at, name: True))
mistake("blend", "the tap returns nothing for other names, and the model goes on with None: return x there.")(
    blending(mix_row, otherwise=lambda x: None))
mistake("blend", "the tap returns the mixed row alone; the model needs the whole tensor, with that row in it.")(
    blending(lambda x, y, t, share: mix_row(x, y, t, share)[t]))
mistake("blend", "nothing changes: the tap returns x as it came.")(blending(lambda x, y, t, share: x))


# ---- 08 Decoding and the cache -------------------------------------------------------------------------------

@exercise("08", "2 * T * n * m FLOPs, divided by the n * m * width bytes of the matrix.", [
    (1, 256, 704, 4), (500, 4096, 11008, 2), (16, 288, 32000, 4), (3, 7, 5, 1)])
def intensity(T, n, m, width):
    flops = sum(2 * n * m for _ in range(T))
    return flops / (width * n * m)


mistake("intensity", "an addition comes with each multiplication: 2 * T * n * m FLOPs.")(lambda T, n, m, w: T / w)
mistake("intensity", "the T rows are missing: each number that is read serves T times.")(lambda T, n, m, w: 2 / w)
mistake("intensity", "you counted numbers, not bytes: divide by width too.")(lambda T, n, m, w: 2 * T)
mistake("intensity", "that is bytes per FLOP; it is the other way round.")(lambda T, n, m, w: w / (2 * T))
mistake("intensity", "those are the FLOPs; divide them by the bytes read.")(lambda T, n, m, w: 2 * T * n * m)
mistake("intensity", "you multiplied by the width; more bytes make the intensity smaller.")(lambda T, n, m, w: 2 * T * w)
mistake("intensity", "count the matrix only, as asked, not the rows that go in and come out.")(
    lambda T, n, m, w: 2 * T * n * m / (w * (n * m + T * n + T * m)))


def try_append(function, store, length, new):
    """What is returned, what is in the store, and whether the one is a view of the other."""
    store = store.copy()
    result = function(store, length, new)
    if result is None or result is ...:
        return None
    return result, store, np.array(isinstance(result, tuple) and np.shares_memory(result[0], store))


@exercise("08", "store[:, length:length + T] = new; return store[:, :length + T] and length + T.", [
    (random(2, 8, 4), 3, random(2, 2, 4, seed=1)), (random(1, 5, 3, seed=2), 0, random(1, 4, 3, seed=3)),
    (random(3, 6, 2, seed=4), 5, random(3, 1, 2, seed=5))], run=try_append)
def append(store, length, new):
    for g in range(len(new)):
        for t in range(new.shape[1]):
            store[g, length + t] = new[g, t]
    return store[:, :length + new.shape[1]], length + new.shape[1]


def put(store, new, start):
    store[:, start:start + new.shape[1]] = new
    return store


mistake("append", "you wrote over the first keys; the new ones go behind the `length` that are held.")(
    lambda s, n, new: (put(s, new, 0)[:, :n + new.shape[1]], n + new.shape[1]))
mistake("append", "you returned the whole store; what is behind the valid keys is rubbish.")(
    lambda s, n, new: (put(s, new, n), n + new.shape[1]))
mistake("append", "you returned the new keys only; attention needs all that are valid.")(
    lambda s, n, new: (put(s, new, n)[:, n:n + new.shape[1]], n + new.shape[1]))
mistake("append", "the length is the old one; it grows by T.")(
    lambda s, n, new: (put(s, new, n)[:, :n + new.shape[1]], n))
mistake("append", "the store is unchanged: you joined copies. Write into it, so that nothing is copied.")(
    lambda s, n, new: (np.concatenate([s[:, :n], new], axis=1), n + new.shape[1]))
mistake("append", "you returned a copy; a slice of the store is a view and costs nothing.")(
    lambda s, n, new: (put(s, new, n)[:, :n + new.shape[1]].copy(), n + new.shape[1]))


class CountingModel:
    """A little language of sums, which notes what it is fed."""

    def __init__(self):
        self.fed = []

    def __call__(self, tokens, cache):
        rows = []
        for token in tokens:
            self.fed.append(int(token))
            cache.append(int(token))
            rows.append(np.eye(11)[(sum(cache) * 3 + len(cache)) % 11])
        return np.array(rows)


def try_decode(function, prompt, n):
    model, cache = CountingModel(), []
    new = function(list(prompt), n, model, cache)
    return None if new is None or new is ... else (new, model.fed)


@exercise("08", "Feed the prompt once, then only the last new token each time; stop after n.", [
    ([1, 5, 2], 6), ([3], 1), ([7, 7, 7, 1], 4)], run=try_decode)
def decode(prompt, n, forward, cache):
    logits, new = forward(prompt, cache), []
    for i in range(n):
        new.append(int(np.argmax(logits[len(logits) - 1])))
        if i < n - 1:
            logits = forward(new[i:], cache)
    return new


def decoding(feed, first=lambda prompt, new: prompt + new, more=False, row=-1):
    """A wrong loop: feed(prompt, new) is what goes in from the second step on."""
    def wrong(prompt, n, forward, cache):
        new, tokens = [], prompt
        while len(new) < n:
            new.append(int(forward(tokens, cache)[row].argmax()))
            tokens = feed(prompt, new)
        if more:
            forward(tokens, cache)
        return new
    return wrong


mistake("decode", "everything goes through again in each step; the cache holds it: feed the newest token only.")(
    decoding(lambda prompt, new: prompt + new))
mistake("decode", "all new tokens go in again in each step; those before the newest are in the cache.")(
    decoding(lambda prompt, new: list(new)))
mistake("decode", "the prompt is fed again in each step.")(decoding(lambda prompt, new: prompt))
mistake("decode", "the last token went through the model; nobody reads what it would say.")(
    decoding(lambda prompt, new: new[-1:], more=True))
mistake("decode", "you took the first row of the logits; the last row predicts what comes next.")(
    decoding(lambda prompt, new: new[-1:], row=0))
mistake("decode", "the prompt is in the result; only the new ids were asked for.")(
    lambda p, n, f, c: p + decoding(lambda prompt, new: new[-1:])(p, n, f, c))
mistake("decode", "you fed the last token of the prompt twice.")(
    lambda p, n, f, c: (f(p, c), decoding(lambda prompt, new: new[-1:])(p[-1:], n, f, c))[1])


# ---- 09 The objective and sampling ---------------------------------------------------------------------------

@exercise("09", "Add up the nats, divide by ln 2 for bits, and by the number of bytes of the text in UTF-8.", [
    (np.array([2.0, 1.0, 0.5]), "a king"), (np.array([0.1, 7.0]), "öé"), (np.linspace(0, 3, 40), "x" * 11),
    (np.array([1.0]), "王")])
def bits_per_byte(nats, text):
    return math.fsum(float(x) / math.log(2) for x in nats) / len(bytes(text, "utf-8"))


def bits_with(total=np.sum, log=math.log(2), length=lambda nats, text: len(text.encode())):
    return lambda nats, text: total(nats) / log / length(nats, text)


mistake("bits_per_byte", "those are nats per byte; divide by ln 2 for bits.")(bits_with(log=1))
mistake("bits_per_byte", "you multiplied by ln 2; a nat is more than a bit, so divide.")(bits_with(log=1 / math.log(2)))
mistake("bits_per_byte", "len(text) counts characters; ö has two bytes: len(text.encode()).")(bits_with(length=lambda n, t: len(t)))
mistake("bits_per_byte", "that is bits per token; divide by the bytes of the text.")(bits_with(length=lambda n, t: len(n)))
mistake("bits_per_byte", "you took the mean of the nats; all of them are needed for the whole text.")(bits_with(np.mean))
mistake("bits_per_byte", "those are the bits of the whole text; divide by its bytes.")(bits_with(length=lambda n, t: 1))
mistake("bits_per_byte", "a byte has eight bits, but that is not in question: you multiplied or divided by 8.")(bits_with(log=8 * math.log(2)))


@exercise("09", "Rows logits[:-1] against targets tokens[1:]: mean of log(sum(exp(row))) - row[target], the largest subtracted.", [
    (random(5, 7), np.array([1, 4, 0, 6, 2])), (random(3, 4, seed=1, scale=200), np.array([3, 0, 1])),
    (random(2, 11, seed=2), np.array([0, 10])), (random(6, 5, seed=3, scale=3), np.array([0, 1, 2, 3, 4, 0]))])
def next_token_loss(logits, tokens):
    nats = []
    for row, target in zip(logits[:-1].astype(float).tolist(), tokens[1:]):
        largest = max(row)
        nats.append(largest + math.log(math.fsum(math.exp(x - largest) for x in row)) - row[target])
    return math.fsum(nats) / len(nats)


def all_nats(rows, targets):
    rows = rows.astype(float)
    shifted = rows - rows.max(-1, keepdims=True)
    return np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(len(targets)), targets]


mistake("next_token_loss", "not shifted: row t of the logits is about token t + 1.")(lambda l, t: all_nats(l, t).mean())
mistake("next_token_loss", "shifted the wrong way: logits[:-1] against tokens[1:].")(lambda l, t: all_nats(l[1:], t[:-1]).mean())
mistake("next_token_loss", "that is the sum; the loss is the mean.")(lambda l, t: all_nats(l[:-1], t[1:]).sum())
mistake("next_token_loss", "you divided by T; there are T - 1 predictions.")(lambda l, t: all_nats(l[:-1], t[1:]).sum() / len(t))
mistake("next_token_loss", "the sign is wrong: -log p is positive.")(lambda l, t: -all_nats(l[:-1], t[1:]).mean())
mistake("next_token_loss", "that is in bits; the natural logarithm gives nats.")(lambda l, t: all_nats(l[:-1], t[1:]).mean() / math.log(2))
mistake("next_token_loss", "exp overflows, or a probability underflows to log(0): subtract the row's largest, and never form p.")(
    lambda l, t: np.mean(np.log(np.exp(l[:-1]).sum(-1)) - l[:-1][np.arange(len(t) - 1), t[1:]]))


@exercise("09", "Sort by probability, keep tokens as long as those before hold less than p, and divide by what is kept.", [
    (np.array([0.1, 0.5, 0.15, 0.25]), 0.6), (np.array([0.05, 0.9, 0.03, 0.02]), 0.3),
    (np.array([0.4, 0.3, 0.2, 0.1]), 1.0), (np.array([0.02, 0.31, 0.27, 0.18, 0.22]), 0.75)])
def nucleus(probs, p):
    held, kept = 0.0, {}
    for i in sorted(range(len(probs)), key=lambda i: -probs[i]):
        if held >= p:
            break
        held, kept[i] = held + probs[i], probs[i]
    return np.array([kept.get(i, 0) / math.fsum(kept.values()) for i in range(len(probs))])


def top_p_with(probs, p, sign=-1, keep=lambda probs, before, p: before < p, scale=True):
    order = np.argsort(sign * probs, kind="stable")
    before = np.cumsum(probs[order]) - probs[order]
    out = np.zeros_like(probs)
    chosen = order[keep(probs[order], before, p)]
    out[chosen] = probs[chosen]
    return out / out.sum() if scale else out


mistake("nucleus", "the token that crosses p is dropped; without it the set does not reach p, and may be empty.")(
    lambda q, p: top_p_with(q, p, keep=lambda q, before, p: before + q <= p))
mistake("nucleus", "what is kept does not sum to 1: divide by its sum.")(lambda q, p: top_p_with(q, p, scale=False))
mistake("nucleus", "you kept the least likely tokens; sort downwards.")(lambda q, p: top_p_with(q, p, sign=1))
mistake("nucleus", "you kept every token of probability p or more; it is the sum that must reach p.")(
    lambda q, p: np.where(q >= p, q, 0) / max(np.where(q >= p, q, 0).sum(), 1e-300))
mistake("nucleus", "you kept one token too many: stop as soon as the sum has reached p.")(
    lambda q, p: top_p_with(q, p, keep=lambda q, before, p: np.append(True, before[:-1] < p)))
mistake("nucleus", "the result is sorted; each token must keep its place.")(lambda q, p: -np.sort(-top_p_with(q, p)))
mistake("nucleus", "you did not sort: the running sum must go from the likeliest down.")(
    lambda q, p: np.where(np.cumsum(q) - q < p, q, 0) / np.where(np.cumsum(q) - q < p, q, 0).sum())


# ---- 10 Sizes, data, compute ---------------------------------------------------------------------------------

@exercise("10", "Tokens divided by all GPUs' tokens per second, and by the 86,400 seconds of a day.", [
    (1.4e12, 2048, 380.0), (1e9, 1, 100.0), (2e12, 1024, 3000.0)])
def training_days(tokens, gpus, tokens_per_second):
    per_day = sum(tokens_per_second * 60 * 60 for _ in range(24)) * gpus
    return tokens / per_day


def days_with(per_day=86400, gpus=lambda n: n, scale=1):
    return lambda tokens, n, speed: scale * tokens / (gpus(n) * speed) / per_day


mistake("training_days", "those are seconds; a day has 86,400 of them.")(days_with(1))
mistake("training_days", "those are hours; a day has 24 of them.")(days_with(3600))
mistake("training_days", "those are GPU-days; the GPUs work at the same time.")(days_with(gpus=lambda n: 1))
mistake("training_days", "those are GPU-hours; the days of the whole run were asked for.")(days_with(3600, lambda n: 1))
mistake("training_days", "you multiplied by the number of GPUs; more of them take less time.")(days_with(gpus=lambda n: 1 / n))
mistake("training_days", "that is the inverse: how much of the run is done in a day.")(lambda t, n, s: n * s * 86400 / t)


@exercise("10", "For each source share / 100 * tokens, divided by its epochs if it was read more than once; add them up.", [
    (1.4e12, {"web": (67.0, 1.10), "code": (4.5, 0.64), "books": (28.5, 2.23)}), (100.0, {"a": (50.0, 1.0), "b": (50.0, 2.0)}),
    (10.0, {"a": (100.0, 0.5)})])
def different_tokens(tokens, sources):
    total = 0.0
    for share, epochs in sources.values():
        drawn = tokens * share / 100
        total += drawn / epochs if epochs > 1 else drawn
    return total


def different_with(each):
    return lambda tokens, sources: sum(each(tokens, share, epochs) for share, epochs in sources.values())


mistake("different_tokens", "a source read 0.64 times has not shown more than was drawn of it: divide by the epochs only above 1.")(
    different_with(lambda t, s, e: s / 100 * t / e))
mistake("different_tokens", "the epochs are missing: what is read twice is not different the second time.")(
    different_with(lambda t, s, e: s / 100 * t))
mistake("different_tokens", "you multiplied by the epochs; reading more often makes for fewer different tokens.")(
    different_with(lambda t, s, e: s / 100 * t * max(e, 1)))
mistake("different_tokens", "the shares are in percent: divide by 100.")(different_with(lambda t, s, e: s * t / max(e, 1)))
mistake("different_tokens", "you took the mean of the epochs over all sources; each source has its own.")(
    lambda t, sources: t / np.mean([max(e, 1) for _, e in sources.values()]))
mistake("different_tokens", "you counted the sources that were read more than once only.")(
    different_with(lambda t, s, e: s / 100 * t / e if e > 1 else 0))


@exercise("10", "Embedding and output V * D each; per layer wq, wk, wv, wo, three of D * F, two norms; one norm at the end.", [
    (Sizes(4096, 32, 32, 32, 11008, 32000, 128),), (Sizes(8192, 80, 64, 8, 28672, 32000, 128),),
    (Sizes(256, 6, 8, 2, 704, 3072, 32),), (Sizes(64, 3, 4, 1, 176, 100, 24),)], tolerance=0)
def count_parameters(config):
    c = config
    matrices = [(c.vocab_size, c.dim), (c.dim, c.vocab_size), (c.dim, 1)]
    for _ in range(c.n_layers):
        matrices += [(c.dim, c.n_heads * c.head_dim), (c.n_heads * c.head_dim, c.dim)]
        matrices += [(c.dim, c.n_kv_heads * c.head_dim)] * 2 + [(c.dim, c.hidden_dim)] * 3 + [(c.dim, 1)] * 2
    return sum(n * m for n, m in matrices)


def count_with(vocabulary=2, kv=lambda c: c.n_kv_heads * c.head_dim, q=lambda c: c.n_heads * c.head_dim, ffn=3, norms=2,
               last=1, layers=True):
    return lambda c: (vocabulary * c.vocab_size * c.dim + last * c.dim + (c.n_layers if layers else 1)
                      * (2 * c.dim * (q(c) + kv(c)) + ffn * c.dim * c.hidden_dim + norms * c.dim))


mistake("count_parameters", "output is missing: it is not shared with the embedding.")(count_with(1))
mistake("count_parameters", "embedding and output are missing, V * D each.")(count_with(0))
mistake("count_parameters", "wk and wv have G heads, not H.")(count_with(kv=lambda c: c.n_heads * c.head_dim))
mistake("count_parameters", "you took D for H * d in wq and wo; the two can differ.")(count_with(q=lambda c: c.dim))
mistake("count_parameters", "the feed-forward step has three matrices, not two.")(count_with(ffn=2))
mistake("count_parameters", "the norms of the layers are missing: two of D each.")(count_with(norms=0))
mistake("count_parameters", "each layer has two norms, not one.")(count_with(norms=1))
mistake("count_parameters", "the last norm, before the output, is missing: D more.")(count_with(last=0))
mistake("count_parameters", "all norms are missing: two in each layer, and one at the end.")(count_with(norms=0, last=0))
mistake("count_parameters", "that is one layer; there are L.")(count_with(layers=False))


# ---- 11 Chat -------------------------------------------------------------------------------------------------

@exercise("11", "[INST] <<SYS>>\\n{system}\\n<</SYS>>\\n\\n{user} [/INST], without the system part if it is empty.", [
    ("Be brief.", "Who is the king?"), ("", "Tell me a story."), ("Two\nlines.", "Hello")])
def chat_text(system, user):
    return "".join(["[INST] ", "<<SYS>>\n" + system + "\n<</SYS>>\n\n" if system else "", user, " [/INST]"])


def chat_with(open="<<SYS>>\n", close="\n<</SYS>>\n\n", start="[INST] ", end=" [/INST]", always=False):
    return lambda system, user: start + (open + system + close if system or always else "") + user + end


mistake("chat_text", "one newline is missing after <</SYS>>: there are two.")(chat_with(close="\n<</SYS>>\n"))
mistake("chat_text", "the newline after <<SYS>> is missing.")(chat_with(open="<<SYS>>"))
mistake("chat_text", "the newline before <</SYS>> is missing.")(chat_with(close="<</SYS>>\n\n"))
mistake("chat_text", "the system part closes with <</SYS>>; you opened it a second time.")(chat_with(close="\n<<SYS>>\n\n"))
mistake("chat_text", "an empty system message leaves no trace: no <<SYS>> at all.")(chat_with(always=True))
mistake("chat_text", "a space belongs after [INST].")(chat_with(start="[INST]"))
mistake("chat_text", "a space belongs before [/INST].")(chat_with(end="[/INST]"))
mistake("chat_text", "no space at the end: the answer brings its own.")(chat_with(end=" [/INST] "))
mistake("chat_text", "<s> is a control token, and not written as text.")(chat_with(start="<s>[INST] "))
mistake("chat_text", "the system part stands inside [INST], not before it.")(
    lambda system, user: (f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else "") + f"[INST] {user} [/INST]")
mistake("chat_text", "the system message is missing.")(lambda system, user: f"[INST] {user} [/INST]")


@exercise("11", "Nats of logits[:-1] against tokens[1:]; those from index n_prompt - 1 on are the answer's. Take their mean.", [
    (random(6, 9), np.array([1, 4, 0, 8, 2, 3]), 3), (random(4, 5, seed=1, scale=5), np.array([0, 1, 2, 3]), 1),
    (random(8, 7, seed=2), np.array([1, 2, 3, 4, 5, 6, 0, 1]), 7)])
def answer_loss(logits, tokens, n_prompt):
    nats = []
    for t in range(n_prompt, len(tokens)):
        row = logits[t - 1].astype(float)
        nats.append(math.log(math.fsum(np.exp(row - row.max()))) + row.max() - row[tokens[t]])
    return math.fsum(nats) / len(nats)


mistake("answer_loss", "one too few: the first token of the answer is predicted by the last row of the prompt, at index n_prompt - 1.")(
    lambda l, t, n: all_nats(l[:-1], t[1:])[n:].mean() if n < len(t) - 1 else math.nan)
mistake("answer_loss", "all tokens count here; those of the prompt must not.")(lambda l, t, n: all_nats(l[:-1], t[1:]).mean())
mistake("answer_loss", "that is the loss of the prompt; the answer's was asked for.")(
    lambda l, t, n: all_nats(l[:-1], t[1:])[:n - 1].mean() if n > 1 else math.nan)
mistake("answer_loss", "you divided by all T - 1 predictions; only the answer's tokens count in the mean.")(
    lambda l, t, n: all_nats(l[:-1], t[1:])[n - 1:].sum() / (len(t) - 1))
mistake("answer_loss", "that is the sum; the mean over the answer was asked for.")(
    lambda l, t, n: all_nats(l[:-1], t[1:])[n - 1:].sum())
mistake("answer_loss", "not shifted: row t of the logits is about token t + 1.")(lambda l, t, n: all_nats(l, t)[n:].mean())


@exercise("11", "For each pair -ln sigmoid(chosen - rejected - margin), by np.logaddexp so that nothing overflows; then the mean.", [
    (random(5), random(5, seed=1), np.zeros(5, np.float32)), (random(4, seed=2, scale=3), random(4, seed=3), np.full(4, 1.5, np.float32)),
    (np.array([2000.0, -3000.0, 0.0]), np.array([0.0, 0.0, 0.0]), np.array([1.0, 0.5, 0.0]))])
def preference_loss(chosen, rejected, margin):
    losses = []
    for c, r, m in zip(chosen.astype(float), rejected.astype(float), margin.astype(float)):
        x = c - r - m
        losses.append(math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x)) - x)
    return math.fsum(losses) / len(losses)


def preference_with(chosen, rejected, margin, sign=-1, m=-1, reduce=np.mean):
    return reduce(np.logaddexp(0, sign * (chosen.astype(float) - rejected + m * margin)))


mistake("preference_loss", "the margin has the wrong sign: it is taken from the difference, so that more is asked for.")(
    lambda c, r, m: preference_with(c, r, m, m=1))
mistake("preference_loss", "the margin is missing.")(lambda c, r, m: preference_with(c, r, m, m=0))
mistake("preference_loss", "chosen and rejected are exchanged: that rewards the worse answer.")(lambda c, r, m: preference_with(r, c, m))
mistake("preference_loss", "a sign is wrong: the loss must fall as the chosen answer's reward rises.")(
    lambda c, r, m: preference_with(c, r, m, sign=1))
mistake("preference_loss", "that is the sum; the mean over the pairs was asked for.")(lambda c, r, m: preference_with(c, r, m, reduce=np.sum))
mistake("preference_loss", "that is one loss for each pair; take their mean.")(
    lambda c, r, m: preference_with(c, r, m, reduce=lambda x: x))
mistake("preference_loss", "exp overflows where the order is badly wrong: use np.logaddexp(0, -x).")(
    lambda c, r, m: np.mean(np.log(1 + np.exp(-(c.astype(float) - r - m)))))


# ---- 12 Weights on disk --------------------------------------------------------------------------------------

def file_of(named, pad=0):
    """A safetensors file in memory, of float32 arrays: bytes, header, where the numbers begin."""
    header, end = {}, 0
    for name, x in named.items():
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [end, end + x.nbytes]}
        end += x.nbytes
    text = json.dumps(header).encode() + b" " * pad
    return len(text).to_bytes(8, "little") + text + b"".join(x.tobytes() for x in named.values()), header, 8 + len(text)


FILES = [file_of({"a": random(3, 4), "b": random(5, 2, seed=1)}), file_of({"w": random(2, 6, seed=2)}, pad=7),
         file_of({f"layer.{i}": random(4, 3, seed=i) for i in range(9)})]


@exercise("12", "The first eight bytes count the bytes of JSON that follow, least significant byte first.",
          [(data,) for data, _, _ in FILES])
def read_header(data):
    n = sum(byte * 256**i for i, byte in enumerate(data[:8]))
    return json.loads(data[8:n + 8].decode()), n + 8


mistake("read_header", "where the numbers begin is 8 bytes further: the count itself comes before the header.")(
    lambda data: (read_header(data)[0], read_header(data)[1] - 8))
mistake("read_header", "that is where the header begins; the numbers begin after it, at 8 + n.")(
    lambda data: (read_header(data)[0], 8))
mistake("read_header", "that is the whole file's length; the numbers begin at 8 + n.")(
    lambda data: (read_header(data)[0], len(data)))
mistake("read_header", "the header is still text: json.loads makes a dict of it.")(
    lambda data: (data[8:read_header(data)[1]].decode(), read_header(data)[1]))
mistake("read_header", "the header is still bytes: json.loads makes a dict of it.")(
    lambda data: (data[8:read_header(data)[1]], read_header(data)[1]))
mistake("read_header", "that is the header alone; return also where the numbers begin: (dict, 8 + n).")(
    lambda data: read_header(data)[0])
mistake("read_header", "the two are in the wrong order: the dict first.")(lambda data: read_header(data)[::-1])


def bits16(*x):
    return np.array(x, np.uint16)


@exercise("12", "Put the 16 bits into the upper half of 32, and view those as float32.", [
    (bits16(0x3F80, 0xC020, 0x3DCD),), (bits16(0, 0x8000, 0x0001, 0x7F7F),), (bits16(0x3EAB, 0xBEAB)[:, None],),
    (np.arange(0x3C00, 0x3C0C, dtype=np.uint16).reshape(3, 4),), (bits16(0x7F80, 0xFF80),)], tolerance=0)
def widen(bits):
    values = []
    for number in bits.ravel().tolist():
        s, e, m = number >> 15, number >> 7 & 255, number & 127
        size = math.inf if e == 255 else (1 + m / 128) * 2.0**(e - 127) if e else m / 128 * 2.0**-126
        values.append(-size if s else size)
    return np.array(values, np.float32).reshape(bits.shape)


mistake("widen", "you read the bits as float16, which has five bits of exponent; bfloat16 has eight.")(
    lambda bits: bits.view(np.float16).astype(np.float32))
mistake("widen", "you took the bits for whole numbers; they are the bits of a float32's upper half (view, not astype).")(
    lambda bits: bits.astype(np.float32))
mistake("widen", "after the shift you converted the whole number; .view(np.float32) takes its bits as they are.")(
    lambda bits: (bits.astype(np.uint32) << 16).astype(np.float32))
mistake("widen", "you shifted 16 bits out of a uint16, and all were lost: make it uint32 first.")(
    lambda bits: (bits << 16).astype(np.uint32).view(np.float32))
mistake("widen", "the bits are in the lower half, where a float32 has the end of its mantissa: shift them up by 16.")(
    lambda bits: bits.astype(np.uint32).view(np.float32))
mistake("widen", "you shifted by 8 bits; the upper half begins at bit 16.")(
    lambda bits: (bits.astype(np.uint32) << 8).view(np.float32))
mistake("widen", "you filled the lower half with the same bits again; it is zero.")(
    lambda bits: (bits.astype(np.uint32) << 16 | bits).view(np.float32))


@exercise("12", "A row is 4 bytes times the columns; begin at start, plus the tensor's offset, plus first rows.", [
    (*FILES[0], "b", 1, 3), (*FILES[0], "a", 0, 3), (*FILES[0], "b", 4, 5), (*FILES[1], "w", 1, 2),
    (*FILES[2], "layer.7", 2, 4), (*FILES[2], "layer.0", 1, 2)], tolerance=0)
def read_rows(data, header, start, name, first, last):
    rows, columns = header[name]["shape"]
    begin, end = header[name]["data_offsets"]
    every = np.frombuffer(data[start:][begin:end], "<f4")
    return np.array([every[i * columns:(i + 1) * columns] for i in range(first, last)], np.float32)


def rows_at(data, begin, columns, first, last, dtype=np.float32):
    return np.frombuffer(data[begin:begin + (last - first) * columns * np.dtype(dtype).itemsize], dtype).reshape(-1, columns)


def place(header, name):
    return header[name]["shape"][1], header[name]["data_offsets"][0]


mistake("read_rows", "you forgot start: the offsets count from the end of the header, not from the file's first byte.")(
    lambda data, h, start, name, i, j: rows_at(data, place(h, name)[1] + 4 * place(h, name)[0] * i, place(h, name)[0], i, j))
mistake("read_rows", "you forgot the tensor's own offset (data_offsets): that is the first tensor of the file.")(
    lambda data, h, start, name, i, j: rows_at(data, start + 4 * place(h, name)[0] * i, place(h, name)[0], i, j))
mistake("read_rows", "you began at the tensor's first row; first rows of 4 * columns bytes come before yours.")(
    lambda data, h, start, name, i, j: rows_at(data, start + place(h, name)[1], place(h, name)[0], i, j))
mistake("read_rows", "you skipped first numbers, or bytes times 4, not first rows: a row has 4 * columns bytes.")(
    lambda data, h, start, name, i, j: rows_at(data, start + place(h, name)[1] + 4 * i, place(h, name)[0], i, j))
mistake("read_rows", "you skipped columns bytes for each row; a number has 4 bytes, so a row has 4 * columns.")(
    lambda data, h, start, name, i, j: rows_at(data, start + place(h, name)[1] + i * place(h, name)[0],
                                               place(h, name)[0], i, j))
mistake("read_rows", "that is the whole tensor; only the rows from first up to last are asked for.")(
    lambda data, h, start, name, i, j: read_rows(data, h, start, name, 0, h[name]["shape"][0]))
mistake("read_rows", "last itself is not included: there are last - first rows.")(
    lambda data, h, start, name, i, j: read_rows(data, h, start, name, i, min(j + 1, h[name]["shape"][0])))
mistake("read_rows", "those are columns of the tensor; the first index of its shape counts rows.")(
    lambda data, h, start, name, i, j: read_rows(data, h, start, name, 0, h[name]["shape"][0])[:, i:j])


def bits32(*x):
    return np.array(x, np.uint32).view(np.float32)


@exercise("12", "Round the 32 bits to the upper 16: to the nearest, and a tie to the one whose last bit is 0.", [
    (random(4, 5),), (bits32(0x3F808000, 0x3F818000, 0x3F828000, 0xBF838000),), (bits32(0x3F80FFFF, 0x3F807FFF, 0x3FFFFFFF),),
    (bits32(0, 0x80000000, 0x7F800000, 0xFF800000),), (bits32(0x3F808001, 0xC0008000),),
    (random(2, 3, 4, seed=3, scale=1e-20),)], tolerance=0)
def to_bfloat16(x):
    bits = []
    for number in x.ravel().view(np.uint32).tolist():
        upper, lower = divmod(number, 2**16)
        bits.append(upper + (lower > 2**15 or lower == 2**15 and upper % 2 == 1))
    return np.array(bits, np.uint16).reshape(x.shape)


def rounded_up(x, add):
    return (x.view(np.uint32) + np.uint32(add) >> 16).astype(np.uint16)


mistake("to_bfloat16", "you cut the lower half off: that rounds towards zero, not to the nearest.")(
    lambda x: rounded_up(x, 0))
mistake("to_bfloat16", "nearly: a tie goes up, even if the upper half was even. Add 0x7FFF, and 1 only if it is odd.")(
    lambda x: rounded_up(x, 0x8000))
mistake("to_bfloat16", "nearly: a tie always goes down; it goes up if the upper half is odd.")(
    lambda x: rounded_up(x, 0x7FFF))
mistake("to_bfloat16", "a tie goes to the odd side; it goes to the even one (add 1 if the upper half is odd).")(
    lambda x: ((x.view(np.uint32) + 0x8000 - (x.view(np.uint32) >> 16 & 1)) >> 16).astype(np.uint16))
mistake("to_bfloat16", "those are the bits of float16, which has another exponent.")(
    lambda x: x.astype(np.float16).view(np.uint16))
mistake("to_bfloat16", "that is the lower half, the end of the mantissa; the upper half is wanted.")(
    lambda x: x.view(np.uint32).astype(np.uint16))
mistake("to_bfloat16", "you converted the number to an integer; .view(np.uint32) takes its bits as they are.")(
    lambda x: x.astype(np.int64).astype(np.uint16))
mistake("to_bfloat16", "those are the numbers, rounded; what is asked for are their 16 bits, as uint16.")(
    lambda x: (to_bfloat16(x).astype(np.uint32) << 16).view(np.float32))


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
