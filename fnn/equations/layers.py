"""The lines of a network of layers."""

import re
from typing import NamedTuple

LAYER = re.compile(r"\^(?:\{\\ell-1\}|\\ell|L)")


class Equation(NamedTuple):
    """One line of the derivation.

    number: as in ``fnn.backward``, or "". text: the formula at layer {n}, with {m} for n − 1 and {left} for ∂/∂z if
    there is a batch norm, or δ; for a graph, at neuron {k}. latex: the same with ℓ for n, or L at the output. said:
    its name in an error. rule: the field of ``fnn.Rules``, or of ``fnn.curvature.TangentRules``, that computes it, or
    "". part: which of the rule's results. sources: where it is printed. axes: what its entries count.
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

    def latex_at(self, n: int) -> str:
        """The LaTeX with its layers numbered; it displays a vector as a column."""
        return LAYER.sub(lambda found: f"^{{{n - ('1' in found[0])}}}", self.latex)

    def of(self, **names) -> str:
        """The numbered formula of a graph, whose neurons and arrows have names and no layer."""
        return f"{self.number} {self.text.format(**names)}".strip()


UNITS, WEIGHTS, INPUTS = ("example", "unit"), ("unit", "input"), ("example", "input")
BY_NEURON = UNITS[1:]

PSI = Equation("", "psi[{n}] = a[{m}] W[{n}]^T + b[{n}]", r"\psi^\ell = W^\ell \, a^{\ell-1} + b^\ell",
               "psi of layer {n} (psi = a W^T + b)", "affine", "H5, L12, N2", UNITS)  # fmt: skip
NORMALISE = Equation("(S6)", "z[{n}] = gamma[{n}] * x_hat[{n}] + beta[{n}]",
                     r"z^\ell = \gamma^\ell \odot \hat{x}^\ell + \beta^\ell",
                     "z of layer {n} (its batch norm of psi)", "normalise", "S6", UNITS)  # fmt: skip
ACTIVATION = Equation("", "a[{n}] = sigma(z[{n}])", r"a^\ell = \sigma(z^\ell)",
                      "a of layer {n} ({activation} of z)", "", "H5, N2", UNITS)  # fmt: skip
LOSS = Equation("", "L(a[{n}], y)", r"L(a^L,\, y)", "the loss of an example ({loss})", "", "H7, L5, N4", UNITS[:1])
OUTPUT_DELTA = Equation("(1)", "{left} = dL/da[{n}] * sigma'(z[{n}])",
                        r"\delta^L = \partial L/\partial a^L \odot \sigma'(z^L)",
                        "(1) delta of layer {n}, at the output,", "output_delta", "B6, S3", UNITS)  # fmt: skip
HIDDEN_DELTA = Equation("(2b)", "{left} = g[{n}] * sigma'(z[{n}])", r"\delta^\ell = g^\ell \odot \sigma'(z^\ell)",
                        "(2b) delta of layer {n} (delta = g * sigma'(z))", "hidden_delta", "H9, B6, S2",
                        UNITS)  # fmt: skip
NORM_PULLBACK = (
    Equation("", "delta[{n}] = pull-back of d/dz[{n}] through the batch norm",
             r"\delta = (h - \bar h - \hat{x} \overline{h \hat{x}}) / s",
             "delta of layer {n}, after its batch norm's pull-back,", "norm_pullback", "S7, S8", UNITS),
    Equation("", "dC/dgamma[{n}] = sum over examples of d/dz[{n}] * x_hat[{n}]",
             r"\partial C/\partial\gamma = \sum \delta_z \hat{x}", "gradient of norm.gamma of layer {n}",
             "norm_pullback", "S7, S8", BY_NEURON, 1),
    Equation("", "dC/dbeta[{n}] = sum over examples of d/dz[{n}]", r"\partial C/\partial\beta = \sum \delta_z",
             "gradient of norm.beta of layer {n}", "norm_pullback", "S7, S8", BY_NEURON, 2),
)  # fmt: skip
WEIGHT_GRADIENT = Equation("(3)", "dC/dW[{n}] = delta[{n}]^T a[{m}]",
                           r"\partial C/\partial W^\ell = \delta^\ell \, (a^{\ell-1})^\mathsf{T}",
                           "(3) gradient of W of layer {n}", "weight_gradient", "H10, B6, S2", WEIGHTS)  # fmt: skip
BIAS_GRADIENT = Equation("(4)", "dC/db[{n}] = sum over examples of delta[{n}]",
                         r"\partial C/\partial b^\ell = \delta^\ell",
                         "(4) gradient of b of layer {n}", "bias_gradient", "H10, S2", BY_NEURON)  # fmt: skip
INPUT_GRADIENT = Equation("(2a)", "g[{m}] = delta[{n}] W[{n}]", r"g^{\ell-1} = (W^\ell)^\mathsf{T} \, \delta^\ell",
                          "(2a) g of layer {m} (g = delta W of layer {n})", "input_gradient", "H9, B6, S2",
                          INPUTS)  # fmt: skip
BY_INPUT = INPUT_GRADIENT._replace(
    text="dC/dx = delta[{n}] W[{n}]",
    latex=r"\partial C/\partial x = (W^\ell)^\mathsf{T} \, \delta^\ell",
    said="(2a) the gradient by x (delta W of layer {n})",
    sources="N5",
)
EQUATIONS = (PSI, NORMALISE, ACTIVATION, LOSS, OUTPUT_DELTA, HIDDEN_DELTA, *NORM_PULLBACK, WEIGHT_GRADIENT,
             BIAS_GRADIENT, INPUT_GRADIENT, BY_INPUT)  # fmt: skip


def through_jacobian(delta: Equation) -> Equation:
    """(1) or (2b) if σ is not elementwise, such as a softmax: its Jacobian takes the place of σ'.

    >>> through_jacobian(HIDDEN_DELTA).latex_at(1)
    '\\\\delta^{1} = (\\\\partial a^{1}/\\\\partial z^{1})^\\\\mathsf{T} \\\\, g^{1}'
    """
    left, g = delta.latex.split(r" \odot ")[0].split(" = ")
    return delta._replace(latex=rf"{left} = (\partial a^\ell/\partial z^\ell)^\mathsf{{T}} \, {g}", sources="B12")
