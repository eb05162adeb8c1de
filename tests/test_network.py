"""Parameters, the forward pass, and what it keeps."""

import subprocess
import sys
from functools import cache, partial

import jax
import numpy as np
import pytest

import fnn
from problems import KINKED, SMOOTH, problem

KEY = jax.random.key(0)
P = problem(SMOOTH, fnn.SquaredError(), depth=3)


def shapes(*sizes, key=KEY, **options):
    """What fnn.init gives, without its numbers."""
    return jax.eval_shape(partial(fnn.init, sizes=sizes, **options), key)


def test_init_gives_one_layer_per_pair_of_sizes_and_rows_for_receiving_neurons():
    params = shapes(5, 4, 3, activation=fnn.Tanh(), output=fnn.Softmax())
    assert [layer.W.shape for layer in params] == [(4, 5), (3, 4)]
    assert [layer.b.shape for layer in params] == [(4,), (3,)]
    assert [layer.activation for layer in params] == [fnn.Tanh(), fnn.Softmax()]


DEVIATIONS = {  # of initial weights from 500 neurons to 200
    fnn.glorot_normal: np.sqrt(2 / 700),
    fnn.glorot_uniform: np.sqrt(2 / 700),
    fnn.he_normal: np.sqrt(2 / 500),
    fnn.lecun_normal: np.sqrt(1 / 500),
    fnn.standard_normal: 1.0,
    jax.nn.initializers.he_normal(in_axis=1, out_axis=0): np.sqrt(2 / 500),
}
DEFAULT_AXES = jax.nn.initializers.he_normal()


@cache
def initial_weights():
    """By initializer; one program for all."""
    initializers = (*DEVIATIONS, DEFAULT_AXES)

    def of_all(keys):
        return [fnn.init(key, (500, 200), initializer=given)[0].W for key, given in zip(keys, initializers)]

    keys = [jax.random.key(seed) for seed in range(len(initializers))]
    return dict(zip(initializers, map(np.asarray, jax.jit(of_all)(keys))))


@pytest.mark.parametrize("initializer", DEVIATIONS)
def test_initial_weights_have_the_published_spread(initializer):
    W, deviation = initial_weights()[initializer], DEVIATIONS[initializer]
    assert abs(W.mean()) < 4 * deviation / np.sqrt(W.size)
    np.testing.assert_allclose(W.std(), deviation, rtol=0.01)


def test_initializers_of_jax_with_their_default_axes_have_the_wrong_scale_here():
    np.testing.assert_allclose(initial_weights()[DEFAULT_AXES].std(), np.sqrt(2 / 200), rtol=0.01)


def test_biases_start_at_zero_and_are_drawn_with_the_standard_normal():
    assert not np.any(fnn.init(KEY, (4, 4, 4))[0].b)
    b = np.asarray(fnn.init(KEY, (5, 400), initializer=fnn.standard_normal)[0].b)
    assert 0.9 < b.std() < 1.1


def test_layers_draw_different_weights_and_the_same_key_draws_the_same():
    a, b = fnn.init(KEY, (4, 4, 4)), fnn.init(KEY, (4, 4, 4))
    assert not np.array_equal(a[0].W, a[1].W)
    assert all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def test_an_old_style_key_is_a_key():
    assert shapes(3, 2, key=jax.random.PRNGKey(0))[0].W.shape == (2, 3)


def test_a_batch_norm_stands_in_every_hidden_layer_with_a_zero_bias_before_it():
    params = fnn.init(KEY, (3, 4, 4, 2), batch_norm="full", initializer=fnn.standard_normal)
    assert [layer.norm is not None for layer in params] == [True, True, False]
    assert not np.any(params[0].b)
    assert np.all(np.asarray(params[0].norm.gamma) == 1)
    assert not np.any(params[0].norm.beta)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_the_network_computes_in_the_dtype_of_its_parameters(dtype):
    """And every derivative is in it, as ``test_properties`` says."""

    with jax.enable_x64(dtype == "float64"):
        params = shapes(3, 4, 2, activation=KINKED, dtype=dtype)
        a = jax.eval_shape(fnn.forward, params, jax.ShapeDtypeStruct((5, 3), dtype))
        assert {str(leaf.dtype) for leaf in [*jax.tree.leaves(params), a]} == {dtype}


