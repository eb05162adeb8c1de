"""``fnn.explain``: the lines of ``fnn.equations`` for one example, with their numbers filled in."""

import html
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn import equations
from fnn.backward import RULES
from fnn.checks import targets
from fnn.checks.arrays import AnyArray, native
from fnn.equations import graph_lines, graphs, layers, lines
from fnn.functions import Objective, forward, given_target, results, trace
from fnn.graph.graph import GraphParams
from fnn.kinds import LAYERS, AnyParams, given, kind
from fnn.layers import Params
from fnn.losses import Loss, SquaredError
from fnn.markup import SMALL, grid, is_small, marked_up, matrix, numbers, plain, shape
from fnn.runs import Run, network_of
from fnn.stacking import unstack

LINE = "text-align:left;vertical-align:middle;padding:2px 10px;white-space:nowrap"
LETTER = r"(?:\\(?:beta|delta|lambda)|[A-Za-z])(?:[_^]\{[^}]*\})?"
SYMBOL = re.compile(  # a transpose, a slope, a derivative, or a letter with its index
    rf"\({LETTER}\)\^\\mathsf{{T}}|\\sigma(?:_\{{[^}}]*\}})?'\({LETTER}\)|\\partial [CL]/\\partial {LETTER}"
    rf"|(?<![A-Za-z\\{{,])(?<!\\partial ){LETTER}(?![A-Za-z])"
)
PARTS = {
    **dict.fromkeys((layers.PSI, layers.ACTIVATION, graphs.GRAPH_PSI, graphs.GRAPH_ACTIVATION), "forward"),
    layers.LOSS: "loss",
    **dict.fromkeys((layers.WEIGHT_GRADIENT, layers.BIAS_GRADIENT, layers.BY_INPUT), "gradients"),
    **dict.fromkeys((graphs.ARROW_GRADIENT, graphs.NEURON_GRADIENT), "gradients"),
}  # of all other lines: "backward"


class Equation(NamedTuple):
    """One line of the computation.

    part: "forward", "loss", "backward" or "gradients"; number, sources: as in ``fnn.equations``; formula: in LaTeX;
    value: that of its left side; symbols: the values of the symbols on its right side.
    """

    part: str
    number: str
    sources: str
    formula: str
    value: np.ndarray
    symbols: dict[str, np.ndarray] = {}

    @property
    def left(self) -> str:
        """The computed symbol in LaTeX; the whole formula if it has one side."""
        return self.formula.split(" = ")[0]

    @property
    def right(self) -> str:
        """What it is computed from, in LaTeX; the whole formula if it has one side."""
        return self.formula.split(" = ")[-1]

    def substituted(self) -> str | None:
        """The right side with numbers for symbols; None without any, with a sum, or above 8 rows or columns."""
        if not self.symbols or "\\sum" in self.right or not all(map(is_small, (*self.symbols.values(), self.value))):
            return None
        right = self.right if self.value.ndim else self.right.replace(r" \, ", r" \cdot ")  # a product of numbers

        def written(name: str) -> str | None:
            if name not in self.symbols:
                return None
            value = self.symbols[name]
            return f"({matrix(value)})" if value.ndim == 0 and value < 0 and r"\cdot" in right else matrix(value)

        return replaced(right, written)


def replaced(latex: str, written: Callable[[str], str | None]) -> str:
    """The formula with ``written(symbol)`` for every symbol; where that is None, for the symbols inside it."""

    def at(found: re.Match) -> str:
        symbol = found[0]
        return symbol[0] + replaced(symbol[1:], written) if (text := written(symbol)) is None else text

    return SYMBOL.sub(at, latex)


