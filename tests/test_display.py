"""What a trace looks like to a person: a table, and HTML in a notebook."""

from functools import cache

import numpy as np

import fnn


def dense(n_in, n_out):
    return fnn.Dense(np.ones((n_out, n_in), np.float32), np.zeros(n_out, np.float32), fnn.Tanh())


@cache
def passed():
    return fnn.trace((dense(3, 4), dense(4, 2)), np.ones((5, 3), np.float32))


def test_a_trace_has_a_summary_and_a_layer_of_it_html():
    table = fnn.summary(passed())
    assert table.header[:3] == ("entry", "array", "shape")
    assert table.rows[0] == ("1", "a_in", "(5, 3)", "1", "0", "1", "1")
    assert [row[1] for row in table.rows] == ["a_in", "psi", "z", "a"] * 2
    assert table.footer == "2 entries, float32"
    assert f">{passed()[1].a[0, 0]:.4g}</td>" in passed()[1]._repr_html_()  # small: its numbers


def test_of_large_arrays_a_layer_shows_mean_deviation_and_range():
    (layer,) = fnn.trace((dense(30, 4),), np.ones((2, 30), np.float32))
    assert "1 ± 0, 1 to 1" in layer._repr_html_()


def test_a_trace_is_still_a_tuple_of_named_tuples():
    assert type(passed()) is tuple
    a_in, psi, z, a = passed()[0]
    assert passed()[0]._replace(a=z).a is z
