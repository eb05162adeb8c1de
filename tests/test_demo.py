"""``python -m fnn`` says where to start, and its demo checks, trains and names a wrong equation."""

import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import fnn
from fnn import digits
from fnn.__main__ import START, main
from fnn.data import load_digits
from fnn.demo import show

EXTRAS = {"matplotlib", "orbax", "safetensors", "sklearn", "tqdm", "tyro"}


def test_the_first_lines_are_versions_and_devices(capsys):
    assert main([]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"fnn {fnn.__version__}, jax {jax.__version__}, Python 3.")
    assert second.startswith(f"devices: {jax.device_count()} ")


def test_every_place_to_start_exists():
    named = re.findall(r"help\(fnn\.(\w+)\.(\w+)\)", START)
    assert named
    for module, name in named:
        assert getattr(getattr(fnn, module), name).__doc__
    assert "python -m fnn demo" in START


def test_an_unknown_command_ends_with_the_known_ones(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["demon"])
    assert ended.value.code == 2
    assert "invalid choice: 'demon' (choose from" in capsys.readouterr().err


def test_the_digits_are_those_of_scikit_learn_in_two_parts():
    pytest.importorskip("sklearn", reason="the extra sklearn is not installed")
    from experiments import demo_digits

    training, test = load_digits()
    assert (len(training), len(test)) == (1500, 297)
    x, y = demo_digits.arrays()
    np.testing.assert_array_equal(np.concatenate([training.x, test.x]), x)
    np.testing.assert_array_equal(np.concatenate([training.y, test.y]), y)
    assert x.max() * training.scale == 1


@pytest.mark.parametrize("changed", ["x", "y"])
def test_digits_that_were_changed_are_refused(changed, tmp_path, monkeypatch):
    kept = digits.resources.files("fnn.demo")
    with kept.joinpath(digits.FILE).open("rb") as file, np.load(file) as arrays:
        wrong = {name: arrays[name].copy() for name in ("x", "y")}
    wrong[changed].flat[0] += 1
    np.savez_compressed(tmp_path / digits.FILE, **wrong)
    monkeypatch.setattr(digits.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"digits.npz: SHA-256 of its arrays is [0-9a-f]{64}, expected .* again"):
        load_digits()


def test_a_digit_is_drawn_with_two_characters_for_a_pixel():
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2, 3] = digits.INK
    assert show.picture(pixels.ravel()).split("\n") == ["", "", "         @@", "", "", "", "", ""]


@pytest.mark.slow
def test_the_demo_checks_trains_and_names_the_wrong_rule(capsys):
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()  # any terminal shows it
    assert max(map(len, out[: out.index("hand-written")].splitlines())) < 120
    assert out.index("all 8 equations agree") < out.index("epoch 1 ") < out.index("1 of 8 equations is wrong")
    wrong = [line for line in out.splitlines() if "WRONG" in line]
    assert len(wrong) == 1
    assert wrong[0].startswith("(2b) delta[1]")
    assert "sigma'(z[1]) is missing" in wrong[0]
    losses = [float(loss) for loss in re.findall(r"epoch \d +loss ([\d.]+)", out)]
    assert len(losses) == show.EPOCHS
    assert losses[-1] < losses[0] / 5
    said = re.search(r"still trains: ([\d.]+)% test accuracy instead of ([\d.]+)%", out)
    without, with_all = map(float, said.groups())
    assert without > 75
    assert with_all > 85


@pytest.mark.process
@pytest.mark.slow
def test_the_demo_needs_only_what_pip_installs_with_fnn():
    block = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS!r}))"  # importing one of them is an error
    code = f"{block}; from fnn.__main__ import main; main([]); assert 'optax' not in sys.modules; main(['demo'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WRONG" in done.stdout
