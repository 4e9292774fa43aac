"""What may cross between a check and an answer, and the proxies that hold both sides to it.

A check never touches an answer directly. It calls a proxy, which copies the arguments, calls the
answer and copies the result back. Only plain data crosses:

- None, bool, int, float, str;
- float, int and bool arrays of exactly the class ``numpy.ndarray``;
- tuples, lists and dicts of these;
- classes and objects that the answer defines, by `Handle`: construct, call a method, read an
  attribute.

No tensor, no generator and no function crosses. So a check that works here works as well where the
answer lives in another process.
"""

import dis
import functools
import inspect
import traceback
import types

import numpy as np

PLAIN = (type(None), bool, int, float, str)
# What may stand around an answer's function, and the attribute that holds it.
WRAPPERS = {functools.partial: "func", np.vectorize: "pyfunc", type(functools.cache(len)): "__wrapped__"}


class NotAnswered(Exception):
    """An answer is still `...`, or still raises NotImplementedError."""

    def __init__(self, name):
        super().__init__(f"{name} is not answered yet.")

    def _render_traceback_(self):
        return [f"NotAnswered: {self}"]


class Mismatch(AssertionError):
    """An answer is wrong. The text is written for the student who gave it.

    name: which quantity is wrong; mine: the array that was given for it, or None; where: the first
    index that differs, or None.
    """

    def __init__(self, words, name=None, mine=None, where=None):
        super().__init__(words)
        self.name, self.mine, self.where = name, mine, where

    def _render_traceback_(self):
        return str(self).splitlines()


class CannotCross(TypeError):
    """A value is not among those that may cross. The text says what it is and what to use instead."""


def copied(value, define_here=None):
    """A deep copy of a value that may cross.

    Arrays come back contiguous, in C order and native byte order; NumPy scalars as 0-d arrays, so
    that their dtype is not lost. `define_here(value)` may turn another value into one that crosses
    (a handle), or return None. Raises CannotCross.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if type(value) is np.ndarray:
        if value.dtype.kind not in "fiub":
            raise CannotCross(f"an array of {value.dtype}; arrays hold floats, integers or booleans")
        return np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
    if type(value) in (tuple, list):
        return type(value)(copied(item, define_here) for item in value)
    if type(value) is dict:
        return {_key(key): copied(item, define_here) for key, item in value.items()}
    crossing = define_here(value) if define_here else None
    if crossing is None:
        raise CannotCross(_described(value))
    return crossing


def _key(key):
    if type(key) not in PLAIN:
        raise CannotCross(f"a dict with a key that is {_described(key)}")
    return key


def _described(value):
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, np.ndarray):
        return f"a {name}, a subclass of the NumPy array; use a plain array"
    if name == "torch.Tensor":
        return "a torch tensor; use a NumPy array"
    return f"a {name}; use numbers and NumPy arrays"


def same_data(a, b):
    """Whether two values of the plain kinds are equal, bit for bit in arrays (so nan equals nan)."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same_data, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same_data(a[key], b[key]) for key in a)
    return a is b or a == b or (a != a and b != b)


def write_back(old, new):
    """new, held in the check's own arrays and containers wherever their kind and shape allow it."""
    if type(old) is not type(new):
        return new
    if isinstance(old, np.ndarray) and old.shape == new.shape and old.dtype == new.dtype:
        old[...] = new
        return old
    if isinstance(old, tuple):
        return tuple(map(write_back, old, new))
    if isinstance(old, list):
        old[:] = [write_back(old[k], item) if k < len(old) else item for k, item in enumerate(new)]
        return old
    if isinstance(old, dict):
        kept = {key: write_back(old.get(key), item) for key, item in new.items()}
        old.clear()
        old.update(kept)
        return old
    return new


def is_unanswered(function):
    """Whether the first thing a function does is to reach for NotImplementedError."""
    for step in dis.get_instructions(function):
        if step.opname == "LOAD_GLOBAL" or "JUMP" in step.opname:
            return step.argval == "NotImplementedError"
    return False


