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
# | **You will be able to** | run a Llama on a prompt and read its answer; name every step on the way and the shape of what it makes; watch, record or change any number inside |
# | **It assumes** | matrix multiplication; Python with NumPy arrays |
# | **Minutes** | 20 |
#
# A Llama is a function. Token ids go in, and for every token of the vocabulary a number comes out that says how well it
# would do as the next one. This course computes that function step by step, with one file of NumPy,
# [numpy_llama.py](../numpy_llama.py), and a small model that was trained on fairy tales. Nothing needs to be
# downloaded, and no step is hidden.
#
# T new tokens, S tokens seen so far, D model width, F feed-forward width, V vocabulary, H query heads,
# G key/value heads, d head width, L layers. These nine letters mean the same everywhere.

# %% tags=["hide"]
import re
import textwrap
from pathlib import Path

import checks
import figures
import ipywidgets
import numpy as np
import numpy_llama as nl
from IPython.display import Markdown, display

check = checks.lesson("00")

# %% [markdown]
# ## From a prompt to its next token
#
# **Predict.** "Once upon a time there was a king who": which word comes next? Which others might?
#
# This is the whole way from text to text.

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
# **Explain.** There are four steps, and each is a topic of its own.
#
# 1. *Text to ids.* The tokenizer cuts the text into pieces that it knows, and each piece has a number.
# 2. *Ids to logits.* The model turns T ids into T rows of V numbers, the *logits*. Any numbers, also negative ones.
# 3. *Logits to probabilities.* Softmax makes a row positive and lets it sum to 1.
# 4. *Probabilities to a token.* Take the largest, or draw one. Put it behind the prompt, and start again.
#
# Here are the ids, and what the model expects after each of them. Every row of the logits is a prediction of its own:
# row t has seen the tokens up to t, and nothing after.

# %%
print(f"T {len(tokens)}, V {config.vocab_size}; logits {logits.shape}")
print("id    piece       the likeliest next piece")
for i, piece, row in zip(tokens, figures.pieces(tokenizer, tokens), nl.softmax(logits)):
    guess, = figures.pieces(tokenizer, [row.argmax()])
    print(f"{i:<5} {piece!r:11} {guess!r:11} {row.max():4.0%}")

# %% [markdown]
# The first token, `<s>`, says that a text begins. A space belongs to the piece that follows it.
#
# In pictures: the best eight pieces after the whole prompt.

# %%
def after(n):
    """What the model expects after the first n tokens of the prompt."""
    probs = nl.softmax(logits[n - 1])
    best = np.argsort(-probs)[:8]
    figure, ax = figures.new(2.6)
    figures.bars(ax, dict(zip(map(repr, figures.pieces(tokenizer, best)), probs[best])), ".1%")
    ax.set(xlim=(0, 1), xlabel="probability", title=f"{tokenizer.decode(tokens[:n])} …")
    figures.show(figure, f"The eight likeliest of V {config.vocab_size} pieces after {n} tokens; "
                         f"together they hold {probs[best].sum():.0%}.")


after(len(tokens))

# %% [markdown]
# Some lessons have sliders. They need a running kernel (JupyterLab), and the figure above each of them shows what it
# draws, so that a page without a kernel loses little. This one moves through the prompt.

# %% tags=["sliders"]
ipywidgets.interact(after, n=(1, len(tokens)));

# %% [markdown]
# And this is step 4 again and again: a story, one token at a time. The seed fixes what is drawn; change it.

# %%
new = nl.generate(tokens, weights, config, 60, np.random.default_rng(3), temperature=0.8)
print(textwrap.fill(tokenizer.decode(tokens + list(new)), 88))

# %% [markdown]
# It is a small model. It knows how tales sound, and does not know where they are going. A large Llama is the same
# function with larger matrices, trained on far more text.
#
# ## The whole model, from a run
#
# The model is a chain of steps, and each has a name. A *trace* is the record of one run: every value under its name, in
# the order in which it was computed.

# %%
trace = nl.Trace()
nl.forward(tokens, weights, config, tap=trace)
print(f"{len(trace)} values recorded, {sum(x.size for x in trace.values()):,} numbers")
for name in list(trace)[:4] + list(trace)[-2:]:
    print(f"{name:20} {trace[name].shape}")

# %% [markdown]
# The drawing below is made from that trace: the shapes in it are those of the run above. Read it from top to bottom.

# %%
figure = figures.wiring(trace, config)
figures.show(figure, "The black line is the residual stream: a row of D numbers for each token. "
                     "Attention (upper half of a layer) and the feed-forward step (lower half) "
                     "read it and add to it.")

# %% [markdown]
# - Green: in and out. `embedding` looks up a row of D numbers for each id; `logits` compares what has become of it
#   with every piece of the vocabulary (lessons [01](01_tokens.ipynb) and [10](10_objective_and_sampling.ipynb)).
# - Yellow: norms, which bring a row to a standard size (lesson [02](02_rmsnorm.ipynb)).
# - Orange: rotations, by which a token's position comes in (lesson [04](04_rope.ipynb)).
# - Blue: attention, the only place where tokens see each other (lessons [03](03_attention.ipynb) and
#   [05](05_grouped_query_attention.ipynb)).
# - Purple: the feed-forward step, where each token is worked on by itself (lesson [06](06_swiglu.ipynb)).
#
# The letters, with their values here and in two published models:

