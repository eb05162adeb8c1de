"""The checker on mistakes made on purpose: all are found, named where they were made, told apart; no false alarm."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import fnn
from fnn import verify
from mutants import BIAS, HIDDEN, INPUT, LOSS, MUTANTS, NORMED, OUTPUT, PLAIN, RULES, WEIGHT, Mutant, at, hidden
from problems import ACTIVATIONS, COUPLED, FROM_Z, KINKED, LOSSES, SMOOTH, and_slow
from wrong_functions import ACTIVATIONS as WRONG_ACTIVATIONS
from wrong_functions import LOSSES as WRONG_LOSSES

SLOW = pytest.mark.slow


def said(report) -> dict:
    """What is said to be wrong: (rule, layer) → what it looks like."""
    return {(finding.kind, finding.layer): finding.note for finding in report.wrong}


def reported(mutant: Mutant) -> dict:
    given = mutant.data  # where the mistake is one of a single network, no other can be judged
    return said(verify.network(mutant.params, *given, loss=mutant.loss, rules=mutant.rules, probes=not given))


# -- on one case of data ---------------------------------------------------------------------------------------

N = 5  # examples, and units of every layer


def drawn(*shape, seed=2):
    return jnp.asarray(np.float32(np.random.default_rng(seed).normal(size=shape)), jnp.float32)


def square(params):
    """Weights of (5, 5) in place of the network's own."""
    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(structure, [drawn(*(N,) * leaf.ndim, seed=i) for i, leaf in enumerate(leaves)])


def kept(scale, seed):
    return jnp.asarray(scale * (np.random.default_rng(seed).random((N, N)) < 0.8), jnp.float32)


def probabilities(random):
    y = random.uniform(0.05, 0.95, (N, N))
    return np.float32(y / y.sum(axis=1, keepdims=True))


X, Y = drawn(N, N, seed=10), jnp.asarray(probabilities(np.random.default_rng(11)))
MASKS = tuple(fnn.Mask(units=kept(1.7, seed), arrows=kept(1.3, seed + 10)) for seed in range(20, 23))


def reported_on_the_square(mutant: Mutant) -> dict:
    """Where no shape can betray a mistake, only values, and one program of each operation serves all mistakes."""
    report = verify.network(
        square(mutant.params), X, Y, loss=mutant.loss, rules=mutant.rules, masks=MASKS, probes=False
    )
    return said(report)


def recognised(mutant: Mutant, found: dict) -> bool:
    """By what it looks like, or by the method of the class ``Wrong`` that is wrong."""
    return mutant.looks_like is None or all(mutant.looks_like in note or "Wrong." in note for note in found.values())


IN_RULES = [mutant for mutant in MUTANTS if mutant.rules is not RULES and not mutant.data]
IN_FUNCTIONS = {mutant.name: mutant for mutant in MUTANTS if mutant.rules is RULES}
del IN_FUNCTIONS["activation relu: 5 at the kink"]  # it takes data at the kink
del IN_FUNCTIONS["loss softmax: y not summed"]  # and this targets that are no probabilities


@pytest.mark.parametrize("mutant", IN_RULES, ids=lambda mutant: mutant.name)
def test_every_mistake_in_an_equation_is_named_by_its_values_alone(mutant):
    found = reported_on_the_square(mutant)
    assert found.keys() == mutant.where
    if mutant.name == "input_gradient: the updated W":  # below the output it takes the gradient of a wrong δ
        found = {place: found[place] for place in at("input_gradient", 3)}
    assert recognised(mutant, found)


def test_a_transposed_gradient_is_known_by_its_shape():
    params = (fnn.Dense(drawn(3, N), drawn(3), fnn.Identity()),)
    rules = RULES._replace(weight_gradient=WEIGHT["transposed"][0])
    report = verify.network(params, X, np.asarray(Y)[:, :3], loss=LOSS, rules=rules)
    assert said(report) == {("weight_gradient", 1): "the transpose"}


