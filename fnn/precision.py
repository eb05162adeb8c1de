"""``BFLOAT16``: the equations with bfloat16 factors in their matrix products, and float32 sums.

Of the three products of a layer, ψ = a Wᵀ + b, (2a) δ W and (3) δᵀ a, both factors are rounded to bfloat16 (8 bits
of significand: a relative error of at most u = 2⁻⁸) and their terms are added in float32. All else stays float32:
parameters, activations, δ's, gradients, updates. So a product is off by at most (2u + u²) times the product of the
factors' absolute values, elementwise; that of (3), for instance, by 0.8 % of |δ|ᵀ|a|.

The products are asked for as bfloat16 operands with a float32 result, which a GPU or a TPU has instructions for. A CPU
computes the same numbers, no faster for it.
"""

import jax.numpy as jnp
from jax import Array, lax

from fnn.backward import RULES
from fnn.dropout import masked


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
    """The sum over one axis of each, of factors in bfloat16, in float32."""
    factors = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    return lax.dot_general(*factors, (((summed[0],), (summed[1],)), ((), ())), preferred_element_type=jnp.float32)


BFLOAT16 = RULES._replace(affine=affine, input_gradient=input_gradient, weight_gradient=weight_gradient)
