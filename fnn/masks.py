"""Masks of units and arrows: what dropout draws, as arrays that both passes share."""

from typing import NamedTuple

from jax import Array


class Mask(NamedTuple):
    """The masks of one layer, in the parameters' dtype; None masks nothing.

    units:  (B, n_in) or (1, n_in), multiplies the layer's input: r of whole neurons, per example or per batch.
    arrows: (n_out, n_in), multiplies W: r_kl, one for every arrow l → k.
    For a ``Stack`` both have a leading axis of layers.
    """

    units: Array | None = None
    arrows: Array | None = None


def masked(value: Array, mask: Array | None) -> Array:
    """value ⊙ mask, or value if there is no mask."""
    return value if mask is None else value * mask
