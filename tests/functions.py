"""One function at a time, for ports that cannot run a model yet: rms_norm, rope, softmax, silu, attention,
feed_forward, block, next_token_probs.

Inputs and PyTorch's outputs are in tests/reference/functions. A case becomes a run of a model of one layer in which
what the function gets is given instead of computed, so that the judge and the bug zoo work on it as on a whole model.
"""
from dataclasses import replace

import bugs
import numpy as np
from bugs import Bug, Run
from dumps import DTYPES, Tensor, by_position, from_interleaved, joined, open_dump, read_entry, shorten, unusable

import numpy_llama as nl
from numpy_llama import InputError

OUTPUTS = {     # the name of each output -> where it stands in the trace
    "rms_norm": {"out": "layers.0.attn_norm"},
    "rope": {"out": "layers.0.attn.q_rope"},
    "softmax": {"out": "layers.0.attn.probs"},
    "silu": {"out": "layers.0.ffn.silu"},
    "attention": {"scores": "layers.0.attn.scores", "probs": "layers.0.attn.probs", "out": "layers.0.attn.heads"},
    "feed_forward": {**{name: f"layers.0.ffn.{name}" for name in ("gate", "silu", "up", "hidden", "out")}},
    "block": {name.removeprefix("layers.0."): name for name in bugs.names_of(1) if name.startswith("layers")},
    "next_token_probs": {"out": "norm"},                  # no part of the trace: what is judged is a row of numbers
}
MAIN = {"block": "x_ffn"}                                 # the output that a case's name alone stands for, if not "out"
OVERFLOW = {
    "softmax": "exp overflows above 88 in float32: subtract each row's largest number first.",
    "silu": "exp overflows above 88 in float32: x / (1 + exp(-x)) is right where exp(-x) is infinite, "
            "x * exp(x) / (1 + exp(x)) is not.",
}


def read_cases(function, folder):
    """{case: {name: array}} of a file of tests/reference/functions."""
    from safetensors.numpy import load_file
    if function not in OUTPUTS:
        raise InputError(f"there is no function {shorten(function)}; there are {', '.join(OUTPUTS)}")
    cases = {}
    for name, x in load_file(folder / f"{function}.safetensors").items():
        case, _, part = name.partition(".")
        cases.setdefault(case, {})[part] = x
    return cases


# ---- A case as a run ---------------------------------------------------------------------------------------------

def one_layer(T, D=1, H=1, G=1, d=2, F=1, eps=1e-5, theta=1e4, start=0, weights=(), embedding=None, **run):
    """A Run of T tokens through one layer; weights that are not given are zeros."""
    layer = {"attn_norm": np.zeros(D, np.float32), "ffn_norm": np.zeros(D, np.float32),
             "attn": {"wq": (D, H * d), "wk": (D, G * d), "wv": (D, G * d), "wo": (H * d, D)},
             "ffn": {"gate": (D, F), "up": (D, F), "down": (F, D)}}
    weights = dict(weights)
    for part in ("attn", "ffn"):
        layer[part] = {name: weights.get(name, np.zeros(shape, np.float32)) for name, shape in layer[part].items()}
    layer |= {name: weights[name] for name in ("attn_norm", "ffn_norm") if name in weights}
    rows = np.zeros((T, D), np.float32) if embedding is None else embedding
    config = nl.Config(D, 1, H, G, F, T, start + T, float(eps), float(theta), d)
    model = {"embedding": rows, "layers": [layer], "norm": np.ones(D, np.float32),
             "output": np.zeros((D, T), np.float32)}
    return Run(tuple(range(T)), model, config, **{"chunks": (T,), "start": start} | run)


