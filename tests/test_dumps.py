"""Dumps as they come: names, layouts and files of other code go in as they are, and are called right.

Oracles: PyTorch's own modules and savers, transformers' debugger, a Llama written with Meta's names, NumPy's writers;
where a tool cannot be installed here, names and layouts are written out by hand over PyTorch's traces.
"""
import json
import math
import re
import types

import compare
import numpy as np
import pytest
import torch
import transformers
from bugs import BUGS, Run, compute
from make_reference import REFERENCE
from safetensors.numpy import load_file, save_file

import numpy_llama as nl

README = (REFERENCE / "README.md").read_text(encoding="utf-8")
CASES = json.loads((REFERENCE / "cases.json").read_text())["cases"]
CASE = "gqa-float32/prompt"
H, G, T, D_HEAD = 4, 2, 12, 8
BUG = {bug.name: bug for bug in BUGS}


@pytest.fixture(scope="module")
def trace():
    return load_file(REFERENCE / CASES[CASE]["trace"])


@pytest.fixture
def cli(tmp_path, capsys):
    """Compare a dump, or a dictionary that is saved first: (exit status, output, errors)."""
    def call(dump, *options):
        if isinstance(dump, dict):
            np.savez(tmp_path / "dump.npz", **dump)
            dump = tmp_path / "dump.npz"
        status = compare.main([str(dump), *(map(str, options) if options else ("--reference", CASE))])
        out, err = capsys.readouterr()
        return status, " ".join(out.split()), err

    return call


def agree(result, count):
    status, out, err = result
    assert status == 0, out + err
    assert f"All {count} tensors agree" in out, out
    return out


def code(language, start):
    """The block of code of the README that contains this text."""
    blocks = [block for block in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if start in block]
    assert len(blocks) == 1
    return blocks[0]


def merged(x):
    return nl.merge_heads(x)


# ---- Layouts ---------------------------------------------------------------------------------------------------

def test_one_position_is_the_last(trace, cli):
    """Flat (H d,), as a C program has it, with no word of which position: run again as --chunks 11,1."""
    tokens = ",".join(map(str, CASES[CASE]["tokens"]))
    model = REFERENCE / CASES[CASE]["checkpoint"]
    last = {name: x[..., -1, :].ravel() for name, x in trace.items()}
    out = agree(cli(last, "--model", model, "--tokens", tokens), len(trace))
    assert "as --chunks 11,1 does" in out
    agree(cli(last), len(trace))                          # a case brings its chunks
    wrong = last | {"layers.1.attn.v": last["layers.1.attn.v"] + 0.1}
    assert "layers.1.attn.v is the first tensor that differs. At position 11" in cli(
        wrong, "--model", model, "--tokens", tokens)[1]


@pytest.mark.parametrize("ones", [1, 2, 3])
def test_leading_axes_of_one(ones, trace, cli):
    out = agree(cli({name: x[(None,) * ones] for name, x in trace.items()}), len(trace))
    assert ("batch axis" if ones == 1 else f"{ones} leading axes of 1") in out.lower()


def test_buffers_that_are_longer_than_what_is_in_them(trace, cli):
    """Rows, columns and flat buffers for the whole context: the end is zeros, and left out."""
    def longer(x, axis, by=20):
        return np.concatenate([x, np.zeros([by if i == axis else n for i, n in enumerate(x.shape)], x.dtype)], axis)

    norm, k, probs = (trace[name] for name in ("norm", "layers.0.attn.k", "layers.1.attn.probs"))
    out = agree(cli({"norm": longer(norm, 0), "layers.0.attn.k": longer(merged(k).ravel(), 0, 48),
                     "layers.0.ffn.up": longer(trace["layers.0.ffn.up"].ravel(), 0),
                     "layers.1.attn.probs": longer(probs, 2)}), 4)
    assert "Zeros at the end left out: 3 tensors" in out and "columns beyond the last key left out" in out.lower()
    stale = longer(norm, 0) + np.float32(1)               # what follows is no zeros: another shape, and not guessed at
    assert cli({"norm": stale})[0] == 2
    scores = longer(trace["layers.1.attn.scores"], 2)
    scores[..., T:] = -np.inf
    agree(cli({"layers.1.attn.scores": scores, "layers.0.attn.probs": longer(trace["layers.0.attn.probs"], 2).ravel()}),
          2)


