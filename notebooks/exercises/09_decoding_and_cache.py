"""The exercises of lesson 09, for checks.py; README.md in the folder above says how to write one."""
import numpy as np
from checks import Exercise, random


def batch_bound(sequences, weight_bytes, cache_bytes, bandwidth):
    read = weight_bytes
    for _ in range(sequences):
        read += cache_bytes
    return sequences / (read / bandwidth)


BATCH_BOUND = Exercise(
    batch_bound, stars=2, minutes=10,
    inputs=[(1, 13.2e9, 2.1e9, 1e11), (8, 13.2e9, 2.1e9, 1e11), (64, 137.4e9, 1.3e9, 2e12), (3, 20e6, 0.0, 17e9)],
    hints=[
        "How many bytes does one step read in all? How many tokens does one step give?",
        "A step reads the weights once and a cache for each sequence; bandwidth / bytes is the number of steps per "
        "second, and each step gives a token to every sequence."],
    mistakes=[
        ("those are tokens per second of one sequence; all together were asked for.",
         lambda n, w, c, b: b / (w + n * c)),
        ("the weights are read once for all sequences, not once for each.",
         lambda n, w, c, b: b / (w + c)),
        ("each sequence has a cache of its own, and all of them are read.",
         lambda n, w, c, b: n * b / (w + c)),
        ("the caches are missing.",
         lambda n, w, c, b: n * b / w),
        ("that is seconds per token; it is the other way round.",
         lambda n, w, c, b: (w + n * c) / (n * b)),
        ("those are the bytes per second for each byte read in a step: multiply the steps by the sequences, once.",
         lambda n, w, c, b: n * n * b / (w + n * c)),
    ],
    wrong_answers=[
        ("of one sequence", """
def batch_bound(sequences, weight_bytes, cache_bytes, bandwidth):
    return bandwidth / (weight_bytes + sequences * cache_bytes)"""),
        ("once for all sequences", """
def batch_bound(sequences, weight_bytes, cache_bytes, bandwidth):
    return sequences * bandwidth / (sequences * (weight_bytes + cache_bytes))"""),
        ("cache of its own", """
def batch_bound(sequences, weight_bytes, cache_bytes, bandwidth):
    return sequences * bandwidth / (weight_bytes + cache_bytes)"""),
        ("caches are missing", """
def batch_bound(sequences, weight_bytes, cache_bytes, bandwidth):
    return bandwidth / weight_bytes * sequences"""),
        ("other way round", """
def batch_bound(sequences, weight_bytes, cache_bytes, bandwidth):
    return (weight_bytes + sequences * cache_bytes) / bandwidth / sequences"""),
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
        "Along which axis does the store grow, and where does the free part begin?",
        "Assign to a slice of the store; a slice that you return is a view and copies nothing.",
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


def checked(draft, logits):
    sure = []
    for i in range(len(logits)):
        row = logits[i].tolist()
        sure.append(row.index(max(row)))
        if i < len(draft) and sure[i] != int(draft[i]):
            break
    return sure


def rows_for(*choices, vocabulary=9, seed=0):
    """Logits whose largest numbers are at these ids."""
    logits = random(len(choices), vocabulary, seed=seed)
    logits[np.arange(len(choices)), choices] += 20
    return logits


def choices(logits):
    return [int(i) for i in logits.argmax(axis=-1)]


def agreeing(draft, own):
    """How many guesses at the beginning are the large model's choices."""
    n = 0
    while n < len(draft) and draft[n] == own[n]:
        n += 1
    return n


CHECKED = Exercise(
    checked, stars=3, minutes=20,
    inputs=[
        (np.array([4, 1, 7]), rows_for(4, 1, 2, 5)), (np.array([4, 1, 7]), rows_for(4, 1, 7, 3, seed=1)),
        (np.array([6, 2, 2, 8]), rows_for(5, 2, 2, 8, 1, seed=2)), (np.array([3]), rows_for(3, 0, seed=3)),
        (np.array([1, 5, 6, 7]), rows_for(1, 4, 6, 7, 2, seed=4))],
    hints=[
        "If draft[0] is wrong, what did the large model see when it computed row 1? And is row 0 still right?",
        "Row i is right as long as all guesses before i are the large model's own choices.",
        "Go through the rows: append the row's argmax, stop after the first that differs from the draft. If none "
        "differs, the last row gives one token more."],
    mistakes=[
        ("only accepted guesses are in it; the row of the first wrong guess tells the right token, and the last row "
         "one more.",
         lambda d, l: [int(i) for i in d[:agreeing(d, choices(l))]]),
        ("the token after the draft is missing: if all guesses are right, the last row is right too.",
         lambda d, l: choices(l)[:min(agreeing(d, choices(l)) + 1, len(d))]),
        ("you went on after a wrong guess; later rows were computed from it.",
         lambda d, l: choices(l)),
        ("the wrong guess itself is in the result; the large model's choice belongs there.",
         lambda d, l: [*[int(i) for i in d[:agreeing(d, choices(l)) + 1]],
                       *choices(l)[len(d):][:agreeing(d, choices(l)) // len(d)]]),
        ("you took the last row after a wrong guess; it was computed from that guess.",
         lambda d, l: [int(i) for i in d[:agreeing(d, choices(l))]] + choices(l)[-1:]),
        ("you compared each guess with the row after it; row i is about draft[i].",
         lambda d, l: choices(l)[1:][:agreeing(d, choices(l)[1:]) + 1]),
    ],
    wrong_answers=[
        ("only accepted guesses", """
def checked(draft, logits):
    own = logits.argmax(-1)
    n = 0
    while n < len(draft) and draft[n] == own[n]:
        n += 1
    return [int(i) for i in own[:n]]"""),
        ("after the draft is missing", """
def checked(draft, logits):
    sure = []
    for guess, row in zip(draft, logits):
        sure.append(int(row.argmax()))
        if sure[-1] != guess:
            break
    return sure"""),
        ("went on after a wrong guess", """
def checked(draft, logits):
    return logits.argmax(-1).tolist()"""),
        ("last row after a wrong guess", """
def checked(draft, logits):
    own = logits.argmax(-1).tolist()
    n = 0
    while n < len(draft) and draft[n] == own[n]:
        n += 1
    return own[:n] + [own[-1]]"""),
        ("wrong guess itself", """
def checked(draft, logits):
    own, sure = logits.argmax(-1).tolist(), []
    for i, guess in enumerate(draft.tolist()):
        sure.append(guess)
        if guess != own[i]:
            return sure
    return sure + own[-1:]"""),
    ])