# a constant factor, the wrong side of a kink, not elementwise; of a loss of its own scale, and of one fused with its
# output activation
KINDS = (
    "activation sigmoid: no beta", "activation relu: the wrong side", "activation softmax: diagonal only",
    "loss squared: no 2", "loss softmax: no target",
)  # fmt: skip


@pytest.mark.parametrize("name", and_slow(KINDS, IN_FUNCTIONS))
def test_every_mistake_in_an_activation_or_a_loss_is_named_at_its_layer(name):
    mutant = IN_FUNCTIONS[name]
    found = reported_on_the_square(mutant)
    assert found.keys() == mutant.where
    assert recognised(mutant, found)


PARTS = {
    "hidden_delta": {name: hidden(f).hidden_delta for name, (f, _) in HIDDEN.items()},
    "output_delta": {name: f for name, (f, _) in OUTPUT.items()},
    "input_gradient": {name: f for name, (f, _) in INPUT.items()},
    "weight_gradient": {name: f for name, (f, _) in WEIGHT.items()},
    "bias_gradient": {name: f for name, (f, _) in BIAS.items()},
}
LAYERS = {"hidden_delta": (1,), "output_delta": (3,)}
PAIRS = list(itertools.combinations(PARTS, 2))


def pairs(rule, other):
    return itertools.product(PARTS[rule].items(), PARTS[other].items())


def assert_both_are_named(rule, other, mistakes):
    where = at(rule, *LAYERS.get(rule, (1, 2, 3))) | at(other, *LAYERS.get(other, (1, 2, 3)))
    for (name, wrong), (second, also_wrong) in mistakes:
        rules = RULES._replace(**{rule: wrong, other: also_wrong})
        assert reported_on_the_square(Mutant("pair", where, rules=rules)).keys() == where, (name, second)


@pytest.mark.parametrize(("rule", "other"), PAIRS)
def test_of_mistakes_in_two_equations_both_are_named(rule, other):
    """A walk from the top would stop at the first."""
    assert_both_are_named(rule, other, itertools.islice(pairs(rule, other), 1))


@SLOW
@pytest.mark.parametrize(("rule", "other"), PAIRS)
def test_so_are_those_of_every_pair(rule, other):
    assert_both_are_named(rule, other, pairs(rule, other))


# -- on data of its own ----------------------------------------------------------------------------------------


def test_mistakes_that_only_some_data_show_are_found_without_any_given():
    relu, (loss, _, _) = WRONG_ACTIVATIONS["relu: 5 at the kink"], WRONG_LOSSES["softmax: y not summed"]
    params = fnn.Dense(drawn(8, 5), drawn(8), relu), fnn.Dense(drawn(3, 8), drawn(3), fnn.Identity())
    (transposed, _), (unmasked, _) = INPUT["W transposed"], WEIGHT["arrow mask forgotten"]
    rules = RULES._replace(input_gradient=transposed, weight_gradient=unmasked)
    wrong = verify.network(params, loss=loss, rules=rules).wrong
    assert {(finding.kind, finding.layer, finding.case) for finding in wrong} == {
        ("output_delta", 2, "targets of any size"),
        ("hidden_delta", 1, "at the kinks"),
        *(("input_gradient", layer, "square") for layer in (1, 2)),
        *(("weight_gradient", layer, "masks") for layer in (1, 2)),
    }


def test_there_are_mistakes_in_every_equation():
    assert len(MUTANTS) >= 60
    assert sum(len(list(pairs(*two))) for two in PAIRS) >= 400
    assert {rule for mutant in MUTANTS for rule, _ in mutant.where} == set(RULES._fields) - {"affine", "normalise"}


