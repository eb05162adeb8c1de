"""Arguments of many sizes: those around a tile, in all combinations or such that every two values occur together."""

import inspect
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fnn.checks.arrays import describe
from fnn.markup import counted
from fnn.verify.kernels import SEED, Kernel
from fnn.verify.report import Finding, Report

MOST = 24  # combinations that are all tried
Case = dict[str, Any]  # the name of a size or a flag → its value


def around(tile: int) -> tuple[int, ...]:
    """The sizes at which code by tiles goes wrong: 1, t − 1, t, t + 1 and 2t + 1."""
    return tuple(dict.fromkeys(n for n in (1, tile - 1, tile, tile + 1, 2 * tile + 1) if n > 0))


def values(sizes: Mapping[str, Any]) -> dict[str, tuple]:
    """The values of each name: those around a tile for an integer, a sequence as it is. Raises TypeError."""
    if not isinstance(sizes, Mapping) or not sizes:
        raise TypeError(f"sizes: expected a dict, got {describe(sizes)}; write sizes={{'rows': 128, 'batch': (1, 2)}}")
    found = {}
    for name, given in sizes.items():
        if isinstance(given, int) and not isinstance(given, bool) and given > 0:
            found[name] = around(given)
        elif isinstance(given, Sequence) and not isinstance(given, str) and len(given):
            found[name] = tuple(given)
        else:
            raise TypeError(
                f"sizes[{name!r}]: expected a tile, an integer of 1 or more, or a tuple of values, got "
                f"{describe(given)}; write sizes={{{name!r}: 128}} or sizes={{{name!r}: (1, 2)}}"
            )
    return found


def cases(sizes: Mapping[str, Any]) -> list[Case]:
    """All combinations, or, of more than MOST, some in which any two values of two names occur together.

    >>> cases({"rows": (1, 2), "causal": (False, True)})[1:3]
    [{'rows': 1, 'causal': True}, {'rows': 2, 'causal': False}]
    >>> len(cases({name: (0, 1, 2) for name in "abcd"})) < 14  # of 81
    True
    """
    of = values(sizes)
    every = [dict(zip(of, combination)) for combination in itertools.product(*of.values())]
    if len(every) <= MOST:
        return every
    left = {pair for case in every for pair in _pairs(case)}
    chosen = []
    while left:
        best = max(every, key=lambda case: sum(pair in left for pair in _pairs(case)))
        chosen.append(best)
        left.difference_update(_pairs(best))
    return chosen


def _pairs(case: Case) -> Iterator[tuple]:
    return itertools.combinations([(name, repr(value)) for name, value in case.items()], 2)


def shown(case: Case) -> str:
    return ", ".join(f"{name}={value}" for name, value in case.items())


def where(every: Sequence[Case], failing: Sequence[Case], tiles: Mapping[str, int]) -> str:
    """The simplest condition that holds in the failing cases and in no other, "" if none of one or two names does."""
    wrong = [case in failing for case in every]
    if all(wrong) or not failing:
        return ""
    tests = list(_conditions(every, tiles))
    for text, holds in tests:
        if [holds(case) for case in every] == wrong:
            return f"only where {text}"
    for (first, a), (second, b) in itertools.combinations(tests, 2):
        if [a(case) and b(case) for case in every] == wrong:
            return f"only where {first} and {second}"
    return ""


def _conditions(every: Sequence[Case], tiles: Mapping[str, int]) -> Iterator[tuple[str, Callable[[Case], bool]]]:
    for name in every[0]:
        found = list(dict.fromkeys(case[name] for case in every))
        yield from ((f"{name} = {value}", _holds(name, operator.eq, value)) for value in found)
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in found):
            yield from ((f"{name} > {value}", _holds(name, operator.gt, value)) for value in sorted(found)[:-1])
        if name in tiles:
            yield f"{name} is no multiple of {tiles[name]}", _holds(name, operator.mod, tiles[name])


def _holds(name: str, relation: Callable, value) -> Callable[[Case], bool]:
    return lambda case: bool(relation(case[name], value))


# -- a kernel at all of them ------------------------------------------------------------------------------------


def in_own_precision(f: Callable, reference: Callable, fixed: Sequence[int], args: tuple, sizes) -> Report:
    """The report on a kernel beside a reference, at its arguments, or with ``sizes`` at those that they make."""
    every = cases(sizes) if sizes is not None else [{}]
    tiles = {name: tile for name, tile in (sizes or {}).items() if isinstance(tile, int)}
    found: dict[str, list[tuple[Case, Finding]]] = {}
    notes: list[str] = []
    for case in every:
        kernel = Kernel(f, reference, fixed, args[0](**case) if sizes is not None else args, case)
        findings, noted = kernel.judge(_parameters(f), tiles)
        notes += noted
        for finding in findings:
            found.setdefault(finding.name, []).append((case, replace(finding, case=shown(case))))
    if sizes is not None:
        notes.append(f"{counted(len(every), 'case')} in which every two values of {', '.join(every[0])} occur together")
    together = tuple(_together(of, tiles) for of in found.values())
    return Report(together, kernel.precision, tuple(dict.fromkeys(notes)), "array", SEED)


def _parameters(f: Callable) -> list[str]:
    try:
        return list(inspect.signature(f).parameters)
    except (TypeError, ValueError):
        return []


def _together(found: list[tuple[Case, Finding]], tiles: Mapping[str, int]) -> Finding:
    """The worst of the findings on one array, and in which cases it is wrong."""
    failing = [(case, finding) for case, finding in found if not finding.ok]
    worst = max((finding for _, finding in failing or found), key=lambda finding: (not finding.vacuous, finding.error))
    if not failing:
        return worst
    condition = where([case for case, _ in found], [case for case, _ in failing], tiles)
    return replace(worst, note="; ".join(part for part in (condition, worst.note) if part))
