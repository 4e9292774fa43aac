"""byhand.warm: forked kernels behave like fresh ones, their deaths are told, and no process is left."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import nbformat
import psutil
import pytest

from byhand import notebooks
from byhand.notebooks import ROOT
from byhand.warm import KernelDied, Kernels

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kernels are forked only where there is os.fork")
LIMIT = 30  # seconds that may pass before something counts as never happening


def until(happened):
    """Wait for a condition, and return what it gives."""
    deadline = time.monotonic() + LIMIT
    while not (result := happened()):
        assert time.monotonic() < deadline, "this never happened"
        time.sleep(0.02)
    return result


# --- kernels -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warm():
    kernels = Kernels()
    yield kernels
    kernels.stop()


@pytest.fixture
def kernel(warm, tmp_path):
    kernel = warm.start(tmp_path, LIMIT)
    yield kernel
    kernel.stop()


@pytest.fixture
def ordinary(tmp_path, monkeypatch):
    monkeypatch.setenv("BYHAND_COLD", "1")
    kernel = Kernels().start(tmp_path, LIMIT)
    yield kernel
    if kernel.is_alive():
        kernel.stop()


def outputs(kernel, source):
    """What a kernel publishes while it runs a cell, by kind; streams are joined."""
    request, found = kernel.execute_cell_input(source, allow_stdin=False), {}
    while True:
        message = kernel.get_message("iopub", LIMIT)
        content = message["content"]
        if message["parent_header"].get("msg_id") != request:
            continue
        if content.get("execution_state") == "idle":
            return found
        if message["msg_type"] == "stream":
            found[content["name"]] = found.get(content["name"], "") + content["text"]
        elif "data" in content:
            found.setdefault("data", []).append(content["data"])
        elif message["msg_type"] == "error":
            found["traceback"] = content["traceback"]


STATE = """
import locale, matplotlib, os, signal, sys, threading, warnings
import numpy as np
import torch

LEFT_OUT = "BYHAND", "JPY", "PYDEVD", "PYTEST"

print(__name__, os.getcwd(), sys.path, sys.modules["__main__"].__dict__ is globals())
print({name: value for name, value in sorted(os.environ.items()) if not name.startswith(LEFT_OUT)})
print({number: signal.getsignal(number).__class__ for number in signal.valid_signals()})
print(sorted(type(thread).__name__ for thread in threading.enumerate()))
print(type(get_ipython()), sorted(globals()), locale.getlocale())
print(dict(matplotlib.rcParams), matplotlib.get_backend(), np.geterr(), np.get_printoptions())
print(torch.get_default_dtype(), torch.is_grad_enabled(), os.getpid() == os.getpgrp() == os.getsid(0))
"""
CELLS = [
    STATE,
    "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.title('shown without plt.show()');",
    "print(plt.isinteractive(), plt.get_fignums(), get_ipython().events.callbacks)",
    "from byhand.draw import matrices\nmatrices(a=np.eye(2))\nplt.show()",
    "print(dict(matplotlib.rcParams) == dict(matplotlib.rcParamsDefault), plt.rcParams['svg.hashsalt'])",
    "!echo from a shell",
    "warnings.warn('deprecated', DeprecationWarning)\n1 / 0",
    "input()",
]


def test_a_warm_kernel_gives_what_an_ordinary_one_gives(kernel, ordinary):
    assert type(kernel) is not type(ordinary)
    for cell in CELLS:
        new, fresh = (re.sub(r"0x[0-9a-f]+|ipykernel_\d+", "…", str(outputs(k, cell))) for k in (kernel, ordinary))
        assert new.split() == fresh.split()


def test_what_lectures_import_is_warm_but_for_what_hooks_into_the_kernel(kernel):
    lectures = [notebooks.read(path) for path in sorted((ROOT / "lectures").glob("*.ipynb"))]
    setups = "\n".join(next(cell.source for cell in nb.cells if cell.cell_type == "code") for nb in lectures)
    outputs(kernel, "import sys\nbefore = set(sys.modules)")
    assert "traceback" not in outputs(kernel, setups)
    new = outputs(kernel, "print(*{name.partition('.')[0] for name in sys.modules.keys() - before})")["stdout"]
    cold = set(new.split()) - sys.stdlib_module_names - {"byhand", "matplotlib", "matplotlib_inline"}
    assert not cold, "name these in EARLY of byhand/forkserver.py"


def test_no_two_kernels_draw_the_same_numbers(warm, tmp_path):
    draw = "import numpy, random, torch\nprint(random.random(), numpy.random.rand(), torch.rand(1).item())"
    one, two = warm.start(tmp_path, LIMIT), warm.start(tmp_path, LIMIT)
    ones, twos = (set(outputs(kernel, draw)["stdout"].split()) for kernel in (one, two))
    assert len(ones | twos) == 6
    one.stop()
    two.stop()


def pid_of(kernel):
    return int(outputs(kernel, "import os\nprint(os.getpid())")["stdout"])


def is_gone(pid):
    """Whether no such process runs. A zombie in the warm process's care would count as there."""
    return not psutil.pid_exists(pid)


def test_a_death_of_an_ordinary_kernel_is_noticed(ordinary):
    with pytest.raises(KernelDied, match="exit status 3"):
        outputs(ordinary, "import os\nos._exit(3)")


