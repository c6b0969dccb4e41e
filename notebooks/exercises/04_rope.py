"""The exercises of lesson 04, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, random


def slow_pairs(d, theta, n):
    count = 0
    for i in range(d // 2):
        tokens_for_a_turn = 2 * math.pi * math.exp(math.log(theta) * 2 * i / d)
        count += tokens_for_a_turn > n
    return count


def speeds(d, theta, i=None):
    i = np.arange(d // 2) if i is None else i
    return theta ** (-2 * i / d)


SLOW_PAIRS = Exercise(
    slow_pairs, stars=1, minutes=10,
    inputs=[
        (32, 10000.0, 512), (128, 10000.0, 4096), (128, 500000.0, 8192), (2, 10000.0, 6), (2, 10000.0, 7),
        (64, 10000.0, 100000), (32, 10000.0, 20)],
    hints=[
        "By how many radians does pair i turn in n tokens?",
        "n * theta ** (-2 i / d) radians; a full turn is 2 pi.",
        "Make an array of the speeds for i = 0 ... d/2 - 1, compare n * speed with 2 * np.pi, and count."],
    mistakes=[
        ("you counted the pairs that do come round; the others were asked for.",
         lambda d, theta, n: int(np.sum(n * speeds(d, theta) >= 2 * np.pi))),
        ("a full turn is 2 pi radians; you compared with half a turn, pi.",
         lambda d, theta, n: int(np.sum(n * speeds(d, theta) < np.pi))),
        ("a full turn is 2 pi radians; you compared with 1.",
         lambda d, theta, n: int(np.sum(n * speeds(d, theta) < 1))),
        ("angles are radians here: a full turn is 2 pi, not 360.",
         lambda d, theta, n: int(np.sum(n * speeds(d, theta) < 360))),
        ("the exponent is -2 i / d; you left the 2 out, and the pairs slow down too little.",
         lambda d, theta, n: int(np.sum(n * speeds(d, theta, np.arange(d // 2) / 2) < 2 * np.pi))),
        ("there are d/2 pairs, not d: i runs from 0 to d/2 - 1.",
         lambda d, theta, n: int(np.sum(n * speeds(d, theta, np.arange(d)) < 2 * np.pi))),
        ("i counts from 0: the first pair turns by one radian per token.",
         lambda d, theta, n: int(np.sum(n * speeds(d, theta, np.arange(d // 2) + 1) < 2 * np.pi))),
        ("the exponent is negative: later pairs turn more slowly, not faster.",
         lambda d, theta, n: int(np.sum(n / speeds(d, theta) < 2 * np.pi))),
    ],
    wrong_answers=[
        ("do come round", """
