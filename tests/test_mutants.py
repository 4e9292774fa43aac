"""The mutator and its script: each operator, what counts as noticed, and the list of equivalents."""

import os
import subprocess
import sys
from pathlib import Path

import mutations
import nbformat
import pytest
from mutants import EQUIVALENTS, Broken, Unsound, equivalents, judge, main
from mutations import mutants

from byhand import notebooks

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="mutants need os.fork"),
    # The workers of xdist have threads; what is forked here uses none of theirs.
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]

# --- operators -----------------------------------------------------------------------------------

BY_OPERATOR = {
    "other_operation": {
        "y = a + b": ["y = a - b"],
        "y = a * b": ["y = a / b"],
        "y = a < b": ["y = a <= b"],
        "y = a >= b": ["y = a > b"],
        "y -= b": ["y += b"],
        "y = a == b and c": ["y = a == b or c", "y = a != b and c"],
    },
    "other_name": {
        "y = np.sum(a)": ["y = np.mean(a)"],
        "y = a.max()": ["y = a.min()"],
        "y = min(a, b)": ["y = max(a, b)"],
        "y = sum(a)": [],
    },
    "other_order": {
        "y = a @ b": ["y = b @ a"],
        "y = np.kron(a, b)": ["y = np.kron(b, a)"],
        "y = np.where(c, a, b)": ["y = np.where(c, b, a)"],
    },
    "other_axis": {
        "y = np.sum(a, axis=1)": ["y = np.sum(a)", "y = np.sum(a, axis=0)"],
        "y = np.sum(a, 0)": ["y = np.sum(a)", "y = np.sum(a, 1)"],
        "y = a.sum(-1)": ["y = a.sum()", "y = a.sum(0)"],
        "y = a.sum(axis=k)": ["y = a.sum()", "y = a.sum(axis=0)", "y = a.sum(axis=-1)"],
        "y = a.sum((0, 1))": ["y = a.sum()", "y = a.sum((1,))", "y = a.sum((0,))"],
        "def f(a, *, axis=-1): pass": ["def f(a, *, axis=0):"],
        "def f(a, axis=-1, b=2): pass": ["def f(a, axis=0, b=2):"],
    },
    "other_constant": {
        "y = 1": ["y = 2"],
        "y = 0.5": ["y = 1.5"],
        "y = True": ["y = False"],
        "y = 'mean'": [],
        "y = a.sum(axis=1, keepdims=True)": [],
    },
    "other_result": {
        "def f(a, b, *, axis): return g(a)": ["return 0 * g(a)", "return a", "return b"],
        "def f(a, b): return (g(a), b, None)": [
            "return (0 * g(a), b, None)",
            "return (g(a), 0 * b, None)",
            "return (b, g(a), None)",
            "return (g(a), None, b)",
        ],
        "def f(a): return None": [],
    },
    "without_transpose": {
        "y = a.T": ["y = a"],
        "y = np.swapaxes(a, 0, 1)": ["y = a"],
        "y = a.transpose(1, 0)": ["y = a"],
    },
    "without_keepdims": {"y = a.sum(axis=1, keepdims=True)": ["y = a.sum(axis=1)"]},
    "without_new_axis": {"y = a[:, None]": ["y = a"], "y = a[0]": [], "y = np.expand_dims(a, 0)": ["y = a"]},
    "without_factor": {
        "y = a * b": ["y = a", "y = b"],
        "y = a @ b": ["y = a", "y = b"],
        "y = a / b": ["y = a", "y = 1 / b"],
        "y = a ** 2": ["y = a"],
    },
    "without_term": {"y = a + b": ["y = a", "y = b"], "y = a - b": ["y = a", "y = -b"], "y += a": ["y = a"]},
    "without_sign": {"y = -a": ["y = a"], "y = ~a": ["y = a"], "y = a[-1]": ["y = a[1]"]},
    "without_function": {"y = np.exp(a)": ["y = a"], "y = a.sum(axis=0)": ["y = a"], "y = np.diag(a)": []},
    "without_choice": {
        "y = a if c else b": ["y = a if True else b", "y = a if False else b"],
        "if c: y = a": ["if True:", "if False:"],
        "y = np.where(c, a, b)": ["y = a", "y = b"],
    },
    "without_statement": {
        "a[c] = 0": ["pass"],
        "a.b = 0": ["pass"],
        "a += b": ["pass"],
        "g(a)": ["pass"],
        "a = b": [],
        "'text'": [],
    },
}


