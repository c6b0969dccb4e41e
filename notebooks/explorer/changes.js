// What a person changes in a run: plain objects, and the tap, weights, configuration and tokens that they amount to.
//
//   {kind: "head", layer, head, scale}             scale 0 is off
//   {kind: "neuron", layer, neuron, scale}         a column of ffn.hidden
//   {kind: "part", layer, part, scale}             what "attn" or "ffn" adds to the stream
//   {kind: "norm", layer, norm, scale}             "attn_norm", "ffn_norm", or "norm" with layer null; 0 leaves it out
//   {kind: "set", name, index, value}              one number
//   {kind: "theta", value}   {kind: "pairing", value: "neighbours"}   {kind: "shift", value}
//   {kind: "patch", name, text}                    a tensor of a second prompt's run, at the positions that both have
//   {kind: "bug", bug}                             a name of bugs.js
//
// The engine knows nothing of them: a change is a tap, or other weights, another configuration or other tokens.

import { refuse, tensor } from "./engine.js";
import { join, letters, namesOf, split, streamInto } from "./names.js";
import { BUGS } from "./bugs.js";

// What a change is about: a new change takes the place of an old one of the same key.
const TARGET = {
  head: ["layer", "head"], neuron: ["layer", "neuron"], part: ["layer", "part"], norm: ["layer", "norm"],
  set: ["name", "index"], theta: [], pairing: [], shift: [], patch: ["name"], bug: ["bug"],
};
const SETTING = {
  head: ["scale"], neuron: ["scale"], part: ["scale"], norm: ["scale"], set: ["value"], theta: ["value"],
  pairing: ["value"], shift: ["value"], patch: ["text"], bug: [],
};

export const MOST_SHIFT = 100_000;                        // positions

const keyOf = change => JSON.stringify([change.kind, ...TARGET[change.kind].map(field => change[field])]);

export const same = (a, b) => keyOf(a) === keyOf(b);

// The list with one more change: in the place of the same one, or at the end; gone where it says "as trained".
export function withChange(changes, change, config) {
  const asTrained = { theta: config.rope_theta, pairing: "halves", shift: 0 }[change.kind];
  const undone = change.scale === 1 || (asTrained !== undefined && change.value === asTrained);
  const at = changes.findIndex(old => same(old, change));
  if (undone) return changes.filter(old => !same(old, change));
  return at < 0 ? [...changes, change] : changes.with(at, change);
}

// ---- Words ---------------------------------------------------------------------------------------------------

const PARTS = { attn: "attention", ffn: "feed-forward" };

const scaled = (what, scale) => scale === 0 ? `${what} off` : `${what} × ${scale}`;

// What its chip says: "layer 3: head 2 off".
export function sentence(change) {
  const inLayer = change.layer === null ? "" : `layer ${change.layer}: `;
  switch (change.kind) {
    case "head": return inLayer + scaled(`head ${change.head}`, change.scale);
    case "neuron": return inLayer + scaled(`neuron ${change.neuron}`, change.scale);
    case "part": return inLayer + scaled(PARTS[change.part], change.scale);
    case "norm": return inLayer + scaled(change.norm, change.scale);
    case "set": return `${change.name}[${change.index.join(", ")}] = ${change.value}`;
    case "theta": return `θ ${Number(change.value.toPrecision(4)).toLocaleString("en")}`;
    case "pairing": return "pairs (2i, 2i + 1)";
    case "shift": return `positions ${change.value < 0 ? "−" : "+"} ${Math.abs(change.value)}`;
    case "patch": return `${change.name} from “${change.text}”`;
    case "bug": return `mistake: ${change.bug}`;
  }
}

// ---- Text, for the page's address ----------------------------------------------------------------------------

const escape = text => encodeURIComponent(text).replaceAll("*", "%2A");

const write = value => value === null ? "" : Array.isArray(value) ? value.join(".") : escape(String(value));

// "head*3*2*0**theta*500": fields after a star, changes after two.
export function toText(changes) {
  return changes.map(change => {
    const fields = [...TARGET[change.kind], ...SETTING[change.kind]].map(field => write(change[field]));
    return [change.kind, ...fields].join("*");
  }).join("**");
}

export const number = text => text === "" ? NaN : Number(text);

const READ = {
  layer: text => text === "" ? null : number(text), head: number, neuron: number, scale: number,
  index: text => text.split(".").map(number), part: String, norm: String, name: String, bug: String, text: String,
};

