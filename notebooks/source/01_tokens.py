# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1. Tokens
#
# | | |
# | --- | --- |
# | **The question** | How does a text become numbers, and how do numbers become a text again? |
# | **You will be able to** | turn a text into token ids by hand, merge by merge; say what becomes of a space, a digit, an emoji and a Chinese character; read off what the embedding alone knows of a token |
# | **It assumes** | lesson [00](00_start_here.ipynb); lists and dictionaries in Python |
# | **Minutes** | 85 |
#
# T tokens, D model width, V vocabulary.

# %% tags=["hide"]
import checks
import figures
import ipywidgets
import numpy as np
from course import FOLDER, SENTENCE, STORY, config, nl, tokenizer, weights

check = checks.lesson("01")

# %% [markdown]
# ## Text in, numbers out
#
# A Llama reads no letters. It reads T whole numbers, each from 0 to V − 1. The *tokenizer* makes them. It was built
# before the model, and it never changes afterwards.
#
# **Predict.** "The king gave his youngest daughter a golden ball, and she was very happy." has 14 words and 74 characters.
# How many tokens will it be?

# %%
tokens = tokenizer.encode(SENTENCE)
vocabulary = [tokenizer.sp.id_to_piece(i) for i in range(config.vocab_size)]      # id -> piece
number_of = {piece: i for i, piece in enumerate(vocabulary)}                      # piece -> id

print(f"{len(SENTENCE.split())} words, {len(SENTENCE)} characters, T {len(tokens)} tokens")
print(*[vocabulary[i] for i in tokens])

# %%
figure = figures.coloured_text([vocabulary[i] for i in tokens], tokens, limit=3 * config.vocab_size,
                               numbers=".0f", per_line=62)
figures.show(figure, "Each piece of the sentence with its id below: whole words, two punctuation "
                     "marks, and a token in front that nobody typed.")

# %% [markdown]
# **Explain.** The sentence is common fairy-tale English, so each word is one token, and each punctuation mark is one. A space is
# not a token of its own: it is written `▁` and belongs to the word that follows. `<s>` marks the beginning of a text.
#
# ## What the vocabulary holds
#
# The paper ([LLaMA](https://arxiv.org/abs/2302.13971), section 2.1) names the method, *byte-pair encoding*, and its
# implementation, SentencePiece; the next two sections show how it learns and how it encodes. Numbers are split into
# single digits, and characters without a piece are spelled in bytes. The model that ships does the same, with fewer
# pieces. Its V entries come in four kinds, one after the other:

# %%
sp = tokenizer.sp                                         # SentencePiece itself
first_piece = 3 + 256                                     # after three signs and all bytes
learned = [i for i in range(first_piece, config.vocab_size) if len(vocabulary[i]) > 1]
letters = [i for i in range(first_piece, config.vocab_size) if len(vocabulary[i]) == 1]
for kind, ids in (("signs", range(3)), ("bytes", range(3, 259)), ("merged pieces", learned),
                  ("single characters", letters)):
    some = " ".join(vocabulary[i] for i in ids[:6])
    print(f"{kind:17} {len(ids):5} ids from {ids[0]:4} to {ids[-1]:4}: {some}")
print(f"{'':17} V {len(vocabulary)};  digits among the pieces: "
      f"{sum(any(c.isdigit() for c in vocabulary[i]) for i in learned + letters)}")
print("scores of the first merged pieces:", *[int(sp.get_score(i)) for i in learned[:4]])

# %% [markdown]
# **Explain.** The merged pieces stand in the order in which they were learned, and the file keeps that order as a
# *score*: the later, the lower. No digit has a piece here: each is spelled as one byte. (The 32,000 pieces of the large
# models include the ten digits.) Of the signs, `<s>` begins a text, `</s>` ends one, and `<unk>` is not used.
#
# ## How the pieces were learned
#
# Byte-pair encoding begins with single characters, and repeats one step: count all neighbours, and make the most
# frequent pair a new piece. Words are counted apart, so no piece reaches across a space.
#
# With a pencil: the words are *hut*, *hat*, *that*, *hat*. In `h u t`, `h a t`, `t h a t`, `h a t` the neighbours `h a`
# and `a t` occur three times each, all others once. Take the first, `ha`, as a piece: `h u t`, `ha t`, `t ha t`, `ha t`.
# Now `ha t` occurs three times, and *hat* is the next piece.
#
# **Predict.** Which is more frequent in English fairy tales: `t` + `h`, as in *the*, *that*, *this*, or `h` + `e`, as in
# *the*, *he*, *she*, *her*?

