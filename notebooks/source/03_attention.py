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
# # 3. Causal attention
#
# | | |
# | --- | --- |
# | **The question** | How does a token find out what the other tokens know? |
# | **You will be able to** | compute attention by hand, in four steps; say why the scores are divided by the root of d and why the future is masked; read a map of attention, and recognise an attention sink; measure which heads a model needs, and say what such a measurement does not show |
# | **It assumes** | lesson [02](02_rmsnorm.ipynb), or of it this much: attention reads each row after it was brought to a standard size; the exponential function |
# | **Minutes** | 100 |
#
# T new tokens, S tokens seen so far (the same here), D model width, H query heads, d head width, L layers.

# %% tags=["hide"]
import checks
import figures
import ipywidgets
import numpy as np
import pencil
from course import STORY, config, loss, nl, tokenizer, weights

check = checks.lesson("03")

# %% [markdown]
# ## Looking things up, softly
#
# "There was once a poor girl who lived in the forest, and when ..." What comes next: *she* or *he*?

# %%
def after(text):
    """What the model expects next: {"she": its probability, "he": ...}."""
    probs = nl.softmax(nl.forward(tokenizer.encode(text), weights, config)[-1])
    return {word: probs[tokenizer.encode(word, bos=False)[0]] for word in ("she", "he")}


TEXT = "There was once a poor girl who lived in the forest, and when"
for text in (TEXT, TEXT.replace("girl", "boy")):
    print(f"{text} ...", *(f"{word} {share:.0%}" for word, share in after(text).items()))

# %% [markdown]
# The prediction is made from the row of *when*, which began as the embedding of this one word, and every other step of
# a Llama works on one row at a time. So what it knows of the girl has come through attention.
#
# Think of a dictionary in Python: you ask with a word, one key matches, and you get its value. Attention is a
# dictionary that answers softly. Every token makes three vectors of d numbers out of its row x of D numbers (here and
# below, x is the row that the norm has brought to a standard size):
#
# - a *query* $q = x W^Q$: what I am looking for,
# - a *key* $k = x W^K$: what I can be found under,
# - a *value* $v = x W^V$: what I have to say.
#
# The three matrices, (D, d) each, are learned. A query is compared with **every** key by an inner product, the *score*.
# *Softmax* turns the scores of a query into weights: it takes the exponential of each and divides by their sum. So the
# weights are positive and sum to 1, and a score larger by 1 gets $e = 2.72$ times the weight. The answer is the
# weighted mean of all values. With a row of Q, K and V for each token:
#
# $$\mathrm{head} = \mathrm{softmax}\Big(\frac{Q K^\top}{\sqrt{d}} + \mathrm{mask}\Big)\, V$$
#
# ([*Attention is all you need*](https://arxiv.org/abs/1706.03762), section 3.2; $\sqrt d$ and the mask have sections of
# their own below.) This is one *head*: it answers every token with d numbers. A layer has H heads side by side: one
# gives each token one set of weights, several can look at several places at once. A fourth matrix for each head,
# $W^O_h$ of shape (d, D), turns its answer into a row as wide as the stream, and the sum over all heads is what
# attention adds to the stream:
#
# $$\mathrm{out} = \sum_{h=1}^{H} \mathrm{head}_h\, W^O_h$$
#
# numpy_llama.py puts the heads side by side, (T, H d), and the $W^O_h$ below each other, (H d, D): one product makes
# the same sum.
#
# ## Three tokens by hand
#
# Take three tokens and d = 4, so that $\sqrt d = 2$:
#
# $$Q = \begin{pmatrix} 2 & 0 & 0 & 0 \\ 0 & 2 & 0 & 0 \\ 1 & 1 & 1 & 1 \end{pmatrix} \quad
# K = \begin{pmatrix} 1 & -1 & 0 & 0 \\ 0 & 1 & 1 & 0 \\ 2 & 0 & 1 & 1 \end{pmatrix} \quad
# V = \begin{pmatrix} 4 & 0 & 0 & 0 \\ 0 & 4 & 0 & 0 \\ 0 & 0 & 4 & 4 \end{pmatrix}$$
#
# The third token asks, $q_3 = (1, 1, 1, 1)$:
#
# 1. *Scores.* $q_3 \cdot k_1 = 0$, $q_3 \cdot k_2 = 2$, $q_3 \cdot k_3 = 4$. Divided by 2: $0, 1, 2$.
# 2. *Mask.* A token must not see those after it. There is none after the third.
# 3. *Softmax.* $e^0 = 1$, $e^1 = 2.72$, $e^2 = 7.39$; their sum is $11.11$. The weights: $0.09, 0.24, 0.67$.
# 4. *Mix.* $0.09\,v_1 + 0.24\,v_2 + 0.67\,v_3 = (0.36, 0.98, 2.66, 2.66)$.
#
# **Predict.** The second token may see the first and itself. Its scores are −1 and 1. Does it give itself about
# $60$, $75$ or $90$ percent of its weight? And what is the answer that the first token gets?

