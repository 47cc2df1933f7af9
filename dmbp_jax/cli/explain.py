"""`dmbp explain`: photos in, pictures of their attribution maps out."""

import argparse
import sys
from functools import partial
from pathlib import Path

from dmbp_jax.catalogue import find_method
from dmbp_jax.cli import compilation
from dmbp_jax.cli.commands import (
    add_biases,
    add_command,
    add_method,
    add_network,
    add_nonaffine,
    add_output_folder,
)
from dmbp_jax.cli.maps import (
    FORMATS,
    Mapper,
    draw,
    frozen_note,
    map_by_dmbp,
    map_by_method,
)
from dmbp_jax.cli.output import make_folder, refuse_overwrite, save_picture
from dmbp_jax.cli.photos import batches, name_results, read
from dmbp_jax.cli.reporting import BAD_INPUT, one_line
from dmbp_jax.errors import DmbpError, DownloadError, InputError
from dmbp_jax.files import replacing

LOSSES = find_method("dmbp").variants

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
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="picture file")
    add_network(parser, "resnet50", "default resnet50; see dmbp networks")
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help="class names of a fine-tuned network, by line"
    )
    parser.add_argument(
        "--label",
        metavar="N|NAME",
        help="class to explain, by number or name; default: the network's first choice",
    )
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
    parser.add_argument(
        "--steps", metavar="N", type=int, help="optimisation steps of dmbp; default 200"
    )
    parser.add_argument(
        "--loss", choices=LOSSES, help="variant of dmbp in the paper's Table 1; default all"
    )
    parser.add_argument(
        "--quick", action="store_true", help="six steps of dmbp instead of the paper's 200"
    )
    add_biases(parser)
    add_nonaffine(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    compilation.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """Explain every image that can be read; the exit code is 2 if one could not be."""
    check_options(args)
    targets = name_results(args.images, args.output, args.method)
    arrays = [target.with_suffix(".npz") for target in targets] if args.npz else []
    refuse_overwrite([*targets, *arrays], force=args.force)
    compilation.use_cache(args)
    from dmbp_jax import load

    explain = choose_mapper(args)
    try:
        net = load(args.network, args.weights, args.labels)
    except DownloadError as error:
        raise DownloadError(f"{error} dmbp demo needs no download.") from error
    label = None if args.label is None else net.label_index(number_or_name(args.label))
    make_folder(args.output)
    failures = 0

    def failed(path: Path, error: Exception) -> None:
        nonlocal failures
        failures += 1
        print(f"dmbp: {reason(path, error)}", file=sys.stderr)

    photos = read(net, zip(args.images, targets, strict=True), failed)
    for number, (group, x) in enumerate(batches(photos, len(args.images), args.batch_size)):
        if number == 0 and (note := frozen_note(net, x, args.method, args.nonaffine)):
            print(f"{args.network}: {note}", flush=True)
        for photo, one in zip(group, explain(net, group, x, label), strict=True):
            name = net.labels[one.label]
            try:
                picture = draw(args.format, photo.crop, one, name)
            except DmbpError as error:  # numbers that overflowed
                failed(photo.path, error)
                continue
            save_picture(picture, photo.target)
            if args.npz:
                with replacing(photo.target.with_suffix(".npz")) as part:
                    one.save(part)
            numbers = f"{name} ({one.label})  {one.numbers}"
            print(f"{photo.path}: {numbers}  -> {photo.target}", flush=True)
            if one.note:
                print(f"{photo.path}: {one.note}", flush=True)
    return BAD_INPUT if failures else 0


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that would be ignored, before anything is loaded.

    Raises:
      InputError: a batch size below 1, or an option of dmbp with another method.
    """
    if args.batch_size < 1:
        raise InputError(f"--batch-size: Expected at least 1, got {args.batch_size}.")
    if args.method == "dmbp":
        return
    if args.steps is not None or args.loss is not None:
        raise InputError(f"--steps, --loss: Expected only with --method dmbp, got {args.method}.")
    if args.quick or args.biases != "drop":
        raise InputError(f"--quick, --biases: Expected only with --method dmbp, got {args.method}.")
    if args.format == "authors":
        raise InputError(
            "--format authors: Expected only with --method dmbp, whose maps have two parts, "
            f"got {args.method}."
        )


def number_or_name(label: str) -> int | str:
    """A class as typed: a number is an index, anything else a name."""
    try:
        return int(label)
    except ValueError:
        return label


def reason(path: Path, error: Exception) -> str:
    """Why an image failed, with its name said once."""
    message = one_line(error)
    return message if message.startswith(str(path)) else f"{path}: {message}"


def choose_mapper(args: argparse.Namespace) -> Mapper:
    """The method that was chosen, with its settings.

    Raises:
      InputError: a setting out of range.
    """
    import jax

    from dmbp_jax import DMBP

    if args.method == "dmbp":
        settings = {"steps": args.steps, "loss": args.loss}
        given = {name: value for name, value in settings.items() if value is not None}
        config = DMBP.quick(**given) if args.quick else DMBP.paper(**given)
        return partial(map_by_dmbp, config, args.biases, args.nonaffine, not args.quiet)
    forward = jax.jit(lambda net, x: net(x))
    return partial(map_by_method, args.method, args.nonaffine, forward)
