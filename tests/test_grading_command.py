"""`byhand grade`, the pytest plugin and hidden tests: every row is there, once, whatever dies on the way."""

import csv
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import nbformat
import pytest
from typer.testing import CliRunner

from byhand import cli, notebooks
from byhand.grading import command, reports, sandbox
from byhand.grading.command import GradingError
from byhand.grading.results import Result
from byhand.grading.submission import Submission
from byhand.notebooks import NotebookError

EXERCISE = notebooks.ROOT / "exercises" / "61-two-layer.ipynb"
SOLUTION = notebooks.ROOT / "solutions" / "61-two-layer.ipynb"
QUESTIONS = 4
needs_sandbox = pytest.mark.skipif(bool(sandbox.is_available()), reason="there is no bubblewrap here")


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def submissions(*students):
    return [Submission(student, "61-two-layer", None, EXERCISE) for student in students]


def fake_grade(submission, folder, *_):
    """What a student's name says: die each time, die once, fail, or be graded."""
    if submission.student.startswith("once"):
        mark = Path(folder, submission.student)
        if not mark.exists():
            mark.touch()
            os._exit(1)
    if submission.student.startswith("dies"):
        os._exit(1)
    if submission.student.startswith("fails"):
        raise OSError("no space left")
    time.sleep(0.01)
    return [Result(submission.student, submission.stem, "only", 1.0, 1.0, "right")]


def pools():
    return ProcessPoolExecutor(2)


# --- many at a time ------------------------------------------------------------------------------


def graded(students, tmp_path, open_executor=pools, width=2):
    results = command.grade_all(submissions(*students), width, open_executor, (str(tmp_path),), fake_grade)
    return [(result.student, result.status) for result in results]


def test_results_come_in_order(tmp_path):
    students = [f"s{n}" for n in range(9)]
    assert graded(students, tmp_path) == [(student, "right") for student in students]


def test_a_worker_that_dies_takes_nobody_with_it(tmp_path):
    students = ["a", "dies-1", "b", "once-1", "c", "dies-2", "d", "once-2", *"efgh"]
    found = dict(graded(students, tmp_path))
    assert list(found) == students
    assert {student for student, status in found.items() if status == "ungraded"} == {"dies-1", "dies-2"}


def test_only_those_under_way_are_tried_alone(tmp_path):
    opened = []

    def open_executor():
        opened.append(pools())
        return opened[-1]

    students = ["a", "dies", *"bcdefghijklmnop"]
    assert len(graded(students, tmp_path, open_executor)) == len(students) - 1 + QUESTIONS
    assert len(opened) <= 4


def test_rows_of_a_lost_submission_are_all_there_and_say_why(tmp_path):
    results = command.grade_all(submissions("fails"), 2, pools, (str(tmp_path),), fake_grade)
    assert [result.status for result in results] == ["ungraded"] * QUESTIONS
    assert [result.maximum for result in results] == [1, 2, 3, 2]
    assert all("no space left" in result.reason for result in results)


def test_a_release_that_cannot_be_read_still_gives_a_row(tmp_path):
    nothing = Submission("fails", "61-two-layer", None, tmp_path / "none.ipynb")
    results = command.grade_all([nothing], 2, pools, (str(tmp_path),), fake_grade)
    assert [(result.question, result.status) for result in results] == [("(all)", "ungraded")]


def test_no_more_than_width_are_under_way(tmp_path):
    running, most, lock = 0, 0, threading.Lock()

    def grade(submission):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return fake_grade(submission, tmp_path)

    results = command.grade_all(submissions(*"abcdefgh"), 3, partial(ThreadPoolExecutor, 8), (), grade)
    assert len(results) == 8
    assert most <= 3


# --- the command ---------------------------------------------------------------------------------


def by_name(submission, seed, limits, unsafe):
    """A grader that reads the points from the student's name, as in ann-2."""
    points = float(submission.student.rpartition("-")[2])
    student, stem = submission.student, submission.stem
    return [
        Result(student, stem, "vjp", 3.0, points, "right" if points == 3 else "wrong", "said so", "answer", unsafe),
        Result(student, stem, "essay", 2.0, None, "manual", "", "Because.", unsafe),
    ]


