"""Grade the same honest submissions with `byhand grade`, nbgrader and otter, side by side.

    python benchmarks/grading.py --nbgrader PYTHON --otter PYTHON

PYTHON is the interpreter of an environment that has the peer and imports byhand and torch: see
tests/nbgrader/run for one on top of the course's own. Without it the peer is left out. Prints a
Markdown table: seconds a submission are marginal, (time of many - time of few) / (many - few), so
that starting up is not counted.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

from verify import Cost, adopt_orphans, cost_of

from byhand import notebooks

STEM = "51-softmax"
SOLUTION = notebooks.ROOT / "solutions" / f"{STEM}.ipynb"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs=2, default=[10, 100], help="submissions: few, many")
    parser.add_argument(
        "--peer-sizes", type=int, nargs=2, default=[2, 10], help="the same for the peers, which are slow"
    )
    parser.add_argument("--nbgrader", help="interpreter of an environment with nbgrader")
    parser.add_argument("--otter", help="interpreter of an environment with otter-grader")
    parser.add_argument("--own", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own:
        return print_own(options.own, *options.sizes)
    adopt_orphans()
    load, rows = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for workers in (1, 2):
            rows.append(row(f"`byhand grade --workers {workers}`", options.sizes, ours, folder, workers))
        own = [sys.executable, __file__, "--own", folder / f"ours-{options.sizes[1]}", "--sizes", *options.sizes]
        own = json.loads(cost(own)[1])
        for peer, package, python in ((nbgrader, "nbgrader", options.nbgrader), (otter, "otter-grader", options.otter)):
            if python:
                name = f"{package} {peer_version(python, package)}"
                rows.append(row(name, options.peer_sizes, peer, folder, python))
    print_table(rows, own, options.sizes, load)


def row(name, sizes, grade, folder, how):
    """(name, sizes, the Cost of each size, the marginal Cost)"""
    costs = []
    for number in sizes:
        costs.append(grade(folder, number, how))
        print(f"{name}, {number}: {costs[-1]}", file=sys.stderr)
    few, many = costs
    marginal = Cost(*((b - a) / (sizes[1] - sizes[0]) for a, b in zip(few, many, strict=True)))
    return name, sizes, costs, marginal


def cost(command, folder=None):
    """(Cost, output) of a command, the other commands of its environment in reach: nbgrader looks for one by name."""
    path = f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}"
    return cost_of(["env", f"PATH={path}", *map(str, command)], folder)


def peer_version(python, package):
    return cost([python, "-c", f"from importlib.metadata import version; print(version({package!r}))"])[1].strip()


def honest(released):
    """A released notebook with the solution's answers."""
    solved = {
        cell.metadata["nbgrader"]["grade_id"]: cell.source
        for cell in notebooks.read(SOLUTION).cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }
    notebook = notebooks.read(released)
    for cell in notebook.cells:
        cell.source = solved.get(cell.metadata.get("nbgrader", {}).get("grade_id"), cell.source)
    return notebook


def hand_in(folder, number, notebook, pattern):
    """Write the notebook for so many students; pattern: the path of one."""
    for student in range(number):
        path = folder / pattern.format(f"student{student:03}")
        path.parent.mkdir(parents=True, exist_ok=True)
        notebooks.write(path, notebook)


def refuse_unless(is_right, name, points):
    if not is_right:
        sys.exit(f"{name}: an honest submission should get full marks, found {points}.")


# --- the graders: each returns the Cost of grading alone --------------------------------------


def ours(folder, number, workers):
    place = folder / f"ours-{number}"
    hand_in(place, number, honest(notebooks.ROOT / "exercises" / f"{STEM}.ipynb"), f"{{}}/{STEM}.ipynb")
    out = folder / f"grades-{number}-{workers}"
    command = [sys.executable, "-m", "byhand.cli", "grade", place, "--out", out, "--workers", workers, "--seed", 1]
    found, _ = cost(command)
    results = json.loads((out / "grades.json").read_text(encoding="utf-8"))["results"]
    wrong = [result for result in results if result["status"] not in ("right", "manual")]
    refuse_unless(results and not wrong, "byhand grade", wrong[:1])
    return found


def nbgrader(folder, number, python):
    course = folder / f"nbgrader-{number}"
    course.mkdir()
    cost([sys.executable, "-m", "byhand.cli", "release", "--nbgrader", course / "source", SOLUTION])
    command = [python, "-m", "nbgrader"]
    cost([*command, "generate_assignment", STEM, "--create", f"--course={course}"], course)
    released = course / "release" / STEM / f"{STEM}.ipynb"
    hand_in(course / "submitted", number, honest(released), f"{{}}/{STEM}/{STEM}.ipynb")
    graded, _ = cost([*command, "autograde", STEM, "--create", f"--course={course}"], course)
    scores = (
        "select grade.auto_score, grade_cells.max_score from grade join grade_cells on grade.cell_id = grade_cells.id"
    )
    scores += " where grade.auto_score is not null"
    words = f"import json, sqlite3; print(json.dumps(sqlite3.connect('gradebook.db').execute({scores!r}).fetchall()))"
    found = json.loads(cost([python, "-c", words], course)[1])
    refuse_unless(found and all(score == most for score, most in found), "nbgrader", found)
    return graded


