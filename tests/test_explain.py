"""``fnn.explain``: every line's value is what its right side says, and what the library computes elsewhere."""

import re
from dataclasses import dataclass

import jax
import numpy as np
import pytest

import fnn
from fnn.explanation import replaced
from fnn.markup import matrix, plain
from random_network import network

X, Y = np.array([0.1, -0.2, 0.3]), np.array([1.0, 0.0])


def lecture(output=fnn.Sigmoid(), activation=fnn.Sigmoid(), sizes=(3, 4, 2)):
    """The 3-4-2 network of Bhaip's lecture."""
    return network(sizes, activation=activation, output=output, dtype="float64")


def symbols(explanation):
    return {equation.left: equation.value for equation in explanation.equations}


def test_every_value_is_the_one_that_the_library_computes(x64):
    params = lecture()
    found = symbols(fnn.explain(params, X, Y))
    passed, deltas = fnn.trace(params, X), fnn.deltas(params, X, Y)
    gradients = fnn.backprop(params, X, Y)
    for number, (layer, delta, gradient) in enumerate(zip(passed, deltas, gradients), 1):
        np.testing.assert_allclose(found[f"z^{{{number}}}"], layer.z, rtol=1e-13, atol=1e-16)
        np.testing.assert_allclose(found[f"a^{{{number}}}"], layer.a, rtol=1e-13, atol=1e-16)
        np.testing.assert_allclose(found[rf"\delta^{{{number}}}"], delta, rtol=1e-13, atol=1e-16)
        np.testing.assert_allclose(found[rf"\partial C/\partial W^{{{number}}}"], gradient.W, rtol=1e-13, atol=1e-16)
        np.testing.assert_allclose(found[rf"\partial C/\partial b^{{{number}}}"], gradient.b, rtol=1e-13, atol=1e-16)
    np.testing.assert_allclose(found[r"\partial C/\partial x"], fnn.input_gradient(params, X, Y), rtol=1e-14)
    np.testing.assert_allclose(found[r"L(a^{2},\, y)"], 0.5 * np.sum((found["a^{2}"] - Y) ** 2), rtol=1e-14)


def computed(equation):
    """The right side, evaluated by NumPy from its symbols alone; None where a function of one argument stands there."""
    columns = {name: value[:, None] if value.ndim == 1 else value for name, value in equation.symbols.items()}
    by_name = replaced(equation.right, lambda name: f"columns[{name!r}]" if name in columns else None)
    product = " @ " if equation.value.ndim else " * "
    program = by_name.replace(r" \, ", product).replace(r" \odot ", " * ")
    if "=" not in equation.formula or re.search(r"(sigma(_\{.*?\})?|L|partial a)\(", by_name):
        return None
    return np.reshape(eval(program), equation.value.shape)


def test_every_product_and_sum_is_what_its_own_symbols_give(x64):
    checked = 0
    for params, loss in ((lecture(), fnn.SquaredError()), (lecture(fnn.Tanh(), fnn.GELU()), fnn.Huber(0.3))):
        for equation in fnn.explain(params, X, Y, loss=loss).equations:
            if equation.right != "x" and (value := computed(equation)) is not None:
                np.testing.assert_allclose(value, equation.value, rtol=1e-13, atol=1e-16)
                checked += 1
    assert checked == 2 * 10


def test_the_text_shows_formulas_shapes_numbers_and_sources(x64):
    text = str(fnn.explain(lecture(), X, Y))
    assert text.startswith("3-4-2, 2 layers, one example\n  Sigmoid(beta=1.0): a = 1 / (1 + e^(−βz))")
    for line in ("z¹ = W¹ a⁰ + b¹", "(1)  δ² = ∂L/∂a² ⊙ σ'(z²)", "(2a) g¹ = (W²)ᵀ δ²", "(2b) δ¹ = g¹ ⊙ σ'(z¹)",
                 "(3)  ∂C/∂W¹ = δ¹ (a⁰)ᵀ", "(4)  ∂C/∂b² = δ²", "(2a) ∂C/∂x = (W¹)ᵀ δ¹"):  # fmt: skip
        assert line in text
    assert "(4, 3)" in text
    assert "H10" in text
    assert "\\" not in text


def test_latex_has_every_equation_in_symbols_and_in_numbers(x64):
    explanation = fnn.explain(lecture(), X, Y)
    latex = explanation.latex()
    assert latex.startswith("\\begin{align*}")
    assert latex.count("{") == latex.count("}")
    assert latex.count(r"\begin{pmatrix}") == latex.count(r"\end{pmatrix}") > 20
    for equation in explanation.equations:
        assert equation.formula.replace(" = ", " &= ", 1) in latex
        assert matrix(equation.value) in latex
    assert matrix(np.array([[1.0, 2.5]])) == r"\begin{pmatrix} 1 & 2.5 \end{pmatrix}"


def test_html_has_a_row_for_every_equation_and_escapes(x64):
    explanation = fnn.explain(lecture(), X, Y)
    page = explanation._repr_html_()
    for equation in explanation.equations:
        assert f">{equation.number}<" in page
    assert "δ<sup>1</sup> = g<sup>1</sup> ⊙ σ&#x27;(z<sup>1</sup>)" in page
    for tag in ("table", "tr", "td", "p"):
        assert len(re.findall(rf"<{tag}\b", page)) == page.count(f"</{tag}>")


def test_large_layers_are_told_by_their_shapes(x64):
    explanation = fnn.explain(lecture(sizes=(3, 9, 2)), X, Y)
    assert matrix(np.asarray(fnn.trace(lecture(sizes=(3, 9, 2)), X)[0].a)) not in explanation.latex()
    text = str(explanation)
    assert "(9,)" in text
    assert not re.search(r"a¹ = .*\n +\[", text)
    assert re.search(r"a² = .*\n +\[", text)


