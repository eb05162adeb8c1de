"""A stack computes what its layers compute one by one, with one program whatever its depth."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from mutants import MUTANTS, RULES, network
from problems import ACTIVATIONS, LOSSES, distance, some

SIZES = (5, 4, 4, 4, 4, 3)  # layers 2 to 4 are alike
KEY = jax.random.key(0)
DROPOUTS = (None, fnn.Dropout(0.6), fnn.Dropout(0.6, inverted=True, per_example=False), fnn.DropConnect(0.7))


def pair(dtype="float64", sizes=SIZES, **options):
    """The same network, layer by layer and stacked, with random biases, γ and β."""
    layers = fnn.init(KEY, sizes, dtype=dtype, **options)
    random = np.random.default_rng(3)
    leaves, structure = jax.tree.flatten(layers)
    moved = [leaf + jnp.asarray(0.3 * random.normal(size=leaf.shape), dtype) for leaf in leaves]
    layers = jax.tree.unflatten(structure, moved)
    return layers, fnn.stack(layers)


def data(params, rows=(7,), seed=1):
    random = np.random.default_rng(seed)
    x = random.normal(size=(*rows, params[0].W.shape[1]))
    y = random.uniform(0.05, 0.95, (*rows, params[-1].W.shape[0]))
    return jnp.asarray(x, params[0].W.dtype), jnp.asarray(y, params[0].W.dtype)


def assert_equal(ours, theirs, tolerance=1e-12):
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    for value, right in zip(ours, theirs, strict=True):
        assert value.shape == right.shape
        assert distance(value, right) <= tolerance * (1 + np.linalg.norm(np.asarray(right)))


# -- equal results ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", some(tuple(product([None, "full", "fixed"], DROPOUTS)), every=6), ids=str)
def test_trace_deltas_and_gradients_are_those_of_the_layers(case, x64):
    norm, dropout = case
    layers, stacked = pair(activation=fnn.Tanh(), batch_norm=norm)
    x, y = data(layers)
    one, other = (None, None) if dropout is None else (fnn.sample_masks(KEY, p, dropout, 7) for p in (layers, stacked))
    assert isinstance(stacked[1], fnn.Stack)
    if dropout is not None:
        assert_equal(fnn.unstack(stacked, other), one, 0)
    assert_equal(fnn.unstack(stacked, fnn.trace(stacked, x, other)), fnn.trace(layers, x, one))
    assert_equal(fnn.unstack(stacked, fnn.deltas(stacked, x, y, masks=other)), fnn.deltas(layers, x, y, masks=one))
    value, gradients = fnn.value_and_backprop(stacked, x, y, masks=other)
    assert jax.tree.structure(gradients) == jax.tree.structure(stacked)
    assert_equal((value, fnn.unstack(stacked, gradients)), fnn.value_and_backprop(layers, x, y, masks=one))
    assert_equal(fnn.input_gradient(stacked, x, y, masks=other), fnn.input_gradient(layers, x, y, masks=one))


@pytest.mark.parametrize("i", some(range(len(ACTIVATIONS)), every=5))
def test_the_gradient_of_a_stack_is_autodiffs(i, x64):
    activation, loss = ACTIVATIONS[i], LOSSES[i % len(LOSSES)]  # each of both
    output = fnn.Sigmoid() if isinstance(loss, fnn.CrossEntropy) else fnn.Identity()
    _, stacked = pair(activation=activation, output=output)
    x, y = data(stacked)

    def cost(params):
        return loss.value(fnn.forward(params, x), y).mean()

    assert_equal(fnn.backprop(stacked, x, y, loss=loss), jax.grad(cost)(stacked))


def test_a_single_example_and_any_transformation(x64):
    layers, stacked = pair(activation=fnn.Tanh())
    x, y = data(layers, rows=())
    assert [d.shape for d in fnn.deltas(stacked, x, y)] == [(4,), (3, 4), (3,)]
    assert_equal(fnn.unstack(stacked, fnn.backprop(stacked, x, y)), fnn.backprop(layers, x, y))
    x, y = data(layers)
    each = jax.jit(jax.vmap(fnn.backprop, (None, 0, 0)))(stacked, x, y)
    assert_equal(jax.tree.map(lambda g: g.mean(axis=0), each), fnn.backprop(stacked, x, y))


def test_in_float32_too():
    layers, stacked = pair("float32", activation=fnn.ReLU())
    x, y = data(layers)
    assert_equal(fnn.unstack(stacked, fnn.backprop(stacked, x, y)), fnn.backprop(layers, x, y), 1e-5)


@pytest.mark.parametrize("norm", [None, "full"])
def test_training_folding_and_evaluating_are_those_of_the_layers(norm):
    layers, stacked = pair("float32", activation=fnn.Tanh(), batch_norm=norm)
    x, labels = data(layers, rows=(40,))[0], np.random.default_rng(2).integers(0, 3, 40)
    rule = fnn.updates.momentum(0.1, 0.9)
    arguments = {"loss": fnn.SoftmaxCrossEntropy(), "epochs": 2, "batch_size": 8, "key": KEY, "validation": (x, labels),
                 "dropout": fnn.Dropout(0.8), "progress": False}  # fmt: skip
    (one, history), (other, again) = (fnn.train.fit(p, (x, labels), rule, **arguments) for p in (layers, stacked))
    assert_equal(fnn.unstack(other), one, 1e-5)
    for name in ("loss", "validation_loss", "validation_accuracy"):
        assert [record[name] for record in again] == pytest.approx([record[name] for record in history], rel=1e-5)


def test_statistics_and_fold_keep_the_stack(x64):
    layers, stacked = pair(activation=fnn.Tanh(), batch_norm="full")
    batches, dropout = [data(layers, seed=seed)[0] for seed in (1, 2)], fnn.Dropout((0.9, 0.5, 0.7))
    by_layer = fnn.Dropout((0.9, 0.5, 0.5, 0.5, 0.7))
    folded = fnn.fold(stacked, fnn.statistics(stacked, batches, dropout), dropout)
    assert isinstance(folded[1], fnn.Stack)
    assert_equal(fnn.unstack(folded), fnn.fold(layers, fnn.statistics(layers, batches, by_layer), by_layer))


@pytest.mark.parametrize("kind", [fnn.Dropout, fnn.DropConnect])
def test_a_stack_takes_a_probability_for_every_layer_and_unit(kind):
    layers, stacked = pair("float32")
    shape = (3, 4) if kind is fnn.Dropout else (3, 4, 4)
    p = np.random.default_rng(5).uniform(0.2, 0.9, shape)
    one, other = kind((None, *p, None)), kind((None, p, None))
    assert_equal(fnn.unstack(stacked, fnn.sample_masks(KEY, stacked, other, 7)), fnn.sample_masks(KEY, layers, one, 7))
    assert_equal(fnn.unstack(fnn.fold(stacked, dropout=other)), fnn.fold(layers, dropout=one), 1e-6)


def test_other_parts_take_a_stack(tmp_path):
    layers, stacked = pair("float32", activation=fnn.Tanh())
    x, labels = data(layers)[0], jnp.array([0, 1, 2, 0, 1, 2, 0])
    loss = fnn.SoftmaxCrossEntropy()
    one, other = (fnn.implicit.layerwise(p, x, labels, 10.0, loss=loss) for p in (layers, stacked))
    assert_equal(fnn.unstack(other), one, 1e-5)
    graph = fnn.graph.Graph.from_layers(stacked)
    assert_equal(fnn.graph.forward(graph, x), fnn.forward(layers, x), 1e-5)
    fnn.checkpoint.export(tmp_path / "stack.safetensors", stacked)
    loaded = fnn.checkpoint.load(tmp_path / "stack.safetensors")
    assert jax.tree.structure(loaded) == jax.tree.structure(stacked)
    assert_equal(loaded, stacked, 0)
    rule = fnn.updates.max_norm(0.5)
    steps = [rule.update(jax.tree.map(jnp.ones_like, p), rule.init(p), p)[0] for p in (stacked, layers)]
    assert_equal(fnn.unstack(stacked, steps[0]), steps[1], 1e-6)


# -- stack, unstack, init --------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [None, "full"])
@pytest.mark.parametrize("initializer", [fnn.glorot_normal, fnn.standard_normal])
def test_init_draws_the_same_stacked_and_not(initializer, norm):
    options = {"initializer": initializer, "batch_norm": norm}
    layers, stacked = fnn.init(KEY, SIZES, **options), fnn.init(KEY, SIZES, stack=True, **options)
    assert jax.tree.structure(stacked) == jax.tree.structure(fnn.stack(layers))
    assert_equal(fnn.unstack(stacked), layers, 1e-6)


@pytest.mark.parametrize(
    ("sizes", "depths"),
    [
        ((4, 4, 4, 4), [0, 0, 0]),  # a single hidden layer between the first and the last
        ((4, 4, 4, 4, 4), [0, 2, 0]),  # the first and the last layer stay, square or not
        ((5, 4, 4, 4, 6, 6, 6, 2), [0, 2, 0, 2, 0]),
        ((5, 4, 3, 2), [0, 0, 0]),
        ((3, 2), [0]),
    ],
)
def test_runs_of_two_or_more_like_hidden_layers_are_stacked(sizes, depths):
    for stacked in (fnn.init(KEY, sizes, stack=True), fnn.stack(fnn.init(KEY, sizes))):
        assert [len(layer.W) if layer.stacked else 0 for layer in stacked] == depths


def test_only_like_layers_are_stacked():
    layers = list(fnn.init(KEY, (4,) * 9, batch_norm="full"))
    other = fnn.init(KEY, (4,) * 9, activation=fnn.Tanh(), batch_norm="fixed")
    layers[4] = other[4]
    assert [layer.stacked for layer in fnn.stack(layers)] == [False, True, False, True, False]


def test_stacking_what_is_stacked_joins_it_and_unstacking_undoes_it():
    layers, stacked = pair("float32")
    assert jax.tree.structure(fnn.unstack(stacked)) == jax.tree.structure(layers)
    assert_equal(fnn.unstack(stacked), layers, 0)
    part = (layers[0], fnn.stack(layers[:3] + layers[4:])[1], *layers[3:])
    assert [layer.stacked for layer in part] == [False, True, False, False]
    assert jax.tree.structure(fnn.stack(part)) == jax.tree.structure(stacked)


def test_summary_counts_the_layers_of_a_stack():
    layers, stacked = pair("float32")
    text = str(fnn.summary(stacked))
    assert "2–4    4       4        Sigmoid(beta=1.0)  -     60" in text
    assert text.splitlines()[-1] == str(fnn.summary(layers)).splitlines()[-1]
    assert repr(stacked[1]) == "Stack(W=(3, 4, 4), b=(3, 4), Sigmoid(beta=1.0), float32)"


# -- verify ----------------------------------------------------------------------------------------------------


def test_verify_judges_every_layer_of_a_stack():
    layers, stacked = pair("float32", activation=fnn.Tanh())
    x, y = data(layers)
    dropout = fnn.Dropout(0.7)
    masks = fnn.sample_masks(KEY, stacked, dropout, 7)
    report = fnn.verify.network(stacked, x, y, loss=fnn.SquaredError(), masks=masks)
    assert report.ok
    assert {finding.layer for finding in report.findings} == {1, 2, 3, 4, 5}
    assert fnn.verify.network(stacked, loss=fnn.SquaredError()).ok


def deep(mutant):
    """A network with the mutant's mistake in four hidden layers, three of them alike."""
    layer = min(layer for _, layer in mutant.where)
    activation = mutant.params[min(layer, 2) - 1].activation
    norm = mutant.params[0].norm
    return network((6, 5, 5, 5, 5, 3), (activation,) * 4, output=mutant.params[-1].activation,
                   batch_norm=None if norm is None else norm.gradient)  # fmt: skip


