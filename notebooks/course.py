"""What the lessons start from: the model that ships, its tokenizer, a story, and how well the model predicts it."""
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import numpy_llama as nl  # noqa: E402

FOLDER = ROOT / "weights" / "fairytales"
weights, config = nl.load(FOLDER)
exact, _ = nl.load(FOLDER, np.float64)                    # for sampling: the same story on every processor
tokenizer = nl.Tokenizer(FOLDER / "tokenizer.model")
SENTENCE = "The king gave his youngest daughter a golden ball, and she was very happy."
STORY = """\
Once upon a time there was a miller who had three sons, and the youngest was called Jack. One day the king's daughter \
lost her golden ball in a deep well, and the king made it known that whoever brought it back should have half of his \
kingdom. The eldest son took his horse and rode to the castle, but when he saw how dark the water was, he turned round \
and went home again. Then the second son went, and it was no better with him.

"Now I will try my luck," said Jack. On the way he met an old woman who was hungry, and he gave her the last piece of \
his bread. "You have a good heart," said the old woman, "and so I will help you. Take this feather, and when you come \
to the well, throw it into the water."

Jack thanked her and went on his way. When he came to the castle, he did as the old woman had told him, and the golden \
ball rose out of the water. The king kept his word, and they lived happily ever after."""


def loss(tap=nl.ignore, weights=weights, config=config, text=STORY):
    """Nats per token of a text, with a tap that may change what the model computes on the way."""
    tokens = tokenizer.encode(text)
    return float(nl.cross_entropy(nl.forward(tokens, weights, config, tap=tap)[:-1], tokens[1:]).mean(dtype=float))
