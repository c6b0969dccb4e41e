// How two runs differ: how far each tensor moved, and which is the first that differs.

// How far a tensor of a run is from where it was in another: rms of the change / rms of the tensor. Infinity where the
// shape is another, and where a number became infinite or none at all.
export function moved(name, run, base) {
  const x = run.trace.get(name), was = base.trace.get(name);
  return sameShape(x, was) ? relativeDistance(x.data, was.data) : Infinity;
}

function relativeDistance(x, was) {
  let distance = 0, size = 0;
  for (let i = 0; i < was.length; i++) {
    const a = x[i], b = was[i];
    if (a !== b) distance += (a - b) * (a - b);           // masked scores are -Infinity in both
    if (b !== -Infinity) size += b * b;
  }
  if (Number.isNaN(distance)) return Infinity;
  return distance === 0 ? 0 : Math.sqrt(distance / (size || 1));
}

// For each token of a run the position at which another run has it; null where it has none. Mistakes drop or double the
// first token, or add a last one.
export function positionsIn(other, run) {
  const agrees = shift => run.tokens.every((id, t) => (other.tokens[t + shift] ?? id) === id);
  const shift = [0, 1, -1].find(agrees);
  return run.tokens.map((_, t) => other.tokens[t + shift] === undefined ? null : t + shift);
}

export const sameShape = (a, b) => a.shape.length === b.shape.length && a.shape.every((n, k) => n === b.shape[k]);

// A right program's distance from another, as a share of a tensor's largest number (tests/reference/README.md).
export const ALLOWED = { F64: 1e-5, F32: 1e-5, F16: 2e-2, BF16: 1.5e-1 };

// Row by row what two traces have in common, in order of computation:
// [{name, largest, at (flat index), share, allowed, differs}]. `allowed` is a share of the tensor's largest number.
export function differences(trace, other, allowed = 0) {
  const table = [];
  for (const [name, x] of trace) {
    const y = other.get(name);
    if (y === undefined) continue;
    table.push({ name, allowed, ...sameShape(x, y) ? farthest(x.data, y.data, allowed) : OTHER_SHAPE });
  }
  return table;
}

const OTHER_SHAPE = { largest: Infinity, at: null, share: Infinity, differs: true };

const MASKED = -1e4;                                      // a port's -1e9 means the same as -Infinity

function farthest(x, y, allowed) {
  let largest = 0, at = 0, size = 0;
  for (let i = 0; i < x.length; i++) {
    if (Number.isFinite(x[i])) size = Math.max(size, Math.abs(x[i]));
    const distance = x[i] === y[i] || (x[i] <= MASKED && y[i] <= MASKED) ? 0 : Math.abs(x[i] - y[i]);
    if (!(distance <= largest)) {                         // NaN is farther than anything
      largest = Number.isNaN(distance) ? Infinity : distance;
      at = i;
    }
  }
  const share = largest === 0 ? 0 : largest / size;
  return { largest, at, share, differs: share > allowed };
}
