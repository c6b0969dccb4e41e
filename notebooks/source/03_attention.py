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
# | **It assumes** | lesson [02](02_rmsnorm.ipynb); the exponential function |
# | **Minutes** | 60 |
#
# T new tokens, S tokens seen so far (the same here), D model width, H query heads, G key/value heads, d head width,
# L layers.

# %% tags=["hide"]
import checks
import figures
import ipywidgets
import numpy as np
from course import SENTENCE, STORY, config, loss, nl, tokenizer, weights

check = checks.lesson("03")

# %% [markdown]
# ## Looking things up, softly
#
# "The king gave his youngest daughter a golden ball, and she was very ...": to go on, the model must know who *she* is.
# The row of D numbers at *she* began as the embedding of that one word. Every other step of a Llama works on one row at
# a time, so whatever comes from *daughter* must come through attention.
#
# Think of a dictionary in Python: you ask with a word, one key matches, and you get its value. Attention is a
# dictionary that answers softly. Every token makes three vectors out of its row x:
#
# - a *query* q: what I am looking for,
# - a *key* k: what I can be found under,
# - a *value* v: what I have to say.
#
# A query is compared with **every** key by an inner product, the *score*. A better match gets a larger weight, the
# weights of one query sum to 1, and the answer is the mean of all values with these weights.
#
# $$q = x W^Q, \qquad k = x W^K, \qquad v = x W^V$$
#
# $$\mathrm{Attention}(Q, K, V) = \mathrm{softmax}\Big(\frac{Q K^\top}{\sqrt{d}} + \mathrm{mask}\Big)\, V$$
#
# Q, K and V hold a row of d numbers for each token (*Attention is all you need*, sections 3.2.1 and 3.2.2). Here x is
# the row after RMSNorm. One such set of queries, keys and values is a *head*; a layer has H of them, side by side.
#
# *Softmax* turns any numbers into weights: it takes the exponential of each and divides by their sum. So all weights
# are positive, they sum to 1, and what is larger by 1 gets $e = 2.72$ times the weight.
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
# percent. The first token sees only itself, so it gets its own value, whatever the score. A score of −∞ becomes a
# weight of exactly 0: that is the mask.
#
# ## The same in the model
#
# Now a head of the trained model, on the sentence from above. Its queries and keys have been turned by RoPE, which
# lesson [04](04_rope.ipynb) explains; four query heads share one key head, which lesson
# [05](05_grouped_query_attention.ipynb) explains. Neither changes the four steps.
#
# **Predict.** After *and she was very happy*: should this token look at the noun (*daughter*), at the verb (*gave*), or
# at itself?

# %%
tokens = tokenizer.encode(SENTENCE)
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
e = np.exp(masked - masked.max(axis=1, keepdims=True))    # the subtraction: see below
probs = e / e.sum(axis=1, keepdims=True)                  # (T, S)
mixed = probs @ v                                         # (T, d)

print(f"T {T}, d {d}")
for name, ours in (("scores", masked), ("probs", probs), ("heads", mixed)):
    theirs = trace[f"layers.{layer}.attn.{name}"][head]
    print(f"{name:7} {ours.shape}  as in the model: {np.allclose(ours, theirs, atol=1e-5)}")
happy, daughter = words.index(" happy"), words.index(" daughter")
for s in np.argsort(-probs[happy])[:4]:
    print(f"happy gives {probs[happy, s]:.0%} of its weight to{words[s]}")
print(f"{np.sum(probs[daughter + 1:].argmax(axis=1) == daughter)} of the {T - daughter - 1} tokens "
      "after daughter give her their largest weight")

# %%
figure, axes = figures.new(3.6, columns=3, sharey=True)
figures.matrix(axes[0], scores, words, words, "scores (T × S)", limit=8)
figures.matrix(axes[1], masked, words, words, "masked", limit=8)
figures.matrix(axes[2], probs, words, words, "softmax of each row", kind=figures.SHARE)
for ax in axes:
    ax.tick_params(axis="x", rotation=90)
figures.show(figure, "A row is a token that asks, a column one that answers; grey is the future. "
                     "On the right, a dark cell is a large weight: in seven of the ten rows "
                     "below her, the daughter's column has the largest.")

