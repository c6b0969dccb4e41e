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
# | **You will be able to** | compute the parameters, the memory, the training FLOPs and the training time of any Llama; read the papers' tables and check them; recognise five wrong statements about Llama |
# | **It assumes** | lessons [05](05_grouped_query_attention.ipynb) and [06](06_swiglu.ipynb); powers of ten |
# | **Minutes** | 80 |
#
# T tokens read in training, D model width, F feed-forward width, V vocabulary, H query heads, G key/value heads, d head
# width, L layers; N parameters. L1 is the LLaMA paper, L2 the Llama 2 paper. A billion is 10^9, a trillion 10^12,
# printed as in 1.4T.

# %% tags=["hide"]
import csv
import math
from dataclasses import replace

import checks
import figures
import numpy as np
from course import FOLDER, config, nl

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
# Seven numbers give all sizes: L, D, H, G, d, F and V. In all:
#
# $$N = 2VD + L\,\big(2D(H + G)\,d + 3DF + 2D\big) + D$$
#
# **Predict.** In the tiny model above, embedding and output have a third of all numbers, 80 of 236. From 7B to 65B,
# does their share grow, stay or fall? And the share of the feed-forward step? (7B and 13B are the
# same in Llama 2.)

# %%
def by_formula(c):
    D, d = c.dim, c.head_dim
    layer = 2 * D * (c.n_heads + c.n_kv_heads) * d + 3 * D * c.hidden_dim + 2 * D
    return 2 * c.vocab_size * D + c.n_layers * layer + D


models = {**nl.PRESETS, "this model": config}
count = {name: sum(nl.parameter_counts(c).values()) for name, c in models.items()}
assert all(count[name] == by_formula(c) for name, c in models.items())
said = ["6.7", "13.0", "32.5", "65.2", "7", "13", "34", "70", ""]         # L1 table 2, L2 table 1
print("               D   L   H/G   d     F     V      parameters   billions in the papers")
for (name, c), paper in zip(models.items(), said):
    heads = f"{c.n_heads}/{c.n_kv_heads}"
    sizes = f"{name:11} {c.dim:5} {c.n_layers:3} {heads:>6} {c.head_dim:3}"
    print(f"{sizes} {c.hidden_dim:6} {c.vocab_size:5} {count[name]:15,}   {paper}")

# %%
some = ("this model", "llama-2-7b", "llama-2-13b", "llama-1-65b", "llama-2-70b")
parts = {name: nl.parameter_counts(models[name]) for name in some}
for name in some:
    outside = parts[name]["embedding"] + parts[name]["output"]
    print(f"{name:11} embedding and output {outside / count[name]:5.1%}, "
          f"feed-forward {parts[name]['feed-forward'] / count[name]:4.0%} "
          f"({parts[name]['feed-forward'] / (count[name] - outside):.0%} of the layers)")
figures.show(figures.shares(parts), "From the smallest model above to the largest below, embedding "
                                    "and output shrink to a sliver; the feed-forward step takes 56 "
                                    "percent in the smallest, about two thirds or more in the "
                                    "others. The norms are too few to see.")

# %% [markdown]
# **Explain.** Embedding and output shrink: they grow with D only, the matrices of a layer with D·D, and there are more
# layers. As those two shrink, the feed-forward share rises to about two thirds: with G = H and F about 2.7 D,
# $3DF \approx 8 D^2$ stand against $4 D^2$ of attention. In the 70B F is 3.5 D, and attention has fewer heads of keys
# and values (*What changed*, below). The smallest has fewer, too: 77 percent of its layers are feed-forward, 67 of
# 7B's. (L1 table 2 gives D, H and L; F is by the rule of lesson [06](06_swiglu.ipynb). L2 gives none of these: those of
# 7B, 13B and 70B are from the released files, those of the 34B, never released, from Code Llama.)
#
# ## How they were trained
#
# L1 table 2 and L2 table 1 give the tokens, in trillions:
#
# | | 7B | 13B | 33B / 34B | 65B / 70B |
# | --- | --- | --- | --- | --- |
# | Llama 1 | 1.0 | 1.0 | 1.4 | 1.4 |
# | Llama 2 | 2.0 | 2.0 | 2.0 | 2.0 |
#
# A batch has 4M tokens in all of them; the context is 2048 in Llama 1 and 4096 in Llama 2.
#
# **Predict.** In Llama 1, how many tokens were read for each parameter of the 7B, and of the 65B? And of the model that
# ships: $5.8$ million parameters, $31$ million tokens?

