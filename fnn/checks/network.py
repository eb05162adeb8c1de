"""Parameters, inputs, masks and rules: shapes, dtypes and structure, checked at trace time and so free at run time.

Values (labels in range, finite inputs) are not checked here, but once per data set, in ``fnn.data``.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.activations import Activation, PerNeuron
from fnn.checks.arrays import array, describe, native, one_of, plain, prng_key, same_shape, unmasked
from fnn.masks import Mask
from fnn.numbers import floating_dtype, layer_sizes, number

GRADIENTS = ("full", "fixed")
REDUCTIONS = ("mean", "sum")


def activation_like(activation, name: str) -> None:
    """Raise TypeError unless ``activation`` is a hashable object with the methods of an activation."""
    made_of(activation, name, ("value", "pullback"), "an activation such as fnn.Sigmoid()", Activation)


def made_of(value, name: str, methods: Sequence[str], expected: str, base: Any) -> None:
    made = not isinstance(value, type) and all(hasattr(value, method) for method in methods)
    if not made or getattr(value, "__hash__", None) is None:
        known = " ".join(sorted(cls.__name__ for cls in base.__subclasses__() if cls.__module__.startswith("fnn.")))
        raise TypeError(f"{name}: expected {expected}, got {value!r}; there are {known}")


def _like(array, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, array.dtype)


RESULTS: dict[str, Callable] = {  # the required form of each rule's results, from its arguments
    "affine": lambda a_in, W, b: (_like(a_in, a_in.shape[0], W.shape[0]),),
    "normalise": lambda norm, psi: (psi,),
    "output_delta": lambda loss, activation, z, a, y: (z,),
    "input_gradient": lambda delta, W, mask: (_like(delta, delta.shape[0], W.shape[1]),),
    "hidden_delta": lambda g, activation, z, a: (z,),
    "norm_pullback": lambda norm, psi, delta_z: (psi, norm.gamma, norm.beta),
    "weight_gradient": lambda delta, a_in, mask: (_like(delta, delta.shape[1], a_in.shape[1]),),
    "bias_gradient": lambda delta: (_like(delta, delta.shape[1]),),
}


def exact(rules):
    """The same rules, each raising ValueError at trace time if its results have the wrong shape or dtype."""

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


def init_arguments(key, sizes, activation, output, initializer, batch_norm, stack, dtype):
    """The normalised sizes, activations and dtype of ``fnn.init``."""
    prng_key(key)
    sizes = layer_sizes(sizes)
    hidden = len(sizes) - 2
    several = isinstance(activation, (tuple, list))
    activations = tuple(activation) if several else (activation,) * hidden
    for i, one in enumerate(activations if several else (activation,)):
        activation_like(one, f"activation[{i}]" if several else "activation")
    if len(activations) != hidden:
        raise ValueError(
            f"activation: expected one, or one per hidden layer, {hidden}, got {len(activations)}; for one per neuron "
            "write fnn.PerNeuron(activations)"
        )
    activation_like(output, "output")
    if not callable(initializer) or isinstance(initializer, type):
        raise TypeError(
            f"initializer: expected f(key, (n_out, n_in), dtype) -> W, got {initializer!r}; "
            "write initializer=fnn.initializers.he_normal, for example"
        )
    one_of("batch_norm", batch_norm, (None, *GRADIENTS))
    one_of("stack", stack, (False, True))
    return sizes, activations, floating_dtype(dtype)


def initial_weights(W, shape, dtype):
    if getattr(W, "shape", None) != shape or W.dtype != dtype:
        raise ValueError(
            f"initializer: expected W of shape {shape} and dtype {dtype}, got {describe(W)}; "
            "it is called as initializer(key, (n_out, n_in), dtype)"
        )
    return W


def is_layer(layer) -> bool:
    return all(hasattr(layer, name) for name in ("W", "b", "activation", "norm"))


def stacked(layer) -> bool:
    """Whether an entry is a run of layers, with a leading axis."""
    return getattr(layer, "stacked", False)


def layers(params) -> None:
    """Raise unless ``params`` is a sequence of layers whose leaves are arrays that jit will not truncate."""
    if not isinstance(params, (tuple, list)) or not params or not all(map(is_layer, params)):
        network = hasattr(params, "network")
        raise TypeError(
            f"params: expected a tuple of fnn.Dense, got {describe(params)}; write "
            + ("run.network" if network else "fnn.init(key, sizes), or graph.init(key) for a graph")
        )
    for i, layer in enumerate(params):
        if layer.norm is not None and not (hasattr(layer.norm, "gamma") and hasattr(layer.norm, "beta")):
            raise TypeError(f"params[{i}].norm: expected a fnn.BatchNorm or None, got {describe(layer.norm)}")
        for name, leaf in leaves(layer).items():
            array(f"params[{i}].{name}", leaf)
        if layer.W.ndim != 2 + stacked(layer):
            shape = "(D, n, n)" if stacked(layer) else "(n_out, n_in)"
            raise ValueError(f"params[{i}].W: expected shape {shape}, got {layer.W.shape}")
        n_in = params[i - 1].W.shape[-2] if i else None
        if not stacked(layer) and swapped(layer.W.shape, layer.b.shape, n_in):
            n_out, n_in = layer.W.shape[::-1]
            raise ValueError(
                f"params[{i}].W: expected shape {(n_out, n_in)}, rows for receiving neurons, got {layer.W.shape} with "
                f"b of shape {layer.b.shape}; write W.T, because rows and columns are swapped"
            )
    for i in {0, len(params) - 1}:
        if stacked(params[i]):
            raise ValueError(f"params[{i}]: expected a fnn.Dense first and last, got a stack; write fnn.stack(layers)")


def swapped(W: tuple[int, ...], b: tuple[int, ...], n_in: int | None) -> bool:
    """Whether W has the shape (n_in, n_out), where b has (n_out,); n_in: of the layer before, None if unknown."""
    rows, columns = W
    return rows != columns and b == (columns,) and n_in in (None, rows)


def leaves(layer) -> dict:
    """The leaves of a layer, by name."""
    norm = {} if layer.norm is None else {"norm.gamma": layer.norm.gamma, "norm.beta": layer.norm.beta}
    return {"W": layer.W, "b": layer.b, **norm}


def network_arguments(params, x, masks, rules=None) -> tuple:
    """(params, x, masks) in the form that the compiled functions take, so that equal calls compile once.

    If every leaf is a JAX array, jit hides nothing, and :func:`network` checks the rest.
    """
    if (
        type(params) is tuple
        and isinstance(x, jax.Array)
        and plain((params, masks))
        and not isinstance(masks, jax.Array)
        and all(map(_hashable, params))
    ):
        return params, x, (Mask(),) * len(params) if masks is None else masks
    return careful_arguments(params, x, masks)


def _hashable(layer) -> bool:
    return getattr(getattr(layer, "activation", None), "__hash__", None) is not None


def careful_arguments(params, x, masks) -> tuple:
    """The same, checking every argument."""
    layers(params)
    params, x, masks = native((params, x, masks))
    floating("x", x, ports(params))
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
    """The dtype and the numbers of inputs and outputs of a network."""

    dtype: Any
    n_in: int
    n_out: int


def ports(params) -> Ports:
    """The ports of layers."""
    return Ports(params[0].W.dtype, params[0].W.shape[-1], params[-1].W.shape[-2])


def output_activations(params) -> Sequence[Activation]:
    """The activations of the outputs, each once."""
    last = params[-1].activation
    return tuple(dict.fromkeys(last.activations)) if isinstance(last, PerNeuron) else (last,)


def floating(name: str, value, ports: Ports) -> None:
    """Raise TypeError unless value is an array in the parameters' dtype, before jit truncates it silently."""
    dtype = ports.dtype
    if not isinstance(value, (jax.Array, np.ndarray)):
        raise TypeError(f"{name}: expected an array, got {describe(value)}; write jnp.asarray({name}, jnp.{dtype})")
    unmasked(name, value)
    if value.dtype != dtype:
        pixels = " / 255 for pixels, or give fit a fnn.data.Dataset" if value.dtype == np.uint8 else ""
        whole = not jnp.issubdtype(value.dtype, jnp.floating) and name == "x"
        why = ", which may be pixels to be scaled or codes of categories" if whole else ""
        raise TypeError(
            f"{name}: expected {dtype} as the parameters have, got {describe(value)}{why}; "
            f"write {name}.astype({str(dtype)!r}){pixels}"
        )


