// Where a tensor's numbers stand on the canvas: all heads as small maps, or one matrix under a camera.

const MAX_CELL = [58, 26];                                // pixels of a cell in which a number can be read
const LABELS_ABOVE = 22, SLANTED_ABOVE = 62;              // room for labels; words are slanted where cells are narrow
export const SLANT_BELOW = 46;                                   // a cell narrower than that cannot hold a word
const HEAD_BAR = 22, HEAD_GAP = 14;
const TALLEST_ROW = 60;

// A panel: {head, x, y, w, h: its window; cw, ch: a cell; px, py: what of the matrix is scrolled away; labelled}
export function layoutMaps({ heads, perRow, rows, columns }, width, height, labels) {
  const lines = Math.ceil(heads / perRow);
  const w = (width - labels - HEAD_GAP * (perRow - 1) - 8) / perRow;
  const h = (height - 10) / lines - HEAD_BAR - 6;
  return Array.from({ length: heads }, (_, head) => {
    const column = head % perRow, line = Math.floor(head / perRow);
    const x = labels + column * (w + HEAD_GAP), y = line * (h + HEAD_BAR + 6) + HEAD_BAR;
    return { head, x, y, w, h, cw: w / columns, ch: h / rows, px: 0, py: 0, labelled: column === 0 };
  });
}

export function layoutOne({ head, rows, columns, columnLabels }, width, height, labels, camera) {
  const w = width - labels - 4, slanted = columnLabels && w / columns < SLANT_BELOW;
  const top = slanted ? SLANTED_ABOVE : LABELS_ABOVE, h = height - top - 4;
  const fit = [Math.max(w / columns, 1), h / rows];
  const cw = Math.max(fit[0], Math.min(MAX_CELL[0], fit[0] * camera.zoom));
  const ch = Math.max(Math.min(fit[1], TALLEST_ROW), Math.min(MAX_CELL[1], fit[1] * camera.zoom));
  const px = Math.max(0, Math.min(camera.x, columns * cw - w)), py = Math.max(0, Math.min(camera.y, rows * ch - h));
  const most = Math.max(MAX_CELL[0] / fit[0], MAX_CELL[1] / fit[1], 1);
  return { head, x: labels, y: top, w: Math.min(w, columns * cw), h: Math.min(h, rows * ch), cw, ch, px, py,
    labelled: true, most };
}

export function cellAt(panels, x, y) {                    // {panel, row, column} under a point, or undefined
  const panel = panels.find(p => x >= p.x && x < p.x + p.w && y >= p.y && y < p.y + p.h);
  if (!panel) return undefined;
  return { panel, row: Math.floor((y - panel.y + panel.py) / panel.ch),
    column: Math.floor((x - panel.x + panel.px) / panel.cw) };
}

export const centreOf = (panel, row, column) =>
  [panel.x - panel.px + (column + 0.5) * panel.cw, panel.y - panel.py + (row + 0.5) * panel.ch];

// The camera that shows a cell, moved only where the cell is out of sight.
export function reveal(panel, row, column, camera) {
  const { cw, ch, px, py, w, h } = panel;
  const outsideX = column * cw < px || (column + 1) * cw > px + w;
  const outsideY = row * ch < py || (row + 1) * ch > py + h;
  return {
    zoom: camera.zoom,
    x: outsideX ? (column + 0.5) * cw - w / 2 : px,
    y: outsideY ? (row + 0.5) * ch - h / 2 : py,
  };
}
