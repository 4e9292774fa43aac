"""Part 3, moving data."""

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from forwards.inputs import Case, Rule, arrays

RULES = {}

# --- 31 ------------------------------------------------------------------------------------------


def reshape(x, *, shape):
    return torch.reshape(x, shape)


@st.composite
def reshape_cases(draw):
    """Up to four axes, empty ones and 0-d included; neighbours are joined and axes of size 1 put in, or the reverse."""
    old = draw(st.lists(st.integers(0, 3), max_size=4))
    new = list(old)
    for place in sorted(draw(st.sets(st.integers(0, 3), max_size=2)), reverse=True):
        new[place : place + 2] = [int(np.prod(new[place : place + 2]))]  # a 1 where there is no axis
    if draw(st.booleans()):
        old, new = new, old
    if new and 0 not in new and draw(st.booleans()):
        new[draw(st.integers(0, len(new) - 1))] = -1
    return Case((draw(arrays(tuple(old))),), {"shape": tuple(new)})


RULES["31-reshape"] = {"reshape": Rule(reshape, reshape_cases(), reshape_cases())}

# --- 32 ------------------------------------------------------------------------------------------


def transpose(x, *, axes=None):
    return x.permute(tuple(range(x.ndim))[::-1] if axes is None else axes)


@st.composite
def transpose_cases(draw):
    """Up to four axes, empty ones and 0-d included; some are counted from the end."""
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    order = draw(st.permutations(range(len(shape))))
    axes = tuple(axis - draw(st.sampled_from([0, len(shape)])) for axis in order)
    return Case((draw(arrays(shape)),), draw(st.sampled_from([{}, {"axes": None}, {"axes": axes}])))


RULES["32-transpose"] = {"transpose": Rule(transpose, transpose_cases(), transpose_cases())}

# --- 33 ------------------------------------------------------------------------------------------


def sum_over(x, *, axis=None, keepdims=False):
    axes = tuple(range(x.ndim)) if axis is None else axis
    return torch.sum(x, axes, keepdim=keepdims) if axes != () else x.clone()


@st.composite
def sum_cases(draw, keepdims=True):
    """Up to four axes, empty ones and 0-d included; none, one or several are summed, some counted from the end."""
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), unique=True)) if shape else []
    axes = tuple(axis - draw(st.sampled_from([0, len(shape)])) for axis in axes)
    options = {"axis": draw(st.sampled_from([None, axes, axes[0]] if axes else [None]))}
    if keepdims:
        options["keepdims"] = draw(st.booleans())
    return Case((draw(arrays(shape)),), options)


RULES["33-sum"] = {"sum_over": Rule(sum_over, sum_cases(), sum_cases(keepdims=False))}

# --- 34 ------------------------------------------------------------------------------------------


def broadcast_to(x, *, shape):
    return torch.broadcast_to(x, shape)


def sum_to(x, *, shape):
    return x.sum_to_size(shape)


@st.composite
def shapes_that_broadcast(draw):
    """(small, large): 0-d, empty axes and axes of size 1 included."""
    large = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    small = tuple(draw(st.sampled_from([1, size])) for size in large)
    return small[draw(st.integers(0, len(small))) :], large


@st.composite
def broadcast_cases(draw):
    small, large = draw(shapes_that_broadcast())
    return Case((draw(arrays(small)),), {"shape": large})


@st.composite
def sum_to_cases(draw):
    small, large = draw(shapes_that_broadcast())
    return Case((draw(arrays(large)),), {"shape": small})


RULES["34-broadcast"] = {
    "broadcast_to": Rule(broadcast_to, broadcast_cases(), broadcast_cases()),
    "sum_to": Rule(sum_to, sum_to_cases(), sum_to_cases()),
}

# --- 35 ------------------------------------------------------------------------------------------


def reduce_grad_to_shape(dy, *, shape):
    return dy.sum_to_size(shape)


@st.composite
def broadcastable_pairs(draw):
    """Two arrays whose shapes broadcast: 0-d, empty axes, missing axes and axes of size 1 included."""
    shapes = draw(mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=3, max_dims=3)).input_shapes
    return Case(tuple(draw(arrays(shape)) for shape in shapes))


RULES["35-unbroadcast"] = {
    "reduce_grad_to_shape": Rule(reduce_grad_to_shape, sum_to_cases(), has_vjp=False),
    "add": Rule(torch.add, broadcastable_pairs(), broadcastable_pairs()),
    "mul": Rule(torch.mul, broadcastable_pairs(), broadcastable_pairs()),
}
