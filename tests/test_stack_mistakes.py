"""A mistake in a rule, an activation or a loss has the same effect in a stack as in its layers, and is found there."""

import jax
import numpy as np
import pytest

import fnn
from mutants import MUTANTS, RULES
from problems import and_slow
from stack_cases import SIZES, assert_equal, by_layer, data, pair

ANYWHERE = {mutant.name: mutant for mutant in MUTANTS if not mutant.data}
# A mistake of a rule; of one that keeps a gradient; of a shape; of the batch norm's rule; of an activation.
MISTAKES = ["hidden_delta: no sigma'", "input_gradient: the updated W", "bias_gradient: not summed",
            "norm_pullback: no mean term", "activation softmax: diagonal only"]  # fmt: skip


def deep(mutant, dtype="float32", sizes=SIZES):
    """The same network, layer by layer and stacked, with the mutant's mistake in its hidden layers."""
    layer, norm = min(layer for _, layer in mutant.where), mutant.params[0].norm
    activation, output = mutant.params[min(layer, 2) - 1].activation, mutant.params[-1].activation
    return pair(dtype, sizes, activation=activation, output=output, norm=norm and norm.gradient)


def test_verify_reports_of_a_stack_what_it_reports_of_its_layers(x64):
    mistake, random = ANYWHERE["hidden_delta: no sigma'"], np.random.default_rng(4)
    networks = deep(mistake, "float64", (4,) * 5)
    x, y = data(networks[0], rows=(4,))
    units = random.integers(0, 2, (4, 4, 4)) / 0.7
    masks = [[fnn.Mask(of) for of in units], [fnn.Mask(units[0]), fnn.Mask(units[1:3]), fnn.Mask(units[3])]]
    for rules, wrong in ((RULES, set()), (mistake.rules, {1, 2, 3})):
        one, other = (fnn.verify.network(params, x, y, loss=fnn.SquaredError(), rules=rules, masks=of)
                      for params, of in zip(networks, masks))  # fmt: skip
        assert str(one) == str(other)
        assert {finding.layer for finding in other.findings} == {1, 2, 3, 4}
        assert {(finding.kind, finding.layer) for finding in other.wrong} == {("hidden_delta", i) for i in wrong}
    for one, other in zip(*map(fnn.verify.probes, networks)):  # what is judged where no data are given
        assert_equal(one[1:], other[1:], 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_a_stack_are_found_without_data(name):
    mutant = ANYWHERE[name]
    if mutant.rules is not RULES:  # without them the network is right
        assert fnn.verify.network(deep(mutant)[1], loss=mutant.loss).ok
    report = fnn.verify.network(deep(mutant)[1], loss=mutant.loss, rules=mutant.rules)
    assert {finding.kind for finding in report.wrong} == {rule for rule, _ in mutant.where}


def outcomes(mutants, networks, x, y):
    """Of every mutant, in one program: the gradient in its network, or the type of what it raises."""
    raised = {}

    def gradients(networks):
        found = {}
        for mutant, params in zip(mutants, networks):
            try:
                found[mutant.name] = fnn.backprop(params, x, y, loss=mutant.loss, rules=mutant.rules)
            except Exception as error:  # a mistake may have an illegal shape
                raised[mutant.name] = type(error).__name__
        return found

    return jax.jit(gradients)(networks), raised


BY_RULE = [[name for name in ANYWHERE if name.startswith(kind)] for kind in (*RULES._fields, "activation", "loss")]


@pytest.mark.parametrize("names", and_slow([MISTAKES], BY_RULE), ids=lambda names: names[0].split(":")[0])
def test_every_mistake_has_the_same_effect_in_a_stack(names, x64):
    mutants = [ANYWHERE[name] for name in names]
    layers, stacked = zip(*(deep(mutant, "float64") for mutant in mutants))
    assert [layer.stacked for layer in stacked[0]] == [False, True, False]
    x, y = data(layers[0])
    (one, raised), (other, also) = (outcomes(mutants, networks, x, y) for networks in (layers, stacked))
    assert raised.keys() == also.keys()
    for mutant, params in zip(mutants, stacked):
        if mutant.name in other:
            assert_equal(by_layer(params, other[mutant.name]), one[mutant.name])


def test_a_rule_sees_the_layers_of_a_stack_one_by_one():
    seen = []

    def spy(delta, a_in, mask=None):
        seen.append((delta.shape, a_in.shape))
        return RULES.weight_gradient(delta, a_in, mask)

    _, stacked = pair("float32")
    x, y = data(stacked)
    jax.eval_shape(lambda: fnn.backprop(stacked, x, y, rules=RULES._replace(weight_gradient=spy)))
    assert set(seen) == {((7, 3), (7, 4)), ((7, 4), (7, 4)), ((7, 4), (7, 5))}
