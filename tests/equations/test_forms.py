"""δ of Hedges and Bhaip, λ of Strabel and ∂L/∂y of the notes are one recursion."""

import numpy as np
import pytest

from experiments.equations import forms
from experiments.equations.common import oracle

pytestmark = pytest.mark.project


def test_the_three_forms_are_equal_term_by_term():
    found = forms.three_forms()
    assert found.disagreement <= 1e-12
    np.testing.assert_allclose(found.lam, found.delta, rtol=1e-12, atol=0)
    np.testing.assert_allclose(found.by_y, found.delta, rtol=1e-12, atol=0)


def test_each_form_is_autodiffs_derivative_by_what_the_neuron_receives(x64):
    right = np.concatenate(oracle(forms.compared()).deltas)
    for form in ("delta", "lam", "by_y"):
        np.testing.assert_allclose(getattr(forms.three_forms(), form), right, rtol=1e-12, atol=0)


def test_the_table_shows_every_neuron_of_every_layer_with_six_digits():
    found, shown = forms.three_forms(), forms.table()
    assert [tuple(map(int, row[:2])) for row in shown.rows] == list(found.neurons)
    assert found.neurons[0] == (1, 1)
    assert found.neurons[-1] == (3, 2)
    for row, *values in zip(shown.rows, found.delta, found.lam, found.by_y):
        assert [float(cell) for cell in row[2:]] == pytest.approx(values, rel=5e-6)
        assert len({len(cell) for cell in row[2:]}) == 1
    assert shown.footer.endswith("≤ 1e-12")
