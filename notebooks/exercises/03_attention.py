"""The exercises of lesson 03, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, random


def softmax_of(x, axis=-1):
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


def last_row(x, wq, wk, wv, wo):
    x, wq, wk, wv, wo = (a.astype(float) for a in (x, wq, wk, wv, wo))
    query = x[-1] @ wq
    raw = [math.exp(float(query @ (row @ wk)) / math.sqrt(len(query))) for row in x]
    return (sum(w / math.fsum(raw) * (row @ wv) for w, row in zip(raw, x)) @ wo).astype(np.float32)


def last_with(x, wq, wk, wv, wo, divide=math.sqrt, asks=-1, mixed=lambda x, k, v: v):
    """The last row with another divisor, another token that asks, or something else mixed than the values."""
    q, k, v = x[asks] @ wq, x @ wk, x @ wv
    return softmax_of(k @ q / np.float32(divide(len(q)))) @ mixed(x, k, v) @ wo


def head_inputs(T, D, d, seed):
    """A row for each token, and the four matrices of a head."""
    shapes = (T, D), (D, d), (D, d), (D, d), (d, D)
    return tuple(random(*shape, seed=seed + i, scale=0.7) for i, shape in enumerate(shapes))


LAST_ROW = Exercise(
    last_row, stars=2, minutes=10, may_call=("softmax",),
    inputs=[head_inputs(5, 8, 4, 20), head_inputs(1, 6, 3, 30), head_inputs(7, 4, 2, 40)],
    hints=[
        "How many queries are needed, how many keys, how many values? And what would the mask hide?",
        "One query, x[-1] @ wq; a key and a value for every token. The last token sees them all, so there is no mask.",
        "Scores: (x @ wk) @ q, divided by the root of d. Their softmax times the values, then times wo."],
    mistakes=[
        ("the scores are not divided by the root of d.",
         lambda *a: last_with(*a, divide=lambda d: 1)),
        ("you divided by d, not by its square root.",
         lambda *a: last_with(*a, divide=lambda d: d)),
        ("you divided by the root of D, the width of the stream; d, the width of the head, is what counts.",
         lambda *a: last_with(*a, divide=lambda d: math.sqrt(a[0].shape[1]))),
        ("the first token asks; the last one should.",
         lambda *a: last_with(*a, asks=0)),
        ("you mixed the keys; keys are compared, values are mixed.",
         lambda *a: last_with(*a, mixed=lambda x, k, v: k)),
        ("queries and keys are swapped: the last token's query meets every token's key.",
         lambda x, wq, wk, wv, wo: last_with(x, wk, wq, wv, wo)),
        ("wo is missing: d numbers have to become D.",
         lambda x, wq, wk, wv, wo: last_with(x, wq, wk, wv, np.eye(wo.shape[0], dtype=np.float32))),
        ("the softmax is missing: scores are not weights.",
         lambda x, wq, wk, wv, wo: (x @ wk) @ (x[-1] @ wq) / np.float32(math.sqrt(wq.shape[1])) @ (x @ wv) @ wo),
        ("that is what every token gets; only the last row was asked for.",
         lambda x, wq, wk, wv, wo: head_with(x @ wq, x @ wk, x @ wv) @ wo),
        ("the residual stream is in it: only what the head adds was asked for.",
         lambda *a: a[0][-1] + last_with(*a)),
    ],
    wrong_answers=[
        ("not divided", """
def last_row(x, wq, wk, wv, wo):
    return nl.softmax(x[-1] @ wq @ (x @ wk).T) @ (x @ wv) @ wo"""),
        ("width of the stream", """
def last_row(x, wq, wk, wv, wo):
    scores = (x @ wk) @ (x[-1] @ wq) / math.sqrt(x.shape[1])
    return nl.softmax(scores) @ (x @ wv) @ wo"""),
        ("wo is missing", """
def last_row(x, wq, wk, wv, wo):
    scores = (x @ wk) @ (x[-1] @ wq) / math.sqrt(wq.shape[1])
    return nl.softmax(scores) @ (x @ wv)"""),
        ("queries and keys are swapped", """
def last_row(x, wq, wk, wv, wo):
    scores = (x @ wq) @ (x[-1] @ wk) / math.sqrt(wq.shape[1])
    return nl.softmax(scores) @ (x @ wv) @ wo"""),
        ("softmax is missing", """
def last_row(x, wq, wk, wv, wo):
    scores = (x @ wk) @ (x[-1] @ wq) / math.sqrt(wq.shape[1])
    return scores @ (x @ wv) @ wo"""),
        ("every token gets", """
