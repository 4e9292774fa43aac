"""What lecture 63 cannot show about its engine: scale, memory, and what is left after an error."""

import gc
import sys
import weakref

import numpy as np
import pytest

from byhand.taught import rule_sources, taught

STEM = "63-engine"


class Engine:
    """The taught engine with a few operations of its own: no other table is touched."""

    def __init__(self, monkeypatch):
        rules = taught(STEM)
        self.Op, self.Tensor, self.no_grad = rules.Op, rules.Tensor, rules.no_grad
        self.calls = calls = []
        monkeypatch.setattr(rules, "NUMPY", {})

        class Add(rules.Op, numpy=np.add):
            def forward(ctx, a, b):
                return a + b

            def backward(ctx, dy):
                calls.append("Add")
                return dy, dy

        class Mul(rules.Op, numpy=np.multiply):
            def forward(ctx, a, b):
                ctx.save_for_backward(a, b)
                return a * b

            def backward(ctx, dy):
                a, b = ctx.saved
                return dy * b, dy * a

        class Flip(rules.Op, numpy=np.flip):
            def forward(ctx, x):
                return x[::-1]

            def backward(ctx, dy):
                return dy[::-1]

        class Exp(rules.Op, numpy=np.exp):
            def forward(ctx, x):
                y = np.exp(x)
                ctx.save_for_backward(y)
                return y

            def backward(ctx, dy):
                return dy * ctx.saved[0]


@pytest.fixture
def engine(monkeypatch):
    return Engine(monkeypatch)


def leaf(engine, *numbers):
    return engine.Tensor(np.array(numbers), requires_grad=True)


def test_the_engine_is_one_page():
    lines = "\n".join(rule_sources(STEM).values()).splitlines()
    assert len([line for line in lines if line.strip()]) <= 150


@pytest.mark.parametrize("n", [1, 2, 100, 1000])
def test_a_chain_of_diamonds_takes_one_visit_an_operation(engine, n):
    x = y = leaf(engine, 1.0)
    for _ in range(n):
        y = y + y
    y.backward()
    assert len(engine.calls) == n
    np.testing.assert_array_equal(x.grad.data, [2.0**n])


def test_an_operation_waits_for_all_that_use_it(engine):
    x = leaf(engine, 3.0)
    h = x * x
    y = h + h * h + (x + h)  # h is used by operations of three depths
    y.backward()
    np.testing.assert_allclose(x.grad.data, [2 * 2 * 3.0 + 4 * 27.0 + 1])


@pytest.mark.parametrize("n", [10_000, 100_000])
def test_long_chains_need_no_recursion(engine, n):
    assert n > sys.getrecursionlimit()
    x = y = leaf(engine, 1.0)
    for _ in range(n):
        y = y + 1.0
    y.backward()
    np.testing.assert_array_equal(x.grad.data, [1.0])


def test_a_long_graph_is_dropped_without_recursion(engine):
    y = leaf(engine, 1.0)
    for _ in range(100_000):
        y = y + 1.0
    first = weakref.ref(y.ctx)
    del y
    assert first() is None


@pytest.fixture
def no_collector():
    """Only counted references free: a circle would show."""
    gc.disable()
    yield
    gc.enable()


def test_backward_lets_go_of_what_it_passed(engine, no_collector):
    x = leaf(engine, 1.0, 2.0)
    h = np.exp(x)
    held, array = weakref.ref(h), weakref.ref(h.data)
    y = h * h
    del h
    y.backward([1.0, 1.0])
    assert held() is None and array() is None


def test_a_graph_goes_with_its_root(engine, no_collector):
    x = leaf(engine, 1.0, 2.0)
    h = np.exp(x)
    held = weakref.ref(h)
    y = h * h
    del h
    assert held() is not None
    del y
    assert held() is None


def test_a_graph_that_was_differentiated_twice_goes_with_its_root(engine, no_collector):
    x = leaf(engine, 1.0)
    y = np.exp(np.exp(x))
    held = weakref.ref(y)
    y.backward(create_graph=True)
    x.grad = None
    del y
    assert held() is None


def test_no_grad_keeps_nothing(engine):
    with engine.no_grad():
        y = np.exp(leaf(engine, 1.0))
    assert y.ctx is None and not y.requires_grad


def test_no_grad_can_be_nested_and_ends_with_an_error(engine):
    with engine.no_grad():
        with pytest.raises(KeyError), engine.no_grad():
            raise KeyError
        assert not engine.Tensor.recording
    assert engine.Tensor.recording


