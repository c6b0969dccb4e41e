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
# | **The question** | What do a model's inner numbers show, and which conclusions do they not bear? |
# | **You will be able to** | say what an early reading of the stream misses; split a logit into heads, and a head into tokens; test with a counter-prompt what a value carries; find attention sinks, previous-token and induction heads, or show that there are none; choose an ablation; fit three features into two dimensions |
# | **It assumes** | lessons [03](03_attention.ipynb), [06](06_swiglu.ipynb) and [07](07_forward_pass.ipynb) |
# | **Minutes** | 135 |
#
# T tokens (S is the same here), D model width, F feed-forward width, V vocabulary, H query heads, G key/value heads,
# d head width, L layers.

# %% tags=["hide"]
from itertools import product

import checks
import figures
import numpy as np
from course import SENTENCE, STORY, config, exact, loss, nl, tokenizer, weights

check = checks.lesson("08")

# %% [markdown]
# A trace holds every number that a model computes. There are four ways to ask something of it, and a lesson's worth of
# ways to be wrong. So every section has a *control*: a second measurement, which would have come out otherwise if the
# conclusion were wrong.
#
# | | you | it answers |
# | --- | --- | --- |
# | **read** | turn an inner row into words, or look at a map | what *could* be read here? |
# | **split** | take a sum apart | who *wrote* it? |
# | **patch** | put in a value from another run | what does this value *carry*? |
# | **ablate** | take a value away | what is *needed*? |
#
# ## Reading the stream early
#
# Lesson [07](07_forward_pass.ipynb) read the stream after every layer with the last norm and the output matrix: the
# *logit lens*. And it warned: that matrix was trained on the stream's last form only. Is this a detail, or does it
# change what we conclude?
#
# **With a pencil.** Two rows in the middle of a model, D = 2; the output matrix reads the first number as *he*, the
# second as *she*: $a = (1, 2)$ and $b = (0, 4)$. Read early, both say *she*. Now let the rest of the model add $(2, 0)$
# to every row, whatever it is: $a$ becomes $(3, 2)$, *he*, and $b$ becomes $(2, 4)$, *she*. What tells $a$ from $b$ was
# there all the time; the lens lacked a constant.
#
# In the model we can look for what the lens lacks. On texts that the model tells itself, find for each depth the best
# guess of the *final* row: once by adding a constant (the mean difference), once by a linear map (least squares, as in
# lesson [06](06_swiglu.ipynb)). Then read the guess on another text, our story. As a control, the same fit with
# *shuffled* final rows: it can learn what final rows are like on average, and nothing about this row.
#
# **Predict.** A blind guess costs 8.0 nats per token, the lens on the embedding 9.4. What will the linear map need
# there: about $9$, $7$ or $4.5$?

# %%
prompt = tokenizer.encode("Once upon a time")
told = []
for seed in range(6):                                     # float64: the same on every processor
    rng = np.random.default_rng(seed)
    told.append(prompt + list(nl.generate(prompt, exact, config, 200, rng, temperature=0.8)))


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


def read(rows):                                           # normed rows (T, D) -> nats per token
    logits = rows * weights["norm"] @ weights["output"]
    return float(nl.cross_entropy(logits[:-1], story[1:]).mean(dtype=float))


def best_map(x, y):
    """The linear map (D + 1, D) that turns rows x and a column of ones into rows y best."""
    x = np.column_stack([x, np.ones(len(x))])
    smoothing = 30 * np.eye(x.shape[1])                   # against fitting noise: ridge regression
    return np.linalg.solve(x.T @ x + smoothing, x.T @ y)


final = np.concatenate([normed(run[depths[-1]])[1:] for run in on_told])      # all rows but <s>
shuffled = np.random.default_rng(0).permutation(final)
readings = {"lens": [], "constant": [], "linear map": [], "shuffled": []}
for name in depths:
    x = np.concatenate([normed(run[name])[1:] for run in on_told])            # (N, D)
    here = normed(on_story[name])                                             # (T, D)
    ones = np.column_stack([here, np.ones(len(here))])
    readings["lens"].append(read(here))
    readings["constant"].append(read(here + (final - x).mean(axis=0)))
    readings["linear map"].append(read(ones @ best_map(x, final)))
    readings["shuffled"].append(read(ones @ best_map(x, shuffled)))
print(f"{len(final):,} rows to fit on; nats per token of our story")
print(f"{'':15}" + "".join(f"{way:>12}" for way in readings))
for i, name in enumerate(depths):
    print(f"{name:15}" + "".join(f"{values[i]:12.2f}" for values in readings.values()))

# %%
figure, ax = figures.new(2.9)
for way, values in readings.items():
    ax.plot(values, marker="o", markersize=4, label=way)
ax.set_xticks(range(len(depths)), ["embedding"] + [f"layer {i}" for i in range(config.n_layers)])
ax.set(ylabel="nats per token", ylim=(0, None))
ax.legend(ncols=2)
figures.show(figure, "The same rows, read in four ways: a fitted map reads from each layer "
                     "about what the lens reads one layer later.")

