"""Make the explorer: one HTML file with the model inside, which needs no server and no network.

    python notebooks/explorer/build.py               writes notebooks/explorer.html
    python notebooks/explorer/build.py --open        ... and shows it in the browser
    python notebooks/explorer/build.py --open "#tab=rotation"     ... as a lesson's link wants it

The modules of this folder are joined into one script. Names, papers and shapes come from the README's table, lines of
code from numpy_llama.py, the words about mistakes from tests/bugs.py: the page has no copy that could go stale.
"""
import argparse
import ast
import base64
import gzip
import json
import os
import re
import sys
import webbrowser
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from urllib.parse import parse_qsl

import ml_dtypes
import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import bugs  # noqa: E402
import dumps  # noqa: E402

import numpy_llama as nl  # noqa: E402
from numpy_llama import InputError  # noqa: E402

LARGEST_PAGE = 64e6                                       # bytes; browsers read more, but not in a second


# ---- The model -----------------------------------------------------------------------------------------------

DTYPES = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}


def read_model(folder):
    """(weights, config) of a folder whose page is small enough, or InputError; nothing large is read in vain."""
    config, _, _ = nl.open_checkpoint(folder)
    refuse_large(folder, sum(nl.parameter_counts(config, tied=True).values()))     # more than a byte for each
    return nl.load(folder)


def refuse_large(folder, size):
    if size > LARGEST_PAGE:
        raise InputError(f"{folder}: its page would have at least {size / 1e6:,.0f} MB, and more than "
                         f"{LARGEST_PAGE / 1e6:.0f} MB are refused: choose a smaller model")


def named_weights(weights):
    """[(name, array)]: matrices (out, in), as on disk; no output matrix if it is the embedding."""
    named = [("embedding", weights["embedding"]), ("norm", weights["norm"])]
    for i, layer in enumerate(weights["layers"]):
        for norm in ("attn_norm", "ffn_norm"):
            named.append((f"layers.{i}.{norm}", layer[norm]))
        for part in ("attn", "ffn"):
            named += [(f"layers.{i}.{part}.{name}", matrix.T) for name, matrix in layer[part].items()]
    if not np.array_equal(weights["output"].T, weights["embedding"]):
        named.append(("output", weights["output"].T))
    return named


def narrowest(arrays):
    """The narrowest type that holds every number exactly: "BF16", "F16" or "F32"."""
    def fits(dtype):
        with np.errstate(over="ignore"):
            return all(np.array_equal(x.astype(dtype).astype(np.float32), x) for x in arrays)

    return next(name for name, dtype in DTYPES.items() if fits(dtype))


def pack(arrays, dtype):
    """Numbers as text: base64 of gzip of all lowest bytes, then all next bytes, and so on."""
    numbers = np.concatenate([x.astype(DTYPES[dtype]).ravel() for x in arrays])
    planes = numbers.view(np.uint8).reshape(len(numbers), -1).T
    return base64.b64encode(gzip.compress(planes.tobytes(), 6, mtime=0)).decode()


def read_tokenizer(path, vocab_size):
    """Pieces and scores of a tokenizer.model by id, as the page's tokenizer takes them; None without a file.

    An embedding may have more rows than there are pieces: these have the names of added_tokens.json, or stand for
    nothing.
    """
    if not path.exists():
        return None
    tokenizer = nl.Tokenizer(path)
    if tokenizer.vocab_size > vocab_size:
        raise InputError(f"{path} has {tokenizer.vocab_size} pieces, the embedding {vocab_size} rows")
    sp, ids = tokenizer.sp, range(tokenizer.vocab_size)
    kinds = "".join("u" if sp.is_unknown(i) else "c" if sp.is_control(i) else "b" if sp.is_byte(i) else "n"
                    for i in ids)
    scores = [sp.get_score(i) for i in ids]
    refuse_other_tokenizers(path, sp, kinds, scores)
    more, added = range(tokenizer.vocab_size, vocab_size), tokenizer.added
    pieces = sp.id_to_piece(list(ids)) + [added.get(i, f"id {i}") for i in more]
    kinds += "".join("a" if i in added else "x" for i in more)
    return {"pieces": pieces, "scores": scores, "kinds": kinds,
            "bos": tokenizer.bos, "eos": tokenizer.eos, "add_bos": tokenizer.add_bos}


