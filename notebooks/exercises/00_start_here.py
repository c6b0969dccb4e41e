"""The exercises of lesson 00, for checks.py; README.md in the folder above says how to write one."""
import numpy as np
from checks import Exercise, random


def rank_of(token, logits):
    last = [float(x) for x in logits[len(logits) - 1]]
    return sorted(last, reverse=True).index(last[token]) + 1


def rank_in(row, token, larger=True, first=1):
    return int(np.sum(row > row[token] if larger else row < row[token])) + first


RANK_OF = Exercise(
    rank_of, stars=1, minutes=5,
    inputs=[
        (3, random(5, 12, seed=3)), (0, np.array([[1, 0.5, -2, 3]], np.float32)),
        (17, -np.abs(random(6, 30, seed=3)) - 1),
        (2, np.array([[9, 8, 7, 6], [2, -3, 5, -8], [0, 4, 3, -5]], np.float32)),
        (1, np.array([[0, 1, 2, 5, 4], [7, 6, 3, 4, 5]], np.float32))],
    hints=[
        "Which row of logits speaks of what follows the whole prompt? And what makes a token likelier than another?",
        "The rank is one more than the number of tokens with a larger logit in the last row.",
        "last = logits[-1]; compare last > last[token], and count with np.sum."],
    mistakes=[
        ("you took the first row; the last row is what comes after the whole prompt: logits[-1].",
         lambda token, logits: rank_in(logits[0], token)),
        ("the likeliest token has rank 1, not 0: add one to the number of likelier tokens.",
         lambda token, logits: rank_in(logits[-1], token, first=0)),
        ("you counted from the unlikeliest; rank 1 is the largest logit.",
         lambda token, logits: rank_in(logits[-1], token, larger=False)),
        ("you counted larger logits in all T rows; only the last row counts.",
         lambda token, logits: int(np.sum(logits > logits[-1, token])) + 1),
        ("np.argsort lists ids by rank; at index `token` stands another token's id, not the rank of this one.",
         lambda token, logits: int(np.argsort(-logits[-1])[token]) + 1),
        ("you returned the likeliest id; the rank of the given token was asked for.",
         lambda token, logits: int(np.argmax(logits[-1]))),
        ("you ranked by the distance from 0; a strongly negative logit is an unlikely token.",
         lambda token, logits: rank_in(np.abs(logits[-1]), token)),
    ],
    wrong_answers=[
        ("you took the first row", """
def rank_of(token, logits):
    return 1 + sum(x > logits[0][token] for x in logits[0])"""),
        ("not 0", """
def rank_of(token, logits):
    order = list(np.argsort(-logits[-1]))
    return order.index(token)"""),
        ("from the unlikeliest", """
def rank_of(token, logits):
    order = list(np.argsort(logits[-1]))
    return order.index(token) + 1"""),
        ("in all T rows", """
def rank_of(token, logits):
    return (logits > logits[-1][token]).sum() + 1"""),
        ("lists ids by rank", """
def rank_of(token, logits):
    return np.argsort(logits[-1])[::-1][token] + 1"""),
        ("returned the likeliest id", """
def rank_of(token, logits):
    return logits[-1].argmax()"""),
    ])


def try_keep_only(function, names, passed):
    """What is kept, and what the model would go on with."""
    answer = function(names)
    if answer is None or answer is ...:
        return None
    kept, tap = answer
    given = [tap(name, x) for name, x in passed]
    return given, dict(kept)


def keep_only(names):
    class Kept(dict):
        def __call__(self, name, x):
            for wanted in names:
                if wanted == name:
                    self[name] = x
            return x
    kept = Kept()
    return kept, kept


def keeping(keep, give=lambda name, names, x: x, put=lambda kept, name, x: kept.__setitem__(name, x)):
    """A wrong keep_only: what it keeps, what its tap returns, and how it stores."""
    def wrong(names):
        kept = {}

        def tap(name, x):
            if keep(name, names):
                put(kept, name, x)
            return give(name, names, x)
        return kept, tap
    return wrong


