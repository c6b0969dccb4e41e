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
# # 8. Looking inside
#
# | | |
# | --- | --- |
# | **The question** | What do a model's inner numbers show, and which conclusions do they not support? |
# | **You will be able to** | say what an early reading of the stream misses; split a logit into parts, and a head into tokens; test with a counter-prompt what a value carries; choose an ablation; find attention sinks, previous-token and induction heads, or show that there are none; fit three features into two dimensions |
# | **It assumes** | lessons [03](03_attention.ipynb), [06](06_swiglu.ipynb) and [07](07_forward_pass.ipynb) |
# | **Minutes** | 95 |
#
# T tokens (S is the same here), D model width, V vocabulary, H query heads, d head width, L layers.

# %% tags=["hide"]
from itertools import product

import checks
import figures
import numpy as np
from course import SENTENCE, STORY, config, exact, loss, nl, tokenizer, weights

check = checks.lesson("08")

# %% [markdown]
# A trace holds every number that a model computes. There are four ways to ask something of it. Beside most results
# stands a *control*, a second measurement that could refute the conclusion. That is the habit to take along: before you
# believe a number, think of another explanation that predicts it, and measure where the two disagree.
#
# | | you | it answers |
# | --- | --- | --- |
# | **read** | turn an inner row into words (a lens, a *probe*), or look at an attention map | what *could* be read here? |
# | **split** | take a sum apart (*direct logit attribution*) | who *wrote* it? |
# | **patch** | put in a value from another run (*activation patching*) | what does this value *carry*? |
# | **ablate** | take a value away | what is *needed*? |
#
# Then come three things that people look for: sinks, copying, and more features than dimensions.
#
# ## Reading the stream early
#
# Lesson [07](07_forward_pass.ipynb) read the stream after every layer with the last norm and the output matrix, the
# *logit lens*, and warned: that matrix was trained on the stream's last form only. Does this change what we conclude?
#
# **With a pencil.** Two rows in the middle of a model, D = 2; the output matrix reads the first number as *he*, the
# second as *she*: $a = (1, 2)$ and $b = (0, 4)$. Read early, both say *she*. Now let the rest of the model add
# $(2, 0)$ to every row: $a$ becomes $(3, 2)$, *he*, and $b$ becomes $(2, 4)$, *she*. What tells $a$ from $b$ was there
# all the time; the lens did not show it.
#
# In the model we can *fit* what the lens lacks. Let it write six stories (624 tokens), and find for each depth the
# linear map that guesses the *final* row best while its own numbers stay small: least squares, as in lesson
# [06](06_swiglu.ipynb), plus 30 times the sum of their squares (*ridge regression*, as 624 rows are few). Then read the
# guesses on another text, our story:

# %%
prompt = tokenizer.encode("Once upon a time")
told = []
for seed in range(6):                                     # exact: the weights in float64
    rng = np.random.default_rng(seed)
    told.append(prompt + list(nl.generate(prompt, exact, config, 100, rng, temperature=0.8)))


def trace_of(tokens, tap=nl.ignore):
    """{name: value} of a run; a tap may change the values on the way."""
    trace = nl.Trace()
    nl.forward(tokens, weights, config, tap=lambda name, x: trace(name, tap(name, x)))
    return trace


story = tokenizer.encode(STORY)
on_story = trace_of(story)
on_told = [trace_of(tokens) for tokens in told]
depths = ["embedding"] + [f"layers.{i}.x_ffn" for i in range(config.n_layers)]


def normed(x):                                            # the last norm, without its scale
    return nl.rms_norm(x, np.float32(1), config.norm_eps)


def read(rows):                                           # normed rows (T, D) -> nats (T - 1,)
    logits = rows * weights["norm"] @ weights["output"]
    return nl.cross_entropy(logits[:-1], story[1:])

# %% [markdown]
# A fitted reader of inner rows is called a *probe*. It needs a control: does the row know it, or has the map learned
# it? So we fit one more map, on *random* rows, one for each token of the vocabulary. They say which token stands here,
# and nothing else.
#
# **Predict.** 161 tokens of our story stand in the six stories too. There the lens on the embedding costs 9.4 nats per
# token; one row for all, the mean of the final rows, which knows nothing about the token, 6.4; the map on the embedding
# 4.1. And the map on random rows: about 6.4 or 4.1?

# %%
def with_ones(x):                                         # (T, D) -> (T, D + 1)
    return np.column_stack([x, np.ones(len(x))])


def best_map(x, y):
    """The linear map (D + 1, D) that turns rows x and a column of ones into rows y best."""
    x = with_ones(x)
    smoothing = 30 * np.eye(x.shape[1])                   # keeps it small; 30: a round number
    return np.linalg.solve(x.T @ x + smoothing, x.T @ y)


final = np.concatenate([normed(run[depths[-1]])[1:] for run in on_told])      # all rows but <s>
readings = {"lens": [], "map": []}
for name in depths:
    x = np.concatenate([normed(run[name])[1:] for run in on_told])            # (N, D)
    here = normed(on_story[name])                                             # (T, D)
    readings["lens"].append(read(here))
    readings["map"].append(read(with_ones(here) @ best_map(x, final)))

