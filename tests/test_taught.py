"""`taught` makes a module of the cells tagged `rule`, and `free_names` knows what a cell needs."""

import inspect
import json
import linecache
import subprocess
import sys
import traceback

import numpy as np
import pytest

import byhand.taught
from byhand.taught import defined_names, free_names, rule_sources, taught

IMPORTS = """%matplotlib inline
import math
import numpy as np
import os.path as path, json
from itertools import chain, count as tally"""
FORWARD = 'def double(x):\n    """Twice x."""\n    return np.add(x, x)'
VJP = "def double_vjp(dy, y, x):\n    wrong = dy[99]\n    return 2 * dy"


@pytest.fixture
def lecture(tmp_path, monkeypatch):
    """Writes a lecture of cells (source, is it a rule) into a folder of its own."""
    monkeypatch.setattr(byhand.taught, "LECTURES", tmp_path)
    taught.cache_clear()

    def write(*cells, stem="10-double"):
        notebook = [{"cell_type": "markdown", "metadata": {"tags": ["rule"]}, "source": "# no code"}]
        for source, is_rule in cells:
            metadata = {"tags": ["rule"]} if is_rule else {}
            notebook.append({"cell_type": "code", "metadata": metadata, "source": source.splitlines(keepends=True)})
        (tmp_path / f"{stem}.ipynb").write_text(json.dumps({"cells": notebook}), encoding="utf-8")
        return stem

    yield write
    taught.cache_clear()


def public(module):
    return {name for name in vars(module) if not name.startswith("__")}


# --- the module ----------------------------------------------------------------------------------


def test_taught_holds_the_rules_and_the_imports_that_they_use(lecture):
    stem = lecture((IMPORTS, False), (FORWARD, True), ("x = double(3)", False), (VJP, True))
    rules = taught(stem)
    assert public(rules) == {"np", "double", "double_vjp"}
    np.testing.assert_array_equal(rules.double(np.array([1.0, 2.0])), [2.0, 4.0])
    assert rules.__name__ == stem and rules.double.__module__ == stem


@pytest.mark.parametrize(
    ("rule", "needed"),
    [
        ("def f(x): return x", set()),
        ("def f(x): return math.sin(x)", {"math"}),
        ("def f(x): return path.join(x)", {"path"}),
        ("def f(x): return tally(x)", {"tally"}),
        ("f = [chain(x) for x in ()]", {"chain"}),
        ("class f:\n    def g(self): return json", {"json"}),
        ("def f(x, y=math.pi): return y", {"math"}),
        ("def f(math): return math", set()),
    ],
)
def test_taught_imports_only_what_a_rule_uses(lecture, rule, needed):
    assert public(taught(lecture((IMPORTS, False), (rule, True)))) == {"f", *needed}


def test_an_import_may_stand_in_any_cell(lecture):
    rules = taught(lecture((FORWARD, True), ("x = 1\nimport numpy as np", False)))
    assert rules.double(2) == 4


def test_cells_that_are_no_rule_are_not_run(lecture):
    rules = taught(lecture(("import numpy as np\nraise RuntimeError", False), (FORWARD, True), ("1 / 0", False)))
    assert rules.double(2) == 4


def test_a_rule_may_use_an_earlier_rule(lecture):
    rules = taught(
        lecture((IMPORTS, False), (FORWARD, True), ("def quadruple(x):\n    return double(double(x))", True))
    )
    assert rules.quadruple(1) == 4


def test_taught_is_made_once(lecture):
    stem = lecture((IMPORTS, False), (FORWARD, True))
    assert taught(stem) is taught(stem)


def test_rule_sources_are_numbered_over_the_code_cells(lecture):
    stem = lecture((IMPORTS, False), (FORWARD, True), ("x = 1", False), (VJP, True))
    assert rule_sources(stem) == {2: FORWARD, 4: VJP}


# --- source lines --------------------------------------------------------------------------------


def test_a_failing_rule_shows_its_own_line(lecture):
    rules = taught(lecture((IMPORTS, False), (FORWARD, True), (VJP, True)))
    with pytest.raises(IndexError) as caught:
        rules.double_vjp(np.ones(2), None, None)
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (frame.filename, frame.lineno) == ("lectures/10-double.ipynb, cell 3", 2)
    assert frame.line == "wrong = dy[99]"


