"""The attacks. Each replaces the answer `hidden_jacobians` of exercise 61, or does something to the file.

An answer that is wrong unless its attack succeeds shows both: that the attack earns nothing, and,
run without a sandbox, that it would have.
"""

import json
import os
import textwrap
from dataclasses import dataclass
from typing import Any

from attacks.notebooks import add, answer, honest, mark
from byhand.notebooks import ROOT

STEM, TARGET = "61-two-layer", "hidden_jacobians"
QUESTION = "hidden_jacobians_agree_with_autograd"
MARKER = "86028.157"  # seconds that a detached process sleeps: nobody else does

WRONG = """
def hidden_jacobians(x, W0, b):
    return np.ones((4, 3)), np.ones((4, 12)), np.ones((4, 4))
"""
RIGHT = """
def hidden_jacobians(x, W0, b):
    return W0.T, np.kron(x, np.eye(b.size)), np.eye(b.size)
"""


@dataclass(frozen=True)
class Attack:
    """name; make(folder) writes the submission and returns its path; status: those the target may get.

    others: the status of all other checks, "right" but where no answer can be read.
    unsafe: whether it succeeds without a sandbox, which a test shows. says: a part of the reason.
    patient: whether its cell is slow and may be.
    """

    name: str
    make: Any
    status: tuple
    others: str = "right"
    unsafe: bool = False
    says: str = ""
    patient: bool = False


ATTACKS = []


def _attack(name, status, make, **options):
    ATTACKS.append(Attack(name, make, tuple(status.split()), **options))


def written(notebook, folder):
    path = folder / f"{STEM}.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def replaced(source):
    def make(folder):
        notebook = honest(STEM)
        answer(notebook, TARGET)["source"] = textwrap.dedent(source)
        return written(notebook, folder)

    return make


def cell(name, status, source, **options):
    """An attack in the target's cell."""
    _attack(name, status, replaced(source), **options)


def body(name, status, source, **options):
    """An attack inside the target's function."""
    cell(
        name, status, "def hidden_jacobians(x, W0, b):\n" + textwrap.indent(textwrap.dedent(source), "    "), **options
    )


def escape(name, source, unsafe=True, **options):
    """An attack that sets `escaped`; the answer is right if it is true or has anything in it."""
    source = textwrap.indent(textwrap.dedent(source), "    ")
    cell(
        name,
        "wrong",
        f"escaped = False\ntry:\n{source}\nexcept Exception:\n    pass\n"
        f"if escaped:\n{textwrap.indent(RIGHT, '    ')}\nelse:\n{textwrap.indent(WRONG, '    ')}",
        unsafe=unsafe,
        **options,
    )


def changed(name, status, **options):
    """An attack on the notebook or the file: a function of the notebook and the folder."""

    def decorate(change):
        def make(folder):
            notebook = honest(STEM)
            return change(notebook, folder) or written(notebook, folder)

        _attack(name, status, make, **options)
        return change

    return decorate


# --- fakery: wrong numbers, and something that should hide it --------------------------------------

