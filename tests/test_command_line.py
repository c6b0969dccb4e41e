"""The command line as a person uses it: what is printed where, and that it is what the library and PyTorch compute.

Most runs are calls of main(); a process of its own is started where the process itself is the subject.
"""
import functools
import io
import itertools
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import checkpoints as ck
import numpy as np
import pytest
import torch
import transformers
from conftest import FAIRYTALES, ROOT
from safetensors import safe_open
from safetensors.numpy import load_file

import numpy_llama as nl

SCRIPT = ROOT / "numpy_llama.py"
RATE = r"([1-9]\d+|[1-9](\.\d)?|0\.\d*[1-9]\d*) tokens/s"      # never 0 tokens/s
FIGURES = rf"prompt (?P<prompt>\d+) tokens, {RATE}; new (?P<new>\d+) tokens(, {RATE})?; seed (?P<seed>\d+)\n"
TRACE = ["embedding", *(f"layers.{i}.{name}" for i in range(2) for name in (
    "attn_norm", *(f"attn.{x}" for x in ("q", "k", "v", "q_rope", "k_rope", "scores", "probs", "heads", "out")),
    "x_attn", "ffn_norm", *(f"ffn.{x}" for x in ("gate", "silu", "up", "hidden", "out")), "x_ffn")), "norm", "logits"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A small folder with a context of 64."""
    return ck.write_folder(tmp_path_factory.mktemp("tiny"), ck.hugging_face())


@pytest.fixture(scope="session")
def roomy(tmp_path_factory):
    """The same model with room for a conversation."""
    return ck.write_folder(tmp_path_factory.mktemp("roomy"), ck.hugging_face(max_position_embeddings=2048))


@pytest.fixture
def run(monkeypatch, capsys):
    """A function from arguments to (standard output, standard error) of a run that succeeds."""
    def run(*argv, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        assert nl.main([str(arg) for arg in argv]) == 0
        return capsys.readouterr()

    return run


def story(folder, prompt, n, seed=0, **sampling):
    """(text, ids of the prompt, new ids) by the library's functions."""
    weights, config = nl.load(folder)
    tokenizer = nl.Tokenizer(folder / "tokenizer.model")
    tokens = tokenizer.encode(prompt)
    new = list(nl.generate(tokens, weights, config, n, np.random.default_rng(seed), {tokenizer.eos}, **sampling))
    return tokenizer.decode(tokens + new), tokens, new


def start(*argv, **options):
    """A process of its own."""
    return subprocess.Popen([sys.executable, SCRIPT, *map(str, argv)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            **options)


def read_more_than(prompt, process):
    """What a process has written once it has written more than its prompt."""
    text = b""
    while len(text) <= len(prompt):
        piece = os.read(process.stdout.fileno(), 2**16)
        assert piece
        text += piece
    assert text.startswith(prompt)
    return text


# ---- A story -----------------------------------------------------------------------------------------------------

def test_a_story_starts_within_two_seconds():
    """The one wall-clock assertion, at the best of five attempts. The first words come before the last are computed."""
    best = math.inf
    for _ in range(5):
        began, process = time.perf_counter(), start("-n", 200, "--seed", 1)
        first = read_more_than(b"Once upon a time", process)
        best = min(best, time.perf_counter() - began)
        rest, err = process.communicate(timeout=60)
        assert process.returncode == 0 and re.fullmatch(FIGURES, err.decode()), err
        assert len(rest) > len(first) and rest.endswith(b"\n")
        if best < 2:
            break
    assert best < 2


@pytest.mark.parametrize("options, sampling", [
    ([], dict(temperature=0.8, top_p=0.95)), (["--temperature", "0"], dict(temperature=0)),
    (["--temperature", "1.5", "--top-k", "7", "--top-p", "1"], dict(temperature=1.5, top_k=7))])
def test_text_is_what_the_library_gives(options, sampling, run):
    """Standard output is the text and one newline, standard error one line of figures."""
    text, tokens, new = story(FAIRYTALES, "The old king", 40, seed=7, **sampling)
    out, err = run("The old king", "-n", 40, "--seed", 7, *options)
    assert out == text + "\n" and out.startswith("The old king")
    figures = re.fullmatch(FIGURES, err)
    assert (int(figures["prompt"]), int(figures["new"]), figures["seed"]) == (len(tokens), len(new), "7")


@pytest.mark.parametrize("prompt", ["", " ", "Größe ", "株式会社😀", "<s>", "a\nb\n\n", "-- no option", "a\0b"])
def test_any_prompt(prompt, tiny, run):
    out, _ = run("--model", tiny, "-n", 5, "--seed", 1, "--", prompt)
    assert out == story(tiny, prompt, 5, 1, temperature=0.8, top_p=0.95)[0] + "\n"
    assert out.startswith(prompt)


def test_greedy_is_what_transformers_writes(run):
    """Token for token, by PyTorch's generate."""
    model = transformers.LlamaForCausalLM.from_pretrained(FAIRYTALES, dtype=torch.float32)
    tokenizer = nl.Tokenizer(FAIRYTALES / "tokenizer.model")
    ids = torch.tensor([tokenizer.encode("A fox met a hen")])
    greedy = model.generate(ids, attention_mask=ids * 0 + 1, max_new_tokens=60, do_sample=False, pad_token_id=0,
                            temperature=None, top_p=None)
    out, _ = run("A fox met a hen", "-n", 60, "--temperature", 0)
    assert out == tokenizer.decode(greedy[0].tolist()) + "\n"


def test_seed(tiny, run):
    def text(*argv):
        return run("--model", tiny, "-n", 30, *argv).out

    assert text("--seed", 1) == text("--seed", 1) != text("--seed", 2)
    out, err = run("--model", tiny, "-n", 30)                   # a seed of its own, which it tells
    assert out == text("--seed", re.fullmatch(FIGURES, err)["seed"])
    assert len({re.fullmatch(FIGURES, run("--model", tiny, "-n", 1).err)["seed"] for _ in range(5)}) > 1
    greedy = text("--temperature", 0, "--seed", 1)
    assert greedy == text("--temperature", 0, "--seed", 2) == text("--top-k", 1) == text("--top-p", 1e-9)


@pytest.mark.parametrize("n", [1, 2, 10])
def test_number_of_tokens(n, tiny, run):
    for option in ("-n", "--max-new-tokens"):
        assert int(re.fullmatch(FIGURES, run("--model", tiny, option, n, "--seed", 3).err)["new"]) == n


def test_context_ends_the_story(tiny, run):
    """The last token that is drawn does not go through the model any more, so it needs no room."""
    figures = re.fullmatch(FIGURES, run("Once", "--model", tiny, "-n", 1000, "--seed", 3).err)
    assert int(figures["prompt"]) + int(figures["new"]) == 64 + 1


def test_stop_ids_end_the_story(tmp_path, tiny, run):
    """eos_token_id may be a list, and may stand in generation_config.json only."""
    text, tokens, new = story(tiny, "Once", 20, temperature=0)
    end = new.index(new[7])
    expected = nl.Tokenizer(tiny / "tokenizer.model").decode(tokens + new[:end + 1]) + "\n"
    for i, files in enumerate([ck.hugging_face(eos_token_id=new[7]), ck.hugging_face(eos_token_id=[2, new[7]]),
                               ck.hugging_face() | {"generation_config.json": {"eos_token_id": [new[7]]}}]):
        out, err = run("Once", "--model", ck.write_folder(tmp_path / f"{i}", files), "-n", 20, "--temperature", 0)
        assert out == expected and f"new {end + 1} tokens" in err


def test_text_is_shown_as_it_comes(roomy, monkeypatch):
    """What stands on standard output each time a token has gone through the model; never half a character."""
    shown, states, forward = io.StringIO(), [], nl.forward

    def watched(*args, **options):
        states.append(shown.getvalue())
        return forward(*args, **options)

    monkeypatch.setattr(nl, "forward", watched)
    monkeypatch.setattr(sys, "stdout", shown)
    assert nl.main(["Once", "--model", str(roomy), "-n", "40", "--temperature", "0"]) == 0
    monkeypatch.undo()
    tokenizer = nl.Tokenizer(roomy / "tokenizer.model")
    _, tokens, new = story(roomy, "Once", 40, temperature=0)
    assert states == [""] + [tokenizer.decode(tokens + new[:i]).rstrip("\ufffd") for i in range(1, len(new))]
    assert len(set(states)) > 20


# ---- The process -------------------------------------------------------------------------------------------------

def test_closed_pipe(roomy):
    process = start("--model", roomy, "--temperature", 0, "-n", 1000)
    assert process.stdout.read(5) == b"Once "
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


def test_ctrl_c(tmp_path):
    endless = ck.write_folder(tmp_path, ck.hugging_face(max_position_embeddings=2**17))      # it cannot end by itself
    listens = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)     # a shell's job behind & does not
    process = start("--model", endless, "--temperature", 0, "-n", 100_000, preexec_fn=listens)
    read_more_than(b"Once upon a time", process)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("mode", [[], ["--info"]])
def test_full_disk(mode, tiny):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, SCRIPT, "--model", tiny, *mode], stdout=full, stderr=subprocess.PIPE,
                              text=True, timeout=60)
    assert done.returncode == 2
    assert re.fullmatch("error: .*space.*\n", done.stderr), done.stderr


