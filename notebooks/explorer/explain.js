// How one number of a run was computed: its formula, the numbers that went into it, what was added up, the steps after.
//
// Everything is computed again here, in float64, from the tensors before it: `result` must be the run's number, up to
// rounding. Where a change replaced the number, the last steps say so, and `result` is what the change left.

import { keyHead, pairOf, ropeFrequencies, silu } from "./engine.js";
import { inputs, split } from "./names.js";
import { sentence } from "./changes.js";

// The explanation of trace.get(name) at an index:
//   formula       in general (HTML)            filled(format)   with its own numbers (HTML)
//   A, B          the factors, as references   products, sum    what is added up, and its sum; B is null if A alone is
//   names         what A, B and products are   steps            [[label, value, reference?], ...] after the sum
//   groups        [[label, value], ...] parts of the sum        focus, tokens, positive, picture: for the drawing
//   result        the number                   note             a sentence, where a change replaced the number
// A reference is {name, index, value} for a number of the trace, {weight, value} for a weight.
export function explain(name, index, run) {
  const { layer, short } = split(name);
  const at = new Place(name, layer, index, run);
  return withChanges(EXPLAIN[short](at, index), name, index, run);
}

// ---- Where we are --------------------------------------------------------------------------------------------

class Place {
  constructor(name, layer, index, { trace, weights, config, tokens }) {
    Object.assign(this, { name, layer, index, trace, weights, config, tokens });
    this.inputs = inputs(name, config);
    this.ofLayer = weights.layers[layer ?? 0];
  }

  // A reference to a number of the k-th input.
  ref(k, ...index) {
    const name = this.inputs[k];
    return { name, index, value: numberAt(this.trace.get(name), index) };
  }

  shape(k) {
    return this.trace.get(this.inputs[k]).shape;
  }
}

export const flatIndex = (shape, index) => index.reduce((flat, i, k) => flat * shape[k] + i, 0);

const numberAt = ({ shape, data }, index) => data[flatIndex(shape, index)];

// A reference to a weight that reads x @ w: row `i` of w (in, out) is column `i` of what is on disk.
const weightRef = (label, matrix, i, o) =>
  ({ weight: `${label}[${i}, ${o}]`, value: matrix.data[o * matrix.shape[1] + i] });

const sumOf = numbers => numbers.reduce((a, b) => a + b, 0);

const range = n => Array.from({ length: n }, (_, k) => k);

// ---- Kinds of formula ------------------------------------------------------------------------------------------

// A sum of n products A[k] * B[k].
function sumOfProducts(n, a, b, formula, more) {
  const A = range(n).map(a), B = range(n).map(b);
  const products = A.map((x, k) => x.value * B[k].value), sum = sumOf(products);
  const largest = range(n).sort((j, k) => Math.abs(products[k]) - Math.abs(products[j])).slice(0, 2);
  const filled = format => {
    const shown = largest.map(k => `${format(A[k].value)} · ${format(B[k].value)}`).join(" + ");
    return n > 2 ? `${shown} + … (${n - 2} more)` : shown;
  };
  return { formula, filled, A, B, products, sum, steps: [], result: sum, ...more };
}

// A row of the input times a column of a matrix.
function project(at, t, column, matrix, label, formula) {
  const n = at.shape(0).at(-1);
  return sumOfProducts(n, k => at.ref(0, t, k), k => weightRef(label, matrix, k, column), formula,
    { names: [`${at.inputs[0]}[${t}, :]`, `${label}[:, ${column}]`] });
}

function norm(at, [t, j], weight, label) {
  const eps = at.config.norm_eps, D = weight.data.length;
  const A = range(D).map(k => at.ref(0, t, k)), x = A[j], gain = weight.data[j];
  const products = A.map(({ value }) => value ** 2), mean = sumOf(products) / D, rms = Math.sqrt(mean + eps);
  return {
    formula: "<i>x</i> / √(mean(<i>x</i>²) + ε) · <i>g</i>",
    filled: format => `${format(x.value)} / √(${format(mean)} + ${eps}) · ${format(gain)}`,
    A, B: null, products, sum: mean * D, focus: j, names: [`${at.inputs[0]}[${t}, :]`, null, "squares"],
    steps: [["mean of the squares", mean], [`rms = √(mean + ${eps})`, rms], [`x[${j}]`, x.value, x],
      ["x / rms", x.value / rms], [`× ${label}[${j}]`, gain, { weight: `${label}[${j}]`, value: gain }]],
    result: x.value / rms * gain,
  };
}

