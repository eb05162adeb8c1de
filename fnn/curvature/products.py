"""Products of the Hessian and of the Gauss–Newton matrix with a direction; see ``fnn.curvature``."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fnn import checks
from fnn.backward import RULES, run
from fnn.curvature import graphs
from fnn.curvature.tangents import TANGENTS, TangentRules
from fnn.dropout import Mask, masked
from fnn.graph import Network
from fnn.kinds import AnyParams
from fnn.losses import Loss, SquaredError
from fnn.network import Masks, Params, each, layer_forward, target_rows
from fnn.per_example.kernels import Projection


@dataclass(frozen=True)
class Seed(Projection):
    """δ^L = y whatever the output activation: a backward pass from a δ of one's own."""

    def delta(self, activation, z, a, y):
        return y


def hvp(
    params: AnyParams,
    x: Array,
    y: Array,
    v: AnyParams,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks: Masks | Mask = None,
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
    x: Array,
    y: Array,
    v: AnyParams,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks: Masks | Mask = None,
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
    require = graphs.arguments if isinstance(params, Network) else checks.network_arguments
    params, x, masks = require(params, x, masks)
    checks.target_arguments(params, y, loss)
    checks.one_of("reduction", reduction, checks.REDUCTIONS)
    return params, x, y, direction(v, params), masks


def direction(v, params):
    """v in the containers of ``params``; raises unless its leaves are arrays like theirs."""
    v = tuple(v) if isinstance(v, list) else v
    leaves, structure = jax.tree.flatten(v)
    expected: Any = jax.tree.structure(params)
    if expected != structure:
        raise TypeError(f"v: expected a pytree like params, {expected}, got {structure}; write jax.tree.map(f, params)")
    for i, (leaf, like) in enumerate(zip(leaves, jax.tree.leaves(params))):
        checks.array(f"leaf {i} of v", leaf)
        checks.same_shape(leaf, like, f"leaf {i} of v")
    return v


def forward_tangents(params: Params, v: Params, x: Array, masks, rules: TangentRules):
    """(a^L, R{a^L}), and for every entry of params a and R{a} of the layer below, its trace, R{ψ} and R{z}."""
    checks.network(params, x, masks)

    def layer_tangent(carry, layer, v, mask):
        a, da = carry
        out, (_, t) = layer_forward(a, layer, mask)
        da_in = None if da is None else masked(da, mask.units)
        dpsi = rules.psi(t.a_in, da_in, masked(layer.W, mask.arrows), masked(v.W, mask.arrows), v.b)
        dz = dpsi if layer.norm is None else rules.normalise(layer.norm, v.norm, t.psi, dpsi)
        d_out = rules.activation(dz, layer.activation, t.z, t.a)
        return (out, d_out), (a, da, t, dpsi, dz)

    a = jnp.atleast_2d(x)
    carry: Any = (a, None)  # R{a⁰} = 0
    passed = []
    for layer, along, mask in zip(params, v, masks):
        carry, here = each(layer_tangent, carry, layer, along, mask)
        passed.append(here)
    return carry, passed


@partial(jax.jit, static_argnames=("loss", "reduction", "rules"))
def hessian_product(params, x, y, v, masks, *, loss, reduction, rules):
    if isinstance(params, Network):
        return graphs.hvp(params, x, y, v, masks, loss, reduction, rules)
    (a, da), passed = forward_tangents(params, v, x, masks, rules)
    y = target_rows(y, x, a, loss)
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
    if isinstance(params, Network):
        return graphs.gauss_newton_vp(params, x, y, v, masks, loss, reduction)
    (a, da), passed = forward_tangents(params, v, x, masks, TANGENTS)
    y = target_rows(y, x, a, loss)
    _, _, t, _, _ = passed[-1]
    seed = loss.gauss_newton(params[-1].activation, t.z, a, y, da)  # of J v; what is left is Jᵀ
    seed = seed.reshape(*x.shape[:-1], -1)
    return run(("gradients",), params, x, seed, Seed(), reduction, masks, RULES)[0]
