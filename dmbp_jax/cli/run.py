"""`dmbp run`: maps of a million images, resumable, each exactly once."""

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from dmbp_jax.cli import compilation
from dmbp_jax.cli.commands import (
    add_command,
    add_dmbp,
    add_labels,
    add_method,
    add_network,
    add_nonaffine,
    make_biases,
    make_config,
    refuse_dmbp_options,
)
from dmbp_jax.cli.maps import frozen_note
from dmbp_jax.cli.reporting import INTERRUPTED
from dmbp_jax.errors import InputError, StoreError

if TYPE_CHECKING:
    from dmbp_jax.runs import Plan, Store

INCOMPLETE = 1  # exit code: done, but some images failed
ENGINES = ("local", "ray")
SHOWN = 100  # failed images that are named; all are in the rows of the store

SUMMARY = "explain many images, resumably"
DESCRIPTION = """\
Explain many images and store the maps. The same command again goes on where it stopped; every
image is done exactly once, also when processes are killed or several write to one store.
"""
EXAMPLE = """\
examples:
  dmbp run photos -o maps.zarr --network resnet50 --quick
  dmbp run photos.csv -o s3://bucket/maps.zarr --save positive,negative --shards 0/8

IMAGES is a folder, a pattern, files, or a CSV table with the columns file,label. Exit code: 0 all
done; 1 done, and some images failed; 2 stopped by a mistake or a full store; 130 interrupted.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`dmbp run IMAGES -o STORE [--network NAME] [--method M] [--save MAPS] …`."""
    parser = add_command(subparsers, "run", run, SUMMARY, DESCRIPTION, EXAMPLE)
    parser.add_argument(
        "images",
        metavar="IMAGES",
        nargs="+",
        type=os.path.expanduser,
        help="folder, pattern, files or a table",
    )
    parser.add_argument(
        "-o", "--output", metavar="STORE", required=True, help="folder, s3://… or gs://…"
    )
    add_network(parser, "resnet50", "default resnet50; see dmbp networks")
    add_method(parser)
    add_labels(parser)
    parser.add_argument(
        "--save",
        metavar="MAPS",
        default="heatmap",
        help="heatmap (summed over channels; default), map, positive, negative; several by commas",
    )
    parser.add_argument(
        "--dtype", choices=("float16", "float32"), default="float16", help="default float16"
    )
    parser.add_argument(
        "--shard-size", metavar="N", type=int, default=128, help="images a shard; default 128"
    )
    add_dmbp(parser, biases=True)
    add_nonaffine(parser)
    parser.add_argument(
        "--batch-size", metavar="N", type=int, help="images a device explains at once"
    )
    parser.add_argument("--engine", choices=ENGINES, default="local", help="default local")
    parser.add_argument(
        "--workers", metavar="N", type=int, help="processes of ray; default one for each GPU"
    )
    parser.add_argument(
        "--shards",
        metavar="i/n",
        help="this is process i of n, from 0; default: what Slurm or Kubernetes say",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress line")
    compilation.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """Do what is not done yet; the exit code is 1 if some images failed."""
    check_options(args)
    from dmbp_jax.runs.inputs import describe_left_out
    from dmbp_jax.runs.store import Store
    from dmbp_jax.runs.stripes import find_stripe, parse_stripe

    shards = find_stripe() if args.shards is None else parse_stripe(args.shards)
    store = Store(args.output)
    compilation.use_cache(args)
    if args.engine == "ray":  # the GPUs are the actors'; this process only needs to see them
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    plan = make_plan(args)
    if left_out := describe_left_out(plan.inputs.left_out):
        print(f"{' '.join(args.images)}: {len(plan.inputs):,} rows; {left_out}", flush=True)
    if note := gates(plan, args.nonaffine):
        print(f"{args.network}: {note}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # of a scheduler: as Ctrl-C
    try:
        work(args, plan, store, shards)
    except KeyboardInterrupt:
        print(f"dmbp: interrupted; {done(plan, store)}; {GO_ON}", file=sys.stderr)
        return INTERRUPTED
    except StoreError as error:
        raise type(error)(f"{error} {GO_ON.capitalize()}.") from error
    return finish(plan, store)


GO_ON = "the same command goes on where it stopped"


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that would be ignored, before anything is loaded.

    Raises:
      InputError: options of dmbp with another method, or of ray with another engine; a number
        below 1.
    """
    from dmbp_jax.checks import check_count

    for name in ("batch_size", "workers"):
        if getattr(args, name) is not None:
            check_count(getattr(args, name), f"--{name.replace('_', '-')}")
    refuse_dmbp_options(args)
    if args.engine != "ray" and args.workers is not None:
        raise InputError("--workers: Expected only with --engine ray.")
    if args.engine == "ray" and args.shards is not None:
        raise InputError("--shards: Expected only with --engine local: Ray shares out the shards.")


def make_plan(args: argparse.Namespace) -> "Plan":
    """Everything that is decided before the run starts."""
    from dmbp_jax.runs import plan

    label = args.label if args.labels is None else args.labels
    return plan(
        args.images,
        label,
        network=args.network,
        weights=args.weights,
        class_names=args.class_names,
        method=args.method,
        config=make_config(args) if args.method == "dmbp" else None,
        nonaffine=args.nonaffine,
        biases=make_biases(args),
        save=args.save,
        dtype=args.dtype,
        shard_size=args.shard_size,
    )


def gates(plan: "Plan", nonaffine: str) -> str:
    """One sentence where factors of the network are constants; a network may be refused here.

    Before the store is begun, so that nothing is written for a network that is not supported.
    """
    import numpy as np

    size = plan.network.preprocessing.size
    blank = np.zeros((size, size, 3), np.float32)
    return frozen_note(plan.network, blank, plan.method, nonaffine)


def work(args: argparse.Namespace, plan: "Plan", store: "Store", shards: tuple[int, int]) -> None:
    """Run, with a progress line."""
    from dmbp_jax.runs.manifest import open_manifest
    from dmbp_jax.runs.progress import Progress
    from dmbp_jax.runs.records import committed

    if args.engine == "local":  # with ray, the actors know the device that the manifest names
        open_manifest(store, plan)
    before = sum(len(plan.rows(k)) for k in committed(store))
    progress = Progress(len(plan.inputs), before, workers=args.workers or 1, quiet=args.quiet)
    options: dict[str, Any] = {"batch_size": args.batch_size, "report": progress}
    try:
        if args.engine == "ray":
            from dmbp_jax.runs.ray import run_ray

            run_ray(plan, store, workers=args.workers, **options)
        else:
            from dmbp_jax.runs.local import run_local

            run_local(plan, store, shards=shards, **options)
    finally:
        progress.close()


def done(plan: "Plan", store: "Store") -> str:
    """How far the run is, in words."""
    from dmbp_jax.runs.records import committed

    return f"{len(committed(store)):,} of {plan.shards:,} shards are done"


def finish(plan: "Plan", store: "Store") -> int:
    """Say what was done and name what failed."""
    from dmbp_jax.runs.reader import Run

    count = 0
    for count, row in enumerate(Run(store).failures(), start=1):
        if count <= SHOWN:
            print(f"dmbp: {row['file']}: {row['error']}", file=sys.stderr)
    if count > SHOWN:
        print(f"dmbp: {count - SHOWN:,} more failed; dmbp report names them", file=sys.stderr)
    print(
        f"{store.url}: {len(plan.inputs):,} rows in {plan.shards:,} shards done, {count:,} failed"
    )
    return INCOMPLETE if count else 0
