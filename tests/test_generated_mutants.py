"""The checker on every first-order change of the source of every hand-written rule: mistakes that nobody chose."""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import fnn
from fnn import activations, losses, verify
from fnn.backward import backward_pass
from fnn.curvature import TANGENTS
from fnn.equations import change_lines, lines
from fnn.network import forward_pass
from generated_mutants import Change, changes, variant
from generated_notes import Evidence, holds

RULES = fnn.RULES
DELTAS = frozenset({"hidden_delta", "output_delta"})


class Problem(NamedTuple):
    """What is verified: to second order if ``tangents`` is given; without data on the probes."""

    params: Any
    loss: Any = fnn.SquaredError(0.7)
    rules: Any = RULES
    tangents: Any = None
    data: tuple = ()


class Mutant(NamedTuple):
    """A change, where it must be named, and the problems that contain it."""

    group: str
    change: Change
    kinds: frozenset
    problems: tuple[Problem, ...]
    right: tuple[Problem, ...]


def dense(*functions, norms=(), sizes=(4, 5, 6, 3)):
    """A small network with these activations, and these batch norms in its first layers."""
    random = np.random.default_rng(7)
    layers = []
    for i, activation in enumerate(functions):
        n_in, n_out = sizes[i : i + 2]
        W, b = random.normal(size=(n_out, n_in)), random.normal(size=n_out) * 0.5
        gamma, beta = random.uniform(0.5, 1.5, (2, n_out))
        normed = None
        if i < len(norms):
            normed = fnn.BatchNorm(jnp.asarray(gamma, "float32"), jnp.asarray(beta, "float32"), gradient=norms[i])
        layers.append(fnn.Dense(jnp.asarray(W, "float32"), jnp.asarray(b, "float32"), activation, normed))
    return tuple(layers)


VARIED = fnn.Gaussian(0.3, 0.8), fnn.GELU(), fnn.Gaussian(0.3, 0.8)  # derivatives that read z and a, and z alone
PLAIN = dense(*VARIED)
NORMED = dense(*VARIED, norms=("full", "fixed"))
GRAPH = fnn.graph.Graph(  # one of its outputs has outgoing arrows
    [(0, 2), (1, 2), (0, 3), (1, 3), (2, 4), (3, 4), (2, 5), (3, 5)],
    [None, None, fnn.GELU(), *[fnn.Gaussian(0.3, 0.8)] * 3],
    inputs=[0, 1],
    outputs=[4, 5, 3],
)
GRAPH_PORTS = len(GRAPH.inputs), len(GRAPH.outputs)


# -- what is changed, and the problems that judge it -----------------------------------------------------------


def of_rules(group: str, name: str, problems: Callable, kinds=None, **how) -> Iterator[Mutant]:
    """The changes of a rule; problems(rules)."""
    right = tuple(problems(RULES))
    for change in changes(getattr(RULES, name), **how):
        rules = RULES._replace(**{name: change.function})
        yield Mutant(group, change, frozenset(kinds or {name}), tuple(problems(rules)), right)


def in_graphs() -> Iterator[Mutant]:
    def problems(rules):
        yield Problem(GRAPH.init(jax.random.key(1)), rules=rules)

    for name in ("output_delta", "input_gradient", "hidden_delta"):
        yield from of_rules("graphs", name, problems, {"lambda", name})  # a rule that raises is named itself
    for name in ("weight_gradient", "bias_gradient"):
        yield from of_rules("graphs", name, problems)


HELPERS = ("standardise", "_projected", "_means")


def equations() -> Iterator[Mutant]:
    def plain(rules):
        yield Problem(PLAIN, rules=rules)

    def normed(rules):
        yield Problem(NORMED, rules=rules)

    for name in ("output_delta", "input_gradient", "hidden_delta", "weight_gradient", "bias_gradient", "affine"):
        yield from of_rules("equations", name, plain)
    for name in ("input_gradient", "weight_gradient"):
        yield from of_rules("equations", name, plain, helpers=("masked",), of="masked")
    for name in ("normalise", "norm_pullback"):
        yield from of_rules("batch norm", name, normed)
    for of in HELPERS:
        yield from of_rules("batch norm", "norm_pullback", normed, helpers=HELPERS, of=of)
    yield from of_rules("batch norm", "normalise", normed, helpers=("standardise", "_means"), of="standardise")


