"""Every refusal of numpy_llama.py, through its command line: status 2, one line `error: ...` that names the thing.

Each row breaks a good folder in one place. The oracle is that place: the words that the message must hold.
"""
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import checkpoints as ck
import numpy as np
import pytest
import tiny
from checkpoints import CONFIG, hugging_face, meta, safetensors_bytes, sharded, write_folder
from conftest import ROOT

import numpy_llama as nl

pytestmark = pytest.mark.filterwarnings("error")              # a warning would be a second line
HF, META, SHARDS = hugging_face(), meta(), sharded()
TENSORS = ck.random_tensors(CONFIG)
QUERY = "model.layers.1.self_attn.q_proj.weight"
MODES = {                                                     # what a folder can be asked for
    "tell": ["Once", "-n", "3"], "info": ["--info"], "trace": ["Once", "--trace", "run.npz"],
    "perplexity": ["--perplexity", "text.txt"], "chat": ["--chat", "-n", "3"],
}


@pytest.fixture
def refusal(tmp_path, monkeypatch, capfd):
    """A function from arguments to the one line that they are answered with."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("Once upon a time there was a king.")
    (tmp_path / "input.txt").write_text("Who are you?\n")

    def run(*argv):
        capfd.readouterr()
        with open("input.txt") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            status = nl.main([str(arg) for arg in argv])
        out, err = capfd.readouterr()
        assert (status, out) == (2, ""), (status, out[:80], err)
        assert re.fullmatch(r"error: \S.{5,}\n", err), err    # `.` is no newline: one line
        return err.replace(str(tmp_path), "")                 # pytest names the folder after the row

    return run


# ---- Folders ---------------------------------------------------------------------------------------------------

def without(files, *names):
    return {name: content for name, content in files.items() if name not in names}


def config(**changes):
    """Hugging Face's folder with other values in config.json; ... takes the key out."""
    values = {key: value for key, value in (CONFIG | changes).items() if value is not ...}
    return HF | {"config.json": values}


def params(**changes):
    return META | {"params.json": {key: v for key, v in (ck.PARAMS | changes).items() if v is not ...}}


def config_text(text):
    return HF | {"config.json": text if isinstance(text, bytes) else text.encode()}


def number(key, literal):
    """config.json with a number that Python's json module would not write."""
    return config_text(json.dumps(CONFIG | {key: "HERE"}).replace('"HERE"', literal))


def tensors(files=HF, dtype="F32", drop=(), **changes):
    """A folder whose weights lack tensors or have others."""
    kept = {name: x for name, x in TENSORS.items() if name not in drop} | changes
    return files | {"model.safetensors": safetensors_bytes(kept, dtype)}


def header(edit):
    return HF | {"model.safetensors": safetensors_bytes(TENSORS, edit=edit)}


def entry(**changes):
    return header(lambda h: h[QUERY].update(changes))


def index(**changes):
    """An index with the first tensor in another file, or with another content."""
    content = SHARDS["model.safetensors.index.json"]
    if "file" in changes:
        content = {"weight_map": content["weight_map"] | {QUERY: changes["file"]}}
    return SHARDS | {"model.safetensors.index.json": changes.get("content", content)}