by_token = np.random.default_rng(1).standard_normal((config.vocab_size, config.dim))
x = np.concatenate([by_token[tokens[1:]] for tokens in told])
mean_row = read(np.tile(final.mean(axis=0), (len(story), 1)))
random_rows = read(with_ones(by_token[story]) @ best_map(x, final))
known = np.isin(story[:-1], np.concatenate([tokens[1:] for tokens in told]))
print(f"{len(final)} rows to fit on; nats per token of our story:")
print("                embedding  after layer" + "".join(f"{i:6}" for i in range(config.n_layers)))
for places, label in ((known, "in the stories"), (~known, "others")):
    print(f"{places.sum()} tokens, {label}: mean final row {mean_row[places].mean():.2f}, "
          f"map on random rows {random_rows[places].mean():.2f}")
    for way, values in readings.items():
        at_embedding, *after_layers = np.mean(values, axis=1, where=places)
        print(f"{way:>15}{at_embedding:10.2f}{'':13}"
              + "".join(f"{nats:6.2f}" for nats in after_layers))

# %% [markdown]
# **Explain.** 4.1 again. The map has learned from the six stories what the model tends to say after each token, and the
# model has still to do this work: at these tokens the embedding offers the map nothing that a random row does not. (At
# the other 66, `<s>` among them, which the map never met, both do harm: 6.49 and 8.07, the mean row 5.65.)
#
# But each reader has its trap. The map says too much: after layer 0 it costs 3.96, the lens 4.81, but the map on random
# rows also only 4.05. The lens says too little: after layer 2 it costs 3.98, as if the row held little more than the
# token. The map costs 3.54 there: so something can be read that six stories do not teach about the present token, be it
# the tokens before it or what the model itself knows about this one. And at the tokens that the map has not met, the
# lens is the better reader after layers 1 to 4. (After layer 5 the row to guess is the row itself: only the 30 keeps
# the map from copying it.) Neither number is what the row "knows".
#
# ## Who wrote this logit?
#
# Lesson [07](07_forward_pass.ipynb) split *he* minus *she* into what each step added. A finer split is just as exact:
# what attention adds is a sum over heads, and what one head adds is a sum over the tokens that it looks at.
#
# **With a pencil.** A head looks at two tokens with weights $\frac14$ and $\frac34$; their values, sent through its
# rows of `wo`, are $(8, 0)$ and $(0, 4)$. The head writes $\frac14 (8, 0) + \frac34 (0, 4) = (2, 3)$. Its share of
# *he* minus *she* is $2 - 3 = -1$: $+2$ from the first token, $-3$ from the second. Weight *times* value counts.
#
# The last norm divides by the size of the whole row; held as it is in this run, the shares sum exactly. A number added
# to all logits changes no probability, so we split differences:
#
# 1. *he* minus the mean of all V logits, in the king's run;
# 2. the same, king's run minus queen's;
# 3. *he* minus *she*, king's run minus queen's.
#
# **Predict.** After "The king was so angry that", what raises *he* above the mean of all logits more: all 48 heads
# together, or the six feed-forward steps?

# %%
HE, = tokenizer.encode("he", bos=False)
SHE, = tokenizer.encode("she", bos=False)
output, last = weights["output"], depths[-1]
he_or_she = output[:, HE] - output[:, SHE]                # (D,)
he_or_any = output[:, HE] - output.mean(axis=1)


def rows_of_wo(layer):                                    # (H, d, D): each head has its own
    wo = weights["layers"][layer]["attn"]["wo"]
    return wo.reshape(config.n_heads, config.head_dim, config.dim)


def addends(trace):
    """{who: what it added to the stream at the last token, (D,)}"""
    parts = {"embedding": trace["embedding"][-1]}
    for i in range(config.n_layers):
        heads = trace[f"layers.{i}.attn.heads"][:, -1]                        # (H, d)
        for h, rows in enumerate(rows_of_wo(i)):
            parts[f"layer {i} head {h}"] = heads[h] @ rows
        parts[f"layer {i} ffn"] = trace[f"layers.{i}.ffn.out"][-1]
    return parts


def size_of(trace):                                       # what the norm divides the last row by
    row = trace[last][-1]
    return np.sqrt(np.mean(row * row) + config.norm_eps)


def shares(trace, direction):                             # {who: number}
    return {who: float(added / size_of(trace) * weights["norm"] @ direction)
            for who, added in addends(trace).items()}


def he_minus_she(trace):
    return float(trace["logits"][-1, HE] - trace["logits"][-1, SHE])


def king_minus_queen(direction):
    in_king, in_queen = shares(king, direction), shares(queen, direction)
    return {who: in_king[who] - in_queen[who] for who in in_king}


KING, QUEEN = (tokenizer.encode(f"The {noun} was so angry that") for noun in ("king", "queen"))
king, queen = trace_of(KING), trace_of(QUEEN)
alone, alone_gap = shares(king, he_or_any), king_minus_queen(he_or_any)
gap = king_minus_queen(he_or_she)
logits = king["logits"][-1]
print(f"{len(alone)} addends sum to {sum(alone.values()):.3f}; "
      f"he minus mean, from the logits: {logits[HE] - logits.mean():.3f}")
