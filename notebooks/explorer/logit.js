// One logit taken apart: what each head and feed-forward adds to it, and what happens without each of them.
import { contributions } from "./logits.js";
import { join } from "./names.js";
import { likeliest } from "./sampling.js";
import { cellStyle } from "./colours.js";
import { choice, columnHead, el, field, redraw, row, rowHead, scrolled, tableOf } from "./dom.js";
import { num, percent, shown } from "./format.js";
import { divergence, probsAt } from "./next.js";
import { oneStop, rovingKeys } from "./roving.js";

const CHOICES = 12;
const MODES = [["adds", "what each adds to the logit"], ["moves", "how far the answer moves without it (KL, nats)"],
  ["leaves", "the token's probability without it (%)"]];

export function makeLogit(root, { go, setState, sweep }) {
  const controls = row(), place = scrolled("parts of the model"), words = el("p", { className: "sentence" });
  root.append(controls, place, words);
  rovingKeys(place);

  function drawControls(now, token) {
    const { rival, mode } = now.state, { tokenizer } = now.model;
    const best = likeliest(probsAt(now.run, now.position)).slice(0, CHOICES);
    const ids = [...new Set([...best, token, ...(rival === null ? [] : [rival])])];
    const tokens = ids.map(id => [id, shown(tokenizer, id)]);
    const pickToken = event => setState({ token: Number(event.target.value) });
    const pickRival = event => setState({ rival: event.target.value === "" ? null : Number(event.target.value) });
    const pickMode = event => setState({ mode: event.target.value });
    redraw(controls, field("next token", choice(tokens, token, { key: "token", onchange: pickToken })),
      field("minus", choice([["", "nothing"], ...tokens], rival ?? "", { key: "rival", onchange: pickRival })),
      field("show", choice(MODES, mode, { key: "mode", onchange: pickMode })));
  }
  return function draw(now) {
    const token = now.state.token ?? likeliest(probsAt(now.run, now.position))[0];
    drawControls(now, token);
    const parts = partsShown(now, token, sweep);
    words.textContent = parts?.sentence ?? "Running the model once for each part …";
    redraw(place, ...(parts ? [partsTable(now, parts, go)] : []));
    place.dataset.columns = now.model.config.n_heads + 1;
    oneStop(place, document.activeElement);
  };
}

// {values: Map(key of a part -> number), unit: number -> text, limit, share, sentence}, or null: not yet
function partsShown(now, token, sweep) {
  const { mode } = now.state;
  if (mode === "adds") return added(now, token);
  const without = sweep(now);
  if (!without) return null;
  return mode === "moves" ? movedWithout(now, without, token) : leftWithout(now, without, token);
}

const partKey = (layer, head) => head === null ? `${layer} ffn` : `${layer} ${head}`;
const largestSize = values => Math.max(1e-9, ...[...values.values()].map(Math.abs));
const fixed = (value, digits) => value.toFixed(digits).replace("-", "−").replace(/^−(0\.0*)$/, "$1");

function added(now, token) {
  const { rival } = now.state, first = contributions(now.run, now.position, token);
  const second = rival === null ? null : contributions(now.run, now.position, rival);
  const value = k => first.list[k].value - (second ? second.list[k].value : 0);
  const values = new Map(), others = [];
  first.list.forEach((part, k) => {
    if (part.part === "head") values.set(partKey(part.layer, part.head), value(k));
    else if (part.part === "feed-forward") values.set(partKey(part.layer, null), value(k));
    else others.push(`${part.label} ${num(value(k), 3)}`);
  });
  const name = id => `“${shown(now.model.tokenizer, id)}”`;
  const what = second ? `logit of ${name(token)} minus that of ${name(rival)}` : `logit of ${name(token)}`;
  const total = num(first.logit - (second ? second.logit : 0), 3);
  const sentence = `With ${others.join(", ")}, they sum to ${total}, the ${what}. ` +
    "All are divided by one number, that of the final norm. Later parts read what a part writes: choose above to see " +
    "what happens without it.";
  return { values, unit: v => fixed(v, 2), share: false, limit: largestSize(values), sentence };
}

function movedWithout(now, without, token) {
  const was = probsAt(now.run, now.position), values = new Map();
  for (const [key, probs] of without) values.set(key, divergence(was, probs));
  const heads = [...values.keys()].filter(key => !key.endsWith("ffn"));
  const worst = heads.sort((a, b) => values.get(b) - values.get(a))[0], [layer, head] = worst.split(" ");
  const sentence = `Of all heads, the answer moves most without head ${head} of layer ${layer} ` +
    `(${num(values.get(worst), 3)} nats): “${shown(now.model.tokenizer, token)}” goes from ${percent(was[token])} ` +
    `to ${percent(without.get(worst)[token])} %.`;
  return { values, unit: v => fixed(v, 3), share: true, limit: values.get(worst) || 1, sentence };
}

function leftWithout(now, without, token) {
  const values = new Map([...without].map(([key, probs]) => [key, probs[token]]));
  const was = percent(probsAt(now.run, now.position)[token]);
  const sentence = `“${shown(now.model.tokenizer, token)}” has ${was} % with everything as it is in this run.`;
  return { values, unit: percent, share: true, limit: 1, sentence };
}

// The column of a row in which the largest number stands.
function largestIn(x, head, row) {
  const [rows, columns] = x.shape.slice(-2), start = (head * rows + row) * columns;
  const sizes = x.data.subarray(start, start + columns).map(Math.abs);
  return sizes.indexOf(sizes.reduce((a, b) => Math.max(a, b)));
}

function partsTable(now, { values, unit, limit, share }, go) {
  const { n_layers, n_heads } = now.model.config;
  const heads = Array.from({ length: n_heads }, (_, head) => head);
  const cell = (key, title, onclick) => {
    const value = values.get(key);
    const button = el("button", { className: "cell", textContent: unit(value), key, title, onclick });
    return el("td", { style: cellStyle(value, limit, share, now.ramps) }, button);
  };
  const goToLargest = (name, head) => {
    const x = now.run.trace.get(name), column = largestIn(x, head, now.position);
    go(name, [head, now.position, column].slice(-x.shape.length));
  };
  const headCell = (layer, head) => cell(partKey(layer, head), `head ${head} of layer ${layer}: see where it looks`,
    () => goToLargest(join(layer, "attn.probs"), head));
  const ffnCell = layer => cell(partKey(layer, null), `feed-forward of layer ${layer}: see what it adds`,
    () => goToLargest(join(layer, "ffn.out"), 0));
  const lines = Array.from({ length: n_layers }, (_, layer) =>
    [rowHead(`layer ${layer}`), ...heads.map(head => headCell(layer, head)), ffnCell(layer)]);
  const titles = [...heads.map(head => `head ${head}`), "feed-forward"];
  return tableOf("parts", [el("td"), ...titles.map(columnHead)], lines);
}
