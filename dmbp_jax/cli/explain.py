"""`dmbp explain`: photos in, pictures of their attribution maps out."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
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
from dmbp_jax.runs.explaining import explain_images
from dmbp_jax.runs.inputs import label_files

LONGEST_NAME = 255  # bytes of a file's name on nearly every system


class Photo(NamedTuple):
    """One image that could be read."""

    path: Path
    target: Path  # the picture to write
    label: int | None  # None for the network's first choice
    crop: Image.Image  # the part that the network gets, for drawing
    digest: str  # SHA-256 of the bytes that were decoded


class PhotoMap(NamedTuple):
    """The map of one photo."""

    label: int
    numbers: str  # printed beside it
    map: np.ndarray  # (H, W) or (H, W, C), as it is drawn
    parts: tuple[np.ndarray, np.ndarray] | None  # positive and negative, of dmbp
    save: Callable[[Path], object]  # writes the arrays to a path
    note: str = ""  # what a reader of the map should know


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
) -> Iterator[PhotoMap]:
    """The maps of a batch of photos."""
    photos: Sequence[Photo] = batch.items
    filled = [*photos, *[photos[0]] * (len(batch.rows) - batch.count)]
    found = explain_images(
        net,
        batch.rows,
        [photo.label for photo in filled],
        method=method,
        options={**options, "progress": progress} if method == "dmbp" else options,
        identities=[photo.digest for photo in filled],
    )
    for i in range(batch.count):
        label = int(found.label[i])
        if found.attribution is not None:  # of Eq. 9
            one = found.attribution[i]
            numbers = (
                f"y {one.y:.3f}  y+ {one.y_positive:.3f}  y- {one.y_negative:.3f}  "
                f"y~ {one.y_nuisance:.3f}  carried {one.carried[0]:.2f} {one.carried[1]:.2f}"
            )
            parts = np.asarray(one.positive), np.asarray(one.negative)
            note = carried_note(np.asarray(one.carried), options["biases"])
            yield PhotoMap(label, numbers, np.asarray(one.map), parts, one.save, note)
            continue
        heat, logit = np.asarray(found.map[i]), np.asarray(found.logits[i, label])
        save = partial(np.savez_compressed, map=heat, label=label, logit=logit)
        drawn = heat if find_method(method).has_zero else heat - heat.mean()
        yield PhotoMap(label, f"logit {logit:.3f}", drawn, None, save)


def carried_note(carried: np.ndarray, biases: str) -> str:
    """One sentence where the pixels carry less than half of the evidence of a sign."""
    signs = [sign for sign, share in zip(("for", "against"), carried, strict=True) if share < 0.5]
    if not signs or biases != "drop":
        return ""
    return (
        f"the pixels carry less than half of the evidence {' and '.join(signs)} the label; "
        "the rest comes from biases and is not in the map (--biases carry draws it)"
    )


def draw(style: str, crop: Image.Image, one: PhotoMap, name: str) -> Image.Image:
    """The picture of one map."""
    if style == "map":
        return pictures.diverging(one.map)
    if style == "authors" and one.parts is not None:
        return pictures.authors_overlay(crop, *one.parts)
    positive, negative = one.parts or (None, None)
    if style == "overlay":
        heatmap = one.map if one.parts is None else None
        return pictures.overlay(crop, positive, negative, heatmap=heatmap)
    title = f"{name} ({one.label}): {one.numbers}"
    return pictures.panel(crop, positive, negative, one.map, title=title)
