"""Functions with a derivative of their own, for the tests of verify.custom_vjp."""

import jax
import numpy as np

random = np.random.default_rng(11)


def normal(*shape):
    return random.normal(size=shape)


def between(*shape):
    return random.uniform(0.2, 0.8, shape)


def with_vjp(f, bwd, **options):
    """f with the pull-back bwd(args, y_bar), under jax.custom_vjp."""
    g = jax.custom_vjp(f, **options)
    g.defvjp(lambda *args: (f(*args), args), bwd)
    return g


def with_jvp(f, jvp):
    """f with the push-forward jvp(args, tangents) of its value alone, under jax.custom_jvp."""
    g = jax.custom_jvp(f)
    g.defjvp(lambda args, tangents: (f(*args), jvp(args, tangents)))
    return g


def named(report):
    return {finding.name.split(", cotangent")[0] for finding in report.wrong}


def note(report):
    return " ".join(report.notes)
