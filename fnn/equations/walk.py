"""The lines of a network with their values: computed one by one for layers, collected from the passes for a graph."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fnn.backward import RULES, Rules
from fnn.batchnorm import BatchNorm
from fnn.equations import changes, graphs, layers
from fnn.equations.layers import Equation
from fnn.graph.graph import Graph
from fnn.layers import Dense, Params
from fnn.losses import Loss, SquaredError
from fnn.masks import Mask, masked


class Line(NamedTuple):
    """One equation at one layer (from 1) of one mini-batch: its arguments and its value."""

    equation: Equation
    layer: int
    name: str
    arguments: tuple
    value: Any


def same(quantity: str, layer: int, value):
    """What a later line reads of an earlier one: the value computed there."""
    return value


def call(function: Callable, *arguments):
    return function(*arguments)


def lines(
    params: Params,
    x,
    y,
    *,
    loss: Loss = SquaredError(),
    masks: Sequence[Mask] | None = None,
    rules: Rules = RULES,
    read: Callable = same,
    apply: Callable = call,
) -> Iterator[Line]:
    """Every line of the forward and the backward pass in the order of computation, for the sum over the examples.

    params: ``Dense`` layers, no stacks (``fnn.unstack``); x (B, n_0); y: as the loss takes it. read(quantity, layer,
    value) is what later lines use for "a", "psi", "z", "g", "delta_z" or "delta" of a layer, so that a line can be
    given values computed elsewhere; apply(function, *arguments) computes one line.

    >>> import jax, fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2))
    >>> x, y = jax.numpy.ones((5, 3)), jax.numpy.zeros((5, 2))
    >>> [line.name for line in lines(params, x, y, loss=fnn.SquaredError()) if line.equation.number == "(3)"]
    ['(3)  dC/dW[2] = delta[2]^T a[1]', '(3)  dC/dW[1] = delta[1]^T a[0]']
    """
    walk = _Walk(loss, rules, read, apply)
    passed = yield from walk.forward(params, masks or (Mask(),) * len(params), x)
    yield walk.line(layers.LOSS, len(params), loss.value, (passed[-1].a, y))
    yield from walk.backward(passed, y)


class _Passed(NamedTuple):
    """A layer, numbered from 1, and what the forward pass computed there."""

    n: int
    layer: Dense
    mask: Mask
    W: Any
    a_in: Any
    psi: Any
    z: Any
    a: Any


@dataclass(frozen=True)
class _Walk:
    loss: Loss
    rules: Rules
    read: Callable
    apply: Callable

    def line(self, equation: Equation, n: int, function: Callable, arguments: tuple, left: str = "") -> Line:
        return Line(equation, n, equation.at(n, left), arguments, self.apply(function, *arguments))

    def forward(self, params: Params, masks: Sequence[Mask], a) -> Generator[Line, None, list[_Passed]]:
        passed = []
        for n, (layer, mask) in enumerate(zip(params, masks), start=1):
            a_in, W = masked(self.read("a", n - 1, a), mask.units), masked(layer.W, mask.arrows)
            yield (found := self.line(layers.PSI, n, self.rules.affine, (a_in, W, layer.b)))
            z = psi = self.read("psi", n, found.value)
            if layer.norm is not None:
                yield (found := self.line(layers.NORMALISE, n, self.rules.normalise, (layer.norm, psi)))
                z = self.read("z", n, found.value)
            yield (found := self.line(layers.ACTIVATION, n, layer.activation.value, (z,)))
            a = self.read("a", n, found.value)
            passed.append(_Passed(n, layer, mask, W, a_in, psi, z, a))
        return passed

    def backward(self, passed: list[_Passed], y) -> Iterator[Line]:
        rules, g = self.rules, None
        for n, layer, mask, W, a_in, psi, z, a in reversed(passed):
            left = f"delta[{n}]" if layer.norm is None else f"d/dz[{n}]"
            at: tuple = layer.activation, z, a
            if n == len(passed):
                found = self.line(layers.OUTPUT_DELTA, n, rules.output_delta, (self.loss, *at, y), left)
            else:
                found = self.line(layers.HIDDEN_DELTA, n, rules.hidden_delta, (self.read("g", n, g), *at), left)
            yield found
            delta = self.read("delta_z", n, found.value)
            if layer.norm is not None:
                delta = yield from self.through_norm(n, layer.norm, psi, delta)
            delta = self.read("delta", n, delta)
            yield self.line(layers.WEIGHT_GRADIENT, n, rules.weight_gradient, (delta, a_in, mask.arrows))
            yield self.line(layers.BIAS_GRADIENT, n, rules.bias_gradient, (delta,))
            by = layers.INPUT_GRADIENT if n > 1 else layers.BY_INPUT
            yield (found := self.line(by, n, rules.input_gradient, (delta, W, mask.units)))
            g = found.value

    def through_norm(self, n: int, norm: BatchNorm, psi, delta_z) -> Generator[Line, None, Any]:
        """The three results of a batch norm's pull-back; returns the first, δ."""
        number = "(S8)" if norm.gradient == "full" else "(S7)"
        arguments = norm, psi, delta_z
        parts = self.apply(self.rules.norm_pullback, *arguments)
        values = [self.apply(lambda parts, i=i: parts[i], parts) for i in range(len(layers.NORM_PULLBACK))]
        for equation, value in zip(layers.NORM_PULLBACK, values):
            equation = equation._replace(number=number)
            yield Line(equation, n, equation.at(n), arguments, value)
        return values[0]


