"""The update rules by hand equal optax's, and where they do not it is said."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from errors import assert_refused, table
from fnn import updates
from problems import problem
from random_network import network

STEPS = 50


START = {"W": np.array([[0.5, -0.8, 0.3], [-0.2, 0.9, 0.6]]), "b": np.array([0.4, -0.7])}


U = np.array([0.5, -1.0, 0.25])


def valley(x):
    """Σ √(1 + r²) of an affine r, with its gradient: curved, so that no two rules go the same way by chance."""
    r = x["W"] @ U + x["b"] - 3
    value = jnp.sqrt(1 + r * r)
    return jnp.sum(value), {"W": jnp.outer(r / value, U), "b": r / value}


def path(rule):
    """The parameters after each of 50 steps in the valley, in float64, flattened."""
    points = updates.descend(valley, START, 0.1, STEPS, rule=lambda rate: rule).points
    return np.concatenate([np.reshape(leaf, (STEPS + 1, -1)) for leaf in jax.tree.leaves(points)], axis=1)[1:]


def schedule(count):
    return 0.3 / (1 + count)


def by_rate(eta):
    return optax.scale_by_learning_rate(eta)


SAME = {  # the table of fnn.updates: ours, and the optax chain, the same for every schedule
    "sgd": lambda eta: (updates.sgd(eta), by_rate(eta)),
    "momentum": lambda eta: (updates.momentum(eta, 0.9), optax.chain(by_rate(eta), optax.trace(0.9))),
    "momentum without any": lambda eta: (updates.momentum(eta, 0.0), optax.sgd(eta)),
    "nesterov": lambda eta: (updates.nesterov(eta, 0.9), optax.chain(by_rate(eta), optax.trace(0.9, nesterov=True))),
    "clipped in front": lambda eta: (
        optax.chain(updates.clip_by_global_norm(0.2), updates.momentum(eta, 0.9)),
        optax.chain(optax.clip_by_global_norm(0.2), by_rate(eta), optax.trace(0.9)),
    ),
    "never clipped": lambda eta: (optax.chain(updates.clip_by_global_norm(1e6), updates.sgd(eta)), by_rate(eta)),
    "coupled decay": lambda eta: (
        optax.chain(updates.weight_decay(0.1), updates.momentum(eta, 0.9)),
        optax.chain(optax.add_decayed_weights(0.1), by_rate(eta), optax.trace(0.9)),
    ),
    "decoupled decay": lambda eta: (
        optax.chain(updates.momentum(eta, 0.9), updates.decoupled_weight_decay(eta, 0.1)),
        optax.chain(by_rate(eta), optax.trace(0.9), optax.add_decayed_weights(lambda t: -0.1 * eta(t))),
    ),
    "adam and decoupled decay": lambda eta: (
        optax.chain(optax.adam(eta), updates.decoupled_weight_decay(eta, 0.1)),
        optax.adamw(eta, weight_decay=0.1),
    ),
    "sgd, where both decays are one": lambda eta: (
        optax.chain(updates.sgd(eta), updates.decoupled_weight_decay(eta, 0.1)),
        optax.chain(updates.weight_decay(0.1), updates.sgd(eta)),
    ),
}
SAME_WHILE_CONSTANT = {  # the usual library forms, with the rate outside the velocity
    "momentum": lambda eta: (updates.momentum(eta, 0.9), optax.sgd(eta, momentum=0.9)),
    "nesterov": lambda eta: (updates.nesterov(eta, 0.9), optax.sgd(eta, momentum=0.9, nesterov=True)),
    "decoupled decay": lambda eta: (
        optax.chain(updates.momentum(eta, 0.9), updates.decoupled_weight_decay(eta, 0.1)),
        optax.chain(optax.trace(0.9), optax.add_decayed_weights(0.1), by_rate(eta)),
    ),
    "a dampened average": lambda eta: (
        updates.momentum(0.1 * eta if isinstance(eta, float) else lambda t: 0.1 * eta(t), 0.9),
        optax.chain(optax.ema(0.9, debias=False), by_rate(eta)),
    ),
}


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME)
def test_fifty_steps_by_hand_equal_fifty_steps_of_optax(pair, x64):
    ours, theirs = pair(schedule)
    np.testing.assert_allclose(path(ours), path(theirs), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("pair", SAME_WHILE_CONSTANT.values(), ids=SAME_WHILE_CONSTANT)
def test_with_the_rate_outside_the_velocity_only_a_constant_rate_gives_the_same(pair, x64):
    ours, theirs = pair(0.1)
    np.testing.assert_allclose(path(ours), path(theirs), rtol=1e-12, atol=1e-13)
    ours, theirs = (path(rule) for rule in pair(schedule))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-14)
    assert np.abs(ours - theirs).max() > 0.01


def test_a_network_goes_the_same_way_by_hand_and_by_optax(x64):
    p = problem(fnn.Tanh(), fnn.SquaredError(), depth=2, dtype="float64")
    ends = []
    for rule in SAME["clipped in front"](schedule):
        step, params, state = fnn.train.make_step(rule), p.params, rule.init(p.params)
        for _ in range(5):
            params, state, _ = step(params, state, p.x, p.y)
        ends.append(params)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13), *ends)


def test_coupled_and_decoupled_decay_differ_as_soon_as_there_is_a_velocity(x64):
    coupled = optax.chain(updates.weight_decay(0.1), updates.momentum(schedule, 0.9))
    decoupled = optax.chain(updates.momentum(schedule, 0.9), updates.decoupled_weight_decay(schedule, 0.1))
    ours, theirs = path(coupled), path(decoupled)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-14)
    assert np.abs(ours - theirs).max() > 0.1


def test_the_first_step_of_momentum_is_plain_gradient_descent():
    g, rule = np.array([1.0, -2.0], "float32"), updates.momentum(0.5, 0.9)

    @jax.jit
    def steps():
        first, state = rule.update(g, rule.init(g))
        return first, rule.update(g, state)[0]

    first, second = map(np.asarray, steps())
    np.testing.assert_allclose(first, -0.5 * g)
    np.testing.assert_allclose(second, 0.9 * first - 0.5 * g)


def test_nesterov_is_the_look_ahead_of_sutskever_et_al(x64):
    """v ← αv − η ∇f(ϑ + αv), ϑ ← ϑ + v: our θ is their ϑ + αv, with a schedule too."""

    def gradient(x):
        return 4 * x**3 + x[::-1]

    def f(x):
        return jnp.sum(x**4) + x[0] * x[1], gradient(x)

    theta, v = np.array([0.3, -0.8]), np.zeros(2)
    for t, held in enumerate(np.asarray(updates.descend(f, theta, schedule, STEPS, rule=updates.nesterov).points)):
        np.testing.assert_allclose(held, theta + 0.9 * v, rtol=1e-12)
        v = 0.9 * v - schedule(t) * gradient(theta + 0.9 * v)
        theta = theta + v


def test_the_three_rules_are_one_without_momentum(x64):
    for rule in (updates.momentum(schedule, 0.0), updates.nesterov(schedule, 0)):
        np.testing.assert_allclose(path(rule), path(updates.sgd(schedule)), rtol=1e-13)


def test_clipping_shortens_a_long_gradient_over_all_leaves_and_leaves_others_and_zero_alone():
    rule = updates.clip_by_global_norm(1.0)
    clip = jax.jit(lambda g: rule.update(g, rule.init(g))[0])
    long = {"W": np.full((2, 2), 3, "float32"), "b": np.full(7, 4, "float32")}
    clipped = jax.tree.map(np.asarray, clip(long))
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([clipped["W"].ravel(), clipped["b"]])), 1.0, rtol=1e-6)
    np.testing.assert_allclose(clipped["W"][0, 0] / clipped["b"][0], 3 / 4, rtol=1e-6)
    for g in (jax.tree.map(lambda leaf: leaf / 100, long), jax.tree.map(np.zeros_like, long)):
        jax.tree.map(np.testing.assert_array_equal, clip(g), g)


def test_clipping_sums_in_float32_where_the_leaves_are_bfloat16():
    """The norm of 10,000 ones is 100; a sum of bfloat16s would stop at 256."""
    g, rule = np.ones(10_000, jnp.bfloat16), updates.clip_by_global_norm(10.0)
    clipped = jax.jit(lambda g: rule.update(g, rule.init(g))[0])(g)
    np.testing.assert_allclose(np.float32(np.asarray(clipped)[0]), 0.1, rtol=4e-3)


@pytest.mark.parametrize("decay", [updates.weight_decay(0.5), updates.decoupled_weight_decay(0.5, 0.5)])
def test_every_leaf_decays_and_masked_leaves_the_biases_out(decay):
    params = network((5, 4, 3))
    zero = jax.tree.map(np.zeros_like, params)
    weights_only = optax.masked(decay, lambda params: jax.tree.map(lambda leaf: leaf.ndim == 2, params))
    rules = decay, weights_only
    whole, masked = jax.jit(lambda: [rule.update(zero, rule.init(params), params)[0] for rule in rules])()
    for layer, changed in zip(*jax.tree.map(np.asarray, (whole, masked))):
        assert np.all(layer.W != 0)
        assert np.all(layer.b != 0)
        np.testing.assert_array_equal(changed.W, layer.W)
        np.testing.assert_array_equal(changed.b, np.zeros_like(changed.b))


MAKERS = {
    "sgd": lambda: updates.sgd(0.1),
    "momentum": lambda: updates.momentum(0.1, alpha=0.5),
    "nesterov": lambda: updates.nesterov(0.1, alpha=0.5),
    "clip_by_global_norm": lambda: updates.clip_by_global_norm(1.0),
    "weight_decay": lambda: updates.weight_decay(0.1),
    "decoupled_weight_decay": lambda: updates.decoupled_weight_decay(0.1, 0.1),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_equal_calls_give_one_object_so_nothing_compiles_again(make):
    assert make() is make()
    assert isinstance(make(), optax.GradientTransformation)


def test_equal_calls_are_one_however_they_are_written():
    assert updates.momentum(1) is updates.momentum(learning_rate=1.0, alpha=0.9)
    assert updates.momentum(1) is not updates.nesterov(1)


def test_a_rule_works_inside_optax_and_with_an_injected_learning_rate():
    g = np.array([3.0, 4.0], "float32")
    chain = optax.chain(optax.clip_by_global_norm(1.0), updates.sgd(1.0))
    injected = optax.inject_hyperparams(updates.sgd)(learning_rate=0.5)
    halved = optax.inject_hyperparams(updates.weight_decay)(decay=0.5)
    with jax.numpy_dtype_promotion("standard"):
        steps = jax.jit(lambda: [rule.update(g, rule.init(g), g)[0] for rule in (chain, injected, halved)])()
    for step, expected in zip(steps, ([-0.6, -0.8], -0.5 * g, 1.5 * g)):
        np.testing.assert_allclose(step, expected, rtol=1e-6)


@pytest.mark.parametrize("make", [lambda: updates.sgd(schedule), *MAKERS.values()], ids=["schedule", *MAKERS])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_steps_keep_the_dtype_of_the_gradients(dtype, make):
    g, rule = {"W": np.ones((2, 3), jnp.dtype(dtype)), "b": np.ones(2, "float32")}, make()
    steps, state = jax.eval_shape(lambda: rule.update(g, rule.init(g), g))
    assert jax.tree.map(lambda leaf: leaf.dtype, steps) == jax.tree.map(lambda leaf: leaf.dtype, g)
    assert jax.tree.structure(state) == jax.tree.structure(rule.init(g))


BAD = {
    "a limit of 0": (lambda: updates.clip_by_global_norm(0), ValueError, "limit: expected .*> 0", "got 0", "limit=1"),
    "a limit that is a string": (lambda: updates.clip_by_global_norm("1"), TypeError, "limit: expected a number"),
    "a decay below 0": (lambda: updates.weight_decay(-1), ValueError, "decay: expected .*>= 0", "got -1"),
    "a decay that is nan": (lambda: updates.decoupled_weight_decay(0.1, np.nan), ValueError, "decay: expected", "nan"),
    "a rate of 0": (lambda: updates.decoupled_weight_decay(0, 0.1), ValueError, "learning_rate: expected .*> 0"),
    "nesterov's rate": (lambda: updates.nesterov(-0.1), ValueError, "learning_rate: expected .*> 0", "got -0.1"),
    "nesterov's alpha": (lambda: updates.nesterov(0.1, 1), ValueError, "alpha: expected .*< 1", "nesterov.*alpha=0.9"),
    "no parameters": (
        lambda: updates.weight_decay(0.1).update(np.ones(2), optax.EmptyState()),
        ValueError,
        "params: weight_decay needs them",
        r"write update\(gradients, state, params\)",
    ),
}


@table(BAD)
def test_a_bad_argument_is_refused_by_name(given, error, fragments):
    assert_refused(given, error, fragments)
