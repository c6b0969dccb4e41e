"""The drawing vocabulary of the project: one look for every figure.

    python notebooks/figures.py          draws the pictures of the README and of the model card again

Colours are Okabe and Ito's, which colour-blind readers can tell apart, and never stand alone: lines differ in their
dashes too, and negative cells carry a minus. Signed numbers are drawn from orange (negative) over white (0) to blue
(positive), shares and probabilities from white (0) to dark blue (1). Every tensor carries its trace name and its shape
in the size letters of numpy_llama.py. No text is smaller than 9 pt, no figure wider than a page.
"""
import ast
import csv
import io
import itertools
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import matplotlib.text
import numpy as np
import PIL.Image
from cycler import cycler
from IPython.display import Image, Markdown, display
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import numpy_llama as nl  # noqa: E402

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
GREY = "#555555"
PROMPT = "Once upon a time there was a king who"
SIGNED = LinearSegmentedColormap.from_list("signed", ["#8a3d00", RED, "#ffffff", BLUE, "#003a5c"])
SHARE = LinearSegmentedColormap.from_list("share", ["#ffffff", SKY, BLUE, "#003a5c"])
LINES = (cycler(color=[BLUE, RED, GREEN, PURPLE, ORANGE, SKY, BLACK])
         + cycler(linestyle=["-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 3))]))
STYLE = {"font.family": "DejaVu Sans", "font.size": 11, "axes.spines.top": False, "axes.spines.right": False,
         "axes.titlesize": 11, "axes.titlelocation": "left", "axes.prop_cycle": LINES, "axes.labelsize": 10,
         "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "legend.frameon": False,
         "figure.dpi": 100, "savefig.dpi": 130, "figure.facecolor": "white", "savefig.facecolor": "white"}
WIDTH, SMALLEST = 8, 9                                    # inches of a page; points of the smallest text
plt.rcParams.update(STYLE)


# ---- On the page ---------------------------------------------------------------------------------------------

def new(height=3, rows=1, columns=1, width=WIDTH, **options):
    """A figure of the page's width and its axes, as plt.subplots gives them."""
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)


def show(figure, sentence):
    """Show a figure, and one sentence under it that says what to see; read aloud, it stands for the figure."""
    width = figure.get_figwidth()
    assert width <= WIDTH, f"the figure is {width} inches wide, a page {WIDTH}"
    for text in figure.findobj(matplotlib.text.Text):
        assert not (text.get_visible() and text.get_text().strip()) or text.get_fontsize() >= SMALLEST, text
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=160)
    plt.close(figure)
    png = io.BytesIO()                                    # 256 colours: a third of the size
    PIL.Image.open(drawn).convert("RGB").quantize(256, dither=PIL.Image.Dither.NONE).save(png, "png", optimize=True)
    display(Image(png.getvalue(), width=round(96 * width), alt=sentence), Markdown(f"*{sentence}*"))


def sentences(code):
    """The captions in Python code: the nodes of the plain strings that are the second argument of figures.show."""
    return sorted((call.args[1] for call in ast.walk(ast.parse(code)) if isinstance(call, ast.Call)
                   and ast.unparse(call.func) == "figures.show" and isinstance(call.args[1], ast.Constant)),
                  key=lambda node: node.lineno)


def caption(lesson, number):
    """The sentence of one figure of a lesson, for the student's notebook, which must not say it before the run."""
    source, = (ROOT / "notebooks" / "source").glob(f"{lesson}_*.py")
    return sentences(source.read_text(encoding="utf-8"))[number].value


# ---- Kinds of drawing ----------------------------------------------------------------------------------------

def matrix(ax, x, rows=None, columns=None, title="", kind=SIGNED, limit=None, numbers=None, size=9):
    """A matrix as cells: signed numbers, or shares (kind=SHARE); `rows`, `columns` are labels, `numbers` a format.

    `limit` is the number with the darkest colour: the largest one, and 1 for shares, unless given.
    """
    x = np.atleast_2d(x)
    limit = limit or (1 if kind is SHARE else np.abs(x[np.isfinite(x)]).max() or 1)
    shown = np.ma.masked_invalid(x)
    ax.imshow(shown, cmap=kind, vmin=-limit if kind is SIGNED else 0, vmax=limit, aspect="auto",
              interpolation="nearest")
    ax.set_facecolor("#d9d9d9")                           # what is not a number, such as a masked score
    for i, j in np.ndindex(x.shape):
        dark = abs(x[i, j]) > 0.55 * limit
        if numbers and np.isfinite(x[i, j]):
            text = format(x[i, j], numbers)
            text = text.lstrip("+-") if float(text.rstrip("%")) == 0 else text         # no -0.0
            ax.text(j, i, text, ha="center", va="center", fontsize=size, color="w" if dark else "k")
        elif -np.inf < x[i, j] < -0.05 * limit and x.size <= 600:     # in grey, orange looks like blue
            ax.plot([j - 0.2, j + 0.2], [i, i], color="white" if dark else "black", linewidth=1, linestyle="-")
    for axis, labels, count in ((ax.yaxis, rows, x.shape[0]), (ax.xaxis, columns, x.shape[1])):
        axis.set_ticks(range(count) if labels is not None else [], labels)
    ax.tick_params(length=0)
    ax.spines[:].set(visible=True, color=GREY, linewidth=0.6)
    ax.set_title(title)


def lines(ax, x, named, **options):
    """Curves {label: y} over x, each with its own dashes, its label at its end."""
    for label, y in named.items():
        line, = ax.plot(x, y, **options)
        ax.annotate(f" {label}", (x[-1], y[-1]), color=line.get_color(), va="center", fontsize=9.5,
                    annotation_clip=False)


def bars(ax, named, form=".2f", colour=BLUE, marked=()):
    """Horizontal bars {label: value}, the value written at each; those `marked` are orange and hatched."""
    values = list(named.values())
    drawn = ax.barh(list(named), values, color=[ORANGE if label in marked else colour for label in named])
    for bar, (label, value) in zip(drawn, named.items()):
        if label in marked:
            bar.set(hatch="///", edgecolor="white")
        ax.annotate(f" {value:{form}} ", (value, bar.get_y() + bar.get_height() / 2), va="center", fontsize=9,
                    ha="left" if value >= 0 else "right", annotation_clip=False)
    ax.invert_yaxis(), ax.tick_params(axis="y", length=0)
    ax.margins(x=0.12)


def coloured_text(texts, values, kind=SHARE, limit=None, per_line=72, numbers=None):
    """Text as it runs, each piece on the colour of its value (its number below, in the format `numbers`): a figure."""
    limit = limit or np.abs(values).max() or 1
    step, left, line, spots = 2.0 if numbers else 1.35, 0, 0, []
    for piece, value in zip(texts, values):
        width = max(len(piece), len(format(value, numbers)) if numbers else 1) + 0.3
        if left + width > per_line:
            left, line = 0, line + 1
        spots.append((left, line * step, width))
        left += width
    figure, ax = plt.subplots(figsize=(WIDTH, 0.2 + 0.22 * step * (line + 1)))
    figure.subplots_adjust(0, 0, 1, 1)
    ax.set(xlim=(-0.5, per_line + 0.5), ylim=((line + 1) * step, -0.4)), ax.axis("off")
    for piece, value, (x, y, width) in zip(texts, values, spots):
        share = value / limit
        ax.add_patch(plt.Rectangle((x, y), width - 0.15, 1.1, linewidth=0,
                                   facecolor=kind((share + 1) / 2 if kind is SIGNED else share)))
        ax.text(x + width / 2 - 0.1, y + 0.55, piece, ha="center", va="center", family="monospace", fontsize=10,
                color="white" if abs(share) > 0.55 else "black")
        if numbers:
            ax.text(x + width / 2 - 0.1, y + 1.5, format(value, numbers), ha="center", va="center", fontsize=9,
                    color=GREY)
    return figure


def box(ax, x, y, width, height, text, colour=SKY, size=10, **options):
    """A rounded box with text in its middle; (x, y) is its lower left corner, on axes made by `sheet`."""
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.12", facecolor=colour,
                                alpha=0.3, edgecolor="none"))
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size, **options)


