"""Strabel, *The basics of neural networks* (2023), continued: implicit descent, momentum."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnn
from experiments.equations.common import Problem, problem, relative
from experiments.equations.register import convention, erratum, row, true

ETA, ALPHA = 0.1, 0.9
LARGE, STEPS = 10.0, 10  # a rate at which explicit descent diverges
BATCHES, ROWS = 6, 3  # of the runs with momentum


@partial(jax.jit, static_argnames="loss")
def gradients_of(params, x, y, masks=None, *, loss):
    return jax.grad(lambda params: jnp.sum(loss.value(fnn.forward(params, x, masks=masks), y)))(params)


def autodiff(params, x, y, masks=None, *, loss):
    """The gradients of the loss, summed over the examples, through ``fnn.forward``; NumPy arrays."""
    return jax.tree.map(np.asarray, gradients_of(params, x, y, masks, loss=loss))


def difference(new, old):
    """new − old, leaf by leaf, as NumPy arrays."""
    return jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), new, old)


def implicit(p: Problem, new) -> float:
    """How far θ' − θ is from −η ∇L(θ'), L the mean over the examples, at the large η."""
    right = jax.tree.map(lambda g: -LARGE * g / len(p.x), autodiff(new, p.x, p.y, loss=p.loss))
    return relative(difference(new, p.params), right)


def linear_regression() -> tuple[float, str]:
    """A batch: the equation solved as (1 + c XᵀX) θ' = θ + c Xᵀ Y, c = η/m, and the package's step."""
    p = problem((3, 2), activation=fnn.Identity())
    X, Y = np.pad(p.x, ((0, 0), (0, 1)), constant_values=1), np.asarray(p.y)
    start, c = np.column_stack([p.params[0].W, p.params[0].b]).T, LARGE / len(X)

    def implicit_step(theta):
        return np.linalg.solve(np.eye(X.shape[1]) + c * X.T @ X, theta + c * X.T @ Y)

    def loss_after(step) -> float:
        theta = start
        for _ in range(STEPS):
            theta = step(theta)
        return np.mean(0.5 * np.sum((X @ theta - Y) ** 2, axis=1))

    new = fnn.implicit.linear(p.params, p.x, p.y, LARGE, loss=p.loss)
    ours = np.column_stack([new[0].W, new[0].b]).T
    explicit = loss_after(lambda theta: theta - c * X.T @ (X @ theta - Y))
    off = max(implicit(p, new), relative(ours, implicit_step(start)))
    return off, f"η = {LARGE:g}, loss after {STEPS} steps: {loss_after(implicit_step):.2g}, explicit {explicit:.1g}"


def generalised() -> tuple[float, str]:
    """Logistic regression on one example; a batch averages its examples' own steps."""
    off = []
    for batch in (1, 6):
        p = problem((3, 2), activation=fnn.Identity(), loss=fnn.SigmoidCrossEntropy(), batch=batch)
        off.append(implicit(p, fnn.implicit.generalized_linear(p.params, p.x, p.y, LARGE, loss=p.loss)))
    return off[0], f"one example; a batch averages the examples' own steps: off by {off[1]:.2g} from its mean loss's"


def unit_by_unit() -> tuple[float, str]:
    """A network, layer by layer: α = −η b σ'(w'ᵀa) of every unit, b = ∂L/∂a from before the step."""
    p = problem(activation=fnn.Tanh(), output=fnn.Identity(), batch=1)
    new = fnn.implicit.layerwise(p.params, p.x, p.y, LARGE, loss=p.loss, steps=8)
    ((W1, b1), (W2, b2)), ((new_W1, new_b1), (new_W2, new_b2)) = (
        [(np.asarray(layer.W), np.asarray(layer.b)) for layer in params] for params in (p.params, new)
    )
    x, y = np.asarray(p.x), np.asarray(p.y)
    a = np.tanh(x @ W1.T + b1)
    b = (a @ W2.T + b2 - y) @ W2
    first = -LARGE * b * (1 - np.tanh(x @ new_W1.T + new_b1) ** 2)
    last = -LARGE * (a @ new_W2.T + new_b2 - y)  # the last layer keeps the loss ½‖a − y‖² as it is
    moved = new_W1 - W1, new_b1 - b1, new_W2 - W2, new_b2 - b2
    off = relative(moved, (first.T @ x, first[0], last.T @ a, last[0]))
    return off, f"each unit alone; off by {implicit(p, new):.2g} from all of them at once"


@row("fnn.implicit.linear.linear", "fnn.implicit.generalized.generalized_linear", "fnn.implicit.layerwise.layerwise")
def S9():
    """Section 5.1, Implicit SGD, a heading without a text: θ_{t+1} = θ_t − η ∇L(θ_{t+1}), derived here."""
    linear, logistic, layers = linear_regression(), generalised(), unit_by_unit()
    return (
        true("a heading; θ' = θ − η ∇L(θ'), linear regression", linear[0], note=linear[1]),
        true("θ' = θ − η ∇L(θ'), logistic regression", logistic[0], note=logistic[1]),
        true("w' = w − η ∂L/∂a σ'(w'ᵀa) a, layer by layer", layers[0], "the equation of every unit", note=layers[1]),
    )


