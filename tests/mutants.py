"""Break every rule and every answer on purpose, and see that its lecture or its check notices.

`python tests/mutants.py` takes all lectures and solutions, `python tests/mutants.py 51-softmax` those of
one unit. A mutant is a notebook with one small mistake (tests/mutations.py) in a rule of a lecture, or
between the markers of an answer. A lecture notices when one of its cells raises; an answer's mistake
is noticed when a check that uses the answer raises. What nobody notices fails, unless
tests/equivalent_mutants.toml says why the mistake changes nothing.

A notebook is executed from top to bottom. At a cell that is to be broken the process forks for each
mutant; each goes on from there alone, so no state leaks. This needs os.fork: not on Windows.
"""

import argparse
import contextlib
import gc
import io
import multiprocessing
import os
import signal
import sys
import time
import tomllib
from collections import Counter
from dataclasses import astuple, dataclass, fields
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from unittest.mock import patch

from mutations import mutants

from byhand import draw, notebooks
from byhand.check import SEEDS, Check
from byhand.notebooks import ROOT

TIMEOUT = 10  # seconds; a mutant that takes longer is killed, and counts as noticed
EQUIVALENTS = "tests/equivalent_mutants.toml"


class Unsound(Exception):
    """Nothing can be said: a notebook fails unbroken, or the list of equivalents is malformed."""


@dataclass(frozen=True, order=True)
class Broken:
    """A mutant in its place, as the list of equivalents names it.

    unit: as "51-softmax". part: "lecture" or "solution". name: the function or variable that is
    broken. line, mutant: its statement, before and after, on one line as `ast.unparse` writes it.
    """

    unit: str
    part: str
    name: str
    line: str
    mutant: str

    def __str__(self):
        """The entry that would list it, its reason left to write."""
        values = zip(fields(self), astuple(self), strict=True)
        lines = [f"{field.name} = {_quoted(value)}" for field, value in values]
        return "\n".join(["[[equivalent]]", *lines, 'reason = ""'])


def _quoted(text):
    """A text in TOML: as it is where it can be."""
    if "'" not in text:
        return f"'{text}'"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# --- one notebook --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A code cell. to_break: the numbers of the lines that are broken, from 1; often none."""

    source: str
    label: str
    to_break: set

    def compiled(self):
        return compile(self.source, self.label, "exec")


def survivors(path, timeout=TIMEOUT):
    """(the number of mutants of a lecture or a solution, those that nothing in it notices).

    Raises Unsound when the notebook fails unbroken, NotebookError when it cannot be read.
    """
    part = _part(path)
    cells = _cells(path, part)
    tried, found = 0, []
    with contextlib.chdir(path.parent), contextlib.redirect_stdout(io.StringIO()), _stubbed(part):
        _execute_unbroken(cells)
        namespace = {"__name__": "__main__"}
        for number, cell in enumerate(cells):
            if cell.to_break:
                rest = [later.compiled() for later in cells[number + 1 :]]
                go_on = partial(_go_on, namespace, rest, notebooks.answer_names(cell.source))
                if not _ends_well(partial(go_on, cell.source), timeout):
                    raise Unsound(f"{cell.label}: fails unbroken, but only in a forked process.")
                for mutant in mutants(cell.source, cell.to_break):
                    tried += 1
                    if _ends_well(partial(go_on, mutant.source), timeout):
                        found.append(Broken(path.stem, part, mutant.name, mutant.line, mutant.mutant))
            exec(cell.compiled(), namespace)
    return tried, found


def _part(path):
    return path.parent.name.removesuffix("s")


