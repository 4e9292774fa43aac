"""What must hold in every unit of the course."""

import ast
import importlib
import itertools
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from byhand import notebooks
from byhand.notebooks import ROOT
from byhand.taught import defined_names, free_names, rule_sources, taught
from byhand.wire import NotAnswered

LECTURES = sorted((ROOT / "lectures").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))
MATHNOTES = sorted((ROOT / "mathnotes").glob("*.md"))
COURSE_NOTES = re.compile(r"(00|9[0-9])-")  # mathnotes that belong to no unit

each_lecture = pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
each_solution = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
each_notebook = pytest.mark.parametrize("path", LECTURES + SOLUTIONS, ids=notebooks.name_of)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_graded(cell):
    return cell.metadata.get("nbgrader", {}).get("grade", False)


def is_answer(cell):
    return cell.metadata.get("nbgrader", {}).get("solution", False)


# --- units ---------------------------------------------------------------------------------------


def test_each_unit_is_complete():
    units = {path.stem for path in LECTURES}
    projects = {path.stem for path in SOLUTIONS if re.match(r"\d9-", path.stem)}
    assert {path.stem for path in SOLUTIONS} == units | projects
    assert {path.stem for path in (ROOT / "exercises").glob("*.ipynb")} == units | projects
    assert {path.stem for path in MATHNOTES if not COURSE_NOTES.match(path.stem)} == units


def test_readme_lists_each_unit():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in [*LECTURES, *SOLUTIONS]:
        assert f"({notebooks.name_of(path)})" in readme


