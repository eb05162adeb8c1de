"""What is no graph is refused by the arrow, the neuron or the cycle that is wrong; idle neurons are warned of."""

import numpy as np
import pytest

import fnn
from errors import Unhashable, assert_refused, table
from fnn.graph import Graph
from fnn.graph.structure import SHOWN
from graph_cases import DIAMOND, TANH, chain, diamond, drawn_pairs


def cycle_in(error) -> list[str]:
    return str(error.value).split("got ")[1].split(" -> ")


@table(
    {
        "a self-loop": ({"arrows": [*DIAMOND, ("h", "h")]}, ValueError, "^arrows: expected no cycle, got 'h' -> 'h'$"),
        "two neurons": ({"arrows": [*DIAMOND, ("y", "h")]}, ValueError, "no cycle, got '[hy]' -> '[yh]' -> '[hy]'$"),
        "an arrow given twice": (
            {"arrows": [*DIAMOND, ("x", "g")]},
            ValueError,
            "^arrows: arrow 5, 'x' -> 'g', is given twice",
        ),
        "an arrow into an input": ({"arrows": [*DIAMOND, ("h", "x")]}, ValueError, "^arrows: arrow 5, 'h' -> 'x'"),
        "an arrow of three": ({"arrows": [*DIAMOND, ("x", "g", "y")]}, ValueError, r"^arrows\[5\]: expected a pair"),
        "letters": ({"arrows": [*DIAMOND, "xg"]}, ValueError, r"^arrows\[5\]: expected a pair", "'xg'"),
        "a matrix": ({"arrows": np.ones((3, 3), int)}, ValueError, r"^arrows: expected shape \(M, 2\)", r"\(3, 3\)"),
        "an input twice": ({"inputs": ["x", "x"]}, ValueError, "^inputs: neuron 'x' is listed twice"),
        "an output twice": ({"outputs": ["y", "h", "y"]}, ValueError, "^outputs: neuron 'y' is listed twice"),
        "no inputs": ({"inputs": []}, ValueError, "^inputs: expected at least one neuron, got none"),
        "no outputs": ({"outputs": ()}, ValueError, "^outputs: expected at least one neuron, got none"),
        "a name for inputs": ({"inputs": "x"}, TypeError, "^inputs: expected neurons, got 'x'; write inputs="),
        "a number for outputs": ({"outputs": 3}, TypeError, "^outputs: expected neurons, got 3"),
        "an arrow from an unknown name": (
            {"arrows": [*DIAMOND, ("q", "y")], "activations": {"h": TANH, "g": TANH, "y": TANH}},
            ValueError,
            "^arrows: unknown neuron 'q'; give it an activation, or list it in inputs",
        ),
        "an unknown output": (
            {"outputs": ["q"], "activations": {"h": TANH, "g": TANH, "y": TANH}},
            ValueError,
            "^outputs: unknown neuron 'q'",
        ),
        "a number too large": ({"activations": [TANH] * 3, "arrows": [(0, 3)], "inputs": [0], "outputs": [2]},
                               ValueError, "^arrows: unknown neuron 3", "neurons 0 to 2"),  # fmt: skip
        "a negative number": ({"activations": [TANH] * 3, "arrows": [(0, 1)], "inputs": [0], "outputs": [-1]},
                              ValueError, "^outputs: unknown neuron -1", "neurons 0 to 2"),  # fmt: skip
        "names in a sequence": ({"activations": [TANH] * 4}, TypeError, "^inputs: expected .*integers"),
        "softmax": ({"activations": fnn.Softmax()}, TypeError, "^activations: .*elementwise", "got Softmax", "Identity",
                    "SoftmaxCrossEntropy"),  # fmt: skip
        "softmax at one neuron": (
            {"activations": {"h": TANH, "g": TANH, "y": fnn.Softmax()}},
            TypeError,
            r"^activations\['y'\]: .*elementwise",
            "loss=fnn.SoftmaxCrossEntropy",
        ),
        "a class": ({"activations": fnn.Tanh}, TypeError, "^activations: expected an activation", "got .*Tanh"),
        "a string": ({"activations": "tanh"}, TypeError, "^activations: expected an activation", "got 'tanh'"),
        "no activation at one neuron": (
            {"activations": {"h": TANH, "g": None, "y": TANH}},
            TypeError,
            r"^activations\['g'\]: expected an activation",
            "got None",
        ),
        "an unhashable activation": (
            {"activations": {"h": TANH, "g": Unhashable(), "y": TANH}},
            TypeError,
            r"^activations\['g'\]: expected an activation",
        ),
    }
)  # fmt: skip
def test_what_is_no_graph_is_refused(given, error, fragments):
    assert_refused(lambda: diamond(**given), error, fragments)


