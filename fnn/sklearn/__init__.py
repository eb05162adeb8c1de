"""Estimators for scikit-learn, so that pipelines, ``cross_val_score`` and grid search can train ``fnn`` networks.

``Classifier`` and ``Regressor`` pass ``sklearn.utils.estimator_checks.check_estimator``. Both take the same parameters,
which are checked by ``fit``:

    hidden         the widths of the hidden layers, a tuple that may be empty
    activation     of the hidden layers: an activation, or the name of one without parameters
    optimizer      a function of the learning rate from ``optax`` or ``fnn.updates``
    learning_rate  a number, or a schedule: a function of the step
    weight_decay   λ ≥ 0: ½ λ‖W‖² is added to the loss, for the weights and not the biases
    epochs         passes over the data, ≥ 1
    batch_size     examples in a mini-batch, ≥ 1; fewer if there are fewer examples
    random_state   None, an integer or a ``RandomState``: the initial weights and the order of the examples

Training computes in float32. Prediction computes in float64, so that no row's result depends on the rows beside it by
more than 1e-12. Equal parameters and shapes compile once. Needs scikit-learn; install ``fnn[sklearn]``.
"""

import typing as _typing

if _typing.TYPE_CHECKING:  # loaded at first use, because scikit-learn may not be installed
    from fnn.sklearn.estimators import Classifier, Regressor

__all__ = ["Classifier", "Regressor"]


if not _typing.TYPE_CHECKING:

    def __getattr__(name: str):
        if name not in __all__:
            raise AttributeError(f"module 'fnn.sklearn' has no attribute {name!r}")
        try:
            from fnn.sklearn import estimators
        except ImportError as error:
            raise ImportError("fnn.sklearn needs scikit-learn 1.6 or newer; install fnn[sklearn]") from error
        return getattr(estimators, name)


def __dir__() -> list[str]:
    return sorted(__all__)
