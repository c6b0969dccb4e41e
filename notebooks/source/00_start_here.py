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
# # 0. Start here
#
# | | |
# | --- | --- |
# | **The question** | What happens between a prompt and its next token? |
# | **You will be able to** | compute the smallest language model by hand; run a Llama on a prompt and read its answer; name every step on the way and the shape of what it makes; watch, record or change any number inside |
# | **It assumes** | matrix multiplication; Python with NumPy arrays |
# | **Minutes** | 75 |
#
# A Llama is a function. Token ids go in, and for every token of the vocabulary a number comes out that says how well
# it would do as the next one. This course computes that function step by step, with one file of NumPy,
# [numpy_llama.py](../numpy_llama.py), and a small model that was trained on fairy tales.
#
# At each **Predict**, stop and write down a guess. Run the cell (Shift+Enter), and compare with the **Explain** below
# it. Then change a number in the cell, and run it again.
#
# In this lesson T is the number of tokens, D how many numbers the model keeps for each of them, and V the number of
# tokens in the vocabulary.

# %% tags=["hide"]
import textwrap
from pathlib import Path

import checks
import figures
import ipywidgets
import numpy as np
import numpy_llama as nl
import pencil
from course import STORY, loss

check = checks.lesson("00")

# %% [markdown]
# ## The smallest language model, by hand
#
# Take a vocabulary of three tokens, *the* (id 0), *king* (1) and *laughed* (2), and D = 2. Every token has a row of D
# numbers, its *embedding*, and a column of D numbers: the better a row fits the column (row times column), the more
# that token is expected next.
#
# $$\text{embedding} = \begin{pmatrix} 1 & 0 \\ 0 & 1 \\ 1 & 1 \end{pmatrix} \qquad
# \text{output} = \begin{pmatrix} 0 & 2 & 0 \\ 0 & 0 & 1 \end{pmatrix}$$
#
# The prompt is *the king*, the ids 0 and 1.
#
# 1. *Look up.* The rows of 0 and 1: $(1, 0)$ and $(0, 1)$.
# 2. *Compare with every token.* Row times output: $(0, 2, 0)$ and $(0, 0, 1)$. These are the *logits*: any numbers, one
#    for each token of the vocabulary. Row t predicts what follows token t.
# 3. *Make probabilities of them.* *Softmax* takes the exponential of each number of a row and divides by their sum. For
#    the last row: $e^0 = 1$, $e^0 = 1$, $e^1 = 2.72$, sum $4.72$, so $0.21, 0.21, 0.58$.
# 4. *Choose.* Take the largest, or draw one by these probabilities. Put it behind the prompt, and start again.
#
# **Predict.** The first row expects *king* after *the*. With about which probability: 40, 60 or 80 percent?

# %%
embedding = np.array([[1, 0], [0, 1], [1, 1]])            # (V, D)
output = np.array([[0, 2, 0], [0, 0, 1]])                 # (D, V)

x = embedding[[0, 1]]                                     # (T, D): "the king"
toy_logits = x @ output                                   # (T, V)
e = np.exp(toy_logits)
toy_probs = e / e.sum(axis=1, keepdims=True)
print("         the  king laughed")
for word, row in zip(("the", "king"), toy_probs):
    print(f"{word:6}", row.round(2))

# %% [markdown]
# **Explain.** $e^2 / (1 + e^2 + 1) = 0.79$. This model has a flaw: what it expects after *king* is the
# same in every text, as row t knows nothing but token t. A Llama does the same four things, and puts *layers* between 1
# and 2. Each layer adds something to every row: what the tokens before it say, and what can be concluded from that.
#
# ## A Llama for pencil
#
# A Llama that mends this flaw can be small: V 4, D 2 and one layer. Its tokens are `<s>` (a text begins), *cats*,
# *dogs* and *and*; its weights are whole or half numbers, set by hand. After *cats and* it says *dogs*, after *dogs
# and* it says *cats*. The last token is the same in both prompts, so its row must find out what stood before.
#
# **Predict.** A prompt of three tokens has three rows of predictions. Which of them can differ between `<s>` *cats
# and* and `<s>` *dogs and*: all three, the last two, or the last one only?

# %%
print("after           " + "".join(f"{name:>7}" for name in pencil.NAMES))
for ids in ([0, 1, 3], [0, 2, 3]):
    rows = nl.softmax(nl.forward(ids, pencil.weights, pencil.config))    # (T, V): then step 3
    for n, row in enumerate(rows, start=1):
        seen = " ".join(pencil.NAMES[i] for i in ids[:n])
        print(f"{seen:16}" + "".join(f"{p:7.2f}" for p in row))

