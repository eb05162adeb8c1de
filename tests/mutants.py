"""Mistakes that people make in each equation, and where and how the checker must name them."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from fnn.batchnorm import BatchNorm, standardise
from wrong_functions import ACTIVATIONS, LOSSES, SAID

RULES = fnn.RULES
KEY = jax.random.key(7)
LOSS = fnn.SquaredError(0.5)


DRAWN = fnn.init(KEY, (6, 5, 4, 3))


def network(activations=(fnn.Tanh(), fnn.Sigmoid(1.5)), output=None, batch_norm=None, drawn=DRAWN):
    """The network drawn, with these activations; with γ = 1 and β = 0 in each batch norm."""
    layers = [replace(layer, activation=a) for layer, a in zip(drawn, (*activations, output or fnn.Sigmoid()))]
    if batch_norm is not None:
        for i, layer in enumerate(layers[:-1]):
            gamma, beta = (jnp.asarray(np.full(len(layer.b), c, np.float32)) for c in (1, 0))
            layers[i] = replace(layer, norm=BatchNorm(gamma, beta, gradient=batch_norm))
    return tuple(layers)


PLAIN = network()
NORMED = network(batch_norm="full")
FIXED = network(batch_norm="fixed")


class Mutant(NamedTuple):
    """A mistake: the network, loss and rules that contain it, and what must be said of it.

    where: the (rule, layer)s that are wrong; looks_like: what the diagnosis must say, None where the mistake is
    not one of the usual ones.
    """

    name: str
    where: frozenset
    looks_like: str | None = None
    rules: fnn.Rules = RULES
    params: tuple = PLAIN
    loss: fnn.Loss = LOSS
    data: tuple = ()  # (x, y), where the mistake is in one network of all; else the probes are used


def at(rule, *layers):
    return frozenset((rule, layer) for layer in layers)


# -- mistakes that any array can have --------------------------------------------------------------------------


def one_entry(value):
    corner = (0,) * value.ndim
    return value.at[corner].set(value[corner] + 1)


def scaled(c):
    return lambda value: c * value


def later_rows_zero(value):
    return value.at[1:].set(0)


ANYWHERE: dict[str, tuple[Callable, str | None]] = {
    "sign": (lambda value: -value, "the sign"),
    "twice": (scaled(2.0), "a factor 2 too large"),
    "half": (scaled(0.5), "a factor 1/2 too small"),
    "zero": (jnp.zeros_like, "it is zero"),
    "one entry": (one_entry, "a single entry is wrong"),
    "a millionth": (scaled(1 + 1e-6), "a constant factor 1"),
}
BY_EXAMPLE = {"first example": (later_rows_zero, "only the first example is used")}


def spoiled(rule: str, mistake: Callable, only: Callable = lambda *args: True) -> fnn.Rules:
    """The rules with a mistake in the result of one of them, where ``only`` says so of its arguments."""
    right = getattr(RULES, rule)
    return RULES._replace(**{rule: lambda *args: mistake(right(*args)) if only(*args) else right(*args)})


def at_tanh(g, activation, z, a):
    return activation == fnn.Tanh()


def at_sigmoid(g, activation, z, a):
    return activation == fnn.Sigmoid(1.5)


MUTANTS = [Mutant(f"output_delta: {n}", at("output_delta", 3), d, spoiled("output_delta", f))
           for n, (f, d) in (ANYWHERE | BY_EXAMPLE).items()]  # fmt: skip
for layer, only in ((1, at_tanh), (2, at_sigmoid)):
    MUTANTS += [Mutant(f"hidden_delta at layer {layer}: {n}", at("hidden_delta", layer), d,
                       spoiled("hidden_delta", f, only))
                for n, (f, d) in (ANYWHERE | BY_EXAMPLE).items()]  # fmt: skip
MUTANTS += [Mutant(f"{rule}: {n}", at(rule, 1, 2, 3), d, spoiled(rule, f))
            for rule in ("input_gradient", "weight_gradient", "bias_gradient")
            for n, (f, d) in ANYWHERE.items()]  # fmt: skip


# -- mistakes of one equation ----------------------------------------------------------------------------------


def hidden(mistake, only=at_tanh):
    return RULES._replace(
        hidden_delta=lambda g, activation, z, a: (mistake if only(g, activation, z, a) else RULES.hidden_delta)(
            g, activation, z, a
        )
    )


HIDDEN = {
    "no sigma'": (lambda g, s, z, a: g, "sigma'(z[1]) is missing"),
    "sigma'(a)": (lambda g, s, z, a: g * s.derivative(a, s.value(a)), "sigma'(a[1]) in place"),
    "a for sigma'": (lambda g, s, z, a: g * a, "a[1] in place of sigma'(z[1])"),
    "sigma' twice": (lambda g, s, z, a: g * s.derivative(z, a) ** 2, "applied twice"),
    "divided": (lambda g, s, z, a: g / s.derivative(z, a), "divided by sigma'"),
    "no g": (lambda g, s, z, a: s.derivative(z, a), "its factor is missing"),
    "another layer's sigma'": (lambda g, s, z, a: fnn.Sigmoid(1.5).pullback(g, z, fnn.Sigmoid(1.5).value(z)),
                               "sigma' of layer 2's activation"),
    "sigma' averaged": (lambda g, s, z, a: g * s.derivative(z, a).mean(axis=0), None),
    "sum over units": (lambda g, s, z, a: g.sum(axis=1, keepdims=True) * s.derivative(z, a), None),
}  # fmt: skip
MUTANTS += [Mutant(f"hidden_delta: {n}", at("hidden_delta", 1), d, hidden(f)) for n, (f, d) in HIDDEN.items()]

OUTPUT = {
    "no sigma'": (lambda L, s, z, a, y: L.gradient(a, y), "sigma'(z[3]) is missing"),
    "sigma'(a)": (lambda L, s, z, a, y: L.gradient(a, y) * s.derivative(a, s.value(a)), "sigma'(a[3]) in place"),
    "the loss at z": (lambda L, s, z, a, y: s.pullback(L.gradient(z, y), z, a), "the loss takes z[3] for a[3]"),
    "no target": (lambda L, s, z, a, y: s.pullback(a, z, a), None),
    "mean": (lambda L, s, z, a, y: L.delta(s, z, a, y) / len(a), "a mean over the examples"),
    "times N": (lambda L, s, z, a, y: L.delta(s, z, a, y) * len(a), "multiplied by the number of examples"),
}  # fmt: skip
MUTANTS += [Mutant(f"output_delta: {n}", at("output_delta", 3), d, RULES._replace(output_delta=f))
            for n, (f, d) in OUTPUT.items()]  # fmt: skip


INPUT = {
    "W transposed": (lambda delta, W, mask=None:
                     RULES.input_gradient(delta, W.T if W.shape[0] == W.shape[1] else W, mask), "is transposed"),
    "mask forgotten": (lambda delta, W, mask=None: delta @ W, "the mask of the units is missing"),
    "mask not scaled": (lambda delta, W, mask=None: delta @ W if mask is None else jnp.where(mask != 0, delta @ W, 0),
                        "the mask's scale is missing"),
    "mask squared": (lambda delta, W, mask=None: delta @ W if mask is None else (delta @ W) * mask * mask,
                     "the mask's scale applied twice"),
    "another mask": (lambda delta, W, mask=None: delta @ W if mask is None else (delta @ W) * jnp.roll(mask, 1, axis=1),
                     None),
    "absolute weights": (lambda delta, W, mask=None: RULES.input_gradient(delta, abs(W), mask), None),
}  # fmt: skip
MUTANTS += [Mutant(f"input_gradient: {n}", at("input_gradient", 1, 2, 3), d, RULES._replace(input_gradient=f))
            for n, (f, d) in INPUT.items()]  # fmt: skip


def after_the_update():
    """δ computed from the W that was updated first: equation H11 read literally."""
    last = {}

    def weight(delta, a_in, mask=None):
        last["gradient"] = RULES.weight_gradient(delta, a_in, mask)
        return last["gradient"]

    def inputs(delta, W, mask=None):
        return RULES.input_gradient(delta, W - 0.1 * last["gradient"], mask)

    return RULES._replace(weight_gradient=weight, input_gradient=inputs)


MUTANTS.append(
    Mutant("input_gradient: the updated W", at("input_gradient", 1, 2, 3), "the updated W", after_the_update())
)

WEIGHT = {
    "transposed": (lambda delta, a, mask=None: RULES.weight_gradient(delta, a, mask).T, "the transpose"),
    "first example": (lambda delta, a, mask=None: RULES.weight_gradient(delta[:1], a[:1], mask),
                      "only the first example"),
    "last example": (lambda delta, a, mask=None: RULES.weight_gradient(delta[-1:], a[-1:], mask),
                     "only the last example"),
    "mean": (lambda delta, a, mask=None: RULES.weight_gradient(delta, a, mask) / len(a), "a mean over the examples"),
    "arrow mask forgotten": (lambda delta, a, mask=None: delta.T @ a, "the mask of the arrows is missing"),
    "arrow mask not scaled": (lambda delta, a, mask=None:
                              delta.T @ a if mask is None else jnp.where(mask != 0, delta.T @ a, 0),
                              "the mask's scale is missing"),
}  # fmt: skip
MUTANTS += [Mutant(f"weight_gradient: {n}", at("weight_gradient", 1, 2, 3), d, RULES._replace(weight_gradient=f))
            for n, (f, d) in WEIGHT.items()]  # fmt: skip

BIAS = {
    "wrong axis": (lambda delta: delta.sum(axis=1), "summed over the wrong axis"),
    "both axes": (lambda delta: jnp.full(delta.shape[1], delta.sum()), "summed over both axes"),
    "not summed": (lambda delta: delta, "not summed over the examples"),
    "first example": (lambda delta: delta[0], "only the first example"),
    "last example": (lambda delta: delta[-1], "only the last example"),
    "mean": (lambda delta: delta.mean(axis=0), "a mean over the examples"),
}
MUTANTS += [Mutant(f"bias_gradient: {n}", at("bias_gradient", 1, 2, 3), d, RULES._replace(bias_gradient=f))
            for n, (f, d) in BIAS.items()]  # fmt: skip


def norm_pullback(change):
    return RULES._replace(norm_pullback=lambda norm, psi, delta_z: change(norm, psi, delta_z, RULES.norm_pullback))


def without(term):
    """The full pull-back without its term through the mean, or through the variance."""

    def rule(norm, psi, delta_z, right):
        x_hat, s = standardise(norm, psi)
        h = norm.gamma * delta_z
        mean, variance = h.mean(axis=0), x_hat * (h * x_hat).mean(axis=0)
        return (h - (variance if term == "mean" else mean)) / s, *right(norm, psi, delta_z)[1:]

    return rule


NORM = {
    "statistics fixed": (lambda n, p, d, right: right(replace(n, gradient="fixed"), p, d), "are taken as fixed"),
    "no epsilon": (lambda n, p, d, right: right(replace(n, eps=0.0), p, d), "epsilon is forgotten"),
    "no gamma": (lambda n, p, d, right: right(replace(n, gamma=jnp.ones_like(n.gamma)), p, d), "gamma is missing"),
    "no mean term": (without("mean"), "the term through the mean is missing"),
    "no variance term": (without("variance"), "the term through the variance is missing"),
    "psi for x_hat": (lambda n, p, d, right: (right(n, p, d)[0], (d * p).sum(axis=0), right(n, p, d)[2]),
                      "psi in place of x_hat"),
    "not divided": (lambda n, p, d, right: (right(n, p, d)[0] * standardise(n, p)[1], *right(n, p, d)[1:]),
                    "the division by the deviation is missing"),
    "beta's sign": (lambda n, p, d, right: (*right(n, p, d)[:2], -right(n, p, d)[2]), "the sign"),
    "gamma of the first example": (lambda n, p, d, right: (right(n, p, d)[0], (d * standardise(n, p)[0])[0],
                                                           right(n, p, d)[2]), "only the first example"),
}  # fmt: skip
MUTANTS += [Mutant(f"norm_pullback: {n}", at("norm_pullback", 1, 2), d, norm_pullback(f), NORMED)
            for n, (f, d) in NORM.items()]  # fmt: skip
MUTANTS.append(
    Mutant("norm_pullback: full for fixed", at("norm_pullback", 1, 2), "not taken as fixed", norm_pullback(
        lambda n, p, d, right: right(replace(n, gradient="full"), p, d)), FIXED)
)  # fmt: skip


# -- a quantity of the neighbouring layer, in a network where that has the right shape -------------------------

SQUARE = network(drawn=fnn.init(KEY, (5, 5, 5, 5)))
X, Y = jax.random.normal(jax.random.key(8), (7, 5)), jax.random.uniform(jax.random.key(9), (7, 5))


def neighbours_z(g, activation, z, a):
    other = fnn.trace(jax.tree.map(lambda leaf: leaf.astype(z.dtype), SQUARE), X.astype(z.dtype))[0]
    return activation.pullback(g, other.z, other.a)


def neighbours_W(delta, W, mask=None):
    mine, other = (SQUARE[i].W.astype(W.dtype) for i in (1, 2))
    return jnp.where(jnp.array_equal(W, mine), delta @ other, delta @ W)


def own_a(delta, a_in, mask=None):
    first, second = (t.a.astype(delta.dtype) for t in fnn.trace(SQUARE, X)[:2])
    return jnp.where(jnp.abs(a_in - first).max() < 1e-5, delta.T @ second, delta.T @ a_in)


MUTANTS += [
    Mutant("hidden_delta: the neighbour's z", at("hidden_delta", 2), "sigma'(z[1]), of layer 1, in place",
           hidden(neighbours_z, at_sigmoid), SQUARE, data=(X, Y)),
    Mutant("input_gradient: the neighbour's W", at("input_gradient", 2), "W[3] in place of W[2]",
           RULES._replace(input_gradient=neighbours_W), SQUARE, data=(X, Y)),
    Mutant("weight_gradient: the layer's own a", at("weight_gradient", 2), None,
           RULES._replace(weight_gradient=own_a), SQUARE, data=(X, Y)),
]  # fmt: skip


# -- mistakes in an activation's or a loss's own derivative ----------------------------------------------------

MUTANTS += [Mutant(f"activation {n}", at("hidden_delta", 1), SAID.get(n),
                   params=network(activations=(s, fnn.Sigmoid(1.5))))
            for n, s in ACTIVATIONS.items()]  # fmt: skip
MUTANTS += [Mutant(f"loss {n}", at("output_delta", 3), d, params=network(output=out), loss=loss)
            for n, (loss, d, out) in LOSSES.items()]  # fmt: skip
