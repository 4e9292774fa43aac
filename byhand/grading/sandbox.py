"""Where a student's code runs: a process in bubblewrap that sees no course, no torch and no network.

The sandbox has Python's own library, the packages that NumPy, matplotlib, IPython and scikit-learn
need, the few modules of byhand that exercises import, and the lectures, whose rules an answer may
take as it may at home; all read-only. It may write to a small /tmp of its own. The judge talks to it
over one socket and ends it by killing the namespace it lives in.
"""

import contextlib
import functools
import importlib.metadata
import os
import re
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from byhand.grading.remote import LENGTHS, Forged, Stopped, lengths, packed, parsed
from byhand.taught import LECTURES

ROOTS = ("numpy", "matplotlib", "ipython", "networkx", "scikit-learn")  # byhand.draw needs networkx, 59 the digits
BYHAND = (
    "__init__.py",
    "check.py",
    "course.mplstyle",
    "draw.py",
    "jacobian.py",
    "taught.py",
    "wire.py",
    "grading/__init__.py",
    "grading/guest.py",
    "grading/remote.py",
)
PACKAGES = "/packages"
START_SECONDS = 30
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Limits:
    """What a submission may use. Seconds a call, a cell and in all; bytes of memory, output and files."""

    call_seconds: float = 10
    cell_seconds: float = 30
    total_seconds: float = 300
    memory: int = 2 << 30
    processes: int = 64
    output: int = 4 << 20
    files: int = 64 << 20


class SandboxError(Exception):
    """There can be no sandbox here. The text says why and what to do."""


@functools.cache
def is_available():
    """None where a sandbox can be started, else a sentence that says why not."""
    if not sys.platform.startswith("linux"):
        return "Grading needs bubblewrap, which is for Linux alone: grade in CI, or in a virtual machine."
    if not shutil.which("bwrap"):
        return "Grading needs bubblewrap: install it (apt-get install bubblewrap), so that the command bwrap is there."
    run = subprocess.run([*_walls(Limits()), "/usr/bin/true"], capture_output=True, text=True, env={})
    if run.returncode:
        return (
            f"bubblewrap cannot start a sandbox here: {run.stderr.strip()[:300]}. On Ubuntu 24.04, "
            "`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0` allows it."
        )
    return None


# --- what is inside ------------------------------------------------------------------------------


