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
# # 12. Sizes, data, compute
#
# | | |
# | --- | --- |
# | **The question** | What do the parameters, the data and the compute of a Llama amount to? |
# | **You will be able to** | compute the parameters, the memory, the training FLOPs and the training time of any Llama; read the papers' tables and check them; recognise five common errors about these models |
# | **It assumes** | lessons [05](05_grouped_query_attention.ipynb) and [06](06_swiglu.ipynb); powers of ten |
# | **Minutes** | 50 |
#
# T tokens, D model width, F feed-forward width, V vocabulary, H query heads, G key/value heads, d head width, L layers;
# N parameters. L1 is the LLaMA paper, L2 the Llama 2 paper.

# %% tags=["hide"]
import csv
import math
import textwrap
from dataclasses import replace

import checks
import figures
import ipywidgets
import numpy as np
from course import FOLDER, STORY, config, nl, tokenizer

check = checks.lesson("12")

# %% [markdown]
# ## A Llama small enough to count
#
# Take V = 10, D = 4, one layer, H = 2 query heads and G = 1 key/value head of width d = 2, F = 8. Count the numbers in
# each matrix:
#
# - embedding and output, V by D each: $2 \cdot 10 \cdot 4 = 80$
# - attention: wq, D by H·d: $4 \cdot 4 = 16$; wk and wv, D by G·d: $4 \cdot 2 = 8$ each; wo, H·d by D: $16$; in all
#   $48$
# - feed-forward: gate and up, D by F, and down, F by D: $3 \cdot 4 \cdot 8 = 96$
# - norms: two in the layer and one at the end, D numbers each: $3 \cdot 4 = 12$
#
# Together $80 + 48 + 96 + 12 = 236$.

# %%
tiny = nl.Config(dim=4, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=8, vocab_size=10)
counts = nl.parameter_counts(tiny)
print(counts, "together", sum(counts.values()))

# %% [markdown]
# ## Parameters
#
# All sizes follow from six numbers: L, D, H, G, F, V (d is 128 everywhere). A layer has four matrices of attention,
# three of the feed-forward step and two norms:
#
# $$N = 2VD + L\,\big(2D(H + G)\,d + 3DF + 2D\big) + D$$
#
# **Predict.** In the tiny model above, the feed-forward step has 96 of 236. Is its share in 7B larger or smaller? And
# that of embedding and output?

# %%
def by_formula(c):
    D, d = c.dim, c.head_dim
    layer = 2 * D * (c.n_heads + c.n_kv_heads) * d + 3 * D * c.hidden_dim + 2 * D
    return 2 * c.vocab_size * D + c.n_layers * layer + D


models = {**nl.PRESETS, "this model": config}
count = {name: sum(nl.parameter_counts(c).values()) for name, c in models.items()}
assert all(count[name] == by_formula(c) for name, c in models.items())
print("               D   L   H/G     F      parameters")
for name, c in models.items():
    heads = f"{c.n_heads}/{c.n_kv_heads}"
    print(f"{name:11} {c.dim:5} {c.n_layers:3} {heads:>6} {c.hidden_dim:6} {count[name]:15,}")

# %%
some = ("llama-2-7b", "llama-2-13b", "llama-1-65b", "llama-2-70b", "this model")
figure = figures.shares({name: nl.parameter_counts(models[name]) for name in some})
figures.show(figure, "The larger the model, the less the vocabulary matters; in the large ones "
                     "about two thirds or more is the feed-forward step.")

# %% [markdown]
# **Explain.** The matrices of a layer grow with D·D (F is a multiple of D), and there are more layers; embedding and
# output grow with D only. In the 70B attention's part is small for another reason: its keys and values are shared. Its
# share with G = H is printed below.
#
# The papers say (L1 table 2): 6.7, 13.0, 32.5 and 65.2 billion.

# %%
for name, said in zip(list(models)[:4], (6.7, 13.0, 32.5, 65.2)):
    print(f"{name}: {count[name] / 1e9:.2f} billion, the paper says {said}")
for groups in (8, 64):
    counts = nl.parameter_counts(replace(nl.PRESETS["llama-2-70b"], n_kv_heads=groups))
    print(f"70B with G {groups:2}: attention has {counts['attention'] / sum(counts.values()):.0%}")

