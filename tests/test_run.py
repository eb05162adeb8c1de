"""What ``fit`` returns: the network that was validated, and a run that goes on where it stopped."""

import json
import pickle
import sys
import warnings

import jax
import numpy as np
import optax
import pytest

import fnn
from errors import assert_refusal, refusals, refused
from fnn import updates
from fnn.display import Bar
from fnn.train import Interrupted, Run, evaluate, fit, predict
from networks import drawn
from resume_cases import assert_same, without_seconds

LOSS = fnn.SoftmaxCrossEntropy()
KEY = jax.random.key(1)
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 3, 43)
X = RANDOM.normal(LABELS[:, None], 0.7, (43, 5)).astype(np.float32)
DATA, HELD_OUT = (X, LABELS), (X[::2] + 0.5, LABELS[::2])
MOMENTUM = updates.momentum(0.1)
NORMED, DROPOUT = drawn(norm=True), fnn.Dropout(0.6)


def train(params=None, optimizer=MOMENTUM, data=DATA, **options):
    options = {"loss": LOSS, "epochs": 2, "batch_size": 10, "validation": HELD_OUT, "progress": False} | options
    if not isinstance(params, Run):
        options = {"key": KEY} | options
    return fit(drawn() if params is None else params, data, optimizer, **options)


def last(run):
    return {name.removeprefix("validation_"): run.history[-1][name] for name in run.history[-1] if "valid" in name}


# -- what was validated ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"dropout": DROPOUT}, {"params": NORMED, "dropout": DROPOUT}], ids=["W p", "norm"])
def test_a_run_is_evaluated_as_it_was_validated(options, tmp_path):
    run = train(**options)
    assert evaluate(run, HELD_OUT, loss=LOSS) == evaluate(run.network, HELD_OUT, loss=LOSS) == last(run)
    outputs = predict(run, fnn.data.Dataset(*HELD_OUT))
    np.testing.assert_allclose(outputs, fnn.forward(run.network, HELD_OUT[0]), rtol=1e-5, atol=1e-6)
    assert jax.tree.structure(run.params) == jax.tree.structure(options.get("params", drawn()))
    assert all(layer.norm is None for layer in run.network)
    fnn.checkpoint.export(tmp_path / "network", run)
    assert_same(fnn.checkpoint.load(tmp_path / "network"), run.network)
    one = fnn.explain(run, HELD_OUT[0][0], 0, loss=LOSS)
    assert str(one) == str(fnn.explain(run.network, HELD_OUT[0][0], 0, loss=LOSS))


def test_without_dropout_and_batch_norm_the_network_is_as_trained():
    run = train(epochs=1, validation=None)
    assert_same(run.network, run.params)
    assert_refusal(lambda: fnn.forward(run, X), "TypeError: params: expected a tuple of fnn.Dense…run.network")


def test_a_history_is_a_list_of_plain_dicts_and_can_be_drawn():
    run = train()
    assert type(run.history) is list
    assert json.loads(json.dumps(run.history)) == run.history
    figure = run.plot()
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
    assert [len(axes.lines) for axes in figure.axes] == [2, 1]
    assert repr(run).startswith("Run(2 epochs, loss ")


def test_forward_warns_of_a_batch_norms_own_statistics_unless_it_is_in_training():
    with pytest.warns(
        UserWarning, match=r"params: with a batch norm.*fnn.fold\(params, statistics.* run.network"
    ) as told:
        fnn.forward(NORMED, X)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.jit(fnn.forward)(NORMED, X)
        jax.eval_shape(jax.grad(lambda params: fnn.forward(params, X).sum()), NORMED)
        fnn.trace(NORMED, X)


def test_with_a_sum_the_records_are_per_example_alike():
    mean = train(epochs=1, optimizer=updates.sgd(0.1))
    total = train(epochs=1, optimizer=updates.sgd(0.01), reduction="sum")
    assert total.history[0]["loss"] == pytest.approx(mean.history[0]["loss"], rel=1e-5)
    assert total.history[0]["validation_loss"] == pytest.approx(mean.history[0]["validation_loss"], rel=1e-4)


