"""The bug zoo: every bug, on every case where it changes anything, is found and told from the others.

Oracles: for the zoo's own runs, the float64 runs with and without the bug; and, since those are the zoo's own, wrong
models built in PyTorch, whose mistake compare.py has to name from the outputs of transformers' modules.
"""
import functools
import json
from collections import Counter
from dataclasses import replace

import compare
import numpy as np
import pytest
import torch
import transformers
from bugs import BUGS, Run, compute, names_of
from compare import reference_case
from conftest import FAIRYTALES
from dumps import Tensor
from explain import diagnose, hidden
from judge import Candidate, difference, largest, rms, unmasked
from test_compare import hooked
from transformers.models.llama import modeling_llama

CASES = json.loads((compare.REFERENCE / "cases.json").read_text())["cases"]
BUG = {bug.name: bug for bug in BUGS}
COUNTS, SEEN = Counter(), {}


def test_the_table():
    names = [bug.name for bug in BUGS]
    assert len(set(names)) == len(names) >= 20
    known = names_of(2)
    for bug in BUGS:
        assert bug.first in known and bug.what and bug.symptom and bug.fix and (bug.taps or bug.change)
        assert not any(text.endswith(".") for text in (bug.what, bug.symptom, bug.fix))


def test_no_bug_is_the_model_itself(fairytales, tokenizer):
    """A run without a bug is numpy_llama's own, bit for bit, in chunks and stopped early too."""
    weights, config = fairytales
    tokens = tuple(tokenizer.encode("Once upon a time"))
    right, whole = compare.nl.Trace(), compute(Run(tokens, weights, config))
    compare.nl.forward(tokens, weights, config, tap=right)
    assert list(right) == list(whole) == names_of(config.n_layers)
    assert all(np.array_equal(right[name], whole[name]) for name in right)
    last = compute(Run(tokens, weights, config, (3, 2)))
    np.testing.assert_allclose(last["logits"], right["logits"][-2:], rtol=0, atol=1e-5 * largest(right["logits"]))
    for until in ("layers.0.attn.q", "layers.3.attn.scores"):      # before and after the cache has been extended
        part = compute(Run(tokens, weights, config, (3, 2)), until=until)
        assert list(part)[-1] == until and all(np.array_equal(x, last[name]) for name, x in part.items())


def runs(name):
    if name != "fairytales":
        return reference_case(name)[0]
    weights, config = compare.nl.load(FAIRYTALES)
    text, path = "Once upon a time", FAIRYTALES / "tokenizer.model"
    tokens = tuple(compare.nl.Tokenizer(path).encode(text))
    return Run(tokens, weights, config, (len(tokens),), text, path)


@functools.lru_cache(maxsize=1)                           # the last case is the far one, which takes the longest
def computed(case):
    """The right run, and that of each bug which applies, in float64 and float32."""
    run = runs(case)
    candidates = [c for c in (Candidate(run, bug) for bug in (None, *BUGS)) if c.applies]
    for c in candidates:
        c.traces = {precision: compute(run, c.bug, precision) for precision in ("float64", "float32")}
    return run, candidates[0], candidates[1:]


@pytest.mark.parametrize("case", ["fairytales", *CASES])
def test_every_bug_is_found(case):
    run, right, candidates = computed(case)
    problems = [problem for c in candidates for problem in wrong_about(c, run, right, candidates, case)]
    assert not problems, "\n".join(problems)


def effect_of(c, right, name, times):
    """Is the bug's effect on this tensor more than so many times what float32 rounds?"""
    a, b = c.traces["float64"][name], right.exact(name)
    if a.shape != b.shape:
        return True
    effect = difference(a, b)
    return largest(effect) > 1e-10 * largest(unmasked(b)) and (
        rms(effect) > times * rms(difference(c.traces["float32"][name], a)))


