"""Curvature on graphs: against autodiff, against dense matrices, and against the same network as layers."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import fnn
from delta_graph_cases import CASES, FULL, LITTLE, B, given
from fnn import curvature
from fnn.curvature import TANGENTS
from fnn.graph import Graph, forward
from problems import LOSSES, distance, name, some
from test_graph import EVERY_KIND, SOFTMAX, assert_close, cost, data, network

SUMS = ("psi", "input_gradient", "weight_gradient")  # the rules of matrices
SLOW = [pytest.param(case, marks=pytest.mark.slow) for case in (*CASES, *FULL)]


def along(params, seed=5):
    """A random direction, with entries for an input's bias too, which must be without effect."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), params)


def right_hvp(params, x, y, v, **options):
    return jax.jit(lambda v: jax.jvp(jax.grad(lambda params: cost(params, x, y, **options)), (params,), (v,))[1])(v)


@cache
def dense(case: str):
    """From autodiff's J: the Gauss–Newton matrix Jᵀ (∂²L/∂a²) J / B, and the mean square of the examples' gradients."""
    params, x, y, options = given(case)
    flat, back = ravel_pytree(params)

    def of_one(a, y):
        return options["loss"].value(a[None], y[None])[0]

    @jax.jit
    def matrices(flat):
        J, a = (
            jax.jacrev(lambda flat: forward(back(flat), x, options["masks"]))(flat),
            forward(params, x, options["masks"]),
        )
        G = jnp.einsum("bot,bop,bpu->tu", J, jax.vmap(jax.hessian(of_one))(a, y), J) / B
        return G, jnp.mean(jnp.einsum("bot,bo->bt", J, jax.vmap(jax.grad(of_one))(a, y)) ** 2, axis=0)

    return matrices(flat)


# -- against autodiff and dense matrices -----------------------------------------------------------------------


@pytest.mark.parametrize("case", ["little of all", *SLOW])
def test_hvp_is_the_derivative_of_the_gradient_along_v(case, x64):
    params, x, y, options = given(case)
    v = along(params)
    assert_close(curvature.hvp(params, x, y, v, **options), right_hvp(params, x, y, v, **options))


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES[::3], ids=name)
def test_hvp_holds_for_every_activation_and_loss(loss, x64):
    graph = EVERY_KIND
    if isinstance(loss, fnn.CrossEntropy):  # whose outputs must be probabilities
        activations = [fnn.Sigmoid() if i in graph.outputs else kind for i, kind in enumerate(graph.activations)]
        graph = Graph(graph.arrows, activations, graph.inputs, graph.outputs)
    params, (x, y) = network(graph), data(graph, B)
    v, options = along(params), {"loss": loss, "reduction": "sum"}
    assert_close(curvature.hvp(params, x, y, v, **options), right_hvp(params, x, y, v, **options))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["named", "little of all", *FULL])
def test_the_hessian_from_its_columns_is_autodiffs_and_symmetric(case, x64):
    params, x, y, options = given(case)
    flat, back = ravel_pytree(params)
    columns = jax.lax.map(
        lambda e: ravel_pytree(curvature.hvp(params, x, y, back(e), **options))[0], jnp.eye(len(flat))
    )
    assert_close(columns, jax.jit(jax.hessian(lambda flat: cost(back(flat), x, y, **options)))(flat))
    assert_close(columns, columns.T)


@pytest.mark.parametrize("case", ["little of all", *SLOW[::3]])
def test_the_gauss_newton_product_and_diagonal_are_those_of_the_matrix(case, x64):
    params, x, y, options = given(case)
    (G, _), v = dense(case), along(params)
    assert_close(ravel_pytree(curvature.gauss_newton_vp(params, x, y, v, **options))[0], G @ ravel_pytree(v)[0])
    if case not in FULL:
        assert_close(ravel_pytree(curvature.gauss_newton_diagonal(params, x, y, **options))[0], jnp.diagonal(G))


@pytest.mark.parametrize("case", some([*LITTLE, *CASES][::4], every=len(CASES)))
def test_the_empirical_fisher_diagonal_is_the_mean_square_of_the_gradients(case, x64):
    params, x, y, options = given(case)
    _, right = dense(case)
    assert_close(ravel_pytree(curvature.fisher_diagonal(params, x, y, **options))[0], right)


@pytest.mark.slow
def test_the_sampled_fisher_diagonal_is_the_gauss_newton_diagonal_in_the_mean(x64):
    params, x, y, options = given("all")
    right, _ = ravel_pytree(curvature.gauss_newton_diagonal(params, x, jax.nn.softmax(y), **options))

    def draw(key):
        return ravel_pytree(curvature.fisher_diagonal(params, x, key=key, **options))[0]

    drawn = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(1), 2_000)))
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert (abs(drawn.mean(axis=0) - right) <= 5 * error).all()
    assert (error > 0).sum() > len(error) / 2  # the others belong to masked arrows and to inputs


