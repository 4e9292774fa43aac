"""The command `byhand`: run notebooks in place, make exercises from solutions, and grade what comes back."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from byhand import notebooks
from byhand.grading.command import grade
from byhand.new import scaffold
from byhand.notebooks import ROOT, NotebookError, name_of
from byhand.site import site

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Author and check the course's notebooks.")
console = Console(stderr=True, soft_wrap=True, highlight=False)

Paths = Annotated[list[Path] | None, typer.Argument(help="Notebooks, or folders of notebooks.")]

app.command()(grade)
app.command()(site)


@app.command()
def run(paths: Paths = None):
    """Execute notebooks in place and write them in canonical form (default: lectures and solutions)."""
    _for_each(_found(paths, "lectures", "solutions"), "run", _run_one)


def _run_one(path, progress, task):
    if path.parent == ROOT / "exercises":
        raise NotebookError(f"{name_of(path)}: exercises keep no outputs; run the solution, then `byhand release`.")
    notebooks.run(path, lambda number, cells: progress.update(task, completed=number, total=cells))
    return True


@app.command()
def tidy(
    paths: Paths = None,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; fail where a file would change.")] = False,
):
    """Write notebooks in canonical form without running them (default: lectures and solutions)."""

    def tidy_one(path, progress, task):
        text = notebooks.text_of(notebooks.canonical(notebooks.read(path), path.stem))
        if text == path.read_text(encoding="utf-8"):
            return False
        if check:
            raise NotebookError(f"{name_of(path)}: not in canonical form; run `byhand tidy {name_of(path)}`.")
        notebooks.write(path, notebooks.canonical(notebooks.read(path), path.stem))
        return True

    _for_each(_found(paths, "lectures", "solutions"), "tidied", tidy_one)


@app.command()
def release(
    paths: Paths = None,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; fail where an exercise differs.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite exercises whose answers were changed.")] = False,
    nbgrader: Annotated[
        Path | None,
        typer.Option("--nbgrader", metavar="DIR", help="Write nbgrader source notebooks there instead: DIR/STEM/."),
    ] = None,
    hidden: Annotated[
        Path | None,
        typer.Option(
            "--hidden", metavar="DIR", help="Write exercises that keep hidden tests there instead, to grade by."
        ),
    ] = None,
):
    """Make the exercises from the solutions (default: all of them)."""
    solutions = _found(paths, "solutions")
    if nbgrader or hidden:
        made = notebooks.nbgrader_source if nbgrader else partial(notebooks.release, keep_hidden=True)
        _for_each(solutions, "written", lambda path, *_: _write_elsewhere(path, nbgrader, hidden, made))
        return

    def release_one(path, progress, task):
        exercise = ROOT / "exercises" / path.name if path.parent == ROOT / "solutions" else _sibling(path)
        if not check:
            return notebooks.release_file(path, exercise, force)
        expected = notebooks.text_of(notebooks.released_from(path))
        if not exercise.exists() or exercise.read_text(encoding="utf-8") != expected:
            raise NotebookError(f"{name_of(exercise)} is not what its solution gives; run `byhand release`.")
        return False

    _for_each(solutions, "released", release_one)
    if not paths:
        _refuse_orphans({path.name for path in solutions})


@app.command()
def new(stem: Annotated[str, typer.Argument(help="Two digits and a name, as 23-power.")]):
    """Write the files of a new unit, running and passing, with «placeholders» for what to write."""
    try:
        paths = scaffold(stem)
    except NotebookError as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    for path in paths:
        console.print(f"wrote {name_of(path)}")
    console.print(
        "Now write what stands between « and ». Then add torch's forward to tests/forwards/, and rows to "
        "the README's table of units, to site/units.toml and to mathnotes/99-cheatsheet.md."
    )


def _write_elsewhere(path, nbgrader, hidden, made):
    """nbgrader's folder `source` holds an assignment of one notebook, both named after the stem."""
    target = nbgrader / path.stem / path.name if nbgrader else hidden / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    notebooks.write(target, made(notebooks.read(path), path.stem))
    return True


def _sibling(path):
    """The exercise of a solution that lies elsewhere: in the folder `exercises` beside its own."""
    folder = path.parent.parent / "exercises"
    folder.mkdir(exist_ok=True)
    return folder / path.name


def _refuse_orphans(names):
    orphans = [name_of(path) for path in (ROOT / "exercises").glob("*.ipynb") if path.name not in names]
    if orphans:
        console.print(f"No solution for {', '.join(sorted(orphans))}.", style="red")
        raise typer.Exit(1)


def _found(paths, *folders):
    """The notebooks named, those of folders named, or by default those of some of the course's folders."""
    found = []
    for path in paths or [ROOT / folder for folder in folders]:
        path = path.absolute()
        if path.is_dir():
            found += sorted(path.glob("*.ipynb"))
        elif path.suffix == ".ipynb":
            found.append(path)
        else:
            console.print(f"{name_of(path)}: not a notebook or a folder.", style="red")
            raise typer.Exit(1)
    return found


def _for_each(paths, done, work):
    """Work on every notebook, go on after a failure, then say what failed. work returns whether it changed the file."""
    failures, changed = [], 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        for path in paths:
            task = progress.add_task(name_of(path), total=None)
            try:
                changed += work(path, progress, task)
            except NotebookError as error:
                place = name_of(path)
                failures.append(str(error) if place in str(error) else f"{place}, {error}")
            progress.remove_task(task)
    for failure in failures:
        console.print(failure, style="red", markup=False)
    console.print(f"{len(paths)} notebooks, {changed} {done}, {len(failures)} failed")
    if failures:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
