"""The two kinds of network, layers and graphs: the only module that distinguishes them.

Both provide the same pure functions. x is (B, n_0), results have examples in rows, and masks are in the form that
``Kind.given`` returns.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from jax.tree_util import tree_map_with_path

from fnn import backward as layered
from fnn import dropout, fold, layers, network
from fnn.checks import network as checks
from fnn.graph import given as of_graph
from fnn.graph import graph, inference, passes

AnyParams = TypeVar("AnyParams", bound=layers.Params | graph.GraphParams)


class Outputs(NamedTuple):
    """The forward pass's results for either kind: σ, z and a of the output, (B, n_L), and everything before."""

    activation: Any
    z: Any
    a: Any
    passed: Any


class Backward(NamedTuple):
    """The backward pass's results for either kind, for the sum over the examples."""

    deltas: Any  # ∂/∂ψ
    deltas_z: Any  # ∂/∂z
    gradients: Any
    input_gradient: Any


class Kind(NamedTuple):
    """The functions for one kind of network."""

    require: Callable  # (params): raises unless they form a network of this kind
    given: Callable  # (params, x, masks, rules): in the form for compiled functions; raises errors that jit would hide
    tables: Callable  # (params, rules): what ``given`` looks up, as an argument of a compiled function, or None
    with_masks: Callable  # (tables, masks): both, in the form of masks that ``given`` takes
    check: Callable  # (params, x, masks): raises unless they fit together; called at trace time
    ports: Callable  # (params): dtype, number of inputs and outputs
    output_activations: Callable  # (params): those that differ
    forward: Callable  # (rules, params, x, masks) -> Outputs
    trace: Callable  # (rules, params, x, masks)
    backward: Callable  # (rules, params, masks, passed, delta_z) -> Backward
    probabilities: Callable  # (dropout, params)
    sample_masks: Callable  # (key, params, dropout, batch)
    kept_weights: Callable  # (params, dropout): W p instead of W
    norm_statistics: Callable  # (params, x, masks) of one mini-batch
    fold: Callable  # (params, statistics, dropout)
    has_norm: Callable  # (params)


def _forward(rules, params, x, masks) -> Outputs:
    a, passed = network.forward_pass(rules, params, x, masks)
    return Outputs(params[-1].activation, passed[-1][1].z, a, passed)


def _trace(rules, params, x, masks) -> tuple:
    return tuple(t for _, t in network.forward_pass(rules, params, x, masks)[1])


def _backward(rules, params, masks, passed, delta_z) -> Backward:
    g, pulled = layered.backward_pass(rules, params, masks, passed, delta_z)
    deltas, deltas_z, gradients = zip(*pulled)
    return Backward(deltas, deltas_z, gradients, g)


LAYERS = Kind(
    require=checks.layers,
    given=checks.network_arguments,
    tables=lambda params, rules: None,
    with_masks=lambda tables, masks: masks,
    check=checks.network,
    ports=checks.ports,
    output_activations=checks.output_activations,
    forward=_forward,
    trace=_trace,
    backward=_backward,
    probabilities=dropout.probabilities,
    sample_masks=dropout.layer_masks,
    kept_weights=fold.kept_weights,
    norm_statistics=fold.norm_statistics,
    fold=fold.fold_layers,
    has_norm=lambda params: any(layer.norm is not None for layer in params),
)
GRAPH = Kind(
    require=of_graph.require,
    given=of_graph.given,
    tables=lambda params, rules: of_graph.tables(params, rules=rules),
    with_masks=of_graph.with_masks,
    check=of_graph.check,
    ports=of_graph.ports,
    output_activations=of_graph.output_activations,
    forward=lambda *args: Outputs(*passes.forward(*args)),
    trace=passes.trace,
    backward=lambda *args: Backward(*passes.backward(*args)),
    probabilities=inference.probability,
    sample_masks=inference.sample_masks,
    kept_weights=inference.kept_weights,
    norm_statistics=inference.norm_statistics,
    fold=inference.fold,
    has_norm=lambda params: params.norm is not None,
)


def either(params: Any, of_layers: Any, of_graph: Any) -> Any:
    """Of two values, the one for these parameters."""
    return of_graph if isinstance(params, graph.GraphParams) else of_layers


def kind(params: Any) -> Kind:
    """The functions for these parameters."""
    return either(params, LAYERS, GRAPH)


def is_weight(params: Any) -> Any:
    """A pytree like ``params``, True for weights and False for biases and batch norms: a mask for optax.

    A weight is W of a ``Dense`` or a ``Stack``, and the weights of a graph; the number of axes does not tell.

    >>> import fnn, jax, optax
    >>> decay = optax.add_decayed_weights(1e-4, mask=fnn.is_weight)
    >>> mask = is_weight(fnn.init(jax.random.key(0), (3, 2)))
    >>> mask[0].W, mask[0].b
    (True, False)
    """
    if hasattr(params, "network"):
        raise TypeError("params: expected a pytree like params, got a Run; write fnn.is_weight(run.params)")
    return tree_map_with_path(lambda path, _: getattr(path[-1], "name", "") in ("W", "weights"), params)


def given(params, x, masks, rules) -> tuple:
    """(params, x, masks) in the form that the compiled functions take."""
    require_rules(rules)
    return kind(params).given(params, x, masks, rules)


def require_rules(rules) -> None:
    """Raise TypeError unless ``rules`` are ``fnn.Rules``."""
    if not isinstance(rules, layered.Rules):
        raise TypeError(f"rules: expected fnn.Rules, got {rules!r}; write fnn.RULES._replace(hidden_delta=...)")


def require_layers(params: Any, call: str, why: str) -> None:
    """Raise TypeError for a graph, whose neurons have no inputs in common."""
    if isinstance(params, graph.GraphParams):
        raise TypeError(
            f"params: {call} takes layers, got a fnn.graph.GraphParams, where every neuron has its own inputs, so that "
            f"{why}"
        )
