"""Hedges: each row as printed against autodiff or the fact it states."""

import math

import pytest
from rows import erratum, loose, true

from experiments.equations import hedges, hedges_backward
from experiments.equations.multiplications import exponents, multiplications

pytestmark = pytest.mark.project


def test_H1_the_second_case_has_the_wrong_sign_the_decrease_needs_a_short_step_and_f_prime_0_has_no_case():
    second, decrease, stationary = hedges.H1()
    erratum(stationary, math.inf)
    erratum(second, 1.3**2 - 1)  # from 1 to 1.3 on x²
    erratum(decrease, 3)  # from 1 to −2
    assert "swinging between -0.2 and 0.1" in decrease.note  # a fixed step never settles


def test_H2_the_toy_problem_has_its_derivative_and_halves_x_in_every_step():
    true(hedges.H2())


def test_H3_gradient_descent_steps_all_weights_at_once_and_each_alike():
    whole, single = map(true, hedges.H3())
    assert "from 0.22 to 0.16" in whole.note
    assert "w_jk" in single.printed


def test_H4_the_closed_form_is_right_and_what_it_needs_is_said():
    note = true(hedges.H4()).note  # the text claims nothing of a rank-deficient A
    assert "with a column twice another, off by inf" in note
    assert "least_squares is ≤ 1e-12 from A⁺y" in note


def test_H5_a_layer_is_an_affine_map_and_an_activation():
    true(hedges.H5())


def test_H6_the_first_index_of_a_weight_is_the_receiving_neuron():
    erratum(hedges.H6(), 0.326)


def test_H7_the_cost_is_the_squared_distance_and_called_a_mean():
    cost, name = hedges.H7()
    true(cost)
    assert "2 times the mean" in loose(name, 1).note


def test_H8_delta_is_the_derivative_by_the_weighted_input():
    true(hedges_backward.H8())


def test_H9_a_hidden_delta_comes_from_the_next_one():
    true(hedges_backward.H9())


def test_H10_the_weights_gradient_is_an_outer_product():
    weights, biases = hedges_backward.H10()
    assert "off by 0.48" in erratum(weights, math.inf).note  # where it can be computed
    true(biases)


def test_H11_delta_must_use_the_weights_from_before_the_update():
    assert "60 draws: median; 5th to 95th percentile 4.0% to 19.7%" in erratum(hedges_backward.H11(), 0.0895).note


def test_H12_the_backward_order_grows_slowest_with_depth_and_width():
    true(hedges_backward.H12())
    assert exponents("backward") == pytest.approx((1, 2), abs=0.1)
    assert exponents("each chain anew") == pytest.approx((2, 2), abs=0.15)
    assert exponents("from the input") == pytest.approx((2, 4), abs=0.15)


def test_H12_the_backward_order_takes_two_products_and_a_scaling_for_every_layer():
    depth, width = 5, 3
    assert multiplications("backward", depth, width) == depth * (2 * width**2 + width)


def test_H13_a_derivative_lacks_its_sign_and_the_hadamard_product_is_not_an_outer_one():
    quotient, outer = hedges_backward.H13()
    erratum(quotient, math.inf)
    erratum(outer, math.inf)


def test_H14_the_derivatives_of_one_neuron_are_not_those_of_a_layer():
    neuron, weights, biases = hedges_backward.H14()
    true(neuron)
    assert "3 numbers for 4 × 4 × 3" in loose(weights, math.inf).note
    loose(biases, math.inf)


def test_H15_the_derivative_of_an_activation_is_a_diagonal_matrix_and_the_chain_then_holds():
    weights, slope, product = hedges_backward.H15()
    true(weights)
    loose(slope, math.inf)
    true(product)


def test_H16_the_last_step_takes_the_delta_of_the_output():
    assert "no such product in 3-4-2" in erratum(hedges_backward.H16(), 1.118).note


def test_H17_nothing_enters_layer_0():
    assert "no W⁰" in erratum(hedges.H17(), math.inf).note


def test_H18_the_chain_rules_of_weights_and_biases_hold():
    assert len([true(finding) for finding in hedges_backward.H18()]) == 2
