"""Right programs that are not ours are called right, in every type: transformers, tests/oracle.py, and tests/port.py.

What they use of the allowed distances is printed; the table in tests/reference/README.md is these numbers.
"""
import json
from collections import Counter

import bugs
import compare
import numpy as np
import pytest
import torch
import transformers
from conftest import FAIRYTALES
from dumps import Tensor
from oracle import torch_trace
from port import Port
from test_compare import hooked

CASES = json.loads((compare.REFERENCE / "cases.json").read_text())["cases"]
NAMES = [f"{model}-float32/{run}" for model in ("mha", "gqa", "mqa") for run in ("prompt", "chunk", "decode")]
TYPES = ("float32", "float16", "bfloat16")
SHARES, SIZES = Counter(), Counter()                      # largest, by program and type


def judge(dump, run, program, dtype):
    """Judged right, or what compare.py says."""
    tensors = [Tensor(name, name, dtype, np.asarray(x, np.float32), len(run.tokens)) for name, x in dump.items()]
    known = bugs.names_of(run.config.n_layers)
    tensors.sort(key=lambda tensor: known.index(tensor.name))
    report = compare.judge(run, None, tensors, "")
    wrong = [(row.name, row.verdict) for row in report.rows if row.verdict != "ok"]
    assert report.agrees and not wrong, (wrong, report.diagnosis)
    exact = bugs.compute(run, None, "float64")
    for row in report.rows:
        SHARES[program, dtype] = max(SHARES[program, dtype], row.largest / row.allowed)
        x = exact[row.name]
        size = np.abs(np.where(x < compare.MASKED, 0, x)).max()
        SIZES[program, dtype] = max(SIZES[program, dtype], row.largest / size)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", NAMES)
def test_the_port(case, dtype):
    run = compare.reference_case(case)[0]
    judge(Port(run.weights, run.config, dtype).run(run.tokens, run.chunks[-1]), run, "tests/port.py", dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_port_on_the_model_that_ships(dtype, fairytales, tokenizer):
    tokens = tuple(tokenizer.encode("Once upon a time there was a king"))
    run = bugs.Run(tokens, *fairytales, (len(tokens),))
    judge(Port(*fairytales, dtype).run(tokens, len(tokens)), run, "tests/port.py", dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("model", ["fairytales", "mha", "gqa", "mqa"])
def test_transformers(model, dtype, tokenizer):
    """Every module's output, as a hook gives it; in float32 everything inside attention too."""
    folder = FAIRYTALES if model == "fairytales" else compare.REFERENCE / "checkpoints" / f"{model}-float32-hf"
    tokens = tuple(tokenizer.encode("Once upon a time")) if model == "fairytales" else tuple(
        CASES[f"{model}-float32/prompt"]["tokens"])
    weights, config = compare.nl.load(folder)
    run = bugs.Run(tokens, weights, config, (len(tokens),))
    net = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype),
                                                            attn_implementation="eager").eval()
    if dtype == "float32":
        judge(torch_trace(net, np.array(tokens)), run, "tests/oracle.py", dtype)
    dump = {ours_of(theirs): x.float().numpy() for theirs, x in hooked(net, tokens).items() if ours_of(theirs)}
    judge(dump, run, "transformers", dtype)


def ours_of(theirs):
    """Our name for a module of transformers."""
    parts = theirs.split(".")
    inside = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn.q", "self_attn.k_proj": "attn.k",
              "self_attn.v_proj": "attn.v", "self_attn.o_proj": "attn.out", "post_attention_layernorm": "ffn_norm",
              "mlp.gate_proj": "ffn.gate", "mlp.act_fn": "ffn.silu", "mlp.up_proj": "ffn.up",
              "mlp.down_proj": "ffn.out"}
    whole = {"model.embed_tokens": "embedding", "model.norm": "norm", "lm_head": "logits"}
    if theirs in whole:
        return whole[theirs]
    name = inside.get(".".join(parts[3:]))
    return f"layers.{parts[2]}.{name}" if name else None


