"""Dropout and DropConnect on MNIST (E4, S5): ``python -m experiments.dropout``.

1. Over-fitting: 784-800-800-10, ReLU, on 1,000 training images, with nothing, dropout, and DropConnect.
2. The same three on the whole training set.
3. Inference: how far W p (equation S5, exact for one layer only) is from the mean over 1,000 sampled masks in the
   trained networks, beside Wan et al.'s Gaussian moment matching, u ~ N(p W v, p (1 − p) (W ∘ W)(v ∘ v)).

The schedule is that of Srivastava's example for MNIST (his deepnet, examples/ff), compressed to the length of the run:
Δ ← pΔ − (1 − p) ε g as in Hinton et al. 2012, the momentum p rises from 0.5 to 0.99, ε = 1/(1 + 10 t/T), ‖w‖ ≤ 3,
W from N(0, 1/n_in), batch 100, T = 100,000 mini-batches. Dropout keeps pixels with probability 0.8 and hidden neurons
with 0.5, as there. DropConnect keeps arrows into hidden neurons with 0.5, as in Wan et al. 2013, but draws one mask for
a mini-batch, where they draw one for each example. Their test errors for 800-800 (1.62, 1.28, 1.20 %) could not be
confirmed, because no copy of that table could be read, nor could their schedule.

``--full``: 100,000 mini-batches, as long as that example, with five seeds. At 2.5 s an epoch with nothing dropped, and
up to 4 s with DropConnect, that is more than two hours of an idle core. On a GPU the command is the same.
``--checkpoint FOLDER`` keeps what has finished, and several processes that are given the same folder share the work.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.figure import Figure

import fnn
from experiments import digits, long_runs, results
from experiments.figures import BLUE, GREY, RED
from fnn.data import Dataset
from fnn.train import evaluate, fit

LOSS = fnn.SoftmaxCrossEntropy()
COLOURS = {"nothing": GREY, "dropout": BLUE, "DropConnect": RED}
PUBLISHED = 100_000  # mini-batches
PASSES = 10  # over the small training set, between two points of its curves
MOMENTUM, DECAY = (0.5, 0.99), 10  # of the published schedule: first and last p, and ε's first over its last, less 1


@dataclass(frozen=True)
class Options:
    """Dropout and DropConnect on MNIST: over-fitting, accuracy, and inference."""

    hidden: tuple[int, ...] = (800, 800)
    epochs: int = 6
    """Epochs on the whole training set."""
    small: int = 1000
    """Images in the small training set."""
    small_epochs: int = 200
    """A multiple of 10."""
    seeds: int = 1
    full: bool = False
    """167 epochs on the whole set, as published, and five seeds."""
    keep: float = 0.5
    """Keep probability of hidden neurons, and of the arrows into them."""
    keep_input: float = 0.8
    """Keep probability of pixels in dropout."""
    batch_size: int = 100
    learning_rate: float = 1.0
    """ε at the start."""
    masks: int = 1000
    """Number of sampled masks and Gaussian samples whose mean is compared with W p."""
    images: int = 300
    """Test images for this comparison."""
    max_norm: float = 3.0
    checkpoint: Path | None = None
    """Folder that keeps what has finished: a repeated command resumes, and several processes may share it."""
    report: bool = False
    """Train nothing, and leave the record of what has finished in the folder."""
    out: Path | None = None


def kinds(options: Options) -> dict[str, fnn.Dropout | fnn.DropConnect | None]:
    hidden = (options.keep,) * len(options.hidden)
    units, arrows = fnn.Dropout((options.keep_input, *hidden)), fnn.DropConnect((*hidden, None))
    return {"nothing": None, "dropout": units, "DropConnect": arrows}


def rule(options: Options, steps: int) -> optax.GradientTransformation:
    """Momentum whose p rises to the end, with (1 − p) ε as the rate, and the limit of the norm."""
    alpha = optax.linear_schedule(*MOMENTUM, steps)

    def rate(step):
        return (1 - alpha(step)) * options.learning_rate / (1 + DECAY * step / steps)

    momentum = optax.inject_hyperparams(fnn.updates.momentum)(learning_rate=rate, alpha=alpha)
    return optax.chain(momentum, fnn.updates.max_norm(options.max_norm))


def train(
    options: Options, name: str, data: Dataset, test: Dataset, epochs: int, seed: int, inference: bool, checkpoint
) -> dict:
    """Test loss and accuracy by epoch, the training accuracy at the end, and inference of the trained network."""
    params = fnn.init(
        jax.random.key(seed),
        (784, *options.hidden, 10),
        activation=fnn.ReLU(),
        initializer=fnn.initializers.lecun_normal,
    )
    dropout, steps = kinds(options)[name], epochs * (len(data) // options.batch_size)
    run = fit(
        params, data, rule(options, steps), loss=LOSS, epochs=epochs, batch_size=options.batch_size,
        key=jax.random.key(seed), validation=test, dropout=dropout, checkpoint=checkpoint, every=5,
    )  # fmt: skip
    fitted = evaluate(run, data, loss=LOSS)
    left: dict = {
        f"test {what}": [round(record[f"validation_{what}"], 4) for record in run.history]
        for what in ("loss", "accuracy")
    }
    left |= {f"training {what}": round(fitted[what], 4) for what in ("loss", "accuracy")}
    return left | ({"inference": compare_inference(options, run.params, dropout, test)} if inference else {})


Found = dict[str, dict[int, dict]]  # network → seed → what its training left


def runs(options: Options, data: Dataset, test: Dataset) -> dict[str, long_runs.Run]:
    """Seed after seed, the three networks on both training sets."""
    sets = {
        "whole": (data, options.epochs),
        "small": (repeated(data[: options.small], PASSES), options.small_epochs // PASSES),
    }
    return {
        name_of(which, name, seed): partial(
            train, options, name, images, test, epochs, seed, which == "whole" and name != "nothing" and seed == 0
        )
        for seed in range(options.seeds)
        for which, (images, epochs) in sets.items()
        for name in COLOURS
    }


def repeated(data: Dataset, times: int) -> Dataset:
    """The same images several times over, so that one epoch of ``fit`` is as many passes."""
    return Dataset(np.tile(data.x, (times, 1)), np.tile(data.y, times), data.scale)


def name_of(which: str, name: str, seed: int) -> str:
    return f"{which}-{name}-{seed}"


def found_in(left: dict[str, dict], which: str, seeds: int) -> Found:
    """What the finished runs on one of the two training sets left, without the networks of which none has."""
    names = {name: {seed: name_of(which, name, seed) for seed in range(seeds)} for name in COLOURS}
    found = {name: {seed: left[run] for seed, run in of.items() if run in left} for name, of in names.items()}
    return {name: seeds for name, seeds in found.items() if seeds}


def compare_inference(options: Options, params, dropout, test: Dataset) -> dict:
    """Probabilities of the classes by W p and by Gaussian moment matching, against the mean over sampled masks."""
    x, labels = jnp.asarray(test[: options.images].floats()), test.y[: options.images]
    keys, half = jax.random.split(jax.random.key(1), options.masks), options.masks // 2

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


def draw(path: Path, small: Found, whole: Found, options: Options) -> None:
    """Means over the seeds, lowest and highest."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    few, many = f"{options.small:,} training images", "60,000 training images"
    panels = (("loss", small, few, PASSES), ("error", small, few, PASSES), ("error", whole, many, 1))
    for axes, (what, found, title, every) in zip(figure.subplots(1, 3), panels):
        for name, seeds in found.items():
            values = np.array([run["test loss"] if what == "loss" else errors(run) for run in seeds.values()])
            epochs, middle = every * np.arange(1, values.shape[1] + 1), values.mean(axis=0)
            axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=COLOURS[name], alpha=0.2, lw=0)
            axes.plot(epochs, middle, color=COLOURS[name], label=f"{name}: {middle[-1]:.2f}")
        last = [line.get_ydata()[-1] for line in axes.lines]
        axes.set(xlabel="epoch", ylabel="test error, %" if what == "error" else "test loss", title=title)
        axes.set_ylim(0.8 * min(last), 2 * max(last))  # the first epochs lie above
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, title="at the end")
    figure.savefig(path, dpi=110)


