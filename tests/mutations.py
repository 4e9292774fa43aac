"""Small mistakes made on purpose: every way to change one place of a source that people get wrong.

`mutants(source)` makes them all, always in the same order. An operator takes a node of the syntax
tree and the nodes around it, outermost first, and yields what could stand in the node's place.
"""

import ast
import copy
from dataclasses import dataclass
from functools import partial


def _both_ways(pairs):
    return {**pairs, **{b: a for a, b in pairs.items()}}


# What is taken for each other: operations and comparisons, and names of functions.
OTHER_OPERATION = _both_ways(
    {
        ast.Add: ast.Sub,
        ast.Mult: ast.Div,
        ast.Lt: ast.LtE,
        ast.Gt: ast.GtE,
        ast.Eq: ast.NotEq,
        ast.Is: ast.IsNot,
        ast.And: ast.Or,
        ast.BitAnd: ast.BitOr,
    }
)
OTHER_NAME = _both_ways(
    {
        "sum": "mean",
        "max": "min",
        "maximum": "minimum",
        "argmax": "argmin",
        "any": "all",
        "zeros": "ones",
        "zeros_like": "ones_like",
        "tril": "triu",
        "sin": "cos",
        "sinh": "cosh",
    }
)
# Functions of two factors whose order counts, those that work along an axis given second, those that
# only move axes about, and those that a formula is often written without.
ORDERED = {"outer", "kron", "matmul", "dot"}
ALONG_AXIS = {"sum", "mean", "prod", "max", "min", "argmax", "argmin", "std", "var", "cumsum", "cumprod", "flip"}
TRANSPOSING = {"swapaxes", "transpose", "moveaxis"}
FORGOTTEN = {"sum", "mean", "exp", "log", "sqrt", "abs", "square", "sign", "tanh", "log1p", "expm1"}


# --- operators -----------------------------------------------------------------------------------


def other_operation(node, around):
    """+ for -, * for /, < for <=, == for !=, and for or."""
    if type(node) in OTHER_OPERATION:
        yield OTHER_OPERATION[type(node)]()


def other_name(node, around):
    """np.sum for np.mean, x.max() for x.min(), max for min."""
    if isinstance(node, ast.Attribute) and node.attr in OTHER_NAME:
        yield _changed(node, attr=OTHER_NAME[node.attr])
    if isinstance(node, ast.Name) and node.id in ("max", "min"):
        yield _changed(node, id=OTHER_NAME[node.id])


def other_order(node, around):
    """B @ A for A @ B, np.kron(b, a) for np.kron(a, b), the branches of np.where swapped."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        yield _changed(node, left=node.right, right=node.left)
    if _called(node) in ORDERED and len(node.args) == 2:
        yield _changed(node, args=node.args[::-1])
    if _called(node) == "where" and len(node.args) == 3:
        yield _changed(node, args=[node.args[0], node.args[2], node.args[1]])


def other_axis(node, around):
    """Another axis, or none: of a call, or as a parameter's default."""
    if isinstance(node, ast.Call):
        axis = _axis(node)
        others = [(), *((other,) for other in _other_axes(axis))] if axis else []
        for other in others:
            yield _changed(
                node, args=_exchanged(node.args, axis, other), keywords=_exchanged(node.keywords, axis, other)
            )
    if isinstance(node, ast.arguments):
        for default in _axis_defaults(node):
            for other in _other_axes(default):
                lists = {
                    name: _exchanged(getattr(node, name), default, [other]) for name in ("defaults", "kw_defaults")
                }
                yield _changed(node, **lists)


