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
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import bugs  # noqa: E402
import functions  # noqa: E402
import large_models  # noqa: E402
from bugs import names_of  # noqa: E402
from dumps import Tensor, is_of_last_position, open_dump, own_ids, read_dump, room_for, shorten, without_padding  # noqa: E402
from explain import OPERATIONS, Diagnosis, between, diagnose, hidden, local_name  # noqa: E402
from judge import (  # noqa: E402
    ALONE,
    MASKED,
    META,
    NOISE,
    Candidate,
    coarsest,
    compare,
    difference,
    largest,
    not_finite,
    rms,
    set_precisions,
    unmasked,
)

import numpy_llama as nl  # noqa: E402
from numpy_llama import InputError  # noqa: E402

REFERENCE = ROOT / "tests" / "reference"


# ---- Reports -------------------------------------------------------------------------------------------------

@dataclass
class Report:
    """All that is said about a dump; text and JSON are written from it."""
    dump: str
    reference: str
    precision: str                                        # of most of its tensors
    rows: list
    notes: list                                           # how names and shapes were read, and what to know besides
    diagnosis: Diagnosis = None

    @property
    def agrees(self):
        return all(row.verdict in ("ok", "overwritten") for row in self.rows) and self.diagnosis is None

    @property
    def first(self):
        """The first tensor whose numbers differ."""
        if self.diagnosis:
            return self.diagnosis.first
        return next((row.name for row in self.rows if row.wrong), None)


def number(x):
    return "" if x is None else f"{x:.2e}" if math.isfinite(x) else "mask"


def print_table(report, extra=None):
    """One line per tensor, at most 100 characters."""
    heading = extra[0] if extra else "allowed"
    print(f"{'tensor':24} {'shape':16} {'largest':>8} {'rms':>8} {heading:>8} {'cosine':>10}  verdict")
    first = next((row for row in report.rows if row.wrong), None)
    for row in report.rows:
        verdict = "FIRST TO DIFFER" if row is first else row.verdict
        shape = "(" + ", ".join(map(str, row.shape)) + ")"
        value = extra[1][row.name] if extra else row.allowed
        print(f"{row.name:24} {shape:16} {number(row.largest):>8} {number(row.rms):>8} {number(value):>8} "
              f"{'' if row.cosine is None else f'{row.cosine:10.7f}':>10}  {verdict}")


def say(text, indent=""):
    print(textwrap.fill(text, 100, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False,
                        break_long_words=False))


def how_many(names):
    return names[0] if len(names) == 1 else f"{len(names)} tensors ({names[0]}, ...)"


def remarks_on(rows):
    """Sentences on how the dump's names, shapes and precisions were read."""
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
        if remark == META:
            sentences.append(f"In Meta's interleaved order, which is equivalent: {how_many(names)}. Neighbours (x_2i, "
                             "x_2i+1) are rotated there, halves (x_i, x_i+d/2) here; scores are the same.")
        else:
            sentences.append(f"{remark[0].upper()}{remark[1:]}: {how_many(names)}.")
    return sentences + overwritten_in(rows)


def overwritten_in(rows):
    found = {}
    for row in rows:
        if row.verdict == "overwritten":
            found.setdefault(row.where["by"], []).append(row.name)
    return [f"Overwritten in place by a later +=, so that nothing can be said of it: {how_many(names)}. It holds the "
            f"numbers of {by}: copy before you keep it." for by, names in found.items()]


def precisions_in(rows, most):
    """Which tensors are judged by another precision than most are, and where it gets coarser."""
    others, sentences = {}, []
    for row in rows:
        if row.precision not in (None, most):
            others.setdefault(row.precision, []).append(row.name)
    for precision, names in others.items():
        sentences.append(f"Judged as {precision}, because its numbers or those before it are {precision}: "
                         f"{how_many(names)}.")
    judged = [row for row in rows if row.precision and row.verdict != "shape"]
    for last, row in zip(judged, judged[1:]):
        if last.precision == "float32" and row.precision in ("float16", "bfloat16"):
            sentences.append(f"{row.name} is the first that is no more than {row.precision}; {last.name}, before it, "
                             f"is float32: {OPERATIONS[local_name(row.name)]} is computed or kept in {row.precision}.")
            break
    return sentences


