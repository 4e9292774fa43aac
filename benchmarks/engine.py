"""One training step of the same network, by this course and by its peers, in one run.

    python -m pip install -r benchmarks/requirements.txt
    python benchmarks/engine.py [--quick]

A step is: forward, fused softmax cross-entropy, backward, update of all weights by gradient descent.
All ways start from the same weights and get the same batch. Before anything is timed, five steps of
each must lead to the same weights. The ways take turns in short rounds; a way's ratio is the median
over the rounds of its time by torch's time in the same round, so a busy machine slows both. Prints
Markdown tables.
"""

import argparse
import gc
import itertools
import platform
import re
import statistics
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from byhand.taught import taught

NETWORKS = {"64-128-64-10": (64, 128, 64, 10), "784-512-512-10": (784, 512, 512, 10)}
BATCHES, LR = (1, 32, 256), 0.01


# --- the ways --------------------------------------------------------------------------------------

# Each takes weights (W, b, W, b, ...), inputs (B, D), labels (B,) and one-hot targets (B, K), and returns
# a function that does one step, and one that returns the weights as NumPy arrays.


def by_torch(weights, x, labels, targets):
    weights = [torch.tensor(w, requires_grad=True) for w in weights]
    x, labels = torch.tensor(x), torch.tensor(labels)

    def step():
        h = x
        for W, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
            h = torch.relu(torch.addmm(b, h, W))
        loss = torch.nn.functional.cross_entropy(torch.addmm(weights[-1], h, weights[-2]), labels)
        loss.backward()
        with torch.no_grad():
            for w in weights:
                w.sub_(w.grad, alpha=LR)
                w.grad = None

    return step, lambda: [w.detach().numpy() for w in weights]


def by_engine(weights, x, labels, targets):
    engine, rows = taught("63-engine"), taught("64-operators")
    affine, relu, cross_entropy = rows.affine, rows.relu, rows.cross_entropy
    weights = [engine.Tensor(w.copy(), requires_grad=True) for w in weights]
    x = engine.Tensor(x)

    def step():
        h = x
        for W, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
            h = relu(affine(h, W, b))
        cross_entropy(affine(h, *weights[-2:]), targets).backward()
        for w in weights:  # the graph is gone, so nothing that was saved is overwritten
            w.grad.data *= LR  # a gradient is its leaf's own copy
            w.data -= w.grad.data
            w.grad = None

    return step, lambda: [w.data for w in weights]


def by_layers(weights, x, labels, targets):
    layers = taught("62-layers")
    pairs = zip(weights[::2], weights[1::2], strict=True)
    affine = [layers.Affine(W.copy(), b.copy(), of_data=W is weights[0]) for W, b in pairs]
    relus = [layers.Relu() for _ in affine]
    network = layers.Network([layer for pair in zip(affine, relus, strict=True) for layer in pair][:-1])
    loss = layers.SoftmaxWithLoss()

    def step():
        loss.forward(network.forward(x), targets)
        network.backward(loss.backward(1.0))
        for layer in affine:
            layer.W -= LR * layer.dW
            layer.b -= LR * layer.db

    return step, lambda: [w for layer in affine for w in (layer.W, layer.b)]


def by_autograd(weights, x, labels, targets):
    import autograd.numpy as anp
    from autograd import grad

    weights = [w.copy() for w in weights]

    def loss(weights):
        h = x
        for W, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
            h = anp.maximum(h @ W + b, 0.0)
        z = h @ weights[-2] + weights[-1]
        shifted = z - anp.max(z, axis=1, keepdims=True)
        z = shifted - anp.log(anp.sum(anp.exp(shifted), axis=1, keepdims=True))
        return -anp.sum(targets * z) / len(x)

    gradient = grad(loss)

    def step():
        for w, dw in zip(weights, gradient(weights), strict=True):
            w -= LR * dw

    return step, lambda: weights


def by_dezero(weights, x, labels, targets):
    np.int = int  # its last release still writes that name, which NumPy has dropped
    import dezero
    import dezero.functions as functions

    weights = [dezero.Parameter(w.copy()) for w in weights]
    x = dezero.Variable(x)

    def step():
        h = x
        for W, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
            h = functions.relu(functions.linear(h, W, b))
        loss = functions.softmax_cross_entropy(functions.linear(h, *weights[-2:]), labels)
        loss.backward()
        for w in weights:
            w.data -= LR * w.grad.data
            w.cleargrad()

    return step, lambda: [w.data for w in weights]


def by_micrograd(weights, x, labels, targets):
    """One object a number: only for the small network and one sample."""
    from micrograd.engine import Value

    shapes = [w.shape for w in weights]
    flat = [[Value(float(v)) for v in w.ravel()] for w in weights]
    exp = lambda v: 2.718281828459045**v.data  # noqa: E731

    def step():
        h = [float(v) for v in x[0]]
        for k in range(0, len(flat), 2):
            D, H = shapes[k]
            h = [sum((h[i] * flat[k][i * H + j] for i in range(D)), flat[k + 1][j]) for j in range(H)]
            h = [v.relu() for v in h] if k + 2 < len(flat) else h
        # micrograd has no exp: the gradient of the loss at the scores is put in by hand
        e = [exp(v) for v in h]
        root = sum(v * (e[j] / sum(e) - targets[0, j]) for j, v in enumerate(h))
        root.backward()
        for v in (v for w in flat for v in w):
            v.data -= LR * v.grad
            v.grad = 0

    return step, lambda: [np.array([v.data for v in w]).reshape(s) for w, s in zip(flat, shapes, strict=True)]


