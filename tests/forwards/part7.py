"""Part 7, when checks lie."""

import numpy as np
import torch
from hypothesis import strategies as st

from byhand.jacobian import jacobian
from forwards.inputs import Case, Rule, arrays

# --- 72 ------------------------------------------------------------------------------------------


def softplus(x):
    return torch.logaddexp(x, torch.zeros_like(x))


def weighted_log(s, t):
    t = torch.as_tensor(t)
    return t * torch.log(torch.where(t == 0, 1.0, s))


def shapes():
    """Up to three axes, also none, and also empty arrays."""
    return st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def softplus_cases(draw):
    return Case((draw(arrays(draw(shapes()), draw(st.sampled_from([2.0**-20, 1.0, 10.0, 1000.0])))),))


@st.composite
def weighted_log_cases(draw):
    """Weights of both signs and 0; probabilities, which are 0 only where the weight is."""
    shape = draw(shapes())
    t = draw(arrays(shape))
    s = 2.0 ** -np.abs(draw(arrays(shape, draw(st.sampled_from([1.0, 10.0])))))
    return Case((np.where((t == 0) & (s > 0.5), 0.0, s), t))


RULES = {
    "72-finite-precision": {
        "softplus": Rule(softplus, softplus_cases(), softplus_cases()),
        "weighted_log": Rule(
            weighted_log,
            weighted_log_cases(),
            weighted_log_cases(),
            labels=(1,),
            jacobians=lambda rules, s, t: [
                (rules.weighted_log_jacobian(s, t), jacobian(lambda s: weighted_log(s, t.copy()), s))
            ],
        ),
    },
}
