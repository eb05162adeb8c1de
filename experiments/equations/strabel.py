"""Strabel, *The basics of neural networks* (2023): the graph, and back-propagation on it."""
# ruff: noqa: E741  l is the document's index

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from experiments.equations.common import problem, relative
from experiments.equations.register import erratum, loose, row, true
from fnn.graph import Graph, GraphParams

ACTIVATIONS = (
    *[fnn.Identity()] * 3, fnn.Tanh(), fnn.Sigmoid(2.0), fnn.Softplus(), fnn.Gaussian(), fnn.SiLU(), fnn.ScaledTanh(),
)  # fmt: skip
FIRST = 3  # neurons 0, 1, 2 are the inputs; numbered along the arrows, so that every sender precedes its receivers
SENDERS = {3: (0, 1, 2), 4: (0, 2, 3), 5: (1, 3, 4), 6: (4, 5), 7: (3, 5, 6), 8: (2, 5, 7)}  # k: all l with (l, k) ∈ A
OUTPUTS = (5, 6, 8)  # 5 and 6 have outgoing arrows too; 8 is the only terminal one
ETA = 0.1
BATCH = 6


def keep(network: GraphParams) -> np.ndarray:
    """p_kl, of its own for every arrow."""
    return np.linspace(0.3, 0.9, len(network.weights))


def mask(network: GraphParams) -> Any:
    """r_kl of one mini-batch."""
    return fnn.sample_masks(network, fnn.DropConnect(keep(network)), BATCH, key=jax.random.key(1)).arrows


class Case(NamedTuple):
    """A network with the document's names: w[k, l] of the arrow l → k; all else (N, m), a row per neuron."""

    network: GraphParams
    x: jax.Array  # (m, 3)
    y: jax.Array
    w: dict[tuple[int, int], Any]
    psi: np.ndarray
    o: np.ndarray
    slope: np.ndarray  # σ'_k(ψ_k)
    direct: np.ndarray  # ∂L/∂o_k σ'_k(ψ_k) of an output, 0 of any other
    right: Any  # autodiff's gradients by w, β, and every ψ: a tuple (w, beta, lam)


def by_arrow(weights) -> dict[tuple[int, int], Any]:
    """The entries of an array over arrows, as w[k, l]."""
    return {(k, l): weights[i] for i, (l, k) in enumerate((l, k) for k in SENDERS for l in SENDERS[k])}


def receivers(k: int) -> list[int]:
    """All l with (k, l) ∈ A."""
    return [l for l, senders in SENDERS.items() if k in senders]


def as_printed(w, r, beta, x, shift=np.zeros((len(ACTIVATIONS), 1))):
    """(1), (11): the ψ and o of every neuron, an input's being x; ``shift`` is added to every ψ."""
    psi: list = []
    o: list = []
    for k, activation in enumerate(ACTIVATIONS):
        if k < FIRST:
            psi.append(x[:, k] + shift[k])
        else:
            psi.append(sum(w[k, l] * r[k, l] * o[l] for l in SENDERS[k]) + beta[k] + shift[k])
        o.append(activation.value(psi[k]))
    return psi, o


@jax.jit
def autodiff(w, r, beta, x, y):
    """Gradients of the summed loss by w, β and ψ; also ψ, o, and σ'_k(ψ_k)."""
    loss = fnn.SquaredError(0.5)

    def total(w, beta, shift):
        _, o = as_printed(w, r, beta, x, shift)
        return jnp.sum(loss.value(jnp.stack([o[k] for k in OUTPUTS], axis=1), y))

    psi, o = as_printed(w, r, beta, x)
    slopes = [activation.derivative(z, a) for activation, z, a in zip(ACTIVATIONS, psi, o)]
    by_o = loss.gradient(jnp.stack([o[k] for k in OUTPUTS], axis=1), y)
    zeros = jnp.zeros((len(ACTIVATIONS), len(x)))
    return jax.grad(total, argnums=(0, 1, 2))(w, beta, zeros), psi, o, slopes, by_o


