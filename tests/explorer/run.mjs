// Runs jobs on pages: each line of the input is {page, mutation, jobs: [{do, ...}]}, each line of the output a list of
// results. Pages stay open. An Error of the engine becomes {error: its message}.
import crypto from "node:crypto";
import fs from "node:fs";
import readline from "node:readline";
import { openPage } from "./page.mjs";
import { explainMany } from "./explain.mjs";

const patchesOf = (page, texts = []) =>
  new Map(texts.map(text => [text, page.runModel(page.tokenizer.encode(text), page.model).trace]));

// Tokens in chunks through the cache, as the page does it when it draws; the trace of the last chunk.
function traceOf(page, { tokens, chunks = [tokens.length], changes = [], patches }) {
  const run = page.changed(changes, { tokens, ...page.model, patches: patchesOf(page, patches) });
  const sizes = [...chunks], cache = page.newCache(run.config);
  sizes[0] += run.tokens.length - tokens.length;
  let start = 0, trace;
  for (const size of sizes.filter(n => n > 0)) {
    const recorded = page.newTrace(run.tapFrom(start));
    page.forward(run.tokens.slice(start, start + size), run.weights, run.config, { cache, tap: recorded.tap });
    trace = recorded.trace;
    start += size;
  }
  return trace;
}

const sha256 = ({ buffer, byteOffset, byteLength }) =>
  crypto.createHash("sha256").update(new Uint8Array(buffer, byteOffset, byteLength)).digest("hex");

const DO = {
  trace: (page, job) => {
    fs.writeFileSync(job.file, page.writeTrace(traceOf(page, job)));
    return null;
  },
  weights: page => {
    const walk = (node, path) => node.data instanceof Float32Array ? [[path.join("."), sha256(node.data)]]
      : Object.entries(node).flatMap(([key, child]) => walk(child, [...path, key]));
    return Object.fromEntries(walk(page.model.weights, []));
  },
  matmul: (page, { x, w }) => {
    const [a, b] = [x, w].map(rows => page.tensor([rows.length, rows[0].length], Float32Array.from(rows.flat())));
    return Array.from(page.matmul(a, b).data);
  },
  encode: (page, { texts }) => texts.map(text => page.tokenizer.encode(text)),
  decode: (page, { ids }) => ids.map(some => page.tokenizer.decode(some)),
  merges: (page, { texts }) => texts.map(text => page.tokenizer.merges(text)),
  spell: (page, { texts }) => texts.map(text => page.tokenizer.merges(text).at(-1).parts.flatMap(
    part => page.tokenizer.spell(part))),
  probs: (page, { vectors }) => vectors.map(v =>
    Array.from(page.nextTokenProbs(v.logits, v.temperature, v.top_k, v.top_p))),
  random: (page, { seeds, count }) => seeds.map(seed => {
    const random = page.randomFrom(seed);
    return Array.from({ length: count }, () => random());
  }),
  generate: (page, { tokens, changes = [], patches, seed = 0, ...options }) => {
    const random = page.randomFrom(seed);
    return Array.from(page.generate(tokens, page.model, changes, patchesOf(page, patches), { random, ...options }),
      made => made.id);
  },
  greedyWithoutCache: (page, { tokens, changes = [], patches, count }) => {
    const made = [...tokens], traces = patchesOf(page, patches);
    for (let i = 0; i < count; i++) {
      const { trace, tokens: seen } = page.runModel(made, page.model, changes, traces);
      made.push(page.likeliest(page.rows(trace.get("logits"), [seen.length - 1]).data)[0]);
    }
    return made.slice(tokens.length);
  },
  lens: (page, { tokens, position }) =>
    page.lens(page.runModel(tokens, page.model), position).map(({ name, probs }) => [name, Array.from(probs)]),
  loss: (page, { tokens }) => page.loss(page.runModel(tokens, page.model)),
  contributions: (page, { tokens, position, token, changes = [] }) =>
    page.contributions(page.runModel(tokens, page.model, changes), position, token),
  differences: (page, { tokens, changes, allowed = 0 }) => page.differences(
    page.runModel(tokens, page.model, changes).trace, page.runModel(tokens, page.model).trace, allowed),
  moved: (page, { tokens, changes }) => {
    const run = page.runModel(tokens, page.model, changes), base = page.runModel(tokens, page.model);
    return Object.fromEntries([...run.trace.keys()].map(name => [name, page.moved(name, run, base)]));
  },
  explain: explainMany,
  explainOne: (page, { tokens, changes = [], name, index }) =>
    page.explain(name, index, page.runModel(tokens, page.model, changes)),
  text: (page, { changes }) => changes.map(some => page.toText(some)),
  changes: (page, { texts }) => texts.map(text => attempt(() => page.fromText(text, page.model.config))),
  sentences: (page, { changes }) => changes.map(change => page.sentence(change)),
  withChange: (page, { steps }) =>
    steps.reduce((changes, change) => page.withChange(changes, change, page.model.config), []),
  bugs: page => Object.keys(page.BUGS),
  names: page => page.namesOf(page.model.config.n_layers).map(name =>
    [name, page.letters(name), page.inputs(name, page.model.config)]),
  readTrace: (page, { tokens, files, allowed = 1e-5 }) => files.map(file => attempt(() => {
    const bytes = fs.readFileSync(file), { trace } = page.runModel(tokens, page.model);
    const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
    const { tensors, dtype, ignored } = page.readTrace(buffer, trace, page.data.aliases);
    return { dtype, ignored, differences: page.differences(tensors, trace, allowed) };
  })),
};

function attempt(f) {
  try {
    return f();
  } catch (error) {
    if (error.constructor !== Error) throw error;         // a TypeError is a mistake of the page
    return { error: error.message };
  }
}

const opened = new Map();

async function open(file, mutation) {
  const key = JSON.stringify([file, mutation]);
  if (!opened.has(key)) {
    const page = await openPage(file, mutation);
    opened.set(key, { ...page, tokenizer: page.makeTokenizer(page.data.tokenizer, page.data.config) });
  }
  return opened.get(key);
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { page: file, mutation, jobs } = JSON.parse(line);
  const page = await open(file, mutation).catch(error => error);
  const answer = page instanceof Error ? { error: page.message } : jobs.map(job => attempt(() => DO[job.do](page, job)));
  console.log(JSON.stringify(answer));
}
