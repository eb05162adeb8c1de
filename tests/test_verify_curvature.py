"""The checker of the R-operator on mistakes made on purpose: all are found where they were made, and named."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn import verify
from fnn.batchnorm import BatchNorm
from fnn.curvature import TANGENTS
from problems import KINDS, LOSSES, name

LOSS, TANH, SIGMOID, IDENTITY = fnn.SquaredError(), fnn.Tanh(), fnn.Sigmoid(), fnn.Identity()


def network(*activations, gradient=None, sizes=(5,) * 6):
    """A random network, its hidden layers with batch norms if any; 5 wide, so that one program serves all layers."""
    random, layers = np.random.default_rng(0), []

    def drawn(*shape, mean=0.0):
        return jnp.asarray(np.float32(random.normal(size=shape) * 0.5 + mean), jnp.float32)

    for n_in, n_out, activation in zip(sizes, sizes[1:], activations):
        normed = gradient is not None and len(layers) < len(activations) - 1
        norm = BatchNorm(drawn(n_out, mean=1.0), drawn(n_out), gradient=gradient) if normed else None
        layers.append(fnn.Dense(drawn(n_out, n_in), drawn(n_out), activation, norm))
    return tuple(layers)


PLAIN = network(TANH, TANH, SIGMOID)
NORMED, FIXED = (network(TANH, TANH, IDENTITY, gradient=gradient) for gradient in ("full", "fixed"))
DATA = network(TANH)[0].W, network(SIGMOID, SIGMOID)[1].W


class Mutant(NamedTuple):
    rule: str
    what: str
    layers: tuple[int, ...]
    looks_like: str | None
    wrong: object
    params: tuple = PLAIN


def without_given(given):
    """A rule that forgets one of its tangents."""
    return lambda right, *args: right(*(jnp.zeros_like(arg) if i == given else arg for i, arg in enumerate(args)))


def statistics_fixed(right, norm, *args):
    return right(replace(norm, gradient="fixed"), *args)


# what each wrong line does with the right one and its arguments
MUTANTS = [
    Mutant("psi", "no R{a}", (2, 3), "the term R{a} W^T is missing",
           lambda r, a, da, W, V, c: r(a, None, W, V, c)),
    Mutant("psi", "no V", (1, 2, 3), "the term a V^T is missing", without_given(3)),
    Mutant("psi", "no c", (1, 2, 3), "the term c is missing", without_given(4)),
    Mutant("psi", "sign of V", (1, 2, 3), "a V^T has the wrong sign", lambda r, a, da, W, V, c: r(a, da, W, -V, c)),
    Mutant("activation", "no sigma'", (1, 2, 3), None, lambda r, dz, s, z, a: dz),
    Mutant("activation", "twice", (1, 2, 3), None, lambda r, dz, s, z, a: r(r(dz, s, z, a), s, z, a)),
    Mutant("output_delta", "no sigma''", (3,), "the term g sigma'' R{z} is missing", without_given(5)),
    Mutant("output_delta", "no Hessian", (3,), "the term R{g} sigma' is missing", without_given(6)),
    Mutant("output_delta", "mean", (3,), None, lambda r, *args: r(*args) / len(args[2])),
    Mutant("hidden_delta", "no sigma''", (1, 2), "the term g sigma'' R{z} is missing", without_given(5)),
    Mutant("hidden_delta", "no R{g}", (1, 2), "the term R{g} sigma' is missing", without_given(1)),
    Mutant("hidden_delta", "sigma'' twice", (1, 2), "the term g sigma'' R{z} stands twice",
           lambda r, g, dg, s, z, a, dz: r(g, dg, s, z, a, 2 * dz)),
    Mutant("hidden_delta", "R{a} for R{z}", (1, 2), None,
           lambda r, g, dg, s, z, a, dz: r(g, dg, s, z, a, s.pushforward(dz, z, a))),
    Mutant("weight_gradient", "no R{delta}", (1, 2, 3), None, without_given(1)),
    Mutant("weight_gradient", "no R{a}", (2, 3), "the term delta^T R{a} is missing",
           lambda r, d, dd, a, da, mask=None: r(d, dd, a, None, mask)),
    Mutant("weight_gradient", "transposed", (1, 2, 3), None, lambda r, *args: r(*args).T),
    Mutant("bias_gradient", "of delta's mean", (1, 2, 3), None, lambda r, dd: r(dd) / len(dd)),
    Mutant("bias_gradient", "first example", (1, 2, 3), None, lambda r, dd: dd[0]),
    Mutant("input_gradient", "no V", (1, 2, 3), "the term delta V is missing", without_given(3)),
    Mutant("input_gradient", "no R{delta}", (1, 2, 3), "the term R{delta} W is missing", without_given(1)),
    Mutant("input_gradient", "raises", (1, 2, 3), "it raises RuntimeError: no", lambda r, *args: fail()),
    Mutant("normalise", "no gamma's", (1, 2), "the term R{gamma} x_hat is missing",
           lambda r, n, v, *args: r(n, replace(v, gamma=0 * v.gamma), *args), NORMED),
    Mutant("normalise", "no beta's", (1, 2), "the term R{beta} is missing",
           lambda r, n, v, *args: r(n, replace(v, beta=0 * v.beta), *args), NORMED),
    Mutant("normalise", "statistics fixed", (1, 2), None, statistics_fixed, NORMED),
    Mutant("normalise", "statistics not fixed", (1, 2), None,
           lambda r, n, *args: r(replace(n, gradient="full"), *args), FIXED),
    Mutant("norm_pullback", "statistics fixed", (1, 2), None, statistics_fixed, NORMED),
    Mutant("norm_pullback", "no gamma's", (1, 2), None,
           lambda r, n, v, *args: r(n, replace(v, gamma=0 * v.gamma), *args), NORMED),
    Mutant("norm_pullback", "psi's change forgotten", (1, 2), None, without_given(3), NORMED),
    Mutant("norm_pullback", "no R{delta}", (1, 2), None, without_given(5), FIXED),
]  # fmt: skip


def fail():
    raise RuntimeError("no")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.rule}: {mutant.what}")
def test_every_mistake_is_found_where_it_was_made(mutant):
    right = getattr(TANGENTS, mutant.rule)
    rules = TANGENTS._replace(**{mutant.rule: lambda *args: mutant.wrong(right, *args)})
    report = verify.curvature(mutant.params, *DATA, loss=LOSS, rules=rules)
    assert {(finding.kind, finding.layer) for finding in report.wrong} == {(mutant.rule, n) for n in mutant.layers}
    if mutant.looks_like is not None:
        assert all(mutant.looks_like in finding.note for finding in report.wrong)


def test_there_are_mistakes_in_every_line():
    assert {mutant.rule for mutant in MUTANTS} == set(TANGENTS._fields)


NETWORKS = {
    "every kind of activation": lambda: network(*KINDS, IDENTITY),
    "a stack of two layers": lambda: fnn.stack(network(TANH, TANH, TANH, IDENTITY)),
    "full batch norm": lambda: NORMED,
    "fixed batch norm": lambda: FIXED,
}


@pytest.mark.parametrize("which", NETWORKS)
def test_right_lines_are_never_called_wrong(which):
    verify.curvature(NETWORKS[which](), *DATA, loss=LOSS).check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activations", "gradient", "dtype"),
    [(KINDS, None, "float32"), ((TANH,), "full", "float64"), ((TANH,), "fixed", "float32")],
)
def test_nor_are_they_on_the_probes(activations, gradient, dtype):
    sizes = (*(5, 8, 6, 9, 5)[: len(activations) + 1], 3)  # as wide as the probes
    verify.curvature(network(*activations, IDENTITY, gradient=gradient, sizes=sizes), loss=LOSS, dtype=dtype).check()


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_nor_those_of_any_loss(loss):
    probabilities = isinstance(loss, fnn.CrossEntropy)
    output = (fnn.Softmax() if loss.categorical else SIGMOID) if probabilities else IDENTITY
    verify.curvature(network(output, sizes=(5, 3)), loss=loss).check()


def test_an_activation_with_a_wrong_second_derivative_is_named():
    @dataclass(frozen=True)
    class Wrong(fnn.Tanh):
        def second_derivative(self, z, a):
            return -2 * a

    params = (*(replace(layer, activation=Wrong()) for layer in PLAIN[:2]), PLAIN[2])
    report = verify.curvature(params, *DATA, loss=LOSS)
    assert {(finding.kind, finding.layer) for finding in report.wrong} == {("hidden_delta", 1), ("hidden_delta", 2)}


@dataclass(frozen=True)
class WrongSomewhere(fnn.Tanh):
    """A second derivative that is wrong where ``where`` says."""

    where: object = None

    def second_derivative(self, z, a):
        return jnp.where(self.where(z), 1.0, super().second_derivative(z, a))


WRONG_WHERE = {
    "z = 2": lambda z: z == 2,
    "z = 0": lambda z: z == 0,
    "z > 20": lambda z: z > 20,
    "z < -20": lambda z: z < -20,
}


@pytest.mark.parametrize(
    "where", [pytest.param(where, marks=[] if where == "z = 2" else pytest.mark.slow) for where in WRONG_WHERE]
)
def test_a_second_derivative_that_is_wrong_at_few_points_is_found_on_layers_and_graphs(where):
    params = fnn.init(jax.random.key(0), (3, 4, 2), activation=WrongSomewhere(where=WRONG_WHERE[where]))
    report = verify.curvature(params, loss=LOSS)
    assert [(finding.kind, finding.layer) for finding in report.wrong] == [("hidden_delta", 1)]
    on_a_graph = verify.curvature(fnn.graph.Graph.from_layers(params), loss=LOSS)
    assert {finding.kind for finding in on_a_graph.wrong} == {"hidden_delta"}


def test_a_second_derivative_that_breaks_in_float32_is_found_though_it_is_right_in_float64():
    @dataclass(frozen=True)
    class Naive(fnn.Softplus):
        def second_derivative(self, z, a):
            e = jnp.exp(jnp.minimum(z, 300))
            return e / (1 + e) ** 2

    (wrong,) = verify.curvature(fnn.init(jax.random.key(0), (3, 4, 2), activation=Naive()), loss=LOSS).wrong
    assert wrong.kind == "hidden_delta"
    assert wrong.note.startswith("in float32 it is nan at")


def test_at_a_kink_the_changes_of_both_sides_are_right_and_no_other():
    @dataclass(frozen=True)
    class AtZero(fnn.ReLU):
        slope: float = 0.0

        def derivative(self, z, a):
            return jnp.where(z == 0, self.slope, jnp.where(z > 0, 1.0, 0.0))

        def pullback(self, g, z, a):
            return g * self.derivative(z, a)

    def wrong(slope):
        params = fnn.init(jax.random.key(0), (3, 4, 2), activation=AtZero(slope))
        return {finding.kind for finding in verify.curvature(params, loss=LOSS).wrong}

    assert wrong(0.0) == wrong(0.5) == wrong(1.0) == set()
    assert wrong(5.0) == {"activation", "hidden_delta"}


def test_a_line_that_is_not_deterministic_is_named_so():
    random = np.random.default_rng(0)
    rules = TANGENTS._replace(bias_gradient=lambda dd: TANGENTS.bias_gradient(dd) * (1 + 1e-14 * random.normal()))
    report = verify.curvature(PLAIN, *DATA, loss=LOSS, rules=rules)
    assert {finding.kind for finding in report.wrong} == {"bias_gradient"}
    assert all("not deterministic" in finding.note for finding in report.wrong)


def test_rules_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="rules: expected curvature.TangentRules"):
        verify.curvature(PLAIN, loss=LOSS, rules=fnn.RULES)
