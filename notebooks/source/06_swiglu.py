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
# # 6. SwiGLU: the gated feed-forward step
#
# | | |
# | --- | --- |
# | **The question** | What does each token do by itself, once attention has brought it what it needs? |
# | **You will be able to** | compute SwiGLU by hand and from three matrices; say what a gate adds to an activation; work out F for every Llama; find a neuron with a name, and test whether the name holds |
# | **It assumes** | lessons [02](02_rmsnorm.ipynb) and [03](03_attention.ipynb); the sigmoid $\sigma(x) = 1 / (1 + e^{-x})$ |
# | **Minutes** | 60 |
#
# T tokens, D model width, F feed-forward width, V vocabulary, L layers.

# %% tags=["hide"]
import math

import checks
import figures
import ipywidgets
import numpy as np
import pencil
from course import STORY, config, exact, loss, nl, tokenizer, weights

check = checks.lesson("06")

# %% [markdown]
# ## The other half of a layer
#
# Attention moves information from token to token. The *feed-forward step* moves nothing: it takes each token's row of D
# numbers and works on it alone, with the same matrices for every token. Think of it as F small rules of the form
#
# > *if* the row looks like this, *then* add that to it.
#
# A rule is called a *neuron*. It measures "looks like this" by a dot product of the row with D learned numbers, and
# "that" is another row of D learned numbers. The result of all F neurons is added up.
#
# The *if* matters. Without it the step would be two matrix products, $(xA)B$, and those are one: $x(AB)$. However large
# F is, such a step does no more than a single D × D matrix. So something between the two has to bend: an *activation*.
# The GLU paper (section 1) writes down three:
#
# $$\mathrm{ReLU}(x) = \max(x, 0), \qquad \mathrm{GELU}(x) = x\,\Phi(x), \qquad \mathrm{Swish}_\beta(x) = x\,\sigma(\beta x)$$
#
# σ is the sigmoid, Φ the cumulative distribution function of the normal distribution: both rise from 0 to 1. Swish with
# β = 1 is also called *SiLU*.
#
# **Predict.** σ(0) is 1/2. What is Swish at β = 0: 0, x/2 or x? And which of the others does it approach as β grows?

# %%
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def swish(x, beta=1.0):
    return x * sigmoid(beta * x)


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


axis = np.linspace(-5, 5, 201)
lowest = swish(axis).argmin()
print(f"Swish is smallest at x = {axis[lowest]:.2f}: {swish(axis)[lowest]:.2f}")
for value in (-4.0, -1.0, 0.0, 1.0, 4.0):
    print(f"Swish({value:+.0f}) = {swish(value):+.2f}")


def draw(beta):
    figure, ax = figures.new(2.9)
    curves = {"ReLU": np.maximum(axis, 0), "GELU": gelu(axis),
              f"Swish, β {beta:g}": swish(axis, beta)}
    for label, y in curves.items():
        ax.plot(axis, y, label=label)
    ax.legend(loc="upper left")
    ax.set(xlabel="x", ylim=(-1.2, 5))
    figures.show(figure, "All three pass large positive numbers and hold negative ones back, but "
                         "GELU and Swish dip a little below zero on the way.")


draw(1.0)

# %% tags=["sliders"]
ipywidgets.interact(draw, beta=(0.0, 8.0, 0.5));

# %% [markdown]
# **Explain.** At β = 0 the sigmoid is 1/2 everywhere, so Swish is x/2, a straight line. For large β the sigmoid jumps
# from 0 to 1, and Swish becomes ReLU. At β = 1 it holds negative numbers back but does not erase them. We shall see
# that this matters.
#
# ## A gate
#
# In the plain form, the number that decides *if* is also the number that says *how much*. A *gated linear unit* asks
# two questions instead: the *gate* decides, the *up* says how much, and the two answers are multiplied (section 2,
# equations 5 and 6):
#
# $$\mathrm{SwiGLU}(x) = \mathrm{Swish}_1(xW) \otimes xV, \qquad
# \mathrm{FFN}_{\mathrm{SwiGLU}}(x) = \big(\mathrm{Swish}_1(xW) \otimes xV\big)\, W_2$$
#
# ⊗ multiplies number by number. LLaMA (section 2.2) takes SwiGLU; in its files W is called *gate*, V *up*, and W₂
# *down*. Here is one neuron:

