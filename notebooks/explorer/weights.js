// The weights out of the page: base64 of gzip of all lowest bytes, then all next bytes, and so on (bytes of one kind
// are more alike, so that a page of bfloat16 weights is 30 % smaller).

import { sizeOf, tensor } from "./engine.js";
import { BYTES, toFloat32 } from "./dtypes.js";

// The text in the page, {dtype, tensors: [[name, shape], ...]} -> weights, nested as in numpy_llama.py.
export async function unpackWeights(text, { dtype, tensors }, config) {
  const size = tensors.reduce((sum, [, shape]) => sum + sizeOf(shape), 0) * BYTES[dtype];
  const numbers = fromPlanes(dtype, await gunzip(fromBase64(text.trim()), size));
  const weights = { layers: Array.from({ length: config.n_layers }, () => ({ attn: {}, ffn: {} })) };
  let start = 0;
  for (const [name, shape] of tensors) {
    const end = start + sizeOf(shape);
    place(weights, name.split("."), tensor(shape, numbers.subarray(start, end)));
    start = end;
  }
  weights.output ??= weights.embedding;                   // tied
  return weights;
}

// weights.layers[0].attn.wq = x, for ["layers", "0", "attn", "wq"].
function place(weights, path, x) {
  const last = path.pop();
  const parent = path.reduce((node, key) => node[key], weights);
  parent[last] = x;
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text), bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

async function gunzip(bytes, size) {                      // into its place: a Blob's stream takes three times as long
  const { readable, writable } = new DecompressionStream("gzip"), writer = writable.getWriter();
  const unpacked = new Uint8Array(size);
  let at = 0;
  const write = piece => {
    unpacked.set(piece, at);
    at += piece.length;
  };
  await Promise.all([writer.write(bytes), writer.close(), readable.pipeTo(new WritableStream({ write }))]);
  return unpacked;
}

function fromPlanes(dtype, planes) {
  if (dtype !== "BF16") return toFloat32(dtype, joinPlanes(planes, BYTES[dtype]));
  const n = planes.length / 2, low = planes.subarray(0, n), high = planes.subarray(n);
  const wide = new Uint32Array(n);                        // in one step instead of three: 0.1 s sooner
  for (let i = 0; i < n; i++) wide[i] = high[i] << 24 | low[i] << 16;
  return new Float32Array(wide.buffer);
}

// Byte k of number i stands at k * n + i; put it back at i * size + k.
function joinPlanes(planes, size) {
  const n = planes.length / size;
  const bytes = new Uint8Array(planes.length);
  for (let k = 0; k < size; k++) {
    for (let i = 0; i < n; i++) bytes[i * size + k] = planes[k * n + i];
  }
  return bytes;
}
