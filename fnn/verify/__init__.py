"""verify: hand-written derivatives against automatic differentiation."""

from fnn.verify.gradients import gradient
from fnn.verify.report import DerivationError, Finding, Report

__all__ = ["DerivationError", "Finding", "Report", "gradient"]
