"""`same` refuses and diagnoses, `@check` guards what crosses, `mistake` shows that a check catches."""

import json
import textwrap
import warnings

import numpy as np
import pytest
import torch

import byhand.check
from byhand.check import SEEDS, Mismatch, NotAnswered, same

SOURCE_61 = byhand.check.SOLUTIONS / "61-two-layer.ipynb"


def rectangle():
    """A (3, 4) reference without any symmetry or repeated factor."""
    return np.random.default_rng(7).normal(size=(3, 4))


def square():
    return np.random.default_rng(8).normal(size=(3, 3))


def words_of(mine, reference, **options):
    with pytest.raises(Mismatch) as caught:
        same(dx=(mine, reference), **options)
    return str(caught.value)


def last_line(mine, reference):
    return words_of(mine, reference).splitlines()[-1]


with warnings.catch_warnings():  # NumPy advises against it, and so does `same`
    warnings.simplefilter("ignore")
    MATRIX = np.matrix([1.0, 2.0])


# --- same: what passes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "reference"),
    [
        (np.array([1, 2]), np.array([1.0, 2.0])),
        (np.array([1, 2], dtype=np.uint8), np.array([1.0, 2.0])),
        (np.arange(12.0).reshape(3, 4).T, np.arange(12.0).reshape(3, 4).T.copy()),
        (np.arange(12.0)[::-2], np.array([11.0, 9.0, 7.0, 5.0, 3.0, 1.0])),
        (np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(6.0).reshape(2, 3)),
        (np.broadcast_to(2.0, (2, 3)), np.full((2, 3), 2.0)),
        (np.array([-0.0, 1.0]), np.array([0.0, 1.0])),
        (np.array([1.0, 2.0], dtype=np.float32), np.array([1.0, 2.0])),
        (np.array([1.0, 2.0], dtype=">f8"), np.array([1.0, 2.0])),
        (np.array([True, False]), np.array([True, False])),
    ],
    ids=[
        "integers",
        "unsigned",
        "transposed view",
        "strided view",
        "Fortran order",
        "broadcast view",
        "minus zero",
        "exact float32",
        "big endian",
        "booleans",
    ],
)
def test_same_accepts_a_right_array(mine, reference):
    same(dx=(mine, reference))


@pytest.mark.parametrize("mine", [3, 3.0, np.float64(3), np.array(3.0), torch.tensor(3.0), np.int64(3)])
@pytest.mark.parametrize("reference", [3, 3.0, np.float64(3), np.array(3.0), torch.tensor(3.0)])
def test_same_accepts_a_number_of_any_kind_on_either_side(mine, reference):
    same(L=(mine, reference))


def test_same_accepts_tensors_with_a_gradient_on_either_side():
    x = rectangle()
    xt = torch.tensor(x, requires_grad=True)
    same(dx=(x, xt), of_torch=(xt, x), both=(xt, xt))


def test_same_accepts_nan_for_nan_and_inf_for_inf():
    values = np.array([np.nan, np.inf, -np.inf, 1.0])
    same(dx=(values.copy(), values))


@pytest.mark.parametrize("off", [0.0, 1e-9, 1e-6 * 0.9])
def test_same_accepts_what_is_within_the_tolerance(off):
    same(dx=(np.array([10.0 + off]), np.array([10.0])))


def test_same_compares_every_pair():
    x = rectangle()
    same(dx=(x, x), dW=(x.T, x.T))
    with pytest.raises(Mismatch, match="dW is wrong"):
        same(dx=(x, x), dW=(x + 1, x))


# --- same: what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("reference", [np.zeros(3), np.full(3, 1e-12), np.zeros((0, 3)), 0.0, np.array([False, False])])
def test_same_refuses_a_comparison_that_zeros_would_pass(reference):
    mine = np.zeros(np.shape(reference), dtype=np.asarray(reference).dtype)
    with pytest.raises(ValueError, match=r"same\(dx=.*would accept zeros"):
        same(dx=(mine, reference))


def test_same_refuses_small_references_unless_the_tolerance_sees_them():
    tiny = np.array([1e-15, 2e-15])
    with pytest.raises(ValueError, match="would accept zeros"):
        same(dx=(tiny, tiny))
    same(dx=(tiny, tiny), atol=0)
    assert "zero everywhere" in words_of(np.zeros(2), tiny, atol=0)


def test_same_accepts_zeros_where_zero_is_the_point():
    same(dx=(np.zeros(3), np.zeros(3)), zero=True)
    assert "1 of 3 entries" in words_of(np.array([0.0, 0.0, 1.0]), np.zeros(3), zero=True)


@pytest.mark.parametrize(
    ("mine", "reference"),
    [
        (np.ones((1, 3)), np.ones(3)),
        (np.ones(3), np.ones((3, 1))),
        (np.ones(3), np.ones((2, 3))),
        (1.0, np.ones(3)),
        (np.ones(1), 1.0),
        (np.ones((0, 3)), np.ones((2, 3))),
    ],
)
def test_same_refuses_another_shape(mine, reference):
    shapes = f"dx has shape {np.shape(mine)}, the reference {np.shape(reference)}."
    assert words_of(mine, reference).startswith(shapes)


@pytest.mark.parametrize(
    ("mine", "says"),
    [
        (np.array([True, False]), "dx holds bool, floats are expected."),
        (True, "dx holds bool, floats are expected."),
        (np.array([1 + 0j, 2]), "dx holds complex128, floats are expected."),
        (1 + 0j, "dx holds complex128, floats are expected."),
        (torch.tensor([1 + 0j, 2]), "dx holds complex64, floats are expected."),
        (np.array([1.0, 2.0], dtype=object), "dx holds object, floats are expected."),
        (np.array(["1", "2"]), "dx holds <U1, floats are expected."),
        (10**400, "dx holds object, floats are expected."),
        (None, "dx is None. Does the function return it?"),
        ([1.0, 2.0], "dx is a list. A number or a NumPy array is expected."),
        ((1.0, 2.0), "dx is a tuple. A number or a NumPy array is expected."),
        ("1", "dx is a str. A number or a NumPy array is expected."),
        (lambda: 1.0, "dx is a function. A number or a NumPy array is expected."),
        (MATRIX, "dx is a matrix, a subclass of the NumPy array. Use a plain array."),
        (np.ma.array([1.0, 2.0]), "dx is a MaskedArray, a subclass of the NumPy array. Use a plain array."),
        (np.rec.array([1.0, 2.0]), "dx is a recarray, a subclass of the NumPy array. Use a plain array."),
    ],
)
def test_same_refuses_what_is_no_array_of_floats(mine, says):
    assert words_of(mine, np.array([1.0, 2.0])) == says


