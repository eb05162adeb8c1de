"""``BFLOAT16``: the equations with bfloat16 factors in their matrix products, and float32 sums.

In a layer's three products, ψ = a Wᵀ + b, (2a) δ W and (3) δᵀ a, both factors are rounded to bfloat16 (8 bits of
significand: a relative error of at most u = 2⁻⁸) and their terms are summed in float32. Everything else stays float32:
parameters, activations, δ's, gradients, updates. So the error of a product is at most (2u + u²) times the product of
the factors' absolute values, elementwise; for (3), 0.8 % of |δ|ᵀ|a|.

The products have bfloat16 operands and a float32 result, for which GPUs and TPUs have instructions. A CPU computes the
same numbers, but no faster.
"""

import jax.numpy as jnp
from jax import Array, lax

from fnn.backward import RULES
from fnn.masks import masked


def affine(a_in: Array, W: Array, b: Array) -> Array:
    """ψ = a_in Wᵀ + b, (B, n_out)."""
    return _product(a_in, W, (1, 1)) + b


def input_gradient(delta: Array, W: Array, mask: Array | None = None) -> Array:
    """(2a) g = δ W, (B, n_in)."""
    return masked(_product(delta, W, (1, 0)), mask)


def weight_gradient(delta: Array, a_in: Array, mask: Array | None = None) -> Array:
    """(3) δᵀ a_in, (n_out, n_in)."""
    return masked(_product(delta, a_in, (0, 0)), mask)


def _product(left: Array, right: Array, summed: tuple[int, int]) -> Array:
    """The contraction over one axis of each factor, with bfloat16 factors and a float32 sum."""
    if left.dtype != jnp.float32:
        raise TypeError(
            "rules: fnn.BFLOAT16 rounds the factors of products to 8 bits and keeps everything else in float32; "
            f"expected float32 parameters, got {left.dtype}; write rules=fnn.RULES, or fnn.init(..., dtype='float32')"
        )
    factors = _rounded(left).astype(jnp.bfloat16), _rounded(right).astype(jnp.bfloat16)
    return lax.dot_general(*factors, (((summed[0],), (summed[1],)), ((), ())), preferred_element_type=jnp.float32)


def _rounded(factor: Array) -> Array:
    """Rounded to bfloat16; XLA on a CPU may leave out a conversion there and back, but not this."""
    return lax.reduce_precision(factor, exponent_bits=8, mantissa_bits=7)


BFLOAT16 = RULES._replace(affine=affine, input_gradient=input_gradient, weight_gradient=weight_gradient)
