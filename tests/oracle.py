"""The other side of every comparison: transformers' LlamaForCausalLM, with its intermediates under our names.

Every number comes from the library's own lines: hooks on its modules give most tensors, and what has no module of its
own (rotation, scores, softmax) is read off as it passes through the library's own functions.
"""
import copy
import json
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import torch
from bugs import names_of
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

import numpy_llama as nl

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def random_llama(config, seed=0, tied=False):
    """A float32 model whose queries, keys, gates and scores are of order one, so that every step matters."""
    model = LlamaForCausalLM(LlamaConfig(
        hidden_size=config.dim, num_hidden_layers=config.n_layers, num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads, intermediate_size=config.hidden_dim, vocab_size=config.vocab_size,
        max_position_embeddings=config.max_seq_len, rms_norm_eps=config.norm_eps, head_dim=config.head_dim,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta}, tie_word_embeddings=tied,
        bos_token_id=1, eos_token_id=2, attn_implementation="eager")).eval()
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        if p.dim() == 2:
            torch.nn.init.normal_(p, std=p.shape[1] ** -0.5, generator=generator)
        else:
            torch.nn.init.uniform_(p, 0.5, 1.5, generator=generator)
    return model


class Wide:
    """PyTorch under another meaning of float32: the library computes norms, softmax and angles in "float32"."""
    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@contextmanager
def precision_of(model):
    """Let the library's own lines run in float64 for a float64 model; nothing changes for any other."""
    if model.dtype != torch.float64:
        yield
    else:
        with patch.object(modeling_llama, "torch", Wide()):
            yield


def double(model):
    """The same weights in float64, rotary frequencies included: what float32 would give without rounding."""
    model = copy.deepcopy(model).double()
    with precision_of(model):
        model.model.rotary_emb = modeling_llama.LlamaRotaryEmbedding(model.config)
    return model


@torch.no_grad()
def torch_logits(model, tokens, cache=None):
    """Logits (T, V) of transformers; a DynamicCache is continued."""
    with precision_of(model):
        output = model(torch.as_tensor(np.asarray(tokens))[None], None, None, cache, use_cache=cache is not None)
    return output.logits[0].numpy()


def torch_trace(model, tokens, cache=None):
    """Every trace name of one run of transformers, as arrays of our shapes; a DynamicCache is continued."""
    trace, passing, head_dim = {}, {}, model.config.head_dim

    def array(x):
        x = x.detach()[0]
        return x.clone().numpy() if x.dtype in (torch.float32, torch.float64) else x.float().numpy()

    def split(x):
        return np.ascontiguousarray(array(x).reshape(x.shape[1], -1, head_dim).swapaxes(0, 1))

    def output(name, form=array):
        return lambda module, args, result: trace.__setitem__(
            name, form(result[0] if isinstance(result, tuple) else result))

    def input_of(name):
        return lambda module, args: trace.__setitem__(name, array(args[0]))

    def attention_output(prefix):
        def hook(module, args, result):
            trace.update({prefix + name: array(x) for name, x in passing.items()})
            trace[prefix + "out"] = array(result[0])
        return hook

    rotate, softmax, attend = (modeling_llama.apply_rotary_pos_emb, torch.nn.functional.softmax,
                               modeling_llama.eager_attention_forward)

    def seen_rotate(*args, **options):
        passing["q_rope"], passing["k_rope"] = rotate(*args, **options)
        return passing["q_rope"], passing["k_rope"]

    def seen_softmax(x, dim, dtype=None):
        # The library masks by adding the most negative number of the dtype; we say what it means: -inf.
        passing["scores"] = torch.where(x < torch.finfo(x.dtype).min / 2, -torch.inf, x)
        passing["probs"] = softmax(x, dim=dim, dtype=dtype)
        return passing["probs"]

    def seen_attend(*args, **options):
        mixed, probs = attend(*args, **options)
        passing["heads"] = mixed.transpose(1, 2)
        return mixed, probs

    inner, hooks = model.model, []
    hooks.append(inner.embed_tokens.register_forward_hook(output("embedding")))
    for i, layer in enumerate(inner.layers):
        prefix, attn, mlp = f"layers.{i}.", layer.self_attn, layer.mlp
        for module, name, form in (
                (layer.input_layernorm, "attn_norm", array), (attn.q_proj, "attn.q", split),
                (attn.k_proj, "attn.k", split), (attn.v_proj, "attn.v", split),
                (layer.post_attention_layernorm, "ffn_norm", array), (mlp.gate_proj, "ffn.gate", array),
                (mlp.act_fn, "ffn.silu", array), (mlp.up_proj, "ffn.up", array), (mlp.down_proj, "ffn.out", array),
                (layer, "x_ffn", array)):
            hooks.append(module.register_forward_hook(output(prefix + name, form)))
        hooks.append(attn.register_forward_hook(attention_output(prefix + "attn.")))
        hooks.append(layer.post_attention_layernorm.register_forward_pre_hook(input_of(prefix + "x_attn")))
        hooks.append(mlp.down_proj.register_forward_pre_hook(input_of(prefix + "ffn.hidden")))
    hooks.append(inner.norm.register_forward_hook(output("norm")))
    hooks.append(model.lm_head.register_forward_hook(output("logits")))
    try:
        with patch.object(modeling_llama, "apply_rotary_pos_emb", seen_rotate), \
                patch.object(modeling_llama, "eager_attention_forward", seen_attend), \
                patch.object(torch.nn.functional, "softmax", seen_softmax):
            torch_logits(model, tokens, cache)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: trace[name] for name in names_of(model.config.num_hidden_layers)}


