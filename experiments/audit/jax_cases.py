"""Arguments for the derivatives in JAX itself."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.ode import odeint
from jax.scipy import special

from experiments.audit.cases import INF, ORDINARY, Case, at, matrices, pairs, positive

SPECIAL = "jax._src.scipy.special."
LINALG = "jax._src.numpy.linalg."
NN = "jax._src.nn.functions."


def cases() -> list[Case]:
    return [*_activations(), *_numpy(), *_special(), *_special_of_several(), *_linear_algebra(), *_lax()]


def _activations() -> list[Case]:
    logits = np.array([[0.3, -1.2, 2.0], [1.0, 1.0, -0.5]])
    masked = np.array([[True, False, True], [True, True, True]])
    softmax = partial(jax.nn.softmax, axis=-1)
    return [
        Case("jax.nn.relu", f"{NN}relu", jax.nn.relu, at(ordinary=ORDINARY, zero=(0.0, -0.0, 1.0), large=(1e30,
            -1e30))),
        Case("jax.nn.relu6", f"{NN}relu6", jax.nn.relu6, at(ordinary=(-1.0, 2.0, 7.0), kinks=(0.0, 6.0, 1.0))),
        Case("jax.nn.softmax", f"{NN}_softmax", softmax, at(
            ordinary=logits, ties=np.ones((2, 3)), minus_inf=[[0.0, -INF, 1.0]], saturated=[[0.0, 800.0, -800.0]],
            all_minus_inf=[[-INF, -INF]], empty=np.zeros((2, 0)))),
        Case("jax.nn.softmax, where=", f"{NN}_softmax", partial(softmax, where=masked), at(
            ordinary=logits, masked_inf=[[0.0, INF, 1.0], [0.0, 1.0, 2.0]], masked_nan=[[0.0, np.nan, 1.0], [0.0, 1.0,
            2.0]])),
        Case("jax.nn.log_softmax", "", partial(jax.nn.log_softmax, axis=-1), at(
            ordinary=logits, ties=np.ones((2, 3)), saturated=[[0.0, 800.0, -800.0]])),
        Case("jax.nn.log1mexp", f"{NN}log1mexp", jax.nn.log1mexp, at(
            ordinary=(0.1, 0.693, 2.0), tiny=(1e-12, 1e-6), large=(40.0, 800.0), zero=(0.0, 1.0), infinite=(INF, 1.0))),
        Case("jax.nn.softplus", "", jax.nn.softplus, at(ordinary=ORDINARY, zero=(0.0,), saturated=(-800.0, 800.0))),
        Case("jax.nn.gelu", "", jax.nn.gelu, at(ordinary=ORDINARY, zero=(0.0,), saturated=(-50.0, 50.0))),
        Case("jax.nn.logsumexp", "", partial(jax.nn.logsumexp, axis=-1), at(
            ordinary=logits, minus_inf=[[0.0, -INF, 1.0]], all_minus_inf=[[-INF, -INF]], saturated=[[800.0, -800.0]])),
        Case("jax.nn.standardize", "", jax.nn.standardize, at(ordinary=logits, equal=np.ones((2, 3)))),
    ]  # fmt: skip


def _numpy() -> list[Case]:
    inputs = pairs(
        ordinary=((0.3, -2.0), (1.0, 4.0)),
        ties=((1.0, 0.0), (1.0, 0.0)),
        one_inf=((-INF, 1.0), (2.0, -INF)),
        both_inf=((-INF,), (-INF,)),
        far=((800.0,), (-800.0,)),
    )
    return [
        Case("jax.numpy.logaddexp", "jax._src.lax.other.logaddexp", jnp.logaddexp, inputs),
        Case("jax.numpy.logaddexp2", "jax._src.lax.other.logaddexp2", jnp.logaddexp2, inputs),
        Case("jax.numpy.i0", "jax._src.numpy.lax_numpy._i0", jnp.i0, at(ordinary=ORDINARY, zero=(0.0,),
            large=(300.0,))),
        Case("jax.numpy.sinc", "jax._src.numpy.ufuncs._sinc_maclaurin", jnp.sinc, at(
            ordinary=(0.3, 1.7), zero=(0.0,), tiny=(1e-9,), whole=(1.0, -2.0))),
        Case("jax.numpy.frexp, mantissa", "jax._src.numpy.ufuncs._frexp", lambda x: jnp.frexp(x)[0], at(
            ordinary=(0.3, 5.0, -12.0), zero=(0.0, 3.0))),
        Case("jax.numpy.hypot", "", jnp.hypot, pairs(ordinary=((3.0,), (4.0,)), one_zero=((3.0,), (0.0,)))),
        Case("jax.numpy.arctan2", "", jnp.arctan2, pairs(ordinary=((3.0,), (-4.0,)), axes=((0.0,), (2.0,)))),
        Case("jax.numpy.power", "", jnp.power, pairs(
            ordinary=((2.0, 0.5), (3.0, -1.5)), zero_base=((0.0,), (2.0,)), zero_base_one=((0.0,), (1.0,)))),
        Case("jax.numpy.power, x alone", "", lambda x: jnp.power(x, 2.0), at(negative=(-2.0, 3.0), zero=(0.0,))),
        Case("jax.numpy.max", "", jnp.max, at(ordinary=ORDINARY, ties=(1.0, 1.0, 0.0))),
        Case("jax.numpy.sort", "", jnp.sort, at(ordinary=ORDINARY, ties=(1.0, 1.0, 0.0))),
    ]  # fmt: skip


def _special() -> list[Case]:
    """Functions of one number."""
    s = special
    return [
        Case("jax.scipy.special.wofz", f"{SPECIAL}_wofz", s.wofz, {
            "ordinary": (np.array([0.3 + 0.7j, -1.2 + 0.1j]),), "below": (np.array([0.4 - 0.6j]),),
            "zero": (np.zeros(1, complex),)}),
        Case("jax.scipy.special.erfcx", f"{SPECIAL}_erfcx", s.erfcx, at(
            ordinary=ORDINARY, zero=(0.0,), large=(30.0, 1e4), very_large=(1e9,), negative=(-20.0,))),
        Case("jax.scipy.special.dawsn", f"{SPECIAL}_dawsn", s.dawsn, at(
            ordinary=ORDINARY, zero=(0.0,), large=(30.0,), very_large=(1e9,))),
        Case("jax.scipy.special.logit", f"{SPECIAL}logit", s.logit, at(
            ordinary=(0.2, 0.9), near=(1e-12, 1 - 1e-9), ends=(0.0, 1.0))),
        Case("jax.scipy.special.entr", f"{SPECIAL}_xlogx", s.entr, at(ordinary=(0.2, 3.0), tiny=(1e-200,), zero=(0.0,
            1.0))),
        Case("jax.scipy.special.log_ndtr", f"{SPECIAL}log_ndtr", s.log_ndtr, at(
            ordinary=ORDINARY, zero=(0.0,), tail=(-15.0, -40.0), far_tail=(-1e4,), upper=(7.0, 30.0))),
        Case("jax.scipy.special.expi", f"{SPECIAL}expi", s.expi, at(ordinary=0.5, negative=-1.0, large=50.0)),
        Case("jax.scipy.special.sici", f"{SPECIAL}sici", s.sici, at(ordinary=(0.5, 3.0), large=(40.0,), tiny=(1e-6,))),
        Case("jax.scipy.special.sici, Si", f"{SPECIAL}sici", lambda x: s.sici(x)[0], at(negative=(-2.0,), zero=(0.0,))),
        Case("jax.scipy.special.expn, n = 2", f"{SPECIAL}expn", partial(s.expn, 2), at(ordinary=2.0, large=30.0)),
        Case("jax.scipy.special.expn, n = 1", f"{SPECIAL}expn", partial(s.expn, 1), at(ordinary=2.0, large=30.0)),
        Case("jax.scipy.special.fresnel", "jax._src.third_party.scipy.special.fresnel", s.fresnel, at(
            ordinary=ORDINARY, zero=(0.0,), large=(30.0,))),
        Case("jax.scipy.special.ndtri", "", s.ndtri, at(ordinary=(0.2, 0.9), tails=(1e-10, 1 - 1e-10))),
        Case("jax.scipy.special.erfinv", "", s.erfinv, at(ordinary=(0.2, -0.9), zero=(0.0,))),
        Case("jax.scipy.special.digamma", "", s.digamma, at(ordinary=(0.2, 3.0), negative=(-0.5, -1.7), large=(1e6,))),
        Case("jax.scipy.special.gammaln", "", s.gammaln, at(ordinary=(0.2, 3.0), negative=(-0.5, -1.7), large=(1e6,))),
        Case("jax.scipy.special.i0e", "", s.i0e, at(ordinary=ORDINARY, zero=(0.0,), large=(300.0,))),
        Case("jax.scipy.special.i1e", "", s.i1e, at(ordinary=ORDINARY, zero=(0.0,), large=(300.0,))),
        Case("jax.scipy.special.spence", "", s.spence, at(ordinary=(0.4, 2.0), one=(1.0,))),
    ]  # fmt: skip


def _special_of_several() -> list[Case]:
    s = special
    return [
        Case("jax.scipy.special.xlogy", f"{SPECIAL}xlogy", s.xlogy, pairs(
            ordinary=((0.5, -2.0), (2.0, 3.0)), zero_x=((0.0,), (2.0,)), both_zero=((0.0,), (0.0,)))),
        Case("jax.scipy.special.xlog1py", f"{SPECIAL}xlog1py", s.xlog1py, pairs(
            ordinary=((0.5, -2.0), (2.0, 3.0)), zero_x=((0.0,), (2.0,)), both_zero=((0.0,), (-1.0,)))),
        Case("jax.scipy.special.zeta", f"{SPECIAL}zeta", s.zeta, pairs(ordinary=((2.5, 4.0), (1.0, 3.2)),
            large=((30.0,), (2.0,)))),
        Case("jax.scipy.special.poch", f"{SPECIAL}poch", s.poch, pairs(
            ordinary=((1.5, 3.0), (2.5, 0.7)), zero_m=((2.0,), (0.0,)), negative_z=((-1.5,), (2.0,)))),
        Case("jax.scipy.special.hyp1f1", f"{SPECIAL}hyp1f1", s.hyp1f1, pairs(
            ordinary=((0.5,), (1.5,), (0.8,)), zero_x=((0.5,), (1.5,), (0.0,)), zero_a=((0.0,), (1.5,), (0.8,)),
            negative=((0.5,), (1.5,), (-3.0,)), large=((0.5,), (1.5,), (20.0,)))),
        Case("jax.scipy.special.hyp2f1", f"{SPECIAL}hyp2f1", s.hyp2f1, pairs(
            ordinary=((0.5,), (1.2,), (2.5,), (0.4,)), zero_x=((0.5,), (1.2,), (2.5,), (0.0,)),
            negative=((0.5,), (1.2,), (2.5,), (-0.6,)))),
        Case("jax.scipy.special.owens_t", f"{SPECIAL}_owens_t_impl", s.owens_t, pairs(
            ordinary=((0.5, -1.0), (1.2, 0.3)), negative_a=((0.5,), (-0.7,)), zero_h=((0.0,), (0.5,)),
            zero_a=((0.5,), (0.0,)), large_a=((0.5,), (30.0,)))),
        Case("jax.scipy.special.gammainc", "", s.gammainc, pairs(ordinary=((0.7, 3.0), (0.4, 5.0)))),
        Case("jax.scipy.special.gammainc, x alone", "", lambda x: s.gammainc(2.0, x), at(zero=(0.0,), large=(60.0,))),
        Case("jax.scipy.special.betainc, x alone", "", lambda x: s.betainc(2.0, 3.0, x), at(ordinary=(0.2, 0.7),
            ends=(0.0, 1.0))),
        Case("jax.scipy.special.beta", "", s.beta, pairs(ordinary=((0.7, 3.0), (0.4, 5.0)), negative=((-0.5,),
            (2.2,)))),
        Case("jax.scipy.special.gamma", "", s.gamma, at(ordinary=(0.7, 3.0), negative=(-0.5, -1.5))),
        Case("jax.scipy.special.rel_entr", "", s.rel_entr, pairs(ordinary=((0.7,), (0.4,)), zero_p=((0.0,), (0.4,)))),
    ]  # fmt: skip


def _symmetric(f: Callable) -> Callable:
    """The function of the symmetric part of a matrix."""
    return lambda x: f((x + x.T) / 2)


def _linear_algebra() -> list[Case]:
    a, b, p = matrices(4), matrices(2), positive(4)
    singular = np.array([[1.0, 2, 3, 4], [2, 4, 6, 8], [0, 1, 0, 1], [1, 0, 1, 1]])
    linalg, lax = jnp.linalg, jax.lax.linalg
    return [
        Case("jax.numpy.linalg.det", f"{LINALG}_det", linalg.det, at(
            ordinary=a, rank_3_of_4=singular, zeros=np.zeros((4, 4)), identity=np.eye(4), permutation=np.eye(4)[[1, 0,
            3, 2]])),
        Case("jax.numpy.linalg.det, 2 × 2 and 3 × 3", "", lambda x, y: (linalg.det(x), linalg.det(y)), pairs(
            ordinary=(b, matrices(3)), zeros=(np.zeros((2, 2)), np.zeros((3, 3))))),
        Case("jax.numpy.linalg.slogdet, 1 × 1 and 2 × 2", f"{LINALG}_slogdet_small", lambda x, y: (
            linalg.slogdet(x)[1], linalg.slogdet(y)[1]), pairs(ordinary=(matrices(1), b))),
        Case("jax.numpy.linalg.slogdet", f"{LINALG}_slogdet_lu", lambda x: linalg.slogdet(x)[1], at(
            ordinary=a, identity=np.eye(4))),
        Case("jax.numpy.linalg.slogdet, method='qr'", f"{LINALG}_slogdet_qr", lambda x: linalg.slogdet(x,
            method="qr")[1], at(
            ordinary=a, identity=np.eye(4))),
        Case("jax.numpy.linalg.pinv", f"{LINALG}_pinv", linalg.pinv, at(
            wide=matrices(3, 5), tall=matrices(5, 3), square=a, empty=np.zeros((0, 3)))),
        Case("jax.numpy.linalg.pinv, hermitian=True", f"{LINALG}_pinv", partial(linalg.pinv, hermitian=True),
            at(ordinary=p)),
        Case("jax.numpy.linalg.inv", "", linalg.inv, at(ordinary=a)),
        Case("jax.numpy.linalg.solve", "", linalg.solve, pairs(ordinary=(a, matrices(4, 2, 1)))),
        Case("jax.numpy.linalg.norm", "", linalg.norm, at(ordinary=ORDINARY)),
        Case("jax.lax.linalg.cholesky", "", _symmetric(lax.cholesky), at(ordinary=p, identity=np.eye(3))),
        Case("jax.lax.linalg.eigh, values", "", _symmetric(lambda x: linalg.eigvalsh(x)), at(ordinary=p)),
        Case("jax.lax.linalg.eigh, sum of exp of values", "", _symmetric(lambda x: jnp.exp(linalg.eigvalsh(x)).sum()),
            at(
            ordinary=p / 4, ties=np.eye(3))),
        Case("jax.lax.linalg.svd, values", "", lambda x: linalg.svd(x, compute_uv=False), at(ordinary=a,
            wide=matrices(3, 5))),
        Case("jax.lax.linalg.qr", "", lambda x: linalg.qr(x), at(square=a, tall=matrices(5, 3))),
        Case("jax.lax.linalg.lu", "", lambda x: lax.lu(x)[0], at(square=a, tall=matrices(5, 3), wide=matrices(3, 5))),
        Case("jax.lax.linalg.triangular_solve", "", partial(lax.triangular_solve, left_side=True, lower=True), pairs(
            ordinary=(np.tril(p), matrices(4, 2, 1)))),
        Case("jax.lax.linalg.tridiagonal_solve", "", lax.tridiagonal_solve, pairs(
            ordinary=((0.0, 0.3, 0.2), (2.0, 3.0, 2.5), (0.4, 0.1, 0.0), matrices(3, 2)))),
        Case("jax.scipy.linalg.expm", "", jax.scipy.linalg.expm, at(ordinary=b), single=False),
        Case("jax.scipy.linalg.sqrtm", "", lambda x: jax.scipy.linalg.sqrtm(x).real, at(ordinary=p)),
    ]  # fmt: skip


def _lax() -> list[Case]:
    def root(a):  # x² = a
        return jax.lax.custom_root(
            lambda x: x**2 - a, jnp.ones_like(a), lambda f, x: jnp.sqrt(a), lambda g, y: y / g(1.0)
        )

    return [
        Case("jax.lax.custom_root", "jax._src.lax.control_flow.solves._custom_root", root,
            {"ordinary": (np.float64(2.3),)}),
        Case("jax.experimental.ode.odeint", "jax.experimental.ode._odeint", lambda y, k: odeint(
            lambda y, t, k: -k * y, y, jnp.array([0.0, 0.4, 1.0], y.dtype), k, rtol=1e-9, atol=1e-9), {
            "ordinary": (np.array([1.0]), np.array([0.7]))}, single=False),
        Case("jax.lax.cumlogsumexp", "", jax.lax.cumlogsumexp, at(ordinary=ORDINARY, minus_inf=(-INF, 0.0, 1.0))),
        Case("jax.lax.cummax", "", jax.lax.cummax, at(ordinary=ORDINARY, ties=(1.0, 1.0, 0.0))),
        Case("jax.lax.cumprod", "", jax.lax.cumprod, at(ordinary=ORDINARY, zero=(2.0, 0.0, 3.0))),
        Case("jax.lax.reduce_prod", "", lambda x: jnp.prod(x), at(ordinary=ORDINARY, zeros=(2.0, 0.0, 3.0))),
    ]  # fmt: skip
