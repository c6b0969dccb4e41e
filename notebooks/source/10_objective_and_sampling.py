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
# | **The question** | What is a Llama trained for, and how is text drawn from what it learned? |
# | **You will be able to** | compute the loss that Llama is trained on, and turn it into perplexity and bits per byte; sample with temperature, top-k and top-p; explain why the likeliest token is not the best text |
# | **It assumes** | lesson [00](00_start_here.ipynb); the logarithm |
# | **Minutes** | 50 |
#
# T tokens, V vocabulary.

# %% tags=["hide"]
import textwrap
from collections import Counter
from dataclasses import replace

import checks
import figures
import ipywidgets
import numpy as np
from course import STORY, config, exact, loss, nl, tokenizer, weights

check = checks.lesson("10")

# %% [markdown]
# ## Predict the next token
#
# A Llama is trained on one task (LLaMA, section 2): given the tokens so far, give the next one a high probability. The
# loss is the mean of the negative logarithm of that probability, the *cross-entropy*:
#
# $$\mathcal{L} = -\frac{1}{T-1} \sum_{t=0}^{T-2} \ln p(x_{t+1} \mid x_0 \dots x_t), \qquad p = \mathrm{softmax}(\mathrm{logits}_t)$$
#
# Its unit is the *nat*. Probability 1 costs 0 nats, 1/2 costs 0.69, 1/1000 costs 6.9. Row t of the logits is about
# token t + 1, so logits and targets are shifted against each other by one.
#
# **Predict.** What is the loss if one forgets the shift, and asks row t about token t, which the model has just read?

# %%
tokens = tokenizer.encode(STORY)
logits = nl.forward(tokens, weights, config)              # (T, V)


def nats(logits, targets):                                # (n, V), (n,) -> (n,)
    shifted = logits - logits.max(axis=-1, keepdims=True)                    # nothing overflows
    log_sum = np.log(np.exp(shifted).sum(axis=-1))
    return log_sum - shifted[np.arange(len(targets)), targets]


surprise = nats(logits[:-1], tokens[1:])                  # (T - 1,)
print("the same bits as nl.cross_entropy:",
      np.array_equal(surprise, nl.cross_entropy(logits[:-1], tokens[1:])))
print(f"next token    {surprise.mean():5.2f} nats per token")
print(f"not shifted   {nats(logits, tokens).mean():5.2f}")
print(f"shifted twice {nats(logits[:-2], tokens[2:]).mean():5.2f}")
print(f"guessing      {np.log(config.vocab_size):5.2f}: ln V")
print("nats of probability 1, 1/2, 1/1000:", *(f"{np.log(n):.2f}" for n in (1, 2, 1000)))

counts = Counter(tokens[1:])
unigram = [-np.log(counts[i] / (len(tokens) - 1)) for i in tokens[1:]]
print(f"word counts   {np.mean(unigram):5.2f}: the story's own, as if known beforehand")

# %% [markdown]
# **Explain.** A wrong shift is far worse than guessing: the model is sure that the *next* token is not the present one.
# The opposite mistake is worse still, as it looks like success: a model *trained* without the shift learns to copy, and
# its loss goes to zero.
#
# ## Surprise, word by word
#
# **Predict.** Which words of the story surprise the model most: names, verbs, the first words of sentences?

# %%
pieces = figures.pieces(tokenizer, tokens)
first = 90
figure = figures.coloured_text([p.replace("<0x0A>", "/") for p in pieces[1:first]],
                               surprise[:first - 1], limit=8, numbers=".1f", per_line=76)
figures.show(figure, "The beginning of the story, with the nats of each piece below it: the "
                     "darker, the more surprising.")

# %%
order = np.argsort(-surprise)
for label, some in (("most", order[:8]), ("least", order[::-1][:8])):
    print(f"{label:5}", ", ".join(f"{pieces[t + 1].strip()} {surprise[t]:.2f}" for t in some))