# %%
from collections import Counter


def merge_in(word, pair):
    """A word with every occurrence of a pair made one symbol."""
    out = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def learn(text, steps):
    """The first merges of byte-pair encoding, learned from a text."""
    words = Counter(("▁", *word) for word in text.split())        # {symbols of a word: how often}
    merges = []
    for _ in range(steps):
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        best = max(pairs, key=pairs.get)
        merges.append(best[0] + best[1])
        words = {merge_in(word, best): count for word, count in words.items()}
    return merges


print(f"the story has he {STORY.count('he')} times, th {STORY.count('th')} times")
print(f"learned from its {len(STORY.split())} words", *learn(STORY, 16))
print("from 115 books, as shipped ", *[vocabulary[i] for i in learned[:16]])
print("the last merges of these   ", *[vocabulary[i] for i in learned[-8:]])

# %% [markdown]
# **Explain.** The first merge is `he`, in the story as in the books. One short story is enough to find many of the same
# pairs; the books go on until rare words are pieces.
#
# ## A word, merge by merge
#
# Encoding replays the learned merges. Begin with single characters. Among all neighbours that together make a piece,
# join those whose piece was learned *first*: it has the highest score, as scores are 0, −1, −2 and so on. If it stands
# there several times, the leftmost is joined. Repeat until no neighbours make a piece.
#
# With a pencil: let the pieces be `ab` (score 0), `bc` (score −1) and `abc` (score −2), and the word `abcb`. The letters
# are `a b c b`. Of the neighbours, `ab` and `bc` are pieces, and `ab` has the higher score: `ab c b`. Now `ab` + `c` makes
# `abc`: `abc b`. No neighbours are left that make a piece, so the word is two tokens.
#
# **Predict.** *youngest* is a piece of the vocabulary. Of its parts, `es` was learned as merge 50, `est` as merge 256,
# `▁you` as merge 52, `▁young` as merge 445. Which of the four is joined first, and which last?

# %%
score = {vocabulary[i]: sp.get_score(i) for i in learned + letters}


def merge_steps(symbols):
    """Every rung from single characters to pieces: list of symbols -> list of lists."""
    steps = [symbols]
    while True:
        pairs = [a + b for a, b in zip(symbols, symbols[1:])]
        known = [i for i, pair in enumerate(pairs) if pair in score]
        if not known:
            return steps
        i = max(known, key=lambda place: score[pairs[place]])    # of equals, max takes the first
        symbols = symbols[:i] + [pairs[i]] + symbols[i + 2:]
        steps.append(symbols)


rank = {vocabulary[i]: n + 1 for n, i in enumerate(learned)}          # he is merge 1
print("merges:", *[f"{part} {rank[part]} " for part in ("es", "▁you", "est", "▁young")])
for step in merge_steps(list("▁youngest")):
    print(*step)

# %%
def draw(word):
    steps = merge_steps(list("▁" + word))
    pieces = " ".join(steps[-1])
    figures.show(figures.draw_merges(steps, rank),
                 f"From {len(steps[0])} characters to {pieces}: at each rung the pair that was "
                 "learned first is joined (framed), with its place in the order of learning.")


draw("youngest")

# %% tags=["sliders"]
ipywidgets.interact(draw, word=["youngest", "daughter", "grandmother", "witchcraft", "kingdom",
                                "unhappiness", "happily", "zigzag"]);

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). Move the slider through the merges. Then type another word, or a letter
# that fairy tales lack:
#
#     python notebooks/explorer/build.py --open "#p=youngest&t=embedding&tab=tokens"

