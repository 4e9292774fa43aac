"""Grading: the promise of byhand/grading, kept against hostile and broken submissions."""

import contextlib
import dataclasses
import json
import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from attacks.notebooks import answer, honest, load, mark, questions
from attacks.table import ATTACKS, MARKER, QUESTION, RIGHT, STEM, TARGET, WRONG, written

from byhand.grading import judge, sandbox
from byhand.grading.judge import grade_one
from byhand.grading.sandbox import Limits, SandboxError, is_available
from byhand.grading.submission import Submission, find_submissions
from byhand.notebooks import ROOT, NotebookError

STEMS = sorted(path.stem for path in (ROOT / "exercises").glob("*.ipynb"))
LIMITS = Limits(
    call_seconds=1, cell_seconds=2, total_seconds=60, memory=1 << 30, processes=32, output=1 << 20, files=8 << 20
)
EXERCISES = ROOT / "exercises"

each_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


@pytest.fixture(autouse=True, scope="module")
def bubblewrap():
    assert is_available() is None, is_available()


def graded(path, stem=STEM, seed=1, release=None, **options):
    options = {"limits": LIMITS} | options
    return grade_one(Submission("ann", stem, path, release or EXERCISES / f"{stem}.ipynb"), seed, **options)


def by_question(results):
    return {result.question: result for result in results}


def sleepers():
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [path] if MARKER.encode() in path.read_bytes() else []
    return found


