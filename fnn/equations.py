"""The derivation as data: every line with its number, formula, rule and sources, and a walk that computes them.

``fnn.verify`` compares these lines with automatic differentiation, ``fnn.train.NonFinite`` looks for the first that is
not finite, and ``fnn.explain`` prints them.

The sources are five documents on neural networks and back-propagation; a letter and a number name a printed equation:

    H  Hedges, A brief introduction to neural networks and back propagation (2022)
    L  Lopez Davila, Neural networks: the backpropagation algorithm (2020)
    S  Strabel, The basics of neural networks (2023)
    B  Bhaip, Neural networks III: backpropagation (2021)
    N  handwritten notes, Application: neural networks

``python -m experiments.equations`` runs every one of them as it is printed, and says which are errata.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from fnn.backward import RULES, Rules
from fnn.dropout import Mask, masked
from fnn.layers import Params
from fnn.losses import Loss


class Equation(NamedTuple):
    """One line of the derivation.

    number: as in ``fnn.backward``, or "". text: the formula at layer {n}, with {m} for n − 1 and {left} for ∂/∂z where
    there is a batch norm, else δ. latex: the same without indices. said: how an error names it. rule: the field of
    ``fnn.Rules`` that computes it, or "". part: which of the rule's results. sources: where it is printed. axes: what
    its entries count.
    """

    number: str
    text: str
    latex: str
    said: str
    rule: str
    sources: str
    axes: tuple[str, ...]
    part: int = 0

    def at(self, n: int, left: str = "") -> str:
        """The numbered formula at layer n."""
        return f"{self.number:5}{self.text.format(n=n, m=n - 1, left=left or f'delta[{n}]')}".strip()


UNITS, WEIGHTS, INPUTS = ("example", "unit"), ("unit", "input"), ("example", "input")
BY_NEURON = UNITS[1:]

PSI = Equation("", "psi[{n}] = a[{m}] W[{n}]^T + b[{n}]", r"\psi = W a + b", "psi of layer {n} (psi = a W^T + b)",
               "affine", "H5, L12, N2", UNITS)  # fmt: skip
NORMALISE = Equation("(S6)", "z[{n}] = gamma[{n}] * x_hat[{n}] + beta[{n}]", r"z = \gamma \odot \hat{x} + \beta",
                     "z of layer {n} (its batch norm of psi)", "normalise", "S6", UNITS)  # fmt: skip
ACTIVATION = Equation("", "a[{n}] = sigma(z[{n}])", r"a = \sigma(z)", "a of layer {n} ({activation} of z)", "",
                      "H5, N2", UNITS)  # fmt: skip
LOSS = Equation("", "L(a[{n}], y)", "L(a, y)", "the loss of an example ({loss})", "", "H7, L5, N4", UNITS[:1])
OUTPUT_DELTA = Equation("(1)", "{left} = dL/da[{n}] * sigma'(z[{n}])",
                        r"\delta^L = \partial L/\partial a \odot \sigma'(z)", "(1) delta of layer {n}, at the output,",
                        "output_delta", "B6, S3", UNITS)  # fmt: skip
HIDDEN_DELTA = Equation("(2b)", "{left} = g[{n}] * sigma'(z[{n}])", r"\delta = g \odot \sigma'(z)",
                        "(2b) delta of layer {n} (delta = g * sigma'(z))", "hidden_delta", "H9, B6, S2",
                        UNITS)  # fmt: skip
NORM_PULLBACK = (
    Equation("", "delta[{n}] = pull-back of d/dz[{n}] through the batch norm",
             r"\delta = (h - \bar h - \hat{x} \overline{h \hat{x}}) / s",
             "delta of layer {n}, behind its batch norm's pull-back,", "norm_pullback", "S7, S8", UNITS),
    Equation("", "dC/dgamma[{n}] = sum over examples of d/dz[{n}] * x_hat[{n}]",
             r"\partial C/\partial\gamma = \sum \delta_z \hat{x}", "gradient of norm.gamma of layer {n}",
             "norm_pullback", "S7, S8", BY_NEURON, 1),
    Equation("", "dC/dbeta[{n}] = sum over examples of d/dz[{n}]", r"\partial C/\partial\beta = \sum \delta_z",
             "gradient of norm.beta of layer {n}", "norm_pullback", "S7, S8", BY_NEURON, 2),
)  # fmt: skip
WEIGHT_GRADIENT = Equation("(3)", "dC/dW[{n}] = delta[{n}]^T a[{m}]", r"\partial C/\partial W = \delta a^\mathsf{T}",
                           "(3) gradient of W of layer {n}", "weight_gradient", "H10, B6, S2", WEIGHTS)  # fmt: skip
BIAS_GRADIENT = Equation("(4)", "dC/db[{n}] = sum over examples of delta[{n}]", r"\partial C/\partial b = \delta",
                         "(4) gradient of b of layer {n}", "bias_gradient", "H10, S2", BY_NEURON)  # fmt: skip
INPUT_GRADIENT = Equation("(2a)", "g[{m}] = delta[{n}] W[{n}]", r"g = W^\mathsf{T} \delta",
                          "(2a) g of layer {m} (g = delta W of layer {n})", "input_gradient", "H9, B6, S2",
                          INPUTS)  # fmt: skip
BY_INPUT = INPUT_GRADIENT._replace(
    text="dC/dx = delta[{n}] W[{n}]", said="(2a) the gradient by x (delta W of layer {n})", sources="N5"
)
EQUATIONS = (PSI, NORMALISE, ACTIVATION, LOSS, OUTPUT_DELTA, HIDDEN_DELTA, *NORM_PULLBACK, WEIGHT_GRADIENT,
             BIAS_GRADIENT, INPUT_GRADIENT, BY_INPUT)  # fmt: skip


class Line(NamedTuple):
    """One equation at one layer (from 1) of one mini-batch: what went into it, and its value."""

    equation: Equation
    layer: int
    name: str
    arguments: tuple
    value: Any


def same(quantity: str, layer: int, value):
    """What a later line reads of an earlier one: what that one computed."""
    return value


def call(function: Callable, *arguments):
    return function(*arguments)


def lines(
    params: Params,
    x,
    y,
    *,
    loss: Loss,
    masks: Sequence[Mask] | None = None,
    rules: Rules = RULES,
    read: Callable = same,
    apply: Callable = call,
) -> Iterator[Line]:
    """Every line of the forward and the backward pass in the order of the computation, of the sum over the examples.

    params: ``Dense`` layers, no stacks (``fnn.unstack``); x (B, n_0); y: as the loss takes it. read(quantity, layer,
    value) says what later lines get for "a", "psi", "z", "g", "delta_z" or "delta" of a layer, so that each can be fed
    with somebody else's; apply(function, *arguments) computes one line.

    >>> import jax, fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2))
    >>> x, y = jax.numpy.ones((5, 3)), jax.numpy.zeros((5, 2))
    >>> [line.name for line in lines(params, x, y, loss=fnn.SquaredError()) if line.equation.number == "(3)"]
    ['(3)  dC/dW[2] = delta[2]^T a[1]', '(3)  dC/dW[1] = delta[1]^T a[0]']
    """

    def line(equation: Equation, n: int, function: Callable, *arguments, left: str = "", of=None) -> Line:
        return Line(equation, n, equation.at(n, left), arguments, apply(function, *arguments) if of is None else of)

    masks, a, passed = masks or (Mask(),) * len(params), x, []
    for n, (layer, mask) in enumerate(zip(params, masks), start=1):
        a_in, W = masked(read("a", n - 1, a), mask.units), masked(layer.W, mask.arrows)
        yield (found := line(PSI, n, rules.affine, a_in, W, layer.b))
        z = psi = read("psi", n, found.value)
        if layer.norm is not None:
            yield (found := line(NORMALISE, n, rules.normalise, layer.norm, psi))
            z = read("z", n, found.value)
        yield (found := line(ACTIVATION, n, layer.activation.value, z))
        a = read("a", n, found.value)
        passed.append((n, layer, mask, W, a_in, psi, z, a))
    yield line(LOSS, len(params), loss.value, a, y)
    g: Any = None
    for n, layer, mask, W, a_in, psi, z, a in reversed(passed):
        left = f"delta[{n}]" if layer.norm is None else f"d/dz[{n}]"
        if n == len(params):
            found = line(OUTPUT_DELTA, n, rules.output_delta, loss, layer.activation, z, a, y, left=left)
        else:
            g = read("g", n, g)
            found = line(HIDDEN_DELTA, n, rules.hidden_delta, g, layer.activation, z, a, left=left)
        yield found
        delta = read("delta_z", n, found.value)
        if layer.norm is not None:
            arguments = layer.norm, psi, delta
            parts = apply(rules.norm_pullback, *arguments)
            source = "(S8)" if layer.norm.gradient == "full" else "(S7)"
            for i, equation in enumerate(NORM_PULLBACK):
                part = apply(lambda parts, i=i: parts[i], parts)
                yield line(equation._replace(number=source), n, rules.norm_pullback, *arguments, of=part)
                delta = part if i == 0 else delta
        delta = read("delta", n, delta)
        yield line(WEIGHT_GRADIENT, n, rules.weight_gradient, delta, a_in, mask.arrows)
        yield line(BIAS_GRADIENT, n, rules.bias_gradient, delta)
        yield (found := line(INPUT_GRADIENT if n > 1 else BY_INPUT, n, rules.input_gradient, delta, W, mask.units))
        g = found.value
