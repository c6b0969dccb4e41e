"""Why a dump differs: the bug of the zoo that reproduces it, or else what its numbers say by themselves.

A bug is named only if it is clearly nearer to the dump than the right run is, and no earlier tensor contradicts it.
Where no bug fits, the first wrong tensor is explained from the right values before it: which weights, which scale,
which angle, which slot, which order would give these numbers. An explanation is a sentence that was checked: it
reproduces the tensor as exactly as rounding allows.
"""
import functools
import itertools
import math
from dataclasses import dataclass, field, replace

import bugs
import numpy as np
from bugs import names_of
from judge import (
    CLEARLY,
    FLOOR,
    HALVES,
    MASKED,
    META,
    NOISE,
    difference,
    largest,
    not_finite,
    readings_of,
    rms,
    unmasked,
    which,
)

import numpy_llama as nl


@dataclass
class Cause:
    """Something that gives the dump's numbers. `what` completes "X equals what you get when ..."."""
    name: str                                             # of the bug; "" for an explanation
    what: str
    symptom: str = ""
    fix: str = ""


@dataclass
class Diagnosis:
    """What is known about the first tensor that differs."""
    first: str                                            # where it begins: compared in float64, if that tells
    found: list = field(default_factory=list)             # bugs that cannot be told apart
    explanations: list = field(default_factory=list)      # where no bug fits
    until: str = None                                     # the first tensor that the bug does not explain
    in_float64: bool = False                              # it took float64 to see it, or to tell it from others
    times_nearer: float = None                            # than the right run, where rounding hides the bug
    contradicted_by: str = None                           # a right tensor that the bug would have changed too
    closest: Cause = None


def causes(candidates):
    return [Cause(c.bug.name, c.bug.what, c.bug.symptom, c.bug.fix) for c in candidates]


# ---- Which bug -----------------------------------------------------------------------------------------------

def diagnose(tensors, rows, right, candidates):
    """The Diagnosis of a dump of which something differs."""
    names, by_name = names_of(right.run.config.n_layers), {tensor.name: tensor for tensor in tensors}
    wrong = next((i for i, row in enumerate(rows) if row.wrong), None)
    shapes = [i for i, row in enumerate(rows) if row.verdict == "shape"]
    if 2 * len(shapes) > len(rows):                       # other tokens, or nothing we know
        wrong = shapes[0]
        candidates = [c for c in candidates if c.applies and len(c.bug.apply(c.run).tokens) != len(c.run.tokens)]
    before = [t for t, row in zip(tensors[:wrong], rows) if row.verdict == "ok"]
    good = [t for t, row in zip(tensors, rows) if row.verdict == "ok"]
    rest = [t for t, row in zip(tensors[wrong:], rows[wrong:]) if row.verdict == "ok" or t is tensors[wrong] or (
        row.verdict in ("differs", "NaN", rows[wrong].verdict) and np.isfinite(t.x).any())]
    first = rest[0]

    def could_change(c, tensor):
        return names.index(tensor.name) >= names.index(c.bug.first)

    @functools.cache
    def to_right(name):
        return right.distance(by_name[name])

    def contradiction(c, tensors):
        """The first of these tensors that is right, where the bug would have changed it."""
        for t in tensors:
            if could_change(c, t) and not np.array_equal(c.exact(t.name), right.exact(t.name)) and (
                    not c.agrees(t) or to_right(t.name) < CLEARLY * c.distance(t)):
                return t.name
        return None

    suspects = [c for c in candidates if c.applies and could_change(c, first)]
    if not first.name.startswith(("embedding", "layers.0.")):      # spares long runs: most bugs show in layer 0
        early = [t for t in before if t.name.startswith("layers.0.")]
        suspects = [c for c in suspects if not contradiction(c, early[:1] + early[-1:])]
    explains = [c for c in suspects if c.agrees(first) and changes(c, right, first)
                and c.distance(first) < CLEARLY * to_right(first.name)]
    against = {c: contradiction(c, good) for c in explains}
    matching = [c for c in explains if against[c] is None]
    result = Diagnosis(first.name)
    if not matching:
        result.explanations = explain(first, tensors, rows, right, before)
        if explains and not result.explanations:
            result.found = causes(explains[:1])
            result.contradicted_by = against[explains[0]]
        elif not result.explanations:
            near = min((c for c in suspects if c.distance(first, exact=False) < 0.3 * to_right(first.name)
                        and contradiction(c, good) is None), key=lambda c: c.distance(first, exact=False), default=None)
            result.closest = near and causes([near])[0]
        return result

    # How many tensors, from the first that differs on, each of them explains.
    reaches = {c: next((i for i, t in enumerate(rest) if not c.agrees(t)), len(rest)) for c in matching}
    best = max(reaches.values())
    explained = rest[:best]
    scale = np.array([max(right.allowed(t)[1], 1e-300) for t in explained])
    far = {c: np.array([c.distance(t) for t in explained]) / scale for c in matching if reaches[c] == best}
    ranked = sorted(far, key=lambda c: np.sum(far[c]))
    # Told apart in float64: some tensor of the dump is at least twice as near to the best candidate.
    same = [c for c in ranked if np.all(far[c] <= 2 * far[ranked[0]] + 1e-9)]
    top = ranked[0]
    earlier = next((t.name for t in before if could_change(top, t) and top.distance(t) < CLEARLY * to_right(t.name)),
                   None)
    result.found = causes(same)
    result.first = earlier or first.name
    result.until = rest[best].name if best < len(rest) else None
    result.in_float64 = len(far) > len(same) or earlier is not None
    return result


def changes(c, right, tensor):
    """Does the bug change this tensor at all? What it leaves as it is, it cannot explain in another order of pairs."""
    wrong, good = c.exact(tensor.name), right.exact(tensor.name)
    return wrong.shape != good.shape or rms(difference(wrong, good)) > 0.1 * right.allowed(tensor)[1]


