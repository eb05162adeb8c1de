"""Probes: small networks, data, and arguments of single rules, each designed to expose certain mistakes."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.activations import PerNeuron
from fnn.batchnorm import BatchNorm
from fnn.equations import Line
from fnn.equations import layers as equations
from fnn.layers import Params
from fnn.losses import Loss
from fnn.masks import Mask
from fnn.stacking import unstack
from fnn.verify.equations import Case
from fnn.verify.interpret import evaluate
from fnn.verify.sizes import DELTAS

BATCH = 7
WIDTHS = (5, 8, 6, 9)  # cycled through by rectangular networks; none is the batch size, and every kink fits
SQUARE = 4  # width and batch size: every transposition and every wrong axis has a valid shape


def probes(params: Params, seed: int = 0) -> tuple[Case, ...]:
    """Cases for a network like ``params``: as deep, with its activations and batch norms, but small and random.

    params: a tuple of ``Dense``; its weights are used only in the first case. The cases are:

        the network itself    its own parameters, random data, batch of 7
        rectangular           all sizes differ from each other and from the batch: a wrong axis has the wrong shape
        square                all sizes and the batch equal, so a wrong axis shows in the values; with a batch norm,
                              a variance near its ε
        one example           (two with a batch norm)
        targets of any size   not normalised, so that their sum cannot be mistaken for 1
        at the kinks          one unit exactly at 0, ±1 and ± every parameter of its activation
        huge logits           outputs in the thousands, where the output layer is linear
        masks                 random masks of units and arrows, scaled by 2 and by 4
        square masks          the same where every layer is square

    A ``PerNeuron`` keeps its layer's width. Deterministic for a given seed; the dtype is that of the parameters.
    """
    return tuple(_Probes(params, seed).cases())


class _Probes:
    """The cases for one network, which share a random generator."""

    def __init__(self, params: Params, seed: int):
        self.params, self.random = unstack(params), np.random.default_rng(seed)
        self.dtype = self.params[0].W.dtype
        self.normed = any(layer.norm is not None for layer in self.params)

    def cases(self) -> Iterator[Case]:
        depth, normed = len(self.params), self.normed
        rectangular = (*(WIDTHS[i % len(WIDTHS)] for i in range(depth)), 3)
        square = (SQUARE,) * (depth + 1)
        yield self.case("the network itself", self.params)
        yield self.case("rectangular", self.network(rectangular))
        yield self.case("square", self.network(square, 0.003 if normed else 1.5), SQUARE)
        few = "two examples" if normed else "one example"
        yield self.case(few, self.network(rectangular), 2 if normed else 1)
        yield self.case("targets of any size", self.network(rectangular), targets=3.0)
        yield self.case("at the kinks", at_kinks(self.network(rectangular)))
        if is_linear(self.params[-1].activation):
            last = self.network(rectangular)
            huge = replace(last[-1], W=self.array(1000 * np.asarray(last[-1].W)))
            yield self.case("huge logits", (*last[:-1], huge), inputs=2.0)
        drawn = self.network(rectangular)
        yield self.case("masks", drawn, masks=[self.mask(layer, BATCH) for layer in drawn])
        drawn = self.network(square)
        yield self.case("square masks", drawn, SQUARE, masks=[self.mask(layer, SQUARE) for layer in drawn])

    def array(self, values):
        return jnp.asarray(np.asarray(values).astype(self.dtype), self.dtype)  # of an equal dtype, JAX compiles nothing

    def network(self, sizes, scale=1.5) -> Params:
        random, layers = self.random, []
        fixed = [len(p.b) if isinstance(p.activation, PerNeuron) else None for p in self.params]
        sizes = (sizes[0], *(own or size for own, size in zip(fixed, sizes[1:])))
        for layer, n_in, n_out in zip(self.params, sizes, sizes[1:]):
            W = self.array(random.normal(size=(n_out, n_in)) * scale / np.sqrt(n_in))
            norm = layer.norm
            if norm is not None:
                gamma, beta = random.uniform(0.5, 1.5, n_out), random.normal(size=n_out) * 0.5
                norm = BatchNorm(self.array(gamma), self.array(beta), norm.eps, norm.gradient)
            layers.append(replace(layer, W=W, b=self.array(random.normal(size=n_out) * 0.5), norm=norm))
        return tuple(layers)

    def case(self, name, network, batch=BATCH, inputs=1.0, targets=1.0, masks=None) -> Case:
        x = self.array(self.random.normal(size=(batch, network[0].W.shape[1])) * inputs)
        y = self.random.uniform(0.05, 0.95, (batch, network[-1].W.shape[0]))
        y = self.array(y / y.sum(axis=1, keepdims=True) if targets == 1 else y * targets)
        return Case(name, network, x, y, tuple(masks or (Mask(),) * len(network)))

    def mask(self, layer, batch: int) -> Mask:
        units = self.random.integers(0, 2, (batch, layer.W.shape[1])) * 2
        return Mask(self.array(units), self.array(self.random.integers(0, 2, layer.W.shape) * 4))


def at_kinks(params: Params) -> Params:
    """The network with units whose z, for any input, is exactly where the activation may have a kink."""
    layers = []
    for layer in params:
        points = kinks(layer.activation)[: max(len(layer.b) - 2, 0)]  # two units stay unchanged
        norm, (W, b) = layer.norm, (np.array(layer.W), np.array(layer.b))
        if norm is None:
            W[: len(points)], b[: len(points)] = 0, points
        else:
            gamma, beta = np.array(norm.gamma), np.array(norm.beta)
            gamma[: len(points)], beta[: len(points)] = 0, points
            norm = replace(norm, gamma=jnp.asarray(gamma, gamma.dtype), beta=jnp.asarray(beta, beta.dtype))
        layers.append(replace(layer, W=jnp.asarray(W, W.dtype), b=jnp.asarray(b, b.dtype), norm=norm))
    return tuple(layers)


def kinks(activation) -> list[float]:
    """0, ±1, and the activation's parameters and their negatives: where its derivative may jump."""
    own = [getattr(activation, f.name) for f in fields(activation)] if is_dataclass(activation) else []
    numbers = [float(v) for v in own if isinstance(v, (int, float)) and not isinstance(v, bool)]
    points = [0.0, *sorted(numbers, key=lambda v: -abs(v)), 1.0, -1.0, *(-v for v in numbers)]
    return list(dict.fromkeys(p for p in points if abs(p) < 1e3))


