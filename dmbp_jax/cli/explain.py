"""`dmbp explain`: photos in, pictures of their attribution maps out."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import dmbp_jax
from dmbp_jax.checks import check_count
from dmbp_jax.cli.maps import PhotoMap, draw, explain_photos
from dmbp_jax.cli.output import BAD_INPUT, make_folder, one_line, refuse_overwrite
from dmbp_jax.cli.photos import Photo, label_photos, name_results, read
from dmbp_jax.cli.settings import frozen_note, method_options, use_compilation_cache
from dmbp_jax.engine.batches import collect_rows, equal_size
from dmbp_jax.errors import DmbpError, DownloadError, InputError
from dmbp_jax.files import replacing


def run(args: argparse.Namespace) -> int:
    """Explain every image that can be read; the exit code is 2 if one could not be."""
    check_count(args.batch_size, "--batch-size")
    options = method_options(args)
    if args.style == "authors" and args.method != "dmbp":
        raise InputError(
            "--style authors: Expected only with --method dmbp, whose maps have two parts, "
            f"got {args.method}."
        )
    if args.labels is None:
        choose_targets(args, args.images)  # refused before the weights are loaded
    use_compilation_cache(args)
    try:
        net = dmbp_jax.load(args.network, args.weights, args.class_names)
    except DownloadError as error:
        raise DownloadError(f"{error} dmbp demo needs no download.") from error
    rows = label_photos(args.images, args.labels or args.label, net)
    targets = choose_targets(args, [image for image, _ in rows])
    make_folder(args.output)
    failures = 0

    def failed(image: Path, error: Exception) -> None:
        nonlocal failures
        failures += 1
        message = one_line(error)
        named = message if message.startswith(str(image)) else f"{image}: {message}"
        print(f"dmbp: {named}", file=sys.stderr)

    chosen = ((*row, target) for row, target in zip(rows, targets, strict=True))
    photos = read(net, chosen, failed)
    size = equal_size(len(rows), args.batch_size)
    for number, batch in enumerate(collect_rows(photos, size)):
        if number == 0 and (note := frozen_note(net, batch.rows, options)):
            print(f"{args.network}: {note}", flush=True)
        maps = explain_photos(net, batch, args.method, options, progress=not args.quiet)
        for photo, one in zip(batch.items, maps, strict=True):
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


def choose_targets(args: argparse.Namespace, images: Sequence[Path]) -> list[Path]:
    """The pictures that will be written, none of which may be there already without `--force`."""
    targets = name_results(images, args.output, args.method)
    arrays = [target.with_suffix(".npz") for target in targets] if args.npz else []
    refuse_overwrite([*targets, *arrays], force=args.force)
    return targets


def save(args: argparse.Namespace, photo: Photo, one: PhotoMap, name: str) -> None:
    """Write the picture of a map, and its arrays where they are asked for."""
    with replacing(photo.target) as part:
        draw(args.style, photo.crop, one, name).save(part)
    if args.npz:
        with replacing(photo.target.with_suffix(".npz")) as part:
            one.save(part)
