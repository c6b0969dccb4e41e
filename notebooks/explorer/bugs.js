// The classic mistakes in ports of Llama, done to the right run: the same as in tests/bugs.py, which has their words.
//
// A mistake is {taps: {short name: (at, right) -> wrong}} or {remake: made -> other weights, configuration or tokens};
// `at` says where the tap stands (changes.js).

import { add, elementwise, keyHead, matmul, mergeHeads, rmsNorm, rope, ropeCosSin, ropeFrequencies, silu, tensor }
  from "./engine.js";

const BOS = 1, EOS = 2;                                   // in every Llama 1 and 2
const LOWEST = -3.4028234663852886e38;                    // of the numbers that float32 has

// ---- The parts they are made of --------------------------------------------------------------------------------

// RMSNorm done as f(row, gain, eps) -> row, everywhere.
function norms(f) {
  const tap = at => eachRow(at.normInput, row => f(row, at.normWeight.data, at.config.norm_eps));
  return { attn_norm: tap, ffn_norm: tap, norm: tap };
}

function eachRow(x, f) {
  const [T, D] = x.shape, y = tensor(x.shape);
  for (let t = 0; t < T; t++) y.data.set(f(x.data.subarray(t * D, (t + 1) * D)), t * D);
  return y;
}

const sum = numbers => numbers.reduce((a, b) => a + b, 0);

const meanSquare = row => row.reduce((total, x) => total + x * x, 0) / row.length;

const asIs = at => at.normInput;

// Each residual sum is normalised (post-norm), with the weight of the norm before it.
const normalised = name => (at, right) => rmsNorm(right, at.ofLayer[name], at.config.norm_eps);

// Rotation done as f(x, positions, frequencies) -> x, for queries and keys.
function ropes(f) {
  const tap = at => {
    const x = at.get(at.short.replace("_rope", ""));
    const positions = Array.from({ length: x.shape[1] }, (_, t) => at.start + t);
    return f(x, positions, ropeFrequencies(at.config.head_dim, at.config.rope_theta));
  };
  return { "attn.q_rope": tap, "attn.k_rope": tap };
}

const turn = (x, positions, frequencies) => rope(x, ...ropeCosSin(positions, frequencies));

function turnValues(at, right) {
  const positions = Array.from({ length: right.shape[1] }, (_, t) => at.start + t);
  return turn(right, positions, ropeFrequencies(at.config.head_dim, at.config.rope_theta));
}

// Scores computed anew: (H, T, S). allowed(p, s, first position of these tokens) is the mask.
function scores({ scale = at => Math.sqrt(at.config.head_dim), allowed = (p, s) => p >= s, blocked = -Infinity,
  heads = keyHeads }) {
  return at => {
    const q = at.get("attn.q_rope"), k = at.seen("attn.k_rope");
    const [H, T, d] = q.shape, S = k.shape[1], y = tensor([H, T, S]), keys = heads(at.config);
    for (let h = 0; h < H; h++) {
      for (let t = 0; t < T; t++) {
        for (let s = 0; s < S; s++) {
          let product = 0;
          for (let i = 0; i < d; i++) product += q.data[(h * T + t) * d + i] * k.data[(keys[h] * S + s) * d + i];
          const open = allowed(at.start + t, s, at.start);
          y.data[(h * T + t) * S + s] = open ? product / scale(at) : blocked;
        }
      }
    }
    return y;
  };
}

// The key head of every query head.
const keyHeads = ({ n_heads, n_kv_heads }) =>
  Array.from({ length: n_heads }, (_, h) => keyHead(h, n_heads, n_kv_heads));

// Probabilities times values of other key heads: (H, T, d).
function weighted(heads) {
  return at => {
    const probs = at.get("attn.probs"), v = at.seen("attn.v");
    const [H, T, S] = probs.shape, d = v.shape[2], y = tensor([H, T, d]), keys = heads(at.config);
    for (let row = 0; row < H * T; row++) {
      const from = keys[Math.floor(row / T)] * S * d;
      for (let i = 0; i < d; i++) {
        let total = 0;
        for (let s = 0; s < S; s++) total += probs.data[row * S + s] * v.data[from + s * d + i];
        y.data[row * d + i] = total;
      }
    }
    return y;
  };
}

// Softmax over the queries, or over the heads, of (H, T, S); blocked scores are finite, as in most ports.
function softmaxOver(axis) {
  return at => {
    const x = at.get("attn.scores"), [H, T, S] = x.shape, y = tensor(x.shape);
    const [count, step] = axis === "queries" ? [T, S] : [H, T * S];
    const finite = i => Math.max(x.data[i], -1.7e38);
    for (let start = 0; start < x.data.length; start++) {
      if (Math.floor(start / step) % count !== 0) continue;
      const places = Array.from({ length: count }, (_, k) => start + k * step);
      const largest = Math.max(...places.map(finite));
      const exps = places.map(i => Math.exp(finite(i) - largest));
      places.forEach((i, k) => { y.data[i] = exps[k] / sum(exps); });
    }
    return y;
  };
}