def test_utf_8_whatever_the_locale_says(tiny):
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONIOENCODING", "PYTHONUTF8", "LANG")}
    out, err = start("Größe 株 😀", "--model", tiny, "-n", "2", "--seed", "1", env=env | {"LC_ALL": "C"}).communicate()
    assert out.decode("utf-8") == story(tiny, "Größe 株 😀", 2, 1, temperature=0.8, top_p=0.95)[0] + "\n"


# ---- Chat --------------------------------------------------------------------------------------------------------

LINES = ["Who are you?", "And   who is the king?", "Tell me of the frog <s> 12 geese.", "Why?"]


def conversation(folder, lines, n, seed, system=None, **sampling):
    """(answers, tokens before each answer, new ids) by the library, without a cache that outlives a turn."""
    weights, config = nl.load(folder)
    tokenizer, rng = nl.Tokenizer(folder / "tokenizer.model"), np.random.default_rng(seed)
    messages = [{"role": "system", "content": system}] if system else []
    answers, prompts, answer_ids = [], [], []
    for line in lines:
        messages.append({"role": "user", "content": line})
        prompts.append(nl.chat_tokens(messages, tokenizer))
        answer_ids.append(list(nl.generate(prompts[-1], weights, config, n, rng, {tokenizer.eos}, **sampling)))
        answers.append(tokenizer.decode(answer_ids[-1]))
        messages.append({"role": "assistant", "content": answers[-1]})
    return answers, prompts, answer_ids


