// Random numbers from a seed: those of NumPy's default_rng, so that the page draws what numpy_llama.py --seed draws.
//
// PCG64 (O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms", 2014), seeded through
// NumPy's SeedSequence, which spreads the bits of a small seed over 256.

const MASK_64 = (1n << 64n) - 1n, MASK_128 = (1n << 128n) - 1n;
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;

// A function that returns the next number of [0, 1), as np.random.default_rng(seed).random() does.
export function randomFrom(seed) {
  if (!Number.isSafeInteger(seed) || seed < 0) throw Error(`a seed must be a whole number from 0 on, not ${seed}`);
  const [stateHigh, stateLow, streamHigh, streamLow] = seedWords(seed);
  const increment = ((streamHigh << 64n | streamLow) << 1n | 1n) & MASK_128;
  let state = 0n;
  const step = () => { state = (state * MULTIPLIER + increment) & MASK_128; };
  step();
  state = (state + (stateHigh << 64n | stateLow)) & MASK_128;
  step();
  return () => {
    step();
    const folded = (state >> 64n ^ state) & MASK_64, turn = state >> 122n;
    const bits = (folded >> turn | folded << (64n - turn)) & MASK_64;
    return Number(bits >> 11n) / 2 ** 53;
  };
}

// NumPy's SeedSequence(seed).generate_state(4): four words of 64 bits.
function seedWords(seed) {
  const pool = mixPool([seed >>> 0, Math.floor(seed / 2 ** 32)]);
  let constant = 0x8b51f9dd;
  const words = Array.from({ length: 8 }, (_, i) => {
    let word = (pool[i % 4] ^ constant) >>> 0;
    constant = Math.imul(constant, 0x58f38ded) >>> 0;
    word = Math.imul(word, constant) >>> 0;
    return BigInt((word ^ word >>> 16) >>> 0);
  });
  return Array.from({ length: 4 }, (_, i) => words[2 * i + 1] << 32n | words[2 * i]);
}

function mixPool(entropy) {
  let constant = 0x43b0d7e5;
  const hash = value => {
    let word = (value ^ constant) >>> 0;
    constant = Math.imul(constant, 0x931e8875) >>> 0;
    word = Math.imul(word, constant) >>> 0;
    return (word ^ word >>> 16) >>> 0;
  };
  const mix = (x, y) => {
    const word = (Math.imul(x, 0xca01f9dd) - Math.imul(y, 0x4973f715)) >>> 0;
    return (word ^ word >>> 16) >>> 0;
  };
  const pool = Array.from({ length: 4 }, (_, i) => hash(entropy[i] ?? 0));
  for (let from = 0; from < 4; from++) {
    for (let to = 0; to < 4; to++) {
      if (from !== to) pool[to] = mix(pool[to], hash(pool[from]));
    }
  }
  return pool;
}
