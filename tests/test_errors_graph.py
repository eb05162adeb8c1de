"""What cannot be dropped out of a graph, or folded into one, is refused by name."""

from dataclasses import replace

import jax
import numpy as np

import fnn
from errors import NETWORK, PARAMS, X, assert_refusal, evaluate, ones, refusals, refused, zeros

NORMED = replace(NETWORK, norm=fnn.BatchNorm(ones(9), zeros(9)))


def sample_masks(params=NETWORK, dropout=fnn.Dropout(0.5)):
    return fnn.graph.sample_masks(jax.random.key(0), params, dropout, 5)


def fold(params=NETWORK, **options):
    return fnn.graph.fold(params, **options)


def statistics(params=NORMED, batches=(X,)):
    return fnn.graph.statistics(params, batches)


DROPOUTS = {
    "a tuple": refused(
        "TypeError: keep: expected a number or an array (20,), one per arrow, got (0.5, 0.5)",
        dropout=fnn.DropConnect((0.5, 0.5)),
    ),
    "a list for neurons": refused(
        "TypeError: keep: expected a number or an array (9,), one per neuron, got [0.5]", dropout=fnn.Dropout([0.5])
    ),
    "None": refused("TypeError: keep: expected a number…got None", dropout=fnn.Dropout(None)),
    "above one": refused("ValueError: keep: expected 0 <= keep <= 1, got 1.5", dropout=fnn.DropConnect(1.5)),
    "below zero": refused("ValueError: keep: expected 0 <= keep <= 1, got -0.1", dropout=fnn.Dropout(-0.1)),
    "one of an array": refused(
        "ValueError: keep: expected 0 <= keep <= 1, got", dropout=fnn.DropConnect(np.linspace(0, 2, 20))
    ),
    "zero where inverted": refused(
        "ValueError: keep: expected 0 < keep <= 1 where inverted", dropout=fnn.Dropout(0.0, inverted=True)
    ),
    "another length": refused(
        "ValueError: keep: expected a number or shape (20,), got (9,)", dropout=fnn.DropConnect(np.ones(9))
    ),
    "a string": refused("TypeError: keep: expected a probability to keep, got 'half'", dropout=fnn.Dropout("half")),
    "a number": refused("TypeError: dropout: expected fnn.Dropout or fnn.DropConnect, got 0.5", dropout=0.5),
}
LAYERS = {"layers": refused("TypeError: params: expected a fnn.graph.Network, got tuple", params=PARAMS)}
NORMS = {
    "no statistics": refused("ValueError: statistics: params has a batch norm…fnn.graph.statistics", params=NORMED)
}
BATCHES = {
    "none": refused("ValueError: batches: expected at least one mini-batch…got none", batches=[]),
    "one example": refused("ValueError: x: …needs at least 2 examples, got 1", batches=[X[:1]]),
    "float64": refused("TypeError: x: expected float32…got float64", batches=[np.ones((5, 3))]),
}
UNFOLDED = {"a batch norm": refused("ValueError: params: a network with a batch norm…write fnn.fold", params=NORMED)}


@refusals(
    ({"sample_masks": sample_masks, "fold": fold}, DROPOUTS),
    ({"sample_masks": sample_masks, "fold": fold, "statistics": statistics}, LAYERS),
    ({"fold": fold}, NORMS),
    ({"statistics": statistics}, BATCHES),
    ({"evaluate": evaluate}, UNFOLDED),
)
def test_what_cannot_be_dropped_or_folded_is_refused_by_name(call, message):
    assert_refusal(call, message)