# %% [markdown]
# **Explain.** The last two: `<s>` sees nothing but itself. The row of *and* starts from the same two numbers in both
# prompts, and ends at *dogs* in one and at *cats* in the other. What tells it which noun stands before it is
# *attention* (lesson [03](03_attention.ipynb) takes it away, and then both prompts give the same).
#
# The [handout](handout.pdf) has this run on a page: every step with blanks on the left, the solution on the right, to
# be folded back. It takes about three quarters of an hour (not counted above), now or bit by bit: lessons 02 to 07
# come back to its steps. Its second page lists every symbol and name of a Llama.
#
# ## From a prompt to its next token
#
# **Predict.** "Once upon a time there was a king who": which word comes next? Which others might?
#
# This is the whole way, with the trained model. Before 1 to 4, the *tokenizer* cuts the text into *pieces* that it
# knows, and gives each its id.

# %%
folder = Path(nl.__file__).parent / "weights" / "fairytales"
weights, config = nl.load(folder)                         # what was learned, and the sizes
tokenizer = nl.Tokenizer(folder / "tokenizer.model")

prompt = "Once upon a time there was a king who"
tokens = tokenizer.encode(prompt)                         # text -> T ids
logits = nl.forward(tokens, weights, config)              # (T,) -> (T, V): the model
probs = nl.softmax(logits[-1])                            # (V,): after the last token
for i in np.argsort(-probs)[:5]:
    print(f"{probs[i]:6.1%}  {tokenizer.decode([int(i)])}")

# %% [markdown]
# Every row of the logits is a prediction of its own: row t has seen the tokens up to t, and nothing after.

# %%
print(f"T {len(tokens)}, V {config.vocab_size}; logits {logits.shape}")
print("id    piece       the likeliest next piece")
for i, piece, row in zip(tokens, figures.pieces(tokenizer, tokens), nl.softmax(logits)):
    guess = figures.pieces(tokenizer, [row.argmax()])[0]
    print(f"{i:<5} {piece!r:11} {guess!r:11} {row.max():4.0%}")

# %% [markdown]
# **Explain.** *a* stands twice in the prompt, with the same id, and the rows after it differ: after *upon a* the model
# is sure of *time*, after *there was a* it is not sure of *king*. So a row depends on more than its own token. A space
# belongs to the piece that follows it. The tokenizer puts one before the first word too, and `<s>` before that: a text
# begins (lesson [01](01_tokens.ipynb)).
#
# In a picture: the best eight pieces after *there was a* (`' w'` begins a longer word). `figures` draws for this
# course; skip its lines.

# %%
def after(n):
    """What the model expects after the first n tokens of the prompt."""
    probs = nl.softmax(logits[n - 1])
    best = np.argsort(-probs)[:8]
    names = [repr(piece) for piece in figures.pieces(tokenizer, best)]
    figure, ax = figures.new(2.6)
    figures.bars(ax, dict(zip(names, probs[best])), ".1%")
    ax.set(xlim=(0, 1), xlabel="probability", title=f"{tokenizer.decode(tokens[:n])} …")
    figures.show(figure, f"The eight likeliest of V {config.vocab_size} pieces after {n} tokens.")


after(8)

# %% [markdown]
# The slider moves through the prompt; it needs a running kernel (JupyterLab).

# %% tags=["sliders"]
ipywidgets.interact(after, n=(1, len(tokens)));

# %% [markdown]
# And this is 1 to 4 again and again: a story, one token at a time. The seed, 3, fixes what is drawn; change it. (A
# temperature below 1 makes the likeliest token likelier still: lesson [10](10_objective_and_sampling.ipynb).)

# %%
new = nl.generate(tokens, weights, config, 60, np.random.default_rng(3), temperature=0.8)
print(textwrap.fill(tokenizer.decode(tokens + list(new)), 88))

# %% [markdown]
# It sounds like a tale that goes nowhere. A large Llama 2 is the same function with larger matrices and more layers,
# trained on far more text.
#
# ## The whole model, from a run
#
# The rows of D numbers, one for each token, run through the whole model as its *residual stream*. Layers read them and
# *add* to them, as if each token had a sheet of notes that is passed on, and everybody writes something more on it. A
# layer does so in two halves, called *steps* from here on: attention, where tokens read each other, and the
# feed-forward step, where each token is worked on by itself.
#
# A *trace* is the record of one run: every value on the way under its name, in the order in which it was computed.

# %%
trace = nl.Trace()
nl.forward(tokens, weights, config, tap=trace)
print(f"{len(trace)} values recorded, {sum(x.size for x in trace.values()):,} numbers")
for name in list(trace)[:4] + list(trace)[-2:]:
    print(f"{name:20} {trace[name].shape}")

