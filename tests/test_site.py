"""The HTML edition's sources: fast checks. Building it, and site/check.py in a browser, find the rest."""

import importlib.util
import json
import re
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest

from byhand import site
from byhand.interactive import sliders, stepper
from byhand.notebooks import ROOT
from byhand.taught import defined_names, rule_sources

LECTURES = sorted((ROOT / "lectures").glob("*.ipynb"))
SITE = ROOT / "site"
each_lecture = pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)


# --- sources -------------------------------------------------------------------------------------


def test_requirements_are_pinned():
    lines = (SITE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line.partition("#")[0].strip() for line in lines]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in wanted if line)


def test_vendored_katex_is_complete_and_has_its_licence():
    folder = SITE / "_static" / "katex"
    style = (folder / "katex.min.css").read_text(encoding="utf-8")
    named = set(re.findall(r"url\(([^)]+)\)", style))
    assert named == {f"fonts/{path.name}" for path in (folder / "fonts").iterdir()}
    assert "MIT" in (folder / "LICENSE").read_text(encoding="utf-8")


@each_lecture
def test_each_unit_has_its_picture_on_the_home_page(path):
    pictures = tomllib.loads((SITE / "units.toml").read_text(encoding="utf-8"))
    assert path.stem in pictures, f"draw the pattern of {path.stem} in site/units.toml"
    rows = pictures[path.stem]["jacobian"]
    assert rows and all(re.fullmatch(r"[-+.]+", row) and len(row) == len(rows[0]) for row in rows)


def test_pictures_are_of_units():
    pictures = tomllib.loads((SITE / "units.toml").read_text(encoding="utf-8"))
    assert set(pictures) <= {path.stem for path in LECTURES}


@each_lecture
def test_each_taught_rule_has_its_row_in_the_cheat_sheet(path):
    sheet = (ROOT / "mathnotes" / "99-cheatsheet.md").read_text(encoding="utf-8")
    rows = [line for line in sheet.splitlines() if line.startswith(f"| [{path.stem[:2]} ") and path.name in line]
    rules = {name for source in rule_sources(path.stem).values() for name in defined_names(source)}
    for rule in sorted(name for name in rules if name.endswith("_vjp")):
        row = next((row for row in rows if f"`{rule}`" in row), None)
        assert row, f"99-cheatsheet.md has no row for {rule}"
        assert len([cell for cell in row.strip("|").split(" | ") if cell.strip()]) == 6, rule


@pytest.mark.parametrize("path", sorted((ROOT / "mathnotes").glob("*.md")), ids=lambda path: path.stem)
def test_pictures_in_mathnotes_have_alt_text(path):
    assert not re.search(r"!\[.{0,9}\]\(", path.read_text(encoding="utf-8"))


def test_missing_parts_are_named(monkeypatch):
    monkeypatch.setattr(site, "_is_installed", lambda part: part != "furo")
    with pytest.raises(site.SiteError, match=r"furo.*site/requirements.txt"):
        site.build()


# --- projects ------------------------------------------------------------------------------------

WITH_PROJECT = {"exercises/39-project", "solutions/39-project", "mathnotes/00-conventions"}
WITH_PROJECT |= {
    f"{kind}/{stem}"
    for kind in ("lectures", "exercises", "solutions", "mathnotes")
    for stem in ("34-broadcast", "35-unbroadcast", "51-softmax")
}


@pytest.fixture
def course(monkeypatch):
    """The extension that builds the site; it needs site/requirements.txt."""
    pytest.importorskip("sphinxcontrib.katex")
    monkeypatch.syspath_prepend(SITE / "_ext")
    return importlib.import_module("course")


@pytest.mark.parametrize(
    ("page", "before", "after"),
    [
        ("lectures/34-broadcast", None, "lectures/35-unbroadcast"),
        ("lectures/35-unbroadcast", "lectures/34-broadcast", "exercises/39-project"),
        ("exercises/39-project", "lectures/35-unbroadcast", "lectures/51-softmax"),
        ("lectures/51-softmax", "exercises/39-project", None),
        ("exercises/51-softmax", "exercises/39-project", None),
        ("solutions/39-project", "solutions/35-unbroadcast", "solutions/51-softmax"),
        ("mathnotes/35-unbroadcast", "mathnotes/34-broadcast", "mathnotes/51-softmax"),
        ("mathnotes/34-broadcast", None, "mathnotes/35-unbroadcast"),
    ],
)
def test_a_project_is_read_after_its_part(course, page, before, after):
    assert course.neighbours(page, WITH_PROJECT) == (before, after)


