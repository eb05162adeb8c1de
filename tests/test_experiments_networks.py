"""The programs on what networks can do, and on δ's and activations by layer, run and leave what they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from experiments import approximation, boundaries, depth, glorot
from fnn.data import Dataset
from records import left

pytestmark = pytest.mark.project

# -- boundaries ------------------------------------------------------------------------------------------------


def test_a_neuron_gives_14_of_the_16_labellings_of_xors_points_and_not_xors():
    found = boundaries.separable()
    assert len(found) == 14
    assert not {(-1, -1, 1, 1), (1, 1, -1, -1)} & found


def test_a_neuron_with_sgn_agrees_with_the_printed_inequality_on_the_line_too():
    figures = boundaries.line(boundaries.Options())
    assert figures["as printed"] == figures["lattice"]
    assert figures["on the line"] > 0
    assert figures["wrong without b"] >= figures["best w"] > 0


def test_the_disc_and_the_spirals_have_as_many_points_of_each_class_where_they_should_be():
    for x, y in (boundaries.ring(100), boundaries.spirals(100)):
        assert x.shape == (100, 2)
        assert int(y.sum()) == 50
    x, y = boundaries.ring(100)
    radius = np.linalg.norm(x, axis=1)
    assert (radius[y[:, 0] == 1] <= 1).all()
    assert ((radius[y[:, 0] == 0] >= 1.4) & (radius[y[:, 0] == 0] <= 2)).all()


@pytest.mark.slow
def test_boundaries_finds_that_xor_needs_a_hidden_layer_and_a_disc_three_neurons(tmp_path):
    boundaries.main(["--seeds", "10", "--steps", "800", "--points", "100", "--out", str(tmp_path)])
    figures = left(tmp_path, "boundaries")["figures"]
    assert figures["xor"]["best of one neuron"] == figures["xor"]["bound"] == 3
    assert 0 < figures["xor"]["learnt with 2 hidden"] <= 10
    assert max(figures["shapes"]["disc with 2 hidden"]) < max(figures["shapes"]["disc with 3 hidden"]) == 100
    assert min(figures["shapes"]["spirals"]) > 90 > max(figures["shapes"]["spirals, one neuron"])


# -- approximation ---------------------------------------------------------------------------------------------


def test_every_neuron_of_the_first_layer_starts_with_its_hyperplane_through_the_domain():
    for target in approximation.TARGETS.values():
        first = approximation.start(jax.random.key(0), target, 50, 1)[0]
        reach = target.end * jnp.abs(first.W).sum(axis=1)  # the largest |wᵀx| in the cube
        assert (jnp.abs(first.b) <= reach).all()
        assert first.b.std() > 0


@pytest.mark.slow
def test_approximation_errs_less_with_wider_networks_and_fits_the_exponent(tmp_path):
    approximation.main(["--widths", "2", "32", "--seeds", "2", "--steps", "600", "--out", str(tmp_path)])
    record = left(tmp_path, "approximation")
    for by_depth in record["figures"].values():
        for found in by_depth.values():
            errors = np.mean(found["errors"], axis=1)
            assert errors[-1] < errors[0] / 2
            assert max(found["exponents"]) < 0
            assert found["parameters"] == sorted(found["parameters"])
    assert [bool(claim["published"]) for claim in record["claims"]] == [True, False, True, False]


# -- depth -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_depth_measures_how_delta_shrinks_and_never_above_the_bound(tmp_path):
    short = ["--depths", "9", "--cost-depths", "3", "5", "--width", "30", "--seeds", "0", "1"]
    depth.main([*short, "--out", str(tmp_path)])
    figures = left(tmp_path, "depth")["figures"]
    assert {way: list(cost["ms"]) for way, cost in figures["cost"].items()} == dict.fromkeys(depth.WAYS, ["3", "5"])
    assert max(max(found["nearest"]) for found in figures["bounds"].values()) < 1
    for name, start, expected in (("sigmoid", "U[±1/√n]", 0.144), ("tanh", "U[±1/√n]", 0.577), ("ReLU", "He", 1)):
        assert np.mean(figures[name][start]["9"]["factor"]) == pytest.approx(expected, rel=0.15)
    curve = figures["sigmoid"]["Glorot"]["9"]["log10 RMS"]
    assert len(curve) == 9
    assert curve == sorted(curve)


def test_in_float32_the_deltas_of_a_deep_sigmoid_network_are_zero_and_in_float64_not():
    options = depth.Options(width=10, examples=2)
    assert 0 < depth.zeros_in_float32(options, 50) < 30
    with jax.enable_x64(True):
        network = depth.problem(options, 50, fnn.Sigmoid(), glorot.standard_uniform, seed=0)
        assert depth.rms_by_layer(network).min() > 0


# -- glorot ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_in", [100, 400])
def test_the_standard_initialisation_has_a_third_of_the_variance_that_keeps_activations(n_in):
    W = glorot.standard_uniform(jax.random.key(0), (500, n_in), jnp.float32)
    assert float(n_in * W.var()) == pytest.approx(1 / 3, rel=0.02)
    assert float(jnp.abs(W).max()) <= n_in**-0.5


def test_glorot_asks_for_steps_that_its_records_divide():
    with pytest.raises(SystemExit, match="multiple of --record-every 400"):
        glorot.main(["--steps", "500"])


def test_glorot_draws_every_image_once_in_a_pass_and_goes_on_between_two_records():
    data = Dataset(np.arange(40, dtype=np.uint8)[:, None], np.arange(40) % 10)
    batches = [x[:, 0] for epoch in (1, 2) for x, _ in glorot.mini_batches(data, 0, 3, epoch)]
    assert sorted(np.concatenate(batches[:4]).tolist()) == list(range(40))
    assert len(set(np.concatenate(batches[4:]).tolist())) == 20
    assert [x[:, 0].tolist() for x, _ in glorot.mini_batches(data, 0, 6, 1)] == [b.tolist() for b in batches]


def test_glorots_waiting_times_say_which_rate_would_wait_two_million_steps():
    def run(left):
        return {"step": [0, 100, 200, 300], "loss": [2.3, 2.3 if left > 200 else 1.9, 1.5], "layers": [[[0.5]]] * 4}

    waits = {"sigmoid": run(200), "sigmoid, η = 0.15": run(300), "sigmoid, η = 0.1": run(300) | {"loss": [2.3] * 3}}
    claim = glorot.sigmoid_claims(waits)[1]
    assert claim.here == "200 at η = 0.3, 300 at η = 0.15, the end at η = 0.1"
    assert "steps × η is 45 to 60, so that 2,000,000 steps would be η = 0.0000" in claim.differs


@pytest.mark.slow
def test_glorot_shows_saturation_and_what_shrinks_with_which_initial_weights(tmp_path, capsys):
    glorot.main(["--steps", "400", "--record-every", "200", "--width", "100", "--starts", "2", "--out", str(tmp_path)])
    assert "Shortened" in capsys.readouterr().out
    record = left(tmp_path, "glorot")
    assert record["shortened"].startswith("400 steps")
    runs, before = record["figures"]["runs"], record["figures"]["before"]
    assert set(runs) == set(glorot.NETWORKS)
    assert [len(run["layers"]) for run in runs.values()] == [4, 5, 5, 5, 5, 4, 4]
    last = [float(mean) for mean in runs["sigmoid"]["layers"][-1]["mean"].split()]
    assert len(last) == 3
    assert last[0] == pytest.approx(0.5, abs=0.05)
    assert max(last[1:]) < 0.2
    assert runs["tanh, normalised"]["test error"] < runs["sigmoid"]["test error"]
    shrinks, keeps = (np.array(before[start]["deviations"]["deltas"]) for start in ("standard", "normalised"))
    assert (shrinks[:, 0] / shrinks[:, -1] < 0.2).all()
    assert (keeps[:, 0] / keeps[:, -1] > 0.5).all()
