"""Write a folder of weights as the file that llama2.c reads, for ports that began with its format.

    python tests/llama2c_file.py tests/reference/checkpoints/llama2-float32-hf model.bin
    python tests/llama2c_file.py weights/fairytales model.bin --tokenizer tokenizer.bin

The format of llama2.c's first version: seven integers (D, F, L, H, G, V, context; V is negative if the output is not
the embedding), then float32 matrices (out, in), each kind for all layers, with queries and keys in Meta's order.
"""
import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy_llama as nl  # noqa: E402

KINDS = ("attn_norm", "wq", "wk", "wv", "wo", "ffn_norm", "gate", "down", "up")      # in the order of the file


def halves_to_interleaved(w, head_dim):
    """Hugging Face's rows of wq or wk to Meta's: (out, in) -> (out, in)."""
    return w.reshape(-1, 2, head_dim // 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def write_model(folder, path, max_seq_len=None):
    """Write the weights in a folder, a matrix at a time, and return the config; max_seq_len sets another context.

    Raises InputError for what the format cannot say.
    """
    config, tensors, is_meta = nl.open_checkpoint(folder, max_seq_len)
    if config.head_dim * config.n_heads != config.dim:
        raise nl.InputError(f"{folder}: head_dim is {config.head_dim}, but llama2.c takes D / H = "
                            f"{config.dim / config.n_heads:g} for the width of a head")
    tied = tensors["output", None] is tensors["embedding", None]
    c = config
    with open(path, "wb") as file:
        np.array([c.dim, c.hidden_dim, c.n_layers, c.n_heads, c.n_kv_heads, c.vocab_size if tied else -c.vocab_size,
                  c.max_seq_len], "<i4").tofile(file)

        def write(name, layer=None):
            w = tensors[name, layer].map()
            if name in ("wq", "wk") and not is_meta:
                w = halves_to_interleaved(w, c.head_dim)
            w.astype("<f4").tofile(file)

        write("embedding")
        for kind in KINDS:
            for layer in range(c.n_layers):
                write(kind, layer)
        write("norm")
        np.zeros((c.max_seq_len, c.head_dim), "<f4").tofile(file)      # tables of cosines and sines, which run.c skips
        if not tied:
            write("output")
    return config


def write_tokenizer(source, path):
    """Write a SentencePiece model as llama2.c's list of pieces: the longest, then score, length and text of each."""
    import sentencepiece
    nl.Tokenizer(source)                                  # which refuses what is no SentencePiece model
    sp = sentencepiece.SentencePieceProcessor(model_file=str(source))
    texts = []
    for i in range(sp.vocab_size()):
        text = sp.id_to_piece(i).replace("▁", " ")
        texts.append({sp.bos_id(): "\n<s>\n", sp.eos_id(): "\n</s>\n"}.get(i, text).encode())
    with open(path, "wb") as file:
        file.write(np.int32(max(map(len, texts))).tobytes())
        for i, text in enumerate(texts):
            file.write(np.float32(sp.get_score(i)).tobytes() + np.int32(len(text)).tobytes() + text)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="weights in Hugging Face's or Meta's layout")
    parser.add_argument("file", type=Path, metavar="FILE", help="the file to write, in float32")
    parser.add_argument("--tokenizer", type=Path, metavar="FILE", help="write the folder's tokenizer.model too")
    args = parser.parse_args(argv)
    try:
        config = write_model(args.folder, args.file)
        if args.tokenizer:
            write_tokenizer(args.folder / "tokenizer.model", args.tokenizer)
    except (nl.InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, value, fixed in (("eps", config.norm_eps, 1e-5), ("theta", config.rope_theta, 1e4)):
        if value != fixed:
            print(f"note: this model has {name} {value:g}, which the file cannot say; llama2.c computes with {fixed:g}",
                  file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