GOOD = HF["model.safetensors"]
NOT_UTF8 = json.dumps(CONFIG).encode().replace(b"silu", b"s\xfflu")
FOLDERS = {
    # a file that is not there
    "no config": (without(HF, "config.json"), ["config.json", "params.json"]),
    "config is a dangling link": (HF | {"config.json": lambda path: path.symlink_to("nowhere")}, ["config.json"]),
    "no params": (without(META, "params.json"), ["params.json"]),
    "no weights": (without(HF, "model.safetensors"), ["no .safetensors"]),
    "empty folder": ({}, ["no .safetensors"]),
    **{f"only {name}": (without(HF, "model.safetensors") | {name: b"PK"}, [name, "pickle", "weights/README.md"])
       for name in ("pytorch_model.bin", "consolidated.00.pth", "model.pt", "model.gguf")},
    "weights are a folder": (HF | {"model.safetensors": lambda path: path.mkdir()}, ["model.safetensors"]),
    "config is a folder": (HF | {"config.json": lambda path: path.mkdir()}, ["config.json", "directory"]),

    # JSON
    "config cut": (config_text(json.dumps(CONFIG)[:-9]), ["config.json", "JSON"]),
    "config empty": (config_text(""), ["config.json", "JSON"]),
    "config a list": (config_text("[]"), ["config.json", "list"]),
    "config a number": (config_text("3"), ["config.json", "int"]),
    "config not UTF-8": (config_text(NOT_UTF8), ["config.json", "JSON"]),
    "config nested": (config_text('{"hidden_size": ' + "[" * 100_000), ["config.json", "JSON"]),
    "config of many digits": (number("hidden_size", "1" * 5000), ["config.json"]),
    "params cut": (META | {"params.json": b'{"dim": 16,'}, ["params.json", "JSON"]),

    # a key missing, a value that is no size
    **{f"no {key}": (config(**{key: ...}), [f" {key} "]) for key in (
        "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
        "rms_norm_eps")},
    **{f"no {key} in params": (params(**{key: ...}), [key]) for key in (
        "dim", "n_layers", "n_heads", "multiple_of", "norm_eps")},
    **{f"{key} = {value!r}"[:60]: (config(**{key: value}), [key, repr(value)])
       for key in ("hidden_size", "num_hidden_layers", "num_key_value_heads", "vocab_size", "max_position_embeddings")
       for value in (0, -4, 16.0, "16", True, [16], 10**30)},
    **{f"{key} = {literal}"[:60]: (number(key, literal), [key, shown])
       for key in ("rms_norm_eps", "rope_theta", "hidden_size")
       for literal, shown in {"NaN": "nan", "Infinity": "inf", "1e999": "inf", "-1e-5": "-1e-05", "0": "0",
                              "1" + 400 * "0": 100 * "0", '"1e-5"': "'1e-5'", "false": "False"}.items()},
    **{f"{key} = {value!r} in params"[:60]: (params(**{key: value}), [key, repr(value)])
       for key, value in {"dim": 0, "n_layers": -1, "n_heads": "4", "n_kv_heads": 1.5, "multiple_of": 0,
                          "ffn_dim_multiplier": -1.3, "norm_eps": "small", "vocab_size": -2}.items()},
    "heads do not divide": (config(num_attention_heads=3, num_key_value_heads=1), ["n_heads 3", "16"]),
    "key heads do not divide": (config(num_key_value_heads=3), ["n_kv_heads 3", "4"]),
    "odd head": (config(head_dim=5), ["head_dim 5"]),

    # features that are not Llama 1 or 2
    **{f"{key} = {value!r}"[:60]: (config(**{key: value}), [key, shown]) for key, value, shown in [
        ("attention_bias", True, "True"), ("mlp_bias", True, "True"), ("hidden_act", "gelu", "gelu"),
        ("model_type", "mistral", "mistral"), ("architectures", ["MixtralForCausalLM"], "Mixtral"),
        ("sliding_window", 4096, "4096"), ("num_local_experts", 8, "8"), ("num_experts", 8, "8"),
        ("quantization_config", {"bits": 4}, "bits"), ("partial_rotary_factor", 0.5, "0.5")]},
    **{f"{key} {rope}"[:60]: (config(**{key: rope}), [word]) for key, rope, word in [
        ("rope_scaling", {"type": "linear", "factor": 2.0}, "linear"),
        ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}, "llama3"),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}, "yarn"),
        ("rope_scaling", {"factor": 4.0}, "factor is 4.0"),
        ("rope_scaling", "linear", "rope_scaling"), ("rope_parameters", [1], "rope_parameters")]},
    "Llama 3 in params": (params(use_scaled_rope=True), ["use_scaled_rope"]),
    "bias tensor": (tensors(**{"model.layers.0.self_attn.q_proj.bias": np.zeros(16)}), ["q_proj.bias"]),

    # files of weights
    "weights empty": (HF | {"model.safetensors": b""}, ["model.safetensors"]),
    "weights cut": (HF | {"model.safetensors": GOOD[:-1]}, ["model.safetensors"]),
    "weights longer": (HF | {"model.safetensors": GOOD + b"\0"}, ["model.safetensors"]),
    "header cut": (HF | {"model.safetensors": GOOD[:100]}, ["model.safetensors"]),
    "header's length cut": (HF | {"model.safetensors": GOOD[:7]}, ["model.safetensors"]),
    "header of 2^62 bytes": (HF | {"model.safetensors": (2**62).to_bytes(8, "little") + GOOD[8:]},
                             ["model.safetensors"]),
    "header not JSON": (header(lambda h: b"{" * 999), ["model.safetensors"]),
    "header a list": (header(lambda h: b"[1, 2, 3]"), ["model.safetensors"]),
    "offsets overlap": (header(lambda h: h["lm_head.weight"].update(data_offsets=h[QUERY]["data_offsets"])),
                        ["model.safetensors"]),
    "offsets backwards": (header(lambda h: h[QUERY]["data_offsets"].reverse()), ["model.safetensors"]),
    "offsets negative": (entry(data_offsets=[-4, 0]), ["model.safetensors"]),
    "offsets past the end": (entry(data_offsets=[2**40, 2**40 + 1024]), ["model.safetensors"]),
    "shape of another size": (entry(shape=[16, 17]), ["model.safetensors"]),
    "shape overflows": (entry(shape=[2**62, 2**62]), ["model.safetensors"]),
    "shape negative": (entry(shape=[-16, -16]), ["model.safetensors"]),
    "dtype nobody knows": (entry(dtype="F13"), ["model.safetensors"]),
    "shard missing": (without(SHARDS, "model-00002-of-00002.safetensors"), ["model-00002-of-00002.safetensors"]),
    "shard cut": (SHARDS | {"model-00002-of-00002.safetensors": GOOD[:-1]}, ["model-00002-of-00002.safetensors"]),
    "tensor in both shards": (SHARDS | {"model-00002-of-00002.safetensors": GOOD}, ["model-0000", "another file"]),
    **{f"index points to {file!r}": (index(file=file), ["index.json", "outside", file]) for file in (
        "../model.safetensors", "/etc/passwd", "sub/model.safetensors")},
    **{f"index names {file[:20]!r}": (index(file=file), [file[:40] or "outside"]) for file in (
        "..", "", "none.safetensors", "x" * 300)},
    **{f"index is {content}": (index(content=content), ["index.json"]) for content in (
        [], {}, {"weight_map": []}, {"weight_map": {QUERY: 1}}, {"weight_map": {QUERY: None}})},
    "index empty": (index(content={"weight_map": {}}), ["safetensors"]),

    # tensors
    "tensor missing": (tensors(drop=[QUERY]), [QUERY, "missing"]),
    "output missing": (tensors(drop=["lm_head.weight"]), ["lm_head.weight"]),
    "tensor unknown": (tensors(**{"model.layers.0.extra.weight": np.zeros(3)}), ["model.layers.0.extra.weight"]),
    "one layer too many": (config(num_hidden_layers=1), ["model.layers.1.", " 1 layers"]),
    "one layer too few": (config(num_hidden_layers=3), ["model.layers.2.", "missing"]),
    "a million layers": (config(num_hidden_layers=10**6), ["model.layers.2.", "missing"]),
    "tensor transposed": (tensors(**{"lm_head.weight": TENSORS["lm_head.weight"].T}),
                          ["lm_head.weight", "(16, 320)", "(320, 16)"]),
    "tensor of three axes": (tensors(**{QUERY: np.zeros((4, 4, 16))}), [QUERY, "(4, 4, 16)", "(16, 16)"]),
    "tensor without size": (tensors(**{QUERY: np.zeros((0, 16))}), [QUERY, "(0, 16)", "(16, 16)"]),
    "scalar": (tensors(**{"model.norm.weight": np.float64(1)}), ["model.norm.weight", "()", "(16,)"]),
    "keys as many as queries": (tensors(**{"model.layers.0.self_attn.k_proj.weight": np.zeros((16, 16))}),
                                ["model.layers.0.self_attn.k_proj.weight", "(16, 16)", "(8, 16)"]),
    "vocabulary of another size": (config(vocab_size=321), ["model.embed_tokens.weight", "(320, 16)", "(321, 16)"]),
    "vocabulary of 2^31": (config(vocab_size=2**31 - 1), ["model.embed_tokens.weight", "(2147483647, 16)"]),
    **{f"tensor of {dtype}": (entry(dtype=dtype, shape=shape), [QUERY, dtype, "F32"]) for dtype, shape in {
        "I32": [16, 16], "U8": [16, 64], "I64": [16, 8], "F8_E4M3": [64, 16], "BOOL": [16, 64]}.items()},
    "Meta's tensor missing": (META | {"consolidated.safetensors": safetensors_bytes(
        {n: x for n, x in ck.meta_tensors(TENSORS, 4).items() if n != "layers.1.feed_forward.w3.weight"})},
        ["layers.1.feed_forward.w3.weight", "missing"]),
    "Meta's embedding a scalar": (META | {"consolidated.safetensors": safetensors_bytes(
        ck.meta_tensors(TENSORS, 4) | {"tok_embeddings.weight": np.float32(1)})}, ["vocab_size", "missing"]),
    "tied, but different": (config(tie_word_embeddings=True), ["tie_word_embeddings"]),
}
# --info does not look at these.
UNSEEN_BY_INFO = {
    "generation config cut": (HF | {"generation_config.json": b'{"eos_token_id":'}, ["generation_config.json", "JSON"]),
    "no tokenizer": (without(HF, "tokenizer.model"), ["tokenizer.model"]),
    "only tokenizer.json": (without(HF, "tokenizer.model") | {"tokenizer.json": {}}, ["tokenizer.model"]),
    "tokenizer a folder": (HF | {"tokenizer.model": lambda path: path.mkdir()}, ["tokenizer.model", "directory"]),
    "tokenizer empty": (HF | {"tokenizer.model": b""}, ["tokenizer.model"]),
    "tokenizer random": (HF | {"tokenizer.model": np.random.default_rng(0).bytes(999)}, ["tokenizer.model"]),
    "tokenizer JSON": (HF | {"tokenizer.model": {"version": "1.0"}}, ["tokenizer.model"]),
    "tokenizer cut": (HF | {"tokenizer.model": ck.sentencepiece_model()[:2000]}, ["tokenizer.model"]),
    "tokenizer's piece not UTF-8": (HF | {"tokenizer.model": ck.sentencepiece_model().replace(b"ing", b"i\xffg")},
                                    ["tokenizer.model"]),
    "tokenizer larger": (HF | {"tokenizer.model": ck.sentencepiece_model(pieces=330)}, ["tokenizer", "330", "320"]),
}
DAMAGED = {name: tensors(**{name: np.full_like(TENSORS[name], value)}) for name, value in {
    "model.norm.weight": np.nan, "lm_head.weight": np.inf, "model.embed_tokens.weight": -np.inf}.items()}


