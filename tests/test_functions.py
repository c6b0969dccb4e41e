"""Single functions: right outputs pass, each mistake is named, and other languages can read and write the files.

Oracles: PyTorch's outputs in tests/reference/functions, compilers, and a reader of llama2.c's file that follows its
layout byte by byte.
"""
import io
import json
import math
import re
import shutil
import struct
import subprocess
import sys

import bugs
import compare
import functions
import llama2c_file
import numpy as np
import pytest
from conftest import FAIRYTALES, ROOT
from functions import OUTPUTS, prepared, read_cases, run_of, zoo_of
from make_reference import REFERENCE
from safetensors.numpy import load_file

import numpy_llama as nl

FOLDER = REFERENCE / "functions"


@pytest.fixture
def cli(tmp_path, capsys):
    """Compare outputs, {"case.output": array}: (exit status, the report, or what is on standard error)."""
    def call(function, dump, *options):
        np.savez(tmp_path / "dump.npz", **dump)
        status = compare.main([str(tmp_path / "dump.npz"), "--function", function, "--json", *options])
        out, err = capsys.readouterr()
        return status, json.loads(out) if out else err

    return call


def computed(function, bug_name=None, cases=""):
    """{"case.output": numpy_llama.py's value}, with a bug where it applies, of the cases whose names match."""
    dump = {}
    for case, values in read_cases(function, FOLDER).items():
        if not re.search(cases, case):
            continue
        ready = prepared(function, case, values)
        run = run_of(function, ready)
        bug = next((bug for bug in zoo_of(function, case, ready) if bug.name == bug_name), None)
        trace = bugs.compute(run, bug) or bugs.compute(run)
        for part, name in OUTPUTS[function].items():
            x = trace[name]
            if function == "rope" and case.startswith("pairs"):
                x = functions.interleaved(x)
            dump[f"{case}.{part}"] = x
    return dump


@pytest.mark.parametrize("function", OUTPUTS)
def test_right_outputs_pass(function, cli):
    """PyTorch's and numpy_llama.py's, with every output or the last alone, flat, in float32 and in float16."""
    pytorch = {f"{case}.{part}": values[part] for case, values in read_cases(function, FOLDER).items()
               for part in OUTPUTS[function]}
    for dump in (pytorch, computed(function)):
        status, report = cli(function, dump)
        assert status == 0 and len(report["tensors"]) == len(dump), report
    last = functions.MAIN.get(function, "out")
    short = {name.removesuffix(f".{last}"): x.ravel() for name, x in pytorch.items() if name.endswith(f".{last}")}
    assert cli(function, short)[0] == 0
    half = {name: x.astype(np.float16) for name, x in short.items() if np.isfinite(x.astype(np.float16)).all()}
    status, report = cli(function, half)
    assert status == 0, report["first"]