def weights_from(model):
    """(weights, config) of numpy_llama, straight from the parameters, in their dtype."""
    c, state = model.config, {name: p.detach().numpy() for name, p in model.state_dict().items()}

    def matrix(name):
        return np.ascontiguousarray(state[name + ".weight"].T)

    layers = []
    for i in range(c.num_hidden_layers):
        prefix = f"model.layers.{i}."
        layers.append({
            "attn_norm": state[prefix + "input_layernorm.weight"],
            "attn": {"w" + x: matrix(f"{prefix}self_attn.{x}_proj") for x in "qkvo"},
            "ffn_norm": state[prefix + "post_attention_layernorm.weight"],
            "ffn": {x: matrix(f"{prefix}mlp.{x}_proj") for x in ("gate", "up", "down")}})
    weights = {"embedding": state["model.embed_tokens.weight"], "layers": layers, "norm": state["model.norm.weight"],
               "output": matrix("lm_head")}
    return weights, nl.Config(
        c.hidden_size, c.num_hidden_layers, c.num_attention_heads, c.num_key_value_heads, c.intermediate_size,
        c.vocab_size, c.max_position_embeddings, c.rms_norm_eps, c.rope_parameters["rope_theta"], c.head_dim)


def save_hf(model, folder, dtype="float32", max_shard_size="5GB"):
    """The model as a Hugging Face folder, in one file or in shards with an index."""
    copy.deepcopy(model).to(DTYPES[dtype]).save_pretrained(folder, max_shard_size=max_shard_size)


def save_meta(model, folder, dtype="float32"):
    """The same weights in Meta's layout: params.json, Meta's names, and neighbours as pairs in wq and wk."""
    c, state = model.config, model.state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps({
        "dim": c.hidden_size, "n_layers": c.num_hidden_layers, "n_heads": c.num_attention_heads,
        "n_kv_heads": c.num_key_value_heads, "hidden_dim": c.intermediate_size, "multiple_of": 256, "vocab_size": -1,
        "norm_eps": c.rms_norm_eps, "rope_theta": c.rope_parameters["rope_theta"], "head_dim": c.head_dim,
        "max_seq_len": c.max_position_embeddings}))

    def neighbours(w):
        """Row i and row i + d/2 of a head become rows 2i and 2i + 1."""
        half = c.head_dim // 2
        return w[[head + i + part * half
                  for head in range(0, len(w), c.head_dim) for i in range(half) for part in (0, 1)]]

    names = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"}
    for i in range(c.num_hidden_layers):
        theirs, meta = f"model.layers.{i}.", f"layers.{i}."
        names |= {theirs + "input_layernorm": meta + "attention_norm",
                  theirs + "post_attention_layernorm": meta + "ffn_norm",
                  theirs + "mlp.gate_proj": meta + "feed_forward.w1",
                  theirs + "mlp.down_proj": meta + "feed_forward.w2",
                  theirs + "mlp.up_proj": meta + "feed_forward.w3"}
        names |= {f"{theirs}self_attn.{x}_proj": f"{meta}attention.w{x}" for x in "qkvo"}
    tensors = {}
    for name, meta in names.items():
        w = state[name + ".weight"].to(DTYPES[dtype])
        tensors[meta + ".weight"] = (neighbours(w) if meta.endswith((".wq", ".wk")) else w).clone()
    tensors["rope.freqs"] = torch.zeros(c.head_dim // 2)   # Meta's files carry a table, which must not be used
    save_file(tensors, folder / "consolidated.safetensors")