for title, parts in (("king: he minus mean", alone),
                     ("king minus queen: same", alone_gap),
                     ("king minus queen: he minus she", gap)):
    by_heads = sum(parts[who] for who in parts if "head" in who)
    by_step = [parts[f"layer {i} ffn"] for i in range(config.n_layers)]
    print(f"{title:30}{sum(parts.values()):5.1f}: heads {by_heads:+.1f}, ffn {sum(by_step):+.1f}, "
          f"one ffn at most {max(by_step, key=abs):+.1f}")

# %% [markdown]
# **Explain.** The feed-forward steps: 9.1 of 14.0. But they do much the same for the queen: between the two runs none
# of them differs by more than 0.7, and all together by $-0.6$, the heads by $+3.1$. Of *he* minus *she*, the heads
# make 6.7 of 7.3. (Only heads can carry anything from the noun to here; what feed-forward steps did at the noun itself
# is booked under the head that fetched it.) "The most important part" means nothing until one says: for which
# difference?
#
# ### Is a share an effect?
#
# A share is book-keeping. What happens *without* a part is another question: later steps read what a head wrote, and
# the last norm divides by another size. So patch: put what a head or step writes at the last token of the king's run
# into the queen's, let the model go on from there, and compare this *effect* with the share of the third difference.
#
# **Predict.** Head 1 of layer 3 writes two layers before the end. Will its effect be smaller than its share, about
# equal, or several times larger?

# %%
def put(name, index, value):
    """A tap that sets one piece of one tensor."""
    def tap(at, x):
        if at == name:
            x = x.copy()                                  # a tapped array is never changed in place
            x[index] = value
        return x
    return tap


def largest(parts, n):
    """The names of the n parts with the largest absolute value, the largest first."""
    return sorted(parts, key=lambda who: -abs(parts[who]))[:n]


effect = {}
for i in range(config.n_layers):
    pieces = {f"layer {i} head {h}": (f"layers.{i}.attn.heads", (h, -1))
              for h in range(config.n_heads)}
    pieces[f"layer {i} ffn"] = (f"layers.{i}.ffn.out", -1)
    for who, (name, index) in pieces.items():
        patched = trace_of(QUEEN, put(name, index, king[name][index]))
        effect[who] = he_minus_she(patched) - he_minus_she(queen)

print("part of he minus she    share   effect when patched")
for who in largest(gap, 6):
    print(f"{who:20} {gap[who]:+8.2f} {effect[who]:+10.2f}")
rest = {who: effect[who] for who in effect if who not in largest(gap, 6)}
who, = largest(rest, 1)
print(f"of the other {len(rest)}, the largest effect:")
print(f"{who:20} {gap[who]:+8.2f} {effect[who]:+10.2f}")

# %% [markdown]
# **Explain.** About equal. Head 3 of layer 3 has $1.18 / 0.73 = 1.6$ times its share, head 2 of layer 4 three quarters:
# later steps and the other size of the row make such gaps. None of the other 48 heads and steps has an effect over
# 0.30. That is one pair of prompts, one difference and the last token, and no rule.
#
# ### Where a head got it from
#
# The share of the largest head splits once more, exactly, into one part for each token that it looks at:

# %%
words = figures.pieces(tokenizer, KING)
print("layer 3 head 1".ljust(18) + "".join(f"{word:>8}" for word in words))
for noun, trace in (("king", king), ("queen", queen)):
    probs = trace["layers.3.attn.probs"][1, -1]           # (S,)
    values = trace["layers.3.attn.v"][0]                  # (S, d): heads 0 to 3 share them
    written = probs[:, None] * values @ rows_of_wo(3)[1]  # (S, D)
    parts = written / size_of(trace) * weights["norm"] @ he_or_she
    print(f"{noun:6} weight      " + "".join(f"{p:8.2f}" for p in probs))
    print(f"{noun:6} share       " + "".join(f"{part:+8.2f}" for part in parts)
          + f"   sum {parts.sum():+.2f}")

# %% [markdown] tags=["result"]
# Nearly all of it comes from the noun. In both runs the head looks there most; the *value* that it finds turns the
# sign.

# %% [markdown]
# ## What does a value carry?
#
# In lesson [07](07_forward_pass.ipynb), heads 1 and 3 of layer 3 at the last token, taken from the king's run, moved
# the queen's *he* minus *she* half-way to the king's. It is tempting to say: "these heads carry the word *king*". But
# three explanations predict that number. A *counter-prompt* tells them apart: it differs in one thing, for which they
# predict different results. *Prince* has the king's pronoun, *princess* the queen's.
#
# **With a pencil.** Say the king's patch moves *he* minus *she* by 4. What does each explanation predict?
#
# | into the queen's run, from | king | prince | princess |
# | --- | --- | --- | --- |
# | 1. the answer needs this noun | 4 | 0 | 0 |
# | 2. it needs only *he or she* | 4 | 4 | 0 |
# | 3. any change here disturbs it | 4 | 4 | 4 |
#
# **Predict.** Which row will the model fill in? And what will *bird* do, which may be either?

# %%
PLACE = ("layers.3.attn.heads", ([1, 3], -1))             # two heads, at the last token


def carried(prompt):                                      # (2, d)
    name, index = PLACE
    return trace_of(tokenizer.encode(prompt))[name][index]


