"""Hedges: each row as printed against autodiff or the fact it states."""

from rows import erratum, true

from experiments.equations import hedges


def test_H6_the_first_index_of_a_weight_is_the_receiving_neuron():
    erratum(hedges.H6(), 0.326)


def test_H9_a_hidden_delta_comes_from_the_next_one():
    true(hedges.H9())