def hidden(tensors, right, candidates, meant=None):
    """The Diagnosis of a bug that rounding hides, or None.

    Compared in float64, where the right run and the bug differ, and the dump has only its own rounding. What only
    rounds to the precision that is `meant` is no bug.
    """
    names, found = names_of(right.run.config.n_layers), []
    order = list(NOISE)
    for c in candidates:
        if not c.bug.subtle or not c.applies:
            continue
        if meant and c.bug.rounds_to and order.index(c.bug.rounds_to) <= order.index(meant):
            continue
        tensor = next((t for t in tensors if names.index(t.name) >= names.index(c.bug.first)), None)
        if tensor is not None:
            wrong, good = c.distance(tensor), right.distance(tensor)
            if wrong < CLEARLY * good:
                found.append((wrong, good, names.index(tensor.name), tensor, c))
    if not found:
        return None
    wrong, good, _, tensor, _ = min(found, key=lambda f: f[:3])
    same = [c for w, _, _, t, c in sorted(found, key=lambda f: f[0]) if t is tensor and w < 2 * wrong]
    return Diagnosis(tensor.name, causes(same), in_float64=True, times_nearer=good / max(wrong, 1e-300))


# ---- What the numbers say ------------------------------------------------------------------------------------

PRODUCTS = {                    # name of a projection: (its input, its matrix within the layer)
    "attn.q": ("attn_norm", ("attn", "wq")), "attn.k": ("attn_norm", ("attn", "wk")),
    "attn.v": ("attn_norm", ("attn", "wv")), "attn.out": ("attn.heads", ("attn", "wo")),
    "ffn.gate": ("ffn_norm", ("ffn", "gate")), "ffn.up": ("ffn_norm", ("ffn", "up")),
    "ffn.out": ("ffn.hidden", ("ffn", "down")), "logits": ("norm", ("output",)),
}
OPERATIONS = {
    "embedding": "the look-up", "attn_norm": "RMSNorm", "ffn_norm": "RMSNorm", "norm": "RMSNorm",
    "attn.q_rope": "the rotation", "attn.k_rope": "the rotation", "attn.scores": "the product of queries and keys",
    "attn.probs": "softmax", "attn.heads": "the weighted average of the values", "x_attn": "the residual sum",
    "x_ffn": "the residual sum", "ffn.silu": "SiLU", "ffn.hidden": "the product of silu and up",
    **{name: f"the product with {path[-1]}" for name, (_, path) in PRODUCTS.items()},
}
UNIT = {"float16": "float16 or TF32", "bfloat16": "bfloat16"}
SMALL = 2 ** 26                 # numbers in the weights up to which every matrix is also tried transposed


def local_name(name):
    """layers.3.attn.q -> attn.q"""
    return name.split(".", 2)[2] if name.startswith("layers.") else name


class Evidence:
    """The first wrong tensor next to what it should be, and the right values before it, in float64."""

    def __init__(self, tensor, row, right, before):
        self.tensor, self.right, self.before, self.row = tensor, right, before, row
        self.run, self.config, self.name = right.run, right.run.config, tensor.name
        parts = tensor.name.split(".", 2)
        self.layer, self.local = (int(parts[1]), parts[2]) if parts[0] == "layers" else (None, tensor.name)
        options = readings_of(tensor, right.exact(tensor.name))
        order = META if META in row.remark else HALVES
        best = min((o for o in options if o.order == order), key=lambda o: rms(o.d))
        self.other_order = [o for o in options if o.order != order and o.x.shape == best.x.shape]
        self.x, self.y, self.order = best.x.astype(np.float64), best.reference.astype(np.float64), order
        self.bad = not_finite(self.name, self.x)
        self.T = self.x.shape[-2]
        self.positions = np.arange(len(self.run.tokens) - self.T, len(self.run.tokens))
        self.noise = right.allowed(tensor)[1] / max(rms(unmasked(self.y)), 1e-300)
        self.tolerance = 3e-5 if tensor.precision in ("float32", "float64") else 3 * FLOOR[tensor.precision]

    def get(self, local):
        """A right value of this layer, of the same positions; "x" is what enters the layer."""
        if local == "x":
            name = f"layers.{self.layer - 1}.x_ffn" if self.layer else "embedding"
        elif local in ("embedding", "norm", "logits"):
            name = local
        else:
            name = f"layers.{self.layer}.{local}"
        return self.right.exact(name)[..., -self.T:, :].astype(np.float64)

    @functools.cached_property
    def all_positions(self):
        """The right trace of all positions at once, for keys and values that are in the cache."""
        return bugs.compute(replace(self.run, chunks=()), None, "float64")

    def distance(self, y, x=None):
        return rms(difference(self.x if x is None else x, y))

    def fits(self, y, x=None):
        """Are these the dump's numbers, within rounding, and is the right value clearly farther?"""
        x = self.x if x is None else x
        if self.bad.any() or y.shape != x.shape or not np.isfinite(unmasked(y)).all():
            return False
        size = rms(unmasked(y))
        far = self.distance(y, x)
        return 0 < size and far <= (self.noise + self.tolerance) * size and far < 0.2 * self.distance(self.y)

    def scaled(self, y, x=None):
        """The factor by which y gives the dump, or None."""
        x = self.x if x is None else x
        if self.bad.any() or y.shape != x.shape:
            return None
        a, b = unmasked(y).ravel(), unmasked(x).ravel()
        factor = float(a @ b / max(a @ a, 1e-300))
        if not 1e-6 < abs(factor) < 1e6:
            return None
        return factor if self.fits(np.where(y <= MASKED, y, factor * y), x) else None

    def cause(self, what, fix=""):
        return Cause("", f"{self.name} {what}", fix=fix)


