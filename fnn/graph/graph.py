"""Networks on a directed acyclic graph: constructors, and parameters that carry their graph."""

import hashlib
import html
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fnn.activations import Activation, Identity, PerNeuron, Sigmoid
from fnn.batchnorm import BatchNorm
from fnn.checks import arrays
from fnn.checks import network as checks
from fnn.checks.network import activation_like
from fnn.graph import topology, validation
from fnn.graph.picture import is_drawn, picture
from fnn.graph.random import drawn_arrows
from fnn.layers import Dense, Params
from fnn.markup import counted, is_concrete
from fnn.numbers import floating_dtype, layer_sizes, number
from fnn.stacking import unstack


class Graph:
    """Neurons and arrows, validated once; static, compared and hashed by content.

    arrows:      pairs (source, target) of neurons, in the order of the weights: an integer array (M, 2), or a
                 sequence of pairs of indices or of names (anything hashable).
    activations: elementwise, for every neuron that is not an input: one for all; a mapping from neuron to activation;
                 or, for neurons 0 … N−1, a sequence of N, whose entries for inputs are ignored.
    inputs, outputs: neurons, in the order of the columns of x and of the network's output. An output may have
                 outgoing arrows.
    normed:      the neurons to normalise if the parameters have a batch norm; by default, as in layers, all hidden
                 ones. Outputs may be included, inputs may not.

    Neurons are numbered from 0. Integers 0 … N−1 keep their number; names are numbered inputs first, then in order of
    appearance in the arrows, then in the outputs. Every array over neurons (biases, ψ, λ) has that order;
    ``index(name)`` is a neuron's number.

    neurons (N,): the names; arrows (M, 2): their numbers; inputs, outputs: numbers; activations: one per neuron;
    generation (N,): the length of the longest path to it, 0 for inputs; normed (N,): whether it is normalised.

    Raises TypeError or ValueError for an arrow into an input, an unknown neuron, a repeated arrow, and a cycle, which
    the message shows. Warns, with names, about neurons that reach no output or that no input reaches.

    >>> import fnn
    >>> graph = Graph([("x", "h"), ("h", "y"), ("x", "y")], fnn.Tanh(), inputs=["x"], outputs=["y"])
    >>> graph
    Graph(3 neurons, 3 arrows, 3 generations, 1 input, 1 output)
    >>> fnn.forward(graph.init(jax.random.key(0)), jnp.ones((5, 1))).shape
    (5, 1)
    """

    def __init__(self, arrows, activations, inputs: Iterable, outputs: Iterable, normed: Iterable | None = None):
        inputs, outputs = validation.listed("inputs", inputs), validation.listed("outputs", outputs)
        pairs = validation.pairs(arrows)
        self.neurons: Sequence[Hashable] = validation.names(pairs, activations, inputs, outputs)
        number = validation.Numbers(self.neurons)
        self.inputs, self.outputs = number("inputs", inputs), number("outputs", outputs)
        self.arrows = number("arrows", pairs).reshape(-1, 2)
        self.kinds, self.kind = validation.kinds(self.neurons, self.inputs, activations)
        validation.refuse_repeats("inputs", self.neurons, self.inputs)
        validation.refuse_repeats("outputs", self.neurons, self.outputs)
        self.normed = validation.normed(number, self.inputs, self.outputs, normed)
        validation.refuse_bad_arrows(self.neurons, self.inputs, self.arrows)
        self.generation = topology.generations(len(self.neurons), self.arrows, self.inputs)
        validation.refuse_cycle(self.neurons, self.arrows, self.generation)
        validation.warn_of_idle_neurons(self.neurons, self.inputs, self.outputs, self.arrows)
        for array in (self.inputs, self.outputs, self.arrows, self.kind, self.generation, self.normed):
            array.setflags(write=False)
        self._hash = int.from_bytes(self._digest[:8])  # the same in every process

    def __len__(self) -> int:
        return len(self.neurons)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other) -> bool:
        if self is other:
            return True
        if not isinstance(other, Graph) or self._digest != other._digest:
            return False
        return self.kinds == other.kinds and self.neurons == other.neurons

    def __repr__(self) -> str:
        counts = {
            "neuron": len(self), "arrow": len(self.arrows), "generation": self.generation.max(initial=0) + 1,
            "input": len(self.inputs), "output": len(self.outputs),
        }  # fmt: skip
        return f"{type(self).__name__}({', '.join(counted(number, thing) for thing, number in counts.items())})"

    def _repr_html_(self) -> str:
        return _picture(self, repr(self))

    @cached_property
    def _digest(self) -> bytes:
        content = hashlib.sha256()
        for array in (self.arrows, self.kind, self.inputs, self.outputs, self.normed):
            content.update(f"{array.shape}".encode() + array.tobytes())
        return content.digest()

    @property
    def activations(self) -> tuple[Activation, ...]:
        """The activation of every neuron; the identity for inputs."""
        return tuple(self.kinds[k] for k in self.kind)

    def index(self, neuron: Hashable) -> int:
        """The number of a neuron. Raises ValueError if it is unknown."""
        return int(validation.Numbers(self.neurons)("neuron", [neuron])[0])

    def init(self, key: Array, *, gain: float = 1.0, batch_norm: str | None = None, dtype=jnp.float32) -> "GraphParams":
        """A :class:`GraphParams` with weights from N(0, gain² 2/(n_in + n_out)) and zero biases.

        n_in is the number of arrows into the target, n_out the number out of the source; for a layered graph this is
        Glorot initialisation. gain > 0: √2 suits ReLU. batch_norm: "full" or "fixed" normalises ψ of the neurons that
        the graph calls ``normed``, with γ = 1, β = 0. Raises TypeError or ValueError.
        """
        arrays.prng_key(key)
        gain, dtype = number("init", "gain", gain, above=0), floating_dtype(dtype)
        arrays.one_of("batch_norm", batch_norm, (None, *checks.GRADIENTS))
        source, target = self.arrows.T
        fans = np.bincount(source, minlength=len(self))[source] + np.bincount(target, minlength=len(self))[target]
        weights = jax.random.normal(key, source.shape, dtype) * jnp.asarray(gain * np.sqrt(2 / fans), dtype)
        zeros = jnp.zeros(len(self), dtype)
        norm = None if batch_norm is None else BatchNorm(jnp.ones_like(zeros), zeros, gradient=batch_norm)
        return GraphParams(weights, zeros, self, norm)

    @classmethod
    def layered(
        cls,
        sizes: Sequence[int],
        activation: Activation = Sigmoid(),
        output: Activation = Identity(),
        skips: Iterable[tuple[int, int]] = (),
    ) -> "Graph":
        """Layers of ``sizes``, each fully connected to the next, and ``skips``: further pairs of layers, from 0.

        Neurons are numbered layer by layer, and arrows by layer, receiver and sender, like ``W.ravel()``; those of the
        skips follow. Raises TypeError or ValueError that names the argument.

        >>> Graph.layered((3, 4, 2), skips=[(0, 2)])
        Graph(9 neurons, 26 arrows, 3 generations, 3 inputs, 2 outputs)
        """
        sizes = layer_sizes(sizes)
        for name, given in {"activation": activation, "output": output}.items():
            activation_like(given, name)
        arrays.iterable("skips", skips, "pairs of layers; write skips=[(0, 2)]")
        first = np.concatenate([[0], np.cumsum(sizes)])
        pairs = [(i, i + 1) for i in range(len(sizes) - 1)]
        for skip in skips:
            if not isinstance(skip, (tuple, list)) or len(skip) != 2 or not 0 <= skip[0] < skip[1] < len(sizes):
                raise ValueError(f"skips: expected pairs of layers from 0 to {len(sizes) - 1}, got {skip!r}")
            pairs.append((int(skip[0]), int(skip[1])))
        arrows = [_all_pairs(range(*first[i : i + 2]), range(*first[j : j + 2])) for i, j in pairs]
        activations = [activation] * first[-2] + [output] * sizes[-1]
        return cls(np.concatenate(arrows), activations, range(sizes[0]), range(*first[-2:]))

    @classmethod
    def from_layers(cls, params: Params) -> "GraphParams":
        """The same network as a graph, with the layers' weights, biases and batch norms, as a :class:`GraphParams`.

        params: a tuple of ``Dense`` with elementwise activations and, if any, batch norms that differ in γ and β only.
        Neurons and arrows are numbered as in :meth:`layered`. Raises TypeError or ValueError.

        >>> import fnn
        >>> params = fnn.init(jax.random.key(0), (3, 4, 2))
        >>> network = Graph.from_layers(params)
        >>> bool(jnp.allclose(fnn.forward(network, jnp.ones(3)), fnn.forward(params, jnp.ones(3))))
        True
        """
        params = unstack(params)
        sizes = [params[0].W.shape[1], *(layer.W.shape[0] for layer in params)]
        inputs, plain, norms = jnp.zeros_like(params[0].b, shape=sizes[0]), cls.layered(sizes), _norms(params)
        activations = [Identity()] * sizes[0] + [one for layer in params for one in _by_neuron(layer)]
        normed = np.flatnonzero(np.repeat([False, *(layer.norm is not None for layer in params)], sizes))
        graph = cls(plain.arrows, activations, plain.inputs, plain.outputs, normed if norms else None)
        weights = jnp.concatenate([layer.W.ravel() for layer in params])
        biases = jnp.concatenate([inputs, *(layer.b for layer in params)])
        norm = jax.tree.map(lambda *leaves: jnp.concatenate([inputs, *leaves]), *norms) if norms else None
        return GraphParams(weights, biases, graph, norm)

    @classmethod
    def from_networkx(cls, G, activation: Activation = Sigmoid(), output: Activation = Identity()) -> "Graph":
        """A ``networkx.DiGraph`` as a network, with the arrows in the order of ``G.edges``.

        Its inputs are the nodes without incoming edges, its outputs those without outgoing edges, in the order of
        ``G.nodes``. Hidden neurons have ``activation``, outputs ``output``; a node's attribute "activation" takes
        precedence. For other outputs, write ``Graph(G.edges, activations, inputs, outputs)``.
        """
        if not (hasattr(G, "in_degree") and hasattr(G, "out_degree")):
            raise TypeError(f"G: expected a networkx.DiGraph, got {arrays.describe(G)}")
        inputs = [n for n, degree in G.in_degree() if degree == 0]
        outputs = [n for n, degree in G.out_degree() if degree == 0]
        last = set(outputs)
        activations = {n: kept.get("activation", output if n in last else activation) for n, kept in G.nodes(data=True)}
        return cls([tuple(edge[:2]) for edge in G.edges], activations, inputs, outputs)

    @classmethod
    def random(
        cls,
        key: Array,
        neurons: int,
        arrows: int,
        *,
        inputs: int = 1,
        outputs: int = 1,
        generations: int = 4,
        activation: Activation = Sigmoid(),
        output: Activation = Identity(),
    ) -> "Graph":
        """A random graph: every neuron has an arrow from the previous generation and one to a later neuron.

        key: ``jax.random.key(seed)``. neurons: their number; the first ``inputs`` are inputs (generation 0), the last
        ``outputs`` are outputs (the last generation), and the rest are spread evenly over the ``generations``. The
        remaining ``arrows`` lead from any neuron to any in a later generation. Raises TypeError or ValueError.

        >>> Graph.random(jax.random.key(0), 20, 50, inputs=3, outputs=2, generations=5)
        Graph(20 neurons, 50 arrows, 5 generations, 3 inputs, 2 outputs)
        """
        for name, given in {"activation": activation, "output": output}.items():
            activation_like(given, name)
        pairs = drawn_arrows(key, neurons, arrows, inputs, outputs, generations)
        activations = [activation] * (neurons - outputs) + [output] * outputs
        return cls(pairs, activations, range(inputs), range(neurons - outputs, neurons))


