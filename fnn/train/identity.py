"""A run's identity: everything that affects its result, as text by name.

A checkpoint stores it, so that a different run is refused with the difference named, and several processes compare it
before the first step. ``fingerprint.argument`` says by which argument's name, in ``fit(..., allow=)``, an entry may
differ. What is compared:

    data, validation   the SHA-256 of arrays in memory; of memory-mapped ones the file's size, the dtype, the shape and
                       the SHA-256 of 64 blocks of 64 KiB spread over the rows; of ``Batches`` their ``identity``
    initial params     the SHA-256 of their values before the first step
    optimizer          its text with its numbers, and the programs of its ``init`` and ``update`` with their constants
    loss, rules        their texts, and the programs of the loss with (1) and of the network's two passes
    flags              the settings of JAX and XLA that change numbers
    and                key, batch_size, dropout, precision, reduction, keep, patience, batches_per_epoch

These may differ freely: ``epochs``, ``callback``, ``progress``, ``log``, ``every``, ``every_steps``, ``mesh``,
``shard``.
"""

import hashlib
import os
from typing import NamedTuple

import jax
import numpy as np

from fnn.backward import RULES
from fnn.checkpoint.fingerprint import (
    NO_IDENTITY,
    content,
    describe,
    digest,
    digest_of,
    form,
    functions,
    key_text,
    static,
)
from fnn.checkpoint.programs import program
from fnn.checks.arrays import file_size, map_of
from fnn.checks.targets import columns
from fnn.data import Dataset
from fnn.functions import Objective
from fnn.kinds import kind
from fnn.markup import counted
from fnn.optimizers import Optimizer
from fnn.precision import BFLOAT16
from fnn.runs import Run
from fnn.streams import Batches
from fnn.train.loop import first_step, start

BLOCKS, BLOCK_BYTES = 64, 1 << 16  # of a memory map
EXAMPLES = 2  # in the programs that are traced: batch norms need two, and a change of batch_size is none of them
INITIAL = "initial params"
SHOWN = 16  # digits of a digest
FLAGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_disable_jit",
    "jax_disable_most_optimizations",
    "jax_optimization_level",
)
ENVIRONMENT = ("NVIDIA_TF32_OVERRIDE", "LIBTPU_INIT_ARGS")
HARMLESS = ("--xla_force_host_platform_device_count", "--xla_cpu_collective", "--xla_dump", "--xla_gpu_autotune_level")


class Given(NamedTuple):
    """What decides a run's result, as ``fit`` has checked it; before: the run that is resumed, or one of no epochs."""

    before: Run
    data: Dataset | Batches
    validation: Dataset | None
    optimizer: Optimizer
    objective: Objective
    settings: dict[str, str]


def settings(objective: Objective, **plain) -> dict[str, str]:
    """The part of the identity that costs nothing: names → texts; plain: further arguments of ``fit``."""
    key, dropout = plain.pop("key"), plain.pop("dropout")
    rules = objective.rules
    texts = {name: str(value) for name, value in plain.items()} | {"reduction": objective.reduction}
    texts["precision"] = "bfloat16" if rules == BFLOAT16 else "None"
    texts |= {"key": key_text(key), "loss": static(objective.loss)}
    texts["rules"] = functions(RULES if rules == BFLOAT16 else rules)
    return texts | describe("dropout", dropout, leaf=content)


def identity(given: Given) -> dict[str, str]:
    """All of it."""
    texts = given.settings | {"optimizer": str(given.optimizer)} | _programs(given)
    return (
        texts
        | {INITIAL: _initial(given.before)}
        | of_data("data", given.data)
        | of_data("validation", given.validation)
        | flags()
    )


def _initial(before: Run) -> str:
    """The parameters with which the run began; of a resumed one that was never saved, those it resumes with."""
    told = (before.state.same or {}).get(INITIAL)
    after = f", after {counted(before.state.epoch, 'epoch')}" if before.state.epoch else ""
    return told or f"SHA-256 {digest_of(before.params)[:SHOWN]}{after}"


def of_members(params) -> dict[str, str]:
    """The initial parameters of all members that are trained together."""
    return {INITIAL: f"SHA-256 {digest_of(params)[:SHOWN]}"}


