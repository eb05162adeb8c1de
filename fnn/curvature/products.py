"""Products of the Hessian and of the Gauss–Newton matrix with a direction; see ``fnn.curvature``."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fnn.backward import RULES
from fnn.checks import arrays, targets
from fnn.checks import network as checks
from fnn.checks.arrays import AnyArray
from fnn.curvature import graphs
from fnn.curvature.tangents import TANGENTS, TangentRules
from fnn.dropout import masked
from fnn.functions import given, like_examples
from fnn.kinds import GRAPH, AnyParams, Outputs, kind
from fnn.layers import Params, each
from fnn.losses import Loss, SquaredError
from fnn.network import layer_forward


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
    params, x, y, v, masks = arguments(params, x, y, v, loss, reduction, masks)
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

    J is the Jacobian of a^L; behind ``CrossEntropy`` with the output activation that it matches, of z^L. The matrix is
    positive semi-definite for every loss here. It is the Hessian where the network has one layer with ``Identity``, and
    each layer's own block of it where the activations are piecewise linear. Arguments and errors: see :func:`hvp`.
    Source: Schraudolph 2002, *Fast curvature matrix-vector products for second-order gradient descent*.
    """
    params, x, y, v, masks = arguments(params, x, y, v, loss, reduction, masks)
    return _gauss_newton_vp(params, x, y, v, masks, loss=loss, reduction=reduction)


def arguments(params, x, y, v, loss: Loss, reduction: str, masks):
    """(params, x, y, v, masks) as the compiled functions take them."""
    params, x, masks = given(params, x, masks, RULES)
    of = kind(params)
    of.require(params)
    targets.target_arguments(of.ports(params), y, loss)
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
        arrays.same_shape(leaf, like, f"leaf {i} of v")
    return v


def forward_tangents(params: Params, v: Params, x: AnyArray, masks, rules: TangentRules):
    """(a^L, R{a^L}), and for every entry of params a and R{a} of the layer below, its trace, R{ψ} and R{z}."""

    def layer_tangent(carry, layer, v, mask):
        a, da = carry
        out, (_, t) = layer_forward(RULES, a, layer, mask)
        da_in = None if da is None else masked(da, mask.units)
        dpsi = rules.psi(t.a_in, da_in, masked(layer.W, mask.arrows), masked(v.W, mask.arrows), v.b)
        dz = dpsi if layer.norm is None else rules.normalise(layer.norm, v.norm, t.psi, dpsi)
        d_out = rules.activation(dz, layer.activation, t.z, t.a)
        return (out, d_out), (a, da, t, dpsi, dz)

    carry: Any = (x, None)  # R{a⁰} = 0
    passed = []
    for layer, along, mask in zip(params, v, masks):
        carry, here = each(layer_tangent, carry, layer, along, mask)
        passed.append(here)
    return carry, passed


@partial(jax.jit, static_argnames=("loss", "reduction", "rules"))
def hessian_product(params, x, y, v, masks, *, loss, reduction, rules):
    of = kind(params)
    of.check(params, x, masks)
    if of is GRAPH:
        return graphs.hvp(params, x, y, v, masks, loss, reduction, rules)
    (a, da), passed = forward_tangents(params, v, jnp.atleast_2d(x), masks, rules)
    y = targets.target_rows(y, like_examples(a, x), loss)
    scale = 1 / len(a) if reduction == "mean" else 1

    def layer_backward(above, layer, v, mask, here):
        """``backward``'s own loop, and after each of its lines the change of that line."""
        # as there, a and R{a} come from above, so that a scan keeps one array of each
        (g, dg, a, da), (a_before, da_before, t, dpsi, dz) = above, here
        if g is None:
            delta = RULES.output_delta(loss, layer.activation, t.z, a, y)  # (1)
            d_delta = rules.output_delta(loss, layer.activation, t.z, a, y, dz, da)
        else:
            delta = RULES.hidden_delta(g, layer.activation, t.z, a)  # (2b)
            d_delta = rules.hidden_delta(g, dg, layer.activation, t.z, a, dz)
        norm = None
        if layer.norm is not None:
            d_delta, gamma, beta = rules.norm_pullback(layer.norm, v.norm, t.psi, dpsi, delta, d_delta)
            delta, _, _ = RULES.norm_pullback(layer.norm, t.psi, delta)
            norm = replace(layer.norm, gamma=gamma * scale, beta=beta * scale)
        da_in = None if da_before is None else masked(da_before, mask.units)
        W = rules.weight_gradient(delta, d_delta, masked(a_before, mask.units), da_in, mask.arrows) * scale  # (3)
        b = rules.bias_gradient(d_delta) * scale  # (4)
        weights, along = masked(layer.W, mask.arrows), masked(v.W, mask.arrows)
        g = RULES.input_gradient(delta, weights, mask.units)  # (2a)
        dg = rules.input_gradient(delta, d_delta, weights, along, mask.units)
        return (g, dg, a_before, da_before), replace(layer, W=W, b=b, norm=norm)

    product: list = []
    above: Any = (None, None, a, da)
    for layer, along, mask, here in reversed(tuple(zip(params, v, masks, passed))):
        above, of_layer = each(layer_backward, above, layer, along, mask, here, reverse=True)
        product.insert(0, of_layer)
    return tuple(product)


@partial(jax.jit, static_argnames=("loss", "reduction"))
def _gauss_newton_vp(params, x, y, v, masks, *, loss, reduction):
    of = kind(params)
    of.check(params, x, masks)
    outputs, da = (graphs.output_tangent if of is GRAPH else output_tangent)(params, v, jnp.atleast_2d(x), masks)
    y = targets.target_rows(y, like_examples(outputs.a, x), loss)
    seed = loss.gauss_newton(*outputs[:3], y, da)  # of J v; what is left is Jᵀ
    scale = 1 / len(da) if reduction == "mean" else 1
    product = of.backward(RULES, params, masks, outputs.passed, seed).gradients
    return jax.tree.map(lambda leaf: leaf * scale, product)


def output_tangent(params: Params, v: Params, x: AnyArray, masks) -> tuple[Outputs, Array]:
    """The forward pass, and R{a^L} = J v."""
    (a, da), passed = forward_tangents(params, v, x, masks, TANGENTS)
    here = [(a_before, t) for a_before, _, t, _, _ in passed]
    return Outputs(params[-1].activation, here[-1][1].z, a, here), da
