"""One strict session for every test: warnings are errors (pyproject), four simulated devices.

All processes of a session share a new folder of compiled programs: files compile the same ones.
Float64 is switched on per test with the `x64` fixture, so that float32 behaviour stays the default.
"""

import os
import shutil
import tempfile

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest

_FOLDER = "DMBP_TESTS_COMPILED"


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        os.environ[_FOLDER] = tempfile.mkdtemp(prefix="dmbp-tests-")
    jax.config.update("jax_compilation_cache_dir", os.environ[_FOLDER])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(_FOLDER), ignore_errors=True)


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
