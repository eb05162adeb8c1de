"""The wheel and the sdist, installed in fresh environments without the network, do what they say."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from experiments.notebooks import pairs
from fnn.version import VERSION

pytestmark = [pytest.mark.project, pytest.mark.slow, pytest.mark.process]
pytest.importorskip("hatchling", reason="hatchling is not installed (the extra test has it)")
ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BUILD = "import sys; from hatchling import build; build.build_wheel(sys.argv[1]); build.build_sdist(sys.argv[1])"
ADDRESS = "https://host.test/owner/fnn"


def run(*command, cwd: Path, **environment: str) -> str:
    """What the command prints; its failure fails the test with what it said."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=clean | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel, with the sdist beside it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-c", BUILD, out, cwd=ROOT)
    return out / f"fnn-{VERSION}-py3-none-any.whl"


@pytest.fixture(scope="module")
def source(wheel, tmp_path_factory) -> Path:
    """The folder that the sdist holds."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(wheel.with_name(f"fnn-{VERSION}.tar.gz")) as file:
        file.extractall(folder, filter="data")
    return folder / f"fnn-{VERSION}"


def installed(package: Path, folder: Path) -> Path:
    """The Python of a fresh environment: what fnn depends on is this one's, and fnn is the package's."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=ROOT)
    python = folder / "bin" / "python"
    where = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    others = [folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")]
    (where / "others.pth").write_text("\n".join(others))
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *offline, package, cwd=folder)
    found = run(python, "-c", "import fnn; print(fnn.__file__)", cwd=folder).strip()
    assert Path(found) == where / "fnn" / "__init__.py"
    return python


def needed(wheel: Path, extra: str) -> set[Distribution]:
    """The distributions that the wheel and its extra need, and those that these need, in this environment."""
    asked = [(requirement, extra) for requirement in metadata_of(wheel).get_all("Requires-Dist")]
    found: dict[str, Distribution] = {}
    while asked:
        text, of = asked.pop()
        requirement = Requirement(text)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": one}) for one in {of, ""}):
            continue
        one = distribution(requirement.name)
        if one.metadata["Name"] not in found or requirement.extras:
            found[one.metadata["Name"]] = one
            asked += [(inner, each) for inner in one.requires or () for each in requirement.extras or {""}]
    return set(found.values())


def installed_alone(wheel: Path, extra: str, folder: Path) -> Path:
    """The Python of a fresh environment that sees the wheel, what its extra needs, and nothing else of this one's."""
    python = installed(wheel, folder)
    where = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (where / "others.pth").unlink()
    for one in needed(wheel, extra):
        for top in {Path(file).parts[0] for file in one.files or ()} - {"..", "__pycache__"}:
            if not (where / top).exists():
                (where / top).symlink_to(one.locate_file(top))
    return python


@pytest.mark.parametrize("name", pairs.names())
def test_a_notebook_runs_from_the_wheel_with_its_extra_outside_of_the_repository(name, wheel, tmp_path):
    python = installed_alone(wheel, "notebooks", tmp_path / "environment")
    for other in ("tqdm", "sklearn", "tyro", "experiments"):
        run(python, "-c", f"import importlib.util; assert not importlib.util.find_spec({other!r})", cwd=tmp_path)
    kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    start = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": start, "display_name": "Python 3", "language": "python"}))
    environment = {"JUPYTER_PATH": str(tmp_path / "jupyter"), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "experiments.notebooks", "--check", "--installed", name)
    run(*command, cwd=ROOT, JAX_ENABLE_COMPILATION_CACHE="false", **environment)


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_is_installed_runs_the_demo_and_passes_the_tests_of_a_file(kind, wheel, source, tmp_path):
    package = wheel if kind == "wheel" else wheel.with_name(f"fnn-{VERSION}.tar.gz")
    python = installed(package, tmp_path / "environment")
    assert run(python, "-m", "fnn", cwd=tmp_path).startswith(f"fnn {VERSION}, jax ")
    assert "WRONG" in run(python, "-m", "fnn", "demo", cwd=tmp_path)
    for name in ("tests", "pyproject.toml", "conftest.py"):  # beside them no fnn, so that the installed one is tested
        copy = shutil.copytree if (source / name).is_dir() else shutil.copy
        copy(source / name, tmp_path / name)
    passed = run(python, "-m", "pytest", "-q", "-n", "0", "tests/test_losses_values.py", cwd=tmp_path)
    assert re.search(r"\d+ passed", passed), passed


