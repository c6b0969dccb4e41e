"""Which tensor of your Llama goes wrong first, and why.

Compares a dump (.safetensors or .npz, any subset of the trace names) with the right values, names the first tensor
that differs, and looks in the bug zoo (bugs.py) for the mistake that reproduces it. Nothing is unpickled.
"""
import argparse
import json
import math
import re
import sys
import textwrap
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import bugs  # noqa: E402
import numpy_llama as nl  # noqa: E402
from bugs import names_of  # noqa: E402
from dumps import Tensor, from_interleaved, open_dump, read_dump, shorten  # noqa: E402
from numpy_llama import InputError  # noqa: E402

REFERENCE = ROOT / "tests" / "reference"
MASKED = -1e4                   # a port's -1e9, -3.4e38 or -65504 means the same as -infinity: blocked by the mask

# How far a right dump may be from the reference. For every tensor, the rounding noise of this model on these tokens is
# measured: the distance between a run in float64 and one in which everything is rounded to the dump's type. A dump may
# be NOISE times as far, plus FLOOR of the tensor's size: another right program adds in another order, and rounds at
# other points. PyTorch in each type, and sums in plain order, used at most 0.4 of that (tests/reference/README.md).
NOISE = {"float64": 4, "float32": 8, "float16": 8, "bfloat16": 8}
FLOOR = {"float64": 1e-7, "float32": 1e-6, "float16": 2e-3, "bfloat16": 1.6e-2}
HOPELESS = 0.3
# Two dumps alone have no model to measure with: relative to each tensor's largest value.
ALONE = {"float64": 1e-6, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1.5e-1}


# ---- Precision -----------------------------------------------------------------------------------------------

def check_finite(tensors, path):
    """Raise InputError for NaN, and for infinities that no mask has put there."""
    for tensor in tensors:
        check_tensor(tensor.name, tensor.x, path)


def check_tensor(name, x, path):
    bad = ~np.isfinite(x)
    if name.endswith("attn.scores"):
        bad &= x != -np.inf
    if bad.any():
        where = ", ".join(map(str, np.argwhere(bad)[0]))
        kind = "NaN" if np.isnan(x).any() else "infinite"
        hint = " (a row of scores that are all -infinity becomes NaN in softmax)" if name.endswith("probs") else ""
        raise InputError(f"{path}: {name} is {kind} at [{where}], the first tensor in order of computation that is"
                         f"{hint}")


def precision_of(arrays):
    """The coarsest precision that the numbers themselves show: float32 may hold float16 or bfloat16.

    arrays: {name: (dtype, array)}. Left out: the embedding, which is as coarse as the weights, and probabilities and
    scores, which may be 0 or 1 or blocked.
    """
    found = set()
    for name, (dtype, x) in arrays.items():
        if dtype in ("float16", "bfloat16"):
            found.add(dtype)
        elif name == "embedding" or name.endswith(("scores", "probs")) or np.count_nonzero(x) < 16:
            found.add(dtype)
        else:
            def fits(grid):
                return np.array_equal(x.astype(bugs.PRECISIONS[grid] or grid).astype(x.dtype), x)

            with np.errstate(over="ignore"):
                found.add(next(filter(fits, reversed(NOISE))))
    return coarsest(found)


def coarsest(precisions):
    return max(precisions, key=list(NOISE).index)

# ---- Differences ---------------------------------------------------------------------------------------------

def difference(x, right):
    """x - right in float64; 0 where a mask blocks both, infinite where it blocks one of them."""
    x, right = x.astype(np.float64), right.astype(np.float64)
    if x.min() > MASKED and right.min() > MASKED:
        return x - right
    blocked_x, blocked_right = x <= MASKED, right <= MASKED
    with np.errstate(invalid="ignore"):
        d = np.where(blocked_x | blocked_right, 0, x - right)
    return np.where(blocked_x != blocked_right, np.inf, d)


def largest(x):
    return float(np.max(np.abs(x)))


def rms(x):
    return math.sqrt(np.vdot(x, x) / x.size)


def unmasked(x):
    return np.where(x <= MASKED, 0, x).astype(np.float64)


