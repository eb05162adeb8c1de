"""What the chain rule costs (H12): its factors multiplied out in three orders, every multiplication counted."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import fnn
from experiments.equations.common import Problem, problem


class Counted:
    """Products that count their multiplications."""

    def __init__(self) -> None:
        self.multiplications = 0

    def product(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        self.multiplications += A.shape[0] * A.shape[1] * B.shape[1]
        return A @ B

    def scaled(self, A: np.ndarray, factors: np.ndarray) -> np.ndarray:
        self.multiplications += A.size
        return A * factors


class Chain(NamedTuple):
    """The factors of ∂C/∂W^ℓ for every layer: ∂C/∂a^L (1, n), W^ℓ (n, n), σ'(z^ℓ) (n,), a^{ℓ−1} (1, n)."""

    top: np.ndarray
    W: list[np.ndarray]
    slopes: list[np.ndarray]
    inputs: list[np.ndarray]


def chain(p: Problem) -> Chain:
    a, W, slopes, inputs = np.asarray(p.x), [], [], []
    for layer in p.params:
        inputs.append(a[None])
        W.append(np.asarray(layer.W))
        a = np.tanh(W[-1] @ a + np.asarray(layer.b))
        slopes.append(1 - a**2)
    return Chain((a - np.asarray(p.y))[None], W, slopes, inputs)


def backward_order(c: Chain, count: Counted) -> list[np.ndarray]:
    """From the output, each δ used for the next."""
    gradients, g = [], c.top
    for W, slope, a_in in zip(c.W[::-1], c.slopes[::-1], c.inputs[::-1]):
        delta = count.scaled(g, slope)
        gradients.append(count.product(delta.T, a_in))
        g = count.product(delta, W)
    return gradients[::-1]


def every_chain_anew(c: Chain, count: Counted) -> list[np.ndarray]:
    """From the output too, but for every layer from the start."""
    gradients = []
    for layer in range(len(c.W)):
        delta = count.scaled(c.top, c.slopes[-1])
        for later in range(len(c.W) - 1, layer, -1):
            delta = count.scaled(count.product(delta, c.W[later]), c.slopes[later - 1])
        gradients.append(count.product(delta.T, c.inputs[layer]))
    return gradients


def from_the_input(c: Chain, count: Counted) -> list[np.ndarray]:
    """The printed product from its right end, ∂z^ℓ/∂W^ℓ, with whole Jacobians."""
    gradients = []
    for layer, a_in in enumerate(c.inputs):
        n = len(c.W[layer])
        jacobian = count.scaled(np.kron(np.eye(n), a_in), c.slopes[layer][:, None])  # ∂a^ℓ/∂W^ℓ, (n, n·n)
        for W, slope in zip(c.W[layer + 1 :], c.slopes[layer + 1 :]):
            jacobian = count.scaled(count.product(W, jacobian), slope[:, None])
        gradients.append(count.product(c.top, jacobian).reshape(n, -1))
    return gradients


ORDERS: dict[str, Callable[[Chain, Counted], list[np.ndarray]]] = {
    "backward": backward_order,
    "each chain anew": every_chain_anew,
    "from the input": from_the_input,
}


def square_network(depth: int, width: int) -> Problem:
    return problem((width,) * (depth + 1), activation=fnn.Tanh(), batch=None)


def multiplications(order: str, depth: int, width: int) -> int:
    count = Counted()
    ORDERS[order](chain(square_network(depth, width)), count)
    return count.multiplications


def exponents(order: str) -> tuple[float, float]:
    """p and q of multiplications ∝ depth^p width^q, fitted to networks that were run."""
    depths, widths = (16, 32, 64), (8, 16, 32)
    by_depth = [multiplications(order, depth, 4) for depth in depths]
    by_width = [multiplications(order, 4, width) for width in widths]
    fits = (np.polyfit(np.log(sizes), np.log(counts), 1) for sizes, counts in ((depths, by_depth), (widths, by_width)))
    p, q = (float(slope) for slope, _ in fits)
    return p, q
