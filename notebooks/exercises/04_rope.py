"""The exercises of lesson 04, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, random


def angle_table(positions, d, theta):
    return np.array([[int(p) * math.exp(-math.log(theta) * 2 * i / d) for i in range(d // 2)] for p in positions])


ANGLE_TABLE = Exercise(
    angle_table, stars=1, minutes=5,
    inputs=[
        (np.arange(5), 8, 10000.0), (np.array([0, 7, 300]), 32, 10000.0), (np.array([4095]), 128, 500000.0),
        (np.arange(3), 2, 10000.0)],
    hints=[
        "Multiply each position by theta ** (-2 i / d), for i = 0 ... d/2 - 1."],
    mistakes=[
        ("the exponent is -2 i / d; you left the 2 out, and the pairs slow down too little.",
         lambda p, d, theta: p[:, None] * theta ** (-np.arange(d // 2) / d)),
        ("you divided by d/2 where i runs over even numbers already: the 2 is counted twice.",
         lambda p, d, theta: p[:, None] * theta ** (-2 * np.arange(0, d, 2) / d)),
        ("the exponent is negative: later pairs turn more slowly, not faster.",
         lambda p, d, theta: p[:, None] * theta ** (np.arange(0, d, 2) / d)),
        ("there are d/2 pairs, not d: i runs from 0 to d/2 - 1.",
         lambda p, d, theta: p[:, None] * theta ** (-2 * np.arange(d) / d)),
        ("i counts from 0: the first pair turns by one radian per token.",
         lambda p, d, theta: p[:, None] * theta ** (-2 * (np.arange(d // 2) + 1) / d)),
        ("positions count from 0 here, as given; you added one.",
         lambda p, d, theta: (p[:, None] + 1) * theta ** (-np.arange(0, d, 2) / d)),
        ("rows are positions and columns are pairs; yours is the other way round.",
         lambda p, d, theta: (p[:, None] * theta ** (-np.arange(0, d, 2) / d)).T),
        ("these are the cosines; the angles themselves were asked for.",
         lambda p, d, theta: np.cos(p[:, None] * theta ** (-np.arange(0, d, 2) / d))),
    ],
    wrong_answers=[
        ("left the 2 out", """