@dataclass(frozen=True)
class Explanation:
    """The result of :func:`explain`: ``equations`` with their values, as text, :meth:`latex`, or HTML in a notebook.

    title: the network; functions: what each activation and the loss compute.
    """

    title: str
    functions: tuple[str, ...]
    equations: tuple[Equation, ...]

    def __str__(self) -> str:
        written = [self.title, *(f"  {function}" for function in self.functions)]
        for part, found in self._parts():
            written += ["", part]
            for equation in found:
                formula = f"  {equation.number:5}{plain(equation.formula)}"
                written.append(f"{formula:45} {shape(equation.value):12}{equation.sources}".rstrip())
                if is_small(equation.value):
                    written += (f"{'':9}{row}" for row in numbers(equation.value).splitlines())
        return "\n".join(written)

    __repr__ = __str__

    def latex(self) -> str:
        """An ``align*`` environment with every equation in symbols and, if its arrays are small, in numbers."""
        written = []
        for equation in self.equations:
            tag = rf" && \text{{{equation.number}}}" if equation.number else ""
            formula, substituted = equation.formula.replace(" = ", " &= ", 1), equation.substituted()
            in_numbers = "" if substituted is None else rf"&= {substituted} = {matrix(equation.value)}"
            written += [formula + tag, in_numbers] if "&" in formula else [f"{formula} {in_numbers}{tag}"]
        return "\\begin{align*}\n" + " \\\\\n".join(filter(None, written)) + "\n\\end{align*}"

    def _repr_html_(self) -> str:
        rows = []
        for part, found in self._parts():
            rows.append(f'<tr><th colspan="5" style="text-align:left;padding:8px 10px 2px">{part}</th></tr>')
            for equation in found:
                value = equation.value
                cells = (
                    html.escape(equation.number), marked_up(equation.formula), shape(value),
                    grid(value) if is_small(value) else "", html.escape(equation.sources),
                )  # fmt: skip
                rows.append("<tr>" + "".join(f'<td style="{LINE}">{cell}</td>' for cell in cells) + "</tr>")
        functions = "".join(f"<br>{html.escape(function)}" for function in self.functions)
        return f"<p><b>{html.escape(self.title)}</b>{functions}</p><table>{''.join(rows)}</table>"

    def _parts(self) -> Iterator[tuple[str, list[Equation]]]:
        for part in dict.fromkeys(equation.part for equation in self.equations):
            yield part, [equation for equation in self.equations if equation.part == part]


def explain(params: AnyParams | Run, x: AnyArray, y: AnyArray, *, loss: Loss = SquaredError()) -> Explanation:
    """Every z, a, δ and gradient for one example, each with its equation, its shape and, if small, its numbers.

    params: layers or a graph, without batch norm, because that needs more than one example; or a ``fnn.train.Run``, of
    which the ``network`` is meant. x: (n_0,); y: (n_L,), or an
    integer label if the loss takes labels; loss: see ``fnn.losses``. Vectors are columns here, as in textbooks:
    z = W a + b and g = Wᵀ δ. A graph has one line per neuron and per arrow, whose indices are the neurons' names.
    Raises TypeError or ValueError that names the argument.

    >>> import jax, fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2), output=fnn.Sigmoid())
    >>> explanation = fnn.explain(params, jax.numpy.ones(3), jax.numpy.zeros(2))
    >>> [equation.number for equation in explanation.equations if equation.part == "backward"]
    ['', '', '(1)', '(2a)', '', '(2b)']
    """
    network: Any = native(network_of(params))
    of = kind(network)
    of.require(network)
    _, x, _ = given(network, x, None, RULES)
    if x.ndim != 1:
        raise ValueError(f"x: expected one example of shape (n_0,), got {x.shape}; write x[0]")
    if of.has_norm(network):
        raise ValueError(
            "params: a batch norm needs more than one example; write "
            "fnn.explain(fnn.fold(params, statistics=fnn.statistics(params, batches)), x, y)"
        )
    y = targets.target_rows(jnp.asarray(given_target(network, y, loss)), forward(network, x), loss)
    if of is LAYERS:
        network = unstack(network)
    rows = (_of_layers if of is LAYERS else _of_graph)(network, x, y, loss)
    title, activations = _named(network)
    functions = tuple(map(_described, dict.fromkeys([*activations, loss])))
    return Explanation(f"{title}, one example", functions, tuple(_with_symbols(rows)))


def _named(params) -> tuple[str, list]:
    """The network in words, and its activations."""
    if isinstance(params, GraphParams):
        return str(params.graph), [params.graph.activations[k] for k in np.flatnonzero(params.graph.generation)]
    sizes = "-".join(map(str, [params[0].W.shape[1], *(len(layer.W) for layer in params)]))
    return f"{sizes}, {len(params)} layers", [layer.activation for layer in params]


def _described(function) -> str:
    """The function with the first paragraph of its docstring, which is its formula."""
    text = inspect.getdoc(type(function)) or ""
    return f"{function}: {' '.join(text.split(chr(10) * 2)[0].split())}"