# %%
figures.show(figures.draw_neuron(),
             "One neuron owns a column of gate, a column of up and a row of down: two dot products "
             "are multiplied, and the row is added that many times.")

# %% [markdown]
# ### With a pencil
#
# Three tokens, D = 2, F = 2:
#
# $$x = \begin{pmatrix} 1 & 2 \\ 2 & 1 \\ -1 & 0 \end{pmatrix}, \quad
# \mathrm{gate} = \begin{pmatrix} 2 & 2 \\ 1 & -3 \end{pmatrix}, \quad
# \mathrm{up} = \begin{pmatrix} 1 & 1 \\ 1 & 0 \end{pmatrix}, \quad
# \mathrm{down} = \begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}$$
#
# Take the first token, $(1, 2)$. Its gates are $1\cdot2 + 2\cdot1 = 4$ and $1\cdot2 - 2\cdot3 = -4$; its ups are
# $1 + 2 = 3$ and $1$. The list above gives $\mathrm{Swish}(4) = 3.93$ and $\mathrm{Swish}(-4) = -0.07$. So its two
# products are $3.93 \cdot 3 \approx 11.8$ and $-0.07 \cdot 1 = -0.07$: the first neuron fires, the second hardly does.
# As down is the identity here, these are the result, too.
#
# **Predict.** Work out the gates of the third token, $(-1, 0)$. Will it add much, or little?

# %%
x = np.array([[1, 2], [2, 1], [-1, 0]], np.float32)
small_gate = np.array([[2, 2], [1, -3]], np.float32)
small_up = np.array([[1, 1], [1, 0]], np.float32)
small_down = np.eye(2, dtype=np.float32)
products = swish(x @ small_gate) * (x @ small_up)
for t in range(3):
    print(f"token {x[t]}: gates {(x @ small_gate)[t]}, ups {(x @ small_up)[t]}, "
          f"products {products[t].round(2)}")
print("the model's function does the same:",
      np.allclose(products @ small_down, nl.feed_forward(x, small_gate, small_up, small_down)))

# %% [markdown]
# **Explain.** Both gates of the third token are $-2$, both its ups $-1$: the products are $0.24$, a fiftieth of what the
# first token's first neuron does.
#
# ### The Llama for pencil
#
# In steps 9 and 10 of the [handout](handout.pdf) the row of *and* arrives as $(-1.3, -0.56)$, and meets
#
# $$\mathrm{gate} = \begin{pmatrix} -2.5 & 2.5 \\ 0 & -1 \end{pmatrix}, \quad
# \mathrm{up} = \begin{pmatrix} -1.5 & 2 \\ 0 & 0 \end{pmatrix}, \quad
# \mathrm{down} = \begin{pmatrix} 2 & 0 \\ -1.5 & 0 \end{pmatrix}$$
#
# A first number above 0 says that a noun stands here. So neuron 0 is the rule "if no noun stands here, a noun comes
# next", and neuron 1 "if one does, *and* comes next". Which of the two gates is open? Do the steps with a pencil; then
# the control below takes them away.

# %%
run = pencil.run()
for name in ("gate", "silu", "up", "hidden", "out"):
    print(f"{name:7}", run[f"layers.0.ffn.{name}"][-1].round(2))


def no_feed_forward(name, x):
    return 0 * x if name.endswith("ffn.out") else x


