"""``fnn.explain``: the lines of ``fnn.equations`` for one example, with their numbers filled in."""

import html
import inspect
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn  # for fnn.verify, which is loaded at first use
from fnn import equations, files, page
from fnn.backward import RULES, Rules
from fnn.checks import targets
from fnn.checks.arrays import AnyArray, native
from fnn.checks.network import exact
from fnn.equations import graph_lines, graphs, layers, lines
from fnn.functions import Objective, forward, given_target, results, trace
from fnn.graph.graph import Graph, GraphParams
from fnn.kinds import LAYERS, AnyParams, given, kind
from fnn.layers import Params
from fnn.losses import Loss, SquaredError
from fnn.markup import SMALL, counted, grid, is_small, marked_up, matrix, numbers, plain, shape
from fnn.numbers import number
from fnn.runs import Run, network_of
from fnn.stacking import unstack
from fnn.substitution import Equation, replaced

LINE = "text-align:left;vertical-align:middle;padding:2px 10px;white-space:nowrap"
WRONG = "background:#f8dada;color:#111"  # readable on dark pages too
RATE = 0.1  # η of the update on the page
MOST_FRAMED, MOST_ROWS = 10_000, 300  # weights and biases of a page, and lines of a table, inside a notebook
PARTS = {
    **dict.fromkeys((layers.PSI, layers.ACTIVATION, graphs.GRAPH_PSI, graphs.GRAPH_ACTIVATION), "forward"),
    layers.LOSS: "loss",
    **dict.fromkeys((layers.WEIGHT_GRADIENT, layers.BIAS_GRADIENT, layers.BY_INPUT), "gradients"),
    **dict.fromkeys((graphs.ARROW_GRADIENT, graphs.NEURON_GRADIENT), "gradients"),
}  # of all other lines: "backward"
QUANTITIES = {
    **dict.fromkeys((layers.PSI.said, graphs.GRAPH_PSI.said), "z"),
    **dict.fromkeys((layers.ACTIVATION.said, graphs.GRAPH_ACTIVATION.said), "a"),
    **dict.fromkeys((layers.OUTPUT_DELTA.said, layers.HIDDEN_DELTA.said, graphs.LAMBDA.said), "delta"),
    **dict.fromkeys((layers.WEIGHT_GRADIENT.said, graphs.ARROW_GRADIENT.said), "dw"),
    **dict.fromkeys((layers.BIAS_GRADIENT.said, graphs.NEURON_GRADIENT.said), "db"),
    **dict.fromkeys((layers.INPUT_GRADIENT.said, layers.BY_INPUT.said), "g"),
    layers.LOSS.said: "loss",
}


