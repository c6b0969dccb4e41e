"""How fast, and how much memory: numpy_llama.py beside PyTorch (transformers) and the limits of the machine.

    python tests/benchmark.py                          every shape: a table, in about twenty minutes
    python tests/benchmark.py 15M fairytales           some shapes
    python tests/benchmark.py "7B float16"             weights that stay in their file; writes 13.5 GB, and removes them
    python tests/benchmark.py --json tests/benchmark.json      keep the results, and their table in benchmark.md
    python tests/benchmark.py --show tests/benchmark.json      the table of kept results, in Markdown
    python tests/benchmark.py --short tests/benchmark.json     the rows that README.md shows
    LLAMA2C=~/llama2.c/run python tests/benchmark.py   with llama2.c beside it (build it first: make runomp)

Let nothing else run: two processes on two cores slow a matrix product down by far more than half. Every engine is a
process of its own, on the same bfloat16 file of random weights; they take turns at one measure, so a ratio compares
what ran within the same seconds. All do the same work: a prompt ends with the logits of its last token, decoding takes
the most likely token, one sequence at a time. What is called the ceiling is a loop that multiplies a row by each of the
model's matrices with x @ w and does nothing else.

Some machines set OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, for old programs; NumPy's OpenBLAS then runs an older kernel.
Here every engine runs without them, and the kernels that were really used stand below the table.
"""
import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
# Another folder may hold another version, to compare the two.
sys.path[:0] = [os.environ.get("NUMPY_LLAMA_DIR", str(ROOT)), str(ROOT / "tests")]
os.environ["HF_HUB_OFFLINE"] = "1"

import checkpoints  # noqa: E402
import llama2c_file  # noqa: E402

import numpy_llama as nl  # noqa: E402

SHAPES = {            #  D    L   H   G   F     V
    "15M": nl.Config(288, 6, 6, 6, 768, 32000, 4096),
    "110M": nl.Config(768, 12, 12, 12, 2048, 32000, 4096),
    "1.1B": nl.Config(2048, 22, 32, 4, 5632, 32000, 4096),
    "fairytales": None,                                   # the model that ships, with a longer context
}
LAZY = {"7B bfloat16": "BF16", "7B float16": "F16"}       # Llama 2 7B, its weights left in the file
ENGINES, C = ["numpy_llama", "transformers float32", "transformers bfloat16"], "llama2.c"
PROMPTS, AFTER = (32, 512, 2048), (16, 1024)
STEPS = 24                                                # tokens decoded for one sample
SHORT = ("prompt 512", "decode 16")                       # what README.md shows of each shape
OLDER_KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in OLDER_KERNELS}


# ---- One engine, in its own process --------------------------------------------------------------------------

def seconds(steps, n=1):
    """How long n steps of an iterator take."""
    began = time.perf_counter()
    for _ in range(n):
        next(steps)
    return time.perf_counter() - began


class Engine:
    """What is measured, in terms of greedy(prompt, n), which yields n tokens."""

    def prompt(self, n):
        """Seconds to read n tokens."""
        return seconds(self.greedy(tokens(n, self.vocab_size), 1))

    def decode(self, n):
        """Seconds for STEPS tokens after n."""
        text = self.greedy(tokens(n - 1, self.vocab_size), 1 + STEPS)
        next(text)
        return seconds(text, STEPS)


class NumpyLlama(Engine):
    def __init__(self, folder, lazy):
        if lazy:
            threading.Thread(target=self.watch, daemon=True).start()
        self.weights, config = nl.load(folder, lazy=lazy)
        self.config, self.vocab_size = replace(config, max_seq_len=4096), config.vocab_size
        matrices = [w for layer in self.weights["layers"] for part in (layer["attn"], layer["ffn"])
                    for w in part.values()] + [self.weights["output"]]
        self.products = [(np.ones((1, w.shape[0]), np.float32), w) for w in matrices]

    def greedy(self, prompt, n):
        return nl.generate(prompt, self.weights, self.config, n, temperature=0)

    def watch(self):
        """Look a hundred times a second how much memory of its own, without pages of files, this process has."""
        self.most = 0
        while True:
            resident, of_files = map(int, Path("/proc/self/statm").read_text().split()[1:3])
            self.most = max(self.most, (resident - of_files) * os.sysconf("SC_PAGE_SIZE") / 2**20)
            time.sleep(0.01)

    def memory(self):
        """The most so far, in MiB."""
        return self.most

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