# %%
Q = np.array([[2, 0, 0, 0], [0, 2, 0, 0], [1, 1, 1, 1]])
K = np.array([[1, -1, 0, 0], [0, 1, 1, 0], [2, 0, 1, 1]])
V = np.array([[4, 0, 0, 0], [0, 4, 0, 0], [0, 0, 4, 4]])

toy_scores = Q @ K.T / 2                                  # (T, S)
seen = np.tri(3, dtype=bool)                              # row t may see columns 0 to t
toy_scores = np.where(seen, toy_scores, -np.inf)
e = np.exp(toy_scores)                                    # exp(-inf) is 0
toy_weights = e / e.sum(axis=1, keepdims=True)
for title, x in (("scores", toy_scores), ("weights", toy_weights), ("answers", toy_weights @ V)):
    print(f"{title}\n{x.round(2)}")

# %% [markdown]
# **Explain.** The second token's scores differ by 2, so its weights differ by the factor $e^2 = 7.39$: 88 and 12
# percent. The first token sees only itself, so it gets its own value. A score of −∞ becomes a weight of exactly 0: that
# is the mask.
#
# ### The Llama for pencil
#
# The Llama on the [handout](handout.pdf), for `<s>` *cats and*, has d = 2. Its step 3 makes queries, keys and values,
# step 4 turns queries and keys by their position (lesson [04](04_rope.ipynb)). Then *and* has the query $(0.9, 1.4)$,
# and meets the keys $(-0.2, 0)$, $(0.54, 0.84)$ and $(0.58, -1.27)$. Do its steps 5 to 7 with a pencil: which token
# gets most of the weight? The control below takes attention away: what comes after *cats and*, and what after
# *dogs and*?

# %%
run = pencil.run()
tiny_q, tiny_k, tiny_v = (run[f"layers.0.attn.{name}"][0] for name in ("q_rope", "k_rope", "v"))
tiny_scores = np.where(seen, tiny_q @ tiny_k.T / np.sqrt(2), -np.inf)     # (T, S)
tiny_weights = nl.softmax(tiny_scores)                    # step 3 above, for each row
mixed_values = tiny_weights @ tiny_v                      # (T, d)
written = mixed_values @ pencil.weights["layers"][0]["attn"]["wo"]        # (T, D)
for title, x in (("scores", tiny_scores), ("weights", tiny_weights), ("written", written)):
    print(f"{title:8} of the last row {x[-1].round(2)}")
print("the model's:            ", run["layers.0.attn.out"][-1].round(2))
print("values:", *tiny_v.round(2), " columns of the output:", *pencil.weights["output"].T)


def no_attention(name, x):
    """A tap: it gets each array by name, and the model goes on with what it returns."""
    return 0 * x if name.endswith("attn.out") else x


for ids in ([0, 1, 3], [0, 2, 3]):
    text = " ".join(pencil.NAMES[i] for i in ids)
    for label, tap in (("with attention", nl.ignore), ("without", no_attention)):
        logits = nl.forward(ids, pencil.weights, pencil.config, tap=tap)
        print(f"{text}, {label}: {pencil.NAMES[logits[-1].argmax()]}")

# %% [markdown] tags=["result"]
# *cats* gets most of the weight. What is written has a second number below 0, which speaks for *dogs*, whose column in
# the output, the third, is $(1, -1)$. Without attention the model says the same after both.

# %% [markdown]
# ## The same in the model
#
# Now a head of the trained model, on that text: head 1 of layer 3, picked of 48 because its map is easy to read. RoPE
# (lesson [04](04_rope.ipynb)) has turned its queries and keys; four query heads share one key head (lesson
# [05](05_grouped_query_attention.ipynb)).
#
# **Predict.** When the last token, *when*, asks: which of these gets the largest weight in this head: *girl*, *lived*,
# or *when*?

# %%
tokens = tokenizer.encode(TEXT)
words = figures.pieces(tokenizer, tokens)
trace = nl.Trace()
nl.forward(tokens, weights, config, tap=trace)

layer, head = 3, 1
q = trace[f"layers.{layer}.attn.q_rope"][head]            # (T, d)
k = trace[f"layers.{layer}.attn.k_rope"][0]               # (S, d): heads 0 to 3 share these keys
v = trace[f"layers.{layer}.attn.v"][0]                    # (S, d)
T, d = q.shape

scores = q @ k.T / np.float32(np.sqrt(d))                 # (T, S)
masked = np.where(np.tri(T, dtype=bool), scores, -np.inf)
e = np.exp(masked - masked.max(axis=1, keepdims=True))    # no overflow: see In the wild
probs = e / e.sum(axis=1, keepdims=True)                  # (T, S)
mixed = probs @ v                                         # (T, d)