@pytest.mark.parametrize("system", [None, "Answer in one sentence."])
@pytest.mark.parametrize("options, sampling", [(["--temperature", 0], dict(temperature=0)),
                                               ([], dict(temperature=0.8, top_p=0.95))])
def test_chat(system, options, sampling, roomy, run):
    """Several turns, empty lines between them: the same answers as from the whole conversation each time."""
    answers, _, _ = conversation(roomy, LINES, 15, 5, system, **sampling)
    options = options + (["--system", system] if system else [])
    out, err = run("--model", roomy, "--chat", "-n", 15, "--seed", 5, *options, stdin="\n\n".join(LINES) + "\n  \n")
    assert out == "".join(answer + "\n" for answer in answers)
    assert err == "" and len(set(answers)) == 4


def test_chat_starts_with_the_prompt(roomy, run):
    sampling = ["--model", roomy, "--chat", "-n", 15, "--seed", 5]
    assert run(LINES[0], *sampling, stdin="\n".join(LINES[1:])).out == run(*sampling, stdin="\n".join(LINES)).out
    assert run(*sampling).out == ""


def test_chat_computes_no_turn_again(roomy, run, monkeypatch):
    """What goes through the model in each turn: the tokens after the longest beginning that the cache holds."""
    _, prompts, answers = conversation(roomy, LINES, 15, 5, temperature=0)
    calls, forward = [], nl.forward

    def watched(tokens, weights, config, cache=None, tap=nl.ignore):
        calls.append((cache[0].length, list(tokens)))
        return forward(tokens, weights, config, cache, tap)

    monkeypatch.setattr(nl, "forward", watched)
    run("--model", roomy, "--chat", "-n", 15, "--seed", 5, "--temperature", 0, stdin="\n".join(LINES))
    held, expected = [], []
    for prompt, answer in zip(prompts, answers):
        common = len(os.path.commonprefix([held, prompt]))
        expected += [(common, prompt[common:])] + [(len(prompt) + i, [id]) for i, id in enumerate(answer[:-1])]
        held = prompt + answer[:-1]
    assert calls == expected
    starts = [start for start, tokens in calls if len(tokens) > 1]
    assert starts[0] == 0 and all(start >= len(prompt) - 2 for start, prompt in zip(starts[1:], prompts))


