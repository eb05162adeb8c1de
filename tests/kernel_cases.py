"""Kernels for the tests of verify.custom_vjp in their own precision: references, and what may be wrong with them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl


def random(*shape, dtype="float32"):
    return jnp.asarray(np.random.default_rng(shape).normal(size=shape), dtype)


def dot(a, b):
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


# -- a product -------------------------------------------------------------------------------------------------


def product(x, w):
    return x @ w


def product_kernel(change=lambda x, w, dx, dw: (dx, dw)):
    """x w with sums in float32; ``change``: what is done to the cotangents before they are rounded."""

    @jax.custom_vjp
    def kernel(x, w):
        return dot(x, w).astype(x.dtype)

    def backward(args, g):
        x, w = args
        dx, dw = change(x, w, dot(g, w.T), dot(x.T, g))
        return dx.astype(x.dtype), dw.astype(w.dtype)

    kernel.defvjp(lambda *args: (kernel(*args), args), backward)
    return kernel


# -- layer norm, in Pallas -------------------------------------------------------------------------------------

ROWS = 8  # in a tile


def layer_norm(x, gain):
    centred = x - x.mean(axis=-1, keepdims=True)
    return gain * centred / jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)


def _normed(x):
    x = x.astype(jnp.float32)
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return centred / deviation, deviation


def _norm_forward(x_ref, gain_ref, y_ref):
    y_ref[...] = (gain_ref[...].astype(jnp.float32) * _normed(x_ref[...])[0]).astype(y_ref.dtype)


def _norm_backward(x_ref, gain_ref, g_ref, dx_ref, dgain_ref, *, fault):
    x_hat, deviation = _normed(x_ref[...])
    g = g_ref[...].astype(jnp.float32)
    h = g * gain_ref[...].astype(jnp.float32)
    mean = 0.0 if fault == "mean" else h.mean(axis=-1, keepdims=True)
    dx = (h - mean - x_hat * (h * x_hat).mean(axis=-1, keepdims=True)) / deviation
    dx_ref[...] = dx.astype(dx_ref.dtype)

    @pl.when((pl.program_id(0) == 0) & (fault != "accumulator"))
    def _():
        dgain_ref[...] = jnp.zeros_like(dgain_ref)

    dgain_ref[...] += (g * x_hat).sum(axis=0)


def layer_norm_kernel(fault=""):
    """The gain's cotangent is accumulated over the tiles of rows; ``fault``: "mean", "accumulator", "edge" or none."""

    def blocks(n):
        return pl.BlockSpec((ROWS, n), lambda i: (i, 0)), pl.BlockSpec((n,), lambda i: (0,))

    def padded(x):
        return jnp.pad(x, ((0, -len(x) % ROWS), (0, 0)))

    @jax.custom_vjp
    def kernel(x, gain):
        rows, all_ = blocks(x.shape[1])
        given = padded(x)
        call = pl.pallas_call(_norm_forward, grid=(len(given) // ROWS,), in_specs=[rows, all_], out_specs=rows,
                              out_shape=jax.ShapeDtypeStruct(given.shape, x.dtype), interpret=True)  # fmt: skip
        return call(given, gain)[: len(x)]

    def backward(args, g):
        x, gain = args
        rows, all_ = blocks(x.shape[1])
        given = padded(x)
        if fault == "edge":  # the last tile's rows are taken for whole ones
            g = jnp.concatenate([g, jnp.ones((len(given) - len(g), g.shape[1]), g.dtype)])
            given = given.at[len(x) :, 0].set(1)
        like = jax.ShapeDtypeStruct(given.shape, x.dtype), jax.ShapeDtypeStruct(gain.shape, jnp.float32)
        backwards = partial(_norm_backward, fault=fault)
        call = pl.pallas_call(backwards, grid=(len(given) // ROWS,),
                              in_specs=[rows, all_, rows], out_specs=[rows, all_], out_shape=like,
                              interpret=True)  # fmt: skip
        dx, dgain = call(given, gain, padded(g))
        return dx[: len(x)], dgain.astype(gain.dtype)

    kernel.defvjp(lambda *args: (kernel(*args), args), backward)
    return kernel


# -- softmax cross-entropy, in Pallas ---------------------------------------------------------------------------


def cross_entropy(z, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(z), labels[:, None], axis=1)[:, 0]


def _entropy(z_ref, labels_ref, loss_ref, dz_ref, *, fault):
    z = z_ref[...].astype(jnp.float32)
    z = z if fault == "overflow" else z - z.max(axis=-1, keepdims=True)
    e = jnp.exp(z)
    total = e.sum(axis=-1, keepdims=True)
    hot = jax.lax.broadcasted_iota(jnp.int32, z.shape, 1) == labels_ref[...][:, None]
    loss_ref[...] = (jnp.log(total)[:, 0] - jnp.where(hot, z, 0).sum(axis=-1)).astype(loss_ref.dtype)
    dz_ref[...] = (e / total - hot.astype(jnp.float32)).astype(dz_ref.dtype)


def cross_entropy_kernel(fault=""):
    """The gradient comes with the loss, from one pass; ``fault``: "overflow", "cotangent" or none."""

    def both(z, labels):
        n, k = len(z), z.shape[1]
        z, labels = (jnp.pad(x, [(0, -n % ROWS), *[(0, 0)] * (x.ndim - 1)]) for x in (z, labels))
        row, rows = pl.BlockSpec((ROWS,), lambda i: (i,)), pl.BlockSpec((ROWS, k), lambda i: (i, 0))
        like = jax.ShapeDtypeStruct(labels.shape, z.dtype), jax.ShapeDtypeStruct(z.shape, z.dtype)
        call = pl.pallas_call(partial(_entropy, fault=fault), grid=(len(z) // ROWS,), in_specs=[rows, row],
                              out_specs=[row, rows], out_shape=like, interpret=True)  # fmt: skip
        loss, dz = call(z, labels)
        return loss[:n], dz[:n]

    @jax.custom_vjp
    def kernel(z, labels):
        return both(z, labels)[0]

    def backward(dz, g):
        return (dz if fault == "cotangent" else g[:, None] * dz), None

    kernel.defvjp(both, backward)
    return kernel
