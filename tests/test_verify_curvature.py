"""The checker of the R-operator on mistakes made on purpose: all are found where they were made, and named."""

from dataclasses import dataclass, replace
from itertools import cycle
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn import verify
from fnn.curvature import TANGENTS
from problems import LOSSES, name, some

LOSS = fnn.SquaredError()


def network(*sizes, activation=fnn.Tanh(), **options):
    params = fnn.init(jax.random.key(4), sizes or (4, 5, 5, 3), activation=activation, **options)
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(0.3 * random.normal(size=leaf.shape), leaf.dtype), params)


PLAIN, NORMED, FIXED = network(output=fnn.Sigmoid()), network(batch_norm="full"), network(batch_norm="fixed")
RANDOM = np.random.default_rng(1)
DATA = jnp.asarray(RANDOM.normal(size=(6, 4)), "float32"), jnp.asarray(RANDOM.uniform(size=(6, 3)), "float32")


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


@pytest.mark.parametrize("mutant", some(MUTANTS, every=5), ids=lambda mutant: f"{mutant.rule}: {mutant.what}")
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
    "plain": PLAIN,
    "relu": network(4, 5, 3, activation=fnn.ReLU()),
    "softmax": network(4, 5, 3, activation=fnn.Softmax(), output=fnn.Softmax()),
    "stack": network(stack=True),
    "full batch norm": NORMED,
    "fixed batch norm": FIXED,
}


@pytest.mark.parametrize("which", some([name for name, params in NETWORKS.items() if len(params) == 3], every=3))
def test_right_lines_are_never_called_wrong(which):
    verify.assert_curvature(NETWORKS[which], *DATA, loss=LOSS)


@pytest.mark.slow
@pytest.mark.parametrize(("which", "dtype"), list(zip(NETWORKS, cycle(("float64", "float32")))))
def test_nor_are_they_on_the_probes(which, dtype):
    verify.assert_curvature(NETWORKS[which], loss=LOSS, dtype=dtype)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES[::2], ids=name)
def test_nor_those_of_any_loss(loss):
    output = {"CrossEntropy": fnn.Sigmoid()}.get(type(loss).__name__, fnn.Identity())
    verify.assert_curvature(network(4, 5, 3, output=output), loss=loss)


def test_an_activation_with_a_wrong_second_derivative_is_named():
    @dataclass(frozen=True)
    class Wrong(fnn.Tanh):
        def second_derivative(self, z, a):
            return -2 * a

    params = (*(replace(layer, activation=Wrong()) for layer in PLAIN[:2]), PLAIN[2])
    report = verify.curvature(params, *DATA, loss=LOSS)
    assert {(finding.kind, finding.layer) for finding in report.wrong} == {("hidden_delta", 1), ("hidden_delta", 2)}


def test_rules_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="rules: expected curvature.TangentRules"):
        verify.curvature(PLAIN, loss=LOSS, rules=fnn.RULES)
