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
# # 7. The whole forward pass
#
# | | |
# | --- | --- |
# | **The question** | How do the parts together make a prediction, and which of them made this one? |
# | **You will be able to** | write the forward pass of a Llama from its parts; take a logit apart into what each step added; count its arithmetic; prove a port right, or name the first tensor that is wrong; find which heads carry a fact |
# | **It assumes** | lessons [02](02_rmsnorm.ipynb) to [06](06_swiglu.ipynb) |
# | **Minutes** | 70 |
#
# T tokens (S is the same here), D model width, F feed-forward width, V vocabulary, H query heads, G key/value heads,
# d head width, L layers.

# %% tags=["hide"]
import json
import time
from dataclasses import replace

import checks
import figures
import ipywidgets
import numpy as np
import pencil
from course import FOLDER, ROOT, SENTENCE, STORY, config, loss, nl, tokenizer, weights
from safetensors.numpy import load_file

check = checks.lesson("07")

# %% [markdown]
# ## The model on half a page
#
# Picture a table with one row for each token. Every layer does two things to it. Attention lets the rows exchange
# something and *adds* the result to each row; the feed-forward step works on each row alone and *adds* its result,
# too. At the end each row is turned into V scores, the *logits*, one for each token that could come next. Every part
# has had its lesson; put together, they are short.
#
# **Predict.** In which of the lines below does a row learn anything about another row? How many such lines are there?

# %%
def my_forward(tokens, weights, config):                  # (T,) -> (T, V)
    positions = np.arange(len(tokens))
    cos, sin = nl.rope_cos_sin(positions, config.head_dim, config.rope_theta)
    mask = nl.causal_mask(positions, len(tokens))
    x = weights["embedding"][tokens]                      # (T, D): the residual stream
    for layer in weights["layers"]:
        h = nl.rms_norm(x, layer["attn_norm"], config.norm_eps)
        q = nl.split_heads(h @ layer["attn"]["wq"], config.head_dim)          # (H, T, d)
        k = nl.split_heads(h @ layer["attn"]["wk"], config.head_dim)          # (G, T, d)
        v = nl.split_heads(h @ layer["attn"]["wv"], config.head_dim)          # (G, T, d)
        heads = nl.attention(nl.rope(q, cos, sin), nl.rope(k, cos, sin), v, mask)
        x = x + nl.merge_heads(heads) @ layer["attn"]["wo"]               # attention adds
        h = nl.rms_norm(x, layer["ffn_norm"], config.norm_eps)
        hidden = nl.silu(h @ layer["ffn"]["gate"]) * (h @ layer["ffn"]["up"])     # (T, F)
        x = x + hidden @ layer["ffn"]["down"]                             # feed-forward adds
    x = nl.rms_norm(x, weights["norm"], config.norm_eps)
    return x @ weights["output"]


story = tokenizer.encode(STORY)
off = np.abs(my_forward(story, weights, config) - nl.forward(story, weights, config)).max()
print(f"T {len(story)}: the same logits as nl.forward, within 0.0001: {off < 1e-4}")

# %% [markdown]
# **Explain.** In one: `nl.attention`. All others work on each row by itself. That can be tested without reading the
# code: change one token, and see in which rows each value changes first.

# %%
def changed_rows(name, a, b):
    """In which rows a value differs between two traces; heads come first in some shapes."""
    apart = a[name] != b[name]
    if apart.ndim == 3:                                   # (H, T, d)
        apart = apart.any(axis=0)
    return np.flatnonzero(apart.any(axis=-1)).tolist()


one, other = nl.Trace(), nl.Trace()
nl.forward(tokenizer.encode("The king was so angry that"), weights, config, tap=one)
nl.forward(tokenizer.encode("The queen was so angry that"), weights, config, tap=other)
for name in ("embedding", "layers.0.attn_norm", "layers.0.attn.v", "layers.0.attn.heads",
             "layers.0.x_attn", "layers.0.ffn.hidden", "logits"):
    print(f"{name:20} differs in rows {changed_rows(name, one, other)}")

