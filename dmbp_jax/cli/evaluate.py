"""`dmbp evaluate`: the paper's tables, for a network and a dataset on disk or the generated one."""

import argparse
import ast
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmbp_jax.catalogue import ROWS
from dmbp_jax.cli import compilation
from dmbp_jax.cli.commands import (
    add_command,
    add_dmbp,
    add_network,
    add_nonaffine,
    as_path,
    make_biases,
    make_config,
    open_network,
)
from dmbp_jax.errors import InputError

if TYPE_CHECKING:
    from dmbp_jax import Network
    from dmbp_jax.data import Dataset, Skipped
    from dmbp_jax.experiments import StoredRow

INCOMPLETE = 1  # exit code: done, but pictures were left out
DATASETS = ("generated", "imagenet", "voc", "csv")
GENERATED_SIZE = 200  # pictures of the generated dataset that targets are drawn from
SHOWN = 50  # left-out pictures named on stderr; all are in the page and in skipped.txt

DESCRIPTION = """\
Measure how faithful attribution maps are: insertion metrics of DMBP's variants (Table 1) and of all
methods (Table 2), rank correlation after the last layer is re-drawn (Table 3), and where the
dataset knows its objects, how well maps localise them.
"""
EXAMPLE = """\
examples:
  dmbp evaluate --table all
  dmbp evaluate --table 1 --dataset imagenet --root ILSVRC2012 --network resnet50
  dmbp evaluate --table 2 --dataset voc --root VOCdevkit --network resnet50_voc --limit 200
  dmbp evaluate --table 2 --dataset csv --root photos --network resnet50 --option rise.n_masks=500
  dmbp evaluate --maps maps.zarr --methods gradient

Stopped or killed, the same command continues where it was. OUT gets tables.md, tables.csv and
evaluation.html, and dmbp-evaluation/ to go on from; other files in it are left alone. Pictures that
cannot be read are named on stderr; the others are evaluated and the exit code is 1.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`dmbp evaluate --table 1|2|3|all --dataset NAME --root DIR --network NAME …`."""
    parser = add_command(
        subparsers,
        "evaluate",
        run,
        "measure how faithful maps are: the paper's tables",
        DESCRIPTION,
        EXAMPLE,
    )
    add = parser.add_argument
    add("--table", choices=("1", "2", "3", "all"), help="default all, and 2 with --maps")
    add("--dataset", choices=DATASETS, help="default generated, and the pictures of --maps")
    add(
        "--maps",
        metavar="STORE",
        nargs="+",
        help="score the maps of these stores (dmbp run), instead of the paper's rows; --methods "
        "adds rows that are computed",
    )
    add("--root", metavar="DIR", type=as_path, help="folder of the dataset")
    add(
        "--labels",
        metavar="TABLE",
        type=as_path,
        help="table file,label of csv (default DIR/labels.csv), or imagenet's ground-truth file",
    )
    add_network(parser, None, "see dmbp networks; default builtin for generated, that of --maps")
    add(
        "--methods",
        metavar="M",
        nargs="+",
        choices=ROWS,
        help="rows of the tables instead of the paper's: " + ", ".join(ROWS),
    )
    add(
        "--images-per-class",
        metavar="N",
        type=_count_or_all,
        help="targets drawn for each class, a number or all; default 5 for imagenet, 4 for "
        "generated, all for voc and csv",
    )
    add("--limit", metavar="N", type=int, help="at most N targets, spread evenly over those drawn")
    add("--seed", metavar="N", type=int, default=0, help="of all random choices; default 0")
    add("--redraws", metavar="N", type=int, default=5, help="new last layers, Table 3; default 5")
    add_dmbp(parser, biases=True)
    add_nonaffine(parser)
    add(
        "--option",
        metavar="METHOD.NAME=VALUE",
        action="append",
        default=[],
        help="option of a method, such as rise.n_masks=500; may be repeated",
    )
    add("--step", metavar="N", type=int, help="pixels inserted at a time; default 224")
    add("--points", metavar="N", type=int, help="number of points of a curve, instead of --step")
    add("--batch-size", metavar="N", type=int, default=8, help="images at once; default 8")
    add(
        "-o",
        "--output",
        metavar="OUT",
        type=as_path,
        help="folder, made if missing; default dmbp-evaluate/DATASET-NETWORK-TABLE",
    )
    add(
        "--force",
        action="store_true",
        help="start over: remove the earlier results in OUT, no others",
    )
    add("--quiet", action="store_true", help="no progress bar")
    compilation.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate; the exit code is 1 if pictures were left out."""
    check_options(args)
    compilation.use_cache(args)
    options = method_options(args)
    from dmbp_jax.experiments import Settings, evaluate, open_maps

    stored = [open_maps(url) for url in args.maps or ()]
    table = args.table or ("2" if stored else "all")
    dataset_name = args.dataset or ("stored" if stored else "generated")
    network = args.network or (stored[0].run.configuration["network"] if stored else "builtin")
    out = args.output or Path("dmbp-evaluate", f"{dataset_name}-{network}-{table}")
    settings = Settings(
        tables=(1, 2, 3) if table == "all" else (int(table),),
        methods=[*stored, *(args.methods or ())] if stored else args.methods,
        options=options,
        nonaffine=args.nonaffine,
        images_per_class=args.images_per_class,
        limit=args.limit,
        seed=args.seed,
        redraws=args.redraws,
        step=args.step,
        points=args.points,
        batch_size=args.batch_size,
    )
    net = open_network(args, network)
    dataset = list_dataset(args, net, stored)
    result = evaluate(
        net,
        dataset,
        out,
        settings,
        published=network if args.weights is None else None,
        force=args.force,
        progress=not args.quiet,
    )
    print(result)
    print(f"{out / 'evaluation.html'}: the same with curves and pictures")
    report(result.skipped, out)
    return INCOMPLETE if result.skipped else 0


def check_options(args: argparse.Namespace) -> None:
    """Refuse what is missing or would be ignored, before anything is loaded.

    Raises:
      InputError: no --root or no --network for files, or one of their options without files.
    """
    if args.dataset in (None, "generated"):
        if args.root is not None and (args.dataset or not args.maps):
            raise InputError("--root: Expected none for the generated dataset.")
    elif args.root is None or args.network is None:
        raise InputError(f"--dataset {args.dataset}: Expected --root DIR and --network NAME.")
    if args.labels is not None and args.dataset not in ("csv", "imagenet"):
        raise InputError(f"--labels: Expected none for {args.dataset or 'this dataset'}.")


def method_options(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """`--option` and the options of dmbp, as method -> option -> value.

    Raises:
      InputError: not METHOD.NAME=VALUE.
    """
    options: dict[str, dict[str, Any]] = {
        "dmbp": {"config": make_config(args), "biases": make_biases(args)}
    }
    for text in args.option:
        name, equals, value = text.partition("=")
        method, dot, option = name.partition(".")
        if not (method and dot and option and equals):
            raise InputError(f"--option: Expected METHOD.NAME=VALUE, got {text!r}.")
        try:
            options.setdefault(method, {})[option] = ast.literal_eval(value)
        except (ValueError, SyntaxError):  # a word
            options.setdefault(method, {})[option] = value
    return options


def list_dataset(
    args: argparse.Namespace, net: "Network", stored: "Sequence[StoredRow]"
) -> "Dataset":
    """The pictures with their labels; those of the first store where no dataset is named."""
    from dmbp_jax import data
    from dmbp_jax.experiments import list_stored

    if args.dataset is None and stored:
        return list_stored(stored[0], args.root)
    if args.dataset == "imagenet":
        return data.list_imagenet(args.root, ground_truth=args.labels)
    if args.dataset == "voc":
        return data.list_voc(args.root)
    if args.dataset == "csv":
        return data.list_csv_folder(args.root, args.labels, classes=net.labels)
    return data.list_generated(size=GENERATED_SIZE)


def report(skipped: "Sequence[Skipped]", out: Path) -> None:
    """Name the pictures that were left out, with the reason of each, on stderr."""
    for picture in skipped[:SHOWN]:
        print(f"dmbp: {picture.name}: {' '.join(picture.reason.split())}", file=sys.stderr)
    if len(skipped) > SHOWN:
        more = len(skipped) - SHOWN
        print(f"dmbp: {more} more are named in {out / 'skipped.txt'}", file=sys.stderr)


def _count_or_all(text: str) -> int | str:
    if text == "all":
        return text
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 or all, got {text!r}")
    return count
