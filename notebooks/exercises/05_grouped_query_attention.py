"""The exercises of lesson 05, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, Sizes, random


def sequences_that_fit(config, parameters, memory, tokens, width):
    numbers = 0
    for _ in range(config.n_layers):
        for _ in ("keys", "values"):
            numbers += sum(config.head_dim for _ in range(config.n_kv_heads)) * tokens
    count = 0
    while (parameters + (count + 1) * numbers) * width <= memory:
        count += 1
    return count


def bytes_of(c, tokens, width):
    return 2 * c.n_layers * c.n_kv_heads * c.head_dim * tokens * width


def fit(two=2, heads=lambda c: c.n_kv_heads * c.head_dim, layers=True, tokens=True, beside=1, width=True, up=0):
    """A wrong sequences_that_fit: another size of the cache, or of what the weights take."""
    def wrong(c, parameters, memory, n, w):
        cache = two * (c.n_layers if layers else 1) * heads(c) * (n if tokens else 1) * (w if width else 1)
        return max((memory - beside * parameters * w) // cache + up, 0)
    return wrong


SEQUENCES_THAT_FIT = Exercise(
    sequences_that_fit, stars=1, minutes=10,
    inputs=[
        (Sizes(4096, 32, 32, 32, 11008, 32000, 128), 6738415616, 80 * 2**30, 2048, 2),
        (Sizes(8192, 80, 64, 8, 28672, 32000, 128), 68976648192, 320 * 2**30, 4096, 2),
        (Sizes(256, 6, 8, 2, 704, 3072, 32), 5803264, 2**25, 100, 4),
        (Sizes(64, 3, 4, 1, 176, 100, 24), 200000, 10**6, 64, 4),
        (Sizes(4096, 32, 32, 32, 11008, 32000, 128), 6738415616, 2**30, 2048, 2)],
    hints=[
        "What do the weights take, and what is left? And what does one sequence take?",
        "One sequence: 2 * L * G * d numbers for each token (keys and values), each of `width` bytes.",
        "Whole division of what is left by the bytes of one cache, //; not below 0."],
    mistakes=[
        ("keys and values: you counted one of the two.",
         fit(1)),
        ("you took H, the query heads; the cache holds the G key/value heads.",
         fit(heads=lambda c: c.n_heads * c.head_dim)),
        ("you took D for G * d; the two are the same only without sharing.",
         fit(heads=lambda c: c.dim)),
        ("that is one layer; each of L layers has its own cache.",
         fit(layers=False)),
        ("that is a cache of one token; a sequence has `tokens` of them.",
         fit(tokens=False)),
        ("you counted numbers of the cache; each has `width` bytes.",
         fit(width=False)),
        ("the weights take memory too: only what is left beside them can hold caches.",
         fit(beside=0)),
        ("the head width d is missing: a key is d numbers.",
         fit(heads=lambda c: c.n_kv_heads)),
        ("if the weights alone do not fit, no sequence does: the answer is 0, not a negative number.",
         lambda c, parameters, memory, n, w: (memory - parameters * w) // bytes_of(c, n, w)),
        ("half a cache is of no use: round down, with //.",
         lambda c, parameters, memory, n, w: max((memory - parameters * w) / bytes_of(c, n, w), 0)),
    ],
    wrong_answers=[
        ("one of the two", """
def sequences_that_fit(config, parameters, memory, tokens, width):
    each = config.n_layers * config.n_kv_heads * config.head_dim * tokens * width
    return max(0, (memory - parameters * width) // each)"""),
        ("the query heads", """
def sequences_that_fit(config, parameters, memory, tokens, width):
    each = 2 * config.n_layers * config.n_heads * config.head_dim * tokens * width
    return max(0, (memory - parameters * width) // each)"""),
        ("take memory too", """
def sequences_that_fit(config, parameters, memory, tokens, width):
    each = 2 * config.n_layers * config.n_kv_heads * config.head_dim * tokens * width
    return memory // each"""),
        ("one layer", """
def sequences_that_fit(config, parameters, memory, tokens, width):
    each = 2 * config.n_kv_heads * config.head_dim * tokens * width
    return max(0, (memory - parameters * width) // each)"""),
        ("not a negative number", """
def sequences_that_fit(config, parameters, memory, tokens, width):
    each = 2 * config.n_layers * config.n_kv_heads * config.head_dim * tokens * width
    return (memory - parameters * width) // each"""),
        ("round down", """
def sequences_that_fit(config, parameters, memory, tokens, width):
    each = 2 * config.n_layers * config.n_kv_heads * config.head_dim * tokens * width
    return max(0, (memory - parameters * width) / each)"""),
    ])


