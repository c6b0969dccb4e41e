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
from course import SENTENCE, STORY, config, nl, tokenizer, weights

check = checks.lesson("01")

# %% [markdown]
# ## Text in, numbers out
#
# A Llama reads no letters. It reads T whole numbers, each from 0 to V − 1. The *tokenizer* makes them. It was built
# before the model, and never changes.
#
# **Predict.** "The king gave his youngest daughter a golden ball, and she was very happy." has 14 words and 74
# characters. How many tokens will it be?

# %%
tokens = tokenizer.encode(SENTENCE)
vocabulary = [tokenizer.sp.id_to_piece(i) for i in range(config.vocab_size)]      # id -> piece
number_of = {piece: i for i, piece in enumerate(vocabulary)}                      # piece -> id

print(f"{len(SENTENCE.split())} words, {len(SENTENCE)} characters, T {len(tokens)} tokens")
figure = figures.coloured_text([vocabulary[i] for i in tokens], tokens, limit=3 * config.vocab_size,
                               numbers=".0f", per_line=62)
figures.show(figure, "Each piece of the sentence with its id below: whole words, two punctuation "
                     "marks, and a token in front that nobody typed (darker: a higher id).")

# %% [markdown]
# **Explain.** Here each word is one token, and so is each punctuation mark. A space is not a token of its own: it is
# written `▁` and belongs to the word that follows. `<s>` marks the beginning of a text.
#
# ## What the vocabulary holds
#
# The paper ([LLaMA](https://arxiv.org/abs/2302.13971), section 2.1) names the method, *byte-pair encoding*, and its
# implementation, SentencePiece. Numbers are split into single digits, and characters without a piece are spelled in
# bytes. The model that ships does the same, with fewer pieces. Its V entries come in four kinds:

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
# *score*, 1 − n for merge n: the later, the lower. No digit has a piece here: each is spelled as one byte. (The rarest
# characters of the training books got none.) Of the signs, `</s>` ends a text, and `<unk>` is not used. (The 32,000
# pieces of Llama 1 and 2 include the ten digits. Llama 3 has another tokenizer: four times as many, merges of bytes, no
# space in front, up to three digits in a piece.)
#
# ## How the pieces were learned
#
# Byte-pair encoding begins with single characters, and repeats one step: count all neighbours, and make the most
# frequent pair a new piece. Words are counted apart, so no piece reaches across a space. (The name comes from
# compression, where the symbols were bytes. Here the 256 byte pieces are never merged.)
#
# With a pencil (and without the `▁`): the words are *hut*, *hat*, *that*, *hat*. In `h u t`, `h a t`, `t h a t`,
# `h a t` the neighbours `h a` and `a t` occur three times each, all others once. Take the first, `ha`, as a piece:
# `h u t`, `ha t`, `t ha t`, `ha t`. Now `ha t` occurs three times, and *hat* is the next piece.
#
# **Predict.** Which is more frequent in English fairy tales: `t` + `h`, as in *the*, *that*, *this*, or `h` + `e`, as
# in *the*, *he*, *she*, *her*?

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
print("from 112 books, as shipped ", *[vocabulary[i] for i in learned[:16]])
print("the last merges of these   ", *[vocabulary[i] for i in learned[-8:]])

# %% [markdown]
# **Explain.** The first merge is `he`, in the story as in the books. Once `he` is a piece, *the* is `t he`, and no
# longer counts for `th`. One short story finds eleven of the same sixteen pieces. Learning from the books goes on until
# V is full; by then, rarer words are pieces.
#
# ## A word, merge by merge
#
# Encoding replays the learned merges. Begin with single characters. Among all neighbours that together make a piece,
# join the pair whose piece was learned *first*, that is, has the highest score; if it stands there several times, the
# leftmost. Repeat until no neighbours make a piece.
#
# With a pencil: let the pieces be `ab` (score 0), `bc` (score −1) and `abc` (score −2), and the word `abcb`. The
# letters are `a b c b`. Of the neighbours, `ab` and `bc` are pieces, and `ab` has the higher score: `ab c b`. Now
# `ab` + `c` makes `abc`: `abc b`. The word is two tokens.
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