def network(params, x, masks) -> None:
    """Raise unless the layers, x and the masks fit together; called at trace time."""
    careful_arguments(params, x, masks)
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
        advice = f"the network takes {n_in} inputs"
        if x.ndim > 2 and math.prod(x.shape[1:]) == n_in:  # images
            advice = f"write x.reshape(len(x), {n_in})"
        elif x.ndim == 2 and x.shape[0] == n_in:
            advice = "write x.T, if the examples are in columns"
        raise ValueError(f"x: expected shape ({n_in},) or (B, {n_in}), got {x.shape}; {advice}")
    if x.shape[0] == 0:
        raise ValueError(f"x: expected at least one example, got an empty batch of shape {x.shape}")
    return 1 if x.ndim == 1 else x.shape[0]


def _layer(name, layer, n_in, dtype, batch) -> None:
    activation_like(layer.activation, f"{name}.activation")
    *run, n_out, columns = layer.W.shape  # run: (D,) for a stack
    if len(run) != stacked(layer) or columns != n_in or (run and n_out != n_in):
        shape = f"(D, {n_in}, {n_in})" if stacked(layer) else f"(n_out, {n_in})"
        raise ValueError(
            f"{name}.W: expected shape {shape}, rows for receiving neurons, got {layer.W.shape}; "
            "write fnn.init(key, sizes), or W.T if rows and columns are swapped"
        )
    for part, leaf in leaves(layer).items():
        if part != "W" and leaf.shape != (*run, n_out):
            raise ValueError(f"{name}.{part}: expected shape {(*run, n_out)}, got {leaf.shape}")
        if leaf.dtype != dtype:
            raise TypeError(f"{name}.{part}: expected {dtype} as params[0].W has, got {leaf.dtype}")
    z = jax.ShapeDtypeStruct((batch, n_out), dtype)
    jax.eval_shape(lambda z: same_shape(layer.activation.value(z), z, f"{layer.activation}.value(z)"), z)
    if layer.norm is not None:
        one_of(f"{name}.norm.gradient", layer.norm.gradient, GRADIENTS)
        number("BatchNorm", f"{name}.norm.eps", layer.norm.eps, above=0)
        if whole_batch(layer.norm, batch) == 1:  # not < 2, which is undecidable for a symbolic batch size
            raise ValueError(f"x: {name} has a batch norm, which needs at least 2 examples, got {batch}")


def whole_batch(norm, rows: int) -> int:
    """The number of examples in a mini-batch of which this device holds ``rows``; see ``BatchNorm.axis``."""
    if norm.axis is None:
        return rows
    try:
        return rows * jax.lax.axis_size(norm.axis)
    except NameError as error:
        raise ValueError(f"BatchNorm.axis: there is no mesh axis {norm.axis!r} here; write axis=None") from error


def mask_shapes(name: str, mask: Mask, units: int, arrows: tuple[int, ...], dtype, batch: int) -> None:
    """Raise unless the mask's units are (batch, units) or (1, units) and its arrows like W's; (D, …) for a stack."""
    run = arrows[:-2]
    shapes = {"units": [(*run, batch, units), (*run, 1, units)], "arrows": [arrows]}
    for part, allowed in shapes.items():
        leaf = getattr(mask, part)
        if leaf is not None and leaf.shape not in allowed:
            raise ValueError(f"{name}.{part}: expected shape {' or '.join(map(str, allowed))}, got {leaf.shape}")
        if leaf is not None and leaf.dtype != dtype:
            raise TypeError(f"{name}.{part}: expected {dtype} as the parameters have, got {leaf.dtype}")
