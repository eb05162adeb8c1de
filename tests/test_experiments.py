"""The programs run, on little data, and leave what they promise."""

import json

import pytest

from experiments import batchnorm, dropout, mnist

SHORT = ["--examples", "2000", "--epochs", "2"]


def test_mnist_checks_the_gradient_trains_and_leaves_its_results(tmp_path, capsys):
    mnist.main([*SHORT, "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "60,000 training and 10,000 test images" in said
    assert "407,050 parameters" in said
    assert said.count("all 4 leaves agree") == 2
    assert "epoch  2" in said
    assert {path.name for path in tmp_path.iterdir()} == {
        "history.jsonl", "learning_curves.png", "mistakes.png", "options.json", "params.safetensors",
    }  # fmt: skip
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2]

    mnist.main(["--load", str(tmp_path / "params.safetensors")])
    assert f"test accuracy {100 * history[-1]['validation_accuracy']:.2f} %" in capsys.readouterr().out


def test_a_preset_is_nielsens_network_and_several_seeds_give_mean_and_best(tmp_path, capsys):
    mnist.main(["--preset", "nielsen-30", *SHORT, "--seed", "0", "1", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "23,860 parameters" in said
    assert "Training: sgd, 3 constant, batch 10" in said
    assert "2 seeds, test accuracy: last epoch mean" in said
    assert json.loads((tmp_path / "seed-1" / "options.json").read_text())["preset"] == "nielsen-30"


@pytest.mark.parametrize("loss", ["sigmoid", "squared"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_loss_and_optimizer_can_be_chosen(loss, optimizer, tmp_path, capsys):
    mnist.main([*SHORT, "--hidden", "16", "8", "--loss", loss, "--optimizer", optimizer, "--out", str(tmp_path)])
    assert "Test accuracy" in capsys.readouterr().out


def test_a_wrong_gradient_stops_before_training(tmp_path, monkeypatch):
    backprop = mnist.fnn.backprop
    monkeypatch.setattr(
        mnist.fnn, "backprop", lambda *args, **options: mnist.jax.tree.map(lambda g: -g, backprop(*args, **options))
    )
    with pytest.raises(SystemExit, match="gradient is wrong"):
        mnist.main([*SHORT, "--out", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("arguments", [["--activation", "nonsense"], ["--preset", "nonsense"], ["--epochs", "ten"]])
def test_unknown_options_are_refused(arguments):
    with pytest.raises(SystemExit):
        mnist.main(arguments)


def test_dropout_compares_three_networks_and_two_ways_of_inference(tmp_path, capsys):
    dropout.main(["--hidden", "16", "--epochs", "1", "--small", "200", "--small-epochs", "2", "--masks", "20",
                  "--images", "10", "--out", str(tmp_path)])  # fmt: skip
    assert "Shortened" in capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["small"]) == set(figures["whole"]) == {"nothing", "dropout", "DropConnect"}
    for ways in figures["inference"].values():
        assert ways["Gaussian"]["mean absolute difference"] < ways["W p"]["largest difference"] < 0.5
    assert (tmp_path / "dropout.png").stat().st_size > 10_000


def test_batchnorm_records_accuracy_and_percentiles_with_and_without(tmp_path):
    batchnorm.main(["--steps", "200", "--record-every", "100", "--out", str(tmp_path)])
    runs = json.loads((tmp_path / "figures.json").read_text())["runs"]
    assert {tuple(run["step"]) for run in runs.values()} == {(100, 200)}
    assert all(low < middle < high for run in runs.values() for low, middle, high in run["percentiles"])
    assert runs["with batch norm"]["accuracy"][-1] > runs["without batch norm"]["accuracy"][-1]
    assert (tmp_path / "batchnorm.png").stat().st_size > 10_000
