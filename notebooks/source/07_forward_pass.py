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
# | **The question** | How do the parts together make a prediction, and how do you tell that they do it right? |
# | **You will be able to** | write the forward pass of a Llama from its parts; take a logit apart into what each step added; read the model's answer after every layer; count its arithmetic; test a port, and name the first tensor that is wrong; patch a value from one run into another |
# | **It assumes** | lessons [02](02_rmsnorm.ipynb) to [06](06_swiglu.ipynb) |
# | **Minutes** | 110 |
#
# T tokens (S is the same here), D model width, F feed-forward width, V vocabulary, H query heads, G key/value heads,
# d head width, L layers.

# %% tags=["hide"]
import json
import time
from dataclasses import replace

import checks
import figures
import numpy as np
import pencil
from course import FOLDER, ROOT, SENTENCE, STORY, config, loss, nl, tokenizer, weights
from safetensors.numpy import load_file

check = checks.lesson("07")

# %% [markdown]
# ## The model on half a page
#
# Picture a table with one row of D numbers for each token. Every layer works on it twice, in two *steps*: attention,
# then feed-forward. Each step *adds* its result to the rows. At the end each row is turned into V scores, the *logits*,
# one for each token that could come next. Every part has had its lesson; put together, they are short:

# %%
def my_forward(tokens, weights, config):                  # (T,) -> (T, V)
    positions = np.arange(len(tokens))
    cos, sin = nl.rope_cos_sin(positions, config.head_dim, config.rope_theta)
    mask = nl.causal_mask(positions, len(tokens))
    x = weights["embedding"][tokens]                      # (T, D): the residual stream
    for layer in weights["layers"]:
        h = nl.rms_norm(x, layer["attn_norm"], config.norm_eps)
        # split_heads cuts each row into heads, (T, H d) -> (H, T, d); merge_heads undoes it
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
# Two prompts that differ in one word will serve us. A `Trace` records every value of a run under its
# name. It is a *tap*: a function called with each name and value; what it returns is used from there on. `attn.out` and
# `ffn.out` are what a step adds, `x_attn` and `x_ffn` the stream after it.
#
# **Predict.** The rows are `<s>`, *The*, *king* or *queen*, *was*, *so*, *angry*, *that*. In which of the seven rows do
# the embeddings differ? And in layer 0, the values v, the heads' outputs, the feed-forward step's hidden numbers?

# %%
KING = tokenizer.encode("The king was so angry that")
QUEEN = tokenizer.encode("The queen was so angry that")
king, queen = nl.Trace(), nl.Trace()
nl.forward(KING, weights, config, tap=king)
nl.forward(QUEEN, weights, config, tap=queen)


def changed_rows(a, b):
    """In which rows two values differ; heads come first in some shapes."""
    apart = a != b
    if apart.ndim == 3:                                   # (H, T, d)
        apart = apart.any(axis=0)
    return np.flatnonzero(apart.any(axis=-1)).tolist()


for name in ("embedding", "layers.0.attn_norm", "layers.0.attn.v", "layers.0.attn.heads",
             "layers.0.x_attn", "layers.0.ffn.hidden", "logits"):
    print(f"{name:20} differs in rows {changed_rows(king[name], queen[name])}")

# %% [markdown]
# **Explain.** Only `nl.attention` lets a row learn of another one, and only of one before it: everything else in the
# half page works on each row by itself. So rows 0 and 1 never hear of the change, and rows 3 to 6 hear of it in the
# heads.
#
# ## A running sum
#
# The Transformer puts a residual connection around each step (*Attention is all you need*, section 3.1). LLaMA, like
# GPT-3, has the norm at the input of each step (section 2.2), so nothing divides the stream on its way: it is a plain
# sum. With $e$ the embedding, $a_i$ and $f_i$ what attention and feed-forward of layer $i$ add:
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
# The sum is $x = (1, 7)$. Its mean square is $(1 + 49)/2 = 25$, so $\mathrm{RMS}(x) = 5$, the *size* of the row. The
# logits are $7 \cdot 10 / 5 = 14$ for *he* and $(5 + 35) / 5 = 8$ for *she*: *he* wins by 6. Who did it? Send each
# addend through the same division and the same difference of columns, $W_{he} - W_{she} = (-5, 5)$:
# $e$ gives $(-10 + 5)/5 = -1$, $a$ gives $(-5 + 10)/5 = 1$, and $f$ gives $(10 + 20)/5 = 6$. These are the *shares* of
# the addends. They sum to 6 again: the feed-forward step did it, against the embedding.