def test_forward_is_the_equation_written_out():
    a = np.asarray(P.x)
    for layer in P.params:
        a = np.tanh(a @ np.asarray(layer.W).T + np.asarray(layer.b))
    np.testing.assert_allclose(fnn.forward(P.params, P.x), a, rtol=1e-5, atol=1e-6)


def test_a_single_example_gives_the_row_that_a_batch_gives():
    p = problem(fnn.Sigmoid(), fnn.SquaredError(), depth=3)
    x = np.asarray(p.x)[2]
    np.testing.assert_allclose(fnn.forward(p.params, x), np.asarray(fnn.forward(p.params, p.x))[2], rtol=1e-6)
    traces = (jax.tree.leaves(jax.eval_shape(fnn.trace, p.params, given)) for given in (x, p.x))
    for single, batch in zip(*traces):
        assert single.shape == batch.shape[1:]


def test_the_trace_holds_what_each_layer_received_and_computed():
    first, _, last = traces = fnn.trace(P.params, P.x)
    assert np.array_equal(first.a_in, P.x)
    for below, above, layer in zip(traces, traces[1:], P.params[1:]):
        assert np.array_equal(above.a_in, below.a)
        assert np.array_equal(above.psi, above.z)
        psi = np.asarray(below.a) @ np.asarray(layer.W).T + np.asarray(layer.b)
        np.testing.assert_allclose(above.psi, psi, rtol=1e-5, atol=1e-6)
    assert np.array_equal(last.a, fnn.forward(P.params, P.x))


def test_nan_in_the_input_reaches_the_output_through_relu():
    p = problem(KINKED, fnn.SquaredError(), depth=3)
    x = np.array(p.x)
    x[0, 0] = np.nan
    assert np.isnan(np.asarray(fnn.forward(p.params, x))[0]).all()


def test_parameters_are_a_pytree_that_maps_stacks_and_compares_by_structure():
    doubled = jax.tree.map(lambda leaf: 2 * np.asarray(leaf), P.params)
    assert np.array_equal(doubled[1].W, 2 * np.asarray(P.params[1].W))
    assert doubled[1].activation == P.params[1].activation
    other = problem(fnn.Sigmoid(), fnn.SquaredError(), depth=3).params
    with pytest.raises(ValueError, match="Sigmoid"):
        jax.tree.map(np.add, P.params, other)


def test_an_ensemble_is_a_vmap_over_stacked_parameters():
    members = [problem(SMOOTH, fnn.SquaredError(), depth=3, seed=seed).params for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    outputs = jax.vmap(fnn.forward, in_axes=(0, None))(stacked, P.x)
    gradients = jax.vmap(fnn.backprop, in_axes=(0, None, None))(stacked, P.x, P.y)
    for i, member in enumerate(members):
        np.testing.assert_allclose(np.asarray(outputs)[i], fnn.forward(member, P.x), rtol=1e-5, atol=1e-6)
        expected = jax.tree.leaves(fnn.backprop(member, P.x, P.y))
        for ours, alone in zip(jax.tree.leaves(gradients), expected):
            np.testing.assert_allclose(np.asarray(ours)[i], alone, rtol=1e-4, atol=1e-6)


def test_summary_counts_the_3_4_2_network_of_equation_b4():
    table = fnn.summary(fnn.init(KEY, (3, 4, 2)))
    assert "26 parameters" in str(table)
    assert table._repr_html_().count("<tr>") == 3


def test_repr_shows_shapes_and_survives_leaves_that_are_no_arrays():
    params = shapes(3, 2)
    assert repr(params[0]) == "Dense(W=(2, 3), b=(2,), Identity(), float32)"
    assert "None" in repr(jax.tree.map(lambda leaf: None, params)[0])


@pytest.mark.process
def test_importing_fnn_loads_nothing_that_it_does_not_need_yet():
    code = "import sys, fnn; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "fnn" in loaded
    assert not {"optax", "orbax", "matplotlib", "tqdm", "safetensors"} & set(loaded)


def test_every_public_name_is_documented():
    public = [name for name in dir(fnn) if not name.startswith("_")]
    assert [name for name in public if not (getattr(fnn, name).__doc__ or "").strip()] == []
