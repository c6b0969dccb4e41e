// What a logit is made of, layer by layer and part by part, and how well the text is predicted.

import { matmul, rmsNorm, rows, tensor } from "./engine.js";
import { join, streamInto } from "./names.js";
import { nextTokenProbs } from "./sampling.js";

// A run's logits after a token, and its answer there: (V).
export function rowOf(run, position) {
  const x = run.trace.get("logits"), V = x.shape[1];
  return x.data.subarray(position * V, (position + 1) * V);
}

export const probsAt = (run, position) => nextTokenProbs(rowOf(run, position));

// Kullback-Leibler divergence in nats: how far the second answer is from the first.
export const divergence = (was, now) =>
  was.reduce((sum, p, id) => p > 0 ? sum + p * Math.log(p / Math.max(now[id], 1e-300)) : sum, 0);

// What would come next if the model stopped after each layer: [{name, probs (V)}, ...]. The last is the run's answer.
export function lens(run, position) {
  const { weights, config, trace } = run;
  const early = Array.from({ length: config.n_layers }, (_, i) => streamInto(i)).map(name => {
    const x = rmsNorm(rows(trace.get(name), [position]), weights.norm, config.norm_eps);
    return { name, probs: nextTokenProbs(matmul(x, weights.output).data) };
  });
  return [...early, { name: streamInto(config.n_layers), probs: probsAt(run, position) }];
}

// How surprised the model is by the prompt's next tokens: their mean cross-entropy, in nats.
export function loss(run) {
  const { tokens, trace } = run;
  if (tokens.length < 2) return NaN;
  const losses = tokens.slice(1).map((next, t) => {
    const logits = rows(trace.get("logits"), [t]).data;
    const largest = logits.reduce((a, b) => Math.max(a, b));
    const sum = logits.reduce((total, x) => total + Math.exp(x - largest), 0);
    return Math.log(sum) + largest - logits[next];
  });
  return losses.reduce((a, b) => a + b) / losses.length;
}

// What the embedding, each head and each feed-forward add to a token's logit: {list, sum, logit}. The logit is linear
// in the residual stream once the final norm's root mean square is taken as it is, so that the parts add up exactly.
// Where a change breaks into the stream, what it adds stands in the list too.
export function contributions(run, position, token) {
  const { trace, weights, config } = run;
  const at = name => rows(trace.get(name), [position]).data;
  const stream = at(streamInto(config.n_layers));
  const direction = logitDirection(run, position, token), share = part => innerProduct(part, direction);
  const list = [];
  const add = (part, name, label, value, more = {}) => list.push({ part, name, label, value, ...more });
  const addChange = (name, value) => {
    if (Math.abs(value) > 1e-4) add("change", name, `change at ${name}`, value);
  };

  add("embedding", "embedding", "embedding", share(at("embedding")));
  for (let layer = 0; layer < config.n_layers; layer++) {
    const names = Object.fromEntries(["attn.heads", "attn.out", "x_attn", "ffn.out", "x_ffn"].map(
      short => [short, join(layer, short)]));
    const heads = headOutputs(trace.get(names["attn.heads"]), position, weights.layers[layer].attn.wo);
    const headShares = heads.map(share);
    headShares.forEach((value, head) => {
      add("head", names["attn.heads"], `layer ${layer}, head ${head}`, value, { layer, head });
    });
    const attention = share(at(names["attn.out"])), feedForward = share(at(names["ffn.out"]));
    addChange(names["attn.out"], attention - total(headShares));
    const before = share(at(streamInto(layer))), between = share(at(names.x_attn)), after = share(at(names.x_ffn));
    addChange(names.x_attn, between - before - attention);
    add("feed-forward", names["ffn.out"], `layer ${layer}, feed-forward`, feedForward, { layer });
    addChange(names.x_ffn, after - between - feedForward);
  }
  const row = weights.output.data.subarray(token * config.dim, (token + 1) * config.dim);
  const product = at("norm").reduce((sum, x, i) => sum + x * row[i], 0);
  const logit = at("logits")[token];
  addChange("norm", product - share(stream));
  addChange("logits", logit - product);
  return { list, sum: total(list.map(part => part.value)), logit };
}

const total = numbers => numbers.reduce((a, b) => a + b, 0);

const innerProduct = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);

// By what each column of the last stream is multiplied on its way into the token's logit: (D).
function logitDirection({ trace, weights, config }, position, token) {
  const D = config.dim, stream = rows(trace.get(streamInto(config.n_layers)), [position]).data;
  const rms = Math.sqrt(total(Array.from(stream, x => x * x)) / D + config.norm_eps);
  return Float64Array.from({ length: D },
    (_, i) => weights.norm.data[i] * weights.output.data[token * D + i] / rms);
}

// What each column of a part of the stream, "ffn.out" for example, adds to a token's logit: (D).
export function columnShares(run, position, token, name) {
  const direction = logitDirection(run, position, token);
  return Float64Array.from(rows(run.trace.get(name), [position]).data, (x, i) => x * direction[i]);
}

// What each neuron of a layer adds to a token's logit: (F).
export function neuronShares(run, position, token, layer) {
  const hidden = rows(run.trace.get(join(layer, "ffn.hidden")), [position]).data, F = hidden.length;
  const { data } = run.weights.layers[layer].ffn.down, shares = new Float64Array(F);
  logitDirection(run, position, token).forEach((factor, i) => {
    for (let j = 0; j < F; j++) shares[j] += factor * data[i * F + j];
  });
  return shares.map((share, j) => share * hidden[j]);
}

// Each head's own share of attn.out: (H, T, d) -> H times (D).
function headOutputs(heads, position, wo) {
  const [H, T, d] = heads.shape, [D, width] = wo.shape;
  return Array.from({ length: H }, (_, h) => {
    const alone = tensor([1, width]);
    const from = (h * T + position) * d;
    alone.data.set(heads.data.subarray(from, from + d), h * d);
    return matmul(alone, wo).data;
  });
}
