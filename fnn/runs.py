"""``Run``: the result of ``fnn.train.fit``, for inference, inspection and further training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jax import Array

from fnn.display import Table
from fnn.markup import counted

EPOCHS_SHOWN = 10  # of a run, in a notebook
Record = dict[str, float]


class State(NamedTuple):
    """All that resuming needs besides the parameters and the records.

    optimizer_state: as after the last step. epoch, step: epochs and steps done. key: draws shuffles and masks.
    best_epoch: that of ``Run.best``, 0 if none is kept. same: name → text, the settings of the last call, by which a
    run is told from another (see ``checkpoint`` of ``fnn.train.fit``).
    """

    optimizer_state: Any
    epoch: int
    step: int
    key: Array
    best_epoch: int = 0
    same: dict[str, str] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A trained network with its records and its state.

    network: the network for inference, which was validated: W p instead of W after dropout, and batch norms folded.
    params:  as trained, with batch norms; with dropout, the W that the masks multiplied.
    history: a list with one record per epoch, a dict of numbers.
    state:   a State, from which ``fit(run, data, ...)`` resumes.
    best:    with ``keep``, the network for inference of the best epoch so far, otherwise None.

    ``evaluate``, ``predict``, ``checkpoint.export`` and ``explain`` accept a run and use its ``network``.
    """

    network: Any
    params: Any
    history: list[Record]
    state: State
    best: Any = field(default=None)

    def __repr__(self) -> str:
        if not self.history:
            return "Run(0 epochs)"
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.history[-1].items() if name != "epoch")
        return f"Run({counted(self.state.epoch, 'epoch')}, {last})"

    def _repr_html_(self) -> str:
        """The records of the last epochs as a table."""
        shown = self.history[-EPOCHS_SHOWN:]
        header = tuple(dict.fromkeys(name for record in shown for name in record))
        rows = tuple(tuple(_written(record.get(name)) for name in header) for record in shown)
        more = len(self.history) - len(shown)
        footer = f"the last {len(shown)} of {len(self.history)} epochs" if more else ""
        return Table(header, rows, repr(self), footer)._repr_html_()

    def plot(self) -> Any:
        """Learning curves by epoch, losses and accuracies side by side, as a matplotlib Figure."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("Run.plot needs matplotlib; install fnn[experiments]") from error
        curves = {"loss": _curves(self.history, "loss"), "accuracy": _curves(self.history, "accuracy")}
        curves = {what: found for what, found in curves.items() if found}
        figure = Figure(figsize=(4.5 * max(1, len(curves)), 3.2), layout="constrained")
        for number, (what, found) in enumerate(curves.items(), 1):
            axes = figure.add_subplot(1, len(curves), number)
            for name, (epochs, values) in found.items():
                axes.plot(epochs, values, label=name.replace("_", " "))
            axes.set(xlabel="epoch", ylabel=what)
            axes.legend(frameon=False)
        return figure


def _written(value: Any) -> str:
    """A number to four digits, a count whole, and nothing where an epoch has no such record."""
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.4g}"


def _curves(history: Sequence[Record], what: str) -> dict[str, tuple[list, list]]:
    """For every quantity whose name ends in ``what``, the epochs with a record of it, and its values."""
    curves: dict[str, tuple[list, list]] = {}
    for record in history:
        for name in (name for name in record if name.endswith(what)):
            epochs, values = curves.setdefault(name, ([], []))
            epochs.append(record["epoch"])
            values.append(record[name])
    return curves


def network_of(params: Any) -> Any:
    """The network for inference of a :class:`Run`; anything else unchanged."""
    return params.network if isinstance(params, Run) else params
