"""What is taken from a submission: the sources of its cells, and nothing else.

The instructor's release says which cells there are. A submitted notebook is read as plain JSON; the
sources of its answers are matched to the release by grade_id, then by cell id. Cells that the
student added are kept where they stand. Everything else in the file is ignored.
"""

import ast
import csv
import errno
import json
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from byhand import notebooks

LARGEST = 20 << 20  # bytes of a notebook
MOST_CELLS = 2000
STUDENT_SIDE = "student-side"


@dataclass(frozen=True)
class Submission:
    """One student's notebook for one exercise.

    stem: the exercise. path: the notebook handed in, or None for nothing. release: the instructor's
    own copy of the exercise.
    """

    student: str
    stem: str
    path: Path | None
    release: Path


class Unreadable(Exception):
    """A submitted file is no notebook that can be graded. The text says why, for the student."""


@dataclass(frozen=True)
class Cell:
    """A cell to grade by.

    kind: "given" (runs on both sides), "student-side" (runs in the sandbox only), "answer",
    "added" (by the student), "check", or "written". names: what an answer or a student-side cell
    defines, for a check the names it reads. problem: why an answer cannot be used, or "".
    """

    id: str
    kind: str
    source: str
    names: frozenset = frozenset()
    question: str = ""
    maximum: float = 0.0
    problem: str = ""
    status: str = ""
    stub: str = ""


# --- the instructor's release --------------------------------------------------------------------


def release_cells(path):
    """The cells of an instructor's notebook that matter for grading. Raises NotebookError."""
    notebook = notebooks.read(path)
    if any("BEGIN SOLUTION" in cell.source for cell in notebook.cells):
        raise notebooks.NotebookError(
            f"{notebooks.name_of(path)} holds answers, which a submission could read. "
            "Grade by exercises: `byhand release --hidden DIR` writes them with their hidden tests."
        )
    return [made for cell in notebook.cells if (made := _released(cell))]


def _released(cell):
    marks = cell.metadata.get("nbgrader", {})
    question, maximum = marks.get("grade_id", ""), float(marks.get("points", 0))
    if cell.cell_type == "code":
        source = "\n".join("" if line.startswith(("%", "!")) else line for line in cell.source.splitlines())
        if marks.get("grade"):
            return Cell(cell.id, "check", source, _names_read(source), question, maximum)
        names = frozenset(notebooks.answer_names(source))
        if marks.get("solution"):
            return Cell(cell.id, "answer", source, names, question, stub=source)
        if STUDENT_SIDE in notebooks.tags(cell):
            return Cell(cell.id, STUDENT_SIDE, source, names)
        return Cell(cell.id, "given", source)
    if marks.get("grade") and marks.get("solution"):
        return Cell(cell.id, "written", cell.source, question=question, maximum=maximum, stub=cell.source)
    return None


def _names_read(source):
    return frozenset(node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))


# --- the student's notebook ----------------------------------------------------------------------


def merged(released, path):
    """The cells of a release with the student's answers in them, and the cells that were added.

    An answer that is missing, doubled or of another type keeps its place, with `problem` and
    `status` set. Raises Unreadable for a file that is no notebook.
    """
    found = _read(path)
    owners, cells = {}, []
    for cell in released:
        if cell.kind in ("answer", "written"):
            candidates = _candidates(cell, found)
            owners |= {number: cell.id for number in candidates}
            cell = _answered(cell, [found[number] for number in candidates])
        cells.append(cell)
    return _with_added(cells, found, owners)


def _candidates(cell, found):
    """The numbers of the student's cells that claim to be this one; one of them, if all is well."""
    by_mark = [number for number, theirs in enumerate(found) if theirs["mark"] == cell.question]
    exact = [number for number in by_mark if found[number]["id"] == cell.id]
    if len(by_mark) > 1 and len(exact) == 1:  # a copy of an answer keeps its mark and gets a new id
        return exact
    return by_mark or [number for number, theirs in enumerate(found) if theirs["id"] == cell.id]


def _answered(cell, theirs):
    expected = "markdown" if cell.kind == "written" else "code"
    if not theirs:
        return replace(cell, source="", status="missing", problem="The cell of this answer is not in the notebook.")
    if len(theirs) > 1:
        words = f"{len(theirs)} cells are marked as this answer. Keep one of them."
        return replace(cell, source="", status="unreadable", problem=words)
    if theirs[0]["type"] != expected:
        words = f"The cell of this answer is of type {theirs[0]['type'][:20]!r}. Make it a {expected} cell again."
        return replace(cell, source=theirs[0]["source"], status="missing", problem=words)
    return replace(cell, source=theirs[0]["source"])


def _with_added(cells, found, owners):
    """The cells in the release's order, each followed by what the student added after it."""
    ids = {cell.id for cell in cells}
    after, place = {}, None
    for number, theirs in enumerate(found):
        known = owners.get(number) or (theirs["id"] if theirs["id"] in ids else None)
        if known:
            place = known
        elif theirs["type"] == "code" and theirs["source"].strip():
            after.setdefault(place, []).append(Cell(f"added-{number}", "added", theirs["source"]))
    merged = list(after.get(None, []))
    for cell in cells:
        merged += [cell, *after.get(cell.id, [])]
    return merged


