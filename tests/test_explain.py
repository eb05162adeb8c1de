"""``fnn.explain``: every line's value is what its right side says, and what the library computes elsewhere."""

import re

import numpy as np
import pytest

import fnn
from fnn.explanation import Symbol
from fnn.markup import matrix, plain
from random_network import network

X, Y = np.array([0.1, -0.2, 0.3]), np.array([1.0, 0.0])


def lecture(output=fnn.Sigmoid(), activation=fnn.Sigmoid(), sizes=(3, 4, 2)):
    """The 3-4-2 network of Bhaip's lecture."""
    return network(sizes, activation=activation, output=output, dtype="float64")


def symbols(explanation):
    return {equation.left.name: equation.left.value for equation in explanation.equations}


def test_every_value_is_the_one_that_the_library_computes(x64):
    params = lecture()
    found = symbols(fnn.explain(params, X, Y))
    passed, deltas = fnn.trace(params, X), fnn.deltas(params, X, Y)
    gradients = fnn.backprop(params, X, Y)
    for number, (layer, delta, gradient) in enumerate(zip(passed, deltas, gradients), 1):
        assert np.array_equal(found[f"z^{{{number}}}"], layer.z)
        assert np.array_equal(found[f"a^{{{number}}}"], layer.a)
        assert np.array_equal(found[rf"\delta^{{{number}}}"], delta)
        assert np.array_equal(found[rf"\partial C/\partial W^{{{number}}}"], gradient.W)
        assert np.array_equal(found[rf"\partial C/\partial b^{{{number}}}"], gradient.b)
    np.testing.assert_allclose(found[r"\partial C/\partial x"], fnn.input_gradient(params, X, Y), rtol=1e-14)
    np.testing.assert_allclose(found["C"], 0.5 * np.sum((found["a^{2}"] - Y) ** 2), rtol=1e-14)


def computed(equation):
    """The right side, evaluated by NumPy from its symbols alone; None where a function of one argument stands there."""
    if any(isinstance(term, str) and "(" in term for term in equation.right):
        return None
    columns = [
        term.value[:, None] if isinstance(term, Symbol) and term.value.ndim == 1 else getattr(term, "value", term)
        for term in equation.right
    ]
    result = columns[0]
    for sign, column in zip(columns[1::2], columns[2::2]):
        result = {r" \, ": np.matmul, " + ": np.add, r" \odot ": np.multiply}[sign](result, column)
    return result.reshape(equation.left.value.shape)


def test_every_product_and_sum_is_what_its_own_symbols_give(x64):
    checked = 0
    for params, loss in ((lecture(), fnn.SquaredError()), (lecture(fnn.Tanh(), fnn.GELU()), fnn.Huber(0.3))):
        for equation in fnn.explain(params, X, Y, loss=loss).equations:
            if equation.part != "loss" and equation.right != ("x",) and (value := computed(equation)) is not None:
                np.testing.assert_allclose(value, equation.left.value, rtol=1e-13, atol=1e-16)
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
        assert equation.formula().replace(" = ", " &= ", 1) in latex
        assert matrix(equation.left.value) in latex
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


def test_a_stack_is_explained_layer_by_layer(x64):
    params = lecture(sizes=(3, 4, 4, 4, 2))
    layers, stacked = fnn.explain(params, X, Y), fnn.explain(fnn.stack(params), X, Y)
    assert str(layers) == str(stacked)


def test_what_cannot_be_explained_is_refused_with_the_corrected_call(x64):
    with pytest.raises(ValueError, match=r"x: expected one example .* write x\[0\]"):
        fnn.explain(lecture(), X[None], Y[None])
    with pytest.raises(ValueError, match=r"params\[0\]: a batch norm needs more .*fnn\.fold"):
        fnn.explain(network((3, 4, 2), norm="full", dtype="float64"), X, Y)
    with pytest.raises(ValueError, match="y: "):
        fnn.explain(lecture(), X, Y[:1])


def test_plain_text_raises_digits_and_transposes():
    assert plain(r"(W^{12})^\mathsf{T} \, \delta^{3}") == "(W¹²)ᵀ δ³"