@pytest.mark.parametrize("function", OUTPUTS)
def test_json_holds_the_same(function):
    tensors = load_file(FOLDER / f"{function}.safetensors")
    text = (FOLDER / f"{function}.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    cases = json.loads(text)["cases"]
    names = {f"{case}.{name}" for case, about in cases.items() for part in about.values() for name in part}
    assert names == set(tensors)
    for case, about in cases.items():
        for name, value in (about["inputs"] | about["outputs"]).items():
            data = np.array([-math.inf if x is None else x for x in value["data"]], np.float32)
            assert np.array_equal(data.reshape(value["shape"]), tensors[f"{case}.{name}"])


def alike(name, found):
    """Bugs that give the same numbers in one function, or in the cases that there are."""
    groups = [{"eps-omitted", "eps-1e-12", "eps-1e-08"}, {"post-norm", "norm-forgotten"},
              {"activation-forgotten", "silu-on-product"}, {"mask-missing", "mask-skipped-with-cache"},
              {"top-p-ignored", "top-k-ignored", "top-p-before-top-k", "top-p-before-temperature"}]
    return found == {name} or name in found and any(found <= group for group in groups)


@pytest.mark.parametrize("function", ["rms_norm", "rope", "softmax", "silu", "feed_forward", "next_token_probs"])
def test_every_mistake_is_named(function, cli):
    some = "plain|halves-code" if function == "rope" else ""        # all twelve cases take twelve seconds
    right, seen = computed(function, None, some), 0
    names = {bug.name for case, values in read_cases(function, FOLDER).items()
             for bug in zoo_of(function, case, prepared(function, case, values))}
    for name in sorted(names):
        dump = computed(function, name, some)
        if all(np.allclose(x, right[key], rtol=1e-6, atol=1e-9, equal_nan=True) for key, x in dump.items()):
            continue                                      # a mistake in weights, which are given here
        status, report = cli(function, dump)
        found = {cause["name"] for cause in report["diagnosis"]}
        assert status == 1 and alike(name, found), (name, found)
        seen += 1
    assert seen >= {"rms_norm": 14, "rope": 13, "softmax": 2, "silu": 6, "feed_forward": 7,
                    "next_token_probs": 8}[function]


@pytest.mark.parametrize("function, name", [
    ("attention", "heads-round-robin"), ("attention", "mask-ignores-cache"), ("attention", "scale-by-width"),
    ("block", "rope-reversed"), ("block", "residual-from-norm"), ("block", "theta-500000")])
def test_mistakes_in_larger_functions(function, name, cli):
    status, report = cli(function, computed(function, name))
    assert status == 1 and name in {cause["name"] for cause in report["diagnosis"]}


def test_overflow_is_explained(cli):
    x = read_cases("silu", FOLDER)["edges"]["x"]
    with np.errstate(all="ignore"):
        status, report = cli("silu", {"edges.out": x * np.exp(x) / (1 + np.exp(x))})
    assert status == 1 and report["tensors"][0]["verdict"] == "NaN"
    assert any("exp overflows" in note for note in report["notes"])


def test_what_is_no_case(cli, tmp_path):
    assert cli("no_such", {"x": np.zeros(3)})[0] == 2
    status, error = cli("rope", {"plain.out": np.zeros(3)})
    assert status == 2 and "holds no case of rope: there are halves-plain" in error
    status, error = cli("softmax", {"plain.out": np.zeros(4)})
    assert status == 2 and "shape" in error
    status, report = cli("softmax", {"plain.out": read_cases("softmax", FOLDER)["plain"]["out"]})
    assert status == 0 and "5 of 6 cases are not in the dump." in report["notes"]


# ---- Other languages -----------------------------------------------------------------------------------------------

RMS_NORM = {     # reads every case with the README's reader, writes it with the README's writer; "wrong" forgets eps
    "c": ("run.c", r"""
#include <math.h>
int main(int count, char **arguments) {
    for (int i = 3; i < count; i++) {
        unsigned long long n, m, one;
        char name[99];
        sprintf(name, "%s.x", arguments[i]); float *x = tensor(arguments[1], name, &n);
        sprintf(name, "%s.weight", arguments[i]); float *weight = tensor(arguments[1], name, &m);
        sprintf(name, "%s.eps", arguments[i]); float *eps = tensor(arguments[1], name, &one);
        if (!x || !weight || !eps || one != 1) return 1;
        float e = arguments[2][0] == 'w' ? 0 : *eps;
        for (unsigned long long r = 0; r < n / m; r++) {
            float s = 0;
            for (unsigned long long j = 0; j < m; j++) s += x[r * m + j] * x[r * m + j];
            for (unsigned long long j = 0; j < m; j++) x[r * m + j] *= weight[j] / sqrtf(s / m + e);
        }
        sprintf(name, "%s.out", arguments[i]); dump(name, x, n);
    }
    dump_write("mine.safetensors");
    return 0;
}""", ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-o", "run", "run.c", "-lm"], ["./run"]),
    "rust": ("run.rs", r"""
fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let mut all = Dump::default();
    for case in &arguments[3..] {
        let read = |name: &str| tensor(&arguments[1], &format!("{case}.{name}"));
        let (x, weight, eps) = (read("x"), read("weight"), if arguments[2] == "wrong" { 0.0 } else { read("eps")[0] });
        let out: Vec<f32> = x.chunks(weight.len()).flat_map(|row| {
            let scale = (row.iter().map(|v| v * v).sum::<f32>() / row.len() as f32 + eps).sqrt();
            row.iter().zip(&weight).map(|(v, w)| v / scale * w).collect::<Vec<f32>>()
        }).collect();
        all.add(&format!("{case}.out"), &out);
    }
    all.write("mine.safetensors").unwrap();
}""", ["rustc", "--edition", "2021", "-D", "warnings", "run.rs"], ["./run"]),
    "js": ("run.js", r"""
const [, , file, how] = process.argv, folder = require("path").dirname(file);
function rmsNorm(x, weight, eps, T, D) {
  const out = new Float32Array(T * D);
  for (let t = 0; t < T; t++) {
    let sum = 0;
    for (let j = 0; j < D; j++) sum += x[t * D + j] ** 2;
    const scale = Math.sqrt(sum / D + (how === "wrong" ? 0 : eps));
    for (let j = 0; j < D; j++) out[t * D + j] = x[t * D + j] / scale * weight[j];
  }
  return out;
}
""", None, ["node", "run.js"]),
}


@pytest.mark.parametrize("language", RMS_NORM)
def test_ten_lines_of_other_languages(language, tmp_path):
    file, main, build, program = RMS_NORM[language]
    if not shutil.which((build or program)[0]):
        pytest.skip(f"{(build or program)[0]} is not installed")
    readme = (REFERENCE / "README.md").read_text(encoding="utf-8")
    writer, reader = re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL)
    parts = [writer, main, reader] if language == "js" else [writer, reader, main]
    (tmp_path / file).write_text("\n".join(parts))
    if build:
        subprocess.run(build, cwd=tmp_path, check=True)
    cases = list(read_cases("rms_norm", FOLDER))
    for how, status in (("right", 0), ("wrong", 1)):
        subprocess.run([*program, FOLDER / "rms_norm.safetensors", how, *cases], cwd=tmp_path, check=True)
        command = [sys.executable, ROOT / "tests" / "compare.py", "mine.safetensors", "--function", "rms_norm"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == status
        text = " ".join(done.stdout.split())
        if how == "wrong":                                # a row of zeros without eps is NaN
            assert ("RMSNorm has no eps" in text or "NaN" in text), text
        else:
            assert f"All {len(cases)} tensors agree" in text, done.stdout + done.stderr


# ---- llama2.c's file -------------------------------------------------------------------------------------------------

def read_llama2c(path):
    """(sizes, {name: array}) in the order in which llama2.c maps its file."""
    data = path.read_bytes()
    D, F, L, H, G, V, S = struct.unpack("<7i", data[:28])
    tied, V, d = V > 0, abs(V), D // H
    shapes = {"embedding": (V, D), "attn_norm": (L, D), "wq": (L, H * d, D), "wk": (L, G * d, D), "wv": (L, G * d, D),
              "wo": (L, D, H * d), "ffn_norm": (L, D), "w1": (L, F, D), "w2": (L, D, F), "w3": (L, F, D), "norm": (D,),
              "cos": (S, d // 2), "sin": (S, d // 2)} | ({} if tied else {"output": (V, D)})
    found, at = {}, 28
    for name, shape in shapes.items():
        found[name] = np.frombuffer(data, "<f4", math.prod(shape), at).reshape(shape)
        at += 4 * math.prod(shape)
    assert at == len(data)
    return (D, F, L, H, G, V, S), found | ({"output": found["embedding"]} if tied else {})


def llama2c_logits(path, tokens):
    """The forward pass of llama2.c, a token at a time: eps 1e-5, theta 10,000, neighbours as pairs."""
    (D, F, L, H, G, V, S), w = read_llama2c(path)
    d, keys, values = D // H, [[] for _ in range(L)], [[] for _ in range(L)]

    def norm(x, weight):
        return weight * (x / np.sqrt(np.mean(x * x) + 1e-5))

    def turn(x, position):
        x = x.reshape(-1, d).copy()
        for j in range(0, d, 2):
            angle = position / 10000.0 ** (j / d)
            a, b = x[:, j].copy(), x[:, j + 1].copy()
            x[:, j], x[:, j + 1] = a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)
        return x

    for position, token in enumerate(tokens):
        x = w["embedding"][token].copy()
        for i in range(L):
            h = norm(x, w["attn_norm"][i])
            q = turn(w["wq"][i] @ h, position)
            keys[i].append(turn(w["wk"][i] @ h, position))
            values[i].append((w["wv"][i] @ h).reshape(G, d))
            heads = []
            for head in range(H):
                scores = np.array([q[head] @ k[head // (H // G)] for k in keys[i]]) / np.sqrt(d)
                probs = np.exp(scores - scores.max())
                heads.append(sum(p * v[head // (H // G)] for p, v in zip(probs / probs.sum(), values[i])))
            x = x + w["wo"][i] @ np.concatenate(heads)
            h = norm(x, w["ffn_norm"][i])
            gate = w["w1"][i] @ h
            x = x + w["w2"][i] @ (gate / (1 + np.exp(-gate)) * (w["w3"][i] @ h))
    return w["output"] @ norm(x, w["norm"])


@pytest.mark.parametrize("folder", ["llama2-float32-hf", "llama2-float32-meta"])
def test_llama2c_file(folder, tmp_path):
    path, case = tmp_path / "model.bin", json.loads((REFERENCE / "cases-llama2.json").read_text())["cases"]
    case = case["llama2-float32/prompt"]
    assert llama2c_file.main([str(REFERENCE / "checkpoints" / folder), str(path)]) == 0
    right = load_file(REFERENCE / case["trace"])["logits"][-1]
    # Rounding: measured 1.2e-6 of the largest.
    assert np.abs(llama2c_logits(path, case["tokens"]) - right).max() < 1e-5 * np.abs(right).max()


def test_llama2c_file_says_what_it_cannot(tmp_path, capsys):
    path = tmp_path / "model.bin"
    assert llama2c_file.main([str(REFERENCE / "checkpoints" / "mqa-bfloat16-meta"), str(path)]) == 0
    sizes, w = read_llama2c(path)
    assert sizes == (32, 48, 2, 4, 1, 80, 64) and np.array_equal(w["output"][:3], w["embedding"][:3])
    assert llama2c_file.main([str(REFERENCE / "checkpoints" / "gqa-float32-hf"), str(path)]) == 0
    assert "theta 1e+06" in capsys.readouterr().err
    assert llama2c_file.main([str(tmp_path / "nowhere"), str(path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_llama2c_tokenizer(tmp_path, tokenizer):
    """Read as llama2.c reads it; a greedy merge of pieces by their scores gives SentencePiece's ids."""
    path = tmp_path / "tokenizer.bin"
    assert llama2c_file.main([str(FAIRYTALES), str(tmp_path / "model.bin"), "--tokenizer", str(path)]) == 0
    file = io.BytesIO(path.read_bytes())
    longest, pieces, scores = struct.unpack("<i", file.read(4))[0], [], []
    for _ in range(tokenizer.vocab_size):
        score, size = struct.unpack("<fi", file.read(8))
        scores.append(score)
        pieces.append(file.read(size).decode())
    assert file.read() == b"" and longest == max(len(piece.encode()) for piece in pieces)
    index = {piece: i for i, piece in enumerate(pieces)}
    ids = [index[character] for character in " Once upon a time"]
    while True:
        merges = [(scores[index[pieces[a] + pieces[b]]], -at) for at, (a, b) in enumerate(zip(ids, ids[1:]))
                  if pieces[a] + pieces[b] in index]
        if not merges:
            break
        at = -max(merges)[1]
        ids[at:at + 2] = [index[pieces[ids[at]] + pieces[ids[at + 1]]]]
    assert ids == tokenizer.encode("Once upon a time", bos=False)
    assert pieces[tokenizer.bos] == "\n<s>\n" and nl.Tokenizer(FAIRYTALES / "tokenizer.model").bos == tokenizer.bos