# %% [markdown]
# **Explain.** About 4.5: the embedding says a lot about the next token, in a form that the output matrix cannot read. A
# constant alone brings the lens to the level of the shuffled rows, which know only how frequent each token is.
#
# This changes a conclusion. By the lens, layer 0 gains most, 4.6 nats. By the map it gains 0.5, and the last layer
# gains most, 0.8: most of what the lens sees in layer 0 is that rows *become readable*. From layer 2 on the two differ
# by a third of a nat or less. At the end, where nothing is left to translate, they agree: the fit itself costs 0.02.
#
# The map has its own trap: it says what *could* be read, not what the model reads. After layer 0 nobody needs the
# embedding any more (lesson [00](00_start_here.ipynb)), and the map would read it all the same.
#
# ## Who wrote this logit?
#
# Lesson [07](07_forward_pass.ipynb) split *he* minus *she* into what each step added. A finer split is just as exact:
# what attention adds is a sum over heads, and what one head adds is a sum over the tokens that it looks at.
#
# **With a pencil.** A head looks at two tokens with weights $\frac14$ and $\frac34$; their values, sent through its
# rows of `wo`, are $(8, 0)$ and $(0, 4)$. The head writes $\frac14 (8, 0) + \frac34 (0, 4) = (2, 3)$. Its share of *he*
# minus *she* is $2 - 3 = -1$: $+2$ from the first token, $-3$ from the second. Weight *times* value counts.
#
# The last norm divides by the size of the whole row. We hold that size as it is in this run; then the shares sum
# exactly. We split *he* against the mean of all V logits, and *he* minus *she*, once for the king and once as a
# difference between two runs.
#
# **Predict.** After "The king was so angry that", what raises *he* above the mean token: one head that looks at *king*,
# or the feed-forward steps?

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


KING, QUEEN = (tokenizer.encode(f"The {noun} was so angry that") for noun in ("king", "queen"))
king, queen = trace_of(KING), trace_of(QUEEN)
alone = shares(king, he_or_any)
in_king, in_queen = shares(king, he_or_she), shares(queen, he_or_she)
gap = {who: in_king[who] - in_queen[who] for who in in_king}

logits = king["logits"][-1]
print(f"{len(alone)} addends; he above the mean token: logits {logits[HE] - logits.mean():.3f}, "
      f"sum of shares {sum(alone.values()):.3f}")
print(f"he minus she, king minus queen: logits {he_minus_she(king) - he_minus_she(queen):.3f}, "
      f"sum of shares {sum(gap.values()):.3f}")
alone_queen = shares(queen, he_or_any)
alone_gap = {who: alone[who] - alone_queen[who] for who in alone}
for title, parts in (("he above the mean token, king", alone),
                     ("the same, king minus queen", alone_gap),
                     ("he minus she, king minus queen", gap)):
    by_heads = sum(parts[who] for who in parts if "head" in who)
    by_ffn = sum(parts[who] for who in parts if "ffn" in who)
    print(f"{title:30} all heads {by_heads:+.1f}, all feed-forward steps {by_ffn:+.1f}")

# %%
def largest(parts, n):
    """The n parts with the largest absolute value, the largest first."""
    return dict(sorted(parts.items(), key=lambda part: -abs(part[1]))[:n])


figure, axes = figures.new(2.8, columns=2)
for ax, parts, title in ((axes[0], alone, "he above the mean token, king's run"),
                         (axes[1], gap, "he minus she, king minus queen")):
    top = largest(parts, 8)
    figures.bars(ax, top, "+.1f", marked=[who for who in top if "head" in who])
    ax.set(title=title, xlim=(-1, 3))
figures.show(figure, "The eight largest shares in two splits of the same run, heads hatched: "
                     "feed-forward steps make he likely, heads tell king from queen.")

# %% [markdown]
# **Explain.** The feed-forward steps: 9.1 of 14.0. But they do nearly the same for the queen: between the two runs, the
# same split leaves them $-0.6$ and the heads $+3.1$. Of *he* minus *she*, too, the heads make 6.7 of 7.3, and head 1 of
# layer 3 alone makes a third. "The most important part" means nothing until one says: for which difference?
#
# ### Is a share an effect?
#
# A share is book-keeping. What would happen *without* a part is another question: later steps read what a head wrote,
# and the size of the row would be another. So two controls. Put what a head or step writes at the last token of the
# king's run into the queen's, let the model go on from there, and compare the effect with the share. And take a part
# off the last row, with the norm dividing by the new size.
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


effect = {}
for i in range(config.n_layers):
    for h in range(config.n_heads):
        name, index = f"layers.{i}.attn.heads", (h, -1)
        patched = trace_of(QUEEN, put(name, index, king[name][index]))
        effect[f"layer {i} head {h}"] = he_minus_she(patched) - he_minus_she(queen)
    name = f"layers.{i}.ffn.out"
    patched = trace_of(QUEEN, put(name, -1, king[name][-1]))
    effect[f"layer {i} ffn"] = he_minus_she(patched) - he_minus_she(queen)

print("part of he minus she    share   effect when patched")
for who in largest(gap, 6):
    print(f"{who:20} {gap[who]:+8.2f} {effect[who]:+10.2f}")
small = [who for who in effect if who not in largest(gap, 3)]
for title, chosen in (("all", list(effect)), ("without the three largest", small)):
    both = np.corrcoef([gap[who] for who in chosen], [effect[who] for who in chosen])
    print(f"correlation of share and effect, {title}: {both[0, 1]:.2f}")

row, added = king[last][-1], addends(king)
print(f"taken off the king's last row    share   effect with the new size of the row, not "
      f"{size_of(king):.1f}")
for who in ("layer 3 head 1", "layer 3 ffn", "layer 5 ffn"):
    rest = row - added[who]
    size = np.sqrt(np.mean(rest * rest) + config.norm_eps)
    lost_gap = he_minus_she(king) - rest / size * weights["norm"] @ he_or_she
    print(f"{who:30} {in_king[who]:+7.2f} {lost_gap:+9.2f} {size:22.1f}")

