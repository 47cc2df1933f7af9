"""Small pictures of the images with the best and the worst maps, written while the maps exist."""

import math
import shutil
from bisect import insort
from collections.abc import Iterable, Mapping
from hashlib import sha256

import numpy as np
from PIL import Image

from dmbp_jax.experiments.results import PICTURES, Record, ResultFolder
from dmbp_jax.experiments.rows import TableRow
from dmbp_jax.files import replacing
from dmbp_jax.pictures import diverging

SIDE = 144  # pixels of the longer side

TargetName = tuple[str, int]  # picture, label


class Ranking:
    """The `count` best and the `count` worst targets of the records so far.

    The score of a target is the IM of method `shown`, or where there is none minus its absolute
    rank correlation; a target takes part once it has all `methods`.
    """

    def __init__(self, methods: Iterable[str], shown: str, count: int) -> None:
        """Start with no records."""
        self._count, self.shown = count, shown
        self._methods = frozenset(methods)
        self._missing: dict[TargetName, set[str]] = {}  # of targets that are not complete
        self._scores: dict[TargetName, float] = {}
        self._ends: list[tuple[float, str, int]] = []  # best first, at most 2 count

    def add(self, records: Iterable[Record]) -> list[TargetName]:
        """Take new records in; returns the targets that are now known not to be at an end.

        A target that `count` others beat from either side stays beaten, so the cost of a record
        does not depend on how many there are already.
        """
        out = []
        for record in records:
            if record.method not in self._methods:
                continue
            target = record.picture, record.label
            missing = self._missing.setdefault(target, set(self._methods))
            missing.discard(record.method)
            if record.method == self.shown:
                rank = -abs(record.values.get("rank", math.nan))
                self._scores[target] = record.values.get("im", rank)
            if missing:
                continue
            del self._missing[target]
            score = self._scores.pop(target)
            if math.isnan(score):
                out.append(target)
                continue
            insort(self._ends, (-score, *target))
            if len(self._ends) > 2 * self._count:
                out.append(self._ends.pop(self._count)[1:])
        return out

    def best(self) -> list[TargetName]:
        """At most `count`, the best first."""
        half = -(-len(self._ends) // 2)
        return [(name, label) for _, name, label in self._ends[: min(self._count, half)]]

    def worst(self) -> list[TargetName]:
        """At most `count`, the worst first; none of them is among the best."""
        half = len(self._ends) // 2
        return [(name, label) for _, name, label in self._ends[::-1][: min(self._count, half)]]


def picture_name(target: TargetName, row: str | None = None) -> str:
    """File of the map of a row, or of the picture itself, relative to the folder of its own.

    Names of pictures and rows may be no names of files, so these are hashes.
    """
    folder = _hash(f"{target[0]}/{target[1]}")
    return f"{PICTURES}/{folder}/{'picture' if row is None else f'map-{_hash(row)}'}.png"


def _hash(name: str) -> str:
    return sha256(name.encode(errors="surrogateescape")).hexdigest()[:20]


def save_crops(folder: ResultFolder, crops: Mapping[TargetName, Image.Image]) -> None:
    """Write the crop of each target."""
    _save(folder, {picture_name(target): crop for target, crop in crops.items()})


def save_maps(
    folder: ResultFolder, row: TableRow, targets: Iterable[TargetName], maps: np.ndarray
) -> None:
    """Write a picture of the map of each target (none if there are none), if it is finite."""
    drawn = {}
    for target, heat in zip(targets, maps, strict=False):
        if np.isfinite(heat).all():
            picture = diverging(heat if row.has_zero else heat - heat.mean())
            small = shrink(picture).quantize(64)  # a quarter of the bytes
            drawn[picture_name(target, row.name)] = small
    _save(folder, drawn)


def remove_pictures(folder: ResultFolder, targets: Iterable[TargetName]) -> None:
    """Remove the crops and maps of some targets."""
    for target in targets:
        shutil.rmtree((folder.own / picture_name(target)).parent, ignore_errors=True)


def shrink(picture: Image.Image) -> Image.Image:
    """The picture in RGB, its longer side at most `SIDE`."""
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    return small


def _save(folder: ResultFolder, pictures: Mapping[str, Image.Image]) -> None:
    for name, picture in pictures.items():
        path = folder.own / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            picture.save(part, "PNG")
