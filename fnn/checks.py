"""What arguments must be: shapes, dtypes and structure, read while tracing and so free in compiled code.

Every message names the argument, what was expected, what came, and the corrected call. Values (labels in
range, finite inputs) are not looked at here: that is done once per data set, in ``fnn.data``.
"""

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fnn import activations
from fnn.dropout import Mask

GRADIENTS = ("full", "fixed")
REDUCTIONS = ("mean", "sum")


def describe(value) -> str:
    """The dtype and shape of an array, the type of anything else."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"{value.dtype} of shape {value.shape}"
    return f"{type(value).__name__} {value!r}"[:80]


def one_of(name: str, value, options: Sequence) -> None:
    if value not in options:
        choices = " or ".join(repr(option) for option in options)
        raise ValueError(f"{name}: expected {choices}, got {value!r}; write {name}={options[0]!r}")


def same_shape(value, like, name: str):
    """``value``, if it has the shape and dtype of ``like``; a user's own function may return anything."""
    if getattr(value, "shape", None) != like.shape or value.dtype != like.dtype:
        raise ValueError(f"{name}: expected {describe(like)}, got {describe(value)}; it must not change either")
    return value


def same_layer(gradient, layer):
    """``gradient``, if every leaf has the shape and dtype of the layer's; a rule of the user's may return anything."""
    for (path, got), leaf in zip(jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(layer)):
        same_shape(got, leaf, f"rules: gradient{jax.tree_util.keystr(path)}")
    return gradient


# -- init ------------------------------------------------------------------------------------------------------


def prng_key(key, name: str = "key") -> None:
    """Raise TypeError unless ``key`` is one PRNG key, new style or old."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
    raw = isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32 and key.ndim == 1
    if not (typed or raw):
        raise TypeError(f"{name}: expected one PRNG key, got {describe(key)}; write {name}=jax.random.key(0)")


def init_arguments(key, sizes, activation, output, initializer, batch_norm, dtype):
    """The normalised sizes and dtype of ``fnn.init``."""
    prng_key(key)
    try:
        sizes = tuple(operator.index(size) for size in sizes)
    except TypeError as error:
        raise TypeError(f"sizes: expected integers, got {sizes!r}; write sizes=(784, 30, 10)") from error
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes: expected two or more sizes, each >= 1, got {sizes}; write sizes=(784, 30, 10)")
    activations.check(activation, "activation")
    activations.check(output, "output")
    if not callable(initializer) or isinstance(initializer, type):
        raise TypeError(
            f"initializer: expected f(key, (n_out, n_in), dtype) -> W, got {initializer!r}; "
            "write initializer=fnn.he_normal, or another of fnn.initializers"
        )
    one_of("batch_norm", batch_norm, (None, *GRADIENTS))
    try:
        wanted = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"dtype: expected a floating dtype, got {dtype!r}; write dtype=jnp.float32") from error
    if not jnp.issubdtype(wanted, jnp.floating):
        raise TypeError(f"dtype: expected a floating dtype, got {wanted}; write dtype=jnp.float32")
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise ValueError(f"dtype: {wanted} needs x64; call jax.config.update('jax_enable_x64', True) first")
    return sizes, wanted


def initial_weights(W, shape, dtype):
    if getattr(W, "shape", None) != shape or W.dtype != dtype:
        raise ValueError(
            f"initializer: expected W of shape {shape} and dtype {dtype}, got {describe(W)}; "
            "it is called as initializer(key, (n_out, n_in), dtype)"
        )
    return W


# -- forward ---------------------------------------------------------------------------------------------------


def is_layer(layer) -> bool:
    return all(hasattr(layer, name) for name in ("W", "b", "activation", "norm"))


def layers(params) -> None:
    """Raise TypeError unless ``params`` is a sequence of layers."""
    if not isinstance(params, (tuple, list)) or not params or not all(map(is_layer, params)):
        raise TypeError(f"params: expected a tuple of fnn.Dense, got {describe(params)}; write fnn.init(key, sizes)")


def network_arguments(params, x, masks):
    """(params, x, masks) as the compiled functions take them, so that equal calls compile once."""
    layers(params)
    floating("x", x, params)
    if masks is None:
        masks = (Mask(),) * len(params)
    elif len(masks) != len(params):
        raise ValueError(f"masks: expected one Mask per layer, {len(params)}, got {len(masks)}")
    return tuple(params), x, tuple(masks)


def floating(name: str, value, params) -> None:
    """Raise TypeError unless value is an array in the parameters' dtype (before jit would truncate it silently)."""
    dtype = params[0].W.dtype
    if not isinstance(value, (jax.Array, np.ndarray)):
        raise TypeError(f"{name}: expected an array, got {describe(value)}; write jnp.asarray({name}, jnp.{dtype})")
    if value.dtype != dtype:
        pixels = " / 255 for pixels, or give fit a fnn.data.Dataset" if value.dtype == np.uint8 else ""
        raise TypeError(
            f"{name}: expected {dtype} as the parameters have, got {describe(value)}; "
            f"write {name}.astype({str(dtype)!r}){pixels}"
        )


