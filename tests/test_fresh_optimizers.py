"""Optimizers made anew for every run, but equal, cost neither another compilation nor memory."""

import gc

import jax
import optax
import pytest

from fnn.data import Dataset
from fnn.train import fit, loop
from networks import drawn
from resume_cases import KEY, LOSS, data
from test_train import compilations

DATA = Dataset(*data(20))
FRESH = {
    "adam": lambda i: optax.adam(1e-3),
    "adam of another rate": lambda i: optax.adam(1e-3 * (1 + i)),
    "a chain": lambda i: optax.chain(
        optax.clip_by_global_norm(1.0), optax.add_decayed_weights(1e-4), optax.sgd(0.1, 0.9)
    ),
    "a schedule": lambda i: optax.sgd(optax.cosine_decay_schedule(0.1, 100)),
}


def trained(fresh, fits, params=drawn((5, 4, 3))):
    for i in range(fits):
        fit(params, DATA, fresh(i), loss=LOSS, epochs=1, batch_size=10, key=KEY, progress=False)


def held():
    """Programs, arrays and Python objects that are alive."""
    gc.collect()
    programs = loop.take_steps._cache_size(), loop.start._cache_size()
    return programs, len(jax.live_arrays()), len(gc.get_objects())


@pytest.mark.parametrize(
    ("name", "fits"),
    [("adam", 40), *(pytest.param(name, 200, marks=pytest.mark.slow) for name in FRESH)],
)
def test_fresh_equal_optimizers_compile_once_and_leave_nothing(name, fits):
    fresh = FRESH[name]
    trained(fresh, 3)
    with compilations() as programs:
        trained(fresh, 1)
        before = held()
        trained(fresh, fits)
        after = held()
    assert programs == []
    assert after[:2] == before[:2]
    assert after[2] - before[2] < fits  # less than one object for each
