"""verify.custom_vjp: functions with a derivative of their own, against autodiff of the function underneath."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnn.verify import DerivationError, assert_custom_vjp, custom_vjp
from problems import some

random = np.random.default_rng(11)


def normal(*shape):
    return random.normal(size=shape)


def between(*shape):
    return random.uniform(0.2, 0.8, shape)


def with_vjp(f, bwd, **options):
    """f with the pull-back bwd(args, y_bar), under jax.custom_vjp."""
    g = jax.custom_vjp(f, **options)
    g.defvjp(lambda *args: (f(*args), args), bwd)
    return g


def with_jvp(f, jvp):
    """f with the push-forward jvp(args, tangents) of its value alone, under jax.custom_jvp."""
    g = jax.custom_jvp(f)
    g.defjvp(lambda args, tangents: (f(*args), jvp(args, tangents)))
    return g


def named(report):
    return {finding.name.split(", cotangent")[0] for finding in report.wrong}


def note(report):
    return " ".join(report.notes)


# ---- right and wrong functions that autodiff can differentiate underneath ----


def dense(p, x):
    return {"psi": x @ p["W"] + p["b"], "a": jnp.tanh(x @ p["W"] + p["b"])}


def dense_bwd(args, y_bar, sign=1, W=1, slope=2):
    p, x = args
    delta = y_bar["psi"] + y_bar["a"] * (1 - jnp.tanh(x @ p["W"] + p["b"]) ** slope)
    return {"W": W * x.T @ delta, "b": delta.sum(0)}, sign * delta @ p["W"].T


def pair(x, y):
    return x * y, jnp.sin(x)


DENSE = ({"W": normal(4, 3), "b": normal(3)}, normal(5, 4))
XY = (normal(6), normal(6))
W, B = "args[0]['W']", "args[0]['b']"
FUNCTIONS = [  # the function, its arguments, what is wrong
    (with_vjp(dense, dense_bwd), DENSE, set()),
    (with_vjp(dense, functools.partial(dense_bwd, sign=-1)), DENSE, {"args[1]"}),
    (with_vjp(dense, functools.partial(dense_bwd, W=2)), DENSE, {W}),
    (with_vjp(dense, functools.partial(dense_bwd, slope=1)), DENSE, {W, B, "args[1]"}),
    (with_vjp(pair, lambda a, g: (g[0] * a[1] + g[1] * jnp.cos(a[0]), g[0] * a[0])), XY, set()),
    (with_vjp(pair, lambda a, g: (g[0] * a[1] + g[1] * jnp.cos(a[0]), g[0] * a[1])), XY, {"args[1]"}),
    (with_vjp(pair, lambda a, g: (g[0] * a[1], g[0] * a[0])), XY, {"args[0]"}),
    (with_vjp(pair, lambda a, g: (g[0] * a[1] - g[1] * jnp.cos(a[0]), None)), XY, {"args[0]", "args[1]"}),
    (with_jvp(pair, lambda a, t: (t[0] * a[1] + a[0] * t[1], jnp.cos(a[0]) * t[0])), XY, set()),
    (with_jvp(pair, lambda a, t: (t[0] * a[1] - a[0] * t[1], jnp.cos(a[0]) * t[0])), XY, {"args[1]"}),
    (with_jvp(pair, lambda a, t: (t[0] * a[1] + a[0] * t[1], jnp.sin(a[0]) * t[0])), XY, {"args[0]"}),
    (with_vjp(lambda x: x.T @ x, lambda a, g: (a[0] @ (g + g.T),)), (normal(3, 3),), set()),
    (with_vjp(lambda x: x.T @ x, lambda a, g: (2 * a[0] @ g,)), (normal(3, 3),), {"args[0]"}),
    (with_vjp(lambda x: jnp.cumsum(x), lambda a, g: (jnp.cumsum(g[::-1])[::-1],)), (normal(9),), set()),
    (with_vjp(lambda x: jnp.cumsum(x), lambda a, g: (jnp.cumsum(g),)), (normal(9),), {"args[0]"}),
    (with_vjp(lambda n, x: x[n], lambda a, g: (None, jnp.zeros(4, g.dtype).at[a[0]].add(g))), (2, normal(4)), set()),
    (with_vjp(lambda n, x: x[n], lambda a, g: (None, jnp.full(4, g))), (2, normal(4)), {"args[1]"}),
]


def layered(f):
    return functools.wraps(f)(lambda *args: f(*args))


@pytest.mark.parametrize("under", [lambda f: f, jax.jit, layered, lambda f: layered(jax.jit(layered(f)))])
@pytest.mark.parametrize(("f", "args", "wrong"), FUNCTIONS)
def test_exactly_the_wrong_cotangents_are_named_under_any_decorators(f, args, wrong, under):
    report = custom_vjp(under(f), *args)
    assert named(report) == wrong
    assert report.dtype == "float64"
    assert not report.notes
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize(("f", "args", "wrong"), FUNCTIONS)
def test_float32_sees_the_same_mistakes(f, args, wrong):
    assert named(custom_vjp(f, *args, dtype="float32")) == wrong


@pytest.mark.parametrize(("factor", "says"), [(-1, "the sign"), (2, "a factor 2 too large"), (0, "it is zero")])
def test_the_note_says_what_the_mistake_looks_like(factor, says):
    report = custom_vjp(with_vjp(jnp.sin, lambda a, g: (factor * jnp.cos(a[0]) * g,)), normal(5))
    assert [finding.note for finding in report.wrong] == [says, says]


def test_the_assertion_shows_the_report():
    assert_custom_vjp(FUNCTIONS[0][0], *DENSE)
    with pytest.raises(DerivationError, match=r"(?s)args\[1\], cotangent 1 .*looks like: the sign"):
        assert_custom_vjp(FUNCTIONS[1][0], *DENSE)
    assert str(custom_vjp(FUNCTIONS[1][0], *DENSE)) == str(custom_vjp(FUNCTIONS[1][0], *DENSE))


@pytest.mark.parametrize("c", [2, 2.5, jnp.tanh, "name", None])
@pytest.mark.parametrize("right", [True, False])
def test_nondiff_argnums_may_be_anything_and_are_left_as_they_are(c, right):
    factor = c if isinstance(c, (int, float)) else 3
    f = jax.custom_vjp(lambda c, x: factor * x, nondiff_argnums=(0,))
    f.defvjp(lambda c, x: (factor * x, None), lambda c, _, g: ((factor if right else -factor) * g,))
    report = custom_vjp(f, c, normal(3))
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
    fraction = with_vjp(lambda x: x / x.sum(), lambda a, g: ((g - (g * a[0]).sum() / a[0].sum()) / a[0].sum(),))
    assert custom_vjp(fraction, between(4)).ok
    assert custom_vjp(jax.vmap(fraction), between(3, 4)).ok


def test_a_forward_rule_with_another_value_is_wrong():
    f = jax.custom_vjp(lambda x: x**2)
    f.defvjp(lambda x: (x**3, x), lambda x, g: (2 * x * g,))
    with pytest.raises((DerivationError, ValueError)):
        custom_vjp(f, normal(4)).check()


# ---- functions that autodiff cannot differentiate ----


def in_numpy(function):
    """A function of arrays that is evaluated by NumPy."""
    return lambda *xs: jax.pure_callback(function, jax.ShapeDtypeStruct(xs[0].shape, xs[0].dtype), *xs)


def looped(x):
    """x^8 entry by entry, by a loop of unknown length."""
    return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] ** 2), (0, x))[1]


def entry(change, index):
    """The pull-back of tanh, with a change of one entry."""
    return lambda a, g: (change(g * (1 - jnp.tanh(a[0]) ** 2), index),)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("f", "slope"),
    [(in_numpy(np.tanh), lambda x: 1 - jnp.tanh(x) ** 2), (looped, lambda x: 8 * x**7)],
    ids=["callback", "loop"],
)
def test_central_differences_judge_what_autodiff_cannot(f, slope, dtype):
    x = between(3, 4)

    def judged(factor):
        return custom_vjp(jax.jit(with_vjp(f, lambda a, g: (factor * slope(a[0]) * g,))), x, dtype=dtype)

    report = judged(1)
    assert report.ok
    assert "central differences of step" in note(report)
    assert "each of the 12 entries" in note(report)
    assert all(named(judged(factor)) == {"args[0]"} for factor in (1.1, -1, 0))


@pytest.mark.parametrize("index", [(0, 0), (3, 7), (9, 19)])
@pytest.mark.parametrize("change", [lambda v, i: v.at[i].multiply(1.001), lambda v, i: v.at[i].set(0)])
def test_one_wrong_entry_among_two_hundred_is_located_by_differences(index, change):
    f = jax.jit(with_vjp(in_numpy(np.tanh), entry(change, index)))
    report = custom_vjp(f, np.tanh(normal(10, 20)))
    assert {finding.index for finding in report.wrong} == {index}
    assert len(report.wrong) == 2
    assert "each of the 200 entries" in note(report)


def test_differences_go_through_pytrees_and_beside_integer_outputs():
    def f(p, x):
        return {"wx": in_numpy(lambda x, w: w * x)(x, p["w"]), "at": jnp.argmax(x)}, x.sum()

    def bwd(args, y_bar, sign):
        (p, x), (y, total) = args, y_bar
        return {"w": sign * (y["wx"] * x).sum()}, p["w"] * y["wx"] + total

    for sign, wrong in ((1, set()), (-1, {"args[0]['w']"})):
        g = jax.jit(with_vjp(f, functools.partial(bwd, sign=sign)))
        assert named(custom_vjp(g, {"w": 2.0}, normal(4))) == wrong


def test_too_many_entries_for_differences_are_refused_with_advice():
    f = with_vjp(in_numpy(np.sin), lambda a, g: (jnp.cos(a[0]) * g,))
    with pytest.raises(ValueError, match="args: 10,200 entries are too many .*give oracle="):
        custom_vjp(f, normal(200, 51))
    assert custom_vjp(f, normal(200, 51), oracle=jnp.sin).ok


def test_an_oracle_replaces_differences_and_sees_what_they_cannot():
    f = jax.jit(with_vjp(in_numpy(np.tanh), entry(lambda v, i: v.at[i].multiply(1 + 1e-8), (0, 1))))
    assert custom_vjp(f, between(2, 3)).ok
    report = custom_vjp(f, between(2, 3), oracle=jnp.tanh)
    assert {finding.index for finding in report.wrong} == {(0, 1)}
    assert not report.notes


def test_an_oracle_makes_the_decorator_unnecessary():
    assert custom_vjp(functools.partial(jnp.power, 2.0), normal(3), oracle=lambda x: jnp.exp2(x)).ok


def test_an_oracle_that_autodiff_cannot_differentiate_is_refused():
    with pytest.raises(TypeError, match="oracle: autodiff cannot differentiate it"):
        custom_vjp(FUNCTIONS[4][0], *XY, oracle=in_numpy(np.multiply))


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
    assert "judged in float32, for in float64 the code raises TypeError: this kernel takes float32" in note(report)


# ---- what installed libraries ship ----

special = jax.scipy.special
SHIPPED = [
    (jax.nn.relu, (normal(9),)),
    (jax.nn.relu6, (4 * normal(9),)),
    (jax.nn.log1mexp, (between(9),)),
    (special.logit, (between(9),)),
    (special.xlogy, (between(5), between(5))),
    (special.xlog1py, (between(5), between(5))),
    (special.poch, (1 + between(3), 1 + between(3))),
    (special.log_ndtr, (normal(3), 3)),
    (special.fresnel, (between(3),)),
    (special.sici, (between(3),)),
    (special.zeta, (1.5 + between(2), 1 + between(2))),  # judged by differences
    (optax.losses._classification.weighted_logsoftmax, (normal(4, 3), between(4, 3))),
]


@pytest.mark.parametrize("shipped", some(SHIPPED, every=4), ids=lambda shipped: shipped[0].__name__)
def test_the_derivatives_that_libraries_ship_are_right(shipped):
    f, args = shipped
    assert custom_vjp(f, *args).ok


def test_relu_of_jax_is_right_at_zero():
    """There, autodiff of the maximum underneath says 1/2; jax.nn.relu says 0, which is as good."""
    assert custom_vjp(jax.nn.relu, np.array([-1.0, 0, 0, 2])).ok


def test_a_derivative_that_is_finite_where_autodiff_is_not_is_right():
    """The example of JAX's own documentation of jax.custom_jvp."""
    f = with_jvp(lambda x: jnp.log1p(jnp.exp(x)), lambda x, t: (1 - 1 / (1 + jnp.exp(x[0]))) * t[0])
    assert custom_vjp(f, np.array([-1.0, 0, 100])).ok
    assert custom_vjp(f, np.array([-1.0, 0, 1000])).ok


