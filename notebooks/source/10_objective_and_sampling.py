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
# # 10. The objective and sampling
#
# | | |
# | --- | --- |
# | **The question** | What is a Llama pretrained for, and how is text drawn from what it learned? |
# | **You will be able to** | compute the loss that Llama is trained on, and turn it into perplexity and bits per byte; sample with temperature, top-k and top-p; show that always taking the likeliest token need not give the likeliest text |
# | **It assumes** | lesson [00](00_start_here.ipynb); the logarithm |
# | **Minutes** | 85 |
#
# T tokens, V vocabulary.

# %% tags=["hide"]
import csv
import textwrap

import checks
import figures
import ipywidgets
import numpy as np
from course import FOLDER, STORY, config, exact, nl, tokenizer, weights

check = checks.lesson("10")

# %% [markdown]
# ## Surprise, with a pencil
#
# Llama 1 and 2 are *pretrained* on one task: given the tokens so far, give the next one a high probability. (Chat
# versions are trained further: lesson 13.) How good was a guess? Look at the probability given to the token that came.
# The *surprise* is minus the logarithm of that probability: 0 for a token that was certain, and, if we count in *bits*,
# one more each time the probability halves.
#
# Suppose three tokens came, and the model had given them the probabilities 1/2, 1/4 and 1/8. Their surprises are
# $1$, $2$ and $3$ bits, $2$ bits on average. The model was as surprised as somebody who guesses among $2^2 = 4$ equally
# likely tokens: that number is its *perplexity*. If the three tokens together have four letters, the text cost
# $6 / 4 = 1.5$ bits per letter.
#
# The papers use the natural logarithm instead. Its unit is the *nat*; a bit is ln 2 = 0.69 nats.

# %%
given = np.array([1 / 2, 1 / 4, 1 / 8])
bits, in_nats = -np.log2(given), -np.log(given)
print("bits", bits, f" mean {bits.mean():.2f}, perplexity {2 ** bits.mean():.2f}")
print("nats", in_nats.round(2),
      f" mean {in_nats.mean():.2f}, perplexity {np.exp(in_nats.mean()):.2f}")

# %% [markdown]
# ## The loss
#
# The loss is the mean surprise at every token but the first, in nats. It is called *cross-entropy*:
#
# $$\mathcal{L} = -\frac{1}{T-1} \sum_{t=0}^{T-2} \ln p(x_{t+1} \mid x_0 \dots x_t), \qquad p(\cdot \mid x_0 \dots x_t) = \mathrm{softmax}(\mathrm{logits}_t)$$
#
# Row t of the logits is about token t + 1: the targets are shifted by one. (`nl.cross_entropy` returns the surprises
# themselves; the loss is their mean.)
#
# **Predict.** Guessing blindly among all $V = 3072$ tokens costs ln V, about 8 nats. What happens if one forgets the
# shift, and asks row t about token t, which the model has just read? Is the loss near 0, below 8, or above 8?

# %%
tokens = np.array(tokenizer.encode(STORY))                # (T,)
logits = nl.forward(tokens, weights, config)              # (T, V)


def nats(logits, targets):                                # (n, V), (n,) -> (n,)
    # -ln softmax(z)[i] = ln(sum of exp(z)) - z[i]
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=-1))
    return log_sum - shifted[np.arange(len(targets)), targets]


surprise = nats(logits[:-1], tokens[1:])                  # (T - 1,): surprise[t] is at token t + 1
print("equal to nl.cross_entropy:",
      np.array_equal(surprise, nl.cross_entropy(logits[:-1], tokens[1:])))
print(f"next token     {surprise.mean():5.2f} nats per token")
print(f"not shifted    {nats(logits, tokens).mean():5.2f}")
print(f"shifted twice  {nats(logits[:-2], tokens[2:]).mean():5.2f}")
print(f"blind guess    {np.log(config.vocab_size):5.2f} = ln V")

