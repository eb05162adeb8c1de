"""Lopez Davila, *Neural networks: the backpropagation algorithm* (2020): the network, activations, losses."""

import math

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from experiments.equations.common import attempt, problem, relative, size
from experiments.equations.register import Finding, erratum, loose, row, true
from fnn.updates import descend, momentum


@row("fnn.layers.Dense")
def L1():
    """The weighted sum of one neuron, and the matrix form of a layer."""
    p = problem(batch=None)
    W, b, a = (np.asarray(value) for value in (p.params[0].W, p.params[0].b, p.x))
    right = np.array([float(b_i) + math.fsum(w_k * a_k for w_k, a_k in zip(w, a)) for w, b_i in zip(W, b)])
    printed = np.array([sum(w_k * a_k for w_k, a_k in zip(w, a)) + b_i for w, b_i in zip(W, b)])
    ours = relative(fnn.trace(p.params, p.x)[0].psi, right)
    by_column = np.random.default_rng(0).normal(size=len(a))  # b_0 … b_n
    depends = np.asarray(jax.jit(jax.jacobian(lambda W: W @ a + b))(W)).any(axis=2).astype(float)  # (neuron, row)
    sums = "sums, neuron by neuron"
    same = np.full(len(W), sum(w_k * a_k for w_k, a_k in zip(W[0], a)) + b[0])  # no i on the right: one sum for all i
    return (
        erratum(
            "z_i = w_1 a_1 + … + w_n a_n + b, for every i", relative(same, right),
            "z_i = w_i1 a_1 + … + w_in a_n + b_i", max(relative(printed, right), ours), against=sums,
            note="run with the first neuron's weights: every neuron would receive the same",
        ),
        erratum(
            "rows 0…k, columns 0…n, biases b_0…b_n", attempt(lambda: W @ a + by_column, right),
            "b_0…b_k", max(relative(W @ a + b, right), ours), against=sums,
            note=f"in 3-4-2: {len(right)} sums and {len(by_column)} biases",
        ),
        loose(
            "a row of the matrix: the weights of a hidden layer", relative(np.ones_like(depends), depends),
            "of a neuron", relative(np.eye(len(b)), depends), against="∂z_i/∂(row j) ≠ 0",
            note=f"on a row depend {depends.sum(axis=0).max():.0f} of {len(b)} neurons",
        ),
    )  # fmt: skip


def elementwise(activation: fnn.Activation, printed, x, smooth=None) -> float:
    """The package's activation against the printed one: values at x, derivatives at x or where it is ``smooth``."""

    @jax.jit
    def both(x, smooth):
        ours = activation.value(x), activation.derivative(smooth, activation.value(smooth))
        return ours, (printed(x), jax.vmap(jax.grad(printed))(smooth))

    return relative(*both(x, x if smooth is None else smooth))


def gaussian() -> Finding:
    """The printed bell with σ = 2, and the package's, integrated by the trapezoidal rule over ±12 σ."""
    mu, sigma = 0.5, 2.0
    right, x = fnn.Gaussian(mu, sigma), jnp.linspace(mu - 12 * sigma, mu + 12 * sigma, 401)

    def bell(x):
        return jnp.exp(-((x - mu) ** 2) / (2 * sigma**2))

    printed = float(np.trapezoid(bell(x) / math.sqrt(2 * math.pi * sigma), x))
    corrected = float(np.trapezoid(right.value(x), x))
    written = elementwise(right, lambda x: bell(x) / (sigma * math.sqrt(2 * math.pi)), x)
    return erratum(
        "Gaussian: 1/√(2πσ) e^{−(x−μ)²/2σ²}", abs(printed - 1), "1/(σ√(2π))", max(abs(corrected - 1), written),
        against="∫ = 1", note=f"σ = {sigma:g}: as printed ∫ = {printed:.3f}, which is √σ",
    )  # fmt: skip


@row(*(f"fnn.activations.{name}" for name in ("Sigmoid", "PiecewiseLinear", "Gaussian", "Threshold", "ReLU", "Tanh")))
def L2():
    """The table of activations."""
    x, beta = jnp.linspace(-4, 4, 33), 1.7  # −1, 0 and 1 among them
    bent, straight = fnn.PiecewiseLinear(1, 0, -1, 1), fnn.PiecewiseLinear.continuous(-1, 1)

    def ramp(f):
        return lambda x: jnp.where(x <= f.x_min, 0.0, jnp.where(x >= f.x_max, 1.0, f.m * x + f.b))

    def step(x):
        return jnp.where(x >= 0, 1.0, 0.0)

    def jump(f):
        """The larger jump of f at −1 and 1; rounding is none."""
        return round(max(abs(float(f.value(np.nextafter(at, 0)) - f.value(at))) for at in (-1.0, 1.0)), 12)

    pieces = max(elementwise(f, ramp(f), x) for f in (bent, straight))
    return (
        true("sigmoid: 1/(1 + e^{−βx})", elementwise(fnn.Sigmoid(beta), lambda x: 1 / (1 + jnp.exp(-beta * x)), x)),
        true(
            "piecewise linear: 0, mx + b, 1", pieces, note=f"from −1 to 1: with m, b = 1, 0 it jumps by "
            f"{jump(bent):g}; with m x_min + b = 0 and m x_max + b = 1 by {jump(straight):g}",
        ),
        gaussian(),
        true("threshold: 0 if 0 > x, 1 if x ≥ 0", elementwise(fnn.Threshold(), step, x)),
        true("ReLU: max(0, x)", elementwise(fnn.ReLU(), lambda x: jnp.maximum(0.0, x), x, smooth=x[x != 0])),
        true("tanh x", elementwise(fnn.Tanh(), jnp.tanh, x)),
    )  # fmt: skip