# %%
tokens = {"llama-1-7b": 1.0e12, "llama-1-13b": 1.0e12, "llama-1-33b": 1.4e12, "llama-1-65b": 1.4e12,
          "llama-2-7b": 2.0e12, "llama-2-13b": 2.0e12, "llama-2-34b": 2.0e12, "llama-2-70b": 2.0e12}
with open(FOLDER / "training.csv") as file:
    tokens["this model"] = float(list(csv.DictReader(file))[-1]["tokens"])
for name, T in tokens.items():
    print(f"{name:11} {T / 1e9:8,.4g} billion tokens, {T / count[name]:5.1f} per parameter")
# Hoffmann et al. (2022), quoted in L1 section 1
print(f"best for a fixed cost of training: {200e9 / 10e9:24.0f}   per parameter")

# %% [markdown]
# **Explain.** 148 and 21. L1 (section 1) quotes Hoffmann et al. (2022): for a fixed cost of *training*, a
# model of 10B is best trained on 200 billion tokens, 20 per parameter. If that holds for other sizes, the 65B is
# there; the 7B goes seven times further, as a small model costs less to *use*. The model that ships read 5.
#
# ## The data
#
# L1 table 1 gives, for each source of Llama 1's data, its share of the training tokens, how many times it was read
# (*epochs*), and its size on disk. The epochs are those of a run of 1.4 trillion tokens; the runs of 1.0 trillion drew
# theirs in the same proportions. (Llama 2's mix is not published.)
#
# **Predict.** The 65B read Wikipedia 2.45 times and CommonCrawl 1.10 times. And the 7B, with its 1.0 trillion tokens?

# %%
sources = {  # L1 table 1: share in percent, epochs, gigabytes on disk
    "CommonCrawl": (67.0, 1.10, 3300), "C4": (15.0, 1.06, 783), "GitHub": (4.5, 0.64, 328),
    "Wikipedia": (4.5, 2.45, 83), "Books": (4.5, 2.23, 85), "ArXiv": (2.5, 1.06, 92),
    "StackExchange": (2.0, 1.03, 78)}
print("                    epochs in    epochs in   tokens drawn      tokens in   bytes per")
print("source          share  1.4T         1.0T         of 1.4T     the source       token")
for name, (share, epochs, gigabytes) in sources.items():
    drawn = share / 100 * 1.4e12
    size = drawn / epochs
    print(f"{name:14} {share:5.1f}% {epochs:5.2f} {epochs / 1.4:12.2f} {drawn / 1e9:7.0f} billion "
          f"{size / 1e9:6.0f} billion {gigabytes * 1e9 / size:11.1f}")
held = sum(share / 100 * 1.4e12 / epochs for share, epochs, _ in sources.values())
print(f"all sources together: {held / 1e12:.2f}T tokens")

# %%
figure, axes = figures.new(2.7, columns=2, sharey=True)
figures.bars(axes[0], {name: s[0] for name, s in sources.items()}, ".1f")
figures.bars(axes[1], {name: s[1] for name, s in sources.items()}, ".2f", colour=figures.GREEN,
             marked=[name for name, s in sources.items() if s[1] > 2 or s[1] < 1])
axes[1].axvline(1, color=figures.BLACK, linestyle="--", linewidth=1)
axes[0].set(xlabel="percent of the training tokens")
axes[1].set(xlabel="epochs in 1.4T tokens (dashed: once)")
axes[1].invert_yaxis()
figures.show(figure, "A run of 1.4 trillion tokens: most comes from the web; two small "
                     "sources were read more than twice, code not even once (hatched).")