# %% [markdown]
# **Explain.** About equal: for this difference, a share is nearly an effect, though head 3 of layer 3 gets half as much
# again from what later layers make of it. That was not granted: layer 0's feed-forward step has a modest share in *he*,
# and without it the model says nothing sensible at all (lesson [00](00_start_here.ipynb)).
#
# The size matters more than one would think. With the size held, the last feed-forward step adds $+0.1$ to *he* minus
# *she*. Take it off, and *he* gains 1.2 on *she*: without its long row the norm divides by less, and everything else
# counts for more. For a short row such as the head's, the two numbers agree.
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
# Nearly all of it comes from the noun. In both runs the head looks at the same places; what differs is the *value* that
# it finds there.

# %% [markdown]
# ## What does a value carry?
#
# In lesson [07](07_forward_pass.ipynb), heads 1 and 3 of layer 3 at the last token, taken from the king's run, moved
# the queen's *he* minus *she* half-way to the king's. It is tempting to say: "these heads carry the word *king*". But
# three explanations predict that number: they carry *which noun* it was; they carry only *he or she*; or *any change*
# at this place upsets the answer. A *counter-prompt* tells them apart: it differs in one thing, so that the
# explanations predict different results. *Prince* is another noun with the same pronoun, *princess* another noun with
# the queen's.
#
# **With a pencil.** Say the king's patch moves *he* minus *she* by 4. What does each explanation predict for the
# others?
#
# | into the queen's run, from | king | prince | princess |
# | --- | --- | --- | --- |
# | 1. which noun | 4 | something else | something else |
# | 2. he or she | 4 | 4 | 0 |
# | 3. any change | 4 | 4 | 4 |
#
# **Predict.** Which row will the model fill in? And what will *bird* do, which may be either?

# %%
PLACE = ("layers.3.attn.heads", ([1, 3], -1))             # two heads, at the last token


def carried(prompt):                                      # (2, d)
    name, index = PLACE
    return trace_of(tokenizer.encode(prompt))[name][index]


def moved(tokens, value):
    """How far he minus she moves when the two heads say `value`."""
    return he_minus_she(trace_of(tokens, put(*PLACE, value))) - he_minus_she(trace_of(tokens))


says, into_queen, into_king = {}, {}, {}
nouns = ["king", "prince", "man", "father", "boy", "giant", "bird", "fox", "castle", "child",
         "queen", "princess", "woman", "mother", "girl", "witch"]
for noun in nouns:
    prompt_with = f"The {noun} was so angry that"
    value = carried(prompt_with)
    says[noun] = he_minus_she(trace_of(tokenizer.encode(prompt_with)))
    into_queen[noun], into_king[noun] = moved(QUEEN, value), moved(KING, value)
alike = np.corrcoef(list(says.values()), list(into_queen.values()))[0, 1]
print(f"a noun's own he minus she, and how far it moves the queen: correlation {alike:.2f}")
print("other prompts with a king, into the queen's run:")
for text in ("The king was so hungry that", "The old king was so happy that",
             "When the king saw the bird,"):
    print(f"   {text:32} {moved(QUEEN, carried(text)):+.2f}")

own = carried("The queen was so angry that")
step = np.linalg.norm(carried("The king was so angry that") - own)
rng = np.random.default_rng(0)
upset = []
for _ in range(20):                                       # as far as the king's, in any direction
    away = rng.standard_normal(own.shape).astype(np.float32)
    upset.append(moved(QUEEN, own + away * step / np.linalg.norm(away)))
print(f"20 random changes of the same length: from {min(upset):+.2f} to {max(upset):+.2f}, "
      f"mean {np.mean(upset):+.2f}")

# %%
figure, axes = figures.new(4, columns=2, sharey=True)
for ax, moves, title in ((axes[0], into_queen, "into the queen's run"),
                         (axes[1], into_king, "into the king's run")):
    figures.bars(ax, moves, "+.2f", marked=nouns[6:10])
    ax.axvline(0, color=figures.BLACK, linewidth=0.8)
    ax.set(title=title, xlim=(-5.5, 5.5), xlabel="change of he minus she")
axes[1].invert_yaxis()                                    # once is enough for a shared axis
figures.show(figure, "What two heads say, taken from prompts with other nouns: every he-noun turns "
                     "the queen, no she-noun does, and nouns that may be either (hatched) lie "
                     "between or near he.")

# %% [markdown]
# **Explain.** Row 2. Every he-noun moves the queen by 3.2 to 4.0, *prince* more than *king* itself, and every she-noun
# by next to nothing, but for *witch*. Into the king's run it is the mirror image. Other prompts about a king do nearly
# as well as the first. Random changes of the same length go either way, by 1.2 at most: it is not row 3. These heads
# carry *he or she*, and by degrees: the more the model says *he* after a noun, the further that noun moves the queen
# (correlation 0.99; *bird*, *fox*, *castle*, *child*). All this in sentences of one kind, and for half of the
# difference; the other half goes other ways.
#
# ## Where heads park their weight
#
# The weights of a row must sum to 1, also when a head has nothing to look for. Lesson [03](03_attention.ipynb) found
# two heads that put much weight on the first token, `<s>`, while a text is short: *attention sinks*. Do they depend on
# the text? And what draws the weight, the first *place* or the *token* `<s>`?
#
# Think of a coat hook by the door. Do people hang their coats there because it is a hook, or because it is by the door?
# Take the hook away, or put another in the middle of the room.
#
# **Predict.** Without `<s>`, will the first word of the text become the sink? And if a second `<s>` stands in the
# middle of a text, which of the two will later tokens use?

