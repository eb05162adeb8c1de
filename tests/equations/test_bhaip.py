"""Bhaip: each row as printed against autodiff or the fact it states."""

import numpy as np
import pytest
from rows import erratum, loose, true

import fnn
from experiments.equations import bhaip, lecture

pytestmark = pytest.mark.project


def test_B1_the_cubic_has_its_gradient_and_descent_with_it_needs_a_start_in_the_basin():
    note = true(bhaip.B1()).note
    assert "from 3 starts ends ≤ 1e-12 from the minimum" in note
    assert note.endswith("diverges")  # from a start outside: it is unbounded below


def test_B2_the_negative_gradient_is_the_steepest_and_steps_overshoot_or_crawl():
    steepest, lengths, minima = map(true, bhaip.B2())
    assert "360 directions" in steepest.note
    assert lengths.note.endswith(
        "α = 0.001: not in 200; α = 0.3: 8; α = 0.9: 31 (overshoots); α = 1.04: not in 200 (overshoots)"
    )
    assert "5 of 21 starts reach the lowest minimum" in minima.note


def test_B3_the_update_of_weights_and_biases_lowers_the_error_at_both_ends_of_the_range():
    assert true(bhaip.B3()).note == "E falls by the fraction 0.014 at α = 0.1, 1.4e-05 at α = 0.0001"


def test_B4_a_3_4_2_network_has_20_weights_and_6_biases():
    assert true(bhaip.B4()).error == 0


def test_B5_the_error_is_half_the_squared_distance_and_its_derivative_is_by_the_output():
    error, magnitude, derivative = bhaip.B5()
    true(error)
    loose(magnitude, 0.707)
    erratum(derivative, 2)  # by y it has the other sign


def test_B6_the_deltas_and_gradients_of_any_layer():
    output, hidden, weights = map(true, bhaip.B6())
    assert (output.printed[:3], hidden.printed[:3], weights.printed[:2]) == ("δ_L", "δ_i", "∂E")


def test_B7_the_argument_about_shapes_has_the_wrong_sign():
    erratum(bhaip.B7(), 2)


def test_B8_the_inner_derivative_of_the_first_layers_gradient_is_of_the_second_layers_input():
    assert "∂(W₂x₁ + b₂)/∂W₁" in true(bhaip.B8()).printed  # the text has no other


def test_B9_the_sigmoid_gives_its_own_derivative():
    true(bhaip.B9())


def test_B10_a_zero_gradient_may_be_a_saddle_and_an_incline_all_around_is_a_minimum():
    saddle, incline = bhaip.B10()
    erratum(saddle, 1)  # stops at (0, 0)
    assert "curvatures -1.61 and 5.61" in saddle.note
    assert "a local one" in true(incline).note


def test_B11_the_error_has_n_and_2_dimensions_but_the_input_is_none_of_them():
    dimensions, reason = bhaip.B11()
    assert true(dimensions).error == 0
    erratum(reason, 2 / 5)  # seven in place of five


def test_B12_the_formulas_hold_where_a_single_entrys_derivative_says_something():
    smooth, jumping, softmax = bhaip.B12()
    true(smooth)
    assert "E goes up and down by 0.1 and 0.18" in erratum(jumping, 1).note
    erratum(softmax, 0.607)


def test_B12_threshold_and_sign_have_a_gradient_of_exactly_0_while_the_error_moves(x64):
    for activation in (fnn.Threshold(), fnn.Sign()):
        printed, moved = bhaip.along_a_line(activation)
        assert printed == 0 < 0.05 < moved
    printed, moved = bhaip.along_a_line(fnn.Tanh())
    assert printed > 0


def test_B13_the_parabola_has_its_derivative():
    true(bhaip.B13())


def test_B14_the_lines_of_the_derivation_hold_as_contractions():
    found = [true(finding).printed for finding in bhaip.B14()]
    assert [line[:6] for line in found] == ["∂E/∂W₂"] * 2 + ["∂E/∂W₁"] * 3


def test_B14_a_forgotten_derivative_would_show_in_every_line_that_has_it(x64, monkeypatch):
    monkeypatch.setattr(lecture, "slope", np.ones_like)
    for line, error in lecture.lines.__wrapped__().items():  # not the lines that are kept
        assert (error <= 1e-12) == ("(x₂ − y) ∂σ" in line)  # those that differentiate σ itself


def test_B15_steps_shrink_with_the_gradient_and_are_not_of_length_alpha():
    found = erratum(bhaip.B15(), 1.43)
    assert found.note.endswith("steps from 0.41 to 5.4e-07, ends 8.1e-06 from the minimum; all of length α, 0.044")