# %% [markdown]
# **Explain.** The four steps give the model's numbers, but for rounding: the model multiplies all heads of a key head
# at once. At *happy* the head looks at *daughter*. That fits what a continuation needs; whether the model *uses* it is
# another question, and a map alone does not answer it. The section on heads below shows how to ask.
#
# ## Why the largest score is subtracted
#
# Softmax does not change if the same number c is taken from all scores: $e^{x - c} = e^x / e^c$, and $e^c$ cancels in
# the fraction. numpy_llama.py takes the largest score, so the largest exponential is 1.
#
# **Predict.** Float32 ends at $3.4 \cdot 10^{38}$. From about which score on does exp overflow: 40, 90 or 300?

# %%
def naive_softmax(x):
    return np.exp(x) / np.sum(np.exp(x))


largest = np.log(np.finfo(np.float32).max)
print(f"exp overflows float32 above {largest:.1f}")
with np.errstate(over="ignore", invalid="ignore"):
    for row in ([0, 1, 2], [100, 101, 102]):
        x = np.array(row, np.float32)
        print(f"{str(row):16} naive {naive_softmax(x).round(2)}, "
              f"largest subtracted {nl.softmax(x).round(2)}")

# %% [markdown]
# ## Why the root of d
#
# A score is a sum of d products. Suppose each product is +1 or −1 by chance. The sum of 4 such numbers is typically 2
# away from 0, the sum of 100 typically 10: the *root* of their number, as the variances add up. So wider heads would
# have larger scores for no other reason than their width. Dividing by $\sqrt d$ takes that out (the paper's footnote in
# section 3.2.1).
#
# **Predict.** 16 random keys, d = 128, no division. Does the likeliest key get 25, 50 or 90 percent of the weight?

# %%
rng = np.random.default_rng(0)
print("random numbers          largest of 16 weights    slope p (1 - p)")
print("  d   variance of q·k     divided   raw            divided   raw")
for n in (8, 32, 128):
    queries = rng.standard_normal((4000, 1, n))
    keys = rng.standard_normal((4000, 16, n))
    raw = np.sum(queries * keys, axis=-1)                 # one query, 16 keys, 4,000 times
    p, p_raw = (nl.softmax(x).max(axis=-1) for x in (raw / np.sqrt(n), raw))
    print(f"{n:3} {raw.var():10.0f} {p.mean():17.2f} {p_raw.mean():8.2f} "
          f"{np.median(p * (1 - p)):17.2f} {np.median(p_raw * (1 - p_raw)):7.3f}")

# %% [markdown] tags=["result"]
# The slope tells how much a weight p changes when its own score does: the derivative of softmax is p(1 − p). Where p is
# nearly 1 it is nearly 0, so training could hardly move that weight. The paper suspects that this is what the division
# prevents. The table agrees for d 128, the width of the published Llamas: not divided, the slope is a ninth. At this
# model's d 32 the difference is small.

# %% [markdown]
# Those were random numbers. The trained head is free to choose other sizes. Here are its scores on a story, and what
# happens to the loss if all scores are made larger or smaller. *Loss* is the mean of −log of the probability that the
# model gave to the right next token; its unit is the *nat* (natural logarithm).
#
# **Predict.** Without the division the scores are 5.7 times as large. Does the loss, 2.12 nats per token, rise by about
# 0.04, 0.4 or 4?

# %%
story = tokenizer.encode(STORY)
on_story = nl.Trace()
nl.forward(story, weights, config, tap=on_story)
past = np.tri(len(story), dtype=bool)

print("variance of q·k within a row (random numbers: 32)")
for i in range(config.n_layers):
    raw = on_story[f"layers.{i}.attn.scores"] * np.float32(np.sqrt(d))        # (H, T, S)
    spread = np.var(raw, axis=-1, where=past)[:, 8:].mean()       # from the ninth token on
    print(f"layer {i}: {spread:4.0f}")


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
# **Explain.** The loss rises by 0.4. This does not show that the model *needs* the root: trained without it, it could
# have learned smaller matrices. It shows that matrices and divisor belong together, so a port that forgets the divisor
# still runs, and is worse. Training did choose its own sizes: in layer 0 the scores hardly differ, so its heads look at
# all tokens nearly alike; behind it they spread wider than random numbers would.
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
other = tokens[:-2] + [tokens[daughter]] + tokens[-1:]    # happy becomes daughter
for label, mask in (("with the mask", causal_mask), ("without", see_everything)):
    nl.causal_mask = mask                                 # the model looks this name up
    without_answers = nl.Trace()
    nl.forward(story, weights, config, tap=without_answers)
    ahead = [without_answers[f"layers.{i}.attn.probs"][:, ~past].sum() / 8 / len(story)
             for i in range(config.n_layers)]
    first, second = (nl.forward(ids, weights, config)[:5] for ids in (tokens, other))
    print(f"{label:13}: loss {loss():.2f}; weight on the future, by layer: "
          + " ".join(f"{share:.0%}" for share in ahead))
    print(f"{'':13}  a later word changes the first five rows: {not np.allclose(first, second)}")