# %%
e, a, f = np.array([[2.0, 1.0], [1.0, 2.0], [-2.0, 4.0]])
w_he, w_she = np.array([[0.0, 10.0], [5.0, 5.0]])
size = np.sqrt(np.mean((e + a + f) ** 2))
print("size", size, " logits", (e + a + f) / size @ w_he, (e + a + f) / size @ w_she)
print("shares", *[y / size @ (w_he - w_she) for y in (e, a, f)])

# %% [markdown]
# ### The Llama for pencil
#
# Now the whole pass of the [handout](handout.pdf), to its last three steps. For *and*, the last token of
# `<s>` *cats and*, the stream starts at $(-3.5, 0.5)$; attention adds $(0, -2.01)$, the feed-forward step $(11.5, 0)$;
# the last norm has $g = (1.5, 2)$. The columns of *dogs* and *and* differ by $(1, -1) - (-1, 0) = (2, -1)$, those of
# *dogs* and *cats* by $(1, -1) - (1, 1) = (0, -2)$. Which of the three addends can matter for *dogs* against *cats*,
# and which for *dogs* against *and*?

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
# mostly the work of the feed-forward step.

# %% [markdown]
# ### In the model
#
# **Predict.** The trace holds all the addends. If we add them up, one after the other, how near do we come to the
# model's own stream: to one percent, to six digits, to the last bit?

# %%
added = ["embedding"]
added += [f"layers.{i}.{step}.out" for i in range(config.n_layers) for step in ("attn", "ffn")]
last = f"layers.{config.n_layers - 1}.x_ffn"

total = king["embedding"]
for name in added[1:]:
    total = total + king[name]
same = np.array_equal(total, king[last])
print(f"{len(added)} addends; their sum is {last}, bit for bit: {same}")

# %%
figure = figures.addends({name: king[name][-1, :32] for name in added},
                         {"the sum": king[last][-1, :32]})
figures.show(figure, "32 of D columns of the stream at the last token, that (a dash: negative, "
                     "unless faint). Each row is what one step adds, and the row below their sum, "
                     "all on one colour scale. The embedding, layer 0's attention and layer 1's "
                     "feed-forward are nearly too small to be seen.")

# %% [markdown]
# **Explain.** To the last bit, in the model's own order (in another, rounding differs): nothing else is in the stream.
#
# ## Who made this prediction?
#
# After "The king was so angry that" the model expects *he*, after "The queen ..." *she*. As with the pencil, *he* minus
# *she* is a sum of shares, one for each addend (*direct logit attribution*, [Elhage and
# others](https://transformer-circuits.pub/2021/framework/index.html)). Why a difference? Softmax does not change when
# all logits rise together, so a single logit says little.
#
# **Predict.** At the start, the row of "that" is the same in both runs. In which steps at this row will the shares
# differ most: in the first layers or the last, in attention or feed-forward?

# %%
HE = tokenizer.encode("he", bos=False)[0]
SHE = tokenizer.encode("she", bos=False)[0]
direction = weights["output"][:, HE] - weights["output"][:, SHE]                  # (D,)


def he_minus_she(logits):                                 # (T, V) -> number
    return float(logits[-1, HE] - logits[-1, SHE])


def shares_of(trace):
    """{addend: its share of he minus she at the last token}"""
    row = trace[last][-1]                                 # (D,)
    size = np.sqrt(np.mean(row * row) + config.norm_eps)              # each run has its own
    return {name: float(trace[name][-1] / size * weights["norm"] @ direction) for name in added}


