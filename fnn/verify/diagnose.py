"""Diagnosing a wrong equation: common mistakes as hypotheses, kept if they give the hand-written value.

Everything is computed from autodiff's values and never from the user's own derivatives, which may be what is wrong.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import jax
import numpy as np

from fnn.backward import RULES, Rules
from fnn.batchnorm import norm_pullback, standardise
from fnn.losses import as_targets
from fnn.masks import masked
from fnn.verify.equations import Failure, Judged, is_elementwise
from fnn.verify.interpret import evaluate
from fnn.verify.oracle import AUTODIFF, loss_gradient, slope
from fnn.verify.patterns import statements
from fnn.verify.properties import of_rule
from fnn.verify.report import norm
from fnn.verify.sizes import DELTAS

Guess = tuple[str, object]


def explanations(judged: Judged, rules: Rules, tolerance: float) -> list[str]:
    """What turns the right value into the hand-written one, the most specific first."""
    if isinstance(judged.hand, Failure):
        error = judged.hand.error
        if not judged.hand.raised:
            return [str(error)]
        said = f"it raises {type(error).__name__}"
        return [f"{said}: {str(error).splitlines()[0]}" if str(error) else said, said]
    hand, oracle = np.asarray(judged.hand), judged.oracle
    found = []
    if hand.shape != oracle.shape or hand.size > 1:
        with np.errstate(all="ignore"):
            found = [name for name, make in _guesses(judged) if _explains(make, hand, oracle, judged.known, tolerance)]
    axes = judged.line.equation.axes
    found += statements(hand, oracle, tolerance, axes, _beside(judged), _named_factors(judged))
    with np.errstate(all="ignore"):
        return [*found, *_inside(judged, hand, oracle, tolerance), *of_rule(judged, rules)]


def _inside(judged: Judged, hand: np.ndarray, oracle: np.ndarray, tolerance: float) -> list[str]:
    """What is true of x̂ in a batch norm, without its γ and β."""
    if judged.rule != "normalise" or hand.shape != oracle.shape:
        return []
    gamma, beta = (np.asarray(part) for part in (judged.line.arguments[0].gamma, judged.line.arguments[0].beta))
    if not gamma.all():
        return []
    ours, right = ((value - beta) / gamma for value in (hand, oracle))
    return [f"x_hat: {text}" for text in statements(ours, right, tolerance, judged.line.equation.axes)]


def _explains(make: Callable, hand: np.ndarray, oracle: np.ndarray, known: np.ndarray, tolerance: float) -> bool:
    """Whether a guess gives the hand-written value, far closer than the right one is."""
    try:
        value = np.asarray(evaluate(make))
    except Exception:  # the guess has no meaning here, as where shapes differ
        return False
    if value.shape != hand.shape:
        return False
    if known.shape == hand.shape:
        hand, value = np.where(known, hand, 0), np.where(known, value, 0)
    told = ~np.isnan(value) | np.isnan(hand)  # of the others the guess says nothing
    finite = np.isfinite(hand) & told
    if not np.array_equal(finite, np.isfinite(value) & told):
        return False
    hand, value = np.where(finite, hand, 0), np.where(finite, value, 0)
    error, size = norm(hand - value), norm(value)
    wrong = norm(hand - np.where(finite, oracle, 0)) if oracle.shape == hand.shape else size
    return error <= max(100 * tolerance * size, min(1e-6 * size, 1e-3 * wrong))


def _beside(judged: Judged) -> dict[str, np.ndarray]:
    """What stands beside a δ: the entries of z, and of g or y."""
    if judged.rule not in DELTAS:
        return {}
    args = judged.line.arguments
    if judged.rule == "hidden_delta":
        return {"z": args[2], "g": args[0]}
    return {"z": args[2], "y": _rows(args[4], args[3])}


def _named_factors(judged: Judged) -> list[tuple[str, float]]:
    """Factors with a specific meaning at this line."""
    names, args = [], judged.line.arguments
    masks: tuple = (args[2],) if judged.rule in ("weight_gradient", "input_gradient") else ()
    if judged.case is not None and judged.rule in ("weight_gradient", "input_gradient"):
        masks = judged.case.masks[judged.layer - 1]
    for mask in (np.asarray(mask) for mask in masks if mask is not None):
        kept = np.unique(mask[mask != 0])
        if len(kept) == 1:
            scale = float(kept[0])
            names += [("the mask's scale applied twice", scale), ("the mask's scale is missing", 1 / scale)]
    by_examples = {"output_delta": 2, "hidden_delta": 2, "norm_pullback": 1, "normalise": 1}
    batch = len(args[by_examples.get(judged.rule, 0)])
    names += [
        ("multiplied by the number of examples", float(batch)),
        ("a mean over the examples, not a sum", 1 / batch),
    ]
    if judged.rule in ("output_delta", "bias_gradient") and judged.oracle.ndim:
        units = judged.oracle.shape[-1]
        names += [("multiplied by the number of units", float(units)), ("divided by the number of units", 1 / units)]
    return [(name, value) for name, value in names if value != 1]


def _rows(y, a) -> np.ndarray:
    return evaluate(as_targets, np.asarray(y), np.asarray(a))


def _guesses(judged: Judged) -> Iterator[tuple[str, Callable]]:
    """Mistakes, each with a function that computes what it would give."""
    args, n = judged.line.arguments, judged.layer
    if judged.rule == "output_delta":
        loss, activation, z, a, y = args
        rows = _rows(y, a)
        yield from _delta(n, evaluate(loss_gradient, loss, a, y), activation, z, a, judged)
        if not np.array_equal(z, a):
            yield (
                f"the loss takes z[{n}] for a[{n}]",
                lambda: AUTODIFF.hidden_delta(loss_gradient(loss, z, y), activation, z, a),
            )
        yield "the target is missing", lambda: AUTODIFF.hidden_delta(np.asarray(a), activation, z, a)
        yield "a - y, without a factor", lambda: np.asarray(a) - rows
    elif judged.rule == "hidden_delta":
        g, activation, z, a = args
        yield from _delta(n, g, activation, z, a, judged)
    elif judged.rule == "input_gradient":
        yield from _input_gradient(judged, *args)
    elif judged.rule == "weight_gradient":
        yield from _weight_gradient(judged, *args)
    elif judged.rule == "bias_gradient":
        yield from _bias_gradient(judged, *args)
    elif judged.rule == "norm_pullback":
        for name, make in _norm_pullback(judged, *args):
            yield name, lambda make=make: make()[judged.part]
    elif judged.rule == "affine":
        a_in, W, b = map(np.asarray, args)
        yield "the bias is missing", lambda: a_in @ W.T
        yield "the bias is subtracted", lambda: a_in @ W.T - b
        yield "W is transposed", lambda: a_in @ W + b
    elif judged.rule == "normalise":
        norm, psi = jax.tree.map(np.asarray, args)
        x_hat, _ = evaluate(standardise, norm, psi)
        yield "gamma is missing", lambda: x_hat + norm.beta
        yield "beta is missing", lambda: norm.gamma * x_hat
        yield "the batch norm is left out", lambda: psi


def _at_layers(judged: Judged) -> dict[int, dict]:
    """What the lines of every other layer read, by the layers' distance: z, a, σ, δ, ∂/∂z and a_in."""
    found: dict[int, dict] = {}
    for line in judged.lines:
        here = found.setdefault(line.layer, {})
        if line.equation.rule in DELTAS:
            here |= {"activation": line.arguments[1], "z": line.arguments[2], "a": line.arguments[3]}
            here |= {"delta_z": line.value}
        elif line.equation.rule == "weight_gradient":
            here |= {"delta": line.arguments[0], "a_in": line.arguments[1]}
    nearest = sorted(found, key=lambda n: abs(n - judged.layer))
    return {n: found[n] for n in nearest if found[n]}


