"""Equal blocks one after the other, or as one scan over stacked parameters: compiling and a step.

The repeated bottleneck blocks of ResNet50's four stages, with masks that are learned by sign
descent as in the loop of DMBP: gates are frozen, a step is two forwards and their gradient to θ.

    python -m benchmarks scanned_blocks
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.engine.compiling import compiler_options

STAGES = {56: (256, 64, 2), 28: (512, 128, 3), 14: (1024, 256, 5), 7: (2048, 512, 2)}
STEPS = 6


def make_stage(side: int, images: int) -> tuple[Any, Any, Any, jax.Array]:
    """Kernels, gates and θ of every block, stacked, and the input of the first."""
    wide, narrow, count = STAGES[side]
    rng = np.random.default_rng(side)
    shapes = ((1, 1, wide, narrow), (3, 3, narrow, narrow), (1, 1, narrow, wide))
    kernels = [
        jnp.asarray(rng.normal(size=(count, *shape)) / np.sqrt(np.prod(shape[:3])), jnp.float32)
        for shape in shapes
    ]
    sites = [(count, images, side, side, features) for features in (narrow, narrow, wide)]
    gates = [jnp.asarray(rng.random(shape) < 0.5) for shape in sites]
    theta = [jnp.zeros(shape) for shape in sites]
    return kernels, gates, theta, jnp.asarray(rng.normal(size=sites[2][1:]), jnp.float32)


def block(x: jax.Array, kernels: Any, gates: Any, theta: Any, sign: float) -> jax.Array:
    """A bottleneck block with frozen gates and masks."""
    value = x
    for number, (kernel, gate, t) in enumerate(zip(kernels, gates, theta, strict=True)):
        value = jax.lax.conv_general_dilated(
            value, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        value = value + x if number == 2 else value
        value = jnp.where(gate, value, 0) / (1 + jnp.exp(-sign * t))
    return value


def in_turn(x: jax.Array, blocks: Any, sign: float) -> jax.Array:
    """Block after block."""
    for number in range(len(blocks[0][0])):
        x = block(x, *jax.tree.map(lambda a, n=number: a[n], blocks), sign)
    return x


def scanned(x: jax.Array, blocks: Any, sign: float) -> jax.Array:
    """The same as one scan."""
    return jax.lax.scan(lambda x, one: (block(x, *one, sign), None), x, blocks)[0]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(f"{'':24}{'compiling, s':>26}{'ms a step':>22}")
    print(f"{'stage':24}{'in turn':>13}{'scanned':>13}{'in turn':>11}{'scanned':>11}")
    for side, (_, _, count) in STAGES.items():
        kernels, gates, theta, x = make_stage(side, args.images)
        compiling, programs = [], []
        for run in (in_turn, scanned):

            def loop(kernels: Any, gates: Any, theta: Any, x: jax.Array, run: Any = run) -> Any:
                def difference(theta: Any) -> jax.Array:
                    blocks = (kernels, gates, theta)
                    return run(x, blocks, 1.0).sum() - run(x, blocks, -1.0).sum()

                def step(theta: Any, _: None) -> tuple[Any, None]:
                    gradient = jax.grad(difference)(theta)
                    return jax.tree.map(lambda t, g: t + 0.1 * jnp.sign(g), theta, gradient), None

                return jax.lax.scan(step, theta, None, length=STEPS)[0]

            begin = time.perf_counter()
            program = jax.jit(loop, compiler_options=compiler_options(jax.default_backend()))
            programs.append(program.lower(kernels, gates, theta, x).compile())
            compiling.append(time.perf_counter() - begin)
        results = [program(kernels, gates, theta, x) for program in programs]
        differ = [jnp.mean(a != b) for a, b in zip(*results, strict=True)]
        assert max(map(float, differ)) < 1e-3, differ  # the sign of a rounded zero
        seconds = [[], []]
        for _ in range(args.rounds):
            for number, program in enumerate(programs):
                begin = time.perf_counter()
                jax.block_until_ready(program(kernels, gates, theta, x))
                seconds[number].append((time.perf_counter() - begin) / STEPS)
        medians = [1e3 * float(np.median(one)) for one in seconds]
        print(
            f"{f'{count} blocks at {side} x {side}':24}{compiling[0]:13.2f}{compiling[1]:13.2f}"
            f"{medians[0]:11.1f}{medians[1]:11.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
