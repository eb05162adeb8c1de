"""Handwritten notes, *Application: neural networks*; the experiment E6 is row N6."""

import os
import subprocess
import sys
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec

import fnn
from experiments.equations.common import Oracle, Problem, oracle, problem, relative, size
from experiments.equations.lecture import sigma, slope
from experiments.equations.register import erratum, loose, row, true
from fnn.backward import bias_gradient, input_gradient

WIDTHS = (3, 3, 3, 3)  # all equal, so that a wrong index is not caught by the shapes
LOSS = fnn.SquaredError(1.0)
DEVICES = 4  # of N6


class Notes(NamedTuple):
    """One example on a network by the notes' names, with layers numbered as they are there."""

    M: int
    W: dict[int, np.ndarray]  # 1 … M
    b: dict[int, np.ndarray]
    x: dict[int, np.ndarray]  # 1 … M, what σ receives
    y: dict[int, np.ndarray]  # 0 … M, y^(0) the network's input
    target: np.ndarray


def named(p: Problem) -> Notes:
    """A problem with one example by the notes' names."""
    M, traces = len(p.params), fnn.trace(p.params, p.x)
    W, b = ({m: np.asarray(getattr(p.params[m - 1], name)) for m in range(1, M + 1)} for name in "Wb")
    x, y = ({m: np.asarray(getattr(traces[m - 1], name)) for m in range(1, M + 1)} for name in "za")
    return Notes(M, W, b, x, {0: np.asarray(p.x)} | y, np.asarray(p.y))


@cache  # in float64, for only rows call it
def network() -> tuple[Problem, Oracle, Notes]:
    """One example, autodiff's derivatives, and the notes' names for it."""
    p = problem(WIDTHS, batch=None, loss=LOSS)
    return p, oracle(p), named(p)


def recursion(v: Notes) -> dict[int, np.ndarray]:
    """∂L/∂y^(m) from M down to 1: the loss's derivative, then the printed sum over the neurons k of the next layer."""
    by_y = {v.M: 2 * (v.y[v.M] - v.target)}
    for m in range(v.M - 1, 0, -1):
        after, W = by_y[m + 1] * slope(v.x[m + 1]), v.W[m + 1]
        by_y[m] = np.array([sum(after[k] * W[k, i] for k in range(len(W))) for i in range(W.shape[1])])
    return by_y


def printed_gradients(v: Notes) -> list[np.ndarray]:
    """∂L/∂W_ij^(m) and ∂L/∂b_i^(m) for m = 1 … M, in the order of a network's leaves."""
    by_y, leaves = recursion(v), []
    for m in range(1, v.M + 1):
        by_b = by_y[m] * slope(v.x[m])
        leaves += [np.array([[by_b[i] * y for y in v.y[m - 1]] for i in range(len(by_b))]), by_b]
    return leaves


def one_by_one(p: Problem) -> list[Problem]:
    """The examples of a batch, each as a problem."""
    return [p._replace(x=x, y=y) for x, y in zip(p.x, p.y)]


@row("fnn.activations.Sign")
def N1():
    """A neuron with σ = sgn divides ℝ^d by a hyperplane: +1 if wᵀx ≥ −b, −1 if wᵀx < −b; why b is needed."""
    w, b, random = np.array([2.0, -1.0, 1.0]), -3.0, np.random.default_rng(1)
    grid = np.stack(np.meshgrid(*3 * [np.arange(-4.0, 5)]), axis=-1).reshape(-1, 3)  # whole numbers: sums are exact
    points = np.concatenate([grid, 3 * random.normal(size=(200, 3))])
    plane, moves = grid[grid @ w + b == 0], np.array([-3.0, -1, 0, 1, 3])
    moved = (plane[:, None, :] + moves[:, None] * w).reshape(-1, 3)  # from the plane, to either side of it

    def neuron(x, b):
        layer = fnn.Dense(jnp.asarray(w[None]), jnp.asarray([b]), fnn.Sign())
        return np.asarray(fnn.forward((layer,), jnp.asarray(x)))[:, 0]

    printed, without = np.where(points @ w >= -b, 1.0, -1.0), np.where(points @ w >= 0, 1.0, -1.0)
    sides, ours = np.tile(np.where(moves < 0, -1.0, 1.0), len(plane)), neuron(points, b)
    changed, at_zero = np.mean(printed != without), neuron(np.zeros((1, 3)), b)[0]
    return (
        true("+1 if wᵀx ≥ −b, −1 if wᵀx < −b", relative(ours, printed), against="the neuron",
             note=f"{len(points)} points, {len(plane)} of them with wᵀx = −b exactly: sgn(0) = +1"),
        true("wᵀx + b = 0 is a plane, σ parts the space into +1 and −1", relative(neuron(moved, b), sides),
             against="the side to which a point moves", note=f"{len(moved)} points, moved from the plane along ±w"),
        true("without b: wᵀx ≥ 0", relative(neuron(points, 0.0), without), against="the neuron",
             note=f"x = 0 is then on the plane, whatever w; b = {b:g} gives it {at_zero:+.0f}, and changes "
             f"{changed:.2g} of the points"),
    )  # fmt: skip