def test_key_heads_repeated_after_positions(trace, cli):
    agree(cli({"layers.0.attn.k_rope": np.repeat(trace["layers.0.attn.k_rope"], H // G, 0).swapaxes(0, 1)[None]}), 1)


# ---- Names -----------------------------------------------------------------------------------------------------

def test_unknown_names_are_listed_and_left_out(trace, cli):
    extra = {"rope.cos": np.ones((T, 4)), "layers.0.attn.qrope": trace["norm"], "layers.7.x_ffn": trace["norm"],
             "layers.0.attention.mask": np.zeros((T, T)), "step": np.int64(3)}
    out = agree(cli({"norm": trace["norm"]} | extra), 1)
    assert "Left out, as no tensors of the trace: rope.cos, layers.0.attention.mask, step." in out
    assert "layers.0.attn.qrope is not a name of the trace; did you mean 'layers.0.attn.q_rope'?" in out
    assert "layers.7.x_ffn is of layer 7, the model's last is layer 1" in out
    status, _, err = cli(extra)
    assert status == 2 and "no tensor that can be compared" in err


def test_ids_in_a_dump(trace, cli, fairytales):
    weights, config = fairytales
    tokens = (1, 50, 60, 70)
    dump = compute(Run(tokens, weights, config)) | {"input_ids": np.array([tokens])}
    out = agree(cli(dump, "--dtype", "float32"), len(dump) - 1)
    assert "The dump holds its own token ids, 1,50,60,70: compared with these." in out
    assert "the first 4, 1,50,60,70" in cli(dump, "--tokens", "1,50,60,70,80")[1]
    status, out, _ = cli(dump, "--tokens", "1,50,61,70")
    assert status == 1 and "The dump's own token ids are 1,50,60,70, not those it is compared with" in out


def test_inner_and_outer_names(trace, cli):
    """What stands under two names is compared once; where they differ, the outer one is said to."""
    inner, outer = "layers.0.attention.wo", "layers.0.attention"
    out = trace["layers.0.attn.out"]
    assert "is not" not in agree(cli({inner: out, outer: out}), 1)
    assert f"{outer} is not {inner}, which is compared" in agree(cli({outer: out + np.float32(0.25), inner: out}), 1)
    status, text, _ = cli({inner: out + np.float32(0.25), outer: out})
    assert status == 1 and "layers.0.attn.out is the first tensor that differs" in text


# ---- PyTorch's own: hooks, savers, the debugger ------------------------------------------------------------------

class MetasNorm(torch.nn.Module):
    def __init__(self, weight, eps):
        super().__init__()
        self.weight, self.eps = torch.nn.Parameter(weight), eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def linear(w):
    layer = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
    layer.weight = torch.nn.Parameter(w)
    return layer


class MetasAttention(torch.nn.Module):
    def __init__(self, w, prefix, head_dim, theta):
        super().__init__()
        self.wq, self.wk, self.wv, self.wo = (linear(w[f"{prefix}.w{x}.weight"]) for x in "qkvo")
        self.head_dim, self.theta = head_dim, theta

    def forward(self, x):
        n, d = x.shape[1], self.head_dim
        q, k, v = (f(x).view(1, n, -1, d) for f in (self.wq, self.wk, self.wv))
        turn = torch.outer(torch.arange(n), 1 / self.theta ** (torch.arange(0, d, 2) / d))
        turn = torch.polar(torch.ones_like(turn), turn)[None, :, None]
        q, k = (torch.view_as_real(torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * turn).flatten(3)
                for x in (q, k))
        k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], 2) for x in (k, v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(d)
        scores = scores + torch.full((n, n), -torch.inf).triu(1)
        return self.wo(torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).reshape(1, n, -1))


class MetasFeedForward(torch.nn.Module):
    def __init__(self, w, prefix):
        super().__init__()
        self.w1, self.w2, self.w3 = (linear(w[f"{prefix}.w{i}.weight"]) for i in (1, 2, 3))

    def forward(self, x):
        return self.w2(torch.nn.functional.silu(self.w1(x)) * self.w3(x))


class MetasBlock(torch.nn.Module):
    def __init__(self, w, prefix, config):
        super().__init__()
        self.attention = MetasAttention(w, f"{prefix}.attention", config.head_dim, config.rope_theta)
        self.feed_forward = MetasFeedForward(w, f"{prefix}.feed_forward")
        self.attention_norm = MetasNorm(w[f"{prefix}.attention_norm.weight"], config.norm_eps)
        self.ffn_norm = MetasNorm(w[f"{prefix}.ffn_norm.weight"], config.norm_eps)

    def forward(self, x):
        h = x + self.attention(self.attention_norm(x))
        return h + self.feed_forward(self.ffn_norm(h))


class MetasLlama(torch.nn.Module):
    """A Llama with the names and the order of pairs of Meta's code, from consolidated.00.pth."""

    def __init__(self, w, config):
        super().__init__()
        self.tok_embeddings = torch.nn.Embedding.from_pretrained(w["tok_embeddings.weight"])
        self.layers = torch.nn.ModuleList(MetasBlock(w, f"layers.{i}", config) for i in range(config.n_layers))
        self.norm, self.output = MetasNorm(w["norm.weight"], config.norm_eps), linear(w["output.weight"])

    def forward(self, tokens):
        x = self.tok_embeddings(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.output(self.norm(x))


def recorded(model, tokens, path):
    """What the README's hooks write."""
    namespace = {"torch": torch, "model": model, "tokens": torch.tensor([tokens])}
    exec(code("python", "def record(").replace('"dump.pt"', repr(str(path))), namespace)


@pytest.mark.parametrize("model", ["mha", "gqa", "mqa", "llama2"])
def test_metas_code(model, cli, tmp_path):
    folder = REFERENCE / "checkpoints" / f"{model}-float32-meta"
    _, config = nl.load(folder)
    weights = torch.load(folder / "consolidated.00.pth", weights_only=True)
    recorded(MetasLlama(weights, config), CASES[CASE]["tokens"], tmp_path / "dump.pt")
    out = agree(cli(tmp_path / "dump.pt", "--reference", f"{model}-float32/prompt"), 29)
    assert "In Meta's interleaved order" in out and "layers.0.x_attn" in out and "layers.1.attn.heads" in out
    assert "layers.1.ffn.hidden" in out and " is not " not in out


def test_a_mistake_in_metas_code(cli, tmp_path):
    folder = REFERENCE / "checkpoints" / "gqa-float32-meta"
    _, config = nl.load(folder)
    weights = torch.load(folder / "consolidated.00.pth", weights_only=True)
    model = MetasLlama(weights, config)
    for layer in model.layers:
        layer.attention.theta = 10000.0
    recorded(model, CASES[CASE]["tokens"], tmp_path / "dump.pt")
    status, out, _ = cli(tmp_path / "dump.pt")
    assert status == 1 and "layers.0.attn.heads is the first tensor that differs" in out
    assert "equals what you get when rope_theta is 10,000" in out


def hugging_face():
    return transformers.AutoModelForCausalLM.from_pretrained(REFERENCE / CASES[CASE]["checkpoint"]).eval()


def test_hooks_on_transformers(cli, tmp_path):
    recorded(hugging_face(), CASES[CASE]["tokens"], tmp_path / "dump.pt")
    out = agree(cli(tmp_path / "dump.pt"), 31)
    assert "layers.0.x_attn" in out and "layers.0.ffn.silu" in out and "layers.1.attn.heads" in out


def test_transformers_debugger(cli, tmp_path, monkeypatch):
    """A folder of files with one tensor each, and one of them by itself."""
    monkeypatch.chdir(tmp_path)
    exec(code("python", "model_addition_debugger_context"),
         {"model": hugging_face(), "tokens": torch.tensor([CASES[CASE]["tokens"]])})
    out = agree(cli("debugged"), 31)
    for name in ("embedding", "layers.0.attn.heads", "layers.0.x_attn", "layers.0.ffn.hidden", "layers.0.x_ffn",
                 "logits"):
        assert f" {name} (" in out
    agree(cli("debugged/LlamaForCausalLM.model.layers.0.mlp.down_proj_inputs_args_0.safetensors"), 1)


def test_pt_is_not_unpickled(cli, tmp_path, trace, monkeypatch):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "exploded"), "w")

    torch.save({"norm": torch.from_numpy(trace["norm"]), "bomb": Bomb()}, tmp_path / "bomb.pt")
    status, _, err = cli(tmp_path / "bomb.pt")
    assert status == 2 and err.count("\n") == 1 and not (tmp_path / "exploded").exists()
    nested = {"layers": [{"attn_norm": torch.from_numpy(trace["layers.0.attn_norm"]).bfloat16()}]}
    torch.save(nested, tmp_path / "nested.pt")
    assert "judged as bfloat16" in agree(cli(tmp_path / "nested.pt", "--dtype", "bfloat16", "--reference", CASE), 1)
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    status, _, err = cli(tmp_path / "nested.pt")
    assert status == 2 and "pip install torch" in err


# ---- Files and folders -------------------------------------------------------------------------------------------

def test_npy_by_name_and_folders(trace, cli, tmp_path):
    folder = tmp_path / "dump"
    folder.mkdir()
    names = list(trace)
    for name in names[:6]:
        np.save(folder / f"{name}.npy", trace[name])
    save_file({"data": trace[names[6]]}, folder / f"{names[6]}.safetensors")
    np.savez(folder / "others.npz", **{name: trace[name] for name in names[7:]})
    (folder / "notes.md").write_text("not a dump")
    agree(cli(folder), len(trace))
    agree(cli(folder / f"{names[3]}.npy"), 1)
    (folder / "link.npy").symlink_to(tmp_path / "elsewhere.npy")
    np.save(tmp_path / "elsewhere.npy", trace["norm"])
    status, _, err = cli(folder)
    assert status == 2 and "points outside the folder" in err
    (tmp_path / "empty").mkdir()
    assert cli(tmp_path / "empty")[0] == 2
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert cli(tmp_path / "pickled.npy")[0] == 2


def written(tensors):
    """A safetensors file that may have a name twice: [(name, array)]."""
    header, data = [], b""
    for name, x in tensors:
        place = [len(data), len(data) + 4 * x.size]
        header.append(f'"{name}":{{"dtype":"F32","shape":{list(x.shape)},"data_offsets":{place}}}')
        data += np.ascontiguousarray(x, np.float32).tobytes()
    text = ("{" + ",".join(header) + "}").encode()
    return len(text).to_bytes(8, "little") + text + data


def by_token(trace):
    """[(name, position, numbers)]: what a program has that reads a prompt a token at a time."""
    for t in range(T):
        for name, x in trace.items():
            row = x[..., t, :]
            yield name, t, (row[:, :t + 1] if name.endswith(("scores", "probs")) else row).ravel()


@pytest.mark.parametrize("form", ["{}", "{}@{}"])
def test_a_token_at_a_time(form, trace, cli, tmp_path):
    path = tmp_path / "dump.safetensors"
    path.write_bytes(written([(form.format(name, t), x) for name, t, x in by_token(trace)]))
    out = agree(cli(path), len(trace))
    assert ("embedding is there 12 times" in out) == (form == "{}")
    wrong = [(form.format(name, t), x + (name == "layers.1.ffn.up" and t == 7)) for name, t, x in by_token(trace)]
    path.write_bytes(written(wrong))
    status, out, _ = cli(path)
    assert status == 1 and "layers.1.ffn.up is the first tensor that differs. At position 7" in out


def test_duplicate_names_do_not_hide_damage(trace, cli, tmp_path):
    whole = written([("norm", trace["norm"][:1]), ("norm", trace["norm"][1:2])])
    path = tmp_path / "dump.safetensors"
    for size in (len(whole) - 1, len(whole) // 2, 20, 8, 3, 0):
        path.write_bytes(whole[:size])
        status, _, err = cli(path)
        assert status == 2 and err.startswith("error: ") and err.count("\n") == 1
    path.write_bytes(whole.replace(b"[0, 128]", b"[0, 129]"))
    assert cli(path)[0] == 2


# ---- Programs that cannot be installed here ------------------------------------------------------------------------

def meta_order(x):
    return np.stack(np.split(x, 2, axis=-1), axis=-1).reshape(x.shape)


def llama_cpp(trace):
    """[(name, operation, operands, array)] as llama.cpp's graph has them, with queries and keys in Meta's order."""
    yield "embd", "GET_ROWS", "token_embd.weight{32, 72, 1, 1}, inp_tokens{12, 1, 1, 1}", trace["embedding"]
    for i in range(2):
        p = f"layers.{i}."
        yield f"norm-{i}", "RMS_NORM", "embd", trace[p + "attn_norm"] * 2
        yield f"attn_norm-{i}", "MUL", f"norm-{i}", trace[p + "attn_norm"]
        for x, name in (("q", "Qcur"), ("k", "Kcur")):
            plain, turned = (meta_order(trace[f"{p}attn.{x}{r}"]) for r in ("", "_rope"))
            yield f"{name}-{i}", "MUL_MAT", f"blk.{i}.attn_{x}.weight", merged(plain)
            yield f"{name}-{i} (reshaped)", "RESHAPE", f"{name}-{i}", plain.swapaxes(0, 1)
            yield f"{name}-{i}", "ROPE", f"{name}-{i} (reshaped)", turned.swapaxes(0, 1)
        yield f"Vcur-{i}", "MUL_MAT", f"blk.{i}.attn_v.weight", merged(trace[p + "attn.v"])
        yield f"kq-{i}", "MUL_MAT", f"k-{i}", np.nan_to_num(trace[p + "attn.scores"], neginf=0)
        padded = np.zeros((H, T, 32), np.float32)
        padded[..., :T] = trace[p + "attn.probs"]
        yield f"kq_soft_max-{i}", "SOFT_MAX", f"kq-{i}", padded
        yield f"kqv-{i}", "MUL_MAT", f"v-{i}", trace[p + "attn.heads"]
        yield f"kqv_out-{i}", "CONT", f"kqv-{i}", merged(trace[p + "attn.heads"])
        yield f"attn_out-{i}", "MUL_MAT", f"blk.{i}.attn_output.weight", trace[p + "attn.out"]
        yield f"ffn_inp-{i}", "ADD", f"attn_out-{i}", trace[p + "x_attn"]
        yield f"ffn_norm-{i}", "MUL", f"norm-{i}", trace[p + "ffn_norm"]
        yield f"ffn_gate-{i}", "MUL_MAT", f"blk.{i}.ffn_gate.weight", trace[p + "ffn.gate"]
        yield f"ffn_up-{i}", "MUL_MAT", f"blk.{i}.ffn_up.weight", trace[p + "ffn.up"]
        yield f"ffn_swiglu-{i}", "GLU", f"ffn_gate-{i}", trace[p + "ffn.hidden"]
        yield f"ffn_out-{i}", "MUL_MAT", f"blk.{i}.ffn_down.weight", trace[p + "ffn.out"]
        yield f"l_out-{i}", "ADD", f"ffn_out-{i}", trace[p + "x_ffn"]
    yield "norm", "RMS_NORM", "l_out-1", trace["norm"] * 2
    yield "result_norm", "MUL", "norm", trace["norm"]
    yield "node_99", "MUL_MAT", "output.weight{32, 72, 1, 1}, result_norm{32, 12, 1, 1}", trace["logits"]


def log(tensors, prefix, decimals=4, old=False):
    """What the eval-callback prints: three values at either end of each axis, and the sum of all.

    Old ones end a row after three values, and add up no more than they print.
    """
    lines = ["llama_context: n_ctx = 512", "  [not a tensor]"]

    def axis(n):
        some = [0, 1, 2, None] if old else [0, 1, 2, None, n - 3, n - 2, n - 1]
        return list(range(n)) if n <= 6 else some

    for name, operation, operands, x in tensors:
        x = x.reshape((1,) * (3 - x.ndim) + x.shape)
        sizes = ", ".join(map(str, (*x.shape[::-1], 1)))
        lines.append(f"{prefix}: {name:>24} = (f32) {operation:>10}({operands}}}) = {{{sizes}}}")
        lines.append("    [")
        for plane in axis(x.shape[0]):
            lines.append("        [" if plane is not None else "        ...,")
            for row in axis(x.shape[1]) if plane is not None else ():
                numbers = ["..." if i is None else f"{x[plane, row, i]:12.{decimals}f}"
                           for i in axis(x.shape[2])] if row is not None else []
                lines.append(f"            [{', '.join(numbers)} ]," if numbers else "            ..., ")
            if plane is not None:
                lines.append("        ],")
        printed = x[np.ix_(*([i for i in axis(n) if i is not None] for n in x.shape))]
        lines += ["    ]", f"    sum = {(printed if old else x).sum(dtype=np.float64):.6f}"]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("prefix", ["ggml_debug", "0.00.512.345 D common_debug_cb_eval"])
def test_llama_cpps_log(prefix, trace, cli, tmp_path):
    path = tmp_path / "run.log"
    path.write_text(log(llama_cpp(trace), prefix, old=True))
    agree(cli(path), 35)
    path.write_text(log(llama_cpp(trace), prefix))
    out = agree(cli(path), 35)
    assert "In Meta's interleaved order" in out and "to four decimals" in out
    for name in ("layers.1.attn.q_rope", "layers.0.attn.probs", "norm", "logits"):
        assert f" {name} (" in out
    weights, config = nl.load(REFERENCE / CASES[CASE]["checkpoint"])
    run = Run(tuple(CASES[CASE]["tokens"]), weights, config, (T,))
    path.write_text(log(llama_cpp(compute(run, BUG["gelu"])), prefix))
    status, out, _ = cli(path)
    assert status == 1 and "GELU" in out
    path.write_text(log(llama_cpp(compute(run, BUG["eps-omitted"])), prefix, decimals=1))
    assert cli(path)[0] in (0, 1)                         # one decimal tells little, and stops nothing
    whole = log(llama_cpp(trace), prefix)
    path.write_text(whole[:len(whole) // 2])
    status, out, err = cli(path)
    assert status in (0, 2) and "Traceback" not in err


def test_a_log_in_which_only_the_sum_differs(trace, cli, tmp_path):
    """Numbers that the log leaves out are seen by their sum."""
    x = trace["layers.0.ffn.up"].copy()
    x[4:8, 10:30] += 1
    path = tmp_path / "run.log"
    path.write_text(log([("ffn_up-0", "MUL_MAT", "w", x)], "ggml_debug"))
    status, out, _ = cli(path)
    assert status == 1 and "The sum over all numbers is" in out


def numbered(tensors):
    """Names that come again get a number, as in {name: array}."""
    found = {}
    for name, _, _, x in tensors:
        times = sum(re.sub(r"#\d+$", "", other) == name for other in found)
        found[name if not times else f"{name}#{times + 1}"] = x.reshape((1,) * (4 - x.ndim) + x.shape)
    return found


def test_llama_cpps_names(trace, cli):
    found = {name: x for name, x in numbered(llama_cpp(trace)).items() if name != "node_99"}
    out = agree(cli(found | {"result_output": trace["logits"]}), 35)
    assert "layers.1.attn.k_rope" in out
    assert "Left out, as no tensors of the trace: norm-0, kq-0, norm-1, kq-1, norm." in out


def sglang(trace):
    """Fused products, residual sums inside the norms, heads side by side."""
    found = {"model.embed_tokens": trace["embedding"]}
    for i in range(2):
        p, m = f"layers.{i}.", f"model.layers.{i}."
        before = trace[f"layers.{i - 1}.x_ffn"] if i else trace["embedding"]
        q, k, v, q_rope, k_rope, heads = (merged(trace[f"{p}attn.{x}"]) for x in
                                          ("q", "k", "v", "q_rope", "k_rope", "heads"))
        found |= {m + "input_layernorm.0": trace[p + "attn_norm"], m + "input_layernorm.1": before,
                  m + "self_attn.qkv_proj": np.concatenate([q, k, v], 1), m + "self_attn.rotary_emb.0": q_rope,
                  m + "self_attn.rotary_emb.1": k_rope, m + "self_attn.attn": heads,
                  m + "self_attn.o_proj": trace[p + "attn.out"],
                  m + "post_attention_layernorm.0": trace[p + "ffn_norm"],
                  m + "post_attention_layernorm.1": trace[p + "x_attn"],
                  m + "mlp.gate_up_proj": np.concatenate([trace[p + "ffn.gate"], trace[p + "ffn.up"]], 1),
                  m + "mlp.act_fn": trace[p + "ffn.hidden"], m + "mlp.down_proj": trace[p + "ffn.out"],
                  f"model.layers.{i}.0": trace[p + "ffn.out"], f"model.layers.{i}.1": trace[p + "x_attn"]}
    return found | {"model.norm.0": trace["norm"], "model.norm.1": trace["layers.1.x_ffn"],
                    "logits_processor": trace["logits"][-1:]}


def mlx(trace):
    """Module names as in transformers; the module that rotates is called for queries, then for keys."""
    found = {"model.embed_tokens": trace["embedding"][None], "model.norm": trace["norm"][None],
             "lm_head": trace["logits"][None]}
    for i in range(2):
        p, m = f"layers.{i}.", f"model.layers.{i}."
        found |= {m + "input_layernorm": trace[p + "attn_norm"][None], m + "mlp.up_proj": trace[p + "ffn.up"][None],
                  m + "self_attn.q_proj": merged(trace[p + "attn.q"])[None],
                  m + "self_attn.rope": trace[p + "attn.q_rope"][None],
                  m + "self_attn.rope#2": trace[p + "attn.k_rope"][None], m[:-1]: trace[p + "x_ffn"][None]}
    return found


def test_the_readmes_lines_for_mlx(trace, cli, tmp_path, monkeypatch):
    """With modules that only have what those lines ask of MLX: named_modules, and a class that is called."""
    class Module:
        def __init__(self, *values):
            self.values = list(values)

        def __call__(self, tokens):
            return self.values.pop(0)

    class Model(Module):
        def named_modules(self):
            return [("", self), *self.parts.items()]

        def __call__(self, tokens):
            for part in (*self.parts.values(), rope):
                part(tokens)

    rope = Module(trace["layers.0.attn.q_rope"], trace["layers.0.attn.k_rope"])
    model = Model()
    model.parts = {"model.embed_tokens": Module(trace["embedding"]), "model.layers.0.self_attn.rope": rope}
    monkeypatch.chdir(tmp_path)
    exec(code("python", "mx.save_safetensors"), {"model": model, "tokens": None, "mx": types.SimpleNamespace(
        array=np.ndarray, save_safetensors=lambda path, found: save_file(found, path))})
    agree(cli("dump.safetensors"), 3)


def tensorrt_llm(trace):
    found = {"transformer.vocab_embedding": trace["embedding"], "transformer.ln_f": trace["norm"],
             "lm_head": trace["logits"]}
    for i in range(2):
        p, m = f"layers.{i}.", f"transformer.layers.{i}."
        qkv = np.concatenate([merged(trace[f"{p}attn.{x}"]) for x in "qkv"], 1)
        found |= {m + "input_layernorm": trace[p + "attn_norm"], m + "attention.qkv": qkv,
                  m + "attention.dense": trace[p + "attn.out"], m + "post_layernorm": trace[p + "ffn_norm"],
                  m + "mlp.fc": trace[p + "ffn.gate"], m + "mlp.gate": trace[p + "ffn.up"],
                  m + "mlp.proj": trace[p + "ffn.out"], m + "mlp_output": trace[p + "ffn.out"]}
    return found


def transformer_lens(trace):
    """(batch, positions, heads, d), and scores and pattern (batch, heads, queries, keys)."""
    found = {"hook_embed": trace["embedding"][None], "logits": trace["logits"][None],
             "ln_final.hook_scale": np.ones((1, T, 1)), "ln_final.hook_normalized": trace["norm"][None] * 3}
    for i in range(2):
        p, m = f"layers.{i}.", f"blocks.{i}."
        hooks = {"q": "q", "k": "k", "v": "v", "rot_q": "q_rope", "rot_k": "k_rope", "z": "heads"}
        for hook, name in hooks.items():
            found[f"{m}attn.hook_{hook}"] = trace[f"{p}attn.{name}"].swapaxes(0, 1)[None]
        found |= {m + "hook_resid_pre": (trace[f"layers.{i - 1}.x_ffn"] if i else trace["embedding"])[None],
                  m + "attn.hook_attn_scores": trace[p + "attn.scores"][None],
                  m + "attn.hook_pattern": trace[p + "attn.probs"][None], m + "ln1.hook_scale": np.ones((1, T, 1)),
                  m + "hook_attn_out": trace[p + "attn.out"][None], m + "hook_resid_mid": trace[p + "x_attn"][None],
                  m + "mlp.hook_pre": trace[p + "ffn.gate"][None], m + "mlp.hook_post": trace[p + "ffn.hidden"][None],
                  m + "mlp.hook_pre_linear": trace[p + "ffn.up"][None],
                  m + "hook_mlp_out": trace[p + "ffn.out"][None], m + "hook_resid_post": trace[p + "x_ffn"][None]}
    return found


def onnx(trace):
    """Nodes of an export, by their outputs' names."""
    found = {"/model/embed_tokens/Gather_output_0": trace["embedding"][None], "logits": trace["logits"][None],
             "/model/norm/Mul_1_output_0": trace["norm"][None], "/model/norm/Mul_output_0": trace["norm"][None] * 2}
    for i in range(2):
        p, m = f"layers.{i}.", f"/model/layers.{i}/"
        for x in "qkv":
            found[f"{m}self_attn/{x}_proj/MatMul_output_0"] = merged(trace[f"{p}attn.{x}"])[None]
        found |= {m + "input_layernorm/Mul_1_output_0": trace[p + "attn_norm"][None],
                  m + "self_attn/Add_output_0": trace[p + "attn.q_rope"][None],
                  m + "self_attn/Add_1_output_0": trace[p + "attn.k_rope"][None],
                  m + "self_attn/Softmax_output_0": trace[p + "attn.probs"][None],
                  m + "self_attn/o_proj/MatMul_output_0": trace[p + "attn.out"][None],
                  m + "Add_output_0": trace[p + "x_attn"][None], m + "Add_1_output_0": trace[p + "x_ffn"][None],
                  m + "post_attention_layernorm/Mul_1_output_0": trace[p + "ffn_norm"][None],
                  m + "mlp/gate_proj/MatMul_output_0": trace[p + "ffn.gate"][None],
                  m + "mlp/act_fn/Mul_output_0": trace[p + "ffn.silu"][None],
                  m + "mlp/up_proj/MatMul_output_0": trace[p + "ffn.up"][None],
                  m + "mlp/Mul_output_0": trace[p + "ffn.hidden"][None],
                  m + "mlp/down_proj/MatMul_output_0": trace[p + "ffn.out"][None]}
    return found


@pytest.mark.parametrize("program, count", [(sglang, 33), (mlx, 15), (tensorrt_llm, 21), (transformer_lens, 32),
                                            (onnx, 35)])
def test_names_of_other_programs(program, count, trace, cli):
    found = program(trace)
    out = agree(cli(found), count)
    assert " is not " not in out                          # no two names stand for one tensor by mistake
    wrong = {name: (x + np.float32(0.5) if name.endswith(("mlp.down_proj", "up_proj", "mlp.proj", "mlp.hook_post",
                                                          "up_proj/MatMul_output_0")) else x)
             for name, x in found.items()}
    assert cli(wrong)[0] == 1


def test_the_readme_shows_every_program():
    for program in ("PyTorch", "transformers", "llama.cpp", "MLX", "TransformerLens", "TensorRT-LLM", "ONNX", "SGLang",
                    "NumPy", "C", "Rust", "JavaScript"):
        assert re.search(rf"^### .*\b{re.escape(program)}(\W|$)", README, re.MULTILINE), program
    for snippet in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        compile(snippet, "README.md", "exec")
