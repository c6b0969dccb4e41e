"""One more Llama, written as small ports are: one token at a time, one head at a time, flat vectors, Meta's order.

It shares no line with numpy_llama.py. compare.py has to find it right, in every type.
"""
import math

import ml_dtypes
import numpy as np

TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


class Port:
    """A model that computes in float32 and rounds each intermediate value to `dtype`."""

    def __init__(self, weights, config, dtype="float32"):
        self.c, self.type = config, TYPES[dtype]
        self.embedding, self.norm = self.on_grid(weights["embedding"]), self.on_grid(weights["norm"])
        self.output = self.on_grid(weights["output"].T)   # (out, in), as on disk
        self.layers = []
        for layer in weights["layers"]:
            w = {name: self.on_grid(x.T) for part in ("attn", "ffn") for name, x in layer[part].items()}
            w["wq"], w["wk"] = self.neighbours(w["wq"]), self.neighbours(w["wk"])
            self.layers.append(w | {name: self.on_grid(layer[name]) for name in ("attn_norm", "ffn_norm")})
        self.keys = [[] for _ in self.layers]
        self.values = [[] for _ in self.layers]
        self.dump = {}

    def on_grid(self, x):
        return np.asarray(x).astype(self.type).astype(np.float32)

    def neighbours(self, w):
        """The rows of wq or wk in Meta's order: row i and row i + d/2 of a head become rows 2i and 2i + 1."""
        d = self.c.head_dim
        rows = [head + i + part * (d // 2) for head in range(0, len(w), d) for i in range(d // 2) for part in (0, 1)]
        return w[rows]

    def keep(self, name, x):
        x = self.on_grid(x)
        self.dump.setdefault(name, []).append(x)
        return x

    def rms(self, x, gain):
        total = 0.0
        for value in x.tolist():
            total += value * value
        return x * np.float32(1 / math.sqrt(total / len(x) + self.c.norm_eps)) * gain

    def angle(self, i, position):
        """By how much numbers i and i + 1 of a head are turned: position * theta^(-i/d), i even."""
        return position * self.c.rope_theta ** (-i / self.c.head_dim)

    def turn(self, x, position):
        """Neighbours are turned, head after head."""
        turned = x.copy()
        for i in range(0, len(x), 2):
            angle = self.angle(i % self.c.head_dim, position)
            cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
            turned[i], turned[i + 1] = x[i] * cos - x[i + 1] * sin, x[i] * sin + x[i + 1] * cos
        return turned

    def token(self, token, position):
        c = self.c
        d, group = c.head_dim, c.n_heads // c.n_kv_heads
        x = self.keep("embedding", self.embedding[token])
        for i, w in enumerate(self.layers):
            name = f"layers.{i}."
            h = self.keep(name + "attn_norm", self.rms(x, w["attn_norm"]))
            q, k, v = (self.keep(f"{name}attn.{n}", w["w" + n] @ h) for n in "qkv")
            q = self.keep(name + "attn.q_rope", self.turn(q, position))
            self.keys[i].append(self.keep(name + "attn.k_rope", self.turn(k, position)))
            self.values[i].append(v)
            heads = np.zeros(c.n_heads * d, np.float32)
            for head in range(c.n_heads):
                mine, theirs = slice(head * d, (head + 1) * d), slice(head // group * d, (head // group + 1) * d)
                scores = self.on_grid([np.dot(q[mine], key[theirs]) / math.sqrt(d) for key in self.keys[i]])
                weights = [math.exp(score - scores.max()) for score in scores.tolist()]
                probs = self.on_grid(np.array(weights) / sum(weights))
                for p, value in zip(probs, self.values[i]):
                    heads[mine] += p * value[theirs]
            heads = self.keep(name + "attn.heads", heads)
            x = self.keep(name + "x_attn", x + self.keep(name + "attn.out", w["wo"] @ heads))
            h = self.keep(name + "ffn_norm", self.rms(x, w["ffn_norm"]))
            gate, up = self.keep(name + "ffn.gate", w["gate"] @ h), self.keep(name + "ffn.up", w["up"] @ h)
            silu = self.keep(name + "ffn.silu", gate / (1 + np.exp(-gate)))
            h = self.keep(name + "ffn.hidden", silu * up)
            x = self.keep(name + "x_ffn", x + self.keep(name + "ffn.out", w["down"] @ h))
        self.keep("logits", self.output @ self.keep("norm", self.rms(x, self.norm)))

    def run(self, tokens, last):
        """The dump of the last so many positions: {name: (last, numbers of one position)}."""
        for position, token in enumerate(tokens):
            self.token(token, position)
        return {name: np.stack(rows[-last:]) for name, rows in self.dump.items()}