// The same numbers in the same order, in another shape.
const reshaped = (x, shape) => tensor(shape, x.data);

// Another configuration.
const setting = (name, value) => ({ remake: ({ config }) => ({ config: { ...config, [name]: value } }) });

// Other tokens; where none would be left, nothing changes.
function tokens(f) {
  return { remake: made => {
    const wrong = f(made.tokens);
    return wrong.length > 0 ? { tokens: wrong } : {};
  } };
}

// Other weights in every layer: f(layer, config) -> what is different in it.
function layers(f) {
  return { remake: ({ weights, config }) => {
    const wrong = weights.layers.map(layer => {
      const { attn, ffn, ...rest } = f(layer, config);
      return { ...layer, ...rest, attn: { ...layer.attn, ...attn }, ffn: { ...layer.ffn, ...ffn } };
    });
    return { weights: { ...weights, layers: wrong } };
  } };
}

// Reorder the rows (outputs) of wq or wk within each head: to "neighbours" (Meta's order) or to "halves".
function reorderRows(w, d, to) {
  const [n, width] = w.shape, y = tensor(w.shape);
  for (let row = 0; row < n; row++) {
    const head = Math.floor(row / d), i = row % d;
    const asHalf = Math.floor(i / 2) + i % 2 * d / 2, asNeighbour = i < d / 2 ? 2 * i : 2 * (i - d / 2) + 1;
    const from = head * d + (to === "neighbours" ? asHalf : asNeighbour);
    y.data.set(w.data.subarray(from * width, (from + 1) * width), row * width);
  }
  return y;
}

// The (out, in) numbers on disk taken for (in, out).
function misread(w) {
  const [out, n] = w.shape, y = tensor(w.shape);
  for (let o = 0; o < out; o++) {
    for (let i = 0; i < n; i++) y.data[o * n + i] = w.data[i * out + o];
  }
  return y;
}

const misreadAll = matrices => Object.fromEntries(Object.entries(matrices).map(([name, w]) => [name, misread(w)]));

// erf to double precision, by its Taylor series near 0 and by the continued fraction of erfc further out
// (Abramowitz and Stegun, 7.1.6 and 7.1.14).
function erf(x) {
  const size = Math.abs(x);
  if (size > 6) return Math.sign(x);
  if (size > 3) {
    let fraction = size;
    for (let k = 60; k > 0; k--) fraction = size + k / 2 / fraction;
    return Math.sign(x) * (1 - Math.exp(-size * size) / fraction / Math.sqrt(Math.PI));
  }
  let term = x, total = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(total); n++) {
    term *= 2 * x * x / (2 * n + 1);
    total += term;
  }
  return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * total;
}

// Another activation: f of each number of the gate.
const activation = f => ({ taps: { "ffn.silu": at => elementwise(f, at.get("ffn.gate")) } });

const roundRobin = ({ n_heads, n_kv_heads }) => Array.from({ length: n_heads }, (_, h) => h % n_kv_heads);
const firstOnly = ({ n_heads }) => Array(n_heads).fill(0);

const withoutTranspose = (at, right) => reshaped(mergeHeads(right), right.shape);

// ---- The mistakes, in order of computation -----------------------------------------------------------------------