# %% [markdown]
# **Explain.** Above 8: both wrong shifts are worse here than a blind guess. (The story was not in the training text.)
# The trained model gives hardly any probability to the word just read, and too little to the word after next. Such a
# bug is loud. The dangerous case is a model that is *trained* without the shift: it only has to repeat its input, and
# with a loss of 0 has learned nothing.
#
# ## Surprise, word by word
#
# **Predict.** Sort by surprise: the name *Jack*, the first time it comes; *hungry* in "an old woman who was hungry";
# *kingdom* in "half of his kingdom"; *after* in "happily ever after".

# %%
pieces = figures.pieces(tokenizer, tokens)
first = 90
figure = figures.coloured_text([p.replace("<0x0A>", "/") for p in pieces[1:first]],
                               surprise[:first - 1], limit=8, numbers=".1f", per_line=76)
figures.show(figure, "The beginning of the story, with the nats of each piece below it: the "
                     "darker, the more surprising.")

# %%
words = [piece.strip() for piece in pieces]
for word in ("Jack", "hungry", "kingdom", "after"):
    print(f"{word:8} {surprise[words.index(word) - 1]:.2f}")
dearest = np.argsort(-surprise)
print("most: ", ", ".join(f"{words[t + 1]} {surprise[t]:.1f}" for t in dearest[:8]))
print("least:", ", ".join(f"{words[t + 1]} {surprise[t]:.2f}" for t in dearest[::-1][:8]))

# %% [markdown]
# **Explain.** *Hungry* costs most, the name half as much, and the ends of set phrases (*kingdom*, *after*) next to
# nothing. Most of the eight dearest are content words where the tale could go anywhere.
#
# ## Does the model use what it has read?
#
# The second half of the story costs 0.4 nats less than the first. Because the model has read the first, or is it
# easier? A *control* tells the two apart: take the first half away.
#
# **Predict.** How much of the 0.4 nats is lost when the model has not read the first half: all, half, or less?

# %%
middle = 114                                              # the second half begins here


def second_half(before):
    """Nats of each token of the second half, after these tokens instead of the first half."""
    text = np.concatenate([[tokenizer.bos], before, tokens[middle:]]).astype(int)
    return nats(nl.forward(text, weights, config)[:-1], text[1:])[len(before):]


another_tale = (
    "Once upon a time a poor woman lived at the end of a village, and she had a hen that laid an "
    "egg every day. The woman took the eggs to market, and bought flour and milk for them. But one "
    "winter the hen laid no more, and the woman did not know what to eat. In the evening a "
    "stranger knocked at the window and asked for a bed. She gave him what she had, and in the "
    "morning he was gone, but on the table lay a little bag full of silver.")
first_half, read, unread = surprise[:middle - 1], second_half(tokens[1:middle]), second_half([])
elsewhere = second_half(tokenizer.encode(another_tale, bos=False))
print(f"first half                        {first_half.mean():.2f} nats per token")
print(f"second half, after the first      {read.mean():.2f}")
gap = first_half.mean() - read.mean()
for label, half in (("nothing", unread), ("another tale", elsewhere)):
    lost = half - read
    print(f"second half, after {label:14} {half.mean():.2f}: {lost.mean():.3f} of {gap:.3f} lost, "
          f"{lost.mean() / gap:.0%} (standard error {lost.std() / np.sqrt(len(lost)):.2f})")
bare = nats(nl.forward(tokens[middle:], weights, config)[:-1], tokens[middle + 1:])
print(f"from its second token on, without even <s>: {(bare - read[1:]).mean():.2f} nats lost")

# %% [markdown]
# **Explain.** Less: in this story, two fifths; so the second half is also easier in itself. Another tale's beginning in
# place of the first half does not help: it is not enough that a tale is under way. (The *standard error* says how far
# chance typically moves a mean. 0.16 is nearly three of them, so reading helps; half of the difference,
# $0.415 / 2 = 0.21$, is not excluded. Without `<s>` hardly less is lost.)
#
# ## Perplexity, and bits per byte
#
# *Perplexity* is the exponential of the loss. It depends on the tokenizer: a larger piece of text is harder to guess,
# but there are fewer pieces. *Bits per byte* divides by something that no tokenizer changes, the bytes of the text:
#
# $$\text{perplexity} = e^{\mathcal L}, \qquad \text{bits per byte} = \frac{\text{nats in all}}{\ln 2 \cdot \text{bytes}}$$
#
# **Predict.** In the pencil example the three tokens alone have the perplexities 2, 4 and 8. Is their mean the
# perplexity of the text, or more, or less?

