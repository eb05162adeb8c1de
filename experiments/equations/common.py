"""What the rows run on: small float64 networks with random weights and biases, data, autodiff's answers, a distance."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn

SIZES = (3, 4, 2)  # the network of Bhaip's lecture


class Problem(NamedTuple):
    """A network with data and loss."""

    params: tuple
    x: jax.Array
    y: jax.Array
    loss: fnn.Loss


class Oracle(NamedTuple):
    """Autodiff's derivatives of the loss, summed over the examples: by the parameters, every ψ, every a, and by x."""

    gradients: tuple  # like params
    deltas: tuple[jax.Array, ...]  # δ^ℓ = ∂/∂ψ^ℓ
    by_a: tuple[jax.Array, ...]
    x: jax.Array


def problem(
    sizes: Sequence[int] = SIZES,
    *,
    activation: fnn.Activation = fnn.Sigmoid(),
    output: fnn.Activation | None = None,
    loss: fnn.Loss = fnn.SquaredError(0.5),
    batch: int | None = 6,
    seed: int = 0,
) -> Problem:
    """Weights N(0, 1/n_in), biases N(0, ¼), inputs N(0, 1), targets in (0, 1); ``output``: the last activation, if
    another; one example without a batch axis if batch is None."""
    random = np.random.default_rng([seed, *sizes])
    layers = [
        fnn.Dense(
            jnp.asarray(random.normal(size=(n_out, n_in)) / np.sqrt(n_in)),
            jnp.asarray(random.normal(size=n_out) / 2),
            activation,
        )
        for n_in, n_out in zip(sizes, sizes[1:])
    ]
    if output is not None:
        layers[-1] = fnn.Dense(layers[-1].W, layers[-1].b, output)
    rows = () if batch is None else (batch,)
    x = jnp.asarray(random.normal(size=(*rows, sizes[0])))
    y = jnp.asarray(random.uniform(0.05, 0.95, (*rows, sizes[-1])))
    return Problem(tuple(layers), x, y, loss)


def oracle(p: Problem) -> Oracle:
    """One ``jax.grad`` by the parameters, by zeros that are added to every ψ and a, and by x."""
    return _oracle(p.params, p.x, p.y, loss=p.loss)


@partial(jax.jit, static_argnames="loss")
def _oracle(params, x, y, *, loss):
    def summed(params, psi, a, x):
        out = jnp.atleast_2d(x)
        for layer, d_psi, d_a in zip(params, psi, a):
            out = layer.activation.value(out @ layer.W.T + layer.b + d_psi) + d_a
        return jnp.sum(loss.value(out, jnp.atleast_2d(y)))

    zeros = tuple(jnp.zeros((len(jnp.atleast_2d(x)), len(layer.b))) for layer in params)
    gradients, psi, a, of_x = jax.grad(summed, argnums=range(4))(params, zeros, zeros, x)
    psi, a = (tuple(v.reshape(*x.shape[:-1], -1) for v in part) for part in (psi, a))
    return Oracle(gradients, psi, a, of_x)


def relative(printed, right) -> float:
    """‖printed − right‖ / ‖right‖ over all leaves together; inf where the shapes differ."""
    pairs = list(zip(map(np.asarray, jax.tree.leaves(printed)), map(np.asarray, jax.tree.leaves(right)), strict=True))
    if any(ours.shape != theirs.shape for ours, theirs in pairs):
        return float("inf")
    off = np.sqrt(sum(np.sum((ours - theirs) ** 2) for ours, theirs in pairs))
    return float(off / np.sqrt(sum(np.sum(theirs**2) for _, theirs in pairs)))


def attempt(formula: Callable, right) -> float:
    """``relative`` of what ``formula()`` gives, NumPy's; inf where it has no finite value or its shapes do not fit."""
    try:
        printed = formula()
    except ValueError:  # shapes that do not fit, or an inverse that does not exist
        return float("inf")
    return relative(printed, right) if np.isfinite(printed).all() else float("inf")


def size(error: float) -> str:
    """Two digits of what is more than rounding, and of rounding its bound, because that differs between machines."""
    return "≤ 1e-12" if error <= 1e-12 else f"{error:.2g}"