# %%
texts = {
    "sentence": SENTENCE,
    "speech": '"Where are you going?" said the fox. "To the market," said the goose, "to sell my '
              'eggs." "Then let me go with you," said the fox, "for the road is long and dark."',
    "prose": "The hidden state of each layer is normalised before it is multiplied by a matrix, "
             "and the result is added to the stream that flows from the first layer to the last.",
    "numbers": "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
    "story": STORY}


def weight_on(place, tokens, start):                      # (L, H): mean of the tokens from `start`
    trace = trace_of(tokens)
    return np.array([trace[f"layers.{i}.attn.probs"][:, start:, place].mean(axis=1)
                     for i in range(config.n_layers)])


print("            T   heads above 30 %:      the strongest head:          with two <s>:")
print("               with <s>  without                with  without       1st   2nd")
on_first = {}
for label, text in texts.items():
    ids = tokenizer.encode(text)
    on_first[label], without = weight_on(0, ids, 4), weight_on(0, ids[1:], 4)
    two = ids[:8] + [tokenizer.bos] + ids[8:]             # a second <s> at place 8
    first, second = weight_on(0, two, 12), weight_on(8, two, 12)
    i, h = divmod(int(on_first[label].argmax()), config.n_heads)
    counts = [np.sum(weight > 0.3) for weight in (on_first[label], without)]
    strongest = [weight[i, h] for weight in (on_first[label], without, first, second)]
    print(f"{label:9} {len(ids):3} {counts[0]:7} {counts[1]:9}     layer {i} head {h}: "
          "{:4.0%} {:8.0%} {:9.0%} {:5.0%}".format(*strongest))

# %%
figure, axes = figures.new(2.6, columns=len(texts), sharey=True)
for ax, (label, weight) in zip(axes, on_first.items()):
    figures.matrix(ax, weight, [f"layer {i}" for i in range(config.n_layers)],
                   range(config.n_heads), label, kind=figures.SHARE)
axes[2].set_xlabel("head")
figures.show(figure, "The mean weight of every head on the first token, white for 0 and dark for "
                     "1, on five texts: which heads park there, and how many, depends on the text.")

# %% [markdown]
# **Explain.** It is the hook, not the door. Without `<s>` the strongest heads give the first word 1 to 12 % of their
# weight, and hardly any other head takes over; with two `<s>`, the second draws weight where it stands. (It draws more
# than the first, which is further away; that sinks fade with distance, lesson [04](04_rope.ipynb) found for one head.)
# In training, stories were joined and cut anywhere ([train.py](../weights/train.py)), so `<s>` could stand at any
# place. That fits; whether it is the reason, only another training could tell.
#
# And it depends on the text: the strongest head has 97 % in one, in another it is a different head with 36 %, and in
# the long one no head reaches 30 %. Whoever measures one text will name a head that fails on the next.
#
# ### Does the model need its sinks?
#
# If heads look at `<s>` only because they must look somewhere, it should say nothing to them. A test, on all heads at
# once, in the first 60 tokens of several stories:
#
# - *silent*: the weight on `<s>` is set to 0, and the others stay as they are;
# - *elsewhere*: the others are also scaled up to sum to 1 again;
# - *held*: each head's weight on `<s>` is set to its mean over other stories, at the same place of the text.
#
# As a control, *silent* for each of the eight tokens that follow `<s>`.
#
# **Predict.** Will it cost more to lose `<s>` or an ordinary token? And if *silent* costs something, will *held* cost
# as much or next to nothing?

# %%
def set_weight(place, value=0.0, scale_up=False):
    """A tap that sets what later tokens give the one at `place`: to 0, or to value (L, H, T)."""
    def tap(name, x):
        if name.endswith("attn.probs"):
            layer = int(name.split(".")[1])
            new = np.broadcast_to(value, (config.n_layers, *x.shape[:2]))[layer]
            x = x.copy()                                  # (H, T, S)
            x[:, place + 1:, place] = new[:, place + 1:]
            if scale_up:
                x = x / x.sum(axis=-1, keepdims=True)
        return x
    return tap


def nats(tokens, tap=nl.ignore):                          # (T - 1,)
    return nl.cross_entropy(nl.forward(tokens, weights, config, tap=tap)[:-1], tokens[1:])


others = [trace_of(tokens[:60]) for tokens in told[:3]]   # to find the mean weight
openings = [tokens[:60] for tokens in [*told[3:], story]]                     # to test on
usual = np.array([np.mean([run[f"layers.{i}.attn.probs"][:, :, 0] for run in others], axis=0)
                  for i in range(config.n_layers)])       # (L, H, T)


def lost(tap):
    """Nats per token lost at tokens 9 to 20 and at tokens 21 to 59."""
    change = np.mean([nats(tokens, tap) - nats(tokens) for tokens in openings], axis=0)
    return np.array([change[9:21].mean(), change[21:].mean()])


drawn = np.mean([weight_on(slice(0, 9), tokens, 9) for tokens in openings], axis=(0, 1, 2))
print("nats per token lost               tokens 9 to 20   21 to 59")
for label, tap in (("<s> silent", set_weight(0)), ("<s> elsewhere", set_weight(0, scale_up=True)),
                   ("<s> held", set_weight(0, usual))):
    print("{:34} {:+12.2f} {:+10.2f}".format(label, *lost(tap)))
