"""The lines of the R-operator: R{f} is the change of f along a direction, (V, c), on a graph (v, c)."""

from fnn.equations.graphs import BY_ARROW
from fnn.equations.layers import BY_NEURON, INPUTS, UNITS, WEIGHTS, Equation

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
             "R{{delta}} of layer {n}, after its batch norm", "norm_pullback", PEARLMUTTER, UNITS),
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
        ("R{{lambda}} of neuron {k!r}, after its batch norm", "R{{gradient of gamma}}", "R{{gradient of beta}}"),
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
