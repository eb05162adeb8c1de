"""Accuracy and run time of four ways to compute a gradient (L16): ``python -m experiments.differentiation``.

Hand-written (``fnn.backprop``), reverse-mode automatic differentiation, the complex step Im C(θ + ih)/h, and forward
and central differences, in float64 on a tanh network.

1. The error against the step h. Truncation grows with h and rounding with 1/h, so differences have a best step; the
   complex step subtracts nothing and is exact to rounding for every small h; the other two have no step. The truth is
   the same gradient in NumPy's longdouble, which has at least the 64 bits of x86's.
2. The time against the number of parameters. The first two take a few forward passes for all of them; the complex step
   takes one and central differences two for each.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure

import fnn
from experiments import results
from experiments.figures import BLUE, GREY, RED

GREEN, ORANGE = "#2e7d4f", "#d98a1f"
COLOURS = {"by hand": BLUE, "automatic": GREEN, "complex step": ORANGE, "central": RED, "forward": GREY}
STEPS = 10.0 ** -np.arange(0.5, 30.1, 0.5)
LOSS = fnn.SquaredError(0.5)


@dataclass(frozen=True)
class Options:
    """Error against step size, and time against the number of parameters, of four ways to a gradient."""

    inputs: int = 20
    outputs: int = 10
    hidden: int = 8
    """Hidden neurons of the network whose error is shown."""
    widths: tuple[int, ...] = (4, 16, 64, 256)
    """Hidden neurons of the networks that are timed."""
    batch: int = 16
    seconds: float = 1.0
    """Seconds of runs whose median is the time; at least three runs."""
    out: Path | None = None


def problem(options: Options, hidden: int, seed: int = 0):
    """Parameters of inputs-hidden-outputs, tanh, with biases that are not 0, inputs and targets: float64."""
    key = jax.random.key(seed)
    params = fnn.init(key, (options.inputs, hidden, options.outputs), activation=fnn.Tanh(), dtype=jnp.float64)
    random = np.random.default_rng(seed)
    params = tuple(fnn.Dense(p.W, jnp.asarray(random.normal(size=p.b.shape) / 2), p.activation) for p in params)
    x = random.normal(size=(options.batch, options.inputs))
    return params, jnp.asarray(x), jnp.asarray(random.normal(size=(options.batch, options.outputs)))


def parts(v, sizes: tuple[int, int, int]):
    """The flat parameters as W¹, b¹, W², b², in the order of a network's leaves."""
    n_in, n, n_out = sizes
    shapes, start, found = ((n, n_in), (n,), (n_out, n), (n_out,)), 0, []
    for shape in shapes:
        size = int(np.prod(shape))
        found.append(v[start : start + size].reshape(shape))
        start += size
    return found


def cost(v, x, y, sizes):
    """½‖a − y‖², the mean over the examples, of flat parameters that may be complex."""
    W1, b1, W2, b2 = parts(v, sizes)
    x, y = x.astype(v.dtype), y.astype(v.dtype)
    off = jnp.tanh(x @ W1.T + b1) @ W2.T + b2 - y
    return (off * off).sum() / 2 / len(x)


def exact(v, x, y, sizes) -> np.ndarray:
    """The gradient by hand in longdouble."""
    v, x, y = (np.asarray(value, np.longdouble) for value in (v, x, y))
    W1, b1, W2, b2 = parts(v, sizes)
    a = np.tanh(x @ W1.T + b1)
    delta2 = (a @ W2.T + b2 - y) / len(x)
    delta1 = delta2 @ W2 * (1 - a * a)
    leaves = delta1.T @ x, delta1.sum(axis=0), delta2.T @ a, delta2.sum(axis=0)
    return np.concatenate([leaf.ravel() for leaf in leaves])


@partial(jax.jit, static_argnames=("way", "sizes"))
def stepped(v, x, y, h, *, way: str, sizes) -> jax.Array:
    """The gradient by differences or by the complex step, one parameter after the other."""

    def by(i):
        if way == "complex step":
            return cost(jax.lax.complex(v, jnp.zeros_like(v).at[i].set(h)), x, y, sizes).imag / h
        up, down = v.at[i].add(h), v.at[i].add(-h if way == "central" else 0)
        return (cost(up, x, y, sizes) - cost(down, x, y, sizes)) / (2 * h if way == "central" else h)

    return jax.lax.map(by, jnp.arange(len(v)))


@jax.jit
def automatic(params, x, y):
    return jax.grad(lambda params: jnp.mean(LOSS.value(fnn.forward(params, x), y)))(params)


@jax.jit
def by_hand(params, x, y):
    return fnn.backprop(params, x, y, loss=LOSS)


