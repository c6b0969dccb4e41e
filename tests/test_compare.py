"""compare.py from its command line: dumps as they come from PyTorch and other ports, and dumps that are no good.

Oracles: transformers, through plain forward hooks; NumPy's and safetensors' own writers.
"""
import json
import os
import re
import subprocess
import sys

import bugs
import compare
import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from bugs import BUGS, Run, compute
from conftest import FAIRYTALES, ROOT
from safetensors.numpy import save_file

import numpy_llama as nl

PROMPT = "Once upon a time there was a king"
BUG = {bug.name: bug for bug in BUGS}


@pytest.fixture(scope="module")
def run(fairytales, tokenizer):
    weights, config = fairytales
    tokens = tuple(tokenizer.encode(PROMPT))
    return Run(tokens, weights, config, (len(tokens),), PROMPT, FAIRYTALES / "tokenizer.model")


@pytest.fixture(scope="module")
def trace(run):
    return compute(run)


@pytest.fixture
def cli(tmp_path, capsys):
    """Save a dump, compare it: (exit status, what is printed, what is printed on standard error)."""
    def call(dump, *options, suffix=".npz"):
        arguments = list(map(str, options)) or ["--prompt", PROMPT]
        if isinstance(dump, dict):
            path = tmp_path / f"dump{suffix}"
            if suffix == ".npz":
                np.savez(path, **dump)
            else:
                save_file({name: np.ascontiguousarray(x) for name, x in dump.items()}, path)
            dump = path
        status = compare.main([str(dump), *arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def hooked(model, tokens):
    """What a user gets from a forward hook on every module that has a name."""
    found, handles = {}, []
    for name, module in model.named_modules():
        def hook(module, inputs, output, name=name):
            output = output[0] if isinstance(output, tuple) else output
            if name and isinstance(output, torch.Tensor):
                found[name] = output
        handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        model(torch.tensor([tokens]))
    for handle in handles:
        handle.remove()
    return found


def pytorch(dtype):
    return transformers.AutoModelForCausalLM.from_pretrained(FAIRYTALES, dtype=dtype).eval()


# ---- Dumps that pass as they come ----------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_pytorch_in_every_dtype_with_its_own_names(dtype, cli, run):
    found = hooked(pytorch(getattr(torch, dtype)), run.tokens)
    assert {"model.embed_tokens", "model.layers.5", "model.layers.0.mlp.act_fn", "lm_head"} <= found.keys()
    to_numpy = {"bfloat16": lambda x: x.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)}
    dump = {name: to_numpy.get(dtype, torch.Tensor.numpy)(x) for name, x in found.items()}
    for suffix in (".npz", ".safetensors"):
        status, out, _ = cli(dump, suffix=suffix)
        assert status == 0, out
        assert f"judged as {dtype}" in out and "heads side by side" in out.lower() and "batch axis" in out.lower()
    if dtype != "float64":                                # float32 that holds a narrower type is judged as that type
        status, out, _ = cli({name: x.astype(np.float32) for name, x in dump.items()})
        assert status == 0 and f"judged as {dtype}" in out


@pytest.mark.parametrize("axes, remark", [
    ((None, 1, 0, 2), "batch axis, positions before heads"), ((None, 0, 1, 2), "batch axis"),
    ((1, 0, 2), "positions before heads")])
def test_heads_before_or_after_positions(axes, remark, cli, trace):
    def arrange(x):
        x = x.transpose([a for a in axes if a is not None])
        return x[None] if None in axes else x

    names = [name for name in trace if name.endswith(("attn.q", "k", "v", "q_rope", "k_rope", "heads"))]
    status, out, _ = cli({name: arrange(trace[name]) for name in names})
    assert status == 0
    for part in remark.split(", "):
        assert part in out.lower()


def test_as_many_heads_as_positions(cli, fairytales, tokenizer):
    weights, config = fairytales
    tokens = (1, 5, 9, 77, 50, 300, 4, 8)                 # T = H = 8: shapes alone do not tell which axis is which
    trace = compute(Run(tokens, weights, config, (8,)))
    name = "layers.2.attn.q"
    status, out, _ = cli({name: trace[name].swapaxes(0, 1)}, "--tokens", ",".join(map(str, tokens)))
    assert status == 0 and "positions before heads" in out.lower()


def test_repeated_keys_cached_positions_and_last_logits(cli, run, fairytales):
    weights, config = fairytales
    chunks = (len(run.tokens) - 2, 2)
    whole, last = compute(run), compute(Run(run.tokens, weights, config, chunks))
    repeated = {name: np.repeat(last[name], 4, axis=0) for name in ("layers.1.attn.k_rope", "layers.1.attn.v")}
    cached = {f"layers.2.attn.{name}": whole[f"layers.2.attn.{name}"] for name in ("k_rope", "v")}
    status, out, _ = cli(repeated | cached | {"logits": last["logits"][-1]},
                         "--prompt", PROMPT, "--chunks", ",".join(map(str, chunks)))
    assert status == 0, out
    for remark in ("Key heads repeated: 2", "With the cached positions: 2", "Last position only: logits"):
        assert remark in out


def test_three_tensors_of_layer_5(cli, trace):
    names = ["layers.5.attn.probs", "layers.5.ffn.up", "layers.5.x_ffn"]
    status, out, _ = cli({name: trace[name] for name in names})
    assert status == 0 and "All 3 tensors agree" in out


def interleaved(x):
    """Half-split order to Meta's: neighbours are what were halves."""
    return np.stack(np.split(x, 2, axis=-1), axis=-1).reshape(x.shape)


def test_metas_order_is_recognised_as_equivalent(cli, trace):
    ends = ("attn.q", "attn.k", "attn.q_rope", "attn.k_rope")
    dump = {name: interleaved(x) if name.endswith(ends) else x for name, x in trace.items()}
    status, out, _ = cli(dump)
    assert status == 0 and "In Meta's interleaved order, which is equivalent: 24 tensors" in out
    # Queries in one order and keys in the other are not equivalent.
    status, out, _ = cli(dump | {name: x for name, x in trace.items() if name.endswith("attn.k")})
    assert status == 1 and "layers.0.attn.k is the first tensor that differs" in out


def test_a_bug_in_a_port_that_uses_metas_order(cli, run):
    ends = ("attn.q", "attn.k", "attn.q_rope", "attn.k_rope")
    wrong = compute(run, BUG["theta-500000"])
    wrong |= {name: interleaved(x) for name, x in wrong.items() if name.endswith(ends)}
    status, out, _ = cli(wrong, "--prompt", PROMPT, "--json")
    report = json.loads(out)
    assert status == 1 and report["first"] == "layers.0.attn.q_rope"
    assert [bug["name"] for bug in report["diagnosis"]] == ["theta-500000"]


def test_blocked_scores_may_be_large_and_negative(cli, trace):
    scores = {name: np.maximum(x, np.float32(-1e9)) for name, x in trace.items() if name.endswith("scores")}
    assert cli(scores)[0] == 0
    first = next(iter(scores))
    assert cli({first: np.maximum(scores[first], 0)})[0] == 1


class InOrder:
    """A matrix whose products add one term after the other in float32, as a plain loop in C does."""
    __array_ufunc__ = None

    def __init__(self, w):
        self.w = w
        self.dtype, self.shape = w.dtype, w.shape

    def __len__(self):
        return len(self.w)

    def __getitem__(self, rows):
        return InOrder(self.w[rows])

    def __rmatmul__(self, x):
        total = np.zeros((len(x), self.w.shape[1]), np.float32)
        for i, row in enumerate(self.w):
            total += x[:, i:i + 1] * row
        return total


def test_a_port_that_adds_in_plain_order_passes(cli, fairytales, run):
    weights, config = fairytales
    layers = [layer | {part: {name: InOrder(w) for name, w in layer[part].items()} for part in ("attn", "ffn")}
              for layer in weights["layers"]]
    trace = nl.Trace()
    nl.forward(run.tokens, weights | {"layers": layers, "output": InOrder(weights["output"])}, config, tap=trace)
    assert any(not np.array_equal(trace[name], x) for name, x in compute(run).items())
    assert cli(trace)[0] == 0


# ---- What it says about dumps that differ ---------------------------------------------------------------------

def test_report_on_a_bug(cli, run):
    status, out, _ = cli(compute(run, BUG["rope-neighbours"]))
    assert status == 1
    text = " ".join(out.split())
    assert "layers.0.attn.q_rope is the first tensor that differs. At position 1 (token" in text
    assert "equals what you get when neighbouring pairs (x_2i, x_2i+1) are rotated" in text
    assert "un-permute them, or rotate halves" in text and "explains all that follows" in text
    assert max(map(len, out.splitlines())) <= 100
    table = [line for line in out.splitlines() if line.startswith(("embedding ", "layers.", "norm ", "logits "))]
    names = [line.split()[0] for line in table]
    assert names[:len(compute(run))] == list(compute(run))          # in order of computation


def test_where_it_differs(cli, trace):
    x = trace["layers.3.attn.v"].copy()
    x[1, 4, 7] += 0.5
    status, out, _ = cli({"layers.3.attn.v": x}, "--prompt", PROMPT, "--json")
    row = json.loads(out)["tensors"][0]
    assert status == 1 and row["verdict"] == "differs" and row["largest"] == pytest.approx(0.5, rel=1e-4)
    assert {key: row["where"][key] for key in ("position", "head", "index", "positions_beyond", "heads_beyond")} == {
        "position": 4, "head": 1, "index": 7, "positions_beyond": 1, "heads_beyond": 1}
    assert row["rms"] == pytest.approx(0.5 / x.size ** 0.5, rel=1e-3)
    for share, status in ((3e-5, 1), (1e-7, 0)):          # of the largest: more and less than float32 rounds
        moved = trace["norm"] + np.float32(share * np.abs(trace["norm"]).max())
        assert cli({"norm": moved})[0] == status
    a, b = x.ravel().astype(np.float64), trace["layers.3.attn.v"].ravel().astype(np.float64)
    assert row["cosine"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-9)


def test_unknown_mistake(cli, trace):
    noise = np.random.default_rng(0)
    status, out, _ = cli({"layers.0.ffn.up": noise.standard_normal(trace["layers.0.ffn.up"].shape)})
    assert status == 1 and "No bug of the zoo reproduces layers.0.ffn.up." in out


def test_lower_precision(cli, trace):
    """Matrix products with 10 bits, as TF32 does, in an otherwise float32 program: its numbers use all of float32."""
    noise = np.random.default_rng(0)
    names = ("attn_norm", "attn.q", "attn.k", "attn.v")
    right = {name: x for name, x in trace.items() if name.endswith(names)}
    shaken = {name: x if name.endswith("norm") else x * (1 + 2e-4 * noise.standard_normal(x.shape)).astype(np.float32)
              for name, x in right.items()}
    status, out, _ = cli(shaken)
    text = " ".join(out.split())
    assert status == 1 and "e-04 of its size, with no pattern, as rounding to float16 or TF32" in text
    assert "the product with wq is computed in lower precision; layers.0.attn_norm before it is exact to" in text
    assert "use --dtype float16" in text
    assert cli(shaken, "--prompt", PROMPT, "--dtype", "float16")[0] == 0
    # An error of the same size with a pattern is not rounding.
    x = right["layers.0.attn.v"]
    for pattern in (1 + 2e-4 * np.ones_like(x), 1 + 2e-4 * np.sin(np.arange(x.shape[2])) * np.ones_like(x)):
        status, out, _ = cli({"layers.0.attn.v": (x * pattern).astype(np.float32)})
        assert status == 1 and "lower precision" not in out


def test_centred_logits_are_harmless(cli, trace):
    """An output matrix without its mean, or log-probabilities: equal up to a number for each row."""
    x = trace["logits"].astype(np.float64)
    for moved in (x - x.mean(-1, keepdims=True), x - np.log(np.exp(x).sum(-1, keepdims=True)), x + 30):
        status, out, _ = cli({"logits": moved.astype(np.float32)})
        assert status == 0 and "Equal up to a constant per row (harmless): logits" in " ".join(out.split())
    assert cli({"logits": (x * 1.01).astype(np.float32)})[0] == 1
    assert cli({"norm": trace["norm"] + np.float32(30)})[0] == 1


def test_two_mistakes_are_told_one_after_the_other(cli, run):
    both = BUG["gelu"].taps | BUG["rope-reversed"].taps
    dump = compute(run, type(BUG["gelu"])("both", "layers.0.attn.q_rope", "", "", "", both))
    status, out, _ = cli(dump, "--prompt", PROMPT, "--json")
    report = json.loads(out)
    assert [bug["name"] for bug in report["diagnosis"]] == ["rope-reversed"]
    assert report["explained_until"] == "layers.0.ffn.silu"


def test_missing_tokens_are_diagnosed_from_a_text(cli, run):
    for name in ("bos-missing", "dummy-prefix-missing", "bos-twice"):
        status, out, _ = cli(compute(run, BUG[name]), "--prompt", PROMPT, "--json")
        assert status == 1 and [bug["name"] for bug in json.loads(out)["diagnosis"]] == [name]


def test_two_dumps(cli, trace, tmp_path, run):
    other = tmp_path / "other.safetensors"
    save_file({name: np.ascontiguousarray(x[None]) for name, x in trace.items()}, other)
    assert cli(trace, other)[0] == 0
    assert cli({name: x.astype(np.float16) for name, x in trace.items()}, other)[0] == 0
    flat = {name: nl.merge_heads(x) if name.endswith(("attn.q", "heads")) else x for name, x in trace.items()}
    assert cli(flat, other)[0] == 0
    np.savez(tmp_path / "flat.npz", **flat)
    assert cli(trace, tmp_path / "flat.npz")[0] == 0
    status, out, _ = cli(compute(run, BUG["gelu"]), other)
    assert status == 1 and "layers.0.ffn.silu is the first tensor that differs" in out
    assert cli({"embedding": trace["embedding"]}, tmp_path / "none.npz")[0] == 2
    save_file({"logits": trace["logits"]}, tmp_path / "logits.safetensors")
    assert "no tensor in common" in cli({"embedding": trace["embedding"]}, tmp_path / "logits.safetensors")[2]


# ---- PyTorch, live ---------------------------------------------------------------------------------------------

def test_live_agrees_on_every_tensor():
    done = subprocess.run([sys.executable, ROOT / "tests" / "compare.py", "--live", FAIRYTALES, "--prompt",
                           "Once upon a time"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "All 111 tensors agree." in done.stdout
    text = " ".join(done.stdout.split())
    own, pytorch = map(float, re.search(r"difference is (\S+), in .* itself is (\S+) from float64", text).groups())
    assert 0 < own < 1e-3 and 0 < pytorch < 1e-3


def test_the_zoo_writes_dumps(tmp_path, capsys):
    """python tests/bugs.py BUG DUMP, and what compare.py makes of it."""
    assert bugs.main(["gelu", str(tmp_path / "gelu.npz")]) == 0
    assert compare.main([str(tmp_path / "gelu.npz"), "--json"]) == 1
    assert [bug["name"] for bug in json.loads(capsys.readouterr().out)["diagnosis"]] == ["gelu"]
    for name in ("no-such-bug", "theta-10000"):           # the latter is right for this model
        assert bugs.main([name, str(tmp_path / "x.npz")]) == 2
    assert capsys.readouterr().err.count("error: ") == 2
    assert bugs.main([]) == 0 and f"{len(BUGS)} bugs" in capsys.readouterr().out


def test_what_is_no_verdict_ends_with_2(tmp_path, trace):
    """A full disk, a closed pipe, a folder that is not there: one line on standard error, and status 2."""
    np.savez(tmp_path / "dump.npz", **trace)
    call = [sys.executable, str(ROOT / "tests" / "compare.py"), str(tmp_path / "dump.npz"), "--prompt", PROMPT]
    full = open("/dev/full", "w")
    done = subprocess.run(call, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    read, write = os.pipe()
    os.close(read)                                        # nobody reads
    done = subprocess.run(call, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    done = subprocess.run([sys.executable, str(ROOT / "tests" / "bugs.py"), "gelu", str(tmp_path / "no" / "x.npz")],
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr


def test_live_sees_a_wrong_model(tmp_path, monkeypatch, capsys):
    def wrong(run, bug=None, *rest, **options):
        return compute(run, bug or BUG["gelu"], *rest, **options)

    monkeypatch.setattr(compare.bugs, "compute", wrong)
    assert compare.main(["--live", str(FAIRYTALES), "--tokens", "1,50,60"]) == 1
    assert "layers.0.ffn.silu is the first tensor that differs" in capsys.readouterr().out


def test_live_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert compare.main(["--live", str(FAIRYTALES)]) == 2
    assert "pip install -r tests/requirements.txt" in capsys.readouterr().err


def test_a_dump_needs_no_pytorch(tmp_path, trace):
    """With torch and transformers made impossible to import, a dump is compared all the same."""
    np.savez(tmp_path / "dump.npz", **trace)
    program = ("import sys; sys.modules['torch'] = sys.modules['transformers'] = sys.modules['oracle'] = None\n"
               f"sys.path.insert(0, {str(ROOT / 'tests')!r}); import compare\n"
               f"sys.exit(compare.main([{str(tmp_path / 'dump.npz')!r}, '--prompt', {PROMPT!r}]))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


# ---- Bad input -------------------------------------------------------------------------------------------------

def one_error(result, *words):
    status, out, err = result
    assert status == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
    for word in words:
        assert word in err, err


def test_wrong_names(cli, trace):
    x = trace["layers.0.attn.q"]
    one_error(cli({"layers.0.attn.qrope": x}), "did you mean 'layers.0.attn.q_rope'")
    one_error(cli({"whatever": x}), "whatever is not a name of the trace")
    for name in ("layers.6.attn.q", "model.layers.99.mlp"):         # beside a tensor that can be compared, it is told
        one_error(cli({name: x}), "layer", "the model's last is layer 5")
        status, out, _ = cli({name: x, "layers.0.attn.q": x})
        assert status == 0 and name in out


def test_wrong_shapes(cli, trace):
    x = trace["layers.0.attn.q"]
    one_error(cli({"layers.0.attn.q": np.stack([x, x])}), "shape (2, 8", "the reference has (8, ")
    assert cli({"layers.0.attn.q": x[None, None, None]})[0] == 0   # leading axes of 1 are no other shape
    one_error(cli({"logits": trace["logits"][:, :-1]}), "shape")
    one_error(cli({"layers.0.x_ffn": np.zeros((4, 3, 2, 1), np.float32)}), "shape (4, 3, 2, 1)")
    one_error(cli({"norm": np.float32(3)}), "shape ()")
    one_error(cli({"norm": np.zeros((0, 256), np.float32)}), "empty")
    one_error(cli({"norm": np.zeros((10 ** 4, 10 ** 4), np.float32)}), "far larger")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_a_verdict(value, cli, trace):
    probs = trace["layers.1.attn.probs"].copy()
    probs[2, 3, 1] = value
    dump = {"logits": trace["logits"] * value, "layers.1.attn.probs": probs,
            "layers.1.attn.v": trace["layers.1.attn.v"]}
    status, out, _ = cli(dump, "--prompt", PROMPT, "--json")
    report = json.loads(out)
    assert status == 1 and report["first"] == "layers.1.attn.probs" and not report["diagnosis"]
    assert [row["verdict"] for row in report["tensors"]] == ["ok", "NaN", "NaN"]
    where = report["tensors"][1]["where"]
    assert (where["head"], where["position"], where["index"], where["positions_beyond"]) == (2, 3, 1, 1)
    kind = "NaN" if np.isnan(value) else "infinite"
    assert f"is {kind} at position 3" in report["explanations"][0]["what"]
    assert cli(dump)[1].count("FIRST TO DIFFER") == 1


def test_the_cause_of_nan_is_looked_for_before_it(cli, run):
    """With -infinity in every blocked score, a row that sees nothing is NaN, and so is all that follows."""
    right = compute(run)
    wrong = {name: right[name] for name in ("layers.0.attn.q_rope", "layers.0.attn.k_rope")}
    scores = right["layers.0.attn.scores"].copy()
    scores[:, np.arange(len(run.tokens)), np.arange(len(run.tokens))] = -np.inf
    with np.errstate(invalid="ignore"):
        probs = nl.softmax(scores)
        heads = probs @ np.repeat(right["layers.0.attn.v"], 4, axis=0)
    assert np.isnan(probs).any()
    for dump in (wrong | {"layers.0.attn.scores": scores, "layers.0.attn.probs": probs},
                 wrong | {"layers.0.attn.probs": probs}, wrong | {"layers.0.attn.heads": heads}):
        status, out, _ = cli(dump, "--prompt", PROMPT, "--json")
        report = json.loads(out)
        assert status == 1 and [bug["name"] for bug in report["diagnosis"]] == ["mask-hides-itself"]
        assert report["first"] == list(dump)[2]


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "complex64", "U3"])
def test_not_floating_point(dtype, cli, trace):
    one_error(cli({"norm": np.ones(trace["norm"].shape).astype(dtype)}), "norm is", "floating-point")


def test_nothing_is_unpickled(cli, tmp_path):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "exploded"), "w")

    one_error(cli({"norm": np.array([Bomb()], dtype=object)}), "pickled objects")
    (tmp_path / "dump.pt").write_bytes(b"\x80\x04.")
    one_error(cli(tmp_path / "dump.pt"), "dump.pt")
    (tmp_path / "pickle.npz").write_bytes(b"\x80\x04N.")
    one_error(cli(tmp_path / "pickle.npz"), "not a valid .npz")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_empty_truncated_and_damaged(suffix, cli, tmp_path):
    _, trace, _ = compare.reference_case("gqa-float32/prompt")
    case = ("--reference", "gqa-float32/prompt")
    assert cli({"embedding": trace["embedding"]}, *case, suffix=suffix)[0] == 0
    whole = (tmp_path / f"dump{suffix}").read_bytes()
    path = tmp_path / f"damaged{suffix}"
    for size in (0, 1, 7, 8, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        one_error(cli(path, *case), "damaged")
    random = np.random.default_rng(0)
    for _ in range(100):                                  # flipped bytes in the header: an error, or still a dump
        bad = bytearray(whole)
        at = random.integers(0, 200)
        bad[at if random.random() < 0.7 else -at - 1] ^= 1 << random.integers(0, 8)
        path.write_bytes(bad)
        status, _, err = cli(path, *case)
        assert status in (0, 1) or status == 2 and err.startswith("error: ") and err.count("\n") == 1
    one_error(cli(tmp_path / f"missing{suffix}"), "is not a file")
    one_error(cli({}, suffix=suffix), "no tensors")


def test_headers_that_lie(cli, tmp_path):
    def safetensors(header, data=b""):
        text = json.dumps(header).encode()
        path = tmp_path / "lie.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        return path

    huge = {"dtype": "F32", "shape": [2 ** 31, 2 ** 31], "data_offsets": [0, 2 ** 64 - 4]}
    one_error(cli(safetensors({"norm": huge})), "lie.safetensors")
    one_error(cli(safetensors({"norm": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234")), "lie")
    one_error(cli(safetensors([1, 2])), "lie.safetensors")
    path = tmp_path / "lie.safetensors"
    path.write_bytes((2 ** 62).to_bytes(8, "little") + b"{}")
    one_error(cli(path), "lie.safetensors")
    np.savez(tmp_path / "small.npz", norm=np.zeros((3, 3), np.float32))
    bad = (tmp_path / "small.npz").read_bytes().replace(b"(3, 3), }  ", b"(9**9,3), }"[:11])
    (tmp_path / "lie.npz").write_bytes(bad)
    one_error(cli(tmp_path / "lie.npz"), "lie.npz")
    sparse = tmp_path / "sparse.safetensors"              # a true header: 64 GB that no one should read
    n = 2 ** 34
    text = json.dumps({"norm": {"dtype": "F32", "shape": [n], "data_offsets": [0, 4 * n]}}).encode()
    with sparse.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 4 * n)
    one_error(cli(sparse), "far larger")


def test_bad_options(cli, trace, capsys):
    dump = {"norm": trace["norm"]}
    one_error(cli(dump, "--tokens", "1,x"), "--tokens must be integers")
    one_error(cli(dump, "--tokens", "1,999999"), "999999")
    one_error(cli(dump, "--tokens", "1,2,3", "--chunks", "1,1"), "--chunks 1,1 must add up to 3")
    one_error(cli(dump, "--reference", "nothing"), "there is no case nothing")
    one_error(cli(dump, "--model", ROOT / "nowhere"), "nowhere")
    one_error(cli(dump, "--no-such-option"), "--help")
    assert compare.main([]) == 2 and "a dump is missing" in capsys.readouterr().err
