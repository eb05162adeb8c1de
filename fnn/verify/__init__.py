"""verify: checks hand-written derivatives against automatic differentiation and names the wrong equation.

In a test, write ``fnn.verify.network(params, loss=loss).check()``; it raises :class:`DerivationError` with the report.
The oracle is computed on the CPU, in float64 where the functions allow it. What is judged is evaluated by NumPy where
NumPy has the operation, and everything else of it, such as a kernel, runs on JAX's default device.
``python -m fnn.verify FILE.py`` runs all checks in a file, and ``python -m fnn.verify grade FILE.py`` grades a hand-in.
"""

from fnn.verify.curvature import curvature
from fnn.verify.custom import custom_vjp
from fnn.verify.function import function
from fnn.verify.gradients import gradient
from fnn.verify.network import network
from fnn.verify.probes import probes
from fnn.verify.report import DerivationError, Finding, Report, WeakComparison
from fnn.verify.stages import Stage, stages
from fnn.verify.taps import tap

__all__ = [  # as the site lists them
    "network",
    "gradient",
    "stages",
    "Stage",
    "custom_vjp",
    "function",
    "curvature",
    "tap",
    "probes",
    "Report",
    "Finding",
    "DerivationError",
    "WeakComparison",
]
