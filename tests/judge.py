"""How far a dump is from the right run: precision, rounding noise, differences, and a verdict for every tensor."""
import math
from dataclasses import dataclass, replace
from functools import cached_property

import bugs
import numpy as np
from dumps import from_interleaved

MASKED = -1e4                   # a port's -1e9, -3.4e38 or -65504 means the same as -infinity: blocked by the mask

# How far a right dump may be from the reference. For every tensor, the rounding noise of this model on these tokens is
# measured: the distance between a run in float64 and one in which everything is rounded to the dump's type. A dump may
# be NOISE times as far, plus FLOOR of the tensor's size: another right program adds in another order, and rounds at
# other points. What right programs used of that is in tests/reference/README.md.
NOISE = {"float64": 4, "float32": 8, "float16": 8, "bfloat16": 8}
FLOOR = {"float64": 1e-7, "float32": 1e-6, "float16": 2e-3, "bfloat16": 1.6e-2}
HOPELESS = 0.3
CLEARLY = 0.5                   # a bug has to be this much nearer to the dump than the right run is
# Two dumps alone have no model to measure with: relative to each tensor's largest value.
ALONE = {"float64": 1e-6, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1.5e-1}

HALVES, META = "halves", "Meta's order"


# ---- Precision -----------------------------------------------------------------------------------------------

def grid_of(x):
    """The coarsest type that holds these numbers: float32 may hold float16 or bfloat16."""
    def fits(grid):
        return np.array_equal(x.astype(bugs.PRECISIONS[grid] or grid).astype(x.dtype), x, equal_nan=True)

    with np.errstate(over="ignore", invalid="ignore"):
        return next(filter(fits, reversed(NOISE)))


def own_precision(tensor):
    """The precision that a tensor's own numbers show.

    Not asked: the embedding, which is as coarse as the weights; probabilities and scores, which may be 0, 1 or blocked;
    and what has too few numbers to tell.
    """
    if tensor.dtype in ("float16", "bfloat16"):
        return tensor.dtype
    if tensor.name == "embedding" or tensor.name.endswith(("scores", "probs")) or np.count_nonzero(np.isfinite(tensor.x) & (tensor.x != 0)) < 16:
        return tensor.dtype
    return grid_of(tensor.x)


def coarsest(precisions):
    return max(precisions, key=list(NOISE).index)


def set_precisions(tensors, given=None):
    """Judge each tensor by its own precision, or by the one that is given. Returns that of most of the dump."""
    for tensor in tensors:
        tensor.precision = given or own_precision(tensor)
    found = [tensor.precision for tensor in tensors]
    return max(NOISE, key=lambda precision: (found.count(precision), list(NOISE).index(precision)))


# ---- Differences ---------------------------------------------------------------------------------------------

def difference(x, right):
    """x - right in float64; 0 where a mask blocks both, infinite where it blocks one of them."""
    x, right = x.astype(np.float64), right.astype(np.float64)
    if x.min() > MASKED and right.min() > MASKED:
        return x - right
    blocked_x, blocked_right = x <= MASKED, right <= MASKED
    with np.errstate(invalid="ignore"):
        d = np.where(blocked_x | blocked_right, 0, x - right)
    return np.where(blocked_x != blocked_right, np.inf, d)


def largest(x):
    return float(np.max(np.abs(x)))


def rms(x):
    return math.sqrt(np.vdot(x, x) / x.size)


def unmasked(x):
    return np.where(x <= MASKED, 0, x).astype(np.float64)


def cosine(x, right):
    a, b = unmasked(x).ravel(), unmasked(right).ravel()
    norms = math.sqrt(a @ a) * math.sqrt(b @ b)
    return float(a @ b / norms) if norms else float(not (a.any() or b.any()))


def not_finite(name, x):
    """Where a tensor is NaN, or infinite where no mask has put that."""
    bad = ~np.isfinite(x)
    return bad & (x != -np.inf) if name.endswith("attn.scores") else bad


# ---- What a dump may be --------------------------------------------------------------------------------------

