"""The exercises of lesson 12, for checks.py; README.md in the folder above says how to write one."""
import numpy as np
from checks import Exercise, Sizes


def training_days(tokens, gpus, tokens_per_second):
    per_day = sum(tokens_per_second * 60 * 60 for _ in range(24)) * gpus
    return tokens / per_day


def days_with(per_day=86400, gpus=lambda n: n, scale=1):
    return lambda tokens, n, speed: scale * tokens / (gpus(n) * speed) / per_day


TRAINING_DAYS = Exercise(
    training_days, stars=1, minutes=5,
    inputs=[
        (1.4e12, 2048, 380.0), (1e9, 1, 100.0), (2e12, 1024, 3000.0)],
    hints=[
        "Tokens divided by all GPUs' tokens per second, and by the 86,400 seconds of a day."],
    mistakes=[
        ("those are seconds; a day has 86,400 of them.",
         days_with(1)),
        ("those are hours; a day has 24 of them.",
         days_with(3600)),
        ("those are GPU-days; the GPUs work at the same time.",
         days_with(gpus=lambda n: 1)),
        ("those are GPU-hours; the days of the whole run were asked for.",
         days_with(3600, lambda n: 1)),
        ("you multiplied by the number of GPUs; more of them take less time.",
         days_with(gpus=lambda n: 1 / n)),
        ("that is the inverse: how much of the run is done in a day.",
         lambda t, n, s: n * s * 86400 / t),
    ],
    wrong_answers=[
        ("those are seconds", """
def training_days(tokens, gpus, tokens_per_second):
    return tokens / tokens_per_second / gpus"""),
        ("those are hours", """
def training_days(tokens, gpus, tokens_per_second):
    return tokens / (gpus * tokens_per_second) / 3600"""),
        ("those are GPU-days", """
def training_days(tokens, gpus, tokens_per_second):
    return tokens / tokens_per_second / 86400"""),
        ("take less time", """
def training_days(tokens, gpus, tokens_per_second):
    return tokens / tokens_per_second / 86400 * gpus"""),
        ("that is the inverse", """
def training_days(tokens, gpus, tokens_per_second):
    return gpus * tokens_per_second * 24 * 3600 / tokens"""),
    ])


def different_tokens(tokens, sources):
    total = 0.0
    for share, epochs in sources.values():
        drawn = tokens * share / 100
        total += drawn / epochs if epochs > 1 else drawn
    return total


def different_with(each):
    return lambda tokens, sources: sum(each(tokens, share, epochs) for share, epochs in sources.values())


DIFFERENT_TOKENS = Exercise(
    different_tokens, stars=2, minutes=10,
    inputs=[
        (1.4e12, {"web": (67.0, 1.10), "code": (4.5, 0.64), "books": (28.5, 2.23)}),
        (100.0, {"a": (50.0, 1.0), "b": (50.0, 2.0)}),
        (10.0, {"a": (100.0, 0.5)})],
    hints=[
        "For each source share / 100 * tokens, divided by its epochs if it was read more than once; add them up."],
    mistakes=[
        ("a source read 0.64 times has not shown more than was drawn of it: divide by the epochs only above 1.",
         different_with(lambda t, s, e: s / 100 * t / e)),
        ("the epochs are missing: what is read twice is not different the second time.",
         different_with(lambda t, s, e: s / 100 * t)),
        ("you multiplied by the epochs; reading more often makes for fewer different tokens.",
         different_with(lambda t, s, e: s / 100 * t * max(e, 1))),
        ("the shares are in percent: divide by 100.",
         different_with(lambda t, s, e: s * t / max(e, 1))),
        ("you took the mean of the epochs over all sources; each source has its own.",
         lambda t, sources: t / np.mean([max(e, 1) for _, e in sources.values()])),
        ("you counted the sources that were read more than once only.",
         different_with(lambda t, s, e: s / 100 * t / e if e > 1 else 0)),
    ],
    wrong_answers=[
        ("only above 1", """
def different_tokens(tokens, sources):
    return sum(tokens * s / 100 / e for s, e in sources.values())"""),
        ("epochs are missing", """
def different_tokens(tokens, sources):
    return tokens * sum(s for s, e in sources.values()) / 100"""),
        ("divide by 100", """
def different_tokens(tokens, sources):
    return sum(tokens * s / max(1, e) for s, e in sources.values())"""),
        ("multiplied by the epochs", """
def different_tokens(tokens, sources):
    return sum(tokens * s / 100 * max(1, e) for s, e in sources.values())"""),
        ("each source has its own", """
def different_tokens(tokens, sources):
    epochs = [max(1, e) for s, e in sources.values()]
    return tokens / (sum(epochs) / len(epochs))"""),
    ])