def times(factor, config=None):
    """"" for 1, else "2.5 times "."""
    if abs(factor - 1) < 1e-5:
        return ""
    known = {} if config is None else {
        math.sqrt(config.head_dim): "sqrt(d)", 1 / math.sqrt(config.head_dim): "1 / sqrt(d)", config.head_dim: "d",
        1 / config.head_dim: "1 / d", math.sqrt(config.dim): "sqrt(D)", 1 / math.sqrt(config.dim): "1 / sqrt(D)"}
    alike = next((f" ({name})" for value, name in known.items() if abs(factor / value - 1) < 2e-3), "")
    return f"{factor:.{6 if abs(factor - 1) < 0.01 else 4}g}{alike} times "


def explain(tensor, tensors, rows, right, before):
    """Causes, checked, that no bug of the zoo stands for: at most one."""
    row = next(row for row in rows if row.name == tensor.name)
    if row.verdict == "shape" or tensor.partial:          # a log has too few numbers
        return []
    e = Evidence(tensor, row, right, before)
    own = {"embedding": [other_rows], "attn_norm": [other_norm], "ffn_norm": [other_norm], "norm": [other_norm],
           "attn.q_rope": [other_angles], "attn.k_rope": [other_angles], "attn.scores": [other_mask, other_keys],
           "attn.probs": [other_sums], "attn.heads": [other_values], "ffn.silu": [other_products],
           "ffn.hidden": [other_products]}.get(e.local, [])
    products = [other_weights] if e.local in PRODUCTS else []
    for explanation in [became_nan, other_order, *own, *products, scaled, sums, constant_added, dropout, partly, moved,
                        accumulated, lower_precision]:
        found = explanation(e)
        if found:
            return [found]
    return [cause for t in before for other in t.outer for cause in [from_outer(e, t, other)] if cause][:1]


def from_outer(e, inner, other):
    """The right run from there on, if the next step reads what a module around the inner one gives."""
    like = e.right.exact(inner.name)
    for _, x in replace(inner, x=other.x).readings(like.shape):
        if x.shape[-2] != len(e.run.tokens) or e.run.given:
            continue
        y = bugs.compute(replace(e.run, given={inner.name: x}), None, "float64", e.name)[e.name]
        if e.fits(y[..., -e.T:, :]):
            return e.cause(f"is what follows from {other.theirs}: {between(inner, other).removesuffix('.')}",
                           "Llama has nothing there: look at the module around the matrix")
    return None


def became_nan(e):
    if not e.bad.any():
        return None
    rows = e.bad.any(axis=-1)
    where = which(rows.any(axis=0) if rows.ndim == 2 else rows, e.positions[0])
    kind = "NaN" if np.isnan(e.x).any() else "infinite"
    whole = e.bad.all(axis=-1).any() and kind == "NaN" and e.local in ("attn.probs", "attn.heads", "attn.out")
    return e.cause(f"is {kind} at position {where}, and nothing before it in the dump is",
                   "softmax over scores that are all blocked, -infinity minus -infinity: no row may be blocked whole"
                   if whole else "an overflow, a division by zero, or a root of something negative")


# embedding

def other_rows(e):
    table = e.run.weights["embedding"]
    ids = []
    for x in e.x:
        far = np.abs(np.asarray(table, np.float32) - x.astype(np.float32)).max(axis=1)
        ids.append(int(np.argmin(far)) if far.min() <= 1e-6 + 2 * FLOOR[e.tensor.precision] * largest(x) else None)
    tokens = e.run.tokens[-e.T:]
    if None not in ids and tuple(ids) != tuple(tokens):
        if ids[1:] == list(tokens[:-1]) and e.T > 1:
            return e.cause("holds at each position the row of the token before it", "look at the index of the position")
        moved = {i - t for i, t in zip(ids, tokens)}
        if len(moved) == 1:
            return e.cause(f"holds the rows of the token ids {moved.pop():+d}", "ids count from 0")
        wrong = next(i for i, t in enumerate(tokens) if ids[i] != t)
        return e.cause(f"holds the row of token {ids[wrong]} at position {e.positions[wrong]}, where the token is "
                       f"{tokens[wrong]}", "look at the token ids that your port got")
    if e.fits(bugs.misread(np.asarray(table))[list(tokens)].astype(np.float64)):
        return e.cause("is read from the embedding, (V, D) on disk, as if it were (D, V)",
                       "token t's row begins at number t * D")
    return None


# norms

def gains(e):
    """(name, weight) of every norm."""
    for i, layer in enumerate(e.run.weights["layers"]):
        yield f"layers.{i}.attn_norm", layer["attn_norm"]
        yield f"layers.{i}.ffn_norm", layer["ffn_norm"]
    yield "the final norm", e.run.weights["norm"]