def outcome(params, x, y, mutant):
    try:
        return fnn.unstack(params, fnn.backprop(params, x, y, loss=mutant.loss, rules=mutant.rules))
    except Exception as error:  # a mistake may have an illegal shape
        return type(error).__name__


ANYWHERE = [mutant for mutant in MUTANTS if not mutant.data]


@pytest.mark.parametrize("mutant", some(ANYWHERE[::3], every=40), ids=lambda m: m.name)
def test_mistakes_are_found_in_a_stack(mutant):
    report = fnn.verify.network(fnn.stack(deep(mutant)), loss=mutant.loss, rules=mutant.rules)
    assert {finding.kind for finding in report.wrong} == {rule for rule, _ in mutant.where}


@pytest.mark.parametrize("mutant", some(ANYWHERE, every=30), ids=lambda m: m.name)
def test_every_mistake_has_the_same_effect_in_a_stack(mutant, x64):
    layers = jax.tree.map(lambda leaf: leaf.astype("float64"), deep(mutant))
    stacked = fnn.stack(layers)
    assert [layer.stacked for layer in stacked] == [False, True, False]
    x, y = data(layers)
    one, other = (outcome(params, x, y, mutant) for params in (layers, stacked))
    assert isinstance(one, str) == isinstance(other, str)
    if not isinstance(one, str):
        assert_equal(other, one)


