"""`matrices` draws what it was given, prints only what fits, and lays texts out without collisions."""

import functools
import io
import itertools
import re

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.text import Text

from byhand.draw import BACKWARD, FORWARD, WIDTH, graph, matrices, plt

LABELS_OF_24 = " ".join(f"W{i}{j}" for i in range(4) for j in range(6))


@pytest.fixture(autouse=True)
def figures_are_closed():
    yield
    plt.close("all")


def normal(*shape):
    return np.random.default_rng(3).normal(size=shape)


def panel(figure, number=0):
    return figure.axes[number]


def name(axes):
    return axes.get_title(loc="left")


def entries(axes):
    """The printed entries of a panel, by row and column."""
    return {(int(t.get_position()[1]), int(t.get_position()[0])): t for t in axes.texts if _is_entry(t)}


def _is_entry(text):
    return text.get_transform() == text.axes.transData


def printed(figure, number=0):
    return {place: text.get_text() for place, text in entries(panel(figure, number)).items()}


def labels(axes):
    return [text.get_text() for text in axes.texts if not _is_entry(text)]


@functools.cache
def box(text):
    """A text's extent in inches."""
    figure = text.get_figure()
    extent = text.get_window_extent()
    return extent.transformed(figure.dpi_scale_trans.inverted())


def texts(figure):
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def saved(figure, kind="svg"):
    out = io.BytesIO()
    figure.savefig(out, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()


# --- what is drawn -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shape", "texts"),
    [
        (3.0, "1 × 1", {(0, 0): "3"}),
        (np.array(-0.5), "1 × 1", {(0, 0): "-0.5"}),
        (7, "1 × 1", {(0, 0): "7"}),
        (np.array([1.0, 2.5]), "2 × 1", {(0, 0): "1", (1, 0): "2.5"}),
        ([4, -10], "2 × 1", {(0, 0): "4", (1, 0): "-10"}),
        (np.array([[True, False]]), "1 × 2", {(0, 0): "1", (0, 1): "0"}),
        (torch.tensor([[1.0, 2.0]], requires_grad=True), "1 × 2", {(0, 0): "1", (0, 1): "2"}),
        (np.array([[1.0, 2.0], [3.0, 4.0]]).T, "2 × 2", {(0, 0): "1", (0, 1): "3", (1, 0): "2", (1, 1): "4"}),
        (np.array([[np.nan, np.inf, -np.inf]]), "1 × 3", {(0, 0): "nan", (0, 1): "inf", (0, 2): "-inf"}),
    ],
)
def test_matrices_draws_numbers_vectors_and_matrices(value, shape, texts):
    figure = matrices(x=value)
    assert (name(panel(figure)), panel(figure).get_xlabel()) == ("x", shape)
    assert printed(figure) == texts


@pytest.mark.parametrize(
    ("entry", "text"),
    [(0.0, "0"), (-0.0, "0"), (0.126, "0.13"), (-2.0, "-2"), (100.0, "100"), (0.004, "4e-3"), (12345.0, "1e4")],
)
def test_an_entry_is_printed_in_few_characters(entry, text):
    assert printed(matrices(x=entry)) == {(0, 0): text}


def test_each_matrix_has_its_name_in_the_order_given():
    figure = matrices(dy_dx=normal(2, 3), W=normal(3), s=1.0)
    assert [name(axes) for axes in figure.axes] == ["dy_dx", "W", "s"]


def test_all_matrices_share_a_scale_centred_on_zero():
    figure = matrices(a=np.array([[1.0, -4.0]]), b=np.array([[4.0, 0.0]]))
    a, b = ([to_hex(colour) for colour in _colours(axes)] for axes in figure.axes)
    assert min(_colours(figure.axes[1])[1]) > 0.98  # nearly white
    assert a[1] == "#5e3c99" and b[0] == "#e08214"  # the two ends
    assert a[0] not in (b[0], b[1])


def _colours(axes):
    """What is seen of each cell on white paper."""
    mesh = axes.collections[0]
    seen = mesh.to_rgba(mesh.get_array()).reshape(-1, 4)
    return 1 - seen[:, 3:] * (1 - seen[:, :3])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_looks_unlike_zero_and_can_be_read(bad):
    figure = matrices(x=np.array([0.0, bad, 1.0, -1.0]))
    zero, grey, *_ = _colours(panel(figure))
    assert np.ptp(grey) == 0 and (zero - grey > 0.1).all()
    assert entries(panel(figure))[1, 0].get_color() != "white"


