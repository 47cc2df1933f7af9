"""What `attribute` compiles to on a GPU, on machines that have none: needs a CUDA plugin of JAX.

The counting of kernels is checked by hand-written HLO, everywhere.
"""

import importlib.util
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short_methods import slow_beside
from small_networks import NETWORKS, apply_fn_of, make_image, make_params

import dmbp_jax
from benchmarks.gpu.gpu_compile import Kernel, count_step, summary
from benchmarks.gpu.gpu_profile import Profile, lines
from dmbp_jax.dmbp import loop
from dmbp_jax.dmbp.loop import index_sign, select_sign
from dmbp_jax.graph.model import bind
from dmbp_jax.graph.tracing import trace

ROOT = Path(__file__).parents[2]
PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
HAVE_CUDA = any(importlib.util.find_spec(plugin) is not None for plugin in PLUGINS)

HLO = """\
HloModule step

%fused_slice (p0: f32[8,4], p1: s32[]) -> f32[2,4] {
  %p0 = f32[8,4]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %part = f32[2,4]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={2,4}
}

%fused_dot (q0: bf16[16,8], q1: bf16[8,4]) -> bf16[16,4] {
  %q0 = bf16[16,8]{1,0} parameter(0)
  %q1 = bf16[8,4]{1,0} parameter(1)
  ROOT %dot = bf16[16,4]{1,0} dot(%q0, %q1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (s: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %s = (s32[], f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = f32[8,4]{1,0} get-tuple-element(%s), index=1
  %a = bf16[16,8]{1,0} constant({...})
  %b = bf16[8,4]{1,0} constant({...})
  %read = f32[2,4]{1,0} fusion(%x, %i), kind=kLoop, calls=%fused_slice
  %product = bf16[16,4]{1,0} fusion(%a, %b), kind=kCustom, calls=%fused_dot, config="__triton_gemm"
  %same = f32[4,8]{1,0} bitcast(%x)
  %twice = f32[8,4]{1,0} add(%x, %same)
  %library = (f32[8,8]{1,0}, s8[1000]{0}) custom-call(%x, %same), CUBLAS
  ROOT %next = (s32[], f32[8,4]{1,0}) tuple(%i, %twice)
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0} parameter(0)
  %i = s32[] constant(0)
  %start = (s32[], f32[8,4]{1,0}) tuple(%i, %x)
  %loop = (s32[], f32[8,4]{1,0}) while(%start), condition=%go, body=%body
  ROOT %out = f32[8,4]{1,0} get-tuple-element(%loop), index=1
}
"""
CUBLAS = 'custom_call_target="__cublas$lt$matmul", config={"lhs_contracting_dimensions":["1"]}'


def test_kernels_bytes_and_flops_of_hlo_counted_by_hand():
    step = count_step(HLO.replace("CUBLAS", CUBLAS))
    assert step.kernels == {
        "fusion, loop": 1,
        "product, Triton": 1,
        "add": 1,
        "__cublas$lt$matmul": 1,
    }
    assert step.bytes["fusion, loop"] == 2 * 4 * 4 * 2 + 4  # the slice, read and written; the index
    assert step.bytes["product, Triton"] == 2 * (16 * 8 + 8 * 4 + 16 * 4)
    assert step.bytes["add"] == 4 * 32 * 2  # a bitcast is the same array, and is read once
    assert step.bytes["__cublas$lt$matmul"] == 4 * (32 + 64)  # without its workspace
    assert step.flops["product, Triton"] == 2 * 16 * 8 * 4
    assert step.flops["__cublas$lt$matmul"] == 2 * 8 * 8 * 4
    assert summary(step)["kernels"] == 4


def test_the_least_time_of_a_step_is_that_of_every_kernel():
    step = count_step(HLO.replace("CUBLAS", CUBLAS))
    launches = 4 * 2e-6
    moved, products = sum(step.bytes.values()), 2 * 16 * 8 * 4 + 2 * 8 * 8 * 4
    assert step.least_seconds(1e30, 1e9) == pytest.approx(moved / 1e9 + launches)
    # Now the two products take longer than what they move, and the other two do not.
    other = step.bytes["fusion, loop"] + step.bytes["add"]
    expected = products / 1e6 + other / 1e9 + launches
    assert step.least_seconds(1e6, 1e9) == pytest.approx(expected)


