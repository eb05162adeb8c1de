"""The MNIST digits that ship with these programs, checked by their SHA-256, or another data set in their format."""

from pathlib import Path

import numpy as np

from fnn.data import Dataset, load_mnist

FOLDER = Path(__file__).parent / "data" / "mnist"
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def load(folder: Path = FOLDER) -> tuple[Dataset, Dataset]:
    """Training and test set; the digests are checked for MNIST, not for another data set in ``folder``."""
    return load_mnist(folder, SHA256 if Path(folder) == FOLDER else None)


def name(folder: Path | None) -> str:
    """What titles and claims call the data: MNIST, or the folder's name, as "fashion-mnist"."""
    return "MNIST" if folder is None else Path(folder).resolve().name


def one_hot(data: Dataset) -> Dataset:
    """The same images with a row (10,) for every label, for losses that take no labels."""
    return Dataset(data.x, np.eye(10, dtype=np.float32)[data.y], data.scale)
