"""Build the lessons: source/NN_name.py -> NN_name.ipynb, executed, and student/NN_name.ipynb, to be filled in.

    python notebooks/build.py                 every lesson
    python notebooks/build.py 02 03           these lessons
    python notebooks/build.py --check         builds, writes nothing, and fails where a committed file is stale

The sources are in jupytext's percent format: edit those, or open them as notebooks in JupyterLab with jupytext.
Tags on a cell say what is done with it:

    exercise     a function for the reader to write
    solution     its solution: run with the check that follows, folded in the lesson, left out for students
    sliders      ipywidgets; its output needs a kernel, so the file keeps none, and the figure before it stands for it
    timing       prints what differs from run to run: not compared
    hide         set-up and plumbing: folded in JupyterLab, no slide

In the lesson, an exercise is followed by its check, which says what to write, and by the folded solution, which has
been run with the same check. An error, a warning, or a figure without its sentence fails the build.
"""
import argparse
import copy
import os
import re
import sys
from pathlib import Path

import jupytext
import nbclient
import nbformat

HERE = Path(__file__).resolve().parent
WIDGET = "application/vnd.jupyter.widget-view+json"
SECONDS = 120                                             # for one cell: ten times what the slowest needs
SLIDES = r"#{1,3} |\*\*Predict|\*\*Explain"               # what begins a slide, or one below it
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


class BuildError(Exception):
    """A lesson that cannot be built, in words for its author."""


def tags(cell):
    return cell.metadata.get("tags", [])


def read_source(path):
    """The notebook of a source file, with ids that stay the same from build to build, and slide breaks."""
    notebook = jupytext.read(path)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.cells = [part for cell in notebook.cells for part in cut(cell)]
    slides = [slide_type(cell, before) for before, cell in zip([None, *notebook.cells], notebook.cells)]
    for i, (cell, slide) in enumerate(zip(notebook.cells, slides)):
        cell.id = f"{path.stem[:2]}-{i:03}"
        kept = {"tags": tags(cell)} if tags(cell) else {}
        kept |= {"jupyter": {"source_hidden": True}} if "hide" in tags(cell) else {}
        kept |= {"slideshow": {"slide_type": slide}} if slide else {}
        cell.metadata = nbformat.from_dict(kept)
    return notebook


def slide_type(cell, before):
    """Where a cell stands when a lesson is projected: a slide for each section, and below it what comes step by step."""
    start = re.match(SLIDES, cell.source)
    if "hide" in tags(cell):
        return "skip"
    if cell.cell_type == "code":                          # an answer is not on the slide that asks
        return "subslide" if "figures." in cell.source or before.source.startswith("**Predict") else None
    if start and start[0].startswith("#"):
        return "subslide" if start[0] == "### " else "slide"
    if start:                                             # with what it speaks of, unless that fills the slide
        return "fragment" if before.cell_type == "markdown" or "figures." not in before.source else "subslide"


def cut(cell):
    """A markdown cell as several, one for each slide."""
    if cell.cell_type != "markdown":
        return [cell]
    parts = re.split(rf"\n+(?={SLIDES})", cell.source)
    return [nbformat.v4.new_markdown_cell(part, metadata=cell.metadata) for part in parts]


def execute(notebook, folder):
    """Run every cell in order, in that folder."""
    client = nbclient.NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", extra_arguments=["--log-level=ERROR"],
                                     resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, "PYTHONWARNINGS": "default", "PYDEVD_DISABLE_FILE_VALIDATION": "1"})


def examine(notebook, name):
    """Raise BuildError for a warning, an error behind a slider, or a figure without its sentence."""
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        for i, output in enumerate(outputs):
            if output.output_type == "stream" and output.name == "stderr" or output.output_type == "error":
                raise BuildError(f"{name}: a cell warns or fails:\n{cell.source}\n{output.get('text', output)}")
            data = output.get("data", {})
            if WIDGET in data and "sliders" not in tags(cell):
                raise BuildError(f"{name}: a widget in a cell without the tag sliders:\n{cell.source}")
            if "image/png" in data:
                sentence = output.metadata.get("image/png", output.metadata).get("alt")
                below = outputs[i + 1].get("data", {}).get("text/markdown") if i + 1 < len(outputs) else None
                if not sentence or below != f"*{sentence}*":
                    raise BuildError(f"{name}: a figure without its sentence (use figures.show):\n{cell.source}")
        if "sliders" in tags(cell) and not any(WIDGET in output.get("data", {}) for output in outputs):
            raise BuildError(f"{name}: a cell with the tag sliders that shows none:\n{cell.source}")
    for widget in notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get(
            "state", {}).values():
        for output in widget["state"].get("outputs", []):
            if output["output_type"] == "error" or output.get("name") == "stderr":
                raise BuildError(f"{name}: behind a slider: {output.get('evalue', output.get('text'))}")


