"""Train a network on handwritten digits with hand-written gradients: ``python -m experiments.mnist``.

It loads MNIST, checks the hand-written gradient against ``jax.grad`` on real digits, trains, and leaves the
learning curves, a sheet of the mistakes, the history and the parameters in a folder.

The hyper-parameters of the default were chosen with ``--hold-out``: by training on the first 50,000 images and
looking at the last 10,000 training images; the test set took no part. The Nielsen presets are those of chapter 1
of his book.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import optax
import tyro
from tqdm import tqdm

import fnn
from experiments import STARTED, digits
from fnn import verify
from fnn.data import Dataset
from fnn.train import State, evaluate, fit, predict

ACTIVATIONS = {
    "relu": fnn.ReLU(), "sigmoid": fnn.Sigmoid(), "tanh": fnn.Tanh(), "scaled-tanh": fnn.ScaledTanh(),
    "leaky-relu": fnn.LeakyReLU(), "elu": fnn.ELU(), "gelu": fnn.GELU(), "silu": fnn.SiLU(), "softsign": fnn.Softsign(),
}  # fmt: skip
INITIALIZERS = {
    "glorot": fnn.glorot_normal, "he": fnn.he_normal, "lecun": fnn.lecun_normal, "standard": fnn.standard_normal,
}  # fmt: skip
LOSSES = {  # the loss, and the output activation it is meant for
    "softmax": (fnn.SoftmaxCrossEntropy(), fnn.Identity()),
    "sigmoid": (fnn.SigmoidCrossEntropy(), fnn.Identity()),
    "squared": (fnn.SquaredError(0.5), fnn.Sigmoid()),
}


@dataclass(frozen=True)
class Options:
    """Train a network on handwritten digits with hand-written gradients."""

    preset: Literal["default", "nielsen-30", "nielsen-100"] = "default"
    """Where the other defaults come from."""
    hidden: tuple[int, ...] = (512,)
    """Sizes of the hidden layers."""
    epochs: int = 15
    batch_size: int = 32
    learning_rate: float = 0.05
    activation: Literal[tuple(ACTIVATIONS)] = "relu"  # type: ignore[valid-type]
    initializer: Literal[tuple(INITIALIZERS)] = "he"  # type: ignore[valid-type]
    loss: Literal[tuple(LOSSES)] = "softmax"  # type: ignore[valid-type]
    """Softmax and sigmoid cross-entropy on logits, or ½ squared error behind a sigmoid."""
    optimizer: Literal["sgd", "momentum", "adam"] = "momentum"
    schedule: Literal["constant", "cosine"] = "cosine"
    """Of the learning rate, over all steps."""
    examples: int = 60_000
    """Training images used, from the first."""
    seed: tuple[int, ...] = (0,)
    """One run for each; of several, the mean and the best are reported."""
    hold_out: bool = False
    """Evaluate on the last 10,000 training images, which are then not trained on: for choosing hyper-parameters."""
    data: Path = digits.FOLDER
    """Folder with the four IDX files; Fashion-MNIST's fit too."""
    out: Path | None = None
    """Folder for the results; runs/mnist-… with the time if not given."""
    load: Path | None = None
    """Evaluate these parameters (a .safetensors file) and train nothing."""