def other_norm(e):
    source = {"attn_norm": "x", "ffn_norm": "x_attn"}.get(e.local)
    x = e.get(source) if source else e.right.exact(f"layers.{e.config.n_layers - 1}.x_ffn")[-e.T:].astype(np.float64)
    size = np.sqrt(np.mean(x * x, -1, keepdims=True) + e.config.norm_eps)
    own = e.name if e.layer is not None else "the final norm"
    mine = dict(gains(e))[own].astype(np.float64)
    for name, gain in gains(e):
        if name != own and e.fits(x / size * gain):
            return e.cause(f"is what you get with the norm weight of {name} instead of {own}",
                           "look at the offset of each layer's norm weights")
    for name, other in (("attn_norm", "the input of attention"), ("x", "the layer's input"),
                        ("x_attn", "the stream after attention"), ("attn.out", "attention's output")):
        if e.layer is not None and name != source:
            z = e.get(name)
            if e.fits(z / np.sqrt(np.mean(z * z, -1, keepdims=True) + e.config.norm_eps) * mine):
                return e.cause(f"is {other} normalised, not {source if source != 'x' else 'the stream'}",
                               "look at which buffer the norm reads")
    # The weight that was used, where the right one is known to be multiplied in.
    used = np.median(e.x / np.where(x == 0, np.nan, x / size), axis=0)
    if np.isfinite(used).all():
        near = np.abs(used - mine) <= 1e-3 * np.abs(mine) + 1e-6
        ones = np.abs(used - 1) <= 1e-3
        if near.any() and not near.all() and (near | ones).all() and e.fits(x / size * np.where(near, mine, 1)):
            return e.cause(f"is normalised, but its weight is applied to indices {which(near)} of {len(mine)} only: "
                           f"{which(~near)} are not multiplied", "look at where the loop over the weight ends")
        if near.any() and not near.all() and e.T > 2 and e.fits(x / size * used):
            return e.cause(f"has another weight at indices {which(~near)} of {len(mine)}",
                           "look at the length and the offset of the norm's weight")
    # A factor for each position: something else than the root mean square divides.
    factor = np.sum(e.x * e.y, -1, keepdims=True) / np.maximum(np.sum(e.y * e.y, -1, keepdims=True), 1e-300)
    if e.fits(factor * e.y) and (e.T > 1 or abs(factor.item() - 1) > 1e-3):
        low, high = factor.min(), factor.max()
        by = f"{low:.5g}" if high - low < 1e-4 * high else f"{low:.5g} to {high:.5g}"
        return e.cause(f"is {by} times the right value, a factor for each position: something else than "
                       "sqrt(mean(x^2) + eps) divides", "look at what the norm divides by: mean, root, eps, axis")
    return None


# products with a matrix

def weights_of(e):
    """(name, matrix (in, out)) of every matrix of the model, this layer's first."""
    layers = list(range(e.config.n_layers))
    for i in sorted(layers, key=lambda i: abs(i - (e.layer or 0))):
        layer = e.run.weights["layers"][i]
        for part in ("attn", "ffn"):
            for name, w in layer[part].items():
                yield f"layers.{i}.{part}.{name}", w
    yield "output", e.run.weights["output"]


def flat(x):
    """(heads, T, d) -> (T, heads * d)."""
    return nl.merge_heads(x) if x.ndim == 3 else x


def size_of(config):
    return config.n_layers * config.dim * (4 * config.dim + 3 * config.hidden_dim)


def other_weights(e):
    """The right input times another matrix, or another input times the right one."""
    source, path = PRODUCTS[e.local]
    own = ".".join(path) if e.layer is None else f"layers.{e.layer}." + ".".join(path)
    a = flat(e.get(source)).astype(np.float32)
    options = [(e.order, flat(e.x))] + [(o.order, flat(o.x.astype(np.float64))) for o in e.other_order]
    width = options[0][1].shape[1]

    def check(x, y):
        return e.fits(y.astype(np.float64), x)

    for name, w in weights_of(e):
        ways = [("", w)] if (len(w), w.shape[1]) == (a.shape[1], width) and name != own else []
        if size_of(e.config) <= SMALL and w.shape[0] * w.shape[1] == a.shape[1] * width:
            plain = bugs.dense(w, np.float32)
            if plain.shape == (a.shape[1], width):
                ways.append((" read as if it were (in, out) on disk", bugs.misread(plain)))
                if name.endswith(("wq", "wk")):
                    ways.append((" of Meta's file read as if it were (in, out) on disk", bugs.misread(
                        bugs.reorder_rows(plain, e.config.head_dim, "meta"))))
            if plain.shape[::-1] == (a.shape[1], width) and name != own:
                ways.append((" transposed", plain.T))
        for how, m in ways:
            y = a @ m
            for order, x in options:
                if check(x, y):
                    instead = "" if name == own else f", not by {own}"
                    return e.cause(f"is the right input times {name}{how}{instead}"
                                   + (", in Meta's order" if order == META else ""),
                                   "look at which file offset, name or pointer this matrix comes from")
    mine = e.run.weights["output"] if e.layer is None else e.run.weights["layers"][e.layer][path[0]][path[1]]
    for other in ("x", "attn_norm", "attn.out", "x_attn", "ffn_norm", "ffn.gate", "ffn.silu", "ffn.up"):
        if e.layer is None or other == source:
            continue
        b = e.get(other)
        if b.shape == a.shape:
            y = b.astype(np.float32) @ mine
            for _, x in options:
                if check(x, y):
                    return e.cause(f"is the right matrix times {other}, not times {source}",
                                   "look at which buffer the product reads")
    if e.layer is None and e.fits(np.asarray(e.right.exact(f"layers.{e.config.n_layers - 1}.x_ffn")[-e.T:],
                                             np.float32) @ mine):
        return e.cause("is the output matrix times the stream before the final norm", "normalise once more")
    return None


def partly(e):
    """Right up to some index, position or head; the rest holds something else."""
    if e.bad.any() or e.local == "attn.scores":
        return None
    off = np.abs(e.x - e.y) > 10 * (e.noise + e.tolerance) * rms(e.y)
    for axis, word in ((-1, "index"), (-2, "position")) + (((0, "head"),) if e.x.ndim == 3 else ()):
        other = tuple(i for i in range(e.x.ndim) if i != axis % e.x.ndim)
        wrong = off.any(axis=other)
        if wrong.all() or not wrong.any():
            continue
        shape = [1] * e.x.ndim
        shape[axis] = -1
        mask = wrong.reshape(shape)
        start = e.positions[0] if word == "position" else 0
        words = f"{word} {which(wrong, start)}" + ("" if word == "position" else f" of {len(wrong)}")
        options = {"0": np.zeros_like(e.y)} | same_shape(e)
        for name, value in options.items():
            if e.fits(np.where(mask, value, e.y)):
                return e.cause(f"is right, but for {words}, which holds {name}",
                               "look at where the loop ends, and at what the buffer held before")
    return None