def _read(path):
    """The student's cells as [{id, mark, type, source}]: strings, whatever the file holds."""
    try:
        notebook = json.loads(_bytes_of(path).decode("utf-8-sig"))
        if notebook["nbformat"] != 4:
            raise Unreadable(f"This is nbformat {str(notebook['nbformat'])[:20]}. Save it as nbformat 4 with Jupyter.")
        cells = notebook["cells"]
        if len(cells) > MOST_CELLS:
            raise Unreadable(f"This notebook has {len(cells)} cells, more than {MOST_CELLS}.")
        return [_plain(cell) for cell in cells]
    except RecursionError:
        raise Unreadable("This is not a notebook: its JSON is nested too deeply.") from None
    except OSError as error:
        words = "it is a symbolic link" if error.errno in (errno.ELOOP, errno.ENOTDIR) else error.strerror
        raise Unreadable(f"This file cannot be read: {words}.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        words = str(error).splitlines()[0][:200] if str(error) else ""
        raise Unreadable(f"This is not a notebook ({type(error).__name__}: {words}).") from None


def _plain(cell):
    marks = cell["metadata"].get("nbgrader")
    source = cell["source"]
    return {
        "id": _text(cell.get("id")),
        "mark": _text(marks.get("grade_id")) if isinstance(marks, dict) else "",
        "type": _text(cell["cell_type"]),
        "source": _text(source if isinstance(source, str) else "".join(source)),
    }


def _text(value):
    """value if it is text, as text that can be written; else ""."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""


def _bytes_of(path):
    """A regular file's bytes. Neither the file nor the folder it lies in may be a symbolic link."""
    path = Path(path).absolute()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        file = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise Unreadable("This is not a regular file.")
        content = opened.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise Unreadable(f"This file is larger than {LARGEST >> 20} MB. Clear the outputs and save it again.")
    return content


# --- finding submissions -------------------------------------------------------------------------


def find_submissions(source, release_folder, roster=None, exercise=None):
    """A Submission for every student and exercise, those that are not there with path None.

    source: a folder of `<student>/<stem>.ipynb`, a flat folder of `<student>_<stem>.ipynb`, or one
    file. release_folder: where `<stem>.ipynb` of the instructor lies. roster: a CSV file with a
    column `student`; without one, the students are those who are found. exercise: the one stem to
    look for; without it, all that somebody handed in.

    Raises NotebookError when there is nothing to grade by, or nothing to grade.
    """
    source, release_folder = Path(source), Path(release_folder)
    stems = [exercise] if exercise else sorted(path.stem for path in release_folder.glob("*.ipynb"))
    missing = [stem for stem in stems if not (release_folder / f"{stem}.ipynb").is_file()]
    if missing or not stems:
        raise notebooks.NotebookError(f"{release_folder}: there is no {', '.join(missing) or 'exercise'} to grade by.")
    if not os.path.lexists(source):
        raise notebooks.NotebookError(f"{source}: there is no such file or folder of submissions.")
    students, files = _found(source, stems)
    students |= set(_on_roster(roster)) if roster else set()
    sought = [exercise] if exercise else sorted({stem for _, stem in files})
    if not students or not sought:
        raise notebooks.NotebookError(
            f"{source}: there are no submissions. Expected STUDENT/STEM.ipynb or STUDENT_STEM.ipynb, "
            f"where STEM is one of {', '.join(stems)}."
        )
    return [
        Submission(student, stem, files.get((student, stem)), release_folder / f"{stem}.ipynb")
        for student in sorted(students)
        for stem in sought
    ]


def _found(source, stems):
    """(students, {(student, stem): path}) of a folder or a file. Symbolic links are not followed."""
    if source.suffix == ".ipynb":
        student, stem = _parts(source.name, stems)
        files = {(student or source.absolute().parent.name, stem): source} if stem else {}
        return {student for student, _ in files}, files
    students, files = set(), {}
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        student, stem = _parts(entry.name, stems)
        if entry.name.startswith("."):
            continue
        if student and stem:
            files[student, stem] = Path(entry.path)
        elif entry.is_dir(follow_symlinks=False):
            students.add(entry.name)
            files |= _in_folder(entry, stems)
        elif entry.is_symlink():
            students.add(entry.name)  # their row says that there is no notebook
    return students | {student for student, _ in files}, files


def _in_folder(folder, stems):
    paths = {stem: Path(folder.path, f"{stem}.ipynb") for stem in stems}
    return {(folder.name, stem): path for stem, path in paths.items() if os.path.lexists(path)}


def _parts(name, stems):
    """(student, stem) of a file's name; "" for what it does not say."""
    for stem in stems:
        if name == f"{stem}.ipynb":
            return "", stem
        if name.endswith(f"_{stem}.ipynb"):
            return name.removesuffix(f"_{stem}.ipynb"), stem
    return "", ""


def _on_roster(path):
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise notebooks.NotebookError(f"{path}: the roster cannot be read: {error}.") from None
    if not rows or "student" not in rows[0]:
        raise notebooks.NotebookError(f"{path}: the roster needs a first line that names a column `student`.")
    return [name for row in rows if (name := (row["student"] or "").strip())]
