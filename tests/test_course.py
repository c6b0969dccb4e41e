"""The course: every exercise has its right answer, its wrong ones are named, and every lesson is as it was built.

The lessons themselves are run again, and compared with the committed files, by notebooks/build.py --check.
"""
import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import bs4
import jupytext
import nbconvert
import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))

import build  # noqa: E402
import checks  # noqa: E402

import numpy_llama as nl  # noqa: E402

SOURCES = build.sources()
EXERCISES = [(path.stem[:2], name) for path in SOURCES for name in checks.exercises(path.stem[:2])]
each_exercise = pytest.mark.parametrize("lesson, name", EXERCISES, ids=[" ".join(pair) for pair in EXERCISES])


def lesson_cells(path, kind):
    return [cell for cell in jupytext.read(path).cells if kind in cell.metadata.get("tags", [])]


def function(source, name):
    """The function of that name, from its source text, with what a reader has imported."""
    scope = {"np": np, "nl": nl}
    exec("import math\n" + source, scope)
    return scope[name]


def written(kind):
    """{(lesson, name of the function): source} of all cells with that tag."""
    return {(path.stem[:2], build.function_name(cell)): cell.source for path in SOURCES
            for cell in lesson_cells(path, kind)}


EMPTY, SOLUTIONS = written("exercise"), written("solution")


def judge(lesson, name, answer):
    """The verdict and the sentence on an answer: a function, or the source of one."""
    answer = function(answer, name) if isinstance(answer, str) else answer
    return checks.judge(checks.exercises(lesson)[name], answer)[:2]


def test_every_lesson_has_its_two_files():
    assert [path.name for path in SOURCES] == sorted(path.name for path in (NOTEBOOKS / "exercises").glob("*.py"))
    assert EMPTY.keys() == SOLUTIONS.keys() == set(EXERCISES)


@each_exercise
def test_solution_passes(lesson, name):
    verdict, sentence = judge(lesson, name, SOLUTIONS[lesson, name])
    assert (verdict, sentence.startswith("right, on")) == ("right", True), sentence


@each_exercise
def test_empty_answer_is_told_what_to_write_but_not_the_answer(lesson, name):
    task = checks.exercises(lesson)[name]
    verdict, sentence = judge(lesson, name, EMPTY[lesson, name])
    asked, = re.findall(r'"""(.+?)"""', EMPTY[lesson, name], re.S)
    assert verdict == "empty" and asked in sentence and "->" in asked
    assert not any(hint in sentence for hint in task.hints)


@each_exercise
def test_hints_stars_and_minutes(lesson, name):
    task = checks.exercises(lesson)[name]
    assert task.stars in (1, 2, 3) and task.minutes > 0
    assert 1 <= len(task.hints) <= 3 and all(len(hint) > 10 for hint in task.hints)


@pytest.mark.parametrize("lesson, name, words, source", [
    pytest.param(lesson, name, words, source, id=f"{lesson} {name}: {words}") for lesson, name in EXERCISES
    for words, source in checks.exercises(lesson)[name].wrong_answers])
def test_wrong_answer_is_named(lesson, name, words, source):
    verdict, sentence = judge(lesson, name, source)
    assert verdict == "wrong" and words in sentence, sentence


@each_exercise
def test_wrong_answers_are_many_and_different(lesson, name):
    answers = checks.exercises(lesson)[name].wrong_answers
    sentences = {judge(lesson, name, source)[1] for _, source in answers}
    assert len(sentences) == len(answers) >= 4


@each_exercise
def test_no_mistake_is_right(lesson, name):
    """Every wrong function is wrong on some input, and no two of them are the same."""
    for sentence, wrong in checks.exercises(lesson)[name].mistakes:
        assert judge(lesson, name, wrong) == ("wrong", sentence)