@pytest.fixture
def grade(tmp_path, monkeypatch):
    """grade(*arguments) runs `byhand grade` with a grader that needs no sandbox; returns typer's result."""

    @contextmanager
    def workers(count, *_):
        yield count, partial(ThreadPoolExecutor, count)

    monkeypatch.setattr(command, "_workers", workers)
    monkeypatch.setitem(sys.modules, "byhand.grading.judge", SimpleNamespace(grade_one=by_name))
    monkeypatch.chdir(tmp_path)
    for student in ("ann-3", "bob-0"):
        folder = tmp_path / "submissions" / student
        folder.mkdir(parents=True)
        (folder / EXERCISE.name).write_bytes(EXERCISE.read_bytes())
    (tmp_path / "marks.csv").write_text("student,stem,question,points\nann-3,61-two-layer,essay,1.5\n")
    return lambda *arguments: CliRunner().invoke(cli.app, ["grade", *map(str, arguments)])


def test_it_writes_every_report(grade, tmp_path):
    run = grade("submissions", "--out", "out", "--seed", 5)
    assert run.exit_code == 0, run.output
    names = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*") if path.is_file()
    }
    students = ("ann-3", "bob-0")
    assert names == {
        *("grades.csv", "totals.csv", "junit.xml", "statistics.html", "grades.json"),
        *(f"gradescope/{student}.json" for student in students),
        *(f"classroom/{student}.txt" for student in students),
        *(f"feedback/{student}/61-two-layer.html" for student in students),
    }
    assert "seed 5" in run.output
    assert "Seed 5" in (tmp_path / "out" / "statistics.html").read_text(encoding="utf-8")


def test_a_seed_that_was_drawn_is_shown_and_kept(grade, tmp_path):
    run = grade("submissions", "--out", "out")
    assert f"seed {reports.read_record(tmp_path / 'out')[1]}." in run.output


def test_everyone_on_the_roster_has_rows(grade, tmp_path):
    (tmp_path / "roster.csv").write_text("student\nann-3\nbob-0\ncho-0\n")
    assert grade("submissions", "--out", "out", "--roster", "roster.csv").exit_code == 0
    assert [row["student"] for row in rows_of(tmp_path / "out" / "totals.csv")] == ["ann-3", "bob-0", "cho-0"]


def test_nothing_found_fails_with_a_sentence(grade, tmp_path):
    (tmp_path / "empty").mkdir()
    for source in ("empty", "no-such-folder"):
        run = grade(source)
        assert run.exit_code == 1
        assert source in run.output
        assert "Traceback" not in run.output


def test_what_could_not_be_graded_fails(grade, tmp_path, monkeypatch):
    folder = tmp_path / "submissions" / "cho-none"
    folder.mkdir()
    (folder / EXERCISE.name).write_bytes(EXERCISE.read_bytes())
    run = grade("submissions", "--out", "out")
    assert run.exit_code == 1
    assert [row["status"] for row in rows_of(tmp_path / "out" / "grades.csv")][-QUESTIONS:] == ["ungraded"] * QUESTIONS


def test_the_terminal_is_safe_from_names(grade, tmp_path):
    name = "::error::\x1b[31m-0"
    (tmp_path / "submissions" / name).mkdir()
    (tmp_path / "submissions" / name / EXERCISE.name).write_bytes(EXERCISE.read_bytes())
    run = grade("submissions", "--out", "out")
    assert "\x1b" not in run.output
    assert "::error" not in run.output


def test_it_refuses_without_a_sandbox(monkeypatch):
    monkeypatch.setattr(sandbox, "is_available", lambda: "There is no bubblewrap.")
    with pytest.raises(GradingError, match=r"no bubblewrap(.|\n)*--unsafe-local"), command._workers(2, None, False):
        pass
    with command._workers(2, None, True) as (width, _):
        assert width == 2


# --- marks given by hand -------------------------------------------------------------------------


def test_marks_are_merged_and_nothing_is_lost(grade, tmp_path):
    grade("submissions", "--out", "out", "--seed", 5)
    before, _ = reports.read_record(tmp_path / "out")
    run = grade("--manual", "marks.csv", "--out", "out")
    assert run.exit_code == 0, run.output
    after, seed = reports.read_record(tmp_path / "out")
    assert seed == 5
    assert [(old, new) for old, new in zip(before, after, strict=True) if old != new] == [(before[1], after[1])]
    assert (after[1].student, after[1].question, after[1].points, after[1].answer) == (
        "ann-3",
        "essay",
        1.5,
        "Because.",
    )
    assert rows_of(tmp_path / "out" / "totals.csv")[0]["total"] == "4.5"


