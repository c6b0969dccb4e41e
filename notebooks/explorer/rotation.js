// RoPE: turn theta, pair neighbours, shift positions; see one pair turn, and the scores of one query follow.
import { pairOf, ropeFrequencies } from "./engine.js";
import { flatIndex } from "./explain.js";
import { join } from "./names.js";
import { MOST_SHIFT } from "./changes.js";
import { positionsIn } from "./differ.js";
import { choice, el, field, para, redraw, row, scrolled, svg } from "./dom.js";
import { isAttentionMap, keyHeadOf, num, shown } from "./format.js";
import { turnedPair } from "./picture.js";

const LOG_THETA = [1, 6];                                 // the slider goes from 10 to 1,000,000
const SNAP = 0.02;                                        // near the trained theta, the slider takes exactly that
const BAR_HEIGHT = 90, BAR_WIDTH = 26;
const PAIRINGS = [["halves", "(i, i + d/2)"], ["neighbours", "(2i, 2i + 1)"]];
const OF_A_QUERY = ["attn.q", "attn.q_rope", "attn.scores", "attn.probs", "attn.heads"];

export function makeRotation(root, { change, changeWhileDragging, go, setState }) {
  const controls = makeControls();
  const pictures = el("div", { className: "pictures" }), scores = el("div", { className: "scores" });
  root.append(controls.root, pictures, scores);

  let trained = 0;
  const { theta, pairing, shift, pair } = controls;
  const thetaChange = () => {
    const value = Number(theta.value), isNear = Math.abs(value - Math.log10(trained)) < SNAP;
    return { kind: "theta", value: isNear ? trained : Math.round(10 ** value) };
  };
  theta.oninput = () => changeWhileDragging(thetaChange());
  theta.onchange = () => change(thetaChange());
  pairing.onchange = () => change({ kind: "pairing", value: pairing.value });
  const withinBounds = value => Math.max(-MOST_SHIFT, Math.min(MOST_SHIFT, value));
  shift.onchange = () => change({ kind: "shift", value: withinBounds(Math.round(Number(shift.value))) });
  pair.oninput = () => setState({ pair: Number(pair.value) }, { push: false });

  function drawControls(now, place) {
    const { config } = now.run;
    trained = now.model.config.rope_theta;
    theta.value = Math.log10(config.rope_theta);
    controls.thetaText.textContent = Math.round(config.rope_theta).toLocaleString("en");
    pairing.value = config.pairing ?? "halves";
    if (document.activeElement !== shift) shift.value = config.shift ?? 0;
    pair.max = config.head_dim / 2 - 1;
    pair.value = place.pair;
    controls.pairText.textContent = place.pair;
    drawChosen(now, place);
  }
  function drawChosen(now, { head, t, s }) {
    const name = join(now.openLayer, "attn.scores");
    const heads = Array.from({ length: now.run.config.n_heads }, (_, h) => [h, `head ${h}`]);
    const keys = now.run.tokens.map((id, k) => [k, `${k} “${shown(now.model.tokenizer, id)}”`]);
    const pickHead = event => go(name, [Number(event.target.value), t, s]);
    const pickKey = event => go(name, [head, t, Number(event.target.value)]);
    redraw(controls.chosen, field("query head", choice(heads, head, { key: "head", onchange: pickHead })),
      field("key", choice(keys, s, { key: "key", onchange: pickKey })));
  }
  return function draw(now) {
    const place = placeOf(now);
    drawControls(now, place);
    pictures.replaceChildren(...pairPictures(now, place));
    redraw(scores, ...scoreBars(now, place, go));
  };
}

function makeControls() {                                 // they stay in place while they are dragged
  const theta = el("input", { type: "range", id: "theta", min: LOG_THETA[0], max: LOG_THETA[1], step: 0.01 });
  const thetaText = el("output", { for: "theta" });
  const pairing = choice(PAIRINGS, "halves", { id: "pairing" });
  const shift = el("input", { type: "number", id: "shift", step: 1, min: -MOST_SHIFT, max: MOST_SHIFT });
  const pair = el("input", { type: "range", id: "pair", min: 0, step: 1 });
  const pairText = el("output", { for: "pair" });
  const chosen = row();
  const named = (id, text) => el("label", { htmlFor: id, textContent: text });
  const root = el("div", { className: "controls" }, named("theta", "θ"), theta, thetaText,
    named("pairing", "pairs"), pairing, el("span"), named("shift", "shift positions by"), shift, el("span"),
    named("pair", "look at pair"), pair, pairText, chosen);
  return { root, theta, thetaText, pairing, shift, pair, pairText, chosen };
}

