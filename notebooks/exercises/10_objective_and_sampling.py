"""The exercises of lesson 10, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, random


def bits_per_byte(nats, text):
    return math.fsum(float(x) / math.log(2) for x in nats) / len(bytes(text, "utf-8"))


def bits_with(total=np.sum, log=math.log(2), length=lambda nats, text: len(text.encode())):
    return lambda nats, text: total(nats) / log / length(nats, text)


BITS_PER_BYTE = Exercise(
    bits_per_byte, stars=1, minutes=5,
    inputs=[
        (np.array([2.0, 1.0, 0.5]), "a king"), (np.array([0.1, 7.0]), "öé"), (np.linspace(0, 3, 40), "x" * 11),
        (np.array([1.0]), "王")],
    hints=[
        "Add up the nats, divide by ln 2 for bits, and by the number of bytes of the text in UTF-8."],
    mistakes=[
        ("those are nats per byte; divide by ln 2 for bits.",
         bits_with(log=1)),
        ("you multiplied by ln 2; a nat is more than a bit, so divide.",
         bits_with(log=1 / math.log(2))),
        ("len(text) counts characters; ö has two bytes: len(text.encode()).",
         bits_with(length=lambda n, t: len(t))),
        ("that is bits per token; divide by the bytes of the text.",
         bits_with(length=lambda n, t: len(n))),
        ("you took the mean of the nats; all of them are needed for the whole text.",
         bits_with(np.mean)),
        ("those are the bits of the whole text; divide by its bytes.",
         bits_with(length=lambda n, t: 1)),
        ("a byte has eight bits, but that is not in question: you multiplied or divided by 8.",
         bits_with(log=8 * math.log(2))),
    ],
    wrong_answers=[
        ("nats per byte", """
def bits_per_byte(nats, text):
    return sum(nats) / len(text.encode())"""),
        ("counts characters", """
def bits_per_byte(nats, text):
    return np.sum(nats) / np.log(2) / len(text)"""),
        ("bits per token", """
def bits_per_byte(nats, text):
    return np.mean(nats) / np.log(2)"""),
        ("multiplied by ln 2", """
def bits_per_byte(nats, text):
    return np.sum(nats) * np.log(2) / len(text.encode("utf-8"))"""),
        ("mean of the nats", """
def bits_per_byte(nats, text):
    return np.mean(nats / np.log(2)) / len(text.encode("utf-8"))"""),
    ])


def next_token_loss(logits, tokens):
    nats = []
    for row, target in zip(logits[:-1].astype(float).tolist(), tokens[1:]):
        largest = max(row)
        nats.append(largest + math.log(math.fsum(math.exp(x - largest) for x in row)) - row[target])
    return math.fsum(nats) / len(nats)


def all_nats(rows, targets):
    rows = rows.astype(float)
    shifted = rows - rows.max(-1, keepdims=True)
    return np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(len(targets)), targets]


NEXT_TOKEN_LOSS = Exercise(
    next_token_loss, stars=2, minutes=10,
    inputs=[
        (random(5, 7), np.array([1, 4, 0, 6, 2])), (random(3, 4, seed=1, scale=200), np.array([3, 0, 1])),
        (random(2, 11, seed=2), np.array([0, 10])), (random(6, 5, seed=3, scale=3), np.array([0, 1, 2, 3, 4, 0]))],
    hints=[
        "Rows logits[:-1] against targets tokens[1:]: mean of log(sum(exp(row))) - row[target], the largest "
        "subtracted."],
    mistakes=[
        ("not shifted: row t of the logits is about token t + 1.",
         lambda l, t: all_nats(l, t).mean()),
        ("shifted the wrong way: logits[:-1] against tokens[1:].",
         lambda l, t: all_nats(l[1:], t[:-1]).mean()),
        ("that is the sum; the loss is the mean.",
         lambda l, t: all_nats(l[:-1], t[1:]).sum()),
        ("you divided by T; there are T - 1 predictions.",
         lambda l, t: all_nats(l[:-1], t[1:]).sum() / len(t)),
        ("the sign is wrong: -log p is positive.",
         lambda l, t: -all_nats(l[:-1], t[1:]).mean()),
        ("that is in bits; the natural logarithm gives nats.",
         lambda l, t: all_nats(l[:-1], t[1:]).mean() / math.log(2)),
        ("exp overflows, or a probability underflows to log(0): subtract the row's largest, and never form p.",
         lambda l, t: np.mean(np.log(np.exp(l[:-1]).sum(-1)) - l[:-1][np.arange(len(t) - 1), t[1:]])),
    ],
    wrong_answers=[
        ("not shifted", """
