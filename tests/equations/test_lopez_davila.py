"""Lopez Davila: each row as printed against autodiff or the fact it states."""

import math

import numpy as np
import pytest
from rows import erratum, loose, true

from experiments.equations import lopez_davila
from experiments.equations import lopez_davila_backward as backward
from experiments.equations.lopez_davila_backward import ULPS, ulps

pytestmark = pytest.mark.project


def test_L1_a_row_of_weights_and_a_bias_belong_to_a_neuron_and_z_i_lacks_its_i():
    neuron, biases, row = lopez_davila.L1()
    erratum(neuron, 1.466)
    erratum(biases, math.inf)
    assert "1 of 4 neurons" in loose(row, math.sqrt(3)).note


def test_L2_every_activation_is_as_printed_but_the_gaussian():
    *_, threshold, relu, tanh = findings = lopez_davila.L2()
    assert len(findings) == 6  # rows of the table
    sigmoid, piecewise, gaussian = findings[:3]
    for finding in (sigmoid, piecewise, threshold, relu, tanh):
        true(finding)
    assert "with m, b = 1, 0 it jumps by 1; with m x_min + b = 0 and m x_max + b = 1 by 0" in piecewise.note
    erratum(gaussian, math.sqrt(2) - 1)


def test_L3_a_composition_of_affine_maps_is_one_affine_map_and_not_a_linear_one():
    composition, word = lopez_davila.L3()
    true(composition)
    assert "‖f(0)‖ = 1.12" in loose(word, 0.59).note


def test_L4_the_class_is_the_highest_output_node():
    assert "class 1 for 42%" in true(lopez_davila.L4()).note  # so neither class is never chosen


def test_L5_the_mean_squared_error_is_a_sum():
    formula, name = lopez_davila.L5()
    true(formula)
    assert "6 times the mean of 12 squares" in loose(name, 5).note


def test_L6_the_cross_entropy_lacks_its_sign_and_exchanges_its_arguments():
    note = erratum(lopez_davila.L6(), math.inf).note
    assert "-inf on labels 0 and 1; on soft targets -10.5 for 10.0" in note
    assert note.endswith("the sign alone is wrong: off by 2")


def test_L7_the_average_is_over_the_examples_and_not_over_the_weights():
    formula, reason = backward.L7()
    assert "6 times" in true(formula).note
    erratum(reason, 0.997)


def test_L8_the_chains_of_one_neuron_per_layer_hold_and_the_last_ends_in_a_wrong_factor():
    weight, bias, mixed, by_input, last = backward.L8()
    assert len([true(chain) for chain in (weight, bias, by_input)]) == 3
    erratum(mixed, 1 - 1 / 6)  # C is the mean of six C_k
    erratum(last, 1 - 0.234)  # σ'(z^L) stands in it twice


def test_L9_the_gradient_is_one_stacked_vector():
    assert "26 entries" in true(backward.L9()).note


def test_L10_back_propagation_is_reverse_mode_differentiation_to_a_few_ulps():
    assert f"9 networks: at most {ULPS} ulps" in true(backward.L10()).note


def test_L10_an_ulp_is_counted_by_the_largest_entry_of_each_array():
    theirs = [np.array([1.0, 1e-20]), np.array([8.0])]
    assert ulps(theirs, theirs) == 0
    assert ulps([theirs[0] + 2e-16, theirs[1]], theirs) == 1
    assert ulps([theirs[0], theirs[1] + 2.7e-15], theirs) == 2  # 16 times as wide at 8


def test_L11_the_gradient_points_where_the_cost_increases():
    finding = erratum(backward.L11(), 2)
    assert "raises C by 10.4%" in finding.note
    assert "the steepest of 1000 random directions has 0.62" in finding.note


def test_L12_a_layer_activates_its_weighted_sums_and_h_i_lacks_its_i():
    neuron, layer = lopez_davila.L12()
    erratum(neuron, 0.0216)
    assert true(layer).printed == "h = σ(W a + b)"


def test_L13_a_network_without_activations_reaches_the_linear_regression():
    assert "loss 0.856; with tanh 0.5" in true(lopez_davila.L13()).note


def test_L14_other_weights_may_give_the_same_output_and_a_loss_is_no_distance_between_weights():
    outputs, distance = lopez_davila.L14()
    assert "off by ≤ 1e-12" in loose(outputs, 1).note
    assert "with one loss, 0.005, at the distances 0.1 and 1" in loose(distance, 0.9).note


def test_L15_an_epoch_leads_nearer_to_the_minimum_only_if_its_step_is_short():
    assert "1.08 times as far after every step" in erratum(backward.L15(), 0.08).note


def test_L16_automatic_differentiation_is_precise_and_efficient_and_not_always_stable():
    precise, efficient, stable = backward.L16()
    true(precise)
    assert "2.06 forward passes for the gradient, 1,088" in true(efficient).note
    assert "by differences 1; by hand 1" in erratum(stable, math.inf).note


def test_L17_it_is_the_data_that_are_left_out_and_not_back_propagation_that_forgets():
    assert "100% before, 68% after; 100% if" in loose(backward.L17(), 0.325).note