def test_the_trace_of_a_linear_graph_is_the_second_moment_of_its_inputs(x64):
    graph = Graph([("a", "y"), ("b", "y"), ("b", "k")], fnn.Identity(), ["a", "b"], ["y", "k"])
    params, (x, y) = network(graph), data(graph, B)
    a, b = jnp.mean(x**2, axis=0)
    total, neurons = curvature.hessian_trace(params, x, y, jax.random.key(0), samples=400)
    right = jnp.zeros(4).at[graph.index("y")].set(a + b + 1).at[graph.index("k")].set(b + 1)
    assert (abs(neurons.value - right) <= 4 * neurons.standard_error).all()
    assert (neurons.standard_error[2:] > 0).all()
    assert (neurons.standard_error < 0.2 * right + 1e-12).all()
    assert abs(total.value - right.sum()) <= 4 * total.standard_error
    assert_close(neurons.value.sum(), total.value)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["little of all", "all", "named"])
def test_the_trace_and_each_neurons_part_are_met_within_their_standard_errors(case, x64):
    params, x, y, options = given(case)
    flat, back = ravel_pytree(params)
    diagonal = jnp.diagonal(jax.jit(jax.hessian(lambda flat: cost(back(flat), x, y, **options)))(flat))
    of, receiver = back(diagonal), params.graph.arrows[:, 1]
    right = of.biases.at[receiver].add(of.weights)
    if of.norm is not None:
        right += of.norm.gamma + of.norm.beta
    total, neurons = curvature.hessian_trace(params, x, y, jax.random.key(0), samples=400, **options)
    assert abs(total.value - diagonal.sum()) < 4 * total.standard_error
    assert 0 < total.standard_error < 0.5 * abs(diagonal.sum())
    assert neurons.value.shape == neurons.standard_error.shape == (len(params.graph),)
    assert (abs(neurons.value - right) <= 5 * neurons.standard_error + 1e-12).all()
    assert (neurons.value[params.graph.inputs] == 0).all()
    assert_close(neurons.value.sum(), total.value)


# -- against layers --------------------------------------------------------------------------------------------


WAYS = {
    "hvp": lambda params, x, y, v: curvature.hvp(params, x, jnp.arange(B) % 3, v, loss=SOFTMAX),
    "fisher_diagonal": lambda params, x, y, v: curvature.fisher_diagonal(
        params, x, loss=SOFTMAX, key=jax.random.key(3)
    ),
    "gauss_newton_vp": lambda params, x, y, v: curvature.gauss_newton_vp(params, x, y, v),
    "gauss_newton_diagonal": lambda params, x, y, v: curvature.gauss_newton_diagonal(params, x, y, reduction="sum"),
}


@pytest.mark.parametrize("way", some(WAYS, every=len(WAYS)))
def test_a_graph_of_layers_has_what_the_layers_have(way, x64):
    layers = fnn.init(jax.random.key(0), (16, 17, 3), activation=fnn.Tanh(), dtype="float64")  # one layer is a matrix
    layers, (x, y), v = along(layers), data(Graph.layered((16, 17, 3)), B), along(layers, 6)
    ours = WAYS[way](Graph.from_layers(layers), x, y, Graph.from_layers(v))
    assert_close(ours, Graph.from_layers(WAYS[way](layers, x, y, v)))


# -- how they are called ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", some(["hvp", "gauss_newton_vp"]))
def test_in_float32_too(way):
    product = getattr(curvature, way)
    with jax.enable_x64(True):
        params, x, y, options = given("little of all")
        v = along(params)
        right = product(params, x, y, v, **options)
    right, v = jax.tree.map(lambda leaf: leaf.astype("float32"), (right, v))
    params, x, y, options = given("little of all", "float32")
    assert_close(product(params, x, y, v, **options), right, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["hvp", "gauss_newton_vp"])
def test_one_example_is_a_batch_of_one_and_the_batch_the_mean_of_its_examples(way, x64):
    params, x, y, options = given("an input is an output")
    product, v = getattr(curvature, way), along(params)
    every = [product(params, x[i], y[i], v, **options) for i in range(B)]
    assert_close(every[0], product(params, x[:1], y[:1], v, **options))
    assert_close(product(params, x, y, v, **options), jax.tree.map(lambda *leaves: sum(leaves) / B, *every))


