"""The course: every exercise has its right answer, its wrong ones are named, and every lesson is as it was built.

The lessons themselves are run again, and compared with the committed files, by notebooks/build.py --check.
"""
import ast
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))

import checks  # noqa: E402
import numpy_llama as nl  # noqa: E402
from wrong_answers import WRONG  # noqa: E402

SOURCES = sorted((NOTEBOOKS / "source").glob("*.py"))


def lesson_cells(path, kind):
    return [cell for cell in jupytext.read(path).cells if kind in cell.metadata.get("tags", [])]


def function(source, name):
    """The function of that name, from its source text, with what a reader has imported."""
    scope = {"np": np, "nl": nl}
    exec("import math\n" + source, scope)
    return scope[name]


def written(kind):
    """{name of the function: (source, lesson)} of all cells with that tag."""
    return {ast.parse(cell.source).body[-1].name: (cell.source, path.stem[:2])
            for path in SOURCES for cell in lesson_cells(path, kind)}


EMPTY, SOLUTIONS = written("exercise"), written("solution")


def test_every_exercise_has_a_check_a_solution_and_wrong_answers():
    assert EMPTY.keys() == SOLUTIONS.keys() == checks.EXERCISES.keys() == WRONG.keys()
    for name, task in checks.EXERCISES.items():
        assert task.lesson == EMPTY[name][1] == SOLUTIONS[name][1], name


@pytest.mark.parametrize("name", SOLUTIONS)
def test_solution_passes(name):
    verdict, sentence, _ = checks.judge(function(SOLUTIONS[name][0], name))
    assert verdict == "right", sentence


@pytest.mark.parametrize("name", EMPTY)
def test_empty_answer_is_told_what_to_write(name):
    verdict, sentence, _ = checks.judge(function(EMPTY[name][0], name))
    assert verdict == "empty" and checks.EXERCISES[name].ask in sentence and len(checks.EXERCISES[name].ask) > 20


@pytest.mark.parametrize("name, words, source", [
    pytest.param(name, words, source, id=f"{name}: {words}") for name, answers in WRONG.items()
    for words, source in answers])
def test_wrong_answer_is_named(name, words, source):
    verdict, sentence, _ = checks.judge(function(source, name))
    assert verdict == "wrong" and words in sentence, sentence


def test_wrong_answers_are_many_and_different():
    for name, answers in WRONG.items():
        sentences = {checks.judge(function(source, name))[1] for _, source in answers}
        print(f"{name}: {len(answers)} wrong answers")
        assert len(sentences) == len(answers) >= 4, name
    print(f"{len(WRONG)} exercises, {sum(map(len, WRONG.values()))} wrong answers, all named")


@pytest.mark.parametrize("name", checks.EXERCISES)
def test_no_mistake_is_right(name):
    """Every wrong function in checks.py is wrong on some input, and no two of them are the same."""
    task = checks.EXERCISES[name]
    for sentence, wrong in task.mistakes:
        wrong.__name__ = name
        assert checks.judge(wrong)[:2] == ("wrong", sentence)


# ---- Structure and numbers -----------------------------------------------------------------------------------

HEADER = ("| **You will be able to** |", "| **It assumes** |", "| **Minutes** |")
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
    "GPT-3": "5140",
    "tokenizer": "32,000 32000",
    "threads": "5.83 5.90 0.78 0.02 0.125",
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
    assert headings[-3:] == ["In the wild", "Exercises", "In five lines"]
    assert len(re.findall(r"^\d\. ", text.split("## In five lines")[1], re.M)) == 5
    assert 2 <= len(lesson_cells(path, "exercise")) <= 4
    assert text.count("**Predict.**") >= 2 and text.count("**Explain.**") >= 2
    code = [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    assert max(len(line) for source in code for line in source.splitlines()) <= 100       # a page is not wider


def spoken(markdown):
    """The prose of a cell: no code, formulas, addresses, headings, or numbers of sections and papers."""
    for pattern in (r"```.*?```", r"\$\$.*?\$\$", r"`[^`]*`", r"\$[^$]*\$", r"\]\([^)]*\)", r"^#+ .*$", r"^\| \*\*Min.*$",
                    r"https?://\S+", r"arXiv[: ]\d+\.\d+", r"(?:[Ss]ections?|[Tt]ables?|[Ff]igures?|[Ee]quations?|[Aa]ppendix)"
                    r" [A-Z]?[\d.]+(?:(?:,| and| to) [A-Z]?[\d.]+)*", r"\[\d\d\]|[Ll]essons? \d+", r"\w+#\d+(?:[,–] ?#?\d+)*",
                    r"Llama(?: \d and)? \d|LLaMA \d|GPT-\d|float\d+|bfloat\d+|uint\d+|UTF-\d|Qwen\d|\d+-bit"):
        markdown = re.sub(pattern, " ", markdown, flags=re.S | re.M if "```" in pattern or r"\$\$" in pattern else re.M)
    return markdown


def numbers(text):
    return [found.rstrip(",").replace(",", "") for found in NUMBER.findall(text)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_numbers_in_prose_are_computed_or_a_papers(path):
    """Each number above 12 in the prose stands in the code or the output of the lesson (rounded, perhaps), or in a paper."""
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
                    or any(abs(x * scale - float(number)) <= 0.501 * 10 ** -digits for x in known for scale in (1, 100))):
                missing.append(number)
    assert not missing


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_printed_lines_fit_a_page(path):
    for cell in nbformat.read(NOTEBOOKS / f"{path.stem}.ipynb", as_version=4).cells:
        for output in cell.get("outputs", []):
            assert max(map(len, output.get("text", "").splitlines()), default=0) <= 96


FACTS = {       # what must stand in a lesson, in its text or in what it prints
    "10": "6,738,415,616 13,015,864,320 32,528,943,616 65,285,660,672 33,743,970,304 68,976,648,192 "
          "0.64 2.45 2.23 1.10 1.06 1.03 82,432 135,168 530,432 1,022,362 184,320 368,640 1,038,336 1,720,320 3,311,616 "
          "20.8 78.4 380 2048 28,416",
    "05": "512 800 1560 2560 192 320",
    "06": "11008 13824 17920 22016 28672",
    "11": "27,540",
}


@pytest.mark.parametrize("lesson", FACTS)
def test_facts_of_the_papers(lesson):
    path, = NOTEBOOKS.glob(f"{lesson}_*.ipynb")
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source + "".join(output.get("text", "") for output in cell.get("outputs", []))
                     for cell in notebook.cells)
    for fact in FACTS[lesson].split():
        variants = {fact, fact.replace(",", ""), fact.replace(",", "_"), f"{float(fact.replace(',', '')):,.0f}"
                    if "." not in fact else fact}
        assert any(re.search(rf"(?<![\d.,]){re.escape(form)}(?!\d)", text) for form in variants), fact


