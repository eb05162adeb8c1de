"""What the tests of per-example quantities and of curvature share: networks, autodiff's gradients, comparison."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import fnn
from problems import distance

B = 7
KEY = jax.random.key(0)
SOFTMAX, SQUARED, TANH = fnn.SoftmaxCrossEntropy(), fnn.SquaredError(), {"activation": fnn.Tanh()}
CASES = {  # sizes, options of init, which masks there are, loss
    "stack with all": (
        (5, 4, 4, 4, 3), {"stack": True, "batch_norm": "fixed"} | TANH, fnn.Dropout(0.6), SOFTMAX,
    ),
    "arrow masks": ((5, 4, 6, 3), TANH, fnn.DropConnect(0.6, inverted=True), SQUARED),
    "plain": ((5, 4, 6, 3), TANH, None, SQUARED),
    "softmax activation": ((5, 4, 3), {"activation": fnn.Softmax()}, None, SOFTMAX),
    "stack": ((5, 4, 4, 4, 3), {"stack": True} | TANH, None, SOFTMAX),
    "unit masks": ((5, 4, 6, 3), TANH, fnn.Dropout((0.9, 0.5, 0.7)), SQUARED),
    "unit masks of the batch": ((5, 4, 3), {}, fnn.Dropout(0.5, inverted=True, per_example=False), SQUARED),
    "fixed batch norm": ((5, 4, 6, 3), {"batch_norm": "fixed"} | TANH, None, SQUARED),
    "stack with arrow masks": ((5, 4, 4, 4, 3), {"stack": True}, fnn.DropConnect(0.6), SQUARED),
}  # fmt: skip
ESSENTIAL = ["stack with all", "arrow masks"]  # a batch norm, units' masks and a loop between two layers; arrows' masks
FULL = {  # where no example has a gradient of its own
    "stack with full batch norm": (
        (5, 4, 4, 4, 3), {"stack": True, "batch_norm": "full"} | TANH, fnn.DropConnect(0.6), SOFTMAX,
    ),
    "full batch norm": ((5, 4, 6, 3), {"batch_norm": "full"} | TANH, None, SOFTMAX),
}  # fmt: skip
LITTLE = {  # for what is the same for all, compiled in less time
    "two layers": ((5, 4, 3), TANH, None, SQUARED),
    "a matrix": ((16, 17, 3), TANH, None, SQUARED),  # as a graph too
}
PRODUCTS = [name for name, case in CASES.items() if not isinstance(case[2], fnn.DropConnect)]


def given(name: str, dtype="float64", seed=0, batch=B):
    """params, x, y, and the keywords loss and masks; in float32 the same numbers, rounded."""
    sizes, options, dropout, loss = (CASES | FULL | LITTLE)[name]
    like = jax.eval_shape(partial(fnn.init, sizes=sizes, **options), KEY)
    masks_like = dropout and jax.eval_shape(partial(fnn.sample_masks, params=like, dropout=dropout, batch=batch), KEY)
    of_params, random = np.random.default_rng(2), np.random.default_rng([seed, batch])

    def array(values):
        return jax.device_put(np.asarray(values, dtype))

    def parameter(leaf):
        return array(of_params.normal(size=leaf.shape) / np.sqrt(leaf.shape[-1]))

    def mask(leaf):  # some are 0, and the others not 1
        return array(random.choice([0, 0.5, 1.5], leaf.shape, p=[0.2, 0.4, 0.4]))

    x, y = random.normal(size=(batch, sizes[0])), random.uniform(0.1, 0.9, (batch, sizes[-1]))
    masks = jax.tree.map(mask, masks_like)
    return jax.tree.map(parameter, like), array(x), array(y), {"loss": loss, "masks": masks}


def oracle(params, x, y, loss, masks):
    """Autodiff's gradient of every example: a pytree like params with the examples in front."""
    return jax.jacrev(lambda params: loss.value(fnn.forward(params, x, masks), y))(params)


def along(params, seed=5):
    """A random direction."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jax.device_put(np.asarray(random.normal(size=leaf.shape), leaf.dtype)), params)


def objective(x, y, loss, masks=None, reduction="mean"):
    return lambda params: getattr(jnp, reduction)(loss.value(fnn.forward(params, x, masks), y))


def dense_hessian(params, x, y, loss):
    flat, back = ravel_pytree(params)
    return jax.hessian(lambda flat: objective(x, y, loss)(back(flat)))(flat)


def dense_gauss_newton(outputs, params, y, loss):
    """From autodiff's Jacobian J of ``outputs(params)``, (B, n): the Gauss–Newton matrix Jᵀ (∂²L/∂a²) J / B, and the
    mean square of every entry of the examples' gradients, for the flattened parameters."""
    flat, back = ravel_pytree(params)

    def of_one(a, y):
        return loss.value(a[None], y[None])[0]

    J, a = jax.jacrev(lambda flat: outputs(back(flat)))(flat), outputs(params)
    G = jnp.einsum("bot,bop,bpu->tu", J, jax.vmap(jax.hessian(of_one))(a, y), J) / len(y)
    return G, jnp.mean(jnp.einsum("bot,bo->bt", J, jax.vmap(jax.grad(of_one))(a, y)) ** 2, axis=0)


def flat(tree, batch=B) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).reshape(batch, -1) for leaf in jax.tree.leaves(tree)], axis=1)


def assert_close(ours, theirs, tolerance=1e-12):
    for value, right in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert value.shape == right.shape
        assert distance(value, right) <= tolerance * max(1, np.linalg.norm(np.asarray(right, np.float64)))