print(f"T {T}, d {d}")
for s in np.argsort(-probs[-1])[:3]:
    print(f"when gives {probs[-1, s]:.0%} of its weight to {words[s].strip()}")
for name, ours in (("scores", masked), ("probs", probs), ("heads", mixed)):
    theirs = trace[f"layers.{layer}.attn.{name}"][head]
    print(f"{name:7} {ours.shape}  as in the model: {np.allclose(ours, theirs, atol=1e-5)}")

# %%
figure, axes = figures.new(3.6, columns=3, sharey=True)
figures.matrix(axes[0], scores, words, words, "scores (T × S)", limit=11)
figures.matrix(axes[1], masked, words, words, "masked", limit=11)
figures.matrix(axes[2], probs, words, words, "softmax of each row", kind=figures.SHARE)
for ax in axes:
    ax.tick_params(axis="x", rotation=90)
figures.show(figure, "A row is a token that asks, a column one that answers; grey is the future "
                     "(white on the right); orange and −: a negative score (the faintest "
                     "unmarked); colours end at ±11. On the right, a dark cell is a large weight: "
                     "in six of the eight rows below her, the girl's column has the largest.")

# %% [markdown]
# **Explain.** The four steps give the model's numbers, but for rounding. *When* gives *girl* two thirds of its weight.
# But *in* and *forest* look at her too. A map does not tell whether the model *uses* that; "Which heads are needed?",
# below, asks.
#
# ### From the heads to the stream
#
# Each head's answers times its part of $W^O$, added up:

# %%
heads, wo = trace[f"layers.{layer}.attn.heads"], weights["layers"][layer]["attn"]["wo"]
out = sum(heads[h] @ wo[h * d:(h + 1) * d] for h in range(config.n_heads))        # (T, D)
print(f"heads {heads.shape}, W^O {wo.shape}; the sum {out.shape} is what attention adds: "
      f"{np.allclose(out, trace[f'layers.{layer}.attn.out'], atol=1e-4)}")

# %% [markdown]
# ## Why the root of d
#
# A score is a sum of d products. Suppose each product is +1 or −1 by chance. The sum of 4 such numbers is typically 2
# away from 0, the sum of 100 typically 10: the *root* of their number, as the variances add up. So wider heads would
# have larger scores for no other reason than their width. Dividing by $\sqrt d$ takes that out (the paper's footnote in
# section 3.2.1).
#
# Call one attention weight p. If its score s rises a little, p rises by $p\,(1 - p)$ times that (the derivative of
# $e^s / (e^s + \mathrm{rest})$): at most a quarter, and next to nothing where p is nearly 0 or 1. There training, which
# nudges the matrices in small steps (lesson [11](11_learning.ipynb)), gets little hold.
#
# **Predict.** A query and 16 keys of random numbers (standard normal), d = 128, no division. Does the likeliest key get
# 25, 50 or 90 percent of the weight?

# %%
rng = np.random.default_rng(0)
drawn = {}                                                # {d: one query, 16 keys, 4,000 times}
for n in (8, 32, 128):
    queries, keys = rng.standard_normal((4000, 1, n)), rng.standard_normal((4000, 16, n))
    drawn[n] = np.sum(queries * keys, axis=-1)
print("      variance   largest of 16 weights p    p (1 - p), mean")
print("  d    of q·k    divided   not divided      divided   not divided")
for n, raw in drawn.items():
    p, p_raw = (nl.softmax(x).max(axis=-1) for x in (raw / np.sqrt(n), raw))
    slope, slope_raw = np.mean(p * (1 - p)), np.mean(p_raw * (1 - p_raw))
    print(f"{n:3} {raw.var():8.0f} {p.mean():11.2f} {p_raw.mean():13.2f} "
          f"{slope:12.2f} {slope_raw:13.2f}")

# %% [markdown] tags=["result"]
# About 90 percent, where $p\,(1 - p)$ is small. The paper suspects that large scores bring softmax there. For random
# numbers and d = 128, the width in Llama 1 and 2, dividing more than doubles $p\,(1 - p)$ of the likeliest key; with
# d = 32 the difference is smaller, with 8 there is no gain. That is the slope by the *divided* score. By q·k itself it
# is $1 / \sqrt d$ of that, for d = 128 $0.18 / 11.3 = 0.016$, *less* than 0.07 without division. So the table shows
# that softmax is kept out of its flat part, not that a head learns faster.

# %% [markdown]
# Training is free to choose other sizes. Here is the variance of the undivided scores within a row of a story, in the
# mean over rows and heads, to compare with d = 32 above. (Without the first eight tokens: their rows hold few
# scores.)