def test_every_operator_is_tested_here():
    assert [operator.__name__ for operator in mutations.OPERATORS] == list(BY_OPERATOR)


@pytest.mark.parametrize("operator", mutations.OPERATORS, ids=lambda operator: operator.__name__)
def test_operator_makes_these_mutants(operator, monkeypatch):
    monkeypatch.setattr(mutations, "OPERATORS", [operator])
    for source, expected in BY_OPERATOR[operator.__name__].items():
        assert [mutant.mutant for mutant in mutants(source)] == expected, source


SOFTMAX = '''
@decorated(1 + 1)
def softmax(x: array[1 + 1], axis: int = -1) -> array[1 + 1]:
    """Not to be changed: 1 + 1."""
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)
'''


def test_mutants_are_the_same_each_time_differ_and_compile():
    first = list(mutants(SOFTMAX))
    assert first == list(mutants(SOFTMAX))
    sources = [mutant.source for mutant in first]
    assert len(sources) == len(set(sources)) > 15
    for source in sources:
        compile(source, "mutant", "exec")
    assert all(mutant.name == "softmax" for mutant in first)
    assert all(mutant.line != mutant.mutant for mutant in first)


def test_what_two_operators_make_counts_once():
    assert [m.mutant for m in mutants("y = a * a")] == ["y = a", "y = a / a"]


def test_docstrings_annotations_and_decorators_are_left_alone():
    for mutant in mutants(SOFTMAX):
        assert mutant.source.count("1 + 1") == 4


def test_only_statements_that_begin_on_the_lines_are_changed():
    assert [m.mutant for m in mutants("a = 1\nb = 1\nc = 1", lines={2})] == ["b = 2"]
    assert not list(mutants(SOFTMAX, lines={2, 3, 4}))[1:], "but for the default of axis, on line 3"


def test_what_does_not_compile_is_no_mutant():
    assert [m.mutant for m in mutants("g(x)[None] = y")] == ["pass"]


def test_names_are_those_of_functions_methods_and_variables():
    source = "a = 1\ndef f():\n    b = 1\nclass C:\n    def g(self):\n        c = 1"
    assert [m.name for m in mutants(source)] == ["a", "f", "C.g"]


# --- notebooks -----------------------------------------------------------------------------------

RULE = "def weighted(a, b):\n    return a - b * 2"
STRICT = """import os
print("this must not be seen")
if weighted(5, 4) != -3:
    os.write(2, b"nor this")
assert weighted(5, 4) == -3"""
WEAK = "assert weighted(6, 3) == 0"  # so zero times the result is not noticed
ANSWER = '''def half(x):
    """Half of x, a number."""
    one = 1
    ### BEGIN SOLUTION
    return x / 2
    ### END SOLUTION'''
CHECK = """@check(points=1)
def half_is_right(rng):
    x = rng.normal()
    same(y=(half(x), x * 0.5))"""
IMPORTS = "from byhand.check import check, mistake, same"


def code(source, *tags):
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {})


def write(course, folder, *cells):
    (course / folder).mkdir(exist_ok=True)
    path = course / folder / "11-half.ipynb"
    notebooks.write(path, nbformat.v4.new_notebook(cells=list(cells)))
    return path