for label, tap in (("with the step", nl.ignore), ("without it", no_feed_forward)):
    logits = nl.forward(pencil.PROMPT, pencil.weights, pencil.config, tap=tap)
    after = {pencil.NAMES[i]: pencil.NAMES[row.argmax()] for i, row in zip(pencil.PROMPT, logits)}
    print(f"{label:13}", after)

# %% [markdown] tags=["result"]
# Gate 0 is open, gate 1 nearly shut, and the first number rises from $-3.5$ to $8$: a noun comes next. Without the step
# the row still says what stands here: after *and* the model expects *and*.

# %% [markdown]
# ### What the product changes
#
# **Predict.** With ReLU, twice the input gives twice the output. What if a token's gate and up are both doubled: is the
# product doubled, or multiplied by 4? Always?

# %%
for g in (-8.0, -2.0, -0.5, 0.5, 2.0, 8.0):
    print(f"gate {g:+.1f}: the product is multiplied by {swish(2 * g) * 2 / swish(g):.2f}")

# %% [markdown]
# **Explain.** By 4 only where the gate is wide open: there Swish(g) is nearly g, and the product is g·u. A little above
# zero the factor is larger, as doubling also opens the gate further. A gate that is far below zero closes further when
# it is doubled, and the product shrinks.
#
# ## In the model
#
# The same four lines on the shipped model's layer 2, compared with its own trace:

# %%
story = tokenizer.encode(STORY)
seen = nl.Trace()
nl.forward(story, weights, config, tap=seen)

layer, ffn = 2, weights["layers"][2]["ffn"]
h = seen[f"layers.{layer}.ffn_norm"]                      # (T, D): the normalised rows
gate = h @ ffn["gate"]                                    # (T, F)
up = h @ ffn["up"]                                        # (T, F)
hidden = swish(gate) * up                                 # (T, F)
out = hidden @ ffn["down"]                                # (T, D)

for name, ours in {"gate": gate, "up": up, "hidden": hidden, "out": out}.items():
    same = np.allclose(ours, seen[f"layers.{layer}.ffn.{name}"], atol=1e-5)
    print(f"{name:6} {str(ours.shape):10} the same numbers as in the model: {same}")

# %%
figures.show(figures.gate_surface(gate.ravel(), up.ravel()),
             "Left, the product for every gate and up: nearly flat on the left half, a saddle on "
             "the right; right, where this layer's T times F pairs lie.")

# %% [markdown]
# ## How few do the work?
#
# Call a gate *open* if it is above 0, and closed otherwise.
#
# **Predict.** F is 704. How many gates are open for a typical token: nearly all, half, a third? And if all closed gates
# were set to exactly 0, would the loss rise by about 0.2 nats, 1, or 6? (A nat measures surprise: lower is better.)

# %%
print("             gates    sum of |products|     half of the squares")
print("              open    behind closed ones    are in this many products")
for i in range(config.n_layers):
    g = seen[f"layers.{i}.ffn.gate"]
    size = np.abs(seen[f"layers.{i}.ffn.hidden"])         # (T, F)
    behind_closed = size[g <= 0].sum() / size.sum()
    squares = np.sort(size ** 2, axis=-1)[:, ::-1]        # of each token, the largest first
    share = np.cumsum(squares, axis=-1) / squares.sum(axis=-1, keepdims=True)
    needed = 1 + np.mean(np.sum(share < 0.5, axis=-1))
    print(f"layer {i}      {np.mean(g > 0):5.0%} {behind_closed:15.0%} {needed:20.0f}")


# %%
def change_silu(function):
    """A tap that computes ffn.silu anew in every layer, as function(gate) -> (T, F)."""
    gates = []

    def tap(name, x):
        if name.endswith("ffn.gate"):
            gates.append(x)
        if name.endswith("ffn.silu"):
            x = function(gates[-1]).astype(np.float32)
        return x
    return tap


