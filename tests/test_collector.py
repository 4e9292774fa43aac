"""conftest.py: what plain `pytest` says of notebooks, tried on small ones in a folder of their own."""

import nbformat
import pytest

from byhand import notebooks
from byhand.notebooks import ROOT
from conftest import same_text

pytest_plugins = "pytester"

GRADED = {"nbgrader": {"grade": True, "solution": False, "points": 1, "grade_id": "c", "schema_version": 3}}
CHECK = """@check
def twice_is_right(rng):
    x = rng.normal()
    same(y=(twice(x), 2 * x))"""


def code(source, count=None, outputs=(), **metadata):
    return nbformat.v4.new_code_cell(source, execution_count=count, outputs=list(outputs), metadata=metadata)


def printed(text):
    return nbformat.v4.new_output("stream", name="stdout", text=text)


@pytest.fixture
def outcomes(pytester, monkeypatch):
    """outcomes(cells, folder, *options): the result of pytest on a notebook of these cells."""
    monkeypatch.setenv("BYHAND_COLD", "1")  # a warm process would cost more than it saves here
    pytester.makeconftest((ROOT / "conftest.py").read_text(encoding="utf-8"))

    def run(cells, folder="lectures", *options):
        pytester.mkdir(folder)
        path = pytester.path / folder / "11-twice.ipynb"
        notebooks.write(path, nbformat.v4.new_notebook(cells=cells))
        return pytester.runpytest_inprocess("--nbval-current-env", "--nbval-cell-timeout=60", *options)

    return run


# --- lectures and solutions ----------------------------------------------------------------------


def test_stored_outputs_that_are_reproduced_pass(outcomes):
    cells = [code("x = 1", 1), code("print(x, 0.5)", 2, [printed("1  0.5\n")])]
    outcomes(cells).assert_outcomes(passed=2)


def test_stored_outputs_that_differ_fail(outcomes):
    stored = ["2 0.5\n", "1 0.5001\n", "one 0.5\n", "1 0.5\nmore\n"]
    cells = [code("print(1, 0.5)", count, [printed(text)]) for count, text in enumerate(stored, 1)]
    cells += [code("print(1)", 5), code("1", 6, [printed("1\n")])]
    outcomes(cells).assert_outcomes(failed=6)


def test_cells_that_were_never_run_fail_and_say_what_to_do(outcomes):
    result = outcomes([code("x = 1"), code("print(1)", None, [printed("1\n")])])
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*This cell was never run*byhand run*11-twice.ipynb*"])
    result.stdout.fnmatch_lines(["*has outputs but no count*byhand run*11-twice.ipynb*"])


def test_cells_that_were_run_out_of_order_fail_and_say_what_to_do(outcomes):
    result = outcomes([code("x = 1", 2), code("y = 1", 1)])
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*not run in order*byhand run*11-twice.ipynb*"])


def test_escape_markers_are_refused(outcomes):
    cells = [
        code("# NBVAL_SKIP\nx = 1", 1),
        code("# NBVAL_IGNORE_OUTPUT\nprint(1)", 2, [printed("2\n")]),
        code("# NBVAL_RAISES_EXCEPTION\n1 / 0", 3),
        code("x = 1", 4, tags=["nbval-skip"]),
    ]
    result = outcomes(cells)
    result.assert_outcomes(failed=4)
    assert result.stdout.str().count("escape markers are refused") >= 2


def test_a_slow_cell_fails_even_when_it_swallows_the_interrupt_and_later_cells_count(outcomes):
    swallow = "import time\ntry:\n    time.sleep(30)\nexcept KeyboardInterrupt:\n    pass"
    result = outcomes([code(swallow, 1), code("1 / 0", 2), code("x = 1", 3)], "lectures", "--nbval-cell-timeout=1")
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(["*took longer than 1 s*"])