def test_check_speaks(capsys):
    """What a reader sees: an empty answer, hints, a right one in float64, another type, another lesson's function."""
    def said(function, **options):
        check(function, **options)
        return " ".join(capsys.readouterr().out.split())

    def causal_scores(q, k):
        """Scores: (T, d), (S, d) -> (T, S)."""

    check, hints = checks.lesson("03"), checks.exercises("03")["causal_scores"].hints
    assert said(causal_scores) == ("… causal_scores: nothing yet. Scores: (T, d), (S, d) -> (T, S). "
                                   "For a hint: check(causal_scores, hint=1).")
    assert said(causal_scores, hint=1) == " ".join(f"Hint 1 of {len(hints)}: {hints[0]}".split())
    assert said(causal_scores, hint=4) == f"The hints have the numbers 1 to {len(hints)}."

    def causal_scores(q, k):
        T, S = len(q), len(k)
        return np.where(np.tri(T, S, S - T, dtype=bool), q @ k.T / np.sqrt(q.shape[1]), -np.inf)
    natural = said(causal_scores)
    assert natural.startswith("✓ causal_scores: right, on ") and "float64" in natural
    right = causal_scores

    def causal_scores(q, k):
        return right(q, k).astype(np.longdouble)
    assert said(causal_scores).startswith("✗ causal_scores: the numbers are right, but their type is")

    def fold(g, w):
        return g[:, None] * w
    assert said(fold) == "There is no exercise called fold in this lesson: keep the name that the function had."
    assert checks.exercises("02")["fold"]


def test_the_picture_shows_where_only_one_is_finite(monkeypatch):
    """A mask that is wrong, or an overflow, was a white square once."""
    import figures
    drawn = []
    monkeypatch.setattr(figures, "show", lambda figure, sentence: drawn.append(figure))
    right = np.where(np.tri(4, dtype=bool), 1.0, -np.inf)
    for yours, crosses in ((np.ones((4, 4)), 6), (np.where(np.tri(4, k=-1, dtype=bool), 1.0, -np.inf), 4), (right, 0),
                           (np.where(right > 0, 1.0, np.nan), 6), (-np.where(right > 0, -1.0, -np.inf), 6)):
        checks.picture(yours, right)
        marks, = [line for line in drawn[-1].axes[2].lines if line.get_marker() == "x"]
        assert len(marks.get_xdata()) == crosses
    assert {text.get_text() for text in drawn[0].axes[1].texts} == {"−∞"}


# ---- Structure and numbers -----------------------------------------------------------------------------------

HEADER = ("| **The question** |", "| **You will be able to** |", "| **It assumes** |", "| **Minutes** |")
NUMBER = re.compile(r"(?<![\w.,/#\-])\d[\d,]*(?:\.\d+)?(?![\w/])")
# What a lesson may say without computing it, because a paper says it: L1 LLaMA, L2 Llama 2, with table or section.
PAPERS = {
    "L1 table 2": "6.7 13.0 32.5 65.2 1.0 1.4 4096 5120 6656 8192 32 40 60 80 52 64 2048",
    "L1 table 1": "67.0 15.0 4.5 2.5 2.0 1.10 1.06 0.64 2.45 2.23 1.03 3.3 783 328 83 85 92 78",
    "L1 table 15": "82,432 135,168 530,432 1,022,362",
    "L1 section 2.4": "380 2,048 2048 80 21",
    "L2 table 1": "2.0 4096 34 70",
    "L2 table 2": "184,320 368,640 1,038,336 1,720,320 3,311,616",
    "L2 section 3.1": "27,540 100,000",
    "tokenizer": "32,000 32000",
    "threads": "5.83 5.90 5.91 5.68 0.78 0.02 0.125",
}


