"""The programs on what the documents say beside their formulas do what they promise."""

import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from experiments import batchnorm_printed, descent, differentiation, forgetting, linear_depth, update_order
from fnn.data import Dataset
from records import left

pytestmark = pytest.mark.project


# -- four ways to a gradient -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exactness():
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        return differentiation.errors(differentiation.Options(inputs=4, outputs=3, hidden=5, batch=6))


@pytest.mark.parametrize("name", ["by hand", "automatic"])
def test_two_ways_have_no_step_and_are_exact_to_rounding(exactness, name):
    assert exactness[name] < 1e-15


def test_the_complex_step_is_exact_for_every_small_step_and_differences_have_a_best_one(exactness):
    small = differentiation.STEPS < 1e-9
    assert max(np.array(exactness["complex step"])[small]) < 1e-14
    for name, best, at in (("central", 1e-9, 1e-5), ("forward", 1e-6, 1e-8)):
        errors = np.array(exactness[name], float)
        assert best / 100 < errors.min() < best
        assert at / 30 < differentiation.STEPS[errors.argmin()] < at * 30
        assert errors[-1] == 1  # a step that no parameter notices: the difference is 0


def test_the_exact_gradient_is_that_of_the_network(x64):
    options = differentiation.Options(inputs=4, outputs=3, hidden=5, batch=6)
    params, x, y = differentiation.problem(options, 5)
    v, sizes = jax.flatten_util.ravel_pytree(params)[0], (4, 5, 3)
    right = jax.flatten_util.ravel_pytree(fnn.backprop(params, x, y, loss=differentiation.LOSS))[0]
    np.testing.assert_allclose(differentiation.exact(v, x, y, sizes).astype(float), right, rtol=1e-12, atol=1e-15)
    value = jnp.mean(differentiation.LOSS.value(fnn.forward(params, x), y))
    np.testing.assert_allclose(differentiation.cost(v, x, y, sizes), value, rtol=1e-12)


@pytest.mark.slow
def test_differentiation_leaves_errors_and_times_of_every_way(tmp_path):
    differentiation.main(["--widths", "2", "4", "8", "--seconds", "0.01", "--out", str(tmp_path)])
    record = left(tmp_path, "differentiation")
    assert len(record["claims"]) == 2
    assert {len(values) for values in record["figures"]["time"].values()} == {3}
    assert len(record["figures"]["error"]["central"]) == len(record["figures"]["step"])


# -- forgetting --------------------------------------------------------------------------------------------------


def test_what_is_trained_on_later_has_the_old_classes_not_in_part_and_whole():
    train = Dataset(np.zeros((200, 784), np.uint8), np.arange(200) % 10)
    later = forgetting.later(train, seed=0)
    assert [sorted(set(data.y.tolist())) for data in (later["5–9 alone"], later["all ten"])] == [
        [5, 6, 7, 8, 9], list(range(10)),
    ]  # fmt: skip
    assert np.sum(later["with a tenth of the old"].y < 5) == 10
    assert np.sum(later["with a tenth of the old"].y >= 5) == 100


@pytest.mark.slow
def test_the_first_digits_are_forgotten_where_they_are_left_out_and_not_where_they_stay(tmp_path):
    forgetting.main(["--examples", "4000", "--epochs", "4", "--seeds", "0", "--out", str(tmp_path)])
    curves = left(tmp_path, "forgetting")["figures"]["seed 0"]
    assert {len(curve) for curve in curves.values()} == {5}
    before, after, kept = curves["5–9 alone"][0][0], curves["5–9 alone"][-1][0], curves["all ten"][-1][0]
    assert after < 0.3 < 0.85 < kept
    assert before > 0.9
    assert curves["5–9 alone"][-1][1] > 0.85  # the new ones are learnt


