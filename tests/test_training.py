"""What lecture 65 shows for one network and one data set, for drawn ones: each step is torch's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byhand.taught import taught

course = settings(derandomize=True, deadline=None, database=None, max_examples=20)
rules = taught("65-training")
LOSSES = {"chained": rules.chained_loss, "fused": rules.op.cross_entropy}


@st.composite
def problems(draw):
    """(parameters, X, T, lam, N): sizes from 1 on, a batch of any length, one hidden unit at its corner."""
    B, D, H, G, K = (draw(st.integers(1, 5)) for _ in range(5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = (D, H), (H,), (H, G), (G,), (G, K + 1), (K + 1,)
    parameters = [rng.normal(size=shape) for shape in shapes]
    parameters[0][:, 0], parameters[1][0] = 0.0, 0.0
    T = np.eye(K + 1)[rng.integers(K + 1, size=B)]
    return parameters, rng.normal(size=(B, D)), T, rng.uniform(0, 5), draw(st.integers(1, 40))


def torchs_loss(twins, X, T, lam, N):
    h = torch.tensor(X)
    for W, b in zip(twins[:4:2], twins[1:4:2], strict=True):
        h = torch.relu(h @ W + b)
    data = torch.nn.functional.cross_entropy(h @ twins[4] + twins[5], torch.tensor(T))
    return data + lam / (2 * N) * sum(torch.sum(W * W) for W in twins[::2])


@pytest.mark.parametrize("name", LOSSES)
@course
@given(problems())
def test_steps_are_torchs(name, problem):
    arrays, X, T, lam, N = problem
    before = [array.copy() for array in arrays]
    ours = [rules.Tensor(array, requires_grad=True) for array in arrays]
    twins = [torch.tensor(array, requires_grad=True) for array in arrays]
    theirs = torch.optim.SGD(twins, lr=0.1)
    for _ in range(3):
        data = LOSSES[name](rules.three_layers(X, ours), T)
        L = rules.op.add(data, rules.penalty(ours[::2], lam, N))
        Lt = torchs_loss(twins, X, T, lam, N)
        np.testing.assert_allclose(L.data, Lt.detach().numpy(), rtol=1e-9, strict=True)
        theirs.zero_grad()
        Lt.backward()
        theirs.step()
        rules.descend(ours, L, 0.1)
        assert all(p.grad is None for p in ours)
        for p, twin in zip(ours, twins, strict=True):
            np.testing.assert_allclose(p.data, twin.detach().numpy(), rtol=1e-9, atol=1e-12, strict=True)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)  # a step makes new arrays


@course
@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_batches_hold_each_place_once_and_only_the_last_is_short(N, size, seed):
    cut = rules.batches(np.random.default_rng(seed), N, size)
    assert sorted(np.concatenate(cut).tolist()) == list(range(N))
    assert all(places.size == size for places in cut[:-1]) and 1 <= cut[-1].size <= size


def test_batches_are_shuffled_anew():
    rng = np.random.default_rng(0)
    first, second = (np.concatenate(rules.batches(rng, 40, 8)) for _ in range(2))
    assert not np.array_equal(first, second) and not np.array_equal(first, np.arange(40))
