"""verify.custom_vjp: functions with a derivative of their own, against autodiff of the function underneath."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from custom_cases import between, named, normal, with_jvp, with_vjp
from fnn.verify import DerivationError, custom_vjp
from problems import and_slow


def dense(p, x):
    return {"psi": x @ p["W"] + p["b"], "a": jnp.tanh(x @ p["W"] + p["b"])}


def dense_bwd(args, y_bar, sign=1, W=1, slope=2):
    p, x = args
    delta = y_bar["psi"] + y_bar["a"] * (1 - jnp.tanh(x @ p["W"] + p["b"]) ** slope)
    return {"W": W * x.T @ delta, "b": delta.sum(0)}, sign * delta @ p["W"].T


def pair(x, y):
    return x * y, jnp.sin(x)


DENSE = ({"W": normal(4, 3), "b": normal(3)}, normal(5, 4))
XY = (normal(4), normal(4))
W, B = "args[0]['W']", "args[0]['b']"
FUNCTIONS = {  # the function, its arguments, what is wrong
    "dense": (with_vjp(dense, dense_bwd), DENSE, set()),
    "dense, sign": (with_vjp(dense, functools.partial(dense_bwd, sign=-1)), DENSE, {"args[1]"}),
    "dense, weights": (with_vjp(dense, functools.partial(dense_bwd, W=2)), DENSE, {W}),
    "dense, slope": (with_vjp(dense, functools.partial(dense_bwd, slope=1)), DENSE, {W, B, "args[1]"}),
    "pair": (with_vjp(pair, lambda a, g: (g[0] * a[1] + g[1] * jnp.cos(a[0]), g[0] * a[0])), XY, set()),
    "pair, y": (with_vjp(pair, lambda a, g: (g[0] * a[1] + g[1] * jnp.cos(a[0]), g[0] * a[1])), XY, {"args[1]"}),
    "pair, x": (with_vjp(pair, lambda a, g: (g[0] * a[1], g[0] * a[0])), XY, {"args[0]"}),
    "pair, both": (
        with_vjp(pair, lambda a, g: (g[0] * a[1] - g[1] * jnp.cos(a[0]), None)),
        XY,
        {"args[0]", "args[1]"},
    ),
    "jvp": (with_jvp(pair, lambda a, t: (t[0] * a[1] + a[0] * t[1], jnp.cos(a[0]) * t[0])), XY, set()),
    "jvp, y": (with_jvp(pair, lambda a, t: (t[0] * a[1] - a[0] * t[1], jnp.cos(a[0]) * t[0])), XY, {"args[1]"}),
    "jvp, x": (with_jvp(pair, lambda a, t: (t[0] * a[1] + a[0] * t[1], jnp.sin(a[0]) * t[0])), XY, {"args[0]"}),
    "matrix": (with_vjp(lambda x: x.T @ x, lambda a, g: (a[0] @ (g + g.T),)), (normal(3, 3),), set()),
    "matrix, symmetry": (with_vjp(lambda x: x.T @ x, lambda a, g: (2 * a[0] @ g,)), (normal(3, 3),), {"args[0]"}),
    "sums": (with_vjp(lambda x: jnp.cumsum(x), lambda a, g: (jnp.cumsum(g[::-1])[::-1],)), XY[:1], set()),
    "sums, order": (with_vjp(lambda x: jnp.cumsum(x), lambda a, g: (jnp.cumsum(g),)), XY[:1], {"args[0]"}),
    "integer": (
        with_vjp(lambda n, x: x[n], lambda a, g: (None, jnp.zeros(4, g.dtype).at[a[0]].add(g))),
        (2, XY[0]),
        set(),
    ),
    "integer, all": (with_vjp(lambda n, x: x[n], lambda a, g: (None, jnp.full(4, g))), (2, XY[0]), {"args[1]"}),
}
KINDS = ("dense, sign", "pair", "jvp, y")  # wrong, of pytrees and a matrix product; right; wrong in a push-forward


def layered(f):
    return functools.wraps(f)(lambda *args: f(*args))


def assert_judged(name, decorate=lambda f: f, **options):
    f, args, wrong = FUNCTIONS[name]
    report = custom_vjp(decorate(f), *args, **options)
    assert named(report) == wrong
    assert report.dtype == options.get("dtype", "float64")
    assert not report.notes
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize("name", FUNCTIONS)
def test_exactly_the_wrong_cotangents_are_named(name):
    assert_judged(name)


@pytest.mark.parametrize("decorate", [jax.jit, layered, lambda f: layered(jax.jit(layered(f))), functools.partial])
@pytest.mark.parametrize("name", KINDS)
def test_they_are_named_under_any_decorators(name, decorate):
    assert_judged(name, decorate)


@pytest.mark.parametrize("name", and_slow(KINDS, FUNCTIONS))
def test_float32_sees_the_same_mistakes(name):
    assert_judged(name, dtype="float32")


@pytest.mark.parametrize(("factor", "says"), [(-1, "the sign"), (2, "a factor 2 too large"), (0, "it is zero")])
def test_the_note_says_what_the_mistake_looks_like(factor, says):
    report = custom_vjp(with_vjp(jnp.sin, lambda a, g: (factor * jnp.cos(a[0]) * g,)), normal(4))
    assert [finding.note for finding in report.wrong] == [says]


def test_the_assertion_shows_the_report():
    custom_vjp(FUNCTIONS["dense"][0], *DENSE).check()
    with pytest.raises(DerivationError, match=r"(?s)args\[1\] .*looks like: the sign"):
        custom_vjp(FUNCTIONS["dense, sign"][0], *DENSE).check()
    assert str(custom_vjp(FUNCTIONS["dense, sign"][0], *DENSE)) == str(custom_vjp(FUNCTIONS["dense, sign"][0], *DENSE))


@pytest.mark.parametrize("c", [2, 2.5, jnp.tanh, "name", None])
@pytest.mark.parametrize("right", [True, False])
def test_nondiff_argnums_may_be_anything_and_are_left_as_they_are(c, right):
    factor = c if isinstance(c, (int, float)) else 3
    f = jax.custom_vjp(lambda c, x: factor * x, nondiff_argnums=(0,))
    f.defvjp(lambda c, x: (factor * x, None), lambda c, _, g: ((factor if right else -factor) * g,))
    report = custom_vjp(f, c, normal(4))
    assert named(report) == (set() if right else {"args[1]"})


def test_a_random_key_may_be_an_argument():
    def dropout(key, x):
        return x * jax.random.bernoulli(key, 0.5, x.shape).astype(x.dtype)

    with jax.debug_key_reuse(False):
        f = with_vjp(dropout, lambda a, g: (None, dropout(a[0], g)))
        assert custom_vjp(f, jax.random.key(3), normal(20)).ok


def test_what_a_decorator_adds_is_not_taken_for_a_mistake():
    square = with_vjp(lambda x: x**2, lambda a, g: (2 * a[0] * g,))
    assert custom_vjp(functools.wraps(square)(lambda x: 3 * square(x)), normal(4)).ok
    assert custom_vjp(functools.wraps(square)(lambda x: (square(x), x)), normal(4)).ok
    fraction = with_vjp(lambda x: x / x.sum(), lambda a, g: ((g - (g * a[0]).sum() / a[0].sum()) / a[0].sum(),))
    assert custom_vjp(fraction, between(4)).ok
    assert custom_vjp(jax.vmap(fraction), between(3, 4)).ok


def test_a_forward_rule_with_another_value_is_wrong():
    f = jax.custom_vjp(lambda x: x**2)
    f.defvjp(lambda x: (x**3, x), lambda x, g: (2 * x * g,))
    with pytest.raises((DerivationError, ValueError)):
        custom_vjp(f, normal(4)).check()


# ---- what installed libraries ship ----

special = jax.scipy.special
SHIPPED = {
    jax.nn.relu: (normal(4),),
    jax.nn.relu6: (4 * normal(4),),
    jax.nn.log1mexp: (between(4),),
    special.logit: (between(4),),
    special.xlogy: (between(4), between(4)),
    special.xlog1py: (between(4), between(4)),
    special.poch: (1 + between(4), 1 + between(4)),
    special.log_ndtr: (normal(4), 3),
    special.fresnel: (between(4),),
    special.sici: (between(4),),
    special.zeta: (1.5 + between(2), 1 + between(2)),  # judged by differences
    optax.losses._classification.weighted_logsoftmax: (normal(4, 3), between(4, 3)),
}


# of one argument and of two
@pytest.mark.parametrize("shipped", and_slow([jax.nn.relu, special.xlogy], SHIPPED))
def test_the_derivatives_that_libraries_ship_are_right(shipped):
    assert custom_vjp(shipped, *SHIPPED[shipped]).ok


def test_relu_of_jax_is_right_at_zero():
    """There, autodiff of the maximum underneath says 1/2; jax.nn.relu says 0, which is as good."""
    assert custom_vjp(jax.nn.relu, np.array([-1.0, 0, 0, 2])).ok


def test_a_derivative_that_is_finite_where_autodiff_is_not_is_right():
    """The example of JAX's own documentation of jax.custom_jvp."""
    f = with_jvp(lambda x: jnp.log1p(jnp.exp(x)), lambda x, t: (1 - 1 / (1 + jnp.exp(x[0]))) * t[0])
    assert custom_vjp(f, np.array([-1.0, 0, 100])).ok
    assert custom_vjp(f, np.array([-1.0, 0, 1000])).ok


def test_constant_functions_are_vacuous_and_not_wrong():
    report = custom_vjp(with_vjp(lambda x: 0 * x, lambda a, g: (0 * g,)), normal(4))
    assert report.vacuous
    assert not report.wrong
    assert not report.ok


# ---- misuse ----


@pytest.mark.parametrize("f", [jnp.sin, jax.jit(jnp.sin), lambda x: x, functools.partial(jnp.multiply, 2.0), 3])
def test_what_has_no_derivative_of_its_own_is_refused_with_advice(f):
    with pytest.raises(TypeError, match="f: expected a function with a custom derivative, got"):
        custom_vjp(f, normal(4))


@pytest.mark.parametrize("args", [(), (3,), (np.arange(3),), ({"n": 2}, None)])
def test_without_a_floating_argument_there_is_nothing_to_differentiate_by(args):
    with pytest.raises(TypeError, match="args: expected at least one floating array"):
        custom_vjp(with_vjp(lambda *args: 1.0, lambda a, g: (None,) * len(a)), *args)


@pytest.mark.parametrize("options", [{"dtype": "float16"}, {"tolerance": 0.0}, {"tolerance": -1.0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        custom_vjp(FUNCTIONS["dense"][0], *DENSE, **options)