class LlamaC(Engine):
    """llama2.c: a process for each sample, which writes each token, here one byte of text, as soon as it has it."""

    def __init__(self, folder):
        self.scratch = tempfile.TemporaryDirectory()
        self.command = [os.environ["LLAMA2C"], f"{self.scratch.name}/model", "-z", f"{self.scratch.name}/tokenizer",
                        "-t", "0", "-n"]
        c = llama2c_file.write_model(folder, self.command[1], max_seq_len=4096)
        piece = np.float32(0).tobytes() + np.int32(1).tobytes() + b"a"        # score, length, text
        Path(self.command[3]).write_bytes(np.int32(1).tobytes() + c.vocab_size * piece)

    def prompt(self, n):
        """Seconds to read n tokens: as many as to write them."""
        return self.write(1, n)

    def decode(self, n):
        """Seconds for STEPS tokens after n."""
        return self.write(n, STEPS)

    def write(self, n_before, n):
        """Seconds for n tokens after the first n_before."""
        process = subprocess.Popen([*self.command, str(n_before + n)], stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, bufsize=0)
        text = iter(lambda: process.stdout.read(1), b"")
        seconds(text, n_before)
        return seconds(text, n)


def serve(engine, folder):
    """Load, then for each line of input do what it says, and print how many seconds it took."""
    if engine == "machine":
        return print(json.dumps(measure_machine()))
    began = time.perf_counter()
    name, _, how = engine.partition(" ")
    model = (Transformers(folder, how) if name == "transformers" else LlamaC(folder) if name == C else
             NumpyLlama(folder, lazy=how == "lazy"))
    print(json.dumps({"load s": time.perf_counter() - began, "peak MiB": peak()}), flush=True)
    for line in sys.stdin:
        what, *numbers = line.split()
        time.sleep(0.1)                                   # until the threads of the engine before have gone to sleep
        times = []
        while sum(times) < 0.4:
            times.append(getattr(model, what)(*map(int, numbers)))
        print(statistics.median(times[1:] or times), flush=True)     # the first, if it was short, found cold caches


class Process:
    """One engine, loaded, that does what it is told."""

    def __init__(self, engine, folder):
        command = [sys.executable, __file__, "--engine", engine, "--folder", str(folder)]
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        text=True, env=ENVIRONMENT)
        self.start = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            sys.exit(f"error: {' '.join(self.process.args[2:])} failed:\n{self.errors.read()}")
        return json.loads(line)

    def do(self, what):
        print(what, file=self.process.stdin, flush=True)
        return self.answer()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def measure_machine():
    """Matrix products and memory as fast as they get: GFLOP/s, GB/s; and by which kernels."""
    import torch
    n = 3072
    a = np.random.default_rng(0).random((n, n), np.float32)
    big = np.ones(2**28, np.float32)                      # 1 GiB, many times any cache
    t = torch.from_numpy(a)

    def rates(work, amount):
        runs = (work() for _ in range(6))
        next(runs)                                        # to warm up
        return [amount / 1e9 / seconds(runs) for _ in range(5)]

    limits = {"NumPy's matrix product, GFLOP/s": rates(lambda: a @ a, 2 * n**3),
              "PyTorch's matrix product, GFLOP/s": rates(lambda: t @ t, 2 * n**3),
              "memory read, GB/s": rates(lambda: np.dot(big[:2**27], big[2**27:]), big.nbytes)}
    kernels = {"NumPy": " ".join(f"{library['internal_api']} {library.get('architecture', '')}".strip()
                                 for library in nl.blas().info() if "numpy" in library["filepath"]),
               "PyTorch": torch.backends.cpu.get_cpu_capability()}
    return {"limits": limits, "kernels": kernels}


def tokens(n, vocab_size):
    return np.random.default_rng(n).integers(3, vocab_size, n)


def peak():
    """The most memory that this process has held so far, in MiB; on Linux without pages of files."""
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**(20 if sys.platform == "darwin" else 10)


# ---- All engines ---------------------------------------------------------------------------------------------

