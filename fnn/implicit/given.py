"""Argument checks for ``implicit``, before compiled code runs, as in ``checks``."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fnn.activations import Identity
from fnn.checks import arrays, targets
from fnn.checks import network as checks
from fnn.losses import Loss, Poisson, SigmoidCrossEntropy, SoftmaxCrossEntropy
from fnn.numbers import number


def given(call: str, params, x, y, learning_rate, loss: Loss):
    """(params, x, y, η as an array in the parameters' dtype); raises TypeError or ValueError naming the argument."""
    params, x, _ = checks.careful_arguments(params, x, None)
    y = targets.given_target(checks.ports(params), y, loss)
    for i, layer in enumerate(params):
        if layer.norm is not None:
            raise ValueError(
                f"params[{i}].norm: expected None, got a batch norm, which couples the examples of a batch, so "
                f"no example has its own step; write fnn.init(key, sizes) without batch_norm for implicit.{call}"
            )
    return params, x, y, rate(call, learning_rate, params[0].W.dtype)


def one_linear_layer(call: str, params) -> None:
    """Raise ValueError unless ``params`` is one layer with ``Identity``."""
    if len(params) != 1 or type(params[0].activation) is not Identity:
        got = ", ".join(repr(layer.activation) for layer in params)
        raise ValueError(
            f"params: implicit.{call} takes one layer with Identity(), got {len(params)} with {got}; "
            "write fnn.init(key, (n_in, n_out)), or implicit.layerwise(...) for a network"
        )


def target_values(y, loss: Loss) -> None:
    """Raise ValueError for unsupported targets; a traced y has no values to check and gives NaN instead."""
    if isinstance(y, jax.core.Tracer):
        return
    values = np.asarray(y)
    if type(loss) is SoftmaxCrossEntropy and values.dtype.kind == "f" and not _one_hot(values):
        raise ValueError(
            "y: the implicit step of SoftmaxCrossEntropy needs labels or one-hot rows, got soft targets; "
            "write jnp.argmax(y, axis=-1), or output='linear' in implicit.layerwise"
        )
    if type(loss) is SigmoidCrossEntropy and values.dtype.kind == "f" and not ((values >= 0) & (values <= 1)).all():
        raise ValueError(
            f"y: expected 0 <= y <= 1 for {loss}, got {values.min()} to {values.max()}; write y.clip(0, 1)"
        )
    if type(loss) is Poisson and not (values >= 0).all():
        raise ValueError(f"y: expected counts >= 0 for {loss}, got {values.min()}; write jnp.maximum(y, 0)")


def _one_hot(values: np.ndarray) -> bool:
    return bool((((values == 0) | (values == 1)).all(axis=-1) & (values.sum(axis=-1) == 1)).all())


def rate(call: str, learning_rate, dtype) -> Array:
    if isinstance(learning_rate, jax.core.Tracer):
        if learning_rate.shape != ():
            raise ValueError(f"learning_rate: expected one number, got {arrays.describe(learning_rate)}; vmap over it")
        return learning_rate.astype(dtype)
    return jnp.asarray(number(f"implicit.{call}", "learning_rate", learning_rate, above=0), dtype)