def mini_batches() -> tuple[Problem, list[tuple]]:
    p = problem(batch=BATCHES * ROWS)
    return p, [(p.x[i : i + ROWS], p.y[i : i + ROWS]) for i in range(0, len(p.x), ROWS)]


def with_rule(rule: optax.GradientTransformation) -> list:
    """The changes of the parameters after every mini-batch."""
    p, batches = mini_batches()
    params, state, changes = p.params, rule.init(p.params), []
    for x, y in batches:
        gradients = fnn.backprop(params, x, y, loss=p.loss, reduction="sum")
        with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix dtypes
            steps, state = rule.update(gradients, state, params)
        params = optax.apply_updates(params, steps)
        changes.append(difference(params, p.params))
    return changes


def as_printed(rates) -> list:
    """(8) and (9) for the first mini-batch, then (26) and (27)."""
    p, batches = mini_batches()
    params, delta, changes = p.params, None, []
    for (x, y), eta in zip(batches, rates):
        gradient = autodiff(params, x, y, loss=p.loss)
        if delta is None:
            delta = jax.tree.map(lambda g, eta=eta: -eta * g, gradient)
        else:
            delta = jax.tree.map(lambda d, g, eta=eta: ALPHA * d - eta * g, delta, gradient)
        params = jax.tree.map(lambda w, change: jnp.asarray(np.asarray(w) + change), params, delta)
        changes.append(difference(params, p.params))
    return changes


@row("fnn.updates.momentum")
def S10():
    """(26), (27): momentum, η inside the velocity; the first mini-batch by "the updates in (3) and (8)"."""
    half = BATCHES // 2
    schedule = optax.piecewise_constant_schedule(ETA, {half: 0.1})
    constant, falling = [ETA] * BATCHES, [ETA] * half + [0.1 * ETA] * half
    ours, scheduled = with_rule(fnn.updates.momentum(ETA, ALPHA)), with_rule(fnn.updates.momentum(schedule, ALPHA))
    library = with_rule(optax.sgd(ETA, momentum=ALPHA))
    other = with_rule(optax.sgd(schedule, momentum=ALPHA))
    same = with_rule(optax.chain(optax.scale_by_learning_rate(schedule), optax.trace(ALPHA)))
    printed = as_printed(constant)
    by_beta, right = ([layer.b for layer in changes[0]] for changes in (printed, ours))
    three = jax.tree.map(np.zeros_like, by_beta)  # (3) is an equation, not an update: β stays
    return (
        true("Δw ← αΔw − η ∂L/∂w, w ← w + Δw", relative(printed, ours), "fnn.updates.momentum"),
        erratum(
            "the first mini-batch by (3) and (8)", relative(three, right), "by (8) and (9)", relative(by_beta, right),
            "fnn.updates.momentum", "(3) is no update: Δβ = 0",
        ),
        convention(
            "a schedule η_t: η outside the velocity", relative(other, scheduled), "η inside the velocity",
            max(relative(scheduled, same), relative(as_printed(falling), scheduled), relative(ours, library)),
            "optax.sgd(η_t, momentum=α); optax.chain(scale_by_learning_rate(η_t), trace(α))",
            f"η_t a tenth after {half} of {BATCHES} mini-batches; while η is constant the two are one rule",
        ),
    )  # fmt: skip


@row("fnn.backward.weight_gradient", "fnn.updates.momentum")
def S12():
    """If r_kj = 0 then ∂L/∂w_kj = 0, and w_kj is not updated for this mini-batch."""
    p, rule, steps, random = problem(), fnn.updates.momentum(ETA, ALPHA), [], np.random.default_rng(0)
    state = rule.init(p.params)
    drawn = [[random.integers(0, 2, layer.W.shape).astype(float) for layer in p.params] for _ in range(2)]
    masks = [tuple(fnn.Mask(arrows=jnp.asarray(kept)) for kept in r) for r in drawn]
    for mask in masks:  # two mini-batches, w between them as it was: the steps are looked at, not the way
        gradients = fnn.backprop(p.params, p.x, p.y, loss=p.loss, reduction="sum", masks=mask)
        step, state = rule.update(gradients, state)
        steps.append([np.asarray(layer.W) for layer in step])
    r = drawn[1]
    by_w = [layer.W for layer in gradients]
    right = [layer.W for layer in autodiff(p.params, p.x, p.y, masks[1], loss=p.loss)]
    stays = [np.where(kept == 1, now, 0) for kept, now in zip(r, steps[1])]
    dropped, arrows = sum(int(np.sum(kept == 0)) for kept in r), sum(kept.size for kept in r)
    return true(
        "r_kj = 0 ⇒ ∂L/∂w_kj = 0, by (8) w_kj stays",
        max(relative([kept * g for kept, g in zip(r, right)], right), relative(by_w, right)),
        note=f"momentum comes later in the text: by (26) a dropped w_kj still moves by αΔw_kj; {dropped} of {arrows} "
        f"arrows dropped, steps without theirs off by {relative(stays, steps[1]):.2g}",
    )
