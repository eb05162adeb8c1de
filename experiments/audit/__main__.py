"""Judge custom derivatives in JAX and other packages: ``python -m experiments.audit [--only optax …] [--save]``.

It walks the installed packages for ``custom_jvp`` and ``custom_vjp`` objects, judges those for which there are
hand-made arguments, runs the reduced findings, and writes what it found to ``runs/``. Packages that are not installed
are skipped; the extra ``audit`` names them.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jax
import tyro

from experiments import results, table
from experiments.audit import jax_cases, package_cases, render, walk
from experiments.audit.cases import Case
from experiments.audit.findings import FINDINGS
from experiments.audit.judge import judged

PACKAGES: dict[str, tuple[str, Callable[[], list[Case]]]] = {"jax": ("jax", jax_cases.cases), **package_cases.CASES}
SAID = (  # of these the remark is kept
    "digits lost", "wrong", "not finite", "raises", "not compared", "deliberate",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Judge custom derivatives in JAX and other packages with verify.function."""

    only: tuple[str, ...] = ()
    """Distributions, such as optax; all by default."""
    save: bool = False
    """Store the record in the gallery and write experiments/audit.md."""
    page: bool = False
    """Only write experiments/audit.md from the stored record."""
    out: Path | None = None


def chosen(only: Sequence[str]) -> dict[str, tuple[str, Callable[[], list[Case]]]]:
    if unknown := [name for name in only if name not in PACKAGES]:
        raise SystemExit(f"--only: no package {', '.join(unknown)}; there are {', '.join(PACKAGES)}")
    return {name: PACKAGES[name] for name in only or PACKAGES}


def prepared(module: str, cases: Callable[[], list[Case]]) -> tuple[list[Case], str]:
    """The cases of a package, or why it cannot be judged."""
    try:
        importlib.import_module(module)
        return cases(), ""
    except ModuleNotFoundError as error:
        return [], "not installed" if (error.name or "") == module.partition(".")[0] else f"it needs {error.name}"
    except Exception as error:  # a package made for another version of JAX
        return [], f"{type(error).__name__} on import"


def rows(package: str, cases: Sequence[Case]) -> Iterator[dict]:
    """The verdicts of every case, printed as they come."""
    for case in cases:
        points = {}
        for one in judged(case):
            points[one.point] = (one.verdict, one.said if one.verdict in SAID else "")
            print(f"{one.seconds:6.1f} s  {one.target}, {one.point}: {one.verdict}  {one.said}", flush=True)
        yield {"package": package, "target": case.target, "rule": case.rule, "points": points}
        jax.clear_caches()


def audit(only: Sequence[str]) -> Iterator[dict]:
    """All that is kept, after each package: versions, verdicts, what is absent, what has no arguments, findings."""
    figures: dict = {"versions": {}, "absent": {}, "verdicts": [], "left": {}, "findings": {}}
    for package, (module, cases) in chosen(only).items():
        made, why = prepared(module, cases)
        if why:
            figures["absent"][package] = why
            continue
        figures["versions"][package] = version(package)
        figures["verdicts"] += rows(package, made)
        known = {case.rule for case in made}
        left = [str(found) for found in walk.derivatives(module) if str(found) not in known]
        figures["left"] |= {package: left} if left else {}
        figures["findings"] |= confirmed(package)
        yield figures


def confirmed(package: str) -> dict[str, tuple[str, str]]:
    """What a package gives and what is right, of the findings in it that the second oracle confirms."""
    found = {one.gives.__name__: one.values() for one in FINDINGS if one.package == package}
    return {name: (given, right) for name, (given, right, differs) in found.items() if differs}


def claims(figures: dict) -> list[results.Claim]:
    derivatives, packages = render.counted(figures)
    wrong = {rule for found, *_ in render.shown(figures) for rule in found.rules}
    return [
        results.Claim(
            f"derivatives that others ship: {derivatives} of {packages} packages by verify.function: wrong or NaN, "
            "confirmed by a second oracle",
            f"{len(render.shown(figures))} findings in {len(wrong)} derivatives",
        ),
        results.Claim("verdicts", render.summary(figures)),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    if not options.page:
        out = results.folder(options.out, "audit")
        for figures in audit(options.only):
            results.save(out, "audit", options, claims(figures), figures)
        if options.save:
            table.keep(out)
    if options.page or options.save:
        render.PATH.write_text(render.document(render.kept()))


if __name__ == "__main__":
    main()
