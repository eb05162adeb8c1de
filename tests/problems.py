"""The problems that every comparison with autodiff runs on, and the comparison itself."""

import contextlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

ACTIVATIONS = (
    fnn.Identity(),
    fnn.Sigmoid(),
    fnn.Sigmoid(beta=2.5),
    fnn.Tanh(),
    fnn.ScaledTanh(),
    fnn.Softsign(),
    fnn.ReLU(),
    fnn.LeakyReLU(slope=0.2),
    fnn.ELU(),
    fnn.Softplus(),
    fnn.SiLU(),
    fnn.GELU(),
    fnn.GELU(approximate=True),
    fnn.Gaussian(mu=0.3, sigma=0.8),
    fnn.PiecewiseLinear.continuous(-1.5, 1.5),
    fnn.PiecewiseLinear(m=0.4, b=0.1, x_min=-1, x_max=1),
    fnn.Threshold(),
    fnn.Sign(),
    fnn.Softmax(),
)
LOSSES = (
    fnn.SquaredError(),
    fnn.SquaredError(scale=1.0),
    fnn.Huber(delta=0.7),
    fnn.SoftmaxCrossEntropy(),
    fnn.SigmoidCrossEntropy(),
    fnn.CrossEntropy(),
    fnn.CrossEntropy(categorical=True),
    fnn.Poisson(),
)
WIDTHS = (5, 4, 6, 3, 4)  # inputs first; a network of depth d has the first d + 1
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


class Problem(NamedTuple):
    params: tuple
    x: jax.Array
    y: jax.Array
    loss: fnn.Loss
    masks: tuple | None = None


# What differs in kind: an activation whose derivative reads a, or z, one with a kink, one that is not elementwise;
# a loss of its own scale, one fused with its output activation that takes labels, one on probabilities.
SMOOTH, FROM_Z, KINKED, COUPLED = fnn.Tanh(), fnn.GELU(), fnn.ReLU(), fnn.Softmax()
KINDS = (SMOOTH, FROM_Z, KINKED, COUPLED)
LOSS_KINDS = (fnn.SquaredError(), fnn.SoftmaxCrossEntropy(), fnn.CrossEntropy())


def and_slow(default, others) -> list:
    """Parameters for pytest: the cases of ``default`` in every run, of ``others`` those that remain in the slow run."""
    default = list(default)
    rest = [other for other in others if other not in default]
    return default + [pytest.param(other, marks=pytest.mark.slow) for other in rest]


def name(value) -> str:
    return repr(value)


def problem(activation, loss, depth, *, output=None, batch=7, dtype="float32", seed=0, labels=False) -> Problem:
    """A random network of ``depth`` layers with random biases, and data for it; one example if batch is None."""
    random = np.random.default_rng([seed, depth])
    sizes = WIDTHS[: depth + 1]
    layers = []
    for n_in, n_out in zip(sizes, sizes[1:]):
        W = jnp.asarray(random.normal(size=(n_out, n_in)) / np.sqrt(n_in) * 1.5, dtype)
        b = jnp.asarray(random.normal(size=n_out) * 0.5, dtype)
        layers.append(fnn.Dense(W, b, activation))
    if output is not None:
        layers[-1] = fnn.Dense(layers[-1].W, layers[-1].b, output)
    rows = () if batch is None else (batch,)
    x = jnp.asarray(random.normal(size=(*rows, sizes[0])), dtype)
    if labels:
        y = jnp.asarray(random.integers(0, sizes[-1], rows), "int32")
    else:
        y = jnp.asarray(random.uniform(0.05, 0.95, (*rows, sizes[-1])), dtype)
    return Problem(tuple(layers), x, y, loss)


def with_norms(p: Problem, *gradients) -> Problem:
    """A batch norm with random γ and β in the first layers: one for each of ``gradients``."""
    random = np.random.default_rng(5)
    layers = list(p.params)
    for i, gradient in enumerate(gradients):
        layer = layers[i]
        gamma, beta = (jnp.asarray(random.uniform(0.5, 1.5, layer.b.shape), layer.b.dtype) for _ in range(2))
        layers[i] = fnn.Dense(layer.W, layer.b, layer.activation, fnn.BatchNorm(gamma, beta, gradient=gradient))
    return p._replace(params=tuple(layers))


