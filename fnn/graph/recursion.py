"""The recursion over the generations of a graph: with the arrows for ψ and o, against them for λ.

    forward    ψ_k = Σ_{l: l→k} w_kl o_l + β_k,    o_k = σ_k(ψ_k)
    (4)        λ_k = ∂L/∂ψ_k = (Σ_{l: k→l} λ_l w_lk) σ'_k(ψ_k),   + ∂L/∂o_k σ'_k(ψ_k) where k is an output
    (2)        ∂L/∂w_kj = λ_k o_j
    (3)        ∂L/∂β_k = λ_k

Both sums are :func:`sweep`. λ is the layers' δ; the rules are those of ``fnn.backward``, and batch norm and masks
are those of layers. Arrays are (rows, examples), rows as in ``plan``; the rules get (examples, rows).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from fnn.activations import Activation
from fnn.backward import RULES, Rules
from fnn.batchnorm import BatchNorm
from fnn.dropout import masked
from fnn.graph.plan import Index, Layout
from fnn.graph.schedule import GROUPS, Run, Tables


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
    """What the backward pass computes: λ (rows, B), and the sums ∂/∂γ and ∂/∂β of a batch norm, (rows, 1)."""

    lam: Array
    gamma: Array | None
    beta: Array | None


def forward_pass(
    layout: Layout, index: Index, leaves: Leaves, x: Array, units: Array | None, rules: Rules = RULES
) -> States:
    """ψ, z and o of every neuron.

    x: (n_0, B) in the order of the graph's inputs; units: None, or the neurons' mask, (N, B) or (N, 1).
    """
    biases = by_rows(layout, index, leaves.biases.reshape(layout.neurons, -1))
    norm, units = norm_by_rows(layout, index, leaves.norm), None if units is None else by_rows(layout, index, units)
    x = x if layout.sorted_inputs else _take(x, index.input_order)  # the rows of generation 0
    z = jnp.pad(x, ((0, layout.rows - len(x)), (0, 0)))
    start = States(masked(z, units), z, None if norm is None else z)

    def finish(run: Run, part: Callable, sums: Array, old: States) -> States:
        psi = z = sums + part(biases)
        if norm is not None:
            z = jnp.where(part(index.normed)[:, None], rules.normalise(jax.tree.map(part, norm), psi.T).T, psi)
        a = each(layout, run.kinds, part(index.kind), lambda activation: activation.value(z))
        return States(masked(a, units if units is None else part(units)), z, None if norm is None else psi)

    return sweep(layout.forward, index.forward, leaves.weights, lambda state: state.o, start, finish)


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
    by_example: bool = False,
) -> Lambdas:
    """(4), down to generation 1. direct: (n_L, B), ∂L/∂o σ' of the outputs.

    given: λ's (rows, B) that the sums read in place of those just computed: so each is judged alone. by_example: the
    rule norm_pullback returns ∂/∂γ and ∂/∂β of every example and not their sums, and so they are (rows, B).
    """
    norm, units = norm_by_rows(layout, index, leaves.norm), None if units is None else by_rows(layout, index, units)
    lam = jnp.zeros_like(states.z).at[index.outputs].set(direct)
    none = None if norm is None else jnp.zeros_like(lam if by_example else lam[:, :1])

    def finish(run: Run, part: Callable, sums: Array, old: Lambdas) -> Lambdas:
        of_each = partial(each, layout, run.kinds, part(index.kind))
        g, z = masked(sums, units if units is None else part(units)), part(states.z)
        a = part(states.o) if units is None else of_each(lambda activation: activation.value(z))
        delta = old.lam + of_each(lambda activation: rules.hidden_delta(g.T, activation, z.T, a.T).T)
        if norm is None:
            return Lambdas(delta, None, None)
        normed = part(index.normed)[:, None]
        parts = rules.norm_pullback(jax.tree.map(part, norm), part(states.psi).T, delta.T)
        psi, gamma, beta = (p.T.reshape(run.rows, -1) for p in parts)
        return Lambdas(*(jnp.where(normed, new, plain) for new, plain in ((psi, delta), (gamma, 0), (beta, 0))))

    values = (lambda state: state.lam) if given is None else (lambda state: given)
    return sweep(layout.backward, index.backward, leaves.weights, values, Lambdas(lam, none, none), finish, rules)


def lambdas_of_inputs(
    layout: Layout, index: Index, leaves: Leaves, units: Array | None, lambdas: Lambdas, rules: Rules, given=None
) -> Array:
    """λ (rows, B) with ∂L/∂x in the rows of the inputs, whose σ is the identity: (2a) once more."""
    units = None if units is None else by_rows(layout, index, units)

    def finish(run: Run, part: Callable, sums: Array, old: Array) -> Array:
        return old + masked(sums, units if units is None else part(units))

    values = (lambda lam: lam) if given is None else (lambda lam: given)
    return sweep(layout.to_inputs, index.to_inputs, leaves.weights, values, lambdas.lam, finish, rules)


def sums_over_arrows(layout: Layout, index: Index, weights: Array, values: Array) -> Array:
    """Σ_{l: l→k} w_kl v_l of every neuron k from values (rows, B) that are all given: no recursion.

    weights: (M,). The result is (rows, B), and 0 for the inputs.
    """
    return _sums_of_given(layout.forward, index.forward, weights, values)


def sums_against_arrows(layout: Layout, index: Index, weights: Array, values: Array) -> Array:
    """Σ_{l: k→l} w_lk v_l of every neuron k, the inputs too; as sums_over_arrows."""
    runs, tables = layout.backward + layout.to_inputs, index.backward + index.to_inputs
    return _sums_of_given(runs, tables, weights, values)


def _sums_of_given(runs, tables, weights: Array, values: Array) -> Array:
    def finish(run: Run, part: Callable, sums: Array, old: Array) -> Array:
        return sums

    return sweep(runs, tables, weights, lambda state: values, jnp.zeros_like(values), finish)


def weight_gradients(layout: Layout, index: Index, lam: Array, o: Array, rules: Rules) -> Array:
    """(2): Σ over the examples of λ_k o_j for every arrow j → k, (M,)."""
    pieces = []
    for run, tables in zip(layout.forward, index.forward):
        for j, block in enumerate(run.blocks):

            def outer(t: Tables, run: Run = run, j: int = j, width: int = block.width):
                start, reads = (t.start, t.block_starts[j]) if run.first is None else (run.first[0], run.first[1 + j])
                delta, a_in = (
                    lax.dynamic_slice_in_dim(v, at, n) for v, at, n in ((lam, start, run.rows), (o, reads, width))
                )
                return rules.weight_gradient(delta.T, a_in.T, None)

            pieces.append((outer(tables) if run.steps == 1 else lax.map(outer, tables)).ravel())
        if run.groups:
            start = tables.start[:, None] if run.first is None else run.first[0]
            receivers = (start + tables.receivers).ravel()
            reads = tables.reads.reshape(len(receivers), run.width)
            pieces.append(lax.map(partial(_arrows, lam, o), (receivers, reads), batch_size=GROUPS).ravel())
    gradients = jnp.zeros(sum(piece.size for piece in pieces), lam.dtype)
    offset = 0
    for piece in pieces:  # written in place; jnp.concatenate is at times ten times slower on a CPU
        gradients = lax.dynamic_update_slice(gradients, piece, (offset,))
        offset += piece.size
    return gradients[: layout.arrows] if layout.sorted_arrows else _take(gradients, index.place)


def _arrows(lam: Array, o: Array, group) -> Array:
    receiver, reads = group
    return jnp.stack([jnp.sum(_take(lam, receiver) * _take(o, read)) for read in reads])


def sweep(runs, tables, weights, values, state, finish, rules: Rules | None = None):
    """The generations one after the other: ``finish`` makes the rows of ``state`` from their sums over arrows.

    The sums read ``values(state)``; where weights, (M,) each, and values are tuples, so are the sums. Where a
    generation is a matrix, rules.input_gradient multiplies by it (2a); without rules the sums are the forward ones.
    """
    if any(run.groups or any(block.offset is None for block in run.blocks) for run in runs):
        weights = jax.tree.map(lambda w: jnp.append(w, jnp.zeros((), w.dtype)), weights)  # the last is the padding's
    for run, t in zip(runs, tables):

        def step(state, t: Tables, run: Run = run):
            start = t.start if run.first is None else run.first[0]
            part = partial(lax.dynamic_slice_in_dim, start_index=start, slice_size=run.rows)
            old = jax.tree.map(part, state)
            sums = jax.tree.map(lambda w, of: _sums(run, t, w, of, rules), weights, values(state))
            new = finish(run, part, sums, old)
            if not run.exact:
                real = (jnp.arange(run.rows, dtype=t.count.dtype) < t.count)[:, None]
                new = jax.tree.map(partial(jnp.where, real), new, old)
            return jax.tree.map(lambda leaf, n: lax.dynamic_update_slice_in_dim(leaf, n, start, 0), state, new), None

        if run.steps == 1:
            state, _ = step(state, jax.tree.map(lambda leaf: leaf[0], t))
        else:
            state, _ = lax.scan(step, state, t)
    return state


def _sums(run: Run, t: Tables, weights: Array, values: Array, rules: Rules | None) -> Array:
    """Σ over the arrows of a step of w · values, (rows, B)."""
    total = jnp.zeros((run.rows, values.shape[1]), values.dtype)
    for j, block in enumerate(run.blocks):
        start = t.block_starts[j] if run.first is None else run.first[1 + j]
        read, W = lax.dynamic_slice_in_dim(values, start, block.width), _matrix(run, j, t, weights)
        total += W @ read if rules is None else rules.input_gradient(read.T, W.T, None).T
    if run.groups:
        products = (_take(weights, t.arrows[:, i])[:, None] * _take(values, t.reads[:, i]) for i in range(run.width))
        total = total.at[t.receivers].add(sum(products), indices_are_sorted=True, mode="promise_in_bounds")
    return total


def _matrix(run: Run, j: int, t: Tables, weights: Array) -> Array:
    """The weights of a block, (rows, width)."""
    block = run.blocks[j]
    if block.offset is None:
        return _take(weights, t.block_arrows[j])
    shape = (block.width, run.rows) if block.transposed else (run.rows, block.width)
    W = weights[block.offset : block.offset + run.rows * block.width].reshape(shape)
    return W.T if block.transposed else W


def each(layout: Layout, kinds: Sequence[int], kind: Array, function: Callable[[Activation], Array]) -> Array:
    """``function`` of each row's activation, (rows, B); kinds: those that occur among the rows' ``kind``."""
    result = function(layout.kinds[kinds[0]])
    for k in kinds[1:]:
        result = jnp.where((kind == k)[:, None], function(layout.kinds[k]), result)
    return result


def _take(values: Array, index: Array) -> Array:
    """values[index]; the plan's indices are in bounds, and not to look again is a third faster."""
    return values.at[index].get(mode="promise_in_bounds")


def by_rows(layout: Layout, index: Index, array: Array) -> Array:
    """An array over neurons, (N, ...), as one over rows; zero for padding."""
    padding = layout.rows - layout.neurons if layout.sorted_neurons else 1
    padded = jnp.pad(array, [(0, padding)] + [(0, 0)] * (array.ndim - 1))
    return padded if layout.sorted_neurons else _take(padded, index.neuron)


def norm_by_rows(layout: Layout, index: Index, norm: BatchNorm | None) -> BatchNorm | None:
    return None if norm is None else jax.tree.map(partial(by_rows, layout, index), norm)


def by_neurons(layout: Layout, index: Index, array: Array) -> Array:
    """An array over rows as one over neurons."""
    return array[: layout.neurons] if layout.sorted_neurons else _take(array, index.row)
