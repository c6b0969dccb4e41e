// One logit taken apart: what each head and feed-forward adds to it, and what happens without each of them.
import { contributions } from "./logits.js";
import { join } from "./names.js";
import { likeliest } from "./sampling.js";
import { cellStyle } from "./colours.js";
import { choice, el, field, redraw } from "./dom.js";
import { num, percent, shown } from "./format.js";
import { divergence, probsAt } from "./next.js";

const CHOICES = 12;
const MODES = [["adds", "what each adds to the logit"], ["moves", "how far the answer moves without it (KL, nats)"],
  ["leaves", "the token's probability without it (%)"]];

export function makeLogit(root, { go, setState, sweep }) {
  const controls = el("div", { className: "row" }), place = el("div", { className: "scroll", tabIndex: 0, role: "region",
    "aria-label": "parts of the model" });
  const words = el("p", { className: "sentence" });
  root.append(controls, place, words);

  function drawControls(now, token) {
    const ids = likeliest(probsAt(now.run, now.position)).slice(0, CHOICES);
    const options = [...new Set([...ids, token, ...(now.state.rival === null ? [] : [now.state.rival])])]
      .map(id => [id, `“${shown(now.model.tokenizer, id)}”`]);
    const pickToken = event => setState({ token: Number(event.target.value) });
    const pickRival = event => setState({ rival: event.target.value === "" ? null : Number(event.target.value) });
    redraw(controls, field("next token", choice(options, token, { key: "token", onchange: pickToken })),
      field("minus", choice([["", "nothing"], ...options], now.state.rival ?? "", { key: "rival", onchange: pickRival })),
      field("show", choice(MODES, now.state.mode, { key: "mode", onchange: event => setState({ mode: event.target.value }) })));
  }
  return function draw(now) {
    const token = now.state.token ?? likeliest(probsAt(now.run, now.position))[0];
    drawControls(now, token);
    if (now.state.mode === "adds") return drawParts(now, added(now, token), { place, words, go });
    const without = sweep(now);
    if (!without) {
      place.replaceChildren();
      words.textContent = "Running the model once for each part …";
      return undefined;
    }
    return drawParts(now, now.state.mode === "moves" ? movedWithout(now, without, token) : leftWithout(now, without, token),
      { place, words, go });
  };
}

const partKey = (layer, head) => head === null ? `${layer} ffn` : `${layer} ${head}`;

// {values: Map(key -> number), limit, share, sentence, unit}
function added(now, token) {
  const first = contributions(now.run, now.position, token), { rival } = now.state;
  const second = rival === null ? null : contributions(now.run, now.position, rival);
  const value = k => first.list[k].value - (second ? second.list[k].value : 0);
  const values = new Map(), extra = [];
  first.list.forEach((part, k) => {
    if (part.part === "head") values.set(partKey(part.layer, part.head), value(k));
    else if (part.part === "feed-forward") values.set(partKey(part.layer, null), value(k));
    else extra.push([part.label, value(k)]);
  });
  const total = first.logit - (second ? second.logit : 0), { tokenizer } = now.model;
  const others = extra.map(([label, value]) => `${label} ${num(value, 3)}`).join(", ");
  const what = second ? `logit of “${shown(tokenizer, token)}” minus that of “${shown(tokenizer, rival)}”`
    : `logit of “${shown(tokenizer, token)}”`;
  return { values, unit: v => fixed(v, 2), share: false, limit: largestSize(values),
    sentence: `With ${others}, they sum to ${num(total, 3)}, the ${what}. All are divided by one number, that of the final norm.` };
}

const fixed = (value, digits) => value.toFixed(digits).replace("-", "−").replace(/^−(0\.0*)$/, "$1");
const largestSize = values => Math.max(1e-9, ...[...values.values()].map(Math.abs));

function movedWithout(now, without, token) {
  const was = probsAt(now.run, now.position), values = new Map();
  for (const [key, probs] of without) values.set(key, divergence(was, probs));
  const isHead = key => !key.endsWith("ffn");
  const worst = [...values.keys()].filter(isHead).sort((a, b) => values.get(b) - values.get(a))[0];
  const [layer, head] = worst.split(" ");
  return { values, unit: v => fixed(v, 3), share: true, limit: values.get(worst) || 1,
    sentence: `Of all heads, the answer moves most without head ${head} of layer ${layer} (${num(values.get(worst), 3)} nats): ` +
      `“${shown(now.model.tokenizer, token)}” goes from ${percent(was[token])} to ${percent(without.get(worst)[token])} %.` };
}

function leftWithout(now, without, token) {
  const values = new Map([...without].map(([key, probs]) => [key, probs[token]]));
  const was = probsAt(now.run, now.position)[token];
  return { values, unit: percent, share: true, limit: 1,
    sentence: `“${shown(now.model.tokenizer, token)}” has ${percent(was)} % with everything as it is in this run.` };
}

function drawParts(now, shownParts, { place, words, go }) {
  const { values, unit, share, limit, sentence } = shownParts, { n_layers, n_heads } = now.model.config;
  const heads = Array.from({ length: n_heads }, (_, h) => h);
  const cell = (value, key, title, onclick) => el("td", { style: cellStyle(value, limit, share, now.ramps) },
    el("button", { className: "cell", textContent: unit(value), key, title, onclick }));
  const headCell = (layer, head) => cell(values.get(partKey(layer, head)), `${layer} head ${head}`,
    `head ${head} of layer ${layer}: see its attention`,
    () => go(join(layer, "attn.probs"), [head, now.position, now.position]));
  const ffnCell = layer => cell(values.get(partKey(layer, null)), `${layer} ffn`, `feed-forward of layer ${layer}: see its output`,
    () => go(join(layer, "ffn.out")));
  const rows = Array.from({ length: n_layers }, (_, layer) => el("tr", {}, el("th", { scope: "row", textContent: `layer ${layer}` }),
    ...heads.map(head => headCell(layer, head)), ffnCell(layer)));
  const title = text => el("th", { scope: "col", textContent: text });
  const table = el("table", { className: "parts" },
    el("thead", {}, el("tr", {}, el("td"), ...heads.map(head => title(`head ${head}`)), title("feed-forward"))),
    el("tbody", {}, ...rows));
  redraw(place, table);
  words.textContent = sentence;
}
