// Numbers, tokens and places in a tensor, as a person reads them.
import { keyHead } from "./engine.js";
import { flatIndex } from "./explain.js";
import { letters, split } from "./names.js";

const MINUS = "−";
const SMALL = 1e-3, LARGE = 1e5;                          // outside of these, a number is written with a power of ten

export function num(value, digits = 4) {
  if (value === Infinity) return "∞";
  if (value === -Infinity) return MINUS + "∞";
  if (Number.isNaN(value)) return "not a number";
  const size = Math.abs(value), plain = size === 0 || (size >= SMALL && size < LARGE);
  const withPower = () => value.toExponential(Math.max(0, digits - 1)).replace("e", " e").replace("+", "");
  return (plain ? value.toFixed(digits) : withPower()).replaceAll("-", MINUS);
}

export function short(value) {                            // five characters, for a cell
  const size = Math.abs(value);
  if (!Number.isFinite(value) || size === 0) return num(value, 0);
  if (size >= 100) return num(value, 0);
  if (size >= 10) return num(value, 1);
  if (size >= 0.095) return num(value, 2);
  if (size >= 0.00095) return num(value, 4).replace("0.", ".");
  return value.toExponential(0).replaceAll("-", MINUS);
}

export function percent(p) {
  if (p >= 0.0995) return (100 * p).toFixed(0);
  return p >= 0.0005 ? (100 * p).toFixed(1) : "<0.1";
}

export const spaced = piece => piece.replaceAll("\u2581", " ");

export function shown(tokenizer, id) {                    // a token as a label: what cannot be seen gets a sign
  const piece = tokenizer.pieces[id];
  if (piece === "<0x0A>") return "⏎";
  return spaced(piece).trim() || "␣";
}

export const valueAt = (x, index) => x.data[flatIndex(x.shape, index)];

export function shapeText(name, x) {                      // "H 8 × T 10 × S 10"
  return [...letters(name)].map((letter, axis) => `${letter} ${x.shape[axis]}`).join(" × ");
}

export const keyHeadOf = (config, head) => keyHead(head, config.n_heads, config.n_kv_heads);

// "query head 1 (key head 0), query 9 “who”, key 8 “king”"; of an index without its end, the words for what is there.
export function placeWords(now, name, index) {
  const { config, tokenizer } = now.model, axes = [...letters(name)], isMap = axes.at(-1) === "S";
  const token = t => `${t} “${shown(tokenizer, now.run.tokens[t])}”`;
  const words = {
    H: head => `query head ${head} (key head ${keyHeadOf(config, head)})`,
    G: head => `key head ${head}`,
    T: t => (isMap ? "query " : "token ") + token(t),
    S: s => "key " + token(s),
    D: column => `column ${column}`,
    d: column => `column ${column} of the head`,
    F: column => `neuron ${column}`,
    V: id => `next token “${shown(tokenizer, id)}”`,
  };
  return index.map((i, axis) => words[axes[axis]](i)).join(", ");
}

export const isAttentionMap = name => ["attn.scores", "attn.probs"].includes(split(name).short);