def test_a_matrix_of_zeros_or_of_nan_alone_is_drawn():
    assert set(printed(matrices(x=np.zeros((2, 2)))).values()) == {"0"}
    assert set(printed(matrices(x=np.full((2, 2), np.nan))).values()) == {"nan"}


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.ones((2, 2, 2)), r"at most two axes; J has shape \(2, 2, 2\)"),
        (np.ones((0, 3)), r"cannot draw J: its shape \(0, 3\) has no entry"),
        ([], "has no entry"),
        (np.array(["a"]), "draws numbers; J holds <U1"),
        ("text", "draws numbers; J holds <U4"),
        (None, "draws numbers; J holds object"),
        (1j, "draws numbers; J holds complex128"),
    ],
)
def test_matrices_refuses_what_it_cannot_draw(value, says):
    with pytest.raises(ValueError, match=says):
        matrices(W=np.eye(2), J=value)
    assert not plt.get_fignums()


def test_matrices_refuses_to_draw_nothing():
    with pytest.raises(ValueError, match="nothing to draw"):
        matrices()
    with pytest.raises(ValueError, match="nothing to draw"):
        matrices(rows="a b")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"rows": "a b c"}, "J has 2 rows, but 3 labels"),
        ({"columns": "a b"}, "J has 3 columns, but 2 labels"),
        ({"rows": {"J": "a"}}, "J has 2 rows, but 1 labels"),
        ({"rows": {"K": "a b"}}, "rows names K, which is not drawn"),
        ({"columns": {"J": "a b c", "L": "", "K": ""}}, "columns names K, L, which is not drawn"),
    ],
)
def test_matrices_refuses_labels_that_do_not_belong(given, says):
    with pytest.raises(ValueError, match=says):
        matrices(J=normal(2, 3), **given)


@pytest.mark.parametrize("given", [["a", "b"], {"J": ["a", "b"]}, 2, ("a", "b")])
def test_matrices_refuses_labels_that_are_not_one_string(given):
    with pytest.raises(TypeError, match="rows are labels in one string"):
        matrices(J=normal(2, 3), rows=given)


# --- labels --------------------------------------------------------------------------------------


def test_one_string_labels_every_matrix():
    figure = matrices(rows="y0 y1", J=normal(2, 2), K=normal(2, 3))
    assert [labels(axes) for axes in figure.axes] == [["y0", "y1"], ["y0", "y1"]]


def test_a_dict_labels_the_matrices_it_names():
    figure = matrices(rows={"K": "y0 y1"}, columns={"J": "a b", "K": ""}, J=normal(2, 2), K=normal(2, 3))
    assert [labels(axes) for axes in figure.axes] == [["a", "b"], ["y0", "y1"]]


def test_labels_stand_beside_their_row_and_above_their_column():
    figure = matrices(rows="r0 r1", columns="c0 c1 c2", J=normal(2, 3))
    printed_at = {place: box(text) for place, text in entries(panel(figure)).items()}
    found = {text.get_text(): box(text) for text in panel(figure).texts}
    for i in range(2):
        label, entry = found[f"r{i}"], printed_at[i, 0]
        assert label.x1 < entry.x0 and label.y0 < (entry.y0 + entry.y1) / 2 < label.y1
    for j in range(3):
        label, entry = found[f"c{j}"], printed_at[0, j]
        assert label.y0 > entry.y1 and label.x0 < (entry.x0 + entry.x1) / 2 < label.x1


# --- the layout ----------------------------------------------------------------------------------

FILMSTRIP = {
    "dL_ds": normal(1, 2),
    "ds_dz": normal(2, 2),
    "dz_da": np.array([[3, -1], [-3, 1]]),
    "da_dh": np.eye(2, dtype=bool),
    "dh_dW0": np.kron([4.0, 1.0], np.eye(2)),
}
PICTURES = {
    "filmstrip": FILMSTRIP,
    "labelled filmstrip": {
        **FILMSTRIP,
        "rows": {"dL_ds": "L", "ds_dz": "s0 s1", "dh_dW0": "h0 h1"},
        "columns": {"dL_ds": "s0 s1", "dh_dW0": "W00 W01 W10 W11"},
    },
    "wide": {"dy_dX": normal(2, 24)},
    "wide, labelled": {"dy_dW": normal(2, 24), "rows": "y0 y1", "columns": LABELS_OF_24},
    "wide integers": {"J": np.arange(48).reshape(2, 24) * 1000},
    "column beside matrix": {"x": normal(4), "W": normal(4, 3)},
    "long names": {f"dL_d{word}_of_the_hidden_layer": normal(3) for word in ("weight", "bias", "scale", "input")},
    "long names, wide and narrow": {
        "dL_dhidden": normal(1, 1),
        "dhidden_dscores": normal(1, 2),
        "dscores_dweights": normal(2, 4),
        "dweights_dinput": normal(4, 1),
        "dinput_dlatent": 1.0,
    },
    "many": {f"J{i}": normal(4, 6) for i in range(6)},
    "many, long column labels": {
        **{f"J{i}": normal(3, 3) for i in range(8)},
        "columns": "probability_one probability_two probability_three",
    },
    "long row labels": {**{f"J{i}": normal(2, 2) for i in range(4)}, "rows": "WWWWWWWWWWWW MMMMMMMMMMMM"},
    "tall": {"J": normal(24, 2), "K": normal(2, 24), "rows": {"K": "y0 y1"}},
    "small beside large": {"a": normal(2, 2), "K": normal(30, 30), "L": normal(3), "columns": {"a": "first second"}},
    "large": {"J": normal(64, 64)},
    "numbers": {f"s{i}": float(i) for i in range(12)},
    "extreme entries": {"J": np.array([[1e-300, -1e300], [np.nan, -np.inf], [-1e-7, 123456789.0]])},
}


