"""``fnn.explain``: the computation for one example, displayed equation by equation."""

import html
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fnn import equations
from fnn.backward import RULES
from fnn.checks import network as checks
from fnn.checks.arrays import AnyArray
from fnn.functions import results, trace
from fnn.layers import Params
from fnn.losses import Loss, SquaredError
from fnn.markup import grid, is_small, marked_up, matrix, numbers, plain, shape
from fnn.stacking import unstack

LINE = "text-align:left;vertical-align:middle;padding:2px 10px;white-space:nowrap"


class Symbol(NamedTuple):
    """An array in a formula: its name in LaTeX, and its value."""

    name: str
    value: np.ndarray


class Equation(NamedTuple):
    """One line of the computation.

    part: "forward", "loss", "backward" or "gradients"; number: "(2b)" of ``fnn.backward``, or ""; sources: where it is
    printed, see ``fnn.equations``; left: the computed symbol with its value; right: LaTeX strings and symbols in order.
    """

    part: str
    number: str
    sources: str
    left: Symbol
    right: tuple[str | Symbol, ...]

    def formula(self) -> str:
        """Both sides in LaTeX, as symbols."""
        right = "".join(term if isinstance(term, str) else term.name for term in self.right)
        return self.left.name if right == self.left.name else f"{self.left.name} = {right}"

    def substituted(self) -> str | None:
        """The right side in LaTeX with numbers for symbols; None without symbols or with any over 8 rows or columns."""
        symbols = [term for term in self.right if isinstance(term, Symbol)]
        if not symbols or not all(is_small(symbol.value) for symbol in (*symbols, self.left)):
            return None
        return "".join(term if isinstance(term, str) else matrix(term.value) for term in self.right)


@dataclass(frozen=True)
class Explanation:
    """The result of :func:`explain`: ``equations`` with their values, as text, :meth:`latex`, or HTML in a notebook.

    title: the network and the loss; functions: what each activation and the loss compute.
    """

    title: str
    functions: tuple[str, ...]
    equations: tuple[Equation, ...]

    def __str__(self) -> str:
        lines = [self.title, *(f"  {function}" for function in self.functions)]
        for part, found in self._parts():
            lines += ["", part]
            for equation in found:
                formula = f"  {equation.number:5}{plain(equation.formula())}"
                lines.append(f"{formula:46}{shape(equation.left.value):12}{equation.sources}".rstrip())
                if is_small(equation.left.value):
                    lines += (f"{'':9}{row}" for row in numbers(equation.left.value).splitlines())
        return "\n".join(lines)

    __repr__ = __str__

    def latex(self) -> str:
        """An ``align*`` environment with every equation in symbols and, if its arrays are small, in numbers."""
        lines = []
        for equation in self.equations:
            tag = rf" && \text{{{equation.number}}}" if equation.number else ""
            formula, substituted = equation.formula().replace(" = ", " &= ", 1), equation.substituted()
            in_numbers = "" if substituted is None else rf"&= {substituted} = {matrix(equation.left.value)}"
            lines += [formula + tag, in_numbers] if "&" in formula else [f"{formula} {in_numbers}{tag}"]
        return "\\begin{align*}\n" + " \\\\\n".join(filter(None, lines)) + "\n\\end{align*}"

    def _repr_html_(self) -> str:
        rows = []
        for part, found in self._parts():
            rows.append(f'<tr><th colspan="5" style="text-align:left;padding:8px 10px 2px">{part}</th></tr>')
            for equation in found:
                value = equation.left.value
                cells = (
                    html.escape(equation.number), marked_up(equation.formula()), shape(value),
                    grid(value) if is_small(value) else "", html.escape(equation.sources),
                )  # fmt: skip
                rows.append("<tr>" + "".join(f'<td style="{LINE}">{cell}</td>' for cell in cells) + "</tr>")
        functions = "".join(f"<br>{html.escape(function)}" for function in self.functions)
        return f"<p><b>{html.escape(self.title)}</b>{functions}</p><table>{''.join(rows)}</table>"

    def _parts(self) -> Iterator[tuple[str, list[Equation]]]:
        for part in dict.fromkeys(equation.part for equation in self.equations):
            yield part, [equation for equation in self.equations if equation.part == part]