def errors(run: dict) -> list[float]:
    """Test error in percent, by epoch."""
    return [100 * (1 - accuracy) for accuracy in run["test accuracy"]]


# -- what is claimed ---------------------------------------------------------------------------------------------

THEIRS = {  # test error, published; the figures of Wan et al. for 800-800 could not be confirmed
    "nothing": "1.62 % (Wan et al. 2013, not confirmed)",
    "dropout": "1.25 %, with max-norm 1.06 % (Srivastava et al. 2014); 1.28 % (Wan et al. 2013, not confirmed)",
    "DropConnect": "1.20 % (Wan et al. 2013, not confirmed)",
}
DIFFERS = {
    "nothing": "another schedule",
    "dropout": "800-800, where Srivastava et al. have 3 × 1,024",
    "DropConnect": "one mask for a mini-batch, where Wan et al. draw one for each example; another schedule",
}


def claims(options: Options, small: Found, whole: Found) -> list[results.Claim]:
    """Over-fitting, the whole training set, and inference by W p."""
    losses = ", ".join(results.spread([run["test loss"][-1] for run in seeds.values()]) for seeds in small.values())
    fewest = min(map(len, small.values()))
    what = f"over-fitting on {options.small:,} images: test loss with {', '.join(small)}"
    inference = {name: seeds[0]["inference"] for name, seeds in whole.items() if "inference" in seeds.get(0, {})}
    return [
        results.Claim(f"{what}, {long_runs.count(fewest, options.seeds)}", losses),
        *(error_claim(options, name, whole) for name in whole),
        *([inference_claim(options, inference)] if inference else []),
    ]


