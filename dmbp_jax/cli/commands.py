"""What commands share when they add themselves: name and texts, and options of several."""

import argparse
from collections.abc import Callable
from pathlib import Path

from dmbp_jax.catalogue import BIASES, CATALOGUE

METHODS = tuple(method.name for method in CATALOGUE)
NONAFFINE = ("freeze", "refuse")  # the first is the default


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


def add_network(parser: argparse.ArgumentParser, default: str | None, help: str) -> None:
    """The options `--network` and `--weights`."""
    parser.add_argument("--network", metavar="NAME", default=default, help=help)
    parser.add_argument(
        "--weights", metavar="FILE", type=Path, help="read the weights from FILE, no download"
    )


def add_method(parser: argparse.ArgumentParser) -> None:
    """The option `--method`."""
    parser.add_argument(
        "--method", choices=METHODS, default="dmbp", metavar="M", help=", ".join(METHODS)
    )


def add_biases(parser: argparse.ArgumentParser) -> None:
    """The option `--biases`."""
    parser.add_argument(
        "--biases",
        choices=BIASES,
        default=BIASES[0],
        help="add what the biases of dmbp carry: spread, as coarse as their layers, or carry, back "
        "to the pixels; default drop",
    )


def add_nonaffine(parser: argparse.ArgumentParser) -> None:
    """The option `--nonaffine`."""
    parser.add_argument(
        "--nonaffine",
        choices=NONAFFINE,
        default=NONAFFINE[0],
        help="freeze (default): normalisation statistics, attention weights and other gates of a "
        "network are constants at the image; refuse: only networks without any",
    )
