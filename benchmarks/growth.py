"""What the explicit Jacobian costs beside the closed form of the VJP, as the input grows.

    python benchmarks/growth.py

Three rules: sin (elementwise), softmax of one vector, and the matrix product of two n x n matrices,
seen from X. For each n the VJP is computed twice, by the taught closed form and by building the taught
Jacobian and multiplying, and both must agree. Time is the least of several runs, memory the peak that
tracemalloc sees (NumPy reports its arrays to it). The exponents are slopes of a least-squares line
through the larger half of the points, in logarithms. Prints a Markdown table and writes
site/_static/growth.svg, the picture in the README.
"""

import time
import tracemalloc

import numpy as np
from threadpoolctl import threadpool_limits

from byhand.draw import BACKWARD, FORWARD, plt
from byhand.notebooks import ROOT
from byhand.taught import taught

PICTURE = ROOT / "site" / "_static" / "growth.svg"
rng = np.random.default_rng(0)


def sin(n):
    rules, x, dy = taught("21-elementwise"), *rng.normal(size=(2, n))
    y = rules.sin(x)
    return lambda: rules.sin_vjp(dy, y, x), lambda: dy @ rules.sin_jacobian(x)


def softmax(n):
    rules, x, dy = taught("51-softmax"), *rng.normal(size=(2, n))
    y = rules.softmax(x)
    return lambda: rules.softmax_vjp(dy, y, x), lambda: dy @ rules.softmax_jacobian(x)


def matmul(n):
    rules, X, W, dY = taught("42-matmul"), *rng.normal(size=(3, n, n))
    Y = rules.matmul(X, W)
    jacobian = lambda: (dY.ravel() @ rules.matmul_jacobians(X, W)[0]).reshape(n, n)  # noqa: E731
    return lambda: rules.matmul_vjp(dY, Y, X, W)[0], jacobian


RULES = {
    "sin": (sin, [2**k for k in range(4, 14)], "n numbers"),
    "softmax": (softmax, [2**k for k in range(4, 14)], "n scores"),
    "matmul": (matmul, [4, 6, 8, 12, 16, 24, 32, 48, 64], "n x n matrices"),
}
LARGE = {"sin": [2**k for k in range(14, 23)], "softmax": [2**k for k in range(14, 23)], "matmul": [96, 128, 256, 512]}


def seconds(f):
    f()
    runs, start = [], time.perf_counter()
    while len(runs) < 5 or (time.perf_counter() - start < 0.2 and len(runs) < 2000):
        before = time.perf_counter()
        f()
        runs.append(time.perf_counter() - before)
    return min(runs)


def peak(f):
    """Bytes, at their most, of what a call allocates."""
    tracemalloc.start()
    f()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def exponent(sizes, values):
    half = len(sizes) // 2
    return np.polyfit(np.log(sizes[half:]), np.log(values[half:]), 1)[0]


def measured(name):
    """{"VJP" or "Jacobian": (sizes, seconds, bytes)}"""
    rule, sizes, _ = RULES[name]
    rows = {"VJP": [], "Jacobian": []}
    for n in sizes:
        closed, explicit = rule(n)
        np.testing.assert_allclose(closed(), explicit(), rtol=1e-7, atol=1e-9)
        for way, f in (("VJP", closed), ("Jacobian", explicit)):
            rows[way].append((n, seconds(f), peak(f)))
    for n in LARGE[name]:  # only the closed form goes on
        closed, _ = rule(n)
        rows["VJP"].append((n, seconds(closed), peak(closed)))
    return {way: np.array(row).T for way, row in rows.items()}


def main():
    found = {name: measured(name) for name in RULES}
    print("| rule | n | VJP | Jacobian | VJP | Jacobian | exponents of n: time | memory |")
    print("|---" * 8 + "|")
    for name, ways in found.items():
        n = RULES[name][1][-1]
        at = {way: rows[1:, list(rows[0]).index(n)] for way, rows in ways.items()}
        time_of, memory_of = (", ".join(f"{exponent(rows[0], rows[k]):.1f}" for rows in ways.values()) for k in (1, 2))
        times = " | ".join(f"{1e6 * t:,.0f} µs" for t, _ in at.values())
        sizes = " | ".join(f"{m / 2**20:,.2f} MiB" for _, m in at.values())
        print(f"| {name}, {RULES[name][2]} | {n:,} | {times} | {sizes} | {time_of} | {memory_of} |")
    draw(found)


def draw(found):
    figure, panels = plt.subplots(1, 3, figsize=(9, 3), layout="constrained", sharey=True)
    for panel, (name, ways) in zip(panels, found.items(), strict=True):
        for (way, (n, _, memory)), colour, mark in zip(ways.items(), (FORWARD, BACKWARD), "os", strict=True):
            panel.loglog(n, memory, f"{mark}-", color=colour, markersize=4)
            power = round(exponent(n, memory))
            words = f"{way}: $n^{power}$" if power > 1 else f"{way}: $n$"
            panel.annotate(words, (n[-1], memory[-1]), (-4, 6), textcoords="offset points", ha="right", color=colour)
        panel.set(title=name, xlabel=RULES[name][2], ylim=(10, 10**11))
        panel.set_yticks([2**10, 2**20, 2**30], ["1 KiB", "1 MiB", "1 GiB"])
        panel.minorticks_off()
    panels[0].set_ylabel("memory for one VJP")
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