# -- no false alarm --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["constant weights", "zero weights", "zero input", "zero everything"])
def test_exact_cancellation_is_no_false_alarm(case):
    params, ones = square(PLAIN), jnp.asarray(np.ones((N, N), np.float32))
    if case != "zero input":
        params = jax.tree.map(lambda leaf: (0.1 if case == "constant weights" else 0.0) * np.ones_like(leaf), params)
    x = np.zeros((N, N), np.float32) if case in ("zero input", "zero everything") else np.ones((N, N), np.float32)
    masks = (fnn.Mask(ones, ones),) * 3  # not None: so the programs above serve here too
    assert not verify.network(params, x, np.full_like(x, 0.5), loss=LOSS, masks=masks, probes=False).wrong


def of_every_kind():
    """An activation of each kind, behind a batch norm each."""
    kinds, layers = (SMOOTH, FROM_Z, KINKED, COUPLED, fnn.Identity()), (*NORMED[:2], *NORMED)
    params = (replace(layer, activation=s) for layer, s in zip(layers, kinds))
    return square(tuple(params)), fnn.SoftmaxCrossEntropy(), np.random.default_rng(11)


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


@pytest.mark.parametrize("dtype", and_slow(["float64"], ["float32"]))
@pytest.mark.parametrize("number", and_slow(["every kind"], range(26)))
def test_a_right_derivation_is_never_accused(number, dtype):
    """26 architectures, 20 draws of parameters and data each, from tame to wild, in either precision."""
    params, loss, random = of_every_kind() if number == "every kind" else architecture(number)
    for draw in range(20):
        scale = 10.0 ** random.uniform(-2, 1)
        leaves, structure = jax.tree.flatten(params)
        scaled = jax.tree.unflatten(
            structure, [jnp.asarray(random.normal(size=leaf.shape) * scale, leaf.dtype) for leaf in leaves]
        )
        x = jnp.asarray(random.normal(size=(N, params[0].W.shape[1])) * 10.0 ** random.uniform(-2, 2), jnp.float32)
        y = random.uniform(0.02, 0.98, (N, params[-1].W.shape[0])).astype(np.float32)
        y = (
            y / y.sum(axis=1, keepdims=True)
            if isinstance(loss, fnn.SoftmaxCrossEntropy) or getattr(loss, "categorical", False)
            else y
        )
        report = verify.network(scaled, x, y, loss=loss, dtype=dtype, probes=draw == 0)
        assert not report.wrong, f"draw {draw}\n{report}"


# -- beside other ways of looking ------------------------------------------------------------------------------


@SLOW
def test_figures_beside_check_grads_and_the_falling_loss(capsys):
    """How many of the mistakes each way of looking catches; run with -n 0 to see."""
    found = {mutant.name: reported(mutant) for mutant in MUTANTS}
    named = [mutant for mutant in MUTANTS if found[mutant.name].keys() == mutant.where]
    usual = [mutant for mutant in MUTANTS if mutant.looks_like is not None]
    told_apart = [mutant for mutant in usual if mutant in named and recognised(mutant, found[mutant.name])]
    caught = {
        "verify.network": sum(map(bool, found.values())),
        "jax.test_util.check_grads, float32": sum(not passes_check_grads(mutant) for mutant in MUTANTS),
        "the loss does not go down": sum(not learns(mutant) for mutant in MUTANTS),
    }
    figures = [(f"caught by {name}", number, len(MUTANTS)) for name, number in caught.items()]
    figures.append(("named with the right equation and layer", len(named), len(MUTANTS)))
    figures.append((f"recognised, of the {len(usual)} usual ones", len(told_apart), len(usual)))
    with capsys.disabled():
        print(f"\n{len(MUTANTS)} mistakes in the equations, their activations and losses")
        for what, number, of in figures:
            print(f"  {what}: {number} ({100 * number / of:.0f} %)")
    assert named == MUTANTS
    assert told_apart == usual


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
    step = fnn.train.make_step(fnn.updates.sgd(0.1), loss=mutant.loss, rules=mutant.rules)
    state = fnn.updates.sgd(0.1).init(params)
    try:
        losses = []
        for _ in range(50):
            params, state, loss = step(params, state, x, y)
            losses.append(float(loss))
    except Exception:
        return False
    return losses[-1] < losses[0]
