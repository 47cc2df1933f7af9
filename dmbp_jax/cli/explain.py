"""`dmbp explain`: photos in, pictures of their attribution maps out."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dmbp_jax.cli import compilation
from dmbp_jax.cli.commands import (
    add_command,
    add_dmbp,
    add_labels,
    add_method,
    add_network,
    add_nonaffine,
    add_output_folder,
    as_path,
    make_biases,
    make_config,
    open_network,
    refuse_dmbp_options,
)
from dmbp_jax.cli.maps import (
    FORMATS,
    Mapper,
    PhotoMap,
    draw,
    frozen_note,
    map_by_dmbp,
    map_by_method,
)
from dmbp_jax.cli.output import make_folder, refuse_overwrite, save_picture
from dmbp_jax.cli.photos import Photo, batches, label_photos, name_results, read
from dmbp_jax.cli.reporting import BAD_INPUT, one_line
from dmbp_jax.errors import DmbpError, DownloadError, InputError
from dmbp_jax.files import replacing

SUMMARY = "explain what a network answers for photos"
DESCRIPTION = """\
Write one picture for each image: red pixels are evidence for the label, blue ones against it.
Images are cropped as the network needs it, and done in batches.
"""
EXAMPLE = """\
examples:
  dmbp explain dog.jpg cat.jpg --network resnet50 --label "golden retriever" -o maps --npz
  dmbp demo && dmbp explain dmbp-demo/scene-4.png --network builtin --label star

The weights of resnet50 are downloaded once; --weights reads a file instead, and builtin needs
neither. Each picture goes to OUT/<name of the image>.<method>.png. If an image cannot be read the
others are still done, its reason goes to stderr, and the exit code is 2.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """`dmbp explain IMAGE… [--network NAME] [--weights FILE] [--label N|NAME] [--method M] …`."""
    parser = add_command(subparsers, "explain", run, SUMMARY, DESCRIPTION, EXAMPLE)
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=as_path, help="picture file")
    add_network(parser, "resnet50", "default resnet50; see dmbp networks")
    add_labels(parser)
    add_method(parser)
    add_output_folder(parser, "dmbp-explain", "OUT")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="panel",
        help="panel: image, positive part, negative part and map side by side (default); overlay: "
        "both parts over the image, each on its own scale; authors: both parts on one scale, as "
        "the authors draw them (dmbp only); map: the map on white",
    )
    parser.add_argument(
        "--npz", action="store_true", help="also write the arrays, beside each picture"
    )
    parser.add_argument("--force", action="store_true", help="overwrite earlier results")
    parser.add_argument(
        "--batch-size", metavar="N", type=int, default=8, help="images at once; default 8"
    )
    add_dmbp(parser, loss=True, biases=True)
    add_nonaffine(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    compilation.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """Explain every image that can be read; the exit code is 2 if one could not be."""
    check_options(args)
    rows: list[tuple[Path, int | None]] = [(image, None) for image in args.images]
    if args.labels is None:
        choose_targets(args, rows)  # refused before JAX and the weights are loaded
    compilation.use_cache(args)
    explain = choose_mapper(args)
    try:
        net = open_network(args)
    except DownloadError as error:
        raise DownloadError(f"{error} dmbp demo needs no download.") from error
    if args.labels is not None:
        rows = label_photos(args.images, args.labels, net)
    elif args.label not in (None, "top1"):
        rows = [(image, net.label_index(args.label)) for image in args.images]
    targets = choose_targets(args, rows)
    make_folder(args.output)
    failures = 0

    def failed(image: Path, error: Exception) -> None:
        nonlocal failures
        failures += 1
        print(f"dmbp: {reason(image, error)}", file=sys.stderr)

    chosen = ((*row, target) for row, target in zip(rows, targets, strict=True))
    photos = read(net, chosen, failed)
    for number, (group, x) in enumerate(batches(photos, len(rows), args.batch_size)):
        if number == 0 and (note := frozen_note(net, x, args.method, args.nonaffine)):
            print(f"{args.network}: {note}", flush=True)
        for photo, one in zip(group, explain(net, group, x), strict=True):
            name = net.labels[one.label] if net.labels else "class"
            try:
                save(args, photo, one, name)
            except (DmbpError, OSError) as error:  # numbers that overflowed, a disk that is full
                failed(photo.path, error)
                continue
            numbers = f"{name} ({one.label})  {one.numbers}"
            print(f"{photo.path}: {numbers}  -> {photo.target}", flush=True)
            if one.note:
                print(f"{photo.path}: {one.note}", flush=True)
    return BAD_INPUT if failures else 0


def choose_targets(args: argparse.Namespace, rows: Sequence[tuple[Path, int | None]]) -> list[Path]:
    """The pictures that will be written, none of which may be there already.

    Raises:
      InputError: one is, and `--force` was not given.
    """
    targets = name_results([image for image, _ in rows], args.output, args.method)
    arrays = [target.with_suffix(".npz") for target in targets] if args.npz else []
    refuse_overwrite([*targets, *arrays], force=args.force)
    return targets


def save(args: argparse.Namespace, photo: Photo, one: PhotoMap, name: str) -> None:
    """Write the picture of a map, and its arrays where they are asked for."""
    save_picture(draw(args.format, photo.crop, one, name), photo.target)
    if args.npz:
        with replacing(photo.target.with_suffix(".npz")) as part:
            one.save(part)


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that would be ignored, before anything is loaded.

    Raises:
      InputError: a batch size below 1, or an option of dmbp with another method.
    """
    if args.batch_size < 1:
        raise InputError(f"--batch-size: Expected at least 1, got {args.batch_size}.")
    refuse_dmbp_options(args)
    if args.format == "authors" and args.method != "dmbp":
        raise InputError(
            "--format authors: Expected only with --method dmbp, whose maps have two parts, "
            f"got {args.method}."
        )


def reason(image: Path, error: Exception) -> str:
    """Why an image failed, with its name said once."""
    message = one_line(error)
    return message if message.startswith(str(image)) else f"{image}: {message}"


def choose_mapper(args: argparse.Namespace) -> Mapper:
    """The method that was chosen, with its settings.

    Raises:
      InputError: a setting out of range.
    """
    options: dict[str, Any] = {"nonaffine": args.nonaffine}
    if args.method == "dmbp":
        options |= {"config": make_config(args), "biases": make_biases(args)}
        return partial(map_by_dmbp, progress=not args.quiet, **options)
    import jax

    forward = jax.jit(lambda net, x: net(x))
    return partial(map_by_method, name=args.method, forward=forward, **options)