cell("np.testing replaced", "wrong", "np.testing.assert_allclose = lambda *a, **k: None" + WRONG)
cell("np.allclose replaced", "wrong", "np.allclose = np.isclose = np.array_equal = lambda *a, **k: True" + WRONG)
cell("builtins replaced", "wrong died", "import builtins\nbuiltins.all = builtins.isinstance = lambda *a: True" + WRONG)
cell("same replaced", "wrong", "import byhand.check\nbyhand.check.same = same = lambda **k: None" + WRONG)
cell("check replaced", "wrong", "import byhand.check\nbyhand.check.check = check = lambda *a, **k: print" + WRONG)
cell("Check.run replaced", "wrong", "from byhand.check import Check\nCheck.run = lambda *a, **k: None" + WRONG)
cell("check's name defined", "wrong", f"def {QUESTION}(rng=None): return True" + WRONG)
cell("AST transformer", "wrong", "import ast\nget_ipython().ast_transformers.append(ast.NodeTransformer())" + WRONG)
cell("input transformer", "wrong", "get_ipython().input_transformers_cleanup.append(lambda lines: [])" + WRONG)
cell("nbval's markers", "wrong", "# NBVAL_SKIP\n# NBVAL_RAISES_EXCEPTION\n# NBVAL_IGNORE_OUTPUT" + WRONG)
cell("hidden-test markers", "wrong", "### BEGIN HIDDEN TESTS\n### END HIDDEN TESTS\n" + WRONG)
cell("verdict on standard output", "wrong", f"print('{QUESTION}: right (2 points)', flush=True)" + WRONG)
cell(
    "array subclass that equals everything",
    "wrong",
    """
    class Equal(np.ndarray):
        def __eq__(self, other): return np.ones(self.shape, bool)
        def __array_ufunc__(self, *a, **k): return True
        def __array_function__(self, *a, **k): return True
    def hidden_jacobians(x, W0, b):
        return tuple(np.ones(shape).view(Equal) for shape in [(4, 3), (4, 12), (4, 4)])
    """,
)
cell(
    "object that equals everything",
    "wrong error",
    """
    class Equal:
        shape, dtype, ndim, size = (4, 3), np.dtype(float), 2, 12
        def __eq__(self, other): return True
        def __array__(self, *a, **k): return np.ones((4, 3))
        def __array_ufunc__(self, *a, **k): return True
        def __sub__(self, other): return 0.0
    def hidden_jacobians(x, W0, b):
        return Equal(), Equal(), Equal()
    """,
)
cell(
    "class that claims to be NumPy's",
    "error",
    """
    Equal = type("ndarray", (float,), {"__module__": "numpy", "__eq__": lambda *a: True})
    def hidden_jacobians(x, W0, b):
        return Equal(), Equal(), Equal()
    """,
)
body("object arrays", "error", "return tuple(np.ones(s).astype(object) for s in [(4, 3), (4, 12), (4, 4)])")
body("booleans", "wrong", "return tuple(np.ones(s, bool) for s in [(4, 3), (4, 12), (4, 4)])")
body("nan everywhere", "wrong", "return tuple(np.full(s, np.nan) for s in [(4, 3), (4, 12), (4, 4)])")
body("inputs set to zero", "wrong", "x[:] = W0[:] = 0\nreturn W0.T, np.kron(x, np.eye(4)), np.eye(4)", says="in place")
body("nothing returned", "error", "pass")
body("too few returned", "error", "return W0.T, W0")
body("a generator", "error", "return (part for part in (W0, x, b))")
body("text", "wrong error", "return 'right', 'right', 'right'")
cell(
    "torch in the answer",
    "error",
    "import torch\ndef hidden_jacobians(x, W0, b): torch.tensor(x)",
    says="NumPy computes",
)
cell("torch's autograd", "error", "from torch.autograd.functional import jacobian" + WRONG.replace("def", "#def", 1))

FORGE = """
import struct, json, os
def forge(header, raw=b"", number=None):
    head = json.dumps(header).encode()
    message = struct.pack(">II", len(head), len(raw)) + head + raw
    for fd in range(1, 64):
        try: os.write(fd, message)
        except OSError: pass
"""
for title, header in {
    "a reply forged": {"number": 12, "value": ["tuple", [["array", "<f8", [4, 3]]]]},
    "a wrong number forged": {"number": -1, "value": None},
    "a header forged": [],
}.items():
    cell(title, "died", FORGE + f"def hidden_jacobians(x, W0, b):\n    forge({header!r})\n    return None")
cell("every descriptor written to", "died", FORGE + "forge({'error': None, 'value': True})" + WRONG)
cell("endless header", "died", "import os, struct\nos.write(3, struct.pack('>II', 2**32 - 1, 0) + b' ' * 100)" + RIGHT)

ENCODE = "import byhand.grading.guest as guest\ndef hidden_jacobians(x, W0, b):\n    guest.encode = "
for title, tree in {
    "numbers promised and not sent": '["array", "<f8", [4, 3]]',
    "a terabyte promised": '["array", "<f8", [2**40]]',
    "an empty array as wide as a terabyte": '["array", "<f8", [0, 2**40]]',
    "a negative shape": '["array", "<f8", [-4, -3]]',
    "a dtype of objects": '["array", "|O", [1]]',
    "an object that is none": '["object", "x", 3, "value"]',
    "an array of 60 axes": '["array", "<f8", [1] * 60]',
    "a kind that is unknown": '["pickle", "cos"]',
    "an unhashable kind": "[[], []]",
}.items():
    cell(title, "died", f"{ENCODE}lambda *a: ({tree}, b'')\n    return None")
cell(
    "deep JSON on the wire",
    "died",
    "import byhand.grading.guest as guest\ndef hidden_jacobians(x, W0, b):\n"
    "    guest.packed = lambda *a: guest.LENGTHS.pack(200_000, 0) + b'[' * 200_000\n    return 1",
)
cell(
    "a class that calls itself builtin",
    "wrong error",
    "class tuple(list): pass\ndef hidden_jacobians(x, W0, b): return tuple([1, 2, 3])",
)

