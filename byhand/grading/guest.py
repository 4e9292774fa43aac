"""The program inside the sandbox: it runs the student's cells and answers the judge's requests.

It holds no secret. A student's code may read and change all of it; what it can do so is what it
could do anyway, send other numbers. Requests are dicts with "do": "run" (a cell's source), "get"
(a global name), "attribute" and "call" (of an object that was sent before, by its number).
"""

import ast
import builtins
import os
import socket
import sys
import traceback
import types

from byhand.grading.remote import LENGTHS, decode, encode, lengths, packed, parsed
from byhand.wire import CannotCross, Home, copied, is_unanswered, same_data, stub_of


def main(limits):
    """Serve the judge on standard input, a socket. limits: {name of a RLIMIT_...: value}."""
    import resource

    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))
    link = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    Guest(link).serve()


class Reference:
    """What crosses in place of an object."""

    def __init__(self, number, label, kind):
        self.parts = [number, label, kind]


class Guest:
    """One student's notebook, run cell by cell."""

    def __init__(self, link):
        self.link, self.process = link, os.getpid()
        self.notebook = sys.modules["__main__"] = types.ModuleType("__main__")
        self.home = Home("__main__")
        self.objects = []
        builtins.get_ipython, builtins.display = _get_ipython, _display

    def serve(self):
        self.link.sendall(packed({"ready": True}))
        while True:
            header, raw = lengths(self._read(LENGTHS.size))
            message = parsed(self._read(header))
            reply, raw = self._reply(message, self._read(raw))
            if os.getpid() != self.process:  # a cell forked, and this is the child
                os._exit(0)
            self.link.sendall(packed(reply | {"number": message["number"]}, raw))

    def _read(self, size):
        data = b""
        while len(data) < size:
            more = self.link.recv(size - len(data))
            if not more:
                os._exit(0)
            data += more
        return data

    def _reply(self, message, raw):
        try:
            value = getattr(self, "do_" + message["do"])(message, raw)
            tree, raw = encode(copied(value, self._reference), lambda reference: reference.parts)
            packed({"value": tree})
            return {"value": tree}, raw
        except CannotCross as refusal:
            return {"error": "raised", "words": f"The answer is {refusal}."}, b""
        except BaseException as error:
            kind = _kind(error, message["do"])
            words = stub_of(error, self.home.module) if kind == "unanswered" else _words(error)
            return {"error": kind, "words": words}, b""

    def do_run(self, message, raw):
        source = _python(message["source"])
        exec(compile(source, f"<{message['name']}>", "exec"), vars(self.notebook))

    def do_get(self, message, raw):
        name = message["name"]
        if name not in vars(self.notebook):
            raise NameError(f"name {name!r} is not defined")
        value = vars(self.notebook)[name]
        if value is ... or (isinstance(value, types.FunctionType) and is_unanswered(value)):
            raise NotImplementedError
        is_ours = self.home._is_defined_here(value) and not isinstance(value, types.FunctionType)
        return value if is_ours or not callable(value) else self._referred(value, "function")

    def do_attribute(self, message, raw):
        value = getattr(self.objects[message["of"]], message["name"])
        is_method = isinstance(value, (types.FunctionType, types.MethodType))
        return self._referred(value, "function") if is_method else value

    def do_call(self, message, raw):
        args, kwargs = decode(message["value"], raw, self._resolve)
        before_args, before_kwargs = decode(message["value"], raw, self._resolve)
        result = self.objects[message["of"]](*args, **kwargs)
        before = dict(enumerate(before_args)) | before_kwargs
        after = dict(enumerate(args)) | kwargs
        return result, {key: value for key, value in after.items() if not same_data(value, before[key])}

    def _reference(self, value):
        if isinstance(value, Reference):
            return value
        if isinstance(value, types.FunctionType) or not self.home._is_defined_here(value):
            return None
        return self._referred(value, "value")

    def _referred(self, value, kind):
        number = next((number for number, known in enumerate(self.objects) if known is value), len(self.objects))
        if number == len(self.objects):
            self.objects.append(value)
        label = value.__name__ if isinstance(value, type) else type(value).__name__
        return Reference(number, label, kind)

    def _resolve(self, number, label, kind):
        return self.objects[number]


def _kind(error, doing):
    if isinstance(error, NotImplementedError) and doing != "run":
        return "unanswered"
    if isinstance(error, AttributeError) and doing == "attribute":
        return "attribute"
    return "memory" if isinstance(error, MemoryError) else "raised"


def _python(source):
    """A cell's source as Python. IPython is needed only where a cell has its magics in it."""
    try:
        ast.parse(source)
        return source
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

        return TransformerManager().transform_cell(source)


def _get_ipython():
    from IPython.core.interactiveshell import InteractiveShell

    class Shell(InteractiveShell):
        def enable_gui(self, gui=None):
            """%matplotlib asks for it; there is none."""

    return Shell.instance(user_module=sys.modules["__main__"])


def _display(*args, **kwargs):
    from IPython.display import display

    display(*args, **kwargs)


def _words(error):
    """What an exception says, and the last line of a cell that it went through."""
    try:
        text = str(error)[:1000]
    except BaseException:
        text = "(it cannot be shown)"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename.startswith("<")]
    place = f" (line {lines[-1]} of a cell)" if lines and lines[-1] else ""
    return f"{type(error).__name__}: {text}{place}"
