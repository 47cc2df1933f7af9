"""What a user waits for: the phases of the first call of `attribute` in a new process.

    python -m benchmarks first_call --networks builtin resnet50 resnet152 densenet121

Every call has a process of its own: with an empty persistent cache, then from the cache it left.
`--against FOLDER` runs another checkout in turn, in the same rounds, and prints ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
NETWORKS = ("builtin", "squeezenet", "vgg16", "resnet50", "resnet152", "densenet121")
PHASES = ("import", "python", "lower", "compile", "first", "second", "programs")
_EVENTS = {  # of JAX's own monitoring, in seconds
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}
_HEAD = {
    "import": "import",
    "python": "trace",
    "lower": "lower",
    "compile": "compile",
    "first": "first call",
    "second": "second call",
    "programs": "programs",
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--networks", nargs="+", choices=NETWORKS, default=["builtin", "resnet50"])
    add("--steps", type=int, default=6, help="optimiser steps; DMBP.quick() has 7")
    add("--size", type=int, default=224, help="pixels of a side; the built-in network keeps 96")
    add("--images", type=int, default=1)
    add("--rounds", type=int, default=1)
    add("--against", type=Path, metavar="FOLDER", help="another checkout of dmbp-jax")
    add("--no-cache", action="store_true", help="measure cold calls only")
    add("--json", type=Path, help="where the results go")
    add("--child", nargs=2, metavar=("CHECKOUT", "CACHE"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Start the processes, print a table."""
    args = parse(arguments)
    if args.child:
        print(json.dumps(measure(args.networks[0], args)))
        return
    checkouts = [REPOSITORY, *([args.against.resolve()] if args.against else [])]
    print(f"{args.steps} steps, {args.images} image(s), load before {os.getloadavg()[0]:.1f}")
    results: dict[str, Any] = {}
    for name in args.networks:
        samples: dict[tuple[str, Path], list[dict[str, float]]] = {}
        for _ in range(args.rounds):
            for checkout in checkouts:
                with tempfile.TemporaryDirectory() as cache:
                    for state in ("cold",) if args.no_cache else ("cold", "cached"):
                        sample = _in_new_process(name, checkout, cache, args)
                        samples.setdefault((state, checkout), []).append(sample)
        found = {key: _median(several) for key, several in samples.items()}
        print("\n".join(["", *_lines(name, found)]), flush=True)
        results[name] = {
            f"{state}, {'this' if checkout == REPOSITORY else 'other'}": several
            for (state, checkout), several in samples.items()
        }
        if args.json:
            args.json.write_text(json.dumps(results, indent=1))
    print(f"\nload after {os.getloadavg()[0]:.1f}")


def _in_new_process(
    name: str, checkout: Path, cache: str, args: argparse.Namespace
) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks", "first_call", "--networks", name]
    command += ["--child", str(checkout), cache]
    for option in ("steps", "size", "images"):
        command += [f"--{option}", str(getattr(args, option))]
    output = subprocess.run(
        command, cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout
    return json.loads(output.splitlines()[-1])


def _median(samples: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}


def _lines(name: str, found: dict[tuple[str, Path], dict[str, float]]) -> list[str]:
    """A row for every state and checkout, and the ratios to the other checkout."""
    lines = [f"{name:26}" + "".join(f"{_HEAD[key]:>13}" for key in PHASES) + f"{'CPU s':>9}"]
    for (state, checkout), row in found.items():
        title = state if checkout == REPOSITORY else f"{state}, other checkout"
        cells = "".join(f"{row[key]:>13.2f}" for key in PHASES[:-1])
        lines.append(f"  {title:24}{cells}{row['programs']:>13.0f}{row['cpu']:>9.1f}")
    for state, checkout in found:
        if checkout != REPOSITORY:
            ours, other = found[state, REPOSITORY], found[state, checkout]
            ratios = [f"{ours[key] / other[key]:.2f} ({key})" for key in ("first", "cpu")]
            lines.append(f"  {state}, ratio of the first call: {', '.join(ratios)}")
    return lines


def measure(name: str, args: argparse.Namespace) -> dict[str, float]:
    """What a new process does: import, one call, another call."""
    checkout, cache = args.child
    sys.path.insert(0, checkout)
    begin = time.perf_counter()
    import jax
    import numpy as np

    import dmbp_jax

    dmbp_jax.attribute  # noqa: B018 (a first use imports it)
    imported = time.perf_counter() - begin
    if Path(checkout) != REPOSITORY:
        dmbp_jax.__path__.append(str(REPOSITORY))  # the same networks for both: models/ of this one
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    network, size = make_network(name, args.size)
    x = np.random.default_rng(0).standard_normal((args.images, size, size, 3), np.float32)
    quick = getattr(dmbp_jax.DMBP, "quick", dmbp_jax.DMBP)
    config = quick(steps=args.steps)
    seconds = dict.fromkeys(_EVENTS.values(), 0.0)
    programs = 0

    def listen(event: str, duration: float, **_: Any) -> None:
        nonlocal programs
        if event in _EVENTS:
            seconds[_EVENTS[event]] += duration
            programs += _EVENTS[event] == "compile"

    jax.monitoring.register_event_duration_secs_listener(listen)

    def call() -> tuple[float, float]:
        begin, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(dmbp_jax.attribute(network, x, 0, config=config).positive)
        return time.perf_counter() - begin, time.process_time() - cpu

    first, cpu = call()
    found = {"import": imported, "first": first, "cpu": cpu, "programs": programs, **seconds}
    second, _ = call()
    found["second"] = second
    found["python"] = first - second - seconds["lower"] - seconds["compile"]
    return found


def make_network(name: str, size: int) -> tuple[Any, int]:
    """A network with random weights and the side of its pictures."""
    import jax
    import numpy as np

    import dmbp_jax
    from dmbp_jax import models

    if name == "builtin":
        return dmbp_jax.load("builtin"), 96
    module = {
        "squeezenet": models.SqueezeNet11,
        "vgg16": models.VGG16,
        "resnet50": models.ResNet50,
        "resnet152": models.ResNet152,
        "densenet121": models.DenseNet121,
    }[name](classes=1000)
    image = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    rng = np.random.default_rng(0)

    def draw(leaf: Any) -> np.ndarray:
        deviation = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.02
        return rng.standard_normal(leaf.shape, np.float32) * np.float32(deviation)

    shapes = jax.eval_shape(module.init, jax.random.key(0), image)
    variables = jax.device_put(jax.tree.map(draw, shapes))
    return dmbp_jax.Network(module=module, variables=variables, name=name), size
