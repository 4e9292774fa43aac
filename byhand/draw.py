"""The course's figures. Importing this module applies its style and shows figures as SVG and PNG.

Two runs of a figure are byte-identical: the hash salt is fixed and no date is written. The site
shows the SVG; JupyterLab, which does not show stored SVG in a notebook that was not run, the PNG.
"""

import ast
import functools
import re
from pathlib import Path

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
from IPython import get_ipython
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib_inline.backend_inline import set_matplotlib_formats

FORWARD = "#0072B2"  # values and the forward pass
BACKWARD = "#D55E00"  # gradients and the backward pass
INK = "#333333"

WIDTH = 7.0  # inches that a row of matrices may take
CELL = 0.52  # inches of a cell's side where there is room
STACKED = 0.26  # inches of a cell below which matrices stack instead of shrinking
LINED = 0.13  # inches of a cell below which cells have no border
GAP = 0.55  # inches between two matrices
CHARACTER = 0.085  # inches of a printed digit at font size 10
MOST_PRINTED = 200  # entries; more are colour only

plt.style.use(Path(__file__).with_name("course.mplstyle"))
if get_ipython() is not None:
    set_matplotlib_formats("svg", "png", metadata={"Date": None})

SIGNED = LinearSegmentedColormap.from_list("byhand", ["#5E3C99", "#B2ABD2", "#FFFFFF", "#FDC77D", "#E08214"])
SIGNED = SIGNED.with_extremes(bad="#DDDDDD")  # nan and inf are off the scale, and are not zero


# --- matrices ------------------------------------------------------------------------------------


def matrices(*, rows=None, columns=None, **named):
    """Draw named matrices side by side, in one colour scale centred on zero.

    The colour's strength goes with the square root of an entry's size, so that small entries can be
    told from zeros. Below each matrix stands its shape.

    named: arrays of at most two axes, or numbers, of floats, integers or booleans. A vector is
    drawn as a column. Entries are printed where they fit; nan and inf are grey. rows, columns:
    labels of the rows and columns, in one string ("y0 y1"), or a dict of such strings by the
    matrix's name; "" for none.

    Returns the matplotlib figure; end the cell with `plt.show()`.
    Raises ValueError for an array of more axes, with no entry or with entries that are no numbers,
    for labels of another number than the rows or columns, and for a label of an unknown matrix.
    Raises TypeError for labels that are not one string.
    """
    if not named:
        raise ValueError("matrices() has nothing to draw: write matrices(dy_dx=J).")
    panels = [_panel(name, value) for name, value in named.items()]
    row_labels = _labels("rows", rows, panels, axis=0)
    column_labels = _labels("columns", columns, panels, axis=1)
    lines = _lines_of(panels, row_labels)
    cell = min(_cell_size(line, row_labels) for line in lines)
    values = np.concatenate([matrix[np.isfinite(matrix)] for _, matrix, _ in panels])
    limit = np.abs(values).max(initial=0) or 1.0
    figure = plt.figure()
    _place(figure, lines, cell, limit, row_labels, column_labels)
    return figure


def _panel(name, value):
    """(name, the float matrix to draw, the texts of its entries)."""
    array = np.asarray(value.detach() if hasattr(value, "detach") else value)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"matrices() draws numbers; {name} holds {array.dtype}.")
    if array.ndim > 2:
        raise ValueError(f"matrices() draws at most two axes; {name} has shape {array.shape}. Flatten or slice it.")
    if array.size == 0:
        raise ValueError(f"matrices() cannot draw {name}: its shape {array.shape} has no entry.")
    matrix = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
    texts = [[_text(entry) for entry in row] for row in matrix] if matrix.size <= MOST_PRINTED else []
    return name, matrix.astype(float), texts


