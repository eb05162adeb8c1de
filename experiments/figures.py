"""Figures of training runs, drawn without a display."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

BLUE, RED, GREY = "#1f5fa8", "#b5402a", "#777777"


def learning_curves(path: Path, history: Sequence[dict], title: str) -> None:
    """Training and held-out loss, and the held-out error on a logarithmic axis, by epoch."""
    epochs = [record["epoch"] for record in history]
    error = [100 * (1 - record["validation_accuracy"]) for record in history]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, errors = figure.subplots(1, 2)
    losses.plot(epochs, [record["loss"] for record in history], ".-", color=GREY, label="training")
    losses.plot(epochs, [record["validation_loss"] for record in history], ".-", color=BLUE, label="test")
    losses.set(xlabel="epoch", ylabel="loss", yscale="log")
    losses.legend(frameon=False)
    errors.plot(epochs, error, ".-", color=RED)
    errors.annotate(
        f"{100 - error[-1]:.2f} % right", (epochs[-1], error[-1]), (-6, 10), textcoords="offset points", ha="right"
    )
    errors.set(xlabel="epoch", ylabel="test error, %", ylim=(0, None))
    for axes in (losses, errors):
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def mistakes(path: Path, images: np.ndarray, labels: np.ndarray, outputs: np.ndarray, most: int = 60) -> None:
    """A sheet of the misclassified digits, the most confident mistakes first: ``taken for (is)``.

    images: (N, 784) uint8; labels: (N,); outputs: (N, 10), larger for the likelier class.
    """
    taken = outputs.argmax(axis=1)
    wrong = np.flatnonzero(taken != labels)
    margin = outputs[wrong, taken[wrong]] - outputs[wrong, labels[wrong]]
    shown = wrong[np.argsort(-margin, kind="stable")][:most]
    columns = 12
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(columns * 0.8, rows * 1.05 + 0.5), layout="constrained")
    for axes, i in zip(figure.subplots(rows, columns, squeeze=False).flat, [*shown, *[None] * (rows * columns)]):
        axes.axis("off")
        if i is not None:
            axes.imshow(images[i].reshape(28, 28), cmap="gray_r")
            axes.set_title(f"{taken[i]} ({labels[i]})", fontsize=9, color=RED)
    figure.suptitle(
        f"{len(wrong)} of {len(labels):,} misclassified; taken for (is), the surest {len(shown)} first", fontsize=11
    )
    figure.savefig(path, dpi=110)
