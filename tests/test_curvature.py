"""Products with the Hessian, and the matrices that stand in for it, against autodiff and dense matrices."""

from dataclasses import dataclass, replace
from itertools import cycle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import fnn
from delta_cases import CASES, FULL, SOFTMAX, assert_close, given, oracle
from fnn import curvature
from problems import ACTIVATIONS, LOSSES, distance, name, problem, some


def along(params, seed=5):
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), params)


def objective(x, y, loss, masks, reduction="mean"):
    return lambda params: getattr(jnp, reduction)(loss.value(fnn.forward(params, x, masks), y))


def dense_gauss_newton(params, x, y, loss, masks):
    """Jᵀ (∂²L/∂a²) J / B from autodiff's Jacobian and Hessians, for the flattened parameters."""
    flat, back = ravel_pytree(params)
    J = jax.jacrev(lambda flat: fnn.forward(back(flat), x, masks))(flat)
    of_loss = jax.vmap(jax.hessian(lambda a, y: loss.value(a[None], y[None])[0]))
    return jnp.einsum("bot,bop,bpu->tu", J, of_loss(fnn.forward(params, x, masks), y), J) / len(x)


# -- the pieces ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", some(ACTIVATIONS, every=4), ids=name)
def test_the_second_derivative_is_autodiffs_of_the_pull_back(activation, x64):
    random = np.random.default_rng(0)
    z, dz, g = (jnp.asarray(random.normal(size=(6, 4)) * 2) for _ in range(3))
    a, da = jax.jvp(activation.value, (z,), (dz,))
    assert_close(activation.pushforward(dz, z, a), da, 1e-13)
    _, change = jax.jvp(lambda z: activation.pullback(g, z, activation.value(z)), (z,), (dz,))
    assert_close(activation.pullback_tangent(g, z, a, dz), change, 1e-13)


@pytest.mark.parametrize("activation", some([a for a in ACTIVATIONS if a != fnn.Softmax()], every=6), ids=name)
def test_the_second_derivative_is_finite_far_out(activation):
    z = jnp.asarray([-1e4, -100.0, 100.0, 1e4])
    assert np.isfinite(activation.second_derivative(z, activation.value(z))).all()


@pytest.mark.parametrize("loss", some(LOSSES, every=2), ids=name)
@pytest.mark.parametrize("output", [fnn.Sigmoid(2.0), pytest.param(fnn.Softmax(), marks=pytest.mark.slow)], ids=name)
def test_the_tangent_of_the_output_delta_is_autodiffs(loss, output, x64):
    random = np.random.default_rng(1)
    z, dz, y = (jnp.asarray(random.normal(size=(6, 4))) for _ in range(3))
    y, a, da = abs(y), *jax.jvp(output.value, (z,), (dz,))
    _, change = jax.jvp(lambda z: loss.delta(output, z, output.value(z), y), (z,), (dz,))
    assert_close(loss.delta_tangent(output, z, a, y, dz, da), change, 1e-12)
    _, bend = jax.jvp(lambda a: loss.gradient(a, y), (a,), (da,))
    assert_close(loss.hessian(a, y, da), bend, 1e-12)


@pytest.mark.parametrize("loss", [case for case in LOSSES if not isinstance(case, fnn.Huber)], ids=name)
def test_drawn_targets_have_the_loss_for_their_log_density(loss, x64):
    """E[∂L/∂a] = 0 and E[∂L/∂a ∂L/∂aᵀ] = ∂²L/∂a² hold for −log p alone."""
    a = jnp.asarray([0.2, 0.5, 0.3])
    many = jnp.broadcast_to(a, (20_000, 3))
    y = loss.sample(jax.random.key(0), many)
    g = np.asarray(loss.gradient(many, y))
    outer = g[:, :, None] * g[:, None, :]
    H = jax.vmap(lambda da: loss.hessian(many, y, jnp.broadcast_to(da, many.shape)).mean(axis=0))(jnp.eye(3))
    if loss != fnn.CrossEntropy(categorical=True):  # whose probabilities may not move freely: their sum is 1
        assert (abs(g.mean(axis=0)) < 5 * g.std(axis=0) / np.sqrt(len(g))).all()
    assert (abs(outer.mean(axis=0) - H) <= 5 * outer.std(axis=0) / np.sqrt(len(g)) + 1e-12).all()


# -- products --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", some(CASES | FULL, every=4))
def test_hvp_is_the_derivative_of_the_gradient_along_v(case, x64):
    params, x, y, options = given(case)
    v = along(params)
    _, right = jax.jvp(jax.grad(objective(x, y, **options)), (params,), (v,))
    assert_close(curvature.hvp(params, x, y, v, **options), right)


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "loss"), list(zip(ACTIVATIONS, cycle(LOSSES))), ids=name)
def test_hvp_holds_for_every_activation_and_loss(activation, loss, x64):
    output = fnn.Sigmoid() if isinstance(loss, fnn.CrossEntropy) else fnn.Identity()
    p = problem(activation, loss, 3, output=output, dtype="float64")
    v = along(p.params)
    _, right = jax.jvp(jax.grad(objective(p.x, p.y, loss, None, "sum")), (p.params,), (v,))
    assert_close(curvature.hvp(p.params, p.x, p.y, v, loss=loss, reduction="sum"), right)


