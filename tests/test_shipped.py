"""The model that ships: transformers opens the folder as it is, and sees the same ids, numbers and stories."""
import importlib.util
import json
import random

import numpy as np
import oracle
import pytest
import torch
from conftest import FAIRYTALES, ROOT
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

import numpy_llama as nl

TEXTS = [
    "Once upon a time", "", " ", "  two spaces first", "a  b   c", "and last  ", "tab\there", "line\n\nline\r\nline",
    "12345 6.7", "<s>", "</s> and <unk>", "a<s>b", "[INST] hi [/INST]", "▁", "naïve café", "e\u0301 é ﬁ", "株式会社 𒎗𓐍",
    "🙂👩‍👩‍👧", "hahahahahahaha aaaaaaaaaaaaaa", "Ελλάδα россия עברית العربية", "\x00\x07\x1b"]


def random_texts(count):
    """Strings of words and control text, of any characters at all, and of few letters, where merges compete."""
    rng = random.Random(0)
    words = ["the", "king", " ", "  ", "\n", "Once", "upon", "7", "2024", "<s>", "</s>", "é", "日", "🙂", "’", "--",
             "\t"]

    def character():
        first, last = rng.choice([(0, 0x7F), (0x80, 0x2FF), (0x300, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)])
        return chr(rng.randint(first, last))

    for _ in range(count):
        length = rng.randrange(1, 30)
        yield "".join(rng.choice(words) + rng.choice(["", " "]) for _ in range(length))
        yield "".join(character() for _ in range(length))
        yield "".join(rng.choices(rng.sample("aehilnorst -.,'", 3), k=length))


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FAIRYTALES, dtype=torch.float32, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def their_tokenizer():
    return AutoTokenizer.from_pretrained(FAIRYTALES)


@pytest.fixture(scope="module")
def train():
    """weights/train.py as a module."""
    spec = importlib.util.spec_from_file_location("train", ROOT / "weights" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_books(folder, first):
    """As many books as training needs; the bytes of the first one are given."""
    books = {"a": first, "b": b"b", "c": b"c", "d": b"d"}
    for name, data in books.items():
        (folder / f"{name}.txt").write_bytes(data)


@pytest.mark.parametrize("book", [
    "One.\n\nStill é.\n\n\nTwo.\n".encode(),
    "One.\r\n\r\nStill é.\r\n\r\n\r\nTwo.\r\n".encode(),
    "One.\r\rStill é.\r\r\rTwo.\r".encode(),
    "\ufeffOne.\r\n\r\nStill é.\r\n\r\n\r\nTwo.".encode()], ids=["unix", "windows", "old-mac", "byte-order-mark"])
def test_books_are_read_as_text(train, tmp_path, book):
    write_books(tmp_path, book)
    assert train.read_books(tmp_path)["a"] == ["One.\n\nStill é.", "Two."]


@pytest.mark.parametrize("book, offset", [("café".encode("latin-1"), 3), ("\ufeffOne".encode("utf-16-le"), 0)])
def test_a_book_that_is_not_utf8_is_refused(train, tmp_path, book, offset):
    write_books(tmp_path, book)
    with pytest.raises(SystemExit) as stop:
        train.read_books(tmp_path)
    assert stop.value.code == f"error: {tmp_path / 'a.txt'} is not UTF-8 text at byte {offset}: save it as UTF-8"


def test_files():
    names = {path.name for path in FAIRYTALES.iterdir()}
    assert names >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.model", "tokenizer.json",
                     "tokenizer_config.json", "training.csv"}
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    assert (FAIRYTALES / "model.safetensors").stat().st_size <= 12_000_000
    with safe_open(FAIRYTALES / "model.safetensors", framework="pt") as tensors:
        assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"BF16"}


def test_shape():
    config = json.loads((FAIRYTALES / "config.json").read_text())
    assert config["num_attention_heads"] == 8 and config["num_key_value_heads"] in (2, 4)
    assert config["max_position_embeddings"] == 512 and not config["tie_word_embeddings"]
    assert config["intermediate_size"] == nl.feed_forward_dim(config["hidden_size"], 64)
    assert 2048 <= config["vocab_size"] <= 4096


def test_ids_are_the_same(tokenizer, their_tokenizer):
    for text in [*TEXTS, *random_texts(2000)]:
        assert their_tokenizer(text).input_ids == tokenizer.encode(text), repr(text)


def test_text_is_the_same(tokenizer, their_tokenizer):
    # What no text encodes to may differ: transformers replaces all bytes of a run that is not UTF-8, we the wrong ones.
    ids = [tokenizer.encode(text) for text in [*TEXTS, *random_texts(500)]]
    rng, first_piece = random.Random(0), 3 + 256       # after the control tokens and the bytes
    ids += [[rng.choice([1, 2, *[rng.randrange(first_piece, tokenizer.vocab_size)] * 8]) for _ in range(10)]
            for _ in range(1000)]
    for some in ids:
        assert their_tokenizer.decode(some, skip_special_tokens=True) == tokenizer.decode(some), some


@pytest.mark.parametrize("prompt", ["Once upon a time", "The old witch", '"Who are you?" said', "There was once"])
def test_greedy_story_is_the_same(prompt, model, fairytales, tokenizer):
    weights, config = fairytales
    tokens = tokenizer.encode(prompt)
    ours = list(nl.generate(tokens, weights, config, 120, stop={tokenizer.eos}, temperature=0))
    theirs = model.generate(torch.tensor([tokens]), do_sample=False, max_new_tokens=120)[0, len(tokens):].tolist()
    assert ours == theirs


def test_every_intermediate(model, fairytales, tokenizer):
    # Measured: at most 3e-6 of a tensor's largest value, on the whole context.
    weights, config = fairytales
    story = "Once upon a time there was a king who had three sons, and the youngest was called Jack. " * 40
    tokens, trace = tokenizer.encode(story)[:config.max_seq_len], nl.Trace()
    nl.forward(tokens, weights, config, tap=trace)
    for name, theirs in oracle.torch_trace(model, tokens).items():
        finite = np.isfinite(theirs)
        np.testing.assert_array_equal(np.isfinite(trace[name]), finite)
        difference = np.max(np.abs(trace[name][finite] - theirs[finite])) / np.max(np.abs(theirs[finite]))
        assert difference <= 1e-5, (name, difference)