def error_claim(options: Options, name: str, whole: Found) -> results.Claim:
    """The test error of one network at the end, beside what was published."""
    seeds = whole[name]
    count = long_runs.count(len(seeds), options.seeds)
    return results.Claim(
        f"the whole training set, {options.epochs} epochs, {name}: test error, {count}",
        results.spread([errors(run)[-1] for run in seeds.values()], unit="%"),
        THEIRS[name],
        "; ".join(filter(None, (compared(name, whole), length(options), DIFFERS[name]))),
    )


def compared(name: str, whole: Found) -> str:
    """In how many seeds the error is lower than with nothing, and whether that is what was published."""
    if name == "nothing":
        return ""
    both = whole[name].keys() & whole["nothing"].keys()
    lower = sum(errors(whole[name][seed])[-1] < errors(whole["nothing"][seed])[-1] for seed in both)
    reproduced = "reproduced" if lower == len(both) else "not reproduced" if lower else "not reproduced, the reverse"
    return f"{reproduced}: lower than with nothing in {lower} of {len(both)} seeds"


def length(options: Options) -> str:
    """How much shorter the run is."""
    published = -(-PUBLISHED * options.batch_size // 60_000)
    return "" if options.epochs >= published else f"{options.epochs} of {published} epochs, the schedule compressed"


def inference_claim(options: Options, inference: dict[str, dict]) -> results.Claim:
    difference = {
        way: " and ".join(f"{of[way]['mean absolute difference']:.4f}" for of in inference.values())
        for way in ("W p", "Gaussian")
    }
    return results.Claim(
        f"W p against the mean over {options.masks:,} masks: mean difference of the class probabilities, "
        f"{' and '.join(inference)}, first seed",
        f"{difference['W p']}; by Wan et al.'s Gaussian {difference['Gaussian']}",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    if options.full:
        options = replace(options, epochs=-(-PUBLISHED * options.batch_size // 60_000), seeds=5)
    data, test = digits.load()
    settings = results.command("dropout", replace(options, seeds=1, full=False))
    left = long_runs.finished(options.checkpoint, runs(options, data, test), settings=settings, report=options.report)
    small, whole = (found_in(left, which, options.seeds) for which in ("small", "whole"))
    if not small or "nothing" not in whole:
        raise SystemExit(f"{len(left)} runs have finished, and not those to compare with: nothing to report yet")
    shortened = length(options)
    print(f"Shortened: {shortened}." if shortened else "As long as published.")
    made = claims(options, small, whole)
    for claim in made:
        print(f"{claim.claim}: {claim.here}")
    out = results.folder(options.out, "dropout")
    draw(out / "dropout.png", small, whole, options)
    figures, spent = {"small": small, "whole": whole}, long_runs.seconds(left)
    results.save(out, "dropout", options, made, figures, shortened=shortened, seconds=spent)


if __name__ == "__main__":
    main()