def test_another_data_set_is_taken_from_its_files_and_named(tmp_path):
    """Made-up files in the format of Fashion-MNIST, class k with a bright row k."""
    folder, random = tmp_path / "fashion", np.random.default_rng(0)
    folder.mkdir()
    for name, count in (("train", 1000), ("t10k", 200)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = random.integers(0, 60, (count, 28, 28), np.uint8)
        images[np.arange(count), labels] = 255
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    forgetting.main(["--data", str(folder), "--seeds", "0", "--hidden", "20", "--out", str(tmp_path / "out")])
    record = left(tmp_path / "out", "forgetting")
    assert "epochs on the classes 0–4 of fashion: accuracy" in record["claims"][0]["claim"]
    curve = record["figures"]["seed 0"]["5–9 alone"]
    assert curve[0] == [1, 0]
    assert curve[-1][1] > 0.9 > curve[-1][0]


# -- linear networks, and many minima ----------------------------------------------------------------------------


def test_the_product_of_a_linear_networks_layers_is_what_it_computes(x64):
    params = fnn.init(jax.random.key(0), (4, 6, 5, 3), activation=fnn.Identity(), dtype=jnp.float64)
    params = tuple(fnn.Dense(p.W, p.b + 0.5, p.activation) for p in params)
    W, B = linear_depth.multiplied(params)
    x = np.random.default_rng(0).normal(size=(7, 4))
    np.testing.assert_allclose(x @ W.T + B, fnn.forward(params, jnp.asarray(x)), rtol=1e-12)


def test_a_linear_network_ends_at_the_regression_whatever_its_depth(tmp_path):
    linear_depth.main(["--depths", "1", "3", "--out", str(tmp_path)])
    figures = left(tmp_path, "linear_depth")["figures"]
    assert max(of["off"] for of in figures["networks"].values()) < 1e-9
    assert {of["loss"][-1] for of in figures["networks"].values()} == {float(f"{figures['regression']:.4g}")}
    assert figures["tanh"][-1] < figures["regression"] / 2


def test_a_start_reaches_the_lowest_of_many_minima_if_it_ends_in_its_valley():
    ends = np.array([-4.29, -2.43, -0.4946, 1.46, 3.38])
    assert descent.lowest(ends).tolist() == [False, False, True, False, False]
    with jax.enable_x64(True):
        assert descent.wavy(ends)[0].argmin() == 2


# -- updates on the way back -------------------------------------------------------------------------------------


def test_with_delta_first_the_steps_are_those_of_ordinary_descent_to_the_last_bit():
    differing = update_order.differing_bits(update_order.Options())
    assert differing["δ first"] == 0
    assert differing["as printed"] > differing["of"] / 2


def test_in_the_printed_order_delta_comes_from_the_updated_weights(x64):
    """Row H11: only the layers before the last are wrong after one step, and they by the update of the next."""
    params = fnn.init(jax.random.key(0), (4, 5, 3), activation=fnn.Sigmoid(), output=fnn.Sigmoid(), dtype=jnp.float64)
    random = np.random.default_rng(0)
    x, y = jnp.asarray(random.normal(size=(6, 4))), jnp.asarray(random.uniform(size=(6, 3)))
    printed, right = (update_order.step(params, x, y, 0.5, printed=way) for way in (True, False))
    np.testing.assert_array_equal(printed[1].W, right[1].W)
    moved = (params[0], printed[1])
    t, after = fnn.trace(params, x)[0], fnn.deltas(params, x, y, loss=update_order.LOSS)[1]
    delta = after @ moved[1].W * t.a * (1 - t.a)
    np.testing.assert_allclose(printed[0].W, params[0].W - 0.5 * delta.T @ x / 6, rtol=1e-12)
    assert np.abs(printed[0].W - right[0].W).max() > 1e-5


@pytest.mark.slow
def test_update_order_leaves_curves_of_both_orders_and_the_planned_memory(tmp_path):
    short = ["--steps", "200", "--rates", "1", "4", "--examples", "2000", "--depth", "8", "--width", "32"]
    update_order.main([*short, "--out", str(tmp_path)])
    figures = left(tmp_path, "update_order")["figures"]
    assert {len(run["error"]) for order in figures["runs"].values() for run in order.values()} == {2}
    planned = figures["bytes"]
    assert planned["layer by layer"] < planned["the whole gradient"]
    with pytest.raises(SystemExit, match="multiple of --record-every 100"):
        update_order.main(["--steps", "150"])


# -- batch norm as printed ---------------------------------------------------------------------------------------


def normed(gradient: str):
    """A network with batch norms behind all hidden layers, and examples."""
    params = fnn.init(jax.random.key(0), (6, 8, 7, 5, 3), batch_norm=gradient)
    random = np.random.default_rng(0)
    x, y = jnp.asarray(random.normal(size=(40, 6)), "float32"), jnp.asarray(random.integers(0, 3, 40), "int32")
    return params, x, y


def test_but_for_a_shift_and_a_scaling_the_printed_lambda_of_the_last_batch_norm_is_the_true_one():
    lam = {kind: fnn.deltas(*normed(kind), loss=batchnorm_printed.LOSS)[2] for kind in ("fixed", "full")}
    params, x, _ = normed("full")
    psi = np.asarray(fnn.trace(params, x)[2].psi)
    centred = (psi - psi.mean(axis=0)) / psi.std(axis=0)
    projected = lam["fixed"] - lam["fixed"].mean(axis=0) - centred * np.mean(lam["fixed"] * centred, axis=0)
    np.testing.assert_allclose(projected, lam["full"], atol=1e-3 * np.abs(lam["full"]).max())  # but for ε
    assert np.abs(lam["fixed"] - lam["full"]).max() > 0.01 * np.abs(lam["full"]).max()


def test_a_look_tells_share_scale_and_cosines_of_the_same_network():
    printed, full = (batchnorm_printed.look(*normed(kind)) for kind in ("fixed", "full"))
    assert full["share"] < 1e-3 < printed["share"]
    assert printed["scale"] == full["scale"]
    assert printed["cosine"] == full["cosine"]  # of both gradients, whichever the network trains with
    assert 0 < min(printed["cosine"]) < max(printed["cosine"]) < 1


@pytest.mark.slow
def test_batch_norm_as_printed_falls_behind_at_a_high_rate(tmp_path):
    short = ["--examples", "6000", "--epochs", "1", "--rates", "0.1", "1", "--seeds", "0"]
    batchnorm_printed.main([*short, "--out", str(tmp_path)])
    record = left(tmp_path, "batchnorm_printed")
    accuracy = record["figures"]["accuracy"]
    assert accuracy["as printed"]["1"][0] < accuracy["full"]["1"][0]
    assert {len(looks) for looks in record["figures"]["looks"].values()} == {11}
