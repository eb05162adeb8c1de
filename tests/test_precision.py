"""Products of bfloat16 factors: each is what NumPy makes of the rounded factors, and as near to float32 as it must."""

import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from errors import BACKWARD, PARAMS, SGD, X, Y, assert_refused
from fnn import functions
from fnn.batchnorm import norm_pullback
from fnn.train import evaluate, fit, make_step
from problems import and_slow, distance
from random_network import network
from test_train import blobs, compilations

U = 2**-8  # the largest relative error of rounding to bfloat16
LOSS = fnn.SquaredError()
BFLOAT16 = fnn.BFLOAT16


# What a network has, besides its layers and the batch.
CASES: dict = {
    "wide, with products of more than a small layer's": {"sizes": (40, 64, 48, 10), "batch": 32},
    "DropConnect and batch norm": {"masks": "arrows", "norm": "full"},
    "stack with dropout": {"sizes": (5, 4, 4, 4, 4, 3), "masks": "units", "stack": True},
    "plain": {"sizes": (5, 4, 3)},
    "batch norm, fixed": {"norm": "fixed"},
    "dropout": {"masks": "units"},
    "stack": {"sizes": (5, 4, 4, 4, 4, 3), "stack": True},
}


@cache
def problem(name):
    return drawn(**CASES[name])


def drawn(sizes=(5, 4, 6, 3), batch=7, masks=None, norm=None, stack=False):
    """A network, data for it, and the masks of inverted dropout: "units", "arrows" or None."""
    random, layers = np.random.default_rng(0), network(sizes, norm=norm)
    x, y = (random.normal(size=(batch, n)).astype("float32") for n in (sizes[0], sizes[-1]))
    if masks is None:
        return fnn.stack(layers) if stack else layers, x, y, None
    shapes = [layer.W.shape if masks == "arrows" else (batch, layer.W.shape[1]) for layer in layers]
    drawn = [fnn.Mask(**{masks: np.float32((random.uniform(size=shape) < 0.7) / 0.7)}) for shape in shapes]
    drawn[0] = fnn.Mask()
    if not stack:
        return layers, x, y, tuple(drawn)
    return fnn.stack(layers), x, y, (drawn[0], jax.tree.map(lambda *leaves: np.stack(leaves), *drawn[1:-1]), drawn[-1])


def rounded(value):
    """To bfloat16 by NumPy, in float64."""
    return np.asarray(value).astype(jnp.bfloat16).astype(np.float64)


def assert_product(value, left, right, rest=0.0, scale=1.0):
    """value = (left @ right + rest) · scale, with both factors rounded; and as near to float32 as these let it be."""
    terms = (np.abs(np.float64(left)) @ np.abs(np.float64(right)) + np.abs(rest)) * np.abs(scale)
    of_float32 = left.shape[-1] * 2**-23 * terms + 1e-30
    assert value.dtype == np.float32
    assert (np.abs(value - (rounded(left) @ rounded(right) + rest) * scale) <= of_float32).all()
    exact = (np.float64(left) @ np.float64(right) + rest) * scale
    assert (np.abs(value - exact) <= (2 * U + U**2) * terms + of_float32).all()
    assert np.linalg.norm(value - exact) > 1e-4 * np.linalg.norm(exact)  # and not in float32


def by_layer(params, x, y, masks):
    """Of every layer: itself, its mask, trace, δ and gradients in bfloat16, and gradients in float32; and ∂C/∂x."""
    wanted = ("deltas", "gradients", "input_gradient")
    *found, of_x = functions.results(wanted, params, x, y, masks, functions.Objective(LOSS, "mean", BFLOAT16))
    entries = params, masks or [fnn.Mask()] * len(params), fnn.trace(params, x, masks=masks, rules=BFLOAT16), *found
    exact = fnn.backprop(params, x, y, masks=masks)
    return list(zip(*(fnn.unstack(params, of_entry) for of_entry in (*entries, exact)))), np.asarray(of_x)


@jax.jit
def through(layer, g, t):
    """From ∂/∂a of a layer to its δ."""
    delta = layer.activation.pullback(g, t.z, t.a)
    return delta if layer.norm is None else norm_pullback(layer.norm, t.psi, delta)[0]


def parts(mask) -> list:
    return [1 if part is None else np.asarray(part) for part in mask]


# A product that is no sum of outer products; arrows and a batch norm; units and a scan.
KINDS = list(CASES)[:3]


