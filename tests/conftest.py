"""The strictest settings for every test, programs that compile quickly, and what the last line says."""

import os
import signal

import jax
import jaxlib
import pytest

# Almost all of the tests' time is the compilation of programs that run once. XLA_FLAGS= (empty) compiles as users do.
FLAGS = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if jaxlib.__version__.startswith("0.10."):  # later versions do not know it, and end the process at an unknown flag
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))  # read when jax computes for the first time
# Some tests claim that numbers are equal to the last bit. On a CPU they are; on a GPU sums by atomic additions and
# autotuned kernels may differ from one call to the next, unless XLA is told to use neither.
os.environ["XLA_FLAGS"] += " --xla_gpu_deterministic_ops=true"

# A GPU rounds factors to TF32 by default, a TPU to bfloat16. The variable is for processes that tests start: a run that
# begins in one and resumes in the test has the same settings.
os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_interrupts():
    """Tests send it to themselves, and what a shell starts in the background ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_are_dropped():
    """A worker would keep every program of every module: 4.6 GB in all."""
    yield
    jax.clear_caches()


def pytest_addoption(parser):
    parser.addoption("--part", default="1/1", help="K/N: of the chosen tests only the K-th of N parts (K from 1)")


@pytest.hookimpl(trylast=True)  # after -m and -k have chosen
def pytest_collection_modifyitems(config, items):
    """Leave out the tests that are in another part."""
    part, parts = map(int, config.getoption("--part").split("/"))
    names = sorted(item.nodeid for item in items)
    others = {name for i, name in enumerate(names) if i % parts != part % parts}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in others])
    items[:] = [item for item in items if item.nodeid not in others]


def pytest_unconfigure(config):
    """The last line of a default run: what it left out, and how to run it."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and config.option.markexpr == DEFAULT and not hasattr(config, "workerinput"):
        terminal.write_line(LEFT_OUT)


LEFT_OUT = 'not run: pytest -m slow, -m process, -m project; all of them: pytest -m "" (tests/README.md)'
DEFAULT = "not slow and not process and not project and not exhaustive"
