"""Weights that stay in their file give the numbers of those in memory, in every precision, and the same verdicts.

Oracle: numpy_llama.load, which holds every matrix as an array.
"""
import json
import resource
import subprocess
import sys

import bugs
import checkpoints
import compare
import large_models
import numpy as np
import pytest
from bugs import BUGS, Run
from conftest import ROOT
from make_reference import REFERENCE

import numpy_llama as nl

TOKENS = (1, 5, 23, 42, 8, 15)
BUG = {bug.name: bug for bug in BUGS}


@pytest.fixture
def large(monkeypatch):
    """Every model is large, and a matrix is read in several blocks."""
    monkeypatch.setattr(large_models, "LARGE", 0)
    monkeypatch.setattr(large_models, "BLOCK", 200)


@pytest.mark.parametrize("model", ["mha-float16-hf", "gqa-bfloat16-meta", "mqa-float32-hf"])
@pytest.mark.parametrize("precision", ["float64", "float32", "float16", "bfloat16"])
def test_the_same_numbers(model, precision, large):
    folder = REFERENCE / "checkpoints" / model
    weights, config = large_models.load(folder)
    resident, _ = nl.load(folder)
    assert isinstance(weights["layers"][0]["attn"]["wq"], large_models.FileMatrix)
    for part in ("attn", "ffn"):
        for name, w in weights["layers"][1][part].items():
            assert np.array_equal(large_models.dense(w, np.float64), resident["layers"][1][part][name])
    ours, right = (bugs.compute(Run(TOKENS, w, config, (4, 2)), None, precision) for w in (weights, resident))
    for name, x in right.items():
        seen = np.isfinite(x)
        # Blocks are added up in another order: float32 is off by 1e-6 at most; one step of the narrow types is 2^-11.
        share = {"float64": 1e-14, "float32": 4e-6, "float16": 2e-3, "bfloat16": 1.6e-2}[precision]
        assert ours[name].dtype == x.dtype and np.array_equal(seen, np.isfinite(ours[name]))
        assert np.abs(ours[name][seen] - x[seen]).max() <= share * np.abs(x[seen]).max(), name


@pytest.mark.parametrize("name", [None, "gelu", "wo-transposed", "keys-permuted-by-query-heads", "one-layer-repeated"])
def test_the_same_verdict(name, large, tmp_path, capsys, monkeypatch):
    folder = REFERENCE / "checkpoints" / "gqa-float32-hf"
    weights, config = nl.load(folder)
    np.savez(tmp_path / "dump.npz", **bugs.compute(Run(TOKENS, weights, config, (6,)), name and BUG[name]))
    arguments = [str(tmp_path / "dump.npz"), "--model", str(folder), "--tokens", ",".join(map(str, TOKENS)), "--json"]
    assert compare.main(arguments) == int(name is not None)
    report = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(large_models, "LARGE", 10**9)
    compare.main(arguments)
    resident = json.loads(capsys.readouterr().out)
    assert report["first"] == resident["first"] and report["diagnosis"] == resident["diagnosis"]
    assert name is None or name in [cause["name"] for cause in report["diagnosis"]]


def test_no_traceback_when_memory_ends(tmp_path):
    """A mistake in the output of a model whose output matrix, as an array, is more than there is room for."""
    config = nl.Config(1024, 1, 8, 8, 256, 250_000, 64)
    checkpoints.write_shape(tmp_path / "model", config)
    np.savez(tmp_path / "dump.npz", logits=np.random.default_rng(0).random((2, 250_000), np.float32))

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (3 * 2**29, 3 * 2**29))

    command = [sys.executable, ROOT / "tests" / "compare.py", tmp_path / "dump.npz", "--model", tmp_path / "model",
               "--tokens", "1,2"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("error: not enough memory")
