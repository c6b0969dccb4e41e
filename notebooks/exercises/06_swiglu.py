"""The exercises of lesson 06, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, random


def feed_forward_width(dim, multiple_of, multiplier):
    hidden = math.floor(multiplier * (8 * dim // 3))
    while hidden % multiple_of:
        hidden += 1
    return hidden


def width_of(dim, multiple_of, multiplier, parts=8 / 3, rounded=lambda n, m: -(-n // m) * m):
    return rounded(int(multiplier * int(parts * dim)), multiple_of)


FEED_FORWARD_WIDTH = Exercise(
    feed_forward_width, stars=1, minutes=5,
    tolerance=0,
    inputs=[
        (4096, 256, 1), (8192, 4096, 1.3), (5120, 256, 1), (256, 64, 1), (6656, 256, 1), (96, 256, 1), (24, 64, 1),
        (8192, 256, 1.3)],
    hints=[
        "int(multiplier * int(2 * 4 * dim / 3)), rounded up to a multiple of multiple_of."],
    mistakes=[
        ("you rounded down; it is rounded up to the next multiple.",
         lambda d, m, k: width_of(d, m, k, rounded=lambda n, m: n // m * m)),
        ("you rounded to the nearest multiple; it is rounded up.",
         lambda d, m, k: width_of(d, m, k, rounded=lambda n, m: round(n / m) * m)),
        ("that is always one multiple more: a number that is a multiple already stays.",
         lambda d, m, k: width_of(d, m, k, rounded=lambda n, m: (n // m + 1) * m)),
        ("that is 4 dim; with a gate it is two thirds of that.",
         lambda d, m, k: width_of(d, m, k, 4)),
        ("that is two thirds of dim; it is two thirds of 4 dim.",
         lambda d, m, k: width_of(d, m, k, 2 / 3)),
        ("the multiplier is missing.",
         lambda d, m, k: width_of(d, m, 1)),
        ("you rounded first and multiplied after; it is the other way round.",
         lambda d, m, k: int(k * width_of(d, m, 1))),
        ("it is not rounded to a multiple of multiple_of.",
         lambda d, m, k: width_of(d, m, k, rounded=lambda n, m: n)),
    ],
    wrong_answers=[
        ("rounded down", """
def feed_forward_width(dim, multiple_of, multiplier):
    f = int(multiplier * int(8 * dim / 3))
    return f - f % multiple_of"""),
        ("to the nearest", """
def feed_forward_width(dim, multiple_of, multiplier):
    return multiple_of * round(int(multiplier * int(8 * dim / 3)) / multiple_of)"""),
        ("that is 4 dim", """
def feed_forward_width(dim, multiple_of, multiplier):
    return math.ceil(int(multiplier * 4 * dim) / multiple_of) * multiple_of"""),
        ("multiplier is missing", """
def feed_forward_width(dim, multiple_of, multiplier):
    return math.ceil(8 * dim // 3 / multiple_of) * multiple_of"""),
        ("rounded first", """
def feed_forward_width(dim, multiple_of, multiplier):
    return int(math.ceil(8 * dim // 3 / multiple_of) * multiple_of * multiplier)"""),
        ("not rounded", """
def feed_forward_width(dim, multiple_of, multiplier):
    return int(multiplier * int(2 * dim * 4 / 3))"""),
    ])


def swiglu(x, gate, up, down):
    out = np.zeros((len(x), down.shape[1]))
    for row, token in zip(out, x.astype(float)):
        for f in range(gate.shape[1]):
            g, u = math.fsum(token * gate[:, f]), math.fsum(token * up[:, f])
            row += g / (1 + math.exp(-g)) * u * down[f]
    return out.astype(np.float32)


def swish_of(g):
    return g / (1 + np.exp(-g))


def gated(x, gate, up, down, on_gate=swish_of, on_up=lambda u: u, join=np.multiply):
    return join(on_gate(x @ gate), on_up(x @ up)) @ down


