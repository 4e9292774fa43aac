"""Grade one submission: NumPy computes in a sandbox, torch judges here.

The judge runs the instructor's own cells. Where a check reads the name of an answer, it finds a
proxy of what the student's cells define in the sandbox. No line of a student's code runs here, and
nothing but numbers and text comes back.
"""

import contextlib
import hashlib
import io
import sys
import time
import traceback
import warnings
from pathlib import Path

from byhand.check import Check
from byhand.grading.remote import AnswerError, Answers, Remote, Stopped
from byhand.grading.results import Result
from byhand.grading.sandbox import Limits, Sandbox, SandboxError, is_available
from byhand.grading.submission import STUDENT_SIDE, Unreadable, merged, release_cells
from byhand.wire import Mismatch, NotAnswered

CASES = 5
OURS = str(Path(__file__).resolve().parents[1])


def grade_one(submission, seed, limits=Limits(), unsafe=False):  # noqa: B008 (Limits is frozen)
    """One Result a question of a submission, whatever was handed in.

    seed: of the whole grading; the same seed gives the same result. unsafe: without a sandbox, and
    every result says so. Raises SandboxError where there can be none, and NotebookError for a
    release that is no notebook.
    """
    if not unsafe and (reason := is_available()):
        raise SandboxError(reason)
    released = release_cells(submission.release)
    try:
        if submission.path is None:
            return _same_for_all(submission, released, "missing", "Nothing was handed in.", unsafe)
        cells = merged(released, submission.path)
    except Unreadable as error:
        return _same_for_all(submission, released, "unreadable", str(error), unsafe)
    return _Grading(submission, cells, seed, limits, unsafe).results()


def _same_for_all(submission, cells, status, reason, unsafe):
    questions = [cell for cell in cells if cell.question and cell.kind in ("check", "written")]
    return [_result(submission, cell, 0.0, status, reason, "", unsafe) for cell in questions]


def _result(submission, cell, points, status, reason, answer, unsafe):
    return Result(
        submission.student, submission.stem, cell.question, cell.maximum, points, status, reason, answer, unsafe
    )


# --- the student's side --------------------------------------------------------------------------


class _Notebook:
    """The student's cells in a sandbox, which is started again when one of them ends it."""

    def __init__(self, limits, unsafe, end):
        self.limits, self.unsafe, self.end = limits, unsafe, end
        self.sandbox = self.answers = None
        self.cells, self.started = [], 0  # what a new sandbox runs first, and how much of it has run
        self.failed = {}  # {a cell's id: the exception that it ended in}
        self.budget = 0.0  # seconds left for the cell or the check at hand

    def run(self, cell):
        """Run a cell; what goes wrong in it is kept for the checks that need it."""
        self.cells.append(cell)
        self._catch_up()

    def begin_check(self):
        """Have a living sandbox, and the time of one cell for all calls of a check."""
        self._catch_up()
        self.budget = self.limits.cell_seconds

    def resolve(self, name, cell, inplace):
        """What a check sees under a name that a cell should define. Raises as that cell did, where it did."""
        error = self.failed.get(cell.id)
        if isinstance(error, Stopped):
            raise error
        try:
            return Remote(self.answers, inplace).resolve(name)
        except AnswerError as undefined:
            raise error or undefined from None

    def stop(self):
        if self.sandbox:
            self.sandbox.stop()
        self.sandbox = None

    def _catch_up(self):
        """Run what has not run in this sandbox. A cell that ends the sandbox is left out from then on."""
        while self.sandbox is None or self.started < len(self.cells):
            if self.sandbox is None:
                self.sandbox, self.started = Sandbox(self.limits, self.unsafe), 0
                self.answers = Answers(self._ask)
                continue
            cell = self.cells[self.started]
            self.budget = self.limits.cell_seconds
            try:
                self.answers.run(cell.source, cell.id)
                self.started += 1
            except AnswerError as error:
                self.failed[cell.id] = error
                self.started += 1
            except Stopped as error:
                self.stop()
                self.failed[cell.id] = error
                self.cells.remove(cell)

    def _ask(self, message, raw):
        """Ask the sandbox, within the time left for the request, for the cell or check, and in all."""
        if self.sandbox is None:
            raise Stopped("The sandbox of this answer has ended.")
        start = time.monotonic()
        limit = self.limits.cell_seconds if message["do"] == "run" else self.limits.call_seconds
        seconds = min(limit, self.budget, self.end - start)
        try:
            return self.sandbox.ask(message, raw, max(seconds, 0.001))
        except Stopped as error:
            self.stop()
            if error.status == "timeout" and seconds < limit:
                limit = self.limits.cell_seconds if self.end > time.monotonic() else self.limits.total_seconds
                raise Stopped(f"All calls together took longer than {limit:.3g} s.", "timeout") from None
            raise
        finally:
            self.budget -= time.monotonic() - start


