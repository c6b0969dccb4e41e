"""The exercises of lesson 06, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, random


def gated_width(plain_width, multiple_of):
    hidden = 0
    while 3 * (hidden + multiple_of) <= 2 * plain_width:
        hidden += multiple_of
    return hidden


GATED_WIDTH = Exercise(
    gated_width, stars=1, minutes=5,
    tolerance=0,
    inputs=[
        (16384, 256), (1024, 64), (768, 256), (3072, 256), (100, 7), (20480, 4096), (26624, 128), (10, 1)],
    hints=[
        "Write down the number of parameters of both steps, and set the gated one <= the plain one. What drops out?",
        "3 D F <= 2 D P: the largest F is two thirds of the plain width, before rounding.",
        "Rounding to a multiple must not go over the budget: whole multiples with //."],
    mistakes=[
        ("you rounded up, as Llama does; that goes over the budget. Round down.",
         lambda p, m: -(-2 * p // (3 * m)) * m),
        ("you rounded to the nearest multiple, which can go over the budget. Round down.",
         lambda p, m: round(2 * p / 3 / m) * m),
        ("it is not rounded to a multiple of multiple_of.",
         lambda p, m: 2 * p // 3),
        ("that is the plain width: three matrices instead of two leave two thirds of it.",
         lambda p, m: p // m * m),
        ("you took half; two matrices became three, so two thirds are left.",
         lambda p, m: p // 2 // m * m),
        ("that is two thirds of 4 plain_width; the plain width is the 4 D of Llama's rule already.",
         lambda p, m: 8 * p // 3 // m * m),
        ("you rounded the plain width first, and took two thirds after: that is no multiple of multiple_of.",
         lambda p, m: 2 * (p // m * m) // 3),
    ],
    wrong_answers=[
        ("you rounded up", """
def gated_width(plain_width, multiple_of):
    return math.ceil(2 * plain_width / 3 / multiple_of) * multiple_of"""),
        ("to the nearest", """
def gated_width(plain_width, multiple_of):
    return multiple_of * round(2 * plain_width / (3 * multiple_of))"""),
        ("not rounded", """
def gated_width(plain_width, multiple_of):
    return int(2 * plain_width / 3)"""),
        ("that is the plain width", """
def gated_width(plain_width, multiple_of):
    return plain_width - plain_width % multiple_of"""),
        ("you took half", """
def gated_width(plain_width, multiple_of):
    half = plain_width // 2
    return half - half % multiple_of"""),
        ("two thirds of 4 plain_width", """
def gated_width(plain_width, multiple_of):
    f = 2 * 4 * plain_width // 3
    return f - f % multiple_of"""),
        ("rounded the plain width first", """
