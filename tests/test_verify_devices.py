"""The oracle is computed on the CPU, and what is judged on the device where the user computes."""

import json

import jax
import jax.numpy as jnp
import pytest

from fnn import verify
from fnn.verify import devices
from test_parallel import TESTS, printed


@pytest.mark.process
def test_the_oracle_is_on_the_first_cpu_device_and_a_rule_where_the_user_computes():
    found = json.loads(printed([TESTS / "verify_devices_cases.py"], devices=2))
    seen = found["seen"]
    assert found["ok"] == [True] * 6
    assert seen["cumlogsumexp"] == [1]  # in rules and hand-written derivatives alone
    assert seen["scatter-add"] == [0]  # in autodiff of a sort alone
    assert (seen["_oracle"], seen["_by_hand"]) == ([0], [1])
    assert (seen["reference"], 1 in seen["kernel"]) == ([0], True)
    assert found["after"] == [1]


def test_where_jax_has_no_cpu_the_report_says_that_autodiff_ran_on_the_accelerator(monkeypatch):
    def none(**_):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax, "local_devices", none)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    devices.cpu.cache_clear()
    try:
        report = verify.gradient(lambda w: 2 * w, lambda w: (w**2).sum(), jnp.ones(3))
    finally:
        devices.cpu.cache_clear()
    assert report.ok
    assert report.notes == (
        "autodiff ran on the tpu, because JAX_PLATFORMS leaves out the CPU; JAX_PLATFORMS=tpu,cpu lets it run there",
    )


def test_what_exists_for_the_users_platform_alone_runs_there(monkeypatch):
    """As a kernel that has no version for the CPU: it is called again where the user computes."""
    monkeypatch.setattr(devices, "_is_default", lambda *_: False)
    calls = []

    def call():
        calls.append(jax.config.values["jax_default_device"])
        if len(calls) == 1:
            raise ValueError("Only interpret mode is supported on CPU backend.")
        return 3

    with devices.on_cpu():
        assert devices.on_cpu_if_possible(call) == 3
    assert calls == [devices.cpu(), None]
