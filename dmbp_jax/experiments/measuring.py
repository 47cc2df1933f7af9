"""One batch and one method: the maps are made once, and every measure is taken from them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.experiments.batches import Batch
from dmbp_jax.experiments.journal import Record
from dmbp_jax.experiments.rows import TableRow
from dmbp_jax.experiments.settings import Settings
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.metrics import (
    attribution_inside,
    complementary_insertion,
    insertion,
    layer_reinitialisation,
    pointing_game,
)

TOLERANCE = 15 / 224  # of the pointing game, as a share of the shorter side: 15 pixels of 224


class EvaluatedNetwork(NamedTuple):
    """The network whose maps are measured: logits = apply_fn(params, x), or params(x)."""

    params: Any
    apply_fn: ApplyFn | None


def measure(
    network: EvaluatedNetwork,
    batch: Batch,
    row: TableRow,
    measures: Sequence[str],
    settings: Settings,
) -> tuple[list[Record], np.ndarray]:
    """Records of a batch, and its heat maps (n, H, W).

    Maps that are not finite have no measure: NaN everywhere.
    """
    method = row.of(batch)
    maps = method(network.params, batch.x, batch.labels, apply_fn=network.apply_fn)
    finite = np.asarray(jnp.isfinite(maps).all((1, 2)))
    heat = jnp.where(finite[:, None, None], maps, 0)
    values: dict[str, np.ndarray] = {}
    curves: dict[str, np.ndarray] = {}
    options: dict[str, Any] = {
        "apply_fn": network.apply_fn,
        "step": settings.step,
        "points": settings.points,
        "activation": settings.activation,
    }
    if "im" in measures:
        curve = insertion(network.params, batch.x, batch.labels, heat, **options)
        values["im"], curves["im"] = np.array(curve.auc), np.array(curve.scores)
    if "cim" in measures:
        values["cim"] = np.full(len(heat), np.nan)
        if (batch.others >= 0).any():
            curve = complementary_insertion(network.params, batch.x, batch.others, heat, **options)
            values["cim"], curves["cim"] = np.array(curve.auc), np.array(curve.scores)
    if "rank" in measures:
        # The same key for every batch and method, so that all meet the same new layers.
        redrawn = layer_reinitialisation(
            network.params,
            batch.x,
            batch.labels,
            method,
            apply_fn=network.apply_fn,
            key=jax.random.key(settings.seed),
            redraws=settings.redraws,
            last_layer=settings.last_layer,
            heatmap=heat,
        )
        values["rank"] = np.array(redrawn.correlation)
        values["rank_absolute"] = np.array(redrawn.correlation_absolute)
    if "im" in measures and batch.masks is not None:
        values |= localise(np.asarray(heat), batch.masks)
    records = []
    for i, target in enumerate(batch.targets):
        own = {name: float(column[i]) if finite[i] else np.nan for name, column in values.items()}
        known = {
            name: scores[i] if finite[i] and np.isfinite(scores[i]).all() else scores[i][:0]
            for name, scores in curves.items()
        }
        pixels = heat[i].size
        records.append(Record(target.picture.name, target.label, row.name, pixels, own, known))
    return records, np.asarray(maps)[: len(records)]


def localise(heat: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Where the map lies, against where the target is known to be.

    `pointing`: 1 if the highest point is on the target, or nearer than 15 pixels of 224; `inside`:
    share of the positive attribution on the target; `area`: what `inside` is for a map that is
    the same everywhere. NaN where the mask is empty.
    """
    tolerance = TOLERANCE * min(heat.shape[1:])
    return {
        "pointing": np.array(pointing_game(heat, masks, tolerance=tolerance).hit),
        "inside": np.array(attribution_inside(heat, masks)),
        "area": np.where(masks.any((1, 2)), masks.mean((1, 2)), np.nan),
    }
