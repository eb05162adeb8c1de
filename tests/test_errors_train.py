"""Bad data and settings of ``fit``, ``evaluate``, ``predict`` and ``make_step`` are refused by name."""

import jax.numpy as jnp
import numpy as np
import optax

import fnn
from errors import (
    LABELS,
    NORMED,
    ONE_OUTPUT,
    PARAMS,
    SGD,
    SOFTMAX,
    SQUARED,
    X,
    Y,
    assert_refusal,
    changed,
    evaluate,
    fit,
    layer,
    ones,
    refusals,
    refused,
    spoiled,
    zeros,
)
from fnn.data import Dataset


def validation(data, loss=SQUARED):
    return fit(data=(X, LABELS if loss is SOFTMAX else Y), validation=data, loss=loss)


def predict(params=PARAMS, data=None):
    return fnn.train.predict(params, Dataset(X, Y) if data is None else data)


def make_step(optimizer=SGD, **options):
    return fnn.train.make_step(optimizer, **options)


def labels(*values):
    return jnp.asarray(np.array(values, "int32"))


LOADER = refused(
    "TypeError: data: expected a fnn.data.Dataset or a pair…got list_iterator…write (np.concatenate([x for x, y in",
    data=iter([(X, Y)]),
)


def bad_data(where):
    """The rows for data, whose message begins with the argument's name."""
    return {
        "NaN in x": refused(
            f"ValueError: {where}: x: expected finite numbers, got …nan… in row 2 (2 such", data=(spoiled(X, np.nan), Y)
        ),
        "a label too large": refused(
            f"ValueError: {where}: y: expected labels below 2, the network's outputs, got 2 in row 2 (2 such rows)",
            data=(X, labels(0, 1, 2, 0, 9)),
            loss=SOFTMAX,
        ),
        "labels with a squared error": refused(
            f"TypeError: {where}: y: SquaredError…got integers…one-hot", data=(X, LABELS)
        ),
        "too many inputs": refused(
            f"ValueError: {where}: the network takes 3 inputs, got x of shape (5, 4)", data=(ones(5, 4), Y)
        ),
        "x alone": refused(
            f"TypeError: {where}: expected a fnn.data.Dataset or a pair (x, y) or…got float32 of shape", data=X
        ),
    }


