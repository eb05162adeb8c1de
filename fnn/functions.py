"""The public functions of a network: each checks its arguments once and calls a compiled, pure pass.

They accept layers and graphs. What compilation would hide, such as a float64 array that jit truncates, is checked
beforehand; everything else is checked at trace time, which is free at run time.
"""

import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fnn.backward import RULES, Rules
from fnn.checks import arrays, network, targets
from fnn.checks.arrays import AnyArray
from fnn.dropout import DropConnect, Dropout
from fnn.kinds import AnyParams, Kind, given, kind
from fnn.losses import Loss, SquaredError
from fnn.numbers import whole


class Objective(NamedTuple):
    """The loss C and the equations that differentiate it; static, because functions are compiled for each."""

    loss: Loss
    reduction: str
    rules: Rules = RULES


def forward(params: AnyParams, x: AnyArray, *, masks=None, rules: Rules = RULES) -> Array:
    """The network's output a^L: (B, n_L), or (n_L,) for a single example.

    params: a tuple of ``Dense``, or the parameters of a graph. x: (B, n_0) or (n_0,), in the parameters' dtype. masks:
    None, or one ``Mask`` per layer; for a graph a single ``Mask``. rules: the equations to use. Raises TypeError or
    ValueError that names the argument.

    As in ``fit`` and ``predict``, NumPy's float64 becomes float32 unless x64 is on, with a warning, and x may be a
    pandas DataFrame. Integers are refused, because they may be pixels that need scaling, or category codes.

    A batch norm uses the statistics of x, which is right in training and wrong for inference. This gives a warning,
    unless ``masks`` are given or the call is traced by a transformation such as ``jax.grad`` or ``jax.jit``.

    >>> import fnn
    >>> fnn.forward(fnn.init(jax.random.key(0), (3, 4, 2)), jnp.ones((5, 3))).shape
    (5, 2)
    """
    x = x if isinstance(x, jax.Array) else arrays.as_array("x", x, stacklevel=3)
    a = _forward(*given(params, x, masks, rules), rules=rules)
    if masks is None and kind(params).has_norm(params) and not isinstance(a, jax.core.Tracer):
        warnings.warn(
            "params: with a batch norm, forward uses the statistics of x, as in training; for inference write "
            "fnn.forward(fnn.fold(params, statistics=fnn.statistics(params, batches)), x), or run.network after fit; "
            "in training fnn.trace(params, x)[-1].a",
            stacklevel=2,
        )
    return a


def trace(params: AnyParams, x: AnyArray, *, masks=None, rules: Rules = RULES):
    """Everything the forward pass computes: one :class:`LayerTrace` per layer, or a graph's ``Trace``.

    Arguments and errors as for :func:`forward`.
    """
    return _trace(*given(params, x, masks, rules), rules=rules)


def backprop(
    params: AnyParams,
    x: AnyArray,
    y: AnyArray,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks=None,
    rules: Rules = RULES,
) -> AnyParams:
    """The gradient of C with respect to every parameter, by equations (1) to (4): a pytree like ``params``.

    params, x, masks, rules: as for :func:`forward`. y: (B, n_L) or (n_L,) in the parameters' dtype, or integer labels
    (B,) if the loss takes them. loss: see ``fnn.losses``. reduction: "mean" or "sum" over the examples.

    Each δ is computed once, from the output down, with the weights from before any update. Compiled once for each
    combination of shapes, loss, reduction and rules; may be called under jit, vmap or scan. Raises TypeError or
    ValueError that names the argument.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2))
    >>> fnn.backprop(params, jnp.ones((5, 3)), jnp.zeros((5, 2)))
    (Dense(W=(4, 3), b=(4,), Sigmoid(beta=1.0), float32), Dense(W=(2, 4), b=(2,), Identity(), float32))
    """
    return results(("gradients",), params, x, y, masks, Objective(loss, reduction, rules))[0]


def value_and_backprop(
    params: AnyParams,
    x: AnyArray,
    y: AnyArray,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks=None,
    rules: Rules = RULES,
) -> tuple[Array, AnyParams]:
    """The loss C, a scalar, and its gradients; arguments and errors as for :func:`backprop`."""
    return results(("loss", "gradients"), params, x, y, masks, Objective(loss, reduction, rules))


def deltas(
    params: AnyParams, x: AnyArray, y: AnyArray, *, loss: Loss = SquaredError(), masks=None, rules: Rules = RULES
):
    """δ^ℓ = ∂(Σ_n L_n)/∂ψ^ℓ for every layer: a tuple of (B, n_ℓ), or (n_ℓ,) for a single example.

    For a graph, λ_k = ∂(Σ_n L_n)/∂ψ_k of every neuron, (B, N) or (N,), in the order of ``graph.neurons``; for an input
    neuron it is ∂L/∂x. The derivative is of the **sum** over the examples, so row n does not shrink as the batch grows.
    With the layers' inputs (``trace``) the gradients follow: ∂C/∂W^ℓ = (δ^ℓ)ᵀ a_in / N. Reverse-mode automatic
    differentiation computes the same numbers without exposing them. Arguments and errors as for :func:`backprop`.
    """
    return results(("deltas",), params, x, y, masks, Objective(loss, "sum", rules))[0]


def input_gradient(
    params: AnyParams,
    x: AnyArray,
    y: AnyArray,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks=None,
    rules: Rules = RULES,
) -> Array:
    """∂C/∂x, with the shape of x: equation (2a) applied down to the input.

    Arguments and errors as for :func:`backprop`.
    """
    return results(("input_gradient",), params, x, y, masks, Objective(loss, reduction, rules))[0]


