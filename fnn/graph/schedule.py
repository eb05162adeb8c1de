"""The schedule of one direction through a graph: generations cut into steps, and similar steps grouped into legs.

Forward, a neuron sums over the arrows into it; backward, over the arrows out of it. Both are the same computation,

    s[row] = Σ_arrows  w[arrow] · values[read]          for the rows of a generation, once their reads are known.

A generation is cut into *steps* of some rows each. Within a step, arrows from a densely connected generation form a
matrix. The remaining arrows are summed in groups of ``width``: a gather, a product and a sum of ``width`` terms fuse
into one loop, and only one scatter is needed per group instead of per arrow (a third of the time). Consecutive steps of
similar size are padded to one shape and form a *leg*, a single ``lax.scan``. So program size grows with the number of
legs, not of generations, and a huge generation does not pad the small ones around it.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

DENSE_ARROWS, DENSE_FILL = 256, 0.25  # a pair of generations above both is a matrix; single arrows cost 8 × more
MOST_LEGS, FEW_STEPS = 8, 32  # each leg takes about 0.1 s to compile
WIDTHS = (1, 2, 4, 8, 16)  # possible widths of a group


def most_groups() -> int:
    """The most arrow groups of a step, on the platform where JAX computes.

    On a CPU the temporary arrays of 1,024 stay in its cache. An accelerator has no such cache, and starts a few
    programs for each step: there a step is as large as its memory allows, with 256 MiB for 1,024 examples in float32.
    (The first number is measured, the second is not.)
    """
    return 1024 if jax.default_backend() == "cpu" else 1 << 16


class Block(NamedTuple):
    """The arrows of a step that come from one generation, as a matrix (rows, width).

    Missing arrows have weight 0, so a NaN or an infinity passes through them.
    offset: where the weights start, if they are a slice in the order of the matrix or its transpose; else None.
    """

    width: int
    offset: int | None = None
    transposed: bool = False


class Leg(NamedTuple):
    """The static part of equal steps. first: the first rows if there is only one step, else None."""

    steps: int
    rows: int
    groups: int
    width: int
    blocks: tuple[Block, ...]
    first: tuple[int, ...] | None  # the step's first row, and each block's first read
    exact: bool  # no step is padded
    kinds: tuple[int, ...]  # the activations that occur


class Tables(NamedTuple):
    """The lookup tables of a leg's steps, int32, with a leading axis of steps. Padding reads the last row, a zero."""

    start: Any  # (steps,)
    count: Any  # (steps,) rows that are not padding
    reads: Any  # (steps, groups, width)
    arrows: Any  # (steps, groups, width): position among the weights
    receivers: Any  # (steps, groups): row within the step
    block_starts: Any  # one (steps,) per block
    block_arrows: Any  # one (steps, rows, width) per block, or None


class _Step(NamedTuple):
    """Rows computed together. groups: the first and last; blocks: pairs (first read, arrows (rows, width))."""

    first: int
    size: int
    groups: tuple[int, int]
    blocks: tuple[tuple[int, np.ndarray], ...]


class _Groups(NamedTuple):
    """Arrows to one row, ``width`` at a time. start: (rows + 1,), each row's first group; padding is −1 and M."""

    start: np.ndarray
    receivers: np.ndarray  # (groups,)
    reads: np.ndarray  # (groups, width)
    arrows: np.ndarray  # (groups, width)


def schedule(row: np.ndarray, read: np.ndarray, kind: np.ndarray, bounds: np.ndarray, most: int, order, only_blocks):
    """The legs, with their tables, that compute the generations ``order`` in that order.

    row, read: (M,), the row that each arrow adds to and the row that it reads; kind: (N,), each row's activation;
    bounds: generation i has rows bounds[i] to bounds[i + 1]; most: groups of a step.
    """
    level = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    for blocks, ratios in (("dense", (2, 4, 16)), ("none", (2, 4, 16, math.inf))):  # no blocks if too many differ
        steps, groups = _steps(row, read, bounds, level, most, order, "all" if only_blocks else blocks)
        for ratio in ratios:
            legs = _alike(steps, ratio)
            if len(legs) <= MOST_LEGS or len(steps) <= FEW_STEPS or only_blocks:
                return [_leg(leg, groups, kind, len(row)) for leg in legs]
    raise AssertionError("without blocks and with an infinite ratio all steps are one leg")


def _alike(steps: list[_Step], ratio: float) -> list[list[_Step]]:
    """Consecutive steps grouped, as long as no size exceeds another by more than the factor ``ratio``."""
    legs: list[list[_Step]] = []
    least: tuple[int, ...] = ()
    most: tuple[int, ...] = ()
    for step in steps:
        widths = (arrows.shape[1] for _, arrows in step.blocks)
        sizes = tuple(max(16, size) for size in (step.size, step.groups[1] - step.groups[0], *widths))
        if legs and len(sizes) == len(least):
            low, high = tuple(map(min, least, sizes)), tuple(map(max, most, sizes))
            if all(h <= ratio * n for h, n in zip(high, low)):
                legs[-1].append(step)
                least, most = low, high
                continue
        legs.append([step])
        least = most = sizes
    return legs


