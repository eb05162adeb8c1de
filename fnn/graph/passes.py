"""The passes of a graph as pure functions, with examples in rows, as ``kinds`` wants them."""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fnn.activations import Activation
from fnn.backward import RULES, Rules
from fnn.dropout import Mask, masked
from fnn.graph.graph import GraphParams
from fnn.graph.plan import Index, Layout, plan
from fnn.graph.recursion import (
    Leaves,
    States,
    backward_pass,
    by_neurons,
    each,
    forward_pass,
    lambdas_of_inputs,
    weight_gradients,
)


class Trace(NamedTuple):
    """What every neuron computed, (B, N) in the order of ``graph.neurons``; an input's psi, z and a are x."""

    psi: Array
    z: Array
    a: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Given:
    """A graph's mask with what its passes look up: the plan's tables, and the arrows (M, 2).

    dense: whether every arrow is computed in a matrix, so that rules other than ours see all of them.
    """

    mask: Mask
    tables: Index
    arrows: Any
    dense: bool = field(metadata={"static": True})

    def layout(self, params: GraphParams) -> Layout:
        """The static half of the plan to which the tables belong."""
        return plan(params.graph, self.dense).layout


def given(params: GraphParams, mask: Mask = Mask(), rules: Rules = RULES) -> Given:
    """What the passes over ``params`` with these rules are given."""
    dense = rules != RULES
    return Given(mask, plan(params.graph, dense).tables, params.graph.arrows, dense)


def forward(rules: Rules, params: GraphParams, x: Array, given: Given) -> tuple[Activation, Array, Array, States]:
    """σ, z and a of the outputs, (B, n_L), and the states of all neurons."""
    layout = given.layout(params)
    states, z, a = states_and_outputs(
        layout, given.tables, with_mask(leaves(params), given.mask), x, given.mask.units, rules
    )
    return layout.output, z, a, states


def trace(rules: Rules, params: GraphParams, x: Array, given: Given) -> Trace:
    """ψ, z and a of every neuron."""
    layout, index = given.layout(params), given.tables
    *_, states = forward(rules, params, x, given)
    a = states.o
    if given.mask.units is not None:
        a = each(layout, range(len(layout.kinds)), index.kind, lambda activation: activation.value(states.z))
    psi = states.z if states.psi is None else states.psi
    return Trace(*(by_neurons(layout, index, of_rows).T for of_rows in (psi, states.z, a)))


def backward(rules: Rules, params: GraphParams, given: Given, states: States, delta_z: Array):
    """λ of every neuron, (B, N), twice; the gradients; and λ of the inputs: of the sum over the examples.

    delta_z: (B, n_L), any seed ∂/∂z of the outputs.
    """
    layout, mask, index = given.layout(params), given.mask, given.tables
    weights, units = with_mask(leaves(params), mask), None if mask.units is None else mask.units.T
    lambdas = backward_pass(layout, index, weights, states, units, delta_z.T, rules)
    by_arrow = masked(weight_gradients(layout, index, lambdas.lam, states.o, rules), mask.arrows)
    biases = rules.bias_gradient(by_neurons(layout, index, lambdas.lam).T)
    norm = params.norm
    if norm is not None:
        parts: Any = lambdas.gamma, lambdas.beta
        gamma, beta = (by_neurons(layout, index, part)[:, 0] for part in parts)
        norm = replace(norm, gamma=gamma, beta=beta)
    gradients = replace(params, weights=by_arrow, biases=jnp.where(index.computed, biases, 0), norm=norm)
    lam = lambdas_of_inputs(layout, index, weights, units, lambdas, rules)
    deltas = by_neurons(layout, index, lam).T
    return deltas, deltas, gradients, lam[index.inputs].T


def leaves(params: GraphParams) -> Leaves:
    return Leaves(params.weights, params.biases, params.norm)


def with_mask(leaves: Leaves, mask: Mask) -> Leaves:
    """The leaves with the mask of the arrows in the weights."""
    return leaves._replace(weights=masked(leaves.weights, mask.arrows))


def states_and_outputs(
    layout: Layout, index: Index, leaves: Leaves, x: Array, units: Array | None, rules: Rules = RULES
) -> tuple[States, Array, Array]:
    """The states of all neurons, and z and a of the outputs, (B, n_L); units: None, or their mask, (B, N) or (1, N)."""
    states = forward_pass(layout, index, leaves, x.T, None if units is None else units.T, rules)
    z = states.z[index.outputs].T
    a = states.o[index.outputs].T if units is None else layout.output.value(z)
    return states, z, a
