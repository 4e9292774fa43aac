"""The operators of lecture 64 against torch: values, first and second derivatives, memory."""

import gc
import operator
import weakref

import numpy as np
import pytest
import torch
from forwards import RULES
from forwards.inputs import Case, Rule, arrays
from forwards.part2 import positive_array
from forwards.part3 import broadcastable_pairs, shapes_that_broadcast, sum_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from byhand.taught import taught

rows = taught("64-operators")
Tensor, no_grad = rows.Tensor, rows.no_grad

# Fixed examples as in test_rules.py, which also says why.
settings.register_profile("operators", derandomize=True, deadline=None, database=None, max_examples=20)


# --- one rule for each row -----------------------------------------------------------------------


@st.composite
def any_array(draw):
    return draw(arrays(tuple(draw(st.lists(st.integers(0, 3), max_size=3)))))


def unary(forward):
    return Rule(forward, any_array().map(lambda x: Case((x,))))


@st.composite
def quotients(draw):
    a, b = draw(broadcastable_pairs()).inputs
    return Case((a, np.where(b >= 0, 1.0, -1.0) + b))


@st.composite
def filled_sum_cases(draw):
    """No axis is empty: there the mean is nan, and a maximum does not exist."""
    case = draw(sum_cases())
    (x,) = case.inputs
    return Case((draw(arrays(tuple(max(size, 1) for size in x.shape))),), case.options)


def mean(x, *, axis=None, keepdims=False):
    axes = tuple(range(x.ndim)) if axis is None else axis
    return torch.mean(x, axes, keepdim=keepdims) if axes != () else x.clone()


def max_over(x, *, axis=None, keepdims=False):
    axes = tuple(range(x.ndim)) if axis is None else axis
    return torch.amax(x, axes, keepdim=keepdims) if axes != () else x.clone()


INDICES = [
    *(0, -1, (1, 2), (..., 1), (None, 0, slice(None)), slice(0, 0), ...),
    *(slice(None, None, 2), (slice(1, None), 0), np.array([0, 1, 0, 0]), [1, 1]),
    *((np.array([1, 0, 1]), np.array([2, 2, 2])), (slice(None), [0, 2, 0]), np.array([[0, 1], [1, 1]])),
    np.array([[True, False, True], [False, True, True]]),
]


@st.composite
def getitem_cases(draw):
    return Case((draw(arrays((2, 3))),), {"index": draw(st.sampled_from(INDICES))})


@st.composite
def concat_cases(draw):
    shape = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    axis = draw(st.integers(0, len(shape) - 1))
    sizes = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3))
    inputs = tuple(draw(arrays((*shape[:axis], size, *shape[axis + 1 :]))) for size in sizes)
    return Case(inputs, {"axis": draw(st.sampled_from([axis, axis - len(shape)]))})


@st.composite
def where_cases(draw):
    a, b = draw(broadcastable_pairs()).inputs
    c = draw(arrays(np.broadcast_shapes(a.shape, b.shape))) > 0
    return Case((a, b), {"mask": c})


@st.composite
def expand_cases(draw):
    x = draw(any_array())
    return Case((x,), {"axis": draw(st.sampled_from([0, -1, x.ndim, (0, 1), (0, -1)]))})


def expand_dims(x, *, axis):
    return x.reshape(np.expand_dims(np.empty(tuple(x.shape)), axis).shape)


@st.composite
def sum_to_cases(draw):
    """As in 34, but torch does not differentiate sum_to_size of an empty array."""
    small, large = draw(shapes_that_broadcast())
    return Case((draw(arrays(large)),), {"shape": small})


