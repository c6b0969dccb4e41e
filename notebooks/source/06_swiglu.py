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
# | **The question** | What does a token do with what attention brought it? |
# | **You will be able to** | compute SwiGLU from three matrices; say what the gate adds to an activation; work out F for every Llama; find a neuron that can be named, and test the name |
# | **It assumes** | lesson [02](02_rmsnorm.ipynb); the sigmoid 1 / (1 + exp(−x)) |
# | **Minutes** | 45 |
#
# T tokens, D model width, F feed-forward width, V vocabulary, L layers.

# %% tags=["hide"]
import math

import checks
import figures
import ipywidgets
import numpy as np
from course import SENTENCE, STORY, config, exact, loss, nl, tokenizer, weights

check = checks.lesson("06")

# %% [markdown]
# ## The other half of a layer
#
# After attention has brought words together, each token is worked on by itself: D numbers are spread out to F,
# something not linear happens, and F are brought back to D. More than half of this model's parameters are in that step,
# and two thirds of a large one's. The plain form has two matrices and an *activation* between them; the GLU paper
# (section 2) compares activations. Those that matter here:
#
# $$\mathrm{ReLU}(x) = \max(x, 0), \qquad \mathrm{GELU}(x) = x\,\Phi(x), \qquad \mathrm{Swish}_\beta(x) = x\,\sigma(\beta x)$$
#
# σ is the sigmoid, Φ the normal distribution's cumulative function. Swish with β = 1 is also called SiLU.
#
# **Predict.** Where does Swish come closest to ReLU: at small β or at large? What is it at β = 0?

# %%
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def swish(x, beta=1.0):
    return x * sigmoid(beta * x)


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


x = np.linspace(-5, 5, 201)
print(f"Swish is smallest at {x[swish(x).argmin()]:.2f}, where it is {swish(x).min():.2f}; "
      f"GELU at {x[gelu(x).argmin()]:.2f}, {gelu(x).min():.2f}")


def draw(beta):
    figure, ax = figures.new(2.9)
    curves = {"ReLU": np.maximum(x, 0), "GELU": gelu(x), f"Swish, β {beta:g}": swish(x, beta)}
    for label, y in curves.items():
        ax.plot(x, y, label=label)
    ax.legend(loc="upper left"), ax.set(xlabel="x", ylim=(-1.2, 5))
    figures.show(figure, "All let large numbers through and hold negative ones back; the larger β, "
                         "the nearer Swish comes to ReLU, and at β 0 it is x/2.")


draw(1.0)

# %% tags=["sliders"]
ipywidgets.interact(draw, beta=(0.0, 8.0, 0.5));

# %% [markdown]
# ## A gate
#
# A *gated linear unit* has two matrices where the plain form has one, and multiplies what comes out of them (section 2,
# equations 4 to 6):
#
# $$\mathrm{GLU}(x) = \sigma(xW) \otimes xV, \qquad \mathrm{SwiGLU}(x) = \mathrm{Swish}_1(xW) \otimes xV$$
#
# $$\mathrm{FFN}_{\mathrm{SwiGLU}}(x) = \big(\mathrm{Swish}_1(xW) \otimes xV\big)\, W_2$$
#
# LLaMA (section 2.2) takes SwiGLU. In its files W is called *gate*, V *up* and W₂ *down*.
#
# **Predict.** If the gate is strongly negative, does it matter what *up* says? If both are doubled, what happens to
# the product?

# %%
tokens = tokenizer.encode(SENTENCE)
words = figures.pieces(tokenizer, tokens)
trace = nl.Trace()
nl.forward(tokens, weights, config, tap=trace)

layer, ffn = 2, weights["layers"][2]["ffn"]
h = trace[f"layers.{layer}.ffn_norm"]                     # (T, D): the normalised rows
gate, up = h @ ffn["gate"], h @ ffn["up"]                 # (T, F) each
hidden = gate / (1 + np.exp(-gate)) * up                  # (T, F)
out = hidden @ ffn["down"]                                # (T, D)

for name, ours in (("gate", gate), ("up", up), ("hidden", hidden), ("out", out)):
    print(f"{name:6} {str(ours.shape):10} the same numbers as in the model: "
          f"{np.allclose(ours, trace[f'layers.{layer}.ffn.{name}'], atol=1e-5)}")
print("and as the function:", np.allclose(out, nl.feed_forward(h, **ffn), atol=1e-5))

# %%
figures.show(figures.gate_surface(gate.ravel(), up.ravel()),
             "Left, what comes out for every gate and up: flat where the gate is closed, a product "
             "where it is open. Right, where this layer's T times F pairs really lie.")

