"""One epoch of MNIST by ``fit`` and by its peers: ``python -m experiments.benchmarks.epochs``.

``small`` is 784-30-10, sigmoid, ½‖a − y‖², batch 10, gradient descent; ``large`` is 784-512-512-10, ReLU, softmax
cross-entropy, batch 128, momentum. All start from the same parameters, and those whose loss is the same must have
moved them to where ``fit`` does after a few steps on the same mini-batches, or nothing is timed.

Of ours the public ``fit`` is timed, by the clock that it hands out itself: the record of an epoch holds the seconds
since the start, and the second epoch's less the first's is what each further epoch costs a user: shuffling, handing the
order to the device, all steps, the loss read back, the record. Checks of the arguments, the copy of the parameters and
the bytes' way to the device come once, before the first epoch, and are left out (told beside it as set-up), as they are
of the peers, whose data lie where they keep them. A peer's epoch is its shuffle and its steps, awaited. Everything is
compiled before. Where a call for every mini-batch is slow, a part of the epoch's steps is timed and scaled: the row
says so. Rounds interleave all; ratios are of one round, their median and quartiles are told.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import tyro

from experiments import digits, results
from experiments.benchmarks.frameworks import MLX, Equinox, Flax, ScikitLearn, Torch, TorchCompile, TorchFastest
from experiments.benchmarks.limits import Limit
from experiments.benchmarks.peers import JittedStep, NaiveScan, NumPy, OurPipeline, Peer, Problem, Products, Weights
from experiments.benchmarks.timing import Row
from fnn import train
from fnn.train.loop import shuffle

PEERS: dict[str, tuple[Callable[[Problem], Peer], bool]] = {  # and whether a part of its epoch is enough
    "jax.grad in our pipeline": (OurPipeline, False),
    "jax.grad + optax in a scan, naively": (NaiveScan, False),
    "jax.grad, a jitted step from Python": (JittedStep, True),
    "Equinox": (Equinox, True),
    "Flax": (Flax, True),
    "PyTorch": (Torch, True),
    "torch.compile": (TorchCompile, True),
    "torch.compile, tuned and fused": (TorchFastest, True),
    "MLX": (MLX, True),
    "NumPy": (NumPy, True),
    "scikit-learn": (ScikitLearn, True),
    "its matrix products alone": (Products, False),
    "the machine's limit": (Limit, False),
}
CHECKED_STEPS = 3
TOLERANCE = 1e-3  # of the way from the initial parameters: float32 leaves 1e-6, a rate of 3.01 for 3 makes it 3e-3


@dataclass(frozen=True)
class Options:
    """Seconds per epoch of MNIST, ours and of other ways to train the same network."""

    workloads: tuple[Literal["small", "large"], ...] = ("small", "large")
    only: tuple[str, ...] = ()
    """Parts of the names of the peers to run; all if empty."""
    examples: int = 60_000
    part: float = 0.2
    """Of the epoch's steps, timed of those peers that are called for every mini-batch."""
    rounds: int = 15
    out: Path | None = None


def problems(options: Options) -> dict[str, Problem]:
    images = digits.load()[0][: options.examples]
    made = {
        "small": lambda: Problem(digits.one_hot(images), (784, 30, 10), batch=10, rate=3.0),
        "large": lambda: Problem(images, (784, 512, 512, 10), batch=128, rate=0.05, alpha=0.9),
    }
    return {name: made[name]() for name in options.workloads}


def fit(problem: Problem, data, epochs: int):
    return train.fit(
        problem.params, data, problem.optimizer, loss=problem.loss, epochs=epochs, batch_size=problem.batch,
        key=jax.random.key(0), progress=False,
    )  # fmt: skip


def way_apart(weights: Weights, problem: Problem, trained: Weights) -> float:
    """Distance between the two as a share of the way from the initial parameters."""

    def distance(some, others):
        pairs = zip(jax.tree.leaves(some), jax.tree.leaves(others))
        return np.sqrt(sum(np.sum(np.square(np.float64(a) - np.float64(b))) for a, b in pairs))

    return float(distance(weights, trained) / distance(problem.weights, trained))


def disagreement(peer: Peer, problem: Problem) -> float | None:
    """How far a fresh peer ends from ``fit`` after a few steps on the same mini-batches; None if its loss is another.

    Raises:
        ValueError: farther than rounding explains.
    """
    few = problem.data[: CHECKED_STEPS * problem.batch]
    peer.train(shuffle(jax.random.key(0), 1, len(few), problem.batch))
    if not peer.same:
        return None
    params = fit(problem, few, epochs=1).params
    apart = way_apart(peer.weights(), problem, [(layer.W, layer.b) for layer in params])
    if not apart < TOLERANCE:
        raise ValueError(f"{type(peer).__name__}: {apart:.1e} of the way from where fit arrives; is it {problem}?")
    return apart