def markdown(path):
    return [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "markdown"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_lesson_has_every_part(path):
    cells = markdown(path)
    text, number = "\n\n".join(cells), int(path.stem[:2])
    assert cells[0].startswith(f"# {number}. ")
    assert all(row in cells[0] for row in HEADER)
    headings = re.findall(r"^## (.+)$", text, re.M)
    last = ["In the wild", "Questions", "Exercises", "In five lines"]
    if "Questions" in headings:                           # lessons get theirs one after the other
        questions = text.split("## Questions")[1].split("\n## ")[0]
        assert questions.count("<summary>Answer</summary>") == questions.count("</details>") == 3
    else:
        last.remove("Questions")
    assert headings[-len(last):] == last
    assert len(re.findall(r"^\d\. ", text.split("## In five lines")[1], re.M)) == 5
    assert 2 <= len(lesson_cells(path, "exercise")) <= 4
    assert text.count("**Predict.**") >= 2 and text.count("**Explain.**") >= 2
    code = [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    assert max(len(line) for source in code for line in source.splitlines()) <= 100       # a page is not wider


def spoken(markdown):
    """The prose of a cell: no code, formulas, addresses, headings, table of lessons, numbers of sections and papers."""
    markdown = markdown.replace(build.table(), "")
    for pattern in (r"```.*?```", r"^ {4}.*$", r"\$\$.*?\$\$", r"`[^`]*`", r"\$[^$]*\$", r"\[\d\d(?:\. |\]\()",
                    r"\]\([^)]*\)", r"^#+ .*$", r"^\| \*\*Min.*$", r"https?://\S+", r"arXiv[: ]\d+\.\d+",
                    r"(?:[Ss]ections?|[Tt]ables?|[Ff]igures?|[Ee]quations?|[Aa]ppendix)"
                    r" [A-Z]?[\d.]+(?:(?:,| and| to) [A-Z]?[\d.]+)*",
                    r"\[\d\d\]|[Ll]essons? \d+", r"\w+#\d+(?:[,–] ?#?\d+)*",
                    r"Llama(?: \d and)? \d|LLaMA \d|GPT-\d|float\d+|bfloat\d+|uint\d+|UTF-\d|Qwen\d|\d+-bit"):
        markdown = re.sub(pattern, " ", markdown, flags=re.S | re.M if "```" in pattern or r"\$\$" in pattern else re.M)
    return markdown


def numbers(text):
    return [found.rstrip(",").replace(",", "") for found in NUMBER.findall(text)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_numbers_in_prose_are_computed_or_a_papers(path):
    """Each number above 12 in the prose stands in the lesson's code or output (rounded, perhaps), or in a paper."""
    notebook = nbformat.read(NOTEBOOKS / f"{path.stem}.ipynb", as_version=4)
    computed, captions = "", []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            computed += cell.source + "\n"
            for output in cell.outputs:
                computed += output.get("text", "") + "\n"
                captions += [output["data"]["text/markdown"]] if "text/markdown" in output.get("data", {}) else []
    known = [float(x) for x in re.findall(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", computed.replace(",", "").replace("_", ""))]
    paper = {x for words in PAPERS.values() for x in numbers(words)}
    missing = []
    for text in [cell.source for cell in notebook.cells if cell.cell_type == "markdown"] + captions:
        for number in numbers(spoken(text)):
            digits = len(number.partition(".")[2])
            if not (float(number) <= 12 and digits == 0 or number in paper
                    or any(abs(x * scale - float(number)) <= 0.501 * 10 ** -digits
                           for x in known for scale in (1, 100))):
                missing.append(number)
    assert not missing


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_printed_lines_fit_a_page(path):
    for cell in nbformat.read(NOTEBOOKS / f"{path.stem}.ipynb", as_version=4).cells:
        for output in cell.get("outputs", []):
            assert max(map(len, output.get("text", "").splitlines()), default=0) <= 96


FACTS = {       # what must stand in a lesson, in its text or in what it prints
    "sizes_data_compute":
        "6,738,415,616 13,015,864,320 32,528,943,616 65,285,660,672 33,743,970,304 68,976,648,192 "
        "0.64 2.45 2.23 1.10 1.06 1.03 82,432 135,168 530,432 1,022,362 184,320 368,640 1,038,336 1,720,320 3,311,616 "
        "20.8 78.4 380 2048",
    "grouped_query_attention": "512 800 1560 2560 192 320",
    "swiglu": "11008 13824 17920 22016 28672",
    "chat": "27,540",
}


@pytest.mark.parametrize("lesson", FACTS)
def test_facts_of_the_papers(lesson):
    path, = NOTEBOOKS.glob(f"[0-9][0-9]_{lesson}.ipynb")
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source + "".join(output.get("text", "") for output in cell.get("outputs", []))
                     for cell in notebook.cells)
    for fact in FACTS[lesson].split():
        variants = {fact, fact.replace(",", ""), fact.replace(",", "_"), f"{float(fact.replace(',', '')):,.0f}"
                    if "." not in fact else fact}
        assert any(re.search(rf"(?<![\d.,]){re.escape(form)}(?!\d)", text) for form in variants), fact


# ---- The built lessons ---------------------------------------------------------------------------------------

def test_lessons_are_as_they_were_built():
    """Every lesson, run again: no error, no warning, each figure with its sentence, and what it prints is committed."""
    done = subprocess.run([sys.executable, NOTEBOOKS / "build.py", "--check"], text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(SOURCES)


def test_built_files_belong_to_sources_and_are_small():
    built = {path for folder in (NOTEBOOKS, NOTEBOOKS / "student") for path in folder.glob("*.ipynb")}
    assert {path.stem for path in built} == {path.stem for path in SOURCES} and len(built) == 2 * len(SOURCES)
    assert sum(path.stat().st_size for path in built) < 6e6
    for path in built:
        assert "widgets" not in nbformat.read(path, as_version=4).metadata


def test_student_lessons_hold_no_solution():
    for path in SOURCES:
        text = (NOTEBOOKS / "student" / f"{path.stem}.ipynb").read_text(encoding="utf-8")
        assert "<summary>Solution" not in text and '"output_type"' not in text
        cells = nbformat.reads(text, 4).cells
        assert not any(cell.source.startswith("**Explain.**") for cell in cells)
        for sentence in build.figures.sentences(path.read_text(encoding="utf-8")):
            assert json.dumps(sentence.value, ensure_ascii=False)[1:40] not in text
        for cell in lesson_cells(path, "solution"):
            head, = re.findall(r"^def \w+\(", cell.source, re.M)[-1:]
            found = [c.source for c in cells if c.cell_type == "code" and head in c.source]
            assert len(found) == 1 and found[0].endswith("...")


def test_links_lead_somewhere():
    for folder in (NOTEBOOKS, NOTEBOOKS / "student"):
        for path in folder.glob("*.ipynb"):
            for cell in nbformat.read(path, as_version=4).cells:
                text = cell.source if cell.cell_type == "markdown" else ""
                for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
                    assert (folder / target).exists(), (path.name, target)


def test_figures_have_alternative_texts_on_pages_and_slides(tmp_path):
    """Their sentences, as nbconvert writes them; and nothing on a slide comes from the network."""
    notebook = nbformat.read(NOTEBOOKS / "04_rope.ipynb", as_version=4)
    sentences = [output.metadata["image/png"]["alt"] for cell in notebook.cells for output in cell.get("outputs", [])
                 if "image/png" in output.get("data", {})]
    page, _ = nbconvert.HTMLExporter(template_name="classic").from_notebook_node(notebook)
    build.slides("04_rope", tmp_path)
    slides = (tmp_path / "04_rope.html").read_text(encoding="utf-8")
    for text in (page, slides):
        pictures = bs4.BeautifulSoup(text, "html.parser").find_all("img")
        assert [picture["alt"] for picture in pictures] == sentences and len(sentences) >= 4
    loaded = re.findall(r"""<script[^>]* src="([^"]*)"|<link[^>]* href="([^"]*)"|"(shared/[^"]*\.js)"|from '(.*)'""",
                        slides)
    loaded = ["".join(groups) for groups in loaded]
    files = [address.partition("?")[0] for address in loaded if not address.startswith("data:")]
    assert len(files) >= 7 and all((tmp_path / file).is_file() for file in files)
    for file in files:
        if file.endswith(".css"):
            assert "//" not in "".join(re.findall(r"url\([^)]*\)|@import[^;]*", (tmp_path / file).read_text()))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_lesson_opens_the_explorer(path):
    """Commands, each after a paragraph that says what to do there. test_explorer_page.py tests what they open."""
    text = "\n\n".join(cell.source for cell in jupytext.read(path).cells if cell.cell_type == "markdown")
    commands = re.findall(r"^.*explorer/build\.py.*$", text, re.M)
    assert commands
    for command in commands:
        assert re.fullmatch(r'    python notebooks/explorer/build\.py --open "#[^"]+"', command) and len(command) < 120
        before = text.partition(f"\n\n{command}")[0].rpartition("\n\n")[2]
        assert before.startswith("**Explore** ([explorer](explorer/README.md)). ")


# ---- Grading in bulk -----------------------------------------------------------------------------------------

def hand_in(path, answers, whole=False, setup="", kernel="python3"):
    """Write a filled-in notebook of lesson 02: {exercise: source}; its set-up and exercises, or `whole`."""
    notebook = nbformat.read(NOTEBOOKS / "student" / "02_rmsnorm.ipynb", as_version=4)
    notebook.metadata.kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
    for cell in notebook.cells:
        if "exercise" in build.tags(cell):
            cell.source = answers.get(build.function_name(cell), cell.source)
        if "checks.lesson" in cell.source and not whole:  # the model is not needed
            cell.source = f'{setup}\nimport checks\nimport numpy as np\ncheck = checks.lesson("02")'
    if not whole:
        notebook.cells = [cell for cell in notebook.cells if {"exercise", "hide"} & {*build.tags(cell)}
                          or cell.source.startswith("check(")]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def test_twenty_notebooks_are_graded(tmp_path):
    """Whatever notebooks do, each gets its line, the right marks, and a word on what happened."""
    right = {name: SOLUTIONS["02", name] for name in checks.exercises("02")}
    wrong = checks.exercises("02")["fold"].wrong_answers[0][1]
    scale = "def fold(g, w):\n    return g[:, None] * w"

    def fold(line):
        return right | {"fold": scale.replace("return", line + "\n    return")}
    borrowed = ("import numpy_llama\n\n\ndef norm_in_parts(parts, scales, eps):\n"
                "    whole = numpy_llama.rms_norm(np.concatenate(parts, axis=1), np.concatenate(scales), eps)\n"
                "    return np.split(whole, np.cumsum([part.shape[1] for part in parts])[:-1], axis=1)")
    cases = {                                             # file: (what it is, lesson, right, of, words of the rest)
        "whole.ipynb": (dict(answers=right, whole=True), "02", 3, 3, ""),
        "week 1/right.ipynb": (dict(answers=right), "02", 3, 3, ""),
        "anna/hand-in/2.ipynb": (dict(answers={"fold": scale}), "02", 1, 3,
                                 "pre_norm_block (empty), norm_in_parts (empty)"),
        "wrong.ipynb": (dict(answers=right | {"fold": wrong}), "02", 2, 3, "fold (wrong)"),
        "empty.ipynb": (dict(answers={}), "02", 0, 3,
                        "fold (empty), pre_norm_block (empty), norm_in_parts (empty)"),
        "prints.ipynb": (dict(answers=fold('print("[\\"right\\", []]", {"fold": 1})')), "02", 3, 3, ""),
        "warns.ipynb": (dict(answers=fold('import warnings; warnings.warn("old")')), "02", 3, 3, ""),
        "fails.ipynb": (dict(answers=right | {"norm_in_parts": right["norm_in_parts"] + "\n1 / 0"}), "02", 3, 3,
                        "norm_in_parts: ZeroDivisionError: division by zero"),
        "loops.ipynb": (dict(answers=fold("while True: pass")), "02", 2, 3, "fold (wrong); fold: no end after 6 s"),
        "stubborn.ipynb": (dict(answers=fold("import time\n    while True:\n        try: time.sleep(60)\n"
                                             "        except BaseException: pass")), "02", 0, 3,
                           "(did not run); no end after 6 s, and it cannot be interrupted"),
        "dies.ipynb": (dict(answers=right, setup="import os\nos._exit(1)"), "02", 0, 3,
                       "norm_in_parts (did not run); the kernel died"),
        "exits.ipynb": (dict(answers=fold("import os; os._exit(0)")), "02", 0, 3, "(did not run); the kernel died"),
        "quits.ipynb": (dict(answers=fold("raise SystemExit")), "02", 2, 3, "fold (wrong)"),
        "conda.ipynb": (dict(answers=right, kernel="conda-env-x"), "02", 3, 3, ""),
        "syntax.ipynb": (dict(answers=right | {"fold": "def fold(g, w:\n    return w"}), "02", 2, 3,
                         "fold (did not run); fold: SyntaxError"),
        "setup.ipynb": (dict(answers=right, setup="import a_module_of_mine"), "02", 0, 3,
                        "the set-up failed: ModuleNotFoundError: No module named 'a_module_of_mine'"),
        "borrows.ipynb": (dict(answers=right | {"norm_in_parts": borrowed}), "02", 3, 3,
                          "norm_in_parts calls the solution: nl.rms_norm"),
        "peeks.ipynb": (dict(answers=right | {"fold": "def fold(g, w):\n"
                                              "    return checks.exercises('02')['fold'].answer(g, w)"}), "02", 3, 3,
                        "fold calls the solution: the answer in exercises/"),
        "cut.ipynb": (None, "", 0, 0, "not a notebook"),
        "none.ipynb": (None, "", 0, 0, "not a notebook"),
        "other.ipynb": (None, "", 0, 0, "no lesson"),
    }
    paths = [tmp_path / name for name in cases]
    for path, (made, *_) in zip(paths, cases.values()):
        if made:
            hand_in(path, **made)
    (tmp_path / "cut.ipynb").write_text(paths[0].read_text()[:900])
    (tmp_path / "none.ipynb").write_text("")
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "other.ipynb")
    done = subprocess.run([sys.executable, NOTEBOOKS / "checks.py", *paths, "--csv", "marks.csv", "--seconds", "6"],
                          text=True, capture_output=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    rows = list(csv.reader((tmp_path / "marks.csv").open(encoding="utf-8")))[1:]
    assert len(rows) == len(cases) == len(done.stdout.splitlines()) - 1
    for path, (_, lesson, right, of, words), row, line in zip(paths, cases.values(), rows,
                                                              done.stdout.splitlines()[1:]):
        assert row[:4] == [str(path), lesson, str(right), str(of)] and words in row[4], row
        assert bool(row[4]) == bool(words) and line.startswith(str(path)) and line.rstrip().endswith(row[4]), row


def test_grading_refuses_what_is_not_there(tmp_path):
    def run(*arguments):
        return subprocess.run([sys.executable, NOTEBOOKS / "checks.py", *arguments], text=True, capture_output=True)
    there = hand_in(tmp_path / "there.ipynb", {})
    for arguments, words in (((), "NOTEBOOK"),
                             ((tmp_path / "gone.ipynb",), f"there is no file {tmp_path / 'gone.ipynb'}"),
                             ((there, "--csv", tmp_path), f"cannot write {tmp_path}")):
        done = run(*arguments)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_a_lesson_finds_the_course_wherever_its_kernel_starts(tmp_path):
    """The first cell, run in folders of the repository and beside a clone of it; elsewhere it says where to start."""
    clone = tmp_path / "work" / "clone" / "notebooks"
    clone.mkdir(parents=True)
    (clone / "course.py").touch()
    for folder, place in ((ROOT, NOTEBOOKS), (NOTEBOOKS, NOTEBOOKS), (NOTEBOOKS / "student", NOTEBOOKS),
                          (ROOT / "tests" / "reference", NOTEBOOKS), (tmp_path / "work", clone)):
        code = f"{build.FIND}\nprint(importlib.util.find_spec('course').origin)"
        done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, cwd=folder)
        assert done.stdout.strip() == str(place / "course.py"), (folder, done.stderr)
    done = subprocess.run([sys.executable, "-c", build.FIND], text=True, capture_output=True, cwd=tmp_path)
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: the course is not at {tmp_path}: start this notebook")


# ---- Adding a lesson -----------------------------------------------------------------------------------------

def example(words):
    """The code block of notebooks/README.md that begins with these words."""
    text = (NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    found, = [block for block in re.findall(r"```python\n(.+?)```", text, re.S) if block.startswith(words)]
    return found


def test_a_lesson_is_two_files(tmp_path):
    """The lesson that the README shows, added to a copy of the course, is built, linked and listed."""
    for name in ("source", "exercises", "explorer"):
        shutil.copytree(NOTEBOOKS / name, tmp_path / "notebooks" / name)
    for name in ("build.py", "checks.py", "course.py", "figures.py", "handout.py", "pencil.py", "README.md"):
        shutil.copy(NOTEBOOKS / name, tmp_path / "notebooks")
    for name in ("README.md", "numpy_llama.py"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("weights", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    for folder, words in (("source", "# %% [markdown]"), ("exercises", '"""The exercises of lesson 99')):
        (tmp_path / "notebooks" / folder / "99_counting.py").write_text(example(words), encoding="utf-8")

    def built(*arguments):
        done = subprocess.run([sys.executable, tmp_path / "notebooks" / "build.py", *arguments], text=True,
                              capture_output=True)
        return done.stdout + done.stderr
    assert "README.md is stale" in built("--check", "99")
    assert built("99") == "99_counting: built\n" and built("--check", "99") == "99_counting: as committed\n"
    table = (tmp_path / "notebooks" / "README.md").read_text(encoding="utf-8")
    total = sum(head.minutes for head in build.heads()) + 5
    assert "| [99. Counting](99_counting.ipynb) | count the positive numbers of a row | 5 | 1 |" in table
    assert f"In all {len(SOURCES) + 1} lessons, {total} minutes and {len(EXERCISES) + 1} exercises." in table
    assert "[Counting](notebooks/99_counting.ipynb)" in (tmp_path / "README.md").read_text(encoding="utf-8")
    lesson = nbformat.read(tmp_path / "notebooks" / "99_counting.ipynb", as_version=4)
    assert lesson.cells[-1].source.startswith(f"This was the last lesson. Back to {build.heads()[0].link}")
    assert any(cell.source.startswith("### 1. Count (★, 5 minutes)") for cell in lesson.cells)
    assert any("\n2\n" in "\n" + output.text for cell in lesson.cells for output in cell.get("outputs", []))
    student = (tmp_path / "notebooks" / "student" / "99_counting.ipynb").read_text(encoding="utf-8")
    assert "Open this after the run" in student and "np.sum(x > 0, axis=-1)" not in student
    before = subprocess.run([sys.executable, "-c", f"import build; print(build.next_link({SOURCES[-1].stem!r}))"],
                            text=True, capture_output=True, cwd=tmp_path / "notebooks").stdout
    assert before == "Next: [99. Counting](99_counting.ipynb). *How many of a row's numbers are positive?*\n"


def test_tables_are_as_they_are_written():
    build.write_tables(check=True)
