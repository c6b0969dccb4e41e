"""The exercises of lesson 14, for checks.py; README.md in the folder above says how to write one."""
import json
import math

import numpy as np
from checks import Exercise, random


def file_of(named, pad=0):
    """A safetensors file in memory, of float32 arrays: bytes, header, where the numbers begin."""
    header, end = {}, 0
    for name, x in named.items():
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [end, end + x.nbytes]}
        end += x.nbytes
    text = json.dumps(header).encode() + b" " * pad
    return len(text).to_bytes(8, "little") + text + b"".join(x.tobytes() for x in named.values()), header, 8 + len(text)


FILES = [file_of({"a": random(3, 4), "b": random(5, 2, seed=1)}), file_of({"w": random(2, 6, seed=2)}, pad=7),
         file_of({f"layer.{i}": random(4, 3, seed=i) for i in range(9)})]


def read_header(data):
    n = sum(byte * 256**i for i, byte in enumerate(data[:8]))
    return json.loads(data[8:n + 8].decode()), n + 8


READ_HEADER = Exercise(
    read_header, stars=1, minutes=5,
    inputs=[(data,) for data, _, _ in FILES],
    hints=[
        "The first eight bytes count the bytes of JSON that follow, least significant byte first."],
    mistakes=[
        ("where the numbers begin is 8 bytes further: the count itself comes before the header.",
         lambda data: (read_header(data)[0], read_header(data)[1] - 8)),
        ("that is where the header begins; the numbers begin after it, at 8 + n.",
         lambda data: (read_header(data)[0], 8)),
        ("that is the whole file's length; the numbers begin at 8 + n.",
         lambda data: (read_header(data)[0], len(data))),
        ("the header is still text: json.loads makes a dict of it.",
         lambda data: (data[8:read_header(data)[1]].decode(), read_header(data)[1])),
        ("the header is still bytes: json.loads makes a dict of it.",
         lambda data: (data[8:read_header(data)[1]], read_header(data)[1])),
        ("that is the header alone; return also where the numbers begin: (dict, 8 + n).",
         lambda data: read_header(data)[0]),
        ("the two are in the wrong order: the dict first.",
         lambda data: read_header(data)[::-1]),
    ],
    wrong_answers=[
        ("is 8 bytes further", """
def read_header(data):
    import json, struct
    n, = struct.unpack("<Q", data[:8])
    return json.loads(data[8:8 + n]), n"""),
        ("where the header begins", """
def read_header(data):
    import json
    n = int.from_bytes(data[:8], "little")
    return json.loads(data[8:8 + n]), 8"""),
        ("still text", """
def read_header(data):
    n = int.from_bytes(data[:8], "little")
    return data[8:8 + n].decode("utf-8"), 8 + n"""),
        ("still bytes", """
def read_header(data):
    n = int(np.frombuffer(data[:8], "<u8")[0])
    return data[8:8 + n], 8 + n"""),
        ("that is the header alone", """
def read_header(data):
    import json
    n = int.from_bytes(data[:8], "little")
    return json.loads(data[8:8 + n])"""),
        ("in the wrong order", """
def read_header(data):
    import json
    n = int.from_bytes(data[:8], "little")
    return n + 8, json.loads(data[8:8 + n])"""),
    ])


def bits16(*x):
    return np.array(x, np.uint16)


def widen(bits):
    values = []
    for number in bits.ravel().tolist():
        s, e, m = number >> 15, number >> 7 & 255, number & 127
        size = math.inf if e == 255 else (1 + m / 128) * 2.0**(e - 127) if e else m / 128 * 2.0**-126
        values.append(-size if s else size)
    return np.array(values, np.float32).reshape(bits.shape)


WIDEN = Exercise(
    widen, stars=2, minutes=10,
    tolerance=0,
    inputs=[
        (bits16(0x3F80, 0xC020, 0x3DCD),), (bits16(0, 0x8000, 0x0001, 0x7F7F),), (bits16(0x3EAB, 0xBEAB)[:, None],),
        (np.arange(0x3C00, 0x3C0C, dtype=np.uint16).reshape(3, 4),), (bits16(0x7F80, 0xFF80),)],
    hints=[
        "Put the 16 bits into the upper half of 32, and view those as float32."],
    mistakes=[
        ("you read the bits as float16, which has five bits of exponent; bfloat16 has eight.",
         lambda bits: bits.view(np.float16).astype(np.float32)),
        ("you took the bits for whole numbers; they are the bits of a float32's upper half (view, not astype).",
         lambda bits: bits.astype(np.float32)),
        ("after the shift you converted the whole number; .view(np.float32) takes its bits as they are.",
         lambda bits: (bits.astype(np.uint32) << 16).astype(np.float32)),
        ("you shifted 16 bits out of a uint16, and all were lost: make it uint32 first.",
         lambda bits: (bits << 16).astype(np.uint32).view(np.float32)),
        ("the bits are in the lower half, where a float32 has the end of its mantissa: shift them up by 16.",
         lambda bits: bits.astype(np.uint32).view(np.float32)),
        ("you shifted by 8 bits; the upper half begins at bit 16.",
         lambda bits: (bits.astype(np.uint32) << 8).view(np.float32)),
        ("you filled the lower half with the same bits again; it is zero.",
         lambda bits: (bits.astype(np.uint32) << 16 | bits).view(np.float32)),
    ],
    wrong_answers=[
        ("as float16", """
def widen(bits):
    return np.frombuffer(bits.tobytes(), np.float16).reshape(bits.shape).astype(np.float32)"""),
        ("for whole numbers", """
def widen(bits):
    return np.float32(bits)"""),
        ("converted the whole number", """
def widen(bits):
    return (bits.astype(np.uint32) * 65536).astype(np.float32)"""),
        ("all were lost", """
def widen(bits):
    shifted = np.left_shift(bits, np.uint16(16))
    return shifted.astype(np.uint32).view(np.float32)"""),
        ("in the lower half", """
def widen(bits):
    return bits.astype("uint32").view("float32")"""),
        ("shifted by 8", """
def widen(bits):
    return np.left_shift(bits, 8, dtype=np.uint32).view(np.float32)"""),
    ])