@pytest.mark.parametrize(
    ("output", "loss", "y"),
    [
        (fnn.Identity(), fnn.SoftmaxCrossEntropy(), 1),
        (fnn.Identity(), fnn.SigmoidCrossEntropy(), Y),
        (fnn.Softmax(), fnn.CrossEntropy(), Y),
        (fnn.Softmax(), fnn.SquaredError(), Y),
    ],
    ids=str,
)
def test_labels_logits_and_a_softmax_are_explained_too(x64, output, loss, y):
    found = symbols(fnn.explain(lecture(output), X, y, loss=loss))
    np.testing.assert_allclose(
        found[r"\delta^{2}"], fnn.deltas(lecture(output), X, np.asarray(y), loss=loss)[1], rtol=1e-14
    )


@dataclass(frozen=True)
class Cube:
    """An activation of one's own, without a derivative."""

    def value(self, z):
        return z**3

    def pullback(self, g, z, a):
        return 3 * g * z**2


def test_an_activation_of_ones_own_needs_no_derivative(x64):
    params = lecture(activation=Cube())
    text = str(fnn.explain(params, X, Y))
    assert "(2b) δ¹ = (∂a¹/∂z¹)ᵀ g¹" in text
    graph = fnn.graph.Graph([("x", "h"), ("h", "y")], {"h": Cube(), "y": fnn.Tanh()}, ["x"], ["y"])
    found = symbols(fnn.explain(graph.init(jax.random.key(0), dtype="float64"), X[:1], Y[:1]))
    np.testing.assert_allclose(found["\\sigma_{h}'(z_{h})"], 3 * found["z_{h}"] ** 2, rtol=1e-14)


def test_a_stack_is_explained_layer_by_layer(x64):
    params = lecture(sizes=(3, 4, 4, 4, 2))
    layers, stacked = fnn.explain(params, X, Y), fnn.explain(fnn.stack(params), X, Y)
    assert str(layers) == str(stacked)


def graph_params(**options):
    """x → h → y, x → y, y → z, with an output that sends an arrow; x by a number, as names may be."""
    arrows = [(0, "h_1"), ("h_1", "y"), (0, "y"), ("y", "z")]
    activations = {"h_1": fnn.Tanh(), "y": fnn.Sigmoid(), "z": fnn.Identity()}
    graph = fnn.graph.Graph(arrows, activations, [0], ["y", "z"])
    return graph.init(jax.random.key(0), dtype="float64", **options)


def test_a_graph_is_explained_neuron_by_neuron_with_the_values_of_the_library(x64):
    params, x, y = graph_params(), np.array([0.7]), np.array([1.0, 0.5])
    explanation = fnn.explain(params, x, y, loss=fnn.Huber(0.3))
    found, given = symbols(explanation), {"loss": fnn.Huber(0.3)}
    passed, gradients = fnn.trace(params, x), fnn.backprop(params, x, y, **given)
    expected = {r"\lambda": fnn.deltas(params, x, y, **given), "z": passed.z, "o": passed.a}
    expected[r"\partial C/\partial \beta"] = gradients.biases
    for k, name in enumerate(params.graph.neurons):
        label = str(name).replace("_", r"\_")
        for letter in expected if k else [r"\lambda"]:
            np.testing.assert_allclose(found[f"{letter}_{{{label}}}"], expected[letter][k], rtol=1e-13)
    assert found[r"\partial C/\partial w_{y,0}"] == gradients.weights[2]
    products = [equation for equation in explanation.equations if computed(equation) is not None]
    for equation in products:
        np.testing.assert_allclose(computed(equation), equation.value, rtol=1e-13)
    assert len(products) == 3 + 4 + 4 + 3  # z, λ, and the gradients of arrows and biases
    text = str(explanation)
    for line in ("z[y] = w[y,h_1] o[h_1] + w[y,0] o[0] + β[y]",
                 "λ[y] = (λ[z] w[z,y]) σ[y]'(z[y]) + ∂L/∂o[y] σ[y]'(z[y])",
                 "∂C/∂w[h_1,0] = λ[h_1] o[0]"):  # fmt: skip
        assert line in text
    assert "S2" in text
    assert r"\cdot" in explanation.latex()
    assert "z<sub>h_1</sub>" in explanation._repr_html_()


def test_the_sum_over_many_arrows_is_not_written_out(x64):
    params = fnn.graph.Graph.from_layers(lecture(sizes=(9, 2)))
    text = str(fnn.explain(params, np.ones(9), Y))
    assert "z[9] = Σ[l → 9] w[9,l] o[l] + β[9]" in text
    assert text.count("w[9,0] ") == 1 + 1  # in λ of input 0 and in a gradient


def test_what_cannot_be_explained_is_refused_with_the_corrected_call(x64):
    with pytest.raises(ValueError, match=r"x: expected one example .* write x\[0\]"):
        fnn.explain(lecture(), X[None], Y[None])
    with pytest.raises(ValueError, match=r"params: a batch norm needs more .*fnn\.fold"):
        fnn.explain(network((3, 4, 2), norm="full", dtype="float64"), X, Y)
    with pytest.raises(ValueError, match=r"params: a batch norm needs more .*fnn\.fold"):
        fnn.explain(graph_params(batch_norm="full"), X[:1], Y)
    with pytest.raises(ValueError, match="y: "):
        fnn.explain(lecture(), X, Y[:1])


def test_plain_text_raises_digits_and_transposes():
    assert plain(r"(W^{12})^\mathsf{T} \, \delta^{3}") == "(W¹²)ᵀ δ³"
