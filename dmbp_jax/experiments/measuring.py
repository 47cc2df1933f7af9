"""One batch and one method: the maps are made once, and every measure is taken from them."""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.data.samples import Target
from dmbp_jax.experiments.contenders import Contender
from dmbp_jax.experiments.journal import Record
from dmbp_jax.experiments.settings import Settings
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.metrics import (
    complementary_insertion,
    insertion,
    layer_reinitialisation,
    pointing_game,
)

TOLERANCE = 15 / 224  # of the pointing game, as a share of the shorter side: 15 pixels of 224


class Subject(NamedTuple):
    """The network that is asked."""

    params: Any
    apply_fn: ApplyFn | None


class Batch(NamedTuple):
    """Targets whose pictures could be read, filled up to the size that is compiled.

    Attributes:
      targets: the n targets.
      x: (N, H, W, C) with N >= n; the rows beyond n repeat the first.
      labels: (N,) int32.
      others: (N, K) int32, the other labels of each picture, filled up with -1.
      masks: (N, H, W) bool, where the target is, or None where no picture says so.
      keys: one for each row.
    """

    targets: Sequence[Target]
    x: jax.Array
    labels: jax.Array
    others: np.ndarray
    masks: np.ndarray | None
    keys: Sequence[jax.Array]


def target_key(seed: int, target: Target) -> jax.Array:
    """The noise of a target, whatever batch it is in."""
    name = f"{target.picture.name}/{target.label}".encode(errors="surrogateescape")
    return jax.random.fold_in(
        jax.random.key(seed), int.from_bytes(sha256(name).digest()[:4], "little")
    )


def measure(
    subject: Subject,
    batch: Batch,
    contender: Contender,
    measures: Sequence[str],
    settings: Settings,
) -> tuple[list[Record], np.ndarray]:
    """Records of a batch, and its heat maps (n, H, W).

    Maps that are not finite have no measure: NaN everywhere.
    """
    method = partial(contender.heatmaps, keys=batch.keys)
    maps = method(subject.params, batch.x, batch.labels, apply_fn=subject.apply_fn)
    finite = np.asarray(jnp.isfinite(maps).all((1, 2)))
    heat = jnp.where(finite[:, None, None], maps, 0)
    values: dict[str, np.ndarray] = {}
    curves: dict[str, np.ndarray] = {}
    options: dict[str, Any] = {
        "apply_fn": subject.apply_fn,
        "step": settings.step,
        "points": settings.points,
        "activation": settings.activation,
    }
    if "im" in measures:
        curve = insertion(subject.params, batch.x, batch.labels, heat, **options)
        values["im"], curves["im"] = np.array(curve.auc), np.array(curve.scores)
    if "cim" in measures:
        values["cim"] = np.full(len(heat), np.nan)
        if (batch.others >= 0).any():
            curve = complementary_insertion(subject.params, batch.x, batch.others, heat, **options)
            values["cim"], curves["cim"] = np.array(curve.auc), np.array(curve.scores)
    if "rank" in measures:
        redrawn = layer_reinitialisation(
            subject.params,
            batch.x,
            batch.labels,
            method,
            apply_fn=subject.apply_fn,
            key=jax.random.key(settings.seed),
            last_layer=settings.last_layer,
            heatmap=heat,
        )
        values["rank"] = np.array(redrawn.correlation)
    if "im" in measures and batch.masks is not None:
        values |= localise(np.asarray(heat), batch.masks)
    records = []
    for i, target in enumerate(batch.targets):
        own = {name: float(column[i]) if finite[i] else np.nan for name, column in values.items()}
        drawn = {
            name: scores[i] if finite[i] and np.isfinite(scores[i]).all() else scores[i][:0]
            for name, scores in curves.items()
        }
        pixels = heat[i].size
        records.append(
            Record(target.picture.name, target.label, contender.name, pixels, own, drawn)
        )
    return records, np.asarray(maps)[: len(records)]


def localise(heat: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Where the map lies, against where the target is known to be.

    `pointing`: 1 if the highest point is on the target, or nearer than 15 pixels of 224; `inside`:
    Σ max(h, 0) over the target / Σ max(h, 0), 0 for a map without anything positive; `area`: what
    `inside` is for a map that is the same everywhere. NaN where the mask is empty.
    """
    tolerance = TOLERANCE * min(heat.shape[1:])
    positive = np.maximum(heat.astype(np.float64), 0)
    total = positive.sum((1, 2))
    known = masks.any((1, 2))
    share = (positive * masks).sum((1, 2)) / np.where(total > 0, total, 1)
    return {
        "pointing": np.array(pointing_game(heat, masks, tolerance=tolerance).hit),
        "inside": np.where(known, share, np.nan),
        "area": np.where(known, masks.mean((1, 2)), np.nan),
    }