INSTANCES = (
    fnn.Identity(), fnn.Sigmoid(2.5), fnn.Tanh(), fnn.ScaledTanh(), fnn.Softsign(), fnn.ReLU(), fnn.LeakyReLU(0.2),
    fnn.ELU(), fnn.Softplus(), fnn.SiLU(), fnn.GELU(), fnn.Gaussian(0.3, 0.8),
    fnn.PiecewiseLinear(0.4, 0.1, -1, 1.5), fnn.Threshold(), fnn.Sign(), fnn.Softmax(),
)  # fmt: skip
MORE = {fnn.GELU: (fnn.GELU(True),)}  # the other branch
PER_NEURON_ONLY = {
    (fnn.Identity, "derivative"),
    (fnn.Identity, "second_derivative"),
    (fnn.ReLU, "derivative"),
}  # where the pull-back reads no derivative


def defining(cls, method: str) -> type:
    return next(base for base in cls.__mro__ if method in vars(base))


def layered(activation) -> tuple:
    """The activation in a hidden place and at the output."""
    return dense(activation, fnn.Tanh(), activation, sizes=(4, 5, 3, 3))


def by_neuron(activation) -> tuple:
    """The activation as one of a ``PerNeuron``'s."""
    hidden, output = ((fnn.Tanh(), activation, fnn.Gaussian(0.3, 0.8), activation, fnn.GELU())[:n] for n in (5, 3))
    return dense(*(activations.PerNeuron(some) for some in (hidden, output)), sizes=(4, 5, 3))


def some_data(batch=6, n_in=4, n_out=3, seed=3):
    random = np.random.default_rng(seed)
    return random.normal(size=(batch, n_in)).astype("float32"), random.uniform(0.05, 0.95, (batch, n_out)).astype(
        "float32"
    )


DATA = some_data()


def of_activation(activation, method: str, function: Callable, second: bool, **how) -> Iterator[Mutant]:
    group = "second derivatives of activations" if second else "derivatives of activations"
    tangents = TANGENTS if second else None

    def problems(changed: dict):
        for instance in (activation, *MORE.get(type(activation), ())):
            made = variant(instance, **changed) if changed else instance
            if (type(activation), method) in PER_NEURON_ONLY or method == "second_derivative" and not activation.smooth:
                yield Problem(by_neuron(made), tangents=tangents, data=DATA)
            elif isinstance(activation, activations.PerNeuron):
                yield Problem(dense(made, fnn.Tanh(), sizes=(4, 5, 3)), tangents=tangents, data=DATA)
            else:
                yield Problem(layered(made), tangents=tangents)

    kinds = frozenset({"activation"}) if method == "pushforward" else DELTAS
    right = tuple(problems({}))
    for change in changes(function, owner=type(activation), **how):
        yield Mutant(group, change, kinds, tuple(problems({method: change.function})), right)


def functions_of_activations(second: bool) -> Iterator[Mutant]:
    methods = ("second_derivative", "pullback_tangent", "pushforward") if second else ("derivative", "pullback")
    base, mixed = (
        activations.Activation,
        activations.PerNeuron((fnn.Tanh(), fnn.GELU(), fnn.Tanh(), fnn.Gaussian(0.3, 0.8), fnn.ELU())),
    )
    seen = {(base, method) for method in methods}
    for activation in (*INSTANCES, mixed):
        for method in methods:
            owner = defining(type(activation), method)
            if (owner, method) not in seen:
                seen.add((owner, method))
                yield from of_activation(activation, method, getattr(owner, method), second)
    for method in methods:
        if method not in ("derivative", "second_derivative"):
            yield from of_activation(fnn.Gaussian(0.3, 0.8), method, getattr(base, method), second)


