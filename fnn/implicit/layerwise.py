"""Implicit back-propagation, layer by layer: back-propagate once, then let every unit take its own proximal step.

Back-propagation gives b = ∂L/∂a of every unit by equations (1) and (2). Explicit SGD uses b σ'(z) where it stands;
the implicit step asks where the unit arrives, with b held fixed and all other layers as they were:

    w' = argmin_w  2ηb σ(wᵀa) + ‖w − w_t‖²,    so    w' = w_t + α a,    α = −ηb σ'(w'ᵀa)

one unknown α per unit and example (``units``). In the last layer the loss itself may stay in place of its
linearisation (``generalized.output_step``). As η → 0 each is explicit SGD to first order, for α → −ηbσ'(z) = −ηδ.
"""

from functools import partial
from typing import Any

import jax
from jax import Array

from fnn.activations import Identity
from fnn.backward import hidden_delta, input_gradient, output_delta
from fnn.checks import arrays
from fnn.checks.arrays import AnyArray
from fnn.checks.numbers import whole
from fnn.implicit.arguments import arguments, target_values
from fnn.implicit.generalized import LOSSES, moved, output_step, rows, squared_length
from fnn.implicit.units import HAVE_STEP, unit_step
from fnn.layers import Dense, Params, each
from fnn.losses import Loss, SquaredError

OUTPUTS = ("proximal", "linear")


def layerwise(
    params: Params,
    x: AnyArray,
    y: AnyArray,
    learning_rate: float | Array,
    *,
    loss: Loss,
    output: str = "proximal",
    steps: int = 4,
) -> Params:
    """One step of implicit back-propagation: the mean over the batch of every unit's own proximal step (S9).

    params: tuple of ``Dense`` with ``Identity``, ``ReLU``, ``Sigmoid`` or ``Tanh`` and no batch norm; x: (B, n_0) or
    (n_0,); y: as the loss takes it, one-hot or labels for a proximal ``SoftmaxCrossEntropy``; learning_rate: η > 0.
    output: the last layer's step. "proximal" keeps the loss as it is, exactly, on an ``Identity`` output with
    ``SquaredError``, ``SoftmaxCrossEntropy``, ``SigmoidCrossEntropy`` or ``Poisson``; "linear" holds ∂L/∂a fixed
    there as in the other layers, for any loss, which on an ``Identity`` output is the explicit step.
    steps: Newton steps of ``Sigmoid`` and ``Tanh``, ≥ 1. Four lose at most 2e-5 of a unit's decrease, where its
    minimum is almost flat (κ = ηb‖a‖² near 6√3); eight lose nothing. Returns new parameters.

    w' = w + α a with α = −ηb σ'(w'ᵀa), averaged over the batch. Robust to a large η, and saturating: averaged
    saturated steps can stop short of what well-tuned explicit SGD reaches. May be called under jit, vmap or scan.
    Raises TypeError or ValueError that names the argument.

    Source: Fagan and Iyengar, *Robust implicit backpropagation* (2018).

    >>> import fnn
    >>> import jax.numpy as jnp
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2), activation=fnn.Tanh())
    >>> layerwise(params, jnp.ones((5, 3)), jnp.zeros(5, int), 0.1, loss=fnn.SoftmaxCrossEntropy())
    (Dense(W=(4, 3), b=(4,), Tanh(), float32), Dense(W=(2, 4), b=(2,), Identity(), float32))
    """
    params, x, y, eta = arguments("layerwise", params, x, y, learning_rate, loss)
    arrays.one_of("output", output, OUTPUTS)
    steps = whole("steps", steps)
    for i, layer in enumerate(params):
        if type(layer.activation) not in HAVE_STEP:
            raise ValueError(
                f"params[{i}].activation: expected {' or '.join(kind.__name__ for kind in HAVE_STEP)}, whose proximal "
                f"steps are worked out, got {layer.activation!r}; write fnn.init(key, sizes, activation=fnn.Tanh())"
            )
    if output == "proximal":
        if type(params[-1].activation) is not Identity or type(loss) not in (SquaredError, *LOSSES):
            raise ValueError(
                f"output: 'proximal' needs an Identity() output with SquaredError or a loss on logits, got {loss!r} "
                f"on {params[-1].activation!r}; write output='linear'"
            )
        target_values(y, loss)
    return _layerwise(params, x, y, eta, loss=loss, output=output, steps=steps)


@partial(jax.jit, static_argnames=("loss", "output", "steps"))
def _layerwise(params, x, y, eta, *, loss, output, steps):
    traces, y = rows(params, x, y, loss)

    def layer_step(g, layer, t):
        """From ∂L/∂a of a layer to that of the one below, and the layer after its step."""
        s = squared_length(t.a_in)
        if g is None:
            delta = output_delta(loss, layer.activation, t.z, t.a, y)  # (1)
            if output == "proximal":
                alpha = output_step(loss, t.z, y, eta, s)
            else:
                alpha = unit_step(layer.activation, t.z, loss.gradient(t.a, y), eta, s, steps)
        else:
            delta = hidden_delta(g, layer.activation, t.z, t.a)  # (2b)
            alpha = unit_step(layer.activation, t.z, g, eta, s, steps)
        # (2a), with the weights from before the step
        return input_gradient(delta, layer.W), moved(layer, t, alpha)

    new: list[Dense] = []
    g: Any = None
    for layer, t in reversed(tuple(zip(params, traces))):
        g, after = each(layer_step, g, layer, t, reverse=True)
        new.insert(0, after)
    return tuple(new)
