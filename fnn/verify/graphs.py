"""The λ of every neuron of a graph, and the gradients of its arrows and neurons, against autodiff."""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.activations import PerNeuron
from fnn.backward import RULES, Rules
from fnn.batchnorm import BatchNorm, standardise
from fnn.checks import network as checks
from fnn.checks.arrays import unmasked
from fnn.data import for_network
from fnn.equations.graphs import ARROW_GRADIENT, GRAPH_NORM, LAMBDA, NEURON_GRADIENT, Equation, lambda_of
from fnn.graph import given as graph_given
from fnn.graph.graph import Graph, GraphParams
from fnn.graph.passes import leaves, states_and_outputs, with_mask
from fnn.graph.plan import plan
from fnn.graph.recursion import Leaves, States, backward_pass, by_neurons, by_rows, lambdas_of_inputs, weight_gradients
from fnn.layers import Dense
from fnn.losses import as_targets
from fnn.masks import Mask, masked
from fnn.verify.devices import as_called
from fnn.verify.neighbours import OF_ZERO, ULPS, Sides, accept, persists
from fnn.verify.oracle import (
    AUTODIFF,
    NORM_TOLERANCE,
    TOLERANCE,
    exactly,
    in_dtype,
    loss_gradient,
    slope,
    to_numpy,
)
from fnn.verify.patterns import same, statements
from fnn.verify.probes import kinks
from fnn.verify.report import Compared, Finding, Report, at_kinks, compare, left_out, norm, worst

BATCH, SEED = 7, 0
MOST_NEURONS = 64  # that a report lists one by one; beyond, it lists generations


class Values(NamedTuple):
    """What is compared: ∂/∂ψ (N, B), the sum's gradients by weights (M,) and biases (N,), and by γ, β (N,) if any."""

    lam: Any
    weights: Any
    biases: Any
    gamma: Any = None
    beta: Any = None


def data_or_random(params, x, y, loss, masks, probes: bool = True) -> list[tuple]:
    """(name, params, x, y, mask) each."""
    graph_given.require(params)
    found = []
    if x is not None:
        graph_given.check(*graph_given.given(params, x, masks, RULES))
        mask = Mask() if masks is None else masks
        unmasked("y", y)
        x, y = (np.atleast_2d(x), np.asarray(y)[None]) if x.ndim == 1 else (x, y)
        data = for_network((np.asarray(x), np.asarray(y)), graph_given.ports(params), loss, "x, y")
        found = [("the data given", params, data.x, data.y, mask)]
    return [*found, *_random(params)] if probes else found


def _random(params: GraphParams) -> list[tuple]:
    random, graph = np.random.default_rng(SEED), params.graph
    x = random.normal(size=(BATCH, len(graph.inputs)))
    y = random.uniform(0.05, 0.95, (BATCH, len(graph.outputs)))
    y = y / y.sum(axis=1, keepdims=True)
    drawn = _scaled(jax.tree.map(lambda leaf: random.normal(size=leaf.shape) + 0.3, params))
    units: Any = 2.0 * (random.random((BATCH, len(graph))) < 0.8)
    arrows: Any = 4.0 * (random.random(len(graph.arrows)) < 0.8)
    none: Any = np.ones_like(units), np.ones_like(arrows)  # one program serves all cases
    return [
        ("the network itself", params, x, y, Mask(*none)),
        ("random parameters", drawn, x, y, Mask(*none)),
        ("masks", drawn, x, y, Mask(units, arrows)),
        *(
            (f"at the kinks, {half} half", at, x, y, Mask(*none))
            for half, at in zip(("one", "the other"), _at_kinks(drawn))
        ),
    ]


def _at_kinks(drawn: GraphParams) -> Iterator[GraphParams]:
    """The parameters with every second computed neuron's z exactly where its activation may have a kink."""
    graph = drawn.graph
    computed = np.flatnonzero(graph.generation > 0)
    for i in range(2):
        chosen, biases, weights = computed[i::2], np.array(drawn.biases), np.array(drawn.weights)
        for place, k in enumerate(chosen):
            points = kinks(graph.activations[k])
            biases[k] = points[place % min(2, len(points))]
        weights[np.isin(graph.arrows[:, 1], chosen)] = 0
        norm = drawn.norm
        if norm is not None:
            gamma, beta = np.array(norm.gamma), np.array(norm.beta)
            gamma[chosen], beta[chosen] = 0, biases[chosen]
            norm = replace(norm, gamma=jnp.asarray(gamma), beta=jnp.asarray(beta))
        yield replace(drawn, weights=jnp.asarray(weights), biases=jnp.asarray(biases), norm=norm)