FIT_OR_EVALUATE = {
    "no params": refused("TypeError: params: expected a tuple of fnn.Dense, got NoneType", params=None),
    "no data": refused("TypeError: data: expected…got NoneType", data=None),
    "W of rank 1": refused("ValueError: params[0].W: expected shape…got (3,)", params=layer(W=ones(3))),
}
ALWAYS = {"a loss's class": refused("TypeError: loss: expected…got <class …SquaredError", loss=fnn.SquaredError)}
FIT_OR_STEP = {
    "a reduction": refused("ValueError: reduction: expected 'mean' or 'sum', got 'avg'", reduction="avg"),
    "a rule that was not called": refused("TypeError: optimizer: expected…got <function adam", optimizer=optax.adam),
    "an optimizer's class": refused(
        "TypeError: optimizer: expected…got <class", optimizer=optax.GradientTransformation
    ),
}
FIT = {
    "inf in x": refused(
        "ValueError: data: x: expected finite numbers, got …inf… in row 2", data=(spoiled(X, np.inf), Y)
    ),
    "NaN in y": refused(
        "ValueError: data: y: expected finite numbers, got …nan… in row 2", data=(X, spoiled(Y, np.nan))
    ),
    "a negative label": refused(
        "ValueError: data: y: expected labels >= 0, got -1 in row 3 (1 such rows)",
        data=(X, labels(0, 1, 1, -1, 0)),
        loss=SOFTMAX,
    ),
    "no examples": refused("ValueError: data: x, y: expected …at least one, got 0 and 0", data=(X[:0], Y[:0])),
    "unequal lengths": refused(
        "ValueError: data: x, y: expected equally many examples in both, …got 5 and 3", data=(X, Y[:3])
    ),
    "targets (N,)": refused("ValueError: data: y: expected targets of shape (N, m), got (5,)", data=(X, Y[:, 0])),
    "too many targets": refused("ValueError: data: the network has 2 outputs, got y of shape (5, 3)", data=(X, X)),
    "x in another dtype": refused(
        "TypeError: data: expected x in float32…got bfloat16", data=(ones(5, 3, dtype="bfloat16"), Y)
    ),
    "y in another dtype": refused(
        "TypeError: data: y: expected float32…got bfloat16", data=(X, zeros(5, 2, dtype="bfloat16"))
    ),
    "x of integers": refused(
        "TypeError: data: x: expected uint8 or floating, got int32", data=(ones(5, 3, dtype="int32"), Y)
    ),
    "images not in rows": refused("ValueError: data: x: expected shape (N, n), got (5, 1, 3)", data=(ones(5, 1, 3), Y)),
    "lists": refused("TypeError: data: x: expected an array, got list", data=(X.tolist(), Y.tolist())),
    "four arrays": refused("TypeError: data: expected a fnn.data.Dataset or a pair…got tuple", data=(X, Y, Y, Y)),
    "strings": refused(
        "TypeError: data: y: expected integer labels or floating targets, got <U1…write np.unique(y, return_inv",
        data=(X, np.array(list("abbab"))),
        loss=SOFTMAX,
    ),
    "a dict": refused("TypeError: data: expected a fnn.data.Dataset or a pair…got dict", data={"x": X, "y": Y}),
    "a loader": refused(
        "TypeError: data: expected a fnn.data.Dataset or a pair…got map…write Batches(lambda epoch: ((np.asarray(x)",
        data=map(np.asarray, [X]),
    ),
    "labels for one output": refused(
        "ValueError: data: a network with one output takes y of shape (N, 1), got labels of shape (5,)",
        params=ONE_OUTPUT,
        data=(X, LABELS),
        loss=fnn.SigmoidCrossEntropy(),
    ),
    "W transposed": refused(
        "ValueError: params[0].W: expected shape (4, 3)…got (3, 4)…write W.T, because", params=changed(W=PARAMS[0].W.T)
    ),
    "a later W transposed": refused(
        "ValueError: params[1].W: expected shape (2, 4)…got (4, 2)…write W.T",
        params=changed(1, W=PARAMS[1].W.T),
        data=(X, zeros(5, 4)),
    ),
    "b of one number": refused("ValueError: params[0].b: expected…got (1,)", params=layer(b=zeros(1))),
    "an activation's class": refused(
        "TypeError: params[0].activation: expected…got <class", params=changed(activation=fnn.ReLU)
    ),
    "epochs 0": refused("ValueError: epochs: expected at least 1, got 0", epochs=0),
    "epochs below 0": refused("ValueError: epochs: expected at least 1, got -3", epochs=-3),
    "epochs a float": refused("TypeError: epochs: expected an integer, got 1.5", epochs=1.5),
    "epochs a string": refused("TypeError: epochs: expected an integer, got '3'", epochs="3"),
    "batch_size 0": refused("ValueError: batch_size: expected at least 1 …, got 0", batch_size=0),
    "batch_size over N": refused("ValueError: batch_size: …at most the 5 examples, got 6", batch_size=6),
    "batch_size a float": refused("TypeError: batch_size: expected an integer, got 2.0", batch_size=2.0),
    "no batch_size": refused("TypeError: batch_size: expected an integer, got None", batch_size=None),
    "batches of 1": refused(
        "ValueError: x: params[0] has a batch norm, which needs at least 2 examples, got 1",
        params=NORMED,
        batch_size=1,
    ),
    "an int seed": refused("TypeError: key: expected one PRNG key, got int 0; write key=", key=0),
    "no key": refused("TypeError: key: expected one PRNG key, got NoneType", key=None),
    "a string for a loss": refused("TypeError: loss: expected…got 'mse'", loss="mse"),
    "a rate for an optimizer": refused("TypeError: optimizer: expected an optax…got 0.1…sgd", optimizer=0.1),
    "a callback that is no function": refused("TypeError: callback: expected…got 5", callback=5),
}
PREDICT = {
    "no params": refused("TypeError: params: expected a tuple…got NoneType", params=None),
    "too many inputs": refused("ValueError: x: the network takes 3 inputs, got…(5, 2)", data=Dataset(Y, Y)),
    "integers": refused(
        "TypeError: x: expected uint8 or floating, got int32…pixels…codes of categories…astype",
        data=ones(5, 3, dtype="int32"),
    ),
    "one example": refused("ValueError: x: expected shape (N, n), got (3,)", data=X[0]),
    "no example": refused("ValueError: x: expected at least one example", data=X[:0]),
    "a list": refused("TypeError: x: expected an array, got list", data=[[1.0] * 3]),
    "a function of nothing": refused("ValueError: x: expected a function that yields at least one", data=list),
    "a loader": refused(
        "TypeError: x: expected an array, got list_iterator…write np.asarray(x), or predict(run, lambda: (",
        data=iter([X]),
    ),
    "a function of one array": refused(
        "TypeError: x: expected a function that returns an iterable of arrays (N, n), got one that returns float32",
        data=lambda: X,
    ),
    "a function without a result": refused(
        "TypeError: x: expected a function that returns an iterable of…NoneType", data=lambda: None
    ),
    "a function of pairs": refused("TypeError: x: batch 0: expected an array, got tuple", data=lambda: [(X, Y)]),
}
STEP = {  # before any step
    "no optimizer": refused("TypeError: optimizer: expected an optax…got None", optimizer=None),
    "no rules": refused("TypeError: rules: expected fnn.Rules, got None", rules=None),
}


@refusals(
    ({"fit": fit, "evaluate": evaluate}, bad_data("data")),
    ({"validation": validation}, bad_data("validation")),
    ({"fit": fit, "evaluate": evaluate}, FIT_OR_EVALUATE),
    ({"evaluate": evaluate}, {"a loader": LOADER}),
    ({"fit": fit, "evaluate": evaluate, "make_step": make_step}, ALWAYS),
    ({"fit": fit, "make_step": make_step}, FIT_OR_STEP),
    ({"fit": fit}, FIT),
    ({"predict": predict}, PREDICT),
    ({"make_step": make_step}, STEP),
)
def test_bad_data_or_a_bad_setting_is_refused_by_name(call, message):
    assert_refusal(call, message)