in_king, in_queen = shares_of(king), shares_of(queen)
gap = sum(in_king.values()) - sum(in_queen.values())
print("share of he minus she     king    queen   part of the difference")
for name in added:
    print(f"{name:20} {in_king[name]:+9.2f} {in_queen[name]:+8.2f} "
          f"{(in_king[name] - in_queen[name]) / gap:12.0%}")
print(f"{'sum':20} {sum(in_king.values()):+9.2f} {sum(in_queen.values()):+8.2f}")
print(f"{'in the logits':20} {he_minus_she(king['logits']):+9.2f} "
      f"{he_minus_she(queen['logits']):+8.2f}")
for trace in (king, queen):
    p = nl.softmax(trace["logits"][-1])
    print(f"likeliest next:{figures.pieces(tokenizer, [p.argmax()])[0]} ({p.max():.0%})")


def no_ffn_0(name, x):
    return 0 * x if name == "layers.0.ffn.out" else x


cut = he_minus_she(nl.forward(KING, weights, config, tap=no_ffn_0))
print(f"king without layers.0.ffn.out, in all rows: {cut:+.2f}")

# %% [markdown]
# **Explain.** Through layer 2 the steps say nearly the same in both runs. From layer 3 on, attention makes 45, 23 and
# 19 % of the difference. Only attention can bring the word over from its own row. Once it is there, feed-forward steps
# can use it; here they do so little (6 % in layer 3).
#
# A share says what a step *wrote*, not what would happen without it: later steps read what it wrote, and the size by
# which all are divided would be another. Lesson [08](08_looking_inside.ipynb) measures how far shares and effects
# agree.
#
# ## The prediction after every layer
#
# The stream has the same shape at every depth, so the last norm and the output matrix can read it anywhere: if the
# model stopped here, what would it say? This is the *logit lens*
# ([nostalgebraist](https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens)).
#
# **Predict.** Guessing gives each of V tokens $1/V$, so its loss (lesson [00](00_start_here.ipynb)) is $\ln V$ nats per
# token; the whole model needs 2.1. Does every layer lower the loss of the lens? Which two lower it most?

# %%
def lens(x):                                              # (T, D) -> (T, V): logits, read early
    return nl.rms_norm(x, weights["norm"], config.norm_eps) @ weights["output"]


depths = ["embedding"] + [f"layers.{i}.x_ffn" for i in range(config.n_layers)]
on_story = nl.Trace()
nl.forward(story, weights, config, tap=on_story)
nats = [float(nl.cross_entropy(lens(on_story[name])[:-1], story[1:]).mean()) for name in depths]
print(f"guessing        {np.log(config.vocab_size):5.2f} nats per token")
for i, name in enumerate(depths):
    change = f"{nats[i] - nats[i - 1]:+.2f}" if i > 0 else ""
    print(f"{name:15} {nats[i]:5.2f} {change:>6}")

# %%
tokens = tokenizer.encode(SENTENCE)
on_sentence = nl.Trace()
nl.forward(tokens, weights, config, tap=on_sentence)
probs = np.array([nl.softmax(lens(on_sentence[name])) for name in depths])        # (1 + L, T, V)
probs = probs.swapaxes(0, 1)                              # (T, 1 + L, V)
likeliest = [figures.pieces(tokenizer, row) for row in probs.argmax(-1)]
figure = figures.guesses(likeliest, probs.max(-1), figures.pieces(tokenizer, tokens),
                         ["embedding"] + [f"layer {i}" for i in range(config.n_layers)])
figures.show(figure, "Down, the tokens of a sentence; across, what the model would say next if it "
                     "stopped there, darker where it is surer. The first column makes no sense "
                     "yet, the last is the model's answer (`<0x0A>`: line break).")

