"""Autodiff as the oracle: every rule of the derivation by ``jax.vjp`` of the forward line to which it belongs.

The modules of ``verify`` are the only ones in the package that use automatic differentiation.
"""

import contextlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fnn.backward import Rules
from fnn.batchnorm import normalise
from fnn.curvature.tangents import TangentRules
from fnn.masks import masked
from fnn.network import affine
from fnn.verify.devices import on_cpu

TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 3e-2, "float16": 5e-3}
NORM_TOLERANCE = TOLERANCE | {"float32": 1e-4}  # a batch norm divides by a deviation estimated from few examples
LARGEST = {"float64": 1e307, "float32": 1e38}


@contextlib.contextmanager
def exactly(dtype: str):
    """A context with x64 for float64, the highest matmul precision, and the CPU; all are restored on exit.

    With TF32, a correct derivation shows an error of 6e-4; with bfloat16 passes, 5e-3.
    """
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"), on_cpu():
        yield


def is_floating(leaf) -> bool:
    return _is(leaf, float, jnp.floating)


def is_inexact(leaf) -> bool:
    """Whether a leaf is a floating or a complex array, so that there are derivatives by it."""
    return is_floating(leaf) or _is(leaf, complex, jnp.complexfloating)


def _is(leaf, python: type, dtype) -> bool:
    """Whether a leaf is a number of Python's type, or an array of such a dtype; an array of text is not."""
    return isinstance(leaf, python) or (
        isinstance(leaf, (jax.Array, np.ndarray, np.generic)) and jnp.issubdtype(leaf.dtype, dtype)
    )