def wrong_about(c, run, right, candidates, case):
    """What the diagnosis of this bug's own run gets wrong: sentences, none if all is well."""
    names, bug = names_of(run.config.n_layers), c.bug
    dump = [Tensor(name, name, "float32", x, len(run.tokens)) for name, x in c.traces["float32"].items()]
    finite = [not np.isnan(tensor.x).any() for tensor in dump]                    # as far as it is finite
    dump = dump[:(finite + [False]).index(False)]
    changed, clear = ([t.name for t in dump if effect_of(c, right, t.name, times)] for times in (0, 4))
    SEEN.setdefault(bug.name, 0)
    if not clear:
        COUNTS["changes nothing"] += 1
        return
    SEEN[bug.name] += 1
    COUNTS["wrong"] += 1
    rows = compare.compare(dump, right, run.tokens, len(run.tokens) - run.chunks[-1])
    if any(row.wrong or row.verdict == "shape" for row in rows):
        diagnosis = diagnose(dump, rows, right, candidates)
    else:
        diagnosis = hidden(dump, right, candidates)
        COUNTS["only in float64"] += 1
    if diagnosis is None or not diagnosis.found:
        yield f"{bug.name}: nothing reproduces {diagnosis}"
        return
    first, found = diagnosis.first, [BUG[cause.name] for cause in diagnosis.found]
    # Queries in Meta's order are not wrong yet; what is done with them is.
    if bug.name == "not-permuted":
        changed = clear = [bug.first]
    if not names.index(changed[0]) <= names.index(first) <= names.index(clear[0]):
        yield f"{bug.name}: begins with {changed[0]} or {clear[0]}, not with {first}"
    if names.index(first) < names.index(bug.first) or case.endswith("prompt") and first != bug.first:
        yield f"{bug.name}: said to begin with {first}, not with {bug.first}"
    if diagnosis.until or diagnosis.contradicted_by or diagnosis.explanations or diagnosis.closest:
        yield f"{bug.name}: until {diagnosis.until}, contradicted by {diagnosis.contradicted_by}"
    if bug not in found:
        COUNTS["wrong causes"] += 1
        yield f"{bug.name}: taken for {[other.name for other in found]}"
    for other in found:                                   # listed together only if float64 cannot tell them apart
        twin = next(d for d in candidates if d.bug is other).traces["float64"]
        for name in (tensor.name for tensor in dump):
            x = c.traces["float64"][name]
            if rms(difference(twin[name], x)) > 3 * rms(difference(c.traces["float32"][name], x)) + 1e-12:
                COUNTS["wrong causes"] += 1
                yield f"{bug.name}: {other.name} is named too, but is not the same in {name}"
                break
    COUNTS["found"] += bug in found
    COUNTS["alone"] += found == [bug]


def test_figure(capsys):
    """What the cases above add up to."""
    if len(SEEN) < len(BUGS):
        pytest.skip("needs all cases of test_every_bug_is_found")
    assert all(SEEN.values()), [name for name, seen in SEEN.items() if not seen]
    with capsys.disabled():
        print(f"\n{len(BUGS)} bugs, {len(CASES) + 1} cases: {COUNTS['found']} of {COUNTS['wrong']} wrong runs named "
              f"rightly ({COUNTS['alone']} alone, {COUNTS['found'] - COUNTS['alone']} with bugs that cannot be told "
              f"apart there, {COUNTS['only in float64']} found in float64 only), {COUNTS['wrong causes']} wrong causes")
    assert COUNTS["found"] == COUNTS["wrong"] > 2000


# ---- Wrong programs that are not ours ------------------------------------------------------------------------

def swap_gate_and_up(model):
    for layer in model.model.layers:
        layer.mlp.gate_proj, layer.mlp.up_proj = layer.mlp.up_proj, layer.mlp.gate_proj


def reorder(model, names, heads, view):
    """Permute the rows of projections as the converters do: view "halves" undoes Meta's order, "meta" makes it."""
    for layer in model.model.layers:
        for name in names:
            w = getattr(layer.self_attn, name).weight.data
            h = heads or w.shape[0] // model.config.head_dim
            shape = (h, w.shape[0] // h // 2, 2) if view == "halves" else (h, 2, w.shape[0] // h // 2)
            w.copy_(w.view(*shape, w.shape[1]).transpose(1, 2).reshape(w.shape))


def keys_with_the_queries_heads(model):
    reorder(model, ["k_proj"], None, "meta")
    reorder(model, ["k_proj"], model.config.num_attention_heads, "halves")


def layer_norm(model):
    def forward(self, x):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], self.weight, None, self.variance_epsilon)

    for module in model.modules():
        if isinstance(module, modeling_llama.LlamaRMSNorm):
            module.forward = forward.__get__(module)


def each_attention(name, value):
    def change(model):
        for layer in model.model.layers:
            setattr(layer.self_attn, name, value(model))

    return change


def each_module(kind, method):
    def change(model):
        for module in model.modules():
            if isinstance(module, kind):
                module.forward = method.__get__(module)

    return change


def round_trip(dtype):
    """model.to(dtype) and back. Rounds the rotary frequencies; these weights hold bfloat16 already."""
    return lambda model: model.to(dtype).to(torch.float32)


def tie(model):
    model.lm_head.weight = model.model.embed_tokens.weight


def transpose_output(model):
    w = model.lm_head.weight.data
    model.lm_head.weight.data = w.reshape(w.shape[::-1]).T.contiguous()


def transpose_wo(model):
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data = layer.self_attn.o_proj.weight.data.T.contiguous()


def settings(**values):
    return values