def by_turns(shape, folder, bar):
    """{engine: {measure: [seconds]}}: for each measure every engine once, again and again."""
    engines = ENGINES + [C] * ("LLAMA2C" in os.environ)
    found = {engine: {} for engine in engines}
    for engine in ENGINES * 3:                            # three starts each
        process = Process(engine, folder)
        process.end()
        for name, value in process.start.items():
            found[engine].setdefault(name, []).append(value)
    running, seconds_a_token = {engine: Process(engine, folder) for engine in engines}, {}
    for what in [*(f"prompt {n}" for n in PROMPTS), *(f"decode {n}" for n in AFTER)]:
        began, turn, reading, tokens_read = time.perf_counter(), 0, "prompt" in what, int(what.split()[1])
        while turn < 9 and (time.perf_counter() - began < 25 or turn < 2):
            for engine in engines:
                bar.set_description(f"{shape}, {what}, {engine}")
                times = found[engine].setdefault(what, [])
                if seconds_a_token.get(engine, 0) * tokens_read < 60:         # what takes over a minute is left out
                    times.append(running[engine].do(what))
                    if reading or engine == C:            # which reads as fast as it writes
                        seconds_a_token[engine] = middle(times) / (tokens_read if reading else STEPS)
            if not reading:
                found[ENGINES[0]].setdefault(f"ceiling {what}", []).append(running[ENGINES[0]].do("ceiling"))
            turn += 1
    for process in running.values():
        process.end()
    return found


def lazily(dtype):
    """{measure: [seconds]} of Llama 2 7B's shape with its weights left in the file, which is in the page cache."""
    with tempfile.TemporaryDirectory() as scratch:
        if shutil.disk_usage(scratch).free < 16e9:
            sys.exit(f"error: 7B needs 16 GB in {scratch}: set TMPDIR to a folder with more room")
        folder = checkpoints.write_shape(Path(scratch), nl.PRESETS["llama-2-7b"], dtype,
                                         checkpoints.random_numbers(dtype))
        os.sync()                                         # nothing is being written any more
        process = Process("numpy_llama lazy", folder)
        process.do("prompt 64")                           # reads the file, if writing did not leave it in memory
        found = {what: [process.do(what) for _ in range(2)] for what in ("prompt 64", "decode 64", "memory")}
        process.end()
    return found


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
                               stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    process.stdout.read(1)
    seconds = time.perf_counter() - began
    process.communicate()
    return seconds


def import_time(statement):
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT)
    return float(done.stdout)


def processor():
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def run(shapes):
    """All samples: {"machine", "limits", "kernels", "start", "import", "steps", "shapes", "lazy"}"""
    from tqdm import tqdm
    libraries = ("numpy", "torch", "transformers")
    found = {"machine": {"processor": processor(), "cores": nl.cores(), "python": platform.python_version(),
                         **{name: version(name) for name in libraries}},
             "start": {engine: [cold_start(engine) for _ in range(5)] for engine in FIRST_TOKEN},
             "import": {name: [import_time(f"import {name}") for _ in range(5)] for name in ("numpy", "numpy_llama")},
             "steps": STEPS, "shapes": {}, "lazy": {}}
    machine = Process("machine", ".")
    found |= machine.start
    machine.end()
    with tqdm(shapes) as bar:
        for shape in bar:
            bar.set_description(shape)
            if shape in LAZY:
                found["lazy"][shape] = lazily(LAZY[shape]) | {"limits": found["limits"]}
                continue
            with tempfile.TemporaryDirectory() as scratch:
                folder = ROOT / "weights" / shape
                if SHAPES[shape]:
                    folder = checkpoints.write_shape(Path(scratch), SHAPES[shape], "BF16", checkpoints.random_numbers())
                found["shapes"][shape] = by_turns(shape, folder, bar)
    return found


# ---- The table -----------------------------------------------------------------------------------------------

def middle(values):
    return statistics.median(values)


def spread(values):
    """Half the distance between the quartiles, as a share of the median."""
    if len(values) == 1:
        return 0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return (third - first) / 2 / middle(values)


def ratio(theirs, ours):
    """How many times as fast ours is: the median over turns."""
    return middle([a / b for a, b in zip(theirs, ours)])


def figure(x):
    return f"{x:,.0f}" if x >= 20 else f"{x:.1f}" if x >= 2 else f"{x:.2f}"