def read_rows(data, header, start, name, first, last):
    rows, columns = header[name]["shape"]
    begin, end = header[name]["data_offsets"]
    every = np.frombuffer(data[start:][begin:end], "<f4")
    return np.array([every[i * columns:(i + 1) * columns] for i in range(first, last)], np.float32)


def rows_at(data, begin, columns, first, last, dtype=np.float32):
    size = (last - first) * columns * np.dtype(dtype).itemsize
    return np.frombuffer(data[begin:begin + size], dtype).reshape(-1, columns)


def place(header, name):
    return header[name]["shape"][1], header[name]["data_offsets"][0]


READ_ROWS = Exercise(
    read_rows, stars=2, minutes=10,
    tolerance=0,
    inputs=[
        (*FILES[0], "b", 1, 3), (*FILES[0], "a", 0, 3), (*FILES[0], "b", 4, 5), (*FILES[1], "w", 1, 2),
        (*FILES[2], "layer.7", 2, 4), (*FILES[2], "layer.0", 1, 2)],
    hints=[
        "A row is 4 bytes times the columns; begin at start, plus the tensor's offset, plus first rows."],
    mistakes=[
        ("you forgot start: the offsets count from the end of the header, not from the file's first byte.",
         lambda data, h, start, name, i, j: rows_at(
             data, place(h, name)[1] + 4 * place(h, name)[0] * i, place(h, name)[0], i, j)),
        ("you forgot the tensor's own offset (data_offsets): that is the first tensor of the file.",
         lambda data, h, start, name, i, j: rows_at(data, start + 4 * place(h, name)[0] * i, place(h, name)[0], i, j)),
        ("you began at the tensor's first row; first rows of 4 * columns bytes come before yours.",
         lambda data, h, start, name, i, j: rows_at(data, start + place(h, name)[1], place(h, name)[0], i, j)),
        ("you skipped first numbers, or bytes times 4, not first rows: a row has 4 * columns bytes.",
         lambda data, h, start, name, i, j: rows_at(data, start + place(h, name)[1] + 4 * i, place(h, name)[0], i, j)),
        ("you skipped columns bytes for each row; a number has 4 bytes, so a row has 4 * columns.",
         lambda data, h, start, name, i, j: rows_at(data, start + place(h, name)[1] + i * place(h, name)[0],
                                                    place(h, name)[0], i, j)),
        ("that is the whole tensor; only the rows from first up to last are asked for.",
         lambda data, h, start, name, i, j: read_rows(data, h, start, name, 0, h[name]["shape"][0])),
        ("last itself is not included: there are last - first rows.",
         lambda data, h, start, name, i, j: read_rows(data, h, start, name, i, min(j + 1, h[name]["shape"][0]))),
        ("those are columns of the tensor; the first index of its shape counts rows.",
         lambda data, h, start, name, i, j: read_rows(data, h, start, name, 0, h[name]["shape"][0])[:, i:j]),
    ],
    wrong_answers=[
        ("forgot start", """
def read_rows(data, header, start, name, first, last):
    columns = header[name]["shape"][1]
    at = header[name]["data_offsets"][0] + first * columns * 4
    return np.frombuffer(data[at:at + 4 * columns * (last - first)], np.float32).reshape(-1, columns)"""),
        ("the tensor's own offset", """
def read_rows(data, header, start, name, first, last):
    columns = header[name]["shape"][1]
    at = start + first * columns * 4
    return np.frombuffer(data[at:at + 4 * columns * (last - first)], np.float32).reshape(-1, columns)"""),
        ("first row; first rows", """
def read_rows(data, header, start, name, first, last):
    rows, columns = header[name]["shape"]
    at = start + header[name]["data_offsets"][0]
    x = np.frombuffer(data[at:at + 4 * rows * columns], np.float32).reshape(rows, columns)
    return x[:last - first]"""),
        ("not first rows", """
def read_rows(data, header, start, name, first, last):
    columns = header[name]["shape"][1]
    at = start + header[name]["data_offsets"][0] + first * 4
    return np.frombuffer(data[at:at + 4 * columns * (last - first)], np.float32).reshape(-1, columns)"""),
        ("columns bytes for each row", """
def read_rows(data, header, start, name, first, last):
    columns = header[name]["shape"][1]
    at = start + header[name]["data_offsets"][0] + first * columns
    return np.frombuffer(data[at:at + 4 * columns * (last - first)], np.float32).reshape(-1, columns)"""),
        ("that is the whole tensor", """
def read_rows(data, header, start, name, first, last):
    a, b = header[name]["data_offsets"]
    return np.frombuffer(data[start + a:start + b], np.float32).reshape(header[name]["shape"])"""),
        ("last itself is not included", """
def read_rows(data, header, start, name, first, last):
    a, b = header[name]["data_offsets"]
    return np.frombuffer(data[start + a:start + b], np.float32).reshape(header[name]["shape"])[first:last + 1]"""),
        ("those are columns", """
def read_rows(data, header, start, name, first, last):
    a, b = header[name]["data_offsets"]
    return np.frombuffer(data[start + a:start + b], np.float32).reshape(header[name]["shape"])[:, first:last]"""),
    ])