def grouped_mix(probs, v):
    size = len(probs) // len(v)
    return np.array([[[math.fsum(float(w) * float(x) for w, x in zip(row, column)) for column in v[h // size].T]
                      for row in probs[h]] for h in range(len(probs))], np.float32)


def mix_by(probs, v, reads):
    return np.stack([probs[h] @ v[reads(h, len(probs), len(v))] for h in range(len(probs))])


def shares(*shape, seed=0):
    """Rows that sum to 1, to try a function on."""
    e = np.exp(random(*shape, seed=seed))
    return e / e.sum(axis=-1, keepdims=True)


GROUPED_MIX = Exercise(
    grouped_mix, stars=2, minutes=10,
    inputs=[
        (shares(4, 3, 5), random(2, 5, 8, seed=1)), (shares(8, 1, 6, seed=2), random(2, 6, 4, seed=3)),
        (shares(6, 2, 5, seed=4), random(3, 5, 4, seed=5)), (shares(4, 2, 3, seed=6), random(4, 3, 4, seed=7)),
        (shares(4, 2, 3, seed=8), random(1, 3, 4, seed=9))],
    hints=[
        "Which value head does query head h read? The same as for the keys.",
        "Head h reads value head h // (H / G): a loop over h, and one product for each.",
        "np.stack of probs[h] @ v[h // (H // G)] for all h."],
    mistakes=[
        ("you dealt the value heads out in turns (h % G); neighbouring query heads share one: h // (H / G).",
         lambda p, v: mix_by(p, v, lambda h, H, G: h % G)),
        ("all query heads read value head 0; head h reads h // (H / G).",
         lambda p, v: mix_by(p, v, lambda h, H, G: 0)),
        ("h // G is not the group: a group has H / G heads, so it is h // (H / G).",
         lambda p, v: mix_by(p, v, lambda h, H, G: h // G % G)),
        ("the groups are in reverse: the first query heads read value head 0.",
         lambda p, v: mix_by(p, v, lambda h, H, G: G - 1 - h // (H // G))),
        ("you averaged over the heads of a group; each head has its own answer.",
         lambda p, v: np.repeat((p.reshape(len(v), -1, *p.shape[1:]) @ v[:, None]).mean(axis=1),
                                len(p) // len(v), axis=0)),
        ("the shape is still that of the groups; bring it back to (H, T, d).",
         lambda p, v: p.reshape(len(v), -1, p.shape[2]) @ v),
        ("d comes last: yours is (H, d, T), it should be (H, T, d).",
         lambda p, v: grouped_mix(p, v).swapaxes(1, 2)),
    ],
    wrong_answers=[
        ("in turns", """
def grouped_mix(probs, v):
    return probs @ np.tile(v, (len(probs) // len(v), 1, 1))"""),
        ("value head 0", """
def grouped_mix(probs, v):
    return probs @ v[:1]"""),
        ("in reverse", """
def grouped_mix(probs, v):
    return probs @ np.repeat(v[::-1], len(probs) // len(v), axis=0)"""),
        ("shape is still", """
def grouped_mix(probs, v):
    H, T, S = probs.shape
    return probs.reshape(len(v), H // len(v) * T, S) @ v"""),
        ("d comes last", """
def grouped_mix(probs, v):
    return np.einsum("hts,hsd->hdt", probs, np.repeat(v, len(probs) // len(v), 0))"""),
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
        "Cut wk into its n heads first. Which of them belong to group 0?",
        "n / groups neighbouring heads make a group, so the columns are ordered as (groups, n / groups, d).",
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