# %% [markdown]
# **Explain.** `es` first and `▁young` last, in the order of learning: frequent endings are old pieces and close early.
# Some pieces are only rungs: wherever the story has `▁daught`, `er` stands beside it, and the two become `▁daughter`. The
# rows of the embedding will show that the model has hardly met that rung.
#
# The rest is bookkeeping: spaces become `▁`, one more `▁` is put in front (the next section says why), and a character
# without a piece becomes bytes. Then our encoder can be compared with SentencePiece's.

# %%
def encode(text):
    """Text to ids, with <s> in front."""
    ids = [number_of["<s>"]]
    if text:
        for symbol in merge_steps(list("▁" + text.replace(" ", "▁")))[-1]:
            if symbol in number_of:
                ids.append(number_of[symbol])
            else:                                         # byte b is id 3 + b
                ids += [number_of["<0x00>"] + byte for byte in symbol.encode("utf-8")]
    return ids


awkward = ["", " ", "I", "  two  spaces ", "3 bears, 1813.", "ö & 株式会社", "👑👨‍👩‍👧", "\n\n\ttab",
           "<s>", "e\u0301", "▁", "a\u00a0b", "Hahahahaha", "ﬁ", "x" * 50]
print("the story       ", encode(STORY) == tokenizer.encode(STORY))
print("awkward strings ", [encode(text) == tokenizer.encode(text) for text in awkward].count(True),
      "of", len(awkward))

# %% [markdown]
# ## The space in front
#
# SentencePiece puts a space before the text, the *dummy prefix*, so that a word is the same token at the beginning as
# anywhere else. The prompt `I` is the piece `▁I`, not the piece `I`, which stands where no space comes before: after a
# quotation mark, as the word “I or at the beginning of “In or “It. Both pieces exist, and the model has learned them apart.
#
# **Predict.** Does the model ever expect `n` after `I` without a space, and after `▁I`: in 0, 5 or 20 percent?

# %%
def expected(ids, count=6):
    """{piece: percent} of the likeliest next tokens."""
    probs = nl.next_token_probs(nl.forward(ids, weights, config)[-1])
    return {vocabulary[i]: 100 * probs[i] for i in np.argsort(-probs)[:count]}


right, wrong = tokenizer.encode("I"), [tokenizer.bos, number_of["I"]]
for ids in (right, wrong):
    percent = expected(ids, count=config.vocab_size)["n"]
    print([vocabulary[i] for i in ids], f"then n: {percent:.0f} %")

# %%
figure, axes = figures.new(2.3, columns=2)
for ax, title, ids in ((axes[0], "after ▁I", right), (axes[1], "after I", wrong)):
    figures.bars(ax, expected(ids), ".0f", marked=["n"])
    ax.set(title=title, xlabel="percent", xlim=(0, 30))
figures.show(figure, "The same letter, two tokens: without the space a fifth of the probability "
                     "goes to n (hatched), for the word In; the rest is much as after the word I.")

# %% [markdown]
# Decoding takes the space away again, once, at the beginning. So texts must be encoded and decoded whole. In parts,
# spaces appear and vanish:

# %%
whole, parts = "Once upon a time", ["Once upon", " a time"]
glued = [i for part in parts for i in tokenizer.encode(part, bos=False)]
print(repr(tokenizer.decode(tokenizer.encode(whole))))
print(repr(tokenizer.decode(glued)), " encoded in two parts")
one_at_a_time = "".join(tokenizer.decode([i]) for i in tokenizer.encode(whole))
print(repr(one_at_a_time), " decoded one at a time")

# %% [markdown]
# The other token in front, `<s>`, says that a text begins here. Leaving it out changes two things: the sign is gone, and
# *Once* stands at position 0, where no word ever stood in training. To tell them apart, put another token in the place of
# `<s>`: a full stop, then *Once* stands where it did. A *nat* measures surprise: 0 means sure (lesson
# [10](10_objective_and_sampling.ipynb)).
#
# **Predict.** Which costs more, in nats for the word *upon*: no `<s>` at all, or a full stop in its place?

# %%
story = tokenizer.encode(STORY, bos=False)
for name, front in (("<s>", [tokenizer.bos]), ("nothing", []), (".", [number_of["."]])):
    logits = nl.forward(front + story, weights, config)
    nats = nl.cross_entropy(logits[len(front):-1], story[1:])        # the row of Once predicts upon
    first = "  ".join(f"{vocabulary[i]} {x:.2f}" for i, x in zip(story[1:5], nats))
    print(f"{name:7} in front: {first}  mean of the story {nats.mean():.2f}")

