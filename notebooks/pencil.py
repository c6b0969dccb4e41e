"""A Llama for pencil: V 4, D 2, one head, one layer, and weights that are whole or half numbers.

Its weights are set by hand for one rule: after "cats and" comes "dogs", after "dogs and" comes "cats". Column 0 of the
stream is above 0 for a noun, column 1 above 0 for cats and below for dogs. At the start they say which word stands
here; attention writes into column 1 which noun comes next, and the feed-forward step into column 0 whether one does.
handout.py draws the pass on a page; numpy_llama.py runs it like any other Llama. Its numbers are such that all ways
to read the page's tables lead to nearly the same: test_handout.py tries them.
"""
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy_llama as nl  # noqa: E402

NAMES = ["<s>", "cats", "dogs", "and"]
PROMPT = [0, 1, 3]                                        # <s> cats and
# With d 2 there is one pair, which turns by one radian for each position, whatever theta is. eps is next to nothing,
# so that a pencil may leave it out.
config = nl.Config(dim=2, n_layers=1, n_heads=1, n_kv_heads=1, hidden_dim=2, vocab_size=4, max_seq_len=16,
                   norm_eps=1e-30)
weights = {
    "embedding": np.array([[-1, 7], [2, 2], [2, -2], [-3.5, 0.5]]),
    "layers": [{
        "attn_norm": np.array([1.0, 1]),
        "attn": {
            "wq": np.array([[-0.5, 1], [1, 0]]),
            "wk": np.array([[1.0, 0], [0, 0]]),           # found under: am I a noun?
            "wv": np.array([[0.0, 0], [0, 1]]),           # says: which noun am I?
            "wo": np.array([[0.0, 0], [0, -2]]),          # writes: the other one
        },
        "ffn_norm": np.array([1.0, 1]),
        "ffn": {
            "gate": np.array([[-2.5, 2.5], [0, -1]]),     # neuron 0: if "and" stands here; neuron 1: if a noun does
            "up": np.array([[-1.5, 2], [0, 0]]),
            "down": np.array([[2.0, 0], [-1.5, 0]]),      # then a noun comes next; then "and" does
        },
    }],
    "norm": np.array([1.5, 2]),
    "output": np.array([[0.0, 1, 1, -1], [0, 1, -1, 0]]),
}


def run(tokens=PROMPT):
    """The trace of one forward pass."""
    trace = nl.Trace()
    nl.forward(tokens, weights, config, tap=trace)
    return trace
