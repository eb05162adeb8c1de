"""Arguments for derivatives of solutions, integrals and loops; each function imports its own package."""

from functools import partial

import jax.numpy as jnp

from experiments.audit.cases import ORDINARY, SIMPLEX, Case, at, matrices, module, pairs


def equinox() -> list[Case]:
    internal, ad = module("equinox.internal"), "equinox._ad."
    loop = partial(internal.while_loop, kind="checkpointed", max_steps=8, checkpoints=3)
    power = lambda x: loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, jnp.sin(c[1]) * c[1]), (0, x))[1]  # noqa: E731
    return [
        Case("equinox.internal.nextafter", "equinox.internal._nextafter.nextafter", internal.nextafter,
            at(ordinary=ORDINARY),
             "the next number has the derivative of x"),
        Case("equinox.internal.prevbefore", "equinox.internal._nextafter.prevbefore", internal.prevbefore,
            at(ordinary=ORDINARY),
             "the number before has the derivative of x"),
        Case("equinox.internal.while_loop, checkpointed",
            "equinox.internal._loop.checkpointed._checkpointed_while_loop",
             power, at(ordinary=0.7), single=False),
        Case("equinox.debug.backward_nan", "equinox.debug._backward_nan._backward_nan", lambda x: module(
            "equinox").debug.backward_nan(x, name="x", terminate=False), at(ordinary=0.7), single=False),
        Case("equinox.error_if", "equinox._errors._error", lambda x: module("equinox").error_if(
            x, jnp.any(x > 100), "too large"), at(ordinary=ORDINARY)),
        Case("equinox.internal.nondifferentiable", f"{ad}_nondifferentiable", internal.nondifferentiable,
            at(ordinary=ORDINARY),
             "it raises if it is differentiated"),
    ]  # fmt: skip


def lineax() -> list[Case]:
    lx = module("lineax")
    norm = module("lineax._norm")

    def solve(solver, a, b):
        return lx.linear_solve(lx.MatrixLinearOperator(a), b, solver).value

    return [
        Case("lineax.internal.two_norm", "lineax._norm._two_norm", norm.two_norm, at(
            ordinary=ORDINARY, one=(-0.7,), large=(1e200, 2.0), small=(1e-200, 2e-200))),
        Case("lineax.internal.max_norm", "lineax._norm._zero_grad_at_zero", norm.max_norm, at(ordinary=ORDINARY,
            ties=(1.0, -1.0))),
        Case("lineax.linear_solve, LU", "", partial(solve, lx.LU()), pairs(ordinary=(matrices(2), (1.0, 2.0))),
            single=False),
        Case("lineax.linear_solve, QR, tall", "", lambda b: solve(lx.QR(), matrices(3, 2).astype(b.dtype), b), at(
            ordinary=(1.0, 2.0, 0.5)), single=False),
        Case("lineax.linear_solve, SVD, wide", "", partial(solve, lx.SVD()), pairs(ordinary=(matrices(1, 2), (1.0,))),
            single=False),
    ]  # fmt: skip


def optimistix() -> list[Case]:
    optx = module("optimistix")
    newton = optx.Newton(rtol=1e-13, atol=1e-13)

    def root(a):
        return optx.root_find(lambda y, a: y**3 + y - a, newton, jnp.ones_like(a), a).value

    def fixed(a):
        solver = optx.FixedPointIteration(rtol=1e-14, atol=1e-14)
        return optx.fixed_point(lambda y, a: 0.3 * jnp.cos(y) + a, solver, jnp.ones_like(a), a).value

    def least(a):
        solver = optx.LevenbergMarquardt(rtol=1e-12, atol=1e-12)
        return optx.least_squares(
            lambda y, a: jnp.stack([y - a[0], y * y - a[1]]), solver, jnp.ones_like(a[0]), a
        ).value

    rule = "optimistix._ad._implicit_impl"
    return [
        Case("optimistix.root_find", rule, root, at(ordinary=2.0, zero=0.0), single=False),
        Case("optimistix.fixed_point", rule, fixed, at(ordinary=0.4), single=False),
        Case("optimistix.least_squares", rule, least, at(ordinary=(1.2, 1.9)), single=False),
    ]


def diffrax() -> list[Case]:
    dfx = module("diffrax")

    def solve(adjoint, y, k):
        term = dfx.ODETerm(lambda t, y, k: -k * jnp.sin(y))
        steps = dfx.PIDController(rtol=1e-9, atol=1e-9)
        return dfx.diffeqsolve(term, dfx.Tsit5(), 0.0, 1.0, 0.1, y, k, stepsize_controller=steps, adjoint=adjoint,
                               max_steps=512).ys[0]  # fmt: skip

    points = pairs(ordinary=(1.0, 0.7))
    backwards, checkpoints = dfx.BacksolveAdjoint(), dfx.RecursiveCheckpointAdjoint()
    return [
        Case(
            "diffrax.BacksolveAdjoint",
            "diffrax._adjoint._loop_backsolve",
            partial(solve, backwards),
            points,
            single=False,
        ),
        Case("diffrax.RecursiveCheckpointAdjoint", "", partial(solve, checkpoints), points, single=False),
    ]


def jaxopt() -> list[Case]:
    projection, isotonic = module("jaxopt.projection"), module("jaxopt.isotonic")
    implicit = module("jaxopt.implicit_diff")

    def root(a):
        solve = implicit.custom_root(lambda x, a: x**3 + x - a)(lambda _, a: _cubic_root(a))
        return solve(None, a)

    return [
        Case("jaxopt.projection.projection_simplex", "jaxopt._src.projection._projection_unit_simplex",
             projection.projection_simplex, SIMPLEX),
        Case("jaxopt.projection.projection_sparse_simplex", "jaxopt._src.projection._projection_unit_sparse_simplex",
             partial(projection.projection_sparse_simplex, max_nz=2), at(ordinary=ORDINARY, outside=(5.0, -1.0, 0.0))),
        Case("jaxopt.isotonic.isotonic_l2_pav", "jaxopt._src.isotonic._isotonic_l2_pav", isotonic.isotonic_l2_pav, at(
            ordinary=(0.3, -0.5, 1.0, 2.0), decreasing=(3.0, 2.0, 1.0), increasing=(1.0, 2.0, 3.0))),
        Case("jaxopt.isotonic.isotonic_l2_pav, equal blocks", "jaxopt._src.isotonic._isotonic_l2_pav",
             isotonic.isotonic_l2_pav, at(two_blocks_of_mean_1=(2.0, 0.0, 2.0, 0.0))),
        Case("jaxopt.implicit_diff.custom_root", "", root, at(ordinary=(2.0, -1.0), zero=(0.0,))),
    ]  # fmt: skip


def _cubic_root(a):
    """The root of x³ + x = a, by Cardano."""
    d = jnp.sqrt(a * a / 4 + 1 / 27)
    return jnp.cbrt(a / 2 + d) + jnp.cbrt(a / 2 - d)
