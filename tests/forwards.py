"""torch's forward of every rule, and inputs to try it on. No gradient formula stands here.

`RULES[stem][name]` is a `Rule`. A lecture's rule cells may define the names listed there, each with
`_vjp` and `_jacobian` (or `_jacobians`), and nothing else: `tests/test_rules.py` checks all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from hypothesis import strategies as st

from byhand.jacobian import jacobian


@dataclass(frozen=True)
class Case:
    """Inputs in the rule's order, and its keyword-only options."""

    inputs: tuple
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """forward: the torch function, with the rule's own arguments and options; it returns what the
    rule returns. cases, jacobian_cases: strategies of Case. labels: places of the inputs that have
    no gradient. jacobians(rules, *inputs): pairs (hand-made, torch's) of Jacobian matrices; by
    default the rule's `_jacobian` and that of forward.
    """

    forward: Callable
    cases: st.SearchStrategy
    jacobian_cases: st.SearchStrategy | None = None
    labels: tuple = ()
    jacobians: Callable | None = None


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
    return draw(st.sampled_from([_as_is, _in_fortran_order, _every_other, _backwards]))(values * scale)


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


# --- 61 ------------------------------------------------------------------------------------------


def two_layer(x, W0, W1, t):
    h = x @ W0
    a = torch.relu(h)
    z = a @ W1
    return h, a, z, torch.softmax(z, dim=0), -torch.sum(t * torch.log_softmax(z, dim=0))


@st.composite
def two_layer_cases(draw):
    D, H, K = (draw(st.integers(1, 4)) for _ in range(3))
    x = draw(arrays((D,), draw(st.sampled_from([1.0, 2.0**-20, 8.0])), exact=True))
    W0 = draw(arrays((D, H), exact=True))
    W1 = draw(arrays((H, K), 0.125, exact=True))
    return Case((x, W0, W1, draw(probabilities(K))))


def two_layer_jacobians(rules, x, W0, W1, t):
    dL_ds, ds_dz, dz_da, da_dh, dh_dW0, dz_dW1 = rules.two_layer_jacobians(x, W0, W1, t)
    of_W0, of_W1 = jacobian(lambda W0, W1: two_layer(torch.tensor(x.copy()), W0, W1, torch.tensor(t))[-1], W0, W1)
    dL_dz = dL_ds @ ds_dz
    return [(dL_dz @ dz_da @ da_dh @ dh_dW0, of_W0), (dL_dz @ dz_dW1, of_W1)]


# --- 51 ------------------------------------------------------------------------------------------


def softmax(x, *, axis=-1):
    return torch.softmax(x, axis)


@st.composite
def softmax_cases(draw):
    """One to three axes; other axes may be empty, the one that the maximum is taken over may not."""
    shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    shape[axis] = max(shape[axis], 1)
    scale = draw(st.sampled_from([2.0**-20, 1.0, 10.0, 1000.0]))
    return Case((draw(arrays(tuple(shape), scale)),), {"axis": axis})


def softmax_vectors():
    return st.integers(1, 5).flatmap(lambda K: arrays((K,))).map(lambda x: Case((x,)))


RULES = {
    "51-softmax": {"softmax": Rule(softmax, softmax_cases(), softmax_vectors())},
    "61-two-layer": {
        "two_layer": Rule(two_layer, two_layer_cases(), two_layer_cases(), labels=(3,), jacobians=two_layer_jacobians),
    },
}
