"""Part 2, elementwise operations."""

import numpy as np
import torch
from hypothesis import strategies as st

from forwards.inputs import Case, Rule, arrays


@st.composite
def one_array(draw, most=4, axes=3):
    """One input of any shape: 0-d, empty, or up to this many axes."""
    shape = draw(st.lists(st.integers(0, most), max_size=axes))
    return Case((draw(arrays(tuple(shape))),))


# --- 22 ------------------------------------------------------------------------------------------


@st.composite
def positive_array(draw, most=4, axes=3):
    """One input of any shape for the logarithm: positive, small and large, with ones planted."""
    (exponents,) = draw(one_array(most, axes)).inputs
    return Case((np.exp2(draw(st.sampled_from([1.0, 4.0])) * exponents),))


# --- 23 ------------------------------------------------------------------------------------------


@st.composite
def power_cases(draw):
    """Both inputs over the whole plane: zeros of both signs, negative bases, whole and broken exponents."""
    (a,) = draw(one_array()).inputs
    b = draw(arrays(a.shape))
    return Case((a, np.rint(b) if draw(st.booleans()) else b))


@st.composite
def positive_bases(draw):
    """Bases above 0: elsewhere torch's rows hold 0 times inf."""
    (a,) = draw(positive_array(most=3, axes=2)).inputs
    return Case((a, draw(arrays(a.shape))))


# --- 24 ------------------------------------------------------------------------------------------

RULES = {
    "21-elementwise": {"sin": Rule(torch.sin, one_array(), one_array(most=3, axes=2))},
    "22-log-exp": {
        "exp": Rule(torch.exp, one_array(), one_array(most=3, axes=2)),
        "log": Rule(torch.log, positive_array(), positive_array(most=3, axes=2)),
    },
    "23-power": {"power": Rule(torch.pow, power_cases(), positive_bases())},
    "24-relu": {"relu": Rule(torch.relu, one_array(), one_array(most=3, axes=2))},
}