def describe_first(row, last_ok):
    w = row.where
    token = "" if w["token"] is None else f" (token {w['token']})"
    head = "" if w["head"] is None else f", head {w['head']}"

    def value(v):
        return "blocked by the mask" if v <= MASKED else f"{v:.7g}"

    def beyond(what, names):
        count, all_of = w[f"{what}_beyond"], w[what]
        which = "" if count in (0, all_of) else f" ({w['which'][what]})"
        return f"{count} of {all_of} {names}{which}"

    parts = [beyond("positions", "positions")]
    if w["head"] is not None:
        parts.append(beyond("heads", "heads"))
    if 0 < w["indices_beyond"] < w["indices"]:
        parts.append(beyond("indices", "keys" if row.name.endswith(("scores", "probs")) else "indices"))
    several = ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
    return (f"{row.name} is the first tensor that differs. At position {w['position']}{token}{head}, index "
            f"{w['index']} it is {value(w['dump'])}; the reference is {value(w['reference'])}. Beyond rounding are "
            f"{several}." + (f" Everything before it in the dump agrees, up to {last_ok}." if last_ok else ""))


def print_cause(cause, first):
    say(f"{first} equals what you get when {cause.what}." if cause.name else f"{cause.what}.", "  ")
    for label, text in (("symptom", cause.symptom), ("fix" if cause.name else "look", cause.fix)):
        if text:
            print(textwrap.fill(text, 100, initial_indent=f"    {label + ':':9}", subsequent_indent=" " * 13))


def print_report(report):
    print_table(report)
    print()
    for note in report.notes:
        say(note)
    rows, diagnosis = report.rows, report.diagnosis
    first = next((row for row in rows if row.wrong), None)
    if diagnosis and diagnosis.times_nearer:
        say(f"{diagnosis.first} differs by no more than rounding in {report.precision}. Compared in float64, it is "
            f"{diagnosis.times_nearer:.1f} times nearer to a run with a bug than to the right one:")
        for cause in diagnosis.found:
            print_cause(cause, diagnosis.first)
        if len(diagnosis.found) > 1:
            say("These cannot be told apart here.")
        return
    if first:
        earlier = diagnosis is not None and diagnosis.first != first.name
        last_ok = next((row.name for row in reversed(rows[:rows.index(first)]) if row.verdict == "ok"), None)
        say(describe_first(first, None if earlier else last_ok))
        if earlier:
            say(f"Compared in float64, it begins with {diagnosis.first}: in {report.precision} the difference is no "
                "more than rounding there.")
    else:
        print_agreement(rows, report.precision)
    if diagnosis:
        print()
        print_diagnosis(report, first)


def print_agreement(rows, precision):
    agreeing = [row for row in rows if row.verdict == "ok"]
    shapes = [row for row in rows if row.verdict == "shape"]
    all_of = f"All {len(agreeing)} {'other ' if len(agreeing) < len(rows) else ''}tensors"
    if agreeing:
        worst = max(agreeing, key=lambda row: row.largest / row.allowed if row.allowed else 0)
        say(f"{all_of} agree bit for bit." if worst.largest == 0 else
            f"{all_of} agree, within the rounding of {precision}; the farthest, {worst.name}, is at "
            f"{worst.largest / worst.allowed:.0%} of what is allowed.")
    if shapes:
        say(f"Not compared, because of another shape: {how_many([row.name for row in shapes])}; {shapes[0].name} has "
            f"{shapes[0].remark}.")


def print_diagnosis(report, first):
    diagnosis, rows = report.diagnosis, report.rows
    name = first.name if first else diagnosis.first
    if diagnosis.explanations:
        print("No bug of the zoo gives these numbers, but")
        for cause in diagnosis.explanations:
            print_cause(cause, name)
        return
    if not diagnosis.found:
        closest = diagnosis.closest
        say(f"No bug of the zoo reproduces {name}" + (f"; the closest is {closest.name}: {closest.what}." if closest
                                                      else "."))
        return
    count = len(diagnosis.found)
    print("Diagnosis" if count == 1 else f"Diagnosis: {count} bugs that cannot be told apart with this dump")
    for cause in diagnosis.found:
        print_cause(cause, name)
    if diagnosis.contradicted_by:
        say(f"But this would have changed {diagnosis.contradicted_by} too, which is right: it happens here only, or it "
            "is something else that gives the same numbers.", "  ")
    elif diagnosis.until:
        say(f"This explains the dump up to {diagnosis.until}: from there on, something else differs too. Fix this "
            "first and compare again.", "  ")
    elif first and rows[-1] is not first:
        say("It explains all that follows in the dump too.", "  ")