def _cells(path, part):
    """The code cells, without those that show mistakes."""
    code = [cell for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    return [
        Cell(cell.source, f"{notebooks.name_of(path)}, code cell {number}", _to_break(cell, part))
        for number, cell in enumerate(code, 1)
        if "mistake" not in notebooks.tags(cell)
    ]


def _to_break(cell, part):
    """All lines of a lecture's rule; in a solution, those between BEGIN SOLUTION and END SOLUTION."""
    lines = cell.source.splitlines()
    if part == "lecture":
        return set(range(1, len(lines) + 1)) if "rule" in notebooks.tags(cell) else set()
    numbers, inside = set(), False
    for number, line in enumerate(lines, 1):
        inside = (inside or "BEGIN SOLUTION" in line) and "END SOLUTION" not in line
        numbers |= {number} if inside else set()
    return numbers


@contextlib.contextmanager
def _stubbed(part):
    """Nothing is drawn. In a solution the checks are made but not run: `_run_checks` runs those that count."""

    def nothing(*args, **named):
        return None

    with contextlib.ExitStack() as stubs:
        for name in ("matrices", "graph"):
            stubs.enter_context(patch.object(draw, name, nothing, create=True))
        stubs.enter_context(patch.object(draw.plt, "show", lambda: draw.plt.close("all")))
        if part == "solution":
            stubs.enter_context(patch.object(Check, "report", nothing))
        yield


def _execute_unbroken(cells):
    """Execute the whole notebook: it must pass, and what is slow at its first call is warm then."""
    namespace = {"__name__": "__main__"}
    label = ""
    try:
        for cell in cells:
            label = cell.label
            exec(cell.compiled(), namespace)
        label = "its checks"
        _run_checks(namespace)
    except Exception as error:
        raise Unsound(f"{label}: fails unbroken: {type(error).__name__}: {error}") from None


def _go_on(namespace, rest, names, source):
    """Execute a source in the place of the cell that defines these names, then all that depends on it."""
    for code in (compile(source, "mutant", "exec"), *rest):
        exec(code, namespace)
    _run_checks(namespace, names)


def _run_checks(namespace, names=()):
    """Run the checks that use one of these names; where none does, as for an answer's helpers, all."""
    checks = [value for value in namespace.values() if isinstance(value, Check)]
    for check in [check for check in checks if set(check.uses) & set(names)] or checks:
        for seed in SEEDS:
            check.run(seed)


def _ends_well(action, timeout):
    """Whether an action, in a forked process of its own, raises nothing and ends in time."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1] == 0
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process, whatever it is doing
        signal.setitimer(signal.ITIMER_REAL, timeout)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what is broken may warn
        action()
    except BaseException:  # not even SystemExit may lead back into the parent's code
        os._exit(1)
    os._exit(0)


# --- equivalents ---------------------------------------------------------------------------------


def equivalents(course=ROOT):
    """The mutants that the course's list of equivalents names. Raises Unsound where it is malformed."""
    path = course / EQUIVALENTS
    if not path.exists():
        return []
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise Unsound(f"{EQUIVALENTS}: {error}.") from None
    return [_listed(number, entry) for number, entry in enumerate(content.get("equivalent", []), 1)]


def _listed(number, entry):
    keys = [*(field.name for field in fields(Broken)), "reason"]
    if set(entry) != set(keys) or not all(isinstance(value, str) for value in entry.values()):
        raise Unsound(f"{EQUIVALENTS}, entry {number}: needs exactly the texts {', '.join(keys)}.")
    if not entry.pop("reason").strip():
        raise Unsound(f"{EQUIVALENTS}, entry {number}: the reason is empty; say why nothing can notice {entry}.")
    return Broken(**entry)


# --- all notebooks -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What came of one notebook: its mutants tried, survivors unlisted and listed, entries out of date."""

    path: Path
    tried: int = 0
    listed: int = 0
    unlisted: tuple = ()
    stale: tuple = ()
    seconds: float = 0.0
    unsound: str = ""

    HEAD = f"{'unit':24}{'part':10}{'tried':>7}{'killed':>8}{'listed':>8}{'survived':>10}{'seconds':>9}"

    def __str__(self):
        """The row below HEAD."""
        place = f"{self.path.stem:24}{_part(self.path):10}"
        if self.unsound:
            return f"{place} not judged"
        survived = len(self.unlisted)
        killed = self.tried - self.listed - survived
        return f"{place}{self.tried:7}{killed:8}{self.listed:8}{survived:10}{self.seconds:9.1f}"


def judge(path, listed, timeout=TIMEOUT):
    """The Verdict on a notebook, given what is listed as equivalent in the whole course."""
    start = time.monotonic()
    try:
        tried, found = survivors(path, timeout)
    except (Unsound, notebooks.NotebookError) as error:
        return Verdict(path, unsound=str(error))
    # Counted, so that one entry excuses one of two statements that read alike.
    found = Counter(found)
    own = Counter(broken for broken in listed if (broken.unit, broken.part) == (path.stem, _part(path)))
    return Verdict(
        path,
        tried,
        (found & own).total(),
        tuple((found - own).elements()),
        tuple((own - found).elements()),
        time.monotonic() - start,
    )


def verdicts(paths, listed, jobs):
    """Yield the Verdict on each notebook as it is found, several at a time, each in a forked process."""
    context = multiprocessing.get_context("fork")
    waiting, running = list(paths), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            receiver, sender = context.Pipe(duplex=False)
            path = waiting.pop(0)
            process = context.Process(target=_send_verdict, args=(sender, path, listed))
            process.start()
            sender.close()
            running[receiver] = path, process
        for receiver in wait(list(running)):
            path, process = running.pop(receiver)
            try:
                yield receiver.recv()
            except EOFError:
                yield Verdict(path, unsound=f"{notebooks.name_of(path)}: the process that judges it died.")
            process.join()


def _send_verdict(sender, path, listed):
    sender.send(judge(path, listed))


def main(arguments=None):
    """Judge notebooks and print a table. Returns the exit status: 0 where every mistake is noticed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("units", nargs="*", metavar="UNIT", help="as 51-softmax; all by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many notebooks at a time")
    parser.add_argument("--course", type=Path, default=ROOT, help="the folder that holds lectures and solutions")
    options = parser.parse_args(arguments)
    course = options.course.absolute()
    paths = sorted([*course.glob("lectures/*.ipynb"), *course.glob("solutions/*.ipynb")], key=lambda path: path.stem)
    unknown = set(options.units) - {path.stem for path in paths}
    if unknown:
        parser.error(f"there is no unit {', '.join(sorted(unknown))}.")
    if not hasattr(os, "fork"):
        parser.error("this system has no os.fork; CI runs the mutants.")
    try:
        listed = equivalents(course)
        _refuse_strangers(listed, paths)
    except Unsound as error:
        parser.error(str(error))
    _warm_up()
    chosen = [path for path in paths if not options.units or path.stem in options.units]
    return _print_table(verdicts(chosen, listed, options.jobs))


def _refuse_strangers(listed, paths):
    notebooks_there = {(path.stem, _part(path)) for path in paths}
    for broken in listed:
        if (broken.unit, broken.part) not in notebooks_there:
            raise Unsound(f"{EQUIVALENTS}: there is no {broken.part} {broken.unit}.")


def _warm_up():
    """Import before the first fork what notebooks import, with no thread that a fork would lose."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # with a GPU at hand, autograd starts threads
    import torch
    import torch.func
    import torch.fx.experimental.symbolic_shapes  # what a first Jacobian imports late

    torch.set_num_threads(1)
    draw.plt.switch_backend("agg")
    gc.collect()
    gc.freeze()  # so that no child's collector visits, and thereby copies, what all of them share


def _print_table(found):
    """Print a row a notebook, then what is wrong. Returns the exit status."""
    print(Verdict.HEAD)
    all_verdicts = []
    for verdict in found:
        print(verdict, flush=True)
        all_verdicts.append(verdict)
    all_verdicts.sort(key=lambda verdict: verdict.path)
    unsound = [verdict.unsound for verdict in all_verdicts if verdict.unsound]
    unlisted = [broken for verdict in all_verdicts for broken in verdict.unlisted]
    stale = [broken for verdict in all_verdicts for broken in verdict.stale]
    _print_list("Not judged:", unsound)
    _print_list(
        f"Nothing notices these. Make a check stricter, or list them in {EQUIVALENTS}, with the reason:", unlisted
    )
    _print_list(f"These are noticed, or not there: take them out of {EQUIVALENTS}.", stale)
    print(f"\n{sum(verdict.tried for verdict in all_verdicts)} mutants, {len(unlisted)} survived unlisted")
    return 1 if unsound or unlisted or stale else 0


def _print_list(title, items):
    if items:
        print(f"\n{title}", *items, sep="\n\n")


if __name__ == "__main__":
    sys.exit(main())