# %% [markdown]
# The last one rounds to 65.3; the paper has 65.2. All others agree.
#
# ## How they were trained
#
# L1 table 2 and L2 table 1:
#
# | | 7B | 13B | 33B / 34B | 65B / 70B |
# | --- | --- | --- | --- | --- |
# | Llama 1: tokens | 1.0T | 1.0T | 1.4T | 1.4T |
# | Llama 2: tokens | 2.0T | 2.0T | 2.0T | 2.0T |
# | learning rate, both | 3e-4 | 3e-4 | 1.5e-4 | 1.5e-4 |
# | context, Llama 1 and 2 | 2048, 4096 | 2048, 4096 | 2048, 4096 | 2048, 4096 |
# | batch | 4M tokens | 4M tokens | 4M tokens | 4M tokens |
#
# **Predict.** How many tokens did each parameter of the 7B see? Of the 65B? Of the model that ships, which went over
# its 6.7 million tokens more than four times?

# %%
tokens = {"llama-1-7b": 1.0e12, "llama-1-13b": 1.0e12, "llama-1-33b": 1.4e12, "llama-1-65b": 1.4e12,
          "llama-2-7b": 2.0e12, "llama-2-13b": 2.0e12, "llama-2-34b": 2.0e12, "llama-2-70b": 2.0e12}
with open(FOLDER / "training.csv") as file:
    tokens["this model"] = float(list(csv.DictReader(file))[-1]["tokens"])
for name, T in tokens.items():
    steps = f", {T / 4e6:,.0f} steps of 4M tokens" if name != "this model" else ""
    print(f"{name:11} {T / 1e9:8,.2f} billion tokens, {T / count[name]:5.1f} per parameter{steps}")

# %% [markdown]
# **Explain.** In each generation the number per parameter falls by a factor of 7 to 10 from the smallest model to the
# largest: small models were trained far longer, for their size. They cost less to use, and L1 (section 1) makes that
# its aim: the best model for a given cost of *inference*.
#
# ## The data
#
# L1 table 1 gives, for each source, its share of the training tokens, how often it was gone through (epochs, for 1.4T
# tokens), and its size on disk.
#
# **Predict.** "Each token was seen once": for which sources is that true?

# %%
sources = {  # L1 table 1: share in percent, epochs, gigabytes on disk
    "CommonCrawl": (67.0, 1.10, 3300), "C4": (15.0, 1.06, 783), "GitHub": (4.5, 0.64, 328),
    "Wikipedia": (4.5, 2.45, 83), "Books": (4.5, 2.23, 85), "ArXiv": (2.5, 1.06, 92),
    "StackExchange": (2.0, 1.03, 78)}
print("source          share  epochs    tokens drawn       different   bytes per token")
for name, (share, epochs, gigabytes) in sources.items():
    drawn = share / 100 * 1.4e12
    different = drawn / epochs
    print(f"{name:14} {share:5.1f}% {epochs:7.2f} {drawn / 1e9:7.0f} billion "
          f"{different / 1e9:7.0f} billion {gigabytes * 1e9 / different:17.1f}")
print(f"sum of shares {sum(share for share, _, _ in sources.values()):.1f}%")
n_tokens = len(tokenizer.encode(STORY, bos=False))
print(f"the story of these lessons: {len(STORY.encode()) / n_tokens:.1f} bytes per token, "
      f"V {config.vocab_size}")

# %%
figure, axes = figures.new(2.7, columns=2, sharey=True)
figures.bars(axes[0], {name: s[0] for name, s in sources.items()}, ".1f")
figures.bars(axes[1], {name: s[1] for name, s in sources.items()}, ".2f", colour=figures.GREEN,
             marked=[name for name, s in sources.items() if s[1] > 2 or s[1] < 1])
axes[1].axvline(1, color=figures.BLACK, linestyle="--", linewidth=1)
axes[0].set(xlabel="percent of the training tokens"), axes[1].set(xlabel="epochs (dashed: once)")
axes[1].invert_yaxis()                                    # once is enough for a shared axis
figures.show(figure, "Most comes from the web; two small sources were read more than twice, code "
                     "not even once (hatched).")

# %% [markdown]
# **Explain.** For none exactly; nearly for C4, ArXiv and StackExchange. Wikipedia and the books were read more than
# twice. 0.64 epochs of code mean that more than a third of it was never read. The last column checks the table: sizes,
# shares and epochs were stated independently, and together they give about three to four bytes per token for every
# source, a plausible number, as the story here shows.
#
# ## FLOPs
#
# With a pencil: a row of 2 numbers times a (2, 3) matrix. Each of the 3 results takes 2 multiplications and 2 additions
# (the first is added to zero): $12$ FLOPs for 6 weights, 2 for each. The backward pass makes *two* products of that
# size: one gives the gradient of the row (3 numbers times the transposed matrix), one the gradient of the matrix (2 by
# 3 products, added to those of other tokens). So a weight costs 2 FLOPs forward and 4 backward, for each token, and
# training takes about
#
# $$\text{FLOPs} \approx 6\,N\,T$$
#
# It leaves out the scores of attention, and counts the embedding, which is looked up and not multiplied.
#
# **Explore** ([explorer](explorer/README.md)). One of the T·F numbers of a gate, and the D products that it is the sum
# of. Choose other boxes, and count theirs:
#
#     python notebooks/explorer/build.py --open "#t=layers.0.ffn.gate&i=9.0"
#
# **Predict.** At a context of 2,048, by how many percent is the rule off, for 7B and for 65B? For the model that ships?

