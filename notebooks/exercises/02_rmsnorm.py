"""The exercises of lesson 02, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, random


def rms_norm(x, weight, eps):
    rows = [[v / math.sqrt(math.fsum(float(u) ** 2 for u in row) / len(row) + eps) * g for v, g in zip(row, weight)]
            for row in x]
    return np.array(rows, np.float32)


def rms(x, axis=-1, eps=0.0):
    return np.sqrt(np.mean(x * x, axis=axis, keepdims=True) + eps)


RMS_NORM = Exercise(
    rms_norm, stars=1, minutes=5,
    inputs=[
        (random(3, 8), random(8, seed=1), 1e-5), (random(1, 64, scale=30), random(64, seed=2), 1e-6),
        (random(5, 6, scale=0.01), np.ones(6, np.float32), 1e-3),
        (np.zeros((2, 4), np.float32), np.ones(4, np.float32), 1e-5)],
    hints=[
        "Each row is divided by one number of its own. In which order: square, mean, root?",
        "The mean goes along the last axis and has to keep it (keepdims=True), so that (T, 1) divides (T, D).",
        "Divide x by the root of the mean of its squares (plus eps), row by row, and multiply by weight."],
    mistakes=[
        ("you left eps out: a row of zeros becomes 0/0, and a small row comes out too large.",
         lambda x, weight, eps: x / rms(x) * weight),
        ("you added eps to the root; it belongs under the root, to the mean of the squares.",
         lambda x, weight, eps: x / (rms(x) + eps) * weight),
        ("you took the mean over all rows at once; each row has its own (axis=-1, keepdims=True).",
         lambda x, weight, eps: x / rms(x, None, eps) * weight),
        ("you took the mean down the columns; it goes along each row (axis=-1).",
         lambda x, weight, eps: x / rms(x, 0, eps) * weight),
        ("you divided by the mean square; its square root is missing.",
         lambda x, weight, eps: x / rms(x, eps=eps) ** 2 * weight),
        ("you took the sum of the squares, not their mean: the rows come out sqrt(D) times too small.",
         lambda x, weight, eps: x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + eps) * weight),
        ("you forgot weight, the learned scale of each column.",
         lambda x, weight, eps: x / rms(x, eps=eps)),
        ("that is LayerNorm without a bias: RMSNorm does not take the mean of the row away.",
         lambda x, weight, eps: (x - x.mean(-1, keepdims=True)) / rms(x - x.mean(-1, keepdims=True), eps=eps) * weight),
    ],
    wrong_answers=[
        ("left eps out", """
def rms_norm(x, weight, eps):
    return x / np.sqrt((x ** 2).mean(-1)).reshape(-1, 1) * weight"""),
        ("you added eps to the root", """
def rms_norm(x, weight, eps):
    rms = np.sqrt((x ** 2).mean(-1, keepdims=True))
    return weight * x / (rms + eps)"""),
        ("over all rows at once", """
def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x ** 2) + eps) * weight"""),
        ("down the columns", """
def rms_norm(x, weight, eps):
    return weight * x / np.sqrt(np.mean(x ** 2, axis=0) + eps)"""),
        ("square root is missing", """
def rms_norm(x, weight, eps):
    return weight * x / (np.mean(x ** 2, axis=1)[:, None] + eps)"""),
        ("not their mean", """
def rms_norm(x, weight, eps):
    return weight * x / np.sqrt(np.einsum("td,td->t", x, x)[:, None] + eps)"""),
        ("forgot weight", """
def rms_norm(x, weight, eps):
    return nl.rms_norm(x, np.float32(1), eps)"""),
        ("that is LayerNorm", """
def rms_norm(x, weight, eps):
    var = x.var(-1, keepdims=True)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(var + eps) * weight"""),
        ("changes the arrays", """
