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
    there is a batch norm, else δ; of a graph at neuron {k}. latex: the same without indices. said: how an error names
    it. rule: the field of ``fnn.Rules``, or of ``fnn.curvature.TangentRules``, that computes it, or "". part: which of
    the rule's results. sources: where it is printed. axes: what its entries count.
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

    def of(self, **names) -> str:
        """The numbered formula of a graph, whose neurons and arrows have names and no layer."""
        return f"{self.number} {self.text.format(**names)}".strip()


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


# -- the lines of a graph: k is a neuron, j → k an arrow -------------------------------------------------------

NEURONS, BY_ARROW = ("neuron", "example"), ("arrow",)
SUM, DIRECT, SLOPE = "(sum over l of lambda[l] w[l,{k}])", "dL/do[{k}]", " * sigma'(z[{k}])"

GRAPH_PSI = Equation("(S1)", "psi[{k}] = (sum over l of w[{k},l] o[l]) + beta[{k}]",
                     r"\psi_k = \sum_{l \to k} w_{kl} o_l + \beta_k", "psi of neuron {k!r}", "", "S1",
                     NEURONS)  # fmt: skip
GRAPH_NORMALISE = Equation("(S6)", "z[{k}] = gamma[{k}] * x_hat[{k}] + beta[{k}] of the batch norm",
                           r"z_k = \gamma_k \hat{x}_k + \beta_k", "z of neuron {k!r}", "normalise", "S6",
                           NEURONS)  # fmt: skip
GRAPH_ACTIVATION = Equation("(S1)", "o[{k}] = sigma(z[{k}])", r"o_k = \sigma_k(z_k)", "a of neuron {k!r}", "", "S1",
                            NEURONS)  # fmt: skip
LAMBDA = Equation("(4)", "lambda{at} = " + SUM + SLOPE,
                  r"\lambda_k = \sum_{k \to l} \lambda_l w_{lk} \, \sigma_k'(z_k)", "lambda of neuron {k!r}", "", "S2",
                  NEURONS)  # fmt: skip
ARROW_GRADIENT = Equation("(2)", "dC/dw[k,j] = lambda[k] * o[j], over the examples",
                          r"\partial C/\partial w_{kj} = \lambda_k o_j", "gradient of the arrow {j!r} -> {k!r}",
                          "weight_gradient", "S2", BY_ARROW)  # fmt: skip
NEURON_GRADIENT = Equation("(3)", "dC/dbeta[k] = lambda[k], over the examples",
                           r"\partial C/\partial \beta_k = \lambda_k", "gradient of the biases", "bias_gradient", "S2",
                           NEURONS[:1])  # fmt: skip
GRAPH_NORM = (
    Equation("(20-25)", "dC/dgamma[k] of the batch norm", NORM_PULLBACK[1].latex, "gradient of gamma", "norm_pullback",
             "S7, S8", NEURONS[:1], 1),
    Equation("(20-25)", "dC/dbeta[k] of the batch norm", NORM_PULLBACK[2].latex, "gradient of beta", "norm_pullback",
             "S7, S8", NEURONS[:1], 2),
)  # fmt: skip
GRAPH_EQUATIONS = (GRAPH_PSI, GRAPH_NORMALISE, GRAPH_ACTIVATION, LOSS, LAMBDA, ARROW_GRADIENT, NEURON_GRADIENT,
                   *GRAPH_NORM)  # fmt: skip


def lambda_of(computed: bool, sends: bool, output: bool) -> Equation:
    """(4) of a neuron: an input, whose σ is the identity, or computed; with outgoing arrows or not; an output or not.

    >>> lambda_of(computed=True, sends=False, output=True).of(at="[y]", k="y")
    "(4) lambda[y] = dL/do[y] * sigma'(z[y])"
    """
    terms = [term + SLOPE * computed for term, there in ((SUM, sends), (DIRECT, output)) if there]
    return LAMBDA._replace(text="lambda{at} = " + (" + ".join(terms) or "0"))


# -- the lines of the R-operator: R{f} is the change of f along a direction (V, c), on a graph (v, c) ----------

PEARLMUTTER = "Pearlmutter 1994"

PSI_CHANGE = Equation("", "{left} = R{{a[{m}]}} W[{n}]^T + a[{m}] V[{n}]^T + c[{n}]",
                      r"R\{\psi\} = W R\{a\} + V a + c", "R{{psi}} of layer {n}", "psi", PEARLMUTTER,
                      UNITS)  # fmt: skip
