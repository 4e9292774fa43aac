"""The warm process: it imports once what notebooks import, then forks a kernel for each request.

`byhand.warm` runs this file as a script, and tells the life of the processes. Nothing of byhand is
imported here: every kernel reads the package as it stands on disk.
"""

import ctypes
import gc
import importlib
import json
import os
import secrets
import selectors
import shutil
import signal
import socket
import sys
from contextlib import suppress
from functools import partial

# What notebooks import, and what these packages import late, at a first call. Left out are pyplot and
# the inline backend: they hook into the kernel as they are imported, and take no time.
EARLY = [
    "numpy.random",
    "numpy.testing",
    "torch.func",
    "torch.fx.experimental.symbolic_shapes",  # for `backward` with a gradient
    "torch._decomp.decompositions_for_jvp",  # for forward mode
    "matplotlib.figure",
    "matplotlib.image",
    "matplotlib.style",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "networkx",
    "sklearn.datasets",
    "ipykernel.kernelapp",
    "ipykernel.zmqshell",
    "ipykernel.debugger",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.pylabtools",
    "IPython.extensions.storemagic",
]
PORTS = {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5}
PR_SET_PDEATHSIG = 1  # of Linux's prctl


class ForkServer:
    """Forks kernels, looks after them and reaps them. One connection is the life of one kernel.

    A client connects and sends a line of JSON, {"cwd": folder, "env": environment}. The kernel
    answers with a line that says how to reach it; once it has died, the server sends a line with its
    return code and closes. Whatever the client sends in between interrupts the kernel. When the
    client closes, or dies, the kernel is killed.
    """

    def __init__(self, folder, listener, lifeline):
        self.folder, self.listener = folder, listener
        self.kernels = {}  # process id: its connection and its folder
        self.requests = 0
        deaths, notify = socket.socketpair()
        notify.setblocking(False)
        signal.set_wakeup_fd(notify.detach())
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler nothing would be notified
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, self.fork)
        self.selector.register(lifeline, selectors.EVENT_READ, self.quit)
        self.selector.register(deaths, selectors.EVENT_READ, partial(self.reap, deaths))

    def serve(self):
        """Serve until the lifeline ends. Returns in a forked child only, with the arguments of `become_kernel`."""
        while True:
            for key, _ in self.selector.select():
                as_kernel = key.data()
                if as_kernel:
                    return as_kernel

    def fork(self):
        connection, _ = self.listener.accept()
        request = connection.makefile().readline()
        if not request:
            return None  # the client is gone already
        self.requests += 1
        folder = os.path.join(self.folder, str(self.requests))
        os.mkdir(folder)
        pid = os.fork()
        if pid == 0:
            self.let_go()
            return json.loads(request), folder, connection
        self.kernels[pid] = connection, folder
        self.selector.register(connection, selectors.EVENT_READ, partial(self.hear, pid))
        return None

    def let_go(self):
        """In the child: close what is the server's alone, connections of other kernels among it."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(signal.set_wakeup_fd(-1))
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()

    def hear(self, pid):
        if pid not in self.kernels:
            return  # buried a moment ago
        connection, _ = self.kernels[pid]
        if _received(connection):
            _signal_group(pid, signal.SIGINT)
        else:
            self.selector.unregister(connection)
            _signal_group(pid, signal.SIGKILL)

    def reap(self, deaths):
        deaths.recv(4096)
        for pid in list(self.kernels):
            dead, status = os.waitpid(pid, os.WNOHANG)
            if dead:
                self.bury(pid, status)

    def bury(self, pid, status):
        """A kernel is dead: kill what it has started, tell the client, tidy up."""
        _signal_group(pid, signal.SIGKILL)
        connection, folder = self.kernels.pop(pid)
        with suppress(KeyError):
            self.selector.unregister(connection)
        with suppress(OSError):
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        connection.close()
        shutil.rmtree(folder, ignore_errors=True)

    def quit(self):
        for pid in self.kernels:
            _signal_group(pid, signal.SIGKILL)
        for pid in list(self.kernels):
            self.bury(*os.waitpid(pid, 0))
        shutil.rmtree(self.folder, ignore_errors=True)
        os._exit(0)  # there is nothing to save, and torch takes its time to unload


def _received(connection):
    try:
        return connection.recv(4096)
    except ConnectionError:
        return b""


def _signal_group(pid, signum):
    """Signal a kernel and what it has started: each kernel leads a process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def become_kernel(request, folder, connection):
    """Make this process, which was forked for it, an IPython kernel that is like a fresh one."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    _seed()

    info = {"transport": "ipc", "ip": os.path.join(folder, "socket"), **PORTS}
    info |= {"signature_scheme": "hmac-sha256", "key": secrets.token_hex()}
    file = os.path.join(folder, "connection.json")
    with open(file, "w", encoding="utf-8") as stream:
        json.dump(info, stream)
    sys.argv = ["ipykernel_launcher", "-f", file]

    from ipykernel.kernelapp import IPKernelApp

    app = IPKernelApp.instance(parent_handle=os.getppid())  # it ends itself when that process is gone
    app.initialize(sys.argv[1:])
    connection.sendall(json.dumps(info).encode() + b"\n")
    connection.close()
    app.start()


def _seed():
    """Fresh random states, or all kernels would draw the same numbers. Python's own is fresh by itself."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()


if __name__ == "__main__":
    folder, listener, lifeline = sys.argv[1:]
    server = ForkServer(folder, socket.socket(fileno=int(listener)), socket.socket(fileno=int(lifeline)))
    del sys.path[0]  # this script's folder: kernels are not to look for modules there
    for name in EARLY:
        with suppress(ImportError):  # the notebook that needs it will say so
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or the collector of every kernel would visit, and so copy, what all of them share
    become_kernel(*server.serve())
