"""Strabel, *The basics of neural networks* (2023), continued: dropout."""
# ruff: noqa: E741  l is the document's index

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from experiments.equations.common import problem, relative
from experiments.equations.register import convention, loose, row, true
from experiments.equations.strabel import BATCH, OUTPUTS, SENDERS, by_arrow, case, four, keep, mask


@row("fnn.dropout", "fnn.backward.weight_gradient", "fnn.graph.passes.forward")
def S4():
    """(11) to (13), and r_kl ~ Bernoulli(p_kl) for each mini-batch, p_kl the probability to keep."""
    c = case(dropped=True)
    network, masks = c.network, fnn.Mask(arrows=mask(c.network))
    p, r, draws = keep(network), by_arrow(np.asarray(masks.arrows)), 10_000
    by_w, _, lam = c.right
    trace = fnn.trace(network, c.x, masks=masks)
    ours = fnn.backprop(network, c.x, c.y, reduction="sum", masks=masks)
    our_lam = np.asarray(fnn.deltas(network, c.x, c.y, masks=masks)).T
    twelve = {(k, j): np.sum(lam[k] * c.o[j]) * r[k, j] for k, j in c.w}
    inner = [k for k in SENDERS if k not in OUTPUTS]
    carried = {arrow: c.w[arrow] * r[arrow] for arrow in c.w}
    thirteen = np.stack([four(c, k, lam, carried) for k in inner])
    keys = jax.random.split(jax.random.key(2), draws)
    drawn = jax.vmap(lambda key: fnn.sample_masks(network, fnn.DropConnect(p), BATCH, key=key))(keys)
    kept = np.mean(np.asarray(drawn.arrows), axis=0)
    return (
        true("ψ_k = Σ_l w_kl r_kl o_l + β_k", relative([c.psi.T, c.o.T], [trace.psi, trace.a]), "fnn.trace"),
        true("∂L/∂w_kj = λ_k o_j r_kj", max(relative(twelve, by_w), relative(by_arrow(ours.weights), by_w))),
        true(
            "λ_k = Σ_l λ_l w_lk r_lk σ'_k(ψ_k), k no output",
            max(relative(thirteen, lam[inner]), relative(our_lam, lam)),
        ),
        convention(
            "p_kl is the probability to drop", relative(kept, 1 - p), "to keep: r_kl ~ Bernoulli(p_kl)",
            relative(kept, p), against=f"share kept of {draws:,} draws, p_kl from {p[0]} to {p[-1]}",
            note="by (14), which multiplies by p_kl; most libraries ask for the probability to drop",
        ),
        every_arrow(),
        named_dropout(),
    )  # fmt: skip


def every_arrow():
    """(11) drops the arrows out of the inputs too, as ``DropConnect(p)`` does, in layers and in a graph."""
    random, layers = np.random.default_rng(0), problem()
    p = random.uniform(0.3, 0.7)
    drawn = jax.tree.leaves(fnn.sample_masks(layers.params, fnn.DropConnect(p), BATCH, key=jax.random.key(3)))
    of_graph = fnn.sample_masks(case().network, fnn.DropConnect(p), BATCH, key=jax.random.key(3)).arrows
    arrows = float(sum(layer.W.size for layer in layers.params) + len(case().network.weights))
    masked = float(sum(r.size for r in drawn) + of_graph.size)
    folded = fnn.fold(layers.params, dropout=fnn.DropConnect(p))
    scaled = relative([layer.W for layer in folded], [p * layer.W for layer in layers.params])
    return true(
        "an r_kl for every arrow, those out of the inputs included", max(relative(masked, arrows), scaled),
        against="the arrows of DropConnect(p), and (14)",
        note="unlike Dropout(p), which keeps the inputs whole; DropConnect((None, p, …)) keeps their arrows",
    )  # fmt: skip


def named_dropout():
    """The text calls (11) dropout; dropout draws one r for a neuron, DropConnect one for every arrow."""
    c, shape = case(), (len(SENDERS), 2000)
    arrows, kept = list(c.w), 0.5
    per_arrow = dict(zip(arrows, np.random.default_rng(4).random((len(arrows), shape[1])) < kept))
    per_neuron = dict(enumerate(np.random.default_rng(5).random((len(c.o), shape[1])) < kept))

    def agree(r) -> float:
        """How often two arrows out of one neuron are dropped together or kept together."""
        pairs = [(a, b) for a in arrows for b in arrows if a < b and a[1] == b[1]]
        return float(np.mean([r(*a) == r(*b) for a, b in pairs]))

    printed, dropout = agree(lambda k, l: per_arrow[k, l]), agree(lambda k, l: per_neuron[l])
    connect = agree(lambda k, l: per_arrow[k, l])
    return loose(
        "(11) is dropout", relative(printed, dropout), "(11) is DropConnect; dropout is r_kl = r_l",
        relative(connect, printed), against="two arrows out of one neuron share their r",
        note=f"in {printed:.0%} of {shape[1]:,} draws with r_kl, in {dropout:.0%} with r_l",
    )  # fmt: skip


@row("fnn.inference.fold", "fnn.dropout.expected_weights")
def S5():
    """(14): at test time w_kl p_kl in place of w_kl r_kl."""
    p = problem((2, 3, 1), activation=fnn.Tanh())
    random = np.random.default_rng(0)
    keeps = [jnp.asarray(random.uniform(0.3, 0.9, layer.W.shape)) for layer in p.params]
    flat = np.concatenate([np.ravel(k) for k in keeps])
    every = np.array(list(itertools.product([0.0, 1.0], repeat=len(flat))))  # all masks, and how likely each is
    likely = np.prod(np.where(every == 1, flat, 1 - flat), axis=1)
    first = keeps[0].size
    arrows = [jnp.asarray(part).reshape(-1, *k.shape) for part, k in zip(np.split(every, [first], axis=1), keeps)]

    def mean_and_folded(params):
        """The mean over all masks, and what the folded network computes: (ψ of the first layer, output)."""
        traces = jax.vmap(lambda *r: fnn.trace(params, p.x, masks=tuple(fnn.Mask(arrows=mask) for mask in r)))(*arrows)
        folded = fnn.trace(fnn.fold(params, dropout=fnn.DropConnect(tuple(keeps))), p.x)
        means = [np.tensordot(likely, v, axes=1) for v in (traces[0].psi, traces[-1].a)]
        return means, (folded[0].psi, folded[-1].a)

    (psi, a), ours = mean_and_folded(p.params)
    (_, linear), our_linear = mean_and_folded(tuple(fnn.Dense(layer.W, layer.b, fnn.Identity()) for layer in p.params))
    fourteen = p.x @ (p.params[0].W * keeps[0]).T + p.params[0].b
    return (
        true(
            "ψ_k = Σ_l w_kl p_kl o_l + β_k, one layer", max(relative(fourteen, psi), relative(ours[0], psi)),
            against=f"mean of (11) over all {2**first} r",
        ),
        true(
            "(14) in both of two layers, σ the identity", relative(our_linear[1], linear),
            against=f"mean output over all {len(every)} r",
            note=f"σ = tanh: off by {relative(ours[1], a):.2g}, so (14) is not the mean of a deep network",
        ),
    )  # fmt: skip
