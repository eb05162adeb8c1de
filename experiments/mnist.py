"""Train a network on handwritten digits with hand-written gradients (E1): ``python -m experiments.mnist``.

It loads MNIST, checks the hand-written gradient against ``jax.grad`` on real digits, trains, and saves the learning
curves, a sheet of misclassified digits, the history and the parameters in a folder.

The default hyperparameters were chosen with ``--hold-out``, by training on the first 50,000 training images and
validating on the last 10,000; the test set was not used. ``experiments.nielsen`` uses those of a book.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import optax
import tyro
from tqdm import tqdm

import fnn
from experiments import STARTED, digits, results
from fnn import initializers, verify
from fnn.data import Dataset
from fnn.layers import Params
from fnn.train import Progress, Run, evaluate, fit, predict

ACTIVATIONS = {
    "relu": fnn.ReLU(), "sigmoid": fnn.Sigmoid(), "tanh": fnn.Tanh(), "scaled-tanh": fnn.ScaledTanh(),
    "leaky-relu": fnn.LeakyReLU(), "elu": fnn.ELU(), "gelu": fnn.GELU(), "silu": fnn.SiLU(), "softsign": fnn.Softsign(),
}  # fmt: skip
INITIALIZERS = {
    "glorot": initializers.glorot_normal,
    "he": initializers.he_normal,
    "lecun": initializers.lecun_normal,
    "standard": initializers.standard_normal,
}
LOSSES = {  # the loss, and the output activation it is meant for
    "softmax": (fnn.SoftmaxCrossEntropy(), fnn.Identity()),
    "sigmoid": (fnn.SigmoidCrossEntropy(), fnn.Identity()),
    "squared": (fnn.SquaredError(0.5), fnn.Sigmoid()),
}


@dataclass(frozen=True)
class Options:
    """Train a network on handwritten digits with hand-written gradients."""

    hidden: tuple[int, ...] = (512,)
    """Sizes of the hidden layers."""
    epochs: int = 15
    batch_size: int = 32
    learning_rate: float = 0.05
    activation: Literal[tuple(ACTIVATIONS)] = "relu"  # type: ignore[valid-type]
    initializer: Literal[tuple(INITIALIZERS)] = "he"  # type: ignore[valid-type]
    loss: Literal[tuple(LOSSES)] = "softmax"  # type: ignore[valid-type]
    """Softmax or sigmoid cross-entropy on logits, or ½ squared error after a sigmoid."""
    optimizer: Literal["sgd", "momentum", "adam"] = "momentum"
    schedule: Literal["constant", "cosine"] = "cosine"
    """Learning-rate schedule over all steps."""
    examples: int = 60_000
    """Number of training images, from the first."""
    seed: tuple[int, ...] = (0,)
    """One run per seed. With several, the mean and the best are reported, and the pictures show the first."""
    hold_out: bool = False
    """Evaluate on the last 10,000 training images instead of training on them, to choose hyperparameters."""
    data: Path | None = None
    """Folder with four IDX files, such as Fashion-MNIST; MNIST by default."""
    out: Path | None = None
    """Folder for the results; by default runs/mnist-… with the time."""
    load: Path | None = None
    """Evaluate these parameters (a .safetensors file) without training."""
    checkpoint: Path | None = None
    """Folder for checkpoints, with a subfolder per seed. Repeat the command to resume after an interruption."""
    data_parallel: bool = False
    """Shard every mini-batch over all devices of this machine; their number must divide the batch size."""
    distributed: bool = False
    """Train as one of several processes over all their devices. Start each with the same options; process 0 reports."""
    coordinator_address: str | None = None
    """host:port of process 0; found by itself, like the next two, under Slurm, Kubernetes and Open MPI."""
    num_processes: int | None = None
    process_id: int | None = None
    """The number of this process, from 0."""


class Timed(NamedTuple):
    """A training run, and when it ended, in seconds since the start."""

    run: Run
    ended: float

    @property
    def accuracies(self) -> list[float]:
        return [record["validation_accuracy"] for record in self.run.history]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    if options.distributed:
        fnn.parallel.initialize(options.coordinator_address, options.num_processes, options.process_id)
        if not first_process():
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                return work(options)
    return work(options)


def work(options: Options) -> None:
    train, test = digits.load(options.data or digits.FOLDER)
    checked = "" if options.data else ", SHA-256 checked"
    print(f"Loaded {len(train):,} training and {len(test):,} test images of {train.x.shape[1]} pixels{checked}.\n")
    if options.load is not None:
        return evaluate_file(options.load, test, options.loss)

    if options.hold_out:
        train, test = train[:-10_000], train[-10_000:]
        print("The test set is set aside: below, 'test' is the last 10,000 training images.\n")
    train = train[: options.examples]
    if not LOSSES[options.loss][0].takes_labels:
        train, test = digits.one_hot(train), digits.one_hot(test)
    runs = [run(options, seed, train, test) for seed in options.seed]
    if len(runs) > 1:
        last, best = percent(each.accuracies[-1] for each in runs), percent(max(each.accuracies) for each in runs)
        print(f"\n{len(runs)} seeds, test accuracy: last epoch {last}, best epoch {best}")
    return save(options, runs, test)


def run(options: Options, seed: int, train: Dataset, test: Dataset) -> Timed:
    """Check the gradient and train, with a line for every epoch."""
    loss, output = LOSSES[options.loss]
    params = fnn.init(
        jax.random.key(seed), (train.x.shape[1], *options.hidden, 10), output=output,
        activation=ACTIVATIONS[options.activation], initializer=INITIALIZERS[options.initializer],
    )  # fmt: skip
    print(f"{fnn.summary(params)}\n")
    check_gradient(params, train[:32], loss)

    print(f"Training: {options.optimizer}, {options.learning_rate:g} {options.schedule}, batch {options.batch_size}")
    passed: list[float] = []

    def report(progress: Progress) -> None:
        record, now = progress.history[-1], time.perf_counter() - STARTED
        if record["validation_accuracy"] >= 0.98 and not passed:
            passed.append(now)
        tqdm.write(  # above the bar, if there is one
            f"epoch {record['epoch']:2d}  loss {record['loss']:.4f}  "
            f"test accuracy {100 * record['validation_accuracy']:.2f} %  {now:5.1f} s"
        )

    trained = fit(
        params, train, optimizer(options, len(train)), loss=loss, epochs=options.epochs,
        batch_size=options.batch_size, key=jax.random.key(seed), validation=test, callback=report,
        progress=None if first_process() else False,
        checkpoint=None if options.checkpoint is None else options.checkpoint / f"seed-{seed}",
        mesh=fnn.parallel.data_mesh() if options.distributed or options.data_parallel else None,
    )  # fmt: skip
    reached = Timed(trained, time.perf_counter() - STARTED)
    when = f"98 % passed at {passed[0]:.1f} s" if passed else "98 % not passed"
    print(f"\nTest accuracy {100 * reached.accuracies[-1]:.2f} % (best {100 * max(reached.accuracies):.2f} %), {when}.")
    return reached


def check_gradient(params: Params, sample: Dataset, loss: fnn.Loss) -> None:
    """Print the hand-written gradient's agreement with ``jax.grad`` on real digits; stop if it disagrees."""
    print(f"The hand-written gradient against jax.grad on {len(sample)} digits:")
    for dtype in ("float64", "float32"):
        report = verify.gradient(
            lambda params, x, y: fnn.backprop(params, x, y, loss=loss),
            jax.jit(lambda params, x, y: loss.value(fnn.forward(params, x), y).mean()),
            params, sample.floats(), sample.y, dtype=dtype,
        )  # fmt: skip
        print(f"{report}\n")
        if not report.ok:
            sys.exit("The hand-written gradient is wrong: nothing was trained.")