NEW = {
    "neg": unary(torch.neg),
    "cos": unary(torch.cos),
    "tanh": unary(torch.tanh),
    "copy": unary(torch.clone),
    "sigmoid": unary(torch.sigmoid),
    "sub": Rule(torch.sub, broadcastable_pairs()),
    "div": Rule(torch.div, quotients()),
    "mean": Rule(mean, filled_sum_cases()),
    "max_over": Rule(max_over, filled_sum_cases()),
    "getitem": Rule(lambda x, *, index: x[index], getitem_cases()),
    "concat": Rule(lambda *inputs, axis: torch.cat(inputs, axis), concat_cases()),
    "where": Rule(lambda a, b, *, mask: torch.where(torch.tensor(mask), a, b), where_cases()),
    "expand_dims": Rule(expand_dims, expand_cases()),
}
TAUGHT = {
    "21-elementwise": ["sin"],
    "22-log-exp": ["exp", "log"],
    "23-power": ["power"],
    "24-relu": ["relu"],
    "31-reshape": ["reshape"],
    "32-transpose": ["transpose"],
    "33-sum": ["sum_over"],
    "34-broadcast": ["broadcast_to", "sum_to"],
    "35-unbroadcast": ["add", "mul"],
    "42-matmul": ["matmul"],
    "43-affine": ["affine"],
    "51-softmax": ["softmax"],
    "52-nll": ["nll"],
    "53-cross-entropy": ["log_softmax", "cross_entropy"],
}
ALL = NEW | {name: RULES[stem][name] for stem, names in TAUGHT.items() for name in names}


@st.composite
def broadcast_powers(draw):
    """Bases above 0, broadcast against any exponents."""
    a, b = draw(broadcastable_pairs()).inputs
    return Case((np.abs(a) + 0.5, b))


# Where the second derivative is looked at: power is not smooth at 0, and torch's log is not either.
SMOOTH = {"power": broadcast_powers(), "log": positive_array(most=3, axes=2)}


def pairs_of_leaves(rule, case):
    """(inputs of the row, inputs of torch): leaves, except for labels."""
    mine, theirs = [], []
    for place, value in enumerate(case.inputs):
        is_leaf = place not in rule.labels
        mine.append(Tensor(value.copy(), requires_grad=is_leaf))
        theirs.append(torch.tensor(value.copy(), requires_grad=is_leaf))
    return mine, theirs


def assert_equal(mine, reference):
    np.testing.assert_allclose(mine, reference, rtol=1e-7, atol=1e-9, strict=True)


def gradient_of(x):
    """The gradient that came to a leaf of ours or of torch's, as an array; zeros where none came."""
    if isinstance(x, torch.Tensor):
        return np.zeros(tuple(x.shape)) if x.grad is None else x.grad.detach().numpy()
    return np.zeros(x.shape) if x.grad is None else x.grad.data


def test_every_row_is_tested_here():
    operations = {name for name, value in vars(rows).items() if hasattr(value, "__self__") and name != "getitem"}
    assert operations | {"getitem"} == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_values_and_gradients_equal_torchs(name):
    rule = ALL[name]

    @settings(settings.get_profile("operators"))
    @given(rule.cases, st.integers(0, 2**32 - 1))
    def agrees(case, seed):
        mine, theirs = pairs_of_leaves(rule, case)
        kept = [value.copy() for value in case.inputs]
        y, yt = getattr(rows, name)(*mine, **case.options), rule.forward(*theirs, **case.options)
        assert_equal(y.data, yt.detach().numpy())
        dy = np.random.default_rng(seed).normal(size=y.shape)
        y.backward(dy)
        yt.backward(torch.tensor(dy))
        for place, (x, xt) in enumerate(zip(mine, theirs, strict=True)):
            assert (x.grad is None) == (place in rule.labels)
            assert_equal(gradient_of(x), gradient_of(xt))
            np.testing.assert_array_equal(x.data, kept[place])

    agrees()


def test_power_broadcasts():
    @settings(settings.get_profile("operators"))
    @given(broadcast_powers())
    def agrees(case):
        mine, theirs = pairs_of_leaves(ALL["power"], case)
        (mine[0] ** mine[1]).sum().backward()
        torch.pow(*theirs).sum().backward()
        for x, xt in zip(mine, theirs, strict=True):
            assert_equal(gradient_of(x), gradient_of(xt))

    agrees()


# --- second derivatives --------------------------------------------------------------------------


def twice(y, leaves, dy, weights):
    """Ours: the gradients of y along dy, weighted and added to one number, which is sent back again."""
    y.backward(dy, create_graph=True)
    total = sum((np.sum(x.grad * w) for x, w in zip(leaves, weights, strict=True)), Tensor(0.0))
    for x in leaves:
        x.grad = None
    if total.requires_grad:
        total.backward()


def twice_by_torch(y, leaves, dy, weights):
    gradients = torch.autograd.grad(y, leaves, dy, create_graph=True)
    total = sum(torch.sum(g * torch.tensor(w)) for g, w in zip(gradients, weights, strict=True))
    if total.requires_grad:
        total.backward()