def test_the_bar_of_a_project_has_no_page_that_it_lacks(course):
    assert course.bar("39-project", WITH_PROJECT) == [
        ("Project", "exercises/39-project"),
        ("Solution", "solutions/39-project"),
    ]
    names = [name for name, _ in course.bar("51-softmax", WITH_PROJECT)]
    assert names == ["Lecture", "Exercise", "Solution", "Mathnote"]


def test_a_project_stands_in_the_tree_and_on_the_map_after_its_part(course):
    parts = {"3": "Moving data", "4": "Linear maps", "5": "Losses"}
    tree = course.contents(parts, WITH_PROJECT)
    assert "\n/lectures/35-unbroadcast\n/exercises/39-project\n```" in tree
    titles = {doc: SimpleNamespace(astext=lambda doc=doc: f"{doc[-2:]} · {doc}") for doc in WITH_PROJECT}
    env = SimpleNamespace(found_docs=WITH_PROJECT, titles=titles)
    shown = course._map(SimpleNamespace(env=env, config=SimpleNamespace(course_parts=parts)))
    docs = {digit: [row[0] for row in rows] for digit, _, rows in shown}
    assert docs["3"][-2:] == ["lectures/35-unbroadcast", "exercises/39-project"]
    assert docs["5"] == ["lectures/51-softmax"] and "4" not in docs
    assert [bool(row[3]) for row in shown[0][2]] == [True, True, False]  # a project has no Jacobian to show


@pytest.mark.parametrize("kind", ["Exercise", "Project"])
def test_a_solution_says_in_its_title_that_it_is_one(course, kind):
    title = {"cell_type": "markdown", "metadata": {}, "source": [f"# 39 · {kind}: a picture\n", "\n", "Text."]}
    cells = json.loads(course.folded(json.dumps({"cells": [title]})))["cells"]
    assert cells[0]["source"].startswith("# 39 · Solution: a picture")


# --- what a page loads ---------------------------------------------------------------------------


def test_an_exercise_page_shows_what_its_given_cells_show_and_no_more(course):
    def code(cell_id, text, **metadata):
        outputs = [{"output_type": "stream", "name": "stdout", "text": text}]
        return {"cell_type": "code", "id": cell_id, "metadata": metadata, "source": [], "outputs": outputs}

    solution = {"cells": [code("given", "drawn"), code("answer", "secret", nbgrader={"solution": True})]}
    exercise = json.loads(json.dumps(solution))
    exercise["cells"] += [code("added", "")]
    for cell in exercise["cells"]:
        cell["outputs"] = []
    given, answer, added = json.loads(course.with_given_outputs(json.dumps(exercise), solution))["cells"]
    assert given["outputs"][0]["text"] == "drawn"
    assert answer["outputs"] == added["outputs"] == []


def test_fonts_that_a_page_waits_for_are_those_of_katex(course):
    folder = SITE / "_static" / "katex"
    style = (folder / "katex.min.css").read_text(encoding="utf-8")
    for font, (css, classes) in course.FONTS.items():
        assert (folder / "fonts" / f"KaTeX_{font}.woff2").exists()
        assert f"font-family:{css.split()[-1]};" in style
        assert all(f".{names.replace(' ', '.')}" in style for names in classes.split("|"))


def test_a_page_waits_for_the_fonts_that_its_formulas_take(course):
    formula = '<span class="katex"><span class="mord mathnormal sizing size3">x</span>{}</span>'
    assert list(course.fonts_of("<p>mathbf</p>")) == []
    assert list(course.fonts_of(formula.format(""))) == ["Main-Regular", "Math-Italic"]
    large = formula.format('<span class="delimsizing size3">(</span>')
    assert list(course.fonts_of(large)) == ["Main-Regular", "Math-Italic", "Size3-Regular"]


