"""The exercises of lesson 12, for checks.py; README.md in the folder above says how to write one."""
import math

from checks import Exercise, Sizes


def gpus_needed(parameters, tokens, flops, days):
    n, done = 0, 0.0
    while done < 6.0 * parameters * tokens:
        n += 1
        done = n * flops * days * 24 * 60 * 60
    return n


def gpus_with(factor=6, seconds=86400, whole=math.ceil):
    return lambda N, T, flops, days: whole(factor * N * T / (flops * days * seconds))


GPUS_NEEDED = Exercise(
    gpus_needed, stars=1, minutes=5, tolerance=1e-9,     # a count, but a mistake is a fraction
    inputs=[(7e9, 1e12, 1.36e14, 30), (65e9, 1.4e12, 1.49e14, 21), (5.8e6, 31e6, 5e10, 1), (1e9, 2e10, 1e14, 10)],
    hints=[
        "How many FLOPs does the training take, and how many does one GPU do in so many days?",
        "6 * parameters * tokens, divided by flops * days * 86400, rounded up."],
    mistakes=[
        ("that is not a whole number; round up, as a part of a GPU must be a whole one.",
         gpus_with(whole=lambda x: x)),
        ("you rounded down: with that many the time is not enough.",
         gpus_with(whole=math.floor)),
        ("you rounded to the nearest; up is what is enough.",
         gpus_with(whole=round)),
        ("2 FLOPs for each weight and token are the forward pass; the backward pass adds 4.",
         gpus_with(2)),
        ("4 FLOPs for each weight and token are the backward pass; the forward pass adds 2.",
         gpus_with(4)),
        ("a day has 86,400 seconds; `flops` counts those of one second.",
         gpus_with(seconds=1)),
        ("you counted 3,600 seconds: those of an hour.",
         gpus_with(seconds=3600)),
    ],
    wrong_answers=[
        ("not a whole number", """
def gpus_needed(parameters, tokens, flops, days):
    return 6 * parameters * tokens / flops / days / 86400"""),
        ("rounded down", """
def gpus_needed(parameters, tokens, flops, days):
    return int(6 * parameters * tokens / (flops * days * 86400))"""),
        ("the backward pass adds 4", """
def gpus_needed(parameters, tokens, flops, days):
    return int(np.ceil(2 * parameters * tokens / (flops * days * 86400)))"""),
        ("those of one second", """
def gpus_needed(parameters, tokens, flops, days):
    return math.ceil(6 * parameters * tokens / (flops * days))"""),
        ("those of an hour", """
def gpus_needed(parameters, tokens, flops, days):
    return math.ceil(6 * parameters * tokens / (flops * days * 60 * 60))"""),
    ])


def different_tokens(tokens, sources, stated):
    total = 0.0
    for share, epochs in sources.values():
        drawn = tokens * share / 100
        read = epochs * tokens / stated                   # epochs in this run
        total += drawn / read if read > 1 else drawn
    return total


def different_with(each):
    return lambda tokens, sources, stated: sum(each(tokens, s / 100, e, stated) for s, e in sources.values())


DIFFERENT_TOKENS = Exercise(
    different_tokens, stars=2, minutes=15,
    inputs=[
        (1.0e12, {"web": (67.0, 1.10), "code": (4.5, 0.64), "books": (28.5, 2.23)}, 1.4e12),
        (3.0e12, {"web": (67.0, 1.10), "code": (4.5, 0.64), "books": (28.5, 2.23)}, 1.4e12),
        (100.0, {"a": (50.0, 1.0), "b": (50.0, 2.0)}, 100.0),
        (10.0, {"a": (100.0, 0.5)}, 40.0)],
    hints=[
        "How many tokens does a source hold? And how many did this run draw from it?",
        "It holds share / 100 * stated / epochs tokens; this run drew share / 100 * tokens. Which of the two is new?",
        "For each source the smaller of the two, min(size, drawn); add them up."],
    mistakes=[
        ("a run that draws less than a source holds has not seen all of it: take what was drawn.",
         different_with(lambda t, s, e, u: s * u / e)),
        ("the epochs are missing: what is read twice is not different the second time.",
         different_with(lambda t, s, e, u: s * t)),
        ("the epochs are those of a run of `stated` tokens; this run has others.",
         different_with(lambda t, s, e, u: s * t / max(e, 1))),
        ("you scaled the epochs the wrong way: a shorter run reads a source less often.",
         different_with(lambda t, s, e, u: s * t / max(e * u / t, 1))),
        ("that is the run of `stated` tokens; `tokens` is how long this one is.",
         different_with(lambda t, s, e, u: s * u / max(e, 1))),
        ("you multiplied by the epochs; a source that is read more often is smaller.",
         different_with(lambda t, s, e, u: min(s * t, s * u * e))),
        ("the shares are in percent: divide by 100.",
         different_with(lambda t, s, e, u: 100 * min(s * t, s * u / e))),
        ("you counted the sources that were read more than once only.",
         different_with(lambda t, s, e, u: s * u / e if e * t / u > 1 else 0)),
    ],
    wrong_answers=[
        ("has not seen all of it", """
def different_tokens(tokens, sources, stated):
    return sum(stated * s / 100 / e for s, e in sources.values())"""),
        ("epochs are missing", """
def different_tokens(tokens, sources, stated):
    return tokens * sum(s for s, e in sources.values()) / 100"""),
        ("this run has others", """
def different_tokens(tokens, sources, stated):
    return sum(tokens * s / 100 / max(1, e) for s, e in sources.values())"""),
        ("divide by 100", """
def different_tokens(tokens, sources, stated):
    return sum(min(tokens * s, stated * s / e) for s, e in sources.values())"""),
        ("the run of `stated` tokens", """
def different_tokens(tokens, sources, stated):
    return sum(min(stated * s / 100, stated * s / 100 / e) for s, e in sources.values())"""),
        ("the wrong way", """
def different_tokens(tokens, sources, stated):
    total = 0
    for share, epochs in sources.values():
        read = epochs * stated / tokens
        total += share / 100 * tokens / max(read, 1)
    return total"""),
    ])