@contextlib.contextmanager
def listening(folder):
    """A server that an escape would reach; its number is filled in where the attack says PORT."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        port = server.getsockname()[1]
        abstract.bind(f"\0byhand-{port}")
        abstract.listen()
        # Somebody else's process, with a secret in the environment that it was started with.
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, env={"BYHAND_TEST": "SECRET"}):
            yield lambda path: aimed(path, PORT=str(port), FOLDER=str(folder))


def aimed(path, **words):
    if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20:
        content = path.read_bytes()
        for word, value in words.items():
            content = content.replace(word.encode(), value.encode())
        path.write_bytes(content)
    return path


# --- attacks -------------------------------------------------------------------------------------


@each_attack
def test_an_attack_gets_what_it_deserves(attack, tmp_path, monkeypatch):
    monkeypatch.setenv("BYHAND_TEST", "SECRET")
    limits = dataclasses.replace(LIMITS, cell_seconds=20) if attack.patient else LIMITS
    with listening(tmp_path) as aim:
        results = graded(aim(attack.make(tmp_path)), limits=limits)
    assert [result.question for result in results] == list(questions(STEM))
    for result in results:
        expected = attack.status if result.question == QUESTION else (attack.others,)
        if result.question == f"{STEM}-24":
            expected = ("unreadable",) if attack.others == "unreadable" else ("manual",)
        assert result.status in expected, (result.status, result.reason)
        right, manual = result.status == "right", result.status == "manual"
        assert result.points == (None if manual else result.maximum if right else 0)
        assert result.maximum == questions(STEM)[result.question]
        assert right or manual or result.reason
        assert len(result.reason) < 2500 and len(result.reason.splitlines()) < 20
        json.dumps(result.__dict__).encode()
        (result.reason + result.answer).encode("utf-8")
    assert attack.says in by_question(results)[QUESTION].reason
    assert not sleepers()
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a.unsafe], ids=lambda attack: attack.name)
def test_an_escape_would_succeed_without_the_sandbox(attack, tmp_path, monkeypatch):
    monkeypatch.setenv("BYHAND_TEST", "SECRET")
    with listening(tmp_path) as aim:
        results = graded(aim(attack.make(tmp_path)), unsafe=True)
    assert by_question(results)[QUESTION].status == "right"
    assert all(result.unsafe for result in results)


def test_there_are_enough_attacks_and_none_twice():
    names = [attack.name for attack in ATTACKS]
    assert len(names) == len(set(names)) >= 40


# --- verdicts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", STEMS)
def test_reference_solutions_get_full_marks(stem, tmp_path):
    path = tmp_path / f"{stem}.ipynb"
    path.write_text(json.dumps(honest(stem)))
    for seed in range(2):  # tests/test_seeds.py takes many, without a sandbox
        for result in graded(path, stem, seed, limits=Limits()):
            is_written = result.question.startswith(stem)
            assert (result.status, result.points) == (("manual", None) if is_written else ("right", result.maximum)), (
                result
            )


@pytest.mark.parametrize("stem", STEMS)
def test_blank_exercises_get_nothing(stem):
    results = graded(EXERCISES / f"{stem}.ipynb", stem)
    assert {(result.status, result.points) for result in results} == {("unanswered", 0)}
    assert [result.question for result in results] == list(questions(stem))


@pytest.mark.parametrize("stem", STEMS)
def test_nothing_handed_in_is_a_row_a_question(stem):
    results = graded(None, stem)
    assert [(result.question, result.maximum) for result in results] == list(questions(stem).items())
    assert {(result.status, result.points) for result in results} == {("missing", 0)}


def with_answers(folder, release=None, **sources):
    notebook = honest(STEM) if release is None else json.loads(release.read_text())
    for grade_id, source in sources.items():
        answer(notebook, grade_id)["source"] = source
    return written(notebook, folder)


VJP = "def biased_two_layer_vjp(dL, values, x, W0, b, W1, t):\n    "
HONEST_WRONG = {
    "transposed": {TARGET: RIGHT.replace("W0.T", "W0")},
    "column form": {TARGET: RIGHT.replace("np.kron(x, np.eye(b.size))", "np.kron(np.eye(b.size), x)")},
    "pencil": {"dz": "dz = np.array([-1.0, 2.0, -1.0])\ndh = np.array([-2.0, 0.0, 4.0, 0.0])"},
    "half a pencil": {"dz": "dz = np.array([1.0, -2.0, 1.0])\ndh = ..."},
    "raises": {"biased_two_layer_vjp": VJP + "return 1 / 0"},
    "too few": {"biased_two_layer_vjp": VJP + "return x, W0"},
    "in place": {TARGET: RIGHT.replace("return", "x *= 2\n    return")},
    "still a stub": {TARGET: "def hidden_jacobians(x, W0, b):\n    raise NotImplementedError"},
    "not implemented later": {TARGET: WRONG.replace("return", "if x.size: raise NotImplementedError\n    return")},
    "a syntax error": {TARGET: "def hidden_jacobians(:"},
}


# Attacks that fake nothing. Left out are those that could harm the machine without a sandbox (floods,
# memory, forks, signals, files), and those that only a grader can put right: cells that were moved,
# doubled or deleted, checks that were rewritten, and a kernel ended by another cell than the answer's.
ALSO_AT_HOME = """object arrays; booleans; nan everywhere; inputs set to zero; nothing returned; too few returned;
a generator; text; a loop; a loop in the cell; many slow calls; a huge array; an array of many axes;
an empty array that is wide; a list that holds itself; a deep list; an integer without end; text without end;
endless recursion; an error with a huge text; an error that cannot be shown; sys.exit; os._exit; os._exit in the cell;
os.abort in the cell; a segmentation fault; a thread that ends the process later; an empty file; no JSON;
half a notebook; a list; a number; cells that are none; cells without a source; nbformat 3; a directory; no such file;
an answer deleted; an answer made Markdown; cell ids lost; schema_version 99; a NUL byte; a syntax error;
IPython's magics; a figure; a chatty answer; a helper in a cell of its own; an endless cell of its own;
a rule taken from a lecture"""
AT_HOME = {
    "passed": {"right"},
    "skipped": {"unanswered"},
    "failure": {"wrong", "error", "timeout", "died", "missing"},
    "unreadable": {"unreadable"},
}


def at_home(paths, folder):
    """{path: {grade_id: (what pytest says of its check, in which words)}} as a student sees it."""
    options = ["-o", "addopts=", "--nbval-current-env", "--nbval-cell-timeout=2", "-p", "no:cacheprovider"]
    options += ["-n2", "--dist", "loadfile", "-p", "conftest", "--continue-on-collection-errors"]
    options += ["--rootdir", folder, "-c", ROOT / "pyproject.toml", f"--junitxml={folder / 'junit.xml'}"]
    command = [sys.executable, "-m", "pytest", *options, folder / "exercises"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, timeout=300)
    items = {}
    for case in ElementTree.parse(folder / "junit.xml").iter("testcase"):
        words = "".join(child.get("message", "") + (child.text or "") for child in case)
        tag = next((child.tag for child in case if child.tag in AT_HOME), "passed")
        items[case.get("classname").removesuffix(".ipynb").split(".")[-1], case.get("name")] = tag, words
    return {path: checks_among(items, path) for path in paths}


def checks_among(items, path):
    try:
        notebook = json.loads(path.read_text())
        cells = [found for found in notebook["cells"] if found["cell_type"] == "code"]
        names = {mark(found).get("grade_id"): f"Cell {number}" for number, found in enumerate(cells)}
    except (OSError, ValueError, KeyError, TypeError):
        names = {}
    told = {name: items.get((path.stem, place)) for name, place in names.items()}
    passed = [place for (stem, place), (tag, _) in items.items() if stem == path.stem and tag == "passed"]
    return {name: told.get(name) or ("passed" if passed else "unreadable", "") for name in list(questions(STEM))[:3]}


def test_the_grader_agrees_with_pytest(tmp_path):
    """The same verdicts where a student runs `pytest` on the exercise, and the same words."""
    folder = tmp_path / "exercises"
    folder.mkdir()
    whole = [with_answers(folder, **HONEST_WRONG[name]).rename(folder / f"{name}.ipynb") for name in HONEST_WRONG]
    chosen = {name.strip() for name in ALSO_AT_HOME.split(";")}
    attacks = [attack for attack in ATTACKS if attack.name in chosen]
    assert len(attacks) == len(chosen)
    paths = list(whole)
    for number, attack in enumerate(attacks):
        paths.append(folder / f"attack{number}.ipynb")
        made = attack.make(folder)
        if made.exists():
            made.rename(paths[-1])
    names = [path.stem for path in whole] + [attack.name for attack in attacks]
    told = at_home(paths, tmp_path)
    for name, path in zip(names, paths, strict=True):
        results = by_question(graded(path))
        for question in told[path] if path in whole else [QUESTION]:
            (tag, words), result = told[path][question], results[question]
            assert result.status in AT_HOME[tag], (name, tag, words, result)
            if result.status == "wrong":
                assert result.reason.splitlines()[0] in words, name


def test_a_known_mistake_is_named(tmp_path):
    results = graded(with_answers(tmp_path, **HONEST_WRONG["column form"]))
    assert "A common mistake gives these very numbers: I ⊗ x^T belongs to the column form" in results[1].reason


EVERY_PATH = """def backward_order(inputs, root):
    order, waiting = [], [root]
    while waiting:
        k = waiting.pop()
        order = [j for j in order if j != k] + [k]
        waiting.extend(inputs[k])
    return np.array(order)"""


def test_a_known_mistake_is_named_where_the_check_hands_out_a_given_class(tmp_path):
    stem, question = "63-engine", "backward_order_of_graphs_in_lists"
    path, mark = with_answers(tmp_path, EXERCISES / f"{stem}.ipynb", backward_order=EVERY_PATH), tmp_path / "ran"
    notebook = json.loads(path.read_text())
    (counted,) = [cell for cell in notebook["cells"] if cell["id"] == "63-engine-counted"]
    counted["source"] = [*counted["source"], f"\n\nopen({str(mark)!r}, 'w').close()"]  # a given cell, changed
    path.write_text(json.dumps(notebook))
    result = by_question(graded(path, stem=stem))[question]
    assert not mark.exists()
    assert "After the call backward_order(Counted," in result.reason
    assert "A common mistake fails in this very way: a value moves to the end at each visit" in result.reason


def test_results_depend_on_the_seed_alone(tmp_path):
    path = with_answers(tmp_path, **{TARGET: RIGHT.replace("W0.T", "W0.T + 1e-3 * x.sum()")})
    first, again, other = (graded(path, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first[1].reason != other[1].reason


# --- an instructor's own release -----------------------------------------------------------------


def release_with(tmp_path, *cells, hidden=""):
    """A release of exercise 61 whose check of the target has hidden tests, and that ends in more cells."""
    notebook = load("exercises", STEM)
    if hidden:
        region = f"    ### BEGIN HIDDEN TESTS\n    {hidden}\n    ### END HIDDEN TESTS"
        found = answer(notebook, QUESTION)
        found["source"] = "".join(found["source"]) + "\n" + region
    for number, (source, marks, tags) in enumerate(cells):
        metadata = ({"nbgrader": marks} if marks else {}) | ({"tags": tags} if tags else {})
        cell = {"cell_type": "code", "id": f"new-{number}", "metadata": metadata, "source": source}
        notebook["cells"].append(cell | {"outputs": [], "execution_count": None})
    folder = tmp_path / "release"
    folder.mkdir(exist_ok=True)
    return written(notebook, folder)


def is_answer(name):
    return {"grade_id": name, "solution": True, "grade": False, "schema_version": 3}


def is_check(name):
    return {"grade_id": name, "solution": False, "grade": True, "points": 4, "schema_version": 3}


def test_hidden_tests_count_and_stay_hidden(tmp_path):
    secret = "same(secret=(hidden_jacobians(x[:1], W0[:1], b)[0].sum() + 1234.5, 1.0))"
    results = graded(with_answers(tmp_path), release=release_with(tmp_path, hidden=secret))
    assert (results[1].status, results[1].points) == ("wrong", 0)
    assert "1234.5" not in results[1].reason and "HIDDEN" not in results[1].reason
    assert [result.status for result in results] == ["right", "wrong", "right", "manual"]


def test_a_hidden_assert_counts(tmp_path):
    secret = "assert hidden_jacobians(x, W0, b)[0].size == 1234, 'secret'"
    result = graded(with_answers(tmp_path), release=release_with(tmp_path, hidden=secret))[1]
    assert result.status == "wrong" and "secret" not in result.reason and "1234" not in result.reason


@pytest.mark.parametrize("bug", ["undefined_name", "same(a=(x, 0 * x))", "import nothing_like_this", "same()"])
def test_a_bug_in_a_check_is_no_mistake_of_the_student(bug, tmp_path):
    results = graded(with_answers(tmp_path), release=release_with(tmp_path, hidden=bug))
    assert [result.status for result in results] == ["right", "ungraded", "right", "manual"]
    assert results[1].points is None


NODE = "class Node:\n    def __init__(self, value):\n        self.value = value"
NODE += "\n    def double(self):\n        return Node(2 * self.value)"
TOTAL = "def total(nodes, out):\n    out += sum(n.value for n in nodes)\n    return [n.double() for n in nodes]"
TOTAL_CHECK = """@check(points=4, inplace=True)
def total_adds_in_place(rng):
    out, values = np.zeros(3), rng.normal(size=(2, 3))
    nodes = [Node(value) for value in values]
    doubled = total(nodes, out)
    same(out=(out, values.sum(0)), second=(doubled[1].value, 2 * values[1]))
    same(again=(doubled[0].double().value, 4 * values[0]))
    assert hasattr(nodes[0], "double") and not hasattr(nodes[0], "triple")
