"""The checker on graphs: every neuron's λ judged alone, mistakes named at the neurons where they are made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn import verify
from fnn.batchnorm import BatchNorm
from fnn.graph import Graph, GraphParams
from problems import and_slow

RULES = fnn.RULES
LOSS = fnn.SquaredError()
# x and u are inputs; k is an output that has an arrow of its own; h, k, m and y differ in their activations
GRAPH = Graph(
    [("x", "h"), ("u", "h"), ("x", "k"), ("h", "k"), ("h", "m"), ("k", "m"), ("m", "y"), ("x", "y"), ("h", "y")],
    {"h": fnn.Tanh(), "k": fnn.Sigmoid(), "m": fnn.Softplus(), "y": fnn.Identity()},
    inputs=["x", "u"],
    outputs=["y", "k"],
)


def small(normed=None):
    """Two generations of computing neurons, where those of the first have a batch norm if any has, or those named."""
    return Graph(
        [("x", "h"), ("u", "m"), ("h", "k"), ("m", "k"), ("h", "y"), ("x", "y"), ("m", "y")],
        {"h": fnn.Tanh(), "m": fnn.Softplus(), "k": fnn.Sigmoid(), "y": fnn.Identity()},
        inputs=["x", "u"],
        outputs=["y", "k"],
        normed=normed,
    )


SMALL = small()


def array(values):
    return jnp.asarray(np.asarray(values, np.float32), jnp.float32)


def parameters(graph, gradient=None):
    """As ``graph.init`` gives them, of which nothing is compiled."""
    weights = np.random.default_rng(0).normal(size=len(graph.arrows))
    zeros, ones = array(np.zeros(len(graph))), array(np.ones(len(graph)))
    return GraphParams(array(weights), zeros, graph, gradient and BatchNorm(ones, zeros, gradient=gradient))


PARAMS = parameters(GRAPH)


def at(kind, function):
    """Where the activation is of this kind, ``function``; the right equation elsewhere."""

    def hidden_delta(g, activation, z, a):
        return (function if isinstance(activation, kind) else RULES.hidden_delta)(g, activation, z, a)

    return RULES._replace(hidden_delta=hidden_delta)


def lam(*neurons):
    return {f"lambda[{neuron}]" for neuron in neurons}


MUTANTS = {
    "no sigma' at h": (at(fnn.Tanh, lambda g, s, z, a: g), lam("h"), "sigma'(z) is missing"),
    "a for sigma' at m": (at(fnn.Softplus, lambda g, s, z, a: g * a), lam("m"), "a in place of sigma'(z)"),
    "sigma' twice at k": (
        at(fnn.Sigmoid, lambda g, s, z, a: s.pullback(s.pullback(g, z, a), z, a)), lam("k"), "applied twice"),
    "the sign at h": (at(fnn.Tanh, lambda g, s, z, a: -s.pullback(g, z, a)), lam("h"), "the sign"),
    "half at m": (at(fnn.Softplus, lambda g, s, z, a: s.pullback(g, z, a) / 2), lam("m"), "1/2 too small"),
    "no direct term": (
        RULES._replace(output_delta=lambda loss, s, z, a, y: 0 * a), lam("y", "k"), "the direct term"),
    "no sigma' in the direct term": (
        RULES._replace(output_delta=lambda loss, s, z, a, y: loss.gradient(a, y)), lam("k"), None),
    "an arrow too many": (
        RULES._replace(input_gradient=lambda delta, W, mask=None: delta @ (W + 1)), lam("x", "u", "h", "k", "m"), None),
    "weights doubled on the way back": (
        RULES._replace(input_gradient=lambda delta, W, mask=None: 2 * delta @ W), lam("x", "u", "h", "m"), None),
    "half the gradient of the weights": (
        RULES._replace(weight_gradient=lambda delta, a, mask=None: delta.T @ a / 2), {"dC/dw"}, "1/2 too small"),
    "gradient of the weights without o": (
        RULES._replace(weight_gradient=lambda d, a, mask=None: d.T @ jnp.ones_like(a)), {"dC/dw"}, None),
    "a mean for the biases": (
        RULES._replace(bias_gradient=lambda delta: delta.mean(axis=0)), {"dC/dbeta"}, None),
    "one example for the biases": (RULES._replace(bias_gradient=lambda delta: delta[0]), {"dC/dbeta"}, None),
}  # fmt: skip


def wrong(report) -> dict[str, str]:
    """What is said to be wrong: the left side of the equation → what it looks like."""
    return {
        finding.name.split(" ", 1)[1].split(" = ")[0].replace("[k,j]", "").replace("beta[k]", "beta"): finding.note
        for finding in report.wrong
    }


# at one neuron, at the outputs, from the receivers, and in the gradients of the weights and of the biases
KINDS = ("no sigma' at h", "an arrow too many", "half the gradient of the weights")


@pytest.mark.parametrize("name", and_slow(KINDS, MUTANTS))
def test_every_mistake_is_named_at_its_neurons_and_at_no_other(name):
    rules, where, looks_like = MUTANTS[name]
    found = wrong(verify.network(PARAMS, loss=LOSS, rules=rules))
    assert where <= found.keys()
    if name != "weights doubled on the way back":  # k's own λ is of two terms, of which one is doubled
        assert found.keys() == where
    if looks_like is not None:
        assert all(looks_like in note for note in found.values())


def wrong_norm(norm, psi, delta_z):
    _, gamma, beta = RULES.norm_pullback(norm, psi, delta_z)
    return norm.gamma * delta_z, gamma, beta


@pytest.mark.parametrize("gradient", and_slow(["full"], ["fixed"]))
def test_a_mistake_in_the_batch_norm_is_named_at_the_neurons_that_have_one(gradient):
    for normed in (["h", "y"],):  # y is an output
        params = parameters(small(normed), gradient)
        assert verify.network(params, loss=LOSS).ok
        found = wrong(verify.network(params, loss=LOSS, rules=RULES._replace(norm_pullback=wrong_norm)))
        assert found.keys() == lam(*normed)


def assert_never_accused(params, loss, dtype, masks=None):
    """On parameters and data from tame to wild."""
    graph, random = params.graph, np.random.default_rng(0)
    for _ in range(5):
        factor, spread = 10.0 ** random.uniform(-2, 1), 10.0 ** random.uniform(-2, 2)
        scaled = jax.tree.map(lambda leaf: array(factor * np.asarray(leaf)), params)  # noqa: B023
        x = array(random.normal(size=(7, len(graph.inputs))) * spread)
        y = random.uniform(0.05, 0.95, (7, len(graph.outputs)))
        y = array(y / y.sum(axis=1, keepdims=True))
        report = verify.network(scaled, x, y, loss=loss, masks=masks, dtype=dtype)
        assert not report.wrong, report


def test_a_right_derivation_is_never_accused():
    ones = fnn.Mask(array(np.ones((7, len(SMALL)))), array(np.ones(len(SMALL.arrows))))  # as random data have them
    assert_never_accused(parameters(SMALL, "full"), LOSS, "float64", ones)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "norm", "dtype"),
    [
        (fnn.SoftmaxCrossEntropy(), "full", "float64"),
        (fnn.SoftmaxCrossEntropy(), None, "float32"),
        (LOSS, "full", "float32"),
        (fnn.Huber(0.5), None, "float64"),
    ],
)
def test_nor_is_that_of_a_larger_graph(loss, norm, dtype):
    activations = (fnn.Tanh(), fnn.ReLU(), fnn.GELU(), fnn.Softsign())
    drawn = Graph.random(jax.random.key(3), 30, 90, inputs=4, outputs=3, generations=5)
    graph = Graph(drawn.arrows, [activations[i % 4] for i in range(27)] + [fnn.Identity()] * 3, range(4), range(27, 30))
    assert_never_accused(parameters(graph, norm), loss, dtype)


def test_a_report_lists_every_neuron_of_a_small_graph_and_every_generation_of_a_large_one():
    small = verify.network(PARAMS, loss=LOSS, rules=MUTANTS[KINDS[0]][0])
    assert sum(finding.kind == "lambda" for finding in small.findings) == len(GRAPH)
    report = verify.network(parameters(Graph.layered((3, 60, 2))), loss=LOSS)
    assert report.ok
    assert sum(finding.kind == "lambda" for finding in report.findings) == 3


def test_data_labels_and_masks_are_used_when_given():
    x = array(np.random.default_rng(0).normal(size=(5, 2)))
    masks = fnn.Mask(arrows=array(np.arange(7)), units=array(np.ones((1, 6))))
    report = verify.network(
        parameters(SMALL), x, np.array([0, 1, 1, 0, 1]), loss=fnn.SoftmaxCrossEntropy(), masks=masks
    )
    assert report.ok
    assert "cases: the data given, the network itself" in str(report)
    alone = verify.network(
        parameters(SMALL), x, np.array([0, 1, 1, 0, 1]), loss=fnn.SoftmaxCrossEntropy(), masks=masks, probes=False
    )
    assert alone.ok
    assert not alone.notes
    with pytest.raises(TypeError, match="masks: they go with data"):
        verify.network(PARAMS, loss=LOSS, masks=masks)
    with pytest.raises(TypeError, match="x, y: expected both or neither"):
        verify.network(PARAMS, x, loss=LOSS)
