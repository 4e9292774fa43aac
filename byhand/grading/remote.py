"""The wire between judge and sandbox, and the judge's proxies for answers that live there.

A message is two lengths, a JSON header and raw bytes. The header says what the bytes are: arrays of
a few dtypes, whose sizes are checked before anything is allocated. Nothing is ever unpickled. What
the other side sends can therefore be wrong, but it can only be numbers and text.
"""

import functools
import json
import math
import re
import struct
import types

import numpy as np

from byhand.wire import PLAIN, CannotCross, Home, write_back

LENGTHS = struct.Struct(">II")
MOST_HEADER, MOST_RAW = 1 << 20, 16 << 20  # bytes
MOST_AXES, MOST_DEPTH = 8, 16
DTYPES = {"|b1", "|i1", "|u1", *(f"<{kind}{size}" for kind in "iu" for size in (2, 4, 8)), "<f2", "<f4", "<f8"}
CONTAINERS = {"tuple": tuple, "list": list}


class Stopped(Exception):
    """The sandbox ended, or has to be ended, before it answered. status: what the question gets for it."""

    def __init__(self, words, status="died"):
        super().__init__(words)
        self.status = status


class Forged(Stopped):
    """A message that no honest sandbox sends."""

    def __init__(self, what):
        super().__init__(f"The sandbox sent {what}, so it was ended.")


class AnswerError(Exception):
    """An answer raised, or gave what may not cross. status: what the question gets for it."""

    def __init__(self, words, status="error"):
        super().__init__(words)
        self.status = status


class NoAttribute(AnswerError, AttributeError):
    """An answer's object has no such attribute."""


# --- messages ------------------------------------------------------------------------------------


def packed(message, raw=b""):
    """A message as bytes. Raises CannotCross when it is too large."""
    header = json.dumps(message).encode()
    if len(header) > MOST_HEADER or len(raw) > MOST_RAW:
        raise CannotCross(f"larger than {MOST_RAW >> 20} MB; use fewer numbers")
    return LENGTHS.pack(len(header), len(raw)) + header + raw


def lengths(start):
    """(header's, raw part's) length from the first eight bytes of a message. Raises Forged."""
    header, raw = LENGTHS.unpack(start)
    if header > MOST_HEADER or raw > MOST_RAW:
        raise Forged("a message that is too long")
    return header, raw


def parsed(header):
    """The header of a message, a dict. Raises Forged."""
    try:
        message = json.loads(header)
    except (ValueError, RecursionError):
        message = None
    if type(message) is not dict:
        raise Forged("a message without a header")
    return message


def encode(value, refer):
    """(tree for the header, raw bytes) of a value as `copied` made it.

    refer(value) gives [number, label, kind] for an object that crosses by handle. Raises CannotCross.
    """
    arrays = []

    def visit(value):
        if type(value) is int and not -(2**63) <= value < 2**64:
            raise CannotCross("an integer of more than 64 bits")
        if type(value) in PLAIN:
            return value
        if type(value) is np.ndarray:
            if value.dtype.str not in DTYPES or value.ndim > MOST_AXES:
                raise CannotCross(f"an array of {value.dtype} with {value.ndim} axes; use float64 and fewer axes")
            if _extent(value.shape, value.itemsize) > MOST_RAW:
                raise CannotCross(f"larger than {MOST_RAW >> 20} MB; use fewer numbers")
            arrays.append(value)
            return ["array", value.dtype.str, list(value.shape)]
        if type(value) in (tuple, list):
            return [type(value).__name__, [visit(item) for item in value]]
        if type(value) is dict:
            return ["dict", [[visit(key), visit(item)] for key, item in value.items()]]
        return ["object", *refer(value)]

    tree = visit(value)
    if sum(array.nbytes for array in arrays) > MOST_RAW:
        raise CannotCross(f"larger than {MOST_RAW >> 20} MB; use fewer numbers")
    return tree, b"".join(array.tobytes() for array in arrays)


def _extent(shape, width):
    """An array's bytes, an empty axis counted as one: a sum over it would have the size of the others."""
    return math.prod(max(n, 1) for n in shape) * width


