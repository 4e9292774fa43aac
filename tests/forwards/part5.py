"""Part 5, losses."""

import numpy as np
import torch
from hypothesis import strategies as st

from byhand.jacobian import jacobian
from forwards.inputs import Case, Rule, arrays, probabilities

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


# --- 52 ------------------------------------------------------------------------------------------


@st.composite
def nll_cases(draw, reductions=("mean", "sum")):
    """Log-probabilities, of which torch asks no more than that they are numbers, and labels, now and then repeated."""
    B, K = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    t = np.array(draw(st.lists(st.integers(0, K - 1), min_size=B, max_size=B)))
    options = {"reduction": draw(st.sampled_from(reductions))} if reductions else {}
    return Case((draw(arrays((B, K))), t), options)


def row_of_a_loss(name, forward):
    """The explicit Jacobian of a loss in its first input; the second is a label."""

    def row(rules, x, t):
        reference = jacobian(lambda x: forward(x, torch.tensor(t.copy())), x)
        return [(getattr(rules, f"{name}_jacobian")(x, t), reference)]

    return row


nll = torch.nn.functional.nll_loss

# --- 53 ------------------------------------------------------------------------------------------


def log_softmax(x, *, axis=-1):
    return torch.log_softmax(x, axis)


cross_entropy = torch.nn.functional.cross_entropy


@st.composite
def cross_entropy_cases(draw, reductions=("mean", "sum")):
    """Scores near and far apart; targets one-hot, probabilities, or rows that sum to anything."""
    B, K = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    x = draw(arrays((B, K), draw(st.sampled_from([2.0**-20, 1.0, 10.0, 1000.0]))))
    rows = st.lists(probabilities(K), min_size=B, max_size=B).map(np.array)
    options = {"reduction": draw(st.sampled_from(reductions))} if reductions else {}
    return Case((x, draw(st.one_of(rows, arrays((B, K))))), options)


# --- 54 ------------------------------------------------------------------------------------------


def bernoulli_nll(z, t):
    return torch.nn.functional.binary_cross_entropy_with_logits(z, t, reduction="sum") / len(z)


def gaussian_nll(z, t):
    return torch.nn.functional.gaussian_nll_loss(z, t, 1.0, full=True, reduction="sum") / len(z)


@st.composite
def output_unit_cases(draw, targets):
    """Parameters near and far from 0, and targets of the distribution; bounded by what float64 can subtract."""
    B, D = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    z = draw(arrays((B, D), draw(st.sampled_from([2.0**-20, 1.0, 10.0, 100.0]))))
    rows = st.lists(targets(D), min_size=B, max_size=B).map(np.array)
    return Case((z, draw(rows)))


def shares(D):
    """Yes, no, or a share in between, for each of D questions."""
    return st.lists(st.sampled_from([0.0, -0.0, 0.25, 0.7, 1.0]), min_size=D, max_size=D)


def output_unit(name, forward, targets):
    cases = output_unit_cases(targets)
    return Rule(forward, cases, cases, labels=(1,), jacobians=row_of_a_loss(name, forward))


# --- 55 ------------------------------------------------------------------------------------------


def l2(W, *, lam, N):
    return lam / (2 * N) * torch.sum(W * W)


@st.composite
def l2_cases(draw):
    """Up to three axes, also none, and also empty arrays."""
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    options = {"lam": draw(st.sampled_from([0.0, 0.3, 2.0])), "N": draw(st.integers(1, 60))}
    return Case((draw(arrays(shape)),), options)


RULES = {
    "51-softmax": {"softmax": Rule(softmax, softmax_cases(), softmax_vectors())},
    "52-nll": {
        "nll": Rule(nll, nll_cases(), nll_cases(reductions=()), labels=(1,), jacobians=row_of_a_loss("nll", nll)),
    },
    "53-cross-entropy": {
        "log_softmax": Rule(log_softmax, softmax_cases(), softmax_vectors()),
        "cross_entropy": Rule(
            cross_entropy,
            cross_entropy_cases(),
            cross_entropy_cases(reductions=()),
            labels=(1,),
            jacobians=row_of_a_loss("cross_entropy", cross_entropy),
        ),
    },
    "54-output-units": {
        "bernoulli_nll": output_unit("bernoulli_nll", bernoulli_nll, shares),
        "multinoulli_nll": output_unit("multinoulli_nll", cross_entropy, probabilities),
        "gaussian_nll": output_unit("gaussian_nll", gaussian_nll, lambda D: arrays((D,))),
    },
    "55-l2": {"l2": Rule(l2, l2_cases(), l2_cases())},
}
