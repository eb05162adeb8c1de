"""Whether a diagnosis is true: what it claims, computed here from a rule's arguments, against what the rule returns."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.activations import Activation
from fnn.batchnorm import norm_pullback, standardise
from fnn.curvature.tangents import TANGENTS
from fnn.losses import Loss
from fnn.masks import masked
from fnn.verify.properties import DIRECTIONS, NAMES, NAMES_OF_CHANGES

SCALES = (2.0, 4.0)  # of the probes' masks
CLOSE = 1e-6
METHODS = ("derivative", "pullback", "gradient", "delta", "second_derivative", "hessian", "pullback_tangent")


class Evidence(NamedTuple):
    """One call of a rule: its name, which of its results, the layer from 1, its arguments, and the two values.

    hand: of the changed rule, or what it raised; right: of the right one; others: the calls of the same case, which has
    a name.
    """

    rule: str
    part: int
    layer: int
    arguments: tuple
    hand: Any
    right: Any
    others: tuple = ()
    case: str = ""
    call: Any = None  # the changed rule, as a function of its arguments
    used: tuple = ()  # the arguments as the changed rule got them

    @property
    def raised(self) -> bool:
        return isinstance(self.hand, Exception)

    @property
    def differs(self) -> bool:
        return self.raised or not close(self.hand, self.right)

    def of_layer(self, rule: str, layer: int) -> tuple:
        """The arguments of another rule's call."""
        return next(other.arguments for other in self.others if (other.rule, other.layer) == (rule, layer))


def close(value, claim) -> bool:
    value, claim = np.asarray(value), np.asarray(claim)
    if value.shape != claim.shape or not (np.isfinite(value).all() and np.isfinite(claim).all()):
        return False
    return bool(np.linalg.norm(value - claim) <= CLOSE * np.linalg.norm(claim) + 1e-300)


def holds(note: str, evidence: Iterable[Evidence]) -> bool | None:
    """Whether the note says what turns right values into the changed ones, wherever they differ; None if not judged."""
    wrong = [e for e in evidence if e.differs]
    if found := re.match(rf"on ({'|'.join({e.case for e in wrong} - {''})}): (.*)", note) if wrong else None:
        return holds(found[2], [e for e in wrong if e.case == found[1]])
    if not wrong or not note or note.startswith("on "):
        return None
    if note.startswith(("expected an array, got ", "expected (d/dpsi")):
        return any(not e.raised and np.asarray(e.hand).dtype.kind not in "fiub" for e in wrong)
    if found := re.match(r"it raises (\w+)", note):
        return any(e.raised and type(e.hand).__name__ == found[1] for e in wrong)
    if found := re.match(r"shape (\(.*?\)), expected (\(.*?\))$", note):
        return any(not e.raised and np.shape(e.hand) != np.shape(e.right) for e in wrong)
    valued = [e for e in wrong if not e.raised and np.shape(e.hand) == np.shape(e.right)]
    if note == "it is not finite":
        return all(not np.isfinite(np.asarray(e.hand)).all() for e in valued)
    if note == "the transpose":
        return all(close(e.hand, np.asarray(e.right).T) for e in wrong if not e.raised)
    if note in ("not summed over the examples", "summed over both axes"):
        valued = [e for e in wrong if not e.raised]
    if not valued:
        return None
    answers = [_holds(note, e) for e in valued]
    return None if None in answers else all(answers)


def _holds(note: str, e: Evidence) -> bool | None:
    hand, right = np.asarray(e.hand), np.asarray(e.right)
    if note == "a single entry is wrong":
        return int((~np.isclose(hand, right, rtol=CLOSE, atol=CLOSE * np.abs(right).max())).sum()) == 1
    if (said := _said_of_the_rule(note, e)) is not None:
        return said
    if note.startswith("where it differs: "):
        differ = ~np.isclose(hand, right, rtol=CLOSE, atol=0)
        return _holds(note.removeprefix("where it differs: "), e._replace(hand=hand[differ], right=right[differ]))
    if note.startswith("x_hat: "):
        norm = e.arguments[0]
        inside = {"hand": (hand - norm.beta) / norm.gamma, "right": (right - norm.beta) / norm.gamma}
        return _holds(note.removeprefix("x_hat: "), e._replace(**inside))
    if note.startswith("the sign, and "):
        return _holds(note.removeprefix("the sign, and "), e._replace(hand=-hand))
    claims = [*_factors(note, e), *_terms(note, e), *_specific(note, e)]
    return any(close(hand, claim) for claim in claims) if claims else None


