"""Small pictures of the images with the best and the worst maps, written while the maps exist."""

import math
import shutil
from collections.abc import Iterable, Mapping
from hashlib import sha256

import numpy as np
from PIL import Image

from dmbp_jax.experiments.results import PICTURES, ResultFolder
from dmbp_jax.experiments.rows import TableRow
from dmbp_jax.files import replacing
from dmbp_jax.pictures import diverging

SIDE = 144  # pixels of the longer side

TargetName = tuple[str, int]  # picture, label
Ends = tuple[list[TargetName], list[TargetName]]  # best first; worst first


def choose_ends(scores: Mapping[TargetName, float], count: int) -> Ends:
    """The `count` best targets and the `count` worst, each from its end, and none in both."""
    known = (target for target, score in scores.items() if not math.isnan(score))
    order = sorted(known, key=lambda target: (-scores[target], target))
    half = -(-len(order) // 2)
    return order[:half][:count], order[half:][::-1][:count]


def keep_ends(folder: ResultFolder, scores: dict[TargetName, float], count: int) -> Ends:
    """`choose_ends`; the others lose their pictures, and their scores.

    A target that `count` others beat from either side stays beaten, so a batch costs the same
    whatever was measured before it.
    """
    ends = choose_ends(scores, count)
    for target in scores.keys() - {*ends[0], *ends[1]}:
        shutil.rmtree((folder.own / picture_name(target)).parent, ignore_errors=True)
        del scores[target]
    return ends


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
    for target, crop in crops.items():
        _save(crop, folder, picture_name(target))


def save_maps(
    folder: ResultFolder, row: TableRow, targets: Iterable[TargetName], maps: np.ndarray
) -> None:
    """Write a picture of the map of each target (none if there are none), if it is finite."""
    for target, heat in zip(targets, maps, strict=False):
        if np.isfinite(heat).all():
            picture = diverging(heat if row.has_zero else heat - heat.mean())
            small = shrink(picture).quantize(64)  # a quarter of the bytes
            _save(small, folder, picture_name(target, row.name))


def shrink(picture: Image.Image) -> Image.Image:
    """The picture in RGB, its longer side at most `SIDE`."""
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    return small


def _save(picture: Image.Image, folder: ResultFolder, name: str) -> None:
    path = folder.own / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        picture.save(part, "PNG")