def test_same_asks_for_numbers_where_the_reference_is_integer():
    same(n=(np.array([1.0, 2.0]), np.array([1, 2])))
    assert words_of(np.array([True, True]), np.array([1, 1])) == "dx holds bool, numbers are expected."


def test_same_asks_for_booleans_where_the_reference_is_boolean():
    reference = np.array([True, False])
    assert words_of(np.array([1, 0]), reference) == "dx holds int64, booleans are expected."
    assert words_of(~reference, reference).endswith("First at [0]: yours False, reference True.")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_same_refuses_nan_and_inf_where_the_reference_is_finite(bad):
    reference = rectangle()
    mine = reference.copy()
    mine[0, 0] += 1  # the first difference, yet not the worst
    mine[2, 1] = bad
    words = words_of(mine, reference)
    assert words.startswith("dx is wrong: 1 of 12 entries are nan or inf where the reference is finite.")
    assert f"First at [2, 1]: yours {bad}" in words


@pytest.mark.parametrize(
    ("mine", "reference"), [(1.0, np.nan), (1.0, np.inf), (np.inf, -np.inf), (np.nan, np.inf), (np.inf, np.nan)]
)
def test_same_refuses_the_wrong_nan_or_inf(mine, reference):
    words = words_of(np.array([mine, 5.0]), np.array([reference, 5.0]))
    assert f"First at [0]: yours {mine:g}, reference {reference:g}." in words


@pytest.mark.parametrize("off", [1e-5, -1e-5, 1.2e-6])
def test_same_refuses_what_is_off_by_more_than_the_tolerance(off):
    assert "1 of 2 entries" in words_of(np.array([10.0 + off, 1.0]), np.array([10.0, 1.0]))


def test_same_measures_the_tolerance_by_the_reference():
    same(dx=(np.array([0.0, 1.0]), np.array([1e-10, 1.0])))
    assert "yours 0, reference 1e-08" in words_of(np.array([0.0, 1.0]), np.array([1e-8, 1.0]))
    same(dx=(1.0, 2.0), rtol=0.5)
    assert "yours 2, reference 1" in words_of(2.0, 1.0, rtol=0.5)


def test_same_names_the_first_index_both_values_and_how_many_differ():
    reference = np.arange(1.0, 13.0).reshape(3, 4)
    mine = reference.copy()
    mine[1, 2], mine[2, 3] = -7.5, 0.25
    assert words_of(mine, reference) == (
        "dx is wrong: 2 of 12 entries differ from the reference.\nFirst at [1, 2]: yours -7.5, reference 7."
    )


def test_same_gives_as_many_digits_as_tell_two_numbers_apart():
    assert "yours 1.0000001, reference 1." in words_of(1 + 1e-7, 1.0, rtol=1e-9)


def test_same_says_of_a_number_only_the_two_values():
    assert words_of(2.0, 3.0) == "dx is wrong: yours 2, reference 3."
    assert words_of(torch.tensor(2.0), 3) == "dx is wrong: yours 2, reference 3.\nYours is float32; " + (
        "the course computes in float64."
    )


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_same_names_a_lower_precision(kind):
    x = rectangle()
    assert last_line(x.astype(kind) ** 3, x**3) == (f"Yours is {kind.__name__}; the course computes in float64.")


def test_a_mismatch_carries_the_name_the_value_and_the_place():
    reference = rectangle()
    mine = reference.copy()
    mine[1, 1] = 9.0
    with pytest.raises(Mismatch) as caught:
        same(dx=(mine, reference))
    assert caught.value.name == "dx" and caught.value.where == (1, 1)
    assert np.array_equal(caught.value.mine, mine)


@pytest.mark.parametrize(
    "mine", [np.full((300, 300), 2.0), np.ones((300, 299)), np.full((300, 300), np.nan), [1.0], np.ones((2,) * 6)]
)
def test_messages_of_same_are_a_few_short_lines(mine):
    lines = words_of(mine, np.random.default_rng(0).normal(size=(300, 300))).splitlines()
    assert len(lines) <= 4 and max(map(len, lines)) <= 120


# --- same: misuse --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ({}, "nothing to compare"),
        ({"dx": np.ones(2)}, "a pair"),
        ({"dx": (1.0, 1.0, 1.0)}, "a pair"),
        ({"dx": [1.0, 1.0]}, "a pair"),
        ({"dx": (1.0, None)}, "the reference of dx is a NoneType"),
        ({"dx": (np.ones(1), [1.0])}, "the reference of dx is a list"),
        ({"dx": (np.ones((1, 2)), MATRIX)}, "the reference of dx is a matrix"),
        ({"dx": (1.0, 1 + 0j)}, "the reference of dx is a complex"),
        ({"dx": (1.0, "1")}, "the reference of dx is a str"),
    ],
)
def test_same_refuses_a_misuse_of_itself(pairs, says):
    with pytest.raises(TypeError, match=says):
        same(**pairs)


# --- same: diagnoses -----------------------------------------------------------------------------


def sums():
    """(mine, reference, words) of gradients with a sum missing or too many, in the same shape."""
    x, block = rectangle(), np.random.default_rng(9).normal(size=(2, 3, 4))
    row = np.broadcast_to(x.sum(0, keepdims=True), (3, 4))
    both = np.broadcast_to(block.sum((0, 2), keepdims=True), block.shape)
    yield row, x, "There is a sum over axis 0 too many."
    yield x, row, "A sum over axis 0 is missing."
    yield both, block, "There is a sum over the axes (0, 2) too many."
    yield block, both, "A sum over the axes (0, 2) is missing."