def _said_of_the_rule(note: str, e: Evidence) -> bool | None:
    """Of notes on a method, or on what a rule reads; None for other notes."""
    if found := re.match(
        r"(\w+)\.(derivative|pullback|gradient|delta|second_derivative|hessian|pullback_tangent)\(", note
    ):
        return any(type(arg).__name__ == found[1] and "changed" in vars(arg) for arg in e.used)
    if found := re.fullmatch(r"wrong for (.*), of d/dz", note):
        norm, psi, delta_z = e.used
        x_hat, _ = standardise(norm, psi)
        h = norm.gamma * delta_z
        mean, along = jnp.mean(h, axis=0), x_hat * jnp.sum(h * x_hat, axis=0) / jnp.sum(x_hat * x_hat, axis=0)
        parts = {
            "its mean over the examples": mean + 0 * h,
            "what lies along x_hat": along,
            "the rest of it": h - mean - along,
        }
        wrong = [
            name
            for name, part in parts.items()
            if not close(e.call(norm, psi, part / norm.gamma)[0], norm_pullback(norm, psi, part / norm.gamma)[0])
        ]
        return wrong == found[1].split(" and ")
    if found := re.fullmatch(r"wrong in what (.*) contributes|it is not 0 where the direction is", note):
        names = NAMES_OF_CHANGES[e.rule]
        every = [i for i, name in enumerate(names) if name in DIRECTIONS and e.used[i] is not None]

        def differs(kept) -> bool:
            args = [
                jax.tree.map(jnp.zeros_like, arg) if i in every and i not in kept else arg
                for i, arg in enumerate(e.used)
            ]
            values = [rule(*args) for rule in (e.call, getattr(TANGENTS, e.rule))]
            hand, right = (value[e.part] if e.rule == "norm_pullback" else value for value in values)
            return not close(hand, right)

        if found[1] is None:
            return differs([])
        return [names[i] for i in every if differs([i])] == found[1].split(" and ")
    if found := re.fullmatch(r"it (does not depend on|is not linear in) (\S+)", note):
        names = next(of[e.rule] for of in (NAMES, NAMES_OF_CHANGES) if len(of.get(e.rule, ())) == len(e.arguments))
        i = names.index(found[2])
        array = np.asarray(e.arguments[i])
        new = 2 * array if "linear" in found[1] else array + np.random.default_rng(5).normal(size=array.shape)
        value = e.call(*e.used[:i], jnp.asarray(new), *e.used[i + 1 :])
        value = value[e.part] if e.rule == "norm_pullback" else value
        return not close(value, 2 * e.hand) if "linear" in found[1] else close(value, e.hand)
    return None


def _factors(note: str, e: Evidence) -> Iterator:
    right = np.asarray(e.right)
    batch = next((len(a) for a in e.arguments if np.ndim(a) == 2), 1)
    if e.rule == "weight_gradient":
        batch = len(e.arguments[0])
    factors = {
        "the sign": (-1,), "it is zero": (0,), "a factor 2 too large": (2,), "a factor 1/2 too small": (0.5,),
        "multiplied by the number of examples": (batch,), "a mean over the examples, not a sum": (1 / batch,),
        "the mask's scale applied twice": SCALES, "the mask's scale is missing": [1 / s for s in SCALES],
    }  # fmt: skip
    if found := re.fullmatch(r"a constant factor (\S+)", note):
        yield float(found[1]) * right
    yield from (c * right for c in factors.get(note, ()))


def _terms(note: str, e: Evidence) -> Iterator:
    """Of the lines of the R-operator."""
    if found := re.fullmatch(r"the term (.*) (is missing|has the wrong sign|stands twice)", note):
        times = {"is missing": 1, "has the wrong sign": 2, "stands twice": -1}[found[2]]
        terms = _terms_of(e)
        if found[1] in terms:
            yield e.right - times * terms[found[1]]


