"""Implicit SGD for least squares: one linear layer, squared error, and the batch's linear system.

With examples x̃ = (x, 1) in the rows of X, residuals R = XΘᵀ − Y, scale σ of the loss and c = 2ση/N, the step D = Θ' − Θ
satisfies D = −c (R + XDᵀ)ᵀX. For one example, D = −c r x̃ᵀ/(1 + c‖x̃‖²). For a batch there are two equivalent forms,

    D = −c Rᵀ(I + cXXᵀ)⁻¹X    (Woodbury: B × B)        D = −c RᵀX(I + cXᵀX)⁻¹    (normal: n × n)

and the thin singular value decomposition X = UΣVᵀ, with min(B, n) terms, covers both:

    D = −Rᵀ U diag(cσ_i/(1 + cσ_i²)) Vᵀ

XXᵀ is never formed: I + cXXᵀ has the square of X's condition number, and with two equal examples and c‖X‖² > 1e16 it is
numerically singular although the step is well determined.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from fnn.checks import arrays, targets
from fnn.checks import network as checks
from fnn.checks.arrays import AnyArray
from fnn.functions import trace
from fnn.implicit.given import given, one_linear_layer
from fnn.layers import Params
from fnn.losses import Loss, SquaredError


def linear(
    params: Params,
    x: AnyArray,
    y: AnyArray,
    learning_rate: float | Array,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
) -> Params:
    """One implicit step of least squares, θ' = θ − η ∇C(θ') exactly, for one example or a whole batch.

    params: one ``Dense`` with ``Identity``; x: (B, n_0) or (n_0,); y: (B, n_1) or (n_1,), all of one floating dtype;
    learning_rate: any η > 0; loss: ``SquaredError`` of any scale; reduction: C is the "mean" or the "sum" of the
    examples' losses. Returns new parameters.

    One example, with r = θᵀx̃ − y and c = 2 · scale · η:  θ' = θ − c r x̃/(1 + c‖x̃‖²).
    A batch costs one singular value decomposition of (B, n_0 + 1). May be called under jit, vmap or scan.
    Raises TypeError or ValueError that names the argument.

    Source: Toulis and Airoldi, *Asymptotic and finite-sample properties of estimators based on stochastic gradients*
    (2017), for one example; for a batch, by the push-through identity.

    >>> import fnn
    >>> params = (fnn.Dense(jnp.zeros((1, 2)), jnp.zeros(1), fnn.Identity()),)
    >>> new = linear(params, jnp.array([1.0, 0.0]), jnp.array([3.0]), 1.0)  # 3/(1 + 2) along (1, 0, 1)
    >>> new[0].W.tolist(), new[0].b.tolist()
    ([[1.0, 0.0]], [1.0])
    """
    params, x, y, eta = given("linear", params, x, y, learning_rate, loss)
    one_linear_layer("linear", params)
    if type(loss) is not SquaredError:
        raise ValueError(
            f"loss: implicit.linear takes SquaredError(scale), got {loss!r}; write implicit.generalized_linear(...)"
        )
    arrays.one_of("reduction", reduction, checks.REDUCTIONS)
    return _linear(params, x, y, eta, scale=loss.scale, reduction=reduction)


@partial(jax.jit, static_argnames=("scale", "reduction"))
def _linear(params, x, y, eta, *, scale, reduction):
    (layer,) = params
    (t,) = trace(params, x)
    targets.target(y, t.a, SquaredError(scale))
    r = jnp.atleast_2d(t.a - y)  # (B, n_1)
    X = jnp.pad(jnp.atleast_2d(x), ((0, 0), (0, 1)), constant_values=1)
    c = 2 * scale * eta / (len(X) if reduction == "mean" else 1)
    if len(X) == 1:
        D = -(r * (c / (1 + c * jnp.sum(X * X)))).T @ X
    else:
        U, sigma, Vt = jnp.linalg.svd(X, full_matrices=False)
        D = -(r.T @ U) * (c * sigma / (1 + c * sigma * sigma)) @ Vt
    return (replace(layer, W=layer.W + D[:, :-1], b=layer.b + D[:, -1]),)
