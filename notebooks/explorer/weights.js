// The weights out of the page: base64 of gzip of all lowest bytes, then all next bytes, and so on (bytes of one kind
// are more alike, so that the page is a third smaller).

import { tensor } from "./engine.js";
import { BYTES, toFloat32 } from "./dtypes.js";

// The text in the page, {dtype, tensors: [[name, shape], ...]} -> weights, nested as in numpy_llama.py.
export async function unpackWeights(text, { dtype, tensors }, config) {
  const planes = await gunzip(fromBase64(text.trim()));
  const numbers = toFloat32(dtype, joinPlanes(planes, BYTES[dtype]));
  const weights = { layers: Array.from({ length: config.n_layers }, () => ({ attn: {}, ffn: {} })) };
  let start = 0;
  for (const [name, shape] of tensors) {
    const end = start + shape.reduce((product, n) => product * n, 1);
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

async function gunzip(bytes) {                            // written at once: a Blob's stream takes three times as long
  const { readable, writable } = new DecompressionStream("gzip"), writer = writable.getWriter();
  const [unpacked] = await Promise.all([new Response(readable).arrayBuffer(), writer.write(bytes), writer.close()]);
  return new Uint8Array(unpacked);
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