# rotation

def other_angles(e):
    """How far each pair really turned."""
    before = e.get(e.local.removesuffix("_rope"))
    half = before.shape[-1] // 2
    for x in [e.x] + [o.x.astype(np.float64) for o in e.other_order]:
        if e.bad.any():
            return None
        old, new = (z[..., :half] + 1j * z[..., half:] for z in (before, x))
        lengths = np.abs(new) / np.maximum(np.abs(old), 1e-300)
        usable = np.abs(old) > 1e-3 * rms(before)
        slack = 1e-3 + 10 * FLOOR[e.tensor.precision]
        if np.mean(np.abs(lengths[usable] - 1) < slack) < 0.99:
            continue
        angles = np.angle(new / np.where(old == 0, 1, old))
        frequencies = e.config.rope_theta ** (-np.arange(half) / half)
        wanted = e.positions[:, None] * frequencies
        return turned(e, angles, wanted, frequencies, usable, slack)
    return None


def turned(e, angles, wanted, frequencies, usable, slack):
    def same(a, b):
        return np.abs(np.angle(np.exp(1j * (a - b)))) < 10 * slack

    def all_same(to):
        return np.mean(same(angles, to)[usable]) > 0.99

    for shift in [k for k in range(-2 * len(e.run.tokens), 2 * len(e.run.tokens) + 1) if k]:
        if all_same((e.positions + shift)[:, None] * frequencies):
            return e.cause(f"is turned as if each position were {abs(shift)} {'later' if shift > 0 else 'earlier'}",
                           "look at the position that the rotation gets: the tokens in the cache plus the row")
    good = (same(angles, wanted) | ~usable).all(axis=(0, 1))
    heads = (same(angles, wanted) | ~usable).all(axis=(1, 2))
    row = int(np.argmax(~(same(angles, wanted) | ~usable).all(axis=(0, 2))))
    head = int(np.argmax(~heads))
    pairs = np.flatnonzero(~(same(angles, wanted) | ~usable)[head, row])[:3]
    if not len(pairs):
        return None
    turns = ", ".join(f"pair {i} by {angles[head, row, i]:.4f} instead of {np.angle(np.exp(1j * wanted[row, i])):.4f}"
                      for i in pairs)
    only = ""
    if good.any() and not good.all():
        only = f"; pairs {which(good)} of {len(good)} are right"
    elif heads.any() and not heads.all():
        only = f"; heads {which(heads)} of {len(heads)} are right"
    return e.cause(f"is a rotation, but by other angles: at position {e.positions[row]}, head {head} turned {turns} "
                   f"(radians){only}", "angles are position * theta^(-2i/d), i from 0 to d/2 - 1")


def other_order(e):
    """Right in the other order of pairs, which its partner is not in."""
    for option in e.other_order:
        if e.fits(option.x.astype(np.float64), e.y) or (
                rms(difference(option.x, e.y)) <= (e.noise + e.tolerance) * rms(e.y)):
            mine = "neighbours (x_2i, x_2i+1)" if option.order == META else "halves (x_i, x_i+d/2)"
            theirs = "halves" if option.order == META else "neighbours"
            partner = "queries" if ".k" in e.name else "keys"
            return e.cause(f"is right if {mine} are its pairs, but the {partner}' are {theirs}: their products mix "
                           "what does not belong together", "bring queries and keys into the same order")
    return None


# attention

def other_mask(e):
    """The right scores under another mask."""
    seen_x, seen_y = e.x > MASKED, e.y > MASKED
    both = seen_x & seen_y
    if e.bad.any() or np.array_equal(seen_x, seen_y) or not both.any():
        return None
    if rms((e.x - e.y)[both]) > (e.noise + e.tolerance) * rms(e.y[both]):
        return None
    more, less = (seen_x & ~seen_y).any(axis=0), (seen_y & ~seen_x).any(axis=0)
    parts = []
    for marks, word in ((more, "sees"), (less, "does not see")):
        if marks.any():
            row = int(np.argmax(marks.any(axis=1)))
            parts.append(f"position {e.positions[row]} {word} key {which(marks[row])}")
    return e.cause(f"is right where both masks let it through, but {' and '.join(parts)}",
                   "a token at position p sees keys 0 to p, whatever is in the cache")


