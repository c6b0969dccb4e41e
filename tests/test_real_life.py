"""What people really have: folders, texts and terminals from public threads, each of which once went wrong.

Every row is tried as a user meets it, by the command line or by `load`; logits are held against transformers.
"""
import io
import json
import os
import re
import subprocess
import sys

import checkpoints as ck
import numpy as np
import pytest
import torch
import transformers
from conftest import ROOT

import numpy_llama as nl

SCRIPT = ROOT / "numpy_llama.py"
TOKENS = [1, 5, 300, 7, 9]
KING = "king"


@pytest.fixture
def run(monkeypatch, capsys):
    """A function from arguments to (status, standard output, standard error) of main()."""
    def run(*argv, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        status = nl.main([str(arg) for arg in argv])
        return (status, *capsys.readouterr())

    return run


def process(*argv, shell=None, **options):
    """The command line in a process of its own, or a shell's line in which $RUN stands for it."""
    command = shell or [sys.executable, str(SCRIPT), *map(str, argv)]
    env = os.environ | {"RUN": f"{sys.executable} {SCRIPT}"} | options.pop("env", {})
    return subprocess.run(command, shell=bool(shell), capture_output=True, env=env, timeout=120, **options)


# ---- Model folders -----------------------------------------------------------------------------------------------

def folder_of(tmp_path, drop=(), files=None, **config):
    """A folder of the small model with some keys of its config dropped or added."""
    made = files or ck.hugging_face()
    kept = {key: value for key, value in (made["config.json"] | config).items() if key not in drop}
    return ck.write_folder(tmp_path, made | {"config.json": kept})


def only_output():
    """A tied model as safetensors' save_model leaves it: of two names for one tensor, lm_head.weight."""
    tensors = ck.random_tensors(ck.CONFIG | {"tie_word_embeddings": True})
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    return ck.hugging_face(tensors, tie_word_embeddings=True)


FOLDERS = {         # name: (what is written, the context that transformers takes)
    "early 2023": (lambda path: folder_of(path, ["max_position_embeddings"], architectures=["LLaMAForCausalLM"],
                                          max_sequence_length=2048), 2048),
    "no context": (lambda path: folder_of(path, ["max_position_embeddings"]), 2048),
    "tied, only the output": (lambda path: folder_of(path, files=only_output()), 64),
    "tied, only the embedding": (lambda path: ck.write_folder(path, ck.hugging_face(
        ck.random_tensors(ck.CONFIG | {"tie_word_embeddings": True}), tie_word_embeddings=True)), 64),
    "a pickle beside it": (lambda path: ck.write_folder(path, ck.hugging_face() | {"pytorch_model.bin": b"PK"}), 64),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_loads_as_transformers_loads_it(name, tmp_path):
    write, context = FOLDERS[name]
    folder = write(tmp_path)
    weights, config = nl.load(folder)
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    assert config.max_seq_len == model.config.max_position_embeddings == context
    with torch.no_grad():
        theirs = model(torch.tensor([TOKENS])).logits[0].numpy()
    # As in test_parity: the bound that a port has to meet.
    np.testing.assert_allclose(nl.forward(TOKENS, weights, config), theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


def test_files_of_macos_are_skipped(tmp_path):
    plain = nl.load(ck.write_folder(tmp_path / "plain", ck.meta()))[0]
    beside, _ = nl.load(ck.write_folder(tmp_path / "copied", ck.meta() | {"._consolidated.safetensors": b"\0\5\x16\7"}))
    np.testing.assert_array_equal(beside["output"], plain["output"])


def test_meta_states_no_context(tmp_path, run):
    """2,048 are taken, whatever eps is, and said once; --context and max_seq_len set another."""
    for eps in (1e-5, 1e-6):
        folder = ck.write_folder(tmp_path / str(eps), ck.meta(norm_eps=eps))
        assert nl.load(folder)[1].max_seq_len == 2048
        assert nl.load(folder, max_seq_len=4096)[1].max_seq_len == 4096
    status, _, err = run("Once", "--model", folder, "-n", 2)
    assert status == 0 and err.count("2048") == 1 and "--context" in err
    status, out, err = run("--model", folder, "--info")
    assert status == 0 and re.search(r"max_seq_len +2048 +assumed", out) and err == ""
    status, out, err = run("--model", folder, "--info", "--context", 4096)
    assert status == 0 and re.search(r"max_seq_len +4096\n", out)
    _, _, err = run("Once", "--model", folder, "-n", 2, "--context", 4096)
    assert "assumed" not in err


def test_context_option_of_any_folder(tmp_path, run):
    """The early Llama 2 configs say 2,048 where the model has 4,096."""
    folder = ck.write_folder(tmp_path, ck.hugging_face())
    long = "king " * 99
    status, out, err = run(long, "--model", folder, "-n", 2)
    assert (status, out) == (2, "") and "context of 64" in err
    assert run(long, "--model", folder, "-n", 2, "--context", 1000)[0] == 0
    status, _, err = run("--model", folder, "--context", 0)
    assert status == 2 and "--context must be a positive integer, not 0" in err


def test_a_tied_model_that_stores_both_is_counted_once(tmp_path, run):
    tensors = ck.random_tensors(ck.CONFIG)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    folder = ck.write_folder(tmp_path, ck.hugging_face(tensors, tie_word_embeddings=True))
    n = sum(x.size for x in tensors.values()) - tensors["lm_head.weight"].size
    assert f"{n:,} parameters, output tied to embedding" in run("--model", folder, "--info")[1]


def test_65b_has_the_eps_of_llama_2():
    assert [nl.PRESETS[f"llama-1-{size}"].norm_eps for size in ("7b", "13b", "33b", "65b")] == [1e-6, 1e-6, 1e-6, 1e-5]


# ---- A tokenizer smaller than the embedding --------------------------------------------------------------------------

def padded(tmp_path, likely, **files):
    """An embedding with more rows than the tokenizer has pieces, one of them always the likeliest next token."""
    config = ck.CONFIG | {"vocab_size": 328, "max_position_embeddings": 512}
    tensors = ck.random_tensors(config)
    tensors["model.embed_tokens.weight"][:, 0] = 20       # which stays large in the residual stream
    for i in range(2):
        tensors[f"model.layers.{i}.self_attn.o_proj.weight"][0] = 0
        tensors[f"model.layers.{i}.mlp.down_proj.weight"][0] = 0
    tensors["model.norm.weight"][0] = 1
    tensors["lm_head.weight"][likely] = 50 * np.eye(16)[0]
    made = ck.hugging_face(tensors, vocab_size=328, max_position_embeddings=512)
    return ck.write_folder(tmp_path, made | files)


def test_padding_is_never_sampled(tmp_path, run):
    folder = padded(tmp_path, likely=326)
    weights, config = nl.load(folder)
    assert (nl.forward(TOKENS, weights, config).argmax(axis=-1) == 326).all()      # a plain sampler would take it
    for options in (["--temperature", 0], ["--seed", 1], ["--lazy", "--temperature", 0]):
        status, out, err = run(KING, "--model", folder, "-n", 40, *options)
        assert status == 0 and "new 40 tokens" in err and len(out) > 40
    status, out, _ = run("--model", folder, "--chat", "-n", 10, stdin="hi\nho\n")
    assert status == 0 and out.count("\n") >= 2


def test_an_added_token_is_shown_by_its_name_and_may_end_a_text(tmp_path, run):
    folder = padded(tmp_path, likely=326, **{"added_tokens.json": {"[END]": 326}})
    status, out, err = run(KING, "--model", folder, "-n", 20, "--temperature", 0)
    assert status == 0 and "[END]" in out and "new 20 tokens" in err
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 326]}))
    status, out, err = run(KING, "--model", folder, "-n", 20, "--temperature", 0)
    assert out.count("[END]") == 1 and "new 20 tokens" not in err
    status, out, _ = run("--model", folder, "--chat", "-n", 10, "--temperature", 0, stdin="hi\nho\nha\n")
    assert status == 0 and out.count("\n") >= 3               # the conversation goes on after each end


