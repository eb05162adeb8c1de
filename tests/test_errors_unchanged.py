"""What is refused, or stops halfway, leaves nothing changed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from errors import LABELS, PARAMS, SOFTMAX, Narrow, X, Y, changed, fit, spoiled


def raising(state):
    raise RuntimeError("stopped by the caller")


def refusing(gradients, state, params=None):
    raise RuntimeError("no step today")


def growing(gradients, state, params=None):
    return jax.tree.map(lambda g: jnp.stack([g, g]), gradients), state


def optimizer(update):
    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


FAILING_FITS = {
    "NaN": {"data": (spoiled(X, np.nan), Y)},
    "labels": {"data": (X, LABELS)},
    "validation": {"validation": (X, X)},
    "batch_size": {"batch_size": 0},
    "a callback that raises": {"callback": raising, "epochs": 3},
    "an optimizer that raises": {"optimizer": optimizer(refusing)},
    "steps of another shape": {"optimizer": optimizer(growing)},
    "an activation that narrows": {"params": changed(activation=Narrow())},
}


@pytest.mark.parametrize("options", FAILING_FITS.values(), ids=FAILING_FITS)
def test_a_fit_that_fails_leaves_the_callers_arrays_as_they_were(options):
    params, data = options.get("params", PARAMS), options.get("data", (X, Y))
    before = [np.array(leaf) for leaf in jax.tree.leaves((params, data))]
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        fit(**options)
    for leaf, copy in zip(jax.tree.leaves((params, data)), before):
        np.testing.assert_array_equal(leaf, copy)


def test_a_fit_after_one_that_failed_is_as_if_there_had_been_none():
    expected = fit(epochs=2).params
    with pytest.raises(RuntimeError, match="stopped by the caller"):
        fit(epochs=2, callback=raising)
    after = fit(epochs=2).params
    for ours, theirs in zip(jax.tree.leaves(after), jax.tree.leaves(expected)):
        np.testing.assert_array_equal(ours, theirs)


def test_a_step_after_one_that_was_refused_is_as_if_there_had_been_none():
    step, state = fnn.train.make_step(fnn.updates.momentum(0.1)), fnn.updates.momentum(0.1).init(PARAMS)
    expected = step(PARAMS, state, X, Y)
    with pytest.raises(ValueError, match="^y: "):
        step(PARAMS, state, X, Y[:, :1])
    for ours, theirs in zip(jax.tree.leaves(step(PARAMS, state, X, Y)), jax.tree.leaves(expected)):
        np.testing.assert_array_equal(ours, theirs)


def test_fit_and_evaluate_do_not_write_into_the_callers_arrays():
    x, y = np.full((5, 3), 200, np.uint8), np.array([0, 1, 1, 0, 1])
    for array in (x, y):
        array.flags.writeable = False
    fit(data=(x, y), loss=SOFTMAX, validation=(x, y))
    fnn.train.evaluate(PARAMS, (x, y), loss=SOFTMAX)
    assert (x.dtype, y.dtype) == (np.uint8, np.int64)


def test_a_callback_may_spoil_the_records_it_is_given():
    history = fit(epochs=2, callback=lambda state: state.history[0].clear()).history
    assert [record["epoch"] for record in history] == [1, 2]
