"""A graph's arguments, checked, and in the form that the passes take."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from fnn.activations import Activation
from fnn.backward import RULES, Rules
from fnn.checks import arrays
from fnn.checks import network as checks
from fnn.graph.graph import GraphParams
from fnn.graph.plan import Index, Layout, plan
from fnn.masks import Mask
from fnn.numbers import number


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Given:
    """A graph's mask with what its passes look up: the plan's tables, and the arrows (M, 2).

    dense: whether every arrow is computed in a matrix, so that rules other than ours see all of them.
    """

    mask: Mask
    tables: Index
    arrows: Any
    dense: bool = field(metadata={"static": True})

    @property
    def units(self) -> jax.Array | None:
        """The mask of the units as the recursion has it, (N, B) or (N, 1), or None."""
        return None if self.mask.units is None else self.mask.units.T

    def layout(self, params: GraphParams) -> Layout:
        """The static half of the plan to which the tables belong."""
        return plan(params.graph, self.dense).layout


def require(params) -> None:
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


def output_activations(params: GraphParams) -> tuple[Activation, ...]:
    """The activations of the outputs, each once."""
    graph = params.graph
    return tuple(dict.fromkeys(graph.kinds[k] for k in graph.kind[graph.outputs]))


def given(params, x, masks, rules: Rules) -> tuple[GraphParams, jax.Array, Given]:
    """(params, x, masks) in the form that the compiled functions take."""
    if rules.affine is not RULES.affine:
        raise ValueError(
            "rules.affine: expected that of fnn.RULES, because a graph sums arrow by arrow and not by a matrix "
            "product; write rules._replace(affine=fnn.RULES.affine), or use layers from fnn.init"
        )
    mask = Mask() if masks is None else masks
    if not arrays.plain((params, x, mask)) or not isinstance(mask, Mask):
        require(params)
        checks.mask_argument("masks", mask)
        params, x, mask = arrays.native((params, x, mask))
        checks.floating("x", x, ports(params))
    dense = rules != RULES
    return params, x, Given(mask, plan(params.graph, dense).tables, params.graph.arrows, dense)


def check(params: GraphParams, x: jax.Array, masks: Given) -> None:
    """Raise unless the parameters, x and the mask fit together; called at trace time."""
    require(params)
    checks.floating("x", x, ports(params))
    batch, mask = checks.examples(x, len(params.graph.inputs)), masks.mask
    checks.mask_argument("masks", mask)
    checks.mask_shapes("masks", mask, len(params.graph), params.weights.shape, params.weights.dtype, batch)
    if params.norm is not None and checks.whole_batch(params.norm, batch) == 1:
        raise ValueError(f"x: params has a batch norm, which needs at least 2 examples, got {batch}")
