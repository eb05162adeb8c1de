"""The estimators; the only module that imports scikit-learn."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import numpy as np
import optax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from fnn.activations import Softmax
from fnn.checks.arrays import describe, unmasked
from fnn.functions import forward
from fnn.initializers import init
from fnn.kinds import is_weight
from fnn.layers import Params
from fnn.losses import Huber, Loss, Poisson, SoftmaxCrossEntropy, SquaredError
from fnn.numbers import number, whole
from fnn.train import fit
from fnn.written import known

LOSSES = {"Huber": Huber(), "SquaredError": SquaredError()}


class _Network(BaseEstimator):
    """What both estimators share: their parameters and their training."""

    def _fit(self, x: np.ndarray, y: np.ndarray, n_out: int, loss: Loss) -> Params:
        """Train a network on x (N, n) float32, and keep its records; y (N,) labels or (N, n_out) float32."""
        if not isinstance(self.hidden, (tuple, list)):
            raise TypeError(f"hidden: expected a tuple of sizes, got {self.hidden!r}; write hidden=(100,)")
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        at_start, in_training = jax.random.split(jax.random.key(seed))
        sizes = (x.shape[1], *self.hidden, n_out)
        params = init(at_start, sizes, activation=_named("activation", self.activation, known()))
        call, rate = type(self).__name__, self.learning_rate
        rate = rate if callable(rate) else number(call, "learning_rate", rate, least=0)
        optimizer = _optimizer(self.optimizer, rate, number(call, "weight_decay", self.weight_decay, least=0))
        batch_size = min(whole("batch_size", self.batch_size), len(x))
        run = fit(
            params,
            (x, y),
            optimizer,
            loss=loss,
            epochs=self.epochs,
            batch_size=batch_size,
            key=in_training,
            progress=False,
        )
        self.history_ = list(run.history)
        return run.network

    def _outputs(self, X) -> np.ndarray:
        """The outputs of the network, (N, n_out) float64."""
        check_is_fitted(self)
        unmasked("X", X)
        x = validate_data(self, X, reset=False, dtype=np.float64)
        with jax.enable_x64(True):
            return np.array(forward(jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self.network_), x))


class Classifier(ClassifierMixin, _Network):
    """A network that predicts classes, trained by softmax cross-entropy; see ``fnn.sklearn`` for its parameters.

    After ``fit``: ``classes_``, the K labels in order; ``network_``, the layers, whose K outputs are the probabilities;
    ``history_``, the records of the epochs; ``n_features_in_``.

    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> model = make_pipeline(StandardScaler(), Classifier(hidden=(20,), epochs=50, learning_rate=0.01, random_state=0))
    >>> bool(cross_val_score(model, *load_iris(return_X_y=True), cv=3).mean() > 0.9)
    True
    """

    def __init__(
        self,
        hidden=(100,),
        *,
        activation="ReLU",
        optimizer=optax.adam,
        learning_rate=0.001,
        weight_decay=0.0,
        epochs=200,
        batch_size=32,
        random_state=None,
    ):
        self.hidden = hidden
        self.activation = activation
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X, y) -> "Classifier":
        """Train on X (N, n), converted to float32, and y (N,), labels of any kind; returns itself.

        Raises ValueError or TypeError for other data, for fewer than two classes and for parameters out of range, and
        ``fnn.train.NonFinite`` if the training diverges.

        >>> Classifier((), epochs=1, batch_size=2, random_state=0).fit([[0.0], [1.0]], ["no", "yes"]).classes_.tolist()
        ['no', 'yes']
        """
        _require_unmasked(X, y)
        x, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, labels = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least two classes, got one class, {self.classes_.tolist()}")
        *hidden, last = self._fit(x, labels.astype(np.int32), len(self.classes_), SoftmaxCrossEntropy())
        self.network_ = (*hidden, replace(last, activation=Softmax()))
        return self

    def predict(self, X) -> np.ndarray:
        """The most probable class of every row of X (N, n): (N,), with the type of y. Raises ValueError for other X.

        >>> model = Classifier((), learning_rate=0.1, batch_size=4, random_state=0)
        >>> model.fit([[-2.0], [-1.0], [1.0], [2.0]], ["no", "no", "yes", "yes"]).predict([[-3.0], [3.0]]).tolist()
        ['no', 'yes']
        """
        most = self.predict_proba(X).argmax(axis=1)
        return self.classes_[most]

    def predict_proba(self, X) -> np.ndarray:
        """The probability of every class, in the order of ``classes_``, for X (N, n): (N, K) float64.

        Raises ValueError for other X.

        >>> model = Classifier((), epochs=1, batch_size=2, random_state=0).fit([[0.0], [1.0]], [0, 1])
        >>> model.predict_proba([[0.0], [1.0], [2.0]]).shape
        (3, 2)
        """
        return self._outputs(X)


class Regressor(RegressorMixin, _Network):
    """A network that predicts numbers; see ``fnn.sklearn`` for its parameters.

    loss: ``"SquaredError"``, ``"Huber"``, or a custom loss whose best output is the prediction. After ``fit``:
    ``network_``, the layers; ``history_``, the records of the epochs; ``n_features_in_``.

    >>> x = np.linspace(-1, 1, 50)[:, None]
    >>> model = Regressor((20,), activation="Tanh", learning_rate=0.01, batch_size=10, random_state=0)
    >>> bool(model.fit(x, np.sin(3 * x[:, 0])).score(x, np.sin(3 * x[:, 0])) > 0.95)
    True
    """

    def __init__(
        self,
        hidden=(100,),
        *,
        activation="ReLU",
        loss="SquaredError",
        optimizer=optax.adam,
        learning_rate=0.001,
        weight_decay=0.0,
        epochs=200,
        batch_size=32,
        random_state=None,
    ):
        self.hidden = hidden
        self.activation = activation
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X, y) -> "Regressor":
        """Train on X (N, n) and y (N,) or (N, m), both converted to float32; returns itself.

        Raises ValueError or TypeError for other data and for parameters out of range, and ``fnn.train.NonFinite`` if
        the training diverges.

        >>> Regressor((), epochs=1, batch_size=2, random_state=0).fit([[0.0], [1.0]], [0.0, 1.0]).n_features_in_
        1
        """
        _require_unmasked(X, y)
        x, y = validate_data(self, X, y, dtype=np.float32, multi_output=True, y_numeric=True)
        targets = y.astype(np.float32).reshape(len(y), -1)
        loss = _named("loss", self.loss, LOSSES)
        if isinstance(loss, Poisson) or getattr(loss, "takes_labels", False):
            raise ValueError(
                f"loss: expected one whose output is the prediction, got {loss}; write loss='SquaredError'"
            )
        self._shape = y.shape[1:]
        self.network_ = self._fit(x, targets, targets.shape[1], loss)
        return self

    def predict(self, X) -> np.ndarray:
        """The prediction for every row of X (N, n): (N,) or (N, m) like y, float64. Raises ValueError for other X.

        >>> model = Regressor((), learning_rate=0.1, batch_size=3, random_state=0)
        >>> model.fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0]).predict([[3.0]]).round(1).tolist()
        [7.0]
        """
        outputs = self._outputs(X)
        return outputs.reshape(len(outputs), *self._shape)


def _require_unmasked(X, y) -> None:
    """Raise TypeError for masked arrays, whose masks scikit-learn would drop."""
    for name, value in (("X", X), ("y", y)):
        unmasked(name, value)


@cache
def _optimizer(optimizer, learning_rate, weight_decay: float) -> optax.GradientTransformation:
    """One object for equal arguments, so that equal estimators compile once."""
    if not callable(optimizer):
        raise TypeError(f"optimizer: expected a function, got {describe(optimizer)}; write optimizer=optax.adam")
    rule = optimizer(learning_rate)
    return optax.chain(optax.add_decayed_weights(weight_decay, is_weight), rule) if weight_decay else rule


def _named(name: str, value, named: dict[str, Any]) -> Any:
    """``value``, or what it names; ``fnn`` raises for what is neither."""
    if not isinstance(value, str):
        return value
    if value not in named:
        raise ValueError(f"{name}: expected one of {', '.join(sorted(named))}, got {value!r}")
    return named[value]() if isinstance(named[value], type) else named[value]