LOSSES = (  # the losses of a class, with outputs for each
    {fnn.SquaredError(0.7): (fnn.Gaussian(0.3, 0.8),)},
    {fnn.Huber(0.3): (fnn.Gaussian(0.3, 0.8),)},
    {fnn.SoftmaxCrossEntropy(): (fnn.Identity(), fnn.Tanh(), fnn.Gaussian(0.3, 0.8))},
    {fnn.SigmoidCrossEntropy(): (fnn.Identity(), fnn.Tanh())},
    {fnn.Poisson(): (fnn.Identity(), fnn.Tanh())},
    {fnn.CrossEntropy(): (fnn.Sigmoid(1.5), fnn.Gaussian(0.3, 0.8)),
     fnn.CrossEntropy(True): (fnn.Softmax(), fnn.Gaussian(0.3, 0.8))},
)  # fmt: skip
LOSS_HELPERS = {
    (losses.SoftmaxCrossEntropy, "gradient"): "_log_softmax",
    (losses.CrossEntropy, "gradient"): "_reciprocal",
    (losses.CrossEntropy, "hessian"): "_reciprocal",
}


def functions_of_losses(second: bool) -> Iterator[Mutant]:
    methods = ("hessian", "delta_tangent", "gauss_newton") if second else ("gradient", "delta")
    for instances in LOSSES:
        cls = type(next(iter(instances)))
        for method in methods:
            owner = defining(cls, method)
            bearer = losses.SoftmaxCrossEntropy if second else losses.SquaredError
            if owner is losses.Loss and cls is not bearer:
                continue
            helper = LOSS_HELPERS.get((cls, method))
            yield from of_losses(instances, method, getattr(cls, method), second, owner=owner)
            if helper is not None:
                yield from of_losses(instances, method, getattr(cls, method), second, helpers=(helper,), of=helper)


def of_losses(instances: dict, method: str, function: Callable, second: bool, **how) -> Iterator[Mutant]:
    def problems(changed: dict):
        for loss, outputs in instances.items():
            made = variant(loss, **changed) if changed else loss
            for output in outputs:
                params = dense(fnn.Tanh(), output, sizes=(4, 5, 3))
                yield Problem(params, made, tangents=TANGENTS if second else None)

    group, right = "second derivatives of losses" if second else "gradients of losses", tuple(problems({}))
    for change in changes(function, **how):
        yield Mutant(group, change, frozenset({"output_delta"}), tuple(problems({method: change.function})), right)


def tangents() -> Iterator[Mutant]:
    helpers = ("_standardise_tangent", "_projected")
    for name, function in TANGENTS._asdict().items():
        normed = name in ("normalise", "norm_pullback")
        params = NORMED if normed else PLAIN
        right = (Problem(params, tangents=TANGENTS),)
        for of in ("", *(helpers if normed else ())):
            for change in changes(function, helpers if of else (), of):
                rules = TANGENTS._replace(**{name: change.function})
                yield Mutant("tangents", change, frozenset({name}), (Problem(params, tangents=rules),), right)


@cache
def mutants(group: str) -> tuple[Mutant, ...]:
    return tuple(GROUPS[group]())


GROUPS: dict[str, Callable[[], Iterator[Mutant]]] = {
    "equations": equations,
    "graphs": in_graphs,
    "derivatives of activations": lambda: functions_of_activations(False),
    "gradients of losses": lambda: functions_of_losses(False),
    "tangents": tangents,
    "second derivatives of activations": lambda: functions_of_activations(True),
    "second derivatives of losses": lambda: functions_of_losses(True),
}


# -- what verify says ------------------------------------------------------------------------------------------


def report(p: Problem, probes=True):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if p.tangents is not None:
            return verify.curvature(p.params, *p.data, loss=p.loss, rules=p.tangents, dtype="float64")
        return verify.network(p.params, *p.data, loss=p.loss, rules=p.rules, dtype="float64", probes=probes)


# -- whether its notes are true, on other data -----------------------------------------------------------------


def fresh_cases(p: Problem) -> list:
    """(name, params, x, y, masks) in float64, unlike those that ``verify`` draws."""
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64"), p.params)
    if p.data:
        x, y = (jnp.asarray(part, "float64") for part in p.data)
        return [("the data given", params, x[:4], y[:4], (fnn.Mask(),) * len(params))]
    return [case for case in verify.probes(params, seed=1) if case.name != "at the kinks"]


