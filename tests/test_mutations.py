"""The checker on mistakes made on purpose: all are found, named where they were made, told apart; no false alarm."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import fnn
from fnn import verify
from mutants import BIAS, HIDDEN, INPUT, LOSS, MUTANTS, OUTPUT, PLAIN, RULES, WEIGHT, Mutant, at, hidden
from problems import ACTIVATIONS, LOSSES, some


def reported(mutant: Mutant, **options) -> dict:
    """What is said to be wrong: (rule, layer) → what it looks like."""
    report = verify.network(mutant.params, *mutant.data, loss=mutant.loss, rules=mutant.rules, **options)
    return {(finding.kind, finding.layer): finding.note for finding in report.wrong}


@pytest.mark.parametrize("mutant", some(MUTANTS, every=8), ids=lambda mutant: mutant.name)
def test_every_mistake_is_found_where_it_was_made_and_recognised(mutant):
    found = reported(mutant)
    assert found.keys() == mutant.where
    if mutant.looks_like is not None:
        assert all(mutant.looks_like in note for note in found.values())


def test_there_are_mistakes_in_every_equation():
    assert len(MUTANTS) >= 60
    assert {rule for mutant in MUTANTS for rule, _ in mutant.where} == set(RULES._fields)


PARTS = {
    "hidden_delta": {name: hidden(f).hidden_delta for name, (f, _) in HIDDEN.items()},
    "output_delta": {name: f for name, (f, _) in OUTPUT.items()},
    "input_gradient": {name: f for name, (f, _) in INPUT.items()},
    "weight_gradient": {name: f for name, (f, _) in WEIGHT.items()},
    "bias_gradient": {name: f for name, (f, _) in BIAS.items()},
}
LAYERS = {"hidden_delta": (1,), "output_delta": (3,)}
PAIRS = [
    ((rule, name), (other, second))
    for rule, other in itertools.combinations(PARTS, 2)
    for name in PARTS[rule]
    for second in PARTS[other]
]


@pytest.mark.parametrize("pairs", [PAIRS[start::20] for start in (0, 7)])
def test_both_of_two_mistakes_are_named(pairs):
    """Some of the pairs, for a walk from the top would stop at the first; the slow test takes all."""
    assert_named(pairs)


@pytest.mark.slow
@pytest.mark.long
def test_both_mistakes_of_every_pair_are_named():
    assert len(PAIRS) >= 400
    assert_named(PAIRS)


def assert_named(pairs):
    for (rule, name), (other, second) in pairs:
        rules = RULES._replace(**{rule: PARTS[rule][name], other: PARTS[other][second]})
        where = at(rule, *LAYERS.get(rule, (1, 2, 3))) | at(other, *LAYERS.get(other, (1, 2, 3)))
        found = reported(Mutant("pair", where, rules=rules))
        assert found.keys() == where, (rule, name, other, second)


def architecture(number: int):
    """A random network and loss; batch norms in every third."""
    random = np.random.default_rng([11, number])
    depth = int(random.integers(1, 5))
    sizes = tuple(int(n) for n in random.choice([3, 5], depth + 1))
    loss = LOSSES[number % len(LOSSES)]
    probabilities = isinstance(loss, fnn.CrossEntropy)
    output = (fnn.Softmax() if loss.categorical else fnn.Sigmoid()) if probabilities else fnn.Identity()
    activations = [ACTIVATIONS[int(i)] for i in random.integers(len(ACTIVATIONS), size=depth)]
    norm = ("full", None, "fixed", None, None, None)[number % 6]
    params = fnn.init(jax.random.key(number), sizes, output=output, batch_norm=norm)
    hidden = (fnn.Dense(p.W, p.b, s, p.norm) for p, s in zip(params[:-1], activations))
    return (*hidden, params[-1]), loss, random


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", some(range(26), every=3))
def test_a_right_derivation_is_never_accused(number, dtype):
    """26 architectures, 20 draws of parameters and data each, from tame to wild, in either precision."""
    params, loss, random = architecture(number)
    for draw in range(20):
        scale = 10.0 ** random.uniform(-2, 1)
        leaves, structure = jax.tree.flatten(params)
        drawn = jax.tree.unflatten(
            structure, [jnp.asarray(random.normal(size=leaf.shape) * scale, leaf.dtype) for leaf in leaves]
        )
        x = jnp.asarray(random.normal(size=(8, params[0].W.shape[1])) * 10.0 ** random.uniform(-2, 2), jnp.float32)
        y = random.uniform(0.02, 0.98, (8, params[-1].W.shape[0])).astype(np.float32)
        report = verify.network(drawn, x, y, loss=loss, dtype=dtype)
        assert not report.wrong, f"draw {draw}\n{report}"


@pytest.mark.parametrize("case", ["constant weights", "zero weights", "zero input", "zero everything"])
def test_exact_cancellation_is_no_false_alarm(case):
    value = 0.0 if case in ("zero weights", "zero everything") else 0.1
    params = PLAIN if case == "zero input" else jax.tree.map(lambda leaf: jnp.full_like(leaf, value), PLAIN)
    x = jnp.ones((4, 6)) * (0.0 if case in ("zero input", "zero everything") else 1.0)
    report = verify.network(params, x, jnp.full((4, 3), 0.5), loss=LOSS)
    assert not report.wrong


@pytest.mark.slow
@pytest.mark.long
def test_figures_beside_check_grads_and_the_falling_loss(capsys):
    """How many of the mistakes each way of looking catches; run with -n 0 to see."""
    caught = {"verify.network": 0, "jax.test_util.check_grads, float32": 0, "the loss does not go down": 0}
    named = recognised = usual = 0
    for mutant in MUTANTS:
        found = reported(mutant)
        caught["verify.network"] += bool(found)
        named += found.keys() == mutant.where
        if mutant.looks_like is not None:
            usual += 1
            recognised += bool(found) and all(mutant.looks_like in note for note in found.values())
        caught["jax.test_util.check_grads, float32"] += not passes_check_grads(mutant)
        caught["the loss does not go down"] += not learns(mutant)
    with capsys.disabled():
        print(f"\n{len(MUTANTS)} mistakes in the equations, their activations and losses")
        for name, number in caught.items():
            print(f"  caught by {name}: {number} ({100 * number / len(MUTANTS):.0f} %)")
        print(f"  named with the right equation and layer: {named} ({100 * named / len(MUTANTS):.0f} %)")
        print(f"  recognised, of the {usual} usual ones: {recognised} ({100 * recognised / usual:.0f} %)")
    assert caught["verify.network"] == len(MUTANTS)
    assert named >= 0.98 * len(MUTANTS)
    assert recognised >= 0.8 * usual


def sample(mutant):
    x, y = mutant.data or (jax.random.normal(jax.random.key(3), (8, 6)), jax.random.uniform(jax.random.key(4), (8, 3)))
    return x, y


def passes_check_grads(mutant) -> bool:
    x, y = sample(mutant)

    @jax.custom_vjp
    def cost(params):
        return mutant.loss.value(fnn.forward(params, x), y).mean()

    cost.defvjp(
        lambda params: (cost(params), params),
        lambda params, bar: (
            jax.tree.map(lambda g: bar * g, fnn.backprop(params, x, y, loss=mutant.loss, rules=mutant.rules)),
        ),
    )
    try:
        check_grads(cost, (mutant.params,), order=1, modes=["rev"])
    except Exception:
        return False
    return True


def learns(mutant) -> bool:
    """Whether fifty steps of gradient descent lower the loss."""
    x, y = sample(mutant)
    params = mutant.params
    step = fnn.train.make_step(fnn.updates.sgd(0.1), mutant.loss, rules=mutant.rules)
    state = fnn.updates.sgd(0.1).init(params)
    try:
        losses = []
        for _ in range(50):
            params, state, loss = step(params, state, x, y)
            losses.append(float(loss))
    except Exception:
        return False
    return losses[-1] < losses[0]
