"""The checker of the R-operator on graphs: mistakes are named at the neurons where they are made, and at no other."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn import verify
from fnn.curvature import TANGENTS
from fnn.graph import Graph

LOSS = fnn.SquaredError()


@dataclass(frozen=True)
class Halved(fnn.Tanh):
    """Right, but for its second derivative."""

    def second_derivative(self, z, a):
        return super().second_derivative(z, a) / 2


# x and u are inputs; k is an output that has an arrow of its own; h, k, m and y differ in their activations
ARROWS = [("x", "h"), ("u", "h"), ("x", "k"), ("h", "k"), ("h", "m"), ("k", "m"), ("m", "y"), ("x", "y"), ("h", "y")]


def network(batch_norm=None, h=fnn.Tanh(), normed=None):
    activations = {"h": h, "k": fnn.Sigmoid(), "m": fnn.Softplus(), "y": fnn.Identity()}
    params = Graph(ARROWS, activations, ["x", "u"], ["y", "k"], normed).init(jax.random.key(0), batch_norm=batch_norm)
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + np.float32(0.3 * random.normal(size=leaf.shape)), params)


PLAIN, FULL, FIXED = network(), network("full"), network("fixed")
AT_OUTPUTS = network("full", normed=["h", "k", "y"])
RANDOM = np.random.default_rng(0)
DATA = {  # of the shapes of the random cases, so that one program serves all
    "x": np.float32(RANDOM.normal(size=(7, 2))),
    "y": np.float32(RANDOM.uniform(size=(7, 2))),
    "masks": fnn.Mask(
        units=jnp.asarray(1.25 * (RANDOM.random((7, 6)) < 0.8), "float32"),
        arrows=jnp.asarray([0, 2, 2, 2, 2, 2, 2, 0, 2], "float32"),
    ),
}


def wrong(params, rules) -> dict[str, str]:
    """The left sides of the wrong lines → what they look like."""
    found = verify.curvature(params, **DATA, loss=LOSS, rules=rules).wrong
    return {finding.name.split(" = ")[0]: finding.note for finding in found}


def replaced(rule, mistake):
    """The rules with one that calls the right one with its arguments: mistake(right, *args)."""
    right = getattr(TANGENTS, rule)
    return TANGENTS._replace(**{rule: lambda *args: mistake(right, *args)})


def at(kind, mistake, place):
    """The mistake where the activation, the argument at ``place``, is of this kind."""
    return lambda right, *args: (mistake if isinstance(args[place], kind) else lambda right, *args: right(*args))(
        right, *args
    )


def statistics_fixed(right, norm, *args):
    return right(replace(norm, gradient="fixed"), *args)


def of_psi_only(right, *args):
    """Wrong in the first of three results."""
    of_psi, *sums = right(*args)
    return (2 * of_psi, *sums)


MISTAKES = {
    "no sigma'' at h": (
        PLAIN, "hidden_delta", at(fnn.Tanh, lambda r, g, dg, s, z, a, dz: r(g, dg, s, z, a, 0 * dz), 2),
        {"R{lambda[h]}"}, "the term g sigma'' R{z} is missing"),
    "no R{g} at k": (
        PLAIN, "hidden_delta", at(fnn.Sigmoid, lambda r, g, dg, *args: r(g, 0 * dg, *args), 2),
        {"R{lambda[k]}"}, "the term R{g} sigma' is missing"),
    "no sigma' at m": (
        PLAIN, "activation", at(fnn.Softplus, lambda r, dz, s, z, a: dz, 1), {"R{o[m]}"}, None),
    "the sign of R{o}": (
        PLAIN, "activation", lambda r, *args: -r(*args), {f"R{{o[{k}]}}" for k in "hkmy"}, "the sign"),
    "no R{z} in sigma'' at the outputs": (  # y is linear
        PLAIN, "output_delta", lambda r, loss, s, z, a, y, dz, da: r(loss, s, z, a, y, 0 * dz, da),
        {"R{lambda[k]} at the output"}, "the term g sigma'' R{z} is missing"),
    "no Hessian": (
        PLAIN, "output_delta", lambda r, loss, s, z, a, y, dz, da: r(loss, s, z, a, y, dz, 0 * da),
        {"R{lambda[k]} at the output", "R{lambda[y]} at the output"}, None),
    "outputs transposed": (
        PLAIN, "output_delta", lambda r, *args: r(*args).T,
        {"R{lambda[k]} at the output", "R{lambda[y]} at the output"}, "shape (2, 7), expected (7, 1)"),
    "a mean for the biases": (PLAIN, "bias_gradient", lambda r, d: r(d) / len(d), {"R{dC/dbeta[k]}"}, None),
    "it raises": (PLAIN, "bias_gradient", lambda r, d: {}["no"], {"R{dC/dbeta[k]}"}, "it raises KeyError"),
    "fixed statistics in z": (
        FULL, "normalise", statistics_fixed, {f"R{{z[{k}]}}, of the batch norm" for k in "hm"}, None),
    "no R{gamma} in z": (
        FIXED, "normalise", lambda r, n, v, *args: r(n, replace(v, gamma=0 * v.gamma), *args),
        {f"R{{z[{k}]}}, of the batch norm" for k in "hm"}, "the term R{gamma} x_hat is missing"),
    "twice in lambda": (
        FULL, "norm_pullback", of_psi_only, {f"R{{lambda[{k}]}} of the batch norm" for k in "hm"}, "a factor 2"),
    "no R{psi} in the pull-back": (
        FULL, "norm_pullback", lambda r, n, v, psi, dpsi, *args: r(n, v, psi, 0 * dpsi, *args),
        {f"R{{{of}[{k}]}} of the batch norm" for k in "hm" for of in ("lambda", "dC/dgamma")}, None),
    "gamma left out": (
        FIXED, "norm_pullback", lambda r, n, *args: r(replace(n, gamma=jnp.ones_like(n.gamma)), *args),
        {f"R{{lambda[{k}]}} of the batch norm" for k in "hm"}, None),
    "twice in lambda, at the outputs too": (
        AT_OUTPUTS, "norm_pullback", of_psi_only, {f"R{{lambda[{k}]}} of the batch norm" for k in "hky"}, "a factor 2"),
    "no Hessian before a batch norm": (
        AT_OUTPUTS, "output_delta", lambda r, loss, s, z, a, y, dz, da: r(loss, s, z, a, y, dz, 0 * da),
        {"R{d/dz[k]} at the output", "R{d/dz[y]} at the output"}, None),
    "sigma'' twice before a batch norm": (
        FULL, "hidden_delta", at(fnn.Tanh, lambda r, g, dg, s, z, a, dz: r(g, dg, s, z, a, 2 * dz), 2),
        {"R{d/dz[h]}"}, "the term g sigma'' R{z} stands twice"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_is_named_at_its_neurons_and_at_no_other(name):
    params, rule, mistake, where, looks_like = MISTAKES[name]
    found = wrong(params, replaced(rule, mistake))
    assert found.keys() == where
    if looks_like is not None:
        assert all(looks_like in note for note in found.values())


def test_there_is_a_mistake_in_every_rule_that_a_graph_may_replace():
    assert {rule for _, rule, *_ in MISTAKES.values()} == set(TANGENTS._fields) - {
        "psi", "input_gradient", "weight_gradient"
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"rules.psi: expected that of curvature.TANGENTS"):
        verify.curvature(PLAIN, loss=LOSS, rules=TANGENTS._replace(psi=lambda *args: args[0]))


@pytest.mark.slow
def test_an_activation_with_a_wrong_second_derivative_is_named():
    assert wrong(network(h=Halved()), TANGENTS).keys() == {"R{lambda[h]}"}


@pytest.mark.parametrize(
    "params", [PLAIN, FULL, FIXED, AT_OUTPUTS], ids=["plain", "full batch norm", "fixed batch norm", "at the outputs"]
)
def test_right_lines_are_never_called_wrong_and_every_line_is_there(params):
    report = verify.curvature(params, loss=LOSS)
    assert report.ok, report
    normed = 0 if params.norm is None else params.graph.normed.sum()
    kinds = [finding.kind for finding in report.findings]
    expected = {
        "psi": 4,
        "activation": 4,
        "output_delta": 2,
        "hidden_delta": 3,
        "input_gradient": 2,
        "bias_gradient": 1,
    }
    expected |= {"weight_gradient": 1, "normalise": normed, "norm_pullback": 3 * normed}
    assert {kind: kinds.count(kind) for kind in expected} == expected
    assert not any(finding.vacuous for finding in report.findings)


def test_data_and_masks_are_used_when_given():
    report = verify.curvature(PLAIN, **DATA, loss=LOSS)
    assert report.ok, report
    assert not report.notes
    with pytest.raises(TypeError, match="masks: expected a fnn.Mask"):
        verify.curvature(PLAIN, DATA["x"], DATA["y"], loss=LOSS, masks=(DATA["masks"],))


@pytest.mark.parametrize(
    ("batch_norm", "dtype"), [(None, "float32"), *(pytest.param(norm, "float64", marks=pytest.mark.slow) for norm in
                                                   (None, "full", "fixed"))]
)  # fmt: skip
def test_a_large_graph_is_judged_by_generations(batch_norm, dtype):
    kinds = [(fnn.Tanh(), fnn.Softsign())[k % 2] for k in range(70)]
    arrows = Graph.layered((55, 12, 3)).arrows
    params = Graph(arrows, kinds, range(55), range(67, 70)).init(jax.random.key(1), batch_norm=batch_norm)
    mistake = at(fnn.Softsign, lambda r, dz, s, z, a: 2 * r(dz, s, z, a), 1)
    options = {"loss": fnn.SoftmaxCrossEntropy(), "dtype": dtype}
    options |= {"x": np.float32(RANDOM.normal(size=(5, 55))), "y": np.arange(5) % 3}
    report = verify.curvature(params, **options, rules=replaced("activation", mistake))
    assert sum(finding.kind == "psi" for finding in report.findings) == 2
    assert {finding.name.split(" = ")[0] for finding in report.wrong} == {
        "R{o of generation 1}", "R{o of generation 2}"
    }  # fmt: skip
    assert all(isinstance(kinds[finding.index[-1]], fnn.Softsign) for finding in report.wrong)
