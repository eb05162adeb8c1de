"""What does not depend on the machine's mood: operations and temporary memory of a gradient, against jax.grad's.

Compilations are counted in ``test_backward`` and ``test_train``, a program's size against its depth in ``test_stack``.
"""

from functools import partial

import jax
import pytest

from experiments.benchmarks import memory as peers
from problems import some

NO_DERIVATIVE = ("Threshold", "Sign")  # jax.grad sees that it is 0 while it traces, and computes nothing
OPERATIONS = {"GELU": 1.1}  # of jax.grad's: erfc is computed anew on the way back; the others: 1.02
HALF = ("ReLU", "LeakyReLU", "ELU", "GELU")
MOST = dict.fromkeys(HALF, 0.6) | {"SiLU": 0.7, "GELU, approximate": 0.7}  # of jax.grad's temporary memory; others: 1


def both(name: str, depth: int, width: int, batch: int):
    """Our compiled gradient, and jax.grad's of the same network written plainly."""
    activation, value = peers.ACTIVATIONS[name]
    given = peers.problem(activation, depth, width, batch)
    ways = (peers.backprop, jax.grad(partial(peers.plain, value)))
    return tuple(jax.jit(way).lower(*given).compile() for way in ways)


@pytest.mark.parametrize("name", some([name for name in peers.ACTIVATIONS if name not in NO_DERIVATIVE], every=5))
def test_a_gradient_takes_no_more_operations_than_autodiffs(name):
    ours, theirs = (program.cost_analysis()["flops"] for program in both(name, 3, 128, 32))
    assert ours <= OPERATIONS.get(name, 1.02) * theirs


@pytest.mark.parametrize("name", some([name for name in peers.ACTIVATIONS if name not in NO_DERIVATIVE], every=4))
def test_a_gradient_of_a_wide_batch_needs_no_more_memory_than_autodiffs(name):
    ours, theirs = (program.memory_analysis().temp_size_in_bytes for program in both(name, 8, 64, 2048))
    assert ours <= 1.01 * MOST.get(name, 1) * theirs
