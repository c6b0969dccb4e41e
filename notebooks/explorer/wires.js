// Where the boxes of a layer stand, and the wires between them.
const BOX_ROWS = 15, GAP = 7;                                 // rows of boxes; pixels between two rows
const STREAM_X = 5;                                       // where the residual stream passes by on the left

// name within a layer, left and right in percent of the width, row
export const BOXES = [
  ["in", 16, 92, 0],
  ["attn_norm", 8, 100, 1],
  ["attn.q", 8, 37.5, 2], ["attn.k", 39, 68.5, 2], ["attn.v", 70, 100, 2],
  ["attn.q_rope", 8, 42, 3], ["attn.k_rope", 43.5, 77.5, 3],
  ["attn.scores", 8, 68.5, 4],
  ["attn.probs", 8, 68.5, 5],
  ["attn.heads", 8, 100, 6],
  ["attn.out", 8, 100, 7],
  ["x_attn", 8, 100, 8],
  ["ffn_norm", 8, 100, 9],
  ["ffn.gate", 8, 53, 10], ["ffn.up", 55, 100, 10],
  ["ffn.silu", 8, 53, 11],
  ["ffn.hidden", 8, 100, 12],
  ["ffn.out", 8, 100, 13],
  ["x_ffn", 8, 100, 14],
];
const WIRES = [["in", "attn_norm"], ["attn_norm", "attn.q"], ["attn_norm", "attn.k"], ["attn_norm", "attn.v"],
  ["attn.q", "attn.q_rope"], ["attn.k", "attn.k_rope"], ["attn.q_rope", "attn.scores"], ["attn.k_rope", "attn.scores"],
  ["attn.scores", "attn.probs"], ["attn.probs", "attn.heads"], ["attn.v", "attn.heads"], ["attn.heads", "attn.out"],
  ["attn.out", "x_attn"], ["x_attn", "ffn_norm"], ["ffn_norm", "ffn.gate"], ["ffn_norm", "ffn.up"],
  ["ffn.gate", "ffn.silu"], ["ffn.silu", "ffn.hidden"], ["ffn.up", "ffn.hidden"], ["ffn.hidden", "ffn.out"],
  ["ffn.out", "x_ffn"]];
const STREAM = [["in", "x_attn"], ["x_attn", "x_ffn"]];

export const boxPlace = (left, right, row) => ({
  left: left + "%",
  width: right - left + "%",
  top: row / BOX_ROWS * 100 + "%",
  height: `calc(${100 / BOX_ROWS}% - ${GAP}px)`,
});

export function wirePaths(width, height) {
  const place = short => {
    const [, left, right, row] = BOXES.find(box => box[0] === short);
    const top = row * height / BOX_ROWS, bottom = (row + 1) * height / BOX_ROWS - GAP;
    return { left: left * width / 100, right: right * width / 100, top, bottom, middle: (top + bottom) / 2 };
  };
  const down = ([from, to]) => {                          // from the narrower of the two boxes
    const a = place(from), b = place(to), narrow = a.right - a.left < b.right - b.left ? a : b;
    return { from, to, stream: false, d: `M${(narrow.left + narrow.right) / 2} ${a.bottom}V${b.top}` };
  };
  const around = ([from, to]) => {
    const a = place(from), b = place(to);
    return { from, to, stream: true, d: `M${a.left} ${a.middle}H${STREAM_X}V${b.middle}H${b.left}` };
  };
  return [...WIRES.map(down), ...STREAM.map(around)];
}
