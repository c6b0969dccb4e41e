"""The exercises of lesson 13, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, random


def chat_text(system, user):
    return "".join(["[INST] ", "<<SYS>>\n" + system + "\n<</SYS>>\n\n" if system else "", user, " [/INST]"])


def chat_with(open="<<SYS>>\n", close="\n<</SYS>>\n\n", start="[INST] ", end=" [/INST]", always=False):
    return lambda system, user: start + (open + system + close if system or always else "") + user + end


CHAT_TEXT = Exercise(
    chat_text, stars=1, minutes=5,
    inputs=[
        ("Be brief.", "Who is the king?"), ("", "Tell me a story."), ("Two\nlines.", "Hello")],
    hints=[
        "[INST] <<SYS>>\\n{system}\\n<</SYS>>\\n\\n{user} [/INST], without the system part if it is empty."],
    mistakes=[
        ("one newline is missing after <</SYS>>: there are two.",
         chat_with(close="\n<</SYS>>\n")),
        ("the newline after <<SYS>> is missing.",
         chat_with(open="<<SYS>>")),
        ("the newline before <</SYS>> is missing.",
         chat_with(close="<</SYS>>\n\n")),
        ("the system part closes with <</SYS>>; you opened it a second time.",
         chat_with(close="\n<<SYS>>\n\n")),
        ("an empty system message leaves no trace: no <<SYS>> at all.",
         chat_with(always=True)),
        ("a space belongs after [INST].",
         chat_with(start="[INST]")),
        ("a space belongs before [/INST].",
         chat_with(end="[/INST]")),
        ("no space at the end: the answer brings its own.",
         chat_with(end=" [/INST] ")),
        ("<s> is a control token, and not written as text.",
         chat_with(start="<s>[INST] ")),
        ("the system part stands inside [INST], not before it.",
         lambda system, user: (f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else "") + f"[INST] {user} [/INST]"),
        ("the system message is missing.",
         lambda system, user: f"[INST] {user} [/INST]"),
    ],
    wrong_answers=[
        ("there are two", r"""
def chat_text(system, user):
    sys_part = "<<SYS>>\n" + system + "\n<</SYS>>\n" if system else ""
    return "[INST] " + sys_part + user + " [/INST]" """),
        ("leaves no trace", r"""
def chat_text(system, user):
    return f"[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]" """),
        ("not written as text", r"""
def chat_text(system, user):
    s = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
    return f"<s>[INST] {s}{user} [/INST]" """),
        ("inside [INST]", r"""
def chat_text(system, user):
    s = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
    return s + "[INST] " + user + " [/INST]" """),
        ("space at the end", r"""
def chat_text(system, user):
    s = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
    return f"[INST] {s}{user} [/INST] " """),
        ("after <<SYS>> is missing", r"""
def chat_text(system, user):
    s = f"<<SYS>>{system}\n<</SYS>>\n\n" if system else ""
    return f"[INST] {s}{user} [/INST]" """),
    ])


def answer_loss(logits, tokens, n_prompt):
    nats = []
    for t in range(n_prompt, len(tokens)):
        row = logits[t - 1].astype(float)
        nats.append(math.log(math.fsum(np.exp(row - row.max()))) + row.max() - row[tokens[t]])
    return math.fsum(nats) / len(nats)


def all_nats(rows, targets):
    rows = rows.astype(float)
    shifted = rows - rows.max(-1, keepdims=True)
    return np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(len(targets)), targets]


ANSWER_LOSS = Exercise(
    answer_loss, stars=2, minutes=10, may_call=("cross_entropy",),
    inputs=[
        (random(6, 9), np.array([1, 4, 0, 8, 2, 3]), 3), (random(4, 5, seed=1, scale=5), np.array([0, 1, 2, 3]), 1),
        (random(8, 7, seed=2), np.array([1, 2, 3, 4, 5, 6, 0, 1]), 7)],
    hints=[
        "Nats of logits[:-1] against tokens[1:]; those from index n_prompt - 1 on are the answer's. Take their mean."],
    mistakes=[
        ("one too few: the first token of the answer is predicted by the last row of the prompt, at index "
         "n_prompt - 1.",
         lambda l, t, n: all_nats(l[:-1], t[1:])[n:].mean() if n < len(t) - 1 else math.nan),
        ("all tokens count here; those of the prompt must not.",
         lambda l, t, n: all_nats(l[:-1], t[1:]).mean()),
        ("that is the loss of the prompt; the answer's was asked for.",
         lambda l, t, n: all_nats(l[:-1], t[1:])[:n - 1].mean() if n > 1 else math.nan),
        ("you divided by all T - 1 predictions; only the answer's tokens count in the mean.",
         lambda l, t, n: all_nats(l[:-1], t[1:])[n - 1:].sum() / (len(t) - 1)),
        ("that is the sum; the mean over the answer was asked for.",
         lambda l, t, n: all_nats(l[:-1], t[1:])[n - 1:].sum()),
        ("not shifted: row t of the logits is about token t + 1.",
         lambda l, t, n: all_nats(l, t)[n:].mean()),
    ],
    wrong_answers=[
        ("one too few", """