@row("fnn.activations.Identity")
def L3():
    """A composition of affine maps is affine, with its W and B."""
    p = problem(activation=fnn.Identity())
    (w1, b1), (w2, b2) = ((np.asarray(layer.W), np.asarray(layer.b)) for layer in p.params)
    W, B = w2 @ w1, w2 @ b1 + b2
    printed, ours = p.x @ W.T + B, fnn.forward(p.params, p.x)
    one_map = jax.jit(jax.vmap(jax.jacobian(lambda x: fnn.forward(p.params, x))))(p.x)
    at_zero = fnn.forward(p.params, jnp.zeros_like(p.x))[0]
    error = max(relative(printed, ours), relative(np.broadcast_to(W, one_map.shape), one_map), relative(B, at_zero))
    twice, halfway = (fnn.forward(p.params, x) for x in (2 * p.x, (p.x[:3] + p.x[3:]) / 2))
    return (
        true("z_2 = W a + B, W = w_2 w_1, B = w_2 b_1 + b_2", error),
        loose(
            "a composition of two linear functions is linear: f(2a) = 2 f(a)", relative(2 * ours, twice),
            "affine: f keeps averages", relative((ours[:3] + ours[3:]) / 2, halfway), against="fnn.forward",
            note=f"linear only where B = 0: here ‖f(0)‖ = {np.linalg.norm(at_zero):.2f}",
        ),
    )  # fmt: skip


@row("fnn.train.evaluate", "fnn.train.predict")
def L4():
    """The class is that of the output node with the highest activation."""
    p = problem(batch=64, seed=1)  # a share of 64 is exact in float32, the accuracy's
    labels = np.random.default_rng(0).integers(2, size=64)
    outputs = np.asarray(fnn.forward(p.params, p.x))
    printed = [max(range(2), key=lambda node: a[node]) for a in outputs]
    share = float(np.mean(printed == labels))
    data = fnn.data.Dataset(np.asarray(p.x), labels)
    accuracy = fnn.train.evaluate(p.params, data, loss=fnn.CrossEntropy())["accuracy"]
    chosen = fnn.train.predict(p.params, data).argmax(axis=1)
    wrong = float(np.mean(chosen != np.array(printed)))
    note = f"class 1 for {np.mean(chosen):.0%} of 64 examples; {share:.0%} of random labels hit"
    return true("the highest output node is the class", max(relative(accuracy, share), wrong), "node by node", note)


@row("fnn.losses.SquaredError")
def L5():
    """The cost that is called mean squared error."""
    p = problem()
    a, y = fnn.forward(p.params, p.x), p.y
    squares = (np.asarray(y) - np.asarray(a)).ravel() ** 2
    printed = sum(0.5 * square for square in squares)
    slope = jax.jit(jax.grad(lambda a: jnp.sum(0.5 * (y - a) ** 2)))(a)
    ours = max(relative(np.sum(p.loss.value(a, y)), printed), relative(p.loss.gradient(a, y), slope))
    mean = np.mean(squares)
    return (
        true("Σ 0.5 (y − ŷ)²", ours),
        loose(
            "MSE = Σ 0.5 (y − ŷ)², the mean squared error", relative(printed, mean), "half the sum of the squares",
            relative(printed, 0.5 * sum(squares)), against="the mean, the sum",
            note=f"{float(printed / mean):g} times the mean of {a.size} squares",
        ),
    )  # fmt: skip


@row("fnn.losses.CrossEntropy")
def L6():
    """The cross-entropy, printed without its sign and with y and ŷ in each other's place."""
    p, loss = problem(), fnn.CrossEntropy()
    a, soft = np.asarray(fnn.forward(p.params, p.x)), np.asarray(p.y)
    hard = (soft > 0.5).astype(float)

    def printed(a, y):
        return np.sum(a * np.log(y) + (1 - a) * np.log(1 - y))

    def corrected(a, y):
        return -np.sum(y * np.log(a) + (1 - y) * np.log(1 - a))

    likelihood = -math.log(np.prod(np.where(hard == 1, a, 1 - a)))
    slope = jax.jit(jax.grad(lambda a: -jnp.sum(jnp.log(jnp.where(hard == 1, a, 1 - a)))))(a)
    right = max(
        relative(corrected(a, hard), likelihood), relative(loss.value(a, hard).sum(), likelihood),
        relative(loss.gradient(a, hard), slope), relative(loss.value(a, soft).sum(), corrected(a, soft)),
    )  # fmt: skip
    with np.errstate(divide="ignore"):
        value = printed(a, hard)
    return erratum(
        "Σ ŷ log y + (1 − ŷ) log(1 − y)", relative(value, likelihood), "−Σ y log ŷ + (1 − y) log(1 − ŷ)", right,
        against="−log of the labels' probability",
        note=f"{value:g} on labels 0 and 1; on soft targets {printed(a, soft):.1f} for {corrected(a, soft):.1f}; with "
        f"ŷ the label and y the output the sign alone is wrong: off by {relative(printed(hard, a), likelihood):g}",
    )  # fmt: skip