def with_heads_of(prompt):
    """The queen's run, when the two heads say what they say after another prompt."""
    return trace_of(QUEEN, put(*PLACE, carried(prompt)))


def moved(prompt):                                        # how far he minus she moves by it
    return he_minus_she(with_heads_of(prompt)) - he_minus_she(queen)


nouns = ["king", "prince", "man", "father", "boy", "giant", "bird", "fox", "castle", "child",
         "queen", "princess", "woman", "mother", "girl", "witch"]
into_queen = {noun: moved(f"The {noun} was so angry that") for noun in nouns}
own = {noun: he_minus_she(trace_of(tokenizer.encode(f"The {noun} was so angry that")))
       for noun in nouns}
labels = {noun: f"{noun} ({own[noun]:+.1f})" for noun in nouns}
figure, ax = figures.new(4)
figures.bars(ax, {labels[noun]: into_queen[noun] for noun in nouns}, "+.2f",
             marked=[labels[noun] for noun in nouns[6:10]])
for bar in ax.patches[10:]:
    bar.set_facecolor(figures.SKY)
ax.axvline(0, color=figures.BLACK, linewidth=0.8)
ax.set(title="into the queen's run", xlim=(-1, 5), xlabel="change of he minus she")
figures.show(figure, "What two heads say, taken from prompts with other nouns: he-nouns dark, "
                     "nouns that may be either or neither hatched, she-nouns light; queen itself "
                     "must be 0. In brackets: he minus she in the noun's own run. "
                     "Compare prince with king, and princess with queen.")

# %%
print(f"he minus she in the queen's own run: {he_minus_she(queen):+.2f}")
print("change by other prompts:")
for text in ("The king was so hungry that", "When the king saw the bird,",
             "The queen was so hungry that", "When the queen saw the bird,"):
    print(f"   {text:32} {moved(text):+.2f}")
change_of = with_heads_of("The king was so angry that")["logits"][-1] - queen["logits"][-1]
change_of = change_of - change_of.mean()
top = np.abs(change_of).argsort()[::-1][:8]
print("of all logits, the king's heads move most:")
print("  ", ", ".join(f"{tokenizer.decode([int(i)])} {change_of[i]:+.1f}" for i in top))
print("length of the change in what the two heads write:")
lengths = {}
for noun in ("king", "castle", *nouns[11:]):              # and the she-nouns
    change = carried(f"The {noun} was so angry that") - carried("The queen was so angry that")
    first, second = rows_of_wo(3)[[1, 3]]                 # each (d, D)
    lengths[noun] = np.linalg.norm(change[0] @ first + change[1] @ second)
print("  ", ", ".join(f"{noun} {length:.1f}" for noun, length in lengths.items()))

# %% [markdown]
# **Explain.** Row 2. The queen's own run has *he* minus *she* at $-2.2$; every he-noun moves it by more than 3, so to
# *he*, and *prince* more than *king* itself. She-nouns do next to nothing, but for *witch*. (That alone does not refute
# row 3: they also change what the heads write less than half as much as *king*. But *castle* changes it nearly as much,
# 16.2 against 16.9, and moves the answer half as far.) Another adjective, even another sentence, changes little: $+3.4$
# to $+3.8$ from *king*, at most $+0.2$ from *queen*. *Bird* moves it as much as *father* does, and in its own run *he*
# stands 4.0 above *she*; *fox*, *castle* and *child* lie between, in the order of their own *he* minus *she*.
#
# But this measure sees only *he* and *she*. Of all V logits, *his*, *herself*, *himself*, *He* move most, so it is the
# *gender of pronouns* more than the word *he*. This is what these heads *change in the answer*; that they carry nothing
# else, no patch can show.

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). Put all of layer 3's heads from the king's run into the queen's (shorter
# prompts here): *she* becomes *he*. Then choose other tensors on the left:
#
#     python notebooks/explorer/build.py --open "#p=The+queen+when&second=The+king+when&t=layers.3.attn.heads&tab=patch"

# %% [markdown]
# ## Zero or mean?
#
# To take a step away one can set what it writes to zero, or to its mean over many tokens. Lessons
# [03](03_attention.ipynb) and [06](06_swiglu.ipynb) did both, and they did not cost the same. Why?
#
# **With a pencil.** A step writes 11, 9, 10 at three tokens; the next reads that and adds $\max(0, x - 8)$: 3, 1, 2.
#
# | the first step's output is | the next step reads | and adds | error |
# | --- | --- | --- | --- |
# | as it was | 11, 9, 10 | 3, 1, 2 | |
# | its mean | 10, 10, 10 | 2, 2, 2 | 1, 1, 0 |
# | zero | 0, 0, 0 | 0, 0, 0 | 3, 1, 2 |
# | its mean + 10 | 20, 20, 20 | 12, 12, 12 | 9, 11, 10 |
#
# The mean takes away what the step knows about *this* token and keeps the constant, 10, on which the next step has come
# to count. (No token need have had this row, though.) Zero takes away both. But zero is also a *shift* of the mean by
# 10, and another as long (last row) costs more. Which is it? We ablate one step at a time, at all tokens but `<s>`, and
# add up the costs. Zero is the mean minus the mean; the control is the mean minus *another* row: what the step writes
# at a random token of the six stories, minus the mean, made as long as the mean. (The average of ten.)
#
# **Predict.** Will the control cost as little as the mean, as much as zero, or something between?