def count_parameters(config):
    c = config
    matrices = [(c.vocab_size, c.dim), (c.dim, c.vocab_size), (c.dim, 1)]
    for _ in range(c.n_layers):
        matrices += [(c.dim, c.n_heads * c.head_dim), (c.n_heads * c.head_dim, c.dim)]
        matrices += [(c.dim, c.n_kv_heads * c.head_dim)] * 2 + [(c.dim, c.hidden_dim)] * 3 + [(c.dim, 1)] * 2
    return sum(n * m for n, m in matrices)


def count_with(vocabulary=2, kv=lambda c: c.n_kv_heads * c.head_dim, q=lambda c: c.n_heads * c.head_dim, ffn=3, norms=2,
               last=1, layers=True):
    return lambda c: (vocabulary * c.vocab_size * c.dim + last * c.dim + (c.n_layers if layers else 1)
                      * (2 * c.dim * (q(c) + kv(c)) + ffn * c.dim * c.hidden_dim + norms * c.dim))


COUNT_PARAMETERS = Exercise(
    count_parameters, stars=3, minutes=15,
    tolerance=0,
    inputs=[
        (Sizes(4096, 32, 32, 32, 11008, 32000, 128),), (Sizes(8192, 80, 64, 8, 28672, 32000, 128),),
        (Sizes(256, 6, 8, 2, 704, 3072, 32),), (Sizes(64, 3, 4, 1, 176, 100, 24),)],
    hints=[
        "Embedding and output V * D each; per layer wq, wk, wv, wo, three of D * F, two norms; one norm at the end."],
    mistakes=[
        ("output is missing: it is not shared with the embedding.",
         count_with(1)),
        ("embedding and output are missing, V * D each.",
         count_with(0)),
        ("wk and wv have G heads, not H.",
         count_with(kv=lambda c: c.n_heads * c.head_dim)),
        ("you took D for H * d in wq and wo; the two can differ.",
         count_with(q=lambda c: c.dim)),
        ("the feed-forward step has three matrices, not two.",
         count_with(ffn=2)),
        ("the norms of the layers are missing: two of D each.",
         count_with(norms=0)),
        ("each layer has two norms, not one.",
         count_with(norms=1)),
        ("the last norm, before the output, is missing: D more.",
         count_with(last=0)),
        ("all norms are missing: two in each layer, and one at the end.",
         count_with(norms=0, last=0)),
        ("that is one layer; there are L.",
         count_with(layers=False)),
    ],
    wrong_answers=[
        ("output is missing", """
def count_parameters(config):
    return sum(nl.parameter_counts(config, tied=True).values())"""),
        ("G heads, not H", """
def count_parameters(config):
    c = config
    return (2 * c.vocab_size + 1) * c.dim + c.n_layers * (
        4 * c.dim * c.n_heads * c.head_dim + 3 * c.dim * c.hidden_dim + 2 * c.dim)"""),
        ("three matrices, not two", """
def count_parameters(config):
    c = config
    return sum(nl.parameter_counts(c).values()) - c.n_layers * c.dim * c.hidden_dim"""),
        ("all norms are missing", """
def count_parameters(config):
    counts = nl.parameter_counts(config)
    return sum(n for part, n in counts.items() if part != "norms")"""),
        ("last norm", """
def count_parameters(config):
    return sum(nl.parameter_counts(config).values()) - config.dim"""),
        ("that is one layer", """
def count_parameters(config):
    c = config
    layer = 2 * c.dim * (c.n_heads + c.n_kv_heads) * c.head_dim + 3 * c.dim * c.hidden_dim + 2 * c.dim
    return 2 * c.vocab_size * c.dim + layer + c.dim"""),
    ])