def cosine(x, right):
    a, b = unmasked(x).ravel(), unmasked(right).ravel()
    norms = math.sqrt(a @ a) * math.sqrt(b @ b)
    return float(a @ b / norms) if norms else float(not (a.any() or b.any()))


class Candidate:
    """What the dump may be: the right run, or the run with one bug. Computed when asked for, as far as needed."""

    def __init__(self, run, bug, precision, trace=None):
        self.run, self.bug, self.precision = run, bug, precision
        self.given = trace or {}                          # float32 values from elsewhere, which take precedence
        self.rounded_as = "float32" if precision == "float64" else precision
        self.traces, self.limits = {}, {}

    @cached_property
    def applies(self):
        return self.bug is None or self.bug.apply(self.run) is not None

    def compute_all(self):
        self.traces = {precision: bugs.compute(self.run, self.bug, precision) for precision in
                       {"float64", self.rounded_as}}

    def value(self, precision, name):
        """Asked for the first time, it runs as far as this tensor, and keeps no other: most bugs are asked once."""
        if precision not in self.traces:
            self.traces[precision] = {name: bugs.compute(self.run, self.bug, precision, until=name)[name]}
        elif name not in self.traces[precision]:
            self.traces[precision] = bugs.compute(self.run, self.bug, precision)
        return self.traces[precision][name]

    def exact(self, name):
        return self.value("float64", name)

    def expected(self, name):
        """What a dump is compared with."""
        if self.precision == "float32":
            return self.given[name] if name in self.given else self.value("float32", name)
        return self.exact(name)

    def allowed(self, name):
        """(largest, root-mean-square) difference that is rounding."""
        if name not in self.limits:
            right, factor, floor = self.exact(name), NOISE[self.precision], FLOOR[self.precision]
            noise, size = difference(self.value(self.rounded_as, name), right), unmasked(right)
            self.limits[name] = tuple(factor * f(noise) + floor * f(size) for f in (largest, rms))
        return self.limits[name]

    def agrees(self, tensor):
        """Is this tensor of the dump what the candidate gives? In its layout, or in Meta's order."""
        name = tensor.name
        like = self.expected(name)
        for _, x in tensor.readings(like.shape):
            right = like[..., -x.shape[-2]:, :]
            for x in [x, from_interleaved(x)] if tensor.interleaved else [x]:
                d = difference(x, right)
                if not rms(d) <= HOPELESS * rms(unmasked(right)):
                    continue                              # no rounding is that large: spares the run in float64
                limits = self.allowed(name)
                if largest(d) <= limits[0] and rms(d) <= limits[1]:
                    return True
        return False

    def distance(self, tensor, exact=True):
        """Root-mean-square distance, by default from the run in float64; infinite if the shapes do not fit."""
        like, best = (self.exact if exact else self.expected)(tensor.name), math.inf
        for _, x in tensor.readings(like.shape):
            right = like[..., -x.shape[-2]:, :]
            for x in [x, from_interleaved(x)] if tensor.interleaved else [x]:
                best = min(best, rms(difference(x, right)))
        return best


@dataclass
class Row:
    """A line of the table."""
    name: str
    theirs: str
    shape: tuple
    verdict: str                                          # ok, differs, shape
    remark: str = ""
    largest: float = None
    rms: float = None
    cosine: float = None
    allowed: float = None
    where: dict = None