def with_masks(p: Problem, rows) -> Problem:
    """Random masks of units and of arrows in every layer; those of the units for each of ``rows`` examples, or one."""
    random = np.random.default_rng(6)
    masks = []
    for layer in p.params:
        units = random.binomial(1, 0.7, (rows, layer.W.shape[1])) / 0.7
        arrows = random.binomial(1, 0.8, layer.W.shape) / 0.8
        masks.append(fnn.Mask(*(jnp.asarray(mask, layer.W.dtype) for mask in (units, arrows))))
    return p._replace(masks=tuple(masks))


def losses(p: Problem, params, x):
    """The loss of every example."""
    a = fnn.forward(params, x, masks=p.masks)
    return p.loss.value(jnp.atleast_2d(a), p.y[None] if x.ndim == 1 else p.y)


def objective(p: Problem, reduction="mean"):
    """The loss as a function of the parameters, for ``jax.grad``."""

    def cost(params, x=p.x):
        values = losses(p, params, x)
        return values.mean() if reduction == "mean" else values.sum()

    return cost


def summed_terms(p: Problem):
    """The sizes of what the gradients of the sum add up: |δ|ᵀ|a| for W, Σ|δ| for b, per layer."""
    sizes = []
    deltas = fnn.deltas(p.params, p.x, p.y, loss=p.loss, masks=p.masks)
    for t, delta in zip(fnn.trace(p.params, p.x, masks=p.masks), deltas):
        a, d = (np.abs(np.atleast_2d(np.asarray(v, np.float64))) for v in (t.a_in, delta))
        sizes.append((np.linalg.norm(d.T @ a), np.linalg.norm(d.sum(axis=0))))
    return sizes


def distance(hand, auto) -> float:
    return float(np.linalg.norm(np.asarray(hand, np.float64) - np.asarray(auto, np.float64)))


def hand_and_autodiff(p: Problem, reduction="mean"):
    """Both gradients, from one compiled program: in a third of the time that its operations take one by one."""

    @jax.jit
    def both(params, x, y, masks):
        q = Problem(params, x, y, p.loss, masks)
        hand = fnn.backprop(params, x, y, loss=p.loss, reduction=reduction, masks=masks)
        return hand, jax.grad(objective(q, reduction))(params)

    with jax.default_matmul_precision("highest"):
        return both(p.params, p.x, p.y, p.masks)


def assert_agrees(p: Problem, reduction="mean", tolerance=None) -> None:
    """The hand-written gradient equals autodiff's, norm-wise against the size of the summed terms."""
    tolerance = tolerance or TOLERANCE[str(p.params[0].W.dtype)]
    hand, auto = hand_and_autodiff(p, reduction)
    assert jax.tree.structure(hand) == jax.tree.structure(p.params)
    examples = 1 if p.x.ndim == 1 or reduction == "sum" else len(p.x)
    for i, (ours, theirs) in enumerate(zip(hand, auto)):
        for k, leaf in enumerate("Wb"):
            value, oracle = getattr(ours, leaf), getattr(theirs, leaf)
            assert value.dtype == oracle.dtype == p.params[i].W.dtype
            error = distance(value, oracle)
            if not error <= tolerance * np.linalg.norm(np.float64(oracle)):  # then the terms may have cancelled
                size = summed_terms(p)[i][k] / examples
                assert error <= tolerance * size, f"params[{i}].{leaf}, {reduction}: {error:.2e} of {size:.2e}"


@contextlib.contextmanager
def compilations():
    """The names of the programs that are compiled inside."""
    programs = []

    def listen(event, _seconds, **named):
        if event == "/jax/core/compile/backend_compile_duration":
            programs.append(named.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield programs
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
