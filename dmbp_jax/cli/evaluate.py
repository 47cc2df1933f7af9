"""`dmbp evaluate`: the paper's tables, for a network and a dataset on disk or the generated one."""

import argparse
import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dmbp_jax
from dmbp_jax import Network, data, experiments
from dmbp_jax.catalogue import find_method
from dmbp_jax.cli.output import INCOMPLETE
from dmbp_jax.cli.settings import make_biases, make_config, name_failures, use_compilation_cache
from dmbp_jax.errors import InputError

GENERATED_SIZE = 200  # pictures of the generated dataset that targets are drawn from
SHOWN = 50  # left-out pictures named on stderr; all are in the page and in skipped.txt


def run(args: argparse.Namespace) -> int:
    """Evaluate; the exit code is 1 if pictures were left out."""
    check_options(args)
    use_compilation_cache(args)
    options = options_of_methods(args)
    stored = [experiments.open_maps(url) for url in args.maps or ()]
    table = args.table or ("2" if stored else "all")
    dataset_name = args.dataset or ("stored" if stored else "generated")
    network = args.network or (stored[0].run.configuration["network"] if stored else "builtin")
    out = args.output or Path("dmbp-evaluate", f"{dataset_name}-{network}-{table}")
    settings = experiments.Settings(
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
    check_used(options, settings)
    net = dmbp_jax.load(network, args.weights, args.class_names)
    result = experiments.evaluate(
        net,
        list_dataset(args, net, stored),
        out,
        settings,
        published=network if args.weights is None else None,
        force=args.force,
        progress=not args.quiet,
    )
    print(result)
    print(f"{out / 'evaluation.html'}: the same with curves and pictures")
    failures = ((picture.name, picture.reason) for picture in result.skipped)
    count = name_failures(failures, SHOWN, f"are named in {out / 'skipped.txt'}")
    return INCOMPLETE if count else 0


def check_options(args: argparse.Namespace) -> None:
    """Refuse what is missing or would be ignored, before anything is loaded."""
    if args.dataset in (None, "generated"):
        if args.root is not None and (args.dataset or not args.maps):
            raise InputError("--root: Expected none for the generated dataset.")
    elif args.root is None or args.network is None:
        raise InputError(f"--dataset {args.dataset}: Expected --root DIR and --network NAME.")
    if args.labels is not None and args.dataset not in ("csv", "imagenet"):
        raise InputError(f"--labels: Expected none for {args.dataset or 'this dataset'}.")


def check_used(options: Mapping[str, Any], settings: experiments.Settings) -> None:
    """Refuse options of methods that no table has a row of, which would be ignored."""
    rows = {row.name for rows in settings.rows().values() for row in rows}
    for name in options:
        if rows.isdisjoint(find_method(name).rows):
            raise InputError(
                f"options of {name}: Expected only options of the rows {', '.join(sorted(rows))}."
            )


def options_of_methods(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """`--option` and the options of dmbp, as method -> option -> value."""
    options: dict[str, dict[str, Any]] = {}
    if args.quick or args.steps is not None or args.biases is not None:
        options["dmbp"] = {"config": make_config(args), "biases": make_biases(args)}
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
    args: argparse.Namespace, net: Network, stored: Sequence[experiments.StoredRow]
) -> data.Dataset:
    """The pictures with their labels; those of the first store where no dataset is named."""
    if args.dataset is None and stored:
        return experiments.list_stored(stored[0], args.root)
    if args.dataset == "imagenet":
        return data.list_imagenet(args.root, ground_truth=args.labels)
    if args.dataset == "voc":
        return data.list_voc(args.root)
    if args.dataset == "csv":
        return data.list_csv_folder(args.root, args.labels, classes=net.labels)
    return data.list_generated(size=GENERATED_SIZE)