// The changes that toText has written, or an Error in one sentence.
export function fromText(text, config) {
  if (text === "") return [];
  return splitChanges(text).map(([kind, ...fields]) => {
    const names = Object.hasOwn(TARGET, kind) ? [...TARGET[kind], ...SETTING[kind]] : null;
    refuse(names === null || fields.length !== names.length, `"${[kind, ...fields].join("*")}" is not a change`);
    const change = { kind };
    names.forEach((name, k) => {
      const read = READ[name] ?? (kind === "pairing" ? String : number);
      change[name] = read(decode(fields[k]));
    });
    checkChange(change, config);
    return change;
  });
}

// A field may be empty (norm's layer): "norm**norm*0" is one change. So kinds tell where a change begins.
function splitChanges(text) {
  const words = text.split("*"), changes = [];
  while (words.length > 0) {
    const kind = words[0];
    const isKnown = Object.hasOwn(TARGET, kind);
    const count = isKnown ? 1 + TARGET[kind].length + SETTING[kind].length : words.length;
    changes.push(words.splice(0, count));
    refuse(words.length > 0 && words.shift() !== "", `"${text}" is not a list of changes`);
  }
  return changes;
}

function decode(field) {
  try {
    return decodeURIComponent(field);
  } catch {
    throw Error(`"${field}" is not a field of a change`);
  }
}

// Throw an Error in one sentence for a change that this model cannot have.
function checkChange(change, config) {
  const sizes = { H: config.n_heads, G: config.n_kv_heads, D: config.dim, d: config.head_dim, F: config.hidden_dim,
    V: config.vocab_size, T: config.max_seq_len, S: config.max_seq_len };
  const isIndex = (value, size) => Number.isInteger(value) && value >= 0 && value < size;
  const { kind } = change, fields = [...TARGET[kind], ...SETTING[kind]];
  const isFinalNorm = kind === "norm" && change.norm === "norm";
  const wrong = {
    layer: value => isFinalNorm ? value !== null : !isIndex(value, config.n_layers),
    head: value => !isIndex(value, config.n_heads),
    neuron: value => !isIndex(value, config.hidden_dim),
    part: value => !Object.hasOwn(PARTS, value),
    norm: value => !["attn_norm", "ffn_norm", "norm"].includes(value),
    scale: value => !Number.isFinite(value),
    name: value => !namesOf(config.n_layers).includes(value),
    index: value => value.length !== letters(change.name).length
      || value.some((i, k) => !isIndex(i, sizes[letters(change.name)[k]])),
    value: {
      set: value => !Number.isFinite(value), theta: value => !(value > 0 && value < 1e38),
      pairing: value => value !== "neighbours",
      shift: value => !Number.isInteger(value) || Math.abs(value) > MOST_SHIFT,
    }[kind],
    text: value => typeof value !== "string", bug: value => !Object.hasOwn(BUGS, value),
  };
  for (const field of fields) {
    const value = change[field];
    refuse(wrong[field](value), `a change of the kind "${kind}" cannot have ${field} ${JSON.stringify(value)}`);
  }
}

// ---- What they amount to -------------------------------------------------------------------------------------

// All that forward needs for a run with these changes: {tokens, weights, config, tapFrom, touched}. tapFrom(start) is
// the tap for tokens that start at that position, and must be asked for chunk by chunk, in order. `touched` fills with
// what each change found and left: Map name -> [{change, before, after}]. patches: Map text -> trace of that text.
export function changed(changes, { tokens, weights, config, patches = new Map() }) {
  let made = { tokens, weights, config };
  const effects = changes.map(change => {
    checkChange(change, config);
    const effect = effectOf(change, config, patches);
    made = { ...made, ...effect.remake?.(made) };
    return { change, taps: effect.taps ?? {} };
  });
  const touched = new Map(), past = new Map();
  return { ...made, touched, tapFrom: start => changeTap(effects, made, start, past, touched) };
}

function changeTap(effects, { weights, config }, start, past, touched) {
  const now = new Map();
  return (name, x) => {
    const { layer, short } = split(name);
    const at = new At(name, layer, short, start, weights, config, now, past);
    for (const { change, taps } of effects) {
      if (!Object.hasOwn(taps, short)) continue;
      const before = x;
      x = taps[short](at, before);
      if (x !== before) touched.set(name, [...(touched.get(name) ?? []), { change, before, after: x }]);
    }
    now.set(name, x);
    if (short === "attn.k_rope" || short === "attn.v") past.set(name, [...(past.get(name) ?? []), x]);
    return x;
  };
}

// Where a tap stands, and what was computed before it.
class At {
  constructor(name, layer, short, start, weights, config, now, past) {
    Object.assign(this, { name, layer, short, start, weights, config, now, past });
  }

