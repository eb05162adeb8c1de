"""The factors of every example's gradient, layer by layer, and the sums that are made of them."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fnn import checks
from fnn.backward import RULES, run
from fnn.batchnorm import BatchNorm, standardise
from fnn.dropout import Mask
from fnn.losses import Loss
from fnn.network import Dense, Params, trace


class Factors(NamedTuple):
    """The gradients of a layer's examples: by W δ_i a_iᵀ, by b δ_i, and by a batch norm's γ and β, which are rows.

    a_in: (B, n_in); delta: (B, n_out); by_gamma = δ_z ⊙ x̂ and by_beta = δ_z: (B, n_out), or None without batch norm.
    Of a stack each has an axis of layers in front.
    """

    a_in: Array
    delta: Array
    by_gamma: Array | None = None
    by_beta: Array | None = None

    @property
    def by_norm(self) -> list[Array]:
        return [v for v in (self.by_gamma, self.by_beta) if v is not None]


def arguments(params, x, y, loss: Loss, masks, arrows: bool = True):
    """(params, x, y, masks) as the compiled functions take them; y may be None; arrows: whether arrow masks may be."""
    params, x, masks = checks.network_arguments(params, x, masks)
    if y is not None:
        checks.target_arguments(params, y, loss)
    require_examples(x)
    for i, layer in enumerate(params):
        require_fixed(f"params[{i}].norm", layer.norm, "fnn.init(..., batch_norm='fixed'), or fnn.fold it")
    for i, mask in enumerate(masks):
        if not arrows and mask.arrows is not None:
            raise ValueError(
                f"masks[{i}].arrows: expected None, for with arrow masks every neuron has inputs of its own, and "
                "no product of a layer's inputs is that of all; write per_example.gradients(...), and multiply those"
            )
    return params, x, y, masks


def require_examples(x: Array) -> None:
    """Raise ValueError for a single example."""
    if x.ndim != 2:
        raise ValueError(f"x: expected examples in rows, (B, n_0), got shape {x.shape}; write x[None], and y[None]")


def require_fixed(name: str, norm: BatchNorm | None, call: str) -> None:
    """Raise ValueError where a batch norm's statistics are differentiated; call: what to write."""
    if norm is not None and norm.gradient != "fixed":
        raise ValueError(
            f"{name}: with gradient={norm.gradient!r} the loss of each example depends on all of "
            f"them, and none has a gradient of its own; write {call}"
        )


def factors(params: Params, x: Array, y: Array, masks, loss: Loss) -> list[Factors]:
    """The factors of every entry of ``params``, from one forward and one backward pass."""
    found = []
    both = run(("deltas", "deltas_z"), params, x, y, loss, "sum", masks, RULES)
    for layer, t, delta, delta_z in zip(params, trace(params, x, masks), *both):
        if layer.norm is None:
            found.append(Factors(t.a_in, delta))
        else:
            x_hat, _ = (jax.vmap(standardise) if layer.stacked else standardise)(layer.norm, t.psi)
            found.append(Factors(t.a_in, delta, delta_z * x_hat, delta_z))
    return found


def equal_weights(x: Array) -> Array:
    """The weights of a mean over the examples, (B,)."""
    return jnp.full(len(x), 1 / len(x), x.dtype)


def squared(value: Array) -> Array:
    """The squared length of every row."""
    return jnp.sum(value * value, axis=-1)


def squared_norms(f: Factors, mask: Mask) -> Array:
    """‖g_i‖² by one layer's parameters, (…, B)."""
    if mask.arrows is None:
        by_affine = squared(f.delta) * (squared(f.a_in) + 1)
    else:
        by_affine = jnp.sum(((f.delta**2) @ (mask.arrows**2)) * f.a_in**2, axis=-1) + squared(f.delta)
    return sum(map(squared, f.by_norm), by_affine)


def squared_lengths(params: Params, of_layers: list[Factors], masks) -> tuple[Array, tuple[Array, ...]]:
    """‖g_i‖² by all parameters, (B,), and by each entry of ``params``."""
    lengths = tuple(map(squared_norms, of_layers, masks))
    return total(lengths), lengths


def total(of_layers: Iterable[Array]) -> Array:
    """The sum over all layers of what is (B,), or (D, B) for a stack."""
    start: Any = 0
    return sum((jnp.sum(v.reshape(-1, v.shape[-1]), axis=0) for v in of_layers), start)


def weighted_sums(params: Params, of_layers: list[Factors], masks, weights: Array, power: int = 1) -> Params:
    """Σ_i w_i g_i, or with power 2 the sum of the squares of its entries: a pytree like ``params``; weights: (B,)."""

    def layer_sum(layer: Dense, f: Factors, mask: Mask) -> Dense:
        delta = weights[:, None] * f.delta**power
        W, norm = jnp.einsum("...bj,...bk->...jk", delta, f.a_in**power), layer.norm
        if mask.arrows is not None:
            W = W * mask.arrows**power
        if norm is not None:
            gamma, beta = (jnp.sum(weights[:, None] * v**power, axis=-2) for v in f.by_norm)
            norm = replace(norm, gamma=gamma, beta=beta)
        return replace(layer, W=W, b=jnp.sum(delta, axis=-2), norm=norm)

    return tuple(map(layer_sum, params, of_layers, masks))


def outer_products(params: Params, of_layers: list[Factors], masks) -> Params:
    """Every g_i in full: a pytree like ``params``, the examples in front."""

    def layer_products(layer: Dense, f: Factors, mask: Mask) -> Dense:
        W, norm = jnp.einsum("...bj,...bk->...bjk", f.delta, f.a_in), layer.norm
        if mask.arrows is not None:
            W = W * mask.arrows[..., None, :, :]
        if norm is not None:
            gamma, beta = (jnp.moveaxis(v, -2, 0) for v in f.by_norm)
            norm = replace(norm, gamma=gamma, beta=beta)
        return replace(layer, W=jnp.moveaxis(W, -3, 0), b=jnp.moveaxis(f.delta, -2, 0), norm=norm)

    return tuple(map(layer_products, params, of_layers, masks))
