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
# | **You will be able to** | compute SwiGLU by hand and from three matrices; say what the gate and the up decide; work out F for every Llama; find a neuron with a name, and test whether the name holds |
# | **It assumes** | lessons [02](02_rmsnorm.ipynb) and [03](03_attention.ipynb); the sigmoid $\sigma(x) = 1 / (1 + e^{-x})$ |
# | **Minutes** | 95 |
#
# T tokens, D model width, F feed-forward width, V vocabulary, L layers.

# %% tags=["hide"]
import math

import checks
import figures
import ipywidgets
import numpy as np
import pencil
from course import STORY, config, loss, nl, tokenizer, weights

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
# "that" is another row of D learned numbers. The results of all F neurons are added up.
#
# The *if* matters. Without it the step would be two matrix products, $(xA)B$, and those are one: $x(AB)$, a single D ×
# D matrix, however large F is. So something between the two has to bend. The usual way is a function of each number
# alone, an *activation*. The GLU paper (Shazeer, [arXiv 2002.05202](https://arxiv.org/abs/2002.05202), section 1)
# writes down three:
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
for value in (-4.0, -2.0, -1.0, 0.0, 1.0, 4.0):
    print(f"Swish({value:+.0f}) = {swish(value):+.2f}")


def draw(beta):
    figure, ax = figures.new(2.9)
    curves = {"ReLU": np.maximum(axis, 0), "GELU": gelu(axis),
              f"Swish, β {beta:g}": swish(axis, beta)}
    for label, y in curves.items():
        ax.plot(axis, y, label=label)
    ax.legend(loc="upper left")
    ax.set(xlabel="x", ylim=(-2.6, 5))
    figures.show(figure, "At β = 1, all three pass large positive numbers and hold negative ones "
                         "back, but GELU and Swish dip a little below zero on the way.")


draw(1.0)

# %% tags=["sliders"]
ipywidgets.interact(draw, beta=(0.0, 8.0, 0.5));

# %% [markdown]
# **Explain.** At β = 0 the sigmoid is 1/2 everywhere, so Swish is x/2, a straight line. For large β the sigmoid jumps
# from 0 to 1, and Swish becomes ReLU.
#
# ## A gate
#
# In the plain form, one dot product decides everything: whether a neuron acts, and how much. A *gated linear unit*
# takes two, the *gate* and the *up*, and multiplies them (section 2, equations 5 and 6). Only the gate goes through the
# activation, so a gate anywhere below 0 holds the neuron back; an up does so only near 0:
#
# $$\mathrm{SwiGLU}(x) = \mathrm{Swish}_1(xW) \otimes xV, \qquad
# \mathrm{FFN}_{\mathrm{SwiGLU}}(x) = \big(\mathrm{Swish}_1(xW) \otimes xV\big)\, W_2$$
#
# ⊗ multiplies number by number. [LLaMA](https://arxiv.org/abs/2302.13971) (section 2.2) takes SwiGLU. The names are
# those of Hugging Face's files: W is *gate*, V is *up*, and W₂ is *down*. Here is one neuron:

# %%
figures.show(figures.draw_neuron(),
             "One neuron owns a column of gate, a column of up and a row of down: two dot "
             "products, one of them through Swish, are multiplied, and the row of down, times that "
             "number, is added.")

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
# Since down is the identity here, they are also the output.
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
# **Explain.** Both gates of the third token are $-2$, both its ups $-1$: the products are $0.24$, a fiftieth of what
# the first token's first neuron does.
#
# ### The Llama for pencil
#
# In steps 8 to 10 of the [handout](handout.pdf) the row of *and*, $(-3.5, -1.51)$, is normalised to $(-1.3, -0.56)$,
# and meets
#
# $$\mathrm{gate} = \begin{pmatrix} -2.5 & 2.5 \\ 0 & -1 \end{pmatrix}, \quad
# \mathrm{up} = \begin{pmatrix} -1.5 & 2 \\ 0 & 0 \end{pmatrix}, \quad
# \mathrm{down} = \begin{pmatrix} 2 & 0 \\ -1.5 & 0 \end{pmatrix}$$
#
# Up to here, a first number above 0 says that a noun *stands here*; the output will read it as "a noun *comes next*".
# So neuron 0 is the rule "if no noun stands here, a noun comes next", and neuron 1 "if one does, *and* comes next".
# Which of the two gates is open? Do it with a pencil; the control below then takes the feed-forward step away.

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
# the row still says what stands here, and is read as what comes next: *and* after *and*, a noun after a noun. (At `<s>`
# the step adds too little to change the word.)

