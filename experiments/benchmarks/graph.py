"""Back-propagation through graphs beside what one would otherwise use: ``python -m experiments.benchmarks.graph``.

Ours is ``fnn.backprop`` of the graph. Its peers: ``fnn.backprop`` of the same network as dense layers, ``jax.grad`` of
``fnn.forward``, SciPy's sparse products by generation, connex (graphs in JAX, a matrix for every generation), and, on a
small graph, a Python loop over neurons and arrows (micrograd's way, with a NumPy array per neuron).
"""

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import tyro

import fnn
from experiments import results
from experiments.benchmarks.timing import Row, interleaved, single, timed
from fnn.functions import Objective, _backward
from fnn.graph import Graph, GraphParams
from fnn.kinds import given

BATCH, LOSS = 32, fnn.SquaredError()
CONNEX_NEURONS = 1000


@dataclass(frozen=True)
class Options:
    """Time, compile time and temporary memory of one step, batch 32, float32, mean of ½‖a − y‖²."""

    only: tuple[str, ...] = ()
    """Parts of the names of the graphs to run; all if empty."""
    rounds: int = 15
    out: Path | None = None


def graphs() -> dict[str, Callable[[], GraphParams]]:
    """The networks by name."""
    key, tanh = jax.random.key(0), fnn.Tanh()

    def drawn(neurons, arrows, generations, ends):
        options = {"inputs": ends, "outputs": ends, "generations": generations, "activation": tanh}
        return lambda: Graph.random(key, neurons, arrows, **options).init(key)

    return {
        "layers 784-100-10": lambda: Graph.from_layers(fnn.init(key, (784, 100, 10), activation=tanh)),
        "100,000 neurons, 1,000,000 arrows, 50 generations": drawn(100_000, 1_000_000, 50, 2_000),
        "2,000 generations of 5, 50,000 arrows": drawn(10_000, 50_000, 2_000, 5),
        "one generation of 10,000 among 1,000 of 3": lambda: skewed(tanh).init(key),
        "60 neurons, 300 arrows, 6 generations": drawn(60, 300, 6, 5),
    }


def skewed(activation) -> Graph:
    """Layers of 3 with one of 10,000 in the middle, each fully connected to the next."""
    return Graph.layered([3] * 500 + [10_000] + [3] * 500, activation)


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    rows, claims = [], []
    for name, make in graphs().items():
        if not options.only or any(part in name for part in options.only):
            rows.append(measured(name, make(), options.rounds))
            claims.append(claim(rows[-1]))
            print(f"{claims[-1].claim}: {claims[-1].here}", flush=True)
    out = results.folder(options.out, "benchmarks.graph")
    results.save(
        out, "benchmarks.graph", options, claims, {"rows": rows, "cores": os.cpu_count(), "scipy": scipy.__version__}
    )


def claim(row: dict) -> results.Claim:
    """Ours as a multiple of each peer, with quartiles; compile time and temporary memory beside jax.grad's."""
    peers = ", ".join(f"{way} {r[0]:.2f} ({r[1]:.2f}–{r[2]:.2f})" for way, r in row["ratio"].items())
    compiled, memory = (
        f"{row[k]['ours']:.3g} (jax.grad {row[k]['jax.grad']:.3g})" for k in ("compile s", "temporary MB")
    )
    return results.Claim(
        f"a graph's step, {row['graph']}: time as a multiple of each peer's (quartiles), compile time, memory",
        f"{peers}; {row['ms']['ours']:.3g} ms; compiled in {compiled} s; {memory} MB",
    )


def rows(figures: dict) -> list[Row]:
    made = []
    for row in figures["rows"]:
        what, ms = f"a graph's step, {row['graph']}", row["ms"]
        made += [timed(what, peer, ratio, ms["ours"], ms[peer]) for peer, ratio in row["ratio"].items()]
        made += [
            Row(what, "time", peer, None, None, f"{ms['ours']:.3g} ms", "", why)
            for peer, why in row.get("missing", {}).items()
        ]
        for measure, key in (("temporary memory", "temporary MB"), ("compile time", "compile s")):
            made.append(single(what, measure, "jax.grad", row[key]["ours"], row[key]["jax.grad"], key.split()[-1]))
    return made


