"""What arguments must be: shapes, dtypes and structure, read while tracing and so free in compiled code.

Every message names the argument, what was expected, what came, and the corrected call. Values (labels in
range, finite inputs) are not looked at here: that is done once per data set, in ``fnn.data``.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.activations import Activation
from fnn.dropout import Mask
from fnn.losses import Loss
from fnn.numbers import floating_dtype, layer_sizes, number

GRADIENTS = ("full", "fixed")
REDUCTIONS = ("mean", "sum")


def describe(value) -> str:
    """The dtype and shape of an array, the type of anything else."""
    if isinstance(value, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)):
        return f"{value.dtype} of shape {value.shape}"
    return f"{type(value).__name__} {value!r}"[:80]


def one_of(name: str, value, options: Sequence) -> None:
    if value not in options:
        choices = " or ".join(repr(option) for option in options)
        raise ValueError(f"{name}: expected {choices}, got {value!r}; write {name}={options[0]!r}")


def activation_like(activation, name: str) -> None:
    """Raise TypeError unless ``activation`` is a hashable object with the methods of an activation."""
    _made_of(activation, name, ("value", "pullback"), "an activation such as fnn.Sigmoid()", Activation)


def loss_like(loss, name: str = "loss") -> None:
    """Raise TypeError unless ``loss`` is a hashable object with the methods of a loss."""
    _made_of(loss, name, ("value", "delta"), "a loss such as fnn.SquaredError()", Loss)


def _made_of(value, name: str, methods: Sequence[str], expected: str, base: Any) -> None:
    made = not isinstance(value, type) and all(hasattr(value, method) for method in methods)
    if not made or getattr(value, "__hash__", None) is None:
        known = " ".join(sorted(cls.__name__ for cls in base.__subclasses__() if cls.__module__.startswith("fnn.")))
        raise TypeError(f"{name}: expected {expected}, got {value!r}; there are {known}")


def same_shape(value, like, name: str):
    """``value``, if it has the shape and dtype of ``like``; a user's own function may return anything."""
    if getattr(value, "shape", None) != like.shape or value.dtype != like.dtype:
        raise ValueError(f"{name}: expected {describe(like)}, got {describe(value)}")
    return value


def loss_values(loss, a, y):
    """The loss of every example, (B,), if it has that shape and the dtype of the outputs a (B, n)."""
    return same_shape(loss.value(a, y), a[:, 0], f"{loss}.value(a, y)")


def _like(array, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, array.dtype)


RESULTS: dict[str, Callable] = {  # what each rule's results must be like, from its arguments
    "output_delta": lambda loss, activation, z, a, y: (z,),
    "input_gradient": lambda delta, W, mask: (_like(delta, delta.shape[0], W.shape[1]),),
    "hidden_delta": lambda g, activation, z, a: (z,),
    "norm_pullback": lambda norm, psi, delta_z: (psi, norm.gamma, norm.beta),
    "weight_gradient": lambda delta, a_in, mask: (_like(delta, delta.shape[1], a_in.shape[1]),),
    "bias_gradient": lambda delta: (_like(delta, delta.shape[1]),),
}


def exact(rules):
    """The same rules, each raising ValueError while tracing unless its results have the shapes and dtypes they must."""

    def checked(name, rule):
        if not callable(rule):
            raise TypeError(f"rules.{name}: expected a function, got {rule!r}; write RULES._replace({name}=...)")

        def run(*args):
            result, wanted = rule(*args), RESULTS[name](*args)
            got = result if name == "norm_pullback" else (result,)
            if not isinstance(got, (tuple, list)) or len(got) != len(wanted):
                raise ValueError(f"rules.{name}: expected {len(wanted)} arrays, got {describe(got)}")
            for value, like in zip(got, wanted):
                same_shape(value, like, f"rules.{name}")
            return result

        return run

    return type(rules)(*(checked(name, rule) for name, rule in zip(rules._fields, rules)))


# -- init ------------------------------------------------------------------------------------------------------


