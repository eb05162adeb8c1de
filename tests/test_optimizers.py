"""Optimizers: one program for all rates, what any of optax's may ask for, and which are refused by name."""

import multiprocessing
import os
import pickle
import pkgutil
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from errors import assert_refused
from fnn import updates
from fnn.optimizers import Optimizer
from fnn.train import Interrupted, NonFinite, evaluate, fit, fit_many, make_step
from networks import drawn
from problems import compilations
from resume_cases import assert_same

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
DATA = X, np.tanh(X[:, :2] @ np.array([[1, 2], [-1, 1]], "float32"))
PARAMS, KEY = drawn((3, 8, 2)), jax.random.key(0)
KEYS = jax.random.wrap_key_data(np.arange(4, dtype=np.uint32).reshape(2, 2))
LOSS = fnn.SquaredError()


def train(optimizer, epochs=2, batch_size=10, params=PARAMS, data=DATA, **options):
    return fit(
        params, data, optimizer, loss=LOSS, epochs=epochs, batch_size=batch_size, key=KEY, progress=False, **options
    )


# -- one program ---------------------------------------------------------------------------------------------------


RULES = {
    "sgd": updates.sgd,
    "momentum": lambda rate: updates.momentum(rate, alpha=rate),
    "clipped and bounded": lambda rate: optax.chain(
        updates.clip_by_global_norm(10 * rate), updates.nesterov(rate), updates.max_norm(30 * rate)
    ),
    "adam": optax.adam,
    "adamw, scheduled": lambda rate: optax.adamw(optax.cosine_decay_schedule(rate, 100), weight_decay=rate),
    "injected": lambda rate: optax.inject_hyperparams(optax.adam)(learning_rate=rate),
    "injected, scheduled": lambda rate: optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(rate, 0.0, 100)),
    "exponential": lambda rate: updates.sgd(optax.exponential_decay(rate, 10, 1 - rate)),
    "constant": lambda rate: optax.sgd(optax.constant_schedule(rate)),
    "masked": lambda rate: optax.chain(
        optax.add_decayed_weights(rate, mask=fnn.is_weight(PARAMS)), optax.sgd(np.float64(rate))
    ),
    "one for W and one for b": lambda rate: optax.multi_transform(
        {"W": updates.sgd(rate), "b": optax.adam(rate)},
        jax.tree.map(lambda weight: "W" if weight else "b", fnn.is_weight(PARAMS)),
    ),
    "several steps": lambda rate: optax.MultiSteps(updates.sgd(rate), 2),
}
MORE_RULES = {"momentum", "injected, scheduled", "exponential", "constant", "one for W and one for b"}
RULE_NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in MORE_RULES else name for name in RULES]


@pytest.mark.parametrize("rule", RULE_NAMES)
def test_a_sweep_of_rates_compiles_one_program_and_every_rate_has_its_effect(rule):
    make = RULES[rule]
    train(make(0.01))
    with compilations() as programs:
        runs = [train(make(rate)) for rate in (0.02, 0.03, 0.02)]
    assert programs == []
    assert_same(runs[0].params, runs[2].params)
    assert not np.array_equal(runs[0].params[0].W, runs[1].params[0].W)
    alone, state = PARAMS, make(0.02).init(PARAMS)
    step = jax.jit(lambda params, state: take(make(0.02), params, state))  # with the rate as a constant
    params, _, _ = make_step(make(0.02))(alone, state, *DATA)
    for ours, theirs in zip(*map(jax.tree.leaves, (params, step(alone, state)))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def take(optimizer, params, state):
    with jax.numpy_dtype_promotion("standard"):
        steps, _ = optimizer.update(fnn.backprop(params, *DATA), state, params)
        return optax.apply_updates(params, steps)


def test_sweeps_of_steps_of_members_and_of_descents_share_a_program_too():
    members = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), PARAMS)

    def several(rate):
        step = make_step(updates.sgd(rate))
        step(PARAMS, updates.sgd(rate).init(PARAMS), *DATA)
        options = {"keys": KEYS, "loss": LOSS, "epochs": 1, "batch_size": 10, "progress": False}
        fit_many(members, DATA, updates.sgd(rate), **options)
        updates.descend(quadratic, 1.0, rate, steps=3)

    several(0.1)
    with compilations() as programs:
        several(0.2)
    assert programs == []


