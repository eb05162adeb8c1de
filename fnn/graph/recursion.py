"""The recursion over the generations of a graph: with the arrows for ψ and o, against them for λ.

    forward    ψ_k = Σ_{l: l→k} w_kl o_l + β_k,    o_k = σ_k(ψ_k)
    (4)        λ_k = ∂L/∂ψ_k = (Σ_{l: k→l} λ_l w_lk) σ'_k(ψ_k),   + ∂L/∂o_k σ'_k(ψ_k) where k is an output
    (2)        ∂L/∂w_kj = λ_k o_j
    (3)        ∂L/∂β_k = λ_k

Both sums are :func:`sweep`. λ is the layers' δ; the rules are those of ``fnn.backward``, and batch norm and masks
are those of layers. Arrays are (rows, examples), rows as in ``plan``; a step has them transposed, as the rules want.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from fnn.activations import Activation
from fnn.backward import RULES, Rules
from fnn.batchnorm import BatchNorm
from fnn.graph.plan import Index, Layout
from fnn.graph.schedule import Leg, Tables
from fnn.masks import masked

HARMLESS = 0.5  # in place of other neurons' z


class Leaves(NamedTuple):
    """The arrays of a network; weights with their mask in them, biases (N,), or (N, B) with a shift of every ψ."""

    weights: Array
    biases: Array
    norm: BatchNorm | None


class States(NamedTuple):
    """What the forward pass computes, (rows, B): o = a times its mask, as receivers see it; z; ψ where it is not z."""

    o: Array
    z: Array
    psi: Array | None


class Lambdas(NamedTuple):
    """What the backward pass computes: λ (rows, B); of a batch norm ∂/∂z (rows, B), and ∂/∂γ and ∂/∂β (rows, 1)."""

    lam: Array
    delta_z: Any  # None without batch norm, as the others
    gamma: Any
    beta: Any


class Step(NamedTuple):
    """The neurons that are computed together. ``step(arrays)`` are their parts of arrays over rows, transposed."""

    layout: Layout
    tables: Index
    leg: Leg
    start: Any

    def __call__(self, arrays):
        """(n,) or (B, n) from each (rows,) or (rows, B) of a pytree."""
        return jax.tree.map(lambda v: lax.dynamic_slice_in_dim(v, self.start, self.leg.rows).T, arrays)

    def each(self, function: Callable[[Activation], Array]) -> Array:
        """``function`` of each neuron's activation."""
        return each(self.layout, self.leg.kinds, self(self.tables.kind), function)

    def unmasked(self, states: States, units: Array | None) -> Array:
        """a, which is o without the mask of the units."""
        return self(states.o) if units is None else self.values(self(states.z))

    def values(self, z: Array) -> Array:
        """a = σ(z) of each neuron."""
        return values(self.layout, self.leg.kinds, self(self.tables.kind), z)

    def where_normed(self, normed, plain):
        """For every neuron with a batch norm the first, for the others the second."""
        return jax.tree.map(partial(jnp.where, self(self.tables.normed)), normed, plain)


def forward_pass(
    layout: Layout, index: Index, leaves: Leaves, x: Array, units: Array | None, rules: Rules = RULES
) -> States:
    """ψ, z and o of every neuron.

    x: (n_0, B) in the order of the graph's inputs; units: None, or the neurons' mask, (N, B) or (N, 1).
    """
    biases = by_rows(layout, index, leaves.biases.reshape(layout.neurons, -1))
    norm, units = by_rows(layout, index, (leaves.norm, units))
    x = x if layout.sorted_inputs else _take(x, index.input_order)  # the rows of generation 0
    z = jnp.pad(x, ((0, layout.rows - len(x)), (0, 0)))
    start = States(masked(z, units), z, None if norm is None else z)

    def finish(step: Step, sums: Array, old: States) -> States:
        psi = z = sums + step(biases)
        if norm is not None:
            z = step.where_normed(rules.normalise(step(norm), psi), psi)
        a = step.values(z)
        return States(masked(a, step(units)), z, None if norm is None else psi)

    return sweep(layout, index, "forward", leaves.weights, lambda state: state.o, start, finish)