def network_calls(p: Problem) -> list[tuple[Evidence, ...]]:
    """Of every case each rule's calls, with the right values."""
    found = []
    for name, params, x, y, masks in fresh_cases(p):
        walk = [line for line in lines(params, x, y, loss=p.loss, masks=masks) if line.equation.rule]
        found.append(tuple(evidence_of(line, name) for line in walk))
    return found


def evidence_of(line, name: str) -> Evidence:
    rule, part = line.equation.rule, line.equation.part
    return Evidence(rule, part, line.layer, line.arguments, None, line.value, case=name)


def tangent_calls(p: Problem) -> list[tuple[Evidence, ...]]:
    found = []
    for name, params, x, y, masks in fresh_cases(p):
        v = jax.tree.map(lambda leaf: jnp.asarray(np.random.default_rng(3).normal(size=leaf.shape)), params)
        passed = tuple(lines(params, x, y, loss=p.loss, masks=masks))
        walk = change_lines(passed, params, v, masks, rules=TANGENTS)
        found.append(tuple(evidence_of(line, name) for line in walk))
    return found


CALLS: dict[int, tuple] = {}  # by the identity of the right problem, which is kept


def evidence(p: Problem, right: Problem, finding) -> Iterator[Evidence]:
    """What the changed rule makes of fresh data where the finding is."""
    if id(right) not in CALLS:
        CALLS[id(right)] = right, (network_calls if right.tangents is None else tangent_calls)(right)
    part = (
        0 if finding.kind != "norm_pullback" else 1 if "gamma" in finding.name else 2 if "beta" in finding.name else 0
    )
    made = [p.loss, *(layer.activation for layer in p.params)]
    for case in CALLS[id(right)][1]:
        for call in case:
            if (call.rule, call.part, call.layer) != (finding.kind, part, finding.layer):
                continue
            args = [
                next((m for m in made if m == arg), arg) if isinstance(arg, KINDS) else arg for arg in call.arguments
            ]
            rule = getattr(p.rules if p.tangents is None else p.tangents, call.rule)
            try:
                hand = rule(*args)
                hand = hand[part] if call.rule == "norm_pullback" else hand
                np.asarray(hand)
            except Exception as error:
                hand = error
            yield call._replace(hand=hand, others=case, call=rule, used=tuple(args))


KINDS = (fnn.activations.Activation, fnn.losses.Loss)


# -- what check_grads says -------------------------------------------------------------------------------------


@partial(jax.jit, static_argnames="loss")
def cost_of(params, x, y, *, loss):
    return loss.value(fnn.forward(params, x), y).mean()


def noticed_by_check_grads(p: Problem) -> bool:
    """Whether it fails on random data, in float64, without masks.

    Every batch norm is a full one: differences see the derivative through the statistics, which "fixed" leaves out.
    """
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64"), p.params)
        if isinstance(params, tuple):
            params = tuple(
                layer if layer.norm is None else replace(layer, norm=replace(layer.norm, gradient="full"))
                for layer in params
            )
        n_in, n_out = GRAPH_PORTS if not isinstance(params, tuple) else (params[0].W.shape[1], len(params[-1].b))
        x, y = (jnp.asarray(part, "float64") for part in p.data or some_data(6, n_in, n_out, seed=5))
        leaves, structure = jax.tree.flatten(params)
        try:
            if p.tangents is None:
                check_grads(_by_gradient(p, x, y, structure), leaves, order=1, modes=["rev"])
            else:
                check_grads(_by_product(p, x, y, structure), leaves, order=1, modes=["fwd"])
        except Exception:
            return True
    return False


