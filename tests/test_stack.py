"""A stack computes what its layers compute one by one, with one program whatever its depth."""

from functools import cache, partial
from itertools import product

import jax
import numpy as np
import pytest

import fnn
from problems import ACTIVATIONS, KINDS, and_slow
from stack_cases import SHORT, assert_equal, by_layer, data, pair

KEY = jax.random.key(0)
DROPOUTS = (None, fnn.Dropout(0.6), fnn.Dropout(0.6, inverted=True, per_example=False), fnn.DropConnect(0.7))


# -- equal results ---------------------------------------------------------------------------------------------


@jax.jit
def everything(params, x, y, masks):
    """One entry for every entry of ``params``; and what is of the whole network."""
    value, gradients = fnn.value_and_backprop(params, x, y, masks=masks)
    entries = fnn.trace(params, x, masks=masks), fnn.deltas(params, x, y, masks=masks), gradients
    return entries, (value, fnn.input_gradient(params, x, y, masks=masks))


# Alone; with masks of units that differ by example, which the scan takes along; with masks of arrows.
CASES = [(None, None), ("full", DROPOUTS[1]), ("fixed", DROPOUTS[3])]


@pytest.mark.parametrize("case", and_slow(CASES, product([None, "full", "fixed"], DROPOUTS)), ids=str)
def test_trace_deltas_and_gradients_are_those_of_the_layers(case, x64):
    norm, dropout = case
    layers, stacked = pair(norm=norm)
    x, y = data(layers)
    one = other = None
    if dropout is not None:
        one, other = (jax.jit(fnn.sample_masks, static_argnums=2)(p, dropout, 7, key=KEY) for p in (layers, stacked))
        assert_equal(by_layer(stacked, other), one, 0)
    assert isinstance(stacked[1], fnn.Stack)
    (of_layers, whole), (of_stack, also) = everything(layers, x, y, one), everything(stacked, x, y, other)
    assert jax.tree.structure(of_stack[-1]) == jax.tree.structure(stacked)
    assert_equal([by_layer(stacked, entries) for entries in of_stack], of_layers)
    assert_equal(also, whole)


@pytest.mark.parametrize(
    "activations", [KINDS, pytest.param(ACTIVATIONS, marks=pytest.mark.slow)], ids=["kinds", "all"]
)
def test_the_gradient_of_a_stack_is_autodiffs(activations, x64):
    networks = [pair(activation=activation)[1] for activation in activations]
    x, y = data(networks[0])

    def cost(params):
        return fnn.SquaredError().value(fnn.forward(params, x), y).mean()

    both = jax.jit(lambda networks: [(fnn.backprop(params, x, y), jax.grad(cost)(params)) for params in networks])
    for hand, auto in both(networks):
        assert_equal(hand, auto)


def test_a_single_example_and_any_transformation(x64):
    layers, stacked = pair()
    x, y = data(layers)

    @jax.jit
    def gradients(layers, stacked, x, y):
        one, other = (fnn.backprop(params, x[0], y[0]) for params in (layers, stacked))
        return one, other, fnn.backprop(stacked, x, y), jax.vmap(fnn.backprop, (None, 0, 0))(stacked, x, y)

    one, other, whole, each = gradients(layers, stacked, x, y)
    assert [d.shape for d in jax.eval_shape(fnn.deltas, stacked, x[0], y[0])] == [(4,), (3, 4), (3,)]
    assert_equal(by_layer(stacked, other), one)
    assert_equal(jax.tree.map(lambda g: np.asarray(g).mean(axis=0), each), whole)


@pytest.mark.parametrize("norm", and_slow(["full"], [None]))
def test_training_folding_and_evaluating_in_float32_are_those_of_the_layers(norm):
    layers, stacked = pair("float32", SHORT, norm=norm)
    x, labels = data(layers, rows=(40,))[0], np.random.default_rng(2).integers(0, 3, 40)
    arguments = {"loss": fnn.SoftmaxCrossEntropy(), "epochs": 2, "batch_size": 8, "key": KEY, "validation": (x, labels),
                 "dropout": fnn.Dropout(0.8), "progress": False}  # fmt: skip
    rule = fnn.updates.momentum(0.1, 0.9)
    one, other = (fnn.train.fit(p, (x, labels), rule, **arguments) for p in (layers, stacked))
    assert_equal(by_layer(other.params, other.params), one.params, 1e-5)
    for name in ("loss", "validation_loss", "validation_accuracy"):
        ours, theirs = ([record[name] for record in run.history] for run in (one, other))
        assert theirs == pytest.approx(ours, rel=1e-5)


