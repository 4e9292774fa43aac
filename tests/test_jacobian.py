"""Jacobian matrices: torch's, numeric ones, and the facts that `structure` tells."""

import numpy as np
import pytest
import torch

from byhand.jacobian import jacobian, numeric_jacobian, structure

A = np.array([[1.0, -2.0, 0.5], [3.0, 4.0, -1.0]])  # (2, 3)
x = np.array([0.5, -1.5, 2.0])


def both(of_torch, of_numpy, *inputs):
    """The two Jacobians of one function, after they were seen to agree."""
    exact, numeric = jacobian(of_torch, *inputs), numeric_jacobian(of_numpy, *inputs)
    pairs = [(exact, numeric)] if len(inputs) == 1 else list(zip(exact, numeric, strict=True))
    for J, N in pairs:
        assert J.dtype == N.dtype == np.float64
        np.testing.assert_allclose(N, J, rtol=1e-8, atol=1e-8, strict=True)
    return exact


# --- known matrices ------------------------------------------------------------------------------


def test_rows_are_outputs_and_columns_inputs():
    J = both(lambda x: torch.tensor(A) @ x, lambda x: A @ x, x)
    np.testing.assert_array_equal(J, A)


def test_matrices_are_flattened_row_by_row():
    """vec(X W) = (I ⊗ W^T) vec X, and (X ⊗ I) vec W."""
    W = np.arange(6.0).reshape(3, 2)
    of_X, of_W = both(lambda X, W: X @ W, lambda X, W: X @ W, A, W)
    np.testing.assert_array_equal(of_X, np.kron(np.eye(2), W.T))
    np.testing.assert_array_equal(of_W, np.kron(A, np.eye(2)))


def test_a_transpose_is_a_commutation_matrix():
    J = both(lambda X: X.T, lambda X: X.T, A)
    np.testing.assert_array_equal(J @ A.ravel(), A.T.ravel())
    assert structure(J).permutation


def test_each_input_has_its_own_matrix():
    of_x, of_s, of_A = both(lambda x, s, A: s * (A @ x), lambda x, s, A: s * (A @ x), x, 2.0, A)
    np.testing.assert_array_equal(of_x, 2 * A)
    np.testing.assert_array_equal(of_s, (A @ x)[:, None])
    np.testing.assert_array_equal(of_A, 2 * np.kron(np.eye(2), x))


def test_a_number_from_a_vector_has_one_row():
    np.testing.assert_array_equal(both(lambda x: (x**2).sum(), lambda x: (x**2).sum(), x), 2 * x[None, :])


def test_a_vector_from_a_number_has_one_column():
    J = both(lambda s: s * torch.tensor(x), lambda s: s * x, 3)
    np.testing.assert_array_equal(J, x[:, None])


def test_a_number_from_a_number_is_one_by_one():
    assert both(lambda s: s**3, lambda s: s**3, 2.0).shape == (1, 1)
    assert jacobian(lambda s: s**3, 2.0)[0, 0] == 12


@pytest.mark.parametrize(("size", "outputs"), [((0,), 3), ((0, 4), 3), ((2,), 0), ((0,), 0)])
def test_sizes_of_zero_give_empty_matrices(size, outputs):
    n = int(np.prod(size))
    J = both(
        lambda x: x.sum() * torch.ones(outputs, dtype=x.dtype), lambda x: x.sum() * np.ones(outputs), np.ones(size)
    )
    assert J.shape == (outputs, n)


@pytest.mark.parametrize("view", [A.T, A[:, ::-1], A[::-1, ::2], np.broadcast_to(2.0, (2, 3)), np.asfortranarray(A)])
def test_views_are_read_by_their_values(view):
    J = both(lambda X: X**2, lambda X: X**2, view)
    np.testing.assert_array_equal(J, np.diag(2 * view.ravel()))


@pytest.mark.parametrize("given", [[1, 2, 3], np.array([1, 2, 3]), np.array([1, 2, 3], dtype=np.float32)])
def test_other_numbers_become_float64(given):
    np.testing.assert_array_equal(both(lambda x: x / 2, lambda x: x / 2, given), np.eye(3) / 2)


def test_torch_accepts_tensors_that_have_a_gradient():
    xt = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    np.testing.assert_array_equal(jacobian(lambda x: x**2, xt), np.diag(2 * x))
    assert xt.grad is None


def test_an_input_that_the_output_ignores_has_zeros():
    of_x, of_A = both(lambda x, A: 2 * x, lambda x, A: 2 * x, x, A)
    np.testing.assert_array_equal(of_x, 2 * np.eye(3))
    np.testing.assert_array_equal(of_A, np.zeros((3, 6)))


def test_a_constant_has_zeros():
    J = both(lambda x: torch.ones(2, dtype=x.dtype), lambda x: np.ones(2), x)
    np.testing.assert_array_equal(J, np.zeros((2, 3)))


