"""`byhand grade`: map the grader over an executor, write every report, and merge marks given by hand."""

import csv
import multiprocessing
import os
import secrets
import sys
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from byhand import notebooks
from byhand.grading import reports
from byhand.grading.results import Result

console = Console(stderr=True, soft_wrap=True, highlight=False)
MIB = 1 << 20
CONNECT_SECONDS = 10


class GradingError(Exception):
    """Grading cannot start, or marks cannot be merged. The text says why and what to do."""


def grade(
    submissions: Annotated[Path | None, typer.Argument(help="A folder of submissions, or one notebook.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the reports.")] = Path("grades"),
    roster: Annotated[Path | None, typer.Option(help="CSV with a column student: each gets a row.")] = None,
    exercise: Annotated[str | None, typer.Option(metavar="STEM", help="Grade this exercise only.")] = None,
    release: Annotated[
        Path, typer.Option(help="Folder of exercises, as handed out or with hidden tests.", show_default="the course's")
    ] = (notebooks.ROOT / "exercises"),
    seed: Annotated[
        int | None, typer.Option(help="Of the checks' random numbers; drawn and shown if left out.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that grade at the same time.")] = 2,
    scheduler: Annotated[str | None, typer.Option(metavar="tcp://HOST:PORT", help="Grade on a Dask cluster.")] = None,
    unsafe_local: Annotated[
        bool, typer.Option("--unsafe-local", help="Grade without a sandbox; results say so.")
    ] = False,
    call_seconds: Annotated[float, typer.Option(help="Limit of one call of an answer.")] = 10,
    cell_seconds: Annotated[float, typer.Option(help="Limit of one cell.")] = 30,
    total_seconds: Annotated[float, typer.Option(help="Limit of one submission.")] = 300,
    memory: Annotated[int, typer.Option(help="Limit in MiB.")] = 2048,
    processes: Annotated[int, typer.Option(help="Limit of processes of one submission.")] = 64,
    output: Annotated[int, typer.Option(help="Limit of what is printed, in MiB.")] = 4,
    files: Annotated[int, typer.Option(help="Limit of files written, in MiB.")] = 64,
    manual: Annotated[
        Path | None,
        typer.Option(help="CSV student, stem, question, points: merge marks into --out; SUBMISSIONS may be left out."),
    ] = None,
):
    """Grade submissions: every student and question gets a row, whatever was handed in."""
    from byhand.grading.sandbox import Limits

    limits = Limits(
        call_seconds=call_seconds,
        cell_seconds=cell_seconds,
        total_seconds=total_seconds,
        memory=memory * MIB,
        processes=processes,
        output=output * MIB,
        files=files * MIB,
    )
    try:
        if submissions is None:
            results, seed = _earlier(out, manual)
        else:
            seed = secrets.randbits(32) if seed is None else seed
            folders = submissions.absolute(), release.absolute()
            found = _found(*folders, roster, exercise)
            with _workers(workers, scheduler, unsafe_local, folders) as executors:
                results = _with_progress(found, *executors, (seed, limits, unsafe_local))
        if manual:
            results = merged(results, read_marks(manual))
        reports.write_all(results, out, seed)
    except GradingError as error:
        console.print(reports.for_terminal(str(error)), style="red", markup=False)
        raise typer.Exit(1) from None
    _summarise(results, out, seed)
    raise typer.Exit(1 if any(result.status == "ungraded" for result in results) else 0)


def _found(*where):
    from byhand.grading.submission import find_submissions

    try:
        return find_submissions(*where)
    except (OSError, ValueError, notebooks.NotebookError) as error:
        raise GradingError(str(error)) from None


# --- many at a time ------------------------------------------------------------------------------


@contextmanager
def _workers(count, scheduler, unsafe, folders=()):
    """(how many submissions are graded at the same time, a function that opens an executor).

    A process pool here, or the workers of a Dask cluster. Raises GradingError where one of them does
    not see the folders, or has no sandbox and unsafe is not set.
    """
    from byhand.grading.sandbox import is_available

    with _connected(scheduler) if scheduler else nullcontext() as client:
        reasons = [] if unsafe else client.run(is_available).values() if client else [is_available()]
        if missing := next(filter(None, reasons), None):
            raise GradingError(f"{missing}\nOr give --unsafe-local; then every result says so.")
        if client:
            _refuse_blind(client.run(_unseen, folders))
            yield 2 * len(client.nthreads()), client.get_executor  # one more waits at each worker
        else:
            yield count, lambda: _process_pool(count)


def _unseen(folders):
    """The first folder that is not on this machine, or None."""
    return next((folder for folder in folders if not os.path.lexists(folder)), None)


def _refuse_blind(unseen):
    for worker, folder in unseen.items():
        if folder:
            raise GradingError(f"worker {worker} does not see {folder}: use a folder that all machines share.")


def _process_pool(count):
    if sys.platform == "win32":
        return ProcessPoolExecutor(count, initializer=_one_thread)
    # Workers are copies of one process that has torch loaded, so a new pool costs next to nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "byhand.grading.judge"])
    return ProcessPoolExecutor(count, mp_context=context, initializer=_one_thread)


def _one_thread():
    import torch

    torch.set_num_threads(1)


def _connected(scheduler):
    """A client of the Dask scheduler at this address. Raises GradingError."""
    try:
        from distributed import Client

        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except ImportError:
        raise GradingError("--scheduler needs Dask: pip install 'byhand[cluster]'.") from None
    except (OSError, ValueError) as error:
        raise GradingError(f"no scheduler answers at {scheduler}: {error}") from None
    if set(client.nthreads().values()) != {1}:  # torch and the check's printing belong to one thread
        client.close()
        raise GradingError(f"{scheduler} needs workers of one thread: start `dask worker {scheduler} --nthreads 1`.")
    return client


