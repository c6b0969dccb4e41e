"""How fast the explorer's page is, in this machine's Chromium or Chrome, and how large.

    python notebooks/explorer/measure.py        builds the page and measures it; takes a minute

Targets: 1 s from opening to the first run, 100 ms a frame for the slider of theta at 16 tokens and 250 ms at 64, 60
frames a second when a matrix is panned and zoomed, 12 MB. Needs playwright (tests/requirements.txt) and a browser.
"""
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from explorer import build  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
OPENINGS, FRAMES = 5, 40
SETTLED = 2000                                            # milliseconds in which a new window has loaded its own parts
OPENED = 3000                                             # ... and in which this page, left alone, has long been drawn
WORDS = "once upon a time there was a king who had a daughter and she was so beautiful that "

# Milliseconds of each frame: from a move of the slider to the page that is drawn with the new numbers.
DRAG_THETA = """async frames => {
    const slider = document.querySelector("#theta"), { times } = explorer, taken = [];
    for (let i = 0; i < frames; i++) {
        const before = times.drawn, began = performance.now();
        slider.value = 2 + 3 * i / frames;
        slider.oninput();
        while (times.drawn === before) await new Promise(done => setTimeout(done));
        taken.push(performance.now() - began);
    }
    return taken;
}"""
# Milliseconds that it takes to draw one frame while the matrix is panned and zoomed.
PAN_AND_ZOOM = """async frames => {
    const taken = [];
    for (let i = 0; i < frames; i++) {
        await new Promise(requestAnimationFrame);
        const began = performance.now();
        explorer.matrix.frame(1 + i / 4, 30 * i, 5 * i);
        taken.push(performance.now() - began);
    }
    return taken;
}"""


def browser_path():
    """The machine's own browser, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def open_page(browser, url, settled=SETTLED):
    """A page that has made its first run, in a new window; nothing asks it anything until then."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.wait_for_timeout(settled)
    page.goto(url, wait_until="commit")
    page.wait_for_timeout(OPENED)
    page.wait_for_function("window.explorer?.times.first")
    return page


def first_run(browser, url, settled=SETTLED):
    """Milliseconds from opening to the first run that is drawn, by the browser's own clock: a median."""
    taken = []
    for _ in range(OPENINGS):
        page = open_page(browser, url, settled)
        taken.append(page.evaluate("explorer.times.first"))
        page.close()
    return statistics.median(taken)


def link(url, tokens, name, index, tab="next"):
    """The page's address with a text of that many tokens: more words than enough, cut by `keep`."""
    text = (WORDS * 4).strip().replace(" ", "+")
    return f"{url}#p={text}&keep={tokens}&t={name}&i={index}&tab={tab}"


def measured(browser, url, script):
    page = open_page(browser, url)
    taken = page.evaluate(script, FRAMES)
    tokens = page.evaluate("explorer.now.tokens.length")
    page.close()
    return tokens, statistics.median(taken), sorted(taken)[int(0.95 * FRAMES)]


def report(what, value, target, unit):
    print(f"{what:58} {value:8.1f} {unit:3} target {target:g} {unit}{'' if value <= target else '   MISSED'}")
    return value <= target


def main():
    path = browser_path()
    if path is None:
        print("error: no Chromium or Chrome on this machine", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "explorer.html"
        if build.main(["--output", str(file)]):
            return 2
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        print(f"Chromium {browser.version}; medians; in brackets, what one frame in twenty is slower than")
        met = measure(browser, file)
        browser.close()
    return 0 if met else 1


def measure(browser, file):
    url = file.as_uri()
    met = [report("the page", file.stat().st_size / 1e6, 12, "MB"),
           report("opening to first run", first_run(browser, url), 1000, "ms")]
    print(f"{'the same in a window that is just opening itself':58} {first_run(browser, url, 0):8.1f} ms")
    for tokens, target in ((16, 100), (64, 250)):
        page = link(url, tokens, "layers.3.attn.scores", "1.9.8", "rotation")
        count, median, slow = measured(browser, page, DRAG_THETA)
        met.append(report(f"theta dragged, {count} tokens ({slow:.0f})", median, target, "ms"))
    page = link(url, 64, "layers.3.ffn.gate", "9.8")
    count, median, slow = measured(browser, page, PAN_AND_ZOOM)
    met.append(report(f"pan and zoom, {count} tokens x 704 columns ({slow:.1f})", median, 1000 / 60, "ms"))
    return all(met)


if __name__ == "__main__":
    sys.exit(main())