def compare(tensors, right, tokens=None, start=0):
    """Rows for every tensor of the dump, in order of computation. `right` is a Candidate, or has its methods."""
    rows, orders = [], {}
    for tensor in tensors:
        like = right.expected(tensor.name)
        readings = tensor.readings(like.shape)
        if not readings:
            rows.append(Row(tensor.name, tensor.theirs, tensor.x.shape, "shape",
                            f"shape {tensor.x.shape}, the reference has {like.shape}"))
            continue
        limit, rms_limit = right.allowed(tensor.name)
        layer = tensor.name.rsplit(".", 1)[0]
        options = []
        for remark, x in readings:
            reference = like[..., -x.shape[-2]:, :]
            options.append((remark, x, reference, difference(x, reference), "halves"))
            if tensor.may_be_interleaved and orders.get(layer) != "halves":
                y = from_interleaved(x)
                options.append((remark, y, reference, difference(y, reference), "Meta's order"))
        # In a layer whose queries are in Meta's order, the keys and the rotated ones must be too.
        mine = [o for o in options if o[4] == orders.get(layer)] or options
        remark, x, reference, d, order = min(mine, key=lambda o: rms(o[3]))
        ok = largest(d) <= limit and rms(d) <= rms_limit
        if tensor.may_be_interleaved:
            if ok:
                orders.setdefault(layer, order)
            elif order != "halves" and layer not in orders:       # not equal in either order: judge it as it comes
                remark, x, reference, d, order = min(options[::2], key=lambda o: rms(o[3]))
        remark = ", ".join(filter(None, (remark, order if order != "halves" else "")))
        where = None if ok else locate(x, reference, d, limit, tokens, start)
        rows.append(Row(tensor.name, tensor.theirs, tensor.x.shape, "ok" if ok else "differs", remark, largest(d),
                        rms(d), cosine(x, reference), limit, where))
    for tensor in tensors:
        tensor.interleaved = tensor.may_be_interleaved and orders.get(tensor.name.rsplit(".", 1)[0]) == "Meta's order"
    return rows


def locate(x, reference, d, limit, tokens, start):
    """Where a tensor differs first: the first position beyond the limit, there the largest difference."""
    per_position = np.abs(d).max(axis=-1)
    per_position = per_position.max(axis=0) if d.ndim == 3 else per_position
    beyond = per_position > limit
    row = int(np.argmax(beyond)) if beyond.any() else int(np.argmax(per_position))
    at = np.abs(d[..., row, :])
    *head, index = (int(i) for i in np.unravel_index(np.argmax(at), at.shape))
    end = len(tokens) if tokens is not None else start + d.shape[-2]
    position = end - d.shape[-2] + row
    spot = (*head, row, index)
    where = {"position": position, "token": int(tokens[position]) if tokens is not None else None,
             "head": head[0] if head else None, "index": index,
             "dump": float(x[spot]), "reference": float(reference[spot]),
             "positions_beyond": int(beyond.sum()), "positions": d.shape[-2]}
    if d.ndim == 3:
        where |= {"heads_beyond": int((np.abs(d).max(axis=(1, 2)) > limit).sum()), "heads": d.shape[0]}
    return where


# ---- Diagnosis -----------------------------------------------------------------------------------------------

def diagnose(tensors, rows, right, candidates):
    """Which bugs reproduce the first tensor that differs, best first.

    {"found": [[bugs that cannot be told apart], ...], "until": first tensor that the best does not explain,
     "float64": was it needed to tell them apart?, "earlier": a tensor before, where the best bug shows in float64 only,
     "closest": the bug that comes nearest, if none reproduces it}
    """
    names = names_of(right.run.config.n_layers)
    first = next(i for i, row in enumerate(rows) if row.verdict != "ok")
    before, rest = tensors[:first], tensors[first:]

    def could_change(c, name):
        return names.index(name) >= names.index(c.bug.first)

    suspects = [c for c in candidates if c.applies and could_change(c, rest[0].name)]
    if rows[first].verdict == "shape":                    # other tokens, or nothing we know
        suspects = [c for c in suspects if len(c.bug.apply(c.run).tokens) != len(c.run.tokens)]
    matching = [c for c in suspects if c.agrees(rest[0])]
    result = {"found": [], "until": None, "float64": False, "earlier": None, "closest": None}
    if not matching:
        near = min(suspects, key=lambda c: c.distance(rest[0], exact=False), default=None)
        if near and near.distance(rest[0], exact=False) < 0.5 * right.distance(rest[0], exact=False):
            result["closest"] = near.bug
        return result

    # How many tensors, from the first that differs on, each of them explains.
    reaches = {c: next((i for i, t in enumerate(rest) if not c.agrees(t)), len(rest)) for c in matching}
    best = max(reaches.values())
    explained = rest[:best]
    scale = np.array([max(right.allowed(t.name)[1], 1e-300) for t in explained])
    far = {c: np.array([c.distance(t) for t in explained]) / scale for c in matching if reaches[c] == best}
    ranked = sorted(far, key=lambda c: np.sum(far[c]))
    # Told apart in float64: some tensor of the dump is at least twice as near to the best candidate.
    same = [c for c in ranked if np.all(far[c] <= 2 * far[ranked[0]] + 1e-9)]
    others = sorted((c for c in matching if c not in same), key=lambda c: -reaches[c])
    top = ranked[0]
    return result | {
        "found": [[c.bug for c in same]] + [[c.bug] for c in others],
        "until": rest[best].name if best < len(rest) else None, "float64": len(far) > len(same),
        "earlier": next((t.name for t in before if could_change(top, t.name)
                         and top.distance(t) < 0.5 * right.distance(t)), None)}


