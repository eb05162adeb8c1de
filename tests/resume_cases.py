"""A small run with checkpoints, to be broken off, damaged and gone on with."""

import contextlib
import resource
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn import updates
from fnn.checkpoint import content, orbax
from fnn.train import fit
from networks import drawn

LOSS = fnn.SoftmaxCrossEntropy()
ADAM, MOMENTUM, SGD = optax.adam(1e-2), updates.momentum(0.1), updates.sgd(0.1)
KEY = jax.random.key(1)


def data(examples=43):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (examples, 5)).astype(np.uint8), random.integers(0, 3, examples)


network = partial(drawn, (5, 4, 3))


def train(directory, params=None, optimizer=SGD, *, examples=43, epochs=4, **options):
    settings = {"loss": LOSS, "batch_size": 10, "key": KEY, "progress": False, "checkpoint": directory} | options
    given = settings.pop("data", None) or fnn.data.Dataset(*data(examples))
    return fit(network() if params is None else params, given, optimizer, epochs=epochs, **settings)


def finished():
    """What ``fit`` says where it returns the result of a run that is finished."""
    return pytest.warns(UserWarning, match="holds this run, and .*: its result is returned and nothing is trained")


def run_of_two_epochs(directory):
    """The directory, as a run of two epochs leaves it."""
    for path, written in _two_epochs().items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(written)
    return directory


@cache
def _two_epochs() -> dict[Path, bytes]:
    with TemporaryDirectory() as folder:
        train(folder, epochs=2)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {path.relative_to(folder): path.read_bytes() for path in files}


def assert_same(ours, theirs):
    """The same structure, dtypes and bits."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def without_seconds(history):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


def damage(path, position=0.5):
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 1
    path.write_bytes(content)


def arrays(directory, epoch):
    """The files of an epoch's arrays, the largest first."""
    files = [path for path in (directory / str(epoch) / "state").rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: (-path.stat().st_size, path))


def settings_of(directory):
    """What ``fit`` wrote of its own arguments."""
    newest = orbax.epochs(directory)[-1]
    run = content.unpack_meta(orbax.read(directory, newest, "meta"))["run"]
    return {name: text for name, text in run.items() if not name.startswith(("params", "optimizer_state"))}


@contextlib.contextmanager
def files_of_at_most(size):
    """The system refuses to let a file grow beyond ``size`` bytes, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
