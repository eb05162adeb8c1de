"""Products of the Hessian and the Gauss–Newton matrix with a vector; see ``fnn.curvature``."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fnn.backward import RULES
from fnn.checks import arrays, targets
from fnn.checks import network as checks
from fnn.checks.arrays import AnyArray
from fnn.curvature import graphs, layers
from fnn.curvature.tangents import TANGENTS, TangentRules, Tangents
from fnn.functions import given, like_examples
from fnn.kinds import AnyParams, Outputs, either, kind
from fnn.losses import Loss, SquaredError


def hvp(
    params: AnyParams,
    x: AnyArray,
    y: AnyArray,
    v: AnyParams,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks=None,
    rules: TangentRules = TANGENTS,
) -> AnyParams:
    """The Hessian of C times v, by the R-operator: a pytree like ``params``, at the cost of two gradients.

    v: a pytree like ``params``. rules: the lines of the R-operator, see ``curvature.tangents``; on a graph psi,
    input_gradient and weight_gradient must be those of ``TANGENTS``. Other arguments and errors: see ``fnn.curvature``.
    Source: Pearlmutter 1994, *Fast exact multiplication by the Hessian*.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2), activation=fnn.Tanh())
    >>> hvp(params, jnp.ones((5, 3)), jnp.zeros((5, 2)), params)
    (Dense(W=(4, 3), b=(4,), Tanh(), float32), Dense(W=(2, 4), b=(2,), Identity(), float32))
    """
    params, x, y, v, masks = given_direction(params, x, y, v, loss, reduction, masks)
    if not isinstance(rules, TangentRules):
        raise TypeError(f"rules: expected curvature.TangentRules, got {rules!r}; write TANGENTS._replace(...)")
    return hessian_product(params, x, y, v, masks, loss=loss, reduction=reduction, rules=rules)


def gauss_newton_vp(
    params: AnyParams,
    x: AnyArray,
    y: AnyArray,
    v: AnyParams,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks=None,
) -> AnyParams:
    """The generalised Gauss–Newton matrix Σ_n Jᵀ (∂²L/∂a²) J times v: a pytree like ``params``.

    J is the Jacobian of a^L, or of z^L for ``CrossEntropy`` with its matching output activation. The matrix is positive
    semi-definite for every loss here. It equals the Hessian for one layer with ``Identity``, and each layer's diagonal
    block of the Hessian if the activations are piecewise linear. Arguments and errors: see :func:`hvp`.
    Source: Schraudolph 2002, *Fast curvature matrix-vector products for second-order gradient descent*.
    """
    params, x, y, v, masks = given_direction(params, x, y, v, loss, reduction, masks)
    return _gauss_newton_vp(params, x, y, v, masks, loss=loss, reduction=reduction)


def given_direction(params, x, y, v, loss: Loss, reduction: str, masks):
    """(params, x, y, v, masks) as the compiled functions take them."""
    params, x, masks = given(params, x, masks, RULES)
    of = kind(params)
    of.require(params)
    y = targets.given_target(of.ports(params), y, loss)
    arrays.one_of("reduction", reduction, checks.REDUCTIONS)
    return params, x, y, direction(v, params), masks


def direction(v, params):
    """v in the containers of ``params``; raises unless its leaves are arrays like theirs."""
    v = tuple(v) if isinstance(v, list) else v
    leaves, structure = jax.tree.flatten(v)
    expected: Any = jax.tree.structure(params)
    if expected != structure:
        raise TypeError(f"v: expected a pytree like params, {expected}, got {structure}; write jax.tree.map(f, params)")
    for i, (leaf, like) in enumerate(zip(leaves, jax.tree.leaves(params))):
        arrays.array(f"leaf {i} of v", leaf)
        arrays.same_shape(arrays.native(leaf), like, f"leaf {i} of v")
    return arrays.native(v)


def passes(params):
    """The R-operator's two passes for these parameters: of ``curvature.layers`` or ``curvature.graphs``."""
    return either(params, layers, graphs)


@partial(jax.jit, static_argnames=("loss", "reduction", "rules"))
def hessian_product(params, x, y, v, masks, *, loss, reduction, rules):
    outputs, dz, da, _ = tangents = _forward(rules, params, v, x, masks)
    y = targets.target_rows(y, like_examples(outputs.a, x), loss)
    seed = RULES.output_delta(loss, *outputs[:3], y)  # (1)
    d_seed = rules.output_delta(loss, *outputs[:3], y, dz, da)
    product = passes(params).backward_tangents(rules, params, v, masks, tangents, (seed, d_seed))
    return _reduced(product, outputs, reduction)


@partial(jax.jit, static_argnames=("loss", "reduction"))
def _gauss_newton_vp(params, x, y, v, masks, *, loss, reduction):
    outputs, _, da, _ = _forward(TANGENTS, params, v, x, masks)
    y = targets.target_rows(y, like_examples(outputs.a, x), loss)
    seed = loss.gauss_newton(*outputs[:3], y, da)  # of J v; what is left is Jᵀ
    product = kind(params).backward(RULES, params, masks, outputs.passed, seed).gradients
    return _reduced(product, outputs, reduction)


def _forward(rules, params, v, x, masks) -> Tangents:
    kind(params).check(params, x, masks)
    return passes(params).forward_tangents(rules, params, v, jnp.atleast_2d(x), masks)


def _reduced(product, outputs: Outputs, reduction: str):
    scale = 1 / len(outputs.a) if reduction == "mean" else 1
    return jax.tree.map(lambda leaf: leaf * scale, product)