def hidden(tensors, right, candidates):
    """A bug that rounding hides: (tensor, how many times nearer the dump is to it than to the right run, bugs).

    Compared in float64, where the right run and the bug differ, and the dump has only its own rounding.
    """
    names, found = names_of(right.run.config.n_layers), []
    for c in candidates:
        if not c.bug.subtle or not c.applies:
            continue
        tensor = next((t for t in tensors if names.index(t.name) >= names.index(c.bug.first)), None)
        if tensor is not None:
            wrong, good = c.distance(tensor), right.distance(tensor)
            if wrong < 0.5 * good:
                found.append((wrong, good, names.index(tensor.name), tensor, c))
    if not found:
        return None
    wrong, good, _, tensor, _ = min(found, key=lambda f: f[:3])
    same = [c.bug for w, _, _, t, c in sorted(found, key=lambda f: f[0]) if t is tensor and w < 2 * wrong]
    return tensor, good / max(wrong, 1e-300), same


# ---- Reports -------------------------------------------------------------------------------------------------

def number(x):
    return "" if x is None else f"{x:.2e}" if math.isfinite(x) else "mask"


def print_table(rows, extra=None):
    """One line per tensor, at most 100 characters."""
    heading = extra[0] if extra else "allowed"
    print(f"{'tensor':24} {'shape':16} {'largest':>8} {'rms':>8} {heading:>8} {'cosine':>10}  verdict")
    first = next((row for row in rows if row.verdict != "ok"), None)
    for row in rows:
        verdict = row.verdict if row.verdict == "ok" else ("FIRST TO DIFFER" if row is first else "differs")
        shape = "(" + ", ".join(map(str, row.shape)) + ")"
        value = extra[1][row.name] if extra else row.allowed
        print(f"{row.name:24} {shape:16} {number(row.largest):>8} {number(row.rms):>8} {number(value):>8} "
              f"{'' if row.cosine is None else f'{row.cosine:10.7f}':>10}  {verdict}")


def say(text, indent=""):
    print(textwrap.fill(text, 100, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False,
                        break_long_words=False))


def describe_remarks(rows):
    """Sentences on how the dump's names and shapes were read."""
    sentences = []
    renamed = [row for row in rows if row.theirs != row.name]
    if renamed:
        sentences.append(f"Read {len(renamed)} names of other code, such as {renamed[0].theirs} as {renamed[0].name}.")
    remarks = {}
    for row in rows:
        if row.verdict != "shape":
            for remark in filter(None, row.remark.split(", ")):
                remarks.setdefault(remark, []).append(row.name)
    for remark, names in remarks.items():
        which = names[0] if len(names) == 1 else f"{len(names)} tensors ({names[0]}, ...)"
        if remark == "Meta's order":
            sentences.append(f"In Meta's interleaved order, which is equivalent: {which}. Neighbours (x_2i, x_2i+1) "
                             "are rotated there, halves (x_i, x_i+d/2) here; scores are the same.")
        else:
            sentences.append(f"{remark[0].upper()}{remark[1:]}: {which}.")
    return sentences


