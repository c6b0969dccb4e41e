"""The handout: a forward pass with a pencil, and all symbols and names on one page -> handout.pdf.

    python notebooks/handout.py          writes it, as every python notebooks/build.py does

Page 1 is drawn from a run of pencil.py's Llama. Page 2 is made from the README's table of names and from
numpy_llama.py, read as the explorer reads them. Black on white, A4, no text below 9 pt.
"""
import ast
import hashlib
import io
import math
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import figures
import matplotlib.pyplot as plt
import numpy as np
import pencil
from matplotlib.backends.backend_pdf import PdfPages

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
InputError = pencil.nl.InputError
PATH = HERE / "handout.pdf"
WIDTH, HEIGHT = 842, 595                                  # A4 on its side, in points
LEFT, FOLD, RIGHT = 26, 508, 516                          # page 1: where its halves begin, and the fold between them
WIDE = 474                                                # how wide the left half is
LINE, TIGHT = 13.2, 12                                    # from line to line; in what is given
TOP = 253                                                 # where the steps begin, on page 1
WITHIN = 0.04                                             # how far a pencil may be off: measured in test_handout.py
SLOT, NUMBER = 40, 30                                     # a blank, 14 mm; the place of a number in the solution
SMALL = figures.SMALLEST


def sheet():
    """An empty page, its axes in points from the upper left corner."""
    figure = plt.figure(figsize=(WIDTH / 72, HEIGHT / 72))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0)), ax.axis("off")
    return figure, ax


def put(ax, x, y, text, size=SMALL, **options):
    ax.text(x, y, text, fontsize=size, va="baseline", **options)


def rule(ax, x, y, length, width=0.6):
    ax.plot([x, x + length], [y, y], color="black", linewidth=width, linestyle="-", solid_capstyle="butt")


def short(x, style="g"):
    """A number with at most two digits after the point, and a minus that is as wide as a plus."""
    rounded = round(float(x), 2) + 0.0                    # no -0
    return f"{rounded:{style}}".replace("-", "−")


def two_digits(x):
    """A number with two digits after the point: 1.4 is 1.40."""
    return short(x, ".2f")


def pair(row):
    """(a, b) as text."""
    return f"({', '.join(map(short, row))})"


# ---- Page 1: a Llama for pencil ------------------------------------------------------------------------------

@dataclass
class Step:
    """One step of the pass. Each number of `lines` is a blank on the left and itself on the right."""
    title: str
    formula: str
    lines: list                       # of lines: [(label, numbers), ...]
    meaning: str                      # what the solution says of it
    beside: int = 0                   # where its only line begins, if it stands beside the title


def rms(x):
    return np.sqrt(np.mean(np.square(x), axis=-1))


def labelled(letter, numbers):
    """A number for every token: the fields of a line."""
    return list(zip([f"{letter} {pencil.NAMES[0]}", *pencil.NAMES[1:]], numbers[:, None]))


