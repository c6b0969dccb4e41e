"""The engine of the exercises: `check(function)` says whether it is right, and if not, which mistake it looks like.

    python notebooks/checks.py notebooks/student/*.ipynb                grade filled-in notebooks, one line each
    python notebooks/checks.py hand-in/*/*.ipynb --csv marks.csv        and write the marks to a file

A notebook may lie anywhere and have any name. It is run from its first cell to its last; a cell that fails or does not
end does not stop the rest. Then each exercise of its lesson is marked: right, wrong, empty, or *did not run*. This runs
what students wrote, so do it where that may be run.

The exercises themselves stand in exercises/NN_name.py. A right answer there is written in another way than in
numpy_llama.py (loops, float64), so that the two can be wrong only independently. A mistake is a sentence with a wrong
function: an answer that computes the same numbers as it, on every input, is told that sentence.
"""
import argparse
import asyncio
import contextlib
import copy
import csv
import functools
import importlib.util
import inspect
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import warnings
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]


@dataclass
class Exercise:
    """One function that the reader writes."""
    answer: object                    # the right function; its name is the exercise's name
    stars: int                        # 1 to 3: how hard it is
    minutes: int                      # how long a first-time reader needs
    inputs: list                      # tuples of arguments: several shapes, and the edges
    hints: list                       # up to three, from a direction to nearly the solution
    mistakes: list                    # (the sentence that names it, the wrong function)
    wrong_answers: list               # (words of the sentence, source as a reader might write it): for tests
    tolerance: float = 1e-5           # of the largest number of an answer; the reason stands where it differs
    picture: bool = False             # draw a wrong answer beside the right one
    run: object = None                # how the function is tried, if not by a call: run(function, *inputs)
    may_call: tuple = ()              # functions of numpy_llama.py that an answer may use

    def outcome(self, function, arguments):
        """What a function makes of the arguments."""
        with np.errstate(all="ignore"):
            return self.run(function, *arguments) if self.run else function(*arguments)


INFINITE = {np.inf: "∞", -np.inf: "−∞"}


