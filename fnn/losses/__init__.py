"""Losses: the loss of one example, its gradient ∂L/∂a by hand, and the output δ = ∂L/∂z.

A loss is a frozen dataclass, compared and hashed by value. The loss of one example is **summed over its outputs**; the
mean or sum over examples is taken elsewhere. With B examples and n outputs:

    value(a, y) -> (B,)                      one number per example
    gradient(a, y) -> ∂L/∂a (B, n)           by hand
    delta(activation, z, a, y) -> (B, n)     equation (1), δ = ∂L/∂a ⊙ σ'(z); fused where that is more accurate
    hessian(a, y, da) -> ∂²L/∂a² da (B, n)   by hand; used, like sample, only by ``fnn.curvature``
    sample(key, a) -> y                      drawn from the distribution whose −log p is the loss, if there is one

``a`` is the network's output (B, n). ``y`` has the shape and dtype of ``a``. If ``takes_labels`` is true, y may also be
integer class labels (B,), which ``as_targets(y, a)`` converts to one-hot rows. Integers outside 0 … n−1 are refused if
their values are available; in compiled code they become rows of NaN.

    possible(y) -> (B,) bool                 whether floating targets can be those of the loss; ``fit`` refuses others
    misfit(activation, n_out) -> str | None  why the loss does not fit the output; ``fit`` and its siblings raise it

In float32, values and gradients are finite for outputs up to ±1e4; those of ``Poisson``, an exponential, up to 88.
"""

from fnn.losses.base import Loss, as_targets
from fnn.losses.entropies import CrossEntropy, SigmoidCrossEntropy, SoftmaxCrossEntropy
from fnn.losses.regression import Huber, Poisson, SquaredError
from fnn.losses.weighted import Weighted

__all__ = [
    "CrossEntropy",
    "Huber",
    "Loss",
    "Poisson",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "Weighted",
    "as_targets",
]