def arrow(ax, start, end, colour=GREY, **options):
    """An arrow from one point to another."""
    ax.annotate("", end, start, arrowprops=dict(arrowstyle="-|>", color=colour, linewidth=1, shrinkA=0, shrinkB=0,
                                                **options))


def sheet(width, height, inches=WIDTH):
    """An empty figure to draw boxes on, `width` by `height` units, and its axes."""
    figure, ax = plt.subplots(figsize=(inches, inches * height / width))
    figure.subplots_adjust(0, 0, 1, 1)
    ax.set(xlim=(0, width), ylim=(0, height)), ax.axis("off")
    return figure, ax


def pieces(tokenizer, tokens):
    """Each token as it is drawn: its piece of text, a space as a space."""
    return [tokenizer.sp.id_to_piece(int(i)).replace("▁", " ") for i in tokens]


# ---- The whole model -----------------------------------------------------------------------------------------

def shape_label(x, letters, size):
    """A shape in size letters and numbers: "T 9 × D 256"; `size` is what each letter should be."""
    assert x.shape == tuple(size[letter] for letter in letters.split()), (x.shape, letters)
    return " × ".join(f"{letter} {size[letter]}" for letter in letters.split())


def draw_wiring(ax, trace, config):
    """The whole model as boxes, each with the trace name and the shape that it had in this run."""
    T = len(trace["embedding"])
    size = dict(T=T, S=T, D=config.dim, F=config.hidden_dim, V=config.vocab_size, H=config.n_heads,
                G=config.n_kv_heads, d=config.head_dim)
    ax.set(xlim=(-0.6, 10), ylim=(20.6, 0)), ax.axis("off")

    def tensor(y, name, letters, x=1.5, width=7, colour=SKY, prefix=""):
        ax.add_patch(FancyBboxPatch((x, y), width, 0.8, boxstyle="round,pad=0,rounding_size=0.15",
                                    facecolor=colour, alpha=0.3, edgecolor="none"))
        ax.text(x + 0.15, y + 0.4, name, va="center", family="monospace", fontsize=10)
        ax.text(x + width - 0.15, y + 0.4, shape_label(trace[prefix + name], letters, size), va="center", ha="right",
                fontsize=9, color=GREY)

    def plus(y, name):
        ax.add_patch(plt.Circle((5, y + 0.4), 0.4, facecolor="white", edgecolor=BLACK, linewidth=1, zorder=3))
        ax.text(5, y + 0.42, "+", ha="center", va="center", fontsize=13, zorder=4)
        ax.text(5.55, y + 0.4, name, va="center", family="monospace", fontsize=10)
        ax.text(9.4, y + 0.4, shape_label(trace["layers.0." + name], "T D", size), va="center", ha="right",
                fontsize=9, color=GREY)

    layer = "layers.0."
    tensor(0.2, "embedding", "T D", colour=GREEN)
    ax.add_patch(FancyBboxPatch((-0.5, 1.25), 10.4, 16.7, boxstyle="round,pad=0,rounding_size=0.3", facecolor="none",
                                edgecolor=GREY, linestyle=(0, (4, 3))))
    ax.text(9.7, 1.75, f"L {config.n_layers} layers", ha="right", va="center", fontsize=10, color=GREY)
    tensor(2.2, "attn_norm", "T D", colour=YELLOW, prefix=layer)
    tensor(3.6, "attn.q", "H T d", 0.2, 4.6, prefix=layer)
    tensor(3.6, "attn.k", "G T d", 5.1, 4.6, prefix=layer)
    tensor(4.6, "attn.v", "G T d", 5.1, 4.6, prefix=layer)
    tensor(5.9, "attn.q_rope", "H T d", 0.2, 4.6, ORANGE, prefix=layer)
    tensor(5.9, "attn.k_rope", "G T d", 5.1, 4.6, ORANGE, prefix=layer)
    tensor(7.2, "attn.probs", "H T S", colour=BLUE, prefix=layer)
    tensor(8.4, "attn.heads", "H T d", prefix=layer)
    tensor(9.5, "attn.out", "T D", prefix=layer)
    plus(10.7, "x_attn")
    tensor(12.0, "ffn_norm", "T D", colour=YELLOW, prefix=layer)
    tensor(13.3, "ffn.silu", "T F", 0.2, 4.6, PURPLE, prefix=layer)
    tensor(13.3, "ffn.up", "T F", 5.1, 4.6, PURPLE, prefix=layer)
    tensor(14.4, "ffn.hidden", "T F", colour=PURPLE, prefix=layer)
    tensor(15.5, "ffn.out", "T D", colour=PURPLE, prefix=layer)
    plus(16.7, "x_ffn")
    tensor(18.3, "norm", "T D", colour=YELLOW)
    tensor(19.5, "logits", "T V", colour=GREEN)
    for y0, y1 in ((1.0, 2.2), (8.0, 8.4), (9.2, 9.5), (10.3, 10.7), (11.5, 12.0), (15.2, 15.5), (16.3, 16.7),
                   (17.5, 18.3), (19.1, 19.5)):
        arrow(ax, (5, y0), (5, y1))
    for y0, y1 in ((3.0, 3.6), (6.7, 7.2), (12.8, 13.3), (14.1, 14.4)):
        arrow(ax, (2.7, y0), (2.7, y1)), arrow(ax, (7.3, y0), (7.3, y1))
    arrow(ax, (2.7, 4.4), (2.7, 5.9))
    for x0, x, y0, y1, x1 in ((5.1, 4.95, 4.0, 6.3, 5.1), (9.7, 9.8, 5.0, 8.8, 8.5)):      # k to k_rope, v to heads
        ax.plot([x0, x, x, x1], [y0, y0, y1, y1], color=GREY, linewidth=1, linestyle="-")
        arrow(ax, (x, y1), (x1, y1))
    for y0, y1 in ((1.6, 11.1), (11.75, 17.1)):           # the residual stream goes round each half of a layer
        ax.plot([5, -0.15, -0.15, 4.4], [y0, y0, y1, y1], color=BLACK, linewidth=1.4, linestyle="-")
        arrow(ax, (4.2, y1), (4.6, y1))