def test_a_folder_without_first_token(tmp_path, run):
    folder = ck.write_folder(tmp_path, ck.hugging_face() | {"tokenizer_config.json": {"add_bos_token": False}})
    tokenizer = nl.Tokenizer(folder / "tokenizer.model")
    assert run(KING, "--model", folder, "-n", 1)[2].startswith(f"prompt {len(tokenizer.sp.encode(KING))} tokens")


# ---- Chat ------------------------------------------------------------------------------------------------------------

LLAMA_2 = ("{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\\n' + messages[0]['content'] %}{% endif %}"
           "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}")
TEMPLATES = {       # name: (template, its first marker)
    "TinyLlama, Zephyr": ("{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\\n' + m['content'] }}"
                          "{% endif %}{% endfor %}", "<|user|>"),
    "ChatML": ("{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content']}}{% endfor %}",
               "<|im_start|>"),
    "CodeLlama 70B": ("{% for m in messages %}{{ 'Source: ' + m['role'] + '\\n\\n ' + m['content'] }}{% endfor %}",
                      "Source:"),
    "Alpaca": ("{{ '### Instruction:\\n' + messages[0]['content'] }}", "### Instruction"),
    "Mistral": ("{{ '[INST] ' + messages[0]['content'] + ' [/INST]' }}", "[INST]"),
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.jinja", "a list"])
def test_another_chat_format_is_refused(name, place, tmp_path, run):
    template, marker = TEMPLATES[name]
    files = {"tokenizer_config.json": {"chat_template": template}}
    if place == "chat_template.jinja":
        files = {place: template.encode()}
    if place == "a list":
        files = {"tokenizer_config.json": {"chat_template": [{"name": "default", "template": template}]}}
    folder = ck.write_folder(tmp_path, ck.hugging_face(max_position_embeddings=512) | files)
    status, out, err = run("--model", folder, "--chat", stdin="hi\n")
    assert (status, out) == (2, "") and err.count("\n") == 1 and marker in err and "--chat-format llama-2" in err
    status, out, err = run("--model", folder, "--chat", "--chat-format", "llama-2", "-n", 3, stdin="hi\n")
    assert status == 0 and out and err == ""


def test_llama_2s_own_template_is_welcome(tmp_path, run):
    files = {"tokenizer_config.json": {"chat_template": LLAMA_2}}
    folder = ck.write_folder(tmp_path, ck.hugging_face(max_position_embeddings=512) | files)
    assert run("--model", folder, "--chat", "-n", 3, stdin="hi\n")[0] == 0


def test_a_chat_takes_memory_as_it_is_used(tmp_path, run, monkeypatch):
    """A context of a million tokens: what the caches hold at once is a small multiple of the conversation."""
    folder = ck.write_folder(tmp_path, ck.hugging_face(max_position_embeddings=2**20))
    sizes, cache = [], nl.KVCache

    class Watched(cache):
        def __init__(self, *args):
            super().__init__(*args)
            sizes.append(self.max_len)

    monkeypatch.setattr(nl, "KVCache", Watched)
    status, out, _ = run("--model", folder, "--chat", "-n", 10, stdin="hi\n" * 20)
    tokens = nl.chat_tokens([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "x" * 20}] * 20,
                            nl.Tokenizer(folder / "tokenizer.model"))
    assert status == 0 and out.count("\n") >= 20 and max(sizes) < 4 * len(tokens) < 2**20 / 100