def _text(entry):
    """A number in as few characters as a reader needs."""
    if isinstance(entry, (np.bool_, np.integer)):
        return str(int(entry))
    if not np.isfinite(entry):
        return str(entry)
    text = f"{entry:.2f}" if 0.005 <= abs(entry) < 1000 else f"{entry:.0e}" if entry else "0"
    text = text.replace("e-0", "e-").replace("e+0", "e")
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def _labels(kind, given, panels, axis):
    """The labels of each panel's rows or columns, by name."""
    if given is None:
        return {}
    by_name = given if isinstance(given, dict) else {name: given for name, _, _ in panels}
    unknown = sorted(set(by_name) - {name for name, _, _ in panels})
    if unknown:
        raise ValueError(f"{kind} names {', '.join(unknown)}, which is not drawn.")
    for text in by_name.values():
        if not isinstance(text, str):
            raise TypeError(f'{kind} are labels in one string, {kind}="a b"; this is a {type(text).__name__}.')
    found = {name: text.split() for name, text in by_name.items() if text}
    for name, matrix, _ in panels:
        if name in found and len(found[name]) != matrix.shape[axis]:
            raise ValueError(f"{name} has {matrix.shape[axis]} {kind}, but {len(found[name])} labels.")
    return found


@functools.cache
def _inches(text, size, family="sans-serif"):
    """How wide a text is at a font size."""
    return TextPath((0, 0), text, size=size, prop=FontProperties(family=[family])).get_extents().x1 / 72


def _name_width(name):
    return _inches(name, 11, "monospace")


def _margin(name, row_labels):
    """Inches that the row labels of a panel take."""
    return max((max(len(label) * CHARACTER, _inches(label, 9)) for label in row_labels.get(name, [])), default=0)


def _lines_of(panels, row_labels):
    """The panels in lines, each as full as cells of readable size allow."""
    lines = [[]]
    for panel in panels:
        if lines[-1] and _cell_size([*lines[-1], panel], row_labels) < STACKED:
            lines.append([])
        lines[-1].append(panel)
    return lines


def _cell_size(line, row_labels):
    """The largest cell at which the matrices of a line, their labels and names fit side by side."""
    room = WIDTH - GAP * (len(line) - 1) - sum(_margin(name, row_labels) for name, _, _ in line)
    widths = [(matrix.shape[1], _name_width(name) if len(line) > 1 else 0) for name, matrix, _ in line]
    cell = min(CELL, WIDTH / max(matrix.shape[0] for _, matrix, _ in line))
    for _ in line:  # each round may find one more name that is wider than its matrix
        names = sum(name for columns, name in widths if name > columns * cell)
        columns = sum(columns for columns, name in widths if name <= columns * cell)
        if names > room:
            return 0.02
        if columns:
            cell = min(cell, (room - names) / columns)
    return max(cell, 0.02)


def _place(figure, lines, cell, limit, row_labels, column_labels):
    """Lay the panels out in inches, line by line, and draw them."""
    heights = [max(matrix.shape[0] for _, matrix, _ in line) * cell for line in lines]
    headrooms = [_headroom(line, column_labels, cell) for line in lines]
    below = 0.25
    total = sum(heights) + sum(headrooms) + below * len(lines)
    figure.set_size_inches(WIDTH, total)
    top = total
    for line, headroom, height in zip(lines, headrooms, heights, strict=True):
        top -= headroom
        left = 0.0
        for name, matrix, texts in line:
            left += _margin(name, row_labels)
            width, depth = matrix.shape[1] * cell, matrix.shape[0] * cell
            bottom = top - (height + depth) / 2
            box = figure.add_axes((left / WIDTH, bottom / total, width / WIDTH, depth / total))
            _draw(box, name, matrix, texts, cell, limit)
            _label(box, row_labels.get(name, []), column_labels.get(name, []), cell)
            left += max(width, _name_width(name)) + GAP
        top -= height + below


def _headroom(line, column_labels, cell):
    """Inches that the names and column labels of a line take."""
    labels = max(_column_labels(column_labels.get(name, []), cell)[0] for name, _, _ in line)
    return max(0.62, labels + 0.35) if column_labels else 0.38


def _draw(box, name, matrix, texts, cell, limit):
    rows, columns = matrix.shape
    lined = cell > LINED
    box.pcolormesh(
        _strength(np.ma.masked_invalid(matrix), limit),
        cmap=SIGNED,
        vmin=-1,
        vmax=1,
        edgecolors="#CCCCCC" if lined else "none",
        linewidth=0.6 if lined else 0,
        rasterized=matrix.size > 1000,
    )
    box.set(xlim=(0, columns), ylim=(rows, 0), xticks=[], yticks=[])
    box.spines[:].set(visible=True, color=INK, linewidth=0.8)
    box.set_title(name, family="monospace", loc="left", pad=5)
    box.set_xlabel(f"{rows} × {columns}", fontsize=8, color="#595959", labelpad=3)
    size = _font_size(texts, cell)
    if size is None:
        return
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            is_dark = np.isfinite(matrix[i, j]) and _strength(matrix[i, j], limit) < -0.7
            colour = "white" if is_dark else "#767676" if matrix[i, j] == 0 else INK
            box.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=size, color=colour)


