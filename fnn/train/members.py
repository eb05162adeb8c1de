"""The members of ``fit_many``: parameters with a leading axis, keys, rates, and the devices they share."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn import parallel
from fnn.checks import arrays
from fnn.data import Dataset, for_network
from fnn.kinds import kind
from fnn.numbers import number
from fnn.train.evaluation import require_network

STACKED = "write jax.vmap(lambda key: fnn.init(key, sizes))(keys)"
INJECTED = "write optax.inject_hyperparams(fnn.updates.sgd)(learning_rate=0.1)"


def require_keys(keys) -> int:
    """The number of members; raises TypeError unless ``keys`` is an array (N,) of typed keys."""
    typed = isinstance(keys, jax.Array) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if not typed or keys.ndim != 1 or len(keys) == 0:
        raise TypeError(
            f"keys: expected PRNG keys of shape (N,), one per member, got {arrays.describe(keys)}; "
            "write keys=jax.random.split(jax.random.key(0), N)"
        )
    return len(keys)


def stacked(params, members: int) -> tuple[Any, Any]:
    """The parameters, with layers as a tuple, and those of the first member, which must form a network."""
    params = tuple(params) if isinstance(params, list) else params
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if np.ndim(leaf) == 0 or len(leaf) != members:
            name = f"params{jax.tree_util.keystr(path)}"
            raise ValueError(
                f"{name}: expected a leading axis of {members} members, one per key, got {arrays.describe(leaf)}; "
                + STACKED
            )
    first = jax.tree.map(lambda leaf: leaf[0], params)
    try:
        return params, require_network(first)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error}; of the first member, without the leading axis: {STACKED}") from error


def in_memory(data, params, loss, name: str) -> Dataset:
    """The data, checked; raises ValueError if they are streamed."""
    data = for_network(data, kind(params).ports(params), loss, name)
    if data.chunk_bytes is not None:
        raise ValueError(
            f"{name}: expected arrays in memory, got streamed ones, {data}; "
            "write Dataset(np.array(x), np.array(y)), or fit one by one"
        )
    return data


def with_rates(states, learning_rates, members: int):
    """The optimizer's states, each with its rate; raises ValueError unless the rate is part of the state."""
    if learning_rates is None:
        return states
    rates = _require_rates(learning_rates, members)
    known = getattr(states, "hyperparams", {})
    if "learning_rate" not in known:
        raise ValueError(
            "optimizer: expected one whose learning rate is part of its state, because learning_rates are given; "
            + INJECTED
        )
    rate = known["learning_rate"]
    return states._replace(hyperparams={**known, "learning_rate": jnp.asarray(rates, rate.dtype)})


def _require_rates(learning_rates, members: int) -> np.ndarray:
    rates = np.asarray(learning_rates)
    if rates.shape != (members,):
        raise ValueError(
            f"learning_rates: expected {members} numbers, one per key, got {arrays.describe(learning_rates)}; "
            "write learning_rates=np.geomspace(0.01, 1, len(keys))"
        )
    for i, rate in enumerate(rates):
        number("fit_many", f"learning_rates[{i}]", rate, above=0)
    return rates


def require_members_mesh(mesh, members: int) -> None:
    """Raise TypeError or ValueError unless the devices of ``mesh``, if there is one, can share the members."""
    if mesh is None:
        return
    parallel.require_mesh(mesh, mesh.size if isinstance(mesh, jax.sharding.Mesh) else 1)
    if members % mesh.size:
        raise ValueError(
            f"keys: expected a multiple of {mesh.size}, the number of devices in mesh, got {members} members; "
            f"write mesh=fnn.parallel.data_mesh(jax.devices()[:{np.gcd(members, mesh.size)}])"
        )
    if jax.process_count() > 1:
        raise ValueError(
            f"mesh: expected the devices of one process, got {jax.process_count()} processes; "
            "write mesh=None, with different keys in every process"
        )
