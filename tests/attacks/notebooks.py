"""Submissions made from the released exercises: honest but for what an attack changes."""

import json

from byhand.notebooks import ROOT


def load(folder, stem):
    return json.loads((ROOT / folder / f"{stem}.ipynb").read_text(encoding="utf-8"))


def honest(stem):
    """The released exercise with the answers of its solution in it."""
    exercise = load("exercises", stem)
    solved = {cell["id"]: cell["source"] for cell in load("solutions", stem)["cells"]}
    for cell in exercise["cells"]:
        if mark(cell).get("solution"):
            cell["source"] = solved[cell["id"]]
    return exercise


def mark(cell):
    return cell["metadata"].get("nbgrader", {})


def answer(notebook, grade_id):
    """The cell of an answer."""
    return next(cell for cell in notebook["cells"] if mark(cell).get("grade_id") == grade_id)


def add(notebook, before, source):
    """Put a code cell of the student's own before an answer."""
    place = notebook["cells"].index(answer(notebook, before))
    cell = {"cell_type": "code", "id": f"mine-{place}", "metadata": {}, "source": source}
    notebook["cells"].insert(place, cell | {"outputs": [], "execution_count": None})


def questions(stem):
    """{grade_id of a question: its points}, in order."""
    marks = (mark(cell) for cell in load("exercises", stem)["cells"])
    return {found["grade_id"]: found["points"] for found in marks if found.get("grade")}
