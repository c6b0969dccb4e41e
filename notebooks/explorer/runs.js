// The runs that the page needs: as trained, with the changes, of a second prompt, without each part, with each mistake.
import { generate, runModel } from "./run.js";
import { toText } from "./changes.js";
import { MAX_TOKENS } from "./state.js";
import { probsAt } from "./logits.js";
import { compareWithFile } from "./traces.js";

const KEPT = 4;                                           // runs that are remembered

export function makeRuns(model) {
  const remembered = new Map(), mostTokens = Math.min(MAX_TOKENS, model.config.max_seq_len);
  let count = 0, perToken = 3;                            // milliseconds, until a run was measured
  let encoded = { text: null, tokens: [] };               // the last text: merging takes longer than drawing

  function run(tokens, changes) {                         // the same run is made once
    const key = keyOf(tokens, changes);
    if (!remembered.has(key)) {
      const made = runModel(tokens, model, changes, patchesFor(changes));
      perToken = made.ms / made.tokens.length;
      count += 1;
      remembered.set(key, { ...made, id: count });
    }
    const found = remembered.get(key);
    remembered.delete(key);
    remembered.set(key, found);                           // the latest is forgotten last
    if (remembered.size > KEPT) remembered.delete(remembered.keys().next().value);
    return found;
  }
  const keyOf = (tokens, changes) => `${tokens.join(".")} ${toText(changes)}`;
  const expected = (tokens, changes) => remembered.has(keyOf(tokens, changes)) ? 0 : perToken * tokens.length;

  function encode(text) {                                 // throws a sentence where the page cannot show the text
    if (text !== encoded.text) encoded = { text, tokens: model.tokenizer.encode(text) };
    const { tokens } = encoded;
    const many = `This text has ${tokens.length} tokens, and the page shows up to ${mostTokens}: shorten it.`;
    if (tokens.length > mostTokens) throw Error(many);
    if (tokens.length === 0) throw Error("Type at least one token.");
    return tokens;
  }
  function patchesFor(changes) {
    const texts = changes.filter(change => change.kind === "patch").map(change => change.text);
    return new Map(texts.map(text => [text, run(encode(text), []).trace]));
  }
  const draw = (tokens, changes, options) => generate(tokens, model, changes, patchesFor(changes), options);

  function likeliestText(tokens, changes, tokenCount) {   // what comes out if the likeliest token is always taken
    const options = { count: tokenCount, temperature: 0, stop: [model.tokenizer.eos] };
    try {
      return model.tokenizer.decode([...tokens, ...Array.from(draw(tokens, changes, options), step => step.id)]);
    } catch (error) {
      return `nothing: ${error.message}`;
    }
  }
  function probsWithout(tokens, changes, part, position) {
    const made = runModel(tokens, model, [...changes, part], patchesFor(changes));
    return probsAt(made, position);
  }
  const withMistake = (tokens, bug) => runModel(tokens, model, [{ kind: "bug", bug: bug.name }]);

  function agreeing(made, file) {                         // how many tensors of a file are a run's; 0 if one differs
    const { table } = compareWithFile(made, file, model.aliases);
    return table.some(row => row.differs) ? 0 : table.length;
  }
  return { run, encode, expected, mostTokens, draw, likeliestText, probsWithout, withMistake, agreeing };
}

// Every head and feed-forward, switched off: [[key, change], ...].
export function everyPart({ n_layers, n_heads }) {
  const parts = [];
  for (let layer = 0; layer < n_layers; layer++) {
    for (let head = 0; head < n_heads; head++) {
      parts.push([`${layer} ${head}`, { kind: "head", layer, head, scale: 0 }]);
    }
    parts.push([`${layer} ffn`, { kind: "part", layer, part: "ffn", scale: 0 }]);
  }
  return parts;
}
