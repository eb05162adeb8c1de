"""The content of a checkpoint: arrays, and one JSON text with a SHA-256 for each. See ``directory``."""

import hashlib
import json
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from fnn.checkpoint.fingerprint import describe, digest, implementation, paths
from fnn.checks.arrays import describe as describe_array
from fnn.checks.arrays import native, native_dtype, prng_key, unmasked

FORMAT = "fnn run 1"
DTYPES = (  # that orbax's storage takes and gives back bit for bit
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32",
    "float64", "complex64", "complex128", "int4", "float8_e3m4", "float8_e4m3b11fnuz", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
)  # fmt: skip
STATE = re.compile(r"optimizer_state(\[\d+\])?")  # a part of an optimizer's state, which is one of a chain's


class Damaged(ValueError):
    """The stored content differs from what was written."""


def require_arrays(trees: dict) -> None:
    """Raise a TypeError naming the leaf unless all leaves of the named pytrees are arrays."""
    for name, tree in trees.items():
        for path, leaf in zip(paths(name, tree), jax.tree.leaves(tree)):
            plain = isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype.kind not in "OSU"
            if not (plain or isinstance(leaf, jax.Array)):
                raise TypeError(f"{path}: expected an array, got {leaf!r}; write jnp.asarray(...)")
            unmasked(path, leaf)
            if not (_is_key(leaf) or native_dtype(leaf.dtype).name in DTYPES):
                raise TypeError(
                    f"{path}: expected an array of numbers that comes back bit for bit, got {describe_array(leaf)}; "
                    f"write .astype(...) with one of {', '.join(DTYPES)}"
                )


def require_something(arrays: dict[str, np.ndarray]) -> None:
    """Raise ValueError if there is nothing to save."""
    if not arrays:
        raise ValueError(
            "params: expected a pytree with at least one array that has entries, in it or in optimizer_state, got none"
        )


def pack(trees: dict, values: dict) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of pytrees by number, and the JSON of ``values`` with every array's path, dtype, shape and digest.

    trees: name → pytree of arrays. values: any JSON-compatible data.
    """
    names = [path for name, tree in trees.items() for path in paths(name, tree)]
    arrays = [_on_host(name, leaf) for name, leaf in zip(names, jax.tree.leaves(list(trees.values())))]
    entries = [
        {"path": name, "dtype": str(array.dtype), "shape": list(array.shape), "sha256": digest(array)}
        for name, array in zip(names, arrays)
    ]
    try:
        text = json.dumps({"format": FORMAT, **values, "arrays": entries})
    except (TypeError, ValueError) as error:
        raise TypeError(f"history: expected dictionaries of strings and numbers: {error}") from error
    meta = {"content": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    require_something(numbered(arrays))
    return numbered(arrays), meta


def unpack_meta(meta: dict[str, str]) -> dict:
    """The content of the JSON item, its digest verified; raises Damaged, or ValueError for another format."""
    text = meta["content"]
    if hashlib.sha256(text.encode()).hexdigest() != meta["sha256"]:
        raise Damaged("the content is damaged: its SHA-256 does not match")
    saved = json.loads(text)
    if saved["format"] != FORMAT:
        raise ValueError(f"expected format {FORMAT!r}, got {saved['format']!r}")
    return saved


def like(saved: dict) -> list[np.ndarray]:
    """Placeholder arrays with the dtypes and shapes listed in the content."""
    return [np.empty(entry["shape"], np.dtype(entry["dtype"])) for entry in saved["arrays"]]


def numbered(arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays by number, without empty ones, which orbax does not write."""
    return {str(number): array for number, array in enumerate(arrays) if array.size}


def unpack(saved: dict, state: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The arrays in order, each checked against its digest; raises Damaged."""
    arrays = [np.asarray(state.get(str(number), empty)) for number, empty in enumerate(like(saved))]
    for entry, array in zip(saved["arrays"], arrays):
        if digest(array) != entry["sha256"]:
            raise Damaged(f"{entry['path']} is damaged: its SHA-256 does not match")
    return arrays


def on_device(array: np.ndarray, template):
    """The array in the template's form: NumPy's, a typed key, or committed to the devices if the template is."""
    if isinstance(template, (np.ndarray, np.generic)):
        return array[()] if isinstance(template, np.generic) else array
    if _is_key(template):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(template))
    if isinstance(template, jax.Array) and template.committed:
        return jax.device_put(array, template.sharding)
    return jnp.asarray(array)


def structured(saved: dict, arrays: list[np.ndarray], params, optimizer_state) -> tuple:
    """The arrays in the form of the templates ``params`` and ``optimizer_state``.

    Parts of the optimizer's state that do not match the checkpoint are reinitialised with a warning, because an
    optimizer that was allowed to differ may have a different state.
    """
    trees = {"params": params, "optimizer_state": optimizer_state}
    given = {name: text for of in trees for name, text in describe(of, trees[of]).items()}
    before = saved["run"]
    differing = [name for name in given | before if given.get(name) != before.get(name)]
    anew = {found[0] for found in map(STATE.match, differing) if found}
    if anew:
        warnings.warn(
            f"optimizer: its state does not match the checkpoint and is reinitialised in {', '.join(sorted(anew))}",
            stacklevel=6,
        )
    found = dict(zip((entry["path"] for entry in saved["arrays"]), arrays))
    leaves, structure = jax.tree.flatten((params, optimizer_state))
    names = [name for of in trees for name in paths(of, trees[of])]

    def leaf(name, template):
        part = STATE.match(name)
        new = part is not None and not anew.isdisjoint({part[0], "optimizer_state"})
        return template if new else on_device(found[name], template)

    return jax.tree.unflatten(structure, map(leaf, names, leaves))


def key_data(key) -> dict | None:
    """A PRNG key as JSON."""
    if key is None:
        return None
    prng_key(key)
    data = np.asarray(jax.random.key_data(key)) if _is_key(key) else np.asarray(key)
    return {"implementation": implementation(key), "data": data.tolist()}


def key(written: dict | None):
    """The PRNG key described by ``key_data``'s result."""
    if written is None:
        return None
    data = jnp.asarray(written["data"], jnp.uint32)
    raw = written["implementation"] == "raw"
    return data if raw else jax.random.wrap_key_data(data, impl=written["implementation"])


def _on_host(name: str, leaf) -> np.ndarray:
    """A copy, because on CPU a view may share memory that later computations reuse; for a key, its data."""
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if not leaf.is_fully_replicated:
            raise ValueError(f"{name}: expected an array that every process holds in full, got {leaf.sharding}")
        leaf = leaf.addressable_data(0)
    return native(np.array(leaf))


def _is_key(leaf) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
