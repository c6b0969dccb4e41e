"""The exercises of lesson 05, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, Sizes, random


def cache_bytes(config, tokens, width):
    total = 0
    for _ in range(config.n_layers):
        for _ in ("keys", "values"):
            total += sum(config.head_dim for _ in range(config.n_kv_heads)) * tokens * width
    return total


def cache_with(two=2, layers=True, heads=lambda c: c.n_kv_heads * c.head_dim, tokens=True, width=True):
    return lambda c, n, w: (two * (c.n_layers if layers else 1) * heads(c) * (n if tokens else 1) * (w if width else 1))


CACHE_BYTES = Exercise(
    cache_bytes, stars=1, minutes=5,
    inputs=[
        (Sizes(4096, 32, 32, 32, 11008, 32000, 128), 2048, 2), (Sizes(8192, 80, 64, 8, 28672, 32000, 128), 4096, 2),
        (Sizes(256, 6, 8, 2, 704, 3072, 32), 1, 4), (Sizes(64, 3, 4, 1, 176, 100, 24), 10, 4)],
    hints=[
        "Keys and values: 2 * L * G * d numbers for each token, each of `width` bytes."],
    mistakes=[
        ("keys and values: you counted one of the two.",
         cache_with(1)),
        ("you took H, the query heads; the cache holds the G key/value heads.",
         cache_with(heads=lambda c: c.n_heads * c.head_dim)),
        ("you took D for G * d; the two are the same only without sharing.",
         cache_with(heads=lambda c: c.dim)),
        ("that is one layer; each of L layers has its own cache.",
         cache_with(layers=False)),
        ("that is one token; there are `tokens` of them.",
         cache_with(tokens=False)),
        ("you counted numbers; each has `width` bytes.",
         cache_with(width=False)),
        ("the head width d is missing: a key is d numbers.",
         cache_with(heads=lambda c: c.n_kv_heads)),
    ],
    wrong_answers=[
        ("one of the two", """
def cache_bytes(config, tokens, width):
    return config.n_layers * config.n_kv_heads * config.head_dim * tokens * width"""),
        ("the query heads", """
def cache_bytes(config, tokens, width):
    return 2 * config.n_layers * config.n_heads * config.head_dim * tokens * width"""),
        ("you took D", """
def cache_bytes(config, tokens, width):
    return 2 * config.n_layers * config.dim * tokens * width"""),
        ("one layer", """
def cache_bytes(config, tokens, width):
    return 2 * config.n_kv_heads * config.head_dim * tokens * width"""),
        ("counted numbers", """
def cache_bytes(config, tokens, width):
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * tokens"""),
    ])


def grouped_scores(q, k):
    size = len(q) // len(k)
    return np.array([[[math.fsum(float(a) * float(b) for a, b in zip(query, key)) for key in k[h // size]]
                      for query in q[h]] for h in range(len(q))], np.float32)


def scores_by(q, k, reads):
    return np.stack([q[h] @ k[reads(h, len(q), len(k))].T for h in range(len(q))])


GROUPED_SCORES = Exercise(
    grouped_scores, stars=2, minutes=10,
    inputs=[
        (random(4, 3, 8), random(2, 3, 8, seed=1)), (random(8, 1, 4, seed=2), random(2, 6, 4, seed=3)),
        (random(6, 2, 4, seed=4), random(3, 5, 4, seed=5)), (random(4, 2, 4, seed=6), random(4, 2, 4, seed=7)),
        (random(4, 2, 4, seed=8), random(1, 3, 4, seed=9))],
    hints=[
        "Query head h meets key head h // (H / G): stack q[h] @ k[h // (H // G)].T."],
    mistakes=[
        ("you dealt the key heads out in turns (h % G); neighbouring query heads share one: h // (H / G).",
         lambda q, k: scores_by(q, k, lambda h, H, G: h % G)),
        ("all query heads read key head 0; head h reads h // (H / G).",
         lambda q, k: scores_by(q, k, lambda h, H, G: 0)),
        ("h // G is not the group: a group has H / G heads, so it is h // (H / G).",
         lambda q, k: scores_by(q, k, lambda h, H, G: h // G % G)),
        ("the groups are in reverse: the first query heads read key head 0.",
         lambda q, k: scores_by(q, k, lambda h, H, G: G - 1 - h // (H // G))),
        ("the scores are divided by the root of d here; leave scale and mask out.",
         lambda q, k: grouped_scores(q, k) / math.sqrt(q.shape[2])),
        ("you have keys down and queries across; it should be (H, T, S).",
         lambda q, k: grouped_scores(q, k).swapaxes(1, 2)),
        ("the shape is still that of the groups; bring it back to (H, T, S).",
         lambda q, k: q.reshape(len(k), -1, q.shape[2]) @ k.swapaxes(1, 2)),
    ],
    wrong_answers=[
        ("in turns", """
