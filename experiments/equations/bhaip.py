"""Bhaip, *Neural networks III: backpropagation* (2021)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnn
from experiments.descent import INSIDE, MINIMUM, OUTSIDE, cubic, square, wavy
from experiments.equations.common import oracle, problem, relative, size
from experiments.equations.lecture import INNER, as_printed, last_layer, lecture, lines, off_with, sigma, slope
from experiments.equations.register import erratum, loose, row, true
from fnn.summary import count
from fnn.updates import descend


def value(p):
    """The value of B1's function, without its printed gradient."""
    return cubic(p)[0]


gradients = jax.jit(jax.vmap(jax.grad(value)))  # autodiff's, at points in rows


def around(centre, radius: float = 1.0, directions: int = 360) -> np.ndarray:
    """Points on a circle, (directions, 2)."""
    angles = np.linspace(0, 2 * np.pi, directions, endpoint=False)
    return np.asarray(centre) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


@row("experiments.descent.cubic")
def B1():
    """2x² + 3xy + y³, its two partial derivatives, and its gradient."""
    points = np.random.default_rng(1).normal(size=(20, 2))
    x, y = points.T
    printed, right = np.stack([4 * x + 3 * y, 3 * x + 3 * y**2], axis=1), gradients(points)
    ends = [descend(cubic, np.array(start), 0.1, 400).points[-1] for start in INSIDE]
    outside = descend(cubic, np.array(OUTSIDE), 0.1, 400).points
    fate = "stays finite" if np.all(np.isfinite(outside)) else "diverges"
    away = size(relative(ends, [np.array(MINIMUM)] * len(ends)))
    return true(
        "∂f/∂x = 4x + 3y, ∂f/∂y = 3x + 3y²",
        max(relative(printed, right), relative(cubic(points.T)[1].T, right)),
        note=f"descent with it from {len(ends)} starts ends {away} from the minimum (−9/16, 3/4); from {OUTSIDE} it "
        f"{fate}",
    )


@row("fnn.updates.descend", "experiments.descent")
def B2():
    """The negative gradient is the steepest descent; too long a step overshoots, a short one crawls; local minima."""
    return steepest(), step_lengths(), local_minima()


def steepest():
    """No direction is steeper than the gradient's: slopes by autodiff, along it and a circle of directions."""
    points, directions = np.random.default_rng(2).normal(size=(10, 2)), around((0, 0))
    gradient = np.asarray(cubic(points.T)[1]).T
    uphill = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    every = np.stack([np.stack([u, -u, *directions]) for u in uphill])  # (points, directions + 2, 2)
    along = jax.vmap(jax.vmap(lambda p, u: jax.jvp(value, (p,), (u,))[1], (None, 0)))
    slopes = np.asarray(jax.jit(along)(points, every))
    return true(
        "∇f is the steepest ascent, −∇f the steepest descent",
        max(relative(slopes[:, 0], slopes.max(axis=1)), relative(slopes[:, 1], slopes.min(axis=1))),
        against="slopes in all directions", note=f"{len(directions)} directions at {len(points)} points of B1's f",
    )  # fmt: skip


def step_lengths():
    """On x², where a step multiplies x by 1 − 2α."""
    rates, steps, near = (0.001, 0.3, 0.9, 1.04), 200, 0.001
    paths = np.stack([descend(square, 1.0, rate, steps).points for rate in rates])
    right = (1 - 2 * np.array(rates)[:, None]) ** np.arange(steps + 1)
    told = []
    for rate, path in zip(rates, paths):
        hit = np.abs(path) < near
        needed = f"{np.argmax(hit)}" if hit.any() else f"not in {steps}"
        told.append(f"α = {rate:g}: {needed}" + " (overshoots)" * bool(np.any(path < 0)))
    return true(
        "too long a step overshoots, too short a one takes many", relative(paths, right), against="x_n = (1 − 2α)ⁿ x₀",
        note=f"steps on x² from 1 to {near}: {'; '.join(told)}",
    )  # fmt: skip


def local_minima():
    """Descents on a function with several minima, from many starts at once."""
    starts = np.linspace(-5, 5, 21)
    ends = descend(lambda x: (jnp.sum(wavy(x)[0]), wavy(x)[1]), starts, 0.1, 400).points[-1]
    (values, slopes), first = map(np.asarray, wavy(ends)), np.asarray(wavy(starts)[1])
    lowest = int(np.sum(values < values.min() + 1e-9))
    return true(
        "we may land in a local minimum", float(np.linalg.norm(slopes) / np.linalg.norm(first)),
        against="f' = 0 at the end",
        note=f"f = x²/10 + 0.3 sin 3x: {lowest} of {len(starts)} starts reach the lowest minimum, "
        f"others end up to {values.max() - values.min():.2g} above it",
    )  # fmt: skip