def other_keys(e):
    """Which key each column was really computed with: another slot, layer or head, turned or not."""
    c = e.config
    if e.bad.any() or len(e.run.tokens) > 1024:
        return None
    scale = 1 / math.sqrt(c.head_dim)
    visible = e.x > MASKED
    group = c.n_heads // c.n_kv_heads
    own = np.arange(c.n_heads) // group
    q, S = e.get("attn.q_rope"), e.x.shape[-1]

    def scores(q, keys):
        return np.where(visible, q @ keys[own].swapaxes(1, 2) * scale, e.x)

    keys = e.all_positions[f"layers.{e.layer}.attn.k_rope"]
    plain = e.all_positions[f"layers.{e.layer}.attn.k"]
    for a, b, what in ((e.get("attn.q"), keys, "the queries are not turned"), (q, plain, "the keys are not turned"),
                       (e.get("attn.q"), plain, "neither queries nor keys are turned")):
        factor = e.scaled(scores(a, b))
        if factor:
            return e.cause(f"is {times(factor, c)}the product before rotation: {what}",
                           "rotate before the keys enter the cache, and use what was rotated")
    heads = []
    for h in range(c.n_heads):
        near = [g for g in range(c.n_kv_heads) if rms(np.where(visible[h], q[h] @ keys[g].T * scale - e.x[h], 0))
                <= (e.noise + e.tolerance) * rms(unmasked(e.y))]
        heads.append(own[h] if own[h] in near else near[0] if near else None)
    if None not in heads and list(own) != heads:
        return e.cause(f"uses key heads {', '.join(map(str, heads))} for query heads 0 to {c.n_heads - 1}; right is "
                       f"{', '.join(map(str, own))}", "query head h uses key head h // (H / G)")

    # Each column by itself, against every key of every layer.
    bank = []
    for i in range(c.n_layers):
        for kind in ("k_rope", "k"):
            k = e.all_positions[f"layers.{i}.attn.{kind}"][own]
            bank.append((i, kind, q @ k.swapaxes(1, 2) * scale))
    found = []
    for s in range(S):
        rows = visible[:, :, s]
        if rows.sum() < 2:
            found.append((e.layer, "k_rope", s))
            continue
        column, limit = e.x[:, :, s][rows], (e.noise + e.tolerance) * rms(unmasked(e.y))
        options = [(e.layer, "nothing", s)] if rms(column) <= 1e-6 else []
        for i, kind, values in bank:
            far = np.sqrt(np.mean((values[rows] - column[:, None]) ** 2, axis=0))
            options += [(i, kind, int(j)) for j in np.flatnonzero(far <= limit)]
        right = (e.layer, "k_rope", s)
        found.append(right if right in options else options[0] if options else None)
    if None in found:
        return None
    wrong = [s for s, f in enumerate(found) if f != (e.layer, "k_rope", s)]
    if not wrong:
        return None
    words = []
    for s in wrong[:3]:
        i, kind, j = found[s]
        turned_or_not = "turned" if kind == "k_rope" else "unturned"
        where = f"the {turned_or_not} key of position {j}" + ("" if i == e.layer else f" of layer {i}")
        where = "zeros" if kind == "nothing" else where
        words.append(f"slot {s} holds {where}")
    return e.cause(f"is the product with what the cache holds in the wrong place: {', '.join(words)}"
                   + (f" ({len(wrong)} of {S} slots)" if len(wrong) > 3 else ""),
                   "look at the slot, the layer and the time at which keys enter the cache")


def other_sums(e):
    """Rows in the right proportions that sum to something else than 1."""
    if e.bad.any():
        return None
    sums = e.x.sum(axis=-1, keepdims=True)
    if np.abs(sums - 1).max() <= 1e-3 + 4 * FLOOR[e.tensor.precision]:
        scores = e.get("attn.scores")
        factor = logit_scale(e, scores)
        return factor and e.cause(f"is the softmax of {factor:.4g} times the scores", "scale once: in the scores")
    low, high = float(sums.min()), float(sums.max())
    if e.fits(sums * e.y):
        return e.cause(f"is right but for a factor for each row: rows sum to {low:.4g} to {high:.4g}, not to 1",
                       "softmax divides by the sum over the keys that are visible: not over the rest of a buffer")
    return e.cause(f"has rows that sum to {low:.4g} to {high:.4g}, not to 1",
                   "softmax runs over the keys, the last axis, and divides by the sum of the exponentials")


def logit_scale(e, scores):
    seen = (scores > MASKED) & (e.x > 1e-6)
    logs = np.where(seen, np.log(np.where(seen, e.x, 1)), 0)
    count = np.maximum(seen.sum(-1, keepdims=True), 1)
    a = np.where(seen, scores - np.where(seen, scores, 0).sum(-1, keepdims=True) / count, 0)
    b = np.where(seen, logs - logs.sum(-1, keepdims=True) / count, 0)
    factor = float((a * b).sum() / max((a * a).sum(), 1e-300))
    return factor if e.fits(nl.softmax(factor * scores)) else None


def other_values(e):
    """The right probabilities over other values."""
    c = e.config
    if e.bad.any() or len(e.run.tokens) > 1024:
        return None
    own = np.arange(c.n_heads) // (c.n_heads // c.n_kv_heads)
    probs = e.get("attn.probs")
    kinds = {"v": "values", "k": "keys before rotation", "k_rope": "keys"}
    for i, (kind, word), shift in itertools.product(range(c.n_layers), kinds.items(), (0, 1, -1)):
        values = e.all_positions[f"layers.{i}.attn.{kind}"]
        moved = np.zeros_like(values)
        S = values.shape[1]
        moved[:, max(shift, 0):S + min(shift, 0)] = values[:, max(-shift, 0):S + min(-shift, 0)]
        if e.fits(probs @ moved[own]):
            slots = "" if not shift else f", each one slot too {'late' if shift > 0 else 'early'}"
            return e.cause(f"is the average of the {word} of layer {i}{slots}" if i != e.layer else
                           f"is the average of the {word}{slots}", "look at what is written to the cache, and where")
        if i == e.layer and not shift:
            heads = []
            for h in range(c.n_heads):
                near = [g for g in range(c.n_kv_heads) if rms(probs[h] @ moved[g] - e.x[h])
                        <= (e.noise + e.tolerance) * rms(e.y)]
                heads.append(own[h] if own[h] in near else near[0] if near else None)
            if None not in heads and list(own) != heads:
                return e.cause(f"averages the {word} of key heads {', '.join(map(str, heads))} for query heads 0 to "
                               f"{c.n_heads - 1}; right is {', '.join(map(str, own))}",
                               "query head h uses key head h // (H / G)")
    return None


# feed-forward

