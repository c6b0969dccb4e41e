"""The exercises of lesson 10, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, random


def bits_per_byte(perplexity, n_tokens, text):
    bits = math.fsum(math.log(perplexity) / math.log(2) for _ in range(n_tokens))
    return bits / len(bytes(text, "utf-8"))


BITS_PER_BYTE = Exercise(
    bits_per_byte, stars=1, minutes=5,
    inputs=[(8.0, 3, "a king"), (5.7, 2, "öé"), (16.0, 40, "x" * 110), (2.0, 1, "王")],
    hints=[
        "How many bits is a choice among 8 equally likely tokens? And how many bits do all tokens need together?",
        "log2(perplexity) bits for each token; divide by the bytes of the text, not by its characters."],
    mistakes=[
        ("those are nats per byte; a bit is ln 2 nats.",
         lambda p, n, text: n * math.log(p) / len(text.encode())),
        ("perplexity is not a surprise; its logarithm is.",
         lambda p, n, text: n * p / len(text.encode())),
        ("len(text) counts characters; ö has two bytes: len(text.encode()).",
         lambda p, n, text: n * math.log2(p) / len(text)),
        ("that is bits per token; multiply by the tokens and divide by the bytes.",
         lambda p, n, text: math.log2(p)),
        ("the number of tokens is missing: log2(perplexity) is what each token needs.",
         lambda p, n, text: math.log2(p) / len(text.encode())),
        ("you took the logarithm of everything; only the perplexity goes into it.",
         lambda p, n, text: math.log2(p * n) / len(text.encode())),
        ("those are the bits of the whole text; divide by its bytes.",
         lambda p, n, text: n * math.log2(p)),
        ("a byte has eight bits, but that is not in question: you divided by 8.",
         lambda p, n, text: n * math.log2(p) / len(text.encode()) / 8),
    ],
    wrong_answers=[
        ("nats per byte", """
def bits_per_byte(perplexity, n_tokens, text):
    return n_tokens * np.log(perplexity) / len(text.encode())"""),
        ("not a surprise", """
def bits_per_byte(perplexity, n_tokens, text):
    return perplexity * n_tokens / len(text.encode())"""),
        ("counts characters", """
def bits_per_byte(perplexity, n_tokens, text):
    return n_tokens * np.log2(perplexity) / len(text)"""),
        ("bits per token", """
def bits_per_byte(perplexity, n_tokens, text):
    return np.log2(perplexity)"""),
        ("number of tokens is missing", """
