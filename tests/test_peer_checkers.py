"""The mistakes of ``mutants`` as other checkers see them, in float64, where finite differences see best."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import fnn
from mutants import MUTANTS, Mutant
from test_mutations import sample


def in_float64(mutant):
    """The parameters, and x and y, of a mutant."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (mutant.params, *sample(mutant)))


@partial(jax.jit, static_argnames="loss")  # one program for all mistakes in the rules, which the cost does not use
def cost_of(params, x, y, *, loss):
    return loss.value(fnn.forward(params, x), y).mean()


def cost_and_gradient(mutant):
    """The cost as a function of the parameters' leaves, and its gradient as the mutant has it, both compiled."""
    params, x, y = in_float64(mutant)
    leaves, structure = jax.tree.flatten(params)

    def cost(*leaves):
        return cost_of(jax.tree.unflatten(structure, leaves), x, y, loss=mutant.loss)

    def gradient(*leaves):
        made = jax.tree.unflatten(structure, leaves)
        return jax.tree.leaves(fnn.backprop(made, x, y, loss=mutant.loss, rules=mutant.rules))

    return leaves, cost, jax.jit(gradient)


def passes_check_grads(mutant) -> bool:
    leaves, cost, gradient = cost_and_gradient(mutant)
    checked = jax.custom_vjp(cost)
    checked.defvjp(
        lambda *leaves: (cost(*leaves), leaves), lambda leaves, bar: tuple(bar * g for g in gradient(*leaves))
    )
    try:
        check_grads(checked, tuple(leaves), order=1, modes=["rev"])
    except Exception:
        return False
    return True


def passes_gradcheck(mutant) -> bool:
    torch = pytest.importorskip("torch")
    leaves, cost, gradient = cost_and_gradient(mutant)

    class Cost(torch.autograd.Function):
        @staticmethod
        def forward(context, *tensors):
            context.save_for_backward(*tensors)
            return torch.tensor(float(cost(*(t.detach().numpy() for t in tensors))), dtype=torch.float64)

        @staticmethod
        def backward(context, bar):
            found = gradient(*(t.detach().numpy() for t in context.saved_tensors))
            return tuple(bar * torch.tensor(np.array(g)) for g in found)

    tensors = tuple(torch.tensor(np.array(leaf), requires_grad=True) for leaf in leaves)
    try:
        torch.autograd.gradcheck(Cost.apply, tensors)
    except Exception:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("passes", [passes_check_grads, passes_gradcheck])
def test_how_many_mistakes_a_peer_notices_in_float64(passes, x64, capsys):
    """Of the gradient of a cost as a whole; run with -n 0 to see the figures."""
    assert passes(Mutant("none", frozenset()))
    missed = [mutant.name for mutant in MUTANTS if passes(mutant)]
    with capsys.disabled():
        print(f"\n{passes.__name__}: {len(MUTANTS) - len(missed)} of {len(MUTANTS)} noticed; not: {', '.join(missed)}")
    assert len(missed) < len(MUTANTS)
