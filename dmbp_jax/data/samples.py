"""What all datasets have in common: named pictures with their labels, and what was left out.

A reader lists pictures without opening them; `load_pictures` decodes them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from dmbp_jax.checks import check_count
from dmbp_jax.data.decoding import open_image
from dmbp_jax.data.generated import CLASSES, compose, generate


class Picture(Protocol):
    """A picture of a dataset: its unique name, its ground-truth labels, and how to open it."""

    @property
    def name(self) -> str:
        """Unique in its dataset and stable over time."""

    @property
    def labels(self) -> tuple[int, ...]:
        """Class indices, ascending, at least one."""

    def open(self) -> Image.Image:
        """The picture in RGB; raises `ImageError` if it cannot be decoded."""

    def mask(self, label: int) -> Image.Image | None:
        """Where class `label` is, as a mode "L" picture of 0 and 255; None if not annotated."""


class Box(NamedTuple):
    """An object: rows `top` to `bottom` and columns `left` to `right`, ends excluded."""

    label: int
    left: int
    top: int
    right: int
    bottom: int
    difficult: bool = False


@dataclass(frozen=True)
class FilePicture:
    """A picture in a file.

    Attributes:
      name: path relative to the dataset's root, with forward slashes.
      path: where the file is.
      labels: class indices, ascending.
      size: (width, height) that `boxes` refer to; None without boxes.
      boxes: annotated objects.
    """

    name: str
    path: Path
    labels: tuple[int, ...]
    size: tuple[int, int] | None = None
    boxes: tuple[Box, ...] = ()

    def open(self) -> Image.Image:
        """Decode the file.

        Raises:
          ImageError: missing, empty, truncated, too large or not a picture.
        """
        return open_image(self.path)

    def mask(self, label: int) -> Image.Image | None:
        """The union of the boxes of class `label`, 255 inside; None if there are none."""
        boxes = [box for box in self.boxes if box.label == label]
        if not boxes or self.size is None:
            return None
        inside = np.zeros(self.size[::-1], np.uint8)
        for box in boxes:
            inside[max(box.top, 0) : box.bottom, max(box.left, 0) : box.right] = 255
        return Image.fromarray(inside)


@dataclass(frozen=True)
class GeneratedPicture:
    """Picture `index` of generated dataset `seed`, drawn when it is opened."""

    name: str
    labels: tuple[int, ...]
    seed: int
    index: int

    def open(self) -> Image.Image:
        """Draw the picture."""
        return Image.fromarray(generate(self.seed, self.index).image)

    def mask(self, label: int) -> Image.Image | None:
        """The visible pixels of the object of class `label`; None if it is not in the picture."""
        if label not in self.labels:
            return None
        return Image.fromarray(generate(self.seed, self.index).masks[label].astype(np.uint8) * 255)


class Skipped(NamedTuple):
    """A picture that is left out, by name, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Pictures in order of their names, and the files that the reader could not use.

    Attributes:
      name: "imagenet", "voc", "csv" or "generated".
      pictures: what can be evaluated; decoding may still skip some.
      skipped: files left out while reading the annotations, each with its reason.
      classes: class names in the order of the labels; empty if the reader does not know them.
    """

    name: str
    pictures: tuple[Picture, ...]
    skipped: tuple[Skipped, ...] = ()
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    def __iter__(self) -> Iterator[Picture]:
        """The pictures in order."""
        return iter(self.pictures)


def list_generated(seed: int = 1, size: int = 1000) -> Dataset:
    """The first `size` pictures of generated dataset `seed`, listed like those of any dataset.

    Raises:
      InputError, InputTypeError: `seed` < 0, `size` < 1, or not integers.

    Example:
      >>> picture = list_generated(size=1).pictures[0]
      >>> picture.name, picture.open().size
      ('1/0', (96, 96))
    """
    pictures = []
    for i in range(check_count(size, "size")):
        labels = {thing.label for thing in compose(seed, i).things if thing.label is not None}
        pictures.append(GeneratedPicture(f"{seed}/{i}", tuple(sorted(labels)), seed, i))
    return Dataset("generated", tuple(pictures), (), CLASSES)


class Target(NamedTuple):
    """A picture and the label to explain; an evaluation is a list of these."""

    picture: Picture
    label: int

    @property
    def key(self) -> tuple[str, int]:
        """Name of the picture, and the label; no two targets share them."""
        return self.picture.name, self.label

    @property
    def others(self) -> tuple[int, ...]:
        """The picture's other labels, for cIM; empty where cIM is undefined."""
        return tuple(label for label in self.picture.labels if label != self.label)


def choose_targets(
    pictures: Sequence[Picture] | Dataset, images_per_class: int | None = None, seed: int = 0
) -> tuple[Target, ...]:
    """Every (picture, label), or `images_per_class` of them for every class.

    The choice orders the pictures of a class by SHA-256 of (seed, label, name) and takes the
    first: the same on every machine and version, and a file that comes or goes does not change
    the choice among the others.

    Args:
      pictures: a `Dataset`, or its pictures.
      images_per_class: 5 in the paper's Table 1; None takes all.
      seed: an int >= 0; another seed is another choice.

    Returns:
      Targets in order of the pictures, then of the labels. Classes with fewer pictures give all.

    Raises:
      InputError, InputTypeError: `images_per_class` < 1, `seed` < 0, or not integers.

    Example:
      >>> pictures = [FilePicture(f"{i}.jpg", Path(f"{i}.jpg"), (i % 2,)) for i in range(10)]
      >>> [target.label for target in choose_targets(pictures, images_per_class=2)].count(1)
      2
    """
    check_count(seed, "seed", minimum=0)
    targets = [Target(picture, label) for picture in pictures for label in picture.labels]
    if images_per_class is None:
        return tuple(targets)
    check_count(images_per_class, "images_per_class")
    by_class: dict[int, list[str]] = {}
    for target in targets:
        by_class.setdefault(target.label, []).append(target.picture.name)
    chosen = {
        (name, label)
        for label, names in by_class.items()
        for name in sorted(names, key=lambda n, c=label: _draw(seed, c, n))[:images_per_class]
    }
    return tuple(target for target in targets if target.key in chosen)


def _draw(seed: int, label: int, name: str) -> bytes:
    return sha256(f"{seed}/{label}/{name}".encode(errors="surrogateescape")).digest()
