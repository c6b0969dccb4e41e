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
# | **You will be able to** | say what an early reading of the stream misses; split a logit into parts, and a head into tokens; test with a counter-prompt what a value carries; find attention sinks, previous-token and induction heads, or show that there are none; choose an ablation; fit three features into two dimensions |
# | **It assumes** | lessons [03](03_attention.ipynb), [06](06_swiglu.ipynb) and [07](07_forward_pass.ipynb) |
# | **Minutes** | 115 |
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
# A trace holds every number that a model computes. There are four ways to ask something of it, and many ways to be
# wrong. So beside each result stands a *control*: a second measurement that could refute what we would like to
# conclude.
#
# | | you | it answers |
# | --- | --- | --- |
# | **read** | turn an inner row into words (a lens, a *probe*), or look at a map | what *could* be read here? |
# | **split** | take a sum apart (*direct logit attribution*) | who *wrote* it? |
# | **patch** | put in a value from another run (*activation patching*) | what does this value *carry*? |
# | **ablate** | take a value away | what is *needed*? |
#
# In italics stands the name under which you find it in papers. After the four come three things that people look for
# with them: sinks, copying, and more features than dimensions.
#
# ## Reading the stream early
#
# Lesson [07](07_forward_pass.ipynb) read the stream after every layer with the last norm and the output matrix: the
# *logit lens*. And it warned: that matrix was trained on the stream's last form only. Is this a detail, or does it
# change what we conclude?
#
# **With a pencil.** Two rows in the middle of a model, D = 2; the output matrix reads the first number as *he*, the
# second as *she*: $a = (1, 2)$ and $b = (0, 4)$. Read early, both say *she*. Now let the rest of the model add
# $(2, 0)$ to every row, whatever it is: $a$ becomes $(3, 2)$, *he*, and $b$ becomes $(2, 4)$, *she*. What tells $a$ from
# $b$ was there all the time; the lens lacked a constant.
#
# In the model we can *fit* what the lens lacks. Let the model write six stories (1,224 rows). For each depth, guess
# the *final* row from the row there: once by adding a constant (the mean difference), once by a linear map (least
# squares, as in lesson [06](06_swiglu.ipynb)). Then read the guess on another text, our story. A fitted map is called
# a *probe*, and a probe needs a control: does the row know it, or has the map learned it? So we fit one more map, on
# rows that say nothing but *which token stands here*: one random row for each token of the vocabulary.
#
# **Predict.** The lens on the embedding costs 9.4 nats per token; the mean final row, the same for all tokens, 6.2.
# The map on the embedding costs 4.6. What will the map on random rows cost: about $6.2$, as they hold nothing that the
# model has learned, or nearer to $4.6$?

# %%
prompt = tokenizer.encode("Once upon a time")
told = []
for seed in range(6):                                     # exact: the weights in float64
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
readings = {"lens": [], "constant": [], "linear map": []}
for name in depths:
    x = np.concatenate([normed(run[name])[1:] for run in on_told])            # (N, D)
    here = normed(on_story[name])                                             # (T, D)
    ones = np.column_stack([here, np.ones(len(here))])
    readings["lens"].append(read(here))
    readings["constant"].append(read(here + (final - x).mean(axis=0)))
    readings["linear map"].append(read(ones @ best_map(x, final)))

by_token = np.random.default_rng(1).standard_normal((config.vocab_size, config.dim))
x = np.concatenate([by_token[tokens[1:]] for tokens in told])
ones = np.column_stack([by_token[story], np.ones(len(story))])
no_row = read(np.tile(final.mean(axis=0), (len(story), 1)))
print(f"{len(final):,} rows to fit on; nats per token of our story:")
print(f"map on random rows {read(ones @ best_map(x, final)):.2f}, mean final row {no_row:.2f}")
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
ax.axhline(no_row, color=figures.GREY, linestyle=":")
figures.show(figure, "The same rows, read in three ways; dotted, the cost of the mean final row. "
                     "Look where the curves are far apart, and where they meet.")