def last_row(x, wq, wk, wv, wo):
    scores = (x @ wq) @ (x @ wk).T / math.sqrt(wq.shape[1])
    scores[np.triu_indices(len(x), 1)] = -np.inf
    return nl.softmax(scores) @ (x @ wv) @ wo"""),
    ])


def causal_scores(q, k):
    out = np.full((len(q), len(k)), -np.inf, np.float32)
    for i in range(len(q)):
        for j in range(len(k) - len(q) + i + 1):
            out[i, j] = math.fsum(float(a) * float(b) for a, b in zip(q[i], k[j])) / math.sqrt(q.shape[1])
    return out


def scores_with(q, k, divide=lambda q, k: math.sqrt(q.shape[1]), seen=None, hidden=-np.inf):
    """Scores with another divisor, mask (query i, key j, T, S) or number for what is hidden."""
    i, j = np.indices((len(q), len(k)))
    mask = (j <= len(k) - len(q) + i) if seen is None else seen(i, j, len(q), len(k))
    return np.where(mask, q @ k.T / divide(q, k), np.float32(hidden))


CAUSAL_SCORES = Exercise(
    causal_scores, stars=2, minutes=10,
    picture=True,
    inputs=[
        (random(4, 8), random(4, 8, seed=1)), (random(1, 16, seed=2), random(6, 16, seed=3)),
        (random(3, 4, seed=4), random(5, 4, seed=5)), (random(1, 2, seed=6), random(1, 2, seed=7))],
    hints=[
        "Try T = 1 first: one new query, S keys. How many of them may it see?",
        "Query i is token S - T + i of the text. Which keys j may it see?",
        "q @ k.T / sqrt(d), with -inf where j > S - T + i: compare np.arange(S) with a column of the queries' places."],
    mistakes=[
        ("the scores are not divided by the root of d.",
         lambda q, k: scores_with(q, k, lambda q, k: 1)),
        ("you divided by d, not by its square root.",
         lambda q, k: scores_with(q, k, lambda q, k: q.shape[1])),
        ("you divided by the root of the number of keys; d, the width of a head, is what counts.",
         lambda q, k: scores_with(q, k, lambda q, k: math.sqrt(len(k)))),
        ("you multiplied by the root of d instead of dividing.",
         lambda q, k: scores_with(q, k, lambda q, k: 1 / math.sqrt(q.shape[1]))),
        ("the future is not hidden: the mask is missing.",
         lambda q, k: scores_with(q, k, seen=lambda i, j, T, S: j >= 0)),
        ("the mask is not shifted: with S > T, query i is token S - T + i, and sees all up to there.",
         lambda q, k: scores_with(q, k, seen=lambda i, j, T, S: j <= i)),
        ("a token does not see itself; it may: <=, not <.",
         lambda q, k: scores_with(q, k, seen=lambda i, j, T, S: j < S - T + i)),
        ("the past is hidden and the future seen: turn the mask round.",
         lambda q, k: scores_with(q, k, seen=lambda i, j, T, S: j >= S - T + i)),
        ("hidden scores are 0, which is not small: exp(0) is 1. They must be -inf.",
         lambda q, k: scores_with(q, k, hidden=0)),
    ],
    wrong_answers=[
        ("not divided", """
def causal_scores(q, k):
    return np.where(np.tri(len(q), len(k), len(k) - len(q)) > 0, q @ k.T, -np.inf)"""),
        ("by d, not by its square root", """
def causal_scores(q, k):
    return np.where(np.tri(len(q), len(k), len(k) - len(q)) > 0, q @ k.T / q.shape[1], -np.inf)"""),
        ("mask is missing", """
def causal_scores(q, k):
    return q @ k.T / math.sqrt(q.shape[-1])"""),
        ("not shifted", """
def causal_scores(q, k):
    s = q @ k.T / math.sqrt(q.shape[-1])
    s[np.triu_indices(len(q), 1, len(k))] = -np.inf
    return s"""),
        ("does not see itself", """
def causal_scores(q, k):
    s = q @ k.T / math.sqrt(q.shape[-1])
    return np.where(np.tri(len(q), len(k), len(k) - len(q) - 1) > 0, s, -np.inf)"""),
        ("hidden scores are 0", """
