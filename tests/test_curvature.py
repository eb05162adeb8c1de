"""Products with the Hessian, and the matrices that stand in for it, against autodiff and dense matrices."""

from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import fnn
from delta_cases import (
    CASES,
    ESSENTIAL,
    FULL,
    SOFTMAX,
    along,
    assert_close,
    dense_gauss_newton,
    dense_hessian,
    flat,
    given,
    objective,
)
from fnn import curvature
from problems import ACTIVATIONS, LOSSES, and_slow, name, problem


@cache
def hessian_products(case: str):
    """H v by fnn and by autodiff, in one program."""
    params, x, y, options = given(case)

    @jax.jit
    def products(params, v, masks):
        here = options | {"masks": masks}
        _, right = jax.jvp(jax.grad(objective(x, y, **here)), (params,), (v,))
        return curvature.hvp(params, x, y, v, **here), right

    return products(params, along(params), options["masks"])


class GaussNewton(NamedTuple):
    """v and what fnn says, None where no example has a gradient of its own; autodiff's matrix and mean square."""

    v: tuple
    product: tuple
    diagonal: tuple | None
    fisher_diagonal: tuple | None
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
        dense = dense_gauss_newton(lambda params: fnn.forward(params, x, masks=masks), params, y, options["loss"])
        return GaussNewton(v, product, *diagonals, *dense)

    return jax.device_get(everything(params, along(params), options["masks"]))


# -- products and diagonals ------------------------------------------------------------------------------------


# with an activation that is not elementwise, and statistics that are differentiated
@pytest.mark.parametrize("case", and_slow([*ESSENTIAL, "softmax activation", "full batch norm"], CASES | FULL))
def test_hvp_is_the_derivative_of_the_gradient_along_v(case, x64):
    assert_close(*hessian_products(case))


@pytest.mark.parametrize("case", and_slow(ESSENTIAL, CASES | FULL))
def test_the_gauss_newton_product_and_diagonal_are_those_of_the_matrix(case, x64):
    found = gauss_newton(case)
    assert_close(flat(found.product, 1)[0], found.matrix @ flat(found.v, 1)[0])
    if case not in FULL:
        assert_close(flat(found.diagonal, 1)[0], np.diagonal(found.matrix))


@pytest.mark.parametrize("case", and_slow(ESSENTIAL, CASES))
def test_the_empirical_fisher_diagonal_is_the_mean_square_of_the_gradients(case, x64):
    assert_close(flat(gauss_newton(case).fisher_diagonal, 1)[0], gauss_newton(case).mean_square)


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "loss"), list(zip(ACTIVATIONS, cycle(LOSSES))), ids=name)
def test_hvp_holds_for_every_activation_and_loss(activation, loss, x64):
    output = fnn.Sigmoid() if isinstance(loss, fnn.CrossEntropy) else fnn.Identity()
    p = problem(activation, loss, 3, output=output, dtype="float64")

    @jax.jit
    def ours_and_autodiffs(params, v):
        _, right = jax.jvp(jax.grad(objective(p.x, p.y, loss, reduction="sum")), (params,), (v,))
        return curvature.hvp(params, p.x, p.y, v, loss=loss, reduction="sum"), right

    assert_close(*ours_and_autodiffs(p.params, along(p.params)))


def test_hvp_in_single_precision():
    params, x, y, options = given("two layers", "float32")
    v = along(params)
    with jax.enable_x64(True):
        exact = [jax.tree.map(np.float64, jax.device_get(part)) for part in (params, x, y, v)]
        right = curvature.hvp(*exact, **options)
    ours = curvature.hvp(params, x, y, v, **options)
    assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {np.dtype("float32")}
    assert_close(ours, right, 1e-5)


def test_one_example_and_labels(x64):
    params, x, *_ = given("two layers")
    labels, v = np.array([0, 2, 1, 1, 0, 2, 2]), along(params)

    @jax.jit
    def one_by_one_and_together(params, x, labels, v):
        def product(x, label):
            return curvature.hvp(params, x, label, v, loss=SOFTMAX)

        each = jax.lax.map(lambda one: product(*one), (x, labels))
        return jax.tree.map(lambda leaf: leaf.mean(axis=0), each), product(x, labels)

    assert_close(*one_by_one_and_together(params, x, labels, v))


def test_the_hessian_from_its_columns_is_autodiffs_and_symmetric(x64):
    @jax.jit
    def columns_and_hessian(params, x, y):
        flat, back = ravel_pytree(params)
        columns = jax.vmap(lambda e: ravel_pytree(curvature.hvp(params, x, y, back(e)))[0])(jnp.eye(len(flat)))
        return columns, dense_hessian(params, x, y, fnn.SquaredError())

    columns, right = jax.device_get(columns_and_hessian(*given("two layers")[:3]))
    assert_close(columns, right)
    assert_close(columns, columns.T)


def test_the_gauss_newton_matrix_behind_a_matching_output_is_that_of_the_logits(x64):
    params, x, y, _ = given("two layers")
    pairs = (
        (fnn.Sigmoid(), fnn.CrossEntropy(), fnn.SigmoidCrossEntropy()),
        (fnn.Softmax(), fnn.CrossEntropy(categorical=True), SOFTMAX),
    )

    @jax.jit
    def on_probabilities_and_on_logits(params, v):
        found = []
        for output, loss, logits in pairs:
            behind = [(*of[:-1], replace(of[-1], activation=output)) for of in (params, v)]
            ours = curvature.gauss_newton_vp(behind[0], x, y, behind[1], loss=loss)
            found.append((ours, curvature.gauss_newton_vp(params, x, y, v, loss=logits)))
        return found

    for ours, right in on_probabilities_and_on_logits(params, along(params)):
        assert_close(ours, right)


