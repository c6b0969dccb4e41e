// RoPE: turn theta, pair neighbours, shift positions; see one pair turn, and the scores of one query follow.
import { pairOf, ropeFrequencies } from "./engine.js";
import { join } from "./names.js";
import { choice, el, field, redraw, svg } from "./dom.js";
import { flatIndex } from "./explain.js";
import { keyHeadOf, num, shown } from "./format.js";
import { turnedPair } from "./picture.js";

const LOG_THETA = [1, 6];                                 // the slider goes from 10 to 1,000,000
const SNAP = 0.02;                                        // near the trained theta, the slider takes exactly that
const BAR_HEIGHT = 90, BAR_WIDTH = 26;

export function makeRotation(root, { change, changeWhileDragging, go, setState }) {
  const theta = el("input", { type: "range", id: "theta", min: LOG_THETA[0], max: LOG_THETA[1], step: 0.01 });
  const thetaText = el("output", { for: "theta" }), pairing = choice([["halves", "(i, i + d/2)"],
    ["neighbours", "(2i, 2i + 1)"]], "halves", { id: "pairing" });
  const shift = el("input", { type: "number", id: "shift", step: 1 }), pair = el("input", { type: "range", id: "pair", min: 0, step: 1 });
  const pairText = el("output", { for: "pair" }), chosen = el("div", { className: "row" });
  const controls = el("div", { className: "controls" }, el("label", { htmlFor: "theta", textContent: "θ" }), theta, thetaText,
    el("label", { htmlFor: "pairing", textContent: "pairs" }), pairing, el("span"),
    el("label", { htmlFor: "shift", textContent: "shift positions by" }), shift, el("span"),
    el("label", { htmlFor: "pair", textContent: "look at pair" }), pair, pairText, chosen);
  const pictures = el("div", { className: "pictures" }), scores = el("div", { className: "scores" });
  let trained = 10000;
  root.append(controls, pictures, scores);

  const thetaChange = () => {
    const value = Number(theta.value), near = Math.abs(value - Math.log10(trained)) < SNAP;
    return { kind: "theta", value: near ? trained : Math.round(10 ** value) };
  };
  theta.oninput = () => changeWhileDragging(thetaChange());
  theta.onchange = () => change(thetaChange());
  pairing.onchange = () => change({ kind: "pairing", value: pairing.value });
  shift.onchange = () => change({ kind: "shift", value: Math.round(Number(shift.value)) });
  pair.oninput = () => setState({ pair: Number(pair.value) });

  function drawControls(now, place) {
    const { config } = now.run;
    trained = now.model.config.rope_theta;
    theta.value = Math.log10(config.rope_theta);
    thetaText.textContent = Math.round(config.rope_theta).toLocaleString("en");
    pairing.value = config.pairing ?? "halves";
    if (document.activeElement !== shift) shift.value = config.shift ?? 0;
    pair.max = config.head_dim / 2 - 1;
    pair.value = place.pair;
    pairText.textContent = place.pair;
    const token = (id, t) => [t, `${t} “${shown(now.model.tokenizer, id)}”`];
    const heads = Array.from({ length: config.n_heads }, (_, head) => [head, `head ${head}`]);
    const goTo = part => go(join(now.openLayer, "attn.scores"), Object.values({ ...part }));
    redraw(chosen, field("query head", choice(heads, place.head, { key: "head",
      onchange: event => goTo({ head: Number(event.target.value), t: place.t, s: place.s }) })),
    field("key", choice(now.run.tokens.map(token), place.s, { key: "key",
      onchange: event => goTo({ head: place.head, t: place.t, s: Number(event.target.value) }) })));
  }
  return function draw(now) {
    const place = placeOf(now);
    drawControls(now, place);
    pictures.replaceChildren(...pairPictures(now, place));
    scores.replaceChildren(...scoreBars(now, place, go));
  };
}