def otter(folder, number, python):
    place = folder / f"otter-{number}"
    write_otter(place, number, python)
    costs = []
    for path in sorted(place.glob("student*.ipynb")):
        costs.append(cost([python, "-m", "otter", "run", path.name, "-a", "autograder.zip", "-o", "."], place)[0])
        tests = json.loads((place / "results.json").read_text(encoding="utf-8"))["tests"]
        points = sum(test.get("score", 0) for test in tests)
        refuse_unless(points == sum(test.get("max_score", 0) for test in tests) > 0, "otter", tests)
    return Cost(*map(sum, zip(*costs, strict=True)))


def write_otter(place, number, python):
    """The same checks as otter's test files; the notebooks without them, so that each runs once."""
    (place / "tests").mkdir(parents=True)
    notebook = honest(notebooks.ROOT / "exercises" / f"{STEM}.ipynb")
    kept = []
    for cell in notebook.cells:
        check = notebooks.graded_check(cell.source) if cell.cell_type == "code" else None
        if check:
            lines = cell.source.split("\n")
            code = "\n".join([f">>> {lines[0]}", *(f"... {line}" for line in lines[1:]), "... "])
            words = f"{code}\n{check[0]}: right ({check[1]} point{'s' * (check[1] != 1)})"
            suite = {"cases": [{"code": words}], "scored": True, "setup": "", "teardown": "", "type": "doctest"}
            test = {"name": check[0], "points": check[1], "suites": [suite]}
            (place / "tests" / f"{check[0]}.py").write_text(f"OK_FORMAT = True\ntest = {test!r}\n", encoding="utf-8")
        else:
            kept.append(cell)
    notebook.cells = kept
    hand_in(place, number, notebook, "{}.ipynb")
    cost([python, "-m", "otter", "generate", "-t", "tests", "-o", "autograder.zip", "--no-environment"], place)


# --- what our time is spent on, and memory -------------------------------------------------------


def print_own(folder, few, many):
    """Print as JSON: seconds of each step in one process, and its peak memory after few and many."""
    from byhand.grading.judge import grade_one
    from byhand.grading.remote import Answers
    from byhand.grading.sandbox import Limits, Sandbox
    from byhand.grading.submission import find_submissions

    found = find_submissions(folder, notebooks.ROOT / "exercises")
    set_up = next(cell.source for cell in notebooks.read(SOLUTION).cells if "import numpy" in cell.source)
    steps = {"sandbox": [], "imports": [], "whole": []}
    memory = {}
    for number, submission in enumerate(found, 1):
        began = time.perf_counter()
        sandbox = Sandbox(Limits())
        started = time.perf_counter()
        Answers(lambda message, raw, box=sandbox: box.ask(message, raw, 30)).run(set_up, "set-up")
        imported = time.perf_counter()
        sandbox.stop()
        stopped = time.perf_counter()
        grade_one(submission, 1)
        steps["sandbox"].append(started - began + stopped - imported)
        steps["imports"].append(imported - started)
        steps["whole"].append(time.perf_counter() - stopped)
        memory[number] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    medians = {name: statistics.median(seconds) for name, seconds in steps.items()}
    print(json.dumps({**medians, "few": memory[few], "many": memory[many]}))


def print_table(rows, own, sizes, load):
    cells = (cell for cell in notebooks.read(SOLUTION).cells if cell.metadata.get("nbgrader", {}).get("locked"))
    print(f"{STEM}, {len(list(cells))} checks, honest submissions. {date.today()}, {cores()} cores, load {load:.1f}\n")
    # No CPU time: that of a sandbox which is killed with its namespace reaches nobody's account.
    print("| | submissions | in all | marginal seconds a submission |")
    print("|---|---|---|---|")
    for name, (few, many), costs, marginal in rows:
        walls = f"{costs[0].wall:.1f} s, {costs[1].wall:.1f} s"
        print(f"| {name} | {few}, {many} | {walls} | {marginal.wall:.2f} |")
    rest = own["whole"] - own["sandbox"] - own["imports"]
    steps = {"starting and ending the sandbox": own["sandbox"], "imports": own["imports"], "cells and checks": rest}
    shares = ", ".join(f"{what} {seconds / own['whole']:.0%}" for what, seconds in steps.items())
    print(f"\nOne submission in a warm process: {own['whole']:.2f} s; of it {shares}.")
    print(f"Peak memory of the judge: {own['few']:.0f} MB after {sizes[0]}, {own['many']:.0f} MB after {sizes[1]}.")
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "ipython"))
    print(f"Python {platform.python_version()}, {packages}.")


def cores():
    return {1: "one", 2: "two", 4: "four", 8: "eight"}.get(os.cpu_count(), os.cpu_count())


if __name__ == "__main__":
    main()