@pytest.mark.parametrize("name", FOLDERS)
def test_folder(name, tmp_path, refusal):
    files, words = FOLDERS[name]
    folder = write_folder(tmp_path / "model", files)
    for mode, argv in MODES.items():
        message = refusal("--model", folder, *argv)
        if files or mode == "info":                           # an empty folder lacks several things
            assert all(word in message for word in words), (mode, message)
    assert not (tmp_path / "run.npz").exists() and not list(tmp_path.glob(".part*"))


@pytest.mark.parametrize("name", UNSEEN_BY_INFO)
def test_tokenizer(name, tmp_path, refusal):
    files, words = UNSEEN_BY_INFO[name]
    folder = write_folder(tmp_path / "model", files)
    for mode in MODES.keys() - {"info"}:
        message = refusal("--model", folder, *MODES[mode])
        assert all(word in message for word in words), (mode, message)


@pytest.mark.parametrize("name", DAMAGED)
def test_numbers_that_are_not_finite(name, tmp_path, refusal):
    folder = write_folder(tmp_path / "model", DAMAGED[name])
    assert "position 0 " in refusal("--model", folder, *MODES["perplexity"])
    for mode in ("tell", "chat"):                             # of a prompt only the last logits are computed
        assert re.search(r"the logits at position [1-9]\d* are not finite", refusal("--model", folder, *MODES[mode]))


