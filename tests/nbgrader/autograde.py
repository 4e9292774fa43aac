"""nbgrader generates and autogrades an exercise from our source notebook. Run by tests/nbgrader/run."""

import json
import subprocess
import sys

import pytest
from nbgrader.api import Gradebook

from byhand import notebooks

STEM = "61-two-layer"
WRONG = """def hidden_jacobians(x, W0, b):
    return 2 * W0.T, 2 * np.kron(x, np.eye(b.size)), np.eye(b.size)"""


def nbgrader(course, *arguments):
    run = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments, f"--course={course}"],
        cwd=course,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == 0, run.stdout


def cells_of(path):
    return json.loads(path.read_text(encoding="utf-8"))


def submit(course, student, released, answers):
    """Hand in the released notebook with some answers, {grade_id: source}, in place."""
    notebook = json.loads(json.dumps(released))
    for cell in notebook["cells"]:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id")
        cell["source"] = answers.get(name, cell["source"])
    path = course / "submitted" / student / STEM / f"{STEM}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(notebook), encoding="utf-8")


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course that nbgrader has graded: an honest, a wrong and a blank submission."""
    course = tmp_path_factory.mktemp("course")
    command = [sys.executable, "-m", "byhand.cli", "release", "--nbgrader", "source"]
    solution = notebooks.ROOT / "solutions" / f"{STEM}.ipynb"
    subprocess.run([*command, solution], cwd=course, check=True)
    nbgrader(course, "generate_assignment", STEM, "--create")

    right = {
        cell.metadata["nbgrader"]["grade_id"]: cell.source
        for cell in notebooks.read(solution).cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }
    halves = "dz = np.array([1.0, -2.0, 1.0]) / 3\ndh = np.array([2.0, 0.0, -4.0, 0.0]) / 3"
    zeros = "def biased_two_layer_vjp(dL, values, x, W0, b, W1, t):\n    return 0 * x, 0 * W0, 0 * b, 0 * W1, None"
    wrong = {"dz": halves, "hidden_jacobians": WRONG, "biased_two_layer_vjp": zeros}
    released = cells_of(course / "release" / STEM / f"{STEM}.ipynb")
    submit(course, "honest", released, right)
    submit(course, "wrong", released, wrong)
    submit(course, "blank", released, {})
    nbgrader(course, "autograde", STEM, "--create")
    return course


def test_the_source_keeps_answers_and_drops_mistakes_and_outputs(course):
    source = cells_of(course / "source" / STEM / f"{STEM}.ipynb")["cells"]
    text = json.dumps(source)
    assert "np.kron(x, identity)" in text
    assert "mistake(" not in text
    assert not any(cell.get("outputs") for cell in source)


def test_nbgrader_takes_the_answers_out(course):
    text = json.dumps(cells_of(course / "release" / STEM / f"{STEM}.ipynb"))
    assert "np.kron(x, identity)" not in text
    assert "Model answer" not in text
    assert "def hidden_jacobians(x, W0, b)" in text


@pytest.mark.parametrize("student, points", [("honest", [1, 2, 3]), ("wrong", [0, 0, 0]), ("blank", [0, 0, 0])])
def test_points_of_the_checks(course, student, points):
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        submission = gradebook.find_submission_notebook(STEM, STEM, student)
        graded = {
            grade.name: (grade.auto_score, grade.max_score) for grade in submission.grades if grade.cell_type == "code"
        }
    assert sorted(score for score, _ in graded.values()) == points
    assert sorted(most for _, most in graded.values()) == [1, 2, 3]
