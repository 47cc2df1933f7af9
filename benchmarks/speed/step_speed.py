"""A step of the loop, and the tracing of a network, beside another checkout of dmbp-jax.

    python -m benchmarks step_speed --networks builtin resnet50 --against FOLDER [--rounds 15]
    python -m benchmarks step_speed --networks resnet152 densenet121 --rounds 0      # tracing only

Each checkout has a process that stays; they take turns, in an order that alternates. After half of
the rounds they are started anew, the other one first: the process that starts first is slower for
as long as it lives. A step is the difference of two calls of `attribute`, with few and with many
steps; ratios are medians over the rounds, with the quartiles. Tracing is `dmbp_jax.sites`, which
traces and classifies, in a new process.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.first_call import NETWORKS, REPOSITORY, make_network

FEW = 2
AGREE = 1e-3  # what y⁺ of two checkouts may differ, as a share


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--networks", nargs="+", choices=NETWORKS, default=["builtin", "resnet50"])
    add("--against", type=Path, metavar="FOLDER", help="another checkout of dmbp-jax")
    add("--rounds", type=int, default=15)
    add("--steps", type=int, default=10, help="between the shorter and the longer call")
    add("--images", type=int, default=1)
    add("--size", type=int, default=224, help="pixels of a side; the built-in network keeps 96")
    add("--child", metavar="CHECKOUT", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Start the processes, let them take turns, print a line or two for each network."""
    args = parse(arguments)
    if args.child:
        serve(args)
        return
    checkouts = [REPOSITORY, *([args.against.resolve()] if args.against else [])]
    print(f"{args.images} image(s), {args.steps} steps, load before {os.getloadavg()[0]:.1f}")
    for name in args.networks:
        traced, rounds = [], []
        for order in (1, -1)[: len(checkouts)]:
            with ExitStack() as stack:
                started = [
                    stack.enter_context(_child(name, one, args)) for one in checkouts[::order]
                ]
                children = started[::order]
                traced.append([_ask(child, "trace")["seconds"] for child in children])
                share = args.rounds // len(checkouts)
                rounds += [_round(children, number) for number in range(share)]
        print("\n".join(lines(name, np.min(traced, 0), rounds)), flush=True)
    print(f"load after {os.getloadavg()[0]:.1f}")


def lines(name: str, traced: Any, rounds: list[list[dict[str, float]]]) -> list[str]:
    """What is printed of one network; `rounds` has a dictionary for each checkout."""
    found = [f"{name}: tracing {' and '.join(f'{seconds:.2f} s' for seconds in traced)}"]
    for clock, title in (("wall", "on the clock"), ("cpu", "of the processor")):
        seconds = np.array([[sample[clock] for sample in one] for one in rounds])
        if not seconds.size:
            break
        each = " and ".join(f"{1000 * one:.1f} ms" for one in np.median(seconds, 0))
        line = f"  a step, {title}: {each}"
        if seconds.shape[1] == 2:
            low, middle, high = np.quantile(seconds[:, 0] / seconds[:, 1], [0.25, 0.5, 0.75])
            line += f"; ratio to the other checkout {middle:.3f} ({low:.3f} to {high:.3f})"
        found.append(line)
    return found


def _round(children: list[subprocess.Popen], number: int) -> list[dict[str, float]]:
    """One turn of each, the other way round in every second round."""
    order = list(range(len(children)))[:: 1 if number % 2 == 0 else -1]
    samples = {index: _ask(children[index], "step") for index in order}
    first, *others = (samples[index] for index in range(len(children)))
    for other in others:
        if abs(other["y"] - first["y"]) > AGREE * abs(first["y"]):
            raise SystemExit(f"y+ of the checkouts differ: {first['y']}, {other['y']}")
    return [first, *others]


def _child(name: str, checkout: Path, args: argparse.Namespace) -> subprocess.Popen:
    command = [sys.executable, "-m", "benchmarks", "step_speed", "--networks", name]
    command += ["--child", str(checkout)]
    for option in ("steps", "size", "images"):
        command += [f"--{option}", str(getattr(args, option))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, cwd=REPOSITORY, text=True, bufsize=1, **pipes)


def _ask(child: subprocess.Popen, question: str) -> dict[str, float]:
    child.stdin.write(f"{question}\n")
    answer = child.stdout.readline()
    if not answer:
        raise SystemExit("a process ended; its error is above")
    return json.loads(answer)


def serve(args: argparse.Namespace) -> None:
    """What a process does: answer "trace" and "step" until its standard input ends."""
    sys.path.insert(0, args.child)
    import jax

    import dmbp_jax

    if Path(args.child) != REPOSITORY:
        dmbp_jax.__path__.append(str(REPOSITORY))  # the same networks for both: models/ of this one
    network, size = make_network(args.networks[0], args.size)
    x = np.random.default_rng(0).standard_normal((args.images, size, size, 3), np.float32)
    jax.block_until_ready(jax.device_put(x))
    dmbp_jax.attribute, dmbp_jax.sites  # noqa: B018 (a first use imports them)
    configs = [dmbp_jax.DMBP(steps=steps) for steps in (FEW, FEW + args.steps)]

    def call(config: Any) -> tuple[np.ndarray, Any]:
        began = np.array([time.perf_counter(), time.process_time()])
        result = jax.block_until_ready(dmbp_jax.attribute(network, x, 0, config=config))
        return np.array([time.perf_counter(), time.process_time()]) - began, result

    is_compiled = False
    for question in sys.stdin:
        if question.strip() == "trace":
            began = time.perf_counter()
            dmbp_jax.sites(network, x)
            answer = {"seconds": time.perf_counter() - began}
        else:
            if not is_compiled:
                for config in configs:
                    call(config)
                is_compiled = True
            few, many = (call(config) for config in configs)
            wall, cpu = (many[0] - few[0]) / args.steps
            answer = {"wall": wall, "cpu": cpu, "y": float(many[1].y_positive.sum())}
        print(json.dumps(answer), flush=True)