def of_data(name: str, data: Dataset | Batches | None) -> dict[str, str]:
    """The identity of data: one entry per field."""
    if data is None:
        return {name: "None"}
    if isinstance(data, Batches):
        return {name: NO_IDENTITY if data.identity is None else f"Batches {data.identity!r}"}
    fields = {"x": data.x, "y": data.y, "weights": data.weights}
    texts = {f"{name}.{field}": "None" if array is None else of_array(array) for field, array in fields.items()}
    return texts | {f"{name}.scale": repr(data.scale)}


def of_array(array: np.ndarray) -> str:
    """The dtype, the shape, and the SHA-256 of all values, or of samples of a memory-mapped array."""
    file = map_of(array)
    if file is None:
        return f"{form(array)}, SHA-256 {digest(array)[:SHOWN]}"
    rows = max(1, BLOCK_BYTES // max(1, array[:1].nbytes))
    found = hashlib.sha256()
    for first in sorted({*np.linspace(0, max(0, len(array) - rows), BLOCKS).astype(int).tolist()}):
        found.update(digest(np.asarray(array[first : first + rows])).encode())
    return f"{form(array)} in a file of {file_size(file)} bytes, SHA-256 of samples {found.hexdigest()[:SHOWN]}"


def flags() -> dict[str, str]:
    """The settings of JAX and XLA that change numbers."""
    texts = {name: str(getattr(jax.config, name)) for name in FLAGS if hasattr(jax.config, name)}
    ours = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(HARMLESS)]
    texts |= {name: os.environ.get(name, "None") for name in ENVIRONMENT}
    return texts | {"XLA_FLAGS": " ".join(sorted(ours)) or "None"}


def _programs(given: Given) -> dict[str, str]:
    """The digests of what is computed, which names and texts may hide."""
    texts = _of_examples(given) | {"optimizer program": _of_optimizer(given.optimizer, given.before.params)}
    return {name: f"SHA-256 {text[:SHOWN]}" for name, text in texts.items()}


def _of_optimizer(optimizer: Optimizer, params) -> str:
    """``init`` and ``update``, and the rates, which are not constants of these programs but their arguments."""
    state = jax.eval_shape(start, optimizer, params)[1]
    parts = program(first_step, optimizer, params, state), program(start, optimizer, params), digest_of(optimizer)
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _of_examples(given: Given) -> dict[str, str]:
    """The network's two passes, and the loss with its δ, for two examples, or as many as a mini-batch needs."""
    try:
        return _of_so_many(given, EXAMPLES)
    except Exception:  # a loss or a rule of the user's may take whole mini-batches only
        return _of_so_many(given, int(given.settings["batch_size"]))


def _of_so_many(given: Given, examples: int) -> dict[str, str]:
    params, (loss, _, rules) = given.before.params, given.objective
    rules = RULES if rules == BFLOAT16 else rules  # which has an entry of its own
    of = kind(params)
    ports, activations = of.ports(params), []

    def passes(params, x):
        params, x, masks = of.given(params, x, None, rules)
        outputs = of.forward(rules, params, x, masks)
        activations.append(outputs.activation)
        return outputs.a, of.backward(rules, params, masks, outputs.passed, outputs.z).gradients

    def of_loss(z, a, y):
        return loss.value(a, y), rules.output_delta(loss, activations[-1], z, a, y)

    x, a = (jax.ShapeDtypeStruct((examples, n), ports.dtype) for n in (ports.n_in, ports.n_out))
    return {"network program": program(passes, params, x), "loss program": program(of_loss, a, a, _target(given, a))}


def _target(given: Given, a: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The targets of outputs a; of ``Batches``, which are not drawn yet, what the loss takes."""
    loss, (examples, n_out) = given.objective.loss, a.shape
    if not isinstance(given.data, Batches):
        y = given.data[:1].targets(kind(given.before.params).ports(given.before.params))
        return jax.ShapeDtypeStruct((examples, *y.shape[1:]), y.dtype)
    if loss.takes_labels:
        return jax.ShapeDtypeStruct((examples,), np.int32)
    return jax.ShapeDtypeStruct((examples, columns(loss, n_out)[0]), a.dtype)
