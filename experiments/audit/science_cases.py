"""Arguments for derivatives in packages for physics and chemistry; each function imports its own package."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.audit.cases import ORDINARY, Case, at, matrices, module, pairs

ARC = at(ordinary=(0.3, -0.8), near_one=(1 - 1e-5,))


def e3nn() -> list[Case]:
    e3nn_jax, einsum = module("e3nn_jax"), module("e3nn_jax._src.utils.einsum").einsum
    rule = "e3nn_jax._src.spherical_harmonics._custom_jvp_spherical_harmonics"
    harmonics = lambda normalize: lambda x: e3nn_jax.sh("0e + 1e + 2e + 3e", x, normalize)  # noqa: E731
    points = at(ordinary=ORDINARY[:3], axis=(0.0, 0.0, 1.0))
    return [
        Case("e3nn_jax.spherical_harmonics", rule, harmonics(False), points | at(zeros=np.zeros(3))),
        Case("e3nn_jax.spherical_harmonics, normalize=True", rule, harmonics(True), points),
        Case("e3nn_jax: einsum", "e3nn_jax._src.utils.einsum.einsum", partial(einsum, "ij,jk->ik"), pairs(
            ordinary=(matrices(2, 3), matrices(3, 2)))),
    ]  # fmt: skip


def jax_md() -> list[Case]:
    body, space = module("jax_md.rigid_body"), module("jax_md.space")
    rotation, kernels = module("jax_md._nn.uma.common.rotation"), module("jax_md._nn.uma.kernels")
    safe_sqrt = module("jax_md.mm_forcefields.reaxff.reaxff_helper").safe_sqrt
    home = "jax_md._nn.uma.common.rotation"
    sizes = np.array([2, 1, 2], np.int32)
    deliberate = "positions in fractional coordinates have real-space gradients"
    return [
        Case("jax_md.space.transform", "jax_md.space.transform", space.transform, pairs(
            ordinary=(2 * np.eye(3), matrices(4, 3))), deliberate),
        Case("jax_md.rigid_body: _quaternion_rotate", "jax_md.rigid_body._quaternion_rotate", body._quaternion_rotate,
            pairs(
            ordinary=(np.array([0.5, 0.5, -0.5, 0.5]), ORDINARY[:3])),
            "the gradient is projected on the unit quaternions"),
        Case("jax_md: safe_acos", f"{home}.safe_acos", rotation.safe_acos, ARC),
        Case("jax_md: safe_atan2", f"{home}.safe_atan2", rotation.safe_atan2, pairs(
            ordinary=((3.0,), (-4.0,)), axes=((0.0,), (2.0,)), small=((1e-5,), (-2e-5,)))),
        Case("jax_md: safe_atan2, near the origin", f"{home}.safe_atan2", rotation.safe_atan2, pairs(
            tiny=((3e-8,), (4e-8,))), "the denominator is clamped"),
        Case("jax_md: _segment_mm_2d", "jax_md._nn.uma.kernels._segment_mm_2d", lambda x, w: kernels._segment_mm_2d(
            x, w, jnp.asarray(sizes)), {"ordinary": (matrices(5, 3), np.random.default_rng(1).normal(size=(3, 2, 3)))}),
        Case("jax_md: safe_sqrt", "jax_md.mm_forcefields.reaxff.reaxff_helper.safe_sqrt", safe_sqrt, at(
            ordinary=(0.3, 4.0), tiny=(1e-12,))),
    ]  # fmt: skip


def brax() -> list[Case]:
    math = module("brax.math")
    return [
        Case("brax.math.safe_arccos", "brax.math.safe_arccos", math.safe_arccos, ARC),
        Case("brax.math.safe_arcsin", "brax.math.safe_arcsin", math.safe_arcsin, ARC),
    ]


def folx() -> list[Case]:
    slogdet, absolute = module("folx.slogdet").slogdet, module("folx.wrapped_functions").complex_abs
    return [
        Case("folx: slogdet", "folx.slogdet.slogdet", lambda x: slogdet(x)[1], at(
            ordinary=matrices(3), batch=np.stack([matrices(3), matrices(3, seed=1)]))),
        Case("folx: complex_abs", "folx.wrapped_functions.complex_abs", absolute, {
            "ordinary": (np.array([0.3 + 0.4j, -1.0 + 2j]),), "real": (np.array([0.3, -2.0]),),
            "zero": (np.zeros(1),)}),
    ]  # fmt: skip


def dynamiqs() -> list[Case]:
    home = "dynamiqs.integrators.core.low_rank_integrator"
    solver = module(home)
    stopped = jax.lax.stop_gradient
    points = pairs(square=(matrices(3), matrices(3, 2, 1)), tall=(matrices(5, 3), matrices(5, 2, 1)))
    return [
        Case("dynamiqs: _cholesky_solve_cached", f"{home}._cholesky_solve_cached", lambda a, b: (
            solver._cholesky_solve_cached(a, jnp.linalg.pinv(a), b)), points),
        Case("dynamiqs: _qr_solve_cached", f"{home}._qr_solve_cached", lambda a, b: (
            solver._qr_solve_cached(a, tuple(map(stopped, jnp.linalg.qr(a))), b)), points),
    ]  # fmt: skip
