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
# # 1. Tokens
#
# | | |
# | --- | --- |
# | **You will be able to** | turn a text into token ids by hand, merge by merge; say what happens to a digit, an emoji and a Chinese character; look up what the model knows of a token before it reads any other |
# | **It assumes** | lesson [00](00_start_here.ipynb); what a list and a dictionary are |
# | **Minutes** | 45 |
#
# T tokens, D model width, V vocabulary.

# %% tags=["hide"]
import sys

sys.path.insert(0, "..")
from course import SENTENCE, STORY, config, nl, tokenizer, weights

import figures
import ipywidgets
import numpy as np
from checks import check

# %% [markdown]
# ## Text in, numbers out
#
# A Llama reads no letters. It reads T whole numbers, each below V. The tokenizer makes them, and it was built before
# the model was trained: the model has never seen anything else.
#
# **Predict.** The sentence below has 14 words and 74 characters. How many tokens will it be?

# %%
tokens = tokenizer.encode(SENTENCE)
vocabulary = [tokenizer.sp.id_to_piece(i) for i in range(tokenizer.vocab_size)]

print(f"{len(SENTENCE.split())} words, {len(SENTENCE)} characters, T {len(tokens)} tokens")
print("ids   ", tokens)
print("pieces", *[vocabulary[i] for i in tokens])

# %%
figure = figures.coloured_text([vocabulary[i] for i in tokens], [0.15, 0.4] * 8 + [0.15],
                               limit=1, numbers="d" if False else ".0f") if False else None
