"""Outputs for every loss, and a loss's value and gradients there."""

import jax
import numpy as np
import pytest

import fnn

both_dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])


def outputs(loss, dtype):
    """Outputs a and targets y: probabilities for a loss on probabilities, any number for the others."""
    random = np.random.default_rng(0)
    a = random.uniform(0.02, 0.98, (60, 4)) if isinstance(loss, fnn.CrossEntropy) else random.normal(size=(60, 4)) * 2
    return a.astype(dtype), random.uniform(size=(60, 4)).astype(dtype)


def evaluated(losses, points):
    """Of every loss at its point the value, the gradient by hand and autodiff's, in NumPy; one program for all."""

    def of(loss, a, y):
        return loss.value(a, y), loss.gradient(a, y), jax.grad(lambda a: loss.value(a, y).sum())(a)

    results = jax.jit(lambda points: [of(loss, *at) for loss, at in zip(losses, points)])(points)
    return dict(zip(losses, jax.tree.map(np.asarray, results)))
