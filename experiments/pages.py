"""Five interactive pages, made by ``fnn.explain(...).page(path)``: ``python -m experiments.pages [FOLDER]``.

The site is built with them. Every page is one file and works offline.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp

import fnn
from experiments import digits
from fnn import Dense, Explanation, explain, updates

FOLDER = Path(__file__).parent.parent / "build" / "pages"
CROSS_ENTROPY = fnn.SoftmaxCrossEntropy()
X = jnp.array([0.5, -1.0])


def two_three_one() -> Explanation:
    """A 2-3-1 network: the smallest one with a hidden layer worth drawing."""
    params = fnn.init(jax.random.key(1), (2, 3, 1), activation=fnn.Tanh(), output=fnn.Sigmoid())
    return explain(params, X, jnp.array([1.0]))


def digit() -> Explanation:
    """A handwritten digit: 784 pixels as a heat map; a click on a hidden neuron shows its weights as an image."""
    train, test = digits.load()
    params = fnn.init(jax.random.key(0), (784, 12, 10), activation=fnn.Tanh())
    rule = updates.sgd(0.3)
    run = fnn.train.fit(
        params, train[:20_000], rule, loss=CROSS_ENTROPY, epochs=2, batch_size=50, key=jax.random.key(1), progress=False
    )
    return explain(run, jnp.asarray(test.x[0] * test.scale, jnp.float32), jnp.asarray(test.y[0]), loss=CROSS_ENTROPY)


def dead_relu() -> Explanation:
    """A dead ReLU: the second hidden neuron has z < 0, so its δ and all of its gradients are zero."""
    W = jnp.array([[1.0, -0.5], [0.6, 0.9], [-0.4, -1.2]])
    hidden = Dense(W, jnp.array([0.1, -2.0, 0.2]), fnn.ReLU())
    return explain((hidden, Dense(jnp.array([[0.8, -1.1, 0.5]]), jnp.zeros(1), fnn.Identity())), X, jnp.array([0.0]))


def vanishing_gradient() -> Explanation:
    """A vanishing gradient: every sigmoid layer multiplies δ by σ' ≤ 1/4, and the colours fade towards the input."""
    params = fnn.init(jax.random.key(2), (2, *[4] * 7, 1), activation=fnn.Sigmoid(), output=fnn.Sigmoid())
    return explain(params, X, jnp.array([1.0]))


def without_slope(g, activation, z, a):
    """(2b) without σ', a common mistake."""
    return g


def wrong_derivation() -> Explanation:
    """A wrong derivation: (2b) without σ'. What fnn.verify finds is red; what only follows from it is not."""
    params = fnn.init(jax.random.key(1), (2, 3, 2, 1), activation=fnn.Tanh(), output=fnn.Sigmoid())
    return explain(params, X, jnp.array([1.0]), rules=fnn.RULES._replace(hidden_delta=without_slope))


PAGES: tuple[Callable[[], Explanation], ...] = (two_three_one, digit, dead_relu, vanishing_gradient, wrong_derivation)


def title(make: Callable[[], Explanation]) -> str:
    return " ".join((make.__doc__ or "").split())


def file_name(make: Callable[[], Explanation]) -> str:
    return f"{make.__name__}.html"


def write(folder: Path = FOLDER) -> list[Path]:
    """Make all pages in ``folder``, which need not exist yet; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [replace(make(), title=title(make)).page(folder / file_name(make)) for make in PAGES]


if __name__ == "__main__":
    print("\n".join(map(str, write(*map(Path, sys.argv[1:2])))))