# %% [markdown]
# **Explain.** $2.45 / 1.4 = 1.75$ times and $1.10 / 1.4 = 0.79$ times. In the 33B and 65B, Wikipedia and the books were
# read more than twice, more than a third of the code never. In the 7B and 13B only those two were read in full; of the
# web pages, a fifth to a quarter was never seen. This takes a source as read through before it repeats (L1 does not
# say); otherwise more was missed and more came twice. L1 (section 2.1) says the data set contains roughly 1.4T tokens;
# by its table that is what was drawn, and the sources hold 1.26T.
#
# The last column checks the table: about three to four bytes for a token in every source.
#
# ## FLOPs
#
# A *FLOP* is one multiplication or addition of two numbers. By hand: a row of 2 numbers times a (2, 3) matrix.
# Each of the 3 results takes 2 multiplications and 2 additions (the first is added to zero): $12$ FLOPs for 6 weights,
# 2 for each.
#
# **Explore** ([explorer](explorer/README.md)). One number of a gate, the sum of 256 products: 512 FLOPs for 256
# weights.
#
#     python notebooks/explorer/build.py --open "#t=layers.0.ffn.gate&i=9.0"
#
# Training also goes *backward*. It is given how much the loss changes with each result, the *gradient* g: 3 numbers. It
# needs two more products: how much the loss changes with the row (g times the transposed matrix: 2 numbers, the g of
# the product before), and with each weight (row times g: 6 numbers). By hand, with $x = (1, 2)$ and $g = (1, 0, 3)$:
#
# $$W = \begin{pmatrix} 1 & 0 & 2 \\ 0 & 1 & 1 \end{pmatrix}, \qquad
# g\,W^\top = (1 + 0 + 6,\; 0 + 0 + 3) = (7, 3), \qquad
# x^\top g = \begin{pmatrix} 1 & 0 & 3 \\ 2 & 0 & 6 \end{pmatrix}$$
#
# A loss with just this g is $g \cdot (xW)$. If the last weight grows by 1, it should grow by 6:

# %%
x = np.array([[1.0, 2.0]])                                # (1, 2)
w = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])          # (2, 3)
g = np.array([[1.0, 0.0, 3.0]])                           # (1, 3)
print("for the row:", g @ w.T)
print("for the weights:", (x.T @ g).tolist())
more = w.copy()
more[1, 2] += 1                                           # the last weight
print(f"the loss changes by {np.sum(g * (x @ more)) - np.sum(g * (x @ w)):.0f}")

# %% [markdown]
# Each of the two takes 12 FLOPs again (in the second, each of the 6 products is added to those of other tokens). So a
# weight costs 2 FLOPs forward and 4 backward, for each token, and training takes about
#
# $$\text{FLOPs} \approx 6\,N\,T$$
#
# Two errors of the rule matter. It counts the embedding, which is looked up and not multiplied. And it leaves out what
# attention does with other tokens: q·k, and the mean of the values, cost $2 \cdot 2 \cdot H d \cdot S$ FLOPs per layer
# for a token that sees S tokens, and three times that in training.
#
# How many is S? In a text of 2,048 tokens all of them, if the program computes all scores and then masks half; about
# half of that on average, if it skips the masked. Llama 1's did (L1 section 2.4); L2 does not say.
#
# **Predict.** At a context of 2,048, is the rule too high or too low for 7B? For which is it worse, 7B or 65B? And what
# happens to the error at 4,096?

# %%
def training_flops_per_token(c, seen):
    """Forward and backward, all products, for tokens that see so many tokens on average."""
    norms = (2 * c.n_layers + 1) * c.dim
    multiplied = sum(nl.parameter_counts(c).values()) - c.vocab_size * c.dim - norms
    scores = 2 * c.n_layers * c.n_heads * c.head_dim * seen                   # q·k and mix
    return 6 * (multiplied + scores)                      # scores: 4 forward, 3 times that: 6 * 2


print("billion FLOPs per token     rule   masked skipped   all scores        embedding alone")
for name in ("llama-1-7b", "llama-1-65b", "llama-2-7b", "this model"):
    c = models[name]
    rule = 6 * count[name]
    half = training_flops_per_token(c, c.max_seq_len / 2)
    full = training_flops_per_token(c, c.max_seq_len)
    print(f"{name:11} at {c.max_seq_len:4} {rule / 1e9:15.3f} "
          f"{half / 1e9:10.3f} ({half / rule - 1:+.1%}) {full / 1e9:8.3f} ({full / rule - 1:+.1%}) "
          f"{-c.vocab_size * c.dim / count[name]:12.1%}")
for name in ("llama-1-7b", "llama-1-65b", "llama-2-70b", "this model"):
    print(f"{name:11} 6·N·T = {6 * count[name] * tokens[name]:.1e} FLOPs")