def steps(trace):
    """The pass of the last token, step by step, with the numbers of a run."""
    layer = {name.removeprefix("layers.0."): x for name, x in trace.items()}
    x, h = trace["embedding"], layer["attn_norm"]
    q, k, v = (layer[f"attn.{name}"][0] for name in ("q", "k", "v"))
    q_rope, k_rope = layer["attn.q_rope"][0], layer["attn.k_rope"][0]
    scores, probs = layer["attn.scores"][0, -1], layer["attn.probs"][0, -1]
    below = scores - scores.max()
    logits = trace["logits"][-1]
    below_best = logits - logits.max()
    chances = pencil.nl.softmax(logits)
    best = int(np.argmax(chances))
    words = [pencil.NAMES[i] for i in pencil.PROMPT]
    last = {name: values[-1] for name, values in layer.items() if values.ndim == 2}
    gate, silu = last["ffn.gate"][1], last["ffn.silu"][1]
    return [
        Step("Look up", "x₀, x₁, x₂ are the rows of the three tokens",
             [[(f"x{i}", row) for i, row in zip("₀₁₂", x)]],
             "First number: above 0 for nouns. Second: above 0 for cats, below for dogs."),
        Step("Norm", "rms = √((a² + b²) / 2),  h = (x / rms) · g of attn_norm, number by number",
             [[(f"rms{i}", [size]) for i, size in zip("₀₁₂", rms(x))],
              [(f"h{i}", row) for i, row in zip("₀₁₂", h)]],
             "All rows have one size now. Their directions stay."),
        Step("Query, keys, values", "q = h @ wq,  k = h @ wk,  v = h @ wv",
             [[("q₂", q[-1]), *((f"k{i}", row) for i, row in zip("₀₁₂", k))],
              [(f"v{i}", row) for i, row in zip("₀₁₂", v)]],
             "The key keeps the first number of h, the value the second."),
        Step("Turn", "by the position, pos:  (a cos pos − b sin pos,  b cos pos + a sin pos);  k₀′ = k₀",
             [[("q₂′", q_rope[-1]), ("k₁′", k_rope[1]), ("k₂′", k_rope[2])]],
             "Now a product depends on the distance of the two."),
        Step("Scores", "s = q₂′ · k′ / √2 with k₀′, k₁′, k₂′;  t = s − the largest, so that no e grows large",
             [[*((f"s{i}", [score]) for i, score in zip("₀₁₂", scores)),
               *((f"t{i}", [score]) for i, score in zip("₀₁₂", below))]],
             f"The query fits the key of “{words[int(np.argmax(scores))]}”, one position back, best."),
        Step("Softmax", "e to the power of t;  p = that divided by the sum",
             [[*((f"e{i}", [e]) for i, e in zip("₀₁₂", np.exp(below))), ("sum", [np.exp(below).sum()]),
               *((f"p{i}", [p]) for i, p in zip("₀₁₂", probs))]],
             f"{probs[1]:.0%} of the weight is on “{words[1]}”. The last token sees all: no mask."),
        Step("Mix, write, add", "heads = p₀v₀ + p₁v₁ + p₂v₂,  out = heads @ wo,  x = x₂ + out",
             [[("heads", layer["attn.heads"][0, -1]), ("out", last["attn.out"]), ("x", last["x_attn"])]],
             f"Below 0 in the second number: not {words[1]}, the other noun."),
        Step("Norm", "as in step 2, g of ffn_norm",
             [[("rms", [rms(last["x_attn"])]), ("h", last["ffn_norm"])]],
             "The feed-forward step reads this copy.", beside=210),
        Step("Gate", "gates = h @ gate,  ups = h @ up,  silu = gates · σ(gates), number by number",
             [[("gates", last["ffn.gate"]), ("ups", last["ffn.up"]), ("silu", last["ffn.silu"])]],
             f"Gate 0 is open. Gate 1 lets {two_digits(silu)} of {two_digits(gate)} through."),
        Step("Feed-forward", "hidden = silu · ups, number by number;  out = hidden @ down;  x = x + out",
             [[("hidden", last["ffn.hidden"]), ("out", last["ffn.out"]), ("x", last["x_ffn"])]],
             "The first number is above 0 now: a noun comes next."),
        Step("Norm", "as in step 2, g of norm",
             [[("rms", [rms(last["x_ffn"])]), ("y", trace["norm"][-1])]],
             "The last row, ready to be compared with every token.", beside=210),
        Step("Logits", "y @ output",
             [list(zip(pencil.NAMES, logits[:, None]))],
             f"The largest is that of “{pencil.NAMES[best]}”.", beside=126),
        Step("Softmax", "t = logit − the largest (no √2);  e and p as in step 6",
             [labelled("t", below_best),
              [*labelled("e", np.exp(below_best)), ("sum", [np.exp(below_best).sum()])],
              labelled("p", chances)],
             f"Next comes “{pencil.NAMES[best]}”, with probability {chances[best]:.2f}."),
    ]


def draw_field(ax, x, y, label, numbers, room, slot, draw_number):
    """A label and, `room` points further, its number or its pair: blanks, or the numbers in their places."""
    put(ax, x, y, label)
    x += room
    for i, mark in enumerate(["(", ",", ")"] if len(numbers) == 2 else []):
        put(ax, x + (slot + 4) * i, y, mark)
    for i, number in enumerate(numbers):
        draw_number(ax, x + (slot + 4) * i + 4, y, number)


def draw_blank(ax, x, y, number):
    rule(ax, x + 1, y + 1.5, SLOT - 2)


def draw_number(ax, x, y, number):
    put(ax, x + NUMBER / 2 - 0.5, y, two_digits(number), ha="center", weight="bold")


def draw_blanks(ax, x, y, fields):
    """A line of blanks, in columns over the rest of the left half."""
    pitch = (LEFT + WIDE - x) / max(len(fields), 3)
    room = label_room(max((label for label, _ in fields), key=len))
    for i, (label, numbers) in enumerate(fields):
        draw_field(ax, x + pitch * i, y, label, numbers, room, SLOT, draw_blank)


def label_room(label):
    return 5.5 * len(label) + 2