# %% [markdown]
# ## A running sum
#
# The Transformer puts a residual connection around each sub-layer (*Attention is all you need*, section 3.1). With the
# norm moved to the input of each sub-layer (LLaMA, section 2.2), the stream is a plain sum. With $e$ the embedding,
# $a_i$ and $f_i$ what attention and feed-forward of layer $i$ add:
#
# $$x = e + \sum_{i=0}^{L-1} (a_i + f_i), \qquad \mathrm{logits} = \Big(\frac{x}{\mathrm{RMS}(x)} \odot g\Big)\, W$$
#
# ### With a pencil
#
# One layer, D = 2, two possible next words, g = 1 (and eps = 0):
#
# $$e = (2, 1), \quad a = (1, 2), \quad f = (-2, 4), \qquad
# W_{he} = \begin{pmatrix} 0 \\ 10 \end{pmatrix}, \quad W_{she} = \begin{pmatrix} 5 \\ 5 \end{pmatrix}$$
#
# The sum is $x = (1, 7)$. Its mean square is $(1 + 49)/2 = 25$, so $\mathrm{RMS}(x) = 5$. The logits are
# $7 \cdot 10 / 5 = 14$ for *he* and $(5 + 35) / 5 = 8$ for *she*: *he* wins by 6. Who did it? Send each addend
# through the same division and the same difference of columns, $W_{he} - W_{she} = (-5, 5)$:
# $e$ gives $(-10 + 5)/5 = -1$, $a$ gives $(-5 + 10)/5 = 1$, and $f$ gives $(10 + 20)/5 = 6$. The three shares add up to
# 6 again: the feed-forward step did it, against the embedding.

# %%
e, a, f = np.array([[2.0, 1.0], [1.0, 2.0], [-2.0, 4.0]])
w_he, w_she = np.array([[0.0, 10.0], [5.0, 5.0]])
size = np.sqrt(np.mean((e + a + f) ** 2))
print("size", size, " logits", (e + a + f) / size @ w_he, (e + a + f) / size @ w_she)
print("shares", *[y / size @ (w_he - w_she) for y in (e, a, f)])

# %% [markdown]
# ### The Llama for pencil
#
# Now the whole pass of the [handout](handout.pdf), to its last three steps. For *and*, the stream starts at
# $(-3.5, 0.5)$; attention adds $(0, -2.01)$, the feed-forward step $(11.5, 0)$. Its logits of *dogs* and *and* differ
# by the columns $(1, -1) - (-1, 0) = (2, -1)$, those of *dogs* and *cats* by $(1, -1) - (1, 1) = (0, -2)$. Which of the
# three addends can matter for *dogs* against *cats*, and which for *dogs* against *and*?

# %%
run = pencil.run()
e, a, f = (run[name][-1] for name in ("embedding", "layers.0.attn.out", "layers.0.ffn.out"))
size = np.sqrt(np.mean((e + a + f) ** 2))
logits = my_forward(pencil.PROMPT, pencil.weights, pencil.config)[-1]
print("sum   ", (e + a + f).round(2), "size", size.round(2), "norm", run["norm"][-1].round(2))
print("logits", dict(zip(pencil.NAMES, logits.round(2).tolist())))
print("next  ", dict(zip(pencil.NAMES, nl.softmax(logits).round(2).tolist())))
columns = dict(zip(pencil.NAMES, pencil.weights["output"].T))
for other in ("cats", "and"):
    between = columns["dogs"] - columns[other]
    parts = [y / size * pencil.weights["norm"] @ between for y in (e, a, f)]
    print(f"dogs against {other:4}: embedding {parts[0]:+.2f}, attention {parts[1]:+.2f}, "
          f"feed-forward {parts[2]:+.2f}")

# %% [markdown] tags=["result"]
# Attention decides which noun it is, against a small push of the embedding. That a noun comes, and not *and* again, is
# mostly the work of the feed-forward step. The probabilities are those on the handout: the pass is complete.

# %% [markdown]
# ### In the model
#
# **Predict.** The trace holds all the addends. If we add them up, one after the other, how near do we come to the
# model's own stream: to one percent, to six digits, to the last bit?

# %%
KING = tokenizer.encode("The king was so angry that")
QUEEN = tokenizer.encode("The queen was so angry that")
traces = {}
for label, tokens in (("king", KING), ("queen", QUEEN)):
    traces[label] = nl.Trace()
    nl.forward(tokens, weights, config, tap=traces[label])

added = ["embedding"]
added += [f"layers.{i}.{step}.out" for i in range(config.n_layers) for step in ("attn", "ffn")]
last = f"layers.{config.n_layers - 1}.x_ffn"

trace = traces["king"]
x = trace["embedding"]
for name in added[1:]:
    x = x + trace[name]
