"""Part 5, losses."""

import torch
from hypothesis import strategies as st

from forwards.inputs import Case, Rule, arrays

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


RULES = {"51-softmax": {"softmax": Rule(softmax, softmax_cases(), softmax_vectors())}}
