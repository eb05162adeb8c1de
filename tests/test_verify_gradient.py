"""verify.gradient: a finished gradient function against autodiff, leaf by leaf."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.batchnorm import BatchNorm
from fnn.verify import DerivationError, gradient
from problems import and_slow, problem

P = problem(fnn.Tanh(), fnn.SquaredError(), depth=3)


def cost(params, x, y):
    return P.loss.value(fnn.forward(params, x), y).mean()


def check(hand, **options):
    return gradient(hand, cost, P.params, P.x, P.y, **options)


@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-12), ("float64", 1e-12), ("float32", 1e-5)])
def test_a_right_gradient_passes_in_either_precision(dtype, tolerance):
    report = check(fnn.backprop, dtype=dtype)
    assert report.ok
    assert report.check() is report
    assert report.dtype == (dtype or "float64")
    assert [finding.name for finding in report.findings] == [
        f"params[{layer}].{leaf}" for layer in range(3) for leaf in "Wb"
    ]
    assert {finding.tolerance for finding in report.findings} == {tolerance}
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize(
    "index", and_slow([(0, 0), (5, 3), (2, 1)], [(unit, of_input) for unit in range(6) for of_input in range(4)])
)
def test_a_single_zeroed_entry_is_found_and_named(index):
    """The first, the last, and one in between."""

    def hand(params, x, y):
        gradients = list(fnn.backprop(params, x, y))
        gradients[1] = fnn.Dense(gradients[1].W.at[index].set(0), gradients[1].b, gradients[1].activation)
        return tuple(gradients)

    for dtype in ("float64", "float32"):
        (wrong,) = check(hand, dtype=dtype).wrong
        assert wrong.name == "params[1].W"
        assert wrong.index == index
        assert wrong.hand == 0 != wrong.oracle


def test_the_error_says_which_leaf_where_and_what_it_looks_like():
    with pytest.raises(
        DerivationError, match=r"params\[0\].b .*\n .*worst at .*\n .*looks like: a constant factor 1.001"
    ):
        check(lambda *args: jax.tree.map(lambda leaf: 1.001 * leaf, fnn.backprop(*args))).check()


def test_any_pytree_and_any_function_can_be_checked():
    tree = {"w": jnp.array([1.0, 2.0]), "more": [jnp.array(3.0)]}
    report = gradient(
        lambda p, c: {"w": 2 * c * p["w"], "more": [c]},
        lambda p, c: c * ((p["w"] ** 2).sum() + p["more"][0]),
        tree,
        2.0,
    )
    assert report.ok
    assert {finding.name for finding in report.findings} == {"params['w']", "params['more'][0]"}


def test_a_wrong_shape_or_structure_is_a_finding():
    report = gradient(lambda w: (2 * w)[None], lambda w: (w**2).sum(), jnp.ones(3))
    assert "shape (1, 3), expected (3,)" in str(report)
    for wrong in ((1, 2), [1.0], None, {}):
        report = gradient(lambda w: wrong, lambda w: (w**2).sum(), jnp.ones(3))  # noqa: B023
        assert not report.ok
        assert "structure" in str(report)


def test_nan_is_wrong():
    assert not gradient(lambda w: w * jnp.nan, lambda w: (w**2).sum(), jnp.ones(3)).ok


def test_rounding_where_terms_cancel_is_no_false_alarm():
    """The bias before a full batch norm has gradient zero: both sides hold rounding only."""
    *hidden, last = P.params
    normed = (replace(layer, norm=BatchNorm(jnp.ones_like(layer.b), jnp.zeros_like(layer.b))) for layer in hidden)
    assert gradient(fnn.backprop, cost, (*normed, last), P.x, P.y).ok


def test_a_jump_of_the_oracle_at_a_kink_excuses_nothing():
    """At z = 0 the oracle of |z| jumps by twice the gradient when the input moves by one ulp."""
    w = jnp.zeros(4)
    assert not gradient(lambda w: jnp.full_like(w, 5.0), lambda w: jnp.abs(w).sum(), w).ok


def test_a_check_of_nothing_says_so():
    report = gradient(lambda w: 0 * w, lambda w: 0.0 * w.sum(), jnp.ones(3))
    assert not report.ok
    assert "nothing was checked" in str(report)


def test_functions_that_cannot_run_in_float64_are_judged_in_float32():
    def only_float32(w):
        if w.dtype != jnp.float32:
            raise TypeError("this kernel takes float32")
        return (w**2).sum()

    report = gradient(lambda w: 2 * w, only_float32, jnp.ones(3))
    assert report.ok
    assert report.dtype == "float32"
    assert "this kernel takes float32" in str(report)


def test_the_notebook_shows_a_table():
    assert "<table>" in check(fnn.backprop)._repr_html_()


def tied(p, x):
    """W is used three times, and once through a skip connection."""
    h = jnp.tanh(x @ p["W"])
    h = h + jnp.tanh(h @ p["W"])
    return ((h @ p["W"].T - x) ** 2).sum() / 2


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("lacks", "note"),
    [({"encoder": 0}, "the term through the matrix product with args[0] is missing"),
     ({"decoder": 0}, "the term through the matrix product (2 of 2) is missing"),
     ({"flat": True}, "the derivative of tanh (1 of 2) is missing"), ({}, None)],
)  # fmt: skip
def test_of_a_leaf_that_is_used_several_times_the_missing_use_is_named(lacks, note, dtype):
    def hand(p, x, encoder=1, decoder=1, flat=False):
        W = p["W"]
        h1 = np.tanh(x @ W)
        t = np.tanh(h1 @ W)
        e = (h1 + t) @ W.T - x
        d_t = e @ W * (1 - t**2)
        d_1 = (e @ W + d_t @ W.T) * (1 if flat else 1 - h1**2)
        return {"W": encoder * x.T @ d_1 + h1.T @ d_t + decoder * (e.T @ (h1 + t))}

    W, x = np.random.default_rng(3).normal(size=(2, 4, 4))
    report = gradient(lambda p, x: hand(p, x, **lacks), tied, {"W": W}, x, dtype=dtype)
    assert [finding.note for finding in report.wrong] == [note] * (note is not None)


def test_a_forgotten_use_by_a_function_is_called_by_its_name():
    def cost(w):
        return (jax.nn.relu(w) ** 2).sum() + (w**3).sum()

    (wrong,) = gradient(lambda w: 3 * w**2, cost, np.array([1.0, -2.0, 0.5])).wrong
    assert wrong.note == "the term through relu is missing"
