"""Runs that are killed, and checkpoints that are damaged, at random: nothing wrong is ever gone on from."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

import interrupted
from fnn import checkpoint
from fnn.checkpoint import orbax
from resume_cases import assert_same, finished, settings_of, without_seconds

PROGRAM = Path(interrupted.__file__)
KILLS, DAMAGES = 10, 100


@contextlib.contextmanager
def program(directory, cache, *arguments):
    """The training program in a process of its own; its output is that of interrupted.py."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(PROGRAM.parents[1])}
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, PROGRAM, directory, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def state_of(directory, epochs):
    """What a run left: parameters, optimizer's state, history without its clock times."""
    with finished():
        run = interrupted.train(directory, epochs=epochs)
    templates = run.params, jax.jit(interrupted.OPTIMIZER.init)(run.params)
    restored = checkpoint.restore(directory, *templates, run=settings_of(directory))
    assert_same(restored.params, run.params)
    return run.params, restored.optimizer_state, without_seconds(run.history)


def epochs_in(lines):
    return [int(line) for line in lines if line.strip().isdigit()]


@pytest.mark.process
def test_a_run_that_is_killed_at_random_moments_ends_bitwise_as_one_that_was_not(tmp_path):
    random = np.random.default_rng(0)
    with program(tmp_path / "whole", tmp_path / "cache") as process:
        assert process.stdout.read().endswith("ended\n")
    saving, reached = 0, [0]
    for number in range(KILLS):
        with program(tmp_path / "killed", tmp_path / "cache") as process:
            lines = iter(process.stdout.readline, "")
            assert next(lines) == "begun\n"
            soon = number % 4 == 0  # on the way to the first epoch, or while it is saved
            seen = [next(lines) for _ in range(random.integers(0, 10 if soon else 300))]
            process.send_signal(signal.SIGKILL)
            seen += process.stdout.read().splitlines()
            assert "ended" not in seen, "the run ended before it was killed: it needs more epochs"
            assert process.wait() == -signal.SIGKILL
        reached += epochs_in(seen)[-1:]
        saving += any("tmp" in path.name for path in (tmp_path / "killed").glob("*"))
    with program(tmp_path / "killed", tmp_path / "cache") as process:
        assert process.stdout.read().endswith("ended\n")
    print(f"{KILLS} kills, {saving} of them while saving, after the epochs {reached[1:]}")
    assert saving
    assert reached[-1] > 10
    ours, theirs = (state_of(tmp_path / name, interrupted.EPOCHS) for name in ("killed", "whole"))
    assert_same(ours[:2], theirs[:2])
    assert ours[2] == theirs[2]


def lines_of(process, into):
    """Add what a process says, with its number, to a list, from a thread of its own."""

    def listen():
        for line in process.stdout:
            into.append((process.pid, line.strip()))

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    return thread


@pytest.mark.process
@pytest.mark.parametrize(
    "kills", [pytest.param(10, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.exhaustive)]
)
def test_of_two_runs_that_contend_for_one_directory_and_are_killed_nothing_is_lost_and_nothing_mixed(kills, tmp_path):
    """Two processes want the directory, and whenever one is killed, the other or a new one goes on."""
    random, epochs = np.random.default_rng(kills), 15 * kills + 100
    run, log, said = tmp_path / "run", tmp_path / "log.jsonl", []
    arguments = run, tmp_path / "cache", epochs, log
    with contextlib.ExitStack() as context:
        contenders = [context.enter_context(program(*arguments)) for _ in range(2)]
        listeners = [lines_of(process, said) for process in contenders]
        saving, owners = 0, 0
        for _ in range(kills):
            seen, wanted = len(said), random.integers(1, 300)
            while len(said) < seen + wanted and any(process.poll() is None for process in contenders):
                time.sleep(0.001)
            number = int(random.integers(2))  # the one that trains, or the one that waits
            owners += contenders[number].pid == said[-1][0]
            contenders[number].kill()
            assert contenders[number].wait() == -signal.SIGKILL, (
                "a run ended before it was killed: it needs more epochs"
            )
            listeners[number].join()
            saving += any(".tmp-" in path.name for path in run.glob("*"))
            contenders[number] = context.enter_context(program(*arguments))
            listeners[number] = lines_of(contenders[number], said)
        for process, listener in zip(contenders, listeners):
            assert process.wait() == 0
            listener.join()
    print(f"{kills} kills, {owners} of the one that trained, {saving} while saving")
    assert owners
    assert_one_at_a_time(said)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [record["epoch"] for record in records] == [*range(1, epochs + 1)]
    *ours, history = state_of(run, epochs)
    whole = interrupted.train(None, epochs)
    assert_same(tuple(ours), (whole.params, whole.state.optimizer_state))
    assert history == without_seconds(whole.history) == without_seconds(records)
    assert {path.name for path in run.iterdir()} == {str(epoch) for epoch in range(epochs - 2, epochs + 1)}


