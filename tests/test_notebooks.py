"""byhand.notebooks and the command `byhand`: canonical form, running, releasing, and their errors."""

import base64
import io
import json

import nbformat
import pytest
from PIL import Image
from typer.testing import CliRunner

from byhand import cli, notebooks
from byhand.new import scaffold
from byhand.notebooks import NotebookError

ANSWER = """def double(x):
    \"\"\"Twice x, a number.\"\"\"
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION"""
CHECK = """@check(points=3)
def double_is_right(rng):
    x = rng.normal()
    same(y=(double(x), 2 * x))"""
MISTAKE = "mistake(double_is_right, says='that is half of it', double=lambda x: x / 2)"
WRITTEN = "**Your answer** (2 points)\n\n<!-- BEGIN SOLUTION -->\nBecause.\n<!-- END SOLUTION -->"


def code(source, **metadata):
    return nbformat.v4.new_code_cell(source, metadata=metadata)


def text(source, **metadata):
    return nbformat.v4.new_markdown_cell(source, metadata=metadata)


def notebook(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def a_solution():
    cells = [
        text("# 11 · Twice"),
        code("from byhand.check import check, mistake, same"),
        code(ANSWER),
        code(CHECK),
        code(MISTAKE, tags=["mistake"]),
        text("Adding a number to itself doubles it.", tags=["solution"]),
        text(WRITTEN),
    ]
    for number, cell in enumerate(cells, 1):
        cell["id"] = f"11-twice-{number}"
    return notebook(*cells)


@pytest.fixture
def course(tmp_path):
    """A small course of its own: solutions/11-twice.ipynb and an empty folder exercises."""
    for folder in ("lectures", "solutions", "exercises"):
        (tmp_path / folder).mkdir()
    notebooks.write(tmp_path / "solutions/11-twice.ipynb", a_solution())
    return tmp_path


def byhand(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


# --- canonical form ------------------------------------------------------------------------------


def test_canonical_form_is_a_fixed_point():
    once = notebooks.canonical(a_solution(), "11-twice")
    assert notebooks.text_of(notebooks.canonical(once, "11-twice")) == notebooks.text_of(once)


def test_only_tags_mystnb_and_nbgrader_are_kept_of_the_metadata():
    cell = code("1", tags=["rule"], collapsed=True, execution={"iopub.status.idle": "2026"})
    made = notebook(cell)
    made.metadata["widgets"] = {}
    kept = notebooks.canonical(made, "11-twice")
    assert kept.cells[0].metadata == {"tags": ["rule"]}
    assert set(kept.metadata) == {"kernelspec", "language_info"}


def test_existing_ids_stay_and_missing_or_repeated_ones_get_the_next_free_number():
    made = notebook(code("1"), code("2"), code("3"), code("4"))
    made.cells[0]["id"], made.cells[1]["id"], made.cells[3]["id"] = "kept", "11-twice-1", "kept"
    del made.cells[2]["id"]
    assert [cell.id for cell in notebooks.canonical(made, "11-twice").cells] == [
        "kept",
        "11-twice-1",
        "11-twice-2",
        "11-twice-3",
    ]


def test_streams_are_joined_and_runs_are_counted_from_one():
    cell = code("print(1); print(2)")
    cell.execution_count = 7
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=line) for line in ("1\n", "2\n")]
    (made,) = notebooks.canonical(notebook(cell), "11-twice").cells
    assert made.execution_count == 1
    assert [output.text for output in made.outputs] == ["1\n2\n"]


def test_answers_checks_and_written_answers_get_nbgraders_metadata():
    marks = {
        cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader
        for cell in notebooks.canonical(a_solution(), "11-twice").cells
        if "nbgrader" in cell.metadata
    }
    assert set(marks) == {"double", "double_is_right", "11-twice-7"}
    assert marks["double"].solution and not marks["double"].grade and not marks["double"].locked
    assert marks["double_is_right"].grade and marks["double_is_right"].points == 3 and marks["double_is_right"].locked
    assert marks["11-twice-7"].grade and marks["11-twice-7"].solution and marks["11-twice-7"].points == 2
    assert all(mark.schema_version == 3 and mark.task is False for mark in marks.values())