# %% [markdown]
# ## In the model
#
# The same four lines on the shipped model's layer 2, compared with its own trace of our story:

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

# %% [markdown]
# ### Does the gate only decide?
#
# Call a gate *open* if it is above 0, and closed otherwise. It is tempting to say: "the gate decides *whether* a neuron
# acts, the up says *how much*". Then Swish(gate) would be much the same number at all open gates. How far does it
# spread, beside the up and σ(gate), which stood in its place in the first gated unit (GLU paper, section 2)?
#
# **Predict.** For a large gate, what is Swish(gate), nearly? So which of the three will spread least at open gates?

# %%
is_open = gate > 0
print("at open gates    a tenth are below   median   a tenth are above    ratio   closed: median")
sizes = {"sigmoid(gate)": sigmoid(gate), "|Swish(gate)|": np.abs(swish(gate)), "|up|": np.abs(up)}
for label, x in sizes.items():
    low, middle, high = np.quantile(x[is_open], [0.1, 0.5, 0.9])
    print(f"{label:14} {low:16.2f} {middle:11.2f} {high:14.2f} {high / low:14.1f} "
          f"{np.median(x[~is_open]):15.2f}")

# %%
figures.show(figures.gate_surface(gate.ravel(), up.ravel()),
             "Left, the product for every gate and up, as lines of equal height (dashed: "
             "negative): at most 1.1 in size on the left half of this picture. Right, where this "
             "layer's T times F pairs (gate, up) lie: most near the middle, where it is small.")

# %% [markdown]
# **Explain.** At an open gate, Swish(g) lies between g/2 and g: it says how much, just as the up does; σ can say little
# there (1/2 to 1). Nor is 0 a sharp border: in this layer the median closed gate passes 0.18 of its up, the median open
# one 0.19. So the gate decides *whether* only roughly: closed, it passes at most 0.28; open, as much as it says. The
# sign is the up's at an open gate, and the opposite at a closed one (the pencil's third token).
#
# ## Open and closed gates
#
# How much do closed gates still do? A neuron adds its product times its row of down. For each token, we sum up what all
# neurons behind closed gates add, and compare the length of that row with the same for the open ones. A control takes
# *a third* of the open ones, drawn at random. And we count how many neurons it takes, longest addition first, to make
# half of all lengths together.
#
# **Predict.** F is 704. How many gates are open for a typical token: nearly all, half, a third? And if all closed gates
# were set to exactly 0, would the loss rise by about 0.2 nats, 1, or 6?

# %%
def neurons_for_half(products, down):
    size = np.abs(products) * np.linalg.norm(down, axis=1)            # (T, F): of each addition
    largest_first = np.sort(size, axis=-1)[:, ::-1]
    part = np.cumsum(largest_first, axis=-1) / size.sum(axis=-1, keepdims=True)
    return 1 + np.mean(np.sum(part < 0.5, axis=-1))


rng = np.random.default_rng(9)
print("         gates    length added, divided by open    neurons that make half")
print("         open        closed    a third of open     of all lengths")
for i, layer_weights in enumerate(weights["layers"]):
    g, products = seen[f"layers.{i}.ffn.gate"], seen[f"layers.{i}.ffn.hidden"]
    down = layer_weights["ffn"]["down"]
    third = (g > 0) & (rng.random(g.shape) < 1 / 3)
    opened, closed, some = [np.linalg.norm(np.where(part, products, 0) @ down, axis=1)
                            for part in (g > 0, g <= 0, third)]       # (T,) each
    print(f"layer {i} {np.mean(g > 0):6.0%} {np.median(closed / opened):12.2f} "
          f"{np.median(some / opened):15.2f} {neurons_for_half(products, down):17.0f}")