@pytest.mark.parametrize(
    ("mine", "reference", "says"),
    [
        (square().T, square(), "It is the reference transposed."),
        (-rectangle(), rectangle(), "The sign is wrong everywhere."),
        (np.array([1, 2], dtype=np.uint8), np.array([-1.0, -2.0]), "The sign is wrong everywhere."),
        (2 * rectangle(), rectangle(), "Yours is 2 times the reference, everywhere."),
        (rectangle() / 3, rectangle(), "Yours is 1/3 times the reference, everywhere."),
        (-1.5 * rectangle(), rectangle(), "Yours is -3/2 times the reference, everywhere."),
        (0.01 * rectangle(), rectangle(), "Yours is 0.01 times the reference, everywhere."),
        (np.pi * rectangle(), rectangle(), "Yours is 3.14159 times the reference, everywhere."),
        (np.zeros((3, 4)), rectangle(), "Yours is zero everywhere."),
        (np.zeros((3, 4), dtype=int), rectangle(), "Yours is zero everywhere."),
        (rectangle().ravel(order="F").reshape(3, 4), rectangle(), "The numbers are right, but in Fortran order."),
        (rectangle().ravel().reshape(3, 4, order="F"), rectangle(), "The numbers are right, but in Fortran order."),
        (square() + np.eye(3), square(), "Only the diagonal is wrong."),
        *sums(),
    ],
)
def test_same_sees_what_is_wrong(mine, reference, says):
    assert last_line(mine, reference) == says


@pytest.mark.parametrize(
    ("mine", "reference", "says"),
    [
        (rectangle().T, rectangle(), "It is the reference transposed."),
        (rectangle(), rectangle().sum(0), "A sum over axis 0 is missing."),
        (rectangle(), rectangle().sum(1, keepdims=True), "A sum over axis 1 is missing."),
        (rectangle(), rectangle().sum(), "A sum over the axes (0, 1) is missing."),
        (rectangle().sum(0), rectangle(), "There is a sum over axis 0 too many."),
        (rectangle().sum(1, keepdims=True), rectangle(), "There is a sum over axis 1 too many."),
        (rectangle().sum(), rectangle(), "There is a sum over the axes (0, 1) too many."),
        (rectangle().ravel(), rectangle(), "The numbers are right, in C order: only the shape is wrong."),
        (rectangle().reshape(4, 3), rectangle(), "The numbers are right, in C order: only the shape is wrong."),
        (rectangle()[:, 0], rectangle()[:, :1], "The numbers are right, in C order: only the shape is wrong."),
        (rectangle().ravel(order="F"), rectangle(), "The numbers are right, but in Fortran order."),
        (rectangle(), rectangle().ravel(order="F"), "The numbers are right, but in Fortran order."),
    ],
)
def test_same_sees_why_a_shape_is_wrong(mine, reference, says):
    assert last_line(mine, reference) == says


@pytest.mark.parametrize(
    "mine",
    [
        rectangle() + 1,
        rectangle() * np.where(np.arange(4) == 3, 2.0, 1.0),
        np.abs(rectangle()),
        np.where(rectangle() > 1, np.nan, rectangle()),
    ],
)
def test_same_claims_no_cause_that_it_cannot_see(mine):
    assert len(words_of(mine, rectangle()).splitlines()) == 2
    assert len(words_of(mine[:2], rectangle()).splitlines()) == 1


def test_same_names_no_factor_on_the_evidence_of_one_entry():
    assert "times" not in words_of(np.array([0.0, 6.0]), np.array([0.0, 3.0]))


# --- @check --------------------------------------------------------------------------------------


def notebook(source):
    """The namespace after the cells of a notebook: what is defined there are its answers."""
    namespace = {"__name__": "notebook"}
    header = "import numpy as np, torch\nfrom byhand.check import check, mistake, same\n"
    exec(header + textwrap.dedent(source), namespace)
    return namespace


def refused(source, kind=Mismatch):
    """The words with which a notebook's check refuses."""
    with pytest.raises(kind) as caught:
        notebook(source)
    return str(caught.value)


DOUBLES = """
@check
def double_doubles(rng):
    x = rng.normal(size=(2, 3))
    same(y=(double(x), 2 * x))
"""


def test_check_prints_one_line_when_right(capsys):
    made = notebook("def double(x): return x + x" + DOUBLES)["double_doubles"]
    assert capsys.readouterr().out == "double_doubles: right (1 point)\n"
    assert repr(made) == "<check double_doubles, 1 point>"


def test_check_says_its_points(capsys):
    made = notebook("def double(x): return x + x" + DOUBLES.replace("@check", "@check(points=3)"))["double_doubles"]
    assert capsys.readouterr().out == "double_doubles: right (3 points)\n"
    assert made.points == 3 and made.name == "double_doubles" and made.uses == ["double", "same"]


def test_check_says_what_is_wrong_without_printing(capsys):
    lines = refused("def double(x): return 3 * x" + DOUBLES).splitlines()
    assert lines[:2] == ["double_doubles: wrong", "y is wrong: 6 of 6 entries differ from the reference."]
    assert lines[2].startswith("First at [0, 0]: yours ")
    assert lines[3:] == ["Yours is 3/2 times the reference, everywhere.", "After the call double(x=array (2, 3))."]
    assert capsys.readouterr().out == ""


def test_check_runs_on_every_seed():
    """An answer that is wrong on the last seed only is wrong."""
    last = np.random.default_rng(SEEDS[-1]).normal(size=(2, 3))[0, 0]
    words = refused(f"def double(x): return 2 * x if x[0, 0] != {last!r} else x" + DOUBLES)
    assert words.startswith("double_doubles: wrong")


def test_check_gives_the_same_examples_on_every_run():
    answer = "seen = []\ndef double(x):\n    seen.append(x.tolist())\n    return 2 * x\n"
    first, second = (notebook(answer + DOUBLES)["seen"] for _ in range(2))
    assert first == second
    assert all(a != b for i, a in enumerate(first) for b in first[:i])


@pytest.mark.parametrize(
    ("answer", "where"), [("x.copy() * 3", "y, first at [0, 0]"), ("x[0]", "y"), ("None", "y"), ("x.sum(0)", "y")]
)
def test_check_that_does_not_diagnose_says_only_where(answer, where):
    check = DOUBLES.replace("@check", "@check(diagnose=False)")
    assert refused(f"def double(x): return {answer}" + check) == f"double_doubles: wrong in {where}."