base = loss()
closed_to_zero = loss(change_silu(lambda g: np.where(g > 0, swish(g), 0)))
open_to_zero = loss(change_silu(lambda g: np.where(g > 0, 0, swish(g))))
print(f"loss as trained {base:.2f}, closed gates set to 0 {closed_to_zero:.2f}, "
      f"open gates set to 0 {open_to_zero:.2f}")

# %%
words = figures.pieces(tokenizer, story)
shown = slice(1, 19)                                      # the first words, without <s>
strongest = np.argsort(-np.abs(hidden[shown]).max(axis=0))[:32]
strongest = strongest[np.argsort(np.abs(hidden[shown][:, strongest]).argmax(axis=0))]
figure, ax = figures.new(4.2)
figures.matrix(ax, hidden[shown][:, strongest], rows=words[shown],
               title=f"ffn.hidden of layer {layer}", limit=4)
ax.set_xlabel("the 32 of F neurons with the largest products, sorted by the token of their largest")
figures.show(figure, "Each column is a neuron, and the cell its product: most of these neurons are "
                     "strong at one or two words and weak at the others.")

# %% [markdown]
# **Explain.** A fifth to two fifths of the gates are open. Closed does not mean silent: single products behind closed
# gates are small, but there are many, and in absolute value they sum to 27 to 61 % of the whole. Squares favour the
# large ones, and by squares a handful of neurons carries half. Setting the closed gates to zero turns Swish into ReLU
# and costs about 0.2 nats: they matter, and much less than the open ones.
#
# The figure shows the strongest neurons, which were *chosen* for being strong somewhere; it does not say that all F are
# like that.
#
# ## What the gate does here
#
# A tap can put something else in the place of a layer's whole step, one layer at a time:
#
# - **gate held**: each neuron's Swish(gate) is replaced by its mean, so the gate no longer depends on the token;
# - **best line**: the step is replaced by the linear map that predicts its output best (fitted by least squares on
#   five other stories, which the model tells itself);
# - **mean**: the step adds the same row at every token, its mean output;
# - **deleted**: the step adds nothing.
#
# A held gate leaves a linear step, and the best line is linear too. So if holding the gate hurts *because* the step
# becomes linear, the best line must hurt as much.
#
# **Predict.** In which layer will these cost most: the first, a middle one, or the last?

# %%
prompt = tokenizer.encode("Once upon a time")
texts = []
for seed in range(9):                                     # float64: the same story everywhere
    rng = np.random.default_rng(seed)
    texts.append(prompt + list(nl.generate(prompt, exact, config, 200, rng, temperature=0.8)))


def traces_of(texts):
    found = []
    for text in texts:
        found.append(nl.Trace())
        nl.forward(text, weights, config, tap=found[-1])
    return found


find = texts[:5]                                          # to fit and to name on
test = [*texts[5:], story]                                # to test on
find_runs, test_runs = traces_of(find), traces_of(test)


def gathered(runs, name):                                 # one tensor, all texts below each other
    return np.concatenate([run[name] for run in runs])


def best_line(layer):
    """The linear map (D + 1, D) that predicts ffn.out from ffn_norm and a column of ones."""
    read = gathered(find_runs, f"layers.{layer}.ffn_norm").astype(np.float64)
    read = np.column_stack([read, np.ones(len(read))])
    wrote = gathered(find_runs, f"layers.{layer}.ffn.out").astype(np.float64)
    smoothing = 100 * np.eye(read.shape[1])               # against fitting noise: ridge regression
    return np.linalg.solve(read.T @ read + smoothing, read.T @ wrote)


def follow_line(layer):
    line, read = best_line(layer), {}

    def tap(name, x):
        if name == f"layers.{layer}.ffn_norm":
            read["x"] = np.column_stack([x, np.ones(len(x))])
        if name == f"layers.{layer}.ffn.out":
            x = (read["x"] @ line).astype(np.float32)
        return x
    return tap


def put(where, value):
    """A tap that puts the same row (or number) at every token of one tensor."""
    def tap(name, x):
        if name == where:
            x = np.zeros_like(x) + value
        return x
    return tap