# %% [markdown]
# **Explain.** Nearer to 4.6: the map on random rows costs 4.9. It has learned from the six stories what tends to
# follow each token, and that is the *map's* knowledge; the model has still to do this work. Only 0.3 nats are left for
# what the embedding itself may bring.
#
# So each reader has its trap. The lens, 9.4 nats, says too little: it misses what is there in another form. (A
# constant alone is no remedy: 6.7 is worse than the mean row.) The map says too much: what *could be* computed from a
# row is not what the model has computed. Where the two are far apart, at the embedding, neither says what the model
# knows. From layer 2 on they differ by a third of a nat or less, and little depends on the choice.
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
# The last norm divides by the size of the whole row. We hold that size as it is in this run; then the shares sum
# exactly. We take three splits: *he* above the mean of all V logits in the king's run; the same, king's run minus
# queen's; and *he* minus *she*, king's run minus queen's. (A number added to all logits changes no probability, so a
# logit by itself says little: it needs something to be compared with.)
#
# **Predict.** After "The king was so angry that", what raises *he* above the mean token more: all 48 heads together,
# or the six feed-forward steps?

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
    print(f"{title:30} all heads {by_heads:+.1f}, feed-forward steps {by_ffn:+.1f}, "
          f"embedding {parts['embedding']:+.1f}")
by_step = [f"{alone_gap[f'layer {i} ffn']:+.1f}" for i in range(config.n_layers)]
print("king minus queen, each feed-forward step:", *by_step)

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
figures.show(figure, "The eight largest shares in two splits, heads hatched. Which kind of step "
                     "leads on the left, and which on the right?")

# %% [markdown]
# **Explain.** The feed-forward steps: 9.1 of 14.0. But they do much the same for the queen: between the two runs, no
# step of theirs differs by more than 0.7, and all together by $-0.6$, the heads by $+3.1$. Of *he* minus *she*, the
# heads make 6.7 of 7.3, and head 1 of layer 3 alone a third. "The most important part" means nothing until one says:
# for which difference?
#
# ### Is a share an effect?
#
# A share is book-keeping. What would happen *without* a part is another question: later steps read what a head wrote,
# and the last norm would divide by another size. So patch: put what a head or step writes at the last token of the
# king's run into the queen's, let the model go on from there, and compare this *effect* with the share.
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

# %% [markdown]
# **Explain.** About equal. Head 3 of layer 3 has 1.6 times its share, head 2 of layer 4 three quarters: such gaps are
# what later layers and the other size of the row make. Over all parts, share and effect go together, also without the
# three largest (0.97). That is a finding about one pair of prompts, one difference and the last token, and no rule:
# the effect of a part that many later steps build on can be many times its share.
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
# Nearly all of it comes from the noun. In both runs the head looks there most; what turns the sign is the *value* that
# it finds.

# %% [markdown]
# ## What does a value carry?
#
# In lesson [07](07_forward_pass.ipynb), heads 1 and 3 of layer 3 at the last token, taken from the king's run, moved
# the queen's *he* minus *she* half-way to the king's. It is tempting to say: "these heads carry the word *king*". But
# three explanations predict that number: the answer needs *this noun*; it needs only *he or she*; or *any change*
# at this place disturbs it. A *counter-prompt* tells them apart: it differs in one thing, so that the
# explanations predict different results. *Prince* is another noun with the same pronoun, *princess* another noun with
# the queen's.
#
# **With a pencil.** Say the king's patch moves *he* minus *she* by 4. What does each explanation predict for the
# others?
#
# | into the queen's run, from | king | prince | princess |
# | --- | --- | --- | --- |
# | 1. this noun | 4 | 0 | 0 |
# | 2. he or she | 4 | 4 | 0 |
# | 3. any change | 4 | 4 | 4 |
#
# **Predict.** Which row will the model fill in? And what will *bird* do, which may be either?

# %%
PLACE = ("layers.3.attn.heads", ([1, 3], -1))             # two heads, at the last token


def carried(prompt):                                      # (2, d)
    name, index = PLACE
    return trace_of(tokenizer.encode(prompt))[name][index]


def moved(value):
    """How far he minus she moves in the queen's run when the two heads say `value`."""
    return he_minus_she(trace_of(QUEEN, put(*PLACE, value))) - he_minus_she(queen)


