"""Hedges, *A brief introduction to neural networks and back propagation* (talk, 2022)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnn
from experiments.descent import square
from experiments.equations.common import attempt, oracle, problem, relative
from experiments.equations.multiplications import ORDERS, Counted, chain, exponents, square_network
from experiments.equations.register import erratum, row, true
from fnn.backward import bias_gradient, weight_gradient
from fnn.regression import normal_equations
from fnn.updates import descend, sgd

SQUARED = fnn.SquaredError(1)  # the talk's cost, ‖y − a‖²
RATE = 0.5  # ε of H11


@jax.jit
@jax.grad
def by_autodiff(params, x, y):
    """The gradient of the mean cost."""
    return jnp.mean(SQUARED.value(fnn.forward(params, x), y))


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
    slope = float(jnp.abs(jax.jit(jax.grad(lambda v: jnp.sum((twice @ v - target) ** 2)))(v)).max())
    broken = min(
        attempt(lambda: np.linalg.inv(twice.T @ twice) @ twice.T @ target, v),
        attempt(lambda: normal_equations(twice, target), v),
    )
    return (
        true("v = (AᵀA)⁻¹ Aᵀ y", max(relative(printed, right), *ours), "NumPy's lstsq, A of full column rank"),
        erratum(
            "v = (AᵀA)⁻¹ Aᵀ y, a column of A twice another", broken, "v = A⁺ y",
            max(relative(v, np.linalg.pinv(twice) @ target), slope), against="pseudo-inverse",
            note="AᵀA has no inverse; A⁺y is the shortest of the minimisers",
        ),
    )  # fmt: skip


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
    times = float(ours / np.mean((y - a) ** 2))
    note = f"a sum over the outputs: {times:g} times the mean square"
    return true("C(x, y) = ‖y − a^L(x)‖²", max(relative(ours, printed), slopes), note=note)


@row("fnn.functions.deltas")
def H8():
    """The definition of δ: by the complex step, Im C(z + ih)/h, which is exact to rounding."""
    p, h = problem(batch=None, loss=SQUARED), 1e-30
    layers = [(np.asarray(layer.W), np.asarray(layer.b)) for layer in p.params]

    def cost(z, after):
        a = 1 / (1 + np.exp(-z))
        for W, b in after:
            a = 1 / (1 + np.exp(-(W @ a + b)))
        return np.sum((np.asarray(p.y) - a) ** 2)

    printed = tuple(
        np.array([cost(np.asarray(t.z) + 1j * h * unit, layers[i + 1 :]).imag / h for unit in np.eye(len(t.z))])
        for i, t in enumerate(fnn.trace(p.params, p.x))
    )
    right = oracle(p).deltas
    ours = fnn.deltas(p.params, p.x, p.y, loss=SQUARED)
    return true("δ^ℓ = ∂C/∂z^ℓ", max(relative(printed, right), relative(ours, right)))


@row("fnn.backward.hidden_delta", "fnn.backward.input_gradient")
def H9():
    """The δ of a hidden layer from that of the next: (W^{ℓ+1})ᵀ δ^{ℓ+1} ⊙ σ'(z^ℓ)."""
    p = problem((3, 5, 4, 2), batch=None)
    right, traces = oracle(p).deltas, fnn.trace(p.params, p.x)
    printed = [
        (np.asarray(after.W).T @ np.asarray(delta)) * layer.activation.derivative(*map(np.asarray, (t.z, t.a)))
        for layer, t, after, delta in zip(p.params, traces, p.params[1:], right[1:])
    ]
    ours = fnn.deltas(p.params, p.x, p.y, loss=p.loss)
    return true("δ^ℓ = (W^{ℓ+1})ᵀ δ^{ℓ+1} ⊙ σ'(z^ℓ)", max(relative(printed, list(right[:-1])), relative(ours, right)))


