"""Diagonals and Kronecker factors, from the factors of every example's gradient; see ``fnn.curvature``."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fnn.checks import arrays, targets
from fnn.checks import network as checks
from fnn.checks.arrays import AnyArray
from fnn.kinds import AnyParams, require_layers
from fnn.layers import Params
from fnn.losses import Loss, SquaredError
from fnn.masks import Mask
from fnn.per_example.gradients import factors, given_examples, given_inputs, outputs_of, sums
from fnn.per_example.layers import Factors, equal_weights, require_shared_inputs


class KroneckerFactors(NamedTuple):
    """A = E[ā āᵀ], (n_in + 1, n_in + 1), with ā = (a_in, 1) for the bias; G = E[δ δᵀ], (n_out, n_out).

    For a stack, each has a leading axis of layers.
    """

    A: Array
    G: Array


def fisher_diagonal(
    params: AnyParams,
    x: AnyArray,
    y: AnyArray | None = None,
    *,
    loss: Loss = SquaredError(),
    masks=None,
    key: Array | None = None,
) -> AnyParams:
    """E[g ⊙ g] over the examples, the diagonal of the Fisher matrix: a pytree like ``params``, by (δ ⊙ δ)ᵀ (a ⊙ a).

    y: the targets, which give the empirical Fisher matrix. key, instead of y: draws a target for each example from the
    network's own p(y | x), whose −log is the loss, for an unbiased estimate of the true Fisher matrix. Other arguments
    and errors: see ``fnn.curvature``.
    Source: Kunstner, Balles and Hennig 2019, *Limitations of the empirical Fisher approximation*, for the difference.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2))
    >>> fisher_diagonal(params, jnp.ones((5, 3)), loss=fnn.SoftmaxCrossEntropy(), key=jax.random.key(1))[0].W.shape
    (4, 3)
    """
    y = _target(params, x, y, loss, masks, key)
    return _fisher_diagonal(*given_examples(params, x, y, loss, masks), loss=loss)


def gauss_newton_diagonal(
    params: AnyParams,
    x: AnyArray,
    y: AnyArray,
    *,
    loss: Loss = SquaredError(),
    reduction: str = "mean",
    masks=None,
) -> AnyParams:
    """The diagonal of the Gauss–Newton matrix of :func:`gauss_newton_vp`, exactly: a pytree like ``params``.

    Costs one backward pass per output, all computed together. With many outputs, use ``fisher_diagonal`` with a key,
    which has the same expectation for losses on logits. Arguments and errors: see ``fnn.curvature``.
    """
    params, x, y, masks = given_examples(params, x, y, loss, masks)
    arrays.one_of("reduction", reduction, checks.REDUCTIONS)
    return _gauss_newton_diagonal(params, x, y, masks, loss=loss, reduction=reduction)


def kfac_factors(
    params: Params,
    x: AnyArray,
    y: AnyArray | None = None,
    *,
    loss: Loss = SquaredError(),
    masks=None,
    key: Array | None = None,
) -> tuple[KroneckerFactors, ...]:
    """The Kronecker factors of every layer's Fisher matrix, bias included: one entry for each of ``params``.

    With the rows of [W b] concatenated, a layer's block is E[(δ δᵀ) ⊗ (ā āᵀ)], which K-FAC approximates by G ⊗ A.
    y, key: the targets, or a key to draw them, as in :func:`fisher_diagonal`. γ and β of a batch norm are left out.
    Raises ValueError for arrow masks, which give every neuron of a layer different inputs, and TypeError for a graph,
    whose neurons always have different inputs. Other arguments and errors: see ``fnn.curvature``.
    Source: Martens and Grosse 2015, *Optimizing neural networks with Kronecker-factored approximate curvature*.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2))
    >>> [(A.shape, G.shape) for A, G in kfac_factors(params, jnp.ones((5, 3)), jnp.zeros((5, 2)))]
    [((4, 4), (4, 4)), ((5, 5), (2, 2))]
    """
    require_layers(params, "kfac_factors", "no matrix A is shared; write fisher_diagonal(params, x, y)")
    y = _target(params, x, y, loss, masks, key)
    params, x, y, masks = given_examples(params, x, y, loss, masks)
    require_shared_inputs(masks)
    return _kfac_factors(params, x, y, masks, loss=loss)


def _squares(J, product: Callable[[Array], Array], masks):
    """From the factors of every output's derivatives, in front, those of the Gauss–Newton diagonal, and their masks."""

    def squares(of):
        if isinstance(of, Factors):
            return Factors(of.a_in[0] ** 2, product(of.delta), *map(product, of.by_norm))
        return (
            jax.tree.map(jnp.square, of) if isinstance(of, Mask) else of
        )  # a graph's masks have its tables beside them

    return jax.tree.map(squares, (J, masks), is_leaf=lambda of: isinstance(of, (Factors, Mask)))


def _target(params, x, y, loss: Loss, masks, key) -> Array:
    """The targets of a Fisher matrix: those given, or drawn where a key is."""
    if (y is None) == (key is None):
        raise TypeError("y, key: expected one of them; write y=y for the empirical Fisher matrix, or key=key to draw y")
    if y is not None:
        return y
    targets.loss_like(loss)
    arrays.prng_key(key)
    params, x, masks = given_inputs(params, x, masks)
    return _drawn(key, params, x, masks, loss=loss)


@partial(jax.jit, static_argnames="loss")
def _drawn(key, params, x, masks, *, loss):
    return loss.sample(key, outputs_of(params, x, masks).a)


@partial(jax.jit, static_argnames="loss")
def _fisher_diagonal(params, x, y, masks, *, loss):
    found = factors(params, x, y, masks, loss)
    return sums(params).weighted_sums(params, found, masks, equal_weights(x), power=2)


@partial(jax.jit, static_argnames=("loss", "reduction"))
def _gauss_newton_diagonal(params, x, y, masks, *, loss, reduction):
    outputs, own = outputs_of(params, x, masks), sums(params)
    activation, z, a = outputs[:3]
    targets.target(y, a, loss)
    units = jnp.eye(a.shape[1], dtype=a.dtype)

    def at_output(unit):  # a column of ∂²L/∂z² but for σ'', of every example
        dz = jnp.broadcast_to(unit, z.shape)
        return loss.gauss_newton(activation, z, a, y, activation.pushforward(dz, z, a))

    def pull(unit):  # the factors of ∂z^L_o/∂θ
        return own.factors(params, masks, outputs, jnp.broadcast_to(unit, z.shape))

    H, J = jax.vmap(at_output)(units), jax.vmap(pull)(units)  # the outputs in front

    def product(v: Array) -> Array:
        """Σ_op H_op v_o ⊙ v_p of each example."""
        return jnp.einsum("obp,o...bj,p...bj->...bj", H, v, v)

    weights = equal_weights(x) if reduction == "mean" else jnp.ones(len(x), x.dtype)
    squares, arrows = _squares(J, product, masks)
    return own.weighted_sums(params, squares, arrows, weights)


@partial(jax.jit, static_argnames="loss")
def _kfac_factors(params, x, y, masks, *, loss):
    def moment(v: Array) -> Array:
        v = v * len(x) ** -0.5  # before the product, which is larger
        return jnp.einsum("...bj,...bk->...jk", v, v)

    def with_one(a: Array) -> Array:
        return jnp.concatenate([a, jnp.ones_like(a[..., :1])], axis=-1)

    return tuple(
        KroneckerFactors(moment(with_one(f.a_in)), moment(f.delta)) for f in factors(params, x, y, masks, loss)
    )