def other_products(e):
    """Products of two other tensors, and SiLU of something else."""
    gate, up = e.get("ffn.gate"), e.get("ffn.up")
    parts = {"gate": gate, "up": up, "silu(gate)": nl.silu(gate), "silu(up)": nl.silu(up),
             "sigmoid(gate)": 1 / (1 + np.exp(-gate)), "sigmoid(up)": 1 / (1 + np.exp(-up))}
    for name, value in parts.items():
        factor = e.scaled(value)
        if factor:
            return e.cause(f"is {times(factor)}{name}", "silu = silu(gate); hidden = silu * up")
    for (n1, v1), (n2, v2) in itertools.combinations_with_replacement(parts.items(), 2):
        factor = e.scaled(v1 * v2)
        if factor:
            return e.cause(f"is {times(factor)}{n1} * {n2}", "silu = silu(gate); hidden = silu * up")
    return None


# everything

def scaled(e):
    """The right tensor, or another one, times a number."""
    factor = e.scaled(e.y)
    if factor:
        return e.cause(f"is {times(factor, e.config)}the right value", "look for a factor too many or too few")
    for name, value in same_shape(e).items():
        factor = e.scaled(value)
        if factor:
            return e.cause(f"is {times(factor, e.config)}{name}", "look at which buffer is read, and when")
    return None


def same_shape(e):
    """{name: right value} of what was computed before in this layer, in the shape of the tensor."""
    if e.layer is None:
        names = ["norm", f"layers.{e.config.n_layers - 1}.x_ffn"] if e.name == "logits" else ["embedding"]
        found = {name: e.right.exact(name)[..., -e.T:, :].astype(np.float64) for name in names if name != e.name}
    else:
        order = [name.split(".", 2)[2] for name in names_of(1) if name.startswith("layers.")]
        found = {("the layer's input" if name == "x" else name): e.get(name)
                 for name in ["x", *order[:order.index(e.local)]]}
    shaped = {}
    for name, value in found.items():
        if value.shape == e.x.shape:
            shaped[name] = value
        elif value.ndim == 2 and e.x.ndim == 3 and value.shape[1] == e.x.shape[0] * e.x.shape[2]:
            shaped[name] = nl.split_heads(value, e.x.shape[2])
        elif value.ndim == 3 and e.x.ndim == 2 and value.shape[0] * value.shape[2] == e.x.shape[1]:
            shaped[name] = nl.merge_heads(value)
    return shaped


def sums(e):
    """A sum of two tensors with whole or half factors."""
    if e.bad.any() or e.local == "attn.scores":
        return None
    parts = {name: x for name, x in (same_shape(e) | {"the right value": e.y}).items() if np.isfinite(x).all()}
    grid = 2e-3 if e.tensor.precision in ("float32", "float64") else 3e-2
    for (n1, v1), (n2, v2) in itertools.combinations(parts.items(), 2):
        A = np.stack([v1.ravel(), v2.ravel()], axis=1)
        k, *_ = np.linalg.lstsq(A, e.x.ravel(), rcond=None)
        nice = np.round(2 * k) / 2
        if np.abs(k - nice).max() < grid and nice.all() and e.fits((A @ nice).reshape(e.x.shape)):
            terms = f"{times(nice[0])}{n1} {'+' if nice[1] > 0 else '-'} {times(abs(nice[1]))}{n2}"
            return e.cause(f"is {terms}", "look at what is added, and how often")
    return None


def constant_added(e):
    """The same numbers added at every position."""
    d = e.x - e.y
    if e.bad.any() or e.local == "attn.scores" or e.T < 3:
        return None
    mean = d.mean(axis=-2, keepdims=True)
    if e.fits(e.y + mean):
        return e.cause(f"is the right value plus the same numbers at every position, up to {largest(mean):.3g}: a bias",
                       "Llama has no bias: look for one in the layer's definition")
    return None


def dropout(e):
    kept = e.x != 0
    if e.bad.any() or e.local in ("attn.scores", "attn.probs") or kept.all() or kept.mean() < 0.1:
        return None
    a, b = e.y[kept], e.x[kept]
    factor = float(a @ b / max(a @ a, 1e-300))
    if factor > 1.001 and e.fits(np.where(kept, factor * e.y, 0)):
        return e.cause(f"is {factor:.3g} times the right value, and 0 in {1 - kept.mean():.0%} of its numbers: dropout",
                       "switch training off: model.eval()")
    return None


def moved(e):
    """The right numbers in other places."""
    if e.bad.any() or e.local == "attn.scores":
        return None
    for axis, word in ((-2, "position"), (-1, "index")) + (((0, "head"),) if e.x.ndim == 3 else ()):
        found = permutation(e, axis)
        if found is None:
            continue
        n = len(found)
        shift = (found - np.arange(n)) % n
        wrong = np.flatnonzero(shift)
        if len(set(shift.tolist())) == 1:
            k = int(shift[0])
            by = f"shifted by {k}" if k <= n // 2 else f"shifted by {n - k}"
            return e.cause(f"is right but {by}: {word} 0 holds what belongs at {word} {found[0]}",
                           "look at where this axis starts, and how it is split")
        some = ", ".join(f"{word} {j} holds what belongs at {found[j]}" for j in wrong[:3].tolist())
        return e.cause(f"holds the right numbers in another order along this axis: {some} ({len(wrong)} of {n} moved)",
                       "look at how rows are permuted, split into heads or merged")
    for shift in (1, -1):                                 # shifted, with something else at the end
        for axis, word in ((-2, "position"), (-1, "index")):
            n = e.x.shape[axis]
            if n > 3:
                to = [slice(None)] * e.x.ndim
                of = list(to)
                to[axis], of[axis] = slice(max(shift, 0), n + min(shift, 0)), slice(max(-shift, 0), n + min(-shift, 0))
                moved_y = e.x.copy()
                moved_y[tuple(to)] = e.y[tuple(of)]
                if e.fits(moved_y):
                    return e.cause(f"is shifted by one: {word} {max(shift, 0)} holds what belongs at {word} "
                                   f"{max(-shift, 0)}", f"look at where the {word} starts to count")
    return None