# %%
def change_silu(function, layers=range(config.n_layers)):
    """A tap that computes ffn.silu anew in some layers, as function(gate) -> (T, F)."""
    gates = []
    changed = [f"layers.{i}.ffn.silu" for i in layers]

    def tap(name, x):
        if name.endswith("ffn.gate"):
            gates.append(x)
        if name in changed:
            x = function(gates[-1]).astype(np.float32)
        return x
    return tap


def only_open(g):
    return np.where(g > 0, swish(g), 0)


def only_closed(g):
    return np.where(g > 0, 0, swish(g))


def without_a_third(g):
    return np.where((g > 0) & (rng.random(g.shape) < 1 / 3), 0, swish(g))


base = loss()                                             # nats per token of our story
last = config.n_layers - 1
places = (range(last + 1), range(1, last + 1), range(1, last), [last])


def costs(function):                                      # nats more, in each of the places
    return np.array([loss(change_silu(function, layers)) - base for layers in places])


draws = np.array([costs(without_a_third) for _ in range(4)])
print(f"the model {base:.2f} nats; set to 0, in layers     0 to 5    1 to 5    1 to 4         5")
for label, row in {"closed gates": costs(only_open), "open gates": costs(only_closed),
                   "a third of the open, least of 4 draws": draws.min(axis=0),
                   "                     most of 4 draws": draws.max(axis=0)}.items():
    print(f"{label:39}" + "".join(f"{cost:+10.2f}" for cost in row))

# %% [markdown]
# **Explain.** A fifth to two fifths of the gates are open. Closed does not mean silent: together, closed gates add a
# row a quarter to three quarters as long as the open ones do, in layer 0 a tenth. Setting them to zero costs only 0.16
# nats, the open ones 6, most of it in layer 0; in layers 1 to 5, 0.14 and 1. There, a random third of the open gates
# costs about as little. In layer 5 it adds twice the length of the closed ones, and costs at least four times as much;
# in layers 1 to 4, where it adds less or about the same, it costs less. So in both places the longer addition costs
# more: closed gates cost little where they add little, not because they are closed.
#
# Half of all lengths comes from a small part of the 704 neurons: 19 in layer 0, 55 to 103 in the others.
#
# ## What the gate does here
#
# A tap can put something else in the place of a layer's step, one layer at a time, at all tokens but `<s>`
# (later tokens look at its row, lesson [03](03_attention.ipynb); the last section changed it too):
#
# - **gate held**: each neuron's Swish(gate) is replaced by its mean, so the gate no longer depends on the token;
# - **best line**: the step is replaced by a linear map, the matrix M for which the rows read · M are nearest to what
#   the step wrote (least squares, on seven stories that the model tells itself);
# - **mean**: the step adds the same row at every token, its mean output;
# - **deleted**: the step adds nothing.
#
# With the gate held, each product is a fixed number times the up, so the step is linear, too. If holding it hurts
# *because* the step becomes linear, even the best line must hurt about as much.
#
# **Predict.** In lesson [00](00_start_here.ipynb), layer 0's step was worth 4.9 nats, far more than any other. What
# will the best line cost there: about as much as the held gate, or much less?

# %%
prompt = tokenizer.encode("Once upon a time")
texts = []
for seed in range(8):
    rng = np.random.default_rng(seed)
    texts.append(prompt + list(nl.generate(prompt, weights, config, 200, rng, temperature=0.8)))


def traces_of(texts):
    found = []
    for text in texts:
        found.append(nl.Trace())
        nl.forward(text, weights, config, tap=found[-1])
    return found


find, more = texts[:4], texts[5:]                         # to fit and to name on; to fit on
test = [texts[4], story]                                  # to test on
find_runs, test_runs = traces_of(find), traces_of(test)
fit_runs = find_runs + traces_of(more)


def gathered(runs, name):
    """One tensor of several runs, one below the other, without the rows of <s>."""
    return np.concatenate([run[name][1:] for run in runs])


# %%
def best_line(read, wrote):                               # (N, D), (N, D) -> (D, D)
    return np.linalg.lstsq(read, wrote)[0]                # read @ line is nearest to wrote


