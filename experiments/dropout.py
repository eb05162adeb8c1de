"""Dropout and DropConnect on MNIST (E4, S5): ``python -m experiments.dropout``.

1. Over-fitting: 784-800-800-10 on 1,000 training images, with nothing, dropout, and DropConnect.
2. The same three on the whole training set.
3. Inference: how far W p (equation S5, exact for one layer only) is from the mean over 1,000 sampled masks in the
   trained networks, beside Wan et al.'s Gaussian moment matching, u ~ N(p W v, p (1 − p) (W ∘ W)(v ∘ v)).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.figure import Figure

import fnn
from experiments import digits, results
from experiments.figures import BLUE, GREY, RED
from fnn.data import Dataset
from fnn.train import evaluate, fit

LOSS = fnn.SoftmaxCrossEntropy()
COLOURS = {"nothing": GREY, "dropout": BLUE, "DropConnect": RED}


@dataclass(frozen=True)
class Options:
    """Dropout and DropConnect on MNIST: over-fitting, accuracy, and inference."""

    hidden: tuple[int, ...] = (800, 800)
    epochs: int = 6
    """Epochs on the whole training set."""
    small: int = 1000
    """Images in the small training set."""
    small_epochs: int = 200
    full: bool = False
    """100 epochs on the whole set and 1,000 on the small one: about an hour."""
    keep: float = 0.5
    """Keep probability of hidden neurons and of the arrows out of them."""
    keep_input: float = 0.8
    """Keep probability of pixels in dropout."""
    batch_size: int = 100
    learning_rate: float = 0.1
    masks: int = 1000
    """Number of sampled masks and Gaussian samples whose mean is compared with W p."""
    images: int = 300
    """Test images for this comparison."""
    max_norm: float = 3.0
    seed: int = 0
    out: Path | None = None


def kinds(options: Options) -> dict[str, fnn.Dropout | fnn.DropConnect | None]:
    hidden = (options.keep,) * len(options.hidden)
    units, arrows = fnn.Dropout((options.keep_input, *hidden)), fnn.DropConnect((None, *hidden))
    return {"nothing": None, "dropout": units, "DropConnect": arrows}


def train(options: Options, data: Dataset, test: Dataset, dropout, epochs: int):
    """The parameters as trained, test loss and accuracy by epoch, and the training accuracy at the end."""
    params = fnn.init(
        jax.random.key(options.seed),
        (784, *options.hidden, 10),
        activation=fnn.ReLU(),
        initializer=fnn.initializers.he_normal,
    )
    steps = epochs * (len(data) // options.batch_size)
    rate = optax.cosine_decay_schedule(options.learning_rate, steps)
    rule = optax.chain(fnn.updates.momentum(rate, 0.9), fnn.updates.max_norm(options.max_norm))
    run = fit(
        params, data, rule, loss=LOSS, epochs=epochs, batch_size=options.batch_size,
        key=jax.random.key(options.seed), validation=test, dropout=dropout,
    )  # fmt: skip
    fitted = evaluate(run, data, loss=LOSS)
    curves = {
        f"test {what}": [round(record[f"validation_{what}"], 4) for record in run.history]
        for what in ("loss", "accuracy")
    }
    return run.params, curves | {"training accuracy": fitted["accuracy"], "training loss": fitted["loss"]}


def compare_inference(options: Options, params, dropout, test: Dataset) -> dict:
    """Probabilities of the classes by W p and by Gaussian moment matching, against the mean over sampled masks."""
    x, labels = jnp.asarray(test[: options.images].floats()), test.y[: options.images]
    keys, half = jax.random.split(jax.random.key(options.seed + 1), options.masks), options.masks // 2

    def masked(params, key):
        return fnn.forward(params, x, masks=fnn.sample_masks(params, dropout, len(x), key=key))

    def gaussian(params, key):
        return gaussian_forward(key, params, dropout.keep, x)

    ways = {
        "W p": jax.nn.softmax(fnn.forward(fnn.fold(params, dropout=dropout), x)),
        "Gaussian": mean_over(keys, gaussian, params),
    }
    truth = np.asarray(mean_over(keys, masked, params))
    halves = [np.asarray(mean_over(part, masked, params)) for part in (keys[:half], keys[half:])]
    report = {
        name: {
            "mean absolute difference": float(np.abs(np.asarray(p) - truth).mean()),
            "largest difference": float(np.abs(np.asarray(p) - truth).max()),
            "accuracy": float((np.asarray(p).argmax(axis=1) == labels).mean()),
        }
        for name, p in ways.items()
    }
    noise = float(np.abs(halves[0] - halves[1]).mean()) / 2
    report["mean over masks"] = {"accuracy": float((truth.argmax(axis=1) == labels).mean()), "its own noise": noise}
    return report


def mean_over(keys, sample: Callable, params):
    """The mean over the keys of the classes' probabilities."""
    mean = jax.jit(lambda keys, params: jax.lax.map(lambda key: jax.nn.softmax(sample(params, key)), keys).mean(axis=0))
    return mean(keys, params)


