"""verify.custom_vjp where autodiff has no answer: judged by central differences, or by an oracle."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from custom_cases import between, named, normal, note, with_vjp
from fnn.verify import custom_vjp, function, gradient
from problems import and_slow


def in_numpy(function):
    """A function of arrays that is evaluated by NumPy."""
    return lambda *xs: jax.pure_callback(function, jax.ShapeDtypeStruct(xs[0].shape, xs[0].dtype), *xs)


def looped(x):
    """x^8 entry by entry, by a loop of unknown length."""
    return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] ** 2), (0, x))[1]


def entry(change, index):
    """The pull-back of tanh, with a change of one entry."""
    return lambda a, g: (change(g * (1 - jnp.tanh(a[0]) ** 2), index),)


OPAQUE = {
    "callback": (in_numpy(np.tanh), lambda x: 1 - jnp.tanh(x) ** 2),
    "loop": (jax.jit(looped), lambda x: 8 * x**7),
}


@pytest.mark.parametrize(
    "case",
    and_slow([("callback", "float64"), ("loop", "float32")], itertools.product(OPAQUE, ("float64", "float32"))),
    ids="-".join,
)
def test_central_differences_judge_what_autodiff_cannot(case):
    name, dtype = case
    x, (f, slope) = between(2, 3), OPAQUE[name]

    def judged(factor):
        return custom_vjp(with_vjp(f, lambda a, g: (factor * slope(a[0]) * g,)), x, dtype=dtype)

    report = judged(1)
    assert report.ok
    how = "differences" if name == "callback" else "the complex step"  # it goes through a loop
    assert f"compared with {how} along each of 6 entries" in note(report)
    assert all(named(judged(factor)) == {"args[0]"} for factor in (1.1, -1, 0))


NEAR_ZERO = {  # functions that vary with the size of their argument, and one that does not
    "log": (lambda x: np.log(x * x), lambda x: 2 / x),
    "reciprocal": (lambda x: 1 / x, lambda x: -1 / x**2),
    "root": (lambda x: np.sqrt(np.abs(x)), lambda x: jnp.sign(x) / (2 * jnp.sqrt(jnp.abs(x)))),
    "square": (lambda x: x * x, lambda x: 2 * x),
    "tanh beside 1": (lambda x: np.tanh(1 + x), lambda x: 1 - jnp.tanh(1 + x) ** 2),
}


@pytest.mark.parametrize(
    "case",
    and_slow([("log", 1e-8), ("tanh beside 1", 1e-20)], itertools.product(NEAR_ZERO, (1e-3, 1e-8, 1e-20, 1e-80))),
    ids=str,
)
def test_small_arguments_are_moved_by_small_steps(case):
    name, size = case
    (f, slope), x = NEAR_ZERO[name], size * np.array([1.0, 2.0, -3.0])
    for factor in (1, 1.5):
        opaque = with_vjp(in_numpy(f), lambda a, g: (factor * slope(a[0]) * g,))  # noqa: B023
        assert custom_vjp(opaque, x).ok == (factor == 1)
        assert function(opaque, x).ok == (factor == 1)
        if name != "tanh beside 1":
            by_values = gradient(lambda w: factor * np.asarray(slope(w)), lambda w: float(f(w).sum()), x)  # noqa: B023
            assert by_values.ok == (factor == 1)


CHANGES = {"a thousandth": lambda v, i: v.at[i].multiply(1.001), "zero": lambda v, i: v.at[i].set(0)}


# the first entry, one in the middle and the last
@pytest.mark.parametrize(
    "case", and_slow([("a thousandth", (3, 7))], [("a thousandth", (0, 0)), ("zero", (9, 19))]), ids=str
)
def test_one_wrong_entry_among_two_hundred_is_located_by_differences(case):
    change, index = case
    f = jax.jit(with_vjp(in_numpy(np.tanh), entry(CHANGES[change], index)))
    report = custom_vjp(f, np.tanh(normal(10, 20)))
    assert {finding.index for finding in report.wrong} == {index}
    assert len(report.wrong) == 1
    assert "each of 200 entries" in note(report)


def test_differences_go_through_pytrees_and_beside_integer_outputs():
    def f(p, x):
        return {"wx": in_numpy(lambda x, w: w * x)(x, p["w"]), "at": jnp.argmax(x)}, x.sum()

    def bwd(args, y_bar, sign):
        (p, x), (y, total) = args, y_bar
        return {"w": sign * (y["wx"] * x).sum()}, p["w"] * y["wx"] + total

    for sign, wrong in ((1, set()), (-1, {"args[0]['w']"})):
        g = jax.jit(with_vjp(f, functools.partial(bwd, sign=sign)))
        assert named(custom_vjp(g, {"w": 2.0}, normal(4))) == wrong


def test_among_many_entries_directions_find_a_wrong_one():
    def made(factor):
        def pullback(a, g):
            return ((jnp.cos(a[0]) * g).at[123, 45].multiply(factor),)

        return with_vjp(in_numpy(np.sin), pullback)

    assert custom_vjp(made(1), normal(200, 51)).ok
    report = custom_vjp(made(2), normal(200, 51))
    assert {finding.index for finding in report.wrong} == {(123, 45)}


KINKED = {"root of a square": lambda x: jnp.sqrt(x * x), "the same by NumPy": in_numpy(np.abs)}


@pytest.mark.parametrize("name", KINKED)
def test_a_kink_where_autodiff_has_no_answer_takes_any_value_between_its_sides(name):
    f, x = KINKED[name], np.array([0.0, 1.0, -2.0])
    for at_zero, right in ((0, True), (1, True), (-1, True), (0.3, True), (5, False)):
        slope = np.array([at_zero, 1.0, -1.0])
        assert custom_vjp(with_vjp(f, lambda a, g: (slope * g,)), x).ok == right  # noqa: B023
        assert gradient(lambda w: slope, lambda w: f(w).sum(), x).ok == right  # noqa: B023


def test_an_oracle_replaces_differences_and_sees_what_they_cannot():
    f = jax.jit(with_vjp(in_numpy(np.tanh), entry(lambda v, i: v.at[i].multiply(1 + 1e-8), (0, 1))))
    assert custom_vjp(f, between(2, 3)).ok
    report = custom_vjp(f, between(2, 3), oracle=jnp.tanh)
    assert {finding.index for finding in report.wrong} == {(0, 1)}
    assert not report.notes


def test_an_oracle_makes_the_decorator_unnecessary():
    assert custom_vjp(functools.partial(jnp.power, 2.0), normal(4), oracle=lambda x: jnp.exp2(x)).ok


def test_an_oracle_that_autodiff_cannot_differentiate_or_of_another_value_is_refused():
    product, xy = with_vjp(jnp.multiply, lambda a, g: (g * a[1], g * a[0])), (normal(4), normal(4))
    with pytest.raises(TypeError, match="oracle: autodiff cannot differentiate it"):
        custom_vjp(product, *xy, oracle=in_numpy(np.multiply))
    with pytest.raises(ValueError, match="oracle: its value differs from that of f"):
        custom_vjp(product, *xy, oracle=jnp.add)


@pytest.mark.parametrize("oracle", [None, lambda x: x**2])
@pytest.mark.parametrize("inside", [lambda x: x**2, in_numpy(np.square)])
@pytest.mark.parametrize("right", [True, False])
def test_a_function_that_runs_only_in_float32_is_judged_there(oracle, inside, right):
    def kernel(x):
        if x.dtype != jnp.float32:
            raise TypeError("this kernel takes float32")
        return inside(x)

    f = with_vjp(kernel, lambda a, g: ((2 if right else 1) * a[0] * g,))
    report = custom_vjp(f, normal(4), oracle=oracle)
    assert report.ok == right
    assert report.dtype == "float32"
    assert "judged in float32, because in float64 the code raises TypeError: this kernel takes float32" in note(report)


@pytest.mark.parametrize(
    ("function", "slope", "x"),
    [
        (np.log, lambda x: 1 / x, np.array([1.0, 2, 1e-3])),
        (lambda x: np.sin(1000 * x), lambda x: 1000 * jnp.cos(1000 * x), between(4)),
        (lambda x: x**2 + 1e5, lambda x: 2 * x, between(4)),
    ],
    ids=["steep", "wavy", "offset"],
)
def test_differences_do_not_accuse_functions_that_are_hard_for_them(function, slope, x):
    f = with_vjp(in_numpy(lambda x: function(x).astype(x.dtype)), lambda a, g: (slope(a[0]) * g,))
    assert custom_vjp(f, x).ok
