"""Masks: dropout of units and of arrows, as arrays that the forward and the backward pass both see.

Randomness enters a network as arrays only, so that the hand-written and the automatic gradient differentiate
one deterministic function (equations S4, 11 to 13: ψ_k = Σ_l w_kl r_kl o_l + β_k, with r drawn beforehand).
"""

from typing import NamedTuple

from jax import Array


class Mask(NamedTuple):
    """The masks of one layer, in the parameters' dtype; None masks nothing.

    units:  (B, n_in) or (1, n_in), multiplies the layer's input: r of whole neurons, by example or by batch.
    arrows: (n_out, n_in), multiplies W: r_kl, one for every arrow l → k (equation S4).
    """

    units: Array | None = None
    arrows: Array | None = None


def masked(value: Array, mask: Array | None) -> Array:
    """value ⊙ mask, or value where there is no mask."""
    return value if mask is None else value * mask