backwards = sum(trace[name] for name in added[::-1])
print(f"{len(added)} addends; their sum is {last}, bit for bit: {np.array_equal(x, trace[last])}")
print(f"added up backwards, bit for bit: {np.array_equal(backwards, trace[last])},",
      f"to six digits: {np.abs(backwards - trace[last]).max() < 1e-6 * np.abs(x).max()}")

# %%
figure = figures.addends({name: trace[name][-1, :32] for name in added},
                         {"the sum": trace[last][-1, :32]})
figures.show(figure, "32 of D columns of the stream at the last token, \"that\": each row is what "
                     "one step adds; the row below is their sum.")

# %% [markdown]
# **Explain.** To the last bit, if the order is the same. The sum of float32 numbers depends on their order, but only
# in the last digits.
#
# ## Who made this prediction?
#
# After "The king was so angry that" the model expects *he*, after "The queen ..." it expects *she*. As with the pencil,
# the difference of the two logits is a sum, with one share for each addend:
#
# $$\mathrm{logit}_{he} - \mathrm{logit}_{she} = \sum_{\text{addends } y} \Big(\frac{y}{\mathrm{RMS}(x)} \odot g\Big) \cdot (W_{he} - W_{she})$$
#
# Why a difference? Softmax does not change when all logits rise together, so a single logit says little.
#
# **Predict.** The two prompts differ in one word. Which steps at the last token, "that", know which word it was: the
# first layers, which have just read it, or the last?

# %%
HE, = tokenizer.encode("he", bos=False)
SHE, = tokenizer.encode("she", bos=False)
direction = weights["output"][:, HE] - weights["output"][:, SHE]                  # (D,)


def he_minus_she(logits):                                 # (T, V) -> number
    return float(logits[-1, HE] - logits[-1, SHE])


shares = {}
for label, trace in traces.items():
    x = trace[last][-1]                                   # (D,)
    size = np.sqrt(np.mean(x * x) + config.norm_eps)
    shares[label] = {name: float(trace[name][-1] / size * weights["norm"] @ direction)
                     for name in added}
    print(f"{label:6} sum of the shares {sum(shares[label].values()):+.2f}, "
          f"he minus she in the logits {he_minus_she(trace['logits']):+.2f}")

gap = sum(shares["king"].values()) - sum(shares["queen"].values())
print("part of the gap between the two prompts that each step makes:")
for name in added:
    print(f"   {name:18} {(shares['king'][name] - shares['queen'][name]) / gap:4.0%}")

# %%
figure, axes = figures.new(3.8, columns=2, sharey=True)
for ax, (label, parts) in zip(axes, shares.items()):
    figures.bars(ax, parts, "+.1f", marked=[name for name in parts if abs(parts[name]) > 0.6])
    ax.set(xlim=(-2.5, 2.5), title=f"The {label} was so angry that", xlabel="share of he minus she")
    ax.axvline(0, color=figures.BLACK, linewidth=0.8)
axes[1].invert_yaxis()                                    # once is enough for a shared axis
figures.show(figure, "What each step adds to he (right) or she (left) at the last token: the first "
                     "layers say much the same in both, and attention from layer 3 on tells king "
                     "from queen.")

# %% [markdown]
# **Explain.** Through layer 2 the steps say nearly the same in both runs: their part of the gap is a few percent. From
# layer 3 on, attention tells king from queen (45, 23 and 19 % of the gap); feed-forward adds little to it. Only attention can bring the word over from its own
# position. But this *direct* share is not the whole story: a step also acts on what later steps read, and the shares
# say nothing of that. Patching, below, measures both.
#
# ## The prediction after every layer
#
# The stream has the same form at every depth, so the last norm and the output matrix can read it anywhere. This
# is called the logit lens. It asks: if the model stopped here, what would it say?
#
# **Predict.** Untrained, the model would have to guess among V tokens, which costs $\ln V$ nats per token. What does it
# cost to read off the embedding: less or more than that? And which layers lower it most?

# %%
def lens(x):                                              # (T, D) -> (T, V): logits, read off early
    return nl.rms_norm(x, weights["norm"], config.norm_eps) @ weights["output"]


depths = ["embedding"] + [f"layers.{i}.x_ffn" for i in range(config.n_layers)]
trace = nl.Trace()
nl.forward(story, weights, config, tap=trace)
print(f"guessing: ln V = {np.log(config.vocab_size):.2f}")
read_off = [float(nl.cross_entropy(lens(trace[name])[:-1], story[1:]).mean()) for name in depths]
for i, name in enumerate(depths):
    gain = f"{read_off[i] - read_off[i - 1]:+.2f}" if i > 0 else ""
    print(f"{name:15} {read_off[i]:5.2f} {gain}")