cost = {}
print("nats more     gate held   best line    mean   deleted")
for i in range(config.n_layers):
    silu, ffn_out = f"layers.{i}.ffn.silu", f"layers.{i}.ffn.out"
    taps = {"gate held": put(silu, gathered(find_runs, silu).mean(axis=0)),
            "best line": follow_line(i),
            "mean": put(ffn_out, gathered(find_runs, ffn_out).mean(axis=0)),
            "deleted": put(ffn_out, 0)}
    cost[i] = [loss(tap) - base for tap in taps.values()]
    print("layer {} {:14.2f} {:11.2f} {:8.2f} {:8.2f}".format(i, *cost[i]))

# %% [markdown]
# Layer 0 stands apart. A guess: its step says what the token is, whatever came before. Then it should work as well if
# it reads the *embedding* alone, as if the attention before it had added nothing. If the guess is wrong, the loss must
# rise, by up to the 4.9 nats that the whole step is worth.

# %%
def read_the_embedding(layer):
    start = {}

    def tap(name, x):
        if name == "embedding":
            start["x"] = x
        if name == f"layers.{layer}.ffn_norm":
            x = nl.rms_norm(start["x"], weights["layers"][layer]["ffn_norm"], config.norm_eps)
        return x
    return tap


print(f"layer 0's step reads the embedding alone: {loss(read_the_embedding(0)) - base:+.2f} nats")

# %% [markdown]
# **Explain.** Layer 0's step is worth 4.9 nats and does not need the context: it is close to a table with one row for
# each token, written as a formula. Without its gate it is worth next to nothing: holding the gate costs as much as
# adding the same row at every token. But linearity is not the reason, or not the main one: the best line is just as
# linear and costs 1.1 nats (fitted on more text perhaps less). A gate held at its mean is simply a bad line, in a model
# that was trained with another step.
#
# In layers 1 to 4 each single step can be spared: 0.06 to 0.13 nats. That does not make them idle. Other layers may
# make up for one that is missing; deleting several at once is another experiment (question 3).
#
# ## Neurons with a name
#
# Can we say what a single neuron does? A first idea: add up the absolute values of its products, token by
# token, and see which token has the largest share. The five stories serve to *find* a name, the four others and ours to
# *test* it: a share found by searching among 704 neurons is too good, by chance alone.
#
# **Predict.** In which layers will there be neurons for one token: in the first or in the last?

# %%
vocabulary = figures.pieces(tokenizer, range(config.vocab_size))
find_ids, test_ids = np.concatenate(find), np.concatenate(test)


def share_of_tokens(runs, ids, layer):
    """Which part of each neuron's sum of |product| falls on each token: (V, F)."""
    size = np.abs(gathered(runs, f"layers.{layer}.ffn.hidden"))       # (N, F)
    sums = np.zeros((config.vocab_size, config.hidden_dim))
    np.add.at(sums, ids, size)
    return sums / size.sum(axis=0)


neurons = np.arange(config.hidden_dim)
favourite, found, held = {}, {}, {}
print(f"{len(find_ids):,} tokens to find on, {len(test_ids):,} to test on")
for i in range(config.n_layers):
    shares = share_of_tokens(find_runs, find_ids, i)
    favourite[i] = shares.argmax(axis=0)                              # (F,): a token for each
    found[i] = shares.max(axis=0)
    held[i] = share_of_tokens(test_runs, test_ids, i)[favourite[i], neurons]
    print(f"layer {i}: {np.sum(found[i] > 0.3):3} neurons with more than 30 % on one token; "
          f"in the other texts still {np.sum((found[i] > 0.3) & (held[i] > 0.3)):3}")