def describe_first(row, last_ok):
    if row.verdict == "shape":
        return f"{row.name} is the first tensor that differs: {row.remark}."
    w = row.where
    token = "" if w["token"] is None else f" (token {w['token']})"
    head = "" if w["head"] is None else f", head {w['head']}"
    def value(v):
        return "blocked by the mask" if v <= MASKED else f"{v:.7g}"
    text = (f"{row.name} is the first tensor that differs. At position {w['position']}{token}{head}, index "
            f"{w['index']} it is {value(w['dump'])}; the reference is {value(w['reference'])}. Beyond rounding are "
            f"{w['positions_beyond']} of {w['positions']} positions")
    if w["head"] is not None:
        text += f" and {w['heads_beyond']} of {w['heads']} heads"
    return text + "." + (f" Everything before it in the dump agrees, up to {last_ok}." if last_ok else "")


def print_bugs(group, name):
    for bug in group:
        say(f"{name} equals what you get when {bug.what}.", "  ")
        for label, text in (("symptom", bug.symptom), ("fix", bug.fix)):
            print(textwrap.fill(text, 100, initial_indent=f"    {label + ':':9}", subsequent_indent=" " * 13))


def print_report(report, rows, diagnosis, secret, precision):
    print_table(rows)
    print()
    for sentence in report["remarks"]:
        say(sentence)
    wrong = [i for i, row in enumerate(rows) if row.verdict != "ok"]
    if not wrong:
        worst = max(rows, key=lambda row: row.largest / row.allowed if row.allowed else 0)
        say(f"All {len(rows)} tensors agree bit for bit." if worst.largest == 0 else
            f"All {len(rows)} tensors agree, within the rounding of {precision}; the farthest, {worst.name}, is at "
            f"{worst.largest / worst.allowed:.0%} of what is allowed.")
        return
    first = rows[wrong[0]]
    if secret:
        tensor, times, group = secret
        say(f"{tensor.name} differs by no more than rounding in {precision}. Compared in float64, it is {times:.1f} "
            "times nearer to a run with a bug than to the right one:")
        print_bugs(group, tensor.name)
        if len(group) > 1:
            say("These cannot be told apart here.")
        return
    earlier = diagnosis and diagnosis["earlier"]
    say(describe_first(first, rows[wrong[0] - 1].name if wrong[0] and not earlier else None))
    if earlier:
        say(f"Compared in float64, it begins with {earlier}: in float32 the difference is no more than rounding there.")
    if diagnosis is None:
        return
    print()
    if not diagnosis["found"]:
        say(f"No bug of the zoo reproduces {first.name}" + (
            f"; the closest is {diagnosis['closest'].name}: {diagnosis['closest'].what}."
            if diagnosis["closest"] else "."))
        for hint in report["hints"]:
            say(hint)
        return
    group, *others = diagnosis["found"]
    print("Diagnosis" if len(group) == 1 else f"Diagnosis: {len(group)} bugs that cannot be told apart with this dump")
    print_bugs(group, first.name)
    if diagnosis["until"]:
        say(f"This explains the dump up to {diagnosis['until']}: from there on, something else differs too. Fix this "
            "first and compare again.", "  ")
    elif len(rows) > wrong[0] + 1:
        say("It explains all that follows in the dump too.", "  ")
    if others:
        names = ", ".join(bug.name for g in others for bug in g)
        say(f"Less well, {'compared in float64: ' if diagnosis['float64'] else 'as later tensors differ: '}{names}.")


# ---- Command line --------------------------------------------------------------------------------------------

EXAMPLES = """\
examples:
  python tests/compare.py my.npz --prompt "Once upon a time"      my port's dump, of the model that ships
  python tests/compare.py my.safetensors --model Llama-2-7b-hf --tokens 1,9038,2501,263,931
  python tests/compare.py my.npz --reference gqa-float32/chunk    a case of tests/reference, with PyTorch's trace
  python tests/compare.py my.npz --tokens 1,5,9,7 --chunks 3,1    the dump is of the last token, after 3 cached ones
  python tests/compare.py one.npz other.safetensors               two dumps with each other, without a model
  python tests/compare.py --live weights/fairytales --prompt "Once upon a time"
                                                                  numpy_llama.py against PyTorch, everything
A dump holds any of the names that `python numpy_llama.py --trace FILE` writes (or transformers' module names), of one
sequence. tests/reference/README.md shows how to write one from C, Rust and JavaScript.
exit status: 0 all agree, 1 something differs, 2 bad input
"""


