"""Bad arguments of ``fnn.verify.gradient`` are refused by name."""

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from errors import PARAMS, X, Y, assert_refusal, full, ones, refusals, refused


def double(w):
    return 2 * w


def squares(w):
    return jnp.sum(w * w)


def gradient(hand=double, objective=squares, params=ones(3), **options):
    return fnn.verify.gradient(hand, objective, params, **options)


GRADIENT = {
    "hand no function": refused("TypeError: hand: expected a function…got 5", hand=5),
    "gradients for hand": refused("TypeError: hand: expected a function…got …1", hand=ones(3)),
    "objective no function": refused("TypeError: objective: expected a function…got None", objective=None),
    "an objective of three numbers": refused("ValueError: objective: expected a scalar, got …(3,)", objective=double),
    "integer params": refused("TypeError: params: expected a floating array…got int", params=np.arange(3)),
    "a string for params": refused("TypeError: params: expected…got str 'w'", params="w"),
    "an unknown dtype": refused("ValueError: dtype: expected 'float64' or 'float32', got 'float16'", dtype="float16"),
    "a numpy dtype": refused("ValueError: dtype: expected 'float64' or 'float32', got 'float16'", dtype=np.float16),
    "a tolerance below 0": refused("ValueError: tolerance: expected…got -0.001", tolerance=-1e-3),
    "a tolerance of NaN": refused("ValueError: tolerance: expected…got nan", tolerance=np.nan),
    "a tolerance of infinity": refused("ValueError: tolerance: expected…got inf", tolerance=np.inf),
    "a string for a tolerance": refused("TypeError: tolerance: expected…got '1e-3'", tolerance="1e-3"),
}


def on_data(check):
    return lambda y: check(PARAMS, X, y, loss=fnn.SquaredError())


MASKED = {
    "a mask": refused("TypeError: y: expected a plain array, got a masked one", y=np.ma.masked_array(Y, mask=Y == 0))
}
CHECKS = {"network": on_data(fnn.verify.network), "curvature": on_data(fnn.verify.curvature)}


@refusals(({"gradient": gradient}, GRADIENT), (CHECKS, MASKED))
def test_a_bad_argument_is_refused_by_name_and_x64_stays_off(call, message):
    assert_refusal(call, message)
    assert not jax.config.jax_enable_x64


def test_verify_reports_a_gradient_of_another_shape_and_does_not_broadcast_it():
    report = fnn.verify.gradient(lambda w: jnp.ones((1, 3)), squares, full(0.5, 3))
    assert not report.ok
    assert "shape (1, 3), expected (3,)" in str(report)