def errors(options: Options) -> dict:
    """The relative error of every way: one number, or one for each step, None where it is not finite."""
    params, x, y = problem(options, options.hidden)
    sizes, v = (options.inputs, options.hidden, options.outputs), ravel_pytree(params)[0]
    truth = exact(v, x, y, sizes)

    def off(gradient) -> float | None:
        error = float(np.linalg.norm(np.asarray(gradient, np.longdouble) - truth) / np.linalg.norm(truth))
        return error if np.isfinite(error) else None

    whole = {name: off(ravel_pytree(way(params, x, y))[0]) for name, way in
             (("by hand", by_hand), ("automatic", automatic))}  # fmt: skip
    return whole | {
        way: [off(stepped(v, x, y, h, way=way, sizes=sizes)) for h in STEPS]
        for way in ("complex step", "central", "forward")
    }


def times(options: Options) -> dict:
    """Median seconds of a gradient by every way, and the number of parameters, by width."""
    found: dict = {"parameters": []} | {name: [] for name in COLOURS if name != "forward"}
    for width in options.widths:
        params, x, y = problem(options, width)
        sizes, v = (options.inputs, width, options.outputs), ravel_pytree(params)[0]
        found["parameters"].append(len(v))
        ways: dict[str, Callable] = {
            "by hand": partial(by_hand, params, x, y),
            "automatic": partial(automatic, params, x, y),
            "complex step": partial(stepped, v, x, y, 1e-20, way="complex step", sizes=sizes),
            "central": partial(stepped, v, x, y, 1e-5, way="central", sizes=sizes),
        }
        for name, way in ways.items():
            found[name].append(median_time(way, options.seconds))
    return found


def median_time(way: Callable, seconds: float) -> float:
    jax.block_until_ready(way())  # compiles
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < seconds:
        start = time.perf_counter()
        jax.block_until_ready(way())
        taken.append(time.perf_counter() - start)
    return float(f"{np.median(taken):.3g}")


def best(values: Sequence[float | None]) -> float:
    return min(value for value in values if value is not None)


def claims(options: Options, errors: dict, times: dict) -> list[results.Claim]:
    sizes = f"{options.inputs}-{options.hidden}-{options.outputs}"
    whole = " and ".join(f"{errors[name]:.1g}" for name in ("by hand", "automatic"))
    steps = ", ".join(f"{best(errors[name]):.1g}" for name in ("complex step", "central", "forward"))
    count = times["parameters"][-1]
    multiples = ", ".join(f"{times[name][-1] / times['automatic'][-1]:,.2g}" for name in COLOURS if name in times)
    p = {name: np.polyfit(np.log(times["parameters"][-3:]), np.log(times[name][-3:]), 1)[0]
         for name in ("automatic", "central")}  # fmt: skip
    return [
        results.Claim(
            f"a gradient of {sizes} in float64, relative error: by hand and automatic; complex step, central, forward "
            "differences, each at its best step",
            f"{whole}; {steps}",
        ),
        results.Claim(
            f"time of a gradient by {count:,} parameters as a multiple of automatic differentiation's: by hand, "
            "automatic, complex step, central differences",
            f"{multiples}; ∝ parameters^p, p = {p['automatic']:.1f} automatic, {p['central']:.1f} central",
        ),
    ]


def draw(path: Path, errors: dict, times: dict) -> None:
    figure = Figure(figsize=(11, 4), layout="constrained")
    exactness, duration = figure.subplots(1, 2)
    for name, colour in COLOURS.items():
        of = errors[name]
        if isinstance(of, float):
            exactness.axhline(of, color=colour, label=name, linestyle="--" if name == "automatic" else "-")
        else:
            exactness.loglog(STEPS, [np.nan if value is None else value for value in of], color=colour, label=name)
        if name in times:
            duration.loglog(times["parameters"], times[name], ".-", color=colour, label=name)
    exactness.set(xscale="log", yscale="log", xlabel="step h", ylabel="relative error", title="Error against the step")
    exactness.set(ylim=(1e-17, 10))
    exactness.invert_xaxis()
    duration.set(xlabel="parameters", ylabel="seconds", title="Time of a gradient")
    for axes in (exactness, duration):
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def rounded(of):
    """Three digits, for JSON."""
    if isinstance(of, list):
        return [rounded(value) for value in of]
    return None if of is None else float(f"{of:.3g}")


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        found, taken = errors(options), times(options)
        made = claims(options, found, taken)
        for claim in made:
            print(f"{claim.claim}: {claim.here}")
        out = results.folder(options.out, "differentiation")
        draw(out / "differentiation.png", found, taken)
        figures = {"step": rounded(STEPS.tolist()), "error": {k: rounded(v) for k, v in found.items()}, "time": taken}
        results.save(out, "differentiation", options, made, figures)


if __name__ == "__main__":
    main()