# %% [markdown]
# So there are candidates. A name such as "the neuron for *the*" says more than "active there": it says that the neuron
# *matters* there, and not elsewhere. That can be tested: silence the neuron, and see where the loss moves. Changes go
# both ways, so we take absolute values; in a plain mean, a gain here would hide a loss there.
#
# We test the best candidate for "▁the" in layer 0, and the best for a line break, `<0x0A>`, in the last layer. As a
# control, ten neurons of the same layer, drawn at random, each with its own favourite token.
#
# **Predict.** A good name has most of the change at its token. Will the line-break neuron pass?

# %%
def silence(layer, neuron):
    def tap(name, x):
        if name == f"layers.{layer}.ffn.hidden":
            x = x.copy()                                  # a tapped array is never changed in place
            x[:, neuron] = 0
        return x
    return tap


def nats(tap):
    """The loss at every place of the texts to test on."""
    logits = [nl.forward(text, weights, config, tap=tap)[:-1] for text in test]
    return np.concatenate([nl.cross_entropy(x, text[1:]) for x, text in zip(logits, test)])


def best_for(layer, piece):
    token = tokenizer.sp.piece_to_id(piece)
    return int(np.argmax(np.where(favourite[layer] == token, found[layer], 0)))


last = config.n_layers - 1
whole = nats(nl.ignore)
here = np.concatenate([text[:-1] for text in test])       # the token after which is predicted


def change_at_favourite(layer, neuron):
    """Mean |change| at the favourite token and elsewhere, and the first one's share of the sum."""
    change = np.abs(nats(silence(layer, neuron)) - whole)
    there = here == favourite[layer][neuron]
    return change[there].mean(), change[~there].mean(), change[there].sum() / change.sum()


percent = {}
print("                   active there    mean |change|     share of all")
print("                   found   test    there  elsewhere  change there")
for i, piece, name in ((0, "▁the", "the"), (last, "<0x0A>", "line break")):
    j = best_for(i, piece)
    there, elsewhere, share = change_at_favourite(i, j)
    print(f"layer {i} {name:>10} {found[i][j]:5.0%} {held[i][j]:6.0%} {there:8.3f} "
          f"{elsewhere:10.4f} {share:13.0%}")
    percent[f"layer {i}, {name}"] = 100 * share
    common = [k for k in neurons if np.sum(here == favourite[i][k]) >= 10 and k != j]
    drawn = np.random.default_rng(0).choice(common, 10, replace=False)
    controls = [change_at_favourite(i, k)[2] for k in drawn]
    percent[f"layer {i}, control, median"] = 100 * np.median(controls)
    percent[f"layer {i}, control, largest"] = 100 * max(controls)
    print(f"        ten others, at their own favourites: {np.median(controls):.0%} of all change, "
          f"at most {max(controls):.0%}")

# %%
figure, ax = figures.new(2.4)
figures.bars(ax, percent, ".0f", marked=[label for label in percent if "control" in label])
ax.axvline(50, color=figures.GREY, linestyle=":", linewidth=1.2)
ax.set(xlabel="percent of all change that is at the favourite token (dotted: half)", xlim=(0, 100))
figures.show(figure, "Of the change that silencing a neuron makes, its name should explain most: "
                     "one of the two reaches half, both lie above the controls (hatched).")

# %% [markdown]
# **Explain.** The neuron for *the* holds: on new texts 91 % of its activity and half of all change are at *the*;
# of the ten controls, the median has 8 %. (Some of the rest follows from it: later tokens look back at a *the* that has changed.) The
# line-break neuron holds half-way. At a line break silencing it changes much more than elsewhere; but line breaks
# are few, and only 29 % of all change is there. "Has to do with line breaks" is true; "the line-break neuron" says too
# much. Look at both columns: *there against elsewhere* flatters a rare token, and the *share of all* flatters a common
# one.

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). The neuron for *the*, token by token. Type other texts, switch it off,
# and see what the model expects then:
#
#     python notebooks/explorer/build.py --open "#p=The+king+and+the+queen&t=layers.0.ffn.hidden&i=4.595&tab=neuron"
#
# ## How wide is F?
#
# With a gate there are three matrices of D × F instead of two of D × 4D. To keep the number of parameters, LLaMA
# (section 2.2) takes two thirds of 4D for F. The code then rounds up to a multiple of 256 (`multiple_of`). For the
# largest Llama 2 it multiplies by 1.3 first, and rounds to a multiple of 4,096.
#
# **Predict.** D is 4,096 for 7B. What is F? (Two thirds of 4 · 4,096 is `10,922.67`.)