def prng_key(key, name: str = "key") -> None:
    """Raise TypeError unless ``key`` is one PRNG key, new style or old."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
    raw = isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32 and key.ndim == 1
    if not (typed or raw):
        raise TypeError(f"{name}: expected one PRNG key, got {describe(key)}; write {name}=jax.random.key(0)")


def init_arguments(key, sizes, activation, output, initializer, batch_norm, stack, dtype):
    """The normalised sizes and dtype of ``fnn.init``."""
    prng_key(key)
    sizes = layer_sizes(sizes)
    activation_like(activation, "activation")
    activation_like(output, "output")
    if not callable(initializer) or isinstance(initializer, type):
        raise TypeError(
            f"initializer: expected f(key, (n_out, n_in), dtype) -> W, got {initializer!r}; "
            "write initializer=fnn.he_normal, or another of fnn.initializers"
        )
    one_of("batch_norm", batch_norm, (None, *GRADIENTS))
    one_of("stack", stack, (False, True))
    return sizes, floating_dtype(dtype)


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


def stacked(layer) -> bool:
    """Whether a layer is a run of layers, with a leading axis."""
    return getattr(layer, "stacked", False)


def layers(params) -> None:
    """Raise unless ``params`` is a sequence of layers whose leaves are arrays that jit will not truncate."""
    if not isinstance(params, (tuple, list)) or not params or not all(map(is_layer, params)):
        raise TypeError(f"params: expected a tuple of fnn.Dense, got {describe(params)}; write fnn.init(key, sizes)")
    for i, layer in enumerate(params):
        if layer.norm is not None and not (hasattr(layer.norm, "gamma") and hasattr(layer.norm, "beta")):
            raise TypeError(f"params[{i}].norm: expected a fnn.BatchNorm or None, got {describe(layer.norm)}")
        for name, leaf in leaves(layer).items():
            array(f"params[{i}].{name}", leaf)
        if layer.W.ndim != 2 + stacked(layer):
            shape = "(D, n, n)" if stacked(layer) else "(n_out, n_in)"
            raise ValueError(f"params[{i}].W: expected shape {shape}, got {layer.W.shape}")
    for i in {0, len(params) - 1}:
        if stacked(params[i]):
            raise ValueError(f"params[{i}]: expected a fnn.Dense first and last, got a stack; write fnn.stack(layers)")


def leaves(layer) -> dict:
    """The leaves of a layer by name."""
    norm = {} if layer.norm is None else {"norm.gamma": layer.norm.gamma, "norm.beta": layer.norm.beta}
    return {"W": layer.W, "b": layer.b, **norm}


def array(name: str, leaf) -> None:
    """Raise TypeError unless ``leaf`` is an array of a dtype that is in use."""
    if not isinstance(leaf, (jax.Array, np.ndarray)):
        raise TypeError(f"{name}: expected an array, got {describe(leaf)}; write jnp.asarray(...)")
    if isinstance(leaf, np.ndarray) and jax.dtypes.canonicalize_dtype(leaf.dtype) != leaf.dtype:
        raise TypeError(
            f"{name}: expected {jax.dtypes.canonicalize_dtype(leaf.dtype)}, for x64 is off, got {describe(leaf)}; "
            "write .astype('float32'), or call jax.config.update('jax_enable_x64', True) first"
        )


def network_arguments(params, x, masks):
    """(params, x, masks) as the compiled functions take them, so that equal calls compile once."""
    layers(params)
    floating("x", x, params)
    if masks is None:
        masks = (Mask(),) * len(params)
    elif isinstance(masks, Mask) or not isinstance(masks, (tuple, list)) or len(masks) != len(params):
        got = len(masks) if isinstance(masks, (tuple, list)) and not isinstance(masks, Mask) else describe(masks)
        raise (ValueError if isinstance(got, int) else TypeError)(
            f"masks: expected one Mask per layer, {len(params)}, got {got}"
        )
    for i, of_layer in enumerate(masks):
        mask_argument(f"masks[{i}]", of_layer)
    return tuple(params), x, tuple(masks)


def mask_argument(name: str, mask) -> None:
    """Raise TypeError unless ``mask`` is a Mask of arrays."""
    if not isinstance(mask, Mask):
        raise TypeError(f"{name}: expected a fnn.Mask, got {describe(mask)}; write Mask(units=..., arrows=...)")
    for part, leaf in mask._asdict().items():
        if leaf is not None:
            array(f"{name}.{part}", leaf)


class Ports(NamedTuple):
    """What goes into a network and comes out of it."""

    dtype: Any
    n_in: int
    n_out: int


def ports(params) -> Ports:
    """The ports of layers, or those that other parameters tell of themselves."""
    if hasattr(params, "ports"):
        return params.ports
    return Ports(params[0].W.dtype, params[0].W.shape[-1], params[-1].W.shape[-2])


def floating(name: str, value, params) -> None:
    """Raise TypeError unless value is an array in the parameters' dtype (before jit would truncate it silently)."""
    dtype = ports(params).dtype
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
    dtype, n_in, _ = ports(params)
    batch = examples(x, n_in)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"params[0].W: expected a floating dtype, got {dtype}; write fnn.init(key, sizes)")
    for i, (layer, of_layer) in enumerate(zip(params, masks)):
        _layer(f"params[{i}]", layer, n_in, dtype, batch)
        mask_shapes(f"masks[{i}]", of_layer, n_in, layer.W.shape, dtype, batch)
        n_in = layer.W.shape[-2]


