// What was added up for one number: strips of factors and products above each other, the running sum, the largest terms.
import { limitOf, paint } from "./colours.js";
import { el, svg } from "./dom.js";
import { num } from "./format.js";

const FEW = 8, LARGEST = 6;                               // that many terms are all listed; of more, the largest
const SUM_WIDTH = 600, SUM_HEIGHT = 56;

const label = (explained, k, token) => explained.tokens ? token(k) : String(k);

export function drawTerms(explained, { token, link, go, ramps }) {
  const note = el("p", { className: "note", textContent: `${explained.products.length} ` +
    `${explained.B ? "products" : "terms"}: point at a strip; click to go to a factor` });
  const tell = k => { note.textContent = termWords(explained, k, token); };
  return [el("div", { className: "terms" }, ...strips(explained, { tell, go, ramps }), ...runningSum(explained.products)),
    note, largestTerms(explained, token, link)];
}

function termWords(explained, k, token) {
  const { A, B, products, names } = explained, where = label(explained, k, token);
  if (B) return `${where}: ${num(A[k].value)} × ${num(B[k].value)} = ${num(products[k])}`;
  return `${where}: ${num(A[k].value)}, ${names[2]} ${num(products[k])}`;
}

function strips(explained, { tell, go, ramps }) {
  const { A, B, products, names, focus } = explained, n = products.length;
  const strip = (text, values, share) => {
    const canvas = el("canvas", { className: "strip", "aria-hidden": true }), limit = share ? Math.max(...values) : limitOf(values, false);
    paint(canvas, 1, n, (_, k) => values[k], ramps, share, limit || 1);
    const at = event => Math.max(0, Math.min(n - 1, Math.floor(event.offsetX / canvas.clientWidth * n)));
    canvas.onpointermove = event => tell(at(event));
    canvas.onclick = event => follow(at(event));
    return [el("span", { textContent: text }), canvas];
  };
  const follow = k => {
    const ref = [A[k], B?.[k]].find(r => r?.name);
    if (ref) go(ref.name, ref.index);
  };
  const here = el("div", { className: "focus", style: `margin-left:${((focus ?? 0) + 0.5) / n * 100}%`, textContent: "▲",
    "aria-hidden": true });
  return [...strip(names[0], A.map(ref => ref.value)), ...(focus === undefined ? [] : [here]),
    ...(B ? strip("× " + names[1], B.map(ref => ref.value)) : []),
    ...strip(B ? "= products" : names[2], products, Boolean(explained.positive))];
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
  const cells = B ? 2 : 1;
  const row = (name, text, value, digits) => el("tr", { className: name }, el("th", { scope: "row", textContent: text }),
    el("td", { colSpan: cells }), el("td", { textContent: num(value, digits) }));
  const term = k => el("tr", {}, el("th", { scope: "row", textContent: label(explained, k, token) }),
    el("td", {}, link(A[k])), ...(B ? [el("td", {}, link(B[k]))] : []), el("td", { textContent: num(products[k]) }));
  const more = rest.length ? [row("rest", `${rest.length} more`, rest.reduce((total, k) => total + products[k], 0), 4)] : [];
  const titles = B ? ["largest", "row", "column", "product"] : ["largest", "from", names[2]];
  return el("table", {}, el("thead", {}, el("tr", {}, ...titles.map(text => el("th", { scope: "col", textContent: text })))),
    el("tbody", {}, ...listed.map(term), ...more, row("total", "sum", sum, 6)));
}

export function drawGroups(groups) {                      // [[name, value], ...] as bars to the left and right of zero
  const most = Math.max(...groups.map(([, value]) => Math.abs(value))) || 1;
  const bar = value => el("i", {}, el("b", { className: value < 0 ? "minus" : "",
    style: `width:${Math.abs(value) / most * 50}%;${value < 0 ? "right" : "left"}:50%` }));
  return el("div", { className: "groups" }, ...groups.flatMap(([name, value]) =>
    [el("span", { textContent: name }), bar(value), el("span", { textContent: num(value) })]));
}
