"""Tiny random Llamas in NumPy alone, for tests that need a model but no library."""
import numpy as np

import numpy_llama as nl

CONFIG = nl.Config(dim=12, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=20, vocab_size=31, max_seq_len=32,
                   head_dim=6)


def random_weights(config, seed=0, dtype=np.float32):
    """Weights that make queries, keys, gates and logits of order one, so that every step matters."""
    rng = np.random.default_rng(seed)
    D, F, V = config.dim, config.hidden_dim, config.vocab_size
    Hd, Gd = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim

    def matrix(n_in, n_out):
        return (rng.normal(size=(n_in, n_out)) * (2 / n_in) ** 0.5).astype(dtype)

    def vector():
        return rng.uniform(0.5, 1.5, D).astype(dtype)

    layers = [{"attn_norm": vector(), "attn": {"wq": matrix(D, Hd), "wk": matrix(D, Gd), "wv": matrix(D, Gd),
                                               "wo": matrix(Hd, D)},
               "ffn_norm": vector(), "ffn": {"gate": matrix(D, F), "up": matrix(D, F), "down": matrix(F, D)}}
              for _ in range(config.n_layers)]
    return {"embedding": rng.normal(size=(V, D)).astype(dtype), "layers": layers, "norm": vector(),
            "output": matrix(D, V)}


def new_cache(config, max_len=None, dtype=np.float32):
    return [nl.KVCache(config, max_len, dtype) for _ in range(config.n_layers)]