def _with_symbols(rows: Iterable[Equation]) -> Iterator[Equation]:
    """The rows with values for their symbols, taken from earlier left sides; rows of given values are dropped."""
    values: dict[str, np.ndarray] = {}

    def noted(name: str) -> str | None:
        transposed = name.startswith("(")
        value = values.get(name[1:].partition(")")[0] if transposed else name)
        if value is None:
            return None
        used[name] = np.atleast_2d(value.T if value.ndim == 2 else value) if transposed else value  # vectors: columns
        return ""

    for row in rows:
        used: dict[str, np.ndarray] = {}
        replaced(row.right, noted)
        values[row.left] = np.asarray(row.value)
        if row.part:
            yield row._replace(value=values[row.left], symbols=used)


def _given(symbol: str, value) -> Equation:
    return Equation("", "", "", symbol, value)


def _factor(formula: str, value) -> Equation:
    """A factor of a δ, which has no line of its own in ``fnn.equations``."""
    return Equation("backward", "", "", formula, value)


def _line(line: equations.Equation, formula: str, value) -> Equation:
    """A line of ``fnn.equations``; z is ψ, because there is no batch norm."""
    return Equation(PARTS.get(line, "backward"), line.number, line.sources, formula.replace(r"\psi", "z"), value)


def _of_layers(params: Params, x, y, loss: Loss) -> Iterator[Equation]:
    yield _given("y", y[0])
    for n, layer in enumerate(params, 1):
        yield from (_given(f"W^{{{n}}}", layer.W), _given(f"b^{{{n}}}", layer.b))
    yield Equation("forward", "", "", "a^{0} = x", x)
    for line in lines(params, x[None], y, loss=loss):
        equation, n = line.equation, line.layer
        if equation is layers.OUTPUT_DELTA:
            left = rf"\partial L/\partial a^{{{n}}}"
            yield _factor(rf"{left} = \partial L/\partial a(a^{{{n}}},\, y)", loss.gradient(line.arguments[3], y)[0])
        if equation in (layers.OUTPUT_DELTA, layers.HIDDEN_DELTA):
            activation, z, a = line.arguments[1:4]
            try:
                yield _factor(rf"\sigma'(z^{{{n}}})", activation.derivative(z, a)[0])
            except (TypeError, AttributeError):  # not elementwise, or a user's, which need not have a derivative
                equation = layers.through_jacobian(equation)
        yield _line(equation, equation.latex_at(n), line.value[0] if equation.axes[0] == "example" else line.value)


def _of_graph(params: GraphParams, x, y, loss: Loss) -> Iterator[Equation]:
    graph, names, want = params.graph, [*map(graphs.label, params.graph.neurons)], ("loss", "deltas", "gradients")
    a, computed = forward(params, x), (trace(params, x), *results(want, params, x, y[0], None, Objective(loss, "sum")))
    params, (passed, *derivatives) = jax.tree.map(np.asarray, (params, computed))
    yield from (_given("y", y[0]), _given("o", a))
    yield from (_given(f"o_{{{names[k]}}}", value) for k, value in zip(graph.inputs, x))
    yield from (_given(rf"\beta_{{{name}}}", bias) for name, bias in zip(names, params.biases))
    for (j, k), weight in zip(graph.arrows, params.weights):
        yield _given(f"w_{{{names[k]},{names[j]}}}", weight)
    by_output = dict(zip(graph.outputs.tolist(), np.asarray(loss.gradient(a[None], y)[0])))
    for line in graph_lines(graph, passed, *derivatives):
        equation, k, j = line.equation, line.k, line.j
        if k is None:
            yield _line(equation, equation.latex.replace("a^L", "o"), line.value)
            continue
        if equation.said == graphs.LAMBDA.said and k in by_output:
            yield _factor(rf"\partial L/\partial o_{{{names[k]}}}", by_output[k])
        if equation.said == graphs.LAMBDA.said and graph.generation[k] > 0:
            slope = graph.kinds[graph.kind[k]].pullback(np.ones_like(passed.z[k]), passed.z[k], passed.a[k])
            yield _factor(rf"\sigma_{{{names[k]}}}'(z_{{{names[k]}}})", slope)
        this, other = (1, 0) if equation is graphs.GRAPH_PSI else (0, 1)  # the sum is over senders, or receivers
        others = [names[i] for i in graph.arrows[graph.arrows[:, this] == k, other]]
        few = others if 0 < len(others) <= SMALL else None
        formula = graphs.latex_of(equation, names[k], None if j is None else names[j], few)
        yield _line(equation, formula, line.value)
