"""The lecturer's kit: questions with answers that hold, plans, minutes, solutions, and exports that mark as checks.py.

Otter is the real package: it builds one lesson's assignment and marks a filled-in notebook, right, wrong and empty.
Of all lessons, each answer that the course knows is judged by the cells that were exported, for Otter and for nbgrader,
in a folder without the repository.

    python tests/test_lecturer.py             ten notebooks, which takes a minute or two
    python tests/test_lecturer.py nbgrader    the same ten by nbgrader, where that is installed
"""
import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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
each_lesson = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)


def section(file, path):
    """What a file of lecturer/ says under the title of a lesson."""
    text = (NOTEBOOKS / "lecturer" / file).read_text(encoding="utf-8")
    title = f"## {int(path.stem[:2])}. {build.read_head(path).title}"
    found = [part for part in re.split(r"(?m)^(?=## )", text) if part.partition("\n")[0] == title]
    assert len(found) == 1, f"{file} needs one section {title}"
    return " ".join(found[0].split())


def points(text):
    """The sum of "2 for this; 1 for each of three": everything between semicolons must be of that form."""
    found = [re.match(r"(\d+) for (?:each of (two|three|four)\b)?", part) for part in text.split("; ")]
    return sum(int(match[1]) * {None: 1, "two": 2, "three": 3, "four": 4}[match[2]] for match in found)


# ---- Questions and investigations ----------------------------------------------------------------------------

@each_lesson
def test_five_questions_with_answers_and_points(path):
    parts = re.split(r"\*\*Question (\d)\*\* ", section("questions.md", path))[1:]
    assert parts[::2] == ["1", "2", "3", "4", "5"]
    for part in parts[1::2]:
        worth, question, answer, marks = re.fullmatch(
            r"\((\d) points(?:, pencil)?\)\. (.+) \*Answer\.\* (.+) \*Points\.\* (.+)", part.strip()).groups()
        assert int(worth) == points(marks), part
        assert len(question) > 40 and len(answer) > 40


@each_lesson
def test_no_question_stands_in_its_lesson(path):
    """No eight words in a row of a question or its answer are the lesson's own."""
    def runs(text):
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i:i + 8]) for i in range(len(words) - 7)}
    lesson = runs(re.sub(r"(?m)^# ?", "", path.read_text(encoding="utf-8")))
    _, _, questions = section("questions.md", path).partition("**Question 1**")
    assert not runs(questions) & lesson


COMPUTED = re.compile(r"`([^`]+)` = ([−-]?\d[\d,]*(?:\.\d+)?)")


@each_lesson
def test_numbers_in_answers_are_what_their_code_gives(path):
    found = COMPUTED.findall(section("questions.md", path))
    for code, said in found:
        number = said.replace(",", "").replace("−", "-")
        value = eval(code, {"math": math, "np": np, "nl": nl, "sum": sum})
        assert abs(value - float(number)) <= 0.501 * 10.0 ** -len(number.partition(".")[2]), (code, value, said)


def test_most_lessons_have_numbers_to_check():
    assert sum(bool(COMPUTED.search(section("questions.md", path))) for path in SOURCES) > len(SOURCES) / 2


@each_lesson
def test_an_investigation_measures_controls_and_is_marked_out_of_ten(path):
    text = section("investigations.md", path)
    _, measures, controls, marks = re.split(r"- \*(?:Measures|Controls|Points):\* ", text)
    assert re.search(r"\*\*[^*]+\?\*\*", text) and measures and controls
    assert points(re.sub(r"\. If .*", "", marks)) == 10, marks


# ---- Plans, minutes, solutions -------------------------------------------------------------------------------

def test_plans_name_lessons():
    readme = (NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in readme.split("| plan |")[1].split("\n\n")[0].splitlines()[2:]]
    assert [row[0] for row in rows] == ["one lecture", "a week", "four weeks", "half a semester"]
    for plan, lessons, in_class, homework in rows:
        named = set()
        for first, last in re.findall(r"(\d\d)(?:–(\d\d))?", lessons):
            named |= set(range(int(first), int(last or first) + 1))
        assert len(named) >= 4 and "minutes" in in_class and homework, plan
        assert named <= {int(path.stem[:2]) for path in SOURCES}, plan


