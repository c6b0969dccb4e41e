// One panel of the matrix on the canvas: cells, numbers or minus signs, the chosen cell, labels of rows and columns.
import { colourOf, inkOn } from "./colours.js";
import { short } from "./format.js";
import { SLANT_BELOW, centreOf } from "./matrix_layout.js";

const READABLE = [40, 13];                                // a cell from which a number can be read
const MARKED = 7;                                         // a cell that has room for a minus
const LONGEST_LABEL = 13;
const HATCH = 9;                                          // pixels between two lines
const EDGE = 4;                                           // pixels of an edge with more behind it
const STEPS = [1, 2, 4, 8, 16, 32, 64, 128, 256];
const FONT = "11px system-ui, sans-serif";

const cut = text => text.length > LONGEST_LABEL ? text.slice(0, LONGEST_LABEL - 1) + "…" : text;

export function labelWidth(g, labels) {
  g.font = FONT;
  return Math.min(92, 14 + Math.max(...labels.map(label => g.measureText(cut(label)).width)));
}

export function paintPanel(g, panel, spec, pixels) {
  g.save();
  g.beginPath();
  g.rect(panel.x, panel.y, panel.w, panel.h);
  g.clip();
  const { rows, columns } = spec, from = (panel.head ?? 0) * rows;
  const left = panel.x - panel.px, top = panel.y - panel.py;
  g.drawImage(pixels, 0, from, columns, rows, left, top, columns * panel.cw, rows * panel.ch);
  paintCells(g, panel, spec);
  if (spec.off?.has(panel.head)) paintOff(g, panel, spec);
  if (!spec.heads || panel.head === spec.at[0]) paintChosen(g, panel, spec);
  g.restore();
  g.strokeStyle = spec.ramps.dim;
  g.lineWidth = 1;
  g.strokeRect(panel.x - 0.5, panel.y - 0.5, panel.w + 1, panel.h + 1);
  paintMore(g, panel, spec);
  if (panel.labelled) paintRowLabels(g, panel, spec);
  if (!spec.heads || spec.head !== null) paintColumnLabels(g, panel, spec);
}

function visible(panel, spec) {
  return {
    left: Math.floor(panel.px / panel.cw),
    right: Math.min(spec.columns, Math.ceil((panel.px + panel.w) / panel.cw)),
    top: Math.floor(panel.py / panel.ch),
    bottom: Math.min(spec.rows, Math.ceil((panel.py + panel.h) / panel.ch)),
  };
}

// What colour says is also written as a number or, where there is no room, marked by a minus.
function paintCells(g, panel, spec) {
  if (panel.cw < MARKED || panel.ch < MARKED) return;
  const numbers = panel.cw >= READABLE[0] && panel.ch >= READABLE[1];
  const { left, right, top, bottom } = visible(panel, spec);
  Object.assign(g, { textAlign: "center", textBaseline: "middle", font: "11px ui-monospace, monospace" });
  for (let row = top; row < bottom; row++)
    for (let column = left; column < right; column++) paintCell(g, panel, spec, row, column, numbers);
}

function paintCell(g, panel, spec, row, column, numbers) {
  const value = spec.value(panel.head ?? 0, row, column), [x, y] = centreOf(panel, row, column);
  const isMarked = !numbers && value < -0.05 * spec.limit;
  if (!Number.isFinite(value) || !(numbers || isMarked)) return;
  g.fillStyle = inkOn(colourOf(value, spec.limit, spec.share, spec.ramps));
  if (numbers) g.fillText(short(value), x, y);
  else g.fillRect(x - 2, y - 0.5, 4, 1);
}

// A thick edge: the matrix goes on behind it.
function paintMore(g, panel, spec) {
  const { x, y, w, h, px, py } = panel, right = x + w, bottom = y + h;
  const [hiddenRight, hiddenBelow] = [spec.columns * panel.cw - w - px, spec.rows * panel.ch - h - py];
  g.fillStyle = spec.ramps.ink;
  if (px > 0.5) g.fillRect(x - EDGE, y, EDGE, h);
  if (hiddenRight > 0.5) g.fillRect(right, y, EDGE, h);
  if (py > 0.5) g.fillRect(x, y - EDGE, w, EDGE);
  if (hiddenBelow > 0.5) g.fillRect(x, bottom, w, EDGE);
}

function paintOff(g, panel, spec) {                       // a head that is switched off is hatched
  Object.assign(g, { strokeStyle: spec.ramps.dim, lineWidth: 1.5 });
  g.beginPath();
  for (let x = -panel.h; x < panel.w; x += HATCH) {
    g.moveTo(panel.x + x, panel.y + panel.h);
    g.lineTo(panel.x + x + panel.h, panel.y);
  }
  g.stroke();
}

function paintChosen(g, panel, spec) {
  const [, row, column] = spec.at;
  if (column < 0) return;
  const [x, y] = centreOf(panel, row, column), w = Math.max(panel.cw, 5), h = Math.max(panel.ch, 5);
  Object.assign(g, { strokeStyle: spec.ramps.ink, lineWidth: 1, globalAlpha: 0.45 });
  g.strokeRect(panel.x - 2, y - panel.ch / 2, panel.w + 4, panel.ch);
  if (panel.cw > 3) g.strokeRect(x - panel.cw / 2, panel.y - 2, panel.cw, panel.h + 4);
  g.globalAlpha = 1;
  for (const [colour, width] of [["#fff", 4], ["#000", 2]]) {
    Object.assign(g, { strokeStyle: colour, lineWidth: width });
    g.strokeRect(x - w / 2, y - h / 2, w, h);
  }
}

function paintRowLabels(g, panel, spec) {
  const every = Math.max(1, Math.ceil(12 / panel.ch)), chosen = spec.at[1];
  Object.assign(g, { textAlign: "right", textBaseline: "middle", fillStyle: spec.ramps.ink });
  for (let row = 0; row < spec.rows; row++) {
    const [, y] = centreOf(panel, row, 0), hidden = y < panel.y || y > panel.y + panel.h;
    const crowded = row !== chosen && (row % every !== 0 || Math.abs(row - chosen) < every);
    if (hidden || crowded) continue;
    g.font = (row === chosen ? "bold " : "") + FONT;
    g.fillText(cut(spec.rowLabels[row]), panel.x - 6, y);
  }
}

function paintColumnLabels(g, panel, spec) {
  const { left, right } = visible(panel, spec), words = spec.columnLabels;
  const step = words ? Math.max(1, Math.ceil(12 / panel.cw)) : STEPS.find(s => s * panel.cw > 34) ?? STEPS.at(-1);
  g.fillStyle = spec.ramps.ink;
  for (let column = Math.ceil(left / step) * step; column < right; column += step) {
    const [x] = centreOf(panel, 0, column);
    if (x < panel.x || x > panel.x + panel.w) continue;
    g.font = (column === spec.at[2] ? "bold " : "") + FONT;
    if (words && panel.cw < SLANT_BELOW) slanted(g, cut(words[column]), x, panel.y - 6);
    else upright(g, words ? cut(words[column]) : column, x, panel.y - 10);
  }
}

function upright(g, text, x, y) {
  g.textAlign = "center";
  g.fillText(text, x, y);
}

function slanted(g, text, x, y) {
  g.save();
  g.translate(x, y);
  g.rotate(-Math.PI / 3);
  g.textAlign = "left";
  g.fillText(text, 0, 0);
  g.restore();
}