says, into_queen = {}, {}
nouns = ["king", "prince", "man", "father", "boy", "giant", "bird", "fox", "castle", "child",
         "queen", "princess", "woman", "mother", "girl", "witch"]
for noun in nouns:
    prompt_with = f"The {noun} was so angry that"
    value = carried(prompt_with)
    says[noun] = he_minus_she(trace_of(tokenizer.encode(prompt_with)))
    into_queen[noun] = moved(value)
groups = (("he-nouns", nouns[:6]), ("either", nouns[6:10]), ("she-nouns", nouns[10:]))
print(f"he minus she in the queen's own run: {he_minus_she(queen):+.2f}")
print("a noun's own he minus she, and how far it moves the queen: correlation")
for group, names in groups:
    pairs = [says[noun] for noun in names], [into_queen[noun] for noun in names]
    print(f"   {group:10} {np.corrcoef(*pairs)[0, 1]:.2f}")
print("other prompts, into the queen's run:")
for text in ("The king was so hungry that", "When the king saw the bird,",
             "The queen was so hungry that", "When the queen saw the bird,"):
    print(f"   {text:32} {moved(carried(text)):+.2f}")
patched = trace_of(QUEEN, put(*PLACE, carried("The king was so angry that")))["logits"][-1]
change_of = patched - queen["logits"][-1]
change_of = change_of - change_of.mean()
top = np.abs(change_of).argsort()[::-1][:8]
print("the king's patch moves most:")
print("  ", ", ".join(f"{tokenizer.decode([int(i)])} {change_of[i]:+.1f}" for i in top))


def added_by_two(noun):                                   # (D,)
    heads = carried(f"The {noun} was so angry that")      # (2, d)
    return heads[0] @ rows_of_wo(3)[1] + heads[1] @ rows_of_wo(3)[3]


print("distance of what the two heads add to the stream:")
for one, other in (("king", "queen"), ("king", "prince"), ("king", "boy"), ("queen", "mother")):
    print(f"   {one:5} to {other:6} {np.linalg.norm(added_by_two(one) - added_by_two(other)):.1f}")

# %%
figure, ax = figures.new(4)
figures.bars(ax, into_queen, "+.2f", marked=nouns[6:10])
ax.axvline(0, color=figures.BLACK, linewidth=0.8)
ax.set(title="into the queen's run", xlim=(-1, 5), xlabel="change of he minus she")
figures.show(figure, "What two heads say, taken from prompts with other nouns: he-nouns above, "
                     "nouns that may be either hatched, she-nouns below. Compare prince with king, "
                     "and princess with queen.")

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). Put the king's heads into the queen's run: *she* becomes *he*. Then
# choose other tensors on the left:
#
#     python notebooks/explorer/build.py --open "#p=The+queen+when&second=The+king+when&t=layers.3.attn.heads&tab=patch"

# %% [markdown]
# **Explain.** Row 2. Every he-noun moves the queen by 3.2 to 4.0, more than the $-2.2$ of her own run, and *prince*
# more than *king* itself; she-nouns do next to nothing, but for *witch*, at 0.7. Other prompts with a king do nearly
# as well as the first, those with a queen next to nothing: so it is not any change, row 3.
# *Bird*, *fox*, *castle* and *child* move her the further, the more the model says *he* after them (0.97); among
# he-nouns there is no such order.
#
# But this measure sees only *he* and *she*. Two more looks: of all V logits the patch moves *his*, *herself*,
# *himself*, *He* most, so it is the *gender of pronouns* more than the word *he*. And what the two heads write for
# *king* and *prince* is a third as far apart as for *king* and *queen*: something about the noun is in there too. What
# these heads *change in the answer* is the pronoun; that they carry nothing else, no patch can show.
#
# ## Where heads park their weight
#
# The weights of a row must sum to 1, also when a head has nothing to look for. Lesson [03](03_attention.ipynb) found
# two heads that put much weight on the first token, `<s>`, while a text is short: *attention sinks*. Are they the same
# heads in every text? And what draws the weight, the first *place* or the *token* `<s>`?
#
# Do people hang their coats on a hook by the door because it is a hook, or because it is by the door? Take it away, or
# move it to the middle of the room.
#
# **Predict.** Without `<s>`, will the first word of the text become the sink? And if `<s>` stands only in the middle,
# will later tokens give it as much as at the front, half or next to nothing?