def pullback(
    params: AnyParams, x: AnyArray, g: AnyArray, *, masks=None, rules: Rules = RULES
) -> tuple[AnyParams, Array]:
    """(parameter gradients, ∂C/∂x) from g = ∂C/∂a^L, to use the hand-written network inside any program.

    g: with the shape and dtype of the output, (B, n_L) or (n_L,). Nothing is divided by the number of examples. Other
    arguments and errors as for :func:`forward`.

    >>> import fnn
    >>> params, x = fnn.init(jax.random.key(0), (3, 4, 2)), jnp.ones((5, 3))
    >>> gradients, by_x = fnn.pullback(params, x, jnp.ones((5, 2)))
    >>> by_x.shape
    (5, 3)
    """
    arrays.array("g", g)
    return _pullback(*given(params, x, masks, rules), arrays.native(g), rules=rules)


def sample_masks(params: AnyParams, dropout: Dropout | DropConnect, batch: int, *, key: Array):
    """Masks for one mini-batch, drawn from ``key``: one :class:`Mask` per layer, or one ``Mask`` for a graph.

    batch: the number of examples, ≥ 1. The same key gives the same masks. A single number ``keep`` is for every neuron
    except the network's inputs (``Dropout``), or for every arrow (``DropConnect``). For a graph, an array has one entry
    per neuron or per arrow. Dropping a neuron changes what its receivers see, not the network's output. May be called
    under jit. Raises TypeError or ValueError that names the argument.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2))
    >>> [mask.units is None for mask in fnn.sample_masks(params, fnn.Dropout(0.5), 5, key=jax.random.key(1))]
    [True, False]
    """
    of = kind(params)
    of.require(params)
    params = arrays.native(params)
    arrays.prng_key(key)
    batch = whole("batch", batch)
    of.probabilities(dropout, params)
    return of.sample_masks(key, params, dropout, batch)


# -- argument checks, once -------------------------------------------------------------------------------------


def results(want: tuple[str, ...], params, x, y, masks, objective: Objective) -> tuple:
    """The entries of :func:`derivatives` that ``want`` names."""
    params, x, masks = given(params, x, masks, objective.rules)
    y = given_target(params, y, objective.loss)
    arrays.one_of("reduction", objective.reduction, network.REDUCTIONS)
    return _backward(params, x, masks, y, objective=objective, want=want)


def given_target(params, y, loss):
    """y in the form that the compiled functions take; raises what jit would hide, unless it suits the loss."""
    targets.loss_like(loss)
    if isinstance(y, jax.Array) and not (jnp.issubdtype(y.dtype, jnp.integer) and loss.takes_labels):
        return y
    of = kind(params)
    of.require(params)
    return targets.given_target(of.ports(params), y, loss)


@partial(jax.jit, static_argnames="rules")
def _forward(params, x, masks, *, rules):
    of, rules = checked(params, x, masks, rules)
    return like_examples(of.forward(rules, params, jnp.atleast_2d(x), masks).a, x)


@partial(jax.jit, static_argnames="rules")
def _trace(params, x, masks, *, rules):
    of, rules = checked(params, x, masks, rules)
    return like_examples(of.trace(rules, params, jnp.atleast_2d(x), masks), x)


@partial(jax.jit, static_argnames=("objective", "want"))
def _backward(params, x, masks, y, *, objective, want):
    found = derivatives(params, x, masks, y, objective)
    return tuple(found[name] for name in want)  # XLA drops the rest


def derivatives(params, x, masks, y, objective: Objective) -> dict[str, Any]:
    """The loss C and its derivatives by name; pure, and checked at trace time.

    "deltas" and "deltas_z" are of the sum over the examples, everything else of C.
    """
    loss = objective.loss
    of, rules = checked(params, x, masks, objective.rules)
    targets.target_arguments(of.ports(params), y, loss)
    outputs = of.forward(rules, params, jnp.atleast_2d(x), masks)
    y = targets.target_rows(y, like_examples(outputs.a, x), loss)
    seed = rules.output_delta(loss, outputs.activation, outputs.z, outputs.a, y)  # (1)
    values, pulled = targets.loss_values(loss, outputs.a, y), of.backward(rules, params, masks, outputs.passed, seed)
    scale = 1 / values.shape[0] if objective.reduction == "mean" else 1
    return {
        "loss": jnp.sum(values) * scale,
        "deltas": like_examples(pulled.deltas, x),
        "deltas_z": like_examples(pulled.deltas_z, x),
        "gradients": jax.tree.map(lambda leaf: leaf * scale, pulled.gradients),
        "input_gradient": like_examples(pulled.input_gradient * scale, x),
    }


@partial(jax.jit, static_argnames="rules")
def _pullback(params, x, masks, g, *, rules):
    of, rules = checked(params, x, masks, rules)
    outputs = of.forward(rules, params, jnp.atleast_2d(x), masks)
    arrays.same_shape(g, like_examples(outputs.a, x), "g")
    seed = rules.hidden_delta(jnp.atleast_2d(g), outputs.activation, outputs.z, outputs.a)
    pulled = of.backward(rules, params, masks, outputs.passed, seed)
    return pulled.gradients, like_examples(pulled.input_gradient, x)


def checked(params, x, masks, rules) -> tuple[Kind, Rules]:
    """The functions for these parameters, and rules that raise if a result has the wrong shape."""
    of = kind(params)
    of.check(params, x, masks)
    return of, network.exact(rules)


def like_examples(tree, x: AnyArray):
    """Results (…, B, n) unchanged, or (…, n) if x is a single example."""
    return tree if x.ndim == 2 else jax.tree.map(lambda leaf: leaf[..., 0, :], tree)
