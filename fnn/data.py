"""Data sets, whose values are checked once; small digits that ship with the package, and the files of MNIST."""

import copy
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fnn import digits
from fnn.blocks import by_blocks
from fnn.checks.arrays import as_array, describe, memory_mapped, native, unmasked
from fnn.checks.network import Ports
from fnn.checks.targets import columns, possible, refuse, target_arguments
from fnn.idx import load_idx, require_digest
from fnn.losses import Loss, Weighted
from fnn.numbers import number, whole
from fnn.streams import CHUNK_BYTES, GATHERED, Batches

__all__ = ["Dataset", "Batches", "load_mnist", "load_digits", "load_idx"]  # as the site lists them

IDX_PREFIX = re.compile(r"(?:(.+)-)?(?:train|t10k|test)-(?:images|labels)[-.]idx")  # how the names of the files begin
MNIST_SETS = (("train",), ("t10k", "test"))  # EMNIST and QMNIST write "test"
MNIST_KINDS = {"images": ("idx3-ubyte",), "labels": ("idx1-ubyte", "idx2-int")}  # QMNIST's labels: "idx2-int"
EMNIST_LABELS = {  # the least and the largest label
    "emnist-balanced": (0, 46),
    "emnist-byclass": (0, 61),
    "emnist-bymerge": (0, 46),
    "emnist-letters": (1, 26),
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """N examples in rows, checked once, at construction.

    x:     (N, n) uint8 or floating; uint8 stays uint8 until the compiled loop converts it to floats.
    y:     (N,) integer labels ≥ 0, or (N, m) floating targets.
    scale: the factor applied to x; by default 1/255 for uint8 and 1 for floating x.
    weights: None, or weights ≥ 0 of the examples in the loss, (N,), or of each of their targets, (N, m), floating or
           bool. A weight of 0 marks a missing target, where y may hold anything, such as NaN or the label −1. For
           class weights, write ``table[labels]``.
    chunk_bytes: None keeps everything on the device. A number ≥ 1 streams: ``fit`` gathers mini-batches in chunks of
           about that many bytes, at most four at a time, while the device computes. The trained parameters are bitwise
           the same on a CPU, and on a GPU with deterministic operations (see ``fit``).

    Memory-mapped arrays (``np.memmap``, ``np.load(FILE, mmap_mode="r")``) and slices of them are streamed, by default
    in chunks of 16 MiB, and never read whole; ``np.array(x)`` loads them instead. Labels are always loaded, as int32.
    ``fit`` reads the rows in a different order every epoch: if the file does not fit in the page cache, the disk's
    random-access speed limits it.

    Float64 arrays become float32 unless x64 is on, with a warning; a memory-mapped one is refused. Slicing gives a
    Dataset: ``data[:50_000]``. Raises TypeError or ValueError, naming the argument and the first bad row, for empty
    data, unequal lengths, other dtypes, NaN or infinity, and negative labels.
    """

    x: np.ndarray
    y: np.ndarray
    scale: float = None  # type: ignore[assignment]  # a float after construction
    chunk_bytes: int | None = None
    weights: np.ndarray | None = None

    def __post_init__(self):
        x, y = inputs(self.x), _array("y", self.y)
        if y.ndim == 0:
            raise ValueError(f"y: expected one label or one row for every example, got {describe(y)}")
        if len(x) == 0 or len(x) != len(y):
            raise ValueError(f"x, y: expected equally many examples in both, at least one, got {len(x)} and {len(y)}")
        weights = None if self.weights is None else _weights(self.weights, y)
        y = y if weights is None else _without_missing(y, weights)
        if np.issubdtype(y.dtype, np.integer):
            if y.ndim != 1:
                raise ValueError(
                    f"y: expected labels of shape (N,), got {y.shape}; write y.astype('float32') if targets"
                )
            refuse(y < 0, "y", y, "labels >= 0")
            refuse(y > np.iinfo(np.int32).max, "y", y, "labels below 2**31")
            y = y.astype(np.int32)
        elif not _is_floating(y):
            raise TypeError(
                f"y: expected integer labels or floating targets, got {describe(y)}; "
                "write np.unique(y, return_inverse=True)[1] for the labels of its values"
            )
        elif y.ndim != 2:
            raise ValueError(f"y: expected targets of shape (N, m), got {y.shape}; write y.reshape(len(y), -1)")
        for name, array in (("x", x), ("y", y)):
            _require_finite(name, array)
        scale = default_scale(x.dtype) if self.scale is None else self.scale
        chunk_bytes = self.chunk_bytes
        if chunk_bytes is None and (memory_mapped(x) or memory_mapped(y)):
            chunk_bytes = CHUNK_BYTES
        self._set(
            x=x, y=y, scale=number("Dataset", "scale", scale, above=0),
            chunk_bytes=None if chunk_bytes is None else whole("chunk_bytes", chunk_bytes), weights=weights,
        )  # fmt: skip

    def _set(self, **fields):
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice) -> "Dataset":
        if not isinstance(rows, slice):
            raise TypeError(f"rows: expected a slice, got {rows!r}; write data[0:1] for the first example")
        x, y = self.x[rows], self.y[rows]
        if len(x) == 0:
            raise ValueError(f"x, y: expected equally many examples in both, at least one, got 0 and 0 in rows {rows}")
        part = copy.copy(self)  # the values are checked already; a file is not read again
        part._set(x=x, y=y, weights=None if self.weights is None else self.weights[rows])
        return part

    def __repr__(self) -> str:
        weights = "" if self.weights is None else f", weights={describe(self.weights)}"
        return f"Dataset(x={describe(self.x)}, y={describe(self.y)}, scale={self.scale:.6g}{weights})"

    def targets(self, ports: Ports) -> np.ndarray:
        """y as the loss takes it: with the weights beside it, if there are any."""
        if self.weights is None:
            return self.y
        y = self.y if self.y.ndim == 2 else np.eye(ports.n_out, dtype=ports.dtype)[self.y]
        return Weighted.beside(np.asarray(y), self.weights)

    def weighted(self, loss: Loss) -> Loss:
        """The loss for :meth:`targets`."""
        return loss if self.weights is None else Weighted(loss)

    def present(self) -> np.ndarray | np.bool_:
        """Whether each example has any weight, (N,) bool; one True for all if there are no weights."""
        if self.weights is None:
            return np.True_
        return np.any(self.weights.reshape(len(self), -1), axis=1)

    def classes(self) -> np.ndarray | None:
        """The class of every example, (N,), −1 where it has no weight, if y holds labels or one-hot rows; or None."""
        present, y = self.present(), self.y
        if y.ndim == 2:
            if y.shape[1] == 1 or not (by_blocks(_one_hot, y) | ~present).all():
                return None
            y = by_blocks(lambda rows: rows.argmax(axis=1).astype(np.int32), y)
        return y if present.all() else np.where(present, y, np.int32(-1))

    def floats(self, dtype=np.float32) -> np.ndarray:
        """x as the network receives it: (N, n), scaled, in ``dtype``."""
        return as_floats(self.x, np.dtype(dtype), self.scale)


