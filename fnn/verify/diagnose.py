"""Diagnosing a wrong equation: common mistakes as hypotheses, kept if they explain it up to rounding."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from fnn.batchnorm import norm_pullback, standardise
from fnn.dropout import masked
from fnn.verify.equations import Context, Equation, Failure, is_elementwise
from fnn.verify.report import norm, norm_error

Guess = tuple[str, object]


def explanations(equation: Equation, tolerance: float) -> list[str]:
    """The mistakes that turn autodiff's value into the hand-written one, most specific first."""
    if isinstance(equation.hand, Failure):
        error = equation.hand.error
        return [f"it raises {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"]
    hand, oracle = np.asarray(equation.hand), np.asarray(equation.oracle)
    found = [name for name, value in _specific(equation) if explains(hand, value, tolerance)]
    return found + generic(hand, oracle, tolerance, _named_factors(equation.at))


def generic(hand: np.ndarray, oracle: np.ndarray, tolerance: float, factors: Sequence = ()) -> list[str]:
    """Mistakes recognisable without knowing the equation: sign, factor, transpose, zero, one entry, one example."""
    found = []
    if hand.shape != oracle.shape:
        if hand.shape == oracle.T.shape and explains(hand, oracle.T, tolerance):
            return ["the transpose"]
        return [f"shape {hand.shape}, expected {oracle.shape}"]
    if not np.isfinite(hand).all():
        return ["it is not finite"]
    if not hand.any():
        return ["it is zero"]
    if oracle.ndim == 2 and oracle.shape[0] == oracle.shape[1] and explains(hand, oracle.T, tolerance):
        found.append("the transpose")
    differs = np.abs(hand - oracle) > 1e3 * tolerance * max(np.abs(oracle).max(), np.abs(hand).max())
    square = float(np.sum(oracle * oracle))
    c = float(np.sum(hand * oracle)) / square if square else 0.0
    if c and explains(hand, c * oracle, tolerance):
        found += _factors(c, list(factors))
    if differs.sum() == 1 and hand.size > 1:
        found.append("a single entry is wrong")
    if oracle.ndim == 2 and len(oracle) > 1 and differs[1:].any() and not differs[0].any() and not hand[1:].any():
        found.append("only the first example is used")
    return found


def explains(hand, value, tolerance: float) -> bool:
    value = np.asarray(value)
    if value.shape != hand.shape or not np.isfinite(value).all():
        return False
    return norm_error(hand, value, norm(value)) <= 100 * tolerance


def _factors(c: float, names: list[tuple[str, float]]) -> list[str]:
    """What a constant factor c may mean; ``names``: factors with a specific meaning."""
    known = [*names, ("a factor 2 too large", 2.0), ("a factor 1/2 too small", 0.5)]
    found = [name for name, value in known if abs(c - value) <= 1e-4 * abs(value)]
    if abs(c + 1) <= 1e-4:
        found.append("the sign")
    found += [f"the sign, and {name}" for name, value in known if abs(c + value) <= 1e-4 * abs(value)]
    return found or [f"a constant factor {c:.7g}"]


def _named_factors(at: Context) -> list[tuple[str, float]]:
    """Factors with a specific meaning at this layer."""
    names = []
    for mask in (np.asarray(mask) for mask in at.mask if mask is not None):
        kept = np.unique(mask[mask != 0])
        if len(kept) == 1:
            scale = float(kept[0])
            names += [("the mask's scale applied twice", scale), ("the mask's scale is missing", 1 / scale)]
    batch = len(at.case.x)
    names += [
        ("multiplied by the number of examples", float(batch)),
        ("a mean over the examples, not a sum", 1 / batch),
    ]
    return [(name, value) for name, value in names if value != 1]


def _specific(equation: Equation) -> Iterator[Guess]:
    at = equation.at
    if equation.rule in ("output_delta", "hidden_delta"):
        yield from _delta(at, equation.rule == "output_delta")
    elif equation.rule == "input_gradient":
        yield from _input_gradient(at, np.asarray(equation.hand))
    elif equation.rule == "weight_gradient":
        yield from _weight_gradient(at)
    elif equation.rule == "bias_gradient":
        yield from _bias_gradient(at)
    elif equation.rule == "norm_pullback":
        for name, values in _norm_pullback(at):
            yield name, values[equation.part]


