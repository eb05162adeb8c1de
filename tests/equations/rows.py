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
    """The finding, or a row's only one, is wrong as printed by what was ``measured``, and right as corrected."""
    finding = _only(finding)
    assert finding.verdict == "erratum", finding
    assert finding.error == pytest.approx(measured, rel=0.02), finding
    assert finding.corrected_error is not None
    assert finding.corrected_error <= tolerance < finding.error, finding
    return finding


def _only(finding) -> Finding:
    if isinstance(finding, Finding):
        return finding
    (finding,) = finding
    return finding