def measured(name: str, params: GraphParams, rounds: int) -> dict:
    """One row: medians of the ratios ours / peer with their quartiles, compile times, temporary memory."""
    graph, random = params.graph, np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(BATCH, len(graph.inputs))), jnp.float32)
    y = jnp.asarray(random.normal(size=(BATCH, len(graph.outputs))), jnp.float32)

    @jax.jit
    def automatic(params, x, y):
        return jax.grad(lambda p: LOSS.value(fnn.forward(p, x), y).mean())(params)

    ways: dict[str, Callable] = {
        "ours": lambda: fnn.backprop(params, x, y, loss=LOSS),
        "jax.grad": lambda: automatic(params, x, y),
    }
    peers = {"SciPy": scipy_step(params, np.asarray(x), np.asarray(y))}
    if name.startswith("layers"):
        layers = fnn.init(jax.random.key(0), (784, 100, 10), activation=fnn.Tanh())
        ways["dense layers"] = lambda: fnn.backprop(layers, x, y, loss=LOSS)
    if len(graph) < 100:
        peers["Python loop"] = python_step(params, np.asarray(x), np.asarray(y))
    made, missing = connex_step(params, x, y)
    peers |= made
    with jax.default_matmul_precision("highest"):  # TF32 would not be as close
        ours = np.asarray(ways["ours"]().weights)
        for step in (*peers.values(), lambda: ways["jax.grad"]().weights):
            assert np.allclose(step(), ours, rtol=1e-3, atol=1e-5 * np.abs(ours).max())
    seconds = interleaved(ways | peers, rounds)
    row: dict = {"graph": name, "missing": missing}
    row["ms"] = {way: round(1e3 * float(np.median(s)), 4) for way, s in seconds.items()}
    ratios = {way: seconds["ours"] / s for way, s in seconds.items() if way != "ours"}
    row["ratio"] = {way: np.round(np.percentile(r, (50, 25, 75)), 3).tolist() for way, r in ratios.items()}
    lowered = {"jax.grad": partial(automatic.lower, params, x, y), "ours": partial(lowered_backprop, params, x, y)}
    row["compile s"], row["temporary MB"] = compiling(lowered)
    return row


def lowered_backprop(params: GraphParams, x, y):
    static: dict[str, Any] = {"objective": Objective(LOSS, "mean"), "want": ("gradients",)}
    return _backward.lower(*given(params, x, None, fnn.RULES), y, **static)


