"""The handwritten notes: each row as printed against autodiff or the fact it states."""

import pytest
from rows import erratum, loose, true

from experiments.equations import notes

pytestmark = pytest.mark.project


def test_N1_a_sign_neuron_divides_the_space_by_a_hyperplane_that_needs_its_bias():
    rule, parts, without = map(true, notes.N1())
    assert rule.error == parts.error == without.error == 0
    assert "38 of them with wᵀx = −b exactly" in rule.note
    assert "b = -3 gives it -1, and changes 0.17 of the points" in without.note


def test_N2_layers_count_from_1_and_one_line_from_0():
    single, matrix, from_zero = notes.N2()
    true(single)
    true(matrix)
    erratum(from_zero, 0.754)


def test_N3_a_network_approximates_a_known_function_better_the_wider_it_is():
    found = true(notes.N3(), tolerance=0.01)
    assert found.note.endswith("2: 0.97, 8: 0.18, 16: 0.0068")


def test_N4_the_square_loss_its_derivative_and_its_sum_term_by_term():
    assert len([true(finding) for finding in notes.N4()]) == 3


def test_N5_the_recursion_starts_at_M_and_holds_below_it():
    recursion, gradients, start, top = notes.N5()
    true(recursion)
    true(gradients)
    erratum(start, 1.91)
    erratum(top, 1)  # an empty sum


def test_N6_gradients_of_data_points_in_parallel_over_examples_and_several_devices():
    *_, devices = found = notes.N6()
    assert len([true(finding) for finding in found]) == 3
    assert "on 4 devices" in devices.note  # in a process of its own, which says how many it has


def test_N7_an_iteration_is_a_step_along_the_gradients_of_one_subset():
    note = true(notes.N7()).note
    assert "the 55 other subsets of 5 out of 8: off by 0.013 or more" in note
    assert note.endswith("one is off by 0.22, their mean by ≤ 1e-12")


def test_N8_the_factor_1_is_the_derivative_by_the_bias_and_not_by_the_output():
    assert "the next derivation boxes the 1" in loose(notes.N8(), 4.11).note
