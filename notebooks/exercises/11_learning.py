"""The exercises of lesson 11, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, random


def level_schedule(step, steps, peak, warmup):
    return peak * min((step + 1) / warmup, 1, 2 * (steps - step) / steps)


LEVEL_SCHEDULE = Exercise(
    level_schedule, stars=1, minutes=5,
    inputs=[(0, 100, 2.0, 10), (4, 100, 2.0, 10), (9, 100, 2.0, 10), (10, 100, 2.0, 10), (30, 100, 2.0, 10),
            (50, 100, 2.0, 10), (51, 100, 2.0, 10), (75, 100, 2.0, 10), (99, 100, 2.0, 10), (0, 40, 3e-4, 4),
            (5, 40, 3e-4, 4), (30, 40, 3e-4, 4), (39, 40, 3e-4, 4)],
    hints=[
        "Three stretches, three cases. What are the two straight lines, the rising and the falling one?",
        "The falling one is peak at step steps / 2 and 0 at step steps: what share of the second half is left?",
        "if step < warmup: peak * (step + 1) / warmup; elif step < steps / 2: peak; else: peak * (steps - step) / "
        "(steps / 2)."],
    mistakes=[
        ("the first step would have the rate 0 and be wasted: warm-up begins with 1/warmup of the peak.",
         lambda step, steps, peak, warmup: peak * min(step / warmup, 1, 2 * (steps - step) / steps)),
        ("it ends at a tenth of the peak, as the papers' cosine does; this one falls to 0.",
         lambda step, steps, peak, warmup: peak * (
             min((step + 1) / warmup, 1) if 2 * step < steps else 0.1 + 0.9 * 2 * (steps - step) / steps)),
        ("it falls from the end of the warm-up on; the first half of the run stays level.",
         lambda step, steps, peak, warmup: peak * min((step + 1) / warmup, (steps - step) / (steps - warmup))),
        ("the second half falls along a cosine; this one is a straight line.",
         lambda step, steps, peak, warmup: peak * (
             min((step + 1) / warmup, 1) if 2 * step < steps
             else (1 + math.cos(math.pi * (2 * step - steps) / steps)) / 2)),
        ("the warm-up is missing: the rate begins at the peak.",
         lambda step, steps, peak, warmup: peak * min(1, 2 * (steps - step) / steps)),
        ("it never falls: the second half goes down to 0.",
         lambda step, steps, peak, warmup: peak * min((step + 1) / warmup, 1)),
    ],
    wrong_answers=[
        ("be wasted", """
def level_schedule(step, steps, peak, warmup):
    if step < warmup:
        return peak * step / warmup
    return peak if step < steps / 2 else peak * (steps - step) / (steps / 2)"""),
        ("a tenth of the peak", """
def level_schedule(step, steps, peak, warmup):
    if step < warmup:
        return peak * (step + 1) / warmup
    if step < steps / 2:
        return peak
    share = (step - steps / 2) / (steps / 2)
    return peak * (1 - 0.9 * share)"""),
        ("from the end of the warm-up on", """
def level_schedule(step, steps, peak, warmup):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 - (step - warmup) / (steps - warmup))"""),
        ("along a cosine", """
def level_schedule(step, steps, peak, warmup):
    if step < warmup:
        return peak * (step + 1) / warmup
    half = steps / 2
    return peak if step < half else peak * (np.cos(np.pi * (step - half) / half) + 1) / 2"""),
        ("the warm-up is missing", """
def level_schedule(step, steps, peak, warmup):
    return peak if step < steps / 2 else peak * (steps - step) / (steps - steps / 2)"""),
        ("it never falls", """
