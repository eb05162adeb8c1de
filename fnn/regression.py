"""Linear regression, min_v ‖Av − y‖²: a stable method and, for comparison, the textbook formula.

``least_squares`` factorises A itself: if A can fit y, its relative error grows like ε κ(A), with κ = σ_max/σ_min and
the dtype's ε. ``normal_equations`` inverts AᵀA, whose condition number is κ(A)². It loses twice as many digits, all of
them from κ = 1/√ε (3,000 in float32, 7e7 in float64), and fails if the columns of A are linearly dependent.
"""

import jax
import jax.numpy as jnp
from jax import Array

from fnn.checks import arrays
from fnn.numbers import number


def least_squares(A: Array, y: Array, rcond: float | None = None) -> Array:
    """The shortest v that minimises ‖Av − y‖²: v = A⁺y = V Σ⁺ Uᵀ y.

    A network without activation functions converges to this solution.

    A = U Σ Vᵀ is the singular value decomposition. Σ⁺ has 1/σ_i where σ_i > rcond · σ_1, and 0 otherwise. A: (m, n),
    float32 or float64, m, n ≥ 1, of any rank, possibly wide; y: (m,) or (m, k), of A's dtype, each column a separate
    problem. rcond: ≥ 0, by default max(m, n) · ε, as in NumPy. Returns (n,) or (n, k). May be called under jit and
    vmap. Raises TypeError or ValueError that names the argument. Source: Golub and Van Loan 2013, section 5.5.

    >>> A = jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])  # a line through three points
    >>> least_squares(A, jnp.array([1.0, 3.0, 5.0])).round(3).tolist()
    [1.0, 2.0]
    >>> least_squares(jnp.ones((2, 2)), jnp.array([2.0, 2.0])).round(3).tolist()  # of all v_1 + v_2 = 2
    [1.0, 1.0]
    """
    A, y = _checked(A, y)
    if rcond is None:
        rcond = max(A.shape) * float(jnp.finfo(A.dtype).eps)
    elif not isinstance(rcond, jax.core.Tracer):
        rcond = number("least_squares", "rcond", rcond, least=0)
    return _pseudo_inverse(A, y, jnp.asarray(rcond, A.dtype))


def normal_equations(A: Array, y: Array) -> Array:
    """v = (AᵀA)⁻¹ Aᵀ y, with an explicit inverse, for teaching only; use :func:`least_squares`.

    A: (m, n), float32 or float64, of full column rank (otherwise the result is arbitrary or not finite); y: (m,) or
    (m, k), of A's dtype. Returns (n,) or (n, k). Raises TypeError or ValueError that names the argument.

    >>> A = jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    >>> normal_equations(A, jnp.array([1.0, 3.0, 5.0])).round(3).tolist()
    [1.0, 2.0]
    """
    return _as_printed(*_checked(A, y))


@jax.jit
def _pseudo_inverse(A, y, rcond):
    with jax.default_matmul_precision("highest"):  # TF32 would cost what the factorisation saves
        U, sigma, Vt = jnp.linalg.svd(A, full_matrices=False)
        seen = sigma > rcond * sigma[0]
        inverse = jnp.where(seen, 1 / jnp.where(seen, sigma, 1), 0)
        return (Vt.T * inverse) @ (U.T @ y)


@jax.jit
def _as_printed(A, y):
    with jax.default_matmul_precision("highest"):
        return jnp.linalg.inv(A.T @ A) @ A.T @ y


def _checked(A, y) -> tuple:
    """A and y in the machine's byte order; raises TypeError or ValueError unless they fit together."""
    for name, array in (("A", A), ("y", y)):
        arrays.array(name, array)
    A, y = arrays.native((A, y))
    if A.dtype not in (jnp.float32, jnp.float64):
        raise TypeError(f"A: expected float32 or float64, got {arrays.describe(A)}; write A.astype(jnp.float32)")
    if y.dtype != A.dtype:
        wanted = str(A.dtype)
        raise TypeError(f"y: expected {wanted} as A has, got {arrays.describe(y)}; write y.astype({wanted!r})")
    if A.ndim != 2 or 0 in A.shape:
        raise ValueError(f"A: expected shape (m, n) with m, n >= 1, got {A.shape}; write A[:, None] for one column")
    if y.ndim not in (1, 2) or len(y) != len(A):
        m = len(A)
        raise ValueError(f"y: expected shape ({m},) or ({m}, k), one row per row of A, got {y.shape}; A has {m} rows")
    return A, y
