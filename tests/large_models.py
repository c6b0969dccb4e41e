"""Weights that stay in their files, for models that would not fit in memory, in float32 and in float64.

numpy_llama.load(folder, lazy=True) does the same, faster, and in float32 only; to measure rounding takes float64.
"""
import ml_dtypes  # noqa: F401  teaches NumPy the name bfloat16
import numpy as np

import numpy_llama as nl

LARGE = 250_000_000              # parameters; smaller models are held in memory
BLOCK = 2**20                    # numbers of a matrix that are widened at once: 8 MiB in float64


class FileMatrix:
    """A matrix (out, in) in a file, used as (in, out): x @ it is computed in x's type, some rows at a time."""
    __array_ufunc__ = None                                # NumPy leaves x @ w to us

    def __init__(self, w, order=None, grid=None):
        self.w, self.order, self.grid = w, order, grid    # order: of the rows, if it is not that of the file
        self.shape = w.shape[::-1]

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, some):
        return FileMatrix(self.w[:, some], self.order, self.grid)

    def on_grid(self, grid):
        """The same matrix with every number rounded to this type."""
        return FileMatrix(self.w, self.order, grid)

    def blocks(self, dtype):
        """(slice of rows, those rows in this type), one after the other."""
        step = max(1, BLOCK // self.w.shape[1])
        for start in range(0, len(self.w), step):
            rows = slice(start, start + step)
            block = self.w[rows if self.order is None else self.order[rows]]
            yield rows, (block if self.grid is None else block.astype(self.grid)).astype(dtype)

    def dense(self, dtype):
        """All of it as an array (in, out)."""
        out = np.empty(self.shape, dtype)
        for rows, block in self.blocks(dtype):
            out[:, rows] = block.T
        return out

    def __rmatmul__(self, x):
        out = np.empty((*x.shape[:-1], self.shape[1]), x.dtype)
        for rows, block in self.blocks(x.dtype):
            out[..., rows] = x @ block.T
        return out


def load(folder):
    """(weights, config) as numpy_llama.load gives them; of a large model, matrices that stay in their file."""
    config, tensors, is_meta = nl.open_checkpoint(folder)
    if sum(nl.parameter_counts(config).values()) < LARGE:
        return nl.load(folder)

    def array(name, layer=None):
        w = tensors[name, layer].map()
        if w.ndim == 1:
            return w.astype(np.float32)
        if name == "embedding":                           # of which each token takes one row
            return w
        order = None
        if is_meta and name in ("wq", "wk"):
            order = nl.interleaved_to_halves(np.arange(len(w))[:, None], config.head_dim)[:, 0]
        return FileMatrix(w, order)

    layers = [{"attn_norm": array("attn_norm", i), "attn": {w: array(w, i) for w in ("wq", "wk", "wv", "wo")},
               "ffn_norm": array("ffn_norm", i), "ffn": {w: array(w, i) for w in ("gate", "up", "down")}}
              for i in range(config.n_layers)]
    return {**{name: array(name) for name in ("embedding", "norm", "output")}, "layers": layers}, config


def dense(w, dtype=np.float32):
    """A weight as an array in this type."""
    return w.dense(dtype) if isinstance(w, FileMatrix) else w.astype(dtype, copy=False)


class Opened:
    """A layer whose matrices are arrays once they are asked for, and not before."""

    def __init__(self, tree):
        self.tree = tree

    def __getitem__(self, key):
        value = self.tree[key]
        return Opened(value) if isinstance(value, dict) else dense(value)

    def items(self):
        return ((key, self[key]) for key in self.tree)