# --- solution to exercise ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (ANSWER, 'def double(x):\n    """Twice x, a number."""\n    raise NotImplementedError'),
        ("### BEGIN SOLUTION\ny = 2  # (N,)\n### END SOLUTION", "y = ...  # (N,)"),
        ("### BEGIN SOLUTION\na, b = 1, 2\nc: int = 3\n### END SOLUTION", "a = ...\nb = ...\nc = ..."),
        ("k = 1\n### BEGIN SOLUTION\nhelp = 5\ny = help\n### END SOLUTION", "k = 1\nhelp = ...\ny = ..."),
        (
            "class T:\n    def f(self):\n        ### BEGIN SOLUTION\n        return 1\n        ### END SOLUTION\n"
            "    def g(self):\n        ### BEGIN SOLUTION\n        return 2\n        ### END SOLUTION",
            "class T:\n    def f(self):\n        raise NotImplementedError\n"
            "    def g(self):\n        raise NotImplementedError",
        ),
    ],
)
def test_stub_keeps_signature_docstring_and_shape_comments(source, expected):
    assert notebooks.stub(source) == expected


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("### BEGIN SOLUTION\ny = 1", "no END"),
        ("### END SOLUTION\ny = 1", "do not pair"),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "do not pair"),
        ("### BEGIN SOLUTION\ndef f(x):\n    return x\n### END SOLUTION", "inside f"),
        ("### BEGIN SOLUTION\nprint(1)\n### END SOLUTION", "defines nothing"),
        ("### BEGIN SOLUTION\ny = = 1\n### END SOLUTION", "does not parse"),
    ],
)
def test_markers_that_make_no_sense_are_refused_in_words(source, words):
    with pytest.raises(NotebookError, match=words):
        notebooks.stub(source)


def test_release_drops_mistakes_and_explanations_and_keeps_ids():
    exercise = notebooks.release(a_solution(), "11-twice")
    assert [cell.id for cell in exercise.cells] == [f"11-twice-{n}" for n in (1, 2, 3, 4, 7)]
    assert exercise.cells[-1].source == f"**Your answer** (2 points)\n\n{notebooks.YOUR_ANSWER}"


def test_release_keeps_no_alt_text_of_an_answers_figure():
    solution, alt = a_solution(), {"image": {"alt": "a line through 2 and 4"}}
    for cell in solution.cells[1:4]:
        cell.metadata["mystnb"] = alt
    exercise = notebooks.release(solution, "11-twice")
    assert ["mystnb" in cell.metadata for cell in exercise.cells[1:4]] == [True, False, True]


def test_two_checks_in_one_cell_are_refused():
    solution = a_solution()
    solution.cells[3].source += "\n\n" + CHECK.replace("double_is_right", "again")
    with pytest.raises(NotebookError, match="one check a cell: double_is_right, again"):
        notebooks.release(solution, "11-twice")


def test_a_written_answer_without_points_is_refused():
    solution = a_solution()
    solution.cells[-1].source = solution.cells[-1].source.replace("(2 points)", "")
    with pytest.raises(NotebookError, match=r"cell 11-twice-7: .*\(2 points\)"):
        notebooks.release(solution, "11-twice")


# --- the command release -------------------------------------------------------------------------


def test_release_writes_and_then_has_nothing_to_do(course):
    solution = course / "solutions/11-twice.ipynb"
    assert "1 released" in byhand("release", solution).output
    assert "0 released" in byhand("release", solution).output
    assert byhand("release", "--check", solution).exit_code == 0


def test_release_check_tells_a_changed_exercise_and_leaves_it(course):
    byhand("release", course / "solutions/11-twice.ipynb")
    exercise = course / "exercises/11-twice.ipynb"
    exercise.write_text(exercise.read_text().replace("Twice x", "Two times x"))
    before = exercise.read_bytes()
    result = byhand("release", "--check", course / "solutions/11-twice.ipynb")
    assert result.exit_code == 1 and "run `byhand release`" in result.output
    assert exercise.read_bytes() == before