@pytest.mark.parametrize("path", build.sources(), ids=lambda path: path.stem)
def test_a_lesson_states_about_the_minutes_that_its_sections_add_up_to(path):
    stated = int(re.search(r"\*\*Minutes\*\* \| (\d+) \|", path.read_text(encoding="utf-8"))[1])
    assert abs(stated - sum(build.section_minutes(path).values())) <= 10


def test_minutes_of_a_section(tmp_path, monkeypatch):
    """Counted by hand: 300 words, 24 lines and a figure; a prediction, a formula, a question; two exercises."""
    path = tmp_path / "98_minutes.py"
    cells = ["# %% [markdown]\n# # 98. Minutes\n#\n# " + "word " * 148 + "\n#\n# ## One\n#\n# " + "word " * 148,
             "# %% tags=[\"hide\"]\nimport numpy", "# %%\n" + "x = 1\n\n" * 23 + "figures.show(figure, 'A sentence.')",
             "# %% [markdown]\n# ## Two\n#\n# **Predict.** $$a + b$$\n#\n# <summary>Answer</summary>",
             "# %% [markdown]\n# ## Exercises\n#\n# " + "word " * 500, "# %%\ncheck(f)",
             "# %% [markdown]\n# ## In five lines"]
    path.write_text("\n\n".join(cells), encoding="utf-8")
    task = checks.Exercise(len, 1, 5, [], [], [], [])
    monkeypatch.setattr(checks, "exercises", lambda number: {"f": task, "g": task})
    assert build.section_minutes(path) == {"One": 2 + 2 + 1, "Two": 5, "Exercises": 10, "In five lines": 1}


def test_solutions_in_one_file(tmp_path):
    """Each code block of the file passes its exercise, and each mistake that is named stands in it."""
    file = tmp_path / "solutions.md"
    assert build.main(["--solutions", str(file)]) == 0
    parts = re.split(r"(?m)^## (\d+)\. ", file.read_text(encoding="utf-8"))[1:]
    assert [int(number) for number in parts[::2]] == [int(path.stem[:2]) for path in SOURCES]
    for number, text in zip(parts[::2], parts[1::2]):
        tasks = checks.exercises(f"{int(number):02}")
        blocks = re.findall(r"```python\n(.+?)\n```", text, re.S)
        assert len(blocks) == len(tasks)
        for block in blocks:
            scope = {"np": np, "nl": nl, "math": math}
            exec(block, scope)
            name = re.match(r"def (\w+)", block)[1]
            assert checks.judge(tasks[name], scope[name])[0] == "right"
        for task in tasks.values():
            assert all(f"\n- {sentence}\n" in text + "\n" for sentence, _ in task.mistakes)


def test_one_lesson_of_solutions_and_what_is_refused(tmp_path, capsys):
    build.main(["--solutions", str(tmp_path / "02.md"), "02"])
    assert (tmp_path / "02.md").read_text(encoding="utf-8").count("\n## ") == 1
    for arguments, words in ((["--export", "moodle", str(tmp_path)], "not for moodle"),
                             (["--solutions", str(tmp_path)], str(tmp_path)),
                             (["--export", "otter", str(tmp_path / "02.md")], "02.md"),
                             (["--solutions", "x", "77"], "no such lesson")):
        with pytest.raises(SystemExit) as stopped:
            build.main(arguments)
        assert stopped.value.code == 2 and words in capsys.readouterr().err


# ---- Exports -------------------------------------------------------------------------------------------------