def examples(x, n_in: int) -> int:
    """The number of examples in x; raises ValueError unless it is (n_in,) or (B, n_in)."""
    if x.ndim not in (1, 2) or x.shape[-1] != n_in:
        raise ValueError(f"x: expected shape ({n_in},) or (B, {n_in}), got {x.shape}; write x.reshape(-1, {n_in})")
    if x.shape[0] == 0:
        raise ValueError(f"x: expected at least one example, got an empty batch of shape {x.shape}")
    return 1 if x.ndim == 1 else x.shape[0]


def _layer(name, layer, n_in, dtype, batch) -> None:
    activation_like(layer.activation, f"{name}.activation")
    *run, n_out, columns = layer.W.shape  # run: (D,) of a stack
    if len(run) != stacked(layer) or columns != n_in or (run and n_out != n_in):
        shape = f"(D, {n_in}, {n_in})" if stacked(layer) else f"(n_out, {n_in})"
        raise ValueError(
            f"{name}.W: expected shape {shape}, rows for receiving neurons, got {layer.W.shape}; "
            "write fnn.init(key, sizes), or W.T if rows and columns are exchanged"
        )
    for part, leaf in leaves(layer).items():
        if part != "W" and leaf.shape != (*run, n_out):
            raise ValueError(f"{name}.{part}: expected shape {(*run, n_out)}, got {leaf.shape}")
        if leaf.dtype != dtype:
            raise TypeError(f"{name}.{part}: expected {dtype} as params[0].W has, got {leaf.dtype}")
    if layer.norm is not None:
        one_of(f"{name}.norm.gradient", layer.norm.gradient, GRADIENTS)
        number("BatchNorm", f"{name}.norm.eps", layer.norm.eps, above=0)
        if whole_batch(layer.norm, batch) < 2:
            raise ValueError(f"x: {name} has a batch norm, which needs at least 2 examples, got {batch}")


def whole_batch(norm, rows: int) -> int:
    """The number of examples in a mini-batch of which ``rows`` are here: see ``BatchNorm.axis``."""
    if norm.axis is None:
        return rows
    try:
        return rows * jax.lax.axis_size(norm.axis)
    except NameError as error:
        raise ValueError(f"BatchNorm.axis: there is no mesh axis {norm.axis!r} here; write axis=None") from error


def mask_shapes(name: str, mask: Mask, units: int, arrows: tuple[int, ...], dtype, batch: int) -> None:
    """Raise unless the mask's units are (batch, units) or (1, units) and its arrows like W; (D, …) for a stack."""
    run = arrows[:-2]
    shapes = {"units": [(*run, batch, units), (*run, 1, units)], "arrows": [arrows]}
    for part, allowed in shapes.items():
        leaf = getattr(mask, part)
        if leaf is not None and leaf.shape not in allowed:
            raise ValueError(f"{name}.{part}: expected shape {' or '.join(map(str, allowed))}, got {leaf.shape}")
        if leaf is not None and leaf.dtype != dtype:
            raise TypeError(f"{name}.{part}: expected {dtype} as the parameters have, got {leaf.dtype}")


# -- targets ---------------------------------------------------------------------------------------------------


def target_arguments(params, y, loss, name: str = "y") -> None:
    """Raise unless loss is one and y integer labels, or in the parameters' dtype; before jit would truncate it."""
    loss_like(loss)
    array = isinstance(y, (jax.Array, np.ndarray, np.generic))
    if not (jnp.issubdtype(y.dtype, jnp.integer) if array else type(y) is int):
        floating(name, y, params)
    elif not loss.takes_labels:
        n = ports(params).n_out
        raise TypeError(
            f"{name}: {loss} takes targets of shape (B, {n}), got integers, {describe(y)}; "
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