// One member of a pair, turned.
function turned(at, [h, t, i]) {
  const { head_dim: d, rope_theta: theta, pairing = "halves", shift = 0 } = at.config;
  const pair = range(d / 2).find(k => pairOf(k, d, pairing).includes(i));
  const [first, second] = pairOf(pair, d, pairing), isFirst = i === first;
  const frequency = ropeFrequencies(d, theta)[pair], position = t + shift;
  const angle = Math.fround(position * frequency), cos = Math.cos(angle), sin = Math.sin(angle);
  const a = at.ref(0, h, t, first), b = at.ref(0, h, t, second);
  const filledFirst = format =>
    `${format(a.value)} · cos ${format(angle)} − ${format(b.value)} · sin ${format(angle)}`;
  const filledSecond = format =>
    `${format(b.value)} · cos ${format(angle)} + ${format(a.value)} · sin ${format(angle)}`;
  return {
    formula: isFirst ? "<i>a</i> cos(<i>pω</i>) − <i>b</i> sin(<i>pω</i>)"
      : "<i>b</i> cos(<i>pω</i>) + <i>a</i> sin(<i>pω</i>)",
    filled: isFirst ? filledFirst : filledSecond,
    picture: { rope: [a.value, b.value, angle, isFirst] },
    steps: [[`a = x[${first}]`, a.value, a], [`b = x[${second}]`, b.value, b],
      [`ω = θ^(−2·${pair}/${d}), pair ${pair}`, frequency], [`angle = position ${position} · ω, in radians`, angle],
      ["cos", cos], ["sin", sin]],
    result: isFirst ? a.value * cos - b.value * sin : b.value * cos + a.value * sin,
  };
}

function score(at, [h, t, s]) {
  const { head_dim: d, n_heads, n_kv_heads } = at.config, g = keyHead(h, n_heads, n_kv_heads);
  const product = sumOfProducts(d, k => at.ref(0, h, t, k), k => at.ref(1, g, s, k), "<i>q</i> · <i>k</i> / √<i>d</i>",
    { names: [`q_rope[${h}, ${t}, :]`, `k_rope[${g}, ${s}, :]`] });
  const divide = ["÷ √d", Math.sqrt(d)], mask = [`key ${s} is in the future of query ${t}: masked`, -Infinity];
  if (s > t) {
    const filled = () => `−∞, as key ${s} is later than query ${t}`;
    return { ...product, filled, steps: [divide, mask], result: -Infinity };
  }
  const filled = format => `${format(product.sum)} / √${d}`;
  return { ...product, filled, steps: [divide], result: product.sum / Math.sqrt(d) };
}

function probability(at, [h, t, s]) {
  const A = range(at.shape(0)[2]).map(k => at.ref(0, h, t, k));
  const largest = Math.max(...A.map(({ value }) => value));
  const products = A.map(({ value }) => Math.exp(value - largest)), sum = sumOf(products);
  return {
    formula: "exp(<i>s</i> − max) / Σ exp(<i>s</i> − max)",
    filled: format => `exp(${format(A[s].value)} − ${format(largest)}) / ${format(sum)}`,
    A, B: null, products, sum, focus: s, tokens: true, positive: true,
    names: [`scores[${h}, ${t}, :]`, null, "exp(s − max)"],
    steps: [["score", A[s].value, A[s]], ["largest score of the row", largest],
      ["exp(score − largest)", products[s]], ["÷ sum of the row", sum]],
    result: products[s] / sum,
  };
}

function head(at, [h, t, i]) {
  const g = keyHead(h, at.config.n_heads, at.config.n_kv_heads);
  return sumOfProducts(at.shape(0)[2], k => at.ref(0, h, t, k), k => at.ref(1, g, k, i),
    "Σ<sub>s</sub> prob<sub>s</sub> · <i>v</i><sub>s</sub>",
    { names: [`probs[${h}, ${t}, :]`, `v[${g}, :, ${i}]`], tokens: true });
}

function attentionOut(at, [t, j]) {
  const { n_heads, head_dim: d } = at.config;
  const explained = sumOfProducts(n_heads * d, k => at.ref(0, Math.floor(k / d), t, k % d),
    k => weightRef("wo", at.ofLayer.attn.wo, k, j),
    "concat(head<sub>0</sub> … head<sub>H−1</sub>) · <i>W</i><sub>o</sub> column",
    { names: [`heads[:, ${t}, :], side by side`, `wo[:, ${j}]`] });
  const groups = range(n_heads).map(h => [`head ${h}`, sumOf(explained.products.slice(h * d, (h + 1) * d))]);
  return { ...explained, groups };
}