def peers_of(problem: Problem, only: Sequence[str] = ()) -> tuple[dict[str, Peer], dict[str, str], dict[str, float]]:
    """The peers that are installed, checked; why others are not there; and how far each ended from ``fit``."""
    found: dict[str, Peer] = {}
    missing, apart = {}, {}
    for name, (make, _) in PEERS.items():
        if only and not any(part in name for part in only):
            missing[name] = "left out"
            continue
        try:
            peer = make(problem)
            with jax.default_matmul_precision("highest"):  # TF32 would be farther than TOLERANCE
                distance = disagreement(peer, problem)
        except ImportError:
            missing[name] = "not installed"
            continue
        except RuntimeError as error:  # torch.compile needs a C++ compiler, and says so at the first call
            missing[name] = f"does not run here: {str(error).strip().splitlines()[0][:100]}"
            continue
        found[name] = peer
        if distance is not None:
            apart[name] = distance
    return found, missing, apart


def seconds_of_fit(problem: Problem) -> tuple[float, float]:
    """Seconds per epoch, and of what is done once."""
    first, second = fit(problem, problem.data, epochs=2).history
    epoch = second["seconds"] - first["seconds"]
    return epoch, first["seconds"] - epoch


def seconds_of(peer: Peer, epoch: int, part: float) -> float:
    """Seconds per epoch: its shuffle, and its steps, of which a part may stand for all."""
    started = time.perf_counter()
    order = jax.block_until_ready(peer.shuffle(epoch))
    shuffled = time.perf_counter()
    steps = max(1, round(part * len(order)))
    chosen = order if steps == len(order) else order[:steps]
    peer.train(chosen)
    return shuffled - started + (time.perf_counter() - shuffled) * len(order) / steps


def measured(problem: Problem, options: Options) -> dict:
    """Seconds of ours and every peer, and ours as a multiple of each: median and quartiles of the rounds."""
    peers, missing, apart = peers_of(problem, options.only)
    parts = {name: options.part if PEERS[name][1] else 1.0 for name in peers}
    seconds_of_fit(problem)
    for name, peer in peers.items():
        seconds_of(peer, 0, parts[name])  # compiled for as many steps
    ours, set_up = [], []
    theirs: dict[str, list[float]] = {name: [] for name in peers}
    for number in range(1, options.rounds + 1):
        epoch, once = seconds_of_fit(problem)
        ours.append(epoch)
        set_up.append(once)
        for name, peer in peers.items():
            theirs[name].append(seconds_of(peer, number, parts[name]))
    notes = {
        name: "; ".join(filter(None, (peer.note, f"{parts[name]:.0%} of the steps timed" if parts[name] < 1 else "")))
        for name, peer in peers.items()
    }
    return {
        "workload": str(problem),
        "ours s": round(float(np.median(ours)), 4),
        "set-up s": round(float(np.median(set_up)), 4),
        "peers": {
            name: {
                "s": round(float(np.median(taken)), 4),
                "ours / it": np.percentile(np.divide(ours, taken), (50, 25, 75)).round(3).tolist(),
            }
            for name, taken in theirs.items()
        },
        "notes": {name: note for name, note in (notes | missing).items() if note},
        "apart": {name: float(f"{distance:.1e}") for name, distance in apart.items()},
    }


def rows(figures: dict) -> list[Row]:
    """A row for every workload and peer, those that were not measured too."""
    made = []
    for figure in figures["epochs"].values():
        for name in PEERS:
            found, note = figure["peers"].get(name), figure["notes"].get(name, "")
            ours = f"{1e3 * figure['ours s']:.0f} ms"
            workload = f"one epoch of MNIST, {figure['workload']}"
            if found is None:
                made.append(Row(workload, "time", name, None, None, ours, "", note))
            else:
                median, lower, upper = found["ours / it"]
                their = f"{1e3 * found['s']:.0f} ms"
                made.append(Row(workload, "time", name, median, (lower, upper), ours, their, note))
    return made


def claims(figures: dict) -> list[results.Claim]:
    made = []
    for figure in figures["epochs"].values():
        ratios = ", ".join(f"{name} {found['ours / it'][0]:.2f}" for name, found in figure["peers"].items())
        made.append(
            results.Claim(
                f"one epoch of MNIST by `fit`, {figure['workload']}: time as a multiple of each peer's",
                f"{ratios}; {1e3 * figure['ours s']:.0f} ms",
            )
        )
    return made


def tell(figure: dict) -> None:
    print(f"\n{figure['workload']}\n{'':38}{'ms':>9}{'ours / it (quartiles)':>26}  note")
    print(f"{'fit':38}{1e3 * figure['ours s']:9.1f}{'':26}  set-up {1e3 * figure['set-up s']:.0f} ms, once")
    for name in PEERS:
        found, note = figure["peers"].get(name), figure["notes"].get(name, "")
        ratio = "{:.3f} ({:.3f}–{:.3f})".format(*found["ours / it"]) if found else ""
        took = f"{1e3 * found['s']:9.1f}" if found else f"{'–':>9}"
        print(f"{name:38}{took}{ratio:>26}  {note}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    figures: dict = {"epochs": {}, "cores": os.cpu_count()}
    for name, problem in problems(options).items():
        figures["epochs"][name] = measured(problem, options)
        tell(figures["epochs"][name])
    out = results.folder(options.out, "benchmarks.epochs")
    results.save(out, "benchmarks.epochs", options, claims(figures), figures)


if __name__ == "__main__":
    main()