after_0 = read_off[1] - read_off[-1]
for i in range(1, config.n_layers):
    print(f"layer {i}: {(read_off[i] - read_off[i + 1]) / after_0:.0%} of what comes after layer 0")
same = np.allclose(lens(trace[depths[-1]]), trace["logits"], atol=1e-4)
print("the last one is the model itself:", same)

# %%
tokens = tokenizer.encode(SENTENCE)
trace = nl.Trace()
nl.forward(tokens, weights, config, tap=trace)
probs = np.array([nl.softmax(lens(trace[name])) for name in depths])      # (1 + L, T, V)
probs = probs.swapaxes(0, 1)                              # (T, 1 + L, V)
best = probs.argmax(-1)
texts = [figures.pieces(tokenizer, row) for row in best]
figure = figures.guesses(texts, probs.max(-1), figures.pieces(tokenizer, tokens),
                         ["embedding"] + [f"layer {i}" for i in range(config.n_layers)])
figures.show(figure, "Down, the tokens of a sentence; across, what the model would say next if it "
                     "stopped there: at the left it matches pieces, at the right it continues the "
                     "sentence.")

# %% [markdown]
# **Explain.** The embedding says which token *is* here, in a form that the output matrix was never trained to read:
# worse than guessing. Layer 0 gains most, layer 5 is second (39 % of the rest), layer 1 third (24 %), and those between
# gain about the same. Two warnings. The output matrix was trained on the stream's *last* form only: what it cannot read
# in the middle may be there all the same. And a mean over a story is smooth where single positions are not: here is
# one in detail, and a slider for the others. *daughter* falls until layer 3, then jumps.

# %%
def candidates(position):
    """Percent of the likeliest pieces after tokens[position], read off after every layer."""
    row = probs[position]                                 # (1 + L, V)
    top = np.argsort(-row[-1])[:7]
    figure, ax = figures.new(2.8)
    figures.matrix(ax, 100 * row[:, top], depths, figures.pieces(tokenizer, top), limit=100,
                   kind=figures.SHARE, numbers=".0f",
                   title=f"{tokenizer.decode(tokens[:position + 1])} …")
    figures.show(figure, "The seven likeliest pieces of the full model, in percent after every "
                         "layer.")


candidates(5)

# %% tags=["sliders"]
ipywidgets.interact(candidates, position=(0, len(tokens) - 1));

# %% [markdown]
# ## What it costs
#
# A product of a (T, n) and an (n, m) matrix takes T·n·m multiplications and as many additions: 2·T·n·m floating-point
# operations, FLOPs. Attention's own two products need no weights: queries times keys, and probabilities times values,
# are 2·H·T·S·d each.
#
# **Predict.** Which of these takes most of the FLOPs on our story: attention's projections, its scores, the
# feed-forward step, or the logits? And which takes most of the *time*?

# %%
T = len(story)
counts = nl.parameter_counts(config)
matrices = {"projections": counts["attention"], "feed-forward": counts["feed-forward"],
            "logits": counts["output"]}
flops = {name: 2 * T * n for name, n in matrices.items()}
flops["scores, mix"] = config.n_layers * 2 * (2 * config.n_heads * T * T * config.head_dim)

print(f"T {T}       million FLOPs    MB of weights    FLOPs per byte, and at T 1")
for name, n in matrices.items():
    print(f"{name:14} {flops[name] / 1e6:10.0f} {4 * n / 1e6:14.1f} "
          f"{flops[name] / (4 * n):16.0f} {flops[name] / (4 * n) / T:12.1f}")
print(f"scores, mix    {flops['scores, mix'] / 1e6:10.0f}         none")
rule = 2 * T * (sum(counts.values()) - counts["embedding"])
print(f"total {sum(flops.values()) / 1e9:.2f} billion; 2 x parameters x T, without the embedding: "
      f"{rule / 1e9:.2f} billion")

# %% [markdown]
# A stopwatch is a tap: it notes the time at every name, and the difference to the last one is what that value took.
# These are times on the machine that built this page; run the cell for yours.

# %% tags=["timing"]
part_of = {"attn.q": "projections", "attn.k": "projections", "attn.v": "projections",
           "attn.out": "projections", "attn.scores": "scores, mix", "attn.heads": "scores, mix",
           "ffn.gate": "feed-forward", "ffn.up": "feed-forward", "ffn.out": "feed-forward",
           "logits": "logits"}
