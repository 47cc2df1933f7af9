"""`dmbp explain`: photos in, pictures of their attribution maps out."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import dmbp_jax
from dmbp_jax import Network, pictures
from dmbp_jax.catalogue import find_method
from dmbp_jax.checks import check_count
from dmbp_jax.cli.output import BAD_INPUT, make_folder, one_line, refuse_overwrite
from dmbp_jax.cli.settings import frozen_note, method_options, use_compilation_cache
from dmbp_jax.data.decoding import read_image
from dmbp_jax.data.loading import ReadAhead
from dmbp_jax.engine.batches import Batch, collect_rows, equal_size
from dmbp_jax.errors import DmbpError, DownloadError, ImageError, InputError
from dmbp_jax.files import replacing
from dmbp_jax.runs.explaining import Explained, explain_images
from dmbp_jax.runs.inputs import label_files

LONGEST_NAME = 255  # bytes of a file's name on nearly every system


class Photo(NamedTuple):
    """One image that could be read."""

    path: Path
    target: Path  # the picture to write
    label: int | None  # None for the network's first choice
    crop: Image.Image  # the part that the network gets, for drawing
    digest: str  # SHA-256 of the bytes that were decoded


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
        found = explain_photos(net, batch, args.method, options, progress=not args.quiet)
        for photo, one in zip(batch.items, found, strict=True):
            name = f"{net.labels[one.label] if net.labels else 'class'} ({one.label})"
            numbers, note = describe(one, options)
            try:
                save(args, photo, one, f"{name}: {numbers}")
            except (DmbpError, OSError) as error:  # numbers that overflowed, a disk that is full
                failed(photo.path, error)
                continue
            print(f"{photo.path}: {name}  {numbers}  -> {photo.target}", flush=True)
            if note:
                print(f"{photo.path}: {note}", flush=True)
    return BAD_INPUT if failures else 0


def choose_targets(args: argparse.Namespace, images: Sequence[Path]) -> list[Path]:
    """The pictures that will be written, none of which may be there already without `--force`."""
    targets = name_results(images, args.output, args.method)
    arrays = [target.with_suffix(".npz") for target in targets] if args.npz else []
    refuse_overwrite([*targets, *arrays], force=args.force)
    return targets


def save(args: argparse.Namespace, photo: Photo, one: Explained, title: str) -> None:
    """Write the picture of a map, and its arrays where they are asked for."""
    att, heat = one.attribution, np.asarray(one.map)
    parts = () if att is None else (np.asarray(att.positive), np.asarray(att.negative))
    drawn = heat if find_method(args.method).has_zero else heat - heat.mean()
    with replacing(photo.target) as part:
        draw(args.style, photo.crop, drawn, parts, title).save(part)
    if args.npz:
        with replacing(photo.target.with_suffix(".npz")) as part:
            if att is not None:
                att.save(part)
            else:
                np.savez_compressed(
                    part, map=heat, label=int(one.label), logit=one.logits[one.label]
                )


def label_photos(
    images: Sequence[Path], label: str | Path | None, net: Network
) -> list[tuple[Path, int | None]]:
    """Each image with its label, or with each of its labels in a table.

    The names in a table start from the common folder of the images or from the table's.
    """
    absolute = [path.absolute() for path in images]
    root = os.path.commonpath([path.parent for path in absolute])
    names = [path.relative_to(root).as_posix() for path in absolute]
    given = dict(zip(names, images, strict=True))
    labelled = label_files(Path(root), names, label, net.label_index)
    return [(given[name], label) for name, label in labelled]


def name_results(images: Sequence[Path], folder: Path, method: str) -> list[Path]:
    """OUT/<name>.<method>.png for each image; equal names get -2, -3, …, too long ones are cut."""
    taken: dict[str, None] = {}
    for image in images:
        count, end = 1, f".{method}.png"
        while (name := _cut(image.stem, end)) in taken:
            count += 1
            end = f"-{count}.{method}.png"
        taken[name] = None
    return [folder / name for name in taken]


def _cut(stem: str, end: str) -> str:
    """`stem + end`, the stem as long as a file's name allows."""
    while stem and len(os.fsencode(stem + end)) > LONGEST_NAME:
        stem = stem[:-1]
    return stem + end


def read(
    net: Network,
    files: Iterable[tuple[Path, int | None, Path]],
    failed: Callable[[Path, Exception], None],
) -> Iterator[tuple[Photo, np.ndarray]]:
    """The photos (path, label, target) that can be read, each decoded once, with their inputs.

    `failed` gets each of the others.
    """

    def read_one(file: tuple[Path, int | None, Path]) -> tuple[Photo, np.ndarray]:
        path, label, target = file
        picture, digest = read_image(path)
        crop = net.crop(picture)
        return Photo(path, target, label, crop, digest), net.preprocessing.normalise(crop)

    with ReadAhead(files, read_one) as photos:
        for (path, *_), photo in photos:
            if isinstance(photo, ImageError):
                failed(path, photo)
            else:
                yield photo


def explain_photos(
    net: Network, batch: Batch, method: str, options: Mapping[str, Any], *, progress: bool
) -> Iterator[Explained]:
    """The maps of a batch of photos, one by one."""
    found = explain_images(
        net,
        batch.rows,
        [photo.label for photo in batch.items],
        method=method,
        options={**options, "progress": progress} if method == "dmbp" else options,
        identities=[photo.digest for photo in batch.items],
    )
    for i in range(batch.count):
        att = None if found.attribution is None else found.attribution[i]
        yield Explained(found.label[i], found.logits[i], found.map[i], att)


def describe(one: Explained, options: Mapping[str, Any]) -> tuple[str, str]:
    """The numbers of Eq. 9, or the logit; and a sentence where the pixels carry less than half of
    the evidence of a sign.
    """
    att = one.attribution
    if att is None:
        return f"logit {one.logits[one.label]:.3f}", ""
    numbers = (
        f"y {att.y:.3f}  y+ {att.y_positive:.3f}  y- {att.y_negative:.3f}  "
        f"y~ {att.y_nuisance:.3f}  carried {att.carried[0]:.2f} {att.carried[1]:.2f}"
    )
    signs = [
        sign for sign, share in zip(("for", "against"), att.carried, strict=True) if share < 0.5
    ]
    if not signs or options["biases"] != "drop":
        return numbers, ""
    return numbers, (
        f"the pixels carry less than half of the evidence {' and '.join(signs)} the label; "
        "the rest comes from biases and is not in the map (--biases refine draws it)"
    )


def draw(
    style: str, crop: Image.Image, heat: np.ndarray, parts: Sequence[np.ndarray], title: str
) -> Image.Image:
    """The picture of one map; `parts` are positive and negative, of dmbp alone."""
    if style == "map":
        return pictures.diverging(heat)
    if style == "authors":
        return pictures.authors_overlay(crop, *parts)
    positive, negative = parts or (None, None)
    if style == "overlay":
        return pictures.overlay(crop, positive, negative, heatmap=None if parts else heat)
    return pictures.panel(crop, positive, negative, heat, title=title)