# %% [markdown]
# **Explain.** Every layer lowers it, layers 0 and 5 most. The embedding does worse than guessing: it says which token
# *is* here, and the output matrix never had to read that by itself. At single tokens the way is less smooth: after
# *youngest*, the guess is *daughter*, then a comma for three layers, then *daughter* again.
#
# The output matrix was trained on the stream's *last* form: what it cannot read in the middle may be there
# all the same (lesson [08](08_looking_inside.ipynb)).
#
# ## What it costs
#
# A product of a (T, n) and an (n, m) matrix takes T·n·m multiplications and as many additions: 2·T·n·m floating-point
# operations, FLOPs. So each number of a matrix costs two FLOPs per token. Attention's own two products need no weights:
# queries times keys, and probabilities times values, are 2·H·T·S·d each (the masked half is computed, too).
#
# **Predict.** Which of these takes most of the FLOPs on our story: attention's projections, its scores, the
# feed-forward step, or the logits? And which part of the *time* goes into steps without any matrix product (norms,
# softmax, rotation, activation, additions): 3 %, three tenths, or two thirds?

# %%
T = len(story)
counts = nl.parameter_counts(config)
flops = {"projections": 2 * T * counts["attention"],
         "scores, mix": config.n_layers * 2 * (2 * config.n_heads * T * T * config.head_dim),
         "feed-forward": 2 * T * counts["feed-forward"],
         "logits": 2 * T * counts["output"]}
for part, n in flops.items():
    print(f"{part:14} {n / 1e6:6.0f} million FLOPs")
print(f"{'all':14} {sum(flops.values()) / 1e6:6.0f}")
rule = 2 * T * (sum(counts.values()) - counts["embedding"])
print(f"rule of thumb  {rule / 1e6:6.0f}: 2 x parameters x T, without embedding and scores")

# %% [markdown]
# A stopwatch is a tap: what passed since the name before is what this value took. Of several runs, each part's
# quickest counts, as whatever else the machine does only adds; the times are those of the machine that built this page.

# %% tags=["timing"]
part_of = {"attn.q": "projections", "attn.k": "projections", "attn.v": "projections",
           "attn.out": "projections", "attn.scores": "scores, mix", "attn.heads": "scores, mix",
           "ffn.gate": "feed-forward", "ffn.up": "feed-forward", "ffn.out": "feed-forward",
           "logits": "logits"}


def run_times():
    """Seconds of one run: {part of the model: seconds}."""
    parts, times = [], [time.perf_counter()]

    def stopwatch(name, x):
        without_layer = name.split(".", 2)[-1]            # layers.0.attn.q -> attn.q
        parts.append(part_of.get(without_layer, "all the rest"))
        times.append(time.perf_counter())
        return x

    nl.forward(story, weights, config, tap=stopwatch)
    took = np.diff(times)
    return {part: took[np.equal(parts, part)].sum() for part in [*flops, "all the rest"]}


runs = [run_times() for _ in range(15)]
took = {part: 1000 * min(run[part] for run in runs) for part in runs[0]}
figure, axes = figures.new(2.4, columns=2)
figures.bars(axes[0], {part: n / 1e6 for part, n in flops.items()}, ".0f")
figures.bars(axes[1], took, ".1f", colour=figures.GREEN)
axes[0].set(xlabel="million FLOPs of matrix products")
axes[1].set(xlabel="milliseconds")
print(f"all the rest: {took['all the rest'] / sum(took.values()):.0%} of the time")
figures.show(figure, "Left, where the arithmetic is; right, where the time goes: a good part of it "
                     "into steps that the left side does not count.")

# %% [markdown]
# **Explain.** The feed-forward step has most of the arithmetic. Roughly three tenths of the time go into steps that the
# count leaves out, and some, such as the mask, are still inside the other bars. "Few FLOPs" does not mean "little time".
#
# ## The same numbers as PyTorch
#
# How do you know that a forward pass is right? Not by reading its stories: wrong models tell stories too. Compare
# *every* tensor with another program's. The folder [tests/reference](../tests/reference/README.md) holds small
# checkpoints, and traces that transformers (PyTorch) computed from them. This is one with grouped queries.
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