def follow_line(layer, line):
    """A tap that puts a linear map (D, D) in a step's place."""
    now = {}

    def tap(name, x):
        if name == f"layers.{layer}.ffn_norm":
            now["read"] = x
        if name == f"layers.{layer}.ffn.out":
            x = x.copy()                                  # a tapped array is never changed in place
            x[1:] = now["read"][1:] @ line
        return x
    return tap


def put(names, value):
    """A tap that puts the same row (or number) at every token but <s> of some tensors."""
    def tap(name, x):
        if name in names:
            x = x.copy()
            x[1:] = value
        return x
    return tap


# %%
print("nats more     gate held   best line    mean   deleted")
for i in range(config.n_layers):
    silu, ffn_out = f"layers.{i}.ffn.silu", f"layers.{i}.ffn.out"
    read, wrote = gathered(fit_runs, f"layers.{i}.ffn_norm"), gathered(fit_runs, ffn_out)
    taps = {"gate held": put([silu], gathered(fit_runs, silu).mean(axis=0)),
            "best line": follow_line(i, best_line(read, wrote)),
            "mean": put([ffn_out], wrote.mean(axis=0)),
            "deleted": put([ffn_out], 0)}
    print("layer {} {:14.2f} {:11.2f} {:8.2f} {:8.2f}".format(
        i, *[loss(tap) - base for tap in taps.values()]))
middle = [f"layers.{i}.ffn.out" for i in range(1, 5)]
print(f"layers 1 to 4 deleted together: {loss(put(middle, 0)) - base:.2f}")

# %% [markdown]
# **Explain.** Much less: the best line is just as linear as a held gate and costs less than an eighth as much. So in
# layer 0, on such texts, linearity is not the main reason: a gate held at its mean is simply a bad line, no better than
# the same row at every token. In layers 1 to 3 the best line again costs less, but both cost little. In layers 4 and 5
# it is hardly better: linearity may be the reason there, or the fit (256 unknowns for each output, seven stories).
#
# In layers 1 to 4, each step alone costs about 0.1 nats or less. That does not make them idle: all four together cost
# twice the sum (question 3).
#
# **Predict.** A guess: layer 0's step says what the token is, whatever came before. If so, what does it cost to let the
# step read the *embedding* alone, without what attention added: nearly nothing, 1 nat, or nearly 4.9?

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
first = weights["layers"][0]
read = nl.rms_norm(weights["embedding"], first["ffn_norm"], config.norm_eps)          # (V, D)
table = nl.feed_forward(read, first["ffn"]["gate"], first["ffn"]["up"], first["ffn"]["down"])
counts = np.bincount(np.concatenate([ids[1:] for ids in find + more]), minlength=len(table))
met = np.count_nonzero(counts)                            # different tokens in the seven stories
order = np.argsort(-counts, kind="stable")                # the most frequent first
stories = [gathered(fit_runs, f"layers.0.{name}") for name in ("ffn_norm", "ffn.out")]
lines = {"to the seven stories, as above": best_line(*stories),
         f"to all {len(table):,} tokens, each once": best_line(read, table)}
print("                               nats    missed, in lengths of the right row (median):")
print("best line, fitted              more    50 most frequent    other met    never met")
for label, line in lines.items():
    missed = np.linalg.norm(read @ line - table, axis=1) / np.linalg.norm(table, axis=1)
    frequent, other, never = [np.median(missed[which]) for which in np.split(order, [50, met])]
    print(f"{label:30} {loss(follow_line(0, line)) - base:+.2f} {frequent:14.2f} {other:14.2f} "
          f"{never:12.2f}")
print(f"in our story, {np.sum(counts[story[1:]] == 0)} of {len(story) - 1} tokens are never met")
for name in ("embedding", "layers.0.attn.out"):
    lengths = np.linalg.norm(gathered(test_runs, name), axis=1)
    print(f"{name:18} median length of a row {np.median(lengths):5.1f}")