def test_hvp_in_single_precision():
    params, x, y, options = given("plain", "float32")
    v = along(params)
    with jax.default_matmul_precision("highest"):
        _, right = jax.jvp(jax.grad(objective(x, y, **options)), (params,), (v,))
        assert_close(curvature.hvp(params, x, y, v, **options), right, 1e-5)


def test_one_example_and_labels(x64):
    params, x, _, _ = given("plain")
    labels = jnp.asarray([0, 2, 1, 1, 0, 2, 2])
    v = along(params)
    each = [curvature.hvp(params, x[i], labels[i], v, loss=SOFTMAX) for i in range(len(x))]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *each)
    assert_close(curvature.hvp(params, x, labels, v, loss=SOFTMAX), mean)


def test_the_hessian_from_its_columns_is_autodiffs_and_symmetric(x64):
    params, x, y, options = given("plain")
    flat, back = ravel_pytree(params)
    columns = jax.vmap(lambda e: ravel_pytree(curvature.hvp(params, x, y, back(e), **options))[0])(jnp.eye(len(flat)))
    right = jax.hessian(lambda flat: objective(x, y, **options)(back(flat)))(flat)
    assert_close(columns, right)
    assert_close(columns, columns.T)


@pytest.mark.parametrize("case", some(CASES | FULL, every=4))
def test_the_gauss_newton_product_and_diagonal_are_those_of_the_matrix(case, x64):
    params, x, y, options = given(case)
    G = dense_gauss_newton(params, x, y, **options)
    v = along(params)
    assert_close(ravel_pytree(curvature.gauss_newton_vp(params, x, y, v, **options))[0], G @ ravel_pytree(v)[0])
    if case not in FULL:
        assert_close(ravel_pytree(curvature.gauss_newton_diagonal(params, x, y, **options))[0], jnp.diagonal(G))


def test_the_gauss_newton_matrix_behind_a_matching_output_is_that_of_the_logits(x64):
    params, x, y, options = given("plain")
    for output, loss, logits in (
        (fnn.Sigmoid(), fnn.CrossEntropy(), fnn.SigmoidCrossEntropy()),
        (fnn.Softmax(), fnn.CrossEntropy(categorical=True), SOFTMAX),
    ):
        with_output, v = (*params[:-1], replace(params[-1], activation=output)), along(params)
        product = curvature.gauss_newton_vp(with_output, x, y, (*v[:-1], replace(v[-1], activation=output)), loss=loss)
        right = curvature.gauss_newton_vp(params, x, y, v, loss=logits)
        assert_close(jax.tree.leaves(product), jax.tree.leaves(right))


def test_with_piecewise_linear_activations_its_diagonal_is_the_hessians(x64):
    p = problem(fnn.LeakyReLU(0.2), SOFTMAX, 3, output=fnn.Identity(), dtype="float64")
    flat, back = ravel_pytree(p.params)
    H = jax.hessian(lambda flat: objective(p.x, p.y, SOFTMAX, None)(back(flat)))(flat)
    ours = curvature.gauss_newton_diagonal(p.params, p.x, p.y, loss=SOFTMAX)
    assert_close(ravel_pytree(ours)[0], jnp.diagonal(H))


# -- Fisher, Kronecker, trace ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", some(CASES, every=4))
def test_the_empirical_fisher_diagonal_is_the_mean_square_of_the_gradients(case, x64):
    params, x, y, options = given(case)
    rows = jax.jacrev(lambda params: options["loss"].value(fnn.forward(params, x, options["masks"]), y))(params)
    right = jax.tree.map(lambda leaf: (leaf**2).mean(axis=0), rows)
    assert_close(curvature.fisher_diagonal(params, x, y, **options), right)


def test_the_sampled_fisher_diagonal_is_the_gauss_newton_diagonal_in_the_mean(x64):
    params, x, y, options = given("plain")
    right, _ = ravel_pytree(curvature.gauss_newton_diagonal(params, x, jax.nn.softmax(y), loss=SOFTMAX))

    def draw(key):
        return ravel_pytree(curvature.fisher_diagonal(params, x, loss=SOFTMAX, key=key))[0]

    drawn = jax.vmap(draw)(jax.random.split(jax.random.key(1), 2_000))
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert float((abs(drawn.mean(axis=0) - right) / error).max()) < 5
    empirical, _ = ravel_pytree(curvature.fisher_diagonal(params, x, jax.nn.softmax(y), loss=SOFTMAX))
    assert distance(empirical, right) > 0.1 * np.linalg.norm(right)  # and is not the empirical one


