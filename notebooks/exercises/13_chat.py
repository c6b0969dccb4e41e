"""The exercises of lesson 13, for checks.py; README.md in the folder above says how to write one."""
import math

import numpy as np
from checks import Exercise, random


def turn_texts(system, texts):
    turns = []
    for i in range(0, len(texts), 2):
        part = "<<SYS>>\n" + system + "\n<</SYS>>\n\n" if system and i == 0 else ""
        answer = " " + texts[i + 1] + " " if i + 1 < len(texts) else ""
        turns.append("[INST] " + part + texts[i] + " [/INST]" + answer)
    return turns


def turns_with(open="<<SYS>>\n", close="\n<</SYS>>\n\n", start="[INST] ", end=" [/INST]", before=" ", after=" ",
               always=False, every=False):
    def wrong(system, texts):
        turns = []
        for i in range(0, len(texts), 2):
            part = open + system + close if (system or always) and (i == 0 or every) else ""
            answer = before + texts[i + 1] + after if i + 1 < len(texts) else ""
            turns.append(start + part + texts[i] + end + answer)
        return turns
    return wrong


TURN_TEXTS = Exercise(
    turn_texts, stars=2, minutes=10,
    inputs=[
        ("Be brief.", ["Who is the king?", "An old man.", "And the queen?"]), ("", ["Tell me a story."]),
        ("Two\nlines.", ["Hello", "Good day.", "Who are you?", "A miller.", "Whose?"])],
    hints=[
        "The format in the lesson is one line; where does it begin anew, and what is missing in the last turn?",
        "The system message stands inside the first user message only. An answer has a space on both sides.",
        "[INST] {user} [/INST] {answer} for each pair, with a space at the end; the last turn ends with [/INST]; "
        "<<SYS>>\\n{system}\\n<</SYS>>\\n\\n comes before the first user's text."],
    mistakes=[
        ("one newline is missing after <</SYS>>: there are two.",
         turns_with(close="\n<</SYS>>\n")),
        ("the newline after <<SYS>> is missing.",
         turns_with(open="<<SYS>>")),
        ("the system part closes with <</SYS>>; you opened it a second time.",
         turns_with(close="\n<<SYS>>\n\n")),
        ("an empty system message leaves no trace: no <<SYS>> at all.",
         turns_with(always=True)),
        ("the system message stands in the first turn only.",
         turns_with(every=True)),
        ("a space belongs after [INST].",
         turns_with(start="[INST]")),
        ("the space between [/INST] and the answer is missing.",
         turns_with(before="")),
        ("the space after the answer, before </s>, is missing.",
         turns_with(after="")),
        ("no space at the end of the last turn: the answer brings its own.",
         lambda system, texts: [*turns_with()(system, texts)[:-1], turns_with(end=" [/INST] ")(system, texts)[-1]]),
        ("<s> is a control token, and not written as text.",
         turns_with(start="<s>[INST] ")),
        ("the system message is missing.",
         lambda system, texts: turn_texts("", texts)),
        ("that is one string; one for each turn was asked for, as control tokens stand between them.",
         lambda system, texts: "".join(turn_texts(system, texts))),
    ],
    wrong_answers=[
        ("there are two", r"""
def turn_texts(system, texts):
    texts = list(texts)
    if system:
        texts[0] = "<<SYS>>\n" + system + "\n<</SYS>>\n" + texts[0]
    turns = []
    for i in range(0, len(texts), 2):
        turn = "[INST] " + texts[i] + " [/INST]"
        if i + 1 < len(texts):
            turn += " " + texts[i + 1] + " "
        turns.append(turn)
    return turns"""),
        ("leaves no trace", r"""
def turn_texts(system, texts):
    texts = [f"<<SYS>>\n{system}\n<</SYS>>\n\n" + texts[0]] + texts[1:]
    turns = []
    for i in range(0, len(texts), 2):
        answer = f" {texts[i + 1]} " if i + 1 < len(texts) else ""
        turns.append(f"[INST] {texts[i]} [/INST]{answer}")
    return turns"""),
        ("the first turn only", r"""
def turn_texts(system, texts):
    s = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
    turns = []
    for i in range(0, len(texts), 2):
        answer = f" {texts[i + 1]} " if i + 1 < len(texts) else ""
        turns.append(f"[INST] {s}{texts[i]} [/INST]{answer}")
    return turns"""),
        ("before </s>, is missing", r"""
def turn_texts(system, texts):
    s = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
    texts = [s + texts[0]] + texts[1:] + [""]
    return [f"[INST] {u} [/INST] {a}".rstrip() for u, a in zip(texts[::2], texts[1::2])]"""),
        ("that is one string", r"""
def turn_texts(system, texts):
    s = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
    out = f"[INST] {s}{texts[0]} [/INST]"
    for answer, user in zip(texts[1::2], texts[2::2]):
        out += f" {answer} [INST] {user} [/INST]"
    return out"""),
    ])


