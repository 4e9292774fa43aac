"""A pytest plugin that reports the grader's results: `pytest -p byhand.grading.plugin --submissions DIR`.

Each graded cell is an item, so points, JUnit XML and pytest-xdist come from pytest. Nothing in the
folder of submissions is collected or imported: this file itself stands in as the only argument.
"""

import secrets
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

from byhand import notebooks
from byhand.grading import reports


def pytest_addoption(parser):
    group = parser.getgroup("byhand", "grading")
    group.addoption("--submissions", type=Path, help="folder of submissions, or one notebook")
    group.addoption("--roster", type=Path, help="CSV with a column student")
    group.addoption("--exercise", help="grade this stem only")
    group.addoption("--release", type=Path, default=notebooks.ROOT / "exercises", help="folder of pristine exercises")
    group.addoption("--grade-seed", type=int, help="of the checks' random numbers; drawn and shown if left out")
    group.addoption("--unsafe-local", action="store_true", help="grade without a sandbox")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config):
    """A conftest.py beside submissions is code of a student."""
    early_config.known_args_namespace.noconftest = True


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    if getattr(config.option, "numprocesses", None):
        config.option.dist = "loadfile"  # a submission is graded once, by one worker


def pytest_configure(config):
    option, worker = config.option, getattr(config, "workerinput", {})
    if option.submissions is None:
        raise pytest.UsageError("say what to grade: --submissions DIR")
    if Path.cwd().is_relative_to(option.submissions.absolute()):
        raise pytest.UsageError("start pytest outside the submissions: pytest reads settings and code of this folder.")
    if not option.unsafe_local and (reason := _sandbox_missing()):
        raise pytest.UsageError(f"{reason} Or give --unsafe-local.")
    if option.grade_seed is None:
        option.grade_seed = worker.get("grade_seed", secrets.randbits(32))
    config.args = [__file__]


def _sandbox_missing():
    from byhand.grading.sandbox import is_available

    return is_available()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """xdist is about to start a worker: all grade with one seed."""
    node.workerinput["grade_seed"] = node.config.option.grade_seed


def pytest_report_header(config):
    return f"grading {reports.for_terminal(str(config.option.submissions))}, seed {config.option.grade_seed}"


@pytest.hookimpl(tryfirst=True)
def pytest_collect_file(file_path, parent):
    return Submissions.from_parent(parent, path=file_path)


class Submissions(pytest.File):
    """Every submission, also those that were not handed in."""

    def collect(self):
        from byhand.grading.submission import find_submissions

        option = self.config.option
        found = find_submissions(option.submissions, option.release, option.roster, option.exercise)
        students = reports.file_names({submission.student for submission in found})
        for submission in found:
            name = f"{students[submission.student]}/{submission.stem}.ipynb"
            path = submission.path or submission.release
            yield GradedNotebook.from_parent(
                self, path=path, name=name, nodeid=f"submissions/{name}", submission=submission
            )


class GradedNotebook(IPyNbFile):
    """A submission. Its cells are those of the pristine exercise."""

    def __init__(self, *args, submission, **kwargs):
        super().__init__(*args, **kwargs)
        self.submission, self.results = submission, None

    def setup(self):
        """The grader runs the cells, in its sandbox; nbval starts no kernel."""

    def teardown(self):
        self.results = None

    def collect(self):
        for number, cell in enumerate(notebooks.read(self.submission.release).cells):
            marks = cell.metadata.get("nbgrader", {})
            if marks.get("grade"):
                name = marks["grade_id"]
                yield GradedCell.from_parent(self, name=name, cell_num=number, cell=cell, options={})

    def result(self, question):
        """The result of a question; the first to ask has the submission graded."""
        from byhand.grading.judge import grade_one

        if self.results is None:
            option = self.config.option
            graded = grade_one(self.submission, option.grade_seed, unsafe=option.unsafe_local)
            self.results = {result.question: result for result in graded}
        return self.results[question]


class Ungraded(Exception):
    """The grader failed: nothing is said of the answer."""


class GradedCell(IPyNbCell):
    """A graded cell: passed with its points, failed with the words of its check, or to be marked by a person."""

    def setup(self):
        self.graded = self.parent.result(self.name)
        for key in ("student", "stem", "points", "maximum", "status", "unsafe"):
            self.user_properties.append((key, reports.one_line(str(getattr(self.graded, key)))))
        if self.graded.status == "ungraded":
            raise Ungraded(reports.for_terminal(self.graded.reason))

    def runtest(self):
        words = reports.for_terminal(self.graded.reason) or reports.status_words(self.graded)
        if self.graded.status == "manual":
            pytest.skip(f"to be marked by a person, {reports.number(self.graded.maximum)} points possible")
        if self.graded.status != "right":
            pytest.fail(words, pytrace=False)

    def teardown(self):
        """nbval would look for outputs here."""

    def repr_failure(self, excinfo):
        return str(excinfo.value)
