"""tests/reference: is what its seed makes, is what numpy_llama.py computes, and can be used from other languages.

Oracles: PyTorch's traces, SentencePiece's ids, transformers' warpers, safetensors' own reader, and compilers.
"""
import json
import re
import shutil
import subprocess
import sys

import make_reference
import numpy as np
import pytest
import torch
from conftest import ROOT
from make_reference import REFERENCE
from safetensors.numpy import load_file, save_file

import numpy_llama as nl

CASES = {name: case for file in ("cases.json", "cases-llama2.json")
         for name, case in json.loads((REFERENCE / file).read_text())["cases"].items()}


def test_committed_is_what_the_seed_makes():
    check = [sys.executable, ROOT / "tests" / "make_reference.py", "--check"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_check_sees_every_change(tmp_path):
    """A flipped bit of a checkpoint, a moved trace, another case, a missing or an extra file."""
    kept = tmp_path / "kept"
    shutil.copytree(REFERENCE, kept)
    assert list(make_reference.differences(REFERENCE, kept)) == []

    def change(name, edit):
        path = kept / name
        before = path.read_bytes()
        edit(path)
        found = list(make_reference.differences(REFERENCE, kept))
        path.write_bytes(before)
        return [sentence.split()[0].rstrip(":") for sentence in found]

    def last_bit(path):
        path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))

    def moved(share):
        def edit(path):
            trace = load_file(path)
            trace["layers.0.attn.out"] += share * np.abs(trace["layers.0.attn.out"]).max()
            save_file(trace, path)
        return edit

    def another_number(path):
        tensors = torch.load(path, weights_only=True)
        tensors["norm.weight"][3] += 1e-6
        torch.save(tensors, path)

    pickled = "checkpoints/gqa-float32-meta/consolidated.00.pth"
    weights, trace = "checkpoints/mqa-bfloat16-meta/model.safetensors", "traces/gqa-float16-chunk.safetensors"
    assert change(weights, last_bit) == [weights]
    assert change(trace, moved(2e-5)) == [trace] and change(trace, moved(1e-7)) == []
    assert change("cases.json", last_bit) == ["cases.json"]
    assert change("sampling.json", lambda p: p.write_text(p.read_text().replace("0.7", "0.8"))) == ["sampling.json"]
    assert change("tokenizer.json", last_bit) == ["tokenizer.json"]
    assert change("functions/rope.safetensors", last_bit) == ["functions/rope.safetensors"]
    numbers = "functions/rope.json"
    assert change(numbers, lambda p: p.write_text(p.read_text().replace("0.9", "0.8", 1))) == [numbers]
    assert change(numbers, lambda p: p.write_text(p.read_text().replace('"halves-far"', '"far"', 1))) == [numbers]
    assert change(pickled, another_number) == [pickled]
    assert change(trace, lambda path: path.unlink()) == [trace]
    (kept / "extra").write_text("")
    assert len(list(make_reference.differences(REFERENCE, kept))) == 1


def test_every_combination_is_there():
    assert {f"{model}-{dtype}/{run}" for model in ("mha", "gqa", "mqa") for dtype in ("float32", "float16", "bfloat16")
            for run in ("prompt", "chunk", "decode")} | {
        "far-float32/decode", *(f"llama2-float32/{run}" for run in ("prompt", "chunk", "decode"))} == CASES.keys()
    readers = {"mha": (4, 4), "gqa": (4, 2), "mqa": (4, 1), "llama2": (4, 4)}
    for folder in (REFERENCE / "checkpoints").iterdir():
        size = (folder / "model.safetensors").stat().st_size
        assert size < 100_000
        model, dtype, layout = folder.name.split("-")
        header = (folder / "model.safetensors").read_bytes()[8:]
        assert {"float32": b'"F32"', "float16": b'"F16"', "bfloat16": b'"BF16"'}[dtype] in header[:4000]
        assert (b"tok_embeddings" in header[:4000]) == (layout == "meta")
        weights, config = nl.load(folder)
        if model in readers:
            assert (config.n_heads, config.n_kv_heads) == readers[model]
        assert np.array_equal(weights["output"], weights["embedding"].T) == (model == "mqa")
        assert (folder / "consolidated.00.pth").exists() == (layout == "meta" and dtype == "float32")
        if model == "llama2":
            assert (config.norm_eps, config.rope_theta) == (1e-5, 10000)
    assert sum(path.stat().st_size for path in REFERENCE.rglob("*") if path.is_file()) < 4_000_000
    assert sum(path.stat().st_size for path in (REFERENCE / "functions").iterdir()) < 500_000
    far = CASES["far-float32/decode"]
    assert len(far["tokens"]) == 4096 and far["chunks"][-1] == 16