# %%
def training_flops_per_token(c, context):
    """Forward and backward, all products; masked scores are counted, as they are computed."""
    weights = count_of(c) - c.vocab_size * c.dim - (2 * c.n_layers + 1) * c.dim
    scores = 2 * c.n_layers * c.n_heads * c.head_dim * context                # q·k and mix
    return 3 * 2 * (weights + scores)


def count_of(c):
    return sum(nl.parameter_counts(c).values())


for name in ("llama-1-7b", "llama-1-65b", "llama-2-7b", "this model"):
    c = models[name]
    exact, rule = training_flops_per_token(c, c.max_seq_len), 6 * count[name]
    print(f"{name:11} at {c.max_seq_len:4}: {exact / 1e9:7.3f} billion FLOPs per token, "
          f"the rule {rule / 1e9:7.3f}: {exact / rule - 1:+.0%}")
for name in ("llama-1-7b", "llama-1-65b", "llama-2-70b", "this model"):
    print(f"{name:11} 6·N·T = {6 * count[name] * tokens[name]:.2e} FLOPs")

# %% [markdown]
# **Explain.** The error has two parts with opposite signs: the embedding makes the rule too high, the scores of
# attention make it too low, the more so the longer the context. For 7B it doubles from Llama 1 to Llama 2 with the
# context, as the scores do:

# %%
c = models["llama-1-7b"]
print(f"7B: embedding {-c.vocab_size * c.dim / count_of(c):+.0%}")
for context in (2048, 4096):
    scores = 2 * c.n_layers * c.n_heads * c.head_dim * context
    print(f"7B: scores at {context} {scores / count_of(c):+.0%}")

# %% [markdown]
# ## Three weeks
#
# L1 section 2.4: the 65B processes about 380 tokens per second and GPU, on 2,048 GPUs with 80 GB each; 1.4T tokens
# take about 21 days.
#
# **Predict.** Is that right? How many FLOPs per second is that for one GPU?

# %%
rate = 380 * 2048                                         # tokens per second
days = 1.4e12 / rate / 86400
print(f"{rate:,} tokens per second; in 21 days {rate * 86400 * 21:.3e} tokens")
print(f"1.4T tokens take {days:.1f} days")
print(f"GPU-hours {2048 * 24 * days:,.0f}; the paper's table says 1,022,362")
flops_of_65b = training_flops_per_token(models["llama-1-65b"], 2048)
by_rule = 6 * count["llama-1-65b"]
print(f"each GPU {380 * flops_of_65b / 1e12:.0f} trillion FLOPs per second, "
      f"by the rule {380 * by_rule / 1e12:.0f}")


# %%
def days_for(gpus, tokens_per_second, trillion_tokens=1.4):
    days = trillion_tokens * 1e12 / (gpus * tokens_per_second) / 86400
    many = np.array([64, 128, 256, 512, 1024, 2048, 4096])
    figure, ax = figures.new(2.5)
    ax.plot(many, trillion_tokens * 1e12 / (many * tokens_per_second) / 86400)
    ax.plot([gpus], [days], "o", color="k", label=f"{gpus:,} GPUs: {days:.1f} days")
    ax.set(xscale="log", yscale="log", xlabel="GPUs", ylabel="days",
           title=f"{tokens_per_second} tokens/s each")
    ax.legend()
    figures.show(figure, f"{trillion_tokens:g}T tokens: twice the GPUs, half the days, if the "
                         "speed of each stays.")


days_for(2048, 380)

# %% tags=["sliders"]
ipywidgets.interact(days_for, gpus=(64, 4096, 64), tokens_per_second=(100, 4000, 20),
                    trillion_tokens=(0.1, 2.0, 0.1));

# %% [markdown]
# ## GPU-hours
#
# L1 table 15 and L2 table 2 give what each model took.
#
# **Predict.** If GPU-hours went with N · T alone, their ratio would be the same for all models. Is it?