def _scaled(drawn: GraphParams) -> GraphParams:
    """Weights that leave ψ of order one, whatever the number of arrows into a neuron."""
    into = np.bincount(drawn.graph.arrows[:, 1], minlength=len(drawn.graph))
    return replace(drawn, weights=drawn.weights / np.sqrt(into[drawn.graph.arrows[:, 1]]))


def judge(cases, loss, rules, tolerance, dtype) -> Report:
    """The report of ``verify.network`` for a graph: every neuron's λ from **autodiff's** λ's of its receivers."""
    with exactly(dtype):
        tolerance = tolerance or (TOLERANCE if cases[0][1].norm is None else NORM_TOLERANCE)[dtype]
        found: dict[str, list[Compared]] = {}
        kinks = unknown = 0
        for name, *case in cases:
            data: Any = in_dtype(tuple(case), dtype)
            for compared in _compared(data, loss, rules, tolerance):
                kinks, unknown = kinks + compared.kinks, unknown + compared.unknown
                compared = compared._replace(finding=replace(compared.finding, case=name if len(cases) > 1 else ""))
                found.setdefault(compared.finding.name, []).append(compared)
    findings = tuple(map(worst, found.values()))
    notes = at_kinks(kinks) + left_out(unknown, "autodiff is not finite there")
    notes += ["cases: " + ", ".join(name for name, *_ in cases)] if len(cases) > 1 else []
    return Report(findings, dtype, tuple(notes), "equation", SEED if len(cases) > 1 else None)


def as_layers(params: GraphParams) -> tuple[Dense, ...]:
    """A layer of four neurons for each activation of the graph, the last for its outputs: for rules judged alone."""
    graph, dtype = params.graph, params.weights.dtype
    hidden = [graph.activations[k] for k in np.flatnonzero(graph.generation > 0) if k not in graph.outputs]
    output = plan(graph).layout.output
    ones: Any = np.ones(4, dtype)
    norm = params.norm and BatchNorm(ones, ones, params.norm.eps, params.norm.gradient)
    others = [k for k in np.flatnonzero(graph.generation > 0) if k in graph.outputs and k in graph.arrows[:, 0]]
    every = dict.fromkeys([*hidden, *(graph.activations[k] for k in others)])
    W: Any = np.ones((4, 4), dtype)
    n_out = len(graph.outputs)  # as many as a PerNeuron has
    last: Any = np.ones((n_out, 4), dtype)
    return *(Dense(W, ones, activation, norm) for activation in every), Dense(last, last[:, 0], output)


def line_of(params: GraphParams, layers: tuple[Dense, ...], finding: Finding) -> str:
    """The name of the line that a rule judged alone at one of these layers computes in the graph."""
    graph, layer = params.graph, layers[finding.layer - 1]
    chosen: Any
    if finding.kind == "weight_gradient":
        return ARROW_GRADIENT.of()
    if finding.kind == "bias_gradient":
        return NEURON_GRADIENT.of()
    if finding.kind == "output_delta":
        own = finding.index is not None and isinstance(layer.activation, PerNeuron)
        chosen = [graph.outputs[finding.index[-1]]] if own and finding.index else graph.outputs
    elif finding.kind == "hidden_delta":
        chosen = [k for k in np.flatnonzero(graph.generation > 0) if graph.activations[k] == layer.activation
                  and k in graph.arrows[:, 0]]  # fmt: skip
    elif finding.kind == "norm_pullback":
        if "gamma" in finding.name or "beta" in finding.name:
            return GRAPH_NORM["beta" in finding.name].of()
        chosen = np.flatnonzero(graph.normed)
    else:
        chosen = np.unique(graph.arrows[:, 0])
    group = next(group for group in groups(graph) if np.isin(chosen, group.neurons).any())
    return _lambda(graph, group).of(at=group.at, k=group.k)


