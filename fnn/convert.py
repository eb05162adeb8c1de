"""Convert networks from PyTorch, scikit-learn, Keras and safetensors files to layers, and back to PyTorch.

Objects are read by their attributes, so none of those programs is imported. The result is the network for inference:
dropout is left out, because it does nothing then, and a batch norm with its running statistics is folded into the
weights beside it. Anything without a counterpart here is refused, with its name and position.

W is (n_out, n_in) here and in PyTorch, but (n_in, n_out) in scikit-learn, Keras and Flax; it is transposed on
conversion. Products are taken in float64 and rounded once. The result is in float64 if the source is, otherwise in
float32.
With x64 off, float64 becomes float32 with a warning; ``dtype="float32"`` asks for that without one.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn import activations
from fnn.activations import Activation
from fnn.checkpoint.safetensors import contents
from fnn.checks.arrays import describe
from fnn.checks.network import activation_like, swapped
from fnn.kinds import kind, require_layers
from fnn.layers import Dense, Params
from fnn.numbers import floating_dtype
from fnn.stacking import unstack

__all__ = ["from_keras", "from_safetensors", "from_sklearn", "from_torch", "to_torch"]

HOOKS = ("_forward_hooks", "_forward_pre_hooks")
TORCH: dict[str, Callable[[Any], Activation | None]] = {  # None: not with these parameters
    "ELU": lambda module: activations.ELU() if module.alpha == 1 else None,
    "GELU": lambda module: activations.GELU(module.approximate == "tanh"),
    "Identity": lambda module: activations.Identity(),
    "LeakyReLU": lambda module: activations.LeakyReLU(module.negative_slope),
    "ReLU": lambda module: activations.ReLU(),
    "Sigmoid": lambda module: activations.Sigmoid(),
    "SiLU": lambda module: activations.SiLU(),
    "Softmax": lambda module: activations.Softmax() if module.dim in (None, 1, -1) else None,
    "Softplus": lambda module: activations.Softplus() if module.beta == 1 and module.threshold >= 20 else None,
    "Softsign": lambda module: activations.Softsign(),
    "Tanh": lambda module: activations.Tanh(),
}
TO_TORCH: dict[type, Callable[[Any, Any], Any]] = {  # (torch.nn, activation) -> module
    activations.ELU: lambda nn, activation: nn.ELU(),
    activations.GELU: lambda nn, activation: nn.GELU("tanh" if activation.approximate else "none"),
    activations.LeakyReLU: lambda nn, activation: nn.LeakyReLU(activation.slope),
    activations.ReLU: lambda nn, activation: nn.ReLU(),
    activations.Sigmoid: lambda nn, activation: nn.Sigmoid() if activation.beta == 1 else None,
    activations.SiLU: lambda nn, activation: nn.SiLU(),
    activations.Softmax: lambda nn, activation: nn.Softmax(-1),
    activations.Softplus: lambda nn, activation: nn.Softplus(),
    activations.Softsign: lambda nn, activation: nn.Softsign(),
    activations.Tanh: lambda nn, activation: nn.Tanh(),
}
SKLEARN = {
    "identity": activations.Identity(),
    "logistic": activations.Sigmoid(),
    "relu": activations.ReLU(),
    "softmax": activations.Softmax(),
    "tanh": activations.Tanh(),
}
KERAS = {
    "elu": activations.ELU(),
    "gelu": activations.GELU(),
    "leaky_relu": activations.LeakyReLU(0.2),
    "linear": activations.Identity(),
    "relu": activations.ReLU(),
    "sigmoid": activations.Sigmoid(),
    "silu": activations.SiLU(),
    "softmax": activations.Softmax(),
    "softplus": activations.Softplus(),
    "softsign": activations.Softsign(),
    "swish": activations.SiLU(),
    "tanh": activations.Tanh(),
}
LEFT_OUT = ("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "Identity", "InputLayer")


def from_torch(model, *, dtype=None) -> Params:
    """The layers of a ``torch.nn.Sequential``: ``forward`` matches ``model.eval()(x)`` up to rounding.

    model: Linear (with a bias or without), BatchNorm1d, the activations ELU, GELU, Identity, LeakyReLU, ReLU, Sigmoid,
    SiLU, Softmax, Softplus, Softsign and Tanh, and Sequentials of these. Dropout and AlphaDropout are left out. So is
    Flatten at the start, because ``forward`` takes rows. dtype: None or a floating dtype. Returns a tuple of
    :class:`Dense`, W (n_out, n_in) and b (n_out,). PyTorch's Softplus is linear above its threshold, a difference of
    2e-9. Raises TypeError for other modules and those with hooks, and ValueError for a batch norm without running
    statistics.

    >>> class Linear:  # stands for PyTorch's, which need not be installed
    ...     weight, bias = np.ones((2, 3), np.float32), None
    >>> class Tanh: ...
    >>> class Sequential(list): ...
    >>> from_torch(Sequential([Linear(), Tanh()]))  # from_torch(torch.nn.Sequential(...))
    (Dense(W=(2, 3), b=(2,), Tanh(), float32),)
    """
    _require_name("model", model, ("Sequential",), "a torch.nn.Sequential", "torch.nn.Sequential(*modules)")
    found = _Layers()
    for place, module in _modules("model", model, list):
        _read_torch(found, place, module)
    return found.finished("model", dtype)


def to_torch(params: Params):
    """A ``torch.nn.Sequential`` that computes what the layers compute: a Linear per layer, and its activation.

    params: from ``fnn.init``, without batch norm, in float32 or float64, with activations that PyTorch has. W (n_out,
    n_in) and b (n_out,) are copied. Raises ImportError without torch, TypeError for a graph, another dtype or an
    activation that PyTorch does not have, and ValueError for a batch norm.

    >>> import fnn
    >>> params = fnn.init(jax.random.key(0), (3, 4, 2), activation=fnn.Tanh())
    >>> to_torch(params)  # doctest: +SKIP
    Sequential(
      (0): Linear(in_features=3, out_features=4, bias=True)
      (1): Tanh()
      (2): Linear(in_features=4, out_features=2, bias=True)
    )
    """
    require_layers(params, "to_torch", "torch.nn.Sequential cannot hold it")
    kind(params).require(params)
    try:
        import torch
    except ImportError as error:
        raise ImportError("fnn.convert.to_torch needs PyTorch; install torch") from error
    layers = enumerate(unstack(params))
    return torch.nn.Sequential(*(module for i, layer in layers for module in _written_torch(torch, i, layer)))


def from_sklearn(mlp, *, dtype=None) -> Params:
    """The layers of scikit-learn's ``MLPClassifier`` or ``MLPRegressor``, after ``fit``.

    ``forward`` matches a regressor's ``predict``, in columns, or a classifier's ``predict_proba``. For two classes
    there is one output, the probability of ``classes_[1]``. dtype: None or a floating dtype; scikit-learn's weights are
    float64 unless it was fitted to float32. Returns a tuple of :class:`Dense`, W (n_out, n_in) from ``coefs_`` (n_in,
    n_out), and b (n_out,). Raises TypeError for another object or activation, and ValueError before ``fit``.

    >>> class MLPRegressor:  # stands for scikit-learn's, which need not be installed
    ...     coefs_, intercepts_ = [np.ones((3, 4), "f"), np.ones((4, 1), "f")], [np.zeros(4, "f"), np.zeros(1, "f")]
    ...     activation, out_activation_ = "relu", "identity"
    >>> from_sklearn(MLPRegressor())
    (Dense(W=(4, 3), b=(4,), ReLU(), float32), Dense(W=(1, 4), b=(1,), Identity(), float32))
    """
    names = ("MLPClassifier", "MLPRegressor")
    _require_name("mlp", mlp, names, "an MLPClassifier or MLPRegressor", "from_sklearn(MLPClassifier().fit(x, y))")
    if not hasattr(mlp, "coefs_"):
        raise ValueError(f"mlp: expected a fitted network, got {mlp!r}; write from_sklearn(mlp.fit(x, y))")
    found = _Layers()
    last = len(mlp.coefs_) - 1
    for i, (W, b) in enumerate(zip(mlp.coefs_, mlp.intercepts_, strict=True)):
        place, name = ("out_activation_", mlp.out_activation_) if i == last else ("activation", mlp.activation)
        found.affine(f"mlp.coefs_[{i}].T", W.T, b)
        found.activation(f"mlp.{place}", _named(f"mlp.{place}", name, SKLEARN))
    return found.finished("mlp", dtype)


def from_keras(model, *, dtype=None) -> Params:
    """The layers of a built Keras ``Sequential``: ``forward`` matches ``model.predict(x)`` up to rounding.

    model: Dense, BatchNormalization, Activation, ELU, LeakyReLU, ReLU, Softmax, and Sequentials of these. Dropout,
    AlphaDropout, GaussianDropout and GaussianNoise are left out. So is Flatten at the start, because ``forward`` takes
    rows. Activations by name: elu, gelu, leaky_relu, linear, relu, sigmoid, silu, softmax, softplus, softsign, swish,
    tanh. dtype: None or a floating dtype. Returns a tuple of :class:`Dense`, W (n_out, n_in) from kernels (n_in,
    n_out), and b (n_out,). Raises TypeError for another layer or activation, and ValueError for a model not yet built.

    >>> class Dense:  # stands for Keras's, which need not be installed
    ...     get_weights = lambda self: [np.ones((3, 2), np.float32), np.zeros(2, np.float32)]
    ...     get_config = lambda self: {"activation": "relu"}
    >>> class Sequential:
    ...     layers = [Dense()]
    >>> from_keras(Sequential())
    (Dense(W=(2, 3), b=(2,), ReLU(), float32),)
    """
    _require_name("model", model, ("Sequential",), "a keras.Sequential", "keras.Sequential(layers)")
    found = _Layers()
    for place, layer in _modules("model", model, lambda model: model.layers, ".layers"):
        _read_keras(found, place, layer)
    return found.finished("model", dtype)


def from_safetensors(
    path, layers: Sequence[tuple], *, transposed: bool = False, unused: Iterable[str] = (), dtype=None
) -> Params:
    """The layers of an MLP in a safetensors file that another program wrote.

    path: the file. layers: for every layer, in order, the name of its W, the name of its b or None, and its activation.
    transposed: True if W is (n_in, n_out) in the file, as in Flax and Keras, rather than (n_out, n_in), as in PyTorch.
    unused: names of tensors that the network does not need; every other one must be in a layer. dtype: None or a
    floating dtype. Returns a tuple of :class:`Dense`, W (n_out, n_in) and b (n_out,). Needs safetensors. Raises
    FileNotFoundError, or TypeError or ValueError that names the layer or the tensor. ``fnn.checkpoint.load(path)``
    reads what ``fnn.checkpoint.export`` wrote.

    >>> import tempfile, safetensors.numpy, fnn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     safetensors.numpy.save_file({"0.weight": np.ones((2, 3), np.float32)}, f"{folder}/mlp.safetensors")
    ...     from_safetensors(f"{folder}/mlp.safetensors", [("0.weight", None, fnn.ReLU())])
    (Dense(W=(2, 3), b=(2,), ReLU(), float32),)
    """
    _, tensors = contents(path)
    found, used = _Layers(transposed="transposed=False" if transposed else "transposed=True"), set(unused)
    for i, entry in enumerate(layers):
        if not isinstance(entry, (tuple, list)) or len(entry) != 3:
            raise TypeError(
                f"layers[{i}]: expected (name of W, name of b or None, activation), got {describe(entry)}; "
                "write ('0.weight', '0.bias', fnn.ReLU()), for example"
            )
        of_W, of_b, activation = entry
        activation_like(activation, f"layers[{i}][2]")
        for name in {of_W, of_b or of_W} - tensors.keys():
            raise ValueError(f"layers[{i}]: {path} holds no {name!r}; it holds {', '.join(sorted(tensors))}")
        used |= {of_W, of_b}
        W, b = tensors[of_W], None if of_b is None else tensors[of_b]
        found.affine(f"layers[{i}]", W.T if transposed else W, b)
        found.activation(f"layers[{i}]", activation)
    if left := sorted(tensors.keys() - used):
        raise ValueError(
            f"layers: expected every tensor of {path} in a layer, but none has {', '.join(left)}; "
            f"write unused={left} if the network does not need them"
        )
    return found.finished("layers", dtype)


class _Layers:
    """The layers read so far, [W, b, activation or None], in float64; a W of one axis is the diagonal of a matrix.

    transposed: how an argument says that rows and columns of W are swapped, for the error.
    """

    def __init__(self, transposed: str = "W.T"):
        self.read: list[list[Any]] = []
        self.dtype = np.dtype(np.float32)
        self.transposed = transposed

    def affine(self, place: str, W, b) -> None:
        """W a + b, with W (n_out, n_in) and b (n_out,) or None; takes up a batch norm before it."""
        W, b = self._float64(W), None if b is None else self._float64(b)
        n_in = len(self.read[-1][1]) if self.read else None
        if W.ndim != 2 or n_in not in (None, W.shape[1]) or (b is not None and b.shape != W.shape[:1]):
            across = W.ndim == 2 and swapped(W.shape, W.shape[1:] if b is None else b.shape, n_in)
            advice = f"; write {self.transposed}, because rows and columns are swapped" if across else ""
            bias = "" if b is None else f" and b {b.shape}"
            raise ValueError(
                f"{place}: expected W (n_out, {n_in or 'n_in'}) and b (n_out,), got W {W.shape}{bias}{advice}"
            )
        b = np.zeros(len(W)) if b is None else b
        if self.read and self.read[-1][0].ndim == 1 and self.read[-1][2] is None:
            scale, shift, _ = self.read.pop()
            W, b = W * scale, W @ shift + b
        self.read.append([W, b, None])

    def batch_norm(self, mean, variance, gamma, beta, eps: float) -> None:
        """γ (ψ − μ)/√(ν + ε) + β, folded into the affine map before it, or that after it behind an activation."""
        mean, variance = self._float64(mean), self._float64(variance)
        scale = (1 if gamma is None else self._float64(gamma)) / np.sqrt(variance + eps)
        shift = (0 if beta is None else self._float64(beta)) - scale * mean
        if self.read and self.read[-1][2] is None:
            W, b, _ = self.read.pop()
            self.read.append([(scale * W.T).T, scale * b + shift, None])
        else:
            self.read.append([scale, shift, None])

    def activation(self, place: str, activation: Activation) -> None:
        """The activation of the affine map before it."""
        if activation == activations.Identity():
            return
        if not self.read or self.read[-1][2] is not None:
            behind = self.read[-1][2] if self.read else "nothing"
            raise TypeError(f"{place}: expected a linear layer before each activation, got {activation} after {behind}")
        self.read[-1][2] = activation

    def finished(self, name: str, dtype) -> Params:
        """The layers, in ``dtype`` or, if it is None, that of the source."""
        if not self.read:
            raise TypeError(f"{name}: expected at least one linear layer, got none")
        if dtype is None and self.dtype != jax.dtypes.canonicalize_dtype(self.dtype):
            warnings.warn(
                f"{name}: float64 becomes float32, because x64 is off; write dtype='float32', or call "
                "jax.config.update('jax_enable_x64', True) first",
                stacklevel=3,
            )
            dtype = np.float32
        dtype = floating_dtype(self.dtype if dtype is None else dtype)
        return tuple(
            Dense(jnp.asarray(np.diag(W) if W.ndim == 1 else W, dtype), jnp.asarray(b, dtype), activation or IDENTITY)
            for W, b, activation in ((W.astype(dtype), b.astype(dtype), activation) for W, b, activation in self.read)
        )

    def _float64(self, value) -> np.ndarray:
        value = np.asarray(value)
        self.dtype = np.promote_types(self.dtype, np.float64) if value.dtype == np.float64 else self.dtype
        return value.astype(np.float64)


IDENTITY = activations.Identity()


def _require_name(name: str, value, names: Sequence[str], expected: str, advice: str) -> None:
    """Raise TypeError unless the class of ``value`` has one of these names; a subclass may compute something else."""
    if type(value).__name__ not in names:
        raise TypeError(f"{name}: expected {expected}, got {describe(value)}; write {advice}")


def _modules(place: str, model, parts: Callable, attribute: str = "") -> Iterator[tuple[str, Any]]:
    """(place, module) of every module in a Sequential and the Sequentials in it."""
    for i, module in enumerate(parts(model)):
        at = f"{place}{attribute}[{i}]"
        if type(module).__name__ == "Sequential":
            yield from _modules(at, module, parts, attribute)
        else:
            yield at, module


def _refused(place: str, module, known: Iterable[str]) -> TypeError:
    return TypeError(
        f"{place}: expected one of {', '.join(known)}, got {module!r}, which has no counterpart in fnn; "
        "convert the modules before it and those after it"
    )


def _read_torch(found: _Layers, place: str, module) -> None:
    name = type(module).__name__
    if any(getattr(module, hooks, None) for hooks in HOOKS):
        raise TypeError(f"{place}: expected a module without hooks, got {module!r}, whose hooks may change its output")
    if name == "Linear":
        found.affine(place, _array(module.weight), None if module.bias is None else _array(module.bias))
    elif name == "BatchNorm1d":
        if module.running_mean is None:
            raise ValueError(f"{place}: expected running statistics, got {module!r}, which has none to fold")
        gamma, beta = (None if value is None else _array(value) for value in (module.weight, module.bias))
        found.batch_norm(_array(module.running_mean), _array(module.running_var), gamma, beta, module.eps)
    elif name in TORCH and (activation := TORCH[name](module)) is not None:
        found.activation(place, activation)
    elif not (name in LEFT_OUT or (name == "Flatten" and not found.read and module.start_dim == 1)):
        raise _refused(place, module, ("Linear", "BatchNorm1d", *TORCH, "Dropout", "AlphaDropout", "Flatten first"))


def _array(tensor) -> np.ndarray:
    """A torch tensor as an array; half precision as float32, because NumPy has no bfloat16."""
    if not isinstance(tensor, np.ndarray):
        tensor = tensor.detach().cpu()
        tensor = (tensor if "float64" in str(tensor.dtype) else tensor.float()).numpy()
    return tensor


def _written_torch(torch, i: int, layer: Dense) -> list:
    """The modules of one layer."""
    if layer.norm is not None:
        raise ValueError(f"params[{i}].norm: expected None, got a batch norm; write to_torch(fnn.fold(params, ...))")
    if layer.W.dtype not in (np.float32, np.float64):
        raise TypeError(f"params[{i}].W: expected float32 or float64, got {layer.W.dtype}; write W.astype('float32')")
    n_out, n_in = layer.W.shape
    linear = torch.nn.Linear(n_in, n_out, dtype=getattr(torch, str(layer.W.dtype)))
    linear.load_state_dict({"weight": torch.tensor(np.array(layer.W)), "bias": torch.tensor(np.array(layer.b))})
    if layer.activation == IDENTITY:
        return [linear]
    make = TO_TORCH.get(type(layer.activation), lambda nn, activation: None)
    activation = make(torch.nn, layer.activation)
    if activation is None:
        known = ", ".join(cls.__name__ for cls in (activations.Identity, *TO_TORCH))
        raise TypeError(
            f"params[{i}].activation: expected one of {known}, got {layer.activation}, which PyTorch does not have; "
            "write it as a torch.nn.Module, and convert the layers before it"
        )
    return [linear, activation]


def _named(place: str, name, known: dict[str, Activation]) -> Activation:
    if not isinstance(name, str) or name not in known:
        raise TypeError(f"{place}: expected one of {', '.join(known)}, got {describe(name)}, which fnn does not have")
    return known[name]


def _read_keras(found: _Layers, place: str, layer) -> None:
    name, weights, config = type(layer).__name__, layer.get_weights(), layer.get_config()
    if name == "Dense":
        if len(weights) != 1 + config.get("use_bias", True):
            raise ValueError(
                f"{place}: expected a kernel and a bias, got {len(weights)} arrays in {layer!r}; write "
                "model.build((None, n_in)) first, and merge_lora_weights() or dequantize() where they apply"
            )
        found.affine(place, weights[0].T, weights[1] if len(weights) == 2 else None)
        found.activation(place, _named(f"{place}.activation", config["activation"], KERAS))
    elif name == "Activation":
        found.activation(place, _named(f"{place}.activation", config["activation"], KERAS))
    elif name == "BatchNormalization" and config.get("axis", -1) in (-1, 1, [1]):
        if len(weights) != 2 + config.get("scale", True) + config.get("center", True):
            raise ValueError(
                f"{place}: expected running statistics, got {layer!r}; write model.build((None, n_in)) first"
            )
        *trained, mean, variance = weights
        gamma, beta = (trained.pop(0) if config.get(part, True) else None for part in ("scale", "center"))
        found.batch_norm(mean, variance, gamma, beta, config["epsilon"])
    elif (activation := _keras_activation(name, config)) is not None:
        found.activation(place, activation)
    elif not (name in LEFT_OUT or (name == "Flatten" and not found.read)):
        known = ("Dense", "BatchNormalization", "Activation", "ELU", "LeakyReLU", "ReLU", "Softmax", "Flatten first")
        raise _refused(place, layer, (*known, *LEFT_OUT))


def _keras_activation(name: str, config: dict) -> Activation | None:
    """The activation of a layer that is one; None if it is not, or has parameters that ours does not have."""
    slope = config.get("negative_slope", config.get("alpha", 0.0))  # alpha: Keras 2
    if name == "ReLU" and config.get("max_value") is None and not config.get("threshold"):
        return activations.LeakyReLU(slope) if slope else activations.ReLU()
    if name == "LeakyReLU":
        return activations.LeakyReLU(slope)
    if name == "ELU" and config.get("alpha", 1) == 1:
        return activations.ELU()
    if name == "Softmax" and config.get("axis", -1) in (-1, 1):
        return activations.Softmax()
    return None


def __dir__() -> list[str]:
    return sorted(__all__)