def replaced(name, function):
    """A function of transformers' own code, replaced."""
    return name, function


def tiled(x, n):
    return x.repeat(1, n, 1, 1)


def from_zero(q, k, cos, sin, **kw):
    return RIGHT_ROPE(q, k, cos, -sin, **kw)


def on_neighbours(q, k, cos, sin, **kw):
    half = cos.shape[-1] // 2

    def turn(x):
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], half, 2).contiguous())
        return torch.view_as_real(pairs * torch.complex(cos[:, None, :, :half], sin[:, None, :, :half])).flatten(-2)

    return turn(q), turn(k)


RIGHT_ROPE = modeling_llama.apply_rotary_pos_emb
PROGRAMS = {       # bug, or bugs which the outputs of modules cannot tell apart: what is done to the PyTorch model
    "eps-1e-06": settings(rms_norm_eps=1e-6),
    "theta-500000": settings(rope_parameters={"rope_type": "default", "rope_theta": 5e5}),
    "gelu": settings(hidden_act="gelu"),
    "gelu-tanh": settings(hidden_act="gelu_pytorch_tanh"),
    "relu": settings(hidden_act="relu"),
    "frequencies-bfloat16": round_trip(torch.bfloat16),
    "gate-up-swapped": swap_gate_and_up,
    "permuted-twice": lambda model: reorder(model, ["q_proj", "k_proj"], None, "halves"),
    "not-permuted": lambda model: reorder(model, ["q_proj", "k_proj"], None, "meta"),
    "keys-permuted-by-query-heads": keys_with_the_queries_heads,
    "norm-mean-subtracted": layer_norm,
    "norm-weight-forgotten": each_module(modeling_llama.LlamaRMSNorm, lambda self, x: torch.nn.functional.rms_norm(
        x, x.shape[-1:], None, self.variance_epsilon)),
    "scale-forgotten": each_attention("scaling", lambda model: 1.0),
    "scale-sqrt-dim": each_attention("scaling", lambda model: model.config.hidden_size ** -0.5),
    "heads-round-robin": replaced("repeat_kv", tiled),
    "heads-first-only": replaced("repeat_kv", lambda x, n: x[:, :1].repeat(1, n * x.shape[1], 1, 1)),
    "rope-reversed": replaced("apply_rotary_pos_emb", from_zero),
    "rope-forgotten": replaced("apply_rotary_pos_emb", lambda q, k, *rest, **kw: (q, k)),
    "rope-neighbours": replaced("apply_rotary_pos_emb", on_neighbours),
    "mask-missing": replaced("create_causal_mask", lambda *args, **kw: None),
    "silu-on-product": each_module(modeling_llama.LlamaMLP, lambda self, x: self.down_proj(
        torch.nn.functional.silu(self.gate_proj(x) * self.up_proj(x)))),
    "up-forgotten": each_module(modeling_llama.LlamaMLP, lambda self, x: self.down_proj(
        self.act_fn(self.gate_proj(x)))),
    "wo-transposed": transpose_wo,
    "one-layer-repeated": lambda model: [layer.load_state_dict(model.model.layers[0].state_dict())
                                         for layer in model.model.layers],
    "final-norm-forgotten": lambda model: setattr(model.model, "norm", torch.nn.Identity()),
    "output-tied": tie,
    "output-transposed": transpose_output,
}


def diagnosis_of(dump, tmp_path, capsys, *options):
    """The first tensor and the bugs that compare.py names for a dump."""
    np.savez(tmp_path / "dump.npz", **dump)
    assert compare.main([str(tmp_path / "dump.npz"), "--json", *options]) == 1
    report = json.loads(capsys.readouterr().out)
    return report["first"], [bug["name"] for bug in report["diagnosis"]], report


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_wrong_pytorch_program_is_diagnosed(name, tmp_path, capsys, monkeypatch):
    what = PROGRAMS[name]
    changed = what if isinstance(what, dict) else {}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        FAIRYTALES, dtype=torch.float32, attn_implementation="eager", **changed).eval()
    if isinstance(what, tuple):
        monkeypatch.setattr(modeling_llama, *what)
    elif callable(what):
        what(model)
    text = "Once upon a time there was a king"
    tokens = compare.nl.Tokenizer(FAIRYTALES / "tokenizer.model").encode(text)
    dump = {n: x.numpy() for n, x in hooked(model, tokens).items()}
    _, found, report = diagnosis_of(dump, tmp_path, capsys, "--prompt", text)
    assert found == [name], report["diagnosis"]
    assert report["explained_until"] is None


