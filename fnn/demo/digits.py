"""1,797 small images of handwritten digits that ship with the package (licence: LICENSE-digits.md)."""

import hashlib
from importlib import resources
from typing import NamedTuple

import numpy as np

from fnn.data import Dataset

FILE = "digits.npz"  # written by ``python -m experiments.demo_digits``
SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"  # of the pixels, then the labels
TRAINING = 1500  # the first images; the others are for testing
INK = 16  # a pixel counts how many of 4 × 4 smaller ones are black


class Digits(NamedTuple):
    """training: 1,500 images; test: 297. Each is a row (64,) of uint8 in [0, 16], 8 × 8 pixels; labels are 0 to 9."""

    training: Dataset
    test: Dataset


def load() -> Digits:
    """The digits, scaled by 1/16 when they are used. Raises ValueError if the file is not as it was written."""
    with resources.files("fnn.demo").joinpath(FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        x, y = arrays["x"], arrays["y"]
    found = digest(x, y)
    if found != SHA256:
        raise ValueError(f"fnn/demo/{FILE}: SHA-256 of its arrays is {found}, expected {SHA256}; install fnn again")
    data = Dataset(x, y, scale=1 / INK)
    return Digits(data[:TRAINING], data[TRAINING:])


def digest(x: np.ndarray, y: np.ndarray) -> str:
    """The SHA-256 of both arrays' bytes."""
    return hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()
