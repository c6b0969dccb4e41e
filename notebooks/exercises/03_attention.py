"""The exercises of lesson 03, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, random


def stable_softmax(x):
    rows = []
    for row in x.astype(float).tolist():
        weights = [math.exp(value - max(row)) for value in row]
        rows.append([w / math.fsum(weights) for w in weights])
    return np.array(rows, np.float32)


def softmax_of(x, axis=-1):
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


STABLE_SOFTMAX = Exercise(
    stable_softmax, stars=1, minutes=5,
    picture=True,
    inputs=[
        (random(3, 5),), (random(2, 7, seed=1, scale=200),), (np.array([[0, 1], [300, 302]], np.float32),),
        (np.array([[0, -np.inf, 1], [5, -np.inf, -np.inf]], np.float32),),
        (random(4, 4, seed=2, scale=3),)],
    hints=[
        "Subtract each row's largest number, take exp, and divide by the row's sum."],
    mistakes=[
        ("exp overflows: large scores become inf, and inf / inf is not a number. Subtract the largest first.",
         lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
        ("that is the softmax of the columns; each row is one token's question (axis=-1).",
         lambda x: softmax_of(x, 0)),
        ("you divided by the sum of the whole matrix; each row has its own.",
         lambda x: np.exp(x - x.max(-1, keepdims=True)) / np.exp(x - x.max(-1, keepdims=True)).sum()),
        ("you subtracted one number from all rows: rows far below it underflow to 0/0. Take each row's own largest.",
         lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum(-1, keepdims=True)),
        ("the rows do not sum to 1: the division by the sum is missing.",
         lambda x: np.exp(x - x.max(-1, keepdims=True))),
        ("that is the softmax of -x: the largest score should get the largest weight.",
         lambda x: softmax_of(-x)),
        ("you divided the scores by their sum, without exp.",
         lambda x: x / x.sum(-1, keepdims=True)),
    ],
    wrong_answers=[
        ("exp overflows", """
def stable_softmax(x):
    e = np.exp(x)
    return e / np.sum(e, axis=-1, keepdims=True)"""),
        ("softmax of the columns", """
def stable_softmax(x):
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)"""),
        ("whole matrix", """
def stable_softmax(x):
    e = np.exp(x - x.max(axis=-1)[:, None])
    return e / np.sum(e)"""),
        ("each row's own largest", """
def stable_softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum(axis=1)[:, None]"""),
        ("do not sum to 1", """
def stable_softmax(x):
    return np.exp(x - np.max(x, axis=1, keepdims=True))"""),
        ("without exp", """
def stable_softmax(x):
    return (x.T / x.sum(1)).T"""),
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
        "q @ k.T / sqrt(d), with -inf where the key's index is larger than S - T + the query's."],
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


def one_head(q, k, v):
    rows = []
    for i, query in enumerate(q.astype(float)):
        n = len(k) - len(q) + i + 1
        raw = [math.exp(float(query @ key) / math.sqrt(len(query))) for key in k[:n].astype(float)]
        rows.append(sum(w / math.fsum(raw) * value for w, value in zip(raw, v[:n].astype(float))))
    return np.array(rows, np.float32)


def head_with(q, k, v, axis=-1, **options):
    return softmax_of(scores_with(q, k, **options), axis) @ v


ONE_HEAD = Exercise(
    one_head, stars=3, minutes=15,
    picture=True,
    inputs=[
        (random(4, 8, scale=3), random(4, 8, seed=1), random(4, 8, seed=2)),
        (random(1, 16, seed=3), random(6, 16, seed=4), random(6, 16, seed=5)),
        (random(3, 4, seed=6, scale=5), random(5, 4, seed=7), random(5, 4, seed=8))],
    hints=[
        "Scores, mask, softmax of each row, and the weights times v."],
    mistakes=[
        ("the scores are not divided by the root of d.",
         lambda q, k, v: head_with(q, k, v, divide=lambda q, k: 1)),
        ("you divided by d, not by its square root.",
         lambda q, k, v: head_with(q, k, v, divide=lambda q, k: q.shape[1])),
        ("every token sees the future: the mask is missing.",
         lambda q, k, v: head_with(q, k, v, seen=lambda i, j, T, S: j >= 0)),
        ("the mask is not shifted: query i is token S - T + i.",
         lambda q, k, v: head_with(q, k, v, seen=lambda i, j, T, S: j <= i)),
        ("masked after the softmax: the rows no longer sum to 1. Mask the scores.",
         lambda q, k, v: (softmax_of(scores_with(q, k, seen=lambda i, j, T, S: j >= 0))
                          * (scores_with(q, k) > -np.inf)) @ v),
        ("the softmax is missing: scores are not weights.",
         lambda q, k, v: scores_with(q, k, hidden=0) @ v),
        ("you mixed the keys; keys are compared, values are mixed.",
         lambda q, k, v: head_with(q, k, k)),
        ("keys and values are swapped.",
         lambda q, k, v: head_with(q, v, k)),
        ("hidden scores are 0, which is not small: exp(0) is 1. They must be -inf.",
         lambda q, k, v: head_with(q, k, v, hidden=0)),
    ],
    wrong_answers=[
        ("not divided", """
def one_head(q, k, v):
    s = np.where(np.tri(len(q), len(k), len(k) - len(q)) > 0, q @ k.T, -np.inf)
    return nl.softmax(s) @ v"""),
        ("mask is missing", """
def one_head(q, k, v):
    return nl.softmax(q @ k.T / math.sqrt(q.shape[1])) @ v"""),
        ("masked after the softmax", """
def one_head(q, k, v):
    p = nl.softmax(q @ k.T / math.sqrt(q.shape[1]))
    return np.tril(p, len(k) - len(q)) @ v"""),
        ("not shifted", """
def one_head(q, k, v):
    mask = nl.causal_mask(np.arange(len(q)), len(k))
    return nl.attention(q[None], k[None], v[None], mask)[0]"""),
        ("mixed the keys", """
def one_head(q, k, v):
    mask = nl.causal_mask(np.arange(len(k) - len(q), len(k)), len(k))
    return nl.attention(q[None], k[None], k[None], mask)[0]"""),
        ("swapped", """
def one_head(q, k, v):
    mask = nl.causal_mask(np.arange(len(k) - len(q), len(k)), len(k))
    return nl.attention(q[None], v[None], k[None], mask)[0]"""),
    ])