def test_first_position_that_is_not_finite(tmp_path, refusal):
    """Layers that add nothing, and one token whose logit overflows: 4 * 3e38. Its first place is named."""
    folder = write_folder(tmp_path / "model", HF)
    ids = nl.Tokenizer(folder / "tokenizer.model").encode("Once upon a time there was a king.")
    embedding, output = TENSORS["model.embed_tokens.weight"].copy(), TENSORS["lm_head.weight"].copy()
    embedding[:, 15] = 0
    embedding[ids[7]] = 16 * [0]
    embedding[ids[7], 15], output[0, 15] = 1, 3e38
    silent = {name: 0 * x for name, x in TENSORS.items() if "o_proj" in name or "down_proj" in name}
    write_folder(folder, tensors(**silent | {"model.embed_tokens.weight": embedding, "lm_head.weight": output}))
    assert f"position {ids.index(ids[7])} " in refusal("--model", folder, "--perplexity", "text.txt")


def test_the_position_is_counted_in_the_text_not_in_the_window():
    """Layers that add nothing, and token 7, whose logit overflows: in a context of 16, it stands in a later window."""
    weights = tiny.random_weights(tiny.CONFIG)
    for layer in weights["layers"]:
        layer["attn"]["wo"][:], layer["ffn"]["down"][:] = 0, 0
    weights["embedding"][:, -1] = 0
    weights["embedding"][7] = np.eye(tiny.CONFIG.dim)[-1]
    weights["output"][-1, 0] = 3e38
    with np.errstate(over="ignore"), pytest.raises(nl.InputError, match="position 40 "):
        nl.perplexity(40 * [1] + 3 * [7], weights, replace(tiny.CONFIG, max_seq_len=16))


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file that nobody can read")
@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "model.safetensors"])
def test_unreadable(name, tmp_path, refusal):
    """Opening works, reading fails: so it goes for root too, whom no permission stops."""
    folder = write_folder(tmp_path / "model", HF | {name: lambda path: path.symlink_to("/proc/self/mem")})
    assert name in refusal("--model", folder)


