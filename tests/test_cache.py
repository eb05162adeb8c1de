"""What is kept of compiled programs is this user's alone, because JAX runs whatever it finds there."""

import os
import stat
import subprocess
import sys

import pytest

from experiments import cache
from test_benchmarks_suite import ROOT, ask

MNIST = ["python", "-m", "experiments.mnist"]


@pytest.fixture
def folder(tmp_path):
    """Where it is kept; others may neither read nor write above it."""
    tmp_path.chmod(0o700)
    return tmp_path / "cache" / "fnn"


@pytest.fixture
def _umask():
    before = os.umask(0o002)
    yield
    os.umask(before)


def permissions(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("_umask")
def test_the_folder_is_created_for_this_user_alone_whatever_the_umask(folder):
    cache.make_private(folder)
    cache.make_private(folder / "mnist")
    cache.make_private(folder)  # and is taken again
    assert permissions(folder) == permissions(folder / "mnist") == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o711])
def test_a_folder_that_others_could_only_read_becomes_private(mode, folder):
    folder.mkdir(parents=True)
    folder.chmod(mode)
    cache.make_private(folder)
    assert permissions(folder) == 0o700


@pytest.mark.parametrize("mode", [0o775, 0o777, 0o1777, 0o770, 0o702, 0o720])
def test_a_folder_that_others_may_write_to_is_refused_with_the_reason(mode, folder):
    folder.mkdir(parents=True)
    folder.chmod(mode)
    with pytest.raises(PermissionError, match=r"others may write to .*fnn \(d[rwxtT-]{9}\); remove it"):
        cache.make_private(folder)
    assert permissions(folder) == mode


def test_a_folder_and_an_entry_of_another_user_are_refused(folder, monkeypatch):
    cache.make_private(folder)
    (folder / "mnist-cache").touch()
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.raises(PermissionError, match="fnn is another user's; set XDG_CACHE_HOME"):
        cache.make_private(folder)
    if owner == 0:  # who may give it away
        os.chown(folder, 1, 1)
        os.chown(folder / "mnist-cache", 2, 2)
        with pytest.raises(PermissionError, match="fnn/mnist-cache is another user's; remove .*fnn"):
            cache.make_private(folder)


def test_a_folder_that_others_may_replace_is_refused(folder):
    cache.make_private(folder)
    folder.parent.chmod(0o777)
    with pytest.raises(PermissionError, match=r"others may replace .*fnn: .*cache is writable for all \(drwxrwxrwx\)"):
        cache.make_private(folder)
    folder.parent.chmod(0o1777)  # as /tmp is: only what is one's own can be replaced
    cache.make_private(folder)


def test_a_link_to_a_folder_that_others_may_write_to_is_refused(folder, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / "shared")
    with pytest.raises(PermissionError, match="others may write to"):
        cache.make_private(folder)


def test_a_file_in_its_place_is_an_os_error(folder):
    folder.parent.mkdir()
    folder.touch()
    with pytest.raises(OSError, match="fnn"):
        cache.make_private(folder)


@pytest.mark.process
def test_a_program_says_why_nothing_is_kept_and_goes_on(tmp_path):
    pytest.importorskip("filelock")
    assert f"'{tmp_path / 'fnn' / 'mnist'}'" in ask(tmp_path, MNIST)
    (tmp_path / "fnn").chmod(0o777)
    said = ask(tmp_path, MNIST)
    assert said.startswith(
        f"Compiling: nothing is kept for the next run, because others may write to {tmp_path / 'fnn'}"
    )
    assert said.endswith("\n{}\n")
    shared = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-m", "experiments.mnist", "--help"], env=shared, cwd=ROOT, check=True)