def of_site(name):
    """A module of site/, which is no package."""
    sys.path.insert(0, str(ROOT / "site"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def test_readme_states_the_minutes_of_each_unit():
    readme_minutes = of_site("readme_minutes")
    text = readme_minutes.README.read_text(encoding="utf-8")
    assert text == readme_minutes.with_minutes(text), "run `python site/readme_minutes.py`"


def test_readme_shows_the_figure_that_the_lecture_stores():
    readme_picture = of_site("readme_picture")
    stored = readme_picture.PICTURE.read_text(encoding="utf-8")
    assert stored == readme_picture.stored_svg(), "run `python site/readme_picture.py`"


def pages():
    """(path, its Markdown) of every page; exercises are the solutions' text once more."""
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *MATHNOTES]:
        yield path, path.read_text(encoding="utf-8")
    for path in [*LECTURES, *SOLUTIONS]:
        yield path, "\n\n".join(cell.source for cell in notebooks.read(path).cells if cell.cell_type == "markdown")


@pytest.mark.parametrize(("path", "text"), list(pages()), ids=lambda value: getattr(value, "name", ""))
def test_links_lead_somewhere(path, text):
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?://", target):
            assert (path.parent / target.partition("#")[0]).exists(), f"{path.name} links to {target}"


# --- atlas ---------------------------------------------------------------------------------------

ATLAS = ROOT / "mathnotes" / "97-atlas.md"


@pytest.fixture(scope="module")
def atlas():
    return of_site("atlas")


@each_lecture
def test_each_taught_rule_has_its_row_and_its_picture_in_the_atlas(path, atlas):
    rows = [line for line in ATLAS.read_text(encoding="utf-8").splitlines() if line.startswith(f"| [{path.stem[:2]} ")]
    taught_names = {name for source in rule_sources(path.stem).values() for name in defined_names(source)}
    rules = {name.removesuffix("_vjp") for name in taught_names if name.endswith("_vjp")}
    assert rules == {rule for stem, rule in atlas.EXAMPLES if stem == path.stem}, "give site/atlas.py an example"
    for rule in rules:
        row = next((row for row in rows if f"`{rule}`" in row and path.name in row), "")
        assert f"(atlas/{atlas.name_of(path.stem, rule)})" in row, f"97-atlas.md has no row for {rule}"
        assert len([cell for cell in row.strip("|").split(" | ") if cell.strip()]) == 6, rule
        stored = (atlas.FOLDER / atlas.name_of(path.stem, rule)).read_text(encoding="utf-8")
        assert stored == atlas.drawn(atlas.jacobians(path.stem, rule)), "run `python site/atlas.py`"


def test_the_atlas_has_no_picture_without_a_rule(atlas):
    assert {path.name for path in atlas.FOLDER.iterdir()} == {atlas.name_of(*key) for key in atlas.EXAMPLES}


def unit(n, *places):
    return np.eye(n)[list(places)].sum(axis=0)


# A null vector for each matrix of the atlas; None where only zero is one, "row" where it has a single
# row and every perpendicular direction is meant.
NULL_VECTORS = {
    "11-chain-rule": {"square_of_sum": [[1, -1]], "shared": ["row"]},
    "12-gates": {"add": [[1, -1]], "mul": [[3, 4]], "maximum": [[0, 1]], "fork": [None]},
    "13-sigmoid": {"sigmoid": [None], "neuron": ["row", "row"]},
    "21-elementwise": {"sin": [None]},
    "22-log-exp": {"exp": [None], "log": [None]},
    "23-power": {"power": [unit(4, 3), unit(4, 2)]},
    "24-relu": {"relu": [unit(4, 1, 3)]},
    "31-reshape": {"reshape": [None]},
    "32-transpose": {"transpose": [None]},
    "33-sum": {"sum_over": [unit(6, 0) - unit(6, 2)]},
    "34-broadcast": {"broadcast_to": [None], "sum_to": [unit(6, 0) - unit(6, 3)]},
    "35-unbroadcast": {"add": [None, None], "mul": [None, None]},
    "41-matvec": {"dot": ["row", "row"], "matvec": [[2, -1, 4, -2], None]},
    "42-matmul": {"matmul": [None, None]},
    "43-affine": {"affine": [None, None, None]},
    "51-softmax": {"softmax": [np.ones(4)]},
    "52-nll": {"nll": [unit(6, 0, 2, 4, 5)]},
    "53-cross-entropy": {"log_softmax": [np.ones(4)], "cross_entropy": [unit(6, 0, 1, 2)]},
    "54-output-units": {"bernoulli_nll": ["row"], "multinoulli_nll": [unit(6, 3, 4, 5)], "gaussian_nll": ["row"]},
    "55-l2": {"l2": ["row"]},
    "66-mixture-density": {"mixture_nll": [unit(6, 0, 1, 2), "row", "row"]},
    "72-finite-precision": {"softplus": [None], "weighted_log": [unit(4, 1)]},
}


@pytest.mark.parametrize("stem", NULL_VECTORS)
def test_null_spaces_of_the_atlas(stem, atlas):
    for rule, vectors in NULL_VECTORS[stem].items():
        for J, vector in zip(atlas.jacobians(stem, rule), vectors, strict=True):
            if vector is None:
                assert np.linalg.matrix_rank(J) == J.shape[1], rule  # small and far from singular
            elif isinstance(vector, str):
                assert len(J) == 1 and J.any(), rule
            else:
                assert np.any(vector) and np.abs(J @ vector).max() < 1e-12 < np.abs(J).max(), rule


# --- notebooks -----------------------------------------------------------------------------------


@each_notebook
def test_notebook_is_canonical(path):
    text = notebooks.text_of(notebooks.canonical(notebooks.read(path), path.stem))
    assert path.read_text(encoding="utf-8") == text, f"run `byhand tidy {notebooks.name_of(path)}`"


@each_notebook
def test_notebook_was_run_in_order(path):
    cells = code_cells(notebooks.read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@each_notebook
def test_figures_have_both_formats_and_alt_text(path):
    for cell in code_cells(notebooks.read(path)):
        pictures = [
            set(out.data) for out in cell.outputs if "data" in out and {"image/svg+xml", "image/png"} & set(out.data)
        ]
        assert all({"image/svg+xml", "image/png"} <= formats for formats in pictures), cell.id
        assert not pictures or cell.source.rstrip().endswith("plt.show()"), cell.id
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        assert bool(pictures) == (len(alt) > 20), f"{cell.id}: a figure says in its alt text what it shows"


@each_notebook
def test_headings_start_at_one_and_skip_no_level(path):
    markdown = "\n".join(cell.source for cell in notebooks.read(path).cells if cell.cell_type == "markdown")
    levels = [len(marks) for marks in re.findall(r"^(#+) ", markdown, flags=re.MULTILINE)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


# --- rules ---------------------------------------------------------------------------------------


@each_lecture
def test_rules_define_and_do_nothing_else(path):
    for source in rule_sources(path.stem).values():
        for node in ast.parse(source).body:
            assert isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign)), ast.unparse(node)


@each_lecture
def test_rules_use_only_imports_and_each_other(path):
    sources = rule_sources(path.stem).values()
    defined = set().union(*map(defined_names, sources))
    imported = {name for name in vars(taught(path.stem)) if not name.startswith("__")} - defined if defined else set()
    for source in sources:
        assert free_names(source) <= defined | imported


@each_lecture
def test_no_rule_is_defined_twice(path):
    counts = Counter(name for source in rule_sources(path.stem).values() for name in defined_names(source))
    assert [name for name, count in counts.items() if count > 1] == []


def test_rules_need_torch_only_where_they_use_it():
    code = "import sys; from byhand.taught import taught; taught('61-two-layer'); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


# --- solutions and exercises ---------------------------------------------------------------------


@each_solution
def test_released_exercise_leaves_each_graded_cell_unanswered(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    namespace = {"__name__": "__exercise__"}
    graded = 0
    for cell in code_cells(notebooks.release(notebooks.read(path), path.stem)):
        if is_graded(cell):
            graded += 1
            with pytest.raises(NotAnswered):
                exec(cell.source, namespace)
        else:
            exec(cell.source, namespace)
    assert graded >= 2


@each_solution
def test_released_exercise_keeps_no_output_and_no_answer(path):
    for cell in notebooks.release(notebooks.read(path), path.stem).cells:
        assert not notebooks.tags(cell) & notebooks.SOLUTION_ONLY
        assert "SOLUTION" not in cell.source
        assert not cell.get("outputs") and cell.get("execution_count") is None


@each_solution
def test_given_cells_use_no_answer_and_no_torch(path):
    cells = code_cells(notebooks.release(notebooks.read(path), path.stem))
    answers = {name for cell in cells if is_answer(cell) for name in notebooks.answer_names(cell.source)}
    for cell in cells:
        if not is_graded(cell) and not is_answer(cell):
            used = {node.id for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)}
            assert not used & answers, f"{cell.id} uses {used & answers}"
            assert "torch" not in used, f"{cell.id} calls torch outside a check"


@each_solution
def test_each_check_has_named_mistakes_each_cell_about_one_check(path):
    cells = code_cells(notebooks.read(path))
    checks = {name for cell in cells if is_graded(cell) for name, _ in [notebooks.graded_check(cell.source)]}
    named = set()
    for cell in cells:
        if "mistake" in notebooks.tags(cell):
            calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
            about = {call.args[0].id for call in calls if getattr(call.func, "id", "") == "mistake"}
            assert len(about) == 1, f"{cell.id} is about {about}"
            named |= about
    assert named == checks


def test_names_of_checks_are_unique_in_the_course():
    names = Counter(
        notebooks.graded_check(cell.source)[0]
        for path in SOLUTIONS
        for cell in code_cells(notebooks.read(path))
        if is_graded(cell)
    )
    assert [name for name, count in names.items() if count > 1] == []


@each_solution
def test_grade_ids_are_unique_and_points_whole(path):
    marks = [cell.metadata.nbgrader for cell in notebooks.read(path).cells if "nbgrader" in cell.metadata]
    ids = Counter(mark.grade_id for mark in marks)
    assert [name for name, count in ids.items() if count > 1] == []
    assert all(isinstance(mark.points, int) and mark.points > 0 for mark in marks if mark.grade)


@each_solution
def test_each_answer_documents_its_shapes(path):
    for cell in code_cells(notebooks.read(path)):
        if is_answer(cell):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    assert ast.get_docstring(node), f"{cell.id}: {node.name} needs a docstring with its shapes"