# ---- Arguments -------------------------------------------------------------------------------------------------

ARGUMENTS = {
    "no such folder": (["--model", "nowhere"], ["nowhere", "folder"]),
    "no such folder, --info": (["--model", "nowhere", "--info"], ["nowhere", "folder"]),
    "a file for a folder": (["--model", "text.txt", "--info"], ["text.txt", "folder"]),
    "a long name for a folder": (["--model", "x" * 300], ["xxx"]),
    **{" ".join(argv): (argv, words) for argv, words in [
        (["--temperature", "-0.1"], ["temperature", "-0.1", "0 "]), (["--temperature", "nan"], ["temperature", "nan"]),
        (["--temperature", "inf"], ["temperature", "inf"]), (["--temperature", "hot"], ["--temperature", "hot"]),
        (["--top-p", "0"], ["top_p", "0.0", "1"]), (["--top-p", "1.01"], ["top_p", "1.01", "1"]),
        (["--top-p", "nan"], ["top_p", "nan"]), (["--top-p", "-1"], ["top_p", "-1"]),
        (["--top-k", "-1"], ["top_k", "-1"]), (["--top-k", "2.5"], ["--top-k", "2.5"]),
        (["-n", "0"], ["--max-new-tokens", "0"]), (["-n", "-1"], ["--max-new-tokens", "-1"]),
        (["-n", "many"], ["--max-new-tokens", "many"]), (["-n", ""], ["--max-new-tokens"]),
        (["--seed", "-1"], ["--seed", "-1"]), (["--seed", "x"], ["--seed", "x"]),
        (["--no-such-option"], ["--no-such-option", "--help"]), (["Once", "upon"], ["upon"]),
        (["--model"], ["--model"]), (["--system", "Be brief."], ["--system", "--chat"]),
        (["--info", "--chat"], ["--info", "--chat"]), (["--trace", "a.npz", "--perplexity", "b"], ["--trace"]),
        (["--perplexity", "nowhere.txt"], ["nowhere.txt"]), (["--perplexity", "."], ["directory"]),
        (["--perplexity", "empty.txt"], ["two tokens"]), (["--perplexity", "latin-1.txt"], ["latin-1.txt", "UTF-8"]),
        (["--trace", "run.txt"], ["run.txt", ".safetensors", ".npz"]), (["--trace", ".npz"], [".npz"]),
        (["--trace", "nowhere/run.npz"], ["nowhere/run.npz"]), (["--trace", "text.txt/run.npz"], ["text.txt/run.npz"]),
        (["--trace", "folder.npz"], ["folder.npz"])]},
    "a long name for a trace": (["--trace", "x" * 300 + ".npz"], ["xxx"]),
    "a prompt longer than the context": (["king " * 99], ["64", "context"]),
    "a trace longer than the context": (["king " * 99, "--trace", "run.npz"], ["64", "context"]),
    "a lone surrogate": (["a\ud800"], ["Unicode"]),
    "an argument that is not UTF-8": (["a\udcff"], ["Unicode"]),
    "a system prompt that is not UTF-8": (["--chat", "--system", "a\udcff"], ["Unicode"]),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name, tmp_path, refusal):
    argv, words = ARGUMENTS[name]
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "latin-1.txt").write_bytes("Größe".encode("latin-1"))
    message = refusal("--model", write_folder(tmp_path / "model", HF), *argv)
    assert all(word in message for word in words), message
    assert not (tmp_path / "run.npz").exists() and not list(tmp_path.glob(".part*"))