@cache
def case(dropped: bool = False) -> Case:
    """The network of this document: w ~ N(0, 1), β ~ N(0, ¼); ``dropped``: with the arrows of :func:`mask`."""
    random = np.random.default_rng(0)
    graph = Graph([(l, k) for k in SENDERS for l in SENDERS[k]], ACTIVATIONS, range(FIRST), OUTPUTS)
    weights, biases = random.normal(size=len(graph.arrows)), random.normal(size=len(graph)) / 2
    biases[:FIRST] = 0
    network = GraphParams(jnp.asarray(weights), jnp.asarray(biases), graph)
    x, y = jnp.asarray(random.normal(size=(BATCH, FIRST))), jnp.asarray(random.uniform(size=(BATCH, len(OUTPUTS))))
    w, r = by_arrow(weights), by_arrow(np.asarray(mask(network)) if dropped else np.ones_like(weights))
    right, *values, by_o = jax.tree.map(np.asarray, autodiff(w, r, biases, x, y))
    psi, o, slope = map(np.stack, values)
    direct = np.zeros_like(o)
    direct[list(OUTPUTS)] = by_o.T * slope[list(OUTPUTS)]
    return Case(network, x, y, w, psi, o, slope, direct, right)


def four(c: Case, k: int, lam, w) -> np.ndarray:
    """(4) as printed: Σ over (k, l) ∈ A of λ_l w_lk σ'_k(ψ_k)."""
    return sum((lam[l] * w[l, k] * c.slope[k] for l in receivers(k)), np.zeros(BATCH))


@row("fnn.graph.recursion.forward_pass", "fnn.graph.graph.Graph")
def S1():
    """(1) with an activation of its own for every neuron, on a directed graph."""
    c, layers = case(), problem()
    ours = fnn.trace(c.network, c.x)
    as_graph = fnn.forward(Graph.from_layers(layers.params), layers.x)
    off = max(relative([c.psi.T, c.o.T], [ours.psi, ours.a]),
              relative(as_graph, fnn.forward(layers.params, layers.x)))  # fmt: skip

    def settled(back: float, start: float) -> np.ndarray:
        """o of neurons 1 ⇄ 2 after sweeps of (1) that change nothing any more; the arrow 2 → 1 has weight ``back``."""
        o = np.full(2, start)
        for _ in range(100):
            o = np.tanh([0.1 + back * o[1], 2 * o[0]])
        return o

    low, high = settled(2.0, -1.0), settled(2.0, 1.0)
    residuals = [relative(np.tanh([0.1 + 2 * o[1], 2 * o[0]]), o) for o in (low, high)]  # both fulfil (1)
    try:
        refused = f"taken: {Graph([(0, 1), (1, 2), (2, 1)], fnn.Tanh(), [0], [2])}"
    except ValueError as error:
        refused = f"fnn: {error}"
    return (
        true("ψ_k = Σ_{l:(l,k)∈A} w_kl o_l + β_k, o_k = σ_k(ψ_k)", off, against="fnn.trace; layers (H5)"),
        loose(
            "a directed graph", relative(low, high), "a directed acyclic graph",
            max(*residuals, relative(settled(0.0, -1.0), settled(0.0, 1.0))),
            against="another o that fulfils (1)", note=refused,
        ),
    )  # fmt: skip


@row("fnn.graph.recursion.backward_pass", "fnn.graph.recursion.weight_gradients")
def S2():
    """(2), (3), and the recursion (4) for λ_k = ∂L/∂ψ_k."""
    c = case()
    by_w, by_beta, lam = c.right
    ours = fnn.backprop(c.network, c.x, c.y, reduction="sum")
    our_lam = np.asarray(fnn.deltas(c.network, c.x, c.y)).T
    two = {(k, j): np.sum(lam[k] * c.o[j]) for k, j in c.w}
    three = np.where(np.arange(len(lam)) < FIRST, 0, np.sum(lam, axis=1))
    inner = [k for k in SENDERS if k not in OUTPUTS]
    both = [k for k in OUTPUTS if receivers(k)]  # outputs with outgoing arrows
    of_inner, of_both = (np.stack([four(c, k, lam, c.w) for k in neurons]) for neurons in (inner, both))
    literal = c.direct.copy()  # (4) throughout, and (5) where it has nothing to add
    for k in reversed(range(FIRST, len(lam) - 1)):
        literal[k] = four(c, k, literal, c.w)
    return (
        true("∂L/∂w_kj = λ_k o_j", max(relative(two, by_w), relative(by_arrow(ours.weights), by_w))),
        true("∂L/∂β_k = λ_k", max(relative(three[FIRST:], by_beta[FIRST:]), relative(ours.biases, three))),
        true(
            "λ_k = Σ_{l:(k,l)∈A} λ_l w_lk σ'_k(ψ_k), k no output",
            max(relative(of_inner, lam[inner]), relative(our_lam, lam)),
        ),
        erratum(
            "(4), k an output with outgoing arrows", relative(of_both, lam[both]), "+ ∂L/∂o_k σ'_k(ψ_k)",
            max(relative(of_both + c.direct[both], lam[both]), relative(our_lam[both], lam[both])),
            note=f"the λ of the neurons before it are then off by {relative(literal[inner], lam[inner]):.2g}",
        ),
    )  # fmt: skip