def inputs(x) -> np.ndarray:
    """x as an array (N, n) of bytes or floating numbers; raises TypeError or ValueError for anything else."""
    x = _array("x", x, stacklevel=6)
    if x.ndim != 2:
        raise ValueError(f"x: expected shape (N, n), got {x.shape}; write x.reshape(len(x), -1)")
    if not (x.dtype == np.uint8 or _is_floating(x)):
        raise TypeError(
            f"x: expected uint8 or floating, got {describe(x)}, which may be pixels to be scaled or codes of "
            "categories; write x.astype('float32') if these are quantities"
        )
    return x


def _require_finite(name: str, array: np.ndarray) -> None:
    if _is_floating(array):
        refuse(~by_blocks(lambda rows: np.isfinite(rows).all(axis=1), array), name, array, "finite numbers")


def default_scale(dtype) -> float:
    """The default scale for x of this dtype."""
    return 1 / 255 if dtype == np.uint8 else 1.0


def as_floats(x, dtype, scale: float):
    """x · scale in ``dtype``, for NumPy and JAX arrays."""
    return x.astype(dtype) * dtype.type(scale) if scale != 1 else x.astype(dtype)


def for_network(data, ports: Ports, loss: Loss, name: str = "data", loader: str = GATHERED) -> Dataset:
    """``data``, a Dataset, (x, y) or (x, y, weights), as a Dataset checked against the network and the loss.

    loader: what to write instead of a loader, for the error.
    """
    data = _dataset(data, name, loader)
    require_fitting(data, ports, loss, name)
    if not data.present().any():
        raise ValueError(f"{name}: weights: expected at least one above 0, got none")
    return data