@row("fnn.backward.weight_gradient", "fnn.backward.bias_gradient")
def H10():
    """The two gradients of a layer from its δ."""

    def layer(sizes):
        """δ¹ and a⁰ as columns, and autodiff's gradients of the first layer."""
        p = problem(sizes, batch=None)
        right = oracle(p)
        return np.array(right.deltas[0])[:, None], np.array(p.x)[:, None], right.gradients[0]

    delta, a, right = layer((3, 4, 2))
    ours = weight_gradient(delta.T, a.T)
    even_delta, even_a, even_right = layer((3, 3, 2))
    silent = relative(np.broadcast_to((even_delta * even_a).T, (3, 3)), even_right.W)
    b = max(relative(delta[:, 0], right.b), relative(bias_gradient(delta.T), right.b))
    return (
        erratum(
            "∂C/∂w^ℓ = δ^ℓ a^{ℓ−1}", attempt(lambda: delta @ a, right.W), "δ^ℓ (a^{ℓ−1})ᵀ",
            max(relative(delta @ a.T, right.W), relative(ours, right.W)),
            note=f"where a layer has as many inputs as neurons, NumPy's δ * a broadcasts: off by {silent:.2g}",
        ),
        true("∂C/∂b^ℓ = δ^ℓ", b),
    )  # fmt: skip


@row("fnn.functions.backprop")
def H11():
    """W^L is updated first, and δ^{L−1} then computed from it, and so on backwards."""
    printed, corrected = [], []
    for seed in range(60):
        p = problem(batch=None, loss=SQUARED, seed=seed)
        right, W = by_autodiff(p.params, p.x, p.y)[0].W, np.asarray(p.params[1].W)
        x, a, out = (np.asarray(value) for value in (p.x, *(t.a for t in fnn.trace(p.params, p.x))))
        delta = 2 * (out - np.asarray(p.y)) * out * (1 - out)
        updated = W - RATE * np.outer(delta, a)
        first = [np.outer(V.T @ delta * a * (1 - a), x) for V in (updated, W)]
        ours = fnn.backprop(p.params, p.x, p.y, loss=SQUARED)[0].W
        printed.append(relative(first[0], right))
        corrected.append(max(relative(first[1], right), relative(ours, right)))
    low, middle, high = np.percentile(printed, (5, 50, 95))
    return erratum(
        "update W^L, then δ^{L−1} = (W^L)ᵀ δ^L ⊙ σ'(z^{L−1})", middle, "δ^{L−1} from W^L as it was", max(corrected),
        against="autodiff, ∂C/∂W¹",
        note=f"3-4-2, ε = {RATE}, {len(printed)} draws: median; 5th to 95th percentile {low:.1%} to {high:.1%}",
    )  # fmt: skip


@row("fnn.functions.backprop")
def H12():
    """The chain rule multiplied out naively for every layer costs more than the backward order."""
    p = square_network(4, 4)
    right = [layer.W for layer in oracle(p).gradients]
    ours = [layer.W for layer in fnn.backprop(p.params, p.x, p.y, loss=p.loss)]
    error = max(relative(found, right) for found in (ours, *(order(chain(p), Counted()) for order in ORDERS.values())))
    grows = {name: exponents(name) for name in ORDERS}
    note = "; ".join(f"{name} depth^{depth:.1f} width^{width:.1f}" for name, (depth, width) in grows.items())
    return true(
        "∂C/∂w¹ = ∂C/∂a^L · ∂a^L/∂z^L · … · ∂z¹/∂w¹ is a lot of chain rule", error, note=f"multiplications: {note}"
    )


def hidden_layer():
    """A network, and of its first layer: z¹, a¹, W² and autodiff's δ¹ and δ²."""
    p = problem((3, 5, 4, 2), batch=None)
    t = fnn.trace(p.params, p.x)[0]
    return p, t.z, t.a, p.params[1].W, *oracle(p).deltas[:2]


@row("fnn.backward.hidden_delta")
def H13():
    """Two slips of the pen: a^ℓ/∂z^ℓ without its ∂, and ⊗ for ⊙."""
    p, z, a, W, right, after = hidden_layer()
    g, slope = after @ W, a * (1 - a)
    corrected = relative(g @ np.asarray(jax.jit(jax.jacobian(p.params[0].activation.value))(z)), right)
    quotient = {dz: attempt(lambda dz=dz: g * a / dz, right) for dz in (1e-3, 1e-6, 0.0)}
    ours = relative(fnn.backward.hidden_delta(g, p.params[0].activation, z, a), right)
    return (
        erratum(
            "δ^ℓ = δ^{ℓ+1} · ∂z^{ℓ+1}/∂a^ℓ · a^ℓ/∂z^ℓ", quotient[0.0], "∂a^ℓ/∂z^ℓ", corrected,
            note=f"a/h for h = 0.001 and 1e-06: off by {quotient[1e-3]:.1g} and {quotient[1e-6]:.1g}",
        ),
        erratum(
            "δ^ℓ = ((W^{ℓ+1})ᵀ δ^{ℓ+1}) ⊗ σ'(z^ℓ)", relative(np.outer(W.T @ after, slope), right), "⊙",
            max(relative(W.T @ after * slope, right), ours),
        ),
    )  # fmt: skip