compared = {"as it should be": differences(small),
            "eps 1e-6": differences(replace(small, norm_eps=1e-6)),   # a copy with another eps
            "theta 10,000": differences(replace(small, rope_theta=10000.0))}
for label, found in compared.items():
    first = next((name for name in found if found[name] > 1e-5), "none")
    print(f"{label:15} {len(found)} tensors, first that differs by more than 1e-5: {first}")

# %%
figure = figures.first_difference(compared, bound=1e-5)
figures.show(figure, "In order of computation (no difference is drawn as 1e-8): the right run "
                     "stays well below the line, that is rounding; each mistake jumps where it "
                     "first matters, and here every tensor after it is wrong too.")

# %% [markdown]
# **Explain.** The wrong eps shows at the first norm, the wrong theta only once something is rotated: q and k before it
# are still right, and so is v. The first name that differs says where to *look*: at this step, and at the weights that
# it read. The logits alone would say only that *something* is wrong.
#
# The wrong eps is easy to see here: one row of this embedding has a mean square of only twice eps. And in the model
# that ships?

# %%
first_norm = "layers.0.attn_norm"
wrong = replace(config, norm_eps=1e-6)
wrong_eps = nl.Trace()
nl.forward(story, weights, wrong, tap=wrong_eps)
apart = np.abs(wrong_eps[first_norm] - on_story[first_norm]).max()
errors = {"small checkpoint": (theirs, compared["eps 1e-6"][first_norm]),
          "model that ships": (on_story, apart / np.abs(on_story[first_norm]).max())}
for label, (trace, error) in errors.items():
    smallest = np.mean(trace["embedding"] ** 2, axis=-1).min()
    print(f"{label}: smallest mean square {smallest:.1e}, {first_norm} wrong by {error:.2%}")
print(f"loss {loss():.3f}, with the wrong eps {loss(config=wrong):.3f}")

# %% [markdown]
# There the loss shows nothing, and the trace still does.
#
# Agreement on one prompt is a test and not a proof. Where PyTorch and transformers are installed, the next cell runs
# them on the model that ships.

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
    print("PyTorch and transformers are not installed: the recorded trace will have to do")

# %% [markdown]
# ## Patch a value from one run into another
#
# The shares said who wrote *he* or *she* at the last row. But the word stands in row 2: which row carries the answer,
# and when does that change? A tap can put a value from one run into another (*activation patching*, [Vig and
# others](https://arxiv.org/abs/2004.12265)). So run the queen's prompt, but at one depth, take one row of the stream
# from the king's run. Then see how far *he* minus *she* moves: 0 % is the queen's, 100 % the king's.
#
# **Predict.** At the embedding, the patch can matter at one row only: which? And after the last layer, at which?

# %%
def patch(name, index, donor):
    """A tap that takes one piece of one tensor from another run."""
    def tap(at, x):
        if at == name:
            x = x.copy()                                  # a tapped array is never changed in place
            x[index] = donor[at][index]
        return x
    return tap


def moved(tokens, own, donor, name, index):
    """How far one patch moves he minus she, from this run's own (0) to the donor's (1)."""
    logits = nl.forward(tokens, weights, config, tap=patch(name, index, donor))
    start, goal = he_minus_she(own["logits"]), he_minus_she(donor["logits"])
    return (he_minus_she(logits) - start) / (goal - start)


ways = {"king into queen": (QUEEN, queen, king), "queen into king": (KING, king, queen)}
by_row = {way: np.array([[moved(*runs, name, t) for t in range(len(KING))] for name in depths])
          for way, runs in ways.items()}                  # (1 + L, T) each
figure, axes = figures.new(3.2, columns=2)
for ax, way in zip(axes, ways):
    figures.matrix(ax, 100 * by_row[way], columns=figures.pieces(tokenizer, ways[way][0]),
                   numbers=".0f", title=f"{way}: percent of the way")
axes[0].set_yticks(range(len(depths)), depths)
figures.show(figure, "Each cell: one row of the stream, at one depth, from the other run. Until "
                     "layer 2 the noun's row is enough; in layers 3 and 4 the last token's takes "
                     "over.")

