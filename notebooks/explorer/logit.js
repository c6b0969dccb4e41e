// One logit taken apart: what each head and feed-forward adds to it, and what happens without each of them.
import { columnShares, contributions, divergence, probsAt } from "./logits.js";
import { join, split } from "./names.js";
import { likeliest } from "./sampling.js";
import { cellStyle } from "./colours.js";
import { choice, columnHead, el, field, link, redraw, row, rowHead, scrolled, tableOf } from "./dom.js";
import { num, percent, shown } from "./format.js";
import { oneStop, rovingKeys } from "./roving.js";
import { MODES } from "./state.js";

const CHOICES = 12;

export function makeLogit(root, { go, setState, sweep, withoutOne }) {
  const controls = row(), place = scrolled("parts of the model"), words = el("p", { className: "sentence" });
  const lead = el("p", { className: "lead" }), open = el("p", { className: "lead" });
  root.append(controls, lead, place, open, words);
  rovingKeys(place);

  function drawControls(now, token) {
    const { rival, mode } = now.state, { tokenizer } = now.model;
    const best = likeliest(probsAt(now.run, now.position)).slice(0, CHOICES);
    const ids = [...new Set([...best, token, ...(rival === null ? [] : [rival])])];
    const tokens = ids.map(id => [id, shown(tokenizer, id)]);
    const pickToken = event => setState({ token: Number(event.target.value) });
    const pickRival = event => setState({ rival: event.target.value === "" ? null : Number(event.target.value) });
    const pickMode = event => setState({ mode: event.target.value });
    const rivals = choice([["", "no other token"], ...tokens], rival ?? "", { key: "rival", onchange: pickRival });
    redraw(controls, field("next token", choice(tokens, token, { key: "token", onchange: pickToken })),
      ...(mode === "adds" ? [field("compared with", rivals)] : []),       // the others measure one answer
      field("show", choice(Object.entries(MODES), mode, { key: "mode", onchange: pickMode })));
  }
  return function draw(now) {
    const token = now.state.token ?? likeliest(probsAt(now.run, now.position))[0];
    drawControls(now, token);
    const goTo = key => goToPart(now, token, key, go);
    const toPart = key => link(partName(key), key, "see this part", () => goTo(key));
    const parts = partsShown(now, token, { sweep, withoutOne, toPart });
    redraw(lead, ...(parts?.lead ?? ["Running the model once for each part …"]));
    redraw(place, ...(parts ? [partsTable(now, parts, goTo)] : []));
    open.textContent = openWords(now, token);
    words.textContent = parts?.sentence ?? "";
    place.dataset.columns = now.model.config.n_heads + 1;
    oneStop(place, document.activeElement);
  };
}

// {values: Map(key of a part -> number), unit: number -> text, says: (part, text) -> name of a cell, limit, share,
// shade: number -> what gives its colour, lead: [what stands above the table], sentence: what stands below}; null: not yet
function partsShown(now, token, { sweep, withoutOne, toPart }) {
  const { mode } = now.state;
  if (mode === "adds") return added(now, token, withoutOne, toPart);
  const without = sweep(now);
  if (!without) return null;
  return mode === "moves" ? movedWithout(now, without, token, toPart) : leftWithout(now, without, token, toPart);
}

const partKey = (layer, head) => head === null ? `${layer} ffn` : `${layer} ${head}`;
const isHead = key => !key.endsWith("ffn");

function partName(key) {
  const [layer, head] = key.split(" ");
  return isHead(key) ? `head ${head} of layer ${layer}` : `the feed-forward step of layer ${layer}`;
}

const keyOfLargest = (values, keys) => keys.reduce((a, b) => values.get(b) > values.get(a) ? b : a);
const largestSize = values => Math.max(1e-9, ...[...values.values()].map(Math.abs));
const fixed = (value, digits) => value.toFixed(digits).replace("-", "−").replace(/^−(0\.0*)$/, "$1");

function added(now, token, withoutOne, toPart) {
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
  const share = percent(probsAt(now.run, now.position)[token]), { vocab_size } = now.model.config;
  const softmax = second ? "" : `${share} % = e^${total} / the sum of e^logit over all ${vocab_size} pieces. `;
  const sentence = `With ${others.join(", ")}, they sum to ${total}, the ${what}. ${softmax}` +
    "All are divided by one number, that of the final norm. Later parts read what a part writes: choose under “show” " +
    "to see what happens without it.";
  const keys = [...values.keys()], most = keyOfLargest(values, keys), head = keyOfLargest(values, keys.filter(isHead));
  const lead = ["Of all heads and feed-forward steps, ", toPart(most), ` adds most: ${fixed(values.get(most), 2)} of ` +
    `${fixed(first.logit - (second ? second.logit : 0), 2)}. `, ...withoutHead(now, token, head, withoutOne, toPart)];
  const unit = v => fixed(v, 2), says = (part, text) => `${part} adds ${text}`;
  return { values, unit, says, share: false, limit: largestSize(values), lead, sentence };
}

function withoutHead(now, token, key, withoutOne, toPart) {
  const name = id => `“${shown(now.model.tokenizer, id)}”`, [layer, head] = key.split(" ").map(Number);
  const { at, share } = mostSeen(now, layer, head), without = withoutOne(now, key);
  const looks = `, the head that adds most, which looks most at ${name(now.run.tokens[at])} (${percent(share)} %), `;
  const effect = without ? `${name(token)} goes ${fromTo(now, without, token)}.` : "…";
  return ["Without ", toPart(key), looks + effect];
}

const fromTo = (now, without, token) =>
  `from ${percent(probsAt(now.run, now.position)[token])} to ${percent(without[token])} %`;