def parse(argv):
    def error(message):
        raise InputError(f"{message} (--help shows the options)")

    parser = argparse.ArgumentParser(
        prog="compare.py", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Which tensor of your Llama goes wrong first, and why.")
    parser.error, add = error, parser.add_argument
    add("dump", nargs="?", metavar="DUMP", type=Path, help="your intermediate values: .safetensors or .npz")
    add("other", nargs="?", metavar="OTHER", type=Path, help="another dump to compare it with, instead of a model")
    add("--model", metavar="DIR", type=Path, help="the folder of weights you ran (default: weights/fairytales)")
    what = parser.add_mutually_exclusive_group().add_argument
    what("--prompt", metavar="TEXT", help='what you ran it on (default: "Once upon a time")')
    what("--tokens", metavar="IDS", help="the same as token ids: 1,2,3")
    what("--reference", metavar="CASE", help="a case of tests/reference, such as gqa-float32/prompt")
    add("--chunks", metavar="SIZES", help="how the tokens went through the cache, 8,1,1; the dump is of the last chunk")
    add("--dtype", choices=list(NOISE), help="the precision to judge by (default: seen from the numbers)")
    add("--live", metavar="DIR", type=Path, help="compare numpy_llama.py with PyTorch on this model, everything")
    add("--json", action="store_true", help="for machines")
    args = parser.parse_args(argv)
    for wrong, message in (
        (args.dump is None and args.live is None, "a dump is missing"),
        (args.live and (args.dump or args.reference or args.model), "--live goes with --prompt or --tokens only"),
        (args.other and (args.model or args.prompt or args.tokens or args.reference or args.chunks),
         "two dumps are compared without a model"),
        (args.reference and (args.model or args.chunks), "--reference brings its own model and chunks"),
    ):
        if wrong:
            error(message)
    return args


def integers(text, what):
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{what} must be integers with commas between, not {shorten(text)}") from None


def make_run(args):
    """(Run, PyTorch's trace or None, how to call the reference)"""
    if args.reference:
        return reference_case(args.reference)
    folder = args.live or args.model or ROOT / "weights" / "fairytales"
    weights, config = nl.load(folder)
    text, tokenizer = None, folder / "tokenizer.model"
    if args.tokens:
        tokens = integers(args.tokens, "--tokens")
    else:
        text = "Once upon a time" if args.prompt is None else args.prompt
        tokens = tuple(nl.Tokenizer(tokenizer).encode(text))
    chunks = integers(args.chunks, "--chunks") if args.chunks else (len(tokens),)
    if sum(chunks) != len(tokens) or min(chunks) < 1:
        raise InputError(f"--chunks {args.chunks} must add up to {len(tokens)} tokens")
    run = bugs.Run(tokens, weights, config, chunks, text, tokenizer if text is not None else None)
    name = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    return run, None, f"numpy_llama.py on {name}"


def reference_case(name):
    """(Run, PyTorch's trace, how to call it) of a case in tests/reference."""
    cases = {name: case for file in sorted(REFERENCE.glob("cases*.json"))
             for name, case in json.loads(file.read_text())["cases"].items()}
    if name not in cases:
        raise InputError(f"there is no case {shorten(name)}; there are {', '.join(cases)}")
    case = cases[name]
    weights, config = nl.load(REFERENCE / case["checkpoint"])
    from safetensors.numpy import load_file
    trace = load_file(REFERENCE / case["trace"])
    return bugs.Run(tuple(case["tokens"]), weights, config, tuple(case["chunks"])), trace, f"PyTorch's trace of {name}"


def check_shapes(rows, path):
    """A dump of which nothing fits is of another model, or of another prompt: bad input."""
    if all(row.verdict == "shape" for row in rows):
        raise InputError(f"{path}: no tensor has the shape it should have; {rows[0].name}: {rows[0].remark}")


class Dump:
    """Another dump in the place of the right run."""

    def __init__(self, tensors, precision):
        self.tensors, self.precision = {tensor.name: tensor for tensor in tensors}, precision

    def expected(self, name):
        return self.tensors[name].x

    def allowed(self, name):
        size = unmasked(self.expected(name))
        return ALONE[self.precision] * largest(size), ALONE[self.precision] * rms(size)


def plain(tensor):
    """A tensor's numbers in two or three axes, without a batch axis."""
    x, per_head = tensor.x, ".attn." in tensor.name and not tensor.name.endswith("out")
    if x.ndim == 1:
        return x[None]
    return x[0] if x.ndim > 2 and x.shape[0] == 1 and (x.ndim > 3 or not per_head) else x


def run_two_dumps(args):
    mine, theirs = open_dump(args.dump), open_dump(args.other)
    depth = max((int(n) for e in mine + theirs for n in re.findall(r"layers\.(\d{1,4})(?!\d)", e.name)), default=0)
    known = names_of(depth + 1)
    room = lambda name: 2 ** 28  # noqa: E731             1 GiB in float32 for a single tensor
    tensors, others = read_dump(args.dump, known, room), read_dump(args.other, known, room)
    check_finite(tensors, args.dump)
    check_finite(others, args.other)
    common = {t.name for t in tensors} & {t.name for t in others}
    if not common:
        raise InputError(f"{args.dump} and {args.other} have no tensor in common")
    tensors, others = ([t for t in ts if t.name in common] for ts in (tensors, others))
    for tensor in tensors + others:
        tensor.x = plain(tensor)
    for tensor, other in zip(tensors, others):            # whichever way one can be read as the other
        if not tensor.readings(other.x.shape):
            other.x = next((x for _, x in other.readings(tensor.x.shape)), other.x)
    precision = args.dtype or coarsest(precision_of({t.name: (t.dtype, t.x) for t in ts}) for ts in (tensors, others))
    rows = compare(tensors, Dump(others, precision))
    check_shapes(rows, args.dump)
    return rows, None, None, precision, f"{args.other} (no model: every difference up to {ALONE[precision]:g} of the " \
        "tensor's largest value is taken for rounding)", []


def run_dump(args):
    run, trace, label = make_run(args)
    config, tokens = run.config, run.tokens
    T, S = run.chunks[-1], len(tokens)
    known = names_of(config.n_layers)
    widest = max(config.dim, config.hidden_dim, config.vocab_size, config.n_heads * max(config.head_dim, S))
    tensors = read_dump(args.dump, known, lambda name: 2 * (S + 1) * widest, S)
    check_finite(tensors, args.dump)
    precision = args.dtype or precision_of({t.name: (t.dtype, t.x) for t in tensors})
    right = Candidate(run, None, precision, trace)
    right.compute_all()
    rows = compare(tensors, right, tokens, S - T)
    candidates = [Candidate(run, bug, precision) for bug in bugs.BUGS]
    diagnosis = secret = None
    hints = []
    if any(row.verdict != "ok" for row in rows):
        diagnosis = diagnose(tensors, rows, right, candidates)
        if not diagnosis["found"]:
            check_shapes(rows, args.dump)
            hints = coarser(tensors, run, precision)
            if not hints and next(row.name for row in rows if row.verdict != "ok") == "embedding":
                hints = ["The embedding is only looked up: the dump is of other weights, or of other tokens."]
    else:
        secret = hidden(tensors, right, candidates)
        if secret:
            next(row for row in rows if row.name == secret[0].name).verdict = "differs"
    return rows, diagnosis, secret, precision, label, hints


def coarser(tensors, run, precision):
    """A hint if the dump is what a coarser computation gives."""
    order = list(NOISE)
    for coarse in order[order.index(precision) + 1:]:
        right = Candidate(run, None, coarse)
        right.compute_all()
        if all(row.verdict == "ok" for row in compare(tensors, right)):
            return [f"But all of it is within the rounding of {coarse}: some of your port computes in lower precision "
                    f"(float16, bfloat16, TF32). If that is meant, use --dtype {coarse}."]
    return []


def run_live(args):
    """numpy_llama.py against transformers: every tensor, next to PyTorch's own distance from float64."""
    try:
        import torch
        import transformers
        from oracle import double, torch_trace
    except ImportError as error:
        raise InputError(f"--live needs PyTorch and transformers ({error}): "
                         "pip install -r tests/requirements.txt") from None
    run, _, _ = make_run(args)
    if not (args.live / "config.json").exists():
        raise InputError(f"{args.live}: transformers reads Hugging Face's layout only, with a config.json")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.live, dtype=torch.float32, attn_implementation="eager").eval()
    theirs, exact = (torch_trace(m, np.array(run.tokens)) for m in (model, double(model)))
    ours = bugs.compute(run)
    tensors = [Tensor(name, name, "float32", x) for name, x in ours.items()]
    right = Candidate(run, None, "float32", theirs)
    rows = compare(tensors, right, run.tokens)
    from_exact = {name: largest(difference(theirs[name], exact[name])) for name in theirs}
    return rows, from_exact