@pytest.mark.parametrize(
    ("function", "slope", "x"),
    [
        (np.log, lambda x: 1 / x, np.array([1.0, 2, 1e-3])),
        (lambda x: np.sin(1000 * x), lambda x: 1000 * jnp.cos(1000 * x), between(5)),
        (lambda x: x**2 + 1e5, lambda x: 2 * x, between(5)),
    ],
    ids=["steep", "wavy", "offset"],
)
def test_differences_do_not_accuse_functions_that_are_hard_for_them(function, slope, x):
    f = with_vjp(in_numpy(lambda x: function(x).astype(x.dtype)), lambda a, g: (slope(a[0]) * g,))
    assert custom_vjp(f, x).ok


def test_constant_functions_are_vacuous_and_not_wrong():
    report = custom_vjp(with_vjp(lambda x: 0 * x, lambda a, g: (0 * g,)), normal(3))
    assert report.vacuous
    assert not report.wrong
    assert not report.ok


# ---- misuse ----


@pytest.mark.parametrize("f", [jnp.sin, jax.jit(jnp.sin), lambda x: x, functools.partial(FUNCTIONS[4][0], 2.0), 3])
def test_what_has_no_derivative_of_its_own_is_refused_with_advice(f):
    with pytest.raises(TypeError, match="f: expected a function with a custom derivative, got"):
        custom_vjp(f, normal(3))


@pytest.mark.parametrize("args", [(), (3,), (np.arange(3),), ({"n": 2}, None)])
def test_without_a_floating_argument_there_is_nothing_to_differentiate_by(args):
    with pytest.raises(TypeError, match="args: expected at least one floating array"):
        custom_vjp(with_vjp(lambda *args: 1.0, lambda a, g: (None,) * len(a)), *args)


@pytest.mark.parametrize("options", [{"dtype": "float16"}, {"tolerance": 0.0}, {"tolerance": -1.0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        custom_vjp(FUNCTIONS[0][0], *DENSE, **options)
