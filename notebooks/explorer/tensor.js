// Middle: the selected tensor with its name, what it is, a legend, and the matrix.
import { flatIndex } from "./explain.js";
import { letters } from "./names.js";
import { limitOf } from "./colours.js";
import { choice, el, redraw } from "./dom.js";
import { isAttentionMap, keyHeadOf, num, placeWords, shapeText, shown } from "./format.js";
import { makeMatrix } from "./matrix.js";
import { rowOf } from "./logits.js";
import { plainWords } from "./plain_words.js";
import { openRowTable } from "./row_table.js";

const LIKELIEST = 64;                                     // columns of the logits that are shown
const ZOOM = 1.8;
const KEYS_HERE = "Arrow keys move, plus and minus zoom, page keys change the head, t shows the row as a table.";

// The ids whose logits are shown: the likeliest after the chosen position, and the chosen one.
function vocabularyColumns(now) {
  const row = rowOf(now.run, now.position);
  const ids = Array.from(row.keys()).sort((a, b) => row[b] - row[a]).slice(0, LIKELIEST);
  return ids.includes(now.index[1]) ? ids : [...ids, now.index[1]];
}

// The numbers that are shown: those of the run, or how far they are from another run's.
function numbersShown(now) {
  const x = now.x.data, other = now.other?.get(now.name)?.data;
  return other ? x.map((v, i) => v === other[i] ? 0 : v - other[i]) : x;
}

function largestOf(data) {
  let largest = 0;
  for (const v of data) if (Number.isFinite(v)) largest = Math.max(largest, Math.abs(v));
  return largest;
}

// All that the canvas, the table of a row and the legend need to know.
function matrixSpec(now) {
  const grid = gridOf(now);
  return { ...grid, ...numbersOf(now, grid), ...wordsOf(now, grid), head: now.state.head, ramps: now.ramps,
    off: letters(now.name)[0] === "H" ? headsOff(now) : null };
}

// How many rows, columns and heads there are, and what place in the tensor each cell has.
function gridOf(now) {
  const { x, name, index, model } = now, { n_heads, n_kv_heads } = model.config;
  const [rows, width] = x.shape.slice(-2), heads = x.shape.length === 3 ? x.shape[0] : 0;
  const ids = now.short === "logits" ? vocabularyColumns(now) : null;
  const columnOf = column => ids ? ids[column] : column;
  const isGrouped = letters(name)[0] === "H" && n_heads > n_kv_heads;
  return {
    name, rows, heads, ids, columnOf, columns: ids ? ids.length : width,
    perRow: isGrouped ? n_heads / n_kv_heads : Math.ceil(Math.sqrt(heads)),       // a row is what shares a key head
    at: [heads ? index[0] : 0, now.position, ids ? ids.indexOf(index[1]) : index.at(-1)],
    place: (head, row, column) => heads ? [head, row, columnOf(column)] : [row, columnOf(column)],
  };
}

function numbersOf(now, { rows, ids, columnOf }) {
  const data = numbersShown(now), share = now.short === "attn.probs" && !now.other, width = now.x.shape.at(-1);
  return {
    share, limit: limitOf(data, share), largest: largestOf(data),
    masked: isAttentionMap(now.name) && !now.other,
    value: (head, row, column) => data[(head * rows + row) * width + columnOf(column)],
    key: [now.name, now.state.show, now.run.id, now.file?.opened, now.ramps.ink, ids].join(),
  };
}

function wordsOf(now, { ids, place }) {
  const { name, index, x, run } = now, { config, tokenizer } = now.model, { data, shape } = x;
  const tokens = run.tokens.map(id => shown(tokenizer, id)), isQuery = letters(name)[0] === "H";
  const numberAt = where => num(data[flatIndex(shape, where)]);
  return {
    rowLabels: tokens,
    columnLabels: isAttentionMap(name) ? tokens : ids?.map(id => shown(tokenizer, id)) ?? null,
    headLabel: head => isQuery ? `head ${head} · K/V head ${keyHeadOf(config, head)}` : `K/V head ${head}`,
    aria: `${name}: ${placeWords(now, name, index)}: ${numberAt(index)}. ${KEYS_HERE}`,
    tell: (value, ...where) => `${placeWords(now, name, place(...where))}: ${num(value)}`,
  };
}

function headsOff(now) {
  const off = now.state.changes.filter(c => c.kind === "head" && c.layer === now.layer && c.scale === 0);
  return new Set(off.map(change => change.head));
}

function legendText({ share, limit, largest, masked }) {
  const mark = v => num(v, v >= 10 ? 0 : 1 + (v < 1) + (v < 0.1));
  const bar = el("i", { className: share ? "share" : "signed" });
  const beyond = largest > 1.02 * limit ? `; largest ${mark(largest)}` : "";
  const grey = masked ? " · grey: masked" : "";
  if (share) return [`0 `, bar, " 1"];
  return [`−${mark(limit)} `, bar, ` +${mark(limit)}${beyond && `: colours end there${beyond}`}${grey}`];
}

export function makeTensor(root, { go, showHead, toggleHead, setShow }) {
  const title = el("h2"), what = el("p", { className: "what" }), tools = el("div", { className: "tools" });
  const place = el("div", { id: "matrix" });
  let now = null, spec = null;
  root.append(title, what, tools, place);

  const showRow = () => openRowTable(now, spec, { go });
  const select = (head, row, column) => go(now.name, spec.place(head, row, column), { stay: true });
  const matrix = makeMatrix(place, { select, showHead, toggleHead, showRow });

  function drawTools() {
    const options = [["run", "this run"], ["trained", "this run − as trained"]];
    if (now.file) options.push(["file", "this run − the file"]);
    const show = choice(options, now.state.show, { key: "show", "aria-label": "numbers shown",
      onchange: event => setShow(event.target.value) });
    const button = (text, title, onclick) => el("button", { textContent: text, title, key: title, onclick });
    redraw(tools, el("span", { className: "legend" }, ...legendText(spec)), show,
      button("row as a table", "the chosen row as a table (t)", showRow),
      button("−", "zoom out (−)", () => matrix.zoomBy(1 / ZOOM)),
      button("+", "zoom in (+)", () => matrix.zoomBy(ZOOM)),
      ...(now.state.head === null ? [] : [button("all heads", "show all heads", () => showHead(null))]));
  }
  function draw(view) {
    now = view;
    spec = matrixSpec(now);
    const shape = el("span", { textContent: shapeText(now.name, now.x) });
    title.replaceChildren(el("code", { textContent: now.name }), shape);
    what.textContent = plainWords(now.name);
    drawTools();
    matrix.draw(spec);
  }
  return { draw, matrix };
}