@row("fnn.functions.forward")
def N2():
    """y^(m) = σ(x^(m)), x^(m) = W^(m) y^(m−1) + b^(m); one line numbers the first layer 0."""
    p, _, v = network()
    y = v.y[0]
    for m in range(1, v.M + 1):
        y = sigma(v.W[m] @ y + v.b[m])
    summed = [sigma(sum(w * x for w, x in zip(weights, v.y[0])) + b) for weights, b in zip(v.W[1], v.b[1])]
    from_zero = {m - 1: (v.W[m], v.b[m]) for m in v.W}  # so numbered there is a W^(0)
    (W0, b0), (W2, b2) = from_zero[0], from_zero[2]
    second = v.y[2]
    return (
        true("y_i^(1) = σ(Σ_j W_ij^(1) x_j + b_i^(1))", relative(np.array(summed), v.y[1]), against="fnn.trace"),
        true("y^(m) = σ(W^(m) y^(m−1) + b^(m))", relative(y, fnn.forward(p.params, p.x)), against="fnn.forward"),
        erratum(
            "x^(0) = W^(0)x + b^(0), y^(1) = σ(x^(0)), x^(2) = W^(2)y^(1) + b^(2)",
            relative(sigma(W2 @ sigma(W0 @ v.y[0] + b0) + b2), second), "x^(1) = W^(1)x + b^(1), y^(1) = σ(x^(1))",
            relative(sigma(v.W[2] @ sigma(v.W[1] @ v.y[0] + v.b[1]) + v.b[2]), second), against="y^(2), fnn.trace",
            note=f"numbered from {min(v.W)} there is no W^(0); from 0, no line uses W^(1)",
        ),
    )  # fmt: skip


@row("experiments.approximation")
def N3():
    """A multilayer network approximates an unknown f*, from labelled examples of it."""
    widths, random = (2, 8, 16), np.random.default_rng(3)
    seen, unseen = np.linspace(-1, 1, 100)[:, None], random.uniform(-1, 1, (200, 1))
    errors = []
    for width in widths:  # the hidden layer as drawn; the output layer minimises J, a least-squares problem
        W, b = 3 * random.normal(size=(width, 1)), random.normal(size=width)
        hidden = fnn.Dense(jnp.asarray(W), jnp.asarray(b), fnn.Tanh())
        y = np.column_stack([np.tanh(seen @ W.T + b), np.ones(len(seen))])
        v = fnn.regression.least_squares(jnp.asarray(y), jnp.asarray(target(seen)))
        params = (hidden, fnn.Dense(v[:-1].T, v[-1], fnn.Identity()))
        errors.append(relative(fnn.forward(params, jnp.asarray(unseen)), target(unseen)))
    told = ", ".join(f"{width}: {error:.2g}" for width, error in zip(widths, errors))
    return true("ŷ = y^(M) ≈ f*(x)", errors[-1], against="f* where it was not seen",
                note=f"f* = sin 8x + x²/2, by neurons in one hidden layer {told}")  # fmt: skip


def target(x):
    """N3's f*, known here and unknown to the network."""
    return np.sin(8 * x) + x**2 / 2