// The query, key, head and pair that are looked at: what is selected, where it says so.
function placeOf(now) {
  const { index, short, position: t } = now, half = now.run.config.head_dim / 2;
  const head = OF_A_QUERY.includes(short) ? index[0] : 0;
  const s = isAttentionMap(now.name) ? index[2] : Math.max(0, t - 1);
  return { head, t, s, pair: Math.min(now.state.pair, half - 1) };
}

function pairPictures(now, { head, t, s, pair }) {
  const { config, tokens, trace } = now.run;
  const frequency = ropeFrequencies(config.head_dim, config.rope_theta)[pair];
  const columns = pairOf(pair, config.head_dim, config.pairing);
  const picture = (what, short, which, position) => {
    const x = trace.get(join(now.openLayer, short));
    const [a, b] = columns.map(column => x.data[flatIndex(x.shape, [which, position, column])]);
    const angle = (position + (config.shift ?? 0)) * frequency, token = shown(now.model.tokenizer, tokens[position]);
    const text = `${what} ${position} “${token}”: turned by ${num(angle, 2)} rad`;
    return el("figure", {}, turnedPair(a, b, angle, text), el("figcaption", { textContent: text }));
  };
  const around = 2 * Math.PI / frequency;
  const words = para(`Pair ${pair} is columns ${columns.join(" and ")} of a head. It turns by ` +
    `${num(frequency, 4)} rad from one token to the next: once around in ` +
    `${num(around, around < 100 ? 1 : 0)} tokens. Between the two tokens lie ${num((t - s) * frequency, 2)} rad.`);
  return [picture("query", "attn.q", head, t), picture("key", "attn.k", keyHeadOf(config, head), s), words];
}

function scoreBars(now, place, go) {
  const { head, t, s } = place, name = join(now.openLayer, "attn.scores");
  const label = id => shown(now.model.tokenizer, id);
  const mine = queryScores(now.run, name, head, t);
  const button = (id, k) => el("button", { className: k === s ? "key chosen" : "key", style: `width:${BAR_WIDTH}px`,
    key: `key ${k}`, textContent: label(id), title: `key ${k}: ${num(mine[k])}`,
    onclick: () => go(name, [head, t, k]) });
  const keys = el("div", { className: "keys", style: `width:${mine.length * BAR_WIDTH}px` },
    ...now.run.tokens.slice(0, mine.length).map(button));
  const title = `Scores of query ${t} “${label(now.run.tokens[t])}”, head ${head} of layer ${now.openLayer}`;
  const trained = now.isChanged ? trainedScores(now, name, head, t) : [];
  const chart = scoreChart(mine, trained, title);
  return [el("h2", { textContent: title }), scrolled("scores", chart, keys),
    para(`Up is positive, down negative.${trained.length ? " Outlines: as trained." : ""} Only distances count: ` +
      "shift all positions, and every score stays.")];
}

function queryScores(run, name, head, t) {                // of one query, over the keys that it sees
  const x = run.trace.get(name), from = flatIndex(x.shape, [head, t, 0]);
  return Array.from(x.data.subarray(from, from + t + 1));
}

// The same as trained, NaN for a key that stands in this run alone; none if the query does.
function trainedScores({ run, base }, name, head, t) {
  const at = positionsIn(base, run);
  if (at[t] === null) return [];
  const scores = queryScores(base, name, head, at[t]);
  return Array.from({ length: t + 1 }, (_, key) => scores[at[key]] ?? NaN);
}

function scoreChart(mine, trained, title) {
  const middle = BAR_HEIGHT / 2, width = mine.length * BAR_WIDTH;
  const most = Math.max(1e-9, ...[...mine, ...trained].filter(Number.isFinite).map(Math.abs));
  const bar = (className, inset) => (value, k) => {
    const height = Number.isFinite(value) ? Math.abs(value) / most * (middle - 2) : 0;
    const y = value > 0 ? middle - height : middle;
    return svg("rect", { class: className, x: k * BAR_WIDTH + inset, y, width: BAR_WIDTH - 2 * inset, height });
  };
  const bars = mine.map((value, k) => bar(value < 0 ? "score minus" : "score", 4)(value, k));
  const axis = svg("line", { class: "axis", x1: 0, x2: width, y1: middle, y2: middle });
  const size = { viewBox: `0 0 ${width} ${BAR_HEIGHT}`, width, height: BAR_HEIGHT };
  return svg("svg", { ...size, role: "img", "aria-label": title }, ...bars, ...trained.map(bar("trained", 2)), axis);
}
