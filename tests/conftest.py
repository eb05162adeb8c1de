"""The strictest settings for every test: no mixed dtypes, no key used twice, no warning (pyproject.toml)."""

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