function residual(at, index, formula) {
  const x = at.ref(0, ...index), added = at.ref(1, ...index);
  return {
    formula, filled: format => `${format(x.value)} + ${format(added.value)}`,
    steps: [[x.name, x.value, x], [`+ ${added.name}`, added.value, added]], result: x.value + added.value,
  };
}

function activated(at, index) {
  const x = at.ref(0, ...index), sigma = 1 / (1 + Math.exp(-x.value));
  return {
    formula: "<i>x</i> · σ(<i>x</i>) = <i>x</i> / (1 + e<sup>−x</sup>)",
    filled: format => `${format(x.value)} / (1 + exp(−${format(x.value)}))`, picture: { silu: x.value },
    steps: [["x", x.value, x], ["σ(x)", sigma]], result: silu(x.value),
  };
}

function gated(at, index) {
  const a = at.ref(0, ...index), b = at.ref(1, ...index);
  return {
    formula: "Swish<sub>1</sub>(<i>xW</i>) ⊗ <i>xV</i>",
    filled: format => `${format(a.value)} × ${format(b.value)}`,
    steps: [[a.name, a.value, a], [`× ${b.name}`, b.value, b]], result: a.value * b.value,
  };
}

function embedded(at, [t, j]) {
  const id = at.tokens[t], value = at.weights.embedding.data[id * at.config.dim + j];
  const label = `embedding[${id}, ${j}]`;
  return {
    formula: "row of the embedding matrix that belongs to the token", filled: () => label,
    steps: [[`token ${id}: row ${id} of the embedding matrix (V × D), column ${j}; learned in training: the way back ` +
      "ends here", value, { weight: label, value }]],
    result: value,
  };
}

const column = matrix => (at, [h, t, i]) => project(at, t, h * at.config.head_dim + i, at.ofLayer.attn[matrix], matrix,
  `<i>x</i><sub>t</sub> · <i>W</i><sub>${matrix[1]}</sub> column`);

const EXPLAIN = {
  embedding: embedded,
  attn_norm: (at, index) => norm(at, index, at.ofLayer.attn_norm, `layers[${at.layer}].attn_norm`),
  "attn.q": column("wq"), "attn.k": column("wk"), "attn.v": column("wv"), "attn.q_rope": turned, "attn.k_rope": turned,
  "attn.scores": score, "attn.probs": probability, "attn.heads": head, "attn.out": attentionOut,
  x_attn: (at, index) => residual(at, index, "<i>x</i> + attention(<i>x</i>)"),
  ffn_norm: (at, index) => norm(at, index, at.ofLayer.ffn_norm, `layers[${at.layer}].ffn_norm`),
  "ffn.gate": (at, [t, j]) => project(at, t, j, at.ofLayer.ffn.gate, "gate", "<i>x</i><sub>t</sub> · <i>W</i> column"),
  "ffn.silu": activated,
  "ffn.up": (at, [t, j]) => project(at, t, j, at.ofLayer.ffn.up, "up", "<i>x</i><sub>t</sub> · <i>V</i> column"),
  "ffn.hidden": gated,
  "ffn.out": (at, [t, j]) => project(at, t, j, at.ofLayer.ffn.down, "down",
    "hidden<sub>t</sub> · <i>W</i><sub>2</sub> column"),
  x_ffn: (at, index) => residual(at, index, "<i>x</i> + FFN(<i>x</i>)"),
  norm: (at, index) => norm(at, index, at.weights.norm, "norm"),
  logits: (at, [t, v]) => project(at, t, v, at.weights.output, "output", "<i>x</i><sub>t</sub> · output column"),
};

// ---- Changes -------------------------------------------------------------------------------------------------

// The steps that changes have added. Each goes on from the number that the one before it left.
function withChanges(explained, name, index, { touched }) {
  const steps = [], notes = [];
  let result = explained.result;
  for (const { change, before, after } of touched.get(name) ?? []) {
    const left = numberAt(after, index);
    if (numberAt(before, index) === left) continue;
    const isFactor = "scale" in change && !(change.kind === "norm" && change.scale === 0);
    result = isFactor ? result * change.scale : left;
    steps.push([`${isFactor ? `× ${change.scale}, ` : "replaced, "}your change: ${sentence(change)}`, result]);
    if (!isFactor) notes.push(`“${sentence(change)}” has replaced this number.`);
  }
  if (steps.length === 0) return explained;
  const all = [...explained.steps, ...steps];
  return { ...explained, steps: all, result, note: notes.join(" ") };
}