def test_views_share_their_version(engine):
    x = leaf(engine, 1.0, 2.0)
    h = x + 0.0
    view = np.flip(h)
    assert view.version is h.version is not x.version
    y = view * view
    with engine.no_grad():
        h += 1.0  # changes the view as well
    with pytest.raises(RuntimeError, match="Mul saved was changed"):
        y.backward([1.0, 1.0])


def test_a_change_of_what_was_not_saved_is_no_error(engine):
    x = leaf(engine, 1.0, 2.0)
    h = x + 0.0
    y = h + 1.0  # its rule reads nothing
    with engine.no_grad():
        h += 1.0
    y.backward([3.0, 4.0])
    np.testing.assert_array_equal(x.grad.data, [3.0, 4.0])


def test_two_tensors_that_hold_one_array_are_two_inputs(engine):
    x = leaf(engine, 3.0, 4.0)
    (engine.Tensor(x.data) * x).backward([1.0, 1.0], create_graph=True)
    slope = x.grad  # the constant: it does not lead to x
    assert not slope.requires_grad
    np.testing.assert_array_equal(slope.data, [3.0, 4.0])

    array = np.array([3.0, 4.0])
    a, b = (engine.Tensor(array, requires_grad=True) for _ in range(2))
    (a * b).backward([1.0, 1.0], create_graph=True)
    da, a.grad, b.grad = a.grad, None, None
    da.backward([5.0, 7.0])  # da is b
    assert a.grad is None
    np.testing.assert_array_equal(b.grad.data, [5.0, 7.0])


def test_one_array_in_two_tensors_keeps_two_versions(engine):
    array = np.array([3.0, 4.0])
    a, b = (engine.Tensor(array, requires_grad=True) for _ in range(2))
    y = a * b
    for x in a, b:
        before = x.version[0]
        with engine.no_grad():
            x += 1.0
        with pytest.raises(RuntimeError, match="Mul saved was changed"):
            y.backward([1.0, 1.0])
        x.version[0] = before


def test_a_forward_that_returns_its_input_shares_the_version(engine):
    class Same(engine.Op):
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x

        def backward(ctx, dy):
            return dy

    x = leaf(engine, 1.0, 2.0)
    h = x * x
    y = Same.apply(h)
    assert y.version is h.version and y.data is not h.data
    with engine.no_grad():
        h += 1.0
    with pytest.raises(RuntimeError, match="Same saved was changed"):
        y.backward([1.0, 1.0])


@pytest.mark.parametrize("number", [0.5, np.array(0.5)])
def test_a_change_of_a_saved_output_of_no_axes_is_seen(engine, number):
    y = np.exp(engine.Tensor(number, requires_grad=True))
    with engine.no_grad():
        y += 1.0
    with pytest.raises(RuntimeError, match="Exp saved was changed"):
        y.backward()


def wrong(engine, gradients):
    class Wrong(engine.Op):
        def forward(ctx, a, b):
            return a + b

        def backward(ctx, dy):
            return gradients(dy)

    return Wrong.apply


@pytest.mark.parametrize(
    "gradients",
    [
        lambda dy: (dy,),
        lambda dy: dy,
        lambda dy: (dy, dy, dy),
        lambda dy: (dy, dy.sum()),
        lambda dy: (dy, None),
        lambda dy: (dy, 1.0),
        lambda dy: None,
    ],
)
def test_a_wrong_backward_is_named_and_leaves_all_gradients_unwritten(engine, gradients):
    a, b = leaf(engine, 1.0, 2.0), leaf(engine, 3.0, 4.0)
    y = a * b + wrong(engine, gradients)(a, b)  # a and b get gradients on both ways
    y.retain_grad()
    for _ in range(2):  # the second time, too, it is the first cause that is named
        with pytest.raises(ValueError, match=r"Wrong\.backward must return shapes \(2,\), \(2,\)"):
            y.backward([1.0, 1.0])
    assert a.grad is b.grad is y.grad is None