escape(
    "garbage walked for checks and references",
    """
    import gc
    escaped = any(type(o).__name__ in ("_GradedCheck", "Check") or "torch" in getattr(type(o), "__module__", "")
                  and type(o).__name__ != "_Absent" for o in gc.get_objects() if type(o) is not type)
    """,
    unsafe=False,
)
escape(
    "frames walked for references",
    """
    import sys
    frame = sys._getframe()
    while frame:
        escaped = escaped or bool({"of_x", "of_W0", "rng", "seeds", "submission"} & set(frame.f_locals))
        frame = frame.f_back
    """,
    unsafe=False,
)

# --- escapes: right numbers only for those who get out ---------------------------------------------

escape("the network", "import socket, os\nsocket.create_connection(('127.0.0.1', PORT), 1).close()\nescaped = True")
escape("an abstract socket", "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0byhand-PORT')\nescaped = True")
escape("the course", f"import os\nescaped = os.listdir({str(ROOT)!r})")
escape("the solutions", "import byhand.check\nescaped = list(byhand.check.SOLUTIONS.glob('*'))")
escape("the folder it was handed in", "import os\nescaped = os.path.exists('FOLDER')")
escape("real torch", "import torch\nescaped = hasattr(torch, 'tensor')", unsafe=False)
escape(
    "torch searched for on the disk",
    """
    import os
    for top in "/usr", "/opt", "/root", "/home", "/packages":
        for folder, folders, files in os.walk(top):
            if "torch" in folders and os.path.exists(os.path.join(folder, "torch", "__init__.py")): escaped = True
    """,
    unsafe=False,
    patient=True,
)
escape("the environment", "import os\nescaped = 'SECRET' in ''.join(os.environ.values())", unsafe=False)
escape(
    "the environment of others",
    """
    import pathlib
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try: escaped = escaped or b"SECRET" in path.read_bytes()
        except OSError: pass
    """,
)
escape(
    "processes of others",
    "import pathlib\nescaped = any(b'pytest' in p.read_bytes() for p in pathlib.Path('/proc').glob('[0-9]*/cmdline'))",
)
escape("a file outside", "open('FOLDER/canary', 'w').close()\nescaped = True")
escape("its own packages", "open(np.__file__, 'a').close()\nescaped = True", unsafe=False)
escape("a file in /usr", "open('/usr/canary', 'w').close()\nescaped = True", unsafe=False)
escape("a file in /", "open('/canary', 'w').close()\nescaped = True", unsafe=False)
escape("its limits raised", "import resource as r\nr.setrlimit(r.RLIMIT_AS, (-1, -1))\nescaped = True", unsafe=False)
escape("a new user namespace", "import ctypes\nescaped = not ctypes.CDLL(None).unshare(0x10000000)", unsafe=False)
escape("another user", "import os\nos.setuid(0)\nescaped = True", unsafe=False)
escape("the judge's descriptors", "import os\nescaped = len(os.listdir('/proc/self/fd')) > 6", unsafe=False)
cell("the parent killed", "wrong", "import os\nos.kill(os.getppid(), 9)\nos.kill(1, 9)" + WRONG)
cell("everybody killed", "died error", "import os\nos.kill(-1, 9)" + WRONG)
cell(
    "a detached process",
    "right",
    f"import subprocess as s\ns.Popen(['sleep', '{MARKER}'], start_new_session=True)" + RIGHT,
)
cell(
    "a daemon that forks twice",
    "right",
    "import os\nif not os.fork():\n    os.setsid()\n    if os.fork(): os._exit(0)\n"
    f"    os.execvp('sleep', ['sleep', '{MARKER}'])" + RIGHT,
)
cell("a child that goes on", "wrong right died", "import os\nos.fork()" + RIGHT)

# --- resources ----------------------------------------------------------------------------------