@pytest.mark.parametrize("file", ["nowhere/run.npz", "text.txt/run.npz", "folder.npz", "run.txt"])
def test_output_is_checked_before_any_work(file, tmp_path, refusal, monkeypatch):
    (tmp_path / "folder.npz").mkdir()
    monkeypatch.setattr(nl, "forward", lambda *args, **options: pytest.fail("worked in vain"))
    refusal("--model", write_folder(tmp_path / "model", HF), "--trace", file)


def test_chat_longer_than_the_context(tmp_path, refusal, monkeypatch, capfd):
    """The turns before and after are answered; the one that does not fit is refused."""
    folder = write_folder(tmp_path / "model", HF)
    with (tmp_path / "input.txt").open("w") as file:
        file.write("hi\n" + "king " * 99 + "\nho\n")
    with open("input.txt") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert nl.main(["--model", str(folder), "--chat", "-n", "3"]) == 2
    out, err = capfd.readouterr()
    assert out.count("\n") == 2 and re.fullmatch("error: .*context of 64.*\n", err)


# ---- Token ids, which only Python can get wrong ------------------------------------------------------------------

@pytest.mark.parametrize("tokens, word", [([1, -1], "-1"), ([1, 320], "320"), ([], "at least one"), ([1.0], "float64"),
                                          ([[1]], r"\(1, 1\)"), ([2**40], str(2**40))])
def test_token_ids(tokens, word, tmp_path):
    weights, config = nl.load(write_folder(tmp_path / "model", HF))
    for call in (lambda: nl.forward(tokens, weights, config), lambda: list(nl.generate(tokens, weights, config, 1)),
                 lambda: nl.perplexity(tokens, weights, config)):
        with pytest.raises(nl.InputError, match=word):
            call()


def test_cache_that_is_full(tmp_path):
    weights, config = nl.load(write_folder(tmp_path / "model", HF))
    cache = [nl.KVCache(config, 4) for _ in range(config.n_layers)]
    nl.forward([1, 5, 6], weights, config, cache)
    with pytest.raises(nl.InputError, match="5 .*4"):
        nl.forward([7, 8], weights, config, cache)
    assert cache[0].length == 3                               # nothing was changed