def test_a_rule_sees_the_layers_of_a_stack_one_by_one(x64):
    seen = []

    def spy(delta, a_in, mask=None):
        seen.append((delta.shape, a_in.shape))
        return RULES.weight_gradient(delta, a_in, mask)

    _, stacked = pair()
    fnn.backprop(stacked, *data(stacked), rules=RULES._replace(weight_gradient=spy))
    assert set(seen) == {((7, 3), (7, 4)), ((7, 4), (7, 4)), ((7, 4), (7, 5))}


# -- what is compiled ------------------------------------------------------------------------------------------


def compiled(depth, activation=fnn.Tanh(), width=32, batch=16):
    params = fnn.init(KEY, (width,) * (depth + 3), activation=activation, stack=True)
    x, y = jnp.ones((batch, width)), jnp.ones((batch, width))
    return jax.jit(fnn.backprop).lower(params, x, y).compile()


@pytest.mark.parametrize(
    ("activation", "arrays"), [(fnn.Tanh(), 1), (fnn.ReLU(), 1), (fnn.Sigmoid(), 1), (fnn.GELU(), 2)]
)
def test_the_backward_pass_keeps_one_array_per_layer_and_z_only_where_it_is_read(activation, arrays):
    depth, width, batch = 64, 32, 16
    temporary = compiled(depth, activation).memory_analysis().temp_size_in_bytes
    assert temporary < (arrays + 0.3) * depth * batch * width * 4 + 100_000


