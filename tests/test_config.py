"""Published sizes against the papers, what Config refuses, and what `load` reads from every form a Llama comes in.

The oracle for the numbers on disk is PyTorch, or the arrays from which a checkpoint was written byte by byte.
"""
from dataclasses import FrozenInstanceError

import checkpoints
import numpy as np
import pytest

import numpy_llama as nl

PUBLISHED = {       # LLaMA, table 2; Llama 2, table 1: D, L, H, G, F, parameters, KiB of float16 cache per token
    "7b": (4096, 32, 32, 32, 11008, 6_738_415_616, 512),
    "13b": (5120, 40, 40, 40, 13824, 13_015_864_320, 800),
    "33b": (6656, 60, 52, 52, 17920, 32_528_943_616, 1560),
    "65b": (8192, 80, 64, 64, 22016, 65_285_660_672, 2560),
    "34b": (8192, 48, 64, 8, 22016, 33_743_970_304, 192),
    "70b": (8192, 80, 64, 8, 28672, 68_976_648_192, 320),
}
CONFIG = nl.Config(16, 2, 4, 2, 24, 320, 64)                  # what checkpoints.CONFIG says


# ---- Config --------------------------------------------------------------------------------------------------

def test_presets_are_the_published_sizes():
    assert list(nl.PRESETS) == [*(f"llama-1-{size}" for size in ("7b", "13b", "33b", "65b")),
                                *(f"llama-2-{size}" for size in ("7b", "13b", "34b", "70b"))]


@pytest.mark.parametrize("name", nl.PRESETS)
def test_published_sizes(name):
    c, (D, L, H, G, F, parameters, kib) = nl.PRESETS[name], PUBLISHED[name[-3:].strip("-")]
    assert (c.dim, c.n_layers, c.n_heads, c.n_kv_heads, c.hidden_dim) == (D, L, H, G, F)
    assert (c.head_dim, c.vocab_size, c.rope_theta) == (128, 32000, 10000)
    assert c.max_seq_len == (2048 if "llama-1" in name else 4096)
    assert c.norm_eps == (1e-6 if "llama-1" in name and "65b" not in name else 1e-5)     # of the published checkpoints
    assert sum(nl.parameter_counts(c).values()) == parameters
    assert sum(nl.parameter_counts(c, tied=True).values()) == parameters - 32000 * D
    assert 2 * L * nl.KVCache(c, 1, np.float16).k.nbytes == 1024 * kib       # keys and values of one token


@pytest.mark.parametrize("tied", [False, True])
def test_parameter_counts_are_pytorchs(tied):
    import oracle  # here, so that the rest starts at once
    config = nl.Config(24, 3, 6, 2, 40, 97, 64, head_dim=10)
    model = oracle.random_llama(config, tied=tied)
    assert sum(nl.parameter_counts(config, tied).values()) == sum(p.numel() for p in model.parameters())


def test_config_is_frozen():
    with pytest.raises(FrozenInstanceError):
        CONFIG.dim = 5
    assert CONFIG.head_dim == 4 and nl.Config(16, 2, 4, 2, 24, 320, head_dim=6).head_dim == 6


@pytest.mark.parametrize("change, says", [
    *(({name: value}, name) for name in ("dim", "n_layers", "n_heads", "n_kv_heads", "hidden_dim", "vocab_size",
                                         "max_seq_len", "head_dim") for value in (0, -1, 2.0, "2", True, 2**31)),
    *(({name: value}, name) for name in ("norm_eps", "rope_theta") for value in (0, -1.0, "1", float("nan"), 1e39)),
    ({"n_heads": 3, "n_kv_heads": 3}, "does not divide dim"), ({"n_kv_heads": 3}, "n_kv_heads 3 does not divide"),
    ({"head_dim": 5}, "head_dim 5 is odd")], ids=str)
def test_config_refuses(change, says):
    good = dict(dim=16, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=24, vocab_size=320)
    with pytest.raises(nl.InputError, match=says):
        nl.Config(**(good | change))


# ---- load: the configuration ---------------------------------------------------------------------------------

def config_of(tmp_path, tensors=None, remove=(), **changes):
    files = checkpoints.hugging_face(tensors)
    files["config.json"] = {key: value for key, value in (files["config.json"] | changes).items() if key not in remove}
    return nl.load(checkpoints.write_folder(tmp_path, files))[1]


