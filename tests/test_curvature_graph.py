"""Curvature on graphs: against autodiff, against dense matrices, and against the same network as layers."""

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import fnn
from delta_cases import along, dense_gauss_newton, flat
from delta_cases import given as layers_given
from delta_graph_cases import CASES, FULL, LITTLE, B, given
from fnn import curvature, forward
from fnn.curvature import TANGENTS
from fnn.graph import Graph, GraphParams
from graph_cases import EVERY_KIND, SOFTMAX, assert_close, cost, data, network, normed_layers
from problems import and_slow, distance, name

SUMS = ("psi", "input_gradient", "weight_gradient")  # the rules of matrices
TINY = "an input is an output"


def right_hvp(params, x, y, v, **options):
    return jax.jvp(jax.grad(lambda params: cost(params, x, y, **options)), (params,), (v,))[1]


def dense_hessian(params, x, y, **options):
    flat, back = ravel_pytree(params)
    return jax.hessian(lambda flat: cost(back(flat), x, y, **options))(flat)


@cache
def hessian_products(case: str):
    """v, which has entries for an input's bias too, and H v by fnn and by autodiff: in one program."""
    params, x, y, options = given(case)

    @jax.jit
    def products(params, v, masks):
        here = options | {"masks": masks}
        return v, curvature.hvp(params, x, y, v, **here), right_hvp(params, x, y, v, **here)

    return jax.device_get(products(params, along(params), options["masks"]))


class GaussNewton(NamedTuple):
    """v and what fnn says, None where no example has a gradient of its own; autodiff's matrix and mean square."""

    v: GraphParams
    product: GraphParams
    diagonal: GraphParams | None
    fisher_diagonal: GraphParams | None
    matrix: jax.Array
    mean_square: jax.Array


@cache
def gauss_newton(case: str) -> GaussNewton:
    """All of a case in one program."""
    params, x, y, options = given(case)

    @jax.jit
    def everything(params, v, masks):
        here = options | {"masks": masks}
        diagonals = [
            None if case in FULL else diagonal(params, x, y, **here)
            for diagonal in (curvature.gauss_newton_diagonal, curvature.fisher_diagonal)
        ]
        product = curvature.gauss_newton_vp(params, x, y, v, **here)
        dense = dense_gauss_newton(lambda params: forward(params, x, masks=masks), params, y, options["loss"])
        return GaussNewton(v, product, *diagonals, *dense)

    return jax.device_get(everything(params, along(params), options["masks"]))


# -- against autodiff and dense matrices -----------------------------------------------------------------------


@pytest.mark.parametrize("case", and_slow(LITTLE, CASES | FULL))
def test_hvp_is_the_derivative_of_the_gradient_along_v_with_an_inputs_bias_without_effect(case, x64):
    v, ours, right = hessian_products(case)
    assert (v.biases != 0).all()
    assert_close(ours, right)


@pytest.mark.parametrize("case", and_slow(LITTLE, CASES | FULL))
def test_the_gauss_newton_product_and_diagonal_are_those_of_the_matrix(case, x64):
    found = gauss_newton(case)
    assert_close(flat(found.product, 1)[0], found.matrix @ flat(found.v, 1)[0])
    if case not in FULL:
        assert_close(flat(found.diagonal, 1)[0], np.diagonal(found.matrix))


@pytest.mark.parametrize("case", and_slow(LITTLE, CASES))
def test_the_empirical_fisher_diagonal_is_the_mean_square_of_the_gradients(case, x64):
    assert_close(flat(gauss_newton(case).fisher_diagonal, 1)[0], gauss_newton(case).mean_square)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [fnn.SquaredError(), fnn.CrossEntropy()], ids=name)
def test_hvp_holds_for_every_activation_and_loss(loss, x64):
    graph = EVERY_KIND
    if isinstance(loss, fnn.CrossEntropy):  # whose outputs must be probabilities
        activations = [fnn.Sigmoid() if i in graph.outputs else kind for i, kind in enumerate(graph.activations)]
        graph = Graph(graph.arrows, activations, graph.inputs, graph.outputs)
    params, (x, y) = network(graph), data(graph, B)
    v, options = along(params), {"loss": loss, "reduction": "sum"}

    @jax.jit
    def ours_and_autodiffs(params, v):
        return curvature.hvp(params, x, y, v, **options), right_hvp(params, x, y, v, **options)

    assert_close(*ours_and_autodiffs(params, v))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["unit masks of the batch", *FULL])
def test_the_hessian_from_its_columns_is_autodiffs_and_symmetric(case, x64):
    params, x, y, options = given(case)

    @jax.jit
    def columns_and_hessian(params):
        flat, back = ravel_pytree(params)

        def column(e):
            return ravel_pytree(curvature.hvp(params, x, y, back(e), **options))[0]

        return jax.lax.map(column, jnp.eye(len(flat))), dense_hessian(params, x, y, **options)

    columns, right = jax.device_get(columns_and_hessian(params))
    assert_close(columns, right)
    assert_close(columns, columns.T)


