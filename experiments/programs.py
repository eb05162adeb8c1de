"""A small call of every public computation of fnn, by name: what must run on every kind of device.

``experiments.accelerator`` runs each on an accelerator and on the CPU, and compares; a test lowers each for GPUs and
TPUs. A name begins with that of the public function, and what comes after a colon tells the calls of one apart.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnn
from fnn import activations, curvature, implicit, losses, per_example, train, updates

KEY = jax.random.key
ROWS, INPUTS, OUTPUTS = 8, 5, 3
OF_LAYERS = (curvature.kfac_factors, per_example.gram, per_example.ntk)  # that take no graph


class Program(NamedTuple):
    """A call. traced: whether it may stand inside ``jax.jit``; others loop, or look at values, in Python."""

    call: Callable
    arguments: tuple = ()
    traced: bool = True

    def __call__(self):
        return self.call(*self.arguments)


def programs() -> dict[str, Program]:
    """All of them, with their arrays on JAX's default device."""
    groups = (_passes, _rules, _pieces, _curvature, _per_example, _implicit, _updates, _training, _whole_programs)
    return {name: program for group in groups for name, program in group()}


def networks() -> dict[str, Any]:
    """One of every kind."""
    graph = fnn.graph.Graph.layered((INPUTS, 4, OUTPUTS), fnn.Tanh(), fnn.Identity())
    init = partial(fnn.init, KEY(0), activation=fnn.Tanh())
    return {
        "layers": init((INPUTS, 4, OUTPUTS)),
        "a stack": init((INPUTS, 4, 4, 4, OUTPUTS), stack=True),
        "batch norm": init((INPUTS, 4, OUTPUTS), batch_norm="full"),
        "batch norm, fixed": init((INPUTS, 4, OUTPUTS), batch_norm="fixed"),
        "an activation per neuron": fnn.init(
            KEY(0), (INPUTS, 2, OUTPUTS), activation=fnn.PerNeuron((fnn.Sigmoid(2.0), fnn.ReLU()))
        ),
        "graph": graph.init(KEY(0)),
        "graph, batch norm": graph.init(KEY(0), batch_norm="full"),
    }


def data() -> tuple[jax.Array, jax.Array]:
    random = np.random.default_rng(0)
    x, y = (jnp.asarray(random.normal(size=(ROWS, n)), jnp.float32) for n in (INPUTS, OUTPUTS))
    return x, y


Named = Iterator[tuple[str, Program]]


def _passes() -> Named:
    x, y = data()
    for kind, params in networks().items():
        for name in ("forward", "trace"):
            yield f"{name}: {kind}", Program(getattr(fnn, name), (params, x))
        for name in ("deltas", "backprop", "value_and_backprop", "input_gradient", "pullback"):
            yield f"{name}: {kind}", Program(getattr(fnn, name), (params, x, y))
    for kind in ("layers", "graph"):
        params = networks()[kind]
        for dropout in (fnn.Dropout(0.5), fnn.DropConnect(0.5)):
            draw = partial(fnn.sample_masks, params, dropout, ROWS)
            yield f"sample_masks: {kind}, {dropout}", Program(lambda key, draw=draw: draw(key=key), (KEY(1),))
            masks = draw(key=KEY(1))
            masked = lambda params, x, y, masks: fnn.backprop(params, x, y, masks=masks)  # noqa: E731
            yield f"backprop: {kind}, {dropout}", Program(masked, (params, x, y, masks))
    labels = jnp.arange(ROWS, dtype=jnp.int32) % OUTPUTS
    of_labels = partial(fnn.backprop, loss=fnn.SoftmaxCrossEntropy())
    yield "backprop: integer labels", Program(of_labels, (networks()["layers"], x, labels))
    yield "init: layers", Program(lambda key: fnn.init(key, (INPUTS, 4, OUTPUTS)), (KEY(0),))


def _rules() -> Named:
    """Equations other than the usual ones: bfloat16, and a custom one."""
    x, y = data()
    custom = fnn.RULES._replace(hidden_delta=_hidden_delta)
    for kind in ("layers", "a stack", "graph"):
        for words, rules in (("bfloat16", fnn.BFLOAT16), ("a custom rule", custom)):
            if kind != "graph" or rules is custom:  # a graph has no matrix products to take in bfloat16
                function = partial(fnn.backprop, rules=rules)
                yield f"backprop: {kind}, {words}", Program(function, (networks()[kind], x, y))


def _hidden_delta(g, activation, z, a):
    return g * activation.derivative(z, a)


def _pieces() -> Named:
    """Every activation and every loss."""
    x, y = data()
    for activation in every_activation():
        yield f"{type(activation).__name__}: {activation}", Program(partial(_activation, activation), (y, y))
    for loss in every_loss():
        targets = jnp.abs(y) / jnp.sum(jnp.abs(y), axis=1, keepdims=True)
        yield f"{type(loss).__name__}: {loss}", Program(partial(_loss, loss), (y, targets))