# %%
steps = [f"layers.{i}.{step}.out" for i in range(config.n_layers) for step in ("attn", "ffn")]
paragraph = STORY.split("\n\n")[0]                        # half of the story is enough
base = loss(text=paragraph)


def cost_of(name, row):
    """Nats per token lost if a step writes this row at all tokens but <s>."""
    return loss(put(name, slice(1, None), row), text=paragraph) - base


rng = np.random.default_rng(0)
lost = np.zeros((3, len(steps)))
for s, name in enumerate(steps):
    written = np.concatenate([run[name][1:] for run in on_told])              # (N, D)
    mean = written.mean(axis=0)
    others = written[rng.integers(len(written), size=10)] - mean
    others *= np.linalg.norm(mean) / np.linalg.norm(others, axis=1, keepdims=True)
    control = np.mean([cost_of(name, mean - row) for row in others])
    lost[:, s] = cost_of(name, mean), cost_of(name, 0), control

ways = ("its mean", "zero", "its mean minus another row")
print(f"{'nats per token lost':24}" + "".join(f"{way:>{len(way) + 2}}" for way in ways))
for label, chosen in (("layer 0, 2 steps", slice(0, 2)), ("layers 1 to 4, 8 steps", slice(2, 10)),
                      ("layer 5, 2 steps", slice(10, 12))):
    print(f"{label:24}" + "".join(
        f"{costs[chosen].sum():{len(way) + 2}.2f}" for way, costs in zip(ways, lost)))

# %% [markdown]
# **Explain.** Something between, but for layer 5, where there is no gap to explain. Zero costs $4.74 - 4.27 = 0.47$
# more than the mean in layer 0 and $0.94 - 0.67 = 0.27$ more in layers 1 to 4, the control $0.24$ and $0.22$ more. So
# in layer 0 half of the gap, and in layers 1 to 4 most of it, is what another shift as long costs too. That later steps
# miss *this* constant may be the rest, but ten rows from a few stories do not prove it.
#
# ## Where heads park their weight
#
# The weights of a row must sum to 1, also when a head has nothing to look for. Lesson [03](03_attention.ipynb) found
# two heads that put much weight on the first token, `<s>`, while a text is short: an *attention sink*. What draws the
# weight, the first *place* or the *token* `<s>`?
#
# So each text runs with `<s>` in front, without, and with `<s>` only as the eighth token; and as controls with the end
# token `</s>` there, or the word *king*. A head's weight on a place is the mean over tokens at least four later: nearer
# ones may look there because it is near. Token number t sees t tokens, so looking everywhere alike gives the mean of
# $1/t$, *even weight*. We count the heads that give more than five times that.
#
# **Predict.** Without `<s>`, will the first word become the sink? And will `<s>` in the middle get as much from later
# tokens as in front, half or next to nothing?

# %%
speech = ('"Where are you going?" said the fox. "To the market," said the goose, "to sell my '
          'eggs." "Then let me go with you," said the fox, "for the road is long and dark."')
prose = ("The hidden state of each layer is normalised before it is multiplied by a matrix, "
         "and the result is added to the stream that flows from the first layer to the last.")
counting = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"
texts = {"sentence": tokenizer.encode(SENTENCE)}
for label, text in (("speech", speech), ("prose", prose), ("numbers", counting)):
    texts[label] = tokenizer.encode(text)[:48]            # of equal length
texts["story"] = story


def weight_on(place, tokens):                             # (L, H): mean of the tokens >= 4 later
    trace = trace_of(tokens)
    return np.array([trace[f"layers.{i}.attn.probs"][:, place + 4:, place].mean(axis=1)
                     for i in range(config.n_layers)])


def even_weight(place, tokens):                           # of a head that looks everywhere alike
    return np.mean(1 / np.arange(place + 5, len(tokens) + 1))


KING_WORD, = tokenizer.encode("king", bos=False)
places = ("<s> front", "first word", "<s> mid", "</s> mid", "king mid")
header = "           T  front    mid" + "".join(f"{place:>12}" for place in places)
counts, most = [], []                                     # the lines of two tables
for label, ids in texts.items():
    runs = [(0, ids), (0, ids[1:])]                       # (place, tokens)
    for token in (tokenizer.bos, tokenizer.eos, KING_WORD):
        runs.append((7, ids[1:8] + [token] + ids[8:]))
    maps = [weight_on(*run) for run in runs]
    start = f"{label:9} {len(ids):3} {even_weight(0, ids):6.1%} {even_weight(7, ids):6.1%}"
    counts.append(start + "".join(f"{np.sum(weight > 5 * even_weight(*run)):12}"
                                  for weight, run in zip(maps, runs)))
    most.append(start + "".join(f"{weight.max():12.0%}" for weight in maps))
print("even weight, and how many heads give more than 5 times that to", header, *counts, sep="\n")
print("even weight, and the largest weight that any head gives to", header, *most, sep="\n")

