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
from dmbp_jax.graph.model import ApplyFn, Model
from dmbp_jax.metrics.arguments import DEFAULT_CHUNK, NetworkCall, check_network
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
      chunk_size: pictures in one forward pass.
    """

    call: NetworkCall
    ranks: jax.Array
    counts: np.ndarray
    activation: str
    chunk_size: int


def check_curve_arguments(
    params: Any,
    x: ArrayLike,
    heatmap: Any,
    order: Order,
    apply_fn: ApplyFn | None,
    step: int | None,
    points: int | None,
    activation: Activation | None,
    chunk_size: int | None,
) -> CurveArguments:
    """Check what the three curves share, and put the pixels in order.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.metrics.insertion`.
    """
    call = check_network(params, x, apply_fn)
    maps = check_heatmap(heatmap, call.images)
    counts = pixel_counts(maps[0].size, step, points)
    score = find_activation(activation, params, apply_fn, ACTIVATIONS)
    chunk = DEFAULT_CHUNK if chunk_size is None else check_count(chunk_size, "chunk_size")
    check_choice(order, "order", ORDERS)
    return CurveArguments(call, pixel_ranks(maps, order), counts, score, chunk)


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


def target_curve(
    arguments: CurveArguments, start: jax.Array, finish: jax.Array, label: ArrayLike | None
) -> Curve:
    """The curve of one label per image; None is the network's top-1."""
    labels = arguments.call.target_labels(label, arguments.chunk_size)
    return score_curve(arguments, start, finish, labels[:, None])


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
    counts, images = arguments.counts, start.shape[0]
    one_chunk = partial(
        _scores,
        arguments.call.model,
        start,
        finish,
        arguments.ranks,
        labels,
        jnp.asarray(counts, jnp.int32),
        activation=arguments.activation,
    )
    total = images * counts.size
    scores = in_chunks(one_chunk, (jnp.arange(total),), total, arguments.chunk_size)
    scores = scores.reshape(images, counts.size)
    fractions = counts / counts[-1]
    widths = np.diff(fractions)
    weights = (np.append(widths, 0) + np.append(0, widths)) / 2  # trapezoid rule
    auc = (scores * jnp.asarray(weights[None], scores.dtype)).sum(-1)
    if arguments.call.images.single:
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
    """Scores of some of the N * S pictures, made here and not stored."""
    image, count = index // counts.size, counts[index % counts.size]
    changed = ranks[image] < count[:, None, None]
    pictures = jnp.where(changed[..., None], finish[image], start[image])
    logits = at_least_float32(model(pictures))
    values = logits if activation == "none" else PROBABILITIES[activation](logits)
    wanted = labels[image]
    picked = jnp.take_along_axis(values, jnp.maximum(wanted, 0), axis=-1)
    number = (wanted >= 0).sum(-1).astype(values.dtype)
    return jnp.where(wanted >= 0, picked, 0).sum(-1) / number  # 0 / 0 = NaN: no label, undefined
