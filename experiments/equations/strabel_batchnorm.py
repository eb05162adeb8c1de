"""Strabel, *The basics of neural networks* (2023), continued: batch norm."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import fnn
from experiments.equations.common import Problem, problem, relative, size
from experiments.equations.register import convention, erratum, row, true

SIZES, BATCH = (3, 5, 4, 2), 8
HIDDEN = slice(2)  # both hidden layers have a batch norm
FIXED = "autodiff, μ̂ and ν̂² fixed"


@cache
def normalised(gradient: str) -> Problem:
    """A network whose hidden layers have batch norms, γ ~ U(½, 2), θ ~ N(0, ¼), and tanh."""
    p, random = problem(SIZES, batch=BATCH, output=fnn.Identity()), np.random.default_rng(1)
    layers = list(p.params)
    for i, n in enumerate(SIZES[1:-1]):
        gamma, theta = random.uniform(0.5, 2, n), random.normal(size=n) / 2
        norm = fnn.BatchNorm(jnp.asarray(gamma), jnp.asarray(theta), gradient=gradient)
        layers[i] = fnn.Dense(layers[i].W, layers[i].b, fnn.Tanh(), norm)
    return p._replace(params=tuple(layers))


class Derivatives(NamedTuple):
    """By the parameters, and by every ψ (so λ) and ψ̂, a list over layers each."""

    params: Any
    lam: Any
    by_hat: Any

    def norms(self, name: str) -> list:
        return [getattr(layer.norm, name) for layer in self.params[HIDDEN]]


@cache
def autodiff(fixed: bool) -> tuple[Derivatives, Derivatives]:
    """Of Σ_i L_i, and of every L_i with a leading axis; (16) to (19) typed here, ``fixed`` with a stop_gradient."""
    p = normalised("full")

    def losses(leaves: Derivatives):
        o = p.x
        for layer, of_psi, of_hat in zip(*leaves):
            hat = psi = o @ layer.W.T + layer.b + of_psi
            if layer.norm is not None:
                mu = jnp.mean(psi, axis=0)
                nu2 = jnp.mean((psi - mu) ** 2, axis=0)
                mu, nu2 = lax.stop_gradient((mu, nu2)) if fixed else (mu, nu2)
                hat = layer.norm.gamma * (psi - mu) / jnp.sqrt(nu2 + layer.norm.eps) + layer.norm.beta
            o = layer.activation.value(hat + of_hat)
        return p.loss.value(o, p.y)

    zeros = [jnp.zeros((BATCH, n)) for n in SIZES[1:]]
    examples = jax.tree.map(np.asarray, jax.jit(jax.jacrev(losses))(Derivatives(p.params, zeros, zeros)))
    return jax.tree.map(partial(np.sum, axis=0), examples), examples


@cache
def our_lam(gradient: str) -> list:
    """The package's λ of the hidden layers."""
    p = normalised(gradient)
    return list(fnn.deltas(p.params, p.x, p.y, loss=p.loss)[HIDDEN])


class Layer(NamedTuple):
    """A hidden layer with the document's names, (m, n) or (n,)."""

    psi: np.ndarray
    mu: np.ndarray
    nu2: np.ndarray
    root: np.ndarray  # √(ν̂² + ε)
    hat: np.ndarray
    gamma: np.ndarray
    theta: np.ndarray
    w_next: np.ndarray  # w_lk of the arrows out of it, (n_next, n)


@cache
def as_printed() -> tuple[Layer, ...]:
    """(17) to (19) of the hidden layers."""
    p, layers = normalised("fixed"), []
    for layer, after, t in zip(p.params, p.params[1:], fnn.trace(p.params, p.x)):
        psi, gamma, theta = (np.asarray(v) for v in (t.psi, layer.norm.gamma, layer.norm.beta))
        mu = sum(psi[j] for j in range(BATCH)) / BATCH
        nu2 = sum((psi[j] - mu) ** 2 for j in range(BATCH)) / BATCH
        root = np.sqrt(nu2 + layer.norm.eps)
        layers.append(Layer(psi, mu, nu2, root, gamma * (psi - mu) / root + theta, gamma, theta, np.asarray(after.W)))
    return tuple(layers)


