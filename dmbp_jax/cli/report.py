"""`dmbp report`: a large run as one HTML page."""

import argparse

from dmbp_jax import runs
from dmbp_jax.cli.output import make_folder, refuse_overwrite


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    stored = runs.open(args.store)
    refuse_overwrite([args.output], force=args.force)
    make_folder(args.output.absolute().parent)
    runs.write_report(stored, args.output, images=args.images, most=args.most)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB, {len(stored):,} rows")
    return 0
