"""The exercises of lesson 08, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, random


def attention_map(heads, S, seed):
    """Weights as a head has them: rows that sum to 1, nothing on later tokens."""
    scores = np.exp(2 * random(heads, S, S, seed=seed)) * np.tri(S, dtype=np.float32)
    return (scores / scores.sum(axis=-1, keepdims=True)).astype(np.float32)


# ---- 1. Hold one direction -----------------------------------------------------------------------------------

def hold(x, direction):
    unit = direction.astype(np.float64) / math.sqrt(math.fsum(float(y) ** 2 for y in direction))
    along = [math.fsum(float(a) * b for a, b in zip(row, unit)) for row in x]
    mean = math.fsum(along) / len(along)
    return np.array([row + (mean - part) * unit for row, part in zip(x.astype(np.float64), along)]).astype(np.float32)


def unit_of(direction):
    return direction / np.linalg.norm(direction)


HOLD = Exercise(
    hold, stars=2, minutes=10,
    picture=True,
    inputs=[
        (random(4, 6), random(6, seed=1, scale=3)), (random(1, 5, seed=2), random(5, seed=3)),
        (random(7, 3, seed=4, scale=10) + np.float32(5), np.array([0, 2, 0], np.float32)),
        (random(3, 8, seed=5) + np.float32(1), random(8, seed=6, scale=0.1))],
    hints=[
        "Split each row in two: its part along the direction, and the rest. Which of the two changes?",
        "With a unit vector u, row t has x[t] @ u along it. Set all of these numbers to their mean.",
        "u = direction / its length; along = x @ u; add (along.mean() - along) times u to each row."],
    mistakes=[
        ("the direction is not of length 1: divide it by its length first.",
         lambda x, w: x + (np.mean(x @ w) - x @ w)[:, None] * w),
        ("you set the part along the direction to zero; it should become its mean over the rows.",
         lambda x, w: x - (x @ unit_of(w))[:, None] * unit_of(w)),
        ("you set the whole rows to their mean; what is not along the direction should stay.",
         lambda x, w: np.zeros_like(x) + x.mean(axis=0)),
        ("you kept the part along the direction and averaged the rest; it is the other way round.",
         lambda x, w: x.mean(axis=0) - np.mean(x @ unit_of(w)) * unit_of(w) + (x @ unit_of(w))[:, None] * unit_of(w)),
        ("you took the mean away and left the differences along the direction; keep the mean, drop the differences.",
         lambda x, w: x - np.mean(x @ unit_of(w)) * unit_of(w)),
        ("once the parts along the direction are gone, their mean has to come back: add it, do not subtract it.",
         lambda x, w: x - (x @ unit_of(w) + np.mean(x @ unit_of(w)))[:, None] * unit_of(w)),
        ("you returned only the held part; the rest of each row belongs to the answer.",
         lambda x, w: np.zeros_like(x) + np.mean(x @ unit_of(w)) * unit_of(w)),
        ("nothing changes: you returned x as it came.",
         lambda x, w: x),
    ],
    wrong_answers=[
        ("divide it by its length first", """
def hold(x, direction):
    along = x @ direction
    return x + np.outer(along.mean() - along, direction)"""),
        ("you set the part along the direction to zero", """
def hold(x, direction):
    u = direction / np.linalg.norm(direction)
    return x - np.outer(x @ u, u)"""),
        ("you set the whole rows to their mean", """
def hold(x, direction):
    return np.repeat(x.mean(axis=0, keepdims=True), len(x), axis=0)"""),
        ("you took the mean away", """
def hold(x, direction):
    u = direction / np.linalg.norm(direction)
    return x - (x @ u).mean() * u"""),
        ("only the held part", """
def hold(x, direction):
    u = direction / np.linalg.norm(direction)
    return np.repeat((x @ u).mean() * u[None], len(x), axis=0)"""),
        ("add it, do not subtract it", """