def test_the_program_does_not_grow_with_the_depth():
    short, long = (len(compiled(depth).as_text()) for depth in (16, 1024))
    assert long < 1.1 * short


# -- refusals --------------------------------------------------------------------------------------------------


def test_a_stack_stands_neither_first_nor_last():
    _, stacked = pair("float32")
    x = jnp.ones((7, 4))
    with pytest.raises(ValueError, match=r"params\[0\]: expected a fnn.Dense first and last, got a stack"):
        fnn.forward(stacked[1:], x)
    with pytest.raises(ValueError, match=r"params\[1\]: expected a fnn.Dense first and last"):
        fnn.forward(stacked[:2], x)


def test_wrong_shapes_of_a_stack_are_named():
    _, stacked = pair("float32")
    first, run, last = stacked
    x, y = data(stacked)
    flat = fnn.Stack(run.W[0], run.b[0], run.activation)
    with pytest.raises(ValueError, match=r"params\[1\].W: expected shape \(D, n, n\), got \(4, 4\)"):
        fnn.forward((first, flat, last), x)
    unequal = fnn.Stack(jnp.ones((3, 5, 4)), jnp.ones((3, 5)), run.activation)
    with pytest.raises(ValueError, match=r"params\[1\].W: expected shape \(D, 4, 4\)"):
        fnn.forward((first, unequal, last), x)
    short = fnn.Stack(run.W, run.b[:2], run.activation)
    with pytest.raises(ValueError, match=r"params\[1\].b: expected shape \(3, 4\), got \(2, 4\)"):
        fnn.forward((first, short, last), x)
    masks = (fnn.Mask(), fnn.Mask(units=jnp.ones((7, 4))), fnn.Mask())
    with pytest.raises(ValueError, match=r"masks\[1\].units: expected shape \(3, 7, 4\) or \(3, 1, 4\)"):
        fnn.backprop(stacked, x, y, masks=masks)
    with pytest.raises(ValueError, match=r"keep\[1\]: expected a number or shape \(3, 4\)"):
        fnn.sample_masks(KEY, stacked, fnn.Dropout((None, np.ones(4), None)), 7)
    with pytest.raises(ValueError, match="entries: expected one for every entry of params, 3, got 2"):
        fnn.unstack(stacked, (1, 2))
    with pytest.raises(ValueError, match="stack: expected False or True"):
        fnn.init(KEY, SIZES, stack=3)
