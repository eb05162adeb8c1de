"""Hedges, *A brief introduction to neural networks and back propagation* (talk, 2022): descent and the network."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnn
from experiments.descent import square
from experiments.equations.common import attempt, problem, relative, size
from experiments.equations.register import erratum, loose, row, true
from fnn.regression import normal_equations
from fnn.updates import descend, sgd

SQUARED = fnn.SquaredError(1)  # the talk's cost, ‖y − a‖²


@jax.jit
@jax.grad
def by_autodiff(params, x, y):
    """The gradient of the mean cost."""
    return jnp.mean(SQUARED.value(fnn.forward(params, x), y))


def next_guess(x0: float, epsilon: float) -> float:
    """The printed step, its second case corrected."""
    slope = float(square(x0)[1])
    if slope > 0:
        return x0 - epsilon
    if slope < 0:
        return x0 + epsilon
    raise ValueError("nothing is printed for f'(x₀) = 0")


def sign_of_slope(x):
    """x² and the sign of its derivative: descent on it takes steps of one length."""
    value, slope = square(x)
    return value, jnp.sign(slope)


@row("fnn.updates.descend")
def H1():
    """One-dimensional descent by the sign of f', with a fixed step ε, on f(x) = x²."""

    def change(x0, step):
        """(f(x₀ + step) − f(x₀)) / f(x₀)."""
        return float(square(x0 + step)[0] / square(x0)[0] - 1)

    epsilon, x = 0.3, [1.0]
    for _ in range(20):
        x.append(x[-1] - epsilon if square(x[-1])[1] > 0 else x[-1] + epsilon)
    ours = relative(descend(sign_of_slope, 1.0, epsilon, 20).points, np.array(x))
    parts = np.arange(1, 100) / 100  # of 2x₀, which leads to −x₀, where f is the same again
    small = max(0.0, *(change(x0, -2 * x0 * part) for x0 in (0.1, 1.0, 10.0) for part in parts))
    fact = "f(x₁) < f(x₀): relative increase of x²"
    return (
        erratum(
            "if f'(x₀) > 0, x₁ = x₀ + ε (the second case)", change(1.0, epsilon), "if f'(x₀) < 0, x₁ = x₀ + ε",
            max(0.0, change(-1.0, epsilon), ours), against=fact, note=f"x₀ = 1, corrected −1; ε = {epsilon}",
        ),
        erratum(
            "if f'(x₀) > 0, x₁ = x₀ − ε has f(x₁) < f(x₀)", change(1.0, -3.0), "for ε < 2x₀", small, against=fact,
            note=f"x₀ = 1, ε = 3; with ε = {epsilon} x ends swinging between {min(x[-2:]):.1f} and {max(x[-2:]):.1f}",
        ),
        erratum(
            "x₁ from x₀ = 0, where f'(x₀) = 0", attempt(lambda: np.array(next_guess(0.0, epsilon)), np.array(1.0)),
            "… if f'(x₀) = 0, x₁ = x₀", abs(float(descend(sign_of_slope, 0.0, epsilon, 1).points[-1])),
            against="the minimum of x²", note="neither case is that of the minimum itself: no x₁",
        ),
    )  # fmt: skip


@row("experiments.descent.square")
def H2():
    """f(x) = x², the toy problem."""
    x = np.linspace(-2, 2, 9)
    value, slope = square(x)
    right = jax.jit(jax.vmap(jax.grad(lambda x: x**2)))(x)
    path = descend(square, 1.0, 0.25, 20).points  # each step halves x: x_n = (1 − 2ε)ⁿ x_0
    error = max(relative(value, x**2), relative(slope, right), relative(path, 0.5 ** np.arange(21)))
    return true("f(x) = x²", error, note=f"20 steps of H3 with ε = 0.25 from 1 to {path[-1]:.1e}")


@row("fnn.updates.descend", "fnn.updates.sgd")
def H3():
    """Gradient descent, and its form for a single weight."""
    p, epsilon, steps = problem(loss=SQUARED), 0.3, 5
    printed_step = jax.jit(lambda x: jax.tree.map(lambda v, g: v - epsilon * g, x, by_autodiff(x, p.x, p.y)))
    x = [p.params]
    for _ in range(steps):
        x.append(printed_step(x[-1]))
    path = descend(lambda params: fnn.value_and_backprop(params, p.x, p.y, loss=SQUARED), x[0], epsilon, steps)
    ours = jax.tree.map(lambda points: np.asarray(points)[-1], path.points)

    W, right = p.params[0].W, x[1][0].W
    step, _ = sgd(epsilon).update(fnn.backprop(p.params, p.x, p.y, loss=SQUARED)[0].W, sgd(epsilon).init(W))
    stepped, printed = optax.apply_updates(W, step), np.array(W)
    gradient = np.asarray(by_autodiff(p.params, p.x, p.y)[0].W)
    for j, k in np.ndindex(printed.shape):
        printed[j, k] += -epsilon * gradient[j, k]
    note = f"C of 3-4-2 from {path.values[0]:.2f} to {path.values[-1]:.2f} in {steps} steps of ε = {epsilon}"
    return (
        true("x_{n+1} = x_n − ε ∇C(x_n)", relative(ours, x[-1]), note=note),
        true("w_jk += −ε ∂C/∂w_jk", max(relative(printed, right), relative(stepped, right))),
    )