def level_schedule(step, steps, peak, warmup):
    return min(peak, peak * (step + 1) / warmup)"""),
    ])


def answer_gradient(logits, targets, is_answer):
    dlogits, count = np.zeros(logits.shape), int(np.sum(is_answer))
    for t in np.flatnonzero(is_answer):
        powers = [math.exp(float(x) - float(logits[t].max())) for x in logits[t]]
        for i, power in enumerate(powers):
            dlogits[t, i] = (power / math.fsum(powers) - (i == targets[t])) / count
    return dlogits.astype(logits.dtype)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def answers_with(logits, targets, is_answer, truth=1.0, count=None, mask=True):
    out = softmax(logits) - truth * np.eye(logits.shape[-1], dtype=logits.dtype)[targets]
    out = out * is_answer[:, None] if mask else out
    return (out / (is_answer.sum() if count is None else count)).astype(logits.dtype)


ANSWER_GRADIENT = Exercise(
    answer_gradient, stars=2, minutes=10, picture=True, may_call=("softmax",),
    inputs=[
        (random(4, 5), np.array([1, 0, 4, 2]), np.array([False, False, True, True])),
        (random(6, 3, seed=1, scale=3), np.array([0, 1, 2, 2, 1, 0]),
         np.array([False, True, True, False, True, False])),
        (random(3, 7, seed=2, scale=50), np.array([6, 5, 0]), np.array([True, False, True]))],
    hints=[
        "Of which rows is the loss a mean? What is the slope of a loss that does not look at a row?",
        "p − y in the rows of answer tokens, 0 in all others. And what is it divided by?",
        "dlogits = nl.softmax(logits), minus 1 at the targets; times is_answer[:, None]; divided by is_answer.sum()."],
    mistakes=[
        ("you divided by all T tokens; the mean is over the answer tokens alone.",
         lambda l, t, a: answers_with(l, t, a, count=len(t))),
        ("prompt tokens pull, too; their rows must be 0.",
         lambda l, t, a: answers_with(l, t, a, mask=False)),
        ("that is the gradient of the mean over all tokens; is_answer is not used.",
         lambda l, t, a: answers_with(l, t, a, mask=False, count=len(t))),
        ("those are probabilities; the 1 at each target is missing (p − y).",
         lambda l, t, a: answers_with(l, t, a, truth=0.0)),
        ("the sign is wrong: the loss falls when the target's logit rises, so its slope is negative.",
         lambda l, t, a: -answers_with(l, t, a)),
        ("that is the gradient of the sum; divide by the number of answer tokens.",
         lambda l, t, a: answers_with(l, t, a, count=1)),
    ],
    wrong_answers=[
        ("divided by all T tokens", """
def answer_gradient(logits, targets, is_answer):
    d = nl.softmax(logits)
    d[np.arange(len(targets)), targets] -= 1
    d[~is_answer] = 0
    return d / len(targets)"""),
        ("prompt tokens pull", """
def answer_gradient(logits, targets, is_answer):
    d = nl.softmax(logits)
    d[range(len(d)), targets] -= 1
    return d / np.count_nonzero(is_answer)"""),
        ("is_answer is not used", """
def answer_gradient(logits, targets, is_answer):
    d = nl.softmax(logits)
    d[range(len(d)), targets] -= 1
    return d / len(d)"""),
        ("those are probabilities", """
def answer_gradient(logits, targets, is_answer):
    return nl.softmax(logits) * is_answer[:, None] / is_answer.sum(dtype=np.float32)"""),
        ("the sign is wrong", """
def answer_gradient(logits, targets, is_answer):
    y = np.zeros_like(logits)
    y[range(len(y)), targets] = 1
    return (y - nl.softmax(logits)) * is_answer[:, None] / np.float32(is_answer.sum())"""),
        ("gradient of the sum", """
