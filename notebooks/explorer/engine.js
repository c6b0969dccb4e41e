// The model of numpy_llama.py in plain JavaScript: the same functions, names and taps, in the same order.
//
// A tensor is {shape, data}: data is a Float32Array, row after row. Numbers are stored in float32 and added up in
// float64, as JavaScript's numbers are. Matrices are (out, in), as on disk: each output is a row times x.
//
//   T new tokens   S tokens seen so far   D model width    F feed-forward width   V vocabulary
//   H query heads  G key/value heads      d head width     L layers
import { fastMatmul } from "./fast_matmul.js";

export function tensor(shape, data = null) {
  return { shape, data: data ?? new Float32Array(sizeOf(shape)) };
}

export const sizeOf = shape => shape.reduce((product, n) => product * n, 1);

// Throw an Error with one sentence for a person if something is wrong.
export function refuse(wrong, message) {
  if (wrong) throw Error(message);
}

// ---- Taps ----------------------------------------------------------------------------------------------------

export const ignore = (name, x) => x;

export const under = (prefix, tap) => (name, x) => tap(`${prefix}.${name}`, x);

// A trace (Map: name -> tensor) and the tap that records into it what an inner tap returns.
export function newTrace(inner = ignore) {
  const trace = new Map();
  const tap = (name, x) => {
    trace.set(name, inner(name, x));
    return trace.get(name);
  };
  return { trace, tap };
}

// ---- Primitives ----------------------------------------------------------------------------------------------

// x[from..to) to probabilities, in place; -Infinity gives 0.
function softmaxRow(x, from, to) {
  let largest = -Infinity;
  for (let i = from; i < to; i++) largest = Math.max(largest, x[i]);
  let sum = 0;
  for (let i = from; i < to; i++) sum += x[i] = Math.exp(x[i] - largest);
  for (let i = from; i < to; i++) x[i] /= sum;
}

export const silu = x => x / (1 + Math.exp(-x));

// Divide each row by its root mean square, then scale: (T, D), (D) -> (T, D).
export function rmsNorm(x, weight, eps) {
  const [T, D] = x.shape;
  const y = tensor([T, D]);
  for (let t = 0; t < T; t++) {
    let sum = 0;
    for (let i = t * D; i < t * D + D; i++) sum += x.data[i] * x.data[i];
    const rms = Math.sqrt(sum / D + eps);
    for (let i = 0; i < D; i++) y.data[t * D + i] = x.data[t * D + i] / rms * weight.data[i];
  }
  return y;
}

// x @ w.T: (T, n), (m, n) -> (T, m).
export function matmul(x, w) {
  const [T, n] = x.shape, [m] = w.shape;
  const y = tensor([T, m]);
  if (fastMatmul(x.data, w.data, y.data, T, m, n)) return y;
  for (let t = 0; t < T; t++) {
    for (let o = 0; o < m; o++) y.data[t * m + o] = dot(x.data, t * n, w.data, o * n, n);
  }
  return y;
}

// The sum of n products a[i] * b[i], from two places on.
function dot(a, fromA, b, fromB, n) {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += a[fromA + i] * b[fromB + i];
  return sum;
}

// f of two tensors of one shape, number by number.
export function elementwise(f, a, b = a) {
  const y = tensor(a.shape);
  for (let i = 0; i < y.data.length; i++) y.data[i] = f(a.data[i], b.data[i]);
  return y;
}

// a + b and a * b have loops of their own: browsers do not inline an f that is not always the same.
export function add(a, b) {
  const y = tensor(a.shape);
  for (let i = 0; i < y.data.length; i++) y.data[i] = a.data[i] + b.data[i];
  return y;
}

function multiply(a, b) {
  const y = tensor(a.shape);
  for (let i = 0; i < y.data.length; i++) y.data[i] = a.data[i] * b.data[i];
  return y;
}

// ---- Positions -----------------------------------------------------------------------------------------------

// By how much each pair turns in one position, each step rounded to float32 where numpy_llama.py rounds it: (d/2).
export function ropeFrequencies(d, theta) {
  return Float32Array.from({ length: d / 2 }, (_, i) => {
    const exponent = Math.fround(2 * i / d);
    return 1 / Math.fround(Math.pow(theta, exponent));
  });
}

// Cosine and sine of the angle of each pair: (T), (d/2) -> (T, d/2), (T, d/2).
export function ropeCosSin(positions, frequencies) {
  const T = positions.length, half = frequencies.length;
  const cos = tensor([T, half]), sin = tensor([T, half]);
  for (let t = 0; t < T; t++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(positions[t] * frequencies[i]);
      cos.data[t * half + i] = Math.cos(angle);
      sin.data[t * half + i] = Math.sin(angle);
    }
  }
  return [cos, sin];
}