def quadratic(x):
    return x * x, 2 * x


def test_two_hundred_short_fits_take_no_more_memory_than_ten():
    train(updates.sgd(0.5), epochs=1)
    with compilations() as programs:
        for number in range(200):
            train(optax.adam(0.001 * (1 + number)) if number % 2 else updates.sgd(0.001 * (1 + number)), epochs=1)
            if number == 10:
                caches = len(jax.live_arrays())
    assert len(set(programs)) == len(programs) <= 4
    assert len(jax.live_arrays()) <= caches + 5


def test_what_is_not_known_to_stay_as_it_is_is_compared_by_identity():
    """A schedule of one's own may read a variable that changes."""
    scale = [1.0]

    def rule():
        return updates.sgd(lambda step: 0.1 * scale[0])

    first = train(rule(), epochs=1)
    scale[0] = 0.0
    assert_same(train(rule(), epochs=1).params, PARAMS)
    assert not np.array_equal(first.params[0].W, PARAMS[0].W)
    one, other = (jax.tree.structure(Optimizer(rule())) for _ in range(2))
    assert one != other


def test_an_optimizer_is_a_pytree_of_its_rates():
    rule = Optimizer(optax.chain(updates.clip_by_global_norm(2.0), updates.momentum(0.5, 0.9)))
    assert set(jax.tree.leaves(rule)) == {0.5, 0.9, 2.0}
    assert jax.tree.structure(Optimizer(updates.sgd(0.1))) == jax.tree.structure(Optimizer(updates.sgd(0.2)))
    assert jax.tree.structure(Optimizer(optax.adam(0.1))) != jax.tree.structure(Optimizer(optax.adam(0.1, b1=0.8)))


# -- any rule of optax's ---------------------------------------------------------------------------------------------


SHARP = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
WORK = {
    "lbfgs, with its line search": optax.lbfgs(),
    "lbfgs, without": optax.lbfgs(0.1, linesearch=None),
    "sam, opaque": optax.contrib.sam(optax.sgd(0.1), SHARP, opaque_mode=True),
    "polyak": optax.polyak_sgd(),
    "several steps": optax.MultiSteps(optax.sgd(0.1), 4),
    "schedule-free": optax.contrib.schedule_free_sgd(0.1),
    "by loss": optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1)),
}
SLOW = {"polyak", "several steps", "by loss", "lbfgs, without"}
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in WORK]


@pytest.mark.parametrize("name", NAMES)
def test_any_rule_may_ask_for_the_loss_and_its_gradient_elsewhere(name):
    run = train(WORK[name], epochs=8, batch_size=40, validation=DATA)
    assert run.history[-1]["loss"] < 0.95 * run.history[0]["loss"]
    assert evaluate(run, DATA, loss=LOSS)["loss"] == run.history[-1]["validation_loss"]


def test_a_line_search_is_taken_by_the_hand_written_gradient():
    """As by optax's own loop with jax.grad."""
    rule = optax.lbfgs()
    params, state = PARAMS, rule.init(PARAMS)

    def cost(params):
        return LOSS.value(fnn.forward(params, X), DATA[1]).mean()

    @jax.jit
    def step(params, state):
        value, gradients = jax.value_and_grad(cost)(params)
        steps, state = rule.update(gradients, state, params, value=value, grad=gradients, value_fn=cost)
        return optax.apply_updates(params, steps), state

    for _ in range(4):
        with jax.numpy_dtype_promotion("standard"):
            params, state = step(params, state)
    ours = train(rule, epochs=4, batch_size=40).params
    for one, other in zip(*map(jax.tree.leaves, (ours, params))):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)


