// Traces as .safetensors: the run saved, and somebody else's read.

import { refuse, sizeOf, tensor } from "./engine.js";
import { BYTES, toFloat32 } from "./dtypes.js";

// Map name -> tensor, to the bytes of a .safetensors file in float32.
export function writeTrace(trace) {
  const header = {};
  let end = 0;
  for (const [name, { shape, data }] of trace) {
    const start = end;
    end += data.byteLength;
    header[name] = { dtype: "F32", shape, data_offsets: [start, end] };
  }
  const text = JSON.stringify(header);
  const head = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8));       // numbers start aligned
  const file = new Uint8Array(8 + head.length + end);
  new DataView(file.buffer).setBigUint64(0, BigInt(head.length), true);
  file.set(head, 8);
  for (const [name, { data }] of trace) {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    file.set(bytes, 8 + head.length + header[name].data_offsets[0]);
  }
  return file;
}

// The bytes of a .safetensors file, to Map name -> {shape, data, dtype}. Throws an Error in one sentence.
function readSafetensors(buffer) {
  const { header, start } = readHeader(buffer);
  const found = new Map();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    found.set(name, readEntry(name, entry, new Uint8Array(buffer, start)));
  }
  refuse(found.size === 0, "the file holds no tensors");
  return found;
}

function readHeader(buffer) {
  const none = "the file is not .safetensors: ";
  refuse(buffer.byteLength < 8, none + "it is shorter than eight bytes");
  const size = Number(new DataView(buffer).getBigUint64(0, true));
  refuse(size > buffer.byteLength - 8, none + "its first eight bytes are no length of a header");
  let header;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(buffer, 8, size)));
  } catch {
    throw Error(none + "its header is not JSON");
  }
  refuse(typeof header !== "object" || header === null || Array.isArray(header), none + "its header is no object");
  return { header, start: 8 + size };
}

function readEntry(name, entry, bytes) {
  const { dtype = "of no type", shape, data_offsets: offsets } = entry ?? {};
  refuse(!Object.hasOwn(BYTES, dtype), `${name} is ${dtype}; a trace holds ${Object.keys(BYTES).join(", ")}`);
  const isSize = n => Number.isSafeInteger(n) && n >= 0;
  refuse(!Array.isArray(shape) || !shape.every(isSize), `${name} has no shape`);
  refuse(!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize), `${name} has no data_offsets`);
  const [from, to] = offsets, count = sizeOf(shape);
  refuse(to > bytes.length || to - from !== count * BYTES[dtype],
    `${name} of shape ${shape.join(" × ")} does not fit its data: the file is cut short or damaged`);
  return { ...tensor(shape, toFloat32(dtype, bytes.subarray(from, to))), dtype };
}

// Somebody's trace laid over ours: {tensors: Map our name -> tensor in our shape, dtype (the coarsest), ignored:
// [sentences]}. aliases: what transformers and Meta call a tensor, {theirs with {} for the layer: ours}.
export function readTrace(buffer, trace, aliases = {}) {
  const tensors = new Map(), ignored = [], dtypes = new Set();
  for (const [theirs, x] of readSafetensors(buffer)) {
    const name = ourName(theirs, aliases), like = trace.get(name);
    if (like === undefined) {
      ignored.push(`${theirs} is not a name of this run`);
      continue;
    }
    const fitted = fit(x, like.shape);
    if (fitted === null) {
      ignored.push(`${theirs} is ${x.shape.join(" × ")}, and ${like.shape.join(" × ")} in this run: `
        + "is it of the same prompt?");
      continue;
    }
    refuse(tensors.has(name), `${name} is in the file twice`);
    refuse(fitted.data.some(Number.isNaN), `${theirs} holds NaN`);
    tensors.set(name, fitted);
    dtypes.add(x.dtype);
  }
  refuse(tensors.size === 0, `nothing in the file fits this run: ${ignored[0]}`);
  const dtype = ["BF16", "F16", "F32", "F64"].find(one => dtypes.has(one));
  return { tensors, dtype, ignored };
}

// Whose tokens a file is of: {count, ids}; ids are null where no embedding tells them. null: the file does not say.
export function promptInFile(buffer, trace, embedding, aliases = {}) {
  const tables = [...readSafetensors(buffer)].map(([theirs, x]) => ({ name: ourName(theirs, aliases), x }))
    .filter(({ name, x }) => isTableLike(x.shape, trace.get(name)?.shape));
  if (tables.length === 0) return null;
  const { name, x } = tables.find(table => table.name === "embedding") ?? tables[0];
  const count = x.shape.at(-2);
  return { count, ids: name === "embedding" ? idsOf(x.data, count, embedding) : null };
}

const isTableLike = (theirs, ours) => ours?.length === 2 && theirs.length > 1 && theirs.at(-1) === ours[1];

const SAME_ROW = 0.05;                                    // of its size: bfloat16 moves a row by less than 0.01

// The token of each row, null if one of them is no row of the embedding matrix.
function idsOf(data, count, { shape: [V, D], data: matrix }) {
  const ids = [];
  for (let t = 0; t < count; t++) {
    const row = data.subarray(t * D, (t + 1) * D), size = row.reduce((sum, x) => sum + x * x, 0);
    let best = null, nearest = SAME_ROW ** 2 * size;
    for (let id = 0; id < V; id++) {
      let distance = 0;
      for (let i = 0; i < D && distance <= nearest; i++) distance += (row[i] - matrix[id * D + i]) ** 2;
      if (distance <= nearest) [best, nearest] = [id, distance];
    }
    if (best === null) return null;
    ids.push(best);
  }
  return ids;
}

function ourName(name, aliases) {
  const layer = name.match(/(?<=layers\.)\d+(?=\.|$)/)?.[0];
  const general = layer === undefined ? name : name.replace(`layers.${layer}`, "layers.{}");
  return (aliases[general] ?? name).replace("{}", layer);
}

// A tensor in one of the usual layouts, in ours; null if it is none of them.
function fit({ shape: theirs, data }, shape) {
  const [T, n] = shape.slice(-2), heads = shape.length === 3 ? shape[0] : 1;
  const is = (...other) => withoutBatch.length === other.length && other.every((size, k) => size === withoutBatch[k]);
  const withoutBatch = theirs.length > shape.length && theirs[0] === 1 ? theirs.slice(1) : theirs;
  if (is(...shape) || theirs.length === 1 && theirs[0] === data.length && sizeOf(shape) === data.length) {
    return tensor(shape, data);
  }
  if (heads > 1 && (is(T, heads, n) || isSideBySide(theirs, T, heads * n))) return positionsLast(data, heads, T, n);
  return null;
}

const isSideBySide = (shape, T, width) => shape.at(-1) === width && shape.at(-2) === T && sizeOf(shape) === T * width;

// (T, heads, n) -> (heads, T, n)
function positionsLast(data, heads, T, n) {
  const y = tensor([heads, T, n]);
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < heads; h++) {
      const from = (t * heads + h) * n;
      y.data.set(data.subarray(from, from + n), (h * T + t) * n);
    }
  }
  return y;
}
