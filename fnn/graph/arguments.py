"""What the arguments of a graph's functions must be, beyond what ``fnn.checks`` says of all networks."""

import jax
import jax.numpy as jnp

from fnn import checks
from fnn.dropout import Mask
from fnn.graph.graph import Network
from fnn.numbers import number


def network(params) -> None:
    """Raise unless ``params`` is a :class:`Network` whose leaves are arrays, one number per arrow and per neuron."""
    if not isinstance(params, Network):
        raise TypeError(
            f"params: expected a fnn.graph.Network, got {checks.describe(params)}; write graph.init(jax.random.key(0))"
        )
    arrows, neurons = params.graph.arrows.shape[:1], (len(params.graph),)
    leaves = {"weights": (params.weights, arrows), "biases": (params.biases, neurons)}
    if params.norm is not None:
        if not (hasattr(params.norm, "gamma") and hasattr(params.norm, "beta")):
            raise TypeError(f"params.norm: expected a fnn.BatchNorm or None, got {checks.describe(params.norm)}")
        checks.one_of("params.norm.gradient", params.norm.gradient, checks.GRADIENTS)
        number("BatchNorm", "params.norm.eps", params.norm.eps, above=0)
        leaves |= {"norm.gamma": (params.norm.gamma, neurons), "norm.beta": (params.norm.beta, neurons)}
    for name, (leaf, shape) in leaves.items():
        checks.array(f"params.{name}", leaf)
        if leaf.shape != shape:
            what = "arrow" if name == "weights" else "neuron"
            raise ValueError(
                f"params.{name}: expected shape {shape}, one per {what} of {params.graph}, got {leaf.shape}"
            )
        if leaf.dtype != params.weights.dtype:
            raise TypeError(f"params.{name}: expected {params.weights.dtype} as the weights have, got {leaf.dtype}")
    if not jnp.issubdtype(params.weights.dtype, jnp.floating):
        raise TypeError(f"params.weights: expected a floating dtype, got {params.weights.dtype}; write graph.init(key)")


def forward(params, x, masks) -> tuple[Network, jax.Array, Mask]:
    """(params, x, mask) as the compiled functions take them."""
    network(params)
    checks.floating("x", x, params)
    batch = checks.examples(x, len(params.graph.inputs))
    mask = Mask() if masks is None else masks
    checks.mask_argument("masks", mask)
    checks.mask_shapes("masks", mask, len(params.graph), params.weights.shape, params.weights.dtype, batch)
    if params.norm is not None and checks.whole_batch(params.norm, batch) < 2:
        raise ValueError(f"x: params has a batch norm, which needs at least 2 examples, got {batch}")
    return params, x, mask