# %% [markdown]
# **Explain.** Through layer 2 the noun's row is enough: patch it, and *he* minus *she* is the king's, and the other way
# all but the queen's. After layer 3 it still moves the answer, after layer 4 by at most 1 %: later tokens have fetched
# what they need. Not all of it goes straight to the last token; after layer 4, the row of *so* alone moves the answer
# by a tenth. (The cells of a line need not sum to 100: effects do not add up.) And 0 does not mean that a row knows
# nothing: rows 3 to 6 differ since layer 0, but that hardly counts yet for *he* or *she*.
#
# ### Which heads carry it?
#
# Only attention moves things between rows. So patch single heads, at the last token. The output of all heads of a layer
# is (H, T, d): the index `(h, -1)` is head h at the last row, `([1, 3], -1)` two heads there.
#
# **Predict.** Most of the way is made in layers 3 and 4. How many of the 48 heads will move the answer by more
# than a tenth: two or three, a dozen, or nearly all of these two layers?

# %%
def by_head(tokens, own, donor):                          # (L, H)
    return np.array([[moved(tokens, own, donor, f"layers.{i}.attn.heads", (h, -1))
                      for h in range(config.n_heads)] for i in range(config.n_layers)])


heads = by_head(QUEEN, queen, king)
print(f"{np.sum(heads > 0.1)} of {heads.size} heads move it by more than a tenth")
figure, ax = figures.new(2.9)
figures.matrix(ax, 100 * heads, [f"layer {i}" for i in range(config.n_layers)],
               [f"head {h}" for h in range(config.n_heads)], numbers=".0f", limit=50,
               title="percent of the way from she to he, a head from the king's run")
figures.show(figure, "Of all L times H heads, few move the answer when patched at the last "
                     "token: most of all heads 1 and 3 of layer 3.")

# %% [markdown]
# **Explain.** Three of 48. But of 48, some must be largest. So take five other pairs, which played no part in the
# choice, and rank heads 1 and 3 of layer 3.
#
# **Predict.** In how many of the five will the two heads take the first two places?
#
# (The table: place among all heads, and how far the head alone moves; the best other; the other six of layer 3
# together; 1 and 3 together, either way; *he* minus *she*, unpatched.)

# %%
pairs = [("The king was so angry that", "The queen was so angry that"),           # the choice
         ("When the king saw the bird,", "When the queen saw the bird,"),
         ("The boy went into the forest, and", "The girl went into the forest, and"),
         ("The man was tired, so", "The woman was tired, so"),
         ("The prince was sad, because", "The princess was sad, because"),
         ("The father was glad that", "The mother was glad that")]
print(" " * 33 + "  place (moved)    best other the six   1 and 3 move   he - she")
print("he prompt".ljust(33) + "   head 1   head 3 (layer, h)  move  she->he he->she   his  her")
layer_3, layer_4 = "layers.3.attn.heads", "layers.4.attn.heads"
pair, six = ([1, 3], -1), ([0, 2, 4, 5, 6, 7], -1)
deaf_moves = []
for he_prompt, she_prompt in pairs:
    donor, own = nl.Trace(), nl.Trace()
    he_ids, she_ids = tokenizer.encode(he_prompt), tokenizer.encode(she_prompt)
    nl.forward(he_ids, weights, config, tap=donor)
    nl.forward(she_ids, weights, config, tap=own)
    moves = by_head(she_ids, own, donor)
    ours = "".join(f"{1 + np.sum(moves > moves[3, h]):3} ({moves[3, h]:3.0%})" for h in (1, 3))
    others = moves.copy()
    others[3, [1, 3]] = -np.inf
    i, h = np.unravel_index(others.argmax(), others.shape)
    print(f"{he_prompt:33}{ours} {others[i, h]:4.0%} ({i}, {h})"
          f"{moved(she_ids, own, donor, layer_3, six):6.1%}"
          f"{moved(she_ids, own, donor, layer_3, pair):8.0%}"
          f"{moved(he_ids, donor, own, layer_3, pair):8.0%}"
          f"{he_minus_she(donor['logits']):+6.1f}{he_minus_she(own['logits']):+5.1f}")
    put = patch(layer_3, pair, own)                       # her heads 1 and 3
    deaf = nl.Trace()
    nl.forward(he_ids, weights, config, tap=lambda name, x: deaf(name, put(name, x)))
    mixed = donor | {layer_4: deaf[layer_4]}
    deaf_moves.append(f"{moved(she_ids, own, mixed, layer_4, (2, -1)):.0%}")
