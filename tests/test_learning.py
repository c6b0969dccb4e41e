"""Lesson 11: its gradients against torch.autograd, and its training against PyTorch's, all in float64.

The functions are those of the lesson's source, which students read. Each check is then tested itself: with one sign,
one term or one transposition wrong in those functions, it must fail.
"""
import ast
import copy
import functools
import itertools
import json
import math
import re
import subprocess
import sys

import numpy as np
import oracle
import pytest
import torch
from conftest import ROOT
from torch.nn.functional import cross_entropy, rms_norm, scaled_dot_product_attention, silu
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import numpy_llama as nl

LESSON = ROOT / "notebooks" / "source" / "11_learning.py"
T, D, H, G, d, F, V, EPS = 6, 24, 4, 2, 6, 24, 24, 1e-5   # T = d and D = F = V: what is transposed has the same shape
CONFIG = nl.Config(dim=D, n_layers=2, n_heads=H, n_kv_heads=G, hidden_dim=F, vocab_size=V, max_seq_len=64)


@functools.cache
def sources():
    """{name: source} of the functions that the lesson defines outside its exercises."""
    text = LESSON.read_text(encoding="utf-8")
    cells = [cell for cell in re.split(r"^(?=# %%)", text, flags=re.M) if not re.match(r"# %%.*(exercise|sol)", cell)]
    return {node.name: ast.get_source_segment(cell, node) for cell in cells for node in ast.parse(cell).body
            if isinstance(node, ast.FunctionDef)}


def lesson(name=None, right=None, wrong=None):
    """The lesson's functions by name; in the function `name`, what stands as `right` once is changed to `wrong`."""
    scope = {"np": np, "nl": nl, "math": math, "copy": copy}
    for function, source in sources().items():
        if function == name:
            assert source.count(right) == 1, f"{name} must say this exactly once: {right}"
            source = source.replace(right, wrong)
        exec(source, scope)
    return scope


def random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def pulled_back(f, dy, *inputs):
    """PyTorch's gradients of f(*inputs) if the loss hands it dy."""
    leaves = [torch.tensor(x, requires_grad=True) for x in inputs]
    f(*leaves).backward(torch.as_tensor(dy))
    return [leaf.grad.numpy() for leaf in leaves]


def leaves(results):
    """The arrays of nested tuples, lists and dicts, in order."""
    if isinstance(results, np.ndarray):
        return [results]
    return [leaf for result in (results.values() if isinstance(results, dict) else results) for leaf in leaves(result)]


def assert_same(ours, theirs):
    """Gradients are equal: float64 leaves 1e-14 or so of the largest number, and a mistake much more."""
    ours = leaves(ours)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert a.shape == b.shape and np.abs(a - b).max() < 1e-11 * np.abs(b).max()


# ---- Each gradient against torch.autograd --------------------------------------------------------------------

def check_cross_entropy_back(scope):
    logits, targets = random(V, V), np.random.default_rng(1).integers(V, size=V)
    theirs = pulled_back(lambda x: cross_entropy(x, torch.tensor(targets)), 1.0, logits)
    assert_same(scope["cross_entropy_back"](logits, targets), theirs)


def check_product_back(scope):
    x, w, dy = random(D, D), random(D, D, seed=1), random(D, D, seed=2)
    assert_same(scope["product_back"](dy, x, w), pulled_back(torch.matmul, dy, x, w))


def check_rms_norm_back(scope):
    x, g, dy, eps = random(D, D), random(D), random(D, D, seed=1), 0.1             # an eps that counts
    theirs = pulled_back(lambda x, g: rms_norm(x, (D,), g, eps), dy, x, g)
    assert_same(scope["rms_norm_back"](dy, x, g, eps), theirs)


def check_silu_back(scope):
    x, dy = 3 * random(D, D), random(D, D, seed=1)
    assert_same(scope["silu_back"](dy, x), pulled_back(silu, dy, x))


def feed_forward(x, gate, up, down):
    return (silu(x @ gate) * (x @ up)) @ down