@pytest.mark.parametrize("name", and_slow(KINDS, CASES))
def test_each_product_is_that_of_rounded_factors_and_the_gradient_is_near_to_float32s(name):
    """Each product from the values that the others gave; all else, biases and what follows a product, is in float32.

    A gradient follows from at most 2 L products, each of which changes it by about 2u of its terms |δ|ᵀ|a|.
    """
    params, x, y, masks = problem(name)
    layers, of_x = by_layer(params, x, y, masks)
    above = None
    for layer, mask, t, delta, gradient, exact in reversed(layers):
        (units, arrows), W, a_in = parts(mask), np.asarray(layer.W), np.asarray(t.a_in)
        delta, terms = np.asarray(delta), np.linalg.norm(np.abs(delta).T @ np.abs(a_in)) / len(x)
        assert_product(np.asarray(t.psi), a_in, (W * arrows).T, np.float64(layer.b))
        assert_product(np.asarray(gradient.W), delta.T, a_in, scale=arrows / len(x))
        of_b = np.abs(delta).mean(axis=0, dtype=np.float64)  # what is added up: behind a batch norm it cancels
        assert (np.abs(gradient.b - delta.mean(axis=0, dtype=np.float64)) <= 1e-6 * of_b).all()
        if above is not None:
            expected = through(layer, np.float32(above), t)
            assert distance(delta, expected) < 1e-5 * np.linalg.norm(expected)
        above = (rounded(delta) @ rounded(W * arrows)) * units
        assert 1e-4 * np.linalg.norm(exact.W) < distance(gradient.W, exact.W) < 2 * len(layers) * 2 * U * terms
    assert_product(of_x, delta, W * arrows, scale=units / len(x))


@jax.custom_vjp
def rounds_what_comes_back(product):
    return product


rounds_what_comes_back.defvjp(
    lambda product: (product, None), lambda _, delta: (jax.lax.reduce_precision(delta, 8, 7),)
)


def straight_through(value):
    return value + jax.lax.stop_gradient(jax.lax.reduce_precision(value, 8, 7) - value)


def test_the_gradient_is_autodiffs_of_a_network_that_rounds():
    params, x, y, _ = problem("plain")

    def cost(params):
        a = x
        for layer in params:
            product = rounds_what_comes_back(straight_through(a) @ straight_through(layer.W).T)
            a = layer.activation.value(product + layer.b)
        return LOSS.value(a, y).sum()  # of the mean other δ's would be rounded

    value, auto = jax.jit(jax.value_and_grad(cost))(params)
    loss, hand = fnn.value_and_backprop(params, x, y, reduction="sum", rules=BFLOAT16)
    assert abs(loss - value) < 1e-5 * value
    for ours, theirs in zip(jax.tree.leaves(hand), jax.tree.leaves(auto)):
        assert distance(ours, theirs) < 1e-4 * np.linalg.norm(theirs)  # a factor on the edge may be rounded otherwise


def products(function, *arguments) -> list[str]:
    """The types of the factors and the result of every product that a GPU will be asked for."""
    program = jax.export.export(jax.jit(function), platforms=["cuda"])(*arguments).mlir_module()
    found = re.findall(r"dot_general.* : \(tensor<\w+x(\w+)>, tensor<\w+x(\w+)>\) -> tensor<\w+x(\w+)>", program)
    return [" ".join(types) for types in found]


def test_a_gpu_is_asked_for_bfloat16_factors_and_float32_sums():
    params, x, y, _ = problem("wide, with products of more than a small layer's")
    assert set(products(partial(fnn.backprop, rules=BFLOAT16), params, x, y)) == {"bf16 bf16 f32"}
    assert len(products(partial(fnn.backprop, rules=BFLOAT16), params, x, y)) >= 3 + 2 + 3  # ψ, (2a) and (3)
    assert set(products(fnn.backprop, params, x, y)) == {"f32 f32 f32"}


def test_it_is_compiled_once_and_may_be_called_under_jit_of_vmap_and_scan():
    params, x, y, _ = problem("plain")
    call = partial(fnn.backprop, rules=BFLOAT16)
    expected = call(params, x, y)
    fnn.backprop(params, x, y)
    with compilations() as programs:
        call(params, x, y)
        fnn.backprop(params, x, y)
    assert programs == []
    twice = jax.jit(jax.vmap(call, (None, 0, 0)))(params, np.stack([x, x]), np.stack([y, y]))
    _, scanned = jax.jit(lambda rows: jax.lax.scan(lambda carry, at: (carry, call(params, *at)), 0, rows))(
        (x[None], y[None])
    )
    for a, b, c in zip(*(jax.tree.leaves(jax.tree.map(np.asarray, tree)) for tree in (expected, twice, scanned))):
        for found in (b[1], c[0]):
            np.testing.assert_allclose(found, a, rtol=1e-5, atol=1e-6)


