"""The factors of every example's gradient, layer by layer, and the sums formed from them."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fnn.backward import RULES
from fnn.batchnorm import BatchNorm, norm_like, standardise
from fnn.kinds import Backward, Outputs, kind
from fnn.layers import Dense, Params
from fnn.masks import Mask


class Factors(NamedTuple):
    """The factors of a layer's per-example gradients: δ_i a_iᵀ for W, δ_i for b, and rows for a batch norm's γ and β.

    a_in: (B, n_in); delta: (B, n_out); by_gamma = δ_z ⊙ x̂ and by_beta = δ_z: (B, n_out), or None without batch norm.
    For a stack each has a leading axis of layers. one: None, or the input of the biases where that is not 1, (B, 1).
    """

    a_in: Array
    delta: Array
    by_gamma: Array | None = None
    by_beta: Array | None = None
    one: Array | None = None

    @property
    def by_norm(self) -> list[Array]:
        return [v for v in (self.by_gamma, self.by_beta) if v is not None]

    @property
    def by_bias(self) -> Array:
        """δ_i times the input of the biases."""
        return self.delta if self.one is None else self.delta * self.one


def require_separable(params: Params) -> None:
    """Raise ValueError unless per-example gradients exist."""
    for i, layer in enumerate(params):
        require_fixed(f"params[{i}].norm", layer.norm, "fnn.init(..., batch_norm='fixed'), or fnn.fold it")


def require_fixed(name: str, norm: BatchNorm | None, call: str) -> None:
    """Raise ValueError if a batch norm's statistics are differentiated; call: the corrected call."""
    if norm is not None and norm.gradient != "fixed":
        raise ValueError(
            f"{name}: with gradient={norm.gradient!r} the loss of each example depends on all of "
            f"them, so that there are no per-example gradients; write {call}"
        )


def require_shared_inputs(masks) -> None:
    """Raise ValueError if a mask of arrows gives every neuron different inputs."""
    for i, mask in enumerate(masks):
        if mask.arrows is not None:
            raise ValueError(
                f"masks[{i}].arrows: expected None, because with arrow masks every neuron has its own inputs, so that "
                "products of a layer's inputs are not shared; write per_example.gradients(...), and multiply those"
            )


def factors(params: Params, masks, outputs: Outputs, delta_z: Array) -> list[Factors]:
    """The factors of every entry of ``params`` from a forward pass and a seed ∂/∂z^L (B, n_L)."""
    pulled: Backward = kind(params).backward(RULES, params, masks, outputs.passed, delta_z)
    found = []
    for layer, (_, t), delta, delta_z in zip(params, outputs.passed, pulled.deltas, pulled.deltas_z):
        if layer.norm is None:
            found.append(Factors(t.a_in, delta))
        else:
            x_hat, _ = (jax.vmap(standardise) if layer.stacked else standardise)(layer.norm, t.psi)
            found.append(Factors(t.a_in, delta, delta_z * x_hat, delta_z))
    return found


def equal_weights(x: Array) -> Array:
    """The weights of a mean over the examples, (B,)."""
    return jnp.full(len(x), 1 / len(x), x.dtype)


class Scaled(NamedTuple):
    """Factors with g_i = g'_i ``by``_i, (B,) in two factors, whose products neither overflow nor vanish."""

    factors: Any  # those of every example's g'_i, with entries of order 1 where they were huge or tiny
    of_delta: Array
    of_input: Array

    def unscaled(self, lengths: Array) -> Array:
        """‖g_i‖ from ‖g'_i‖, (…, B)."""
        return lengths * self.of_delta * self.of_input


def scaled(found) -> Scaled:
    """The same factors, of the layers or of a graph, scaled by powers of two, so that rounding is the same.

    One scale for every example's δ's, and one for its inputs with the biases' 1, from their largest entries.
    """
    every = [found] if isinstance(found, Factors) else found
    deltas = [v for f in every for v in (f.delta, *f.by_norm)]
    of_delta = power_of_two(_largest(deltas))
    of_input = jnp.maximum(power_of_two(_largest([f.a_in for f in every])), 1)

    def by(f: Factors) -> Factors:
        d, x = of_delta[:, None], of_input[:, None]
        gamma, beta = (None if v is None else v / d / x for v in (f.by_gamma, f.by_beta))
        return Factors(f.a_in / x, f.delta / d, gamma, beta, 1 / x)

    return Scaled(by(found) if isinstance(found, Factors) else [*map(by, every)], of_delta, of_input)


