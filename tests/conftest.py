"""The strictest settings for every test: no mixed dtypes, no key used twice, no warning (pyproject.toml)."""

import os

import jax
import pytest

# Most of the tests' time is compilation of what runs once. XLA_FLAGS= (empty) tests what users compile; CI does both.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # read when jax computes for the first time

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