def permutation(e, axis):
    """Where each slice along this axis belongs: an array of indices, or None if the slices are not the right ones."""
    x, y = (np.moveaxis(z, axis, 0).reshape(z.shape[axis], -1) for z in (e.x, e.y))
    if len(x) < 2 or len(x) > 4096 or x.shape[1] < 2 and len(x) < 8:
        return None
    limit = (e.noise + e.tolerance) * rms(y)
    # a few numbers of each slice tell which it is; those that look alike are then compared whole
    probe = np.linspace(0, x.shape[1] - 1, min(8, x.shape[1])).astype(int)
    far = np.sqrt(np.mean((x[:, None, probe] - y[None][:, :, probe]) ** 2, axis=-1))
    found = far.argmin(axis=1)
    if len(set(found.tolist())) < len(x) or np.array_equal(found, np.arange(len(x))):
        return None
    return found if rms(x - y[found]) <= limit and e.fits(np.moveaxis(
        y[found].reshape(np.moveaxis(e.y, axis, 0).shape), 0, axis)) else None


def accumulated(e):
    """Each position adds to what the one before has left."""
    if e.bad.any() or e.T < 3 or e.local in ("attn.scores", "attn.probs"):
        return None
    if e.fits(np.cumsum(e.y, axis=-2)):
        return e.cause("adds up over the positions: each adds to what the one before has left",
                       "set the buffer to zero before each product")
    return None


def lower_precision(e):
    """An error that looks random, of the size that rounding to a coarser type has."""
    if e.bad.any() or not looks_random(e):
        return None
    seen = e.y > MASKED
    d, size = rms((e.x - e.y)[seen]), rms(unmasked(e.y))
    operation, own = OPERATIONS[e.local], e.tensor.precision
    what = f"is off by {d / size:.1e} of its size, with no pattern,"
    if own in UNIT:
        if e.local in PRODUCTS and d <= 8 * e.right.allowed(e.tensor)[1]:
            return e.cause(f"{what} more than keeping it in {own} explains: {operation} adds up in {own}"
                           f"{exact_before(e)}", "add up in float32, and round the sum")
        return None
    order = list(NOISE)
    for coarse in order[order.index("float32") + 1:]:
        if d <= e.right.allowed(replace(e.tensor, precision=coarse))[1]:
            return e.cause(f"{what} as rounding to {UNIT[coarse]} leaves it: {operation} is computed in lower precision"
                           f"{exact_before(e)}", f"if that is meant, use --dtype {coarse}; else compute it in float32")
    return None


def looks_random(e):
    """Is the error spread over all numbers, to both sides, and without a pattern? Rounding is."""
    seen = e.y > MASKED
    d, y = (e.x - e.y)[seen], e.y[seen]
    if not np.isfinite(d).all() or d.size < 16 or not d.any():
        return False
    spread = np.median(np.abs(d)) / rms(d)                # 0.67 for a bell curve, 0 if few numbers are wrong
    along = abs(float(d @ y)) / (np.linalg.norm(d) * np.linalg.norm(y))
    groups = [rms(group) for group in np.array_split(d, 8)]
    return spread > 0.15 and along < 0.5 and max(groups) < 6 * min(groups) and not systematic(e)


def systematic(e):
    """Does the error repeat over positions or over heads? Rounding does not."""
    d = np.where(e.y > MASKED, e.x - e.y, 0)
    along = d * unmasked(e.y)                             # scaled by the same number wherever the sign is another
    for axis in range(d.ndim - 1):
        n = d.shape[axis]
        if n >= 3 and any(rms(x.mean(axis=axis)) > 1.7 / math.sqrt(n) * rms(x) for x in (d, along)):
            return True
    return False


def exact_before(e):
    """What the last right tensor of a finer type is exact to."""
    finer = [t for t in e.before if t.precision in ("float64", "float32")]
    if not finer:
        return ""
    last = finer[-1]
    far = e.right.distance(last) / max(rms(unmasked(e.right.exact(last.name))), 1e-300)
    return f"; {last.name} before it is exact to {max(far, 1e-8):.0e}"


# ---- Two names for one tensor --------------------------------------------------------------------------------

def between(inner, other):
    """A sentence on what is done between two values that bear the same name: (Tensor, Tensor)."""
    a, b = inner.x.astype(np.float64).ravel(), other.x.astype(np.float64).ravel()
    what = f"{other.theirs} is not {inner.theirs}, which is compared: "
    if a.shape != b.shape:
        return what + f"its shape is {other.x.shape}, not {inner.x.shape}."
    d = b - a
    n = inner.x.shape[-1]
    by_position = d.reshape(-1, n)
    kept = b != 0
    factor = float(a @ b / max(a @ a, 1e-300))
    small = 1e-5 * max(largest(a), 1e-300)
    if len(by_position) > 1 and np.abs(by_position - by_position[0]).max() <= small:
        return what + f"the same numbers are added at every position, up to {largest(d):.3g}: a bias."
    if 0.1 < kept.mean() < 1 and largest((b - a[kept] @ b[kept] / (a[kept] @ a[kept]) * a)[kept]) <= small:
        return what + f"{1 - kept.mean():.0%} of its numbers are 0: dropout."
    if largest(b - factor * a) <= small:
        return what + f"it is {factor:.4g} times as large."
    if rms(d) <= 2 ** -8 * rms(a):
        return what + f"it is rounded, by {rms(d) / rms(a):.0e} of its size."
    return what + f"it differs by up to {largest(d):.3g}, so something is computed in between."