@row("fnn.batchnorm.normalise", "fnn.batchnorm.BatchNorm")
def S6():
    """(16) to (19): ψ̂ by the mean and the variance of the mini-batch, and the parameters that are learned."""
    p, layers, (right, _) = normalised("fixed"), as_printed(), autodiff(fixed=False)
    ours = [t.z for t in fnn.trace(p.params, p.x)[HIDDEN]]
    means, variances = ([moment(k.hat, axis=0) for k in layers] for moment in (np.mean, np.var))
    of_gamma = [k.gamma**2 * k.nu2 / k.root**2 for k in layers]

    def hat(k: Layer, theta, delta):  # δ_k as printed: no formula has it
        return k.gamma * (k.psi - k.mu) / k.root + theta

    pulled = [
        jax.vjp(partial(hat, k), k.theta, np.zeros_like(k.theta))[1](by_hat) for k, by_hat in zip(layers, right.by_hat)
    ]
    by_theta, by_delta = map(list, zip(*pulled))
    return (
        true(
            "ψ̂_ki = γ_k (ψ_ki − μ̂_k)/√(ν̂_k² + ε) + θ_k",
            max(relative([k.hat for k in layers], ours), relative(means, [k.theta for k in layers]),
                relative(variances, of_gamma)),
            against="fnn.trace; ψ̂ has mean θ, variance γ²ν̂²/(ν̂² + ε)",
        ),
        erratum(
            "γ_k, δ_k are the parameters to learn", relative(by_delta, right.norms("beta")),
            "γ_k, θ_k", relative(by_theta, right.norms("beta")), note="∂L/∂δ_k = 0 beside ∂L/∂θ_k: (17) has no δ_k",
        ),
    )  # fmt: skip


@cache
def twenty() -> list[np.ndarray]:
    """The summands of (20), λ_li w_lk σ'(ψ̂_ki) with λ = ∂L/∂ψ and fixed statistics: (m, n, n_next) per layer."""
    lam = autodiff(fixed=True)[0].lam
    return [
        after[:, None] * k.w_next.T * (1 - np.tanh(k.hat) ** 2)[..., None] for k, after in zip(as_printed(), lam[1:])
    ]


def updated(name: str, summands: list[np.ndarray]):
    """γ by (22), (24) or θ by (23), (25), with Σ_l inside Σ_i as printed, and the other way round."""
    p, (right, examples), (full, _) = normalised("fixed"), autodiff(fixed=True), autodiff(fixed=False)
    gradients = fnn.backprop(p.params, p.x, p.y, loss=p.loss, reduction="sum")
    ours = Derivatives(gradients, (), ()).norms(name)
    inner_l, inner_i = ([np.sum(np.sum(s, axis=a), axis=b) for s in summands] for a, b in ((2, 0), (0, 1)))
    first, last = (relative(found, true_one) for found, true_one in zip(inner_l, full.norms(name)))
    off = max(
        relative([np.sum(s, axis=2) for s in summands], examples.norms(name)),
        *(relative(found, right.norms(name)) for found in (inner_l, inner_i, ours)),
        last,
    )
    return off, FIXED, f"the true gradient at the last batch norm; at the one before off by {first:.2g}"


@row("fnn.batchnorm.norm_pullback", "experiments.batchnorm_printed")
def S7():
    """(20) to (25): the backward pass with μ̂ and ν̂² treated as fixed, and the updates of γ and θ."""
    layers, (fixed, _), (full, _) = as_printed(), autodiff(fixed=True), autodiff(fixed=False)
    by_hat = [np.sum(summands, axis=2) for summands in twenty()]
    lam = [h * k.gamma / k.root for h, k in zip(by_hat, layers)]
    by_layer = [relative(found, true_one) for found, true_one in zip(lam, full.lam)]
    weights = relative(fixed.params[0].W, full.params[0].W)
    by_gamma = [s * ((k.psi - k.mu) / k.root)[..., None] for s, k in zip(twenty(), layers)]
    return (
        true("∂L_i/∂ψ̂_ki = Σ_l λ_li w_lk σ'_k(ψ̂_ki)", relative(by_hat, fixed.by_hat[HIDDEN]), FIXED),
        true(
            "λ_ki = ∂L_i/∂ψ̂_ki γ_k/√(ν̂_k² + ε)",
            max(relative(found, fixed.lam[HIDDEN]) for found in (lam, our_lam("fixed"))), FIXED,
        ),
        convention(
            "μ̂ and ν̂² fixed: λ_ki beside ∂L/∂ψ_ki through them too", relative(lam, full.lam[HIDDEN]),
            "λ_ki of the loss with μ̂ and ν̂² fixed", relative(our_lam("fixed"), fixed.lam[HIDDEN]),
            against="autodiff through the statistics (S8), and with them fixed",
            note=f"{BATCH} × {SIZES[2]}: {by_layer[1]:.2g}; the layer before, {BATCH} × {SIZES[1]}: {by_layer[0]:.2g}, "
            f"and its w by (8): {weights:.2g}",
        ),
        true("∂L_i/∂γ_k, and its Σ_i Σ_l (22, 24)", *updated("gamma", by_gamma)),
        true("∂L_i/∂θ_k, and its Σ_i Σ_l (23, 25)", *updated("beta", twenty())),
        output_term(),
    )  # fmt: skip


