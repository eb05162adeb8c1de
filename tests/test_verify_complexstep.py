"""The complex step: the oracle's arithmetic against autodiff, operation by operation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from custom_cases import between, normal
from fnn.verify.complexstep import NotAnalytic, derivative
from fnn.verify.interpret import trace
from problems import and_slow

W = normal(3, 4)
SMOOTH = {  # of x, (3, 4), in (0.2, 0.8)
    **{f"jnp.{name}": getattr(jnp, name) for name in (
        "exp", "exp2", "log", "log1p", "expm1", "tanh", "sin", "cos", "tan", "sinh", "cosh", "arcsin", "arccos",
        "arctan", "arcsinh", "arctanh", "sqrt", "square", "abs", "cumsum", "cumprod", "prod", "sort", "transpose",
        "flip", "cbrt",
    )},
    "arccosh": lambda x: jnp.arccosh(1 + x),
    "logistic": jax.nn.sigmoid, "gelu": lambda x: jax.nn.gelu(x, approximate=False), "erfc": jax.lax.erfc,
    "softmax": jax.nn.softmax, "rsqrt": jax.lax.rsqrt, "atan2": lambda x: jnp.arctan2(x, x[::-1] - 1),
    "powers": lambda x: (x - 1) ** 3 + (x - 1) ** 2.0 + x**x + x**-1.5,
    "product": lambda x: (x @ W.T, jnp.einsum("ij,kj->jik", x, x)), "quotient": lambda x: x / x[::-1].sum(),
    "maximum": lambda x: (jnp.maximum(x, 0.5), x.max(0), x.min(), jnp.clip(x, 0.3, 0.6)),
    "rounding": lambda x: x * jnp.round(10 * x) + jnp.floor(x) + jnp.sign(x - 0.5),
    "pad": lambda x: (jnp.pad(x, ((1, 2), (0, 1))), jax.lax.pad(x, 0.0, ((-1, 1, 2), (1, -2, 0)))),
    "parts": lambda x: (jnp.split(x, 2, 1), x[1:, ::2], jnp.concatenate([x, 2 * x]), x.reshape(-1), x[:, None]),
    "indices": lambda x: (x[jnp.array([0, 2, 2])], x.at[1].add(x[0]), x.at[0, 1].set(3.0), jnp.take(x, 5)),
    "dynamic": lambda x: (jax.lax.dynamic_slice(x, (5, 1), (2, 2)), jax.lax.dynamic_update_slice(x, 2 * x[:1], (1, 0))),
    "convolution": lambda x: jax.lax.conv(x[None, None], x[None, None, :2, :2], (1, 1), "VALID"),
    "pooling": lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (2, 2), (1, 1), "VALID"),
    "branches": lambda x: (jnp.where(x > 0.5, x**2, x), jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x)),
    "loop": lambda x: jax.lax.while_loop(lambda s: s[1].sum() < 40, lambda s: (s[0] + 1, s[1] * (1 + x)), (0, x)),
    "float32 inside": lambda x: x.astype(jnp.float32).astype(x.dtype) * 2,
    "batched convolution": jax.vmap(lambda x: jnp.convolve(x, x, "same")),
    "remat": jax.checkpoint(lambda x: jnp.sin(x) * x), "custom": jax.nn.silu,
}  # fmt: skip


@pytest.mark.parametrize(
    "name", and_slow(["softmax", "powers", "maximum", "pad", "indices", "dynamic", "branches", "loop"], SMOOTH)
)
def test_it_agrees_with_autodiff(name, x64):
    x, t = between(3, 4), normal(3, 4)
    traced, arrays = trace(SMOOTH[name], x)
    value, right = jax.jvp(SMOOTH[name], (x,), (t,))
    for ours, theirs in zip(derivative(traced, arrays, [t]), jax.tree.leaves(right)):
        if theirs.dtype == jax.dtypes.float0:
            continue
        np.testing.assert_allclose(ours, theirs, rtol=1e-6 if "float32" in name else 1e-13, atol=1e-14)
    for ours, theirs in zip(jax.tree.leaves(traced(*arrays)), jax.tree.leaves(value)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("f", [jnp.linalg.cholesky, jax.scipy.special.gammaln, lambda x: jnp.abs(jnp.fft.fft(x))])
def test_other_operations_are_declined_and_not_guessed(f, x64):
    traced, arrays = trace(f, np.eye(3) + 1)
    with pytest.raises(NotAnalytic):
        derivative(traced, arrays, [np.ones((3, 3))])


def test_outside_its_domain_it_is_not_finite(x64):
    traced, arrays = trace(lambda x: jnp.sqrt(x) + jnp.log(x), np.array([-1.0, 1.0]))
    found = traced(*arrays), derivative(traced, arrays, [np.ones(2)])[0]
    assert np.isnan(found[0]).tolist() == [True, False]


def test_batched_axes_are_read_in_the_order_that_jax_reads_them(x64):
    """A batched convolution reshapes with an order of the axes."""
    x, k = normal(2, 1, 2, 5, 5), normal(2, 3, 2, 3, 3)
    f = jax.vmap(lambda x, k: jax.grad(lambda x: (jax.lax.conv(x, k, (1, 1), "SAME") ** 2).sum())(x))
    traced, arrays = trace(f, x, k)
    np.testing.assert_allclose(traced(*arrays), f(x, k), rtol=1e-12)