def backward_pass(
    layout: Layout,
    index: Index,
    leaves: Leaves,
    states: States,
    units: Array | None,
    direct: Array,
    rules: Rules,
    *,
    given: Array | None = None,
) -> Lambdas:
    """(4), down to generation 1. direct: (n_L, B), ∂L/∂o σ' of the outputs.

    given: λ's (rows, B) that the sums read in place of those just computed: so each is judged alone.
    """
    norm, units = by_rows(layout, index, (leaves.norm, units))
    lam = jnp.zeros_like(states.z)
    if layout.first_output is None:
        lam = lam.at[index.outputs].set(direct)
    else:
        lam = _joined(lam, direct, layout.first_output)
    zero = None if norm is None else jnp.zeros_like(lam)
    start = Lambdas(lam, zero, *2 * (zero if zero is None else zero[:, :1],))

    def finish(step: Step, sums: Array, old: Lambdas) -> Lambdas:
        g, z, a = masked(sums, step(units)), step(states.z), step.unmasked(states, units)
        # an output has its own part, and may have outgoing arrows besides
        delta_z = old.lam + step.each(lambda activation: rules.hidden_delta(g, activation, z, a))
        if norm is None:
            return Lambdas(delta_z, None, None, None)
        lam, *sums_of_norm = rules.norm_pullback(step(norm), step(states.psi), delta_z)
        lam, gamma, beta = step.where_normed((lam, *map(jnp.atleast_2d, sums_of_norm)), (delta_z, 0, 0))
        return Lambdas(lam, delta_z, gamma, beta)

    values = (lambda state: state.lam) if given is None else (lambda state: given)
    return sweep(layout, index, "backward", leaves.weights, values, start, finish, rules)


def lambdas_of_inputs(
    layout: Layout, index: Index, leaves: Leaves, units: Array | None, lambdas: Lambdas, rules: Rules, given=None
) -> Array:
    """λ (rows, B) with ∂L/∂x in the rows of the inputs, whose σ is the identity: (2a) once more."""
    units = by_rows(layout, index, units)

    def finish(step: Step, sums: Array, old: Array) -> Array:
        return old + masked(sums, step(units))

    values = (lambda lam: lam) if given is None else (lambda lam: given)
    return sweep(layout, index, "to_inputs", leaves.weights, values, lambdas.lam, finish, rules)


def sums_over_arrows(layout: Layout, index: Index, weights: Array, values: Array) -> Array:
    """Σ_{l: l→k} w_kl v_l of every neuron k from values (rows, B) that are all given: no recursion.

    weights: (M,). The result is (rows, B), and 0 for the inputs.
    """
    return sweep(layout, index, "forward", weights, lambda _: values, jnp.zeros_like(values), _only_sums)


def sums_against_arrows(layout: Layout, index: Index, weights: Array, values: Array) -> Array:
    """Σ_{l: k→l} w_lk v_l of every neuron k, the inputs too; as sums_over_arrows."""
    of_computed = sweep(layout, index, "backward", weights, lambda _: values, jnp.zeros_like(values), _only_sums)
    return sweep(layout, index, "to_inputs", weights, lambda _: values, of_computed, _only_sums)


def _only_sums(step: Step, sums: Array, old: Array) -> Array:
    return sums


def weight_gradients(layout: Layout, index: Index, lam: Array, o: Array, rules: Rules) -> Array:
    """(2): Σ over the examples of λ_k o_j for every arrow j → k, (M,)."""
    pieces = []
    for leg, tables in zip(layout.forward, index.forward):
        for j, block in enumerate(leg.blocks):

            def outer(t: Tables, leg: Leg = leg, j: int = j, width: int = block.width):
                start, reads = (t.start, t.block_starts[j]) if leg.first is None else (leg.first[0], leg.first[1 + j])
                delta, a_in = (
                    lax.dynamic_slice_in_dim(v, at, n) for v, at, n in ((lam, start, leg.rows), (o, reads, width))
                )
                return rules.weight_gradient(delta.T, a_in.T, None)

            pieces.append((outer(tables) if leg.steps == 1 else lax.map(outer, tables)).ravel())
        if leg.groups:
            start = tables.start[:, None] if leg.first is None else leg.first[0]
            receivers = (start + tables.receivers).ravel()
            reads = tables.reads.reshape(len(receivers), leg.width)
            pieces.append(lax.map(partial(_arrows, lam, o), (receivers, reads), batch_size=layout.most_groups).ravel())
    gradients = jnp.zeros(sum(piece.size for piece in pieces), lam.dtype)
    offset = 0
    for piece in pieces:  # written in place; jnp.concatenate is at times ten times slower on a CPU
        gradients = lax.dynamic_update_slice(gradients, piece, (offset,))
        offset += piece.size
    return gradients[: layout.arrows] if layout.sorted_arrows else _take(gradients, index.place)


def _arrows(lam: Array, o: Array, group) -> Array:
    receiver, reads = group
    return jnp.stack([jnp.sum(_take(lam, receiver) * _take(o, read)) for read in reads])


