"""Back-propagation: the δ equations as named functions, and the loop that reads like the derivation.

For a batch in rows, with ψ = z where there is no batch norm, C the loss over the examples, N = B for their
mean and 1 for their sum:

    (1)  δ^L = ∂L/∂a ⊙ σ'(z^L)
    (2)  δ^ℓ = (δ^{ℓ+1} W^{ℓ+1}) ⊙ σ'(z^ℓ)      (2a) g = δ^{ℓ+1} W^{ℓ+1}   (2b) δ^ℓ = g ⊙ σ'(z^ℓ)
    (3)  ∂C/∂W^ℓ = (δ^ℓ)ᵀ a^{ℓ−1} / N
    (4)  ∂C/∂b^ℓ = Σ_rows δ^ℓ / N

In the documents: H8 to H10, B6, S2 to S4 (λ is δ), N5. No automatic differentiation here; ``fnn.verify``
compares each equation with it. The notation is that of ``network``.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fnn import checks
from fnn.activations import Activation
from fnn.batchnorm import norm_pullback
from fnn.dropout import masked
from fnn.losses import Loss, SquaredError
from fnn.network import Masks, Params, each, forward_pass, like_examples, target_rows
from fnn.precision import products_in, with_factors

SMALL = 32_768  # entries of a batch's outer products up to which their sum, fused with the update, is the faster (3)


def output_delta(loss: Loss, activation: Activation, z: Array, a: Array, y: Array) -> Array:
    """(1) δ^L = ∂L/∂a ⊙ σ'(z^L), (B, n_L); fused where the loss knows its output activation (B6, S3).

    B7, corrected in its sign, is the squared error behind a sigmoid; a softmax takes its whole Jacobian (B12).
    """
    return loss.delta(activation, z, a, y)


def layer_input_gradient(delta: Array, W: Array, mask: Array | None = None) -> Array:
    """(2a) g = ∂/∂a^{ℓ−1} = δ^ℓ W^ℓ, (B, n_in); W with its arrow mask in it, mask of this layer's input units.

    The Jacobian ∂z^{ℓ+1}/∂a^ℓ = W^{ℓ+1} in H9, H15, H16 (corrected), L8, B8, B14 and N5.
    """
    return masked(delta @ W, mask)


def hidden_delta(g: Array, activation: Activation, z: Array, a: Array) -> Array:
    """(2b) ∂/∂z^ℓ = g ⊙ σ'(z^ℓ), (B, n_ℓ) (with 2a: H9, B6, S2, N5).

    ∂a^ℓ/∂z^ℓ is a diagonal matrix (H15), and so ⊙ an elementwise product (H13 corrected).
    """
    return activation.pullback(g, z, a)


def weight_gradient(delta: Array, a_in: Array, mask: Array | None = None) -> Array:
    """(3) Σ_rows δ ⊗ a_in = δᵀ a_in, (n_out, n_in), times the arrow mask (H10 corrected, S4); a_in carries its mask.

    An outer product per example: ∂ψ_i/∂W_ij = a_j, and 0 for other rows (H14 corrected, B6, B14). An arrow that is
    masked has gradient 0 (S12).
    """
    if delta.size * a_in.shape[-1] <= SMALL:
        return masked(jnp.sum(delta[:, :, None] * a_in[:, None, :], axis=0), mask)
    return masked(delta.T @ a_in, mask)


def bias_gradient(delta: Array) -> Array:
    """(4) Σ_rows δ, (n_out,), for ∂ψ/∂b is the identity (H10; H14 and N8 corrected)."""
    return jnp.sum(delta, axis=0)


class Rules(NamedTuple):
    """The equations as values: examples in rows, sums over the batch, no mean inside a rule.

    ``backprop(..., rules=RULES._replace(hidden_delta=mine))`` runs an equation of your own, and
    ``fnn.verify`` says whether it is right. Pass functions that live in a module: a fresh lambda compiles anew.
    """

    output_delta: Callable = output_delta  # (loss, activation, z, a, y) -> ∂/∂z^L
    input_gradient: Callable = layer_input_gradient  # (delta, W, mask=None) -> ∂/∂a^{ℓ−1}
    hidden_delta: Callable = hidden_delta  # (g, activation, z, a) -> ∂/∂z^ℓ
    norm_pullback: Callable = norm_pullback  # (norm, psi, delta_z) -> (∂/∂psi, ∂/∂gamma, ∂/∂beta)
    weight_gradient: Callable = weight_gradient  # (delta, a_in, mask=None) -> (n_out, n_in)
    bias_gradient: Callable = bias_gradient  # (delta) -> (n_out,)


RULES = Rules()


def require_rules(rules) -> None:
    """Raise TypeError unless ``rules`` are :class:`Rules`."""
    if not isinstance(rules, Rules):
        raise TypeError(f"rules: expected fnn.Rules, got {rules!r}; write fnn.RULES._replace(hidden_delta=...)")


class Backward(NamedTuple):
    """All that one backward pass yields: the loss, the δ's, ∂/∂z (δ where no batch norm is), gradients, and ∂C/∂x."""

    loss: Array
    deltas: tuple[Array, ...]
    deltas_z: tuple[Array, ...]
    gradients: Params
    input_gradient: Array