# %% [markdown]
# **Explain.** It is not the place. With `<s>` only in the middle, no fewer heads give it more than five times even
# weight (which is smaller there: *mid*), and the largest weight stays within 7 points of what it was in front; without
# `<s>`, no head gives the first word more than 35 %. But `<s>` is not the only token that draws: in its place `</s>`
# draws more heads in three texts of five, and in each text one gives it at least 51 %. *King*, an ordinary word out of
# place, draws one head at most, with up to 51 %; in the speech one gives it 36 %, more than the 30 % that any gives
# `<s>` in that place. (What the heads *write* we did not measure: "park" is a guess.)
#
# ## Does this model copy?
#
# Give a trained model random tokens twice. Many models predict the second half far better than the first. Olsson and
# others ([arXiv 2209.11895](https://arxiv.org/abs/2209.11895)) argue that two kinds of heads, one after the other, do
# this, and make models better at later tokens in general (with causal evidence in small models without feed-forward
# steps, correlation in large ones):
#
# - a *previous-token head* tells each token which token stands before it;
# - an *induction head* looks for the place *after* an earlier occurrence of the present token, and copies what it
#   finds.
#
# **With a pencil.** The text is `A B C A`. After the first head, each row knows its token and the one before: (A, –),
# (B, A), (C, B), (A, C). The last token, A, asks: "who has *me* before it?" The second row has: B comes next. With a
# score of 3 for a match and 0 otherwise, the weights are $e^3 / (e^3 + 3) = 0.87$ for B and $0.04$ for each of the
# others.
#
# Each head gets two scores: its mean weight one token back; and, in n random tokens said twice, n − 1 tokens back (in
# `A B C A B C`, with n = 3, the second A looks at the first B, two back). The control: what it gives the same places
# when the second half is *shuffled*. The second half's cost has two controls: after another first half, and after its
# own tokens shuffled.
#
# **Predict.** How many of the 48 heads will score like an induction head: none, one or five? And how much of the second
# half's cost does it save to have read the first: hardly any, half or nearly all?

# %%
n = 40
rng = np.random.default_rng(0)
pieces = np.arange(259, config.vocab_size)                # without control tokens and single bytes


def scores_of(ids, n):
    """Each head's weight one token back and n - 1 back, in the last n tokens: twice (L, H)."""
    trace, asks = trace_of(ids), np.arange(len(ids) - n, len(ids))
    probs = np.stack([trace[f"layers.{i}.attn.probs"] for i in range(config.n_layers)])
    return [probs[..., asks, asks - back].mean(axis=-1) for back in (1, n - 1)]


def nats(first, half):                                    # mean of a half but its first token
    ids = [tokenizer.bos, *first, *half]
    logits = nl.forward(ids, weights, config)
    return nl.cross_entropy(logits[:-1], ids[1:])[1 - len(half):].mean()


said_twice, shuffled, halves = [], [], []                 # of 6 tries
for _ in range(6):
    half = rng.choice(pieces, n, replace=False)
    ids = np.concatenate([[tokenizer.bos], half, half])   # <s> is token 0
    said_twice.append(scores_of(ids, n))
    shuffled.append(scores_of(np.concatenate([ids[:n + 1], rng.permutation(half)]), n)[1])
    halves.append(half.tolist())
for _ in range(12):                                       # for the cost, some more
    halves.append(rng.choice(pieces, n, replace=False).tolist())
one_back, n_back = np.mean(said_twice, axis=0)
if_shuffled = np.mean(shuffled, axis=0)
best = np.unravel_index(n_back.argmax(), n_back.shape)
print(f"best induction score {n_back[best]:.2f} (layer {best[0]} head {best[1]}), "
      f"with a shuffled half {if_shuffled[best]:.2f}")
stories = [tokens[5:65] for tokens in told]
print("nats per token of        after    after itself   after    order saves")
print("the second half          another  shuffled       itself   (standard error)")
for label, texts in (("random tokens", halves), ("its own stories", stories)):
    rng = np.random.default_rng(1)                        # for the shuffles
    costs = np.array([[nats(first, half) for first in (other, rng.permutation(half), half)]
                      for half, other in zip(texts, texts[1:] + texts[:1])])
    saved = costs[:, 1] - costs[:, 2]
    print("{:24}{:6.2f}{:10.2f}{:14.2f}".format(label, *costs.mean(axis=0))
          + f"      {saved.mean():.2f} ({saved.std(ddof=1) / np.sqrt(len(saved)):.2f})")

# %%
figure, axes = figures.new(2.8, columns=2)
for ax, scores, title in ((axes[0], one_back, "previous token"), (axes[1], n_back, "induction")):
    figures.matrix(ax, scores, [f"layer {i}" for i in range(config.n_layers)],
                   range(config.n_heads), title, kind=figures.SHARE, numbers=".2f")
    ax.set_xlabel("head")
figures.show(figure, "Two scores for every head on random tokens said twice. Look for dark cells, "
                     "on the left and on the right. (0.02 is even weight over some 60 tokens.)")