# %% [markdown]
# **Explain.** A closed gate lets nothing through. An open one multiplies: doubling both makes four times as much. A
# plain activation can only pass on what it is given; a product of two views of a token can say *this and that*.
#
# ## Which gates open?
#
# A gate is *open* here if it is above 0.
#
# **Predict.** F is 704. For one token, how many gates are open? And how few of the products carry half of the sum of
# all squares?

# %%
story = tokenizer.encode(STORY)
seen = nl.Trace()
nl.forward(story, weights, config, tap=seen)
for i in range(config.n_layers):
    opened = np.mean(seen[f"layers.{i}.ffn.gate"] > 0)
    squares = np.sort(seen[f"layers.{i}.ffn.hidden"] ** 2, axis=-1)[:, ::-1]
    share = np.cumsum(squares, axis=-1) / squares.sum(-1, keepdims=True)
    half, most = (1 + np.mean((share < part).sum(-1)) for part in (0.5, 0.9))
    print(f"layer {i}: {opened:.0%} open; half of the squares in {half:3.0f} products, "
          f"90 % in {most:3.0f}")

# %%
strongest = np.argsort(-np.abs(hidden).max(axis=0))[:34]
strongest = strongest[np.argsort(np.abs(hidden[:, strongest]).argmax(axis=0))]
figure, ax = figures.new(3.8)
figures.matrix(ax, hidden[:, strongest], rows=words, title=f"ffn.hidden of layer {layer}", limit=4)
ax.set_xlabel("34 of F neurons, those with the largest products, in the order of their tokens")
figures.show(figure, "Each column is a neuron: most speak up at one or two words and are silent at "
                     "the others.")

# %% [markdown]
# **Explain.** A fifth to two fifths of the gates are open, and a small part of those does most of the work. In layer 0
# it is a handful: that step mostly writes, for each token, what the token is.
#
# ## Neurons that can be named
#
# One column of gate, the same column of up and one row of down are a *neuron*. Can we say what one does? We let
# the model tell eight stories (in float64, so that a seed tells the same one on every processor), and ask for each
# neuron of a layer: what share of all it ever said falls on its favourite token?
#
# **Predict.** In which layers will there be neurons for one word: in the first or in the last?

# %%
prompt = tokenizer.encode("Once upon a time")
texts = [story]
for seed in range(8):
    rng = np.random.default_rng(seed)
    texts.append(prompt + list(nl.generate(prompt, exact, config, 200, rng, temperature=0.8)))
runs = [nl.Trace() for _ in texts]
for ids, run in zip(texts, runs):
    nl.forward(ids, weights, config, tap=run)
ids = np.concatenate(texts)                               # (N,) all tokens of all texts
vocabulary = figures.pieces(tokenizer, range(config.vocab_size))
one_hot = np.zeros((config.vocab_size, len(ids)), np.float32)
one_hot[ids, np.arange(len(ids))] = 1


def favourites(layer):
    """For each neuron: its favourite token, and that token's share of its size: (F,), (F,)."""
    size = np.abs(np.concatenate([run[f"layers.{layer}.ffn.hidden"] for run in runs]))   # (N, F)
    per_token = one_hot @ size                            # (V, F)
    return per_token.argmax(axis=0), per_token.max(axis=0) / size.sum(axis=0)


print(f"{len(ids):,} tokens of {len(texts)} texts")
for i in range(config.n_layers):
    token, share = favourites(i)
    best = np.argsort(-share)[:3]
    names = ",  ".join(f"{j} for {vocabulary[token[j]].strip()!r} {share[j]:.0%}" for j in best)
    print(f"layer {i}: {np.sum(share > 0.3):2} neurons above 30 %; best: {names}")

# %% [markdown]
# **Explain.** Layer 0 has dozens of neurons for a single token; it has seen little else than the token itself. Further
# on neurons answer to a *situation*, and a share of one token is the wrong question. So look at where a neuron of the
# last layer speaks, and at what it writes: its row of down, read through the last norm and the output matrix, points at
# pieces.

# %%
def written(layer, neuron, count=6):
    """The pieces whose logits a neuron raises and lowers most when its product is positive."""
    row = weights["layers"][layer]["ffn"]["down"][neuron] * weights["norm"]    # (D,)
    order = np.argsort(row @ weights["output"])
    return [[vocabulary[i].strip() for i in some] for some in (order[::-1][:count], order[:count])]


