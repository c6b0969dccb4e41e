// A picture where a formula has one: a pair that turns, the curve of SiLU.
import { el, svg } from "./dom.js";
import { num } from "./format.js";

const DEGREES = 180 / Math.PI;

export function drawPicture({ rope, silu }) {
  const [picture, ...lines] = rope ? ropePicture(...rope) : siluPicture(silu);
  const words = el("p", {}, ...lines.map(text => el("span", { textContent: text })));
  return el("div", { className: "picture" }, picture, words);
}

// A pair (a, b) before and after it is turned; the circle is as large as the pair is long.
export function turnedPair(a, b, angle, text) {
  const size = Math.hypot(a, b) || 1, at = (u, v) => [60 + u / size * 46, 60 - v / size * 46];
  const [x0, y0] = at(a, b);
  const [x1, y1] = at(a * Math.cos(angle) - b * Math.sin(angle), b * Math.cos(angle) + a * Math.sin(angle));
  const line = (name, x, y) => svg("line", { class: name, x1: 60, y1: 60, x2: x, y2: y });
  return svg("svg", { viewBox: "0 0 120 120", role: "img", "aria-label": text },
    svg("circle", { cx: 60, cy: 60, r: 46 }),
    svg("line", { class: "axis", x1: 8, y1: 60, x2: 112, y2: 60 }),
    svg("line", { class: "axis", x1: 60, y1: 8, x2: 60, y2: 112 }),
    line("from", x0, y0), line("to", x1, y1), svg("circle", { class: "dot", cx: x1, cy: y1, r: 3.5 }));
}

function ropePicture(a, b, angle, isFirst) {
  return [turnedPair(a, b, angle, `the pair (a, b) turned by ${num(angle, 2)} radians`), "grey, dashed: (a, b)",
    `blue: turned by ${num(angle, 3)} rad = ${num(angle * DEGREES, 1)}°`,
    `this number is its ${isFirst ? "horizontal" : "vertical"} part`];
}

function siluPicture(value) {
  const x = v => 100 + v * 14, y = v => 62 - v * 9, f = v => v / (1 + Math.exp(-v));
  const near = Math.max(-6.5, Math.min(6.5, value)), points = Array.from({ length: 57 }, (_, i) => (i - 28) / 4.3);
  const text = "the curve of SiLU, this number marked";
  const picture = svg("svg", { viewBox: "0 0 200 80", class: "wide", role: "img", "aria-label": text },
    svg("line", { class: "axis", x1: 4, x2: 196, y1: y(0), y2: y(0) }),
    svg("line", { class: "axis", x1: 100, x2: 100, y1: 4, y2: 78 }),
    svg("polyline", { class: "curve", points: points.map(v => `${x(v)},${y(f(v))}`).join(" ") }),
    svg("circle", { class: "dot", cx: x(near), cy: y(f(near)), r: 4 }));
  return [picture, "x · σ(x): shut on the left, open on the right"];
}
