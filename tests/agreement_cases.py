"""One process of several whose arguments of ``fit`` are the same but for one: test_agreement.py starts them.

python tests/agreement_cases.py ADDRESS PROCESSES ID: for every case prints its name and what ``fit`` said.
"""

import sys
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnn
from fnn import updates
from networks import drawn

SIZES = (5, 6, 3)


@dataclass(frozen=True)
class Hidden(fnn.Loss):
    """A loss whose repr does not show its factor."""

    factor: float = field(default=1.0, repr=False)

    def value(self, a, y):
        return self.factor * jnp.sum((a - y) ** 2, axis=-1)

    def gradient(self, a, y):
        return 2 * self.factor * (a - y)


def half(g, activation, z, a):
    return 0.5 * activation.pullback(g, z, a)


def data(row=None, examples=16, **options):
    """Examples of which one may be another."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(examples, 5)).astype(np.float32), random.normal(size=(examples, 3)).astype(np.float32)
    if row is not None:
        x[row] += 1
    return fnn.data.Dataset(x, y, **options)


def network(seed=0, activation=fnn.Tanh()):
    return drawn(SIZES, seed=seed, activation=activation)


def decayed(rate):
    return optax.chain(optax.add_decayed_weights(rate), updates.sgd(0.1))


ONES = np.ones(16, np.float32)
DROPOUT, PLAIN, SGD = fnn.Dropout(0.8), fnn.SquaredError(), updates.sgd(0.1)


def cases():
    """name → (what all give besides, what process 1 gives instead, how the message begins)."""
    return {
        "rate": ({}, {"optimizer": updates.sgd(0.2)}, "optimizer: "),
        "momentum or Nesterov": (
            {"optimizer": updates.momentum(0.1)},
            {"optimizer": updates.nesterov(0.1)},
            "optimizer: ",
        ),
        "adam": ({"optimizer": updates.momentum(0.1)}, {"optimizer": optax.adam(0.1)}, "optimizer: "),
        "decay": ({"optimizer": decayed(0.1)}, {"optimizer": decayed(0.01)}, "optimizer: "),
        "a schedule": (
            {"optimizer": updates.sgd(lambda step: 0.1)},
            {"optimizer": updates.sgd(lambda step: 0.2)},
            "optimizer program: ",
        ),
        "reduction": ({}, {"reduction": "sum"}, "reduction: "),
        "activation": ({}, {"params": network(activation=fnn.ReLU())}, "network program: "),
        "params": ({}, {"params": network(1)}, "initial params: "),
        "loss": ({}, {"loss": fnn.Huber(1.0)}, "loss: "),
        "a loss's factor": ({"loss": Hidden(1.0)}, {"loss": Hidden(2.0)}, "loss program: "),
        "precision": ({}, {"precision": "bfloat16"}, "precision: "),
        "rules": ({}, {"rules": fnn.RULES._replace(hidden_delta=half)}, "rules: "),
        "a row of 10,000": ({"data": data(examples=10_000)}, {"data": data(9_999, 10_000)}, "data.x: "),
        "examples": ({}, {"data": data(examples=18)}, "examples: "),
        "scale": ({}, {"data": data(scale=0.5)}, "data.scale: "),
        "weights": (
            {"data": data(weights=np.ones(16, np.float32))},
            {"data": data(weights=np.arange(1, 17, dtype=np.float32))},
            "data.weights: ",
        ),
        "validation": ({"validation": data()}, {"validation": data(3)}, "validation.x: "),
        "key": ({}, {"key": jax.random.key(2)}, "key: "),
        "batch_size": ({}, {"batch_size": 8}, "batch_size: "),
        "dropout": ({"dropout": DROPOUT}, {"dropout": fnn.Dropout(0.5)}, "dropout"),
        "keep": ({"validation": data()}, {"keep": "best"}, "keep: "),
        "patience": ({"validation": data(), "patience": 5}, {"patience": 6}, "patience: "),
        "epochs": ({}, {"epochs": 3}, "epochs: "),
        "checkpoint": ({}, {"checkpoint": "never-written"}, "checkpoint: "),
        "every": ({}, {"every": 2}, "every: "),
        "every_steps": ({}, {"every_steps": 2}, "every_steps: "),
        "a callback that stops": ({}, {"callback": lambda progress: True}, "callback: "),
        "a callback that does not": ({}, {"callback": lambda progress: None}, "trained"),
        "nothing": ({}, {}, "trained"),
    }


def fitted(options):
    options = {"params": network(), "data": data(), "optimizer": SGD, "loss": PLAIN, "epochs": 1} | options
    options = {"batch_size": 4, "key": jax.random.key(1), "progress": False, "mesh": fnn.parallel.data_mesh()} | options
    fnn.train.fit(options.pop("params"), options.pop("data"), options.pop("optimizer"), **options)


def said(options):
    try:
        fitted(options)
    except ValueError as error:
        return str(error).splitlines()[0]
    return "trained"


def main(address, processes, process):
    fnn.parallel.initialize(address, int(processes), int(process))
    for name, (common, other, _) in cases().items():
        print(f"{name}: {said(common | (other if process == '1' else {}))}", flush=True)
    from fnn.checkpoint import resume

    digest_of = resume.digest_of
    resume.digest_of = lambda tree: "0" * 64 if process == "1" else digest_of(tree)
    print(f"diverged: {said({})}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
