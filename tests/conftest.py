"""One strict session for every test: warnings are errors (pyproject), four simulated devices.

All processes of a session, those that tests start too, share a new folder of compiled programs:
many compile the same ones.
Float64 is switched on per test with the `x64` fixture, so that float32 behaviour stays the default.
"""

import os
import shutil
import tempfile

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

_NEW_FOLDER = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the workers and what they start inherit it
    _NEW_FOLDER = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="dmbp-tests-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax  # noqa: E402 (it reads the environment)
import numpy as np  # noqa: E402
import pytest  # noqa: E402


def pytest_unconfigure(config):
    if _NEW_FOLDER and not hasattr(config, "workerinput"):
        shutil.rmtree(_NEW_FOLDER, ignore_errors=True)


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


@pytest.fixture(scope="module")
def quick_compilation():
    """For files that compile much and compute little: XLA without most of its optimisations.

    JAX's caches do not know this setting: what was compiled with it must not serve other files,
    which compare bytes with those of another process.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