def draw_matrix(ax, x, y, name, rows, step):
    """A small matrix with its name, or those of its columns, above, between two bars; returns where it ends."""
    width = step * len(rows[0])
    names = [name] if isinstance(name, str) else name
    for i, one in enumerate(names):
        put(ax, x + width * (i + 0.5) / len(names), y, one, ha="center")
    for i, row in enumerate(rows):
        for j, number in enumerate(row):
            put(ax, x + step * (j + 0.5), y + TIGHT * (i + 1), short(number), ha="center")
    for bar in (x, x + width):
        ax.plot([bar, bar], [y + 3, y + TIGHT * len(rows) + 3], color="black", linewidth=0.8, linestyle="-")
    return x + width


def draw_table(ax, x, y, title, function, rows):
    """A table of a function for 0.0, 0.1 and so on: whole numbers down, tenths across, two digits."""
    first, pitch = 20, 16.8
    put(ax, x, y, title)
    for tenth in range(10):
        put(ax, x + first + pitch * tenth, y + TIGHT, f".{tenth}", ha="center", color=figures.GREY)
    rule(ax, x, y + TIGHT + 3, first + pitch * 9.5)
    for whole in range(rows):
        at = y + TIGHT * (2 + whole) + 1
        put(ax, x + 3, at, f"{whole}", color=figures.GREY)
        for tenth in range(10):
            value = f"{function(whole + tenth / 10):.2f}".removeprefix("0").removesuffix(".00")
            put(ax, x + first + pitch * tenth, at, value, ha="center")


def draw_given(ax):
    """The task, the sizes, how to compute and round, and all weights: upper left."""
    weights, c = pencil.weights, pencil.config
    layer = weights["layers"][0]
    prompt = " ".join(pencil.NAMES[i] for i in pencil.PROMPT)
    put(ax, LEFT, 32, "A Llama for pencil", 14, weight="bold")
    put(ax, LEFT + 160, 32, f"V {c.vocab_size}, D {c.dim}, H {c.n_heads}, G {c.n_kv_heads}, d {c.head_dim}, "
                            f"F {c.hidden_dim}, L {c.n_layers};  45 minutes the first time")
    for i, line in enumerate([
            "All you need is on this side. Fold the solution back, along the dashed line.",
            f"What comes after “{prompt}”, at positions 0, 1, 2? We follow the last token alone: one query, q₂.",
            "(a, b) @ W = a · upper row of W + b · lower row.   (a, b) · (c, d) = ac + bd.   eps is left out.",
            "Two digits after the point. In a table, take the nearest entry; of two as near, either.",
            f"So you stay within {WITHIN} of the solution.   A root by trial: 2.6² = 6.76, 2.7² = 7.29, "
            "so √7.15 ≈ 2.67."]):
        put(ax, LEFT, 48 + TIGHT * i, line)
    x, y = LEFT + 62, 50 + 5 * TIGHT
    put(ax, LEFT, y, "embedding")
    for name, row in zip(pencil.NAMES, weights["embedding"]):
        put(ax, x, y, f"{name} {pair(row)}")
        x += 5.4 * len(f"{name} {pair(row)}") + 12
    put(ax, LEFT, y + TIGHT, f"g of attn_norm {pair(layer['attn_norm'])}      g of ffn_norm {pair(layer['ffn_norm'])}"
                             f"      g of norm {pair(weights['norm'])}")
    x, y = LEFT, y + 2 * TIGHT + 3
    for name, matrix in (layer["attn"] | layer["ffn"]).items():
        longest = max(len(short(number)) for number in matrix.ravel())
        x = draw_matrix(ax, x, y, name, matrix, step=max(16, 6 * longest)) + 5
    put(ax, x + 5, y, "output")
    draw_matrix(ax, x + 42, y, pencil.NAMES, weights["output"], step=27)


def draw_tables(ax):
    """What a pencil cannot compute: below the weights."""
    y = 55 + 10 * TIGHT
    draw_table(ax, LEFT, y, "e to the power of −x  (.27 is 0.27)", lambda x: np.exp(-x), 5)
    draw_table(ax, LEFT + 196, y, "sigmoid σ(x);  σ(−x) = 1 − σ(x)", lambda x: 1 / (1 + np.exp(-x)), 5)
    known = [f"{name} {p} = {short(function(p))}" for p in (1, 2) for name, function in (("cos", np.cos),
                                                                                      ("sin", np.sin))]
    for i, line in enumerate(["radians:", *known, f"√2 = {short(np.sqrt(2))}"]):
        put(ax, LEFT + 394, y + TIGHT * (i + 1), line)


