"""Every command and every example in README.md and weights/README.md, run again: what they print is what is written.

    python tests/test_readme.py          runs them all and writes what they print into the two files

A ```console block is a command behind `$ ` and its output; a ```python block is followed by its output in a ```text
block. Speeds differ from run to run and are compared as `N tokens/s`.
"""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [ROOT / "README.md", ROOT / "weights" / "README.md"]
CONSOLE = re.compile(r"^```console\n\$ (?P<code>[^\n]*)\n(?P<output>.*?)^```$", re.M | re.S)
PYTHON = re.compile(r"^```python\n(?P<code>[^`]*?)```\n\n```text\n(?P<output>.*?)^```$", re.M | re.S)


def examples():
    return [(path, match) for path in FILES for pattern in (CONSOLE, PYTHON)
            for match in pattern.finditer(path.read_text(encoding="utf-8"))]


def run(match):
    """What the example prints; of a command, standard error too."""
    command, error = [sys.executable, "-c", match["code"]], subprocess.DEVNULL
    if match.re is CONSOLE:
        command, error = ["bash", "-c", match["code"]], subprocess.STDOUT
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, text=True, encoding="utf-8",
                          stdout=subprocess.PIPE, stderr=error)
    return done.stdout


def without_speed(text):
    return re.sub(r"\d+ tokens/s", "N tokens/s", text)


@pytest.mark.parametrize("path, match", [pytest.param(path, match, id=f"{path.parent.name}: {match['code'].strip()[:60]}")
                                         for path, match in examples()])
def test_prints_what_is_written(path, match):
    assert without_speed(run(match)) == without_speed(match["output"])


def test_examples_are_found():
    assert len(examples()) == sum(len(re.findall("^```(?:console|text)$", path.read_text(), re.M)) for path in FILES)
    assert len(examples()) >= 5


def test_the_gate_runs_the_two_commands_of_the_readme():
    commands = re.findall(r"^    (pip install .*)$", FILES[0].read_text(), re.M)
    assert len(commands) == 2
    for command in commands:
        assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_links_lead_somewhere():
    for path in FILES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|<img[^>]* src=\"([^\"]+)\"", path.read_text()):
            assert (path.parent / "".join(target)).exists(), target


if __name__ == "__main__":
    for file, example in sorted(examples(), key=lambda pair: -pair[1].start()):    # so that positions stay true
        text = file.read_text(encoding="utf-8")
        start, end = example.span("output")
        file.write_text(text[:start] + run(example) + text[end:], encoding="utf-8")
        print(f"{file.relative_to(ROOT)}: {example['code'].strip().splitlines()[0]}")
