"""Compiler options: a CPU runs convolutions by XLA's own kernels; nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmbp_jax.engine import compiling
from dmbp_jax.engine.compiling import compiled, compiler_options, run


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def scaled(x, factor):
    return x * factor


@pytest.fixture
def fresh():
    """Options are found anew, before and after."""
    compiler_options.cache_clear()
    yield
    compiler_options.cache_clear()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the option is one for CPUs")
def test_a_cpu_runs_convolutions_by_xlas_own_kernels():
    rng = np.random.default_rng(0)
    # Large enough that XLA's defaults hand it over; small ones stay with XLA either way.
    x = rng.normal(size=(8, 56, 56, 64)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 64, 64)).astype(np.float32)
    program = compiled(convolve).lower(x, kernel).compile()
    assert "__ynn_fusion" not in program.as_text()

    padded = np.pad(x[:1].astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact = sum(
        padded[0, i : i + 56, j : j + 56] @ kernel[i, j].astype(np.float64)
        for i in range(3)
        for j in range(3)
    )
    np.testing.assert_allclose(program(x, kernel)[0], exact, rtol=1e-4, atol=1e-4)


def test_programs_are_found_again_and_the_oldest_are_forgotten(monkeypatch):
    kept, made = {}, []
    monkeypatch.setattr(compiling, "_without_network", kept)
    for factor in range(compiling.KEPT + 5):
        assert float(run(scaled, jnp.float32(2), factor=factor)) == 2 * factor
    assert len(kept) == compiling.KEPT
    newest = list(kept.values())[-1]
    run(scaled, jnp.float32(3), factor=factor)
    assert list(kept.values())[-1] is newest and len(kept) == compiling.KEPT
    assert compiling.find_program((), "key", lambda: made.append(1)) is None
    assert compiling.find_program((), "key", lambda: made.append(1)) is None and made == [1]


def test_inside_a_trace_a_program_is_a_part_of_it():
    assert float(jax.jit(lambda x: run(scaled, x, factor=4))(jnp.float32(2))) == 8
    assert jax.vmap(lambda x: run(scaled, x, factor=4))(jnp.ones(3)).tolist() == [4, 4, 4]


@pytest.mark.usefixtures("fresh")
def test_a_setting_of_the_user_is_left_alone(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--{compiling._OPTION}=individual_dot")
    assert compiler_options("cpu") is None


@pytest.mark.usefixtures("fresh")
def test_an_option_that_this_xla_does_not_have_is_left_out(monkeypatch):
    monkeypatch.setattr(compiling, "_OPTION", "xla_cpu_of_another_time")
    assert compiler_options("cpu") is None


def test_other_platforms_keep_their_defaults():
    assert compiler_options("gpu") is None
    assert compiler_options("tpu") is None