# %% [markdown]
# **Explain.** Too low, by 2 to 6 percent: the embedding takes off 2, the scores add more. From 7B to 65B the scores'
# part halves (they grow with D, the matrices with D·D), but the embedding's shrinks, too, from 1.9 to 0.4: so the error
# falls only from 2.0 to 1.7 percent, or from 6.0 to 3.7. At 4,096 the scores double, the embedding does not: the error
# more than doubles, from 2 to 6 or from 6 to 14 percent. (In this model the two happen to cancel, with the masked
# skipped.)
#
# ## Three weeks
#
# L1 section 2.4: the 65B processes about 380 tokens per second and GPU, on 2,048 GPUs with 80 GB each; from this L1
# concludes that 1.4 trillion tokens take about 21 days.
#
# **Predict.** Do these numbers agree? And of the 312 trillion FLOPs per second that the maker states for such a
# GPU (an A100, numbers of 16 bits), does the training use about $10$, $50$ or $90$ percent?

# %%
rate = 380 * 2048                                         # tokens per second
days = 1.4e12 / rate / 86400
print(f"{rate:,} tokens per second; in 21 days {rate * 86400 * 21:.3e} tokens")
print(f"1.4T tokens take {days:.1f} days")
for label, each in (("rule", 6 * count["llama-1-65b"]),
                    ("masked skipped", training_flops_per_token(models["llama-1-65b"], 1024))):
    print(f"{label:15} {380 * each / 1e12:.0f} trillion FLOPs per second and GPU, "
          f"{380 * each / 312e12:.0%} of 312")

# %% [markdown]
# **Explain.** They agree: L1 worked the days out from the rate. Each GPU delivers about half of what its
# maker states. It does a little more, but not the other half: some cheap intermediate results are computed again in the
# backward pass (L1 section 2.4; the outputs of linear layers are kept).
#
# ## GPU-hours
#
# L1 table 15 and L2 table 2 give what each model took. A *GPU-hour* is one GPU for one hour: 2,048 GPUs for 20.8 days
# are $1.02$ million. The last column below counts the scores: in Llama 1 with the masked skipped; in Llama 2, where we
# do not know, from skipped to all.
#
# **Predict.** If GPU-hours were proportional to N · T, each GPU would deliver the same FLOPs per second in all
# trainings. Will the eight numbers agree within 5 percent, within a factor of 1.5, or within a factor of 5?

# %%
hours = {"llama-1-7b": 82_432, "llama-1-13b": 135_168, "llama-1-33b": 530_432,
         "llama-1-65b": 1_022_362, "llama-2-7b": 184_320, "llama-2-13b": 368_640,
         "llama-2-34b": 1_038_336, "llama-2-70b": 1_720_320}
print("                 GPU-hours   trillion FLOPs/s per GPU: by the rule   with the scores")
rules, per_gpu = {}, {}
for name, n in hours.items():
    c, speed = models[name], tokens[name] / n / 3600 / 1e12
    half = training_flops_per_token(c, c.max_seq_len / 2) * speed
    full = training_flops_per_token(c, c.max_seq_len) * speed
    rules[name] = 6 * count[name] * speed
    per_gpu[name] = half, half if "llama-1" in name else full
    scores = f"{half:.0f}" + (f" to {full:.0f}" if "llama-2" in name else "")
    print(f"{name:11} {n:14,} {rules[name]:38.0f}   {scores}")
print(f"by the rule, largest / smallest = {max(rules.values()) / min(rules.values()):.2f}")
print(f"1.4T tokens at 380 per second without a stop: {1.4e12 / 380 / 3600:,.0f} GPU-hours")

# %%
figure, ax = figures.new(2.2)
pairs = ("7b", "7b"), ("13b", "13b"), ("33b", "34b"), ("65b", "70b")
for row, (old, new) in enumerate(pairs):
    low, high = per_gpu["llama-2-" + new]
    bar = ax.barh(row, high - low, 0.25, low, color=figures.ORANGE)
    dot, = ax.plot(per_gpu["llama-1-" + old][0], row, "o", color=figures.BLACK)
ax.legend([dot, bar], ["Llama 1", "Llama 2"], ncols=2, loc="lower right", bbox_to_anchor=(1, 0.98))
ax.set(yticks=range(4), yticklabels=["7B", "13B", "33B / 34B", "65B / 70B"], ylim=(3.5, -0.5),
       xlim=(105, 170), xlabel="trillion FLOPs per second and GPU, scores counted")