def _strength(entries, limit):
    """Where entries stand on the colour scale, from -1 to 1."""
    return np.sign(entries) * np.sqrt(np.abs(entries) / limit)


def _font_size(texts, cell):
    """The size at which every entry fits its cell, or None where that is too small to read."""
    if not texts:
        return None
    distinct = {text for row in texts for text in row}
    longest, widest = max(map(len, distinct)), max(_inches(text, 10) for text in distinct)
    size = min(10.0, 10 * 0.9 * cell / (longest * CHARACTER), 10 * 0.85 * cell / widest, 72 * 0.7 * cell)
    return size if size >= 6 else None


def _label_size(cell):
    return min(9.0, 72 * 0.8 * cell)


def _column_labels(labels, cell):
    """(inches that column labels take above their matrix, whether they must be turned to fit)."""
    longest = max((_inches(label, _label_size(cell)) for label in labels), default=0)
    turned = longest > 0.92 * cell
    return (longest if turned else 0.12), turned


def _label(box, rows, columns, cell):
    size = _label_size(cell)
    for i, label in enumerate(rows):
        box.annotate(
            label,
            (0, i + 0.5),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=size,
        )
    height, turned = _column_labels(columns, cell)
    for j, label in enumerate(columns):
        box.annotate(
            label,
            (j + 0.5, 0),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=size,
            rotation=90 if turned else 0,
        )
    if columns:
        box.set_title(box.get_title(loc="left"), family="monospace", loc="left", pad=72 * height + 11)


# --- computational graphs ------------------------------------------------------------------------

STEP = 0.92  # inches from one layer of gates to the next
ROW = 0.78  # inches from one row of inputs to the next
GATE = 0.19  # inches of a gate's radius
SYMBOLS = {ast.Add: "+", ast.Sub: "−", ast.Mult: "×", ast.Div: "÷", ast.Pow: "^", ast.MatMult: "@"}


def graph(steps, values=None, gradients=None):
    """Draw a computational graph from left to right, one gate for each operation.

    steps: lines of Python as "q = x + y", one assignment each; expressions may be nested, and a
    constant becomes part of its gate ("+1", "1/d"). values, gradients: dicts of numbers by name; a
    wire carries the value above it, in blue, and the gradient below it, in vermilion. A value that
    is used more than once forks at a dot; the gradient of one branch is named "x->q". What is not
    given is not drawn, so a graph can be built up figure by figure. After an empty line the graph
    goes on in a strip below, where the names of earlier strips are inputs: a long one stays narrow.

    Returns the matplotlib figure; end the cell with `plt.show()`.
    Raises ValueError for a line that is no such assignment, a name assigned twice or used before
    its step, and for a value or gradient of a name that the graph does not have.
    """
    circuit = _circuit(steps)
    values, gradients = values or {}, gradients or {}
    branches = {f"{circuit.nodes[a]['name']}->{circuit.nodes[b]['name']}" for a, b in circuit.edges}
    names = {data["name"] for _, data in circuit.nodes(data=True)}
    unknown = [key for key in [*values, *gradients] if key not in names | branches]
    if unknown:
        raise ValueError(f"graph() has no {', '.join(map(str, unknown))}; it has {', '.join(sorted(names - {''}))}.")
    circuit, places = _strips(steps)
    return _draw_circuit(circuit, places, values, gradients)


def _strips(steps):
    """The strips between empty lines, each a circuit of its own, one below the other: (circuit, places)."""
    circuit, places, top = nx.DiGraph(), {}, 0.0
    for strip in re.split(r"\n\s*\n", steps.strip()):
        part = nx.convert_node_labels_to_integers(_circuit(strip), first_label=len(circuit))
        here = _places(part)
        shift = top - max(y for _, y in here.values())
        places |= {node: (x, y + shift) for node, (x, y) in here.items()}
        top = min(places[node][1] for node in part) - ROW - 0.2
        circuit.update(part)
    return circuit, places