def test_a_chat_that_outgrows_its_context_forgets_its_oldest_turns(tmp_path, run, monkeypatch):
    folder = ck.write_folder(tmp_path, ck.hugging_face(max_position_embeddings=160))
    tokenizer, prompts, generate = nl.Tokenizer(folder / "tokenizer.model"), [], nl.generate

    def watched(tokens, *args, cache, **options):
        prompts.append(cached[:cache[0].length] + list(tokens))
        yield from generate(tokens, *args, cache=cache, **options)
        cached[:] = prompts[-1] + [None] * 99                 # what was answered does not matter here

    cached = []
    monkeypatch.setattr(nl, "generate", watched)
    lines = [f"message number {i}" for i in range(8)]
    status, out, err = run("--model", folder, "--chat", "-n", 8, "--system", "Be a king.", stdin="\n".join(lines))
    assert status == 0 and out.count("\n") >= 8
    assert re.fullmatch(r"(the context of 160 tokens is full: the oldest \d+ messages are dropped\n)+", err)
    system = nl.chat_tokens([{"role": "system", "content": "Be a king."}, {"role": "user", "content": ""}], tokenizer)
    for prompt, text in zip(prompts, lines):
        shown = tokenizer.decode([i for i in prompt if i is not None])
        assert text in shown and len(prompt) + 8 <= 160
        assert prompt[:10] == system[:10]
    assert lines[0] not in tokenizer.decode([i for i in prompts[-1] if i is not None])


# ---- Files that were not downloaded ---------------------------------------------------------------------------------

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 9976570304\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title>"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.model", "generation_config.json",
                                  "model.safetensors.index.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content, words", [(LFS, "Git LFS"), (PAGE, "web page")])
def test_what_stands_there_instead_is_named(name, content, words, tmp_path, run):
    files = ck.hugging_face()
    if name == "model.safetensors.index.json":
        files = ck.sharded()
    folder = ck.write_folder(tmp_path, files | {name: content})
    status, out, err = run(KING, "--model", folder)
    assert (status, out) == (2, "") and err.count("\n") == 1 and name in err and words in err


