// The key/value cache of one layer: a slot for each position, filled as tokens are drawn.
import { join } from "./names.js";
import { limitOf, paint } from "./colours.js";
import { el } from "./dom.js";
import { MAX_TOKENS } from "./state.js";

const FLOAT_BYTES = 4;                                          // of a float32
const KIB = 1024;

export function makeCacheView(root) {
  const words = el("p", { className: "sentence" }), maps = el("div", { className: "cache-maps" });
  root.append(words, maps);

  // The cache of a run that is being drawn holds {k, v, length}; a finished run has the same numbers in its trace.
  return function draw(now, live = null) {
    const { config } = now.model, layer = now.openLayer, [G, d] = [config.n_kv_heads, config.head_dim];
    const keys = live ? live[layer].k : now.run.trace.get(join(layer, "attn.k_rope"));
    const values = live ? live[layer].v : now.run.trace.get(join(layer, "attn.v"));
    const length = live ? live[layer].length : now.run.tokens.length;
    const perToken = 2 * G * d * config.n_layers * FLOAT_BYTES / KIB;
    words.textContent = `Layer ${layer}: ${length} of ${MAX_TOKENS} slots hold the rotated keys and the values of the tokens so far. ` +
      `A new token adds one column to each of these maps, in every layer (${perToken} KiB in all, ${(perToken * length).toFixed(0)} KiB ` +
      `now), and only its own row goes through the model; without a cache, all ${length} rows would go again.`;
    const heads = Array.from({ length: G }, (_, g) => g);
    maps.replaceChildren(...heads.flatMap(g => [map(`keys, head ${g}`, keys, g, length, d, now.ramps),
      map(`values, head ${g}`, values, g, length, d, now.ramps)]));
  };
}

function map(text, x, head, length, d, ramps) {           // columns are positions, rows the d numbers of a head
  const canvas = el("canvas", { role: "img", "aria-label": `${text}: ${length} of ${MAX_TOKENS} slots filled` });
  const room = x.shape[1], value = (r, t) => t < length ? x.data[(head * room + t) * d + r] : NaN;
  paint(canvas, d, MAX_TOKENS, value, ramps, false, limitOf(x.data.subarray(head * room * d, (head * room + length) * d), false));
  return el("figure", {}, el("figcaption", { textContent: text }), canvas);
}
