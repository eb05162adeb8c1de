"""forward, trace, deltas and backprop of a graph: the public functions, and the two compiled ones beneath them."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fnn import checks
from fnn.backward import RULES, Rules, require_rules
from fnn.dropout import Mask, masked
from fnn.graph import arguments
from fnn.graph.graph import Network
from fnn.graph.plan import Index, Layout, plan
from fnn.graph.recursion import Leaves, States, backward_pass, by_neurons, each, forward_pass, weight_gradients
from fnn.losses import Loss, SquaredError
from fnn.network import target_rows


class Trace(NamedTuple):
    """What every neuron computed, (B, N) in the order of ``graph.neurons``; an input's psi, z and a are x."""

    psi: Array
    z: Array
    a: Array


def forward(params: Network, x: Array, masks: Mask | None = None) -> Array:
    """The values of the output neurons, (B, n_L), or (n_L,) for a single example (equation S1).

    params: a :class:`Network`, from ``graph.init``; x: (B, n_0) or (n_0,) in the order of the graph's inputs and
    in the parameters' dtype; masks: None, or a ``fnn.Mask`` with ``arrows`` (M,), which multiplies the weights
    (S4), and ``units`` (B, N) or (1, N), which multiplies what a neuron's receivers see of it, and not the
    network's output. Raises TypeError or ValueError that names the argument.
    """
    _, x, mask = arguments.forward(params, x, masks)
    layout, index = plan(params.graph)
    return _forward(leaves(params), x, mask, index, layout=layout)


def trace(params: Network, x: Array, masks: Mask | None = None) -> Trace:
    """ψ, z and a of every neuron, a :class:`Trace` of (B, N), or (N,) for one example; arguments as in ``forward``."""
    _, x, mask = arguments.forward(params, x, masks)
    layout, index = plan(params.graph)
    return _trace(leaves(params), x, mask, index, layout=layout)


def backprop(
    params: Network,
    x: Array,
    y: Array,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks: Mask | None = None,
    rules: Rules = RULES,
) -> Network:
    """The gradients ∂C/∂w of every arrow and ∂C/∂β of every neuron (equations S2, S3): a pytree like ``params``.

    Every λ comes from the weights before any update (S11 corrected).

    params, x, masks: as in :func:`forward`; y: (B, n_L) or (n_L,), or labels (B,); loss, reduction: as in
    ``fnn.backprop``. rules: the equations; with any but ``fnn.RULES`` every arrow is computed in a matrix between
    two generations, so that ``input_gradient`` and ``weight_gradient`` see all of them: meant for small graphs.

    Compiled once for each layout of a graph, shapes, loss and reduction: equal graphs share it.

    >>> import fnn
    >>> graph = fnn.graph.Graph.layered((3, 4, 2), fnn.Tanh())
    >>> fnn.graph.backprop(graph.init(jax.random.key(0)), jnp.ones((5, 3)), jnp.zeros((5, 2))).weights.shape
    (20,)
    """
    return _run(("gradients",), params, x, y, loss, reduction, masks, rules)[0]


def value_and_backprop(
    params: Network,
    x: Array,
    y: Array,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks: Mask | None = None,
    rules: Rules = RULES,
) -> tuple[Array, Network]:
    """The loss C, a scalar, and its gradients; arguments as in :func:`backprop`."""
    return _run(("loss", "gradients"), params, x, y, loss, reduction, masks, rules)


def deltas(
    params: Network, x: Array, y: Array, *, loss: Loss = SquaredError(), masks: Mask | None = None, rules: Rules = RULES
) -> Array:
    """λ_k = ∂(Σ_n L_n)/∂ψ_k of every neuron (S2, 4), (B, N) in the order of ``graph.neurons``, or (N,).

    Of the sum over the examples, as ``fnn.deltas``. An input's λ is ∂L/∂x. Arguments as in :func:`backprop`.
    """
    return _run(("deltas",), params, x, y, loss, "sum", masks, rules)[0]


def input_gradient(
    params: Network,
    x: Array,
    y: Array,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks: Mask | None = None,
    rules: Rules = RULES,
) -> Array:
    """∂C/∂x, of x's shape; arguments as in :func:`backprop`."""
    return _run(("input_gradient",), params, x, y, loss, reduction, masks, rules)[0]


def leaves(params: Network) -> Leaves:
    return Leaves(params.weights, params.biases, params.norm)


