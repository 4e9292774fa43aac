"""torch's Jacobian as this course's matrix, a numeric one to compare with, and what a matrix looks like.

Every Jacobian is a matrix J[i, j] = d out_i / d in_j: rows are the flattened output, columns the
flattened input, both in C order (mathnotes/00-conventions.md).
"""

from dataclasses import dataclass

import numpy as np


def jacobian(f, *inputs):
    """torch's Jacobian of a torch function, one matrix an input.

    f: takes float64 tensors of the inputs' shapes, returns one tensor. inputs: arrays, numbers or
    tensors; integers become float64. Returns a float64 matrix of shape (output size, input size)
    for one input, a tuple of them for several.

    Raises TypeError when there is no input, or when f does not return one tensor.
    Source: `torch.autograd.functional.jacobian`, flattened.
    """
    import torch

    if not inputs:
        raise TypeError("jacobian() needs at least one input: jacobian(f, x).")
    tensors = tuple(_tensor(x, torch) for x in inputs)
    checked = _returning_a_tensor(f, torch)
    if checked(*tensors).numel() == 0:  # torch has no Jacobian of an empty output
        matrices = tuple(np.zeros((0, x.numel())) for x in tensors)
        return matrices[0] if len(matrices) == 1 else matrices
    blocks = torch.autograd.functional.jacobian(checked, tensors)
    matrices = tuple(_matrix(block, x) for block, x in zip(blocks, tensors, strict=True))
    return matrices[0] if len(matrices) == 1 else matrices


def _tensor(x, torch):
    """A float64 copy of x; torch itself refuses arrays with negative strides."""
    if isinstance(x, torch.Tensor):
        return x.detach().to(torch.float64).clone()
    return torch.from_numpy(np.array(x, dtype=np.float64, order="C"))


def _returning_a_tensor(f, torch):
    def checked(*tensors):
        out = f(*tensors)
        if not isinstance(out, torch.Tensor):
            raise TypeError(f"jacobian() needs a function that returns one tensor, not a {type(out).__name__}.")
        return out

    return checked


def _matrix(block, x):
    """A block of shape output + input as a matrix; sizes of 0 are why no -1 is used."""
    shape = tuple(block.shape)
    output = shape[: len(shape) - x.ndim]
    return block.numpy().reshape(int(np.prod(output)), x.numel())


def numeric_jacobian(f, *inputs, step=6e-6):
    """The Jacobian of a NumPy function by central differences, one matrix an input.

    f: takes float64 arrays of the inputs' shapes, returns an array or a number. step: the nudge,
    relative to max(1, |x|); its default is close to the cube root of the machine epsilon, where
    rounding and curvature cost about the same. Costs two calls of f an input entry and is right to
    about nine digits: good enough to find a wrong rule, not to prove a right one.

    Returns as `jacobian` does. Raises TypeError when there is no input.
    """
    if not inputs:
        raise TypeError("numeric_jacobian() needs at least one input: numeric_jacobian(f, x).")
    arrays = [np.array(x, dtype=np.float64, order="C") for x in inputs]
    matrices = tuple(_nudged(f, arrays, k, step) for k in range(len(arrays)))
    return matrices[0] if len(matrices) == 1 else matrices


def _nudged(f, arrays, k, step):
    def output(nudge):
        changed = [array.copy() for array in arrays]
        changed[k] += nudge.reshape(arrays[k].shape)
        return np.array(f(*changed), dtype=np.float64).ravel()

    flat = arrays[k].ravel()
    columns = []
    for j in range(flat.size):
        nudge = np.zeros(flat.size)
        nudge[j] = step * max(1.0, abs(flat[j]))
        columns.append((output(nudge) - output(-nudge)) / (2 * nudge[j]))
    rows = output(np.zeros(flat.size)).size
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0))


@dataclass(frozen=True)
class Structure:
    """What `structure` found. triangular is "lower", "upper" or None; diagonal counts as neither."""

    shape: tuple
    nonzeros: int
    diagonal: bool
    permutation: bool
    symmetric: bool
    triangular: str | None

    def __repr__(self):
        rows, columns = self.shape
        words = [word for word in ("diagonal", "permutation", "symmetric") if getattr(self, word)]
        if self.triangular:
            words.append(f"{self.triangular} triangular")
        return ", ".join([f"{rows} x {columns}", f"{self.nonzeros} of {rows * columns} non-zero", *words])


def structure(J, atol=0.0):
    """The structure of a Jacobian matrix, as a small readable object.

    J: a 2-D array of numbers. atol: entries of at most this size count as zero, and symmetry may be
    off by as much. Only exact facts are told; a rank is none, in floating point.

    Raises ValueError when J is not 2-D.
    """
    J = np.asarray(J)
    if J.ndim != 2:
        raise ValueError(f"structure() needs a matrix, not an array of shape {J.shape}.")
    filled = ~(np.abs(J) <= atol)  # nan is not zero
    square = J.shape[0] == J.shape[1]
    diagonal = square and not filled[~np.eye(*J.shape, dtype=bool)].any()
    lower, upper = not np.triu(filled, 1).any(), not np.tril(filled, -1).any()
    one_each = bool((filled.sum(0) == 1).all() and (filled.sum(1) == 1).all())
    return Structure(
        shape=J.shape,
        nonzeros=int(filled.sum()),
        diagonal=bool(diagonal),
        permutation=square and one_each and bool(np.allclose(J[filled], 1, rtol=0, atol=atol)),
        symmetric=square and bool(np.allclose(J, J.T, rtol=0, atol=atol)),
        triangular=("lower" if lower else "upper") if square and lower != upper else None,
    )
