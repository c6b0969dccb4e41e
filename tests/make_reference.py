"""Make tests/reference: tiny checkpoints, and what PyTorch computes from them.

    python tests/make_reference.py            write everything
    python tests/make_reference.py --check    compare what is there with what this makes

Checkpoints come from a seed and are the same byte for byte everywhere; traces come from transformers in float32 and
are the same within rounding, since PyTorch's last bits differ between processors.
"""
import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["HF_HUB_OFFLINE"] = "1"
import checkpoints  # noqa: E402

REFERENCE = ROOT / "tests" / "reference"
TOKENIZER = ROOT / "weights" / "fairytales" / "tokenizer.model"
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}

# Llama 1's eps for the one without grouping, Code Llama's theta for the grouped one. In "far", embeddings are so large
# that rounding hides a wrong eps.
SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, head_dim=8,
             max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False)
MODELS = {
    "mha": SIZES | dict(num_key_value_heads=4, vocab_size=64, rms_norm_eps=1e-6),
    "gqa": SIZES | dict(num_key_value_heads=2, vocab_size=72, rope_theta=1000000.0),
    "mqa": SIZES | dict(num_key_value_heads=1, vocab_size=80, tie_word_embeddings=True),
    "far": SIZES | dict(num_key_value_heads=1, vocab_size=64, num_hidden_layers=1, num_attention_heads=2, head_dim=16,
                        max_position_embeddings=4096),
}
TOKENS = [1, 5, 23, 42, 8, 15, 60, 3, 31, 10, 57, 20]
RUNS = {"prompt": [12], "chunk": [5, 7], "decode": [8, 1, 1, 1, 1]}               # the trace is the last chunk's


def random_weights(c, seed, embedding_size):
    """{Hugging Face's name: float32 array}. Uniform, which takes no library function whose last bit may differ."""
    random = np.random.Generator(np.random.PCG64(seed)).random

    def uniform(shape, std, mean=0.0):
        return (mean + std * math.sqrt(12) * (random(shape) - 0.5)).astype(np.float32)

    D, F, d = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    queries, keys = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    embedding = uniform((c["vocab_size"], D), embedding_size)
    embedding[3::5] *= 0.01 if embedding_size < 1 else 1   # a few rows so small that eps counts
    weights = {"model.embed_tokens.weight": embedding}
    for i in range(c["num_hidden_layers"]):
        shapes = {"self_attn.q_proj": (queries, D, 1.5), "self_attn.k_proj": (keys, D, 1.5),
                  "self_attn.v_proj": (keys, D, 1.0), "self_attn.o_proj": (D, queries, 1.0),
                  "mlp.gate_proj": (F, D, 1.0), "mlp.up_proj": (F, D, 1.0), "mlp.down_proj": (D, F, 1.0)}
        for name, (n_out, n_in, gain) in shapes.items():
            weights[f"model.layers.{i}.{name}.weight"] = uniform((n_out, n_in), gain / math.sqrt(n_in))
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{i}.{name}.weight"] = uniform((D,), 0.3, 1.0)
    weights["model.norm.weight"] = uniform((D,), 0.3, 1.0)
    if not c["tie_word_embeddings"]:
        weights["lm_head.weight"] = uniform((c["vocab_size"], D), 1.5 / math.sqrt(D))
    return weights


def to_meta(weights, c):
    """The same weights in Meta's layout, which ties nothing."""
    renamed = checkpoints.meta_tensors(weights, c["head_dim"])
    renamed.setdefault("output.weight", renamed["tok_embeddings.weight"])
    return renamed