def test_inputs_are_left_as_they_were():
    def spoils(v):
        v *= 2
        return v

    given = x.copy()
    np.testing.assert_array_equal(jacobian(lambda v: spoils(v.clone()), given), 2 * np.eye(3))
    np.testing.assert_allclose(numeric_jacobian(spoils, given), 2 * np.eye(3), atol=1e-8)
    np.testing.assert_array_equal(given, x)


# --- the two compared ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_both_agree_on_a_random_function(seed):
    rng = np.random.default_rng(seed)
    X, W, b = rng.normal(size=(2, 3)), rng.normal(size=(3, 4)), rng.normal(size=4)
    both(lambda X, W, b: torch.sin(X @ W) * torch.exp(b), lambda X, W, b: np.sin(X @ W) * np.exp(b), X, W, b)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_the_nudge_grows_with_large_entries_only(size):
    J = numeric_jacobian(lambda x: x**2, np.array([size]))
    np.testing.assert_allclose(J, [[2 * size]], rtol=1e-8, atol=1e-10)


def test_a_given_step_is_taken():
    """On x³ central differences err by exactly the square of the step."""
    J = numeric_jacobian(lambda x: x**3, np.array([0.0]), step=0.1)
    np.testing.assert_allclose(J, [[0.01]], rtol=1e-12)


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [jacobian, numeric_jacobian])
def test_no_input_is_refused(function):
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) needs at least one input"):
        function(lambda: 1.0)


@pytest.mark.parametrize(("value", "kind"), [(None, "NoneType"), ((x, x), "tuple"), (1.0, "float"), (x, "ndarray")])
def test_a_function_that_returns_no_tensor_is_refused(value, kind):
    with pytest.raises(TypeError, match=f"returns one tensor, not a {kind}"):
        jacobian(lambda _: value, x)


# --- structure -----------------------------------------------------------------------------------

LOWER = np.tril(np.ones((3, 3)))
SWAP = np.eye(3)[[1, 2, 0]]


@pytest.mark.parametrize(
    ("J", "says"),
    [
        (np.diag([1.0, 2.0, 3.0]), "3 x 3, 3 of 9 non-zero, diagonal, symmetric"),
        (np.diag([1.0, 0.0]), "2 x 2, 1 of 4 non-zero, diagonal, symmetric"),
        (np.eye(2), "2 x 2, 2 of 4 non-zero, diagonal, permutation, symmetric"),
        (-np.eye(2), "2 x 2, 2 of 4 non-zero, diagonal, symmetric"),
        (SWAP, "3 x 3, 3 of 9 non-zero, permutation"),
        (2 * SWAP, "3 x 3, 3 of 9 non-zero"),
        (np.eye(3)[[0, 0, 1]], "3 x 3, 3 of 9 non-zero, lower triangular"),
        (LOWER, "3 x 3, 6 of 9 non-zero, lower triangular"),
        (LOWER.T, "3 x 3, 6 of 9 non-zero, upper triangular"),
        (np.ones((2, 2)), "2 x 2, 4 of 4 non-zero, symmetric"),
        (np.array([[1.0, 2.0], [3.0, 1.0]]), "2 x 2, 4 of 4 non-zero"),
        (np.eye(2, 3), "2 x 3, 2 of 6 non-zero"),
        (np.tril(np.ones((2, 3))), "2 x 3, 3 of 6 non-zero"),
        (np.ones((1, 3)), "1 x 3, 3 of 3 non-zero"),
        (np.zeros((2, 0)), "2 x 0, 0 of 0 non-zero"),
        (np.array([[0, 1], [1, 0]]), "2 x 2, 2 of 4 non-zero, permutation, symmetric"),
        (np.array([[False, True], [True, False]]), "2 x 2, 2 of 4 non-zero, permutation, symmetric"),
        ([[0, 1], [0, 0]], "2 x 2, 1 of 4 non-zero, upper triangular"),
    ],
)
def test_structure_tells_known_facts(J, says):
    assert repr(structure(J)) == says


def test_structure_can_be_asserted():
    found = structure(LOWER)
    assert (found.shape, found.nonzeros, found.triangular) == ((3, 3), 6, "lower")
    assert (found.diagonal, found.permutation, found.symmetric) == (False, False, False)


def test_small_entries_count_unless_a_tolerance_is_given():
    J = np.diag([1.0, 1.0 + 1e-12]) + 1e-12 * np.triu(np.ones((2, 2)), 1)
    assert repr(structure(J)) == "2 x 2, 3 of 4 non-zero, upper triangular"
    assert repr(structure(J, atol=1e-9)) == "2 x 2, 2 of 4 non-zero, diagonal, permutation, symmetric"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_entry_that_is_no_number_is_not_taken_for_zero(bad):
    found = structure(np.array([[1.0, bad], [0.0, 1.0]]))
    assert found.nonzeros == 3 and not found.diagonal and not found.permutation


@pytest.mark.parametrize("J", [np.ones(3), 1.0, np.ones((2, 2, 2))])
def test_structure_refuses_what_is_no_matrix(J):
    with pytest.raises(ValueError, match="needs a matrix, not an array of shape"):
        structure(J)