# %% [markdown]
# **Explain.** Nearly nothing. Layer 0's step hardly needs the context: it is close to a table with one row for each
# token. (That is partly a fact about the attention before it, which adds rows too short to matter.) Fitted to running
# text, a line comes nearest for the tokens that come most often, and misses those that it never met by more than their
# length; fitted to the whole table, it misses the frequent ones by all of theirs. So on such texts a line can stand in
# for most of the step (0.53 of 4.9 nats remain), but not for the table; a gate held at its mean can do neither.
#
# ## Neurons with a name
#
# Can we say what a single neuron does? A first idea: add up the sizes of its products, token by token, and see which
# token has the largest share. Four stories serve to *find* a name, a fifth and ours to *test* it: the best of 704
# neurons looks better than it is, by luck. The control is the same search with the tokens *shuffled*.
#
# **Predict.** The comma is the most frequent token, 5 % of the text: so much would a neuron have there that is active
# everywhere alike. How many neurons of layer 0 will have more than 30 % at one token: none, some tens, or most? And of
# the last layer?

# %%
vocabulary = figures.pieces(tokenizer, range(config.vocab_size))
find_ids, test_ids = [np.concatenate([ids[1:] for ids in texts]) for texts in (find, test)]


def share_of_tokens(products, ids):
    """Which part of each neuron's sum of |product| falls on each token: (N, F), (N,) -> (V, F)."""
    size = np.abs(products)
    sums = np.zeros((config.vocab_size, config.hidden_dim))
    for token in set(ids):
        sums[token] = size[ids == token].sum(axis=0)
    return sums / size.sum(axis=0)


shuffled = np.random.default_rng(0).permutation(find_ids)
favourite, found, held = {}, {}, {}
print(f"{len(find_ids):,} tokens to find on, {len(test_ids):,} to test on; the comma: "
      f"{np.mean(find_ids == tokenizer.sp.piece_to_id(',')):.0%}")
print("more than 30 %                        in the other texts")
print("at one token   shuffled  found  that token occurs  still 30 %, such as")
for i in range(config.n_layers):
    to_find, to_test = [gathered(runs, f"layers.{i}.ffn.hidden") for runs in (find_runs, test_runs)]
    shares = share_of_tokens(to_find, find_ids)
    favourite[i] = shares.argmax(axis=0)                              # (F,): a token for each
    found[i] = shares.max(axis=0)
    held[i] = share_of_tokens(to_test, test_ids)[favourite[i], range(config.hidden_dim)]
    by_luck = share_of_tokens(to_find, shuffled).max(axis=0)
    occurs = np.sum((found[i] > 0.3) & np.isin(favourite[i], test_ids))
    good = np.flatnonzero((found[i] > 0.3) & (held[i] > 0.3))
    good = good[np.argsort(-found[i][good])]              # the clearest first
    names = dict.fromkeys(vocabulary[favourite[i][j]].strip() for j in good)      # each once
    print(f"layer {i} {np.sum(by_luck > 0.3):15} {np.sum(found[i] > 0.3):6} {occurs:18} "
          f"{len(good):7}   " + "  ".join(list(names)[:8]))
table_of_products = swish(read @ first["ffn"]["gate"]) * (read @ first["ffn"]["up"])      # (V, F)
dealt = np.random.default_rng(0).permutation(table_of_products)[find_ids]
by_luck = share_of_tokens(dealt, find_ids).max(axis=0)
print(f"layer 0's table, its rows dealt anew: {np.sum(by_luck > 0.3)} found")

# %% [markdown]
# So there are candidates: 82 neurons in layer 0 and 8 in the last. For 68 and 8 the token occurs in the other texts,
# and 44 and 5 hold there (`<0x0A>` is the line break). In layer 0 that alone is no find: a table with its rows dealt
# anew has as many. (Dealt anew, *the* has another token's row, but the same each time; shuffled, a random one each
# time.) So the 82 say that the step depends on the token, which we knew; they do not say that the tokens its neurons
# prefer make sense. And a name such as "the neuron for *the*" says more than "active there": it says that the neuron
# *matters* there, and not elsewhere. That can be tested: silence it at *the* only, and at all other tokens only, and
# see which of the two moves the loss, up or down.
#
# We test the best candidate for *the* in layer 0, and the best for the comma in the last layer; as a control, three
# neurons of the same layer, drawn at random, for the same token.
#
# **Predict.** A good name has nearly all of the change at its token; a neuron that treats all tokens alike has there
# what the token has of the text, a few percent. Will both pass?

