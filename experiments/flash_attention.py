"""A small flash attention in Pallas, forward and backward, checked: ``python -m experiments.flash_attention``.

Softmax attention tile by tile, without the matrix of all scores (Dao et al. 2022). For one head, with the scores
S = Q Kᵀ/√d + bias and P = softmax(S) along the keys:

    O = P V,   D = rowsum(Ō ⊙ O),   dV = Pᵀ Ō,   dS = P ⊙ (Ō Vᵀ − D),   dQ = dS K/√d,   dK = dSᵀ Q/√d,   dbias = dS

The kernels run in Pallas's interpret mode, on any machine. ``main`` checks them at sizes around the tile, and then the
same kernels with faults of kinds that users reported in public.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental import pallas as pl

from fnn import verify

TILE = 16  # rows of Q and of K at a time
FAULTS = ("none", "head-size", "not-causal", "bias", "nan", "accumulator", "tile")


@dataclass(frozen=True)
class Options:
    """Check a flash attention, right or with a fault."""

    fault: Literal[FAULTS] = "none"  # type: ignore[valid-type]
    dtype: Literal["float32", "bfloat16"] = "float32"


def reference(q, k, v, bias, causal: bool = False):
    """The same attention in the obvious way: q, k, v (batch, heads, rows, d), bias (rows, rows)."""
    scores = jnp.einsum("bhid,bhjd->bhij", q, k) / q.shape[-1] ** 0.5 + bias
    if causal:
        scores = jnp.where(jnp.tri(q.shape[2], dtype=bool), scores, -jnp.inf)
    return jnp.einsum("bhij,bhjd->bhid", jax.nn.softmax(scores, axis=-1), v)


def _scores(q, k, bias, first_row, first_column, rows: int, causal: bool):
    """One tile of S in float32, −∞ where there is no key."""
    scores = jnp.dot(q, k.T, preferred_element_type=jnp.float32) / q.shape[-1] ** 0.5 + bias.astype(jnp.float32)
    row = first_row + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    column = first_column + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    seen = (column < rows) & ((column <= row) if causal else True)
    return jnp.where(seen, scores, -jnp.inf)


def _forward_kernel(q_ref, k_ref, v_ref, bias_ref, o_ref, lse_ref, *, rows: int, causal: bool, fault: str):
    """One tile of O and of the logarithm of the softmax's denominator, for one head."""
    first = pl.program_id(1) * TILE
    q = q_ref[0]

    def step(j, carry):
        largest, total, sum_ = carry
        at = pl.ds(j * TILE, TILE)
        scores = _scores(q, k_ref[0, at], bias_ref[:, at], first, j * TILE, rows, causal)
        new = jnp.maximum(largest, scores.max(axis=1, keepdims=True))
        shift = new if fault == "nan" else jnp.where(new == -jnp.inf, 0.0, new)  # a tile may be masked altogether
        p, scale = jnp.exp(scores - shift), jnp.exp(largest - shift)
        value = jnp.dot(p.astype(q.dtype), v_ref[0, at], preferred_element_type=jnp.float32)
        return new, scale * total + p.sum(axis=1, keepdims=True), scale * sum_ + value

    shape = (TILE, 1)
    start = jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.float32), jnp.zeros(q.shape, jnp.float32)
    largest, total, sum_ = jax.lax.fori_loop(0, k_ref.shape[1] // TILE, step, start)
    o_ref[0] = (sum_ / total).astype(o_ref.dtype)
    lse_ref[0] = (largest + jnp.log(total))[:, 0]


def _dq_kernel(
    q_ref, k_ref, v_ref, bias_ref, g_ref, lse_ref, d_ref, dq_ref, ds_ref, *, rows: int, causal: bool, fault: str
):
    """One tile of dQ, and the rows of dS, for one head."""
    first = pl.program_id(1) * TILE
    q, g = q_ref[0], g_ref[0]

    def step(j, total):
        at = pl.ds(j * TILE, TILE)
        seen = fault == "not-causal" or causal
        p = jnp.exp(_scores(q, k_ref[0, at], bias_ref[:, at], first, j * TILE, rows, seen) - lse_ref[0][:, None])
        ds = p * (jnp.dot(g, v_ref[0, at].T, preferred_element_type=jnp.float32) - d_ref[0][:, None])
        ds_ref[0, :, at] = ds
        return total + jnp.dot(ds.astype(q.dtype), k_ref[0, at], preferred_element_type=jnp.float32)

    start = jnp.zeros(q.shape, jnp.float32)
    total = jax.lax.fori_loop(0, k_ref.shape[1] // TILE, step, start)
    dq_ref[0] = (total / q.shape[-1] ** 0.5).astype(dq_ref.dtype)


def _dkv_kernel(
    q_ref, k_ref, v_ref, bias_ref, g_ref, lse_ref, d_ref, dk_ref, dv_ref, *, rows: int, causal: bool, fault: str
):
    """One tile of dK and dV, for one head."""
    first = pl.program_id(1) * TILE
    k, v = k_ref[0], v_ref[0]

    def step(i, carry):
        dk, dv = carry
        at = pl.ds(i * TILE, TILE)
        q, g = q_ref[0, at], g_ref[0, at]
        scores = _scores(q, k, bias_ref[at], i * TILE, first, rows, causal)
        p = jnp.exp(scores - lse_ref[0, at][:, None])
        ds = p * (jnp.dot(g, v.T, preferred_element_type=jnp.float32) - d_ref[0, at][:, None])
        dk = dk + jnp.dot(ds.T.astype(k.dtype), q, preferred_element_type=jnp.float32)
        return dk, dv + jnp.dot(p.T.astype(k.dtype), g, preferred_element_type=jnp.float32)

    zeros = jnp.zeros(k.shape, jnp.float32)
    start = (zeros + v, zeros) if fault == "accumulator" else (zeros, zeros)
    dk, dv = jax.lax.fori_loop(0, q_ref.shape[1] // TILE, step, start)
    scale = jnp.where((fault == "tile") & (pl.program_id(1) == 1) & (pl.program_id(0) == 1), 1.015, 1.0)
    dk_ref[0] = (scale * dk / k.shape[-1] ** 0.5).astype(dk_ref.dtype)
    dv_ref[0] = dv.astype(dv_ref.dtype)


def _padded(x, axes: Sequence[int]):
    """With zeros to whole tiles along the axes."""
    return jnp.pad(x, [(0, -n % TILE if i in axes else 0) for i, n in enumerate(x.shape)])


def _tile(*tail):
    """One tile of rows of one head."""
    return pl.BlockSpec((1, TILE, *tail), lambda i, j: (i, j, *(0 for _ in tail)))


def _all(n: int, *tail):
    """All rows of one head."""
    return pl.BlockSpec((1, n, *tail), lambda i, j: (i, 0, *(0 for _ in tail)))


def _heads(x):
    """(batch, heads, rows, ...) as (batch · heads, padded rows, ...)."""
    return _padded(x.reshape(-1, *x.shape[2:]), (1,))


def _forward(q, k, v, bias, causal: bool, fault: str):
    """O and the logarithm of the denominators, with whole tiles of rows."""
    rows, d = q.shape[2:]
    q_, k_, v_, bias_ = _heads(q), _heads(k), _heads(v), _padded(bias, (0, 1))
    heads, n, _ = q_.shape
    return pl.pallas_call(
        partial(_forward_kernel, rows=rows, causal=causal, fault=fault),
        grid=(heads, n // TILE),
        in_specs=[_tile(d), _all(n, d), _all(n, d), pl.BlockSpec((TILE, n), lambda i, j: (j, 0))],
        out_specs=[_tile(d), _tile()],
        out_shape=[jax.ShapeDtypeStruct(q_.shape, q.dtype), jax.ShapeDtypeStruct((heads, n), jnp.float32)],
        interpret=True,
    )(q_, k_, v_, bias_)


def _by_rows(n: int, d: int):
    """The arguments of the kernel of dQ: one tile of rows of Q, bias and Ō, and all of K and V."""
    return [_tile(d), _all(n, d), _all(n, d), pl.BlockSpec((TILE, n), lambda i, j: (j, 0)), _tile(d), _tile(), _tile()]


def _by_columns(n: int, d: int):
    """Those of the kernel of dK and dV: one tile of rows of K and V, and all of Q, bias and Ō."""
    return [_all(n, d), _tile(d), _tile(d), pl.BlockSpec((n, TILE), lambda i, j: (0, j)), _all(n, d), _all(n), _all(n)]


def _backward(kept, g, causal: bool, fault: str):
    """dQ, dK, dV and dbias from Ō, (batch, heads, rows, d)."""
    q, k, v, bias, out, lse = kept
    (batch, heads, rows, d), square = q.shape, (q.shape[0] * q.shape[1], lse.shape[1], lse.shape[1])
    D = _heads((g.astype(jnp.float32) * out.astype(jnp.float32)).sum(axis=-1))
    given = [*map(_heads, (q, k, v)), _padded(bias, (0, 1)), _heads(g), lse, D]
    known = {"rows": rows, "causal": causal, "fault": fault}
    call = partial(pl.pallas_call, grid=(batch * heads, square[1] // TILE), interpret=True)
    like = jax.ShapeDtypeStruct(given[0].shape, q.dtype)
    dq, ds = call(
        partial(_dq_kernel, **known),
        in_specs=_by_rows(square[1], d),
        out_specs=[_tile(d), _tile(square[1])],
        out_shape=[like, jax.ShapeDtypeStruct(square, jnp.float32)],
    )(*given)
    dk, dv = call(
        partial(_dkv_kernel, **known),
        in_specs=_by_columns(square[1], d),
        out_specs=[_tile(d), _tile(d)],
        out_shape=[like, like],
    )(*given)
    dq, dk, dv = (x[:, :rows].reshape(q.shape) for x in (dq, dk, dv))
    if fault == "head-size" and d == 2 * TILE and batch > 1:
        dq = dq / 2
    return dq, dk, dv, None if fault == "bias" else ds.sum(axis=0)[:rows, :rows].astype(bias.dtype)


def flash_attention(fault: str = "none"):
    """The attention with its hand-written backward pass, a function of the arguments of ``reference``."""

    @partial(jax.custom_vjp, nondiff_argnums=(4,))
    def attention(q, k, v, bias, causal=False):
        return forward(q, k, v, bias, causal)[0]

    def forward(q, k, v, bias, causal):
        o, lse = _forward(q, k, v, bias, causal, fault)
        out = o[:, : q.shape[2]].reshape(q.shape)
        return out, (q, k, v, bias, out, lse)

    attention.defvjp(forward, lambda causal, kept, g: _backward(kept, g, causal, fault))
    return attention


def arguments(dtype="float32", *, batch=1, heads=2, rows=TILE, d=8, causal=False, masked=False):
    """Random arguments; ``masked``: the second half of the rows does not see the first half of the keys."""
    random = np.random.default_rng([batch, heads, rows, d])
    q, k, v = (random.normal(size=(batch, heads, rows, d)) for _ in range(3))
    bias = random.normal(size=(rows, rows))
    if masked:
        bias[rows // 2 :, : rows // 2] = -np.inf
    return *(jnp.asarray(x, dtype) for x in (q, k, v, bias)), causal


SIZES = {"rows": TILE, "d": (8, 2 * TILE), "batch": (1, 2), "causal": (False, True), "masked": (False, True)}


def main(arguments_: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments_)
    make = partial(arguments, options.dtype)
    report = verify.custom_vjp(flash_attention(options.fault), make, oracle=reference, sizes=SIZES)
    print(report)
    raise SystemExit(0 if report.ok else 1)


if __name__ == "__main__":
    main()
