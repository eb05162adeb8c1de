"""Targets and losses: whether y fits the loss and the network's output."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from fnn.activations import Softmax
from fnn.blocks import by_blocks
from fnn.checks import arrays
from fnn.checks.arrays import describe, same_shape
from fnn.checks.network import Ports, floating, made_of
from fnn.losses import Loss


def loss_like(loss, name: str = "loss") -> None:
    """Raise TypeError unless ``loss`` is a hashable object with the methods of a loss."""
    made_of(loss, name, ("value", "delta"), "a loss such as fnn.SquaredError()", Loss)


def loss_values(loss, a, y):
    """The loss of every example, (B,); raises unless it has that shape and the dtype of the outputs a (B, n)."""
    return same_shape(loss.value(a, y), a[:, 0], f"{loss}.value(a, y)")


def target_arguments(ports: Ports, y, loss, name: str = "y") -> None:
    """Raise unless ``loss`` is a loss and y holds labels or has the parameters' dtype, before jit truncates it."""
    loss_like(loss)
    if not isinstance(y, (jax.Array, np.ndarray, np.generic, int)) or isinstance(y, bool):
        floating(name, y, ports)
    array = not isinstance(y, int)
    if not (jnp.issubdtype(y.dtype, jnp.integer) if array else type(y) is int):
        floating(name, y, ports)
    elif not loss.takes_labels:
        n = ports.n_out
        raise TypeError(
            f"{name}: {loss} takes targets of shape (B, {n}), got integers, {describe(y)}; "
            f"one-hot them: jax.nn.one_hot(y, {n}), or write loss=fnn.SoftmaxCrossEntropy()"
        )


def given_target(ports: Ports, y, loss):
    """y in the machine's byte order; raises unless it suits the loss and, where they are at hand, its labels exist."""
    arrays.unmasked("y", y)
    y = arrays.native(y)
    target_arguments(ports, y, loss)
    if ports.n_out > 1 and jnp.issubdtype(getattr(y, "dtype", int), jnp.integer) and arrays.at_hand(y):
        labels = np.asarray(y).ravel()
        refuse((labels < 0) | (labels >= ports.n_out), "y", labels, f"labels from 0 to {ports.n_out - 1}")
    return y


def possible(y: np.ndarray, loss, name: str, rows: np.ndarray | np.bool_) -> None:
    """Raise ValueError, naming the first bad row, unless these rows of targets (N, m) can be those of the loss."""
    expected = getattr(loss, "targets", "")
    if expected:
        refuse(~by_blocks(loss.possible, y) & rows, name, y, f"{expected} for {loss}")


def refuse(bad: np.ndarray, name: str, array: np.ndarray, expected: str) -> None:
    """Raise ValueError naming the first bad row, if there is one."""
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{name}: expected {expected}, got {array[row]} in row {row} ({int(bad.sum())} such rows)")


def fitting(loss, activations: Iterable, n_out: int) -> None:
    """Raise ValueError unless the loss suits these activations of the network's outputs."""
    loss_like(loss)
    for activation in activations:
        if isinstance(activation, Softmax) and n_out == 1:
            raise ValueError(
                "loss: a softmax over one output is 1 whatever the network computes; write output=fnn.Identity() with "
                "loss=fnn.SigmoidCrossEntropy() and y of shape (N, 1)"
            )
        misfit = getattr(loss, "misfit", lambda activation, n_out: None)(activation, n_out)
        if misfit:
            raise ValueError(f"loss: {loss} does not fit the output {activation}: {misfit}")


def target(y, a, loss) -> None:
    """Raise unless y has the shape of a, or holds one label per example; a is (B, n) or (n,)."""
    if jnp.issubdtype(y.dtype, jnp.integer):
        if a.shape[-1] == 1:
            raise ValueError(f"y: a network with one output takes y of shape {a.shape}, got labels of shape {y.shape}")
        if y.shape != a.shape[:-1]:
            raise ValueError(
                f"y: expected labels of shape {a.shape[:-1]}, one per example, got {y.shape}; write y[:, 0] if they "
                "are in a column, or y.astype(x.dtype) if these are targets"
            )
        return
    allowed = [(*a.shape[:-1], n) for n in columns(loss, a.shape[-1])]
    if y.shape not in allowed:
        what = " as the network's output has" if allowed == [a.shape] else f" for {loss}"
        advice = "" if allowed == [a.shape] else "; write loss.beside(y, weights)"
        if a.shape == (*y.shape, 1):
            advice = "; write y[:, None]" if y.ndim else "; write y[None]"
        elif y.ndim == 2 and y.T.shape in allowed:
            advice = "; write y.T, if the examples are in columns"
        raise ValueError(f"y: expected shape {' or '.join(map(str, allowed))}{what}, got {y.shape}{advice}")


def columns(loss, n_out: int) -> tuple[int, ...]:
    """The numbers of columns that floating targets may have."""
    return loss.columns(n_out) if hasattr(loss, "columns") else (n_out,)


def target_rows(y, a, loss):
    """The targets with examples in rows, if they fit the outputs a, (B, n_L) or (n_L,)."""
    target(y, a, loss)
    return y if a.ndim == 2 else y[None]