@row("fnn.updates.sgd")
def B3():
    """W_i ← W_i − α ∂E/∂W_i and b_i ← b_i − α δ_i, with α between 0.1 and 0.0001."""
    v, errors, falls = lecture(), [], []
    (delta1, delta2), (by_W1, by_W2) = as_printed(v.p)
    before, by_params = fnn.value_and_backprop(v.p.params, v.p.x, v.p.y, loss=v.p.loss)
    for alpha in (0.1, 0.0001):
        rule = fnn.updates.sgd(alpha)
        ours = optax.apply_updates(v.p.params, rule.update(by_params, rule.init(v.p.params))[0])
        right = jax.tree.map(lambda leaf, g, alpha=alpha: leaf - alpha * g, v.p.params, v.right.gradients)
        printed = [v.W1 - alpha * by_W1, v.b1 - alpha * delta1, v.W2 - alpha * by_W2, v.b2 - alpha * delta2]
        errors += [relative(printed, right), relative(ours, right)]
        after = np.sum((np.asarray(fnn.forward(ours, v.p.x)) - v.y) ** 2) / 2
        falls.append(f"{1 - after / float(before):.2g} at α = {alpha:g}")
    return true("W_i − α ∂E/∂W_i, b_i − α δ_i", max(errors), note=f"E falls by the fraction {', '.join(falls)}")


@row("fnn.summary.summary")
def B4():
    """A 3-4-2 network has 3·4 + 4·2 = 20 weights and 6 biases."""
    params = lecture().p.params
    right = [float(sum(layer.W.size for layer in params)), float(sum(layer.b.size for layer in params))]
    shown = sum(float(cells[-1]) for cells in fnn.summary(params).rows)
    error = max(relative([3 * 4 + 4 * 2.0, 6.0], right), relative(shown, sum(right)))
    return true("3·4 + 4·2 = 20 weights, 6 biases", error, against="the sizes of the arrays")


@row("fnn.losses.SquaredError")
def B5():
    """E = ½‖x₂ − y‖², whose derivative with respect to y is x₂ − y."""
    v = lecture()
    x2, y = jnp.asarray(v.x2), v.p.y
    by_x2, by_y = jax.grad(lambda x2, y: 0.5 * jnp.sum((x2 - y) ** 2), argnums=(0, 1))(x2, y)
    summed = sum((o - t) ** 2 / 2 for o, t in zip(v.x2.tolist(), v.y.tolist()))
    E, ours, gradient = 0.5 * np.linalg.norm(v.x2 - v.y) ** 2, v.p.loss.value(x2, y), v.p.loss.gradient(x2, y)
    return (
        true("E = ½‖x₂ − y‖²", max(relative(E, summed), relative(ours, summed)), against="Σ ½(x₂ − y)²"),
        loose("E is the magnitude of x₂ − y", relative(E, np.linalg.norm(v.x2 - v.y)), "half its square",
              relative(E, np.linalg.norm(v.x2 - v.y) ** 2 / 2), against="‖x₂ − y‖"),
        erratum("∂E/∂y = x₂ − y", relative(v.x2 - v.y, by_y), "∂E/∂x₂ = x₂ − y",
                max(relative(v.x2 - v.y, by_x2), relative(gradient, by_x2))),
    )  # fmt: skip


@row("fnn.backward.output_delta", "fnn.backward.hidden_delta", "fnn.backward.weight_gradient")
def B6():
    """δ_L, δ_i, and ∂E/∂W_i = δ_i x_{i−1}ᵀ, for any number of layers."""
    p = problem((3, 5, 4, 2), batch=None)
    right, (delta, weights) = oracle(p), as_printed(p)
    ours, by_params = fnn.deltas(p.params, p.x, p.y, loss=p.loss), fnn.backprop(p.params, p.x, p.y, loss=p.loss)
    by_W = [layer.W for layer in right.gradients]
    last, hidden = list(right.deltas[-1:]), list(right.deltas[:-1])
    return (
        true("δ_L = (x_L − y) ⊙ σ'(W_L x_{L−1} + b_L)",
             max(relative(delta[-1:], last), relative(list(ours[-1:]), last))),
        true("δ_i = W_{i+1}ᵀ δ_{i+1} ⊙ σ'(W_i x_{i−1} + b_i)",
             max(relative(delta[:-1], hidden), relative(list(ours[:-1]), hidden))),
        true("∂E/∂W_i = δ_i x_{i−1}ᵀ", max(relative(weights, by_W), relative([g.W for g in by_params], by_W))),
    )  # fmt: skip


