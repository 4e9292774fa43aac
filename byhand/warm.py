"""Notebooks start from an already warm process, so that checking the whole course is fast.

A fresh kernel spends a second or two on importing torch, NumPy and matplotlib before it runs a cell.
Here a *warm process* imports them once, and the kernel of each notebook is forked from it:

    pytest ---------- lifeline ----------> warm process (byhand/forkserver.py)
      +-- worker ---- connection ---------------+-- kernel
      +-- worker ---- connection ---------------+-- kernel

- pytest starts the warm process before the first worker (without workers: when the first notebook
  runs). It ends when the lifeline is cut: when pytest stops it, and when pytest dies, however that
  happens. Ending, it kills its kernels.
- A kernel lives as long as the connection that asked for it, and so dies with its worker as well.
- A kernel leads a session of its own: an interrupt, or its end, reaches what it has started. Should
  its warm process be killed, it ends itself.
- The warm process reaps its kernels and says how they ended.

A forked kernel differs from a fresh one in four ways. Packages are imported already, so what they
warn of at import is no output of the notebook; they compute in one thread, since the workers take
the other cores; the kernels of one run share the seed of Python's string hashes; and their messages
travel over Unix sockets, which lie in a private folder.

Where there is no `os.fork` (Windows), and with BYHAND_COLD=1, notebooks run in ordinary kernels.
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from queue import Empty

import zmq
from jupyter_client import BlockingKernelClient
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, RunningKernel

from byhand.notebooks import ONE_THREAD

FORKSERVER = Path(__file__).with_name("forkserver.py")
# Read when the packages are imported. A thread pool would not survive the fork.
AT_IMPORT = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"} | ONE_THREAD
LONGEST_FOLDER = 60  # bytes; the path of a Unix socket may have 100 or so
POLL = 0.05  # seconds between two looks at whether a silent kernel is still alive


class KernelDied(Exception):
    """The process of a kernel has ended. The text says how."""


class Kernels:
    """Where one pytest process gets its kernels from.

    address: where the warm process listens, if another pytest process has started it.
    """

    def __init__(self, address=None):
        self._address, self._process = address, None

    @property
    def address(self):
        """Where the warm process listens, which is started now if it was not; None for ordinary kernels."""
        is_cold = not hasattr(os, "fork") or os.environ.get("BYHAND_COLD", "0") != "0"
        if self._address is None and not is_cold:
            self._start()
        return self._address

    def start(self, folder, timeout):
        """A new kernel that runs in a folder. Raises RuntimeError when it is not ready after `timeout` seconds."""
        if self.address is None:
            return Kernel(CURRENT_ENV_KERNEL_NAME, str(folder), timeout)
        return WarmKernel(self.address, str(folder), timeout)

    def stop(self):
        """End the warm process, if this pytest process has started it, and with it every kernel."""
        if self._process:
            self._lifeline.close()
            self._process.wait()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._address = self._process = None

    def _start(self):
        is_long = len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER
        self._folder = tempfile.mkdtemp(prefix="byhand-", dir="/tmp" if is_long else None)
        self._address = os.path.join(self._folder, "warm")
        self._lifeline, end = socket.socketpair()
        with end, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen()
            handed = listener.fileno(), end.fileno()
            self._process = subprocess.Popen(
                [sys.executable, FORKSERVER, self._folder, *map(str, handed)],
                pass_fds=handed,
                env={**AT_IMPORT, **os.environ},
                start_new_session=True,  # Ctrl-C is for pytest, which then ends the warm process
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )


class Kernel(RunningKernel):
    """nbval's kernel, an ordinary one, that notices when its process dies."""

    def get_message(self, stream, timeout=None):
        """The next message of a stream. Raises Empty after `timeout` seconds, KernelDied without waiting for them."""
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while True:
            left = max(0, deadline - time.monotonic())
            try:
                return super().get_message(stream, min(POLL, left))
            except Empty:
                if not self.is_alive():
                    raise KernelDied(_in_words(self.returncode())) from None
                if left <= POLL:
                    raise

    def returncode(self):
        """How the process ended: its exit status, or the number of a signal, negative."""
        return self.km.provisioner.process.returncode


class WarmKernel(Kernel):
    """A kernel forked from the warm process."""

    def __init__(self, address, folder, timeout):
        self._returncode = None
        self._connection = socket.socket(socket.AF_UNIX)
        self._lines = self._connection.makefile()
        try:
            self._connection.settimeout(timeout)
            self._connection.connect(address)
            self._connection.sendall(json.dumps({"cwd": folder, "env": dict(os.environ)}).encode() + b"\n")
            answer = self._lines.readline()
        except OSError as error:
            answer = str(error)
        if not answer.startswith("{"):
            self._close()
            raise RuntimeError(f"The warm process gave no kernel ({answer.strip()}). BYHAND_COLD=1 does without it.")
        self.kc = BlockingKernelClient(context=zmq.Context.instance())
        self.kc.load_connection_info(json.loads(answer))
        self.kc.start_channels(stdin=False, hb=False, control=False)
        self._await_answer(timeout)

    def _await_answer(self, timeout):
        """Ask until an answer comes on both channels: what is published before one listens is lost."""
        while True:
            msg_id = self.kc.kernel_info()
            self.await_reply(msg_id, timeout)
            try:
                return self.await_idle(msg_id, timeout=POLL)
            except Empty:
                continue

    def is_alive(self):
        if self._returncode is None and select.select([self._connection], [], [], 0)[0]:
            line = self._lines.readline()
            self._returncode = int(line) if line else -signal.SIGKILL  # no kernel outlives the warm process
        return self._returncode is None

    def returncode(self):
        return self._returncode

    def interrupt(self):
        self._connection.sendall(b"interrupt")

    def stop(self):
        self.kc.stop_channels()
        self._close()

    def _close(self):
        """Let go of the kernel, which is its end."""
        self._lines.close()
        self._connection.close()
        self._returncode = -signal.SIGKILL


def _in_words(returncode):
    return f"killed by signal {-returncode}" if returncode < 0 else f"exit status {returncode}"