def as_json(report):
    """The report as a dict for JSON, in which a number that is not finite is null."""
    def finite(value):
        if isinstance(value, dict):
            return {key: finite(v) for key, v in value.items()}
        if isinstance(value, list):
            return [finite(v) for v in value]
        return value if not isinstance(value, float) or math.isfinite(value) else None

    d = report.diagnosis or Diagnosis(None)
    return finite({
        "dump": report.dump, "reference": report.reference, "precision": report.precision, "agrees": report.agrees,
        "notes": report.notes, "first": report.first, "diagnosis": [asdict(cause) for cause in d.found],
        "explanations": [asdict(cause) for cause in d.explanations], "explained_until": d.until,
        "contradicted_by": d.contradicted_by, "compared_in_float64": d.in_float64, "times_nearer": d.times_nearer,
        "closest": d.closest and d.closest.name, "tensors": [asdict(row) for row in report.rows]})


# ---- Judging -------------------------------------------------------------------------------------------------

def judge(run, trace, tensors, label, precision=None, zoo=bugs.BUGS, notes=()):
    """The Report on the tensors of a dump. `trace`: right values in float32 from elsewhere, or None."""
    most = set_precisions(tensors, precision)
    right = Candidate(run, None, trace)
    right.compute_all({"float64", "float32"} | {tensor.precision for tensor in tensors})
    rows = compare(tensors, right, run.tokens, len(run.tokens) - run.chunks[-1])
    candidates = [Candidate(run, bug) for bug in zoo]
    report = Report("", label, most, rows, [*notes, *remarks_on(rows), *precisions_in(rows, most), *outer(tensors)])
    if any(row.wrong for row in rows) or all(row.verdict == "shape" for row in rows):
        report.diagnosis = diagnose(tensors, rows, right, candidates)
    elif not any(row.verdict == "shape" for row in rows):
        report.diagnosis = hidden(tensors, right, candidates, precision or most)
        if report.diagnosis:
            next(row for row in rows if row.name == report.diagnosis.first).verdict = "differs"
    return report


def outer(tensors):
    """Sentences on names that stand for one tensor but hold other numbers: something is done after it."""
    return [between(tensor, other) for tensor in tensors for other in getattr(tensor, "outer", ())]


# ---- Command line --------------------------------------------------------------------------------------------

EXAMPLES = """\
examples:
  python tests/compare.py my.npz --prompt "Once upon a time"      my port's dump, of the model that ships
  python tests/compare.py my.safetensors --model Llama-2-7b-hf --tokens 1,9038,2501,263,931
  python tests/compare.py my.npz --reference gqa-float32/chunk    a case of tests/reference, with PyTorch's trace
  python tests/compare.py my.npz --tokens 1,5,9,7 --chunks 3,1    the dump is of the last token, after 3 cached ones
  python tests/compare.py my.safetensors --function rope          one function of a port that runs no model yet
  python tests/compare.py one.npz other.safetensors               two dumps with each other, without a model
  python tests/compare.py --live weights/fairytales --prompt "Once upon a time"
                                                                  numpy_llama.py against PyTorch, everything
A dump holds any of the names that `python numpy_llama.py --trace FILE` writes, or those of transformers, Meta's code,
llama.cpp and others, of one sequence. tests/reference/README.md shows how to write one, from C to llama.cpp.
exit status: 0 all agree, 1 something differs, 2 no verdict
"""