# %%
speech = ('"Where are you going?" said the fox. "To the market," said the goose, "to sell my '
          'eggs." "Then let me go with you," said the fox, "for the road is long and dark."')
prose = ("The hidden state of each layer is normalised before it is multiplied by a matrix, "
         "and the result is added to the stream that flows from the first layer to the last.")
counting = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"
texts = {"sentence": tokenizer.encode(SENTENCE), "story, 17": story[:17], "story, 48": story[:48]}
for label, text in (("speech", speech), ("prose", prose), ("numbers", counting)):
    texts[label] = tokenizer.encode(text)[:48]            # of equal length
texts["story"] = story


def weight_on(place, tokens, start):                      # (L, H): mean of the tokens from `start`
    trace = trace_of(tokens)
    return np.array([trace[f"layers.{i}.attn.probs"][:, start:, place].mean(axis=1)
                     for i in range(config.n_layers)])


print("               heads      the strongest,      without <s>:      <s> only   two <s>:")
print("             T  > 30 %    its weight           it  best head  in the middle  1st  2nd")
for label, ids in texts.items():
    on_first, without = weight_on(0, ids, 4), weight_on(0, ids[1:], 4)
    two = ids[:8] + [tokenizer.bos] + ids[8:]             # a second <s> at place 8
    one = two[1:]                                         # only that, now at place 7
    i, h = divmod(int(on_first.argmax()), config.n_heads)
    print(f"{label:9} {len(ids):4} {np.sum(on_first > 0.3):4}    layer {i} head {h}: "
          f"{on_first[i, h]:4.0%} {without[i, h]:8.0%} {without.max():8.0%} "
          f"{weight_on(7, one, 12)[i, h]:14.0%} {weight_on(0, two, 12)[i, h]:8.0%} "
          f"{weight_on(8, two, 12)[i, h]:4.0%}")

# %% [markdown]
# **Explain.** It is the hook, not the door. With `<s>` only in the middle, the strongest head gives it about what it
# gave it in front, within 5 percentage points in every text. Without `<s>` that head gives the first word 1 to 12 %.
# (Another head may give the first word up to 35 %, so the door has a little charm of its own.) Of two, later tokens
# use the second at least as much as the first, which is further away; that sinks fade with distance, lesson
# [04](04_rope.ipynb) found for one head.
#
# And length counts before anything else: of one story, the first 17 tokens show 7 such heads, 48 tokens 3, the whole
# story none. At equal length, story and prose name head 5 of layer 5, as the sentence does; speech and numbers name
# other heads. So compare texts of one length, and of more than one kind.
#
# ## Does this model copy?
#
# Give a trained model random tokens twice. Many models predict the second half far better than the first, although
# they never saw those tokens together. Olsson and others ([arXiv 2209.11895](https://arxiv.org/abs/2209.11895)) argue
# that two kinds of heads do that, one after the other; in small models without feed-forward steps they show it by
# changing the model, for large ones their evidence is correlation.
#
# - a *previous-token head* tells each token which token stands before it;
# - an *induction head* looks for the place *after* an earlier occurrence of the present token, and copies what it
#   finds.
#
# **With a pencil.** The text is `A B C A`. After the first head, each row knows its token and the one before: (A, –),
# (B, A), (C, B), (A, C). The last token, A, asks: "who has *me* before it?" The second row has: B comes next. With a
# score of 3 for a match and 0 otherwise, the weights are $e^3 / (e^3 + 3) = 0.87$ for B and $0.04$ for each of the
# others. In a text of 81 tokens there are many more others, and 3 is too soft: we try 10 as well.
#
# Each head gets a score for each kind: its mean weight one token back; and, in n random tokens said twice, n − 1
# tokens back (in `A B C A B C`, with n = 3, the second A looks at the first B, two tokens back). Two controls: a
# *hand-made* induction head shows what the score would find; and the same places in a text whose second half is
# *shuffled* show what a head gives them anyway.
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


