"""Checks on the second of two devices, and prints where what was computed: test_verify_devices.py runs it."""

import json
from collections import defaultdict

import jax
import jax.numpy as jnp

import fnn
from fnn import verify
from fnn.verify import graphs, interpret

FIRST, SECOND = jax.devices()[0], jax.devices()[-1]  # one and the same where this file is only imported
W = jnp.arange(1.0, 4.0)


def devices_of(tree) -> set[int]:
    return {device.id for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array) for device in leaf.devices()}


def watched(seen, name, function):
    """The function, whose values' devices are added to ``seen``; those that JAX only traces have none."""

    def call(*args, **options):
        found = function(*args, **options)
        if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(found)):
            seen[name(*args)] |= devices_of(found)
        return found

    return call


def cumulated(delta):
    """Σ of the rows, by an operation that NumPy has no table entry for."""
    return jax.lax.cumlogsumexp(delta)[-1] * 0 + delta.sum(axis=0)


@jax.custom_vjp
def sorted_squares(w):
    return jnp.sort(w) ** 2


def backward(w, y_bar):
    return (2 * w * y_bar + 0 * jax.lax.cumlogsumexp(w),)


sorted_squares.defvjp(lambda w: (jnp.sort(w) ** 2, w), backward)  # W is in order


def a_kernel(seen):
    """A kernel and its reference, which say on which device they are compiled."""

    def at(name, w):
        seen[name].add(getattr(jax.config.values["jax_default_device"], "id", None))
        return (w**2).sum()

    kernel = jax.custom_vjp(lambda w: at("kernel", w))
    kernel.defvjp(lambda w: (at("kernel", w), w), lambda w, y_bar: (2 * w * y_bar,))
    return kernel, lambda w: at("reference", w)


def main() -> None:
    seen: dict[str, set] = defaultdict(set)
    interpret.bound = watched(seen, lambda equation, _: equation.primitive.name, interpret.bound)
    for name in ("_oracle", "_by_hand"):
        setattr(graphs, name, watched(seen, lambda *_, name=name: name, getattr(graphs, name)))
    params = fnn.init(jax.random.key(0), (3, 4, 2), activation=fnn.Tanh())
    graph = fnn.graph.Graph([("x", "h"), ("h", "y")], fnn.Tanh(), inputs=["x"], outputs=["y"])
    kernel, reference = a_kernel(seen)
    with jax.default_device(SECOND):
        committed = jax.device_put(W, SECOND)
        reports = [
            verify.network(params, rules=fnn.RULES._replace(bias_gradient=cumulated)),
            verify.network(graph.init(jax.random.key(0))),
            verify.gradient(lambda w: backward(w, 1.0)[0], lambda w: (jnp.sort(w) ** 2).sum(), committed),
            verify.custom_vjp(sorted_squares, committed),
            verify.stages([verify.Stage("sort", lambda _, w: jnp.sort(w) ** 2,
                                        lambda _, w, y, y_bar: ((), backward(w, y_bar)[0]))], committed),
            verify.custom_vjp(kernel, committed, oracle=reference),
        ]  # fmt: skip
        after = devices_of(jnp.ones(2))
    found = {name: sorted(devices, key=str) for name, devices in seen.items()}
    print(json.dumps({"ok": [report.ok for report in reports], "seen": found, "after": sorted(after)}))


if __name__ == "__main__":
    main()