def grouped_scores(q, k):
    return q @ np.tile(k, (len(q) // len(k), 1, 1)).swapaxes(1, 2)"""),
        ("key head 0", """
def grouped_scores(q, k):
    return q @ k[:1].swapaxes(1, 2)"""),
        ("divided by the root", """
def grouped_scores(q, k):
    return q @ np.repeat(k, len(q) // len(k), 0).swapaxes(1, 2) / math.sqrt(q.shape[-1])"""),
        ("keys down", """
def grouped_scores(q, k):
    return np.repeat(k, len(q) // len(k), 0) @ q.swapaxes(1, 2)"""),
        ("shape is still", """
def grouped_scores(q, k):
    H, T, d = q.shape
    return q.reshape(len(k), H // len(k) * T, d) @ k.swapaxes(1, 2)"""),
    ])


def mean_pool(wk, d, groups):
    n, out = wk.shape[1] // d, []
    for g in range(groups):
        members = range(g * (n // groups), (g + 1) * (n // groups))
        for j in range(d):
            out.append([math.fsum(float(row[h * d + j]) for h in members) / len(members) for row in wk])
    return np.array(out, np.float32).T


def pooled(wk, d, groups, shape, axis):
    return wk.reshape(shape).mean(axis=axis).reshape(len(wk), -1)


MEAN_POOL = Exercise(
    mean_pool, stars=3, minutes=15,
    inputs=[
        (random(5, 8), 2, 2), (random(4, 24, seed=1), 4, 1), (random(3, 12, seed=2), 2, 3),
        (random(2, 8, seed=3), 2, 4)],
    hints=[
        "Reshape to (D, groups, n / groups, d), take the mean over the third axis, and put the heads side by side."],
    mistakes=[
        ("you averaged heads that lie apart; those of a group are neighbours: (D, groups, n / groups, d).",
         lambda wk, d, groups: pooled(wk, d, groups, (len(wk), -1, groups, d), 1)),
        ("you averaged within the heads: d, the last axis, must stay; the mean is over heads.",
         lambda wk, d, groups: pooled(wk, d, groups, (len(wk), groups, d, -1), 3)),
        ("you added the heads up; the mean divides by their number.",
         lambda wk, d, groups: mean_pool(wk, d, groups) * np.float32(wk.shape[1] // d // groups)),
        ("you took the first head of each group, not the mean.",
         lambda wk, d, groups: wk.reshape(len(wk), groups, -1, d)[:, :, 0].reshape(len(wk), -1)),
        ("all heads became one; there should be `groups` of them.",
         lambda wk, d, groups: wk.reshape(len(wk), -1, d).mean(axis=1)),
        ("the shape should be (D, groups * d), heads side by side.",
         lambda wk, d, groups: wk.reshape(len(wk), groups, -1, d).mean(axis=2)),
    ],
    wrong_answers=[
        ("lie apart", """
def mean_pool(wk, d, groups):
    heads = np.split(wk, wk.shape[1] // d, axis=1)
    return np.concatenate([np.mean(heads[g::groups], axis=0) for g in range(groups)], axis=1)"""),
        ("added the heads up", """
def mean_pool(wk, d, groups):
    return wk.reshape(len(wk), groups, -1, d).sum(2).reshape(len(wk), -1)"""),
        ("first head of each group", """
def mean_pool(wk, d, groups):
    n = wk.shape[1] // d
    return np.concatenate([wk[:, h * d:(h + 1) * d] for h in range(0, n, n // groups)], axis=1)"""),
        ("all heads became one", """
def mean_pool(wk, d, groups):
    return np.mean(np.split(wk, wk.shape[1] // d, axis=1), axis=0)"""),
        ("heads side by side", """
def mean_pool(wk, d, groups):
    return wk.reshape(len(wk), groups, -1, d).mean(2)"""),
    ])
