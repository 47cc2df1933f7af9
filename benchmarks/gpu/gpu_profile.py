"""Every kernel of a step on a GPU: its time, beside what its bytes and FLOPs need at least.

The kernels are those of the compiled program (`gpu_compile.py`), their times the profiler's. A card
has to be there:

    python -m benchmarks gpu_profile --networks resnet50 --batches 64 --numbers default bfloat16
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.gpu_compile import LAUNCH, Kernel
from benchmarks.speed.speed import NUMBERS

NETWORKS = ("resnet50", "vgg16", "builtin", "squeezenet")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--networks", nargs="+", choices=NETWORKS, default=["resnet50"])
    add("--batches", nargs="+", type=int, default=[64])
    add("--numbers", nargs="+", choices=NUMBERS, default=["default", "bfloat16"])
    add("--size", type=int, default=224, help="pixels of a side; the built-in network keeps 96")
    add("--steps", type=int, default=10, help="steps that are profiled")
    add("--worst", type=int, default=20, metavar="N", help="list the N kernels that lose most")
    add("--peak-tflops", type=float, help="of the device; default: measured")
    add("--peak-gbps", type=float, help="of its memory; default: measured")
    add("--hlo", type=Path, metavar="FOLDER", help="keep the optimised HLO")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run, profile, print; 1 without a GPU."""
    args = parse(arguments)
    # Kernels that are launched as one graph have no names in the profile.
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_enable_command_buffer="
    import jax

    device = jax.devices()[0]
    if device.platform != "gpu":
        print(f"Expected a GPU, got {device.device_kind}.", file=sys.stderr)
        return 1
    from benchmarks.speed.contenders import make_images, make_network
    from benchmarks.speed.report import measure_peaks

    for numbers in args.numbers:
        flops, bandwidth = measure_peaks(**NUMBERS[numbers])
        flops = args.peak_tflops * 1e12 if args.peak_tflops else flops
        bandwidth = args.peak_gbps * 1e9 if args.peak_gbps else bandwidth
        peaks = f"{flops / 1e12:.0f} TFLOP/s, {bandwidth / 1e9:.0f} GB/s"
        print(f"{device.device_kind}, {numbers}: {peaks}")
        for name in args.networks:
            network = make_network(name, args.size)
            for batch in args.batches:
                found = profile(network, make_images(name, batch, args.size), numbers, args)
                print(f"\n{name}, batch {batch}, {numbers}")
                print("\n".join(lines(found, flops, bandwidth, args.worst)), flush=True)
    return 0


class Profile(NamedTuple):
    """Seconds of a step, of compiling, and of every kernel in a step; of others in the profile."""

    step: float
    compiling: float
    kernels: list[tuple[Kernel, float]]
    others: float


def profile(network: Any, x: Any, numbers: str, args: argparse.Namespace) -> Profile:
    """Compile the loop, run it, and run it again with the profiler."""
    import jax
    import jax.numpy as jnp

    import dmbp_jax
    from benchmarks.gpu.gpu_compile import count_step
    from benchmarks.speed.contenders import Loop

    config = dmbp_jax.DMBP(steps=args.steps, **NUMBERS[numbers])
    labels = jnp.argmax(network(x[:1]), axis=-1).astype(jnp.int32).repeat(len(x))
    begin = time.perf_counter()
    loop = Loop(network, x, labels, config, args.steps)
    compiling = time.perf_counter() - begin
    text = loop.text()
    if args.hlo:
        args.hlo.mkdir(parents=True, exist_ok=True)
        (args.hlo / f"{network.name}-{len(x)}-{numbers}.txt").write_text(text)
    loop().block_until_ready()
    begin = time.perf_counter()
    loop().block_until_ready()
    seconds = (time.perf_counter() - begin) / args.steps
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            loop().block_until_ready()
        found = kernel_seconds(Path(folder))
    kernels = count_step(text).largest
    spent = [found.pop(kernel.name, 0.0) / args.steps for kernel in kernels]
    others = sum(found.values()) / args.steps
    return Profile(seconds, compiling, list(zip(kernels, spent, strict=True)), others)


def kernel_seconds(folder: Path) -> Counter[str]:
    """Seconds on the device of every operation of the compiled program, by its name there."""
    import jax

    (path,) = folder.glob("**/*.xplane.pb")
    total: Counter[str] = Counter()
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        for line in plane.lines:
            if not line.name.startswith("Stream"):
                continue
            for event in line.events:
                operation = dict(event.stats).get("hlo_op", event.name)
                total[str(operation)] += event.duration_ns / 1e9
    return total


def lines(found: Profile, flops: float, bandwidth: float, worst: int) -> list[str]:
    """A line for each kind of kernel, the total, and the kernels furthest from the roofline."""

    def least(kernel: Kernel) -> float:
        return kernel.least_seconds(flops, bandwidth)

    def line(title: str, kernels: list[tuple[Kernel, float]]) -> str:
        bound = sum(least(kernel) for kernel, _ in kernels)
        spent = sum(seconds for _, seconds in kernels)
        return (
            f"  {title:34}{len(kernels):8d}{sum(one.bytes for one, _ in kernels) / 1e9:8.2f}"
            f"{sum(one.flops for one, _ in kernels) / 1e9:8.0f}{1e3 * bound:8.2f} ms"
            f"{1e3 * spent:8.2f} ms{bound / spent if spent else 0:7.0%}"
        )

    head = (
        f"  {'':34}{'kernels':>8}{'GB':>8}{'GFLOP':>8}{'roofline':>11}{'measured':>11}{'share':>7}"
    )
    kinds: dict[str, list[tuple[Kernel, float]]] = {}
    for kernel, seconds in sorted(found.kernels, key=lambda one: -one[1]):
        kinds.setdefault(kernel.kind, []).append((kernel, seconds))
    bound = sum(least(kernel) + LAUNCH for kernel, _ in found.kernels)
    lost = sorted(found.kernels, key=lambda one: least(one[0]) - one[1])[:worst]
    return [
        head,
        *(line(kind, kernels) for kind, kernels in kinds.items()),
        line("all", found.kernels),
        f"  others in the profile: {1e3 * found.others:.2f} ms a step",
        f"  a step: {1e3 * found.step:.2f} ms; roofline with {1e6 * LAUNCH:.0f} us a kernel "
        f"{1e3 * bound:.2f} ms = {bound / found.step:.0%}; compiled in {found.compiling:.1f} s",
        *(
            f"    {1e6 * seconds:8.1f} us, roofline {1e6 * least(kernel):7.1f}  {kernel.kind:34}"
            f"{kernel.name:36}{kernel.type[:80]}"
            for kernel, seconds in lost
        ),
    ]