# %%
story = tokenizer.encode(STORY)
on_story = nl.Trace()
nl.forward(story, weights, config, tap=on_story)
past = np.tri(len(story), dtype=bool)                     # (T, S): what each token sees
for i in range(config.n_layers):
    raw = on_story[f"layers.{i}.attn.scores"] * np.float32(np.sqrt(d))        # (H, T, S)
    print(f"layer {i}: {np.var(raw, axis=-1, where=past)[:, 8:].mean():4.0f}")

# %% [markdown] tags=["result"]
# In layer 0 the scores hardly differ, so its heads look at all tokens nearly alike. In the layers after it they spread
# wider, on average, than those of random queries and keys.

# %% [markdown]
# **Predict.** Without the division all scores are 5.7 times as large. Does the loss on the story, 2.12 nats per token
# (lesson [00](00_start_here.ipynb)), rise by about $0.04$, $0.4$ or $4$?

# %%
def scaled(factor):
    """A tap that multiplies all scores."""
    return lambda name, x: x * np.float32(factor) if name.endswith("attn.scores") else x


base = loss()
factors = 2.0 ** np.arange(-4, 5)
costs = [loss(scaled(factor)) for factor in factors]
undivided = loss(scaled(np.sqrt(d)))
print(f"loss {base:.2f}; without the division by {np.sqrt(d):.1f}: {undivided:.2f}")

# %%
figure, ax = figures.new(2.7)
ax.plot(factors, costs, "o-")
ax.plot([np.sqrt(d)], [undivided], "s", color=figures.RED, markersize=8)
ax.annotate("  not divided", (np.sqrt(d), undivided), va="top", fontsize=9.5)
ax.set(xscale="log", xlabel="all scores times", ylabel="nats per token")
ax.set_xticks(factors, [f"{factor:g}" for factor in factors]), ax.minorticks_off()
figures.show(figure, "Of the nine factors tried, the trained model is best at 1, the scale that it "
                     "was trained with; making scores smaller costs more than making them larger.")

# %% [markdown]
# **Explain.** By 0.4. This does not show that the model *needs* the root: trained without it, it could have learned
# smaller matrices. But a port that forgets the divisor still runs, and is worse.
#
# ## What the mask is for
#
# Training asks for the next token at every position of a text at once. Without a mask, row t could look at token t + 1,
# which is the answer.
#
# **Predict.** The mask is taken away from the *trained* model, so it sees all the answers. Does the loss fall towards
# 0, stay, or rise?

# %%
def see_everything(positions, n_seen):
    return np.ones((len(positions), n_seen), dtype=bool)


causal_mask = nl.causal_mask
nl.causal_mask = see_everything                           # forward looks this name up
unmasked = nl.Trace()
logits = nl.forward(story, weights, config, tap=unmasked)
nl.causal_mask = causal_mask                              # and from here on, as before
print(f"loss {base:.2f}, without the mask {nl.cross_entropy(logits[:-1], story[1:]).mean():.2f}")
on_future = [np.where(past, 0, unmasked[f"layers.{i}.attn.probs"]).sum(axis=-1).mean()
             for i in range(config.n_layers)]
print(f"weight that goes to the future: {np.mean(on_future):.0%}")

# %% [markdown]
# **Explain.** It rises, from 2.12 to 3.65. The model, trained with the past alone, never learned to copy the answer;
# and two thirds of its weight are now taken from the past (even weights would take half). It also meets keys ahead of
# the query, which it never saw in training. A model *trained* without a mask could bring its loss down by copying, with
# little reason to learn anything else; and when it writes, there is no answer to copy.
#
# ### Nothing later changes a row
#
# Row t depends on tokens 0 to t, and on nothing later. So the keys and values of a prompt can be kept while the text
# grows: lesson [09](09_decoding_and_cache.ipynb).

# %%
changed = nl.Trace()
nl.forward(tokenizer.encode(TEXT.replace("forest", "castle")), weights, config, tap=changed)
same = np.all(np.isclose(changed["norm"], trace["norm"], atol=1e-4), axis=1)      # (T,)
print("rows that change if the forest is a castle:", [words[t] for t in np.flatnonzero(~same)])

# %% [markdown]
# ## Every head's map
#
# All L · H heads on the text. A *diagonal* just below the edge looks one token back, a *vertical stripe* looks at one
# word, an even triangle looks at everything alike.

# %%
framed = {(0, 0), (3, 1), (4, 3), (5, 5)}
figures.show(figures.all_heads(trace, config, framed),
             "All heads on this text, rows and columns as in the figure above. Framed: layer 0 "
             "head 0 is even, as nearly all of its layer; layer 3 head 1 is the one from above; "
             "layer 4 head 3 has a diagonal; layer 5 head 5 has one stripe, at the first token.")