function mostSeen(now, layer, head) {                     // {at: key that a head looks at most, share}
  const x = now.run.trace.get(join(layer, "attn.probs")), at = largestIn(x, head, now.position);
  return { at, share: x.data[(head * x.shape[1] + now.position) * x.shape[2] + at] };
}

// What the open number is to the token's logit, where it belongs to a part.
function openWords(now, token) {
  const { layer, short } = split(now.name), row = now.position, column = now.index.at(-1);
  const name = `“${shown(now.model.tokenizer, token)}”`;
  if (short === "attn.probs") {
    const { at, share } = mostSeen(now, layer, now.index[0]);
    return `Shown above: where head ${now.index[0]} of layer ${layer} looks, most at ` +
      `“${shown(now.model.tokenizer, now.run.tokens[at])}” (${percent(share)} %).`;
  }
  if (short !== "ffn.out") return "";
  const shares = columnShares(now.run, row, token, now.name), sum = shares.reduce((a, b) => a + b);
  return `Shown above: what the feed-forward step of layer ${layer} writes. The whole row together adds ` +
    `${fixed(sum, 2)} to the logit of ${name}; column ${column} alone adds ${num(shares[column], 3)}` +
    `${column === farthestFrom0(shares) ? ", the largest share of the row" : ""}.`;
}

const farthestFrom0 = shares => shares.reduce((best, v, k) => Math.abs(v) > Math.abs(shares[best]) ? k : best, 0);

const smallOr = (v, digits) => v > 0 && v < 0.5 * 10 ** -digits ? `<${10 ** -digits}` : fixed(v, digits);

function movedWithout(now, without, token, toPart) {
  const was = probsAt(now.run, now.position), values = new Map();
  for (const [key, probs] of without) values.set(key, divergence(was, probs));
  const heads = [...values.keys()].filter(isHead), unit = v => smallOr(v, 3);
  const worst = heads.sort((a, b) => values.get(b) - values.get(a))[0];
  const lead = ["Of all heads, the answer moves most without ", toPart(worst), ` (${unit(values.get(worst))} nats)`,
    `: “${shown(now.model.tokenizer, token)}” goes ${fromTo(now, without.get(worst), token)}`,
    ...asMuch(worst, heads, key => unit(values.get(key)), toPart), "."];
  const sentence = "Nats (KL) measure how far the whole answer moved; the darkest colour is that of the head that " +
    "counts most, and of all above it. How far one token's share falls is another " +
    "measure, and may name another head: choose the token's probability under “show”.";
  const says = (part, text) => `without ${part}: ${text} nats`;
  return { values, unit, says, share: true, limit: values.get(worst) || 1, lead, sentence };
}

// Other heads whose number reads the same.
function asMuch(key, heads, text, toPart) {
  const others = heads.filter(other => other !== key && text(other) === text(key)).slice(0, 3);
  return others.flatMap(other => ["; as much without ", toPart(other)]);
}

function leftWithout(now, without, token, toPart) {
  const values = new Map([...without].map(([key, probs]) => [key, probs[token]]));
  const was = probsAt(now.run, now.position)[token], heads = [...values.keys()].filter(isHead);
  const least = heads.reduce((a, b) => values.get(b) < values.get(a) ? b : a);
  const lead = [`“${shown(now.model.tokenizer, token)}” has ${percent(was)} % with all as it is in this run; of ` +
    "all heads, least without ", toPart(least), ` (${percent(values.get(least))} %)`,
  ...asMuch(least, heads, key => percent(values.get(key)), toPart), "."];
  const change = p => p - was, changes = new Map(heads.map(key => [key, change(values.get(key))]));
  return { values, unit: percent, says: (part, text) => `without ${part}: ${text} %`, share: false, shade: change,
    limit: largestSize(changes), lead, sentence: "Orange: less likely without that part; blue: more likely." };
}

// The column of a row in which the largest number stands.
function largestIn(x, head, row) {
  const [rows, columns] = x.shape.slice(-2), start = (head * rows + row) * columns;
  const sizes = x.data.subarray(start, start + columns).map(Math.abs);
  return sizes.indexOf(sizes.reduce((a, b) => Math.max(a, b)));
}

function goToPart(now, token, key, go) {
  const [layer, head] = key.split(" ").map(Number);
  if (isHead(key)) {
    go(join(layer, "attn.probs"), [head, now.position, mostSeen(now, layer, head).at]);
    return;
  }
  const name = join(layer, "ffn.out"), shares = columnShares(now.run, now.position, token, name);
  go(name, [now.position, farthestFrom0(shares)]);
}

function partsTable(now, { values, unit, says, limit, share, shade = value => value }, goTo) {
  const { n_layers, n_heads } = now.model.config;
  const heads = Array.from({ length: n_heads }, (_, head) => head);
  const cell = (key, title) => {
    const value = values.get(key), text = unit(value);
    const button = el("button", { className: "cell", textContent: text, key: `cell ${key}`, title,
      "aria-label": says(partName(key), text), onclick: () => goTo(key) });
    return el("td", { style: cellStyle(shade(value), limit, share, now.ramps) }, button);
  };
  const headCell = (layer, head) => cell(partKey(layer, head), `head ${head} of layer ${layer}: see where it looks`);
  const ffnCell = layer => cell(partKey(layer, null), `feed-forward of layer ${layer}: see what it adds`);
  const lines = Array.from({ length: n_layers }, (_, layer) =>
    [rowHead(`layer ${layer}`), ...heads.map(head => headCell(layer, head)), ffnCell(layer)]);
  const titles = [...heads.map(head => `head ${head}`), "feed-forward"];
  return tableOf("parts", [el("td"), ...titles.map(columnHead)], lines);
}
