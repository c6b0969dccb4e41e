"""How fast, and how much memory: numpy_llama.py beside PyTorch (transformers) and the limits of the machine.

    python tests/benchmark.py                          every shape: a table, in about fifteen minutes
    python tests/benchmark.py 15M fairytales           some shapes
    python tests/benchmark.py --json tests/benchmark.json      keep the results; README.md and its figure show them
    python tests/benchmark.py --show tests/benchmark.json      the table of kept results, in Markdown

Let nothing else run: two processes on two cores slow a matrix product down by far more than half. Every engine runs in
a process of its own, several rounds by turns, on the same bfloat16 file of random weights. All do the same work: a prompt
ends with the logits of its last token, decoding takes the most likely token, one sequence at a time. What is called the
ceiling is a loop that multiplies a row by each of the model's matrices with x @ w and does nothing else.
"""
import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, os.environ.get("NUMPY_LLAMA_DIR", str(ROOT)))       # a copy, to compare two versions
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy_llama as nl  # noqa: E402

SHAPES = {            #  D    L   H   G   F     V
    "15M": nl.Config(288, 6, 6, 6, 768, 32000, 4096),
    "110M": nl.Config(768, 12, 12, 12, 2048, 32000, 4096),
    "1.1B": nl.Config(2048, 22, 32, 4, 5632, 32000, 4096),
    "fairytales": None,                                   # the model that ships, with a longer context
}
ENGINES = ["numpy_llama", "transformers float32", "transformers bfloat16"]
PROMPTS, AFTER = (32, 512, 2048), (16, 1024)
STEPS = 24                                                # tokens decoded for one sample


# ---- One engine, in its own process --------------------------------------------------------------------------

def seconds(steps, n):
    """How long n steps take."""
    began = time.perf_counter()
    for _ in range(n):
        next(steps)
    return time.perf_counter() - began


class Engine:
    """What is measured, in terms of greedy(prompt, n), which yields n tokens."""

    def prompt(self, n):
        """Seconds to read n tokens."""
        return seconds(self.greedy(tokens(n, self.vocab_size), 1), 1)

    def decode(self, n):
        """Seconds for STEPS tokens after n."""
        text = self.greedy(tokens(n - 1, self.vocab_size), 1 + STEPS)
        next(text)
        return seconds(text, STEPS)


class NumpyLlama(Engine):
    def __init__(self, folder, _):
        self.weights, config = nl.load(folder)
        self.config, self.vocab_size = replace(config, max_seq_len=4096), config.vocab_size
        matrices = [w for layer in self.weights["layers"] for part in (layer["attn"], layer["ffn"])
                    for w in part.values()] + [self.weights["output"]]
        self.products = [(np.ones((1, len(w)), np.float32), w) for w in matrices]

    def greedy(self, prompt, n):
        return nl.generate(prompt, self.weights, self.config, n, temperature=0)

    def ceiling(self):
        """Seconds for STEPS times one row times each of the model's matrices, and nothing else."""
        return seconds((([x @ w for x, w in self.products]) for _ in range(STEPS)), STEPS)


class Transformers(Engine):
    def __init__(self, folder, dtype):
        import torch
        from transformers import AutoModelForCausalLM
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        self.vocab_size = self.model.config.vocab_size

    def greedy(self, prompt, n):
        import torch
        ids, past = torch.tensor(prompt)[None], None
        for _ in range(n):
            with torch.inference_mode():
                out = self.model(ids, None, None, past, use_cache=True, logits_to_keep=1)
                past, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
            yield int(ids)


def serve(engine, folder):
    """Load, then for each line of input do what it says, and print how many seconds it took."""
    began = time.perf_counter()
    name, *dtype = engine.split()
    model = Transformers(folder, *dtype) if dtype else NumpyLlama(folder, None)
    print(json.dumps({"load s": time.perf_counter() - began, "peak MiB": peak()}), flush=True)
    for line in sys.stdin:
        what, *numbers = line.split()
        time.sleep(0.1)                                   # until the threads of the engine before have gone to sleep
        times = []
        while sum(times) < 0.4:
            times.append(getattr(model, what)(*map(int, numbers)))
        print(statistics.median(times[1:] or times), flush=True)     # the first, if it was short, found cold caches


def samples(work, least=5):
    """Times of work(), after one run to warm up."""
    work()
    times = []
    for _ in range(least):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def measure_machine():
    """Matrix products and memory as fast as they get: GFLOP/s, GB/s."""
    import torch
    n = 3072
    a = np.random.default_rng(0).random((n, n), np.float32)
    big = np.ones(2**28, np.float32)                      # 1 GiB, many times any cache
    t = torch.from_numpy(a)
    return {"NumPy's matrix product, GFLOP/s": [2 * n**3 / t / 1e9 for t in samples(lambda: a @ a)],
            "PyTorch's matrix product, GFLOP/s": [2 * n**3 / s / 1e9 for s in samples(lambda: t @ t)],
            "memory read, GB/s": [2 * big[:2**27].nbytes / t / 1e9
                                  for t in samples(lambda: np.dot(big[:2**27], big[2**27:]))]}


def tokens(n, vocab_size):
    return np.random.default_rng(n).integers(3, vocab_size, n)


def peak():
    """The most memory that this process has held so far, in MiB; on Linux without pages of files."""
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**(20 if sys.platform == "darwin" else 10)


# ---- All engines ---------------------------------------------------------------------------------------------

