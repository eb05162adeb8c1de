"""The passes of a graph as pure functions, with examples in rows, as ``kinds`` wants them."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fnn.activations import Activation
from fnn.backward import RULES, Rules
from fnn.batchnorm import norm_like
from fnn.graph.given import Given
from fnn.graph.graph import GraphParams
from fnn.graph.plan import Index, Layout
from fnn.graph.recursion import (
    Leaves,
    States,
    backward_pass,
    by_neurons,
    forward_pass,
    lambdas_of_inputs,
    values,
    weight_gradients,
)
from fnn.markup import arrays
from fnn.masks import Mask, masked


class Trace(NamedTuple):
    """What every neuron computed, (B, N) in the order of ``graph.neurons``; an input's psi, z and a are x."""

    psi: Array
    z: Array
    a: Array

    def _repr_html_(self) -> str:
        return arrays(self._asdict())


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
        z = states.z.T
        a = values(layout, range(len(layout.kinds)), index.kind, z).T
    psi = states.z if states.psi is None else states.psi
    return Trace(*(by_neurons(layout, index, of_rows).T for of_rows in (psi, states.z, a)))


def backward(rules: Rules, params: GraphParams, given: Given, states: States, delta_z: Array):
    """λ and ∂/∂z of every neuron, (B, N); the gradients; and λ of the inputs: of the sum over the examples.

    delta_z: (B, n_L), any seed ∂/∂z of the outputs.
    """
    layout, mask, index = given.layout(params), given.mask, given.tables
    weights, units = with_mask(leaves(params), mask), given.units
    found = backward_pass(layout, index, weights, states, units, delta_z.T, rules)
    by_arrow = weight_gradients(layout, index, found.lam, states.o, rules)
    gradients = like(params, given, rules, by_arrow, found.lam, (found.gamma, found.beta))
    lam = lambdas_of_inputs(layout, index, weights, units, found, rules)
    by_x = lam[index.inputs]
    lam_z = lam if found.delta_z is None else found.delta_z.at[index.inputs].set(by_x)
    return *(by_neurons(layout, index, of_rows).T for of_rows in (lam, lam_z)), gradients, by_x.T


def like(params: GraphParams, given: Given, rules, by_arrow: Array, lam: Array, by_norm) -> GraphParams:
    """A pytree like ``params`` from λ (rows, B), and from sums by the arrows (M,) and by γ and β (rows, 1)."""
    layout, index = given.layout(params), given.tables
    inputs = len(index.inputs)  # the first rows, which have no bias
    of_rows = jnp.pad(rules.bias_gradient(lam[inputs:].T), (inputs, 0))
    biases = by_neurons(layout, index, of_rows)
    norm = norm_like(params.norm, jax.tree.map(lambda of: by_neurons(layout, index, of)[:, 0], by_norm))
    return replace(params, weights=masked(by_arrow, given.mask.arrows), biases=biases, norm=norm)


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