@dataclass(frozen=True)
class Explanation:
    """The result of :func:`explain`: ``equations`` with their values, as text, :meth:`latex`, HTML, or a :meth:`page`.

    title: the network; functions: what each activation and the loss compute. params, x, y: as they were given, a stack
    taken apart. checked: with custom rules, what ``fnn.verify`` found, in one line; ok: whether nothing was wrong.
    """

    title: str
    functions: tuple[str, ...]
    equations: tuple[Equation, ...]
    params: Any
    x: Any
    y: Any
    checked: str = ""
    ok: bool = True

    def __str__(self) -> str:
        checked = [f"  {self.checked}"] if self.checked else []
        written = [self.title, *(f"  {function}" for function in self.functions), *checked]
        for part, found in self._parts():
            written += ["", part]
            for equation in found:
                formula = f"  {equation.number:5}{plain(equation.formula)}"
                written.append(f"{formula:45} {shape(equation.value):12}{equation.sources}".rstrip())
                if is_small(equation.value):
                    written += (f"{'':9}{row}" for row in numbers(equation.value).splitlines())
                if equation.wrong:
                    written.append(f"{'':7}WRONG: {equation.wrong}")
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
        """The page in a frame, if it is small, and a table of the equations, which viewers without scripts show too."""
        functions = "".join(f"<br>{html.escape(said)}" for said in (*self.functions, self.checked) if said)
        title, table = html.escape(self.title), f"<table>{''.join(self._rows())}</table>"
        if sum(leaf.size for leaf in jax.tree.leaves(self.params)) > MOST_FRAMED:
            return f"<p><b>{title}</b>{functions}</p>{table}<p>To step through it: .page('backprop.html').</p>"
        frame = page.framed(page.written(self, list(self._parts()), RATE), self.title)
        return f"{frame}<details><summary>{title}: all equations</summary><p>{functions[4:]}</p>{table}</details>"

    def _rows(self) -> Iterator[str]:
        """Those of the table: the first equations, each under its part."""
        left = MOST_ROWS
        for part, found in self._parts():
            yield f'<tr><th colspan="5" style="text-align:left;padding:8px 10px 2px">{part}</th></tr>'
            for equation in found[:left]:
                value = equation.value
                cells = (
                    html.escape(equation.number), marked_up(equation.formula), shape(value),
                    grid(value) if is_small(value) else "", html.escape(equation.sources),
                )  # fmt: skip
                yield "<tr>" + "".join(f'<td style="{LINE}">{cell}</td>' for cell in cells) + "</tr>"
                if equation.wrong:
                    wrong = f'<td colspan="4" style="{LINE};{WRONG}">WRONG: {html.escape(equation.wrong)}</td>'
                    yield f"<tr><td></td>{wrong}</tr>"
            if len(found) > left:
                yield f'<tr><td colspan="5" style="{LINE}">and {len(found) - left} more; print(...) shows all</td></tr>'
            left = max(0, left - len(found))

    def page(self, path: str | os.PathLike, *, rate: float = RATE) -> Path:
        """Write one HTML file that draws the network and steps through this computation with the arrow keys.

        path: the file, which is written atomically and may replace an older one. rate: η > 0 for the update W − η ∂C/∂W
        at the end. The file is self-contained and works offline. A click on a neuron or a weight shows its equations
        with their numbers; layers of more than 40 neurons are heat maps; a line that ``fnn.verify`` found wrong is red.
        Returns the path. Raises TypeError, ValueError or OSError that names what is wrong.

        >>> import jax, tempfile, fnn
        >>> params = fnn.init(jax.random.key(0), (2, 3, 1))
        >>> folder = tempfile.TemporaryDirectory()
        >>> explanation = fnn.explain(params, jax.numpy.ones(2), jax.numpy.zeros(1))
        >>> explanation.page(f"{folder.name}/backprop.html").name
        'backprop.html'
        >>> folder.cleanup()
        """
        expected = "the path of an HTML file in a folder that exists"
        file = files.path_of("path", path, expected, "backprop.html")
        if file.is_dir() or not file.parent.is_dir():
            raise ValueError(f"path: expected {expected}, got {str(path)!r}; write path='backprop.html'")
        rate = number("page", "rate", rate, above=0)
        files.replace(file, page.written(self, list(self._parts()), rate).encode())
        return file

    def _parts(self) -> Iterator[tuple[str, list[Equation]]]:
        for part in dict.fromkeys(equation.part for equation in self.equations):
            yield part, [equation for equation in self.equations if equation.part == part]