def _by_gradient(p: Problem, x, y, structure):
    """The cost, with the gradient as the changed rules have it."""
    forward_changed = p.rules.affine is not RULES.affine or p.rules.normalise is not RULES.normalise

    def cost(*leaves):
        params = jax.tree.unflatten(structure, leaves)
        if forward_changed:
            return p.loss.value(fnn.network.forward_pass(p.rules, params, x, masks)[0], y).mean()
        return cost_of(params, x, y, loss=p.loss)

    masks = (fnn.Mask(),) * 3

    def gradient(leaves, bar):
        params = jax.tree.unflatten(structure, leaves)
        if not isinstance(params, tuple):
            with jax.disable_jit():
                found = fnn.backprop(params, x, y, loss=p.loss, rules=p.rules)
            return tuple(bar * leaf for leaf in jax.tree.leaves(found))
        a, passed = forward_pass(p.rules, params, x, masks)
        delta = p.rules.output_delta(p.loss, params[-1].activation, passed[-1][1].z, a, y)
        _, pulled = backward_pass(p.rules, params, masks, passed, delta)
        return tuple(bar * leaf / len(x) for leaf in jax.tree.leaves(tuple(at.gradient for at in pulled)))

    checked = jax.custom_vjp(cost)
    checked.defvjp(lambda *leaves: (cost(*leaves), leaves), gradient)
    return checked


def _by_product(p: Problem, x, y, structure):
    """The gradient, with its change as the changed lines of the R-operator have it."""

    def gradient(*leaves):
        return tuple(jax.tree.leaves(fnn.backprop(jax.tree.unflatten(structure, leaves), x, y, loss=p.loss)))

    def change(leaves, along):
        with jax.disable_jit():
            params, v = (jax.tree.unflatten(structure, of) for of in (leaves, along))
            product = fnn.curvature.hvp(params, x, y, v, loss=p.loss, rules=p.tangents)
        return gradient(*leaves), tuple(jax.tree.leaves(product))

    checked = jax.custom_jvp(gradient)
    checked.defjvp(change)
    return checked


# -- all of it -------------------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """Of ``verify`` on a mutant: where it finds fault, and its notes with whether they are true, None if not judged."""

    kinds: frozenset
    notes: tuple[tuple[str, bool | None], ...]
    raised: str = ""


def verdict(m: Mutant) -> Verdict:
    """On the first of its problems where something is found."""
    for p, right in zip(m.problems, m.right):
        try:
            wrong = report(p).wrong
        except Exception as error:
            return Verdict(frozenset(), (), f"{type(error).__name__}: {error}".splitlines()[0])
        if wrong:
            return Verdict(frozenset(f.kind for f in wrong), tuple(_notes(p, right, wrong)))
    return Verdict(frozenset(), ())


def _notes(p: Problem, right: Problem, wrong) -> Iterator[tuple[str, bool | None]]:
    for finding in wrong:
        if finding.note:
            judge = isinstance(p.params, tuple)
            with jax.enable_x64(True):
                yield (
                    f"{finding.name}: {finding.note}",
                    holds(finding.note, evidence(p, right, finding)) if judge else None,
                )