"""


def test_given_classes_live_with_the_student_and_are_reached_by_handle(tmp_path):
    cells = [
        (NODE, None, ["student-side"]),
        ("def total(nodes, out):\n    raise NotImplementedError", is_answer("total"), None),
        (TOTAL_CHECK, is_check("total_adds_in_place"), None),
    ]
    release = release_with(tmp_path, *cells)
    for source, status in {
        TOTAL: "right",
        TOTAL.replace("+=", "= out +"): "wrong",
        TOTAL.replace("n.double()", "n"): "wrong",
        TOTAL.replace("n.double()", "n.triple()"): "error",
        cells[1][0]: "unanswered",
    }.items():
        result = graded(with_answers(tmp_path, release, total=source), release=release)[-1]
        assert (result.question, result.status) == ("total_adds_in_place", status), result.reason


def test_an_answer_that_is_a_class(tmp_path):
    check = (
        "@check(points=4)\ndef leaf_doubles(rng):\n    v = rng.normal()\n    same(a=(Leaf(v).double().value, 2 * v))"
    )
    stub = "class Leaf:\n    def double(self):\n        raise NotImplementedError"
    release = release_with(tmp_path, (stub, is_answer("Leaf"), None), (check, is_check("leaf_doubles"), None))
    for source, status in {NODE.replace("Node", "Leaf"): "right", "Leaf = ...": "unanswered", "pass": "error"}.items():
        assert graded(with_answers(tmp_path, release, Leaf=source), release=release)[-1].status == status


# --- the sandbox ---------------------------------------------------------------------------------


def test_without_bubblewrap_there_is_no_grading(tmp_path, monkeypatch):
    monkeypatch.setattr(judge, "is_available", lambda: "There is no bubblewrap.")
    with pytest.raises(SandboxError, match="no bubblewrap"):
        graded(with_answers(tmp_path))
    assert {result.unsafe for result in graded(with_answers(tmp_path), unsafe=True)} == {True}


def test_the_reason_names_bubblewrap(monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    assert "install" in sandbox.is_available.__wrapped__()


def test_a_sandbox_that_does_not_start_leaves_questions_ungraded(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "PACKAGES", "/nowhere")
    monkeypatch.setattr(sandbox, "_packages", lambda: {})
    results = graded(with_answers(tmp_path))
    assert [result.status for result in results] == ["ungraded"] * 3 + ["manual"]


def test_limits_hold_without_control_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "CGROUPS", tmp_path / "none")
    bomb = "def hidden_jacobians(x, W0, b):\n    return np.ones(1 << 28)"
    results = graded(with_answers(tmp_path, **{TARGET: bomb}))
    assert [result.status for result in results] == ["right", "died", "right", "manual"]


def test_nothing_is_left_of_a_grading(tmp_path):
    graded(with_answers(tmp_path, **{TARGET: f"import os\nos.fork() or os.execvp('sleep', ['sleep', '{MARKER}'])"}))
    assert not sleepers()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/byhand-{os.getpid()}-*"))


def test_a_grading_that_is_killed_takes_its_sandbox_along(tmp_path):
    source = f"import os\nos.execvp('sleep', ['sleep', '{MARKER}'])"
    path = with_answers(tmp_path, **{TARGET: source})
    code = (
        "import sys; from pathlib import Path; from byhand.grading.judge import grade_one; "
        "from byhand.grading.submission import Submission; "
        f"grade_one(Submission('a', {STEM!r}, Path({str(path)!r}), Path({str(EXERCISES / (STEM + '.ipynb'))!r})), 1)"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        for _ in range(200):
            if sleepers():
                break
            time.sleep(0.1)
        assert sleepers()
        process.kill()
    for _ in range(50):
        if not sleepers():
            break
        time.sleep(0.1)
    assert not sleepers()


# --- finding submissions -------------------------------------------------------------------------


def hand_in(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(honest(STEM)))


def found(source, **options):
    return {(s.student, s.stem): s.path for s in find_submissions(source, EXERCISES, **options)}


def test_submissions_in_folders_and_flat(tmp_path):
    hand_in(tmp_path, f"ann/{STEM}.ipynb", f"bob_{STEM}.ipynb", "cid/notes.ipynb", f".hidden/{STEM}.ipynb")
    os.symlink(tmp_path / "ann", tmp_path / "dan")
    (tmp_path / f"eve_{STEM}.ipynb").mkdir()
    os.mkfifo(tmp_path / f"flo_{STEM}.ipynb")
    expected = {("ann", STEM): tmp_path / "ann" / f"{STEM}.ipynb", ("cid", STEM): None, ("dan", STEM): None}
    flat = {(name, STEM): tmp_path / f"{name}_{STEM}.ipynb" for name in ("bob", "eve", "flo")}
    assert found(tmp_path) == expected | flat


def test_one_file_is_a_submission(tmp_path):
    hand_in(tmp_path, f"ann/{STEM}.ipynb", f"bob_smith_{STEM}.ipynb")
    assert list(found(tmp_path / "ann" / f"{STEM}.ipynb")) == [("ann", STEM)]
    assert list(found(tmp_path / f"bob_smith_{STEM}.ipynb")) == [("bob_smith", STEM)]


def test_a_roster_gives_everyone_a_row(tmp_path):
    hand_in(tmp_path / "in", f"ann/{STEM}.ipynb", f"guest/{STEM}.ipynb")
    roster = tmp_path / "roster.csv"
    roster.write_text("student,group\nann,1\nzoe,2\n\n", encoding="utf-8-sig")
    rows = found(tmp_path / "in", roster=roster)
    assert {student for student, _ in rows} == {"ann", "guest", "zoe"} and rows["zoe", STEM] is None
    assert set(found(tmp_path / "in", roster=roster, exercise="51-softmax").values()) == {None}


@pytest.mark.parametrize(
    ("options", "words"),
    [({}, "no submissions"), ({"exercise": "99-none"}, "99-none"), ({"roster": "no.csv"}, "roster")],
)
def test_nothing_to_grade_is_said(options, words, tmp_path):
    with pytest.raises(NotebookError, match=words):
        found(tmp_path, **options)
    with pytest.raises(NotebookError, match="no such"):
        found(tmp_path / "none")


def test_submissions_and_results_travel_between_processes(tmp_path):
    submission = Submission("ann", STEM, None, EXERCISES / f"{STEM}.ipynb")
    assert pickle.loads(pickle.dumps(submission)) == submission
    assert dataclasses.is_dataclass(pickle.loads(pickle.dumps(graded(None)))[0])


def test_a_solution_in_place_of_a_release_is_refused():
    solution = ROOT / "solutions/61-two-layer.ipynb"
    with pytest.raises(NotebookError, match="holds answers"):
        grade_one(Submission("ann", "61-two-layer", None, solution), seed=1)
