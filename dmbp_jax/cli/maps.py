"""Maps for `dmbp explain`: what is printed, drawn and saved of one photo."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dmbp_jax import Network, pictures
from dmbp_jax.catalogue import find_method
from dmbp_jax.cli.photos import Photo
from dmbp_jax.engine.batches import Batch
from dmbp_jax.runs.explaining import explain_images


class PhotoMap(NamedTuple):
    """The map of one photo."""

    label: int
    numbers: str  # printed beside it
    map: np.ndarray  # (H, W) or (H, W, C), as it is drawn
    parts: tuple[np.ndarray, np.ndarray] | None  # positive and negative, of dmbp
    save: Callable[[Path], object]  # writes the arrays to a path
    note: str = ""  # what a reader of the map should know


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