# ---- The built lessons ---------------------------------------------------------------------------------------

def test_lessons_are_as_they_were_built():
    """Every lesson, run again: no error, no warning, every figure with its sentence, and what it prints is committed."""
    done = subprocess.run([sys.executable, NOTEBOOKS / "build.py", "--check"], text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(SOURCES) == 13


def test_built_files_belong_to_sources_and_are_small():
    built = {path for folder in (NOTEBOOKS, NOTEBOOKS / "student") for path in folder.glob("*.ipynb")}
    assert {path.stem for path in built} == {path.stem for path in SOURCES} and len(built) == 2 * len(SOURCES)
    assert sum(path.stat().st_size for path in built) < 15e6
    for path in built:
        assert "widgets" not in nbformat.read(path, as_version=4).metadata


def test_student_lessons_hold_no_solution():
    for path in SOURCES:
        text = (NOTEBOOKS / "student" / f"{path.stem}.ipynb").read_text(encoding="utf-8")
        assert "<summary>Solution" not in text and '"output_type"' not in text
        for cell in lesson_cells(path, "solution"):
            head, = re.findall(r"^def \w+\(", cell.source, re.M)[-1:]
            found = [c.source for c in nbformat.reads(text, 4).cells if c.cell_type == "code" and head in c.source]
            assert len(found) == 1 and found[0].endswith("...")


def test_links_lead_somewhere():
    for folder in (NOTEBOOKS, NOTEBOOKS / "student"):
        for path in folder.glob("*.ipynb"):
            for cell in nbformat.read(path, as_version=4).cells:
                for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", cell.source) if cell.cell_type == "markdown" else []:
                    assert (folder / target).exists(), (path.name, target)


def test_a_filled_in_notebook_is_graded(tmp_path):
    """Right, wrong and empty answers of one notebook, and what the command prints of it."""
    path = NOTEBOOKS / "student" / "02_rmsnorm.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.source.startswith("def rms_norm("):
            cell.source = SOLUTIONS["rms_norm"][0]
        if cell.source.startswith("def fold("):
            cell.source = WRONG["fold"][1][1]
    notebook.cells.insert(3, nbformat.v4.new_code_cell("1 / 0"))                      # the rest is still graded
    filled = NOTEBOOKS / "student" / f"{tmp_path.name}.ipynb"
    nbformat.write(notebook, filled)
    try:
        done = subprocess.run([sys.executable, NOTEBOOKS / "checks.py", filled], text=True, capture_output=True)
    finally:
        filled.unlink()
    assert done.stdout.splitlines()[1].split() == [filled.name, "1", "3", "fold", "(wrong),", "pre_norm_block", "(empty)"]


def test_the_course_readme_says_what_the_lessons_say():
    text = (NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    total = 0
    for path in SOURCES:
        head, = [cell for cell in markdown(path) if cell.startswith("# ")]
        title, goal, minutes = (re.search(pattern, head, re.M)[1] for pattern in (
            r"^# (.+)$", r"able to\*\* \| (.+) \|$", r"Minutes\*\* \| (\d+)"))
        exercises = len(lesson_cells(path, "exercise"))
        assert f"| [{title}]({path.stem}.ipynb) | {goal} | {minutes} | {exercises} |" in text, title
        total += int(minutes)
    assert f"All {len(SOLUTIONS)} do." in text and f"{total} minutes and {len(SOLUTIONS)} exercises" in text