@pytest.fixture(scope="module")
def check():
    """The check in a browser, of which these tests need no browser."""
    spec = importlib.util.spec_from_file_location("site_check", SITE / "check.py")
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("x.html", '<a href="/x"> <a href="https://x.org"> <img alt="" src="../x.png"> <img src="data:,x">', 0),
        ("x.html", '<link rel="canonical" href="https://x.org/x.html"> <link rel="icon" href="../x.svg">', 0),
        (
            "x.html",
            '<img src="/x.png"> <script defer src="//x.org/x.js"> <link rel="preload" href="http://x.org/x">',
            3,
        ),
        ("x.css", "p { background: url(data:,x); } q { background: url(../x.png); }", 0),
        ("x.css", "@import 'https://x.org/x.css'; p { background: url(\"/x.png\"); }", 2),
    ],
)
def test_what_a_folder_lacks_is_read_from_the_source(check, tmp_path, name, text, count):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert len(check.rooted(tmp_path / name)) == count


def test_each_kind_of_page_is_seen_in_full(check, tmp_path):
    names = ["a/01.html", "a/02.html", "a/03.html", "index.html", check.MISSING]
    (tmp_path / "a").mkdir()
    for name in names[:-1]:
        (tmp_path / name).write_text("byhand-figure" if name == "a/03.html" else "", encoding="utf-8")
    assert check.to_see_in_full(tmp_path, names) == {"a/01.html", "a/03.html", "index.html", check.MISSING}


# --- interactive figures -------------------------------------------------------------------------

START = {"a": 0.5, "b": -1.0}
ALT = "Two numbers and their sum and product."


def sums(x):
    return {"y": np.array([x[0] + x[1], x[0] * x[1]])}


def figure(**changes):
    options = {"start": START, "compute": sums, "script": "return [x[0] + x[1], x[0] * x[1]]", "alt": ALT} | changes
    return sliders(**options)


def test_sliders_draw_the_numbers_that_python_computed():
    text = figure().text
    assert re.findall(r"class='v'[^>]*>([^<]+)<", text) == ["0.50", "-1.00", "-0.50", "-0.50"]


def test_interactive_figures_are_reproducible_small_and_apart():
    assert figure().text == figure().text
    other = figure(start={"a": 0.5, "b": -0.5}).text
    assert re.search('id="([^"]+)"', figure().text)[1] != re.search('id="([^"]+)"', other)[1]


@each_lecture
def test_stored_interactive_figures_are_small_and_load_nothing(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            text = "".join(output.get("data", {}).get("text/html", ""))
            if "byhand-figure" in text:
                assert len(text.encode()) < 6 * 1024
                assert not re.search(r"https?://(?!www\.w3\.org/)", text)
                assert len(re.search(r'<img alt="([^"]*)"', text)[1]) > 20


def test_sliders_refuse_a_start_that_is_no_step():
    with pytest.raises(ValueError, match=r"a starts at 0.55"):
        figure(start={"a": 0.55, "b": 0.0})
    with pytest.raises(ValueError, match=r"b starts at 4"):
        figure(start={"a": 0.5, "b": 4.0})


def test_a_figure_needs_an_alt_text():
    with pytest.raises(ValueError, match="alt"):
        figure(alt="sum")
    with pytest.raises(ValueError, match="alt"):
        stepper("q = x + y", {}, {}, alt="")


def test_stepper_shows_values_forward_then_gradients_backward():
    values = {"x": -2, "y": 5, "z": -4, "q": 3, "f": -12}
    gradients = {"f": 1, "q": -4, "z": 3, "x": -4, "y": -4}
    text = stepper("q = x + y\nf = q * z", values, gradients, alt="The circuit (x + y) z, walked through.").text
    shown = re.findall(r"fill='(#\w+)' data-k='(\d)'>([^<]+)<", text.replace("%23", "#"))
    steps = {colour: sorted((int(k), number) for c, k, number in shown if c == colour) for colour, _, _ in shown}
    assert steps["#0072B2"] == [(0, "5"), (0, "−2"), (0, "−4"), (1, "3"), (2, "−12")]
    assert steps["#D55E00"] == [(3, "1"), (4, "3"), (4, "−4"), (5, "−4"), (5, "−4")]


def test_stepper_refuses_a_name_that_the_circuit_lacks():
    with pytest.raises(ValueError, match="no w"):
        stepper("q = x + y", {"w": 1}, {}, alt="The circuit x + y, walked through.")
