"""What a sandbox has in place of torch: it can be imported, and every use says why not."""

import sys
import types

WORDS = (
    "torch is not here when an answer is graded: NumPy computes, and torch judges in another process. "
    "Write the answer with NumPy alone."
)


class NoTorch(AttributeError):
    """torch was used inside an answer."""


class Tensor:
    """No object is one, so `isinstance(value, torch.Tensor)` may be asked."""

    def __new__(cls, *args, **kwargs):
        raise NoTorch(WORDS)


class _Absent(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise NoTorch(WORDS)


def _absent(name):
    module = sys.modules[name] = _Absent(name)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return module


_absent("torch").Tensor = Tensor
for _name in "nn", "nn.functional", "func", "autograd", "autograd.functional", "linalg", "special":
    _absent(f"torch.{_name}")
