"""Seconds to trace and compile `attribute`, in processes of their own: cold, and from the cache.

`speed.py` calls it, and calls itself with `--compile-only` in each new process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
NUMBERS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "highest"},
    "default": {},
    "bfloat16": {"dtype": "bfloat16"},
}
PAPER_STEPS = 200


def time_in_new_processes(name: str, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Tracing and compiling in a new process: with an empty persistent cache, then from it."""
    if args.no_compile_time:
        return {}
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        for key in ("cold", "cached"):
            command = [sys.executable, "-m", "benchmarks", "speed", "--compile-only", cache]
            command += ["--networks", name, "--batches", str(args.batches[0])]
            command += ["--size", str(args.size), "--numbers", args.numbers[0]]
            output = subprocess.run(
                command, cwd=REPOSITORY, check=True, capture_output=True, text=True
            ).stdout
            found[key] = json.loads(output.splitlines()[-1])
    return found


def compile_once(args: argparse.Namespace) -> dict[str, float]:
    """What the new process does."""
    import jax
    import jax.numpy as jnp

    import dmbp_jax
    from benchmarks.speed.jax_loop import time_compilation
    from benchmarks.speed.networks import make_images, make_network

    name, (batch,) = args.networks[0], args.batches
    network, x = make_network(name, args.size), make_images(name, batch, args.size)
    config = dmbp_jax.DMBP(steps=PAPER_STEPS, **NUMBERS[args.numbers[0]])
    labels = jnp.zeros(batch, jnp.int32)
    jax.config.update("jax_compilation_cache_dir", args.compile_only)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return time_compilation(network, x, labels, config)
