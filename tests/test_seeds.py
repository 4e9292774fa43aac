"""No check may fail a right answer: each runs on many seeds, with the answers of its solution."""

import matplotlib.pyplot
import pytest

from byhand import notebooks
from byhand.check import Check

SOLUTIONS = sorted((notebooks.ROOT / "solutions").glob("*.ipynb"))
MANY = range(100)


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_right_answers_pass_on_many_seeds(path, monkeypatch, capsys):
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(matplotlib.pyplot, "show", lambda: matplotlib.pyplot.close("all"))
    namespace = {"__name__": "solution"}
    for cell in notebooks.nbgrader_source(notebooks.read(path), path.stem).cells:
        if cell.cell_type == "code":
            exec(cell.source, namespace)
            for check in [value for value in namespace.values() if isinstance(value, Check)]:
                del namespace[check.name]
                for seed in MANY:
                    check.run(seed)
