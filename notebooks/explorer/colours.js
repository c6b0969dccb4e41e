// The project's colours (notebooks/figures.py): orange < white < blue for signed numbers, white to blue for shares.

const hex = text => [1, 3, 5].map(i => parseInt(text.slice(i, i + 2), 16));

function ramp(...stops) {                                 // 256 colours, each as the canvas stores it: ABGR
  const colours = new Uint32Array(256), rgb = stops.map(hex);
  for (let i = 0; i < 256; i++) {
    const x = i / 255 * (rgb.length - 1), k = Math.min(Math.floor(x), rgb.length - 2), part = x - k;
    const [r, g, b] = [0, 1, 2].map(j => Math.round(rgb[k][j] * (1 - part) + rgb[k + 1][j] * part));
    colours[i] = 255 << 24 | b << 16 | g << 8 | r;
  }
  return colours;
}

export const RAMPS = {
  light: {
    signed: ramp("#8a3d00", "#d55e00", "#ffffff", "#0072b2", "#003a5c"),
    share: ramp("#ffffff", "#56b4e9", "#0072b2", "#003a5c"),
    masked: 0xffd9d9d9, ink: "#000", dim: "#555",
  },
  dark: {
    signed: ramp("#ffc59a", "#d55e00", "#14171a", "#2c8fd0", "#bfe6ff"),
    share: ramp("#14171a", "#0b4f7d", "#56b4e9", "#eaf7ff"),
    masked: 0xff443f3a, ink: "#fff", dim: "#aaa",
  },
};

const css = abgr => `rgb(${abgr & 255},${abgr >> 8 & 255},${abgr >> 16 & 255})`;

function colourIndex(value, limit, share) {
  const part = share ? value / limit : (value / limit + 1) / 2;
  return Math.max(0, Math.min(255, Math.round(255 * part)));
}

export const colourOf = (value, limit, share, ramps) => {
  const colours = share ? ramps.share : ramps.signed;
  return Number.isFinite(value) ? colours[colourIndex(value, limit, share)] : ramps.masked;
};

export function inkOn(abgr) {                             // black or white, whichever is read more easily
  const light = v => ((v & 255) / 255) ** 2.2;
  return 0.2126 * light(abgr) + 0.7152 * light(abgr >> 8) + 0.0722 * light(abgr >> 16) > 0.18 ? "#000" : "#fff";
}

export function cellStyle(value, limit, share, ramps) {   // a table's cell in the colour of its number
  const colour = colourOf(value, limit, share, ramps);
  return `background:${css(colour)};color:${inkOn(colour)}`;
}

export function paint(canvas, rows, columns, numbers, ramps, share, limit) {     // one pixel for each, row after row
  if (canvas.width !== columns) canvas.width = columns;
  if (canvas.height !== rows) canvas.height = rows;
  const g = canvas.getContext("2d"), image = g.createImageData(columns, rows), out = new Uint32Array(image.data.buffer);
  for (let i = 0; i < out.length; i++) out[i] = colourOf(numbers[i], limit, share, ramps);
  g.putImageData(image, 0, 0);
  return canvas;
}

// The number with the darkest colour: 99.5 % are at most that far from 0. The largest alone would wash out all others.
export function limitOf(data, share) {
  if (share) return 1;
  const step = Math.max(1, Math.floor(data.length / 2000) | 1), some = new Float32Array(Math.ceil(data.length / step));
  let n = 0;
  for (let i = 0; i < data.length; i += step) if (Number.isFinite(data[i])) some[n++] = Math.abs(data[i]);
  const sorted = some.subarray(0, n).sort();              // a typed array sorts numbers, and ten times as fast
  return sorted[Math.floor(n * 0.995)] || sorted[n - 1] || 1;
}