body("a loop", "timeout", "while True: pass", says="longer than")
cell("a loop in the cell", "timeout", "while True: pass" + RIGHT)
body(
    "a loop that swallows interrupts",
    "timeout",
    "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
)
body(
    "a sleep with signals blocked",
    "timeout",
    "import signal, time\nsignal.pthread_sigmask(0, range(1, 60))\ntime.sleep(1e6)",
)
body(
    "many slow calls",
    "timeout",
    "import time\ntime.sleep(0.7)" + RIGHT.replace("def hidden_jacobians(x, W0, b):", "").replace("\n    ", "\n"),
)
body("a pattern that backtracks forever", "timeout", "import re\nre.match('(a+)+b', 'a' * 60)")
body("memory in small pieces", "died timeout", "kept = []\nwhile True: kept.append(bytearray(1 << 20))")
body("memory at once", "died", "return np.ones(1 << 31)")
body(
    "memory in many children",
    "died timeout error",
    "import os\nfor _ in range(8): os.fork()\nreturn bytearray(200 << 20)",
)
body("a fork bomb", "died timeout error", "import os\nwhile True: os.fork()")
body(
    "a fork bomb that is patient",
    "died timeout error",
    "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
)
body(
    "threads without end",
    "error died timeout",
    "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
)
cell(
    "a thread that goes on",
    "right",
    "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin).start()" + RIGHT,
)
cell(
    "a thread that ends the process later",
    "died",
    "import threading, os\nthreading.Timer(0.05, os._exit, [0]).start()\nimport time; time.sleep(0.2)" + RIGHT,
)
cell(
    "a death a moment later", "right died", "import threading, os\nthreading.Timer(0.02, os._exit, [0]).start()" + RIGHT
)
body("a flood of output", "died", "while True: print('x' * 1000)", says="printed")
body("a flood of errors", "died", "import os\nwhile True: os.write(2, b'x' * 4096)", says="printed")
body("a flood from a child", "died", "import subprocess\nsubprocess.run('yes')", says="printed")
body("a large file", "error died", "open('/tmp/x', 'wb').write(bytes(100 << 20))")
body("many files", "error died", "for n in range(99): open(f'/tmp/{n}', 'wb').write(bytes(1 << 20))")
body("shared memory", "error died", "for n in range(99): open(f'/dev/shm/{n}', 'wb').write(bytes(1 << 20))")
body("open files without end", "error", "kept = []\nwhile True: kept.append(open('/dev/null'))")
body("a huge array", "error", "return np.ones((1000, 4000)), W0, b", says="larger than")
body("an array of many axes", "error", "return np.ones((1,) * 30), W0, b", says="axes")
body("an empty array that is wide", "error", "return np.empty((0, 2**40)), W0, b")
body("a list that holds itself", "error", "kept = []\nkept.append(kept)\nreturn kept")
body("a deep list", "error died", "kept = []\nfor _ in range(500): kept = [kept]\nreturn kept, W0, b")
body("an integer without end", "error", "return 10**5000, W0, b")
body("text without end", "error", "return 'x' * (3 << 20), W0, b")
body("endless recursion", "error", "return hidden_jacobians(x, W0, b)")
body("an error with a huge text", "error", "raise ValueError('x' * 10**6)")
body("an error that cannot be shown", "error", "class E(Exception):\n    def __str__(self): raise self\nraise E")
body(
    "an error that takes forever",
    "timeout",
    "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
)
body("sys.exit", "error", "import sys\nsys.exit(0)")
body("os._exit", "died", "import os\nos._exit(0)")
cell("os._exit in the cell", "died", "import os\nos._exit(0)" + RIGHT)
cell("os.abort in the cell", "died", "import os\nos.abort()" + RIGHT)
body("a segmentation fault", "died", "import ctypes\nctypes.string_at(0)")
body("descriptors closed", "died", "import os\nos.closerange(0, 256)")
body(
    "standard output closed",
    "right",
    "import os\ntry: os.close(1)\nexcept OSError: pass"
    + RIGHT.replace("def hidden_jacobians(x, W0, b):", "").replace("\n    ", "\n"),
)

# --- files and notebooks -------------------------------------------------------------------------


def text(content):
    def make(folder):
        path = folder / f"{STEM}.ipynb"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


for title, content in {
    "an empty file": "",
    "no JSON": "hello",
    "half a notebook": '{"nbformat": 4, "cells": [{',
    "a list": "[]",
    "a number": "7",
    "deep JSON": "[" * 5_000_000,
    "a huge number": '{"nbformat": ' + "9" * 100_000 + "}",
    "not UTF-8": b"\xff\xfe\x00",
    "cells that are none": '{"nbformat": 4, "cells": 3}',
    "cells without a source": '{"nbformat": 4, "cells": [{"metadata": {}, "cell_type": "code"}]}',
    "a source of numbers": '{"nbformat": 4, "cells": [{"metadata": {}, "cell_type": "code", "source": [1]}]}',
    "100,000 cells": '{"nbformat": 4, "cells": [' + ", ".join(["{}"] * 100_000) + "]}",
    "21 MB": " " * (21 << 20),
}.items():
    _attack(title, "unreadable", text(content), others="unreadable")


@changed("nbformat 3", "unreadable", others="unreadable", says="nbformat 3")
def _(notebook, folder):
    notebook["nbformat"] = 3


@changed("a symbolic link", "unreadable", others="unreadable", says="symbolic link")
def _(notebook, folder):
    path = folder / "real.ipynb"
    path.write_text(json.dumps(notebook))
    os.symlink(path, folder / f"{STEM}.ipynb")
    return folder / f"{STEM}.ipynb"


