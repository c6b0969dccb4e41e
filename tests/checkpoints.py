"""Small checkpoints, good and broken, written byte by byte: no library stands between a test and what is on disk.

A folder is a dict from file name to content (bytes, or what JSON can say) until `write_folder` puts it on disk, so a
test breaks a good one by changing an entry.
"""
import functools
import io
import json
import math

import ml_dtypes
import numpy as np

import numpy_llama as nl

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
TEXT = ("Once upon a time there was a king, who had a daughter; and the king's daughter had a golden ball. "
        "\"What will you give me,\" said the frog, \"if I bring it back to you?\" 12 geese, 3 foxes & 40 ravens.\n")
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 16,
    "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 320, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": False, "attention_bias": False, "eos_token_id": 2, "bos_token_id": 1,
}
PARAMS = {"dim": 16, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": -1, "multiple_of": 8,
          "ffn_dim_multiplier": 0.5, "norm_eps": 1e-5}    # feed-forward: int(0.5 * 42) = 21, rounded up to 24
META_NAMES = {
    "model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output", "model.layers": "layers",
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2",
}


@functools.cache
def sentencepiece_model(kind="bpe", pieces=320):
    """The bytes of a tokenizer.model like Llama's, with few pieces."""
    import sentencepiece
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.split(". ") * 3), model_writer=model, model_type=kind, vocab_size=pieces,
        byte_fallback=True, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        hard_vocab_limit=False, num_threads=1, minloglevel=2)
    return model.getvalue()


def shapes(config):
    """{Hugging Face's name: shape} of every tensor."""
    c = config
    d = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    D, F, V = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    Hd, Gd = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    found = {"model.embed_tokens": (V, D)}
    for i in range(c["num_hidden_layers"]):
        found |= {f"model.layers.{i}.{name}": shape for name, shape in {
            "input_layernorm": (D,), "self_attn.q_proj": (Hd, D), "self_attn.k_proj": (Gd, D),
            "self_attn.v_proj": (Gd, D), "self_attn.o_proj": (D, Hd), "post_attention_layernorm": (D,),
            "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F)}.items()}
    found |= {"model.norm": (D,)} | ({} if c["tie_word_embeddings"] else {"lm_head": (V, D)})
    return {f"{name}.weight": shape for name, shape in found.items()}


def random_tensors(config, seed=0):
    """Float32 weights by Hugging Face's names, of a size that makes the model sure of some tokens."""
    rng = np.random.default_rng(seed)
    return {name: (rng.normal(size=shape) * 2 / math.sqrt(shape[-1]) if len(shape) == 2 else
                   1 + rng.normal(size=shape) / 2).astype(np.float32) for name, shape in shapes(config).items()}


def meta_tensors(tensors, head_dim):
    """The same weights by Meta's names: the rows of queries and keys are neighbours, not halves."""
    renamed = {}
    for name, x in tensors.items():
        if "q_proj" in name or "k_proj" in name:
            order = np.arange(len(x)).reshape(-1, 2, head_dim // 2).swapaxes(1, 2).ravel()
            x = x[order]
        for theirs, meta in META_NAMES.items():
            name = name.replace(theirs, meta)
        renamed[name] = x
    return renamed


def safetensors_bytes(tensors, dtype="F32", edit=None):
    """A safetensors file: eight bytes with the header's length, the header, the numbers.

    `edit` gets the header as a dict, changes it, and may return the text to write in its place.
    """
    header, data = {}, b""
    for name, x in tensors.items():
        start, data = len(data), data + x.astype(DTYPES[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [start, len(data)]}
    text = (edit and edit(header)) or json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def hugging_face(tensors=None, **config):
    """The files of a good folder in Hugging Face's layout."""
    config = CONFIG | config
    return {"config.json": config, "tokenizer.model": sentencepiece_model(),
            "model.safetensors": safetensors_bytes(tensors or random_tensors(config))}


def meta(**params):
    """The same model in Meta's layout."""
    params = PARAMS | params
    return {"params.json": params, "tokenizer.model": sentencepiece_model(),
            "consolidated.safetensors": safetensors_bytes(meta_tensors(random_tensors(CONFIG), 4))}


def sharded():
    """The same model in two files with an index."""
    tensors = random_tensors(CONFIG)
    names, files = list(tensors), hugging_face()
    del files["model.safetensors"]
    weight_map = {name: f"model-0000{1 + (i >= 9)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in sorted(set(weight_map.values())):
        files[file] = safetensors_bytes({name: tensors[name] for name in names if weight_map[name] == file})
    return files | {"model.safetensors.index.json": {"metadata": {}, "weight_map": weight_map}}


def write_folder(folder, files):
    """Write {name: bytes or JSON}, and return the folder. What is neither is a function that makes the path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if callable(content):
            content(folder / name)
        else:
            (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


def write_shape(folder, config, dtype="BF16", numbers=b""):
    """A Hugging Face folder with the exact shape of a Config, and no tokenizer.

    The weights are these bytes over and over; without any, they are a hole in the file, which reads as zeros and takes
    no place on the disk. Nothing large is held in memory.
    """
    raw = {theirs: getattr(config, ours) for ours, theirs in nl.CONFIG_KEYS.items()}
    raw |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "tie_word_embeddings": False, "torch_dtype": "bfloat16"}
    header, end, width = {"__metadata__": {"format": "pt"}}, 0, np.dtype(DTYPES[dtype]).itemsize
    for name, shape in shapes(raw).items():
        start, end = end, end + width * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)                           # numbers that are aligned, as the library writes them
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for at in range(0, end if numbers else 0, len(numbers) or 1):
            file.write(numbers[:end - at])
        file.truncate(8 + len(text) + end)
    return folder


def random_numbers(dtype="BF16", n=2**22 + 3, size=0.02, seed=0):
    """Bytes of n normal numbers."""
    return np.random.default_rng(seed).normal(0, size, n).astype(DTYPES[dtype]).tobytes()