# %%
shown = {"this model": config, **{name: nl.PRESETS[name] for name in ("llama-2-7b", "llama-2-70b")}}
fields = {"D": "dim", "F": "hidden_dim", "V": "vocab_size", "H": "n_heads", "G": "n_kv_heads",
          "d": "head_dim", "L": "n_layers"}
print(" " * 12, "".join(f"{letter:>7}" for letter in fields), "     parameters")
for name, c in shown.items():
    row = "".join(f"{getattr(c, field):7}" for field in fields.values())
    print(f"{name:12} {row} {sum(nl.parameter_counts(c).values()):15,}")

# %% [markdown]
# ## Taps: watch, record, change
#
# How does a trace get at the values? The model passes each of them through a *tap*, and goes on with what the tap
# returns. For the rotated queries, numpy_llama.py says `q = tap("q_rope", rope(q, cos, sin))`.
#
# A tap is any function `(name, x) -> x`. It may look at x, keep it, or return something else. `nl.Trace` is a
# dictionary that can be called as a tap. Here is one that watches:

# %%
def watch(name, x):
    if name.startswith("layers.2.ffn."):
        print(f"{name:20} {str(x.shape):10} largest number {np.abs(x).max():5.1f}")
    return x                                              # the model goes on with this


same = nl.forward(tokens, weights, config, tap=watch)
print("the logits are the same:", np.array_equal(same, logits))

# %% [markdown]
# And here is one that changes: it silences one step, so that nothing is added to the stream there.
#
# **Predict.** The model has L layers of two steps each, attention and feed-forward. How many of these 12 steps can be
# silenced, one at a time, before it no longer says its favourite word?

# %%
def silence(chosen):
    return lambda name, x: np.zeros_like(x) if name == chosen else x


favourite = int(probs.argmax())
left, lost = {"all steps": probs[favourite]}, []
for name in trace:
    if name.endswith(".out"):
        changed = nl.forward(tokens, weights, config, tap=silence(name))
        left[f"without {name}"] = nl.softmax(changed[-1])[favourite]
        if changed[-1].argmax() != favourite:
            lost.append(name)
print(f"{len(left) - 1} steps; another word becomes the favourite without: {', '.join(lost)}")

figure, ax = figures.new(3.6)
figures.bars(ax, left, ".0%")
ax.set(xlim=(0, 1), xlabel=f'probability of "{tokenizer.decode([favourite])}"')
figures.show(figure, "One step silenced at a time: without the first feed-forward step nothing is "
                     "left; without any other, the favourite stays the favourite.")

# %% [markdown]
# **Explain.** The stream is a sum, so most steps can be missed here: the others are still in it. The first feed-forward
# step cannot, as every later step reads what it has written. One prompt is an anecdote; later lessons measure such
# losses on a whole story.
#
# ## How to read a lesson
#
# - **Predict.** Stop there, and write down a guess. A wrong guess is what makes the answer stick.
# - **Run** the cell (Shift+Enter), then change a number in it and run it again.
# - **Explain.** Compare with the paragraph after it.
# - **Exercises** come at the end, from easy to hard. You fill in a function, and `check` says what a wrong answer
#   looks like. The solution is folded below it. The folder `student` holds the same lessons without solutions and
#   without outputs, so that nothing spoils a prediction.
#
# ## A map of the course
#
# The first lessons go through the model part by part; lesson [07](07_forward_pass.ipynb) puts it together; the later
# ones are about using, training and storing it.
#
# <!-- lessons -->
#
# For one hour, read this lesson and then [attention](03_attention.ipynb). To port Llama to another language, read
# "In the wild" in each lesson: it lists what ports get wrong.
#
# ## In the wild
#
# - **"How do I get the hidden states?"** was asked of Meta's own code, more than once
#   ([llama#909](https://github.com/meta-llama/llama/issues/909),
#   [llama#921](https://github.com/meta-llama/llama/issues/921)). Here it is one argument, `tap=nl.Trace()`.
# - **Lessons that no longer run.** Dependencies change under them
#   ([picoGPT#16](https://github.com/jaymody/picoGPT/issues/16),
#   [ARENA_3.0#146](https://github.com/callummcdougall/ARENA_3.0/issues/146),
#   [annotated-transformer#124](https://github.com/harvardnlp/annotated-transformer/issues/124)). These lessons compute
#   with NumPy, are run again whenever something changes, and a printed digit that differs fails that run.
# - **Saved sliders** break how a notebook is shown
#   ([codespaces-jupyter#610](https://github.com/github/codespaces-jupyter/issues/610)). That is why none is saved here,
#   and why a figure stands above each.
#
# ## Exercises
#
# Fill in each function; `check` runs it on several inputs, and says what a wrong answer looks like.
#
# ### 1. The next token

# %% tags=["exercise"]
def most_likely_next(logits):
    """The id that the model finds likeliest after the last token: (T, V) -> one id."""
    ...

# %%
check(most_likely_next)

# %% tags=["solution"]
def most_likely_next(logits):
    return np.argmax(logits[-1])                          # softmax would keep the order

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
# slow, as the whole text goes through the model for each new token; lesson
# [09](09_decoding_and_cache.ipynb) shows what to do about it.
#
# ## In five lines
#
# 1. A Llama turns T token ids into T rows of V logits; row t predicts the token after t.
# 2. Softmax makes probabilities of a row; take or draw a token, append it, and start again.
# 3. Every layer reads the residual stream twice, and adds twice: attention, then feed-forward.
# 4. Every value has a name, and passes through a tap that may watch, record or change it.
# 5. Predict before you run; a wrong guess is worth more than a right answer that was read.
