"""Hedges, *A brief introduction to neural networks and back propagation* (talk, 2022), continued: back-propagation."""

import math

import jax
import numpy as np

import fnn
from experiments.equations.common import attempt, oracle, problem, relative
from experiments.equations.hedges import SQUARED, by_autodiff
from experiments.equations.multiplications import ORDERS, Counted, chain, exponents, square_network
from experiments.equations.register import erratum, loose, row, true
from fnn.backward import bias_gradient, weight_gradient

RATE = 0.5  # ε of H11


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
            note="the lines around it write transposes and ⊙ where they mean them; "
            f"where a layer has as many inputs as neurons, NumPy's δ * a broadcasts: off by {silent:.2g}",
        ),
        true("∂C/∂b^ℓ = δ^ℓ", b),
    )  # fmt: skip


@row("fnn.functions.backprop", "experiments.update_order")
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
        loose(
            "∂z^ℓ/∂W^ℓ = a^{ℓ−1} (of a layer)", relative(a, jacobian_W), "∂z_i/∂W_jk = [i = j] a_k",
            max(relative(np.einsum("ij,k->ijk", identity, a), jacobian_W), ours_W),
            note=f"{len(a)} numbers for {shape}; δ times the right one is H10",
        ),
        loose(
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
        loose("∂a^ℓ/∂z^ℓ = σ'(z^ℓ)", relative(slope, by_z), "diag σ'(z^ℓ)", relative(np.diag(slope), by_z)),
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


@row("fnn.backward.weight_gradient", "fnn.backward.bias_gradient")
def H18():
    """The chain rule for the weights and the biases of a layer."""
    p = problem(batch=None)
    right, W, b = oracle(p), p.params[0].W, p.params[0].b
    by_W, by_b = jax.jit(jax.jacobian(lambda W, b: W @ p.x + b, argnums=(0, 1)))(W, b)
    delta, gradient = np.asarray(right.deltas[0]), right.gradients[0]
    ours = fnn.backprop(p.params, p.x, p.y, loss=p.loss)[0]
    return (
        true("∂C/∂w^ℓ = ∂C/∂z^ℓ ∂z^ℓ/∂w^ℓ",
             max(relative(np.tensordot(delta, by_W, 1), gradient.W), relative(ours.W, gradient.W))),
        true("∂C/∂b^ℓ = ∂C/∂z^ℓ ∂z^ℓ/∂b^ℓ",
             max(relative(delta @ np.asarray(by_b), gradient.b), relative(ours.b, gradient.b))),
    )  # fmt: skip