# %% [markdown]
# The drawing is made from that trace; read it from the top.

# %%
figure = figures.stream(trace, config)
figures.show(figure, "The thick line is the residual stream, a row of D numbers for each token. "
                     "Attention, then the feed-forward step, read it and add to it; the next layer "
                     "does the same again.")

# %% [markdown]
# - Green: in and out. `embedding` looks up a row for each id; `logits` compares what has become of it with every
#   piece of the vocabulary.
# - Yellow: norms, which bring a row to a standard size.
# - Blue: attention. Each token asks with a *query* (`q`), is found by its *key* (`k`) and hands over its *value*
#   (`v`); the darker boxes say who reads how much of whom. H *heads* do this side by side.
# - Orange: rotations, by which a token's position comes in.
# - Pink: the feed-forward step.
#
# **Explore** ([explorer](explorer/README.md)). Every box of this drawing with its numbers. It opens at the logit of
# *had*: choose an underlined number to see where it comes from. Then type a text of your own. In a terminal, in the
# folder of `numpy_llama.py` (`9` is the row of *who*, counted from 0; `345` the id of *had*):
#
#     python notebooks/explorer/build.py --open "#t=logits&i=9.345"
#
# The letters: T tokens read S tokens (here the same ones). D numbers in a row of the stream, F in the middle of the
# feed-forward step, V pieces in the vocabulary, H query heads and G key/value heads of d numbers each, L layers. Here
# they are, with the parameters (numbers that were learned), for this model and two that were published:

# %%
print("              " + "".join(f"{letter:>7}" for letter in "DFVHGdL") + "     parameters")
for name, c in (("this model", config), ("llama-2-7b", nl.PRESETS["llama-2-7b"]),
                ("llama-2-70b", nl.PRESETS["llama-2-70b"])):
    sizes = (c.dim, c.hidden_dim, c.vocab_size, c.n_heads, c.n_kv_heads, c.head_dim, c.n_layers)
    row = "".join(f"{size:7}" for size in sizes)
    print(f"{name:13} {row} {sum(nl.parameter_counts(c).values()):15,}")

# %% [markdown]
# ## Taps: watch, record, change
#
# The model passes each value through a *tap*, and goes on with what the tap returns. At its end, numpy_llama.py says
# `return tap("logits", x @ weights["output"])`; inside a layer, the model puts `layers.0.` and so on in front of the
# name before it calls the tap.
#
# A tap is any function `(name, x) -> x`. It may look at x, keep it, or return something else. `nl.Trace` is a
# dictionary that can be called as a tap. Here is one that watches:

# %%
def watch(name, x):
    if name.startswith("layers.2.ffn."):
        print(f"{name:20} {str(x.shape):10} largest size {np.abs(x).max():5.1f}")
    return x                                              # the model goes on with this


same = nl.forward(tokens, weights, config, tap=watch)
print("the logits are the same:", np.array_equal(same, logits))

# %% [markdown]
# The next tap changes values: it *silences* steps, setting what they would add to the stream to zero.
#
# **Predict.** Write *wolf* instead of *king*. Both prompts end with *who*, and the rows of logits after it differ. If
# all attention steps are silenced, do they still differ? And if all feed-forward steps are silenced instead?

# %%
def silence(chosen):
    """A tap that sets the values whose names are in the list `chosen` to zero."""
    def tap(name, x):
        if name in chosen:
            return np.zeros_like(x)
        return x
    return tap


steps = [name for name in trace if name.endswith(".out")]
groups = {"none": [], "attention": [name for name in steps if "attn" in name],
          "feed-forward": [name for name in steps if "ffn" in name]}
other = tokenizer.encode(prompt.replace("king", "wolf"))      # T ids again, all but one the same
for kind, chosen in groups.items():
    king = nl.forward(tokens, weights, config, tap=silence(chosen))[-1]
    wolf = nl.forward(other, weights, config, tap=silence(chosen))[-1]
    print(f"silenced: {kind:13} the two rows differ by at most {np.abs(king - wolf).max():.2g}")

# %% [markdown]
# **Explain.** Without attention the two rows are equal, without the feed-forward steps they still differ. So it is
# attention that lets *who* read what stands before it.
#
# **Predict.** In the end each row of the stream is the sum of the embedding and what 12 steps, two in each of 6 layers,
# added. They are silenced one at a time. For how many of the 12 does *had* lose the first place: for 1, 4 or 10?