@pytest.mark.parametrize("name", ALL)
def test_second_derivatives_equal_torchs(name):
    """sin(3 y) behind the row, so that the upstream gradient itself depends on the inputs."""
    rule = ALL[name]

    @settings(settings.get_profile("operators"))
    @given(SMOOTH.get(name, rule.cases), st.integers(0, 2**32 - 1))
    def agrees(case, seed):
        rng = np.random.default_rng(seed)
        mine, theirs = pairs_of_leaves(rule, case)
        y = np.sin(3.0 * getattr(rows, name)(*mine, **case.options))
        yt = torch.sin(3.0 * rule.forward(*theirs, **case.options))
        dy = rng.normal(size=y.shape)
        places = [k for k in range(len(mine)) if k not in rule.labels]
        leaves, leaves_t = [mine[k] for k in places], [theirs[k] for k in places]
        weights = [rng.normal(size=x.shape) for x in leaves]
        twice(y, leaves, dy, weights)
        twice_by_torch(yt, leaves_t, torch.tensor(dy), weights)
        for x, xt in zip(leaves, leaves_t, strict=True):
            assert_equal(gradient_of(x), gradient_of(xt))

    agrees()


@pytest.mark.parametrize("name", ["exp", "sin", "cos", "tanh", "sigmoid", "neg", "relu"])
def test_derivatives_up_to_the_fifth(name):
    x = np.array([-1.5, -0.25, 0.5, 2.0])
    y, mine = getattr(rows, name)(leaf := Tensor(x, requires_grad=True)), []
    yt, theirs = ALL[name].forward(leaf_t := torch.tensor(x, requires_grad=True)), []
    for _ in range(5):
        leaf.grad = None
        if y.requires_grad:
            np.sum(y).backward(create_graph=True)
        y = leaf.grad if leaf.grad is not None else Tensor(np.zeros(4))
        (yt,) = torch.autograd.grad(yt.sum(), leaf_t, create_graph=True) if yt.requires_grad else (torch.zeros(4),)
        mine.append(y.data)
        theirs.append(yt.detach().numpy())
    assert_equal(np.array(mine), np.array(theirs, dtype=float))


def network(x, t, W0, b0, W1, b1, lib):
    if lib is torch:
        return torch.nn.functional.cross_entropy(torch.tanh(x @ W0 + b0) @ W1 + b1, t)
    return rows.cross_entropy(rows.affine(rows.tanh(rows.affine(x, W0, b0)), W1, b1), t)


def test_hessian_of_a_network_equals_torchs_and_is_symmetric():
    rng = np.random.default_rng(64)
    x, t = rng.normal(size=(5, 3)), rng.dirichlet(np.ones(3), size=5)
    parameters = [rng.normal(size=shape) for shape in ((3, 4), (4,), (4, 3), (3,))]
    sizes = [p.size for p in parameters]
    hessian = []
    for direction in np.eye(sum(sizes)):
        parts = np.split(direction, np.cumsum(sizes)[:-1])
        leaves = [Tensor(p.copy(), requires_grad=True) for p in parameters]
        weights = [v.reshape(p.shape) for v, p in zip(parts, parameters, strict=True)]
        twice(network(x, t, *leaves, np), leaves, None, weights)
        hessian.append(np.concatenate([leaf.grad.data.ravel() for leaf in leaves]))
    tensors = tuple(torch.tensor(p) for p in parameters)
    blocks = torch.autograd.functional.hessian(lambda *p: network(torch.tensor(x), torch.tensor(t), *p, torch), tensors)
    hessian_t = [torch.cat([block.reshape(m, -1) for block in row], 1) for row, m in zip(blocks, sizes, strict=True)]
    reference = torch.cat(hessian_t).numpy()
    assert_equal(np.array(hessian), reference)
    assert_equal(np.array(hessian), np.array(hessian).T)


# --- whole graphs --------------------------------------------------------------------------------