def our_step(c: Case):
    """What the package adds to w[k, l] and to β: the sum's gradients, and plain descent."""
    rule = fnn.updates.sgd(ETA)
    steps, _ = rule.update(fnn.backprop(c.network, c.x, c.y, reduction="sum"), rule.init(c.network))
    return by_arrow(steps.weights), steps.biases


@row("fnn.functions.backprop", "fnn.updates.sgd")
def S3():
    """(5) to (9): λ of a terminal neuron l, and updates by the sum over i = 1…m."""
    c, l = case(), len(ACTIVATIONS) - 1
    by_w, by_beta, lam = c.right
    ours, our_beta = our_step(c)
    out = c.o[list(OUTPUTS)] - np.asarray(c.y).T  # ∂L_i/∂z_li of ½(z − y)²
    five = out[OUTPUTS.index(l)] * c.slope[l]
    right = [-ETA * by_w[l, j] for j in SENDERS[l]]
    six = [-ETA * np.sum(lam[l] * c.o[l]) for _ in SENDERS[l]]  # o_li has no index of the sender
    swapped = [-ETA * np.sum(lam[l] * c.o[j]) for j in SENDERS[l]]
    eight = {(k, j): -ETA * np.sum(lam[k] * c.o[j]) for k, j in c.w}
    right_w, right_beta = jax.tree.map(lambda g: -ETA * g, (by_w, by_beta[FIRST:]))
    nine = -ETA * np.sum(lam[FIRST:], axis=1)
    return (
        true("λ_li = ∂L_i/∂z_li σ'_l(ψ_li)", relative(five, lam[l])),
        erratum(
            "w_kl ← w_kl − η Σ_i λ_li o_li", relative(six, right), "w_lj ← w_lj − η Σ_i λ_li o_ji",
            max(relative(swapped, right), relative([ours[l, j] for j in SENDERS[l]], right)),
            note=f"run with w_lj; of w_kl, arrows out of the terminal l, there are {len(receivers(l))}",
        ),
        true("β_l ← β_l − η Σ_i λ_li", max(relative(nine[-1], right_beta[-1]), relative(our_beta[l], right_beta[-1]))),
        true(
            "w_kj ← w_kj − η Σ_i λ_ki o_ji", max(relative(eight, right_w), relative(ours, right_w)),
        ),
        true(
            "β_k ← β_k − η Σ_i λ_ki", max(relative(nine, right_beta), relative(our_beta[FIRST:], right_beta)),
        ),
    )  # fmt: skip


@row("fnn.functions.backprop", "experiments.update_order")
def S11():
    """(6) and (7), then (8) and (9) recursively backwards, (4) producing the summands."""
    c, terminal = case(), len(ACTIVATIONS) - 1
    right = {(k, j): g for (k, j), g in c.right[0].items() if k != terminal}

    def summands(eta: float, updated: bool) -> dict:
        """Σ_i λ_ki o_ji of every arrow but the terminal's, λ with the w of the moment or with that from before."""
        w, lam, found = dict(c.w), np.zeros_like(c.o), {}
        for k in reversed(SENDERS):
            lam[k] = c.direct[k] + four(c, k, lam, w if updated else c.w)
            for j in SENDERS[k]:
                found[k, j] = np.sum(lam[k] * c.o[j])
                w[k, j] -= eta * found[k, j]
        return {arrow: found[arrow] for arrow in right}

    ours, _ = our_step(c)
    off, tenth = (relative(summands(eta, updated=True), right) for eta in (ETA, ETA / 10))
    ours_off = relative({arrow: ours[arrow] for arrow in right}, jax.tree.map(lambda g: -ETA * g, right))
    return erratum(
        "update w_lj, then λ_k = Σ_l λ_l w_lk σ'_k(ψ_k)", off, "λ_k with the w_lk from before the update",
        max(relative(summands(ETA, updated=False), right), ours_off), note=f"η = {ETA}; at η = {ETA / 10}: {tenth:.2g}",
    )  # fmt: skip