def refuse_other_tokenizers(path, sp, kinds, scores):
    """Raise InputError for a SentencePiece model that is not the kind that Llama 1 and 2 have."""
    is_bpe = all(score == round(score) for score, kind in zip(scores, kinds) if kind == "n")
    if not is_bpe or kinds.count("b") != 256 or sp.normalize("ﬁ  a") != "▁ﬁ▁▁a":
        raise InputError(f"{path} is not a Llama 1 or 2 tokenizer: the page knows byte-pair merges with byte fallback, "
                         "a space in front, and text as it is")


# ---- What is known about every name -----------------------------------------------------------------------------

PREFIXES = {"forward": "", "block": "", "self_attention": "attn.", "attention": "attn.", "feed_forward": "ffn."}
BEFORE_THE_TAP = {"attn.q_rope": ["rope_cos_sin"], "attn.k_rope": ["rope_cos_sin"], "attn.scores": ["causal_mask"]}


def reference():
    """{name without its layer: what it is, where it is defined, its shape, and the code that computes it}."""
    described, coded = read_table((ROOT / "README.md").read_text(encoding="utf-8")), read_code()
    names = [name.removeprefix("layers.0.") for name in bugs.names_of(1)]
    for name in names:
        if name not in described:
            raise InputError(f"README.md has no row for {name} in its table of names")
        if name not in coded:
            raise InputError(f"numpy_llama.py has no tap {name}, or in a function that build.py does not know")
    return {name: {**described[name], **coded[name]} for name in names}


def read_table(readme):
    """The README's table of names: {name: {what, where: [{text, url}], shape}}."""
    links = dict(re.findall(r"^\[(.+?)\]: (\S+)$", readme, re.M))
    table = {}
    for names, shapes, what, where in re.findall(r"^\| (`.+?) \| (\(.+?) \| (.+?) \| (.+?) \|$", readme, re.M):
        names = [name.removeprefix("layers.{i}.") for name in re.findall(r"`(.+?)`", names)]
        names = ["attn" + name if name.startswith(".") else name for name in names]
        shapes = re.findall(r"\((.+?)\)", shapes)
        for i, name in enumerate(names):
            table[name] = {"what": what.replace("`", ""), "shape": shapes[min(i, len(shapes) - 1)].replace(", ", ""),
                           "where": [paper(one, links) for one in where.split("; ")]}
    return table


def paper(text, links):
    """"[RoPE] 3.2.2" -> {"text": "RoPE 3.2.2", "url": ...}"""
    name = re.match(r"\[(.+?)\]", text)[1]
    return {"text": text.replace(f"[{name}]", name), "url": links[name]}


def read_code():
    """What numpy_llama.py says of every name: {name: {line, code: [{name, line, text}]}}."""
    source = (ROOT / "numpy_llama.py").read_text(encoding="utf-8")
    lines = source.splitlines()
    functions = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}

    def code(name):
        first, last = functions[name].lineno, functions[name].end_lineno
        return {"name": name, "line": first, "text": "\n".join(lines[first - 1:last])}

    found = {}
    for function, prefix in PREFIXES.items():
        for call in ast.walk(functions[function]):
            if not is_tap(call):
                continue
            name = prefix + call.args[0].value
            helpers = [node.func.id for node in ast.walk(call.args[1])
                       if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions]
            used = dict.fromkeys([function, *helpers, *BEFORE_THE_TAP.get(name, [])])
            found[name] = {"line": call.lineno, "code": [code(one) for one in used]}
    return found


def is_tap(node):
    """Whether a node of the syntax tree is tap("name", x)."""
    return (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tap"
            and isinstance(node.args[0], ast.Constant))