# %% [markdown]
# **Explain.** With `<s>`, *Once* is almost surely followed by *upon a time*. Both other fronts make *upon* a surprise, so
# the sign itself tells the model that a tale begins. The place matters too: with nothing in front, even *a time* after
# *upon* is unsure. Over the whole story, either costs less than a tenth of a nat per token.
#
# ## Bytes for all the rest
#
# UTF-8, the usual way to store text, writes every character as one to four bytes, and every byte has a piece, `<0x00>` to
# `<0xFF>`. So there is nothing that cannot be written. One character does not come back: `▁` itself. It stands for a space,
# so a text that contains it decodes to a space there.
#
# **Predict.** How many tokens are `7`, `ö`, `株` and `👑`?

# %%
for character in "7ö株👑":
    spelled = character.encode("utf-8")
    ids = tokenizer.encode(character, bos=False)[1:]      # [0] is the ▁ in front, by itself
    bits = " ".join(f"{byte:08b}" for byte in spelled)
    print(character, bits, "->", *[vocabulary[i] for i in ids])
    assert ids == [3 + byte for byte in spelled]

for text in ("株 and 👑", "a▁b"):
    print(repr(text), "comes back as", repr(tokenizer.decode(tokenizer.encode(text))))
characters = [chr(code) for code in range(0x3000)]
print("of the first", len(characters), "characters of Unicode, those that do not come back:",
      *[c for c in characters if tokenizer.decode(tokenizer.encode(c)) != c])

# %% [markdown]
# **Explain.** The first byte says how many follow: it begins with `0` (none), `110` (one), `1110` (two) or `11110`
# (three), and each that follows begins with `10`. A part of them is no character. So a program that prints
# tokens as they come must wait for the last byte; `nl.stream_text` holds half a character back:

# %%
ids = tokenizer.encode("a 👑!", bos=False)
for n in range(1, len(ids) + 1):
    print(n, repr(tokenizer.decode(ids[:n])))
print("streamed:", list(nl.stream_text(ids, tokenizer)))

# %% [markdown]
# ## How much a token holds
#
# **Predict.** The tokenizer learned from English fairy tales. Order these by characters per token: fairy tale, modern
# English, German, French, Python, digits, Chinese, emoji.

# %%
samples = {
    "fairy tale": STORY,
    "modern English": "The committee will publish its report on inflation next quarter. "
                      "Analysts expect interest rates to remain unchanged, although the central "
                      "bank hinted at cuts.",
    "German": "Es war einmal ein König, der hatte drei Töchter, und die jüngste war so schön, "
              "dass die Sonne sich wunderte, sooft sie ihr ins Gesicht schien.",
    "French": "Il y avait une fois un roi qui avait trois filles, et la plus jeune était si "
              "belle que le soleil s'en étonnait.",
    "Python": "def mean(values):\n    return sum(values) / len(values)\n\nprint(mean([3, 5, 7]))\n",
    "digits": "3.14159265358979 2.71828182845904 1.41421356237309",
    "Chinese": "从前有一位国王,他有三个女儿,最小的那个非常美丽。",
    "emoji": "👑🐺🌲🏰🌙🔥",
}
per_token = {kind: len(text) / len(tokenizer.encode(text, bos=False))
             for kind, text in samples.items()}
for kind, characters in per_token.items():
    print(f"{kind:15} {characters:.2f} characters per token; "
          f"a context of {config.max_seq_len} tokens holds {characters * config.max_seq_len:5.0f}")

# %%
figure, ax = figures.new(2.9)
figures.bars(ax, per_token, ".2f", marked=["Chinese", "emoji"])
ax.axvline(1, color=figures.GREY, linestyle=":", linewidth=1.2)
ax.set(xlabel="characters per token (dotted: one)", title="What one token of this vocabulary holds")
figures.show(figure, "Text like that of the training books takes a quarter as many tokens as "
                     "characters; characters of three and four bytes (hatched) take about as many "
                     "tokens as bytes.")

