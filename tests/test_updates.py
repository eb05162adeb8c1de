"""The update rules by hand equal optax's, and where they do not it is said."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn import updates
from problems import problem

STEPS = 50


def path(optimizer, dtype="float32"):
    """The parameters after each of 50 steps on one network, flattened."""
    p = problem(fnn.Tanh(), fnn.SquaredError(), depth=3, dtype=dtype)
    step = fnn.train.make_step(optimizer)
    params, state = p.params, optimizer.init(p.params)
    points = []
    for _ in range(STEPS):
        params, state, _ = step(params, state, p.x, p.y)
        points.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)]))
    return np.array(points)


def schedule(count):
    return 0.3 / (1 + count)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (updates.sgd(0.3), optax.sgd(0.3)),
        (updates.sgd(schedule), optax.sgd(schedule)),
        (updates.sgd(schedule), optax.scale_by_learning_rate(schedule)),
        (updates.momentum(0.1, 0.9), optax.sgd(0.1, momentum=0.9)),
        (updates.momentum(0.1, 0.0), optax.sgd(0.1)),
        (updates.momentum(schedule, 0.9), optax.chain(optax.scale_by_learning_rate(schedule), optax.trace(decay=0.9))),
    ],
)
def test_fifty_steps_by_hand_equal_fifty_steps_of_optax(ours, theirs, x64):
    np.testing.assert_allclose(path(ours, "float64"), path(theirs, "float64"), rtol=1e-12, atol=1e-13)


def test_momentum_with_a_schedule_differs_from_the_usual_library_rule(x64):
    ours, theirs = path(updates.momentum(schedule, 0.9), "float64"), path(optax.sgd(schedule, momentum=0.9), "float64")
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-14)
    assert np.abs(ours - theirs).max() > 0.01


def test_the_first_step_of_momentum_is_plain_gradient_descent():
    g = jnp.array([1.0, -2.0])
    rule = updates.momentum(0.5, 0.9)
    first, state = rule.update(g, rule.init(g))
    second, _ = rule.update(g, state)
    np.testing.assert_allclose(first, -0.5 * g)
    np.testing.assert_allclose(second, 0.9 * first - 0.5 * g)


@pytest.mark.parametrize("make", [lambda: updates.sgd(0.1), lambda: updates.momentum(0.1, alpha=0.5)])
def test_equal_calls_give_one_object_so_nothing_compiles_again(make):
    assert make() is make()
    assert isinstance(make(), optax.GradientTransformation)


def test_a_rule_works_inside_optax_and_with_an_injected_learning_rate():
    g = jnp.array([3.0, 4.0])
    chain = optax.chain(optax.clip_by_global_norm(1.0), updates.sgd(1.0))
    np.testing.assert_allclose(chain.update(g, chain.init(g))[0], [-0.6, -0.8], rtol=1e-6)
    injected = optax.inject_hyperparams(updates.sgd)(learning_rate=0.5)
    with jax.numpy_dtype_promotion("standard"):
        state = injected.init(g)
        np.testing.assert_allclose(injected.update(g, state)[0], -0.5 * g)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_steps_keep_the_dtype_of_the_gradients(dtype):
    g = jnp.ones(3, dtype)
    for rule in (updates.sgd(schedule), updates.momentum(0.1)):
        step, state = rule.update(g, rule.init(g))
        assert step.dtype == g.dtype
        assert jax.tree.structure(state) == jax.tree.structure(rule.init(g))
