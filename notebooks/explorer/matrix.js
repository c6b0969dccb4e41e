// Middle: the selected tensor on a canvas, with a camera for one matrix: it pans, and zooms until numbers can be read.
import { paint } from "./colours.js";
import { el, isForBrowser } from "./dom.js";
import { cellAt, centreOf, layoutMaps, layoutOne, reveal } from "./matrix_layout.js";
import { labelWidth, paintPanel } from "./matrix_paint.js";
import { makeHeadBars } from "./head_bars.js";

const WHEEL = 0.004, KEY_ZOOM = 1.6;                      // zoom per pixel of the wheel, and per key
const FAR = 8;                                            // cells that an arrow with Shift jumps
const DRAG = 4;                                           // pixels that make a click a drag
const STEPS_OF_KEYS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const START = { zoom: 1, x: 0, y: 0 };

// draw(spec) with spec = {key, name, rows, columns, heads (0: a matrix), perRow, head (alone, or null), at: [head, row,
// column], value(head, row, column), limit, share, ramps, rowLabels, columnLabels or null, headLabel, off, aria, tell}
export function makeMatrix(root, { select, showHead, toggleHead, showRow }) {
  const canvas = el("canvas", { tabIndex: 0, role: "application", "aria-roledescription": "matrix", key: "matrix" });
  const tip = el("div", { className: "tip", hidden: true }), bars = el("div", { className: "heads" });
  const g = canvas.getContext("2d"), pixels = document.createElement("canvas");
  const drawHeadBars = makeHeadBars(bars, { showHead, toggleHead });
  let spec = null, panels = [], camera = START, painted = "", drag = null;
  root.append(canvas, bars, tip);

  const isMaps = () => spec.heads > 0 && spec.head === null;
  const chosen = () => centreOf(panels.find(p => p.head === spec.at[0]) ?? panels[0], spec.at[1], spec.at[2]);

  function layout() {
    const labels = labelWidth(g, spec.rowLabels), { clientWidth: width, clientHeight: height } = root;
    if (isMaps()) panels = layoutMaps(spec, width, height, labels);
    else panels = [layoutOne(spec, width, height, labels, camera)];
  }
  function paintPixels() {                                // one pixel for each number, heads one below the other
    if (painted === spec.key) return;
    painted = spec.key;
    const { rows, columns } = spec, all = Math.max(1, spec.heads) * rows, numbers = new Float32Array(all * columns);
    for (let r = 0, i = 0; r < all; r++)
      for (let c = 0; c < columns; c++, i++) numbers[i] = spec.value(Math.floor(r / rows), r % rows, c);
    paint(pixels, all, columns, numbers, spec.ramps, spec.share, spec.limit);
  }
  function draw() {
    const ratio = devicePixelRatio || 1, width = root.clientWidth, height = root.clientHeight;
    const w = Math.round(width * ratio), h = Math.round(height * ratio);
    if (canvas.width !== w) canvas.width = w;
    if (canvas.height !== h) canvas.height = h;
    layout();
    paintPixels();
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    g.imageSmoothingEnabled = false;
    for (const panel of panels) paintPanel(g, panel, spec, pixels);
    drawHeadBars(isMaps() ? panels : [], spec);
  }
  function zoomAt(factor, x, y) {
    if (isMaps()) return factor > 1 && showHead(cellAt(panels, x, y)?.panel.head ?? spec.at[0]);
    if (factor < 1 && camera.zoom <= 1 && spec.heads) return showHead(null);
    const [old] = panels, u = (x - old.x + old.px) / old.cw, v = (y - old.y + old.py) / old.ch;
    camera = { ...camera, zoom: Math.max(1, Math.min(camera.zoom * factor, old.most)) };
    layout();
    const [after] = panels;
    camera = { zoom: camera.zoom, x: u * after.cw - (x - after.x), y: v * after.ch - (y - after.y) };
    draw();
  }
  function pointerMoved(event) {
    const dx = drag ? event.clientX - drag.x : 0, dy = drag ? event.clientY - drag.y : 0;
    if (drag && !drag.moved) drag.moved = Math.hypot(dx, dy) > DRAG;
    if (drag?.moved) pan(dx, dy);
    else showTip(event);
  }
  function pan(dx, dy) {
    if (isMaps()) return;
    camera = { zoom: camera.zoom, x: drag.from.px - dx, y: drag.from.py - dy };
    draw();
  }
  function showTip({ offsetX: x, offsetY: y }) {
    const cell = cellAt(panels, x, y);
    tip.hidden = !cell;
    if (!cell) return;
    const where = [cell.panel.head ?? 0, cell.row, cell.column];
    tip.textContent = spec.tell(spec.value(...where), ...where);
    tip.style.left = Math.max(0, Math.min(x + 14, root.clientWidth - tip.offsetWidth - 4)) + "px";
    tip.style.top = (y > root.clientHeight - 50 ? y - 34 : y + 18) + "px";
  }
  function released({ offsetX, offsetY }) {
    const cell = drag && !drag.moved && cellAt(panels, offsetX, offsetY);
    drag = null;
    if (cell) select(cell.panel.head ?? 0, cell.row, cell.column);
  }
  function doubleClicked({ offsetX, offsetY }) {
    zoomAt(!isMaps() && camera.zoom > 1.01 ? 1 / camera.zoom : 1e6, offsetX, offsetY);
  }
  function keyPressed(event) {
    if (isForBrowser(event)) return;
    const handled = moveByKey(event) || headByKey(event) || zoomByKey(event);
    if (handled) event.preventDefault();
  }
  function moveByKey(event) {
    const [head, row, column] = spec.at, far = event.shiftKey ? FAR : 1, step = STEPS_OF_KEYS[event.key];
    const clamp = (v, n) => Math.max(0, Math.min(n - 1, v));
    if (step) select(head, clamp(row + far * step[0], spec.rows), clamp(column + far * step[1], spec.columns));
    else if (event.key === "Home") select(head, row, 0);
    else if (event.key === "End") select(head, row, spec.columns - 1);
    else return false;
    return true;
  }
  function headByKey({ key }) {
    const step = { PageUp: -1, PageDown: 1 }[key];
    if (!step || !spec.heads) return false;
    const head = (spec.at[0] + step + spec.heads) % spec.heads;
    if (spec.head === null) select(head, spec.at[1], spec.at[2]);
    else showHead(head);
    return true;
  }
  function zoomByKey({ key }) {
    if (key === "+" || key === "=") zoomAt(KEY_ZOOM, ...chosen());
    else if (key === "-") zoomAt(1 / KEY_ZOOM, ...chosen());
    else if (key === "t") showRow();
    else return false;
    return true;
  }
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    zoomAt(Math.exp(-event.deltaY * WHEEL), event.offsetX, event.offsetY);
  }, { passive: false });
  canvas.addEventListener("pointerdown", event => {
    drag = { x: event.clientX, y: event.clientY, from: panels[0], moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", pointerMoved);
  canvas.addEventListener("pointerup", released);
  canvas.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("dblclick", doubleClicked);
  canvas.addEventListener("keydown", keyPressed);
  new ResizeObserver(() => spec && draw()).observe(root);

  function show(next) {
    const same = spec && spec.name === next.name && spec.head === next.head;
    spec = next;
    if (!same) camera = START;
    layout();
    if (!isMaps()) camera = reveal(panels[0], spec.at[1], spec.at[2], camera);
    canvas.setAttribute("aria-label", spec.aria);
    draw();
  }
  return {
    draw: show,
    zoomBy: factor => zoomAt(factor, ...chosen()),
    frame: (zoom, x, y) => {                              // for measure.py: one frame of panning or zooming
      camera = { zoom, x, y };
      draw();
    },
    cell: (head, row, column) => centreOf(panels.find(p => p.head === head) ?? panels[0], row, column),
  };
}