def gated_width(plain_width, multiple_of):
    return int((plain_width - plain_width % multiple_of) * 2 / 3)"""),
    ])


def fused_swiglu(x, up_gate, down):
    F = len(down)
    out = np.zeros((len(x), down.shape[1]))
    for row, token in zip(out, x.astype(float)):
        for f in range(F):
            u, g = math.fsum(token * up_gate[:, f]), math.fsum(token * up_gate[:, F + f])
            row += g / (1 + math.exp(-g)) * u * down[f]
    return out.astype(np.float32)


def swish_of(g):
    return g / (1 + np.exp(-g))


def halves(x, up_gate, down):
    both = x @ up_gate
    return both[:, len(down):], both[:, :len(down)]


def gated(x, up_gate, down, on_gate=swish_of, on_up=lambda u: u, join=np.multiply):
    gate, up = halves(x, up_gate, down)
    return join(on_gate(gate), on_up(up)) @ down


def every_second(x, up_gate, down):
    both = x @ up_gate
    return (swish_of(both[:, 1::2]) * both[:, ::2]) @ down


FUSED_SWIGLU = Exercise(
    fused_swiglu, stars=2, minutes=10,
    picture=True,
    inputs=[
        (random(3, 8), random(8, 24, seed=1), random(12, 8, seed=3)),
        (random(1, 4, seed=4, scale=2), random(4, 8, seed=5), random(4, 4, seed=7)),
        (np.zeros((2, 4), np.float32), random(4, 12, seed=8), random(6, 4, seed=10))],
    hints=[
        "One product gives 2F columns for each token. Which of them are up, which are gate?",
        "F is the number of rows of down. Cut the product, not the matrix: columns up to F, columns from F on.",
        "(Swish(both[:, F:]) * both[:, :F]) @ down, with Swish(g) = g / (1 + exp(-g))."],
    mistakes=[
        ("the halves are exchanged: here up comes first, and Swish belongs on the second half.",
         lambda x, w, d: gated(x, w, d, lambda g: g, swish_of)),
        ("you took every second column; the halves stand side by side, F columns each.",
         every_second),
        ("Swish is on both; only the gate gets it, up stays as it is.",
         lambda x, w, d: gated(x, w, d, swish_of, swish_of)),
        ("that is GLU: you took the sigmoid; Swish is x times the sigmoid.",
         lambda x, w, d: gated(x, w, d, lambda g: 1 / (1 + np.exp(-g)))),
        ("that is ReGLU: the activation here is Swish, not ReLU.",
         lambda x, w, d: gated(x, w, d, lambda g: np.maximum(g, 0))),
        ("the two are added; a gate multiplies.",
         lambda x, w, d: gated(x, w, d, join=np.add)),
        ("up is missing: that is the plain form with Swish.",
         lambda x, w, d: gated(x, w, d, join=lambda g, u: g)),
        ("there is no activation: gate times up alone is not SwiGLU.",
         lambda x, w, d: gated(x, w, d, lambda g: g)),
        ("a sign is wrong: that is g / (1 + exp(g)); Swish is g / (1 + exp(-g)).",
         lambda x, w, d: gated(x, w, d, lambda g: g / (1 + np.exp(g)))),
        ("you applied Swish to the product; it goes on the gate before.",
         lambda x, w, d: swish_of(np.multiply(*halves(x, w, d))) @ d),
        ("you added x: the residual sum is the block's affair, not this step's.",
         lambda x, w, d: x + gated(x, w, d)),
    ],
    wrong_answers=[
        ("halves are exchanged", """
def fused_swiglu(x, up_gate, down):
    F = up_gate.shape[1] // 2
    return nl.feed_forward(x, up_gate[:, :F], up_gate[:, F:], down)"""),
        ("every second column", """
def fused_swiglu(x, up_gate, down):
    return nl.feed_forward(x, up_gate[:, 1::2], up_gate[:, 0::2], down)"""),
        ("is on both", """
def fused_swiglu(x, up_gate, down):
    up, gate = np.split(nl.silu(x @ up_gate), 2, axis=1)
    return (up * gate) @ down"""),
        ("took the sigmoid", """
def fused_swiglu(x, up_gate, down):
    up, gate = np.split(x @ up_gate, 2, axis=1)
    return (up / (1 + np.exp(-gate))) @ down"""),
        ("are added", """
def fused_swiglu(x, up_gate, down):
    up, gate = np.hsplit(x @ up_gate, 2)
    return (nl.silu(gate) + up) @ down"""),
        ("up is missing", """
def fused_swiglu(x, up_gate, down):
    return nl.silu(x @ up_gate[:, len(down):]) @ down"""),
        ("no activation", """
def fused_swiglu(x, up_gate, down):
    up, gate = np.hsplit(x @ up_gate, 2)
    return (up * gate) @ down"""),
        ("residual sum", """
