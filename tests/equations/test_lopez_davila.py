"""Lopez Davila: each row as printed against autodiff or the fact it states."""

import math

import numpy as np
import pytest
from rows import erratum, true

from experiments.equations import lopez_davila
from experiments.equations.lopez_davila import ULPS, ulps

pytestmark = pytest.mark.project


def test_L1_a_row_of_weights_and_a_bias_belong_to_a_neuron():
    neuron, biases, row = lopez_davila.L1()
    true(neuron)
    erratum(biases, math.inf)
    assert "1 of 4 neurons" in erratum(row, math.sqrt(3)).note


def test_L2_every_activation_is_as_printed_but_the_gaussian():
    *_, threshold, relu, tanh = findings = lopez_davila.L2()
    assert len(findings) == 6  # rows of the table
    sigmoid, piecewise, gaussian = findings[:3]
    for finding in (sigmoid, piecewise, threshold, relu, tanh):
        true(finding)
    assert "with m, b = 1, 0 it jumps by 1; with m x_min + b = 0 and m x_max + b = 1 by 0" in piecewise.note
    erratum(gaussian, math.sqrt(2) - 1)


def test_L3_a_composition_of_affine_maps_is_one_affine_map():
    assert "‖f(0)‖ = 1.12" in true(lopez_davila.L3()).note


def test_L4_the_class_is_the_highest_output_node():
    assert "class 1 for 42%" in true(lopez_davila.L4()).note  # so neither class is never chosen


def test_L5_the_mean_squared_error_is_a_sum():
    assert "6 times the mean of 12 squares" in true(lopez_davila.L5()).note


def test_L6_the_cross_entropy_lacks_its_sign_and_exchanges_its_arguments():
    assert "-inf on labels 0 and 1; on soft targets -10.5 for 10.0" in erratum(lopez_davila.L6(), math.inf).note


def test_L7_the_average_is_over_the_examples_and_not_over_the_weights():
    formula, reason = lopez_davila.L7()
    assert "6 times" in true(formula).note
    erratum(reason, 0.997)


def test_L8_the_chains_of_one_neuron_per_layer_hold_and_the_last_ends_in_a_wrong_factor():
    *chains, last = lopez_davila.L8()
    assert len([true(chain) for chain in chains]) == 3
    erratum(last, 1 - 0.234)  # σ'(z^L) stands in it twice


def test_L9_the_gradient_is_one_stacked_vector():
    assert "26 entries" in true(lopez_davila.L9()).note


def test_L10_back_propagation_is_reverse_mode_differentiation_to_a_few_ulps():
    assert f"9 networks: at most {ULPS} ulps" in true(lopez_davila.L10()).note


def test_L10_an_ulp_is_counted_by_the_largest_entry_of_each_array():
    theirs = [np.array([1.0, 1e-20]), np.array([8.0])]
    assert ulps(theirs, theirs) == 0
    assert ulps([theirs[0] + 2e-16, theirs[1]], theirs) == 1
    assert ulps([theirs[0], theirs[1] + 2.7e-15], theirs) == 2  # 16 times as wide at 8


def test_L11_the_gradient_points_where_the_cost_increases():
    finding = erratum(lopez_davila.L11(), 2)
    assert "raises C by 10.4%" in finding.note
    assert "the steepest of 1000 random directions has 0.62" in finding.note


def test_L12_a_neuron_and_a_layer_activate_their_weighted_sums():
    neuron, layer = map(true, lopez_davila.L12())
    assert (neuron.printed, layer.printed) == ("h_i = σ(w_1 a_1 + … + w_n a_n + b)", "h = σ(W a + b)")


def test_L13_a_network_without_activations_reaches_the_linear_regression():
    assert "loss 0.856; with tanh 0.5" in true(lopez_davila.L13()).note