@pytest.mark.slow
def test_the_sampled_fisher_diagonal_is_the_gauss_newton_diagonal_in_the_mean(x64):
    params, x, y, options = given(*LITTLE)

    @jax.jit
    def diagonals(keys):
        def fisher(key):
            return curvature.fisher_diagonal(params, x, key=key, **options)

        return jax.vmap(fisher)(keys), curvature.gauss_newton_diagonal(params, x, jax.nn.softmax(y), **options)

    drawn, right = jax.device_get(diagonals(jax.random.split(jax.random.key(1), 2_000)))
    drawn, right = flat(drawn, 2_000), flat(right, 1)[0]
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert (abs(drawn.mean(axis=0) - right) <= 5 * error).all()
    assert ((error > 0) == (right > 0)).all()  # the others belong to masked arrows and to what is not trained
    assert (right > 0).sum() > 10


def test_the_trace_of_a_linear_graph_is_the_second_moment_of_its_inputs(x64):
    graph = Graph([("a", "y"), ("b", "y"), ("b", "k")], fnn.Identity(), ["a", "b"], ["y", "k"])
    params, (x, y) = network(graph), data(graph, B)
    a, b = np.mean(np.asarray(x) ** 2, axis=0)
    total, neurons = jax.device_get(curvature.hessian_trace(params, x, y, key=jax.random.key(0), samples=400))
    right = np.zeros(4)
    right[graph.index("y")], right[graph.index("k")] = a + b + 1, b + 1
    assert (abs(neurons.value - right) <= 4 * neurons.standard_error).all()
    assert (neurons.standard_error[2:] > 0).all()
    assert (neurons.standard_error < 0.2 * right + 1e-12).all()
    assert abs(total.value - right.sum()) <= 4 * total.standard_error
    assert_close(neurons.value.sum(), total.value)


@pytest.mark.slow
def test_the_trace_and_each_neurons_part_are_met_within_their_standard_errors(x64):
    params, x, y, options = given(*LITTLE)

    @jax.jit
    def trace_and_diagonal(params, key):
        trace = jax.vmap(lambda key: curvature.hessian_trace(params, x, y, key=key, samples=400, **options))(key[None])
        diagonal = jnp.diagonal(dense_hessian(params, x, y, **options))
        return trace, ravel_pytree(params)[1](diagonal)

    trace, of = jax.device_get(trace_and_diagonal(params, jax.random.key(0)))
    total, neurons = jax.tree.map(lambda leaf: leaf[0], trace)
    right, in_all = of.biases.copy(), flat(of, 1).sum()
    np.add.at(right, params.graph.arrows[:, 1], of.weights)
    if of.norm is not None:
        right += of.norm.gamma + of.norm.beta
    assert abs(total.value - in_all) < 4 * total.standard_error
    assert 0 < total.standard_error < 0.5 * abs(in_all)
    assert neurons.value.shape == neurons.standard_error.shape == (len(params.graph),)
    assert (abs(neurons.value - right) <= 5 * neurons.standard_error + 1e-12).all()
    assert (neurons.value[params.graph.inputs] == 0).all()
    assert_close(neurons.value.sum(), total.value)


# -- against layers --------------------------------------------------------------------------------------------


WAYS = {
    "hvp": lambda params, x, y, v: curvature.hvp(params, x, np.arange(B) % 3, v, loss=SOFTMAX),
    "fisher_diagonal": lambda params, x, y, v: curvature.fisher_diagonal(
        params, x, loss=SOFTMAX, key=jax.random.key(3)
    ),
    "gauss_newton_vp": lambda params, x, y, v: curvature.gauss_newton_vp(params, x, y, v),
    "gauss_newton_diagonal": lambda params, x, y, v: curvature.gauss_newton_diagonal(params, x, y, reduction="sum"),
}


# what the first says of labels, and of a generation that is a matrix, holds of all
@pytest.mark.parametrize("way", and_slow(["hvp"], WAYS))
def test_a_graph_of_layers_has_what_the_layers_have(way, x64):
    layers, x, y, _ = layers_given("a matrix")

    @jax.jit
    def of_graph_and_of_layers(layers, v):
        ours = WAYS[way](Graph.from_layers(layers), x, y, Graph.from_layers(v))
        return ours, Graph.from_layers(WAYS[way](layers, x, y, v))

    assert_close(*of_graph_and_of_layers(layers, along(layers)))