# ---- Texts -----------------------------------------------------------------------------------------------------------

def test_a_text_saved_three_ways_is_one_text(tmp_path, run):
    text = "Once upon a time there was a king.\nHe had a daughter.\n\nShe had a golden ball.\n"
    forms = [text.encode(), text.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + text.encode(),
             text.replace("\n", "\r").encode()]
    found = set()
    for i, data in enumerate(forms):
        (tmp_path / f"{i}.txt").write_bytes(data)
        status, out, _ = run("--perplexity", tmp_path / f"{i}.txt")
        assert status == 0
        found.add(out)
    assert len(found) == 1


def test_a_prompt_from_standard_input(run):
    expected = run("Once upon", "-n", 20, "--seed", 1)
    assert run("-", "-n", 20, "--seed", 1, stdin="Once upon\n")[:2] == expected[:2]
    done = process(shell='echo "Once upon" | $RUN - -n 20 --seed 1')
    assert (done.returncode, done.stdout.decode()) == (0, expected[1])


@pytest.mark.parametrize("prompt", ["-Once", "-never", "--no-such-option"])
def test_a_prompt_that_starts_with_a_dash_is_told_how(prompt, run):
    status, out, err = run(prompt)
    assert (status, out) == (2, "") and " -- " in err and err.count("\n") == 1
    assert run("-n", 2, "--", prompt)[1].startswith(prompt)


@pytest.mark.parametrize("options", [["--perplexity", "book.txt"], ["--info"]])
def test_a_prompt_that_nobody_reads_is_refused(options, run):
    status, out, err = run("Once upon a time", *options)
    assert (status, out) == (2, "") and "PROMPT" in err


# ---- Terminals -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("env", [{"LC_ALL": "C"}, {"PYTHONUTF8": "0", "LC_ALL": "POSIX"}, {"PYTHONUTF8": "1"}], ids=str)
@pytest.mark.parametrize("mode", [["-"], ["--chat"]], ids=str)
def test_bytes_that_are_not_utf_8(env, mode):
    done = process(*mode, input=b"Gr\xf6\xdfe\n", env=env)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: ") and b"UTF-8" in done.stderr and done.stderr.count(b"\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="closes streams by the words of a POSIX shell")
@pytest.mark.parametrize("closed, status, out, err", [
    ("<&-", 0, True, True), (">&-", 0, False, True), ("2>&-", 0, True, False), (">&- 2>&-", 0, False, False),
    ("<&- >&- 2>&-", 0, False, False), ("--chat <&-", 0, False, False), ("--no-such 2>&-", 2, False, False)])
def test_closed_streams(closed, status, out, err):
    """No traceback, and no figure on the wrong stream."""
    done = process(shell=f"$RUN -n 3 --seed 1 {closed}")
    assert (done.returncode, bool(done.stdout), bool(done.stderr)) == (status, out, err), done
    assert b"Traceback" not in done.stderr and b"tokens/s" not in done.stdout and b"seed" not in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full disk")
def test_a_full_disk_is_one_line():
    done = process(shell="$RUN -n 3 > /dev/full")
    assert done.returncode == 2 and done.stderr.count(b"\n") >= 1 and b"Traceback" not in done.stderr
    assert b"error: " in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full disk")
@pytest.mark.parametrize("line, status", [("$RUN --info > /dev/full", 2), ("$RUN --help | true", 0),
                                          ("$RUN --top-k -1 2> /dev/full", 2),
                                          ("$RUN -n 2 2> /dev/full", 0)])
def test_streams_that_take_nothing(line, status):
    done = process(shell=line)
    assert done.returncode == status and b"Exception" not in done.stderr and b"Traceback" not in done.stderr, done


def test_in_a_notebook():
    """%run and main() where the streams are a kernel's: no fileno, no reconfigure."""
    import nbclient
    import nbformat
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in (
        f"%run {SCRIPT} Once -n 3 --seed 1",
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import numpy_llama as nl\nnl.main(['Once', '-n', '3', '--seed', '1'])",
        "nl.main(['--temperature', '-1'])")])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    texts = ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]
    assert all("Once" in text and "tokens/s" in text for text in texts[:2]) and "error: temperature" in texts[2]


def test_slow_is_not_zero():
    assert [nl.rate(*x) for x in ((44, 100), (1, 30), (12, 1), (9.6, 1), (3000, 1))] == [
        "0.44 tokens/s", "0.033 tokens/s", "12 tokens/s", "9.6 tokens/s", "3000 tokens/s"]