@pytest.mark.parametrize("case", some(["plain", "stack", "unit masks", "fixed batch norm"], every=2))
def test_kronecker_factors_are_second_moments_of_inputs_and_deltas(case, x64):
    params, x, y, options = given(case)
    rows = oracle(params, x, y, **options)
    found = curvature.kfac_factors(params, x, y, **options)
    for (A, G), t, gradient in zip(found, fnn.trace(params, x, options["masks"]), rows, strict=True):
        delta = np.moveaxis(gradient.b, 0, -2)  # autodiff's: of every example, by the bias
        a = np.concatenate([t.a_in, np.ones((*t.a_in.shape[:-1], 1))], axis=-1)
        assert_close(A, np.swapaxes(a, -1, -2) @ a / len(x))
        assert_close(G, np.swapaxes(delta, -1, -2) @ delta / len(x))


def test_for_one_example_their_kronecker_product_is_the_fisher_block(x64):
    params, x, y, options = given("plain")
    gradients = fnn.backprop(params, x[0], y[0], **options)
    for (A, G), g in zip(curvature.kfac_factors(params, x[:1], y[:1], **options), gradients):
        row = jnp.concatenate([g.W, g.b[:, None]], axis=1).ravel()
        assert_close(jnp.kron(G, A), jnp.outer(row, row))


def test_the_trace_is_met_within_its_standard_error(x64):
    params, x, y, options = given("stack")
    flat, back = ravel_pytree(params)
    H = jax.hessian(lambda flat: objective(x, y, **options)(back(flat)))(flat)
    total, layers = curvature.hessian_trace(params, x, y, jax.random.key(0), samples=200, **options)
    assert abs(total.value - jnp.trace(H)) < 4 * total.standard_error
    assert 0 < total.standard_error < 0.2 * abs(jnp.trace(H))
    assert [estimate.value.shape for estimate in layers] == [(), (2,), ()]
    assert_close(sum(jnp.sum(estimate.value) for estimate in layers), total.value)


def test_the_standard_error_is_the_spread_of_the_estimate(x64):
    params, x, y, options = given("plain")
    keys = jax.random.split(jax.random.key(2), 200)
    total = jax.vmap(lambda key: curvature.hessian_trace(params, x, y, key, samples=10, **options).total)(keys)
    assert float(total.standard_error.mean()) == pytest.approx(float(total.value.std()), rel=0.15)


# -- how they are called ---------------------------------------------------------------------------------------


def test_all_run_under_jit_and_vmap(x64):
    params, x, y, options = given("plain")
    v = along(params)
    ways = {
        "hvp": lambda x, y: curvature.hvp(params, x, y, v, **options),
        "gauss_newton_vp": lambda x, y: curvature.gauss_newton_vp(params, x, y, v, **options),
        "gauss_newton_diagonal": lambda x, y: curvature.gauss_newton_diagonal(params, x, y, **options),
        "fisher_diagonal": lambda x, y: curvature.fisher_diagonal(params, x, y, **options),
        "kfac_factors": lambda x, y: curvature.kfac_factors(params, x, y, **options),
        "hessian_trace": lambda x, y: curvature.hessian_trace(params, x, y, jax.random.key(0), samples=3, **options),
    }
    batches = x.reshape(-1, 1, 5)[:2], y.reshape(-1, 1, 3)[:2]
    for way in ways.values():
        together = jax.jit(jax.vmap(way))(*batches)
        assert_close(jax.tree.map(lambda leaf: leaf[1], together), way(x[1:2], y[1:2]))


def test_a_product_counts_no_more_operations_than_jvp_of_grad():
    params = fnn.init(jax.random.key(0), (64, 48, 48, 10), activation=fnn.ReLU())
    x, y, v = jnp.ones((32, 64)), jnp.zeros((32, 10)), params

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

    params, x, y, options = given("plain")
    curvature.hvp(params, x, y, along(params), **options)
    before = products.hessian_product._cache_size()
    curvature.hvp(params, x + 1, y, along(params, 6), **options)
    assert products.hessian_product._cache_size() == before


def test_what_is_refused_names_the_argument_and_the_corrected_call():
    params, x, y, options = given("plain", "float32")
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
    with pytest.raises(TypeError, match=r"Huber.* no distribution .*give y"):
        curvature.fisher_diagonal(params, x, loss=fnn.Huber(), key=jax.random.key(0))
    with pytest.raises(ValueError, match="samples: expected at least 2"):
        curvature.hessian_trace(params, x, y, jax.random.key(0), samples=1, **options)
    masked, x, y, options = given("arrow masks", "float32")
    with pytest.raises(ValueError, match=r"masks\[1\].arrows: expected None"):
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

    _, x, y, _ = given("plain", "float32")
    params = fnn.init(jax.random.key(0), (5, 4, 3), activation=Cube())
    with pytest.raises(NotImplementedError, match="Cube must define second_derivative"):
        curvature.hvp(params, x, y, params)
    params = fnn.init(jax.random.key(0), (5, 4, 3), activation=fnn.Tanh())
    with pytest.raises(NotImplementedError, match="Fourth must define hessian"):
        curvature.hvp(params, x, y, params, loss=Fourth())