def answer_loss(logits, tokens, n_prompt):
    answer = nl.cross_entropy(logits[:-1], tokens[1:])[n_prompt:]
    return answer.mean() if len(answer) else float("nan")"""),
        ("all tokens count", """
def answer_loss(logits, tokens, n_prompt):
    return nl.cross_entropy(logits[:-1], tokens[1:]).mean()"""),
        ("not shifted", """
def answer_loss(logits, tokens, n_prompt):
    return nl.cross_entropy(logits, tokens)[n_prompt:].mean()"""),
        ("that is the sum", """
def answer_loss(logits, tokens, n_prompt):
    return nl.cross_entropy(logits[n_prompt - 1:-1], tokens[n_prompt:]).sum()"""),
        ("divided by all", """
def answer_loss(logits, tokens, n_prompt):
    nats = nl.cross_entropy(logits[:-1], tokens[1:])
    nats[:n_prompt - 1] = 0
    return nats.mean()"""),
    ])


def preference_loss(chosen, rejected, margin):
    losses = []
    for c, r, m in zip(chosen.astype(float), rejected.astype(float), margin.astype(float)):
        x = c - r - m
        losses.append(math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x)) - x)
    return math.fsum(losses) / len(losses)


def preference_with(chosen, rejected, margin, sign=-1, m=-1, reduce=np.mean):
    return reduce(np.logaddexp(0, sign * (chosen.astype(float) - rejected + m * margin)))


PREFERENCE_LOSS = Exercise(
    preference_loss, stars=3, minutes=15,
    inputs=[
        (random(5), random(5, seed=1), np.zeros(5, np.float32)),
        (random(4, seed=2, scale=3), random(4, seed=3), np.full(4, 1.5, np.float32)),
        (np.array([2000.0, -3000.0, 0.0]), np.array([0.0, 0.0, 0.0]), np.array([1.0, 0.5, 0.0]))],
    hints=[
        "For each pair -ln sigmoid(chosen - rejected - margin), by np.logaddexp so that nothing overflows; then "
        "the mean."],
    mistakes=[
        ("the margin has the wrong sign: it is taken from the difference, so that more is asked for.",
         lambda c, r, m: preference_with(c, r, m, m=1)),
        ("the margin is missing.",
         lambda c, r, m: preference_with(c, r, m, m=0)),
        ("chosen and rejected are exchanged: that rewards the worse answer.",
         lambda c, r, m: preference_with(r, c, m)),
        ("a sign is wrong: the loss must fall as the chosen answer's reward rises.",
         lambda c, r, m: preference_with(c, r, m, sign=1)),
        ("that is the sum; the mean over the pairs was asked for.",
         lambda c, r, m: preference_with(c, r, m, reduce=np.sum)),
        ("that is one loss for each pair; take their mean.",
         lambda c, r, m: preference_with(c, r, m, reduce=lambda x: x)),
        ("exp overflows where the order is badly wrong: use np.logaddexp(0, -x).",
         lambda c, r, m: np.mean(np.log(1 + np.exp(-(c.astype(float) - r - m))))),
    ],
    wrong_answers=[
        ("wrong sign", """
def preference_loss(chosen, rejected, margin):
    return np.logaddexp(0, -(chosen - rejected + margin)).mean()"""),
        ("margin is missing", """
def preference_loss(chosen, rejected, margin):
    return np.logaddexp(0, rejected - chosen).mean()"""),
        ("are exchanged", """
def preference_loss(chosen, rejected, margin):
    return np.logaddexp(0, chosen - rejected + margin).mean()"""),
        ("that is the sum", """
def preference_loss(chosen, rejected, margin):
    return np.logaddexp(0, -(chosen - rejected - margin)).sum()"""),
        ("take their mean", """
def preference_loss(chosen, rejected, margin):
    return np.logaddexp(0, -(chosen - rejected - margin))"""),
        ("exp overflows", """
def preference_loss(chosen, rejected, margin):
    return np.log1p(np.exp(rejected + margin - chosen)).mean()"""),
    ])