def test_a_schedule_free_rule_is_evaluated_at_its_average():
    run = train(optax.contrib.schedule_free_sgd(0.1), epochs=3)
    state = run.state.optimizer_state
    expected = jax.jit(optax.contrib.schedule_free_eval_params)(state, run.params)
    for ours, theirs in zip(*map(jax.tree.leaves, (run.network, expected))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert not np.allclose(run.network[0].W, run.params[0].W, atol=1e-4)


def broken(gradients, state, params=None):
    return gradients["W"], state


REFUSED = {
    "lookahead": (lambda: optax.lookahead(optax.sgd(0.1), 5, 0.5), "optax.lookahead trains pairs of fast and slow"),
    "sam": (lambda: optax.contrib.sam(optax.sgd(0.1), SHARP), "optax.contrib.sam moves.*opaque_mode=True"),
    "sophia": (lambda: optax.contrib.sophia(1e-3), "optax.contrib.sophia differentiates an objective twice"),
    "differentially private": (
        lambda: optax.contrib.differentially_private_aggregate(1.0, 1.0, key=KEY),
        "optax's differentially private rules take the gradient of every example.*fnn.per_example.clipped",
    ),
    "sam in a chain": (lambda: optax.chain(optax.contrib.sam(optax.sgd(0.1), SHARP)), "optax.contrib.sam"),
    "one that fails": (
        lambda: optax.GradientTransformation(lambda params: (), broken),
        "its update fails with params, gradients.*TypeError: tuple indices",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_train_is_refused_by_name_before_anything_is_trained(name):
    make, why = REFUSED[name]
    assert_refused(lambda: train(make()), TypeError, [f"^optimizer: {why}"])


# -- exceptions that go from process to process ------------------------------------------------------------------------


def exceptions():
    """Every exception of the package."""
    names = [found.name for found in pkgutil.walk_packages(fnn.__path__, "fnn.") if not found.name.endswith("__main__")]
    if find_spec("sklearn") is None:
        names = [name for name in names if not name.startswith("fnn.sklearn")]
    found = {value for name in names for value in vars(import_module(name)).values() if isinstance(value, type)}
    return [cls for cls in found if issubclass(cls, BaseException) and cls.__module__.startswith("fnn.")]


MADE = {
    NonFinite: lambda: NonFinite("psi of layer 1", 2, 3, PARAMS, (), [{"loss": 1.0}]),
    fnn.implicit.NotConverged: lambda: fnn.implicit.NotConverged("no theta'", 1.0, 0.5),
    Interrupted: lambda: Interrupted(1, train(updates.sgd(0.1), epochs=1)),
}


def test_every_exception_is_pickled_with_what_it_carries():
    found = exceptions()
    assert set(MADE) < set(found)
    for cls in found:
        error = MADE.get(cls, lambda cls=cls: cls("what is wrong"))()
        copied = pickle.loads(pickle.dumps(error))
        assert type(copied) is cls
        assert str(copied) == str(error)
        assert vars(copied).keys() == vars(error).keys()
    error = pickle.loads(pickle.dumps(MADE[NonFinite]()))
    assert (error.epoch, error.step, error.history) == (2, 3, ({"loss": 1.0},))
    assert_same(error.params, PARAMS)


def diverging(rate):
    return train(updates.sgd(rate), epochs=20, data=(X, 1e3 * DATA[1])).history[-1]["loss"]


@pytest.mark.process
def test_one_diverging_run_leaves_the_pool_and_its_other_runs_alone(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, __import__("sys").path)))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        first, second = (pool.submit(diverging, rate) for rate in (100.0, 1e-5))
        with pytest.raises(NonFinite, match="epoch"):
            first.result(timeout=120)
        assert np.isfinite(second.result(timeout=120))