def output_term():
    """(20) to (25) for an output neuron: no arrow leaves it, so the sums over its receivers are empty."""
    p = normalised("fixed")
    *hidden, last = p.params
    gamma, theta = jnp.asarray([1.5, 0.7]), jnp.asarray([0.1, -0.2])
    params = (*hidden, fnn.Dense(last.W, last.b, fnn.Sigmoid(), fnn.BatchNorm(gamma, theta, gradient="fixed")))
    t = fnn.trace(params, p.x)[-1]
    total = jax.jit(jax.grad(lambda params: jnp.sum(p.loss.value(fnn.forward(params, p.x), p.y))))
    right = [getattr(total(params)[-1].norm, name) for name in ("gamma", "beta")]
    ours = fnn.backprop(params, p.x, p.y, loss=p.loss, reduction="sum")[-1].norm
    by_hat = np.asarray((t.a - p.y) * t.a * (1 - t.a))  # ∂L/∂z σ'(ψ̂), as (5) has for ψ
    x_hat = np.asarray((t.z - theta) / gamma)
    with_term = [np.sum(by_hat * x_hat, axis=0), np.sum(by_hat, axis=0)]
    return erratum(
        "(20) to (25) of an output neuron", relative([np.zeros(2), np.zeros(2)], right),
        "+ ∂L_i/∂z_ki σ'_k(ψ̂_ki) in (20)",
        max(relative(with_term, right), relative([ours.gamma, ours.beta], right)),
        note="as printed γ and θ of an output neuron have the gradient 0, and are never trained",
    )  # fmt: skip


@row("fnn.batchnorm.norm_pullback")
def S8():
    """What (20) to (25) leave out: the derivatives through ν̂² and μ̂, after Ioffe and Szegedy 2015."""

    def pullback(k: Layer, by_hat):
        h, centred = by_hat * k.gamma, k.psi - k.mu  # h = ∂/∂x̂ of x̂ = (ψ − μ̂)/√(ν̂² + ε)
        by_nu2 = np.sum(h * centred, axis=0) * -0.5 * k.root**-3
        by_mu = -np.sum(h, axis=0) / k.root + by_nu2 * np.mean(-2 * centred, axis=0)
        return h / k.root + by_nu2 * 2 * centred / BATCH + by_mu / BATCH

    layers, (full, _) = as_printed(), autodiff(fixed=False)
    lam = [pullback(k, by_hat) for k, by_hat in zip(layers, full.by_hat)]
    k, drawn = layers[0], np.random.default_rng(0).normal(size=(100, BATCH, SIZES[1]))
    off = np.median([relative(by_hat * k.gamma / k.root, pullback(k, by_hat)) for by_hat in drawn])
    return true(
        "λ = h/s + 2 ∂L/∂ν̂² (ψ − μ̂)/m + ∂L/∂μ̂/m, h = γ ∂L/∂ψ̂, s = √(ν̂² + ε)",
        max(relative(found, full.lam[HIDDEN]) for found in (lam, our_lam("full"))),
        note=f"not in the document; h/s alone, as in (21), for {len(drawn)} random ∂L/∂ψ̂ ({BATCH} × {SIZES[1]}): "
        f"off by {off:.2g} in the median",
    )


@row("fnn.batchnorm.norm_pullback", "fnn.initializers.init")
def S13():
    """With batch norm the update of β_k remains (9), with λ of (21)."""
    p, (fixed, _), (full, _) = normalised("fixed"), autodiff(fixed=True), autodiff(fixed=False)
    terms = np.concatenate([np.sum(np.abs(lam), axis=0) for lam in fixed.lam[HIDDEN]])

    def share(by_beta) -> float:
        """‖∂L/∂β‖ beside ‖Σ_i |λ_i|‖ of (21): the true gradient is 0, and nothing is relative to it."""
        return float(np.linalg.norm(np.concatenate(list(by_beta))) / np.linalg.norm(terms))

    def hats(shift: float) -> list:
        moved = [fnn.Dense(layer.W, layer.b + shift, layer.activation, layer.norm) for layer in p.params[HIDDEN]]
        return [t.z for t in fnn.trace((*moved, *p.params[HIDDEN.stop :]), p.x)[HIDDEN]]

    nine = [np.sum(by_psi, axis=0) for by_psi in fixed.lam[HIDDEN]]
    ours = [layer.b for layer in fnn.backprop(p.params, p.x, p.y, loss=p.loss, reduction="sum")[HIDDEN]]
    full_share = max(share(layer.b for layer in full.params[HIDDEN]), share(our_b("full")))
    shifts = (-100.0, -1.0, 1.0, 100.0)
    moved = max(relative(hats(shift), hats(0.0)) for shift in shifts)
    right = [layer.b for layer in fixed.params[HIDDEN]]
    return true(
        "∂L/∂β_k = Σ_i λ_ki with λ of (21)",
        max(relative(nine, right), relative(ours, right)),
        FIXED,
        note=f"S7's convention moves β_k, by {share(nine):.2g} of Σ_i |λ_ki|, though ψ̂ is off by {size(moved)} when "
        f"β_k is shifted by {', '.join(f'{shift:g}' for shift in shifts)}; through the statistics {size(full_share)}",
    )


def our_b(gradient: str) -> list:
    """The package's ∂L/∂β of the hidden layers."""
    return [np.sum(lam, axis=0) for lam in our_lam(gradient)]