MARK = """
import json, sys
from pathlib import Path
import nbformat
marks = []
for folder, answers in json.load(sys.stdin):              # each lesson with its own copies of the course's files
    for module in ("checks", "figures", "numpy_llama"):
        sys.modules.pop(module, None)
    sys.path[0] = folder
    notebook = nbformat.read(Path(folder) / (Path(folder).name + ".ipynb"), as_version=4)
    setup, *cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    test_of = {answer.split("(")[0].removeprefix("def "): test for answer, test in zip(cells[::2], cells[1::2])}
    for name, answer in answers:
        scope, message = {}, ""
        exec(setup, scope)
        try:
            exec(answer or cells[list(test_of).index(name) * 2], scope)
            exec(test_of[name], scope)
            if "test_" + name in scope:                   # Otter's tests are functions
                scope["test_" + name](scope[name])
        except Exception as error:
            message = str(error)
        marks.append([folder, name, message])
    import figures                                        # `check` draws some wrong answers
    for module in (scope["checks"], scope["nl"], figures):
        assert Path(module.__file__).parent == Path(folder)
print(json.dumps(marks))
"""


def run(folder, *arguments, stdin=None):
    """What a command prints that is run in a folder, as if there were no repository."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]      # nbgrader's alembic
    done = subprocess.run([sys.executable, *arguments], text=True, capture_output=True, cwd=folder, env=environment,
                          input=stdin)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def answers_to(path):
    """[(exercise, source)] of a lesson: the solution, nothing, every wrong answer, and one that fails."""
    found = []
    for task in build.tasks(path):
        found += [(task.name, task.solution), (task.name, f"{task.head}\n    ..."),
                  (task.name, task.solution.partition("\n")[0] + "\n    return 1 / 0")]
        found += [(task.name, source) for _, source in checks.exercises(path.stem[:2])[task.name].wrong_answers]
    return found


@pytest.fixture(scope="module")
def known():
    """[(lesson, exercise, source, what checks.py says: nothing to a right answer)]"""
    found = []
    for path in SOURCES:
        for name, source in answers_to(path):
            scope = {"np": np, "nl": nl, "math": math}
            exec(source, scope)
            verdict, sentence, _ = checks.judge(checks.exercises(path.stem[:2])[name], scope[name])
            found.append((path.stem, name, source, "" if verdict == "right" else sentence))
    return found


@pytest.mark.parametrize("kind", ["otter", "nbgrader"])
def test_an_export_marks_every_known_answer_as_checks_does(kind, known, tmp_path):
    """In folders without the repository: the same mark, and the same sentence to whoever is wrong."""
    assert build.main(["--export", kind, str(tmp_path)]) == 0
    folder = tmp_path / "source" if kind == "nbgrader" else tmp_path
    asked = [[str(folder / path.stem), answers_to(path)] for path in SOURCES]
    done = run(tmp_path, "-c", MARK, stdin=json.dumps(asked))
    marks = json.loads(done.splitlines()[-1])
    assert [(Path(place).name, name, message) for place, name, message in marks] == [
        (stem, name, said) for stem, name, _, said in known]
    assert [said for *_, said in known].count("") == sum(len(checks.exercises(path.stem[:2])) for path in SOURCES)


RIGHT = {task.name: task.solution for path in SOURCES if path.stem[:2] == "02" for task in build.tasks(path)}
WRONG = {name: [source for _, source in task.wrong_answers] for name, task in checks.exercises("02").items()}
FIRST, SECOND, THIRD = RIGHT                              # the names of three exercises
LINE = {name: solution.partition("\n")[0] for name, solution in RIGHT.items()}                # def name(...):
HAND_IN = {     # {file: answers}; the gate has time for the first
    "right-wrong-empty": {FIRST: RIGHT[FIRST] + "\n1 / 0", SECOND: WRONG[SECOND][0]},
    "stops-misspelled-prints": {FIRST: LINE[FIRST] + "\n    raise SystemExit", SECOND: LINE[SECOND].replace(")", ""),
                                THIRD: RIGHT[THIRD].replace("\n", "\n    print(1)\n", 1)},
    "right": RIGHT, "empty": {}, **{f"wrong-{i}": {name: every[i] for name, every in WRONG.items()} for i in range(4)},
    "renamed": RIGHT | {SECOND: RIGHT[SECOND].replace(SECOND, "renamed")},
    "fails-first": RIGHT | {FIRST: "1 / 0\n" + RIGHT[FIRST]},
}
GRADE = """
import json, sys
from otter.api import grade_submission
archive, *notebooks = sys.argv[1:]
for notebook in notebooks:
    results = grade_submission(notebook, archive, quiet=True)
    print(json.dumps({name: results.get_score(name) for name in results.test_files}))