// The two members of pair i: halves (i, i + d/2) as trained, or neighbours (2i, 2i + 1) as in Meta's files.
export const pairOf = (i, d, pairing) => pairing === "neighbours" ? [2 * i, 2 * i + 1] : [i, i + d / 2];

// Turn each pair by its angle: (heads, T, d) -> (heads, T, d).
export function rope(x, cos, sin, pairing = "halves") {
  const [heads, T, d] = x.shape;
  const y = tensor(x.shape);
  for (let i = 0; i < d / 2; i++) {
    const [first, second] = pairOf(i, d, pairing);
    for (let row = 0; row < heads * T; row++) {
      const a = x.data[row * d + first], b = x.data[row * d + second];
      const c = cos.data[row % T * d / 2 + i], s = sin.data[row % T * d / 2 + i];
      y.data[row * d + first] = a * c - b * s;
      y.data[row * d + second] = b * c + a * s;
    }
  }
  return y;
}

// ---- Attention -----------------------------------------------------------------------------------------------

// (T, heads * d) -> (heads, T, d)
function splitHeads(x, d) {
  const [T, width] = x.shape;
  const heads = width / d;
  const y = tensor([heads, T, d]);
  for (let h = 0; h < heads; h++) {
    for (let t = 0; t < T; t++) {
      const from = t * width + h * d;
      y.data.set(x.data.subarray(from, from + d), (h * T + t) * d);
    }
  }
  return y;
}

// (heads, T, d) -> (T, heads * d)
export function mergeHeads(x) {
  const [heads, T, d] = x.shape;
  const y = tensor([T, heads * d]);
  for (let h = 0; h < heads; h++) {
    for (let t = 0; t < T; t++) {
      const from = (h * T + t) * d;
      y.data.set(x.data.subarray(from, from + d), (t * heads + h) * d);
    }
  }
  return y;
}

// An empty cache for each layer: the rotated keys and the values of the tokens seen so far, (G, room, d) each.
export function newCache(config, room = config.max_seq_len) {
  const shape = [config.n_kv_heads, room, config.head_dim];
  return Array.from({ length: config.n_layers }, () => ({ length: 0, room, k: tensor(shape), v: tensor(shape) }));
}

// Append T keys and values, return all: (G, T, d), (G, T, d) -> (G, S, d), (G, S, d).
function extend(cache, k, v) {
  const end = cache.length + k.shape[1];
  refuse(end > cache.room, `the cache is full: ${end} tokens do not fit in ${cache.room}`);
  const all = [append(cache.k, cache.length, k), append(cache.v, cache.length, v)];
  cache.length = end;
  return all;
}

// Write x behind the first `length` positions, return what is held then: (G, room, d), (G, T, d) -> (G, S, d).
function append(held, length, x) {
  const [G, room, d] = held.shape, T = x.shape[1];
  const all = tensor([G, length + T, d]);
  for (let g = 0; g < G; g++) {
    const start = g * room * d;
    held.data.set(x.data.subarray(g * T * d, (g + 1) * T * d), start + length * d);
    all.data.set(held.data.subarray(start, start + (length + T) * d), g * (length + T) * d);
  }
  return all;
}

// Query head h uses key head h // (H / G).
export const keyHead = (h, H, G) => Math.floor(h / (H / G));

// Each query's average of the values: (H, T, d), (G, S, d), (G, S, d) -> (H, T, d). The first query stands at `start`.
export function attention(q, k, v, start, tap = ignore) {
  const scores = tap("scores", attentionScores(q, k, start));
  const probs = tap("probs", softmax(scores));
  return tap("heads", weightedValues(probs, v));
}

// q k / sqrt(d), -Infinity where a key is in the future: (H, T, d), (G, S, d) -> (H, T, S).
function attentionScores(q, k, start) {
  const [H, T, d] = q.shape, [G, S] = k.shape;
  const scores = tensor([H, T, S]);
  for (let h = 0; h < H; h++) {
    const g = keyHead(h, H, G);
    for (let t = 0; t < T; t++) {
      for (let s = 0; s < S; s++) {
        const future = s > start + t;
        const product = future ? -Infinity : dot(q.data, (h * T + t) * d, k.data, (g * S + s) * d, d);
        scores.data[(h * T + t) * S + s] = product / Math.sqrt(d);
      }
    }
  }
  return scores;
}

