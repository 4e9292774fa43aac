"""Part 4, linear maps."""

import torch
from hypothesis import strategies as st

from forwards.inputs import Case, Rule, arrays

RULES = {}

# --- 41 ------------------------------------------------------------------------------------------


@st.composite
def pairs_of_vectors(draw):
    """Two vectors of one length, which may be 0."""
    n = draw(st.integers(0, 5))
    return Case((draw(arrays((n,))), draw(arrays((n,)))))


@st.composite
def matrix_and_vector(draw):
    """A matrix and a vector; the sizes may be 0 or 1."""
    m, n = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    return Case((draw(arrays((m, n))), draw(arrays((n,)))))


RULES["41-matvec"] = {
    "dot": Rule(torch.dot, pairs_of_vectors(), pairs_of_vectors()),
    "matvec": Rule(torch.mv, matrix_and_vector(), matrix_and_vector()),
}

# --- 42 ------------------------------------------------------------------------------------------


@st.composite
def pairs_of_matrices(draw):
    """X and W; each of the three sizes may be 0 or 1."""
    N, D, H = (draw(st.integers(0, 4)) for _ in range(3))
    return Case((draw(arrays((N, D))), draw(arrays((D, H)))))


RULES["42-matmul"] = {"matmul": Rule(torch.matmul, pairs_of_matrices(), pairs_of_matrices())}

# --- 43 ------------------------------------------------------------------------------------------


def affine(X, W, b):
    return X @ W + b


@st.composite
def affine_cases(draw):
    """A batch, or one sample without an axis N; each of the sizes may be 0 or 1."""
    N, D, H = (draw(st.integers(0, 4)) for _ in range(3))
    shape = draw(st.sampled_from([(N, D), (D,)]))
    return Case((draw(arrays(shape)), draw(arrays((D, H))), draw(arrays((H,)))))


RULES["43-affine"] = {"affine": Rule(affine, affine_cases(), affine_cases())}