def change_lines(
    passed: Sequence[Line], params: Params, v: Params, masks: Sequence[Mask], *, rules, apply: Callable = call
) -> Iterator[Line]:
    """The change along ``v`` of every line that a rule computes and of a = σ(z), in the order of computation.

    passed: all of :func:`lines` for these parameters and masks; v: a pytree like ``params``; rules: a
    ``fnn.curvature.TangentRules``; apply: as in :func:`lines`.

    >>> import jax, fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2))
    >>> x, y, masks = jax.numpy.ones((5, 3)), jax.numpy.zeros((5, 2)), (fnn.Mask(),) * 2
    >>> passed = tuple(lines(params, x, y, loss=fnn.SquaredError()))
    >>> [line.name for line in change_lines(passed, params, params, masks, rules=fnn.curvature.TANGENTS)][0]
    'R{z[1]} = R{a[0]} W[1]^T + a[0] V[1]^T + c[1]'
    """
    walk = _Changes(params, v, masks, rules, apply, {})
    for line in passed:
        yield from walk.of(line)


@dataclass(frozen=True)
class _Changes:
    params: Params
    v: Params
    masks: Sequence[Mask]
    rules: Any
    apply: Callable
    change: dict[tuple[str, int], Any]  # by quantity and layer, as far as it is known

    def line(self, equation: Equation, n: int, arguments: tuple, left: str = "") -> Line:
        value = self.apply(getattr(self.rules, equation.rule), *arguments)
        return Line(equation, n, equation.at(n, left), arguments, value)

    def of(self, line: Line) -> Iterator[Line]:
        """The change of one line, which later ones read."""
        n, arguments, change = line.layer, line.arguments, self.change
        layer, along = self.params[n - 1], self.v[n - 1]
        left = f"R{{delta[{n}]}}" if layer.norm is None else f"R{{d/dz[{n}]}}"
        match line.equation.rule:
            case "affine" | "input_gradient" | "weight_gradient" | "bias_gradient":
                yield from self.linear(line)
            case "normalise":
                norm, psi = arguments
                yield (found := self.line(changes.NORMALISE_CHANGE, n, (norm, along.norm, psi, change["psi", n])))
                change["z", n] = found.value
            case "" if line.equation is layers.ACTIVATION:
                at = change["z", n], layer.activation, *arguments, line.value
                yield (found := self.line(changes.ACTIVATION_CHANGE, n, at))
                change["a", n] = found.value
            case "output_delta":
                at = *arguments, change["z", n], change["a", n]
                yield (found := self.line(changes.OUTPUT_CHANGE, n, at, left))
                change["delta", n] = found.value
            case "hidden_delta":
                g, *inside = arguments
                at = g, change["g", n], *inside, change["z", n]
                yield (found := self.line(changes.HIDDEN_CHANGE, n, at, left))
                change["delta", n] = found.value
            case "norm_pullback" if line.equation.part == 0:
                norm, psi, delta_z = arguments
                at = norm, along.norm, psi, change["psi", n], delta_z, change["delta", n]
                parts = self.apply(self.rules.norm_pullback, *at)
                values = [self.apply(lambda parts, i=i: parts[i], parts) for i in range(len(changes.NORM_CHANGE))]
                yield from (Line(of, n, of.at(n), at, value) for of, value in zip(changes.NORM_CHANGE, values))
                change["delta", n] = values[0]

    def linear(self, line: Line) -> Iterator[Line]:
        """The change of a line that has a matrix, or of the sum (4)."""
        n, change, mask, along = line.layer, self.change, self.masks[line.layer - 1], self.v[line.layer - 1]
        V = masked(along.W, mask.arrows)
        match line.equation.rule, line.arguments:
            case "affine", (a_in, W, _):
                change["a_in", n] = None if n == 1 else masked(change["a", n - 1], mask.units)  # R{a⁰} = 0
                left = f"R{{{'z' if self.params[n - 1].norm is None else 'psi'}[{n}]}}"
                yield (found := self.line(changes.PSI_CHANGE, n, (a_in, change["a_in", n], W, V, along.b), left))
                change["psi", n] = change["z", n] = found.value
            case "weight_gradient", (delta, a_in, arrows):
                at = delta, change["delta", n], a_in, change["a_in", n], arrows
                yield self.line(changes.WEIGHT_CHANGE, n, at)
            case "bias_gradient", _:
                yield self.line(changes.BIAS_CHANGE, n, (change["delta", n],))
            case "input_gradient", (delta, W, units):
                left = f"R{{g[{n - 1}]}}" if n > 1 else "R{dC/dx}"
                at = delta, change["delta", n], W, V, units
                yield (found := self.line(changes.INPUT_CHANGE, n, at, left))
                change["g", n - 1] = found.value


