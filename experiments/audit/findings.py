"""Wrong or NaN derivatives, each reduced to a few lines, with the correct value from an independent oracle.

Each finding is two functions: what the package gives, and the right value by mpmath or NumPy, in more digits.
"""

import inspect
import re
import textwrap
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

CLOSE = 1e-3  # relative: a finding is confirmed only if it is further off than this


class Reduced(NamedTuple):
    """A finding: the derivatives that it is about, the distribution, a sentence, what is given and what is right."""

    rules: tuple[str, ...]
    package: str
    sentence: str
    gives: Callable[[], object]
    right: Callable[[], object]

    def lines(self) -> str:
        """The few lines that show it."""
        body = textwrap.dedent("\n".join(inspect.getsource(self.gives).splitlines()[1:]))
        return re.sub(r"^return (.*)$", r"print(\1)", body, flags=re.MULTILINE)

    def values(self) -> tuple[str, str, bool]:
        """What is given, what is right, and whether they differ."""
        given, right = (np.asarray(of(), float) for of in (self.gives, self.right))
        with np.errstate(invalid="ignore"):
            same = bool(np.allclose(given, right, rtol=CLOSE, atol=1e-30))
        return _text(given), _text(right), not same


def _text(value: np.ndarray) -> str:
    return ", ".join(f"{number + 0.0:.6g}" for number in value.ravel())


def _slope(f: Callable, x: float) -> float:
    """f'(x) by mpmath, in 50 digits."""
    import mpmath

    with mpmath.workdps(50):
        return float(mpmath.diff(f, mpmath.mpf(x)))


def _slogdet():
    import jax
    import jax.numpy as jnp

    value, gradient = jax.value_and_grad(lambda a: jnp.linalg.slogdet(a)[1])(1e-25 * jnp.eye(2, dtype="float32"))
    return value, *gradient.ravel()


def _slogdet_right():
    a = 1e-25 * np.eye(2)
    return np.linalg.slogdet(a)[1], *np.linalg.inv(a).T.ravel()


def _erfcx():
    import jax
    from jax.scipy.special import erfcx

    return jax.grad(erfcx)(jax.numpy.float32(3000))


def _erfcx_right():
    import mpmath

    return _slope(lambda x: mpmath.exp(x * x) * mpmath.erfc(x), 3000)


def _dawsn():
    import jax
    from jax.scipy.special import dawsn

    return jax.grad(dawsn)(jax.numpy.float32(3000))


def _dawsn_right():
    import mpmath

    # F(x) = (√π / 2) exp(−x²) erfi(x)
    with mpmath.workdps(50):
        x = mpmath.mpf(3000)
        return float(1 - 2 * x * mpmath.hyp2f0(1, 0.5, 1 / x**2) / (2 * x))


def _spence():
    import jax
    from jax.scipy.special import spence

    return jax.grad(spence)(1.5)


def _spence_right():
    import mpmath

    return _slope(lambda x: mpmath.polylog(2, 1 - x), 1.5)


def _xlogy():
    import jax
    from jax.scipy.special import xlogy

    return jax.grad(xlogy, argnums=1)(0.0, 0.0)


def _xlogy_right():
    steps = np.array([1e-3, 1e-6])  # 0 · log y is 0 for every y
    return np.max(0.0 * np.log(steps) / steps)


def _optax_loss():
    import jax
    import jax.numpy as jnp
    from optax.losses import safe_softmax_cross_entropy

    labels, logits = jnp.array([0.2, 0.0, 0.8]), jnp.array([0.3, -jnp.inf, 1.0])
    return jax.jvp(lambda x: safe_softmax_cross_entropy(x, labels), (logits,), (jnp.array([1.0, 0.0, 0.0]),))[1]


def _optax_loss_right():
    import mpmath

    return _slope(lambda x: mpmath.log(mpmath.exp(x) + mpmath.e) - x / 5 - mpmath.mpf(4) / 5, 0.3)


def _power():
    import jax
    from distrax._src.utils.math import power_no_nan

    return jax.jvp(lambda x: power_no_nan(x, 2.0), (-2.0,), (1.0,))[1]


def _power_of_distreqx():
    import jax
    from distreqx.utils.math import power_no_nan

    return jax.jvp(lambda x: power_no_nan(x, 2.0), (-2.0,), (1.0,))[1]


def _power_right():
    return _slope(lambda x: x**2, -2)


def _ott_norm():
    import jax
    import jax.numpy as jnp
    from ott.math.utils import norm

    return jax.value_and_grad(norm)(jnp.zeros(3))[0]


def _ott_norm_right():
    return np.linalg.norm(np.zeros(3))


