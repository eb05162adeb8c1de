"""The lines of a graph: k is a neuron, j → k an arrow."""

import re
from collections.abc import Hashable, Sequence

from fnn.equations.layers import NORM_PULLBACK, Equation

NEURONS, BY_ARROW = ("neuron", "example"), ("arrow",)
SUM, DIRECT, SLOPE = "(sum over l of lambda[l] w[l,{k}])", "dL/do[{k}]", " * sigma'(z[{k}])"
SUM_LATEX, DIRECT_LATEX, SLOPE_LATEX = (
    r"(\sum_{k \to l} \lambda_{l} \, w_{l,k})", r"\partial L/\partial o_{k}", r" \, \sigma_{k}'(z_{k})",
)  # fmt: skip

GRAPH_PSI = Equation("(S1)", "psi[{k}] = (sum over l of w[{k},l] o[l]) + beta[{k}]",
                     r"\psi_{k} = \sum_{l \to k} w_{k,l} \, o_{l} + \beta_{k}", "psi of neuron {k!r}", "", "S1",
                     NEURONS)  # fmt: skip
GRAPH_NORMALISE = Equation("(S6)", "z[{k}] = gamma[{k}] * x_hat[{k}] + beta[{k}] of the batch norm",
                           r"z_{k} = \gamma_{k} \hat{x}_{k} + \beta_{k}", "z of neuron {k!r}", "normalise", "S6",
                           NEURONS)  # fmt: skip
GRAPH_ACTIVATION = Equation("(S1)", "o[{k}] = sigma(z[{k}])", r"o_{k} = \sigma_{k}(z_{k})", "a of neuron {k!r}", "",
                            "S1", NEURONS)  # fmt: skip
LAMBDA = Equation("(4)", "lambda{at} = " + SUM + SLOPE,
                  r"\lambda_{k} = " + SUM_LATEX + SLOPE_LATEX, "lambda of neuron {k!r}", "", "S2", NEURONS)  # fmt: skip
ARROW_GRADIENT = Equation("(2)", "dC/dw[k,j] = lambda[k] * o[j], over the examples",
                          r"\partial C/\partial w_{k,j} = \lambda_{k} \, o_{j}",
                          "gradient of the arrow {j!r} -> {k!r}", "weight_gradient", "S2", BY_ARROW)  # fmt: skip
NEURON_GRADIENT = Equation("(3)", "dC/dbeta[k] = lambda[k], over the examples",
                           r"\partial C/\partial \beta_{k} = \lambda_{k}", "gradient of the bias of neuron {k!r}",
                           "bias_gradient", "S2", NEURONS[:1])  # fmt: skip
GRAPH_NORM = (
    Equation("(20-25)", "dC/dgamma[k] of the batch norm", NORM_PULLBACK[1].latex, "gradient of gamma", "norm_pullback",
             "S7, S8", NEURONS[:1], 1),
    Equation("(20-25)", "dC/dbeta[k] of the batch norm", NORM_PULLBACK[2].latex, "gradient of beta", "norm_pullback",
             "S7, S8", NEURONS[:1], 2),
)  # fmt: skip


def lambda_of(computed: bool, sends: bool, output: bool) -> Equation:
    """(4) for one neuron: whether it is computed (an input has no σ), sends arrows, and is an output.

    >>> lambda_of(computed=True, sends=False, output=True).of(at="[y]", k="y")
    "(4) lambda[y] = dL/do[y] * sigma'(z[y])"
    """

    def right(total: str, direct: str, slope: str) -> str:
        return " + ".join(term + slope * computed for term, there in ((total, sends), (direct, output)) if there) or "0"

    return LAMBDA._replace(
        text="lambda{at} = " + right(SUM, DIRECT, SLOPE),
        latex=r"\lambda_{k} = " + right(SUM_LATEX, DIRECT_LATEX, SLOPE_LATEX),
    )


TERM = re.compile(r"\\sum_\{[^}]*\} (\S+ \\, \w_\{[^}]*\})")  # what a sum adds up
INDEX = re.compile(r"_\{([^}]*)\}")


def label(neuron: Hashable) -> str:
    """A neuron's name in LaTeX."""
    return str(neuron).replace("_", r"\_")


def latex_of(equation: Equation, k: str, j: str | None = None, others: Sequence[str] | None = None) -> str:
    """The LaTeX with the labels of its neurons, and its sum written out over ``others`` if they are given.

    >>> latex_of(GRAPH_PSI, "y", others=("x", "h"))
    '\\\\psi_{y} = w_{y,x} \\\\, o_{x} + w_{y,h} \\\\, o_{h} + \\\\beta_{y}'
    """

    def named(latex: str, **other) -> str:
        names = {"j": j, "k": k, **other}
        return INDEX.sub(lambda found: re.sub(r"\b[jkl]\b", lambda at: str(names.get(at[0], at[0])), found[0]), latex)

    pieces = [equation.latex] if others is None else TERM.split(equation.latex)  # every second one is a term
    return "".join(
        " + ".join(named(piece, l=other) for other in others or ()) if i % 2 else named(piece)
        for i, piece in enumerate(pieces)
    )
