"""Parameters, the forward pass, and what it keeps."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from problems import problem

KEY = jax.random.key(0)


def test_init_gives_one_layer_per_pair_of_sizes_and_rows_for_receiving_neurons():
    params = fnn.init(KEY, (5, 4, 3), activation=fnn.Tanh(), output=fnn.Softmax())
    assert [layer.W.shape for layer in params] == [(4, 5), (3, 4)]
    assert [layer.b.shape for layer in params] == [(4,), (3,)]
    assert [layer.activation for layer in params] == [fnn.Tanh(), fnn.Softmax()]


@pytest.mark.parametrize(
    ("initializer", "deviation"),
    [
        (fnn.glorot_normal, np.sqrt(2 / 700)),
        (fnn.glorot_uniform, np.sqrt(2 / 700)),
        (fnn.he_normal, np.sqrt(2 / 500)),
        (fnn.lecun_normal, np.sqrt(1 / 500)),
        (fnn.standard_normal, 1.0),
        (jax.nn.initializers.he_normal(in_axis=1, out_axis=0), np.sqrt(2 / 500)),
    ],
)
def test_initial_weights_have_the_published_spread(initializer, deviation):
    W = np.asarray(fnn.init(KEY, (500, 200), initializer=initializer)[0].W)
    assert abs(W.mean()) < 4 * deviation / np.sqrt(W.size)
    np.testing.assert_allclose(W.std(), deviation, rtol=0.01)


def test_initializers_of_jax_with_their_default_axes_have_the_wrong_scale_here():
    W = np.asarray(fnn.init(KEY, (500, 200), initializer=jax.nn.initializers.he_normal())[0].W)
    np.testing.assert_allclose(W.std(), np.sqrt(2 / 200), rtol=0.01)


def test_biases_start_at_zero_and_are_drawn_with_the_standard_normal():
    assert not np.any(fnn.init(KEY, (5, 400))[0].b)
    b = np.asarray(fnn.init(KEY, (5, 400), initializer=fnn.standard_normal)[0].b)
    assert 0.9 < b.std() < 1.1


def test_layers_draw_different_weights_and_the_same_key_draws_the_same():
    a, b = fnn.init(KEY, (4, 4, 4)), fnn.init(KEY, (4, 4, 4))
    assert not np.array_equal(a[0].W, a[1].W)
    assert all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def test_an_old_style_key_is_a_key():
    assert fnn.init(jax.random.PRNGKey(0), (3, 2))[0].W.shape == (2, 3)


def test_a_batch_norm_stands_in_every_hidden_layer_with_a_zero_bias_before_it():
    params = fnn.init(KEY, (3, 4, 4, 2), batch_norm="full", initializer=fnn.standard_normal)
    assert [layer.norm is not None for layer in params] == [True, True, False]
    assert not np.any(params[0].b)
    assert np.all(params[0].norm.gamma == 1)
    assert not np.any(params[0].norm.beta)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_the_network_computes_in_the_dtype_of_its_parameters(dtype):
    with jax.enable_x64(dtype == "float64"):
        params = fnn.init(KEY, (3, 4, 2), activation=fnn.ReLU(), dtype=dtype)
        x, y = jnp.ones((5, 3), dtype), jnp.zeros((5, 2), dtype)
        loss, gradients = fnn.value_and_backprop(params, x, y)
        leaves = [fnn.forward(params, x), loss, fnn.input_gradient(params, x, y), *fnn.deltas(params, x, y)]
        assert {str(leaf.dtype) for leaf in [*leaves, *jax.tree.leaves(gradients)]} == {dtype}


def test_forward_is_the_equation_written_out():
    p = problem(fnn.Tanh(), fnn.SquaredError(), depth=3)
    a = np.asarray(p.x)
    for layer in p.params:
        a = np.tanh(a @ np.asarray(layer.W).T + np.asarray(layer.b))
    np.testing.assert_allclose(fnn.forward(p.params, p.x), a, rtol=1e-5, atol=1e-6)


def test_a_single_example_gives_the_row_that_a_batch_gives():
    p = problem(fnn.Sigmoid(), fnn.SquaredError(), depth=3)
    np.testing.assert_allclose(fnn.forward(p.params, p.x[2]), fnn.forward(p.params, p.x)[2], rtol=1e-6)
    for single, batch in zip(jax.tree.leaves(fnn.trace(p.params, p.x[2])), jax.tree.leaves(fnn.trace(p.params, p.x))):
        assert single.shape == batch.shape[1:]


def test_the_trace_holds_what_each_layer_received_and_computed():
    p = problem(fnn.ReLU(), fnn.SquaredError(), depth=2)
    first, last = fnn.trace(p.params, p.x)
    assert np.array_equal(first.a_in, p.x)
    assert np.array_equal(last.a_in, first.a)
    assert np.array_equal(first.psi, first.z)
    np.testing.assert_allclose(last.psi, first.a @ p.params[1].W.T + p.params[1].b, rtol=1e-5, atol=1e-6)
    assert np.array_equal(last.a, fnn.forward(p.params, p.x))


def test_nan_in_the_input_reaches_the_output_through_relu():
    p = problem(fnn.ReLU(), fnn.SquaredError(), depth=3)
    assert np.isnan(fnn.forward(p.params, p.x.at[0, 0].set(jnp.nan))[0]).all()


def test_parameters_are_a_pytree_that_maps_stacks_and_compares_by_structure():
    params = fnn.init(KEY, (3, 4, 2))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, params)
    assert np.array_equal(doubled[1].W, 2 * params[1].W)
    assert doubled[1].activation == params[1].activation
    other = fnn.init(jax.random.key(1), (3, 4, 2), activation=fnn.Tanh())
    with pytest.raises(ValueError, match="Sigmoid"):
        jax.tree.map(jnp.add, params, other)


def test_an_ensemble_is_a_vmap_over_stacked_parameters():
    p = problem(fnn.Tanh(), fnn.SquaredError(), depth=2)
    members = [problem(fnn.Tanh(), fnn.SquaredError(), depth=2, seed=seed).params for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    outputs = jax.vmap(fnn.forward, in_axes=(0, None))(stacked, p.x)
    gradients = jax.vmap(fnn.backprop, in_axes=(0, None, None))(stacked, p.x, p.y)
    for i, member in enumerate(members):
        np.testing.assert_allclose(outputs[i], fnn.forward(member, p.x), rtol=1e-5, atol=1e-6)
        expected = jax.tree.leaves(fnn.backprop(member, p.x, p.y))
        for ours, alone in zip(jax.tree.leaves(gradients), expected):
            np.testing.assert_allclose(ours[i], alone, rtol=1e-4, atol=1e-6)


def test_summary_counts_the_3_4_2_network_of_equation_b4():
    table = fnn.summary(fnn.init(KEY, (3, 4, 2)))
    assert "26 parameters" in str(table)
    assert table._repr_html_().count("<tr>") == 3


def test_repr_shows_shapes_and_survives_leaves_that_are_no_arrays():
    params = fnn.init(KEY, (3, 2))
    assert repr(params[0]) == "Dense(W=(2, 3), b=(2,), Identity(), float32)"
    assert "None" in repr(jax.tree.map(lambda leaf: None, params)[0])


@pytest.mark.parametrize("module", ["optax", "orbax", "matplotlib", "tqdm", "safetensors"])
def test_importing_fnn_loads_nothing_that_it_does_not_need_yet(module):
    code = f"import sys, fnn; sys.exit(any(m.split('.')[0] == {module!r} for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_documented():
    public = [name for name in dir(fnn) if not name.startswith("_")]
    assert [name for name in public if not (getattr(fnn, name).__doc__ or "").strip()] == []
