"""verify.function: what JAX makes of any function, against the function's own values."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_derivatives import linear_call

from custom_cases import between, named, normal, note, with_jvp, with_vjp
from fnn.verify import function
from problems import and_slow


def in_numpy(f):
    """A function of arrays that is evaluated by NumPy."""
    return lambda *xs: jax.pure_callback(f, jax.ShapeDtypeStruct(xs[0].shape, xs[0].dtype), *xs)


def layer_norm(x):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)


def looped(x):
    return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * x), (0, x))[1]


RIGHT = {  # the function and its arguments
    "tanh": (jnp.tanh, (normal(4),)),
    "matrices": (lambda w, x: jnp.tanh(w @ x), (normal(4, 3), normal(3))),
    "pytree": (lambda p: {"a": p["w"] ** 2, "b": [p["w"].sum() * p["c"]]}, ({"w": normal(3), "c": 2.0},)),
    "layer norm": (layer_norm, (normal(4, 8),)),
    "integers, None and booleans": (
        lambda p, n, mask, key: jnp.where(mask, p["w"] ** n, 0),
        ({"w": normal(3), "b": None}, 3, np.array([True, False, True]), jax.random.key(0)),
    ),
    "scan": (lambda x: jax.lax.scan(lambda c, y: (jnp.tanh(c + y), c * y), x[0], x), (normal(4),)),
    "indices": (lambda x: x[jnp.array([0, 2, 2])].at[1].set(x[0]), (normal(4),)),
    "convolution": (lambda x, k: jax.lax.conv(x, k, (1, 1), "SAME"), (normal(1, 2, 4, 4), normal(3, 2, 3, 3))),
    "complex": (lambda z, a: ((a * jnp.abs(z) ** 2).sum(), (z**2).sum()), (np.array([1 + 2j, -0.5 + 1j]), normal(2))),
    "fourier": (jnp.fft.fft, (normal(4),)),
    "cholesky": (lambda x: jnp.linalg.cholesky(x @ x.T + jnp.eye(3)), (normal(3, 3),)),
    "a random key": (lambda x, key: x * jax.random.normal(key, x.shape, x.dtype), (normal(3), jax.random.key(0))),
    "masked by infinities": (jax.nn.logsumexp, (np.array([0.0, -np.inf, 1.0]),)),
    "infinite in thousands": (lambda x: jnp.sqrt(x).sum(), (np.maximum(normal(1200), 0),)),
    "not finite itself": (lambda x: 1 / x, (np.array([0.0, 1.0]),)),
    "terms that cancel": (
        lambda x: (x.astype(jnp.float32) - x.astype(jnp.float32).mean()).sum() + x[0] ** 2 / 2,
        (np.array([0.1, 2.0, -3.0]),),
    ),
    "digits lost in float32": (lambda x: layer_norm(100 + x.astype(jnp.float32)).astype(x.dtype), (normal(4, 12),)),
    "only forwards": (looped, (normal(3),)),
    "infinite": (jnp.sqrt, (np.array([0.0, 1.0]),)),
    "a callback": (with_vjp(in_numpy(np.tanh), lambda a, g: ((1 - jnp.tanh(a[0]) ** 2) * g,)), (normal(3),)),
    "keyword": (functools.partial(jax.nn.softmax, axis=0), (normal(3, 2),)),
    "float32 inside": (lambda x: jax.nn.softmax(x.astype(jnp.float32)).astype(x.dtype), (normal(4, 8),)),
    "a product with two zeros": (jnp.prod, (np.array([0.0, 0.0, 3.0]),)),
    "bfloat16 inside": (
        lambda x, w: (x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(x.dtype),
        (normal(4, 8), normal(8, 3)),
    ),
    "bfloat16 arguments": (lambda x: jnp.tanh(x).sum(), (jnp.linspace(-1, 1, 5, dtype=jnp.bfloat16),)),
}
AT_A_KINK = {
    "relu, 1 at 0": (with_vjp(jax.nn.relu, lambda a, g: (jnp.where(a[0] >= 0, g, 0),)), (np.array([-1.0, 0, 2]),)),
    "abs": (lambda x: jnp.abs(x).sum(), (np.zeros(3),)),
    "tied maximum": (lambda x: x.max(), (np.ones(3),)),
    "tied sort": (jnp.sort, (np.array([1.0, 1, 0, 2]),)),
    "relu of a callback": (with_vjp(in_numpy(lambda x: np.maximum(x, 0)), lambda a, g: (jnp.where(a[0] > 0, g, 0),)),
                           (np.array([-1.0, 0, 2]),)),
}  # fmt: skip


KINDS = ("pytree", "integers, None and booleans", "complex", "only forwards", "a callback", "bfloat16 inside",
         "masked by infinities", "infinite in thousands", "a product with two zeros")  # fmt: skip


@pytest.mark.parametrize("name", and_slow(KINDS, RIGHT))
def test_a_right_derivative_passes(name):
    f, args = RIGHT[name]
    with jax.debug_key_reuse(False):
        report = function(f, *args)
    assert report.ok, report
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize(
    "name",
    and_slow(
        ["tanh", "integers, None and booleans"],
        sorted(set(RIGHT) - {"infinite", "a callback", "infinite in thousands"}),
    ),
)
def test_so_does_the_second(name):
    f, args = RIGHT[name]
    with jax.debug_key_reuse(False):
        report = function(f, *args, order=2)
    linear = ("fourier", "a random key")  # their second derivative is zero
    assert report.ok or name in (*linear, "not finite itself"), report
    assert not report.wrong


@pytest.mark.parametrize("name", AT_A_KINK)
def test_at_a_kink_every_value_between_the_sides_is_right(name):
    f, args = AT_A_KINK[name]
    assert function(f, *args).ok
    wrong = with_vjp(lambda x: f(x), lambda a, g: jax.tree.map(lambda leaf: 5 + 0 * leaf, a))
    assert not function(wrong, *args).ok


def square(x):
    return x**2


@pytest.mark.parametrize("factor", [2 * (1 + 1e-9), 1.0, -2.0, 0.0])
def test_a_wrong_vjp_or_jvp_is_found_and_named(factor):
    x = normal(4)
    report = function(with_vjp(square, lambda a, g: (factor * a[0] * g,)), x)
    assert named(report) == {"args[0], VJP"}
    report = function(with_jvp(square, lambda a, t: factor * a[0] * t[0]), x)
    assert named(report) == {"args[0], VJP", "output, JVP"}


def test_one_wrong_entry_of_one_cotangent_is_located():
    f = with_vjp(lambda p: (p["w"] @ p["x"]).sum(),
                 lambda a, g: ({"w": (g * jnp.ones((4, 1)) * a[0]["x"]).at[2, 1].multiply(1.001),
                                "x": g * a[0]["w"].sum(0)},))  # fmt: skip
    (wrong,) = function(f, {"w": normal(4, 3), "x": normal(3)}).wrong
    assert (wrong.name, wrong.index) == ("args[0]['w'], VJP", (2, 1))


@pytest.mark.parametrize("index", and_slow([(17, 3)], itertools.product((0, 41, 79), (0, 49))))
@pytest.mark.parametrize("opaque", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_wrong_entry_of_thousands_is_located_by_halving(index, opaque):
    f = in_numpy(np.tanh) if opaque else jnp.tanh
    bwd = lambda a, g: ((g * (1 - jnp.tanh(a[0]) ** 2)).at[index].multiply(1.01),)  # noqa: E731
    report = function(with_vjp(f, bwd), np.tanh(normal(80, 50)))
    assert [finding.index for finding in report.wrong if "vmap" not in finding.name] == [index]
    assert "10 directions of signs for each leaf, 4,000 entries in all" in note(report)
    assert function(with_vjp(f, lambda a, g: (g * (1 - jnp.tanh(a[0]) ** 2),)), normal(80, 50)).ok


def test_a_wrong_cotangent_of_thousands_in_all_entries_is_seen():
    report = function(with_vjp(lambda x: (x**2).sum(), lambda a, g: (2.02 * a[0] * g,)), normal(2000))
    assert named(report) == {"args[0], VJP"}


def test_what_jax_does_not_have_is_noted_and_no_mistake():
    report = function(with_vjp(square, lambda a, g: (2 * a[0] * g,)), normal(3))
    assert report.ok
    assert "no JVP, because JAX has none of this function" in note(report)
    report = function(looped, normal(3))
    assert report.ok
    assert "no VJP, because JAX has none of this function" in note(report)
    with pytest.raises(TypeError, match="f: JAX can differentiate it in neither direction"):
        function(in_numpy(np.tanh), normal(3))


def test_a_forward_rule_with_another_value_is_named():
    f = jax.custom_vjp(square)
    f.defvjp(lambda x: (x**3, x), lambda x, g: (2 * x * g,))
    assert named(function(f, normal(3))) == {"value under the VJP"}


def test_a_rule_that_raises_is_a_finding():
    (wrong,) = function(with_vjp(jnp.sin, lambda a, g: (g, g)), normal(3)).wrong
    assert wrong.name == "VJP"
    assert "it raises TypeError: Custom VJP bwd rule" in wrong.note


def test_a_second_derivative_that_is_wrong_is_found_where_asked():
    def bwd(args, g):
        return (3 * jax.lax.stop_gradient(args[0]) ** 2 * g,)

    f = with_vjp(lambda x: x**3, bwd)
    assert function(f, normal(3)).ok
    report = function(f, normal(3), order=2)
    assert {name for name in named(report) if "vmap" not in name} == {
        "order 2: args[0], VJP",
        "order 2: output[0], JVP",
    }


def test_a_second_derivative_that_jax_does_not_have_is_a_finding():
    (wrong,) = function(RIGHT["a callback"][0], normal(3), order=2).wrong
    assert (wrong.name, "in neither direction" in wrong.note) == ("order 2", True)


def test_a_derivative_of_another_value_under_vmap_is_found():
    @jax.custom_batching.custom_vmap
    def double(g):
        return 2 * g

    double.def_vmap(lambda size, batched, g: (2 * g[::-1], True))
    f = with_vjp(lambda x: 2 * x, lambda a, g: (double(g),))
    assert named(function(f, normal(3))) == {"args[0], VJP under vmap"}


def test_a_pull_back_that_is_not_the_transpose_of_the_push_forward_is_found():
    def f(x):
        return linear_call(lambda scale, x: scale * x, lambda scale, ct: 2 * scale * ct, 3.0 * jnp.ones_like(x), x)

    assert named(function(f, normal(3))) == {"args[0], VJP", "⟨ȳ, J t⟩ = ⟨Jᵀ ȳ, t⟩"}


def test_custom_derivatives_are_judged_wherever_they_are():
    sine = with_jvp(jnp.sin, lambda x, t: 1.001 * jnp.cos(x[0]) * t[0])

    def f(x):
        return jax.lax.scan(lambda c, y: (sine(c) + y, c), x[0], jax.vmap(jax.jit(sine))(x))[0]

    assert named(function(jax.jit(f), normal(4))) == {"args[0], VJP", "output, JVP"}


def test_a_stopped_gradient_is_said_to_be_one():
    report = function(lambda x: jax.lax.stop_gradient(x) * x, normal(3))
    assert {"args[0], VJP", "output, JVP"} == named(report)
    assert all("f contains lax.stop_gradient" in finding.note for finding in report.wrong)


def test_functions_that_differ_from_call_to_call_are_findings():
    random = np.random.default_rng(0)
    (wrong,) = function(lambda x: x * random.normal(), normal(2)).wrong
    assert "f is not deterministic" in wrong.note
    (wrong,) = function(with_vjp(square, lambda a, g: (2 * a[0] * g * random.normal(),)), normal(2)).wrong
    assert (wrong.name, "not deterministic" in wrong.note) == ("VJP", True)


@pytest.mark.parametrize(("f", "rates"), [
    (jnp.exp, "value 1.00, less the derivative 2.00, less the second derivative 3.00"),
    (lambda x: 3 * x, "value 1.00, less the derivative exact, less the second derivative exact"),
])  # fmt: skip
def test_taylor_rates_are_evidence_that_a_person_can_read(f, rates):
    assert f"Taylor rates: {rates}" in note(function(f, np.array([0.3, -0.5]), order=2))


def test_taylor_rates_show_a_wrong_derivative_too():
    report = function(with_vjp(jnp.exp, lambda a, g: (1.1 * jnp.exp(a[0]) * g,)), np.array([0.3, -0.5]))
    assert "value 1.00, less the derivative 1.00" in note(report)


def test_a_nan_where_the_derivative_exists_is_wrong():
    assert not function(lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0).sum(), np.array([-1.0, 2.0])).ok
    assert not function(jnp.linalg.norm, np.zeros(2)).ok


def test_so_is_one_among_thousands():
    f = with_vjp(jnp.sin, lambda a, g: ((g * jnp.cos(a[0])).at[1100].set(jnp.nan),))
    (wrong,) = (finding for finding in function(f, normal(1200)).wrong if "vmap" not in finding.name)
    assert wrong.index == (1100,)


def test_a_constant_function_is_vacuous_and_not_wrong():
    report = function(lambda x: 0 * x, normal(3))
    assert report.vacuous
    assert not report.wrong


@pytest.mark.parametrize(("arguments", "message"), [
    ((3, 1.0), "f: expected a function, got int 3"),
    ((jnp.sin,), "args: expected at least one floating array"),
    ((jnp.argmax, np.ones(3)), "f: expected a floating value"),
])  # fmt: skip
def test_there_must_be_something_to_differentiate(arguments, message):
    with pytest.raises(TypeError, match=message):
        function(*arguments)


@pytest.mark.parametrize("order", [0, 3])
def test_only_the_first_and_second_order_are_judged(order):
    with pytest.raises(ValueError, match="order: expected"):
        function(jnp.sin, between(2), order=order)