# Of bounded functions, so that thirty of them in a chain stay within float64: (ours, torch's).
NODES = {
    "add": (lambda a, b: 0.5 * (a + b), lambda a, b: 0.5 * (a + b)),
    "sub": (lambda a, b: a - 0.7 * b, lambda a, b: a - 0.7 * b),
    "mul": (lambda a, b: np.tanh(a * b), lambda a, b: torch.tanh(a * b)),
    "div": (lambda a, b: np.sin(a) / (2.0 + np.cos(b)), lambda a, b: torch.sin(a) / (2.0 + torch.cos(b))),
    "power": (lambda a, b: (2.0 + np.sin(a)) ** np.tanh(b), lambda a, b: (2.0 + torch.sin(a)) ** torch.tanh(b)),
    "log": (lambda a, b: np.log(1.5 + rows.sigmoid(a)) - b, lambda a, b: torch.log(1.5 + torch.sigmoid(a)) - b),
    "exp": (lambda a, b: -np.exp(np.sin(a)) + b, lambda a, b: -torch.exp(torch.sin(a)) + b),
    "sum": (lambda a, b: np.sum(np.tanh(a), axis=-1, keepdims=True) + b, lambda a, b: torch.tanh(a).sum(-1, True) + b),
    "mean": (lambda a, b: np.mean(a * 1.0, axis=0) - b, lambda a, b: a.mean(0) - b),
    "softmax": (lambda a, b: rows.softmax(a) + np.tanh(b), lambda a, b: torch.softmax(a, -1) + torch.tanh(b)),
    "matmul": (
        lambda a, b: np.tanh(a[[1, 0]] @ np.sin(a.T @ b)),
        lambda a, b: torch.tanh(a[[1, 0]] @ torch.sin(a.T @ b)),
    ),
    "concat": (
        lambda a, b: np.concatenate([a[1:], np.sin(b[:1])]),
        lambda a, b: torch.cat([a[1:], torch.sin(b[:1])]),
    ),
}
NEED_TWO_AXES = {"matmul", "concat", "mean", "softmax", "sum"}


@settings(settings.get_profile("operators"), max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(NODES)), st.integers(0, 2**20), st.integers(0, 2**20)),
        min_size=30,
        max_size=30,
    ),
    st.integers(0, 2**32 - 1),
)
def test_random_graphs_of_thirty_nodes(plan, seed):
    rng = np.random.default_rng(seed)
    leaves = [rng.normal(size=shape) for shape in [(2, 3), (2, 3), (3,), (2, 1), ()]]
    mine = [Tensor(x, requires_grad=True) for x in leaves]
    theirs = [torch.tensor(x, requires_grad=True) for x in leaves]
    nodes, nodes_t = list(mine), list(theirs)
    full, used = [0, 1], set()
    for kind, i, j in plan:
        # The four latest nodes half of the time, so that graphs are deep; any node, so that nodes are shared.
        i, j = (k % len(nodes) if k % 2 else len(nodes) - 1 - k // 2 % min(4, len(nodes)) for k in (i, j))
        if kind in NEED_TWO_AXES:
            i, j = full[i % len(full)], full[j % len(full)]
        ours, torchs = NODES[kind]
        nodes.append(ours(nodes[i], nodes[j]))
        nodes_t.append(torchs(nodes_t[i], nodes_t[j]))
        used |= {i, j}
        if nodes[-1].shape == (2, 3):
            full.append(len(nodes) - 1)
    ends = [k for k in range(len(nodes)) if k not in used]
    root, root_t = (sum(each[k].sum() for k in ends) for each in (nodes, nodes_t))
    assert_equal(np.asarray(root.data), root_t.detach().numpy())
    root.backward()
    root_t.backward()
    for x, xt in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(gradient_of(x), gradient_of(xt), rtol=1e-6, atol=1e-8, strict=True)


def test_a_chain_of_ten_thousand_operations():
    x = Tensor(np.array([0.5, -1.0]), requires_grad=True)
    y, xt = x, torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    yt = xt
    for _ in range(2500):
        y, yt = np.sin(y) + 0.1 * y + x, torch.sin(yt) + 0.1 * yt + xt
    y.backward(np.array([1.0, -2.0]))
    yt.backward(torch.tensor([1.0, -2.0], dtype=torch.float64))
    np.testing.assert_allclose(x.grad.data, xt.grad.numpy(), rtol=1e-6)


def test_a_shared_result_gets_the_sum_over_its_uses():
    x = Tensor(3.0, requires_grad=True)
    squared = x * x
    (squared * squared + np.exp(np.log(squared)) * x).backward()
    assert_equal(x.grad.data, np.array(4 * 27.0 + 3 * 9.0))


# --- memory and dtype ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_memory_is_freed_after_backward(name):
    """No garbage collector is needed: nothing holds itself in a circle."""
    rule = ALL[name]

    @settings(settings.get_profile("operators"), max_examples=3)
    @given(SMOOTH.get(name, rule.cases))
    def freed(case):
        mine, _ = pairs_of_leaves(rule, case)
        inside = [x * 1.0 if place not in rule.labels else x for place, x in enumerate(mine)]
        row = getattr(rows, name)(*inside, **case.options)
        root = np.sum(row * row)
        watched = [weakref.ref(x) for x in (*inside, row) if x.ctx]
        watched += [weakref.ref(x.data) for x in (*inside, row) if x.ctx]
        del inside, row
        assert all(watch() is not None for watch in watched)
        root.backward()
        assert all(watch() is None for watch in watched)

    gc.disable()
    try:
        freed()
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ALL)
def test_float32_stays_float32(name):
    rule = ALL[name]

    @settings(settings.get_profile("operators"), max_examples=10)
    @given(rule.cases)
    def stays(case):
        inputs = [x if k in rule.labels and x.dtype.kind == "i" else x.astype("f4") for k, x in enumerate(case.inputs)]
        leaves = [Tensor(x, requires_grad=k not in rule.labels) for k, x in enumerate(inputs)]
        y = getattr(rows, name)(*(x * 1.0 if x.requires_grad else x for x in leaves), **case.options)
        assert y.data.dtype == np.float32
        assert all(dx.dtype == np.float32 for _, dx in y.ctx.gradients(np.ones_like(y.data)))

    stays()


