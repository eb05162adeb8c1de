"""Strabel: each row as printed against autodiff or the fact it states."""

import re

import pytest
from rows import convention, erratum, loose, true

from experiments.equations import strabel, strabel_batchnorm, strabel_descent, strabel_dropout

pytestmark = pytest.mark.project


def figures(note: str) -> list[float]:
    """The measured figures of a note."""
    return [float(figure) for figure in re.findall(r"\d+\.\d+|\d+e[+-]\d+", note)]


def test_S1_the_sum_over_arrows_is_the_forward_pass_of_a_graph_without_cycles():
    printed, cyclic = strabel.S1()
    true(printed)
    assert "expected no cycle" in loose(cyclic, 1.99).note


def test_S2_an_output_with_outgoing_arrows_has_a_direct_term_too():
    *printed, output = strabel.S2()
    assert len([true(finding) for finding in printed]) == 3
    assert figures(erratum(output, 0.772).note) == pytest.approx([0.75], rel=0.02)


def test_S3_the_sums_over_the_batch_are_right_and_the_indices_of_6_are_exchanged():
    five, six, *others = strabel.S3()
    assert len([true(finding) for finding in (five, *others)]) == 4
    assert erratum(six, 2.86).note.endswith("there are 0")


def test_S4_the_gradients_carry_r_p_is_the_probability_to_keep_and_every_arrow_has_its_own():
    *printed, drawn, every, name = strabel_dropout.S4()
    assert len([true(finding) for finding in printed]) == 3
    convention(drawn, 0.95, tolerance=0.02)  # of 10,000 draws: √(p(1 − p)/10,000) beside p is 0.008
    assert "DropConnect((None, p, …)) keeps their arrows" in true(every).note
    assert "100% with r_l" in loose(name, 0.5).note


def test_S5_the_mean_over_r_is_exact_for_one_layer_and_for_linear_ones_only():
    one_layer, linear = strabel_dropout.S5()
    true(one_layer)
    assert figures(true(linear).note) == pytest.approx([0.081], rel=0.02)


def test_S6_batch_norm_has_a_shift_theta_and_no_delta():
    printed, names = strabel_batchnorm.S6()
    true(printed)
    erratum(names, 1)


def test_S7_the_fixed_backward_pass_is_a_convention_and_an_output_lacks_its_own_term():
    twenty, twenty_one, whole, gamma, theta, output = strabel_batchnorm.S7()
    true(twenty)
    true(twenty_one)
    erratum(output, 1)  # a gradient of 0
    assert figures(convention(whole, 0.720).note) == pytest.approx([0.73, 0.69, 0.59], rel=0.02)
    assert figures(true(gamma).note) == pytest.approx([2.2], rel=0.03)
    assert figures(true(theta).note) == pytest.approx([0.4], rel=0.03)


def test_S8_the_full_backward_pass_goes_through_the_statistics():
    (finding,) = strabel_batchnorm.S8()
    assert figures(true(finding).note) == pytest.approx([0.54], rel=0.02)


def test_S9_implicit_steps_take_the_gradient_where_they_arrive():
    linear, logistic, layers = strabel_descent.S9()
    assert figures(true(linear).note) == pytest.approx([0.013, 2e23], rel=0.1)
    assert figures(true(logistic).note) == pytest.approx([0.89], rel=0.02)
    true(layers)


def test_S10_momentum_starts_with_8_and_9_and_has_the_rate_inside_the_velocity():
    printed, first, schedule = strabel_descent.S10()
    true(printed)
    erratum(first, 1)
    assert "while η is constant the two are one rule" in convention(schedule, 0.36).note


def test_S11_lambda_needs_the_weights_from_before_the_update():
    (finding,) = strabel.S11()
    _, _, at_a_tenth = figures(erratum(finding, 0.0888).note)
    assert at_a_tenth == pytest.approx(finding.error / 10, rel=0.1)  # of the order of η


def test_S12_a_dropped_arrow_has_no_gradient_and_by_8_stays():
    (finding,) = strabel_descent.S12()
    assert true(finding).error <= 1e-15
    assert finding.note.endswith("off by 0.79")  # with momentum, of which the text speaks later


def test_S13_the_bias_before_a_batch_norm_moves_by_the_convention_of_fixed_statistics():
    (finding,) = strabel_batchnorm.S13()
    assert figures(true(finding).note)[0] == pytest.approx(0.32, rel=0.02)