nl.causal_mask = causal_mask
print(f"equal weights would put {np.mean(~past):.0%} on the future")

# %% [markdown]
# **Explain.** It rises, from 2.12 to 3.65: this model was never trained with the future in view, and without the mask
# half of its weight or more goes there. A model *trained* without a mask could bring the training loss down by copying
# the answer, and would have learned nothing for the case that there is none.
#
# The mask has a second use. Row t depends on tokens 0 to t, and nothing later can change it. So the keys and values of
# a prompt can be kept while the text grows: lesson [09](09_decoding_and_cache.ipynb).
#
# ## Every head's map
#
# The model has L · H heads. Here are all their maps for the sentence. What to look for: a *diagonal* just below the
# edge looks one token back, a *vertical stripe* looks at one word, an even triangle looks at everything alike.

# %%
figures.show(figures.all_heads(trace, config), "All heads on the sentence, rows and columns as in "
                                               "the figure above: layer 0 is even, layer 4 head 3 "
                                               "has a diagonal, and layer 5 head 5 has one stripe, "
                                               "at the first token.")

# %% [markdown]
# The first token is `<s>`, "a text begins here". It says nothing about the story, and still gets much weight.
#
# **Predict.** Layer 5 head 5 puts 97 percent of its weight on `<s>` in this sentence of 17 tokens. How much will it put
# there on average over a story of more than two hundred tokens: about $97$, $50$ or $10$ percent?

# %%
sinks = {"layer 5 head 5": (5, 5), "layer 1 head 7": (1, 7)}
for label, (i, h) in sinks.items():
    short = trace[f"layers.{i}.attn.probs"][h][:, 0]      # (T,): the weight on <s>
    long = on_story[f"layers.{i}.attn.probs"][h][:, 0]
    print(f"{label}, weight on <s>: sentence {short[2:].mean():.0%}, story {long[2:].mean():.0%}; "
          f"story, tokens 2 to 15 {long[2:16].mean():.0%}, last 100 {long[-100:].mean():.1%}")
rows = on_story["layers.5.attn.scores"][5]                # (T, S)
for label, part in (("2 to 15", rows[2:16]), ("last 100", rows[-100:])):
    print(f"layer 5 head 5, story, tokens {label:8}: mean score of <s> {part[:, 0].mean():5.1f}, "
          f"best other {part[:, 1:].max(axis=1).mean():5.1f}")


def cut(layer, heads):
    """A tap that sets what some heads of a layer say to zero."""
    def tap(name, x):
        if name == f"layers.{layer}.attn.heads":
            x = x.copy()                                  # a tapped array is never changed in place
            x[heads] = 0
        return x
    return tap


for label, text in (("sentence", SENTENCE), ("story", STORY)):
    print(f"silencing layer 5 head 5: {label} {loss(cut(5, 5), text=text) - loss(text=text):+.3f} "
          "nats per token")

# %%
figure, axes = figures.new(2.5, columns=2, sharey=True)
for ax, (label, (i, h)) in zip(axes, sinks.items()):
    ax.plot(on_story[f"layers.{i}.attn.probs"][h][:, 0])
    ax.set(title=label, xlabel="token of the story")
axes[0].set_ylabel("weight on <s>")
figures.show(figure, "Two heads that look at the first token while the text is short, and stop "
                     "doing so as it grows.")

