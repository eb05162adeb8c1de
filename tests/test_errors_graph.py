"""What cannot be dropped out of a graph, or folded into one, is refused by name."""

from dataclasses import replace

import jax
import numpy as np

import fnn
from errors import GRAPH, NETWORK, X, assert_refusal, evaluate, ones, refusals, refused, zeros

NORMED = replace(NETWORK, norm=fnn.BatchNorm(ones(9), zeros(9)))


def sample_masks(params=NETWORK, dropout=fnn.Dropout(0.5)):
    return fnn.sample_masks(params, dropout, 5, key=jax.random.key(0))


def fold(params=NETWORK, **options):
    return fnn.fold(params, **options)


def statistics(params=NORMED, batches=(X,)):
    return fnn.statistics(params, batches)


def dropout(of=fnn.Dropout, keep=0.5, **options):
    return of(keep, **options)


KEEP = {
    "None": refused("TypeError: keep: expected a probability to keep, got None", keep=None),
    "above one": refused("ValueError: keep: expected 0 <= keep <= 1, got 1.5", of=fnn.DropConnect, keep=1.5),
    "below zero": refused("ValueError: keep: expected 0 <= keep <= 1, got -0.1", keep=-0.1),
    "NaN": refused("ValueError: keep: expected 0 <= keep <= 1, got nan", keep=float("nan")),
    "one of an array": refused("ValueError: keep: expected 0 <= keep <= 1, got", keep=np.linspace(0, 2, 20)),
    "one of a tuple": refused("ValueError: keep[1]: expected 0 <= keep <= 1, got 2", keep=(None, 2)),
    "zero where inverted": refused("ValueError: keep: expected 0 < keep <= 1 where inverted", keep=0.0, inverted=True),
    "a string": refused("TypeError: keep: expected a probability to keep, got 'half'", keep="half"),
    "True": refused("TypeError: keep: expected a probability to keep, got True", keep=True),
    "inverted 1": refused("ValueError: inverted: expected False or True, got 1", inverted=1),
}
DROPOUTS = {
    "a tuple": refused(
        "TypeError: keep: expected a number or an array (20,), one per arrow, got (0.5, 0.5)",
        dropout=fnn.DropConnect((0.5, 0.5)),
    ),
    "a list for neurons": refused(
        "TypeError: keep: expected a number or an array (9,), one per neuron, got [0.5]", dropout=fnn.Dropout([0.5])
    ),
    "another length": refused(
        "ValueError: keep: expected a number or shape (20,), got (9,)", dropout=fnn.DropConnect(np.ones(9))
    ),
    "a number": refused("TypeError: dropout: expected fnn.Dropout or fnn.DropConnect, got 0.5", dropout=0.5),
}
NO_PARAMS = {"a graph": refused("TypeError: params: expected a tuple of fnn.Dense, got Graph…graph.init", params=GRAPH)}
NORMS = {"no statistics": refused("ValueError: statistics: params has a batch norm…fnn.statistics", params=NORMED)}
BATCHES = {
    "none": refused("ValueError: batches: expected at least one mini-batch…got none", batches=[]),
    "one example": refused("ValueError: batches: mini-batch 0: x: …needs at least 2 examples, got 1", batches=[X[:1]]),
    "float64": refused("TypeError: batches: mini-batch 0: x: expected float32…got float64", batches=[np.ones((5, 3))]),
}
UNFOLDED = {"a batch norm": refused("ValueError: params: a network with a batch norm…write fnn.fold", params=NORMED)}


@refusals(
    ({"Dropout": dropout}, KEEP),
    ({"sample_masks": sample_masks, "fold": fold}, DROPOUTS),
    ({"sample_masks": sample_masks, "fold": fold, "statistics": statistics}, NO_PARAMS),
    ({"fold": fold}, NORMS),
    ({"statistics": statistics}, BATCHES),
    ({"evaluate": evaluate}, UNFOLDED),
)
def test_what_cannot_be_dropped_or_folded_is_refused_by_name(call, message):
    assert_refusal(call, message)