def spoken(layer, neuron, count=5):
    """The places where a neuron is strongest, with what came before and after."""
    size = np.concatenate([run[f"layers.{layer}.ffn.hidden"][:, neuron] for run in runs])
    for at in np.argsort(-np.abs(size))[:count]:
        before = "".join(vocabulary[i] for i in ids[max(at - 5, 0):at + 1]).replace("<0x0A>", "/")
        after = vocabulary[ids[at + 1]].replace("<0x0A>", "/") if at + 1 < len(ids) else ""
        print(f"   {size[at]:+6.1f}  {before:>36} |{after}")


last = config.n_layers - 1
token, share = favourites(last)
chosen = [int(j) for j in np.argsort(-share)[:3]]
for j in chosen:
    raises, lowers = written(last, j)
    print(f"layer {last}, neuron {j}: raises {' '.join(raises)}; lowers {' '.join(lowers)}")
    spoken(last, j)

# %% [markdown]
# A negative product turns the two lists round. So after a line break, `<0x0A>` (drawn as /), the first neuron raises
# another one: a paragraph ends with two. The third is strongly negative after a comma, and holds back what cannot
# follow it, another mark. The second has no clear name.
#
# Names are guesses until they are tested. Silence the first of these three, and see at which tokens of the stories the
# loss moves.

# %%
def silence(layer, neuron):
    def tap(name, x):
        if name == f"layers.{layer}.ffn.hidden":
            x = x.copy()                                  # a tapped array is never changed in place
            x[:, neuron] = 0
        return x
    return tap


def nats(tap):
    logits = [nl.forward(text, weights, config, tap=tap)[:-1] for text in texts]
    return np.concatenate([nl.cross_entropy(x, text[1:]) for x, text in zip(logits, texts)])


changed = nats(silence(last, chosen[0])) - nats(nl.ignore)
now = np.concatenate([text[:-1] for text in texts])       # the token after which is predicted
at_it = now == token[chosen[0]]
print(f"after {vocabulary[token[chosen[0]]]}: {changed[at_it].mean():+.3f} nats "
      f"at {at_it.sum()} places; elsewhere {abs(changed[~at_it].mean()):.3f} at {np.sum(~at_it):,}")

# %% [markdown]
# **Explain.** The effect is where the name says, and nowhere else; and it is small, as other neurons do the same. Few
# neurons pass such a test: most take part in many things.
#
# ## How wide is F?
#
# With a gate there are three matrices of D × F instead of two of D × 4D. So that the parameters stay the same, LLaMA
# (section 2.2) takes two thirds of 4D. The code rounds up to a multiple of 256 (`multiple_of`), and for the largest
# Llama 2 multiplies by 1.3 first and rounds to 4,096.
#
# **Predict.** D is 4,096 for 7B. What is F?