def _terms_of(e: Evidence) -> dict[str, Any]:
    args = e.arguments
    match e.rule:
        case "psi":
            a_in, da_in, W, V, c = args
            return {"a V^T": a_in @ V.T, "c": c} | ({} if da_in is None else {"R{a} W^T": da_in @ W.T})
        case "normalise":
            norm, along, psi, _ = args
            x_hat, _ = standardise(norm, psi)
            given = {"R{gamma} x_hat": along.gamma * x_hat, "R{beta}": along.beta}
            return {**given, "gamma R{x_hat}": e.right - sum(given.values())}
        case "output_delta":
            loss, activation, z, a, y, dz, da = args
            by_loss = activation.pullback(loss.hessian(a, y, da), z, a)
            return {"R{g} sigma'": by_loss, "g sigma'' R{z}": e.right - by_loss}
        case "hidden_delta":
            g, dg, activation, z, a, dz = args
            by_g = activation.pullback(dg, z, a)
            return {"R{g} sigma'": by_g, "g sigma'' R{z}": e.right - by_g}
        case "weight_gradient":
            delta, d_delta, a_in, da_in, mask = args
            first = masked(d_delta.T @ a_in, mask)
            return {"R{delta}^T a": first, "delta^T R{a}": e.right - first}
        case "input_gradient":
            delta, d_delta, W, V, mask = args
            return {"R{delta} W": masked(d_delta @ W, mask), "delta V": masked(delta @ V, mask)}
    return {}


def _specific(note: str, e: Evidence) -> Iterator:
    n, plain = len(e.arguments), {"output_delta": 5, "hidden_delta": 4, "input_gradient": 3, "weight_gradient": 3,
                                  "bias_gradient": 1, "norm_pullback": 3}  # fmt: skip
    if plain.get(e.rule) == n:
        yield from {"output_delta": _of_delta, "hidden_delta": _of_delta, "input_gradient": _of_input,
                    "weight_gradient": _of_weight, "bias_gradient": _of_bias, "norm_pullback": _of_norm}[e.rule](
            note, e)  # fmt: skip


def _of_delta(note: str, e: Evidence) -> Iterator:
    *given, s, z, a = e.arguments if e.rule == "hidden_delta" else e.arguments[:-1]
    g = given[0]
    if isinstance(g, Loss):
        g = g.gradient(a, e.arguments[-1])
    other = re.search(r"layer (\d+)", note)
    if note.startswith("the loss takes z"):
        loss, *_, y = e.arguments
        yield s.pullback(loss.gradient(z, y), z, a)
    elif "of layer" in note and "in place of" in note and other:
        calls = [c for c in e.others if c.rule in ("hidden_delta", "output_delta") and c.layer == int(other[1])]
        *_, there, z_there, a_there = calls[0].arguments if calls[0].rule == "hidden_delta" else calls[0].arguments[:-1]
        if np.shape(z_there) == np.shape(z):
            yield s.pullback(g, z_there, a_there)
    elif "'s activation" in note and other:
        calls = [c for c in e.others if c.rule in ("hidden_delta", "output_delta") and c.layer == int(other[1])]
        activation = next(v for v in calls[0].arguments if isinstance(v, Activation))
        yield activation.pullback(g, z, activation.value(z))
    elif re.match(r"sigma'\(z\[\d+\]\) is missing", note):
        yield g
    elif re.match(r"a\[\d+\] in place of sigma'", note):
        yield g * a
    elif note.startswith("only the diagonal of the Jacobian"):
        yield g * a * (1 - a)
    elif type(s).derivative is not Activation.derivative:
        slope = s.derivative(z, a)
        if note.startswith("sigma'(a["):
            yield g * s.derivative(a, s.value(a))
        elif "applied twice" in note:
            yield g * slope * slope
        elif note.startswith("divided by sigma'"):
            yield g / jnp.where(slope == 0, 1, slope)
        elif "alone: its factor is missing" in note:
            yield slope