def test_what_is_no_notebook_is_a_clear_error(pytester, outcomes):
    pytester.makefile(".ipynb", broken="{")
    result = outcomes([code("x = 1", 1)])
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*broken.ipynb: this is not a notebook*"])


def test_nothing_is_collected_twice_with_nbvals_own_option(outcomes):
    outcomes([code("x = 1", 1)], "lectures", "--nbval").assert_outcomes(passed=1)


# --- exercises -----------------------------------------------------------------------------------


def exercise(answer):
    setup = "from byhand.check import check, same"
    return [code(setup), code(answer, nbgrader={"solution": True}), code(CHECK, **GRADED), code("print('given')")]


def test_right_wrong_and_missing_answers_are_told_apart_and_nothing_else_is_red(outcomes):
    cells = exercise("def twice(x):\n    return x + x")
    for name, answer in (("wrong", "return -2 * x"), ("missing", "raise NotImplementedError")):
        source = CHECK.replace("twice", name)
        cells += [code(f"def {name}(x):\n    {answer}"), code(source, **GRADED), code("print('given')")]
    result = outcomes(cells, "exercises", "-rx")
    result.assert_outcomes(passed=8, failed=1, xfailed=1)
    result.stdout.fnmatch_lines(["wrong_is_right: wrong", "y is wrong: yours *, reference *", "The sign is wrong*"])
    result.stdout.fnmatch_lines(["*not answered yet*"])
    result.stdout.no_fnmatch_line("*@check*")
    assert result.outlines[-1] == "2 of 3 answered, 1 of them wrong"


def test_an_answer_that_does_not_parse_fails_and_nothing_else_is_red(outcomes):
    result = outcomes(exercise("def twice(x):\n    return ("), "exercises")
    result.assert_outcomes(passed=2, failed=2)


def test_a_marker_in_an_exercise_does_not_hide_a_wrong_answer(outcomes):
    cells = exercise("# NBVAL_SKIP\ndef twice(x):\n    return x")
    cells[2].source = "# NBVAL_SKIP\n" + cells[2].source
    outcomes(cells, "exercises").assert_outcomes(passed=2, failed=2)


def test_answers_are_counted_over_workers(outcomes):
    result = outcomes(exercise("twice = ..."), "exercises", "-n2", "--dist=loadfile")
    result.assert_outcomes(passed=3, xfailed=1)
    assert result.outlines[-1] == "0 of 1 answered"


def test_a_copy_elsewhere_is_an_exercise_too(outcomes):
    outcomes(exercise("def twice(x):\n    return 2 * x"), "handed-in").assert_outcomes(passed=4)


# --- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "stored"),
    [
        ("y = 0.5", "y  =\n0.5"),
        ("[ 1. -0.]", "[1. 0.]"),
        ("0.33333333", "0.33333334"),
        ("1e-12", "-3.0e-11"),
        ("1.0e+05", "100000."),
        ("nan inf", "nan inf"),
        (
            '<a id="m0123456789"/><b x="1.5" h="#m0123456789"/>',
            '<a id="mabcdefabcd"/><b x="1.5000001" h="#mabcdefabcd"/>',
        ),
        ('<i h="data:image/png;base64,AAAA"/>', '<i h="data:image/png;base64,BBBB"/>'),
    ],
)
def test_texts_that_agree(new, stored):
    assert same_text(new, stored)


@pytest.mark.parametrize(
    ("new", "stored"),
    [
        ("0.5", "0.50001"),
        ("7", "8"),
        ("7", "7."),
        ("shape (2, 3)", "shape (3, 2)"),
        ("dx", "dy"),
        ("nan", "inf"),
        ("nan", "1.0"),
        ("0.5 0.5", "0.5"),
        ("1e-8", "2e-8"),
        ('<a id="m0123456789"/><b h="#m0123456789"/>', '<a id="m0123456789"/><b h="#mabcdefabcd"/>'),
    ],
)
def test_texts_that_differ(new, stored):
    assert not same_text(new, stored)
