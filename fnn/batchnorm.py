"""Batch normalisation, ψ̂ = γ (ψ − μ)/√(ν + ε) + β: its statistics and its two backward passes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class BatchNorm:
    """Normalises a layer's ψ over its mini-batch.

    gamma, beta: (n,) scale and shift, trained like any other parameter.
    eps:         added to the variance, > 0.
    gradient:    "full" differentiates through the statistics, "fixed" treats them as constants.
    axis:        the device-mesh axis over which the mini-batch's rows are sharded, or None.

    The statistics are the mini-batch's own, with biased variance, computed in two passes: in float32,
    E[ψ²] − E[ψ]² has no correct digit at mean 1e4.
    """

    gamma: Array
    beta: Array
    eps: float = field(default=1e-5, metadata={"static": True})
    gradient: str = field(default="full", metadata={"static": True})
    axis: str | None = field(default=None, metadata={"static": True})


def norm_like(norm: BatchNorm | None, of_parts: Sequence) -> BatchNorm | None:
    """The same with other values for γ and β, in this order; None where there is no batch norm."""
    return None if norm is None else replace(norm, gamma=of_parts[0], beta=of_parts[1])


def standardise(norm: BatchNorm, psi: Array) -> tuple[Array, Array]:
    """x̂ = (ψ − μ)/s and s = √(ν + ε), with the batch's mean μ and biased variance ν: (B, n) and (n,).

    With ``norm.gradient == "fixed"`` no derivative passes through μ and ν, not even under autodiff.
    """
    (mu,) = _means(norm, psi)
    (nu,) = _means(norm, (psi - mu) ** 2)
    if norm.gradient == "fixed":
        mu, nu = lax.stop_gradient((mu, nu))
    s = jnp.sqrt(nu + norm.eps)
    return (psi - mu) / s, s


def normalise(norm: BatchNorm, psi: Array) -> Array:
    """ψ̂ = γ x̂ + β, (B, n)."""
    x_hat, _ = standardise(norm, psi)
    return norm.gamma * x_hat + norm.beta


def norm_pullback(norm: BatchNorm, psi: Array, delta_z: Array) -> tuple[Array, Array, Array]:
    """From δ_z = ∂/∂ψ̂ to (∂/∂ψ, ∂/∂γ, ∂/∂β), summed over the batch.

    ∂/∂γ = Σ δ_z x̂ and ∂/∂β = Σ δ_z in both cases. For ψ, with h = γ δ_z = ∂/∂x̂ and m examples:

        fixed  x̂ depends on ψ_i only directly:                  ∂/∂ψ_i = h_i / s
        full   through ν:  ∂/∂ν = −½ Σ_j h_j x̂_j / s²,  ∂ν/∂ψ_i = 2 (ψ_i − μ)/m = 2 s x̂_i/m
               through μ:  ∂/∂μ = −Σ_j h_j / s,          ∂μ/∂ψ_i = 1/m   (∂ν/∂μ = −2 mean(ψ − μ) = 0)
               together:   ∂/∂ψ_i = (h_i − mean(h) − x̂_i mean(h x̂)) / s

    ψ̂ does not depend on the layer's bias: its gradient is 0 with "full", but not with "fixed".

    Shapes: psi and delta_z (B, n), results (B, n), (n,), (n,).
    """
    x_hat, s = standardise(norm, psi)
    h = norm.gamma * delta_z
    if norm.gradient == "full":
        h = _projected(norm, h, x_hat)
    return h / s, jnp.sum(delta_z * x_hat, axis=0), jnp.sum(delta_z, axis=0)


def normalise_tangent(norm: BatchNorm, along: BatchNorm, psi: Array, dpsi: Array) -> Array:
    """The change of ψ̂ along dψ and ``along`` = (dγ, dβ): dγ x̂ + γ dx̂ + dβ, (B, n)."""
    x_hat, _ = standardise(norm, psi)
    return along.gamma * x_hat + norm.gamma * _standardise_tangent(norm, psi, dpsi)[0] + along.beta


def norm_pullback_tangent(
    norm: BatchNorm, along: BatchNorm, psi: Array, dpsi: Array, delta_z: Array, d_delta_z: Array
) -> tuple[Array, Array, Array]:
    """The change of :func:`norm_pullback`'s three results along dψ, ``along`` = (dγ, dβ) and d(δ_z).

    With h = γ δ_z, dh = dγ δ_z + γ dδ_z and P(h) = h − mean(h) − x̂ mean(h x̂), full:
    d(P(h)/s) = (P(dh) − dx̂ mean(h x̂) − x̂ mean(h dx̂))/s − P(h) ds/s²; fixed: dh/s.
    """
    x_hat, s = standardise(norm, psi)
    dx_hat, ds = _standardise_tangent(norm, psi, dpsi)
    dh = along.gamma * delta_z + norm.gamma * d_delta_z
    if norm.gradient == "full":
        h = norm.gamma * delta_z
        along_x_hat, along_dx_hat = _means(norm, h * x_hat, h * dx_hat)
        dh = _projected(norm, dh, x_hat) - dx_hat * along_x_hat - x_hat * along_dx_hat
        dh -= _projected(norm, h, x_hat) * (ds / s)
    return dh / s, jnp.sum(d_delta_z * x_hat + delta_z * dx_hat, axis=0), jnp.sum(d_delta_z, axis=0)


class NormStatistics(NamedTuple):
    """Mean and unbiased variance of a layer's ψ over the population, (n,) each; (D, n) for a ``Stack``."""

    mean: Array
    variance: Array


def psi_statistics(psi: Array) -> NormStatistics:
    """The mean and the unbiased variance of ψ (…, m, n) over a mini-batch, in two passes."""
    mean = jnp.mean(psi, axis=-2, keepdims=True)
    return NormStatistics(mean[..., 0, :], jnp.sum((psi - mean) ** 2, axis=-2) / (psi.shape[-2] - 1))


def _standardise_tangent(norm: BatchNorm, psi: Array, dpsi: Array) -> tuple[Array, Array]:
    """dx̂ and ds along dψ; with "full" by the pull-back's projection, because ∂x̂/∂ψ is symmetric."""
    x_hat, s = standardise(norm, psi)
    if norm.gradient == "fixed":
        return dpsi / s, jnp.zeros_like(s)
    return _projected(norm, dpsi, x_hat) / s, _means(norm, x_hat * dpsi)[0]


def _projected(norm: BatchNorm, h: Array, x_hat: Array) -> Array:
    """h − mean(h) − x̂ mean(h x̂)."""
    of_h, of_product = _means(norm, h, h * x_hat)
    return h - of_h - x_hat * of_product


def _means(norm: BatchNorm, *values: Array) -> list[Array]:
    """The mean of each over the rows of the whole mini-batch, (n,), across all devices of ``norm.axis`` if it is set.

    All devices hold equally many rows. Their means are gathered in one message and added in device order, whereas the
    summation order of an all-reduce depends on how the devices are spread over processes.
    """
    here = [jnp.mean(value, axis=0) for value in values]
    return here if norm.axis is None else list(jnp.mean(lax.all_gather(jnp.stack(here), norm.axis), axis=0))