@pytest.mark.parametrize(("death", "words"), [("os.kill(os.getpid(), 9)", "signal 9"), ("os._exit(3)", "status 3")])
def test_a_death_is_noticed_at_once_and_takes_along_what_the_kernel_has_started(kernel, death, words):
    begin = "import os, subprocess\nprint(subprocess.Popen(['sleep', '600']).pid)"
    child = int(outputs(kernel, begin)["stdout"])
    began = time.monotonic()
    with pytest.raises(KernelDied, match=words):
        outputs(kernel, death)
    assert time.monotonic() - began < LIMIT / 2
    assert not kernel.is_alive()
    until(lambda: is_gone(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_a_stopped_kernel_is_reaped_and_leaves_no_files(warm, tmp_path):
    kernel = warm.start(tmp_path, LIMIT)
    pid, folder = pid_of(kernel), Path(kernel.kc.ip).parent
    assert folder.exists() and folder.parent.stat().st_mode & 0o777 == 0o700
    kernel.stop()
    until(lambda: is_gone(pid) and not folder.exists())


def test_a_kernel_dies_with_the_process_that_asked_for_it(warm, tmp_path):
    asks = "import sys, time; from byhand.warm import Kernels; from tests.test_warm import pid_of\n"
    asks += "kernel = Kernels(sys.argv[1]).start('.', 30); print(pid_of(kernel), flush=True); time.sleep(600)"
    worker = subprocess.Popen([sys.executable, "-c", asks, warm.address], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    pid = int(worker.stdout.readline())
    assert not is_gone(pid)
    worker.kill()
    worker.communicate()
    until(lambda: is_gone(pid))
    assert outputs(warm.start(tmp_path, LIMIT), "print(1)") == {"stdout": "1\n"}


def test_kernels_die_with_the_warm_process_and_the_next_one_is_refused_in_words(tmp_path):
    kernels = Kernels()
    kernel = kernels.start(tmp_path, LIMIT)
    pid = pid_of(kernel)
    kernels._process.kill()
    with pytest.raises(KernelDied, match="signal 9"):
        outputs(kernel, "while True: pass")
    until(lambda: is_gone(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    with pytest.raises(RuntimeError, match="BYHAND_COLD"):
        kernels.start(tmp_path, LIMIT)
    kernels.stop()


def test_a_long_temporary_folder_is_avoided(tmp_path, monkeypatch):
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    monkeypatch.setattr("byhand.warm.FORKSERVER", os.devnull)
    kernels = Kernels()
    folder = Path(kernels.address).parent
    assert folder.parent == Path("/tmp") and folder.exists()
    kernels.stop()
    assert not folder.exists()


# --- pytest --------------------------------------------------------------------------------------


@pytest.fixture
def course(tmp_path):
    """course(name=sources, ...): a folder with this repository's collector and notebooks of these cells."""
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)

    def write(**sources):
        for name, cells in sources.items():
            cells = [nbformat.v4.new_code_cell(source, execution_count=n) for n, source in enumerate(cells, 1)]
            notebooks.write(tmp_path / f"{name}.ipynb", nbformat.v4.new_notebook(cells=cells))
        return tmp_path

    return write


def start_pytest(folder, *options, **environment):
    """pytest in a folder, as the leader of a process group, as a shell would start it."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "."]
    environment = {**os.environ, "CI": "", **environment}  # in CI the summary repeats each message
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes)


HANGING = [
    "import subprocess\nchild = subprocess.Popen(['sleep', '600'])",
    "import pathlib, time\npathlib.Path('hangs').touch()\ntime.sleep(600)",
]


def marked(mark):
    """The processes whose environment holds the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("BYHAND_MARK") == mark:
                found.append(process)
        except psutil.Error:
            continue  # another user's, or gone, or a zombie
    return found


def test_deaths_and_time_outs_are_told_the_run_goes_on_and_nothing_is_left(course):
    folder = course(
        late=["x = 1", "import time\ntime.sleep(600)", "assert x == 1"],
        exits=["import os\nos._exit(3)", "x = 1"],
        killed=["import os\nos.kill(os.getpid(), 9)", "x = 1"],
    )
    options, mark = ("-n2", "-rA", "--nbval-cell-timeout=2", "--color=no"), uuid.uuid4().hex
    text, _ = start_pytest(folder, *options, BYHAND_MARK=mark).communicate(timeout=3 * LIMIT)
    until(lambda: not marked(mark))
    told = {tuple(line.split(" - ")[0].split(" ", 1)) for line in text.splitlines() if line[:6] in ("PASSED", "FAILED")}
    passed = {name for outcome, name in told if outcome == "PASSED"}
    assert passed == {"late.ipynb::Cell 0", "late.ipynb::Cell 2"}, text
    assert len(told) == 7
    assert "Timeout of 2 seconds exceeded" in text
    assert "The kernel died in this cell (exit status 3)." in text
    assert "The kernel died in this cell (killed by signal 9)." in text
    assert text.count("This cell was not run: the kernel died in an earlier one.") == 2


def kill(run):
    run.kill()


def press_ctrl_c(run):
    os.killpg(run.pid, signal.SIGINT)


@pytest.mark.parametrize(("workers", "end"), [("-n2", kill), ("-n2", press_ctrl_c), ("-n0", kill)])
def test_no_process_is_left_however_pytest_ends(course, workers, end):
    folder, mark = course(hangs=HANGING, quick=["x = 1"]), uuid.uuid4().hex
    run = start_pytest(folder, workers, BYHAND_MARK=mark)
    until((folder / "hangs").exists)
    assert len(marked(mark)) >= 4  # pytest, the warm process, a kernel, its child
    end(run)
    run.communicate(timeout=LIMIT)
    until(lambda: not marked(mark))