# -- going on ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": optax.adam(1e-2), "params": NORMED, "dropout": DROPOUT, "keep": "best"},
        pytest.param({"data": fnn.data.Dataset(*DATA, chunk_bytes=100)}, marks=pytest.mark.slow),
    ],
    ids=["everything", "streamed"],
)
def test_a_run_that_goes_on_is_bitwise_one_longer_call(options):
    whole, begun = train(**options, epochs=4), train(**options, epochs=1)
    options.pop("params", None)
    parts = train(train(begun, **options, epochs=2), **options, epochs=1)
    assert_same(*((run.params, run.network, run.best, run.state.optimizer_state) for run in (parts, whole)))
    assert without_seconds(parts.history) == without_seconds(whole.history)
    assert parts.state[1:3] == whole.state[1:3] == (4, 16)
    assert (parts.state.best_epoch, parts.state.same) == (whole.state.best_epoch, whole.state.same)
    assert [record["epoch"] for record in begun.history] == [1]
    seconds = [record["seconds"] for record in parts.history]
    assert seconds == sorted(seconds)


def test_a_run_goes_on_with_its_log_and_into_a_checkpoint_and_refuses_another(tmp_path):
    begun = train(log=tmp_path / "log")
    longer = train(begun, log=tmp_path / "log", checkpoint=tmp_path / "run", epochs=2)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert lines == longer.history
    with pytest.warns(UserWarning, match="holds this run, and it is finished"):
        again = train(begun, checkpoint=tmp_path / "run", epochs=2)
    assert again.history == longer.history
    assert_same(again.params, longer.params)
    assert_refusal(
        lambda: train(train(), checkpoint=tmp_path / "run"),
        "ValueError: checkpoint: …does not hold the run to resume",
    )


GOING_ON = {
    "another key": refused("ValueError: key: expected the run's own key", key=jax.random.key(2)),
    "another optimizer": refused(
        "ValueError: optimizer: its state does not match that of the run:…fit(run.params", optimizer=optax.adam(0.1)
    ),
    "another network's data": refused("ValueError: data: the network takes 5 inputs", data=(X[:, :2], LABELS)),
}
WATCHING = {
    "keep what": refused("ValueError: keep: expected 'best' or 'best_accuracy' or None, got 'last'", keep="last"),
    "keep without validation": refused("ValueError: keep: expected validation data too", keep="best", validation=None),
    "patience without validation": refused("ValueError: patience: expected validation", patience=1, validation=None),
    "patience 0": refused("ValueError: patience: expected at least 1", patience=0),
    "accuracy of targets": refused(
        "ValueError: keep: 'best_accuracy' needs labels or one-hot rows…keep='best'",
        keep="best_accuracy", data=(X, X[:, :3]), validation=(X, X[:, :3]), loss=fnn.SquaredError(),
    ),
    "rules and a precision": refused(
        "ValueError: precision: 'bfloat16' means rules=fnn.BFLOAT16, but got other rules too",
        precision="bfloat16", rules=fnn.RULES._replace(bias_gradient=max),
    ),
    "no rules": refused("TypeError: rules: expected fnn.Rules, got None", rules=None),
    "what a callback returns": refused(
        "TypeError: callback: expected a dict of numbers…got 'size': 'big'", callback=lambda progress: {"size": "big"}
    ),
    "a name that is taken": refused("ValueError: callback: …got 'loss'", callback=lambda progress: {"loss": 1.0}),
}  # fmt: skip


@pytest.fixture(scope="module")
def begun():
    return train()


@refusals(({"fit": train}, WATCHING))
def test_what_cannot_be_watched_is_refused(call, message):
    assert_refusal(call, message)


@pytest.mark.parametrize("row", GOING_ON)
def test_a_run_refuses_to_go_on_as_another(row, begun):
    message, given = GOING_ON[row]
    assert_refusal(lambda: train(begun, **given), message)