def next_token_loss(logits, tokens):
    return nl.cross_entropy(logits, tokens).mean()"""),
        ("wrong way", """
def next_token_loss(logits, tokens):
    return nl.cross_entropy(logits[1:], tokens[:-1]).mean()"""),
        ("that is the sum", """
def next_token_loss(logits, tokens):
    return nl.cross_entropy(logits[:-1], tokens[1:]).sum()"""),
        ("divided by T", """
def next_token_loss(logits, tokens):
    return nl.cross_entropy(logits[:-1], tokens[1:]).sum() / len(logits)"""),
        ("in bits", """
def next_token_loss(logits, tokens):
    return np.mean(nl.cross_entropy(logits[:-1], tokens[1:]) / np.log(2))"""),
    ])


def nucleus(probs, p):
    held, kept = 0.0, {}
    for i in sorted(range(len(probs)), key=lambda i: -probs[i]):
        if held >= p:
            break
        held, kept[i] = held + probs[i], probs[i]
    return np.array([kept.get(i, 0) / math.fsum(kept.values()) for i in range(len(probs))])


def top_p_with(probs, p, sign=-1, keep=lambda probs, before, p: before < p, scale=True):
    order = np.argsort(sign * probs, kind="stable")
    before = np.cumsum(probs[order]) - probs[order]
    out = np.zeros_like(probs)
    chosen = order[keep(probs[order], before, p)]
    out[chosen] = probs[chosen]
    return out / out.sum() if scale else out


NUCLEUS = Exercise(
    nucleus, stars=3, minutes=15,
    inputs=[
        (np.array([0.1, 0.5, 0.15, 0.25]), 0.6), (np.array([0.05, 0.9, 0.03, 0.02]), 0.3),
        (np.array([0.4, 0.3, 0.2, 0.1]), 1.0), (np.array([0.02, 0.31, 0.27, 0.18, 0.22]), 0.75)],
    hints=[
        "Sort by probability, keep tokens as long as those before hold less than p, and divide by what is kept."],
    mistakes=[
        ("the token that crosses p is dropped; without it the set does not reach p, and may be empty.",
         lambda q, p: top_p_with(q, p, keep=lambda q, before, p: before + q <= p)),
        ("what is kept does not sum to 1: divide by its sum.",
         lambda q, p: top_p_with(q, p, scale=False)),
        ("you kept the least likely tokens; sort downwards.",
         lambda q, p: top_p_with(q, p, sign=1)),
        ("you kept every token of probability p or more; it is the sum that must reach p.",
         lambda q, p: np.where(q >= p, q, 0) / max(np.where(q >= p, q, 0).sum(), 1e-300)),
        ("you kept one token too many: stop as soon as the sum has reached p.",
         lambda q, p: top_p_with(q, p, keep=lambda q, before, p: np.append(True, before[:-1] < p))),
        ("the result is sorted; each token must keep its place.",
         lambda q, p: -np.sort(-top_p_with(q, p))),
        ("you did not sort: the running sum must go from the likeliest down.",
         lambda q, p: np.where(np.cumsum(q) - q < p, q, 0) / np.where(np.cumsum(q) - q < p, q, 0).sum()),
    ],
    wrong_answers=[
        ("crosses p is dropped", """
def nucleus(probs, p):
    order = np.argsort(-probs)
    keep = order[np.cumsum(probs[order]) <= p]
    out = np.zeros_like(probs)
    out[keep] = probs[keep]
    return out / out.sum()"""),
        ("does not sum to 1", """
def nucleus(probs, p):
    order = np.argsort(-probs)
    n = np.searchsorted(np.cumsum(probs[order]), min(p, 1 - 1e-12)) + 1
    out = np.zeros_like(probs)
    out[order[:n]] = probs[order[:n]]
    return out"""),
        ("least likely", """
def nucleus(probs, p):
    order = np.argsort(probs)
    before = np.cumsum(probs[order]) - probs[order]
    out = np.zeros_like(probs)
    out[order[before < p]] = probs[order[before < p]]
    return out / out.sum()"""),
        ("one token too many", """
def nucleus(probs, p):
    order = np.argsort(-probs)
    n = min(np.searchsorted(np.cumsum(probs[order]), min(p, 1 - 1e-12)) + 2, len(probs))
    out = np.zeros_like(probs)
    out[order[:n]] = probs[order[:n]]
    return out / out.sum()"""),
        ("did not sort", """
def nucleus(probs, p):
    out = np.where(np.cumsum(probs) - probs < p, probs, 0)
    return out / out.sum()"""),
        ("result is sorted", """
def nucleus(probs, p):
    s = np.sort(probs)[::-1]
    s[np.cumsum(s) - s >= p] = 0
    return s / s.sum()"""),
    ])