@pytest.mark.parametrize("layout", ["checkpoint", "same_in_metas_layout"])
@pytest.mark.parametrize("case", CASES)
def test_numpy_llama_gives_pytorchs_trace(case, layout):
    case = CASES[case]
    if layout not in case:
        pytest.skip("in Hugging Face's layout only")
    weights, config = nl.load(REFERENCE / case[layout])
    cache = [nl.KVCache(config, len(case["tokens"])) for _ in range(config.n_layers)]
    start = 0
    for size in case["chunks"]:
        trace = nl.Trace()
        nl.forward(case["tokens"][start:start + size], weights, config, cache, trace)
        start += size
    kept = load_file(REFERENCE / case["trace"])
    assert set(kept) == set(trace) - ({"layers.0.attn.scores", "layers.0.attn.probs"} if size == 16 else set())
    for name, x in kept.items():
        assert x.dtype == np.float32 and x.shape == trace[name].shape
        seen = np.isfinite(x)
        assert np.array_equal(seen, np.isfinite(trace[name]))
        # Measured at most 1.7e-6 of the largest value.
        assert np.abs(trace[name][seen] - x[seen]).max() <= 4e-6 * np.abs(x[seen]).max(), name


@pytest.mark.parametrize("model", ["mha", "gqa", "mqa", "llama2"])
def test_pth_holds_what_the_safetensors_beside_it_hold(model):
    folder = REFERENCE / "checkpoints" / f"{model}-float32-meta"
    pickled = torch.load(folder / "consolidated.00.pth", weights_only=True)
    plain = load_file(folder / "model.safetensors")
    assert pickled.keys() == plain.keys()
    assert all(np.array_equal(x.numpy(), plain[name]) for name, x in pickled.items())


def test_tokenizer_vectors(tokenizer):
    vectors = json.loads((REFERENCE / "tokenizer.json").read_text(encoding="utf-8"))["vectors"]
    texts = [v["text"] for v in vectors]
    assert len(texts) > 50 and {"<s>", "  two  spaces  ", "😀", "\n", "[INST] hi [/INST]"} <= set(texts)
    assert any(3 <= i < 259 for v in vectors for i in v["ids"])     # bytes: characters that are not in the vocabulary
    for v in vectors:
        assert tokenizer.encode(v["text"], bos=False) == v["ids"]
        assert tokenizer.encode(v["text"]) == [tokenizer.bos] + v["ids"]
        assert tokenizer.decode(v["ids"]) == v["decoded"]
        assert v["decoded"] == v["text"].replace("▁", " ")         # SentencePiece's own sign for a space


def test_sampling_vectors():
    vectors = json.loads((REFERENCE / "sampling.json").read_text())["vectors"]
    assert len(vectors) >= 40
    for v in vectors:
        probs = nl.next_token_probs(np.array(v["logits"]), v["temperature"], v["top_k"], v["top_p"])
        # Both in float64, where a logit of 1,000 over a temperature is rounded by 1e-13. Measured 1.5e-14.
        np.testing.assert_allclose(probs, v["probs"], rtol=0, atol=1e-13)


# ---- Other languages -------------------------------------------------------------------------------------------

