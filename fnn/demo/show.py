"""The demo: check the gradient, train, then replace one rule by a wrong one and see the report name it."""

import jax
import numpy as np

import fnn
from fnn import digits
from fnn.data import Dataset, load_digits

SIZES, EPOCHS, CHECKED = (64, 32, 10), 8, 16  # CHECKED: images that the equations are checked on
SHADES = " .:=+*#%@"
LOSS = fnn.SoftmaxCrossEntropy()


def show() -> None:
    """Print the whole demo; it takes about ten seconds, most of them compilation."""
    training, test = load_digits()
    params = fnn.init(jax.random.key(0), SIZES, activation=fnn.Tanh())
    print(f"{len(training):,} handwritten digits to train on, {len(test)} to test. The first:\n")
    print(picture(training.x[0]))
    print("\n1. Is the gradient right? Every equation of back-propagation against automatic differentiation:")
    print(f"\n{report(params, training, fnn.RULES)}")
    print(f"\n2. Train {'-'.join(map(str, SIZES))}, tanh, softmax, with these equations:\n")
    right = trained(params, training, test, fnn.RULES, progress=True)
    print("\n3. Now forget sigma' in equation (2b):\n\n   def hidden_delta(g, activation, z, a): return g\n")
    wrong = trained(params, training, test, fnn.RULES._replace(hidden_delta=without_slope), progress=False)
    print(f"It still trains: {wrong:.1%} test accuracy instead of {right:.1%}. The report is not fooled:\n")
    print(report(params, training, fnn.RULES._replace(hidden_delta=without_slope)))
    print("\nNext: check your own with help(fnn.verify.network), or train with help(fnn.train.fit).")


def without_slope(g, activation, z, a):
    """Equation (2b) with a mistake: the gradient g reaches δ without the factor σ′(z)."""
    return g


def report(params, data: Dataset, rules: fnn.Rules) -> "fnn.verify.Report":
    """Every equation on a few of the digits."""
    x = np.asarray(data.x[:CHECKED], np.float32) * np.float32(data.scale)
    y = data.y[:CHECKED]
    return fnn.verify.network(params, x, y, loss=LOSS, rules=rules, probes=False)


def trained(params, training: Dataset, test: Dataset, rules: fnn.Rules, progress: bool) -> float:
    """The share of the test digits that are recognised after training; with ``progress``, each epoch has a line."""
    run = fnn.train.fit(
        params, training, fnn.updates.momentum(0.1, 0.9), loss=LOSS, rules=rules, epochs=EPOCHS, batch_size=32,
        key=jax.random.key(1), validation=test, progress=False, callback=told if progress else None,
    )  # fmt: skip
    return run.history[-1]["validation_accuracy"]


def told(progress: "fnn.train.Progress") -> None:
    record = progress.history[-1]
    print(f"   epoch {record['epoch']}   loss {record['loss']:.3f}   test accuracy {record['validation_accuracy']:.1%}")


def picture(pixels: np.ndarray) -> str:
    """An image of 8 × 8 pixels in [0, 16] as text, every pixel two characters wide."""
    lines = np.asarray(pixels).reshape(8, 8) * (len(SHADES) - 1) // digits.INK
    return "\n".join(("   " + "".join(2 * SHADES[shade] for shade in line)).rstrip() for line in lines)