# %%
mean = surprise.mean(dtype=float)
print(f"pencil example: perplexity {np.exp(-np.log(given).mean()):.2f}, "
      f"mean of the three perplexities {np.mean(1 / given):.2f}")
print(f"story: loss {mean:.3f} nats, perplexity {np.exp(mean):.2f}; "
      f"nl.perplexity {nl.perplexity(tokens, weights, config):.2f}")
print(f"story: mean of the tokens' perplexities {np.exp(surprise).mean():.0f}")
n_bytes = len(STORY.encode())
print(f"story: {surprise.sum(dtype=float) / np.log(2) / n_bytes:.3f} bits per byte; "
      f"{len(tokens) - 1} tokens, {n_bytes} bytes")

# %% [markdown]
# **Explain.** More: the mean of exponentials is ruled by the few largest. Average the nats, then take exp.
#
# ## Shaping the probabilities, with a pencil
#
# A model gives probabilities; a text needs choices. Four tokens A, B, C, D have the probabilities 4/8, 2/8, 1/8, 1/8.
# Three ways to change them before drawing:
#
# - *Temperature* τ divides the logits by τ, which raises each probability to the power 1/τ, and scales them to
#   sum to 1. τ = 1/2 squares: $4, 2, 1, 1$ become $16, 4, 1, 1$, of $22$. The likely becomes likelier.
# - *Top-k* keeps the k likeliest tokens. k = 2 keeps A and B, and scales their $4$ and $2$ to sum to 1: $2/3, 1/3$.
# - *Top-p* keeps the likeliest tokens until they hold at least p. For p = 0.6, A alone holds $0.5$, A and B hold
#   $0.75$: A and B are kept. For p = 0.5, A alone is enough.
#
# `nl.next_token_probs` applies them in this order. τ = 0 means *greedy*: the likeliest token gets probability 1.
#
# **Predict.** What do the four become when τ grows and grows?

# %%
four = np.log([4, 2, 1, 1])
for name, settings in (("as they are", {}), ("temperature 1/2", {"temperature": 0.5}),
                       ("temperature 100", {"temperature": 100}), ("top-k 2", {"top_k": 2}),
                       ("top-p 0.6", {"top_p": 0.6}), ("top-p 0.5", {"top_p": 0.5})):
    print(f"{name:16}", nl.next_token_probs(four, **settings).round(3))

# %% [markdown]
# **Explain.** All equally likely, 1/4 each. Top-k and top-p leave the tokens that they keep in the same proportions;
# temperature keeps every token and changes the proportions.
#
# ## In the model
#
# The prompt below leaves much open. (`w` and `cou` are beginnings of words; top-k 0 means that top-k is off.)

# %%
prompt = tokenizer.encode("Once upon a time there was a")
last = nl.forward(prompt, weights, config)[-1]            # (V,)
probs = nl.next_token_probs(last)
likeliest = np.argsort(-probs)
labels = [tokenizer.sp.id_to_piece(int(i))[1:] for i in likeliest[:14]]
print("likeliest:",
      ", ".join(f"{label} {probs[i]:.3f}" for label, i in zip(labels[:6], likeliest)))
rare = probs[probs < 0.001]
print(f"{len(rare)} tokens have less than 0.001 each, and {rare.sum():.0%} together")


# %%
def draw(temperature=1.0, top_k=0, top_p=1.0):
    kept = nl.next_token_probs(last, temperature, top_k, top_p)
    figure, ax = figures.new(3.1)
    drawn, own = 100 * kept[likeliest[:14]], 100 * probs[likeliest[:14]]
    ax.barh(labels, drawn)
    for y in range(14):
        ax.plot([own[y], own[y]], [y - 0.4, y + 0.4], color="k", linewidth=1.6, linestyle="-")
        ax.text(max(drawn[y], own[y]) + 0.5, y, f"{drawn[y]:.1f}", va="center", fontsize=9)
    ax.invert_yaxis()
    ax.set(xlim=(0, max(40, 112 * kept.max())), xlabel="percent",
           title=f"temperature {temperature:g}, top-k {top_k}, top-p {top_p:g}: "
                 f"{np.count_nonzero(kept)} tokens left")
    figures.show(figure, "Bars: what is drawn from. Black marks: the model's own probabilities.")