# ---- Trace -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_trace(suffix, tiny, tmp_path, run):
    """Every name of the design, in order, bit for bit; and on each line its shape, mean and deviation."""
    weights, config = nl.load(tiny)
    trace = nl.Trace()
    nl.forward(nl.Tokenizer(tiny / "tokenizer.model").encode("The frog"), weights, config, tap=trace)
    assert list(trace) == TRACE
    file = tmp_path / f"run{suffix}"
    file.write_bytes(b"an older trace")
    out, err = run("The frog", "--model", tiny, "--trace", file)
    saved = dict(np.load(file)) if suffix == ".npz" else load_file(file)
    assert saved.keys() == trace.keys() and err == ""
    for (name, x), line in zip(trace.items(), out.splitlines(), strict=True):
        assert saved[name].dtype == x.dtype and np.array_equal(saved[name], x)
        found = re.fullmatch(r"(\S+) +(\(.*\)) +mean +(\S+) +std +(\S+)", line)
        seen = x[x > -np.inf].astype(np.float64)
        assert found[1] == name and found[2] == str(x.shape)
        # Five decimals are printed; float32 sums of some thousand numbers of order 1 to 10 are as exact.
        assert np.allclose([float(found[3]), float(found[4])], [seen.mean(), seen.std()], rtol=1e-5, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name]


@pytest.mark.parametrize("trouble, status", [(KeyboardInterrupt, 130), (MemoryError, 2), (nl.InputError("no"), 2)])
def test_an_older_trace_survives(trouble, status, tiny, tmp_path, monkeypatch, capsys):
    file = tmp_path / "run.npz"
    file.write_bytes(b"an older trace")

    def forward(*args, **options):
        raise trouble

    monkeypatch.setattr(nl, "forward", forward)
    assert nl.main(["--model", str(tiny), "--trace", str(file)]) == status
    assert file.read_bytes() == b"an older trace"
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]


# ---- Perplexity --------------------------------------------------------------------------------------------------

def shown_losses(out):
    found = re.fullmatch(
        r"(\S+) nats per token, perplexity (\S+), (\S+) bits per byte \((\d+) tokens, (\d+) bytes\)\n", out)
    return [float(number) for number in found.groups()]


TEXTS = {"letter": "a", "short": "Once upon a time.", "more than a context": ck.TEXT, "much more": 3 * ck.TEXT,
         "other letters": "Größe 株\n\n\tend \n"}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_perplexity(text, tiny, tmp_path, run):
    """Token by token with transformers: each from the first window that reaches it, of 64 tokens, 32 apart."""
    model = transformers.LlamaForCausalLM.from_pretrained(tiny, dtype=torch.float32, attn_implementation="eager")
    tokens, losses = torch.tensor(nl.Tokenizer(tiny / "tokenizer.model").encode(text)), []
    for i in range(1, len(tokens)):
        first = next(first for first in itertools.count(0, 32) if i < first + 64)
        with torch.no_grad():
            logits = model(tokens[None, first:i]).logits[0, -1].double()
        losses.append(torch.nn.functional.cross_entropy(logits, tokens[i]).item())
    file = tmp_path / "text.txt"
    file.write_bytes(text.encode())
    nats, perplexity, bits, n_tokens, n_bytes = shown_losses(run("--model", tiny, "--perplexity", file).out)
    assert (n_tokens, n_bytes) == (len(losses), file.stat().st_size)
    # Half of the last decimal that is shown, and a rounding of float32.
    assert abs(nats - np.mean(losses)) < 6e-5
    assert abs(perplexity / np.exp(np.mean(losses)) - 1) < 1e-5 + 6e-4 / perplexity
    assert abs(bits - sum(losses) / math.log(2) / n_bytes) < 6e-5


def test_perplexity_of_one_who_knows_nothing(tmp_path, run):
    """All logits are 0: ln V nats for every token, in closed form."""
    tensors = ck.random_tensors(ck.CONFIG)
    tensors["lm_head.weight"][:] = 0
    folder, file = ck.write_folder(tmp_path / "model", ck.hugging_face(tensors)), tmp_path / "text.txt"
    file.write_text(5 * ck.TEXT)
    nats, perplexity, bits, n_tokens, n_bytes = shown_losses(run("--model", folder, "--perplexity", file).out)
    assert (nats, perplexity) == (round(math.log(320), 4), 320)
    assert bits == round(n_tokens * math.log2(320) / n_bytes, 4) and n_bytes == 5 * len(ck.TEXT)


# ---- Info --------------------------------------------------------------------------------------------------------

def shown_info(out):
    """{name: the number or word behind it}"""
    return dict(re.findall(r"^  (\S+) +([\d.,e+-]+)", out, re.M))