def test_nothing_is_recorded_inside_no_grad():
    x = Tensor([1.0, 2.0], requires_grad=True)
    with no_grad():
        assert (np.exp(x) * x).ctx is None


@pytest.mark.parametrize("name", ALL)
def test_an_input_changed_in_place_is_refused_or_not_read(name):
    """Never a wrong gradient in silence, neither the first nor the second."""
    rule = ALL[name]

    @settings(settings.get_profile("operators"), max_examples=10)
    @given(SMOOTH.get(name, rule.cases), st.integers(0, 2**32 - 1))
    def is_safe(case, seed):
        found = []
        for changes in False, True:
            leaves, _ = pairs_of_leaves(rule, case)
            inside = [x * 1.0 if x.requires_grad else Tensor(x.data.copy()) for x in leaves]
            y = getattr(rows, name)(*inside, **case.options)
            with no_grad():
                for x in inside if changes else ():
                    x.change(..., (x.data + 1 if x.requires_grad else x.data[::-1].copy()))
            rng, leaves = np.random.default_rng(seed), [x for x in leaves if x.requires_grad]
            dy, weights = rng.normal(size=y.shape), [rng.normal(size=x.shape) for x in leaves]
            try:
                y.backward(dy, retain_graph=True)
                found.append([x.grad.data for x in leaves])
                for x in leaves:
                    x.grad = None
                twice(y, leaves, dy, weights)
            except RuntimeError as error:
                assert changes and "changed in place" in str(error)
                return
            found[-1] += [gradient_of(x) for x in leaves]
        for mine, reference in zip(found[1], found[0], strict=True):
            assert_equal(mine, reference)

    is_safe()


def test_cross_entropy_saves_the_scores_it_reads_again():
    """Without them a second derivative would be that of the scores after the change, and no error."""
    x = Tensor([[1.0, -2.0, 0.5]], requires_grad=True)
    scores = x * 1.0
    loss = rows.cross_entropy(scores, np.eye(3)[:1])
    with no_grad():
        scores += np.array([0.0, 1.0, 0.0])
    with pytest.raises(RuntimeError, match="CrossEntropy"):
        loss.backward(create_graph=True)


def test_a_change_that_the_rule_does_not_read_is_refused_where_torch_allows_it():
    x, xt = Tensor([1.0, 2.0], requires_grad=True), torch.tensor([1.0, 2.0], requires_grad=True)
    h, ht = x * 1.0, xt * 1.0
    y, yt = np.exp(h), torch.exp(ht)
    with no_grad(), torch.no_grad():
        h += 1.0
        ht += 1.0
    yt.sum().backward()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward(np.ones(2))


# --- the fused rows ------------------------------------------------------------------------------


def taught_row(stem, name):
    return rows.op(getattr(taught(stem), name), getattr(taught(stem), f"{name}_vjp"))


