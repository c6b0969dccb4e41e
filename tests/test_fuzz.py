"""Damaged checkpoints: each ends in one clean line and status 2, or in a correct run; never in anything else.

All runs happen in processes of their own, whose memory is limited, and each has a time limit, so that a crash inside a
library, a hang, or an allocation out of proportion is seen as what it is.
"""
import contextlib
import io
import json
import random
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import checkpoints as ck
import pytest
from conftest import ROOT

import numpy_llama as nl

SECONDS = 20                                                   # for a run that takes milliseconds
MEMORY = 2**30                                                 # beyond what the process has when the runs begin
MODES = [["Once", "-n", "2"], ["--info"], ["Once", "--trace", "run.npz"], ["--perplexity", "text.txt"],
         ["--chat", "-n", "2"]]
CLEAN = re.compile(r"error: .{5,}\n")

HOSTILE = [None, True, False, 0, -1, 1, 2, 3, 7, 16, 17, 10**9, 2**31 - 1, 2**63, 10**30, 10**400, 0.5, 1e-320, 1e300,
           float("nan"), float("inf"), "", "16", "silu", "\0", "\ud800", "../x", "x" * 300, [], [1], [[]], {}, {"a": 1},
           {"rope_type": "default"}]


# ---- Mutations ---------------------------------------------------------------------------------------------------

def damage_bytes(data, rng, start=0, end=None):
    """A file with bytes flipped, cut out, doubled, overwritten or cut off, somewhere between start and end."""
    data, end = bytearray(data), len(data) if end is None else end
    at = rng.randrange(start, end)
    n = min(rng.choice([1, 2, 4, 8, 64]), end - at)
    kind = rng.choice(["flip", "flip", "zero", "ones", "random", "cut", "double", "end"])
    if kind == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif kind in ("zero", "ones", "random"):
        data[at:at + n] = {"zero": bytes(n), "ones": b"\xff" * n, "random": rng.randbytes(n)}[kind]
    elif kind == "cut":
        del data[at:at + n]
    elif kind == "double":
        data[at:at] = data[at:at + n]
    else:
        del data[at:]
    return bytes(data)


def damage_json(value, rng):
    """JSON with a value replaced, removed, moved or added, at any depth."""
    value = json.loads(json.dumps(value))
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        if not (isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.8):
            break
        place = place[key]
    kind = rng.choice(["replace", "replace", "replace", "remove", "move", "add"])
    if kind == "remove":
        del place[key]
    elif kind == "move":
        place[key] = place[rng.choice(keys)]
    elif kind == "add" and isinstance(place, dict):
        new = rng.choice(["rope_scaling", "head_dim", "weight_map", "__metadata__", "shape", "x"])
        place[new] = rng.choice(HOSTILE)
    else:
        place[key] = rng.choice(HOSTILE)
    return value


def damage_header(data, rng):
    """A safetensors file whose header is JSON, and says something else."""
    n = int.from_bytes(data[:8], "little")
    header = json.dumps(damage_json(json.loads(data[8:8 + n]), rng)).encode()
    return len(header).to_bytes(8, "little") + header + data[8 + n:]


def damaged_folders(n, seed):
    """n times (what was done, files of a folder)."""
    rng = random.Random(seed)
    for i in range(n):
        files = dict([ck.hugging_face, ck.meta, ck.sharded][i % 3]())
        weights = rng.choice([name for name in files if name.endswith(".safetensors")])
        header = 8 + int.from_bytes(files[weights][:8], "little")
        target = rng.choice(["length", "data", "header", "header JSON", "header JSON", "JSON", "JSON", "JSON bytes"])
        text = rng.choice([name for name in files if name.endswith(".json")])
        if target == "length":
            files[weights] = damage_bytes(files[weights], rng, 0, 8)
        elif target == "header":
            files[weights] = damage_bytes(files[weights], rng, 8, header)
        elif target == "data":
            files[weights] = damage_bytes(files[weights], rng, header)
        elif target == "header JSON":
            files[weights] = damage_header(files[weights], rng)
        elif target == "JSON":
            files[text] = damage_json(files[text], rng)
        else:
            files[text] = damage_bytes(json.dumps(files[text]).encode(), rng)
        yield f"{i}: {target} of {text if 'JSON' in target[:4] else weights}", files


def damaged_tokenizers(n, seed):
    rng = random.Random(seed)
    for i in range(n):
        model = ck.sentencepiece_model(*[("bpe", 320), ("unigram", 300)][i % 2])
        tail = len(model) - 300                                # where the settings stand, after the pieces
        yield f"{i}: tokenizer.model", ck.hugging_face() | {
            "tokenizer.model": damage_bytes(model, rng, tail if rng.random() < 0.3 else 0)}


# ---- The runs, in a process of their own ---------------------------------------------------------------------------

def run_all(folder, kind, n, seed):
    """Print what each run came to: a line of JSON [what was done, mode, status, standard output, standard error]."""
    import resource
    warnings.simplefilter("error")
    folder = Path(folder)
    (folder / "text.txt").write_text(ck.TEXT)
    size = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)              # ends the process
    damaged = {"folders": damaged_folders, "tokenizers": damaged_tokenizers}[kind]
    for i, (what, files) in enumerate(damaged(n, seed)):
        model = ck.write_folder(folder / f"{i}", files)
        argv = [str(folder / arg) if arg in ("run.npz", "text.txt") else arg for arg in MODES[i % len(MODES)]]
        signal.alarm(SECONDS)
        sys.stdin = io.StringIO("Who are you?\n")
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                status = nl.main(["--model", str(model), "--seed", "1", *argv])
            except BaseException as error:
                status = f"{type(error).__name__}: {error}"
        print(json.dumps([what, argv, status, out.getvalue(), err.getvalue()]), flush=True)


def outcomes(kind, n, seed, folder):
    """What run_all printed, for a process that came to its end."""
    code = f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'tests')]}; import test_fuzz; "
    done = subprocess.run([sys.executable, "-c", code + f"test_fuzz.run_all({str(folder)!r}, {kind!r}, {n}, {seed})"],
                          capture_output=True, text=True, errors="replace")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (done.returncode, results[-1:], done.stderr[-2000:])
    assert len(results) == n
    assert done.stderr == ""                                   # no library speaks for itself
    return results


def check(results):
    """Each refused in one line, or run; both happen."""
    for what, argv, status, out, err in results:
        err = re.sub(r"^.*states no context.*\n", "", err)    # a remark, not an error
        begun = "are not finite" in err                    # that comes to light with the token that needs them
        clean = status == 2 and CLEAN.fullmatch(err) and (begun or not out)
        figures = err if argv[-2:] == ["-n", "2"] and "--chat" not in argv else ""
        ran = status == 0 and out and err == figures
        assert clean or ran, (what, argv, status, out[:200], err[:500])
    return sum(status == 0 for _, _, status, _, _ in results)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs a limit to memory")
@pytest.mark.parametrize("seed", range(3))
def test_damaged_folders(seed, tmp_path):
    ran = check(outcomes("folders", 400, seed, tmp_path))
    assert 40 < ran < 200                                      # most are refused; some damage is none


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs a limit to memory")
def test_damaged_tokenizers(tmp_path):
    ran = check(outcomes("tokenizers", 400, 0, tmp_path))
    assert 40 < ran < 350