def is_linear(activation) -> bool:
    """Whether σ(z) = z, as for losses that take logits."""
    if isinstance(activation, PerNeuron):
        return all(map(is_linear, activation.activations))
    z = np.linspace(-3, 3, 7, dtype=np.float32)
    return bool(np.array_equal(evaluate(activation.value, z), z))


# -- arguments of single rules ---------------------------------------------------------------------------------

POINTS = {  # values of z and of the outputs: a wrong value anywhere must show, beside others of its size
    "ordinary points": (*np.arange(-5, 5.1, 0.5), 0.1, -0.1, 1e-3, -1e-3, np.pi, -np.pi),
    "tiny values": (0.0, 1e-4, -1e-4, 1e-8, -1e-8, 1e-17, -1e-17, 1e-30),
    "large values": (6.0, -6.0, 8.0, -8.0, 12.0, -12.0, 16.0, -16.0, 20.0, -20.0),
    "values past 20": (21.0, -21.0, 25.0, -25.0, 33.0, -33.0, 50.0, -50.0),
    "past float32's exp": (88.5, -88.5, 89.0, -89.0, 104.0, -104.0, 134.0, -134.0, 300.0, -300.0),
    "past float64's exp": (709.5, -709.5, 720.0, -720.0, 1000.0, -1000.0, 1e4, -1e4),
}
COTANGENTS = (0.0, 1.0, -1.0, 0.5, -2.0, 11.0, -37.0, 1000.0, 3.0)
BATCHES = (1, 2, 8, 16, 32, 33)  # whole tiles, and one with a remainder
WIDE, WIDER = 17, 130  # beyond 16 and 128


def single_rules(params: Params, loss: Loss) -> Iterator[tuple[str, Line]]:
    """A name and a line for every rule of the network at arguments that no small network reaches.

    Values of z past ±20 and past the range of exp, at whole numbers and at kinks; cotangents 0, and beyond 10;
    targets exactly 0 or 1, whole numbers and labels; batches of 1 to 33; widths beyond 16 and 128; a batch norm of
    nearly equal numbers.
    """
    params, random = unstack(params), np.random.default_rng(1)
    seen = set()
    for n, layer in enumerate(params[:-1], start=1):
        if layer.activation not in seen:
            seen.add(layer.activation)
            yield from _hidden_deltas(n, layer, random)
    yield from _output_deltas(len(params), params[-1], loss, random)
    for n, norm in [(n, layer.norm) for n, layer in enumerate(params, start=1) if layer.norm is not None][:1]:
        yield from _norm_pullbacks(n, norm, random)
    yield from _linear_rules(random)


