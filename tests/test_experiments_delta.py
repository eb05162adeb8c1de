"""The programs on what the δ's give: noise scale, wrong labels and tangent kernel do what they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from experiments import kernel, mislabelled, noise_scale
from experiments.noise_scale_picture import fit_tradeoff, run_average
from fnn.data import Dataset
from records import left

pytestmark = pytest.mark.project


def images(count: int, seed: int = 0) -> Dataset:
    random = np.random.default_rng(seed)
    return Dataset(random.integers(0, 256, (count, 784)).astype(np.uint8), random.integers(0, 10, count))


# -- noise scale -----------------------------------------------------------------------------------------------


def test_the_tradeoff_between_steps_and_examples_is_fitted_exactly_where_it_holds():
    batches = np.array([8, 32, 128, 512])
    steps = 300 * (1 + 90 / batches)
    fit = fit_tradeoff(batches.tolist(), steps.tolist())
    assert fit["B_crit"] == pytest.approx(90, rel=1e-3)
    assert fit["S_min"] == pytest.approx(300, rel=1e-3)
    assert fit["left"] < 1e-3
    hyperbola = (steps / fit["S_min"] - 1) * (batches * steps / fit["E_min"] - 1)
    np.testing.assert_allclose(hyperbola, 1, rtol=5e-3)


def test_a_goal_is_reached_between_the_two_steps_around_it():
    curve = noise_scale.Curve([0, 10, 1000], [3.0, 1.0, 0.01])
    assert noise_scale.reached(curve, 0.1) == pytest.approx(100)
    assert noise_scale.reached(curve, 1.0) == pytest.approx(10)
    assert noise_scale.reached(curve, 0.001) == float("inf")


@pytest.mark.parametrize("first", [0.05, 0.4, 6.4])
def test_rates_are_tried_until_the_best_for_every_goal_has_a_worse_one_on_both_sides(first):
    def run(rate, limit):
        slower = 1 + np.log2(rate / 0.4) ** 2
        steps = [0, 10 * slower, 100 * slower * (1 + rate)]
        return noise_scale.Curve(steps, [2.0, 0.5, 0.1])

    goals = (0.5, 0.1)
    curves = noise_scale.tune(run, goals, first, 1e6)
    for goal in goals:
        best = noise_scale.best_rate(curves, goal)
        assert min(curves) < best < max(curves)
    assert noise_scale.best_rate(curves, 0.5) == pytest.approx(0.4)


def test_a_noise_scale_is_averaged_over_steps_without_noise():
    assert run_average([0, 5, 20], [50.0, 50.0, 50.0], 64, 20) == pytest.approx(50)
    late = run_average([0, 10, 10.001, 20], [10, 10, 1000, 1000], 100, 20)  # each of the late steps is 1/11 of one
    assert late == pytest.approx((10 / 1.1 + 1000 / 11) / (1 / 1.1 + 1 / 11), rel=1e-2)
    assert run_average([0, 10, 10.001, 20], [10, 10, 1000, 1000], 100, 10) == pytest.approx(10)


def test_in_a_window_the_variance_and_the_gradient_are_averaged_before_they_are_divided():
    means = noise_scale.windows([(0, 2.0, 4.0, 2.0), (10, 1.0, 4.0, 1.0), (12, 1.0, 8.0, 3.0), (100, 0.5, 1.0, 0.1)])
    assert [point["noise scale"] for point in means] == pytest.approx([2, 3, 10])
    assert [point["step"] for point in means] == [0, 11, 100]


def test_the_noise_scale_is_that_of_the_examples_gradients():
    options = noise_scale.Options(hidden=(3,), noise_examples=20, chunk=10, loss_examples=5)
    problem, params = noise_scale.Problem(options, images(40)), small()
    expected = []
    for rows in (slice(10, 20), slice(20, 30)):
        g = gradients(params, images(40)[rows])
        variance = g.var(axis=0, ddof=1).sum()
        expected.append((variance, (g.mean(axis=0) ** 2).sum() - variance / 10))
    np.testing.assert_allclose(problem.noise(params, 10), np.mean(expected, axis=0), rtol=1e-4)


def test_a_run_takes_steps_of_gradient_descent_on_examples_that_its_key_draws():
    data, key, rate = images(40), jax.random.key(5), np.float32(0.1)
    stepped = noise_scale.advance(
        small(), jnp.asarray(data.x), jnp.asarray(data.y), rate, jax.random.clone(key), 0, 2, batch=10, scale=data.scale
    )
    expected, back = jax.flatten_util.ravel_pytree(small())
    for number in range(2):
        rows = np.asarray(jax.random.randint(jax.random.fold_in(jax.random.clone(key), number), (10,), 0, 40))
        drawn = Dataset(data.x[rows], data.y[rows])
        expected = expected - rate * gradients(back(expected), drawn).mean(axis=0)
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(stepped)[0], expected, rtol=1e-4, atol=1e-6)


def small() -> fnn.network.Params:
    return fnn.init(jax.random.key(0), (784, 3, 10), activation=fnn.ReLU())


@jax.jit
def every_gradient(params, x, y):
    return jax.vmap(lambda x, y: jax.flatten_util.ravel_pytree(jax.grad(cost)(params, x, y))[0])(x, y)


def gradients(params, data: Dataset) -> np.ndarray:
    """Every example's gradient by autodiff, flat: (N, parameters)."""
    return np.asarray(every_gradient(params, jnp.asarray(data.floats()), jnp.asarray(data.y)))