def draw(word):
    """The rungs of a word, as a figure."""
    steps = merge_steps(list("▁" + word))
    pieces = " ".join(steps[-1])
    figures.show(figures.draw_merges(steps, rank),
                 f"From {len(steps[0])} characters to {pieces}: at each rung the pair that was "
                 "learned first is joined (framed), with its place in the order of learning.")


print("merges:", *[f"{piece} {rank[piece]}" for piece in ("es", "est", "▁you", "▁young")])
draw("youngest")

# %% tags=["sliders"]
ipywidgets.interact(draw, word=["youngest", "daughter", "grandmother", "witchcraft", "kingdom",
                                "unhappiness", "happily", "zigzag"]);

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). It opens at *youngest*, with a slider through the merges. Then type
# another word, or a letter that fairy tales lack:
#
#     python notebooks/explorer/build.py --open "#p=youngest&t=embedding&tab=tokens"

# %% [markdown]
# **Explain.** `es` first and `▁young` last, in the order of learning. Some pieces are only rungs: in the training books
# `er` stands behind every `▁daught`, so it always becomes `▁daughter`, and the model never meets `▁daught`.
#
# The rest: spaces become `▁`, one more goes in front, and a character without a piece becomes bytes.
# Does our encoder agree with SentencePiece's?

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
# SentencePiece puts a space before the text, the *dummy prefix*, so that a word is the same token at the beginning of a
# text as behind a space. So the prompt `I` becomes `▁I`. The piece `I` is for an I behind a quotation mark or a line
# break: the word *I*, or the beginning of a word such as *In*, which there is `I` `n` (only `▁In` is a piece).
#
# **Predict.** How likely does the model find `n` after `I`, and after `▁I`: about 0, 20 or 60 percent?

# %%
def expected(ids):
    """{piece: percent} of the next token, the likeliest first."""
    probs = nl.next_token_probs(nl.forward(ids, weights, config)[-1])
    return {vocabulary[i]: 100 * probs[i] for i in np.argsort(-probs)}


right, wrong = tokenizer.encode("I"), [tokenizer.bos, number_of["I"]]
for ids in (right, wrong):
    percents = expected(ids)
    best = "  ".join(f"{piece} {percents[piece]:.0f}" for piece in list(percents)[:5])
    print(f"{vocabulary[ids[-1]]:3} then n: {percents['n']:3.0f} %    the likeliest: {best}")

# %% [markdown]
# **Explain.** To the model these are two tokens. After the one without the space, a fifth of the probability
# goes to `n`, as in *In*; the rest is much the same.

# %% [markdown]
# Decoding takes the space away again, once, at the beginning. So texts must be encoded and decoded whole, or spaces
# appear and vanish:

# %%
whole, parts = "Once upon a time", ["Once upon", " a time"]
glued = [i for part in parts for i in tokenizer.encode(part, bos=False)]
print(repr(tokenizer.decode(tokenizer.encode(whole))))
print(repr(tokenizer.decode(glued)), " encoded in two parts")
one_at_a_time = "".join(tokenizer.decode([i]) for i in tokenizer.encode(whole))
print(repr(one_at_a_time), " decoded one at a time")

# %% [markdown]
# The other token in front, `<s>`, says that a text begins here. Without it two things are gone: this sign, and a token
# for the first word to look back at. To tell them apart, put another token in its place: a full stop, or one of twenty
# pieces drawn at random. The *surprise* of a token that had probability p is −log p, in *nats*: 0 for p = 1, 0.7 for
# one half, 3 for one in twenty (lesson [10](10_objective_and_sampling.ipynb)).
#
# **Predict.** The story begins with *Once upon a time*. How surprising is *upon* without `<s>`: as little as with it,
# or much more? Does another token in its place help?

# %%
story = tokenizer.encode(STORY, bos=False)


def surprise(front):
    """Nats for each token of the story after the first, with the ids `front` before it."""
    logits = nl.forward(front + story, weights, config)
    return nl.cross_entropy(logits[len(front):-1], story[1:])        # the row of Once predicts upon


