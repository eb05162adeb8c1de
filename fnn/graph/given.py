"""A graph's arguments, checked, and in the form that the passes take."""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from fnn.activations import Activation
from fnn.backward import RULES, Rules
from fnn.checks import arrays
from fnn.checks import network as checks
from fnn.graph.graph import Graph, GraphParams
from fnn.graph.plan import Index, Layout, plan
from fnn.masks import Mask
from fnn.numbers import number


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Given:
    """A graph's mask with what its passes look up: the plan's tables, and the arrows (M, 2); from :func:`tables`.

    graph: to which they belong; dense: whether every arrow is computed in a matrix, so that rules other than ours see
    all of them.
    """

    mask: Mask
    tables: Index
    arrows: Any
    graph: Graph = field(metadata={"static": True})
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


def tables(params: GraphParams, *, masks=None, rules: Rules = RULES) -> Given:
    """What the passes look up in a graph, to be an argument of a compiled function: a pytree for ``masks=`` there.

    Without it a function of yours under ``jax.jit`` holds the indices of all arrows as constants, about 15 bytes for
    each in a forward pass; fnn's own programs take them as arguments. params: the parameters of a graph; masks, rules:
    as for ``fnn.forward``, with the rules of the calls that take the result. Raises TypeError or ValueError.

    >>> import fnn
    >>> graph = fnn.graph.Graph([("x", "h"), ("h", "y")], fnn.Tanh(), inputs=["x"], outputs=["y"])
    >>> params, x = graph.init(jax.random.key(0)), jnp.ones((5, 1))
    >>> forward = jax.jit(lambda params, x, tables: fnn.forward(params, x, masks=tables))
    >>> forward(params, x, fnn.graph.tables(params)).shape
    (5, 1)
    """
    require(params)
    if not isinstance(rules, Rules):
        raise TypeError(f"rules: expected fnn.Rules, got {rules!r}; write fnn.RULES._replace(hidden_delta=...)")
    mask = Mask() if masks is None else masks
    checks.mask_argument("masks", mask)
    return _tables(params, arrays.native(mask), rules)


def _tables(params: GraphParams, mask: Mask, rules: Rules) -> Given:
    dense = rules != RULES
    return Given(mask, plan(params.graph, dense).tables, params.graph.arrows, params.graph, dense)


def with_masks(tables: Given, masks: Mask | None) -> Given:
    """The tables, and the masks of one step."""
    return tables if masks is None else replace(tables, mask=masks)


def given(params, x, masks, rules: Rules) -> tuple[GraphParams, jax.Array, Given]:
    """(params, x, masks) in the form that the compiled functions take."""
    if rules.affine is not RULES.affine:
        raise ValueError(
            "rules.affine: expected that of fnn.RULES, because a graph sums arrow by arrow and not by a matrix "
            "product; write rules._replace(affine=fnn.RULES.affine), or use layers from fnn.init"
        )
    found = masks if isinstance(masks, Given) else None
    mask = found.mask if found is not None else Mask() if masks is None else masks
    if not arrays.plain((params, x, mask)) or not isinstance(mask, Mask):
        require(params)
        checks.mask_argument("masks", mask)
        params, x, mask = arrays.native((params, x, mask))
        checks.floating("x", x, ports(params))
    if found is None:
        return params, x, _tables(params, mask, rules)
    if found.graph != params.graph or found.dense != (rules != RULES):
        raise ValueError(
            f"masks: expected the tables of {params.graph} for these rules, got those of {found.graph}"
            f"{' for rules of your own' if found.dense else ''}; write fnn.graph.tables(params, rules=rules)"
        )
    return params, x, replace(found, mask=mask)


def check(params: GraphParams, x: jax.Array, masks: Given) -> None:
    """Raise unless the parameters, x and the mask fit together; called at trace time."""
    require(params)
    checks.floating("x", x, ports(params))
    batch, mask = checks.examples(x, len(params.graph.inputs)), masks.mask
    checks.mask_argument("masks", mask)
    checks.mask_shapes("masks", mask, len(params.graph), params.weights.shape, params.weights.dtype, batch)
    if params.norm is not None and checks.whole_batch(params.norm, batch) == 1:
        raise ValueError(f"x: params has a batch norm, which needs at least 2 examples, got {batch}")