def check_feed_forward_back(scope):
    x, dy, seen = random(T, D), random(T, D, seed=1), nl.Trace()
    ffn = {name: random(D, D, seed=i) / 4 for i, name in enumerate(("gate", "up", "down"))}
    nl.feed_forward(x, **ffn, tap=seen)
    assert_same(scope["feed_forward_back"](dy, x, ffn, seen), pulled_back(feed_forward, dy, x, *ffn.values()))


def check_softmax_back(scope):
    x, dy = random(H, T, T), random(H, T, T, seed=1)
    theirs = pulled_back(lambda x: torch.softmax(x, -1), dy, x)
    assert_same(scope["softmax_back"](dy, nl.softmax(x)), theirs)


def tables():
    return nl.rope_cos_sin(np.arange(T), d, 100.0, np.float64)


def rotate(x):
    """transformers' rotation of (heads, T, d)."""
    cos, sin = (torch.tensor(np.concatenate([table, table], axis=-1))[None] for table in tables())
    return apply_rotary_pos_emb(x[None], x[None], cos, sin)[0][0]


def check_rope_back(scope):
    x, dy = random(H, T, d), random(H, T, d, seed=1)
    assert_same(scope["rope_back"](dy, *tables()), pulled_back(rotate, dy, x))


def attend(q, k, v):
    return scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, enable_gqa=True)[0]


def check_attention_back(scope):
    q, k, v, dy, seen = random(H, T, d), random(G, T, d), random(G, T, d, seed=1), random(H, T, d, seed=2), nl.Trace()
    nl.attention(q, k, v, nl.causal_mask(np.arange(T), T), seen)
    assert_same(scope["attention_back"](dy, q, k, v, seen["probs"]), pulled_back(attend, dy, q, k, v))