def main(argv=None):
    """Run the command line and return its exit status: 0 all agree, 1 something differs, 2 bad input."""
    try:
        args = parse(argv)
        if args.live:
            return show_live(args)
        with np.errstate(all="ignore"):                   # some bugs overflow
            rows, diagnosis, secret, precision, label, hints = (run_two_dumps if args.other else run_dump)(args)
        status = int(any(row.verdict != "ok" for row in rows))
        report = {"dump": str(args.dump), "reference": label, "precision": precision, "agrees": not status,
                  "remarks": describe_remarks(rows), "hints": hints}
        if args.json:
            print(json.dumps(report | as_json(rows, diagnosis, secret), indent=1))
        else:
            say(f"{args.dump} against {label}, judged as {precision}")
            print()
            print_report(report, rows, diagnosis, secret, precision)
        return status
    except (InputError, MemoryError) as error:
        print(f"error: {' '.join(str(error).split()) or 'not enough memory'}", file=sys.stderr)
        return 2


def as_json(rows, diagnosis, secret):
    def finite(value):
        if isinstance(value, dict):
            return {key: finite(v) for key, v in value.items()}
        return value if not isinstance(value, float) or math.isfinite(value) else None

    def names(group):
        return [{"name": bug.name, "what": bug.what, "symptom": bug.symptom, "fix": bug.fix} for bug in group]

    first = next((row.name for row in rows if row.verdict != "ok"), None)
    first = diagnosis and diagnosis["earlier"] or first
    found, in_float64, until = [], False, None
    if secret:
        found, in_float64 = names(secret[2]), True
    elif diagnosis and diagnosis["found"]:
        found, until = names(diagnosis["found"][0]), diagnosis["until"]
        in_float64 = diagnosis["float64"] or bool(diagnosis["earlier"])
    return {"first": first, "diagnosis": found, "explained_until": until, "compared_in_float64": in_float64,
            "tensors": [{key: finite(value) for key, value in asdict(row).items()} for row in rows]}


