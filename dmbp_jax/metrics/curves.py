"""A curve of scores while pixels change, one group after the other, in the order of a heat map.

Insertion, complementary insertion and deletion are this curve with other ends and other orders.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.checks import check_choice, check_count
from dmbp_jax.engine.sampling import sum_samples
from dmbp_jax.engine.scores import PROBABILITIES, find_activation
from dmbp_jax.errors import InputError
from dmbp_jax.graph.call import Call
from dmbp_jax.graph.images import Images
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.metrics.heatmaps import at_least_float32, check_heatmap

Order = Literal["decreasing", "increasing"]
Activation = Literal["softmax", "sigmoid", "none"]
ORDERS = ("decreasing", "increasing")
ACTIVATIONS = (*PROBABILITIES, "none")
DEFAULT_STEP = 224  # pixels


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


class CurveArguments(NamedTuple):
    """Checked arguments that insertion, complementary insertion and deletion share.

    Attributes:
      call: the network and its images.
      ranks: (N, H, W) int32, the place of every pixel in the order of the heat map.
      counts: (S,) number of pixels changed at each point of the curve.
      activation: what makes a score of a logit.
    """

    call: Call
    ranks: jax.Array
    counts: np.ndarray
    activation: str


def check_curve_arguments(
    call: Call,
    heatmap: Any,
    order: Order,
    step: int | None,
    points: int | None,
    activation: str,
) -> CurveArguments:
    """Check what the three curves share, and put the pixels in order.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.metrics.insertion`.
    """
    maps = check_heatmap(heatmap, Images(call.images, call.single))
    counts = pixel_counts(maps[0].size, step, points)
    check_choice(order, "order", ORDERS)
    return CurveArguments(call, pixel_ranks(maps, order), counts, activation)


def score_activation(activation: Activation | None, params: Any, apply_fn: ApplyFn | None) -> str:
    """What makes a score of a logit: the one given, else the network's own, else softmax."""
    return find_activation(activation, params, apply_fn, ACTIVATIONS)


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


def score_curve(
    arguments: CurveArguments, start: jax.Array, finish: jax.Array, labels: jax.Array
) -> Curve:
    """Scores while pixels go from `start` to `finish` in the order of their ranks.

    Args:
      arguments: the checked arguments.
      start: (N, H, W, C) images at fraction 0.
      finish: (N, H, W, C) images at fraction 1.
      labels: (N, K) int32; the score is the mean over the labels that are not -1, NaN if all are.
    """
    counts, call = arguments.counts, arguments.call
    changed = jnp.broadcast_to(jnp.asarray(counts, jnp.int32), (len(start), counts.size))
    rows = (start, finish, arguments.ranks, labels, changed)
    scores = sum_samples(_score, call, counts.size, *rows, activation=arguments.activation)
    fractions = counts / counts[-1]
    widths = np.diff(fractions)
    weights = (np.append(widths, 0) + np.append(0, widths)) / 2  # trapezoid rule
    auc = (scores * jnp.asarray(weights[None], scores.dtype)).sum(-1)
    if call.single:
        scores, auc = scores[0], auc[0]
    return Curve(jnp.asarray(fractions, scores.dtype), scores, auc)


def _score(
    network: TracedNetwork,
    image: jax.Array,
    label: None,
    i: jax.Array,
    start: jax.Array,
    finish: jax.Array,
    ranks: jax.Array,
    labels: jax.Array,
    counts: jax.Array,
    *,
    activation: str,
) -> jax.Array:
    """(S,) the score of the picture at point i, at its place: the sum over i is the curve."""
    x = jnp.where((ranks < counts[i])[..., None], finish, start)
    logits = at_least_float32(network.logits(x))
    values = logits if activation == "none" else PROBABILITIES[activation](logits)
    number = (labels >= 0).sum().astype(values.dtype)
    # 0 / 0 = NaN: no label, undefined
    score = jnp.where(labels >= 0, values[jnp.maximum(labels, 0)], 0).sum() / number
    return jnp.where(jnp.arange(counts.size) == i, score, 0)