LABELS = "y is not integer labels"
EVEN = "an even function: a square, an absolute value, or x_hat twice"
STATIC = "`along` has the same eps, gradient and axis"
ROWS = "the arrays are (B, n)"
TINY = "at a probability of exactly 0, which the clamp of the logarithm makes a kink; or the same numbers"
LIKE = "only its shape and dtype are read"
UNREAD = "this result, or this argument, is not read there"
SIGN = "a has the sign of z, and at a kink both sides pass; or only a shape and dtype are read"
NO_AUTODIFF = "no derivative is taken of it"
EQUIVALENT = (  # function, pattern of "before -> after", why the numbers are the same or may differ
    ("batchnorm.norm_pullback", r"-> h = _projected\(norm, h, -x_hat\)", EVEN),
    ("batchnorm.norm_pullback < standardise", r"\(mu - psi\) \*\* 2", EVEN),
    ("batchnorm.norm_pullback < standardise", r"^if norm|-> mu, nu = \(mu, nu\)$", NO_AUTODIFF),
    ("batchnorm.norm_pullback < _means", r"-> return here( if norm\.axis is None else .*)?$", "there is no mesh"),
    ("batchnorm.normalise < standardise", r"\(mu - psi\) \*\* 2", EVEN),
    ("batchnorm.normalise < standardise", r"^if norm|-> mu, nu = \(mu, nu\)$", NO_AUTODIFF),
    ("batchnorm.normalise < standardise", r"-> return \(\(psi - mu\) / s, (psi|mu|nu|-s)\)$", UNREAD),
    ("batchnorm.normalise_tangent", r"-> .*standardise(_tangent)?\(along, psi", STATIC),
    ("batchnorm.normalise_tangent", r"_standardise_tangent\(norm, -psi, dpsi\)", EVEN),
    ("batchnorm.norm_pullback_tangent",
     r"-> .*(standardise|_standardise_tangent|_means|_projected)\(along, |-> if along\.gradient", STATIC),
    ("batchnorm.norm_pullback_tangent", r"_projected\(norm, d?h, -x_hat\)", EVEN),
    *((f"batchnorm.{name} < _standardise_tangent", pattern, reason)
      for name in ("normalise_tangent", "norm_pullback_tangent")
      for pattern, reason in ((r"_projected\(norm, dpsi, -x_hat\)", EVEN),
                              (r"-> return \(dpsi / s, (s|-?jnp\.(zeros|ones)_like\(-?\w+\))\)$", UNREAD))),
    ("batchnorm.normalise_tangent < _standardise_tangent", r"-> x_hat, s = standardise\(norm, -psi\)", EVEN),
    ("batchnorm.normalise_tangent < _standardise_tangent",
     r"-> return \(_projected\(norm, dpsi, x_hat\) / s, (_means\(norm, [^n]*\)|\(x_hat \* dpsi\))\[0\]\)$", UNREAD),
    ("activations.smooth.Identity.derivative", r"ones_like\((a|-z)\)", LIKE),
    ("activations.smooth.Softsign.derivative", r"abs\(-z\)", EVEN),
    ("activations.smooth.ELU.derivative", r"-> .*(a < 0|z <= 0)", SIGN),
    ("activations.smooth.GELU.derivative", r"self\._slope\(-z\)", EVEN),
    ("activations.smooth.Softmax.pullback", r"-> .*axis=1", ROWS),
    ("activations.kinked.ReLU.derivative", r"-> .*(z <= 0|a <= 0, a, 1|-jnp\.zeros|_like\((z|-a)\), 1)", SIGN),
    ("activations.kinked.ReLU.pullback", r"-> .*z <= 0, 0, g", SIGN),
    ("activations.kinked.LeakyReLU.derivative", r"-> .*(a < 0|z <= 0|<= 0, self|_like\((z|-a), )", SIGN),
    ("activations.kinked.PiecewiseLinear.derivative", r"-> .*(>=.*<|z > .*<=|where\(between, s|_like\((a|-z))", SIGN),
    ("activations.kinked.Threshold.derivative", r"-jnp|_like\((a|-z)\)", LIKE),
    ("activations.kinked.Sign.derivative", r"-jnp|_like\((a|-z)\)", LIKE),
    ("activations.per_neuron.PerNeuron.derivative", r"_each\((a|-z),", LIKE),
    ("activations.smooth.Identity.second_derivative", r"-jnp|_like\((a|-z)\)", LIKE),
    ("activations.smooth.Identity.pullback_tangent", r"-jnp|_like\((g|z|a|-dz)\)", LIKE),
    ("activations.smooth.Softsign.second_derivative", r"sign\(a\)|abs\(-z\)", SIGN),
    ("activations.smooth.ELU.second_derivative", r"-> .*(a < 0|z <= 0)", SIGN),
    ("activations.smooth.Softplus.second_derivative", r"logistic\(-z\)", EVEN),
    ("activations.smooth.GELU.second_derivative", r"self\._slope\(-z\)", EVEN),
    ("activations.smooth.Gaussian.second_derivative", r"-> u = (-|\(self\.mu - z)", EVEN),
    ("activations.smooth.Softmax.pullback_tangent", r"pullback\(dz, (g|a|dz|-z), a\)", UNREAD),
    ("activations.smooth.Softmax.pullback_tangent", r"-> .*axis=1", ROWS),
    ("activations.kinked.Straight.second_derivative", r"-jnp|_like\((a|-z)\)", LIKE),
    ("activations.kinked.Straight.pullback_tangent", r"-jnp|_like\((g|z|a|-dz)\)", LIKE),
    ("activations.per_neuron.PerNeuron.second_derivative", r"_each\((a|-z),", LIKE),
    ("activations.base.Activation.pullback", r"self\.derivative\(z, a\)", "the barrier is for the compiler"),
    ("losses.regression.Huber.gradient",
     r"-> return jnp\.clip\(-self\.threshold, a - y, self\.threshold\)", "the same numbers"),
    ("losses.entropies.SoftmaxCrossEntropy.gradient", r"as_targets\(y, -a\)", LIKE),
    ("losses.entropies.SoftmaxCrossEntropy.gradient", r"-> .*axis=1", ROWS),
    ("losses.entropies.SoftmaxCrossEntropy.gradient < _log_softmax", r"-> .*axis=1", ROWS),
    ("losses.entropies.SoftmaxCrossEntropy.gradient < _log_softmax", r"-> shifted = a - jnp\.max", NO_AUTODIFF),
    ("losses.entropies.SigmoidCrossEntropy.gradient", r"as_targets\(y, -a\)", LIKE),
    ("losses.entropies.CrossEntropy.gradient", r"as_targets\(y, -a\)", LIKE),
    ("losses.entropies.CrossEntropy.gradient < _reciprocal", r"p >= float|-> .*> jnp\.finfo|-> .*1 / p, 0\)", TINY),
    ("losses.entropies.CrossEntropy.delta", r"as_targets\(y, (-a|z)\)", LIKE),
    ("losses.entropies.CrossEntropy.delta", r"-> if True:",
     "equal but where a rounds to 0 or 1, where autodiff is not exact"),
    ("losses.entropies.CrossEntropy.delta", r"-> .*axis=1", ROWS),
    ("losses.regression.Huber.hessian",
     r"abs\(a - y\) < self|abs\(y - a\)|abs\(-\(a - y\)\)", "the same but at a kink"),
    ("losses.entropies.SoftmaxCrossEntropy.hessian", r"as_targets\(y, (-a|da|p)\)", LIKE),
    ("losses.entropies.SoftmaxCrossEntropy.hessian", r"-> .*axis=1", ROWS),
    ("losses.entropies.CrossEntropy.hessian", r"as_targets\(y, (-a|da)\)", LIKE),
    ("losses.entropies.CrossEntropy.hessian < _reciprocal", r"p >= float|-> .*> jnp\.finfo|-> .*1 / p, 0\)", TINY),
    ("losses.entropies.CrossEntropy.hessian < _reciprocal", r"-> return -|, -\(1 /", "it is squared"),
    ("losses.entropies.CrossEntropy.delta_tangent",
     r"-> return self\.gauss_newton\(activation, (?!z, a, y, da)\S+ \S+ y, da\)", UNREAD),
    ("losses.entropies.CrossEntropy.gauss_newton", r"as_targets\(y, (-a|da|z)\)", LIKE),
    ("losses.entropies.CrossEntropy.gauss_newton", r"-> .*axis=1", ROWS),
)  # fmt: skip
IN_GRAPHS = (
    ("backward.input_gradient", r"-> return delta @ W$", "a graph's masks are not the rules'"),
    ("backward.weight_gradient", r"-> return delta\.T @ a_in$", "a graph's masks are not the rules'"),
)
MISSED_TODAY = (  # function, pattern, what verify does not try
    ("activations.smooth.Softsign.second_derivative", r"-> return -2 / jnp\.sign\(z\)", "z is 0"),
    *((f"losses.entropies.{loss}.{method}",
       r"as_targets\(y, \w+\) -> (pass|y = y)|as_targets\(y, y\)|-> .*(- y$|sum\(y, )", LABELS)
      for loss in ("SoftmaxCrossEntropy", "SigmoidCrossEntropy", "CrossEntropy")
      for method in ("gradient", "delta", "hessian", "gauss_newton")),
    *((f"losses.entropies.CrossEntropy.{method} < _reciprocal",
       r"-> return (1 / |.*_at_least_tiny\(p\), |.*float\(-)", TINY)
      for method in ("gradient", "hessian")),
)  # fmt: skip