@pytest.mark.parametrize("remove, changes, expected", [
    ((), {}, {}), ((), {"rope_theta": 5e5}, {"rope_theta": 5e5}), (("rope_theta",), {}, {}),
    (("rope_theta",), {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, {"rope_theta": 1e6}),
    ((), {"rope_scaling": None}, {}), ((), {"rms_norm_eps": 1e-6}, {"norm_eps": 1e-6}), ((), {"head_dim": None}, {}),
    ((), {"head_dim": 4}, {}), ((), {"eos_token_id": [2, 5]}, {}),
    ((), {"max_position_embeddings": 9}, {"max_seq_len": 9}),
], ids=str)
def test_config_json(remove, changes, expected, tmp_path):
    assert config_of(tmp_path, None, remove, **changes) == nl.replace(CONFIG, **expected)


def test_config_json_without_key_value_heads_is_multi_head(tmp_path):
    tensors = checkpoints.random_tensors(checkpoints.CONFIG | {"num_key_value_heads": 4})
    assert config_of(tmp_path, tensors, ["num_key_value_heads"]) == nl.replace(CONFIG, n_kv_heads=4)


def test_head_dim_that_is_not_the_quotient(tmp_path):
    tensors = checkpoints.random_tensors(checkpoints.CONFIG | {"head_dim": 6})
    assert config_of(tmp_path, tensors, head_dim=6) == nl.replace(CONFIG, head_dim=6)


@pytest.mark.parametrize("changes, expected", [
    ({}, {}), ({"norm_eps": 1e-6}, {"norm_eps": 1e-6}), ({"vocab_size": 320}, {}),
    ({"ffn_dim_multiplier": None, "multiple_of": 24}, {"hidden_dim": 48}),
    ({"ffn_dim_multiplier": 0.55}, {}), ({"rope_theta": 1e6}, {"rope_theta": 1e6})], ids=str)
def test_params_json(changes, expected, tmp_path):
    expected = nl.replace(CONFIG, **{"max_seq_len": 2048} | expected)
    files, F = checkpoints.meta(**changes), expected.hidden_dim
    tensors = checkpoints.random_tensors(checkpoints.CONFIG | {"intermediate_size": F})
    files["consolidated.safetensors"] = checkpoints.safetensors_bytes(checkpoints.meta_tensors(tensors, 4))
    assert nl.load(checkpoints.write_folder(tmp_path, files))[1] == expected


# ---- load: the numbers ---------------------------------------------------------------------------------------

def assert_same(ours, theirs, dtype):
    """The same nest of names, the same numbers, in the dtype asked for; matrices contiguous."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            assert_same(ours[name], theirs[name], dtype)
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs):
            assert_same(a, b, dtype)
    else:
        assert ours.dtype == dtype and ours.flags.c_contiguous
        np.testing.assert_array_equal(ours, theirs.astype(dtype))


def our_names(tensors, n_layers=2):
    """Hugging Face's tensors, (out, in), in our nest, (in, out)."""
    def layer(i):
        x = {name.removeprefix(f"model.layers.{i}.").removesuffix(".weight"): tensor
             for name, tensor in tensors.items()}
        return {"attn_norm": x["input_layernorm"], "attn": {f"w{a}": x[f"self_attn.{a}_proj"].T for a in "qkvo"},
                "ffn_norm": x["post_attention_layernorm"],
                "ffn": {a: x[f"mlp.{a}_proj"].T for a in ("gate", "up", "down")}}
    embedding = tensors["model.embed_tokens.weight"]
    return {"embedding": embedding, "layers": [layer(i) for i in range(n_layers)], "norm": tensors["model.norm.weight"],
            "output": tensors.get("lm_head.weight", embedding).T}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("stored", ["F64", "F32", "F16", "BF16"])
def test_every_dtype_is_upcast_exactly(stored, tied, dtype, tmp_path):
    import torch
    config = checkpoints.CONFIG | {"tie_word_embeddings": tied}
    # Thirds need all the digits of a float64, so that a detour by float32 shows.
    tensors = {name: x / np.float64(3) for name, x in checkpoints.random_tensors(config).items()}
    files = checkpoints.hugging_face(tie_word_embeddings=tied)
    files["model.safetensors"] = checkpoints.safetensors_bytes(tensors, stored)
    kind = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[stored]
    rounded = {name: torch.from_numpy(x).to(kind).double().numpy() for name, x in tensors.items()}
    weights, _ = nl.load(checkpoints.write_folder(tmp_path, files), dtype=dtype)
    assert_same(weights, our_names(rounded), dtype)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_every_16_bit_number_is_upcast_as_pytorch_does(kind, tmp_path):
    """All 65,536 patterns of bits but NaN: subnormal numbers, both zeros and infinities included."""
    import torch
    from safetensors.torch import save_file
    config = checkpoints.CONFIG | {"vocab_size": 4096}
    tensors = {name: torch.from_numpy(x).to(getattr(torch, kind))
               for name, x in checkpoints.random_tensors(config).items()}
    every = torch.arange(-2**15, 2**15).to(torch.int16).view(getattr(torch, kind)).reshape(4096, 16)
    tensors["model.embed_tokens.weight"] = every = torch.where(every.isnan(), torch.zeros_like(every), every)
    files = {"config.json": config, "model.safetensors": lambda path: save_file(tensors, path)}
    weights, _ = nl.load(checkpoints.write_folder(tmp_path, files))
    assert_same(weights, our_names({name: x.float().numpy() for name, x in tensors.items()}), np.float32)
    np.testing.assert_array_equal(np.signbit(weights["embedding"]), np.signbit(every.float().numpy()))


def test_shards_are_one_model(tmp_path):
    weights, config = nl.load(checkpoints.write_folder(tmp_path, checkpoints.sharded()))
    assert config == CONFIG
    assert_same(weights, our_names(checkpoints.random_tensors(checkpoints.CONFIG)), np.float32)


def test_metas_layout_gives_the_same_weights(tmp_path):
    weights, _ = nl.load(checkpoints.write_folder(tmp_path, checkpoints.meta()))
    assert_same(weights, our_names(checkpoints.random_tensors(checkpoints.CONFIG)), np.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.int32])
def test_other_dtypes_are_refused(dtype, tmp_path):
    with pytest.raises(nl.InputError, match="float32 or float64"):
        nl.load(checkpoints.write_folder(tmp_path, checkpoints.hugging_face()), dtype=dtype)