def slow_pairs(d, theta, n):
    return len([i for i in range(d // 2) if n / theta ** (2 * i / d) > 2 * math.pi])"""),
        ("half a turn", """
def slow_pairs(d, theta, n):
    return sum(n * theta ** (-2 * i / d) < math.pi for i in range(d // 2))"""),
        ("you compared with 1", """
def slow_pairs(d, theta, n):
    return sum(n * theta ** (-2 * i / d) < 1 for i in range(d // 2))"""),
        ("left the 2 out", """
def slow_pairs(d, theta, n):
    return sum(n * theta ** (-i / d) < 2 * math.pi for i in range(d // 2))"""),
        ("not d: i runs", """
def slow_pairs(d, theta, n):
    return sum(n * theta ** (-2 * i / d) < 2 * math.pi for i in range(d))"""),
    ])


def turn_neighbours(x, angles):
    points = x[:, 0::2].astype(np.complex128) + 1j * x[:, 1::2]
    turned = points * np.exp(1j * angles.astype(np.float64))
    return np.stack([turned.real, turned.imag], axis=2).reshape(x.shape).astype(np.float32)


def neighbours(x, angles, first, second):
    """first(a, b, cos, sin) and second(a, b, cos, sin) in turns."""
    a, b = x[:, 0::2], x[:, 1::2]
    both = [f(a, b, np.cos(angles), np.sin(angles)) for f in (first, second)]
    return np.stack(both, axis=2).reshape(x.shape)


def turn_halves(x, angles):
    a, b = np.split(x, 2, axis=1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=1)


TURN_NEIGHBOURS = Exercise(
    turn_neighbours, stars=2, minutes=10,
    picture=True,
    inputs=[
        (random(5, 8), np.linspace(0, 3, 20).reshape(5, 4).astype(np.float32)),
        (random(3, 4, seed=1), random(3, 2, seed=2, scale=2)), (random(1, 32, seed=3), random(1, 16, seed=4)),
        (random(2, 2, seed=5), random(2, 1, seed=6))],
    hints=[
        "Which numbers of x are the a of their pairs, and which the b? The formula stays the same.",
        "x[:, 0::2] takes every second number: all a. x[:, 1::2] takes all b.",
        "out = np.empty_like(x); out[:, 0::2] = a * cos - b * sin; out[:, 1::2] = b * cos + a * sin."],
    mistakes=[
        ("you turned backwards: a sign is wrong. a' = a cos - b sin, b' = b cos + a sin.",
         lambda x, t: neighbours(x, t, lambda a, b, c, s: a * c + b * s, lambda a, b, c, s: b * c - a * s)),
        ("that is not a rotation: both signs are plus, so lengths change. One of them is a minus.",
         lambda x, t: neighbours(x, t, lambda a, b, c, s: a * c + b * s, lambda a, b, c, s: b * c + a * s)),
        ("that is not a rotation: both signs are minus, so lengths change. b' = b cos + a sin.",
         lambda x, t: neighbours(x, t, lambda a, b, c, s: a * c - b * s, lambda a, b, c, s: b * c - a * s)),
        ("cosine and sine are swapped: at angle 0 nothing should move.",
         lambda x, t: neighbours(x, t, lambda a, b, c, s: a * s - b * c, lambda a, b, c, s: b * s + a * c)),
        ("you overwrote a before b used it: b' needs the old a.",
         lambda x, t: neighbours(x, t, lambda a, b, c, s: a * c - b * s,
                                 lambda a, b, c, s: b * c + (a * c - b * s) * s)),
        ("you turned halves (x_i, x_i+d/2), as Hugging Face does; here pairs are neighbours.",
         turn_halves),
        ("the numbers are right, but not in their places: all a' stand before all b'. They come in turns.",
         lambda x, t: np.concatenate([turn_neighbours(x, t)[:, 0::2], turn_neighbours(x, t)[:, 1::2]], axis=1)),
        ("you multiplied by cosines only; a rotation mixes the two numbers of a pair.",
         lambda x, t: neighbours(x, t, lambda a, b, c, s: a * c, lambda a, b, c, s: b * c)),
    ],
    wrong_answers=[
        ("turned backwards", """
def turn_neighbours(x, angles):
    p = (x[:, ::2] + 1j * x[:, 1::2]) * np.exp(-1j * angles)
    return np.stack([p.real, p.imag], -1).reshape(x.shape).astype(np.float32)"""),
        ("both signs are plus", """
def turn_neighbours(x, angles):
    out = np.zeros_like(x)
    for i in range(x.shape[1] // 2):
        a, b, c, s = x[:, 2 * i], x[:, 2 * i + 1], np.cos(angles[:, i]), np.sin(angles[:, i])
        out[:, 2 * i], out[:, 2 * i + 1] = a * c + b * s, b * c + a * s
    return out"""),
        ("you turned halves", """
def turn_neighbours(x, angles):
    return nl.rope(x[None], np.cos(angles), np.sin(angles))[0]"""),
        ("overwrote a", """
def turn_neighbours(x, angles):
    out = x.copy()
    c, s = np.cos(angles), np.sin(angles)
    out[:, ::2] = out[:, ::2] * c - out[:, 1::2] * s
    out[:, 1::2] = out[:, 1::2] * c + out[:, ::2] * s
    return out"""),
        ("swapped", """
def turn_neighbours(x, angles):
    out = np.empty_like(x)
    s, c = np.cos(angles), np.sin(angles)
    out[:, ::2] = x[:, ::2] * c - x[:, 1::2] * s
    out[:, 1::2] = x[:, 1::2] * c + x[:, ::2] * s
    return out"""),
        ("not in their places", """
def turn_neighbours(x, angles):
    c, s = np.cos(angles), np.sin(angles)
    a, b = x[:, ::2], x[:, 1::2]
    return np.hstack([a * c - b * s, b * c + a * s])"""),
    ])


def halves_to_meta(w, d):
    rows = []
    for head in range(0, len(w), d):
        for i in range(d // 2):
            rows += [w[head + i], w[head + i + d // 2]]
    return np.array(rows)


def as_one_head(w, d):
    return w.reshape(2, -1, w.shape[1]).swapaxes(0, 1).reshape(w.shape)


HALVES_TO_META = Exercise(
    halves_to_meta, stars=3, minutes=15,
    inputs=[
        (random(16, 6), 8), (random(8, 2, seed=1), 8), (random(24, 4, seed=2), 4), (random(64, 64, seed=3), 16)],
    hints=[
        "Write down where the rows 0 to 7 of one head of d = 8 must go.",
        "A head is two blocks of d/2 rows; take one row from each block in turns.",
        "Reshape to (heads, 2, d/2, D), swap the two middle axes, reshape back."],
    mistakes=[
        ("you took the whole matrix for one head: reorder within each head of d rows.",
         as_one_head),
        ("that is the other way, from neighbours to halves.",
         lambda w, d: w.reshape(-1, d // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)),
        ("you reordered the columns; the rows of w are what a head's numbers come from.",
         lambda w, d: w.reshape(len(w), 2, -1).swapaxes(1, 2).reshape(w.shape)),
        ("nothing moved: a reshape alone keeps the order, the two axes must be swapped.",
         lambda w, d: w.copy()),
        ("each pair is the wrong way round: row i comes before row i + d/2.",
         lambda w, d: w.reshape(-1, 2, d // 2, w.shape[1])[:, ::-1].swapaxes(1, 2).reshape(w.shape)),
    ],
    wrong_answers=[
        ("for one head", """
def halves_to_meta(w, d):
    n = len(w) // 2
    return np.array([w[i // 2 + i % 2 * n] for i in range(len(w))])"""),
        ("that is the other way", """
def halves_to_meta(w, d):
    return np.vstack([np.vstack([h[::2], h[1::2]]) for h in np.split(w, len(w) // d)])"""),
        ("reordered the columns", """
def halves_to_meta(w, d):
    out, n = np.empty_like(w), w.shape[1] // 2
    out[:, ::2], out[:, 1::2] = w[:, :n], w[:, n:]
    return out"""),
        ("nothing moved", """
def halves_to_meta(w, d):
    return w.reshape(-1, 2, d // 2, w.shape[1]).reshape(w.shape)"""),
        ("wrong way round", """
def halves_to_meta(w, d):
    heads = w.reshape(-1, d, w.shape[1])
    out = np.empty_like(heads)
    out[:, ::2], out[:, 1::2] = heads[:, d // 2:], heads[:, :d // 2]
    return out.reshape(w.shape)"""),
    ])