def hold(x, direction):
    u = direction / np.linalg.norm(direction)
    along = x @ u
    return x - np.outer(along, u) - along.mean() * u"""),
    ])


# ---- 2. An induction score for any text ----------------------------------------------------------------------

def induction_score(probs, ids):
    sums, asked = [0.0] * len(probs), 0
    for t in range(len(ids)):
        after = [s + 1 for s in range(t) if ids[s] == ids[t]]
        if after:
            asked += 1
            for h in range(len(probs)):
                sums[h] += math.fsum(float(probs[h, t, s]) for s in after)
    return np.array([total / max(asked, 1) for total in sums], np.float32)


def score_with(probs, ids, place, asks=None, mean=None):
    """A wrong score: `place(m, n, ids)` marks (asks, answers); `asks` those that count; `mean` how they are joined."""
    m, n = np.indices((len(ids), len(ids)))
    marked = place(m, n, ids)
    chosen = marked.any(axis=1) if asks is None else asks(marked)
    weight = (probs * marked).sum(axis=-1) if mean is None else mean(probs, marked)
    return weight[:, chosen].sum(axis=1) / max(chosen.sum(), 1)


def right_places(m, n, ids):
    return (n > 0) & (n <= m) & (ids[n - 1] == ids[m])


INDUCTION_SCORE = Exercise(
    induction_score, stars=3, minutes=15,
    inputs=[
        (attention_map(3, 10, 0), np.array([1, 7, 8, 9, 7, 8, 4, 7, 7, 9])),
        (attention_map(2, 7, 1), np.array([1, 5, 6, 7, 5, 6, 7])),
        (attention_map(2, 4, 2), np.array([1, 2, 3, 4])), (attention_map(1, 5, 3), np.array([3, 3, 3, 3, 3]))],
    hints=[
        "For one asking token t: at which places did the same token stand before? Where would an induction head look?",
        "It would look one place after each of them. Add the weights there; then the mean over all t that have any.",
        "For t, after = [s + 1 for s in range(t) if ids[s] == ids[t]]; sum probs[:, t, after]; count the t with any."],
    mistakes=[
        ("that is the weight on the earlier occurrences; an induction head looks one place after them.",
         lambda probs, ids: score_with(probs, ids, lambda m, n, ids: (n < m) & (ids[n] == ids[m]))),
        ("you divided by the number of all tokens; those that occur for the first time cannot be asked.",
         lambda probs, ids: score_with(probs, ids, right_places, asks=lambda marked: np.ones(len(marked), bool))),
        ("you looked one place before the earlier occurrence; what followed it is one place after.",
         lambda probs, ids: score_with(probs, ids, lambda m, n, ids: (n < m - 1) & (
             ids[np.minimum(n + 1, len(ids) - 1)] == ids[m]))),
        ("only the last earlier occurrence counts in your score; add the weights after all of them.",
         lambda probs, ids: score_with(probs, ids, lambda m, n, ids: right_places(m, n, ids) & (
             n == np.where(right_places(m, n, ids), n, -1).max(axis=1, keepdims=True)))),
        ("you took the mean over the places after earlier occurrences; their weights add up.",
         lambda probs, ids: score_with(probs, ids, right_places, mean=lambda probs, marked: (
             probs * marked).sum(axis=-1) / np.maximum(marked.sum(axis=1), 1))),
        ("you summed over the asking tokens; the mean was asked for.",
         lambda probs, ids: (probs * right_places(*np.indices((len(ids), len(ids))), ids)).sum(axis=(1, 2))),
        ("where no token occurs twice, nobody asks: the score is 0, not nan.",
         lambda probs, ids: induction_score(probs, ids) / (1 if len(set(ids.tolist())) < len(ids) else np.nan)),
        ("that is one score for all heads; each has its own.",
         lambda probs, ids: induction_score(probs, ids).mean()),
    ],
    wrong_answers=[
        ("weight on the earlier occurrences", """
def induction_score(probs, ids):
    total, asked = np.zeros(len(probs)), 0
    for t in range(len(ids)):
        before = [s for s in range(t) if ids[s] == ids[t]]
        if before:
            asked += 1
            total += probs[:, t, before].sum(axis=1)
    return (total / max(asked, 1)).astype(np.float32)"""),
        ("number of all tokens", """
def induction_score(probs, ids):
    total = np.zeros(len(probs))
    for t in range(len(ids)):
        after = [s + 1 for s in range(t) if ids[s] == ids[t]]
        total += probs[:, t, after].sum(axis=1)
    return (total / len(ids)).astype(np.float32)"""),
        ("only the last earlier occurrence", """
def induction_score(probs, ids):
    total, asked = np.zeros(len(probs)), 0
    for t in range(len(ids)):
        after = [s + 1 for s in range(t) if ids[s] == ids[t]]
        if after:
            asked += 1
            total += probs[:, t, after[-1]]
    return (total / max(asked, 1)).astype(np.float32)"""),
        ("their weights add up", """
def induction_score(probs, ids):
    total, asked = np.zeros(len(probs)), 0
    for t in range(len(ids)):
        after = [s + 1 for s in range(t) if ids[s] == ids[t]]
        if after:
            asked += 1
            total += probs[:, t, after].mean(axis=1)
    return (total / max(asked, 1)).astype(np.float32)"""),
        ("you summed over the asking tokens", """
def induction_score(probs, ids):
    total = np.zeros(len(probs), np.float32)
    for t in range(len(ids)):
        for s in range(t):
            if ids[s] == ids[t]:
                total += probs[:, t, s + 1]
    return total"""),
        ("the score is 0, not nan", """
def induction_score(probs, ids):
    scores = []
    for t in range(len(ids)):
        after = [s + 1 for s in range(t) if ids[s] == ids[t]]
        if after:
            scores.append(probs[:, t, after].sum(axis=1))
    if not scores:
        return np.full(len(probs), np.nan, np.float32)
    return np.mean(scores, axis=0)"""),
    ])