def test_marks_can_be_merged_while_grading(grade, tmp_path):
    assert grade("submissions", "--out", "out", "--manual", "marks.csv").exit_code == 0
    assert rows_of(tmp_path / "out" / "totals.csv")[0]["total"] == "4.5"


def test_names_may_be_copied_from_the_grades():
    result = Result("=ann", "61-two-layer", "essay", 2.0, None, "manual")
    for name in ("=ann", reports.csv_cell("=ann")):
        marks = [(2, {"student": name, "stem": "61-two-layer", "question": "essay", "points": "2"})]
        assert command.merged([result], marks)[0].points == 2


@pytest.mark.parametrize(
    "line, words",
    [
        ("zoe,61-two-layer,essay,1", "line 2, zoe 61-two-layer essay: no such row"),
        ("ann-3,61-two-layer,poem,1", "no such row"),
        ("ann-3,61-two-layer,vjp,1", "not a question that a person marks"),
        ("ann-3,61-two-layer,essay,2.5", "not between 0 and 2"),
        ("ann-3,61-two-layer,essay,-1", "not between 0 and 2"),
        ("ann-3,61-two-layer,essay,nan", "not between 0 and 2"),
        ("ann-3,61-two-layer,essay,two", "'two' is not a number"),
        ("ann-3,61-two-layer,essay,", "'' is not a number"),
        ("ann-3,61-two-layer,essay", "is not a number"),
        ("ann-3,61-two-layer,essay,1\nann-3,61-two-layer,essay,2", "line 3, ann-3 61-two-layer essay: marked twice"),
    ],
)
def test_wrong_marks_are_named_and_nothing_is_written(grade, tmp_path, line, words):
    grade("submissions", "--out", "out")
    before = (tmp_path / "out" / "grades.csv").read_bytes()
    (tmp_path / "marks.csv").write_text(f"student,stem,question,points\n{line}\nbob-0,61-two-layer,essay,1\n")
    run = grade("--manual", "marks.csv", "--out", "out")
    assert run.exit_code == 1
    assert words in run.output
    assert (tmp_path / "out" / "grades.csv").read_bytes() == before


@pytest.mark.parametrize("text, words", [("student,points\n", "no column question, stem"), ("\xff", "no column")])
def test_a_file_of_marks_needs_its_columns(grade, tmp_path, text, words):
    grade("submissions", "--out", "out")
    (tmp_path / "marks.csv").write_text(text)
    run = grade("--manual", "marks.csv", "--out", "out")
    assert run.exit_code == 1
    assert words in run.output


def test_marks_need_an_earlier_grading(grade):
    run = grade("--manual", "marks.csv", "--out", "nowhere")
    assert run.exit_code == 1
    assert "grade first" in run.output
    assert grade().exit_code == 1


# --- hidden tests and nbgrader -------------------------------------------------------------------

HIDDEN = """@check(points=3)
def double_is_right(rng):
    x = rng.normal()
    same(y=(double(x), 2 * x))
    ### BEGIN HIDDEN TESTS
    same(y=(double(7.0), 14.0))
    ### END HIDDEN TESTS"""


def a_solution(check=HIDDEN):
    answer = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
    sources = ["from byhand.check import check, mistake, same", answer, check]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    mistake = "mistake(double_is_right, says='half', double=lambda x: x / 2)"
    cells.append(nbformat.v4.new_code_cell(mistake, metadata={"tags": ["mistake"]}))
    return nbformat.v4.new_notebook(cells=cells)


def test_release_takes_hidden_tests_out():
    exercise = notebooks.release(a_solution(), "11-twice")
    assert "HIDDEN" not in notebooks.text_of(exercise)
    assert "14.0" not in notebooks.text_of(exercise)
    assert exercise.cells[2].source.endswith("same(y=(double(x), 2 * x))")
    assert exercise.cells[2].metadata.nbgrader.points == 3


def test_an_instructor_keeps_hidden_tests():
    kept = notebooks.release(a_solution(), "11-twice", keep_hidden=True)
    assert kept.cells[2].source == HIDDEN
    assert "return 2 * x" not in notebooks.text_of(kept)
    assert notebooks.release(kept, "11-twice", keep_hidden=True) == kept