def rms_norm(x, weight, eps):
    x /= np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return x * weight"""),
    ])


def fold(g, w):
    return np.array([[a * b for b in row] for a, row in zip(g, w)], np.float32)


FOLD = Exercise(
    fold, stars=2, minutes=10,
    inputs=[
        (random(4), random(4, 6, seed=1)), (random(5, seed=2), random(5, 5, seed=3)),
        (random(3, seed=4), random(3, 1, seed=5))],
    hints=[
        "In x @ w, which numbers of w does column i of x meet?",
        "Column i of x meets row i of w, and g[i] scales column i of x.",
        "Multiply each row of w by its number in g: g[:, None] makes a column of g."],
    mistakes=[
        ("you scaled the columns of w; the columns of x, which g scales, meet the rows of w.",
         lambda g, w: w * np.resize(g, w.shape[1])),
        ("you divided by g: that takes the scale away instead of folding it in.",
         lambda g, w: w / g[:, None]),
        ("you multiplied g into w and summed: that is g @ w, one row, and the matrix is gone.",
         lambda g, w: g @ w),
        ("that is w as it was: g is missing.",
         lambda g, w: w),
    ],
    wrong_answers=[
        ("scaled the columns of w", """
def fold(g, w):
    n = w.shape[1]
    return w * np.concatenate([g] * n)[:n]"""),
        ("divided by g", """
def fold(g, w):
    return (w.T / g).T"""),
        ("one row, and the matrix is gone", """
def fold(g, w):
    return np.dot(w.T, g)"""),
        ("g is missing", """
def fold(g, w):
    return w.copy()"""),
    ])


def norm_of(x):
    return x / rms(x, eps=1e-5)


def attend(x):
    return np.tanh(np.cumsum(x, axis=0))


def feed(x):
    return x * x - 1


def pre_norm_block(x, norm_1, attend, norm_2, feed):
    middle = attend(norm_1(x)) + x
    return feed(norm_2(middle)) + middle


PRE_NORM_BLOCK = Exercise(
    pre_norm_block, stars=3, minutes=15,
    inputs=[
        (random(3, 4, seed=1, scale=3), norm_of, attend, lambda x: 2 * norm_of(x), feed),
        (random(1, 8, seed=2), norm_of, attend, lambda x: norm_of(x) + 1, feed)],
    hints=[
        "What does each step read, and to what is its result added?",
        "A step reads the normalised row; its result is added to the row as it was before the norm.",
        "First x + attend(norm_1(x)), then the same with norm_2 and feed, on what came out."],
    mistakes=[
        ("that is post-norm: you normalised the sums. Normalise what attend and feed read.",
         lambda x, n1, a, n2, f: n2(n1(x + a(x)) + f(n1(x + a(x))))),
        ("you added to the normalised rows; the stream itself is what the results are added to.",
         lambda x, n1, a, n2, f: n2(n1(x) + a(n1(x))) + f(n2(n1(x) + a(n1(x))))),
        ("feed read the stream from before attention; it comes after, and reads the new sum.",
         lambda x, n1, a, n2, f: x + a(n1(x)) + f(n2(x))),
        ("you left out the residual sums: the stream is replaced instead of added to.",
         lambda x, n1, a, n2, f: f(n2(a(n1(x))))),
        ("you normalised nothing: attend and feed read norm_1(x) and norm_2(x).",
         lambda x, n1, a, n2, f: x + a(x) + f(x + a(x))),
        ("you dropped the second sum: the result of feed is added to the stream as well.",
         lambda x, n1, a, n2, f: f(n2(x + a(n1(x))))),
        ("norm_1 and norm_2 are swapped.",
         lambda x, n1, a, n2, f: x + a(n2(x)) + f(n1(x + a(n2(x))))),
    ],
    wrong_answers=[
        ("that is post-norm", """
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    x = norm_1(attend(x) + x)
    return norm_2(feed(x) + x)"""),
        ("added to the normalised rows", """
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    x = norm_1(x)
    x = x + attend(x)
    x = norm_2(x)
    return x + feed(x)"""),
        ("from before attention", """
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    a, f = attend(norm_1(x)), feed(norm_2(x))
    return x + a + f"""),
        ("left out the residual sums", """
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    x = attend(norm_1(x))
    return feed(norm_2(x))"""),
        ("normalised nothing", """
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    x = x + attend(x)
    return x + feed(x)"""),
        ("dropped the second sum", """
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    x = x + attend(norm_1(x))
    return feed(norm_2(x))"""),
        ("are swapped", """
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    x = x + attend(norm_2(x))
    return x + feed(norm_1(x))"""),
    ])
