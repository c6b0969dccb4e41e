// The key/value cache of one layer: a slot for each position, filled as tokens are drawn.
import { join } from "./names.js";
import { limitOf, paint } from "./colours.js";
import { el, row } from "./dom.js";
import { MAX_TOKENS } from "./state.js";

const FLOAT_BYTES = 4;
const KIB = 1024;

export function makeCacheView(root, { drawTokens, onlyPrompt }) {
  const words = el("p", { className: "sentence" });
  const maps = el("div", { className: "cache-maps" });
  const button = (text, onclick) => el("button", { textContent: text, onclick });
  const buttons = row(el("span", { textContent: "Watch the slots fill:" }), button("draw 1", () => drawTokens(1)),
    button("draw 20", () => drawTokens(20)), button("only the prompt", onlyPrompt));
  root.append(words, buttons, maps);

  return function draw(now) {
    const { n_kv_heads } = now.model.config;
    const { keys, values, length } = cacheOf(now);
    words.textContent = cacheWords(now, length);
    const heads = Array.from({ length: n_kv_heads }, (_, head) => head);
    maps.replaceChildren(...heads.flatMap(head => [
      slots(`keys, head ${head}`, keys, head, length, now.ramps),
      slots(`values, head ${head}`, values, head, length, now.ramps),
    ]));
  };
}

// The cache of a run that is being drawn; that of a finished run has the same numbers as its trace.
function cacheOf(now) {
  const layer = now.openLayer;
  if (now.live) return { keys: now.live[layer].k, values: now.live[layer].v, length: now.live[layer].length };
  const { trace, tokens } = now.run;
  const keys = trace.get(join(layer, "attn.k_rope")), values = trace.get(join(layer, "attn.v"));
  return { keys, values, length: tokens.length };
}

function cacheWords(now, length) {
  const { n_kv_heads, head_dim, n_layers } = now.model.config;
  const perToken = 2 * n_kv_heads * head_dim * n_layers * FLOAT_BYTES / KIB;
  return `Layer ${now.openLayer}: ${length} of ${MAX_TOKENS} slots hold the rotated keys and the values of the ` +
    "tokens so far. A new token adds one column to each of these maps, in every layer " +
    `(${perToken} KiB in all, ${(perToken * length).toFixed(0)} KiB now), and only its own row goes through ` +
    `the model; without a cache, all ${length} rows would go again.`;
}

function slots(text, x, head, length, ramps) {            // columns are positions, rows the d numbers of a head
  const canvas = el("canvas", { role: "img", "aria-label": `${text}: ${length} of ${MAX_TOKENS} slots filled` });
  const [, room, d] = x.shape;
  const from = head * room * d;
  const held = x.data.subarray(from, from + length * d), numbers = new Float32Array(d * MAX_TOKENS).fill(NaN);
  held.forEach((value, i) => { numbers[i % d * MAX_TOKENS + Math.floor(i / d)] = value; });
  paint(canvas, d, MAX_TOKENS, numbers, ramps, false, limitOf(held, false));
  return el("figure", {}, el("figcaption", { textContent: text }), canvas);
}
