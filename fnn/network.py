"""The network: its parameters, and the forward pass.

x = a⁰          (n_0,) or (B, n_0)    input; B examples in rows
W^ℓ             (n_ℓ, n_{ℓ−1})        weights, row = receiving neuron (H6, corrected: W_ji goes from i to j)
b^ℓ             (n_ℓ,)                bias
ψ^ℓ = W^ℓ a^{ℓ−1} + b^ℓ   (B, n_ℓ)    weighted input, before batch norm
z^ℓ             (B, n_ℓ)              what σ receives: ψ, or ψ̂ where the layer has a batch norm
a^ℓ = σ(z^ℓ)    (B, n_ℓ)              activation
δ^ℓ = ∂(Σ_n L_n)/∂ψ^ℓ     (B, n_ℓ)    of the sum over the examples; see ``backward``
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from fnn import checks
from fnn.activations import Activation, Identity, Sigmoid
from fnn.batchnorm import BatchNorm, normalise
from fnn.dropout import Mask, masked
from fnn.initializers import glorot_normal, standard_normal
from fnn.markup import traced
from fnn.precision import factor, products_in


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Dense:
    """One layer, a = σ(W a_in + b): a pytree with leaves W, b and, if any, the batch norm's γ and β.

    W: (n_out, n_in), a row for each receiving neuron (H6 and L1, corrected); b: (n_out,); one floating dtype in the
    whole network; activation: see ``fnn.activations``;
    norm: None, or a :class:`BatchNorm` between the affine map and the activation.
    Nothing is checked here, for transformations build layers of other things than arrays; ``forward`` checks.
    """

    stacked: ClassVar[bool] = False

    W: Array
    b: Array
    activation: Activation = field(metadata={"static": True})
    norm: BatchNorm | None = None

    def __repr__(self) -> str:
        W, b = (getattr(leaf, "shape", leaf) for leaf in (self.W, self.b))
        norm = "" if self.norm is None else f", norm={self.norm.gradient}"
        dtype = f", {self.W.dtype}" if hasattr(self.W, "dtype") else ""
        return f"{type(self).__name__}(W={W}, b={b}, {self.activation}{norm}{dtype})"


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class Stack(Dense):
    """A run of D ≥ 1 hidden layers of one width and activation, as one entry of ``params``: computed by ``lax.scan``.

    The fields are those of :class:`Dense`, every leaf with a leading axis of layers: W (D, n, n), b (D, n), γ and β
    (D, n). So are its masks, and its entry in what ``trace``, ``deltas`` and ``backprop`` return. Neither the first nor
    the last entry of ``params`` may be one. ``fnn.stack`` makes them of layers, and says when they pay.
    """

    stacked: ClassVar[bool] = True


class LayerTrace(NamedTuple):
    """What one layer computed: a_in as the affine map received it (B, n_in); psi, z and a (B, n_out).

    Of a :class:`Stack` each has a leading axis of layers.
    """

    a_in: Array
    psi: Array
    z: Array
    a: Array

    def _repr_html_(self) -> str:
        return traced(self)


Params = tuple[Dense, ...]
Masks = Sequence[Mask] | None


def init(
    key: Array,
    sizes: Sequence[int],
    *,
    activation: Activation = Sigmoid(),
    output: Activation = Identity(),
    initializer: Callable = glorot_normal,
    batch_norm: str | None = None,
    stack: bool = False,
    dtype=jnp.float32,
) -> Params:
    """The parameters of a network with ``sizes = (n_0, n_1, …, n_L)``: one :class:`Dense` per layer.

    key: ``jax.random.key(seed)``; activation: of every hidden layer; output: of the last one;
    initializer: f(key, (n_out, n_in), dtype) → W, see ``fnn.initializers``; biases start at zero, and
    at N(0, 1) with ``standard_normal``; batch_norm: "full" or "fixed" puts a :class:`BatchNorm` with γ = 1,
    β = 0 in every hidden layer, whose bias, being of no effect there (S13), stays zero; stack: every run of hidden
    layers with equal widths as one :class:`Stack`, with the same values; dtype: floating.

    Raises TypeError or ValueError that names the argument.

    >>> init(jax.random.key(0), (784, 30, 10))
    (Dense(W=(30, 784), b=(30,), Sigmoid(beta=1.0), float32), Dense(W=(10, 30), b=(10,), Identity(), float32))
    """
    sizes, dtype = checks.init_arguments(key, sizes, activation, output, initializer, batch_norm, stack, dtype)
    params = _init(key, sizes, activation, output, initializer, batch_norm, dtype)
    return params if stack else tuple(one for layer in params for one in one_by_one(layer, layer))


@partial(jax.jit, static_argnums=range(1, 7))  # one compiled call: drawing layer by layer takes seconds
def _init(key, sizes, activation, output, initializer, batch_norm, dtype):
    def draw(i, n_in, n_out, hidden):
        key_W, key_b = jax.random.split(jax.random.fold_in(key, i))
        W = checks.initial_weights(initializer(key_W, (n_out, n_in), dtype), (n_out, n_in), dtype)
        b, norm = jnp.zeros(n_out, dtype), None
        if hidden and batch_norm is not None:
            norm = BatchNorm(jnp.ones(n_out, dtype), jnp.zeros(n_out, dtype), gradient=batch_norm)
        elif initializer is standard_normal:
            b = standard_normal(key_b, (n_out,), dtype)
        return Dense(W, b, activation if hidden else output, norm)

    shapes, layers = tuple(zip(sizes, sizes[1:])), []
    for run in runs([shape if shape[0] == shape[1] else None for shape in shapes]):
        layer = partial(draw, n_in=shapes[run[0]][0], n_out=shapes[run[0]][1], hidden=run[-1] < len(shapes) - 1)
        if len(run) == 1:
            layers.append(layer(run[0]))
        else:
            layers.append(Stack(**vars(jax.vmap(layer)(jnp.asarray(run)))))
    return tuple(layers)


def runs(kinds: Sequence) -> list[list[int]]:
    """The places of neighbours of one kind, together; the first, the last, and every None stand alone."""
    ends = (0, len(kinds) - 1)
    keys = [i if i in ends or kind is None else kind for i, kind in enumerate(kinds)]
    return [list(run) for _, run in groupby(range(len(kinds)), keys.__getitem__)]


def one_by_one(layer: Dense, entry) -> list:
    """What belongs to the layers of a :class:`Stack`, one by one; to another layer, its only entry."""
    if not isinstance(layer, Stack):
        return [entry]
    entries = (jax.tree.map(lambda leaf, i=i: leaf[i], entry) for i in range(len(layer.W)))
    return [Dense(**vars(one)) if isinstance(one, Stack) else one for one in entries]


def forward(params: Params, x: Array, masks: Masks = None, *, precision: str | None = None) -> Array:
    """The network's output a^L: (B, n_L), or (n_L,) for a single example (equations H5, L12, N2).

    params: tuple of :class:`Dense`; x: (B, n_0) or (n_0,), in the parameters' dtype; masks: one ``Mask`` per
    layer, or None; precision: None, or "bfloat16" for the products' factors (``fnn.precision``). Raises TypeError or
    ValueError that names the argument.

    >>> forward(init(jax.random.key(0), (3, 4, 2)), jnp.ones((5, 3))).shape
    (5, 2)
    """
    with products_in(precision, params):
        return _forward(*checks.network_arguments(params, x, masks))


def trace(params: Params, x: Array, masks: Masks = None, *, precision: str | None = None) -> tuple[LayerTrace, ...]:
    """Everything that the forward pass computes (H5), one :class:`LayerTrace` per layer; arguments as ``forward``'s."""
    with products_in(precision, params):
        return _trace(*checks.network_arguments(params, x, masks))