class GraphLine(NamedTuple):
    """One equation at a neuron k, or an arrow j → k, by number; its value has the examples, if any, first."""

    equation: Equation
    k: int | None
    j: int | None
    value: Any


def graph_lines(graph: Graph, passed, losses, lambdas, gradients) -> Iterator[GraphLine]:
    """Every line of a graph in the order of computation: generations upward, the loss, and downward.

    passed, lambdas, gradients: as ``fnn.trace``, ``fnn.deltas`` and ``fnn.backprop`` return them; losses: the value
    for every example.
    """
    order = np.argsort(graph.generation, kind="stable").tolist()
    computed = [k for k in order if graph.generation[k] > 0]
    sends, outputs = {*graph.arrows[:, 0].tolist()}, {*graph.outputs.tolist()}

    def of_lambda(k: int) -> GraphLine:
        equation = graphs.lambda_of(bool(graph.generation[k] > 0), k in sends, k in outputs)
        return GraphLine(equation, k, None, lambdas[..., k])

    for k in computed:
        yield GraphLine(graphs.GRAPH_PSI, k, None, passed.psi[..., k])
        if gradients.norm is not None and graph.normed[k]:
            yield GraphLine(graphs.GRAPH_NORMALISE, k, None, passed.z[..., k])
        yield GraphLine(graphs.GRAPH_ACTIVATION, k, None, passed.a[..., k])
    yield GraphLine(layers.LOSS, None, None, losses)
    for k in reversed(computed):
        yield of_lambda(k)
    for (j, k), weight in zip(graph.arrows.tolist(), gradients.weights):
        yield GraphLine(graphs.ARROW_GRADIENT, k, j, weight)
    for k in computed:
        yield GraphLine(graphs.NEURON_GRADIENT, k, None, gradients.biases[k])
    if gradients.norm is not None:
        for equation, value in zip(graphs.GRAPH_NORM, (gradients.norm.gamma, gradients.norm.beta)):
            yield GraphLine(equation, None, None, value)
    for k in graph.inputs.tolist():
        yield of_lambda(k)
