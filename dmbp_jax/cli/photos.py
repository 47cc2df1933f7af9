"""Photos for `dmbp explain`: labels, names of results, and decoding."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dmbp_jax import Network
from dmbp_jax.data.decoding import read_image
from dmbp_jax.data.loading import ReadAhead
from dmbp_jax.errors import ImageError
from dmbp_jax.runs.inputs import label_files

LONGEST_NAME = 255  # bytes of a file's name on nearly every system


class Photo(NamedTuple):
    """One image that could be read."""

    path: Path
    target: Path  # the picture to write
    label: int | None  # None for the network's first choice
    crop: Image.Image  # the part that the network gets, for drawing
    digest: str  # SHA-256 of the bytes that were decoded


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