figures.show(figure, "Llama 2 (bars: from masked scores skipped to all computed) comes up to "
                     "Llama 1 (dots) in the 7B only, if all scores are computed.")

# %% [markdown]
# **Explain.** Within a factor of 1.5: by the rule from 108 (Llama 2's 34B) to 160 (Llama 1's 13B). In every pair Llama
# 2 has fewer FLOPs per GPU-hour. Its longer context, whose scores the rule leaves out, all but closes the gap
# between the two 7B, if counted in full; the other three stay open. (The 34B's GPUs were limited to 350 W, the other
# three's to 400: a candidate, no proof.) L1's hours for the 65B are those of 380 tokens per second without a stop
# (*Three weeks* again); of L2's we do not know.
#
# ## Memory
#
# To *use* a model, its weights and a cache must fit. To *train* it, every parameter also needs its gradient and the
# optimizer's state. A common arrangement, assumed here, has 16 bytes for each parameter: $2$ for the weight and $2$ for
# its gradient, both in 16 bits; and in 32 bits $4$ for a more exact copy of the weight and $4 + 4$ for AdamW, which
# keeps a running mean of the gradient and one of its square. (The intermediate results that the backward pass needs
# come on top; they grow with the batch.)
#
# **Predict.** In Llama 2, which has the larger cache for a text of 4,096 tokens, 13B or 70B, and by about what factor?

# %%
print("                16-bit weights   16-bit cache, 4,096 tokens   training, 16 bytes each")
for name in ("llama-2-7b", "llama-2-13b", "llama-2-34b", "llama-2-70b"):
    c, n = models[name], count[name]
    cache = 4096 * 2 * c.n_layers * c.n_kv_heads * c.head_dim * 2             # k and v; bytes
    print(f"{name:12} {2 * n / 2**30:12.1f} GiB {cache / 2**30:22.2f} GiB "
          f"{16 * n / 2**30:18.0f} GiB")

# %% [markdown]
# **Explain.** The 13B, 2.5 times: it has 40 key/value heads in each of 40 layers, the 70B 8 in each of 80:
# $40 \cdot 40 / (8 \cdot 80) = 2.5$ (lesson [05](05_grouped_query_attention.ipynb)). In this arrangement no GPU of
# 80 GB (75 GiB of $2^{30}$ bytes) holds the training of even the smallest.
#
# ## What changed from Llama 1 to Llama 2
#
# Context 2048 to 4096; 2.0 trillion tokens of a new mix for all sizes; 33B and 65B gave way to 34B and 70B, which share
# keys and values. RMSNorm, RoPE, SwiGLU and the tokenizer stayed.
#
# **Predict.** From 65B to 70B, G fell from 64 to 8 and F grew from 22016 to 28672; D, L and H stayed. Attention's share
# of the parameters fell from 33 to 18 percent. Which of the two changes did more of that?

# %%
llama_65b, llama_70b = models["llama-1-65b"], models["llama-2-70b"]
for label, c in (("65B", llama_65b), ("65B with G 8", replace(llama_65b, n_kv_heads=8)),
                 ("65B with F 28672", replace(llama_65b, hidden_dim=28672)),
                 ("70B: both", llama_70b)):
    counts = nl.parameter_counts(c)
    print(f"{label:17} {sum(counts.values()) / 1e9:.1f} billion, "
          f"attention {counts['attention'] / sum(counts.values()):.0%}")
