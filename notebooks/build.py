"""Build the lessons: source/NN_name.py and exercises/NN_name.py -> NN_name.ipynb, executed, and student/NN_name.ipynb.

    python notebooks/build.py                 every lesson
    python notebooks/build.py 02 03           these lessons
    python notebooks/build.py --check         builds, writes nothing, and fails where a committed file is stale
    python notebooks/build.py --slides DIR    the built lessons as slides, with all that they need without a network

and for lecturers, each for all lessons or for some:

    python notebooks/build.py --export otter DIR 02       the exercises as assignments for `otter assign`
    python notebooks/build.py --export nbgrader DIR 02    or as the source of an nbgrader course
    python notebooks/build.py --solutions FILE            all solutions, and the mistakes that are named, in Markdown

A lesson is those two files. The sources are in jupytext's percent format. What follows from them is written here and
nowhere else: the cell that finds the course, stars and minutes in the heading of each exercise, the link to the next
lesson, the tables between markers in README.md, notebooks/README.md and lesson 00, handout.pdf and
lecturer/minutes.md.

Tags on a cell say what is done with it:

    exercise     a function for the reader to write
    solution     its solution: run with the check that follows, folded in the lesson, left out for students
    sliders      ipywidgets; its output needs a kernel, so the file keeps none, and the figure before it stands for it
    timing       prints what differs from run to run: not compared
    result       a text that says what came out: folded for students, as every **Explain.** is
    hide         set-up and plumbing: folded in JupyterLab, no slide

In the lesson, an exercise is followed by its check, which says what to write, and by the folded solution, which has
been run with the same check. An error, a warning, or a figure without its sentence fails the build.
"""
import argparse
import ast
import copy
import importlib.util
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import checks
import figures
import handout
import jinja2
import jupytext
import nbclient
import nbconvert
import nbformat

HERE = Path(__file__).resolve().parent
WIDGET = "application/vnd.jupyter.widget-view+json"
SECONDS = 120                                             # for one cell: ten times what the slowest needs
SLIDES = r"#{1,3} |\*\*Predict|\*\*Explain"               # what begins a slide, or one below it
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
SUMMARY = "## In five lines"
TABLE = "<!-- lessons -->"                                # in a lesson, the list of all lessons
START, END = "<!-- written by notebooks/build.py -->", "<!-- end -->"
FIND = """\
# Finds the course, wherever in the repository or beside it this kernel was started.
import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("course") is None:
    here = Path.cwd()
    places = [place for up in (here, *here.parents) for place in (up, up / "notebooks")]
    places = [place for place in (*places, *here.glob("*/notebooks")) if (place / "course.py").exists()]
    if not places:
        raise ImportError(f"the course is not at {here}: start this notebook inside the folder numpy_llama, "
                          "or put that folder (git clone) beside it")
    sys.path.insert(0, str(places[0]))"""


class BuildError(Exception):
    """A lesson that cannot be built, in words for its author."""


@dataclass
class Head:
    """What a lesson says of itself in its first cell, and how many exercises it has."""
    stem: str
    title: str                        # without the number
    question: str
    goal: str
    minutes: int
    exercises: int

    @property
    def link(self):
        return f"[{int(self.stem[:2])}. {self.title}]({self.stem}.ipynb)"


def read_head(path):
    """The Head of a source file."""
    text = path.read_text(encoding="utf-8")
    found = [re.search(pattern, text, re.M) for pattern in (
        rf"^# # {int(path.stem[:2])}\. (.+)$", r"The question\*\* \| (.+) \|$", r"able to\*\* \| (.+) \|$",
        r"Minutes\*\* \| (\d+)")]
    if None in found:
        raise BuildError(f"{path.name}: the first cell needs the title '# {int(path.stem[:2])}. ...' and the rows "
                         "The question, You will be able to, Minutes")
    title, question, goal, minutes = (match[1] for match in found)
    return Head(path.stem, title, question, goal, int(minutes), len(checks.exercises(path.stem[:2])))


def sources():
    return sorted((HERE / "source").glob("[0-9][0-9]_*.py"))