def _largest(values: list[Array]) -> Array:
    """The largest entry of every example in all values (…, B, n), (B,)."""
    largest = [jnp.max(jnp.abs(v), axis=(*range(v.ndim - 2), v.ndim - 1)) for v in values]
    return jnp.max(jnp.stack(largest), axis=0)


def power_of_two(most: Array) -> Array:
    """A power of two near each number, or 1 if that is not extreme: in float32, between 2⁻²⁰ and 2²⁰."""
    _, exponent = jnp.frexp(most)
    usual = (jnp.abs(exponent) <= 5 * jnp.finfo(most.dtype).maxexp // 32) | ~jnp.isfinite(most) | (most == 0)
    return jnp.ldexp(jnp.ones_like(most), jnp.where(usual, 0, exponent))


def length(value: Array) -> Array:
    """The length of every row, (…,) of (…, n), whose squares neither overflow nor vanish."""
    scale = power_of_two(jnp.max(jnp.abs(value), axis=-1))
    units = value / scale[..., None]
    return scale * jnp.sqrt(jnp.sum(units * units, axis=-1))


def layer_lengths(f: Factors, mask: Mask) -> Array:
    """‖g_i‖ over one layer's parameters, (…, B)."""
    of_delta = length(f.delta)
    if mask.arrows is None:
        by_affine = of_delta * length(f.a_in)
    else:
        by_affine = jnp.sqrt(jnp.sum(((f.delta**2) @ (mask.arrows**2)) * f.a_in**2, axis=-1))
    by_bias = of_delta if f.one is None else of_delta * f.one[..., 0]
    return length(jnp.stack([by_affine, by_bias, *map(length, f.by_norm)], axis=-1))


def lengths(params: Params, of_layers: list[Factors], masks) -> tuple[Array, tuple[Array, ...]]:
    """‖g_i‖ over all parameters, (B,), and for each entry of ``params``, (…, B)."""
    found = tuple(map(layer_lengths, of_layers, masks))
    return length(jnp.concatenate([v.reshape(-1, v.shape[-1]) for v in found]).T), found


def weighted_sums(params: Params, of_layers: list[Factors], masks, weights: Array, power: int = 1) -> Params:
    """Σ_i w_i g_i, or with power 2 Σ_i w_i g_i ⊙ g_i: a pytree like ``params``; weights: (B,)."""

    def layer_sum(layer: Dense, f: Factors, mask: Mask) -> Dense:
        delta = weights[:, None] * f.delta**power
        W = jnp.einsum("...bj,...bk->...jk", delta, f.a_in**power)
        if mask.arrows is not None:
            W = W * mask.arrows**power
        b, *by_norm = (jnp.sum(weights[:, None] * v**power, axis=-2) for v in (f.by_bias, *f.by_norm))
        return replace(layer, W=W, b=b, norm=norm_like(layer.norm, by_norm))

    return tuple(map(layer_sum, params, of_layers, masks))


def outer_products(params: Params, of_layers: list[Factors], masks) -> Params:
    """Every full g_i: a pytree like ``params`` with a leading axis of examples."""

    def layer_products(layer: Dense, f: Factors, mask: Mask) -> Dense:
        W = jnp.einsum("...bj,...bk->...bjk", f.delta, f.a_in)
        if mask.arrows is not None:
            W = W * mask.arrows[..., None, :, :]
        b, *by_norm = (jnp.moveaxis(v, -2, 0) for v in (f.delta, *f.by_norm))
        return replace(layer, W=jnp.moveaxis(W, -3, 0), b=b, norm=norm_like(layer.norm, by_norm))

    return tuple(map(layer_products, params, of_layers, masks))