def words_of_bugs():
    """What tests/bugs.py says about the mistakes that bugs.js makes, in order of computation."""
    made = set(re.findall(r'^  "?([a-z0-9-]+)"?: ', (HERE / "bugs.js").read_text(encoding="utf-8"), re.M))
    if unknown := made - {bug.name for bug in bugs.BUGS}:
        raise InputError(f"tests/bugs.py has no mistake {', '.join(sorted(unknown))}, which bugs.js makes")
    return [{"name": bug.name, "first": bug.first, "what": bug.what, "symptom": bug.symptom, "fix": bug.fix}
            for bug in bugs.BUGS if bug.name in made]


# ---- The page ------------------------------------------------------------------------------------------------

IMPORT = re.compile(r'^import \{([\w\s,]+)\}\s+from "\./(\w+)\.js";\n', re.M)
DECLARATION = re.compile(r"^(?:export )?(?:async )?(?:function\*?|const|let|class) (\w+)", re.M)


def join_modules(folder, first="main"):
    """One script of a module and all that it imports; each starts with a line `// ==== name.js ====`.

    Plain imports only: {a as b}, default and star imports would need renaming, and are refused. So are names that two
    modules declare, circles, and names that a module does not export.
    """
    parts, declared = {}, {}

    def add(name, path):
        if name in path:
            raise InputError(f"modules import each other in a circle: {' -> '.join([*path, name])}")
        if name in parts:
            return
        text = (folder / f"{name}.js").read_text(encoding="utf-8")
        for names, other in IMPORT.findall(text):
            if " as " in names:
                raise InputError(f"{name}.js: import {{a as b}} cannot be joined: import it under its own name")
            add(other, [*path, name])
            check_exports(name, names, other, parts[other])
        body = IMPORT.sub("", text)
        if wrong := re.search(r"^(import\b|export (default|\{|\*)).*", body, re.M):
            raise InputError(f"{name}.js: {wrong[0]!r} cannot be joined: "
                             'write import { a, b } from "./x.js", and export before what is declared')
        for one in DECLARATION.findall(body):
            if one in declared:
                raise InputError(f"{declared[one]}.js and {name}.js both declare {one}: in one script names are unique")
            declared[one] = name
        parts[name] = body

    add(first, [])
    script = "\n".join(f"// ==== {name}.js ====\n{re.sub('^export ', '', body, flags=re.M)}"
                       for name, body in parts.items())
    if "</script" in script:
        raise InputError("a module contains </script, which would end the page's script")
    return script


def check_exports(name, imported, other, body):
    exported = re.findall(r"^export (?:async )?(?:function\*?|const|let|class) (\w+)", body, re.M)
    for one in filter(None, map(str.strip, imported.split(","))):
        if one not in exported:
            raise InputError(f"{name}.js imports {one} from {other}.js, which does not export it")


def fill(page, marks):
    """The page with each mark, which must be there once, replaced by its text."""
    for mark in marks:
        if page.count(mark) != 1:
            raise InputError(f"index.html must have the mark {mark} once, not {page.count(mark)} times")
    before = re.split("(" + "|".join(map(re.escape, marks)) + ")", page)
    return "".join(marks.get(part, part) for part in before)


def other_names():
    """{what other programs call a tensor: our name}; transformers puts model. in front of most of its names."""
    names = {theirs: ours for theirs, (ours, _) in dumps.PLACES.items() if not theirs.startswith("<")}
    return names | {f"model.{theirs}": ours for theirs, ours in names.items()}


