"""`dmbp verify`: compares what a large run has stored with what was committed."""

import argparse
import sys

from dmbp_jax.cli.commands import add_command

INCORRECT = 1  # exit code: shards differ from their commit records

SUMMARY = "check the stored maps of a large run"
DESCRIPTION = """\
Read every stored object of a large run and compare its size and SHA-256 with the commit record of
its shard. Shards that differ are opened again: the same dmbp run command does them once more.
"""
EXAMPLE = """\
example:
  dmbp verify maps.zarr

Exit code: 0 everything is as it was committed; 1 some shards are not, each named; 2 no store.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`dmbp verify STORE [--dry-run]`."""
    parser = add_command(subparsers, "verify", run, SUMMARY, DESCRIPTION, EXAMPLE)
    parser.add_argument("store", metavar="STORE", help="folder, s3://… or gs://…")
    parser.add_argument("--dry-run", action="store_true", help="only name the shards that differ")


def run(args: argparse.Namespace) -> int:
    """Verify; the exit code is 1 if a shard differs."""
    from dmbp_jax.runs import open, reopen, verify

    stored = open(args.store)
    problems = verify(stored.store)
    for problem in problems:
        print(f"dmbp: shard {problem.shard}: {problem.reason}", file=sys.stderr)
    if problems and not args.dry_run:
        reopen(stored.store, problems)
    rows = len(stored.missing)
    state = f"{rows:,} of {len(stored):,} rows are to do" if rows else "all rows are done"
    print(f"{args.store}: {len(problems):,} of {stored.shards:,} shards differ; {state}")
    return INCORRECT if problems else 0
