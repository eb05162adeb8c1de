"""What Bhaip's rows run on: the network of the lecture by the lecture's names, and its formulas as they are printed."""

from functools import cache, partial
from typing import NamedTuple

import jax
import numpy as np

import fnn
from experiments.equations.common import Oracle, Problem, oracle, problem, relative
from fnn.backward import output_delta


class Lecture(NamedTuple):
    """The lecture's 3-4-2 network with one example, its arrays by the lecture's names, and autodiff's derivatives."""

    p: Problem
    right: Oracle
    W1: np.ndarray
    b1: np.ndarray
    W2: np.ndarray
    b2: np.ndarray
    x0: np.ndarray
    x1: np.ndarray
    x2: np.ndarray
    y: np.ndarray


@cache  # in float64, for only rows call it
def lecture() -> Lecture:
    p = problem(batch=None)
    (W1, b1), (W2, b2) = ((layer.W, layer.b) for layer in p.params)
    x1, x2 = (t.a for t in fnn.trace(p.params, p.x))
    return Lecture(p, oracle(p), *map(np.asarray, (W1, b1, W2, b2, p.x, x1, x2, p.y)))


def sigma(x):
    """σ."""
    return 1 / (1 + np.exp(-x))


def slope(x):
    """σ', as B9 prints it."""
    return sigma(x) * (1 - sigma(x))


def as_printed(p: Problem, derivative=slope):
    """δ_1 … δ_L and ∂E/∂W_1 … ∂E/∂W_L of one example by the formulas of B6, with σ' of any activation."""
    x = [np.asarray(a) for a in (p.x, *(t.a for t in fnn.trace(p.params, p.x)))]
    W, b = ({i: np.asarray(getattr(layer, name)) for i, layer in enumerate(p.params, 1)} for name in "Wb")
    L = len(p.params)
    delta = {L: (x[L] - np.asarray(p.y)) * derivative(W[L] @ x[L - 1] + b[L])}
    for i in range(L - 1, 0, -1):
        delta[i] = W[i + 1].T @ delta[i + 1] * derivative(W[i] @ x[i - 1] + b[i])
    return [delta[i] for i in range(1, L + 1)], [np.outer(delta[i], x[i - 1]) for i in range(1, L + 1)]


INNER = "∂E/∂W₁ = [(x₂ − y) ⊙ σ'(W₂x₁ + b₂)] ∂(W₂x₁ + b₂)/∂W₁"  # row B8's line


def differentiated(v: Lecture, W1, W2):
    """What the derivation differentiates, for autodiff: σ(W₂x₁ + b₂), W₂x₁ + b₂, x₁ and W₁x₀ + b₁."""
    z1 = W1 @ v.x0 + v.b1
    x1 = fnn.Sigmoid().value(z1)
    z2 = W2 @ x1 + v.b2
    return fnn.Sigmoid().value(z2), z2, x1, z1


@cache
def lines() -> dict[str, float]:
    """The derivation, line by line, and by how much each is off; a vector times a Jacobian contracts."""
    v = lecture()
    jacobians = jax.jit(jax.jacobian(partial(differentiated, v), argnums=(0, 1)))(v.W1, v.W2)
    (x2_1, z2_1, x1_1, z1_1), (x2_2, z2_2, *_) = zip(*jacobians)
    delta2 = (v.x2 - v.y) * slope(v.W2 @ v.x1 + v.b2)
    by_x1 = v.W2.T @ delta2
    printed = {
        "∂E/∂W₂ = (x₂ − y) ∂σ(W₂x₁ + b₂)/∂W₂": (v.x2 - v.y, x2_2),
        "∂E/∂W₂ = δ₂ ∂(W₂x₁ + b₂)/∂W₂": (delta2, z2_2),
        "∂E/∂W₁ = (x₂ − y) ∂σ(W₂x₁ + b₂)/∂W₁": (v.x2 - v.y, x2_1),
        INNER: (delta2, z2_1),
        "∂E/∂W₁ = W₂ᵀδ₂ ∂x₁/∂W₁": (by_x1, x1_1),
        "∂E/∂W₁ = [W₂ᵀδ₂ ⊙ σ'(W₁x₀ + b₁)] ∂(W₁x₀ + b₁)/∂W₁": (by_x1 * slope(v.W1 @ v.x0 + v.b1), z1_1),
    }
    ours = fnn.backprop(v.p.params, v.p.x, v.p.y, loss=v.p.loss)
    right = {name: v.right.gradients[i].W for i, name in enumerate(("∂E/∂W₁", "∂E/∂W₂"))}
    package = relative([layer.W for layer in ours], [layer.W for layer in v.right.gradients])
    return {
        line: max(relative(np.tensordot(factor, jacobian, 1), right[line[:6]]), package)
        for line, (factor, jacobian) in printed.items()
    }


def off_with(activation: fnn.Activation) -> float:
    """The worst disagreement of the printed δ's and gradients, and of the package's δ_L, with this activation."""
    p = problem(batch=None, activation=activation)
    right, (delta, weights) = oracle(p), as_printed(p, lambda z: activation.derivative(z, activation.value(z)))
    ours, by_W = last_layer(p)[-1], [layer.W for layer in right.gradients]
    return max(relative(delta, list(right.deltas)), relative(weights, by_W), relative(ours, right.deltas[-1]))


def last_layer(p: Problem) -> tuple[np.ndarray, ...]:
    """z, a and y of the last layer, and the package's δ."""
    t = fnn.trace(p.params, p.x)[-1]
    ours = output_delta(p.loss, p.params[-1].activation, t.z, t.a, p.y)
    return tuple(map(np.asarray, (t.z, t.a, p.y, ours)))