def heads():
    return [read_head(path) for path in sources()]


def table():
    """All lessons: goal, minutes, exercises, and the totals."""
    every = heads()
    rows = [f"| {head.link} | {head.goal} | {head.minutes} | {head.exercises} |" for head in every]
    return "\n".join(["| lesson | after it, you can | minutes | exercises |", "| --- | --- | --- | --- |", *rows, "",
                      f"In all {len(every)} lessons, {sum(head.minutes for head in every)} minutes and "
                      f"{sum(head.exercises for head in every)} exercises."])


def contents():
    """All lessons in a line, as the main README shows them."""
    every = heads()
    links = " ·\n".join(f"[{head.title.partition(':')[0]}](notebooks/{head.stem}.ipynb)" for head in every)
    return (f"{links}\n\n{len(every)} lessons, about {round(sum(head.minutes for head in every) / 60)} hours, "
            f"{sum(head.exercises for head in every)} exercises.")


def next_link(stem):
    """The last line of a lesson: the next one, and its question."""
    every = heads()
    at = [head.stem for head in every].index(stem) + 1
    if at == len(every):
        return f"This was the last lesson. Back to {every[0].link}, or on to a Llama of your own."
    return f"Next: {every[at].link}. *{every[at].question}*"


def write_tables(check):
    """The text between markers in both READMEs, and the minutes of all sections. With `check`, write nothing, and raise
    BuildError where a file differs."""
    for path, made in ((HERE / "README.md", table()), (HERE.parent / "README.md", contents())):
        text = path.read_text(encoding="utf-8")
        if text.count(START) != 1 or text.count(END) != 1:
            raise BuildError(f"{path.name} needs the lines {START} and {END} once each")
        before, _, rest = text.partition(START)
        write(path, f"{before}{START}\n{made}\n{END}{rest.partition(END)[2]}", check)
    write(HERE / "lecturer" / "minutes.md", minutes_table(), check)