def write_safetensors(path, tensors, dtype):
    """A file as the safetensors library writes it: with metadata, and the numbers at a multiple of eight bytes."""
    def padded(header):
        text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
        return text + b" " * (-len(text) % 8)

    path.write_bytes(checkpoints.safetensors_bytes(tensors, DTYPES[dtype], padded))


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_checkpoints(folder):
    """Every model, in each dtype and layout."""
    for seed, (model, c) in enumerate(MODELS.items()):
        weights = random_weights(c, seed, embedding_size=2.0 if model == "far" else 0.5)
        for dtype in ["float32"] if model == "far" else DTYPES:
            hf = folder / "checkpoints" / f"{model}-{dtype}-hf"
            hf.mkdir(parents=True)
            rope = {"rope_theta": c["rope_theta"], "rope_type": "default"}
            write_json(hf / "config.json", {
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "bos_token_id": 1,
                "eos_token_id": 2, "dtype": dtype, "rope_parameters": rope,
                **{key: value for key, value in c.items() if key != "rope_theta"}})
            write_safetensors(hf / "model.safetensors", weights, dtype)
            if model == "far":
                continue
            meta = folder / "checkpoints" / f"{model}-{dtype}-meta"
            meta.mkdir()
            write_json(meta / "params.json", {             # F = 48: two thirds of 4 D, halved, up to a multiple of 8
                "dim": c["hidden_size"], "n_layers": c["num_hidden_layers"], "n_heads": c["num_attention_heads"],
                "n_kv_heads": c["num_key_value_heads"], "vocab_size": c["vocab_size"], "multiple_of": 8,
                "ffn_dim_multiplier": 0.5, "norm_eps": c["rms_norm_eps"], "rope_theta": c["rope_theta"],
                "max_seq_len": c["max_position_embeddings"]})
            write_safetensors(meta / "model.safetensors", to_meta(weights, c), dtype)


def cases():
    """{name: what it is computed from}"""
    found = {}
    for model in MODELS:
        for dtype in DTYPES:
            for run, chunks in RUNS.items():
                if model != "far":
                    found[f"{model}-{dtype}/{run}"] = {
                        "checkpoint": f"checkpoints/{model}-{dtype}-hf", "same_in_metas_layout":
                        f"checkpoints/{model}-{dtype}-meta", "trace": f"traces/{model}-{dtype}-{run}.safetensors",
                        "tokens": TOKENS, "chunks": chunks}
    tokens = [1] + [int(t) for t in np.random.Generator(np.random.PCG64(9)).integers(3, 64, 4095)]
    return found | {"far-float32/decode": {
        "checkpoint": "checkpoints/far-float32-hf", "trace": "traces/far-float32.safetensors",
        "tokens": tokens, "chunks": [1020, 1020, 1020, 1020, 16]}}


def write_traces(folder):
    """What transformers computes in float32. In the far case without scores and probs, which would be 1 MB."""
    import torch
    import transformers
    from oracle import torch_trace
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    (folder / "traces").mkdir()
    for name, case in cases().items():
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder / case["checkpoint"], dtype=torch.float32, attn_implementation="eager").eval()
        cache, start = transformers.DynamicCache(), 0
        for size in case["chunks"]:
            trace = torch_trace(model, np.array(case["tokens"][start:start + size]), cache)
            start += size
        kept = {n: x for n, x in trace.items() if not (name.startswith("far") and n.endswith(("scores", "probs")))}
        write_safetensors(folder / case["trace"], kept, "float32")


TEXTS = [
    "", " ", "  ", "a", " a", "a ", "  two  spaces  ", "Once upon a time", "Once upon a time, there was a king.",
    "tab\there", "line\nbreak", "\n", "\n\n\n", "\r\n", " \n ", "3.14159", "1234567890", "10,000 men", "I", "wa",
    "hi friend",
    "\"Good day,\" said the fox.", "don't", "ALL CAPITALS", "naïve café", "ö & ü", "Größe", "Привет, мир", "株式会社",
    "こんにちは", "مرحبا", "𒎗𓐍", "😀", "👩‍👩‍👧", "a😀b", "e\u0301 and é",
    "\u00a0", "\u200b", "\ufeff", "\ufffd", "\x00", "\x7f",
    "<s>", "</s>", "<unk>", "<s>Once</s>", "<0x41>", "[INST] hi [/INST]", "▁", "▁Once", "a▁b", "tail</s", "x" * 40,
    "The quick brown fox jumps over the lazy dog. " * 3,
]


def write_tokenizer_vectors(folder):
    """Text to ids and back, by SentencePiece itself."""
    import sentencepiece
    sp = sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER))
    write_json(folder / "tokenizer.json", {
        "tokenizer": "weights/fairytales/tokenizer.model", "bos": sp.bos_id(), "eos": sp.eos_id(),
        "vectors": [{"text": text, "ids": sp.encode(text), "decoded": sp.decode(sp.encode(text))} for text in TEXTS]})


