"""A run on two Ray actors, to be killed: `python killed_ray.py IN OUT`; says "." for each batch."""

import logging
import sys
from pathlib import Path

import ray
from small_runs import small_plan

from dmbp_jax import runs


def main(pictures: str, out: str) -> None:
    """Start a cluster of this process, and run."""
    ray.init("local", num_cpus=2, num_gpus=0, logging_level=logging.ERROR, log_to_driver=False)
    plan = small_plan(Path(pictures))
    runs.run_ray(plan, runs.Store(out), workers=2, report=lambda _: print(".", flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