def draw_heads(figure, area, probs, labels, config):
    """The attention of every head as a map, query heads that share a key/value head under one bracket."""
    x, y, width, height = area
    columns = config.n_heads // config.n_kv_heads
    w, h = width / columns, height / config.n_kv_heads
    for head, grid in enumerate(probs):
        row, column = divmod(head, columns)
        ax = figure.add_axes((x + column * w, y + (config.n_kv_heads - 1 - row) * h, w * 0.86, h * 0.74))
        ax.imshow(grid, cmap=SHARE, vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        ax.set_xticks([])
        ax.set_yticks(range(len(labels)) if column == 0 else [], labels if column == 0 else [], fontsize=9)
        ax.tick_params(length=0)
        for side in ax.spines.values():
            side.set(visible=True, color=GREY, linewidth=0.6)
        ax.set_title(f"query {head}, key {row}", fontsize=9.5, pad=3)


def draw_model(trace, tokens, weights, config, tokenizer):
    """The picture of the README: the wiring with live shapes, and three real results of the same run."""
    layer = config.n_layers // 2
    figure = plt.figure(figsize=(11, 8.6))
    draw_wiring(figure.add_axes((0.0, 0.015, 0.475, 0.945)), trace, config)
    figure.text(0.02, 0.975, "Every tensor of a Llama, by name and shape", fontsize=12, weight="bold")

    figure.text(0.485, 0.975, f"Who looks at whom: layers.{layer}.attn.probs", fontsize=12, weight="bold")
    draw_heads(figure, (0.565, 0.575, 0.435, 0.375), trace[f"layers.{layer}.attn.probs"],
               pieces(tokenizer, tokens), config)

    figure.text(0.485, 0.53, f"SwiGLU opens and shuts: layers.{layer}.ffn, 40 of F {config.hidden_dim}", fontsize=12,
                weight="bold")
    for i, name in enumerate(("silu", "up", "hidden")):
        ax = figure.add_axes((0.575, 0.478 - 0.052 * i, 0.415, 0.036))
        row = trace[f"layers.{layer}.ffn.{name}"][-1:, :40]
        ax.imshow(row, aspect="auto", cmap=SIGNED, vmin=-2, vmax=2, interpolation="nearest")
        ax.set_xticks([]), ax.set_yticks([0], [("silu(gate)", "× up", "= hidden")[i]], fontsize=10)
        ax.tick_params(length=0)

    figure.text(0.485, 0.33, "What comes next, in percent, after every layer",
                fontsize=12, weight="bold")
    stream = [trace["embedding"][-1]] + [trace[f"layers.{i}.x_ffn"][-1] for i in range(config.n_layers)]
    logits = nl.rms_norm(np.array(stream), weights["norm"], config.norm_eps) @ weights["output"]
    probs = np.array([nl.next_token_probs(row) for row in logits])
    best = np.argsort(-probs[-1])[:7]
    ax = figure.add_axes((0.575, 0.035, 0.415, 0.255))
    ax.imshow(probs[:, best], aspect="auto", cmap=SHARE, vmin=0, vmax=1, interpolation="nearest")
    for i, j in np.ndindex(len(probs), len(best)):
        p = probs[i, best[j]]
        ax.text(j, i, f"{100 * p:.0f}", ha="center", va="center", fontsize=9.5, color="white" if p > 0.45 else BLACK)
    ax.set_xticks(range(len(best)), pieces(tokenizer, best))
    ax.set_title(f"“{tokenizer.decode(tokens)} …”", fontsize=10, color=GREY)
    ax.set_yticks(range(len(probs)), ["embedding"] + [f"layer {i}" for i in range(config.n_layers)])
    ax.tick_params(length=0)
    return figure


# ---- Tokens --------------------------------------------------------------------------------------------------

def draw_merges(steps, ranks):
    """The rungs of a word's encoding, from letters to pieces; the pair just merged is orange and framed."""
    letters, count = sum(map(len, steps[0])), len(steps)
    figure, ax = sheet(max(letters, 8) + 4.4, count, inches=WIDTH)
    figure.set_figheight(0.1 + 0.33 * count)
    before = None
    for row, step in enumerate(steps):
        left, y = 0, count - 1 - row
        made = None if before is None else next(i for i, piece in enumerate(step) if piece != before[i])
        for i, piece in enumerate(step):
            edge = dict(linewidth=1.5, edgecolor=BLACK) if i == made else dict(linewidth=0.6, edgecolor=GREY)
            ax.add_patch(plt.Rectangle((left + 0.06, y + 0.12), len(piece) - 0.12, 0.76, alpha=0.9,
                                       facecolor=ORANGE if i == made else "#e6f1f8", **edge))
            ax.text(left + len(piece) / 2, y + 0.47, piece, ha="center", va="center", family="monospace", fontsize=10.5)
            left += len(piece)
        note = f"{letters} characters" if made is None else f"{step[made]} is merge {ranks[step[made]]:,}"
        ax.text(letters + 0.35, y + 0.48, note, va="center", fontsize=9.5, color=GREY)
        before = step
    return figure


def draw_families(families, points, ax):
    """Points (words, 2) of families {name: words}, each family with its own marker and colour."""
    gap, start = 0.045 * np.ptp(points[:, 1]), 0
    for (name, words), colour, marker in zip(families.items(), (BLUE, RED, GREEN, PURPLE, BLACK), "os^Dv"):
        xy = points[start:start + len(words)]
        start += len(words)
        ax.scatter(*xy.T, color=colour, marker=marker, s=28, label=name, zorder=3)
        for side, mine in ((-1, xy[:, 0] <= np.median(xy[:, 0])), (1, xy[:, 0] > np.median(xy[:, 0]))):
            order = sorted(np.flatnonzero(mine), key=lambda i: xy[i, 1])
            height = xy[:, 1].copy()                      # of the labels, which push each other up and down
            for _ in range(300):
                for low, high in itertools.combinations(order, 2):
                    overlap = gap - (height[high] - height[low])
                    if overlap > 0 and abs(xy[high, 0] - xy[low, 0]) < 0.2:
                        height[low] -= overlap / 2
                        height[high] += overlap / 2
                for i in order:                           # off the points under a label
                    for x, y in xy:
                        if 0.01 < side * (x - xy[i, 0]) < 0.16 and abs(height[i] - y) < gap / 2:
                            height[i] += gap / 10 if height[i] >= y else -gap / 10
            for i in order:
                ax.annotate(words[i], xy[i], (xy[i, 0] + 0.035 * side, height[i]), va="center", fontsize=9,
                            ha="left" if side == 1 else "right",
                            arrowprops=dict(arrowstyle="-", color=GREY, linewidth=0.5, shrinkA=0, shrinkB=2))
    ax.margins(x=0.13)
    ax.legend(loc="lower right")


# ---- RoPE ----------------------------------------------------------------------------------------------------

def circles(points, first):
    """Points {title: (n, 2)} on circles about the origin, numbered from `first` on, from light to dark: a figure."""
    figure, axes = new(2.3, columns=len(points))
    for ax, (title, xy) in zip(axes, points.items()):
        radius = np.hypot(*xy[0])
        ax.add_patch(plt.Circle((0, 0), radius, fill=False, edgecolor=GREY, linewidth=0.8))
        ax.plot([0, xy[0, 0]], [0, xy[0, 1]], color=GREY, linewidth=0.8, linestyle="-")
        ax.scatter(*xy.T, c=np.linspace(0.25, 1, len(xy)), cmap=SHARE, vmin=0, vmax=1, s=28, zorder=3)
        spread = np.hypot(*(xy - xy[0]).T).max() > 0.3 * radius
        apart = np.hypot(*(xy[1] - xy[0])) > 0.3 * radius             # labels that do not touch
        for n in (0, *([1] if apart else []), *([len(xy) - 1] if spread else [])):
            ax.text(*(1.3 * xy[n]), str(first + n), fontsize=9, ha="center", va="center")
        ax.set(title=title, xlim=(-1.6 * radius, 1.6 * radius), ylim=(-1.6 * radius, 1.6 * radius), aspect="equal")
        ax.axis("off")
    return figure


def pairings(d=8):
    """Which of d numbers turn together, in the two conventions: a figure."""
    figure, ax = sheet(20, 5.6)
    for left, title, pairs in ((0.5, "neighbours (the paper, Meta)", [(2 * i, 2 * i + 1) for i in range(d // 2)]),
                               (10.7, "halves (Hugging Face)", [(i, i + d // 2) for i in range(d // 2)])):
        ax.text(left, 5.1, title, fontsize=11, va="center")
        for i, pair in enumerate(pairs):
            for at in pair:
                ax.add_patch(plt.Rectangle((left + 1.1 * at, 2.6), 1, 1, facecolor=[SKY, ORANGE, GREEN, PURPLE][i],
                                           alpha=0.45, edgecolor=BLACK, linewidth=0.7))
                ax.text(left + 1.1 * at + 0.5, 3.1, f"x{at}", ha="center", va="center", fontsize=10)
            start, end = (left + 1.1 * at + 0.5 for at in pair)
            depth = 1.6 if title[0] == "n" else 0.5 + 0.45 * i
            ax.plot([start, start, end, end], [2.6, depth, depth, 2.6], color=BLACK, linewidth=1, linestyle="-")
            ax.text((start + end) / 2 if title[0] == "n" else start + 0.1,
                    depth - 0.05 if title[0] == "n" else depth + 0.05, str(i), fontsize=9,
                    ha="center" if title[0] == "n" else "left", va="top" if title[0] == "n" else "bottom")
    return figure


# ---- Attention -----------------------------------------------------------------------------------------------

def all_heads(trace, config, framed=()):
    """The attention map of every head of a run, layers down, heads across; `framed` holds (layer, head): a figure."""
    figure, axes = new(6.2, rows=config.n_layers, columns=config.n_heads)
    for i, row in enumerate(axes):
        for h, ax in enumerate(row):
            ax.imshow(trace[f"layers.{i}.attn.probs"][h], cmap=SHARE, vmin=0, vmax=0.8, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            marked = (i, h) in framed
            ax.spines[:].set(visible=True, color=RED if marked else GREY, linewidth=2.5 if marked else 0.5)
            if i == 0:
                ax.set_title(f"head {h}", fontsize=9, loc="center")
        row[0].set_ylabel(f"layer {i}", fontsize=9)
    return figure


# ---- Grouped-query attention ---------------------------------------------------------------------------------

def sharing(heads, groups, d):
    """Query heads above, the key/value heads that they read below, one column for each number of groups: a figure."""
    figure, ax = sheet(39, 8.4)
    for column, g in enumerate(groups):
        left, size = 0.5 + 13.2 * column, heads // g
        name = "multi-head" if g == heads else "multi-query" if g == 1 else "grouped-query"
        ax.text(left, 7.7, f"{name}: H {heads}, G {g}", fontsize=10.5, va="center")
        ax.text(left, 6.6, f"q ({heads}, T, {d})   k, v ({g}, S, {d})", fontsize=9, va="center", color=GREY)
        for h in range(heads):
            ax.add_patch(plt.Rectangle((left + 1.5 * h, 4.6), 1.2, 1.2, facecolor=SKY, alpha=0.5, edgecolor=BLACK,
                                       linewidth=0.7))
            ax.text(left + 1.5 * h + 0.6, 5.2, f"q{h}", ha="center", va="center", fontsize=9)
        for j in range(g):
            middle = left + 1.5 * (j * size + (size - 1) / 2) + 0.6
            ax.add_patch(plt.Rectangle((middle - 0.7, 1.0), 1.4, 1.4, facecolor=ORANGE, alpha=0.55, edgecolor=BLACK,
                                       linewidth=0.7))
            ax.text(middle, 1.7, f"kv{j}", ha="center", va="center", fontsize=9)
            for h in range(j * size, (j + 1) * size):
                ax.plot([left + 1.5 * h + 0.6, middle], [4.6, 2.4], color=GREY, linewidth=1, linestyle="-")
    return figure


# ---- SwiGLU --------------------------------------------------------------------------------------------------

def gate_surface(gate, up, reach=4):
    """Swish(gate) times up as a surface of contours, and how often real pairs (n,), (n,) lie where: a figure."""
    figure, axes = new(3.4, columns=2, sharey=True)
    g, u = np.meshgrid(np.linspace(-reach, reach, 161), np.linspace(-reach, reach, 161))
    surface = g / (1 + np.exp(-g)) * u
    levels = [-12, -8, -4, -2, -1, -0.25, 0.25, 1, 2, 4, 8, 12]
    axes[0].contourf(g, u, surface, levels=[-16, *levels, 16], cmap=SIGNED, vmin=-14, vmax=14)
    drawn = axes[0].contour(g, u, surface, levels=levels, colors="black", linewidths=0.7)
    axes[0].clabel(drawn, [-8, -4, -2, -1, -0.25, 0.25, 1, 2, 4, 8], fontsize=9)
    counts, edges, _ = np.histogram2d(gate, up, bins=64, range=[[-reach, reach]] * 2)
    axes[1].pcolormesh(edges, edges, np.log10(counts.T + 1), cmap=SHARE)
    axes[1].axvline(0, color=BLACK, linewidth=0.8, linestyle="--")
    axes[0].set(xlabel="gate", ylabel="up", title="Swish(gate) × up")
    axes[1].set(xlabel="gate (dashed: 0)", title="number of pairs, on a log scale")
    return figure


def draw_neuron():
    """One neuron of a gated step: a row in, two dot products, their product, and the row that is added: a figure."""
    figure, ax = sheet(40, 9.4)
    for x, y, width, text, colour in (
            (0.2, 3.6, 6.2, "x, one row (D)", GREEN), (9.6, 6.2, 10.2, "· its column of gate", PURPLE),
            (9.6, 1.0, 10.2, "· its column of up", PURPLE), (22.6, 6.2, 4.4, "Swish", ORANGE),
            (33.4, 3.6, 6.4, "its row of down", GREEN)):
        box(ax, x, y, width, 2.2, text, colour)
    ax.add_patch(plt.Circle((29.0, 4.7), 0.9, facecolor="white", edgecolor=BLACK, linewidth=1))
    ax.text(29.0, 4.7, "×", ha="center", va="center", fontsize=13)
    for start, end in (((6.4, 4.7), (9.6, 7.3)), ((6.4, 4.7), (9.6, 2.1)), ((19.8, 7.3), (22.6, 7.3)),
                       ((27.0, 7.3), (28.6, 5.5)), ((19.8, 2.1), (28.4, 4.0)), ((29.9, 4.7), (33.4, 4.7))):
        arrow(ax, start, end)
    for x, y, text in ((24.8, 9.0, "if, and how much?"), (24.6, 1.6, "how much, + or −?"), (31.7, 5.5, "a number"),
                       (36.6, 6.4, "what to add")):
        ax.text(x, y, text, fontsize=9.5, ha="center", va="center", color=GREY)
    return figure


# ---- The whole forward pass ----------------------------------------------------------------------------------

def addends(parts, total):
    """Rows {name: (n,)} that are added up, and their sum {name: (n,)} below them: a figure."""
    figure, (above, below) = new(4.4, rows=2, gridspec_kw=dict(height_ratios=[len(parts), len(total)]))
    limit = 0.6 * max(np.abs(row).max() for row in total.values())
    matrix(above, np.array(list(parts.values())), rows=list(parts), limit=limit)
    matrix(below, np.array(list(total.values())), rows=list(total), limit=limit)
    below.set_xlabel("columns of D")
    return figure


def guesses(texts, probs, rows, columns):
    """In each cell the likeliest next piece, on the colour of its probability: lists (n, m), (n, m): a figure."""
    figure, ax = new(0.9 + 0.27 * len(rows))
    matrix(ax, probs, rows=rows, columns=columns, kind=SHARE)
    for i, j in np.ndindex(probs.shape):
        ax.text(j, i, texts[i][j], ha="center", va="center", fontsize=9, color="w" if probs[i, j] > 0.55 else "k")
    ax.xaxis.tick_top()
    return figure


def first_difference(runs, bound):
    """Curves {label: {trace name: difference}} in the order of computation, and the bound above which they differ."""
    figure, ax = new(3.4)
    names, height = list(next(iter(runs.values()))), 1.5  # the first label above the curves, the second below
    for label, differences in runs.items():
        ax.plot(np.maximum(list(differences.values()), 1e-8), label=label, marker=".", markersize=4)
        over = next((i for i, name in enumerate(names) if differences[name] > bound), None)
        if over is not None:
            ax.text(over + 0.2, height, f"{label}: from {names[over]} on", fontsize=9)
            height /= 1000
    ax.axhline(bound, color=GREY, linewidth=1, linestyle="-")
    ax.annotate("allowed", (len(names) - 1, bound), va="bottom", ha="right", fontsize=9, color=GREY)
    marks = [i for i, name in enumerate(names) if name.endswith(("embedding", "x_attn", "x_ffn", "logits"))]
    ax.set_xticks(marks, [names[i] for i in marks], rotation=30, ha="right")
    ax.set(yscale="log", ylim=(5e-9, 20), ylabel="largest difference,\nshare of largest number")
    ax.legend(loc="upper right", ncols=3)
    return figure


# ---- Looking inside ------------------------------------------------------------------------------------------

def packing(named):
    """The columns of matrices {title: (2, n)} as arrows from the origin, numbered from 1: a figure."""
    figure, axes = new(2.3, columns=len(named))
    for ax, (title, columns) in zip(axes, named.items()):
        ax.add_patch(plt.Circle((0, 0), 1, fill=False, edgecolor=GREY, linewidth=0.8, linestyle=":"))
        for i, (x, y) in enumerate(columns.T):
            length = np.hypot(x, y)
            if length > 0.1:                              # a shorter one is a dot, and has no direction to write at
                arrow(ax, (0, 0), (x, y), BLACK)
            ax.plot([x], [y], "o", color=LINES.by_key()["color"][i], markersize=5)
            ax.text(x + 0.22 * x / length, y + 0.22 * y / length, str(i + 1), ha="center", va="center", fontsize=9.5)
        ax.set(title=title, xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color=GREY, linewidth=0.6)
    return figure


# ---- Decoding and the cache ----------------------------------------------------------------------------------

def roofline(peak, bandwidth, rates):
    """The roof of a machine's FLOP/s and bytes/s; below, {name: {rows: (FLOPs per byte, FLOP/s)}}: a figure."""
    figure, ax = new(3.4)
    intensity = np.logspace(-1, 3, 200)
    ax.plot(intensity, np.minimum(peak, bandwidth * intensity) / 1e9, color=BLACK, linestyle="-")
    ridge = peak / bandwidth
    for marker, (name, points) in zip("^o", rates.items()):
        x, y = np.array(list(points.values())).T
        ax.plot(x, y / 1e9, marker=marker, label=name)
    for rows, at, rate in zip(points, x, y / 1e9):
        ax.annotate(f"T {rows}", (at, rate), (5, -11), textcoords="offset points", fontsize=9)
    ax.axvline(ridge, color=GREY, linestyle=":", linewidth=1)
    ax.annotate(f"{ridge:.0f} FLOPs per byte ", (ridge, ax.get_ylim()[0]), ha="right", va="bottom", fontsize=9,
                color=GREY)
    ax.set_title(f"slope: memory, {bandwidth / 1e9:.0f} GB/s; flat: arithmetic, {peak / 1e9:.0f} GFLOP/s")
    ax.set(xscale="log", yscale="log", xlabel="arithmetic intensity: FLOPs per byte of weights",
           ylabel="billion FLOPs per second", ylim=(None, 2.2 * peak / 1e9))
    ax.legend(loc="lower right")
    return figure


# ---- The objective and sampling ------------------------------------------------------------------------------


# ---- Learning ------------------------------------------------------------------------------------------------

def draw_chain(values, gradients):
    """The steps h = w x, e = h - 5, L = e squared as boxes, each with its value and its gradient: a figure."""
    figure, ax = sheet(40, 9.6)
    places = {"w": (0.4, 6.2), "x": (0.4, 1.4), "h": (11.8, 3.8), "e": (22.4, 3.8), "L": (33.0, 3.8)}
    for name, (x, y) in places.items():
        box(ax, x, y, 5.6, 2.2, f"{name} = {values[name]:g}", GREEN if name in "wx" else SKY, size=11)
        label = "dL = 1" if name == "L" else f"d{name} = {gradients[name]:g}"
        ax.text(x + 2.8, y - 0.8, label, ha="center", va="center", fontsize=11, color=RED, weight="bold")
    for start, end, text, at in (
            ((6.0, 7.3), (11.8, 5.4), "", (0, 0)), ((6.0, 2.5), (11.8, 4.4), "times", (8.9, 4.9)),
            ((17.4, 5.2), (22.4, 5.2), "minus 5", (19.9, 6.0)), ((28.0, 5.2), (33.0, 5.2), "squared", (30.5, 6.0))):
        arrow(ax, start, end)
        ax.text(*at, text, ha="center", va="center", fontsize=9.5)
    for start, end, text, at in (
            ((33.0, 4.4), (28.0, 4.4), "· 2e = 2", (30.5, 3.6)), ((22.4, 4.4), (17.4, 4.4), "· 1", (19.9, 3.6)),
            ((11.8, 6.0), (6.0, 7.9), "· x = 2", (9.9, 7.9)), ((11.8, 3.8), (6.0, 1.9), "· w = 3", (9.9, 1.9))):
        arrow(ax, start, end, RED, linestyle="--")
        ax.text(*at, text, ha="center", va="center", fontsize=9.5, color=RED)
    return figure


def draw_descent(paths, loss):
    """Steps down a valley, {learning rate: the weight after each step}, under the curve of loss(w): a figure."""
    w = np.linspace(0.3, 4.7, 200)
    figure, axes = new(2.5, columns=len(paths), sharey=True)
    for ax, (rate, path) in zip(axes, paths.items()):
        ax.plot(w, loss(w), color=GREY, linestyle="-", linewidth=1)
        ax.plot(path, loss(np.array(path)), marker="o", markersize=4)
        ax.set(xlabel="w", ylim=(-0.3, 4), xlim=(1, 4), title=f"learning rate {rate}")
    axes[0].set_ylabel("loss")
    return figure


def draw_learning(steps, curves, looked_at, held_out, levels):
    """Losses that end at the last step, others at the steps `looked_at`, and levels {label: loss}: a figure."""
    figure, ax = new(3)
    lines(ax, np.arange(steps - len(next(iter(curves.values()))), steps) + 1, curves)
    lines(ax, looked_at, held_out)
    for label, level in levels.items():
        ax.axhline(level, color=GREY, linestyle=":", linewidth=1)
        ax.text(1.35 * steps, level + 0.05, label, fontsize=9, color=GREY, ha="right")
    ax.set(xlabel="step", ylabel="nats per character", xlim=(0, 1.35 * steps), ylim=(0, 4.6),
           xticks=range(0, steps + 1, 100))
    return figure


def draw_run(at, bits, rates):
    """The losses of the shipped model's run at some steps, and learning rates {label: of each step}: a figure."""
    figure, (above, below) = new(4.4, rows=2, sharex=True, height_ratios=[3, 2])
    above.plot(at, bits["training"], marker="o", markersize=4, label="training")
    line, = above.plot(at[:-1], bits["held out"][:-1], marker="s", markersize=4, label="held out")
    above.plot(at[-1], bits["held out"][-1], marker="s", markersize=5, linestyle="", color="white",
               markeredgecolor=line.get_color(), label="held out, more stories")
    for label, rate in rates.items():
        below.plot(1e3 * np.array(rate), label=label)
    above.set(ylabel="bits per byte", ylim=(1, 2))
    below.set(xlabel="step", ylabel="learning rate · 1000", ylim=(0, 2.4))
    above.legend()
    below.legend(loc="lower left")
    return figure


def draw_back():
    """A layer's two branches on the residual stream, forward and backward: a figure."""
    figure, ax = sheet(40, 11)
    stream, back, branch = 3.4, 2.5, 8.6                  # heights: of the stream, of the way back, of the branches
    back_arrow = dict(colour=RED, linestyle="--")
    for x, name, gradient in ((1.4, "x", "dx"), (20.0, "x_attn", "dmiddle"), (38.6, "x_ffn", "dout")):
        ax.text(x, stream + 0.9, name, ha="center", va="center", family="monospace", fontsize=10)
        ax.text(x, back - 1.1, gradient, ha="center", va="center", fontsize=11, color=RED, weight="bold")
    for left, name, colour in ((3.6, "attention", BLUE), (22.2, "feed-forward", PURPLE)):
        fork, norm, inner, plus = left, left + 1.4, left + 6.0, left + 13.2
        box(ax, norm, branch - 1.1, 3.6, 2.2, "norm", YELLOW)
        box(ax, inner, branch - 1.1, 5.8, 2.2, name, colour)
        ax.plot([fork, fork], [stream, branch + 0.4], color=GREY, linewidth=1, linestyle="-")
        arrow(ax, (fork, branch + 0.4), (norm, branch + 0.4))
        arrow(ax, (norm + 3.6, branch + 0.4), (inner, branch + 0.4))
        ax.plot([inner + 5.8, plus], [branch + 0.4, branch + 0.4], color=GREY, linewidth=1, linestyle="-")
        arrow(ax, (plus, branch + 0.4), (plus, stream + 0.5))
        ax.plot([plus + 0.7, plus + 0.7, plus - 0.7, plus - 0.7], [back, back, back, branch - 0.5], color=RED,
                linewidth=1, linestyle="--")
        arrow(ax, (plus - 0.7, branch - 0.5), (inner + 5.8, branch - 0.5), **back_arrow)
        arrow(ax, (inner, branch - 0.5), (norm + 3.6, branch - 0.5), **back_arrow)
        ax.plot([norm, fork + 0.7], [branch - 0.5, branch - 0.5], color=RED, linewidth=1, linestyle="--")
        arrow(ax, (fork + 0.7, branch - 0.5), (fork + 0.7, back), **back_arrow)
        ax.plot(fork, stream, "o", color=BLACK, markersize=5)
        ax.text(fork + 1.1, stream + 1.6, "gradients\nadd", fontsize=9.5, color=RED, va="center")
        ax.add_patch(plt.Circle((plus, stream), 0.5, facecolor="white", edgecolor=BLACK, linewidth=1, zorder=3))
        ax.text(plus, stream + 0.03, "+", ha="center", va="center", fontsize=12, zorder=4)
    for start, end in ((0.4, 16.3), (17.3, 34.9), (35.9, 39.6)):
        arrow(ax, (start, stream), (end, stream), BLACK)
    for start, end in ((39.6, 23.2), (22.9, 4.6), (4.3, 0.4)):
        arrow(ax, (start, back), (end, back), **back_arrow)
    return figure


# ---- Sizes, data, compute ------------------------------------------------------------------------------------

def shares(counts):
    """Parameters by component {model: {component: count}} as shares of each model, stacked: a figure."""
    figure, ax = new(2.9)
    looks = [(SKY, ""), (ORANGE, "///"), (GREEN, ""), (BLACK, ""), (PURPLE, "...")]
    left = np.zeros(len(counts))
    for (colour, hatch), part in zip(looks, next(iter(counts.values()))):
        values = np.array([100 * model[part] / sum(model.values()) for model in counts.values()])
        ax.barh(list(counts), values, left=left, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5,
                label=part)
        for y, (x, value) in enumerate(zip(left, values)):
            if value > 4:
                ax.text(x + value / 2, y, f"{value:.0f} %", ha="center", va="center", fontsize=9,
                        bbox=dict(facecolor="white", edgecolor="none", pad=1, alpha=0.85))
        left = left + values
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="percent of all parameters")
    ax.tick_params(axis="y", length=0)
    ax.legend(ncols=5, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
    return figure


# ---- Chat ----------------------------------------------------------------------------------------------------

def pipeline():
    """From text to a chat model: a figure."""
    figure, ax = sheet(40, 13)
    for x, y, width, text, colour in (
            (0.3, 9.6, 7.2, "text: 2.0T tokens", GREEN), (12, 9.6, 7.4, "Llama 2", SKY),
            (0.3, 5.4, 7.2, "written dialogues", ORANGE), (12, 5.4, 7.4, "Llama 2-Chat, first", SKY),
            (0.3, 1.2, 7.2, "answers compared", ORANGE), (12, 1.2, 7.4, "reward model", SKY),
            (23, 5.4, 7.0, "K answers each", GREEN), (23, 1.2, 7.0, "the best, by reward", GREEN),
            (32.8, 3.3, 7.0, "Llama 2-Chat, next", SKY)):
        box(ax, x, y, width, 2.2, text, colour, size=9.5)
    for start, end, label, at in (
            ((7.5, 10.7), (12, 10.7), "pretraining", (9.7, 11.3)), ((7.5, 6.5), (12, 6.5), "fine-tuning", (9.7, 7.1)),
            ((15.7, 9.6), (15.7, 7.6), "", None), ((17.7, 5.4), (17.7, 3.4), "copy", (18.9, 3.9)),
            ((7.5, 2.3), (12, 2.3), "ranking loss", (9.7, 2.9)),
            ((19.4, 6.5), (23, 6.5), "samples", (21.1, 7.1)), ((13.4, 5.4), (7.5, 3.3), "pairs", (9.6, 4.8)),
            ((26.5, 5.4), (26.5, 3.4), "", None),
            ((19.4, 2.3), (23, 2.3), "judges", (21.1, 2.9)), ((30, 2.3), (34, 3.3), "fine-tuning", (33.8, 2.2)),
            ((36.3, 5.5), (30, 7.1), "again, later with PPO", (35.4, 7.1))):
        arrow(ax, start, end)
        if label:
            ax.text(*at, label, fontsize=9, ha="center", va="center", color=GREY)
    ax.plot([37.8, 37.8, 3.9], [3.3, 0.3, 0.3], color=GREY, linewidth=1)
    arrow(ax, (3.9, 0.3), (3.9, 1.2))
    ax.text(33.8, 0.9, "new pairs", fontsize=9, ha="center", va="center", color=GREY)
    ax.text(0.3, 12.4, "objective: next token", fontsize=9.5, va="center", color=GREY)
    ax.text(23, 8.2, "rejection sampling", fontsize=9.5, va="center", color=GREY)
    return figure


# ---- Weights on disk -----------------------------------------------------------------------------------------

def draw_file(header, start, total):
    """A safetensors file: its three parts (not to scale), all its tensors, and those of one layer (to scale)."""
    spans = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    parts = {}                                            # {part: [first byte, end]}, each layer as one
    for name, (begin, end) in spans.items():
        part = ("layer " + name.split(".")[2] if ".layers." in name
                else name.removeprefix("model.").removesuffix(".weight"))
        parts[part] = [parts.get(part, [begin])[0], end]
    figure, ax = sheet(40, 14)

    def strip(y, named, low, high, colours):
        for i, (name, (begin, end)) in enumerate(named.items()):
            x, width = 1 + 38 * (begin - low) / (high - low), 38 * (end - begin) / (high - low)
            ax.add_patch(plt.Rectangle((x, y), width, 1.6, facecolor=colours[i % 2], edgecolor=BLACK, linewidth=0.7))
            if width > 2.2:
                ax.text(x + width / 2, y + 0.8, name, ha="center", va="center", fontsize=9)

    for x, width, text, above, colour in (
            (1, 6, "8 bytes", f"= {start - 8:,}, little-endian", ORANGE), (7.4, 12, f"{start - 8:,} bytes of JSON",
            "names, types, shapes, offsets", YELLOW), (19.8, 19.2, f"{total - start:,} bytes of numbers",
            "tensor after tensor, without gaps", SKY)):
        ax.add_patch(plt.Rectangle((x, 11), width, 1.6, facecolor=colour, alpha=0.5, edgecolor=BLACK, linewidth=0.7))
        ax.text(x + width / 2, 11.8, text, ha="center", va="center", fontsize=10)
        ax.text(x + width / 2, 13.1, above, ha="center", va="center", fontsize=9, color=GREY)
    strip(6.3, parts, 0, total - start, ["#ffffff", "#cfe8f7"])
    ax.plot([19.8, 1], [11, 7.9], [39, 39], [11, 7.9], color=GREY, linestyle=":", linewidth=1)
    low, high = parts["layer 0"]
    x0, x1 = (1 + 38 * edge / (total - start) for edge in (low, high))
    ax.plot([x0, 1], [6.3, 3.2], [x1, 39], [6.3, 3.2], color=GREY, linestyle=":", linewidth=1)
    inner = {name.split(".")[-2].removesuffix("_proj"): span for name, span in spans.items() if ".layers.0." in name}
    strip(1.6, inner, low, high, ["#ffffff", "#cfe8f7"])
    ax.text(1, 0.8, "norms (512 bytes each, model.norm last) are thinner than a line; no label: k, left of o, and v, "
            "right of q", fontsize=9, color=GREY, va="center")
    return figure


def draw_bits(value):
    """A number as float32, bfloat16 and float16: sign, exponent and mantissa, bit by bit."""
    import ml_dtypes
    figure, ax = sheet(42, 11.4)
    for row, (name, dtype, exponent) in enumerate((("float32", np.float32, 8), ("bfloat16", ml_dtypes.bfloat16, 8),
                                                   ("float16", np.float16, 5))):
        with np.errstate(over="ignore"):
            stored = np.array(value, np.float32).astype(dtype)
        size, y = 8 * stored.itemsize, 8.3 - 3.4 * row
        bits = format(int(stored.view(f"uint{size}")), f"0{size}b")
        ax.text(0.2, y + 0.8, name, va="center", fontsize=10.5, weight="bold")
        for i, bit in enumerate(bits):
            colour = ORANGE if i == 0 else SKY if i <= exponent else "#ffffff"
            ax.add_patch(plt.Rectangle((8 + i, y), 1, 1.6, facecolor=colour, edgecolor=GREY, linewidth=0.7))
            ax.text(8.5 + i, y + 0.78, bit, ha="center", va="center", family="monospace", fontsize=10)
        for x in (9, 9 + exponent):                       # a heavy line between sign, exponent and mantissa
            ax.plot([x, x], [y, y + 1.6], color=BLACK, linewidth=2, linestyle="-")
        ax.text(8, y - 0.6, f"1 bit of sign, {exponent} of exponent, {size - exponent - 1} of mantissa; the number is "
                f"{float(stored):.9g}", va="center", fontsize=9, color=GREY)
    return figure


# ---- Start here: the model as one straight line --------------------------------------------------------------

def stream(trace, config):
    """The residual stream as a straight line, and beside it what reads it and adds to it, with the shapes of a run."""
    size = dict(T=len(trace["embedding"]), S=len(trace["embedding"]), D=config.dim, F=config.hidden_dim,
                V=config.vocab_size, H=config.n_heads, G=config.n_kv_heads, d=config.head_dim)
    figure, ax = sheet(13, 21.9)
    ax.set(ylim=(21.9, 0))
    line, left, full, third = 1.0, 2.4, 10.3, 3.3         # the line's place; boxes: left edge, widths
    middle = left + third + 0.2                           # of three boxes side by side
    right = middle + third + 0.2

    def tensor(name, letters, x, y, width, colour, layer="layers.0."):
        """A box with name and shape; narrow ones have them on two lines. Returns the y of its lower edge."""
        two = width < 5
        height = 1.2 if two else 0.8
        ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.12", facecolor=colour,
                                    alpha=0.45, edgecolor="none"))
        ax.text(x + 0.15, y + (0.35 if two else 0.4), name, va="center", family="monospace", fontsize=10)
        ax.text(x + width - 0.15, y + (0.85 if two else 0.4), shape_label(trace[layer + name], letters, size),
                va="center", ha="right", fontsize=9, color=GREY)
        return y + height

    def down(x, start, end):
        arrow(ax, (x, start), (x, end))

    def reads(y):
        arrow(ax, (line, y), (left, y))

    def adds(y, name):
        """From the box at height y back to the line, and the sum's name."""
        arrow(ax, (left, y), (line + 0.35, y))
        ax.add_patch(plt.Circle((line, y), 0.35, facecolor="white", edgecolor=BLACK, linewidth=1.2, zorder=3))
        ax.text(line, y, "+", ha="center", va="center", fontsize=13, zorder=4)
        ax.text(line + 0.25, y + 0.75, name, va="center", family="monospace", fontsize=10)
        ax.text(line + 2, y + 0.75, shape_label(trace["layers.0." + name], "T D", size), va="center", fontsize=9,
                color=GREY)

    ax.plot([line, line], [1.0, 19.6], color=BLACK, linewidth=2.5, linestyle="-", zorder=1)
    arrow(ax, (line, 19.5), (line, 19.8), BLACK)
    ax.add_patch(FancyBboxPatch((0.2, 1.4), 12.7, 17.9, boxstyle="round,pad=0,rounding_size=0.3", facecolor="none",
                                edgecolor=GREY, linestyle=(0, (4, 3))))
    ax.text(12.7, 18.7, f"L {config.n_layers} such layers, one after the other on the same line", ha="right",
            va="center", fontsize=10, color=GREY)
    tensor("embedding", "T D", 0.3, 0.2, 7, GREEN, layer="")

    reads(2.1)
    tensor("attn_norm", "T D", left, 1.7, full, YELLOW)
    for x in (left, middle, right):
        down(x + third / 2, 2.5, 2.9)
    tensor("attn.q", "H T d", left, 2.9, third, SKY)
    tensor("attn.k", "G T d", middle, 2.9, third, SKY)
    tensor("attn.v", "G T d", right, 2.9, third, SKY)
    for x, name, letters in ((left, "attn.q_rope", "H T d"), (middle, "attn.k_rope", "G T d")):
        down(x + third / 2, 4.1, 4.5)
        down(x + third / 2, tensor(name, letters, x, 4.5, third, ORANGE), 6.1)
    down(left + third, tensor("attn.scores", "H T S", left, 6.1, 2 * third + 0.2, BLUE), 7.3)
    down(left + third, tensor("attn.probs", "H T S", left, 7.3, 2 * third + 0.2, BLUE), 8.5)
    down(right + third / 2, 4.1, 8.5)
    down(left + full / 2, tensor("attn.heads", "H T d", left, 8.5, full, SKY), 9.7)
    tensor("attn.out", "T D", left, 9.7, full, SKY)
    adds(10.1, "x_attn")

    reads(12.1)
    wide = (full - 0.2) / 2
    tensor("ffn_norm", "T D", left, 11.7, full, YELLOW)
    gate, up = left + wide / 2, left + wide + 0.2 + wide / 2
    down(gate, 12.5, 12.9), down(up, 12.5, 12.9)
    down(gate, tensor("ffn.gate", "T F", left, 12.9, wide, PURPLE), 14.1)
    down(up, tensor("ffn.up", "T F", left + wide + 0.2, 12.9, wide, PURPLE), 15.3)
    down(gate, tensor("ffn.silu", "T F", left, 14.1, wide, PURPLE), 15.3)
    down(left + full / 2, tensor("ffn.hidden", "T F", left, 15.3, full, PURPLE), 16.5)
    tensor("ffn.out", "T D", left, 16.5, full, PURPLE)
    adds(16.9, "x_ffn")

    down(4, tensor("norm", "T D", 0.3, 19.8, 7, YELLOW, layer=""), 20.9)
    tensor("logits", "T V", 0.3, 20.9, 7, GREEN, layer="")
    return figure


# ---- The pictures of the README ------------------------------------------------------------------------------

def draw_loss(log):
    """The training run: bits per byte of training and held-out text against tokens seen, from training.csv."""
    with open(log, newline="") as file:
        rows = list(csv.DictReader(file))
    tokens = [int(row["tokens"]) / 1e6 for row in rows]
    figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for key, label, colour, marker in (
            ("training_bits_per_byte", "training", ORANGE, "o"), ("held_out_bits_per_byte", "held out", BLUE, "s")):
        values = [float(row[key]) for row in rows]
        ax.plot(tokens, values, color=colour, marker=marker, markersize=4)
        ax.annotate(f" {label}, {values[-1]:.2f}", (tokens[-1], values[-1]), color=colour, va="center")
    ax.set(xlabel="tokens seen (millions)", ylabel="bits per byte", xlim=(0, tokens[-1] * 1.25))
    return figure


def draw_speed(results):
    """Tokens/s of each engine by shape, for a prompt of 512 and for decoding, from benchmark.json: a figure."""
    found = json.loads(results.read_text())
    shapes, looks = found["shapes"], [(BLUE, ""), (ORANGE, "///"), (SKY, "..."), (GREEN, "xxx")]
    figure, axes = new(3, columns=2)
    for ax, what, n, title in ((axes[0], "prompt 512", 512, "prompt of 512 tokens"),
                               (axes[1], "decode 16", found["steps"], "decoding after 16 tokens")):
        names = [name for name, measured in next(iter(shapes.values())).items() if what in measured]
        width = 0.82 / len(names)
        for i, (engine, (colour, hatch)) in enumerate(zip(names, looks)):
            times = [engines[engine][what] or [np.inf] for engines in shapes.values()]        # none: over a minute
            speeds = [n / np.median(some) for some in times]
            ax.bar(np.arange(len(shapes)) + width * i, speeds, width, color=colour, hatch=hatch, edgecolor="white",
                   label=engine)
        ax.set_xticks(np.arange(len(shapes)) + width * (len(names) - 1) / 2, shapes)
        ax.set(yscale="log", ylim=(1, None), title=title, ylabel="tokens/s")
    ceiling = [found["steps"] / np.median(engines["numpy_llama"]["ceiling decode 16"]) for engines in shapes.values()]
    axes[1].scatter(np.arange(len(shapes)), ceiling, marker="_", s=250, color=BLACK, label="matrix products alone")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def main(out=ROOT):
    folder = ROOT / "weights" / "fairytales"
    weights, config = nl.load(folder)
    tokenizer = nl.Tokenizer(folder / "tokenizer.model")
    tokens, trace = tokenizer.encode(PROMPT), nl.Trace()
    nl.forward(tokens, weights, config, tap=trace)
    draw_model(trace, tokens, weights, config, tokenizer).savefig(out / "notebooks" / "model.png")
    draw_speed(ROOT / "tests" / "benchmark.json").savefig(out / "notebooks" / "speed.png")
    draw_loss(folder / "training.csv").savefig(out / "weights" / "training.png")


if __name__ == "__main__":
    main()