@partial(jax.jit, static_argnames=("loss", "reduction", "rules", "want"))
def _backward(params, x, y, masks, *, loss, reduction, rules, want):
    a, passed = forward_pass(params, x, masks)
    y = target_rows(y, x, a, loss)
    scale = 1 / len(a) if reduction == "mean" else 1
    rules = with_factors(checks.exact(rules))

    def layer_backward(above, layer, mask, here):
        """From (∂/∂a, a) of a layer to those of the one below; and its δ and gradients."""
        # a scan keeps what is read of ``here``: a comes from above and a_in from a_before, so that it keeps one array
        (g, a), (a_before, t) = above, here
        if g is None:
            delta_z = rules.output_delta(loss, layer.activation, t.z, a, y)  # (1)
        else:
            delta_z = rules.hidden_delta(g, layer.activation, t.z, a)  # (2b)
        delta, norm = delta_z, None
        if layer.norm is not None:
            delta, gamma, beta = rules.norm_pullback(layer.norm, t.psi, delta_z)
            norm = replace(layer.norm, gamma=gamma * scale, beta=beta * scale)
        W = rules.weight_gradient(delta, masked(a_before, mask.units), mask.arrows) * scale  # (3)
        b = rules.bias_gradient(delta) * scale  # (4)
        g = rules.input_gradient(delta, masked(layer.W, mask.arrows), mask.units)  # (2a)
        return (g, a_before), (delta, delta_z, replace(layer, W=W, b=b, norm=norm))

    found: list[tuple] = []
    above: Any = (None, a)
    for layer, mask, here in reversed(tuple(zip(params, masks, passed))):
        above, of_layer = each(layer_backward, above, layer, mask, here, reverse=True)
        found.insert(0, of_layer)
    deltas, deltas_z, gradients = zip(*found)

    value = jnp.sum(checks.loss_values(loss, a, y)) * scale
    of_x, deltas, deltas_z = like_examples((above[0] * scale, deltas, deltas_z), x)
    result = Backward(value, deltas, deltas_z, gradients, of_x)
    return tuple(getattr(result, name) for name in want)  # what is not wanted is not computed


def run(want, params, x, y, loss, reduction, masks, rules, precision=None):
    """The fields of :class:`Backward` that are named in ``want``; arguments as in :func:`backprop`."""
    params, x, masks = checks.network_arguments(params, x, masks)
    checks.target_arguments(params, y, loss)
    checks.one_of("reduction", reduction, checks.REDUCTIONS)
    require_rules(rules)
    with products_in(precision, params):
        return _backward(params, x, y, masks, loss=loss, reduction=reduction, rules=rules, want=want)


def backprop(
    params: Params,
    x: Array,
    y: Array,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks: Masks = None,
    rules: Rules = RULES,
    precision: str | None = None,
) -> Params:
    """The gradients ∂C/∂W, ∂C/∂b of every layer, by equations (1) to (4); a pytree like ``params``.

    params: tuple of ``Dense``; x: (B, n_0) or (n_0,); y: (B, n_L) or (n_L,), both in the parameters' dtype, or
    integer labels (B,) where the loss takes them; loss: see ``fnn.losses``; reduction: "mean" or "sum" over the
    examples (L7, S3); masks: one ``Mask`` per layer, or None; rules: the equations to use; precision: None, or
    "bfloat16" for the factors of the products (2a), (3) and of the forward pass, see ``fnn.precision``.

    The stacked gradient of L9, by reverse accumulation (L10): each δ once, from the output down (H12), all of them with
    the W from before any update (H11 corrected). Examples are independent, and so may be computed in parallel (N6).

    Compiled once for each combination of shapes, loss, reduction and rules; may be called under a user's own
    jit, vmap or scan. Raises TypeError or ValueError that names the argument.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2))
    >>> fnn.backprop(params, jnp.ones((5, 3)), jnp.zeros((5, 2)))
    (Dense(W=(4, 3), b=(4,), Sigmoid(beta=1.0), float32), Dense(W=(2, 4), b=(2,), Identity(), float32))
    """
    return run(("gradients",), params, x, y, loss, reduction, masks, rules, precision)[0]


def value_and_backprop(
    params: Params,
    x: Array,
    y: Array,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks: Masks = None,
    rules: Rules = RULES,
    precision: str | None = None,
) -> tuple[Array, Params]:
    """The loss C, a scalar, and its gradients; arguments as in :func:`backprop`."""
    return run(("loss", "gradients"), params, x, y, loss, reduction, masks, rules, precision)


def deltas(
    params: Params,
    x: Array,
    y: Array,
    *,
    loss: Loss = SquaredError(),
    masks: Masks = None,
    rules: Rules = RULES,
    precision: str | None = None,
) -> tuple[Array, ...]:
    """δ^ℓ = ∂(Σ_n L_n)/∂ψ^ℓ for every layer (H8): a tuple of (B, n_ℓ), or (n_ℓ,) for a single example.

    The derivative is of the **sum** over the examples, so row n does not shrink as the batch grows. With the
    layers' inputs (``trace``) all else follows: ∂C/∂W^ℓ = (δ^ℓ)ᵀ a_in / N. Reverse-mode automatic differentiation
    computes the same numbers and shows none of them (L10). Arguments as in :func:`backprop`.
    """
    return run(("deltas",), params, x, y, loss, "sum", masks, rules, precision)[0]


def input_gradient(
    params: Params,
    x: Array,
    y: Array,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks: Masks = None,
    rules: Rules = RULES,
    precision: str | None = None,
) -> Array:
    """∂C/∂x, of x's shape: equation (2a) carried through to the input. Arguments as in :func:`backprop`."""
    return run(("input_gradient",), params, x, y, loss, reduction, masks, rules, precision)[0]