class Candidate:
    """What the dump may be: the right run, or the run with one bug. Computed when asked for, as far as needed."""

    def __init__(self, run, bug=None, trace=None):
        self.run, self.bug = run, bug
        self.given = trace or {}                          # float32 values from elsewhere, which take precedence
        self.traces, self.limits = {}, {}

    @cached_property
    def applies(self):
        return self.bug is None or self.bug.apply(self.run) is not None

    def compute_all(self, precisions):
        for precision in precisions:
            self.traces[precision] = bugs.compute(self.run, self.bug, precision)

    def value(self, precision, name):
        """Asked for the first time, it runs as far as this tensor, and keeps no other: most bugs are asked once."""
        if precision not in self.traces:
            self.traces[precision] = {name: bugs.compute(self.run, self.bug, precision, until=name)[name]}
        elif name not in self.traces[precision]:
            self.traces[precision] = bugs.compute(self.run, self.bug, precision)
        return self.traces[precision][name]

    def exact(self, name):
        return self.value("float64", name)

    def expected(self, tensor):
        """What a tensor of the dump is compared with."""
        name = tensor.name
        if tensor.precision == "float32":
            return self.given[name] if name in self.given else self.value("float32", name)
        return self.exact(name)

    def allowed(self, tensor):
        """(largest, root-mean-square) difference that is rounding."""
        name, precision = tensor.name, tensor.precision
        if (name, precision) not in self.limits:
            right, factor, floor = self.exact(name), NOISE[precision], FLOOR[precision]
            rounded = self.value("float32" if precision == "float64" else precision, name)
            noise, size = difference(rounded, right), unmasked(right)
            self.limits[name, precision] = tuple(factor * f(noise) + floor * f(size) for f in (largest, rms))
        return tuple(limit + tensor.step / 2 for limit in self.limits[name, precision])

    def differences(self, tensor, like):
        """(difference, what it is compared with) for each way to read the tensor, where the dump is finite.

        The right run has the order of pairs that was found; a bug may have either, unless the dump is right as it is.
        """
        orders = [HALVES, META] if tensor.may_be_interleaved else [HALVES]
        if tensor.may_be_interleaved and tensor.order and (
                self.bug is None or tensor.agrees and tensor.order == HALVES):
            orders = [tensor.order]
        for _, x in tensor.readings(like.shape):
            right = like[..., -x.shape[-2]:, :]
            for y in [x if order == HALVES else from_interleaved(x) for order in orders]:
                bad = not_finite(tensor.name, y)
                if bad.all():
                    continue
                yield (difference(y[~bad], right[~bad]), right[~bad]) if bad.any() else (difference(y, right), right)

    def agrees(self, tensor):
        """Is this tensor of the dump what the candidate gives? In its layout, and in either order of pairs."""
        for d, right in self.differences(tensor, self.expected(tensor)):
            if not rms(d) <= HOPELESS * rms(unmasked(right)):
                continue                                  # no rounding is that large: spares the run in float64
            limits = self.allowed(tensor)
            if largest(d) <= limits[0] and rms(d) <= limits[1]:
                return True
        return False

    def distance(self, tensor, exact=True):
        """Root-mean-square distance, by default from the run in float64; infinite if the shapes do not fit."""
        like = self.exact(tensor.name) if exact else self.expected(tensor)
        return min((rms(d) for d, _ in self.differences(tensor, like)), default=math.inf)


# ---- Verdicts ------------------------------------------------------------------------------------------------

@dataclass
class Row:
    """A line of the table."""
    name: str
    theirs: str
    shape: tuple
    verdict: str                                          # ok, differs, NaN, shape, overwritten
    remark: str = ""
    largest: float = None
    rms: float = None
    cosine: float = None
    allowed: float = None
    precision: str = None
    where: dict = None

    @property
    def wrong(self):
        """Do its numbers differ? A tensor of another shape is not compared."""
        return self.verdict in ("differs", "NaN")


