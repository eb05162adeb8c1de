"""A mesh, and what a process says of it before it joins others; test_parallel.py has several devices and processes."""

import os

import jax
import numpy as np
import pytest

import fnn
from test_train import blobs, network, train


def test_the_mesh_has_one_axis_over_the_devices_given():
    mesh = fnn.parallel.data_mesh()
    assert mesh.axis_names == ("data",)
    assert list(mesh.devices.flat) == jax.devices()
    with pytest.raises(ValueError, match="devices: expected every device once"):
        fnn.parallel.data_mesh(jax.devices()[:1] * 2)
    with pytest.raises(TypeError, match="devices: expected at least one jax.Device, got \\[\\]"):
        fnn.parallel.data_mesh([])


def test_a_mesh_of_one_device_changes_nothing():
    data = blobs()
    one = train(network(), data, validation=data)
    same = train(network(), data, validation=data, mesh=fnn.parallel.data_mesh(jax.devices()[:1]))
    for ours, theirs in zip(jax.tree.leaves(one.params), jax.tree.leaves(same.params)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(one.history, same.history):
        assert ours | {"seconds": 0} == pytest.approx(theirs | {"seconds": 0}, rel=1e-5)


def test_another_mesh_than_one_of_data_is_refused():
    other = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
    with pytest.raises(TypeError, match="mesh: expected a mesh with one axis.*write fnn.parallel.data_mesh"):
        train(network(), blobs(), mesh=other)
    with pytest.raises(TypeError, match="mesh: expected a mesh with one axis, got 8"):
        train(network(), blobs(), mesh=8)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"coordinator_address": "10.0.0.1"}, "coordinator_address: expected 'host:port' with a port"),
        ({"coordinator_address": "10.0.0.1:0"}, "coordinator_address: expected 'host:port' with a port"),
        ({"coordinator_address": "a:1", "bind_address": ":9"}, "bind_address: expected 'host:port'"),
        ({"num_processes": 0}, "num_processes: expected at least 1"),
        ({"num_processes": 2, "process_id": 2}, "process_id: expected an integer, 0 … 1, got 2"),
        ({"process_id": -1}, "process_id: expected an integer, 0 …, got -1"),
        ({"heartbeat_timeout": 0}, "heartbeat_timeout: expected at least 1"),
        ({"collective_timeout": 0}, "collective_timeout: expected at least 1"),
    ],
)
def test_a_wrong_argument_of_initialize_is_named_before_anything_is_set(arguments, complaint):
    before = os.environ.get("XLA_FLAGS")
    with pytest.raises(ValueError, match=complaint):
        fnn.parallel.initialize(**arguments)
    assert os.environ.get("XLA_FLAGS") == before


def test_a_batch_norm_whose_axis_is_not_there_is_an_error_that_names_it():
    norm = fnn.BatchNorm(np.ones(4, np.float32), np.zeros(4, np.float32), axis="data")
    layer = fnn.Dense(np.ones((4, 3), np.float32), np.zeros(4, np.float32), fnn.Tanh(), norm)
    with pytest.raises(ValueError, match="BatchNorm.axis: there is no mesh axis 'data' here; write axis=None"):
        fnn.forward((layer,), np.ones((5, 3), np.float32))