def test_check_that_does_not_diagnose_has_no_index_for_a_number():
    check = "\n@check(diagnose=False)\ndef total_is_right(rng):\n    same(L=(total(), 3.0))"
    assert refused("def total(): return 2.0" + check) == "total_is_right: wrong in L."


def test_check_lets_the_error_of_an_answer_through():
    assert "division by zero" in refused("def double(x): return 1 / 0" + DOUBLES, ZeroDivisionError)


# --- @check: answers that are missing ------------------------------------------------------------


@pytest.mark.parametrize(
    "stub",
    [
        "double = ...",
        "def double(x): raise NotImplementedError",
        "def double(x):\n    'Twice x.'\n    raise NotImplementedError",
        "def double(x):\n    raise NotImplementedError('later')",
        "def double(x):\n    y = x\n    raise NotImplementedError",
    ],
)
def test_check_finds_a_stub_before_it_runs(stub):
    ran = "ran = []\n" + stub + DOUBLES.replace("x = rng", "ran.append(1)\n    x = rng")
    assert refused(ran, NotAnswered) == "double is not answered yet."


def test_check_finds_a_stub_also_when_an_earlier_answer_is_wrong():
    both = """
    first = np.array([1.0])
    def second(x): raise NotImplementedError

    @check
    def both_are_right(rng):
        same(first=(first, 2.0 * np.ones(1)))
        same(second=(second(1.0), 1.0))
    """
    assert refused(both, NotAnswered) == "second is not answered yet."


def test_check_finds_an_answer_that_is_missing_further_inside():
    """It computes first and gives up then: only running it shows that."""
    assert refused("def double(x):\n    y = np.abs(x)\n    raise NotImplementedError" + DOUBLES, NotAnswered) == (
        "double is not answered yet."
    )


def test_check_finds_a_stub_inside_a_loop_or_a_lambda_of_the_check():
    inside = """
    def double(x): raise NotImplementedError

    @check
    def doubles_inside(rng):
        twice = lambda x: double(x)
        same(y=([twice(k) for k in (1.0,)][0], 2.0))
    """
    assert refused(inside, NotAnswered) == "double is not answered yet."


def test_a_function_that_refuses_some_inputs_is_answered():
    answer = """
def double(x, axis=None):
    if axis is not None:
        raise NotImplementedError
    return 2 * x
"""
    notebook(answer + DOUBLES)


def test_not_answered_and_mismatch_show_their_words_only():
    assert NotAnswered("dx")._render_traceback_() == ["NotAnswered: dx is not answered yet."]
    assert Mismatch("dx is wrong.\nFirst at [0].")._render_traceback_() == ["dx is wrong.", "First at [0]."]


# --- the wire: data ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "x[...] = 0",
        "x *= 2; x /= 2; x += 1e-9",
        "x[0, 0] = np.nan",
    ],
)
def test_an_answer_may_not_change_its_input_in_place(body):
    words = refused(f"def double(x):\n    y = 2 * x\n    {body}\n    return y" + DOUBLES)
    assert "double changes its argument 1 in place" in words and "Work on a copy." in words


def test_the_changed_argument_is_named():
    words = refused(
        "def double(x):\n    y = 2 * x\n    x[0] = 0\n    return y" + DOUBLES.replace("double(x)", "double(x=x)")
    )
    assert "double changes its x in place" in words


@pytest.mark.parametrize("made", ["[np.zeros(2)]", "(np.zeros(2),)", "{0: np.zeros(2)}"])
def test_a_change_inside_a_container_is_refused(made):
    change = f"""
    def shift(xs): xs[0][0] = 1.0

    @check
    def shifts(rng):
        shift({made})
    """
    assert "shift changes its argument 1 in place" in refused(change)


def test_an_answer_may_work_in_place_on_nan_and_minus_zero_that_stay():
    quiet = """
    def quiet(x):
        x[...] = x.copy()
        return x.sum()

    @check
    def quiet_is_right(rng):
        same(L=(quiet(np.array([-0.0, np.nan])), np.nan))
    """
    notebook(quiet)


@pytest.mark.parametrize(
    ("made", "changed"),
    [
        ("x = np.zeros(2)", "x"),
        ("x = [0.0, 0.0]", "np.array(x)"),
        ("x = {0: 0.0, 1: 0.0}", "np.array([x[0], x[1]])"),
        ("a = np.zeros(2); x = a", "a"),
        ("x = np.zeros(4)[::2]", "x"),
    ],
)
def test_a_change_in_place_is_seen_where_it_is_allowed(made, changed):
    change = f"""
    def ascend(x):
        x[0], x[1] = 1.0, 2.0

    @check(inplace=True)
    def ascends(rng):
        {made}
        ascend(x)
        same(x=({changed}, np.array([1.0, 2.0])))
    """
    notebook(change)


@pytest.mark.parametrize("made", ["[W, b]", "(W, b)", "{0: W, 1: b}"])
def test_a_change_of_arrays_in_a_container_is_seen_where_it_is_allowed(made):
    """As an optimiser changes its parameters."""
    notebook(
        f"""
        def step(parameters):
            parameters[0][...], parameters[1][...] = 1.0, 2.0

        @check(inplace=True)
        def steps(rng):
            W, b = np.zeros((2, 2)), np.zeros(2)
            step({made})
            same(W=(W, np.full((2, 2), 1.0)), b=(b, np.full(2, 2.0)))
        """
    )


@pytest.mark.parametrize(
    "wrapped", ["functools.partial(scale, a=1.0)", "functools.cache(scale)", "np.vectorize(scale)"]
)
def test_an_answer_behind_a_wrapper_keeps_the_contract(wrapped):
    """partial, cache and vectorize hide a plain function: what it returns is copied and refused as ever."""
    answer = f"""
    import functools

    def scale(x, a=1.0):
        return [{{x}}]

    wrapped = {wrapped}

    @check
    def scales(rng):
        same(y=(wrapped(2.0), 2.0))
    """
    with pytest.raises(Mismatch, match="what wrapped returns is"):
        notebook(answer)


def test_a_function_that_was_imported_is_no_answer():
    """A cached function of a package may return anything, as `taught` returns a module."""
    notebook(
        """
        from byhand.taught import taught

        @check
        def sums_to_one(rng):
            same(y=(taught("51-softmax").softmax(rng.normal(size=3)).sum(), 1.0))
        """
    )


