"""The λ of every neuron of a graph, and the gradients of its arrows and neurons, against autodiff."""

from collections.abc import Hashable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.backward import RULES, Rules
from fnn.batchnorm import standardise
from fnn.checks import network as checks
from fnn.data import for_network
from fnn.dropout import Mask, masked
from fnn.equations.graphs import ARROW_GRADIENT, GRAPH_NORM, LAMBDA, NEURON_GRADIENT, Equation, lambda_of
from fnn.graph.graph import Graph, GraphParams
from fnn.graph.passes import leaves, states_and_outputs, with_mask
from fnn.graph.plan import plan
from fnn.graph.recursion import Leaves, States, backward_pass, by_neurons, by_rows, lambdas_of_inputs, weight_gradients
from fnn.kinds import GRAPH
from fnn.losses import Loss, as_targets
from fnn.verify.blackbox import in_best_dtype
from fnn.verify.diagnose import generic
from fnn.verify.oracle import NORM_TOLERANCE, TOLERANCE, exactly, in_dtype
from fnn.verify.report import Finding, Report, compare, norm, norm_error

BATCH, SEED = 7, 0
MOST_NEURONS = 64  # that a report lists one by one; beyond, it lists generations


class Values(NamedTuple):
    """What is compared: ∂/∂ψ (N, B), the sum's gradients by weights (M,) and biases (N,), and by γ, β (N,) if any."""

    lam: Any
    weights: Any
    biases: Any
    gamma: Any = None
    beta: Any = None


def network(params, x, y, loss: Loss, rules: Rules, masks, dtype, tolerance) -> Report:
    """``verify.network`` for a graph, which see: every neuron's λ from **autodiff's** λ's of its receivers."""
    cases = data_or_random(params, x, y, loss, masks)
    return in_best_dtype(dtype, tolerance, lambda chosen: _judge(cases, loss, rules, chosen, tolerance))


def data_or_random(params, x, y, loss, masks) -> list[tuple]:
    """(name, params, x, y, mask) each."""
    GRAPH.require(params)
    if x is not None:
        GRAPH.check(*GRAPH.given(params, x, masks, RULES))
        mask = Mask() if masks is None else masks
        x, y = (np.atleast_2d(x), np.asarray(y)[None]) if x.ndim == 1 else (x, y)
        data = for_network((np.asarray(x), np.asarray(y)), GRAPH.ports(params), loss, "x, y")
        return [("the data given", params, data.x, data.y, mask)]
    random, given = np.random.default_rng(SEED), params.graph
    x = random.normal(size=(BATCH, len(given.inputs)))
    y = random.uniform(0.05, 0.95, (BATCH, len(given.outputs)))
    y = y / y.sum(axis=1, keepdims=True)
    drawn = _scaled(jax.tree.map(lambda leaf: random.normal(size=leaf.shape) + 0.3, params))
    units: Any = 2.0 * (random.random((BATCH, len(given))) < 0.8)
    arrows: Any = 4.0 * (random.random(len(given.arrows)) < 0.8)
    none: Any = np.ones_like(units), np.ones_like(arrows)  # one program serves all cases
    return [
        ("the network itself", params, x, y, Mask(*none)),
        ("random parameters", drawn, x, y, Mask(*none)),
        ("masks", drawn, x, y, Mask(units, arrows)),  # where no ψ is a bias of 0, a kink
    ]


def _scaled(drawn: GraphParams) -> GraphParams:
    """Weights that leave ψ of order one, whatever the number of arrows into a neuron."""
    into = np.bincount(drawn.graph.arrows[:, 1], minlength=len(drawn.graph))
    return replace(drawn, weights=drawn.weights / np.sqrt(into[drawn.graph.arrows[:, 1]]))


def _judge(cases, loss, rules, dtype, tolerance) -> Report:
    with exactly(dtype):
        tolerance = tolerance or (TOLERANCE if cases[0][1].norm is None else NORM_TOLERANCE)[dtype]
        found: dict[str, list[Finding]] = {}
        for name, *case in cases:
            data: Any = in_dtype(tuple(case), dtype)
            for finding in _findings(data, loss, rules, tolerance):
                found.setdefault(finding.name, []).append(replace(finding, case=name if len(cases) > 1 else ""))
    worst = tuple(max(findings, key=lambda f: (not f.ok, f.error, not f.vacuous)) for findings in found.values())
    notes = ("cases: " + ", ".join(name for name, *_ in cases),) if len(cases) > 1 else ()
    return Report(worst, dtype, notes, "equation", SEED if len(cases) > 1 else None)


