"""What is timed side by side: plain forwards, dmbp-jax and its parts, and PyTorch twice.

A contender compiles and warms up when it is built; `run` then takes some steps and waits.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

import dmbp_jax
from benchmarks.gpu.gpu_kernels import count_step
from benchmarks.speed.jax_loop import Convolutions, Forward, Loop
from dmbp_jax.engine.compiling import compiler_options

TITLES = {  # in the order of every round
    "forward": "plain forward",  # compiled with the loop's options
    "forward-default": "the same, JAX's options",
    "jax": "DMBP, dmbp-jax",
    "convolutions": "its convolutions alone",
    "torch-gated": "DMBP, best PyTorch",
    "torch-double": "DMBP, double back-prop.",
}
_STEPS_COMPARED = 3


@dataclass(frozen=True)
class Case:
    """One network, batch and arithmetic."""

    name: str
    network: dmbp_jax.Network
    x: jax.Array
    labels: jax.Array
    numbers: str
    config: dmbp_jax.DMBP
    steps: int  # a call
    torch_compile: bool
    cuda_graph: bool


@dataclass
class Contender:
    """Something to time.

    Attributes:
      run: takes `steps` steps and waits for them.
      first_step: seconds until the first step was done, compilation included.
      terms: (N, steps, 3), y⁺, y⁻ and ỹ of the first steps.
      facts: what else it knows: "memory" in bytes, "flops" of a step, "kernels" of one on a GPU.
      note: what the reader of the table should know.
    """

    run: Callable[[], Any]
    steps: int
    first_step: float
    terms: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def build(key: str, case: Case) -> Contender:
    """Make and warm up the contender of a key of `TITLES`."""
    begin = time.perf_counter()
    if key in ("forward", "forward-default"):
        options = compiler_options(jax.default_backend()) if key == "forward" else None
        forward = Forward(case.network, case.x, case.config, case.steps, options)
        forward()
        return Contender(forward, case.steps, time.perf_counter() - begin)
    if key == "jax":
        loop = Loop(case.network, case.x, case.labels, case.config, case.steps)
        terms = np.asarray(loop.terms())[:, :_STEPS_COMPARED]
        seconds = time.perf_counter() - begin
        facts: dict[str, Any] = {"memory": loop.memory()}
        if jax.devices()[0].platform == "gpu":
            facts["kernels"] = count_step(loop.text())
        return Contender(lambda: loop().block_until_ready(), case.steps, seconds, terms, facts)
    if key == "convolutions":
        passes = Convolutions(case.network, case.x, case.config, case.steps)
        passes()
        seconds = time.perf_counter() - begin
        facts = {"flops": passes.flops}
        return Contender(lambda: passes().block_until_ready(), case.steps, seconds, None, facts)
    return _build_torch(key, case)


def out_of_memory(error: BaseException) -> bool:
    """Whether JAX or PyTorch ran out of device memory."""
    return "RESOURCE_EXHAUSTED" in str(error) or type(error).__name__ == "OutOfMemoryError"


def _build_torch(key: str, case: Case) -> Contender:
    import torch

    from benchmarks.speed.torch_dmbp import DoubleBackprop, GatedPasses
    from benchmarks.speed.torch_networks import operations

    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    exact = case.numbers == "float32"
    torch.backends.cudnn.allow_tf32 = not exact
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("highest" if exact else "high")
    ops = operations(case.name, case.network.variables, device)
    x = torch.tensor(np.asarray(case.x).transpose(0, 3, 1, 2).copy(), device=device)
    labels = torch.tensor(np.asarray(case.labels), dtype=torch.int64, device=device)
    dtype = torch.bfloat16 if case.config.dtype == "bfloat16" else torch.float32

    note = ""
    begin = time.perf_counter()
    if key == "torch-double":
        loop, steps = DoubleBackprop(ops, x, labels), max(1, case.steps // 5)
        first = [loop.step().cpu().numpy()]
    else:
        torch.compiler.reset()  # forget earlier shapes, which count against a limit
        loop, steps = GatedPasses(ops, x, labels, dtype, case.torch_compile), case.steps
        try:
            first = [loop.step().cpu().numpy()]
        except Exception as error:
            if not case.torch_compile or out_of_memory(error):
                raise
            note = f"torch.compile failed, eager instead: {_first_line(error)}"
            loop = GatedPasses(ops, x, labels, dtype, compiled=False)
            first = [loop.step().cpu().numpy()]
    seconds = time.perf_counter() - begin
    first += [loop.step().cpu().numpy() for _ in range(_STEPS_COMPARED - 1)]
    if gpu and case.cuda_graph and isinstance(loop, GatedPasses):
        try:
            loop.capture()
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            loop = GatedPasses(ops, x, labels, dtype, case.torch_compile and not note)
            note += f" no CUDA graph: {_first_line(error)}"

    def run() -> None:
        for _ in range(steps):
            loop.step()
        if gpu:
            torch.cuda.synchronize()

    run()
    return Contender(run, steps, seconds, np.stack(first, axis=1), note=note.strip())


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