def test_an_object_may_name_its_attributes_as_it_likes():
    notebook(
        """
        class Box:
            def __init__(self, value):
                self._value, self._home = value, -value

        @check
        def box_holds_its_value(rng):
            same(value=(Box(2.0)._value, 2.0), home=(Box(2.0)._home, -2.0))
        """
    )


def test_what_an_answer_keeps_is_a_copy():
    """An answer cannot reach the check's arrays later, nor the check those of the answer."""
    kept = """
    kept = []
    given = np.ones(2)
    def keep(x):
        kept.append(x)
        return x
    def spoil():
        kept[0][...] = 9.0

    @check
    def copies(rng):
        x = np.ones(2)
        y = keep(x)
        spoil()
        given[...] = 5.0
        same(x=(x, np.ones(2)), y=(y, np.ones(2)))
    """
    assert np.array_equal(notebook(kept)["given"], np.ones(2))


@pytest.mark.parametrize(
    "value",
    [
        "None",
        "True",
        "3",
        "2.5",
        "'text'",
        "np.arange(3)",
        "np.array([True, False])",
        "np.ones((2, 3), dtype=np.float32)",
        "np.array(2.0)",
        "(1, [2.0, {'k': np.ones(2)}], None)",
        "{'a': (1, 2), 3: 'b'}",
        "np.zeros((0, 2))",
    ],
)
def test_plain_data_crosses_both_ways_unchanged(value):
    echo = f"""
    def echo(x): return x

    @check
    def echoes(rng):
        sent = {value}
        assert type(echo(sent)) is type(sent) and repr(echo(sent)) == repr(sent)
    """
    notebook(echo)


def test_numbers_of_numpy_cross_with_their_dtype():
    notebook(
        """
        def echo(x): return x

        @check
        def echoes(rng):
            y = echo(np.float32(0.5))
            assert type(y) is np.ndarray and y.dtype == np.float32 and y.shape == () and y == 0.5
        """
    )


@pytest.mark.parametrize(
    "view", ["np.arange(6.0).reshape(2, 3).T", "np.arange(6.0)[::-2]", "np.broadcast_to(1.0, (2, 2))"]
)
def test_views_cross_as_plain_contiguous_arrays(view):
    notebook(
        f"""
        def echo(x):
            assert type(x) is np.ndarray and x.flags.c_contiguous and x.flags.writeable and x.dtype.isnative
            return {view}

        @check
        def echoes(rng):
            y = echo({view})
            assert y.flags.c_contiguous and y.flags.writeable
            same(y=(y, np.array({view})))
        """
    )


NO_DATA = [
    ("torch.ones(2)", "a torch tensor; use a NumPy array"),
    ("np.random.default_rng(0)", "numpy.random._generator.Generator; use numbers and NumPy arrays"),
    ("(lambda: 1)", "function; use numbers and NumPy arrays"),
    ("np.sin", "numpy.ufunc; use numbers"),
    ("np", "module; use numbers"),
    ("{1, 2}", "builtins.set; use numbers"),
    ("(i for i in range(2))", "builtins.generator; use numbers"),
    ("range(2)", "builtins.range; use numbers"),
    ("1j", "builtins.complex; use numbers"),
    ("b'1'", "builtins.bytes; use numbers"),
    ("np.array([1j])", "an array of complex128; arrays hold floats, integers or booleans"),
    ("np.array([None])", "an array of object"),
    ("np.array(['a'])", "an array of <U1"),
    ("np.complex64(1)", "an array of complex64"),
    ("np.ones(1).view(np.matrix)", "a subclass of the NumPy array; use a plain array"),
    ("np.ma.array([1.0])", "a subclass of the NumPy array; use a plain array"),
    ("[1, (2, {'k': torch.ones(1)})]", "a torch tensor; use a NumPy array"),
    ("np.float64", "builtins.type; use numbers"),
]


@pytest.mark.parametrize(("value", "says"), NO_DATA)
def test_an_answer_may_not_return_what_is_no_plain_data(value, says):
    words = refused(f"def double(x): return {value}" + DOUBLES)
    assert words.startswith("double_doubles: wrong\nwhat double returns is a") and says in words


@pytest.mark.parametrize(("value", "says"), NO_DATA)
def test_a_check_may_not_send_what_is_no_plain_data(value, says):
    words = refused(f"def double(x): return x\n@check\ndef sends(rng):\n    double({value})", TypeError)
    assert words.startswith("this check passes double a") and says in words


def test_a_dict_with_a_numpy_key_is_no_crash():
    """An answer may well count what np.unique found."""
    counts = """
    def count(labels):
        return {label: 1.0 for label in np.unique(labels)}

    @check
    def counts(rng):
        same(first=(count(np.array([3]))[3], 1.0))
    """
    try:
        notebook(counts)
    except Mismatch as refusal:
        assert str(refusal).startswith("counts: wrong\nwhat count returns is")


@pytest.mark.parametrize("value", ["torch.ones(2)", "np.ones(2).view(np.matrix)", "np.array([1j, 1])", "{1.0}", "1j"])
def test_a_value_that_may_not_cross_is_refused_as_an_answer(value):
    words = refused(f"dx = {value}\n@check\ndef right(rng):\n    same(dx=(dx, np.ones(2)))")
    assert words.startswith("right: wrong\ndx is a")


def test_a_check_may_not_send_a_generator_by_name():
    words = refused("def double(x): return x\n@check\ndef sends(rng):\n    double(x=rng)", TypeError)
    assert "Generator" in words


def test_what_is_imported_is_no_answer():
    """Modules and imported functions reach the check as they are, tensors and all."""
    notebook(
        """
        from torch import relu

        def double(x):
            return 2 * x

        @check
        def imports_are_free(rng):
            x = rng.normal(size=3)
            same(y=(double(np.abs(x)), 2 * relu(torch.tensor(x)) + 2 * relu(torch.tensor(-x))))
        """
    )


# --- the wire: classes and objects ---------------------------------------------------------------