def draw_steps(ax, steps):
    """The steps, with blanks: lower left."""
    rule(ax, LEFT, TOP, WIDE, 1)
    y, rows = TOP + LINE, sum(1 + len(step.lines) - bool(step.beside) for step in steps)
    high = (HEIGHT - 20 - y) / (rows - 1)
    for number, step in enumerate(steps, start=1):
        put(ax, LEFT, y, f"{number}", weight="bold")
        put(ax, LEFT + 16, y, f"{step.title}:  {step.formula}")
        if step.beside:
            draw_blanks(ax, LEFT + step.beside, y, step.lines[0])
        else:
            for fields in step.lines:
                y += high
                draw_blanks(ax, LEFT + 16, y, fields)
        y += high


def draw_solution(ax, steps):
    """The numbers, and what they say: right."""
    put(ax, RIGHT, 32, "Solution", 14, weight="bold")
    put(ax, RIGHT, 48, "A run of numpy_llama.py, which keeps all digits. They are")
    put(ax, RIGHT, 48 + TIGHT, "rounded in print only: what you see may not multiply out.")
    y = 48 + 2.6 * TIGHT
    for number, step in enumerate(steps, start=1):
        put(ax, RIGHT, y, f"{number}", weight="bold")
        for line in textwrap.wrap(step.meaning, 60):
            put(ax, RIGHT + 16, y, line)
            y += TIGHT
        for fields in [part for line in step.lines for part in parts_of(line)]:
            x = RIGHT + 14
            for label, numbers in fields:
                draw_field(ax, x, y, label, numbers, label_room(label), NUMBER, draw_number)
                x += label_room(label) + (NUMBER + 4) * len(numbers) + 5
            y += TIGHT
        y += 3


def parts_of(fields):
    """A line of the steps as lines of the solution, about as long as each other."""
    most = 3 if len(fields[0][1]) == 2 else 4
    each = math.ceil(len(fields) / math.ceil(len(fields) / most))
    return [fields[start:start + each] for start in range(0, len(fields), each)]


def pencil_page():
    """Page 1: what is given and the steps with blanks on the left, the solution on the right of a fold."""
    figure, ax = sheet()
    made = steps(pencil.run())
    draw_given(ax)
    draw_tables(ax)
    draw_steps(ax, made)
    draw_solution(ax, made)
    ax.plot([FOLD, FOLD], [20, HEIGHT - 20], color=figures.GREY, linewidth=0.6, linestyle=(0, (4, 3)))
    return figure


# ---- Page 2: symbols and names -------------------------------------------------------------------------------

SYMBOLS = [
    "x  the residual stream, (T, D); every row is a token      h  a normalised copy of it      g  what a norm "
    "multiplies each column by      ⊗  number by number",
    "rms(x) = √(mean of x² + eps)      σ(x) = 1 / (1 + e to the −x)      silu(x) = x σ(x), Swish₁ in GLU      "
    "gate, up, down  W, V, W₂ in GLU",
    "θ  rope_theta, the base; in RoPE θᵢ is what is θ^(−2i/d) here, its i counts from 1, ours from 0      "
    "pairs  (x_i, x_{i + d/2})",
    "keys and values pass through the cache: (G, T, d) → (G, S, d)      query head h reads key head h // (H/G)      "
    "probabilities = softmax(logits)",
    "matrices here are (in, out), in files (out, in)      in feed_forward of numpy_llama.py, x is h, and opened is "
    "silu(h @ gate)",
]
COLUMNS = {"name in a trace": (26, 30), "shape": (153, 12), "what it is": (200, 43), "where it is defined": (392, 33),
           "line": (551, 4), "in numpy_llama.py": (577, 40)}      # where it begins, in points; characters


def names():
    """[(name in a trace, shape, what it is, where it is defined, line, code)] of every name, in order."""
    from explorer import build  # here, as it takes time to import
    known, rows = build.reference(), []
    functions = [node for node in ast.parse(read("numpy_llama.py")).body if isinstance(node, ast.FunctionDef)]
    taps = {(call.lineno, call.args[0].value): (call.args[1], function) for function in functions
            for call in ast.walk(function) if build.is_tap(call)}
    for name in build.bugs.names_of(1):
        about = known[name.removeprefix("layers.0.")]
        papers = "; ".join(paper["text"] for paper in about["where"])
        code = formula(*taps[about["line"], name.split(".")[-1]], build.is_tap)
        rows.append((name.replace(".0.", ".{i}."), f"({', '.join(about['shape'])})", about["what"], papers,
                     str(about["line"]), code))
    return rows


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def formula(value, function, is_tap):
    """The code of a tapped value, without the taps inside; of a variable, what the function first makes it of."""
    variable = value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):     # heads.reshape(H, T, d)
        variable = value.func.value
    if isinstance(variable, ast.Name):
        value = next((node.value for node in ast.walk(function) if isinstance(node, ast.Assign)
                      and ast.unparse(node.targets[0]) == variable.id), value)

    class WithoutTaps(ast.NodeTransformer):
        def visit_Call(self, node):
            self.generic_visit(node)
            return node.args[1] if is_tap(node) else node

    return ast.unparse(WithoutTaps().visit(value)).replace("'", '"')