// The query, key, head and pair that are looked at: what is selected, where it says so.
function placeOf(now) {
  const { index, short, position: t } = now, half = now.run.config.head_dim / 2;
  const head = ["attn.q", "attn.q_rope", "attn.scores", "attn.probs", "attn.heads"].includes(short) ? index[0] : 0;
  const isMap = short === "attn.scores" || short === "attn.probs";
  return { head, t, s: isMap ? index[2] : Math.max(0, t - 1), pair: Math.min(now.state.pair, half - 1) };
}

function pairPictures(now, { head, t, s, pair }) {
  const { config, tokens } = now.run, { tokenizer } = now.model, layer = now.openLayer;
  const frequency = ropeFrequencies(config.head_dim, config.rope_theta)[pair];
  const columns = pairOf(pair, config.head_dim, config.pairing);
  const picture = (what, short, which, position) => {
    const x = now.run.trace.get(join(layer, short)), [a, b] = columns.map(c => x.data[flatIndex(x.shape, [which, position, c])]);
    const angle = (position + (config.shift ?? 0)) * frequency, token = shown(tokenizer, tokens[position]);
    const text = `${what} ${position} “${token}”: turned by ${num(angle, 2)} rad`;
    return el("figure", {}, turnedPair(a, b, angle, text), el("figcaption", { textContent: text }));
  };
  const turn = 2 * Math.PI / frequency;
  const words = el("p", { className: "sentence", textContent: `Pair ${pair} is columns ${columns.join(" and ")} of a head. It turns ` +
    `by ${num(frequency, 4)} rad from one token to the next: once around in ${num(turn, turn < 100 ? 1 : 0)} tokens. ` +
    `Between the two tokens lie ${num((t - s) * frequency, 2)} rad.` });
  return [picture("query", "attn.q", head, t), picture("key", "attn.k", keyHeadOf(config, head), s), words];
}

function scoreBars(now, { head, t, s }, go) {
  const name = join(now.openLayer, "attn.scores"), { tokenizer } = now.model;
  const scores = run => {
    const x = run.trace.get(name), S = x.shape[2], from = flatIndex(x.shape, [head, Math.min(t, x.shape[1] - 1), 0]);
    return Array.from(x.data.subarray(from, from + S)).slice(0, t + 1);
  };
  const mine = scores(now.run), trained = scores(now.base);
  const most = Math.max(1e-9, ...[...mine, ...trained].filter(Number.isFinite).map(Math.abs));
  const middle = BAR_HEIGHT / 2, size = v => Number.isFinite(v) ? Math.abs(v) / most * (middle - 2) : 0;
  const bar = (v, k, className, inset) => svg("rect", { class: className, x: k * BAR_WIDTH + inset, width: BAR_WIDTH - 2 * inset,
    y: v > 0 ? middle - size(v) : middle, height: size(v) });
  const bars = mine.flatMap((v, k) => [bar(v, k, v < 0 ? "score minus" : "score", 4),
    ...(now.isChanged && k < trained.length ? [bar(trained[k], k, "trained", 2)] : [])]);
  const width = mine.length * BAR_WIDTH, chart = svg("svg", { viewBox: `0 0 ${width} ${BAR_HEIGHT}`, width, height: BAR_HEIGHT,
    role: "img", "aria-label": `scores of query ${t} over the keys` }, ...bars,
  svg("line", { class: "axis", x1: 0, x2: width, y1: middle, y2: middle }));
  const label = k => el("button", { className: k === s ? "key chosen" : "key", style: `width:${BAR_WIDTH}px`, key: `key ${k}`,
    textContent: shown(tokenizer, now.run.tokens[k]), title: `key ${k}: ${num(mine[k])}`, onclick: () => go(name, [head, t, k]) });
  const outline = now.isChanged ? " Outlines: as trained." : "";
  return [el("h2", { textContent: `Scores of query ${t} “${shown(tokenizer, now.run.tokens[t])}”, head ${head} of layer ${now.openLayer}` }),
    el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "scores" }, chart,
      el("div", { className: "keys", style: `width:${width}px` }, ...mine.map((_, k) => label(k)))),
    el("p", { className: "sentence", textContent: `Up is positive, down negative.${outline} Only distances count: ` +
      "shift all positions, and every score stays." })];
}