def every_activation() -> list[activations.Activation]:
    """One of every public class."""
    given = {"PiecewiseLinear": (0.4, 0.1, -1.0, 1.0), "PerNeuron": ((fnn.Tanh(), fnn.ReLU(), fnn.Sigmoid()),)}
    return [of(*given.get(of.__name__, ())) for of in _classes(activations.Activation)]


def every_loss() -> list[losses.Loss]:
    """One of every public class."""
    return [of(*((fnn.SquaredError(),) if of is fnn.Weighted else ())) for of in _classes(losses.Loss)]


def _classes(base: type) -> list[type]:
    found = (getattr(fnn, name) for name in fnn.__all__)
    return [of for of in found if isinstance(of, type) and issubclass(of, base) and of is not base]


def _activation(activation, z, g):
    a = activation.value(z)
    found = {"value": a, "pullback": activation.pullback(g, z, a)}
    if not isinstance(activation, fnn.Softmax):
        found |= {"derivative": activation.derivative(z, a), "second": activation.second_derivative(z, a)}
    return found


def _loss(loss, z, y):
    output = fnn.Softmax() if isinstance(loss, fnn.CrossEntropy) else fnn.Identity()
    a = output.value(z)
    return loss.value(a, y), loss.gradient(a, y), loss.delta(output, z, a, y), loss.hessian(a, y, z)


def _curvature() -> Named:
    x, y = data()
    for kind in ("layers", "a stack", "batch norm", "graph"):
        params = networks()[kind]
        for product in (curvature.hvp, curvature.gauss_newton_vp):
            yield f"curvature.{product.__name__}: {kind}", Program(product, (params, x, y, params))
        if kind == "batch norm":
            continue
        for of_examples in (curvature.gauss_newton_diagonal, curvature.fisher_diagonal, curvature.kfac_factors):
            if kind != "graph" or of_examples not in OF_LAYERS:
                yield f"curvature.{of_examples.__name__}: {kind}", Program(of_examples, (params, x, y))

        def trace(params, x, y, key):
            return curvature.hessian_trace(params, x, y, key=key, samples=3)

        yield f"curvature.hessian_trace: {kind}", Program(trace, (params, x, y, KEY(2)))

    def drawn(params, x, key):
        return curvature.fisher_diagonal(params, x, loss=fnn.SoftmaxCrossEntropy(), key=key)

    yield "curvature.fisher_diagonal: drawn targets", Program(drawn, (networks()["layers"], x, KEY(2)))


def _per_example() -> Named:
    x, y = data()
    functions = (per_example.norms, per_example.gradients, per_example.moments, per_example.noise_scale)
    for kind in ("layers", "a stack", "batch norm, fixed", "graph"):
        params = networks()[kind]
        for function in (*functions, per_example.gram):
            if kind != "graph" or function not in OF_LAYERS:
                yield f"per_example.{function.__name__}: {kind}", Program(function, (params, x, y))
        yield f"per_example.clipped: {kind}", Program(partial(per_example.clipped, clip=1.0), (params, x, y))
        if kind != "graph":
            yield f"per_example.ntk: {kind}", Program(per_example.ntk, (params, x))

    def noisy(params, x, y, key):
        return per_example.clipped(params, x, y, 1.0, noise=1.0, key=key)

    yield "per_example.clipped: with noise", Program(noisy, (networks()["layers"], x, y, KEY(3)))


def _implicit() -> Named:
    x, y = data()
    one = (fnn.Dense(jnp.zeros((OUTPUTS, INPUTS)), jnp.zeros(OUTPUTS), fnn.Identity()),)
    layers, counts = networks()["layers"], jnp.abs(jnp.round(y))
    yield "implicit.linear", Program(implicit.linear, (one, x, y, 0.5))
    for loss in (fnn.SigmoidCrossEntropy(), fnn.SoftmaxCrossEntropy(), fnn.Poisson()):
        targets = counts if isinstance(loss, fnn.Poisson) else jnp.arange(ROWS, dtype=jnp.int32) % OUTPUTS
        function = partial(implicit.generalized_linear, loss=loss)
        yield f"implicit.generalized_linear: {loss}", Program(function, (one, x, targets, 0.5))
    yield "implicit.layerwise", Program(implicit.layerwise, (layers, x, y, 0.5))
    yield "implicit.step", Program(implicit.step, (layers, x, y, 0.5))
    yield "regression.least_squares", Program(fnn.regression.least_squares, (x, y))
    yield "regression.normal_equations", Program(fnn.regression.normal_equations, (x, y))