draw(0.6)

# %% tags=["sliders"]
ipywidgets.interact(draw, temperature=(0.0, 2.0, 0.1), top_k=(0, 50), top_p=(0.05, 1.0, 0.05));

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). Drag temperature, top-k and top-p: the red marks show what is drawn
# from (here, the bars do). Then draw twenty tokens; the same seed draws the same again:
#
#     python notebooks/explorer/build.py --open "#p=Once+upon+a+time+there+was+a&t=logits&i=7.569&tab=next&s=0.6_0_1"

# %% [markdown]
# Five settings now write five texts each (greedy has but one), of 40 tokens. (`exact`: the model in float64.) For each
# setting we print how surprised the model itself is by the text, and which share of the text's phrases of four tokens
# had occurred in it before; the text shown is the last.
#
# **Predict.** Which setting is most surprising to the model, and which repeats itself most?

# %%
def repeats(ids, n=4):
    """Share of n-token phrases that occurred before in the same text."""
    phrases = [tuple(ids[i:i + n]) for i in range(len(ids) - n + 1)]
    return 1 - len(set(phrases)) / len(phrases)


settings = {"greedy": {"temperature": 0},
            "temperature 0.8, top-p 0.95": {"temperature": 0.8, "top_p": 0.95},
            "temperature 0.8": {"temperature": 0.8},
            "temperature 1": {}, "temperature 1.5": {"temperature": 1.5}}
for label, how in settings.items():
    costs, repeated, n_bytes = [], [], []
    for seed in range(1 if label == "greedy" else 5):
        rng = np.random.default_rng(seed)
        new = list(nl.generate(prompt, exact, config, 40, rng, **how))
        rows = nl.forward(prompt + new, exact, config)[len(prompt) - 1:-1]
        costs.append(nats(rows, new).mean())
        repeated.append(repeats(new))
        n_bytes.append(len(tokenizer.decode(new).encode()))
    bits = 40 * np.sum(costs) / np.log(2) / np.sum(n_bytes)
    print(f"{label}: {np.mean(costs):.2f} ({min(costs):.1f} to {max(costs):.1f}) nats per token, "
          f"{np.mean(repeated):.0%} repeated; {bits:.2f} bits per byte")
    text = " ".join(tokenizer.decode(prompt + new).split())
    print(textwrap.fill(text, 94, initial_indent="    ", subsequent_indent="    "))
with open(FOLDER / "training.csv") as file:
    end = list(csv.DictReader(file))[-1]
print(f"training text: {float(end['training_bits_per_byte']):.2f} bits per byte")

# %% [markdown]
# **Explain.** Temperature 1.5 surprises most; greedy least, and repeats itself most. At temperature 1 the model speaks
# with its own probabilities: in the step above thousands of tokens have less than one chance in a thousand each, but
# one draw in six takes one. (3.15 is more than the story's 2.12, as the story is easy: the drawn texts cost 1.10 bits
# per byte, about as much as the training text; the story 0.76.) Top-k and top-p cut off the end of this tail, and a
# temperature below 1 makes the whole tail rarer, what would have fitted as well as what would not.
#
# ## The likeliest text
#
# Two steps, with a pencil. First comes A (0.6) or B (0.4). After A, the next token is X or Y, 0.5 each. After B it is X
# (0.9) or Y (0.1). Greedy takes A, and ends with a text of probability $0.6 \cdot 0.5 = 0.30$. The text B X has
# $0.4 \cdot 0.9 = 0.36$. Greedy cannot find it: it never asks what a choice leads to.
#
# *Beam search* keeps a few beginnings instead of one, extends each, and keeps the best again.
#
# **Predict.** The model writes 10, 20 and 40 tokens after "Once upon a time", greedily and with four beams. How many
# times as likely is the beams' text of 40 tokens: 2, 50 or 1,000 times and more?