def gaussian_forward(key, params, keep: Sequence[float | None], x):
    """One sample of Wan et al.'s inference: ψ from the Gaussian with the mean and variance that the masks give it."""
    a = x
    for i, (layer, p) in enumerate(zip(params, keep)):
        p = 1.0 if p is None else p
        variance = p * (1 - p) * (a * a) @ (layer.W * layer.W).T
        noise = jax.random.normal(jax.random.fold_in(key, i), variance.shape, variance.dtype)
        a = layer.activation.value(p * a @ layer.W.T + layer.b + jnp.sqrt(variance) * noise)
    return a


def draw(path: Path, small: dict[str, dict], whole: dict[str, dict], options: Options) -> None:
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    few, many = f"{options.small:,} training images", "60,000 training images"
    panels = (("loss", small, few), ("error", small, few), ("error", whole, many))
    for axes, (what, runs, title) in zip(figure.subplots(1, 3), panels):
        for name, run in runs.items():
            if what == "error":
                values = [100 * (1 - accuracy) for accuracy in run["test accuracy"]]
            else:
                values = run["test loss"]
            label = f"{name}: {values[-1]:.2f}"
            axes.plot(range(1, len(values) + 1), values, color=COLOURS[name], label=label)
        last = [line.get_ydata()[-1] for line in axes.lines]
        axes.set(xlabel="epoch", ylabel="test error, %" if what == "error" else "test loss", title=title)
        axes.set_ylim(0.8 * min(last), 2 * max(last))  # the first epochs lie above
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, title="at the end")
    figure.savefig(path, dpi=110)


def whole_set(options: Options, whole: dict) -> str:
    """What differs from the published runs on the whole training set, and whether they were reproduced."""
    nothing, *dropped = (run["test accuracy"][-1] for run in whole.values())
    reproduced = "reproduced" if min(dropped) > nothing else "not reproduced, the reverse"
    return f"{reproduced}; {options.epochs} epochs, where published runs take hundreds, one seed, another schedule"


def claims(options: Options, small: dict, whole: dict, inference: dict) -> list[results.Claim]:
    """Over-fitting, the whole training set, and inference by W p."""
    losses = ", ".join(f"{run['test loss'][-1]:.2f}" for run in small.values())
    errors = ", ".join(f"{100 * (1 - run['test accuracy'][-1]):.2f}" for run in whole.values())
    difference = {
        way: " and ".join(f"{of[way]['mean absolute difference']:.4f}" for of in inference.values())
        for way in ("W p", "Gaussian")
    }
    return [
        results.Claim(f"over-fitting on {options.small:,} images: test loss with {', '.join(small)}", losses),
        results.Claim(
            f"the whole training set, {options.epochs} epochs: test error, the same three",
            f"{errors} %",
            "lower with either (Srivastava et al. 2014, Wan et al. 2013)",
            whole_set(options, whole),
        ),
        results.Claim(
            f"W p against the mean over {options.masks:,} masks: mean difference of the class probabilities, "
            f"{' and '.join(inference)}",
            f"{difference['W p']}; by Wan et al.'s Gaussian {difference['Gaussian']}",
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    if options.full:
        options = replace(options, epochs=100, small_epochs=1000)
    shortened = f"{options.epochs} epochs on the whole set, where published runs take hundreds"
    print(f"Shortened: {shortened}.")
    data, test = digits.load()
    small, whole, inference = {}, {}, {}
    for name, dropout in kinds(options).items():
        _, small[name] = train(options, data[: options.small], test, dropout, options.small_epochs)
        params, whole[name] = train(options, data, test, dropout, options.epochs)
        for size, run in ((options.small, small[name]), (len(data), whole[name])):
            accuracy, fitted = 100 * run["test accuracy"][-1], 100 * run["training accuracy"]
            print(f"{name}, {size:,} images: test {accuracy:.2f} %, training {fitted:.2f} %", flush=True)
        if dropout is not None:
            inference[name] = compare_inference(options, params, dropout, test)
            for way, figures in inference[name].items():
                print(f"  {name}, {way}: " + ", ".join(f"{k} {v:.3g}" for k, v in figures.items()))
    out = results.folder(options.out, "dropout")
    draw(out / "dropout.png", small, whole, options)
    figures = {"small": small, "whole": whole, "inference": inference}
    results.save(out, "dropout", options, claims(options, small, whole, inference), figures, shortened=shortened)


if __name__ == "__main__":
    main()