drawn = np.random.default_rng(0).choice(learned, 20, replace=False)
runs = {"<s>": [surprise([tokenizer.bos])], "nothing": [surprise([])],
        ".": [surprise([number_of["."]])], "line break": [surprise([number_of["<0x0A>"]])],
        "20 pieces, median": [surprise([int(i)]) for i in drawn]}
sign = runs["<s>"][0].mean()
for name, nats in runs.items():                           # the median of one run is that run
    first = "  ".join(f"{vocabulary[i]} {x:.2f}"
                      for i, x in zip(story[1:4], np.median(nats, axis=0)))
    whole = np.median(np.mean(nats, axis=1))
    print(f"{name:18} {first}   mean of the story {whole:.2f}, {whole - sign:.2f} above <s>")
print(f"the lowest of the 20: upon {np.min(nats, axis=0)[0]:.2f}, "
      f"mean of the story {np.mean(nats, axis=1).min():.2f}")

# %% [markdown]
# **Explain.** *upon* is a surprise with nothing in front ($e^{-3.02} = 0.05$), and with any other token tried (1.77 at
# the lowest): only the sign makes it likely ($e^{-0.29} = 0.75$). For *time* it also counts that something stands
# there: 2.39 nats with nothing, 0.83 with a random piece, 0.03 with a full stop. For the token `▁a`, a random piece is
# no better than nothing (0.84, 0.88), nor over the whole story (2.21 both; 2.19 the best). Over the story the sign is
# worth 0.09 nats per token against nothing, 0.05 against a full stop.
#
# ## Bytes for all the rest
#
# UTF-8, the usual way to store text, writes every character as one to four bytes, and every byte has a piece, `<0x00>`
# to `<0xFF>`. One character does not come back: `▁` itself, which stands for a space.
#
# **Predict.** How many tokens are `7`, `ö`, `株` and `👑`, without the `▁` in front?

# %%
for character in "7ö株👑":
    spelled = character.encode("utf-8")
    ids = tokenizer.encode(character, bos=False)[1:]      # [0] is the ▁ in front, by itself
    bits = " ".join(f"{byte:08b}" for byte in spelled)
    print(character, bits, "->", *[vocabulary[i] for i in ids])
    assert ids == [3 + byte for byte in spelled]

print(repr("a▁b"), "comes back as", repr(tokenizer.decode(tokenizer.encode("a▁b"))))
unicode = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
back = tokenizer.decode(tokenizer.encode(unicode))
print(f"of {len(unicode):,} code points of Unicode, only ▁ does not come back:",
      back == unicode.replace("▁", " "))

# %% [markdown]
# **Explain.** The first byte says how many follow: it begins with `0` (none), `110` (one), `1110` (two) or `11110`
# (three), and each that follows begins with `10`. So a program that prints tokens as they come must wait for the last
# byte; `nl.stream_text` holds half a character back:

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
    "Chinese": "从前有一位国王，他有三个女儿，最小的那个非常美丽。",
    "emoji": "👑🐺🌲🏰🌙🔥",
}
per_token = {kind: len(text) / len(tokenizer.encode(text, bos=False))
             for kind, text in samples.items()}
figure, ax = figures.new(2.9)
figures.bars(ax, per_token, ".2f", marked=["Chinese", "emoji"])
ax.axvline(1, color=figures.GREY, linestyle=":", linewidth=1.2)
ax.set(xlabel="characters per token (dotted: one)", title="What one token of this vocabulary holds")
figures.show(figure, "Text like that of the training books takes a quarter as many tokens as "
                     "characters; characters of three and four bytes (hatched) take about as many "
                     "tokens as bytes.")

# %% [markdown]
# **Explain.** The pieces come from the training text. Elsewhere the encoder stops on earlier rungs, or at bytes.
# Time, memory and context are counted in tokens, so this German sentence costs twice what a fairy tale does,
# character for character.
#
# ## A row of numbers for each token
#
# The model's first act is to look each id up in a table, the embedding (V, D). The look-up equals a product with a
# vector that is 1 at the id and 0 elsewhere.

