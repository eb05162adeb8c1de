"""The implicit step of a whole network, by Newton–CG on its proximal problem.

    F(θ') = η C(θ') + ½‖θ' − θ‖²        ∇F = θ' − θ + η ∇C(θ')        ∇²F = I + ηH

∇C comes from back-propagation and Hv from the R-operator (``curvature.hvp``), with one Hv per conjugate-gradient
direction. θ' is a zero of ∇F reached by descent from θ: F(θ') ≤ F(θ), so C(θ') ≤ C(θ).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from fnn.checks import arrays, targets
from fnn.checks import network as checks
from fnn.checks.arrays import AnyArray
from fnn.curvature import hvp
from fnn.functions import value_and_backprop
from fnn.implicit.given import rate
from fnn.implicit.newton import length, minimise
from fnn.layers import Params
from fnn.losses import Loss, SquaredError
from fnn.numbers import number, whole

ROUNDINGS = 32  # rounding of η∇C in units of ε η: in float32, 671 of 672 small networks with η up to 1e4 need fewer


class NotConverged(RuntimeError):
    """No θ' was found with ‖θ' − θ + η∇C(θ')‖ ≤ ``allowed``; ``residual``: the value that was reached."""

    def __init__(self, message: str, residual: float, allowed: float):
        super().__init__(message, residual, allowed)  # all arguments, so that it can be pickled
        self.residual, self.allowed = residual, allowed

    def __str__(self) -> str:
        return self.args[0]


def step(
    params: Params,
    x: AnyArray,
    y: AnyArray,
    learning_rate: float | Array,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks=None,
    tolerance: float | None = None,
    steps: int = 1000,
) -> Params:
    """One implicit step of a whole network: θ' = θ − η ∇C(θ'), all layers at once.

    params: tuple of ``Dense`` and ``Stack`` whose activations have a continuous σ'; x: (B, n_0) or (n_0,), in the
    parameters' dtype; y, loss: as in ``fnn.backprop``; learning_rate: η > 0; reduction: C is the "mean" or the "sum" of
    the examples' losses; masks: one ``Mask`` per layer, or None. Returns new parameters.

    The result satisfies ‖θ' − θ + η∇C(θ')‖ ≤ tolerance · (1 + ‖θ‖). tolerance: > 0, or None for the larger of 1e-10 and
    what rounding allows, 32 ε (1 + η), with Bη instead of η for a sum. In float32 that is 4e-6 (1 + η); in float64 it
    is 1e-10 up to η = 1e4.
    steps: the maximum number of Newton steps, ≥ 1. Up to η = 1 about a dozen suffice, each with some five products Hv.
    At η = 1e4, where the proximal problem is close to training to convergence, it can take hundreds of steps and
    thousands of products. Batch norms curve on the scale of √eps: with several of them, the method may not converge for
    η ≥ 100.

    θ' is the unique minimiser if η < 1/|λ|, with λ the lowest eigenvalue of H anywhere. For larger η it is a minimiser
    that descent from θ finds, with η C(θ') + ½‖θ' − θ‖² no higher than at θ or at the end of the explicit step. A
    ``Stack`` and the same layers one by one, summed in a different order, may then find different ones.

    Raises TypeError or ValueError that names the argument. This includes activations with a kink, such as ``ReLU``: ∇C
    jumps there, and the minimiser lies on kinks, where no gradient is 0. It also includes a batch norm with
    ``gradient="fixed"``, which is not the gradient of any function. Raises :class:`NotConverged` if it does not
    converge; under jit or vmap, which cannot raise, the parameters are NaN instead.

    Source: Toulis and Airoldi, *Asymptotic and finite-sample properties of estimators based on stochastic gradients*
    (2017); the method is in ``fnn.implicit.newton``.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2), activation=fnn.Tanh())
    >>> x, y = jax.random.normal(jax.random.key(1), (5, 3)), jnp.array([0, 1, 1, 0, 1])
    >>> cost = lambda params: fnn.SoftmaxCrossEntropy().value(fnn.forward(params, x), y).mean()
    >>> new = step(params, x, y, 100.0, loss=fnn.SoftmaxCrossEntropy())
    >>> bool(cost(new) < 0.1 * cost(params))
    True
    """
    params, x, masks = checks.careful_arguments(params, x, masks)
    y = targets.given_target(checks.ports(params), y, loss)
    arrays.one_of("reduction", reduction, checks.REDUCTIONS)
    _smooth(params)
    eta, steps = rate("step", learning_rate, params[0].W.dtype), whole("steps", steps)
    scale = eta * len(x) if reduction == "sum" and x.ndim == 2 else eta
    if tolerance is None:
        relative = jnp.maximum(1e-10, ROUNDINGS * float(jnp.finfo(eta.dtype).eps) * (1 + scale))
    else:
        relative = jnp.asarray(number("implicit.step", "tolerance", tolerance, above=0), eta.dtype)
    with jax.default_matmul_precision("highest"):  # an accelerator's default precision would dominate the residual
        new, residual, allowed = _step(
            params, (x, y, masks), eta, scale, relative, jnp.int32(steps), loss=loss, reduction=reduction
        )
    if not isinstance(residual, jax.core.Tracer) and not residual <= allowed:
        _fail(float(residual), float(allowed), float(eta), steps)
    return new


@partial(jax.jit, static_argnames=("loss", "reduction"))
def _step(params, data, eta, scale, relative, steps, *, loss, reduction):
    x, y, masks = data
    theta, unravel = ravel_pytree(params)
    options = {"loss": loss, "reduction": reduction, "masks": masks}

    def evaluate(u):
        cost, gradients = value_and_backprop(unravel(u), x, y, **options)
        away = u - theta
        return eta * cost + 0.5 * jnp.sum(away * away), away + eta * ravel_pytree(gradients)[0]

    def product(u, v):
        return v + eta * ravel_pytree(hvp(unravel(u), x, y, unravel(v), **options))[0]

    allowed = relative * (1 + length(theta))
    found = minimise(evaluate, product, theta, goal=allowed, scale=scale, steps=steps)
    residual = length(found.gradient)
    return unravel(jnp.where(residual <= allowed, found.u, jnp.nan)), residual, allowed


def _smooth(params) -> None:
    """Raise ValueError for a layer whose part of ∇C jumps or is not the gradient of a function."""
    for i, layer in enumerate(params):
        if not getattr(layer.activation, "smooth", True):
            raise ValueError(
                f"params[{i}].activation: expected one with a continuous σ', got {layer.activation!r}, at whose kinks "
                "∇C jumps: the minimiser lies there, and no residual goes to 0; write fnn.init(key, sizes, "
                "activation=fnn.Softplus()), or implicit.layerwise(...) for a ReLU"
            )
        if layer.norm is not None and layer.norm.gradient != "full":
            raise ValueError(
                f"params[{i}].norm: with gradient={layer.norm.gradient!r} back-propagation does not give the "
                "gradient of any function of the batch, so there is nothing to minimise; "
                "write fnn.init(..., batch_norm='full')"
            )


def _fail(residual: float, allowed: float, eta: float, steps: int) -> None:
    raise NotConverged(
        f"implicit.step: expected ‖θ' − θ + η∇C(θ')‖ <= {allowed:.1e}, got {residual:.1e} after at most {steps} Newton "
        f"steps; write a smaller learning_rate, such as {eta / 10:g}, or more steps, such as steps={10 * steps}",
        residual,
        allowed,
    )