def _dataset(data, name: str, loader: str) -> Dataset:
    """``data`` as a Dataset; raises TypeError or ValueError, naming the part."""
    if not isinstance(data, Dataset):
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            advice = f"; write {loader}" if _is_loader(data) else ""
            raise TypeError(
                f"{name}: expected a fnn.data.Dataset or a pair (x, y) or (x, y, weights), got {describe(data)}{advice}"
            )
        try:
            x, y, *weights = data
            return Dataset(x, y, weights=weights[0] if weights else None)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from error
    return data


def require_fitting(data: Dataset, ports: Ports, loss: Loss, name: str) -> None:
    """Raise TypeError or ValueError unless the network and the loss can take the data."""
    n_out = ports.n_out
    require_inputs(data.x, ports, name)
    target_arguments(ports, data.y, loss, f"{name}: y")
    if data.y.ndim == 1 and n_out == 1:
        raise ValueError(
            f"{name}: a network with one output takes y of shape (N, 1), got labels of shape {data.y.shape}"
        )
    if data.y.ndim == 1:
        refuse(data.y >= n_out, f"{name}: y", data.y, f"labels below {n_out}, the network's outputs")
    elif data.y.shape[1] not in columns(loss, n_out):
        raise ValueError(f"{name}: the network has {n_out} outputs, got y of shape {data.y.shape}")
    else:
        possible(data.y, loss, f"{name}: y", data.present())
    if data.weights is not None and data.weights.ndim == 2 and not getattr(loss, "by_output", False):
        raise ValueError(
            f"{name}: weights: expected shape (N,), because {loss} is not a sum over outputs, got {data.weights.shape}"
        )


def require_inputs(x: np.ndarray, ports: Ports, name: str) -> None:
    """Raise TypeError or ValueError unless the network can take x."""
    if x.shape[1] != ports.n_in:
        raise ValueError(f"{name}: the network takes {ports.n_in} inputs, got x of shape {x.shape}")
    if x.dtype not in (np.uint8, ports.dtype):
        raise TypeError(
            f"{name}: expected x in {ports.dtype} as the parameters have, got {x.dtype}; convert one of them"
        )


def load_digits() -> tuple[Dataset, Dataset]:
    """The training and test sets of small handwritten digits that come with the package; nothing is downloaded.

    1,500 and 297 images of 8 × 8 pixels: rows (N, 64) of uint8 from 0 to 16, scale 1/16, and labels (N,) from 0 to 9,
    int32. They are the digits of scikit-learn, from the UCI repository (CC BY 4.0). Raises ValueError if the installed
    file was changed.

    >>> train, test = load_digits()
    >>> train.x.shape, test.x.shape
    ((1500, 64), (297, 64))
    """
    x, y = digits.arrays()
    data = Dataset(x, y, scale=1 / digits.INK)
    return data[: digits.TRAINING], data[digits.TRAINING :]