# ---- What looks hostile and is fine -------------------------------------------------------------------------------

FINE = {
    "config in UTF-16": config_text(json.dumps(CONFIG).encode("utf-16")),           # json.loads tells by itself
    "config with a byte order mark": config_text(json.dumps(CONFIG).encode("utf-8-sig")),
    "config with a key twice": config_text('{"hidden_size": 99, ' + json.dumps(CONFIG)[1:]),      # the last one counts
    "config with null": config(rope_scaling=None, sliding_window=None, head_dim=None, quantization_config=None),
    "weights behind a link": HF | {"model.safetensors": lambda path: path.symlink_to("../elsewhere.safetensors")},
    "old rotary tables": tensors(**{"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(2)}),
    "index beside one file": HF | {"model.safetensors.index.json": b"{"},            # as in transformers, unread
    "metadata": header(lambda h: h.update(__metadata__={"format": "pt"})),
    "several ends": config(eos_token_id=[2, 300]),
    "end of another kind": config(eos_token_id="</s>"),
    "transformers 5": config(rope_theta=..., rope_parameters={"rope_theta": 10000.0, "rope_type": "default"}),
    "shards": SHARDS,
    "Meta": META,
}


@pytest.mark.parametrize("name", FINE)
def test_fine(name, tmp_path, capfd):
    """The plain folder's story, but for ends that stop it sooner."""
    (tmp_path / "elsewhere.safetensors").write_bytes(GOOD)
    texts = []
    for files in (HF, FINE[name]):
        folder = write_folder(tmp_path / f"model{len(texts)}", files)
        assert nl.main(["Once", "--model", str(folder), "-n", "9", "--seed", "1"]) == 0
        texts.append(capfd.readouterr().out)
    assert texts[0] == texts[1] and len(texts[0]) > 9


def test_unigram_tokenizer_is_fine(tmp_path):
    """Llama's is BPE, but SentencePiece does the work, whatever the kind."""
    import sentencepiece
    model = ck.sentencepiece_model("unigram", 300)
    (tmp_path / "tokenizer.model").write_bytes(model)
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert nl.Tokenizer(tmp_path / "tokenizer.model").encode(ck.TEXT) == [1] + sp.encode(ck.TEXT)


# ---- The process -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("argv", [["--model", "nowhere"], ["--top-p", "2"], ["--model", "model", "--info"],
                                  ["--model", "model"], ["--model", "model", "--trace", "run.npz"]])
def test_process(argv, tmp_path):
    """The same through a real process, with warnings as errors."""
    write_folder(tmp_path / "model", config(rope_scaling={"type": "linear", "factor": 2.0}))
    done = subprocess.run([sys.executable, "-W", "error", ROOT / "numpy_llama.py", *argv], cwd=tmp_path,
                          capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch("error: .*\n", done.stderr), done.stderr


MEMORY = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy_llama as nl
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
nl.main(["--model", "good", "-n", "1"])
before = peak()
for folder in sys.argv[2:]:
    for mode in (["-n", "1"], ["--info"], ["--trace", "run.npz"], ["--chat"]):
        assert nl.main(["--model", folder, *mode]) == 2
print(peak() - before)
"""


def test_claims_allocate_nothing(tmp_path):
    """Sizes that are only claimed, of 2^31 and more, take no memory: 16 MiB is what small things may take."""
    claims = ["header of 2^62 bytes", "offsets past the end", "shape overflows", "vocabulary of 2^31",
              "a million layers", "hidden_size = 1" + 30 * "0"]
    folders = [write_folder(tmp_path / f"claim{i}", FOLDERS[name][0]) for i, name in enumerate(claims)]
    write_folder(tmp_path / "good", HF)
    done = subprocess.run([sys.executable, "-c", MEMORY, ROOT, *folders], cwd=tmp_path, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 16
