"""Arguments for the derivatives in other packages, and the list of all; each function imports its own package."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np

from experiments.audit import science_cases, solver_cases
from experiments.audit.cases import INF, ORDINARY, SIMPLEX, Case, at, matrices, module, pairs, positive

POWERS = pairs(ordinary=((2.0, 0.5), (3.0, -1.5)), zero_exponent=((2.0,), (0.0,)))
PRODUCTS = pairs(
    ordinary=((2.0, -0.5), (3.0, 1.5)), zeros=((0.0, 2.0), (1.0, 0.0)), infinite_times_zero=((INF,), (0.0,))
)


def optax() -> list[Case]:
    utils, losses = module("optax._src.utils"), module("optax.losses._classification")
    optax = module("optax")
    weights = np.array([0.2, 0.0, 0.8])
    return [
        Case("optax.projections.projection_simplex", "optax.projections._projections._projection_unit_simplex",
             optax.projections.projection_simplex, SIMPLEX),
        Case("optax.losses.weighted_logsoftmax", "optax.losses._classification.weighted_logsoftmax",
             losses.weighted_logsoftmax, pairs(ordinary=(ORDINARY[:3], weights), minus_inf=((0.3, -INF, 1.0), weights),
                                               saturated=((0.0, -800.0, 800.0), weights))),
        Case("optax.losses.safe_softmax_cross_entropy", "optax.losses._classification.weighted_logsoftmax",
             lambda x: optax.losses.safe_softmax_cross_entropy(x, jnp.asarray(weights, x.dtype)), at(
                 ordinary=ORDINARY[:3], minus_inf=(0.3, -INF, 1.0))),
        Case("optax.scale_gradient", "optax._src.utils._scale_gradient", partial(utils.scale_gradient, scale=0.5),
             at(ordinary=ORDINARY), "it scales gradients"),
        Case("optax.safe_norm", "", partial(optax.safe_norm, min_norm=1e-3), at(ordinary=ORDINARY, zeros=(0.0, 0.0))),
    ]  # fmt: skip


def _no_nan(package: str, home: str) -> list[Case]:
    """The same two functions in Distrax and in Distreqx."""
    utils = module(home)
    power, product = utils.power_no_nan, utils.multiply_no_nan
    return [
        Case(f"{package}: multiply_no_nan", f"{home}.multiply_no_nan", product, PRODUCTS),
        Case(f"{package}: power_no_nan", f"{home}.power_no_nan", power, POWERS),
        Case(f"{package}: power_no_nan, x alone", f"{home}.power_no_nan", lambda x: power(x, jnp.full_like(x, 2.0)), at(
            positive=(2.0, 0.5), zero=(0.0,), negative=(-2.0,))),
    ]  # fmt: skip


def distrax() -> list[Case]:
    mises = module("distrax._src.distributions.von_mises")
    cdf = lambda x, k: mises._von_mises_cdf(x, k, x.dtype)  # noqa: E731
    return [
        *_no_nan("distrax", "distrax._src.utils.math"),
        Case("distrax.VonMises.cdf", "distrax._src.distributions.von_mises._von_mises_cdf", cdf, pairs(
            ordinary=((0.4, -1.2), (1.5, 3.0)), near_10=((0.4,), (10.4,)), normal=((0.4,), (12.0,)), small=((0.4,),
            (0.01,)))),
    ]  # fmt: skip


def distreqx() -> list[Case]:
    return _no_nan("distreqx", "distreqx.utils.math")


def flax() -> list[Case]:
    fp8 = module("flax.linen.fp8_ops")
    dims = (((1,), (0,)), ((), ()))
    dot = partial(fp8.dot_general_with_precision, dimension_numbers=dims)
    return [
        Case("flax.linen.fp8_ops.dot_general_with_precision", "flax.linen.fp8_ops.dot_general_with_precision",
             dot, pairs(ordinary=(matrices(3, 4), matrices(4, 2)))),
        Case("flax.linen.fp8_ops.in_qdq", "flax.linen.fp8_ops.in_qdq", lambda x: fp8.in_qdq(
            jnp.float32, jnp.float8_e4m3fn, x, jnp.ones(1), jnp.zeros(4)), at(ordinary=ORDINARY),
            "a straight-through estimate"),
    ]  # fmt: skip


def ott() -> list[Case]:
    utils, roots = module("ott.math.utils"), module("ott.math.matrix_square_root")
    exact = {"threshold": 1e-12, "max_iterations": 200}
    symmetric = lambda f: lambda x: f((x + x.T) / 2, **exact)  # noqa: E731
    last = partial(utils.logsumexp, axis=-1)
    return [
        Case("ott.math.utils.norm", "ott.math.utils.norm", utils.norm, at(ordinary=ORDINARY, zeros=np.zeros(3))),
        Case("ott.math.utils.norm, axis=-1", "ott.math.utils.norm", partial(utils.norm, axis=-1), at(
            ordinary=matrices(2, 3), zero_row=[[0.0, 0.0], [3.0, 4.0]])),
        Case("ott.math.utils.logsumexp", "ott.math.utils.logsumexp", last, at(
            ordinary=matrices(2, 3), minus_inf=[[0.3, -INF, 1.0]], all_minus_inf=[[-INF, -INF]])),
        Case("ott.math.utils.logsumexp, b=", "ott.math.utils.logsumexp", lambda x, b: utils.logsumexp(x, -1, False,
            b), pairs(
            ordinary=(ORDINARY, (0.5, 1.0, 2.0, 0.3)), zero_weight=(ORDINARY, (0.5, 0.0, 2.0, 0.3)))),
        Case("ott.math.utils.logsumexp, b=, return_sign=True", "ott.math.utils.logsumexp", lambda x, b: utils.logsumexp(
            x, -1, False, b, True)[0], pairs(ordinary=(ORDINARY, (0.5, 1.0, 2.0, 0.3)), negative=(ORDINARY, (0.5,
            -1.0, -2.0, 0.3)))),
        Case("ott.math.utils.softmin, x alone", "ott.math.utils.softmin", lambda x: utils.softmin(x, 0.5, -1), at(
            ordinary=matrices(2, 3), infinite=[[0.3, INF, 1.0]])),
        Case("ott.math.utils.softmin, x and gamma", "ott.math.utils.softmin", lambda x, gamma: utils.softmin(x, gamma,
            -1), {
            "ordinary": (matrices(2, 3), np.float64(0.5))}),
        Case("ott.math.utils.lambertw", "ott.math.utils.lambertw", partial(utils.lambertw, tol=1e-15), at(
            ordinary=2.0, zero=0.0, negative=-0.3, large=1e6)),
        Case("ott.math.matrix_square_root.sqrtm_only", "ott.math.matrix_square_root.sqrtm_only",
            symmetric(roots.sqrtm_only), at(
            ordinary=positive(2)), single=False),
        Case("ott.math.matrix_square_root.inv_sqrtm_only", "ott.math.matrix_square_root.inv_sqrtm_only",
             symmetric(roots.inv_sqrtm_only), at(ordinary=positive(2)), single=False),
        Case("ott.math.matrix_square_root.sqrtm", "ott.math.matrix_square_root.sqrtm", lambda x: roots.sqrtm(
            (x + x.T) / 2, **exact)[:2], at(ordinary=positive(2)), single=False),
    ]  # fmt: skip


def numpyro() -> list[Case]:
    util = module("numpyro.distributions.util")
    dist = module("numpyro.distributions")
    power = lambda x, a: dist.DoublyTruncatedPowerLaw(a, 1.0, 5.0).log_prob(x)  # noqa: E731
    below = lambda x, a: dist.LowerTruncatedPowerLaw(a, 1.0).log_prob(x)  # noqa: E731
    return [
        Case("numpyro.distributions.util.log1mexp", "numpyro.distributions.util.log1mexp", util.log1mexp, at(
            ordinary=(-0.1, -0.693, -2.0), tiny=(-1e-12,), large=(-40.0, -800.0), zero=(0.0, -1.0), infinite=(-INF,
            -1.0))),
        Case("numpyro.distributions.util.logdiffexp", "numpyro.distributions.util.log1mexp", util.logdiffexp, pairs(
            ordinary=((1.0,), (0.3,)), minus_inf=((1.0,), (-INF,)))),
        Case("numpyro.distributions.DoublyTruncatedPowerLaw.log_prob", "", power, pairs(
            ordinary=((2.0,), (-2.5,)), alpha_minus_1=((2.0,), (-1.0,)), near_minus_1=((2.0,), (-1.0001,)),
            alpha_0=((2.0,), (0.0,)))),
        Case("numpyro.distributions.DoublyTruncatedPowerLaw.cdf", "", lambda x, a: dist.DoublyTruncatedPowerLaw(
            a, 1.0, 5.0).cdf(x), pairs(ordinary=((2.0,), (-2.5,)), alpha_minus_1=((2.0,), (-1.0,)), alpha_0=((2.0,),
            (0.0,)))),
        Case("numpyro.distributions.DoublyTruncatedPowerLaw.icdf", "", lambda q, a: dist.DoublyTruncatedPowerLaw(
            a, 1.0, 5.0).icdf(q), pairs(ordinary=((0.3,), (-2.5,)), alpha_minus_1=((0.3,), (-1.0,)), alpha_0=((0.3,),
            (0.0,)))),
        Case("numpyro.distributions.LowerTruncatedPowerLaw.log_prob", "", below, pairs(ordinary=((2.0,), (-2.5,)))),
    ]  # fmt: skip


def rlax() -> list[Case]:
    clip = module("rlax").clip_gradient
    return [
        Case(
            "rlax.clip_gradient",
            "rlax.clip_gradient",
            lambda x: clip(x, -0.1, 0.1),
            at(ordinary=ORDINARY),
            "it clips gradients",
        )
    ]


def kfac() -> list[Case]:
    sqrt = module("kfac_jax").utils.stable_sqrt
    return [
        Case(
            "kfac_jax.utils.stable_sqrt",
            "kfac_jax._src.utils.math._sqrt_bound_derivative",
            sqrt,
            at(ordinary=(0.3, 4.0)),
        )
    ]


def tfp() -> list[Case]:
    math = module("tensorflow_probability.substrates.jax").math
    return [
        Case("tfp.math.lbeta", "", math.lbeta, pairs(ordinary=((0.7, 3.0), (0.4, 5.0)), large=((1e4,), (2.0,)))),
        Case("tfp.math.log_gamma_difference", "", math.log_gamma_difference, pairs(ordinary=((0.7,), (9.0,)),
            large=((2.0,), (1e4,)))),
        Case("tfp.math.erfcx", "", math.erfcx, at(ordinary=ORDINARY, large=(30.0,), very_large=(1e9,))),
        Case("tfp.math.dawsn", "", math.dawsn, at(ordinary=ORDINARY, zero=(0.0,), very_large=(1e9,))),
        Case("tfp.math.owens_t", "", math.owens_t, pairs(ordinary=((0.5, -1.0), (1.2, 0.3)), zero_h=((0.0,), (0.5,)))),
        Case("tfp.math.lambertw", "", math.lambertw, at(ordinary=2.0, zero=0.0, negative=-0.3)),
        Case("tfp.math.log_cosh", "", math.log_cosh, at(ordinary=ORDINARY, zero=(0.0,), large=(-800.0, 800.0))),
        Case("tfp.math.bessel_ive", "", math.bessel_ive, pairs(ordinary=((0.5,), (1.2,))),
            "the derivative by v is not defined, and is given as 0"),
        Case("tfp.math.bessel_ive, z alone", "", lambda z: math.bessel_ive(jnp.asarray(1.5, z.dtype), z),
            at(ordinary=1.2, large=60.0)),
        Case("tfp.math.bessel_kve, z alone", "", lambda z: math.bessel_kve(jnp.asarray(1.5, z.dtype), z),
            at(ordinary=1.2, large=60.0)),
        Case("tfp.math.bessel_iv_ratio, z alone", "", lambda z: math.bessel_iv_ratio(jnp.asarray(1.5, z.dtype), z),
            at(ordinary=1.2)),
        Case("tfp.math.igammainv, p alone", "", lambda p: math.igammainv(jnp.asarray(1.5, p.dtype), p),
            at(ordinary=0.3)),
    ]  # fmt: skip


CASES: dict[str, tuple[str, Callable[[], list[Case]]]] = {  # the distribution: its module, and its cases
    "optax": ("optax", optax),
    "equinox": ("equinox", solver_cases.equinox),
    "distrax": ("distrax", distrax),
    "distreqx": ("distreqx", distreqx),
    "jaxopt": ("jaxopt", solver_cases.jaxopt),
    "flax": ("flax", flax),
    "ott-jax": ("ott", ott),
    "numpyro": ("numpyro", numpyro),
    "e3nn-jax": ("e3nn_jax", science_cases.e3nn),
    "jax-md": ("jax_md", science_cases.jax_md),
    "brax": ("brax", science_cases.brax),
    "folx": ("folx", science_cases.folx),
    "dynamiqs": ("dynamiqs", science_cases.dynamiqs),
    "rlax": ("rlax", rlax),
    "kfac-jax": ("kfac_jax", kfac),
    "tfp-nightly": ("tensorflow_probability.substrates.jax", tfp),
    "flash-attn-jax": ("flash_attn_jax", list),  # for GPUs
    "lineax": ("lineax", solver_cases.lineax),
    "optimistix": ("optimistix", solver_cases.optimistix),
    "diffrax": ("diffrax", solver_cases.diffrax),
}