def write(path, text, check):
    """Write a file that follows from others. With `check`, write nothing, and raise BuildError if it differs."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    if check:
        raise BuildError(f"{path.relative_to(HERE.parent)} is stale: run python notebooks/build.py")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_handout(check):
    """The two pages of handout.py. With `check`, write nothing, and raise BuildError where the file shows others."""
    try:
        made = handout.make()
    except handout.InputError as error:                   # the README's table and numpy_llama.py do not agree
        raise BuildError(f"handout.pdf: {error}") from None
    if not check:
        handout.PATH.write_bytes(made)
    elif not handout.PATH.exists() or handout.stamp(handout.PATH.read_bytes()) != handout.stamp(made):
        raise BuildError("notebooks/handout.pdf is stale: run python notebooks/build.py")


def tags(cell):
    return cell.metadata.get("tags", [])


def read_source(path):
    """The notebook of a source file, with ids that stay the same from build to build, and slide breaks."""
    notebook = jupytext.read(path)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    complete(notebook, path.stem)
    notebook.cells = [part for cell in notebook.cells for part in cut(cell)]
    slides = [slide_type(cell, before) for before, cell in zip([None, *notebook.cells], notebook.cells)]
    for i, (cell, slide) in enumerate(zip(notebook.cells, slides)):
        cell.id = f"{path.stem[:2]}-{i:03}"
        kept = {"tags": tags(cell)} if tags(cell) else {}
        kept |= {"jupyter": {"source_hidden": True}} if "hide" in tags(cell) else {}
        kept |= {"slideshow": {"slide_type": slide}} if slide else {}
        cell.metadata = nbformat.from_dict(kept)
    return notebook


def complete(notebook, stem):
    """Add what the source does not say: the cell that finds the course, stars, the table of lessons, the next one."""
    cells, tasks = notebook.cells, checks.exercises(stem[:2])
    for i, cell in enumerate(cells):
        if "exercise" in tags(cell):
            task = tasks.get(function_name(cell))
            if task is None:
                raise BuildError(f"exercises/{stem}.py has no exercise {function_name(cell)}")
            text, headings, rest = cells[i - 1].source.rpartition("\n### ")
            title, line, rest = rest.partition("\n")
            cells[i - 1].source = f"{text}{headings}{title} ({'★' * task.stars}, {task.minutes} minutes){line}{rest}"
        cell.source = cell.source.replace(TABLE, table()) if cell.cell_type == "markdown" else cell.source
    cells.append(nbformat.v4.new_markdown_cell(next_link(stem)))
    setup = next(i for i, cell in enumerate(cells) if cell.cell_type == "code")
    cells.insert(setup, nbformat.v4.new_code_cell(FIND, metadata={"tags": ["hide"]}))


def function_name(cell):
    """The function that an exercise or a solution defines last."""
    return [node.name for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)][-1]


def slide_type(cell, before):
    """Where a cell stands on the screen: a slide for each section, and below it what comes step by step."""
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
    client = nbclient.NotebookClient(notebook, timeout=SECONDS, kernel_name="python3",
                                     extra_arguments=["--log-level=ERROR"],
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
    """The lesson to be filled in: no solutions, no outputs, results folded, so that a prediction comes first."""
    notebook = read_source(source)
    notebook.cells = [cell for cell in notebook.cells if "solution" not in tags(cell)]
    captions = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source, captions = without_captions(cell.source, source.stem[:2], captions)
            continue
        cell.source = re.sub(r"\]\((?!https?:)(?=[\w./-]+\.(?:py|md|png|pdf|json)\b)", "](../", cell.source)
        if cell.source.startswith("**Explain.**") or "result" in tags(cell):
            text = cell.source.removeprefix("**Explain.** ")
            summary = "<summary><b>Explain.</b> Open this after the run.</summary>"
            cell.source = f"<details>\n{summary}\n\n{text}\n\n</details>"
        if cell.source.startswith(SUMMARY):
            text = cell.source.removeprefix(SUMMARY).strip()
            cell.source = f"{SUMMARY}\n\n<details>\n<summary>Open this at the end.</summary>\n\n{text}\n\n</details>"
    return notebook


def without_captions(code, number, count):
    """Code whose captions (what a figure shows) are looked up when it runs; and how many there were so far."""
    lines = code.encode().splitlines(keepends=True)       # ast counts columns in bytes
    offsets = [sum(map(len, lines[:i])) for i in range(len(lines) + 1)]
    data, sentences = code.encode(), figures.sentences(code)
    for place, node in reversed(list(enumerate(sentences))):
        begin = offsets[node.lineno - 1] + node.col_offset
        end = offsets[node.end_lineno - 1] + node.end_col_offset
        data = data[:begin] + f'figures.caption("{number}", {count + place})'.encode() + data[end:]
    return data.decode(), count + len(sentences)


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


# ---- Minutes -------------------------------------------------------------------------------------------------

WORDS, LINES = 150, 12                                    # of prose, and of code that is read and run, in a minute
EACH = {"a formula": (r"\$\$.+?\$\$", 0.5), "a prediction": (r"\*\*Predict\.", 1), "a figure": (r"figures\.show\(", 1),
        "a question with its answer": ("<summary>Answer", 3)}                 # what to look for, and its minutes
MINUTES = f"""\
# Minutes

Written by notebooks/build.py from the lessons. The minutes of a first-time reader are estimated, not clocked:
{WORDS} words of prose or {LINES} lines of code in a minute, and more minutes for {{each}}.
*Exercises* are the minutes that each of them states. The rates are slow ones, for dense text in a language that may not
be the reader's own.

| lesson | minutes | section by section |
| --- | --- | --- |
{{rows}}