def _delta(n: int, g, activation, z, a, judged: Judged) -> Iterator[tuple[str, Callable]]:
    g, z, a = map(np.asarray, (g, z, a))
    if is_elementwise(activation, np.asarray(z)):
        own = evaluate(slope, activation, z)
        yield f"sigma'(z[{n}]) is missing", lambda: g
        yield f"a[{n}] in place of sigma'(z[{n}])", lambda: g * a
        yield f"z[{n}] in place of sigma'(z[{n}])", lambda: g * z
        yield f"sigma'(a[{n}]) in place of sigma'(z[{n}])", lambda: g * slope(activation, a)
        yield f"sigma'(z[{n}]) applied twice", lambda: g * own * own
        yield f"divided by sigma'(z[{n}])", lambda: g / np.where(np.abs(own) < 1e-4, np.nan, own)  # noise beyond
        yield f"sigma'(z[{n}]) alone: its factor is missing", lambda: own
        yield f"1 - sigma'(z[{n}]) in place of sigma'(z[{n}])", lambda: g * (1 - own)
    else:
        yield f"sigma'(z[{n}]) is missing", lambda: g
        yield f"only the diagonal of the Jacobian of {activation}", lambda: g * _diagonal(activation, z)
    for m, other in _at_layers(judged).items():
        if m == n or "z" not in other:
            continue
        if np.shape(other["z"]) == z.shape:
            yield (
                f"sigma'(z[{m}]), of layer {m}, in place of sigma'(z[{n}])",
                lambda other=other: AUTODIFF.hidden_delta(g, activation, np.asarray(other["z"]), None),
            )
            if _is_right(activation, z):
                yield (
                    f"sigma'(z[{m}]), of layer {m}, in place of sigma'(z[{n}])",
                    lambda other=other: activation.pullback(g, np.asarray(other["z"]), np.asarray(other["a"])),
                )
        if other["activation"] != activation:
            yield (
                f"sigma' of layer {m}'s activation, {other['activation']}, at z[{n}]",
                lambda other=other: AUTODIFF.hidden_delta(g, other["activation"], z, None),
            )


