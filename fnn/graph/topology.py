"""Traversals of a directed graph, whole generations at a time: topological generations, cycles, reachability."""

import numpy as np


class _Successors:
    """The arrows by source, for looking up those of many neurons at once."""

    def __init__(self, neurons: int, arrows: np.ndarray):
        order = np.argsort(arrows[:, 0], kind="stable")
        self.target = arrows[order, 1]
        self.start = np.concatenate([[0], np.cumsum(np.bincount(arrows[:, 0], minlength=neurons))])

    def of(self, neurons: np.ndarray) -> np.ndarray:
        """The targets of all arrows that leave ``neurons``."""
        first, count = self.start[neurons], self.start[neurons + 1] - self.start[neurons]
        shift = np.repeat(first - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
        return self.target[np.arange(count.sum()) + shift]


def generations(neurons: int, arrows: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """The length of the longest path to every neuron, (N,) int32; −1 on a cycle and downstream of one.

    Inputs are in generation 0; other neurons without incoming arrows are in generation 1 (Kahn 1962).
    """
    successors = _Successors(neurons, arrows)
    waiting = np.bincount(arrows[:, 1], minlength=neurons)
    generation = np.full(neurons, -1, np.int32)
    frontier, later = inputs, np.setdiff1d(np.flatnonzero(waiting == 0), inputs)
    number = 0
    while len(frontier) or len(later):
        generation[frontier] = number
        reached, count = np.unique(successors.of(frontier), return_counts=True)
        waiting[reached] -= count
        frontier = np.concatenate([reached[waiting[reached] == 0], later]).astype(np.int32)
        later, number = later[:0], number + 1
    return generation


def cycle(arrows: np.ndarray, among: np.ndarray) -> list[int]:
    """The neurons along one cycle, the first repeated at the end.

    Every neuron in ``among`` must have a predecessor in ``among``.
    """
    predecessor = {int(t): int(s) for s, t in arrows if among[s] and among[t]}
    seen: dict[int, int] = {}
    neuron = next(iter(predecessor))
    while neuron not in seen:
        seen[neuron] = len(seen)
        neuron = predecessor[neuron]
    backwards = list(seen)[seen[neuron] :]
    return [neuron, *reversed(backwards)]


def reachable(neurons: int, arrows: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The neurons reachable from ``start``, including ``start``."""
    successors, found, frontier = _Successors(neurons, arrows), np.zeros(neurons, bool), start
    while len(frontier):
        found[frontier] = True
        reached = np.unique(successors.of(frontier))
        frontier = reached[~found[reached]]
    return np.flatnonzero(found)
