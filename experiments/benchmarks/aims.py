"""What the benchmarks aim at, what was reached, and of what falls short how much the matrix products alone take."""

from collections.abc import Mapping
from typing import NamedTuple

from experiments.benchmarks.timing import Row

PRODUCTS = "its matrix products alone", "its products alone"  # by module


class Aim(NamedTuple):
    """A workload of a module, a measure, a peer, and the largest ratio, ours as a multiple of the peer's."""

    module: str
    workload: str
    measure: str
    peer: str
    bound: float


SMALL = "one epoch of MNIST, 784-30-10, sigmoid, squared error, batch 10, SGD"
LARGE = "one epoch of MNIST, 784-512-512-10, ReLU, softmax cross-entropy, batch 128, momentum"
DEEP, WIDE = "a gradient of a stack, tanh, 256", "gradient, 16 × 128, batch 4096, ReLU"
AIMS = (
    Aim("epochs", SMALL, "time", "jax.grad + optax in a scan, naively", 0.48),
    Aim("epochs", SMALL, "time", "jax.grad in our pipeline", 0.95),
    Aim("epochs", SMALL, "time", "NumPy", 0.35),
    Aim("epochs", SMALL, "time", "PyTorch", 0.08),
    Aim("epochs", LARGE, "time", "jax.grad in our pipeline", 1.03),
    Aim("epochs", LARGE, "time", "PyTorch", 0.32),
    Aim("matmuls", "gradient, 4 × 2048, batch 1024, float32", "time", "its products alone", 1.08),
    Aim("stack", DEEP, "time", "scan + jax.grad", 0.5),
    Aim("stack", DEEP, "temporary memory", "scan + jax.grad", 0.3),
    Aim("memory", WIDE, "temporary memory", "jax.grad", 0.6),
)


def by_processor(rows: Mapping[str, Mapping[str, list[Row]]]) -> list[tuple[str, ...]]:
    """(workload, measure, peer, aim, and each processor's ratio, in brackets above the aim); rows: by processor."""

    def told(aim: Aim, ratio: float | None) -> str:
        return "" if ratio is None else f"{ratio:.3g}" if ratio <= aim.bound else f"({ratio:.3g})"

    def ratio(aim: Aim, of_modules: Mapping[str, list[Row]]) -> float | None:
        wanted = aim.workload, aim.measure, aim.peer
        return next((row.ratio for row in of_modules.get(aim.module, []) if row[:3] == wanted), None)

    return [
        (aim.workload, aim.measure, aim.peer, f"≤\N{NO-BREAK SPACE}{aim.bound:g}",
         *(told(aim, ratio(aim, of_modules)) for of_modules in rows.values()))
        for aim in AIMS
    ]  # fmt: skip


def reached(rows: Mapping[str, list[Row]]) -> list[tuple[str, ...]]:
    """(workload, measure, peer, aim, here, why) of every aim that was measured; rows: by module."""
    lines: list[tuple[str, ...]] = []
    for aim in AIMS:
        found = {row.peer: row for row in rows.get(aim.module, []) if row[:2] == (aim.workload, aim.measure)}
        row = found.get(aim.peer)
        if row is None or row.ratio is None:
            continue
        here = f"{row.ratio:.3f}" + ("" if row.spread is None else " ({:.3f}–{:.3f})".format(*row.spread))
        lines.append(
            (
                aim.workload,
                aim.measure,
                aim.peer,
                f"≤\N{NO-BREAK SPACE}{aim.bound:g}",
                here,
                explained(aim, row.ratio, found),
            )
        )
    return lines


def explained(aim: Aim, ratio: float, found: Mapping[str, Row]) -> str:
    if ratio <= aim.bound:
        return "reached"
    floor = next((row.ratio for peer, row in found.items() if peer in PRODUCTS and peer != aim.peer), None)
    if not floor:
        return "not reached"
    return (
        f"not reached: the matrix products alone take {ratio / floor:.3f} of the peer's time, ours {floor:.2f} of that"
    )