def write_list(course, *entries):
    (course / EQUIVALENTS).parent.mkdir(exist_ok=True)
    (course / EQUIVALENTS).write_text("\n".join(entries), encoding="utf-8")


def with_reason(broken):
    return str(broken).removesuffix('""') + '"Planted by this test."'


def test_lecture_that_notices_everything(tmp_path, capfd):
    verdict = judge(write(tmp_path, "lectures", code(RULE, "rule"), code(STRICT)), [])
    assert verdict.tried == len(list(mutants(RULE))) and not verdict.unlisted and not verdict.unsound
    assert capfd.readouterr() == ("", "")


def test_planted_survivor_is_found(tmp_path):
    verdict = judge(write(tmp_path, "lectures", code(RULE, "rule"), code(WEAK)), [])
    lines = [broken.mutant for broken in verdict.unlisted]
    assert lines == ["return 0 * (a - b * 2)"]
    assert str(verdict).split()[2:6] == [str(verdict.tried), str(verdict.tried - 1), "0", "1"]


def test_cells_without_the_tag_are_not_broken(tmp_path):
    verdict = judge(write(tmp_path, "lectures", code(RULE), code(WEAK)), [])
    assert verdict.tried == 0


def test_only_the_answer_is_broken_and_its_check_notices(tmp_path):
    wrong = "mistake(half_is_right, says='this cell would fail', half=half)"
    path = write(tmp_path, "solutions", code(IMPORTS), code(ANSWER), code(CHECK), code(wrong, "mistake"))
    verdict = judge(path, [])
    assert verdict.tried == len(list(mutants("def half(x): return x / 2"))) and not verdict.unlisted

    weak = CHECK.replace("(half(x), x * 0.5)", "(0 * half(x) + 1, 1)")
    path = write(tmp_path, "solutions", code(IMPORTS), code(ANSWER), code(weak))
    assert len(judge(path, []).unlisted) == verdict.tried


def test_mistakes_in_a_helper_are_noticed_by_the_checks_of_those_who_call_it(tmp_path):
    helper = "### BEGIN SOLUTION\ntwo = 2\n### END SOLUTION\nunused = 3"
    path = write(tmp_path, "solutions", code(IMPORTS), code(helper), code(ANSWER.replace("2", "two")), code(CHECK))
    verdict = judge(path, [])
    assert verdict.tried > 1 and not verdict.unlisted


def test_mutant_that_hangs_is_noticed(tmp_path):
    rule = "def countdown(n):\n    while n != 0:\n        n -= 1\n    return n"
    verdict = judge(write(tmp_path, "lectures", code(rule, "rule"), code("assert countdown(3) == 0")), [], timeout=0.3)
    assert verdict.seconds > 0.3
    assert "n += 1" not in [broken.mutant for broken in verdict.unlisted]


def test_mutant_that_exits_is_noticed_and_neither_comes_back_nor_leaks(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "byhand_left", 0, raising=False)
    rule = "import sys\ndef leave(n):\n    sys.byhand_left = n\n    return sys.exit() if n > 1 else n"
    path = write(tmp_path, "lectures", code(rule, "rule"), code("assert leave(1) == 1"))
    try:
        verdict = judge(path, [])
    finally:
        with (tmp_path / "returns").open("a") as file:
            file.write("one")
    assert (tmp_path / "returns").read_text() == "one"
    assert "return sys.exit() if n >= 1 else n" not in [broken.mutant for broken in verdict.unlisted]
    assert sys.byhand_left == 1


def test_notebook_that_fails_unbroken_is_not_judged(tmp_path):
    verdict = judge(write(tmp_path, "lectures", code(RULE, "rule"), code("1 / 0")), [])
    assert "code cell 2: fails unbroken: ZeroDivisionError" in verdict.unsound
    wrong = ANSWER.replace("x / 2", "x / 3")
    verdict = judge(write(tmp_path, "solutions", code(IMPORTS), code(wrong), code(CHECK)), [])
    assert "fails unbroken: Mismatch" in verdict.unsound


