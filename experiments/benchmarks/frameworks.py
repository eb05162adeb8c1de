"""Peers of ``experiments.benchmarks.epochs`` written with other libraries, each as its own documentation writes them.

A library is imported when its peer is made: ImportError where it is not installed.
"""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.peers import Peer, Problem

WORTH_SHARING = 100_000  # weights of a layer, for PyTorch's threads


def jax_loss(a, y, squared: bool):
    """The mean over a mini-batch, of outputs or logits."""
    if squared:
        return 0.5 * jnp.mean(jnp.sum((a - y) ** 2, axis=1))
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(a, y))


def jax_outputs(layers, x, squared: bool):
    for layer in layers[:-1]:
        x = jax.nn.sigmoid(layer(x)) if squared else jax.nn.relu(layer(x))
    return jax.nn.sigmoid(layers[-1](x)) if squared else layers[-1](x)


class Equinox(Peer):
    """Layers of ``eqx.nn.Linear``, vmap over the examples, and ``make_step`` under ``eqx.filter_jit``."""

    def __init__(self, problem: Problem):
        import equinox as eqx

        super().__init__(problem)
        optimizer = optax.sgd(problem.rate, momentum=problem.alpha)

        class Network(eqx.Module):
            layers: list

            def __call__(self, x):
                return jax_outputs(self.layers, x, problem.squared)

        def layer(W, b):
            empty = eqx.nn.Linear(W.shape[1], W.shape[0], key=jax.random.key(0))
            return eqx.tree_at(lambda of: (of.weight, of.bias), empty, (jnp.asarray(W), jnp.asarray(b)))

        @eqx.filter_value_and_grad
        def gradient(model, x, y):
            return jax_loss(jax.vmap(model)(x), y, problem.squared)

        @eqx.filter_jit
        def make_step(model, state, x, y):
            value, gradients = gradient(model, x, y)
            updates, state = optimizer.update(gradients, state, eqx.filter(model, eqx.is_array))
            return eqx.apply_updates(model, updates), state, value

        self.make_step, self.model = make_step, Network([layer(W, b) for W, b in problem.weights])
        self.state = optimizer.init(eqx.filter(self.model, eqx.is_array))

    def train(self, order):
        for rows in order:
            self.model, self.state, _ = self.make_step(
                self.model, self.state, self.problem.x[rows], self.problem.y[rows]
            )
        jax.block_until_ready(self.weights())

    def weights(self):
        return [(layer.weight, layer.bias) for layer in self.model.layers]


class Flax(Peer):
    """``flax.nnx``: a module, an ``nnx.Optimizer``, and ``train_step`` under ``nnx.jit``."""

    def __init__(self, problem: Problem):
        from flax import nnx

        super().__init__(problem)

        class Network(nnx.Module):
            def __init__(self):
                self.layers = nnx.List(
                    [nnx.Linear(m, n, rngs=nnx.Rngs(0)) for m, n in zip(problem.sizes, problem.sizes[1:])]
                )

            def __call__(self, x):
                return jax_outputs(self.layers, x, problem.squared)

        @nnx.jit
        def train_step(model, optimizer, x, y):
            value, gradients = nnx.value_and_grad(lambda model: jax_loss(model(x), y, problem.squared))(model)
            optimizer.update(model, gradients)
            return value

        self.model, self.train_step = Network(), train_step
        for layer, (W, b) in zip(self.model.layers, problem.weights):
            layer.kernel[...], layer.bias[...] = jnp.asarray(W.T), jnp.asarray(b)
        self.optimizer = nnx.Optimizer(self.model, optax.sgd(problem.rate, momentum=problem.alpha), wrt=nnx.Param)

    def train(self, order):
        for rows in order:
            self.train_step(self.model, self.optimizer, self.problem.x[rows], self.problem.y[rows])
        jax.block_until_ready(self.weights())

    def weights(self):
        return [(layer.kernel[...].T, layer.bias[...]) for layer in self.model.layers]


def torch_device(torch) -> str:
    """Where JAX computes; RuntimeError if PyTorch cannot compute there."""
    if jax.default_backend() != "gpu":
        return "cpu"
    if not torch.cuda.is_available():
        raise RuntimeError("PyTorch is installed without CUDA")
    return "cuda"


