// What was added up for one number: strips of factors and products, the running sum, the largest terms.
import { limitOf, paint } from "./colours.js";
import { columnHead, el, rowHead, svg, tableOf } from "./dom.js";
import { num } from "./format.js";

const FEW = 8, LARGEST = 6;                               // that many terms are all listed; of more, the largest
const SUM_WIDTH = 600, SUM_HEIGHT = 56;

const label = (explained, k, token) => explained.tokens ? token(k) : String(k);

export function drawTerms(explained, { token, link, go, ramps }) {
  const what = explained.B ? "products" : "terms";
  const note = el("p", { className: "note",
    textContent: `${explained.products.length} ${what}: point at a strip; click to go to a factor` });
  const tell = k => { note.textContent = termWords(explained, k, token); };
  const drawn = [...strips(explained, { tell, go, ramps }), ...runningSum(explained.products)];
  return [el("div", { className: "terms" }, ...drawn), note, largestTerms(explained, token, link)];
}

function termWords(explained, k, token) {
  const { A, B, products, names } = explained, where = label(explained, k, token);
  if (B) return `${where}: ${num(A[k].value)} × ${num(B[k].value)} = ${num(products[k])}`;
  return `${where}: ${num(A[k].value)}, ${names[2]} ${num(products[k])}`;
}

function strips(explained, { tell, go, ramps }) {
  const { A, B, products, names, focus, positive } = explained, n = products.length;
  const strip = (text, values, share) => {
    const canvas = el("canvas", { className: "strip", "aria-hidden": true });
    const limit = share ? Math.max(...values) : limitOf(values, false);
    paint(canvas, 1, n, values, ramps, share, limit || 1);
    const at = event => Math.max(0, Math.min(n - 1, Math.floor(event.offsetX / canvas.clientWidth * n)));
    canvas.onpointermove = event => tell(at(event));
    canvas.onclick = event => follow(at(event));
    return [el("span", { textContent: text }), canvas];
  };
  const follow = k => {
    const ref = [A[k], B?.[k]].find(r => r?.name);
    if (ref) go(ref.name, ref.index);
  };
  const factors = strip(names[0], A.map(ref => ref.value));
  const others = B ? strip("× " + names[1], B.map(ref => ref.value)) : [];
  const marked = focus === undefined ? [] : [focusMark(focus, n)];
  return [...factors, ...marked, ...others, ...strip(B ? "= products" : names[2], products, Boolean(positive))];
}

function focusMark(focus, n) {                            // which of the factors the number itself stands for
  const left = (focus + 0.5) / n * 100;
  return el("div", { className: "focus", style: `margin-left:${left}%`, textContent: "▲", "aria-hidden": true });
}

function runningSum(products) {
  const sums = [0];
  for (const p of products) sums.push(sums.at(-1) + p);
  const top = Math.max(...sums), low = Math.min(...sums);
  const x = k => k / products.length * SUM_WIDTH, y = v => 4 + (top - v) / (top - low || 1) * (SUM_HEIGHT - 8);
  const picture = svg("svg", { viewBox: `0 0 ${SUM_WIDTH} ${SUM_HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `running sum, from 0 to ${num(sums.at(-1))}`, class: "running" },
  svg("line", { x1: 0, x2: SUM_WIDTH, y1: y(0), y2: y(0) }),
  svg("polyline", { points: sums.map((v, k) => `${x(k)},${y(v)}`).join(" ") }));
  return [el("span", { textContent: `running sum, from 0 to ${num(sums.at(-1))}` }), picture];
}

function largestTerms(explained, token, link) {
  const { A, B, products, names, sum } = explained;
  const order = products.map((_, k) => k).sort((a, b) => Math.abs(products[b]) - Math.abs(products[a]));
  const listed = order.slice(0, products.length <= FEW ? FEW : LARGEST), rest = order.slice(listed.length);
  const between = el("td", { colSpan: B ? 2 : 1 });
  const cell = (value, digits = 4) => el("td", { textContent: num(value, digits) });
  const factors = k => B ? [A[k], B[k]] : [A[k]];
  const term = k =>
    [rowHead(label(explained, k, token)), ...factors(k).map(ref => el("td", {}, link(ref))), cell(products[k])];
  const left = rest.reduce((total, k) => total + products[k], 0);
  const more = rest.length ? [[rowHead(`${rest.length} more`), between.cloneNode(), cell(left)]] : [];
  const second = B?.[0].weight === undefined ? "value" : "weight";
  const heads = B ? ["largest", "value", second, "product"] : ["largest", "from", names[2]];
  const total = [rowHead("sum"), between, cell(sum, 6)];
  const table = tableOf("", heads.map(columnHead), [...listed.map(term), ...more, total]);
  table.querySelector("tbody tr:last-child").className = "total";
  return table;
}

export function drawGroups(groups) {                      // [[name, value], ...] as bars to the left and right of zero
  const most = Math.max(...groups.map(([, value]) => Math.abs(value))) || 1;
  const bar = value => el("i", {}, el("b", { className: value < 0 ? "minus" : "",
    style: `width:${Math.abs(value) / most * 50}%;${value < 0 ? "right" : "left"}:50%` }));
  return el("div", { className: "groups" }, ...groups.flatMap(([name, value]) =>
    [el("span", { textContent: name }), bar(value), el("span", { textContent: num(value) })]));
}