NORMALISE_CHANGE = Equation("", "R{{z[{n}]}}, of the batch norm",
                            r"R\{z\} = R\{\gamma\} \odot \hat{x} + \gamma \odot R\{\hat{x}\} + R\{\beta\}",
                            "R{{z}} of layer {n} (of its batch norm)", "normalise", PEARLMUTTER, UNITS)  # fmt: skip
ACTIVATION_CHANGE = Equation("", "R{{a[{n}]}} = sigma'(z[{n}]) * R{{z[{n}]}}", r"R\{a\} = \sigma'(z) \odot R\{z\}",
                             "R{{a}} of layer {n}", "activation", PEARLMUTTER, UNITS)  # fmt: skip
OUTPUT_CHANGE = Equation(
    "", "{left} = d2L/da2 R{{a[{n}]}} * sigma'(z[{n}]) + dL/da[{n}] * sigma''(z[{n}]) * R{{z[{n}]}}",
    r"R\{\delta^L\} = (\partial^2 L/\partial a^2 \, R\{a\}) \odot \sigma'(z) + "
    r"\partial L/\partial a \odot \sigma''(z) \odot R\{z\}",
    "R{{delta}} of layer {n}, at the output", "output_delta", PEARLMUTTER, UNITS)  # fmt: skip
HIDDEN_CHANGE = Equation("", "{left} = R{{g[{n}]}} * sigma'(z[{n}]) + g[{n}] * sigma''(z[{n}]) * R{{z[{n}]}}",
                         r"R\{\delta\} = R\{g\} \odot \sigma'(z) + g \odot \sigma''(z) \odot R\{z\}",
                         "R{{delta}} of layer {n}", "hidden_delta", PEARLMUTTER, UNITS)  # fmt: skip
NORM_CHANGE = (
    Equation("", "R{{delta[{n}]}} of the batch norm",
             r"R\{\delta\} = R\{(h - \bar h - \hat{x} \overline{h \hat{x}}) / s\}",
             "R{{delta}} of layer {n}, behind its batch norm", "norm_pullback", PEARLMUTTER, UNITS),
    Equation("", "R{{dC/dgamma[{n}]}}", r"R\{\partial C/\partial\gamma\} = R\{\sum \delta_z \hat{x}\}",
             "R{{gradient of norm.gamma}} of layer {n}", "norm_pullback", PEARLMUTTER, BY_NEURON, 1),
    Equation("", "R{{dC/dbeta[{n}]}} = sum over examples of R{{d/dz[{n}]}}",
             r"R\{\partial C/\partial\beta\} = \sum R\{\delta_z\}", "R{{gradient of norm.beta}} of layer {n}",
             "norm_pullback", PEARLMUTTER, BY_NEURON, 2),
)  # fmt: skip
WEIGHT_CHANGE = Equation("", "R{{dC/dW[{n}]}} = R{{delta[{n}]}}^T a[{m}] + delta[{n}]^T R{{a[{m}]}}",
                         r"R\{\partial C/\partial W\} = R\{\delta\} a^\mathsf{T} + \delta R\{a\}^\mathsf{T}",
                         "R{{gradient of W}} of layer {n}", "weight_gradient", PEARLMUTTER, WEIGHTS)  # fmt: skip
BIAS_CHANGE = Equation("", "R{{dC/db[{n}]}} = sum over examples of R{{delta[{n}]}}",
                       r"R\{\partial C/\partial b\} = R\{\delta\}", "R{{gradient of b}} of layer {n}", "bias_gradient",
                       PEARLMUTTER, BY_NEURON)  # fmt: skip
INPUT_CHANGE = Equation("", "{left} = R{{delta[{n}]}} W[{n}] + delta[{n}] V[{n}]",
                        r"R\{g\} = W^\mathsf{T} R\{\delta\} + V^\mathsf{T} \delta", "R{{g}} of layer {m}",
                        "input_gradient", PEARLMUTTER, INPUTS)  # fmt: skip
CHANGES = (PSI_CHANGE, NORMALISE_CHANGE, ACTIVATION_CHANGE, OUTPUT_CHANGE, HIDDEN_CHANGE, *NORM_CHANGE, WEIGHT_CHANGE,
           BIAS_CHANGE, INPUT_CHANGE)  # fmt: skip

