"""Train a small Llama from scratch on a folder of plain-text books.

    pip install -r tests/requirements.txt          # PyTorch and transformers
    python weights/train.py BOOKS                  # writes weights/fairytales
    python weights/train.py BOOKS --resume         # goes on from the last checkpoint

BOOKS holds one .txt file per book, stories separated by two blank lines. A few whole books are held out.
The model is transformers' LlamaForCausalLM, so that numpy_llama.py has nothing to do with making what it is
tested on. The recipe is Llama's (arXiv 2302.13971, section 2.3): AdamW (0.9, 0.95), weight decay 0.1,
clipping at 1.0, warm-up. The learning rate then stays level and falls linearly to zero over the last part of
the run, so that a run which has to end earlier or later than planned only needs another --steps.
"""
import argparse
import csv
import json
import math
import os
import random
import time
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from tqdm import tqdm
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT = 512          # tokens the model can see; every training window is this long
BATCH = 8              # windows per step
PEAK_RATE = 2e-3
WARMUP = 300           # steps
DECAY = 0.5            # share of the run over which the learning rate falls to zero
HELD_OUT = 3           # whole books that training never sees
SEED = 0

MODEL = dict(
    vocab_size=3072,
    hidden_size=256,
    intermediate_size=704,       # two thirds of 4 * 256, rounded up to a multiple of 64
    num_hidden_layers=6,
    num_attention_heads=8,
    num_key_value_heads=2,
    max_position_embeddings=CONTEXT,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=None,
)


def read_books(folder):
    """The stories of each book, as {book: [story, ...]}; stories are separated by two blank lines."""
    books = {}
    for path in sorted(Path(folder).glob("*.txt")):
        try:
            text = path.read_text(encoding="utf-8-sig")      # without a byte order mark, and with \n behind every line
        except UnicodeDecodeError as error:
            raise SystemExit(f"error: {path} is not UTF-8 text at byte {error.start}: save it as UTF-8") from None
        stories = [story.strip() for story in text.split("\n\n\n")]
        books[path.stem] = [story for story in stories if story]
    if len(books) <= HELD_OUT:
        raise SystemExit(f"error: {folder} holds {len(books)} .txt books; more than {HELD_OUT} are needed")
    return books


def train_tokenizer(stories, prefix):
    """A SentencePiece BPE model with the settings of Llama's own tokenizer, written to `prefix`.model."""
    paragraphs = (line for story in stories for line in story.split("\n") if line)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=paragraphs, model_prefix=str(prefix), model_type="bpe", vocab_size=MODEL["vocab_size"],
        byte_fallback=True, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=True, allow_whitespace_only_pieces=True, character_coverage=0.99995,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, max_sentence_length=1 << 16, minloglevel=2)
    Path(f"{prefix}.vocab").unlink()


def encode(stories, tokenizer):
    """Each story as `<s> ... </s>`, encoded as one string: a word after a newline looks as it will in use."""
    return [np.array([1, *tokenizer.encode(story), 2], dtype=np.int64) for story in stories]


def windows(stories, epoch):
    """One pass over the data: stories shuffled, joined, cut into windows of CONTEXT + 1 tokens, shuffled."""
    order = np.random.default_rng([SEED, epoch])
    stream = np.concatenate([stories[i] for i in order.permutation(len(stories))])
    start = order.integers(CONTEXT)
    count = (len(stream) - start - 1) // CONTEXT
    for i in order.permutation(count):
        at = start + i * CONTEXT
        yield stream[at:at + CONTEXT + 1]


def split(books):
    """(names of the books held out, stories to train on, stories held out)."""
    held_out = sorted(random.Random(SEED).sample(sorted(books), HELD_OUT))
    train = [story for book, stories in books.items() if book not in held_out for story in stories]
    return held_out, train, [story for book in held_out for story in books[book]]


def batches(stories, skip):
    """Endless batches (BATCH, CONTEXT + 1) in an order that SEED fixes; `skip` of them have been used already."""
    step, batch, epoch = 0, [], 0
    while True:
        for window in windows(stories, epoch):
            batch.append(window)
            if len(batch) == BATCH:
                if step >= skip:
                    yield epoch, torch.from_numpy(np.stack(batch))
                step, batch = step + 1, []
        epoch += 1


def learning_rate(step, steps):
    """Linear warm-up, level, linear decay to zero over the last DECAY of the run."""
    decay = DECAY * steps
    return PEAK_RATE * min((step + 1) / WARMUP, 1.0, (steps - step) / decay)


