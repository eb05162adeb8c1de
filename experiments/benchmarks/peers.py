"""The training problem that all share, and its peers in JAX and NumPy: see ``experiments.benchmarks.epochs``.

A peer starts from the problem's parameters and trains by the rows of mini-batches that it is given, in its own way of
holding data and weights; ``frameworks`` has those that are written with another library.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnn
from fnn.data import Dataset, as_floats
from fnn.layers import Params
from fnn.train.loop import shuffle

Weights = list[tuple[Any, Any]]


@dataclass(frozen=True)
class Problem:
    """Digits, a network with its initial parameters, and how it is trained: plainly, or with momentum.

    One-hot rows as y stand for sigmoids in all layers and ½‖a − y‖², labels for ReLU and softmax cross-entropy.
    """

    data: Dataset
    sizes: tuple[int, ...]
    batch: int
    rate: float
    alpha: float | None = None

    @property
    def squared(self) -> bool:
        return self.data.y.ndim == 2

    @property
    def loss(self) -> fnn.Loss:
        return fnn.SquaredError() if self.squared else fnn.SoftmaxCrossEntropy()

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        return fnn.updates.sgd(self.rate) if self.alpha is None else fnn.updates.momentum(self.rate, self.alpha)

    @cached_property
    def params(self) -> Params:
        hidden, output = (fnn.Sigmoid(), fnn.Sigmoid()) if self.squared else (fnn.ReLU(), fnn.Identity())
        initializer = fnn.initializers.glorot_normal if self.squared else fnn.initializers.he_normal
        return fnn.init(jax.random.key(0), self.sizes, activation=hidden, output=output, initializer=initializer)

    @property
    def weights(self) -> Weights:
        """Copies of the initial (W (out, in), b), layer by layer."""
        return [(np.array(layer.W), np.array(layer.b)) for layer in self.params]

    @cached_property
    def x(self) -> np.ndarray:
        """The images as float32, (N, 784): what a peer keeps that does not convert them as it goes."""
        return self.data.floats()

    @property
    def y(self) -> np.ndarray:
        return self.data.y

    def __str__(self) -> str:
        how = "sigmoid, squared error" if self.squared else "ReLU, softmax cross-entropy"
        rule = "SGD" if self.alpha is None else "momentum"
        return f"{'-'.join(map(str, self.sizes))}, {how}, batch {self.batch}, {rule}"


class Peer:
    """A way to train; ``same`` tells whether its mathematics is the problem's, and ``note`` what is particular."""

    same, note = True, ""

    def __init__(self, problem: Problem):
        self.problem = problem

    def shuffle(self, epoch: int) -> Any:
        """The rows of every mini-batch, (steps, batch); what does not fill one is left out, as ``fit`` does."""
        examples, batch = len(self.problem.data), self.problem.batch
        order = np.random.default_rng(epoch).permutation(examples)
        return order[: examples // batch * batch].reshape(-1, batch)

    def train(self, order: Any) -> None:
        """A step for each row of ``order``; returns when the parameters are there."""
        raise NotImplementedError

    def weights(self) -> Weights:
        """(W (out, in), b) of every layer, where it has arrived."""
        raise NotImplementedError


def mean_loss(weights, x, y, squared: bool):
    """As one writes it in JAX, W (in, out)."""
    a = x
    for number, (W, b) in enumerate(weights, 1):
        a = a @ W + b
        if squared:
            a = jax.nn.sigmoid(a)
        elif number < len(weights):
            a = jax.nn.relu(a)
    if squared:
        return 0.5 * jnp.mean(jnp.sum((a - y) ** 2, axis=1))
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(a, y))


def optax_step(gradient: Callable, optimizer, carry, x, y):
    weights, state = carry
    value, gradients = gradient(weights, x, y)
    steps, state = optimizer.update(gradients, state, weights)
    return (optax.apply_updates(weights, steps), state), value


class Jax(Peer):
    """What the peers in plain JAX share: (weights, optimizer state) as ``carry``."""

    optimizer: Any

    def __init__(self, problem: Problem):
        super().__init__(problem)
        gradient = jax.value_and_grad(partial(mean_loss, squared=problem.squared))
        self.optimizer = optax.sgd(problem.rate, momentum=problem.alpha)
        self.step = partial(optax_step, gradient, self.optimizer)
        self.start([(jnp.asarray(W.T), jnp.asarray(b)) for W, b in problem.weights])

    def start(self, weights: Weights) -> None:
        self.carry = jax.block_until_ready((weights, self.optimizer.init(weights)))

    def weights(self):
        return [(np.asarray(W).T, np.asarray(b)) for W, b in self.carry[0]]


class NaiveScan(Jax):
    """Float images on the device, W (in, out), ``jax.random.permutation``, and the epoch as one ``lax.scan``."""

    def __init__(self, problem: Problem):
        super().__init__(problem)
        x, y, step, examples = jnp.asarray(problem.x), jnp.asarray(problem.y), self.step, len(problem.data)
        steps = examples // problem.batch

        @jax.jit
        def permutation(key):
            return jax.random.permutation(key, examples)[: steps * problem.batch].reshape(steps, problem.batch)

        @jax.jit
        def epoch(carry, x, y, order):
            carry, values = jax.lax.scan(lambda carry, batch: step(carry, *batch), carry, (x[order], y[order]))
            return carry, jnp.mean(values)

        self.permutation, self.epoch = permutation, lambda carry, order: epoch(carry, x, y, order)

    def shuffle(self, epoch):
        return self.permutation(jax.random.key(epoch))

    def train(self, order):
        self.carry, value = self.epoch(self.carry, order)
        float(value)


