"""Small pictures of the images with the best and the worst maps, kept while the maps exist."""

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from dmbp_jax.experiments.contenders import Contender
from dmbp_jax.experiments.journal import Key, Record
from dmbp_jax.files import replacing
from dmbp_jax.pictures import diverging

FOLDER = "pictures"
SIDE = 144  # pixels of the longer side
PICTURE = "picture.png"

TargetName = tuple[str, int]  # picture, label


def folder_of(out: Path, target: TargetName) -> Path:
    """Where the pictures of a target are."""
    name = f"{target[0]}/{target[1]}".encode(errors="surrogateescape")
    return out / FOLDER / sha256(name).hexdigest()[:20]


def save_crops(out: Path, crops: Mapping[TargetName, Image.Image]) -> None:
    """Keep what the network saw of each target."""
    for target, crop in crops.items():
        folder = folder_of(out, target)
        folder.mkdir(parents=True, exist_ok=True)
        _save(_shrink(crop), folder / PICTURE)


def save_maps(
    out: Path, contender: Contender, targets: Iterable[TargetName], maps: np.ndarray
) -> None:
    """Keep a picture of the maps of `targets` (none if there are none), if they are finite."""
    for target, heat in zip(targets, maps, strict=False):
        if np.isfinite(heat).all():
            drawn = heat if contender.zero else heat - heat.mean()
            picture = _shrink(diverging(drawn)).quantize(64)  # a quarter of the bytes
            _save(picture, folder_of(out, target) / _file_name(contender.name))


def picture_of(out: Path, target: TargetName, method: str | None = None) -> bytes | None:
    """A kept picture as PNG: of the map of a method, or what the network saw; None if missing."""
    name = PICTURE if method is None else _file_name(method)
    path = folder_of(out, target) / name
    return path.read_bytes() if path.is_file() else None


def rank_targets(
    records: Mapping[Key, Record], methods: Sequence[str], shown: str
) -> list[TargetName]:
    """Targets that have all `methods`, from the best map of method `shown` to its worst.

    By IM, or where there is none by the absolute rank correlation, where 0 is best.
    """
    scored = []
    for (picture, label, method), record in records.items():
        complete = all((picture, label, other) in records for other in methods)
        score = record.values.get("im", -abs(record.values.get("rank", math.nan)))
        if method == shown and complete and not math.isnan(score):
            scored.append((-score, picture, label))
    return [(picture, label) for _, picture, label in sorted(scored)]


def ends(ranked: Sequence[TargetName], count: int) -> tuple[list[TargetName], list[TargetName]]:
    """The `count` best, and the `count` worst beginning with the worst; none is in both."""
    best = list(ranked[: min(count, -(-len(ranked) // 2))])
    worst = list(ranked[::-1][: min(count, len(ranked) // 2)])
    return best, worst


def prune(out: Path, ranked: Sequence[TargetName], count: int) -> None:
    """Drop the pictures of targets that more than `count` others beat at both ends.

    Whoever is among the best in the end is among the best of any part before.
    """
    for target in ranked[count : max(count, len(ranked) - count)]:
        shutil.rmtree(folder_of(out, target), ignore_errors=True)


def _shrink(picture: Image.Image) -> Image.Image:
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    return small


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        picture.save(part, "PNG")


def _file_name(method: str) -> str:
    """Of the map of a method, also where a `Contender` has a name that no file can have."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in method)
    unique = plain if plain == method else f"{plain}-{sha256(method.encode()).hexdigest()[:8]}"
    return f"map-{unique}.png"