@row("fnn.regression.normal_equations", "fnn.regression.least_squares")
def H4():
    """Linear regression in closed form, and what it needs."""
    random = np.random.default_rng(0)
    A, y = jnp.asarray(random.normal(size=(3, 2))), jnp.asarray(random.normal(size=3))
    right = np.linalg.lstsq(A, y)[0]
    printed = np.linalg.inv(A.T @ A) @ A.T @ y
    ours = [relative(solve(A, y), right) for solve in (normal_equations, fnn.regression.least_squares)]
    # whole numbers: AᵀA is singular exactly, and not up to rounding
    twice, target = jnp.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]), jnp.array([1.0, 0.0, 2.0])
    v = fnn.regression.least_squares(twice, target)
    off = attempt(lambda: np.linalg.inv(twice.T @ twice) @ twice.T @ target, v)
    note = (
        f"needs full column rank: with a column twice another, off by {off:g}, because AᵀA has no inverse; "
        f"least_squares is {size(relative(v, np.linalg.pinv(twice) @ target))} from A⁺y, the shortest of the minimisers"
    )
    return true("v = (AᵀA)⁻¹ Aᵀ y", max(relative(printed, right), *ours), "NumPy's lstsq", note)


@row("fnn.network.affine", "fnn.network.layer_forward")
def H5():
    """One layer: the weighted input and its activation."""
    p = problem(batch=None)
    printed, right, a, by_neuron = [], [], np.asarray(p.x), list(map(float, p.x))
    for layer in p.params:
        z = np.asarray(layer.W) @ a + np.asarray(layer.b)
        a = 1 / (1 + np.exp(-z))
        printed += [z, a]
        sums = [float(b) + math.fsum(float(w) * a_k for w, a_k in zip(W, by_neuron)) for W, b in zip(layer.W, layer.b)]
        by_neuron = [1 / (1 + math.exp(-z_j)) for z_j in sums]
        right += [np.array(sums), np.array(by_neuron)]
    ours = [value for t in fnn.trace(p.params, p.x) for value in (t.z, t.a)]
    error = max(relative(printed, right), relative(ours, right), relative(fnn.forward(p.params, p.x), right[-1]))
    return true("z^ℓ = W^ℓ a^{ℓ−1} + b^ℓ, a^ℓ = σ(z^ℓ)", error, "sums, neuron by neuron")


@row("fnn.layers.Dense")
def H6():
    """W^ℓ_ij connects neuron i of layer ℓ−1 to neuron j of layer ℓ."""
    p = problem((3, 3, 2), batch=None)  # as many inputs as neurons, or the shapes alone would tell
    W, b, a_in = (np.asarray(value) for value in (p.params[0].W, p.params[0].b, p.x))
    right = fnn.trace(p.params, p.x)[0].psi
    printed = [sum(W[i, j] * a_in[i] for i in range(3)) + b[j] for j in range(3)]
    swapped = [sum(W[j, i] * a_in[i] for i in range(3)) + b[j] for j in range(3)]
    return erratum(
        "z_j = Σ_i W_ij a_i + b_j", relative(printed, list(right)), "z_j = Σ_i W_ji a_i + b_j",
        relative(swapped, list(right)), against="z = W a + b (H5)",
    )  # fmt: skip


@row("fnn.losses.SquaredError")
def H7():
    """The cost of one example."""
    p = problem(batch=None, loss=SQUARED)
    a, y = np.asarray(fnn.forward(p.params, p.x)), np.asarray(p.y)
    printed, ours = np.linalg.norm(y - a) ** 2, SQUARED.value(a, y)
    right = jax.jit(jax.grad(lambda a: jnp.sum((y - a) ** 2)))(a)
    slopes = max(relative(2 * (a - y), right), relative(SQUARED.gradient(a, y), right))
    mean = np.mean((y - a) ** 2)
    return (
        true("C(x, y) = ‖y − a^L(x)‖²", max(relative(ours, printed), slopes)),
        loose(
            "C is the mean squared error", relative(printed, mean), "a sum of squares, over the outputs",
            relative(printed, sum((y - a) ** 2)), against="the mean, the sum",
            note=f"{printed / mean:g} times the mean",
        ),
    )  # fmt: skip


@row("fnn.network.forward_pass")
def H17():
    """The feed-forward starts with ℓ = 0."""
    p = problem(batch=None)
    layers, right = dict(enumerate(p.params, 1)), fnn.forward(p.params, p.x)

    def feed_forward(first: int):
        a = {first - 1: np.asarray(p.x)}
        for number in range(first, len(layers) + 1):
            if number not in layers:
                raise ValueError(f"there is no W^{number}")
            a[number] = 1 / (1 + np.exp(-(layers[number].W @ a[number - 1] + layers[number].b)))
        return a[len(layers)]

    return erratum(
        "start with ℓ = 0: a⁰ = σ(W⁰ a⁻¹ + b⁰)", attempt(lambda: feed_forward(0), right), "start with ℓ = 1, a⁰ = x",
        relative(feed_forward(1), right), against="fnn.forward", note="there is no W⁰: nothing enters layer 0",
    )  # fmt: skip