def explain(params: Params, x: AnyArray, y: AnyArray, *, loss: Loss = SquaredError()) -> Explanation:
    """Every z, a, δ and gradient for one example, each with its equation, its shape and, if small, its numbers.

    params: tuple of ``Dense`` without batch norm (which needs more than one example); x: (n_0,); y: (n_L,), or an
    integer label if the loss takes labels; loss: see ``fnn.losses``. Vectors are columns here, as in textbooks:
    z = W a + b and g = Wᵀ δ. Raises TypeError or ValueError that names the argument.

    >>> import jax, fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2), output=fnn.Sigmoid())
    >>> explanation = fnn.explain(params, jax.numpy.ones(3), jax.numpy.zeros(2))
    >>> [equation.number for equation in explanation.equations if equation.part == "backward"]
    ['', '', '(1)', '(2a)', '', '(2b)']
    """
    checks.layers(params)
    checks.network_arguments(params, x, None)
    if x.ndim != 1:
        raise ValueError(f"x: expected one example of shape (n_0,), got {x.shape}; write x[0]")
    for i, layer in enumerate(params):
        if layer.norm is not None:
            raise ValueError(
                f"params[{i}]: a batch norm needs more than one example; write "
                "fnn.explain(fnn.fold(params, statistics=fnn.statistics(params, batches)), x, y)"
            )
    params = unstack(params)
    value, deltas, gradients, of_x = results(
        ("loss", "deltas", "gradients", "input_gradient"), params, x, y, loss, "sum", None, RULES
    )
    passed = trace(params, x)
    found = [*_forward(params, passed), *_loss(passed, y, value, loss)]
    found += [*_backward(params, passed, y, deltas, loss), *_gradients(passed, deltas, gradients)]
    weights = Symbol("W^{1}", np.asarray(params[0].W))
    right = (_transposed(weights), r" \, ", Symbol(r"\delta^{1}", np.asarray(deltas[0])))
    found.append(_numbered("gradients", equations.BY_INPUT, Symbol(r"\partial C/\partial x", np.asarray(of_x)), right))
    sizes = "-".join(str(layer.W.shape[1]) for layer in params) + f"-{params[-1].W.shape[0]}"
    functions = dict.fromkeys([*(layer.activation for layer in params), loss])
    return Explanation(f"{sizes}, {len(params)} layers, one example", tuple(map(_described, functions)), tuple(found))


def _numbered(part: str, line: equations.Equation, left: Symbol, right: tuple) -> Equation:
    """A line of ``fnn.equations`` with its number and its sources."""
    return Equation(part, line.number, line.sources, left, right)


def _described(function) -> str:
    """The function with the first paragraph of its docstring, which is its formula."""
    text = inspect.getdoc(type(function)) or ""
    return f"{function}: {' '.join(text.split(chr(10) * 2)[0].split())}"


def _transposed(symbol: Symbol) -> Symbol:
    name = symbol.name if re.fullmatch(r"\w+", symbol.name) else f"({symbol.name})"
    return Symbol(
        rf"{name}^\mathsf{{T}}", np.atleast_2d(symbol.value).T if symbol.value.ndim == 2 else symbol.value[None]
    )


def _symbols(passed, letter: str) -> Callable[[int], Symbol]:
    """ℓ -> a^ℓ (x for ℓ = 0) or z^ℓ."""

    def symbol(number: int) -> Symbol:
        value = passed[0].a_in if number == 0 else getattr(passed[number - 1], letter)
        return Symbol(f"{letter}^{{{number}}}", np.asarray(value))

    return symbol