def run_of(function, values):
    """The Run of one case, from its inputs."""
    v = values
    until = list(OUTPUTS[function].values())[-1]
    if function == "rms_norm":
        return one_layer(*v["x"].shape, eps=v["eps"][0], embedding=v["x"], weights={"attn_norm": v["weight"]},
                         until=until)
    if function == "rope":
        heads, T, d = v["x"].shape
        return one_layer(T, H=heads, G=heads, d=d, theta=v["theta"][0], start=int(v["positions"][0]), until=until,
                         given={"layers.0.attn.q": v["x"]})
    if function == "softmax":
        return one_layer(len(v["x"]), until=until, given={"layers.0.attn.scores": v["x"][None]})
    if function == "silu":
        return one_layer(*v["x"].shape[:1], F=v["x"].shape[1], until=until, given={"layers.0.ffn.gate": v["x"]})
    if function == "attention":
        (H, T, d), (G, S, _) = v["q"].shape, v["k"].shape
        cached = np.zeros((H, S - T, d), np.float32)      # queries of earlier positions are not used
        q = np.concatenate([cached, v["q"]], axis=1)
        given = {"layers.0.attn.q_rope": q, "layers.0.attn.k_rope": v["k"], "layers.0.attn.v": v["v"]}
        return one_layer(S, H * d, H, G, d, chunks=tuple(filter(None, (S - T, T))), until=until, given=given)
    matrices = {name.removesuffix(".weight"): x.T if x.ndim == 2 else x for name, x in v.items() if "weight" in name}
    if function == "feed_forward":
        (T, D), F = v["x"].shape, matrices["gate"].shape[1]
        return one_layer(T, D, F=F, weights=matrices, until=until, given={"layers.0.ffn_norm": v["x"]})
    if function == "block":
        (S, D), d, cached = v["x"].shape, int(v["head_dim"][0]), int(v["cached"][0])
        H, G = (matrices[name].shape[1] // d for name in ("wq", "wk"))
        return one_layer(S, D, H, G, d, matrices["gate"].shape[1], v["eps"][0], v["theta"][0], embedding=v["x"],
                         weights=matrices, chunks=tuple(filter(None, (cached, S - cached))), until=until)
    probs = nl.next_token_probs(v["logits"], *settings(v))
    return one_layer(1, D=len(probs), until=until, given={"norm": probs[None]})


def settings(v):
    return float(v["temperature"][0]), int(v["top_k"][0]), float(v["top_p"][0])


def prepared(function, case, values):
    """A case's values with queries and keys as halves, as they are in the run."""
    if function == "rope" and case.startswith("pairs"):
        return values | {name: from_interleaved(values[name]) for name in ("x", "out")}
    if function == "block" and case.endswith("pairs"):
        d = int(values["head_dim"][0])
        halves = {name: nl.interleaved_to_halves(values[name], d) for name in ("wq.weight", "wk.weight")}
        return values | halves | {name: from_interleaved(values[name]) for name in OUTPUTS["block"]
                                  if name.endswith((".q", ".k", "_rope"))}
    return values


class InGivenOrder(Tensor):
    """A tensor whose order of pairs is part of what is asked."""

    @property
    def may_be_interleaved(self):
        return False


def tensors_of(function, case, values, path):
    """The dump's tensors of one case, [Tensor], in order of computation."""
    found, outputs = [], OUTPUTS[function]
    for name, group in by_position(open_dump(path)).items():
        if name.partition(".")[0] != case:
            continue
        part = name.partition(".")[2] or MAIN.get(function, "out")
        if part not in outputs:
            continue
        if unusable(group):
            raise InputError(f"{path}: {shorten(name)} {unusable(group)}")
        x, kind = joined([read_entry(entry, path) for entry in group], outputs[part]), Tensor
        right = values[part]
        if function == "rope":
            kind = InGivenOrder
            if case.startswith("pairs") and x.size == right.size:
                x = from_interleaved(x.reshape(right.shape))
        found.append(kind(outputs[part], name, DTYPES[group[0].dtype], x))
    order = list(outputs.values())
    return sorted(found, key=lambda tensor: order.index(tensor.name))


# ---- Cases together ----------------------------------------------------------------------------------------------

def under_case(report, case, parts):
    """The report on one case, with the names of the case in place of those of the trace."""
    for row in report.rows:
        row.name = row.theirs = f"{case}.{parts[row.name]}"
        if row.where and "token" in row.where:
            row.where["token"] = None
    if report.diagnosis:
        diagnosis = report.diagnosis
        diagnosis.first, diagnosis.until, diagnosis.contradicted_by = (
            name and f"{case}.{parts[name]}" for name in (diagnosis.first, diagnosis.until, diagnosis.contradicted_by))
        for cause in diagnosis.explanations:
            for name in sorted(parts, key=len, reverse=True):
                cause.what = cause.what.replace(name, f"{case}.{parts[name]}")
    return report


def common_diagnosis(reports):
    """The Diagnosis of the first case that is wrong, with what every other wrong case allows, or None."""
    found = [report.diagnosis for report in reports if report.diagnosis]
    if not found:
        return None
    first, *others = found
    names = {cause.name for cause in first.found}
    for other in others:
        both = names & {cause.name for cause in other.found}
        if not both:
            return replace(first, until=first.until or other.first)
        names = both
    return replace(first, found=[cause for cause in first.found if cause.name in names])


def overflows(function, rows):
    """A sentence on NaN where exp is the likely reason."""
    return [OVERFLOW[function]] if function in OVERFLOW and any(row.verdict == "NaN" for row in rows) else []


# ---- Mistakes in one function that no whole model shows ------------------------------------------------------------

def zoo_of(function, case, values):
    """The bugs that can show in a function: those of the zoo that begin in it, and some of its own."""
    begin = set(OUTPUTS[function].values())
    found = [bug for bug in bugs.BUGS if bug.first in begin]
    if function == "rope" and case.startswith("pairs"):
        found.append(Bug(
            "rope-halves", "layers.0.attn.q_rope",
            "halves (x_i, x_i+d/2) are rotated, though pairs are neighbours here",
            "fluent for about twenty tokens, then gibberish",
            "rotate neighbours (x_2i, x_2i+1), or reorder the rows of wq and wk",
            taps=bugs.ropes(lambda x, p, f, at: from_interleaved(bugs.turn(interleaved(x), p[:, None] * f)))))
    if function == "next_token_probs":
        return [Bug(name, "norm", what, symptom, fix, change=instead(wrong(values["logits"].astype(np.float64),
                                                                           *settings(values))))
                for name, wrong, what, symptom, fix in SAMPLING_BUGS]
    return found


def interleaved(x):
    """Halves to neighbours: the other way round than from_interleaved."""
    return np.stack(np.split(x, 2, axis=-1), axis=-1).reshape(x.shape)


def instead(probs):
    """A change of the run to these probabilities, where they are others."""
    def change(run):
        given = {"norm": probs[None]}
        same = np.allclose(probs, run.given["norm"][0], rtol=0, atol=1e-9)
        return None if same else replace(run, given=given)

    return change


def kept(probs, keep, again=True):
    probs = np.where(keep, probs, 0)
    return probs / probs.sum() if again else probs


def likeliest(probs, p, crossing=True):
    """Which tokens the likeliest are that hold p together, with the one that crosses p or without it."""
    order = np.argsort(-probs, kind="stable")
    sums = np.cumsum(probs[order])
    keep = np.zeros(len(probs), bool)
    keep[order[(sums - probs[order] if crossing else sums) < p]] = True
    keep[order[0]] = True
    return keep


def top(probs, k):
    return probs >= np.sort(probs)[-min(k or len(probs), len(probs))]


def heated(logits, t):
    return nl.next_token_probs(logits, t)


SAMPLING_BUGS = [
    ("temperature-multiplied", lambda x, t, k, p: nl.next_token_probs(x * t * t if t else x, t, k, p),
     "logits are multiplied by the temperature", "a low temperature makes text wilder",
     "divide logits by the temperature"),
    ("temperature-ignored", lambda x, t, k, p: nl.next_token_probs(x, 1.0, k, p),
     "the temperature is ignored", "no temperature changes the text", "divide logits by the temperature; 0 is greedy"),
    ("top-k-ignored", lambda x, t, k, p: nl.next_token_probs(x, t, 0, p),
     "top_k is ignored", "rare, odd words", "keep the k largest logits, and set the others to -infinity"),
    ("top-p-ignored", lambda x, t, k, p: nl.next_token_probs(x, t, k, 1.0),
     "top_p is ignored", "rare, odd words", "keep the likeliest tokens that hold p together"),
    ("top-p-drops-the-crossing-token", lambda x, t, k, p: kept(
        heated(x, t) * top(heated(x, t), k), likeliest(kept(heated(x, t), top(heated(x, t), k)), p, crossing=False)),
     "the token with which the sum reaches top_p is dropped", "flatter text than asked for",
     "keep tokens while the sum before them is below top_p"),
    ("top-p-before-top-k", lambda x, t, k, p: kept(heated(x, t), likeliest(heated(x, t), p) & top(heated(x, t), k)),
     "top_p is taken from all tokens, not from those that top_k keeps", "hardly visible",
     "first top_k, then a new softmax, then top_p"),
    ("top-p-before-temperature", lambda x, t, k, p: kept(
        heated(x, t), likeliest(heated(x, 1.0), p) & top(heated(x, t), k)),
     "top_p is taken before the temperature", "another temperature keeps the same tokens",
     "divide by the temperature first, then top_k, then top_p"),
    ("not-normalised", lambda x, t, k, p: kept(heated(x, t), nl.next_token_probs(x, t, k, p) > 0, again=False),
     "what top_k and top_p keep is not made to sum to 1 again", "the last token of the list is drawn too often",
     "divide by the sum of what is kept"),
]
