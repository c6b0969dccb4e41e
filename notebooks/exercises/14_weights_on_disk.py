"""The exercises of lesson 14, for checks.py; README.md in the folder above says how to write one."""
import json
import math

import numpy as np
from checks import Exercise, random


def file_of(named, pad=0, metadata=None):
    """A safetensors file in memory, of float32 arrays: bytes, header, where the numbers begin."""
    header, end = {}, 0
    for name, x in named.items():
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [end, end + x.nbytes]}
        end += x.nbytes
    header |= metadata or {}
    text = json.dumps(header).encode() + b" " * pad
    return len(text).to_bytes(8, "little") + text + b"".join(x.tobytes() for x in named.values()), header, 8 + len(text)


FILES = [file_of({"a": random(3, 4), "b": random(5, 2, seed=1)}), file_of({"w": random(2, 6, seed=2)}, pad=7),
         file_of({f"layer.{i}": random(4, 3, seed=i) for i in range(9)})]


SCALAR = {"x": np.float32(3).reshape(()), "y": random(2, 3, 4)}
NOTED = [FILES[0][0], FILES[2][0], file_of({"a": random(5)}, metadata={"__metadata__": {"format": "np"}})[0],
         file_of(SCALAR)[0]]


def n_parameters(data):
    length = sum(byte * 256**i for i, byte in enumerate(data[:8]))
    total = 0
    for name, entry in json.loads(data[8:8 + length].decode()).items():
        if name != "__metadata__":
            total += math.prod(entry["shape"])
    return total


def over_tensors(data, each):
    length = int.from_bytes(data[:8], "little")
    return sum(each(entry) for name, entry in json.loads(data[8:8 + length]).items() if name != "__metadata__")


