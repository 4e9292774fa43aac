"""Figures that answer: sliders that move the numbers of matrices, and a circuit that is stepped through.

A figure is a picture (SVG, as the source of an image with an alt text) and a few lines of script that
bring it to life. Where no script runs, as on paper or in a JupyterLab before its cell is run, the
picture stays. Nothing is loaded, and the same arguments give the same text.
"""

import hashlib
import html
import json
import math

import networkx as nx
import numpy as np

from byhand.draw import BACKWARD, FORWARD, INK, _circuit, _places

CELL, GAP = 52, 34  # pixels of a matrix entry's side, and between two matrices
STOPS = [(94, 60, 153), (178, 171, 210), (255, 255, 255), (253, 199, 125), (224, 130, 20)]  # as draw.SIGNED
DARK = -0.7  # strength of a negative entry from which on its text is white


class Figure:
    """An interactive figure; as a cell's last line it is shown."""

    def __init__(self, text):
        self.text = text

    def _repr_html_(self):
        return self.text

    def __repr__(self):
        return "an interactive figure"


def sliders(start, compute, script, *, alt, rows="", columns="", span=(-3, 3), step=0.1, limit=1.0):
    """Matrices whose numbers follow sliders.

    start: dict of the inputs' names and values. compute: a Python function of the inputs, an array
    (n,), that gives a dict of named vectors and matrices: the picture. script: the body of the same
    function in JavaScript, where `x` is the list of inputs; it returns the same numbers in the same
    order, nested or not. alt: what the picture shows. rows, columns: labels in one string ("y0 y1"),
    beside each matrix with as many rows, and above each with as many columns. span, step: of the
    sliders. limit: the size at which the colour of an output is full.

    Returns a Figure; make it the cell's last line.
    Raises ValueError for a start outside the span or off its steps, and for an alt text that says nothing.
    """
    _require_alt("sliders", alt)
    for name, value in start.items():
        steps = (value - span[0]) / step
        if not span[0] <= value <= span[1] or abs(steps - round(steps)) > 1e-6:
            raise ValueError(f"sliders(): {name} starts at {value}, which is no step of {step} in {span}.")
    x = np.array(list(start.values()), dtype=float)
    panels = {"x": x, **compute(x)}
    limits = {name: limit for name in panels} | {"x": max(map(abs, span))}
    drawing = _matrices(panels, rows.split(), columns.split(), list(start), limits)
    setting = {"names": list(start), "at": [float(v) for v in x], "span": span, "step": step, "limit": limit}
    return _figure(drawing, alt, f"const s={json.dumps(setting)},f=x=>{{{script.strip()}}};{SLIDERS}")


SLIDERS = """
const box=root.insertAdjacentElement("afterbegin",document.createElement("div"));
box.style="display:flex;flex-wrap:wrap;gap:4px 20px;margin-bottom:8px";
const digits=(String(s.step).split(".")[1]||"").length,x=[...s.at];
box.innerHTML=s.names.map((n,k)=>`<label style="display:flex;align-items:center;gap:8px;min-height:28px">${n}
<input type="range" min="${s.span[0]}" max="${s.span[1]}" step="${s.step}" value="${s.at[k]}"
 style="width:130px;accent-color:#0072B2">
<output style="width:2.5em;font-variant-numeric:tabular-nums"></output></label>`).join("");
const rects=svg.querySelectorAll("rect"),texts=svg.querySelectorAll(".v"),outs=box.querySelectorAll("output");
const far=Math.max(...s.span.map(Math.abs)),paint=()=>[...x,...[f(x)].flat(9)].forEach((v,i)=>{
const p=Math.sign(v)*Math.sqrt(Math.min(1,Math.abs(v)/(i<x.length?far:s.limit))),
k=Math.min(3,Math.floor(2*p+2)),m=2*p+2-k,t=v.toFixed(2);
rects[i].setAttribute("fill",`rgb(${STOPS[k].map((c,j)=>Math.floor(c+m*(STOPS[k+1][j]-c)+.5))})`);
texts[i].textContent=Number(t)?t:"0.00";texts[i].setAttribute("fill",p<DARK?"#fff":"INK")});
const read=()=>outs.forEach((o,k)=>o.value=x[k].toFixed(digits));
box.querySelectorAll("input").forEach((e,k)=>e.oninput=()=>{x[k]=+e.value;read();paint()});read()
"""
SLIDERS = SLIDERS.replace("STOPS", json.dumps(STOPS).replace(" ", "")).replace("DARK", str(DARK)).replace("INK", INK)


