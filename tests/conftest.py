"""One strict session for every test: warnings are errors (pyproject), four simulated devices.

XLA compiles with few optimisations: the tests compile much and compute little. All processes of a
session, those that tests start too, share this setting and a new folder of compiled programs.
Float64 is switched on per test with the `x64` fixture, so that float32 behaviour stays the default.

A default test (one without the marker `slow`) fails if it takes more than `--cpu-seconds` of CPU
time, 3 unless told, or its fixtures more than twice that; 0 switches that off. CPU time and not the
clock, and more of it where importing JAX took more: a busy machine fails nothing. Children that the
test waited for count.
Python collects garbage seldom: what JAX traces is millions of objects, of which few are garbage.
"""

import ctypes
import gc
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

gc.set_threshold(50_000, 10, 10)  # 700 unless told: a tenth of the time of all tests

# For `benchmarks`, and last: the package itself is the installed one.
sys.path.append(str(Path(__file__).parents[1]))

_FLAGS = ["--xla_force_host_platform_device_count=4", "--xla_cpu_parallel_codegen_split_count=1"]
if version("jaxlib").startswith("0.10."):  # later ones end at a flag that they do not know
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # a third of the time of compiling
os.environ.setdefault("XLA_FLAGS", " ".join(_FLAGS))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

_NEW_FOLDER = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the workers and what they start inherit it
    _NEW_FOLDER = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="dmbp-tests-")
# A program that compiles faster costs more to write and to read: most are one operation each.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def _cpu_seconds() -> float:
    """Of this process, all its threads, and the children it has waited for."""
    return sum(os.times()[:4])


_BEFORE = _cpu_seconds()
import jax  # noqa: E402 (it reads the environment)

# A slow processor, or one that is shared, takes longer for this too; on a free one it is 0.5 s.
# Workers beside each other take up to twice what each would take alone.
_ALONE = 2.0 if "PYTEST_XDIST_WORKER" in os.environ else 1.0
SLOWNESS = max(_ALONE, (_cpu_seconds() - _BEFORE) / 0.5)

import numpy as np  # noqa: E402
import psutil  # noqa: E402
import pytest  # noqa: E402

MOST_BYTES = max(1.5e9, psutil.virtual_memory().total / 6)


def pytest_addoption(parser):
    parser.addoption(
        "--cpu-seconds",
        type=float,
        default=3.0,
        help="CPU seconds that a test without the marker `slow` may take; 0: any",
    )


def pytest_unconfigure(config):
    if _NEW_FOLDER and not hasattr(config, "workerinput"):
        shutil.rmtree(_NEW_FOLDER, ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """Modules and tests stay until the end: no later collection need look at them."""
    gc.collect()
    gc.freeze()


def _limited(item, times, what):
    """Runs the test or its fixtures, which several tests may share, and fails if it took long."""
    before = _cpu_seconds()
    yield
    taken = _cpu_seconds() - before
    allowed = times * SLOWNESS * item.config.getoption("cpu_seconds")
    if allowed and taken > allowed and not item.get_closest_marker("slow"):
        pytest.fail(
            f"Expected {what} to take {allowed:g} CPU seconds, got {taken:.1f}: make it smaller, "
            "or mark it `slow` (--cpu-seconds 0 switches this off).",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    yield from _limited(item, 2, "the fixtures of a default test")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    yield from _limited(item, 1, "a default test")


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    """Compiled programs are given up where a process has come to hold 1.5 GB, or a sixth of all."""
    yield
    if psutil.Process().memory_info().rss > MOST_BYTES:
        jax.clear_caches()
        gc.collect()
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)  # glibc keeps what is freed


@pytest.fixture
def rng():
    """Random numbers that do not depend on which tests ran before."""
    return np.random.default_rng(0)


@pytest.fixture
def x64():
    """Float64 for the length of one test."""
    before = jax.config.jax_enable_x64  # pyrefly: ignore[missing-attribute]
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)