def test_a_step_and_fit_train_in_it_and_update_and_evaluate_in_float32():
    """The held-out data are evaluated in float32, and so are an optimizer's own products."""
    (params, *_), data, loss, seen = drawn((5, 8, 3)), blobs(20), fnn.SoftmaxCrossEntropy(), []
    x, y = data.floats(), data.y

    def update(gradients, state, params=None):
        seen.append(jax.config.jax_default_matmul_precision)
        return jax.tree.map(lambda gradient: -0.5 * gradient, gradients), state

    optimizer = optax.GradientTransformation(lambda params: (), update)
    value, gradients = fnn.value_and_backprop(params, x, y, loss=loss, rules=BFLOAT16)
    stepped, _, of_step = make_step(optimizer, loss=loss, rules=BFLOAT16)(params, (), x, y)
    run = fit(
        params, data, optimizer, loss=loss, epochs=1, batch_size=20, key=jax.random.key(1), validation=data,
        precision="bfloat16", progress=False,
    )  # fmt: skip
    assert set(seen) == {jax.config.jax_default_matmul_precision}
    assert of_step == value
    (record,) = run.history
    assert record["loss"] == pytest.approx(float(value), rel=1e-6)
    assert record["validation_loss"] == evaluate(run, data, loss=loss)["loss"]
    exact = fnn.backprop(params, x, y, loss=loss)
    trees = stepped, run.params, params, gradients, exact
    for ours, also, old, rounded, gradient in zip(*map(jax.tree.leaves, trees)):
        theirs = old - 0.5 * np.asarray(rounded)
        assert ours.dtype == jnp.float32
        assert distance(ours, theirs) < 1e-5 * distance(ours, old)
        assert distance(also, theirs) < 1e-5 * distance(also, old)
        assert distance(ours, old - 0.5 * np.asarray(gradient)) > 1e-4 * distance(ours, old)


def trained(params, x, y, precision):
    return fit(
        params, (x, y), SGD, loss=LOSS, epochs=1, batch_size=2, key=jax.random.key(0), progress=False,
        precision=precision,
    )  # fmt: skip


def in_dtype(dtype):
    return jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype), (PARAMS, X, Y))


def test_fit_refuses_other_names_other_dtypes_and_graphs():
    for name in ("bf16", "float16", 16):
        expected = ["^precision: expected 'bfloat16' or None, got ", "write precision='bfloat16'"]
        assert_refused(lambda name=name: trained(PARAMS, X, Y, name), ValueError, expected)
    for dtype in ("bfloat16", "float16"):
        expected = ["^precision: 'bfloat16' rounds the factors", f"expected float32 parameters, got {dtype}"]
        assert_refused(lambda dtype=dtype: trained(*in_dtype(dtype), "bfloat16"), TypeError, expected)
    graph = fnn.graph.Graph.layered((3, 4, 2)).init(jax.random.key(0))
    expected = ["^precision: 'bfloat16' is for the matrix products of layers, and a graph", "write precision=None"]
    assert_refused(lambda: trained(graph, X, Y, "bfloat16"), TypeError, expected)
    expected = ["^rules.affine: expected that of fnn.RULES, because a graph sums arrow by arrow"]
    assert_refused(lambda: fnn.forward(graph, X, rules=BFLOAT16), ValueError, expected)


@pytest.mark.parametrize("name", ["forward", "trace", *BACKWARD])
def test_the_rules_refuse_other_dtypes(name):
    call = BACKWARD.get(name) or (lambda params, x, y, rules: getattr(fnn, name)(params, x, rules=rules))
    for dtype in ("float64", "bfloat16", "float16"):
        with jax.enable_x64(dtype == "float64"):
            expected = ["^rules: fnn.BFLOAT16 rounds the factors", f"expected float32 parameters, got {dtype}"]
            assert_refused(partial(call, *in_dtype(dtype), rules=BFLOAT16), TypeError, expected)


@pytest.mark.slow
def test_digits_are_learnt_as_well_as_in_float32():
    from experiments import digits

    train, test = digits.load()
    params = fnn.init(jax.random.key(0), (784, 100, 10), activation=fnn.ReLU(), initializer=fnn.initializers.he_normal)
    options = {"loss": fnn.SoftmaxCrossEntropy(), "epochs": 4, "batch_size": 100, "key": jax.random.key(1)}
    accuracy = {}
    for precision in (None, "bfloat16"):
        history = fit(
            params,
            train,
            fnn.updates.momentum(0.1, 0.9),
            validation=test,
            progress=False,
            precision=precision,
            **options,
        ).history
        accuracy[precision] = 100 * history[-1]["validation_accuracy"]
    print(f"784-100-10 after 4 epochs: {accuracy[None]:.2f} % in float32, {accuracy['bfloat16']:.2f} % in bfloat16")
    assert accuracy[None] > 96.5
    assert abs(accuracy[None] - accuracy["bfloat16"]) < 0.7  # four standard errors of 97 % of 10,000 digits