def bits_per_byte(perplexity, n_tokens, text):
    return np.log(perplexity) / np.log(2) / len(text.encode("utf-8"))"""),
    ])


def batch_loss(logits, tokens, lengths):
    nats = []
    for rows, ids, length in zip(logits.astype(float).tolist(), tokens.tolist(), lengths.tolist()):
        for row, target in zip(rows[:length - 1], ids[1:length]):
            largest = max(row)
            nats.append(largest + math.log(math.fsum(math.exp(x - largest) for x in row)) - row[target])
    return math.fsum(nats) / len(nats)


def surprises(logits, targets):
    shifted = logits - logits.max(axis=-1, keepdims=True).astype(float)
    return np.log(np.exp(shifted).sum(axis=-1)) - np.take_along_axis(shifted, targets[..., None], axis=-1)[..., 0]


def each_text(start=1, end=0, shift=1):
    """A function that returns the nats of each text: of its tokens `start` to `length + end`."""
    def losses(logits, tokens, lengths):
        return [surprises(rows, ids)[start:n + end] for rows, ids, n in (
            (np.roll(rows, shift, axis=0), ids, n) for rows, ids, n in zip(logits, tokens, lengths))]
    return losses


def mean_of(losses):
    return lambda logits, tokens, lengths: np.concatenate(losses(logits, tokens, lengths)).mean()


PADDED = np.array([[1, 4, 0, 6, 2], [1, 3, 5, 0, 0], [1, 2, 0, 0, 0]])

BATCH_LOSS = Exercise(
    batch_loss, stars=2, minutes=15, may_call=("cross_entropy",),
    inputs=[
        (random(3, 5, 7), PADDED, np.array([5, 3, 2])),
        (random(2, 4, 6, seed=1, scale=200), np.array([[1, 3, 2, 0], [1, 5, 4, 3]]), np.array([3, 4])),
        (random(2, 6, 9, seed=2), np.array([[1, 2, 0, 0, 0, 0], [1, 8, 7, 6, 5, 4]]), np.array([2, 6]))],
    hints=[
        "Which rows of the logits of text b are about a real token? Its last real token predicts padding.",
        "Rows 0 to lengths[b] - 2 against tokens 1 to lengths[b] - 1. Then: mean of what?",
        "Collect nl.cross_entropy(rows[:n - 1], ids[1:n]) of every text, join them, and take one mean over all "
        "tokens."],
    mistakes=[
        ("that is the mean of the texts' means: each text counts equally, where each token should.",
         lambda l, t, n: np.mean([x.mean() for x in each_text()(l, t, n)])),
        ("padding is counted: text b ends after lengths[b] tokens.",
         lambda l, t, n: surprises(l[:, :-1], t[:, 1:]).mean()),
        ("not shifted: row t of the logits is about token t + 1.",
         mean_of(each_text(0, 0, 0))),
        ("one row too many: the last real token of a text predicts padding, which does not count.",
         lambda l, t, n: np.concatenate([surprises(a[:-1], b[1:])[:m] for a, b, m in zip(l, t, n)]).mean()),
        ("you divided by B · T; the padding and the first tokens are not predicted.",
         lambda l, t, n: sum(x.sum() for x in each_text()(l, t, n)) / t.size),
        ("you divided by all real tokens; the first of each text is not predicted.",
         lambda l, t, n: sum(x.sum() for x in each_text()(l, t, n)) / n.sum()),
        ("that is the sum; the loss is the mean.",
         lambda l, t, n: sum(x.sum() for x in each_text()(l, t, n))),
        ("the sign is wrong: -log p is positive.",
         lambda l, t, n: -mean_of(each_text())(l, t, n)),
    ],
    wrong_answers=[
        ("mean of the texts' means", """
def batch_loss(logits, tokens, lengths):
    return np.mean([nl.cross_entropy(r[:n - 1], t[1:n]).mean() for r, t, n in zip(logits, tokens, lengths)])"""),
        ("padding is counted", """
def batch_loss(logits, tokens, lengths):
    V = logits.shape[-1]
    return nl.cross_entropy(logits[:, :-1].reshape(-1, V), tokens[:, 1:].reshape(-1)).mean()"""),
        ("not shifted", """
def batch_loss(logits, tokens, lengths):
    return np.concatenate([nl.cross_entropy(r[:n], t[:n]) for r, t, n in zip(logits, tokens, lengths)]).mean()"""),
        ("one row too many", """
def batch_loss(logits, tokens, lengths):
    return np.concatenate([nl.cross_entropy(r[:-1], t[1:])[:n]
                           for r, t, n in zip(logits, tokens, lengths)]).mean()"""),
        ("divided by all real tokens", """
def batch_loss(logits, tokens, lengths):
    total = 0
    for rows, ids, n in zip(logits, tokens, lengths):
        total += nl.cross_entropy(rows[:n - 1], ids[1:n]).sum()
    return total / sum(lengths)"""),
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
        "Go through the tokens from the likeliest down. When do you stop, and does the last one belong to the set?",
        "A token stays if the tokens before it hold less than p together: np.cumsum(sorted) - sorted is what they "
        "hold.",
        "order = np.argsort(-probs); the chosen ids are order[before < p]; put probs[chosen] into zeros, divide by the "
        "sum."],
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