def cost(params, x, y):
    """The loss of one example, a scalar; or of several, (B,)."""
    return noise_scale.LOSS.value(fnn.forward(params, x), y)


@pytest.mark.slow
def test_noise_scale_measures_a_sweep_and_what_the_theory_expects_of_it(tmp_path):
    short = ["--batches", "16", "64", "256", "--goals", "0.6", "0.4", "--measured", "64", "--seeds", "0",
             "--loss-examples", "1000", "--noise-examples", "500", "--chunk", "500"]  # fmt: skip
    noise_scale.main([*short, "--out", str(tmp_path)])
    run = left(tmp_path, "noise_scale")["figures"]["seed 0"]
    steps = run["steps"]["0.4"]
    assert steps == sorted(steps, reverse=True)
    assert run["fits"]["0.4"]["B_crit"] > 0
    noise = run["noise"]["64"]
    assert noise["at goals"]["0.4"] > noise["windows"][0]["noise scale"] > 0


def test_noise_scale_asks_for_measured_batches_that_are_in_the_sweep():
    with pytest.raises(SystemExit, match="batch sizes of the sweep"):
        noise_scale.main(["--measured", "7"])


# -- wrong labels ----------------------------------------------------------------------------------------------


def test_flipped_labels_are_as_many_as_asked_and_every_other_class_is_as_likely():
    labels = np.full(20_000, 3)
    flipped, wrong = mislabelled.flip(labels, 0.45, seed=1)
    assert wrong.sum() == 9000
    assert (flipped[~wrong] == 3).all()
    assert set(flipped[wrong].tolist()) == set(range(10)) - {3}
    counts = np.bincount(flipped[wrong], minlength=10)
    assert abs(counts[counts > 0] - 1000).max() < 150  # 5 standard deviations


def test_precision_and_average_precision_are_those_counted_by_hand():
    wrong = np.array([True, False, True, False])
    score = np.array([9.0, 8.0, 7.0, 1.0])  # ranks 1 and 3
    assert mislabelled.precisions(score, wrong).tolist() == [1, 1 / 2, 2 / 3, 1 / 2]
    assert mislabelled.precision_at(score, wrong) == 1 / 2
    assert mislabelled.average_precision(score, wrong) == pytest.approx((1 + 2 / 3) / 2)
    assert mislabelled.average_precision(wrong.astype(float), wrong) == 1
    found = mislabelled.curve(score, wrong, points=2)
    assert found == {"recall": [0.5, 1.0], "precision": [1.0, round(2 / 3, 4)]}


def test_the_oddest_examples_have_labels_of_their_own_in_the_networks_that_are_averaged():
    norms = np.array([[9.0, 2.0, 5.0, 1.0], [8.0, 9.0, 4.0, 1.0]])
    wrong = np.array([[True, False, False, False], [True, True, False, False]])
    assert mislabelled.oddest(norms, wrong, 3).tolist() == [2, 1, 3]
    assert mislabelled.majority(np.array([[1, 7], [2, 7], [2, 7]])).tolist() == [2, 7]