halves = surprise[:113], surprise[113:]
print(f"first half {halves[0].mean():.2f}, second half {halves[1].mean():.2f} nats per token")
dearest = np.sort(surprise)[-len(surprise) // 10:].sum()
print(f"the dearest tenth of the tokens costs {dearest / surprise.sum():.0%} of all")

# %% [markdown]
# **Explain.** What the story has just decided costs most: a name, a turn of the plot. What grammar or custom fix costs
# next to nothing. The second half is cheaper, as its words have occurred before.
#
# ## Perplexity, and bits per byte
#
# *Perplexity* is the exponential of the loss: among how many equally likely tokens the model hesitates. It depends on
# the tokenizer: larger pieces are harder to guess, and there are fewer of them. *Bits per byte* divides by what does
# not depend on it, the bytes of the text:
#
# $$\text{perplexity} = e^{\mathcal L}, \qquad \text{bits per byte} = \frac{\text{nats in all}}{\ln 2 \cdot \text{bytes}}$$
#
# **Predict.** Is the mean of the tokens' perplexities the same as the perplexity of the mean?

# %%
mean = surprise.mean(dtype=float)
print(f"loss {mean:.3f} nats, perplexity {np.exp(mean):.2f}; "
      f"nl.perplexity {nl.perplexity(tokens, weights, config):.2f}")
print(f"mean of the tokens' perplexities {np.exp(surprise).mean():,.0f}")
print(f"bits per byte {surprise.sum(dtype=float) / np.log(2) / len(STORY.encode()):.3f}")

as_bytes = [tokenizer.bos] + [3 + byte for byte in STORY.encode()]           # byte pieces only
print(f"tokens {len(tokens) - 1}, as single bytes {len(as_bytes) - 1}")

# %% [markdown]
# **Explain.** Far from it: the mean of exponentials is ruled by the most surprising token. Average nats, then take exp.
#
# ## From probabilities to a text
#
# A model gives probabilities; a text needs choices. The prompt below leaves much open.

# %%
prompt = tokenizer.encode("Once upon a time there was a")
last = nl.forward(prompt, weights, config)[-1]            # (V,)
probs = nl.next_token_probs(last)
order = np.argsort(-probs)
entropy = -np.sum(probs * np.log(probs))
words = [tokenizer.sp.id_to_piece(int(i))[1:] for i in order[:14]]
print("likeliest:", ", ".join(f"{word} {probs[i]:.3f}" for word, i in zip(words[:6], order)))
print(f"entropy {entropy:.2f} nats; {np.sum(np.cumsum(probs[order]) < 0.95) + 1} tokens hold 95 %")

# %% [markdown]
# *Temperature* τ divides the logits before the softmax. *Top-k* keeps the k likeliest tokens. *Top-p* keeps the
# smallest number of likeliest tokens that together hold p. What is kept is scaled to sum to 1. `nl.next_token_probs`
# applies them in this order; 0 switches top-k off, 1 top-p.
#
# $$p_i \propto \exp(\mathrm{logit}_i / \tau)$$
#
# **Predict.** What are τ → 0 and τ → ∞?

# %%
def draw(temperature=1.0, top_k=0, top_p=1.0):
    kept = nl.next_token_probs(last, temperature, top_k, top_p)
    shown = order[:14]
    figure, ax = figures.new(3.1)
    named = {word: 100 * kept[i] for word, i in zip(words, shown)}
    figures.bars(ax, named, ".1f")
    for y, i in enumerate(shown[:6]):
        ax.plot([100 * probs[i]] * 2, [y - 0.4, y + 0.4], color="k", linewidth=1.6, linestyle="-")
    ax.set(xlim=(0, 60), xlabel="percent (black marks: the model's own, of the first six)",
           title=f"temperature {temperature:g}, top-k {top_k}, top-p {top_p:g}: "
                 f"{np.count_nonzero(kept)} tokens left")
    figures.show(figure, "What would be drawn next, against what the model says itself.")


draw(0.6)

# %%
draw(1.0, 0, 0.5)

# %% tags=["sliders"]
ipywidgets.interact(draw, temperature=(0.0, 2.0, 0.1), top_k=(0, 50), top_p=(0.05, 1.0, 0.05));

# %%
temperatures = np.linspace(0.1, 3, 30)
spread = [nl.next_token_probs(last, t) for t in temperatures]
entropies = [-np.sum(p[p > 0] * np.log(p[p > 0])) for p in spread]
figure, ax = figures.new(2.6)
ax.plot(temperatures, entropies)
ax.axhline(np.log(config.vocab_size), color=figures.GREY, linestyle=":", linewidth=1.2)
ax.plot([1], [entropy], "o", color=figures.BLACK)
ax.set(xlabel="temperature (dot: 1, the model's own)", ylabel="entropy in nats (dotted: ln V)")
figures.show(figure, "Temperature moves the draw between certainty and chaos: at 0 the likeliest "
                     "token, far to the right any token at all.")

# %%
# in float64, so that a seed tells the same story on every processor
for label, settings in (("greedy", {"temperature": 0}), ("temperature 0.7", {"temperature": 0.7}),
                        ("as it is", {}), ("temperature 1.5", {"temperature": 1.5}),
                        ("0.8, top-p 0.95", {"temperature": 0.8, "top_p": 0.95}),
                        ("top-k 40", {"top_k": 40})):
    new = list(nl.generate(prompt, exact, config, 40, np.random.default_rng(5), **settings))
    text = " ".join(tokenizer.decode(prompt + new).split())
    print(textwrap.fill(f"{label}: {text}", 94, subsequent_indent="    "))

# %% [markdown]
# **Explain.** At 1 the model speaks with its own probabilities, mistakes included: each of thousands of unlikely tokens
# is rare, and together they are not. Cutting them off (top-p) or shrinking them (a temperature below 1) trades variety
# for sense.
#
# ## Draws follow the probabilities
#
# **Predict.** After n draws, how far is the frequency of the likeliest token from its probability? What if n is a
# hundred times as large?

# %%
rng = np.random.default_rng(0)
best, p = int(order[0]), float(probs[order[0]])
drawn = rng.choice(len(probs), size=(200, 10000), p=probs) == best           # 200 runs
ns = np.array([10, 100, 1000, 10000])
errors = [np.sqrt(np.mean((drawn[:, :n].mean(axis=1) - p) ** 2)) for n in ns]
for n, error in zip(ns, errors):
    expected = np.sqrt(p * (1 - p) / n)
    print(f"{n:6,} draws: off by {error:.4f}; the root of p (1 − p) / n is {expected:.4f}")

# %%
figure, ax = figures.new(2.4)
ax.plot(ns, errors, "o", color=figures.BLUE)
ax.plot(ns, np.sqrt(p * (1 - p) / ns), color=figures.BLACK, linestyle="--")
ax.set(xscale="log", yscale="log", xlabel="draws", ylabel="typical error of a frequency")
figures.show(figure, "Measured (points) and predicted (dashed): a hundred times the draws, a tenth "
                     "of the error.")

# %% [markdown]
# ## Why greedy text runs in circles
#
# **Predict.** Always take the likeliest token, for 120 tokens. Is that the likeliest text?

# %%
start = tokenizer.encode("Once upon a time")
greedy = list(nl.generate(start, weights, config, 120, temperature=0))
print(textwrap.fill(" ".join(tokenizer.decode(start + greedy).split()), 94))

# %% [markdown]
# It is often said that loops feed themselves: what was said once is likely to be said again. Measure it, for the phrase
# of the loop and for one that is new to its text.

# %%
def said_again(start, phrase, times=8):
    """Probability of the phrase each time: per token (geometric mean), and as a whole."""
    chain, phrase, each = tokenizer.encode(start), tokenizer.encode(phrase, bos=False), []
    for _ in range(times):
        chain = chain + phrase
        rows = nl.forward(chain, weights, config)[-len(phrase) - 1:-1]
        cost = nats(rows, chain[-len(phrase):])
        each.append((np.exp(-cost.mean()), np.exp(-cost.sum())))
    return np.array(each)


loops = {"she was so beautiful that": said_again(
            "Once upon a time there was a king who had a daughter who was so beautiful that",
            "she was so beautiful that"),
         "I will give you a good beating.": said_again("The king said,",
                                                       "I will give you a good beating.")}
for phrase, each in loops.items():
    print(f"{phrase:31} per token, times 1, 2, 4, 8:",
          " ".join(f"{each[n - 1, 0]:.2f}" for n in (1, 2, 4, 8)))
round_trip = loops["she was so beautiful that"][1, 1]
print(f"one more round of the greedy loop has probability {round_trip:.4f}")

# %%
figure, ax = figures.new(2.5)
for phrase, each in loops.items():
    ax.plot(np.arange(1, 9), each[:, 0], marker="o", label=phrase)
ax.set(xlabel="time that it is said", ylabel="probability per token", ylim=(0, 0.4)), ax.legend()
ax.set_xticks(range(1, 9))
figures.show(figure, "A phrase that is new to the text becomes likelier once it has been said; the "
                     "phrase of the loop was likely from the start.")

# %% [markdown]
# **Explain.** A new phrase does become likelier by being said, in this small model up to a point. The greedy loop needs
# no such help: after *that*, the likeliest token is *she*, after *she* it is *was*, and the circle is closed. As a
# whole a round is quite improbable. Greedy choice takes it every time, as it never asks about the whole; a draw leaves
# it at once.

# %%
def repeats(ids, n=4):
    """Share of n-token phrases that occurred before in the same text."""
    phrases = [tuple(ids[i:i + n]) for i in range(len(ids) - n + 1)]
    return 1 - len(set(phrases)) / len(phrases)


rows = {"greedy": [repeats(greedy)]}
for temperature in (0.4, 0.7, 1.0):
    rows[f"temperature {temperature}"] = [
        repeats(list(nl.generate(start, exact, config, 120, np.random.default_rng(seed),
                                 temperature=temperature))) for seed in range(6)]
rows["the story above"] = [repeats(tokens[1:121])]
for label, values in rows.items():
    print(f"{label:16} {np.mean(values):4.0%} of all four-token phrases are repetitions")

# %% [markdown]
# ## In the wild
#
# - **A wrong eps costs little and is not noticed.** 1e-6 for a 1e-5 model took perplexity from 5.83 to 5.90
#   ([llama.cpp#2374](https://github.com/ggml-org/llama.cpp/issues/2374)). One number over a long text is a coarse
#   instrument: it says that something may be wrong, and not what. The same experiment here:

# %%
for eps in (1e-6, 1e-5, 1e-3):
    wrong = replace(config, norm_eps=eps)
    print(f"eps {eps:.0e}: perplexity {np.exp(loss(config=wrong)):.3f}")

# %% [markdown]
# - **Top-p that drops the token that crosses p.** If the likeliest token alone holds more than p, nothing would be
#   left. The set must reach p, so the token that crosses it stays. Exercise 3.
# - **Temperature after top-p** is another distribution than temperature before it. Programs differ; compare the
#   probabilities, not the texts.

# %%
before = nl.next_token_probs(last, temperature=2.0, top_p=0.8)
kept = nl.next_token_probs(last, top_p=0.8)
after = np.where(kept > 0, kept ** (1 / 2.0), 0)
after /= after.sum()
print(f"temperature 2 before top-p 0.8: {np.count_nonzero(before)} tokens; "
      f"after it: {np.count_nonzero(after)} tokens")

# %% [markdown]
# ## Exercises
#
# Fill in each function; `check` runs it on several inputs, and says what a wrong answer looks like.
#
# ### 1. Bits per byte
#
# `nats` are those of every token but the first, `text` is the text.

# %% tags=["exercise"]
def bits_per_byte(nats, text):
    """Bits that the model needs per byte of the text: (T - 1,), str -> number."""
    ...

# %%
check(bits_per_byte)

# %% tags=["solution"]
def bits_per_byte(nats, text):
    return np.sum(nats) / np.log(2) / len(text.encode())

# %% [markdown]
# ### 2. The loss
#
# Logits of a whole text and its tokens. No input may overflow.

# %% tags=["exercise"]
def next_token_loss(logits, tokens):
    """Mean nats of every token but the first: (T, V), (T,) -> number."""
    ...

# %%
check(next_token_loss)

# %% tags=["solution"]
def next_token_loss(logits, tokens):
    rows, targets = logits[:-1], tokens[1:]
    shifted = rows - rows.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=-1))
    return np.mean(log_sum - shifted[np.arange(len(targets)), targets])

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
    kept = np.zeros_like(probs)
    kept[order[before < p]] = probs[order[before < p]]
    return kept / kept.sum()

# %% [markdown]
# ## In five lines
#
# 1. The loss is the mean surprise at the next token, in nats; row t of the logits is about token t + 1.
# 2. Perplexity is its exponential; bits per byte does not depend on the tokenizer.
# 3. Temperature, top-k and top-p change what is drawn, not what the model knows.
# 4. Always taking the likeliest token leads into loops, however improbable the loop is as a whole.
# 5. Frequencies of draws approach the probabilities with the root of their number.