@dataclass
class Reading:
    """One way to read a tensor of the dump, next to what it should be."""
    remark: str
    x: np.ndarray
    reference: np.ndarray
    order: str
    unsaid: np.ndarray                                    # where the dump does not say its number
    bad: np.ndarray                                       # where it is NaN, or infinite without a mask

    @cached_property
    def d(self):
        left_out = self.bad | self.unsaid
        if not left_out.any():
            return difference(self.x, self.reference)
        return difference(np.where(left_out, 0, self.x), np.where(left_out, 0, self.reference))


def readings_of(tensor, like):
    """Every way to read a tensor, in both orders of pairs for queries and keys."""
    found = []
    for remark, x in tensor.readings(like.shape):
        for y, order in [(x, HALVES), (from_interleaved(x), META)] if tensor.may_be_interleaved else [(x, HALVES)]:
            bad = not_finite(tensor.name, y)
            unsaid = bad & np.isnan(y) if tensor.partial else np.zeros_like(bad)
            found.append(Reading(remark, y, like[..., -x.shape[-2]:, :], order, unsaid, bad & ~unsaid))
    return found


def within(reading, limits):
    return largest(reading.d) <= limits[0] and rms(reading.d) <= limits[1]


def stage(name):
    """Queries and keys are in one order before rotation, and in one after it."""
    return "after" if name.endswith("_rope") else "before"


def find_orders(tensors, right):
    """{stage: order of pairs}. The first tensor that fits one order, or is clearly nearer to it, tells for all layers.

    A port may turn neighbours and leave halves, so the two stages are asked one by one; where nothing tells, it is the
    order of the other stage.
    """
    orders = {}
    for tensor in tensors:
        if not tensor.may_be_interleaved or stage(tensor.name) in orders:
            continue
        options = readings_of(tensor, right.expected(tensor))
        best = {order: min((o for o in options if o.order == order), key=lambda o: rms(o.d), default=None)
                for order in (HALVES, META)}
        if None in best.values():
            continue
        limits = right.allowed(tensor)
        fits = {order for order, option in best.items() if within(option, limits)}
        far = {order: rms(option.d) for order, option in best.items()}
        for order, other in ((HALVES, META), (META, HALVES)):
            if fits == {order} or not fits and far[order] < 0.3 * far[other]:
                orders[stage(tensor.name)] = order
    found = next(iter(orders.values()), HALVES)
    return {"before": found, "after": found} | orders


def compare(tensors, right, tokens=None, start=0):
    """Rows for every tensor of the dump, in order of computation. `right` is a Candidate, or has its methods.

    A tensor that differs by its own precision is judged by the coarsest before it: rounding is passed on.
    """
    rows, orders = [], find_orders(tensors, right)
    seen = "float64"
    for tensor in tensors:
        row = judge_tensor(tensor, right, orders, tokens, start)
        own = tensor.precision
        coarse = grid_of(tensor.x) if tensor.name == "embedding" else coarsest([own, seen])
        if row.verdict == "differs" and coarse != own:
            tensor.precision = coarse
            other = judge_tensor(tensor, right, orders, tokens, start)
            if other.verdict == "ok":
                row = other
            else:
                tensor.precision = own
        seen = coarsest([seen, own])
        tensor.order, tensor.agrees = orders[stage(tensor.name)], row.verdict == "ok"
        rows.append(row)
    mark_overwritten(tensors, rows, right)
    return rows


def judge_tensor(tensor, right, orders, tokens, start):
    like = right.expected(tensor)
    options = readings_of(tensor, like)
    if tensor.may_be_interleaved:
        options = [o for o in options if o.order == orders[stage(tensor.name)]]
    if not options:
        return Row(tensor.name, tensor.theirs, tensor.x.shape, "shape",
                   f"shape {tensor.x.shape}, the reference has {like.shape}")
    best = min(options, key=lambda o: rms(o.d))
    limits = right.allowed(tensor)
    remarks = [best.remark, best.order if best.order != HALVES else ""]
    x, d, left_out = best.x, best.d, best.bad | best.unsaid
    verdict = "NaN" if best.bad.any() else "ok" if within(best, limits) else "differs"
    if verdict == "differs" and tensor.name == "logits" and not left_out.any():
        centred = replace(best, x=centre(x), reference=centre(best.reference))
        if within(centred, limits):
            verdict, d = "ok", centred.d
            remarks.append("equal up to a constant per row (harmless)")
    if verdict == "ok" and not sum_fits(tensor, best.reference, limits[1]):
        verdict = "differs"
        remarks.append(f"the sum over all numbers is {tensor.total:.7g} and should be {best.reference.sum():.7g}")
    where = None if verdict == "ok" else locate(best, limits[0], tokens, start)
    return Row(tensor.name, tensor.theirs, tensor.x.shape, verdict, ", ".join(filter(None, remarks)), largest(d), rms(d),
               cosine(np.where(left_out, 0, x), np.where(left_out, 0, best.reference)), limits[0], tensor.precision, where)