class _Raised(Exception):
    """A rule raised; the arguments are its name and its error."""


def _named(name: str, rule: Callable) -> Callable:
    def of(*args):
        try:
            return rule(*args)
        except Exception as error:  # a rule is the user's: whatever it raises is a finding
            raise _Raised(name, error) from error

    return of


def _compared(data, loss, rules, tolerance) -> Iterator[Compared]:
    params, x, y, mask = data
    graph = params.graph
    layout, index = plan(graph, dense=rules != RULES)
    auto = _oracle(leaves(params), x, y, mask, index, layout=layout, loss=loss)
    case = leaves(params), x, y, mask, index, auto
    named = rules if rules == RULES else Rules(*map(_named, Rules._fields, checks.exact(rules)))
    try:
        with as_called():
            by_hand = _by_hand(*case, layout=layout, loss=loss, rules=named)
    except _Raised as raised:
        rule, error = raised.args
        note = f"it raises {type(error).__name__}: {error}"[:200]
        yield Compared(Finding(f"the rule {rule}", float("inf"), tolerance, kind=rule, note=note), [])
        return
    sizes = _sizes(*case, layout=layout, loss=loss, tolerance=tolerance)
    around = _around(*case, layout=layout, loss=loss)
    auto, (hand, chained), size, around = jax.tree.map(np.asarray, (auto, by_hand, sizes, around))
    guesses: dict[str, np.ndarray] = {}
    for group in groups(graph):
        neurons, name = group.neurons, _lambda(graph, group).of(at=group.at, k=group.k)
        slack = 100 * tolerance * np.abs(size.lam[neurons])
        oracle, at_kinks = accept(hand.lam[neurons], auto.lam[neurons], _sides(around, neurons), slack)
        known: dict[str, Any] = {"kind": "lambda", "axes": LAMBDA.axes, "layer": int(graph.generation[neurons[0]])}
        values = oracle, hand.lam[neurons], chained.lam[neurons], size.lam[neurons]
        one = _one(name, neurons, *values, tolerance, **known)._replace(kinks=at_kinks)
        if not one.finding.ok:
            guesses = guesses or to_numpy(_with_mistakes(*case, layout=layout, loss=loss))
            looks = [note for note, guess in guesses.items() if _explains(guess[neurons], hand.lam[neurons], tolerance)]
            one = one._replace(explanations=[*looks, *one.explanations])
        yield one
    norms = zip(GRAPH_NORM, ("gamma", "beta")) if params.norm is not None else ()
    for equation, part in ((ARROW_GRADIENT, "weights"), (NEURON_GRADIENT, "biases"), *norms):
        values = tuple(getattr(v, part) for v in (auto, hand, chained, size))
        known = {"kind": equation.rule, "axes": equation.axes}
        yield _one(equation.of(), np.arange(len(getattr(auto, part))), *values, tolerance, **known)


def _one(name, chosen, oracle, hand, chained, size, tolerance, **known) -> Compared:
    """The comparison of some neurons or arrows."""
    finite = np.isfinite(oracle)
    hand, oracle = np.where(finite, hand, 0), np.where(finite, oracle, 0)
    finding = compare(name, hand, oracle, tolerance, norm(np.where(np.isfinite(size), size, 0)), **known)
    through = compare(name, np.where(finite, chained, 0), oracle, tolerance, finding.size).error
    axes = known["axes"]
    explained = [] if finding.ok else statements(hand, oracle, tolerance, axes)
    if finding.index is not None:  # the number of the neuron or the arrow, not its place in the group
        finding = replace(finding, index=(int(chosen[finding.index[0]]), *finding.index[1:]))
    telling = bool(max(np.count_nonzero(hand), np.count_nonzero(oracle)) > 1)
    return Compared(replace(finding, end_to_end=through), explained, unknown=int((~finite).sum()), telling=telling)


def _sides(around: list, neurons: np.ndarray) -> Sides:
    """The sides of the λ's of some neurons, from those with every σ' taken below and above z, far and near."""
    (a, b), (c, d) = ([values[neurons] for values in pair] for pair in around)
    low, high = np.minimum(c, d), np.maximum(c, d)
    with np.errstate(invalid="ignore"):
        return Sides(low, high, persists(low, high, np.abs(b - a)))


