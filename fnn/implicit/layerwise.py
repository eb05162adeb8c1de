"""Implicit back-propagation, layer by layer: back-propagate once, then take a proximal step for every unit.

Back-propagation gives b = ∂L/∂a of every unit by equations (1) and (2). Explicit SGD uses b σ'(z) at the start of the
step; the implicit step uses σ' at its end, with b held fixed and all other layers unchanged:

    w' = argmin_w  2ηb σ(wᵀa) + ‖w − w_t‖²,    so    w' = w_t + α a,    α = −ηb σ'(w'ᵀa)

with one unknown α per unit and example (``units``). In the last layer the loss itself can be used instead of its
linearisation (``generalized.output_step``). As η → 0, α → −ηbσ'(z) = −ηδ, which is explicit SGD.
"""

from functools import partial
from typing import Any

import jax
from jax import Array

from fnn.activations import Identity
from fnn.backward import hidden_delta, input_gradient, output_delta
from fnn.checks import arrays
from fnn.checks.arrays import AnyArray
from fnn.implicit.generalized import LOSSES, moved, output_step, rows, squared_length
from fnn.implicit.given import given, target_values
from fnn.implicit.units import HAVE_STEP, unit_step
from fnn.layers import Dense, Params, each
from fnn.losses import Loss, SquaredError
from fnn.numbers import whole

OUTPUTS = ("proximal", "linear")


def layerwise(
    params: Params,
    x: AnyArray,
    y: AnyArray,
    learning_rate: float | Array,
    *,
    loss: Loss = SquaredError(),
    output: str = "proximal",
    steps: int = 4,
) -> Params:
    """One step of implicit back-propagation: the mean over the batch of every unit's proximal step.

    params: tuple of ``Dense`` with ``Identity``, ``ReLU``, ``Sigmoid`` or ``Tanh`` and no batch norm; x: (B, n_0) or
    (n_0,); y: as the loss takes it, one-hot or labels for a proximal ``SoftmaxCrossEntropy``; learning_rate: η > 0.
    output: the last layer's step. "proximal" uses the exact loss, on an ``Identity`` output with ``SquaredError``,
    ``SoftmaxCrossEntropy``, ``SigmoidCrossEntropy`` or ``Poisson``. "linear" holds ∂L/∂a fixed as in the other layers,
    for any loss; on an ``Identity`` output this is the explicit step.
    steps: Newton steps for ``Sigmoid`` and ``Tanh``, ≥ 1. Four lose at most 2e-5 of a unit's decrease, near an almost
    flat minimum (κ = ηb‖a‖² near 6√3); eight lose nothing. Returns new parameters.

    w' = w + α a with α = −ηb σ'(w'ᵀa), averaged over the batch. Steps are robust to a large η but saturate, and
    averaged saturated steps can stop short of what well-tuned explicit SGD reaches. May be called under jit, vmap or
    scan. Raises TypeError or ValueError that names the argument.

    Source: Fagan and Iyengar, *Robust implicit backpropagation* (2018).

    >>> import fnn
    >>> import jax.numpy as jnp
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2), activation=fnn.Tanh())
    >>> layerwise(params, jnp.ones((5, 3)), jnp.zeros(5, int), 0.1, loss=fnn.SoftmaxCrossEntropy())
    (Dense(W=(4, 3), b=(4,), Tanh(), float32), Dense(W=(2, 4), b=(2,), Identity(), float32))
    """
    params, x, y, eta = given("layerwise", params, x, y, learning_rate, loss)
    arrays.one_of("output", output, OUTPUTS)
    steps = whole("steps", steps)
    for i, layer in enumerate(params):
        if type(layer.activation) not in HAVE_STEP:
            raise ValueError(
                f"params[{i}].activation: expected {' or '.join(kind.__name__ for kind in HAVE_STEP)}, whose proximal "
                f"steps are known, got {layer.activation!r}; write fnn.init(key, sizes, activation=fnn.Tanh())"
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
        """From ∂L/∂a of a layer to that of the layer below, and the layer after its step."""
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
