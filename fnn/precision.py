"""Matrix products of bfloat16 factors with float32 sums: the keyword ``precision`` of whatever computes layers.

Of the three products of a layer, ψ = a Wᵀ + b, (2a) δ W and (3) δᵀ a, both factors are rounded to bfloat16 (8 bits
of significand: a relative error of at most u = 2⁻⁸) and their terms added in float32. All else is float32: parameters,
activations, δ's, gradients, updates. So one product is off by at most (2u + u²) times the product of the factors'
absolute values, elementwise; that of (3), for instance, by 0.8 % of |δ|ᵀ|a|.

JAX has a name for this, which reaches the compiler and is part of the key under which programs are kept; a GPU or a
TPU computes with its own instructions for it. XLA for the CPU ignores the name, and so the factors are rounded here as
well, to what the hardware would round them to: every device gives what was asked for, a CPU no faster for it.
"""

from contextlib import AbstractContextManager, nullcontext

import jax
import jax.numpy as jnp
from jax import Array, lax

from fnn import checks

PRODUCTS = "BF16_BF16_F32"  # of XLA's algorithms for a product: the factors', and of their sum
BFLOAT16 = {"exponent_bits": 8, "mantissa_bits": 7}
PRECISIONS = ("bfloat16", None)


def products_in(precision: str | None, params) -> AbstractContextManager:
    """A context in which layers have products of factors in ``precision``; of None one that changes nothing.

    Raises what :func:`require` raises.
    """
    require(precision, params)
    return nullcontext() if precision is None else jax.default_matmul_precision(PRODUCTS)


def require(precision: str | None, params) -> None:
    """Raise ValueError for a name but "bfloat16", TypeError where that meets parameters that are no float32 layers."""
    checks.one_of("precision", precision, PRECISIONS)
    if precision is None:
        return
    if hasattr(params, "ports"):
        raise TypeError(
            "precision: 'bfloat16' is for the matrix products of layers, and a graph adds up arrow by arrow; "
            f"expected None, got {precision!r}; write precision=None, or take layers from fnn.init"
        )
    checks.layers(params)
    dtype = checks.ports(params).dtype
    if dtype != jnp.float32:
        raise TypeError(
            f"precision: 'bfloat16' rounds the factors of products to 8 bits and keeps all else in float32; expected "
            f"float32 parameters, got {dtype}, which it would not keep; write precision=None, or fnn.init(..., "
            "dtype='float32')"
        )


def factor(value: Array) -> Array:
    """A factor of a product, rounded to bfloat16 where that is asked for; its dtype stays float32."""
    in_use = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]  # part of a compiled program's key
    wanted = in_use == PRODUCTS and value.dtype == jnp.float32
    # XLA leaves out a conversion to bfloat16 and back, and this not
    return lax.reduce_precision(value, **BFLOAT16) if wanted else value


def with_factors(rules):
    """The same rules, whose two products, (2a) and (3), get their factors rounded where that is asked for."""

    def input_gradient(delta, W, mask):
        return rules.input_gradient(factor(delta), factor(W), mask)

    def weight_gradient(delta, a_in, mask):
        return rules.weight_gradient(factor(delta), factor(a_in), mask)

    return rules._replace(input_gradient=input_gradient, weight_gradient=weight_gradient)
