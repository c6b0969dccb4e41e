// The engine out of a built page: its script without the views, its data, its weights.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

// What computes; all other modules of the page draw.
const MODULES = ["fast_matmul", "engine", "names", "dtypes", "weights", "tokenizer", "sampling", "random", "bugs", "changes",
  "run", "logits", "differ", "explain", "trace_file"];

const between = (text, before, after) => text.split(before, 2)[1].split(after, 1)[0];

// A page as {data, model: {weights, config}, and every top-level name of its engine}. `mutation` is [old, new]: a piece
// of the script, which must be there once, is replaced.
export async function openPage(file, mutation = null) {
  const html = fs.readFileSync(file, "utf8");
  const data = JSON.parse(between(html, '<script type="application/json" id="data">', "</script>"));
  const text = between(html, '<script type="text/plain" id="weights">', "</script>");
  const engine = await load(mutate(script(html), mutation));
  const weights = await engine.unpackWeights(text, data.weights, data.config);
  return { ...engine, data, model: { config: data.config, weights } };
}

function script(html) {
  const parts = between(html, '<script type="module">', "</script>").split(/^\/\/ ==== (\w+)\.js ====$/m).slice(1);
  const found = Object.fromEntries(parts.flatMap((name, k) => k % 2 ? [] : [[name, parts[k + 1]]]));
  const missing = MODULES.filter(name => !(name in found));
  if (missing.length) throw Error(`the page has no ${missing}`);
  return Object.entries(found).filter(([name]) => MODULES.includes(name)).map(([, body]) => body).join("\n");
}

function mutate(source, mutation) {
  if (mutation === null) return source;
  const [old, changed] = mutation;
  if (source.split(old).length !== 2) throw Error(`"${old}" must stand in the script once`);
  return source.replace(old, () => changed);
}

async function load(source) {
  const names = [...source.matchAll(/^(?:async )?(?:function\*?|const|class) (\w+)/gm)].map(found => found[1]);
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "explorer-")), "engine.mjs");
  fs.writeFileSync(file, `${source}\nexport { ${names.join(", ")} };\n`);
  try {
    return await import(file);
  } finally {
    fs.rmSync(path.dirname(file), { recursive: true });
  }
}
