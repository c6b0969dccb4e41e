"""Train a smaller sister of fairytales, and record what it says on the way: milestones.json.

    pip install -r tests/requirements.txt          # PyTorch and transformers
    python weights/milestones.py BOOKS             # five minutes on one core

Books held out, tokenizer, windows, optimiser and form of the schedule are train.py's; the model is smaller, the run
shorter, and all of it float32. A second run, the control, keeps the learning rate level where the first lets it fall:
it begins as a copy of the first at that step, and reads the same windows. No text of the books is written down, only
what the models say.
"""
import argparse
import copy
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import train
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy_llama as nl  # noqa: E402

FAIRYTALES = Path(__file__).parent / "fairytales"
SISTER = train.MODEL | dict(hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4)
STEPS, WARMUP, BATCH = 600, 50, 2                          # train.py: 7,500 steps, 300 of warm-up, 8 windows each
MILESTONES = (10, 30, 100)                                # beside the first, the middle and the last step
PROMPT = "Once upon a time"
SAYS = dict(max_new_tokens=40, temperature=0.8, top_p=0.95)


def take_step(model, optimizer, batch, rate):
    """One step of train.py, in float32."""
    return train.take_step(model, optimizer, batch, rate, lambda tokens: model(tokens).logits)


def said(model, tokenizer, seed=0):
    """What the model says after PROMPT, as numpy_llama.py runs its exported files."""
    with tempfile.TemporaryDirectory() as folder:
        train.export(model, folder)
        weights, config = nl.load(folder, np.float64)
    tokens = tokenizer.encode(PROMPT)
    new = nl.generate(tokens, weights, config, rng=np.random.default_rng(seed), stop=(tokenizer.eos,), **SAYS)
    return tokenizer.decode([*tokens, *new])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("books", help="folder of .txt books, stories separated by two blank lines")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "milestones.json", help="file to write")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of {BATCH} x {train.CONTEXT} tokens "
                                                                 "(%(default)s)")
    args = parser.parse_args()

    train.WARMUP, train.BATCH = WARMUP, BATCH
    _, stories, held_out = train.split(train.read_books(args.books))
    valid = held_out[::8]
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(FAIRYTALES / "tokenizer.model"))
    tokenizer = nl.Tokenizer(FAIRYTALES / "tokenizer.model")
    stories = train.encode(stories, pieces)

    torch.manual_seed(train.SEED)
    model = LlamaForCausalLM(LlamaConfig(**SISTER))
    optimizer = train.new_optimizer(model)
    falls = int(args.steps * (1 - train.DECAY))           # where the learning rate begins to fall
    milestones, level = [], None

    def record(step, loss):
        bits = train.bits_per_byte(model, valid, pieces)
        milestones.append({"step": step, "tokens": step * train.BATCH * train.CONTEXT, "training_nats": loss,
                           "held_out_bits_per_byte": round(bits, 4), "said": said(model, tokenizer)})

    record(0, None)
    recent = []
    for step, (_, batch) in zip(tqdm(range(args.steps), unit="step"), train.batches(stories, skip=0)):
        if step == falls:
            level = copy.deepcopy(model)
            level_optimizer = train.new_optimizer(level)
            level_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        recent.append(take_step(model, optimizer, batch, train.learning_rate(step, args.steps)))
        if step >= falls:
            take_step(level, level_optimizer, batch, train.PEAK_RATE)
        if step + 1 in (*MILESTONES, falls, args.steps):
            record(step + 1, round(float(np.mean(recent[-20:])), 4))
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    found = {"model": {name: SISTER[name] for name in sizes},
             "parameters": sum(p.numel() for p in model.parameters()),
             "steps": args.steps, "warmup": WARMUP, "batch": BATCH, "context": train.CONTEXT, "falls": falls,
             "peak_rate": train.PEAK_RATE, "says": SAYS, "milestones": milestones,
             "level_to_the_end": {"held_out_bits_per_byte": round(train.bits_per_byte(level, valid, pieces), 4),
                                  "said": said(level, tokenizer)}}
    args.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