WAYS = {"layers (62)": by_layers, "engine (63, 64)": by_engine, "torch": by_torch}
PEERS = {"autograd": by_autograd, "dezero": by_dezero, "micrograd": by_micrograd}


# --- measuring -------------------------------------------------------------------------------------


def drawn(sizes, batch, dtype):
    rng = np.random.default_rng(0)
    pairs = itertools.pairwise(sizes)
    weights = [w for D, H in pairs for w in (rng.normal(size=(D, H)) * np.sqrt(2 / D), np.zeros(H))]
    labels = rng.integers(0, sizes[-1], size=batch)
    x, targets = rng.normal(size=(batch, sizes[0])), np.eye(sizes[-1])[labels]
    return [w.astype(dtype) for w in weights], x.astype(dtype), labels, targets.astype(dtype)


def seconds(step, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def compare(sizes, batch, dtype, ways, rounds):
    """{way: seconds of a step in each round}"""
    given = drawn(sizes, batch, dtype)
    made = {name: way(*given) for name, way in ways.items()}
    for step, _ in made.values():
        for _ in range(5):
            step()
    tolerance = {"rtol": 1e-8, "atol": 1e-10} if dtype == np.float64 else {"rtol": 1e-3, "atol": 1e-4}
    for name, (_, weights) in made.items():
        for mine, reference in zip(weights(), made["torch"][1](), strict=True):
            np.testing.assert_allclose(mine, reference, **tolerance, err_msg=name)
            assert mine.dtype == dtype, (name, mine.dtype)
    repeats = {name: max(1, int(0.02 / seconds(step, 1))) for name, (step, _) in made.items()}
    times = {name: [] for name in made}
    gc.collect()
    for _ in range(rounds):
        for name, (step, _) in made.items():
            times[name].append(seconds(step, repeats[name]))
    return times


def ratio(times, name, to="torch"):
    return statistics.median(a / b for a, b in zip(times[name], times[to], strict=True))


def table(sizes, dtypes, threads, batches, rounds):
    names = [*WAYS, *PEERS]
    print(f"| | batch | torch, ms | {' | '.join(n for n in names if n != 'torch')} |")
    print("|---" * (len(names) + 2) + "|")
    for dtype in dtypes:
        for count in threads:
            torch.set_num_threads(count)
            for batch in batches:
                small = sizes == NETWORKS["64-128-64-10"] and batch == 1 and dtype == np.float64 and count == 1
                ways = WAYS | {n: way for n, way in PEERS.items() if n != "micrograd" or small}
                with threadpool_limits(count):
                    times = compare(sizes, batch, dtype, ways, rounds)
                cells = [f"{ratio(times, n):.2f}" if n in times else "" for n in names if n != "torch"]
                kind = f"{np.dtype(dtype).name}, {count} thread{'s' if count > 1 else ''}"
                median = 1000 * statistics.median(times["torch"])
                print(f"| {kind} | {batch} | {median:.3f} | {' | '.join(cells)} |", flush=True)


def shares(batch, rounds):
    """Where a step of the engine goes: parts of its time, and of the rules alone."""
    given = drawn(NETWORKS["64-128-64-10"], batch, np.float64)
    engine, rows = taught("63-engine"), taught("64-operators")
    weights = [engine.Tensor(w.copy(), requires_grad=True) for w in given[0]]
    x, targets = engine.Tensor(given[1]), given[3]

    def forward():
        h = x
        for W, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
            h = rows.relu(rows.affine(h, W, b))
        return rows.cross_entropy(rows.affine(h, *weights[-2:]), targets)

    def both():
        for w in weights:
            w.grad = None
        forward().backward()

    step, _ = by_engine(*given)
    layers, _ = by_layers(*given)
    found = {"forward": [], "both": [], "step": [], "layers": []}
    for _ in range(rounds):
        for name, way in (("forward", forward), ("both", both), ("step", step), ("layers", layers)):
            found[name].append(seconds(way, 200))
    forward, both, step, layers = (1e6 * statistics.median(found[name]) for name in found)
    print(
        f"Batch {batch}: {step:.0f} µs a step of the engine, of which forward {forward:.0f}, backward "
        f"{both - forward:.0f}, update {step - both:.0f}. The layers, which record nothing, take {layers:.0f}."
    )


def processor():
    """What the ratios depend on most: torch's matrix products are made for some processors more than for others."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only what the limits bind, in a minute")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.setrecursionlimit(10_000)  # micrograd sorts its graph by recursion
    rounds = 15 if options.quick else 25
    print(f"{date.today()}, {processor()}, ratios to torch: less is faster.\n")
    with threadpool_limits(1):
        small = NETWORKS["64-128-64-10"]
        given = {"dtypes": (np.float64,), "threads": (1,), "batches": (1, 32), "rounds": rounds}
        if not options.quick:
            given |= {"dtypes": (np.float64, np.float32), "threads": (1, 2), "batches": BATCHES}
        print("64-128-64-10\n")
        table(small, **given)
        if not options.quick:
            print("\n784-512-512-10\n")
            table(NETWORKS["784-512-512-10"], **given | {"rounds": 7})
        print()
        torch.set_num_threads(1)
        for batch in (1, 32):
            shares(batch, rounds)
    packages = ("torch", "numpy", "autograd", "dezero", "micrograd")
    print(f"\nPython {sys.version.split()[0]}, {', '.join(f'{p} {version(p)}' for p in packages)}.")


if __name__ == "__main__":
    main()