costs = np.mean([lost(set_weight(place)) for place in range(1, 9)], axis=0)
print("{:34} {:+12.2f} {:+10.2f}".format("eight others silent, mean", *costs))
print(f"weight drawn: <s> {drawn[0]:.1%}, eight others {drawn[1:].mean():.1%} on average")

# %% [markdown]
# **Explain.** It is needed where a text begins: without `<s>`, tokens 9 to 20 lose 0.4 nats each, four times as much as
# without an ordinary token; later ones lose 0.05. Looking elsewhere does no extra harm. What hurts is that something is
# *missing*, and nearly all of it is back once each head gives `<s>` its *usual* weight. So what `<s>` says is much the
# same in every story (its values are exactly the same: it stands first and sees only itself), and the model counts on
# it. "Heads park there because they have nothing to say" would be half the truth here.
#
# ## Does this model copy?
#
# Give a large model random tokens twice, and it predicts the second half far better than the first, although it never
# saw those tokens together. Two kinds of heads do that, one after the other (Olsson and others,
# [arXiv 2209.11895](https://arxiv.org/abs/2209.11895)):
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
# Each head gets a score for each kind: its mean weight one token back; and, in n random tokens said twice, n − 1 tokens
# back. Two controls: a *hand-made* induction head, computed as with the pencil, shows that the score would find one;
# and the same places in a text whose second half is *shuffled* show what a head gives them anyway.
#
# **Predict.** How many of the 48 heads will be induction heads: none, one or five? And will the second half cost less
# than the first?

# %%
n = 40
rng = np.random.default_rng(0)
pieces = np.arange(259, config.vocab_size)                # without control tokens and single bytes


def map_by_hand(ids, match):                              # (S, S): an induction head, hand-made
    before = np.concatenate([[-1], ids[:-1]])             # what a previous-token head brings
    scores = np.where(before[None, :] == ids[:, None], match, 0.0)
    return nl.softmax(np.where(np.tri(len(ids), dtype=bool), scores, -np.inf))


print("A B C A:", map_by_hand(np.array([0, 1, 2, 0]), 3)[-1].round(2))

one_back, n_back, first_half, second_half, by_hand = {}, {}, {}, {}, []
asks = np.arange(n + 1, 2 * n + 1)                        # the second half; <s> is token 0
for second in ("said twice", "shuffled"):
    previous, induction, losses = [], [], []
    for _ in range(8):
        half = rng.choice(pieces, n, replace=False)
        other = half if second == "said twice" else rng.permutation(half)
        ids = np.concatenate([[tokenizer.bos], half, other])
        trace = trace_of(ids)
        probs = np.stack([trace[f"layers.{i}.attn.probs"] for i in range(config.n_layers)])
        previous.append(probs[..., asks, asks - 1].mean(axis=-1))             # (L, H)
        induction.append(probs[..., asks, asks - (n - 1)].mean(axis=-1))
        losses.append(nl.cross_entropy(trace["logits"][:-1], ids[1:]))        # (2 n,)
        if second == "said twice":
            by_hand.append(map_by_hand(ids, 10)[asks, asks - (n - 1)].mean())
    one_back[second], n_back[second] = np.mean(previous, axis=0), np.mean(induction, axis=0)
    first_half[second] = np.mean(losses, axis=0)[1:n].mean()
    second_half[second] = np.mean(losses, axis=0)[n + 1:].mean()
print(f"a hand-made induction head scores {np.mean(by_hand):.2f}")
for second in n_back:
    i, h = divmod(int(n_back[second].argmax()), config.n_heads)
    print(f"{second:10}: best induction score {n_back[second].max():.2f} (layer {i} head {h}); "
          f"nats per token {first_half[second]:.1f}, then {second_half[second]:.1f}")
i, h = divmod(int(n_back["said twice"].argmax()), config.n_heads)
print(f"layer {i} head {h}: {n_back['said twice'][i, h]:.2f} said twice, "
      f"{n_back['shuffled'][i, h]:.2f} shuffled, {1 / (1.5 * n):.2f} with equal weights")

# %%
figure, axes = figures.new(2.8, columns=2)
for ax, scores, title in ((axes[0], one_back, "previous token"), (axes[1], n_back, "induction")):
    figures.matrix(ax, scores["said twice"], [f"layer {i}" for i in range(config.n_layers)],
                   range(config.n_heads), title, kind=figures.SHARE, numbers=".2f")
    ax.set_xlabel("head")
figures.show(figure, "Two scores for every head on random tokens said twice: several heads look "
                     "one token back, none looks where an induction head would.")

# %% [markdown]
# Random tokens are strange to this model, so perhaps the test is unfair. The same with text of its own kind: 60 tokens
# of a story, once after themselves, once after themselves shuffled, once after 60 tokens of another story.

# %%
rng = np.random.default_rng(0)
first, after = [], {"themselves": [], "shuffled": [], "another story": []}
for tokens, others in zip(told, told[1:] + told[:1]):
    part, other = tokens[5:65], others[5:65]
    before = {"themselves": part, "shuffled": list(rng.permutation(part)), "another story": other}
    for label, half in before.items():
        each = nats([tokenizer.bos, *half, *part])
        after[label].append(each[70:].mean())             # without the first ten
        if label == "themselves":
            first.append(each[10:60].mean())
print(f"nats per token: new {np.mean(first):.2f}; after "
      + ", after ".join(f"{label} {np.mean(means):.2f}" for label, means in after.items()))