# %% tags=["sliders"]
def map_of(layer, head):
    figure, ax = figures.new(4.2, width=6)
    figures.matrix(ax, trace[f"layers.{layer}.attn.probs"][head], words, words,
                   f"layer {layer}, head {head}", kind=figures.SHARE)
    ax.tick_params(axis="x", rotation=90)
    figures.show(figure, "One map, larger: each row sums to 1.")


ipywidgets.interact(map_of, layer=(0, config.n_layers - 1), head=(0, config.n_heads - 1));

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). Head 1 of layer 3 alone, at *happy*. Click a weight, and follow it back
# to query and key. Then switch the head off, at the top, and see whether the answer changes (not its
# likeliest token):
#
#     python notebooks/explorer/build.py --open "#p=The+king+gave+his+daughter+a+ball+and+she+was+happy&i=1.11.5&h=1"

# %% [markdown]
# The first token is `<s>`, "a text begins here". It says nothing about the story, and still some heads give it most of
# their weight.
#
# **Predict.** Layer 5 head 5 puts 97 percent of its weight on `<s>` in this text of 15 tokens. How much will it put
# there on average over a story of more than two hundred tokens: about $97$, $50$ or $10$ percent?

# %%
def on_first(run, i, h):                                  # the weight on <s>, (T,)
    return run[f"layers.{i}.attn.probs"][h][:, 0]


sinks = {"layer 5 head 5": (5, 5), "layer 1 head 7": (1, 7)}
for label, (i, h) in sinks.items():                       # [2:], for the first two see little else
    print(f"{label}: weight on <s> over the story {on_first(on_story, i, h)[2:].mean():.0%}, "
          f"over the short text {on_first(trace, i, h)[2:].mean():.0%}")

# %%
figure, axes = figures.new(2.5, columns=2, sharey=True)
for ax, (label, (i, h)) in zip(axes, sinks.items()):
    ax.plot(on_first(on_story, i, h))
    ax.set(title=label, xlabel="token of the story")
axes[0].set_ylabel("weight on <s>")
figures.show(figure, "Two heads, picked of 48, that look at the first token while the text is "
                     "short, and stop doing so as it grows.")

# %% [markdown]
# **Explain.** On average 12 percent: nearly all at the start of the story, nearly nothing at its end. A first token
# that draws weight although it says nothing is called an *attention sink* (Xiao and others,
# [arXiv 2309.17453](https://arxiv.org/abs/2309.17453)). Their explanation: the weights of a row must sum to 1, and a
# head that finds nothing has to put them somewhere. (In the large models of that paper, sinks stay over long texts.)
#
# ### Does a sink say nothing?
#
# How long are the rows that this head adds to the stream while it looks at `<s>`, and do they differ from token to
# token?

# %%
def added_by(run, i, h):
    """What a head adds to the stream, (T, D)."""
    return run[f"layers.{i}.attn.heads"][h] @ weights["layers"][i]["attn"]["wo"][h * d:(h + 1) * d]


at_first = trace["layers.5.attn.v"][1, 0] @ weights["layers"][5]["attn"]["wo"][5 * d:6 * d]
print(f"head 5: the value of <s> times W^O is {np.linalg.norm(at_first):.1f} long")
print("layer 5, the short text   mean length   mean cosine of two rows")
for h in range(config.n_heads):
    rows = added_by(trace, 5, h)[2:]
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = (rows / lengths) @ (rows / lengths).T       # of every row with every other
    pairs = np.tri(len(rows), k=-1, dtype=bool)           # each pair once
    print(f"head {h}: {lengths.mean():29.1f} {cosines[pairs].mean():18.2f}")

# %% [markdown] tags=["result"]
# It is not silent: its rows are 9.0 long, the second shortest of eight. But they are nearly the same row, the value of
# `<s>` times $W^O$, whatever the token. It says nothing *new*. Over the story it leaves the sink; lesson
# [04](04_rope.ipynb) finds out why.

# %% [markdown]
# ## Which heads are needed?
#
# To learn whether the model needs a head, silence it (set what it says to zero). That is an *ablation*. First for the
# lesson's first question. These heads look from *when* at *girl*:

# %%
girl = words.index(" girl")
weight = np.array([trace[f"layers.{i}.attn.probs"][:, -1, girl]
                   for i in range(config.n_layers)])      # (L, H)
for n in np.argsort(-weight.ravel())[:4]:
    i, h = np.unravel_index(n, weight.shape)
    print(f"layer {i} head {h}: when gives {weight[i, h]:.0%} to girl")

