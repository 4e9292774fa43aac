"""The lecture is the library: the cells tagged `rule` of a lecture, as a module.

`taught("51-softmax").softmax_vjp` is the very function that the lecture derives, so projects,
later lectures and tests use the lines that were taught, and no rule is written twice.
"""

import ast
import builtins
import difflib
import functools
import json
import linecache
import symtable
import types
from pathlib import Path

LECTURES = Path(__file__).resolve().parents[1] / "lectures"


@functools.cache
def taught(stem):
    """The rules of one lecture, as a module.

    stem: the lecture's name without ".ipynb", as "61-two-layer". The module holds what the cells
    tagged `rule` define, and those of the lecture's imports that they use. Tracebacks show the
    rule's own lines.

    Raises LookupError when there is no such lecture (the text names the nearest ones), or when it
    has no cell tagged `rule`.
    """
    sources = rule_sources(stem)
    if not sources:
        raise LookupError(f"lectures/{stem}.ipynb teaches no rule: none of its cells is tagged `rule`.")
    module = types.ModuleType(stem, f"The rules that lectures/{stem}.ipynb teaches.")
    exec("\n".join(_imports_used(stem, sources)), vars(module))
    for number, source in sources.items():
        filename = f"lectures/{stem}.ipynb, cell {number}"
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        exec(compile(source, filename, "exec"), vars(module))
    return module


def rule_sources(stem):
    """{number of the cell, counted over code cells from 1: source} of the cells tagged `rule`."""
    tagged = ((n, cell) for n, cell in enumerate(_code_cells(stem), 1) if "rule" in cell["metadata"].get("tags", []))
    return {n: "".join(cell["source"]) for n, cell in tagged}


def free_names(source):
    """The names that a cell's source reads and neither defines nor finds among the builtins."""
    return _globals_read(symtable.symtable(source, "cell", "exec")) - defined_names(source) - set(dir(builtins))


def defined_names(source):
    """The names that the top level of a source binds."""
    symbols = symtable.symtable(source, "cell", "exec").get_symbols()
    return {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}


def _globals_read(table):
    read = (symbol for symbol in table.get_symbols() if symbol.is_referenced())
    top = table.get_type() == "module"
    names = {symbol.get_name() for symbol in read if top or symbol.is_global()}
    return names.union(*map(_globals_read, table.get_children()))


def _imports_used(stem, sources):
    """The lecture's import statements, each cut down to the names that its rules use."""
    needed = set().union(*map(free_names, sources.values()))
    for cell in _code_cells(stem):
        for node in ast.parse(_without_magics("".join(cell["source"]))).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                node.names = [alias for alias in node.names if _bound(alias) in needed]
                if node.names:
                    yield ast.unparse(node)


def _bound(alias):
    return alias.asname or alias.name.partition(".")[0]


def _without_magics(source):
    return "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))


def _code_cells(stem):
    path = LECTURES / f"{stem}.ipynb"
    if not path.is_file():
        raise LookupError(_no_lecture(stem))
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def _no_lecture(stem):
    if not LECTURES.is_dir():
        return f"There are no lectures at {LECTURES}. Install byhand from the course's folder: pip install -e ."
    stems = sorted(path.stem for path in LECTURES.glob("*.ipynb"))
    nearest = difflib.get_close_matches(str(stem), stems, n=3, cutoff=0.3) or stems[:3]
    return f"There is no lecture {stem!r}. Nearest: {', '.join(nearest)}."