TOGETHER = {
    "hvp": lambda params, x, y, v, **options: curvature.hvp(params, x, y, v, **options),
    "gauss_newton_vp": lambda params, x, y, v, **options: curvature.gauss_newton_vp(params, x, y, v, **options),
    "gauss_newton_diagonal": lambda params, x, y, v, **options: curvature.gauss_newton_diagonal(
        params, x, y, **options
    ),
    "fisher_diagonal": lambda params, x, y, v, **options: curvature.fisher_diagonal(params, x, y, **options),
    "hessian_trace": lambda params, x, y, v, **options: curvature.hessian_trace(
        params, x, y, jax.random.key(0), samples=3, **options
    ),
}


@pytest.mark.parametrize("way", some(TOGETHER, every=len(TOGETHER)))
def test_all_run_under_jit_and_vmap(way, x64):
    params, x, y, options = given("little of all")
    v, members = along(params), [params, along(params, 6)]

    def of(params):
        return TOGETHER[way](params, x, y, v, **options)

    every = jax.jit(jax.vmap(of))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *members))
    for i, member in enumerate(members):
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], every), of(member))


@pytest.mark.slow
def test_a_product_counts_no_more_operations_than_jvp_of_grad():
    graph = Graph.layered((64, 48, 48, 10), fnn.Tanh())
    params, (x, y) = network(graph, "float32"), data(graph, 32, "float32")

    def plain(params):
        return cost(params, x, y, reduction="sum")

    def flops(function):
        return jax.jit(function).lower(params, params).compile().cost_analysis()["flops"]

    ours = flops(lambda params, v: curvature.hvp(params, x, y, v, reduction="sum"))
    assert ours <= 1.02 * flops(lambda params, v: jax.jvp(jax.grad(plain), (params,), (v,))[1])


# -- refusals --------------------------------------------------------------------------------------------------


def test_what_is_refused_names_the_argument_and_the_corrected_call():
    params, x, y, _ = given("an input is an output", "float32")
    with pytest.raises(TypeError, match=r"kfac_factors takes layers, .*no matrix A is shared; write fisher_diagonal\("):
        curvature.kfac_factors(params, x, y)
    with pytest.raises(TypeError, match="v: expected a pytree like params.*write jax.tree.map"):
        curvature.hvp(params, x, y, params.weights)
    with pytest.raises(ValueError, match="leaf 0 of v: expected float32 of shape"):
        curvature.gauss_newton_vp(params, x, y, jax.tree.map(lambda leaf: leaf[:2], params))
    with pytest.raises(TypeError, match="rules: expected curvature.TangentRules"):
        curvature.hvp(params, x, y, params, rules=fnn.RULES)
    with pytest.raises(TypeError, match="masks: expected a fnn.Mask"):
        curvature.hvp(params, x, y, params, masks=(fnn.Mask(),))
    with pytest.raises(ValueError, match="y: expected shape"):
        curvature.hvp(params, x, y[:, :2], params)
    with pytest.raises(ValueError, match=r"x: expected examples in rows.*write x\[None\]"):
        curvature.fisher_diagonal(params, x[0], y[0])
    with pytest.raises(TypeError, match="y, key: expected one of them"):
        curvature.fisher_diagonal(params, x)
    full, x, y, options = given("little with a full batch norm", "float32")
    for function in (curvature.fisher_diagonal, curvature.gauss_newton_diagonal):
        with pytest.raises(ValueError, match=r"params.norm: with gradient='full' .*graph.init\(key, batch_norm='fixed"):
            function(full, x, y, **options)


def test_the_rules_of_matrices_may_not_be_others():
    params, x, y, _ = given("an input is an output", "float32")
    for rule in SUMS:
        mine = TANGENTS._replace(**{rule: lambda *args: args[0]})
        with pytest.raises(ValueError, match=rf"rules.{rule}: expected that of .*write rules._replace\({rule}="):
            curvature.hvp(params, x, y, params, rules=mine)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [rule for rule in TANGENTS._fields if rule not in SUMS])
def test_every_other_rule_is_used(rule, x64):
    params, x, y, options = given("little of all")
    v = along(params)
    doubled = TANGENTS._replace(**{rule: lambda *args: jax.tree.map(lambda of: 2 * of, getattr(TANGENTS, rule)(*args))})
    right, ours = (curvature.hvp(params, x, y, v, rules=rules, **options) for rules in (TANGENTS, doubled))
    assert distance(ravel_pytree(ours)[0], ravel_pytree(right)[0]) > 0.01 * np.linalg.norm(ravel_pytree(right)[0])
    if rule == "bias_gradient":
        assert_close(ours, replace(right, biases=2 * right.biases))


def test_an_inputs_bias_has_no_effect_in_v_either(x64):
    params, x, y, options = given("little of all")
    v = along(params)
    other = replace(v, biases=v.biases.at[params.graph.inputs].add(1))
    assert_close(curvature.hvp(params, x, y, other, **options), curvature.hvp(params, x, y, v, **options))