# %% [markdown]
# **Explain.** None of any strength: the best, head 7 of layer 4, scores 0.07 (shuffled 0.02). What decides is the cost.
# Said twice, random tokens cost 12.44, after other ones 12.73. (More than to guess evenly, ln V = 8.0: the model is
# sure, and wrong.) But after the same ones *shuffled* they cost 12.45: nearly all of the saving comes from *which*
# tokens stood there. Their order, which a copier needs, saves 0.01, less than its standard error, 0.03. On the model's
# own stories the order saves 0.05 (0.03) of 2.30, and part of that may not be copying: shuffling breaks a story in
# other ways too. A good copier's cost would come near 0.
#
# Several heads look one token back. That is not yet the first of the two steps: such a head must also *write* which
# token it saw, which we did not measure.
#
# ## More features than dimensions
#
# A model has three things to remember, *features*, and two numbers to remember them in. Must it drop one? Not if the
# three are rarely there at once: each gets a direction, and they get a little in each other's way. That is called
# *superposition* (Elhage and others, [arXiv 2209.10652](https://arxiv.org/abs/2209.10652)), and a reason not to expect
# that each neuron means one thing. Here is a toy of it, as nobody tells us which features the real model has.
#
# **With a pencil.** Three features are 0 or 1, each is 1 with probability p, independently. Each gets a column of W
# (2, 3); we store $h = W x$ and read back $\mathrm{relu}(W^\top h + b)$, with $\mathrm{relu}(z) = \max(0, z)$ and a
# constant b for each feature. The cost is the squared error, summed over the features, on average.
#
# - *Two of three.* $W = \begin{pmatrix} 1 & 0 & 0 \\ 0 & 1 & 0 \end{pmatrix}$: two are read perfectly. The best guess
#   for the third is p, always ($b = (0, 0, p)$), which costs $p(1 - p)$.
# - *Three in two*, with $b = 0$: a *star*. Three columns of length 1, a third of a turn apart: two different ones have
#   the inner product $-\frac12$. One feature on: it reads 1, the others $-\frac12$, which relu makes 0. **No error.**
#   Two on: each reads $1 - \frac12 = \frac12$, the third $-1$, so 0: the error is $\frac14 + \frac14 = \frac12$. All
#   three: each reads $1 - \frac12 - \frac12 = 0$, error 3. Together $\frac12 \cdot 3 p^2 (1 - p) + 3 p^3$.
#
# Equal costs, divided by p: $1 - p = \frac32 p (1 - p) + 3 p^2$, or $\frac32 p^2 + \frac52 p - 1 = 0$, and so
# $p = \frac13$. Rarer than that, the star costs less.
#
# **Predict.** And without relu? Will the star still win for rare features?

# %%
x = np.array(list(product([0.0, 1.0], repeat=3)))         # (8, 3): all that can happen
on = x.sum(axis=1)
turn = 2 * np.pi / 3
AXES, STAR = np.eye(2, 3), np.array([[1, np.cos(turn), np.cos(2 * turn)],
                                     [0, np.sin(turn), np.sin(2 * turn)]])


def relu(z):
    return np.maximum(z, 0)


def chance(p):                                            # (8,): of each row of x
    return p ** on * (1 - p) ** (3 - on)


def cost(W, b, p, activation=relu):
    """The mean of the squared errors, of one W (2, 3) or of several (tries, 2, 3)."""
    error = activation(x @ (W.swapaxes(-1, -2) @ W) + b) - x                  # (..., 8, 3)
    return np.sum(error ** 2, axis=-1) @ chance(p)


print("   p   two of three     star   star, no relu")
for p in (0.05, 1 / 3, 0.9):
    print(f"{p:.2f} {cost(AXES, [0, 0, p], p):14.4f} {cost(STAR, 0, p):8.4f} "
          f"{cost(STAR, 0, p, activation=lambda z: z):15.4f}")

# %% [markdown]
# **Explain.** No: without relu this star costs more than two of three at any p. Nor can any other W or b do better than
# $p(1 - p)$: the read-back is then at best a projection onto a plane, which leaves out one direction of three, and
# along any direction independent features vary by $p(1 - p)$. It takes something like relu, which *ignores* negative
# readings.
#
# Does *learning* find the star? Here is gradient descent on the cost with relu at $p = 0.05$, from twenty random W at
# once. Take the gradient in the code on trust; lesson [11](11_learning.ipynb) derives such things.

# %%
def learned(p, tries=20, steps=1000, rate=0.3):
    """W (tries, 2, 3) and b (tries, 1, 3) after gradient descent."""
    W = 0.5 * np.random.default_rng(0).standard_normal((tries, 2, 3))
    b = np.zeros((tries, 1, 3))
    weight = chance(p)[:, None]                           # (8, 1)
    for _ in range(steps):
        z = x @ (W.swapaxes(1, 2) @ W) + b                # (tries, 8, 3)
        e = weight * (relu(z) - x) * (z > 0)
        xe = x.T @ e                                      # (tries, 3, 3)
        W = W - rate * W @ (xe + xe.swapaxes(1, 2))       # the factor 2 is in the rate
        b = b - rate * e.sum(axis=1, keepdims=True)
    return W, b


p = 0.05
W, b = learned(p)
costs = cost(W, b, p)                                     # (tries,)
order = costs.argsort()
print(f"p = {p}: best of 20 tries {costs.min():.4f}, median {np.median(costs):.4f}")
best = W[order[0]]
print("its columns are", np.linalg.norm(best, axis=0).round(3), "long; with b = 0 it costs",
      f"{cost(best, 0, p):.4f}")