def optimizer(options: Options, examples: int) -> optax.GradientTransformation:
    rate: float | optax.Schedule = options.learning_rate
    if options.schedule == "cosine":
        rate = optax.cosine_decay_schedule(options.learning_rate, options.epochs * (examples // options.batch_size))
    if options.optimizer == "adam":
        return optax.adam(rate)
    return fnn.updates.sgd(rate) if options.optimizer == "sgd" else fnn.updates.momentum(rate, 0.9)


def evaluate_file(path: Path, test: Dataset, loss: str) -> None:
    params = fnn.checkpoint.load(path)
    result = evaluate(params, test if LOSSES[loss][0].takes_labels else digits.one_hot(test), loss=LOSSES[loss][0])
    print(f"{fnn.summary(params)}\n\n{path}: test accuracy {100 * result['accuracy']:.2f} %, loss {result['loss']:.4f}")


def save(options: Options, runs: Sequence[Timed], test: Dataset) -> None:
    """Parameters of every seed; pictures of the first; the history and what it says in figures.json."""
    if not first_process():
        return
    from experiments import figures  # matplotlib is slow to import, and not needed before

    out = results.folder(options.out, "mnist")
    for seed, each in zip(options.seed, runs):
        fnn.checkpoint.export(out / f"seed-{seed}.safetensors", each.run)
    sizes = "-".join(map(str, (test.x.shape[1], *options.hidden, 10)))
    name = type(ACTIVATIONS[options.activation]).__name__
    labels = test.y if test.y.ndim == 1 else test.y.argmax(axis=1)
    title = f"{digits.name(options.data)}, {sizes}, {name}, seed {options.seed[0]}"
    figures.learning_curves(out / "mnist.png", runs[0].run.history, title)
    figures.mistakes(out / "mnist-mistakes.png", test.x, labels, predict(runs[0].run, test))
    data = "accuracy on the held-out training images" if options.hold_out else "test accuracy"
    claim = f"{sizes}, {name}, {options.optimizer}, {options.epochs} epochs: {data} at the last epoch"
    claim = claim if options.data is None else f"{digits.name(options.data)}, {claim}"
    last = ", ".join(f"{100 * each.accuracies[-1]:.2f}" for each in runs)
    here = f"{last} %; one run {runs[0].ended:.0f} s, gradient check included"
    histories = {
        f"seed {seed}": [{name: round(value, 4) for name, value in record.items()} for record in each.run.history]
        for seed, each in zip(options.seed, runs)
    }
    results.save(out, "mnist", options, [results.Claim(claim, here)], histories)


def first_process() -> bool:
    """Whether this process is the one that reports, of several or alone."""
    return jax.process_index() == 0


def percent(values: Iterable[float]) -> str:
    several = list(values)
    return f"mean {results.spread(several, factor=100, unit='%')}, best {100 * max(several):.2f} %"


if __name__ == "__main__":
    main()