def check_state(state, config):
    """Raise InputError for keys, a tensor or a tab that the page does not have. It checks the values itself."""
    source = (HERE / "state.js").read_text(encoding="utf-8")
    fields, tools = (re.search(rf"const {name} = {{(.*?)\n}};", source, re.S)[1] for name in ("FIELDS", "TOOLS"))
    allowed = {"t": bugs.names_of(config.n_layers), "tab": re.findall(r'(\w+): "', tools)}
    keys = re.findall(r"^  (\w+): \[", fields, re.M)
    for key, value in parse_qsl(state.removeprefix("#"), keep_blank_values=True):
        if key not in keys:
            raise InputError(f"the state {state!r} has the key {key}, which is none of {', '.join(keys)}")
        if value not in allowed.get(key, [value]):
            known = "tensors are layers.0.attn.q and so on" if key == "t" else "tabs are " + ", ".join(allowed[key])
            raise InputError(f"the state {state!r} has {key}={value}, which this model's page does not have: {known}")


def build(folder, state=""):
    """The page of a model, as text; without a state of its own in its address, it opens in this one, with # or not."""
    weights, config = read_model(folder)
    check_state(state, config)
    names, arrays = zip(*named_weights(weights))
    dtype = narrowest(arrays)
    data = {
        "config": asdict(config),
        "tokenizer": read_tokenizer(folder / "tokenizer.model", config.vocab_size),
        "weights": {"dtype": dtype, "tensors": [[name, x.shape] for name, x in zip(names, arrays)]},
        "reference": reference(),
        "bugs": words_of_bugs(),
        "aliases": other_names(),
        "start": state and "#" + state.removeprefix("#"),
    }
    page = fill((HERE / "index.html").read_text(encoding="utf-8"), {
        "/*{style}*/": (HERE / "style.css").read_text(encoding="utf-8"),
        "{data}": json.dumps(data, ensure_ascii=False).replace("</", "<\\/"),
        "{weights}": pack(arrays, dtype),
        "/*{script}*/": join_modules(HERE),
    })
    refuse_large(folder, len(page.encode()))
    return page


def write_page(folder, path, state=""):
    """Build a model's page into a file and return its size in bytes. What was there stays until the page is whole."""
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder: --output takes the name of a file")
    part = path.with_name(f".part-{path.name}")
    with in_a_sentence("written", path):
        part.touch()                                      # no work is done in vain
    try:
        with in_a_sentence("read"):
            page = build(folder, state).encode()
        with in_a_sentence("written", path):
            part.write_bytes(page)
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return len(page)


@contextmanager
def in_a_sentence(done, path=None):
    """What the system refuses meanwhile, said of this file, or else of the one that it is about."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path or error.filename} cannot be {done}: {error.strerror}") from None


# ---- Command line --------------------------------------------------------------------------------------------

def parse(argv):
    def error(message):
        raise InputError(f"{message} (--help shows the options)")

    parser = argparse.ArgumentParser(
        prog="build.py", description="Write the explorer: one HTML file that runs the model, offline.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
               "  python notebooks/explorer/build.py --open                        the model that ships\n"
               '  python notebooks/explorer/build.py --open "#tab=rotation"        with the rotation in view\n'
               "  python notebooks/explorer/build.py --model DIR --output x.html   any Llama, up to a page of 64 MB\n")
    parser.error = error
    parser.add_argument("--model", metavar="DIR", type=Path, default=ROOT / "weights" / "fairytales",
                        help="folder with config.json, safetensors and tokenizer.model; without a tokenizer, prompts "
                             "are token ids (default: the model that ships)")
    parser.add_argument("--output", metavar="FILE", type=Path, default=ROOT / "notebooks" / "explorer.html",
                        help="where to write the page (default: notebooks/explorer.html)")
    parser.add_argument("--open", metavar="STATE", nargs="?", const="", dest="state",
                        help="show it in the browser; STATE is what the page has behind # in its address (default: as "
                             "it opens by itself)")
    return parser.parse_args(argv)


def main(argv=None):
    """Run the command line and return its exit status: 0, 2 after an error, 130 after Ctrl-C."""
    try:
        args = parse(argv)
        size = write_page(args.model, args.output, args.state or "")
        print(f"{args.output}: {size / 1e6:.1f} MB")
        if args.state is not None and not webbrowser.open(args.output.resolve().as_uri()):
            print(f"no browser was found here: open {args.output} in one yourself")
        return 0
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