MISTAKES = {  # of the λ of a neuron: rules that make them, from autodiff's σ'
    "sigma'(z) is missing": AUTODIFF._replace(hidden_delta=lambda g, activation, z, a: g),
    "the direct term dL/do * sigma'(z) is missing": AUTODIFF._replace(output_delta=lambda loss, s, z, a, y: 0 * a),
    "a in place of sigma'(z)": AUTODIFF._replace(hidden_delta=lambda g, activation, z, a: g * a),
    "sigma'(z) applied twice": AUTODIFF._replace(hidden_delta=lambda g, s, z, a: g * slope(s, z) ** 2),
    "sigma'(a) in place of sigma'(z)": AUTODIFF._replace(hidden_delta=lambda g, s, z, a: g * slope(s, a)),
    "the sigma' of the direct term is missing": AUTODIFF._replace(
        output_delta=lambda loss, s, z, a, y: loss_gradient(loss, a, y)
    ),
}


def _explains(guess: np.ndarray, hand: np.ndarray, tolerance: float) -> bool:
    return hand.size > 1 and same(hand, guess, tolerance)


class Group(NamedTuple):
    """Neurons that are judged together, and how the formula names them: ``at`` its left side, ``k`` its right one."""

    neurons: np.ndarray
    at: str
    k: Hashable


def groups(given: Graph) -> Iterator[Group]:
    """Every neuron, or every generation of a large graph, from the last generation to the first."""
    if len(given) > MOST_NEURONS:
        for number in range(int(given.generation.max()), -1, -1):
            yield Group(np.flatnonzero(given.generation == number), f" of generation {number}", "k")
        return
    for k in np.argsort(-given.generation, kind="stable").tolist():
        yield Group(np.array([k]), f"[{given.neurons[k]}]", given.neurons[k])


def _lambda(given: Graph, group: Group) -> Equation:
    if len(given) > MOST_NEURONS:
        return LAMBDA
    (k,) = group.neurons
    return lambda_of(k not in given.inputs, k in given.arrows[:, 0], k in given.outputs)


@partial(jax.jit, static_argnames=("layout", "loss"))
def _oracle(parameters, x, y, mask, index, *, layout, loss) -> Values:
    """Autodiff's derivatives of the loss, summed over the examples; λ by a zero that is added to every ψ, and to x."""

    def total(parameters, shift, x):
        shifted = parameters._replace(biases=parameters.biases[:, None] + shift)
        *_, a = states_and_outputs(layout, index, with_mask(shifted, mask), x, mask.units)
        return jnp.sum(loss.value(a, y))

    shift = jnp.zeros((layout.neurons, len(x)), x.dtype)
    by, lam, by_x = jax.grad(total, argnums=(0, 1, 2))(parameters, shift, x)
    lam = lam.at[index.neuron[index.inputs]].add(by_x.T)
    norms = () if by.norm is None else (by.norm.gamma, by.norm.beta)
    return Values(lam, by.weights, by.biases, *norms)


class _Point(NamedTuple):
    """Everything at which the equations are evaluated."""

    parameters: Leaves  # with the mask in the weights
    units: Any
    arrows: Any
    states: States
    o: Any  # of the states
    z: Any  # of the outputs
    a: Any
    y: Any
    given: Any  # autodiff's λ's, (rows, B)


def _point(parameters, x, y, mask, index, auto: Values, layout) -> _Point:
    parameters = with_mask(parameters, mask)
    states, z, a = states_and_outputs(layout, index, parameters, x, mask.units)
    units = None if mask.units is None else mask.units.T
    return _Point(parameters, units, mask.arrows, states, states.o, z, a, y, by_rows(layout, index, auto.lam))