# %% [markdown]
# **Explain.** Pieces are words of the training text. Elsewhere the encoder stops on lower rungs, and at last at bytes.
# Time, memory and context are all counted in tokens, so this German sentence costs twice what a fairy tale does,
# character for character. The large models' vocabulary is ten times this one's, and their digits are single too.
#
# ## A row of numbers for each token
#
# The model's first act is to look each id up in a table, the embedding (V, D). The id says nothing but which row. It is
# the same as a product with a vector that is 1 at the id and 0 elsewhere, and faster.

# %%
E = weights["embedding"]                                  # (V, D)
trace = nl.Trace()
nl.forward(tokens, weights, config, tap=trace)

one_hot = np.eye(config.vocab_size, dtype=np.float32)[tokens]        # (T, V)
print("a look-up is a product ", np.array_equal(one_hot @ E, E[tokens]))
print("and what the model does", np.array_equal(E[tokens], trace["embedding"]))

# %% [markdown]
# Rows begin as small random numbers. Where a token occurs in the training text, training changes its row, and the
# changes add up. A token that never occurs leaves its row as it is, but for the slow shrinking (*weight decay*) that all
# rows undergo. (That holds here because input and output have matrices of their own; where they share one, every row is
# changed at every step.) So short rows should be those of tokens that were never met.

# %%
length = np.linalg.norm(E, axis=1)                        # (V,)
figure, ax = figures.new(2.5)
bins = np.linspace(0, 1.5, 31)
ax.hist(length[first_piece:], bins, color=figures.SKY, label="pieces")
ax.hist(length[3:first_piece], bins, color=figures.ORANGE, hatch="///", edgecolor="white",
        label="bytes")
ax.set(yscale="log", xlabel="length of a row of the embedding (D)", ylabel="rows")
ax.legend(loc="upper center")
figures.show(figure, "Two heaps with a gap between them at 0.2: short rows, nearly all of them of "
                     "bytes, and long ones, nearly all of pieces.")

# %% [markdown]
# **Predict.** Which bytes have long rows, and might there be pieces with short ones?

# %%
short = length < 0.2
print(f"bytes:  {short[3:first_piece].sum()} of 256 are short; the long ones:",
      repr("".join(chr(byte) for byte in range(256) if not short[3 + byte])))
print(f"pieces: {short[first_piece:].sum()} of {config.vocab_size - first_piece} are short:",
      *[vocabulary[i] for i in range(first_piece, config.vocab_size) if short[i]])
probs = nl.next_token_probs(nl.forward(tokens, weights, config)[-1])
bytes_next = probs[3:first_piece]
next_byte = probs[3:first_piece][short[3:first_piece]]
print(f"all short bytes together, as the next token: {next_byte.sum():.0e}")

# %% [markdown]
# **Explain.** Digits and line breaks have long rows; the bytes of Chinese and of emoji have short ones. The tokenizer can
# spell `株`, and the model knows nothing of it: it gives such bytes next to no probability, and where it meets one it reads
# a row that says nothing. Among the pieces, `▁daught` is short, the rung that is always climbed.
#
# ## Nearest neighbours
#
# The cosine of the angle between two rows compares their directions: 1 is the same, 0 is a right angle.
#
# **Predict.** Which tokens point most nearly the same way as *castle*, *red*, *wolf*, *eat*?

# %%
U = E / length[:, None]                                   # rows of length 1: a product is a cosine


def neighbours(word, count=5):
    cosines = U @ U[number_of[word]]
    near = [i for i in np.argsort(-cosines) if vocabulary[i] != word][:count]
    return "  ".join(f"{vocabulary[i]} {cosines[i]:.2f}" for i in near)


for word in ("▁castle", "▁red", "▁wolf", "▁eat", "▁mother", "▁day", "▁three", ".", "▁the"):
    print(f"{word:8} {neighbours(word)}")
apart = U[259:1259] @ U[1259:2259].T
print(f"a million other pairs: 99 % lie below {np.quantile(apart, 0.99):.2f}")

