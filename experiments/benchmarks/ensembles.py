"""Networks trained together by ``fit_many`` and one by one by ``fit``: ``python -m experiments.benchmarks.ensembles``.

Sixteen networks of one shape, each with a learning rate and shuffles of its own, on the same random data: time of the
second epoch, by the records' own clock, of ``fit_many`` against the sum over the members' own ``fit``. Rounds
interleave the two; ratios are of one round, their median and quartiles are told. On a device that one network keeps
busy, vmap has nothing to win, and a mini-batch gathered and multiplied for each member costs what it costs.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
import tyro

import fnn
from experiments import results
from experiments.benchmarks.timing import Row
from fnn.data import Dataset
from fnn.train import fit, fit_many

NETWORKS: dict[str, tuple[tuple[int, ...], int]] = {  # sizes and mini-batch
    "20-16-4, batch 10": ((20, 16, 4), 10),
    "784-30-10, batch 10": ((784, 30, 10), 10),
    "784-64-64-10, batch 10": ((784, 64, 64, 10), 10),
    "784-64-64-10, batch 128": ((784, 64, 64, 10), 128),
}


@dataclass(frozen=True)
class Options:
    """Time of training networks together, as a multiple of one by one."""

    networks: tuple[str, ...] = tuple(NETWORKS)
    members: int = 16
    examples: int = 6000
    rounds: int = 7
    out: Path | None = None


def measured(name: str, options: Options) -> dict:
    """Seconds per epoch of all members together and one by one, and their ratio: median and quartiles."""
    sizes, batch = NETWORKS[name]
    random = np.random.default_rng(0)
    labels = random.integers(0, sizes[-1], options.examples)
    data = Dataset(random.integers(0, 256, (options.examples, sizes[0]), np.uint8), labels)
    params = jax.vmap(lambda key: fnn.init(key, sizes))(jax.random.split(jax.random.key(0), options.members))
    keys, rates = jax.random.split(jax.random.key(1), options.members), np.geomspace(0.01, 0.1, options.members)
    common = {"loss": fnn.SoftmaxCrossEntropy(), "epochs": 2, "batch_size": batch, "progress": False}
    injected = optax.inject_hyperparams(fnn.updates.sgd)(learning_rate=0.1)
    one = jax.tree.map(lambda leaf: leaf[0], params)
    ways = {
        "together": [partial(_seconds_together, params, data, injected, keys=keys, learning_rates=rates, **common)],
        # one rate for all: each of its own would only compile the program again
        "one by one": [partial(_seconds, one, data, fnn.updates.sgd(0.1), key=keys[i], **common)
                       for i in range(options.members)],
    }  # fmt: skip
    taken = {way: np.empty(options.rounds) for way in ways}
    for calls in ways.values():
        calls[0]()  # compiles
    for number in range(options.rounds):
        for way, calls in ways.items():
            taken[way][number] = sum(call() for call in calls)
    return {
        "members": options.members,
        "together s": round(float(np.median(taken["together"])), 4),
        "one by one s": round(float(np.median(taken["one by one"])), 4),
        "together / one by one": np.percentile(taken["together"] / taken["one by one"], (50, 25, 75)).round(3).tolist(),
    }


def _seconds(*arguments, **options) -> float:
    first, second = fit(*arguments, **options).history
    return second["seconds"] - first["seconds"]


def _seconds_together(*arguments, **options) -> float:
    first, second = fit_many(*arguments, **options)[0].history
    return second["seconds"] - first["seconds"]


def rows(figures: dict) -> list[Row]:
    return [
        Row(
            f"an epoch of {found['members']} networks {name}, by fit_many", "time", "fit, one by one",
            found["together / one by one"][0], tuple(found["together / one by one"][1:]),
            f"{1e3 * found['together s']:.3g} ms", f"{1e3 * found['one by one s']:.3g} ms",
        )
        for name, found in figures["ensembles"].items()
    ]  # fmt: skip


def claims(figures: dict) -> list[results.Claim]:
    found = figures["ensembles"]
    members = next(iter(found.values()))["members"]
    ratios = "; ".join(f"{name} {each['together / one by one'][0]:.2f}" for name, each in found.items())
    return [results.Claim(f"{members} networks trained by `fit_many`: time as a multiple of one by one", ratios)]


def tell(name: str, found: dict) -> None:
    ratio = "{:.3f} ({:.3f}–{:.3f})".format(*found["together / one by one"])
    print(
        f"{found['members']} × {name:26}{1e3 * found['together s']:9.1f} ms together{1e3 * found['one by one s']:9.1f} "
        f"ms one by one   {ratio}", flush=True,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    figures: dict = {"ensembles": {}, "cores": os.cpu_count()}
    for name in options.networks:
        figures["ensembles"][name] = measured(name, options)
        tell(name, figures["ensembles"][name])
    out = results.folder(options.out, "benchmarks.ensembles")
    results.save(out, "benchmarks.ensembles", options, claims(figures), figures)


if __name__ == "__main__":
    main()