SWIGLU = Exercise(
    swiglu, stars=2, minutes=10,
    picture=True,
    inputs=[
        (random(3, 8), random(8, 12, seed=1), random(8, 12, seed=2), random(12, 8, seed=3)),
        (random(1, 4, seed=4, scale=2), random(4, 4, seed=5), random(4, 4, seed=6), random(4, 4, seed=7)),
        (np.zeros((2, 4), np.float32), random(4, 6, seed=8), random(4, 6, seed=9), random(6, 4, seed=10))],
    hints=[
        "(silu(x @ gate) * (x @ up)) @ down, with silu(g) = g / (1 + exp(-g))."],
    mistakes=[
        ("Swish belongs on gate, not on up.",
         lambda x, g, u, d: gated(x, g, u, d, lambda g: g, swish_of)),
        ("Swish is on both; only the gate gets it, up stays as it is.",
         lambda x, g, u, d: gated(x, g, u, d, swish_of, swish_of)),
        ("that is GLU: you took the sigmoid; Swish is x times the sigmoid.",
         lambda x, g, u, d: gated(x, g, u, d, lambda g: 1 / (1 + np.exp(-g)))),
        ("that is ReGLU: the activation here is Swish, not ReLU.",
         lambda x, g, u, d: gated(x, g, u, d, lambda g: np.maximum(g, 0))),
        ("the two are added; a gate multiplies.",
         lambda x, g, u, d: gated(x, g, u, d, join=np.add)),
        ("up is missing: that is the plain form with Swish.",
         lambda x, g, u, d: swish_of(x @ g) @ d),
        ("there is no activation: gate times up alone is not SwiGLU.",
         lambda x, g, u, d: gated(x, g, u, d, lambda g: g)),
        ("a sign is wrong: that is g / (1 + exp(g)); Swish is g / (1 + exp(-g)).",
         lambda x, g, u, d: gated(x, g, u, d, lambda g: g / (1 + np.exp(g)))),
        ("you applied Swish to the product; it goes on the gate before.",
         lambda x, g, u, d: swish_of((x @ g) * (x @ u)) @ d),
        ("you added x: the residual sum is the block's affair, not this step's.",
         lambda x, g, u, d: x + gated(x, g, u, d)),
    ],
    wrong_answers=[
        ("belongs on gate", """
def swiglu(x, gate, up, down):
    return (nl.silu(x @ up) * (x @ gate)) @ down"""),
        ("is on both", """
def swiglu(x, gate, up, down):
    return (nl.silu(x @ up) * nl.silu(x @ gate)) @ down"""),
        ("took the sigmoid", """
def swiglu(x, gate, up, down):
    return ((x @ up) / (1 + np.exp(-(x @ gate)))) @ down"""),
        ("are added", """
def swiglu(x, gate, up, down):
    return (nl.silu(x @ gate) + x @ up) @ down"""),
        ("up is missing", """
def swiglu(x, gate, up, down):
    return nl.silu(x @ gate) @ down"""),
        ("no activation", """
def swiglu(x, gate, up, down):
    return (x @ gate * (x @ up)) @ down"""),
        ("residual sum", """
def swiglu(x, gate, up, down):
    return nl.feed_forward(x, gate, up, down) + x"""),
    ])


def neurons_needed(hidden, share):
    counts = []
    for row in hidden.astype(float):
        squares, total, n = sorted((v * v for v in row), reverse=True), 0.0, 0
        while total < share * math.fsum(squares):
            total, n = total + squares[n], n + 1
        counts.append(n)
    return np.array(counts)


def counted(hidden, share, size=np.square, largest=True, more=1):
    sizes = np.sort(size(hidden.astype(float)), axis=-1)
    sizes = sizes[:, ::-1] if largest else sizes
    return (np.cumsum(sizes, axis=-1) < share * sizes.sum(-1, keepdims=True)).sum(-1) + more


NEURONS_NEEDED = Exercise(
    neurons_needed, stars=3, minutes=15,
    tolerance=0,
    inputs=[
        (random(4, 9), 0.5), (random(2, 5, seed=1), 0.9), (np.array([[0, 3, 0, -4], [1, 1, 1, 1]], np.float32), 0.6),
        (random(3, 30, seed=2, scale=2), 0.75), (random(2, 6, seed=3), 1e-6)],
    hints=[
        "Sort the squares of each row, largest first, and count until their running sum reaches share of the total."],
    mistakes=[
        ("you added up the smallest first; the largest come first.",
         lambda h, s: counted(h, s, largest=False)),
        ("you added up sizes, not squares.",
         lambda h, s: counted(h, s, np.abs)),
        ("you took the products as they are; their squares are what is added up.",
         lambda h, s: counted(h, s, lambda x: x)),
        ("one too few: the product that crosses the share is needed too.",
         lambda h, s: counted(h, s, more=0)),
        ("that is a share of F, not a number of products.",
         lambda h, s: counted(h, s) / h.shape[1]),
        ("the squares are in the order of the neurons; sort them first.",
         lambda h, s: (
             np.cumsum(h.astype(float) ** 2, -1) < s * (h.astype(float) ** 2).sum(-1, keepdims=True)).sum(-1) + 1),
        ("that is one number for all tokens; each row has its own.",
         lambda h, s: counted(h, s).mean()),
    ],
    wrong_answers=[
        ("smallest first", """
def neurons_needed(hidden, share):
    s = np.sort(hidden ** 2, axis=1)
    return (np.cumsum(s, 1) >= share * s.sum(1, keepdims=True)).argmax(1) + 1"""),
        ("not squares", """
def neurons_needed(hidden, share):
    s = -np.sort(-np.abs(hidden), axis=1)
    return (np.cumsum(s, 1) >= share * s.sum(1, keepdims=True)).argmax(1) + 1"""),
        ("one too few", """
def neurons_needed(hidden, share):
    s = -np.sort(-hidden ** 2, axis=1)
    return (np.cumsum(s, 1) >= share * s.sum(1, keepdims=True)).argmax(1)"""),
        ("share of F", """
def neurons_needed(hidden, share):
    s = -np.sort(-hidden ** 2, axis=1)
    return ((np.cumsum(s, 1) >= share * s.sum(1, keepdims=True)).argmax(1) + 1) / hidden.shape[1]"""),
        ("sort them first", """
def neurons_needed(hidden, share):
    s = hidden ** 2
    return (np.cumsum(s, 1) >= share * s.sum(1, keepdims=True)).argmax(1) + 1"""),
    ])
