"""Evaluation and prediction, whole data sets in one compiled program."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fnn import checks
from fnn.data import Dataset, as_floats, for_network
from fnn.kinds import AnyParams, kind
from fnn.losses import Loss, SoftmaxCrossEntropy, SquaredError

Record = dict[str, float]


def evaluate(params: AnyParams, data, *, loss: Loss) -> Record:
    """{"loss": the mean over the examples, "accuracy": where y holds classes} of ``data``, a Dataset or (x, y).

    The class is the output with the highest activation (L4).
    """
    params, data = _for_evaluation(params, data, loss)
    return _named(
        _evaluate(params, jnp.asarray(data.x), jnp.asarray(data.y), _classes(data), loss=loss, scale=data.scale), ""
    )


def predict(params: AnyParams, data: Dataset) -> np.ndarray:
    """The network's outputs for every example of ``data``, a Dataset: (N, n_L); ``.argmax(1)`` is the class (L4)."""
    if not isinstance(data, Dataset):
        raise TypeError(
            f"data: expected a fnn.data.Dataset, got {checks.describe(data)}; or write fnn.forward(params, x)"
        )
    loss = SquaredError() if data.y.ndim == 2 else SoftmaxCrossEntropy()
    params, data = _for_evaluation(params, data, loss)
    return np.asarray(_outputs(params, jnp.asarray(data.x), scale=data.scale))


def evaluator(validation: Dataset | None, loss: Loss, folded: Callable) -> Callable[[Any], Record]:
    """A function of the parameters that evaluates ``folded(params)`` on the held-out data, if there are any."""
    if validation is None:
        return lambda params: {}
    x, y = jnp.asarray(validation.x), jnp.asarray(validation.y)
    classes = _classes(validation)
    return lambda params: _named(_evaluate(folded(params), x, y, classes, loss=loss, scale=validation.scale))


@partial(jax.jit, static_argnames="scale")
def folded(params, x, dropout, *, scale):
    """The network for inference, with the statistics of the mini-batches x, (count, B, n)."""
    own = kind(params)
    if not own.has_norm(params):
        return params if dropout is None else own.fold(params, dropout=dropout)
    kept, dtype = own.kept_weights(params, dropout), checks.ports(params).dtype
    moments = jax.lax.map(lambda batch: own.batch_moments(kept, as_floats(batch, dtype, scale)), x)
    return own.fold(params, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), moments), dropout)


@partial(jax.jit, static_argnames="scale")
def _outputs(params, x, *, scale):
    dtype = checks.ports(params).dtype
    return jax.lax.map(lambda row: kind(params).forward(params, as_floats(row, dtype, scale)), x, batch_size=2048)


@partial(jax.jit, static_argnames=("loss", "scale"))
def _evaluate(params, x, y, classes, *, loss, scale):
    a = _outputs(params, x, scale=scale)
    accuracy = (
        None
        if classes is None
        else jnp.mean(jnp.equal(jnp.argmax(a, axis=1).astype(classes.dtype), classes), dtype=jnp.float32)
    )
    values = checks.loss_values(loss, a, y)
    return jnp.mean(values), accuracy


def require_network(params):
    """The parameters, checked; layers as a tuple."""
    kind(params).require(params)
    return tuple(params) if isinstance(params, list) else params


def _classes(data: Dataset) -> Array | None:
    classes = data.classes()
    return None if classes is None else jnp.asarray(classes)


def _for_evaluation(params, data, loss):
    params = require_network(params)
    checks.loss_like(loss)
    if kind(params).has_norm(params):
        raise ValueError(
            "params: a network with a batch norm has no output for single examples; write "
            "fnn.fold(params, fnn.statistics(params, batches))"
        )
    return params, for_network(data, params, loss, "data")


def _named(loss_and_accuracy, prefix: str = "validation_") -> Record:
    names = (f"{prefix}loss", f"{prefix}accuracy")
    return {name: float(value) for name, value in zip(names, loss_and_accuracy) if value is not None}