def _values(layout, index, at: _Point, rules: Rules, direct, given) -> Values:
    back = backward_pass(layout, index, at.parameters, at.states, at.units, direct, rules, given=given)
    through = lambdas_of_inputs(layout, index, at.parameters, at.units, back, rules, given)
    lam = through if given is None else given
    sums = rules.bias_gradient(by_neurons(layout, index, lam).T)
    norms = [by_neurons(layout, index, v)[:, 0] for v in (back.gamma, back.beta) if v is not None]
    return Values(
        by_neurons(layout, index, through),
        masked(weight_gradients(layout, index, lam, at.o, rules), at.arrows),
        jnp.where(index.computed, sums, 0),
        *norms,
    )


@partial(jax.jit, static_argnames=("layout", "loss", "rules"))
def _by_hand(parameters, x, y, mask, index, auto: Values, *, layout, loss, rules) -> tuple[Values, Values]:
    """By hand from autodiff's λ's, and by hand from hand-written ones."""
    at, rules = _point(parameters, x, y, mask, index, auto, layout), checks.exact(rules)
    direct = rules.output_delta(loss, layout.output, at.z, at.a, y).T
    alone, chained = (_values(layout, index, at, rules, direct, given) for given in (at.given, None))
    return alone, chained


@partial(jax.jit, static_argnames=("layout", "loss", "tolerance"))
def _sizes(parameters, x, y, mask, index, auto: Values, *, layout, loss, tolerance) -> Values:
    """The sizes of the terms that each equation sums."""
    at = _point(parameters, x, y, mask, index, auto, layout)
    rounding = 16 * float(jnp.finfo(x.dtype).eps) / tolerance  # of factors much larger than their product

    def hidden_delta(g, activation, z, a):
        return jnp.abs(AUTODIFF.hidden_delta(g, activation, z, a)) + rounding * g

    def norm_pullback(norm, psi, delta_z):
        x_hat, s = standardise(norm, psi)
        h, x_hat = norm.gamma * delta_z, jnp.abs(x_hat)
        terms = (h + jnp.mean(h, axis=0) + x_hat * jnp.mean(h * x_hat, axis=0)) / s
        return terms, jnp.sum(delta_z * x_hat, axis=0), jnp.sum(delta_z, axis=0)

    direct = jnp.abs(AUTODIFF.output_delta(loss, layout.output, at.z, at.a, y))
    direct = direct + rounding * (jnp.abs(at.a) + jnp.abs(as_targets(y, at.a)))
    names = "parameters", "units", "arrows", "o", "given"
    signless = at._replace(**jax.tree.map(jnp.abs, {name: getattr(at, name) for name in names}))
    rules = RULES._replace(hidden_delta=hidden_delta, norm_pullback=norm_pullback)
    return _values(layout, index, signless, rules, direct.T, signless.given)


@partial(jax.jit, static_argnames=("layout", "loss"))
def _around(parameters, x, y, mask, index, auto: Values, *, layout, loss) -> list[list[jax.Array]]:
    """The λ's, each from autodiff's, with every σ' taken a little below and above z: far, and near."""
    at = _point(parameters, x, y, mask, index, auto, layout)
    dtype = x.dtype

    def moved(z, sign: int, wide: int):
        step = ULPS[str(dtype)][wide] * jnp.finfo(dtype).eps * jnp.abs(z)
        return z + sign * jnp.where(z == 0, OF_ZERO[wide], step).astype(dtype)

    def lam(sign: int, wide: int):
        rules = AUTODIFF._replace(
            hidden_delta=lambda g, activation, z, a: g * slope(activation, moved(z, sign, wide)),
        )
        direct = AUTODIFF.output_delta(loss, layout.output, moved(at.z, sign, wide), at.a, y).T
        return _values(layout, index, at, rules, direct, at.given).lam

    return [[lam(sign, wide) for sign in (-1, 1)] for wide in (0, 1)]


@partial(jax.jit, static_argnames=("layout", "loss"))
def _with_mistakes(parameters, x, y, mask, index, auto: Values, *, layout, loss) -> dict[str, jax.Array]:
    """The λ's, each from autodiff's, with each of the usual mistakes."""
    at, guesses = _point(parameters, x, y, mask, index, auto, layout), {}
    for note, rules in MISTAKES.items():
        direct = rules.output_delta(loss, layout.output, at.z, at.a, y).T
        guesses[note] = _values(layout, index, at, rules, direct, at.given).lam
    return guesses