@row("fnn.losses.SquaredError")
def N4():
    """J = Σ_n L(y[n], ŷ[n]), L = (y − ŷ)², ∂L/∂ŷ = 2(ŷ − y); the gradient of J is taken term by term."""
    p = problem((3, 4, 1), loss=LOSS)
    output, y = np.asarray(fnn.forward(p.params, p.x)), np.asarray(p.y)
    printed = sum((wanted - got) ** 2 for wanted, got in zip(y[:, 0].tolist(), output[:, 0].tolist()))
    J, gradients = fnn.value_and_backprop(p.params, p.x, p.y, loss=p.loss, reduction="sum")
    by_output = jax.grad(lambda output: jnp.sum((p.y - output) ** 2))(output)
    ours = p.loss.gradient(jnp.asarray(output), p.y)
    terms = [printed_gradients(named(example)) for example in one_by_one(p)]
    right = jax.tree.leaves(oracle(p).gradients)
    return (
        true("J = Σ_n (y[n] − ŷ[n])²", relative(J, printed), against="the sum, term by term"),
        true("∂L/∂ŷ = 2(ŷ − y)", max(relative(2 * (output - y), by_output), relative(ours, by_output))),
        true("∇J is the sum of the terms' gradients",
             max(relative([sum(leaf) for leaf in zip(*terms)], right), relative(jax.tree.leaves(gradients), right))),
    )  # fmt: skip


@row("fnn.backward.hidden_delta", "fnn.backward.input_gradient")
def N5():
    """The recursion in ∂L/∂y^(m), its two gradients, and a summary that starts it at m and not at M."""
    p, right, v = network()
    by_y, by_a, M = recursion(v), [np.asarray(g) for g in right.by_a], v.M
    deltas = fnn.deltas(p.params, p.x, p.y, loss=p.loss)
    ours = [input_gradient(delta, layer.W) for delta, layer in zip(deltas[1:], p.params[1:])]
    gradients = jax.tree.leaves(fnn.backprop(p.params, p.x, p.y, loss=p.loss))
    by_params = jax.tree.leaves(right.gradients)
    started = [2 * (v.y[m] - v.target) for m in range(1, M + 1)]  # the only derivative of L that needs no later layer
    after: list[np.ndarray] = [*by_a[1:], np.zeros(0)]  # of the layers 2 … M + 1; layer M + 1 has no neurons
    W, x = {**v.W, M + 1: np.zeros((0, WIDTHS[-1]))}, {**v.x, M + 1: np.zeros(0)}
    summed = [(after[m - 1] * slope(x[m + 1])) @ W[m + 1] for m in range(1, M + 1)]
    hidden = max(relative([by_y[m] for m in range(1, M)], by_a[:-1]), relative(ours, by_a[:-1]))
    step = "∂L/∂y_i^(m) = Σ_k ∂L/∂y_k^(m+1) σ'(x_k^(m+1)) W_ki^(m+1)"
    return (
        true(f"{step}, m < M", hidden),
        true("∂L/∂W_ij = ∂L/∂y_i σ'(x_i) y_j^(m−1), ∂L/∂b_i = ∂L/∂y_i σ'(x_i)",
             max(relative(printed_gradients(v), by_params), relative(gradients, by_params))),
        erratum("(1) Compute ∂L/∂y_i^(m), from L: 2(y_i^(m) − y_i)", relative(started, by_a),
                "(1) Compute ∂L/∂y_i^(M)", relative(started[-1], by_a[-1]), note="at every m = 1 … M"),
        erratum(f"{step}, m = M", relative(summed[-1], by_a[-1]), "… for m < M", relative(summed[:-1], by_a[:-1]),
                note="layer M + 1 has no neurons: the sum is 0, and so is every gradient"),
    )  # fmt: skip


@row("fnn.functions.backprop")
def N6():
    """The gradients of different data points can be computed in parallel."""
    p = problem(WIDTHS, loss=LOSS)

    def gradient(x, y):
        return fnn.backprop(p.params, x, y, loss=p.loss)

    together = jax.vmap(gradient)(p.x, p.y)
    alone = [gradient(example.x, example.y) for example in one_by_one(p)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *alone)
    summed = jax.tree.map(lambda leaf: np.sum(leaf, axis=0), together)
    batch = fnn.backprop(p.params, p.x, p.y, loss=p.loss, reduction="sum")
    right = oracle(p).gradients
    return (
        true("in parallel over examples", relative(together, stacked), against="one at a time", note="jax.vmap"),
        true("their sum is the batch's", max(relative(summed, right), relative(batch, right))),
        true("in parallel over devices", on_several(), note=f"jax.shard_map on {DEVICES} devices, "
             "a part of the batch on each"),
    )  # fmt: skip