def nats(tokens):                                         # (T - 1,)
    return nl.cross_entropy(nl.forward(tokens, weights, config)[:-1], tokens[1:])


def scores_of(ids, n):
    """Each head's weight one token back and n - 1 back, in the last n tokens: twice (L, H)."""
    trace, asks = trace_of(ids), np.arange(len(ids) - n, len(ids))
    probs = np.stack([trace[f"layers.{i}.attn.probs"] for i in range(config.n_layers)])
    return [probs[..., asks, asks - back].mean(axis=-1) for back in (1, n - 1)]


found = {"said twice": [], "shuffled": []}                # 8 tries, each twice (L, H)
costs, by_hand = [], {3: [], 10: []}
for _ in range(8):
    half = rng.choice(pieces, n, replace=False)
    ids = np.concatenate([[tokenizer.bos], half, half])   # <s> is token 0
    found["said twice"].append(scores_of(ids, n))
    found["shuffled"].append(scores_of(np.concatenate([ids[:n + 1], rng.permutation(half)]), n))
    costs.append(nats(ids))
    asks = np.arange(n + 1, 2 * n + 1)
    for match in by_hand:
        by_hand[match].append(map_by_hand(ids, match)[asks, asks - (n - 1)].mean())
one_back, n_back = np.mean(found["said twice"], axis=0)
shuffled = np.mean(found["shuffled"], axis=0)[1]
best = np.unravel_index(n_back.argmax(), n_back.shape)
print("hand-made induction head: " + ", ".join(
    f"match {match}: {np.mean(scores):.2f}" for match, scores in by_hand.items()))
print(f"best of the model: layer {best[0]} head {best[1]}: {n_back[best]:.2f} said twice, "
      f"{shuffled[best]:.2f} shuffled, {1 / (1.5 * n):.2f} with equal weights")
costs = np.mean(costs, axis=0)
print(f"nats per token: first half {costs[1:n].mean():.1f}, second half {costs[n + 1:].mean():.1f}")

# %%
figure, axes = figures.new(2.8, columns=2)
for ax, scores, title in ((axes[0], one_back, "previous token"), (axes[1], n_back, "induction")):
    figures.matrix(ax, scores, [f"layer {i}" for i in range(config.n_layers)],
                   range(config.n_heads), title, kind=figures.SHARE, numbers=".2f")
    ax.set_xlabel("head")
figures.show(figure, "Two scores for every head on random tokens said twice. Look for dark cells, "
                     "on the left and on the right.")

# %% [markdown]
# Random tokens are strange to this model: a wrong guess costs it far more than the $\ln V = 8.0$ of a guess among all.
# So perhaps the test is unfair. The same with text of its own kind: 60 tokens of a story, once after themselves, once
# after themselves shuffled (five times), once after 60 tokens of another story.

# %%
rng = np.random.default_rng(0)
after, story_scores = [], []
for tokens, following in zip(told, told[1:] + told[:1]):
    part, other = tokens[5:65], following[5:65]
    halves = [part, other] + [list(rng.permutation(part)) for _ in range(5)]
    each = [nats([tokenizer.bos, *half, *part])[70:].mean() for half in halves]   # not the first 10
    after.append([each[0], np.mean(each[2:]), each[1]])
    story_scores.append(scores_of([tokenizer.bos, *part, *part], len(part))[1])
print("nats per token: after themselves {:.2f}, shuffled {:.2f}, another story {:.2f}".format(
    *np.mean(after, axis=0)))
print("shuffled minus themselves, in six stories:", *(f"{x[1] - x[0]:+.2f}" for x in after))
print(f"best induction score on stories: {np.mean(story_scores, axis=0).max():.2f}")