class OurPipeline(Jax):
    """What ``fit`` does, bytes, host's order, W (out, in), optimizer and all, with the gradient by ``jax.grad``."""

    def __init__(self, problem: Problem):
        super().__init__(problem)

        def loss(weights, x, y):
            return mean_loss([(W.T, b) for W, b in weights], x, y, problem.squared)

        self.optimizer = problem.optimizer
        step = partial(optax_step, jax.value_and_grad(loss), problem.optimizer)
        self.start([(jnp.asarray(W), jnp.asarray(b)) for W, b in problem.weights])
        x, y = jnp.asarray(problem.data.x), jnp.asarray(problem.y)

        @partial(jax.jit, donate_argnums=0)
        def epoch(carry, x, y, order):
            def convert_and_step(carry, batch):
                return step(carry, as_floats(batch[0], jnp.dtype("float32"), problem.data.scale), batch[1])

            carry, values = jax.lax.scan(convert_and_step, carry, (x[order], y[order]))
            return carry, jnp.mean(values)

        self.epoch = lambda carry, order: epoch(carry, x, y, order)

    def shuffle(self, epoch):
        return shuffle(jax.random.key(0), epoch, len(self.problem.data), self.problem.batch)

    def train(self, order):
        self.carry, value = self.epoch(self.carry, order)
        float(value)

    def weights(self):
        return [(np.asarray(W), np.asarray(b)) for W, b in self.carry[0]]


class Products(Jax):
    """The same bytes and order, and of a step its matrix products, W moved by them, and ReLU as the cheapest σ."""

    same, note = False, "no loss, bias or momentum: what neither we nor a peer can save"

    def __init__(self, problem: Problem):
        super().__init__(problem)
        x, last = jnp.asarray(problem.data.x), len(problem.sizes) - 2

        def step(W, x):
            inputs = [as_floats(x, jnp.dtype("float32"), problem.data.scale)]
            for each in W:
                inputs.append(jax.nn.relu(inputs[-1] @ each.T))
            delta, moved = inputs[-1] + 1, list(W)
            for number in range(last, -1, -1):
                moved[number] = W[number] - 1e-9 * (delta.T @ inputs[number])
                if number:
                    delta = jnp.where(inputs[number] > 0, delta @ W[number], 0)
            return moved, None

        @partial(jax.jit, donate_argnums=0)
        def epoch(W, x, order):
            return jax.lax.scan(step, W, x[order])[0]

        self.carry = [jnp.asarray(W) for W, _ in problem.weights]
        self.epoch = lambda order: epoch(self.carry, x, order)

    def train(self, order):
        self.carry = jax.block_until_ready(self.epoch(order))


class JittedStep(Jax):
    """A jitted step, called from Python for every mini-batch of NumPy's."""

    def __init__(self, problem: Problem):
        super().__init__(problem)
        self.jitted = jax.jit(self.step, donate_argnums=0)

    def train(self, order):
        for rows in order:
            self.carry, _ = self.jitted(self.carry, self.problem.x[rows], self.problem.y[rows])
        jax.block_until_ready(self.carry)


class NumPy(Peer):
    """The same equations in NumPy, a mini-batch at a time, W (in, out)."""

    def __init__(self, problem: Problem):
        super().__init__(problem)
        self.W = [np.ascontiguousarray(W.T) for W, _ in problem.weights]
        self.b = [b for _, b in problem.weights]
        self.velocity = [np.zeros_like(leaf) for leaf in (*self.W, *self.b)]

    def weights(self):
        return [(W.T, b) for W, b in zip(self.W, self.b)]

    def train(self, order):
        for rows in order:
            self.step(self.problem.x[rows], self.problem.y[rows])

    def step(self, x, y):
        outputs = [x]
        for number, (W, b) in enumerate(zip(self.W, self.b), 1):
            z = outputs[-1] @ W + b
            if self.problem.squared:
                z = 1 / (1 + np.exp(-z))
            elif number < len(self.W):
                z = np.maximum(z, 0)
            outputs.append(z)
        delta = self.output_delta(outputs[-1], y) / np.float32(len(x))
        of_W: list[np.ndarray] = []
        of_b: list[np.ndarray] = []
        for W, a in zip(reversed(self.W), reversed(outputs[:-1])):
            of_W.insert(0, a.T @ delta)
            of_b.insert(0, delta.sum(axis=0))
            if a is not x:
                delta = (delta @ W.T) * (a * (1 - a) if self.problem.squared else a > 0)
        for leaf, velocity, gradient in zip((*self.W, *self.b), self.velocity, (*of_W, *of_b)):
            if self.problem.alpha is None:
                leaf -= self.problem.rate * gradient
            else:
                velocity *= self.problem.alpha
                velocity -= self.problem.rate * gradient
                leaf += velocity

    def output_delta(self, a, y):
        if self.problem.squared:
            return (a - y) * a * (1 - a)
        shares = np.exp(a - a.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        shares[np.arange(len(y)), y] -= 1
        return shares
