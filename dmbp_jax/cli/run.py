"""`dmbp run`: maps of a million images, resumable, each exactly once."""

import argparse
import os
import signal
import sys
from typing import Any

import numpy as np

from dmbp_jax import runs
from dmbp_jax.checks import check_count
from dmbp_jax.cli.output import INCOMPLETE, INTERRUPTED
from dmbp_jax.cli.settings import (
    frozen_note,
    method_options,
    name_failures,
    use_compilation_cache,
)
from dmbp_jax.errors import InputError, StoreError
from dmbp_jax.runs.inputs import describe_left_out
from dmbp_jax.runs.local import find_stripe, parse_stripe
from dmbp_jax.runs.progress import Progress
from dmbp_jax.runs.records import committed

SHOWN = 100  # failed images that are named; all are in the rows of the store
GO_ON = "the same command goes on where it stopped"


def run(args: argparse.Namespace) -> int:
    """Do what is not done yet; the exit code is 1 if some images failed."""
    check_options(args)
    shards = find_stripe() if args.shards is None else parse_stripe(args.shards)
    store = runs.Store(args.output)
    use_compilation_cache(args)
    if args.engine == "ray":  # the GPUs are the actors'; this process only needs to see them
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    plan = make_plan(args)
    if left_out := describe_left_out(plan.inputs.left_out):
        print(f"{' '.join(args.images)}: {len(plan.inputs):,} rows; {left_out}", flush=True)
    # Before the store is begun, so that nothing is written for a network that is refused.
    size = plan.network.preprocessing.size
    blank = np.zeros((size, size, 3), np.float32)
    if note := frozen_note(plan.network, blank, plan.options):
        print(f"{args.network}: {note}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # of a scheduler: as Ctrl-C
    try:
        work(args, plan, store, shards)
    except KeyboardInterrupt:
        done = f"{len(committed(store)):,} of {plan.shards:,} shards are done"
        print(f"dmbp: interrupted; {done}; {GO_ON}", file=sys.stderr)
        return INTERRUPTED
    except StoreError as error:
        raise type(error)(f"{error} {GO_ON.capitalize()}.") from error
    failures = ((row["file"], row["error"]) for row in runs.Run(store).failures())
    count = name_failures(failures, SHOWN, "failed; dmbp report names them")
    print(
        f"{store.url}: {len(plan.inputs):,} rows in {plan.shards:,} shards done, {count:,} failed"
    )
    return INCOMPLETE if count else 0


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that would be ignored, before anything is loaded."""
    for name in ("batch_size", "workers"):
        if getattr(args, name) is not None:
            check_count(getattr(args, name), f"--{name.replace('_', '-')}")
    if args.engine != "ray" and args.workers is not None:
        raise InputError("--workers: Expected only with --engine ray.")
    if args.engine == "ray" and args.shards is not None:
        raise InputError("--shards: Expected only with --engine local: Ray shares out the shards.")


def make_plan(args: argparse.Namespace) -> runs.Plan:
    """Everything that is decided before the run starts."""
    options = method_options(args)
    return runs.plan(
        args.images,
        args.label if args.labels is None else args.labels,
        network=args.network,
        weights=args.weights,
        class_names=args.class_names,
        method=args.method,
        config=options.get("config"),
        nonaffine=args.nonaffine,
        biases=options.get("biases", "drop"),
        save=args.save,
        dtype=args.dtype,
        shard_size=args.shard_size,
    )


def work(
    args: argparse.Namespace, plan: runs.Plan, store: runs.Store, shards: tuple[int, int]
) -> None:
    """Run, with a progress line."""
    if args.engine == "local":  # with ray, the actors know the device that the manifest names
        runs.open_manifest(store, plan)
    before = sum(len(plan.rows(k)) for k in committed(store))
    workers = args.workers or 1
    with Progress(len(plan.inputs), before, workers=workers, quiet=args.quiet) as progress:
        options: dict[str, Any] = {"batch_size": args.batch_size, "report": progress}
        if args.engine == "ray":
            runs.run_ray(plan, store, workers=args.workers, **options)
        else:
            runs.run_local(plan, store, shards=shards, **options)