def count_relative(config):
    c = config
    shapes = [(c.vocab_size, c.dim), (c.dim, 1)]
    for _ in range(c.n_layers):
        shapes += [(c.dim + 1, c.n_heads * c.head_dim), (c.n_heads * c.head_dim, c.dim)]           # + 1: the bias
        shapes += [(c.dim + 1, c.n_kv_heads * c.head_dim)] * 2 + [(c.dim, c.hidden_dim)] * 3 + [(c.dim, 1)] * 2
    return sum(n * m for n, m in shapes)


def count_with(tables=1, kv=lambda c: c.n_kv_heads * c.head_dim, q=lambda c: c.n_heads * c.head_dim, ffn=3, norms=2,
               last=1, bias=lambda c: (c.n_heads + 2 * c.n_kv_heads) * c.head_dim):
    return lambda c: (tables * c.vocab_size * c.dim + last * c.dim + c.n_layers * (
        2 * c.dim * (q(c) + kv(c)) + ffn * c.dim * c.hidden_dim + norms * c.dim + bias(c)))


COUNT_RELATIVE = Exercise(
    count_relative, stars=2, minutes=10,
    tolerance=0,
    inputs=[
        (Sizes(4096, 32, 32, 32, 11008, 32000, 128),), (Sizes(8192, 80, 64, 8, 28672, 32000, 128),),
        (Sizes(256, 6, 8, 2, 704, 3072, 32),), (Sizes(64, 3, 4, 1, 176, 100, 24),)],
    hints=[
        "Begin with Llama's own formula. Which part is there only once now, and what does each layer get?",
        "A bias has as many numbers as the product has columns: H * d for wq, G * d for wk and for wv.",
        "V * D once; per layer wq, wk, wv, wo, three of D * F, two norms, and (H + 2 G) * d biases; "
        "one norm at the end."],
    mistakes=[
        ("that is Llama: the biases are missing, and the vocabulary counts once.",
         count_with(2, bias=lambda c: 0)),
        ("embedding and output are one matrix: V * D counts once.",
         count_with(2)),
        ("the biases are missing: one number for each column of wq, wk and wv.",
         count_with(bias=lambda c: 0)),
        ("wo has no bias: only wq, wk and wv have one.",
         count_with(bias=lambda c: (c.n_heads + 2 * c.n_kv_heads) * c.head_dim + c.dim)),
        ("the biases of wk and wv have G * d numbers, not H * d.",
         count_with(bias=lambda c: 3 * c.n_heads * c.head_dim)),
        ("wq, wk and wv have a bias each; you counted one for wk and wv together.",
         count_with(bias=lambda c: (c.n_heads + c.n_kv_heads) * c.head_dim)),
        ("you took D for H * d; the two can differ.",
         count_with(q=lambda c: c.dim)),
        ("wk and wv have G heads, not H.",
         count_with(kv=lambda c: c.n_heads * c.head_dim)),
        ("the last norm, before the output, is missing: D more.",
         count_with(last=0)),
    ],
    wrong_answers=[
        ("that is Llama", """
def count_relative(config):
    return sum(nl.parameter_counts(config).values())"""),
        ("counts once", """
def count_relative(config):
    biases = config.n_layers * (config.n_heads + 2 * config.n_kv_heads) * config.head_dim
    return sum(nl.parameter_counts(config).values()) + biases"""),
        ("the biases are missing: one", """
def count_relative(config):
    return sum(nl.parameter_counts(config, tied=True).values())"""),
        ("not H * d", """
def count_relative(config):
    biases = 3 * config.n_layers * config.n_heads * config.head_dim
    return sum(nl.parameter_counts(config, tied=True).values()) + biases"""),
        ("wo has no bias", """
def count_relative(config):
    c = config
    biases = (c.n_heads + 2 * c.n_kv_heads) * c.head_dim + c.dim
    return sum(nl.parameter_counts(c, tied=True).values()) + c.n_layers * biases"""),
    ])
