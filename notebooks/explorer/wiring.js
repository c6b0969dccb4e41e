// Left: the whole model as a rail of stops, and one layer as boxes with small live maps. All of them are buttons.
import { inputs, join, kind, split } from "./names.js";
import { limitOf, paint } from "./colours.js";
import { moved, sameShape } from "./differ.js";
import { el, setText, svg } from "./dom.js";
import { percent, shapeText } from "./format.js";
import { oneStop, rovingKeys } from "./roving.js";
import { BOXES, boxPlace, wirePaths } from "./wires.js";

const MOST_ROWS = 32, MOST_COLUMNS = 360;                 // as a small map is drawn: of more, every n-th is enough
const MOVED = 0.0005;                                     // changes that round to less than 0.1 % are not marked
const FAR_AWAY = 9.995;                                   // ... and of more than 999 % there is no room for the number

// A small map: heads side by side, rows are tokens.
function thumb(canvas, x, share, ramps) {
  const [T, n] = x.shape.slice(-2), heads = x.shape.length === 3 ? x.shape[0] : 1;
  const down = Math.ceil(T / MOST_ROWS), across = Math.ceil(heads * n / MOST_COLUMNS);
  const rows = Math.ceil(T / down), columns = Math.ceil(heads * n / across), numbers = new Float32Array(rows * columns);
  for (let c = 0; c < columns; c++) {
    const j = c * across, head = Math.floor(j / n), top = head * T * n + j % n;
    for (let r = 0; r < rows; r++) numbers[r * columns + c] = x.data[top + r * down * n];
  }
  paint(canvas, rows, columns, numbers, ramps, share, limitOf(x.data, share));
}

// How far a tensor is from where it was as trained: [on its box, in its title], empty where it did not move.
function movedWords(name, { isChanged, run, base }) {
  if (!isChanged) return ["", ""];
  if (!sameShape(run.trace.get(name), base.trace.get(name))) return ["Δ shape", "; of another shape than as trained"];
  const far = moved(name, run, base);
  if (far === Infinity) return ["Δ ∞", "; moved infinitely far"];
  if (far <= MOVED) return ["", ""];
  return [far < FAR_AWAY ? `Δ ${percent(far)}%` : "Δ >999%", `; moved by ${percent(far)} % of its size`];
}

function mapButton(className, key) {
  const parts = [el("span", { className: "name" }), el("span", { className: "shape" }),
    el("canvas", { "aria-hidden": true }), el("span", { className: "moved" })];
  return el("button", { className, key, tabIndex: -1 }, ...parts);
}

export function makeWiring(root, { go }) {
  const rail = el("div", { className: "rail", role: "group", "aria-label": "The model, from text to next token" });
  const lines = svg("svg", { "aria-hidden": "true" });
  const layer = el("div", { className: "layer", role: "group", "aria-label": "One layer" }, lines);
  const boxes = new Map(), stops = new Map();
  let now = null, painted = "", wired = "", size = [0, 0];
  root.append(rail, layer);

  const openLayer = () => now.openLayer;
  const nameOf = short => short === "in" ? inputs(join(openLayer(), "attn_norm"), now.model.config)[0]
    : join(openLayer(), short);
  function stopName(key) {                                // the same tensor in another layer, or the layer's end
    if (typeof key !== "number") return key;
    const { layer: here, short } = split(now.name);
    return join(key, here === null ? "x_ffn" : short);
  }

  for (const [short, ...place] of BOXES) {
    const box = mapButton("box", short);
    Object.assign(box.style, boxPlace(...place));
    box.onclick = () => go(nameOf(short));
    boxes.set(short, box);
    layer.append(box);
  }
  function makeStops() {
    const { n_layers } = now.model.config;
    for (const key of ["embedding", ...Array(n_layers).keys(), "norm", "logits"]) {
      const isLayer = typeof key === "number", stop = mapButton(isLayer ? "stop" : "stop end", key);
      stop.onclick = () => go(stopName(key));
      stops.set(key, stop);
      rail.append(stop);
    }
  }
  function drawMap(button, name, text, shape) {
    const x = now.run.trace.get(name), [label, size, canvas, badge] = button.children;
    const [onBox, inTitle] = movedWords(name, now);
    setText(label, text);
    setText(size, shape);
    button.title = `${name}  ${shapeText(name, x)}${inTitle}`;
    button.setAttribute("aria-pressed", name === now.name);
    button.classList.toggle("has-moved", onBox !== "");
    button.classList.toggle("differs", Boolean(now.inFile?.get(name)?.differs));
    setText(badge, onBox);
    if (now.fresh) thumb(canvas, x, split(name).short === "attn.probs", now.ramps);
  }
  function drawStop(key, stop, parents) {
    const isLayer = typeof key === "number", name = isLayer ? join(key, "x_ffn") : key;
    drawMap(stop, name, isLayer ? `layer ${key}` : key, "");
    stop.setAttribute("aria-pressed", isLayer ? key === split(now.name).layer : key === now.name);
    stop.classList.toggle("open", key === openLayer());
    stop.classList.toggle("feeds", now.layer === null && parents.has(name));      // else its box is marked
  }
  function drawBox(short, box, parents) {
    const name = nameOf(short), x = now.run.trace.get(name), isInput = short === "in";
    const text = isInput ? name : short.replace(/^(attn|ffn)\./, "");
    box.className = `box ${kind(name)}`;
    drawMap(box, name, text, isInput ? "" : x.shape.join("×"));
    box.classList.toggle("feeds", parents.has(name));
  }
  function drawWires(parents) {
    const key = [now.name, openLayer(), ...size].join();
    if (key === wired) return;
    wired = key;
    const carries = (from, to) => nameOf(to) === now.name && parents.has(nameOf(from));
    lines.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
    lines.replaceChildren(...wirePaths(...size).map(({ from, to, d, stream }) =>
      svg("path", { d, class: `${stream ? "stream" : ""} ${carries(from, to) ? "on" : ""}` })));
  }
  rovingKeys(root);
  new ResizeObserver(() => {
    size = [layer.clientWidth, layer.clientHeight];
    if (now) drawWires(new Set(inputs(now.name, now.model.config)));
  }).observe(layer);

  return function draw(view) {
    now = view;
    if (!stops.size) makeStops();
    const key = [openLayer(), now.run.id, now.ramps.ink].join(), parents = new Set(inputs(now.name, now.model.config));
    now.fresh = key !== painted;
    painted = key;
    for (const [key, stop] of stops) drawStop(key, stop, parents);
    for (const [short, box] of boxes) drawBox(short, box, parents);
    drawWires(parents);
    oneStop(root, boxes.get(now.short) ?? stops.get(now.name));
  };
}