def check_add_shared(scope):
    dy = random(H, T, d)
    theirs = pulled_back(lambda x: x.repeat_interleave(H // G, 0), dy, random(G, T, d))
    assert_same(scope["add_shared"](dy, G), theirs)


def self_attention(x, wq, wk, wv, wo):
    q, k, v = ((x @ w).unflatten(1, (-1, d)).transpose(0, 1) for w in (wq, wk, wv))
    return attend(rotate(q), rotate(k), v).transpose(0, 1).flatten(1) @ wo


def attention_weights():
    return {name: random(D, heads * d, seed=i) / 4 for i, (name, heads) in enumerate(
        (("wq", H), ("wk", G), ("wv", G), ("wo", H)))}


def check_self_attention_back(scope):
    x, dy, seen, attn = random(T, D), random(T, D, seed=1), nl.Trace(), attention_weights()
    nl.self_attention(x, **attn, cos=tables()[0], sin=tables()[1], mask=nl.causal_mask(np.arange(T), T), tap=seen)
    assert_same(scope["self_attention_back"](dy, x, attn, *tables(), seen),
                pulled_back(self_attention, dy, x, *attn.values()))


def check_block_back(scope):
    def block(x, attn_norm, wq, wk, wv, wo, ffn_norm, gate, up, down):
        x = x + self_attention(rms_norm(x, (D,), attn_norm, EPS), wq, wk, wv, wo)
        return x + feed_forward(rms_norm(x, (D,), ffn_norm, EPS), gate, up, down)

    x, dy, seen = random(T, D), random(T, D, seed=1), nl.Trace()
    layer = {"attn_norm": random(D), "attn": attention_weights(), "ffn_norm": random(D, seed=1),
             "ffn": {name: random(D, D, seed=i) / 4 for i, name in enumerate(("gate", "up", "down"))}}
    nl.block(x, **layer, cos=tables()[0], sin=tables()[1], mask=nl.causal_mask(np.arange(T), T), eps=EPS, tap=seen)
    assert_same(scope["block_back"](dy, x, layer, *tables(), EPS, seen), pulled_back(block, dy, x, *leaves(layer)))


@functools.cache
def llama():
    """transformers' Llama in float64, of random weights."""
    return oracle.double(oracle.random_llama(CONFIG))


def torch_loss(model, tokens):
    with oracle.precision_of(model):
        logits = model(torch.as_tensor(tokens[:-1])[None]).logits[0]
    return cross_entropy(logits, torch.as_tensor(tokens[1:]))


@functools.cache
def llamas_gradient():
    tokens, model = np.random.default_rng(0).integers(V - 2, size=12), llama()       # some twice, two never
    model.zero_grad()
    loss = torch_loss(model, tokens)
    loss.backward()
    slopes = copy.deepcopy(model)
    with torch.no_grad():
        for slope, p in zip(slopes.parameters(), model.parameters()):
            slope.copy_(p.grad)
    return tokens, loss.item(), oracle.weights_from(slopes)[0]


def check_loss_and_gradient(scope):
    tokens, loss, gradient = llamas_gradient()
    ours, slopes = scope["loss_and_gradient"](tokens, *oracle.weights_from(llama()))
    assert abs(ours - loss) < 1e-12
    theirs = scope["by_name"](gradient)
    assert slopes.keys() == gradient.keys() and scope["by_name"](slopes).keys() == theirs.keys()
    assert_same(scope["by_name"](slopes), list(theirs.values()))


CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}


@pytest.mark.parametrize("function", CHECKS)
def test_gradient_is_autograds(function):
    CHECKS[function](lesson())


def test_every_gradient_of_the_lesson_is_checked():
    assert {name for name in sources() if name.endswith("_back")} <= CHECKS.keys()


# ---- The checks, tested: each mistake must be refused --------------------------------------------------------

@pytest.mark.parametrize("function", CHECKS)
def test_a_gradient_with_a_wrong_sign_or_transposed_is_refused(function):
    """Each array that a function returns, one after the other, is negated and transposed (a vector: reversed)."""
    right, changed = lesson()[function], []

    def with_change(number, change):
        def wrong(*arguments):
            results = copy.deepcopy(right(*arguments))
            array = leaves(results[1] if function == "loss_and_gradient" else results)[number]
            array[:] = change(array)
            changed.append(number)
            return results
        return lesson() | {function: wrong}

    def turned(x):
        return x[::-1].copy() if x.ndim == 1 else x.swapaxes(-1, -2).reshape(x.shape)

    number = 0
    while True:
        try:
            for change in (np.negative, turned):
                with pytest.raises(AssertionError):
                    CHECKS[function](with_change(number, change))
        except IndexError:                                # there are no more arrays
            break
        number += 1
    assert number and len(changed) == 2 * number


MISTAKES = {        # function: (what the lesson says, what it would say)
    "cross_entropy_back": [
        ("targets] -= 1", "targets] -= 0"), ("targets] -= 1", "targets] += 1"), (" / len(targets)", "")],
    "product_back": [
        ("dy @ w.T", "dy @ w"), ("dy @ w.T", "-dy @ w.T"), ("x.T @ dy", "x @ dy"), ("x.T @ dy", "dy.T @ x")],
    "rms_norm_back": [
        (" - n * np.mean(dn * n, axis=-1, keepdims=True)", ""), ("(dn - n", "(dn + n"), ("dy * g", "dy"),
        ("np.mean(dn * n, axis=-1", "np.mean(dn * n, axis=0"), (" + eps", ""), ("np.mean(dn * n", "np.mean(dn"),
        ("np.sum(dy * n", "np.sum(dn * n"), ("np.sum(dy * n", "np.sum(dy * x")],
    "silu_back": [
        (" * (1 + a * (1 - sigma))", ""), ("1 + a *", "1 - a *"), ("(1 - sigma)", "sigma"), ("dy * ", "")],
    "feed_forward_back": [
        ("dx_gate + dx_up", "dx_gate"), ("dx_gate + dx_up", "dx_gate - dx_up"), ('dgate, x, ffn["gate"]',
        'dgate, x, ffn["gate"].T'), ('dhidden * seen["silu"]', 'dhidden * seen["gate"]'),
        ('dhidden * seen["up"]', "dhidden"), ('ffn["down"])', 'ffn["down"].T)')],
    "softmax_back": [
        (" - np.sum(p * dp, axis=-1, keepdims=True)", ""), ("dp - np", "dp + np"), ("axis=-1", "axis=-2"),
        ("np.sum(p * dp", "np.sum(dp")],
    "rope_back": [("-sin", "sin"), ("-sin", "0 * sin"), ("cos, -sin", "-cos, -sin")],
    "add_shared": [
        (".reshape(G, H // G, T, d).sum(axis=1)", ".reshape(H // G, G, T, d).sum(axis=0)"), (".sum(", ".mean("),
        (".sum(axis=1)", "[:, 0]")],
    "attention_back": [
        (" / math.sqrt(d)", ""), ("dheads @ values.swapaxes(1, 2)", "dheads @ values"),
        ("p.swapaxes(1, 2) @ dheads", "p @ dheads"), ("dscores.swapaxes(1, 2) @ q", "dscores @ q"),
        ("softmax_back(dp, p)", "-softmax_back(dp, p)"), ("softmax_back(dp, p)", "dp"),
        ("keys = np.repeat(k, H // G, axis=0)", "keys = np.tile(k, (H // G, 1, 1))")],
    "self_attention_back": [
        ("dx_q + dx_k + dx_v", "dx_q + dx_k"), ("dx_q + dx_k + dx_v", "dx_q + dx_k - dx_v"),
        ("rope_back(dk, cos, sin)", "dk"), ("rope_back(dq, cos, sin)", "nl.rope(dq, cos, sin)"),
        ('nl.merge_heads(seen["heads"])', 'seen["heads"].reshape(x.shape)'), ('x, attn["wq"]', 'x, attn["wq"].T')],
    "block_back": [
        ("dmiddle = dout + dbranch", "dmiddle = dout"), ("dmiddle = dout + dbranch", "dmiddle = dbranch"),
        ("return dmiddle + dbranch", "return dmiddle - dbranch"), ("return dmiddle + dbranch", "return dbranch"),
        ('dh, seen["x_attn"]', "dh, x"), ("dh, x, layer", 'dh, seen["x_attn"], layer')],
    "loss_and_gradient": [
        ("np.add.at(dembedding, tokens, dx)", "dembedding[tokens] = dx"), ("reversed(range(L))", "range(L)"),
        ('seen["norm"], weights["output"]', 'seen["norm"], weights["output"].T'), ("dx, streams[L]", "-dx, streams[L]"),
        ("block_back(dx, streams[i]", "block_back(dx, streams[i + 1]")],
}


@pytest.mark.parametrize("function, right, wrong", [
    pytest.param(function, *change, id=f"{function}: {change[1] or 'without' + change[0]}")
    for function, changes in MISTAKES.items() for change in changes])
def test_a_mistake_is_refused(function, right, wrong):
    with pytest.raises(AssertionError):
        CHECKS[function](lesson(function, right, wrong))


def test_every_check_is_given_mistakes():
    assert MISTAKES.keys() == CHECKS.keys()


# ---- A training run against PyTorch's ------------------------------------------------------------------------

STEPS, PEAK, WARMUP, WINDOW, BATCH = 100, 1e-2, 20, 48, 4
CHARACTERS = nl.Config(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=96, vocab_size=35, max_seq_len=64)


@functools.cache
def text_ids():
    """course.STORY in characters; its module would load the shipped model, so only the text is read."""
    course = ast.parse((ROOT / "notebooks" / "course.py").read_text(encoding="utf-8"))
    story, = [ast.literal_eval(node.value) for node in course.body
              if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STORY"]
    characters = sorted(set(story))
    return np.array([characters.index(c) for c in story])


@functools.cache
def beginner():
    return oracle.double(oracle.random_llama(CHARACTERS))


@functools.cache
def pytorchs_losses():
    """PyTorch's loss before each step: its AdamW, its clipping, its schedules."""
    model, rng, losses = copy.deepcopy(beginner()), np.random.default_rng(0), []
    matrices = [p for p in model.parameters() if p.dim() == 2]
    gains = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}],
                                  lr=PEAK, betas=(0.9, 0.95))
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / WARMUP, total_iters=WARMUP - 1)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS - WARMUP, eta_min=0.1 * PEAK)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [WARMUP])
    for _ in range(STEPS):
        starts = rng.integers(len(text_ids()) - WINDOW, size=BATCH)
        batch = torch.tensor(np.stack([text_ids()[start:start + WINDOW + 1] for start in starts]))
        with oracle.precision_of(model):
            logits = model(batch[:, :-1]).logits
        loss = cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return np.array(losses)


