"""1,797 small images of handwritten digits that ship with the package (licence: fnn/demo/LICENSE-digits.md)."""

import hashlib
from importlib import resources

import numpy as np

FILE = "digits.npz"  # written by ``python -m experiments.demo_digits``
SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"  # of the pixels, then the labels
TRAINING = 1500  # the first images; the others are for testing
INK = 16  # a pixel counts how many of 4 × 4 smaller ones are black


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (1797, 64) in 0 to 16 and labels (1797,), uint8. Raises ValueError if the file was changed."""
    with resources.files("fnn.demo").joinpath(FILE).open("rb") as file, np.load(file, allow_pickle=False) as kept:
        x, y = kept["x"], kept["y"]
    found = digest(x, y)
    if found != SHA256:
        raise ValueError(f"fnn/demo/{FILE}: SHA-256 of its arrays is {found}, expected {SHA256}; install fnn again")
    return x, y


def digest(x: np.ndarray, y: np.ndarray) -> str:
    """The SHA-256 of both arrays' bytes."""
    return hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()
