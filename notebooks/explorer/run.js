// One run of the model with its changes, all at once or token by token.

import { forward, newCache, newTrace, rows } from "./engine.js";
import { changed } from "./changes.js";
import { drawToken, nextTokenProbs } from "./sampling.js";

// Tokens through the model: {tokens, trace, weights, config, changes, touched, ms}, as changed. A change may be about
// the tokens themselves (the mistake "bos-missing"), so these are not always the ones that came in.
export function runModel(tokens, model, changes = [], patches = new Map()) {
  const began = performance.now();
  const run = changed(changes, { tokens, patches, ...model });
  const { trace, tap } = newTrace(run.tapFrom(0));
  forward(run.tokens, run.weights, run.config, { tap });
  const { weights, config, touched } = run;
  return { tokens: run.tokens, trace, weights, config, changes, touched, ms: performance.now() - began };
}

// Yield new tokens one by one, {id, probs, cache}: the first from the prompt, each next one from the one before and
// the cache. A stop id is yielded and ends it, and so does a full context.
export function* generate(tokens, model, changes, patches, options) {
  const { count, random, stop = [], temperature = 1, top_k = 0, top_p = 1 } = options;
  const run = changed(changes, { tokens, patches, ...model });
  const room = Math.min(run.tokens.length + count, run.config.max_seq_len);
  const cache = newCache(run.config, room);
  let next = run.tokens;
  for (let made = 0; made < count && cache[0].length + next.length <= room; made++) {
    const logits = forward(next, run.weights, run.config, { cache, tap: run.tapFrom(cache[0].length) });
    const last = rows(logits, [next.length - 1]).data;
    const probs = nextTokenProbs(last, temperature, top_k, top_p);
    const id = temperature === 0 ? probs.indexOf(1) : drawToken(probs, random());
    yield { id, probs, cache };
    if (stop.includes(id)) return;
    next = [id];
  }
}
