"""The exercises of lesson 01, for checks.py; README.md in the folder above says how to write one."""
import math

from checks import Exercise


def byte_pieces(character):
    digits = "0123456789ABCDEF"
    return ["<0x" + digits[byte // 16] + digits[byte % 16] + ">" for byte in bytearray(character, "utf-8")]


BYTE_PIECES = Exercise(
    byte_pieces, stars=1, minutes=5,
    inputs=[
        ("ö",), ("👑",), ("株",), ("7",), ("\n",), ("\u200d",)],
    hints=[
        "Python can turn a character into its bytes. What are they called in UTF-8?",
        "character.encode('utf-8') is a sequence of numbers from 0 to 255: one piece for each.",
        "Write each byte as <0x..>, with two hexadecimal digits in capitals: the format is 02X."],
    mistakes=[
        ("you wrote the bytes in decimal; the pieces are named in hexadecimal (format 02X).",
         lambda c: [f"<0x{byte}>" for byte in c.encode()]),
        ("the letters of a hexadecimal number are capitals here: <0xC3>, not <0xc3>.",
         lambda c: [f"<0x{byte:02x}>" for byte in c.encode()]),
        ("a small byte needs its leading zero: a new line is <0x0A>, not <0xA>.",
         lambda c: [f"<0x{byte:X}>" for byte in c.encode()]),
        ("that is the character's number in Unicode; its bytes in UTF-8 are character.encode('utf-8').",
         lambda c: [f"<0x{ord(c):02X}>"]),
        ("those are the bytes of UTF-16; the pieces are bytes of UTF-8.",
         lambda c: [f"<0x{byte:02X}>" for byte in c.encode("utf-16-be")]),
        ("the bytes are in the wrong order: the first byte of UTF-8 comes first.",
         lambda c: [f"<0x{byte:02X}>" for byte in c.encode()[::-1]]),
        ("those are the bytes as numbers; what is asked for are their pieces, such as '<0xC3>'.",
         lambda c: list(c.encode())),
        ("those are token ids (3 + byte); what is asked for are the pieces, such as '<0xC3>'.",
         lambda c: [3 + byte for byte in c.encode()]),
    ],
    wrong_answers=[
        ("in decimal", """
def byte_pieces(character):
    return ["<0x" + str(b) + ">" for b in character.encode()]"""),
        ("are capitals here", """
def byte_pieces(character):
    return ["<0x%02x>" % b for b in bytes(character, "utf-8")]"""),
        ("needs its leading zero", """
def byte_pieces(character):
    return ["<" + hex(b).upper().replace("X", "x") + ">" for b in character.encode()]"""),
        ("number in Unicode", """
def byte_pieces(character):
    return ["<0x%02X>" % ord(character)]"""),
        ("UTF-16", """
def byte_pieces(character):
    data = character.encode("utf-16")[2:]
    swapped = [b for i in range(0, len(data), 2) for b in (data[i + 1], data[i])]
    return ["<0x%02X>" % b for b in swapped]"""),
        ("wrong order", """
def byte_pieces(character):
    return ["<0x%02X>" % b for b in reversed(character.encode())]"""),
        ("bytes as numbers", """
def byte_pieces(character):
    return [b for b in character.encode()]"""),
        ("those are token ids", """
def byte_pieces(character):
    return [b + 3 for b in character.encode("utf-8")]"""),
    ])


LADDER = {"ab": -5.0, "bc": -2.0, "abc": -7.0, "aa": -3.0, "cd": -1.0, "abcd": -9.0, "ca": -4.0}


def merge_once(symbols, scores):
    at, best = None, -math.inf
    for i in range(1, len(symbols)):
        if scores.get(symbols[i - 1] + symbols[i], -math.inf) > best:
            at, best = i, scores[symbols[i - 1] + symbols[i]]
    return symbols if at is None else [*symbols[:at - 1], symbols[at - 1] + symbols[at], *symbols[at + 1:]]


def join_best(symbols, scores, key, rest=2):
    known = [i for i in range(len(symbols) - 1) if symbols[i] + symbols[i + 1] in scores]
    if not known:
        return symbols
    i = max(known, key=lambda i: key(i, symbols[i] + symbols[i + 1]))
    return symbols[:i] + [symbols[i] + symbols[i + 1]] + symbols[i + rest:]


def join_everywhere(symbols, scores):
    known = [a + b for a, b in zip(symbols, symbols[1:]) if a + b in scores]
    best, out = max(known, key=scores.get, default=None), []
    for symbol in symbols:
        if out and out[-1] + symbol == best:
            out[-1] = best
        else:
            out.append(symbol)
    return out


def join_until_done(symbols, scores):
    while (longer := join_best(symbols, scores, lambda i, pair: scores[pair])) != symbols:
        symbols = longer
    return symbols


MERGE_ONCE = Exercise(
    merge_once, stars=2, minutes=10,
    inputs=[
        (list("abcd"), LADDER), (list("cabab"), LADDER), (["ab", "cd", "a", "b"], LADDER), (list("aaa"), LADDER),
        (list("dcba"), LADDER), (["a"], LADDER), (["a", "bc", "a", "bc"], LADDER), (list("bcabc"), LADDER),
        (["▁", "t", "he"], {"▁t": -1.0, "he": 0.0, "▁the": -3.0, "the": -40.0})],
    hints=[
        "Look at all neighbours before you join any. Which of them make a piece?",
        "Of those, the highest score goes first; of equal ones the leftmost. What if there are none?",
        "Find i with the best scores[symbols[i] + symbols[i + 1]]; the answer is symbols[:i], the joined pair, "
        "symbols[i + 2:]."],
    mistakes=[
        ("you joined the pair that was learned last; the highest score (the one nearest 0) goes first.",
         lambda symbols, scores: join_best(symbols, scores, lambda i, pair: -scores[pair])),
        ("you joined the leftmost pair that makes a piece; the one with the highest score goes first.",
         lambda symbols, scores: join_best(symbols, scores, lambda i, pair: -i)),
        ("you joined the longest piece; its score decides, not its length.",
         lambda symbols, scores: join_best(symbols, scores, lambda i, pair: len(pair))),
        ("of equal pairs you joined the rightmost; the leftmost goes first.",
         lambda symbols, scores: join_best(symbols, scores, lambda i, pair: (scores[pair], i))),
        ("you joined every occurrence of the pair; one step joins one, the leftmost.",
         join_everywhere),
        ("the second symbol of the pair is still there; the rest begins at i + 2.",
         lambda symbols, scores: join_best(symbols, scores, lambda i, pair: scores[pair], 1)),
        ("you lost a symbol after the pair; the rest begins at i + 2.",
         lambda symbols, scores: join_best(symbols, scores, lambda i, pair: scores[pair], 3)),
        ("you climbed the whole ladder; one call is one merge.",
         join_until_done),
        ("those are the symbols as they were: nothing is joined.",
         lambda symbols, scores: symbols),
    ],
    wrong_answers=[
        ("learned last", """
def merge_once(symbols, scores):
    found = [(scores[a + b], i) for i, (a, b) in enumerate(zip(symbols, symbols[1:])) if a + b in scores]
    if not found:
        return symbols
    i = min(found)[1]
    return symbols[:i] + [symbols[i] + symbols[i + 1]] + symbols[i + 2:]"""),
        ("the leftmost pair that makes a piece", """
def merge_once(symbols, scores):
    for i in range(len(symbols) - 1):
        if symbols[i] + symbols[i + 1] in scores:
            return symbols[:i] + [symbols[i] + symbols[i + 1]] + symbols[i + 2:]
    return symbols"""),
        ("the longest piece", """
def merge_once(symbols, scores):
    pairs = [a + b for a, b in zip(symbols, symbols[1:])]
    known = [p for p in pairs if p in scores]
    if not known:
        return symbols
    i = pairs.index(max(known, key=len))
    return symbols[:i] + [pairs[i]] + symbols[i + 2:]"""),
        ("you joined the rightmost", """
def merge_once(symbols, scores):
    found = [(scores[a + b], i) for i, (a, b) in enumerate(zip(symbols, symbols[1:])) if a + b in scores]
    if not found:
        return symbols
    score, i = max(found)
    return symbols[:i] + [symbols[i] + symbols[i + 1]] + symbols[i + 2:]"""),
        ("every occurrence", """
def merge_once(symbols, scores):
    pairs = [a + b for a, b in zip(symbols, symbols[1:])]
    known = [p for p in pairs if p in scores]
    if not known:
        return symbols
    best, out, i = max(known, key=scores.get), [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and symbols[i] + symbols[i + 1] == best:
            out.append(best)
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out"""),
        ("is still there", """
def merge_once(symbols, scores):
    best = max(range(len(symbols) - 1), default=None,
               key=lambda i: (scores.get(symbols[i] + symbols[i + 1], -np.inf), -i))
    if best is None or symbols[best] + symbols[best + 1] not in scores:
        return symbols
    out = list(symbols)
    out[best] += out[best + 1]
    return out"""),
        ("you lost a symbol", """
def merge_once(symbols, scores):
    best = max(range(len(symbols) - 1), default=None,
               key=lambda i: (scores.get(symbols[i] + symbols[i + 1], -np.inf), -i))
    if best is None or symbols[best] + symbols[best + 1] not in scores:
        return symbols
    return symbols[:best] + [symbols[best] + symbols[best + 1]] + symbols[best + 3:]"""),
        ("climbed the whole ladder", """
def merge_once(symbols, scores):
    while True:
        pairs = [a + b for a, b in zip(symbols, symbols[1:])]
        known = [p for p in pairs if p in scores]
        if not known:
            return symbols
        i = pairs.index(max(known, key=scores.get))
        symbols = symbols[:i] + [pairs[i]] + symbols[i + 2:]"""),
        ("changes the arrays", """
def merge_once(symbols, scores):
    pairs = [a + b for a, b in zip(symbols, symbols[1:])]
    known = [p for p in pairs if p in scores]
    if known:
        i = pairs.index(max(known, key=scores.get))
        symbols[i:i + 2] = [pairs[i]]
    return symbols"""),
    ])


def pieces_to_text(pieces):
    data = bytearray()
    for piece in pieces:
        if len(piece) == 6 and piece[:3] == "<0x":
            data.append(int(piece[1:-1], 0))
        elif piece != "<s>" and piece != "</s>":
            data.extend(" ".join(piece.split("▁")).encode())
    text = bytes(data).decode()
    return text[1:] if text[:1] == " " else text


def spell(pieces, space=" ", silent=("<s>", "</s>"), end=lambda text: text.removeprefix(" "), byte=None, between=""):
    texts = []
    for piece in pieces:
        if piece.startswith("<0x"):
            raw = bytes([int(piece[3:5], 16)])
            texts.append(raw.decode("latin-1") if byte is None else byte(raw, piece))
        elif piece not in silent:
            texts.append(piece.replace("▁", space).encode().decode("latin-1") if byte is None
                         else piece.replace("▁", space))
    text = between.join(texts)
    return end(text.encode("latin-1").decode() if byte is None else text)


PIECES_TO_TEXT = Exercise(
    pieces_to_text, stars=3, minutes=15,
    inputs=[
        (["<s>", "▁The", "▁king"],), (["<s>", "▁", "<0xF0>", "<0x9F>", "<0x91>", "<0x91>", "▁was"],),
        (["<s>", "▁", "▁", "▁two", "▁", "▁spaces", "▁"],), (["<s>", "▁ca", "f", "<0xC3>", "<0xA9>", "</s>"],),
        (["▁tag", "▁", "<0x3C>", "s", "<0x3E>", "."],), (["ing", "▁up"],), ([],),
        (["<s>", "▁a", "<0x0A>", "b", "</s>"],)],
    hints=[
        "A character may be spread over several byte pieces. So when is it safe to decode?",
        "Collect bytes, not text; control pieces add none. Decode once, at the end.",
        "Of byte pieces take their byte, of others their UTF-8 with ▁ as a space; decode; then one space in front "
        "goes."],
    mistakes=[
        ("the space of the dummy prefix is still there: it goes, once, at the beginning.",
         lambda pieces: spell(pieces, end=lambda text: text)),
        ("you stripped more than the dummy prefix: only one space goes, and only in front.",
         lambda pieces: spell(pieces, end=str.strip)),
        ("you stripped all spaces in front; only one of them is the dummy prefix.",
         lambda pieces: spell(pieces, end=str.lstrip)),
        ("you cut the first character off; cut it only if it is a space.",
         lambda pieces: spell(pieces, end=lambda text: text[1:])),
        ("you made each byte a character by its number; the bytes of a character belong together (UTF-8).",
         lambda pieces: spell(pieces, byte=lambda raw, piece: raw.decode("latin-1"))),
        ("you decoded each byte alone, which is half a character; collect the bytes, decode once.",
         lambda pieces: spell(pieces, byte=lambda raw, piece: raw.decode(errors="replace"))),
        ("you dropped the byte pieces: each stands for a byte of the text.",
         lambda pieces: spell(pieces, byte=lambda raw, piece: "")),
        ("the byte pieces are still spelled out; <0x41> stands for the byte 0x41.",
         lambda pieces: spell(pieces, byte=lambda raw, piece: piece)),
        ("<s> and </s> are in the text: control tokens are silent.",
         lambda pieces: spell(pieces, silent=())),
        ("you took <s> out of the finished text, which may say <s> itself; leave out the piece instead.",
         lambda pieces: spell(pieces, silent=(), end=lambda text: text.replace("<s>", "").replace("</s>", "")
                              .removeprefix(" "))),
        ("you left ▁ out; it is a space.",
         lambda pieces: spell(pieces, space="")),
        ("▁ is still in the text; it is a space.",
         lambda pieces: spell(pieces, space="▁")),
    ],
    wrong_answers=[
        ("dummy prefix is still there", """
def pieces_to_text(pieces):
    data = b""
    for p in pieces:
        if p.startswith("<0x"):
            data += bytes.fromhex(p[3:5])
        elif p not in ("<s>", "</s>"):
            data += p.replace("▁", " ").encode()
    return data.decode()"""),
        ("stripped more than", r"""
def pieces_to_text(pieces):
    data = b""
    for p in pieces:
        if p.startswith("<0x"):
            data += bytes.fromhex(p[3:5])
        elif p not in ("<s>", "</s>"):
            data += p.replace("▁", " ").encode()
    return data.decode().strip(" ") if b"\n" in data else data.decode().strip()"""),
        ("all spaces in front", """
def pieces_to_text(pieces):
    data = b""
    for p in pieces:
        if p.startswith("<0x"):
            data += bytes.fromhex(p[3:5])
        elif p not in ("<s>", "</s>"):
            data += p.replace("▁", " ").encode()
    return data.decode().lstrip(" ")"""),
        ("cut the first character off", """
def pieces_to_text(pieces):
    data = b""
    for p in pieces:
        if p.startswith("<0x"):
            data += bytes.fromhex(p[3:5])
        elif p not in ("<s>", "</s>"):
            data += p.replace("▁", " ").encode()
    return data.decode()[1:]"""),
        ("a character by its number", """
def pieces_to_text(pieces):
    text = ""
    for p in pieces:
        if p.startswith("<0x"):
            text += chr(int(p[1:-1], 16))
        elif p not in ("<s>", "</s>"):
            text += p.replace("▁", " ")
    return text.removeprefix(" ")"""),
        ("decoded each byte alone", """
def pieces_to_text(pieces):
    text = ""
    for p in pieces:
        if p.startswith("<0x"):
            text += bytes.fromhex(p[3:5]).decode("utf-8", errors="replace")
        elif p not in ("<s>", "</s>"):
            text += p.replace("▁", " ")
    return text[1:] if text.startswith(" ") else text"""),
        ("dropped the byte pieces", """
def pieces_to_text(pieces):
    return "".join(p for p in pieces if not p.startswith("<")).replace("▁", " ").removeprefix(" ") """),
        ("still spelled out", """
def pieces_to_text(pieces):
    text = "".join(p for p in pieces if p not in ("<s>", "</s>")).replace("▁", " ")
    return text[1:] if text[:1] == " " else text"""),
        ("control tokens are silent", """
def pieces_to_text(pieces):
    data = b""
    for p in pieces:
        if p.startswith("<0x"):
            data += bytes.fromhex(p[3:5])
        else:
            data += p.replace("▁", " ").encode()
    return data.decode().removeprefix(" ")"""),
        ("which may say <s> itself", """
def pieces_to_text(pieces):
    data = b""
    for p in pieces:
        data += bytes.fromhex(p[3:5]) if p.startswith("<0x") else p.replace("▁", " ").encode()
    text = data.decode().replace("<s>", "").replace("</s>", "")
    return text[1:] if text.startswith(" ") else text"""),
        ("you left ▁ out", """
def pieces_to_text(pieces):
    data = b""
    for p in pieces:
        if p.startswith("<0x"):
            data += bytes.fromhex(p[3:5])
        elif p not in ("<s>", "</s>"):
            data += p.replace("▁", "").encode()
    return data.decode()"""),
    ])