@row("fnn.backward.output_delta")
def B7():
    """In the argument about shapes: δ₂ = (y − σ(W₂x₁ + b₂)) ⊙ σ'(W₂x₁ + b₂)."""
    v = lecture()
    z, right = v.W2 @ v.x1 + v.b2, v.right.deltas[1]
    ours = fnn.deltas(v.p.params, v.p.x, v.p.y, loss=v.p.loss)[1]
    return erratum(
        "δ₂ = (y − σ(W₂x₁ + b₂)) ⊙ σ'(W₂x₁ + b₂)", relative((v.y - sigma(z)) * slope(z), right),
        "δ₂ = (σ(W₂x₁ + b₂) − y) ⊙ σ'(…)", max(relative((sigma(z) - v.y) * slope(z), right), relative(ours, right)),
    )  # fmt: skip


@row("fnn.backward.input_gradient")
def B8():
    """In the derivation, ∂E/∂W₁ before x₁ is put in: the inner derivative is that of W₂x₁ + b₂."""
    return true(INNER, lines()[INNER])


@row("fnn.activations.Sigmoid")
def B9():
    """σ'(x) = σ(x)(1 − σ(x))."""
    x, activation = np.linspace(-20, 20, 401), fnn.Sigmoid()
    right = jax.jit(jax.vmap(jax.grad(lambda x: 1 / (1 + jnp.exp(-x)))))(x)
    ours = activation.derivative(x, activation.value(x))
    return true("σ'(x) = σ(x)(1 − σ(x))", max(relative(slope(x), right), relative(ours, right)))


@row("experiments.descent.cubic", "fnn.updates.descend")
def B10():
    """Descend until every direction is an incline, or until the gradient is 0, and one is at the minimum."""
    saddle, minimum, rate, steps = np.zeros(2), np.array(MINIMUM), 0.1, 400
    curvature = jax.jit(jax.hessian(value))
    curvatures, axes = np.linalg.eigh(curvature(saddle))
    least = np.linalg.eigvalsh(curvature(minimum))[0]
    downhill = axes[:, 0] * np.sign(axes[1, 0])  # of its two ends the one with y > 0, where the minimum is
    stopped, off = (descend(cubic, start, rate, steps).points[-1] for start in (saddle, saddle + 0.01 * downhill))
    here, near = value(minimum), value(around(minimum, 0.01).T).min()
    return (
        erratum(
            "the gradient is 0: x is the minimum", relative(stopped, minimum), "… and no curvature is negative",
            relative(off, minimum), against="(−9/16, 3/4), the one minimum of B1's f",
            note=f"stops at the saddle (0, 0), curvatures {curvatures[0]:.2f} and {curvatures[1]:.2f}; nudged off it "
            f"along the first, where the least is {least:.2f}",
        ),
        true(
            "every direction is an incline: f is at its minimum", max(0.0, float(here - near)) / abs(float(here)),
            against="the lowest f on a circle around B1's minimum",
            note="a local one; the text says so, and pretends that there is no other",
        ),
    )  # fmt: skip


@row("fnn.summary.count")
def B11():
    """The error of a neuron with n weights and a bias is n + 2 dimensional: the weights, the bias and the input."""
    p = problem((3, 1), batch=None)
    n, bias = p.params[0].W.size, p.params[0].b.size
    slopes, E = oracle(p).gradients, p.loss.value(fnn.forward(p.params, p.x), p.y)
    right = float(sum(leaf.size for leaf in jax.tree.leaves(slopes)) + E.size)  # all that descent can move, and E
    ours, with_input = float(count(p.params) + E.size), float(n + bias + p.x.size)
    sizes = "the sizes of parameters and E"
    return (
        true(f"n + 2 dimensions (n = {n})", max(relative(n + 2.0, right), relative(ours, right)), against=sizes),
        erratum("n weights, 1 bias and the input", relative(with_input, right), "n weights, 1 bias and the axis of E",
                max(relative(float(n + bias + E.size), right), relative(ours, right)), against=sizes,
                note=f"the input is given: its {p.x.size} numbers do not vary"),
    )  # fmt: skip


