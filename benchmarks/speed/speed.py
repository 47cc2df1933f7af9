"""Time DMBP against plain forward passes and two PyTorch implementations, in one interleaved run.

Prints a table and writes JSON; README.md says what is measured how:

    python -m benchmarks speed
"""

import argparse
import dataclasses
import gc
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dmbp_jax
    from benchmarks.speed.contenders import Contender

NETWORKS = ("resnet50", "vgg16", "builtin", "squeezenet")
CONTENDERS = ("forward", "forward-default", "jax", "convolutions", "torch-gated", "torch-double")
# Settings of `dmbp_jax.DMBP`: "default" is TF32 on recent GPUs, and float32 on a CPU.
NUMBERS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "highest"},
    "default": {},
    "bfloat16": {"dtype": "bfloat16"},
}
PAPER_STEPS = 200
_FULL = f"also time attribute() in chunks of its own choice; steps: {PAPER_STEPS}, or those given"
_LONG = 2.0  # seconds; a longer call of attribute() is timed once, others three times
AGREEMENT = 1e-3  # largest difference of y±, relative to the larger of y⁺ and |y⁻| of that step


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--networks", nargs="+", choices=NETWORKS, default=["resnet50"])
    add("--batches", nargs="+", type=int, help="default: 1 8; on a GPU 1 8 32 128")
    add("--size", type=int, default=224, help="pixels of a side; the built-in network keeps 96")
    add("--numbers", nargs="+", choices=NUMBERS, help="default: float32; on a GPU all")
    add("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    add("--rounds", type=int, default=5, help="interleaved repetitions; medians are shown")
    add("--steps", type=int, help="steps a call; default: 10 / batch but 2 or more; on a GPU 20")
    add("--no-torch-compile", action="store_true", help="run PyTorch operation by operation")
    add("--no-cuda-graph", action="store_true", help="launch PyTorch's kernels from Python")
    add("--full", type=int, nargs="*", metavar="STEPS", help=_FULL)
    add("--peak-tflops", type=float, help="of the device, for the roofline; default: measured")
    add("--peak-gbps", type=float, help="of its memory, for the roofline; default: measured")
    add("--json", type=Path, default=Path("speed.json"), help="where the results go")
    args = parser.parse_args(arguments)
    if "squeezenet" in args.networks and any(key.startswith("torch") for key in args.contenders):
        parser.error("--contenders: Expected none of PyTorch with squeezenet, got some.")
    return args


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; 1 if the implementations do not agree."""
    args = parse(arguments)
    # JAX would take three quarters of a GPU at once, and PyTorch runs beside it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # PyTorch's threads would spin while they wait: in JAX's turn, and for a core that is taken.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _fill_in(args)
    machine = _describe_machine()
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    if machine["load before"] > 0.5:
        print("NOTE: this machine is busy; other processes slow PyTorch more than they slow JAX.")
    results: dict[str, Any] = {
        "machine": machine,
        "arguments": vars(args) | {"json": str(args.json)},
        "rows": [],
    }

    from benchmarks.speed.contenders import make_network
    from benchmarks.speed.report import agreement_lines, row_lines

    for name in args.networks:
        network = make_network(name, args.size)
        for numbers in args.numbers:
            peaks = _peaks(args, numbers)
            for batch in args.batches:
                row = _measure(name, network, numbers, batch, peaks, args)
                print("\n".join(["", *row_lines(row)]), flush=True)
                results["rows"].append(row)
                args.json.write_text(json.dumps(results, indent=1))
    machine["load after"] = round(os.getloadavg()[0], 2)
    args.json.write_text(json.dumps(results, indent=1))
    lines, agree = agreement_lines(results["rows"], AGREEMENT)
    print("\n".join(["", *lines, f"load after: {machine['load after']}; wrote {args.json}"]))
    return 0 if agree else 1


def _fill_in(args: argparse.Namespace) -> None:
    """Options that depend on the device; PyTorch only where it runs on the same one."""
    import jax

    from dmbp_jax.engine.compiling import compiler_options

    gpu = jax.devices()[0].platform == "gpu"
    if compiler_options(jax.default_backend()) is None:  # both forwards are the same
        args.contenders = [key for key in args.contenders if key != "forward-default"]
    args.batches = sorted(args.batches or ([1, 8, 32, 128] if gpu else [1, 8]))
    args.numbers = args.numbers or (list(NUMBERS) if gpu else ["float32"])
    with_torch = [key for key in args.contenders if key.startswith("torch")]
    if not with_torch:
        return
    try:
        import torch
    except ImportError:
        problem = 'PyTorch is not installed (pip install "dmbp-jax[bench]")'
    else:
        # Products of many masks underflow: slow on a CPU, unless flushed as XLA does.
        torch.set_flush_denormal(True)
        problem = "PyTorch sees another device" if torch.cuda.is_available() != gpu else ""
    if problem:
        print(f"NOTE: {problem}; going on without {', '.join(with_torch)}.", file=sys.stderr)
        args.contenders = [key for key in args.contenders if key not in with_torch]


def _describe_machine() -> dict[str, Any]:
    """What the numbers depend on."""
    from importlib.metadata import PackageNotFoundError, version

    import jax

    versions = []
    for package in ("dmbp-jax", "jax", "jaxlib", "flax", "torch"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} not installed")
    processor, information = platform.machine(), Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        processor = next((x.split(": ")[1] for x in lines if x.startswith("model name")), processor)
    device = jax.devices()[0]
    return {
        "device": f"{device.device_kind} ({device.platform})",
        "processor": f"{processor}, {os.cpu_count()} CPUs",
        "versions": f"Python {platform.python_version()}, {', '.join(versions)}",
        "load before": round(os.getloadavg()[0], 2),
    }


def _peaks(args: argparse.Namespace, numbers: str) -> dict[str, Any]:
    """The roofline's two numbers: those given, or measured here."""
    from benchmarks.speed.report import measure_peaks

    options = NUMBERS[numbers]
    given = args.peak_tflops is not None and args.peak_gbps is not None
    flops, bandwidth = (0.0, 0.0) if given else measure_peaks(**options)
    return {
        "flops": args.peak_tflops * 1e12 if args.peak_tflops is not None else flops,
        "bandwidth": args.peak_gbps * 1e9 if args.peak_gbps is not None else bandwidth,
        "measured": not given,
    }


def _measure(
    name: str,
    network: "dmbp_jax.Network",
    numbers: str,
    batch: int,
    peaks: dict[str, Any],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Everything about one network, arithmetic and batch size."""
    import jax
    import jax.numpy as jnp

    import dmbp_jax
    from benchmarks.gpu.gpu_compile import summary
    from benchmarks.speed.contenders import TITLES, Case, build, make_images, out_of_memory
    from benchmarks.speed.report import bytes_per_step

    x = make_images(name, batch, args.size)
    device = x.devices().pop()
    config = dmbp_jax.DMBP(steps=PAPER_STEPS, **NUMBERS[numbers])
    case = Case(
        name=name,
        network=network,
        x=x,
        labels=jnp.argmax(network(x), axis=-1).astype(jnp.int32),
        numbers=numbers,
        config=config,
        steps=args.steps or (max(2, 10 // batch) if device.platform == "cpu" else 20),
        torch_compile=not args.no_torch_compile,
        cuda_graph=not args.no_cuda_graph,
    )
    contenders, notes = {}, []
    for key in args.contenders:
        try:
            contenders[key] = build(key, case)
        except Exception as error:
            if not out_of_memory(error):
                raise
            notes.append(f"{TITLES[key]}: out of memory")
            gc.collect()
    row: dict[str, Any] = {
        "network": name,
        "numbers": numbers,
        "batch": batch,
        "seconds": _interleave(contenders, args.rounds),
        "first_step": {key: contender.first_step for key, contender in contenders.items()},
        "notes": notes + [f"{TITLES[k]}: {c.note}" for k, c in contenders.items() if c.note],
    }
    for contender in contenders.values():
        row |= contender.facts
    if "kernels" in row:
        step = row.pop("kernels")
        bound = step.least_seconds(peaks["flops"], peaks["bandwidth"])
        row["compiled"] = summary(step) | {"bound": bound}
    if numbers == "float32" and batch == args.batches[0]:
        row["differences"] = _differences(contenders)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(network.variables))
    size = 2 if config.dtype == "bfloat16" else 4
    row["bytes"] = bytes_per_step(network, x, size, weights * size // 4)
    row["peaks"] = peaks
    del contenders
    gc.collect()
    if args.full is not None:
        every = args.full or [PAPER_STEPS]
        row["full"] = [{"steps": n, "seconds": _time_attribute(case, n)} for n in every]
    stats = device.memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        # Of JAX since the process began: this row's where no earlier row needed more.
        row["device_peak_bytes"] = stats["peak_bytes_in_use"]
    return row


def _interleave(contenders: "dict[str, Contender]", rounds: int) -> dict[str, list[float]]:
    """Seconds a step, in rounds: every contender once, then all again."""
    seconds: dict[str, list[float]] = {key: [] for key in contenders}
    for _ in range(rounds):
        for key, contender in contenders.items():
            begin = time.perf_counter()
            contender.run()
            seconds[key].append((time.perf_counter() - begin) / contender.steps)
    return seconds


def _differences(contenders: "dict[str, Contender]") -> dict[str, float]:
    """Largest difference of y⁺ and y⁻ from dmbp-jax's in the first steps from the same masks."""
    import numpy as np

    ours = contenders["jax"].terms if "jax" in contenders else None
    differences = {}
    for key, contender in contenders.items():
        if key != "jax" and ours is not None and contender.terms is not None:
            steps = min(ours.shape[1], contender.terms.shape[1])
            mine, other = ours[:, :steps, :2], contender.terms[:, :steps, :2]
            relative = np.abs(mine - other).max(-1) / np.abs(mine).max(-1)
            differences[key] = float(relative.max())
    return differences


def _time_attribute(case: Any, steps: int) -> float:
    """Seconds of `dmbp_jax.attribute` for the whole batch, steps and maps; compiled."""
    import jax

    import dmbp_jax

    config = dataclasses.replace(case.config, steps=steps)

    def call() -> float:
        begin = time.perf_counter()
        result = dmbp_jax.attribute(case.network, case.x, case.labels, config=config)
        jax.block_until_ready(result)
        return time.perf_counter() - begin

    call()
    first = call()
    return first if first > _LONG else statistics.median([first, call(), call()])
