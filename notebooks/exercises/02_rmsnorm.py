"""The exercises of lesson 02, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, random


def rms(x, axis=-1, eps=0.0):
    return np.sqrt(np.mean(x * x, axis=axis, keepdims=True) + eps)


def fold(g, w):
    return np.array([[a * b for b in row] for a, row in zip(g, w)], np.float32)


FOLD = Exercise(
    fold, stars=1, minutes=10,
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
    pre_norm_block, stars=2, minutes=10,
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


def norm_in_parts(parts, scales, eps):
    width = sum(part.shape[1] for part in parts)
    sizes = [math.sqrt(math.fsum(float(v) ** 2 for part in parts for v in part[t]) / width + eps)
             for t in range(len(parts[0]))]
    return [np.array([[v / size * g for v, g in zip(row, scale)] for row, size in zip(part, sizes)], np.float32)
            for part, scale in zip(parts, scales)]


def divided(parts, scales, size):
    """Every part divided by the same size, (T, 1), and scaled."""
    return [part / size * scale for part, scale in zip(parts, scales)]


def squares(parts):
    """What each machine can send: the sum of its squares, for every row, (T, 1)."""
    return [np.sum(part * part, axis=1, keepdims=True) for part in parts]


def together(parts):
    """The mean square of the whole rows, (T, 1)."""
    return sum(squares(parts)) / sum(part.shape[1] for part in parts)


NORM_IN_PARTS = Exercise(
    norm_in_parts, stars=3, minutes=15,
    inputs=[
        ([random(3, 4), random(3, 2, seed=1, scale=5)], [random(4, seed=2), random(2, seed=3)], 1e-5),
        ([random(2, 1, seed=4), random(2, 6, seed=5), random(2, 3, seed=6, scale=0.1)],
         [random(1, seed=7), random(6, seed=8), random(3, seed=9)], 1e-2),
        ([np.zeros((1, 2), np.float32), np.zeros((1, 3), np.float32)], [random(2, seed=10), random(3, seed=11)], 1e-5)],
    hints=[
        "A row is divided by one number, and that needs all D columns. What can a machine say about its own columns "
        "in one number, so that all of them together give it?",
        "Sums of squares add up, whatever the widths; means and roots do not.",
        "Add the parts' sums of squares, divide by the sum of their widths, add eps, take the root: every part is "
        "divided by that."],
    mistakes=[
        ("each machine divided by the size of its own part; a row has one size, that of all its D columns.",
         lambda parts, scales, eps: [part / rms(part, eps=eps) * scale for part, scale in zip(parts, scales)]),
        ("you took the mean of the parts' mean squares; a wide part counts for more than a narrow one.",
         lambda parts, scales, eps: divided(parts, scales, np.sqrt(np.mean([rms(part) ** 2 for part in parts], axis=0)
                                                                   + eps))),
        ("you took the mean of the parts' sizes; squares add up, their roots do not.",
         lambda parts, scales, eps: divided(parts, scales, np.mean([rms(part, eps=eps) for part in parts], axis=0))),
        ("you added up the parts' mean squares; add up sums of squares, and divide once, by D.",
         lambda parts, scales, eps: divided(parts, scales, np.sqrt(sum(rms(part) ** 2 for part in parts) + eps))),
        ("the sum of the squares is not divided by D.",
         lambda parts, scales, eps: divided(parts, scales, np.sqrt(sum(squares(parts)) + eps))),
        ("eps came in once for each part; it is added once, to the mean square of the whole row.",
         lambda parts, scales, eps: divided(parts, scales, np.sqrt(together(parts) + len(parts) * eps))),
        ("you left eps out: a row of zeros becomes 0/0.",
         lambda parts, scales, eps: divided(parts, scales, np.sqrt(together(parts)))),
        ("you added eps to the root; it belongs under the root, to the mean of the squares.",
         lambda parts, scales, eps: divided(parts, scales, np.sqrt(together(parts)) + eps)),
        ("you forgot the scales, the learned number of each column.",
         lambda parts, scales, eps: [part / np.sqrt(together(parts) + eps) for part in parts]),
        ("that is one array; each machine keeps its own part: a list of arrays.",
         lambda parts, scales, eps: np.concatenate(norm_in_parts(parts, scales, eps), axis=1)),
    ],
    wrong_answers=[
        ("size of its own part", """
def norm_in_parts(parts, scales, eps):
    return [nl.rms_norm(part, scale, eps) for part, scale in zip(parts, scales)]"""),
        ("mean of the parts' mean squares", """
def norm_in_parts(parts, scales, eps):
    mean = sum(np.mean(part ** 2, axis=1) for part in parts) / len(parts)
    size = np.sqrt(mean + eps)[:, None]
    return [part / size * scale for part, scale in zip(parts, scales)]"""),
        ("mean of the parts' sizes", """
def norm_in_parts(parts, scales, eps):
    size = sum(np.sqrt(np.mean(part ** 2, axis=1) + eps) for part in parts)[:, None] / len(parts)
    return [part / size * scale for part, scale in zip(parts, scales)]"""),
        ("you added up the parts' mean squares", """
def norm_in_parts(parts, scales, eps):
    size = np.sqrt(sum((part ** 2).mean(axis=1) for part in parts) + eps)[:, None]
    return [scale * part / size for part, scale in zip(parts, scales)]"""),
        ("not divided by D", """
def norm_in_parts(parts, scales, eps):
    total = sum((part ** 2).sum(axis=1) for part in parts)[:, None]
    return [scale * part / np.sqrt(total + eps) for part, scale in zip(parts, scales)]"""),
        ("left eps out", """
def norm_in_parts(parts, scales, eps):
    D = sum(part.shape[1] for part in parts)
    total = sum((part ** 2).sum(axis=1) for part in parts)[:, None]
    return [scale * part / np.sqrt(total / D) for part, scale in zip(parts, scales)]"""),
        ("forgot the scales", """
def norm_in_parts(parts, scales, eps):
    D = sum(part.shape[1] for part in parts)
    total = sum((part ** 2).sum(axis=1) for part in parts)[:, None]
    return [part / np.sqrt(total / D + eps) for part in parts]"""),
        ("that is one array", """
def norm_in_parts(parts, scales, eps):
    return nl.rms_norm(np.concatenate(parts, axis=1), np.concatenate(scales), eps)"""),
    ])