@row("fnn.activations.Softmax", "fnn.backward.output_delta")
def B12():
    """These formulas work for any activation function."""
    smooth: tuple[fnn.Activation, ...] = (fnn.Tanh(), fnn.ReLU(), fnn.Softplus())
    jumping: tuple[fnn.Activation, ...] = (fnn.Threshold(), fnn.Sign())
    softmax = problem(batch=None, output=fnn.Softmax())
    right, (z, a, y, ours) = oracle(softmax).deltas[-1], last_layer(softmax)
    jacobian = np.asarray(jax.jacobian(jax.nn.softmax)(z))
    off = max(map(off_with, smooth))
    predicted, moved = map(np.array, zip(*map(along_a_line, jumping)))
    return (
        true("for any σ of single entries that has a derivative", off,
             note=", ".join(type(activation).__name__ for activation in smooth)),
        erratum("for Threshold and Sign: E changes by ∂E/∂W · ΔW", relative(predicted, moved),
                "for a σ with a derivative that is not 0 almost everywhere", off, against="E along a line, autodiff",
                note="δ₁ = 0 exactly, so every step of W₁ by (B3) is 0, while E goes up and down by "
                f"{' and '.join(f'{change:.2g}' for change in moved)}"),
        erratum("for softmax, σ' entry by entry", relative((a - y) * np.diag(jacobian), right),
                "its Jacobian: Jᵀ(x_L − y)", max(relative(jacobian.T @ (a - y), right), relative(ours, right))),
    )  # fmt: skip


def along_a_line(activation: fnn.Activation) -> tuple[float, float]:
    """Of a hidden layer with this σ: how far E moves along a line of W₁, by the printed gradient and in fact."""
    p = problem(batch=None, activation=activation, output=fnn.Sigmoid())
    hidden, last = p.params
    direction = np.random.default_rng(12).normal(size=hidden.W.shape)
    x1 = np.asarray(fnn.trace(p.params, p.x)[0].a)
    z1 = hidden.W @ p.x + hidden.b
    delta2 = (fnn.forward(p.params, p.x) - p.y) * slope(np.asarray(last.W @ x1 + last.b))
    delta1 = last.W.T @ delta2 * activation.derivative(z1, activation.value(z1))

    def E(t):
        moved = fnn.Dense(hidden.W + t * direction, hidden.b, activation)
        return p.loss.value(fnn.forward((moved, last), p.x), p.y)

    every = np.asarray(jax.jit(jax.vmap(E))(np.linspace(-1, 1, 201)))
    printed = 2 * abs(float(np.sum(np.outer(delta1, p.x) * direction)))
    return printed, float(np.ptp(every))


@row("experiments.descent.square")
def B13():
    """f(x) = x² and f'(x) = 2x."""
    x = np.random.default_rng(13).normal(size=20)
    right = jax.jit(jax.vmap(jax.grad(lambda x: x**2)))(x)
    return true("f(x) = x², f'(x) = 2x", max(relative(2 * x, right), relative(square(x), (x**2, right))))


@row("fnn.backward.input_gradient", "fnn.backward.weight_gradient")
def B14():
    """The other lines from E to δ₂x₁ᵀ and δ₁x₀ᵀ, read as contractions with Jacobians."""
    return tuple(true(line, error) for line, error in lines().items() if line != INNER)


@row("fnn.updates.descend")
def B15():
    """We move in the direction of steepest descent for a certain length, which is a constant, α."""
    alpha, steps, start = 0.05, 200, np.array(INSIDE[0])

    def of_length_one(p):
        f, gradient = cubic(p)
        return f, gradient / jnp.linalg.norm(gradient)

    points, fixed = (np.asarray(descend(f, start, alpha, steps).points) for f in (cubic, of_length_one))
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    slopes = np.linalg.norm(gradients(points[:-1]), axis=1)
    away, near = (np.linalg.norm(path[-1] - np.array(MINIMUM)) for path in (fixed, points))
    return erratum(
        "every step has the length α", relative(np.full(steps, alpha), lengths), "the length α ‖∇E‖",
        relative(alpha * slopes, lengths), against="the steps of a descent",
        note=f"α = {alpha} on B1's f: steps from {lengths[0]:.2g} to {lengths[-1]:.2g}, ends {near:.2g} from the "
        f"minimum; all of length α, {away:.2g}",
    )  # fmt: skip