@changed("a folder that is a symbolic link", "unreadable", others="unreadable", says="symbolic link")
def _(notebook, folder):
    written(notebook, folder)
    os.symlink(folder, folder / "link")
    return folder / "link" / f"{STEM}.ipynb"


@changed("a FIFO", "unreadable", others="unreadable", says="regular")
def _(notebook, folder):
    os.mkfifo(folder / f"{STEM}.ipynb")
    return folder / f"{STEM}.ipynb"


@changed("a directory", "unreadable", others="unreadable")
def _(notebook, folder):
    (folder / f"{STEM}.ipynb").mkdir()
    return folder / f"{STEM}.ipynb"


@changed("a device", "unreadable", others="unreadable")
def _(notebook, folder):
    return type(folder)("/dev/zero")


@changed("no such file", "unreadable", others="unreadable")
def _(notebook, folder):
    return folder / "none.ipynb"


@changed("an answer deleted", "missing")
def _(notebook, folder):
    notebook["cells"].remove(answer(notebook, TARGET))


@changed("an answer made Markdown", "missing", says="markdown")
def _(notebook, folder):
    found = answer(notebook, TARGET)
    found["cell_type"] = "markdown"
    del found["outputs"], found["execution_count"]


@changed("an answer twice, ids and all", "unreadable", says="2 cells")
def _(notebook, folder):
    notebook["cells"].append(answer(notebook, TARGET))


@changed("an answer copied, as Jupyter does", "wrong")
def _(notebook, folder):
    place = notebook["cells"].index(answer(notebook, TARGET))
    notebook["cells"].insert(place + 1, answer(notebook, TARGET) | {"id": "copy", "source": WRONG})


@changed("grade ids lost", "right")
def _(notebook, folder):
    for found in notebook["cells"]:
        found["metadata"] = {}


@changed("cell ids lost", "right")
def _(notebook, folder):
    for found in notebook["cells"]:
        found.pop("id")


@changed("cells in another order", "right")
def _(notebook, folder):
    notebook["cells"].reverse()


@changed("checks deleted", "right")
def _(notebook, folder):
    notebook["cells"] = [found for found in notebook["cells"] if not mark(found).get("locked")]


@changed("checks and points rewritten", "wrong")
def _(notebook, folder):
    answer(notebook, TARGET)["source"] = WRONG
    answer(notebook, QUESTION)["source"] = "pass"
    answer(notebook, QUESTION)["metadata"]["nbgrader"]["points"] = 1000


@changed("schema_version 99", "right")
def _(notebook, folder):
    for found in notebook["cells"]:
        mark(found).update(schema_version=99)


@changed("given cells emptied", "right")
def _(notebook, folder):
    for found in notebook["cells"]:
        found["source"] = found["source"] if mark(found) else ""


@changed("planted conftest.py and pytest.ini", "wrong")
def _(notebook, folder):
    answer(notebook, TARGET)["source"] = WRONG
    (folder / "conftest.py").write_text(f"open({str(folder / 'canary')!r}, 'w')")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --collect-only")
    (folder / "numpy.py").write_text(f"open({str(folder / 'canary')!r}, 'w')")


@changed("lone surrogates", "error")
def _(notebook, folder):
    answer(notebook, TARGET)["source"] = WRONG + "# \ud800\nraise ValueError('\ud800')"
    answer(notebook, TARGET)["source"] = "raise ValueError('\ud800')"


cell("a rule taken from a lecture", "right", "from byhand.taught import taught\ntaught('51-softmax').softmax" + RIGHT)
cell("a NUL byte", "error", "x = 1\0")
cell("a syntax error", "error", "def hidden_jacobians(x, W0, b:\n    return")
cell("IPython's magics", "right", "%matplotlib inline\n%time 1 + 1\ndisplay(1)" + RIGHT, patient=True)
cell("a figure", "right", "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()" + RIGHT, patient=True)
cell("a chatty answer", "right", "print('x' * 100_000)" + RIGHT)


@changed("a helper in a cell of its own", "right")
def _(notebook, folder):
    add(notebook, TARGET, "def eye(n): return np.eye(n)")
    answer(notebook, TARGET)["source"] = RIGHT.replace("np.eye", "eye")


@changed("a hostile cell of its own", "right")
def _(notebook, folder):
    add(notebook, TARGET, "import os\nos._exit(0)")


@changed("an endless cell of its own", "right")
def _(notebook, folder):
    add(notebook, TARGET, "while True: pass")
