"""Probes: small networks and data, each designed to expose certain mistakes."""

from dataclasses import fields, is_dataclass, replace

import jax.numpy as jnp
import numpy as np

from fnn.batchnorm import BatchNorm
from fnn.dropout import Mask
from fnn.layers import Params
from fnn.stacking import unstack
from fnn.verify.equations import Case

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

    Deterministic for a given seed; the dtype is that of the parameters.
    """
    params, random = unstack(params), np.random.default_rng(seed)
    dtype = params[0].W.dtype
    normed = any(layer.norm is not None for layer in params)
    rectangular = (*(WIDTHS[i % len(WIDTHS)] for i in range(len(params))), 3)
    square = (SQUARE,) * (len(params) + 1)

    def array(values):
        return jnp.asarray(np.asarray(values), dtype)

    def network(sizes, scale=1.5):
        layers = []
        for layer, n_in, n_out in zip(params, sizes, sizes[1:]):
            W = array(random.normal(size=(n_out, n_in)) * scale / np.sqrt(n_in))
            norm = layer.norm
            if norm is not None:
                gamma, beta = array(random.uniform(0.5, 1.5, n_out)), array(random.normal(size=n_out) * 0.5)
                norm = BatchNorm(gamma, beta, norm.eps, norm.gradient)
            layers.append(replace(layer, W=W, b=array(random.normal(size=n_out) * 0.5), norm=norm))
        return tuple(layers)

    def case(name, network, batch=BATCH, inputs=1.0, targets=1.0, masks=None):
        x = array(random.normal(size=(batch, network[0].W.shape[1])) * inputs)
        y = random.uniform(0.05, 0.95, (batch, network[-1].W.shape[0]))
        y = array(y / y.sum(axis=1, keepdims=True) if targets == 1 else y * targets)
        return Case(name, network, x, y, masks or (Mask(),) * len(network))

    def mask(layer):
        units = random.integers(0, 2, (BATCH, layer.W.shape[1])) * 2
        return Mask(array(units), array(random.integers(0, 2, layer.W.shape) * 4))

    cases = [
        case("the network itself", params),
        case("rectangular", network(rectangular)),
        case("square", network(square, 0.003 if normed else 1.5), SQUARE),
        case("one example" if not normed else "two examples", network(rectangular), 2 if normed else 1),
        case("targets of any size", network(rectangular), targets=3.0),
        case("at the kinks", at_kinks(network(rectangular))),
    ]
    if is_linear(params[-1].activation):
        last = network(rectangular)
        cases.append(case("huge logits", (*last[:-1], replace(last[-1], W=last[-1].W * 1000)), inputs=2.0))
    drawn = network(rectangular)
    cases.append(case("masks", drawn, masks=tuple(mask(layer) for layer in drawn)))
    return tuple(cases)


def at_kinks(params: Params) -> Params:
    """The network with units whose z, for any input, is exactly where the activation may have a kink."""
    layers = []
    for layer in params:
        points = kinks(layer.activation)[: len(layer.b) - 2]  # two units stay unchanged
        norm, (W, b) = layer.norm, (np.array(layer.W), np.array(layer.b))
        if norm is None:
            W[: len(points)], b[: len(points)] = 0, points
        else:
            gamma, beta = np.array(norm.gamma), np.array(norm.beta)
            gamma[: len(points)], beta[: len(points)] = 0, points
            norm = replace(norm, gamma=jnp.asarray(gamma), beta=jnp.asarray(beta))
        layers.append(replace(layer, W=jnp.asarray(W), b=jnp.asarray(b), norm=norm))
    return tuple(layers)


def kinks(activation) -> list[float]:
    """0, ±1, and the activation's parameters and their negatives: where its derivative may jump."""
    own = [getattr(activation, f.name) for f in fields(activation)] if is_dataclass(activation) else []
    numbers = [float(v) for v in own if isinstance(v, (int, float)) and not isinstance(v, bool)]
    points = [0.0, *sorted(numbers, key=lambda v: -abs(v)), 1.0, -1.0, *(-v for v in numbers)]
    return list(dict.fromkeys(p for p in points if abs(p) < 1e3))


def is_linear(activation) -> bool:
    """Whether σ(z) = z, as for losses that take logits."""
    z = np.linspace(-3, 3, 7, dtype=np.float32)
    return bool(np.array_equal(np.asarray(activation.value(jnp.asarray(z))), z))
