// The number types of .safetensors files, widened to float32 (F64 is rounded to it).

export const BYTES = { F64: 8, F32: 4, F16: 2, BF16: 2 };

// Little-endian bytes to numbers: Uint8Array -> Float32Array.
export function toFloat32(dtype, bytes) {
  const buffer = bytes.slice().buffer;                    // a copy starts where every type may start
  switch (dtype) {
    case "F64": return Float32Array.from(new Float64Array(buffer));
    case "F32": return new Float32Array(buffer);
    case "F16": return Float32Array.from(new Uint16Array(buffer), halfToNumber);
    case "BF16": return bfloat16ToFloat32(new Uint16Array(buffer));
    default: throw Error(`numbers of the type ${dtype} are not read, only ${Object.keys(BYTES).join(", ")}`);
  }
}

// A bfloat16 is the upper half of a float32.
function bfloat16ToFloat32(bits) {
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = bits[i] << 16;
  return new Float32Array(wide.buffer);
}

// A float16: 1 bit sign, 5 bits exponent, 10 bits fraction.
function halfToNumber(bits) {
  const sign = bits >> 15 ? -1 : 1, exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