def _of_input(note: str, e: Evidence) -> Iterator:
    delta, W, mask = e.arguments
    if note == "the mask of the units is missing":
        yield delta @ W
    elif "is transposed" in note and W.shape[0] == W.shape[1]:
        yield masked(delta @ W.T, mask)
    elif (other := re.match(r"W\[(\d+)\] in place of", note)) is not None:
        there = e.of_layer("input_gradient", int(other[1]))[1]
        if there.shape == W.shape:
            yield masked(delta @ there, mask)


def _of_weight(note: str, e: Evidence) -> Iterator:
    delta, a_in, mask = e.arguments
    if note == "the mask of the arrows is missing":
        yield delta.T @ a_in
    elif note == "only the first example is used":
        yield masked(delta[:1].T @ a_in[:1], mask)
    elif note == "only the last example is used":
        yield masked(delta[-1:].T @ a_in[-1:], mask)
    elif (other := re.match(r"(a|z|delta)\[(\d+)\] in place of", note)) is not None:
        what, m = other[1], int(other[2])
        if what == "delta":
            yield masked(e.of_layer("weight_gradient", m)[0].T @ a_in, mask)
        elif what == "a":
            yield masked(delta.T @ e.of_layer("weight_gradient", m + 1)[1], mask)


def _of_bias(note: str, e: Evidence) -> Iterator:
    (delta,) = e.arguments
    if note.startswith("summed over the wrong axis"):
        yield delta.sum(axis=1)
    elif note == "summed over both axes":
        yield from (delta.sum(), jnp.full(delta.shape[1], delta.sum()))
    elif note == "not summed over the examples":
        yield delta
    elif note == "only the first example is used":
        yield delta[0]
    elif note == "only the last example is used":
        yield delta[-1]


def _of_norm(note: str, e: Evidence) -> Iterator:
    norm, psi, delta_z = e.arguments
    x_hat, s = standardise(norm, psi)
    h, centred = norm.gamma * delta_z, psi - psi.mean(axis=0)
    rest = (jnp.sum(delta_z * x_hat, axis=0), jnp.sum(delta_z, axis=0))
    through_nu = x_hat * (h * x_hat).mean(axis=0)

    def full(h):
        return h - h.mean(axis=0) - x_hat * (h * x_hat).mean(axis=0)

    by_gradient = {"full": full(h) / s, "fixed": h / s}
    bare = jnp.sqrt(centred.var(axis=0))
    unbiased = s * np.sqrt(len(psi) / max(len(psi) - 1, 1))
    first = {
        "the statistics are taken as fixed": by_gradient["fixed"],
        "the statistics are not taken as fixed": by_gradient["full"],
        "gamma is missing": (full(delta_z) if norm.gradient == "full" else delta_z) / s,
        "the division by the deviation is missing": by_gradient[norm.gradient] * s,
        "divided by the variance, not the deviation": by_gradient[norm.gradient] / s,
        "the variance is the unbiased one": by_gradient[norm.gradient] * s / unbiased,
        "the term through the mean is missing": (h - through_nu) / s,
        "the term through the variance is missing": (h - h.mean(axis=0)) / s,
    }
    second = {
        "psi - mu in place of x_hat": (delta_z * centred).sum(axis=0),
        "psi in place of x_hat": (delta_z * psi).sum(axis=0),
        "psi_hat in place of x_hat": (delta_z * (norm.gamma * x_hat + norm.beta)).sum(axis=0),
        "epsilon is forgotten": (delta_z * centred / bare).sum(axis=0),
        "the variance is the unbiased one": (delta_z * centred / unbiased).sum(axis=0),
        "only the first example is used": (delta_z * x_hat)[0],
    }
    if note == "epsilon is forgotten" and e.part == 0:
        plain = standardise(replace(norm, eps=0.0), psi)[0]
        yield ((h - h.mean(axis=0) - plain * (h * plain).mean(axis=0)) if norm.gradient == "full" else h) / bare
    found = (first, second, {"only the first example is used": delta_z[0]})[e.part]
    if note in found:
        yield found[note]
    elif note in first or note in second:
        yield (by_gradient[norm.gradient], *rest)[e.part]  # a claim about another of the three results