# %%
start = tokenizer.encode("Once upon a time")
greedy = list(nl.generate(start, weights, config, 40, temperature=0))


def cost(prompt, new):
    """Nats of the new tokens after the prompt, all together."""
    rows = nl.forward(prompt + new, weights, config)[len(prompt) - 1:-1]
    return float(nats(rows, new).sum())


def beam_search(prompt, n, width):
    """After each of n tokens, the likeliest text among so many beams: its nats and its ids."""
    beams = [(0.0, [])]
    for _ in range(n):
        longer = []
        for so_far, new in beams:
            row = nl.forward(prompt + new, weights, config)[-1]
            for i in np.argsort(-row)[:width]:
                more = float(nats(row[None], [i])[0])
                longer.append((so_far + more, new + [int(i)]))
        beams = sorted(longer)[:width]
        yield beams[0]


found = list(beam_search(start, 40, 4))
for n in (10, 20, 40):
    by_beams, new = found[n - 1]
    by_greedy = cost(start, greedy[:n])
    print(f"{n} tokens: greedy {by_greedy:.1f} nats, four beams {by_beams:.1f}: "
          f"{np.exp(by_greedy - by_beams):,.0f} times as likely")
for label, ids in (("beams:  ", new), ("greedy: ", greedy)):
    print(textwrap.fill(label + " ".join(tokenizer.decode(start + ids).split()), 94))

# %% [markdown]
# **Explain.** 1,000 and more: the greedy text is not the likeliest, and here more is lost the longer it gets. That
# these beams do not circle is one text, not a rule: in larger models beam search repeats itself too ([Holtzman et
# al.](https://arxiv.org/abs/1904.09751), who proposed to sample instead, with the unreliable tail cut off: top-p).
#
# ## How a circle closes
#
# It is often said that loops feed themselves: what was said becomes likelier, and is said again ([Xu et
# al.](https://arxiv.org/abs/2206.02369) measured it in larger models). The first time and the second stand in different
# places, so we need a control: the same sentence, in the second place, after *another* sentence.
#
# **Predict.** Eight sentences, new to their texts. How many are likelier the second time than the first, by a factor of
# 1.1 or more? How many are likelier after themselves than after another one, on average?

# %%
def likely(text, phrase):
    """Probability per token of a phrase after a text: geometric mean, 1 / perplexity."""
    ids = tokenizer.encode(phrase, bos=False)
    return np.exp(-cost(tokenizer.encode(text), ids) / len(ids))


phrases = {"He gave him a good beating.": "The king was angry.",
           "He lost his way in the wood.": "The miller's son went out.",
           "The bird began to sing.": "Then she opened the window.",
           "The old man shook his head.": "They asked him the way.",
           "The wolf ate them all up.": "The door was open.",
           "She gave him a silver ring.": "The princess loved him.",
           "He fell into a deep sleep.": "The soldier was tired.",
           "They danced all night long.": "The music played."}
print(f"{'':34} first   after another   after itself")
table = []
for phrase, start_of in phrases.items():
    others = [likely(f"{start_of} {other}", phrase) for other in phrases if other != phrase]
    row = likely(start_of, phrase), np.mean(others), likely(f"{start_of} {phrase}", phrase)
    table.append(row)
    print(f"{phrase:34} {row[0]:5.3f} {row[1]:15.3f} {row[2]:14.3f}")
once, control, again = np.array(table).T
print(f"likelier the second time: {(again > 1.1 * once).sum()} of {len(table)}; after itself than "
      f"after another: {(again > 1.1 * control).sum()}")

# %% [markdown]
# **Explain.** Seven, and the same seven. The second place alone does not do it: after *another* sentence, six of the
# eight are less likely than at first. (The other is also a stranger to its text; not tested apart.)
#
# **Predict.** So what was said becomes likelier. Is that what holds the greedy text in its circle? Call *she was so
# beautiful that* the *round*, and *was so ... that* its *frame*. What does greedy write after "a daughter who was so
# poor that", where only the frame was said, and after "who knew that", without it?

# %%
round_of = "she was so beautiful that"
n_round = len(tokenizer.encode(round_of, bos=False))
tale = "Once upon a time there was a king who had a daughter who "


