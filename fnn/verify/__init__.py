"""verify: hand-written derivatives against automatic differentiation, naming the wrong equation."""

from fnn.verify.curvature import curvature
from fnn.verify.custom import custom_vjp
from fnn.verify.gradients import gradient
from fnn.verify.network import network
from fnn.verify.probes import probes
from fnn.verify.report import DerivationError, Finding, Report
from fnn.verify.stages import Stage, stages

__all__ = [
    "DerivationError",
    "Finding",
    "Report",
    "Stage",
    "assert_curvature",
    "assert_custom_vjp",
    "assert_gradient",
    "assert_network",
    "assert_stages",
    "curvature",
    "custom_vjp",
    "gradient",
    "network",
    "probes",
    "stages",
]


def assert_network(params, x=None, y=None, **options) -> None:
    """``network(...).check()`` for a test: pytest shows the report, not the inside of the checker."""
    __tracebackhide__ = True
    network(params, x, y, **options).check()


def assert_gradient(hand, objective, params, *args, **options) -> None:
    """``gradient(...).check()`` for a test."""
    __tracebackhide__ = True
    gradient(hand, objective, params, *args, **options).check()


def assert_stages(chain, x, **options) -> None:
    """``stages(...).check()`` for a test."""
    __tracebackhide__ = True
    stages(chain, x, **options).check()


def assert_custom_vjp(f, *args, **options) -> None:
    """``custom_vjp(...).check()`` for a test."""
    __tracebackhide__ = True
    custom_vjp(f, *args, **options).check()


def assert_curvature(params, x=None, y=None, **options) -> None:
    """``curvature(...).check()`` for a test."""
    __tracebackhide__ = True
    curvature(params, x, y, **options).check()
