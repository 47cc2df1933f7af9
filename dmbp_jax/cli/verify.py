"""`dmbp verify`: compares what a large run has stored with what was committed."""

import argparse
import sys

from dmbp_jax import runs
from dmbp_jax.cli.output import INCOMPLETE


def run(args: argparse.Namespace) -> int:
    """Verify; the exit code is 1 if a shard differs."""
    stored = runs.open(args.store)
    problems = stored.verify()
    for problem in problems:
        print(f"dmbp: shard {problem.shard}: {problem.reason}", file=sys.stderr)
    if problems and not args.dry_run:
        runs.reopen(stored.store, problems)
    rows = len(stored.missing)
    state = f"{rows:,} of {len(stored):,} rows are to do" if rows else "all rows are done"
    print(f"{args.store}: {len(problems):,} of {stored.shards:,} shards differ; {state}")
    return INCOMPLETE if problems else 0
