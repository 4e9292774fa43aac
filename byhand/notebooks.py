"""Author notebooks: canonical form, running in place, and exercises made from solutions.

A solution is a notebook in which each answer stands between `### BEGIN SOLUTION` and
`### END SOLUTION` (in Markdown `<!-- BEGIN SOLUTION -->` and `<!-- END SOLUTION -->`). Its cells
tagged `mistake` or `solution` are for the reader of the solution alone. `release` turns it into the
exercise: answers become stubs, and those cells go. What stands in a check between
`### BEGIN HIDDEN TESTS` and `### END HIDDEN TESTS` goes too: only an instructor's copy has it.
"""

import ast
import base64
import contextlib
import copy
import io
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

import nbformat
from nbformat.v4.rwbase import rejoin_lines
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
KEPT_METADATA = ("tags", "mystnb", "nbgrader")
SOLUTION_ONLY = {"mistake", "solution"}
YOUR_ANSWER = "*Write your answer here, in place of this line.*"
CELL_TIMEOUT = 60  # seconds
# A kernel computes in one thread, here as under pytest: small arrays gain nothing from more.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class NotebookError(Exception):
    """A notebook cannot be read, run or released. The text says which, where and what to do."""


# --- reading and writing -------------------------------------------------------------------------


def read(path):
    """The notebook at path, as nbformat 4.5, its cells with ids.

    Raises NotebookError when the file is missing or is no notebook.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["nbformat"] != 4:
            raise NotebookError(f"{name_of(path)}: nbformat {raw['nbformat']}; save it as nbformat 4 with Jupyter.")
        notebook = nbformat.from_dict({**raw, "nbformat_minor": 5})
        _complete_ids(notebook, path.stem)
        nbformat.validate(notebook)
    except OSError as error:
        raise NotebookError(f"{name_of(path)}: cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, nbformat.ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise NotebookError(f"{name_of(path)}: this is not a notebook ({type(error).__name__}: {reason}).") from None
    # Markdown and code arrive as lists of lines or as text; from here on they are text.
    return rejoin_lines(notebook)


def write(path, notebook):
    """Write a notebook, all of it or nothing: a failure leaves the file as it was."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text_of(notebook))
        os.chmod(temporary, path.stat().st_mode if path.exists() else 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def text_of(notebook):
    """The file's text: sorted keys, one space of indent, a final newline."""
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def name_of(path):
    """The path as a message shows it: from the course's folder on, where it lies there."""
    path = Path(path).absolute()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _complete_ids(notebook, stem):
    """Give each cell without an id, or with an id already taken, the next free `<stem>-<n>`."""
    taken = {cell.get("id") for cell in notebook.cells}
    free = (name for n in range(1, 10_000) if (name := f"{stem}-{n}") not in taken)
    seen = set()
    for cell in notebook.cells:
        if not cell.get("id") or cell.id in seen:
            cell["id"] = next(free)
        seen.add(cell.id)


def canonical(notebook, stem):
    """The one form in which a notebook is kept.

    Stable cell ids; of the metadata only tags, mystnb and nbgrader; the standard kernel; no times;
    streams joined; code cells counted from 1 where they were run. In a solution, answers and checks
    carry nbgrader's metadata.
    """
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict(METADATA)
    _complete_ids(notebook, stem)
    count = 0
    for cell in notebook.cells:
        cell.metadata = {key: cell.metadata[key] for key in KEPT_METADATA if cell.metadata.get(key)}
        cell.source = "\n".join(line.rstrip() for line in cell.source.strip("\n").split("\n"))
        cell.pop("attachments", None)
        if cell.cell_type == "code":
            if cell.execution_count is not None:
                count += 1
                cell.execution_count = count
            cell.outputs = _canonical_outputs(cell.outputs, cell.execution_count)
    if any(_is_answer(cell) for cell in notebook.cells):
        for cell in notebook.cells:
            with _errors_named_after(cell):
                _mark_for_grading(cell)
    return nbformat.from_dict(notebook)


def _canonical_outputs(outputs, count):
    kept, streams = [], {}
    for output in outputs:
        if output.output_type == "stream" and output.name in streams:
            streams[output.name].text += output.text
            continue
        output.pop("transient", None)
        if output.output_type == "stream":
            streams[output.name] = output
        if "metadata" in output:
            output.metadata = {}
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = _with_palette(output.data["image/png"])
        if output.output_type == "execute_result":
            output.execution_count = count
        kept.append(output)
    return kept


def _with_palette(png):
    """The picture, in base64, with at most 128 colours: a third of the size, and looks the same.

    The PNG only stands in where the SVG cannot be shown. A picture with a palette is left as it is.
    """
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if picture.mode == "P":
        return png
    small = io.BytesIO()
    picture.convert("RGB").quantize(128).save(small, "png", optimize=True)
    return base64.encodebytes(small.getvalue()).decode("ascii")


@contextlib.contextmanager
def _errors_named_after(cell):
    try:
        yield
    except NotebookError as error:
        raise NotebookError(f"cell {cell.id}: {error}") from None


# --- what a cell is ------------------------------------------------------------------------------


def tags(cell):
    """The set of a cell's tags."""
    return set(cell.metadata.get("tags", []))


def _is_answer(cell):
    return "BEGIN SOLUTION" in cell.source


def graded_check(source):
    """(name, points) of the check that a cell's source holds, or None. Raises NotebookError for two."""
    found = []
    for node in _parsed(source).body:
        if isinstance(node, ast.FunctionDef):
            found += [(node.name, _points(item)) for item in node.decorator_list if _is_check(item)]
    if len(found) > 1:
        raise NotebookError(f"one check a cell: {', '.join(name for name, _ in found)} stand in one.")
    return found[0] if found else None


def _is_check(decorator):
    function = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(function, ast.Name) and function.id == "check"


def _points(decorator):
    keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
    return next((ast.literal_eval(item.value) for item in keywords if item.arg == "points"), 1)


def answer_names(source):
    """The names that an answer cell defines, in order: functions, classes and assigned values."""
    names = []
    for node in _parsed(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        else:
            names += [target.id for target in _assigned(node)]
    return names


def _assigned(node):
    """The plain names that a statement assigns, those of a tuple one by one."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [item for target in targets for item in ast.walk(target) if isinstance(item, ast.Name)]


def _parsed(source):
    """The syntax tree of a cell, IPython's line magics left out. Raises NotebookError."""
    lines = ("" if line.startswith(("%", "!")) else line for line in source.splitlines())
    try:
        return ast.parse("\n".join(lines))
    except SyntaxError as error:
        raise NotebookError(f"line {error.lineno} does not parse: {error.msg}.") from None


def _mark_for_grading(cell):
    """Write nbgrader's metadata (schema version 3) of an answer, a check or a written answer."""
    cell.metadata.pop("nbgrader", None)
    if cell.cell_type == "code":
        check = None if tags(cell) & SOLUTION_ONLY else graded_check(cell.source)
        if check:
            _set_grading(cell, check[0], points=check[1], locked=True)
        elif _is_answer(cell):
            _set_grading(cell, answer_names(stub(cell.source))[0], solution=True)
    elif _is_answer(cell):
        _set_grading(cell, cell.id, points=_written_points(cell), solution=True)


def _set_grading(cell, grade_id, points=None, solution=False, locked=False):
    marks = {
        "cell_type": cell.cell_type,
        "grade": points is not None,
        "grade_id": grade_id,
        "locked": locked,
    }
    marks |= {"schema_version": 3, "solution": solution, "task": False}
    if points is not None:
        marks["points"] = points
    cell.metadata["nbgrader"] = marks


def _written_points(cell):
    found = re.findall(r"\((\d+) points?\)", cell.source)
    if len(found) != 1:
        raise NotebookError("a written answer says once what it is worth, as in '(2 points)'.")
    return int(found[0])


# --- running -------------------------------------------------------------------------------------


def run(path, on_cell=lambda number, cells: None):
    """Execute a notebook in its own folder and write it back in canonical form.

    on_cell(number, cells) is called after each cell. Raises NotebookError, the file untouched, when
    the notebook cannot be read, its kernel is missing, or a cell fails or takes over 60 s.
    """
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = read(path)
    kernel = notebook.metadata.get("kernelspec", {}).get("name", "python3")
    current = {}
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name=kernel,
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        on_cell_start=lambda cell, cell_index: current.update(cell=cell),
        on_cell_complete=lambda cell, cell_index: on_cell(cell_index + 1, len(notebook.cells)),
    )
    try:
        # ipykernel warns on stderr of what is normal on one machine
        client.execute(stderr=subprocess.DEVNULL, env=os.environ | ONE_THREAD)
    except NoSuchKernel:
        raise NotebookError(
            f"{name_of(path)}: there is no kernel {kernel!r} here. The course runs on python3: "
            "choose it in Jupyter, or install ipykernel in this environment."
        ) from None
    except CellExecutionError as error:
        raise NotebookError(f"{_place(path, notebook, current)}: {_words(error)}") from None
    except CellTimeoutError:
        raise NotebookError(f"{_place(path, notebook, current)}: took longer than {CELL_TIMEOUT} s.") from None
    except DeadKernelError:
        raise NotebookError(f"{_place(path, notebook, current)}: the kernel died.") from None
    _refuse_failed_displays(path, notebook)
    write(path, canonical(notebook, path.stem))


def _refuse_failed_displays(path, notebook):
    """IPython stores an error while it draws a figure as an output, and goes on."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise NotebookError(f"{_place(path, notebook, {'cell': cell})}: {_words(output)}")


def _words(error):
    """What a failed cell or display says: its exception, or where that has no name the last line of its traceback."""
    if error.ename and error.ename != "NoneType":
        return f"{error.ename}: {error.evalue}"
    traceback = error.traceback if isinstance(error.traceback, str) else "\n".join(error.traceback)
    return re.sub(r"\x1b\[[0-9;]*m", "", traceback).strip().splitlines()[-1]


def _place(path, notebook, current):
    code = [cell.id for cell in notebook.cells if cell.cell_type == "code"]
    cell = current.get("cell")
    if cell is None:
        return name_of(path)
    return f"{name_of(path)}, code cell {code.index(cell.id) + 1} (id {cell.id})"


# --- solution to exercise ------------------------------------------------------------------------


def release(solution, stem, keep_hidden=False):
    """The exercise that a solution notebook becomes.

    Cells tagged `mistake` or `solution` go, answers become stubs, hidden tests go, nothing has outputs;
    cell ids stay. keep_hidden=True leaves the hidden tests in: so an instructor grades.
    Raises NotebookError, with the cell, where the markers or an answer cannot be understood.
    """
    exercise = nbgrader_source(solution, stem)
    for cell in exercise.cells:
        with _errors_named_after(cell):
            if _is_answer(cell):
                cell.source = stub(cell.source) if cell.cell_type == "code" else _written_stub(cell.source)
            if cell.cell_type == "code" and not keep_hidden:
                cell.source = without_hidden_tests(cell.source)
    return exercise


def nbgrader_source(solution, stem):
    """What nbgrader calls a source notebook: the solution with its markers, for students' eyes otherwise.

    Cells tagged `mistake` or `solution`, all outputs and the alt texts of answers go. Raises NotebookError.
    """
    source = canonical(solution, stem)
    source.cells = [cell for cell in source.cells if not tags(cell) & SOLUTION_ONLY]
    for cell in source.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if _is_answer(cell):
            cell.metadata.pop("mystnb", None)  # its figure's alt text tells what the answer shows
    return source


def without_hidden_tests(source):
    """A code cell's source without what stands between `### BEGIN HIDDEN TESTS` and `### END HIDDEN TESTS`.

    Raises NotebookError when a check has nothing left that compares: at home it would always pass.
    """
    if "HIDDEN TESTS" not in source:
        return source
    regions = _regions(source, "HIDDEN TESTS")
    visible = "\n".join(line for is_hidden, lines in regions if not is_hidden for line in lines)
    hidden_check = graded_check(source)
    if hidden_check and ("same(" not in visible or graded_check(visible) != hidden_check):
        raise NotebookError(f"{hidden_check[0]} needs a visible test too: leave a `same(...)` outside the markers.")
    return visible


def stub(source):
    """An answer's source without the answer: functions raise NotImplementedError, values are `...`."""
    kept = []
    for is_answer, lines in _regions(source):
        kept += _stub_lines(lines) if is_answer else lines
    return "\n".join(kept)


def _written_stub(source):
    return "\n".join(line for is_answer, lines in _regions(source) for line in ([YOUR_ANSWER] if is_answer else lines))


def _regions(source, what="SOLUTION"):
    """(does it stand between the markers, its lines), in order. Raises NotebookError for markers that do not pair."""
    regions, inside = [(False, [])], False
    for line in source.split("\n"):
        begins, ends = f"BEGIN {what}" in line, f"END {what}" in line
        if begins or ends:
            if begins == inside:
                raise NotebookError(f"BEGIN {what} and END {what} do not pair.")
            inside = begins
            regions.append((inside, []))
        else:
            regions[-1][1].append(line)
    if inside:
        raise NotebookError(f"BEGIN {what} has no END {what}.")
    return regions


def _stub_lines(lines):
    """What stands in the exercise for the lines of one answer."""
    text = next((line for line in lines if line.strip()), "")
    indent = text[: len(text) - len(text.lstrip())]
    if indent:
        return [f"{indent}raise NotImplementedError"]
    stubs = []
    for node in _parsed("\n".join(lines)).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            raise NotebookError(f"put the markers inside {node.name}, so that its signature stays.")
        comment = lines[node.end_lineno - 1][node.end_col_offset :].strip()
        stubs += [f"{target.id} = ...  {comment}".rstrip() for target in _assigned(node)]
    if not stubs:
        raise NotebookError("the answer between the markers defines nothing.")
    return stubs


def changed_answers(exercise, released):
    """The cells of an exercise that hold somebody's work: ids of answers that were given, and of cells added."""
    stubs = {cell.id: cell for cell in released.cells}
    changed = []
    for cell in exercise.cells:
        if cell.id not in stubs:
            # Cells that an earlier release wrote are named after the stem; others were added by hand.
            was_added = not cell.id.startswith(_stem_of(released)) and cell.source.strip()
            changed += [cell.id] if was_added else []
        elif stubs[cell.id].metadata.get("nbgrader", {}).get("solution"):
            changed += [cell.id] if _was_answered(cell, stubs[cell.id].source) else []
    return changed


def _stem_of(released):
    """The stem that most of a released notebook's ids start with."""
    return released.cells[0].id.rpartition("-")[0]


def _was_answered(cell, stub_source):
    if cell.source == stub_source:
        return False
    if cell.cell_type != "code":
        return YOUR_ANSWER not in cell.source
    try:
        defined, unanswered = _definitions(cell.source)
    except NotebookError:
        return True
    return bool(_definitions(stub_source)[1] & defined - unanswered)


def _definitions(source):
    """(every name that a source defines, those that are still stubs), methods as Class.method."""
    defined, unanswered = set(), set()

    def visit(nodes, prefix=""):
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef):
                defined.add(prefix + node.name)
                unanswered.update([prefix + node.name] if _raises_not_implemented(node) else [])
            else:
                names = {prefix + target.id for target in _assigned(node)}
                defined.update(names)
                unanswered.update(names if getattr(node.value, "value", None) is ... else []) if names else None

    visit(_parsed(source).body)
    return defined, unanswered


def _raises_not_implemented(function):
    return any(
        isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name) and node.exc.id == "NotImplementedError"
        for node in function.body
    )


def release_file(solution_path, exercise_path, force=False):
    """Write the exercise of a solution; returns whether the file changed.

    Raises NotebookError when the solution cannot be released, or when the exercise holds answers
    that would be lost and force is not given.
    """
    released = released_from(solution_path)
    if exercise_path.exists():
        present = exercise_path.read_text(encoding="utf-8")
        if present == text_of(released):
            return False
        if not force:
            changed = changed_answers(read(exercise_path), released)
            if changed:
                raise NotebookError(
                    f"{name_of(exercise_path)} holds answers that would be lost (cells {', '.join(changed)}). "
                    "Move it away, or give --force to overwrite it."
                )
    write(exercise_path, released)
    return True


def released_from(solution_path):
    """The exercise of the solution at a path. Raises NotebookError."""
    return release(read(solution_path), solution_path.stem)
