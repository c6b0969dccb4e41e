"""Tokenizer, streaming and chat format, against SentencePiece itself and the published chat format written out.

Text comes back as it was, but for one character: U+2581, which is SentencePiece's own sign for a space.
"""
import itertools
import json
import re

import numpy as np
import pytest
import sentencepiece
from conftest import FAIRYTALES
from hypothesis import given, settings
from hypothesis import strategies as st

import numpy_llama as nl

SP = sentencepiece.SentencePieceProcessor(model_file=str(FAIRYTALES / "tokenizer.model"))
TOKENIZER = nl.Tokenizer(FAIRYTALES / "tokenizer.model")
BOS, EOS, UNK = 1, 2, 0
many = settings(max_examples=1500, deadline=None, derandomize=True)

TEXTS = [
    "", " ", "  ", "      ", "a", " a", "a ", "  two  spaces  ", "I", "wa", "hi friend", "This is his", "s", "</", "<s",
    "Once upon a time, there was a king.", "tab\there", "\t", "line\nbreak", "\n", "\n\n\n", "a\r\nb\r\n", "\r",
    " \n \t ", "\v\f\x1c\x85\u2028\u2029", "3.14159", "1234567890", "10,000 men", "¼ ² Ⅳ ٣ ४", "don't", "s>",
    "\"Good day,\" said the fox.", "naïve café", "e\u0301 and é", "ö & ü ß", "Größe", "İstanbul ıi", "Привет, мир",
    "Γειά σου", "שָׁלוֹם", "مرحبا بالعالم", "नमस्ते", "สวัสดี", "გამარჯობა", "Ողջույն", "ሰላም", "안녕하세요", "각", "株式会社",
    "こんにちは", "繁體字", "𒎗𓐍", "𝕬𝖇", "😀", "a😀b", "👩‍👩‍👧 🏳️‍🌈 👍🏽 🇩🇪", "\u00a0", "\u2003", "\u3000",
    "\u200b\u200d", "\u202e", "\ufeff", "\ufffd", "a\ufffd", "\ufffe\uffff", "\U0010ffff", "\ue000", "\x00", "a\x00b",
    "\x7f", "<s>", "</s>", "<unk>", "<s>Once</s>", "<0x41>", "<pad>", "⁇", " ⁇ ", "[INST] hi [/INST]",
    "<<SYS>>\n\n<</SYS>>", "x" * 2000, "The quick brown fox jumps over the lazy dog. " * 30,
]
RANGES = [(0, 0x80), (0x20, 0x7f), (0x80, 0x800), (0x800, 0xd800), (0xe000, 0x10000), (0x10000, 0x110000),
          (0x1f300, 0x1f700)]


def random_texts(n):
    """Words, white space and characters of all lengths in UTF-8, mixed."""
    rng = np.random.default_rng(0)
    words = ["king", "Once upon", "the", "  ", "\n", "\r\n", "\t", "<s>", "</s>", "7", ".", "’", "é"]
    for _ in range(n):
        parts = [words[rng.integers(len(words))] if rng.random() < 0.5 else
                 "".join(chr(c) for c in rng.integers(*RANGES[rng.integers(len(RANGES))], size=rng.integers(1, 6)))
                 for _ in range(rng.integers(1, 12))]
        yield "".join(parts)


def check(text):
    ids = TOKENIZER.encode(text)
    assert ids == [BOS] + SP.encode(text)
    assert TOKENIZER.encode(text, bos=False) == ids[1:]
    assert not {BOS, EOS, UNK} & set(ids[1:])                  # nothing is unknown: bytes spell it
    assert TOKENIZER.decode(ids) == TOKENIZER.decode(np.array(ids[1:])) == text.replace("\u2581", " ")


def test_ends_and_size():
    assert (TOKENIZER.bos, TOKENIZER.eos, TOKENIZER.vocab_size) == (BOS, EOS, len(SP))
    assert (SP.bos_id(), SP.eos_id(), SP.unk_id()) == (BOS, EOS, UNK)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:20]))
def test_text(text):
    check(text)


def test_random_texts():
    for text in random_texts(4000):
        check(text)


@many
@given(st.text())
def test_any_text(text):
    check(text)


def test_one_character_does_not_survive():
    assert TOKENIZER.decode(TOKENIZER.encode("a\u2581b")) == "a b"