# %%
E = weights["embedding"]                                  # (V, D)
trace = nl.Trace()
nl.forward(tokens, weights, config, tap=trace)

one_hot = np.eye(config.vocab_size, dtype=np.float32)[tokens]        # (T, V)
print("a look-up is a product ", np.array_equal(one_hot @ E, E[tokens]))
print("and what the model does", np.array_equal(E[tokens], trace["embedding"]))

# %% [markdown]
# Rows begin as small random numbers. A step of training that meets its token pushes a row; the pushes are large beside
# a row that begins small, so it grows. Besides, each step shrinks every row by a tiny factor (*weight decay*). The row
# of a token that never occurs gets only the shrinking. So short rows should be of tokens never met.

# %%
length = np.linalg.norm(E, axis=1)                        # (V,)
figure, ax = figures.new(2.5)
bins = np.linspace(0, 1.5, 31)
ax.hist(length[first_piece:], bins, color=figures.SKY, label="pieces")
ax.hist(length[3:first_piece], bins, histtype="step", color=figures.ORANGE, linewidth=2,
        label="bytes")
ax.axvline(0.2, color=figures.GREY, linestyle=":", linewidth=1.2)
ax.set(yscale="log", xlabel="length of a row of the embedding (D; dotted: 0.2)", ylabel="rows")
ax.legend(loc="upper center")
figures.show(figure, "Two heaps with a gap between them, just below 0.2; both kinds are in both.")

# %% [markdown]
# **Predict.** Which bytes have long rows? And which pieces have short ones?

# %%
short = length < 0.2
print(f"bytes:  {short[3:first_piece].sum()} of 256 are short; the long ones:",
      repr("".join(chr(byte) for byte in range(256) if not short[3 + byte])))
print(f"pieces: {short[first_piece:].sum()} of {config.vocab_size - first_piece} are short:",
      *[vocabulary[i] for i in range(first_piece, config.vocab_size) if short[i]])
probs = nl.next_token_probs(nl.forward(tokens, weights, config)[-1])
print(f"all tokens with short rows together, as the next token: {probs[short].sum():.0e}; "
      f"by equal shares {short.mean():.2f}")

# %% [markdown]
# **Explain.** Line breaks, `&`, round brackets, `]` and digits have long rows; the bytes of Chinese and of emoji have
# short ones, and so has `▁daught`. Counted in the training books (they do not ship), the tokens with short rows are
# exactly those that never occur (`]` does, `[` does not). The tokenizer can spell `株`, but as input its bytes are noise
# to the model: their rows are the random ones that it began with, only shorter. As output it has learned not to write
# them: after our sentence, all tokens with short rows together get two millionths, where equal shares would give them 8
# percent.
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


def nearest(rows):
    """For each row of length 1, the cosine of its nearest neighbour: (n, D) -> (n,)."""
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -1)                         # not the row itself
    return cosines.max(axis=1)


queries = ["▁castle", "▁red", "▁wolf", "▁eat", "▁bear", "▁the"]
for word in queries:
    print(f"{word:8} {neighbours(word)}")
noise = np.random.default_rng(0).standard_normal(E.shape)
noise /= np.linalg.norm(noise, axis=1, keepdims=True)
for name, chosen in (("pieces", np.arange(len(U)) >= first_piece), ("short rows", short)):
    print(f"the nearest among {name}, in the median: {np.median(nearest(U[chosen])):.2f}, "
          f"among as many random rows {np.median(nearest(noise[chosen])):.2f}")

# %%
families = {
    "colours": "red blue white green black brown yellow gray",
    "numbers": "one two three four five six seven ten twelve",      # to twelve, if one piece
    "places": "castle palace hall city cottage hut forest garden village",
    "animals": "wolf fox lion mouse goat cat dog horse bear",
}
families = {family: words.split() for family, words in families.items()}
ids = [number_of["▁" + word] for words in families.values() for word in words]
centred = E[ids] - E[ids].mean(axis=0)
_, strength, directions = np.linalg.svd(centred, full_matrices=False)
points = centred @ directions[:2].T                       # (words, 2): the two widest directions
kept = np.sum(strength[:2] ** 2) / np.sum(strength ** 2)
print(f"two directions of D {config.dim} keep {kept:.0%} of the spread")