@functools.cache
def exercises(number):
    """{name: Exercise} of the lesson "02", in the order of exercises/02_name.py."""
    path, = (HERE / "exercises").glob(f"{number}_*.py")
    spec = importlib.util.spec_from_file_location(f"exercises_{number}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {task.answer.__name__: task for task in vars(module).values() if isinstance(task, Exercise)}


def lesson(number):
    """The function `check` of one lesson: it knows that lesson's exercises, and no others."""
    tasks = exercises(number)

    def check(function, hint=None):
        """Try your function on the exercise of its name and say what that shows; `hint=1`, 2 or 3 prints a hint."""
        name = function.__name__
        if name not in tasks:
            say(f"There is no exercise called {name} in this lesson: keep the name that the function had.")
        elif hint is not None:
            say(told(tasks[name], hint))
        else:
            verdict, sentence, failed = judge(tasks[name], function)
            mark = {"right": "✓", "empty": "…", "wrong": "✗"}[verdict]
            say(f"{mark} {name}: {sentence}")
            if failed and tasks[name].picture:
                picture(*failed)
    return check


def say(text):
    print(textwrap.fill(text, 96, subsequent_indent="  ", break_on_hyphens=False))


def told(task, hint):
    """A hint by its number, or which numbers there are."""
    if hint not in range(1, len(task.hints) + 1):
        return f"The hints have the numbers 1 to {len(task.hints)}."
    return f"Hint {hint} of {len(task.hints)}: {task.hints[hint - 1]}"


def judge(task, function):
    """("right", "empty" or "wrong", a sentence, None or (yours, right) where they differ first)."""
    yours, rights = [], []
    for arguments in task.inputs:
        rights.append(task.outcome(task.answer, copy.deepcopy(arguments)))
        mine = copy.deepcopy(arguments)
        try:
            got = task.outcome(function, mine)
        except (Exception, SystemExit) as error:          # whatever a reader's code may do
            return "wrong", f"it stops with {type(error).__name__}: {error}, for {describe(arguments)}.", None
        if got is None or got is ...:
            if all(y is None or y is ... for y in yours):
                return "empty", ask(task, function), None
            return "wrong", f"it returns nothing for {describe(arguments)}.", None
        if not same(mine, arguments, 0):
            return "wrong", "it changes the arrays that it was given; work on a copy, or make a new array.", None
        yours.append(got)
    if all(same(got, right, task.tolerance) for got, right in zip(yours, rights)):
        return approve(yours, rights)
    at = next(i for i, (got, right) in enumerate(zip(yours, rights)) if not same(got, right, task.tolerance))
    for sentence, wrong in task.mistakes:
        try:
            if all(same(got, task.outcome(wrong, copy.deepcopy(arguments)), task.tolerance)
                   for got, arguments in zip(yours, task.inputs)):
                return "wrong", sentence, (yours[at], rights[at])
        except Exception:                                 # a mistake that does not fit every input
            continue
    return "wrong", difference(yours[at], rights[at], task.inputs[at]), (yours[at], rights[at])


def ask(task, function):
    """What to write, from the function's own first line; the answer is left to the hints."""
    wanted = (inspect.getdoc(function) or "Write the body of the function.").split("\n\n")[0]
    return f"nothing yet. {wanted} For a hint: check({task.answer.__name__}, hint=1)."


def approve(yours, rights):
    """The verdict on right numbers: float64 for float32 is right with a remark, any other type is wrong."""
    for got, right in zip(yours, rights):
        if dtype_of(got) != dtype_of(right) and (dtype_of(got), dtype_of(right)) != (np.float64, np.float32):
            return "wrong", f"the numbers are right, but their type is {dtype_of(got)}, not {dtype_of(right)}.", None
    remark = ""
    if any(dtype_of(got) != dtype_of(right) for got, right in zip(yours, rights)):
        remark = (" Your numbers are float64, the model's are float32: np.sqrt(48) is float64 and makes an array "
                  "float64, math.sqrt(48) does not.")
    return "right", f"right, on {len(yours)} inputs.{remark}", None


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
    """A wrong answer beside the right one, and their difference; numbers that are not finite are written out."""
    import figures
    yours, right = (np.asarray(x, np.float64) for x in (yours, right))
    if yours.shape != right.shape or right.ndim not in (1, 2) or right.size == 0:
        return
    yours, right = np.atleast_2d(yours), np.atleast_2d(right)
    finite = np.isfinite(yours) & np.isfinite(right)
    difference = np.subtract(yours, right, out=np.zeros_like(right), where=finite)
    apart = ~finite & (yours != right) & ~(np.isnan(yours) & np.isnan(right))
    figure, axes = figures.new(2.4, columns=3)
    limit = max(np.abs(x[np.isfinite(x)]).max(initial=1e-9) for x in (yours, right))
    for ax, title, x in zip(axes, ("yours", "right", "difference"), (yours, right, difference)):
        figures.matrix(ax, x, title=title, limit=limit)
        for i, j in np.argwhere(~np.isfinite(x))[:200]:
            ax.text(j, i, INFINITE.get(x[i, j], "nan"), ha="center", va="center", fontsize=9)
    axes[2].plot(*np.argwhere(apart)[:, ::-1].T, "x", color=figures.BLACK)
    figures.show(figure, "Yours, the right answer, and the difference, on the same scale of colours. A cross: one of "
                         "the two is not finite there, or they are infinite with different signs.")


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

# ---- Grading in bulk -----------------------------------------------------------------------------------------

MODEL = str(HERE.parent / "numpy_llama.py")
QUIET = {"PYTHONPATH": str(HERE), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}         # a notebook elsewhere finds the course
LESSON = re.compile(r"""checks\.lesson\(["'](\d\d)["']\)""")
AT_ONCE = 2


def mark(number, name, function, path):
    """Write [verdict, what it calls] to a file: what students print goes elsewhere."""
    task, called = exercises(number)[name], set()

    def watch(frame, event, _):
        code, caller = frame.f_code, frame.f_back.f_code.co_filename
        if event == "call" and code is task.answer.__code__:
            called.add("the answer in exercises/")
        if event == "call" and code.co_filename == MODEL != caller and code.co_name not in task.may_call:
            called.add(f"nl.{code.co_name}")

    @functools.wraps(function)
    def watched(*arguments):
        sys.setprofile(watch)
        try:
            return function(*arguments)
        finally:
            sys.setprofile(None)
    verdict = judge(task, watched)[0] if callable(function) else "did not run"
    Path(path).write_text(json.dumps([verdict, sorted(called)]), encoding="utf-8")


@dataclass
class Marks:
    """What came of one notebook."""
    path: str
    lesson: str = ""
    verdicts: dict = field(default_factory=dict)          # {exercise: "right", "wrong", "empty" or "did not run"}
    remarks: list = field(default_factory=list)

    @property
    def right(self):
        return sum(verdict == "right" for verdict in self.verdicts.values())

    @property
    def rest(self):
        wanting = [f"{name} ({verdict})" for name, verdict in self.verdicts.items() if verdict != "right"]
        return "; ".join([", ".join(wanting)] * bool(wanting) + self.remarks)


async def grade(path, seconds):
    """The Marks of a notebook that somebody filled in: it is run, then each exercise is judged in the same kernel."""
    import nbformat
    marks = Marks(str(path))
    try:
        notebook = nbformat.read(path, as_version=4)
        sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    except Exception as error:                            # whatever a damaged file may hold
        marks.remarks.append(f"not a notebook: {first_line(error)}")
        return marks
    found = LESSON.search("\n".join(sources))
    if found is None or not list((HERE / "exercises").glob(f"{found[1]}_*.py")):
        marks.remarks.append('no lesson: its set-up cell, check = checks.lesson("NN"), is missing')
        return marks
    marks.lesson = found[1]
    marks.verdicts = dict.fromkeys(exercises(marks.lesson), "did not run")
    try:
        async with started(seconds) as kernel:
            await run(kernel, sources, marks)
    except KernelError as error:
        marks.remarks.append(str(error))
    return marks


async def run(kernel, sources, marks):
    """Run the cells, then judge the exercises."""
    for source in sources:
        error = await kernel.execute(source)
        if error and LESSON.search(source):
            marks.remarks.append(f"the set-up failed: {error}")
            return
        for name in marks.verdicts:
            if error and re.search(rf"^def {name}\(|^check\({name}\b", source, re.M):
                marks.remarks.append(f"{name}: {error}")
                marks.verdicts[name] = "wrong" if error == kernel.endless else marks.verdicts[name]
    for name in [name for name, verdict in marks.verdicts.items() if verdict == "did not run"]:
        answer = kernel.folder / f"{name}.json"
        error = await kernel.execute(f"import checks\nchecks.mark({marks.lesson!r}, {name!r}, globals().get({name!r}), "
                                     f"{str(answer)!r})")
        if answer.exists():
            marks.verdicts[name], called = json.loads(answer.read_text(encoding="utf-8"))
            marks.remarks += [f"{name} calls the solution: {', '.join(called)}"] if called else []
        else:
            marks.remarks.append(f"{name}: {error}")


class KernelError(Exception):
    """A kernel that cannot go on, in words for the lecturer."""


@contextlib.asynccontextmanager
async def started(seconds):
    """A Kernel in an empty folder, which finds the course and keeps what it prints to itself."""
    from jupyter_client.manager import AsyncKernelManager
    manager = AsyncKernelManager(kernel_name="python3")   # whatever kernel the notebook asks for
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        await manager.start_kernel(cwd=folder, env={**os.environ, **QUIET}, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        client = manager.client()
        try:
            client.start_channels()
            await client.wait_for_ready(timeout=60)
            yield Kernel(manager, client, Path(folder), seconds)
        finally:
            client.stop_channels()
            await manager.shutdown_kernel(now=True)


@dataclass
class Kernel:
    """A running Python, which executes cells for at most so many seconds each."""
    manager: object
    client: object
    folder: Path
    seconds: float

    @property
    def endless(self):
        return f"no end after {self.seconds:g} s"

    async def execute(self, source):
        """Run a cell: None, or the error that it stopped with."""
        running = asyncio.ensure_future(self.client.execute_interactive(
            source, store_history=False, allow_stdin=False, stop_on_error=False, output_hook=lambda message: None))
        if await self.wait(running, self.seconds):
            content = running.result()["content"]
            return f"{content['ename']}: {first_line(content['evalue'])}" if content["status"] == "error" else None
        await self.manager.interrupt_kernel()
        if not await self.wait(running, 3):
            running.cancel()
            raise KernelError(f"{self.endless}, and it cannot be interrupted")
        return self.endless

    async def wait(self, running, seconds):
        """Wait for a cell, at most so long: has it ended?"""
        end = asyncio.get_running_loop().time() + seconds
        while not running.done() and asyncio.get_running_loop().time() < end:
            await asyncio.wait({running}, timeout=0.2)
            if not running.done() and not await self.manager.is_alive():
                running.cancel()
                raise KernelError("the kernel died")
        return running.done()


def first_line(error):
    return (str(error).strip().splitlines() or [""])[0]


async def grade_all(paths, seconds, show):
    """Grade notebooks, AT_ONCE at a time, and show each one's Marks in the order of the paths."""
    turn, bar = asyncio.Semaphore(AT_ONCE), tqdm(total=len(paths), unit="notebook", disable=None)

    async def one(path):
        async with turn:
            try:
                return await grade(path, seconds)
            except Exception as error:                    # one notebook must not cost the others their marks
                return Marks(str(path), remarks=[f"not graded: {type(error).__name__}: {first_line(error)}"])
            finally:
                bar.update()
    for task in [asyncio.ensure_future(one(path)) for path in paths]:
        show(await task)
    bar.close()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", type=Path)
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the marks to a file too")
    parser.add_argument("--seconds", metavar="N", type=float, default=60, help="for each cell (default: %(default)s)")
    args = parser.parse_args(argv)
    missing = [str(path) for path in args.notebooks if not path.is_file()]
    if missing:
        parser.error(f"there is no file {missing[0]}")
    logging.disable()                                     # what is wrong with a notebook is said in its line
    warnings.simplefilter("ignore")
    width = max(map(len, map(str, args.notebooks)))
    with contextlib.ExitStack() as stack:
        columns = "notebook", "lesson", "right", "of", "not yet right, and remarks"
        table = None
        if args.csv:
            try:
                table = csv.writer(stack.enter_context(open(args.csv, "w", newline="", encoding="utf-8")))
            except OSError as error:
                parser.error(f"cannot write {args.csv}: {error.strerror}")
            table.writerow(columns)

        def show(marks):
            row = marks.path, marks.lesson, marks.right, len(marks.verdicts), marks.rest
            tqdm.write("{:{width}} {:>6}  {:>5}  {:>2}  {}".format(*row, width=width))
            sys.stdout.flush()
            if table:
                table.writerow(row)
        print("{:{width}} {:>6}  {:>5}  {:>2}  {}".format(*columns, width=width), flush=True)
        asyncio.run(grade_all(args.notebooks, args.seconds, show))
    return 0


if __name__ == "__main__":
    import checks  # the name by which exercises know it
    try:
        sys.exit(checks.main())
    except KeyboardInterrupt:
        sys.exit(130)