COUNTER = """
class Counter:
    start = 3

    def __init__(self, value, grad=None):
        self.value, self.grad, self.parents = np.asarray(value, dtype=float), grad, []

    def add(self, other):
        total = Counter(self.value + other.value)
        total.parents = [self, other]
        return total

    def shift(self, by):
        self.value = self.value + by

    def spoil(self, x):
        x[...] = 0

    @staticmethod
    def one():
        return Counter(1.0)

    @classmethod
    def two(cls):
        return cls(2.0)

    @property
    def half(self):
        return self.value / 2

    def tensor(self):
        return torch.ones(1)


shared = Counter(7.0)


@check
def counts(rng):
"""


def counting(body):
    return COUNTER + textwrap.indent(body, "    ")


@pytest.mark.parametrize(
    "body",
    [
        "same(value=(Counter(2.0).value, 2.0))",
        "same(value=(Counter(value=2.0, grad=None).value, 2.0))",
        "same(start=(Counter.start, 3))",
        "same(half=(Counter(3.0).half, 1.5))",
        "same(total=(Counter(2.0).add(Counter(3.0)).value, 5.0))",
        "same(total=(Counter(2.0).add(other=Counter(3.0)).value, 5.0))",
        "same(one=(Counter.one().value, 1.0), two=(Counter.two().value, 2.0))",
        "same(shared=(shared.value, 7.0))",
        "a = Counter(2.0)\na.shift(3.0)\nsame(value=(a.value, 5.0))",
        "a, b = Counter(2.0), Counter(3.0)\nfirst, second = a.add(b).parents\nsame(value=(second.value, 3.0))",
        "a = Counter(2.0)\nt = a.add(a)\nt.parents[0].shift(1.0)\nsame(value=(a.value, 3.0))",
        "assert Counter(2.0).grad is None",
    ],
    ids=lambda body: body.splitlines()[-1],
)
def test_objects_are_reached_by_handle(body):
    notebook(counting(body))


def test_handles_cross_inside_lists_and_back():
    notebook(
        counting("xs = [Counter(1.0), Counter(2.0)]\nsame(total=(total(xs).value, 3.0))").replace(
            "@check", "def total(xs): return xs[0].add(xs[1])\n\n@check"
        )
    )


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        ("Counter(1.0).value = 2.0", TypeError, "a check may not assign Counter.value; call a method that does"),
        ("Counter.start = 2", TypeError, "a check may not assign Counter.start"),
        ("Counter(1.0).absent", AttributeError, "absent"),
        ("Counter(torch.ones(1))", TypeError, "this check passes Counter a torch tensor"),
        ("Counter(1.0).shift(torch.ones(1))", TypeError, "this check passes Counter.shift a torch tensor"),
        ("Counter(1.0).tensor()", Mismatch, "what Counter.tensor returns is a torch tensor"),
        ("Counter(1.0, grad=torch.ones).grad", TypeError, "this check passes Counter a"),
        ("Counter(1.0).spoil(np.ones(2))", Mismatch, "Counter.spoil changes its argument 1 in place"),
    ],
)
def test_handles_hold_both_sides_to_the_contract(body, kind, says):
    assert says in refused(counting(body), kind)


def test_an_attribute_that_may_not_cross_is_refused():
    keeps = "class Keeps:\n    def __init__(self): self.out = torch.ones(1)\n"
    words = refused(keeps + "@check\ndef reads(rng):\n    same(out=(Keeps().out, 1.0))")
    assert "Keeps.out is a torch tensor" in words


def test_a_method_that_is_a_stub_is_not_answered():
    stub = "class Layer:\n    def forward(self, x): raise NotImplementedError\n"
    words = refused(stub + "@check\ndef runs(rng):\n    same(y=(Layer().forward(1.0), 1.0))", NotAnswered)
    assert words == "Layer.forward is not answered yet."


def test_an_answer_that_calls_a_stub_names_the_stub():
    answers = "def half(x): raise NotImplementedError\ndef double(x): return 4 * half(x)"
    assert refused(answers + DOUBLES, NotAnswered) == "half is not answered yet."


def test_the_call_of_a_method_names_its_arguments():
    layer = "class Layer:\n    def forward(self, x, draws=None): return x + 1.0\n"
    words = refused(layer + "@check\ndef runs(rng):\n    same(y=(Layer().forward(2.0, 3), 2.0))")
    assert "After the call Layer.forward(x=2, draws=3)." in words


def test_an_object_with_its_own_comparison_crosses():
    """As the Tensor of an engine may have it, whose == is elementwise."""
    notebook(
        """
        class Tensor:
            def __init__(self, value): self.value = np.asarray(value)
            def __eq__(self, other): return self.value == other.value
        def double(t): return 2 * t.value

        @check
        def doubles(rng):
            same(y=(double(Tensor(np.array([1.0, 2.0]))), np.array([2.0, 4.0])))
        """
    )


# --- named mistakes ------------------------------------------------------------------------------

SCALES = """
@check
def scale_vjp_is_right(rng):
    dy, x = rng.normal(size=(2, 3))
    same(dx=(scale_vjp(dy, x), dy * np.cos(x)))
"""
FORGETS = "def forgets_dy(dy, x): return np.cos(x)\nmistake(scale_vjp_is_right, says={says!r}, scale_vjp=forgets_dy)"


@pytest.fixture
def solution(tmp_path, monkeypatch):
    """A folder of solutions with one notebook, made of the given mistake cells."""
    monkeypatch.setattr(byhand.check, "SOLUTIONS", tmp_path)

    def write(*mistakes):
        cells = [{"cell_type": "code", "metadata": {}, "source": SCALES.splitlines(keepends=True)}]
        cells += [{"cell_type": "code", "metadata": {"tags": ["mistake"]}, "source": source} for source in mistakes]
        (tmp_path / "10-scale.ipynb").write_text(json.dumps({"cells": cells}))

    return write


def test_a_named_mistake_is_recognised_by_its_numbers(solution):
    solution(FORGETS.format(says="the upstream gradient is left out"))
    words = refused("def scale_vjp(dy, x): return np.sqrt(1 - np.sin(x) ** 2) * np.sign(np.cos(x))" + SCALES)
    assert words.endswith("\nA common mistake gives these very numbers: the upstream gradient is left out.")


def test_another_wrong_answer_is_not_taken_for_a_named_mistake(solution):
    solution(FORGETS.format(says="the upstream gradient is left out"))
    words = refused("def scale_vjp(dy, x): return np.cos(x) + 1e-3" + SCALES)
    assert "common mistake" not in words


