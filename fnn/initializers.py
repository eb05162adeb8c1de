"""Initial weights: each initializer is ``f(key, (n_out, n_in), dtype) -> W``.

``fnn.init`` takes any function of this form. Here W has one row per receiving neuron, so the initializers in
``jax.nn.initializers`` swap n_in and n_out by default: write ``jax.nn.initializers.he_normal(in_axis=1, out_axis=0)``.
(Glorot's are symmetric and need no change.)

Pass module-level functions: a fresh lambda recompiles ``init`` at every call.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from fnn.activations import Activation, Identity, Sigmoid
from fnn.batchnorm import BatchNorm
from fnn.checks.network import init_arguments, initial_weights
from fnn.layers import Dense, Params, Stack, equal_neighbours, one_by_one


def glorot_normal(key: Array, shape: tuple[int, int], dtype) -> Array:
    """N(0, 2/(n_in + n_out)) (Glorot and Bengio 2010)."""
    n_out, n_in = shape
    return math.sqrt(2 / (n_in + n_out)) * jax.random.normal(key, shape, dtype)


def glorot_uniform(key: Array, shape: tuple[int, int], dtype) -> Array:
    """U[−r, r], r = √6/√(n_in + n_out): the normalised initialisation of Glorot and Bengio 2010, equation 16."""
    n_out, n_in = shape
    r = math.sqrt(6 / (n_in + n_out))
    return jax.random.uniform(key, shape, dtype, -r, r)


def he_normal(key: Array, shape: tuple[int, int], dtype) -> Array:
    """N(0, 2/n_in), for ReLU (He, Zhang, Ren, Sun 2015)."""
    return math.sqrt(2 / shape[1]) * jax.random.normal(key, shape, dtype)


def lecun_normal(key: Array, shape: tuple[int, int], dtype) -> Array:
    """N(0, 1/n_in) (LeCun, Bottou, Orr, Müller 1998)."""
    return math.sqrt(1 / shape[1]) * jax.random.normal(key, shape, dtype)


def standard_normal(key: Array, shape: tuple[int, ...], dtype) -> Array:
    """N(0, 1); ``fnn.init`` draws the biases from it too, as in Nielsen's network.py."""
    return jax.random.normal(key, shape, dtype)


def init(
    key: Array,
    sizes: Sequence[int],
    *,
    activation: Activation | Sequence[Activation] = Sigmoid(),
    output: Activation = Identity(),
    initializer: Callable = glorot_normal,
    batch_norm: str | None = None,
    stack: bool = False,
    dtype=jnp.float32,
) -> Params:
    """The parameters of a network with ``sizes = (n_0, n_1, …, n_L)``: one :class:`Dense` per layer.

    key: ``jax.random.key(seed)``. activation: for every hidden layer, or a sequence with one per hidden layer; for one
    per neuron see ``fnn.PerNeuron``. output: the last layer's activation. initializer: f(key, (n_out, n_in), dtype) →
    W; biases start at zero, or at N(0, 1) with ``standard_normal``. batch_norm: "full" or "fixed" puts a
    :class:`BatchNorm` with γ = 1, β = 0 in every hidden layer; the layer's bias then has no effect and stays zero.
    stack: True makes every run of equal hidden layers one :class:`Stack`, with the same values. dtype: floating.

    Raises TypeError or ValueError that names the argument.

    >>> init(jax.random.key(0), (784, 30, 10))
    (Dense(W=(30, 784), b=(30,), Sigmoid(beta=1.0), float32), Dense(W=(10, 30), b=(10,), Identity(), float32))
    """
    sizes, activations, dtype = init_arguments(key, sizes, activation, output, initializer, batch_norm, stack, dtype)
    params = _init(key, sizes, (*activations, output), initializer, batch_norm, dtype)
    return params if stack else tuple(one for layer in params for one in one_by_one(layer, layer))


@partial(jax.jit, static_argnums=range(1, 6))  # one compiled call: drawing layer by layer takes seconds
def _init(key, sizes, activations, initializer, batch_norm, dtype):
    def draw(i, n_in, n_out, activation, hidden):
        key_W, key_b = jax.random.split(jax.random.fold_in(key, i))
        W = initial_weights(initializer(key_W, (n_out, n_in), dtype), (n_out, n_in), dtype)
        b, norm = jnp.zeros(n_out, dtype), None
        if hidden and batch_norm is not None:
            norm = BatchNorm(jnp.ones(n_out, dtype), jnp.zeros(n_out, dtype), gradient=batch_norm)
        elif initializer is standard_normal:
            b = standard_normal(key_b, (n_out,), dtype)
        return Dense(W, b, activation, norm)

    shapes, layers = tuple(zip(sizes, sizes[1:], activations)), []
    for group in equal_neighbours([shape if shape[0] == shape[1] else None for shape in shapes]):
        n_in, n_out, activation = shapes[group[0]]
        hidden = group[-1] < len(shapes) - 1
        layer = partial(draw, n_in=n_in, n_out=n_out, activation=activation, hidden=hidden)
        if len(group) == 1:
            layers.append(layer(group[0]))
        else:
            layers.append(Stack(**vars(jax.vmap(layer)(jnp.asarray(group)))))
    return tuple(layers)
