"""What other activations cost in the optimisation loop, beside the ReLU in the same network.

    python -m benchmarks activation_speed [--batch 4] [--steps 10] [--rounds 7]

The networks take turns. Processor time is measured, which other work on the machine hardly
changes; ratios are medians over the rounds.
"""

import argparse
import time
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np

import dmbp_jax
from dmbp_jax.dmbp.explainer import DmbpExplainer
from dmbp_jax.engine import driver
from dmbp_jax.engine.compiling import compiled
from dmbp_jax.graph.call import check_call
from dmbp_jax.models.builtin import INPUT_SHAPE, BuiltinNet

ACTIVATIONS = ("relu", "relu6", "leaky_relu", "silu")


def main(arguments: list[str] | None = None) -> None:
    """Time the networks in turns and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks activation_speed")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    loops = {name: make_loop(name, options.batch, options.steps) for name in ACTIVATIONS}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(options.rounds):
        for name, loop in loops.items():
            began = time.process_time()
            loop()
            seconds[name].append((time.process_time() - began) / options.steps)
    print("| activation | processor ms a step | ÷ ReLU |\n|---|---|---|")
    for name, times in seconds.items():
        ratio = np.median(np.divide(times, seconds["relu"]))
        print(f"| {name} | {1000 * np.median(times):.1f} | {ratio:.3f} |")


def make_loop(name: str, batch: int, steps: int) -> Callable[[], None]:
    """Some steps of the loop, compiled, from the same state each time."""
    net = BuiltinNet(activation=getattr(nn, name))
    x = jax.random.normal(jax.random.key(1), (batch, *INPUT_SHAPE))
    variables = jax.jit(net.init)(jax.random.key(0), x)
    call = check_call(variables, x, 0, net.apply)
    explainer = DmbpExplainer(call.network, dmbp_jax.DMBP(steps=steps))
    state = compiled(driver._start)(explainer, (call.images, call.labels))
    advance = compiled(driver._advance, static_argnames="steps")  # keeps the state
    advance = advance.lower(explainer, state, steps=steps).compile()
    jax.block_until_ready(advance(explainer, state))

    def loop() -> None:
        jax.block_until_ready(advance(explainer, state))

    return loop


if __name__ == "__main__":
    main()