# %%
def width(dim, multiple_of=256, multiplier=1.0):
    hidden = int(multiplier * int(2 * 4 * dim / 3))
    return math.ceil(hidden / multiple_of) * multiple_of


rules = {"7B": (4096, 256, 1.0), "13B": (5120, 256, 1.0), "33B": (6656, 256, 1.0),
         "65B": (8192, 256, 1.0), "70B": (8192, 4096, 1.3), "this model": (256, 64, 1.0)}
for label, rule in rules.items():
    dim, F = rule[0], width(*rule)
    print(f"{label:10} D {dim:5}  two thirds of 4D {8 * dim / 3:8.1f}  F {F:5}  "
          f"3·D·F is {3 * F / (8 * dim):.2f} of 2·D·4D")
for name in ("llama-2-7b", "llama-2-70b"):
    counts = nl.parameter_counts(nl.PRESETS[name])
    print(f"{name}: {counts['feed-forward'] / sum(counts.values()):.0%} of all parameters are here")
print(f"70B with multiple_of 256 would have F {width(8192, 256, 1.3):,}")

# %% [markdown]
# ## In the wild
#
# - **Gate and up exchanged.** Both are (D, F), so no shape complains. Meta calls them w1 and w3, and down w2: whoever
#   takes w1, w2, w3 for gate, up, down is stopped by a shape, but whoever then tries w1 and w3 both ways is not.
# - **Fused matrices.** Some files store gate and up as one matrix of 2F columns, and programs differ in which half is
#   the gate (exercise 2).
#
# What the exchange costs here, and what another activation costs:

# %%
layers = [layer | {"ffn": {"gate": layer["ffn"]["up"], "up": layer["ffn"]["gate"],
                           "down": layer["ffn"]["down"]}} for layer in weights["layers"]]
ways = {"as trained": base,
        "GELU for Swish": loss(change_silu(gelu)),
        "ReLU for Swish": closed_to_zero,
        "gate and up exchanged": loss(weights=weights | {"layers": layers}),
        "sigmoid for Swish (GLU)": loss(change_silu(sigmoid)),
        "no activation: gate × up": loss(change_silu(lambda g: g))}
for label, value in ways.items():
    print(f"{label:25} {value:.2f} nats per token; guessing: {np.log(config.vocab_size):.2f}")