def each(step: Callable, carry, layer: Dense, *rest, reverse: bool = False):
    """step(carry, layer, *rest) -> (carry, result) at a layer; for a :class:`Stack` a scan over its layers."""
    if isinstance(layer, Stack):
        return lax.scan(lambda carry, at: step(carry, *at), carry, (layer, *rest), reverse=reverse)
    return step(carry, layer, *rest)


def layer_forward(a: Array, layer: Dense, mask: Mask) -> tuple[Array, tuple[Array, LayerTrace]]:
    """a^ℓ from a^{ℓ−1}; and, for the backward pass, a^{ℓ−1} with all that was computed."""
    a_in = masked(a, mask.units)
    psi = factor(a_in) @ factor(masked(layer.W, mask.arrows)).T + layer.b  # (B, n_out); b is all that broadcasts
    z = psi if layer.norm is None else normalise(layer.norm, psi)
    out = checks.same_shape(layer.activation.value(z), z, f"{layer.activation}.value(z)")
    return out, (a, LayerTrace(a_in, psi, z, out))


def forward_pass(params: Params, x: Array, masks: Sequence[Mask]) -> tuple[Array, list[tuple[Array, LayerTrace]]]:
    """a^L, and a^{ℓ−1} with the trace for every entry of ``params``; examples in rows."""
    checks.network(params, x, masks)
    a, passed = jnp.atleast_2d(x), []
    for layer, mask in zip(params, masks):
        a, here = each(layer_forward, a, layer, mask)
        passed.append(here)
    return a, passed


def like_examples(tree, x: Array):
    """Results (…, B, n) as they are, or (…, n) where x is a single example."""
    return tree if x.ndim == 2 else jax.tree.map(lambda leaf: leaf[..., 0, :], tree)


def target_rows(y: Array, x: Array, a: Array, loss) -> Array:
    """The targets with examples in rows, where they fit the outputs a (B, n_L) and x."""
    checks.target(y, like_examples(a, x), loss)
    return y if x.ndim == 2 else y[None]


@jax.jit
def _forward(params, x, masks):
    return like_examples(forward_pass(params, x, masks)[0], x)


@jax.jit
def _trace(params, x, masks):
    return like_examples(tuple(t for _, t in forward_pass(params, x, masks)[1]), x)