def optimizers() -> dict[str, optax.GradientTransformation]:
    """By the names of our rules; and some of optax's."""
    decayed = optax.chain(optax.add_decayed_weights(1e-3, mask=fnn.is_weight), updates.sgd(0.1))
    return {
        "updates.sgd": updates.sgd(0.1),
        "updates.momentum": updates.momentum(optax.cosine_decay_schedule(0.1, 100)),
        "updates.nesterov": updates.nesterov(0.1),
        "updates.clip_by_global_norm": optax.chain(updates.clip_by_global_norm(1.0), updates.sgd(0.1)),
        "updates.max_norm": optax.chain(updates.sgd(0.1), updates.max_norm(1.0)),
        "is_weight: decayed weights": decayed,
        "train.make_step: adam": optax.adam(1e-2),
        "train.make_step: adamw": optax.adamw(1e-2),
        "train.make_step: adafactor": optax.adafactor(1e-2),
    }


def _updates() -> Named:
    x, y = data()
    for name, optimizer in optimizers().items():
        for kind in ("layers", "a stack", "graph"):
            params, step = networks()[kind], train.make_step(optimizer)
            yield f"{name}{',' if ':' in name else ':'} {kind}", Program(step, (params, optimizer.init(params), x, y))
    descend = partial(updates.descend, _bowl, steps=3)
    yield "updates.descend", Program(lambda x0: descend(x0, 0.1), (jnp.ones(3),))


def _bowl(x):
    return jnp.sum(x * x), 2 * x


def _training() -> Named:
    """``fit`` in each of its forms, and what trains, evaluates or predicts beside it."""
    nets, sgd = networks(), updates.sgd(0.1)
    x, y = map(np.asarray, data())
    labels = np.arange(ROWS, dtype=np.int32) % OUTPUTS
    fit = partial(train.fit, epochs=2, batch_size=4, key=KEY(4), progress=False)
    cases: dict[str, dict] = {
        "layers": {}, "held-out data, the best kept": {"validation": (x, y), "keep": "best"},
        "dropout": {"dropout": fnn.Dropout(0.5)}, "DropConnect": {"dropout": fnn.DropConnect(0.5)},
        "bfloat16": {"precision": "bfloat16"}, "a mesh": {"mesh": fnn.parallel.data_mesh(jax.local_devices()[:1])},
        "batch norm": {}, "a stack": {}, "graph": {}, "graph, batch norm": {},
    }  # fmt: skip
    for name, options in cases.items():
        call = partial(fit, nets.get(name, nets["layers"]), (x, y), sgd, **options)
        yield f"train.fit: {name}", Program(lambda call=call: call().params, traced=False)
    images = fnn.data.Dataset((255 * np.abs(np.tanh(x))).astype(np.uint8), labels)
    call = partial(fit, nets["layers"], images, optax.adam(1e-2), loss=fnn.SoftmaxCrossEntropy())
    yield "train.fit: bytes and labels", Program(lambda: call(validation=images).params, traced=False)
    streamed = fnn.data.Batches(lambda epoch: [(x[:4], y[:4]), (x[4:], y[4:])], identity="x and y")
    yield "train.fit: Batches", Program(lambda: fit(nets["layers"], streamed, sgd).params, traced=False)
    weighted = partial(fit, nets["layers"], (x, y, np.ones(ROWS, np.float32)), sgd)
    yield "train.fit: weights", Program(lambda: weighted().params, traced=False)


def _whole_programs() -> Named:
    nets, (x, y) = networks(), map(np.asarray, data())
    keys = jax.random.split(KEY(5), 2)
    members = jax.vmap(lambda key: fnn.init(key, (INPUTS, 4, OUTPUTS), batch_norm="full"))(keys)
    many = partial(train.fit_many, members, (x, y), updates.sgd(0.1), epochs=1, batch_size=4, validation=(x, y),
                   progress=False)  # fmt: skip

    def together(**options):
        return [run.params for run in many(keys=jax.random.split(KEY(6), 2), **options)]

    yield "train.fit_many: batch norm", Program(together, traced=False)
    mesh = fnn.parallel.data_mesh(jax.local_devices()[:1])
    yield "train.fit_many: a mesh", Program(lambda: together(mesh=mesh), traced=False)
    for kind in ("layers", "graph"):
        yield f"train.predict: {kind}", Program(lambda kind=kind: train.predict(nets[kind], x), traced=False)
        score = lambda kind=kind: train.evaluate(nets[kind], (x, y))["loss"]  # noqa: E731
        yield f"train.evaluate: {kind}", Program(score, traced=False)
    for kind in ("batch norm", "graph, batch norm"):
        measured = lambda kind=kind: fnn.statistics(nets[kind], [x])  # noqa: E731
        yield f"statistics: {kind}", Program(measured, traced=False)
        folded = lambda kind=kind: fnn.fold(nets[kind], statistics=fnn.statistics(nets[kind], [x]))  # noqa: E731
        yield f"fold: {kind}", Program(folded, traced=False)
    yield "stack", Program(lambda: fnn.stack(fnn.unstack(nets["a stack"])), traced=False)
    yield "unstack", Program(lambda: fnn.unstack(nets["a stack"]), traced=False)