def _forward(params, passed) -> Iterator[Equation]:
    a, z = _symbols(passed, "a"), _symbols(passed, "z")
    yield Equation("forward", "", "", a(0), ("x",))
    for number, layer in enumerate(params, 1):
        W, b = Symbol(f"W^{{{number}}}", np.asarray(layer.W)), Symbol(f"b^{{{number}}}", np.asarray(layer.b))
        yield Equation("forward", "", equations.PSI.sources, z(number), (W, r" \, ", a(number - 1), " + ", b))
        yield Equation("forward", "", equations.ACTIVATION.sources, a(number), (r"\sigma(", z(number), ")"))


def _loss(passed, y, value, loss: Loss) -> Iterator[Equation]:
    last = _symbols(passed, "a")(len(passed))
    right = ("L(", last, r",\, ", Symbol("y", np.asarray(y)), ")")
    yield Equation("loss", "", "", Symbol("C", np.asarray(value)), right)


def _backward(params, passed, y, deltas, loss: Loss) -> Iterator[Equation]:
    a, z, count = _symbols(passed, "a"), _symbols(passed, "z"), len(params)
    y = np.asarray(y)
    outputs, targets = a(count).value[None], y[None]
    of_a = Symbol(
        rf"\partial L/\partial a^{{{count}}}", np.asarray(loss.gradient(jnp.asarray(outputs), jnp.asarray(targets)))[0]
    )
    yield Equation("backward", "", "", of_a, (r"\partial L/\partial a(", a(count), r",\, ", Symbol("y", y), ")"))
    for number in range(count, 0, -1):
        delta = Symbol(rf"\delta^{{{number}}}", np.asarray(deltas[number - 1]))
        above, line = of_a, equations.OUTPUT_DELTA
        if number < count:
            W = Symbol(f"W^{{{number + 1}}}", np.asarray(params[number].W))
            delta_above = Symbol(rf"\delta^{{{number + 1}}}", np.asarray(deltas[number]))
            g = RULES.input_gradient(deltas[number][None], params[number].W)[0]
            above, line = Symbol(f"g^{{{number}}}", np.asarray(g)), equations.HIDDEN_DELTA
            yield _numbered("backward", equations.INPUT_GRADIENT, above, (_transposed(W), r" \, ", delta_above))
        yield from _through(params[number - 1].activation, z(number), a(number), above, delta, line)


def _through(activation, z: Symbol, a: Symbol, above: Symbol, delta: Symbol, line) -> Iterator[Equation]:
    """From ∂/∂a to δ: the derivative and the product, or the product with the Jacobian if σ is not elementwise."""
    try:
        slope = Symbol(rf"\sigma'({z.name})", np.asarray(activation.derivative(z.value, a.value)))
    except TypeError:  # not elementwise
        jacobian = rf"(\partial {a.name}/\partial {z.name})^\mathsf{{T}} \, "
        yield Equation("backward", line.number, "B12", delta, (jacobian, above))
        return
    yield Equation("backward", "", "", slope, (r"\sigma'(", z, ")"))
    yield _numbered("backward", line, delta, (above, r" \odot ", slope))


def _gradients(passed, deltas, gradients) -> Iterator[Equation]:
    a = _symbols(passed, "a")
    for number, gradient in enumerate(gradients, 1):
        delta = Symbol(rf"\delta^{{{number}}}", np.asarray(deltas[number - 1]))
        W = Symbol(rf"\partial C/\partial W^{{{number}}}", np.asarray(gradient.W))
        b = Symbol(rf"\partial C/\partial b^{{{number}}}", np.asarray(gradient.b))
        yield _numbered("gradients", equations.WEIGHT_GRADIENT, W, (delta, r" \, ", _transposed(a(number - 1))))
        yield _numbered("gradients", equations.BIAS_GRADIENT, b, (delta,))