# %%
favourite = int(probs.argmax())
left = {"nothing silenced": probs[favourite]}
for name in steps:
    changed = nl.softmax(nl.forward(tokens, weights, config, tap=silence([name]))[-1])
    left[f"without {name}"] = changed[favourite]
    if changed.argmax() != favourite:
        print("another word becomes the favourite without", name)

figure, ax = figures.new(3.6)
figures.bars(ax, left, ".0%")
ax.set(xlim=(0, 1), xlabel=f'probability of "{tokenizer.decode([favourite])}"')
figures.show(figure, "One step silenced at a time, and what is left of the probability of the "
                     "favourite: next to nothing without the first feed-forward step.")

# %% [markdown]
# **Explain.** For one, the first feed-forward step. Whichever other step is silenced, *had* keeps 49 to 62 percent.
#
# One prompt is an anecdote. On a whole story one measures the *loss*, in *nats*: the mean of −log of the probability
# that the model gave to each right next token (lesson [10](10_objective_and_sampling.ipynb)). A model that finds all V
# tokens equally likely has a loss of log V; 0.1 nats more make each right token a tenth less likely, on average.
# `loss(tap)` computes it on a story that the model has never read (`STORY` in [course.py](course.py)).

# %%
base = loss()
print(f"loss on the story ({len(tokenizer.encode(STORY))} tokens) {base:.2f}; "
      f"log V {np.log(config.vocab_size):.2f}; all steps silenced {loss(silence(steps)):.2f}")
for name in steps:
    print(f"without {name:18} {loss(silence([name])) - base:+.2f}")

# %% [markdown]
# **Explain.** With none of the steps, the loss is above log V: worse than an even guess. The right token gets about a
# quarter of 1/V ($e^{-1.41} = 0.24$, a geometric mean). One at a time, seven cost at most 0.14 nats, four 0.23 to 0.63,
# and the first feed-forward step 4.91. (One story carries the large gaps, not the order of the small ones.) Why does so
# much hang on that step? First, how long are the rows that each step adds?

# %%
def median_length(rows):
    return np.median(np.linalg.norm(rows, axis=1))


story_trace = nl.Trace()
nl.forward(tokenizer.encode(STORY), weights, config, tap=story_trace)
stream = story_trace["embedding"]
print("median length of the T rows:   in the stream    added")
for name in steps:
    print(f"{name:30} {median_length(stream):13.1f} {median_length(story_trace[name]):8.1f}")
    stream = stream + story_trace[name]

# %% [markdown]
# In the median, the first feed-forward step adds rows nearly thirty times as long as those it finds, every later step
# shorter ones. Do the later steps still see the embedding? Subtract it from the stream again. Two controls: subtract
# the embedding of the token before (the *neighbour*), as any row of that size may do the same harm; and put the
# neighbour's in the place of the own, so that as much is left. Do each before that step, at `layers.0.x_attn` (the
# stream once attention has added to it), and after it, at `layers.0.x_ffn`. A change at the first reaches the step and
# all that follows, one at the second only what follows: what the first costs and the second does not goes through the
# step.
#
# **Predict.** Silencing the step raised the loss from 2.1 to 7.0. Which of the six come near that, or above?

# %%
def subtract_embedding(place, change):
    """A tap that subtracts each token's embedding or its neighbour's, or swaps them."""
    taken = {}

    def tap(name, x):
        if name == "embedding":
            before = np.concatenate([np.zeros_like(x[:1]), x[:-1]])     # nothing stands before <s>
            taken["own out"] = x
            taken["neighbour out"] = before
            taken["own out, neighbour in"] = x - before
        if name == place:
            return x - taken[change]
        return x
    return tap


for place in ("layers.0.x_attn", "layers.0.x_ffn"):
    for change in ("own out", "neighbour out", "own out, neighbour in"):
        print(f"at {place:15} {change:21} loss {loss(subtract_embedding(place, change)):.2f}")