def explain(
    params: AnyParams | Run, x: AnyArray, y: AnyArray, *, loss: Loss = SquaredError(), rules: Rules = RULES
) -> Explanation:
    """Every z, a, δ and gradient for one example, each with its equation, its shape and, if small, its numbers.

    params: layers or a graph, without batch norm, because that needs more than one example; or a ``fnn.train.Run``,
    whose ``network`` is used. x: (n_0,); y: (n_L,), or an integer label if the loss takes labels; loss: see
    ``fnn.losses``. rules: the equations to use; custom ones are checked by ``fnn.verify.network``, and the lines that
    it finds wrong say so. Vectors are columns here, as in textbooks: z = W a + b and g = Wᵀ δ. A graph has one line per
    neuron and per arrow, whose indices are the neurons' names.
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
    _, x, _ = given(network, x, None, rules)
    if x.ndim != 1:
        raise ValueError(f"x: expected one example of shape (n_0,), got {x.shape}; write x[0]")
    if of.has_norm(network):
        raise ValueError(
            "params: a batch norm needs more than one example; write "
            "fnn.explain(fnn.fold(params, statistics=fnn.statistics(params, batches)), x, y)"
        )
    target = targets.target_rows(jnp.asarray(given_target(network, y, loss)), forward(network, x), loss)
    report = None if rules == RULES else fnn.verify.network(network, x, y, loss=loss, rules=rules)
    wrong = {finding.name: _said(finding) for finding in report.wrong} if report else {}
    if of is LAYERS:
        network = unstack(network)
    rows = (_of_layers if of is LAYERS else _of_graph)(network, x, target, _Given(loss, rules, wrong))
    found = tuple(_with_symbols(rows))
    title, activations = _named(network)
    functions = tuple(map(_described, dict.fromkeys([*activations, loss])))
    checked = f"fnn.verify: {report.verdict()}" if report else ""
    shown = {equation.wrong for equation in found}
    others = [f"{name}: {said}" for name, said in wrong.items() if said not in shown]  # such as a rule that raises
    title, checked, y = f"{title}, one example", "; ".join(filter(None, (checked, *others))), np.asarray(target[0])
    return Explanation(title, functions, found, network, np.asarray(x), y, checked, ok=not wrong)


class _Given(NamedTuple):
    """The loss, the rules, and what is wrong by the name of the line."""

    loss: Loss
    rules: Rules
    wrong: dict[str, str]


def _said(finding) -> str:
    """What is wrong, without the place of the worst entry, which is in other data."""
    looks = f"looks like: {finding.note}. " if finding.note else ""
    ours, theirs = finding.sides
    values = "" if finding.hand is None else f"; {ours} {finding.hand:.4g}, {theirs} {finding.oracle:.4g}"
    return f"{looks}Relative error {finding.error:.1e}{values}."


def _named(params) -> tuple[str, list]:
    """The network in words, and its activations."""
    if isinstance(params, GraphParams):
        return str(params.graph), [params.graph.activations[k] for k in np.flatnonzero(params.graph.generation)]
    sizes = "-".join(map(str, [params[0].W.shape[1], *(len(layer.W) for layer in params)]))
    return f"{sizes}, {counted(len(params), 'layer')}", [layer.activation for layer in params]


def _described(function) -> str:
    """The function with the first paragraph of its docstring, which is its formula."""
    text = (inspect.getdoc(type(function)) or "").replace("``", "")
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


def _factor(formula: str, value, quantity: str, place: tuple[int, ...]) -> Equation:
    """A factor of a δ, which has no line of its own in ``fnn.equations``."""
    return Equation("backward", "", "", formula, value, quantity=quantity, place=place)


def _line(line: equations.Equation, formula: str, value, place: tuple[int, ...], wrong: str = "") -> Equation:
    """A line of ``fnn.equations``; z is ψ, because there is no batch norm."""
    part, formula, quantity = PARTS.get(line, "backward"), formula.replace(r"\psi", "z"), QUANTITIES[line.said]
    return Equation(
        part, line.number, line.sources, formula, value, quantity=quantity, place=place, wrong=wrong
    )  # fmt: skip


def _of_layers(params: Params, x, y, of: _Given) -> Iterator[Equation]:
    yield _given("y", y[0])
    for n, layer in enumerate(params, 1):
        yield from (_given(f"W^{{{n}}}", layer.W), _given(f"b^{{{n}}}", layer.b))
    yield Equation("forward", "", "", "a^{0} = x", x, quantity="a", place=(0,))
    for line in lines(params, x[None], y, loss=of.loss, rules=exact(of.rules)):
        equation, n = line.equation, line.layer
        if equation is layers.OUTPUT_DELTA:
            left = rf"\partial L/\partial a^{{{n}}}"
            formula, direct = rf"{left} = \partial L/\partial a(a^{{{n}}},\, y)", of.loss.gradient(line.arguments[3], y)
            yield _factor(formula, direct[0], "direct", (n,))
        if equation in (layers.OUTPUT_DELTA, layers.HIDDEN_DELTA):
            activation, z, a = line.arguments[1:4]
            try:
                yield _factor(rf"\sigma'(z^{{{n}}})", activation.derivative(z, a)[0], "slope", (n,))
            except (TypeError, AttributeError):  # not elementwise, or a user's, which need not have a derivative
                equation = layers.through_jacobian(equation)
        value = line.value[0] if equation.axes[0] == "example" else line.value
        place = n - (equation.rule == "input_gradient")  # g is of the layer below
        yield _line(equation, equation.latex_at(n), value, (place,), of.wrong.get(line.name, ""))


def _of_graph(params: GraphParams, x, y, of: _Given) -> Iterator[Equation]:
    graph, names, want = params.graph, [*map(graphs.label, params.graph.neurons)], ("loss", "deltas", "gradients")
    a, objective = forward(params, x, rules=of.rules), Objective(of.loss, "sum", of.rules)
    computed = trace(params, x, rules=of.rules), *results(want, params, x, y[0], None, objective)
    params, (passed, *derivatives) = jax.tree.map(np.asarray, (params, computed))
    yield from (_given("y", y[0]), _given("o", a))
    yield from (_given(f"o_{{{names[k]}}}", value) for k, value in zip(graph.inputs, x))
    yield from (_given(rf"\beta_{{{name}}}", bias) for name, bias in zip(names, params.biases))
    for (j, k), weight in zip(graph.arrows, params.weights):
        yield _given(f"w_{{{names[k]},{names[j]}}}", weight)
    by_output = dict(zip(graph.outputs.tolist(), np.asarray(of.loss.gradient(a[None], y)[0])))
    for line in graph_lines(graph, passed, *derivatives):
        equation, k, j = line.equation, line.k, line.j
        if k is None:
            yield _line(equation, equation.latex.replace("a^L", "o"), line.value, ())
            continue
        if equation.said == graphs.LAMBDA.said and k in by_output:
            yield _factor(rf"\partial L/\partial o_{{{names[k]}}}", by_output[k], "direct", (k,))
        if equation.said == graphs.LAMBDA.said and graph.generation[k] > 0:
            slope = graph.kinds[graph.kind[k]].pullback(np.ones_like(passed.z[k]), passed.z[k], passed.a[k])
            yield _factor(rf"\sigma_{{{names[k]}}}'(z_{{{names[k]}}})", slope, "slope", (k,))
        this, other = (1, 0) if equation is graphs.GRAPH_PSI else (0, 1)  # the sum is over senders, or receivers
        others = [names[i] for i in graph.arrows[graph.arrows[:, this] == k, other]]
        few = others if 0 < len(others) <= SMALL else None
        formula = graphs.latex_of(equation, names[k], None if j is None else names[j], few)
        wrong = _wrong_in_graph(equation, graph, k, of.wrong)
        yield _line(equation, formula, line.value, (k,) if j is None else (k, j), wrong)


def _wrong_in_graph(equation: equations.Equation, graph: Graph, k: int, wrong: dict[str, str]) -> str:
    """What is wrong with a neuron's line; a report on a large graph has one line for a whole generation."""
    name, generation = graph.neurons[k], f" of generation {graph.generation[k]}"
    names = equation.of(at=f"[{name}]", k=name), graphs.LAMBDA.of(at=generation, k="k")
    own = names if equation.said == graphs.LAMBDA.said else names[:1]
    return next((wrong[name] for name in own if name in wrong), "")