def compiling(lowered: Mapping[str, Callable]) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds to trace and compile every way, and its temporary memory in MB."""
    seconds, memory = {}, {}
    for way, lower in lowered.items():
        jax.clear_caches()
        started = time.perf_counter()
        compiled: Any = lower().compile()
        seconds[way] = round(time.perf_counter() - started, 2)
        memory[way] = round(compiled.memory_analysis().temp_size_in_bytes / 1e6, 2)
    return seconds, memory


def scipy_step(params: GraphParams, x: np.ndarray, y: np.ndarray) -> Callable[[], np.ndarray]:
    """The gradient by the weights: a sparse product for every generation, forwards and backwards."""
    graph, n = params.graph, len(params.graph)
    order = np.argsort(graph.generation, kind="stable")
    row = np.argsort(order)
    source, target = row[graph.arrows[:, 0]], row[graph.arrows[:, 1]]
    bounds = np.searchsorted(graph.generation[order], np.arange(graph.generation.max() + 2))
    numbers = scipy.sparse.csr_array((np.arange(len(source)) + 1.0, (target, source)), (n, n))
    into, out = numbers, numbers.T.tocsr()
    weights = np.asarray(params.weights)
    parts = [
        (slice(a, b), into[a:b], into[a:b].data.astype(int) - 1, out[a:b], out[a:b].data.astype(int) - 1)
        for a, b in zip(bounds[1:-1], bounds[2:])
    ]
    biases, linear = np.asarray(params.biases)[order, None], row[graph.outputs]
    assert all(graph.activations[k] == fnn.Identity() for k in graph.outputs)
    chunks = [slice(i, i + 8192) for i in range(0, len(source), 8192)]

    def step():
        o = np.zeros((n, len(x)), np.float32)
        o[row[graph.inputs]] = x.T
        for rows, A, numbers, _, _ in parts:
            A.data = weights[numbers]
            o[rows] = np.tanh(A @ o + biases[rows]) if rows.stop <= linear.min() else A @ o + biases[rows]
        lam = np.zeros_like(o)
        lam[linear] = (o[linear] - y.T) / len(x)
        for rows, _, _, A, numbers in reversed(parts):
            if rows.stop <= linear.min():
                A.data = weights[numbers]
                lam[rows] = (A @ lam) * (1 - o[rows] ** 2)
        return np.concatenate([np.einsum("cb,cb->c", lam[target[c]], o[source[c]]) for c in chunks])

    return step


def connex_step(params: GraphParams, x, y) -> tuple[dict[str, Callable], dict[str, str]]:
    """The gradient by the weights with connex, its parameters ours; and why not, where it cannot be had."""
    graph = params.graph
    if find_spec("connex") is None:
        return {}, {"connex": "not installed"}
    if len(graph) > CONNEX_NEURONS:
        return {}, {"connex": f"left out above {CONNEX_NEURONS} neurons: it looks for cycles by listing them"}
    if np.isin(graph.outputs, graph.arrows[:, 0]).any():
        return {}, {"connex": "does not take outputs that other neurons read"}
    import equinox as eqx

    network, places = connex_network(params)
    trained, rest = eqx.partition(network, eqx.is_inexact_array)

    @jax.jit
    def gradient(trained):
        def loss(trained):
            a = jax.vmap(lambda x: eqx.combine(trained, rest)(x, key=jax.random.key(0)))(x)
            return LOSS.value(a, y).mean()

        return jax.grad(loss)(trained)._weights_and_biases

    def step():
        found = [np.asarray(of) for of in gradient(trained)]
        return np.array([found[generation][row, column] for generation, row, column in places])

    return {"connex": step}, {}


def connex_network(params: GraphParams) -> tuple[Any, list[tuple[int, int, int]]]:
    """The network in connex with our parameters, and every arrow's generation, row and column in its matrices."""
    import equinox as eqx
    import networkx

    graph, inputs = params.graph, params.graph.inputs.tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of equinox, about how connex declares its fields
        import connex

        network = connex.NeuralNetwork(
            networkx.DiGraph(graph.arrows.tolist()), inputs, graph.outputs.tolist(), hidden_activation=jnp.tanh,
            key=jax.random.key(0),
        )  # fmt: skip
    number = network._neuron_to_id
    rows: dict[int, tuple[int, int, dict[int, int]]] = {}
    for generation, (neurons, reads) in enumerate(zip(network._topo_batches, network._indices)):
        columns = {int(read): column for column, read in enumerate(np.asarray(reads))}
        rows |= {int(neuron): (generation, row, columns) for row, neuron in enumerate(np.asarray(neurons))}
    ours = [np.zeros(of.shape, np.float32) for of in network._weights_and_biases]
    places = []
    for (source, target), weight in zip(graph.arrows.tolist(), np.asarray(params.weights)):
        generation, row, columns = rows[number[target]]
        places.append((generation, row, columns[number[source]]))
        ours[generation][row, columns[number[source]]] = weight
    for neuron in set(range(len(graph))) - set(inputs):
        generation, row, _ = rows[number[neuron]]
        ours[generation][row, -1] = params.biases[neuron]
    return eqx.tree_at(lambda n: n._weights_and_biases, network, [jnp.asarray(of) for of in ours]), places


def python_step(params: GraphParams, x: np.ndarray, y: np.ndarray) -> Callable[[], np.ndarray]:
    """The gradient by the weights, neuron by neuron and arrow by arrow."""
    graph = params.graph
    order = np.argsort(graph.generation, kind="stable").tolist()
    weights, biases = np.asarray(params.weights).tolist(), np.asarray(params.biases).tolist()
    into: dict[int, list[tuple[int, int]]] = {k: [] for k in order}
    for number, (source, target) in enumerate(graph.arrows.tolist()):
        into[target].append((number, source))
    column = {k: i for i, k in enumerate(graph.outputs.tolist())}

    def step():
        o: dict[int, Any] = {k: x[:, i] for i, k in enumerate(graph.inputs.tolist())}
        for k in order:
            if k not in o:
                psi = sum((weights[number] * o[source] for number, source in into[k]), np.float32(biases[k]))
                o[k] = psi if k in column else np.tanh(psi)
        g = {k: np.zeros_like(x[:, 0]) for k in order}
        gradient = np.zeros(len(weights), np.float32)
        for k in reversed(order):
            lam = (o[k] - y[:, column[k]]) / len(x) if k in column else g[k] * (1 - o[k] ** 2)
            for number, source in into[k]:
                gradient[number] = lam @ o[source]
                g[source] = g[source] + weights[number] * lam
        return gradient

    return step


if __name__ == "__main__":
    main()
