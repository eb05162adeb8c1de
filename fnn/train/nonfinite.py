"""NaN and infinity in training: detected once per epoch, on the device, then traced to their equation.

The compiled loop reports whether an epoch's losses and new parameters are finite (``loop.take_steps``). This costs
nothing, because NaN spreads. If they are not, the epoch is repeated step by step, from its first parameters and with
the same mini-batches and masks, up to the first step with a result that is not finite. The quantities of that step are
then examined in the order in which they are computed.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fnn.checks.targets import target_rows
from fnn.equations import graph_lines, lines
from fnn.equations.layers import LOSS
from fnn.functions import Objective, forward, results, trace, value_and_backprop
from fnn.kinds import either
from fnn.stacking import unstack
from fnn.train import loop
from fnn.train.prefetch import Chunk


class NonFinite(FloatingPointError):
    """Training reached NaN or infinity; the message names the epoch, the step, the layer and the equation.

    epoch: its number from 1; step: the number of the mini-batch in it, from 1, or None if the repeated epoch stayed
    finite; params, optimizer_state: those with which this epoch began; history: the records of earlier epochs.
    """

    def __init__(self, where: str, epoch: int, step: int | None, params, optimizer_state, history):
        super().__init__(where, epoch, step, params, optimizer_state, tuple(history))  # all, so that it can be pickled
        self.epoch, self.step, self.history = epoch, step, tuple(history)
        self.params, self.optimizer_state = params, optimizer_state

    def __str__(self) -> str:
        place = f"epoch {self.epoch}" if self.step is None else f"epoch {self.epoch}, step {self.step}"
        return (
            f"{place}: {self.args[0]}; the exception's .params are those that this epoch began with. "
            "A lower learning rate may help, or optax.chain(fnn.updates.clip_by_global_norm(1.0), optimizer)"
        )


def non_finite(
    begun: tuple[Any, Any], chunks: Iterable[tuple[int, Chunk]], epoch: int, given: tuple, history, **options
) -> NonFinite:
    """The exception for an epoch that was not finite.

    begun: the parameters and the optimizer's state at its start; chunks, given (dropout, key, optimizer and
    tables), options: the arguments of ``loop.take_steps``.
    """
    before, objective, (dropout, key, _, tables) = begun, options["objective"], given
    for number, batch in steps(chunks):
        reached, _, finite = loop.take_steps(before, batch, number, *given, **options)
        if not finite:
            x, y, order = batch
            x, y = (x[0], y[0]) if order is None else (x[order[0]], y[order[0]])
            x, masks = loop.inputs(
                loop.ALL_ROWS,
                before[0],
                jnp.asarray(x),
                number,
                dropout,
                key,
                tables,
                options["scale"],
                objective.rules,
            )
            of_step = quantities(before[0], x, jnp.asarray(y), masks, objective)
            found = next((told for name, value in of_step if (told := told_of(name, value))), None)
            return NonFinite(found or updated(*reached), epoch, number + 1, *begun, history)
        before = reached
    where = "the loss, parameters or optimizer state are not finite, but are when the epoch is repeated step by step"
    return NonFinite(where, epoch, None, *begun, history)


def steps(chunks: Iterable[tuple[int, Chunk]]) -> Iterator[tuple[int, Chunk]]:
    """The number of every step and its mini-batch, as ``loop.take_steps`` takes them."""
    for first, (x, y, order) in chunks:
        for i in range(len(x) if order is None else len(order)):
            yield first + i, (x[i : i + 1], y[i : i + 1], None) if order is None else (x, y, order[i : i + 1])


def told_of(name: str, value: Array) -> str | None:
    """A sentence about the entries that are not finite, or None if all are."""
    bad = ~np.isfinite(np.asarray(value, np.float64))
    if not bad.any():
        return None
    first = tuple(np.argwhere(bad)[0].tolist())
    at = f" at {list(first)}" if first else ""
    return f"{name} is not finite ({np.asarray(value)[first]:g}{at}; {int(bad.sum()):,} of {bad.size:,} entries)"


def updated(params, state) -> str:
    """A sentence about the first new parameter that is not finite although its gradients are."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if told := told_of(f"params{jax.tree_util.keystr(path)}, updated with finite gradients,", leaf):
            return told
    return "the optimizer's new state is not finite, although its gradients are"


def quantities(params, x: Array, y: Array, masks, objective: Objective) -> Iterator[tuple[str, Array]]:
    """Everything that a step computes, named and in order: ψ, z and a upward, the loss, δ's and gradients downward."""
    return either(params, of_layers, of_graph)(params, x, y, masks, *objective)


def of_layers(params, x, y, masks, loss, reduction, rules):
    """The lines of the derivation, with layers numbered from 1 as by ``fnn.summary``."""
    layers, masks = unstack(params), unstack(params, masks)
    for line in lines(layers, x, y, loss=loss, masks=masks, rules=rules):
        n = line.layer
        yield line.equation.said.format(n=n, m=n - 1, activation=layers[n - 1].activation, loss=loss), line.value
        if line.equation is LOSS:
            value, _ = value_and_backprop(layers, x, y, loss=loss, reduction=reduction, masks=masks, rules=rules)
            yield f"the {reduction} of the examples' losses", value


def of_graph(params, x, y, masks, loss, reduction, rules):
    """The lines of the derivation of a graph, with the names of its neurons."""
    graph, mask = params.graph, masks.mask
    want, objective, a = ("loss", "deltas", "gradients"), Objective(loss, reduction), forward(params, x, masks=mask)
    value, *derivatives = results(want, params, x, y, mask, objective)
    computed: Any = trace(params, x, masks=mask), loss.value(a, target_rows(y, a, loss)), *derivatives
    for line in graph_lines(graph, *jax.tree.map(np.asarray, computed)):
        k, j = (None if number is None else graph.neurons[number] for number in (line.k, line.j))
        yield line.equation.said.format(k=k, j=j, loss=loss), line.value
        if line.equation is LOSS:
            yield f"the {reduction} of the examples' losses", value