def lessons_losses(scope, stop=STEPS):
    """The first losses of the same run by the lesson's functions."""
    scope |= {"WINDOW": WINDOW, "BATCH": BATCH}
    weights, config = oracle.weights_from(copy.deepcopy(beginner()))
    run = scope["training"](weights, text_ids(), config, STEPS, PEAK, WARMUP)
    return np.array(list(itertools.islice(run, stop)))


def test_training_is_pytorchs():
    """100 steps in float64. Rounding is 1e-16, and a hundred steps of training make 1e-12 or so of it."""
    ours, theirs = lessons_losses(lesson()), pytorchs_losses()
    assert theirs[0] > 3.5 and theirs[-1] < 2.2                       # it learns
    assert np.abs(ours - theirs).max() < 1e-9


@pytest.mark.parametrize("function, right, wrong", [
    ("adamw", "0.9 * m + 0.1 * g", "0.9 * m + g"), ("adamw", "0.1 * g", "-0.1 * g"), ("adamw", "0.95 * v", "0.9 * v"),
    ("adamw", "(1 - 0.9 ** t)", "1"), ("adamw", "(1 - 0.95 ** t)", "1"), ("adamw", "1e-8", "1e-5"),
    ("adamw", " - rate * decay * w", ""), ("adamw", "- rate * decay * w", "- decay * w"),
    ("adamw", "- rate * mean", "+ rate * mean"), ("adamw", "0.05 * g * g", "0.05 * g"),
    ("clip", "min(1.0, largest / (norm + 1e-6))", "1.0"), ("clip", "min(1.0, ", "(1 * "), ("clip", "math.sqrt(", "("),
    ("learning_rate", "(step + 1) / warmup", "step / warmup"), ("learning_rate", "0.55 + 0.45", "0.5 + 0.5"),
    ("learning_rate", "(steps - warmup)", "steps"), ("batch_gradient", "g / len(texts)", "g"),
    ("batch_gradient", "+= g", "= g"), ("training", "0.1 if g.ndim == 2 else 0.0", "0.1"),
    ("training", "0.1 if g.ndim == 2 else 0.0", "0.0"), ("training", "step + 1, rate", "step + 2, rate"),
    ("training", "[start:start + WINDOW + 1]", "[start:start + WINDOW]")])