TWO = """
@check
def scale_vjp_is_right(rng):
    same(y=(y, np.array([1.0, 2.0])), z=(z, np.array([3.0, 4.0])))
"""


@pytest.mark.parametrize("y", ["np.array([1.0, 9.0])", "[1.0, 2.0]", "np.ones((1, 2))", "np.array(7.0)"])
def test_a_mistake_in_another_answer_is_not_named(solution, y):
    """With y wrong the check never comes to z, whatever z is."""
    solution("mistake(scale_vjp_is_right, says='z is negated', z=np.array([-3.0, -4.0]))")
    right = "z = np.array([3.0, 4.0])"
    assert "common mistake" not in refused(f"y = {y}\n{right}" + TWO)
    words = refused("y = np.array([1.0, 2.0])\nz = np.array([-3.0, -4.0])" + TWO)
    assert words.endswith("numbers: z is negated.")


def test_a_mistake_that_differs_in_a_later_comparison_is_not_named(solution):
    """At a tie two wrong answers may give one number. Away from it they do not."""
    solution("mistake(scale_vjp_is_right, says='takes the larger', smaller=lambda x, y: max(x, y + 0.5 * (x == y)))")
    ties_first = """
@check
def scale_vjp_is_right(rng):
    for x, y in [(1.0, 1.0), (1.0, 2.0)]:
        same(z=(smaller(x, y), min(x, y)))
"""
    wrong_at_ties = "def smaller(x, y): return min(x, y) + 0.5 * (x == y)"
    assert "common mistake" not in refused(wrong_at_ties + ties_first)
    assert refused("def smaller(x, y): return max(x, y) + 0.5 * (x == y)" + ties_first).endswith("takes the larger.")


CASES = """
def scale(x, *, axis=0):
    return {returned}

@check{options}
def scale_takes_an_axis(rng):
    for shape, axis in [((2, 3), 0), ((3, 2), 1)]:
        x = np.ones(shape)
        same(y=(scale(x, axis=axis), (1 + axis) * x))
"""


def test_the_case_that_failed_is_told():
    words = refused(CASES.format(returned="x", options=""))
    assert words.splitlines()[-1] == "After the call scale(x=array (3, 2), axis=1)."
    assert "After" not in refused(CASES.format(returned="x", options="(diagnose=False)"))


def test_the_case_in_which_an_answer_raises_is_told():
    with pytest.raises(ZeroDivisionError) as caught:
        notebook(CASES.format(returned="x if axis == 0 else 1 / 0", options=""))
    assert caught.value.__notes__ == ["After the call scale(x=array (3, 2), axis=1)."]


def test_too_few_values_are_told_in_words():
    with pytest.raises(ValueError) as caught:
        notebook(
            """
            def both(x): return x

            @check
            def both_are_there(rng):
                y, z = both(np.ones(3))
            """
        )
    assert caught.value.__notes__[-1].endswith("Is it what the docstring says, and as many values?")


@pytest.mark.parametrize("wrong", [(1, 1), (0, 0)])
def test_one_wrong_entry_is_no_wrong_diagonal(wrong):
    mine = rectangle()[:, :3].copy()
    mine[wrong] += 1
    with pytest.raises(Mismatch) as caught:
        same(x=(mine, rectangle()[:, :3]))
    assert "diagonal" not in str(caught.value)


def test_no_sum_is_seen_in_a_reference_of_zeros():
    with pytest.raises(Mismatch) as caught:
        same(x=(np.array([[1.0, -1.0], [2.0, -2.0]]), np.zeros(2)), zero=True)
    assert "sum" not in str(caught.value)


def test_the_right_one_of_several_named_mistakes_is_told(solution):
    plus = "mistake(scale_vjp_is_right, says='added', scale_vjp=lambda dy, x: dy + np.cos(x))"
    broken = "raise RuntimeError('this cell is about another check')"
    solution(plus, broken, FORGETS.format(says="left out"))
    assert refused("def scale_vjp(dy, x): return np.cos(x)" + SCALES).endswith("numbers: left out.")
    assert refused("def scale_vjp(dy, x): return dy + np.cos(x)" + SCALES).endswith("numbers: added.")


def test_a_mistake_that_coincides_on_one_seed_only_is_not_reported(solution):
    first = np.random.default_rng(SEEDS[0]).normal(size=(2, 3))[0, 0]
    solution(
        f"def once(dy, x): return np.cos(x) if dy[0] == {first!r} else 5 * np.cos(x)\n"
        "mistake(scale_vjp_is_right, says='only once', scale_vjp=once)"
    )
    words = refused("def scale_vjp(dy, x): return np.cos(x)" + SCALES)
    assert words.startswith("scale_vjp_is_right: wrong") and "only once" not in words


def test_a_mistake_of_another_shape_is_recognised(solution):
    solution("mistake(scale_vjp_is_right, says='summed', scale_vjp=lambda dy, x: np.sum(dy * np.cos(x)))")
    assert refused("def scale_vjp(dy, x): return (dy * np.cos(x)).sum()" + SCALES).endswith("numbers: summed.")
    assert "summed" not in refused("def scale_vjp(dy, x): return (dy * np.sin(x)).sum()" + SCALES)


def test_a_mistake_that_changes_its_input_is_recognised(solution):
    in_place = "def in_place(dy, x):\n    dy *= np.cos(x)\n    return dy\n"
    solution(in_place + "mistake(scale_vjp_is_right, says='dy is overwritten', scale_vjp=in_place)")
    words = refused("def scale_vjp(dy, x):\n    dy[:] = 0\n    return dy * np.cos(x)" + SCALES)
    assert words.endswith("A common mistake fails in this very way: dy is overwritten.")


def test_a_mistake_of_another_check_is_no_diagnosis(solution):
    solution("mistake(another_check, says='another', scale_vjp=lambda dy, x: np.cos(x))")
    answer = "def scale_vjp(dy, x): return np.cos(x)\nanother_check = 'made earlier'"
    assert "another" not in refused(answer + SCALES)


def test_a_mistake_that_raises_is_no_diagnosis(solution):
    solution("mistake(scale_vjp_is_right, says='raises', raises=KeyError, scale_vjp=lambda dy, x: np.cos(x))")
    assert "raises" not in refused("def scale_vjp(dy, x): return np.cos(x)" + SCALES)


