"""Every rule that a lecture teaches, against torch: forward, Jacobian and vector-Jacobian product."""

import ast
from functools import partial

import numpy as np
import pytest
import torch
from forwards import RULES
from hypothesis import given, settings
from hypothesis import strategies as st

from byhand.jacobian import jacobian
from byhand.taught import LECTURES, rule_sources, taught

# The same examples on every run, and no database of earlier failures.
settings.register_profile("course", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("course")

# Functions of rule cells that take functions, or Tensors: test_operators.py and test_training.py have them.
TESTED_ELSEWHERE = {
    "64-operators": {"op", "reduced", "shared_out", "routed", "closed_up", "choose"},
    "65-training": {"three_layers", "chained_loss", "penalty", "descend", "batches"},
}

NAMED = [(stem, name) for stem, rules in RULES.items() for name in rules]
WITH_VJP = [(stem, name) for stem, name in NAMED if RULES[stem][name].has_vjp]
NAMED_WITH_JACOBIAN = [(stem, name) for stem, name in NAMED if RULES[stem][name].jacobian_cases is not None]


def outputs(value):
    """The outputs of a rule, of which some return several, as a tuple."""
    return value if isinstance(value, tuple) else (value,)


def assert_equal(mine, reference):
    """Same shape, same dtype, same values; nothing is broadcast."""
    np.testing.assert_allclose(mine, reference, rtol=1e-7, atol=1e-9, strict=True)


@pytest.mark.parametrize(("stem", "name"), NAMED)
def test_forward_equals_torch(stem, name):
    rule, function = RULES[stem][name], getattr(taught(stem), name)

    @given(rule.cases)
    def agrees(case):
        tensors = [torch.tensor(value.copy()) for value in case.inputs]
        mine = outputs(function(*case.inputs, **case.options))
        for y, yt in zip(mine, outputs(rule.forward(*tensors, **case.options)), strict=True):
            assert_equal(np.asarray(y), yt.numpy())

    agrees()


@pytest.mark.parametrize(("stem", "name"), WITH_VJP)
def test_vjp_equals_autograd_and_leaves_its_inputs_alone(stem, name):
    rule, rules = RULES[stem][name], taught(stem)
    forward, vjp = getattr(rules, name), getattr(rules, f"{name}_vjp")

    @given(rule.cases, st.integers(0, 2**32 - 1))
    def agrees(case, seed):
        tensors = [
            torch.tensor(value.copy(), requires_grad=place not in rule.labels)
            for place, value in enumerate(case.inputs)
        ]
        yt = outputs(rule.forward(*tensors, **case.options))[-1]
        dy = np.random.default_rng(seed).normal(size=tuple(yt.shape))
        y = forward(*case.inputs, **case.options)
        kept = [np.array(value) for value in (dy, *outputs(y), *case.inputs)]

        gradients = outputs(vjp(dy, y, *case.inputs, **case.options))
        yt.backward(torch.tensor(dy))
        for place, (mine, xt) in enumerate(zip(gradients, tensors, strict=True)):
            if place in rule.labels:
                assert mine is None
            else:
                assert_equal(mine, xt.grad.numpy())
        for before, after in zip(kept, (dy, *outputs(y), *case.inputs), strict=True):
            np.testing.assert_array_equal(before, after)

    agrees()


@pytest.mark.parametrize(("stem", "name"), NAMED_WITH_JACOBIAN)
def test_explicit_jacobian_equals_torchs(stem, name):
    rule, rules = RULES[stem][name], taught(stem)

    def default(rules, *inputs, **options):
        explicit = getattr(rules, f"{name}_jacobian", None) or getattr(rules, f"{name}_jacobians")
        reference = jacobian(partial(rule.forward, **options), *inputs)
        return zip(outputs(explicit(*inputs, **options)), outputs(reference), strict=True)

    @given(rule.jacobian_cases)
    def agrees(case):
        for mine, reference in (rule.jacobians or default)(rules, *case.inputs, **case.options):
            assert_equal(mine, reference)

    agrees()


@pytest.mark.parametrize("path", sorted(LECTURES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_taught_rule_is_tested_here(path):
    functions = functions_taught(path.stem) - TESTED_ELSEWHERE.get(path.stem, set())
    listed = RULES.get(path.stem, {})
    endings = ("", "_vjp", "_jacobian", "_jacobians")
    expected = {name + ending for name in listed for ending in endings}
    assert functions <= expected, f"{path.stem} teaches {functions - expected}: add torch's forward to tests/forwards/"
    for name, rule in listed.items():
        assert name in functions
        assert (f"{name}_vjp" in functions) == rule.has_vjp
        has_jacobian = bool({f"{name}_jacobian", f"{name}_jacobians"} & functions)
        assert has_jacobian == (rule.jacobian_cases is not None)


def functions_taught(stem):
    """The functions that a lecture itself defines in its rule cells, not those it takes from another."""
    sources = rule_sources(stem)
    return {
        node.name for source in sources.values() for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)
    }
