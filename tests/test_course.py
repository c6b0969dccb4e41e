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