# %% [markdown]
# **Explain.** None of any strength. The hand-made head scores 1.00, or 0.25 when it is as soft as the pencil's; the
# best of the model's 0.07 (head 7 of layer 4), against 0.02 with a shuffled half. The second half costs nearly what
# the first does. On stories no head scores more than 0.03, and still order helps, in six stories of six: by 0.02 to
# 0.13 nats. To have seen the same *words* helps by 0.11.
#
# Several heads look one token back. That is not yet the first of the two steps: such a head must also *write* which
# token it saw, which we did not measure, and those in layers 4 and 5 come too late for head 7 of layer 4.
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
# If that is why they differ in the model, then to take away *only the mean* must cost something, and more than a
# random row of the same length. And there is a third way to ablate: let the step write what it wrote at *another*
# token (*shuffled*; in papers, *resample ablation*). Mean, spread and length are right, and the knowledge is false.
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
orders = [rng.permutation(len(story)) for _ in range(5)]
ways = {"mean": [], "zero": [], "shuffled": [], "only the mean": [], "random": []}
steps = [f"layers.{i}.{step}.out" for i in range(config.n_layers) for step in ("attn", "ffn")]
for name in steps:
    mean = average(name)
    ways["mean"].append(loss(change(name, lambda x: np.zeros_like(x) + mean)) - base)
    ways["zero"].append(loss(change(name, np.zeros_like)) - base)
    costs = [loss(change(name, lambda x: x[order])) - base for order in orders]
    ways["shuffled"].append(np.mean(costs))
    ways["only the mean"].append(loss(change(name, lambda x: x - mean)) - base)
    costs = []
    for _ in range(3):                                    # as long as the mean, in any direction
        away = rng.standard_normal(config.dim).astype(np.float32)
        away *= np.linalg.norm(mean) / np.linalg.norm(away)
        costs.append(loss(change(name, lambda x: x - away)) - base)
    ways["random"].append(np.mean(costs))

dearer = np.sum(np.array(ways["shuffled"]) > ways["mean"])
print(f"shuffled costs more than the mean in {dearer} of {len(steps)} steps")
print("nats per token lost, sum" + "".join(f"{way:>14}" for way in ways))
parts = {"layer 0, feed-forward": slice(1, 2),
         "layers 1 to 4, 8 steps": slice(2, 10), "layer 5, 2 steps": slice(10, 12)}
for label, chosen in parts.items():
    print(f"{label:24}" + "".join(f"{np.sum(costs[chosen]):14.2f}" for costs in ways.values()))

# %% [markdown]
# **Explain.** False knowledge costs more than none (the mean): in each of the 12 steps, as a mean over five
# permutations, and in layer 5 it costs twice as much. Shuffling asks how far a step is *trusted*, not what it is
# worth. (It also keeps the length of the row, which the mean shrinks; this comparison does not separate the two.)
#
# Zero against mean: up to layer 4 the explanation is right in sign. Zero costs more than the mean, by $4.91 - 4.64
# = 0.27$ in layer 0's feed-forward step and by $1.16 - 0.95 = 0.21$ in layers 1 to 4; and to take only the mean away
# costs 0.18 each time. But a random row of the same length costs half of that: so much is not the constant's. In layer
# 5 zero costs no more than the mean. The pencil shows how a constant *can* matter; in this model it is a small part of
# the matter.
#
# ## More features than dimensions
#
# A model has three things to remember, *features*, and two numbers to remember them in. Must it drop one? If the three
# are rarely there at once, no: each gets a direction, and they live with getting in each other's way. That is called
# *superposition* (Elhage and others, [arXiv 2209.10652](https://arxiv.org/abs/2209.10652)), and it is a reason not to
# expect that each neuron means one thing. Here is a toy of it.
#
# **With a pencil.** Three features are 0 or 1, each is 1 with probability p, independently. Each gets a column of W
# (2, 3); we store $h = W x$ and read back $\mathrm{relu}(W^\top h + b)$, with $\mathrm{relu}(z) = \max(0, z)$ and a
# constant b for each feature. The cost is the squared error, summed over the features, on average.
#
# - *Two of three.* $W = \begin{pmatrix} 1 & 0 & 0 \\ 0 & 1 & 0 \end{pmatrix}$: two are read perfectly. The best guess
#   for the third is p, always ($b = (0, 0, p)$), which costs $p(1 - p)$.
# - *Three in two*, with $b = 0$. Three columns of length 1, a third of a turn apart: two different ones have the inner
#   product $-\frac12$. One feature on: it reads 1, the others $-\frac12$, which relu makes 0. **No error.** Two on:
#   each reads $1 - \frac12 = \frac12$, the third $-1$, so 0: the error is $\frac14 + \frac14 = \frac12$. All three:
#   each reads $1 - \frac12 - \frac12 = 0$, error 3. Together $\frac12 \cdot 3 p^2 (1 - p) + 3 p^3$.
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
figures.show(figure, "The columns of W that gradient descent found, one arrow for each feature. "
                     "Which are stars, and which have two arrows back to back?")