def on_several() -> float:
    """``over_devices`` in a process with several devices: how many JAX has is settled once, when a process starts."""
    chosen = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(DEVICES)}
    program = [sys.executable, "-m", "experiments.equations.devices"]
    run = subprocess.run(program, cwd=Path(__file__).parents[2], env=chosen, capture_output=True, text=True, check=True)
    devices, error = run.stdout.splitlines()[-1].split()
    if int(devices) != DEVICES:
        raise RuntimeError(f"N6: expected {DEVICES} devices, got {devices}")
    return float(error)


def over_devices(examples: int = 4) -> float:
    """Off from autodiff: the batch's gradient, ``examples`` on each device that there is, and their sum."""
    devices = np.array(jax.devices())
    p = problem(WIDTHS, batch=examples * len(devices), loss=LOSS)
    split, whole = PartitionSpec("devices"), PartitionSpec()

    def of_a_part(params, x, y):
        return jax.lax.psum(fnn.backprop(params, x, y, loss=p.loss, reduction="sum"), "devices")

    mesh = Mesh(devices, ("devices",))
    of_all = jax.jit(jax.shard_map(of_a_part, mesh=mesh, in_specs=(whole, split, split), out_specs=whole))
    return relative(of_all(p.params, p.x, p.y), oracle(p).gradients)


@row("fnn.train.fit.fit")
def N7():
    """(Batch) stochastic gradient descent: each iteration takes the gradients of a subset of the data points."""
    examples, subset, rate = 8, 5, 0.5
    p = problem(WIDTHS, batch=examples, loss=LOSS)
    trained = fnn.train.fit(
        p.params, (p.x, p.y), fnn.updates.sgd(rate), loss=p.loss, epochs=1, batch_size=subset,
        key=jax.random.key(0), reduction="sum", progress=False,
    ).params  # fmt: skip
    each = np.stack([ravel_pytree(printed_gradients(named(example)))[0] for example in one_by_one(p)])
    sums = np.stack([each[list(chosen)].sum(axis=0) for chosen in combinations(range(examples), subset)])
    w, ours = (np.asarray(ravel_pytree(params)[0]) for params in (p.params, trained))
    errors = sorted(relative(ours, w - rate * gradient) for gradient in sums)  # fit drew one of all these subsets
    full, mean = each.sum(axis=0), sums.mean(axis=0) * examples / subset
    spread = np.mean([relative(gradient * examples / subset, full) for gradient in sums])
    return true(
        "w ← w − η Σ ∂L/∂w over a subset",
        errors[0],
        against="fnn.train.fit",
        note=f"the {len(sums) - 1} other subsets of {subset} out of {examples}: off by {errors[1]:.2g} or more; as an "
        f"estimate of the whole gradient one is off by {spread:.2g}, their mean by {size(relative(mean, full))}",
    )


@row("fnn.backward.bias_gradient")
def N8():
    """In the derivation of ∂L/∂b_i^(m) the brace "= 1" stands under ∂L/∂y_i^(m)."""
    p, right, v = network()
    deltas = fnn.deltas(p.params, p.x, p.y, loss=p.loss)
    ours = [bias_gradient(delta[None]) for delta in deltas]
    by_b = [np.asarray(layer.b) for layer in right.gradients]
    jacobian = jax.jacobian(lambda b: v.W[1] @ v.y[0] + b)(v.b[1])  # ∂x_i/∂b_j, the same in every layer
    by_own_b, by_y = np.diag(jacobian), recursion(v)
    printed = [1 * slope(v.x[m]) * by_own_b for m in by_y][::-1]  # the recursion goes from M down
    corrected = [by_y[m] * slope(v.x[m]) * by_own_b for m in by_y][::-1]
    return loose(
        "∂L/∂b_i = ∂L/∂y_i σ'(x_i) ∂x_i/∂b_i with ∂L/∂y_i = 1", relative(printed, by_b), "with ∂x_i/∂b_i = 1",
        max(relative(corrected, by_b), relative(ours, by_b), relative(jacobian, np.eye(len(jacobian)))),
        note="a slip of the pen or of the copy: the formulas are right, and the next derivation boxes the 1 where it "
        "belongs",
    )  # fmt: skip