class IntegerDivision(Port):
    def angle(self, i, position):
        return position * self.c.rope_theta ** -(i // self.c.head_dim)


class PairsFromOne(Port):
    def angle(self, i, position):
        return position * self.c.rope_theta ** -((i + 2) / self.c.head_dim)


class Deviation(Port):
    def rms(self, x, gain):
        return x / np.sqrt(np.var(x) + np.float32(self.c.norm_eps)) * gain


class NextNorm(Port):
    def __init__(self, *args):
        super().__init__(*args)
        for layer, other in zip(self.layers, self.layers[1:]):
            layer["ffn_norm"] = other["ffn_norm"]


class QueryTransposed(Port):
    def __init__(self, *args):
        super().__init__(*args)
        for layer in self.layers:
            layer["wq"] = np.ascontiguousarray(layer["wq"].T)


class GateForUp(Port):
    def __init__(self, *args):
        super().__init__(*args)
        for layer in self.layers:
            layer["up"] = layer["gate"]


class KeysUnpermuted(Port):
    """wk, in halves, is brought to Meta's order with the number of query heads."""

    def neighbours(self, w):
        if len(w) == self.c.n_heads * self.c.head_dim:
            return super().neighbours(w)
        return w.reshape(self.c.n_heads, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


WRONG = {       # program: (first tensor, the bug or what the explanation has to say)
    IntegerDivision: ("layers.0.attn.q_rope", "rope-integer-division"),
    PairsFromOne: ("layers.0.attn.q_rope", "rope-pairs-from-one"),
    Deviation: ("layers.0.attn_norm", "norm-by-deviation"),
    NextNorm: ("layers.0.ffn_norm", "ffn-norm-of-next-layer"),
    QueryTransposed: ("layers.0.attn.q", "layers.0.attn.wq of Meta's file read as if it were (in, out)"),
    GateForUp: ("layers.0.ffn.up", "the right input times layers.0.ffn.gate"),
    KeysUnpermuted: ("layers.0.attn.k", "keys-unpermuted-by-query-heads"),
}


@pytest.mark.parametrize("program", WRONG)
@pytest.mark.parametrize("case", ["mha-float32/decode", "gqa-float32/chunk", "mqa-float32/prompt"])
def test_a_wrong_port(case, program):
    run = compare.reference_case(case)[0]
    first, cause = WRONG[program]
    dump = program(run.weights, run.config).run(run.tokens, run.chunks[-1])
    known = bugs.names_of(run.config.n_layers)
    tensors = [Tensor(name, name, "float32", dump[name], len(run.tokens)) for name in known if name in dump]
    report = compare.judge(run, None, tensors, "")
    if program is KeysUnpermuted and run.config.n_kv_heads == run.config.n_heads:
        assert report.agrees                              # there is nothing to mistake
        return
    found = [bug for bug in bugs.BUGS if bug.name in {c.name for c in report.diagnosis.found}]
    said = [bug.name for bug in found] + [c.what for c in report.diagnosis.explanations]
    assert report.first == first and any(cause in words for words in said), (report.first, said)
    runs = [bugs.compute(run, bug)[first] for bug in found]   # listed together only if they give the same numbers
    assert all(np.allclose(x, runs[0], rtol=1e-5, atol=1e-5) for x in runs) and (found or len(said) == 1)


def test_figure(capsys):
    """The largest share of the limit that a right program used, and its largest difference by the tensor's size."""
    if len(SHARES) < 7:
        pytest.skip("needs the tests above")
    with capsys.disabled():
        print()
        for (program, dtype), share in sorted(SHARES.items()):
            print(f"{program:16} {dtype:9} at most {share:.0%} of the limit, {SIZES[program, dtype]:.1e} of the size")
    assert max(SHARES.values()) < 0.8