def test_with_piecewise_linear_activations_its_diagonal_is_the_hessians(x64):
    p = problem(fnn.LeakyReLU(0.2), SOFTMAX, 3, output=fnn.Identity(), dtype="float64")

    @jax.jit
    def diagonals(params):
        ours, _ = ravel_pytree(curvature.gauss_newton_diagonal(params, p.x, p.y, loss=SOFTMAX))
        return ours, jnp.diagonal(dense_hessian(params, p.x, p.y, SOFTMAX))

    assert_close(*diagonals(p.params))


# -- how they are called ---------------------------------------------------------------------------------------


def test_all_run_under_vmap(x64):
    """The other two are under vmap where Fisher's targets and the directions of the trace are drawn."""
    params, x, y, _ = given("two layers")
    v, one_by_one = along(params), (np.asarray(x)[:2, None], np.asarray(y)[:2, None])

    def every_way(x, y):
        products = curvature.hvp(params, x, y, v), curvature.gauss_newton_vp(params, x, y, v)
        return products, curvature.gauss_newton_diagonal(params, x, y), curvature.kfac_factors(params, x, y)

    together, alone = jax.jit(jax.vmap(every_way))(*one_by_one), jax.jit(every_way)(*(of[1] for of in one_by_one))
    assert_close(jax.tree.map(lambda leaf: leaf[1], jax.device_get(together)), alone)


def test_a_product_counts_no_more_operations_than_jvp_of_grad():
    params = fnn.init(jax.random.key(0), (64, 48, 48, 10), activation=fnn.ReLU())
    x, y, v = np.ones((32, 64), np.float32), np.zeros((32, 10), np.float32), params

    def plain(params):
        a = x
        for layer in params[:-1]:
            a = jnp.where(a @ layer.W.T + layer.b <= 0, 0, a @ layer.W.T + layer.b)
        return ((a @ params[-1].W.T + params[-1].b - y) ** 2).sum() / 2

    def flops(function):
        return jax.jit(function).lower(params, v).compile().cost_analysis()["flops"]

    ours = flops(lambda params, v: curvature.hvp(params, x, y, v, reduction="sum"))
    assert ours <= 1.02 * flops(lambda params, v: jax.jvp(jax.grad(plain), (params,), (v,))[1])


def test_a_second_call_compiles_nothing(x64):
    from fnn.curvature import products

    params, x, y, options = given("two layers")
    curvature.hvp(params, x, y, along(params), **options)
    before = products.hessian_product._cache_size()
    curvature.hvp(params, jax.device_put(np.asarray(x) + 1), y, along(params, 6), **options)
    assert products.hessian_product._cache_size() == before


def test_what_is_refused_names_the_argument_and_the_corrected_call():
    params, x, y, options = given("two layers", "float32")
    with pytest.raises(TypeError, match="v: expected a pytree like params.*write jax.tree.map"):
        curvature.hvp(params, x, y, params[:1], **options)
    with pytest.raises(ValueError, match="leaf 0 of v: expected float32 of shape"):
        curvature.hvp(params, x, y, (replace(params[0], W=params[0].W[:, :2]), *params[1:]), **options)
    with pytest.raises(TypeError, match="rules: expected curvature.TangentRules"):
        curvature.hvp(params, x, y, params, rules=fnn.RULES, **options)
    for function in (curvature.fisher_diagonal, curvature.kfac_factors):
        with pytest.raises(TypeError, match="y, key: expected one of them"):
            function(params, x, **options)
        with pytest.raises(TypeError, match="y, key: expected one of them"):
            function(params, x, y, key=jax.random.key(0), **options)
    with pytest.raises(TypeError, match=r"Huber.* not −log p of a distribution .*give y"):
        curvature.fisher_diagonal(params, x, loss=fnn.Huber(), key=jax.random.key(0))
    with pytest.raises(ValueError, match="samples: expected at least 2"):
        curvature.hessian_trace(params, x, y, key=jax.random.key(0), samples=1, **options)
    masked, x, y, options = given("arrow masks", "float32")
    with pytest.raises(ValueError, match=r"masks\[0\].arrows: expected None"):
        curvature.kfac_factors(masked, x, y, **options)
    normed, x, y, options = given("full batch norm", "float32")
    for function in (curvature.kfac_factors, curvature.fisher_diagonal, curvature.gauss_newton_diagonal):
        with pytest.raises(ValueError, match=r"params\[0\].norm: .*write fnn.init"):
            function(normed, x, y, **options)


def test_an_activation_or_a_loss_without_second_derivatives_says_what_to_define():
    @dataclass(frozen=True)
    class Cube(fnn.Activation):
        def value(self, z):
            return z**3

        def derivative(self, z, a):
            return 3 * z * z

    @dataclass(frozen=True)
    class Fourth(fnn.Loss):
        def value(self, a, y):
            return ((a - y) ** 4).sum(axis=-1)

        def gradient(self, a, y):
            return 4 * (a - y) ** 3

    params, x, y, _ = given("two layers", "float32")
    cubes = tuple(replace(layer, activation=Cube()) for layer in params)
    with pytest.raises(NotImplementedError, match="Cube must define second_derivative"):
        curvature.hvp(cubes, x, y, cubes)
    with pytest.raises(NotImplementedError, match="Fourth must define hessian"):
        curvature.hvp(params, x, y, params, loss=Fourth())
