"""Lopez Davila, *Neural networks: the backpropagation algorithm* (2020)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import fnn
from experiments.equations.common import attempt, oracle, problem, relative
from experiments.equations.register import Finding, erratum, row, true
from fnn.updates import descend, momentum, sgd

SQUARED = fnn.SquaredError(1)  # (a − y)²
ULPS = 8  # of the largest entry of an array: how near two orders of the same sums come


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
    return (
        true("z = w_1 a_1 + … + w_n a_n + b", max(relative(printed, right), ours), sums),
        erratum(
            "rows 0…k, columns 0…n, biases b_0…b_n", attempt(lambda: W @ a + by_column, right),
            "b_0…b_k", max(relative(W @ a + b, right), ours), against=sums,
            note=f"in 3-4-2: {len(right)} sums and {len(by_column)} biases",
        ),
        erratum(
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
    note = f"affine, and linear only where B = 0: here ‖f(0)‖ = {np.linalg.norm(at_zero):.2f}"
    return true("z_2 = W a + B, W = w_2 w_1, B = w_2 b_1 + b_2", error, note=note)


@row("fnn.train.evaluate", "fnn.train.predict")
def L4():
    """The class is that of the output node with the highest activation."""
    p = problem(batch=64, seed=1)  # a share of 64 is exact in float32, the accuracy's
    labels = np.random.default_rng(0).integers(2, size=64)
    outputs = np.asarray(fnn.forward(p.params, p.x))
    printed = [max(range(2), key=lambda node: a[node]) for a in outputs]
    share = float(np.mean(printed == labels))
    data = fnn.data.Dataset(np.asarray(p.x), labels)
    accuracy = fnn.train.evaluate(p.params, data, loss=fnn.SoftmaxCrossEntropy())["accuracy"]
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
    times = float(printed / np.mean(squares))
    return true("MSE = Σ 0.5 (y − ŷ)²", ours, note=f"a sum: {times:g} times the mean of {a.size} squares")


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
        note=f"{value:g} on labels 0 and 1; on soft targets {printed(a, soft):.1f} for {corrected(a, soft):.1f}",
    )  # fmt: skip


@row("fnn.functions.backprop")
def L7():
    """The gradient of a data set is the average of its examples', and why."""
    p = problem()
    right = jax.tree.map(lambda leaf: np.asarray(leaf) / len(p.x), oracle(p).gradients)
    single = [fnn.backprop(p.params, x, y, loss=p.loss) for x, y in zip(np.asarray(p.x), np.asarray(p.y))]
    printed = jax.tree.map(lambda *leaves: np.sum(leaves, axis=0) / len(leaves), *single)
    ours, summed = (fnn.backprop(p.params, p.x, p.y, loss=p.loss, reduction=r) for r in ("mean", "sum"))
    error = max(relative(printed, right), relative(ours, right))
    weights = [layer.W for layer in right]
    over_weights = [np.full_like(W, W.mean()) for W in weights]
    times = float(np.linalg.norm(summed[-1].W) / np.linalg.norm(ours[-1].W))
    return (
        true("∂C/∂w^L = (1/n) Σ_k ∂C_k/∂w^L, and so for b", error, note=f"the sum's (S3) is {times:g} times that"),
        erratum(
            "the average accounts for every weight of the layer", relative(over_weights, weights),
            "for every example", error, note="read as: the layer's mean in place of each weight's derivative",
        ),
    )  # fmt: skip


@row("fnn.losses.SquaredError", "fnn.backward.input_gradient")
def L8():
    """One neuron per layer: the chains for w^L, b^L and a^{L−1}, with C = (a^L − y)²."""
    p = problem((1, 1, 1), batch=None, loss=SQUARED)
    right, (before, last), layer = oracle(p), fnn.trace(p.params, p.x), p.params[1]
    w, a_L, off = (np.asarray(value) for value in (layer.W[0], last.a, last.a - p.y))
    slope = a_L * (1 - a_L)
    by_a = np.asarray(jax.jit(jax.grad(lambda a: jnp.sum((a - p.y) ** 2)))(a_L))
    by_z = np.asarray(jax.jit(jax.grad(lambda z: jnp.sum(layer.activation.value(z))))(last.z))
    factors = max(relative(2 * off, by_a), relative(slope, by_z), relative(SQUARED.gradient(last.a, p.y), by_a))

    weight, bias, a = right.gradients[1].W[0], right.gradients[1].b, right.by_a[0]
    ours = fnn.backprop(p.params, p.x, p.y, loss=SQUARED)[1]
    ours_a = fnn.backward.input_gradient(right.deltas[1][None], layer.W)[0]
    twice = w * slope * np.asarray(right.deltas[1])
    by_weight = max(relative(np.asarray(before.a) * slope * 2 * off, weight), relative(ours.W[0], weight), factors)
    by_bias = max(relative(slope * 2 * off, bias), relative(ours.b, bias))
    by_input = max(relative(w * slope * 2 * off, a), relative(ours_a, a))
    return (
        true("∂C/∂w^L = a^{L−1} σ'(z^L) 2(a^L − y)", by_weight),
        true("∂C/∂b^L = σ'(z^L) 2(a^L − y)", by_bias),
        true("∂C/∂a^{L−1} = w^L σ'(z^L) 2(a^L − y)", by_input),
        erratum(
            "∂C/∂a^{L−1} = ∂z^L/∂a^{L−1} · ∂a^L/∂z^L · ∂C/∂z^L", relative(twice, a), "∂C/∂a^L",
            relative(w * by_z * by_a, a), note=f"σ' stands in it twice, and σ'(z^L) = {float(twice[0] / a[0]):.3f}",
        ),
    )  # fmt: skip


