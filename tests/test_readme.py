"""Every command and every example in README.md and weights/README.md, run again: what they print is what is written.

    python tests/test_readme.py          runs them all and writes what they print into the two files

A ```console block is a command behind `$ ` and its output; a ```python block is followed by its output in a ```text
block. The words must be the same, and the numbers but for what rounding changes on another processor; speeds may
differ.
"""
import csv
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
    before = set(ROOT.glob("*.npz"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, text=True, encoding="utf-8",
                          stdout=subprocess.PIPE, stderr=error)
    for dump in set(ROOT.glob("*.npz")) - before:         # what an example saves is not left behind
        dump.unlink()
    return done.stdout


def words_and_numbers(text):
    """The text without its numbers, and the numbers; whole numbers are words."""
    text = re.sub(r"[\d.]+ tokens/s", "N tokens/s", text)
    decimal = r"-?\d+\.\d+(?:e[+-]\d+)?"
    return re.sub(r" +", " ", re.sub(decimal, "x", text)), [float(x) for x in re.findall(decimal, text)]


@pytest.mark.parametrize("path, match", [
    pytest.param(path, match, id=f"{path.parent.name}: {match['code'].strip()[:60]}") for path, match in examples()])
def test_prints_what_is_written(path, match):
    words, numbers = words_and_numbers(run(match))
    expected_words, expected = words_and_numbers(match["output"])
    assert words == expected_words
    assert numbers == pytest.approx(expected, rel=1e-2, abs=1e-4)


def test_examples_are_found():
    assert len(examples()) == sum(len(re.findall("^```(?:console|text)$", path.read_text(), re.M)) for path in FILES)
    assert len(examples()) >= 5


def test_the_gate_runs_the_two_commands_of_the_readme():
    commands = re.findall(r"^    (pip install .*)$", FILES[0].read_text(), re.M)
    assert len(commands) == 2
    for command in commands:
        assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_model_card_says_what_was_measured():
    with (ROOT / "weights" / "fairytales" / "training.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    card = FILES[1].read_text(encoding="utf-8")
    assert f"**{float(last['held_out_bits_per_byte']):.2f} bits per byte**" in card
    assert f"{int(last['step']):,} steps" in card and f"{int(last['tokens']) / 1e6:.1f}M tokens" in card
    assert f"{(ROOT / 'weights' / 'fairytales' / 'model.safetensors').stat().st_size:,} bytes" in card


def test_the_speeds_are_those_that_were_kept():
    def shown(option):
        command = [sys.executable, ROOT / "tests" / "benchmark.py", option, ROOT / "tests" / "benchmark.json"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert shown("--short") in FILES[0].read_text(encoding="utf-8") and shown("--short").count("\n|") <= 2 + 12
    assert shown("--show") in (ROOT / "tests" / "benchmark.md").read_text(encoding="utf-8")


def test_pictures_are_of_the_same_kind(tmp_path, monkeypatch):
    """Drawn again, they have the same size; their content changes with the model and with matplotlib."""
    monkeypatch.syspath_prepend(str(ROOT / "notebooks"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    import figures
    import matplotlib.image
    for name in ("notebooks", "weights"):
        (tmp_path / name).mkdir()
    figures.main(tmp_path)
    for name in ("notebooks/model.png", "notebooks/speed.png", "weights/training.png"):
        assert matplotlib.image.imread(tmp_path / name).shape == matplotlib.image.imread(ROOT / name).shape


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