def angle_table(positions, d, theta):
    return np.outer(positions, [theta ** (-i / d) for i in range(d // 2)])"""),
        ("counted twice", """
def angle_table(positions, d, theta):
    i = np.arange(0, d, 2)
    return np.outer(positions, theta ** (-2 * i / d))"""),
        ("exponent is negative", """
def angle_table(positions, d, theta):
    return positions[:, None] * np.power(theta, 2 * np.arange(d // 2) / d)"""),
        ("not d: i runs", """
def angle_table(positions, d, theta):
    return np.array([[p / theta ** (2 * i / d) for i in range(d)] for p in positions])"""),
        ("other way round", """
def angle_table(positions, d, theta):
    return theta ** (-np.arange(0, d, 2) / d)[:, None] * positions"""),
        ("cosines", """
def angle_table(positions, d, theta):
    return nl.rope_cos_sin(positions, d, theta, np.float64)[0]"""),
    ])


def turn_halves(x, angles):
    points = x[:, :x.shape[1] // 2].astype(np.complex128) + 1j * x[:, x.shape[1] // 2:]
    turned = points * np.exp(1j * angles.astype(np.float64))
    return np.concatenate([turned.real, turned.imag], axis=1).astype(np.float32)


def halves(x, angles, first, second):
    """[first(a, b, cos, sin), second(a, b, cos, sin)] side by side."""
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([f(a, b, np.cos(angles), np.sin(angles)) for f in (first, second)], axis=-1)


def turn_neighbours(x, angles):
    out = np.empty_like(x)
    a, b = x[:, 0::2], x[:, 1::2]
    out[:, 0::2] = a * np.cos(angles) - b * np.sin(angles)
    out[:, 1::2] = b * np.cos(angles) + a * np.sin(angles)
    return out


TURN_HALVES = Exercise(
    turn_halves, stars=2, minutes=10,
    picture=True,
    inputs=[
        (random(5, 8), np.linspace(0, 3, 20).reshape(5, 4).astype(np.float32)),
        (random(3, 4, seed=1), random(3, 2, seed=2, scale=2)), (random(1, 32, seed=3), random(1, 16, seed=4)),
        (random(2, 2, seed=5), random(2, 1, seed=6))],
    hints=[
        "Split x into halves a and b; return [a cos - b sin, b cos + a sin], side by side."],
    mistakes=[
        ("you turned backwards: a sign is wrong. a' = a cos - b sin, b' = b cos + a sin.",
         lambda x, t: halves(x, t, lambda a, b, c, s: a * c + b * s, lambda a, b, c, s: b * c - a * s)),
        ("that is not a rotation: both signs are plus, so lengths change. One of them is a minus.",
         lambda x, t: halves(x, t, lambda a, b, c, s: a * c + b * s, lambda a, b, c, s: b * c + a * s)),
        ("that is not a rotation: both signs are minus, so lengths change. b' = b cos + a sin.",
         lambda x, t: halves(x, t, lambda a, b, c, s: a * c - b * s, lambda a, b, c, s: b * c - a * s)),
        ("cosine and sine are swapped: at angle 0 nothing should move.",
         lambda x, t: halves(x, t, lambda a, b, c, s: a * s - b * c, lambda a, b, c, s: b * s + a * c)),
        ("you overwrote a before b used it: b' needs the old a.",
         lambda x, t: halves(x, t, lambda a, b, c, s: a * c - b * s, lambda a, b, c, s: b * c + (a * c - b * s) * s)),
        ("you turned neighbours (x_2i, x_2i+1), as the paper and Meta do; here pairs are halves.",
         turn_neighbours),
        ("the numbers are right, but interleaved: first all a', then all b'.",
         lambda x, t: np.stack(np.split(turn_halves(x, t), 2, axis=-1), axis=-1).reshape(x.shape)),
        ("you multiplied by cosines only; a rotation mixes the two numbers of a pair.",
         lambda x, t: halves(x, t, lambda a, b, c, s: a * c, lambda a, b, c, s: b * c)),
    ],
    wrong_answers=[
        ("turned backwards", """
def turn_halves(x, angles):
    return nl.rope(x[None], np.cos(angles), -np.sin(angles))[0]"""),
        ("both signs are plus", """
def turn_halves(x, angles):
    n = x.shape[1] // 2
    c, s = np.cos(angles), np.sin(angles)
    return np.hstack([x[:, :n] * c + x[:, n:] * s, x[:, n:] * c + x[:, :n] * s])"""),
        ("neighbours", """
def turn_halves(x, angles):
    pairs = x.reshape(len(x), -1, 2)
    c, s = np.cos(angles), np.sin(angles)
    a, b = pairs[..., 0], pairs[..., 1]
    return np.stack([a * c - b * s, a * s + b * c], -1).reshape(x.shape)"""),
        ("overwrote a", """
def turn_halves(x, angles):
    a, b = np.split(x, 2, axis=1)
    c, s = np.cos(angles), np.sin(angles)
    a = a * c - b * s
    b = b * c + a * s
    return np.concatenate([a, b], 1)"""),
        ("swapped", """
def turn_halves(x, angles):
    return nl.rope(x[None], np.sin(angles), np.cos(angles))[0]"""),
        ("interleaved", """
def turn_halves(x, angles):
    a, b = np.split(x, 2, axis=1)
    c, s = np.cos(angles), np.sin(angles)
    return np.stack([a * c - b * s, b * c + a * s], 2).reshape(x.shape)"""),
    ])


def meta_to_halves(w, d):
    rows = []
    for head in range(0, len(w), d):
        rows += [w[head + i] for i in range(0, d, 2)] + [w[head + i] for i in range(1, d, 2)]
    return np.array(rows)


def as_one_head(w, d):
    return np.concatenate([w[0::2], w[1::2]])


META_TO_HALVES = Exercise(
    meta_to_halves, stars=3, minutes=15,
    inputs=[
        (random(16, 6), 8), (random(8, 3, seed=1), 8), (random(24, 4, seed=2), 4), (random(64, 64, seed=3), 16)],
    hints=[
        "In each head of d rows: first rows 0, 2, 4, ..., then rows 1, 3, 5, ..."],
    mistakes=[
        ("you took the whole matrix for one head: reorder within each head of d rows.",
         as_one_head),
        ("that is the way back, from halves to neighbours.",
         lambda w, d: w.reshape(-1, 2, d // 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)),
        ("you reordered the columns; the rows of w are what a head's numbers come from.",
         lambda w, d: np.concatenate([w[:, 0::2], w[:, 1::2]], axis=1)),
        ("nothing moved: a reshape alone keeps the order, the two axes must be swapped.",
         lambda w, d: w.copy()),
        ("the odd rows come second: first 0, 2, 4, ..., then 1, 3, 5, ...",
         lambda w, d: w.reshape(-1, d // 2, 2, w.shape[1])[:, :, ::-1].swapaxes(1, 2).reshape(w.shape)),
    ],
    wrong_answers=[
        ("for one head", """
def meta_to_halves(w, d):
    return np.vstack([w[::2], w[1::2]])"""),
        ("way back", """
def meta_to_halves(w, d):
    out = []
    for head in np.split(w, len(w) // d):
        for i in range(d // 2):
            out += [head[i], head[i + d // 2]]
    return np.array(out)"""),
        ("reordered the columns", """
def meta_to_halves(w, d):
    return np.hstack([w[:, ::2], w[:, 1::2]])"""),
        ("nothing moved", """
def meta_to_halves(w, d):
    return w.reshape(-1, d // 2, 2, w.shape[1]).reshape(w.shape)"""),
        ("odd rows come second", """
def meta_to_halves(w, d):
    heads = w.reshape(-1, d, w.shape[1])
    return np.concatenate([heads[:, 1::2], heads[:, ::2]], 1).reshape(w.shape)"""),
    ])
