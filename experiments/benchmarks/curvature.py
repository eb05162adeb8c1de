"""Curvature from the δ's, against automatic differentiation: ``python -m experiments.benchmarks.curvature``.

784-512-512-10, batch 128: products with the Hessian and the Gauss–Newton matrix beside ``jax.jvp`` of ``jax.grad`` and
``jax.vjp`` of ``jax.jvp``, and the Kronecker factors and the Fisher matrix's diagonal, as multiples of one plain
gradient. All interleaved, medians of the rounds' ratios; memory is what the compiled program asks for beside its
arguments and results.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import fnn
from experiments import results
from experiments.benchmarks.timing import Row, against, measured, table
from fnn import curvature

SIZES, LOSS = (784, 512, 512, 10), fnn.SoftmaxCrossEntropy()
ACTIVATIONS: dict[str, tuple[fnn.Activation, Callable]] = {
    "ReLU": (fnn.ReLU(), jax.nn.relu), "tanh": (fnn.Tanh(), jnp.tanh),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Time and temporary memory of products with the curvature, and of the matrices that stand in for it."""

    batch: int = 128
    rounds: int = 25
    out: Path | None = None


def logits(value: Callable, params, x):
    """A network as one writes it without fnn."""
    for layer in params[:-1]:
        x = value(x @ layer.W.T + layer.b)
    return x @ params[-1].W.T + params[-1].b


def cross_entropy(a, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(a), y[:, None], axis=1).mean()


def jvp_of_grad(value: Callable, params, x, y, v):
    cost = jax.grad(lambda params: cross_entropy(logits(value, params, x), y))
    return jax.jvp(cost, (params,), (v,))[1]


def vjp_of_jvp(value: Callable, params, x, y, v):
    """Jᵀ H J v."""
    a, pull_back = jax.vjp(lambda params: logits(value, params, x), params)
    _, along = jax.jvp(lambda params: logits(value, params, x), (params,), (v,))
    _, bent = jax.jvp(jax.grad(lambda a: cross_entropy(a, y)), (a,), (along,))
    return pull_back(bent)[0]


def ways(name: str) -> dict[str, Callable]:
    _, value = ACTIVATIONS[name]
    return {
        "plain gradient": lambda params, x, y, v: fnn.backprop(params, x, y, loss=LOSS),
        "hvp": partial(curvature.hvp, loss=LOSS),
        "jvp of grad": partial(jvp_of_grad, value),
        "gauss_newton_vp": partial(curvature.gauss_newton_vp, loss=LOSS),
        "vjp of jvp": partial(vjp_of_jvp, value),
        "kfac_factors": lambda params, x, y, v: curvature.kfac_factors(params, x, y, loss=LOSS),
        "fisher_diagonal": lambda params, x, y, v: curvature.fisher_diagonal(params, x, y, loss=LOSS),
        "gauss_newton_diagonal": lambda params, x, y, v: curvature.gauss_newton_diagonal(params, x, y, loss=LOSS),
    }


def claims(options: Options, figures: dict) -> list[results.Claim]:
    def each(what: str, base: str) -> str:
        return ", ".join(f"{name} {rows[what]['ms'] / rows[base]['ms']:.2f}" for name, rows in figures.items())

    network = f"784-512-512-10, batch {options.batch}"
    return [
        results.Claim(f"Hessian times vector, {network}: as a multiple of jvp of grad", each("hvp", "jvp of grad")),
        results.Claim("Gauss–Newton times vector: of vjp of jvp", each("gauss_newton_vp", "vjp of jvp")),
        results.Claim("Kronecker factors: of a plain gradient", each("kfac_factors", "plain gradient")),
        results.Claim("diagonal of the Fisher matrix: of a plain gradient", each("fisher_diagonal", "plain gradient")),
        results.Claim(
            "diagonal of the Gauss–Newton matrix, exact: of a plain gradient",
            each("gauss_newton_diagonal", "plain gradient"),
        ),
    ]


def rows(figures: dict) -> list[Row]:
    pairs = {"hvp": "jvp of grad", "gauss_newton_vp": "vjp of jvp"}
    matrices = ("kfac_factors", "fisher_diagonal", "gauss_newton_diagonal")
    pairs |= dict.fromkeys(matrices, "plain gradient")
    return [
        row
        for name, ways in figures.items()
        for what, peer in pairs.items()
        for row in against(f"{what}, {name}", peer, ways[what], ways[peer])
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options, random = tyro.cli(Options, args=arguments), np.random.default_rng(0)
    x = jnp.asarray(random.random((options.batch, SIZES[0])), jnp.float32)
    y = jnp.asarray(random.integers(0, 10, options.batch), jnp.int32)
    figures = {}
    for name, (activation, _) in ACTIVATIONS.items():
        params, v = (fnn.init(jax.random.key(seed), SIZES, activation=activation) for seed in (0, 1))
        given = {way: (function, (params, x, y, v)) for way, function in ways(name).items()}
        figures[name] = measured(given, options.rounds, "plain gradient")
        print(f"\n{name}\n{table(figures[name], 'plain gradient')}", flush=True)
    out = results.folder(options.out, "benchmarks.curvature")
    results.save(out, "benchmarks.curvature", options, claims(options, figures), figures)


if __name__ == "__main__":
    main()