class Row(NamedTuple):
    """A mutant with all that is said of it."""

    mutant: Mutant
    verdict: Verdict
    noticed: bool  # by check_grads


def row(m: Mutant) -> Row:
    return Row(m, verdict(m), any(noticed_by_check_grads(p) for p in m.problems))


def why_equivalent(m: Mutant) -> str | None:
    """The reason why the change is no mistake, where there is one."""
    listed = EQUIVALENT if m.group != "graphs" else (*EQUIVALENT, *IN_GRAPHS)
    for where, pattern, reason in listed:
        if m.change.where == where and re.search(pattern, f"{m.change.before} -> {m.change.after}"):
            return reason
    return None


def known_miss(m: Mutant) -> bool:
    return any(m.change.where == where and re.search(pattern, m.change.name) for where, pattern, _ in MISSED_TODAY)


FIGURES = ("changes", "no mistake", "found", "named", "with a note", "a note is false", "not judged", "check_grads")


def figures(rows: list[Row]) -> tuple[int, ...]:
    wrong = [r for r in rows if why_equivalent(r.mutant) is None]
    found = [r for r in wrong if r.verdict.kinds]
    said = [[true for _, true in r.verdict.notes] for r in found if r.verdict.notes]
    return (
        len(rows),
        len(rows) - len(wrong),
        len(found),
        sum(r.verdict.kinds <= r.mutant.kinds for r in found),
        len(said),
        sum(False in answers for answers in said),
        sum(None in answers and False not in answers for answers in said),
        sum(r.noticed for r in wrong),
    )


