"""What the tests of per-example quantities and of curvature share: networks, autodiff's gradients, comparison."""

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from problems import distance

B = 7
KEY = jax.random.key(0)
SOFTMAX, SQUARED = fnn.SoftmaxCrossEntropy(), fnn.SquaredError()
CASES = {  # sizes, options of init, dropout, loss
    "plain": ((5, 4, 6, 3), {"activation": fnn.Tanh()}, None, SQUARED),
    "softmax activation": ((5, 4, 3), {"activation": fnn.Softmax()}, None, SOFTMAX),
    "stack": ((5, 4, 4, 4, 3), {"activation": fnn.Tanh(), "stack": True}, None, SOFTMAX),
    "unit masks": ((5, 4, 6, 3), {"activation": fnn.Tanh()}, fnn.Dropout((0.9, 0.5, 0.7)), SQUARED),
    "unit masks of the batch": ((5, 4, 3), {}, fnn.Dropout(0.5, inverted=True, per_example=False), SQUARED),
    "arrow masks": ((5, 4, 6, 3), {"activation": fnn.Tanh()}, fnn.DropConnect(0.6, inverted=True), SQUARED),
    "fixed batch norm": ((5, 4, 6, 3), {"activation": fnn.Tanh(), "batch_norm": "fixed"}, None, SQUARED),
    "stack with all": (
        (5, 4, 4, 4, 3), {"activation": fnn.Tanh(), "stack": True, "batch_norm": "fixed"}, fnn.Dropout(0.6), SOFTMAX,
    ),
    "stack with arrow masks": ((5, 4, 4, 4, 3), {"stack": True}, fnn.DropConnect(0.6), SQUARED),
}  # fmt: skip
FULL = {  # where no example has a gradient of its own
    "full batch norm": ((5, 4, 6, 3), {"activation": fnn.Tanh(), "batch_norm": "full"}, None, SOFTMAX),
    "stack with full batch norm": (
        (5, 4, 4, 4, 3), {"activation": fnn.Tanh(), "stack": True, "batch_norm": "full"}, fnn.DropConnect(0.6), SOFTMAX,
    ),
}  # fmt: skip
PRODUCTS = [name for name, case in CASES.items() if not isinstance(case[2], fnn.DropConnect)]


def given(name: str, dtype="float64", seed=0, batch=B):
    """params, x, y, and the keywords loss and masks."""
    sizes, options, dropout, loss = (CASES | FULL)[name]
    params = fnn.init(KEY, sizes, dtype=dtype, **options)
    random = np.random.default_rng([seed, batch])
    leaves, structure = jax.tree.flatten(params)
    moved = [leaf + jnp.asarray(0.3 * np.random.default_rng(2).normal(size=leaf.shape), dtype) for leaf in leaves]
    params = jax.tree.unflatten(structure, moved)
    x = jnp.asarray(random.normal(size=(batch, sizes[0])), dtype)
    y = jnp.asarray(random.uniform(0.1, 0.9, (batch, sizes[-1])), dtype)
    masks = None if dropout is None else fnn.sample_masks(jax.random.key(seed), params, dropout, batch)
    return params, x, y, {"loss": loss, "masks": masks}


def oracle(params, x, y, loss, masks):
    """Autodiff's gradient of every example: a pytree like params with the examples in front."""
    return jax.jacrev(lambda params: loss.value(fnn.forward(params, x, masks), y))(params)


def flat(tree, batch=B) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).reshape(batch, -1) for leaf in jax.tree.leaves(tree)], axis=1)


def assert_close(ours, theirs, tolerance=1e-12):
    for value, right in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert value.shape == right.shape
        assert distance(value, right) <= tolerance * max(1, np.linalg.norm(np.asarray(right, np.float64)))