def test_every_character_of_the_first_plane():
    text = "".join(map(chr, itertools.chain(range(0xd800), range(0xe000, 0x10000)))).replace("\u2581", "")
    check(text)


def test_first_word_has_a_space_in_front():
    """Without SentencePiece's dummy prefix, the prompt "I" would be another piece."""
    assert TOKENIZER.encode("I")[1:] == [SP.piece_to_id("▁I")] and SP.piece_to_id("▁I") != UNK


def test_control_tokens_are_text():
    for text in ("<s>", "</s>", "<unk>"):
        assert TOKENIZER.encode(f"a{text}b").count(BOS) == 1
        assert EOS not in TOKENIZER.encode(text)
        assert text in TOKENIZER.decode(TOKENIZER.encode(f"a{text}b"))


def test_control_tokens_are_silent():
    king = SP.encode("king")
    assert TOKENIZER.decode([BOS, *king, EOS]) == "king"
    assert TOKENIZER.decode([]) == TOKENIZER.decode([BOS]) == TOKENIZER.decode([EOS, EOS]) == ""


@pytest.mark.parametrize("ids", [[-1], [5, -2], [2**70], [1.5], [None], "12"])
def test_ids_that_are_none(ids):
    with pytest.raises(nl.InputError):
        TOKENIZER.decode(ids)


def test_an_id_beyond_the_pieces_is_silent_or_has_a_name(tmp_path):
    """Padded vocabularies, and added_tokens.json (Alpaca, Nous-Hermes, CodeLlama)."""
    king = SP.encode("king")
    assert TOKENIZER.decode([*king, len(SP), 10**9]) == TOKENIZER.decode([len(SP), *king]) == "king"
    (tmp_path / "tokenizer.model").write_bytes((FAIRYTALES / "tokenizer.model").read_bytes())
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[PAD]": len(SP) + 1, "<s>": 1}))
    added = nl.Tokenizer(tmp_path / "tokenizer.model")
    assert added.decode([*king, len(SP), len(SP) + 1, *king]) == "king[PAD]king"
    assert added.decode([BOS, *king]) == "king"


def test_tokenizer_config_may_leave_out_the_first_token(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes((FAIRYTALES / "tokenizer.model").read_bytes())
    for says, bos in (({"add_bos_token": False}, []), ({"add_bos_token": True}, [BOS]), ({}, [BOS])):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(says))
        tokenizer = nl.Tokenizer(tmp_path / "tokenizer.model")
        assert tokenizer.encode("king") == bos + SP.encode("king")
        assert tokenizer.encode("king", bos=True) == [BOS, *SP.encode("king")]
        assert tokenizer.encode("king", bos=False) == SP.encode("king")
        assert nl.chat_tokens([{"role": "user", "content": "king"}], tokenizer)[0] == BOS      # the format asks for it


# ---- Streaming ---------------------------------------------------------------------------------------------------

def check_stream(ids):
    """After each id, all text has been shown that later ids cannot change."""
    arrived, shown = [], ""

    def arriving():
        for i in ids:
            assert shown == SP.decode(arrived).rstrip("\ufffd") or arrived == []
            arrived.append(i)
            yield i

    for piece in nl.stream_text(arriving(), TOKENIZER):
        assert piece
        shown += piece
    full = SP.decode(ids)
    assert shown == full == TOKENIZER.decode(ids)
    return full


@pytest.mark.parametrize("text", TEXTS[:-2], ids=lambda text: ascii(text[:20]))
def test_stream_of_text(text):
    assert check_stream([BOS] + SP.encode(text) + [EOS]) == text


def test_stream_of_random_texts():
    for text in random_texts(500):
        assert check_stream([BOS] + SP.encode(text)) == text.replace("\u2581", " ")


ids_of_bytes = st.integers(3, 258)                              # half characters among them
ids_of_emoji = st.sampled_from([SP.piece_to_id(f"<0x{byte:02X}>") for byte in "😀é€".encode()])


@many
@given(st.lists(st.integers(0, len(SP) - 1) | ids_of_bytes | ids_of_emoji | st.integers(UNK, EOS), max_size=12))
def test_stream_of_any_ids(ids):
    check_stream(ids)


