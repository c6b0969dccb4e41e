// Text to token ids and back, as SentencePiece does it: byte-pair merges, and bytes for what the vocabulary lacks.

const SPACE = "\u2581";                                   // how a space is written inside a piece

// {pieces, scores, kinds} by id, {bos, eos, add_bos}; a kind is one letter: n normal, b byte, c control, u unknown, a
// added to the model (added_tokens.json), x a row of the embedding that stands for nothing. Without these (a folder
// that has no tokenizer.model) a prompt is a list of ids.
export const makeTokenizer = (data, config) => data ? new Tokenizer(data) : new TokenIds(config.vocab_size);

export class Tokenizer {
  constructor({ pieces, scores, kinds, bos, eos, add_bos }) {
    Object.assign(this, { pieces, scores, kinds, bos, eos, add_bos });
    this.ids = new Map();
    pieces.forEach((piece, id) => { if (kinds[id] === "n") this.ids.set(piece, id); });
    this.byteIds = Array.from({ length: 256 }, (_, byte) => pieces.indexOf(bytePiece(byte)));
    this.bytes = new Map(this.byteIds.map((id, byte) => [id, byte]));
  }

  // Text to ids; <s> goes in front, unless tokenizer_config.json says no.
  encode(text) {
    const parts = this.split(text);
    for (let at = this.bestPair(parts); at !== null; at = this.bestPair(parts)) merge(parts, at);
    const ids = parts.flatMap(part => this.spell(part));
    return this.add_bos ? [this.bos, ...ids] : ids;
  }

  // The same, step by step: [{parts, at}, ...]. The first step is single characters, and its `at` is null; each later
  // one has made parts[at] of two. After the last, parts that the vocabulary lacks are spelled in bytes.
  merges(text) {
    const parts = this.split(text);
    const steps = [{ parts: [...parts], at: null }];
    for (let at = this.bestPair(parts); at !== null; at = this.bestPair(parts)) {
      merge(parts, at);
      steps.push({ parts: [...parts], at, id: this.ids.get(parts[at]), score: this.scores[this.ids.get(parts[at])] });
    }
    return steps;
  }

  // A part to ids: its own, or those of its bytes.
  spell(part) {
    if (this.ids.has(part)) return [this.ids.get(part)];
    return Array.from(new TextEncoder().encode(part), byte => this.byteIds[byte]);
  }

  // Characters, spaces written as they are in pieces; one more space comes first.
  split(text) {
    if (!text.isWellFormed()) throw Error("the text is not valid Unicode");
    return text === "" ? [] : Array.from((" " + text).replaceAll(" ", SPACE));
  }

  // Which neighbours to merge next: those whose union has the best score; of equals, the first. null: none.
  bestPair(parts) {
    let best = null, bestScore = -Infinity;
    for (let i = 0; i + 1 < parts.length; i++) {
      const id = this.ids.get(parts[i] + parts[i + 1]);
      if (id !== undefined && this.scores[id] > bestScore) {
        best = i;
        bestScore = this.scores[id];
      }
    }
    return best;
  }

  // Ids to text. Control tokens and ids without a piece are silent; bytes that are not UTF-8 become U+FFFD. Around an
  // added token, each side is a text of its own.
  decode(ids) {
    const added = ids.findIndex(id => this.kinds[id] === "a");
    if (added < 0) return this.decodePieces(ids.filter(id => this.kinds[id] !== "x"));
    return this.decode(ids.slice(0, added)) + this.pieces[ids[added]] + this.decode(ids.slice(added + 1));
  }

  decodePieces(ids) {
    let text = "", bytes = [], prefixSeen = false;
    const flush = () => {
      text += decodeBytes(bytes);
      bytes = [];
    };
    for (const id of ids) {
      if (this.bytes.has(id)) {
        bytes.push(this.bytes.get(id));
        continue;
      }
      flush();
      const more = this.textOf(id), isPrefix = text === "" && !prefixSeen && more.startsWith(" ");
      text += isPrefix && this.kinds[id] === "n" ? more.slice(1) : more;      // the space that encode put in front
      prefixSeen ||= isPrefix;
    }
    flush();
    return text;
  }

  // What one id that is no byte adds to a text.
  textOf(id) {
    if (this.kinds[id] === "c") return "";
    return this.kinds[id] === "u" ? " \u2047 " : this.pieces[id].replaceAll(SPACE, " ");
  }
}

const bytePiece = byte => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;

function merge(parts, at) {
  parts.splice(at, 2, parts[at] + parts[at + 1]);
}

// UTF-8 to text. Each byte that begins no character becomes U+FFFD (TextDecoder alone would join several).
function decodeBytes(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length;) {
    const size = [1, 2, 3, 4].find(n => characterOf(bytes.slice(at, at + n)) !== null);
    text += size === undefined ? "\ufffd" : characterOf(bytes.slice(at, at + size));
    at += size ?? 1;
  }
  return text;
}

function characterOf(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(new Uint8Array(bytes));
  } catch {
    return null;
  }
}

// For a model without a tokenizer: "1 5 23" is the tokens 1, 5 and 23.
class TokenIds {
  constructor(size) {
    this.pieces = Array.from({ length: size }, (_, id) => String(id));
    this.kinds = "n".repeat(size);
    this.bos = this.eos = null;
  }

  encode(text) {
    return text.split(/\s+/).filter(Boolean).map(word => this.spell(word)[0]);
  }

  merges(text) {
    return [{ parts: text.split(/\s+/).filter(Boolean), at: null }];
  }

  spell(part) {
    if (!/^\d+$/.test(part) || Number(part) >= this.pieces.length) {
      throw Error(`this model has no tokenizer: write token ids from 0 to ${this.pieces.length - 1}, not "${part}"`);
    }
    return [Number(part)];
  }

  decode(ids) {
    return ids.join(" ");
  }
}
