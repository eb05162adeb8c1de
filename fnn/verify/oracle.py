"""Autodiff as the oracle: its value of every quantity, in a chosen dtype and at the highest matmul precision.

The modules of ``verify`` are the only ones in the package that use automatic differentiation.
"""

import contextlib
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fnn.batchnorm import normalise
from fnn.dropout import masked
from fnn.layers import LayerTrace, Params

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
NORM_TOLERANCE = {"float64": 1e-12, "float32": 1e-4}  # a batch norm divides by a deviation estimated from few examples


@contextlib.contextmanager
def exactly(dtype: str):
    """A context with x64 for float64 and the highest matmul precision; both are restored on exit.

    With TF32, a correct derivation shows an error of 6e-4; with bfloat16 passes, 5e-3.
    """
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        yield


def is_floating(leaf) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, float)) and jnp.issubdtype(
        jnp.result_type(leaf), jnp.floating
    )


def in_dtype(tree, dtype: str):
    """The floating leaves of a pytree in ``dtype``, its other leaves unchanged; call it inside ``exactly``."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype) if is_floating(leaf) else leaf, tree)


def to_numpy(tree):
    """Every leaf as a NumPy array, because float64 JAX arrays do not survive outside the context."""
    return jax.tree.map(np.asarray, tree)


def one_ulp_away(tree, seed: int):
    """The floating leaves moved to an adjacent number, up or down at random."""
    random = np.random.default_rng(seed)

    def move(leaf):
        if not is_floating(leaf):
            return leaf
        leaf = np.asarray(leaf)
        return jnp.asarray(np.nextafter(leaf, random.choice([-np.inf, np.inf], leaf.shape).astype(leaf.dtype)))

    return jax.tree.map(move, tree)


def neighbours(tree) -> tuple:
    """The tree with every floating leaf moved down, and up, by a few units in the last place."""

    def moved(sign):
        def move(leaf):
            if not is_floating(leaf):
                return leaf
            step = 4 * float(jnp.finfo(jnp.result_type(leaf)).eps)
            leaf = np.asarray(leaf)
            with np.errstate(invalid="ignore"):  # an infinity has no neighbours
                return jnp.asarray((leaf + sign * step * np.maximum(1, np.abs(leaf))).astype(leaf.dtype))

        return jax.tree.map(move, tree)

    return moved(-1), moved(+1)


def fresh(tree):
    """The same leaves in new containers, so that code that modifies its arguments cannot hide anything."""
    return jax.tree.map(lambda leaf: leaf, tree)


class Quantities(NamedTuple):
    """Autodiff's derivatives of the loss, summed over the examples, with respect to everything in the network.

    params, x: like the arguments; psi, z, a: one (B, n_ℓ) per layer, ∂/∂ψ = δ, ∂/∂z and g = ∂/∂a.
    """

    params: Params
    x: Array
    psi: tuple[Array, ...]
    z: tuple[Array, ...]
    a: tuple[Array, ...]


@partial(jax.jit, static_argnames="loss")
def quantities(params: Params, x: Array, y: Array, masks, loss) -> tuple[Quantities, tuple[LayerTrace, ...]]:
    """The derivatives with respect to zeros added to every ψ, z and a, from one ``jax.grad``; and the trace."""

    def total(params, x, psi, z, a):
        a_out, traces = x, []
        for layer, mask, d_psi, d_z, d_a in zip(params, masks, psi, z, a):
            a_in = masked(a_out, mask.units)
            psi_ = a_in @ masked(layer.W, mask.arrows).T + layer.b + d_psi
            z_ = (psi_ if layer.norm is None else normalise(layer.norm, psi_)) + d_z
            a_out = layer.activation.value(z_) + d_a
            traces.append(LayerTrace(a_in, psi_, z_, a_out))
        return jnp.sum(loss.value(a_out, y)), tuple(traces)

    zeros = tuple(jnp.zeros((len(x), len(layer.b)), x.dtype) for layer in params)
    derivatives, traces = jax.grad(total, argnums=range(5), has_aux=True)(params, x, zeros, zeros, zeros)
    return Quantities(*derivatives), traces


@partial(jax.jit, static_argnames="activation")
def one_sided(activation, z: Array) -> tuple[Array, Array]:
    """Autodiff's σ' a few units in the last place below and above z, elementwise."""
    step = 4 * jnp.finfo(z.dtype).eps * jnp.maximum(1, jnp.abs(z))

    def slope(z):
        return jax.vjp(activation.value, z)[1](jnp.ones_like(z))[0]

    return slope(z - step), slope(z + step)
