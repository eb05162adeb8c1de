"""Estimators of fnn among scikit-learn's own: its checks, pipelines, cross-validation and grid search."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the extra sklearn is not installed")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import fnn
from fnn.sklearn import Classifier, Regressor

FAST = {"epochs": 30, "learning_rate": 0.1, "batch_size": 20, "random_state": 0}
x = np.random.default_rng(0).normal(size=(60, 2))
SIGN = np.where(x[:, 0] > x[:, 1], "above", "below")
SUM = 3 * x[:, 0] - x[:, 1]


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [Classifier(), Regressor()], ids=["classifier", "regressor"])
def test_scikit_learns_own_checks_pass(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the checks themselves warn of
        results = check_estimator(estimator, on_fail=None, on_skip=None)
    assert len(results) > 40
    assert [one["check_name"] for one in results if one["status"] not in ("passed", "skipped")] == []


def test_a_classifier_keeps_the_labels_and_its_probabilities_are_the_networks():
    model = Classifier((8,), **FAST).fit(x, SIGN)
    assert model.score(x, SIGN) > 0.95
    assert model.classes_.tolist() == ["above", "below"]
    probabilities = model.predict_proba(x)
    np.testing.assert_allclose(probabilities, fnn.forward(model.network_, x.astype(np.float32)), atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert len(model.history_) == 30


@pytest.mark.parametrize("y", [SUM, SUM[:, None], np.stack([SUM, -SUM], axis=1)], ids=["numbers", "a column", "rows"])
def test_a_regressors_predictions_have_the_shape_of_y(y):
    model = Regressor((), **FAST).fit(x, y)
    assert model.predict(x).shape == y.shape
    assert model.score(x, y) > 0.9


def test_a_pipeline_is_searched_and_cross_validated():
    model = make_pipeline(StandardScaler(), Classifier((4,), **FAST))
    search = GridSearchCV(model, {"classifier__activation": ["Tanh", fnn.ReLU()]}, cv=2).fit(x, SIGN)
    assert search.best_score_ > 0.9
    assert cross_val_score(search.best_estimator_, x, SIGN, cv=2).min() > 0.8


def test_weight_decay_shrinks_the_weights_and_equal_seeds_give_equal_networks():
    free, again, decayed = (
        Regressor((), **FAST, weight_decay=decay).fit(x, SUM).network_[0].W for decay in (0.0, 0.0, 1.0)
    )
    np.testing.assert_array_equal(free, again)
    assert np.linalg.norm(decayed) < 0.8 * np.linalg.norm(free)


def test_a_loss_an_optimizer_and_an_activation_are_names_or_objects():
    model = Regressor((4,), activation=fnn.LeakyReLU(0.1), loss="Huber", optimizer=fnn.updates.sgd, **FAST)
    assert clone(model).get_params()["activation"] == fnn.LeakyReLU(0.1)
    assert model.fit(x, SUM).network_[0].activation == fnn.LeakyReLU(0.1)
    assert pickle.loads(pickle.dumps(model)).predict(x).tolist() == model.predict(x).tolist()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"hidden": 5}, TypeError, r"hidden: expected a tuple of sizes, got 5; write hidden=\(100,\)"),
        ({"activation": "Relu"}, ValueError, "activation: expected one of ELU, .*, got 'Relu'"),
        ({"loss": fnn.Poisson()}, ValueError, "loss: expected one whose output is the prediction, got Poisson"),
        ({"loss": "Hubert"}, ValueError, "loss: expected one of Huber, SquaredError, got 'Hubert'"),
        ({"optimizer": "adam"}, TypeError, "optimizer: expected a function, got .*; write optimizer=optax.adam"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate: expected a number"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay: expected a finite number >= 0"),
        ({"epochs": 0}, ValueError, "epochs: expected at least 1, got 0"),
        ({"batch_size": 0}, ValueError, "batch_size: expected at least 1, got 0"),
    ],
)
def test_a_bad_parameter_is_refused_by_name_in_fit(given, error, message):
    with pytest.raises(error, match=message):
        Regressor(**given).fit(x, SUM)


@pytest.mark.parametrize("name", ["X", "y"])
def test_a_masked_array_is_refused_because_scikit_learn_would_drop_its_mask(name):
    X, y = np.ma.array(x, mask=x > 1), np.ma.array(SUM, mask=SUM > 1)
    data = {"X": x, "y": SUM} | {name: {"X": X, "y": y}[name]}
    with pytest.raises(TypeError, match=f"^{name}: expected a plain array, got a masked one"):
        Regressor().fit(**data)
    with pytest.raises(TypeError, match="^X: expected a plain array, got a masked one"):
        Regressor((), epochs=1).fit(x, SUM).predict(X)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="y: expected at least two classes, got one class, .'a'"):
        Classifier().fit(x, ["a"] * 60)


@pytest.mark.process
def test_importing_fnn_does_not_import_scikit_learn():
    code = "import sys; from fnn import *; print('sklearn' in sys.modules, sklearn.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "fnn.sklearn"]


def test_without_scikit_learn_it_is_said_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "fnn.sklearn.estimators")
    monkeypatch.delattr(fnn.sklearn, "estimators")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ImportError, match=r"fnn.sklearn needs scikit-learn 1.6 or newer; install fnn\[sklearn\]"):
        fnn.sklearn.Classifier  # noqa: B018