def table(found, short=False):
    """The results in Markdown, or those rows that README.md shows."""
    lines = [f"| shape | tokens/s | {' | '.join([*ENGINES, C])} | times float32 | times {C} | of the ceiling |",
             "| --- | ---" + 7 * " | --:" + " |"]
    titles = {**{f"prompt {n}": (f"prompt of {n:,}", n) for n in PROMPTS},
              **{f"decode {n}": (f"decoding after {n:,}", STEPS) for n in AFTER},
              "load s": ("load, seconds", None), "peak MiB": ("peak memory when loaded, MiB", None)}
    for shape, engines in found["shapes"].items():
        ours, theirs, c = engines[ENGINES[0]], engines[ENGINES[1]], engines.get(C, {})
        for what, (title, n) in titles.items():
            if short and what not in SHORT:
                continue
            cells = []
            for engine in [*ENGINES, C]:
                times = engines.get(engine, {}).get(what)
                x = [n / t if n else t for t in times or []]
                cells.append("" if times is None else "over a minute" if not x else figure(middle(x))
                             + (f" ± {spread(x):.0%}" if len(x) > 1 else ""))
            cells += [f"{ratio(other.get(what), ours[what]):.2f}" if n and other.get(what) else ""
                      for other in (theirs, c, {what: ours.get(f"ceiling {what}")})]
            lines.append(f"| {shape} | {title} | {' | '.join(cells)} |")
    for shape, ours in found["lazy"].items():
        if not short:
            lines.append(f"| {shape}, lazy | prompt of 64: first token after {middle(ours['prompt 64']):.1f} s | "
                         f"{figure(64 / middle(ours['prompt 64']))} |" + 6 * " |")
        lines.append(f"| {shape}, lazy | decoding after 64, at most {max(ours['memory']):.0f} MiB of its own memory "
                     f"(memory read, GB/s {middle(ours['limits']['memory read, GB/s']):.0f}) | "
                     f"{figure(STEPS / middle(ours['decode 64']))} |" + 6 * " |")
    machine, limits, kernels = found["machine"], found["limits"], found["kernels"]
    start, imports = found["start"], found["import"]
    lines += ["", f"Medians of two to nine turns ± half the distance between the quartiles; ratios are medians of "
              f"what ran within the same turn. {machine['processor']}, {machine['cores']} cores; "
              f"Python {machine['python']}, "
              f"NumPy {machine['numpy']} ({kernels['NumPy']}), PyTorch {machine['torch']} ({kernels['PyTorch']}), "
              f"transformers {machine['transformers']}; "
              + ", ".join(f"{name} {middle(values):.0f}" for name, values in limits.items())
              + f". From the start of a process to the first token of the model that ships: "
              f"{middle(start[ENGINES[0]]):.2f} s, with transformers {middle(start[ENGINES[1]]):.1f} s. "
              f"`import numpy_llama` takes {middle(imports['numpy_llama']):.2f} s, of which `import numpy` "
              f"{middle(imports['numpy']):.2f} s."]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE",
                        help=f"{', '.join([*SHAPES, *LAZY])} (default: all but 7B)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every sample, beside those of other shapes")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the table of kept results, run nothing")
    parser.add_argument("--short", type=Path, metavar="FILE", help="print those rows of it that README.md shows")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.engine:
        return serve(args.engine, args.folder)
    unknown = sorted(set(args.shapes) - SHAPES.keys() - LAZY.keys())
    if unknown:
        parser.error(f"no such shape: {unknown[0]}")
    if args.show:
        return print(table(json.loads(args.show.read_text())))
    if args.short:
        return print(table(json.loads(args.short.read_text()), short=True))
    found = run(args.shapes or SHAPES)
    if args.json:
        if args.json.exists():
            kept = json.loads(args.json.read_text())
            shapes, lazy = kept["shapes"] | found["shapes"], kept["lazy"] | found["lazy"]
            found = (found if found["shapes"] else kept) | {"shapes": shapes, "lazy": lazy}
        args.json.write_text(json.dumps(found, indent=1) + "\n")
        args.json.with_suffix(".md").write_text(f"# Every speed that was measured\n\n{table(found)}\n")
    print(table(found))


if __name__ == "__main__":
    main()