def _matrices(panels, rows, columns, inputs, limits):
    """The panels side by side, as SVG; the entries stand in reading order."""
    pieces, left, depth = [], 0, max(len(value) for value in panels.values())
    for name, value in panels.items():
        matrix = np.asarray(value, dtype=float)
        matrix = matrix.reshape(len(matrix), -1)
        row_labels = inputs if name == "x" else rows
        if len(row_labels) == len(matrix):
            left += 26
            pieces += [_text(left - 7, 49 + (i + 0.5) * CELL, t, anchor="end") for i, t in enumerate(row_labels)]
        labelled = len(columns) == matrix.shape[1] > 1
        pieces.append(_text(left, 14 if labelled else 35, name, anchor="start", family="monospace"))
        if labelled:
            pieces += [_text(left + (j + 0.5) * CELL, 36, t) for j, t in enumerate(columns)]
        for (i, j), entry in np.ndenumerate(matrix):
            pieces.append(_entry(left + j * CELL, 44 + i * CELL, entry, limits[name]))
        left += matrix.shape[1] * CELL + GAP
    return _svg(left - GAP + 2, 46 + depth * CELL, "".join(pieces))


def _entry(x, y, value, limit):
    strength = math.copysign(math.sqrt(min(1, abs(value) / limit)), value)
    k = min(3, math.floor(2 * strength + 2))
    mix = 2 * strength + 2 - k
    colour = ",".join(str(math.floor(a + mix * (b - a) + 0.5)) for a, b in zip(STOPS[k], STOPS[k + 1], strict=True))
    text = f"{value:.2f}"
    text = text if float(text) else "0.00"
    ink = "#fff" if strength < DARK else INK
    return (
        f"<rect x='{x}' y='{y}' width='{CELL}' height='{CELL}' fill='rgb({colour})' stroke='#ccc'/>"
        f"<text class='v' x='{x + CELL // 2}' y='{y + CELL // 2 + 5}' fill='{ink}'>{text}</text>"
    )


# --- a circuit, step by step ---------------------------------------------------------------------


def stepper(steps, values, gradients, *, alt):
    """A computational graph that is walked through, forward and then backward, a gate at a click.

    steps, values, gradients: as for `byhand.draw.graph`. Each click shows what one gate computes:
    forward its value, backward the gradients of what flows into it. alt: what the picture shows.

    Returns a Figure; make it the cell's last line. Raises ValueError as `graph` does, for a name
    that the graph does not have, and for an alt text that says nothing.
    """
    _require_alt("stepper", alt)
    circuit = _circuit(steps)
    names = {data["name"]: node for node, data in circuit.nodes(data=True) if data["name"]}
    unknown = [key for key in [*values, *gradients] if any(part not in names for part in str(key).split("->"))]
    if unknown:
        raise ValueError(f"stepper() has no {', '.join(map(str, unknown))}; it has {', '.join(sorted(names))}.")
    gates = [node for node in nx.topological_sort(circuit) if circuit.in_degree(node)]
    forward = {node: k for k, node in enumerate(gates, 1)}
    backward = {node: 2 * len(gates) + 2 - k for node, k in forward.items()}  # the loss's own gradient comes first
    drawing = _drawn(circuit, values, gradients, names, forward, backward)
    return _figure(drawing, alt, f"const last={2 * len(gates) + 1},gates={len(gates)};{STEPPER}")


STEPPER = """
let k=0;const box=root.insertAdjacentElement("afterbegin",document.createElement("div"));
box.style="display:flex;align-items:center;gap:10px;margin-bottom:8px";
box.innerHTML='<button type="button">Back</button><button type="button">Next</button><output></output>';
const [back,next]=box.querySelectorAll("button"),out=box.querySelector("output");
for(const b of [back,next])b.style="font:inherit;color:#333;background:#eee;border:1px solid #777;"+
"border-radius:6px;padding:4px 14px";
const show=()=>{svg.querySelectorAll("[data-k]").forEach(e=>e.style.visibility=+e.dataset.k>k?"hidden":"");
svg.querySelectorAll("circle").forEach(e=>e.setAttribute("fill",k&&(k==+e.dataset.f||k==+e.dataset.b)?"#FDC77D":"#fff"));
out.value=!k?"start":k<=gates?`forward ${k} of ${gates}`:`backward ${k-gates} of ${last-gates}`;};
const go=d=>{k=Math.max(0,Math.min(last,k+d));show()};
back.onclick=()=>go(-1);next.onclick=()=>go(1);svg.onclick=()=>go(1);svg.style.cursor="pointer";show()
"""