KEEP_ONLY = Exercise(
    keep_only, stars=2, minutes=10,
    run=try_keep_only,
    inputs=[
        (["norm", "layers.0.attn.q"], [("embedding", random(2, 4)), ("layers.0.attn.q", random(2, 2, 2)),
                                       ("layers.0.attn.q_rope", random(2, 2, 2, seed=1)),
                                       ("norm", random(2, 4, seed=2)),
                                       ("layers.0.attn_norm", random(2, 4, seed=3)), ("logits", random(2, 6))]),
        ([], [("embedding", random(1, 4)), ("norm", random(1, 4, seed=5))]),
        (["layers.1.ffn.out"], [("layers.1.ffn.out", random(3, 2)), ("layers.1.x_ffn", random(3, 2, seed=1)),
                                ("layers.0.ffn.out", random(3, 2, seed=2))])],
    hints=[
        "A function defined inside another one can use its variables: tap can reach the dictionary.",
        "What must tap return for a name that is in the list? And for one that is not?",
        "Return (kept, tap): tap stores x in kept[name] if name is in names, and always returns x."],
    mistakes=[
        ("the tap returns nothing, and the model goes on with None: end it with return x.",
         keeping(lambda name, names: name in names, lambda name, names, x: None)),
        ("the tap returns x only for the names that it keeps; all others become None. Move return x out of the if.",
         keeping(lambda name, names: name in names, lambda name, names, x: x if name in names else None)),
        ("it keeps every value; look whether name is in names.",
         keeping(lambda name, names: True)),
        ("it keeps names that only begin alike or are part of each other (q and q_rope); compare whole names.",
         keeping(lambda name, names: any(wanted in name for wanted in names))),
        ("it keeps the shapes; the values themselves were asked for: kept[name] = x.",
         keeping(lambda name, names: name in names, put=lambda kept, name, x: kept.__setitem__(name, x.shape))),
        ("it keeps what is not in names, and drops what is: the condition is the wrong way round.",
         keeping(lambda name, names: name not in names)),
        ("nothing is kept: kept[name] = x is missing, or fills another dictionary than the one returned.",
         keeping(lambda name, names: False)),
        ("the tap returns the dictionary; the model goes on with what the tap returns, and needs x.",
         lambda names: (lambda kept: (
             kept, lambda name, x: (kept.__setitem__(name, x) if name in names else None, kept)[1]))({})),
    ],
    wrong_answers=[
        ("the tap returns nothing", """
def keep_only(names):
    kept = {}
    def tap(name, x):
        if name in names:
            kept[name] = x
    return kept, tap"""),
        ("only for the names that it keeps", """
def keep_only(names):
    kept = {}
    def tap(name, x):
        if name in names:
            kept[name] = x
            return x
    return kept, tap"""),
        ("it keeps every value", """
def keep_only(names):
    trace = nl.Trace()
    return trace, trace"""),
        ("compare whole names", """
def keep_only(names):
    kept = {}
    def tap(name, x):
        if [n for n in names if name.startswith(n) or n in name]:
            kept.update({name: x})
        return x
    return kept, tap"""),
        ("it keeps the shapes", """
def keep_only(names):
    kept = {}
    def tap(name, x):
        if name in names:
            kept[name] = np.shape(x)
        return x
    return kept, tap"""),
        ("the wrong way round", """
def keep_only(names):
    kept = {}
    def tap(name, x):
        if name in names:
            return x
        kept[name] = x
        return x
    return kept, tap"""),
        ("nothing is kept", """
def keep_only(names):
    kept = {}
    def tap(name, x):
        kept = {}
        if name in names:
            kept[name] = x
        return x
    return kept, tap"""),
        ("returns the dictionary", """
def keep_only(names):
    kept = {}
    def tap(name, x):
        if name in names:
            kept[name] = x
        return kept
    return kept, tap"""),
    ])


def toy_forward(width, weight):
    """Logits that depend on all tokens so far: function (T,) -> (T, V)."""
    def forward(tokens):
        seen = np.cumsum([(int(token) + 2) * weight ** (i % 4) for i, token in enumerate(tokens)])
        return np.cos(np.outer(seen, np.arange(1, width + 1)) * 0.7).astype(np.float32)
    return forward


def try_continuing(function, tokens, n, forward):
    new = function(tokens, n, forward)
    return new if new is None or new is ... else list(map(int, new))


def continue_greedily(tokens, n, forward):
    if n == 0:
        return []
    last = forward(tokens)[len(tokens) - 1]
    best = max(range(len(last)), key=lambda i: last[i])
    return [best] + continue_greedily(list(tokens) + [best], n - 1, forward)


def greedily(step, steps=lambda n: n, result=lambda tokens, new: new):
    """A wrong continue_greedily: step(tokens, new, forward) is the next id."""
    def wrong(tokens, n, forward):
        new = []
        for _ in range(steps(n)):
            new.append(int(step(tokens, new, forward)))
        return result(list(tokens), new)
    return wrong