def _grade_one(submission, *how):
    from byhand.grading.judge import grade_one

    return grade_one(submission, *how)


def grade_all(submissions, width, open_executor, how, grade_one=_grade_one, on_done=lambda: None):
    """The results of every submission, in order; how: the other arguments of grade_one.

    No more than width are under way, so a worker that dies takes no others with it. Those that were
    under way are tried once more, each in an executor of its own; then their rows say `ungraded`.
    """
    waiting, graded, lost = list(enumerate(submissions))[::-1], {}, []
    while waiting:
        with open_executor() as executor:
            lost += _until_one_is_lost(
                waiting, graded, width, lambda it, on=executor: on.submit(grade_one, it, *how), on_done
            )
    for number, submission in lost:
        with open_executor() as executor:
            results, error = _outcome(executor.submit(grade_one, submission, *how))
        graded[number] = ungraded(submission, error) if error else results
        on_done()
    return [result for number in sorted(graded) for result in graded[number]]


def _until_one_is_lost(waiting, graded, width, submit, on_done):
    """Grade what waits, until all is done or a worker has died; returns what was lost."""
    lost, under_way = [], {}
    while under_way or (waiting and not lost):
        while waiting and not lost and len(under_way) < width:
            number, submission = waiting.pop()
            try:
                under_way[submit(submission)] = number, submission
            except RuntimeError:  # the executor has broken since
                lost.append((number, submission))
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            number, submission = under_way.pop(future)
            graded[number], error = _outcome(future)
            if error:
                lost.append((number, submission))
            else:
                on_done()
    return lost


def _outcome(future):
    """(results, None) or (None, error) of a future."""
    try:
        return future.result(), None
    except Exception as error:
        return None, error


def ungraded(submission, why):
    """A row for each graded cell of the exercise, when the grader itself failed."""
    try:
        cells = notebooks.read(submission.release).cells
    except notebooks.NotebookError as error:
        cells, why = [], error
    marks = [cell.metadata.get("nbgrader", {}) for cell in cells]
    questions = [(mark["grade_id"], float(mark["points"])) for mark in marks if mark.get("grade")]
    reason = f"The grader failed twice ({type(why).__name__}: {why}). This says nothing about the answer."
    return [
        Result(submission.student, submission.stem, question, points, None, "ungraded", reason)
        for question, points in questions or [("(all)", 0.0)]
    ]


# --- marks given by hand -------------------------------------------------------------------------


def _earlier(out, manual):
    if manual is None:
        raise GradingError("say what to grade: byhand grade SUBMISSIONS, or byhand grade --manual marks.csv.")
    try:
        return reports.read_record(out)
    except (OSError, ValueError, TypeError, KeyError):
        raise GradingError(
            f"{out} holds no {reports.RECORD} to merge marks into: grade first, with --out {out}."
        ) from None


def read_marks(path):
    """The rows of a CSV file student, stem, question, points, each with its line number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if missing := {"student", "stem", "question", "points"} - set(rows.fieldnames or []):
                raise GradingError(f"{path}: no column {', '.join(sorted(missing))}.")
            return [(rows.line_num, row) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GradingError(f"{path}: cannot be read: {error}.") from None


def merged(results, marks):
    """The results with marks in place. Raises GradingError, with every row that is wrong; then nothing is merged."""
    places = {}
    for number, result in enumerate(results):
        key = result.student, result.stem, result.question
        places.setdefault(tuple(map(reports.csv_cell, key)), []).append(number)
    new, complaints, seen = list(results), [], set()
    for line, row in marks:
        key = tuple(reports.csv_cell(row[name] or "") for name in ("student", "stem", "question"))
        found = places.get(key, [])
        complaint = _complaint([results[number] for number in found], row["points"], key in seen)
        if complaint:
            complaints.append(f"line {line}, {' '.join(key)}: {complaint}.")
        else:
            new[found[0]] = replace(results[found[0]], points=float(row["points"]))
        seen.add(key)
    if complaints:
        raise GradingError("\n".join(["No mark was merged.", *complaints]))
    return new


def _complaint(found, text, is_again):
    """What is wrong with a mark, or None. found: the results that it is about."""
    if not found:
        return "no such row in the grades"
    if is_again or len(found) > 1:
        return "marked twice, or two rows of the grades look like this"
    if found[0].status != "manual":
        return f"not a question that a person marks; it is graded as {found[0].status}"
    try:
        points = float(text or "")
    except ValueError:
        return f"{text!r} is not a number"
    if not 0 <= points <= found[0].maximum:  # nan is not either
        return f"{text} points are not between 0 and {reports.number(found[0].maximum)}"
    return None


# --- the terminal --------------------------------------------------------------------------------


def _with_progress(found, *how):
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("grading", total=len(found))
        return grade_all(found, *how, on_done=lambda: progress.advance(task))


def _summarise(results, out, seed):
    table = Table(Column("question", overflow="fold"), "max", "mean", "full marks", "others")
    for key, part in reports.grouped(results, "stem", "question").items():
        marked = [result for result in part if result.points is not None]
        mean = f"{reports.earned(marked) / len(marked):.2f}" if marked else ""
        full = sum(map(reports.is_full, part))
        others = Counter(reports.status_words(result) for result in part if not reports.is_full(result))
        words = ", ".join(f"{times} {status}" for status, times in others.most_common())
        name = Text(" ".join(key))
        table.add_row(name, reports.number(part[0].maximum), mean, f"{full} of {len(part)}", words)
    console.print(table)
    students = len(reports.grouped(results, "student"))
    console.print(f"{students} students, {len(results)} rows, seed {seed}. Reports: {out}", markup=False)
    if any(result.unsafe for result in results):
        console.print(reports.UNSAFE, style="red")