print("head 2 of layer 4, from his run with her heads 1 and 3:", *deaf_moves)

# %% [markdown]
# **Explain.** In four of the five other pairs, heads 1 and 3 take the first two places, in the fifth places 5 and 2;
# the other six of their layer together move at most 2.3 %. So they carry *part* of the fact in these prompts (all with
# the noun first): a quarter to a good half of the way from *she* to *he*, somewhat more of the way back in most. The
# rest takes other ways. Of the other heads, head 2 of layer 4 moves most in five of the six pairs (9 to 20 %), within a
# point of that from a run with her heads 1 and 3: a way of its own. Do heads 1 and 3 carry the word *king*, or only *he
# or she*? That needs prompts made for it: lesson [08](08_looking_inside.ipynb).

# %% [markdown]
# **Explore** ([explorer](explorer/README.md)). What each head adds to *he* minus *she*. Type *queen* in the place of
# *king*, and see which heads turn:
#
#     python notebooks/explorer/build.py --open "#p=The+king+was+so+angry+that&i=1.6.2&tab=logit&v=276&minus=339"
#
# ## In the wild
#
# - **How do I get the last layer's hidden state?** ([llama#909](https://github.com/meta-llama/llama/issues/909)). Most
#   of this lesson needs the hidden states, of every layer.
#
# ## Questions
#
# **1.** Someone adds the shares of all addends and gets 5.03, as in the logits. Someone else runs the model without
# layer 0's feed-forward step, and sees *he minus she* fall to 0.24, by far more than that step's share, 0.43. Who is
# wrong?
#
# <details>
# <summary>Answer</summary>
#
# Neither. A share says what an addend contributes to the *final sum of this run*. Leaving it out also changes
# what every later step reads, and so what they add. The first is a share, the direct part with the size held fixed; the
# second is the whole effect.
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
# sign show from row 1 on.
#
# </details>
#
# **3.** A row of the stream is multiplied by 10 just before the last norm. What happens to the logits? And if it is
# multiplied by 10 just before the last *layer*?
#
# <details>
# <summary>Answer</summary>
#
# Before the last norm: nothing (but for eps), as the norm divides it out. Before the last layer: attention reads a
# normalised row and adds what it added before, now to a row ten times as long. The feed-forward step reads the sum of
# the two, in which attention counts for a tenth of what it did: it adds something else. In the end the layer is heard
# far less.
#
# </details>
#
# ## Exercises
#
# Fill in each function; `check` runs it on several inputs, and says what a wrong answer looks like.
#
# ### 1. The price of one more token
#
# The cell under *What it costs* counts a whole prompt. When the model writes, it computes *one* new token at a time,
# while the keys and values of all earlier ones are kept. Count the FLOPs of all matrix products of that step:
# projections, scores and mix, feed-forward, and the logits. `S` tokens are seen, the new one included. `config` has the
# fields of `nl.Config`.

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
# ## In five lines
#
# 1. The forward pass is an embedding, L times two additions, a norm and a matrix; only attention connects tokens.
# 2. The residual stream is a sum, so a difference of logits splits into one share for each step.
# 3. The last norm and the output matrix can read the stream at any depth; on our story, each layer lowers the mean
#    loss.
# 4. Compare every tensor with another program's: the first name that differs says where to look.
# 5. Patching shows which value is enough to move an answer, and at which depth that changes; a head found on one prompt
#    is tested on others, against all heads.