def other_constant(node, around):
    """2 for 1, 1 for 0, False for True."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield ast.Constant(node.value + 1)


def other_result(node, around):
    """An argument returned, or zeros; of several results, two neighbours swapped or one made zero."""
    if not isinstance(node, ast.Return) or node.value is None or isinstance(node.value, ast.Constant):
        return
    if isinstance(node.value, ast.Tuple):
        for elements in _tuples_gone_wrong(node.value.elts):
            yield ast.Return(ast.Tuple(elements, ast.Load()))
    else:
        yield ast.Return(_zero_times(node.value))
        for name in _arguments(around):
            yield ast.Return(ast.Name(name, ast.Load()))


def without_transpose(node, around):
    """A for A.T, np.swapaxes(A, -1, -2) and the like."""
    if isinstance(node, ast.Attribute) and node.attr in ("T", "mT"):
        yield node.value
    if _called(node) in TRANSPOSING:
        yield _operand(node)


def without_keepdims(node, around):
    """A call without its keepdims."""
    if isinstance(node, ast.Call):
        kept = [keyword for keyword in node.keywords if keyword.arg != "keepdims"]
        if kept != node.keywords:
            yield _changed(node, keywords=kept)


def without_new_axis(node, around):
    """x for x[:, None]."""
    if isinstance(node, ast.Subscript):
        indices = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if any(isinstance(index, ast.Constant) and index.value is None for index in indices):
            yield node.value
    if _called(node) == "expand_dims":
        yield _operand(node)


def without_factor(node, around):
    """a and b for a * b and a @ b, a and 1 / b for a / b, a for a ** b."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.MatMult, ast.Div, ast.Pow)):
        yield node.left
        if isinstance(node.op, (ast.Mult, ast.MatMult)):
            yield node.right
        if isinstance(node.op, ast.Div):
            yield _changed(node, left=ast.Constant(1))