def test_ctrl_c_loses_nothing():
    def stop(progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"stopped after epoch 2; .*fit\(error.run, data") as caught:
        train(epochs=9, callback=stop, dropout=DROPOUT)
    run = caught.value.run
    assert isinstance(caught.value, KeyboardInterrupt)
    assert evaluate(run, HELD_OUT, loss=LOSS) == last(run)
    whole = train(train(run, dropout=DROPOUT, epochs=1), dropout=DROPOUT, epochs=1)
    assert_same(whole.params, train(dropout=DROPOUT, epochs=4).params)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert_same(copied.run.params, run.params)


def test_ctrl_c_in_the_middle_of_an_epoch_gives_the_epochs_before_it():
    def make(epoch):
        for rows in np.arange(40).reshape(4, 10):
            if epoch == 3:
                raise KeyboardInterrupt
            yield X[rows], LABELS[rows]

    with pytest.raises(Interrupted) as caught:
        train(data=fnn.data.Batches(make), epochs=9)
    assert caught.value.run.state.epoch == 2


# -- the best epoch, and patience ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "name", "sign"), [("best", "loss", 1), ("best_accuracy", "accuracy", -1)])
def test_the_best_network_is_kept(keep, name, sign):
    run = train(optimizer=updates.sgd(1.0), epochs=8, keep=keep)
    scores = [sign * record[f"validation_{name}"] for record in run.history]
    assert run.state.best_epoch == 1 + int(np.argmin(scores))
    assert sign * evaluate(run.best, HELD_OUT, loss=LOSS)[name] == min(scores)
    assert train(epochs=1).best is None


def test_patience_stops_after_so_many_epochs_without_a_better_one():
    run = train(optimizer=updates.sgd(3.0), epochs=60, keep="best", patience=3)
    scores = [record["validation_loss"] for record in run.history]
    assert len(scores) < 60
    assert len(scores) - run.state.best_epoch == 3
    assert min(scores) == scores[-4]
    assert train(optimizer=updates.sgd(3.0), epochs=60, patience=3).history[-1]["epoch"] == len(scores)


def test_a_callbacks_numbers_join_the_record_and_the_log(tmp_path):
    run = train(callback=lambda progress: {"half": progress.epoch / 2}, log=tmp_path / "log")
    assert [record["half"] for record in run.history] == [0.5, 1.0]
    assert [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()] == run.history


def test_the_best_network_comes_back_from_a_checkpoint(tmp_path):
    options = {"keep": "best", "optimizer": updates.sgd(1.0)}
    whole = train(epochs=4, **options)
    train(epochs=3, checkpoint=tmp_path, **options)
    run = train(epochs=4, checkpoint=tmp_path, **options)
    assert_same((run.best, run.params), (whole.best, whole.params))
    assert run.state.best_epoch == whole.state.best_epoch


def _half_delta(g, activation, z, a):
    return 0.5 * activation.pullback(g, z, a)


def test_fit_trains_with_the_rules_that_it_is_given():
    rules = fnn.RULES._replace(hidden_delta=_half_delta)
    run = train(rules=rules, epochs=1, optimizer=updates.sgd(0.1), batch_size=43)
    step = fnn.train.make_step(updates.sgd(0.1), loss=LOSS, rules=rules)
    params, _, _ = step(drawn(), updates.sgd(0.1).init(drawn()), X, LABELS)
    for ours, theirs in zip(*map(jax.tree.leaves, (run.params, params))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert not np.allclose(run.params[0].W, train(epochs=1, optimizer=updates.sgd(0.1), batch_size=43).params[0].W)


# -- the bar -----------------------------------------------------------------------------------------------------


class Notebook:
    """IPython, as a notebook's kernel has it."""

    kernel = object()

    @classmethod
    def get_ipython(cls):
        return cls


def test_a_notebook_has_a_bar_too(monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "IPython", Notebook)
    with Bar(3, None) as bar:
        bar.show({"loss": 1.0}, 10)
    assert "1/3" in capfd.readouterr().err


def test_a_bar_that_was_asked_for_needs_tqdm_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert_refusal(lambda: train(progress=True), "ImportError: progress: True needs tqdm; install fnn[train]")
    train(epochs=1, progress=None)
