"""Per-example quantities beside their peers: ``python -m experiments.benchmarks.per_example``.

784-512-512-10, ReLU, softmax cross-entropy, batch 128: the norms of the examples' gradients and their clipped mean, as
multiples of one plain gradient, and of the same by ``jax.vmap(jax.grad)``, by optax, by torch.func and by JAX Privacy
where they are installed; and the tangent kernel of 256 examples of 784-512-512-1 beside Jacobians. All interleaved,
medians of the rounds' ratios; memory is what the compiled program asks for beside its arguments and results.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import fnn
from experiments import results
from experiments.benchmarks.timing import Row, against, measured, table
from fnn import per_example

SIZES, LOSS, CLIP = (784, 512, 512), fnn.SoftmaxCrossEntropy(), 1.0


@dataclass(frozen=True)
class Options:
    """Time and temporary memory of norms, clipping and the tangent kernel, ours and by vmap."""

    batch: int = 128
    examples: int = 256
    """Of the tangent kernel."""
    rounds: int = 15
    out: Path | None = None


def loss_of_one(params, x, y):
    return LOSS.value(fnn.forward(params, x)[None], y[None])[0]


def by_vmap(params, x, y):
    return jax.vmap(jax.grad(loss_of_one), (None, 0, 0))(params, x, y)


def lengths(gradients):
    return jnp.sqrt(sum(jnp.sum(leaf.reshape(len(leaf), -1) ** 2, axis=1) for leaf in jax.tree.leaves(gradients)))


def vmap_clipped(params, x, y):
    gradients = by_vmap(params, x, y)
    weights = jnp.minimum(1, CLIP / lengths(gradients)) / len(x)
    return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), gradients)


def optax_clipped(params, x, y):
    """The mean of the gradients that optax clips, of those of every example."""
    clipped, _ = optax.per_example_global_norm_clip(by_vmap(params, x, y), CLIP)
    return jax.tree.map(lambda leaf: leaf / len(x), clipped)


def privacy_clipped(params, x, y):
    """The mean of the clipped gradients, without noise, by JAX Privacy: one by one, on a CPU its fastest by far."""
    import jax_privacy

    clipped = jax_privacy.clipped_grad(
        loss_of_one, l2_clip_norm=CLIP, batch_argnums=(1, 2), keep_batch_dim=False, normalize_by=len(x),
        microbatch_size=1 if jax.default_backend() == "cpu" else None,
    )  # fmt: skip
    return clipped(params, x, y)


def by_torch(params, x, y) -> dict[str, Callable]:
    """Norms and clipped mean by ``torch.func``, on the device that JAX uses; nothing where PyTorch has none of it."""
    if find_spec("torch") is None:
        return {}
    import torch

    if jax.default_backend() != "cpu" and not torch.cuda.is_available():
        return {}
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    weights = [torch.tensor(np.asarray(leaf), device=device) for layer in params for leaf in (layer.W, layer.b)]
    images, labels = (torch.tensor(np.asarray(each), device=device) for each in (x, y))

    def loss(weights, x, y):
        for W, b in zip(weights[:-2:2], weights[1:-2:2]):
            x = torch.relu(torch.nn.functional.linear(x, W, b))
        return torch.nn.functional.cross_entropy(torch.nn.functional.linear(x, *weights[-2:]), y.long())

    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))

    def norms(clipped: bool):
        gradients = each(weights, images, labels)
        lengths = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
        factors = torch.clamp(CLIP / lengths, max=1) / len(images)
        result = [torch.tensordot(factors, g, 1) for g in gradients] if clipped else lengths
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    return {"norms by torch.func": partial(norms, False), "clipped by torch.func": partial(norms, True)}


def vmap_kernel(params, x):
    rows = jax.vmap(jax.grad(lambda params, x: fnn.forward(params, x)[0]), (None, 0))(params, x)
    flat = jnp.concatenate([leaf.reshape(len(x), -1) for leaf in jax.tree.leaves(rows)], axis=1)
    return flat @ flat.T


GRADIENTS: dict[str, Callable] = {
    "plain gradient": lambda *data: fnn.backprop(*data, loss=LOSS),
    "norms": lambda *data: per_example.norms(*data, loss=LOSS),
    "norms by vmap": lambda *data: lengths(by_vmap(*data)),
    "clipped": lambda params, x, y: per_example.clipped(params, x, y, CLIP, loss=LOSS),
    "clipped by vmap": vmap_clipped,
    "clipped by optax": optax_clipped,
    "moments": lambda *data: per_example.moments(*data, loss=LOSS),
    "Gram matrix": lambda *data: per_example.gram(*data, loss=LOSS),
}
TITLES = {
    "norms": "norms of per-example gradients", "clipped": "mean of clipped per-example gradients",
    "moments": "moments of per-example gradients", "Gram matrix": "Gram matrix of per-example gradients",
}  # fmt: skip
KERNELS: dict[str, Callable] = {
    "tangent kernel": lambda params, x: per_example.ntk(params, x, traced=True),
    "tangent kernel by vmap": vmap_kernel,
}


def claims(options: Options, figures: dict) -> list[results.Claim]:
    rows, kernels = figures["gradients"], figures["kernels"]

    def claim(what: str) -> results.Claim:
        ours, peer = rows[what], rows[f"{what} by vmap"]
        return results.Claim(
            f"{what} of {options.batch} examples' gradients, 784-512-512-10, ReLU: as a multiple of a plain gradient, "
            "and of the same by vmap",
            f"{ours['/ plain gradient'][0]:.2f}; 1/{peer['ms'] / ours['ms']:.0f}; temporary memory "
            f"{ours['temporary MiB']:.2f} and {peer['temporary MiB']:.0f} MiB",
        )

    ours, peer = kernels.values()
    return [
        claim("norms"),
        claim("clipped"),
        results.Claim(
            f"tangent kernel of {options.examples} examples, 784-512-512-1, as a multiple of Jacobians by vmap",
            f"1/{1 / ours['/ tangent kernel by vmap'][0]:.0f}; temporary memory {ours['temporary MiB']:.1f} and "
            f"{peer['temporary MiB']:.0f} MiB",
        ),
    ]


def rows(figures: dict) -> list[Row]:
    gradients, kernels = figures["gradients"], figures["kernels"]
    own = {name: [f"{name} by vmap", f"{name} by torch.func"] for name in ("norms", "clipped")}
    own["clipped"] += ["clipped by optax", "clipped by JAX Privacy"]
    made = []
    for name in TITLES:
        for peer in ["plain gradient", *own.get(name, [])]:
            made += against(TITLES[name], peer, gradients[name], gradients.get(peer))
    return made + against("tangent kernel", "tangent kernel by vmap", *kernels.values())


def main(arguments: Sequence[str] | None = None) -> None:
    options, random = tyro.cli(Options, args=arguments), np.random.default_rng(0)

    def drawn(outputs: int, examples: int):
        params = fnn.init(
            jax.random.key(0), (*SIZES, outputs), activation=fnn.ReLU(), initializer=fnn.initializers.he_normal
        )
        return params, jnp.asarray(random.random((examples, SIZES[0])), jnp.float32)

    params, x = drawn(10, options.batch)
    labels = jnp.asarray(random.integers(0, 10, options.batch), jnp.int32)
    data, kernel_data = (params, x, labels), drawn(1, options.examples)
    figures = {}
    gradients = GRADIENTS | ({"clipped by JAX Privacy": privacy_clipped} if find_spec("jax_privacy") else {})
    for what, ways, given, base, others in (
        ("gradients", gradients, data, "plain gradient", by_torch(*data)),
        ("kernels", KERNELS, kernel_data, "tangent kernel by vmap", {}),
    ):
        given_ways = {way: (function, given) for way, function in ways.items()}
        figures[what] = measured(given_ways, options.rounds, base, others)
        print(f"\n{table(figures[what], base)}")
    out = results.folder(options.out, "benchmarks.per_example")
    results.save(out, "benchmarks.per_example", options, claims(options, figures), figures)


if __name__ == "__main__":
    main()
