"""verify.gradient where the objective or the gradient is written for NumPy, torch or anything that JAX cannot trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from custom_cases import named, normal, note
from fnn.verify import gradient
from problems import and_slow


def probabilities(p, x):
    """Code as students write it, in place."""
    z = x @ p["W"].T
    z += p["b"]
    z -= z.max(axis=1, keepdims=True)
    np.exp(z, out=z)
    z /= z.sum(axis=1, keepdims=True)
    return z


def cross_entropy(p, x, y):
    x -= x.mean()  # which the caller's array must not notice
    return -np.log(probabilities(p, x)[np.arange(len(y)), y]).mean()


def by_hand(p, x, y, factor=1.0, index=None):
    x = x - x.mean()
    delta = probabilities(p, x)
    delta[np.arange(len(y)), y] -= 1
    delta /= len(y)
    W = factor * delta.T @ x
    if index is not None:
        W[index] *= 1.001
    p["W"] *= 0  # nor this
    return {"W": W, "b": delta.sum(axis=0)}


P, X, Y = {"W": normal(3, 4), "b": normal(3)}, normal(5, 4), np.array([0, 2, 1, 1, 0])


def test_an_assignment_in_numpy_is_checked_in_one_line():
    before = P["W"].copy(), X.copy()
    report = gradient(by_hand, cross_entropy, P, X, Y)
    assert report.check() is report
    assert "autodiff cannot differentiate the objective (TracerArrayConversionError)" in note(report)
    assert "differences along each of 15 entries" in note(report)
    np.testing.assert_array_equal(before[0], P["W"])
    np.testing.assert_array_equal(before[1], X)


def test_its_mistakes_are_named_as_those_of_any_other():
    (wrong,) = gradient(lambda *given: by_hand(*given, factor=1.01), cross_entropy, P, X, Y).wrong
    assert (wrong.name, wrong.note) == ("params['W']", "a constant factor 1.01")
    assert "differences" in wrong.worst()
    (wrong,) = gradient(lambda *given: by_hand(*given, index=(2, 1)), cross_entropy, P, X, Y).wrong
    assert wrong.index == (2, 1)


def test_either_side_alone_may_be_numpy():
    def in_jax(p, x, y):
        x = x - x.mean()
        return -jax.nn.log_softmax(x @ p["W"].T + p["b"])[jnp.arange(len(y)), y].mean()

    assert gradient(by_hand, in_jax, P, X, Y).ok
    assert gradient(jax.grad(in_jax), cross_entropy, P, X, Y).ok


def test_so_may_what_autodiff_cannot_differentiate():
    def cube(w):
        return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * w), (0, jnp.ones_like(w)))[1].sum()

    assert gradient(lambda w: 3 * w**2, cube, normal(4)).ok
    assert not gradient(lambda w: 2.999 * w**2, cube, normal(4)).ok


@pytest.mark.parametrize("slope", and_slow([0.0], [0.5, 1.0]))
def test_at_a_kink_every_value_between_the_sides_is_right(slope):
    w = np.array([-1.0, 0, 2])
    assert gradient(lambda w: np.where(w > 0, 1, np.where(w < 0, 0, slope)), lambda w: np.maximum(w, 0).sum(), w).ok
    assert not gradient(lambda w: np.where(w > 0, 1, np.where(w < 0, 0, 1.5)), lambda w: np.maximum(w, 0).sum(), w).ok


@pytest.mark.parametrize("index", and_slow([(17, 3)], [(0, 0), (79, 49)]))
def test_a_single_wrong_entry_of_thousands_is_found(index):
    def hand(w, factor):
        gradients = 2 * np.asarray(w)
        gradients[index] *= factor
        return gradients

    w = normal(80, 50)
    assert gradient(lambda w: hand(w, 1), lambda w: np.sum(np.asarray(w) ** 2), w).ok
    (wrong,) = gradient(lambda w: hand(w, 1.01), lambda w: np.sum(np.asarray(w) ** 2), w).wrong
    assert wrong.index == index


def test_a_wrong_shape_is_a_finding_and_the_other_leaves_are_judged():
    report = gradient(lambda p: {"a": p["a"][None], "b": 3 * p["b"]},
                      lambda p: np.sum(np.asarray(p["a"]) ** 2) / 2 + np.sum(np.asarray(p["b"]) ** 2),
                      {"a": normal(3), "b": normal(2)})  # fmt: skip
    assert named(report) == {"params['a']", "params['b']"}
    assert "shape (1, 3), expected (3,)" in str(report)


class Foreign:
    """A number of another library."""

    def __init__(self, value):
        self.value = np.asarray(value)

    def __array__(self, dtype=None, copy=None):
        return self.value


def test_values_of_other_libraries_are_taken_as_arrays():
    def cost(w):
        return Foreign((np.asarray(w) ** 2).sum())

    assert gradient(lambda w: Foreign(2 * np.asarray(w)), cost, normal(3)).ok
    assert not gradient(lambda w: Foreign(3 * np.asarray(w)), cost, normal(3)).ok


def test_tensors_are_given_as_tensors():
    torch = pytest.importorskip("torch")
    w = torch.randn(3, 4, requires_grad=True)
    assert gradient(lambda w: torch.cos(w), lambda w: torch.sin(w).sum(), w).ok
    assert not gradient(lambda w: torch.sin(w), lambda w: torch.sin(w).sum(), w).ok


def test_an_objective_that_raises_says_so():
    with pytest.raises(ZeroDivisionError):
        gradient(lambda w: w, lambda w: 1 / 0, normal(2))