@pytest.mark.parametrize("gradient", ["full", "fixed"])
def test_a_batch_norm_at_the_outputs_is_that_of_the_layers(gradient, x64):
    layers, x, y = normed_layers(gradient)

    @jax.jit
    def of_graph_and_of_layers(layers, v):
        def said(params, v):
            every = [way(params, x, y, v) for way in (curvature.hvp, curvature.gauss_newton_vp)]
            if gradient == "fixed":
                every += [way(params, x, y) for way in (curvature.gauss_newton_diagonal, curvature.fisher_diagonal)]
            return every

        params, of_graph = Graph.from_layers(layers), Graph.from_layers(v)
        right = right_hvp(params, x, y, of_graph)
        return said(params, of_graph), list(map(Graph.from_layers, said(layers, v))), right

    ours, of_layers, autodiff = of_graph_and_of_layers(layers, along(layers))
    assert_close([*ours, ours[0]], [*of_layers, autodiff])


# -- how they are called ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", and_slow(["gauss_newton_vp"], ["hvp"]))
def test_in_float32_and_under_vmap_too(way):
    with jax.enable_x64(True):
        v, right = gauss_newton(*LITTLE)[:2] if way == "gauss_newton_vp" else hessian_products(*LITTLE)[:2]
    params, x, y, options = given(*LITTLE, "float32")
    once_and_twice = jax.tree.map(lambda leaf: np.float32([leaf, 2 * leaf]), v)
    products = jax.jit(jax.vmap(lambda v: getattr(curvature, way)(params, x, y, v, **options)))(once_and_twice)
    assert_close(products, jax.tree.map(lambda leaf: np.float32([leaf, 2 * leaf]), right), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["hvp", "gauss_newton_vp"])
def test_one_example_is_a_batch_of_one_and_the_batch_the_mean_of_its_examples(way, x64):
    params, x, y, options = given(TINY)
    product, v = getattr(curvature, way), along(params)
    x, y = np.asarray(x), np.asarray(y)
    every = [jax.device_get(product(params, x[i], y[i], v, **options)) for i in range(B)]
    assert_close(every[0], product(params, x[:1], y[:1], v, **options))
    assert_close(product(params, x, y, v, **options), jax.tree.map(lambda *leaves: sum(leaves) / B, *every))


@pytest.mark.slow
def test_all_run_under_vmap(x64):
    params, x, y, options = given(*LITTLE)
    v, members = along(params), [along(params, 6), params]
    diagonals = curvature.gauss_newton_diagonal, curvature.fisher_diagonal

    @jax.jit
    @jax.vmap
    def of_every_member(params):
        products = [way(params, x, y, v, **options) for way in (curvature.hvp, curvature.gauss_newton_vp)]
        return *products, *(diagonal(params, x, y, **options) for diagonal in diagonals)

    every = of_every_member(jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(members)))
    (_, hvp, _), found = hessian_products(*LITTLE), gauss_newton(*LITTLE)
    last = jax.tree.map(lambda leaf: leaf[1], jax.device_get(every))
    assert_close(last, (hvp, found.product, found.diagonal, found.fisher_diagonal))


@pytest.mark.slow
def test_a_product_counts_no_more_operations_than_jvp_of_grad():
    graph = Graph.layered((64, 48, 48, 10), fnn.Tanh())
    params, (x, y) = network(graph, "float32"), data(graph, 32, "float32")

    def flops(function):
        return jax.jit(function).lower(params, params).compile().cost_analysis()["flops"]

    ours = flops(lambda params, v: curvature.hvp(params, x, y, v, reduction="sum"))
    assert ours <= 1.02 * flops(lambda params, v: right_hvp(params, x, y, v, reduction="sum"))


# -- refusals --------------------------------------------------------------------------------------------------


def test_what_is_refused_names_the_argument_and_the_corrected_call():
    params, x, y, _ = given(TINY, "float32")
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
    params, x, y, _ = given(TINY, "float32")
    for rule in SUMS:
        mine = TANGENTS._replace(**{rule: lambda *args: args[0]})
        with pytest.raises(ValueError, match=rf"rules.{rule}: expected that of .*write rules._replace\({rule}="):
            curvature.hvp(params, x, y, params, rules=mine)


@pytest.mark.slow
def test_every_other_rule_is_used(x64):
    params, x, y, options = given(*LITTLE)
    others = [rule for rule in TANGENTS._fields if rule not in SUMS]

    @jax.jit
    def with_factors(factors):
        """The product by rules that are these multiples of the right ones."""

        def times(factor, rule):
            return lambda *args: jax.tree.map(lambda of: factor * of, rule(*args))

        mine = {rule: times(factors[i], getattr(TANGENTS, rule)) for i, rule in enumerate(others)}
        return curvature.hvp(params, x, y, along(params), rules=TANGENTS._replace(**mine), **options)

    n = len(others)
    right, *changed = (jax.device_get(with_factors(factors)) for factors in 1 + np.eye(n + 1, n, -1))
    assert_close(right, curvature.hvp(params, x, y, along(params), **options))
    for rule, ours in zip(others, changed, strict=True):
        assert distance(flat(ours, 1), flat(right, 1)) > 0.01 * np.linalg.norm(flat(right, 1))
        if rule == "bias_gradient":
            assert_close(ours, replace(right, biases=2 * right.biases))