def sum_fits(tensor, reference, limit):
    """Is the sum that a log gives the right one? It tells of numbers that the log does not print.

    Rounding adds up as the root of how many there are; a sum in float32 has 1e-5 of its terms' sizes on top.
    """
    if tensor.total is None or not np.isfinite(tensor.total):
        return True
    exact = reference.astype(np.float64)
    rounding = 4 * math.sqrt(exact.size) * (limit - tensor.step / 2) + 1e-5 * np.abs(exact).sum()
    return abs(tensor.total - exact.sum()) <= rounding + 1e-6


def centre(x):
    """Without the mean of each row, which no probability depends on."""
    return x - x.mean(axis=-1, keepdims=True, dtype=np.float64)


def mark_overwritten(tensors, rows, right):
    """A tensor that holds, bit for bit, what a later one should: the dump kept the memory, not the numbers."""
    for i, row in enumerate(rows):
        if not row.wrong:
            continue
        for later, other in zip(tensors[i + 1:], rows[i + 1:]):
            mine = tensors[i]
            if other.verdict != "ok" or later.x.shape != mine.x.shape or not np.array_equal(later.x, mine.x):
                continue
            wanted, got = right.expected(mine), right.expected(later)
            if wanted.shape == got.shape and rms(difference(wanted, got)) > right.allowed(mine)[1]:
                row.verdict, row.where = "overwritten", {"by": later.name}
                break


def locate(reading, limit, tokens, start):
    """Where a tensor differs first: the first position beyond the limit, there the largest difference."""
    x, d = reading.x, np.where(reading.bad, np.inf, np.abs(reading.d))
    per_position = d.max(axis=-1)
    per_position = per_position.max(axis=0) if d.ndim == 3 else per_position
    beyond = per_position > limit
    row = int(np.argmax(beyond)) if beyond.any() else int(np.argmax(per_position))
    at = d[..., row, :]
    *head, index = (int(i) for i in np.unravel_index(np.argmax(at), at.shape))
    end = len(tokens) if tokens is not None else start + d.shape[-2]
    position = end - d.shape[-2] + row
    spot = (*head, row, index)
    wrong = d > limit
    where = {"position": position, "token": int(tokens[position]) if tokens is not None else None,
             "head": head[0] if head else None, "index": index,
             "dump": float(x[spot]), "reference": float(reading.reference[spot]),
             "positions_beyond": int(beyond.sum()), "positions": d.shape[-2],
             "indices_beyond": int(wrong.any(axis=tuple(range(d.ndim - 1))).sum()), "indices": d.shape[-1],
             "which": {"positions": which(beyond, position - row),
                       "indices": which(wrong.any(axis=tuple(range(d.ndim - 1))))}}
    if d.ndim == 3:
        where |= {"heads_beyond": int(wrong.any(axis=(1, 2)).sum()), "heads": d.shape[0]}
        where["which"]["heads"] = which(wrong.any(axis=(1, 2)))
    return where


def which(marks, start=0):
    """[F, T, T, F, T] -> "1 to 2, 4": at most four runs."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marks.astype(np.int8), [0]]))).reshape(-1, 2) + start
    runs = [str(a) if b == a + 1 else f"{a} to {b - 1}" for a, b in edges[:4].tolist()]
    return ", ".join(runs) + (", ..." if len(edges) > 4 else "")