def has_derivatives(leaf) -> bool:
    """As :func:`is_inexact`, for traced arrays too."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def in_dtype(tree, dtype: str):
    """The floating and complex leaves of a pytree in ``dtype``, others unchanged; call it inside ``exactly``."""

    def converted(leaf):
        if not is_inexact(leaf):
            return leaf
        wanted = dtype if is_floating(leaf) else {"float64": "complex128"}.get(dtype, "complex64")
        if isinstance(leaf, jax.core.Tracer):
            return jnp.asarray(leaf, wanted)
        with np.errstate(over="ignore"):
            array = np.asarray(leaf).astype(jnp.dtype(wanted))
        return jnp.asarray(array, array.dtype)  # of an equal dtype, JAX compiles nothing

    return jax.tree.map(converted, tree)


def to_numpy(tree):
    """Every leaf as a NumPy array, because float64 JAX arrays do not survive outside the context."""
    return jax.tree.map(np.asarray, tree)


def fresh(tree):
    """The same leaves in new containers, so that code that modifies its arguments cannot hide anything."""
    return jax.tree.map(lambda leaf: leaf, tree)


def without_float0(tree):
    """Zeros in place of the empty cotangents that JAX has for integers, which cannot be computed with."""
    return jax.tree.map(lambda leaf: np.zeros(np.shape(leaf)) if leaf.dtype == jax.dtypes.float0 else leaf, tree)


def like(values, cotangents):
    """The cotangents with the empty ones that jax.vjp expects for values without a derivative."""

    def of(value, bar):
        return bar if has_derivatives(value) else np.zeros(np.shape(value), jax.dtypes.float0)

    return jax.tree.map(of, values, cotangents)


def random_like(tree, random):
    """A random cotangent for every leaf; zeros for those without a derivative."""

    def draw(leaf):
        if not is_inexact(leaf):
            return np.zeros(np.shape(leaf))
        drawn = random.normal(size=np.shape(leaf))
        if np.iscomplexobj(leaf):
            drawn = drawn + 1j * random.normal(size=np.shape(leaf))
        return jnp.asarray(drawn, jnp.result_type(leaf))

    return jax.tree.map(draw, tree)


# -- the rules, by autodiff ------------------------------------------------------------------------------------


def _pulled(function: Callable, point: Array, cotangent: Array) -> Array:
    return jax.vjp(function, point)[1](cotangent)[0]


def _output_delta(loss, activation, z, a, y):
    return jax.grad(lambda z: jnp.sum(loss.value(activation.value(z), y)))(z)


def _input_gradient(delta, W, mask=None):
    a = jnp.zeros((len(delta), W.shape[1]), delta.dtype)
    b = jnp.zeros(len(W), delta.dtype)
    return _pulled(lambda a: affine(masked(a, mask), W, b), a, delta)


def _hidden_delta(g, activation, z, a):
    return _pulled(activation.value, z, g)


def _norm_pullback(norm, psi, delta_z):
    by_norm, by_psi = jax.vjp(normalise, norm, psi)[1](delta_z)
    return by_psi, by_norm.gamma, by_norm.beta


def _weight_gradient(delta, a_in, mask=None):
    W, b = jnp.zeros((delta.shape[1], a_in.shape[1]), delta.dtype), jnp.zeros(delta.shape[1], delta.dtype)
    return _pulled(lambda W: affine(a_in, masked(W, mask), b), W, delta)


def _bias_gradient(delta):
    W, a = jnp.zeros((delta.shape[1], 1), delta.dtype), jnp.zeros((len(delta), 1), delta.dtype)
    return _pulled(lambda b: affine(a, W, b), jnp.zeros(delta.shape[1], delta.dtype), delta)


AUTODIFF = Rules(
    affine=affine,
    normalise=normalise,
    output_delta=_output_delta,
    input_gradient=_input_gradient,
    hidden_delta=_hidden_delta,
    norm_pullback=_norm_pullback,
    weight_gradient=_weight_gradient,
    bias_gradient=_bias_gradient,
)


def _psi_change(a_in, da_in, W, V, c):
    da = jnp.zeros_like(a_in) if da_in is None else da_in
    return _changed(affine, (a_in, W, jnp.zeros_like(c)), (da, V, c))


def _normalise_change(norm, along, psi, dpsi):
    return _changed(normalise, (norm, psi), (along, dpsi))


def _activation_change(dz, activation, z, a):
    return _changed(activation.value, (z,), (dz,))


def _output_delta_change(loss, activation, z, a, y, dz, da):
    return _changed(lambda z: _output_delta(loss, activation, z, None, y), (z,), (dz,))


def _hidden_delta_change(g, dg, activation, z, a, dz):
    return _changed(lambda g, z: _hidden_delta(g, activation, z, None), (g, z), (dg, dz))


def _norm_pullback_change(norm, along, psi, dpsi, delta_z, d_delta_z):
    return _changed(_norm_pullback, (norm, psi, delta_z), (along, dpsi, d_delta_z))


def _weight_gradient_change(delta, d_delta, a_in, da_in, mask=None):
    da = jnp.zeros_like(a_in) if da_in is None else da_in
    return _changed(lambda delta, a_in: _weight_gradient(delta, a_in, mask), (delta, a_in), (d_delta, da))


def _input_gradient_change(delta, d_delta, W, V, mask=None):
    return _changed(lambda delta, W: _input_gradient(delta, W, mask), (delta, W), (d_delta, V))


def _changed(function: Callable, point: tuple, along: tuple):
    return jax.jvp(function, point, along)[1]


AUTODIFF_TANGENTS = TangentRules(  # each the change of one of the rules above
    psi=_psi_change,
    normalise=_normalise_change,
    activation=_activation_change,
    output_delta=_output_delta_change,
    hidden_delta=_hidden_delta_change,
    norm_pullback=_norm_pullback_change,
    weight_gradient=_weight_gradient_change,
    bias_gradient=_bias_gradient,
    input_gradient=_input_gradient_change,
)


def loss_gradient(loss, a, y):
    """∂L/∂a, (B, n)."""
    return jax.grad(lambda a: jnp.sum(loss.value(a, y)))(a)


def loss_gradient_change(loss, a, y, da):
    """R{∂L/∂a} along da, (B, n)."""
    return _changed(lambda a: loss_gradient(loss, a, y), (a,), (da,))


def slope(activation, z):
    """σ'(z) of an elementwise activation."""
    return _pulled(activation.value, z, jnp.ones_like(z))