figure = figures.packing({"the best of 20 tries": best, "the median try": W[order[10]]})
figures.show(figure, "The columns of W that gradient descent found, one arrow for each feature; "
                     "the dotted circle has radius 1. Which is a star, and which has two arrows "
                     "back to back?")

# %% [markdown]
# **Explain.** Descent *can* find the star, turned somehow, with columns a little longer than 1: two features that are
# on read a little more than ½ each, which saves a little more; b does next to nothing. Not in every try: the median try
# has two columns nearly back to back and one across, which costs about $2 p^2$ (question 1).
#
# ## In the wild
#
# - **The lens was not enough.** On some models the logit lens (nostalgebraist, [interpreting
#   GPT](https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens)) fails; the *tuned lens*, a
#   map for each layer that is trained to give the model's final prediction, reads more (Belrose and others,
#   [arXiv 2303.08112](https://arxiv.org/abs/2303.08112)).
# - **Large models lean on their sinks.** Keep only the latest keys in the cache of a Llama 2, and its perplexity jumps
#   to thousands as soon as the first tokens drop out; keep four of them, and all is well. Four line breaks in front did
#   nearly as well, so the authors conclude that the *place* counts there (Xiao and others,
#   [arXiv 2309.17453](https://arxiv.org/abs/2309.17453)).
#
# ## Questions
#
# **1.** Pencil: one dimension, two features, $W = (1, -1)$, read back with relu. What does it cost, and when is that
# less than to store one feature and guess p for the other?
#
# <details>
# <summary>Answer</summary>
#
# One feature on: it reads 1, the other $-1$, so 0: no error. Both on: $h = 0$, both read 0, error 2. So the cost is
# $2 p^2$. Against $p (1 - p)$: less if $2p < 1 - p$, that is for $p < \frac13$ again.
#
# </details>
#
# **2.** A head puts 97 % of its weight on `<s>`, on every text. Zero ablation costs 0.3 nats per token, mean ablation
# nothing. What does the head do?
#
# <details>
# <summary>Answer</summary>
#
# It writes nearly the same row everywhere: the value of `<s>`, which knows nothing of the text. Zero shifts what later
# steps read by this row, and that costs (perhaps any shift as long would); the mean puts it back. The head works like a
# bias, and Llama has none.
#
# </details>
#
# **3.** A patch of one head from *The king ...* into *The queen ...* brings back all of *he*. Somebody concludes that
# the head knows that the king is a man. Which two counter-prompts would you run, and what would refute the conclusion?
#
# <details>
# <summary>Answer</summary>
#
# Another he-noun (*prince*): if it does nothing, the head carries the word. Another she-noun (*princess*): if it moves
# the answer as well, any change does. (If not, compare how far both change what the head writes, as above.) Even if all
# comes out right, the head carries what decides between two pronouns *in these prompts*, and no more is shown.
#
# </details>
#
# ## Exercises
#
# `check(name)` runs your function on several inputs, and says what a wrong answer looks like; `check(name, hint=1)`
# gives a hint.
#
# ### 1. Hold one direction
#
# An ablation need not take a whole step. Write the smallest one: of each row, only the part along `direction` is set
# to its mean over all rows; everything else stays. (`direction` may have any length but 0.)

# %% tags=["exercise"]
def hold(x, direction):
    """Rows whose parts along one direction are all their mean: (T, D), (D,) -> (T, D)."""
    ...

# %%
check(hold)

# %% tags=["solution"]
def hold(x, direction):
    unit = direction / np.linalg.norm(direction)
    along = x @ unit                                      # (T,)
    return x + (along.mean() - along)[:, None] * unit

# %% [markdown]
# ### 2. An induction score for any text
#
# In a real text, a token may have occurred several times before, or never. For each token that *has* occurred before,
# add up the weight that a head puts one place after each earlier occurrence; the score of a head is the mean over
# these tokens, and 0 if there are none.

# %% tags=["exercise"]
def induction_score(probs, ids):
    """Each head's mean weight on what followed earlier occurrences: (H, S, S), (S,) -> (H,)."""
    ...

# %%
check(induction_score)

# %% tags=["solution"]
def induction_score(probs, ids):
    same = np.tril(ids[:, None] == ids[None, :], k=-1)    # (S, S): an earlier occurrence
    after = np.zeros_like(same)
    after[:, 1:] = same[:, :-1]                           # one place later
    asked = after.any(axis=1)
    if not asked.any():
        return np.zeros(len(probs), probs.dtype)
    return (probs * after).sum(axis=-1)[:, asked].mean(axis=1)

# %% [markdown]
# ## In five lines
#
# 1. A lens may miss what is there, and a fitted map may know what the row does not: give the map random rows as well.
# 2. A logit splits exactly into embedding, heads and feed-forward steps; a share is no proof of an effect.
# 3. Counter-prompts say what a value changes: from two heads, the answer takes the pronoun's gender, not the noun.
# 4. Zero takes away knowledge and a constant, the mean keeps the constant: to ask what a step *knows*, take the mean.
# 5. What large models do is a question to yours: here `<s>` draws, not the first place, and hardly anything is copied.