def _is_right(activation, z) -> bool:
    """Whether the activation's own pull-back, which may be what is wrong, is autodiff's."""
    try:
        ones = np.ones_like(z)
        own = evaluate(activation.pullback, ones, z, evaluate(activation.value, z))
        return bool(np.allclose(own, evaluate(AUTODIFF.hidden_delta, ones, activation, z, None), rtol=1e-5, atol=1e-8))
    except Exception:  # a user's own may raise anything
        return False


def _diagonal(activation, z):
    """∂a_j/∂z_j of every unit of an activation that couples them."""
    ones = np.eye(z.shape[1], dtype=z.dtype)
    columns = [
        evaluate(AUTODIFF.hidden_delta, np.broadcast_to(one, z.shape), activation, z, None) @ one for one in ones
    ]
    return np.stack(columns, axis=1)


def _input_gradient(judged: Judged, delta, W, units) -> Iterator[tuple[str, Callable]]:
    n, (delta, W) = judged.layer, map(np.asarray, (delta, W))
    if judged.case is not None:
        layer, mask = judged.case.params[n - 1], judged.case.masks[n - 1]
        plain = np.asarray(layer.W)
        if mask.arrows is not None:
            yield "the mask of the arrows is missing", lambda: masked(delta @ plain, units)
            kept = np.where(np.asarray(mask.arrows) != 0, plain, 0)
            yield "the mask's scale is missing", lambda: masked(delta @ kept, units)
        eta = _step_to(judged, delta, W)
        if eta is not None:
            yield f"the updated W[{n}] in place of the old one", eta
    if units is not None:
        yield "the mask of the units is missing", lambda: delta @ W
        yield "the mask's scale is missing", lambda: masked(delta @ W, (np.asarray(units) != 0).astype(W.dtype))
    if W.shape[0] == W.shape[1]:
        yield f"W[{n}] is transposed", lambda: masked(delta @ W.T, units)
    for m, other in _at_layers(judged).items():
        other_W = None if judged.case is None or m == n else judged.case.params[m - 1].W
        if other_W is not None and other_W.shape == W.shape:
            yield f"W[{m}] in place of W[{n}]", lambda W=other_W: masked(delta @ W, units)
        if m != n and np.shape(other.get("delta", 0)) == delta.shape:
            yield f"delta[{m}] in place of delta[{n}]", lambda other=other: masked(other["delta"] @ W, units)
        if m == n and judged.case is not None and judged.case.params[n - 1].norm is not None:
            yield (
                "the batch norm is left out: d/dz in place of delta",
                lambda other=other: masked(other["delta_z"] @ W, units),
            )


