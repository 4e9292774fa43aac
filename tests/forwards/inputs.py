"""What describes a rule to the tests, and strategies for its inputs."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st


@dataclass(frozen=True)
class Case:
    """Inputs in the rule's order, and its keyword-only options."""

    inputs: tuple
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """forward: the torch function, with the rule's own arguments and options; it returns what the
    rule returns. cases, jacobian_cases: strategies of Case. labels: places of the inputs that have
    no gradient. jacobians(rules, *inputs, **options): pairs (hand-made, torch's) of Jacobian
    matrices; by default the rule's `_jacobian` or `_jacobians` (one an input) and those of forward.
    has_vjp: False for a function that rules share and that is no rule itself, as a reduction of
    gradients.
    """

    forward: Callable
    cases: st.SearchStrategy
    jacobian_cases: st.SearchStrategy | None = None
    labels: tuple = ()
    jacobians: Callable | None = None
    has_vjp: bool = True


# --- inputs --------------------------------------------------------------------------------------


@st.composite
def arrays(draw, shape, scale=1.0, exact=False):
    """A float64 array of this shape, often not contiguous, with zeros and ties planted.

    exact: entries are multiples of scale / 8, so that sums of products do not round and a
    pre-activation that should be exactly 0 is.
    """
    planted = st.sampled_from([0.0, -0.0, 1.0, 1.0, -1.0])
    whole = st.integers(-24, 24).map(lambda n: n / 8)
    anything = st.floats(-3, 3, allow_subnormal=False)
    entry = st.one_of(planted, whole if exact else anything)
    size = int(np.prod(shape))
    values = np.array(draw(st.lists(entry, min_size=size, max_size=size)), dtype=float).reshape(shape)
    layouts = [_as_is, _in_fortran_order, _every_other, _backwards] if values.ndim else [np.asarray]
    return draw(st.sampled_from(layouts))(values * scale)


def _as_is(array):
    return array


def _in_fortran_order(array):
    return np.asfortranarray(array)


def _every_other(array):
    return np.repeat(array, 2, axis=-1)[..., ::2]


def _backwards(array):
    return array[..., ::-1].copy()[..., ::-1]


@st.composite
def probabilities(draw, size):
    """A label of this many classes: one-hot, or spread out; it sums to one."""
    if draw(st.booleans()):
        return np.eye(size)[draw(st.integers(0, size - 1))]
    weights = np.array(draw(st.lists(st.integers(1, 9), min_size=size, max_size=size)), dtype=float)
    return weights / weights.sum()