def _picture(graph: Graph, said: str, weights: np.ndarray | None = None) -> str:
    """A small graph as a picture, a large one in words."""
    if not is_drawn(graph.neurons, graph.arrows):
        return html.escape(said)
    return picture(said, graph.neurons, graph.generation, graph.arrows, weights)


def _by_neuron(layer: Dense) -> Sequence[Activation]:
    """The activation of each of a layer's neurons."""
    activation = layer.activation
    return activation.activations if isinstance(activation, PerNeuron) else (activation,) * len(layer.b)


def _norms(params: Params) -> list[BatchNorm]:
    """Every layer's batch norm, with zeros for γ and β where there is none; empty if no layer has one."""
    some = next((layer.norm for layer in params if layer.norm is not None), None)
    if some is None:
        return []
    norms = [
        layer.norm or replace(some, gamma=jnp.zeros_like(layer.b), beta=jnp.zeros_like(layer.b)) for layer in params
    ]
    if len(kinds := {(norm.eps, norm.gradient, norm.axis) for norm in norms}) > 1:
        raise ValueError(
            f"params: expected batch norms with the same eps, gradient and axis, got {sorted(kinds, key=str)}"
        )
    return norms


def _all_pairs(sources, targets) -> np.ndarray:
    target, source = np.meshgrid(targets, sources, indexing="ij")
    return np.stack([source.ravel(), target.ravel()], axis=1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class GraphParams:
    """Parameters that carry their graph: a pytree with leaves weights, biases and, if any, the batch norm's γ and β.

    weights: (M,), in the order of ``graph.arrows``: w_kl for the arrow l → k. biases: (N,), in the order of
    ``graph.neurons``; entries for inputs are ignored. norm: None, or a :class:`fnn.BatchNorm` with γ, β (N,); entries
    for neurons that are not in ``graph.normed`` are ignored. One floating dtype. Gradients have the same structure.
    Nothing is checked here; ``fnn.forward`` checks.
    """

    weights: Array
    biases: Array
    graph: Graph = field(metadata={"static": True})
    norm: BatchNorm | None = None

    def __repr__(self) -> str:
        norm = "" if self.norm is None else f", norm={self.norm.gradient}"
        return f"GraphParams({self.graph}{norm}, {getattr(self.weights, 'dtype', self.weights)})"

    def _repr_html_(self) -> str:
        weights = np.asarray(self.weights) if is_concrete(self.weights) else None
        fits = weights is not None and weights.shape == (len(self.graph.arrows),)  # not those of many networks
        return _picture(self.graph, repr(self), weights if fits else None)
