"""Convert runs of equal layers to one entry of ``params``, and back."""

from typing import Any

from fnn.checks import network as checks
from fnn.checks.arrays import describe
from fnn.layers import Params, one_by_one, stack_layers


def stack(params: Params) -> Params:
    """The same network with every run of two or more equal hidden layers as one :class:`Stack`.

    Neighbouring layers are equal if they have square weights of the same size, dtype, activation and batch norm. The
    first and the last layer are never stacked. Existing stacks are merged with equal neighbours. The leaves are copied.

    Stack narrow networks, or those deeper than some tens of layers: the compile time of a stack does not depend on its
    depth, and its backward pass keeps one array (B, n) per layer. On 2 CPU cores with batch 64 it takes 0.6 to 0.9
    times as long as separate layers at width 32, as long at 128, and 1.2 to 1.5 times as long at 512
    (``python -m experiments.benchmarks.stack``).

    >>> import jax, jax.numpy as jnp, fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 4, 4, 2), activation=fnn.Tanh())
    >>> stack(params)[1]
    Stack(W=(2, 4, 4), b=(2, 4), Tanh(), float32)
    >>> bool(jnp.array_equal(fnn.forward(stack(params), jnp.ones(3)), fnn.forward(params, jnp.ones(3))))
    True
    """
    return stack_layers(unstack(params))


def unstack(params: Params, entries: Any = None) -> tuple:
    """The same network layer by layer; or ``entries``, with one per entry of ``params``, as one per layer.

    entries: what ``trace``, ``deltas``, ``backprop``, ``statistics`` or ``sample_masks`` returned for ``params``.
    Raises TypeError or ValueError that names the argument.

    >>> import jax, jax.numpy as jnp, fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 4, 4, 2), stack=True)
    >>> [delta.shape for delta in fnn.deltas(params, jnp.ones((5, 3)), jnp.ones((5, 2)))]
    [(5, 4), (2, 5, 4), (5, 2)]
    >>> [delta.shape for delta in unstack(params, fnn.deltas(params, jnp.ones((5, 3)), jnp.ones((5, 2))))]
    [(5, 4), (5, 4), (5, 4), (5, 2)]
    """
    checks.layers(params)
    entries = params if entries is None else entries
    if not isinstance(entries, (tuple, list)):
        raise TypeError(
            f"entries: expected a tuple with one for every entry of params, {len(params)}, got {describe(entries)}; "
            "write fnn.unstack(params, fnn.deltas(params, x, y))"
        )
    if len(entries) != len(params):
        raise ValueError(f"entries: expected one for every entry of params, {len(params)}, got {len(entries)}")
    return tuple(one for layer, entry in zip(params, entries) for one in one_by_one(layer, entry))