def _findings(data, loss, rules, tolerance) -> Iterator[Finding]:
    params, x, y, mask = data
    given = params.graph
    layout, index = plan(given, dense=rules != RULES)
    auto = _oracle(leaves(params), x, y, mask, index, layout=layout, loss=loss)
    case = leaves(params), x, y, mask, index, auto
    by_hand = _by_hand(*case, layout=layout, loss=loss, rules=rules)
    sizes = _sizes(*case, layout=layout, loss=loss, tolerance=tolerance)
    auto, (hand, chained), size = jax.tree.map(np.asarray, (auto, by_hand, sizes))
    for group in groups(given):
        neurons, name = group.neurons, _lambda(given, group).of(at=group.at, k=group.k)
        values = (auto.lam, hand.lam, chained.lam, size.lam)
        first = int(given.generation[neurons[0]])
        finding = _compared(name, "lambda", neurons, *values, tolerance, LAMBDA.axes, first)
        if not finding.ok:
            guesses = _with_mistakes(*case, layout=layout, loss=loss)
            looks = (note for note, guess in guesses.items() if _explains(guess, hand.lam, neurons))
            finding = replace(finding, note=next(looks, finding.note))
        yield finding
    norms = zip(GRAPH_NORM, ("gamma", "beta")) if params.norm is not None else ()
    for equation, part in ((ARROW_GRADIENT, "weights"), (NEURON_GRADIENT, "biases"), *norms):
        oracle, ours, through, terms = (getattr(v, part) for v in (auto, hand, chained, size))
        yield _compared(equation.of(), equation.rule, np.arange(len(oracle)),
                        oracle, ours, through, terms, tolerance, equation.axes)  # fmt: skip


MISTAKES = {  # of the λ of a neuron: rules that make them
    "sigma'(z) is missing": RULES._replace(hidden_delta=lambda g, activation, z, a: g),
    "the direct term dL/do * sigma'(z) is missing": RULES._replace(output_delta=lambda loss, s, z, a, y: 0 * a),
    "a in place of sigma'(z)": RULES._replace(hidden_delta=lambda g, activation, z, a: g * a),
    "sigma'(z) applied twice": RULES._replace(hidden_delta=lambda g, s, z, a: s.pullback(s.pullback(g, z, a), z, a)),
}


def _explains(guess, hand: np.ndarray, neurons: np.ndarray) -> bool:
    guess, hand = np.asarray(guess)[neurons], hand[neurons]
    return norm_error(hand, guess, norm(guess)) <= 1e-4


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


def _compared(name, kind, chosen, oracle, hand, chained, size, tolerance, axes, generation=0) -> Finding:
    finding = compare(
        name, hand[chosen], oracle[chosen], tolerance, norm(size[chosen]), kind=kind, axes=axes, layer=generation
    )
    through = compare(name, chained[chosen], oracle[chosen], tolerance, norm(size[chosen])).error
    note = ""
    if not finding.ok:
        note = next(iter(generic(hand[chosen], oracle[chosen], tolerance)), "")
    if finding.index is not None:  # the number of the neuron or the arrow, not its place in the group
        finding = replace(finding, index=(int(chosen[finding.index[0]]), *finding.index[1:]))
    return replace(finding, end_to_end=through, note=note)


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
        return jnp.abs(activation.pullback(g, z, a)) + rounding * g

    def norm_pullback(norm, psi, delta_z):
        x_hat, s = standardise(norm, psi)
        h, x_hat = norm.gamma * delta_z, jnp.abs(x_hat)
        terms = (h + jnp.mean(h, axis=0) + x_hat * jnp.mean(h * x_hat, axis=0)) / s
        return terms, jnp.sum(delta_z * x_hat, axis=0), jnp.sum(delta_z, axis=0)

    direct = jnp.abs(RULES.output_delta(loss, layout.output, at.z, at.a, y))
    direct = direct + rounding * (jnp.abs(at.a) + jnp.abs(as_targets(y, at.a)))
    names = "parameters", "units", "arrows", "o", "given"
    signless = at._replace(**jax.tree.map(jnp.abs, {name: getattr(at, name) for name in names}))
    rules = RULES._replace(hidden_delta=hidden_delta, norm_pullback=norm_pullback)
    return _values(layout, index, signless, rules, direct.T, signless.given)


@partial(jax.jit, static_argnames=("layout", "loss"))
def _with_mistakes(parameters, x, y, mask, index, auto: Values, *, layout, loss) -> dict[str, jax.Array]:
    """The λ's, each from autodiff's, with each of the usual mistakes."""
    at, guesses = _point(parameters, x, y, mask, index, auto, layout), {}
    for note, rules in MISTAKES.items():
        direct = rules.output_delta(loss, layout.output, at.z, at.a, y).T
        guesses[note] = _values(layout, index, at, rules, direct, at.given).lam
    return guesses