def _neighbours(at: Context) -> Iterator[tuple[int, int]]:
    """The other layers, nearest first: index, and number from 1."""
    for j in sorted(range(len(at.traces)), key=lambda j: abs(j - at.i)):
        if j != at.i:
            yield j, j + 1


def _delta(at: Context, top: bool) -> Iterator[Guess]:
    n, g, (_, _, z, a), activation = at.i + 1, at.auto.a[at.i], at.t, at.layer.activation
    yield f"sigma'(z[{n}]) is missing", g
    yield f"a[{n}] in place of sigma'(z[{n}])", g * a
    if is_elementwise(activation, z):
        slope = activation.derivative(z, a)
        yield f"sigma'(a[{n}]) in place of sigma'(z[{n}])", g * activation.derivative(a, activation.value(a))
        yield f"sigma'(z[{n}]) applied twice", g * slope * slope
        yield f"divided by sigma'(z[{n}])", g / jnp.where(slope == 0, 1, slope)
        yield f"sigma'(z[{n}]) alone: its factor is missing", slope
    else:
        yield f"only the diagonal of the Jacobian of {activation}", g * a * (1 - a)
    for j, m in _neighbours(at):
        other = at.traces[j]
        if other.z.shape == z.shape:
            yield f"sigma'(z[{m}]), of layer {m}, in place of sigma'(z[{n}])", activation.pullback(g, other.z, other.a)
        neighbour = at.case.params[j].activation
        if neighbour != activation:
            yield (
                f"sigma' of layer {m}'s activation, {neighbour}, at z[{n}]",
                neighbour.pullback(g, z, neighbour.value(z)),
            )
    if top and not np.array_equal(z, a):
        yield f"the loss takes z[{n}] for a[{n}]", activation.pullback(at.loss.gradient(z, at.y), z, a)


def _input_gradient(at: Context, hand) -> Iterator[Guess]:
    n, delta, W, units = at.i + 1, at.auto.psi[at.i], at.layer.W, at.mask.units
    if at.mask.arrows is not None:
        yield "the mask of the arrows is missing", masked(delta @ W, units)
        yield "the mask's scale is missing", masked(delta @ jnp.where(at.mask.arrows != 0, W, 0), units)
    if units is not None:
        yield "the mask of the units is missing", delta @ at.weights()
        yield "the mask's scale is missing", masked(delta @ at.weights(), (units != 0).astype(W.dtype))
    if W.shape[0] == W.shape[1]:
        yield f"W[{n}] is transposed", masked(delta @ at.weights().T, units)
    for j, m in _neighbours(at):
        if at.case.params[j].W.shape == W.shape:
            yield f"W[{m}] in place of W[{n}]", masked(delta @ at.case.params[j].W, units)
    oracle = masked(delta @ at.weights(), units)
    step = np.asarray(masked(delta @ at.auto.params[at.i].W, units))  # W' = W − η ∂C/∂W
    if hand.shape == step.shape and step.any():
        eta = float(np.sum((np.asarray(oracle) - hand) * step) / np.sum(step * step))
        if eta and np.linalg.norm(hand - np.asarray(oracle)) > 0:
            yield f"the updated W[{n}] in place of the old one", oracle - np.asarray(eta, step.dtype) * step
    if at.layer.norm is not None:
        yield "the batch norm is left out: d/dz in place of delta", masked(at.auto.z[at.i] @ at.weights(), units)


