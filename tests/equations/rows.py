"""What the tests of the register ask of a row."""

import pytest

from experiments.equations.register import Finding

TOLERANCE = 1e-12


def true(finding: Finding | tuple[Finding, ...], tolerance: float = TOLERANCE) -> Finding:
    """The finding, or a row's only one, is right as printed."""
    finding = _only(finding)
    assert finding.verdict == "true", finding
    assert finding.error <= tolerance, finding
    return finding


def erratum(finding: Finding | tuple[Finding, ...], measured: float, tolerance: float = TOLERANCE) -> Finding:
    """The finding, or a row's only one, is false as printed by what was ``measured``, and right as corrected."""
    return off(finding, "erratum", measured, tolerance)


def loose(finding: Finding | tuple[Finding, ...], measured: float, tolerance: float = TOLERANCE) -> Finding:
    """It is off at its word by what was ``measured``, and right as it is meant."""
    return off(finding, "loose", measured, tolerance)


def convention(finding: Finding | tuple[Finding, ...], measured: float, tolerance: float = TOLERANCE) -> Finding:
    """By the other usage it is off by what was ``measured``, and right by the stated one."""
    return off(finding, "convention", measured, tolerance)


def off(finding, verdict: str, measured: float, tolerance: float) -> Finding:
    finding = _only(finding)
    assert finding.verdict == verdict, finding
    assert finding.error == pytest.approx(measured, rel=0.02), finding
    assert finding.corrected_error is not None
    assert finding.corrected_error <= tolerance < finding.error, finding
    return finding


def _only(finding) -> Finding:
    if isinstance(finding, Finding):
        return finding
    (finding,) = finding
    return finding
