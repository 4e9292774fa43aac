"""Part 1, chains."""

import numpy as np
import torch
from hypothesis import strategies as st

from byhand.jacobian import jacobian
from forwards.inputs import Case, Rule, arrays

# --- 11 ------------------------------------------------------------------------------------------


def square_of_sum(x, y):
    return (x + y) ** 2


def shared(x, y):
    return (x + y) * x**2


def one_row(name, forward):
    """A rule of two numbers whose Jacobian is one row: torch's two, side by side."""

    def row(rules, x, y):
        return [(getattr(rules, f"{name}_jacobian")(x, y), np.hstack(jacobian(forward, x, y)))]

    cases = arrays((2,), exact=True).map(lambda xy: Case(tuple(map(np.asarray, xy))))
    return Rule(forward, cases, cases, jacobians=row)


CHAINS = {"square_of_sum": one_row("square_of_sum", square_of_sum), "shared": one_row("shared", shared)}

# --- 12 ------------------------------------------------------------------------------------------


def numbers(scale=1.0):
    """One number, as an array without axes; zeros, ties and -0.0 are planted."""
    return arrays((1,), scale).map(lambda values: values.reshape(()))


def pairs_of_numbers():
    """Two numbers, now and then a tie."""
    tied = numbers().map(lambda x: Case((x, x.copy())))
    return st.one_of(st.tuples(numbers(), numbers()).map(Case), tied)


def gate(name, forward):
    """A gate of two numbers, whose Jacobian is one row for both."""

    def row(rules, x, y):
        return [(getattr(rules, f"{name}_jacobian")(x, y), np.hstack(jacobian(forward, x, y)))]

    return Rule(forward, pairs_of_numbers(), pairs_of_numbers(), jacobians=row)


def fork(x):
    return torch.stack([x, x])


GATES = {
    **{name: gate(name, getattr(torch, name)) for name in ("add", "mul", "maximum")},
    "fork": Rule(fork, numbers().map(lambda x: Case((x,))), numbers().map(lambda x: Case((x,)))),
}

# --- 13 ------------------------------------------------------------------------------------------


@st.composite
def sigmoid_cases(draw):
    """Any number of axes, none and empty ones included, and numbers at which exp overflows."""
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    scale = draw(st.sampled_from([1.0, 10.0, 1000.0]))
    return Case((draw(arrays(tuple(shape), scale)) if shape else draw(numbers(scale)),))


def neuron(w, x):
    return torch.sigmoid(w[0] * x[0] + w[1] * x[1] + w[2])


@st.composite
def neuron_cases(draw):
    scale = draw(st.sampled_from([1.0, 100.0]))
    return Case((draw(arrays((3,), scale)), draw(arrays((2,)))))


RULES = {
    "11-chain-rule": CHAINS,
    "12-gates": GATES,
    "13-sigmoid": {
        "sigmoid": Rule(torch.sigmoid, sigmoid_cases(), numbers(10.0).map(lambda x: Case((x,)))),
        "neuron": Rule(neuron, neuron_cases(), neuron_cases()),
    },
}
