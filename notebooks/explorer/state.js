// What a person chose, all of it in the part of the URL behind #, so that a link or the Back button brings it back.
import { fromText, toText } from "./changes.js";
import { namesOf } from "./names.js";

export const MAX_TOKENS = 128;
const SAMPLING = { temperature: 0.8, top_k: 0, top_p: 0.95 };
export const TOOLS = {                                    // at the bottom: what the link calls it, what its tab says
  next: "Next token", logit: "Why this token", rotation: "Rotation", neuron: "One neuron", tokens: "Tokens",
  cache: "Cache", patch: "Second prompt", mistakes: "Mistakes", traces: "Traces",
};
export const END = 1e6;                                   // a position behind the last token; clamped to the last one

export const freshState = () => ({
  text: "Once upon a time there was a king who",
  keep: null,                                             // how many tokens of the text are used; null: all
  extra: [],                                              // ids of the tokens that were drawn after it
  selected: "layers.3.attn.probs",
  index: [1, 9, 8],
  head: null,                                             // a head that is shown alone
  show: "run",                                            // "run", or its difference from "trained" or from a "file"
  changes: [],
  sampling: { ...SAMPLING },
  seed: 1,
  tab: "next",
  token: null,                                            // the token whose logit is taken apart; null: the likeliest
  rival: null,                                            // a second one, whose logit is subtracted
  mode: "adds",                                           // what is shown of each part of the model
  pair: 0,                                                // the pair of columns whose rotation is shown
  neuron: 0,
  second: "Once upon a time there was a queen who",       // the prompt that a tensor can be taken from
});

const joined = (list, mark) => list.join(mark);
const numbers = (text, mark) => text === "" ? [] : text.split(mark).map(Number);
const toNumber = text => text === "" ? null : Number(text);

// key in the URL: [field of the state, to text, from text and configuration]
const FIELDS = {
  p: ["text", String, String],
  keep: ["keep", String, toNumber],
  add: ["extra", list => joined(list, "."), text => numbers(text, ".")],
  t: ["selected", String, readName],
  i: ["index", list => joined(list, "."), text => numbers(text, ".")],
  h: ["head", String, toNumber],
  show: ["show", String, String],
  c: ["changes", toText, fromText],
  s: ["sampling", s => joined([s.temperature, s.top_k, s.top_p], "_"), readSampling],
  seed: ["seed", String, Number],
  tab: ["tab", String, readTool],
  v: ["token", String, toNumber],
  minus: ["rival", String, toNumber],
  mode: ["mode", String, String],
  pair: ["pair", String, Number],
  neuron: ["neuron", String, Number],
  second: ["second", String, String],
};
const ALWAYS = new Set(["p", "t", "i"]);                  // written even where nothing was chosen, so that links last

function readName(text, config) {
  if (!namesOf(config.n_layers).includes(text)) throw Error(`this model has no tensor ${text}`);
  return text;
}

function readTool(text) {
  if (!Object.hasOwn(TOOLS, text)) throw Error(`tab=${text} is none of ${Object.keys(TOOLS).join(", ")}`);
  return text;
}

function readSampling(text) {
  const [temperature, top_k, top_p] = numbers(text, "_");
  const valid = temperature >= 0 && top_k >= 0 && Number.isInteger(top_k) && top_p > 0 && top_p <= 1;
  if (!valid) throw Error(`s=${text} is not temperature_top-k_top-p, such as s=0.8_0_0.95`);
  return { temperature, top_k, top_p };
}

export function toHash(state) {
  const query = new URLSearchParams(), fresh = freshState();
  for (const [key, [field, write]] of Object.entries(FIELDS)) {
    const text = write(state[field] ?? "");
    const asFresh = text === write(fresh[field] ?? "");
    if (ALWAYS.has(key) || !asFresh) query.set(key, text);
  }
  return "#" + query;
}

// Throws Error, in one sentence, for what cannot be read or is not in a model of this configuration.
export function fromHash(hash, config) {
  const query = new URLSearchParams(hash.slice(1)), state = freshState();
  const unknown = [...query.keys()].find(key => !Object.hasOwn(FIELDS, key));
  if (unknown !== undefined) throw Error(`${unknown} is none of its keys: ${Object.keys(FIELDS).join(", ")}`);
  for (const [key, [field, , read]] of Object.entries(FIELDS))
    if (query.has(key)) state[field] = checked(key, read(query.get(key), config));
  if (query.has("p") && !query.has("i")) state.index = [0, END, END];
  return state;
}

function checked(key, value) {
  const all = Array.isArray(value) ? value : [value];
  if (all.some(v => Number.isNaN(v))) throw Error(`${key} in this link is not a number`);
  return value;
}
