"""Plain `pytest` checks every notebook with nbval.

Lectures and solutions must reproduce their stored outputs. Exercises are run too: a check whose
answer is missing is an expected failure, a wrong answer fails, a right one passes.
"""

import re
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile, NbCellError, find_comment_markers, find_metadata_tags

from byhand import notebooks, warm


def pytest_configure(config):
    # The collector below takes nbval's place; with both, every notebook would be collected twice.
    config.option.nbval = config.option.nbval_lax = False
    config.pluginmanager.register(Answered(), "byhand-answered")
    config.kernels = warm.Kernels(getattr(config, "workerinput", {}).get("kernels"))
    config.add_cleanup(config.kernels.stop)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """xdist is about to start a worker: all workers share one warm process."""
    if _has_notebooks(node.config.args):
        node.workerinput["kernels"] = node.config.kernels.address


def _has_notebooks(args):
    paths = [Path(arg.partition("::")[0]) for arg in args]
    return any(path.suffix == ".ipynb" or next(path.rglob("*.ipynb"), None) for path in paths)


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".ipynb":
        return CourseNotebook.from_parent(parent, path=file_path)


class CourseNotebook(IPyNbFile):
    """A notebook, its code cells as items. What is graded and not a solution is an exercise."""

    def setup(self):
        timeout = self.config.option.nbval_kernel_startup_timeout
        self.kernel = self.config.kernels.start(self.path.parent, timeout)
        self.setup_sanitize_files()

    def collect(self):
        try:
            self.nb = notebooks.read(self.path)
        except notebooks.NotebookError as error:
            raise self.CollectError(str(error)) from None
        cells = [cell for cell in self.nb.cells if cell.cell_type == "code"]
        self.is_exercise = self.path.parent.name != "solutions" and any("nbgrader" in cell.metadata for cell in cells)
        self.counts_in_order = [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        for number, cell in enumerate(cells):
            options = {"check": not self.is_exercise, "skip": False, "check_exception": False}
            yield CourseCell.from_parent(self, name=f"Cell {number}", cell_num=number, cell=cell, options=options)


class CourseCell(IPyNbCell):
    """A code cell: run it, then compare its outputs, numbers within a tolerance."""

    @property
    def is_graded(self):
        return self.parent.is_exercise and self.cell.metadata.get("nbgrader", {}).get("grade", False)

    def setup(self):
        """nbval would expect failures after a time-out; here each cell answers for itself."""

    def runtest(self):
        complaint = self.complaint()
        try:
            self.run_in_time()
        except NbCellError:
            if self.is_graded and self.raised() == "NotAnswered":
                self.user_properties.append(("answered", False))
                pytest.xfail("not answered yet")
            if not complaint:
                raise
        if complaint:
            self.raise_cell_error(complaint)

    def run_in_time(self):
        """Run the cell. One that swallows the interrupt of its time-out fails all the same."""
        if self.is_graded:
            self.user_properties.append(("graded", True))
        if not self.parent.kernel.is_alive():
            self.raise_cell_error("This cell was not run: the kernel died in an earlier one.")
        was_late, self.parent.timed_out = self.parent.timed_out, False
        try:
            super().runtest()
        except warm.KernelDied as death:
            self.raise_cell_error(f"The kernel died in this cell ({death}).")
        if self.parent.timed_out:
            self.raise_cell_error(f"This cell took longer than {self.config.option.nbval_cell_timeout:g} s.")
        self.parent.timed_out = was_late

    def repr_failure(self, excinfo):
        """A wrong answer is told in the check's own words, without the check's source around them."""
        words = getattr(excinfo.value, "inner_traceback", None)
        if words and self.is_graded and self.raised() == "Mismatch":
            return words.strip()
        return super().repr_failure(excinfo)

    def raised(self):
        """The name of the exception that ended the cell."""
        return next((out.ename for out in self.test_outputs or [] if out.output_type == "error"), None)

    def complaint(self):
        """What is wrong with how the cell is stored, as a sentence that says what to do, or None."""
        if [*find_comment_markers(self.cell.source), *find_metadata_tags(self.cell.metadata)]:
            return "nbval's escape markers are refused here: take the comment or tag out, and mend the cell."
        if self.parent.is_exercise:
            return None
        command = f"`byhand run {notebooks.name_of(self.parent.path)}`"
        if self.cell.execution_count is None:
            has = "has outputs but no count" if self.cell.outputs else "was never run"
            return f"This cell {has}, so nothing would be compared. Run {command}."
        if not self.parent.counts_in_order:
            return f"The cells of this notebook were not run in order, from 1. Run {command}."
        return None

    def compare_outputs(self, test, ref, skip_compare=None):
        """nbval's comparison, after texts that agree within the tolerance were made equal."""
        return super().compare_outputs(_snapped(test, ref), ref, skip_compare)


def _snapped(test, ref):
    """The new outputs, each text replaced by the stored one where the two agree."""
    return [_snap(new, stored) for new, stored in zip(test, ref, strict=False)] + test[len(ref) :]


def _snap(new, stored):
    new = new.copy()
    for key, text in stored.items():
        if isinstance(text, dict) and isinstance(new.get(key), dict):
            new[key] = _snap(new[key], text)
        elif isinstance(text, str) and isinstance(new.get(key), str) and same_text(new[key], text):
            new[key] = text
    return new


FLOAT = re.compile(r"([-+]?(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+)")
BITMAP = re.compile(r'"data:image/[^"]*"')
SVG_ID = re.compile(r"\b[a-z][0-9a-f]{10}\b")
RTOL, ATOL = 1e-6, 1e-9


def same_text(new, stored):
    """Whether two texts agree: words and integers exactly, white space as such, floats nearly.

    In SVG, embedded bitmaps are skipped, and ids, which are hashes of coordinates, are numbered.
    """
    if new == stored:
        return True
    news, storeds = FLOAT.split(_plain(new)), FLOAT.split(_plain(stored))
    if len(news) != len(storeds):
        return False
    words = all(a.split() == b.split() for a, b in zip(news[::2], storeds[::2], strict=True))
    return words and all(_near(float(a), float(b)) for a, b in zip(news[1::2], storeds[1::2], strict=True))


def _near(a, b):
    return a == b or abs(a - b) <= ATOL + RTOL * abs(b)


def _plain(text):
    ids = {}
    return SVG_ID.sub(lambda found: f"id{ids.setdefault(found[0], len(ids))}", BITMAP.sub('"bitmap"', text))


class Answered:
    """Counts the graded cells of exercises and says last how many were answered."""

    def __init__(self):
        self.graded = self.unanswered = self.wrong = 0

    def pytest_runtest_logreport(self, report):
        properties = dict(report.user_properties)
        if report.when == "call" and properties.get("graded"):
            self.graded += 1
            self.unanswered += "answered" in properties
            self.wrong += report.failed

    def pytest_unconfigure(self, config):
        if self.graded and not hasattr(config, "workerinput"):
            wrong = f", {self.wrong} of them wrong" if self.wrong else ""
            print(f"{self.graded - self.unanswered} of {self.graded} answered{wrong}")