def test_both_ways_of_reading_one_sign_agree(rng):
    both, gated = (
        tuple(jnp.asarray(rng.normal(size=(3, 2, 1, *shape))) for shape in ((4, 4, 2), (5,)))
        for _ in range(2)
    )
    active = jnp.array([0, 1, 1])
    divided = tuple(
        h[jnp.arange(3), active] / u[jnp.arange(3), active]
        for h, u in zip(gated, both, strict=True)
    )
    for pooled in ((False, False), (True, False), (True, True)):
        for read in (select_sign, partial(index_sign, pooled=pooled)):
            chosen = jax.jit(jax.vmap(read))(active, both, gated, divided)
            for one, pair in zip(chosen, both, strict=True):
                expected = np.asarray(pair)[np.arange(3), active]
                np.testing.assert_allclose(
                    one, expected, rtol=1e-12 if one.dtype == float else 1e-6
                )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", slow_beside(NETWORKS, "dense", "conv", "pointwise", "residual"))
def test_what_a_gpu_runs_has_the_gradient_of_what_a_cpu_runs(name, monkeypatch, rng):
    layers = NETWORKS[name]
    x = jnp.asarray(make_image(0))[None]
    graph = trace(bind(make_params(layers, 0), apply_fn_of(layers)), x).graph()
    theta = tuple(jnp.asarray(rng.normal(size=site.shape)) for site in graph.masked)

    def found():
        call = partial(loop.terms_and_gradient, graph.freeze(x), theta)
        return jax.jit(lambda: call(jnp.int32(1), dmbp_jax.DMBP()))()

    expected = found()
    monkeypatch.setattr(loop, "select_sign", partial(index_sign, pooled=graph.pooled))
    for one, other in zip(jax.tree.leaves(found()), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_where_pools_alone_read_an_activation():
    def network(_, x):
        first = jax.nn.relu(x)
        pooled = jax.lax.reduce_window(
            first, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        )
        second = jax.nn.relu(pooled - 0.1)
        both = second + jax.lax.reduce_window(
            second, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME"
        )
        return jax.nn.relu(both - 0.1).mean((1, 2))

    image = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)
    assert trace(bind(None, network), image).graph().pooled == (True, False, False)


def test_the_table_of_a_profile():
    fast = Kernel("fast", "copy", "f32[4]", bytes=3_000_000, flops=0)
    slow = Kernel("slow", "product", "f32[8]", bytes=1_000_000, flops=8_000_000)
    found = Profile(step=7e-3, compiling=1.5, kernels=[(fast, 3e-3), (slow, 4e-3)], others=1e-6)
    table = lines(found, flops=4e9, bandwidth=1e9, worst=1)  # 3 ms by bytes, 2 ms by FLOPs
    assert [line.split() for line in table[1:4]] == [
        ["product", "1", "0.00", "0", "2.00", "ms", "4.00", "ms", "50%"],
        ["copy", "1", "0.00", "0", "3.00", "ms", "3.00", "ms", "100%"],
        ["all", "2", "0.00", "0", "5.00", "ms", "7.00", "ms", "71%"],
    ]
    assert "5.00 ms = 71%" in table[5]
    assert len(table) == 7
    assert "slow" in table[6]


@pytest.mark.skipif(not HAVE_CUDA, reason="no CUDA plugin of JAX is installed")
@pytest.mark.parametrize("numbers", ["float32", "bfloat16"])
def test_the_loop_compiles_with_default_flags(numbers, tmp_path):
    target = tmp_path / "rows.json"
    command = [sys.executable, "-m", "benchmarks", "gpu_compile", "--networks", "resnet50"]
    command += ["--batches", "2", "--size", "64", "--numbers", numbers, "--json", str(target)]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(target.read_text())
    # Three passes of ResNet50 at 64 x 64 are 2 images x 3 x 0.67 GFLOP, without the first layer.
    assert 3.0 < row["GFLOP"] < 4.2
    assert row["kernels"] > 100