def answer_gradient(logits, targets, is_answer):
    d = nl.softmax(logits)
    d[range(len(d)), targets] -= 1
    return np.where(is_answer[:, None], d, 0)"""),
    ])


def layer_norm_back(dy, x, g, eps):
    T, D = x.shape
    dx = np.zeros((T, D))
    for t in range(T):
        row = x[t].astype(float)
        centred = row - row.mean()
        std = math.sqrt(np.mean(centred ** 2) + eps)
        n = centred / std
        jacobian = (np.eye(D) - 1 / D - np.outer(n, n) / D) / std
        dx[t] = jacobian @ (dy[t].astype(float) * g)
    return dx.astype(x.dtype)


def layer_norm_with(dy, x, g, eps, centre=True, mean=1, along=1, divide=True):
    if centre:
        x = x - x.mean(axis=-1, keepdims=True)
    std = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    n, dn = x / std, dy * g
    dx = dn - mean * dn.mean(axis=-1, keepdims=True) - along * n * np.mean(dn * n, axis=-1, keepdims=True)
    return (dx / std if divide else dx).astype(np.float32)


LAYER_NORM_BACK = Exercise(
    layer_norm_back, stars=3, minutes=20, picture=True, tolerance=1e-4,          # float32: two means are subtracted
    inputs=[
        (random(3, 6), random(3, 6, seed=1) + 2, random(6, seed=2), 1e-5),
        (random(1, 2, seed=3), random(1, 2, seed=4), np.ones(2, np.float32), 0.5),
        (random(4, 8, seed=5), random(4, 8, seed=6, scale=3), random(8, seed=7), 1e-3)],
    hints=[
        "Two steps: c = x − mean(x), then n = c / std, which is RMSNorm of c. Go back through them in turn.",
        "Back through the division: RMSNorm's formula with std for r gives dc. Back through c = x − mean(x): each x "
        "acts on its own c, and by the mean on every c.",
        "dx = dc − mean(dc). (In one line: (dn − mean(dn) − n · mean(dn n)) / std, as n has the mean 0.)"],
    mistakes=[
        ("the way through the mean is missing: every x moves the mean, so mean(dn) is subtracted.",
         lambda dy, x, g, eps: layer_norm_with(dy, x, g, eps, mean=0)),
        ("that is RMSNorm's gradient; LayerNorm subtracts the mean of x first.",
         lambda dy, x, g, eps: layer_norm_with(dy, x, g, eps, centre=False, mean=0)),
        ("the part along n is missing: the standard deviation moves with x.",
         lambda dy, x, g, eps: layer_norm_with(dy, x, g, eps, along=0)),
        ("g is missing: dn is dy times g.",
         lambda dy, x, g, eps: layer_norm_with(dy, x, np.ones_like(g), eps)),
        ("it is not divided by the standard deviation.",
         lambda dy, x, g, eps: layer_norm_with(dy, x, g, eps, divide=False)),
        ("x is not centred: n is (x − mean) / std.",
         lambda dy, x, g, eps: layer_norm_with(dy, x, g, eps, centre=False)),
        ("the part along n is added; it must be taken out.",
         lambda dy, x, g, eps: layer_norm_with(dy, x, g, eps, along=-1)),
    ],
    wrong_answers=[
        ("the way through the mean is missing", """
def layer_norm_back(dy, x, g, eps):
    c = x - x.mean(axis=-1, keepdims=True)
    std = np.sqrt((c ** 2).mean(axis=-1, keepdims=True) + eps)
    n, dn = c / std, dy * g
    return (dn - n * (dn * n).mean(axis=-1, keepdims=True)) / std"""),
        ("RMSNorm's gradient", """
def layer_norm_back(dy, x, g, eps):
    r = np.sqrt((x ** 2).mean(axis=-1, keepdims=True) + eps)
    n, dn = x / r, dy * g
    return (dn - n * (dn * n).mean(axis=-1, keepdims=True)) / r"""),
        ("the part along n is missing", """
def layer_norm_back(dy, x, g, eps):
    std = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    dn = dy * g
    return (dn - dn.mean(axis=-1, keepdims=True)) / std"""),
        ("g is missing", """
def layer_norm_back(dy, x, g, eps):
    std = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    n = (x - x.mean(axis=-1, keepdims=True)) / std
    return (dy - dy.mean(axis=-1, keepdims=True) - n * (dy * n).mean(axis=-1, keepdims=True)) / std"""),
        ("not divided", """
def layer_norm_back(dy, x, g, eps):
    n = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    dn = dy * g
    return dn - dn.mean(axis=-1, keepdims=True) - n * (dn * n).mean(axis=-1, keepdims=True)"""),
        ("must be taken out", """
def layer_norm_back(dy, x, g, eps):
    std = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    n = (x - x.mean(axis=-1, keepdims=True)) / std
    dn = dy * g
    return (dn - dn.mean(axis=-1, keepdims=True) + n * (dn * n).mean(axis=-1, keepdims=True)) / std"""),
    ])