MAINS = {      # what each does with the snippet: dump tensors from raw floats, each at a position
    "c": ("snippet.c", r"""
#include <stdlib.h>
int main(int count, char **arguments) {
    for (int i = 1; i + 3 < count; i += 4) {
        unsigned long long n = strtoull(arguments[i + 2], 0, 10);
        float *x = malloc(4 * n);
        if (fread(x, 4, n, fopen(arguments[i + 3], "rb")) != n) return 1;
        position = atoi(arguments[i + 1]);
        dump(arguments[i], x, n);
    }
    dump_write(arguments[count - 1]);
    return 0;
}""", ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-o", "snippet", "snippet.c"], ["./snippet"]),
    "rust": ("snippet.rs", r"""
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mut all, last) = (Dump::default(), arguments.len() - 1);
    for part in arguments[..last].chunks(4) {
        let bytes = std::fs::read(&part[3]).unwrap();
        let x: Vec<f32> = bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        all.position = part[1].parse().unwrap();
        all.add(&part[0], &x);
    }
    all.write(&arguments[last]).unwrap();
}""", ["rustc", "--edition", "2021", "-D", "warnings", "snippet.rs"], ["./snippet"]),
    "js": ("snippet.js", r"""
const [, , ...args] = process.argv;
for (let i = 0; i + 3 < args.length; i += 4) {
  const bytes = require("fs").readFileSync(args[i + 3]);
  position = Number(args[i + 1]);
  dump(args[i], new Float32Array(new Uint8Array(bytes).buffer));
}
dumpWrite(args[args.length - 1]);
""", None, ["node", "snippet.js"]),
}


@pytest.mark.parametrize("language", MAINS)
def test_snippets_write_dumps_that_compare(language, tmp_path):
    """The code in tests/reference/README.md, compiled, writes a dump that agrees, and one that does not.

    All positions at once, and a position at a time.
    """
    file, main, build, program = MAINS[language]
    if not shutil.which((build or program)[0]):
        pytest.skip(f"{(build or program)[0]} is not installed")
    readme = (REFERENCE / "README.md").read_text(encoding="utf-8")
    snippet = re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL)[0]
    (tmp_path / file).write_text(snippet + main)
    if build:
        subprocess.run(build, cwd=tmp_path, check=True)
    trace = load_file(REFERENCE / CASES["gqa-float32/chunk"]["trace"])
    names = ("embedding", "layers.1.attn.k_rope", "layers.1.attn.heads", "layers.0.attn.probs", "logits")
    compare = [sys.executable, ROOT / "tests" / "compare.py", tmp_path / "dump.safetensors", "--reference",
               "gqa-float32/chunk"]

    def dump(tensors):
        """tensors: [(name, position, array)]"""
        arguments = []
        for i, (name, position, x) in enumerate(tensors):
            (tmp_path / str(i)).write_bytes(np.ascontiguousarray(x).tobytes())
            arguments += [name, str(position), str(x.size), str(tmp_path / str(i))]
        subprocess.run([*program, *arguments, str(tmp_path / "dump.safetensors")], cwd=tmp_path, check=True)
        assert {name: x.size for name, x in load_file(tmp_path / "dump.safetensors").items()} == {
            f"{name}@{position}": x.size for name, position, x in tensors}
        return subprocess.run(compare, capture_output=True, text=True)

    done = dump([(name, 0, trace[name].swapaxes(0, 1) if name.endswith("heads") else trace[name]) for name in names])
    assert done.returncode == 0 and "All 5 tensors agree" in done.stdout, done.stdout + done.stderr
    done = dump([(name, 5 + t, trace[name][..., t, :].ravel()) for t in range(7) for name in names])
    assert done.returncode == 0 and "All 5 tensors agree" in done.stdout, done.stdout + done.stderr
    assert dump([(name, 0, trace[name][..., ::-1, :]) for name in names]).returncode == 1


def test_readme_names_what_is_there():
    readme = (REFERENCE / "README.md").read_text(encoding="utf-8")
    assert f"{len(CASES)} cases" in readme
    for path in REFERENCE.iterdir():
        assert path.name in readme or path.name == "README.md"
    for name in load_file(REFERENCE / CASES["mha-float32/prompt"]["trace"]):
        assert name.replace("layers.0", "layers.{i}").replace("layers.1", "layers.{i}").rsplit(".", 1)[0] in readme