def _run(want, params, x, y, loss, reduction, masks, rules):
    _, x, mask = arguments.forward(params, x, masks)
    checks.target_arguments(params, y, loss)
    checks.one_of("reduction", reduction, checks.REDUCTIONS)
    require_rules(rules)
    layout, index = plan(params.graph, only_blocks=rules != RULES)
    results = _backward(
        leaves(params), x, y, mask, index, layout=layout, loss=loss, reduction=reduction, rules=rules, want=want
    )
    return tuple(Network(r.weights, r.biases, params.graph, r.norm) if isinstance(r, Leaves) else r for r in results)


@partial(jax.jit, static_argnames="layout")
def _forward(leaves: Leaves, x, mask: Mask, index: Index, *, layout: Layout):
    *_, a = states_and_outputs(layout, index, with_mask(leaves, mask), jnp.atleast_2d(x), mask.units)
    return a.reshape(*x.shape[:-1], -1)


@partial(jax.jit, static_argnames="layout")
def _trace(leaves: Leaves, x, mask: Mask, index: Index, *, layout: Layout):
    states, *_ = states_and_outputs(layout, index, with_mask(leaves, mask), jnp.atleast_2d(x), mask.units)
    a = states.o
    if mask.units is not None:
        a = each(layout, range(len(layout.kinds)), index.kind, lambda activation: activation.value(states.z))
    of_rows = (states.z if states.psi is None else states.psi), states.z, a
    return Trace(*(by_neurons(layout, index, rows).T.reshape(*x.shape[:-1], -1) for rows in of_rows))


def with_mask(leaves: Leaves, mask: Mask) -> Leaves:
    """The leaves with the mask of the arrows in the weights."""
    return leaves._replace(weights=masked(leaves.weights, mask.arrows))


def states_and_outputs(layout: Layout, index: Index, leaves: Leaves, x: Array, units: Array | None):
    """The states of all neurons, and z and a of the outputs, (B, n_L); units: None, or their mask, (B, N) or (1, N)."""
    states = forward_pass(layout, index, leaves, x.T, None if units is None else units.T)
    z = states.z[index.outputs].T
    a = states.o[index.outputs].T if units is None else layout.output.value(z)
    return states, z, checks.same_shape(a, z, "the outputs' activation.value(z)")


class Backward(NamedTuple):
    """All that one backward pass yields."""

    loss: Array
    deltas: Array
    gradients: Leaves
    input_gradient: Array


@partial(jax.jit, static_argnames=("layout", "loss", "reduction", "rules", "want"))
def _backward(leaves: Leaves, x, y, mask: Mask, index: Index, *, layout, loss, reduction, rules, want):
    rows = x.shape[:-1]  # (B,), or () for a single example
    leaves = with_mask(leaves, mask)
    states, z, a = states_and_outputs(layout, index, leaves, jnp.atleast_2d(x), mask.units)
    y = target_rows(y, x, a, loss)
    scale = 1 / len(a) if reduction == "mean" else 1
    rules = checks.exact(rules)

    direct = rules.output_delta(loss, layout.output, z, a, y).T
    units = None if mask.units is None else mask.units.T
    to_inputs = "deltas" in want or "input_gradient" in want
    lambdas = backward_pass(layout, index, leaves, states, units, direct, rules, to_inputs=to_inputs)
    gradients = _gradients(layout, index, leaves, states, lambdas, mask, rules)
    value = jnp.sum(checks.loss_values(loss, a, y)) * scale
    result = Backward(
        value,
        by_neurons(layout, index, lambdas.lam).T.reshape(*rows, -1),
        jax.tree.map(lambda leaf: leaf * scale, gradients),
        lambdas.lam[index.inputs].T.reshape(x.shape) * scale,
    )
    return tuple(getattr(result, name) for name in want)  # what is not wanted is not computed


def _gradients(layout, index, leaves, states: States, lambdas, mask, rules) -> Leaves:
    """Of the sum over the examples: S2 (2) and (3), and of a batch norm's γ and β."""
    weights = masked(weight_gradients(layout, index, lambdas.lam, states.o, rules), mask.arrows)
    biases = rules.bias_gradient(by_neurons(layout, index, lambdas.lam).T)
    norm = None
    if leaves.norm is not None:
        gamma, beta = (by_neurons(layout, index, part)[:, 0] for part in (lambdas.gamma, lambdas.beta))
        norm = replace(leaves.norm, gamma=gamma, beta=beta)
    return Leaves(weights, jnp.where(index.computed, biases, 0), norm)
