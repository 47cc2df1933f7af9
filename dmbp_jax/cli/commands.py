"""What commands share: how one adds itself, options of several, and what is made from them."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dmbp_jax.catalogue import BIASES, CATALOGUE, find_method
from dmbp_jax.errors import InputError

if TYPE_CHECKING:
    from dmbp_jax import DMBP, Network

METHODS = tuple(method.name for method in CATALOGUE)
LOSSES = find_method("dmbp").variants
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


def as_path(text: str) -> Path:
    """A path as it was typed; "~" is the home folder, also where the shell has left it."""
    return Path(os.path.expanduser(text))  # of pathlib, an unknown user would be an error


def add_output_folder(parser: argparse.ArgumentParser, default: str, metavar: str) -> None:
    """The option `-o`: the folder of the results."""
    parser.add_argument(
        "-o",
        "--output",
        metavar=metavar,
        type=as_path,
        default=Path(default),
        help=f"folder, made if missing; default {default}",
    )


def add_network(parser: argparse.ArgumentParser, default: str | None, help: str) -> None:
    """The options `--network`, `--weights` and `--class-names`."""
    add = parser.add_argument
    add("--network", metavar="NAME", default=default, help=help)
    add("--weights", metavar="FILE", type=as_path, help="read the weights from FILE, no download")
    add_class_names(parser)


def add_class_names(parser: argparse.ArgumentParser) -> None:
    """The option `--class-names`."""
    parser.add_argument(
        "--class-names",
        metavar="FILE",
        type=as_path,
        help="class names of a fine-tuned network: one a line, or JSON",
    )


def open_network(args: argparse.Namespace, name: str | None = None) -> "Network":
    """The network that `add_network` asks for, or another name with the same files."""
    from dmbp_jax import load

    return load(name or args.network, args.weights, args.class_names)


def add_labels(parser: argparse.ArgumentParser) -> None:
    """The options `--label` and `--labels`, of which one may be given."""
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument(
        "--label",
        metavar="top1|N|NAME",
        help="class to explain, by number or name; default top1, the network's first choice",
    )
    labels.add_argument(
        "--labels", metavar="TABLE", type=as_path, help="table file,label: a label for each image"
    )


def add_method(parser: argparse.ArgumentParser) -> None:
    """The option `--method`."""
    parser.add_argument(
        "--method", choices=METHODS, default="dmbp", metavar="M", help=", ".join(METHODS)
    )


def add_dmbp(parser: argparse.ArgumentParser, *, loss: bool = False, biases: bool = False) -> None:
    """The options of dmbp, which `make_config` reads: `--steps`, `--quick`, `--loss`, `--biases`.

    The other methods take none of them.
    """
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--steps", metavar="N", type=int, help="steps of dmbp; default 200")
    steps.add_argument("--quick", action="store_true", help="six steps of dmbp, at a higher rate")
    if loss:
        text = "variant of dmbp in the paper's Table 1; default all"
        parser.add_argument("--loss", choices=LOSSES, help=text)
    if biases:
        parser.add_argument(
            "--biases",
            choices=BIASES,
            help="add what the biases of dmbp carry: spread, as coarse as their layers, or carry, "
            "back to the pixels; default carry with --quick, else drop, the paper's map",
        )


def make_config(args: argparse.Namespace) -> "DMBP":
    """The settings of dmbp that `add_dmbp` asks for: the paper's unless told otherwise."""
    from dmbp_jax import DMBP

    given = {name: getattr(args, name, None) for name in ("steps", "loss")}
    given = {name: value for name, value in given.items() if value is not None}
    return DMBP.quick(**given) if args.quick else DMBP.paper(**given)


def make_biases(args: argparse.Namespace) -> str:
    """What becomes of the biases: carried with `--quick`, else left out as in the paper."""
    return args.biases or ("carry" if args.quick else BIASES[0])


def refuse_dmbp_options(args: argparse.Namespace) -> None:
    """Refuse options of dmbp that another method would ignore.

    Raises:
      InputError: one was given.
    """
    unset = {"steps": None, "quick": False, "loss": None, "biases": None}
    given = [name for name, value in unset.items() if getattr(args, name, value) != value]
    if args.method != "dmbp" and given:
        options = ", ".join(f"--{name}" for name in given)
        raise InputError(f"{options}: Expected only with --method dmbp, got {args.method}.")


def add_nonaffine(parser: argparse.ArgumentParser) -> None:
    """The option `--nonaffine`."""
    parser.add_argument(
        "--nonaffine",
        choices=NONAFFINE,
        default=NONAFFINE[0],
        help="freeze (default): normalisation statistics, attention weights and other gates of a "
        "network are constants at the image; refuse: only networks without any",
    )