# %%
hours = {"llama-1-7b": 82_432, "llama-1-13b": 135_168, "llama-1-33b": 530_432,
         "llama-1-65b": 1_022_362, "llama-2-7b": 184_320, "llama-2-13b": 368_640,
         "llama-2-34b": 1_038_336, "llama-2-70b": 1_720_320}
for name, n in hours.items():
    speed = tokens[name] / n / 3600                       # tokens per second and GPU
    by_rule = 6 * count[name] * speed / 1e12
    all_flops = training_flops_per_token(models[name], models[name].max_seq_len) * speed / 1e12
    print(f"{name:11} {n:9,} GPU-hours, {speed:5.0f} tokens/s per GPU, "
          f"trillion FLOPs/s {by_rule:.0f}, with scores {all_flops:.0f}")
llama_2 = {name: n for name, n in hours.items() if "llama-2" in name}
in_all = sum(llama_2.values())
print(f"Llama 2 in all {in_all:,}; without 34B {in_all - llama_2['llama-2-34b']:,}")

# %%
figure, ax = figures.new(2.6)
figures.bars(ax, {name: n / 1000 for name, n in hours.items()}, ",.0f", marked=list(llama_2))
ax.set(xlabel="thousand GPU-hours (hatched: Llama 2)")
figures.show(figure, "The cost rises with size times tokens: Llama 2 read twice as much, and its "
                     "7B cost twice as much.")

# %% [markdown]
# **Explain.** Roughly: by the rule each GPU did between 108 and 160 trillion FLOPs per second. All of Llama 2 is slower
# than Llama 1 by the rule. Is it the longer context? Partly: with the scores counted, the gap of the two 7B shrinks
# from 14 to 5, and the 70B is as fast as Llama 1's 7B. The 34B stays the slowest, and these numbers do not say why.
#
# ## Memory
#
# To *use* a model, its weights and a cache must fit. To *train* it, gradients and the optimizer's state must too. How
# many bytes that is depends on the program. A common arrangement, assumed here, is 16 bytes for each parameter: weights
# and gradients in 16 bits, and in 32 bits a copy of the weights and AdamW's two means.

# %%
print("                16-bit weights   cache, 4,096 tokens   training, 16 bytes each")
for name in ("llama-2-7b", "llama-2-13b", "llama-2-34b", "llama-2-70b"):
    c, n = models[name], count[name]
    cache = 4096 * 2 * c.n_layers * c.n_kv_heads * c.head_dim * 2
    print(f"{name:12} {2 * n / 2**30:12.1f} GiB {cache / 2**30:15.2f} GiB "
          f"{16 * n / 2**30:18.0f} GiB")

# %% [markdown]
# ## What changed from Llama 1 to Llama 2
#
# Context 2048 to 4096; 2.0T tokens for all sizes; grouped-query attention in 34B and 70B; 33B and 65B gave way to 34B
# and 70B. The eps of the norms in the published files is 1e-6 in Llama 1 up to 33B, and 1e-5 in its 65B and in Llama 2:
# it does not tell the two apart. RMSNorm, RoPE, SwiGLU and the tokenizer stayed.

# %%
names = {"dim": "D", "n_layers": "L", "n_heads": "H", "n_kv_heads": "G", "hidden_dim": "F",
         "max_seq_len": "context", "norm_eps": "eps"}
for old, new in (("7b", "7b"), ("33b", "34b"), ("65b", "70b")):
    a, b = models["llama-1-" + old], models["llama-2-" + new]
    changed = [f"{letter} {getattr(a, field)} → {getattr(b, field)}"
               for field, letter in names.items() if getattr(a, field) != getattr(b, field)]
    text = f"{old} → {new}: " + ", ".join(changed)
    print(textwrap.fill(text, 94, subsequent_indent="           "))

# %% [markdown]
# ## In the wild
#
# Five errors that are often copied, each with its computation:
#
# - **"32B" or "30B"**: the paper says 33B, and its table 32.5 billion.
# - **"Llama 2 has the same architecture"**: not the two large ones. What would the 70B be with G = H?
# - **A table of GPT-3's sizes shown for Llama**: GPT-3 13B has D = 5140, and no gate.
# - **"Each token was seen once"**: see the epochs above.
# - **A total that does not add up**: some model cards leave out the row of the 34B.

# %%
mha = replace(models["llama-2-70b"], n_kv_heads=64)
print(f"33B: {count['llama-1-33b'] / 1e9:.1f} billion")
print(f"70B with G = H: {count_of(mha) / 1e9:.1f} billion, "
      f"{count_of(mha) / count['llama-2-70b'] - 1:.0%} more")