def _steps(row, read, bounds, level, most, order, blocks) -> tuple[list[_Step], _Groups]:
    size, levels = np.diff(bounds), len(bounds) - 1
    pairs, pair, arrows = np.unique(level[row] * levels + level[read], return_inverse=True, return_counts=True)
    area = size[pairs // levels] * size[pairs % levels]
    dense = np.full(len(pairs), blocks != "none")
    if blocks == "dense":
        dense = (arrows >= DENSE_ARROWS) & (arrows >= DENSE_FILL * area)
    groups = _groups(row, read, np.flatnonzero(~dense[pair] & np.isin(level[row], order)), len(level))
    matrices: dict[int, list] = {number: [] for number in order}
    by_pair = np.argsort(pair, kind="stable")
    ends = np.cumsum(arrows)
    for k in np.flatnonzero(dense & np.isin(pairs // levels, order)):
        to, of = divmod(int(pairs[k]), levels)
        chosen = by_pair[ends[k] - arrows[k] : ends[k]]
        matrix = np.full((size[to], size[of]), len(row), np.int32)
        matrix[row[chosen] - bounds[to], read[chosen] - bounds[of]] = chosen
        matrices[to].append((int(bounds[of]), matrix))
    steps = []
    for number in order:
        first, last = int(bounds[number]), int(bounds[number + 1])
        start = groups.start[first : last + 1]
        pieces = max(1, math.ceil((start[-1] - start[0]) / most))
        cuts = np.searchsorted(start, np.linspace(start[0], start[-1], pieces + 1)[1:-1])
        cuts = np.unique(np.concatenate([[0], cuts, [last - first]]))
        for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist()):
            parts = tuple((at, matrix[a:b]) for at, matrix in matrices[number])
            steps.append(_Step(first + a, b - a, (int(start[a]), int(start[b])), parts))
    return steps, groups


def _groups(row, read, position, rows: int) -> _Groups:
    """The arrows at ``position`` by row, in groups of the cheapest width."""
    position = position[np.lexsort((read[position], row[position]))]
    row, read, arrows = row[position], read[position], len(row)
    degree = np.bincount(row, minlength=rows)
    width = min(WIDTHS, key=lambda w: (-(-degree // w)).sum() * (w + 3))  # a scatter costs about three products
    count = -(-degree // width)
    start = np.concatenate([[0], np.cumsum(count)])
    rank = np.arange(len(row)) - (np.cumsum(degree) - degree)[row]  # of each arrow within its row
    place = start[row] + rank // width, rank % width
    reads, kept = (np.full((start[-1], width), pad, np.int32) for pad in (-1, arrows))
    reads[place], kept[place] = read, position
    return _Groups(start, np.repeat(np.arange(rows), count), reads, kept)


def _leg(steps: list[_Step], groups: _Groups, kind: np.ndarray, arrows: int) -> tuple[Leg, Tables]:
    """The leg of these steps, all padded to the largest."""
    rows, most = (max(sizes) for sizes in zip(*((s.size, s.groups[1] - s.groups[0]) for s in steps)))
    width, n = groups.reads.shape[1], len(steps)
    reads, kept = np.full((n, most, width), -1, np.int32), np.full((n, most, width), arrows, np.int32)
    receivers = np.full((n, most), rows - 1, np.int32)
    widths = [max(s.blocks[j][1].shape[1] for s in steps) for j in range(len(steps[0].blocks))]
    matrices = tuple(np.full((n, rows, w), arrows, np.int32) for w in widths)
    for i, step in enumerate(steps):
        chosen = slice(*step.groups)
        size = chosen.stop - chosen.start
        reads[i, :size], kept[i, :size] = groups.reads[chosen], groups.arrows[chosen]
        receivers[i, :size] = groups.receivers[chosen] - step.first
        for matrix, (_, part) in zip(matrices, step.blocks):
            matrix[i, : part.shape[0], : part.shape[1]] = part
    start, count = (np.array([getattr(step, name) for step in steps], np.int32) for name in ("first", "size"))
    starts = tuple(np.array([step.blocks[j][0] for step in steps], np.int32) for j in range(len(widths)))
    blocks = tuple(Block(w, *(_slice(m[0]) if n == 1 else ())) for w, m in zip(widths, matrices))
    first = (int(start[0]), *(int(s[0]) for s in starts)) if n == 1 else None
    kinds = np.unique(np.concatenate([kind[step.first : step.first + step.size] for step in steps]))
    leg = Leg(n, rows, most, width, blocks, first, bool((count == rows).all()), tuple(kinds.tolist()))
    return leg, Tables(start, count, reads, kept, receivers, starts, matrices)


def _slice(matrix: np.ndarray) -> tuple:
    """(offset, transposed) if the positions are consecutive, by rows or by columns."""
    for transposed, by_rows in ((False, matrix), (True, matrix.T)):
        flat = by_rows.ravel()
        if (flat == flat[0] + np.arange(flat.size)).all():
            return int(flat[0]), transposed
    return ()