@pytest.mark.parametrize(
    "check, words",
    [
        (HIDDEN.replace("### END HIDDEN TESTS", ""), "has no END"),
        (HIDDEN.replace("### BEGIN HIDDEN TESTS", ""), "do not pair"),
        (HIDDEN.replace("    same(y=(double(x), 2 * x))\n", ""), "needs a visible test"),
        (
            "### BEGIN HIDDEN TESTS\n@check(points=3)\n### END HIDDEN TESTS\n" + HIDDEN.partition("\n")[2],
            "needs a visible",
        ),
        ("### BEGIN HIDDEN TESTS\n" + HIDDEN.replace("    ### BEGIN HIDDEN TESTS\n", ""), "needs a visible test"),
    ],
)
def test_hidden_tests_that_make_no_sense_are_refused(check, words):
    with pytest.raises(NotebookError, match=f"cell .*: .*{words}"):
        notebooks.release(a_solution(check), "11-twice")


def test_nbgrader_sources_keep_answers_and_hidden_tests(tmp_path):
    path = tmp_path / "solutions" / "11-twice.ipynb"
    path.parent.mkdir()
    notebooks.write(path, notebooks.canonical(a_solution(), "11-twice"))
    run = CliRunner().invoke(cli.app, ["release", "--nbgrader", str(tmp_path / "source"), str(path)])
    assert run.exit_code == 0, run.output
    source = notebooks.read(tmp_path / "source" / "11-twice" / "11-twice.ipynb")
    assert [cell.source for cell in source.cells] == [cell.source for cell in a_solution().cells[:3]]
    assert source.cells[1].metadata.nbgrader.solution
    assert not (tmp_path / "exercises").exists()