def test_a_mistake_in_training_is_refused(function, right, wrong):
    with np.errstate(all="ignore"):
        ours = lessons_losses(lesson(function, right, wrong), stop=WARMUP + 5)
    assert not np.abs(ours - pytorchs_losses()[:WARMUP + 5]).max() < 1e-7        # a hundred times what is allowed


# ---- What was said on the way --------------------------------------------------------------------------------

MILESTONES = ROOT / "weights" / "milestones.json"


def check_milestones(recorded):
    """A record as weights/milestones.py writes it."""
    at = [milestone["step"] for milestone in recorded["milestones"]]
    assert at == sorted(set(at)) and at[0] == 0 and at[-1] == recorded["steps"] and recorded["falls"] in at
    for milestone in recorded["milestones"]:
        assert milestone["tokens"] == milestone["step"] * recorded["batch"] * recorded["context"]
        assert milestone["said"].startswith("Once upon a time") and milestone["held_out_bits_per_byte"] > 0


def test_recorded_milestones():
    recorded = json.loads(MILESTONES.read_text(encoding="utf-8"))
    check_milestones(recorded)
    held_out = [milestone["held_out_bits_per_byte"] for milestone in recorded["milestones"]]
    assert held_out == sorted(held_out, reverse=True) and held_out[-1] < 0.6 * held_out[0]
    assert MILESTONES.stat().st_size < 4000


def test_milestones_can_be_recorded_again(tmp_path):
    """The script, on five toy books, for four steps."""
    for name in "abcde":
        (tmp_path / f"{name}.txt").write_text("\n\n\n".join(
            f"Once upon a time there was a king called {name}{i}. " * 40 for i in range(3)), encoding="utf-8")
    done = subprocess.run([sys.executable, ROOT / "weights" / "milestones.py", tmp_path, "--steps", "4", "--out",
                           tmp_path / "found.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_milestones(json.loads((tmp_path / "found.json").read_text(encoding="utf-8")))