def test_misuse_is_told_in_words(engine):
    x, c = leaf(engine, 1.0, 1.0, 1.0), engine.Tensor(np.array([3, 4, 5]))
    for kind, words, call in [
        (RuntimeError, r"shape \(3,\) needs", lambda: (x + c).backward()),
        (ValueError, r"shape \(2,\), not \(3,\)", lambda: (x + c).backward(np.ones(2))),
        (RuntimeError, "Nothing that led here", lambda: (c + c).backward()),
        (TypeError, "floats", lambda: engine.Tensor(c.data, requires_grad=True)),
        (TypeError, r"np\.tan", lambda: np.tan(x)),
        (TypeError, "Only calls", lambda: np.add.reduce(x)),
        (TypeError, r"a = a \+ b", lambda: c.__iadd__(x)),
        (RuntimeError, "no_grad", lambda: x.change(0, 5.0)),
    ]:
        with pytest.raises(kind, match=words):
            call()
    assert x.grad is None


def test_a_number_takes_on_the_dtype(engine):
    w = engine.Tensor(np.float32(1.0), requires_grad=True)
    y = 0.1 * w + 1
    y.backward()
    assert y.data.dtype == w.grad.data.dtype == np.float32
    assert y.ndim == 0 and y.size == 1 and str(w) == "Tensor(1.)" and len({w, y, w}) == 2


def test_errors_in_the_graph_leave_all_gradients_unwritten(engine):
    a = leaf(engine, 1.0, 2.0)
    used, fresh = np.exp(a), np.exp(a)
    used.backward([1.0, 1.0])
    before = a.grad
    with pytest.raises(RuntimeError, match="retain_graph"):
        (fresh * used).backward([1.0, 1.0])
    assert a.grad is before
    fresh.backward([1.0, 1.0])  # was not freed by the attempt
    np.testing.assert_allclose(a.grad.data, 2 * np.exp([1.0, 2.0]))


def test_gradients_add_up_and_are_never_changed_in_place(engine):
    x, dy = leaf(engine, 1.0, 2.0), np.array([5.0, -7.0])
    (x + x).backward(dy)
    first = x.grad
    kept = first.data.copy()
    (x * x).backward(dy)
    np.testing.assert_array_equal(first.data, kept)
    np.testing.assert_array_equal(x.grad.data, 2 * dy + 2 * x.data * dy)
    np.testing.assert_array_equal(dy, [5.0, -7.0])


def test_no_two_gradients_share_an_array(engine):
    a, b, dy = leaf(engine, 1.0, 2.0), leaf(engine, 3.0, 4.0), np.array([5.0, -7.0])
    y = a + b
    y.retain_grad()
    y.backward(dy)
    arrays = [a.grad.data, b.grad.data, y.grad.data, dy]
    assert not any(np.may_share_memory(p, q) for k, p in enumerate(arrays) for q in arrays[:k])


def test_only_leaves_and_retained_results_keep_gradients(engine):
    x = leaf(engine, 1.0, 2.0)
    h = np.exp(x)
    r = h * 3.0
    r.retain_grad()
    y = r * r
    for times in 1, 2:
        y.backward([1.0, 1.0], retain_graph=True)
        np.testing.assert_allclose(r.grad.data, times * 2 * r.data)
    assert h.grad is y.grad is None and x.grad is not None


def test_a_root_that_is_a_leaf_gets_its_upstream_gradient(engine):
    x = leaf(engine, 1.0, 2.0)
    x.backward([3.0, 4.0])
    np.testing.assert_array_equal(x.grad.data, [3.0, 4.0])


def test_float32_stays_float32(engine):
    x = engine.Tensor(np.ones(2, np.float32), requires_grad=True)
    y = np.exp(2 * x + 1.0) * 0.5
    y.retain_grad()
    for _ in range(2):
        y.backward(np.ones(2), retain_graph=True)
    assert {y.data.dtype, x.grad.data.dtype, y.grad.data.dtype} == {np.dtype("float32")}


def test_second_derivatives(engine):
    x = engine.Tensor(0.5, requires_grad=True)
    np.exp(np.exp(x)).backward(create_graph=True)
    slope, x.grad = x.grad, None
    slope.backward()
    e = np.exp(0.5)
    np.testing.assert_allclose([slope.data, x.grad.data], [e * np.exp(e), (e + e**2) * np.exp(e)])


def test_adding_in_place_is_refused_while_recording(engine):
    total, x = engine.Tensor(np.zeros(2)), leaf(engine, 1.0, 2.0)
    with pytest.raises(TypeError, match=r"a = a \+ b"):
        total += x
    np.testing.assert_array_equal(total.data, [0.0, 0.0])
    assert total.version == [0]