@needs_sandbox
def test_hidden_tests_grade_and_stay_hidden(tmp_path):
    path = tmp_path / "solutions" / "11-twice.ipynb"
    path.parent.mkdir()
    check = HIDDEN.replace("double(7.0), 14.0", "double(1234.0), 2468.0")
    notebooks.write(path, notebooks.canonical(a_solution(check), "11-twice"))
    release = CliRunner().invoke(cli.app, ["release", "--hidden", str(tmp_path / "hidden"), str(path)])
    assert release.exit_code == 0, release.output
    handed_in = notebooks.release(a_solution(check), "11-twice")
    handed_in.cells[1].source = "def double(x):\n    return 2 * x if x < 1000 else x"
    (tmp_path / "submissions" / "ann").mkdir(parents=True)
    notebooks.write(tmp_path / "submissions" / "ann" / "11-twice.ipynb", handed_in)
    arguments = ["grade", "submissions", "--release", "hidden", "--out", "out"]
    run = subprocess.run([sys.executable, "-m", "byhand.cli", *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert [row["status"] for row in rows_of(tmp_path / "out" / "grades.csv")] == ["wrong"]
    texts = [path.read_text(encoding="utf-8") for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any("HIDDEN" in text or "double(1234" in text for text in texts)


# --- with the real grader ------------------------------------------------------------------------


@pytest.fixture
def handed_in(tmp_path):
    """Submissions to 61: honest, wrong in one answer, blank; and a roster with one who handed in nothing."""
    answers = {cell.id: cell.source for cell in notebooks.read(SOLUTION).cells}
    for student in ("honest", "wrong", "blank"):
        notebook = notebooks.read(EXERCISE)
        for cell in notebook.cells:
            if student != "blank" and cell.metadata.get("nbgrader", {}).get("solution"):
                cell.source = answers[cell.id]
            if student == "wrong":
                cell.source = cell.source.replace("return W0.T, np.kron", "return W0, np.kron")
        path = tmp_path / "submissions" / student / EXERCISE.name
        path.parent.mkdir(parents=True)
        notebooks.write(path, notebook)
    for folder in (tmp_path, tmp_path / "submissions", tmp_path / "submissions" / "honest"):
        (folder / "conftest.py").write_text("raise SystemExit('a conftest.py of a student was run')")
    (tmp_path / "roster.csv").write_text("student\nhonest\nwrong\nblank\nabsent\n")
    return tmp_path


EXPECTED = {
    "honest": ["right", "right", "right", "manual"],
    "wrong": ["right", "wrong", "right", "manual"],
    "blank": ["unanswered", "unanswered", "unanswered", "unanswered"],
    "absent": ["missing", "missing", "missing", "missing"],
}


def statuses(rows):
    found = {}
    for row in rows:
        found.setdefault(row["student"], []).append(row["status"])
    return found


@needs_sandbox
def test_byhand_grade_for_real(handed_in):
    arguments = ["submissions", "--out", "out", "--roster", "roster.csv", "--seed", "1"]
    run = subprocess.run(
        [sys.executable, "-m", "byhand.cli", "grade", *arguments], cwd=handed_in, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert statuses(rows_of(handed_in / "out" / "grades.csv")) == EXPECTED


@needs_sandbox
@pytest.mark.parametrize("options", [["-n0"], ["-n2"]])
def test_the_plugin_reports_the_same(handed_in, options):
    arguments = ["--submissions", "submissions", "--roster", "roster.csv", "--grade-seed", "1", "--junitxml=found.xml"]
    command = [sys.executable, "-m", "pytest", "-p", "byhand.grading.plugin", "-p", "no:cacheprovider", "-v"]
    run = subprocess.run([*command, *arguments, *options], cwd=handed_in, capture_output=True, text=True)
    assert run.returncode == 1, run.stdout + run.stderr
    rows = []
    for case in ElementTree.parse(handed_in / "found.xml").iter("testcase"):
        rows.append({item.get("name"): item.get("value") for item in case.iter("property")})
    assert statuses(rows) == EXPECTED
    assert "a Jacobian has one for each output" in run.stdout


def test_the_plugin_does_not_start_inside_the_submissions(handed_in):
    command = [sys.executable, "-m", "pytest", "-p", "byhand.grading.plugin", "--submissions", ".", "-n0"]
    folder = handed_in / "submissions" / "honest"
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 4
    assert "outside the submissions" in run.stderr


# --- a cluster -----------------------------------------------------------------------------------


@pytest.fixture
def cluster():
    """A Dask scheduler and two workers on loopback."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
    ) as cluster:
        yield cluster


def slow_grade(submission, folder):
    """Says which process is at work, so that the test can kill it."""
    Path(folder, f"{submission.student}.{os.getpid()}").touch()
    time.sleep(0.1)
    return [Result(submission.student, submission.stem, "only", 1.0, 1.0, "right")]


def test_a_cluster_that_loses_a_worker_loses_no_row(cluster, tmp_path):
    students = [f"s{n:02}" for n in range(30)]

    def kill_one_worker():
        while len(started := sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime)) < 10:
            time.sleep(0.01)
        os.kill(int(started[-1].suffix[1:]), 9)

    killer = threading.Thread(target=kill_one_worker)
    with command._workers(1, cluster.scheduler_address, True) as (width, open_executor):
        assert width == 4
        killer.start()
        results = command.grade_all(submissions(*students), width, open_executor, (str(tmp_path),), slow_grade)
    killer.join()
    assert [(result.student, result.status) for result in results] == [(student, "right") for student in students]
    assert len(list(tmp_path.iterdir())) > len(students), "no worker died while it graded"


@needs_sandbox
def test_byhand_grade_on_a_cluster(cluster, handed_in):
    arguments = ["submissions", "--out", "out", "--roster", "roster.csv", "--seed", "1"]
    run = subprocess.run(
        [sys.executable, "-m", "byhand.cli", "grade", *arguments, "--scheduler", cluster.scheduler_address],
        cwd=handed_in,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert statuses(rows_of(handed_in / "out" / "grades.csv")) == EXPECTED


def test_a_worker_that_does_not_see_the_submissions_is_refused(cluster, tmp_path):
    missing = tmp_path / "not-there"
    with (
        pytest.raises(GradingError, match=r"does not see .*not-there"),
        command._workers(1, cluster.scheduler_address, True, [tmp_path, missing]),
    ):
        pass


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(command, "CONNECT_SECONDS", 1)
    with pytest.raises(GradingError, match="no scheduler answers at tcp:"):
        command._connected("tcp://127.0.0.1:9")


def test_without_dask_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(GradingError, match=r"byhand\[cluster\]"):
        command._connected("tcp://127.0.0.1:9")


def test_the_record_is_json(grade, tmp_path):
    grade("submissions", "--out", "out")
    assert json.loads((tmp_path / "out" / "grades.json").read_text(encoding="utf-8"))["results"]