def load_mnist(
    path, sha256: Mapping[str, str] | None = None, *, name: str = "", limit: int | None = None
) -> tuple[Dataset, Dataset]:
    """The training and test sets from a folder with the four files of MNIST, or of a data set in its format.

    path: a folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
    t10k-labels-idx1-ubyte, each optionally with ``.gz`` or ``.xz``, with ``.idx`` for ``-idx``, and with ``test`` for
    ``t10k``. If several forms exist, the plain one is used. Fashion-MNIST and KMNIST use the same names. name: a prefix
    of these names, such as ``"emnist-letters"`` (or another of EMNIST's) or ``"qmnist"``. sha256: file name without
    ``.gz`` or ``.xz`` → digest of the unpacked bytes, in hexadecimal, checked if given. limit: the largest size of one
    file in bytes, as in :func:`load_idx`.

    Images become rows: (N, 784) uint8, scale 1/255. Labels become (N,) int32 with the values in the file: those of
    emnist-letters are 1 to 26. EMNIST's images are stored transposed. QMNIST's labels (``idx2-int``) are int32 of shape
    (N, 8), of which the first column, the class, is used. Raises FileNotFoundError or ValueError that names the file,
    or an unknown name in ``sha256``, before anything is read.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for of in ("train", "test"):  # one image of 2 × 2 pixels and its label, each
    ...         image = b"\\0\\0\\x08\\3" + b"\\0\\0\\0\\1" + b"\\0\\0\\0\\2" * 2 + b"\\0\\1\\2\\3"
    ...         _ = Path(folder, f"emnist-letters-{of}-images-idx3-ubyte").write_bytes(image)
    ...         label = b"\\0\\0\\x08\\1" + b"\\0\\0\\0\\1" + b"\\x1a"
    ...         _ = Path(folder, f"emnist-letters-{of}-labels-idx1-ubyte").write_bytes(label)
    ...     train, _ = load_mnist(folder, name="emnist-letters")
    >>> train.x.tolist(), train.y.tolist()
    ([[0, 1, 2, 3]], [26])
    """
    found = [[_find(path, name, names, kind) for kind in MNIST_KINDS] for names in MNIST_SETS]
    digests = _digests(sha256, [_unpacked_name(file) for files in found for file in files])
    sets = []
    for files in found:
        images_name, labels_name = map(_unpacked_name, files)
        images = load_idx(files[0], digests.get(images_name), 3, limit)
        labels = load_idx(files[1], digests.get(labels_name), 2 if labels_name.endswith("idx2-int") else 1, limit)
        if images.dtype != np.uint8:
            raise ValueError(f"{images_name}: expected unsigned bytes, the header says {images.dtype}")
        labels = _classes(labels_name, labels, EMNIST_LABELS.get(name, (0, 9)))
        if len(images) != len(labels):
            raise ValueError(f"{images_name} has {len(images)} images, {labels_name} {len(labels)} labels")
        if len(images) == 0:
            raise ValueError(f"{images_name}: expected at least one image, got none")
        sets.append(Dataset(images.reshape(len(images), -1), labels))
    return sets[0], sets[1]


def _unpacked_name(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".xz")


def _digests(sha256: Mapping[str, str] | None, names: Sequence[str]) -> Mapping[str, str]:
    """The digests, checked; raises TypeError or ValueError for a name that is none of the files'."""
    if sha256 is None:
        return {}
    if not isinstance(sha256, Mapping):
        raise TypeError(f"sha256: expected a dict, file name -> digest, got {sha256!r}; write {{{names[0]!r}: ...}}")
    for name, digest in sha256.items():
        if name not in names:
            raise ValueError(
                f"sha256: expected the names of the four files, without .gz or .xz, because the digests are of the "
                f"unpacked bytes: {', '.join(names)}, got {name}"
            )
        require_digest(f"sha256[{name!r}]", digest)
    return sha256