def test_the_source_of_a_rule_can_be_read(lecture):
    rules = taught(lecture((IMPORTS, False), (FORWARD + "\n\n\n" + VJP, True)))
    assert inspect.getsource(rules.double) == FORWARD + "\n"
    assert inspect.getsource(rules.double_vjp).rstrip() == VJP
    assert inspect.getdoc(rules.double) == "Twice x."


def test_the_source_is_still_there_after_the_cache_of_lines_was_checked(lecture):
    rules = taught(lecture((IMPORTS, False), (FORWARD, True)))
    linecache.checkcache()
    assert inspect.getsource(rules.double).rstrip() == FORWARD


# --- what is missing -----------------------------------------------------------------------------


def test_an_unknown_lecture_names_the_nearest(lecture):
    for stem in ("10-double", "21-elementwise", "51-softmax"):
        lecture((FORWARD, True), stem=stem)
    with pytest.raises(LookupError, match=r"There is no lecture '51-sotfmax'\. Nearest: 51-softmax"):
        taught("51-sotfmax")


def test_a_lecture_like_no_other_names_some_all_the_same(lecture):
    lecture((FORWARD, True))
    with pytest.raises(LookupError, match=r"There is no lecture 'zzzz'\. Nearest: 10-double\."):
        taught("zzzz")


def test_a_missing_folder_of_lectures_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(byhand.taught, "LECTURES", tmp_path / "absent")
    with pytest.raises(LookupError, match=r"There are no lectures at .*absent\. Install byhand"):
        taught("10-absent")


def test_a_lecture_without_rules_is_told(lecture):
    with pytest.raises(LookupError, match=r"10-double\.ipynb teaches no rule: none of its cells is tagged `rule`"):
        taught(lecture((IMPORTS, False), (FORWARD, False)))


def test_a_lecture_that_was_missing_is_found_once_it_is_there(lecture):
    with pytest.raises(LookupError):
        taught("10-double")
    assert taught(lecture((IMPORTS, False), (FORWARD, True))).double(1) == 2


# --- the real lecture ----------------------------------------------------------------------------


def test_61_teaches_its_rules():
    rules = taught("61-two-layer")
    assert public(rules) == {"np", "two_layer", "two_layer_jacobians", "two_layer_vjp"}
    x, t = np.array([4.0, 1.0]), np.array([0.0, 1.0])
    W0, W1 = np.array([[1.0, -2.0], [2.0, 5.0]]), np.array([[3.0, -3.0], [-1.0, 1.0]])
    values = rules.two_layer(x, W0, W1, t)
    assert values[-1] == 36
    dx, dW0, dW1, dt = rules.two_layer_vjp(1.0, values, x, W0, W1, t)
    assert [g.shape for g in (dx, dW0, dW1)] == [x.shape, W0.shape, W1.shape] and dt is None


def test_61_does_not_need_torch():
    code = "import sys; from byhand.taught import taught; taught('61-two-layer'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "free"),
    [
        ("y = x", {"x"}),
        ("x = 1\ny = x", set()),
        ("print(len([]))", set()),
        ("def f(x): return x + b", {"b"}),
        ("def f(x):\n    b = 1\n    return x + b", set()),
        ("def f(x):\n    def g(): return x\n    return g", set()),
        ("def f(x):\n    def g(): return c\n    return g", {"c"}),
        ("y = [i * s for i in range(3)]", {"s"}),
        ("f = lambda x: x @ W", {"W"}),
        ("class A(Base):\n    k = 1\n    m = k + n", {"Base", "n"}),
        ("def f(x, k=d): return x", {"d"}),
        ("@decorated\ndef f(): pass", {"decorated"}),
        ("import numpy as np\ny = np.ones(3)", set()),
        ("from a.b import c as d\ny = d + c", {"c"}),
        ("a.b.c = 1", {"a"}),
        ("for i in xs: pass", {"xs"}),
        ("with f() as g: g", {"f"}),
        ("def f(n): return f(n - 1)", set()),
    ],
)
def test_free_names_are_what_a_cell_needs_from_others(source, free):
    assert free_names(source) == free


def test_defined_names_are_those_of_the_top_level():
    source = "import a.b, c as d\nx, (y, *z) = 1, (2, 3)\ndef f(u): v = 1\nclass G: w = 1\nfor i in x: pass"
    assert defined_names(source) == {"a", "d", "x", "y", "z", "f", "G", "i"}