def greedy_step(tokens, new, forward):
    return np.argmax(forward(list(tokens) + new)[-1])


CONTINUE_GREEDILY = Exercise(
    continue_greedily, stars=3, minutes=15,
    run=try_continuing,
    inputs=[
        ([1, 5, 3], 6, toy_forward(11, 2)), ([4], 5, toy_forward(9, 3)), ([2, 2, 7, 1], 1, toy_forward(16, 2)),
        ([1, 2], 0, toy_forward(5, 2))],
    hints=[
        "What must go through forward for the second new token: the prompt alone, or more?",
        "forward(tokens + new) has a row for each token; which one predicts what comes next?",
        "n times: run forward on the prompt and what is new, take np.argmax of the last row, append it."],
    mistakes=[
        ("it asks about the prompt again and again: what is new must go through forward too.",
         greedily(lambda tokens, new, forward: np.argmax(forward(tokens)[-1]))),
        ("the prompt is in what you return; only the n new ids were asked for.",
         greedily(greedy_step, result=lambda tokens, new: tokens + new)),
        ("it takes the first row of the logits; the next token is predicted by the last, [-1].",
         greedily(lambda tokens, new, forward: np.argmax(forward(list(tokens) + new)[0]))),
        ("forward sees only the newest token, without what came before: it has no memory of its own.",
         greedily(lambda tokens, new, forward: np.argmax(forward(new[-1:] or tokens)[-1]))),
        ("that is one token too many: the loop runs n times.",
         greedily(greedy_step, lambda n: n + 1)),
        ("that is one token too few: the loop runs n times.",
         greedily(greedy_step, lambda n: max(n - 1, 0))),
        ("it takes the least likely token (np.argmin); np.argmax is the likeliest.",
         greedily(lambda tokens, new, forward: np.argmin(forward(list(tokens) + new)[-1]))),
        ("the new tokens go in front of the prompt; they belong behind it.",
         greedily(lambda tokens, new, forward: np.argmax(forward(new[::-1] + list(tokens))[-1]))),
        ("forward runs once, and you take the last n rows: each new token needs a run of its own.",
         lambda tokens, n, forward: forward(tokens)[-n:].argmax(-1) if n else []),
    ],
    wrong_answers=[
        ("about the prompt again and again", """
def continue_greedily(tokens, n, forward):
    out = []
    for _ in range(n):
        logits = forward(tokens)
        out += [logits[-1].argmax()]
    return out"""),
        ("the prompt is in what you return", """
def continue_greedily(tokens, n, forward):
    for _ in range(n):
        tokens = tokens + [int(forward(tokens)[-1].argmax())]
    return tokens"""),
        ("the first row of the logits", """
def continue_greedily(tokens, n, forward):
    text = list(tokens)
    for _ in range(n):
        text.append(np.argmax(forward(text)[0]))
    return text[len(tokens):]"""),
        ("only the newest token", """
def continue_greedily(tokens, n, forward):
    out, ids = [], tokens
    for _ in range(n):
        ids = [np.argmax(forward(ids)[-1])]
        out += ids
    return out"""),
        ("one token too many", """
def continue_greedily(tokens, n, forward):
    out = [forward(tokens)[-1].argmax()]
    while len(out) <= n:
        out.append(forward(tokens + out)[-1].argmax())
    return out"""),
        ("one token too few", """
def continue_greedily(tokens, n, forward):
    out = []
    for _ in range(1, n):
        out.append(forward(tokens + out)[-1].argmax())
    return out"""),
        ("the least likely token", """
def continue_greedily(tokens, n, forward):
    out = []
    for _ in range(n):
        out.append(np.argsort(forward(tokens + out)[-1])[0])
    return out"""),
        ("in front of the prompt", """
def continue_greedily(tokens, n, forward):
    text = list(tokens)
    for _ in range(n):
        text.insert(0, np.argmax(forward(text)[-1]))
    return text[:n][::-1]"""),
        ("changes the arrays", """
def continue_greedily(tokens, n, forward):
    for _ in range(n):
        tokens.append(int(forward(tokens)[-1].argmax()))
    return tokens[len(tokens) - n:]"""),
        ("each new token needs a run of its own", """
def continue_greedily(tokens, n, forward):
    logits = forward(tokens)
    return [row.argmax() for row in logits][len(logits) - n:] if n else []"""),
    ])
