"""A curve of scores while pixels change, one group after the other, in the order of a heat map.

Insertion, complementary insertion and deletion are this curve with other ends and other orders.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.checks import check_choice, check_count
from dmbp_jax.engine.chunks import in_chunks
from dmbp_jax.engine.scores import PROBABILITIES, find_activation
from dmbp_jax.errors import InputError
from dmbp_jax.graph.model import ApplyFn, Model, bind, check_images, count_classes
from dmbp_jax.metrics.blurring import Baseline, baseline_images
from dmbp_jax.metrics.heatmaps import at_least_float32, check_heatmap

Order = Literal["decreasing", "increasing"]
Activation = Literal["softmax", "sigmoid", "none"]
ACTIVATIONS = (*PROBABILITIES, "none")
DEFAULT_STEP = 224
DEFAULT_CHUNK = 32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Curve:
    """Scores along the way from one picture to another, and the area under them.

    Attributes:
      fractions: (S,) share of pixels changed at each point; first 0, last 1.
      scores: (N, S), or (S,) for a single image.
      auc: (N,), or a scalar: trapezoid of `scores` over `fractions`, so a last step that is
        shorter than the others counts for less.
    """

    fractions: jax.Array
    scores: jax.Array
    auc: jax.Array


class Setting(NamedTuple):
    """Checked arguments that all three metrics share."""

    model: Model
    x: jax.Array
    single: bool
    heatmap: jax.Array
    blank: jax.Array
    classes: int
    counts: np.ndarray
    activation: str
    chunk_size: int


def check_setting(
    params: Any,
    x: ArrayLike,
    heatmap: Any,
    *,
    apply_fn: ApplyFn | None,
    baseline: Baseline,
    baseline_name: str,
    step: int | None,
    points: int | None,
    activation: Activation | None,
    chunk_size: int | None,
) -> Setting:
    """Check what is common to insertion, complementary insertion and deletion."""
    model = bind(params, apply_fn)
    images = check_images(x)
    classes = count_classes(model, images.x)
    maps = check_heatmap(heatmap, images)
    return Setting(
        model,
        images.x,
        images.single,
        maps,
        baseline_images(baseline, images.x, baseline_name),
        classes,
        pixel_counts(maps[0].size, step, points),
        find_activation(activation, params, apply_fn, ACTIVATIONS),
        DEFAULT_CHUNK if chunk_size is None else check_count(chunk_size, "chunk_size"),
    )


def pixel_counts(pixels: int, step: int | None = None, points: int | None = None) -> np.ndarray:
    """How many pixels have changed at each point of the curve: first none, last all.

    `step` pixels at a time (224 when neither is given; the last step may be shorter), or `points`
    equally spaced points, rounded to whole pixels.

    Raises:
      InputError: both given, `step` < 1, or `points` outside 2 ... pixels + 1.
      InputTypeError: not integers.
    """
    if points is None:
        size = check_count(DEFAULT_STEP if step is None else step, "step")
        return np.append(np.arange(0, pixels, size), pixels)
    if step is not None:
        raise InputError(f"points: Expected step or points, got both ({step} and {points}).")
    if check_count(points, "points", minimum=2) > pixels + 1:
        raise InputError(f"points: Expected at most {pixels + 1} (pixels + 1), got {points}.")
    return np.round(np.linspace(0, pixels, points)).astype(np.int64)


def check_order(order: Order) -> Order:
    """Refuse anything but the two orders.

    Raises:
      InputTypeError, InputError: neither "decreasing" nor "increasing".
    """
    return check_choice(order, "order", ("decreasing", "increasing"))


@partial(jax.jit, static_argnames="order")
def pixel_ranks(heatmap: jax.Array, order: Order) -> jax.Array:
    """Place of every pixel in the order of its heat map, (N, H, W) int32, from 0.

    The sort is stable: pixels of equal value keep their row-major order, whichever the `order`.
    """
    flat = heatmap.reshape(heatmap.shape[0], -1)
    places = jnp.argsort(-flat if order == "decreasing" else flat, axis=-1, stable=True)
    rows = jnp.arange(flat.shape[0])[:, None]
    ranks = jnp.zeros(flat.shape, jnp.int32)
    return (
        ranks.at[rows, places]
        .set(jnp.arange(flat.shape[1], dtype=jnp.int32))
        .reshape(heatmap.shape)
    )


def curve(
    setting: Setting, start: jax.Array, finish: jax.Array, labels: jax.Array, order: Order
) -> Curve:
    """Scores while pixels go from `start` to `finish` in the `order` of the heat map.

    Args:
      setting: the checked arguments.
      start: (N, H, W, C) images at fraction 0.
      finish: (N, H, W, C) images at fraction 1.
      labels: (N, K) int32; the score is the mean over the labels that are not -1, NaN if all are.
      order: largest attribution first, or smallest first.
    """
    images, points = setting.x.shape[0], setting.counts.size
    one_chunk = partial(
        _scores,
        setting.model,
        start,
        finish,
        pixel_ranks(setting.heatmap, order),
        labels,
        jnp.asarray(setting.counts, jnp.int32),
        activation=setting.activation,
    )
    total = images * points
    scores = in_chunks(one_chunk, (jnp.arange(total),), total, setting.chunk_size)
    scores = scores.reshape(images, points)
    fractions = setting.counts / setting.counts[-1]
    widths = np.diff(fractions)
    weights = (np.append(widths, 0) + np.append(0, widths)) / 2  # trapezoid rule
    auc = (scores * jnp.asarray(weights[None], scores.dtype)).sum(-1)
    if setting.single:
        scores, auc = scores[0], auc[0]
    return Curve(jnp.asarray(fractions, scores.dtype), scores, auc)


@partial(jax.jit, static_argnames="activation")
def _scores(
    model: Model,
    start: jax.Array,
    finish: jax.Array,
    ranks: jax.Array,
    labels: jax.Array,
    counts: jax.Array,
    index: jax.Array,
    *,
    activation: str,
) -> jax.Array:
    """Scores of some of the N * S pictures, which are made here and nowhere kept."""
    image, count = index // counts.size, counts[index % counts.size]
    changed = ranks[image] < count[:, None, None]
    pictures = jnp.where(changed[..., None], finish[image], start[image])
    logits = at_least_float32(model(pictures))
    values = logits if activation == "none" else PROBABILITIES[activation](logits)
    wanted = labels[image]
    picked = jnp.take_along_axis(values, jnp.maximum(wanted, 0), axis=-1)
    number = (wanted >= 0).sum(-1).astype(values.dtype)
    return jnp.where(wanted >= 0, picked, 0).sum(-1) / number  # 0 / 0 = NaN: no label, undefined