@row("fnn.backward.weight_gradient", "fnn.backward.bias_gradient")
def H14():
    """The derivatives of z by its layer's parameters."""
    p = problem(batch=None)
    W, b, a, delta = p.params[0].W, p.params[0].b, p.x, oracle(p).deltas[0]
    by_w, by_b = jax.jit(jax.grad(lambda w, b: w @ a + b, argnums=(0, 1)))(W[0], b[0])
    jacobian_W, jacobian_b = jax.jit(jax.jacobian(lambda W, b: W @ a + b, argnums=(0, 1)))(W, b)
    identity = np.eye(len(b))
    ours_W = relative(weight_gradient(delta[None], a[None]), np.einsum("i,ijk->jk", delta, jacobian_W))
    ours_b = relative(bias_gradient(delta[None]), np.asarray(delta) @ np.asarray(jacobian_b))
    shape = " × ".join(map(str, jacobian_W.shape))
    return (
        true("∂z/∂w = a, ∂z/∂b = 1 (of one neuron)", max(relative(a, by_w), relative(1.0, by_b))),
        erratum(
            "∂z^ℓ/∂W^ℓ = a^{ℓ−1} (of a layer)", relative(a, jacobian_W), "∂z_i/∂W_jk = [i = j] a_k",
            max(relative(np.einsum("ij,k->ijk", identity, a), jacobian_W), ours_W),
            note=f"{len(a)} numbers for {shape}; δ times the right one is H10",
        ),
        erratum(
            "∂z^ℓ/∂b^ℓ = 1 (of a layer)", relative(1.0, jacobian_b), "∂z_i/∂b_j = [i = j]",
            max(relative(identity, jacobian_b), ours_b),
        ),
    )  # fmt: skip


@row("fnn.backward.input_gradient", "fnn.backward.hidden_delta")
def H15():
    """The two factors of the chain for δ^ℓ, and their product."""
    p, z, a, W, right, after = hidden_layer()
    activation, slope = p.params[0].activation, a * (1 - a)
    by_a = np.asarray(jax.jit(jax.jacobian(lambda a: W @ a + p.params[1].b))(a))
    by_z = np.asarray(jax.jit(jax.jacobian(activation.value))(z))
    g = fnn.backward.input_gradient(after[None], W)
    ours = fnn.backward.hidden_delta(g, activation, z, a)[0]
    return (
        true("∂z^{ℓ+1}/∂a^ℓ = w^{ℓ+1}", max(relative(W, by_a), relative(g[0], after @ by_a))),
        erratum("∂a^ℓ/∂z^ℓ = σ'(z^ℓ)", relative(slope, by_z), "diag σ'(z^ℓ)", relative(np.diag(slope), by_z)),
        true(
            "δ^ℓ = δ^{ℓ+1} · ∂z^{ℓ+1}/∂a^ℓ · ∂a^ℓ/∂z^ℓ",
            max(relative(after @ by_a @ by_z, right), relative(ours, right)),
            note="of rows; for columns the order turns round, and W is transposed (H9)",
        ),
    )


@row("fnn.backward.input_gradient")
def H16():
    """The last step, printed with δ^{L1}: read as δ^{L−1}, it stands on both sides."""

    def both(sizes):
        """How far off the formula is with δ^{L−1} on the right, and with δ^L."""
        p = problem(sizes, batch=None)
        (before, last), W = oracle(p).deltas, p.params[1].W
        slope = p.params[0].activation.derivative(*fnn.trace(p.params, p.x)[0][-2:])
        ours = fnn.backward.input_gradient(last[None], W)[0] * slope
        right = max(relative(W.T @ last * slope, before), relative(ours, before))
        return attempt(lambda: np.asarray(W).T @ np.asarray(before) * slope, before), right

    (uneven, right_uneven), (even, right_even) = both((3, 4, 2)), both((3, 3, 3))
    return erratum(
        "δ^{L−1} = ((W^L)ᵀ δ^{L1}) ⊗ σ'(z^{L−1})", even, "δ^L, ⊙", max(right_uneven, right_even),
        note=f"read as δ^{{L−1}}: in 3-3-3; {'no such product' if uneven == math.inf else f'{uneven:.2g}'} in 3-4-2",
    )  # fmt: skip