def _circuit(steps):
    """The steps as a directed graph: nodes have a name ("" inside an expression) and a symbol."""
    circuit, known = nx.DiGraph(), {}
    for number, line in enumerate(filter(None, map(str.strip, steps.splitlines())), 1):
        try:
            (step,) = ast.parse(line).body
            (target,) = step.targets
            name, expression = target.id, step.value
        except (SyntaxError, ValueError, AttributeError):
            raise ValueError(f"graph(): step {number}, {line!r}, is not of the form 'q = x + y'.") from None
        node = _add(circuit, expression, known, line)
        if name in known:
            raise ValueError(f"graph(): step {number} assigns {name} again, or after it was used.")
        known[name] = node
        circuit.nodes[known[name]]["name"] = name
    if not circuit:
        raise ValueError("graph() has nothing to draw: give it steps such as 'q = x + y'.")
    return circuit


def _add(circuit, expression, known, line):
    """Add an expression's gates; returns the node of its result."""
    if isinstance(expression, ast.Name):
        if expression.id not in known:
            known[expression.id] = len(circuit)
            circuit.add_node(known[expression.id], name=expression.id, symbol="")
        return known[expression.id]
    symbol, arguments = _gate(expression, line)
    sources = [_add(circuit, argument, known, line) for argument in arguments]
    node = len(circuit)
    circuit.add_node(node, name="", symbol=symbol)
    for source in sources:
        circuit.add_edge(source, node, times=sources.count(source))
    return node


def _gate(expression, line):
    """(symbol, arguments that are wires) of one operation."""
    if isinstance(expression, ast.UnaryOp) and isinstance(expression.op, ast.USub):
        return "×−1", [expression.operand]
    if isinstance(expression, ast.Call) and isinstance(expression.func, ast.Name):
        return expression.func.id, expression.args
    if isinstance(expression, ast.BinOp) and type(expression.op) in SYMBOLS:
        symbol, left, right = SYMBOLS[type(expression.op)], expression.left, expression.right
        if isinstance(right, ast.Constant):
            return f"{symbol}{right.value}", [left]
        if isinstance(left, ast.Constant):
            if isinstance(expression.op, (ast.Add, ast.Mult)):
                return f"{symbol}{left.value}", [right]
            operand = right.id if isinstance(right, ast.Name) else "x"
            return f"{left.value}{'/' if symbol == '÷' else symbol}{operand}", [right]
        return symbol, [left, right]
    raise ValueError(f"graph() cannot draw {ast.unparse(expression)!r} in {line!r}.")


def _places(circuit):
    """(x, y) in inches of each node: gates by layer, inputs in rows at the left, no two at one place."""
    layers = {node: n for n, layer in enumerate(nx.topological_generations(circuit)) for node in layer}
    inputs = [node for node in circuit if circuit.in_degree(node) == 0]
    rows = {node: float(-row) for row, node in enumerate(inputs)}
    for node in nx.topological_sort(circuit):
        if node not in rows:
            rows[node] = float(np.mean([rows[source] for source in circuit.predecessors(node)]))
            while any(
                layers[other] == layers[node] and abs(rows[other] - rows[node]) < 0.9 for other in rows if other != node
            ):
                rows[node] -= 0.5
    return {node: (layers[node] * STEP, rows[node] * ROW) for node in circuit}


def _draw_circuit(circuit, places, values, gradients):
    columns, rows = zip(*places.values(), strict=True)
    margin, tail = 0.3, 0.8
    width, height = max(columns) + margin + tail, max(rows) - min(rows) + 0.75
    figure = plt.figure(figsize=(width, height))
    box = figure.add_axes((0, 0, 1, 1))
    box.set(xlim=(-margin, width - margin), ylim=(min(rows) - 0.35, max(rows) + 0.4))
    box.axis("off")
    write = _number_writer([*values.values(), *gradients.values()])
    for node in circuit:
        _draw_output(box, circuit, places, node)
        _draw_node(box, circuit.nodes[node], places[node])
        _draw_numbers(box, circuit, places, node, values, gradients, write)
    return figure