class Torch(Peer):
    """``nn.Sequential`` and ``optim.SGD``, eager, with the data on the device.

    On as many threads as there are cores, as all others; but on one where every product is small, which is faster
    there: 784-30-10 at batch 10 takes 1.3 times as long on two, and far longer where the cores have other work too.
    """

    def __init__(self, problem: Problem):
        import torch

        super().__init__(problem)
        threads = (os.cpu_count() or 1) if max(W.size for W, _ in problem.weights) > WORTH_SHARING else 1
        torch.set_num_threads(threads)
        device = torch_device(torch)
        self.note = "" if device == "cuda" else f"{threads} threads" if threads > 1 else "1 thread, its fastest here"
        layers: list = []
        for W, b in problem.weights:
            linear = torch.nn.Linear(W.shape[1], W.shape[0])
            linear.load_state_dict({"weight": torch.from_numpy(W), "bias": torch.from_numpy(b)})
            layers += [linear, torch.nn.Sigmoid() if problem.squared else torch.nn.ReLU()]
        model = torch.nn.Sequential(*(layers if problem.squared else layers[:-1])).to(device)

        def loss(x, y):
            if problem.squared:
                return 0.5 * ((model(x) - y) ** 2).sum(dim=1).mean()
            return torch.nn.functional.cross_entropy(model(x), y)

        self.model, self.loss, self.permutation = model, loss, torch.randperm
        self.optimizer = torch.optim.SGD(model.parameters(), lr=problem.rate, momentum=problem.alpha or 0.0)
        self.x = torch.from_numpy(problem.x).to(device)
        self.y = torch.from_numpy(problem.y if problem.squared else problem.y.astype(np.int64)).to(device)
        self.rows = lambda order: torch.as_tensor(order).to(device)
        self.finish = torch.cuda.synchronize if device == "cuda" else lambda: None

    def shuffle(self, epoch):
        batch = self.problem.batch
        return self.permutation(len(self.x))[: len(self.x) // batch * batch].reshape(-1, batch)

    def train(self, order):
        for rows in self.rows(order):
            self.optimizer.zero_grad()
            self.loss(self.x[rows], self.y[rows]).backward()
            self.optimizer.step()
        self.finish()

    def weights(self):
        return [(layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()) for layer in self.model[::2]]


class TorchCompile(Torch):
    """The same with the network and its loss, forwards and backwards, by ``torch.compile``."""

    def __init__(self, problem: Problem):
        import torch

        super().__init__(problem)
        self.eager = self.loss
        self.loss = torch.compile(self.eager)


class TorchFastest(TorchCompile):
    """The same by ``torch.compile`` with its kernels tuned for the sizes, and one fused kernel for the step."""

    def __init__(self, problem: Problem):
        import torch

        super().__init__(problem)
        modes = {"cpu": "max-autotune-no-cudagraphs", "cuda": "max-autotune"}
        self.loss = torch.compile(self.eager, mode=modes[torch_device(torch)])
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=problem.rate, momentum=problem.alpha or 0.0, fused=True
        )


class MLX(Peer):
    """``mlx.nn`` on the CPU: a module, an optimizer, and the step under ``mx.compile``."""

    def __init__(self, problem: Problem):
        import mlx.core as mx
        import mlx.nn as nn
        import mlx.optimizers as optimizers

        super().__init__(problem)
        if jax.default_backend() != "cpu":
            raise RuntimeError("MLX computes on the CPU here")
        mx.set_default_device(mx.cpu)

        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = [nn.Linear(m, n) for m, n in zip(problem.sizes, problem.sizes[1:])]

            def __call__(self, x):
                act = mx.sigmoid if problem.squared else nn.relu
                for layer in self.layers[:-1]:
                    x = act(layer(x))
                return mx.sigmoid(self.layers[-1](x)) if problem.squared else self.layers[-1](x)

        self.x, self.y = mx.array(problem.x), mx.array(problem.y)
        self.model, self.evaluate = Network(), mx.eval
        for layer, (W, b) in zip(self.model.layers, problem.weights):
            layer.weight, layer.bias = mx.array(W), mx.array(b)
        optimizer = optimizers.SGD(learning_rate=problem.rate, momentum=problem.alpha or 0.0)
        optimizer.init(self.model.trainable_parameters())
        gradient = nn.value_and_grad(self.model, self.loss)
        self.state = [self.model.state, optimizer.state]

        @partial(mx.compile, inputs=self.state, outputs=self.state)
        def step(x, y):
            value, gradients = gradient(self.model, x, y)
            optimizer.update(self.model, gradients)
            return value

        self.step, self.index = step, mx.array

    def loss(self, model, x, y):
        import mlx.core as mx
        import mlx.nn as nn

        if self.problem.squared:
            return 0.5 * mx.mean(mx.sum(mx.square(model(x) - y), axis=1))
        return nn.losses.cross_entropy(model(x), y, reduction="mean")

    def train(self, order):
        for rows in map(self.index, np.asarray(order)):
            self.step(self.x[rows], self.y[rows])
            self.evaluate(self.state)

    def weights(self):
        return [(np.array(layer.weight), np.array(layer.bias)) for layer in self.model.layers]


class ScikitLearn(Peer):
    """``MLPClassifier.partial_fit`` with the epoch's examples in their shuffled order."""

    def __init__(self, problem: Problem):
        from sklearn.neural_network import MLPClassifier

        super().__init__(problem)
        if problem.squared:
            self.same, self.note = False, "softmax cross-entropy: it has no squared error behind a sigmoid"
        self.labels = problem.y.argmax(axis=1) if problem.squared else problem.y
        self.model = MLPClassifier(
            problem.sizes[1:-1], activation="logistic" if problem.squared else "relu", solver="sgd", alpha=0.0,
            batch_size=problem.batch, learning_rate_init=problem.rate, momentum=problem.alpha or 0.0,
            nesterovs_momentum=False, shuffle=False,
        )  # fmt: skip
        self.partial_fit(np.arange(problem.batch))  # makes the arrays, whose values are then ours
        for W, b, (ours, bias) in zip(self.model.coefs_, self.model.intercepts_, problem.weights):
            W[...], b[...] = ours.T, bias
        for velocity in self.model._optimizer.velocities:
            velocity[...] = 0

    def partial_fit(self, rows):
        self.model.partial_fit(self.problem.x[rows], self.labels[rows], classes=np.arange(self.problem.sizes[-1]))

    def train(self, order):
        self.partial_fit(order.ravel())

    def weights(self):
        return [(W.T, b) for W, b in zip(self.model.coefs_, self.model.intercepts_)]