@row("fnn.functions.backprop")
def L9():
    """The gradient as one stacked vector."""
    p = problem()
    flat, unravel = ravel_pytree(p.params)
    right = jax.jit(jax.grad(lambda v: jnp.mean(p.loss.value(fnn.forward(unravel(v), p.x), p.y))))(flat)
    gradients = fnn.backprop(p.params, p.x, p.y, loss=p.loss)
    printed = np.concatenate([np.ravel(part) for layer in gradients for part in (layer.W, layer.b)])
    error = max(relative(printed, right), relative(ravel_pytree(gradients)[0], right))
    return true("∇C = (∂C/∂w¹, ∂C/∂b¹, …, ∂C/∂w^L, ∂C/∂b^L)", error, note=f"{len(printed)} entries for 3-4-2")


def ulps(ours, theirs) -> float:
    """The largest difference of an entry, in units in the last place of its array's largest entry."""
    pairs = zip(map(np.asarray, jax.tree.leaves(ours)), map(np.asarray, jax.tree.leaves(theirs)))
    return max(float(np.abs(a - b).max() / np.spacing(np.abs(b).max())) for a, b in pairs)


@row("fnn.functions.backprop", "fnn.functions.deltas")
def L10():
    """Back-propagation is reverse-mode automatic differentiation."""
    problems = [
        problem((4, 4, 4, 4), activation=activation, output=fnn.Identity(), seed=seed)
        for activation in (fnn.Sigmoid(), fnn.Tanh(), fnn.ReLU()) for seed in range(3)
    ]  # fmt: skip
    pairs = []
    for p in problems:
        gradients = fnn.backprop(p.params, p.x, p.y, loss=p.loss, reduction="sum")
        right = oracle(p)
        pairs.append(((gradients, fnn.deltas(p.params, p.x, p.y, loss=p.loss)), (right.gradients, right.deltas)))
    worst = max(ulps(*pair) for pair in pairs)
    said = f"at most {ULPS}" if worst <= ULPS else f"{worst:.0f}"
    note = f"gradients and δ's of {len(problems)} networks: {said} ulps of each array's largest entry"
    return true("back-propagation is reverse-mode differentiation", max(relative(*pair) for pair in pairs), note=note)


@row("fnn.updates.sgd")
def L11():
    """The direction in which C decreases most quickly."""
    p, length = problem(), 0.1
    flat, unravel = ravel_pytree(p.params)

    @jax.jit
    def cost(v):
        return jnp.mean(p.loss.value(fnn.forward(unravel(v), p.x), p.y))

    @jax.jit
    def slope_along(direction):
        return jax.jvp(cost, (flat,), (direction / jnp.linalg.norm(direction),))[1]

    gradient = ravel_pytree(fnn.backprop(p.params, p.x, p.y, loss=p.loss))[0]
    size = jnp.linalg.norm(gradient)
    step, _ = sgd(length).update(gradient, sgd(length).init(flat))
    drawn = jax.vmap(slope_along)(jnp.asarray(np.random.default_rng(0).normal(size=(1000, len(flat)))))
    rise = float(cost(flat + length * gradient / size) / cost(flat) - 1)
    return erratum(
        "∇C: the direction in which C decreases most quickly", relative(slope_along(gradient), -size),
        "−∇C", max(relative(slope_along(-gradient), -size), relative(slope_along(step), -size)),
        against="steepest slope −‖∇C‖", note=f"a step of {length} along ∇C raises C by {rise:.1%}; "
        f"the steepest of {len(drawn)} random directions has {float(-drawn.min() / size):.2f} of that slope",
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
        true("h_i = σ(w_1 a_1 + … + w_n a_n + b)", max(relative(neurons, right), ours), sums),
        true("h = σ(W a + b)", max(relative(layer, right), ours), sums),
    )


@row("fnn.regression.least_squares")
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
