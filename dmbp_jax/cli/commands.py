"""What commands share when they add themselves: name and texts, and the option `-o`."""

import argparse
from collections.abc import Callable
from pathlib import Path


def add_command(
    subparsers: argparse._SubParsersAction,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """The parser of `dmbp NAME`; description and example are printed as they are written."""
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=description,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_output_folder(parser: argparse.ArgumentParser, default: str, metavar: str) -> None:
    """The option `-o`: the folder of the results."""
    parser.add_argument(
        "-o",
        "--output",
        metavar=metavar,
        type=Path,
        default=Path(default),
        help=f"folder, made if missing; default {default}",
    )
