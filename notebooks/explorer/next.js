// The next token: bars of this run and of the run as trained, the same after every layer, and drawing on.
import { divergence, lens, loss, probsAt, rowOf } from "./logits.js";
import { likeliest, nextTokenProbs } from "./sampling.js";
import { cellStyle } from "./colours.js";
import { positionsIn } from "./differ.js";
import { columnHead, el, redraw, rowHead, tableOf } from "./dom.js";
import { percent, shown, spaced } from "./format.js";
import { makeSampling } from "./sampling_controls.js";

const BARS = 8, LENS_COLUMNS = 5;

export function makeNext(root, actions) {
  const chart = el("div", { className: "chart" }), layers = el("div", { className: "lens" });
  const sampling = el("div", { className: "sampling" });
  const drawSampling = makeSampling(sampling, actions);
  root.append(chart, layers, sampling);

  return function draw(now) {
    const { temperature, top_k, top_p } = now.state.sampling;
    const at = positionsIn(now.base, now.run)[now.position], mine = probsAt(now.run, now.position);
    const answer = {
      now: mine,
      was: at === null ? mine : probsAt(now.base, at),
      isBeside: now.isChanged && at !== null,             // whether the answer as trained stands beside it
      drawn: nextTokenProbs(rowOf(now.run, now.position), temperature, top_k, top_p),
    };
    const best = bestIds(answer);
    drawBars(chart, now, answer, best, actions);
    drawLens(layers, now, best.slice(0, LENS_COLUMNS));
    drawSampling(now, effect(now, answer));
  };
}

function bestIds({ now, was }) {                          // the best of both runs, by this run's order
  const either = now.map((p, id) => Math.max(p, was[id]));
  return likeliest(either).slice(0, BARS).sort((a, b) => now[b] - now[a]);
}

function drawBars(root, now, answer, best, { branch, go }) {
  const { tokenizer } = now.model, actual = now.run.tokens[now.position + 1];
  const most = Math.max(0.05, ...best.map(id => Math.max(answer.now[id], answer.was[id], answer.drawn[id])));
  const wide = p => `width:${100 * p / most}%`;
  const bar = id => {
    const text = shown(tokenizer, id) + (id === actual ? "  ✓" : "");
    const outline = answer.isBeside ? [el("u", { style: wide(answer.was[id]) })] : [];
    const inside = [el("b", { style: wide(answer.now[id]) }), ...outline,
      el("s", { style: `left:${100 * answer.drawn[id] / most}%` })];
    const branchButton = el("button", { className: answer.drawn[id] ? "word" : "word cut", key: `branch ${id}`,
      title: `go on with “${spaced(tokenizer.pieces[id])}”`, onclick: () => branch(id) },
    el("span", { textContent: text }), el("i", {}, ...inside));
    const number = el("button", { className: "link", key: `logit ${id}`, textContent: percent(answer.now[id]),
      title: "where this comes from: its logit", onclick: () => go("logits", [now.position, id]) });
    const was = el("span", { className: "was", textContent: answer.isBeside ? percent(answer.was[id]) : "" });
    return el("div", { className: "bar-row" }, branchButton, number, was);
  };
  const after = shown(tokenizer, now.run.tokens[now.position]);
  const key = el("p", { className: "key" }, el("b"), " this run ",
    ...(answer.isBeside ? [el("u"), " as trained "] : []),
    el("s"), " after temperature, top-k and top-p · click a bar to go on, a number to see its logit and where that " +
      "comes from",
    ...(actual === undefined ? [] : [" · ✓ in the text"]));
  redraw(root, el("h2", { textContent: `After “${after}”, in percent` }),
    el("div", { className: "bars" }, ...best.map(bar)), key);
}

function drawLens(root, now, best) {
  const { tokenizer } = now.model, label = name => name.startsWith("layers.") ? `layer ${name.split(".")[1]}` : name;
  const cell = p => el("td", { textContent: percent(p).replace("<0.1", "0"), style: cellStyle(p, 1, true, now.ramps) });
  const first = probs => {                                // what the model would say there, which may be none of these
    const [id] = likeliest(probs), text = `${shown(tokenizer, id)} ${percent(probs[id])}`;
    return el("td", { className: "first", textContent: text, title: text });
  };
  const heads = [el("td"), ...best.map(id => columnHead(shown(tokenizer, id))), columnHead("likeliest")];
  const rows = lens(now.run, now.position).map(({ name, probs }) =>
    [rowHead(label(name)), ...best.map(id => cell(probs[id])), first(probs)]);
  root.replaceChildren(el("h2", { textContent: "… if the model stopped after a layer" }), tableOf("", heads, rows));
}

function effect(now, answer) {                            // one or two sentences on how good the run is
  if (now.run.tokens.length < 2) return "One token: nothing was predicted yet.";
  const nats = loss(now.run).toFixed(2);
  if (!now.isChanged) return `${nats} nats per token of this text`;
  const trained = now.base.tokens.length < 2 ? "" : ` (as trained ${loss(now.base).toFixed(2)})`;
  if (!answer.isBeside) return `${nats} nats per token${trained}; as trained, this token does not stand there`;
  const distance = divergence(answer.was, answer.now);
  const far = distance > 0 && distance < 0.0005 ? "less than 0.001" : distance.toFixed(3);
  return `${nats} nats per token${trained}; the answer moved by ${far} nats (KL)`;
}