def test_the_sdist_holds_what_its_tests_and_the_main_job_need(source):
    """Every test file is imported there, and the digits are read; its own fnn is used, since it is in the folder."""
    run(sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "", "--collect-only", cwd=source)
    run(sys.executable, "-m", "experiments.mnist", "--help", cwd=source)
    code = "from experiments import digits; print(len(digits.load()[0]))"
    assert run(sys.executable, "-c", code, cwd=source) == "60000\n"
    tracked = (
        run("git", "ls-files", "fnn", "tests", "experiments", cwd=ROOT).split() if (ROOT / ".git").exists() else []
    )
    assert not [name for name in tracked if not (source / name).exists()]


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    assert {name.split("/")[0] for name in names} == {"fnn", f"fnn-{VERSION}.dist-info"}
    kinds = {".py", ".typed", ".npz", ".md", ".html", ".css", ".js"}
    assert {Path(name).suffix for name in names if name.startswith("fnn/")} == kinds
    assert wheel.stat().st_size < 1_000_000


def metadata_of(wheel: Path):
    with zipfile.ZipFile(wheel) as file:
        return Parser().parsestr(file.read(f"fnn-{VERSION}.dist-info/METADATA").decode())


def test_the_citation_names_the_version_and_the_authors():
    cited = dict(re.findall(r'(?m)^(\w[\w-]*): "?([^"\n]+)"?$', (ROOT / "CITATION.cff").read_text()))
    assert cited["version"] == VERSION == PROJECT["project"]["version"]
    assert f"- name: {PROJECT['project']['authors'][0]['name']}" in (ROOT / "CITATION.cff").read_text()


def test_the_metadata_name_authors_keywords_and_licences_and_no_address_that_is_not_set(wheel):
    found = metadata_of(wheel)
    assert found["Author"] == "the fnn authors"
    assert found["License-Expression"] == "Apache-2.0 AND CC-BY-4.0"
    assert set(found["Keywords"].split(",")) == set(PROJECT["project"]["keywords"])
    assert found.get_all("Classifier")
    address = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]
    assert bool(found.get_all("Project-URL")) == bool(address)


def test_the_address_of_the_repository_is_set_in_one_place(source, tmp_path):
    owned = shutil.copytree(source, tmp_path / "owned")
    text = (owned / "pyproject.toml").read_text()
    (owned / "pyproject.toml").write_text(re.sub(r'(?m)^repository = "[^"]*"', f'repository = "{ADDRESS}"', text))
    (owned / "README.md").write_text(README)
    run(sys.executable, "-c", BUILD, tmp_path, cwd=owned)
    found = metadata_of(tmp_path / f"fnn-{VERSION}-py3-none-any.whl")
    addresses = [value.split(", ", 1)[1] for value in found.get_all("Project-URL")]
    assert len(addresses) == 4
    assert all(address.startswith(ADDRESS) for address in addresses)
    assert found.get_payload().strip() == LED.strip()


README = """
![a picture](d.svg) [`code`](f.md#g) [h](#i) [j](https://k.test/) [![a linked picture](m.png)](n/)

```python
f[0](x)
```
"""
LED = f"""
![a picture]({ADDRESS}/raw/main/d.svg) [`code`]({ADDRESS}/blob/main/f.md#g) [h](#i) [j](https://k.test/) \
[![a linked picture]({ADDRESS}/raw/main/m.png)]({ADDRESS}/blob/main/n/)

```python
f[0](x)
```
"""
