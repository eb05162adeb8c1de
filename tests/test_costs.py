"""What does not depend on the machine's mood: operations and temporary memory of a gradient, against jax.grad's.

Compilations are counted in ``test_backward`` and ``test_train``, a program's size against its depth in ``test_stack``.
"""

from functools import cache, partial

import jax
import jaxlib
import pytest

from experiments.benchmarks import memory as peers
from problems import and_slow

DEPTH, WIDTH, BATCH = 4, 128, 2048
NO_DERIVATIVE = ("Threshold", "Sign")  # jax.grad sees that it is 0 while it traces, and computes nothing
OPERATIONS = {"GELU": 1.1}  # of jax.grad's: erfc is computed anew on the way back; the others: 1.02
HALF = ("ReLU", "LeakyReLU", "ELU", "GELU")
MOST = dict.fromkeys(HALF, 0.6) | {"SiLU": 0.7, "GELU, approximate": 0.7}  # of jax.grad's temporary memory; others: 1
if not jaxlib.__version__.startswith("0.10."):  # 0.68 with 0.12: there jax.grad's keeps less
    MOST["GELU"] = 0.7
KINDS = ("Tanh", "GELU", "ReLU", "Softmax")  # smooth, read from z, with a kink, not elementwise

every_activation = pytest.mark.parametrize(
    "name", and_slow(KINDS, [a for a in peers.ACTIVATIONS if a not in NO_DERIVATIVE])
)


@cache
def both(name: str):
    """Our compiled gradient, and jax.grad's of the same network written plainly."""
    activation, value = peers.ACTIVATIONS[name]
    given = jax.eval_shape(partial(peers.problem, activation, DEPTH, WIDTH, BATCH))
    ways = (peers.backprop, jax.grad(partial(peers.plain, value)))
    return tuple(jax.jit(way).lower(*given).compile() for way in ways)


@every_activation
def test_a_gradient_takes_no_more_operations_than_autodiffs(name):
    ours, theirs = (program.cost_analysis()["flops"] for program in both(name))
    assert ours <= OPERATIONS.get(name, 1.02) * theirs


@every_activation
def test_a_gradient_of_a_wide_batch_needs_no_more_memory_than_autodiffs(name):
    ours, theirs = (program.memory_analysis().temp_size_in_bytes for program in both(name))
    assert ours <= 1.01 * MOST.get(name, 1) * theirs