export const BUGS = {
  "bos-missing": tokens(ids => ids[0] === BOS ? ids.slice(1) : ids),
  "bos-twice": tokens(ids => ids[0] === BOS ? [BOS, ...ids] : ids),
  "eos-appended": tokens(ids => [...ids, EOS]),
  "embedding-scaled": { taps: { embedding: (at, right) => elementwise(x => x * Math.sqrt(at.config.dim), right) } },

  "norm-mean-subtracted": { taps: norms((row, gain, eps) => {
    const mean = sum(row) / row.length, centred = row.map(x => x - mean);
    const rms = Math.sqrt(meanSquare(centred) + eps);
    return centred.map((x, i) => x / rms * gain[i]);
  }) },
  "eps-outside-root": { taps: norms((row, gain, eps) => {
    const divisor = Math.sqrt(meanSquare(row)) + eps;
    return row.map((x, i) => x / divisor * gain[i]);
  }) },
  "eps-1e-06": setting("norm_eps", 1e-6),
  "norm-weight-forgotten": { taps: norms((row, gain, eps) => {
    const rms = Math.sqrt(meanSquare(row) + eps);
    return row.map(x => x / rms);
  }) },
  "norms-swapped": layers(layer => ({ attn_norm: layer.ffn_norm, ffn_norm: layer.attn_norm })),
  "post-norm": { taps: { attn_norm: asIs, x_attn: normalised("attn_norm"), ffn_norm: asIs,
    x_ffn: normalised("ffn_norm") } },
  "norm-forgotten": { taps: { attn_norm: asIs, ffn_norm: asIs } },

  "matrices-transposed": layers(layer => ({ attn: misreadAll(layer.attn), ffn: misreadAll(layer.ffn) })),
  "permuted-twice": layers(({ attn }, { head_dim }) => ({ attn: {
    wq: reorderRows(attn.wq, head_dim, "halves"), wk: reorderRows(attn.wk, head_dim, "halves") } })),
  "split-without-transpose": { taps: { "attn.q": withoutTranspose, "attn.k": withoutTranspose,
    "attn.v": withoutTranspose } },
  "keys-and-values-swapped": layers(({ attn }) => ({ attn: { wk: attn.wv, wv: attn.wk } })),
  "rope-on-v": { taps: { "attn.v": turnValues } },

  "rope-neighbours": setting("pairing", "neighbours"),
  "not-permuted": layers(({ attn }, { head_dim }) => ({ attn: {
    wq: reorderRows(attn.wq, head_dim, "neighbours"), wk: reorderRows(attn.wk, head_dim, "neighbours") } })),
  "rope-reversed": { taps: ropes((x, positions, frequencies) => turn(x, positions.map(p => -p), frequencies)) },
  "rope-forgotten": { taps: ropes(x => x) },
  "rope-forgotten-on-keys": { taps: { "attn.k_rope": at => at.get("attn.k") } },
  "rope-twice": { taps: ropes((x, positions, frequencies) =>
    turn(turn(x, positions, frequencies), positions, frequencies)) },
  "rope-wrong-exponent": { taps: ropes((x, positions, frequencies) =>
    turn(x, positions, frequencies.map(frequency => Math.sqrt(frequency)))) },
  "theta-500000": setting("rope_theta", 500000),
  "positions-from-one": setting("shift", 1),
  "positions-restart": { taps: ropes((x, positions, frequencies) =>
    turn(x, positions.map(p => p - positions[0]), frequencies)) },

  "scale-sqrt-dim": { taps: { "attn.scores": scores({ scale: at => Math.sqrt(at.config.dim) }) } },
  "scale-forgotten": { taps: { "attn.scores": scores({ scale: () => 1 }) } },
  "mask-missing": { taps: { "attn.scores": scores({ allowed: () => true }) } },
  "mask-sees-next": { taps: { "attn.scores": scores({ allowed: (p, s) => p + 1 >= s }) } },
  "mask-hides-itself": { taps: { "attn.scores": scores({ allowed: (p, s) => p > s, blocked: LOWEST }) } },
  "cache-ignored": { taps: { "attn.scores": scores({ allowed: (p, s, start) => p >= s && s >= start }) } },
  "heads-round-robin": { taps: { "attn.scores": scores({ heads: roundRobin }), "attn.heads": weighted(roundRobin) } },
  "heads-first-only": { taps: { "attn.scores": scores({ heads: firstOnly }), "attn.heads": weighted(firstOnly) } },
  "softmax-over-queries": { taps: { "attn.probs": softmaxOver("queries") } },
  "softmax-over-heads": { taps: { "attn.probs": softmaxOver("heads") } },
  "merged-without-transpose": { taps: { "attn.out": (at, right) => {
    const wo = at.ofLayer.attn.wo;
    return matmul(reshaped(at.get("attn.heads"), [right.shape[0], wo.shape[1]]), wo);
  } } },
  "wo-transposed": layers(layer => ({ attn: { wo: misread(layer.attn.wo) } })),
  "residual-forgotten-attention": { taps: { x_attn: at => at.get("attn.out") } },
  "residual-from-norm": { taps: {
    x_attn: at => add(at.get("attn_norm"), at.get("attn.out")),
    x_ffn: at => add(at.get("ffn_norm"), at.get("ffn.out")) } },

  "ffn-reads-input": { taps: { ffn_norm: at => rmsNorm(at.stream, at.normWeight, at.config.norm_eps) } },
  "gate-up-swapped": layers(({ ffn }) => ({ ffn: { gate: ffn.up, up: ffn.gate } })),
  gelu: activation(x => x * (1 + erf(x / Math.SQRT2)) / 2),
  relu: activation(x => Math.max(x, 0)),
  sigmoid: activation(x => 1 / (1 + Math.exp(-x))),
  "activation-forgotten": activation(x => x),
  "silu-on-product": { taps: { "ffn.silu": at => at.get("ffn.gate"),
    "ffn.hidden": (at, right) => elementwise(silu, right) } },
  "up-forgotten": { taps: { "ffn.hidden": at => at.get("ffn.silu") } },
  "residual-forgotten-ffn": { taps: { x_ffn: at => at.get("ffn.out") } },
  "one-layer-repeated": { remake: ({ weights }) => ({
    weights: { ...weights, layers: weights.layers.map(() => weights.layers[0]) } }) },

  "final-norm-forgotten": { taps: { norm: asIs } },
  "output-transposed": { remake: ({ weights }) => ({ weights: { ...weights, output: misread(weights.output) } }) },
  "output-tied": { remake: ({ weights }) => ({ weights: { ...weights, output: weights.embedding } }) },
};