def test_right_pytorch_programs_are_not(tmp_path, capsys):
    """The harness above finds nothing in a model to which nothing is done."""
    model = transformers.AutoModelForCausalLM.from_pretrained(FAIRYTALES, dtype=torch.float32).eval()
    dump = {n: x.numpy() for n, x in hooked(model, [1, 50, 60, 70]).items()}
    np.savez(tmp_path / "dump.npz", **dump)
    assert compare.main([str(tmp_path / "dump.npz"), "--tokens", "1,50,60,70"]) == 0


# ---- Far positions: the smallest bugs ------------------------------------------------------------------------

def far_dump(change=lambda model: None, dtype=torch.float32, **settings):
    """PyTorch's outputs for the last 16 of 4,096 positions."""
    case = CASES["far-float32/decode"]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        compare.REFERENCE / case["checkpoint"], dtype=dtype, attn_implementation="eager", **settings).eval()
    change(model)
    cache, start, found = transformers.DynamicCache(), 0, {}
    names = {"model.embed_tokens", "model.layers.0.input_layernorm", "model.layers.0.self_attn.o_proj", "lm_head"}
    for size in case["chunks"]:
        tokens = torch.tensor([case["tokens"][start:start + size]])
        handles = [module.register_forward_hook(lambda m, i, out, name=name: found.__setitem__(name, out))
                   for name, module in model.named_modules() if name in names]
        with torch.no_grad():
            model(tokens, None, None, cache)                # by position: transformers 5.24 renames it
        for handle in handles:
            handle.remove()
        start += size
    return {name: x.float().numpy() for name, x in found.items()}


def frequencies(dtype):
    def change(model):
        rotary = model.model.rotary_emb
        rotary.inv_freq = rotary.inv_freq.to(dtype).float()

    return change


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_frequencies_rounded_in_pytorch(dtype):
    run, right, candidates = computed("far-float32/decode")
    dump = far_dump(frequencies(dtype))
    tensors = [Tensor(name, name, "float32", dump[theirs][0]) for name, theirs in (
        ("embedding", "model.embed_tokens"), ("layers.0.attn_norm", "model.layers.0.input_layernorm"),
        ("layers.0.attn.out", "model.layers.0.self_attn.o_proj"), ("logits", "lm_head"))]
    rows = compare.compare(tensors, right)
    assert [row.verdict for row in rows] == ["ok", "ok", "differs", "differs"]
    diagnosis = diagnose(tensors, rows, right, candidates)
    assert [cause.name for cause in diagnosis.found] == [f"frequencies-{str(dtype).removeprefix('torch.')}"]


def test_wrong_eps_in_pytorch_that_float32_cannot_tell(tmp_path, capsys):
    case = ("--reference", "far-float32/decode")
    first, found, report = diagnosis_of(far_dump(rms_norm_eps=1e-6), tmp_path, capsys, *case)
    assert first == "layers.0.attn_norm" and found[0] == "eps-1e-06" and report["compared_in_float64"]
    assert set(found) <= {bug.name for bug in BUGS if bug.name.startswith("eps")}   # those still smaller are listed too
    assert compare.main([str(tmp_path / "dump.npz"), "--reference", "far-float32/decode"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "differs by no more than rounding in float32. Compared in float64" in text


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rounding_at_far_positions_is_no_bug(dtype, tmp_path, capsys):
    np.savez(tmp_path / "dump.npz", **far_dump(dtype=dtype))
    status = compare.main([str(tmp_path / "dump.npz"), "--reference", "far-float32/decode"])
    assert status == 0, capsys.readouterr().out


def test_a_bug_that_rounding_hides_is_found_in_float64():
    """The wrong eps is found where float32 cannot tell it from rounding, and only that."""
    reference, _, _ = reference_case("gqa-float32/prompt")
    random = np.random.default_rng(1)
    shape = reference.weights["embedding"].shape
    embedding = (4 * random.standard_normal(shape)).astype(np.float32)        # so large that eps hardly counts
    run = replace(reference, weights=reference.weights | {"embedding": embedding}, chunks=(40,),
                  tokens=tuple(random.integers(3, shape[0], 40)))
    right = Candidate(run)
    right.compute_all(["float64", "float32"])
    assert run.config.norm_eps == 1e-5
    for eps, expected in ((1e-5, False), (1.3e-5, False), (1e-6, True)):
        trace = compute(replace(run, config=replace(run.config, norm_eps=eps)))
        dump = [Tensor(name, name, "float32", x) for name, x in trace.items()]
        assert all(row.verdict == "ok" for row in compare.compare(dump, right))
        diagnosis = hidden(dump, right, [Candidate(run, bug) for bug in BUGS])
        assert bool(diagnosis) == expected
        if expected:
            assert diagnosis.first == "layers.0.attn_norm"
            assert "eps-1e-06" in [cause.name for cause in diagnosis.found]