runs = []
for _ in range(7):
    took = dict.fromkeys([*flops, "all the rest"], 0.0)
    before = time.perf_counter()

    def stopwatch(name, x):
        global before
        part = part_of.get(name.split(".", 2)[-1], "all the rest")
        took[part] += time.perf_counter() - before
        before = time.perf_counter()
        return x
    nl.forward(story, weights, config, tap=stopwatch)
    runs.append(took)
took = {part: 1000 * float(np.median([run[part] for run in runs])) for part in took}
print(f"{sum(took.values()):.0f} ms, {sum(flops.values()) / sum(took.values()) / 1e6:.0f} GFLOP/s")
for part, n in flops.items():
    print(f"{part:14} {n / took[part] / 1e6:4.0f} GFLOP/s")
square = np.ones((1024, 1024), np.float32)
rates = []
for _ in range(7):
    before = time.perf_counter()
    square @ square
    rates.append(2 * 1024 ** 3 / (time.perf_counter() - before) / 1e9)
print(f"a square product, for comparison: {np.median(rates):.0f} GFLOP/s")

figure, axes = figures.new(2.4, columns=2)
figures.bars(axes[0], {name: n / 1e6 for name, n in flops.items()} | {"all the rest": 0}, ".0f")
figures.bars(axes[1], took, ".1f", colour=figures.GREEN)
axes[0].set(xlabel="million FLOPs of matrix products")
axes[1].set(xlabel="milliseconds")
figures.show(figure, "Left, where the arithmetic is; right, where the time goes: scores, norms, "
                     "softmax and the like take far more time than their share of the FLOPs.")

# %% [markdown]
# **Explain.** The feed-forward step has most of the arithmetic. Masking, softmax, norms and activations do a few
# operations on each number that they read and write, so the time goes into moving numbers rather than into sums. Matrix
# products differ, too: the cell prints how many FLOPs per second each part reaches here, beside a plain square product.
# "Few FLOPs" does not mean "little time", and the stopwatch, not the count, has the last word.
#
# With T tokens at once, each weight that is read serves T times; with one token it serves once, 0.5 FLOPs per byte.
# Lesson [09](09_decoding_and_cache.ipynb) is about that.
#
# ## The same numbers as PyTorch
#
# How does one know that a forward pass is right? Not by reading its stories: wrong models tell stories too. One
# compares *every* tensor with another program's. The folder [tests/reference](../tests/reference/README.md) holds
# small checkpoints, and traces that PyTorch computed from them. This is one with grouped queries.
#
# **Predict.** Someone reads the checkpoint with eps $10^{-6}$ instead of $10^{-5}$, someone else with the usual
# theta 10,000 instead of this model's own. At which trace name does each error show first?

# %%
reference = ROOT / "tests" / "reference"
case = json.loads((reference / "cases.json").read_text())["cases"]["gqa-float32/prompt"]
small_weights, small = nl.load(reference / case["checkpoint"])
theirs = load_file(reference / case["trace"])
print(f"D {small.dim}, L {small.n_layers}, H {small.n_heads}, G {small.n_kv_heads}, "
      f"eps {small.norm_eps}, theta {small.rope_theta:,.0f}")


def differences(config):
    """{trace name: largest difference from PyTorch, as a share of the largest number}"""
    ours, result = nl.Trace(), {}
    nl.forward(case["tokens"], small_weights, config, tap=ours)
    for name, x in ours.items():
        y, seen = theirs[name], np.isfinite(theirs[name])             # masked scores are -inf
        assert np.array_equal(x[~seen], y[~seen])
        result[name] = float(np.abs(x[seen] - y[seen]).max() / np.abs(y[seen]).max())
    return result


compared = {"as published": differences(small),
            "eps 1e-6": differences(replace(small, norm_eps=1e-6)),
            "theta 10,000": differences(replace(small, rope_theta=10000.0))}
for label, found in compared.items():
    first = next((name for name in found if found[name] > 1e-5), "none")
    print(f"{label:13} {len(found)} tensors, first that differs by more than 1e-5: {first}")

# %%
figure = figures.first_difference(compared, bound=1e-5)
figures.show(figure, "In order of computation: the right run stays below a millionth, that is "
                     "rounding; each mistake jumps where it is made, and everything after it is "
                     "wrong too.")