COLUMNS = ("example", "neuron")
GRAPH_PSI_CHANGE = Equation(
    "", "R{{psi{at}}} = (sum over l of w[{k},l] R{{o[l]}} + v[{k},l] o[l]) + c[{k}]",
    r"R\{\psi_k\} = \sum_{l \to k} (w_{kl} R\{o_l\} + v_{kl} o_l) + c_k", "R{{psi}} of neuron {k!r}", "psi",
    PEARLMUTTER, COLUMNS)  # fmt: skip
GRAPH_NORMALISE_CHANGE = NORMALISE_CHANGE._replace(
    text="R{{z{at}}}, of the batch norm", said="R{{z}} of neuron {k!r}", axes=COLUMNS
)
GRAPH_ACTIVATION_CHANGE = Equation("", "R{{o{at}}} = sigma'(z[{k}]) * R{{z[{k}]}}",
                                   r"R\{o_k\} = \sigma_k'(z_k) R\{z_k\}", "R{{o}} of neuron {k!r}", "activation",
                                   PEARLMUTTER, COLUMNS)  # fmt: skip
GRAPH_OUTPUT_CHANGE = OUTPUT_CHANGE._replace(
    text="R{{{of}{at}}} at the output = (d2L/do2 R{{o}})[{k}] * sigma'(z[{k}])"
    " + dL/do[{k}] * sigma''(z[{k}]) * R{{z[{k}]}}",
    said="R{{lambda}} of neuron {k!r}, at the output",
    axes=COLUMNS,
)
LAMBDA_CHANGE = Equation("", "R{{{of}{at}}} = R{{g[{k}]}} * sigma'(z[{k}]) + g[{k}] * sigma''(z[{k}]) * R{{z[{k}]}}",
                         r"R\{\lambda_k\} = R\{g_k\} \sigma_k'(z_k) + g_k \sigma_k''(z_k) R\{z_k\}",
                         "R{{lambda}} of neuron {k!r}", "hidden_delta", PEARLMUTTER, COLUMNS)  # fmt: skip
GRAPH_INPUT_CHANGE = Equation(
    "", "R{{lambda{at}}} = sum over l of R{{lambda[l]}} w[l,{k}] + lambda[l] v[l,{k}]",
    r"R\{g_k\} = \sum_{k \to l} (R\{\lambda_l\} w_{lk} + \lambda_l v_{lk})", "R{{g}} of neuron {k!r}",
    "input_gradient", PEARLMUTTER, COLUMNS)  # fmt: skip
GRAPH_NORM_CHANGE = tuple(
    equation._replace(text=f"R{{{{{left}{{at}}}}}} of the batch norm", said=said, axes=axes)
    for equation, left, said, axes in zip(
        NORM_CHANGE,
        ("lambda", "dC/dgamma", "dC/dbeta"),
        ("R{{lambda}} of neuron {k!r}, behind its batch norm", "R{{gradient of gamma}}", "R{{gradient of beta}}"),
        (COLUMNS, COLUMNS[1:], COLUMNS[1:]),
    )
)
ARROW_CHANGE = Equation("", "R{{dC/dw[k,j]}} = R{{lambda[k]}} * o[j] + lambda[k] * R{{o[j]}}, over the examples",
                        r"R\{\partial C/\partial w_{kj}\} = R\{\lambda_k\} o_j + \lambda_k R\{o_j\}",
                        "R{{gradient of the arrow}} {j!r} -> {k!r}", "weight_gradient", PEARLMUTTER,
                        BY_ARROW)  # fmt: skip
NEURON_CHANGE = Equation("", "R{{dC/dbeta[k]}} = R{{lambda[k]}}, over the examples",
                         r"R\{\partial C/\partial \beta_k\} = R\{\lambda_k\}", "R{{gradient of the biases}}",
                         "bias_gradient", PEARLMUTTER, COLUMNS[1:])  # fmt: skip
GRAPH_CHANGES = (GRAPH_PSI_CHANGE, GRAPH_NORMALISE_CHANGE, GRAPH_ACTIVATION_CHANGE, GRAPH_OUTPUT_CHANGE, LAMBDA_CHANGE,
                 GRAPH_INPUT_CHANGE, *GRAPH_NORM_CHANGE, ARROW_CHANGE, NEURON_CHANGE)  # fmt: skip


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