def _step_to(judged: Judged, delta, W):
    """The value with W − η ∂C/∂W, where some η > 0 gives the hand-written one."""
    n, hand = judged.layer, np.asarray(judged.hand)
    gradient = next((line.value for line in judged.lines if (line.layer, line.equation.rule) == (n, "weight_gradient")),
                    None)  # fmt: skip
    if gradient is None or hand.shape != judged.oracle.shape:
        return None
    units = judged.line.arguments[2]
    step = np.asarray(masked(delta @ np.asarray(gradient), units))
    eta = float(np.sum((judged.oracle - hand) * step)) / (float(np.sum(step * step)) or 1.0)
    return (lambda: masked(delta @ (W - eta * np.asarray(gradient)), units)) if eta > 0 else None


def _weight_gradient(judged: Judged, delta, a_in, arrows) -> Iterator[tuple[str, Callable]]:
    n, (delta, a_in) = judged.layer, map(np.asarray, (delta, a_in))
    if arrows is not None:
        yield "the mask of the arrows is missing", lambda: delta.T @ a_in
        yield "the mask's scale is missing", lambda: np.where(np.asarray(arrows) != 0, delta.T @ a_in, 0)
        yield "the mask of the arrows is transposed", lambda: delta.T @ a_in * np.asarray(arrows).T
    if len(delta) > 1:
        yield "only the first example is used", lambda: masked(delta[:1].T @ a_in[:1], arrows)
        yield "only the last example is used", lambda: masked(delta[-1:].T @ a_in[-1:], arrows)
        yield "the first example is left out", lambda: masked(delta[1:].T @ a_in[1:], arrows)
        yield "the last example is left out", lambda: masked(delta[:-1].T @ a_in[:-1], arrows)
    yield "the absolute value of delta", lambda: masked(np.abs(delta).T @ a_in, arrows)
    layers = _at_layers(judged)
    below = layers.get(n - 1, {})
    if judged.case is not None and judged.case.masks[n - 1].units is not None:
        before = below.get("a", judged.case.x)
        yield "the mask of the units is missing", lambda: masked(delta.T @ before, arrows)
    if "z" in below:
        yield f"z[{n - 1}] in place of a[{n - 1}]", lambda: masked(delta.T @ below["z"], arrows)
    for m, other in layers.items():
        if m == n:
            continue
        if np.shape(other.get("a_in", 0)) == a_in.shape:
            yield f"a[{m - 1}] in place of a[{n - 1}]", lambda other=other: masked(delta.T @ other["a_in"], arrows)
        if np.shape(other.get("delta", 0)) == delta.shape:
            yield f"delta[{m}] in place of delta[{n}]", lambda other=other: masked(other["delta"].T @ a_in, arrows)
    own = layers.get(n, {})
    if np.shape(own.get("a", 0)) == a_in.shape:
        yield f"a[{n}] in place of a[{n - 1}]", lambda: masked(delta.T @ own["a"], arrows)
    if judged.case is not None and judged.case.params[n - 1].norm is not None:
        yield (
            "the batch norm is left out: d/dz in place of delta",
            lambda: masked(np.asarray(own["delta_z"]).T @ a_in, arrows),
        )