# %%
def silence(layer, neuron, places):
    """A tap that sets one neuron's product to 0 at some places: a (T,) of True and False."""
    def tap(name, x):
        if name == f"layers.{layer}.ffn.hidden":
            x = x.copy()
            x[places, neuron] = 0
        return x
    return tap


def nats(ids, tap=nl.ignore):                             # of each token but the first
    logits = nl.forward(ids, weights, config, tap=tap)
    return nl.cross_entropy(logits[:-1], ids[1:])


untouched = [nats(ids) for ids in test]


def mean_change(layer, neuron, token, there):
    """Mean |change| of the loss at all places; the neuron is silent at a token, or elsewhere."""
    changes = []
    for ids, before in zip(test, untouched):
        places = (np.array(ids) == token) == there
        places[0] = False                                 # never at <s>
        changes.append(np.abs(nats(ids, silence(layer, neuron, places)) - before))
    return np.concatenate(changes).mean()


# %%
rng = np.random.default_rng(0)
print("                        active there    mean |change|, silent    share")
print("                        found   test    at it     elsewhere      at it")
for i, piece in ((0, "▁the"), (config.n_layers - 1, ",")):
    token = tokenizer.sp.piece_to_id(piece)
    best = int(np.argmax(np.where(favourite[i] == token, found[i], 0)))
    others = np.delete(np.arange(config.hidden_dim), best)
    shares = []
    for j in [best, *rng.choice(others, 3, replace=False)]:
        at_it, elsewhere = [mean_change(i, j, token, there) for there in (True, False)]
        shares.append(at_it / (at_it + elsewhere))
        if j == best:
            change = f"{at_it:11.4f} {elsewhere:11.4f} {shares[0]:12.0%}"
    print(f"layer {i}, {best}, {piece!r:6} {found[i][best]:8.0%} {held[i][best]:6.0%} {change}")
    products = gathered(find_runs, f"layers.{i}.ffn.hidden")
    usual = np.median(share_of_tokens(products, find_ids)[token])
    print(f"  three at random: {min(shares[1:]):.1%} to {max(shares[1:]):.1%}; the token is "
          f"{np.mean(test_ids == token):.0%} of the text; the median neuron: {usual:.1%} active")

# %% [markdown]
# **Explain.** The neuron for *the* passes: of its two changes added up, 98 % comes from silencing it at *the*. Those
# at random have 0.2 %: the median neuron of layer 0 is hardly active there.
#
# The comma neuron does not pass: its work at commas makes more of the change than that of a neuron drawn at random, but
# only 29 %. "The comma neuron" says too much.
#
# **Explore** ([explorer](explorer/README.md)). The neuron for *the*, token by token. Type other texts, switch it off,
# and see what the model expects then:
#
#     python notebooks/explorer/build.py --open "#p=The+king+and+the+queen&t=layers.0.ffn.hidden&i=4.595&tab=neuron"
#
# ## How wide is F?
#
# The plain step of the first Transformer has two matrices, D × 4D and 4D × D. With a gate there are three of D × F. To
# keep the number of parameters, the GLU paper (section 2) takes two thirds of 4D for F; LLaMA (section 2.2) does the
# same. The code then rounds up to a multiple of 256 (`multiple_of`). For the largest Llama 2, `params.json` says 1.3 (a
# factor before rounding) and 4,096: a wider F makes up, and more, for what shared keys and values save (Llama 2,
# appendix A.2.1; lesson [05](05_grouped_query_attention.ipynb)).
#
# **Predict.** D is 4,096 for 7B. What is F? (Two thirds of 4 · 4,096 is `10,922.67`.)

# %%
def width(dim, multiple_of=256, multiplier=1.0):
    hidden = int(multiplier * int(2 * 4 * dim / 3))
    return math.ceil(hidden / multiple_of) * multiple_of


rules = {"7B": (4096, 256, 1.0), "13B": (5120, 256, 1.0), "33B": (6656, 256, 1.0),
         "65B": (8192, 256, 1.0), "70B": (8192, 4096, 1.3), "Llama 3 8B": (4096, 1024, 1.3),
         "this model": (256, 64, 1.0)}