NIELSEN = Options(
    hidden=(30,), epochs=30, batch_size=10, learning_rate=3.0, activation="sigmoid", initializer="standard",
    loss="squared", optimizer="sgd", schedule="constant", examples=50_000,
)  # fmt: skip
PRESETS = {
    "default": Options(),
    "nielsen-30": dataclasses.replace(NIELSEN, preset="nielsen-30"),
    "nielsen-100": dataclasses.replace(NIELSEN, preset="nielsen-100", hidden=(100,)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", choices=PRESETS, default="default")
    preset = first.parse_known_args(arguments)[0].preset
    options = tyro.cli(Options, args=arguments, default=PRESETS[preset])

    train, test = digits.load(options.data)
    checked = ", SHA-256 checked" if options.data == digits.FOLDER else ""
    print(f"Loaded {len(train):,} training and {len(test):,} test images of {train.x.shape[1]} pixels{checked}.\n")
    if options.load is not None:
        return evaluate_file(options.load, test, options.loss)

    if options.hold_out:
        train, test = train[:-10_000], train[-10_000:]
        print("The test set is set aside: below, 'test' is the last 10,000 training images.\n")
    out = options.out or Path("runs") / f"mnist-{datetime.now():%Y%m%d-%H%M%S}"
    accuracies = []
    for seed in options.seed:
        folder = out if len(options.seed) == 1 else out / f"seed-{seed}"
        accuracies.append(run(options, seed, train[: options.examples], test, folder))
    if len(accuracies) > 1:
        last, best = [a[-1] for a in accuracies], [max(a) for a in accuracies]
        print(f"\n{len(accuracies)} seeds, test accuracy: last epoch {percent(last)}, best epoch {percent(best)}")
    return None


def run(options: Options, seed: int, train: Dataset, test: Dataset, out: Path) -> list[float]:
    """One training run; returns the test accuracy after every epoch."""
    loss, output = LOSSES[options.loss]
    if not loss.takes_labels:
        train, test = one_hot(train), one_hot(test)
    params = fnn.init(
        jax.random.key(seed), (train.x.shape[1], *options.hidden, 10), output=output,
        activation=ACTIVATIONS[options.activation], initializer=INITIALIZERS[options.initializer],
    )  # fmt: skip
    print(f"{fnn.summary(params)}\n")
    check_gradient(params, train[:32], loss)

    print(f"Training: {options.optimizer}, {options.learning_rate:g} {options.schedule}, batch {options.batch_size}")
    passed: list[float] = []

    def report(state: State) -> None:
        record, now = state.history[-1], time.perf_counter() - STARTED
        if record["validation_accuracy"] >= 0.98 and not passed:
            passed.append(now)
        tqdm.write(  # above the bar, if there is one
            f"epoch {record['epoch']:2d}  loss {record['loss']:.4f}  "
            f"test accuracy {100 * record['validation_accuracy']:.2f} %  {now:5.1f} s"
        )

    params, history = fit(
        params, train, optimizer(options, len(train)), loss=loss, epochs=options.epochs,
        batch_size=options.batch_size, key=jax.random.key(seed), validation=test, callback=report,
    )  # fmt: skip
    accuracies = [record["validation_accuracy"] for record in history]
    when = f"98 % passed at {passed[0]:.1f} s" if passed else "98 % not passed"
    print(f"\nTest accuracy {100 * accuracies[-1]:.2f} % (best {100 * max(accuracies):.2f} %), {when}.")
    save(out, options, seed, params, history, test)
    print(f"Results in {out}/ after {time.perf_counter() - STARTED:.1f} s.")
    return accuracies


def check_gradient(params: fnn.network.Params, sample: Dataset, loss: fnn.Loss) -> None:
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


def one_hot(data: Dataset) -> Dataset:
    return Dataset(data.x, np.eye(10, dtype=np.float32)[data.y], data.scale)


def evaluate_file(path: Path, test: Dataset, loss: str) -> None:
    params = fnn.checkpoint.load(path)
    result = evaluate(params, test if LOSSES[loss][0].takes_labels else one_hot(test), loss=LOSSES[loss][0])
    print(f"{fnn.summary(params)}\n\n{path}: test accuracy {100 * result['accuracy']:.2f} %, loss {result['loss']:.4f}")


def save(out: Path, options: Options, seed: int, params, history: list[dict], test: Dataset) -> None:
    """Parameters, history, options and two pictures."""
    from experiments import figures  # matplotlib is slow to import, and not needed before

    out.mkdir(parents=True, exist_ok=True)
    fnn.checkpoint.export(out / "params.safetensors", params)
    (out / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in history))
    described = dataclasses.asdict(options) | {"seed": seed, "jax": jax.__version__}
    (out / "options.json").write_text(json.dumps(described, indent=2, default=str) + "\n")
    sizes = "-".join(str(layer.W.shape[1]) for layer in params) + f"-{params[-1].W.shape[0]}"
    figures.learning_curves(out / "learning_curves.png", history, f"MNIST, {sizes}, {options.activation}, seed {seed}")
    labels = test.y if test.y.ndim == 1 else test.y.argmax(axis=1)
    figures.mistakes(out / "mistakes.png", test.x, labels, predict(params, test))


def percent(values: Sequence[float]) -> str:
    return f"mean {100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f} %, best {100 * max(values):.2f} %"


if __name__ == "__main__":
    main()