In all {{total}} minutes, that is {{hours}} hours; {{exercises}} hours of them are exercises. The first readers of
an earlier version, thirteen lessons, took 15 to 20 hours.
"""


def section_minutes(path):
    """{section: minutes that a first-time reader needs}: what stands before the first section counts to it."""
    found, section, opening = {}, None, 0
    for cell in jupytext.read(path).cells:
        for part in cut(cell):
            if part.source.startswith("## "):
                section = part.source.partition("\n")[0][3:]
                found[section] = opening
                opening = 0
            if section == "Exercises" or {"hide", "exercise", "solution"} & {*tags(part)}:
                continue
            if section:
                found[section] += cell_minutes(part)
            else:
                opening += cell_minutes(part)
    found["Exercises"] = sum(task.minutes for task in checks.exercises(path.stem[:2]).values())
    return {section: max(1, round(minutes)) for section, minutes in found.items()}


def cell_minutes(cell):
    """What one cell takes to read, and to run."""
    extra = sum(len(re.findall(pattern, cell.source, re.S)) * minutes for pattern, minutes in EACH.values())
    if cell.cell_type == "code":
        return extra + len([line for line in cell.source.splitlines() if line.strip()]) / LINES
    return extra + len(re.sub(EACH["a formula"][0], "", cell.source, flags=re.S).split()) / WORDS


def minutes_table():
    """The text of lecturer/minutes.md."""
    rows, total, exercises = [], 0, 0
    for head, path in zip(heads(), sources()):
        sections = section_minutes(path)
        total += sum(sections.values())
        exercises += sections["Exercises"]
        each = " · ".join(f"{section} {minutes}" for section, minutes in sections.items())
        rows.append(f"| {head.link.replace('](', '](../')} | {sum(sections.values())} | {each} |")
    each = ", ".join(f"{thing} ({minutes:g})" for thing, (_, minutes) in EACH.items())
    return MINUTES.format(each=each, rows="\n".join(rows), total=total, hours=round(total / 60),
                          exercises=round(exercises / 60))


# ---- Slides --------------------------------------------------------------------------------------------------

# JavaScript and styles that a page of slides loads: where it comes from, and where nbconvert's template looks for it.
PARTS = {"reveal": ("sphinx_revealjs", "_static/revealjs"),
         **{name: ("nbclassic", f"static/components/{name}") for name in ("MathJax", "requirejs", "jquery")}}
URLS = {"reveal_url_prefix": "shared/reveal", "require_js_url": "shared/requirejs/require.js",
        "jquery_url": "shared/jquery/jquery.min.js",
        "mathjax_url": "shared/MathJax/MathJax.js?config=TeX-AMS-MML_HTMLorMML-full,Safe",
        "mermaid_js_url": "data:text/javascript,export default {initialize() {}}"}     # no lesson has such a drawing
PAGE = """{% extends 'index.html.j2' %}
{% block html_head_js_mathjax %}<script type="text/x-mathjax-config">
MathJax.Hub.Config({"HTML-CSS": {fonts: ["STIX-Web"]}});</script>{{ super() }}
<style>.reveal.reveal :is(h1, h2, h3) { text-transform: none; }
.reveal.reveal .jp-OutputArea-output pre { font-size: 14px; width: 100%; }</style>{% endblock %}
{% block data_png scoped %}<img src="data:image/png;base64,{{ output.data['image/png'] | escape_html }}"
     width="{{ output | get_metadata('width', 'image/png') }}"
     alt="{{ output | get_metadata('alt', 'image/png') | escape_html }}">{% endblock %}"""


def slides(stem, folder, code=False):
    """Write a built lesson as reveal.js slides, with or without its code, and beside them what they load."""
    for name, (package, place) in PARTS.items():
        found = importlib.util.find_spec(package)
        if found is None:
            raise BuildError("slides need two more packages: pip install nbclassic sphinx-revealjs")
        shutil.copytree(Path(found.origin).parent / place, folder / "shared" / name, dirs_exist_ok=True)
    exporter = nbconvert.SlidesExporter(template_file="page.html.j2", exclude_input=not code,
                                        exclude_input_prompt=True, exclude_output_prompt=True, reveal_scroll=True,
                                        reveal_theme="white", extra_loaders=[jinja2.DictLoader({"page.html.j2": PAGE})],
                                        **URLS)
    page, _ = exporter.from_filename(str(HERE / f"{stem}.ipynb"))
    page = re.sub(r'href="(\d\d_\w+)\.ipynb', r'href="\1.html', page)
    (folder / f"{stem}.html").write_text(page, encoding="utf-8")


# ---- For lecturers -------------------------------------------------------------------------------------------

BESIDE = ("numpy_llama.py", "requirements.txt", "notebooks/checks.py", "notebooks/figures.py")      # what a sheet needs
SHEET_SETUP = """\
import math