# %%
def width(dim, multiple_of=256, multiplier=1.0):
    hidden = int(multiplier * int(2 * 4 * dim / 3))
    return -(-hidden // multiple_of) * multiple_of        # rounded up


for label, dim, extra in (("7B", 4096, {}), ("13B", 5120, {}), ("33B", 6656, {}), ("65B", 8192, {}),
                          ("70B", 8192, {"multiple_of": 4096, "multiplier": 1.3}),
                          ("this model", 256, {"multiple_of": 64})):
    F = width(dim, **extra)
    print(f"{label:10} D {dim:5}  two thirds of 4D {8 * dim / 3:8.1f}  F {F:5}  "
          f"3·D·F is {3 * F / (8 * dim):.2f} of 2·D·4D")
print(f"70B with multiple_of 256 would have F {width(8192, 256, 1.3):,}")
print("as in PRESETS:", {c.hidden_dim for c in nl.PRESETS.values()}
      == {width(d) for d in (4096, 5120, 6656, 8192)} | {width(8192, 4096, 1.3)})

# %% [markdown]
# ## Hold the gate open
#
# What does the gate do for this model? A tap can replace `ffn.silu` in all layers.
#
# **Predict.** Order these by loss: the gate as it is; ReLU in its place; GELU; the sigmoid of GLU; each gate held at
# its mean; all gates held at 1.

# %%
means = {name: x.mean(axis=0) for name, x in seen.items() if name.endswith("ffn.silu")}


def instead(function):
    """A tap that computes ffn.silu anew from ffn.gate: function(gate, name) -> (T, F)."""
    before = {}

    def tap(name, x):
        if name.endswith("ffn.gate"):
            before["gate"] = x
        if name.endswith("ffn.silu"):
            x = np.broadcast_to(function(before["gate"], name), x.shape).astype(np.float32)
        return x
    return tap


ways = {"Swish, as trained": loss(),
        "GELU": loss(instead(lambda gate, name: gelu(gate))),
        "ReLU": loss(instead(lambda gate, name: np.maximum(gate, 0))),
        "sigmoid (GLU)": loss(instead(lambda gate, name: sigmoid(gate))),
        "no activation: gate × up": loss(instead(lambda gate, name: gate)),
        "held at its mean": loss(instead(lambda gate, name: means[name])),
        "held at 1": loss(instead(lambda gate, name: 1))}
for label, value in ways.items():
    print(f"{label:25} {value:.2f} nats per token")

# %%
figure, ax = figures.new(2.7)
figures.bars(ax, ways, ".2f", marked=["held at its mean", "held at 1"])
ax.axvline(np.log(config.vocab_size), color=figures.GREY, linestyle=":", linewidth=1.2)
ax.set(xlabel="nats per token (dotted: guessing)")
figures.show(figure, "Another activation of the same shape is bearable; a gate that does not move "
                     "(hatched) is not.")

# %% [markdown]
# **Explain.** Without a gate that moves, the step is linear: whatever F is, one D × D matrix could do the same. GELU
# and Swish look alike, and the model hardly minds; it was not trained for either of the others.
#
# ## In the wild
#
# - **Gate and up exchanged.** Both are (D, F), so no shape complains. Meta calls them w1 and w3, and down w2; whoever
#   takes w1, w2, w3 for gate, up, down is stopped by a shape only where D ≠ F. What the exchange costs is printed
#   below.
# - **A table of GPT-3's sizes** is often shown for Llama. GPT-3 has no gate, so its F is 4D; and its 13B has D = 5140.
# - **Fused matrices.** Some files store gate and up as one matrix of 2F columns, and programs differ in which half is
#   the gate.

# %%
layers = [layer | {"ffn": {"gate": layer["ffn"]["up"], "up": layer["ffn"]["gate"],
                           "down": layer["ffn"]["down"]}} for layer in weights["layers"]]
print(f"loss {loss():.2f}, gate and up exchanged {loss(weights=weights | {'layers': layers}):.2f}")

# %% [markdown]
# ## Exercises
#
# Fill in each function; `check` runs it on several inputs, and says what a wrong answer looks like.
#
# ### 1. The width
#
# Two thirds of 4 · dim is cut to a whole number, and so is its product with `multiplier`.

# %% tags=["exercise"]
def feed_forward_width(dim, multiple_of, multiplier):
    """F: two thirds of 4 dim, times multiplier, rounded up to a multiple: -> int."""
    ...

# %%
check(feed_forward_width)

# %% tags=["solution"]
def feed_forward_width(dim, multiple_of, multiplier):
    hidden = int(multiplier * int(2 * 4 * dim / 3))
    return (hidden + multiple_of - 1) // multiple_of * multiple_of

# %% [markdown]
# ### 2. SwiGLU

# %% tags=["exercise"]
def swiglu(x, gate, up, down):
    """The feed-forward step: (T, D), (D, F), (D, F), (F, D) -> (T, D)."""
    ...

# %%
check(swiglu)

# %% tags=["solution"]
def swiglu(x, gate, up, down):
    g = x @ gate
    return (g / (1 + np.exp(-g)) * (x @ up)) @ down

# %% [markdown]
# ### 3. How few do the work?
#
# For each token: how many of the F products, largest first, does it take until the sum of their squares reaches `share`
# of the sum of all?

# %% tags=["exercise"]
def neurons_needed(hidden, share):
    """Number of products per token: (T, F), number -> (T,)."""
    ...

# %%
check(neurons_needed)

# %% tags=["solution"]
def neurons_needed(hidden, share):
    squares = np.sort(hidden ** 2, axis=-1)[:, ::-1]
    reached = np.cumsum(squares, axis=-1) >= share * squares.sum(axis=-1, keepdims=True)
    return reached.argmax(axis=-1) + 1

# %% [markdown]
# ## In five lines
#
# 1. SwiGLU multiplies two views of a token, Swish of the one and the other as it is, and projects the product back.
# 2. A gate below zero lets next to nothing through; for each token a fifth to two fifths of them are open.
# 3. F is two thirds of 4D, rounded up, so that three matrices cost what two did.
# 4. Some neurons can be named; a name is a guess until silencing the neuron shows the effect where the name says.
# 5. A gate that does not move makes the step linear, and the model useless.
