"""Inner products of per-example gradients: the Gram matrix and the tangent kernel; see ``fnn.per_example``."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fnn.checks import arrays
from fnn.checks.arrays import AnyArray
from fnn.kinds import require_layers
from fnn.layers import Params
from fnn.losses import Loss, SquaredError
from fnn.per_example.gradients import factors, given_examples, given_inputs, outputs_of
from fnn.per_example.layers import Factors, require_shared_inputs
from fnn.per_example.layers import factors as layer_factors

NOT_FACTORED = "inner products cost as much as from the full gradients"


def gram(
    params: Params,
    x: AnyArray,
    y: AnyArray,
    x2: AnyArray | None = None,
    y2: AnyArray | None = None,
    *,
    loss: Loss = SquaredError(),
    masks=None,
    masks2=None,
) -> Array:
    """All inner products ⟨g_i, g_j⟩ of per-example gradients: (B, B), or (B, B₂) with those of x2 and y2.

    x2, y2, masks2: like x, y and masks, for the columns. Raises ValueError for arrow masks, for which the formula does
    not hold, and TypeError for a graph. Other arguments and errors: see ``fnn.per_example``.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2))
    >>> x, y = jax.random.normal(jax.random.key(1), (5, 3)), jnp.zeros((5, 2))
    >>> products = gram(params, x, y)
    >>> bool(jnp.allclose(jnp.sqrt(jnp.diagonal(products)), fnn.per_example.norms(params, x, y).total))
    True
    """
    require_layers(params, "gram", f"{NOT_FACTORED}; write per_example.gradients(params, x, y), and multiply those")
    if (x2 is None) != (y2 is None):
        raise TypeError("x2, y2: expected both or neither; without them the columns are those of x and y")
    if x2 is None and masks2 is not None:
        raise TypeError("masks2: expected x2 and y2 too, for whose examples they are; write gram(..., masks=masks2)")
    rows = _given(params, x, y, loss, masks)
    columns = rows if x2 is None else _of_columns(_given, params, x2, y2, loss, masks2)
    return _gram(rows, columns, loss=loss)


def ntk(params: Params, x: AnyArray, x2: AnyArray | None = None, *, traced: bool = False) -> Array:
    """The empirical tangent kernel Θ_ij,op = ⟨∂a_o(x_i)/∂θ, ∂a_p(x2_j)/∂θ⟩: (B, B₂, n_L, n_L).

    x2: (B₂, n_0), or None for x. traced: True gives Σ_o Θ_ij,oo instead, (B, B₂). Raises TypeError for a graph. Other
    arguments and errors: see ``fnn.per_example``. Source: Jacot, Gabriel and Hongler 2018, *Neural tangent kernel*.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2))
    >>> ntk(params, jnp.ones((5, 3)), jnp.ones((7, 3))).shape
    (5, 7, 2, 2)
    """
    every = "fnn.pullback(params, x[i], unit)[0] for every example and each row of the identity"
    require_layers(params, "ntk", f"{NOT_FACTORED}; write {every}, and multiply those")
    arrays.one_of("traced", traced, (False, True))
    rows = given_inputs(params, x, None)
    columns = rows if x2 is None else _of_columns(given_inputs, params, x2, None)
    return _ntk(rows, columns, traced=traced)


def _of_columns(given: Callable, *arguments) -> tuple:
    """What ``given`` makes of the arguments for the columns, with their names in its errors."""
    try:
        return given(*arguments)
    except (TypeError, ValueError) as error:
        named = re.sub(r"^(x|y|masks)\b", r"\g<1>2", str(error))
        raise type(error)(re.sub(r"\bx\.", "x2.", named)) from error


def _given(params, x, y, loss, masks) -> tuple:
    found = given_examples(params, x, y, loss, masks)
    require_shared_inputs(found[3])
    return found


def _products(rows: list[Factors], columns: list[Factors], traced: bool) -> Array:
    """Σ_ℓ (a_iᵀ a_j + 1) δ_i,oᵀ δ_j,p: (B, B₂, O, O), or its sum over o = p, (B, B₂); δ's are (…, O, B, n)."""
    pairs = "...bc,...obn,...ocn->...bc" if traced else "...bc,...obn,...pcn->...bcop"
    result: Any = 0
    for f, f2 in zip(rows, columns):
        inputs = jnp.einsum("...bk,...ck->...bc", f.a_in, f2.a_in) + 1
        of_layer = jnp.einsum(pairs, inputs, f.delta, f2.delta)
        for v, v2 in zip(f.by_norm, f2.by_norm):
            of_layer += jnp.einsum(pairs, jnp.ones_like(inputs), v, v2)
        stacked = of_layer.ndim > (2 if traced else 4)
        result += jnp.sum(of_layer, axis=0) if stacked else of_layer
    return result


@partial(jax.jit, static_argnames="loss")
def _gram(rows, columns, *, loss):
    def of(params, x, y, masks):
        """The factors, with an axis for outputs before the examples."""
        found = factors(params, x, y, masks, loss)
        return [jax.tree.map(lambda v: jnp.expand_dims(v, -3), f)._replace(a_in=f.a_in) for f in found]

    return _products(of(*rows), of(*columns), traced=True)


@partial(jax.jit, static_argnames="traced")
def _ntk(rows, columns, *, traced):
    def of(params, x, masks):
        outputs = outputs_of(params, x, masks)

        def pull(unit):  # ∂a^L_o/∂ψ of one output
            seed = outputs.activation.pullback(jnp.broadcast_to(unit, outputs.a.shape), outputs.z, outputs.a)
            return layer_factors(params, masks, outputs, seed)

        every = jax.vmap(pull, out_axes=-3)(jnp.eye(outputs.a.shape[1], dtype=x.dtype))
        return [f._replace(a_in=f.a_in[..., 0, :, :]) for f in every]  # the inputs are the same for all outputs

    return _products(of(*rows), of(*columns), traced)
