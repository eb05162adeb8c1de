"""The programs run, on little data, and leave what they promise."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from experiments import batchnorm, descent, digits, dropout, graph, implicit, mnist, nielsen
from experiments import figures as pictures
from experiments.benchmarks import implicit as implicit_benchmark
from fnn.train import fit

pytestmark = pytest.mark.project
SHORT = ["--examples", "2000", "--epochs", "2"]


def record(folder):
    return json.loads((folder / "figures.json").read_text())


def test_mnist_checks_the_gradient_trains_and_leaves_its_results(tmp_path, capsys):
    mnist.main([*SHORT, "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "60,000 training and 10,000 test images" in said
    assert "407,050 parameters" in said
    assert said.count("all 4 leaves agree") == 2
    assert "epoch  2" in said
    assert {path.name for path in tmp_path.iterdir()} == {
        "figures.json", "mnist.png", "mnist-mistakes.png", "seed-0.safetensors",
    }  # fmt: skip
    history = record(tmp_path)["figures"]["seed 0"]
    assert [entry["epoch"] for entry in history] == [1, 2]
    last = f"{100 * history[-1]['validation_accuracy']:.2f}"
    assert record(tmp_path)["claims"][0]["here"].startswith(f"{last} %; one run ")

    mnist.main(["--load", str(tmp_path / "seed-0.safetensors")])
    assert f"test accuracy {last} %" in capsys.readouterr().out


@pytest.fixture
def training_alone(monkeypatch):
    """mnist without the gradient check and the pictures, which take most of the time: the first test has them."""
    for module, name in ((mnist, "check_gradient"), (pictures, "learning_curves"), (pictures, "mistakes")):
        monkeypatch.setattr(module, name, lambda *_: None)


@pytest.mark.slow
@pytest.mark.usefixtures("training_alone")
def test_of_several_seeds_mnist_reports_mean_and_best(tmp_path, capsys):
    """With a loss and an optimizer that the other runs do not have."""
    chosen = ["--hidden", "16", "--loss", "sigmoid", "--optimizer", "sgd"]
    mnist.main([*SHORT, "--seed", "0", "1", *chosen, "--out", str(tmp_path)])
    assert "2 seeds, test accuracy: last epoch mean" in capsys.readouterr().out
    assert set(record(tmp_path)["figures"]) == {"seed 0", "seed 1"}
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {"seed-0", "seed-1"}


def test_a_row_of_nielsens_steps_as_his_printed_rule_does():
    """w ← (1 − ηλ/n) w − η ∂C/∂w, b ← b − η ∂C/∂b."""
    row, examples = nielsen.ROWS["784-100-10, cross-entropy, η = 0.5, λ = 5"], 50_000
    params = fnn.init(jax.random.key(0), (4, 3, 2), initializer=fnn.initializers.standard_normal)
    x, y = jax.random.normal(jax.random.key(1), (10, 4)), jnp.arange(10) % 2
    gradients = fnn.backprop(params, x, y, loss=fnn.SigmoidCrossEntropy())
    rule = nielsen.optimizer(row, examples)
    stepped = optax.apply_updates(params, rule.update(gradients, rule.init(params), params)[0])
    for layer, g, new in zip(params, gradients, stepped):
        np.testing.assert_allclose(new.W, (1 - 0.5 * 5 / examples) * layer.W - 0.5 * g.W, rtol=1e-6)
        np.testing.assert_allclose(new.b, layer.b - 0.5 * g.b, rtol=1e-6)


@pytest.mark.slow
def test_nielsens_rows_stand_beside_what_he_published(tmp_path):
    short = ["--examples", "500", "--epochs", "2", "--seeds", "0", "1", "--out", str(tmp_path)]
    nielsen.main(["--only", "η = 100", "η = 0.5", *short])
    left = record(tmp_path)
    assert [claim["published"] for claim in left["claims"]] == ["9.82 %", "97.92 %"]
    assert left["shortened"] == "2 epochs, 500 training images"
    far = left["figures"]["784-30-10, η = 100"]
    assert {len(curve) for curve in far["accuracy"].values()} == {2}
    assert all(far["missed"].values())
    assert "; 2 of 2 miss a digit" in left["claims"][0]["here"]
    assert "2 seeds" in left["claims"][1]["claim"]
    assert (tmp_path / "nielsen.png").stat().st_size > 10_000


@pytest.mark.usefixtures("training_alone")
def test_another_loss_and_optimizer_can_be_chosen(tmp_path, capsys):
    chosen = ["--hidden", "16", "8", "--loss", "squared", "--optimizer", "adam"]
    mnist.main([*SHORT, *chosen, "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "Training: adam" in said
    assert "Test accuracy" in said


def test_a_wrong_gradient_stops_before_training(tmp_path, monkeypatch):
    backprop = mnist.fnn.backprop
    monkeypatch.setattr(
        mnist.fnn, "backprop", lambda *args, **options: mnist.jax.tree.map(lambda g: -g, backprop(*args, **options))
    )
    with pytest.raises(SystemExit, match="gradient is wrong"):
        mnist.main([*SHORT, "--out", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("arguments", [["--activation", "nonsense"], ["--loss", "nonsense"], ["--epochs", "ten"]])
def test_unknown_options_are_refused(arguments):
    with pytest.raises(SystemExit):
        mnist.main(arguments)


@pytest.mark.slow
def test_dropout_compares_three_networks_and_two_ways_of_inference(tmp_path, capsys):
    dropout.main(["--hidden", "16", "--epochs", "1", "--small", "200", "--small-epochs", "20", "--masks", "20",
                  "--images", "10", "--checkpoint", str(tmp_path / "kept"), "--out", str(tmp_path)])  # fmt: skip
    assert "Shortened: 1 of 167 epochs" in capsys.readouterr().out
    figures = record(tmp_path)["figures"]
    assert set(figures["small"]) == set(figures["whole"]) == {"nothing", "dropout", "DropConnect"}
    assert [len(run["0"]["test loss"]) for run in figures["small"].values()] == [2, 2, 2]
    for ways in (figures["whole"][name]["0"]["inference"] for name in ("dropout", "DropConnect")):
        assert ways["Gaussian"]["mean absolute difference"] < ways["W p"]["largest difference"] < 0.5
    assert (tmp_path / "dropout.png").stat().st_size > 10_000
    assert len(list((tmp_path / "kept").glob("*.json"))) == 6


def test_dropouts_momentum_rises_while_its_rate_falls():
    """Against the recursion written out: Δ ← pΔ − (1 − p) ε g."""
    steps, delta, g = 20, 0.0, {"b": jnp.ones(1)}
    rule = dropout.rule(dropout.Options(learning_rate=2.0), steps)
    state = rule.init(g)
    for t in range(steps + 1):
        p, rate = 0.5 + 0.49 * t / steps, 2 / (1 + 10 * t / steps)
        delta = p * delta - (1 - p) * rate
        step, state = rule.update(g, state, g)
        assert float(step["b"][0]) == pytest.approx(delta, rel=1e-5)


def test_an_interrupted_run_of_dropouts_schedule_resumes_where_it_was(tmp_path):
    """The rule is built anew, as a repeated command builds it, and the end is bitwise that of one run."""
    options, data = dropout.Options(hidden=(8,)), digits.load()[0][:400]
    params = fnn.init(jax.random.key(0), (784, 8, 10), activation=fnn.ReLU())

    def train(epochs, checkpoint):
        return fit(
            params, data, dropout.rule(options, 12), loss=dropout.LOSS, epochs=epochs, batch_size=100,
            key=jax.random.key(0), dropout=dropout.kinds(options)["dropout"], checkpoint=checkpoint, progress=False,
        ).params  # fmt: skip

    train(2, tmp_path / "kept")
    resumed, whole = train(3, tmp_path / "kept"), train(3, None)
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole)):
        np.testing.assert_array_equal(a, b)


def test_a_network_without_a_finished_run_is_left_out_and_the_seeds_are_counted():
    def run(error):
        return {"test accuracy": [1 - error / 100], "test loss": [error]}

    whole = {"nothing": {0: run(1.5), 1: run(1.6)}, "dropout": {0: run(1.2), 1: run(1.7)}}
    small = {name: {0: run(9)} for name in whole}
    made = dropout.claims(dropout.Options(epochs=100, seeds=5), small, whole)
    assert [claim.claim.rsplit(", ", 1)[1] for claim in made] == ["1 of 5 seeds", "2 of 5 seeds", "2 of 5 seeds"]
    assert made[1].here == "1.55 ± 0.07 %"
    assert made[2].differs.startswith("not reproduced: lower than with nothing in 1 of 2 seeds; 100 of 167 epochs")


def test_batchnorm_records_accuracy_and_percentiles_with_and_without(tmp_path):
    batchnorm.main(["--steps", "200", "--record-every", "100", "--seeds", "2", "--out", str(tmp_path)])
    assert record(tmp_path)["shortened"] == "200 of 50,000 steps"
    runs = record(tmp_path)["figures"]["runs"]
    assert [run["step"] for run, _ in runs.values()] == [[100, 200]] * 2
    assert all(low < middle < high for run, _ in runs.values() for low, middle, high in run["percentiles"])
    for without, with_norm in zip(runs["without batch norm"], runs["with batch norm"]):
        assert with_norm["accuracy"][-1] > without["accuracy"][-1]
        assert with_norm["travel, of the width"] < without["travel, of the width"]
    assert (tmp_path / "batchnorm.png").stat().st_size > 10_000


def test_the_movement_of_percentiles_is_how_far_a_median_goes_and_how_wide_it_is():
    units = np.array([[[-1, 0], [0, 1], [1, 2]], [[0, -2], [3, 1], [4, 2]]], float)  # (points, percentiles, units)
    moved = batchnorm.movement(units)
    assert moved["travel"] == 1.5  # 3 and 0
    assert moved["width"] == 3.0  # the means 3 and 3
    assert moved["travel, of the width"] == 0.5
    assert moved["widest over narrowest"] == 2.0  # 4 over 2, and 4 over 2


@pytest.mark.slow
def test_descent_draws_what_it_says_of_step_lengths_saddles_minima_and_least_squares(tmp_path, capsys):
    descent.main(["--steps", "200", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "momentum  52.6%; from 4 to -0.49" in said
    figures = record(tmp_path)["figures"]
    assert abs(figures["x squared"]["goes, η = 0.3"][-1]) < 1e-9 < 1 < abs(figures["x squared"]["climbs, η = 1.04"][-1])
    shares = {name: of["share"] for name, of in figures["waves"].items()}
    assert shares == pytest.approx({"plain": 0.226, "momentum": 0.526, "Nesterov": 0.369}, abs=0.001)
    inside, outside = figures["saddle"][str(descent.INSIDE[0])][-1], figures["saddle"][str(descent.OUTSIDE)][-1]
    assert inside == pytest.approx(descent.MINIMUM, abs=1e-3)
    assert outside[1] < -1e6
    assert figures["regression"]["momentum"][-1] < 0.01 < figures["regression"]["plain"][-1]
    assert figures["accuracy"]["as printed"][-1] > 1e6 * figures["accuracy"]["factorisation"][-1]
    assert (tmp_path / "descent.png").stat().st_size > 10_000


@pytest.mark.slow
def test_implicit_compares_the_rates_of_every_method_on_three_problems(tmp_path, capsys):
    implicit.main(["--steps", "60", "--mnist-steps", "10", "--test-images", "200", "--rates-per-decade", "1",
                   "--seeds", "1", "--out", str(tmp_path)])  # fmt: skip
    said = capsys.readouterr().out
    assert "Shortened" in said
    assert said.count("robustness") == 6
    figures = record(tmp_path)["figures"]["seed 0"]
    report = figures["linear regression"]["report"]
    assert len(report["implicit"]["learns at"]) > len(report["explicit"]["learns at"])
    assert None not in figures["logistic regression"]["losses"]["implicit"]
    assert (tmp_path / "implicit.png").stat().st_size > 10_000


@pytest.mark.slow
def test_graphs_are_trained_pruned_and_drawn(tmp_path, capsys):
    short = ["--examples", "500", "--epochs", "1", "--arrows", "1500", "--hidden", "20", "--kept", "0.05"]
    graph.main([*short, "--out", str(tmp_path)])
    assert "Pruning the layers" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"figures.json", "graph.png"}
    figures = record(tmp_path)["figures"]
    assert [row["arrows"] for row in figures["pruned"]] == [794]
    assert figures["small graph"]["last epoch"] < figures["small graph"]["first epoch"]


@pytest.mark.slow
def test_the_benchmark_of_implicit_steps_leaves_its_ratios(tmp_path):
    implicit_benchmark.main(["--rounds", "2", "--out", str(tmp_path)])
    rows = record(tmp_path)["figures"]
    assert set(rows) == {"ReLU()", "Tanh()", "Sigmoid(beta=1.0)"}
    assert all(row["proximal, ratio"][0] > 0 for row in rows.values())