// Along the last axis: (H, T, S) -> (H, T, S).
function softmax(x) {
  const [H, T, S] = x.shape;
  const y = tensor(x.shape, x.data.slice());
  for (let row = 0; row < H * T; row++) softmaxRow(y.data, row * S, row * S + S);
  return y;
}

// probs times values: (H, T, S), (G, S, d) -> (H, T, d).
function weightedValues(probs, v) {
  const [H, T, S] = probs.shape, [G, , d] = v.shape;
  const heads = tensor([H, T, d]);
  const sums = new Float64Array(d);
  for (let h = 0; h < H; h++) {
    const g = keyHead(h, H, G);
    for (let t = 0; t < T; t++) {
      sums.fill(0);
      for (let s = 0; s < S; s++) {
        const p = probs.data[(h * T + t) * S + s];
        if (p === 0) continue;                            // half of them: the future
        for (let i = 0; i < d; i++) sums[i] += p * v.data[(g * S + s) * d + i];
      }
      heads.data.set(sums, (h * T + t) * d);
    }
  }
  return heads;
}

// Project, rotate, remember, attend, project back: (T, D) -> (T, D).
function selfAttention(x, { wq, wk, wv, wo }, cos, sin, start, pairing, cache, tap) {
  const d = 2 * cos.shape[1];
  let q = tap("q", splitHeads(matmul(x, wq), d));         // (H, T, d)
  let k = tap("k", splitHeads(matmul(x, wk), d));         // (G, T, d)
  let v = tap("v", splitHeads(matmul(x, wv), d));         // (G, T, d)
  q = tap("q_rope", rope(q, cos, sin, pairing));
  k = tap("k_rope", rope(k, cos, sin, pairing));
  if (cache) [k, v] = extend(cache, k, v);                // (G, S, d)
  return tap("out", matmul(mergeHeads(attention(q, k, v, start, tap)), wo));
}

// ---- The model -----------------------------------------------------------------------------------------------

// SwiGLU: (T, D) -> (T, D).
function feedForward(x, { gate, up, down }, tap) {
  const siluGate = tap("silu", elementwise(silu, tap("gate", matmul(x, gate))));        // (T, F)
  const hidden = tap("hidden", multiply(siluGate, tap("up", matmul(x, up))));
  return tap("out", matmul(hidden, down));
}

// One layer: attention, then feed-forward, each normalised before and added after: (T, D) -> (T, D).
function block(x, layer, cos, sin, start, config, cache, tap) {
  let h = tap("attn_norm", rmsNorm(x, layer.attn_norm, config.norm_eps));
  h = selfAttention(h, layer.attn, cos, sin, start, config.pairing, cache, under("attn", tap));
  x = tap("x_attn", add(x, h));
  h = tap("ffn_norm", rmsNorm(x, layer.ffn_norm, config.norm_eps));
  return tap("x_ffn", add(x, feedForward(h, layer.ffn, under("ffn", tap))));
}

// The logits of the token after each token: (T) -> (T, V). With a cache, the tokens continue those that it holds.
// A config may also say `pairing: "neighbours"`, and a `shift` that is added to every position.
export function forward(tokens, weights, config, { cache = null, tap = ignore } = {}) {
  const start = cache ? cache[0].length : 0;
  checkTokens(tokens, start, config);
  const positions = Array.from(tokens, (_, t) => start + t + (config.shift ?? 0));
  const [cos, sin] = ropeCosSin(positions, ropeFrequencies(config.head_dim, config.rope_theta));

  let x = tap("embedding", rows(weights.embedding, tokens));
  for (const [i, layer] of weights.layers.entries()) {
    x = block(x, layer, cos, sin, start, config, cache?.[i], under(`layers.${i}`, tap));
  }
  x = tap("norm", rmsNorm(x, weights.norm, config.norm_eps));
  return tap("logits", matmul(x, weights.output));
}

// Some rows of a matrix: (n, D), (T) -> (T, D).
export function rows(x, which) {
  const D = x.shape[1];
  const y = tensor([which.length, D]);
  which.forEach((from, to) => y.data.set(x.data.subarray(from * D, from * D + D), to * D));
  return y;
}

function checkTokens(tokens, start, config) {
  refuse(tokens.length === 0, "a prompt needs at least one token");
  const outside = tokens.find(id => !Number.isInteger(id) || id < 0 || id >= config.vocab_size);
  refuse(outside !== undefined, `token id ${outside} is outside the vocabulary of ${config.vocab_size}`);
  const seen = start + tokens.length;
  refuse(seen > config.max_seq_len, `${seen} tokens do not fit in the context of ${config.max_seq_len}`);
}