wide = 1.3 * (2 * 4 * 8192 // 3)                          # two thirds of 4 D, times 1.3
print(f"F of the 70B: {wide:,.0f}, rounded up to a multiple of 4096: "
      f"{nl.feed_forward_dim(8192, 4096, 1.3):,}")

# %% [markdown]
# **Explain.** Sharing: alone it takes the share to 22 percent, the wider F alone to 27. In the other order too: sharing
# then takes 27 to 18, F 22 to 18. Sharing saves $65.3 - 55.9 = 9.4$ billion parameters, and the wider F adds
# $78.4 - 65.3 = 13.1$. (L2, section A.2.1, widened F by 1.3 in models of 30B, to keep the parameter count similar. The
# 70B has the same 1.3.)
#
# ## In the wild
#
# Five errors. *Parameters* refutes the first, *The data* the fourth; the cell below computes the others:
#
# - **"30B"**: the paper says 33B, and 32.5 billion in its table; Meta's own script said 30B for months
#   ([llama#49](https://github.com/meta-llama/llama/issues/49),
#   [#336](https://github.com/meta-llama/llama/issues/336)).
# - **"Llama 2 has the same architecture"**: true of 7B and 13B, but for the context. A loader that thinks so wants 8192
#   rows of keys from a 70B that has 1024 ([LlamaFactory#459](https://github.com/hiyouga/LlamaFactory/issues/459)).
# - **Sizes of another model**: a list in Meta's llama-models gave Llama 2 7B what belongs to Llama 3 8B: 8 key/value
#   heads, a multiplier of 1.3 for F and a RoPE base of $500000$
#   ([llama-models#246](https://github.com/meta-llama/llama-models/issues/246)). How large would that be?
# - **"Each token was seen once"**: L1 (section 2.1) excepts Wikipedia and the books. By its table a tenth of
#   CommonCrawl came twice in the 65B too.
# - **A total that does not add up**: the table in Llama 2's [model
#   card](https://github.com/meta-llama/llama/blob/main/MODEL_CARD.md) leaves out the row of the 34B, and keeps it in
#   the sum.

# %%
print(f"70B: rows of keys, G·d = {llama_70b.n_kv_heads * llama_70b.head_dim}; "
      f"with G = H {llama_70b.n_heads * llama_70b.head_dim}, "
      f"and {by_formula(replace(llama_70b, n_kv_heads=64)) / 1e9:.1f} billion parameters")
listed = replace(models["llama-2-7b"], n_kv_heads=8, hidden_dim=nl.feed_forward_dim(4096, 256, 1.3))
print(f"7B as listed: F {listed.hidden_dim} instead of {models['llama-2-7b'].hidden_dim}, "
      f"{by_formula(listed) / 1e9:.2f} billion parameters, not {count['llama-2-7b'] / 1e9:.2f}")
in_all, missing = sum(n for name, n in hours.items() if "llama-2" in name), hours["llama-2-34b"]
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
# by $2$.
#
# </details>
#
# **2.** You have a fixed budget of FLOPs, and decide for a model with twice as many parameters. How many tokens can it
# read?
#
# <details>
# <summary>Answer</summary>
#
# Half as many, by 6·N·T, and so a quarter as many per parameter. Which of the two models gets the lower loss, the rule
# cannot say.
#
# </details>
#
# **3.** In the first figure, the shipped model spends more than a quarter of its parameters on embedding and output. It
# has the smallest vocabulary of all by far. Explain.
#
# <details>
# <summary>Answer</summary>
#
# The share is $2VD$ against the layers. A layer of 7B has about $4 D^2$ in attention and $8 D^2$ in the feed-forward
# step (three of D by $\tfrac{8}{3} D$), so $12 D^2$; ours, which shares keys and values, has $2.5 D^2 + 8.25 D^2$. So
# the share goes about with $V / (L D)$. V is about ten times smaller than Llama's, but D is sixteen times and L more
# than five times smaller than in 7B.
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
# rule 6·N·T, how many GPUs are needed at least?

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
# `sources` is {name: (share of the training tokens in percent, epochs)}; the epochs are those of a run of `stated`
# tokens. Another run takes `tokens` tokens in the same shares. How many *different* tokens did it see? A source is
# read through before it repeats; one that was not read in full counts with what was read of it.

# %% tags=["exercise"]
def different_tokens(tokens, sources, stated):
    """Different tokens that a run has seen: number, dict, number -> number."""
    ...

# %%
check(different_tokens)

# %% tags=["solution"]
def different_tokens(tokens, sources, stated):
    seen = 0
    for share, epochs in sources.values():
        size = share / 100 * stated / epochs              # tokens in the source
        drawn = share / 100 * tokens
        seen += min(size, drawn)
    return seen

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
# 1. Seven numbers give a Llama's parameters; in large ones about two thirds or more are feed-forward.
# 2. Training costs about 6·N·T FLOPs: 2 forward and 4 backward; the scores of a long context come on top.
# 3. At L1's rate the 65B takes three weeks on 2,048 GPUs without a stop; each does about half (48 percent) of what its
#    maker states.
# 4. Most of Llama 1's data is from the web; its 65B read Wikipedia and books more than twice, code less than once.
# 5. Llama 2 has more data, a longer context and, in its two large sizes, shared keys and values.
