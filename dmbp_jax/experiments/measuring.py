"""One batch and one method: pictures to arrays, the maps once, and every measure taken from them.

Each picture is decoded once, for the network and for the gallery.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dmbp_jax.data.decoding import read_image
from dmbp_jax.data.samples import FilePicture, Picture, Target
from dmbp_jax.engine.batches import collect_rows
from dmbp_jax.engine.keys import THREEFRY
from dmbp_jax.errors import ImageError, InputError
from dmbp_jax.experiments.page import shrink
from dmbp_jax.experiments.plan import Evaluated, Plan, Transform
from dmbp_jax.experiments.results import Record, picture_size
from dmbp_jax.experiments.rows import Batch, StoredRow, TableRow
from dmbp_jax.experiments.settings import Settings
from dmbp_jax.methods.keys import image_key
from dmbp_jax.metrics import (
    attribution_inside,
    complementary_insertion,
    insertion,
    layer_reinitialisation,
    pointing_game,
)

TOLERANCE = 15 / 224  # of the pointing game, as a share of the shorter side: 15 pixels of 224


Decoded = tuple[np.ndarray, Image.Image | None]  # x, and the small crop for the gallery


def decode(
    evaluated: Evaluated, with_crop: bool, rows: Sequence[TableRow], picture: Picture
) -> Decoded:
    """A picture as the network takes it, and its small crop; called in the threads that read.

    Raises:
      ImageError: it cannot be decoded, or a row has stored the map of another picture of its name.
    """
    if isinstance(picture, FilePicture):
        opened, digest = read_image(picture.path)
        for row in rows:
            if isinstance(row, StoredRow) and row.digests.get(picture.name, digest) != digest:
                raise ImageError(f"{picture.path}: another picture than {row.title} has a map of.")
    else:
        opened = picture.open()
    crop = evaluated.crop if with_crop else None
    small = None if crop is None else shrink(crop(opened))
    return np.asarray(evaluated.preprocess(opened)), small


def make_batch(
    targets: Sequence[Target],
    decoded: Mapping[str, Decoded],
    plan: Plan,
    seed: int,
    crop: Transform | None,
) -> Batch | None:
    """The targets whose pictures could be read, name -> picture; None if there are none."""
    good = [target for target in targets if target.picture.name in decoded]
    if not good:
        return None
    shape = decoded[good[0].picture.name][0].shape
    for name in (target.picture.name for target in good):
        if (other := decoded[name][0].shape) != shape:
            raise InputError(
                f"preprocess: Expected arrays of one shape, got {shape} and {other} for {name}."
            )
    rows, crops = [], {}
    for target in good:
        x, small = decoded[target.picture.name]
        others = np.full(plan.others, -1, np.int32)
        others[: len(target.others)] = target.others
        mask = _mask(target, shape[:2], crop)
        key = jax.random.key_data(image_key(seed, f"{target.picture.name}/{target.label}"))
        rows.append((target, (x, np.int32(target.label), others, mask, key)))
        if small is not None:
            crops[target.key] = small
    (batch,) = collect_rows(rows, plan.size)
    x, labels, others, masks, keys = batch.rows
    keys = jax.random.wrap_key_data(keys, impl=THREEFRY)
    return Batch(good, crops, jnp.asarray(x), jnp.asarray(labels), others, masks, keys)


def _mask(target: Target, shape: tuple[int, ...], crop: Transform | None) -> np.ndarray:
    """Where a target is, in the pixels of x; nowhere where no picture says so."""
    picture = None if crop is None else target.picture.mask(target.label)
    if crop is None or picture is None:
        return np.zeros(shape, bool)
    mask = np.asarray(crop(picture.convert("RGB")))[..., 0]
    if mask.shape != shape:
        raise InputError(f"crop: Expected pictures of x's {shape} pixels, got {mask.shape}.")
    return mask > 127


def measure(
    evaluated: Evaluated,
    batch: Batch,
    row: TableRow,
    measures: Sequence[str],
    settings: Settings,
) -> tuple[list[Record], np.ndarray]:
    """Records of a batch, and its heat maps (n, H, W).

    Maps that are not finite have no measure: NaN everywhere.
    """
    method = row.of(batch)
    maps = method(evaluated.params, batch.x, batch.labels, apply_fn=evaluated.apply_fn)
    finite = np.asarray(jnp.isfinite(maps).all((1, 2)))
    heat = jnp.where(finite[:, None, None], maps, 0)
    values: dict[str, np.ndarray] = {}
    curves: dict[str, np.ndarray] = {}
    options: dict[str, Any] = {
        "apply_fn": evaluated.apply_fn,
        "step": settings.step,
        "points": settings.points,
        "activation": settings.activation,
    }
    if "im" in measures:
        curve = insertion(evaluated.params, batch.x, batch.labels, heat, **options)
        values["im"], curves["im"] = np.array(curve.auc), np.array(curve.scores)
    if "cim" in measures:
        values["cim"] = np.full(len(heat), np.nan)
        if (batch.others >= 0).any():
            curve = complementary_insertion(
                evaluated.params, batch.x, batch.others, heat, **options
            )
            values["cim"], curves["cim"] = np.array(curve.auc), np.array(curve.scores)
    if "rank" in measures:
        # The same key for every batch and method, so that all meet the same new layers.
        redrawn = layer_reinitialisation(
            evaluated.params,
            batch.x,
            batch.labels,
            method,
            apply_fn=evaluated.apply_fn,
            key=jax.random.key(settings.seed),
            redraws=settings.redraws,
            last_layer=settings.last_layer,
            heatmap=heat,
        )
        values["rank"] = np.array(redrawn.correlation)
        values["rank_absolute"] = np.array(redrawn.correlation_absolute)
    if "im" in measures:
        values |= localise(np.asarray(heat), batch.masks)
    records = []
    for i, target in enumerate(batch.targets):
        own = {name: float(column[i]) if finite[i] else np.nan for name, column in values.items()}
        known = {
            name: scores[i] if finite[i] and np.isfinite(scores[i]).all() else scores[i][:0]
            for name, scores in curves.items()
        }
        pixels = heat[i].size
        size = picture_size(target.picture)
        name = target.picture.name
        records.append(Record(name, target.label, row.name, pixels, own, known, size))
    return records, np.asarray(maps)[: len(records)]


def localise(heat: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Where the map lies, against where the target is known to be; NaN where the mask is empty.

    `area` is what `inside` is for a map that is the same everywhere.
    """
    tolerance = TOLERANCE * min(heat.shape[1:])
    return {
        "pointing": np.array(pointing_game(heat, masks, tolerance=tolerance).hit),
        "inside": np.array(attribution_inside(heat, masks)),
        "area": np.where(masks.any((1, 2)), masks.mean((1, 2)), np.nan),
    }
