"""Argument checks for graphs, in addition to those in ``fnn.checks`` for all networks."""

import jax
import jax.numpy as jnp

from fnn.backward import RULES
from fnn.checks import arrays
from fnn.checks import network as checks
from fnn.dropout import Mask
from fnn.graph import passes
from fnn.graph.graph import GraphParams
from fnn.graph.passes import Given
from fnn.numbers import number


def network(params) -> None:
    """Raise unless ``params`` are :class:`GraphParams` of arrays, with one number per arrow or neuron."""
    if not isinstance(params, GraphParams):
        raise TypeError(f"params: expected fnn.graph.GraphParams, got {arrays.describe(params)}; write graph.init(key)")
    arrows, neurons = params.graph.arrows.shape[:1], (len(params.graph),)
    leaves = {"weights": (params.weights, arrows), "biases": (params.biases, neurons)}
    if params.norm is not None:
        if not (hasattr(params.norm, "gamma") and hasattr(params.norm, "beta")):
            raise TypeError(f"params.norm: expected a fnn.BatchNorm or None, got {arrays.describe(params.norm)}")
        arrays.one_of("params.norm.gradient", params.norm.gradient, checks.GRADIENTS)
        number("BatchNorm", "params.norm.eps", params.norm.eps, above=0)
        leaves |= {"norm.gamma": (params.norm.gamma, neurons), "norm.beta": (params.norm.beta, neurons)}
    for name, (leaf, shape) in leaves.items():
        arrays.array(f"params.{name}", leaf)
        if leaf.shape != shape:
            what = "arrow" if name == "weights" else "neuron"
            raise ValueError(
                f"params.{name}: expected shape {shape}, one per {what} of {params.graph}, got {leaf.shape}"
            )
        if leaf.dtype != params.weights.dtype:
            raise TypeError(f"params.{name}: expected {params.weights.dtype} as the weights have, got {leaf.dtype}")
    if not jnp.issubdtype(params.weights.dtype, jnp.floating):
        raise TypeError(f"params.weights: expected a floating dtype, got {params.weights.dtype}; write graph.init(key)")


def ports(params: GraphParams) -> checks.Ports:
    """The dtype and the numbers of inputs and outputs."""
    return checks.Ports(params.weights.dtype, len(params.graph.inputs), len(params.graph.outputs))


def given(params, x, masks, rules) -> tuple[GraphParams, jax.Array, Given]:
    """(params, x, masks) in the form that the compiled functions take."""
    if rules.affine is not RULES.affine:
        raise ValueError(
            "rules.affine: expected that of fnn.RULES, because a graph sums arrow by arrow and not by a matrix "
            "product; write rules._replace(affine=fnn.RULES.affine), or use layers from fnn.init"
        )
    mask = Mask() if masks is None else masks
    if not arrays.plain((params, x, mask)) or not isinstance(mask, Mask):
        network(params)
        checks.floating("x", x, ports(params))
        checks.mask_argument("masks", mask)
    return params, x, passes.given(params, mask, rules)


def check(params: GraphParams, x: jax.Array, masks: Given) -> None:
    """Raise unless the parameters, x and the mask fit together; called at trace time."""
    network(params)
    checks.floating("x", x, ports(params))
    batch, mask = checks.examples(x, len(params.graph.inputs)), masks.mask
    checks.mask_argument("masks", mask)
    checks.mask_shapes("masks", mask, len(params.graph), params.weights.shape, params.weights.dtype, batch)
    if params.norm is not None and checks.whole_batch(params.norm, batch) == 1:
        raise ValueError(f"x: params has a batch norm, which needs at least 2 examples, got {batch}")