print("looking one token back:  random tokens  story")
for i, h in ((4, 3), (3, 0), (4, 5), (5, 4)):             # the four largest in the figure
    back = np.diagonal(on_story[f"layers.{i}.attn.probs"][h], -1)[1:].mean()
    print(f"   layer {i} head {h} {one_back['said twice'][i, h]:20.2f} {back:6.2f}")

# %% [markdown]
# **Explain.** None. The hand-made head scores 1.00, the best of the model's 0.08 (head 7 of layer 4): a trace, as with
# a shuffled half it has 0.02, but it does not show in what the model predicts. The second half costs as much as the
# first. On stories, too: to have seen the same *words* helps a little (2.23 nats after the shuffled part, 2.34 after
# another story), to have seen them in *order* only 0.05 more.
#
# The first of the two steps is there. Four heads put about half of their weight one token back, on random tokens much
# as on a story: they go by place more than by words. Why there is no second step, these numbers do not say; a guess is
# under "In the wild".
#
# ## Zero or mean?
#
# To take a step away one can set what it writes to zero, or to its mean over many tokens. Lesson
# [03](03_attention.ipynb) did both for heads, lesson [06](06_swiglu.ipynb) for feed-forward steps, and they were not
# the same. Why?
#
# **With a pencil.** A step writes 11, 9, 10 at three tokens. The next step reads that and adds $\max(0, x - 8)$: 3, 1,
# 2.
#
# | the first step's output is | the next step reads | and adds | error |
# | --- | --- | --- | --- |
# | as it was | 11, 9, 10 | 3, 1, 2 | |
# | its mean | 10, 10, 10 | 2, 2, 2 | 1, 1, 0 |
# | zero | 0, 0, 0 | 0, 0, 0 | 3, 1, 2 |
# | without its mean | 1, −1, 0 | 0, 0, 0 | 3, 1, 2 |
#
# The mean takes away what the step knows about *this* token, and nothing else. Zero also takes away a constant, on
# which the next step has come to count: in the last row the knowledge is all there, and still everything goes wrong.
#
# If that is why they differ in the model, then to take away *only the mean* must cost something, and more than a random
# row of the same length. And there is a third way to ablate: let the step write what it wrote at *another* token
# (*shuffled*). Mean and spread are right, and the knowledge is false.
#
# **Predict.** Which costs more: no knowledge (the mean) or false knowledge (shuffled)?

# %%
def average(name):                                        # (D,): on the told stories, without <s>
    return np.concatenate([run[name][1:] for run in on_told]).mean(axis=0)


def change(where, function):
    """A tap that puts function(x) in the place of one value."""
    return lambda name, x: function(x) if name == where else x


base = loss()
rng = np.random.default_rng(0)
order = rng.permutation(len(story))
ways = {"mean": [], "zero": [], "shuffled": [], "only the mean": [], "random": []}
steps = [f"layers.{i}.{step}.out" for i in range(config.n_layers) for step in ("attn", "ffn")]
for name in steps:
    mean = average(name)
    ways["mean"].append(loss(change(name, lambda x: np.zeros_like(x) + mean)) - base)
    ways["zero"].append(loss(change(name, np.zeros_like)) - base)
    ways["shuffled"].append(loss(change(name, lambda x: x[order])) - base)
    ways["only the mean"].append(loss(change(name, lambda x: x - mean)) - base)
    costs = []
    for _ in range(3):                                    # as long as the mean, in any direction
        away = rng.standard_normal(config.dim).astype(np.float32)
        away *= np.linalg.norm(mean) / np.linalg.norm(away)
        costs.append(loss(change(name, lambda x: x - away)) - base)
    ways["random"].append(np.mean(costs))

print("layers.0.ffn.out: mean {:.2f}, zero {:.2f}, shuffled {:.2f} nats per token lost".format(
    *(ways[way][1] for way in ("mean", "zero", "shuffled"))))
print("summed over the steps    zero minus mean   only the mean taken   a random row taken")
for label, chosen in (("layer 0", slice(0, 2)), ("layers 1 to 4", slice(2, 10)),
                      ("layer 5", slice(10, 12))):
    sums = {way: np.sum(costs[chosen]) for way, costs in ways.items()}
    print(f"{label:22} {sums['zero'] - sums['mean']:+14.2f} {sums['only the mean']:+20.2f} "
          f"{sums['random']:+20.2f}")

# %%
figure, ax = figures.new(3)
places = np.arange(len(steps) - 1)                        # without layer 0's feed-forward step
kept = [i for i, name in enumerate(steps) if name != "layers.0.ffn.out"]
looks = {"mean": ("", figures.SKY), "zero": ("///", figures.ORANGE),
         "shuffled": ("...", figures.GREEN)}
for shift, (way, (hatch, colour)) in zip((-0.27, 0, 0.27), looks.items()):
    values = [ways[way][i] for i in kept]
    ax.bar(places + shift, values, 0.27, color=colour, hatch=hatch, edgecolor="white", label=way)
ax.set_xticks(places, [steps[i].removeprefix("layers.").removesuffix(".out") for i in kept])
ax.set(ylabel="nats per token lost"), ax.legend()
figures.show(figure, "Three ways to take a step away: the mean and zero cost nearly the same, in "
                     "the last layer another token's output costs twice as much (layer 0's "
                     "feed-forward step, at 5 to 6 nats, is left out).")