def test_no_mistake_is_named_where_the_check_does_not_diagnose(solution):
    solution(FORGETS.format(says="left out"))
    check = SCALES.replace("@check", "@check(diagnose=False)")
    assert refused("def scale_vjp(dy, x): return np.cos(x)" + check) == (
        "scale_vjp_is_right: wrong in dx, first at [0]."
    )


def test_a_check_can_keep_the_numbers_of_the_reference_to_itself(solution):
    solution(FORGETS.format(says="left out"))
    check = SCALES.replace("@check", "@check(values=False)")
    told = refused("def scale_vjp(dy, x): return np.cos(x)" + check).splitlines()
    assert told[:2] == ["scale_vjp_is_right: wrong", "dx is wrong, first at [0]."]
    assert told[-1] == "A common mistake gives these very numbers: left out."
    assert "dx has shape (2,), the reference (3,)." in refused("def scale_vjp(dy, x): return np.zeros(2)" + check)


def test_recognising_leaves_the_notebook_as_it_was(solution):
    solution(FORGETS.format(says="left out"))
    namespace = notebook("def scale_vjp(dy, x): return dy * np.cos(x)" + SCALES)
    before = dict(namespace)
    exec("def scale_vjp(dy, x): return np.cos(x)", namespace)
    with pytest.raises(Mismatch, match="left out"):
        namespace["scale_vjp_is_right"].report()
    assert {name for name in namespace if namespace[name] is not before.get(name)} == {"scale_vjp"}


def test_a_check_works_without_solutions(tmp_path, monkeypatch):
    monkeypatch.setattr(byhand.check, "SOLUTIONS", tmp_path / "absent")
    assert refused("def scale_vjp(dy, x): return np.cos(x)" + SCALES).startswith("scale_vjp_is_right: wrong\ndx")


@pytest.mark.parametrize(
    ("dz", "dh", "says"),
    [
        ("np.array([1, -2, 1]) / 3", "np.array([2, 0, -4, 0]) / 3", "the upstream gradient of 3 is left out"),
        ("np.array([1.0, -2.0, 1.0])", "np.array([2, 9, -4, -1])", "the ReLU's mask is left out"),
        ("np.array([1.0, -2.0, 1.0])", "np.array([2, 0, -4, -2])", None),
    ],
)
def test_the_mistakes_of_61_are_recognised(dz, dh, says):
    cells = json.loads(SOURCE_61.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    check = next(n for n, source in enumerate(sources) if "def pencil_gradients" in source)
    namespace = {"__name__": "__main__"}
    for source in sources[:check]:
        exec(source, namespace)
    exec(f"dz, dh = {dz}, {dh}", namespace)
    with pytest.raises(Mismatch) as caught:
        exec(sources[check], namespace)
    if says:
        assert str(caught.value).endswith(f"A common mistake gives these very numbers: {says}.")
    else:
        assert "common mistake" not in str(caught.value)


# --- mistake -------------------------------------------------------------------------------------

RIGHT = "def scale_vjp(dy, x): return dy * np.cos(x)" + SCALES


def test_mistake_prints_what_is_wrong_and_the_words_of_the_check(capsys):
    notebook(RIGHT + "mistake(scale_vjp_is_right, says='negated', scale_vjp=lambda dy, x: -dy * np.cos(x))")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["caught: negated", "  dx is wrong: 3 of 3 entries differ from the reference."]
    assert lines[-1] == "  The sign is wrong everywhere."


def test_mistake_leaves_the_right_answer_in_place():
    namespace = notebook(RIGHT + "mistake(scale_vjp_is_right, says='zero', scale_vjp=lambda dy, x: 0 * x)")
    namespace["scale_vjp_is_right"].report()


def test_mistake_takes_a_wrong_value(capsys):
    notebook(
        """
        n = 4
        @check
        def n_is_right(rng):
            same(n=(n, 4))
        mistake(n_is_right, says='one too many', n=5)
        """
    )
    assert "caught: one too many\n  n is wrong: yours 5, reference 4." in capsys.readouterr().out


def test_mistake_catches_what_is_wrong_on_the_last_seed_only(capsys):
    last = np.random.default_rng(SEEDS[-1]).normal(size=(2, 3))[0, 0]
    wrong = f"lambda dy, x: dy * np.cos(x) * (1 + (dy[0] == {last!r}))"
    notebook(RIGHT + f"mistake(scale_vjp_is_right, says='rare', scale_vjp={wrong})")
    assert "caught: rare" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ("says='right', scale_vjp=lambda dy, x: dy * np.cos(x)", AssertionError, "passes this wrong answer: right"),
        ("says='typo', scale_vpj=lambda dy, x: x", TypeError, "does not use scale_vpj; it uses np, same, scale_vjp"),
        ("says='nothing'", TypeError, "a wrong answer"),
        ("says='', scale_vjp=lambda dy, x: x", TypeError, "needs says="),
        ("says='crash', scale_vjp=lambda dy, x: 1 / 0", ZeroDivisionError, "division by zero"),
        ("says='stub', scale_vjp=...", NotAnswered, "scale_vjp is not answered yet"),
        (
            "says='no crash', raises=ValueError, scale_vjp=lambda dy, x: x",
            AssertionError,
            "does not end in ValueError: no crash",
        ),
        (
            "says='right', raises=ValueError, scale_vjp=lambda dy, x: dy * np.cos(x)",
            AssertionError,
            "does not end in ValueError",
        ),
        ("says='other', raises=ValueError, scale_vjp=lambda dy, x: 1 / 0", ZeroDivisionError, "division"),
    ],
)
def test_mistake_refuses(arguments, kind, says, capsys):
    words = refused(RIGHT + f"mistake(scale_vjp_is_right, {arguments})", kind)
    assert says in words
    assert "caught" not in capsys.readouterr().out


def test_mistake_accepts_the_exception_that_it_names(capsys):
    notebook(
        RIGHT + "mistake(scale_vjp_is_right, says='by zero', raises=ZeroDivisionError, scale_vjp=lambda dy, x: 1 / 0)"
    )
    assert "caught: by zero\n  ZeroDivisionError: division by zero\n" in capsys.readouterr().out