def show_live(args):
    rows, from_exact = run_live(args)
    status = int(any(row.verdict != "ok" for row in rows))
    if args.json:
        exact = [{"pytorch_to_float64": from_exact[row.name]} for row in rows]
        body = as_json(rows, None, None)
        body["tensors"] = [row | more for row, more in zip(body["tensors"], exact)]
        print(json.dumps({"live": str(args.live), "agrees": not status} | body, indent=1))
        return status
    print(f"numpy_llama.py against PyTorch, both in float32, on {args.live}")
    print("pytorch: how far PyTorch in float32 is from PyTorch in float64 (largest difference)\n")
    print_table(rows, ("pytorch", from_exact))
    print()
    wrong = [row for row in rows if row.verdict != "ok"]
    if wrong:
        say(describe_first(wrong[0], None))
    else:
        worst = max(rows, key=lambda row: row.largest)
        ratio = np.median([row.largest / from_exact[row.name] for row in rows if from_exact[row.name]])
        say(f"All {len(rows)} tensors agree. The largest difference is {worst.largest:.1e}, in {worst.name}, where "
            f"PyTorch itself is {from_exact[worst.name]:.1e} from float64. In the median, the two are {ratio:.1f} "
            "times as far apart as PyTorch is from float64.")
    return status


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")              # whatever the locale says
    bugs.start(main)