def test_stream_shows_no_part_of_a_character():
    """Four bytes of one emoji: nothing, nothing, nothing, the emoji. Cut short: one U+FFFD per byte, at the end."""
    emoji = [SP.piece_to_id(f"<0x{byte:02X}>") for byte in "😀".encode()]
    assert list(nl.stream_text(emoji, TOKENIZER)) == ["😀"]
    assert "".join(nl.stream_text(emoji[:3], TOKENIZER)) == SP.decode(emoji[:3]) == 3 * "\ufffd"
    assert list(nl.stream_text([], TOKENIZER)) == []


# ---- Chat --------------------------------------------------------------------------------------------------------

def written_out(messages):
    """The format as one text, <s>[INST] <<SYS>>\\n{system}\\n<</SYS>>\\n\\n{user} [/INST] {answer} </s>, then to ids.

    Two characters that no message has stand for the control tokens, so that a message cannot write them.
    """
    text, system = "", ""
    for message in messages:
        content = message["content"]
        if message["role"] == "system":
            system = "<<SYS>>\n" + content + "\n<</SYS>>\n\n"
        elif message["role"] == "user":
            text += "\ue000[INST] " + (system + content).strip() + " [/INST]"
            system = ""
        else:
            text += " " + content.strip() + " \ue001"
    ids = []
    for part in re.split("([\ue000\ue001])", text):
        ids += {"\ue000": [BOS], "\ue001": [EOS], "": []}.get(part) or SP.encode(part)
    return ids


def turns(*contents, system=None):
    roles = itertools.cycle(["user", "assistant"])
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": role, "content": content} for role, content in zip(roles, contents)]


def test_chat_by_hand():
    chat = nl.chat_tokens
    assert chat(turns("Hi"), TOKENIZER) == [BOS, *SP.encode("[INST] Hi [/INST]")]
    assert chat(turns("Hi", "Ho"), TOKENIZER) == [BOS, *SP.encode("[INST] Hi [/INST] Ho "), EOS]
    assert chat(turns(" Hi ", "\nHo\n", "And\nyou?"), TOKENIZER) == [
        BOS, *SP.encode("[INST] Hi [/INST] Ho "), EOS, BOS, *SP.encode("[INST] And\nyou? [/INST]")]
    assert chat(turns("Hi", "Ho", "He", "Hu", "Ha", system="Be brief."), TOKENIZER) == [
        BOS, *SP.encode("[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Ho "), EOS,
        BOS, *SP.encode("[INST] He [/INST] Hu "), EOS, BOS, *SP.encode("[INST] Ha [/INST]")]
    assert chat(turns("Hi", "", ""), TOKENIZER) == [
        BOS, *SP.encode("[INST] Hi [/INST]  "), EOS, BOS, *SP.encode("[INST]  [/INST]")]


def test_chat_is_the_format_written_out():
    texts = [text for text in TEXTS[:-2] if "\ue000" not in text]
    for n in range(1, 6):
        for i in range(len(texts) - n):
            for system in (None, texts[-i]):
                messages = turns(*texts[i:i + n], system=system)
                assert nl.chat_tokens(messages, TOKENIZER) == written_out(messages)


@pytest.mark.parametrize("control", ["<s>", "</s>", "<unk>"])
def test_chat_keeps_control_tokens_as_text(control):
    message = f"a {control} b{control}"
    ids = nl.chat_tokens(turns(message, message, message, system=message), TOKENIZER)
    assert (ids.count(BOS), ids.count(EOS), ids.count(UNK)) == (2, 1, 0)
    assert TOKENIZER.decode(ids).count(control) == 8


@pytest.mark.parametrize("roles", [[], ["system"], ["assistant"], ["user", "user"], ["system", "assistant"], ["tool"],
                                   ["user", "system"], ["system", "system", "user"],
                                   ["user", "assistant", "assistant"]])
def test_chat_in_another_order(roles):
    found = ", ".join(roles) or "empty"
    with pytest.raises(nl.InputError, match=f"user, assistant, user, ...: not {found}$"):
        nl.chat_tokens([{"role": role, "content": "x"} for role in roles], TOKENIZER)


def test_messages_are_not_changed():
    messages = turns("Hi", "Ho", "He", system="Be brief.")
    before = [dict(message) for message in messages]
    nl.chat_tokens(messages, TOKENIZER)
    assert messages == before