"""


def fill_in(blank, folder, names):
    """Write notebooks of HAND_IN: a blank one, with answers in some cells."""
    paths = []
    for file in names:
        notebook = nbformat.read(blank, as_version=4)
        for cell in notebook.cells:
            name = cell.source.split("(")[0].removeprefix("def ")
            if cell.cell_type == "code" and name in HAND_IN[file]:
                cell.source = HAND_IN[file][name].strip()
        paths.append(folder / f"{file}.ipynb")
        nbformat.write(notebook, paths[-1])
    return paths


def marks_of_otter(folder, names):
    """Build lesson 02's assignment with Otter, and mark notebooks: their paths, [{exercise: mark}]."""
    build.main(["--export", "otter", str(folder), "02"])
    run(folder, "-m", "otter", "assign", "--no-run-tests", "02_rmsnorm/02_rmsnorm.ipynb", "dist")
    blank, = (folder / "dist" / "student").glob("*.ipynb")
    archive, = (folder / "dist" / "autograder").glob("*.zip")
    assert not any(task.body.strip() in cell.source for cell in nbformat.read(blank, as_version=4).cells
                   for task in build.tasks(next(path for path in SOURCES if path.stem[:2] == "02")))
    paths = fill_in(blank, folder, names)
    lines = run(folder, "-c", GRADE, archive, *paths).splitlines()
    return paths, [json.loads(line) for line in lines if line.startswith("{")]


def marks_of_nbgrader(folder, names):
    """The same with nbgrader, which is not among the tests' requirements."""
    build.main(["--export", "nbgrader", str(folder), "02"])
    run(folder, "-m", "nbgrader", "generate_assignment", "02_rmsnorm")
    paths = fill_in(folder / "release" / "02_rmsnorm" / "02_rmsnorm.ipynb", folder, names)
    for path in paths:
        (folder / "submitted" / path.stem / "02_rmsnorm").mkdir(parents=True)
        shutil.copy(path, folder / "submitted" / path.stem / "02_rmsnorm" / "02_rmsnorm.ipynb")
    run(folder, "-m", "nbgrader", "autograde", "02_rmsnorm")
    from nbgrader.api import Gradebook
    marks = []
    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as gradebook:
        for path in paths:
            notebook, = gradebook.find_submission("02_rmsnorm", path.stem).notebooks
            marks.append({grade.name.removeprefix("test-"): grade.score for grade in notebook.grades})
    return paths, marks


def assert_as_checks_does(paths, marks):
    """The same notebooks, marked by checks.py: the same marks for each exercise."""
    run(paths[0].parent, NOTEBOOKS / "checks.py", *paths, "--csv", "marks.csv")
    rows = list(csv.DictReader((paths[0].parent / "marks.csv").open(encoding="utf-8")))
    assert len(marks) == len(rows) == len(paths)
    for mark, row in zip(marks, rows):
        wanting = set(re.findall(r"(\w+) \(", row["not yet right, and remarks"]))
        assert mark == {name: float(name not in wanting) for name in RIGHT}, row
        assert sum(mark.values()) == int(row["right"])
        print(f"{int(row['right'])} of {row['of']}  {row['notebook']}")


def test_otter_builds_an_assignment_and_marks_notebooks_as_checks_does(tmp_path):
    paths, marks = marks_of_otter(tmp_path, list(HAND_IN)[:1])
    assert marks == [{FIRST: 1, SECOND: 0, THIRD: 0}]
    assert_as_checks_does(paths, marks)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        marks_of = marks_of_nbgrader if "nbgrader" in sys.argv[1:] else marks_of_otter
        assert_as_checks_does(*marks_of(Path(temporary), list(HAND_IN)))