def fold(solution):
    """A solution as a markdown cell that opens at a click, in JupyterLab, on a page, and on GitHub."""
    cell = nbformat.v4.new_markdown_cell(
        f"<details>\n<summary>Solution</summary>\n\n```python\n{solution.source}\n```\n\n</details>")
    cell.id, cell.metadata = solution.id, nbformat.from_dict({"slideshow": {"slide_type": "skip"}})
    return cell


def lesson(source):
    """The executed lesson: exercise, check (which says what to write), folded solution."""
    notebook = read_source(source)
    with_solutions, cells = copy.deepcopy(notebook), []
    for cell in with_solutions.cells:                     # each check runs twice: on the empty answer, on the solution
        cells.append(cell)
        if "solution" in tags(cell):
            check = next((before for before in reversed(cells[:-1]) if before.source.startswith("check(")), None)
            if check is None:
                raise BuildError(f"{source.name}: a solution without a check before it:\n{cell.source}")
            cells.append(nbformat.v4.new_code_cell(check.source, metadata={"tags": ["proof"]}))
    with_solutions.cells = cells
    try:
        execute(with_solutions, HERE)
    except nbclient.exceptions.CellExecutionError as error:
        raise BuildError(f"{source.name}: {error}") from None
    examine(with_solutions, source.name)
    for cell in with_solutions.cells:
        text = "".join(output.get("text", "") for output in cell.get("outputs", []))
        if "proof" in tags(cell) and not text.startswith("✓"):
            raise BuildError(f"{source.name}: the solution does not pass: {text}")
        if "sliders" in tags(cell):
            cell.outputs = []
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)          # when it ran, to the microsecond
            cell.outputs = join_streams(cell.outputs)
    with_solutions.metadata = notebook.metadata           # no widget state, no version of Python
    with_solutions.cells = [fold(cell) if "solution" in tags(cell) else cell
                            for cell in with_solutions.cells if "proof" not in tags(cell)]
    for i, cell in enumerate(cell for cell in with_solutions.cells if cell.cell_type == "code"):
        cell.execution_count = i + 1
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = i + 1
    return with_solutions


def join_streams(outputs):
    """Pieces of one stream, cut wherever the kernel flushed, as one."""
    joined = []
    for output in outputs:
        if joined and output.output_type == "stream" == joined[-1].output_type and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def student(source):
    """The lesson to be filled in: no solutions, no outputs, so that a prediction comes before its answer."""
    notebook = read_source(source)
    notebook.cells = [cell for cell in notebook.cells if "solution" not in tags(cell)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((?!https?:)(?=[\w./-]+\.(?:py|md|png)\b)", "](../", cell.source)
    return notebook


def words(notebook):
    """What is compared with the committed file: the cells, and what they print; no pictures, no timings."""
    kept = []
    for cell in notebook.cells:
        texts = []
        for output in cell.get("outputs", []) if "timing" not in tags(cell) else []:
            data = output.get("data", {})
            texts.append(output.get("text") or data.get("text/markdown") or ("a figure" if "image/png" in data else
                         data.get("text/html") or data.get("text/plain")))
        kept.append((cell.cell_type, cell.source, dict(cell.metadata), texts))
    return kept


def build(source, check=False):
    """Build one lesson. With `check`, write nothing, and raise BuildError if a committed file differs."""
    for path, made in ((HERE / f"{source.stem}.ipynb", lesson(source)),
                       (HERE / "student" / f"{source.stem}.ipynb", student(source))):
        nbformat.validate(made)
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(nbformat.writes(made) + "\n", encoding="utf-8")
            continue
        if not path.exists():
            raise BuildError(f"{path.name} is missing: run python notebooks/build.py {source.stem[:2]}")
        committed = words(nbformat.read(path, as_version=4))
        for now, then in zip(words(made) + [None], committed + [None]):
            if now != then:
                raise BuildError(f"{path.relative_to(HERE.parent)} is stale: run python notebooks/build.py "
                                 f"{source.stem[:2]}\nbuilt now:  {now}\ncommitted:  {then}")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", metavar="NN", help="numbers of lessons (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a committed file is stale")
    args = parser.parse_args(argv)
    sources = [path for path in sorted((HERE / "source").glob("[0-9][0-9]_*.py"))
               if not args.lessons or path.stem[:2] in args.lessons]
    if len(sources) < len(args.lessons) or not sources:
        parser.error(f"there is no such lesson: {' '.join(args.lessons)}")
    failed = False
    for source in sources:                                # one at a time: two would disturb each other's timings
        try:
            build(source, args.check)
            print(f"{source.stem}: {'as committed' if args.check else 'built'}", flush=True)
        except BuildError as error:
            failed = True
            print(f"{source.stem}: FAILED\n{error}", file=sys.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
