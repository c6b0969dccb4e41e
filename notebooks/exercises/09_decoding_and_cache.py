"""The exercises of lesson 09, for checks.py; README.md in the folder above says how to write one."""
import numpy as np
from checks import Exercise, random


def intensity(T, n, m, width):
    flops = sum(2 * n * m for _ in range(T))
    return flops / (width * n * m)


INTENSITY = Exercise(
    intensity, stars=1, minutes=5,
    inputs=[
        (1, 256, 704, 4), (500, 4096, 11008, 2), (16, 288, 32000, 4), (3, 7, 5, 1)],
    hints=[
        "2 * T * n * m FLOPs, divided by the n * m * width bytes of the matrix."],
    mistakes=[
        ("an addition comes with each multiplication: 2 * T * n * m FLOPs.",
         lambda T, n, m, w: T / w),
        ("the T rows are missing: each number that is read serves T times.",
         lambda T, n, m, w: 2 / w),
        ("you counted numbers, not bytes: divide by width too.",
         lambda T, n, m, w: 2 * T),
        ("that is bytes per FLOP; it is the other way round.",
         lambda T, n, m, w: w / (2 * T)),
        ("those are the FLOPs; divide them by the bytes read.",
         lambda T, n, m, w: 2 * T * n * m),
        ("you multiplied by the width; more bytes make the intensity smaller.",
         lambda T, n, m, w: 2 * T * w),
        ("count the matrix only, as asked, not the rows that go in and come out.",
         lambda T, n, m, w: 2 * T * n * m / (w * (n * m + T * n + T * m))),
    ],
    wrong_answers=[
        ("comes with each multiplication", """
def intensity(T, n, m, width):
    return T * n * m / (n * m * width)"""),
        ("T rows are missing", """
def intensity(T, n, m, width):
    return 2 * n * m / (n * m * width)"""),
        ("not bytes", """
def intensity(T, n, m, width):
    return 2 * T * n * m / (n * m)"""),
        ("other way round", """
def intensity(T, n, m, width):
    return n * m * width / (2 * T * n * m)"""),
        ("matrix only", """
def intensity(T, n, m, width):
    return 2 * T * n * m / ((T * n + n * m + T * m) * width)"""),
    ])


def try_append(function, store, length, new):
    """What is returned, what is in the store, and whether the one is a view of the other."""
    store = store.copy()
    result = function(store, length, new)
    if result is None or result is ...:
        return None
    return result, store, np.array(isinstance(result, tuple) and np.shares_memory(result[0], store))


def append(store, length, new):
    for g in range(len(new)):
        for t in range(new.shape[1]):
            store[g, length + t] = new[g, t]
    return store[:, :length + new.shape[1]], length + new.shape[1]


def put(store, new, start):
    store[:, start:start + new.shape[1]] = new
    return store


APPEND = Exercise(
    append, stars=2, minutes=10,
    run=try_append,
    inputs=[
        (random(2, 8, 4), 3, random(2, 2, 4, seed=1)), (random(1, 5, 3, seed=2), 0, random(1, 4, 3, seed=3)),
        (random(3, 6, 2, seed=4), 5, random(3, 1, 2, seed=5))],
    hints=[
        "store[:, length:length + T] = new; return store[:, :length + T] and length + T."],
    mistakes=[
        ("you wrote over the first keys; the new ones go behind the `length` that are held.",
         lambda s, n, new: (put(s, new, 0)[:, :n + new.shape[1]], n + new.shape[1])),
        ("you returned the whole store; what is behind the valid keys is rubbish.",
         lambda s, n, new: (put(s, new, n), n + new.shape[1])),
        ("you returned the new keys only; attention needs all that are valid.",
         lambda s, n, new: (put(s, new, n)[:, n:n + new.shape[1]], n + new.shape[1])),
        ("the length is the old one; it grows by T.",
         lambda s, n, new: (put(s, new, n)[:, :n + new.shape[1]], n)),
        ("the store is unchanged: you joined copies. Write into it, so that nothing is copied.",
         lambda s, n, new: (np.concatenate([s[:, :n], new], axis=1), n + new.shape[1])),
        ("you returned a copy; a slice of the store is a view and costs nothing.",
         lambda s, n, new: (put(s, new, n)[:, :n + new.shape[1]].copy(), n + new.shape[1])),
    ],
    wrong_answers=[
        ("over the first keys", """
def append(store, length, new):
    T = new.shape[1]
    store[:, :T] = new
    return store[:, :length + T], length + T"""),
        ("whole store", """
def append(store, length, new):
    end = length + new.shape[1]
    store[:, length:end] = new
    return store, end"""),
        ("new keys only", """
def append(store, length, new):
    end = length + new.shape[1]
    store[:, length:end] = new
    return store[:, length:end], end"""),
        ("old one", """
def append(store, length, new):
    store[:, length:length + new.shape[1]] = new
    return store[:, :length + new.shape[1]], length"""),
        ("joined copies", """
def append(store, length, new):
    valid = np.hstack([store[:, :length], new])
    return valid, valid.shape[1]"""),
    ])