def answered(exercise, old, new):
    made = json.loads(exercise.read_text())
    for cell in made["cells"]:
        cell["source"] = "".join(cell["source"]).replace(old, new)
    exercise.write_text(json.dumps(made))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("raise NotImplementedError", "return 3 * x"),
        ("raise NotImplementedError", "return 3 * ("),
        (notebooks.YOUR_ANSWER, "Since it is so."),
    ],
)
def test_release_refuses_to_overwrite_answers_unless_forced(course, old, new):
    solution, exercise = course / "solutions/11-twice.ipynb", course / "exercises/11-twice.ipynb"
    byhand("release", solution)
    answered(exercise, old, new)
    before = exercise.read_bytes()
    result = byhand("release", solution)
    assert result.exit_code == 1 and "holds answers that would be lost" in result.output
    assert exercise.read_bytes() == before
    assert byhand("release", "--force", solution).exit_code == 0
    assert byhand("release", "--check", solution).exit_code == 0


def test_release_refuses_to_drop_a_cell_that_a_student_added(course):
    solution, exercise = course / "solutions/11-twice.ipynb", course / "exercises/11-twice.ipynb"
    byhand("release", solution)
    made = notebooks.read(exercise)
    made.cells.insert(2, code("my_helper = 1"))
    notebooks.write(exercise, made)
    assert "would be lost" in byhand("release", solution).output


def test_release_replaces_an_unanswered_exercise_whose_solution_changed(course):
    solution, exercise = course / "solutions/11-twice.ipynb", course / "exercises/11-twice.ipynb"
    byhand("release", solution)
    changed = a_solution()
    changed.cells[2].source = changed.cells[2].source.replace("Twice x", "Two times x").replace("double", "twofold")
    del changed.cells[1]
    notebooks.write(solution, changed)
    assert byhand("release", solution).exit_code == 0
    assert "twofold" in exercise.read_text()


# --- the command new -----------------------------------------------------------------------------


def test_new_writes_a_unit_that_runs_and_holds_placeholders(course):
    paths = scaffold("23-power", course)
    assert [notebooks.name_of(path) for path in paths] == [
        str(course / folder)
        for folder in (
            "lectures/23-power.ipynb",
            "solutions/23-power.ipynb",
            "exercises/23-power.ipynb",
            "mathnotes/23-power.md",
        )
    ]
    assert all("«" in path.read_text(encoding="utf-8") for path in paths)
    for path in paths[:2]:
        made = notebooks.read(path)
        assert path.read_text(encoding="utf-8") == notebooks.text_of(notebooks.canonical(made, "23-power"))
        assert all(cell.execution_count for cell in made.cells if cell.cell_type == "code")


def test_new_overwrites_nothing(course):
    (course / "mathnotes").mkdir()
    (course / "mathnotes/23-power.md").write_text("mine")
    with pytest.raises(NotebookError, match="exists already"):
        scaffold("23-power", course)
    assert (course / "mathnotes/23-power.md").read_text() == "mine"
    assert not list((course / "lectures").iterdir())


@pytest.mark.parametrize("stem", ["power", "23_power", "23-Power", "3-power", "23-"])
def test_new_refuses_another_form_of_name(stem):
    result = byhand("new", stem)
    assert result.exit_code == 1 and "is no stem" in result.output


# --- the commands run and tidy -------------------------------------------------------------------


def test_run_executes_in_place_and_a_second_run_changes_no_byte(course):
    solution = course / "solutions/11-twice.ipynb"
    assert byhand("run", solution).exit_code == 0
    first = solution.read_bytes()
    outputs = [cell.outputs for cell in notebooks.read(solution).cells if cell.cell_type == "code"]
    assert outputs[2][0].text == "double_is_right: right (3 points)\n"
    assert outputs[3][0].text.startswith("caught: that is half of it\n  y is wrong")
    assert byhand("run", solution).exit_code == 0
    assert solution.read_bytes() == first