def write_sampling_vectors(folder):
    """Logits and settings to probabilities, by transformers' own warpers in float64."""
    import torch
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
    random = np.random.Generator(np.random.PCG64(7)).random
    rows = [[round(float(x), 3) for x in 8 * random(12) - 4], [2.0, 2.0, 1.0, 0.0, -1.0, 2.0, -3.0, 0.5],
            [1000.0, 999.0, 0.0, -1000.0], [0.0, 0.0, 0.0, 0.0, 0.0]]
    settings = [(1.0, 0, 1.0), (0.0, 0, 1.0), (0.5, 0, 1.0), (1.7, 0, 1.0), (1.0, 1, 1.0), (1.0, 3, 1.0), (0.8, 5, 1.0),
                (1.0, 100, 1.0), (1.0, 0, 0.9), (1.0, 0, 0.5), (0.7, 0, 0.95), (0.9, 4, 0.8), (1.3, 2, 0.3),
                (1.0, 0, 0.01)]
    vectors = []
    for logits in rows:
        for temperature, top_k, top_p in settings:
            scores = torch.tensor([logits], dtype=torch.float64)
            if len(set(logits)) < len(logits) and top_p < 1:
                continue                                  # which of equally likely tokens are kept is not defined
            if temperature == 0:
                probs = torch.nn.functional.one_hot(scores.argmax(-1), len(logits)).double()
            else:
                scores = TemperatureLogitsWarper(temperature)(None, scores)
                scores = TopKLogitsWarper(top_k)(None, scores) if top_k else scores
                scores = TopPLogitsWarper(top_p)(None, scores) if top_p < 1 else scores
                probs = scores.softmax(-1)
            vectors.append({"logits": logits, "temperature": temperature, "top_k": top_k, "top_p": top_p,
                            "probs": probs[0].tolist()})
    write_json(folder / "sampling.json", {"vectors": vectors})


def make(folder):
    write_checkpoints(folder)
    write_json(folder / "cases.json", {"cases": cases()})
    write_traces(folder)
    write_tokenizer_vectors(folder)
    write_sampling_vectors(folder)


def differences(made, kept):
    """Sentences on what is in one folder but not the same in the other."""
    from safetensors.numpy import load_file

    def files(folder):
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"README.md"}

    for name in sorted(files(made) ^ files(kept)):
        yield f"{name} is {'missing' if (made / name).exists() else 'there, but not made by this'}"
    for name in sorted(files(made) & files(kept)):
        if name.startswith("traces"):
            a, b = load_file(made / name), load_file(kept / name)
            if {n: x.shape for n, x in a.items()} != {n: x.shape for n, x in b.items()}:
                yield f"{name} holds other tensors"
                continue
            for tensor, x in a.items():
                # 1 in 10^5 of the largest: ten times what MKL with one and with two threads differ by.
                seen = np.isfinite(x)
                far = np.abs(np.where(seen, x, 0) - np.where(seen, b[tensor], 0)).max()
                if not far <= 1e-5 * np.abs(x[seen]).max() or not np.array_equal(seen, np.isfinite(b[tensor])):
                    yield f"{name}: {tensor} differs by {far:.1e}"
        elif name == "sampling.json":
            a, b = (json.loads((folder / name).read_text())["vectors"] for folder in (made, kept))
            if [v | {"probs": 0} for v in a] != [v | {"probs": 0} for v in b]:
                yield f"{name} holds other vectors"
            elif not all(np.allclose(x["probs"], y["probs"], rtol=0, atol=1e-14) for x, y in zip(a, b)):
                yield f"{name}: probabilities differ"
        elif (made / name).read_bytes() != (kept / name).read_bytes():
            yield f"{name} is not the same byte for byte"


def main(argv=None):
    parser = argparse.ArgumentParser(description="Make tests/reference from a seed.")
    parser.add_argument("--check", action="store_true", help="compare what is there with what this makes")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as made:
        made = Path(made)
        make(made)
        if args.check:
            found = list(differences(made, REFERENCE))
            for sentence in found:
                print(sentence)
            print("tests/reference is not what this makes" if found else "tests/reference is what this makes")
            return int(bool(found))
        if not REFERENCE.exists() or any(differences(made, REFERENCE)):           # the last bits alone are not news
            shutil.copytree(made, REFERENCE, dirs_exist_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