# %% [markdown]
# **Explain.** Before the step, the token's own embedding costs almost as much as the step itself (6.80), its
# neighbour's a tenth of that (2.56, up from 2.12). Nor is it that too little is left: with the neighbour's put in its
# place, the loss is 8.24. After the step, none of the three changes the second decimal. So the step reads the
# embedding, and what it writes drowns it: every later step first brings the whole row to a standard size (the yellow
# boxes), and beside a row of length 40 one of 1.4 shrinks to almost nothing. What the later layers know of the token,
# they have from what this step wrote (the first attention's row costs 0.03). Silence the step, and it no longer drowns
# the embedding; but the later layers were trained on what this step writes, and do little with a bare embedding (7.0).
# Another model may divide the work otherwise.
#
# ## A map of the course
#
# <!-- lessons -->
#
# If you have two hours, read this lesson and [attention](03_attention.ipynb), and leave the exercises for later. If
# you port Llama to another language, read "In the wild" from lesson 01 on: it lists what ports get wrong. The folder
# `student` holds the lessons without solutions and outputs, so that nothing spoils a prediction.
#
# ## In the wild
#
# - **How to get the hidden state of the last layer** was asked of Meta's own code
#   ([llama#909](https://github.com/meta-llama/llama/issues/909)). Here `tap=nl.Trace()` keeps every value;
#   this one is `layers.5.x_ffn`, or `norm` after the last norm.
#
# ## Questions
#
# **1.** Pencil: the prompt of the smallest model is *laughed the*. What are the two rows of logits, and what comes
# next?
#
# <details>
# <summary>Answer</summary>
#
# *laughed* is $(1, 1)$, so its logits are $(0, 2, 1)$; *the* gives $(0, 2, 0)$ as before. The next token follows the
# last row: *king*, with probability $0.79$, whatever stands before *the*.
#
# </details>
#
# **2.** All logits of a row are raised by 5. Which probabilities change? And if they are doubled instead?
#
# <details>
# <summary>Answer</summary>
#
# Raised: none. Each exponential is multiplied by the same $e^5$, and so is their sum. Doubled: unless all are equal,
# the likeliest token becomes likelier still, as the differences between logits double. The order stays in both cases.
#
# </details>
#
# **3.** The drawing shows T rows going in and T rows of logits coming out. To continue a prompt one needs the last row
# only. What are the others good for?
#
# <details>
# <summary>Answer</summary>
#
# In training, each row but the last is compared with the token that did follow: T − 1 lessons from one text.
# And later tokens look at what earlier rows have become, through attention.
#
# </details>
#
# ## Exercises
#
# From easy (★) to hard (★★★). Fill in each function; `check(f)` runs it on several inputs, and says what a wrong answer
# looks like; `check(f, hint=1)` gives a hint. The solution is folded below it.
#
# ### 1. The rank of a token
#
# Was the next token a surprise? Its *rank* says so: 1 if the model finds it the likeliest after the last token, 2 if
# one other token is likelier, and so on. (No two logits are equal here.)

# %% tags=["exercise"]
def rank_of(token, logits):
    """The rank of a token id after the whole prompt, 1 for the likeliest: id, (T, V) -> number."""
    ...

# %%
check(rank_of)

# %% tags=["solution"]
def rank_of(token, logits):
    last = logits[-1]                                     # softmax would keep the order
    return int(np.sum(last > last[token])) + 1

# %% [markdown]
# ### 2. A tap that keeps some values
#
# A whole trace of a large model is large. Write `keep_only(names)`: it returns an empty dictionary, and a tap that
# fills it with those values whose name is in the list `names`. The model must run as if nothing were there.

# %% tags=["exercise"]
def keep_only(names):
    """A dictionary, and the tap that fills it: list of names -> (kept, tap)."""
    ...

# %%
check(keep_only)

# %% tags=["solution"]
def keep_only(names):
    kept = {}

    def tap(name, x):
        if name in names:
            kept[name] = x
        return x                                          # whether it was kept or not
    return kept, tap

# %% [markdown]
# ### 3. A story without luck
#
# Always take the likeliest token, put it behind the others, and go on, n times. `forward` is a function
# (T,) -> (T, V). Return the new ids only, as a list.

# %% tags=["exercise"]
def continue_greedily(tokens, n, forward):
    """The n next ids, each the likeliest after all before it: (list, n, function) -> list."""
    ...

# %%
check(continue_greedily)

# %% tags=["solution"]
def continue_greedily(tokens, n, forward):
    new = []
    for _ in range(n):
        new.append(int(np.argmax(forward(tokens + new)[-1])))
    return new

# %% [markdown]
# With your function, `continue_greedily(tokens, 20, lambda ids: nl.forward(ids, weights, config))` tells a story. It is
# slow: the whole text goes through the model for each new token (lesson [09](09_decoding_and_cache.ipynb) mends that).
#
# ## In five lines
#
# 1. A Llama turns T token ids into T rows of V logits; row t predicts the token after t.
# 2. Softmax makes probabilities of a row; take or draw a token, append it, and start again.
# 3. Every layer reads the residual stream twice, and adds twice: attention, then feed-forward.
# 4. Every value has a name, and passes through a tap that may watch, record or change it.
# 5. Silenced alone, on one story, no other step of this model costs nearly as much as the first feed-forward step,
#    which drowns the embedding that it has read.
