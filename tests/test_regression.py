"""Least squares (H4): the factorisation is right where the printed formula loses its digits or has no answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from errors import assert_refused, table
from fnn.regression import normal_equations


def random(*shape):
    return np.random.default_rng(7).normal(size=shape)


def vandermonde(degree):
    """Polynomials of that degree at 50 points of [0, 1], and the y of the one whose coefficients are all 1."""
    A = np.vander(np.linspace(0, 1, 50), degree + 1, increasing=True)
    return A, A @ np.ones(degree + 1)


def lost(solve, degree):
    """The relative error of the coefficients."""
    A, y = vandermonde(degree)
    return float(np.linalg.norm(np.asarray(solve(A, y)) - 1) / np.sqrt(degree + 1))


@pytest.mark.parametrize("solve", [fnn.regression.least_squares, normal_equations])
@pytest.mark.parametrize("columns", [(), (3,)], ids=["one y", "three"])
def test_both_ways_agree_with_numpy_for_full_column_rank(solve, columns, x64):
    A, y = random(20, 4), random(20, *columns)
    np.testing.assert_allclose(solve(A, y), np.linalg.lstsq(A, y)[0], rtol=1e-12)


def test_the_gradient_of_the_squared_error_is_zero_at_the_solution(x64):
    A, y = random(20, 4), random(20)
    gradient = jax.jit(jax.grad(lambda v: jnp.sum((A @ v - y) ** 2)))
    np.testing.assert_allclose(gradient(fnn.regression.least_squares(A, y)), np.zeros(4), atol=1e-12)


def test_the_printed_formula_loses_twice_as_many_digits(x64):
    """Degree 10, κ = 2e7: 9e-10 by the factorisation and 0.1 by the formula; at degree 13 it has no digit left."""
    assert np.linalg.cond(vandermonde(10)[0]) == pytest.approx(2e7, rel=0.1)
    assert lost(fnn.regression.least_squares, 10) < 1e-8
    assert lost(normal_equations, 10) > 1e6 * lost(fnn.regression.least_squares, 10)
    assert lost(fnn.regression.least_squares, 13) < 1e-5
    assert lost(normal_equations, 13) > 1


def test_in_float32_the_printed_formula_has_no_digit_left_at_a_condition_of_2e4():
    A, y = (array.astype("float32") for array in vandermonde(6))
    assert np.linalg.norm(fnn.regression.least_squares(A, y) - 1) < 0.1
    assert not np.linalg.norm(normal_equations(A, y) - 1) < 1


DEFICIENT = {
    "a column twice": np.c_[np.ones(6), np.arange(6.0), np.ones(6)],
    "a sum of columns": np.c_[random(20, 3), random(20, 3).sum(axis=1)],
    "wide": random(3, 5),
    "zero": np.zeros((4, 2)),
}


@pytest.mark.parametrize("A", DEFICIENT.values(), ids=DEFICIENT)
def test_without_full_column_rank_the_shortest_solution_comes_and_the_printed_formula_fails(A, x64):
    y = random(len(A))
    ours, shortest = fnn.regression.least_squares(A, y), np.linalg.pinv(A) @ y
    np.testing.assert_allclose(ours, shortest, rtol=1e-10, atol=1e-13)
    printed = np.asarray(normal_equations(A, y))
    assert not np.linalg.norm(printed - shortest) < 0.01 * np.linalg.norm(shortest)  # NaN, or far away


def test_rcond_says_which_directions_count(x64):
    A, y = np.diag([1.0, 1e-3]), np.ones(2)
    np.testing.assert_allclose(fnn.regression.least_squares(A, y), [1, 1000])
    np.testing.assert_allclose(fnn.regression.least_squares(A, y, rcond=1e-2), [1, 0])
    np.testing.assert_allclose(fnn.regression.least_squares(A * 0 + np.eye(2), y, rcond=0), [1, 1])


def test_it_runs_under_jit_and_vmap_and_keeps_float32():
    A, y = random(5, 6, 2).astype("float32"), random(5, 6).astype("float32")
    together = jax.jit(jax.vmap(fnn.regression.least_squares))(A, y)
    assert together.dtype == "float32"
    np.testing.assert_allclose(together[2], fnn.regression.least_squares(A[2], y[2]), rtol=1e-5)


TALL = np.ones((3, 2), "float32")


@pytest.mark.parametrize("solve", [fnn.regression.least_squares, normal_equations])
@table(
    {
        "a list": (([[1.0]], TALL), TypeError, "^A: expected an array", "list", "asarray"),
        "float64 without x64": ((np.ones((3, 2)), TALL), TypeError, "^A: expected float32", "float64", "enable_x64"),
        "integers": ((np.ones((3, 2), "int32"), TALL), TypeError, "^A: expected float32 or", "int32", "A.astype"),
        "bfloat16": ((jnp.ones((3, 2), "bfloat16"), TALL), TypeError, "^A: expected float32 or", "bfloat16"),
        "y of another dtype": ((TALL, np.ones(3, "float16")), TypeError, "^y: expected float32", "y.astype"),
        "A with one axis": (
            (TALL[0], TALL[0]),
            ValueError,
            r"^A: expected shape \(m, n\)",
            r"got \(2,\)",
            r"A\[:, None\]",
        ),
        "A without columns": ((TALL[:, :0], TALL), ValueError, r"^A: expected .* n >= 1", r"got \(3, 0\)"),
        "rows that do not match": ((TALL, TALL[:2]), ValueError, r"^y: expected shape \(3,\)", r"got \(2, 2\)"),
        "y with three axes": ((TALL, TALL[..., None]), ValueError, "^y: expected shape", r"got \(3, 2, 1\)"),
    }
)
def test_a_bad_argument_is_refused_by_name(solve, given, error, fragments):
    assert_refused(lambda: solve(*given), error, fragments)


def test_a_bad_rcond_is_refused():
    assert_refused(
        lambda: fnn.regression.least_squares(TALL, TALL[:, 0], rcond=-1), ValueError, ["^rcond: expected .*>= 0", "-1"]
    )