# %% [markdown]
# **Explain.** While features are rare, descent *can* find the star of the pencil, turned somehow, and its b saves a
# little more. Not in every try: the median try at $p = 0.05$ has two columns nearly back to back and one across, which
# costs about $2 p^2$ (question 1). At $p = 0.9$ it costs as much as to drop one feature, and what it drops is a
# *combination*: three arrows of unequal length, a tilted plane. Without relu nothing better was found at any p, for
# rare features either: the read-back is then a projection onto a plane, and a plane leaves out one direction of three,
# in all of which independent features vary by $p(1 - p)$. It takes something like relu, which *ignores* small negative
# readings.
#
# Does the real model do this? Nobody tells us which *features* it has: that is why this section is about a toy.
#
# ## What one small model can show
#
# Which of all this would you expect of a Llama of 7 billion parameters?
#
# - **What is exact** holds for any model of this form: a logit is a sum over the embedding, heads and feed-forward
#   steps (at the size that the last norm had), and a head's part is a sum over tokens.
# - **What refutes** needs one case only: "the first place is the sink" is wrong as a law. How often it holds, one model
#   does not say.
# - **What was found here** is one case. Heads 1 and 3 of layer 3 move the pronoun; another training of the same size
#   may divide the work otherwise.
# - **What is missing here**, such as copying, says nothing about longer training, other sizes or other texts.
#
# What carries over is the habit: before you believe a number, think of another explanation that predicts it, and
# measure where the two disagree.
#
# ## In the wild
#
# - **Patching was used on much larger models.** Meng and others ([arXiv 2202.05262](https://arxiv.org/abs/2202.05262))
#   put pieces of one run into another to find where GPT-2 XL keeps facts.
# - **The lens was not enough.** The logit lens comes from a blog post (nostalgebraist, [interpreting GPT: the logit
#   lens](https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens)). On some models it reads
#   little in the middle layers; a map fitted for each layer, the *tuned lens*, reads more (Belrose and others,
#   [arXiv 2303.08112](https://arxiv.org/abs/2303.08112)). Theirs is trained to match the final probabilities, ours the
#   final rows.
# - **Large models lean on their sinks.** Keep only the latest keys in the cache of a Llama 2, and its perplexity jumps
#   to thousands as soon as the first tokens drop out; keep four of them, and all is well. Four line breaks in front did
#   nearly as well, so the authors conclude that the *place* counts (Xiao and others,
#   [arXiv 2309.17453](https://arxiv.org/abs/2309.17453)). But in Llama 2 the first line break or full stop can be a
#   sink by itself (Sun and others, [arXiv 2402.17762](https://arxiv.org/abs/2402.17762)): a line break is no neutral
#   control.
# - **Induction heads arrive late, and suddenly.** In models of very different sizes they formed in one short stretch
#   of training, after billions of tokens, and copying in context appeared with them (Olsson and others, as above).
#   Whether ours was trained for too short a time, only a longer training would show.
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
# ### 3. Hold one direction
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
# ## In five lines
#
# 1. A lens may miss what is there, and a fitted map may know what the row does not: give the map random rows as well.
# 2. A logit splits exactly into embedding, heads and feed-forward steps; a share is no proof of an effect.
# 3. Counter-prompts say what a value changes: from two heads, the answer takes the pronoun's gender, not the noun.
# 4. Zero takes away knowledge and a constant, the mean only knowledge, another token's value puts in false knowledge.
# 5. What large models do is a question to ask of yours: this one has sinks of another kind, and hardly copies.