def greedily(text):
    ids = tokenizer.encode(text)
    return tokenizer.decode(list(nl.generate(ids, weights, config, n_round, temperature=0)))


for before in ("knew that", "was so poor that", "was so beautiful that"):
    text = tale + before
    print(f"{before:22} {likely(text, round_of):.2f} a token; greedy: {greedily(text)}")
others = ("poor", "clever", "proud", "good", "rich", "small")
for label, words in (("beautiful", ["beautiful"]), ("one of six", others)):
    texts = [f"{tale}was so {one} that she was so {two} that" for one in others for two in words]
    written = sum(greedily(text) == round_of for text in texts)
    mean = np.mean([likely(text, round_of) for text in texts])
    print(f"so (one of six) ... so ({label}) that: {mean:.2f} a token; "
          f"greedy writes the round in {written} of {len(texts)}")
for word in ("beautiful", "poor"):
    begin, again = f"{tale}was so {word} that", f" she was so {word} that"
    rounds = [likely(begin + n * again, round_of) for n in (0, 1, 5)]
    print(f"after 0, 1 and 5 rounds of {word}:", np.round(rounds, 2))
text = f"{tale}was so beautiful that {round_of}"
whole = likely(text, round_of) ** n_round
print(f"the round as a whole {whole:.4f}: a draw leaves it with probability {1 - whole:.1%}")

# %% [markdown]
# **Explain.** In part. Greedy enters the circle without it: it writes the round after its frame alone. But one sentence
# later it does so in all six texts where the round was just said, at 0.26 a token; with another adjective there, in 9
# of 36, at 0.21. More rounds do not feed it: 0.30 before the first, 0.27 after one, 0.24 after five (after as many with
# *poor*: 0.21 and 0.13). Without the frame the round is about as likely, but greedy writes another: each of the five
# tokens must be the likeliest in its place. After the last the text again ends in *so beautiful that*, where the round
# began. A draw leaves the round almost surely: it is not the model alone that runs in circles, but how its
# probabilities are used.

# %% [markdown]
# ## In the wild
#
# - **One model, two perplexities.** llama.cpp reported 5.91 for LLaMA 7B where others reported 5.68
#   ([llama.cpp#2714](https://github.com/ggml-org/llama.cpp/pull/2714)). The author blames the windows: llama.cpp cut
#   the text into windows of $512$ tokens and counted only the second half of each. (That alone would lower the
#   perplexity; but no token has more than $511$ before it.) Here we test only their length, on the story, without and
#   with `<s>` before the later ones:

# %%
def window_nats(window, front):
    """Nats of each token of a window but its first; front is put before it."""
    rows = nl.forward([*front, *window[:-1]], weights, config)[len(front):]
    return nats(rows, window[1:])


for size in (32, 64, len(tokens) - 1):
    windows = [tokens[i:i + size + 1] for i in range(0, len(tokens) - 1, size)]
    bare = [window_nats(window, []) for window in windows]
    marked = [bare[0]] + [window_nats(window, [tokenizer.bos]) for window in windows[1:]]
    without, with_bos = [np.concatenate(costs).mean(dtype=float) for costs in (bare, marked)]
    print(f"windows of {size:3}: perplexity {np.exp(without):5.2f}, "
          f"with <s> {np.exp(with_bos):5.2f}")

# %% [markdown]
# Shorter windows, less context, more surprise. `<s>` before a window that begins in mid-story makes it worse here: in
# training, it stood only where a story begins (a reason not tested). In llama.cpp, where `<s>` replaces the first
# token of a window and only second halves count, it *lowered* that of LLaMA 7B by about 0.05
# ([#1303](https://github.com/ggml-org/llama.cpp/pull/1303)).
#
# - **Temperature before or after top-p?** Programs differ
#   ([llama.cpp#4091](https://github.com/ggml-org/llama.cpp/issues/4091)), and the same settings then mean other
#   distributions. When you compare two programs, compare the probabilities, not the texts.

# %%
before = nl.next_token_probs(last, temperature=2.0, top_p=0.8)
kept = nl.next_token_probs(last, top_p=0.8)               # a later temperature keeps them
print(f"temperature 2 before top-p 0.8: {np.count_nonzero(before)} tokens; "
      f"after it: {np.count_nonzero(kept)} tokens")