def _walls(limits):
    """The bubblewrap command up to the program: namespaces, the system, Python, packages."""
    command = ["bwrap", "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--disable-userns"]
    command += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "sandbox", "--clearenv"]
    for name, value in _environment("/tmp").items():
        command += ["--setenv", name, value]
    command += ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for path in map(Path, ("/bin", "/lib", "/lib64")):
        if path.is_symlink():
            command += ["--symlink", os.readlink(path), str(path)]
        elif path.exists():
            command += ["--ro-bind", str(path), str(path)]
    for path in _python_folders():
        command += ["--ro-bind", str(path), str(path)]
    for path in _other_packages():
        command += ["--tmpfs", str(path), "--remount-ro", str(path)]
    command += ["--proc", "/proc", "--dev", "/dev", "--size", str(limits.files), "--tmpfs", "/dev/shm"]
    command += ["--size", str(limits.files), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    for name, path in _packages().items():
        command += ["--ro-bind", str(path), f"{PACKAGES}/{name}"]
    for name in _adapters(tuple(_packages().items())):
        command += ["--tmpfs", f"{PACKAGES}/{name}", "--remount-ro", f"{PACKAGES}/{name}"]
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/"]


def _environment(home):
    names = {"HOME": home, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "MPLBACKEND": "agg"}
    names |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return names | {"LD_LIBRARY_PATH": f"{_base()}/lib", "IPYTHONDIR": f"{home}/.ipython"}


def _base():
    return Path(sys.base_prefix).resolve()


def _python_folders():
    return [] if _base().is_relative_to("/usr") else [_base() / "bin", _base() / "lib"]


def _other_packages():
    """Folders of installed packages that would come along with Python and the system."""
    patterns = [(_base(), "lib/python3*/site-packages"), (Path("/usr"), "lib/python3*/*-packages")]
    patterns += [(Path("/usr/local"), "lib/python3*/*-packages")]
    return sorted({path for folder, pattern in patterns for path in folder.glob(pattern) if path.is_dir()})


@functools.cache
def _packages():
    """{name in the sandbox's folder of packages: path here}."""
    from packaging.requirements import Requirement

    found, todo, seen = {}, list(ROOTS), set()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if name in ROOTS:
                raise SandboxError(f"{name} is not installed beside byhand: pip install {name}.") from None
            continue
        if package.files is None:
            raise SandboxError(f"Nothing here says which files {name} has. Grade in a virtual environment of pip's.")
        tops = {file.parts[0] for file in package.files} - {"..", "/", "__pycache__"}
        found |= {top: path for top in tops if (path := Path(package.locate_file(top))).exists()}
        requirements = map(Requirement, package.requires or [])
        todo += [item.name for item in requirements if not item.marker or item.marker.evaluate({"extra": ""})]
    ours = Path(__file__).resolve().parents[1]
    found |= {f"byhand/{name}": ours / name for name in BYHAND}
    return found | {"torch.py": ours / "grading" / "no_torch.py", "lectures": LECTURES}


@functools.cache
def _adapters(packages):
    """Folders named torch inside packages, as SciPy's adapters for torch's arrays. They are hidden: it has no torch."""
    found = []
    for name, path in packages:
        folders = path.rglob("torch") if path.is_dir() else []
        found += [f"{name}/{folder.relative_to(path)}" for folder in folders if folder.is_dir()]
    return found


# --- limits of the kernel ------------------------------------------------------------------------


def _control_groups(limits):
    """Fresh control groups for memory and processes, as far as they may be made: version 1, else 2."""
    _sweep()
    name = f"byhand-{os.getpid()}-{secrets.token_hex(8)}"
    wanted = {
        CGROUPS / "memory" / name: {"memory.limit_in_bytes": limits.memory},
        CGROUPS / "pids" / name: {"pids.max": limits.processes},
    }
    if (CGROUPS / "cgroup.controllers").exists():
        wanted = {CGROUPS / name: {"memory.max": limits.memory, "memory.swap.max": 0, "pids.max": limits.processes}}
    return [path for path, values in wanted.items() if _made(path, values)]


def _sweep():
    """Remove the groups of judges that were killed before they could. A group in use cannot be removed."""
    for path in (*CGROUPS.glob("byhand-*"), *CGROUPS.glob("*/byhand-*")):
        if not Path("/proc", path.name.split("-")[1]).exists():
            with contextlib.suppress(OSError):
                path.rmdir()


def _made(path, values):
    try:
        path.mkdir()
        for name, value in values.items():
            if name != "memory.swap.max" or (path / name).exists():
                (path / name).write_text(str(value))
    except OSError:
        with contextlib.suppress(OSError):
            path.rmdir()
        return False
    return True


def _removed(path):
    """Wait until nobody is left in a control group, and remove it. Tells whether that came to pass."""
    for _ in range(200):
        try:
            path.rmdir()
            return True
        except FileNotFoundError:
            return True
        except OSError:
            time.sleep(0.01)
    return False


def _resource_limits(limits, groups):
    found = {"RLIMIT_AS": limits.memory, "RLIMIT_FSIZE": limits.files, "RLIMIT_NOFILE": 256, "RLIMIT_CORE": 0}
    found["RLIMIT_CPU"] = int(limits.total_seconds) + 10
    if not any((path / "pids.max").exists() for path in groups):
        found["RLIMIT_NPROC"] = limits.processes
    return found


# --- one sandbox ---------------------------------------------------------------------------------


class Sandbox:
    """A running guest. `ask` sends it a request; `stop` ends it and all that it started."""

    def __init__(self, limits, unsafe=False):
        self.limits, self.number = limits, 0
        self.groups = [] if unsafe else _control_groups(limits)
        self.folder = tempfile.mkdtemp(prefix="byhand-") if unsafe else None
        self.link, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                self._command(unsafe),
                stdin=theirs,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_environment(self.folder) if unsafe else {"PATH": os.environ.get("PATH", os.defpath)},
                cwd=self.folder or "/",
                start_new_session=True,
            )
        self.link.setblocking(False)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.output = b""
        try:
            self._exchange(b"", START_SECONDS)
        except Stopped:
            self.stop()
            raise SandboxError(f"The sandbox did not start: {self.output[-500:].decode(errors='replace')}") from None

    def _command(self, unsafe):
        paths = [PACKAGES] if not unsafe else [self.folder, str(Path(__file__).resolve().parents[2])]
        limits = _resource_limits(self.limits, self.groups)
        program = f"import sys; sys.path[:0] = {paths}; from byhand.grading.guest import main; main({limits})"
        if unsafe:
            shutil.copy(_packages()["torch.py"], Path(self.folder, "torch.py"))
            return [sys.executable, "-sP", "-c", program]
        enter = "".join(f"echo $$ > {path}/cgroup.procs && " for path in self.groups)
        python = [os.path.realpath(sys.executable), "-sSP", "-c", program]
        return ["/bin/sh", "-c", f'{enter}exec "$@"', "sh", *_walls(self.limits), *python]

    def ask(self, message, raw, seconds):
        """(reply, its raw bytes). Raises Stopped, after which nothing is left to do but `stop`."""
        self.number += 1
        reply, raw = self._exchange(packed(message | {"number": self.number}, raw), seconds)
        if reply.get("number") != self.number:
            raise Forged("a reply to another question")
        return reply, raw

    def _exchange(self, outgoing, seconds):
        """Send bytes and receive one message, while what the guest prints is counted and dropped."""
        deadline, received, printed = time.monotonic() + seconds, bytearray(), 0
        with selectors.DefaultSelector() as selector:
            selector.register(self.link, selectors.EVENT_READ | (selectors.EVENT_WRITE if outgoing else 0))
            if not self.process.stdout.closed:
                selector.register(self.process.stdout, selectors.EVENT_READ)
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Stopped(f"It took longer than {seconds:.3g} s.", "timeout")
                for key, events in selector.select(left):
                    if key.fileobj is self.process.stdout:
                        printed += self._drained(selector)
                        if printed > self.limits.output:
                            raise Stopped(f"It printed more than {self.limits.output / 1e6:.3g} MB.")
                        continue
                    if events & selectors.EVENT_WRITE:
                        outgoing = self._sent(outgoing)
                        if not outgoing:
                            selector.modify(self.link, selectors.EVENT_READ)
                    if events & selectors.EVENT_READ and self._has_arrived(received):
                        return self._taken(received)

    def _drained(self, selector):
        """How many bytes the guest has printed since."""
        printed = os.read(self.process.stdout.fileno(), 1 << 16)
        if not printed:
            selector.unregister(self.process.stdout)
            self.process.stdout.close()
            return 0
        self.output = (self.output + printed)[-2000:]
        return len(printed)

    def _sent(self, outgoing):
        """What is left to send."""
        with contextlib.suppress(BlockingIOError):
            try:
                return outgoing[self.link.send(outgoing) :]
            except OSError:
                raise Stopped(self._how_it_ended()) from None
        return outgoing

    def _has_arrived(self, received):
        """Read on, never more than the message's own lengths say; whether all of it is there."""
        try:
            more = self.link.recv(1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            more = b""
        if not more:
            raise Stopped(self._how_it_ended())
        received += more
        if len(received) < LENGTHS.size:
            return False
        size = LENGTHS.size + sum(lengths(received[: LENGTHS.size]))
        if len(received) > size:
            raise Forged("more than one message")
        return len(received) == size

    def _taken(self, received):
        header, _ = lengths(received[: LENGTHS.size])
        end = LENGTHS.size + header
        return parsed(bytes(received[LENGTHS.size : end])), bytes(received[end:])

    def _how_it_ended(self):
        try:
            code = self.process.wait(2)
        except subprocess.TimeoutExpired:
            return "It closed the connection to the grader."
        if code in (137, -signal.SIGKILL):
            return f"It was killed. It may use {self.limits.memory / 1e9:.3g} GB of memory."
        return "It ended the process that it runs in."

    def stop(self):
        """Kill the guest. Returns when nothing of it is left."""
        if self.process.poll() is None or self.folder:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.link.close()
        self.process.stdout.close()
        for path in self.groups:
            _removed(path)
        self.groups = []
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
