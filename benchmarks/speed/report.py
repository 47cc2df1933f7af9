"""The table of `speed.py`, and how fast a step could be: FLOPs, bytes and the device's peaks.

FLOPs are those of the three passes. Bytes count every value once per pass that must touch it, as
if everything elementwise were fused into the convolution beside it: no implementation avoids them.
"""

import math
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

import dmbp_jax
from benchmarks.speed.contenders import TITLES

_STEPS = 200  # of the paper
_MIB = 2**20
_MASK = 4  # bytes of θ, and of the optimiser's memory: float32 whatever the activations are
_GATE = 1  # bytes of a boolean gate


def row_lines(row: dict[str, Any]) -> list[str]:
    """The contenders of one row, and what bounds the loop."""
    batch, seconds = row["batch"], row["seconds"]
    head = f"{row['network']}, batch {batch}, {row['numbers']}"
    columns = f"{'ms/step':>10}{'forwards':>10}{'x dmbp-jax':>12}{'images/s':>10}{'first step':>12}"
    lines = [f"{head}:", f"  {'':24}{columns}"]
    for key, samples in seconds.items():
        step = statistics.median(samples)
        per_second = batch / (_STEPS * step) if key in _LOOPS else None
        lines.append(
            f"  {TITLES[key]:24}{1e3 * step:10.2f}"
            + _cell(_ratio(seconds, key, "forward"), 10, ".2f")
            + _cell(_ratio(seconds, key, "jax"), 12, ".2f")
            + _cell(per_second, 10, ".3g")
            + f"{row['first_step'][key]:10.1f} s"
        )
    lines += [f"  {line}" for line in (*_memory(row), *_bounds(row))]
    for full in row.get("full", []):
        steps, total = full["steps"], full["seconds"]
        lines.append(
            f"  attribute(), {steps} steps: {total:.2f} s, {batch / total:.3g} images/s, "
            f"{1e3 * total / (steps * batch):.3g} ms for a step of an image"
        )
    return lines + [f"  NOTE {note}" for note in row["notes"]]


def agreement_lines(rows: list[dict[str, Any]], limit: float) -> tuple[list[str], bool]:
    """How far y± of PyTorch is from y± of dmbp-jax, and whether that is within the limit."""
    found = [
        (difference, row["network"], TITLES[key])
        for row in rows
        for key, difference in row.get("differences", {}).items()
    ]
    if not found:
        return ["agreement with PyTorch: NOT CHECKED (needs float32, dmbp-jax and PyTorch)"], True
    lines = [f"largest relative difference of y+ and y- from dmbp-jax (limit {limit:g}):"]
    for difference, network, title in found:
        # A NaN is not within the limit either.
        verdict = "" if difference <= limit else "   DISAGREES"
        lines.append(f"  {network:10}{title:26}{difference:.1e}{verdict}")
    return lines, all(difference <= limit for difference, *_ in found)


_LOOPS = ("jax", "torch-gated", "torch-double")


def _ratio(seconds: dict[str, list[float]], key: str, base: str) -> float | None:
    """Median over the rounds of the ratio within a round."""
    if base not in seconds:
        return None
    return statistics.median(a / b for a, b in zip(seconds[key], seconds[base], strict=True))


def _cell(value: float | None, width: int, form: str) -> str:
    return " " * width if value is None else format(value, f"{width}{form}")


def _memory(row: dict[str, Any]) -> list[str]:
    if "memory" not in row:
        return []
    memory, batch = row["memory"], row["batch"]
    state, scratch, weights = (memory[k] / _MIB for k in ("state", "scratch", "weights"))
    line = (
        f"memory of dmbp-jax: {(state + scratch) / batch:.0f} MiB an image "
        f"({state / batch:.0f} kept, {scratch / batch:.0f} scratch), {weights:.0f} MiB of weights"
    )
    if "device_peak_bytes" in row:
        line += f"; device peak so far {row['device_peak_bytes'] / _MIB:.0f} MiB"
    return [line]


def _bounds(row: dict[str, Any]) -> list[str]:
    """Share of the convolutions, and the roofline."""
    lines = []
    seconds, peaks = row["seconds"], row["peaks"]
    share = _ratio(seconds, "convolutions", "jax") if "convolutions" in seconds else None
    if share is not None:
        lines.append(f"convolutions: {share:.0%} of a step")
    if "flops" in row:
        compute, move = row["flops"] / peaks["flops"], row["bytes"] / peaks["bandwidth"]
        bound = max(compute, move)
        line = (
            f"roofline: {row['flops'] / 1e9:.3g} GFLOP at {peaks['flops'] / 1e12:.3g} TFLOP/s = "
            f"{1e3 * compute:.3g} ms, {row['bytes'] / 1e9:.3g} GB at "
            f"{peaks['bandwidth'] / 1e9:.3g} GB/s = {1e3 * move:.3g} ms"
            + (" (peaks measured here)" if peaks["measured"] else "")
        )
        if "jax" in seconds:
            line += (
                f"; dmbp-jax takes {statistics.median(seconds['jax']) / bound:.1f} times the larger"
            )
        lines.append(line)
    if "compiled" in row:
        compiled = row["compiled"]
        bound, step = compiled["bound"], statistics.median(seconds["jax"])
        lines.append(
            f"as compiled: {compiled['kernels']} kernels, {compiled['GB']:.2f} GB, "
            f"{compiled['GFLOP']:.0f} GFLOP; roofline {1e3 * bound:.2f} ms, "
            f"{bound / step:.0%} of a step"
        )
    return lines


def bytes_per_step(
    network: dmbp_jax.Network, x: jax.Array, activation: int, weight_bytes: int
) -> int:
    """Bytes that one step of the batch x reads and writes at least.

    Per ReLU unit, with activations of `activation` bytes: both forwards write and read its value
    (4 activations) and read θ and gate; the backward writes and reads its cotangent and reads the
    value of the sign that pulls (3 activations), θ and gate; the update writes θ and reads and
    writes the optimiser's memory. Weights are read once forwards and once backwards.
    """
    forward = 4 * activation + _MASK + _GATE
    backward = 3 * activation + _MASK + _GATE
    update = 3 * _MASK
    units = sum(math.prod(site.shape) for site in dmbp_jax.sites(network, x) if site.kind == "relu")
    return len(x) * units * (forward + backward + update) + 2 * weight_bytes


def measure_peaks(dtype: str = "float32", precision: str | None = None) -> tuple[float, float]:
    """(FLOP/s of a large matrix product, bytes/s of a large copy) on the first device, now."""
    cpu = jax.devices()[0].platform == "cpu"
    size, length = (2048, 1 << 25) if cpu else (8192, 1 << 30)
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    vector = jnp.zeros(length, jnp.float32)
    with jax.default_matmul_precision(precision):
        product = jax.jit(lambda a: a @ a).lower(matrix).compile()
    copy = jax.jit(lambda a: a + 1).lower(vector).compile()
    return (
        2 * size**3 / min(_seconds(product, matrix) for _ in range(5)),
        2 * vector.nbytes / min(_seconds(copy, vector) for _ in range(5)),
    )


def _seconds(function: jax.stages.Compiled, argument: jax.Array) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(function(argument))
    return time.perf_counter() - begin
