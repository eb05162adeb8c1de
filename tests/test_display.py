"""What a trace looks like to a person: a table, and HTML in a notebook."""

from functools import cache

import jax
import numpy as np
import pytest

import fnn
from fnn.display import Table
from fnn.runs import Run, State


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


def test_deltas_have_a_summary():
    deltas = fnn.deltas((dense(3, 4), dense(4, 2)), np.ones((5, 3), np.float32), np.ones((5, 2), np.float32))
    table = fnn.summary(deltas)
    assert [row[1:3] for row in table.rows] == [("delta", "(5, 4)"), ("delta", "(5, 2)")]
    assert "<td" in table._repr_html_()


def test_a_layer_shows_its_weights_in_a_notebook():
    page = dense(3, 2)._repr_html_()
    assert "Dense(W=(2, 3), b=(2,), Tanh(), float32)" in page
    assert page.count(">1</td>") == 6
    normed = fnn.init(jax.random.key(0), (3, 40, 2), batch_norm="full")[0]._repr_html_()
    assert ">γ<" in normed
    assert "1 ± 0, 1 to 1" in normed
    assert "&lt;object" in fnn.Dense(object(), object(), fnn.Tanh())._repr_html_()  # as JAX transformations make them


def test_a_layer_shows_itself_while_jax_traces_it():
    seen = []
    jax.jit(lambda layer: seen.append(layer._repr_html_()))(dense(3, 2))
    assert "<table>" in seen[0]


def graph(**options):
    return fnn.graph.Graph([("x", "<h>"), ("<h>", "y"), ("x", "y")], fnn.Tanh(), ["x"], ["y"], **options)


def test_a_small_graph_is_a_picture_and_a_large_one_words():
    page = graph()._repr_html_()
    assert page.count("<circle") == 3
    assert page.count("<path") == 3
    assert "<h>" not in page
    assert "&lt;h&gt;" in page
    large = fnn.graph.Graph.layered((3, 80, 2))._repr_html_()
    assert "<svg" not in large
    assert large.startswith("Graph(85 neurons")


def test_the_parameters_of_a_graph_show_their_weights():
    params = graph().init(jax.random.key(0))
    page = params._repr_html_()
    for weight in np.asarray(params.weights):
        assert f"<title>{weight:.4g}</title>" in page
    many = jax.vmap(graph().init)(jax.random.split(jax.random.key(0), 2))
    assert "<title>x</title>" in many._repr_html_()
    assert "#d9622b" not in many._repr_html_()
    infinite = jax.tree.map(lambda leaf: leaf * np.inf, params)._repr_html_()
    assert "inf</title>" in infinite


def test_every_line_of_a_footer_is_a_line_in_html():
    assert "<p>1 &lt; 2<br>and more</p>" in Table(("a",), (("1",),), footer="1 < 2\nand more")._repr_html_()


def test_one_of_a_kind_is_singular():
    assert repr(graph()) == "Graph(3 neurons, 3 arrows, 3 generations, 1 input, 1 output)"
    assert fnn.summary(fnn.trace((dense(3, 2),), np.ones((2, 3), np.float32))).footer == "1 entry, float32"
    assert fnn.explain((dense(3, 2),), np.ones(3, np.float32), np.ones(2, np.float32)).title.startswith("3-2, 1 layer,")
    assert (
        repr(Run((), (), [{"epoch": 1, "loss": 0.5}], State((), 1, 3, jax.random.key(0)))) == "Run(1 epoch, loss 0.5)"
    )


def test_the_trace_of_a_graph_shows_its_numbers():
    page = fnn.trace(graph().init(jax.random.key(0)), np.ones(1, np.float32))._repr_html_()
    assert [f">{name}</td>" in page for name in ("psi", "z", "a")] == [True] * 3


@pytest.mark.parametrize("epochs", [0, 3, 30])
def test_a_run_shows_its_last_records(epochs):
    history = [{"epoch": n, "loss": 1 / n, **({"norm": np.array(0.25)} if n > 1 else {})} for n in range(1, epochs + 1)]
    page = Run((), (), history, State((), epochs, epochs, jax.random.key(0)))._repr_html_()
    assert page.count("<tr") == 1 + min(epochs, 10)
    assert (f"the last 10 of {epochs} epochs" in page) is (epochs > 10)
    assert (">0.25</td>" in page) is (epochs > 1)