# %% [markdown]
# How strongly does the model tell the girl from the boy? *Logits* are the numbers of which softmax makes the
# probabilities of the next token. A text *leans* to *she* by the logit of *she* minus that of *he*. The *gap* is the
# lean of the girl's text minus the lean of the boy's.
#
# **Predict.** Without which of the 48 heads does the gap shrink most: without one of these four, or one of the last
# layer, close to the answer? Then finer cuts: silence the head in the row of *when* alone, or keep it, and mask only
# the weight that *when* gives to the noun. Does the gap shrink as much?

# %%
def cut(layer, heads, rows=slice(None)):
    """A tap that sets what some heads of a layer say to zero, in all rows or in some."""
    def tap(name, x):
        if name == f"layers.{layer}.attn.heads":
            x = x.copy()                                  # a tapped array is never changed in place
            x[heads, rows] = 0
        return x
    return tap


def blind(layer, head, place):
    """A tap that masks one token for the last row of one head."""
    def tap(name, x):
        if name == f"layers.{layer}.attn.scores":
            x = x.copy()
            x[head, -1, place] = -np.inf
        return x
    return tap


SHE, HE = (tokenizer.encode(word, bos=False)[0] for word in ("she", "he"))


def lean(text, tap):
    logits = nl.forward(tokenizer.encode(text), weights, config, tap=tap)[-1]
    return logits[SHE] - logits[HE]


def gap(text, woman, man, tap=nl.ignore):
    return lean(text, tap) - lean(text.replace(woman, man), tap)


for pair in ((TEXT, "girl", "boy"),
             ("The old woman went to the castle, and when", "woman", "man"),
             ("One day the queen sat at the window, and when", "queen", "king")):
    gaps = {(i, h): gap(*pair, cut(i, h))
            for i in range(config.n_layers) for h in range(config.n_heads)}
    print(f"{pair[1]} or {pair[2]}: gap {gap(*pair):.1f}, "
          f"without heads 1 and 3 of layer 3 {gap(*pair, cut(3, [1, 3])):.1f}")
    noun = figures.pieces(tokenizer, tokenizer.encode(pair[0])).index(" " + pair[1])
    smallest = sorted(gaps, key=gaps.get)[:3]
    for i, h in smallest + [(2, 7)]:                      # and the third of the four above
        print(f"   without layer {i} head {h}: {gaps[i, h]:.1f}, "
              f"in the last row alone: {gap(*pair, cut(i, h, -1)):.1f}, "
              f"with one weight masked: {gap(*pair, blind(i, h, noun)):.1f}")

# %% [markdown]
# **Explain.** Heads 1 and 3 of layer 3: in all three pairs they are the two, of 48, without which the gap is smallest.
# In the row of *when* they work by their look at the noun: to mask that costs about as much as to silence the head
# there. For head 1 this is nearly all of its effect, for head 3 about a third; the rest goes through other rows
# (between the noun and *when*, from which later heads can fetch it). Head 7 of layer 2 gives *girl* half of its weight,
# and without it the gap hardly shrinks. Without heads 1 and 3, 2.6 to 2.9 of the gap stays: others carry it too.
#
# **Predict.** On the whole story the loss is 2.12. (A *standard error* says how far a mean, here over 227 tokens, taken
# as independent, strays by chance: seldom more than two.) How much does the most important of the 48 heads cost: 0.01,
# 0.1 or 1 nat? (One tenth of a nat makes the right tokens a tenth less likely.)

# %%
def losses(tap=nl.ignore, text=story):
    """Nats for each token of a text but the first."""
    logits = nl.forward(text, weights, config, tap=tap)
    return nl.cross_entropy(logits[:-1], text[1:]).astype(float)


normal = losses()
extra = np.array([[losses(cut(i, h)) - normal for h in range(config.n_heads)]
                  for i in range(config.n_layers)])       # (L, H, T - 1)
cost = extra.mean(axis=-1)                                # (L, H)
error = extra.std(axis=-1) / np.sqrt(len(normal))         # standard error of each mean
i, h = np.unravel_index(cost.argmax(), cost.shape)
print(f"most: layer {i} head {h}, {cost[i, h]:+.2f} nats per token "
      f"(standard error {error[i, h]:.2f})")
print(f"{np.sum(cost > 2 * error)} of {cost.size} heads cost more than two standard errors "
      f"(of a mean over {len(normal)} tokens)")
sink = losses(cut(5, 5), tokens) - losses(text=tokens)
print(f"layer 5 head 5, on the short text, where it looks at <s>: {sink.mean():+.3f} "
      f"(standard error {sink.std() / np.sqrt(len(sink)):.3f})")

# %%
figure, ax = figures.new(2.8)
figures.matrix(ax, cost, [f"layer {i}" for i in range(config.n_layers)],
               [f"head {h}" for h in range(config.n_heads)], numbers=".2f",
               title="nats per token lost without one head")