@pytest.fixture(scope="module", params=PICTURES.values(), ids=PICTURES.keys())
def picture(request):
    figure = matrices(**request.param)
    figure.draw_without_rendering()  # places the shapes below the matrices
    return figure


def test_no_two_texts_overlap(picture):
    for a, b in itertools.combinations(texts(picture), 2):
        assert not box(a).overlaps(box(b)), f"{a.get_text()!r} overlaps {b.get_text()!r}"


def test_no_text_stands_on_another_matrix(picture):
    """Nor on its own, unless it is an entry of it."""
    for axes in picture.axes:
        frame = axes.get_position().transformed(picture.transFigure + picture.dpi_scale_trans.inverted())
        for text in texts(picture):
            if text not in entries(axes).values():
                assert not box(text).overlaps(frame), f"{text.get_text()!r} stands on {name(axes)}"


def test_no_two_matrices_overlap(picture):
    for a, b in itertools.combinations(picture.axes, 2):
        assert not a.get_position().overlaps(b.get_position())


def test_every_text_is_in_the_saved_picture(picture):
    assert matplotlib.rcParams["savefig.bbox"] == "tight"
    whole = picture.get_tightbbox()
    for text in texts(picture):
        part = box(text)
        assert whole.x0 <= part.x0 and part.x1 <= whole.x1 and whole.y0 <= part.y0 and part.y1 <= whole.y1


def test_a_picture_stays_within_the_width(picture):
    """But for the few points by which frames and row labels stand off the first and last column."""
    whole = picture.get_tightbbox()
    assert picture.get_size_inches()[0] == WIDTH
    assert whole.x0 > -0.15 and whole.x1 < WIDTH + 0.15


def test_printed_entries_fit_their_cells(picture):
    for axes in picture.axes:
        for (i, j), text in entries(axes).items():
            cell = axes.transData.transform([(j, i + 1), (j + 1, i)]) / picture.dpi
            part = box(text)
            assert cell[0][0] < part.x0 and part.x1 < cell[1][0], f"{text.get_text()!r} is too wide"
            assert cell[0][1] < part.y0 and part.y1 < cell[1][1], f"{text.get_text()!r} is too high"


def test_printed_entries_are_large_enough_to_read(picture):
    assert all(text.get_fontsize() >= 6 for axes in picture.axes for text in entries(axes).values())


def test_cells_are_square_and_of_one_size(picture):
    sides = [abs(np.diff(axes.transData.transform([(0, 0), (1, 1)]), axis=0)[0]) for axes in picture.axes]
    np.testing.assert_allclose(sides, np.full((len(sides), 2), sides[0][0]), rtol=1e-9)


def test_entries_are_printed_where_they_fit():
    assert len(printed(matrices(J=normal(2, 24)))) == 48
    assert len(printed(matrices(J=normal(10, 10)))) == 100


@pytest.mark.parametrize("value", [normal(64, 64), np.full((2, 24), 123456789), np.arange(225).reshape(15, 15)])
def test_entries_that_do_not_fit_are_not_printed(value):
    assert not printed(matrices(J=value))


@pytest.mark.parametrize(("count", "lines"), [(1, 1), (3, 1), (6, 2), (9, 3)])
def test_matrices_too_many_for_one_line_stack(count, lines):
    figure = matrices(**{f"J{i}": normal(4, 6) for i in range(count)})
    assert len({round(axes.get_position().y0, 6) for axes in figure.axes}) == lines