def sweep(layout: Layout, index: Index, direction: str, weights, values, state, finish, rules: Rules | None = None):
    """The generations one after the other: ``finish`` makes the rows of ``state`` from their sums over arrows.

    direction: "forward", "backward" or "to_inputs". The sums read ``values(state)``; where weights, (M,) each, and
    values are tuples, so are the sums. finish(step, sums, old) gets and returns examples in rows.
    Where a generation is a matrix, rules.input_gradient multiplies by it (2a); without rules the sums are the forward
    ones.
    """
    legs = getattr(layout, direction)
    write = _joined if all(leg.first is not None and not leg.groups for leg in legs) else _in_place
    if any(leg.groups or any(block.offset is None for block in leg.blocks) for leg in legs):
        weights = jax.tree.map(lambda w: jnp.append(w, jnp.zeros((), w.dtype)), weights)  # the last is the padding's
    for leg, tables in zip(legs, getattr(index, direction)):

        def compute(state, t: Tables, leg: Leg = leg):
            step = Step(layout, index, leg, t.start if leg.first is None else leg.first[0])
            sums = jax.tree.map(lambda w, of: _sums(leg, t, w, of, rules).T, weights, values(state))
            old = step(state)
            new = finish(step, sums, old)
            if not leg.exact:
                real = jnp.arange(leg.rows, dtype=t.count.dtype) < t.count
                new = jax.tree.map(partial(jnp.where, real), new, old)
            return jax.tree.map(lambda v, n: write(v, n.T, step.start), state, new), None

        if leg.steps == 1:
            state, _ = compute(state, jax.tree.map(lambda leaf: leaf[0], tables))
        else:
            state, _ = lax.scan(compute, state, tables)
    return state


def _in_place(rows: Array, new: Array, start) -> Array:
    """rows with ``new`` from ``start`` on."""
    return lax.dynamic_update_slice_in_dim(rows, new, start, 0)


def _joined(rows: Array, new: Array, start: int) -> Array:
    """The same where all reads are ranges of rows: XLA then reads what a range was made from, and joins nothing."""
    return lax.concatenate([rows[:start], new, rows[start + len(new) :]], 0)


def _sums(leg: Leg, t: Tables, weights: Array, values: Array, rules: Rules | None) -> Array:
    """Σ over the arrows of a step of w · values, (rows, B)."""
    total = jnp.zeros((leg.rows, values.shape[1]), values.dtype)
    for j, block in enumerate(leg.blocks):
        start = t.block_starts[j] if leg.first is None else leg.first[1 + j]
        read, W = lax.dynamic_slice_in_dim(values, start, block.width), _matrix(leg, j, t, weights)
        total += W @ read if rules is None else rules.input_gradient(read.T, W.T, None).T
    if leg.groups:
        products = (_take(weights, t.arrows[:, i])[:, None] * _take(values, t.reads[:, i]) for i in range(leg.width))
        total = total.at[t.receivers].add(sum(products), indices_are_sorted=True, mode="promise_in_bounds")
    return total


def _matrix(leg: Leg, j: int, t: Tables, weights: Array) -> Array:
    """The weights of a block, (rows, width)."""
    block = leg.blocks[j]
    if block.offset is None:
        return _take(weights, t.block_arrows[j])
    shape = (block.width, leg.rows) if block.transposed else (leg.rows, block.width)
    W = weights[block.offset : block.offset + leg.rows * block.width].reshape(shape)
    return W.T if block.transposed else W


def each(layout: Layout, kinds: Sequence[int], kind: Array, function: Callable[[Activation], Array]) -> Array:
    """``function`` of each neuron's activation, (B, n); kinds: those that occur among the neurons' ``kind``, (n,)."""
    result = function(layout.kinds[kinds[0]])
    for k in kinds[1:]:
        result = jnp.where(kind == k, function(layout.kinds[k]), result)
    return result


def values(layout: Layout, kinds: Sequence[int], kind: Array, z: Array) -> Array:
    """a of each neuron, as :func:`each`. An activation sees z of its own neurons alone.

    At others' it might overflow, and autodiff would multiply the infinity by 0.
    """
    if len(kinds) == 1:
        return layout.kinds[kinds[0]].value(z)
    result = z
    for k in kinds:
        result = jnp.where(kind == k, layout.kinds[k].value(jnp.where(kind == k, z, HARMLESS)), result)
    return result


def _take(values: Array, index: Array) -> Array:
    """values[index]; the plan's indices are in bounds, and not to look again is a third faster."""
    return values.at[index].get(mode="promise_in_bounds")


def by_rows(layout: Layout, index: Index, arrays):
    """Arrays over neurons, (N, ...) each, as ones over rows; zero for padding."""

    def of_rows(array: Array) -> Array:
        padding = layout.rows - layout.neurons if layout.sorted_neurons else 1
        padded = jnp.pad(array, [(0, padding)] + [(0, 0)] * (array.ndim - 1))
        return padded if layout.sorted_neurons else _take(padded, index.neuron)

    return jax.tree.map(of_rows, arrays)


def by_neurons(layout: Layout, index: Index, array: Array) -> Array:
    """An array over rows as one over neurons."""
    return array[: layout.neurons] if layout.sorted_neurons else _take(array, index.row)