def network(params, x, masks) -> None:
    """Raise unless the layers fit together, and x and the masks fit them; called while tracing."""
    dtype, n_in = params[0].W.dtype, params[0].W.shape[-1]
    if x.ndim not in (1, 2) or x.shape[-1] != n_in:
        raise ValueError(f"x: expected shape ({n_in},) or (B, {n_in}), got {x.shape}; write x.reshape(-1, {n_in})")
    if x.shape[0] == 0:
        raise ValueError(f"x: expected at least one example, got an empty batch of shape {x.shape}")
    batch = 1 if x.ndim == 1 else x.shape[0]
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"params[0].W: expected a floating dtype, got {dtype}; write fnn.init(key, sizes)")
    for i, (layer, mask) in enumerate(zip(params, masks)):
        _layer(f"params[{i}]", layer, n_in, dtype, batch)
        _mask(f"masks[{i}]", mask, layer.W, batch)
        n_in = layer.W.shape[0]


def _layer(name, layer, n_in, dtype, batch) -> None:
    activations.check(layer.activation, f"{name}.activation")
    if layer.W.ndim != 2 or layer.W.shape[1] != n_in:
        raise ValueError(
            f"{name}.W: expected shape (n_out, {n_in}), rows for receiving neurons, got {layer.W.shape}; "
            "write fnn.init(key, sizes), or W.T if rows and columns are exchanged"
        )
    expected = {"b": layer.b} if layer.norm is None else {
        "b": layer.b, "norm.gamma": layer.norm.gamma, "norm.beta": layer.norm.beta}  # fmt: skip
    for part, leaf in expected.items():
        if leaf.shape != layer.W.shape[:1]:
            raise ValueError(f"{name}.{part}: expected shape {layer.W.shape[:1]}, got {leaf.shape}")
    for part, leaf in {"W": layer.W, **expected}.items():
        if leaf.dtype != dtype:
            raise TypeError(f"{name}.{part}: expected {dtype} as params[0].W has, got {leaf.dtype}")
    if layer.norm is not None:
        one_of(f"{name}.norm.gradient", layer.norm.gradient, GRADIENTS)
        if batch < 2:
            raise ValueError(f"x: {name} has a batch norm, which needs at least 2 examples, got {batch}")


def _mask(name, mask, W, batch) -> None:
    if not isinstance(mask, Mask):
        raise TypeError(f"{name}: expected a fnn.Mask, got {type(mask).__name__}; write Mask(units=..., arrows=...)")
    shapes = {"units": [(batch, W.shape[1]), (1, W.shape[1])], "arrows": [W.shape]}
    for part, allowed in shapes.items():
        leaf = getattr(mask, part)
        if leaf is not None and leaf.shape not in allowed:
            raise ValueError(f"{name}.{part}: expected shape {' or '.join(map(str, allowed))}, got {leaf.shape}")
        if leaf is not None and leaf.dtype != W.dtype:
            raise TypeError(f"{name}.{part}: expected {W.dtype} as the parameters have, got {leaf.dtype}")


# -- targets ---------------------------------------------------------------------------------------------------


def target_arguments(params, y, loss) -> None:
    """Raise unless y is integer labels, or an array in the parameters' dtype; before jit would truncate it."""
    array = isinstance(y, (jax.Array, np.ndarray, np.generic))
    if not (jnp.issubdtype(y.dtype, jnp.integer) if array else type(y) is int):
        floating("y", y, params)
    elif not loss.takes_labels:
        n = params[-1].W.shape[0]
        raise TypeError(
            f"y: {loss} takes targets of shape (B, {n}), got integers, {describe(y)}; "
            f"one-hot them: jax.nn.one_hot(y, {n}), or write loss=fnn.SoftmaxCrossEntropy()"
        )


def target(y, a, loss) -> None:
    """Raise unless y has exactly the shape of a, or is one label per example; a is (B, n) or (n,)."""
    if jnp.issubdtype(y.dtype, jnp.integer):
        if a.shape[-1] == 1:
            raise ValueError(f"y: a network with one output takes y of shape {a.shape}, got labels of shape {y.shape}")
        if y.shape != a.shape[:-1]:
            raise ValueError(
                f"y: expected labels of shape {a.shape[:-1]}, got {y.shape}; write y.reshape({a.shape[:-1]}), "
                "or y.astype(x.dtype) if these are targets"
            )
    elif y.shape != a.shape:
        raise ValueError(
            f"y: expected shape {a.shape} as the network's output has, got {y.shape}; write y.reshape({a.shape})"
        )
