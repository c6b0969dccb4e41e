"""The explorer shows the truth: the built page in a browser, offline, against numpy_llama.py with the same change made.

The browser is the machine's own Chromium or Chrome. Without one these tests are skipped; in the gate (CI is set) they
fail. What the engine inside computes is tested by test_explorer.py.
"""
import json
import os
import random
import re
from dataclasses import replace
from urllib.parse import parse_qsl, quote

import bugs
import checkpoints
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import FAIRYTALES, ROOT
from explorer import build as explorer
from explorer import measure
from playwright.sync_api import sync_playwright
from safetensors.numpy import load_file, save_file

import numpy_llama as nl

PROMPT = "Once upon a time there was a king who"
OTHER = "The old wolf went into the dark wood and"
PROMPTS = (PROMPT, "“Where is my apple?”", "Königin 株")
SHORT = "There was a king who"                            # for what takes many runs
TABS = ("next", "logit", "rotation", "neuron", "tokens", "cache", "patch", "mistakes", "traces")

# How far the page's numbers may be from NumPy's, as a share of a tensor's largest number: as in test_explorer.py.
ALLOWED = 1e-5
DIGIT = 5.1e-7                                            # half of the last digit that is shown


# ---- The page in a browser -----------------------------------------------------------------------------------

def browser_path():
    """The machine's browser. Without one: skip the test, or fail in the gate."""
    path = measure.browser_path()
    if path is None:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("no Chromium or Chrome on this machine: `apt-get install chromium`, or your system's way")
    return path


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    browser_path()
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    assert explorer.main(["--output", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def context():
    """A browser without a network."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=measure.FLAGS)
        yield browser.new_context(offline=True, viewport={"width": 1440, "height": 900}, accept_downloads=True)
        browser.close()


def open_page(context, address):
    """The page, opened; what it says on the console and asks the network for is kept in .heard and .requests."""
    page = context.new_page()
    page.heard, page.requests = [], []
    page.on("console", lambda message: page.heard.append(message.text))
    page.on("pageerror", lambda error: page.heard.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    return go_to(page, address)


def go_to(page, address):
    page.bring_to_front()                                 # behind another tab, a page draws once in a second
    page.goto(address)
    page.wait_for_function("window.explorer?.times.first")
    return page


@pytest.fixture(scope="module")
def opened(context, page_file):
    """The page, opened once for all tests."""
    return open_page(context, page_file.as_uri())


@pytest.fixture
def page(opened):
    """The page as it opens, with a promise: it is silent, and asks for nothing but itself."""
    opened.heard.clear()
    opened.bring_to_front()
    show(opened, "#")
    yield opened
    assert opened.heard == []
    own = [url for url in opened.requests if not url.startswith("blob:")]     # blob: is a file that the page saves
    assert own == [opened.url.split("#")[0]]


# Opens links into the page one after the other, and tells what it shows of each once it is drawn.
LOOK = """async links => {
    const { times } = explorer, all = selector => [...document.querySelectorAll(selector)], looks = [];
    const text = selector => all(selector).map(element => element.innerText).join();
    for (const link of links) {
        const drawn = times.drawn, isNew = location.hash !== link;
        if (isNew) location.hash = link;
        const began = performance.now();
        while (isNew && times.drawn === drawn) {
            await new Promise(done => setTimeout(done));
            if (performance.now() - began > 20000) throw Error(`nothing was drawn for ${link}`);
        }
        const bars = all(".bar-row").map(row => [Number(row.querySelector(".word").dataset.key.split(" ")[1]),
            row.querySelector(".word span").textContent, row.querySelector(".link").textContent]);
        looks.push({ link, bars, place: text("#number h2"), words: text("#number .words"),
            number: text("#number .big output"), effect: text(".effect"), problem: text("#problem"),
            report: text(".mistakes .report"), first: text(".mistakes .report .link") });
    }
    return looks;
}"""


@pytest.fixture(scope="module")
def second(context):
    """Another tab of the browser, for pages that were changed."""
    return context.new_page()


def show(page, link):
    """Open a link into the page, and tell what it shows."""
    return page.evaluate(LOOK, [link])[0]


def drawn(page, act):
    """Do something, and wait until the page was drawn after it, and is still."""
    page.wait_for_function("!explorer.isBusy")            # what was asked before is not counted
    before = page.evaluate("explorer.times.drawn")
    act()
    page.wait_for_function(f"explorer.times.drawn > {before} && !explorer.isBusy")


def link(text=PROMPT, name="logits", index=(0, 0), **more):
    fields = {"p": text, "t": name, "i": ".".join(map(str, index)), **more}
    return "#" + "&".join(f"{key}={quote(str(value), safe='')}" for key, value in fields.items())


def shown_number(text):
    return float(text.replace("−", "-").replace(" e", "e").replace("∞", "inf"))


def number(page):
    return shown_number(page.inner_text("#number .big output"))


def bars(page):
    """Ids of the bars of the next token, from the top."""
    return [token for token, _, _ in show(page, page.evaluate("location.hash"))["bars"]]


# Of each small map, row by row, as JSON: below 0 where it is orange, above 0 where it is blue, null where it is grey.
COLOURS = """selector => JSON.stringify([...document.querySelectorAll(selector)].map(canvas => {
    const { width, height } = canvas, { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    const isGrey = at => data[at] === 217 && data[at + 1] === 217 && data[at + 2] === 217;
    const colour = at => isGrey(at) ? null : data[at + 2] - data[at];
    return Array.from({ length: height }, (_, row) =>
        Array.from({ length: width }, (_, column) => colour(4 * (row * width + column))));
}))"""


def check_colours(colours, x, where):
    """Orange stands for negative numbers, blue for positive ones; the pale ones, near zero, are left out."""
    colours, clear = np.array(colours, float), np.abs(x) > 0.1 * np.abs(x).max()
    assert colours.shape == x.shape and np.array_equal(np.sign(colours[clear]), np.sign(x[clear])), where


# ---- NumPy, with the same change made by a tap ---------------------------------------------------------------

@pytest.fixture(scope="module")
def model():
    weights, config = nl.load(FAIRYTALES)
    return weights, config, nl.Tokenizer(FAIRYTALES / "tokenizer.model")


def times(name, *where, factor):
    """A tap that multiplies a part of one tensor."""
    def change(now, x):
        if now == name:
            x = x.copy()
            x[where] *= factor
        return x
    return change


def norm_left_out(name, stream):
    """A tap that puts a norm's input in its place."""
    seen = {}

    def change(now, x):
        seen[now] = x
        return seen[stream] if now == name else x
    return change


def setting(name, index, value):
    def change(now, x):
        if now == name:
            x = x.copy()
            x[index] = value
        return x
    return change


def patched(name, weights, config, tokens):
    """A tap that takes a tensor (T, n) from the run of other tokens, at the positions that both have."""
    other = nl.Trace()
    nl.forward(tokens, weights, config, tap=other)

    def change(now, x):
        if now == name:
            rows = min(len(x), len(other[name]))
            x = x.copy()
            x[:rows] = other[name][:rows]
        return x
    return change


def run_with(model, text, change=nl.ignore, config=None, bug=None):
    """(tokens, trace) of a text with a change."""
    weights, trained, tokenizer = model
    tokens = tokenizer.encode(text)
    if bug:
        run = bugs.Run(tuple(tokens), weights, trained, text=text, tokenizer=FAIRYTALES / "tokenizer.model")
        return tokens, bugs.compute(run, next(b for b in bugs.BUGS if b.name == bug))
    trace = {}

    def tap(name, x):
        trace[name] = change(name, x)
        return trace[name]

    nl.forward(tokens, weights, config or trained, tap=tap)
    return tokens, trace


def changes(model):
    """{what the link says: how NumPy does it}."""
    weights, config, tokenizer = model
    everywhere = (slice(None),)
    return {
        "": {},
        "head*3*2*0": {"change": times("layers.3.attn.heads", 2, factor=0)},
        "head*1*6*-1.5": {"change": times("layers.1.attn.heads", 6, factor=-1.5)},
        "part*4*attn*0": {"change": times("layers.4.attn.out", *everywhere, factor=0)},
        "part*2*ffn*0.5": {"change": times("layers.2.ffn.out", *everywhere, factor=0.5)},
        "neuron*1*333*0": {"change": times("layers.1.ffn.hidden", slice(None), 333, factor=0)},
        "norm*2*ffn_norm*0": {"change": norm_left_out("layers.2.ffn_norm", "layers.2.x_attn")},
        "set*layers.1.x_attn*4.17*2.5": {"change": setting("layers.1.x_attn", (4, 17), 2.5)},
        "theta*500": {"config": replace(config, rope_theta=500.0)},
        "pairing*neighbours": {"bug": "rope-neighbours"},
        "bug*gate-up-swapped": {"bug": "gate-up-swapped"},
        "bug*scale-forgotten": {"bug": "scale-forgotten"},
        f"patch*layers.2.x_ffn*{quote(OTHER)}":
            {"change": patched("layers.2.x_ffn", weights, config, tokenizer.encode(OTHER))},
    }


# ---- It shows the truth --------------------------------------------------------------------------------------

def test_every_state_shows_numpys_numbers(page, model):
    assert look_at_states(page, model, PROMPTS, changes(model)) >= 150


def look_at_states(page, model, texts, made):
    """Four numbers of each text with each change; returns how many states were seen."""
    pick, states = random.Random(1), 0
    for text in texts:
        for link_text, how in made.items():
            tokens, trace = run_with(model, text, **how)
            names = pick.sample(sorted(trace), 4)
            places = [(name, tuple(pick.randrange(n) for n in trace[name].shape)) for name in names]
            change = {"c": link_text} if link_text else {}
            looks = page.evaluate(LOOK, [link(text, name, index, **change) for name, index in places])
            for look, (name, index) in zip(looks, places, strict=True):
                check_state(look, tokens, trace, name, index, model[2])
                states += 1
    return states


def test_a_few_states(page, model):
    """As above, for one text and one change: what the tests of wrong views run."""
    change = "head*1*6*-1.5"
    assert look_at_states(page, model, PROMPTS[:1], {change: changes(model)[change]}) == 4


def label(tokenizer, token):
    """A token as the page writes it."""
    piece = tokenizer.sp.id_to_piece(token).replace("<0x0A>", "⏎")
    return piece.replace("▁", " ").strip() or "␣"


def check_state(look, tokens, trace, name, index, tokenizer):
    where = f"{look['link']}: {name}{list(index)}"
    assert look["place"] == f"{name}[{', '.join(map(str, index))}]", where
    assert f"{index[-2]} “{label(tokenizer, tokens[index[-2]])}”" in look["words"], where
    x, shown = trace[name], shown_number(look["number"])
    largest = np.abs(x[np.isfinite(x)]).max()
    assert shown == x[index] or abs(shown - x[index]) < ALLOWED * largest + DIGIT, where
    loss = nl.cross_entropy(trace["logits"][:-1], tokens[1:]).mean()
    assert abs(float(re.match(r"[\d.]+", look["effect"])[0]) - loss) < 0.0051, where
    check_bars(look["bars"], nl.next_token_probs(trace["logits"][index[-2]]), tokenizer, where)


def check_bars(rows, probs, tokenizer, where):
    for token, text, percent in rows:
        allowed = 0.51 if probs[token] > 0.0994 else 0.051
        assert percent == "<0.1" and probs[token] < 0.0006 or abs(float(percent) - 100 * probs[token]) < allowed, where
        assert text.removesuffix("  ✓") == label(tokenizer, token), where
    first, second = probs[rows[0][0]], probs.max()
    assert second - first < 1e-5, where                   # the likeliest stands first
    assert np.diff([probs[token] for token, _, _ in rows]).max() < 1e-5, where


def test_shifted_positions_change_no_answer(page, model):
    _, trace = run_with(model, PROMPT)
    show(page, link(name="logits", index=(9, 400), c="shift*7"))
    assert number(page) == pytest.approx(trace["logits"][9, 400], abs=2e-4)
    assert "positions + 7" in page.inner_text("#chips")


def test_back_returns_to_what_was_shown(page):
    show(page, link(name="layers.2.x_attn", index=(9, 3)))
    first = page.inner_text("#number")
    drawn(page, lambda: page.click("#number .link"))
    assert page.inner_text("#number h2") != "layers.2.x_attn[9, 3]"
    drawn(page, lambda: page.click("#number .back"))
    assert page.inner_text("#number") == first
    drawn(page, lambda: page.go_forward())
    assert page.inner_text("#number h2") != "layers.2.x_attn[9, 3]"
    drawn(page, lambda: page.fill("#prompt", OTHER))
    drawn(page, lambda: page.go_back())                   # the prompt too, though the cursor stands in it
    assert page.input_value("#prompt") == PROMPT


def test_the_layer_that_is_open_is_in_the_address(page, context):
    """Where the tensor is of no layer, all show the one that was open, elsewhere and on the way back too."""
    layer = "document.querySelector(\"#wiring [data-key='attn.q']\").title.split('.')[1]"
    show(page, link(name="layers.2.attn.q", tab="neuron"))
    assert "layer=" not in page.url                       # the tensor says it
    drawn(page, lambda: page.click("#wiring .stop:has-text('logits')"))
    address = page.url
    other = open_page(context, address)
    assert other.evaluate(layer) == "2" and "layer 2" in other.inner_text(".neuron") and other.url == address
    other.close()
    page.bring_to_front()
    drawn(page, lambda: page.click("#wiring .stop:has-text('layer 4')"))
    assert page.evaluate(layer) == "4" and "layer=" not in page.url
    drawn(page, lambda: page.go_back())
    assert page.evaluate(layer) == "2" and page.url == address


# ---- Every interaction, once ---------------------------------------------------------------------------------

def test_text_becomes_tokens_merge_by_merge(page, model):
    tokenizer, text = model[2], "Die Königin sagte ja"
    drawn(page, lambda: page.fill("#prompt", text))
    ids = tokenizer.encode(text)
    titles = page.evaluate("[...document.querySelectorAll('#tokens button')].map(b => b.title)")
    assert [int(title.split("id ")[1].split(",")[0]) for title in titles] == ids
    chips = page.evaluate("[...document.querySelectorAll('#tokens button span')].map(chip => chip.textContent)")
    assert chips == [tokenizer.sp.id_to_piece(token).replace("▁", "·") for token in ids]
    drawn(page, lambda: page.click("#tab-tokens"))
    merge = "(n) => { const s = document.querySelector('#merge'); s.value = n; s.oninput(); }"
    page.evaluate(merge, 0)
    parts = "[...document.querySelectorAll('.parts-list li span')].map(p => p.textContent)"
    assert page.evaluate(parts) == ["·", *text.replace(" ", "·")]
    page.evaluate(merge, 99)
    assert "".join(page.evaluate(parts)) == "·" + text.replace(" ", "·")
    assert "<0xC3> <0xB6>" in page.inner_text(".parts-list")          # ö, in bytes
    spelled = page.evaluate("[...document.querySelectorAll('.ids button')].map(b => Number(b.textContent))")
    assert spelled == ids
    drawn(page, lambda: page.click(".ids button >> nth=2"))
    assert page.evaluate("explorer.now.position") == 2


def test_wiring_chooses_tensors_and_marks_their_inputs(page, model):
    _, trace = run_with(model, PROMPT)
    for name, x in (("attn.k", np.hstack(trace["layers.3.attn.k"])), ("attn_norm", trace["layers.3.attn_norm"])):
        [colours] = json.loads(page.evaluate(COLOURS, f"#wiring [data-key='{name}'] canvas"))
        check_colours(colours, x, name)
    drawn(page, lambda: page.click("#wiring .box:has-text('q_rope')"))
    assert page.evaluate("explorer.now.name") == "layers.3.attn.q_rope"
    feeding = page.evaluate("[...document.querySelectorAll('.box.feeds .name')].map(e => e.textContent)")
    assert feeding == ["q"]
    assert "8×10×32" in page.inner_text("#wiring .box:has-text('q_rope')")
    drawn(page, lambda: page.click("#wiring .stop:has-text('layer 5')"))
    assert page.evaluate("explorer.now.name") == "layers.5.attn.q_rope"
    drawn(page, lambda: page.click("#wiring .stop:has-text('logits')"))
    assert page.inner_text("#tensor h2").split() == ["logits", "T", "10", "×", "V", "3072"]


def click_cell(page, head, row, column, act="click"):
    box = page.locator("#matrix canvas").bounding_box()
    x, y = page.evaluate("place => explorer.matrix.cell(...place)", [head, row, column])
    getattr(page.mouse, "move" if act == "hover" else "click")(box["x"] + x, box["y"] + y)


def test_a_cell_is_read_and_chosen(page, model):
    _, trace = run_with(model, PROMPT)
    probs = trace["layers.3.attn.probs"]
    tops = [page.evaluate("head => explorer.matrix.cell(head, 0, 0)[1]", head) for head in range(8)]
    assert tops[0] < tops[4] and len(set(tops[:4])) == len(set(tops[4:])) == 1        # four share a key head: one row
    click_cell(page, 5, 7, 2, "hover")
    assert page.inner_text(".tip").endswith(f": {probs[5, 7, 2]:.4f}")
    drawn(page, lambda: click_cell(page, 5, 7, 2))
    assert number(page) == pytest.approx(probs[5, 7, 2], abs=1e-6)
    drawn(page, lambda: page.click(".head-bar button:has-text('head 5')"))
    assert page.evaluate("explorer.now.state.head") == 5
    drawn(page, lambda: page.click("button:has-text('all heads')"))
    show(page, link(name="layers.1.ffn.gate", index=(6, 333)))
    narrow = page.evaluate("explorer.matrix.cell(0, 6, 334)[0] - explorer.matrix.cell(0, 6, 333)[0]")
    for _ in range(8):
        page.click("button[title^='zoom in']")
    wide = page.evaluate("explorer.matrix.cell(0, 6, 334)[0] - explorer.matrix.cell(0, 6, 333)[0]")
    assert narrow < 2 and wide > 50                       # a cell in which a number can be read


def test_a_row_is_a_table_on_demand(page, model):
    _, trace = run_with(model, PROMPT)
    show(page, link(name="layers.3.ffn_norm", index=(9, 3)))
    page.click("button:has-text('row as a table')")
    cells = page.evaluate("[...document.querySelectorAll('#dialog td')].map(cell => cell.textContent)")
    assert [shown_number(cell) for cell in cells] == pytest.approx(trace["layers.3.ffn_norm"][9].tolist(), abs=1e-5)
    drawn(page, lambda: page.click("#dialog td button >> nth=17"))
    assert page.inner_text("#number h2") == "layers.3.ffn_norm[9, 17]"


def test_a_logit_leads_back_to_the_embedding(page):
    show(page, link(name="logits", index=(9, 400)))
    for _ in range(200):
        name = page.evaluate("explorer.now.name")
        if name == "embedding":
            break
        assert "Computed again" in page.inner_text("#number .check")
        assert re.search(r"numpy_llama.py, line \d+", page.inner_text("#number"))
        assert page.locator("#number .hit").count() == 1 and page.locator("#number .where a").count() >= 1
        drawn(page, lambda: page.locator("#number .link").first.click())
    assert name == "embedding"


def test_changes_are_chips_beside_as_trained(page, model):
    drawn(page, lambda: page.uncheck(".head-bar input >> nth=1"))
    drawn(page, lambda: page.click("#switches button:has-text('feed-forward')"))
    page.fill("#switches input", "0.5")
    drawn(page, lambda: page.click("#switches button:has-text('4')"))
    chips = page.evaluate("[...document.querySelectorAll('#chips button')].map(b => b.textContent)")
    assert chips == ["layer 3: head 1 off ✕", "layer 3: feed-forward off ✕", "layer 3: head 4 × 0.5 ✕",
                     "all as trained"]
    assert "Δ" in page.inner_text("#wiring .stop:has-text('logits')")
    assert page.inner_text("#wiring .stop:has-text('layer 2')") == "layer 2"
    show(page, page.evaluate("location.hash").replace("attn.probs", "attn.heads"))
    drawn(page, lambda: page.select_option("#tensor select", "trained"))
    assert "as trained:" in page.inner_text("#number .big")
    drawn(page, lambda: page.click("#tensor .head-bar button:has-text('head 4')"))
    _, trace = run_with(model, PROMPT)
    click_cell(page, 4, 9, 3, "hover")                    # half of it is gone
    assert shown_number(page.inner_text(".tip").split(": ")[-1]) == pytest.approx(
        -trace["layers.3.attn.heads"][4, 9, 3] / 2, abs=1e-4)
    drawn(page, lambda: page.click("#chips button >> nth=0"))
    assert "head 1 off" not in page.inner_text("#chips")
    page.fill("#number .edit input", "3")
    drawn(page, lambda: page.click("button:has-text('run with it')"))
    assert number(page) == 3 and "= 3" in page.inner_text("#chips")
    drawn(page, lambda: page.click("button:has-text('all as trained')"))
    assert page.inner_text("#chips") == ""


def test_a_head_that_is_scaled_goes_off_and_on(page):
    show(page, link(name="layers.3.attn.probs", index=(1, 9, 8), c="head*3*1*0.5"))
    drawn(page, lambda: page.uncheck(".head-bar input >> nth=1"))
    assert "layer 3: head 1 off" in page.inner_text("#chips")
    drawn(page, lambda: page.check(".head-bar input >> nth=1"))
    assert page.inner_text("#chips") == ""


@pytest.mark.parametrize("change, badge, words", [
    ("set*layers.0.x_ffn*4.17*1e39", "Δ ∞", "; moved infinitely far"),        # infinite in float32, then not a number
    ("bug*bos-missing", "Δ shape", "; of another shape than as trained")])
def test_boxes_say_that_no_share_was_moved(change, badge, words, page):
    show(page, link(c=change))
    for stop in ("layer 1", "logits"):
        assert page.inner_text(f"#wiring .stop:has-text('{stop}') .moved") == badge
        assert page.get_attribute(f"#wiring .stop:has-text('{stop}')", "title").endswith(words)


@pytest.mark.parametrize("mistake, shift, alone", [("bos-missing", 1, None), ("bos-twice", -1, 0),
                                                  ("eos-appended", 0, 10)])
def test_a_token_is_compared_with_itself(mistake, shift, alone, page, model):
    """As trained it stands elsewhere where a mistake drops or doubles the first one; an added one stands alone."""
    (_, was), (_, now), t = run_with(model, PROMPT), run_with(model, PROMPT, bug=mistake), 5
    state = {"name": "layers.2.attn.scores", "index": (3, t, 1), "c": f"bug*{mistake}"}
    look = show(page, link(tab="next", **state))
    before, after = (nl.next_token_probs(x["logits"][i]) for x, i in ((was, t + shift), (now, t)))
    shown = [shown_number(text.replace("<", "")) for text in page.locator(".bar-row .was").all_inner_texts()]
    assert shown == pytest.approx([100 * before[token] for token, _, _ in look["bars"]], abs=0.51)
    assert f"moved by {np.sum(before * np.log(before / after)):.3f} nats" in look["effect"]
    show(page, link(tab="rotation", **state))
    heights = page.evaluate("[...document.querySelectorAll('rect.trained')].map(r => r.height.baseVal.value)")
    scores = abs(was["layers.2.attn.scores"][3, t + shift, max(0, shift):t + shift + 1])
    assert heights[max(0, -shift):] == pytest.approx((scores / scores.max() * max(heights)).tolist(), abs=1e-3)
    assert len(heights) == t + 1 and sum(heights[:max(0, -shift)]) == 0
    show(page, link(tab="patch", **state))
    assert f"this prompt as trained: {label(model[2], before.argmax())} " in page.inner_text(".patch")
    if alone is not None:
        state["index"] = (3, alone, 0)
        assert "as trained, this token does not stand there" in show(page, link(tab="next", **state))["effect"]
        assert "as trained" not in page.inner_text(".chart .key")
        show(page, link(tab="patch", **state))
        assert "as trained" not in page.inner_text(".patch")
        show(page, link(tab="rotation", **state))
        assert "as trained" not in page.inner_text(".rotation")


def test_grey_is_explained_where_it_is_seen(page):
    for shown, is_grey in (("run", True), ("trained", False)):
        show(page, link(name="layers.2.attn.scores", index=(3, 9, 8), c="head*1*2*0", show=shown))
        assert ("grey" in page.inner_text("#tensor").lower()) == is_grey


def test_rotation_turns_pairs_and_moves_scores(page, model):
    show(page, link(name="layers.2.attn.scores", index=(3, 9, 8), tab="rotation"))
    before = number(page)
    drawn(page, lambda: page.evaluate("const s = document.querySelector('#pair'); s.value = 4; s.oninput()"))
    angles = [position * 10000 ** (-2 * 4 / 32) for position in (9, 8)]
    captions = page.inner_text(".pictures")
    assert f"query 9 “who”: turned by {angles[0]:.2f} rad" in captions
    assert f"key 8 “king”: turned by {angles[1]:.2f} rad" in captions
    page.focus("#theta")
    for _ in range(5):
        drawn(page, lambda: page.keyboard.press("PageDown"))
    theta = float(page.inner_text("output[for=theta]").replace(",", ""))
    _, trace = run_with(model, PROMPT, config=replace(model[1], rope_theta=theta))
    assert theta < 5000 and number(page) != before
    assert number(page) == pytest.approx(trace["layers.2.attn.scores"][3, 9, 8], abs=1e-4)
    drawn(page, lambda: page.go_back())
    assert page.inner_text("#chips") != "" or number(page) == before   # one key press is one step
    drawn(page, lambda: page.select_option("#pairing", "neighbours"))
    assert "columns 8 and 9" in page.inner_text(".pictures")
    drawn(page, lambda: page.fill("#shift", "3") or page.keyboard.press("Enter"))
    assert "positions + 3" in page.inner_text("#chips")


def test_the_answer_after_every_layer_and_its_parts(page, model):
    weights, config, _ = model
    _, trace = run_with(model, PROMPT)
    show(page, link(name="logits", index=(9, 0)))
    table = page.evaluate("""[...document.querySelectorAll(".lens tbody tr")].map(row =>
        [...row.querySelectorAll("td")].map(cell => cell.textContent))""")
    best = bars(page)[:5]
    for i, (*row, first) in enumerate(table[1:]):
        x = nl.rms_norm(trace[f"layers.{i}.x_ffn"][9:], weights["norm"], config.norm_eps) @ weights["output"]
        probs = nl.next_token_probs(x[0])
        assert list(map(float, row)) == pytest.approx((100 * probs[best]).tolist(), abs=0.51)
        assert first == f"{label(model[2], probs.argmax())} {100 * probs.max():.0f}"
    show(page, link(name="logits", index=(9, best[0])))
    drawn(page, lambda: page.click("#number button:has-text('which parts')"))
    parts = page.evaluate("[...document.querySelectorAll('.logit .parts td button')].map(b => b.textContent)")
    others = re.findall(r"embedding ([−\d.e ]+),", page.inner_text(".logit .sentence"))
    total = sum(map(shown_number, parts)) + sum(map(shown_number, others))
    assert len(parts) == 54 and total == pytest.approx(trace["logits"][9, best[0]], abs=54 * 0.0051)


def test_without_each_head(page, model):
    text = "The king"                                     # 54 runs in the page, 48 here
    _, trace = run_with(model, text)
    show(page, link(text, index=(2, 0), tab="logit", mode="moves"))
    page.wait_for_selector(".logit table", timeout=30000)
    was = nl.next_token_probs(trace["logits"][-1]).astype(np.float64)
    kl = {}
    for layer in range(6):
        for head in range(8):
            _, without = run_with(model, text, times(f"layers.{layer}.attn.heads", head, factor=0))
            kl[layer, head] = np.sum(was * np.log(was / nl.next_token_probs(without["logits"][-1])))
    layer, head = max(kl, key=kl.get)
    assert f"without head {head} of layer {layer} ({kl[layer, head]:.3f} nats)" in page.inner_text(".logit .lead")
    assert "without head 3 of layer 2" in page.get_attribute("[data-key='cell 2 3']", "aria-label")


def test_the_sentence_about_a_token_names_the_parts(page, model):
    weights, _, _ = model
    _, trace = run_with(model, PROMPT)
    token = int(trace["logits"][9].argmax())
    show(page, link(name="logits", index=(9, token), tab="logit"))
    page.wait_for_selector(".logit .lead >> text=/goes from/")
    words = page.inner_text(".logit .lead")
    layer, head = map(int, re.search(r"Without head (\d) of layer (\d)", words).groups()[::-1])
    _, without = run_with(model, PROMPT, times(f"layers.{layer}.attn.heads", head, factor=0))
    was, now = (100 * nl.next_token_probs(t["logits"][9])[token] for t in (trace, without))
    assert f"goes from {was:.0f} to {now:.0f} %" in words
    stream = trace["layers.5.x_ffn"][9].astype(np.float64)
    direction = weights["norm"] * weights["output"][:, token] / np.sqrt(np.mean(stream ** 2) + 1e-5)
    best = max(range(6), key=lambda i: trace[f"layers.{i}.ffn.out"][9] @ direction)
    shares = trace[f"layers.{best}.ffn.out"][9] * direction
    drawn(page, lambda: page.click(f"[data-key='cell {best} ffn']"))
    assert page.evaluate("explorer.now.index") == [9, abs(shares).argmax()]
    words = page.inner_text(".logit .lead >> nth=1")
    assert f"together adds {shares.sum():.2f}" in words
    added = trace[f"layers.{best}.ffn.hidden"][9] * (weights["layers"][best]["ffn"]["down"] @ direction)
    drawn(page, lambda: page.click("#tab-neuron"))
    first = abs(added).argmax()
    assert f"neuron {first} adds {added[first]:.3f}".replace("-", "−") in page.inner_text(".neuron")


def test_a_neuron_over_the_text(page, model):
    _, trace = run_with(model, PROMPT)
    show(page, link(name="layers.1.ffn.hidden", index=(9, 23), tab="neuron"))
    rows = page.evaluate("""[...document.querySelectorAll(".neuron tbody tr")].map(row =>
        [...row.querySelectorAll("button")].map(b => b.title.split(": ")[1]))""")
    for row, part in zip(rows, ("gate", "silu", "up", "hidden")):
        assert [shown_number(v) for v in row] == pytest.approx(trace[f"layers.1.ffn.{part}"][:, 23].tolist(), abs=1e-3)
    drawn(page, lambda: page.click("button:has-text('switch it off')"))
    assert number(page) == 0 and "neuron 23 off" in page.inner_text("#chips")


def test_a_seed_draws_numpys_tokens(page, model):
    weights, config, tokenizer = model
    tokens = tokenizer.encode(PROMPT)
    right = list(nl.generate(tokens, weights, config, 22, np.random.default_rng(7), (tokenizer.eos,), 0.8, 40, 0.95))
    show(page, link(tab="next", s="0.8_40_0.95", seed="7"))
    for button, count in (("draw 1", 1), ("draw 1", 2), ("draw 20", 22)):     # each goes on where the last one stopped
        page.click(f".sampling button:text-is('{button}')")
        page.wait_for_function(f"explorer.now.tokens.length === {len(tokens) + count}")
        assert page.evaluate("explorer.now.tokens") == tokens + right[:count]
    drawn(page, lambda: page.click("button:has-text('only the prompt')"))
    drawn(page, lambda: page.click(".sampling button:text-is('draw 1')"))     # and once more, the same
    assert page.evaluate("explorer.now.tokens") == tokens + right[:1]
    drawn(page, lambda: page.fill("#seed", "1e20") or page.keyboard.press("Enter"))
    assert "seed=9007199254740991" in page.url            # the largest that the page reads


def test_drawing_ends_when_something_else_is_chosen(page):
    show(page, link(tab="next"))
    page.evaluate("""async text => {
        const prompt = document.querySelector("#prompt"), status = document.querySelector("#status");
        [...document.querySelectorAll(".sampling button")].find(one => one.textContent === "draw 20").click();
        while (!status.textContent.startsWith("drawing")) await new Promise(done => setTimeout(done));
        prompt.value = text;
        prompt.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
    }""", OTHER)
    page.wait_for_timeout(2000)                           # by now twenty tokens would stand behind the new text
    right = page.evaluate("text => explorer.now.model.tokenizer.encode(text)", OTHER)
    assert page.evaluate("explorer.now.tokens") == right


def test_what_cannot_be_drawn_is_said(page):
    show(page, link(c="set*norm*9.0*1e39", tab="next"))   # no number of float32: the logits are not finite
    drawn(page, lambda: page.click(".sampling button:text-is('draw 1')"))
    assert page.inner_text("#problem").startswith("No token can be drawn: ")


def test_a_model_with_a_short_context_is_filled_and_no_more(second, page_file, tmp_path):
    go_to(second, changed_page(page_file, '"max_seq_len": 512', '"max_seq_len": 16', tmp_path))
    drawn(second, lambda: second.click(".sampling button:text-is('draw 20')"))
    second.wait_for_selector("#problem:has-text('The page shows up to 16 tokens')")
    assert second.evaluate("explorer.now.tokens.length") == 16


def test_large_numbers_are_written_with_a_power(page):
    show(page, link(name="layers.3.attn.scores", index=(1, 9, 8)))
    drawn(page, lambda: page.fill("#number .edit input", "1000000") or page.keyboard.press("Enter"))
    assert number(page) == 1e6 and "1 e6" in page.inner_text("#tensor .legend")
    show(page, link(name="layers.3.attn.scores", index=(1, 9, 8), c="theta*1000000", tab="rotation", pair=15))
    assert re.search(r"once around in \d e6 tokens", page.inner_text("#panel-rotation"))


def test_a_number_that_is_being_typed_stays(page):
    page.fill("#number .edit input", "3")
    drawn(page, lambda: page.evaluate("const s = document.querySelector('#top_k'); s.value = 5; s.oninput()"))
    assert page.input_value("#number .edit input") == "3"
    drawn(page, lambda: page.keyboard.press("Enter"))
    assert number(page) == 3


def test_the_cache_holds_keys_and_values(page, model):
    tokens, trace = run_with(model, PROMPT)
    show(page, link(tab="cache", name="layers.2.attn.k"))
    maps = json.loads(page.evaluate(COLOURS, ".cache canvas"))
    for head in (0, 1):
        for colours, name in zip(maps[2 * head:], ("attn.k_rope", "attn.v")):
            assert all(len(row) == 128 and set(row[len(tokens):]) == {None} for row in colours)
            check_colours([row[:len(tokens)] for row in colours], trace[f"layers.2.{name}"][head].T, name)


def test_the_cache_fills_as_tokens_are_drawn(page):
    show(page, link(tab="cache"))
    page.evaluate("""() => {
        window.filled = [];
        const words = document.querySelector(".cache .sentence");
        new MutationObserver(() => filled.push(Number(words.textContent.match(/(\\d+) of/)[1])))
            .observe(words, { childList: true });
    }""")
    page.click(".cache button:has-text('draw 20')")
    page.wait_for_function("explorer.now.tokens.length === 30")
    filled = page.evaluate("filled")
    assert filled == sorted(filled) and set(range(10, 30)) <= set(filled)
    assert "30 of 128 slots" in page.inner_text(".cache .sentence")


def test_a_bar_goes_on_with_its_token(page, model):
    tokens = model[2].encode(PROMPT)
    second = bars(page)[1]
    drawn(page, lambda: page.click(".bar-row .word >> nth=1"))
    assert page.evaluate("explorer.now.tokens") == tokens + [second]
    drawn(page, lambda: page.click("#tokens button >> nth=3"))
    third = bars(page)[0]
    drawn(page, lambda: page.click(".bar-row .word >> nth=0"))        # from the middle of the prompt
    assert page.evaluate("explorer.now.tokens") == tokens[:4] + [third]
    drawn(page, lambda: page.click("button:has-text('likeliest')"))


def test_a_tensor_of_a_second_prompt(page, model):
    weights, config, tokenizer = model
    show(page, link(name="layers.4.x_ffn", index=(9, 3), tab="patch"))
    drawn(page, lambda: page.fill("#second", OTHER) or page.keyboard.press("Enter"))
    drawn(page, lambda: page.click("button:has-text('put its layers.4.x_ffn')"))
    _, trace = run_with(model, PROMPT, patched("layers.4.x_ffn", weights, config, tokenizer.encode(OTHER)))
    assert number(page) == pytest.approx(trace["layers.4.x_ffn"][9, 3], abs=1e-4)
    assert f"layers.4.x_ffn from “{OTHER}”" in page.inner_text("#chips")


COMMON = ("rope-neighbours", "theta-500000", "mask-missing", "mask-sees-next", "scale-forgotten", "heads-round-robin",
          "gate-up-swapped", "activation-forgotten", "residual-forgotten-ffn", "final-norm-forgotten", "output-tied",
          "norm-weight-forgotten")


def test_a_mistake_names_the_first_wrong_tensor(page):
    looks = page.evaluate(LOOK, [link(SHORT, tab="mistakes", c=f"bug*{name}") for name in COMMON])
    for look, name in zip(looks, COMMON, strict=True):
        bug = next(bug for bug in bugs.BUGS if bug.name == name)
        assert look["first"] == bug.first and bug.symptom in look["report"], name
    page.wait_for_selector(".report :text('as trained:')")
    assert f"It writes: {SHORT}" in page.inner_text(".mistakes .report")
    drawn(page, lambda: page.click(".bug[aria-pressed=true]"))
    drawn(page, lambda: page.click(".bug >> nth=0"))      # a mistake that drops a token
    assert page.evaluate("explorer.now.run.tokens.length") == 5


def test_other_changes_are_no_part_of_a_mistake(page):
    look = show(page, link(SHORT, tab="mistakes", c="head*0*2*0**bug*final-norm-forgotten"))
    assert look["first"] == "norm"


def test_a_wrong_trace_is_named_and_drawn(page, model, tmp_path):
    _, trace = run_with(model, SHORT, bug="heads-round-robin")
    save_file({name: np.ascontiguousarray(x) for name, x in trace.items()}, tmp_path / "port.safetensors")
    show(page, link(SHORT, tab="traces"))
    drawn(page, lambda: page.set_input_files("#file", tmp_path / "port.safetensors"))
    assert page.inner_text(".traces .report .link") == "layers.0.attn.scores"
    agree = list(trace).index("layers.0.attn.scores")         # the table begins with the first that differs
    assert f"before it agrees ({agree} tensors)" in page.inner_text(".traces .report")
    assert page.inner_text(".traces tbody tr th >> nth=0") == "layers.0.attn.scores"
    assert page.locator(".traces tbody tr").count() == len(trace) - agree
    page.wait_for_selector(".report :text('It is what one gets when')", timeout=40000)
    assert "round-robin" in page.inner_text(".traces .report")
    drawn(page, lambda: page.click(".traces .report .link"))
    head, t, s = page.evaluate("explorer.now.index")
    _, right = run_with(model, SHORT)
    assert number(page) == pytest.approx(right["layers.0.attn.scores"][head, t, s], abs=1e-6)
    assert "in the file:" in page.inner_text("#number .big")
    assert page.input_value("#tensor select") == "file"
    difference = right["layers.0.attn.scores"][head, t, s] - trace["layers.0.attn.scores"][head, t, s]
    click_cell(page, head, t, s, "hover")
    assert shown_number(page.inner_text(".tip").split(": ")[-1]) == pytest.approx(difference, abs=1e-4)
    drop = """() => {
        const data = new DataTransfer();
        data.items.add(new File(["nothing"], "no.safetensors"));
        dispatchEvent(new DragEvent("drop", { dataTransfer: data }));
    }"""
    drawn(page, lambda: page.evaluate(drop))
    assert "is not .safetensors" in page.inner_text(".traces .report")
    assert "mistakes" not in page.inner_text(".traces .report")       # nothing was compared
    drawn(page, lambda: page.click("button:has-text('close it')"))


def test_a_right_trace_is_not_called_wrong_while_something_is_changed(page, model, tmp_path):
    """A mistake that changes nothing here would give the file's numbers too."""
    _, trace = run_with(model, PROMPT)
    save_file({name: np.ascontiguousarray(x) for name, x in trace.items()}, tmp_path / "right.safetensors")
    show(page, link(tab="traces", c="neuron*5*611*0"))
    drawn(page, lambda: page.set_input_files("#file", tmp_path / "right.safetensors"))
    page.wait_for_selector(".report:has-text('what the model computes as trained')")
    assert "what one gets when" not in page.inner_text(".traces .report")
    drawn(page, lambda: page.click("button:has-text('close it')"))


def test_a_shift_stays_within_what_a_link_can_say(page):
    show(page, link(tab="rotation"))
    drawn(page, lambda: page.fill("#shift", "1000001") or page.keyboard.press("Enter"))
    assert "positions + 100000" in page.inner_text("#chips")
    assert show(page, page.evaluate("location.hash"))["problem"] == ""


def test_a_trace_of_another_prompt_says_what_to_do(page, model, tmp_path):
    tokens, trace = run_with(model, OTHER)
    show(page, link(SHORT, tab="traces"))
    for names, way_out in ((["norm"], "Type the file’s prompt"), (list(trace), f"“{OTHER}”")):
        save_file({name: np.ascontiguousarray(trace[name]) for name in names}, tmp_path / "other.safetensors")
        drawn(page, lambda: page.set_input_files("#file", tmp_path / "other.safetensors"))
        report = page.inner_text(".traces .report")
        assert f"The file has {len(tokens)} tokens, this run 6: nothing was compared." in report and way_out in report
        assert "None of the mistakes" not in report
    drawn(page, lambda: page.click("button:has-text('use the file’s prompt')"))
    assert page.input_value("#prompt") == OTHER and "agree with this run" in page.inner_text(".traces .report")
    show(page, link(OTHER, tab="traces", add="300"))      # the same text, with a token more
    drawn(page, lambda: page.click("button:has-text('use the file’s prompt')"))
    assert page.evaluate("explorer.now.tokens") == tokens
    assert "agree with this run" in page.inner_text(".traces .report")
    drawn(page, lambda: page.click("button:has-text('close it')"))


def test_a_run_is_saved_and_a_link_brings_it_back(page, context, page_file, model, tmp_path):
    show(page, link(name="layers.4.x_attn", index=(9, 3), tab="traces", c="head*3*2*0"))
    with page.expect_download() as download:
        page.click("button:has-text('save this run')")
    download.value.save_as(tmp_path / "run.safetensors")
    saved = load_file(tmp_path / "run.safetensors")
    _, trace = run_with(model, PROMPT, times("layers.3.attn.heads", 2, factor=0))
    assert saved.keys() == trace.keys()
    for name, x in trace.items():
        assert np.abs(saved[name][np.isfinite(x)] - x[np.isfinite(x)]).max() < ALLOWED * np.abs(x[np.isfinite(x)]).max()
    other = context.new_page()
    other.goto(page_file.as_uri() + page.evaluate("location.hash"))
    other.wait_for_function("window.explorer?.times.first")
    assert other.inner_text("#number") == page.inner_text("#number")
    assert other.inner_text("#chips") == page.inner_text("#chips")
    other.close()


# ---- Links from the lessons ----------------------------------------------------------------------------------

LINKS = [(path.stem, state) for path in sorted((ROOT / "notebooks" / "source").glob("*.py"))
         for state in re.findall(r'--open "(#[^"]*)"', path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("lesson, state", LINKS, ids=[lesson for lesson, _ in LINKS])
def test_a_lessons_link_opens_what_it_says(lesson, state, page):
    look, chosen = show(page, state), dict(parse_qsl(state[1:]))
    assert look["problem"] == ""
    assert page.evaluate("explorer.now.name") == chosen.get("t", "layers.3.attn.probs")
    assert page.is_visible(f"#panel-{chosen.get('tab', 'next')}")
    kept = dict(parse_qsl(page.evaluate("location.hash.slice(1)"))) | {"tab": page.evaluate("explorer.now.state.tab")}
    assert chosen.items() <= kept.items()                 # no number was out of bounds


def test_a_page_opens_in_the_state_that_it_was_built_with(second, page_file, tmp_path):
    state = link(name="layers.2.attn.scores", index=(3, 9, 8), tab="rotation")
    page = go_to(second, changed_page(page_file, '"start": ""', f'"start": "{state}"', tmp_path))
    assert page.inner_text("#number h2") == "layers.2.attn.scores[3, 9, 8]" and page.is_visible("#theta")
    assert dict(parse_qsl(page.url.split("#")[1])) == dict(parse_qsl(state[1:]))


def test_a_token_without_a_piece_is_named_by_its_id(second, tmp_path):
    """An embedding with more rows than the tokenizer has pieces."""
    folder = checkpoints.write_folder(tmp_path / "padded", checkpoints.hugging_face(vocab_size=340))
    assert explorer.main(["--model", str(folder), "--output", str(tmp_path / "x.html")]) == 0
    page = go_to(second, (tmp_path / "x.html").as_uri() + link("king", add="339", index=(99, 339)))
    assert page.inner_text("#tokens li:last-child span") == "id·339"
    assert page.inner_text("#number .words").endswith("next token “id 339”")


# ---- For everyone --------------------------------------------------------------------------------------------

def test_the_explanation_holds_for_both_themes_and_every_model(page):
    press(page, "?")
    assert not re.search("black|white|fairy", page.inner_text("#dialog"))
    press(page, "Escape")


def test_a_link_into_a_model_without_a_tokenizer(second, tmp_path):
    """Its prompt is ids, also where the link says nothing of it."""
    folder = ROOT / "tests" / "reference" / "checkpoints" / "gqa-float32-hf"
    assert explorer.main(["--model", str(folder), "--output", str(tmp_path / "page.html")]) == 0
    go_to(second, (tmp_path / "page.html").as_uri() + "#t=norm&i=3.2")
    assert second.evaluate("[...explorer.now.tokens, explorer.now.name]") == [0, 1, 2, 3, "norm"]
    assert second.inner_text("#problem") == ""


def test_what_it_refuses(page):
    for wrong, said in ((link("a " * 200), "the page shows up to 128: shorten it"),
                        (link(c="head*9*0*0"), "cannot have layer 9"), (link(c="nonsense"), "is not a change"),
                        (link(s="-1_0_1"), "temperature"), (link(s="Infinity_0_1"), "temperature"),
                        (link(tab="nothing"), "tab=nothing is none of next, logit"),
                        (link(name="layers.6.attn.q"), "no tensor layers.6.attn.q"), (link(x=1), "none of its keys"),
                        (link(name="layers.3.x_attn", index=("x", 2)), "i=x.2 is not a list of whole numbers")):
        show(page, wrong)
        assert said in page.inner_text("#problem"), wrong
        show(page, link())
        assert page.is_hidden("#problem")


@pytest.mark.parametrize("key, size", [
    ("keep", 129), ("add", "vocab_size"), ("layer", "n_layers"), ("h", "n_heads"), ("seed", 2**53), ("v", "vocab_size"),
    ("minus", "vocab_size"), ("pair", 16), ("neuron", "hidden_dim")])
def test_a_number_out_of_bounds_is_refused(key, size, page, model):
    size = getattr(model[1], size) if isinstance(size, str) else size
    tab = {"pair": "rotation", "neuron": "neuron"}.get(key, "logit")
    assert show(page, link(SHORT, tab=tab, **{key: size - 1}))["problem"] == ""
    assert page.is_hidden("#dock > .sentence")            # where a tab says that it can show nothing
    for wrong in (size, -1, "5e-1", "", "x"):    # 5e-1: a half, without a dot
        assert f"cannot be read: {key}={wrong} is not a" in show(page, link(tab=tab, **{key: wrong}))["problem"]


@pytest.mark.parametrize("key", ["show", "mode", "tab"])
@pytest.mark.parametrize("wrong", ["foo", "constructor", ""])
def test_a_word_that_the_page_does_not_know_is_refused(key, wrong, page):
    assert f"cannot be read: {key}={wrong} is none of" in show(page, link(**{key: wrong}))["problem"]


def test_long_prompts_say_what_the_page_is_doing(page):
    page.evaluate("""() => {
        window.said = [];
        const status = document.querySelector("#status");
        new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true });
    }""")
    show(page, link("the king and the queen and the wolf and " * 12, index=(50, 1)))
    tokens = page.evaluate("explorer.now.tokens.length")
    assert 90 < tokens <= 128 and f"computing {tokens} tokens …" in page.evaluate("said")


@pytest.mark.parametrize("theme, rules", [("light", {}), ("dark", {"runOnly": ["color-contrast"]})])
def test_no_rule_of_accessibility_is_broken(page, theme, rules):
    """All rules in the light theme; in the dark one, which differs in nothing but colours, those about colours."""
    page.emulate_media(color_scheme=theme)
    page.evaluate(Axe().axe_script)
    for tab in TABS:
        show(page, link(name="layers.3.attn.heads", index=(1, 9, 8), tab=tab, c="head*3*1*0**bug*rope-neighbours"))
        check_rules(page, rules, f"{theme}, {tab}", "#dock")          # the rest of the page stays as it is
    check_rules(page, rules, f"{theme}, whole page")
    page.keyboard.press("?")
    check_rules(page, rules, f"{theme}, explanation", "dialog")
    page.keyboard.press("Escape")
    page.emulate_media(color_scheme="light")


def check_rules(page, rules, where, part="html"):
    run = "async ([part, options]) => (await axe.run(part, options)).violations"
    found = page.evaluate(run, [part, {"resultTypes": ["violations"], **rules}])
    assert not found, (where, [(rule["id"], [node["target"] for node in rule["nodes"]][:4]) for rule in found])


def focused(page):
    return page.evaluate("document.activeElement.closest('[id]')?.id")


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def test_by_keyboard_from_the_prompt_to_a_factor_and_back(page):
    page.evaluate("document.activeElement.blur()")
    press(page, "/")
    assert focused(page) == "prompt"
    page.keyboard.press("Control+a")
    drawn(page, lambda: page.keyboard.type("The king was") or page.keyboard.press("Enter"))
    press(page, "Tab", "ArrowLeft")
    drawn(page, lambda: press(page, "Enter"))             # the position before the last
    assert page.evaluate("explorer.now.position") == page.evaluate("explorer.now.tokens.length") - 2
    press(page, "w", "ArrowDown")
    drawn(page, lambda: press(page, "Enter"))             # the box below
    name = page.evaluate("explorer.now.name")
    press(page, "m")
    drawn(page, lambda: press(page, "ArrowRight"))
    before = page.inner_text("#number h2")
    assert before.startswith(name)
    press(page, "n", "Tab")
    while not page.evaluate("document.activeElement.classList.contains('link')"):
        press(page, "Tab")
    drawn(page, lambda: press(page, "Enter"))             # to a factor
    assert page.inner_text("#number h2") != before and focused(page) == "number"
    press(page, "Tab")                                    # the way back is the next stop
    drawn(page, lambda: press(page, "Enter"))
    assert page.inner_text("#number h2") == before
    drawn(page, lambda: press(page, "b", "ArrowRight"))
    assert page.evaluate("explorer.now.state.tab") == "logit"
    drawn(page, lambda: press(page, "]"))
    assert page.evaluate("explorer.now.layer") == 4


@pytest.mark.parametrize("place, key, held", [
    *((place, *keys) for place in ("#matrix canvas", "#wiring .box", "#tokens button")
      for keys in (("ArrowLeft", "altKey"), ("Home", "ctrlKey"), ("End", "metaKey"))),
    ("#matrix canvas", "+", "metaKey")])
def test_keys_of_the_browser_are_left_to_it(page, place, key, held):
    press = """([place, key, held]) => {
        const element = document.querySelector(place);
        element.focus();
        const options = { key, [held]: true, bubbles: true, cancelable: true };
        return element.dispatchEvent(new KeyboardEvent("keydown", options));
    }"""
    assert page.evaluate(press, [place, key, held])       # false if somebody had taken it


def test_an_id_keeps_the_focus_when_it_is_chosen(page):
    show(page, link(tab="tokens"))
    page.focus("#panel-tokens .ids button >> nth=3")
    drawn(page, lambda: page.keyboard.press("Enter"))
    assert page.evaluate("document.activeElement.dataset.key") == "id 3"


def test_by_keyboard_why_a_token_is_likely(page, model):
    _, trace = run_with(model, PROMPT)
    page.evaluate("document.activeElement.blur()")
    press(page, "b", "ArrowRight")                        # Why this token
    page.wait_for_selector(".logit table")
    press(page, "Tab", "Tab", "Tab")                      # the panel, the token, the token to compare with
    drawn(page, lambda: page.keyboard.type("was"))
    assert "logit of “had” minus that of “was”" in page.inner_text(".logit .sentence")
    press(page, *["Tab"] * 5, "ArrowDown", "ArrowDown", "ArrowRight")             # head 1 of layer 2
    drawn(page, lambda: press(page, "Enter"))
    most = trace["layers.2.attn.probs"][1, 9].argmax()   # where the head looks
    assert page.inner_text("#number h2") == f"layers.2.attn.probs[1, 9, {most}]"


def test_what_goes_on_below_has_an_edge(page):
    show(page, link(SHORT, tab="mistakes"))
    for place, is_less in ((0, ""), (1e6, "!")):          # at the top, and at the end
        page.evaluate(f"document.querySelector('.bugs').scrollTop = {place}")
        page.wait_for_function(f"{is_less}document.querySelector('.bugs').classList.contains('more')")


# How many columns of pixels of the big matrix are nearly all black, [in its left half, in its right half].
EDGES = """() => {
    const canvas = document.querySelector("#matrix canvas"), { width, height } = canvas;
    const copy = Object.assign(document.createElement("canvas"), { width, height });
    const g = copy.getContext("2d", { willReadFrequently: true });
    g.drawImage(canvas, 0, 0);
    const pixels = new Uint32Array(g.getImageData(0, 0, width, height).data.buffer);
    const black = new Array(width).fill(0);
    pixels.forEach((colour, i) => { black[i % width] += colour === 0xff000000; });
    const xs = [...black.keys()].filter(x => black[x] > height / 4);
    return [xs.filter(x => x < width / 2).length, xs.filter(x => x > width / 2).length];
}"""


def test_a_matrix_that_goes_on_has_a_thick_edge(page, model):
    def edges(column):
        show(page, link(SHORT, name="layers.1.ffn.gate", index=(1, column)))
        return page.evaluate(EDGES)

    show(page, link(SHORT, name="layers.1.attn_norm", index=(1, 0)))
    assert page.evaluate(EDGES) == [0, 0]                 # 256 columns have room
    show(page, link(SHORT, name="layers.1.ffn.gate", index=(1, 0)))
    for _ in range(4):
        page.click("button[title^='zoom in']")
    thick = [[pixels >= 3 for pixels in edges(column)] for column in (0, 350, 703)]       # 4, or 3 and two halves
    assert thick == [[False, True], [True, True], [True, False]]


def test_a_phone_gets_a_sentence(context, page_file):
    phone = context.new_page()
    phone.set_viewport_size({"width": 390, "height": 800})
    phone.goto(page_file.as_uri())
    assert "at least 900 pixels wide" in phone.inner_text("body") and phone.is_hidden("main")
    phone.click("button:has-text('show it all the same')")
    assert phone.is_visible("main")
    phone.close()


# ---- These tests, tested -------------------------------------------------------------------------------------

WRONG_VIEWS = {     # what the page would do: (what its script says, what it would say, the test that must fail)
    "the number of the run as trained": (
        "value = valueAt(now.x, now.index);\n    const trained", "value = valueAt(now.base.trace.get(now.name), "
        "now.index);\n    const trained", test_a_few_states),
    "bars of the run as trained": (
        "mine = probsAt(now.run, now.position)", "mine = probsAt(now.base, now.position)", test_a_few_states),
    "the loss of the run as trained": (
        "const nats = loss(now.run)", "const nats = loss(now.base)", test_a_few_states),
    "a bar has the next token's label": (
        'shown(tokenizer, id) + (id === actual ?', 'shown(tokenizer, id + 1) + (id === actual ?', test_a_few_states),
    "the number's row has another token's label": (
        "${shown(tokenizer, now.run.tokens[t])}”`;\n  const words", "${shown(tokenizer, now.run.tokens[0])}”`;\n"
        "  const words", test_a_few_states),
    "chips have the label of another token": (
        "tokenText(tokenizer.pieces[id])", "tokenText(tokenizer.pieces[id + 1])",
        test_text_becomes_tokens_merge_by_merge),
    "the cell above is chosen": (
        "row: Math.floor((y - panel.y", "row: Math.floor((y - panel.ch - panel.y", test_a_cell_is_read_and_chosen),
    "maps are grouped by turns": (
        "isGrouped ? n_heads / n_kv_heads", "isGrouped ? n_kv_heads", test_a_cell_is_read_and_chosen),
    "a small map has its heads in the wrong order": (
        "head = Math.floor(j / n), top", "head = heads - 1 - Math.floor(j / n), top",
        test_wiring_chooses_tensors_and_marks_their_inputs),
    "edges say that there is more where there is not": (
        "if (hiddenRight > 0.5)", "if (hiddenRight >= 0)", test_a_matrix_that_goes_on_has_a_thick_edge),
    "the table has the row above": (
        "textContent: num(spec.value(head, row, column), 6)", "textContent: num(spec.value(head, row - 1, column), 6)",
        test_a_row_is_a_table_on_demand),
    "chips do not remove their change": (
        "undo: one => setState({ changes: state.changes.filter(c => !same(c, one)) })", "undo: () => setState({})",
        test_changes_are_chips_beside_as_trained),
    "the difference has the wrong sign": (
        "v === other[i] ? 0 : v - other[i]", "v === other[i] ? 0 : other[i] - v",
        test_changes_are_chips_beside_as_trained),
    "the next pair is turned": (
        "const frequency = ropeFrequencies(config.head_dim, config.rope_theta)[pair]",
        "const frequency = ropeFrequencies(config.head_dim, config.rope_theta)[pair + 1]",
        test_rotation_turns_pairs_and_moves_scores),
    "the answer after a layer is that of the position before": (
        "lens(now.run, now.position)", "lens(now.run, now.position - 1)",
        test_the_answer_after_every_layer_and_its_parts),
    "heads are ranked from the least important": (
        "heads.sort((a, b) => values.get(b) - values.get(a))", "heads.sort((a, b) => values.get(a) - values.get(b))",
        test_without_each_head),
    "another neuron's numbers": (
        "x.data[flatIndex(x.shape, [t, neuron])]", "x.data[flatIndex(x.shape, [t, neuron + 1])]",
        test_a_neuron_over_the_text),
    "the seed starts again with each draw": (
        "    extra.forEach(random);\n", "", test_a_seed_draws_numpys_tokens),
    "the cache is shown from its second slot on": (
        "held = x.data.subarray(from, from + length * d)", "held = x.data.subarray(from + d, from + (length + 1) * d)",
        test_the_cache_holds_keys_and_values),
    "the tensor is taken from this prompt": (
        "text: now.state.second }", "text: now.state.text }", test_a_tensor_of_a_second_prompt),
}


def changed_page(page_file, old, new, folder):
    """The address of the page with one piece of it, which must be there once, replaced."""
    text = page_file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} must stand in the page once, not {text.count(old)} times"
    path = folder / "changed.html"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("what", WRONG_VIEWS)
def test_a_wrong_view_is_refused(what, second, page_file, model, tmp_path):
    old, new, test = WRONG_VIEWS[what]
    page = go_to(second, changed_page(page_file, old, new, tmp_path))
    with pytest.raises(AssertionError):
        test(page, model)
