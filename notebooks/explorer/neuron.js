// SwiGLU: one neuron of the feed-forward over the text: its gate, the gate's curve, what goes through, and the product.
import { flatIndex } from "./explain.js";
import { neuronShares, probsAt } from "./logits.js";
import { join, letters } from "./names.js";
import { cellStyle, limitOf } from "./colours.js";
import { columnHead, el, field, redraw, row, rowHead, scrolled, tableOf } from "./dom.js";
import { num, short, shown } from "./format.js";
import { oneStop, rovingKeys } from "./roving.js";
import { likeliest } from "./sampling.js";

const BUSIEST = 6;
const ROWS = {
  "ffn.gate": "gate = h @ gate", "ffn.silu": "silu(gate)", "ffn.up": "up = h @ up", "ffn.hidden": "silu · up",
};
const ON_GATES = "A gate far below 0 is shut: silu is near 0, and nothing of “up” passes. A gate far above 0 lets " +
  "“up” pass, multiplied. Each row has colours of its own.";

export function makeNeuron(root, { change, go, setState }) {
  const controls = row(), place = scrolled("one neuron over the text"), busiest = row();
  root.append(controls, place, el("p", { className: "sentence", textContent: ON_GATES }), busiest);

  rovingKeys(place);

  const isOfNeurons = now => letters(now.name).endsWith("F");
  function pick(now, neuron) {                            // where a tensor of neurons is open, it shows the same one
    if (isOfNeurons(now)) go(now.name, [now.position, neuron], { stay: true });
    else setState({ neuron });
  }
  function drawControls(now, neuron) {
    const layer = now.openLayer, most = now.model.config.hidden_dim - 1;
    const part = { kind: "neuron", layer, neuron };
    const changed = now.state.changes.find(c => c.kind === "neuron" && c.layer === layer && c.neuron === neuron);
    const isOff = changed?.scale === 0;
    const input = el("input", { type: "number", min: 0, max: most, value: neuron, key: "neuron" });
    input.onchange = () => pick(now, Math.max(0, Math.min(most, Math.floor(Number(input.value)))));
    const scale = el("input", { type: "number", step: 0.5, value: changed?.scale ?? 1, key: "scale" });
    scale.onchange = () => change({ ...part, scale: Number(scale.value) });
    const toggle = el("button", { key: "off", textContent: isOff ? "switch it on" : "switch it off",
      onclick: () => change({ ...part, scale: isOff ? 1 : 0 }) });
    redraw(controls, el("b", { textContent: `layer ${layer}` }), field(`neuron, 0 to ${most}`, input),
      field("scaled by", scale), toggle);
  }
  function valueRow(now, neuron, [part, text]) {
    const name = join(now.openLayer, part), x = now.run.trace.get(name);
    const values = now.run.tokens.map((_, t) => x.data[flatIndex(x.shape, [t, neuron])]);
    const limit = limitOf(Float32Array.from(values), false);
    const cell = (value, t) => {
      const title = `${name}[${t}, ${neuron}]: ${num(value)}`, toIt = () => go(name, [t, neuron]);
      const properties = { className: "cell", textContent: short(value), key: `${part} ${t}`, title, onclick: toIt };
      return el("td", { style: cellStyle(value, limit, false, now.ramps) }, el("button", properties));
    };
    return [rowHead(text), ...values.map(cell)];
  }
  function drawTable(now, neuron) {
    const heads = now.run.tokens.map(id => columnHead(shown(now.model.tokenizer, id)));
    heads[now.position].classList.add("chosen");
    redraw(place, tableOf("parts", [el("td"), ...heads], Object.entries(ROWS).map(one => valueRow(now, neuron, one))));
    place.dataset.columns = now.run.tokens.length;
    oneStop(place, document.activeElement);
  }
  function drawBusiest(now) {
    const token = now.state.token ?? likeliest(probsAt(now.run, now.position))[0];
    const shares = neuronShares(now.run, now.position, token, now.openLayer);
    const ids = Array.from(shares.keys()).sort((a, b) => Math.abs(shares[b]) - Math.abs(shares[a]));
    const button = j => el("button", { textContent: `neuron ${j} adds ${num(shares[j], 3)}`, key: `busy ${j}`,
      onclick: () => pick(now, j) });
    const next = shown(now.model.tokenizer, token), last = shown(now.model.tokenizer, now.run.tokens[now.position]);
    const title = el("span", { textContent: `Of this layer, to the logit of “${next}” after “${last}”:` });
    redraw(busiest, title, ...ids.slice(0, BUSIEST).map(button));
  }
  return function draw(now) {
    const chosen = isOfNeurons(now) ? now.index[1] : now.state.neuron;
    const neuron = Math.min(chosen, now.model.config.hidden_dim - 1);
    drawControls(now, neuron);
    drawTable(now, neuron);
    drawBusiest(now);
  };
}