def letters():
    """The size letters, as numpy_llama.py declares them: lines of text."""
    block = re.search(r"^Size letters.*?\n\n(.*?)\n\n", read("numpy_llama.py"), re.M | re.S)[1]
    block = block.replace("(section 5)", "(section 5 of numpy_llama.py)")
    return [re.sub(r" {3,}", "      ", line.strip()) for line in block.splitlines()]


def weights_lines():
    """The weights and their shapes, as a comment in numpy_llama.py's section 1 shows them: lines of text."""
    block = re.search(r"^#     embedding \(V, D\).*\n(?:#     .*\n)+", read("numpy_llama.py"), re.M)[0]
    return [line.removeprefix("#     ") for line in block.splitlines()]


def papers():
    """The papers of the README's table with their numbers: a line of text."""
    found = re.findall(r"^\[(.+?)\]: https://arxiv.org/abs/(\S+)$", read("README.md"), re.M)
    return "      ".join(f"{name} {number}" for name, number in found)


def names_page():
    """Page 2: size letters, symbols, and every name with its shape, formula, paper and line."""
    figure, ax = sheet()
    put(ax, LEFT, 32, "Symbols and names of a Llama", 14, weight="bold")
    y = 50
    tokens, *sizes = letters()
    for line in [tokens, "      ".join(sizes), *SYMBOLS]:
        put(ax, LEFT, y, line)
        y += LINE
    y += 4
    for heading, (x, _) in COLUMNS.items():
        put(ax, x, y, heading, weight="bold")
    rule(ax, LEFT, y + 4, WIDTH - 2 * LEFT, 1)
    y += LINE + 3
    for row in names():
        cells = [textwrap.wrap(text, width, break_long_words=False) for text, (_, width) in zip(row, COLUMNS.values())]
        for lines, (heading, (x, _)) in zip(cells, COLUMNS.items()):
            for i, line in enumerate(lines):
                is_code = heading in ("name in a trace", "in numpy_llama.py")
                put(ax, x, y + 11 * i, line, family="monospace" if is_code else "DejaVu Sans")
        y += 11 * max(map(len, cells)) + 4.6
        rule(ax, LEFT, y - 10.6, WIDTH - 2 * LEFT, 0.3)
    y += 3
    put(ax, LEFT, y, "weights", weight="bold")
    for line in weights_lines():
        put(ax, LEFT + 52, y, line, family="monospace")
        y += LINE
    put(ax, LEFT, y + 3, "at arXiv", weight="bold")
    put(ax, LEFT + 52, y + 3, papers())
    return figure


# ---- The file ------------------------------------------------------------------------------------------------

def fingerprint(pages):
    """What stands on the pages, and where, as a number: the same for every version of matplotlib."""
    drawn = []
    for ax in (figure.axes[0] for figure in pages):
        drawn += [(text.get_text(), text.get_position(), text.get_fontsize(), text.get_fontweight(),
                   text.get_fontfamily()) for text in ax.texts]
        drawn += [line.get_xydata().round(6).tolist() for line in ax.lines]
    return hashlib.sha256(repr(drawn).encode()).hexdigest()


def make():
    """The handout as a PDF: bytes that hold the fingerprint of its pages."""
    pages = [pencil_page(), names_page()]
    file = io.BytesIO()
    about = {"Title": "A Llama for pencil, and its symbols and names", "Keywords": fingerprint(pages),
             "CreationDate": None}
    with PdfPages(file, metadata=about) as pdf:
        for figure in pages:
            pdf.savefig(figure)
            plt.close(figure)
    return file.getvalue()


def stamp(pdf):
    """The fingerprint that such a PDF holds."""
    return re.search(rb"/Keywords \((\w+)\)", pdf)[1]


if __name__ == "__main__":
    PATH.write_bytes(make())