def bits32(*x):
    return np.array(x, np.uint32).view(np.float32)


def to_bfloat16(x):
    bits = []
    for number in x.ravel().view(np.uint32).tolist():
        upper, lower = divmod(number, 2**16)
        bits.append(upper + (lower > 2**15 or lower == 2**15 and upper % 2 == 1))
    return np.array(bits, np.uint16).reshape(x.shape)


def rounded_up(x, add):
    return (x.view(np.uint32) + np.uint32(add) >> 16).astype(np.uint16)


TO_BFLOAT16 = Exercise(
    to_bfloat16, stars=3, minutes=15,
    tolerance=0,
    inputs=[
        (random(4, 5),), (bits32(0x3F808000, 0x3F818000, 0x3F828000, 0xBF838000),),
        (bits32(0x3F80FFFF, 0x3F807FFF, 0x3FFFFFFF),),
        (bits32(0, 0x80000000, 0x7F800000, 0xFF800000),), (bits32(0x3F808001, 0xC0008000),),
        (random(2, 3, 4, seed=3, scale=1e-20),)],
    hints=[
        "Round the 32 bits to the upper 16: to the nearest, and a tie to the one whose last bit is 0."],
    mistakes=[
        ("you cut the lower half off: that rounds towards zero, not to the nearest.",
         lambda x: rounded_up(x, 0)),
        ("nearly: a tie goes up, even if the upper half was even. Add 0x7FFF, and 1 only if it is odd.",
         lambda x: rounded_up(x, 0x8000)),
        ("nearly: a tie always goes down; it goes up if the upper half is odd.",
         lambda x: rounded_up(x, 0x7FFF)),
        ("a tie goes to the odd side; it goes to the even one (add 1 if the upper half is odd).",
         lambda x: ((x.view(np.uint32) + 0x8000 - (x.view(np.uint32) >> 16 & 1)) >> 16).astype(np.uint16)),
        ("those are the bits of float16, which has another exponent.",
         lambda x: x.astype(np.float16).view(np.uint16)),
        ("that is the lower half, the end of the mantissa; the upper half is wanted.",
         lambda x: x.view(np.uint32).astype(np.uint16)),
        ("you converted the number to an integer; .view(np.uint32) takes its bits as they are.",
         lambda x: x.astype(np.int64).astype(np.uint16)),
        ("those are the numbers, rounded; what is asked for are their 16 bits, as uint16.",
         lambda x: (to_bfloat16(x).astype(np.uint32) << 16).view(np.float32)),
    ],
    wrong_answers=[
        ("cut the lower half", """
def to_bfloat16(x):
    return (x.view(np.uint32) >> 16).astype(np.uint16)"""),
        ("a tie goes up", """
def to_bfloat16(x):
    return ((x.view(np.uint32) + 32768) // 65536).astype(np.uint16)"""),
        ("a tie always goes down", """
def to_bfloat16(x):
    bits = x.view(np.uint32)
    upper, lower = bits >> 16, bits & 0xFFFF
    return (upper + (lower > 0x8000)).astype(np.uint16)"""),
        ("to the odd side", """
def to_bfloat16(x):
    bits = x.view(np.uint32)
    upper, lower = bits >> 16, bits & 0xFFFF
    up = (lower > 0x8000) | ((lower == 0x8000) & (upper % 2 == 0))
    return (upper + up).astype(np.uint16)"""),
        ("bits of float16", """
def to_bfloat16(x):
    return np.float16(x).view(np.uint16)"""),
        ("the lower half, the end", """
def to_bfloat16(x):
    return (x.view(np.uint32) & 0xFFFF).astype(np.uint16)"""),
        ("their 16 bits, as uint16", """
def to_bfloat16(x):
    import ml_dtypes
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)"""),
    ])