def fused_swiglu(x, up_gate, down):
    up, gate = np.hsplit(up_gate, 2)
    return nl.feed_forward(x, gate, up, down) + x"""),
    ])


def strongest_only(hidden, down, k):
    out = np.zeros((len(hidden), down.shape[1]))
    for row, token in zip(out, hidden.astype(float)):
        added = [h * d for h, d in zip(token, down.astype(float))]
        added.sort(key=lambda one: -math.sqrt(math.fsum(one * one)))
        for one in added[:k]:
            row += one
    return out.astype(np.float32)


def kept_only(hidden, down, k, strength=None, together=False, largest=True):
    """Only the k neurons of largest strength(hidden, down) (T, F), of each token or of all `together`."""
    size = strength(hidden, down) if strength else np.abs(hidden) * np.linalg.norm(down, axis=1)
    size = size if largest else -size
    size = np.broadcast_to(size.sum(axis=0) if together else size, hidden.shape)
    bar = np.sort(size, axis=1)[:, -k][:, None]
    return np.where(size >= bar, hidden, 0).astype(np.float32) @ down


STRONGEST_ONLY = Exercise(
    strongest_only, stars=3, minutes=15,
    picture=True,
    inputs=[
        (random(4, 9), random(9, 6, seed=1), 3), (random(2, 5, seed=2), random(5, 5, seed=3), 1),
        (random(3, 30, seed=4, scale=2), random(30, 8, seed=5), 10), (random(2, 6, seed=6), random(6, 4, seed=7), 6)],
    hints=[
        "Neuron f adds hidden[t, f] * down[f] to token t. How long is that row?",
        "The length is |hidden[t, f]| times the length of down[f]: a (T, F) array. Sort each of its rows.",
        "Set all but the k largest of each row to 0 in a copy of hidden (np.argsort, np.put_along_axis), then @ down."],
    mistakes=[
        ("you measured by |hidden| alone; a neuron adds hidden times its row of down, so that row's length counts.",
         lambda h, d, k: kept_only(h, d, k, lambda h, d: np.abs(h))),
        ("you took the largest products with their sign; a strongly negative one adds as much.",
         lambda h, d, k: kept_only(h, d, k, lambda h, d: h * np.linalg.norm(d, axis=1))),
        ("you kept the same neurons for all tokens; each token has its own k.",
         lambda h, d, k: kept_only(h, d, k, together=True)),
        ("you kept the weakest k; the strongest were asked for.",
         lambda h, d, k: kept_only(h, d, k, largest=False)),
        ("you measured by the row of down alone; without the product it says nothing about this token.",
         lambda h, d, k: kept_only(h, d, k, lambda h, d: np.linalg.norm(d, axis=1) + 0 * h)),
        ("that is everything: all neurons are still in the sum.",
         lambda h, d, k: h @ d),
        ("you left the strongest k out; they are what is kept.",
         lambda h, d, k: h @ d - kept_only(h, d, k)),
    ],
    wrong_answers=[
        ("by |hidden| alone", """
def strongest_only(hidden, down, k):
    order = np.argsort(-np.abs(hidden), axis=1)[:, :k]
    return np.stack([row[kept] @ down[kept] for row, kept in zip(hidden, order)])"""),
        ("with their sign", """
def strongest_only(hidden, down, k):
    order = np.argsort(-hidden * np.sqrt((down ** 2).sum(1)), axis=1)[:, :k]
    return np.stack([row[kept] @ down[kept] for row, kept in zip(hidden, order)])"""),
        ("same neurons for all tokens", """
def strongest_only(hidden, down, k):
    size = np.abs(hidden).sum(0) * np.linalg.norm(down, axis=1)
    kept = np.argsort(-size)[:k]
    return hidden[:, kept] @ down[kept]"""),
        ("weakest k", """
def strongest_only(hidden, down, k):
    order = np.argsort(np.abs(hidden) * np.linalg.norm(down, axis=1), axis=1)[:, :k]
    return np.stack([row[kept] @ down[kept] for row, kept in zip(hidden, order)])"""),
        ("by the row of down alone", """
def strongest_only(hidden, down, k):
    kept = np.argsort(-np.linalg.norm(down, axis=1))[:k]
    return hidden[:, kept] @ down[kept]"""),
        ("that is everything", """
def strongest_only(hidden, down, k):
    return (hidden[:, :, None] * down).sum(axis=1)"""),
        ("left the strongest k out", """
def strongest_only(hidden, down, k):
    order = np.argsort(-np.abs(hidden) * np.linalg.norm(down, axis=1), axis=1)[:, k:]
    return np.stack([row[rest] @ down[rest] for row, rest in zip(hidden, order)])"""),
    ])