class CountingModel:
    """A little language of sums, which notes what it is fed."""

    def __init__(self):
        self.fed = []

    def __call__(self, tokens, cache):
        rows = []
        for token in tokens:
            self.fed.append(int(token))
            cache.append(int(token))
            rows.append(np.eye(11)[(sum(cache) * 3 + len(cache)) % 11])
        return np.array(rows)


def try_decode(function, prompt, n):
    model, cache = CountingModel(), []
    new = function(list(prompt), n, model, cache)
    return None if new is None or new is ... else (new, model.fed)


def decode(prompt, n, forward, cache):
    logits, new = forward(prompt, cache), []
    for i in range(n):
        new.append(int(np.argmax(logits[len(logits) - 1])))
        if i < n - 1:
            logits = forward(new[i:], cache)
    return new


def decoding(feed, first=lambda prompt, new: prompt + new, more=False, row=-1):
    """A wrong loop: feed(prompt, new) is what goes in from the second step on."""
    def wrong(prompt, n, forward, cache):
        new, tokens = [], prompt
        while len(new) < n:
            new.append(int(forward(tokens, cache)[row].argmax()))
            tokens = feed(prompt, new)
        if more:
            forward(tokens, cache)
        return new
    return wrong


DECODE = Exercise(
    decode, stars=3, minutes=15,
    run=try_decode,
    inputs=[
        ([1, 5, 2], 6), ([3], 1), ([7, 7, 7, 1], 4)],
    hints=[
        "Feed the prompt once, then only the last new token each time; stop after n."],
    mistakes=[
        ("everything goes through again in each step; the cache holds it: feed the newest token only.",
         decoding(lambda prompt, new: prompt + new)),
        ("all new tokens go in again in each step; those before the newest are in the cache.",
         decoding(lambda prompt, new: list(new))),
        ("the prompt is fed again in each step.",
         decoding(lambda prompt, new: prompt)),
        ("the last token went through the model; nobody reads what it would say.",
         decoding(lambda prompt, new: new[-1:], more=True)),
        ("you took the first row of the logits; the last row predicts what comes next.",
         decoding(lambda prompt, new: new[-1:], row=0)),
        ("the prompt is in the result; only the new ids were asked for.",
         lambda p, n, f, c: p + decoding(lambda prompt, new: new[-1:])(p, n, f, c)),
        ("you fed the last token of the prompt twice.",
         lambda p, n, f, c: (f(p, c), decoding(lambda prompt, new: new[-1:])(p[-1:], n, f, c))[1]),
    ],
    wrong_answers=[
        ("everything goes through again", """
def decode(prompt, n, forward, cache):
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(forward(ids, cache)[-1].argmax()))
    return ids[len(prompt):]"""),
        ("last token went through", """
def decode(prompt, n, forward, cache):
    logits, new = forward(prompt, cache), []
    for _ in range(n):
        token = int(logits[-1].argmax())
        new.append(token)
        logits = forward([token], cache)
    return new"""),
        ("first row", """
def decode(prompt, n, forward, cache):
    new, ids = [], prompt
    for _ in range(n):
        ids = [int(forward(ids, cache)[0].argmax())]
        new += ids
    return new"""),
        ("prompt is in the result", """
def decode(prompt, n, forward, cache):
    out, ids = list(prompt), prompt
    for _ in range(n):
        ids = [int(forward(ids, cache)[-1].argmax())]
        out += ids
    return out"""),
        ("all new tokens go in again", """
def decode(prompt, n, forward, cache):
    new = []
    for _ in range(n):
        new = new + [int(forward(new or prompt, cache)[-1].argmax())]
    return new"""),
    ])
