"""What JAX makes of any function: its derivatives against the function's own values, with no second derivation."""

from collections.abc import Callable

import numpy as np

from fnn.checks.arrays import describe
from fnn.numbers import whole
from fnn.verify.arguments import Arguments
from fnn.verify.blackbox import in_best_dtype
from fnn.verify.derivatives import SEED, Derivatives, NoDerivative
from fnn.verify.interpret import remembering
from fnn.verify.oracle import exactly
from fnn.verify.report import Finding, Report, norm
from fnn.verify.slopes import Slopes

TAYLOR = [2.0**-k for k in range(2, 16)]  # steps; a rate is between the last two that are above rounding
TERMS = ("value", "less the derivative", "less the second derivative")


def function(f: Callable, *args, order: int = 1, dtype: str | None = None, tolerance: float | None = None) -> Report:
    """Compare the derivatives that JAX makes of ``f`` with the values of ``f``: no second derivation is needed.

    f: any function of pytrees that JAX can differentiate, with custom derivatives anywhere inside; static arguments
    by ``functools.partial``. args: its arguments; derivatives are by their floating and complex arrays, the latter by
    JAX's convention; integers, booleans and None are left as they are. order: 2 judges the derivative of the VJP in the
    same way. dtype: "float64" or "float32"; None tries float64, then float32. tolerance: by default that of the dtype
    in which ``f`` computes: 1e-12 in float64, 1e-5 in float32, 3e-2 in bfloat16; at least 1e-7 with differences.

    The report has the vector–Jacobian product (VJP) by every argument and the Jacobian–vector product (JVP) of every
    output, each against the oracle; that the VJP is linear; that ⟨ȳ, J t⟩ = ⟨Jᵀ ȳ, t⟩; that ``vmap`` of the derivative
    gives what single calls give; that the value under differentiation is that of ``f``; that two calls give the same.
    What JAX does not have, such as the JVP of a ``custom_vjp``, is noted. The oracle is the complex step,
    Im f(x + iht)/h, where ``f`` is made of operations that have a complex version, else central differences,
    extrapolated, with an estimated error.
    It is taken along every entry up to 1,000 of them (300 for differences). Of more, 10 directions of signs for each
    argument: a single wrong entry shows in each of them and is found by halving; several escape with a chance below
    1/1000. What disagrees must be confirmed by differences, and at a kink every value between the one-sided derivatives
    is right. Taylor rates are printed: the remainders of the value, less the derivative, less the second derivative
    shrink like h, h² and h³.

    Raises TypeError where there is nothing to differentiate by, or JAX can differentiate ``f`` in neither direction.

    >>> import jax.numpy as jnp
    >>> report = function(lambda x: jnp.tanh(x).sum(), jnp.arange(3.0), order=2)
    >>> report.ok
    True
    >>> print(report.notes[1])
    Taylor rates: value 1.00, less the derivative 2.00, less the second derivative 3.00
    """
    if not callable(f):
        raise TypeError(f"f: expected a function, got {describe(f)}")
    if whole("order", order) > 2:
        raise ValueError(f"order: expected 1 or 2, got {order}; write verify.function(f, *args, order=2)")
    with remembering():
        return in_best_dtype(dtype, tolerance, lambda chosen: _judge(f, args, order, chosen, tolerance))


def _judge(f, args, order, dtype, tolerance) -> Report:
    with exactly(dtype):
        arguments = Arguments(args, (), dtype)
        known = arguments.inputs, arguments.names, dtype, tolerance
        first = Derivatives(arguments.of(f), *known)
        findings, notes, weak = first.findings(), first.notes, first.weak
        notes.insert(1, _taylor(first, order))
        if order == 2 and all(finding.ok for finding in findings):
            second = Derivatives(first.as_function(), *known, "order 2: ")
            try:
                findings += second.findings()
            except NoDerivative as error:
                findings.append(Finding("order 2", float("inf"), 0.0, note=str(error).removeprefix("f: ")))
            notes += [f"order 2: {note}" for note in second.notes]
            weak = weak or second.weak
    return Report(tuple(findings), dtype, tuple(dict.fromkeys(notes)), "derivative", SEED, weak)


@np.errstate(invalid="ignore")  # an infinite derivative has no rate
def _taylor(at: Derivatives, order: int) -> str:
    """How fast the remainders shrink, as evidence that a person can read."""
    slopes, t = at.slopes, at.tangents[0]
    if not all(map(np.isfinite, slopes.y)):
        return "no Taylor rates, because the value is not finite"
    if at.backward is not None:
        first = np.array([np.dot(slopes.inputs.vector(of, dual=True), t) for of in at.backward])
    elif at.forward is not None:
        first = at.weights @ at.flat(at.forward[0])
    else:
        return "no Taylor rates"
    terms = [first, _second(at, t)] if order == 2 else [first]
    moves = [at.weights @ (slopes.value(slopes.x + h * t) - slopes.y) for h in TAYLOR]
    noise = 1e2 * slopes.eps * norm(at.weights * slopes.y)
    rates = []
    for k, words in enumerate(TERMS[: order + 1]):
        left = [norm(move - sum(h**n / n * term for n, term in enumerate(terms[:k], 1)))
                for h, move in zip(TAYLOR, moves)]  # fmt: skip
        seen = [remainder for remainder in left if noise < remainder < np.inf]
        rates.append(f"{words} {np.log2(seen[-2] / seen[-1]):.2f}" if len(seen) > 1 else f"{words} exact")
    return f"Taylor rates: {', '.join(rates)}"


def _second(at: Derivatives, t) -> np.ndarray:
    """⟨ȳ, f''(x) t t⟩ for each cotangent, from the change of JAX's derivative along t."""
    inputs = at.slopes.inputs
    if at.backward is None:
        return (
            at.weights @ Slopes(lambda *given: at.jvp(*given, t=at.tangent(t)), inputs.leaves, at.precision).along(t)[0]
        )
    found = []
    for y_bar in at.y_bars:
        call = lambda *given: at.vjp(*given, y_bar=y_bar)  # noqa: E731, B023
        change = Slopes(call, inputs.leaves, at.precision).along(t)[0]
        found.append(inputs.vector(inputs.unflattened(change), dual=True) @ t)
    return np.array(found)
