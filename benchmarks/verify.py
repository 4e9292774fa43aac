"""Three ways to check the lectures and solutions, side by side: stock nbval, nbmake, and this course's `pytest`.

    python -m pip install -r benchmarks/requirements.txt
    python benchmarks/verify.py [--notebooks N] [--repeat N]

Prints a Markdown table. CPU time is that of the whole process tree: every process is waited for by
the one that started it or, if that one is gone, by this script, which adopts orphans (Linux). Each
run first measures a known load in this way, and stops if it is not found again.
"""

import argparse
import ctypes
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from datetime import date
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLAIN = ["--noconftest", "-o", "addopts="]  # without this repository's collector and options
PEERS = {
    "`pytest --nbval`, serial": ["--nbval", "--nbval-current-env", *PLAIN],
    "`pytest --nbmake`, serial": ["--nbmake", *PLAIN],
    "`pytest`, here": [],
}
PACKAGES = ["pytest", "nbval", "nbmake", "pytest-xdist", "ipykernel", "torch", "numpy", "matplotlib"]
PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl
Cost = namedtuple("Cost", "wall cpu")
Counts = namedtuple("Counts", "notebooks cells")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--notebooks", type=int, help="only so many, the first of the course (default: all)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each peer; the median counts")
    parser.add_argument("--own", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own:
        return print_own(options.own)
    adopt_orphans()
    known = known_load()
    with tempfile.TemporaryDirectory() as folder:
        counts = copy_course(Path(folder), options.notebooks)
        own, costs = measure(folder, counts, options.repeat)
    print_table(costs, own, counts, known, options.repeat)


# --- measuring -----------------------------------------------------------------------------------


def adopt_orphans():
    if sys.platform != "linux" or ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1) != 0:
        sys.exit("Orphans cannot be adopted on this system, so CPU time cannot be measured.")


def cost_of(command, folder=None):
    """(Cost of a command and of all that it starts, what it prints). Exits when it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    cpu, wall = cpu_of_children(), time.perf_counter()
    run = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wall = time.perf_counter() - wall
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    if run.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{run.stdout}")
    return Cost(wall, cpu_of_children() - cpu), run.stdout


def cpu_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def known_load():
    """CPU seconds found of a load of 4: a child, its child, and an orphan whose parent does not wait."""
    work = "import os, subprocess, sys, time\ndef work():\n    while time.process_time() < 1: pass\n"
    child = work + "if not os.fork(): work(); os._exit(0)\nos.wait(); work()"
    parent = (
        work + f"subprocess.run([sys.executable, '-c', {child!r}])\nif os.fork(): work()\nelse: os.setsid(); work()"
    )
    cost, _ = cost_of([sys.executable, "-c", parent])
    if not 3.8 < cost.cpu < 4.3:
        sys.exit(f"Of a load of 4 s of CPU time {cost.cpu:.1f} s were found: the measurement cannot be trusted.")
    return cost.cpu


def measure(folder, counts, repeat):
    """Median CPU seconds of the cells alone, and {peer: its median Cost}.

    All take turns, so that a slow minute of the machine hits all of them.
    """
    own, costs = [], {name: [] for name in PEERS}
    for turn in range(repeat + 1):
        if turn == 1:  # the first turn wrote bytecode and filled the disk's cache
            own, costs = [], {name: [] for name in PEERS}
        own.append(own_computation(folder))
        for name, options in PEERS.items():
            expected = counts.notebooks if "nbmake" in name else counts.cells
            costs[name].append(checked_cost(name, options, folder, expected))
    return statistics.median(own), {name: median_cost(found) for name, found in costs.items()}


def checked_cost(name, options, folder, expected):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    cost, text = cost_of(command, folder)
    if f"{expected} passed" not in text:
        sys.exit(f"{name}: {expected} should have passed.\n{text}")
    print(f"{name}: {cost.wall:.1f} s, CPU {cost.cpu:.1f} s", file=sys.stderr)
    return cost


def median_cost(costs):
    return Cost(*map(statistics.median, zip(*costs, strict=True)))


# --- the notebooks -------------------------------------------------------------------------------


def copy_course(folder, most):
    """Copies the lectures and solutions, in the order of the course, at most so many. Returns the Counts."""
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    originals = sorted([*ROOT.glob("lectures/*.ipynb"), *ROOT.glob("solutions/*.ipynb")], key=lambda path: path.name)
    cells = 0
    for original in originals[:most]:
        copy = folder / original.parent.name / original.name
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(original, copy)
        cells += len(code_cells(copy))
    return Counts(len(originals[:most]), cells)


def code_cells(path):
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def own_computation(folder):
    """CPU seconds of the cells alone, found in one process that has imported and done everything once."""
    paths = sorted(Path(folder).glob("*/*.ipynb"))
    _, text = cost_of([sys.executable, __file__, "--own", *paths])
    return float(text)


def print_own(paths):
    """Run all notebooks twice in one IPython shell; print what the cells cost the second time."""
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell.instance()
    for _ in range(2):
        spent = 0.0
        for path in paths:
            shell.reset()
            os.chdir(Path(path).parent)
            for source in code_cells(path):
                with capture_output():
                    began = time.process_time()
                    result = shell.run_cell(source)
                    spent += time.process_time() - began
                result.raise_error()
    print(spent)


# --- the table -----------------------------------------------------------------------------------


def print_table(costs, own, counts, known, repeat):
    stock = next(iter(costs.values()))
    print(f"{counts.notebooks} notebooks, {counts.cells} code cells. {date.today()}, {os.cpu_count()} cores, ", end="")
    print(f"median of {repeat} runs.")
    print(f"The cells' own computation: {own:.1f} s. Of a known load of 4 s of CPU time {known:.2f} s were found.\n")
    print("| | wall | of stock | CPU | of stock | CPU that is not the cells' own | compares outputs |")
    print("|---|---|---|---|---|---|---|")
    for name, cost in costs.items():
        ratios = cost.wall / stock.wall, cost.cpu / stock.cpu
        compares = "no" if "nbmake" in name else "yes"
        print(
            f"| {name} | {cost.wall:.1f} s | {ratios[0]:.2f} | {cost.cpu:.1f} s | {ratios[1]:.2f} "
            f"| {1 - own / cost.cpu:.0%} | {compares} |"
        )
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    print(f"\nPython {platform.python_version()}, {versions}.")


if __name__ == "__main__":
    main()
