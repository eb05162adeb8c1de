"""The structure of a graph: what it is made from, how it is compared, and its generations."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import fnn
from errors import assert_refused, table
from fnn.graph import Graph
from graph_cases import DIAMOND, TANH, chain, diamond, drawn_pairs, network

# -- numbering -------------------------------------------------------------------------------------------------


def test_integers_without_a_gap_keep_their_number():
    graph = Graph([(3, 0), (0, 1), (3, 2), (2, 1)], TANH, inputs=[3], outputs=[1])
    assert graph.neurons == range(4)
    assert graph.arrows.tolist() == [[3, 0], [0, 1], [3, 2], [2, 1]]
    assert graph.generation.tolist() == [1, 2, 1, 0]


def test_integers_with_a_gap_are_names_with_the_inputs_first_in_their_order():
    graph = Graph([(70, 5), (5, 9), (70, 9)], TANH, inputs=[70], outputs=[9])
    assert graph.neurons == (70, 5, 9)
    arrows = [(10, 30), (20, 30)]
    for given in (arrows, np.array(arrows)):
        assert Graph(given, TANH, [20, 10], [30]).neurons == (20, 10, 30)
    assert Graph(arrows, {30: TANH}, [20, 10], [30]).neurons == (20, 10, 30)


def test_names_are_numbered_inputs_first_and_then_as_they_appear():
    graph = Graph([("b", "h"), ("h", "y"), ("a", "y")], TANH, inputs=["a", "b"], outputs=["y"])
    assert graph.neurons == ("a", "b", "h", "y")
    assert [graph.index(name) for name in graph.neurons] == [0, 1, 2, 3]
    assert (len(graph), graph.inputs.tolist(), graph.outputs.tolist()) == (4, [0, 1], [3])


def test_anything_hashable_is_a_name_a_tuple_too():
    graph = Graph([(("x", 0), ("h", 1)), (("h", 1), None)], TANH, inputs=[("x", 0)], outputs=[None])
    assert graph.neurons == (("x", 0), ("h", 1), None)


def test_a_mapping_numbers_the_neurons_in_its_order_after_the_inputs():
    graph = diamond(activations={"y": fnn.Identity(), "g": TANH, "h": fnn.ReLU()})
    assert graph.neurons == ("x", "y", "g", "h")
    assert graph.activations == (fnn.Identity(), fnn.Identity(), TANH, fnn.ReLU())


def test_the_activation_of_an_input_is_the_identity_whatever_is_given():
    assert chain(3, [TANH, TANH, fnn.ReLU()]).activations == (fnn.Identity(), TANH, fnn.ReLU())
    assert chain(3, [None, TANH, fnn.ReLU()]) == chain(3, [TANH, TANH, fnn.ReLU()])


def test_an_output_may_have_outgoing_arrows_and_an_input_may_be_an_output():
    graph = diamond(outputs=["y", "h", "x"])
    assert graph.outputs.tolist() == [3, 1, 0]
    assert graph.normed.tolist() == [False, False, True, False]


def test_a_batch_norm_is_for_the_hidden_neurons_or_for_those_that_are_named():
    assert diamond().normed.tolist() == [False, True, True, False]
    named = diamond(normed=["y", "h"])
    assert named.normed.tolist() == [False, True, False, True]
    assert named == diamond(normed=["h", "y"]) != diamond()
    assert diamond(normed=["g", "h"]) == diamond()
    assert_refused(lambda: diamond(normed=["x"]), ValueError, ["^normed: neuron 'x' is an input", "leave it out"])
    assert_refused(lambda: diamond(normed=["z"]), ValueError, ["^normed: unknown neuron 'z'"])
    assert_refused(lambda: diamond(normed="h"), TypeError, ["^normed: expected neurons, got 'h'"])


def test_what_is_known_of_a_graph_cannot_be_written():
    graph = diamond()
    for array in (graph.arrows, graph.inputs, graph.outputs, graph.generation, graph.kind):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


# -- equality --------------------------------------------------------------------------------------------------


def test_an_array_a_list_and_any_integers_give_the_same_graph():
    pairs = [(0, 1), (0, 2), (1, 3), (2, 3)]
    given = [pairs, np.array(pairs), np.array(pairs, np.uint8), [list(p) for p in pairs], list(np.array(pairs))]
    graphs = [Graph(arrows, TANH, [0], [3]) for arrows in given]
    graphs.append(Graph(iter(pairs), TANH, np.array([0]), range(3, 4)))
    assert all(graph == graphs[0] and hash(graph) == hash(graphs[0]) for graph in graphs)


@pytest.mark.parametrize("make", [diamond, lambda: chain(5), lambda: Graph.layered((3, 4, 2))])
def test_equal_graphs_made_twice_are_equal_and_share_their_hash(make):
    assert make() is not make()
    assert make() == make()
    assert hash(make()) == hash(make())
    assert len({make(), make()}) == 1


def test_one_activation_and_the_same_for_every_neuron_are_equal():
    assert diamond() == diamond(activations={"h": TANH, "g": TANH, "y": fnn.Tanh()})
    assert chain(4) == chain(4, [TANH] * 4)
    assert chain(4, fnn.Identity()) == chain(4, [fnn.Identity()] * 4)


@pytest.mark.parametrize(
    "other",
    [
        diamond(activations=fnn.Sigmoid()),
        diamond(activations={"h": TANH, "g": fnn.ReLU(), "y": TANH}),
        diamond(arrows=[DIAMOND[0], DIAMOND[1], DIAMOND[3], DIAMOND[2], DIAMOND[4]]),
        diamond(arrows=DIAMOND[:-1]),
        diamond(outputs=["y", "h"]),
        diamond(outputs=["h", "y"]),
        diamond([(s.upper(), t.upper()) for s, t in DIAMOND], inputs=["X"], outputs=["Y"]),
        Graph([(0, 1), (0, 2), (1, 3), (2, 3), (0, 3)], TANH, [0], [3]),
        "diamond",
    ],
    ids=["activation", "one activation", "order", "fewer", "outputs", "order of outputs", "names", "numbers", "string"],
)
def test_graphs_that_differ_in_anything_are_different(other):
    assert diamond() != other


# -- generations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_generation_is_the_longest_path(seed):
    pairs, first, last = drawn_pairs(seed)
    graph = Graph(pairs, [TANH] * 30, first, last)
    source, target = graph.generation[graph.arrows].T
    assert (source < target).all()
    longest = np.zeros(30, int)
    np.maximum.at(longest, graph.arrows[:, 1], source + 1)
    assert graph.generation.tolist() == longest.tolist()
    assert graph.generation.dtype == np.int32


def test_a_neuron_without_incoming_arrows_that_is_no_input_is_in_generation_one():
    with pytest.warns(UserWarning, match="reached by no input: 'g'"):
        graph = diamond(arrows=[DIAMOND[0], *DIAMOND[2:]])
    assert {name: int(graph.generation[graph.index(name)]) for name in "xhgy"} == {"x": 0, "h": 1, "g": 1, "y": 2}


@pytest.mark.parametrize("seed", range(5))
def test_the_generations_are_those_of_networkx(seed):
    networkx = pytest.importorskip("networkx")
    pairs, first, last = drawn_pairs(seed)
    graph = Graph(pairs, [TANH] * 30, first, last)
    G = networkx.DiGraph(pairs.tolist())
    G.add_nodes_from(range(30))
    theirs = list(networkx.topological_generations(G))
    assert [np.flatnonzero(graph.generation == i).tolist() for i in range(len(theirs))] == list(map(sorted, theirs))


# -- constructors ----------------------------------------------------------------------------------------------


def test_a_layered_graph_has_the_arrows_of_the_matrices_row_by_row():
    graph = Graph.layered((2, 3, 1), TANH)
    assert graph.arrows.tolist() == [[0, 2], [1, 2], [0, 3], [1, 3], [0, 4], [1, 4], [2, 5], [3, 5], [4, 5]]
    assert (graph.inputs.tolist(), graph.outputs.tolist()) == ([0, 1], [5])
    assert graph.activations == (*[fnn.Identity()] * 2, *[TANH] * 3, fnn.Identity())


def test_skips_follow_the_layers():
    graph = Graph.layered((2, 2, 1, 1), skips=[(0, 2), (1, 3)])
    assert graph.arrows[-4:].tolist() == [[0, 4], [1, 4], [2, 5], [3, 5]]
    assert graph.generation.tolist() == [0, 0, 1, 1, 2, 3]


@pytest.mark.parametrize("skip", [(0, 0), (1, 0), (0, 4), (-1, 2), (0, 1, 2)])
def test_a_skip_that_leads_nowhere_is_refused(skip):
    assert_refused(lambda: Graph.layered((2, 2, 1, 1), skips=[skip]), ValueError, ["^skips: expected pairs", "got"])


def test_layers_with_batch_norms_of_two_kinds_or_a_softmax_are_no_graph():
    layer = fnn.Dense(np.ones((3, 3), "float32"), np.ones(3, "float32"), TANH)
    full, fixed = (replace(layer, norm=fnn.BatchNorm(layer.b, layer.b, gradient=of)) for of in ("full", "fixed"))
    assert (
        Graph.from_layers([full, layer, full]).graph.normed.tolist()
        == [False] * 3 + [True] * 3 + [False] * 3 + [True] * 3
    )
    assert_refused(
        lambda: Graph.from_layers([full, fixed]), ValueError, ["^params: .*same eps, gradient and axis", "fixed"]
    )
    softmax = [replace(layer, activation=fnn.Softmax())]
    assert_refused(lambda: Graph.from_layers(softmax), TypeError, ["elementwise", "Softmax"])
    assert_refused(lambda: Graph.from_layers(5), TypeError, ["^params: expected a tuple of fnn.Dense", "got int 5"])


def test_a_graph_of_networkx_keeps_its_edges_and_the_activations_at_its_nodes():
    networkx = pytest.importorskip("networkx")
    G = networkx.DiGraph(DIAMOND)
    G.nodes["g"]["activation"] = fnn.ReLU()
    graph = Graph.from_networkx(G, TANH)
    expected = {"x": fnn.Identity(), "h": TANH, "g": fnn.ReLU(), "y": fnn.Identity()}
    assert [(graph.neurons[s], graph.neurons[t]) for s, t in graph.arrows] == list(G.edges)
    assert dict(zip(graph.neurons, graph.activations)) == expected
    assert graph == diamond(list(G.edges), {n: expected[n] for n in G.nodes})
    assert_refused(lambda: Graph.from_networkx(networkx.Graph(DIAMOND)), TypeError, ["^G: expected a networkx.DiGraph"])
    with pytest.raises(ValueError, match="no cycle"):
        Graph.from_networkx(networkx.DiGraph([*DIAMOND, ("g", "h"), ("h", "g")]))


def test_what_is_no_graph_of_networkx_is_refused():
    assert_refused(lambda: Graph.from_networkx(DIAMOND), TypeError, ["^G: expected a networkx.DiGraph", "got list"])


@pytest.mark.parametrize(
    ("neurons", "arrows", "inputs", "outputs", "generations"),
    [(20, 50, 3, 2, 5), (5, 6, 2, 3, 2), (99, 98, 1, 1, 99), (40, 500, 4, 4, 10), (6, 15, 1, 1, 6), (30, 60, 1, 9, 3)],
)  # fmt: skip
def test_a_random_graph_has_exactly_what_is_asked_for(neurons, arrows, inputs, outputs, generations):
    graph = Graph.random(
        jax.random.key(1), neurons, arrows, inputs=inputs, outputs=outputs, generations=generations, activation=TANH
    )
    assert (len(graph), len(graph.arrows), len(graph.inputs), len(graph.outputs)) == (neurons, arrows, inputs, outputs)
    assert set(graph.generation.tolist()) == set(range(generations))
    assert (graph.generation[graph.outputs] == generations - 1).all()
    assert set(graph.activations[inputs : neurons - outputs]) <= {TANH}


def test_a_random_graph_is_a_function_of_its_key():
    first, again, other = (Graph.random(jax.random.key(seed), 20, 50, inputs=3, outputs=2) for seed in (0, 0, 1))
    assert first == again != other


@table(
    {
        "too few arrows": ({"arrows": 10}, ValueError, r"^arrows: expected \d+ to 118 ", "got 10"),
        "too many arrows": ({"arrows": 119}, ValueError, r"^arrows: expected \d+ to 118 ", "got 119"),
        "too many generations": (
            {"generations": 25},
            ValueError,
            "generations: expected at least one neuron",
            "got 18",
        ),
        "one generation": ({"generations": 1}, ValueError, "generations: expected", ">= 2"),
        "no room for the hidden": ({"generations": 2}, ValueError, "generations: expected", "write generations=3"),
        "more outputs than neurons": ({"outputs": 30}, ValueError, "neurons", "expected"),
        "no inputs": ({"inputs": 0}, ValueError, "^inputs: expected at least 1, got 0"),
        "half a neuron": ({"neurons": 20.5}, TypeError, "^neurons: expected an integer, got 20.5"),
        "no key": ({"key": 0}, TypeError, "^key: expected one PRNG key, got int 0"),
    }
)
def test_a_random_graph_that_cannot_be_is_refused(given, error, fragments):
    given = {"key": jax.random.key(0), "neurons": 20, "arrows": 50} | given
    assert_refused(lambda: Graph.random(**given), error, fragments)


def test_repr_counts_and_shows_no_arrays():
    assert repr(diamond()) == "Graph(4 neurons, 5 arrows, 3 generations, 1 input, 1 output)"
    assert "1,001 neurons, 1,000 arrows, 1,001 generations" in repr(chain(1001))
    params = network(diamond(), "float32", batch_norm="full")
    assert repr(params) == f"GraphParams({diamond()!r}, norm=full, float32)"
    assert "None" in repr(jax.tree.map(lambda leaf: None, params))


def test_a_summary_lists_the_generations_and_of_a_deep_graph_the_first_and_the_last():
    params = network(Graph.layered([2] * 300, TANH), "float32", batch_norm="full")
    lines = str(fnn.summary(params)).splitlines()
    assert len(lines) == 2 + 10 + 1 + 10 + 1
    assert lines[3].split() == ["1", "2", "4", "Tanh()", "full"]
    assert lines[-1] == "1,196 weights and 598 biases, 1,192 of batch norms, float32"