def test_the_scores_are_the_lengths_of_the_examples_gradients_and_their_losses():
    params, data = small(), images(10)
    found = mislabelled.scores(params, data)
    x, y = jnp.asarray(data.floats()), jnp.asarray(data.y)
    np.testing.assert_allclose(found["gradient"], np.linalg.norm(gradients(params, data), axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["loss"], cost(params, x, y), rtol=1e-5)
    assert (found["guess"] == np.asarray(fnn.forward(params, x)).argmax(axis=1)).all()


@pytest.mark.slow
def test_mislabelled_finds_most_flipped_labels_and_draws_odd_digits(tmp_path):
    mislabelled.main(["--examples", "6000", "--hidden", "50", "--epochs", "3", "--seeds", "0", "1",
                      "--shown", "8", "--out", str(tmp_path)])  # fmt: skip
    figures = left(tmp_path, "mislabelled")["figures"]
    for seed in ("seed 0", "seed 1"):
        ways = figures[seed]["ways"]
        assert all(len(way["precision"]) == 4 for way in ways.values())
        assert max(ways["gradient"]["precision"]) > 0.6
        assert max(ways["loss"]["precision"]) > 0.6
        assert max(ways["chance"]["precision"]) < 0.15 > ways["gradient"]["precision"][0]
    assert len(figures["oddest"]) == 8


# -- kernel ----------------------------------------------------------------------------------------------------


def points(count: int) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(count, 784)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_every_network_starts_at_zero_and_its_kernel_nears_the_limit_of_infinite_width():
    x, x2 = points(5)[:3], points(5)
    far = []
    for width in (16, 16_384):
        params = kernel.start(0, width)
        assert jnp.abs(fnn.forward(params, jnp.asarray(x))).max() < 1e-5
        exact = kernel.limit(x, x2)
        far.append(np.linalg.norm(kernel.kernel(params, x, x2) - exact) / np.linalg.norm(exact))
    assert far[1] < 0.02 < 0.1 < far[0]


def test_the_kernel_is_that_of_the_jacobians(x64):
    params, x = jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64"), kernel.start(1, 8)), points(4)
    flat, back = jax.flatten_util.ravel_pytree(params)
    J = jax.jacobian(lambda flat: fnn.forward(back(flat), jnp.asarray(x, "float64"))[:, 0])(flat)
    np.testing.assert_allclose(kernel.kernel(params, x, x[:2]), J @ J[:2].T, rtol=1e-12)


def test_kernel_regression_passes_through_its_targets():
    x, y = points(6), np.array([1, -1, 1, 1, -1, -1], np.float32)
    matrix = kernel.limit(x, x)
    np.testing.assert_allclose(kernel.regress(matrix, matrix, y), y, atol=1e-4)


def test_only_a_multiple_of_the_labels_kernel_is_aligned_with_it_in_full():
    y = np.array([1.0, -1.0, 1.0, 1.0])
    assert kernel.alignment(3 * np.outer(y, y), y) == pytest.approx(1)
    assert kernel.alignment(3 * np.outer(y, y) + 7, y) == pytest.approx(1)  # of features without their mean
    assert 0 < kernel.alignment(np.eye(4), y) < 0.9


@pytest.mark.slow
def test_kernel_moves_less_in_wide_networks_and_predicts_them_better(tmp_path):
    kernel.main(["--widths", "16", "256", "--images", "300", "--test-images", "500", "--epochs", "40",
                 "--out", str(tmp_path)])  # fmt: skip
    figures = left(tmp_path, "kernel")["figures"]
    narrow, wide = figures["width 16"], figures["width 256"]
    for of_narrow, of_wide in zip(narrow, wide):
        assert of_wide["moved"] < of_narrow["moved"] / 2
        assert of_wide["distance"]["before"] < of_narrow["distance"]["before"]
    assert min(run["accuracy"]["network"] for run in wide) > 0.75
    assert 0.75 < figures["infinite width"]["accuracy"] < 1


def test_kernel_asks_for_even_widths():
    with pytest.raises(SystemExit, match="even ones"):
        kernel.main(["--widths", "5"])