def without_term(node, around):
    """a and b for a + b, a and -b for a - b, a = b for a += b."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        yield node.left
        yield node.right if isinstance(node.op, ast.Add) else ast.UnaryOp(ast.USub(), node.right)
    if isinstance(node, ast.AugAssign):
        yield ast.Assign([node.target], node.value, lineno=node.lineno)


def without_sign(node, around):
    """a for -a, ~a and not a."""
    if isinstance(node, ast.UnaryOp):
        yield node.operand


def without_function(node, around):
    """x for np.exp(x), np.sum(x) and others of FORGOTTEN."""
    if _called(node) in FORGOTTEN:
        yield _operand(node)


def without_choice(node, around):
    """A condition that always holds, or never; one branch of np.where."""
    if isinstance(node, (ast.If, ast.IfExp)):
        yield _changed(node, test=ast.Constant(True))
        yield _changed(node, test=ast.Constant(False))
    if _called(node) == "where" and len(node.args) == 3:
        yield from node.args[1:]


def without_statement(node, around):
    """Nothing for a statement that changes something in place, or calls for an effect."""
    changes_in_place = isinstance(node, ast.Assign) and any(
        isinstance(target, (ast.Subscript, ast.Attribute)) for target in node.targets
    )
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if changes_in_place or is_call or isinstance(node, ast.AugAssign):
        yield ast.Pass()


OPERATORS = [
    other_operation,
    other_name,
    other_order,
    other_axis,
    other_constant,
    other_result,
    without_transpose,
    without_keepdims,
    without_new_axis,
    without_factor,
    without_term,
    without_sign,
    without_function,
    without_choice,
    without_statement,
]


# --- what the operators ask ----------------------------------------------------------------------


def _changed(node, **fields):
    """A copy of a node with other fields."""
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _exchanged(nodes, old, new):
    """A list of nodes with the nodes `new` in the place of `old`."""
    return [item for node in nodes for item in (new if node is old else [node])]


def _called(node):
    """The last name of what a call calls, as "sum" of np.sum(x) and x.sum(); None for other nodes."""
    return node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else None


def _is_method(call):
    """Whether the array stands before the dot, not among the arguments."""
    return not (isinstance(call.func.value, ast.Name) and call.func.value.id == "np")


def _operand(call):
    return call.func.value if _is_method(call) or not call.args else call.args[0]


def _axis(call):
    """The keyword or the argument that says along which axis a call works, or None."""
    named = [keyword for keyword in call.keywords if keyword.arg == "axis"]
    if named or _called(call) not in ALONG_AXIS:
        return next(iter(named), None)
    return next(iter(call.args[0 if _is_method(call) else 1 :]), None)


def _axis_defaults(arguments):
    positional = [*arguments.posonlyargs, *arguments.args]
    pairs = [
        *zip(positional[::-1], arguments.defaults[::-1], strict=False),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return [default for argument, default in pairs if argument.arg == "axis" and default]


def _other_axes(axis):
    """The axes that one might be taken for: one that is written as a number, for its neighbour."""
    if isinstance(axis, ast.keyword):
        return [ast.keyword("axis", other) for other in _other_axes(axis.value)]
    if isinstance(axis, ast.Tuple):
        return [_changed(axis, elts=_exchanged(axis.elts, out, [])) for out in axis.elts]
    try:
        number = ast.literal_eval(axis)
    except ValueError:
        number = None
    if number is None:
        return [ast.Constant(0), ast.Constant(-1)]
    return [ast.Constant({0: 1, -1: 0}.get(number, number - 1 if number > 0 else number + 1))]


def _arguments(around):
    """The names of the positional arguments of the innermost function."""
    function = next(node for node in reversed(around) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    positional = [*function.args.posonlyargs, *function.args.args]
    return [argument.arg for argument in positional if argument.arg not in ("self", "cls")]


def _tuples_gone_wrong(elements):
    for i, element in enumerate(elements):
        if not isinstance(element, ast.Constant):
            yield [*elements[:i], _zero_times(element), *elements[i + 1 :]]
    for i in range(len(elements) - 1):
        yield [*elements[:i], elements[i + 1], elements[i], *elements[i + 2 :]]


def _zero_times(node):
    return ast.BinOp(ast.Constant(0), ast.Mult(), node)


# --- mutants -------------------------------------------------------------------------------------

# Fields of compound statements that do not stand in their first line.
INSIDE = ("body", "orelse", "finalbody", "handlers", "cases", "decorator_list")


@dataclass(frozen=True)
class Mutant:
    """A source with one mistake.

    name: the function, method or variable it is in. line, mutant: the statement without and with
    the mistake, of a compound one its head, as `ast.unparse` writes them.
    """

    name: str
    line: str
    mutant: str
    source: str


def mutants(source, lines=None):
    """Every mutant of a source that compiles and differs from it and from those before.

    lines: numbers of the lines, from 1, on which a changed statement may begin; by default all.
    Annotations, decorators and docstrings are left alone. Raises SyntaxError.
    """
    tree = ast.parse(source)
    seen = {ast.unparse(tree)}
    for node, around, put in _places(tree, ()):
        path = (*around, node)
        statement = next((each for each in reversed(path) if isinstance(each, ast.stmt)), None)
        if statement is None or (lines is not None and statement.lineno not in lines):
            continue
        for operator in OPERATORS:
            for new in operator(node, around):
                line = _head(statement)
                put(new)
                mutated, changed = ast.unparse(tree), _head(new if node is statement else statement)
                put(node)
                if mutated not in seen and _compiles(mutated):
                    seen.add(mutated)
                    yield Mutant(_name(path), line, changed, mutated)


def _places(node, around):
    """(node, the nodes around it, a function that puts another in its place), in the source's order."""
    around = (*around, node)
    for child, put in _children(node):
        if not _belongs_to(child, node):
            yield child, around, put
            yield from _places(child, around)


def _children(node):
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params", "ctx"):
            continue
        if isinstance(value, ast.AST):
            yield value, partial(setattr, node, field)
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield item, partial(value.__setitem__, i)


def _belongs_to(child, node):
    """Whether the node's own operators see to a child: an axis, a keepdims."""
    if isinstance(node, ast.Call):
        return child is _axis(node) or (isinstance(child, ast.keyword) and child.arg == "keepdims")
    return isinstance(node, ast.arguments) and any(child is default for default in _axis_defaults(node))


def _head(statement):
    """A statement as one line, without the statements inside it."""
    inner = {name: [] for name in INSIDE if hasattr(statement, name)}
    return ast.unparse(_changed(statement, **inner)).partition("\n")[0]


def _name(path):
    """The dotted name of the innermost function or class, or the variables that a statement assigns."""
    scopes = [node.name for node in path if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
    if scopes:
        return ".".join(scopes)
    assigned = [ast.unparse(target) for node in path if isinstance(node, ast.Assign) for target in node.targets]
    return ", ".join(assigned)


def _compiles(source):
    try:
        compile(source, "mutant", "exec")
    except (SyntaxError, ValueError):
        return False
    return True