def _drawn(circuit, values, gradients, names, forward, backward):
    """The circuit as SVG. data-k: the step from which on a number is seen."""
    places = {node: (int(40 + 104 * x), int(-88 * y)) for node, (x, y) in _places(circuit).items()}
    top = min(y for _, y in places.values()) - 48
    places = {node: (x, y - top) for node, (x, y) in places.items()}
    pieces = []
    for source, gate in circuit.edges:
        (x, y), (u, v) = places[source], places[gate]
        pieces.append(f"<path d='M{x + 8} {y}H{x + 44}L{u} {v}' fill='none' stroke='{INK}'/>")
    for node, (x, y) in places.items():
        name, symbol = circuit.nodes[node]["name"], circuit.nodes[node]["symbol"]
        last = not circuit.out_degree(node)
        if last:
            pieces.append(f"<path d='M{x} {y}h66' stroke='{INK}'/>")
        if symbol:
            marks = f"data-f='{forward[node]}' data-b='{backward[node]}'"
            pieces.append(f"<circle cx='{x}' cy='{y}' r='19' fill='white' stroke='{INK}' {marks}/>")
            pieces.append(_text(x, y + 5, symbol) + _text(x, y - 26, name, family="monospace"))
        else:
            pieces.append(_text(x - 2, y + 5, name, anchor="end", family="monospace"))
        shown = max((backward[user] for user in circuit.successors(node)), default=len(forward) + 1)
        if name in values:
            pieces.append(_number(x + 38, y - 7, values[name], FORWARD, forward.get(node, 0)))
        if name in gradients:
            pieces.append(_number(x + 38, y + 18, gradients[name], BACKWARD, shown))
        for user in circuit.successors(node):
            key = f"{name}->{circuit.nodes[user]['name']}"
            if key in gradients:
                (u, v), k = places[user], backward[user]
                pieces.append(_number((x + 44 + u) // 2, (y + v) // 2 + 18, gradients[key], BACKWARD, k))
    width = max(x for x, _ in places.values()) + 80
    return _svg(width, max(y for _, y in places.values()) + 40, "".join(pieces))


def _number(x, y, value, colour, k):
    text = f"{value:.4g}".replace("-", "−")
    return f"<text x='{x}' y='{y}' fill='{colour}' data-k='{k}'>{text}</text>"


# --- what both share -----------------------------------------------------------------------------


def _require_alt(function, alt):
    if len(alt) < 20:
        raise ValueError(f"{function}(): write in alt what the picture shows, in a sentence.")


def _text(x, y, text, anchor="", family=""):
    anchor = f" text-anchor='{anchor}'" if anchor else ""
    family = f" font-family='{family}'" if family else ""
    return f"<text x='{x:g}' y='{y:g}'{anchor}{family}>{html.escape(text)}</text>"


def _svg(width, height, content):
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' "
        f"font-family='DejaVu Sans,Arial,sans-serif' font-size='13' text-anchor='middle' fill='{INK}'>{content}</svg>"
    )


def _figure(drawing, alt, script):
    """The picture and its script. The script draws into the picture's own SVG, which it takes from the image.

    JupyterLab takes the arrow keys for itself, unless the focus is on an element with data-lm-suppress-shortcuts.
    """
    source = drawing.replace("%", "%25").replace("#", "%23").replace("&", "&amp;")  # it holds no double quote
    name = "byhand-" + hashlib.sha256((drawing + alt + script).encode()).hexdigest()[:12]
    script = "".join(script.splitlines())
    return Figure(
        f'<div id="{name}" class="byhand-figure" '
        f'style="background:#fff;color:{INK};padding:8px;border-radius:8px">'
        f'<img alt="{html.escape(alt)}" src="data:image/svg+xml,{source}" style="max-width:100%;height:auto">'
        f'<script>(root=>{{const img=root.querySelector("img"),svg=document.createRange().createContextualFragment('
        f'decodeURIComponent(img.getAttribute("src").slice(19))).firstChild;svg.setAttribute("role","img");'
        f'svg.setAttribute("aria-label",img.alt);svg.style="max-width:100%;height:auto";img.replaceWith(svg);'
        f'{script};for(const e of root.querySelectorAll("input,button"))e.dataset.lmSuppressShortcuts=""'
        f'}})(document.getElementById("{name}"))</script></div>'
    )
