"""Grade the reference solutions over many seeds: a check that a right answer can fail is no check.

    python benchmarks/seeds.py [SEEDS]

1,000 seeds by default, several cases of each check a seed. Prints a row an exercise, and exits with 1
when a solution was ever given less than full marks.
"""

import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

from byhand.grading.judge import CASES, grade_one
from byhand.grading.submission import Submission
from byhand.notebooks import ROOT, nbgrader_source, read, write

WORKERS = 2


def failures(path, seed):
    """(seed, question, reason) of every check of a solution that is not right."""
    release = ROOT / "exercises" / path.name
    results = grade_one(Submission("reference", path.stem, path, release), seed)
    return [(seed, found.question, found.reason) for found in results if found.status not in ("right", "manual")]


def main(seeds=1000):
    """Grade every solution over this many seeds. Returns the exit status."""
    print("| exercise | seeds | cases of each check | not full marks | seconds |\n|---|---|---|---|---|")
    found = []
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(WORKERS) as executor:
        for solution in sorted((ROOT / "solutions").glob("*.ipynb")):
            path = Path(folder, solution.name)
            write(path, nbgrader_source(read(solution), solution.stem))  # without the mistakes
            start = time.monotonic()
            wrong = list(chain.from_iterable(executor.map(partial(failures, path), range(seeds), chunksize=10)))
            print(f"| {path.stem} | {seeds} | {CASES} | {len(wrong)} | {time.monotonic() - start:.0f} |", flush=True)
            found += wrong
    for failure in found:
        print(*failure)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