cosines = U[ids] @ U[ids].T                               # (words, words)
np.fill_diagonal(cosines, -1)
family = np.repeat(np.arange(4), [len(words) for words in families.values()])
near = cosines.argmax(axis=1)
best = cosines.max(axis=1)
same = family[near] == family
printed = " ".join(word + " " + neighbours(word) for word in queries).split()
unseen = ~np.isin([vocabulary[i] for i in ids], printed)
print(f"the nearest of the other words is of the same family for {same.sum()} of {len(ids)};\n"
      f"of the {unseen.sum()} that no list above shows, for {same[unseen].sum()}")
weakest = [f"{vocabulary[ids[i]]} {vocabulary[ids[near[i]]]} {best[i]:.2f}"
           for i in np.argsort(best)[:3]]
print("the weakest: ", *weakest, sep="  ")
groups = noise[:80 * len(ids)].reshape(80, len(ids), -1)              # 80 times so many random rows
chance = np.median([nearest(rows) for rows in groups])
print(f"among so many random rows, the nearest in the median {chance:.2f}")

figure, ax = figures.new(4.2)
figures.draw_families(families, points, ax)
ax.set(xlabel="direction of the largest spread", ylabel="of the second largest")
figures.show(figure, "The rows of 35 words, seen along the two directions in which they differ "
                     "most: the families part, and a few words stray: two has come near the "
                     "places, and one among the animals.")

# %% [markdown]
# **Explain.** Nobody told the model what a colour is. Yet for 34 of the 35 words, the nearest of the other 34 is of its
# own family, where chance would give about one in four (7 or 8 of the other 34 are of its family). (The words are
# chosen by hand, half of them from the lists above; of the rest it is 16 of 17.) For *one* and *bear* it is no nearer
# than among so many random rows (0.13). As the nearest of all pieces, even a cosine of 0.2 says nothing: so `▁the` has
# one neighbour, `The`, and `▁bear` hardly any. The short rows lie as random ones do (0.17 both). One row stands for all
# meanings of a token, *a bear* and *to bear*; what it means *here* is the work of the layers.
#
# ## In the wild
#
# - **No space in front.** An early llama.cpp read *This* as `4013`, without the space, instead of `910`
#   ([llama.cpp#167](https://github.com/ggml-org/llama.cpp/issues/167)). Both decode to the same text; to the model they
#   differ, as `I` and `▁I` do.

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
# **2.** Two programs have the same vocabulary and the same scores. One joins the best pair first, the other always
# takes the longest piece that fits, from the left. Can their tokens differ, and does it matter if both decode to the
# same text?
#
# <details>
# <summary>Answer</summary>
#
# They can: with the pieces `ab` (0), `cd` (−1) and `abc` (−2), `abcd` becomes `ab cd` by merging (`ab` first, then
# `cd`), and `abc d` from the left. It matters: the model was trained on one of the two spellings.
#
# </details>
#
# **3.** Byte pieces make every text possible. Why not leave out all others, with V 259?
#
# <details>
# <summary>Answer</summary>
#
# It would work. But a fairy tale would have about four times as many tokens (the figure
# above), and these cost time, memory and context.
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
# `scores` maps each piece to its score, as in `score` above. Join the two neighbours whose piece has the
# highest score, the leftmost if there are several. If no neighbours make a piece, return the symbols as they are.

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
# `<s>` and `</s>` are silent, byte pieces together make UTF-8, `▁` is a space, and the space of the dummy prefix goes.
# The text itself may say `<s>`: then it is spelled in other pieces, and must come out.

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
# 4. What has no piece is spelled in one to four UTF-8 bytes, each a token; only a typed `▁` is lost.
# 5. The embedding holds one row per token: those of related words mostly lean the same way, those never met are noise.