def _classes(name: str, labels: np.ndarray, limits: tuple[int, int]) -> np.ndarray:
    """The class of every example, (N,), of labels (N,), or QMNIST's (N, 8) with the class first."""
    if labels.dtype not in (np.uint8, np.int32):
        raise ValueError(f"{name}: expected unsigned bytes or int32, the header says {labels.dtype}")
    labels = labels[:, 0] if labels.ndim == 2 else labels
    least, most = limits
    refuse((labels < least) | (labels > most), name, labels, f"labels from {least} to {most}")
    return labels


def _find(folder, prefix: str, sets: Sequence[str], kind: str) -> Path:
    """The file of the images or the labels of one set, under one of its public names."""
    start = f"{prefix}-" if prefix else ""
    names = [f"{start}{of}-{kind}{dot}{form}" for of in sets for form in MNIST_KINDS[kind] for dot in "-."]
    for candidate in (Path(folder, name + packed) for packed in ("", ".gz", ".xz") for name in names):
        if candidate.is_file():
            return candidate
    others = {found[1] or "" for file in Path(folder).glob("*idx*") if (found := IDX_PREFIX.match(file.name))}
    advice = "".join(
        f"; write load_mnist(path, name={other!r}) for what is there" for other in sorted(others - {prefix})
    )
    raise FileNotFoundError(
        f"{os.fspath(folder)}: found neither {names[0]} nor {names[0]}.gz, nor another of its public names{advice}"
    )


def _is_floating(array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)  # unlike np.issubdtype, knows bfloat16


def _array(name: str, value, stacklevel: int = 5) -> np.ndarray:
    """The array in the machine's byte order, by the rule of ``as_array``; raises TypeError for anything else."""
    value = as_array(name, value, stacklevel)
    if not isinstance(value, (np.ndarray, jax.Array)):
        raise TypeError(f"{name}: expected an array, got {describe(value)}; write np.asarray({name})")
    unmasked(name, value)
    return native(np.asarray(value))  # a view, for a memory map


def _weights(value, y: np.ndarray) -> np.ndarray:
    """Weights of the examples (N,) or of the targets (N, m), checked; in the dtype of floating targets."""
    weights = _array("weights", value)
    if weights.dtype == bool:
        weights = weights.astype(y.dtype if _is_floating(y) else np.float32)
    if not _is_floating(weights):
        raise TypeError(f"weights: expected floating numbers, got {describe(weights)}; write weights.astype('float32')")
    if weights.shape not in {y.shape[:1], y.shape}:
        shapes = " or ".join(map(str, dict.fromkeys((y.shape[:1], y.shape))))
        advice = f"; write weights.reshape({len(y)})" if weights.shape == (len(y), 1) else ""
        raise ValueError(f"weights: expected shape {shapes}, got {weights.shape}{advice}")
    each = weights.reshape(len(weights), -1)
    refuse(~(np.isfinite(each) & (each >= 0)).all(axis=1), "weights", weights, "finite numbers >= 0")
    return weights.astype(y.dtype) if y.ndim == 2 else weights


def _without_missing(y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """y with 0 in place of what has no weight."""
    missing = weights == 0
    missing = missing if missing.shape == y.shape else missing.reshape(len(y), *(1,) * (y.ndim - 1))
    return np.where(missing, np.zeros((), y.dtype), y) if missing.any() else y


def _is_loader(data) -> bool:
    """Whether it yields mini-batches, as a loader of torch or grain does."""
    plain = tuple, list, dict, str, np.ndarray, jax.Array
    return isinstance(data, Batches) or (hasattr(data, "__iter__") and not isinstance(data, plain))


def _one_hot(rows: np.ndarray) -> np.ndarray:
    return ((rows == 0) | (rows == 1)).all(axis=1) & (rows.sum(axis=1) == 1)


def __dir__() -> list[str]:
    return sorted(__all__)