def _number_writer(numbers):
    """All numbers of a figure with two decimals, or as integers where all of them are."""
    whole = all(float(number).is_integer() for number in numbers)

    def write(number):
        text = f"{float(number):.0f}" if whole else f"{float(number):.2f}"
        return text.replace("-", "−")

    return write


def _is_input(circuit, node):
    return circuit.in_degree(node) == 0


def _stem(circuit, places, node):
    """(start, end) along x of the part of a node's wire that carries its numbers, and its y."""
    x, y = places[node]
    start = x + (0.05 if _is_input(circuit, node) else GATE)
    return start, start + STEP - GATE - 0.24, y


def _draw_output(box, circuit, places, node):
    """The wire from a node to the gates that use it, with a dot where it forks."""
    start, end, y = _stem(circuit, places, node)
    users = [user for user in circuit.successors(node) for _ in range(circuit.edges[node, user]["times"])]
    if not users:
        arrow = {"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0}
        box.annotate("", (end + 0.1, y), (start, y), arrowprops=arrow)
        return
    if len(users) > 1:
        end = start + 0.46
        box.plot(end, y, "o", color=INK, markersize=5)
    box.plot([start, end], [y, y], color=INK, linewidth=1.2)
    bends = {1: [0.0], 2: [0.35, -0.35]}
    for user in circuit.successors(node):
        times = circuit.edges[node, user]["times"]
        for bend in bends.get(times, np.linspace(-0.4, 0.4, times)):
            _draw_branch(box, (end, y), places[user], bend)


def _draw_branch(box, start, gate, bend):
    """From a wire's end into a gate; past other gates it runs level until shortly before its own."""
    x, y = start
    if gate[0] - x > STEP:
        x = gate[0] - GATE - 0.24
        box.plot([start[0], x], [y, y], color=INK, linewidth=1.2)
    line = {"arrowstyle": "-", "color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 72 * GATE}
    box.annotate("", gate, (x, y), arrowprops=line | {"connectionstyle": f"arc3,rad={bend}"})


def _draw_node(box, node, place):
    x, y = place
    if not node["symbol"]:
        box.text(x - 0.02, y, node["name"], family="monospace", ha="right", va="center", fontsize=12)
        return
    box.add_patch(plt.Circle(place, GATE, facecolor="white", edgecolor=INK, linewidth=1.2, zorder=3))
    size = 14 if len(node["symbol"]) == 1 else min(9.0, 9 * 1.65 * GATE / _inches(node["symbol"], 9))
    box.text(x, y, node["symbol"], ha="center", va="center_baseline", fontsize=size, zorder=4)
    # A wire may pass behind a name; the white leaves it readable.
    white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    box.text(x, y + GATE + 0.05, node["name"], family="monospace", ha="center", fontsize=10, bbox=white, zorder=3)


def _draw_numbers(box, circuit, places, node, values, gradients, write):
    start, end, y = _stem(circuit, places, node)
    name, middle = circuit.nodes[node]["name"], (start + end) / 2
    if name in values:
        box.text(middle, y + 0.05, write(values[name]), color=FORWARD, ha="center", va="bottom", fontsize=10.5)
    if name in gradients:
        box.text(middle, y - 0.06, write(gradients[name]), color=BACKWARD, ha="center", va="top", fontsize=10.5)
    for user in circuit.successors(node):
        branch = gradients.get(f"{name}->{circuit.nodes[user]['name']}")
        if branch is not None:
            x, height, side = _beside_branch((start + 0.46, y), places[user], len(write(branch)))
            box.text(x, height, write(branch), color=BACKWARD, ha="right", va=side, fontsize=10.5)


def _beside_branch(dot, gate, length):
    """Where the gradient of one branch of a fork ends, and which side of the text is there.

    Below a long branch and left of a steep one. A short level branch has no room below, where the sum of
    the gradients stands: above it, and above the value too where the text is long.
    """
    if gate[0] - dot[0] > STEP:
        return gate[0] - GATE - 0.26, dot[1] - 0.05, "top"
    if abs(gate[1] - dot[1]) < GATE:
        return gate[0] - GATE, dot[1] + (0.05 if length < 4 else 0.21), "bottom"
    return (dot[0] + gate[0]) / 2 - 0.08, (dot[1] + gate[1]) / 2, "top"


__all__ = ["BACKWARD", "FORWARD", "INK", "graph", "matrices", "plt"]