def parse(argv):
    def error(message):
        raise InputError(f"{message} (--help shows the options)")

    parser = argparse.ArgumentParser(
        prog="compare.py", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Which tensor of your Llama goes wrong first, and why.")
    parser.error, add = error, parser.add_argument
    add("dump", nargs="?", metavar="DUMP", type=Path,
        help="your intermediate values: .safetensors, .npz, .npy, .pt, llama.cpp's log, or a folder of them")
    add("other", nargs="?", metavar="OTHER", type=Path, help="another dump to compare it with, instead of a model")
    add("--model", metavar="DIR", type=Path, help="the folder of weights you ran (default: weights/fairytales)")
    what = parser.add_mutually_exclusive_group().add_argument
    what("--prompt", metavar="TEXT", help='what you ran it on (default: "Once upon a time")')
    what("--tokens", metavar="IDS", help="the same as token ids: 1,2,3")
    what("--reference", metavar="CASE", help="a case of tests/reference, such as gqa-float32/prompt")
    what("--function", metavar="NAME", help=f"the dump is of one function: {', '.join(functions.OUTPUTS)}")
    add("--chunks", metavar="SIZES", help="how the tokens went through the cache, 8,1,1; the dump is of the last chunk")
    add("--dtype", choices=list(NOISE), help="the precision to judge by (default: seen from the numbers)")
    add("--live", metavar="DIR", type=Path, help="compare numpy_llama.py with PyTorch on this model, everything")
    add("--json", action="store_true", help="for machines")
    args = parser.parse_args(argv)
    for wrong, message in (
        (args.dump is None and args.live is None, "a dump is missing"),
        (args.live and (args.dump or args.reference or args.model or args.function),
         "--live goes with --prompt or --tokens only"),
        (args.other and (args.model or args.prompt or args.tokens or args.reference or args.chunks or args.function),
         "two dumps are compared without a model"),
        (args.function and (args.model or args.chunks), "--function brings its own numbers"),
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
    weights, config = large_models.load(folder)
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

    def __init__(self, tensors):
        self.tensors = {tensor.name: tensor for tensor in tensors}

    def expected(self, tensor):
        return self.tensors[tensor.name].x

    def allowed(self, tensor):
        size = unmasked(self.expected(tensor))
        return ALONE[tensor.precision] * largest(size), ALONE[tensor.precision] * rms(size)


def plain(tensor):
    """A tensor's numbers in two or three axes, without a batch axis."""
    x, per_head = tensor.x, ".attn." in tensor.name and not tensor.name.endswith("out")
    if x.ndim == 1:
        return x[None]
    return x[0] if x.ndim > 2 and x.shape[0] == 1 and (x.ndim > 3 or not per_head) else x


def check_finite(tensors, path):
    """Raise InputError where the values to compare with are not finite."""
    for tensor in tensors:
        if not_finite(tensor.name, tensor.x).any():
            raise InputError(f"{path}: {tensor.name} holds NaN or infinity: nothing can be compared with it "
                             "(give the dump that is in doubt first)")


def run_two_dumps(args):
    mine, theirs = open_dump(args.dump), open_dump(args.other)
    depth = max((int(n) for e in mine + theirs for n in re.findall(r"layers\.(\d{1,4})(?!\d)", e.name)), default=0)
    known = names_of(depth + 1)
    room = lambda name: 2 ** 28  # noqa: E731             1 GiB in float32 for a single tensor
    (tensors, notes), (others, _) = read_dump(args.dump, known, room), read_dump(args.other, known, room)
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
    precision = coarsest([set_precisions(tensors, args.dtype), set_precisions(others, args.dtype)])
    for tensor, other in zip(tensors, others):
        tensor.precision = coarsest([tensor.precision, other.precision])
    rows = compare(tensors, Dump(others))
    check_shapes(rows, args.dump)
    label = f"{args.other} (no model: every difference up to {ALONE[precision]:g} of the tensor's largest value is " \
            "taken for rounding)"
    return Report(str(args.dump), label, precision, rows,
                  [*notes, *remarks_on(rows), *precisions_in(rows, precision), *outer(tensors)])


def as_its_own_ids_say(args, run):
    """(the run with the token ids that the dump holds, where nothing else was asked for, sentences on that)"""
    ids = own_ids(args.dump)
    if ids is None or ids == run.tokens[-len(ids):]:
        return run, []
    shown = shorten(",".join(map(str, ids)))
    free = not (args.reference or args.chunks)
    if free and args.prompt is None and args.tokens is None:
        return replace(run, tokens=ids, chunks=(len(ids),), text=None, tokenizer=None), \
            [f"The dump holds its own token ids, {shown}: compared with these."]
    if free and ids == run.tokens[:len(ids)]:
        return replace(run, tokens=ids, chunks=(len(ids),)), \
            [f"The dump's own token ids are the first {len(ids)}, {shown}: compared with these."]
    return run, [f"The dump's own token ids are {shown}, not those it is compared with "
                 f"({shorten(','.join(map(str, run.tokens)))}): --tokens takes them."]


def run_dump(args):
    run, trace, label = make_run(args)
    run, notes = as_its_own_ids_say(args, run)
    config = run.config
    S = len(run.tokens)
    known = names_of(config.n_layers)
    tensors, more = read_dump(args.dump, known, room_for(config, S), S, config)
    notes += more
    if len(run.chunks) == 1 and not args.reference and is_of_last_position(tensors, config, S, S):
        run = replace(run, chunks=(S - 1, 1))
        notes.insert(0, f"Its shapes are of one position: compared with the last token, as --chunks {S - 1},1 does.")
    report = judge(run, trace, tensors, label, args.dtype, notes=notes)
    if report.diagnosis and not report.diagnosis.found and all(row.verdict == "shape" for row in report.rows):
        seen, padding = without_padding(tensors, config, S)
        if padding:
            note = f"The dump has {padding} positions more than the {S} tokens: left out, as padding."
            report = judge(run, trace, seen, label, args.dtype, notes=[*notes, note])
        check_shapes(report.rows, args.dump)
    report.dump = str(args.dump)
    return report


def run_function(args):
    """The Report on one function: all cases that the dump holds, as one."""
    cases = functions.read_cases(args.function, REFERENCE / "functions")
    reports, label = [], f"PyTorch's outputs of {args.function}"
    for case, values in cases.items():
        values = functions.prepared(args.function, case, values)
        tensors = functions.tensors_of(args.function, case, values, args.dump)
        if tensors:
            run = functions.run_of(args.function, values)
            parts = {name: part for part, name in functions.OUTPUTS[args.function].items()}
            trace = {name: values[part].reshape(bugs.compute(run)[name].shape) for name, part in parts.items()}
            report = judge(run, trace, tensors, label, args.dtype, functions.zoo_of(args.function, case, values))
            check_shapes(report.rows, args.dump)
            reports.append(functions.under_case(report, case, parts))
    if not reports:
        raise InputError(f"{args.dump} holds no case of {args.function}: there are {', '.join(cases)}")
    rows = [row for report in reports for row in report.rows]
    notes = remarks_on(rows)
    if len(reports) < len(cases):
        notes.append(f"{len(cases) - len(reports)} of {len(cases)} cases are not in the dump.")
    precision = coarsest(report.precision for report in reports)
    diagnosis = functions.common_diagnosis([report for report in reports if not report.agrees])
    notes += functions.overflows(args.function, rows)
    return Report(str(args.dump), label, precision, rows, notes, diagnosis)


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
    rows = compare(tensors, Candidate(run, None, theirs), run.tokens)
    from_exact = {name: largest(difference(theirs[name], exact[name])) for name in theirs}
    return Report(str(args.live), "PyTorch", "float32", rows, []), from_exact


def main(argv=None):
    """Run the command line and return its exit status: 0 all agree, 1 something differs, 2 no verdict."""
    try:
        args = parse(argv)
        if args.live:
            return show_live(args)
        with np.errstate(all="ignore"):                   # some bugs overflow
            report = (run_two_dumps if args.other else run_function if args.function else run_dump)(args)
        if args.json:
            print(json.dumps(as_json(report), indent=1))
        else:
            say(f"{report.dump} against {report.reference}, judged as {report.precision}")
            print()
            print_report(report)
        return int(not report.agrees)
    except BrokenPipeError:                               # the reader has seen enough: bugs.start ends it
        raise
    except (InputError, MemoryError, OSError) as error:   # OSError: a file that cannot be mapped into memory
        kind = "not enough memory: " if isinstance(error, MemoryError) else ""
        print(f"error: {kind}{' '.join(str(error).split())}", file=sys.stderr)
        return 2


def show_live(args):
    report, from_exact = run_live(args)
    if args.json:
        body = as_json(report)
        for row in body["tensors"]:
            row["pytorch_to_float64"] = from_exact[row["name"]]
        print(json.dumps({"live": report.dump} | body, indent=1))
        return int(not report.agrees)
    print(f"numpy_llama.py against PyTorch, both in float32, on {args.live}")
    print("pytorch: how far PyTorch in float32 is from PyTorch in float64 (largest difference)\n")
    print_table(report, ("pytorch", from_exact))
    print()
    first = next((row for row in report.rows if row.wrong), None)
    if first:
        say(describe_first(first, None))
    else:
        rows = report.rows
        worst = max(rows, key=lambda row: row.largest)
        ratio = np.median([row.largest / from_exact[row.name] for row in rows if from_exact[row.name]])
        say(f"All {len(rows)} tensors agree. The largest difference is {worst.largest:.1e}, in {worst.name}, where "
            f"PyTorch itself is {from_exact[worst.name]:.1e} from float64. In the median, the two are {ratio:.1f} "
            "times as far apart as PyTorch is from float64.")
    return int(not report.agrees)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")              # whatever the locale says
    bugs.start(main)
