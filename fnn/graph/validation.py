"""Validation of a graph's neurons, arrows and activations, and their numbering."""

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from fnn.activations import Activation, Identity
from fnn.checks import arrays
from fnn.checks import network as checks
from fnn.graph.topology import cycle, reachable

SHOWN = 10  # maximum number of neurons listed in a message


class Numbers:
    """Maps neurons to their numbers, int32: Numbers(neurons)(argument's name, neurons)."""

    def __init__(self, neurons: Sequence[Hashable]):
        self.neurons = neurons

    @cached_property
    def _number(self) -> Mapping[Hashable, int]:
        return {name: number for number, name in enumerate(self.neurons)}

    def __call__(self, name: str, values) -> np.ndarray:
        if isinstance(self.neurons, range):
            array = np.asarray(values)
            if array.size and not np.issubdtype(array.dtype, np.integer):
                raise TypeError(f"{name}: expected neurons as integers below {len(self.neurons)}, got {values!r:.80}")
            unknown = (array < 0) | (array >= len(self.neurons))
            if unknown.any():
                raise ValueError(
                    f"{name}: unknown neuron {array[unknown][0]}; "
                    f"the activations are for neurons 0 to {len(self.neurons) - 1}"
                )
            return array.astype(np.int32)
        flat = [v for pair in values for v in pair] if name == "arrows" else values
        for v in flat:
            if not isinstance(v, Hashable) or v not in self._number:
                raise ValueError(f"{name}: unknown neuron {v!r:.80}; give it an activation, or list it in inputs")
        return np.array([self._number[v] for v in flat], np.int32)


def kinds(neurons: Sequence, inputs: np.ndarray, activations) -> tuple[tuple[Activation, ...], np.ndarray]:
    """The distinct activations and each neuron's index into them; the identity comes first, for the inputs."""
    is_input = np.zeros(len(neurons), bool)
    is_input[inputs] = True
    if isinstance(activations, Mapping):
        given: Any = [None if is_input[i] else activations[name] for i, name in enumerate(neurons)]
    elif _is_sequence(activations):
        given = [None if of_input else a for of_input, a in zip(is_input, activations)]
    else:
        _elementwise(activations, "activations")
        kinds = (Identity(),) if activations == Identity() else (Identity(), activations)
        return kinds, np.where(is_input, 0, len(kinds) - 1).astype(np.int32)
    known: dict[Activation, int] = {Identity(): 0}
    kind = np.zeros(len(neurons), np.int32)
    for i, activation in enumerate(given):
        if activation is not None or not is_input[i]:
            if getattr(activation, "__hash__", None) is None or activation not in known:
                _elementwise(activation, f"activations[{neurons[i]!r}]")
            kind[i] = known.setdefault(activation, len(known))
    return tuple(known), kind