# %%
families = {
    "colours": "red blue white green black brown yellow gray",
    "numbers": "two three four five six seven twelve hundred",
    "places": "castle palace city cottage hut forest garden village",
    "animals": "wolf fox lion mouse goat cat dog horse bear",
}
families = {family: words.split() for family, words in families.items()}
rows = np.array([E[number_of["▁" + word]] for words in families.values() for word in words])
centred = rows - rows.mean(axis=0)
_, strength, directions = np.linalg.svd(centred, full_matrices=False)
points = centred @ directions[:2].T                       # (words, 2): the two widest directions
kept = np.sum(strength[:2] ** 2) / np.sum(strength ** 2)
print(f"two directions of D {config.dim} keep {kept:.0%} of the spread")

unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
cosines = unit @ unit.T                                   # (words, words)
family = np.repeat(np.arange(4), [len(words) for words in families.values()])
same = family[:, None] == family
np.fill_diagonal(cosines, np.nan)                         # a word and itself do not count
nearest = np.nanargmax(cosines, axis=1)
print(f"mean cosine within a family {np.nanmean(cosines[same]):.2f}, "
      f"between families {np.nanmean(cosines[~same]):.2f}")
print(f"in all D directions, the nearest of the other words is of the same family "
      f"for {np.sum(family[nearest] == family)} of {len(rows)}")

figure, ax = figures.new(4.2)
figures.draw_families(families, points, ax)
ax.set(xlabel="direction of the largest spread", ylabel="of the second largest")
figures.show(figure, "The rows of 33 words, seen along the two directions in which they differ "
                     "most: the families part, and a few words stray; two has come among the "
                     "places, horse and bear lie apart.")

# %% [markdown]
# **Explain.** Nobody told the model what a colour is. It had to predict what follows, and what follows *red* is much like
# what follows *blue*: a row that serves the one serves the other. A cosine of 0.4 is a near relation here, far above what
# pairs have by chance; the neighbours of `▁the` are not. One row stands for all meanings of a token; what it means *here*
# is the work of the layers that follow.
#
# ## In the wild
#
# - **A tokenizer to read.** SentencePiece's rules were written anew for minbpe
#   ([minbpe#60](https://github.com/karpathy/minbpe/issues/60)), and its author says that they do not match exactly. The
#   two functions `merge_steps` and `encode` above matched on everything that we tried.
# - **No dummy prefix.** The prompt begins with the token `I` instead of `▁I`. The answer is fluent, and a fifth of it
#   answers another prompt, as the figure above shows.
# - **Characters dropped.** A program that leaves out what has no piece, instead of spelling it in bytes, loses text without
#   a word. The cell below shows what is left.
# - **`text.strip("<s>")`** does not remove `<s>`: it removes the letters `<`, `s`, `>` from both ends.

# %%
for said in ("<s> The wolf was", "<s> three kisses"):
    print(f"{said!r}.strip('<s>') is {said.strip('<s>')!r}")

text = "In 1813 the 3 bears ate crème.\n\nThen they slept."
left = [i for i in tokenizer.encode(text) if not sp.is_byte(i)]
print(repr(tokenizer.decode(tokenizer.encode(text))))
print(repr(tokenizer.decode(left)), " bytes dropped")

# %% [markdown]
# If you have TinyLlama or Llama 2, put its folder into `weights/`. The next cell then holds *their* tokenizer against
# three known encodings, one of them of cuneiform, in bytes. It checks your file.

# %% tags=["timing"]
known = [("I believe the meaning of life is", True, [1, 306, 4658, 278, 6593, 310, 2834, 338]),
         ("Lets try ö & 株式会社", False,
          [365, 1691, 1018, 3963, 669, 29871, 31409, 30607, 30437, 30564]),
         ("𒎗𓐍", False, [29871, 243, 149, 145, 154, 243, 150, 147, 144])]
theirs = [nl.Tokenizer(path) for path in sorted(FOLDER.parent.glob("*/tokenizer.model"))]
theirs = [tokenizer_32k for tokenizer_32k in theirs if tokenizer_32k.vocab_size == 32000]
for tokenizer_32k in theirs:
    for text, bos, ids in known:
        print(tokenizer_32k.encode(text, bos=bos) == ids, text)
if not theirs:
    print("There is no tokenizer of 32,000 pieces in weights/: nothing to check.")