# %% [markdown]
# **Explain.** The wrong eps shows at the first norm, the wrong theta only once something is rotated: q and k before it
# are still right, and so is v. The first name that differs is the place to look. The logits alone would say only that
# *something* is wrong.
#
# Where PyTorch and transformers are installed, the next cell runs them on the model that ships. The tests of this
# project do the same for many models.

# %% tags=["timing"]
try:
    import torch
    import transformers
    transformers.utils.logging.disable_progress_bar()
    model = transformers.LlamaForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    with torch.no_grad():
        live = model(torch.tensor([story])).logits[0].numpy()             # (T, V)
    apart = np.abs(live - nl.forward(story, weights, config)).max() / np.abs(live).max()
    print(f"live, {live.shape} logits: the largest difference is below 1e-5 of the largest:",
          apart < 1e-5)
except ImportError:
    print("PyTorch and transformers are not installed: the recorded trace has to do")

# %% [markdown]
# ## Patch a thought from one run into another
#
# A tap can put a value from one run into another. This answers what the shares above could not: where does the
# information *king or queen* sit, and when does it move?
#
# Run the queen's prompt, but at one position and one depth, replace the row of the stream by the king's. Then
# look at *he* minus *she*.
#
# **Predict.** At the embedding, the patch can matter at one position only: which? And at the last layer, at which?

# %%
def patch(name, index, donor):
    """A tap that takes one piece of one tensor from another run."""
    def tap(at, x):
        if at == name:
            x = x.copy()                                  # a tapped array is never changed in place
            x[index] = donor[at][index]
        return x
    return tap


def patched(name, index):                                 # he minus she of the patched queen
    return he_minus_she(nl.forward(QUEEN, weights, config, tap=patch(name, index, traces["king"])))


king, queen = (he_minus_she(trace["logits"]) for trace in traces.values())
print(f"he minus she: king {king:+.2f}, queen {queen:+.2f}")
moved = np.array([[patched(name, t) for t in range(len(QUEEN))]
                  for name in depths])                    # (1 + L, T)
for name, row in zip(depths, moved):
    print(f"{name:15} at the noun {(row[2] - queen) / (king - queen):5.0%}, "
          f"at the last token {(row[-1] - queen) / (king - queen):5.0%}")

# %%
figure, ax = figures.new(3.2)
figures.matrix(ax, moved, depths, figures.pieces(tokenizer, KING), numbers="+.1f",
               title="he minus she in the queen's run, one row taken from the king's")
figures.show(figure, "Blue cells turn she into he: through layer 2 the fact sits at the noun, in "
                     "layers 3 and 4 it moves to the last token, and there it stays.")

# %% [markdown]
# **Explain.** Through layer 2 the fact sits where the word is: patch that row, and the queen becomes a king. After layer
# 3 the noun's row is worth 14 %, after layer 4 nothing: later tokens have fetched what they need. Not all of it goes
# straight to the last token; after layer 4, *angry* holds a tenth. Only attention moves things between tokens, so
# heads of layers 3 to 5 must have done it. Patch them one at a time, at the last token:

# %%
by_head = np.array([[patched(f"layers.{i}.attn.heads", (h, -1)) for h in range(config.n_heads)]
                    for i in range(config.n_layers)])     # (L, H)
print(f"{by_head.size} heads, patched one at a time")
figure, ax = figures.new(2.9)
figures.matrix(ax, by_head - queen, [f"layer {i}" for i in range(config.n_layers)],
               [f"head {h}" for h in range(config.n_heads)], numbers=".1f", limit=king - queen,
               title="how far one head moves he minus she towards the king")
figures.show(figure, "Of all L times H heads, two in layer 3 stand out, heads 1 and 3; "
                     "they share a key/value head.")

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). What each head adds to *he* minus *she*. Type *queen* in the place of
# *king*, and see which heads turn:
#
#     python notebooks/explorer/build.py --open "#p=The+king+was+so+angry+that&i=1.6.2&tab=logit&v=276&minus=339"

# %% [markdown]
# Two heads that stand out for one pair of prompts could be chance: of many, some must be largest. So take five other
# pairs of prompts, which played no part in the choice (the first line below is the pair that did). As a control, patch *every* pair of heads of the same layer, and
# see which place ours takes. Beside it, the attention that the two heads give from the last token to the noun.
#
# **Predict.** L layers with $8 \cdot 7 / 2 = 28$ pairs each are 168 pairs. In how many of the five will ours be first?

