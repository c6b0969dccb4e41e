// SwiGLU: one neuron of the feed-forward over the text: its gate, the gate's curve, what goes through, and the product.
import { join, letters } from "./names.js";
import { cellStyle, limitOf } from "./colours.js";
import { el, field, redraw } from "./dom.js";
import { flatIndex } from "./explain.js";
import { num, short, shown } from "./format.js";

const BUSIEST = 6;
const ROWS = [["ffn.gate", "gate = x W"], ["ffn.silu", "silu(gate)"], ["ffn.up", "up = x V"], ["ffn.hidden", "silu · up"]];

export function makeNeuron(root, { change, go, setState }) {
  const controls = el("div", { className: "row" }), place = el("div", { className: "scroll", tabIndex: 0, role: "region",
    "aria-label": "one neuron over the text" });
  const words = el("p", { className: "sentence" }), busiest = el("div", { className: "row" });
  root.append(controls, place, words, busiest);

  const isOfNeurons = now => letters(now.name).endsWith("F");
  function pick(now, neuron) {                            // where a tensor of neurons is open, it shows the same one
    if (isOfNeurons(now)) go(now.name, [now.position, neuron], { stay: true });
    else setState({ neuron });
  }
  function drawControls(now, neuron) {
    const { hidden_dim } = now.model.config, layer = now.openLayer;
    const isPart = c => c.kind === "neuron" && c.layer === layer && c.neuron === neuron;
    const changed = now.state.changes.find(isPart);
    const input = el("input", { type: "number", min: 0, max: hidden_dim - 1, value: neuron, key: "neuron" });
    input.onchange = () => pick(now, Math.max(0, Math.min(hidden_dim - 1, Math.floor(Number(input.value)))));
    const scale = el("input", { type: "number", step: 0.5, value: changed?.scale ?? 1, key: "scale" });
    scale.onchange = () => change({ kind: "neuron", layer, neuron, scale: Number(scale.value) });
    const isOff = changed?.scale === 0;
    const toggle = el("button", { key: "off", textContent: isOff ? "switch it on" : "switch it off",
      onclick: () => change({ kind: "neuron", layer, neuron, scale: isOff ? 1 : 0 }) });
    redraw(controls, el("b", { textContent: `layer ${layer}` }), field(`neuron, 0 to ${hidden_dim - 1}`, input),
      field("scaled by", scale), toggle);
  }
  function drawTable(now, neuron) {
    const label = t => el("th", { scope: "col", className: t === now.position ? "chosen" : "",
      textContent: shown(now.model.tokenizer, now.run.tokens[t]) });
    const row = ([part, text]) => {
      const name = join(now.openLayer, part), x = now.run.trace.get(name);
      const values = now.run.tokens.map((_, t) => x.data[flatIndex(x.shape, [t, neuron])]), limit = limitOf(Float32Array.from(values), false);
      const cell = (v, t) => el("td", { style: cellStyle(v, limit, false, now.ramps) }, el("button", { className: "cell",
        textContent: short(v), key: `${part} ${t}`, title: `${name}[${t}, ${neuron}]: ${num(v)}`, onclick: () => go(name, [t, neuron]) }));
      return el("tr", {}, el("th", { scope: "row", textContent: text }), ...values.map(cell));
    };
    redraw(place, el("table", { className: "parts" }, el("thead", {}, el("tr", {}, el("td"), ...now.run.tokens.map((_, t) => label(t)))),
      el("tbody", {}, ...ROWS.map(row))));
  }
  function drawBusiest(now) {
    const x = now.run.trace.get(join(now.openLayer, "ffn.hidden")), F = x.shape[1];
    const row = x.data.subarray(now.position * F, (now.position + 1) * F);
    const ids = Array.from(row.keys()).sort((a, b) => Math.abs(row[b]) - Math.abs(row[a])).slice(0, BUSIEST);
    redraw(busiest, el("span", { textContent: `Largest products at “${shown(now.model.tokenizer, now.run.tokens[now.position])}”:` }),
      ...ids.map(j => el("button", { textContent: `neuron ${j}: ${num(row[j], 2)}`, key: `busy ${j}`, onclick: () => pick(now, j) })));
  }
  return function draw(now) {
    const chosen = isOfNeurons(now) ? now.index[1] : now.state.neuron;
    const neuron = Math.min(chosen, now.model.config.hidden_dim - 1);
    drawControls(now, neuron);
    drawTable(now, neuron);
    words.textContent = "A gate far below 0 is shut: silu is near 0, and nothing of “up” passes. A gate far above 0 lets “up” " +
      "pass, multiplied. Each row has colours of its own.";
    drawBusiest(now);
  };
}