# %% [markdown]
# **Explain.** False knowledge costs more than none (the mean) in every step, and twice as much in the last layer:
# shuffling asks how far a step is *trusted*, not what it is worth.
#
# Zero against mean: up to layer 4 the account is mostly right. Zero costs 0.28 and 0.21 nats more than the mean; to
# take only the mean away costs 0.17 and 0.18, about two or three times as much as a random row of the same length. In
# layer 5 it fails: zero is no dearer than the mean. The account assumes that two losses add up; a constant that helps
# while the knowledge is there need not help once that is gone.
#
# ## More features than dimensions
#
# A model has three things to remember, *features*, and two numbers to remember them in. Must it drop one? If the three
# are rarely there at once, no: each gets a direction, and they live with getting in each other's way. That is called
# *superposition* (Elhage and others, [arXiv 2209.10652](https://arxiv.org/abs/2209.10652)), and it is a reason not to
# expect that each neuron means one thing. Here is a toy of it.
#
# **With a pencil.** Three features are 0 or 1, each is 1 with probability p, independently. Each gets a column of W
# (2, 3); we store $h = W x$ and read back $\mathrm{relu}(W^\top h)$, with $\mathrm{relu}(z) = \max(0, z)$. The cost is
# the mean of the squared errors.
#
# - *Two of three.* $W = \begin{pmatrix} 1 & 0 & 0 \\ 0 & 1 & 0 \end{pmatrix}$: two are read perfectly. The best guess
#   for the third is p, always, which costs $p(1 - p)$.
# - *Three in two.* Three columns of length 1, a third of a turn apart: two different ones have the inner product
#   $-\frac12$. One feature on: it reads 1, the others $-\frac12$, which relu makes 0. **No error.** Two on: each reads
#   $1 - \frac12 = \frac12$, the third $-1$, so 0: the error is $\frac14 + \frac14 = \frac12$. All three: each reads
#   $1 - \frac12 - \frac12 = 0$, error 3. Together $\frac12 \cdot 3 p^2 (1 - p) + 3 p^3$.
#
# Equal costs, divided by p: $1 - p = \frac32 p (1 - p) + 3 p^2$, or $\frac32 p^2 + \frac52 p - 1 = 0$, and so
# $p = \frac13$. Rarer than that, three in two dimensions cost less than two.
#
# **Predict.** And without relu? Will three in two still win for rare features?

# %%
x = np.array(list(product([0.0, 1.0], repeat=3)))         # (8, 3): all that can happen
on = x.sum(axis=1)
turn = 2 * np.pi / 3
AXES, STAR = np.eye(2, 3), np.array([[1, np.cos(turn), np.cos(2 * turn)],
                                     [0, np.sin(turn), np.sin(2 * turn)]])


def relu(z):
    return np.maximum(z, 0)


def as_it_is(z):
    return z


def chance(p):                                            # (8,): of each row of x
    return p ** on * (1 - p) ** (3 - on)


def cost(W, b, p, activation=relu):
    """The mean of the squared errors, of one W (2, 3) or of several (tries, 2, 3)."""
    error = activation(x @ (W.swapaxes(-1, -2) @ W) + b) - x                  # (..., 8, 3)
    return np.sum(error ** 2, axis=-1) @ chance(p)


print("   p   two of three   three in two   three in two, no relu")
for p in (0.05, 0.1, 1 / 3, 0.5):
    print(f"{p:.2f} {cost(AXES, [0, 0, p], p):14.4f} {cost(STAR, 0, p):14.4f} "
          f"{cost(STAR, 0, p, as_it_is):18.4f}")

# %% [markdown]
# Does *learning* find this? Here is gradient descent on the same cost, from twenty random W at once. With the error
# $e$, counted only where relu lets it through, the gradient of the cost is $2\,W (x^\top e + e^\top x)$ for W and
# $2\,e$ for b. (The factor 2 goes into the rate.)

# %%
chances = [0.05, 0.1, 0.2, 1 / 3, 0.5, 0.9]


def learned(p, activation, tries=20, steps=2000, rate=0.3):
    """W (tries, 2, 3) and b (tries, 1, 3) after gradient descent."""
    W = 0.5 * np.random.default_rng(0).standard_normal((tries, 2, 3))
    b = np.zeros((tries, 1, 3))
    weight = chance(p)[:, None]                           # (8, 1)
    for _ in range(steps):
        z = x @ (W.swapaxes(1, 2) @ W) + b                # (tries, 8, 3)
        e = weight * (activation(z) - x)
        if activation is relu:
            e = e * (z > 0)
        xe = x.T @ e                                      # (tries, 3, 3)
        W = W - rate * W @ (xe + xe.swapaxes(1, 2))
        b = b - rate * e.sum(axis=1, keepdims=True)
    return W, b


found = {}
print("   p   best of 20 tries   median   two of three   three in two   best without relu")
for p in chances:
    W, b = learned(p, relu)
    costs = cost(W, b, p)                                 # (tries,)
    order = costs.argsort()
    found[p, "best"], found[p, "median"] = W[order[0]], W[order[10]]
    straight = cost(*learned(p, as_it_is), p, as_it_is).min()
    print(f"{p:.2f} {costs.min():14.4f} {np.median(costs):12.4f} "
          f"{cost(AXES, [0, 0, p], p):12.4f} {cost(STAR, 0, p):14.4f} {straight:16.4f}")

# %%
shown = ((0.05, "best"), (0.05, "median"), (0.5, "best"), (0.9, "best"))
figure = figures.packing({f"p = {p:.2f}, {which}": found[p, which] for p, which in shown})
figures.show(figure, "The columns of W that gradient descent found, one arrow for each feature: "
                     "at p 0.05 the best try is a star; the "
                     "median try has two nearly back to back.")