def counted(turns):
    counts, at = np.zeros(sum(p + a for p, a in turns), bool), 0
    for n_prompt, n_answer in turns:
        for t in range(at + n_prompt, at + n_prompt + n_answer):
            counts[t] = True
        at += n_prompt + n_answer
    return counts[1:]


def tokens_of(turns, prompt=False, answer=True):
    return np.concatenate([[prompt] * p + [answer] * a for p, a in turns]).astype(bool)


def only_turn(turns, which):
    return np.concatenate([[False] * p + [i == which % len(turns)] * a for i, (p, a) in enumerate(turns)]).astype(bool)


COUNTED = Exercise(
    counted, stars=2, minutes=10,
    inputs=[([(3, 2)],), ([(4, 3), (2, 5), (6, 1)],), ([(1, 4), (5, 2)],)],
    hints=[
        "Say first of every token of the dialogue whether it belongs to an answer. How many targets are there?",
        "Target i is token i + 1, and token 0 is never a target.",
        "Join [False] * n_prompt + [True] * n_answer of all turns, and leave the first out."],
    mistakes=[
        ("one too many: token 0 is not a target, so there are T - 1.",
         lambda turns: tokens_of(turns)),
        ("you left out the last token instead of the first: target i is token i + 1.",
         lambda turns: tokens_of(turns)[:-1]),
        ("those are the prompts' tokens; the answers' count.",
         lambda turns: ~tokens_of(turns)[1:]),
        ("only the last answer counts in yours; all of them are trained on.",
         lambda turns: only_turn(turns, -1)[1:]),
        ("only the first answer counts in yours; all of them are trained on.",
         lambda turns: only_turn(turns, 0)[1:]),
        ("everything after the first prompt counts in yours, the later prompts too.",
         lambda turns: np.arange(1, sum(p + a for p, a in turns)) >= turns[0][0]),
        ("those are positions; one true or false for each target was asked for.",
         lambda turns: np.flatnonzero(tokens_of(turns)[1:])),
    ],
    wrong_answers=[
        ("one too many", """
def counted(turns):
    out = []
    for p, a in turns:
        out += [False] * p + [True] * a
    return np.array(out)"""),
        ("left out the last", """
def counted(turns):
    return np.concatenate([np.repeat([False, True], turn) for turn in turns])[:-1]"""),
        ("the prompts' tokens", """
def counted(turns):
    return np.concatenate([np.repeat([True, False], turn) for turn in turns])[1:]"""),
        ("only the last answer", """
def counted(turns):
    T = sum(p + a for p, a in turns)
    return np.arange(1, T) >= T - turns[-1][1]"""),
        ("the later prompts too", """
def counted(turns):
    T = sum(map(sum, turns))
    return np.arange(1, T) >= turns[0][0]"""),
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
        "Which of exp(x) and exp(-x) overflows where the order is badly wrong? What is the loss there, about?",
        "-ln sigmoid(x) is ln(1 + exp(-x)); NumPy has a function for ln(exp(a) + exp(b)) that does not overflow.",
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