# %%
pairs = [("The king was so angry that", "The queen was so angry that"),
         ("When the king saw the bird,", "When the queen saw the bird,"),
         ("The boy went into the forest, and", "The girl went into the forest, and"),
         ("The man was tired, so", "The woman was tired, so"),
         ("The prince was sad, because", "The princess was sad, because"),
         ("The father was glad that", "The mother was glad that")]
carriers = (3, 1, 3)                                      # layer, head, head
all_pairs = [(i, a, b) for i in range(config.n_layers)
             for a in range(config.n_heads) for b in range(a + 1, config.n_heads)]
print(f"{len(all_pairs)} pairs of heads", " " * 18, "ours   place  runner-up   median  attention")
for boy, girl in pairs:
    boy_ids, girl_ids = tokenizer.encode(boy), tokenizer.encode(girl)
    donor = nl.Trace()
    he = he_minus_she(nl.forward(boy_ids, weights, config, tap=donor))
    she = he_minus_she(nl.forward(girl_ids, weights, config))
    part = {}
    for i, a, b in all_pairs:
        tap = patch(f"layers.{i}.attn.heads", ([a, b], -1), donor)
        now = he_minus_she(nl.forward(girl_ids, weights, config, tap=tap))
        part[i, a, b] = (now - she) / (he - she)
    place = 1 + sum(x > part[carriers] for x in part.values())
    others = [x for pair, x in part.items() if pair != carriers]
    noun = int(np.flatnonzero(np.array(boy_ids) != np.array(girl_ids))[0])
    looks = donor["layers.3.attn.probs"][[1, 3], -1, noun]
    print(f"{boy:34} {part[carriers]:4.0%} {place:7} {max(others):10.0%} {np.median(others):9.1%} "
          f"{looks[0]:7.2f} {looks[1]:.2f}")

# %% [markdown]
# **Explain.** First in four of the five, second in the other; a typical pair moves one percent, ours a quarter to a half.
# So heads 1 and 3 of layer 3 carry *part* of
# the fact, in each pair of prompts, and about half of it, or more, takes other ways. That is a beginning of a mechanism: found on
# one pair, tested on others, against all alternatives of its kind. What it does not show is that large models do the
# same.
#
# ## In the wild
#
# - **"How do I get the hidden states?"** ([llama#909](https://github.com/meta-llama/llama/issues/909),
#   [llama#921](https://github.com/meta-llama/llama/issues/921)). Everything in this lesson needs them. A port that
#   returns the last row of logits and nothing else can be neither tested nor understood.
# - **How near is near enough?** Cached and uncached runs of the same model were found to differ by 1e-5 in
#   float32, 0.02 in float16 and 0.125 in bfloat16
#   ([transformers#25420](https://github.com/huggingface/transformers/issues/25420),
#   [transformers#26869](https://github.com/huggingface/transformers/issues/26869)). None of these is a bug. Compare in
#   float32, where rounding leaves room to see one.
# - **Unnoticed for being fluent.** A wrong eps (lesson [02](02_rmsnorm.ipynb)) leaves the loss of our story unchanged to
#   three digits. The trace shows it at the first norm:

# %%
trace, wrong_eps = nl.Trace(), nl.Trace()
wrong = replace(config, norm_eps=1e-6)
nl.forward(story, weights, config, tap=trace)
nl.forward(story, weights, wrong, tap=wrong_eps)
name = "layers.0.attn_norm"
apart = np.abs(wrong_eps[name] - trace[name]).max() / np.abs(trace[name]).max()
print(f"loss {loss():.3f}, with the wrong eps {loss(config=wrong):.3f}")
print(f"{name} differs by {apart / 1e-5:.0f} times the bound")

