"""A bad input x and bad masks are refused by name."""

from dataclasses import replace

import numpy as np

import fnn
from errors import EVERY, IN_GRAPHS, NETWORK, NORMED, X, Y, assert_refusal, ones, only, refusals, refused, zeros

NONE = fnn.Mask()
NORMED_NETWORK = replace(NETWORK, norm=fnn.BatchNorm(ones(9), zeros(9)))
FEW = "has a batch norm, which needs at least 2 examples, got 1"
FLOAT64 = {"x in float64": refused("TypeError: x: expected float32…got float64…astype", x=np.ones((5, 3)))}
X_OF_BOTH = {
    "x too wide": refused("ValueError: x: expected shape (3,) or (B, 3), got (5, 4)", x=ones(5, 4)),
}
X_AND_MASKS_OF_LAYERS = {
    "x of integers": refused(
        "TypeError: x: expected float32…got int32…codes of categories…astype", x=ones(5, 3, dtype="int32")
    ),
    "one example": refused(f"ValueError: x: params[0] {FEW}", params=NORMED, x=X[:1], y=Y[:1]),
    "too few masks": refused("ValueError: masks: expected one Mask per layer, 2, got 1", masks=(NONE,)),
    "arrays for masks": refused("TypeError: masks[0]: expected a fnn.Mask, got float32", masks=[X, NONE]),
    "units by neuron only": refused(
        "ValueError: masks[0].units: expected shape (5, 3) or (1, 3), got (3,)", masks=[fnn.Mask(ones(3)), NONE]
    ),
    "units in float64": refused(
        "TypeError: masks[0].units: expected float32…got float64", masks=[fnn.Mask(np.ones((5, 3))), NONE]
    ),
}
X_AND_MASK_OF_GRAPHS = {
    "one example": refused(f"ValueError: x: params {FEW}", params=NORMED_NETWORK, x=X[:1], y=Y[:1]),
    "an array for a mask": refused("TypeError: masks: expected a fnn.Mask, got", masks=ones(5, 9)),
}
X_OF_FORWARD = {
    "a list": refused("TypeError: x: expected an array, got list…write jnp.asarray", x=[[1.0, 2.0, 3.0]]),
    "of rank 3": refused("ValueError: x: expected shape…got (5, 1, 3)", x=ones(5, 1, 3)),
    "none at all": refused("ValueError: x: expected at least one example, got an empty batch of shape (0, 3)", x=X[:0]),
}
FORWARD = {
    "x of pixels": refused("TypeError: x: expected float32…got uint8…/ 255", x=ones(5, 3, dtype="uint8")),
    "x of bool": refused("TypeError: x: expected float32…got bool", x=ones(5, 3, dtype="bool")),
    "x in bfloat16": refused("TypeError: x: expected float32…got bfloat16", x=ones(5, 3, dtype="bfloat16")),
    "x a number": refused("TypeError: x: expected an array, got float 1.0", x=1.0),
    "x None": refused("TypeError: x: expected an array, got NoneType", x=None),
    "x of rank 0": refused("ValueError: x: expected shape…got ()", x=ones()),
    "x single": refused(f"ValueError: x: params[0] {FEW}", params=NORMED, x=X[0]),
    "too many masks": refused("ValueError: masks: expected one Mask per layer, 2, got 3", masks=(NONE,) * 3),
    "a number for masks": refused("TypeError: masks: expected one Mask per layer, 2, got int 5", masks=5),
    "one mask for both": refused("TypeError: masks: expected one Mask per layer, 2, got Mask", masks=fnn.Mask(X)),
    "an array for masks": refused("TypeError: masks: expected one Mask per layer, 2, got float32", masks=ones(2, 3)),
    "None for a mask": refused("TypeError: masks[1]: expected a fnn.Mask, got NoneType", masks=[NONE, None]),
    "units of the layer's output": refused(
        "ValueError: masks[1].units: expected shape (5, 4) or (1, 4), got (5, 2)", masks=[NONE, fnn.Mask(units=Y)]
    ),
    "units of a column": refused("ValueError: masks[0].units: expected…got (5, 1)", masks=[fnn.Mask(ones(5, 1)), NONE]),
    "arrows transposed": refused(
        "ValueError: masks[1].arrows: expected shape (2, 4), got (4, 2)", masks=[NONE, fnn.Mask(arrows=ones(4, 2))]
    ),
    "units of bool": refused(
        "TypeError: masks[0].units: expected float32…got bool", masks=[fnn.Mask(ones(5, 3, dtype="bool")), NONE]
    ),
    "units in a list": refused(
        "TypeError: masks[0].units: expected an array, got list", masks=[fnn.Mask([[1.0] * 3] * 5), NONE]
    ),
}
FORWARD_IN_GRAPHS = {
    "x of integers": refused(
        "TypeError: x: expected float32…got int32…codes of categories…astype", x=ones(5, 3, dtype="int32")
    ),
    "masks of layers": refused("TypeError: masks: expected a fnn.Mask, got tuple", masks=(NONE, NONE)),
    "units of the hidden only": refused(
        "ValueError: masks.units: expected shape (5, 9) or (1, 9), got (5, 4)", masks=fnn.Mask(ones(5, 4))
    ),
    "arrows as a matrix": refused(
        "ValueError: masks.arrows: expected shape (20,), got (4, 5)", masks=fnn.Mask(arrows=ones(4, 5))
    ),
    "arrows of bool": refused(
        "TypeError: masks.arrows: expected float32 as the parameters have, got bool",
        masks=fnn.Mask(arrows=ones(20, dtype="bool")),
    ),
    "arrows in a list": refused("TypeError: masks.arrows: expected an array, got list", masks=fnn.Mask(arrows=[1.0])),
}


@refusals(
    (EVERY | IN_GRAPHS, X_OF_BOTH),
    ({name: function for name, function in (EVERY | IN_GRAPHS).items() if "forward" not in name}, FLOAT64),
    (EVERY, X_AND_MASKS_OF_LAYERS),
    (IN_GRAPHS, X_AND_MASK_OF_GRAPHS),
    (only("forward", "graph.forward"), X_OF_FORWARD),
    (only("forward"), FORWARD),
    (only("graph.forward"), FORWARD_IN_GRAPHS),
)
def test_a_bad_input_is_refused_by_name(call, message):
    assert_refusal(call, message)