def in_a_process(engine, folder):
    command = [sys.executable, __file__, "--engine", engine, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"error: {engine} on {folder} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def write_random(folder, config):
    """A Hugging Face folder of random bfloat16 weights."""
    import ml_dtypes
    from safetensors.numpy import save_file
    sizes = {"V": config.vocab_size, "D": config.dim, "F": config.hidden_dim,
             "Hd": config.n_heads * config.head_dim, "Gd": config.n_kv_heads * config.head_dim}
    some = np.random.default_rng(0).normal(0, 0.02, 10**6 + 3).astype(ml_dtypes.bfloat16)
    tensors = {}
    for name, _, letters in nl.TENSORS.values():
        shape = [sizes[size] for size in letters.split()]
        for layer in range(config.n_layers if "{}" in name else 1):
            tensors[name.format(layer)] = np.resize(some, shape)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    raw = {theirs: getattr(config, ours) for ours, theirs in nl.CONFIG_KEYS.items()}
    (folder / "config.json").write_text(json.dumps(raw | {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
        "tie_word_embeddings": False, "torch_dtype": "bfloat16"}))


FIRST_TOKEN = {
    "numpy_llama": [str(ROOT / "numpy_llama.py"), "Once upon a time", "-n", "1"],
    "transformers float32": ["-c", "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
                             "model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype='float32')\n"
                             "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
                             "ids = tokenizer('Once upon a time', return_tensors='pt')\n"
                             "print(tokenizer.decode(model.generate(**ids, max_new_tokens=1)[0]))",
                             str(ROOT / "weights" / "fairytales")],
}


def cold_start(engine):
    """Seconds from the start of a process to the first token that it prints."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *FIRST_TOKEN[engine]], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
    process.stdout.read(1)
    seconds = time.perf_counter() - began
    process.communicate()
    return seconds


def import_time(statement):
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout)


def processor():
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def run(shapes, rounds):
    """{"machine": ..., "shapes": {shape: {engine: {measure: [samples]}}}}"""
    from tqdm import tqdm
    libraries = ("numpy", "torch", "transformers")
    found = {"machine": {"processor": processor(), "cores": len(os.sched_getaffinity(0)),
                         "python": platform.python_version(), **{name: version(name) for name in libraries}},
             "limits": in_a_process("machine", "."),
             "start": {engine: [cold_start(engine) for _ in range(5)] for engine in FIRST_TOKEN},
             "import": {name: [import_time(f"import {name}") for _ in range(5)] for name in ("numpy", "numpy_llama")},
             "shapes": {}}
    turns = [(shape, i, engine) for shape in shapes for i in range(rounds) for engine in ENGINES]
    with tempfile.TemporaryDirectory() as scratch, tqdm(turns) as bar:
        for shape, i, engine in bar:
            bar.set_description(f"{shape}, {engine}")
            folder = Path(scratch) / shape if SHAPES[shape] else ROOT / "weights" / shape
            if not folder.exists():
                folder.mkdir()
                write_random(folder, SHAPES[shape])
            into = found["shapes"].setdefault(shape, {}).setdefault(engine, {})
            for name, values in in_a_process(engine, folder).items():
                into.setdefault(name, []).extend(values)
    return found


# ---- The table -----------------------------------------------------------------------------------------------

def middle(values):
    return statistics.median(values)


def spread(values):
    """Half the distance between the quartiles, as a share of the median."""
    if len(values) < 3:
        return (max(values) - min(values)) / 2 / middle(values)
    first, _, third = statistics.quantiles(values, n=4)
    return (third - first) / 2 / middle(values)


def figure(x):
    return f"{x:,.0f}" if x >= 20 else f"{x:.1f}" if x >= 2 else f"{x:.2f}"


def table(found):
    """The results in Markdown."""
    lines = ["| shape | measure | numpy_llama | transformers float32 | transformers bfloat16 | "
             "times float32 | of the ceiling |", "| --- | --- | --: | --: | --: | --: | --: |"]
    titles = {**{f"prompt {n}": f"prompt of {n:,}, tokens/s" for n in PROMPTS},
              **{f"decode {n}": f"decoding after {n:,}, tokens/s" for n in AFTER},
              "load s": "load, s", "peak MiB": "peak memory, MiB"}
    for shape, engines in found["shapes"].items():
        ours = engines[ENGINES[0]]
        for measured, title in titles.items():
            cells = [f"{figure(middle(engines[e][measured]))} ± {spread(engines[e][measured]):.0%}" for e in ENGINES]
            ratio = middle(ours[measured]) / middle(engines[ENGINES[1]][measured])
            share = middle(ours[measured]) / middle(ours["ceiling"]) if measured.startswith("decode") else None
            lines.append(f"| {shape} | {title} | {' | '.join(cells)} | {ratio:.2f} | "
                         f"{'' if share is None else format(share, '.2f')} |")
    machine, limits = found["machine"], found["limits"]
    start, imports = found["start"], found["import"]
    lines += ["", f"{machine['processor']}, {machine['cores']} cores; Python {machine['python']}, NumPy "
              f"{machine['numpy']}, PyTorch {machine['torch']}, transformers {machine['transformers']}. "
              + "; ".join(f"{name} {middle(values):.0f}" for name, values in limits.items())
              + f". From the start of a process to the first token of the model that ships: "
              f"{middle(start[ENGINES[0]]):.2f} s, with transformers {middle(start[ENGINES[1]]):.1f} s. "
              f"`import numpy_llama` takes {middle(imports['numpy_llama']):.2f} s, `import numpy` "
              f"{middle(imports['numpy']):.2f} s."]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"{', '.join(SHAPES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each engine and shape (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every sample")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the table of kept results, run nothing")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.engine:
        return serve(args.engine, args.folder)
    unknown = set(args.shapes) - set(SHAPES)
    if unknown or args.rounds < 1:
        parser.error(f"no such shape: {min(unknown)}" if unknown else "--rounds must be positive")
    found = json.loads(args.show.read_text()) if args.show else run(args.shapes or SHAPES, args.rounds)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