def test_info_of_the_model_that_ships(run):
    out, err = run("--info")
    shown, config = shown_info(out), json.loads((FAIRYTALES / "config.json").read_text())
    with safe_open(FAIRYTALES / "model.safetensors", "np") as file:
        sizes = {name: math.prod(file.get_slice(name).get_shape()) for name in file.keys()}

    def count(pattern):
        return f"{sum(n for name, n in sizes.items() if re.search(pattern, name)):,}"

    assert f"{sum(sizes.values()):,} parameters" in out and "BF16" in out and "Hugging Face" in out
    for component, pattern in {"embedding": "embed", "attention": "self_attn", "feed-forward": "mlp", "norms": "norm",
                               "output": "lm_head"}.items():
        assert shown[component] == count(pattern)
    for ours, theirs in {"dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
                         "n_kv_heads": "num_key_value_heads", "hidden_dim": "intermediate_size",
                         "vocab_size": "vocab_size", "max_seq_len": "max_position_embeddings",
                         "norm_eps": "rms_norm_eps"}.items():
        assert float(shown[ours]) == config[theirs]
    assert shown["weights"] == f"{4 * sum(sizes.values()) / 2**20:,.1f}"
    cache = 2 * 4 * config["num_hidden_layers"] * config["num_key_value_heads"] * 32 * config["max_position_embeddings"]
    assert shown["cache"] == f"{cache / 2**20:,.1f}"
    assert out.endswith("not one of the published sizes\n") and err == ""


def test_info_of_tied_weights(tmp_path, run):
    """The output is not counted twice; in memory it is held twice, once each way round."""
    out = run("--model", ck.write_folder(tmp_path / "tied", ck.hugging_face(tie_word_embeddings=True)), "--info").out
    total = sum(x.size for x in ck.random_tensors(ck.CONFIG).values())
    assert f"{total - 320 * 16:,} parameters" in out and shown_info(out)["output"] == "0"
    assert shown_info(out)["weights"] == f"{4 * total / 2**20:,.1f}"


@pytest.mark.parametrize("size, parameters", [("7b", 6_738_415_616), ("70b", 68_976_648_192)])
def test_info_of_a_published_size(size, parameters, tmp_path, run):
    """A file of Llama 2 whose numbers are a hole: --info does not read them."""
    c = nl.PRESETS[f"llama-2-{size}"]
    config = ck.CONFIG | dict(hidden_size=c.dim, num_hidden_layers=c.n_layers, num_attention_heads=c.n_heads,
                              num_key_value_heads=c.n_kv_heads, intermediate_size=c.hidden_dim, vocab_size=32000,
                              max_position_embeddings=4096)
    header, end = {}, 0
    for name, shape in ck.shapes(config).items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
    assert end == 2 * parameters
    text = json.dumps(header).encode()

    def weights(path):
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)

    out = run("--model", ck.write_folder(tmp_path, {"config.json": config, "model.safetensors": weights}), "--info").out
    assert f"{parameters:,} parameters" in out
    assert ("llama-1-7b and llama-2-7b" if size == "7b" else "sizes of llama-2-70b") in out


def test_info_of_metas_layout(tmp_path, run):
    out = run("--model", ck.write_folder(tmp_path, ck.meta()), "--info").out
    assert "Meta layout" in out and f"{sum(x.size for x in ck.random_tensors(ck.CONFIG).values()):,} parameters" in out


# ---- Help --------------------------------------------------------------------------------------------------------

def help_text(capsys):
    with pytest.raises(SystemExit) as end:
        nl.main(["--help"])
    assert not end.value.code
    return capsys.readouterr().out


def test_help_names_every_option(capsys):
    text = help_text(capsys).split("examples:")[0]
    for option in ("PROMPT", "-n", "--max-new-tokens", "--temperature", "--top-k", "--top-p", "--seed", "--model",
                   "--chat", "--system", "--trace", "--perplexity", "--info", "--help"):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", text)


def test_examples_of_help_run(roomy, tmp_path, run, capsys, monkeypatch):
    """In a folder where what they name is there; the large models are small."""
    examples = re.findall(r"^  python numpy_llama.py(.*?)(?:   .*)?$", help_text(capsys).split("examples:")[1], re.M)
    assert len(examples) >= 6
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text(ck.TEXT)
    for name in {arg for example in examples for arg in shlex.split(example) if "hf" in arg}:
        (tmp_path / name).symlink_to(roomy)
    for example in examples:
        assert run(*shlex.split(example), stdin="Who are you?\n").out.strip()
