"""The project around the code: what it requires, what it holds, how its files read, and what the gate runs."""
import ast
import re
import subprocess
import sys
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
MODEL = (ROOT / "numpy_llama.py").read_text(encoding="utf-8")
SECTIONS = ["Config", "Primitives", "Taps", "Positions", "Attention", "The model", "Generation", "Tokenizer",
            "The objective", "Sizes", "Long prompts", "Weights", "Lazy weights", "Command line"]
TOP_LEVEL = {"numpy_llama.py", "notebooks", "weights", "tests", "requirements.txt", "README.md", "LICENSE"}


def requirements(path):
    """{name: Requirement} of the lines of a file, but for comments and references to other files."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def all_requirements():
    return requirements("requirements.txt") | requirements("tests/requirements.txt")


def git_files(*patterns):
    names = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, check=True).stdout
    return names.decode().rstrip("\0").split("\0")


def readme_commands():
    return re.findall(r"^    (pip install .*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)


# ---- Requirements --------------------------------------------------------------------------------------------

def test_the_script_metadata_and_requirements_agree():
    header = re.match(r"# /// script\n(.*?)# ///\n", MODEL, re.S)[1].replace("# ", "")
    dependencies = ast.literal_eval(re.search(r"^dependencies = (\[.*?\])", header, re.M | re.S)[1])
    script = {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, dependencies)}
    required = requirements("requirements.txt")
    assert len(script) >= 6
    assert script == {name: required.get(name) for name in script}


def test_every_requirement_has_an_upper_bound():
    assert len(all_requirements()) >= 20
    for name, requirement in all_requirements().items():
        operators = {part.operator for part in requirement.specifier}
        assert operators & {"<", "<=", "=="}, f"{name} has no upper bound"


def test_constraints_satisfy_the_requirements():
    exact = requirements("tests/constraints.txt")
    versions = {}
    for name, pin in exact.items():
        (part,) = pin.specifier
        assert part.operator == "==" and "*" not in part.version and "+" not in part.version, str(pin)
        versions[name] = part.version
    for name, requirement in all_requirements().items():
        assert name in versions, f"{name} is missing in tests/constraints.txt"
        assert requirement.specifier.contains(versions[name], prereleases=True), f"{requirement}, not {versions[name]}"


# ---- Files ---------------------------------------------------------------------------------------------------

def test_the_top_level_holds_only_what_belongs_there():
    names = {name.split("/")[0] for name in git_files()}
    assert {name for name in names if not name.startswith(".")} == TOP_LEVEL


def test_ruff_finds_nothing():
    files = [name for name in git_files("*.py", "*.ipynb") if (ROOT / name).exists()]
    assert len(files) >= 20
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", *files],
                          cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


# ---- The gate ------------------------------------------------------------------------------------------------

def test_the_workflow_runs_the_commands_of_the_readme():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "gate.yml").read_text(encoding="utf-8"))
    gate = workflow["jobs"]["gate"]
    commands = [step["run"] for step in gate["steps"] if step.get("run", "").startswith("pip install")]
    assert len(commands) == 2 and commands == readme_commands()
    matrix = gate["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    oldest = re.search(r'requires-python = ">=(.*?)"', MODEL)[1]
    assert matrix["python"][0] == oldest


# ---- The order of numpy_llama.py -----------------------------------------------------------------------------

def function(name):
    return next(node for node in ast.parse(MODEL).body if isinstance(node, ast.FunctionDef) and node.name == name)


def end_of_the_model():
    """The number of the line that begins with `# ====`: behind sections 1 to 7."""
    (line,) = [n for n, text in enumerate(MODEL.splitlines(), start=1) if text.startswith("# ====")]
    return line


def test_sections_are_there_in_order():
    headers = re.findall(r"^# ---- (\d+)\. (.+?) -+$", MODEL, re.M)
    assert headers == [(str(number), name) for number, name in enumerate(SECTIONS, start=1)]
    lines = MODEL.splitlines()
    assert [line[:9] for line in lines[:end_of_the_model()] if line.startswith("# ---- ")][-1] == "# ---- 7."


def test_the_model_comes_first_and_is_short():
    assert end_of_the_model() < 370
    _, first_formula, *_ = function("softmax").body
    assert first_formula.lineno < 105
    assert function("forward").end_lineno <= 285


def test_the_model_imports_nothing_but_numpy():
    end = end_of_the_model()
    modules = set()
    for node in ast.walk(ast.parse(MODEL)):
        if isinstance(node, ast.Import) and node.lineno < end:
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.lineno < end:
            modules.add(node.module)
    assert modules == {"math", "dataclasses", "numpy"}