def _weight_gradient(at: Context) -> Iterator[Guess]:
    n, delta, a_in, arrows = at.i + 1, at.auto.psi[at.i], at.t.a_in, at.mask.arrows
    if arrows is not None:
        yield "the mask of the arrows is missing", delta.T @ a_in
        yield "the mask's scale is missing", jnp.where(arrows != 0, delta.T @ a_in, 0)
    yield "only the first example is used", masked(delta[:1].T @ a_in[:1], arrows)
    yield "only the last example is used", masked(delta[-1:].T @ a_in[-1:], arrows)
    before = at.case.x if at.i == 0 else at.traces[at.i - 1].a
    if at.mask.units is not None:
        yield "the mask of the units is missing", masked(delta.T @ before, arrows)
    if at.i:
        yield f"z[{n - 1}] in place of a[{n - 1}]", masked(delta.T @ at.traces[at.i - 1].z, arrows)
    for j, m in _neighbours(at):
        if at.traces[j].a_in.shape == a_in.shape:
            yield f"a[{m - 1}] in place of a[{n - 1}]", masked(delta.T @ at.traces[j].a_in, arrows)
        if at.auto.psi[j].shape == delta.shape:
            yield f"delta[{m}] in place of delta[{n}]", masked(at.auto.psi[j].T @ a_in, arrows)
    if at.t.a.shape == a_in.shape:
        yield f"a[{n}] in place of a[{n - 1}]", masked(delta.T @ at.t.a, arrows)
    if at.layer.norm is not None:
        yield "the batch norm is left out: d/dz in place of delta", masked(at.auto.z[at.i].T @ a_in, arrows)


def _bias_gradient(at: Context) -> Iterator[Guess]:
    delta = at.auto.psi[at.i]
    yield "summed over the wrong axis: over the units, not the examples", jnp.sum(delta, axis=1)
    yield "summed over both axes", jnp.broadcast_to(jnp.sum(delta), delta.shape[1:])
    yield "summed over both axes", jnp.sum(delta)
    yield "not summed over the examples", delta
    yield "only the first example is used", delta[0]
    yield "only the last example is used", delta[-1]
    if at.layer.norm is not None:
        yield "the batch norm is left out: d/dz in place of delta", jnp.sum(at.auto.z[at.i], axis=0)


def _norm_pullback(at: Context) -> Iterator[tuple[str, tuple]]:
    norm, psi, delta_z = at.layer.norm, at.t.psi, at.auto.z[at.i]
    assert norm is not None
    x_hat, s = standardise(norm, psi)
    h, batch = norm.gamma * delta_z, len(psi)
    right = norm_pullback(norm, psi, delta_z)
    other = "fixed" if norm.gradient == "full" else "full"
    kind = "taken as fixed" if other == "fixed" else "not taken as fixed"
    yield f"the statistics are {kind}", norm_pullback(replace(norm, gradient=other), psi, delta_z)
    yield "epsilon is forgotten", norm_pullback(replace(norm, eps=0.0), psi, delta_z)
    yield "gamma is missing", norm_pullback(replace(norm, gamma=jnp.ones_like(norm.gamma)), psi, delta_z)
    yield "the division by the deviation is missing", (right[0] * s, right[1], right[2])
    yield "divided by the variance, not the deviation", (right[0] / s, right[1], right[2])
    unbiased = s * np.sqrt(batch / max(batch - 1, 1)).astype(s.dtype)
    x_unbiased = (psi - jnp.mean(psi, axis=0)) / unbiased
    yield "the variance is the unbiased one", (right[0] * s / unbiased, jnp.sum(delta_z * x_unbiased, axis=0), right[2])
    if norm.gradient == "full":
        through_nu = x_hat * jnp.mean(h * x_hat, axis=0)
        yield "the term through the mean is missing", ((h - through_nu) / s, right[1], right[2])
        yield "the term through the variance is missing", ((h - jnp.mean(h, axis=0)) / s, right[1], right[2])
    centred = psi - jnp.mean(psi, axis=0)
    yield "psi - mu in place of x_hat", (right[0], jnp.sum(delta_z * centred, axis=0), right[2])
    yield "psi in place of x_hat", (right[0], jnp.sum(delta_z * psi, axis=0), right[2])
    yield "psi_hat in place of x_hat", (right[0], jnp.sum(delta_z * at.t.z, axis=0), right[2])
    yield "only the first example is used", (right[0], (delta_z * x_hat)[0], delta_z[0])