# --- the judge's side ----------------------------------------------------------------------------


class _GradedCheck(Check):
    """A check that runs on its own seeds, and only when it is told to."""

    seeds = ()
    student_side = ()  # sources of the release's cells that run in the sandbox; never what the student made of them

    def failure(self):
        """What is wrong, in words with a diagnosis, or None."""
        first = next(filter(None, self.outcomes()), None)
        return first and self._words(first)

    def _given_to_mistakes(self):
        """The classes that were given to the student, defined here: a named mistake runs here, not in the sandbox."""
        before = self.function.__globals__
        names = dict(before)
        with contextlib.suppress(Exception):  # what builds on an answer cannot be defined here
            for source in self.student_side:
                exec(source, names)
        return {name: value for name, value in names.items() if before.get(name) is not value}


class _Grading:
    """One submission's grading: the pristine cells run here, the student's in a `_Notebook`."""

    def __init__(self, submission, cells, seed, limits, unsafe):
        self.submission, self.cells, self.seed = submission, cells, seed
        self.limits, self.unsafe = limits, unsafe
        self.end = time.monotonic() + limits.total_seconds
        self.namespace = {"__name__": "exercise"}
        self.passed = []  # the cells before the one at hand
        self.broken = ""  # how the first given cell that fails here fails

    def results(self):
        """A Result for every question, in order."""
        notebook, results = self._notebook(), []
        try:
            with _quiet():
                for cell in self._needed():
                    if cell.kind in ("check", "written"):
                        results.append(self._graded(cell, notebook))
                    else:
                        self._run(cell, notebook)
        finally:
            notebook.stop()
        return results

    def _needed(self):
        """The cells up to the last question; what comes after it changes nothing."""
        last = max((n for n, cell in enumerate(self.cells) if cell.kind in ("check", "written")), default=-1)
        return self.cells[: last + 1]

    def _notebook(self):
        return _Notebook(self.limits, self.unsafe, self.end)

    def _run(self, cell, notebook):
        self.passed.append(cell)
        if cell.kind == "given":
            try:
                exec(compile(cell.source, f"<{cell.id}>", "exec"), self.namespace)
            except Exception as error:
                self.broken = self.broken or f" The given cell {cell.id} fails: {_named(error)}."
        if not cell.problem:
            with contextlib.suppress(SandboxError):  # the next check meets it again, and says so
                notebook.run(cell)

    def _graded(self, cell, notebook):
        answers = [cell] if cell.kind == "written" else self._answers_to(cell)
        problem = next((answer for answer in answers if answer.problem), None)
        if problem:
            status, reason = problem.status, problem.problem
        elif cell.kind == "written":
            blank = cell.source.strip() in ("", cell.stub.strip())
            status, reason = ("unanswered", "There is no answer yet.") if blank else ("manual", "")
        else:
            status, reason = self._verdict(cell, notebook)
            if status in ("died", "timeout") and self._verdict_alone(cell, answers) == "right":
                status, reason = "right", ""
        points = {"right": cell.maximum, "manual": None, "ungraded": None}.get(status, 0.0)
        text = "\n\n".join(answer.source for answer in answers)
        return _result(self.submission, cell, points, status, reason, text, self.unsafe)

    def _answers_to(self, check):
        """The answer cells that define what a check reads, the latest of each name."""
        latest = {name: cell for cell in self.passed if cell.kind == "answer" for name in cell.names & check.names}
        return [cell for cell in self.passed if cell in latest.values()]

    def _verdict_alone(self, check, answers):
        """The status where only this question's answers run: another cell may have ended the sandbox."""
        notebook = self._notebook()
        try:
            for cell in self.passed:
                if cell.kind in ("given", STUDENT_SIDE) or cell in answers:
                    notebook.run(cell)
            return self._verdict(check, notebook)[0]
        except SandboxError:
            return "ungraded"
        finally:
            notebook.stop()

    def _verdict(self, cell, notebook):
        """(status, reason) of a check. Only what the student's side sent can cost points."""
        reads_answers = False
        try:
            check = self._check(cell)
            notebook.begin_check()
            reads_answers = self._bind(check, notebook)
            words = check.failure()
            return ("wrong", words) if words else ("right", "")
        except NotAnswered as error:
            return "unanswered", str(error)
        except AnswerError as error:
            return error.status, str(error)
        except Stopped as error:
            notebook.stop()
            return error.status, str(error)
        except Mismatch as error:  # of a value, before the check begins
            return "wrong", str(error)
        except Exception as error:
            if not (reads_answers and _comes_from_an_answer(error)):
                return "ungraded", f"The grader failed: {_named(error)}.{self.broken}"
            if isinstance(error, AssertionError):
                return "wrong", f"{cell.question}: wrong"
            words = f"{cell.question} cannot use what the answer gives: {_named(error)}."
            return "error", f"{words}\nDoes it return what its docstring says?"

    def _check(self, cell):
        """The check that a pristine cell makes, with the seeds of this grading."""
        made = []

        def check(function=None, *, points=1, diagnose=True, values=True, inplace=False):
            def decorate(function):
                made.append(_GradedCheck(function, points, diagnose, values, inplace))
                return made[-1]

            return decorate if function is None else decorate(function)

        self.namespace["check"] = check
        exec(compile(cell.source, f"<{cell.id}>", "exec"), self.namespace)
        made[0].tells_calls = "HIDDEN TESTS" not in cell.source
        made[0].student_side = [passed.source for passed in self.passed if passed.kind == STUDENT_SIDE]
        made[0].seeds = [_seed(self.seed, self.submission.stem, cell.question, case) for case in range(CASES)]
        return made[0]

    def _bind(self, check, notebook):
        """Put proxies under the names of answers that a check reads. Tells whether there are any."""
        defined = {name: cell for cell in self.passed if cell.kind in ("answer", STUDENT_SIDE) for name in cell.names}
        names = [name for name in check.uses if name in defined]
        for name in names:
            self.namespace[name] = notebook.resolve(name, defined[name], check.inplace)
        return bool(names)


def _seed(*parts):
    """A seed that depends on nothing but what it is for: not on the order of grading, nor on the machine."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:16])


def _comes_from_an_answer(error):
    """Whether a check may have failed for what an answer gave it: not in byhand, not for a name of its own."""
    frames = traceback.extract_tb(error.__traceback__)
    return not isinstance(error, (NameError, ImportError)) and not frames[-1].filename.startswith(OURS)


def _named(error):
    return f"{type(error).__name__}: {str(error)[:300]}"


@contextlib.contextmanager
def _quiet():
    """Nothing that the instructor's cells print, warn of or draw is shown or kept; torch uses one thread.

    The arrays are small: more threads only wait for each other, and for those of other workers.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            if "matplotlib.pyplot" in sys.modules:
                sys.modules["matplotlib.pyplot"].close("all")
