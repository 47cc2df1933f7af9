"""`dmbp report`: a large run as one HTML page."""

import argparse
from pathlib import Path

from dmbp_jax.cli.commands import add_command, as_path
from dmbp_jax.cli.output import make_folder, refuse_overwrite

SUMMARY = "show a large run as one page"
DESCRIPTION = """\
Write one HTML page about a large run: histograms over all rows, failures with their reasons, and
pictures with their maps to sort and filter. It needs no other file and no network.
"""
EXAMPLE = """\
example:
  dmbp report maps.zarr -o page.html

Shown are the smallest and largest y, nuisance and probability, and a random sample.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`dmbp report STORE -o page.html [--images FOLDER] [--most N] [--force]`."""
    parser = add_command(subparsers, "report", run, SUMMARY, DESCRIPTION, EXAMPLE)
    parser.add_argument("store", metavar="STORE", help="folder, s3://… or gs://…")
    parser.add_argument(
        "-o",
        "--output",
        metavar="PAGE",
        type=as_path,
        default=Path("report.html"),
        help="default report.html",
    )
    parser.add_argument(
        "--images", metavar="FOLDER", type=as_path, help="of the pictures, if they have moved"
    )
    parser.add_argument(
        "--most", metavar="N", type=int, default=2000, help="pictures shown; default 2000"
    )
    parser.add_argument("--force", action="store_true", help="overwrite an earlier page")


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    from dmbp_jax.runs import open, write_report

    stored = open(args.store)
    refuse_overwrite([args.output], force=args.force)
    make_folder(args.output.absolute().parent)
    write_report(stored, args.output, images=args.images, most=args.most)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB, {len(stored):,} rows")
    return 0