# %% [markdown]
# ## Questions
#
# **1.** The pieces are `lo` (score 0), `ow` (score −1), `low` (score −2) and `er` (score −3). Encode `lower`.
#
# <details>
# <summary>Answer</summary>
#
# `l o w e r`; `lo` is best: `lo w e r`; of `low` (−2) and `er` (−3), `low` is better: `low e r`; then `er`: `low er`.
#
# </details>
#
# **2.** Two programs have the same vocabulary and the same scores. One joins the best pair first, the other always takes
# the longest piece that fits, from the left. Can their tokens differ, and does it matter if both decode to the same text?
#
# <details>
# <summary>Answer</summary>
#
# They can: with the pieces `ab` (0), `cd` (−1) and `abc` (−2), `abcd` becomes `ab cd` by merging (`ab` first, then
# `cd`), and `abc d` from the left. It matters: the model has seen one of the two spellings in training, and meets the
# other for the first time.
#
# </details>
#
# **3.** Byte pieces make every text possible. Why not leave out all other pieces, and have a vocabulary of 259?
#
# <details>
# <summary>Answer</summary>
#
# It would work, and the embedding would be small. But every text would have about four times as many tokens (the figure
# above: characters per token), and time, memory and context are counted in tokens.
#
# </details>
#
# ## Exercises
#
# Fill in each function; `check` runs it on several inputs, and says what a wrong answer looks like.
#
# ### 1. A character in bytes
#
# A character without a piece is spelled in the pieces of its UTF-8 bytes: `"ö"` becomes `["<0xC3>", "<0xB6>"]`.

# %% tags=["exercise"]
def byte_pieces(character):
    """The byte pieces that spell a character: str -> list of str."""
    ...

# %%
check(byte_pieces)

# %% tags=["solution"]
def byte_pieces(character):
    return [f"<0x{byte:02X}>" for byte in character.encode("utf-8")]

# %% [markdown]
# ### 2. One merge
#
# One rung of the ladder. `scores` maps each piece to its score, as in `score` above. Join one pair of neighbours: the
# one whose piece has the highest score, the leftmost if there are several. Return the symbols as they are if no
# neighbours make a piece.

# %% tags=["exercise"]
def merge_once(symbols, scores):
    """The next rung: list of str, {piece: score} -> list of str."""
    ...

# %%
check(merge_once)

# %% tags=["solution"]
def merge_once(symbols, scores):
    pairs = [a + b for a, b in zip(symbols, symbols[1:])]
    known = [i for i in range(len(pairs)) if pairs[i] in scores]
    if not known:
        return symbols
    i = max(known, key=lambda i: scores[pairs[i]])
    return symbols[:i] + [pairs[i]] + symbols[i + 2:]

# %% [markdown]
# ### 3. Pieces to text
#
# The way back. `<s>` and `</s>` are silent, byte pieces together make UTF-8, `▁` is a space, and the space of the dummy
# prefix goes. The text itself may say `<s>`: then it is spelled in other pieces, and must come out.

# %% tags=["exercise"]
def pieces_to_text(pieces):
    """The text that the pieces spell: list of str -> str."""
    ...

# %%
check(pieces_to_text)

# %% tags=["solution"]
def pieces_to_text(pieces):
    data = b""                             # in bytes: a character may be spread over four pieces
    for piece in pieces:
        if piece.startswith("<0x"):
            data += bytes([int(piece[3:5], 16)])
        elif piece not in ("<s>", "</s>"):
            data += piece.replace("▁", " ").encode("utf-8")
    return data.decode("utf-8").removeprefix(" ")

# %% [markdown]
# ## In five lines
#
# 1. A token is an id below V; its piece is a word with its space, a part of a word, a character, or a byte.
# 2. Encoding replays learned merges: the pair that was learned first is joined first, until none is left.
# 3. A text gets `<s>` and a space in front: `I` is `▁I`, and text encoded in parts is not text encoded whole.
# 4. What has no piece is spelled in UTF-8 bytes; only a typed `▁` is lost, but such text costs several tokens per character.
# 5. The embedding holds one row per token: those of related words lean the same way, those never met say nothing.