# %% [markdown]
# **Explain.** A first token that draws weight although it says nothing is called an *attention sink* (Xiao and others,
# [arXiv 2309.17453](https://arxiv.org/abs/2309.17453)). Their explanation: the weights of a row must sum to 1, and a
# head that finds nothing has to put them somewhere. This head fits it on the sentence, where silencing it costs next to
# nothing. Over the story it leaves the sink. Does it then find something better? That is the smaller part: the best
# other score rises by 5, and that of `<s>` falls four times as far; lesson [04](04_rope.ipynb) finds out why. (In the
# large models of that paper, sinks stay over long texts.) And a warning: the short sentence alone would have said "this
# head looks at `<s>`", the story alone "no head does".
#
# ### Four habits, measured
#
# On the story, how much weight goes where? *After the same token* is the token that followed an earlier
# occurrence of the present one: what a model needs to repeat a phrase.
#
# **Predict.** Which is the commonest of four habits: the token before, the token itself, `<s>`, or "after the same
# token"?

# %%
all_probs = np.stack([on_story[f"layers.{i}.attn.probs"]
                      for i in range(config.n_layers)])   # (L, H, T, S)
ids = np.array(story)
m, n = np.indices((len(ids), len(ids)))                   # m asks, n answers
habits = {"the token before": n == m - 1, "itself": n == m, "<s>": (n == 0) & (m > 1),
          "after the same token": (n > 0) & (n < m) & (ids[n - 1] == ids[m])}
for habit, where in habits.items():
    asked = where.any(axis=1)                             # tokens to which this can happen
    weight = (all_probs * where).sum(axis=-1)[..., asked].mean(axis=-1)       # (L, H)
    i, h = divmod(int(weight.argmax()), config.n_heads)
    even = (where * past / (m + 1)).sum(axis=1)[asked].mean()
    print(f"{habit:20} most in layer {i} head {h}: {weight.max():.0%} of its weight "
          f"(equal: {even:.0%}); above 25% in {np.sum(weight > 0.25)} heads")


# %%
def map_of(layer, head):
    figure, ax = figures.new(4.2, width=6)
    figures.matrix(ax, trace[f"layers.{layer}.attn.probs"][head], words, words,
                   f"layer {layer}, head {head}", kind=figures.SHARE)
    ax.tick_params(axis="x", rotation=90)
    figures.show(figure, "Each row sums to 1: where one token looks.")


map_of(4, 3)

# %% tags=["sliders"]
ipywidgets.interact(map_of, layer=(0, config.n_layers - 1), head=(0, config.n_heads - 1));

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). Head 1 of layer 3 alone, at *happy*. Click a weight, and follow it back
# to query and key. Then switch the head off, at the top, and see whether the answer changes:
#
#     python notebooks/explorer/build.py --open "#p=The+king+gave+his+daughter+a+ball+and+she+was+happy&i=1.11.5&h=1"

# %% [markdown]
# **Explain.** Of these four, looking one token back is the commonest: 8 heads give it more than a quarter of their
# weight on the story, and no head gives the others as much. Most heads have no habit on this list.
#
# ## Which heads are needed?
#
# A map shows where a head looks, not whether the model needs it. For that, silence it and measure the loss: an
# *ablation*. There are two usual ways: set what the head says to zero, or to its own mean over the text, which takes
# away only what depends on the token. If both agree, the result does not hang on the choice.
#
# **Predict.** The loss is 2.12. How much does the most important of the 48 heads cost: 0.01, 0.1 or 1 nat? And is
# silencing a whole layer the sum of its heads, less, or more?

# %%
def average(layer, heads):
    """A tap that replaces what some heads of a layer say by their mean over the story."""
    def tap(name, x):
        if name == f"layers.{layer}.attn.heads":
            x = x.copy()
            x[heads] = on_story[name][heads].mean(axis=-2, keepdims=True)
        return x
    return tap


cost, cost_mean = np.zeros((2, config.n_layers, config.n_heads))
for i in range(config.n_layers):
    for h in range(config.n_heads):
        cost[i, h] = loss(cut(i, h)) - base
        cost_mean[i, h] = loss(average(i, h)) - base
ranks = np.argsort(-cost.ravel())
for rank in ranks[:4]:
    i, h = divmod(int(rank), config.n_heads)
    print(f"layer {i} head {h}: set to zero {cost[i, h]:+.2f} nats per token, "
          f"to its mean {cost_mean[i, h]:+.2f}")
print(f"{np.sum(cost < 0.005)} of {cost.size} heads cost less than 0.005")
print("layer     its heads, one by one    all together     (and with means)")
for i in range(config.n_layers):
    both, both_mean = (loss(way(i, slice(None))) - base for way in (cut, average))
    print(f"{i:5} {cost[i].sum():18.2f} {both:18.2f} {cost_mean[i].sum():15.2f} {both_mean:5.2f}")