  // A value of this layer that was computed before.
  get(short) {
    return this.now.get(join(this.layer, short));
  }

  // The residual stream that enters this layer.
  get stream() {
    return this.now.get(streamInto(this.layer));
  }

  get ofLayer() {
    return this.weights.layers[this.layer];
  }

  get normInput() {
    if (this.short === "attn_norm") return this.stream;
    return this.short === "ffn_norm" ? this.get("x_attn") : this.now.get(streamInto(this.config.n_layers));
  }

  get normWeight() {
    return this.short === "norm" ? this.weights.norm : this.ofLayer[this.short];
  }

  // The keys ("attn.k_rope") or values ("attn.v") of all tokens so far: (G, S, d).
  seen(short) {
    const chunks = this.past.get(join(this.layer, short));
    const [G, , d] = chunks[0].shape;
    const S = chunks.reduce((sum, chunk) => sum + chunk.shape[1], 0);
    const all = tensor([G, S, d]);
    for (let g = 0, end = 0; g < G; g++) {
      for (const { shape: [, T], data } of chunks) {
        all.data.set(data.subarray(g * T * d, (g + 1) * T * d), end);
        end += T * d;
      }
    }
    return all;
  }
}

// A change as {taps: {short name: (at, x) -> x or another tensor}, remake: made -> what is made otherwise}.
function effectOf(change, config, patches) {
  const inLayer = tap => (at, x) => at.layer === change.layer ? tap(at, x) : x;
  switch (change.kind) {
    case "head": return { taps: { "attn.heads": inLayer((at, x) => scaleHead(x, change.head, change.scale)) } };
    case "neuron": return { taps: { "ffn.hidden": inLayer((at, x) => scaleColumn(x, change.neuron, change.scale)) } };
    case "part": return { taps: { [`${change.part}.out`]: inLayer((at, x) => scaleAll(x, change.scale)) } };
    case "norm": return { taps: { [change.norm]: inLayer((at, x) => scaleNorm(at, x, change.scale)) } };
    case "set": return { taps: { [split(change.name).short]: (at, x) => setNumber(at, x, change) } };
    case "patch": return { taps: { [split(change.name).short]: (at, x) => patch(at, x, change, patches) } };
    case "theta": return { remake: made => ({ config: { ...made.config, rope_theta: change.value } }) };
    case "pairing": return { remake: made => ({ config: { ...made.config, pairing: change.value } }) };
    case "shift": return { remake: made => ({ config: { ...made.config, shift: change.value } }) };
    case "bug": return BUGS[change.bug];
  }
}

const copyOf = x => tensor(x.shape, x.data.slice());

function scaleAll(x, scale) {
  return tensor(x.shape, x.data.map(number => number * scale));
}

function scaleHead(x, head, scale) {
  const y = copyOf(x), size = x.shape[1] * x.shape[2];
  for (let i = head * size; i < (head + 1) * size; i++) y.data[i] *= scale;
  return y;
}

function scaleColumn(x, column, scale) {
  const y = copyOf(x);
  for (let i = column; i < y.data.length; i += x.shape[1]) y.data[i] *= scale;
  return y;
}

// A norm that is off is left out: numbers go on as they came.
const scaleNorm = (at, x, scale) => scale === 0 ? at.normInput : scaleAll(x, scale);

function setNumber(at, x, { name, index, value }) {
  const T = x.shape.at(-2), t = index.at(-2) - at.start;
  if (name !== at.name || t < 0 || t >= T || index.at(-1) >= x.shape.at(-1)) return x;
  const y = copyOf(x), head = index.length === 3 ? index[0] : 0;
  y.data[(head * T + t) * x.shape.at(-1) + index.at(-1)] = value;
  return y;
}

// Rows of the second prompt's tensor, for the positions that both prompts have.
function patch(at, x, { name, text }, patches) {
  if (name !== at.name) return x;
  if (!patches.has(text)) throw Error(`the second prompt “${text}” has not been run`);
  const source = patches.get(text).get(name), y = copyOf(x);
  const [T, n] = x.shape.slice(-2), [sourceT, sourceN] = source.shape.slice(-2);
  const width = Math.min(n, sourceN);                     // keys behind that are masked for these queries
  for (let t = 0; t < T && at.start + t < sourceT; t++) {
    for (let head = 0; head < x.data.length / (T * n); head++) {
      const from = (head * sourceT + at.start + t) * sourceN;
      y.data.set(source.data.subarray(from, from + width), (head * T + t) * n);
    }
  }
  return y;
}
