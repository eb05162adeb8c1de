"""How a hand-written derivative is compared with autodiff: dtype, matmul precision, and rounding.

This is the only place of the package, with its neighbours here, where ``jax.grad`` is used.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


@contextlib.contextmanager
def exactly(dtype: str):
    """x64 for float64, and the highest matmul precision; both restored on leaving.

    With TF32 a correct derivation shows an error of 6e-4, with bfloat16 passes 5e-3.
    """
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        yield


def in_dtype(tree, dtype: str):
    """The floating leaves of a pytree in ``dtype``, its other leaves as they are; call it inside ``exactly``."""

    def convert(leaf):
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jnp.asarray(leaf, dtype) if floating else leaf

    return jax.tree.map(convert, tree)


def to_numpy(tree):
    """Every leaf as a NumPy array, for float64 jax arrays do not survive outside the context."""
    return jax.tree.map(np.asarray, tree)


def one_ulp_away(tree, seed: int):
    """The floating leaves moved to a neighbouring number, up or down at random."""
    random = np.random.default_rng(seed)

    def move(leaf):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            return leaf
        leaf = np.asarray(leaf)
        return jnp.asarray(np.nextafter(leaf, random.choice([-np.inf, np.inf], leaf.shape).astype(leaf.dtype)))

    return jax.tree.map(move, tree)