for label, rule in rules.items():
    dim, F = rule[0], width(*rule)
    print(f"{label:10} D {dim:5}  two thirds of 4D {8 * dim / 3:8.1f}  F {F:5}  "
          f"3·D·F is {3 * F / (8 * dim):.2f} of 2·D·4D")
for name in ("llama-2-7b", "llama-2-70b"):
    counts = nl.parameter_counts(nl.PRESETS[name])
    print(f"{name}: {counts['feed-forward'] / sum(counts.values()):.0%} of all parameters are here")

# %% [markdown]
# ## In the wild
#
# - **Gate and up exchanged.** Both are (D, F), so nothing complains. (In Meta's files gate, up and down are w1, w3 and
#   w2.) A library's mixture-of-experts layers computed silu(up) · gate for a while
#   ([mlx-lm#767](https://github.com/ml-explore/mlx-lm/pull/767)).
# - **Fused matrices.** Some files store gate and up as one matrix, side by side (exercise 2) or one column of each
#   in turns. A program that expected the one and was given the other wrote garbage
#   ([vllm#29273](https://github.com/vllm-project/vllm/pull/29273)).
#
# What the exchange costs here, and what another activation costs:

# %%
layers = [layer | {"ffn": {"gate": layer["ffn"]["up"], "up": layer["ffn"]["gate"],
                           "down": layer["ffn"]["down"]}} for layer in weights["layers"]]
ways = {"as trained": base,
        "GELU for Swish": loss(change_silu(gelu)),
        "ReLU for Swish": loss(change_silu(lambda g: np.maximum(g, 0))),
        "gate and up exchanged": loss(weights=weights | {"layers": layers}),
        "sigmoid for Swish (GLU)": loss(change_silu(sigmoid)),
        "no activation: gate × up": loss(change_silu(lambda g: g))}
for label, value in ways.items():
    print(f"{label:25} {value:.2f} nats per token")
print(f"{'guessing':25} {np.log(config.vocab_size):.2f}")

# %% [markdown]
# These numbers say what *this* model, trained with Swish, makes of another function, not which one is best: for that,
# each has to be trained. The GLU paper did so (table 1): after the long run, all gated forms are ahead of the plain
# ones, even the one without any activation, *Bilinear*, that costs 2 nats here. (A product of two linear maps bends as
# well.) It offers no explanation (section 4).
#
# ## Questions
#
# **1.** A neuron's up is −3 for some token and its gate is 4. Does the neuron fire? What does it add to the stream?
#
# <details>
# <summary>Answer</summary>
#
# Yes. The gate is open, Swish(4) is about 4, and the product is about −12: it adds its row of down minus twelve times.
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
# case the result changes, as Swish is not linear: Swish(10 g) is not 10 Swish(g), except at 0, and nearly so where the
# gate is far open or far shut.
#
# </details>
#
# **3.** Deleting the steps of layers 1 to 4 costs about 0.1 nats each, and all four together twice the sum. Name two
# possible reasons. And what could it mean if four together had cost *less* than the sum?
#
# <details>
# <summary>Answer</summary>
#
# More than the sum: they can stand in for each other, one at a time; or later layers can bear one small disturbance of
# the stream, but not four (no shared work is needed for that). Less: a chain. Without the first, the second has nothing
# to work on. The numbers alone do not tell which.
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
# A small part of the neurons makes half of all added length. What does a step add with the k strongest *of each token*?
# Measure a neuron by the length (the root of the sum of squares) of the row that it *adds*. Keep the k longest
# additions, separately for each token, and add up only those. No two are equally long here.

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
# 2. SwiGLU is Swish(gate) · up, sent through down: closed, a gate passes at most 0.28 of the up; open, what it says.
# 3. Closed gates are not silent: zeroing them in layers 1 to 5 costs 0.14 nats, the open ones 1 (in all, 0.16 and 6).
# 4. In this model layer 0's step hardly needs context (0.03 nats): it is close to a table with a row for each token.
# 5. A neuron's name is a guess. Silence it at its token, and elsewhere: if elsewhere moves the loss too, the name says
#    too much; if not, it has passed one test.