def table(groups: dict[str, list[Row]]) -> str:
    lines = [f"{'':34}" + "".join(f"{name:>17}" for name in FIGURES)]
    for name, rows in groups.items():
        lines.append(f"{name:34}" + "".join(f"{number:17}" for number in figures(rows)))
    return "\n".join(lines)


def sample() -> list[Mutant]:
    """Of each rule, of an activation and of a loss, the first change of an operator or else of a sign."""
    chosen: dict[str, Mutant] = {}
    every = (*mutants("equations"), *mutants("tangents"), *mutants("gradients of losses")[:20])
    for wanted in ("operator", "sign"):
        for m in every:
            if m.change.kind == wanted and "<" not in m.change.where and why_equivalent(m) is None:
                chosen.setdefault(m.change.where, m)
    return list(chosen.values())


def test_a_changed_operator_in_any_rule_is_found_and_named():
    """On data given, which are one case and few programs."""
    for m in sample():
        (p,) = m.problems
        kinds = {f.kind for f in report(p._replace(data=DATA), probes=False).wrong}
        assert kinds, m.change.name
        assert kinds <= m.kinds, m.change.name


def assert_found_and_named(group: str, chosen: tuple[Mutant, ...], capsys) -> None:
    rows = [row(m) for m in chosen]
    with capsys.disabled():
        print("\n" + table({group: rows}))
    passed = {r.mutant.change.name for r in rows if not r.verdict.kinds and not r.verdict.raised}
    unknown = [r.mutant for r in rows if r.mutant.change.name in passed and why_equivalent(r.mutant) is None]
    assert [m.change.name for m in unknown if not known_miss(m)] == []
    assert [m.change.name for m in chosen if why_equivalent(m) and m.change.name not in passed] == []
    for r in rows:
        assert r.verdict.kinds <= r.mutant.kinds or known_miss(r.mutant), (r.mutant.change.name, r.verdict.kinds)
    assert not [r.mutant.change.name for r in rows if r.verdict.raised]


SLICES = 60


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_some_changes_of_the_source_are_found_and_named(group, capsys):
    assert_found_and_named(group, mutants(group)[::SLICES], capsys)


@pytest.mark.exhaustive
@pytest.mark.parametrize("group", GROUPS)
def test_every_change_of_the_source_is_found_and_named(group, capsys):
    """All of them; run with -n 0 to see the figures."""
    assert_found_and_named(group, mutants(group), capsys)