# %% [markdown]
# These numbers say what *this* model, trained with Swish, makes of another function. They do not say which one is best:
# for that, each has to be trained. The GLU paper did so (table 1), and found all gated forms ahead of the plain ones,
# even the one without any activation, *Bilinear*, that costs 2 nats here. It offers no explanation (section 4).
#
# ## Questions
#
# **1.** A neuron's up is −3 for some token and its gate is 4. Does the neuron fire? What does it add to the stream?
#
# <details>
# <summary>Answer</summary>
#
# Yes. The gate is open, Swish(4) is about 4, and the product is about −12: it adds its row of down minus twelve times.
# An open gate says *that* the neuron acts; up gives size and sign. So "raises" and "lowers" are not properties of a
# neuron's row of down alone.
#
# </details>
#
# **2.** Multiply a neuron's column of up by 10 and divide its row of down by 10. What changes? And if you do the same
# with its column of gate instead of up?
#
# <details>
# <summary>Answer</summary>
#
# Nothing changes in the first case: the product is ten times as large, and is added a tenth as much. So the size of a
# product alone says nothing about how much a neuron matters; the size of its row of down belongs to it. In the second
# case the result changes, as Swish is not linear: Swish(10 g) is not 10 Swish(g), except where the gate is wide open.
#
# </details>
#
# **3.** Deleting the step of layer 1, 2, 3 or 4 costs 0.06 to 0.13 nats each. Does it follow that deleting all four
# costs the sum of these costs? What would you measure, and what could each outcome mean?
#
# <details>
# <summary>Answer</summary>
#
# No. Effects add up only if the layers do not depend on each other. Delete 1 to 4 together (one tap that puts 0 at all
# four) and compare with the sum. More than the sum: they can stand in for each other, one at a time. Less: they share a
# job, so that the second loss hurts less. Run it: with `put` above, chain four taps by calling one after the other.
#
# </details>
#
# ## Exercises
#
# Fill in each function; `check` runs it on several inputs, and says what a wrong answer looks like.
#
# ### 1. A gate on a budget
#
# You replace a plain step (two matrices, D × P and P × D) by a gated one (three matrices), and must not use *more*
# parameters than before. F has to be a multiple of `multiple_of`. Does D matter?

# %% tags=["exercise"]
def gated_width(plain_width, multiple_of):
    """The largest F whose gated step has no more parameters than the plain one: int, int -> int."""
    ...

# %%
check(gated_width)

# %% tags=["solution"]
def gated_width(plain_width, multiple_of):
    widest = 2 * plain_width // 3                         # 3 D F <= 2 D P: D drops out
    return widest // multiple_of * multiple_of

# %% [markdown]
# ### 2. One matrix for two
#
# A file holds gate and up side by side in one matrix, (D, 2F), with *up in the first half* and gate in the second. One
# product is enough for both. Compute the whole step.

# %% tags=["exercise"]
def fused_swiglu(x, up_gate, down):
    """The feed-forward step from a fused matrix: (T, D), (D, 2F), (F, D) -> (T, D)."""
    ...

# %%
check(fused_swiglu)

# %% tags=["solution"]
def fused_swiglu(x, up_gate, down):
    F = down.shape[0]
    both = x @ up_gate                                    # (T, 2F)
    up, gate = both[:, :F], both[:, F:]
    return (gate / (1 + np.exp(-gate)) * up) @ down

# %% [markdown]
# ### 3. Only the strongest
#
# Half of the squares are in a handful of products. How well does a step do with the k strongest neurons *of each token*?
# Question 2 says that a product's size alone does not measure a neuron: measure it by the length (the root of the sum
# of squares) of the row that it *adds*. Keep the k neurons with the longest additions, separately for each token, and
# add up only those. No two are equally long here.

# %% tags=["exercise"]
def strongest_only(hidden, down, k):
    """What the k neurons that add most add to each token: (T, F), (F, D), int -> (T, D)."""
    ...

# %%
check(strongest_only)

# %% tags=["solution"]
def strongest_only(hidden, down, k):
    added = np.abs(hidden) * np.linalg.norm(down, axis=1)             # (T, F): lengths of additions
    kept = np.argsort(-added, axis=1)[:, :k]                          # (T, k)
    sparse = np.zeros_like(hidden)
    np.put_along_axis(sparse, kept, np.take_along_axis(hidden, kept, axis=1), axis=1)
    return sparse @ down

# %% [markdown]
# ## In five lines
#
# 1. The feed-forward step works on each token alone: F neurons, each *if the row looks like this, add that*.
# 2. SwiGLU separates *if* from *how much*: Swish of the gate times up, and the product is projected back by down.
# 3. Closed gates are small, not silent: setting them to zero costs this model 0.16 nats, losing the open ones 6.
# 4. Layer 0's step is close to a table of tokens; the next four can each be spared alone.
# 5. A neuron's name is a guess until silencing it moves the loss there, not elsewhere, on texts it was not found on.