@pytest.mark.parametrize("length", [1, 2, 5, 2 * SHOWN, 2 * SHOWN + 1, 1000])
def test_a_cycle_is_shown_from_a_neuron_back_to_it(length):
    """With neurons before and behind it, which are not on it."""
    around = [(10 + i, 10 + (i + 1) % length) for i in range(length)]
    with pytest.raises(ValueError, match="^arrows: expected no cycle") as error:
        Graph([(0, 10), (10, 5), (5, 6), *around], [TANH] * 2000, [0], [6])
    shown = cycle_in(error)
    assert shown[0] == shown[-1] != "..."
    assert ("..." in shown) == (length + 1 > 2 * SHOWN)
    assert len(shown) == min(length + 1, 2 * SHOWN + 1)
    for pair in zip(shown, shown[1:]):
        assert "..." in pair or tuple(map(int, pair)) in around


@pytest.mark.parametrize("seed", range(5))
def test_an_arrow_back_in_a_random_graph_is_found_and_what_is_shown_is_a_cycle(seed):
    pairs, first, last = drawn_pairs(seed)
    walk = [next(s for s in pairs[:, 0].tolist() if s not in first)]
    while walk[-1] not in last:
        walk.append(next(t for s, t in pairs.tolist() if s == walk[-1]))
    arrows = [*map(tuple, pairs.tolist()), (walk[-1], walk[0])]
    with pytest.raises(ValueError, match="no cycle") as error:
        Graph(arrows, [TANH] * 30, first, last)
    shown = [int(name) for name in cycle_in(error)]
    assert shown[0] == shown[-1]
    assert set(arrows).issuperset(zip(shown, shown[1:]))


def test_the_number_of_an_unknown_neuron_is_refused():
    assert_refused(lambda: diamond().index("q"), ValueError, ["neuron", "'q'"])
    assert_refused(lambda: chain(4).index(4), ValueError, ["neuron", "unknown neuron 4", "0 to 3"])
    assert_refused(lambda: chain(4).index("x"), TypeError, ["neuron", "integers", "'x'"])


# -- warnings --------------------------------------------------------------------------------------------------


def test_neurons_that_reach_no_output_are_named_where_the_graph_is_made():
    with pytest.warns(UserWarning, match="reach no output: 'g', 'z'") as warned:
        diamond(arrows=[*DIAMOND[:3], ("g", "z"), ("x", "y")])
    assert [str(w.message)[:15] for w in warned] == ["arrows: neurons"]


def test_neurons_that_no_input_reaches_are_named_an_isolated_output_too():
    with pytest.warns(UserWarning, match="reached by no input: 'g', 'z'") as warned:
        diamond(arrows=[DIAMOND[0], *DIAMOND[2:]], outputs=["y", "z"])
    assert len(warned) == 1


def test_the_warning_points_at_the_line_that_makes_the_graph():
    with pytest.warns(UserWarning, match="reach no output") as warned:
        Graph([("x", "y"), ("x", "z")], TANH, inputs=["x"], outputs=["y"])
    assert warned[0].filename == __file__


def test_a_warning_names_a_few_of_many_neurons():
    with pytest.warns(UserWarning, match=f"neurons that reach no output: 2, 3, .* and {300 - SHOWN} more$"):
        Graph([(0, 1), *((0, i) for i in range(2, 302))], TANH, [0], [1])