# %% [markdown]
# ## Questions
#
# **1.** Model A has perplexity 8 and a tokenizer that cuts a text into 300 pieces. Model B has perplexity 16 and needs
# 200 pieces for the same text. Which predicts the text better?
#
# <details>
# <summary>Answer</summary>
#
# B. Perplexity 8 is 3 bits per piece, 16 is 4 bits: A needs $300 \cdot 3 = 900$ bits for the text, B needs
# $200 \cdot 4 = 800$. Perplexities per piece cannot be compared between tokenizers.
#
# </details>
#
# **2.** The probabilities are 0.7, 0.2 and 0.1. What do `top_p=0.7`, `top_p=0.75` and `top_k=2` keep?
#
# <details>
# <summary>Answer</summary>
#
# `top_p=0.7` keeps the first token alone: it holds 0.7. `top_p=0.75` keeps two, since one does not reach it; so does
# `top_k=2`. They then become $7/9$ and $2/9$.
#
# </details>
#
# **3.** A friend samples with temperature 0.5 and reports that the text has a *lower* mean surprise under the model
# than real fairy tales have. Does that make the model a better writer than the brothers Grimm?
#
# <details>
# <summary>Answer</summary>
#
# No. Surprise measures how well a text agrees with this model, and text drawn at a low temperature agrees with it by
# construction: greedy text has the lowest surprise of the table above, and it repeats itself. The loss judges a model
# on given text, not text by a given model.
#
# </details>
#
# ## Exercises
#
# `check(name)` runs your function on several inputs and says what a wrong answer looks like; `check(name, hint=1)`
# gives a hint.
#
# ### 1. From a paper's perplexity to bits per byte
#
# A paper states the perplexity per token and over how many predicted tokens it was measured; you have the text.

# %% tags=["exercise"]
def bits_per_byte(perplexity, n_tokens, text):
    """Bits that the model needs per byte of the text: number, number, str -> number."""
    ...

# %%
check(bits_per_byte)

# %% tags=["solution"]
def bits_per_byte(perplexity, n_tokens, text):
    return n_tokens * np.log2(perplexity) / len(text.encode())

# %% [markdown]
# ### 2. The loss of a batch
#
# Texts of different lengths are trained on together: the shorter ones are filled up with padding at the end. Text b
# has `lengths[b]` real tokens. Every real token but the first of each text counts equally, and padding does not count.

# %% tags=["exercise"]
def batch_loss(logits, tokens, lengths):
    """Mean nats of the real tokens that are predicted: (B, T, V), (B, T), (B,) -> number."""
    ...

# %%
check(batch_loss)

# %% tags=["solution"]
def batch_loss(logits, tokens, lengths):
    nats = []
    for rows, ids, length in zip(logits, tokens, lengths):
        nats.append(nl.cross_entropy(rows[:length - 1], ids[1:length]))
    return np.concatenate(nats).mean()

# %% [markdown]
# ### 3. Top-p
#
# Keep the smallest number of likeliest tokens that together hold at least p, scaled to sum to 1; all others become 0.

# %% tags=["exercise"]
def nucleus(probs, p):
    """Top-p: (V,), number -> (V,)."""
    ...

# %%
check(nucleus)

# %% tags=["solution"]
def nucleus(probs, p):
    order = np.argsort(-probs)
    before = np.cumsum(probs[order]) - probs[order]       # what the likelier tokens hold
    chosen = order[before < p]
    kept = np.zeros_like(probs)
    kept[chosen] = probs[chosen]
    return kept / kept.sum()

# %% [markdown]
# ## In five lines
#
# 1. The loss is the mean surprise at the next token, in nats; row t of the logits is about token t + 1.
# 2. Perplexity is its exponential, and depends on tokenizer and windows; bits per byte can be compared
#    across tokenizers, not across windows.
# 3. Temperature, top-k and top-p change what is drawn, not what the model knows.
# 4. Always taking the likeliest token need not give the likeliest text, and it may run in circles.
# 5. A reason needs a control: take away what is said to be the cause, and see what remains.