def new_optimizer(model):
    """AdamW, with weight decay on matrices alone."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    gains = [p for p in model.parameters() if p.dim() == 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}],
                             lr=PEAK_RATE, betas=(0.9, 0.95), fused=True)


def take_step(model, optimizer, batch, rate, logits_of):
    """One step at this learning rate; logits_of(tokens) runs the model. Returns the loss, in nats per token."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    logits = logits_of(batch[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def bits_per_byte(model, stories, tokenizer):
    """Bits per byte of stories read one by one as `<s> story`, each token with at least half a context before it.

    The windows are those of `numpy_llama.py --perplexity`: CONTEXT long, moving by half.
    """
    nats = size = 0
    for story in stories:
        tokens = torch.tensor([[1, *tokenizer.encode(story)]])
        size += len(story.encode())
        scored = 1
        for start in range(0, max(tokens.shape[1] - CONTEXT // 2, 1), CONTEXT // 2):
            window = tokens[:, start:start + CONTEXT]
            logp = model(window).logits.float().log_softmax(-1)
            losses = -logp[0, :-1].gather(1, window[0, 1:, None])[:, 0]
            nats += losses[scored - start - 1:].sum().item()
            scored = start + window.shape[1]
    return nats / math.log(2) / size


def export(model, folder):
    """Write the model in bfloat16 as a Hugging Face folder."""
    half = LlamaForCausalLM(model.config).to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    half.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, do_sample=True, temperature=0.8,
                                              top_p=0.95)
    half.save_pretrained(folder)


def export_tokenizer(folder):
    """Write tokenizer.json and tokenizer_config.json, so that transformers gives SentencePiece's ids behind a `<s>`."""
    sp = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    vocab = {sp.id_to_piece(i): i for i in range(sp.vocab_size())}
    merged = [piece for piece, i in vocab.items() if not (sp.is_control(i) or sp.is_byte(i) or sp.is_unknown(i))]
    merges = [(piece[:cut], piece[cut:])               # the best score is merged first, whichever way it is made
              for piece in sorted(merged, key=lambda piece: -sp.get_score(vocab[piece]))
              for cut in range(1, len(piece)) if piece[:cut] in vocab and piece[cut:] in vocab]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
                            clean_up_tokenization_spaces=False, model_max_length=CONTEXT,
                            split_special_tokens=True).save_pretrained(folder)      # "<s>" in a text is text
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"                        # known to old versions too
    path.write_text(json.dumps(settings, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("books", help="folder of .txt books, stories separated by two blank lines")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "fairytales", help="folder to write")
    parser.add_argument("--steps", type=int, default=7500, help=f"steps of {BATCH} x {CONTEXT} tokens (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in OUT")
    parser.add_argument("--checkpoint-every", type=int, default=500, metavar="STEPS", help="(%(default)s)")
    args = parser.parse_args()

    books = read_books(args.books)
    held_out, train, valid = split(books)
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint, log = args.out / "checkpoint.pt", args.out / "training.csv"

    if not args.resume:
        train_tokenizer(train, args.out / "tokenizer")
        export_tokenizer(args.out)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(args.out / "tokenizer.model"))
    stories = encode(train, tokenizer)
    n_tokens, n_bytes = sum(map(len, stories)), sum(len(story.encode()) for story in train)
    print(f"{len(books)} books, {len(train)} stories, {n_tokens:,} tokens of {n_bytes / n_tokens:.2f} bytes; "
          f"held out: {', '.join(held_out)} ({len(valid)} stories)")

    torch.manual_seed(SEED)
    model = LlamaForCausalLM(LlamaConfig(**MODEL))
    optimizer = new_optimizer(model)
    done, rows = 0, []
    if args.resume:
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        done, rows = saved["step"], saved["log"]
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, from step {done} to {args.steps}")

    compiled = torch.compile(model)

    def in_bfloat16(tokens):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return compiled(tokens).logits

    data = batches(stories, skip=done)
    bar = tqdm(range(done, args.steps), initial=done, total=args.steps, unit="step", smoothing=0.05, mininterval=5)
    recent, began = [], time.time()
    for step in bar:
        epoch, batch = next(data)
        recent.append(take_step(model, optimizer, batch, learning_rate(step, args.steps), in_bfloat16))
        bar.set_postfix_str(f"epoch {epoch}, loss {np.mean(recent[-50:]):.3f}", refresh=False)
        last = step + 1 == args.steps
        if (step + 1) % args.checkpoint_every == 0 or last:
            model.eval()
            bpb = bits_per_byte(model, valid if last else valid[::8], tokenizer)
            model.train()
            rows.append([step + 1, (step + 1) * BATCH * CONTEXT, float(np.mean(recent)), bpb])
            bar.write(f"step {step + 1}: training loss {rows[-1][2]:.3f} nats per token, "
                      f"held out {bpb:.4f} bits per byte, {(time.time() - began) / 60:.0f} min")
            recent = []
            part = checkpoint.with_suffix(".part")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1,
                        "log": rows}, part)
            os.replace(part, checkpoint)
            with log.open("w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(["step", "tokens", "training_bits_per_byte", "held_out_bits_per_byte"])
                for number, seen, nats, held in rows:
                    writer.writerow([number, seen, f"{nats / math.log(2) * n_tokens / n_bytes:.4f}", f"{held:.4f}"])
            export(model, args.out)


if __name__ == "__main__":
    main()