print(f"13B: D {models['llama-1-13b'].dim}, F {models['llama-1-13b'].hidden_dim}; "
      f"70B's F with multiple_of 256 would be {nl.feed_forward_dim(8192, 256, 1.3):,}")
print(f"epochs: Wikipedia {sources['Wikipedia'][1]}, GitHub {sources['GitHub'][1]}")
missing = llama_2["llama-2-34b"]
print(f"three rows {in_all - missing:,} of {in_all:,}: {missing:,} missing")

# %% [markdown]
# ## Questions
#
# **1.** A model gets twice as wide (D and F) and twice as deep (L), with as many heads as that needs. By what factor do
# the parameters of its layers grow? Those of embedding and output?
#
# <details>
# <summary>Answer</summary>
#
# The matrices of a layer grow by $2 \cdot 2 = 4$, and there are twice as many layers: $8$. Embedding and output grow
# by $2$. That is why their share falls with size.
#
# </details>
#
# **2.** You have a fixed budget of FLOPs, and decide for a model with twice as many parameters. How many tokens can it
# read?
#
# <details>
# <summary>Answer</summary>
#
# Half as many, by 6·N·T, and so a quarter as many per parameter. Whether the larger model or the longer training gives
# the lower loss is a matter of measurement; the rule of FLOPs cannot say.
#
# </details>
#
# **3.** In the first figure, the shipped model spends more than a quarter of its parameters on embedding and output. It
# has the smallest vocabulary of all by far. Explain.
#
# <details>
# <summary>Answer</summary>
#
# The share is $2VD$ against about $L \cdot 12 D^2$ or less, so it goes with $V / (L D)$. V is about ten times smaller
# than Llama's, but D is sixteen times and L more than five times smaller than in 7B.
#
# </details>
#
# ## Exercises
#
# `check(name)` runs your function on several inputs and says what a wrong answer looks like; `check(name, hint=1)`
# gives a hint.
#
# ### 1. How many GPUs?
#
# A model of N parameters is to read `tokens` tokens within `days` days. Each GPU does `flops` FLOPs per second. By the
# rule 6·N·T, how many GPUs are needed at least? (A whole number: half a GPU does not exist.)

# %% tags=["exercise"]
def gpus_needed(parameters, tokens, flops, days):
    """The smallest number of GPUs that is enough: four numbers -> int."""
    ...

# %%
check(gpus_needed)

# %% tags=["solution"]
def gpus_needed(parameters, tokens, flops, days):
    return math.ceil(6 * parameters * tokens / (flops * days * 86400))

# %% [markdown]
# ### 2. Different tokens
#
# A training run takes `tokens` in all. Sources are {name: (share of them in percent, epochs)}. How many *different*
# tokens did it see, where a source that was read less than once counts with what was read of it?

# %% tags=["exercise"]
def different_tokens(tokens, sources):
    """Different tokens that were seen: number, dict -> number."""
    ...

# %%
check(different_tokens)

# %% tags=["solution"]
def different_tokens(tokens, sources):
    return sum(share / 100 * tokens / max(epochs, 1) for share, epochs in sources.values())

# %% [markdown]
# ### 3. Another family
#
# A relative of Llama shares one matrix between embedding and output, and adds a *bias* (one number for each output) to
# the products with wq, wk and wv, and to no others. All else is as in Llama. `config` has the fields of `nl.Config`.

# %% tags=["exercise"]
def count_relative(config):
    """All parameters of that relative: Config -> number."""
    ...

# %%
check(count_relative)

# %% tags=["solution"]
def count_relative(config):
    D, d = config.dim, config.head_dim
    attention = 2 * D * (config.n_heads + config.n_kv_heads) * d
    biases = (config.n_heads + 2 * config.n_kv_heads) * d
    layer = attention + biases + 3 * D * config.hidden_dim + 2 * D
    return config.vocab_size * D + config.n_layers * layer + D

# %% [markdown]
# ## In five lines
#
# 1. Six numbers give a Llama's parameters; in large ones about two thirds or more are feed-forward.
# 2. Training costs about 6·N·T FLOPs: 2 forward and 4 backward; the scores of a long context come on top.
# 3. The 65B took three weeks on 2,048 GPUs, and the papers' GPU-hours agree with that.
# 4. Most of the data is from the web; Wikipedia and books were read more than twice, code less than once.
# 5. Llama 2 has more data, a longer context and, in its two large sizes, shared keys and values.
