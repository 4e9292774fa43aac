"""The pictures of mathnotes/97-atlas.md, drawn from the very Jacobians that the lectures teach.

`python site/atlas.py` writes mathnotes/atlas/*.svg; tests/test_course.py sees that they are up to date.
A new rule needs its example here, and its row in the atlas.
"""

import numpy as np

from byhand.notebooks import ROOT
from byhand.taught import taught

FOLDER = ROOT / "mathnotes" / "atlas"
COLOURS = {"+": "#E08214", "-": "#7B5CB8", ".": "#888888"}  # those of byhand.draw, on white and on black
CELL = 7  # points
GAP = 1.2  # cells between two matrices
WIDEST = 6.5  # cells; a table's column takes no more without making the picture smaller


def a(*rows):
    return np.array(rows, dtype=float)


x6 = a([1, 2, 3], [4, 5, 6])
two, t = a([2, 0, -1], [1, 3, 1]), np.array([1, 0])

# {(stem, rule): its Jacobians on a small example, from the lecture's rules}
EXAMPLES = {
    ("11-chain-rule", "square_of_sum"): lambda m: [m.square_of_sum_jacobian(1.0, 2.0)],
    ("11-chain-rule", "shared"): lambda m: [m.shared_jacobian(3.0, 1.0)],
    ("12-gates", "add"): lambda m: [m.add_jacobian(3.0, -4.0)],
    ("12-gates", "mul"): lambda m: [m.mul_jacobian(3.0, -4.0)],
    ("12-gates", "maximum"): lambda m: [m.maximum_jacobian(3.0, -4.0)],
    ("12-gates", "fork"): lambda m: [m.fork_jacobian(3.0)],
    ("13-sigmoid", "sigmoid"): lambda m: [m.sigmoid_jacobian(1.0)],
    ("13-sigmoid", "neuron"): lambda m: m.neuron_jacobians(a(2, -3, -3), a(-1, -2)),
    ("21-elementwise", "sin"): lambda m: [m.sin_jacobian(a(1, 2, 3, 6))],
    ("22-log-exp", "exp"): lambda m: [m.exp_jacobian(a(1, -2, 0, 1))],
    ("22-log-exp", "log"): lambda m: [m.log_jacobian(a(1, 2, 0.5, 1))],
    ("23-power", "power"): lambda m: m.power_jacobians(a(2, 0.5, 1, 3), a(3, -1, 2, 0)),
    ("24-relu", "relu"): lambda m: [m.relu_jacobian(a(2, -1, 3, 0))],
    ("31-reshape", "reshape"): lambda m: [m.reshape_jacobian(x6, shape=(3, 2))],
    ("32-transpose", "transpose"): lambda m: [m.transpose_jacobian(x6)],
    ("33-sum", "sum_over"): lambda m: [m.sum_over_jacobian(x6, axis=1)],
    ("34-broadcast", "broadcast_to"): lambda m: [m.broadcast_to_jacobian(a(1, 2, 3), shape=(2, 3))],
    ("34-broadcast", "sum_to"): lambda m: [m.sum_to_jacobian(x6, shape=(3,))],
    ("35-unbroadcast", "add"): lambda m: m.add_jacobians(a(1, 2), a([1], [2])),
    ("35-unbroadcast", "mul"): lambda m: m.mul_jacobians(a(1, 2), a([-3], [4])),
    ("41-matvec", "dot"): lambda m: m.dot_jacobians(a(1, 2, -1), a(3, -4, 5)),
    ("41-matvec", "matvec"): lambda m: m.matvec_jacobians(a([1, -3], [2, 1]), a(0.2, 0.4)),
    ("42-matmul", "matmul"): lambda m: m.matmul_jacobians(a([1, 2], [-1, 1]), a([1, -1], [2, 3])),
    ("43-affine", "affine"): lambda m: m.affine_jacobians(a([1], [-1]), a([1, -2]), a(0, 0)),
    ("51-softmax", "softmax"): lambda m: [m.softmax_jacobian(a(0, 1, 2, 1))],
    ("52-nll", "nll"): lambda m: [m.nll_jacobian(np.log(a([0.3, 0.2, 0.5], [0.5, 0.4, 0.1])), t)],
    ("53-cross-entropy", "log_softmax"): lambda m: [m.log_softmax_jacobian(a(0, 1, 2, 1))],
    ("53-cross-entropy", "cross_entropy"): lambda m: [m.cross_entropy_jacobian(two, np.eye(3)[t])],
    ("54-output-units", "bernoulli_nll"): lambda m: [m.bernoulli_nll_jacobian(two, a([1, 0, 1], [0, 0, 1]))],
    ("54-output-units", "multinoulli_nll"): lambda m: [m.multinoulli_nll_jacobian(two, np.eye(3)[t])],
    ("54-output-units", "gaussian_nll"): lambda m: [m.gaussian_nll_jacobian(two, a([1, 1, 1], [2, 1, 0]))],
    ("55-l2", "l2"): lambda m: [m.l2_jacobian(a([1, -2], [2, 5]), lam=3, N=6)],
    ("61-two-layer", "two_layer"): lambda m: m.two_layer_jacobians(
        a(2, 1), a([2, 1], [1, -4]), a([1, -2], [3, 1]), a(0, 1)
    ),
    ("66-mixture-density", "mixture_nll"): lambda m: m.mixture_nll_jacobians(
        a([0, 1, 0], [0, 0, 1]), a([-2, 1, 3], [-1, 0, 2]), np.zeros((2, 3)), a(1.5, -1.2)
    ),
    ("72-finite-precision", "softplus"): lambda m: [m.softplus_jacobian(a(1, -2, 0, 1))],
    ("72-finite-precision", "weighted_log"): lambda m: [m.weighted_log_jacobian(a(0.2, 0, 0.5, 0.3), a(1, 0, 2, 1))],
}


def jacobians(stem, rule):
    """The matrices that a rule's picture shows, from left to right."""
    return [np.atleast_2d(J) for J in EXAMPLES[stem, rule](taught(stem))]


def name_of(stem, rule):
    return f"{stem[:2]}-{rule.replace('_', '-')}.svg"


def drawn(matrices):
    """Matrices as an SVG, a square an entry, coloured by its sign: side by side, in lines of WIDEST at most."""
    squares, left, top, height, width = [], 0.0, 0.0, 0.0, 0.0
    for J in matrices:
        if left and left + J.shape[1] > WIDEST:
            left, top = 0.0, top + height + GAP
            height = 0.0
        for (i, j), value in np.ndenumerate(J):
            sign = "+" if value > 0 else "-" if value < 0 else "."
            opacity = ' fill-opacity=".18"' if sign == "." else ""
            place = f'x="{left + j + 0.05:.2f}" y="{top + i + 0.05:.2f}" width=".9" height=".9"'
            squares.append(f'<rect {place} fill="{COLOURS[sign]}"{opacity}/>')
        left, width, height = left + J.shape[1] + GAP, max(width, left + J.shape[1]), max(height, len(J))
    height += top
    size = f'width="{CELL * width:.1f}pt" height="{CELL * height:.1f}pt" viewBox="0 0 {width:.2f} {height:.2f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n' + "\n".join(squares) + "\n</svg>\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for stem, rule in EXAMPLES:
        (FOLDER / name_of(stem, rule)).write_text(drawn(jacobians(stem, rule)), encoding="utf-8")