@pytest.mark.parametrize(("stem", "name"), [("43-affine", "affine"), ("53-cross-entropy", "cross_entropy")])
def test_fused_rows_equal_the_taught_rules(stem, name):
    rule, plain, fused = RULES[stem][name], taught_row(stem, name), getattr(rows, name)

    @settings(settings.get_profile("operators"))
    @given(rule.cases, st.integers(0, 2**32 - 1))
    def agrees(case, seed):
        gradients = []
        for row in plain, fused:
            leaves, _ = pairs_of_leaves(rule, case)
            y = row(*leaves, **case.options)
            y.backward(np.random.default_rng(seed).normal(size=y.shape))
            gradients.append([y.data, *(gradient_of(x) for x in leaves)])
        for mine, reference in zip(*gradients, strict=True):
            assert_equal(mine, reference)

    agrees()


def test_affine_computes_no_gradient_that_nobody_asks_for():
    X, W, b = np.ones((2, 3)), Tensor(np.ones((3, 4)), requires_grad=True), Tensor(np.ones(4), requires_grad=True)
    y = rows.affine(X, W, b)
    dX, dW, db = y.ctx.op.backward(y.ctx, np.ones((2, 4)))
    assert dX is None and dW.shape == (3, 4) and db.shape == (4,)


# --- NumPy's own functions -----------------------------------------------------------------------

CALLS = {
    "sum of an axis": (lambda x: np.sum(x, 1), lambda x: x.sum(1)),
    "method sum": (lambda x: x.sum(axis=0, keepdims=True), lambda x: x.sum(0, keepdim=True)),
    "mean": (lambda x: np.mean(x, axis=1), lambda x: x.mean(1)),
    "method mean": (lambda x: x.mean(), lambda x: x.mean()),
    "max": (lambda x: np.max(x, axis=0), lambda x: x.amax(0)),
    "method max": (lambda x: x.max(axis=1, keepdims=True), lambda x: x.amax(1, True)),
    "reshape": (lambda x: np.reshape(x, (3, 2)), lambda x: x.reshape(3, 2)),
    "method reshape": (lambda x: x.reshape(3, -1), lambda x: x.reshape(3, -1)),
    "method reshape of a shape": (lambda x: x.reshape((6,)), lambda x: x.reshape(6)),
    "transpose": (lambda x: np.transpose(x, (1, 0)), lambda x: x.T),
    "T": (lambda x: x.T, lambda x: x.T),
    "broadcast_to": (lambda x: np.broadcast_to(x, (4, 2, 3)), lambda x: x.expand(4, 2, 3)),
    "expand_dims": (lambda x: np.expand_dims(x, 1), lambda x: x[:, None]),
    "copy": (lambda x: x.copy() + np.copy(x), lambda x: 2 * x),
    "concatenate": (lambda x: np.concatenate([x, x[:1]]), lambda x: torch.cat([x, x[:1]])),
    "where": (lambda x: np.where(x > 0, x, 2), lambda x: torch.where(x > 0, x, 2.0)),
    "where of two": (lambda x: np.where(x.data > 0, 1.0, x), lambda x: torch.where(x > 0, 1.0, x)),
    "operators": (lambda x: (2 - x) / 3 + (-x) ** 2 * (1 / (x + 9)), lambda x: (2 - x) / 3 + (-x) ** 2 * (1 / (x + 9))),
    "rows": (lambda x: sum(row * row for row in x), lambda x: sum(row * row for row in x)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_numpys_functions_on_tensors(name, dtype):
    ours, torchs = CALLS[name]
    x = np.random.default_rng(6).normal(size=(2, 3)).astype(dtype)
    leaf, leaf_t = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, yt = ours(leaf), torchs(leaf_t)
    np.testing.assert_allclose(y.data, yt.detach().numpy(), rtol=1e-5, strict=True)
    dy = np.random.default_rng(4).normal(size=y.shape).astype(dtype)
    y.backward(dy)
    yt.backward(torch.tensor(dy))
    np.testing.assert_allclose(leaf.grad.data, leaf_t.grad.numpy(), rtol=1e-4, strict=True)


def test_what_has_no_rule_says_so():
    x = Tensor([1.0, 2.0], requires_grad=True)
    for call in (np.tan, np.cumsum, np.linalg.norm):
        with pytest.raises(TypeError):
            call(x)
    for other in (np.ones(2), np.ones((1, 2, 2))):
        with pytest.raises(ValueError, match="two matrices"):
            operator.matmul(x, other)
