"""What arrives at the edge of the program: masks, byte orders, targets and losses that do not go together."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from errors import (
    BACKWARD,
    LABELS,
    NETWORK,
    ONE_OUTPUT,
    PARAMS,
    SGD,
    SOFTMAX,
    SQUARED,
    X,
    Y,
    assert_refusal,
    changed,
    evaluate,
    fit,
    forward,
    layer,
    on_data,
    ones,
    refusals,
    refused,
    step,
    zeros,
)
from fnn import implicit, per_example
from fnn.data import Batches, Dataset
from networks import drawn
from resume_cases import assert_same

MASKED_X = np.ma.array(np.ones((5, 3), "float32"), mask=np.eye(5, 3))
MASKED_Y = np.ma.array(np.zeros((5, 2), "float32"), mask=np.eye(5, 2))
BIG_ENDIAN = {"x": np.asarray(X).astype(">f4"), "y": np.asarray(Y).astype(">f4")}
BIG_PARAMS = tuple(replace(one, W=np.asarray(one.W).astype(">f4"), b=np.asarray(one.b).astype(">f4")) for one in PARAMS)


def dataset(x=X, y=Y):
    return Dataset(x, y)


def trained(x=X, y=Y, **options):
    return fit(data=(x, y), **options)


def batches(x=X, y=Y):
    return fit(data=Batches(lambda epoch: [(x[:2], y[:2])]))


def explain(x=X, y=Y, **options):
    return fnn.explain(PARAMS, x[0], y[0], **options)


def linear_step(x=X, y=Y, loss=SQUARED):
    return implicit.layerwise(layer(), x, y, 0.1, loss=loss)


# -- masked arrays -----------------------------------------------------------------------------------------------


@refusals(
    (
        {"Dataset": dataset, "fit": trained, "Batches": batches},
        {
            "x": refused("TypeError: …x: expected a plain array, got a masked one…filled", x=MASKED_X),
            "y": refused("TypeError: …y: expected a plain array, got a masked one…a weight of 0", y=MASKED_Y),
        },
    ),
    (
        {"forward": forward, "backprop": BACKWARD["backprop"], "step": step},
        {"x": refused("TypeError: x: expected a plain array, got a masked one, float32 of shape (5, 3)", x=MASKED_X)},
    ),
    (
        {"backprop": BACKWARD["backprop"], "step": step, "norms": on_data(per_example.norms), "explain": explain},
        {"y": refused("TypeError: y: expected a plain array, got a masked one", y=MASKED_Y)},
    ),
    (
        {"forward": forward},
        {"W": refused("TypeError: params[0].W: …a masked one", params=changed(W=np.ma.ones((4, 3))))},
    ),
)
def test_a_masked_array_is_refused_because_its_masked_values_would_be_used(call, message):
    assert_refusal(call, message)


# -- byte order ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        forward,
        BACKWARD["backprop"],
        step,
        on_data(per_example.norms),
        lambda params=PARAMS, x=X, y=Y: fnn.pullback(params, x, y),
        lambda params=PARAMS, x=X, y=Y: fnn.fold(params, dropout=fnn.Dropout(0.5)),
        lambda params=PARAMS, x=X, y=Y: fit(params, (x, y)).params,
        lambda params=PARAMS, x=X, y=Y: implicit.step(params, x, y, 0.1, loss=SQUARED),
        lambda params=PARAMS, x=X, y=Y: [equation.value for equation in fnn.explain(params, x[0], y[0]).equations],
    ],
    ids=["forward", "backprop", "step", "norms", "pullback", "fold", "fit", "implicit", "explain"],
)
def test_bytes_in_another_order_are_the_same_numbers(function):
    assert_same(function(params=BIG_PARAMS, **BIG_ENDIAN), function())


def test_labels_a_dataset_and_an_exported_file_have_the_machines_byte_order(tmp_path):
    labels = np.asarray(LABELS).astype(">i4")
    assert_same(fnn.backprop(PARAMS, X, labels, loss=SOFTMAX), fnn.backprop(PARAMS, X, LABELS, loss=SOFTMAX))
    data = Dataset(BIG_ENDIAN["x"], labels)
    assert [array.dtype.isnative for array in (data.x, data.y)] == [True, True]
    fnn.checkpoint.export(tmp_path / "network", BIG_PARAMS)
    assert_same(fnn.checkpoint.load(tmp_path / "network"), PARAMS)
    fnn.checkpoint.save(tmp_path / "run", BIG_PARAMS, epoch=1)
    assert_same(fnn.checkpoint.restore(tmp_path / "run", PARAMS).params, PARAMS)


# -- losses and outputs --------------------------------------------------------------------------------------------


BEHIND_SOFTMAX, BEHIND_SIGMOID = changed(1, activation=fnn.Softmax()), changed(1, activation=fnn.Sigmoid())
ONE_SOFTMAX = (replace(ONE_OUTPUT[0], activation=fnn.Softmax()),)
MISFITS = {
    "logits behind a softmax": refused(
        "ValueError: loss: SoftmaxCrossEntropy() does not fit the output Softmax(): …Identity()…categorical",
        params=BEHIND_SOFTMAX, loss=SOFTMAX,
    ),
    "logits behind a sigmoid": refused(
        "ValueError: loss: SigmoidCrossEntropy() does not fit the output Sigmoid(…): …Identity()…CrossEntropy()",
        params=BEHIND_SIGMOID, loss=fnn.SigmoidCrossEntropy(),
    ),
    "probabilities behind nothing": refused(
        "ValueError: loss: CrossEntropy(categorical=False) does not fit the output Identity(): …Sigmoid()…",
        loss=fnn.CrossEntropy(),
    ),
    "classes' probabilities behind sigmoids": refused(
        "ValueError: loss: CrossEntropy(categorical=True) does not fit the output Sigmoid(…): …Softmax()",
        params=BEHIND_SIGMOID, loss=fnn.CrossEntropy(True),
    ),
    "logits of classes behind a sigmoid": refused(
        "ValueError: loss: SoftmaxCrossEntropy() does not fit the output Sigmoid(…): …Identity()…categorical",
        params=BEHIND_SIGMOID, loss=SOFTMAX,
    ),
    "logits that are never negative": refused(
        "ValueError: loss: SigmoidCrossEntropy() does not fit the output ReLU(): …Identity()…CrossEntropy()",
        params=changed(1, activation=fnn.ReLU()), loss=fnn.SigmoidCrossEntropy(),
    ),
    "a logarithm that is never negative": refused(
        "ValueError: loss: Poisson() does not fit the output Softplus(): it takes the logarithm…Identity()",
        params=changed(1, activation=fnn.Softplus()), loss=fnn.Poisson(),
    ),
    "weighted": refused(
        "ValueError: loss: Weighted(…) does not fit the output Identity(): …Sigmoid()",
        loss=fnn.Weighted(fnn.CrossEntropy()),
    ),
    "one of several outputs": refused(
        "ValueError: loss: CrossEntropy(categorical=False) does not fit the output Tanh(): ",
        params=changed(1, activation=fnn.PerNeuron([fnn.Sigmoid(), fnn.Tanh()])), loss=fnn.CrossEntropy(),
    ),
    "a graph's logits": refused(
        "ValueError: loss: CrossEntropy(categorical=False) does not fit the output Identity()",
        params=NETWORK, loss=fnn.CrossEntropy(),
    ),
}  # fmt: skip
ONE = {
    "a softmax loss of one output": refused(
        "ValueError: loss: SoftmaxCrossEntropy() does not fit…one output is 1…SigmoidCrossEntropy()",
        params=ONE_OUTPUT, loss=SOFTMAX,
    ),
    "a softmax of one output": refused(
        "ValueError: loss: a softmax over one output is 1…SigmoidCrossEntropy()", params=ONE_SOFTMAX, loss=SQUARED
    ),
}  # fmt: skip


def on_column(function):
    """The function, with targets for one output."""
    return lambda **given: function(data=(X, ones(5, 1)), **given)


@refusals(
    ({"fit": fit, "evaluate": evaluate, "step": step}, MISFITS),
    ({"fit": on_column(fit), "evaluate": on_column(evaluate)}, ONE),
)
def test_a_loss_that_does_not_fit_the_output_is_refused_with_the_pair_that_does(call, message):
    assert_refusal(call, message)


def test_a_loss_and_an_activation_of_ones_own_may_go_with_any():
    own = type("Own", (fnn.Sigmoid,), {"__module__": "elsewhere"})()
    fit(changed(1, activation=own), loss=fnn.CrossEntropy())


# -- targets -------------------------------------------------------------------------------------------------------


def rows(*row):
    return jnp.asarray(np.array([[1.0, 0.0]] * 4 + [row], "float32"))


IMPOSSIBLE = {
    "negative counts": refused(
        "ValueError: data: y: expected counts >= 0 for Poisson(), got [ 1. -1.] in row 4 (1 such rows)",
        y=rows(1, -1), loss=fnn.Poisson(),
    ),
    "binary -1 and 1": refused(
        "ValueError: data: y: expected entries from 0 to 1 for SigmoidCrossEntropy(), got [-1.  1.] in row 4",
        y=rows(-1, 1), loss=fnn.SigmoidCrossEntropy(),
    ),
    "binary 0 to 255": refused(
        "ValueError: data: y: expected entries from 0 to 1", y=rows(0, 255), loss=fnn.SigmoidCrossEntropy()
    ),
    "rows of nothing": refused("ValueError: data: y: expected rows of prob…sum to 1 for", y=rows(0, 0), loss=SOFTMAX),
    "rows of two": refused("ValueError: data: y: expected rows of prob…sum to 1 for", y=rows(1, 1), loss=SOFTMAX),
    "negative rows": refused("ValueError: data: y: expected rows of prob…got [ 2. -1.]", y=rows(2, -1), loss=SOFTMAX),
}  # fmt: skip
NO_CLASS = {
    f"a label of {label}": refused(
        f"ValueError: y: expected labels from 0 to 1, got {label} in row 3 (1 such rows)",
        y=np.array([0, 1, 1, label, 0], "int32"), loss=SOFTMAX,
    )
    for label in (-1, 2)
}  # fmt: skip


@refusals(
    ({"fit": trained, "evaluate": lambda y, loss: evaluate(data=(X, y), loss=loss)}, IMPOSSIBLE),
    (BACKWARD | {"norms": on_data(per_example.norms), "implicit": linear_step}, NO_CLASS),
)
def test_targets_that_cannot_be_are_refused(call, message):
    assert_refusal(call, message)


def test_jax_labels_and_those_of_one_example_are_refused_too():
    message = "ValueError: y: expected labels from 0 to 1, got 5 in row "
    assert_refusal(lambda: fnn.backprop(PARAMS, X, jnp.full(5, 5), loss=SOFTMAX), message)
    assert_refusal(lambda: fnn.explain(PARAMS, X[0], 5, loss=SOFTMAX), message)


@pytest.mark.parametrize("loss", [SOFTMAX, fnn.SigmoidCrossEntropy(), fnn.CrossEntropy()], ids=str)
def test_in_compiled_code_a_label_without_a_class_is_not_a_number(loss):
    params = BEHIND_SIGMOID if loss == fnn.CrossEntropy() else PARAMS
    step = jax.jit(lambda y: fnn.value_and_backprop(params, X, y, loss=loss))
    value, gradients = step(jnp.array([0, 1, 1, 2, 0]))
    assert np.isnan(value)
    assert np.isnan(gradients[0].W).all()
    assert np.isfinite(step(LABELS)[0])


def test_a_class_masked_out_by_a_logit_of_minus_infinity_costs_nothing():
    """With labels and with one-hot rows, outside compiled code and inside, and in training."""
    a = jnp.array([[0.0, -jnp.inf, 1.0]])
    right = float(np.log(1 + np.exp(1.0)))
    for y in (jnp.array([0]), jnp.array([[1.0, 0.0, 0.0]])):
        for value in (SOFTMAX.value, jax.jit(SOFTMAX.value)):
            assert value(a, y).item() == pytest.approx(right)
        assert np.isfinite(SOFTMAX.gradient(a, y)).all()
    params = (*drawn((3, 4)), replace(drawn((4, 2))[0], b=jnp.array([0.0, -jnp.inf])))
    run = fit(params, (X, zeros(5, dtype="int32")), loss=SOFTMAX)
    assert run.params[1].b.tolist() == [0.0, -np.inf]
    assert run.history[0]["loss"] == 0


INFINITE = {  # loss, logits, targets, value, gradient
    "binary": (fnn.SigmoidCrossEntropy(), [[-np.inf, np.inf, 0.0]], [[0.0, 1.0, 1.0]], np.log(2), [[0, 0, -0.5]]),
    "binary, wrong": (fnn.SigmoidCrossEntropy(), [[-np.inf]], [[1.0]], np.inf, [[-1.0]]),
    "a count of 0": (fnn.Poisson(), [[-np.inf, 0.0]], [[0.0, 2.0]], 1.0, [[0.0, -1.0]]),
    "a count that cannot be": (fnn.Poisson(), [[-np.inf]], [[2.0]], np.inf, [[-2.0]]),
}


@pytest.mark.parametrize("case", INFINITE)
def test_a_certain_outcome_costs_nothing_and_an_impossible_one_is_infinite(case):
    loss, a, y, value, gradient = INFINITE[case]
    a, y = jnp.asarray(a), jnp.asarray(y)
    np.testing.assert_allclose(loss.value(a, y), [value], rtol=1e-6)
    np.testing.assert_allclose(loss.gradient(a, y), gradient, rtol=1e-6)


# -- lengths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e17])
@pytest.mark.parametrize("kind", ["layers", "graph"])
def test_norms_and_clipping_neither_overflow_nor_vanish(kind, scale):
    """Lengths of 1e34 and of 1e-30, whose squares are beyond float32."""
    random = np.random.default_rng(0)
    x, y = (random.normal(size=(4, n)) * [[scale], [1.0], [scale], [0.0]] for n in (3, 2))
    W = random.normal(size=(2, 3))
    deltas = x @ W.T - y
    g = np.concatenate([(deltas[:, :, None] * x[:, None, :]).reshape(4, -1), deltas], axis=1)
    right = np.linalg.norm(g, axis=1)
    params = layer(jnp.asarray(W, "float32"))
    params = params if kind == "layers" else fnn.graph.Graph.from_layers(params)
    x, y = (jnp.asarray(values, "float32") for values in (x, y))
    np.testing.assert_allclose(per_example.norms(params, x, y).total, right, rtol=1e-5)
    clipped = per_example.clipped(params, x, y, 1e-3)
    ours = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(clipped)])
    expected = (g * np.minimum(1, 1e-3 / np.where(right == 0, 1, right))[:, None]).mean(axis=0)
    ours = ours if kind == "layers" else np.delete(ours, range(6, 9))  # the biases of the inputs
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("scale", [1.0, 2.5e19, 1e30])
@pytest.mark.parametrize("kind", ["layers", "graph"])
def test_a_huge_input_of_saturated_neurons_does_not_hide_the_rest_of_the_gradient(kind, scale):
    """Its own gradients are 0, and those behind it are not."""
    random = np.random.default_rng(0)
    x, y = (jnp.asarray(random.normal(size=(4, n)) * s, "float32") for n, s in ((3, scale), (2, 1)))
    params = PARAMS if kind == "layers" else fnn.graph.Graph.from_layers(PARAMS)
    every = jax.tree.leaves(per_example.gradients(params, x, y))
    g = np.concatenate([np.asarray(leaf, np.float64).reshape(4, -1) for leaf in every], axis=1)
    right = np.linalg.norm(g, axis=1)
    np.testing.assert_allclose(per_example.norms(params, x, y).total, right, rtol=1e-5)
    clipped = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(per_example.clipped(params, x, y, 0.1))])
    expected = (g * np.minimum(1, 0.1 / right)[:, None]).mean(axis=0)
    np.testing.assert_allclose(clipped, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_norms_and_clipping_in_half_precision_neither_overflow_nor_vanish(scale):
    x = (np.random.default_rng(0).normal(size=(4, 3)) * scale).astype("float16")
    params = layer(jnp.asarray([[0.5, -0.25, 0.125]], "float16"), zeros(1, dtype="float16"))
    delta = np.float64(x) @ np.float64(params[0].W).T
    g = np.concatenate([delta * np.float64(x), delta], axis=1)
    right = np.linalg.norm(g, axis=1)
    y = zeros(4, 1, dtype="float16")
    np.testing.assert_allclose(per_example.norms(params, x, y).total, right, rtol=1e-2)
    clipped = per_example.clipped(params, x, y, 0.5)[0]
    expected = (g * np.minimum(1, 0.5 / right)[:, None]).mean(axis=0)
    np.testing.assert_allclose([*clipped.W[0], *clipped.b], expected, rtol=2e-2, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
@pytest.mark.parametrize("kind", ["layers", "graph"])
def test_a_noise_scale_does_not_depend_on_the_units(kind, scale):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(6, 3)), random.normal(size=(6, 2))
    params = layer(jnp.asarray(random.normal(size=(2, 3)), "float32"))
    params = params if kind == "layers" else fnn.graph.Graph.from_layers(params)
    x, y = jnp.asarray(x, "float32"), jnp.asarray(y, "float32")
    loss = fnn.SquaredError(0.5 * scale)
    assert per_example.noise_scale(params, x, y, loss=loss).scale == pytest.approx(
        float(per_example.noise_scale(params, x, y).scale), rel=1e-3
    )


def test_the_clipping_that_nonfinite_advises_does_not_lose_a_huge_gradient():
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32") * 1e10
    advised = optax.chain(fnn.updates.clip_by_global_norm(1.0), fnn.updates.sgd(0.1))
    run = fit(layer(zeros(1, 3), zeros(1)), (x, 3 * x[:, :1]), advised, batch_size=8, epochs=3)
    assert np.linalg.norm(run.params[0].W) == pytest.approx(0.3, rel=1e-5)
    with pytest.raises(fnn.train.NonFinite, match=r"optax.chain\(fnn.updates.clip_by_global_norm\(1.0\), optimizer\)"):
        fit(layer(zeros(1, 3), zeros(1)), (x, 3 * x[:, :1]), SGD, batch_size=8, epochs=9)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e20, 1e30])
def test_a_bounded_row_of_any_length_keeps_its_direction(scale):
    W, step = (np.array([[3.0, 4.0], [1e-3, 0.0]], "float32") * np.float32(scale) / parts for parts in (2, 2))
    W, step = jnp.asarray(W), jnp.asarray(step)
    bounded = np.asarray(W + fnn.updates.max_norm(1.0).update(step, optax.EmptyState(), W)[0])
    whole = np.asarray(W + step, np.float64)
    length = np.linalg.norm(whole, axis=1, keepdims=True)
    expected = np.where(length > 1, whole / np.maximum(length, 1), whole)
    np.testing.assert_allclose(bounded, expected, rtol=1e-5, atol=2e-7 * scale)


# -- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", [False, True])
def test_a_mask_that_knows_the_weights_decays_nothing_else(stack):
    params = drawn((3, 4, 4, 4, 2), norm=True)
    params = fnn.stack(params) if stack else params
    ones = jax.tree.map(jnp.ones_like, params)
    rule = optax.add_decayed_weights(1.0, mask=fnn.is_weight)
    decayed, _ = rule.update(jax.tree.map(jnp.zeros_like, ones), rule.init(ones), ones)
    for one in decayed:
        assert (one.W == 1).all()
        assert not one.b.any()
        assert one.norm is None or not (one.norm.gamma.any() or one.norm.beta.any())
    assert jax.tree.leaves(fnn.is_weight(NETWORK)) == [True, False]