def _bias_gradient(judged: Judged, delta) -> Iterator[tuple[str, Callable]]:
    delta = np.asarray(delta)
    yield "summed over the wrong axis: over the units, not the examples", lambda: np.sum(delta, axis=1)
    yield "summed over both axes", lambda: np.broadcast_to(np.sum(delta), delta.shape[1:])
    yield "summed over both axes", lambda: np.sum(delta)
    yield "not summed over the examples", lambda: delta
    if len(delta) > 1:
        yield "only the first example is used", lambda: delta[0]
        yield "only the last example is used", lambda: delta[-1]
        yield "the first example is left out", lambda: delta[1:].sum(axis=0)
        yield "the last example is left out", lambda: delta[:-1].sum(axis=0)
    yield "the largest of the examples, not their sum", lambda: delta.max(axis=0)
    yield "the absolute value of delta", lambda: np.abs(delta).sum(axis=0)
    if judged.case is not None and judged.case.params[judged.layer - 1].norm is not None:
        own = _at_layers(judged)[judged.layer]
        yield (
            "the batch norm is left out: d/dz in place of delta",
            lambda: np.sum(np.asarray(own["delta_z"]), axis=0),
        )


def _norm_pullback(judged: Judged, norm, psi, delta_z) -> Iterator[tuple[str, Callable]]:
    norm, psi, delta_z = jax.tree.map(np.asarray, (norm, psi, delta_z))
    x_hat, s = evaluate(standardise, norm, psi)
    batch = len(psi)
    right = evaluate(RULES.norm_pullback, norm, psi, delta_z)
    other = "fixed" if norm.gradient == "full" else "full"
    kind = "taken as fixed" if other == "fixed" else "not taken as fixed"
    yield f"the statistics are {kind}", lambda: norm_pullback(replace(norm, gradient=other), psi, delta_z)
    yield "epsilon is forgotten", lambda: norm_pullback(replace(norm, eps=0.0), psi, delta_z)
    plain = replace(norm, gamma=np.ones_like(np.asarray(norm.gamma)))
    yield "gamma is missing", lambda: norm_pullback(plain, psi, delta_z)
    yield "the division by the deviation is missing", lambda: (right[0] * s, right[1], right[2])
    yield "divided by the variance, not the deviation", lambda: (right[0] / s, right[1], right[2])
    unbiased = s * np.sqrt(batch / max(batch - 1, 1)).astype(s.dtype)
    x_unbiased = (psi - np.mean(psi, axis=0)) / unbiased
    yield (
        "the variance is the unbiased one",
        lambda: (right[0] * s / unbiased, np.sum(delta_z * x_unbiased, axis=0), right[2]),
    )
    if norm.gradient == "full":
        for name, parts in _through_statistics(norm.gamma * delta_z, x_hat, len(psi)):
            yield name, lambda parts=parts: (parts / s, right[1], right[2])
    centred = psi - np.mean(psi, axis=0)
    yield "psi - mu in place of x_hat", lambda: (right[0], np.sum(delta_z * centred, axis=0), right[2])
    yield "psi in place of x_hat", lambda: (right[0], np.sum(delta_z * psi, axis=0), right[2])
    yield (
        "psi_hat in place of x_hat",
        lambda: (right[0], np.sum(delta_z * (norm.gamma * x_hat + norm.beta), axis=0), right[2]),
    )
    yield "only the first example is used", lambda: (right[0], (delta_z * x_hat)[0], delta_z[0])
    yield "gamma stands in it", lambda: (right[0] * norm.gamma, right[1] * norm.gamma, right[2] * norm.gamma)
    yield "x_hat is missing", lambda: (right[0], np.sum(delta_z, axis=0), right[2])
    yield "x_hat stands in it", lambda: (right[0], right[1], np.sum(delta_z * x_hat, axis=0))


def _through_statistics(h, x_hat, batch: int) -> Iterator[tuple[str, np.ndarray]]:
    """Mistakes in the terms through the mean and the variance: s ∂/∂ψ of each."""
    through_mu, through_nu = np.mean(h, axis=0), x_hat * np.mean(h * x_hat, axis=0)
    yield "the term through the mean is missing", h - through_nu
    yield "the term through the variance is missing", h - through_mu
    yield "the term through the mean has the wrong sign", h + through_mu - through_nu
    yield "the term through the variance has the wrong sign", h - through_mu + through_nu
    yield "the sum over the examples in place of their mean", h - batch * (through_mu + through_nu)