# %%
figure, ax = figures.new(2.8)
figures.matrix(ax, cost, [f"layer {i}" for i in range(config.n_layers)],
               [f"head {h}" for h in range(config.n_heads)], numbers=".2f",
               title="nats per token lost without one head")
figures.show(figure, "What it costs to silence one head, on the story: at most 0.10 nats, and next "
                     "to nothing for about half of the heads.")

# %% [markdown]
# Could one have guessed the ranking without any ablation? The rank correlation is 1 for the same order, 0 for chance.

# %%
def order_of(x):                                          # 0 for the smallest
    return np.argsort(np.argsort(x.ravel()))


added, certainty = np.zeros((2, config.n_layers, config.n_heads))
for i in range(config.n_layers):
    for h in range(config.n_heads):
        rows = weights["layers"][i]["attn"]["wo"][h * d:(h + 1) * d]          # (d, D)
        written = on_story[f"layers.{i}.attn.heads"][h] @ rows                # (T, D)
        added[i, h] = np.linalg.norm(written, axis=1).mean()
        certainty[i, h] = all_probs[i, h].max(axis=-1).mean()
guesses = {"it adds long vectors to the stream": added, "its largest weights are large": certainty,
           "(set to its mean instead of zero)": cost_mean}
for guess, x in guesses.items():
    same = np.corrcoef(order_of(x), order_of(cost))[0, 1]
    shared = len({*np.argsort(-x.ravel())[:10]} & {*ranks[:10]})
    print(f"{guess:35} rank correlation {same:.1f}, {shared} of the ten most important heads")

# %% [markdown]
# **Explain.** Removing the most important head costs 0.1 nats. A whole layer costs more than its heads one by one, in
# all six layers and with both ways of silencing. One explanation is that heads stand in for each other; the numbers fit
# it, and do not prove it. What they do show: "this head does not matter, as its ablation costs nothing" is a wrong
# conclusion. Layer 0 is the counterexample: each of its heads costs less than 0.005, all together cost 0.03. The two
# guesses find most of the important heads, and not their order. All of this is one small model on one story.
#
# ## In the wild
#
# - **Top left or bottom right?** With a cache there are more keys than queries, and the triangle must end in the lower
#   right corner: the last query sees all keys. PyTorch's `is_causal=True` puts it in the upper left, so that one new
#   token sees only the first key ([pytorch#103082](https://github.com/pytorch/pytorch/issues/103082)); FlashAttention
#   changed from the one to the other ([flash-attention#517](https://github.com/Dao-AILab/flash-attention/issues/517)).
#   Exercise 2 is about that.
# - **A large negative number instead of −∞** works as long as it stays finite. In float16 the most negative number plus
#   a negative score is −∞, and a row of nothing else is not a number after the softmax
#   ([transformers#17306](https://github.com/huggingface/transformers/pull/17306)):

# %%
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
# head's answer, as that is linear in the values.
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
# Attention by itself does not see the order of the tokens. Lesson [04](04_rope.ipynb) is about what Llama does about
# it.
#
# </details>
#
# ## Exercises
#
# Fill in each function; `check` runs it on several shapes, and says what a wrong answer looks like.
#
# ### 1. The logarithm of softmax
#
# The loss needs log(softmax(x)). To take the logarithm of `nl.softmax(x)` fails: a weight that rounds to 0 becomes −∞,
# although its logarithm is an ordinary number such as −200. Compute it so that it does not.

# %% tags=["exercise"]
def log_softmax(x):
    """The logarithm of each row's softmax, finite for every finite x: (T, S) -> (T, S)."""
    ...

# %%
check(log_softmax)

# %% tags=["solution"]
def log_softmax(x):
    below = x - np.max(x, axis=-1, keepdims=True)         # the largest is 0
    return below - np.log(np.sum(np.exp(below), axis=-1, keepdims=True))

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
# head, with T = S. (`window` 1: every token sees itself only.) You may call `nl.softmax`.

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
# 2. Scores are divided by the root of d, as a sum of d products grows with it.
# 3. The mask hides the future: row t depends on tokens 0 to t, and nothing later changes it.
# 4. A map shows where a head looks; heads with little to find may look at the first token, a sink.
# 5. Silencing a layer costs more than its heads one by one: a head that is free to remove may still have work.
