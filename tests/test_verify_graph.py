"""The checker on graphs: every neuron's λ judged alone, mistakes named at the neurons where they are made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn import verify
from fnn.graph import Graph
from problems import some

RULES = fnn.RULES
LOSS = fnn.SquaredError()
# x and u are inputs; k is an output that has an arrow of its own; h, k, m and y differ in their activations
GRAPH = Graph(
    [("x", "h"), ("u", "h"), ("x", "k"), ("h", "k"), ("h", "m"), ("k", "m"), ("m", "y"), ("x", "y"), ("h", "y")],
    {"h": fnn.Tanh(), "k": fnn.Sigmoid(), "m": fnn.Softplus(), "y": fnn.Identity()},
    inputs=["x", "u"],
    outputs=["y", "k"],
)
PARAMS = GRAPH.init(jax.random.key(0))


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


@pytest.mark.parametrize("name", some(MUTANTS, every=3))
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


@pytest.mark.parametrize("gradient", some(["full", "fixed"]))
def test_a_mistake_in_the_batch_norm_is_named_at_the_neurons_that_have_one(gradient):
    params = GRAPH.init(jax.random.key(0), batch_norm=gradient)
    assert verify.network(params, loss=LOSS).ok
    found = wrong(verify.network(params, loss=LOSS, rules=RULES._replace(norm_pullback=wrong_norm)))
    assert found.keys() == lam("h", "m")


@pytest.mark.parametrize(
    ("loss", "norm", "dtype"),
    [
        (LOSS, None, "float64"),
        (fnn.SoftmaxCrossEntropy(), "full", "float64"),
        (fnn.SoftmaxCrossEntropy(), None, "float32"),
        pytest.param(LOSS, "full", "float32", marks=pytest.mark.slow),
        pytest.param(LOSS, "fixed", "float64", marks=pytest.mark.slow),
        pytest.param(fnn.Huber(0.5), None, "float64", marks=pytest.mark.slow),
        pytest.param(fnn.Huber(0.5), "full", "float32", marks=pytest.mark.slow),
    ],
)
def test_a_right_derivation_is_never_accused(loss, norm, dtype):
    activations = (fnn.Tanh(), fnn.ReLU(), fnn.GELU(), fnn.Softsign())
    drawn = Graph.random(jax.random.key(3), 40, 150, inputs=4, outputs=3, generations=6)
    graph = Graph(drawn.arrows, [activations[i % 4] for i in range(37)] + [fnn.Identity()] * 3, range(4), range(37, 40))
    params = graph.init(jax.random.key(1), batch_norm=norm)
    for draw in range(5):
        random = np.random.default_rng(draw)
        scaled = jax.tree.map(lambda leaf: leaf * jnp.float32(10.0 ** random.uniform(-2, 1)), params)  # noqa: B023
        x = random.normal(size=(8, 4)) * 10.0 ** random.uniform(-2, 2)
        y = random.uniform(0.05, 0.95, (8, 3))
        report = verify.network(scaled, np.float32(x), np.float32(y), loss=loss, dtype=dtype)
        assert not report.wrong, report


def test_a_report_lists_every_neuron_of_a_small_graph_and_every_generation_of_a_large_one():
    small = verify.network(PARAMS, loss=LOSS)
    assert sum(finding.kind == "lambda" for finding in small.findings) == len(GRAPH)
    large = Graph.random(jax.random.key(0), 200, 600, inputs=5, outputs=4, generations=7)
    report = verify.network(large.init(jax.random.key(1)), loss=LOSS)
    assert report.ok
    assert sum(finding.kind == "lambda" for finding in report.findings) == 7


def test_data_labels_and_masks_are_used_when_given():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)), jnp.float32)
    masks = fnn.Mask(arrows=jnp.arange(9.0), units=jnp.ones((1, 6)))
    report = verify.network(PARAMS, x, jnp.array([0, 1, 1, 0, 1]), loss=fnn.SoftmaxCrossEntropy(), masks=masks)
    assert report.ok
    assert not report.notes
    with pytest.raises(TypeError, match="masks: they go with data"):
        verify.network(PARAMS, loss=LOSS, masks=masks)
    with pytest.raises(TypeError, match="x, y: expected both or neither"):
        verify.network(PARAMS, x, loss=LOSS)