def _at_points(layer, random) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, z, a), in as many columns as fit."""
    width = len(layer.b) if isinstance(layer.activation, PerNeuron) else 4
    for name, points in POINTS.items():
        more = kinks(layer.activation) if name == "ordinary points" else ()
        drawn = random.permutation(np.array([*points, *more]))
        z = np.resize(drawn, (-(-len(drawn) // width), width))
        with np.errstate(all="ignore"):
            yield name, z, evaluate(layer.activation.value, z)


def _hidden_deltas(n: int, layer, random) -> Iterator[tuple[str, Line]]:
    for name, z, a in _at_points(layer, random):
        if np.isfinite(a).all():
            g = random.permuted(np.resize(COTANGENTS, z.shape))
            yield name, _line(equations.HIDDEN_DELTA, n, g, layer.activation, z, a)
            if name == "ordinary points":
                yield "cotangents of 0", _line(equations.HIDDEN_DELTA, n, 0 * g, layer.activation, z, a)


def _output_deltas(n: int, layer, loss: Loss, random) -> Iterator[tuple[str, Line]]:
    for name, z, a in _at_points(layer, random):
        if not np.isfinite(a).all():
            continue
        classes = random.integers(0, z.shape[1], len(z))
        yield (
            f"{name}, targets 0 or 1",
            _line(equations.OUTPUT_DELTA, n, loss, layer.activation, z, a, np.eye(z.shape[1])[classes]),
        )
        if loss.takes_labels:
            yield f"{name}, labels", _line(equations.OUTPUT_DELTA, n, loss, layer.activation, z, a, classes)
        if name == "ordinary points":
            counts = random.integers(0, 6, z.shape).astype(np.float64)
            yield "targets of whole numbers", _line(equations.OUTPUT_DELTA, n, loss, layer.activation, z, a, counts)
            yield "targets equal to outputs", _line(equations.OUTPUT_DELTA, n, loss, layer.activation, z, a, a)


def _norm_pullbacks(n: int, norm: BatchNorm, random) -> Iterator[tuple[str, Line]]:
    gamma: Any = np.concatenate([[0.0, -1.5], random.uniform(0.5, 1.5, WIDE - 2)])
    norm = replace(norm, gamma=gamma, beta=random.normal(size=WIDE))
    for name, psi in (
        ("a batch of 32", random.normal(size=(32, WIDE))),
        ("a batch of 33", 3 + random.normal(size=(33, WIDE))),
        ("nearly equal numbers", 100 + 0.01 * random.normal(size=(8, WIDE))),
        ("equal numbers", np.ones((8, WIDE))),
        ("cotangents of 0", random.normal(size=(8, WIDE))),
    ):
        delta = random.normal(size=psi.shape) * (name != "cotangents of 0")
        for equation in equations.NORM_PULLBACK:
            yield name, _line(equation, n, norm, psi, delta)


def _linear_rules(random) -> Iterator[tuple[str, Line]]:
    for batch in BATCHES:
        n_in, n_out = (WIDER, WIDE) if batch == 33 else (6, 5)
        delta, a_in = random.normal(size=(batch, n_out)), random.normal(size=(batch, n_in))
        delta[0, 0], delta[0, -1] = 0.0, 1000.0
        W, b = random.normal(size=(n_out, n_in)), random.normal(size=n_out)
        name = f"a batch of {batch}" + (f", widths {n_in} and {n_out}" if batch == 33 else "")
        yield name, _line(equations.PSI, 1, a_in, W, b)
        yield name, _line(equations.WEIGHT_GRADIENT, 1, delta, a_in, None)
        yield name, _line(equations.BIAS_GRADIENT, 1, delta)
        yield name, _line(equations.BY_INPUT, 1, delta, W, None)
    for equation, others in (
        (equations.WEIGHT_GRADIENT, (a_in, None)), (equations.BIAS_GRADIENT, ()), (equations.BY_INPUT, (W, None)),
    ):  # fmt: skip
        yield "cotangents of 0", _line(equation, 1, 0 * delta, *others)


def _line(equation, n: int, *arguments) -> Line:
    return Line(equation, n, equation.at(n), arguments, None)


def rounded_to(dtype: str, line: Line) -> Line:
    """The line with its arrays rounded to the numbers of ``dtype``, and a = σ(z) for the rounded z."""
    arguments = jax.tree.map(partial(round_array, dtype), line.arguments)
    if line.equation.rule in DELTAS:
        activation, z = arguments[1:3]
        arguments = (*arguments[:3], evaluate(activation.value, z), *arguments[4:])
    return line._replace(arguments=arguments)


def round_array(dtype: str, value):
    """A floating array rounded to the numbers of ``dtype``, in its own dtype; anything else unchanged."""
    if not isinstance(value, (np.ndarray, jax.Array)) or not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    with np.errstate(over="ignore"):
        return np.asarray(value).astype(dtype).astype(value.dtype)