def _ott_norm_rows():
    import jax
    import jax.numpy as jnp
    from ott.math.utils import norm

    return jax.grad(lambda x: norm(x, axis=-1).sum())(jnp.array([[0.0, 0.0], [3.0, 4.0]])).ravel()


def _ott_norm_rows_right():
    return 0.0, 0.0, _slope(lambda x: (x * x + 16) ** 0.5, 3), _slope(lambda x: (x * x + 9) ** 0.5, 4)


def _ott_logsumexp():
    import jax
    import jax.numpy as jnp
    from ott.math.utils import logsumexp

    return jax.value_and_grad(logsumexp)(jnp.array([-jnp.inf, -jnp.inf]))[0]


def _ott_logsumexp_right():
    return np.logaddexp(-np.inf, -np.inf)


def _ott_softmin():
    import jax
    import jax.numpy as jnp
    from ott.math.utils import softmin

    return jax.grad(softmin, argnums=1)(jnp.array([1.0, 2.0]), 0.5)


def _ott_softmin_right():
    import mpmath

    return _slope(lambda g: -g * mpmath.log(mpmath.exp(-1 / g) + mpmath.exp(-2 / g)), 0.5)


def _erfcx_of_tfp():
    import jax
    from tensorflow_probability.substrates.jax.math import erfcx

    return jax.grad(erfcx)(jax.numpy.float32(3000))


def _dawsn_of_tfp():
    import jax
    from tensorflow_probability.substrates.jax.math import dawsn

    return jax.grad(dawsn)(jax.numpy.float32(3000))


FINDINGS = (
    Reduced(
        ("jax._src.numpy.linalg._slogdet_small",), "jax",
        "slogdet underflows for 2 × 2 matrices, which it exists to avoid: it forms the determinant itself.",
        _slogdet, _slogdet_right,
    ),
    Reduced(
        ("jax._src.scipy.special._erfcx",), "jax",
        "2x erfcx(x) − 2/√π cancels for large x.",
        _erfcx, _erfcx_right,
    ),
    Reduced(
        ("jax._src.scipy.special._dawsn",), "jax",
        "1 − 2x F(x) cancels for large x.",
        _dawsn, _dawsn_right,
    ),
    Reduced(
        ("jax.scipy.special.spence",), "jax",
        "The gradient of spence is NaN for 1 < x ≤ 2; forward mode is right.",
        _spence, _spence_right,
    ),
    Reduced(
        ("jax._src.scipy.special.xlogy", "jax._src.scipy.special.xlog1py"), "jax",
        "xlogy(0, y) is 0 for every y, but its derivative in y is NaN at y = 0; likewise xlog1py(0, y) at y = −1.",
        _xlogy, _xlogy_right,
    ),
    Reduced(
        ("optax.losses._classification.weighted_logsoftmax",), "optax",
        "Forward mode computes 0 · log 0 for constant labels; reverse mode is right.",
        _optax_loss, _optax_loss_right,
    ),
    Reduced(
        ("distrax._src.utils.math.power_no_nan",), "distrax",
        "Forward mode computes 0 · log x for a constant exponent, which is NaN for x ≤ 0; reverse mode is right.",
        _power, _power_right,
    ),
    Reduced(
        ("distreqx.utils.math.power_no_nan",), "distreqx",
        "As in distrax.",
        _power_of_distreqx, _power_right,
    ),
    Reduced(
        ("ott.math.utils.norm",), "ott-jax",
        "When differentiated, the value at 0 is that at a vector of ones.",
        _ott_norm, _ott_norm_right,
    ),
    Reduced(
        ("ott.math.utils.norm",), "ott-jax",
        "With axis=, the documented gradient of 0 at a zero vector holds only if all vectors are zero.",
        _ott_norm_rows, _ott_norm_rows_right,
    ),
    Reduced(
        ("ott.math.utils.logsumexp",), "ott-jax",
        "When differentiated, the value for a slice of all −inf is 0.",
        _ott_logsumexp, _ott_logsumexp_right,
    ),
    Reduced(
        ("ott.math.utils.softmin",), "ott-jax",
        "The derivative with respect to gamma is 0.",
        _ott_softmin, _ott_softmin_right,
    ),
    Reduced(
        ("tfp.math.erfcx",), "tfp-nightly",
        "2x erfcx(x) − 2/√π cancels for large x.",
        _erfcx_of_tfp, _erfcx_right,
    ),
    Reduced(
        ("tfp.math.dawsn",), "tfp-nightly",
        "1 − 2x F(x) cancels for large x.",
        _dawsn_of_tfp, _dawsn_right,
    ),
)  # fmt: skip