def test_long_names_stack_before_they_leave_the_picture():
    figure = matrices(**PICTURES["long names"])
    assert len({round(axes.get_position().y0, 6) for axes in figure.axes}) == 2


def test_a_wide_matrix_leaves_the_line_to_itself():
    J, K = matrices(J=normal(2, 24), K=normal(2, 24)).axes
    assert K.get_position().y1 < J.get_position().y0


@pytest.mark.parametrize(("columns", "turned"), [("a b c", False), ("alpha beta probability", True)])
def test_column_labels_are_turned_where_they_do_not_fit(columns, turned):
    texts = [text for text in panel(matrices(J=normal(3, 3), columns=columns)).texts if not _is_entry(text)]
    assert {text.get_rotation() for text in texts} == {90 if turned else 0}


def test_two_savings_are_the_same_bytes(picture):
    assert saved(picture) == saved(picture)


def test_two_drawings_are_the_same_bytes():
    first, second = (saved(matrices(**PICTURES["labelled filmstrip"])) for _ in range(2))
    assert first == second
    assert b"<dc:date>" not in first and b"dh_dW0" in first


def test_a_large_matrix_is_saved_small():
    assert len(saved(matrices(J=normal(64, 64)))) < 100_000


# --- graph ---------------------------------------------------------------------------------------

CIRCUIT = "q = x + y\nf = q * z"
CIRCUIT_VALUES = {"x": -2, "y": 5, "z": -4, "q": 3, "f": -12}
CIRCUIT_GRADIENTS = {"x": -4, "y": -4, "z": 3, "q": -4, "f": 1}
NEURON = """
a = w0 * x0
b = w1 * x1
c = a + b
z = c + w2
n = -z
e = exp(n)
d = e + 1
f = 1 / d
"""
NEURON_NAMES = ["w0", "x0", "w1", "x1", "w2", "a", "b", "c", "z", "n", "e", "d", "f"]
NEURON_VALUES = dict(zip(NEURON_NAMES, [2, -1, -3, -2, -3, -2, 6, 4, 1, -1, 0.3679, 1.3679, 0.7311], strict=True))
NEURON_GRADIENTS = dict(
    zip(
        NEURON_NAMES,
        [-0.197, 0.393, -0.393, -0.59, 0.197, 0.197, 0.197, 0.197, 0.197, -0.197, -0.534, -0.534, 1],
        strict=True,
    )
)
GRAPHS = {
    "circuit": lambda: graph(CIRCUIT, CIRCUIT_VALUES, CIRCUIT_GRADIENTS),
    "neuron": lambda: graph(NEURON, NEURON_VALUES, NEURON_GRADIENTS),
    "fork": lambda: graph("t = x + y\nz = x * t", {"x": 3, "y": 4}, {"x": 10, "x->t": 3, "x->z": 7, "t": 3}),
    "nested": lambda: graph("z = 2 * (x * y + max(v, w))", {"z": -20}),
    "square": lambda: graph("y = x * x", {"x": 3, "y": 9}, {"x": 6}),
    "one gate": lambda: graph("y = exp(x)"),
    "in strips": lambda: graph(NEURON.replace("n = ", "\nn = "), NEURON_VALUES, NEURON_GRADIENTS),
    "long symbols": lambda: graph("s = sigmoid(x)\ny = clip(s)"),
}
each_graph = pytest.mark.parametrize("picture", GRAPHS)


def written(figure, colour=None):
    return [text.get_text() for text in texts(figure) if colour is None or to_hex(text.get_color()) == colour.lower()]


def place(figure, words):
    (text,) = [text for text in texts(figure) if text.get_text() == words]
    return text.get_position()


def test_values_stand_in_blue_above_gradients_in_vermillion():
    figure = GRAPHS["circuit"]()
    assert written(figure, FORWARD) == ["−2", "5", "3", "−4", "−12"]
    assert sorted(written(figure, BACKWARD)) == sorted(["−4", "−4", "−4", "3", "1"])
    (x_value, x_gradient) = place(figure, "−12"), place(figure, "1")
    assert x_value[0] == x_gradient[0] and x_value[1] > x_gradient[1]


def test_gates_show_their_operation_and_constants_belong_to_them():
    symbols = {"×", "+", "×−1", "exp", "+1", "1/d"}
    assert symbols <= set(written(GRAPHS["neuron"]()))
    assert {"×2", "max"} <= set(written(GRAPHS["nested"]()))
    assert {"^2", "−3"} <= set(written(graph("y = x ** 2 - 3")))
    assert {"1−x", "2/x", "2^x"} <= set(written(graph("y = 1 - 2 / 2**x")))