import checks
import numpy as np
import numpy_llama as nl

check = checks.lesson("{number}")"""
OTTER_CONFIG = """\
# ASSIGNMENT CONFIG
name: "{stem}"
requirements: requirements.txt
python_version: "3.12"
files: [numpy_llama.py, checks.py, figures.py, exercises/{stem}.py]
export_cell: {{pdf: false}}
tests: {{ok_format: false}}
generate: true"""
OTTER_TEST = """\
def test_{name}({name}):
    import checks
    verdict, sentence, _ = checks.judge(checks.exercises("{number}")["{name}"], {name})
    assert verdict == "right", sentence"""
NBGRADER_TEST = """\
verdict, sentence, _ = checks.judge(checks.exercises("{number}")["{name}"], {name})
assert verdict == "right", sentence"""
NBGRADER_CONFIG = """\
c = get_config()
c.CourseDirectory.course_id = "numpy_llama"
c.ClearSolutions.code_stub = {"python": "..."}            # an empty answer is told what to write"""


@dataclass
class Task:
    """An exercise as its lesson asks for it."""
    name: str
    text: str                         # its heading, and what is asked
    head: str                         # the function up to its docstring
    body: str                         # the rest of the solution
    solution: str


def tasks(path):
    """The exercises of a source file, one Task for each. Links to lessons become words, as sheets lie elsewhere."""
    found, text = {}, ""
    for cell in read_source(path).cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", cell.source)
        if "exercise" in tags(cell):
            found[function_name(cell)] = Task(function_name(cell), text, cell.source.removesuffix("\n    ..."), "", "")
        if "solution" in tags(cell):
            task = found[function_name(cell)]
            first, *rest = cell.source.split("\n")
            if not re.fullmatch(rf"def {task.name}\(.*\):", first):
                raise BuildError(f"{path.name}: a solution must begin with def {task.name}(...): in one line")
            task.body, task.solution = "\n".join(rest), cell.source
    return list(found.values())


def solutions(chosen):
    """All solutions, each with the mistakes that are named, as one text in Markdown."""
    parts = ["# Solutions", "Written by notebooks/build.py from the lessons. Below each solution stands what `check`\n"
             "says to the wrong answers that it knows."]
    for path in chosen:
        parts.append(f"## {int(path.stem[:2])}. {read_head(path).title}")
        for task in tasks(path):
            known = checks.exercises(path.stem[:2])[task.name].mistakes
            named = "\n".join(f"- {sentence}" for sentence, _ in known)
            parts += [task.text, f"```python\n{task.solution}\n```", named]
    return "\n\n".join(parts) + "\n"


def export(kind, folder, path):
    """Write the exercises of a lesson as an assignment for Otter or nbgrader, and beside it the files that it needs."""
    place = folder / "source" / path.stem if kind == "nbgrader" else folder / path.stem
    (place / "exercises").mkdir(parents=True, exist_ok=True)
    for file in BESIDE:
        shutil.copy(HERE.parent / file, place)
    shutil.copy(HERE / "exercises" / path.name, place / "exercises")
    intro = nbformat.v4.new_markdown_cell(
        f"# {int(path.stem[:2])}. {read_head(path).title}: exercises\n\nWords and letters are those of the lesson "
        f"{path.stem}. Fill in each function. `check(f)` says what a wrong answer looks like; `check(f, hint=1)` gives "
        "a hint.")
    setup = nbformat.v4.new_code_cell(SHEET_SETUP.format(number=path.stem[:2]))
    cells = otter_cells if kind == "otter" else nbgrader_cells
    notebook = nbformat.v4.new_notebook(cells=cells(path, intro, setup), metadata={
        "kernelspec": KERNEL, "language_info": {"name": "python"}})
    for i, cell in enumerate(notebook.cells):
        cell.id = f"{path.stem[:2]}-{i:03}"
    nbformat.validate(notebook)
    (place / f"{path.stem}.ipynb").write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    if kind == "nbgrader":
        (folder / "nbgrader_config.py").write_text(NBGRADER_CONFIG + "\n", encoding="utf-8")