def test_statistics_and_fold_keep_the_stack(x64):
    layers, stacked = pair(norm="full")
    batches, dropout = [data(layers, seed=seed)[0] for seed in (1, 2)], fnn.Dropout((0.9, 0.5, 0.7))
    for_layers = fnn.Dropout((0.9, 0.5, 0.5, 0.5, 0.7))

    def folded(params, dropout):
        return jax.jit(
            lambda params: fnn.fold(
                params, statistics=fnn.statistics(params, batches, dropout=dropout), dropout=dropout
            )
        )(params)

    ours = folded(stacked, dropout)
    assert isinstance(ours[1], fnn.Stack)
    assert_equal(by_layer(ours, ours), folded(layers, for_layers))


@pytest.mark.parametrize("kind", [fnn.Dropout, fnn.DropConnect])
def test_a_stack_takes_a_probability_for_every_layer_and_unit(kind):
    layers, stacked = pair("float32")
    p = np.random.default_rng(5).uniform(0.2, 0.9, (3, 4) if kind is fnn.Dropout else (3, 4, 4))

    def drawn(params, dropout):
        def masks_and_weights(key, params):
            return fnn.sample_masks(params, dropout, 7, key=key), fnn.fold(params, dropout=dropout)

        return jax.jit(masks_and_weights)(KEY, params)

    (one, weights), (other, also) = drawn(layers, kind((None, *p, None))), drawn(stacked, kind((None, p, None)))
    assert_equal(by_layer(stacked, other), one)
    assert_equal(by_layer(stacked, also), weights, 1e-6)


# -- other parts take a stack ----------------------------------------------------------------------------------


def test_implicit_steps_of_a_stack_are_those_of_its_layers():
    layers, stacked = pair("float32", SHORT)
    x, y = data(layers)
    step = partial(fnn.implicit.layerwise, x=x, y=y, learning_rate=10.0, loss=fnn.SquaredError())
    assert_equal(by_layer(stacked, step(stacked)), step(layers), 1e-5)


def test_a_graph_of_a_stack_computes_what_the_layers_do():
    layers, stacked = pair("float32", SHORT)
    x, _ = data(layers)
    assert_equal(fnn.forward(fnn.graph.Graph.from_layers(stacked), x), fnn.forward(layers, x), 1e-5)


def test_a_stack_is_loaded_as_it_was_exported(tmp_path):
    _, stacked = pair("float32")
    fnn.checkpoint.export(tmp_path / "stack.safetensors", stacked)
    loaded = fnn.checkpoint.load(tmp_path / "stack.safetensors")
    assert jax.tree.structure(loaded) == jax.tree.structure(stacked)
    assert_equal(loaded, stacked, 0)


def test_max_norm_bounds_the_rows_of_every_layer_of_a_stack():
    layers, stacked = pair("float32")
    rule = fnn.updates.max_norm(0.5)
    ones = [jax.tree.map(np.ones_like, params) for params in (layers, stacked)]
    one, other = (jax.jit(rule.update)(g, rule.init(p), p)[0] for g, p in zip(ones, (layers, stacked)))
    assert_equal(by_layer(stacked, other), one, 1e-6)


# -- what is compiled ------------------------------------------------------------------------------------------


@cache
def compiled(depth, activation=fnn.Tanh(), width=32, batch=16):
    def array(*shape):
        return jax.ShapeDtypeStruct(shape, "float32")

    first = last = fnn.Dense(array(width, width), array(width), activation)
    run = fnn.Stack(array(depth, width, width), array(depth, width), activation)
    return jax.jit(fnn.backprop).lower((first, run, last), array(batch, width), array(batch, width)).compile()


# Derivatives from a; one from z.
ARRAYS = [(fnn.Tanh(), 1), (fnn.GELU(), 2)]


@pytest.mark.parametrize("case", and_slow(ARRAYS, [(fnn.ReLU(), 1), (fnn.Sigmoid(), 1)]), ids=str)
def test_the_backward_pass_keeps_one_array_per_layer_and_z_only_where_it_is_read(case):
    (activation, arrays), depth, width, batch = case, 64, 32, 16
    temporary = compiled(depth, activation).memory_analysis().temp_size_in_bytes
    assert temporary < (arrays + 0.3) * depth * batch * width * 4 + 100_000


def test_the_program_does_not_grow_with_the_depth():
    short, long = (len(compiled(depth).as_text()) for depth in (64, 4096))
    assert long < 1.1 * short
