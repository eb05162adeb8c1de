"""One recursion in three forms, on one network, neuron by neuron.

    Hedges, Bhaip   δ^ℓ = (W^{ℓ+1})ᵀ δ^{ℓ+1} ⊙ σ'(z^ℓ)                     H9, B6   ``fnn.deltas``
    Strabel         λ_k = Σ_{l: k→l} λ_l w_lk σ'_k(ψ_k)                     S2       ``fnn.deltas``
    the notes       ∂L/∂y_i^(m) = Σ_k ∂L/∂y_k^(m+1) σ'(x_k^(m+1)) W_ki^(m+1)   N5   as printed

Of the notes' form ∂L/∂y_i σ'(x_i) is compared, for δ and λ are derivatives by what σ receives.
"""

from functools import cache
from typing import NamedTuple

import jax
import numpy as np

import fnn
from experiments.equations.common import Problem, problem
from experiments.equations.lecture import slope
from experiments.equations.notes import LOSS, named, recursion
from fnn.display import Table
from fnn.graph import Graph

SIZES = (3, 4, 3, 2)  # two hidden layers, so that the recursion is used twice


class Forms(NamedTuple):
    """δ, λ and ∂L/∂y σ' of every neuron, (N,) each, and the largest disagreement, term by term and relative."""

    neurons: tuple[tuple[int, int], ...]  # (layer, index), from 1
    delta: np.ndarray
    lam: np.ndarray
    by_y: np.ndarray
    disagreement: float


def compared() -> Problem:
    """The network and the example on which the forms are compared."""
    return problem(SIZES, batch=None, loss=LOSS)


@cache
def three_forms() -> Forms:
    """The three forms on one network, in float64."""
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        p = compared()
        deltas = fnn.deltas(p.params, p.x, p.y, loss=p.loss)
        lambdas = fnn.deltas(Graph.from_layers(p.params), p.x, p.y, loss=p.loss)
        v = named(p)
        by_y = recursion(v)
        forms = (
            np.concatenate([np.asarray(delta) for delta in deltas]),
            np.asarray(lambdas)[SIZES[0] :],  # the inputs' λ, ∂L/∂x, stand in front
            np.concatenate([by_y[m] * slope(v.x[m]) for m in range(1, v.M + 1)]),
        )
    neurons = tuple((layer, i) for layer, size in enumerate(SIZES[1:], 1) for i in range(1, size + 1))
    apart = np.ptp(np.stack(forms), axis=0) / np.abs(forms[0])
    return Forms(neurons, *forms, float(apart.max()))


def table() -> Table:
    """The three forms side by side, with six significant digits."""
    forms = three_forms()
    rows = tuple(
        (str(layer), str(i), *(f"{value:#.6g}" for value in values))
        for (layer, i), *values in zip(forms.neurons, forms.delta, forms.lam, forms.by_y)
    )
    apart = "≤ 1e-12" if forms.disagreement <= 1e-12 else f"{forms.disagreement:.2g}"
    return Table(
        ("layer", "neuron", "δ (H9, B6)", "λ (S2)", "∂L/∂y σ' (N5)"), rows,
        title=f"One recursion in three forms, on a {'-'.join(map(str, SIZES))} network",
        footer=f"largest relative disagreement, term by term: {apart}",
    )  # fmt: skip