for i, h in np.argwhere(cost > 2 * error):
    ax.add_patch(figures.plt.Rectangle((h - 0.5, i - 0.5), 1, 1, fill=False,
                                       edgecolor=figures.RED, linewidth=2.5))
figures.show(figure, "What it costs to silence one head, on the story. Framed: the 8 heads that "
                     "cost more than two standard errors. If no head cost anything, about one of "
                     "48 would be framed by chance.")

# %% [markdown]
# **Explain.** A tenth of a nat. Most heads cost too little to be told from chance, even head 1 of layer 3, which we
# have just seen at work. Nor can the sink's cost be told from none, on the short text, where it is one (−0.004 nats,
# standard error 0.016).
#
# **Predict.** Silence these 40 heads all at once. Is the cost the sum of what they cost one by one, half of it, or
# several times as much? As a control, let each head say its mean over another text instead of zeros.

# %%
def cut_all(chosen, instead):
    """A tap that lets the heads where `chosen`, (L, H), is True say instead(name, x)."""
    taps = {f"layers.{i}.attn.heads": row for i, row in enumerate(chosen)}

    def tap(name, x):                                     # x: (H, T, d)
        return np.where(taps[name][:, None, None], instead(name, x), x) if name in taps else x
    return tap


def zeros(name, x):
    return 0 * x


OTHER = """Once upon a time there was a king who had three sons. The eldest was strong, the second \
was clever, and the youngest was called Simpleton. One day the king said to them, I am old, and \
I do not know which of you shall have the kingdom after me. So they went out into the world."""
on_other = nl.Trace()                                     # a run with no head silenced
nl.forward(tokenizer.encode(OTHER), weights, config, tap=on_other)


def mean_row(name, x):
    """What each head says in the mean over the other text, (H, 1, d)."""
    return on_other[name].mean(axis=1, keepdims=True)


cheap = cost <= 2 * error                                 # (L, H)
each = np.eye(cost.size, dtype=bool).reshape(-1, *cost.shape)         # one head at a time
print("                         one by one   all        difference")
print("                         summed       together   (standard error)")
extra_mean = np.array([losses(cut_all(one, mean_row)) - normal for one in each])
extra_mean = extra_mean.reshape(extra.shape)              # (L, H, T - 1)
for kind, instead, alone in (("zero", zeros, extra), ("mean", mean_row, extra_mean)):
    for label, chosen in (("these 40 heads", cheap), ("the 8 others", ~cheap)):
        together = losses(cut_all(chosen, instead)) - normal          # (T - 1,)
        singly = alone[chosen].sum(axis=0)
        surplus = together - singly
        print(f"{kind}: {label:18} {singly.mean():10.2f} {together.mean():10.2f} "
              f"{surplus.mean():12.2f} ({surplus.std() / np.sqrt(len(normal)):.2f})")
rng = np.random.default_rng(0)
eights = [each[rng.choice(np.flatnonzero(cheap), 8, replace=False)].any(axis=0) for _ in range(20)]
singly = np.mean([cost[chosen].sum() for chosen in eights])
together = np.mean([losses(cut_all(chosen, zeros)).mean() - normal.mean() for chosen in eights])
print(f"zero: 8 of the 40, drawn {singly:10.3f} {together:10.3f}   (mean of 20 draws)")

# %% [markdown]
# **Explain.** Four times as much (0.28, 1.11), with means too (0.22, 0.90). So "it costs nothing, so it does nothing"
# does not follow. Perhaps the others stand in for a missing head; perhaps 40 changes lead the stream where training
# never was, which a mean makes milder, not impossible. But the 8 others also cost nearly twice their sum together: more
# than the sum is no sign of idle heads. And 8 drawn from the 40 cost 0.076 for 0.050: the number of heads counts.
# (The heads were chosen by these costs, so 0.28 is a little too low, 0.47 a little too high.) This is one small model
# on one story.
#
# ## In the wild
#
# - **Top left or bottom right?** With a cache there are more keys than queries, and the triangle must end in the lower
#   right corner: the last query sees all keys. PyTorch's `is_causal=True` puts it in the upper left, so that one new
#   token sees only the first key ([pytorch#103082](https://github.com/pytorch/pytorch/issues/103082)); FlashAttention
#   changed from the upper left to the lower right
#   ([flash-attention#517](https://github.com/Dao-AILab/flash-attention/issues/517)).
# - **exp overflows.** Float32 ends at $3.4 \cdot 10^{38}$, so exp of a score above 88.7 is infinite; infinity by
#   infinity is not a number, and the row's answer is lost. Subtract the largest score of the row first:
#   $e^{x - c} = e^x / e^c$, and $e^c$ cancels in the fraction.
# - **A large negative number instead of −∞** is used because a row in which all is masked (padding that sees only
#   padding) would be not a number; now it gets meaningless weights, and is thrown away. In float16 even that fails:
#   the most negative number plus a score of −16 or less is −∞ again
#   ([transformers#17306](https://github.com/huggingface/transformers/pull/17306)):

