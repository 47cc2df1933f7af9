"""What `attribute` compiles to on a GPU, on machines that have none: needs `jax[cuda12]`.

The counting of kernels is checked by hand-written HLO, everywhere.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gpu_kernels import count_step, summary

from dmbp_jax.dmbp.loop import index_sign, select_sign

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "gpu_compile.py"
HAVE_CUDA = importlib.util.find_spec("jax_cuda12_plugin") is not None

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


def test_both_ways_of_reading_one_sign_agree(rng):
    both = tuple(jnp.asarray(rng.normal(size=(3, 2, 1, *shape))) for shape in ((4, 4, 2), (5,)))
    active = jnp.array([0, 1, 1])
    for read in (select_sign, index_sign):
        chosen = jax.jit(jax.vmap(read))(active, both)
        for one, pair in zip(chosen, both, strict=True):
            np.testing.assert_array_equal(one, np.asarray(pair)[np.arange(3), active])


@pytest.mark.skipif(not HAVE_CUDA, reason="jax[cuda12] is not installed")
@pytest.mark.parametrize("numbers", ["float32", "bfloat16"])
def test_the_loop_compiles_with_default_flags(numbers, tmp_path):
    target = tmp_path / "rows.json"
    command = [sys.executable, str(BENCHMARK), "--networks", "resnet50", "--batches", "2"]
    command += ["--size", "64", "--numbers", numbers, "--json", str(target)]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(target.read_text())
    # Three passes of ResNet50 at 64 x 64 are 2 images x 3 x 0.67 GFLOP, without the first layer.
    assert 3.0 < row["GFLOP"] < 4.2
    assert row["kernels"] > 100