@row("fnn.functions.forward")
def L12():
    """The activation of a neuron, and of a layer."""
    p = problem((3, 2), batch=None)
    W, b, a = (np.asarray(value) for value in (p.params[0].W, p.params[0].b, p.x))
    right = np.array([1 / (1 + math.exp(-math.fsum([*w * a, b_i]))) for w, b_i in zip(W, b)])
    layer = 1 / (1 + np.exp(-(W @ a + b)))
    neurons = np.array([1 / (1 + np.exp(-(sum(w_k * a_k for w_k, a_k in zip(w, a)) + b_i))) for w, b_i in zip(W, b)])
    ours = relative(fnn.forward(p.params, p.x), right)
    sums = "sums, neuron by neuron"
    return (
        erratum(
            "h_i = σ(w_1 a_1 + … + w_n a_n + b), for every i", relative(np.full_like(right, neurons[0]), right),
            "h_i = σ(w_i1 a_1 + … + w_in a_n + b_i)", max(relative(neurons, right), ours), against=sums,
            note="as z_i in L1",
        ),
        true("h = σ(W a + b)", max(relative(layer, right), ours), sums),
    )  # fmt: skip


@row("fnn.regression.least_squares", "experiments.linear_depth")
def L13():
    """Without an activation function the network behaves like a linear regression."""
    random, steps = np.random.default_rng(0), 1000
    x, y = jnp.asarray(random.normal(size=(40, 3))), jnp.asarray(random.normal(size=(40, 2)))
    A = jnp.asarray(np.column_stack([x, np.ones(40)]))
    best = A @ fnn.regression.least_squares(A, y)

    def fit(hidden, activation):
        """The outputs and the mean loss of a network 3-hidden-2 trained by gradient descent."""
        p = problem((3, hidden, 2), activation=activation, output=fnn.Identity())
        path = descend(lambda params: fnn.value_and_backprop(params, x, y), p.params, 0.1, steps, rule=momentum)
        trained = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[-1]), path.points)
        return fnn.forward(trained, x), float(path.values[-1])

    (linear, loss), (_, bent), (_, narrow) = fit(4, fnn.Identity()), fit(4, fnn.Tanh()), fit(1, fnn.Identity())
    note = f"loss {loss:.3f}; with tanh {bent:.3f}; without, but with one hidden neuron {narrow:.3f}"
    return true("without an activation: a linear regression", relative(linear, best), "least squares", note)


@row("fnn.functions.forward", "fnn.losses.SquaredError")
def L14():
    """Different weights give different outputs, and the loss tells how far they are from the best ones."""
    p = problem()
    hidden, last = p.params
    turned = (
        fnn.Dense(hidden.W[::-1], hidden.b[::-1], hidden.activation),
        fnn.Dense(last.W[:, ::-1], last.b, last.activation),
    )
    outputs, others = fnn.forward(p.params, p.x), fnn.forward(turned, p.x)
    moved = fnn.forward((fnn.Dense(hidden.W[::-1], hidden.b, hidden.activation), last), p.x)

    A, best = np.diag([1.0, 0.1]), np.array([1.0, -1.0])  # ½‖A(v − best)‖²: the best loss is 0
    near, far = best + np.array([0.1, 0.0]), best + np.array([0.0, 1.0])
    loss = [float(np.sum(fnn.SquaredError().value(A @ v, A @ best))) for v in (near, far)]
    distance = [float(np.linalg.norm(v - best)) for v in (near, far)]
    farther, squares = distance[1] / distance[0], [np.sum((A @ (v - best)) ** 2) / 2 for v in (near, far)]
    same, other = relative(others, outputs) <= 1e-12, relative(moved, outputs) > 1e-12
    return (
        loose(
            "different weights and biases will produce different output", float(same), "… may produce",
            float(not other), against="fnn.forward",
            note="the hidden neurons in another order: other W and b, and outputs off by "
            f"{size(relative(others, outputs))}; only the rows of W¹ in another order: {relative(moved, outputs):.2g}",
        ),
        loose(
            "the loss tells how far the weights are from the optimal ones", relative(loss[1] / loss[0], farther),
            "… how far the outputs are from the targets", relative(loss, squares),
            against="the ratio of two distances; ½‖output − target‖²",
            note=f"a linear model with one loss, {loss[0]:.3g}, at the distances {distance[0]:g} and {distance[1]:g}",
        ),
    )  # fmt: skip
