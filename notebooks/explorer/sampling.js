// From logits to the next token: temperature, top-k, top-p, and the draw.

import { refuse } from "./engine.js";

function checkSampling(temperature, top_k, top_p) {
  refuse(!(temperature >= 0 && temperature < Infinity),
    `temperature must be 0 (greedy) or a positive number, not ${temperature}`);
  refuse(!(top_k >= 0), `top_k must be 0 (off) or a positive integer, not ${top_k}`);
  refuse(!(top_p > 0 && top_p <= 1), `top_p must be above 0 and at most 1 (off), not ${top_p}`);
}

// The distribution to draw the next token from: (V) -> (V), in float64. Temperature divides the logits (0 is greedy);
// top_k keeps the k likeliest tokens, and any that tie with the last of them; top_p then keeps the smallest set of
// likeliest tokens that holds at least p.
export function nextTokenProbs(logits, temperature = 1, top_k = 0, top_p = 1) {
  checkSampling(temperature, top_k, top_p);
  refuse(!logits.every(Number.isFinite), "the logits are not finite");
  const probs = Float64Array.from(logits);
  const largest = probs.reduce((a, b) => Math.max(a, b));
  if (temperature === 0) {
    const first = probs.indexOf(largest);
    return probs.fill(0).fill(1, first, first + 1);
  }
  const order = top_k > 0 || top_p < 1 ? likeliest(probs) : [];
  const least = top_k > 0 && top_k < probs.length ? probs[order[top_k - 1]] : -Infinity;
  for (let i = 0; i < probs.length; i++) probs[i] = probs[i] < least ? 0 : Math.exp((probs[i] - largest) / temperature);
  normalise(probs);
  if (top_p < 1) {
    let before = 0;                                       // what the likelier tokens hold
    for (const i of order) {
      const kept = before < top_p;
      before += probs[i];
      if (!kept) probs[i] = 0;
    }
    normalise(probs);
  }
  return probs;
}

// Indices from the largest number to the smallest; of equals, the first comes first.
export const likeliest = x => Array.from(x.keys()).sort((i, j) => x[j] - x[i] || i - j);

function normalise(probs) {
  const sum = probs.reduce((a, b) => a + b);
  for (let i = 0; i < probs.length; i++) probs[i] /= sum;
}

// The token into whose share a random number from [0, 1) falls: (V) -> id.
export function drawToken(probs, random) {
  const total = probs.reduce((a, b) => a + b);
  let sum = 0;
  return probs.findIndex(p => (sum += p) / total > random);
}