def otter_cells(path, intro, setup):
    """What `otter assign` reads: raw cells mark where a question, its solution and its test begin and end."""
    def raw(*lines):
        return nbformat.v4.new_raw_cell("\n".join(lines))
    cells = [raw(OTTER_CONFIG.format(stem=path.stem)), intro, setup]
    for task in tasks(path):
        answer = f"{task.head}\n    # BEGIN SOLUTION\n{task.body}\n    # END SOLUTION"
        test = OTTER_TEST.format(number=path.stem[:2], name=task.name)
        cells += [raw("# BEGIN QUESTION", f"name: {task.name}", "points: 1"), nbformat.v4.new_markdown_cell(task.text),
                  raw("# BEGIN SOLUTION"), nbformat.v4.new_code_cell(answer), raw("# END SOLUTION"),
                  raw("# BEGIN TESTS"), nbformat.v4.new_code_cell(test), raw("# END TESTS"), raw("# END QUESTION")]
    return cells


def nbgrader_cells(path, intro, setup):
    """The source of an nbgrader assignment: its metadata say which cells are answers, and which are locked tests."""
    def as_graded(cell, name, **settings):
        cell.metadata["nbgrader"] = {"schema_version": 3, "grade_id": name, "grade": False, "solution": False,
                                     "locked": True, "task": False, **settings}
        return cell
    cells = [as_graded(intro, "intro"), as_graded(setup, "setup")]
    for task in tasks(path):
        answer = f"{task.head}\n    ### BEGIN SOLUTION\n{task.body}\n    ### END SOLUTION"
        test = NBGRADER_TEST.format(number=path.stem[:2], name=task.name)
        cells += [as_graded(nbformat.v4.new_markdown_cell(task.text), f"{task.name}-text"),
                  as_graded(nbformat.v4.new_code_cell(answer), task.name, solution=True, locked=False),
                  as_graded(nbformat.v4.new_code_cell(test), f"test-{task.name}", grade=True, points=1)]
    return cells


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", metavar="NN", help="numbers of lessons (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a committed file is stale")
    parser.add_argument("--slides", metavar="DIR", type=Path, help="write slides of the built lessons only")
    parser.add_argument("--code", action="store_true", help="with --slides: show the code too")
    parser.add_argument("--export", nargs=2, metavar=("KIND", "DIR"),
                        help="write the exercises only, for otter or nbgrader")
    parser.add_argument("--solutions", metavar="FILE", type=Path, help="write all solutions only, to one file")
    args = parser.parse_args(argv)
    if args.export and args.export[0] not in ("otter", "nbgrader"):
        parser.error(f"--export is for otter or nbgrader, not for {args.export[0]}")
    chosen = [path for path in sources() if not args.lessons or path.stem[:2] in args.lessons]
    if len(chosen) < len(set(args.lessons)) or not chosen:
        parser.error(f"there is no such lesson: {' '.join(args.lessons)}")
    extra = args.slides or args.export or args.solutions
    try:
        if not extra:
            write_tables(args.check)
            write_handout(args.check)
        for source in chosen if args.slides else ():
            slides(source.stem, args.slides, args.code)
        for source in chosen if args.export else ():
            export(args.export[0], Path(args.export[1]), source)
        if args.solutions:
            args.solutions.write_text(solutions(chosen), encoding="utf-8")
    except (BuildError, OSError) as error:
        parser.error(str(error))
    if extra:
        return 0
    failed = False
    for source in chosen:                                 # one at a time: two would disturb each other's timings
        try:
            build(source, args.check)
            print(f"{source.stem}: {'as committed' if args.check else 'built'}", flush=True)
        except BuildError as error:
            failed = True
            print(f"{source.stem}: FAILED\n{error}", file=sys.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