def causal_scores(q, k):
    return np.tril(q @ k.T / math.sqrt(q.shape[-1]), len(k) - len(q))"""),
    ])


def windowed_head(q, k, v, window):
    rows = []
    for i, query in enumerate(q.astype(float)):
        places = range(max(0, i - window + 1), i + 1)
        raw = [math.exp(float(query @ k[j].astype(float)) / math.sqrt(len(query))) for j in places]
        rows.append(sum(w / math.fsum(raw) * v[j].astype(float) for w, j in zip(raw, places)))
    return np.array(rows, np.float32)


def head_with(q, k, v, axis=-1, **options):
    return softmax_of(scores_with(q, k, **options), axis) @ v


def within(window):
    """The mask of a window, for scores_with."""
    return lambda i, j, T, S: (j <= i) & (i - j < window)


WINDOWED_HEAD = Exercise(
    windowed_head, stars=3, minutes=15,
    picture=True, may_call=("softmax",),
    inputs=[
        (random(6, 8, scale=3), random(6, 8, seed=1), random(6, 8, seed=2), 3),
        (random(5, 4, seed=3), random(5, 4, seed=4), random(5, 4, seed=5), 1),
        (random(4, 4, seed=6, scale=5), random(4, 4, seed=7), random(4, 4, seed=8), 9),
        (random(7, 2, seed=9), random(7, 2, seed=10), random(7, 2, seed=11), 2)],
    hints=[
        "Only the mask is new. On paper, draw it for T = 4 and window = 2.",
        "How far back is key j from query i? That number must be at least 0, and less than window.",
        "back = np.arange(T)[:, None] - np.arange(T); hide the scores where back < 0 or back >= window, then "
        "softmax, @ v."],
    mistakes=[
        ("the window is missing: every token sees all that came before.",
         lambda q, k, v, window: head_with(q, k, v)),
        ("every token sees the future: inside the window too, later tokens are hidden.",
         lambda q, k, v, window: head_with(q, k, v, seen=lambda i, j, T, S: abs(i - j) < window)),
        ("the window is one token too wide: with window 1 a token sees itself only.",
         lambda q, k, v, window: head_with(q, k, v, seen=within(window + 1))),
        ("the window is turned round: it hides the near past and shows the far one.",
         lambda q, k, v, window: head_with(q, k, v, seen=lambda i, j, T, S: (j <= i) & ((i - j >= window) | (i == j)))),
        ("the scores are not divided by the root of d.",
         lambda q, k, v, window: head_with(q, k, v, divide=lambda q, k: 1, seen=within(window))),
        ("masked after the softmax: the rows no longer sum to 1. Mask the scores.",
         lambda q, k, v, window: (softmax_of(scores_with(q, k, seen=lambda i, j, T, S: j >= 0))
                                  * (scores_with(q, k, seen=within(window)) > -np.inf)) @ v),
        ("you mixed the keys; keys are compared, values are mixed.",
         lambda q, k, v, window: head_with(q, k, k, seen=within(window))),
        ("hidden scores are 0, which is not small: exp(0) is 1. They must be -inf.",
         lambda q, k, v, window: head_with(q, k, v, seen=within(window), hidden=0)),
    ],
    wrong_answers=[
        ("window is missing", """
def windowed_head(q, k, v, window):
    mask = nl.causal_mask(np.arange(len(q)), len(k))
    return nl.attention(q[None], k[None], v[None], mask)[0]"""),
        ("sees the future", """
def windowed_head(q, k, v, window):
    back = np.abs(np.subtract.outer(np.arange(len(q)), np.arange(len(q))))
    s = q @ k.T / math.sqrt(q.shape[1])
    s[back >= window] = -np.inf
    return nl.softmax(s) @ v"""),
        ("one token too wide", """
def windowed_head(q, k, v, window):
    mask = np.tri(len(q)) - np.tri(len(q), k=-window - 1)
    return nl.softmax(np.where(mask > 0, q @ k.T / math.sqrt(q.shape[1]), -np.inf)) @ v"""),
        ("not divided", """
def windowed_head(q, k, v, window):
    mask = np.tri(len(q)) - np.tri(len(q), k=-window)
    return nl.softmax(np.where(mask > 0, q @ k.T, -np.inf)) @ v"""),
        ("masked after the softmax", """
def windowed_head(q, k, v, window):
    mask = np.tri(len(q)) - np.tri(len(q), k=-window)
    return mask * nl.softmax(q @ k.T / math.sqrt(q.shape[1])) @ v"""),
        ("hidden scores are 0", """
def windowed_head(q, k, v, window):
    mask = np.tri(len(q)) - np.tri(len(q), k=-window)
    return nl.softmax(mask * (q @ k.T) / math.sqrt(q.shape[1])) @ v"""),
    ])