def refuse_repeats(name: str, neurons: Sequence, numbers: np.ndarray) -> None:
    values, counts = np.unique(numbers, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{name}: neuron {neurons[values[counts > 1][0]]!r} is listed twice")


def normed(number: Numbers, inputs: np.ndarray, outputs: np.ndarray, chosen) -> np.ndarray:
    """(N,) bool: the neurons that a batch norm is for; by default those that are neither input nor output."""
    normed = np.full(len(number.neurons), chosen is None)
    if chosen is None:
        normed[inputs] = normed[outputs] = False
    else:
        normed[number("normed", listed("normed", chosen))] = True
        if normed[inputs].any():
            neuron = number.neurons[inputs[normed[inputs].argmax()]]
            raise ValueError(f"normed: neuron {neuron!r} is an input, whose value is given; leave it out")
    return normed


def refuse_bad_arrows(neurons: Sequence, inputs: np.ndarray, arrows: np.ndarray) -> None:
    source, target = arrows.T
    into = np.isin(target, inputs)
    if into.any():
        arrow = _arrow(neurons, arrows, into.argmax())
        raise ValueError(f"arrows: {arrow} leads into an input, whose value is given; leave it out")
    keys = source.astype(np.int64) * len(neurons) + target
    order = np.argsort(keys, kind="stable")
    again = keys[order[1:]] == keys[order[:-1]]
    if again.any():
        arrow = _arrow(neurons, arrows, order[1:][again][0])
        raise ValueError(f"arrows: {arrow} is given twice; one arrow has one weight")


def _arrow(neurons: Sequence, arrows: np.ndarray, i) -> str:
    source, target = arrows[i]
    return f"arrow {i}, {neurons[source]!r} -> {neurons[target]!r},"


def refuse_cycle(neurons: Sequence, arrows: np.ndarray, generation: np.ndarray) -> None:
    if generation.min(initial=0) >= 0:
        return
    on_it = [f"{neurons[i]!r}" for i in cycle(arrows, generation < 0)]
    if len(on_it) > 2 * SHOWN:
        on_it[SHOWN:-SHOWN] = ["..."]
    raise ValueError(f"arrows: expected no cycle, got {' -> '.join(on_it)}")


def warn_of_idle_neurons(neurons: Sequence, inputs: np.ndarray, outputs: np.ndarray, arrows: np.ndarray) -> None:
    everywhere = np.arange(len(neurons))
    for start, along, what in (
        (outputs, arrows[:, ::-1], "reach no output"),
        (inputs, arrows, "are reached by no input"),
    ):
        idle = np.setdiff1d(everywhere, reachable(len(neurons), along, start))
        if len(idle):
            named = ", ".join(repr(neurons[i]) for i in idle[:SHOWN])
            more = f" and {len(idle) - SHOWN} more" if len(idle) > SHOWN else ""
            warnings.warn(f"arrows: neurons that {what}: {named}{more}", stacklevel=3)


def listed(name: str, values) -> list:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name}: expected neurons, got {values!r}; write {name}=[...]")
    if isinstance(values, (set, frozenset)) and name != "normed":
        raise TypeError(f"{name}: expected neurons in the order of the columns, got {values!r}, which has none")
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if not all(isinstance(neuron, Hashable) for neuron in listed):
        raise TypeError(f"{name}: expected neurons, got {values!r:.80}; write {name}=[...]")
    if not listed:
        raise ValueError(f"{name}: expected at least one neuron, got none")
    return listed


def pairs(arrows) -> Any:
    """The arrows as an integer array (M, 2), or as a list of pairs of names."""
    if not isinstance(arrows, Iterable):
        raise TypeError(f"arrows: expected pairs (source, target), got {arrows!r}; write [(0, 1), (1, 2)]")
    if isinstance(arrows, np.ndarray) and arrows.dtype.kind not in "OUS":
        if not np.issubdtype(arrows.dtype, np.integer):
            raise TypeError(f"arrows: expected integers, got {arrays.describe(arrows)}; write arrows.astype(int)")
        pairs: Any = arrows
    else:
        pairs = [tuple(arrow) if isinstance(arrow, (tuple, list, np.ndarray)) else arrow for arrow in arrows]
        for i, pair in enumerate(pairs):
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise ValueError(f"arrows[{i}]: expected a pair (source, target), got {pair!r}")
        if all(_is_integer(v) for pair in pairs for v in pair):
            pairs = np.array(pairs, np.int64).reshape(-1, 2)
    if isinstance(pairs, np.ndarray) and (pairs.ndim != 2 or pairs.shape[1] != 2):
        raise ValueError(f"arrows: expected shape (M, 2), got {pairs.shape}")
    return pairs


def _is_sequence(activations) -> bool:
    return isinstance(activations, Sequence) and not isinstance(activations, (str, bytes))


def _is_integer(value) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def names(pairs, activations, inputs: list, outputs: list) -> Sequence[Hashable]:
    """The neurons in the order of their numbers: ``range(N)``, or a tuple of names."""
    if _is_sequence(activations):
        return range(len(activations))
    if isinstance(activations, Mapping):
        names: Iterable = dict.fromkeys([*inputs, *activations])
    elif isinstance(pairs, np.ndarray):
        names = dict.fromkeys([*inputs, *pairs.ravel().tolist(), *outputs])
    else:
        names = dict.fromkeys([*inputs, *(name for pair in pairs for name in pair), *outputs])
    names = tuple(names)
    if all(map(_is_integer, names)) and sorted(names) == list(range(len(names))):
        return range(len(names))
    return names


def _elementwise(activation, name: str) -> None:
    checks.activation_like(activation, name)
    if isinstance(activation, Activation) and type(activation).derivative is Activation.derivative:
        raise TypeError(
            f"{name}: expected an elementwise activation, got {activation!r}; "
            "for a softmax, give the outputs fnn.Identity() and train with loss=fnn.SoftmaxCrossEntropy()"
        )
