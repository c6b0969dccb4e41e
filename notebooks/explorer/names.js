// What the trace's names mean: their order, their axes in size letters, and what each is computed from.

const LAYER = ["attn_norm", "attn.q", "attn.k", "attn.v", "attn.q_rope", "attn.k_rope", "attn.scores",
  "attn.probs", "attn.heads", "attn.out", "x_attn", "ffn_norm", "ffn.gate", "ffn.silu", "ffn.up", "ffn.hidden",
  "ffn.out", "x_ffn"];

// "layers.3.attn.q" -> {layer: 3, short: "attn.q"}; "norm" -> {layer: null, short: "norm"}
export function split(name) {
  const found = name.match(/^layers\.(\d+)\.(.*)$/);
  return found ? { layer: Number(found[1]), short: found[2] } : { layer: null, short: name };
}

export const join = (layer, short) => layer === null ? short : `layers.${layer}.${short}`;

// Every name of a trace, in order of computation.
export function namesOf(n_layers) {
  const layers = Array.from({ length: n_layers }, (_, i) => LAYER.map(short => join(i, short)));
  return ["embedding", ...layers.flat(), "norm", "logits"];
}

const LETTERS = {
  "attn.q": "HTd", "attn.q_rope": "HTd", "attn.heads": "HTd", "attn.k": "GTd", "attn.v": "GTd", "attn.k_rope": "GTd",
  "attn.scores": "HTS", "attn.probs": "HTS", "ffn.gate": "TF", "ffn.silu": "TF", "ffn.up": "TF", "ffn.hidden": "TF",
  logits: "TV",
};

// The size letters of its axes: "layers.3.attn.q" -> "HTd".
export const letters = name => LETTERS[split(name).short] ?? "TD";

const INPUTS = {
  "attn.q": ["attn_norm"], "attn.k": ["attn_norm"], "attn.v": ["attn_norm"],
  "attn.q_rope": ["attn.q"], "attn.k_rope": ["attn.k"], "attn.scores": ["attn.q_rope", "attn.k_rope"],
  "attn.probs": ["attn.scores"], "attn.heads": ["attn.probs", "attn.v"], "attn.out": ["attn.heads"],
  ffn_norm: ["x_attn"], "ffn.gate": ["ffn_norm"], "ffn.up": ["ffn_norm"], "ffn.silu": ["ffn.gate"],
  "ffn.hidden": ["ffn.silu", "ffn.up"], "ffn.out": ["ffn.hidden"], x_ffn: ["x_attn", "ffn.out"],
};

// The residual stream that enters a layer.
export const streamInto = layer => layer === 0 ? "embedding" : `layers.${layer - 1}.x_ffn`;

// The names of the tensors that it is computed from.
export function inputs(name, config) {
  const { layer, short } = split(name);
  switch (short) {
    case "embedding": return [];
    case "norm": return [streamInto(config.n_layers)];
    case "logits": return ["norm"];
    case "attn_norm": return [streamInto(layer)];
    case "x_attn": return [streamInto(layer), join(layer, "attn.out")];
    default: return INPUTS[short].map(input => join(layer, input));
  }
}

const KINDS = {
  embedding: "ends", logits: "ends", norm: "norm", attn_norm: "norm", ffn_norm: "norm", x_attn: "sum", x_ffn: "sum",
  "attn.q_rope": "rope", "attn.k_rope": "rope", "attn.probs": "share",
};

// What sort of step it is, for its colour: ends, norm, sum, rope, share, attn or ffn.
export function kind(name) {
  const { short } = split(name);
  return KINDS[short] ?? short.split(".")[0];
}
