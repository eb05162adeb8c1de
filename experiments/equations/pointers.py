"""The experiments that the documents point at: each is a program of its own, whose docstring names the row."""

from typing import NamedTuple


class Pointer(NamedTuple):
    """What a document points at, and the program that does it."""

    what: str
    by: str


POINTERS = {
    "E1": Pointer("handwritten digits, MNIST, with a network written from scratch (Bhaip)", "experiments.mnist"),
    "E2": Pointer("activations by layer during training, Glorot and Bengio 2010 (Lopez Davila)", "experiments.glorot"),
    "E3": Pointer("covariate shift and batch norm, Ioffe and Szegedy 2015 (Strabel)", "experiments.batchnorm"),
    "E4": Pointer("dropout against over-fitting (Strabel)", "experiments.dropout"),
    "E5": Pointer("local minima, and momentum leaving them (Bhaip)", "experiments.descent"),
    "E6": Pointer("gradients of data points in parallel (the notes)", "experiments.equations"),
}  # fmt: skip
