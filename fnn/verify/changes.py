"""The lines of the R-operator on layers, with autodiff's values of what they read and of what they compute."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from fnn.batchnorm import BatchNorm, standardise
from fnn.curvature.tangents import TangentRules
from fnn.dropout import masked
from fnn.equations.changes import (
    ACTIVATION_CHANGE,
    BIAS_CHANGE,
    HIDDEN_CHANGE,
    INPUT_CHANGE,
    NORM_CHANGE,
    NORMALISE_CHANGE,
    OUTPUT_CHANGE,
    PSI_CHANGE,
    WEIGHT_CHANGE,
    Equation,
)
from fnn.layers import Params
from fnn.losses import Loss
from fnn.verify.equations import Case
from fnn.verify.oracle import quantities
from fnn.verify.report import norm

SEED = 0  # of the direction


class Line(NamedTuple):
    """One line at one layer or at some neurons: by hand as a function of the rules, autodiff's value, and its terms."""

    equation: Equation
    layer: int  # of a graph the generation
    name: str
    hand: Callable[[TangentRules], Any]
    oracle: Any
    terms: dict[str, Any]
    rounding: float = 0.0  # of factors much larger than their products, added to the size of the terms
    neurons: Any = None  # the numbers of those along the last axis, where it counts some of a graph


def along(params):
    """A random direction, a pytree like ``params``."""
    random = np.random.default_rng(SEED)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), params)


def slack(tolerance: float, dtype) -> float:
    """How much of a factor counts as a term, for it may be much larger than its product, as where σ' is small."""
    return 16 * float(jnp.finfo(dtype).eps) / tolerance


def rounding(tolerance: float, *factors) -> float:
    """That of such factors, to be added to the size of the terms."""
    return slack(tolerance, factors[0].dtype) * sum(map(norm, factors))


class Normed(NamedTuple):
    """A batch norm and its ψ, (B, n), with their changes: what the first arguments of both of its rules are."""

    norm: BatchNorm
    along: BatchNorm
    psi: Any
    dpsi: Any

    def terms(self) -> dict[str, Any]:
        """Those of R{z}, (B, n) each."""
        (x_hat, _), (dx_hat, _) = self.standardised()
        return {
            "R{gamma} x_hat": self.along.gamma * x_hat,
            "gamma R{x_hat}": self.norm.gamma * dx_hat,
            "R{beta}": jnp.broadcast_to(self.along.beta, self.psi.shape),
        }

    def differenced(self):
        """What R{x̂}, times γ, is a difference of, and much larger where ψ hardly varies: γ R{ψ} / s, (B, n)."""
        (_, s), _ = self.standardised()
        return self.norm.gamma * self.dpsi / s

    def sizes(self, delta_z, d_delta_z, slack: float) -> tuple:
        """Of what is summed in the three results of the pull-back's change: (B, n), (n,), (n,)."""
        (x_hat, s), (dx_hat, ds) = (tuple(map(abs, pair)) for pair in self.standardised())
        x_hat, dx_hat = x_hat + slack * abs(self.psi) / s, dx_hat + slack * abs(self.dpsi) / s
        gamma, dgamma = abs(self.norm.gamma), abs(self.along.gamma)
        delta_z, d_delta_z = abs(delta_z), abs(d_delta_z)
        h, dh = gamma * delta_z, dgamma * delta_z + gamma * d_delta_z
        mixed = dx_hat * (h * x_hat).mean(axis=0) + x_hat * (h * dx_hat).mean(axis=0)
        of_psi = (dh + dh.mean(axis=0) + x_hat * (dh * x_hat).mean(axis=0) + mixed + h * ds / s) / s
        return of_psi, (d_delta_z * x_hat + delta_z * dx_hat).sum(axis=0), d_delta_z.sum(axis=0)

    def standardised(self):
        """(x̂, s) and their changes."""
        return jax.jvp(partial(standardise, self.norm), (self.psi,), (self.dpsi,))


def lines(case: Case, loss: Loss, tolerance: float) -> Iterator[Line]:
    """All lines of the case, forward and then backward, with autodiff's values along a random direction."""
    params = jax.tree.map(jnp.asarray, case.params)
    v = along(params)

    def of(params):
        return quantities(params, case.x, case.y, case.masks, loss)

    values, tangents = jax.jvp(of, (params,), (v,))
    at = [_Layer(case, loss, v, values, tangents, i, tolerance) for i in range(len(params))]
    for layer in at:
        yield from layer.forward()
    for layer in reversed(at):
        yield from layer.backward()