# %% [markdown]
# **Explain.** While features are rare, descent finds the star of the pencil, turned somehow, and its b saves a little
# more. Not in every try: the median try at $p = 0.05$ has two columns nearly back to back and one across, which costs
# about $2 p^2$ (question 1). At $p = \frac12$ it finds a third arrangement, and at $0.9$ nothing better than to give up
# one feature. Without relu nothing is ever better than that, for rare features either: it takes relu, which *ignores*
# the small negative readings, for three features to share two dimensions at little cost.
#
# Does the real model do this? It has twelve times as many tokens as dimensions, so their directions cannot all be at
# right angles. But which *features* it has, nobody hands us: that is why this section is about a toy.
#
# ## What one small model can show
#
# Which of all this would you expect of a Llama of 7 billion parameters?
#
# - **What is exact** holds for any model of this form: a logit is a sum over heads and tokens; zero takes away
#   knowledge *and* a constant.
# - **What refutes** needs one case only. "A sink is a place", "a sink says nothing", "a trained Llama has induction
#   heads": as laws, these are wrong. How often they hold, one model does not say.
# - **What was found here** is one case. Heads 1 and 3 of layer 3 carry *he or she*; another training of the same size
#   may divide the work otherwise.
# - **What is missing here**, such as copying, says nothing about larger models, longer training or other texts.
#
# What carries over is the habit: before you believe a number, think of another explanation that predicts it, and
# measure where the two disagree.
#
# ## In the wild
#
# - **The lens was not enough.** The logit lens comes from a blog post (nostalgebraist, [interpreting GPT: the logit
#   lens](https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens)). On some models it reads
#   little in the middle layers; a map fitted for each layer, the *tuned lens*, reads more (Belrose and others,
#   [arXiv 2303.08112](https://arxiv.org/abs/2303.08112)).
# - **Large models lean on their sinks.** Keep only the latest keys in the cache of a Llama 2, and its perplexity jumps
#   to thousands as soon as the first tokens drop out; keep four of them, and all is well. There it was the *place*:
#   four line breaks in front did nearly as well (Xiao and others,
#   [arXiv 2309.17453](https://arxiv.org/abs/2309.17453)).
# - **Induction heads arrive late, and suddenly.** In models of very different sizes they formed in one short stretch
#   of training, after billions of tokens, and copying in context appeared with them (Olsson and others, as above). Ours
#   saw some thirty million tokens. Whether that is the reason, a longer training would have to show.
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
# It writes nearly the same row everywhere: the value of `<s>`, which knows nothing of the text. Later steps count on
# this constant, so zero costs; the mean puts it back. The head works like a bias, and Llama has none.
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
# the answer as well, any change does. Even if both come out right, "knows that the king is a man" says too much: the
# head carries what decides between two pronouns *in these prompts*.
#
# </details>
#
# ## Exercises
#
# `check(name)` runs your function on several inputs, and says what a wrong answer looks like; `check(name, hint=1)`
# gives a hint.
#
# ### 1. Whose say is largest?
#
# For *every* token that asks, find the token from which a head gets most of what it writes along a direction, for or
# against it. `probs` are the head's weights, `v` its values, `rows` its rows of `wo`.

# %% tags=["exercise"]
def main_source(probs, v, rows, direction):
    """Which token has the largest part, by size: (T, S), (S, d), (d, D), (D,) -> (T,)."""
    ...

# %%
check(main_source)

# %% tags=["solution"]
def main_source(probs, v, rows, direction):
    say = v @ rows @ direction                            # (S,): what each value says
    return np.abs(probs * say).argmax(axis=1)

# %% [markdown]
# ### 2. An induction score for any text
#
# In a real text, a token may have occurred several times before, or never. For each token that *has* occurred before,
# add up the weight that a head puts one place after each earlier occurrence; the score of a head is the mean over these
# tokens, and 0 if there are none.

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
# ### 3. Hold one direction
#
# An ablation need not take a whole step. Write the smallest one: of each row, only the part along `direction` is set to
# its mean over all rows; everything else stays. (`direction` may have any length but 0.)

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
# ### 4. How much room does a feature have?
#
# Features are the columns $W_1, W_2, \dots$ of a matrix. The room of feature i is
#
# $$\frac{|W_i|^2}{\sum_j (u_i \cdot W_j)^2} \qquad \text{with } u_i = W_i / |W_i|,$$
#
# the sum over all columns, its own included; a column of zeros has room 0. (Alone in its direction, a feature has room
# 1; two that are opposite share one: $\frac12$ each. How much has each of the three in two dimensions?)

# %% tags=["exercise"]
def room(W):
    """The room that each column has: (m, n) -> (n,)."""
    ...

# %%
check(room)

# %% tags=["solution"]
def room(W):
    products = W.T @ W                                    # (n, n)
    own = np.diag(products)                               # |W_i|^2
    shared = (products ** 2).sum(axis=1)                  # |W_i|^2 times the sum in the formula
    return np.where(own > 0, own ** 2 / np.where(own > 0, shared, 1), 0)

# %% [markdown]
# ## In five lines
#
# 1. A lens shows what one fixed reader can read: a poor reading may be the reader's fault.
# 2. A logit splits exactly into heads and tokens; a share says who wrote it, not what would happen without it.
# 3. Counter-prompts say what a value carries: two heads carry *he or she*, not *king*.
# 4. Zero takes away knowledge and a constant, the mean only knowledge, another token's value puts in false knowledge.
# 5. What large models do is a question to yours: this one has sinks of another kind, and does not copy.