def test_notebook_that_fails_only_in_a_forked_process_is_not_judged(tmp_path):
    cells = [code("import os\nhere = os.getpid()"), code(RULE, "rule"), code("assert os.getpid() == here")]
    verdict = judge(write(tmp_path, "lectures", *cells), [])
    assert "code cell 2: fails unbroken, but only in a forked process" in verdict.unsound


# --- equivalents ---------------------------------------------------------------------------------

SURVIVOR = Broken("11-half", "lecture", "weighted", "return a - b * 2", "return 0 * (a - b * 2)")
NOTICED = Broken("11-half", "lecture", "weighted", "return a - b * 2", "return a")


def test_a_listed_survivor_counts_and_stale_entries_are_told(tmp_path):
    path = write(tmp_path, "lectures", code(RULE, "rule"), code(WEAK))
    other = Broken("11-half", "solution", "weighted", SURVIVOR.line, SURVIVOR.mutant)
    verdict = judge(path, [SURVIVOR, other])
    assert (verdict.listed, verdict.unlisted, verdict.stale) == (1, (), ())
    assert judge(path, [SURVIVOR, NOTICED]).stale == (NOTICED,)
    assert judge(path, [SURVIVOR, SURVIVOR]).stale == (SURVIVOR,)


def test_an_entry_is_read_as_it_was_printed(tmp_path):
    odd = Broken("11-half", "lecture", "f", "y = 'a' + \"b\\n\"", "y = 'a' - \"b\\n\"")
    write_list(tmp_path, with_reason(SURVIVOR), with_reason(odd))
    assert equivalents(tmp_path) == [SURVIVOR, odd]


def test_no_list_is_an_empty_list(tmp_path):
    assert equivalents(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (str(SURVIVOR), "entry 1: the reason is empty"),
        (str(SURVIVOR).replace('reason = ""', ""), "entry 1: needs exactly the texts unit, part"),
        (f'{SURVIVOR}\nline_number = "3"', "entry 1: needs exactly"),
        ("[[equivalent]", "equivalent_mutants.toml: "),
    ],
)
def test_malformed_lists_are_refused(tmp_path, text, words):
    write_list(tmp_path, text)
    with pytest.raises(Unsound, match=words):
        equivalents(tmp_path)


def test_the_courses_own_list_is_well_formed():
    equivalents()


# --- the script ----------------------------------------------------------------------------------


def script(course, *arguments):
    command = [sys.executable, Path(__file__).with_name("mutants.py"), "--course", course, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_script_fails_for_a_survivor_and_passes_once_it_is_listed(tmp_path):
    write(tmp_path, "lectures", code(RULE, "rule"), code(WEAK))
    write(tmp_path, "solutions", code(IMPORTS), code(ANSWER), code(CHECK))
    run = script(tmp_path)
    assert run.returncode == 1 and str(SURVIVOR) in run.stdout
    assert "1 survived unlisted" in run.stdout and run.stderr == ""

    write_list(tmp_path, with_reason(SURVIVOR))
    run = script(tmp_path, "11-half")
    assert run.returncode == 0 and "0 survived unlisted" in run.stdout
    assert {line.split()[1] for line in run.stdout.splitlines() if line.startswith("11-half")} == {
        "lecture",
        "solution",
    }


def test_script_refuses_what_it_does_not_know(tmp_path, capsys):
    write(tmp_path, "lectures", code(RULE, "rule"), code(STRICT))
    with pytest.raises(SystemExit, match="2"):
        main(["12-third", "--course", str(tmp_path)])
    assert "there is no unit 12-third" in capsys.readouterr().err
    write_list(tmp_path, with_reason(SURVIVOR).replace("lecture", "solution"))
    with pytest.raises(SystemExit, match="2"):
        main(["--course", str(tmp_path)])
    assert "there is no solution 11-half" in capsys.readouterr().err