# %%
print(f"exp overflows float32 above {np.log(np.finfo(np.float32).max):.1f}")
most_negative = np.finfo(np.float16).min
with np.errstate(over="ignore", invalid="ignore"):
    row = np.array([most_negative, most_negative]) + np.float16(-32)
    print("mask plus score:", row, " softmax:", nl.softmax(row))

# %% [markdown]
# ## Questions
#
# **1.** All queries of a head are multiplied by 10 and all its keys divided by 10. What changes? And if all its values
# are doubled?
#
# <details>
# <summary>Answer</summary>
#
# The scores q·k stay the same, so nothing changes: only the product of q and k matters. Doubled values double the
# head's answer.
#
# </details>
#
# **2.** Two tokens have equal keys and different values, and a query looks at them and at nothing else. What does it
# get? Can another query tell the two apart?
#
# <details>
# <summary>Answer</summary>
#
# Equal keys get equal scores, so equal weights, from *every* query of that head. It gets the mean of the two values,
# and no query can tell them apart.
#
# </details>
#
# **3.** Pencil: in "Three tokens by hand", the first two tokens change places (rows 1 and 2 of K and of V are swapped).
# What does the third token get now?
#
# <details>
# <summary>Answer</summary>
#
# The same: its scores are now $1, 0, 2$, the values changed places with them, and a sum does not depend on the order.
# One query does not see the order of the tokens before it (the mask alone tells before from after): hence lesson
# [04](04_rope.ipynb).
#
# </details>
#
# ## Exercises
#
# Fill in each function; `check` runs it on several shapes, and says what a wrong answer looks like.
#
# ### 1. The row that predicts
#
# To continue a text, only the last row of the last layer is needed. Compute what one head adds to the last row of the
# stream, without computing any other row of q, weights or answer. x holds the normalised rows of all T tokens. You may
# call `nl.softmax`; there is no rotation.

# %% tags=["exercise"]
def last_row(x, wq, wk, wv, wo):
    """What a head adds to the last token's row: (T, D), (D, d), (D, d), (D, d), (d, D) -> (D,)."""
    ...

# %%
check(last_row)

# %% tags=["solution"]
def last_row(x, wq, wk, wv, wo):
    q, k, v = x[-1] @ wq, x @ wk, x @ wv                  # (d,), (T, d), (T, d)
    shares = nl.softmax(k @ q / np.float32(np.sqrt(len(q))))          # it sees all: no mask
    return shares @ v @ wo

# %% [markdown]
# ### 2. More keys than queries
#
# The T queries are the *last* T of the S tokens seen so far, S ≥ T. Return the scores, divided by the root of d, with
# −∞ where a query would see a later token.

# %% tags=["exercise"]
def causal_scores(q, k):
    """Scaled and masked scores: (T, d), (S, d) -> (T, S)."""
    ...

# %%
check(causal_scores)

# %% tags=["solution"]
def causal_scores(q, k):
    T, S = len(q), len(k)
    seen = np.arange(S) <= np.arange(S - T, S)[:, None]
    return np.where(seen, q @ k.T / np.sqrt(q.shape[1], dtype=q.dtype), -np.inf)

# %% [markdown]
# ### 3. A sliding window
#
# Some models save memory by letting each token see only itself and the `window` − 1 tokens before it. Compute such a
# head, with T = S. You may call `nl.softmax`.

# %% tags=["exercise"]
def windowed_head(q, k, v, window):
    """Causal attention within a window: (T, d), (T, d), (T, d), number -> (T, d)."""
    ...

# %%
check(windowed_head)

# %% tags=["solution"]
def windowed_head(q, k, v, window):
    back = np.arange(len(q))[:, None] - np.arange(len(k))                     # how far back, (T, T)
    scores = q @ k.T / np.sqrt(q.shape[1], dtype=q.dtype)
    return nl.softmax(np.where((back >= 0) & (back < window), scores, -np.inf)) @ v

# %% [markdown]
# ## In five lines
#
# 1. Attention is a soft look-up: scores q·k, mask, softmax, and the mean of the values with these weights.
# 2. Scores are divided by the root of d, as the typical size of a sum of d products grows with that root.
# 3. The mask hides the future: row t depends on tokens 0 to t, and nothing later changes it.
# 4. A map shows where a head looks, sometimes only at the first token, a sink. An ablation can show that a head is
#    used; that it costs nothing does not show that it is not.
# 5. Of 48 heads, 40 cost too little alone to be told from chance, 0.28 nats in sum, but 1.1 together; the 8 others
#    cost nearly twice their sum. Costs of single heads do not add up.
