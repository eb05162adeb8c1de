"""Implicit SGD for generalised linear models: cross-entropies and Poisson on one linear layer.

∂L/∂θ_k = ∂L/∂a_k x̃, so θ'_k = θ_k + α_k x̃ with α_k = (z_k − u_k)/‖x̃‖², where z solves z = u − η‖x̃‖² ∂L/∂a(z); see
``scalar``. Exact for one example of any size and any η. A batch averages the exact steps of its examples from the same
θ. This is not the implicit step of the batch's mean loss, which would be one equation in all B unknowns.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from fnn.backward import bias_gradient, weight_gradient
from fnn.checks import targets
from fnn.checks.arrays import AnyArray
from fnn.functions import trace
from fnn.implicit import scalar
from fnn.implicit.given import given, one_linear_layer, target_values
from fnn.layers import Dense, LayerTrace, Params
from fnn.losses import Loss, Poisson, SigmoidCrossEntropy, SoftmaxCrossEntropy, SquaredError, as_targets

LOSSES = (SigmoidCrossEntropy, SoftmaxCrossEntropy, Poisson)


def generalized_linear(
    params: Params, x: AnyArray, y: AnyArray, learning_rate: float | Array, *, loss: Loss = SquaredError()
) -> Params:
    """One implicit step of a generalised linear model; a batch averages the steps of its examples.

    params: one ``Dense`` with ``Identity``; x: (B, n_0) or (n_0,), in the parameters' dtype; learning_rate: any η > 0.
    loss and y: ``SigmoidCrossEntropy`` with rows (B, n_1) in [0, 1]; ``SoftmaxCrossEntropy`` with one-hot rows;
    either with integer labels (B,); ``Poisson`` with counts ≥ 0, (B, n_1). Returns new parameters.

    θ'_n = θ − η ∇L_n(θ'_n) for each example n, and θ' = Σ_n θ'_n/N: robust to a large η, since each θ'_n is.
    Soft targets are refused for the softmax, because no method here is safe for them at every η; in a traced y, which
    cannot be checked, they give NaN. May be called under jit, vmap or scan.
    Raises TypeError or ValueError that names the argument.

    Source: Toulis, Airoldi and Rennie, *Statistical analysis of stochastic gradient methods for generalized linear
    models* (2014); the equations in ``fnn.implicit.scalar``.

    >>> import fnn
    >>> params = (fnn.Dense(jnp.zeros((1, 1)), jnp.zeros(1), fnn.Identity()),)
    >>> x, y = jnp.ones(1), jnp.ones(1)
    >>> new = generalized_linear(params, x, y, 2.0, loss=fnn.SigmoidCrossEntropy())
    >>> explicit = 0 - 2.0 * (jax.nn.sigmoid(2 * new[0].b) - 1)  # θ − η ∇L, at θ'
    >>> bool(jnp.allclose(new[0].b, explicit))
    True
    """
    params, x, y, eta = given("generalized_linear", params, x, y, learning_rate, loss)
    one_linear_layer("generalized_linear", params)
    if type(loss) not in LOSSES:
        instead = "implicit.linear(...)" if type(loss) is SquaredError else "loss=fnn.SigmoidCrossEntropy()"
        raise ValueError(
            f"loss: expected {' or '.join(f'{kind.__name__}()' for kind in LOSSES)}, got {loss!r}; write {instead}"
        )
    target_values(y, loss)
    return _generalized_linear(params, x, y, eta, loss=loss)


@partial(jax.jit, static_argnames="loss")
def _generalized_linear(params, x, y, eta, *, loss):
    t, y = rows(params, x, y, loss)
    return (moved(params[0], t[0], output_step(loss, t[0].psi, y, eta, squared_length(t[0].a_in))),)


def output_step(loss: Loss, u: Array, y: Array, eta: Array, s: Array) -> Array:
    """α = (z − u)/s, where z = u − ηs ∂L/∂a(z), (B, n): u (B, n), s (B, 1), y as the loss takes it."""
    y = as_targets(y, u)
    if type(loss) is SquaredError:
        return -eta * loss.gradient(u, y) / (1 + 2 * loss.scale * eta * s)
    c = eta * s
    if type(loss) is SoftmaxCrossEntropy:
        hot = y == 1
        one_hot = jnp.all(hot | (y == 0), axis=-1, keepdims=True) & (jnp.sum(y, axis=-1, keepdims=True) == 1)
        return jnp.where(one_hot, scalar.softmax(u, c[:, 0], hot) / s, jnp.nan)
    c = jnp.broadcast_to(c, u.shape)
    if type(loss) is SigmoidCrossEntropy:
        return jnp.where((y >= 0) & (y <= 1), (scalar.logistic(u, c, y) - u) / s, jnp.nan)
    return (scalar.poisson(u, c, y) - u) / s


def squared_length(a_in: Array) -> Array:
    """‖x̃‖² = ‖a_in‖² + 1, (B, 1)."""
    return 1 + jnp.sum(a_in * a_in, axis=-1, keepdims=True)


def moved(layer: Dense, t: LayerTrace, alpha: Array) -> Dense:
    """The layer after the mean of the examples' steps, w + α_n x̃_n: one matmul, as in (3)."""
    scale = 1 / len(alpha)
    return replace(layer, W=layer.W + weight_gradient(alpha, t.a_in) * scale, b=layer.b + bias_gradient(alpha) * scale)


def rows(params: Params, x: AnyArray, y: AnyArray, loss: Loss) -> tuple[tuple[LayerTrace, ...], Array]:
    """The traces and y with examples in rows; y is checked."""
    x, y = (jnp.asarray(value) if x.ndim == 2 else jnp.asarray(value)[None] for value in (x, y))
    traces = trace(params, x)
    targets.target(y, traces[-1].a, loss)
    return traces, y
