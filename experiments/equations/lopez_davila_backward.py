"""Lopez Davila, *Neural networks: the backpropagation algorithm* (2020), continued: back-propagation, and its fame."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import fnn
from experiments.descent import square
from experiments.equations.common import attempt, oracle, problem, relative
from experiments.equations.multiplications import multiplications
from experiments.equations.register import erratum, loose, row, true
from fnn.updates import descend, momentum, sgd

SQUARED = fnn.SquaredError(1)  # (a − y)²
EXAMPLES = 6
ULPS = 8  # of the largest entry of an array: how near two orders of the same sums come


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
    mixed, mixed_right = bias_chain()
    return (
        true("∂C/∂w^L = a^{L−1} σ'(z^L) 2(a^L − y)", by_weight),
        true("∂C/∂b^L = σ'(z^L) 2(a^L − y)", by_bias),
        erratum(
            "∂C_k/∂b^L = ∂z^L/∂b^L · ∂a^L/∂z^L · ∂C/∂a^L", mixed, "∂C_k/∂a^L", mixed_right,
            note=f"C is the mean over n = {EXAMPLES} examples: a factor 1/n",
        ),
        true("∂C/∂a^{L−1} = w^L σ'(z^L) 2(a^L − y)", by_input),
        erratum(
            "∂C/∂a^{L−1} = ∂z^L/∂a^{L−1} · ∂a^L/∂z^L · ∂C/∂z^L", relative(twice, a), "∂C/∂a^L",
            relative(w * by_z * by_a, a), note=f"σ' stands in it twice, and σ'(z^L) = {float(twice[0] / a[0]):.3f}",
        ),
    )  # fmt: skip


def bias_chain() -> tuple[float, float]:
    """L8's chain for the bias with ∂C/∂a^L, C the mean over the examples, and with ∂C_k/∂a^L: off by how much."""
    p = problem((1, 1, 1), loss=SQUARED, batch=EXAMPLES)
    a = fnn.trace(p.params, p.x)[-1].a
    slope = np.asarray(a * (1 - a))
    by_mean = jax.jit(jax.grad(lambda a: jnp.sum((a - p.y) ** 2) / EXAMPLES))(a)
    by_own = jax.jit(jax.grad(lambda a: jnp.sum((a - p.y) ** 2)))(a)
    right = oracle(p).deltas[1]  # ∂C_k/∂b^L, an example in each row
    return relative(slope * by_mean, right), relative(slope * by_own, right)


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


@row("fnn.updates.descend")
def L15():
    """With each epoch the machine converges towards the local minimum."""
    long, short, steps = 1.04, 0.3, 20
    paths = [np.abs(descend(square, 1.0, rate, steps).points) for rate in (long, short)]
    farther, nearer = (float(np.max(path[1:] / path[:-1])) for path in paths)
    return erratum(
        "every step leads nearer to the minimum", max(0.0, farther - 1), "… if the step is short enough",
        max(0.0, nearer - 1), against="the distance to the minimum of x², step by step",
        note=f"η = {long}: {farther:.2f} times as far after every step; η = {short}: {nearer:.2f} times",
    )  # fmt: skip


def differences(f, v: np.ndarray, h: float) -> np.ndarray:
    """The gradient by central differences."""
    return np.array([(f(v + h * unit) - f(v - h * unit)) / (2 * h) for unit in np.eye(len(v))])


@row("experiments.differentiation", "fnn.activations.ELU")
def L16():
    """Automatic differentiation is efficient, stable, precise, and better than other types of differentiation."""
    random = np.random.default_rng(0)
    x, v = random.normal(size=3), random.normal(size=20)

    def cost(v, exp=np.exp):
        W1, W2 = v[:12].reshape(4, 3), v[12:].reshape(2, 4)
        return (((1 / (1 + exp(-(W2 @ (1 / (1 + exp(-(W1 @ x)))))))) - 0.3) ** 2).sum()

    automatic = jax.jit(jax.grad(lambda v: cost(v, jnp.exp)))(jnp.asarray(v))
    complex_step = np.array([cost(v + 1e-30j * unit).imag / 1e-30 for unit in np.eye(len(v))])
    best = min(relative(differences(cost, v, h), complex_step) for h in 10.0 ** np.arange(-8, -1))
    depth, width = 4, 16
    passes = multiplications("backward", depth, width) / (depth * width**2)
    count = depth * width * (width + 1)

    def elu(x):
        return jnp.where(x > 0, x, jnp.exp(x) - 1)

    at, activation = np.array(1000.0), fnn.ELU()
    off = attempt(lambda: np.asarray(jax.grad(elu)(at)), np.array(1.0))
    ours = activation.derivative(jnp.asarray(at), activation.value(jnp.asarray(at)))
    by_difference = float((elu(at + 1e-3) - elu(at - 1e-3)) / 2e-3)
    return (
        true("precise", relative(automatic, complex_step), against="the complex step, exact to rounding",
             note=f"central differences with the best of 7 steps: off by {best:.1g}"),
        true("efficient: no more than 4 times the function", max(0.0, passes / 4 - 1), against="multiplications",
             note=f"{depth} layers of {width}: {passes:.2f} forward passes for the gradient, {count:,} of them or more "
             "by differences"),
        erratum(
            "stable: ELU as where(x > 0, x, eˣ − 1), at x = 1000", off, "… where every intermediate value is finite",
            relative(ours, np.array(1.0)), against="the derivative, 1",
            note=f"NaN, because e¹⁰⁰⁰ overflows in the branch that is not taken; by differences {by_difference:.3g}; "
            f"by hand {float(ours):g}",
        ),
    )  # fmt: skip


@row("experiments.forgetting")
def L17():
    """Back-propagation does not learn continuously: it forgets."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 20)
    x = 2 * np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]])[labels] + 0.3 * random.normal(size=(80, 2))
    loss, old = fnn.SoftmaxCrossEntropy(), labels < 2

    def train(params, rows):
        def f(params):
            return fnn.value_and_backprop(params, jnp.asarray(x[rows]), jnp.asarray(labels[rows]), loss=loss)

        points = descend(f, params, 0.1, 200, rule=momentum).points
        return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[-1]), points)

    def right(params) -> float:
        """The share of the examples of the first two classes that are recognised."""
        return float(np.mean(np.asarray(fnn.forward(params, x[old])).argmax(axis=1) == labels[old]))

    first = train(problem((2, 16, 4), activation=fnn.Tanh(), output=fnn.Identity()).params, old)
    second, together = train(first, ~old), train(first, np.full(80, True))
    before, after, kept = map(right, (first, second, together))
    return loose(
        "back-propagation forgets the first two classes while it learns two others", 1 - after / before,
        "training without the old examples forgets", 1 - kept / before, against="share of the first that is kept",
        note=f"recognised: {before:.0%} before, {after:.0%} after; {kept:.0%} if their examples stay in the batch",
    )  # fmt: skip