def test_a_graph_runs_from_left_to_right():
    figure = GRAPHS["neuron"]()
    positions = [place(figure, name)[0] for name in ("a", "c", "z", "n", "e", "d", "f")]
    assert positions == sorted(positions) and len(set(positions)) == len(positions)


def test_after_an_empty_line_a_graph_goes_on_below_from_what_it_has():
    figure = GRAPHS["in strips"]()
    assert figure.get_size_inches()[0] < GRAPHS["neuron"]().get_size_inches()[0] - 2
    assert place(figure, "n")[0] == place(figure, "a")[0]
    assert place(figure, "n")[1] < place(figure, "w2")[1]
    ends = [text for text in texts(figure) if text.get_text() == "z"]
    assert len(ends) == 2 and ends[1].get_position()[0] == place(figure, "w2")[0]
    assert written(figure, FORWARD).count("1.00") == 2  # where z leaves a strip and where it enters the next
    assert not dots(figure)


def test_a_long_symbol_stays_in_its_gate():
    figure = GRAPHS["long symbols"]()
    figure.draw_without_rendering()
    for gate in figure.axes[0].patches:
        circle = gate.get_window_extent()
        inside = [t for t in texts(figure) if circle.contains(*t.get_window_extent().get_points().mean(axis=0))]
        assert [t.get_window_extent().width < circle.width for t in inside] == [True]


def test_numbers_are_whole_where_all_are_and_else_have_two_decimals():
    assert "−0.20" in written(GRAPHS["neuron"]()) and "2.00" in written(GRAPHS["neuron"]())
    assert "−12" in written(GRAPHS["circuit"]())


def test_what_is_not_given_is_not_drawn():
    figure = graph(CIRCUIT, {"x": -2}, {})
    assert written(figure, FORWARD) == ["−2"] and written(figure, BACKWARD) == []


def dots(figure):
    return [line for line in figure.axes[0].lines if line.get_marker() == "o"]


def test_a_value_used_more_than_once_forks_at_a_dot():
    assert len(dots(GRAPHS["fork"]())) == 1
    assert len(dots(GRAPHS["square"]())) == 1
    assert len(dots(GRAPHS["neuron"]())) == 0


def test_a_fork_names_the_gradient_of_each_branch():
    assert sorted(written(GRAPHS["fork"](), BACKWARD)) == ["10", "3", "3", "7"]


@pytest.mark.parametrize("scale", [1, 1.37])
def test_the_gradients_of_a_fork_with_a_level_branch_do_not_touch(scale):
    steps = "b = x ** 2\na = x + y\nz = a * b"
    numbers = {"x": -33, "x->a": 19, "x->b": -24}
    figure = graph(steps, {"x": 3 * scale}, {name: scale * number for name, number in numbers.items()})
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in texts(figure) if text.get_color() in (FORWARD, BACKWARD)]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ("", "nothing to draw"),
        ("x + y", "step 1, 'x + y', is not of the form"),
        ("q = x + y\nq z", "step 2, 'q z'"),
        ("a, b = x", "is not of the form"),
        ("q = x + y\nq = x * y", "assigns q again"),
        ("f = q * z\nq = x + y", "assigns q again, or after it was used"),
        ("q = q + 1", "assigns q again, or after it was used"),
        ("q = x if y else z", "cannot draw 'x if y else z'"),
        ("q = x[0]", "cannot draw"),
    ],
)
def test_graph_refuses_what_is_no_graph(steps, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        graph(steps)


@pytest.mark.parametrize("given", [{"values": {"w": 1}}, {"gradients": {"q->z": 1}}])
def test_graph_refuses_numbers_of_what_it_does_not_have(given):
    with pytest.raises(ValueError, match="it has f, q, x, y, z"):
        graph(CIRCUIT, **given)


@each_graph
def test_texts_of_a_graph_do_not_overlap_and_stay_in_the_picture(picture):
    figure = GRAPHS[picture]()
    boxes = [box(text) for text in texts(figure)]
    width, height = figure.get_size_inches()
    for a, b in itertools.combinations(boxes, 2):
        assert not (a.x0 < b.x1 - 0.02 and b.x0 < a.x1 - 0.02 and a.y0 < b.y1 - 0.02 and b.y0 < a.y1 - 0.02)
    assert all(b.x0 >= 0 and b.x1 <= width and b.y0 >= 0 and b.y1 <= height for b in boxes)


@each_graph
def test_two_drawings_of_a_graph_are_the_same_bytes(picture):
    assert saved(GRAPHS[picture]()) == saved(GRAPHS[picture]())