def decode(tree, raw, resolve):
    """The value of a tree and its raw bytes: exact types only. resolve(number, label, kind) gives objects.

    Raises Forged.
    """
    raw, used = memoryview(raw), 0

    def visit(tree, depth):
        if type(tree) in PLAIN:
            return tree
        if depth > MOST_DEPTH or type(tree) is not list or not tree:
            raise Forged("a value of no known kind")
        kind, *rest = tree
        if kind == "array":
            return array(*rest)
        if kind == "object":
            return resolve(*rest)
        (items,) = rest
        if kind == "dict":
            return {key: visit(item, depth + 1) for key, item in items if type(key) in PLAIN}
        return CONTAINERS[kind](visit(item, depth + 1) for item in items)

    def array(dtype, shape):
        nonlocal used
        if dtype not in DTYPES or len(shape) > MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
            raise Forged("an array of no known kind")
        size = math.prod(shape) * (width := np.dtype(dtype).itemsize)
        if size > len(raw) - used or _extent(shape, width) > MOST_RAW:
            raise Forged("an array without its numbers")
        chunk, used = raw[used : used + size], used + size
        if dtype == "|b1":
            return (np.frombuffer(chunk, np.uint8) != 0).reshape(shape)
        return np.frombuffer(chunk, dtype).reshape(shape).copy()

    try:
        value = visit(tree, 0)
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise Forged(f"a value that cannot be read ({type(error).__name__})") from None
    if used != len(raw):
        raise Forged("bytes that belong to nothing")
    return value


# --- the judge's proxies -------------------------------------------------------------------------


class Remote(Home):
    """The answers of a submission, reached from a check through a sandbox.

    Everything that `Home` promises holds: arguments and results are copied, changes in place are
    seen, only plain data crosses. What it finds "defined here" are the sandbox's objects.
    """

    def __init__(self, answers, inplace):
        super().__init__(None, inplace)
        self.answers = answers

    def resolve(self, name):
        """What a check sees under `name`. Raises NotAnswered, or AnswerError."""
        return self.guard(name, self.answers.get(name))

    def _is_defined_here(self, value):
        return isinstance(value, (RemoteObject, types.FunctionType))

    def _stub(self, error):
        return str(error) if re.fullmatch(r"[A-Za-z_][\w.]*", str(error)) else None


class RemoteObject:
    """A class or an object that lives in the sandbox. `Handle` stands before it."""

    __slots__ = ("_remote_answers", "_remote_number")

    def __getattr__(self, attribute):
        return self._remote_answers.attribute(self._remote_number, attribute)

    def __call__(self, *args, **kwargs):
        return self._remote_answers.call(self._remote_number, args, kwargs)


class Answers:
    """What one sandbox defines: values, functions as Python functions, and `RemoteObject`s.

    ask(message, raw) sends a request and returns (reply, raw); see `byhand.grading.guest` for them.
    """

    def __init__(self, ask):
        self.ask = ask
        self.objects = {}

    def run(self, source, name):
        """Run a cell. Raises AnswerError when it raises."""
        self._asked({"do": "run", "source": source, "name": name})

    def get(self, name):
        """The value of a global name; `...` where it is not answered yet."""
        try:
            return self._asked({"do": "get", "name": name})
        except NotImplementedError:
            return ...

    def attribute(self, number, attribute):
        return self._asked({"do": "attribute", "of": number, "name": attribute})

    def call(self, number, args, kwargs):
        """Call an object; what it changes in place is changed in args and kwargs as well."""
        tree, raw = encode((args, kwargs), self._refer)
        answer = self._asked({"do": "call", "of": number, "value": tree}, raw)
        if type(answer) is not tuple or len(answer) != 2 or type(answer[1]) is not dict:
            raise Forged("a reply that answers no call")
        for key, changed in answer[1].items():
            before = args[key] if type(key) is int and 0 <= key < len(args) else kwargs.get(key)
            write_back(before, changed)
        return answer[0]

    def _asked(self, message, raw=b""):
        reply, raw = self.ask(message, raw)
        error, words = reply.get("error"), bounded(reply.get("words"))
        if error is None:
            return decode(reply.get("value"), raw, self._resolve)
        if error == "unanswered":
            raise NotImplementedError(words)
        if error == "attribute":
            raise NoAttribute(words)
        raise AnswerError(words, "died" if error == "memory" else "error")

    def _refer(self, value):
        if not isinstance(value, RemoteObject):
            raise CannotCross(f"a {type(value).__name__}")
        return [value._remote_number, "", "value"]

    def _resolve(self, number, label, kind):
        if type(number) is not int or type(label) is not str or kind not in ("value", "function"):
            raise Forged("an object of no known kind")
        if kind == "function":
            return lambda *args, **kwargs: self.call(number, args, kwargs)
        if number not in self.objects:
            self.objects[number] = self._object(number, label)
        return self.objects[number]

    def _object(self, number, label):
        made = _class_named(label if label.isidentifier() and len(label) < 80 else "object")()
        made._remote_answers, made._remote_number = self, number
        return made


@functools.lru_cache(256)
def _class_named(label):
    """A RemoteObject's class under the student's name for it, which is what messages show."""
    return type(label, (RemoteObject,), {"__slots__": ()})


def bounded(words):
    """Words from the other side: text of a few lines, whatever was sent."""
    if type(words) is not str:
        return ""
    text = words[:1500].encode("utf-8", "replace").decode("utf-8")
    return "\n".join(text.splitlines()[:12])