def stub_of(error, module):
    """The name of the function of this module that raised the error, or None."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    name = frame.f_code.co_qualname
    return name if frame.f_globals.get("__name__") == module and "<" not in name else None


class Home:
    """The answers of one notebook, reached from a check in the same process.

    module: the ``__name__`` of the notebook's namespace; what was defined there is an answer (or
    given beside one), what was imported is not. inplace: whether an answer may change its inputs.
    """

    last_call = ""  # of any check, in words: what was asked before a comparison failed

    def __init__(self, module, inplace=False):
        self.module, self.inplace = module, inplace

    def guard(self, name, value):
        """What a check sees under `name`: a proxy, a copy, or the value itself if it was imported.

        Raises NotAnswered for `...` and for functions that are still stubs, Mismatch for a value
        that may not cross.
        """
        if value is ...:
            raise NotAnswered(name)
        if isinstance(value, types.ModuleType):
            return value
        if self._is_defined_here(value):
            if isinstance(value, types.FunctionType):
                if is_unanswered(value):
                    raise NotAnswered(name)
                return self._function(name, value)
            return self._handle(value)
        if type(value) in WRAPPERS and self._is_defined_here(getattr(value, WRAPPERS[type(value)])):
            return self._function(name, value)
        if callable(value):
            return value
        return self._received(name, value)

    def _is_defined_here(self, value):
        if isinstance(value, (types.FunctionType, type)):
            return value.__module__ == self.module
        return type(value).__module__ == self.module

    def _handle(self, value):
        """The handle of a class or an object that the answers define, else None (functions too)."""
        if isinstance(value, types.FunctionType) or not self._is_defined_here(value):
            return None
        return Handle(self, value)

    def _received(self, name, value):
        try:
            return copied(value, self._handle)
        except CannotCross as refusal:
            raise Mismatch(f"{name} is {refusal}.", name) from None

    def _sent(self, name, value):
        try:
            return copied(value, lambda item: _target(item) if type(item) is Handle else None)
        except CannotCross as refusal:
            raise TypeError(f"this check passes {name} {refusal}.") from None

    def _function(self, name, function):
        def call(*args, **kwargs):
            arguments = {f"argument {i + 1}": value for i, value in enumerate(args)} | kwargs
            Home.last_call = _call_in_words(name, function, args, kwargs)
            sent = {key: self._sent(name, value) for key, value in arguments.items()}
            before = {key: self._sent(name, value) for key, value in arguments.items()}
            positional = list(sent.values())[: len(args)]
            try:
                result = function(*positional, **{key: sent[key] for key in kwargs})
            except NotImplementedError as error:
                raise NotAnswered(self._stub(error) or name) from None
            for key, value in sent.items():
                if not same_data(value, before[key]):
                    self._changed(name, key, arguments[key], value)
            return self._received(f"what {name} returns", result)

        call.__name__ = name
        return call

    def _stub(self, error):
        """The name of the answer that is still a stub: perhaps one that the called answer calls."""
        return stub_of(error, self.module)

    def _changed(self, name, argument, target, value):
        if not self.inplace:
            raise Mismatch(
                f"{name} changes its {argument} in place, and the caller may still need it.\nWork on a copy.",
                f"{argument} of {name}",
            )
        write_back(target, value)


def _call_in_words(name, function, args, kwargs):
    """A call with the shapes of its arrays and with its numbers, in one line."""
    try:
        known = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # it has none, as some functions written in C
        known = ()
    known = [one.name for one in known if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    named = [f"{key}={_in_words(value)}" for key, value in zip(known, args, strict=False)]
    others = [_in_words(value) for value in args[len(named) :]]
    options = [f"{key}={_in_words(value)}" for key, value in kwargs.items()]
    return f"{name}({', '.join(named + others + options)})"


def _in_words(value):
    if isinstance(value, np.ndarray):
        return f"array {value.shape}"
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    if type(value) is Handle:
        return _name_of(_target(value))
    text = repr(value) if isinstance(value, (*PLAIN, tuple, list)) else type(value).__name__
    return text if len(text) <= 40 else f"{type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else text


class Handle:
    """A class or an object that lives on the answers' side. Construct, call, read; never assign."""

    # Named so that no attribute of an answer's object is hidden behind them.
    __slots__ = ("_handle_home", "_handle_target")

    def __init__(self, home, target):
        object.__setattr__(self, "_handle_home", home)
        object.__setattr__(self, "_handle_target", target)

    def __getattr__(self, attribute):
        home, value = self._handle_home, getattr(self._handle_target, attribute)
        name = f"{_name_of(self._handle_target)}.{attribute}"
        if isinstance(value, (types.FunctionType, types.MethodType)):
            return home._function(name, value)
        return home._received(name, value)

    def __call__(self, *args, **kwargs):
        return self._handle_home._function(_name_of(self._handle_target), self._handle_target)(*args, **kwargs)

    def __setattr__(self, attribute, value):
        raise TypeError(f"a check may not assign {_name_of(self._handle_target)}.{attribute}; call a method that does.")


def _target(handle):
    return object.__getattribute__(handle, "_handle_target")


def _name_of(value):
    return value.__name__ if isinstance(value, type) else type(value).__name__