class _Layer:
    """The lines of one layer."""

    def __init__(self, case: Case, loss: Loss, v: Params, values, tangents, i: int, tolerance: float):
        self.auto: Any
        self.d_auto: Any
        (self.auto, traces), (self.d_auto, d_traces) = values, tangents
        self.case, self.loss, self.i, self.n, self.tolerance = case, loss, i, i + 1, tolerance
        self.layer, self.along = cast(Any, case.params[i]), cast(Any, v[i])
        self.mask = case.masks[i]
        self.t, self.dt = traces[i], d_traces[i]
        self.da_in = d_traces[i].a_in if i else None  # as the loop has it: the input does not change
        self.W, self.V = (masked(of.W, self.mask.arrows) for of in (self.layer, self.along))
        self.norm: Normed | None = None
        if self.layer.norm is not None:
            self.norm = Normed(self.layer.norm, self.along.norm, self.t.psi, self.dt.psi)

    def line(self, equation: Equation, arguments: tuple, oracle, terms, rounding=0.0, left: str = "") -> Line:
        def hand(rules: TangentRules):
            result = getattr(rules, equation.rule)(*arguments)
            return result[equation.part] if equation.rule == "norm_pullback" else result

        return Line(equation, self.n, equation.at(self.n, left), hand, oracle, terms, rounding)

    def rounding(self, *factors) -> float:
        return rounding(self.tolerance, *factors)

    def forward(self) -> Iterator[Line]:
        n, t, dt, along = self.n, self.t, self.dt, self.along
        terms = {"a V^T": t.a_in @ self.V.T, "c": jnp.broadcast_to(along.b, t.psi.shape)}
        if self.da_in is not None:
            terms["R{a} W^T"] = self.da_in @ self.W.T
        left = f"R{{psi[{n}]}}" if self.norm else f"R{{z[{n}]}}"
        yield self.line(PSI_CHANGE, (t.a_in, self.da_in, self.W, self.V, along.b), dt.psi, terms, left=left)
        if self.norm:
            extra = self.rounding(self.norm.differenced())
            yield self.line(NORMALISE_CHANGE, self.norm, dt.z, self.norm.terms(), extra)
        arguments = dt.z, self.layer.activation, t.z, t.a
        yield self.line(ACTIVATION_CHANGE, arguments, dt.a, {"": dt.a}, self.rounding(dt.z))

    def backward(self) -> Iterator[Line]:
        yield self.delta_z()
        through = 0.0  # a batch norm's R{δ} is a small difference of large terms
        if self.norm:
            yield from self.norm_pullback(self.norm)
            through = self.rounding(self.d_auto.z[self.i])
        yield from self.gradients(through)

    def delta_z(self) -> Line:
        """R{∂/∂z}, at the output and elsewhere."""
        n, i, t, dt, activation = self.n, self.i, self.t, self.dt, self.layer.activation
        left = f"R{{d/dz[{n}]}}" if self.norm else f"R{{delta[{n}]}}"
        oracle, g, dg = self.d_auto.z[i], self.auto.a[i], self.d_auto.a[i]
        terms = {"R{g} sigma'": activation.pullback(dg, t.z, t.a)}
        terms["g sigma'' R{z}"] = oracle - terms["R{g} sigma'"]
        if n == len(self.auto.z):
            arguments = self.loss, activation, t.z, t.a, self.case.y, dt.z, dt.a
            return self.line(OUTPUT_CHANGE, arguments, oracle, terms, self.rounding(g, dt.a, dt.z), left)
        return self.line(HIDDEN_CHANGE, (g, dg, activation, t.z, t.a, dt.z), oracle, terms, self.rounding(g, dg), left)

    def norm_pullback(self, at: Normed) -> Iterator[Line]:
        own, deltas = self.d_auto.params[self.i].norm, (self.auto.z[self.i], self.d_auto.z[self.i])
        oracles = self.d_auto.psi[self.i], own.gamma, own.beta
        for equation, oracle, size in zip(
            NORM_CHANGE, oracles, at.sizes(*deltas, slack(self.tolerance, self.t.z.dtype))
        ):
            yield self.line(equation, (*at, *deltas), oracle, {"": size})

    def gradients(self, through: float) -> Iterator[Line]:
        """Those by W and b, and R{g} of the layer before."""
        i, t, mask, own = self.i, self.t, self.mask, self.d_auto.params[self.i]
        delta, d_delta = self.auto.psi[i], self.d_auto.psi[i]
        terms = {"R{delta}^T a": masked(d_delta.T @ t.a_in, mask.arrows)}
        if self.da_in is not None:
            terms["delta^T R{a}"] = masked(delta.T @ self.da_in, mask.arrows)
        yield self.line(WEIGHT_CHANGE, (delta, d_delta, t.a_in, self.da_in, mask.arrows), own.W, terms, through)
        yield self.line(BIAS_CHANGE, (d_delta,), own.b, {"": jnp.abs(d_delta).sum(axis=0)}, through)
        oracle, left = (self.d_auto.a[i - 1], f"R{{g[{i}]}}") if i else (self.d_auto.x, "R{dC/dx}")
        terms = {"R{delta} W": masked(d_delta @ self.W, mask.units), "delta V": masked(delta @ self.V, mask.units)}
        yield self.line(INPUT_CHANGE, (delta, d_delta, self.W, self.V, mask.units), oracle, terms, left=left)
