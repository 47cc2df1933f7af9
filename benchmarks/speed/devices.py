"""Several devices: images a second of `attribute` on 1, 2, 4 and 8, in one chunk and in more.

    python -m benchmarks devices --images 32 --chunk 8

The devices are simulated unless there are real ones: they share the cores, so that more of them do
not compute more in a second. What is seen is that none computes the images of another, and that
chunks cost nothing. Each number of devices has a process of its own.
"""

import argparse
import itertools
import os
import subprocess
import sys
import time
from functools import partial
from typing import Any

NUMBERS = (1, 2, 4, 8)


def main() -> None:
    """Start the processes, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=32, help="a multiple of the devices")
    parser.add_argument("--chunk", type=int, default=8, help="images at once, of all devices")
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.devices:
        measure(args)
        return
    head = ("devices", "images/s", "in chunks", "ratio", "GFLOP a step and device", "same maps")
    print("  ".join(head))
    for number in NUMBERS:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={number}"
        command = [sys.executable, "-m", "benchmarks", "devices", *sys.argv[1:]]
        command += ["--devices", str(number)]
        subprocess.run(command, check=True, env=os.environ | {"XLA_FLAGS": flags.strip()})


def measure(args: argparse.Namespace) -> None:
    """A row of the table."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import dmbp_jax
    from dmbp_jax.engine import driver

    rng = np.random.default_rng(0)
    widths = (3, 32, 64, 64)
    params = [
        jnp.asarray(rng.normal(size=(3, 3, a, b)) * (2 / (9 * a)) ** 0.5, jnp.float32)
        for a, b in itertools.pairwise(widths)
    ]

    def network(params: list[jax.Array], x: jax.Array) -> jax.Array:
        for kernel in params:
            numbers = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
            x = jax.nn.relu(x)
        return x.mean((1, 2))

    mesh = jax.sharding.Mesh(jax.devices()[: args.devices], ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    shape = (args.images, args.size, args.size, 3)
    x = jax.device_put(rng.standard_normal(shape, np.float32), sharding)
    flops = []

    def count(function: Any, *arguments: Any, donated: tuple[int, ...] = (), **static: Any) -> Any:
        if function is driver._advance:
            program = jax.jit(partial(function, **static)).lower(*arguments).compile()
            flops.append(program.cost_analysis()["flops"] / 1e9)
        return run(function, *arguments, donated=donated, **static)

    def call(chunk: int) -> dmbp_jax.Attribution:
        config = dmbp_jax.DMBP.quick()
        found = dmbp_jax.attribute(params, x, 0, apply_fn=network, config=config, chunk_size=chunk)
        return jax.block_until_ready(found)

    run, driver.run = driver.run, count
    maps = [call(chunk).map for chunk in (args.images, args.chunk)]
    driver.run = run
    seconds: dict[int, list[float]] = {args.images: [], args.chunk: []}
    for _ in range(args.rounds):
        for chunk, several in seconds.items():
            begin = time.perf_counter()
            call(chunk)
            several.append(time.perf_counter() - begin)
    whole, pieces = (args.images / min(several) for several in seconds.values())
    same = np.allclose(*maps, rtol=1e-4, atol=1e-5 * float(jnp.abs(maps[0]).max()))
    print(
        f"{args.devices:7}{whole:10.1f}{pieces:11.1f}{pieces / whole:7.2f}"
        f"{flops[0]:13.2f}, {flops[-1]:.2f} a chunk{same!s:>9}",
        flush=True,
    )
