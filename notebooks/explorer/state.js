// What a person chose, all of it in the part of the URL behind #, so that a link or the Back button brings it back.
import { fromText, number, toText } from "./changes.js";
import { namesOf, split } from "./names.js";

export const MAX_TOKENS = 128;
const SAMPLING = { temperature: 0.8, top_k: 0, top_p: 0.95 };
export const TOOLS = {                                    // at the bottom: what the link calls it, what its tab says
  next: "Next token", logit: "Why this token", rotation: "Rotation", neuron: "One neuron", tokens: "Tokens",
  cache: "Cache", patch: "Second prompt", mistakes: "Mistakes", traces: "Traces",
};
export const MODES = {                                    // what "Why this token" shows of each part of the model
  adds: "what each adds to the logit",
  moves: "how far the answer moves without it (KL in nats; 0: the same)",
  leaves: "the token's probability without it (%)",
};
export const MAX_SEED = Number.MAX_SAFE_INTEGER;
export const END = 1e6;                                   // a position behind the last token; clamped to the last one

export const freshState = () => ({
  text: "Once upon a time there was a king who",
  keep: null,                                             // how many tokens of the text are used; null: all
  extra: [],                                              // ids of the tokens that were drawn after it
  selected: "layers.3.attn.probs",
  index: [1, 9, 8],
  openLayer: 0,                                           // the layer that is seen, where the tensor is of none
  head: null,                                             // a head that is shown alone
  show: "run",                                            // "run", or its difference from "trained" or from a "file"
  changes: [],
  sampling: { ...SAMPLING },
  seed: 1,
  tab: "next",
  token: null,                                            // the token whose logit is taken apart; null: the likeliest
  rival: null,                                            // a second one, whose logit is subtracted
  mode: "adds",
  pair: 0,                                                // the pair of columns whose rotation is shown
  neuron: 0,
  second: "Once upon a time there was a queen who",       // the prompt that a tensor can be taken from
});

const joined = (list, mark) => list.join(mark);

const isWhole = (n, least, most) => Number.isInteger(n) && n >= least && n <= most;

// Readers of a whole number, of a list of them, and of one of these words: (text, configuration, key) -> value. Most
// bounds depend on the model.

const whole = (mostOf, least = 0) => (text, config, key) => {
  const n = number(text), most = mostOf(config);
  if (!isWhole(n, least, most)) throw Error(`${key}=${text} is not a whole number from ${least} to ${most}`);
  return n;
};

const wholes = mostOf => (text, config, key) => {
  const list = text.split(".").map(number), most = mostOf(config), isValid = list.every(n => isWhole(n, 0, most));
  if (!isValid) throw Error(`${key}=${text} is not a list of whole numbers from 0 to ${most}, with dots between them`);
  return list;
};

const oneOf = words => (text, config, key) => {
  if (!words.includes(text)) throw Error(`${key}=${text} is none of ${words.join(", ")}`);
  return text;
};

const lastToken = config => config.vocab_size - 1;

// key in the URL: [field of the state, to text, reader]
const FIELDS = {
  p: ["text", String, String],
  keep: ["keep", String, whole(() => MAX_TOKENS, 1)],
  add: ["extra", list => joined(list, "."), wholes(lastToken)],
  t: ["selected", String, readName],
  i: ["index", list => joined(list, "."), wholes(() => END)],
  layer: ["openLayer", String, whole(config => config.n_layers - 1)],
  h: ["head", String, whole(config => config.n_heads - 1)],
  show: ["show", String, oneOf(["run", "trained", "file"])],
  c: ["changes", toText, fromText],
  s: ["sampling", s => joined([s.temperature, s.top_k, s.top_p], "_"), readSampling],
  seed: ["seed", String, whole(() => MAX_SEED)],
  tab: ["tab", String, oneOf(Object.keys(TOOLS))],
  v: ["token", String, whole(lastToken)],
  minus: ["rival", String, whole(lastToken)],
  mode: ["mode", String, oneOf(Object.keys(MODES))],
  pair: ["pair", String, whole(config => config.head_dim / 2 - 1)],
  neuron: ["neuron", String, whole(config => config.hidden_dim - 1)],
  second: ["second", String, String],
};
const ALWAYS = new Set(["p", "t", "i"]);                  // written even where nothing was chosen, so that links last

function readName(text, config) {
  if (!namesOf(config.n_layers).includes(text)) throw Error(`this model has no tensor ${text}`);
  return text;
}

function readSampling(text) {
  const [temperature, top_k, top_p] = text.split("_").map(number);
  const valid = temperature >= 0 && temperature < Infinity && isWhole(top_k, 0, Infinity) && top_p > 0 && top_p <= 1;
  if (!valid) throw Error(`s=${text} is not temperature_top-k_top-p, such as s=0.8_0_0.95`);
  return { temperature, top_k, top_p };
}

export function toHash(state) {
  const query = new URLSearchParams(), fresh = freshState(), isInLayer = split(state.selected).layer !== null;
  for (const [key, [field, write]] of Object.entries(FIELDS)) {
    if (key === "layer" && isInLayer) continue;           // the tensor's name says it
    const text = write(state[field] ?? "");
    const asFresh = text === write(fresh[field] ?? "");
    if (ALWAYS.has(key) || !asFresh) query.set(key, text);
  }
  return "#" + query;
}

// What a link says, and for the rest a fresh state, which is changed. Throws Error, in one sentence, for what cannot be
// read or is not in a model of this configuration.
export function fromHash(hash, config, state) {
  const query = new URLSearchParams(hash.slice(1));
  const unknown = [...query.keys()].find(key => !Object.hasOwn(FIELDS, key));
  if (unknown !== undefined) throw Error(`${unknown} is none of its keys: ${Object.keys(FIELDS).join(", ")}`);
  for (const [key, [field, , read]] of Object.entries(FIELDS))
    if (query.has(key)) state[field] = read(query.get(key), config, key);
  if (query.has("p") && !query.has("i")) state.index = [0, END, END];
  return state;
}