N_PARAMETERS = Exercise(
    n_parameters, stars=1, minutes=10, tolerance=0,
    inputs=[(data,) for data in NOTED],
    hints=[
        "Where does the header begin, and how long is it? What does it say about each tensor?",
        "The product of a tensor's shape is its count; __metadata__ has no shape.",
        "n = int.from_bytes(data[:8], \"little\"); json.loads(data[8:8 + n]) is a dict of {\"shape\": ...} by name."],
    mistakes=[
        ("those are bytes; each number here has 4 of them, in other files 2.",
         lambda data: over_tensors(data, lambda entry: entry["data_offsets"][1] - entry["data_offsets"][0])),
        ("those are the tensors; each holds the product of its shape.",
         lambda data: over_tensors(data, lambda entry: 1)),
        ("you added the sizes of a shape; a tensor holds their product.",
         lambda data: over_tensors(data, lambda entry: sum(entry["shape"]))),
        ("you counted the largest tensor only; add all of them up.",
         lambda data: max(over_tensors(data, lambda entry, i=i: math.prod(entry["shape"]) if entry == i else 0)
                          for name, i in json.loads(data[8:8 + int.from_bytes(data[:8], "little")]).items()
                          if name != "__metadata__")),
        ("the whole file is counted, with its eight bytes and its header.",
         lambda data: len(data) // 4),
        ("the eight bytes before the header are no parameters.",
         lambda data: n_parameters(data) + 8),
    ],
    wrong_answers=[
        ("those are bytes", """
def n_parameters(data):
    return len(data) - 8 - int.from_bytes(data[:8], "little")"""),
        ("those are the tensors", """
def n_parameters(data):
    import json
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    return len([name for name in header if name != "__metadata__"])"""),
        ("product", """
def n_parameters(data):
    import json
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    return sum(sum(entry["shape"]) for name, entry in header.items() if not name.startswith("__"))"""),
        ("whole file", """
def n_parameters(data):
    return len(data) // 4"""),
        ("KeyError", """
def n_parameters(data):
    import json
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    return sum(int(np.prod(entry["shape"])) for entry in header.values())"""),
    ])


def bits16(*x):
    return np.array(x, np.uint16)


def from_float16(bits):
    values = []
    for number in bits.tolist():
        s, e, m = number >> 15, number >> 10 & 31, number & 1023
        size = math.ldexp(1024 + m, e - 25) if e else math.ldexp(m, -24)
        values.append(-size if s else size)
    return np.array(values, np.float32)


def half_with(b=15, one=True, sign=True, scale=1024, least=1, mantissa=1023):
    def wrong(bits):
        e = (bits >> 10 & 31).astype(int)
        before = np.where(e == 0, 0, 1) if one else 1
        size = (before + (bits & mantissa) / scale) * 2.0 ** (np.maximum(e, least) - b)
        return (np.where(bits >> 15 == 1, -size, size) if sign else size).astype(np.float32)
    return wrong


FROM_FLOAT16 = Exercise(
    from_float16, stars=2, minutes=15,
    tolerance=0,
    inputs=[
        (bits16(0x3C00, 0xC000, 0x3555, 0x7BFF),), (bits16(0x0001, 0x03FF, 0x8200),), (bits16(0x0400, 0x0000, 0x2E66),),
        (np.arange(0x0000, 0x7C00, 0x0155, dtype=np.uint16),)],
    hints=[
        "Cut the 16 bits into three whole numbers by shifts and masks, as the lesson does for bfloat16. "
        "Where are they?",
        "The mantissa has ten bits: m / 1024. For e = 0 leave the 1 out and use the exponent of e = 1.",
        "s = bits >> 15, e = (bits >> 10) & 31, m = bits & 1023; (1 + m / 1024) * 2.0 ** (e - 15), and for e = 0 "
        "m / 1024 * 2.0 ** -14. Make e a signed integer first."],
    mistakes=[
        ("subnormals are wrong: with e = 0 there is no 1 before the mantissa.",
         half_with(one=False)),
        ("subnormals are half as large as they should be: with e = 0 the exponent is that of e = 1.",
         half_with(least=0)),
        ("subnormals follow the rule of all others in yours: with e = 0 there is no 1, and the exponent is that of "
         "e = 1.",
         half_with(one=False, least=0)),
        ("the sign is missing.",
         half_with(sign=False)),
        ("the mantissa has ten bits: divide it by 1024.",
         half_with(scale=128)),
        ("b is 15 here: 127 belongs to eight bits of exponent.",
         half_with(b=127)),
        ("you read the bits as bfloat16, which has eight bits of exponent; float16 has five.",
         lambda bits: (bits.astype(np.uint32) << 16).view(np.float32)),
        ("you took the bits for whole numbers.",
         lambda bits: bits.astype(np.float32)),
    ],
    wrong_answers=[
        ("follow the rule of all others", """
def from_float16(bits):
    s, e, m = bits >> 15, (bits >> 10 & 31).astype(int), bits & 1023
    return ((1 - 2.0 * s) * (1 + m / 1024) * 2.0 ** (e - 15)).astype(np.float32)"""),
        ("half as large", """
def from_float16(bits):
    s, e, m = bits >> 15, (bits >> 10 & 31).astype(int), bits & 1023
    return ((1 - 2.0 * s) * ((e > 0) + m / 1024) * 2.0 ** (e - 15)).astype(np.float32)"""),
        ("the sign is missing", """
def from_float16(bits):
    e, m = (bits >> 10 & 31).astype(int), bits & 1023
    return (((e > 0) + m / 1024) * 2.0 ** (np.maximum(e, 1) - 15)).astype(np.float32)"""),
        ("as bfloat16", """
def from_float16(bits):
    return np.left_shift(bits, 16, dtype=np.uint32).view(np.float32)"""),
        ("for whole numbers", """
def from_float16(bits):
    return np.float32(bits)"""),
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
        "Three distances lead to your first row: to the numbers, to the tensor, and within the tensor.",
        "Offsets count from start, in bytes; each number has 4. np.frombuffer takes a count and an offset.",
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
        "What must be added to the lower half so that it carries into the upper half exactly when it should?",
        "0x8000 carries from the middle on: also at a tie. For an even upper half the tie must not carry.",
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