# %% [markdown]
# ## Questions
#
# **1.** Someone adds the shares of all addends and gets 5.03, as in the logits. Someone else removes the embedding from
# the sum at the very start, runs the model again, and sees *he minus she* change by something else than the
# embedding's share. Who is wrong?
#
# <details>
# <summary>Answer</summary>
#
# Neither. A share says what an addend contributes to the *final sum of this run*. Removing it at the start also changes
# what every later step reads, and so what they add. The first is the direct effect, the second the whole effect.
#
# </details>
#
# **2.** Your port agrees with the reference in `layers.0.attn_norm`, `layers.0.attn.q`, `layers.0.attn.k` and
# `layers.0.attn.v`. It differs in `layers.0.attn.q_rope` at all rows but the first. What do you suspect?
#
# <details>
# <summary>Answer</summary>
#
# The rotation. At position 0 all angles are 0, so every convention agrees there; a wrong theta, wrong pairs or a wrong
# sign show from row 1 on. If row 0 differed as well, positions would start at another number than 0.
#
# </details>
#
# **3.** A row of the stream is multiplied by 10 just before the last norm. What happens to the logits? And if it is
# multiplied by 10 just before the last *layer*?
#
# <details>
# <summary>Answer</summary>
#
# Before the last norm: nothing (but for eps), as the norm divides it out. Before the last layer: the two steps of the
# layer read normalised rows, so they add nearly what they added before, to a stream ten times as large. Their part of the
# final direction shrinks to about a tenth: the logits come close to what the lens reads one layer earlier.
#
# </details>
#
# ## Exercises
#
# Fill in each function; `check` runs it on several inputs, and says what a wrong answer looks like.
#
# ### 1. The price of one more token
#
# The cell above counts a whole prompt. When the model writes, it computes *one* new token at a time, while the keys and
# values of all earlier ones are kept. Count the FLOPs of all matrix products of that step: projections, scores and mix,
# feed-forward, and the logits. `S` tokens are seen, the new one included. `config` has the fields of `nl.Config`.

# %% tags=["exercise"]
def step_flops(config, S):
    """FLOPs of all matrix products for one new token, the last of S: Config, S -> number."""
    ...

# %%
check(step_flops)

# %% tags=["solution"]
def step_flops(config, S):
    D, d, H, G = config.dim, config.head_dim, config.n_heads, config.n_kv_heads
    projections = 2 * D * (2 * H * d + 2 * G * d)         # wq and wo, wk and wv
    attention = 2 * (2 * H * S * d)                       # scores, mix
    feed_forward = 3 * (2 * D * config.hidden_dim)
    logits = 2 * D * config.vocab_size
    return config.n_layers * (projections + attention + feed_forward) + logits

# %% [markdown]
# ### 2. When is it settled?
#
# `guesses[i, t]` is the likeliest next token after depth i at position t, as in the lens above; the last row is the
# model's answer. From which depth on does the guess stay the same until the end?

# %% tags=["exercise"]
def settled_at(guesses):
    """The first depth from which the guess never changes any more: (n, T) -> (T,)."""
    ...

# %%
check(settled_at)

# %% tags=["solution"]
def settled_at(guesses):
    agrees = guesses == guesses[-1]                       # (n, T)
    from_here = np.cumprod(agrees[::-1], axis=0)          # from the end: 1 as long as all agree
    return len(guesses) - from_here.sum(axis=0)

# %% [markdown]
# ### 3. One addend for each head
#
# `attn.out` is itself a sum: one addend for each head. Take the heads' outputs and `wo`, and return them apart, so that
# their sum over the heads is `merge_heads(heads) @ wo`.

# %% tags=["exercise"]
def head_addends(heads, wo):
    """What each head adds to the residual stream: (H, T, d), (H * d, D) -> (H, T, D)."""
    ...

# %%
check(head_addends)

# %% tags=["solution"]
def head_addends(heads, wo):
    H, T, d = heads.shape
    return heads @ wo.reshape(H, d, -1)                   # head h meets rows h * d to (h + 1) * d

# %% [markdown]
# ### 4. Half a king
#
# Patching is all or nothing. Write a tap that replaces one row of one tensor by a mixture: `share` of the donor's row,
# the rest of its own. All other values pass unchanged.

# %% tags=["exercise"]
def blend(name, position, donor, share):
    """A tap that mixes row `position` of the (T, D) tensor `name` with the donor's: ... -> tap."""
    ...

# %%
check(blend)

# %% tags=["solution"]
def blend(name, position, donor, share):
    def tap(at, x):
        if at == name:
            x = x.copy()
            x[position] = (1 - share) * x[position] + share * donor[at][position]
        return x
    return tap

# %% [markdown]
# Try it with `blend("layers.2.x_ffn", 2, traces["king"], share)` on the queen's prompt, for shares from 0 to 1: is
# there a point where *she* tips over into *he*?
#
# ## In five lines
#
# 1. The forward pass is an embedding, L times two additions, a norm and a matrix; only attention connects tokens.
# 2. The residual stream is a sum, so a difference of logits splits into one share for each step.
# 3. The last norm and the output matrix can read the stream at any depth; the prediction forms layer by layer.
# 4. Compare every tensor with another program's: the first name that differs says where the mistake is.
# 5. Patching shows where a fact sits and when it moves; that two heads stand out needs the control of all other pairs.
