"""What mathnotes/97-atlas.md says a VJP costs: each is run on numbers that count their multiplications."""

import math
import re

import numpy as np
import pytest

from byhand.notebooks import ROOT
from byhand.taught import taught


class Counting:
    """A number that counts its multiplications and divisions, all instances together."""

    done = 0

    def __init__(self, value):
        self.value = float(value)

    def __float__(self):
        return self.value

    def __getattr__(self, name):
        """exp(), log(), cos() and the like: what NumPy asks for in an array of objects."""
        function = {"conjugate": lambda v: v}.get(name) or getattr(math, name)
        return lambda: Counting(function(self.value))


def _operator(name, counts):
    def run(self, other=0.0):
        if isinstance(other, np.ndarray):
            return NotImplemented  # the array asks again, entry by entry
        Counting.done += counts
        result = getattr(self.value, name)(float(other))
        return result if isinstance(result, bool) else Counting(result)

    return run


for _name in ("add", "radd", "sub", "rsub", "pow", "rpow", "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Counting, f"__{_name}__", _operator(f"__{_name}__", 0))
for _name in ("mul", "rmul", "truediv", "rtruediv"):
    setattr(Counting, f"__{_name}__", _operator(f"__{_name}__", 1))
Counting.__neg__ = lambda self: Counting(-self.value)
Counting.__abs__ = lambda self: Counting(abs(self.value))
Counting.__hash__ = object.__hash__


def counting(array):
    return np.vectorize(Counting, otypes=[object])(array) if np.ndim(array) else Counting(array)


# The only function here that NumPy has no loop over objects for.
logaddexp = np.frompyfunc(lambda a, b, of=np.logaddexp: Counting(of(float(a), float(b))), 2, 1)


def cost(stem, rule, dy, *inputs, **options):
    """Multiplications of the rule's VJP, after its forward pass."""
    rules = taught(stem)
    y = getattr(rules, rule)(*inputs, **options)
    inputs = [value if np.asarray(value).dtype.kind == "i" else counting(value) for value in inputs]
    Counting.done = 0
    getattr(rules, f"{rule}_vjp")(counting(dy), counting(y), *inputs, **options)
    return Counting.done


def draw(*shape):
    return np.random.default_rng(0).uniform(0.5, 1.5, size=shape)


N, D, H, B, K, n = 5, 2, 3, 7, 4, 6
one, two, labels, rows = draw(n), draw(2, n), np.arange(B) % K, np.eye(K)[np.arange(B) % K]

# (stem, rule): what the atlas says, and the call that is counted
COSTS = {
    ("11-chain-rule", "square_of_sum"): (2, (1.0, 2.0, 3.0), {}),
    ("11-chain-rule", "shared"): (4, (1.0, 2.0, 3.0), {}),
    ("12-gates", "add"): (0, (1.0, 2.0, 3.0), {}),
    ("12-gates", "mul"): (2, (1.0, 2.0, 3.0), {}),
    ("12-gates", "maximum"): (2, (1.0, 2.0, 3.0), {}),
    ("12-gates", "fork"): (0, (draw(2), 1.0), {}),
    ("13-sigmoid", "sigmoid"): (2, (1.0, 2.0), {}),
    ("13-sigmoid", "neuron"): (7, (1.0, draw(3), draw(2)), {}),
    ("21-elementwise", "sin"): (n, (one, one), {}),
    ("22-log-exp", "exp"): (n, (one, one), {}),
    ("22-log-exp", "log"): (n, (one, one), {}),
    ("23-power", "power"): (4 * n, (one, *two), {}),
    ("24-relu", "relu"): (0, (one, one), {}),
    ("31-reshape", "reshape"): (0, (one, draw(2, 3)), {"shape": (6,)}),
    ("32-transpose", "transpose"): (0, (draw(3, 2), draw(2, 3)), {}),
    ("33-sum", "sum_over"): (0, (draw(2), draw(2, 3)), {"axis": 1}),
    ("34-broadcast", "broadcast_to"): (0, (draw(2, 3), draw(3)), {"shape": (2, 3)}),
    ("34-broadcast", "sum_to"): (0, (draw(3), draw(2, 3)), {"shape": (3,)}),
    ("35-unbroadcast", "add"): (0, (draw(2, 3), draw(3), draw(2, 1)), {}),
    ("35-unbroadcast", "mul"): (2 * 6, (draw(2, 3), draw(3), draw(2, 1)), {}),
    ("41-matvec", "dot"): (2 * n, (1.0, *two), {}),
    ("41-matvec", "matvec"): (2 * D * H, (draw(H), draw(H, D), draw(D)), {}),
    ("42-matmul", "matmul"): (2 * N * D * H, (draw(N, H), draw(N, D), draw(D, H)), {}),
    ("43-affine", "affine"): (2 * N * D * H, (draw(N, H), draw(N, D), draw(D, H), draw(H)), {}),
    ("51-softmax", "softmax"): (2 * n, (one, one), {}),
    ("52-nll", "nll"): (1, (1.0, draw(B, K), labels), {}),
    ("53-cross-entropy", "log_softmax"): (n, (one, one), {}),
    ("53-cross-entropy", "cross_entropy"): (3 * B * K, (1.0, draw(B, K), rows), {}),
    ("54-output-units", "bernoulli_nll"): (2 * B * D, (1.0, draw(B, D), draw(B, D)), {}),
    ("54-output-units", "multinoulli_nll"): (2 * B * K, (1.0, draw(B, K), rows), {}),
    ("54-output-units", "gaussian_nll"): (2 * B * D, (1.0, draw(B, D), draw(B, D)), {}),
    ("55-l2", "l2"): (n + 2, (1.0, one), {"lam": 0.1, "N": 5}),
    ("66-mixture-density", "mixture_nll"): (9 * N * K + 1, (1.0, draw(N, K), draw(N, K), draw(N, K), draw(N)), {}),
    ("72-finite-precision", "softplus"): (n, (one, one), {}),
    ("72-finite-precision", "weighted_log"): (2 * n, (one, *two), {}),
}


@pytest.mark.parametrize(("stem", "rule"), COSTS)
def test_costs_of_the_atlas(stem, rule, monkeypatch):
    monkeypatch.setattr(np, "logaddexp", logaddexp)
    stated, (dy, *inputs), options = COSTS[stem, rule]
    assert cost(stem, rule, dy, *inputs, **options) == stated


def test_each_rule_of_the_atlas_is_counted():
    text = (ROOT / "mathnotes" / "97-atlas.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"lectures/([\w-]+)\.ipynb\) `(\w+)` \|", text))
    assert rows - set(COSTS) == {("61-two-layer", "two_layer")}  # the lecture counts that one
    assert set(COSTS) <= rows