def test_run_starts_in_the_notebooks_own_folder(course):
    path = course / "lectures/11-twice.ipynb"
    notebooks.write(path, notebook(code("import pathlib; print(pathlib.Path.cwd().name)")))
    byhand("run", path)
    assert notebooks.read(path).cells[0].outputs[0].text == "lectures\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (notebook(code("1"), code("raise ValueError('too bad')")), "code cell 2 (id cell-b): ValueError: too bad"),
        (notebook(code("1"), code("import os; os._exit(1)")), "code cell 2 (id cell-b): the kernel died"),
        (notebook(code("this is no Python"), code("1")), "code cell 1 (id cell-a): SyntaxError"),
    ],
)
def test_run_names_file_and_cell_that_failed_and_leaves_the_file(course, content, words):
    path = course / "lectures/11-twice.ipynb"
    content.cells[0]["id"], content.cells[1]["id"] = "cell-a", "cell-b"
    notebooks.write(path, content)
    before = path.read_bytes()
    result = byhand("run", path)
    assert result.exit_code == 1
    assert f"{path}, {words}" in result.output
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("show", ["Figure()", "display(Figure())"])
def test_run_refuses_a_figure_that_fails_while_it_is_drawn(course, show):
    path = course / "lectures/11-twice.ipynb"
    source = f"class Figure:\n    def _repr_png_(self):\n        raise ValueError('no ink')\n{show}"
    notebooks.write(path, notebook(code(source)))
    before = path.read_bytes()
    result = byhand("run", path)
    assert result.exit_code == 1 and "code cell 1" in result.output and "ValueError: no ink" in result.output
    assert path.read_bytes() == before


def test_pictures_get_a_palette_and_stay_the_same_picture(course):
    path = course / "lectures/11-twice.ipynb"
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()"
    notebooks.write(path, notebook(code(draw)))
    byhand("run", path)
    first = path.read_bytes()
    (png,) = [out.data["image/png"] for out in notebooks.read(path).cells[0].outputs]
    assert Image.open(io.BytesIO(base64.b64decode(png))).mode == "P"
    byhand("tidy", path)
    assert path.read_bytes() == first


def test_run_names_a_missing_kernel(course):
    path = course / "lectures/11-twice.ipynb"
    made = notebook(code("1"))
    made.metadata["kernelspec"] = {"name": "no-such-kernel", "display_name": "None"}
    notebooks.write(path, made)
    result = byhand("run", path)
    assert result.exit_code == 1 and "no kernel 'no-such-kernel'" in result.output


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "this is not a notebook"),
        ('{"cells": []}', "this is not a notebook"),
        ('{"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": []}', "nbformat 3"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}', "not a notebook"),
        ("[]", "this is not a notebook"),
    ],
)
def test_what_is_no_notebook_is_said_in_one_line(course, content, words):
    path = course / "lectures/11-twice.ipynb"
    path.write_text(content)
    for command in ("run", "tidy"):
        result = byhand(command, path)
        assert result.exit_code == 1 and words in result.output and str(path) in result.output
        assert "Traceback" not in result.output
    assert path.read_text() == content


def test_missing_files_and_other_files_are_named(course):
    assert "cannot be read" in byhand("run", course / "lectures/12-none.ipynb").output
    result = byhand("run", course / "README.md")
    assert result.exit_code == 1 and "not a notebook or a folder" in result.output


def test_a_solution_that_makes_no_sense_is_named_with_its_cell(course):
    path = course / "solutions/11-twice.ipynb"
    made = a_solution()
    made.cells[2].source = made.cells[2].source.replace("### END SOLUTION", "")
    notebooks.write(path, made)
    result = byhand("release", path)
    assert result.exit_code == 1 and f"{path}, cell 11-twice-3: BEGIN SOLUTION has no END" in result.output


def test_one_bad_notebook_does_not_stop_the_others(course):
    (course / "solutions/10-bad.ipynb").write_text("{")
    result = byhand("run", course / "solutions")
    assert result.exit_code == 1 and "2 notebooks, 1 run, 1 failed" in result.output


def test_run_refuses_exercises():
    result = byhand("run", notebooks.ROOT / "exercises/61-two-layer.ipynb")
    assert result.exit_code == 1 and "exercises keep no outputs" in result.output


def test_tidy_mends_and_its_check_only_tells(course):
    path = course / "solutions/11-twice.ipynb"
    assert byhand("tidy", "--check", path).exit_code == 1
    assert "1 tidied" in byhand("tidy", path).output
    assert byhand("tidy", "--check", path).exit_code == 0