def assert_one_at_a_time(said):
    """Each process trains epochs in a row, and goes on at most two before where the one before it was."""
    told = [(process, int(line)) for process, line in said if line.isdigit()]
    for (one, before), (other, epoch) in zip(told, told[1:]):
        assert epoch == before + 1 if one == other else before - 1 <= epoch <= before + 1
    in_a_row = [process for process, _ in itertools.groupby(told, key=lambda line: line[0])]
    assert len(in_a_row) == len(set(in_a_row))


@pytest.mark.process
def test_sigterm_ends_the_program_with_its_epoch_saved(tmp_path):
    with program(tmp_path / "run", tmp_path / "cache") as process:
        lines, seen = iter(process.stdout.readline, ""), []
        while len(epochs_in(seen)) < 3:
            seen.append(next(lines))
        process.send_signal(signal.SIGTERM)
        seen += process.stdout.read().splitlines()
        assert process.wait() == 143
    assert orbax.epochs(tmp_path / "run")[-1] == epochs_in(seen)[-1] < interrupted.EPOCHS


def flip(path, random):
    content = bytearray(path.read_bytes())
    content[random.integers(len(content))] ^= 1 << random.integers(8)
    path.write_bytes(content)


def truncate(path, random):
    os.truncate(path, random.integers(path.stat().st_size))


def delete(path, random):
    path.unlink()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # see unheard in test_resume_trouble.py
@pytest.mark.slow
def test_every_damage_is_detected_or_does_not_matter(tmp_path):
    random = np.random.default_rng(1)
    states = {}
    original = tmp_path / "original"
    for epoch in (1, 2, 3):
        params = interrupted.train(original, epochs=epoch).params
        state = jax.jit(interrupted.OPTIMIZER.init)(params)
        run = settings_of(original)
        states[epoch] = checkpoint.restore(original, params, state, run=run)
    outcomes = {}
    for number in range(DAMAGES):
        copy = tmp_path / "copy"
        shutil.copytree(original, copy)
        worst = [3, 3, 3, 2, 1][number % 5]  # now and then in an older one, or in all
        for epoch in range(3, worst - 1, -1):
            files = sorted(path for path in (copy / str(epoch)).rglob("*") if path.is_file() and path.stat().st_size)
            how = [flip, truncate, delete][random.integers(3)]
            sizes = np.array([path.stat().st_size for path in files])
            how(files[random.choice(len(files), p=sizes / sizes.sum() if number % 2 else None)], random)
        outcome = restored_from(copy, params, state, run, states)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        shutil.rmtree(copy)
    print(f"{DAMAGES} damages: {outcomes}")
    assert {"right, epoch 3", "right, epoch 2, with a warning", "refused"} <= set(outcomes)


def restored_from(directory, params, state, run, states):
    """What became of a damaged directory; fails where anything is restored that is not what was saved."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = checkpoint.restore(directory, params, state, run=run)
        except ValueError as error:
            if "none in" not in str(error):
                raise
            return "refused"
    right = states[found.epoch]
    assert_same((found.params, found.optimizer_state, found.key), (right.params, right.optimizer_state, right.key))
    assert found[3:] == right[3:]
    warned = any(f"resuming from epoch {found.epoch}" in str(warning.message) for warning in caught)
    assert warned == (found.epoch < 3)
    return f"right, epoch {found.epoch}" + ", with a warning" * warned
