"""Insertion, complementary insertion and deletion: scores while pixels change in a map's order.

Insertion metric (IM, paper Sec. 4.1): a faithful map puts the pixels first that the network needs
to see the target. cIM: what appears while the least important come first should be the image's
other classes. Deletion (RISE) is not one of the paper's numbers; it is insertion backwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.checks import check_choice, check_count
from dmbp_jax.engine.baselines import Baseline, make_baseline
from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.engine.precision import at_least_float32
from dmbp_jax.engine.sampling import sum_samples
from dmbp_jax.engine.scores import PROBABILITIES, find_activation, target_labels
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.call import Call, check_call
from dmbp_jax.graph.model import ApplyFn, is_traced
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.metrics.heatmaps import fit_heatmap

ORDERS = ("decreasing", "increasing")
ACTIVATIONS = (*PROBABILITIES, "none")
DEFAULT_STEP = 224  # pixels
LabelSets = ArrayLike | Sequence[int] | Sequence[Sequence[int]]


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


@on_any_mesh("x")
def insertion(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None,
    heatmap: Any,
    *,
    apply_fn: ApplyFn | None = None,
    blur: Baseline = "rise",
    step: int | None = None,
    points: int | None = None,
    activation: str | None = None,
    order: str = "decreasing",
    chunk_size: int | None = None,
) -> Curve:
    r"""Probability of the target while pixels are inserted, most important first.

    With \(r\) the rank of a pixel in its heat map, point k of the curve scores the image
    \(x_k = x\) where \(r < k\), blurred x elsewhere. All channels of a pixel move together.
    The area under the curve is taken by the trapezoid rule over the actual fractions k / (H W).

    Args:
      params: with `apply_fn`, any pytree; without, a callable pytree (`dmbp_jax.Network`, ...).
      x: (H, W, C) or (N, H, W, C) floating point, preprocessed.
      label: int, (N,) ints, or None for the network's first choice. The paper takes the
        ground truth; RISE takes the first choice.
      heatmap: signed, (H, W) or (N, H, W); or shaped like x, then its channels are summed; or an
        `Attribution`. Pixels of equal value are inserted in row-major order.
      apply_fn: `(params, x) -> logits`.
      blur: `"rise"` (11 taps, sigma 5, folded: see `blur_taps`), `("gaussian", size, sigma)`,
        `"zero"`, `"mean"`, `"black"`, or an array shaped like x to start from. Blurs are per
        channel in preprocessed space, with zero padding.
      step: pixels a step; 224 when neither `step` nor `points` is given. The last may be shorter.
      points: number of equally spaced points instead of `step`; both ends included.
      activation: `"softmax"`, `"sigmoid"` (multi-label networks) or `"none"`; None takes the
        network's own `activation` if it has one, else softmax.
      order: `"increasing"` inserts the least important first.
      chunk_size: pictures in one forward pass, None is as many as fit; never changes the values.

    Returns:
      `Curve`: `fractions` (S,), `scores` (N, S), `auc` (N,); no N for a single image.

    Raises:
      InputError, InputTypeError: shapes, labels or options that do not fit, or a heat map that
        is not finite.
      DeviceMemoryError: the device ran out of memory; lower `chunk_size`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jnp.array([[[3.0]], [[1.0]]])               # two pixels, one channel
      >>> net = lambda w, x: x.reshape(-1, 2) @ w
      >>> result = insertion(jnp.eye(2), x, 0, x[..., 0], apply_fn=net,
      ...                    blur="zero", step=1, activation="none")
      >>> result.scores.tolist(), float(result.auc)
      ([0.0, 3.0, 3.0], 2.25)
    """
    call = check_call(params, x, label, apply_fn, chunk_size)
    start = make_baseline(blur, call, "blur")
    return _curve(
        call, start, call.images, heatmap, order, step=step, points=points, activation=activation
    )


@on_any_mesh("x")
def complementary_insertion(
    params: Any,
    x: ArrayLike,
    labels_other: LabelSets,
    heatmap: Any,
    *,
    apply_fn: ApplyFn | None = None,
    blur: Baseline = "rise",
    step: int | None = None,
    points: int | None = None,
    activation: str | None = None,
    chunk_size: int | None = None,
) -> Curve:
    r"""Mean probability of the image's other labels while pixels are inserted, least first.

    Point k of the curve is \(\frac{1}{|L|} \sum_{c \in L} p_c(x_k)\) over the other ground-truth
    labels L of the image, with \(x_k\) as in `insertion` but in increasing order of attribution
    (pixels of equal value: row-major).

    An image without another label has no cIM: its scores and area are **NaN**, never zero, so
    take means with `jnp.nanmean`. Inside `jax.jit`, where nothing can be raised, they are NaN too
    where labels or a map are refused outside.

    Args:
      labels_other: the other labels of each image, the target not among them. A list of ints for
        a single image, a list of such lists for a batch (lengths may differ, empty is allowed);
        or an int array (N, K) filled up with -1; or a bool array (N, classes).
      heatmap: map of the *target*.
      params, x, apply_fn, blur, step, points, activation, chunk_size: as in `insertion`.

    Returns:
      `Curve`: `fractions` (S,), `scores` (N, S), `auc` (N,); no N for a single image.

    Raises:
      InputError, InputTypeError: as for `insertion`; and label lists of a wrong number, outside
        [0, classes), or with a label named twice.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[[3.0]], [[1.0]]])
      >>> net = lambda w, x: x.reshape(-1, 2) @ w
      >>> result = complementary_insertion(jnp.eye(2), x, [1], x[..., 0], apply_fn=net,
      ...                                  blur="zero", step=1, activation="none")
      >>> result.scores.tolist(), float(result.auc)
      ([0.0, 1.0, 1.0], 0.75)
    """
    call = check_call(params, x, None, apply_fn, chunk_size)
    labels = _check_label_sets(labels_other, call)
    start = make_baseline(blur, call, "blur")
    return _curve(
        call,
        start,
        call.images,
        heatmap,
        "increasing",
        step=step,
        points=points,
        activation=activation,
        labels=labels,
    )


@on_any_mesh("x")
def deletion(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None,
    heatmap: Any,
    *,
    apply_fn: ApplyFn | None = None,
    baseline: Baseline = "zero",
    step: int | None = None,
    points: int | None = None,
    activation: str | None = None,
    order: str = "decreasing",
    chunk_size: int | None = None,
) -> Curve:
    r"""Probability of the target while pixels are deleted, most important first.

    Point k of the curve scores the image that is `baseline` where the rank \(r < k\) and x
    elsewhere; low is good. Onto the same blur, with a step that divides H W and no two pixels of
    equal value, decreasing deletion passes the images of increasing insertion backwards, so the
    two areas are equal.

    Args:
      baseline: what a deleted pixel becomes: `"zero"` (RISE; the mean colour for networks that
        subtract it), a blur (`"rise"`, `("gaussian", size, sigma)`), or an array shaped like x.
      order: `"increasing"` deletes the least important first.
      params, x, label, heatmap, apply_fn, step, points, activation, chunk_size: as in `insertion`.

    Returns:
      `Curve`: `fractions` (S,), `scores` (N, S), `auc` (N,); no N for a single image.

    Raises:
      InputError, InputTypeError: as for `insertion`.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[[3.0]], [[1.0]]])
      >>> net = lambda w, x: x.reshape(-1, 2) @ w
      >>> result = deletion(jnp.eye(2), x, 0, x[..., 0], apply_fn=net, step=1, activation="none")
      >>> result.scores.tolist(), float(result.auc)
      ([3.0, 0.0, 0.0], 0.75)
    """
    call = check_call(params, x, label, apply_fn, chunk_size)
    finish = make_baseline(baseline, call)
    return _curve(
        call, call.images, finish, heatmap, order, step=step, points=points, activation=activation
    )


def pixel_counts(pixels: int, step: int | None = None, points: int | None = None) -> np.ndarray:
    """How many pixels have changed at each point of the curve: first none, last all.

    `step` pixels at a time (224 when neither is given; the last step may be shorter), or `points`
    equally spaced points, rounded to whole pixels.
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
def pixel_ranks(heatmap: jax.Array, order: str) -> jax.Array:
    """Place of every pixel in the order of its heat map, (N, H, W) int32, from 0.

    The sort is stable: pixels of equal value keep their row-major order, whichever the `order`.
    """
    flat = heatmap.reshape(heatmap.shape[0], -1)
    places = jnp.argsort(-flat if order == "decreasing" else flat, axis=-1, stable=True)
    return jnp.argsort(places, axis=-1).astype(jnp.int32).reshape(heatmap.shape)


def _curve(
    call: Call,
    start: jax.Array,
    finish: jax.Array,
    heatmap: Any,
    order: str,
    *,
    step: int | None,
    points: int | None,
    activation: str | None,
    labels: jax.Array | None = None,
) -> Curve:
    """Scores while pixels go from `start` to `finish`, images (N, H, W, C), in the order of a map.

    The score is the mean over the labels (N, K) that are not -1, NaN if all are; None stands for
    the target.
    """
    activation = find_activation(activation, call, ACTIVATIONS)
    maps = fit_heatmap(heatmap, call.images, call.single, finite=True)
    counts = pixel_counts(maps[0].size, step, points)
    check_choice(order, "order", ORDERS)
    ranks = pixel_ranks(maps, order)
    if is_traced(maps):  # all ranks of one that is not finite are -1
        ranks = jnp.where(jnp.isfinite(maps).all((1, 2), keepdims=True), ranks, -1)
    if labels is None:
        labels = target_labels(call)[:, None]
    changed = jnp.broadcast_to(jnp.asarray(counts, jnp.int32), (len(start), counts.size))
    rows = (start, finish, ranks, labels, changed)

    def score(
        network: TracedNetwork, image: jax.Array, _: None, i: jax.Array, *row: jax.Array
    ) -> jax.Array:
        """(S,) the score of the picture at point i, at its place: the sum over i is the curve."""
        start, finish, ranks, labels, counts = row
        x = jnp.where((ranks < counts[i])[..., None], finish, start)
        logits = at_least_float32(network.logits(x))
        values = logits if activation == "none" else PROBABILITIES[activation](logits)
        counted = (labels >= 0) & (ranks.max() >= 0)
        number = counted.sum().astype(values.dtype)
        # 0 / 0 = NaN: no label, undefined
        value = jnp.where(counted, values[jnp.maximum(labels, 0)], 0).sum() / number
        return jnp.where(jnp.arange(counts.size, dtype=i.dtype) == i, value, 0)

    scores = sum_samples(score, call, counts.size, *rows)
    fractions = jnp.asarray(counts / counts[-1], scores.dtype)
    auc = jnp.trapezoid(scores, fractions[None])
    return Curve(fractions, *call.unbatch((scores, auc)))


def _check_label_sets(labels: LabelSets, call: Call) -> jax.Array:
    """Label lists as (N, K) int32, filled up with -1; K is at least 1."""
    batch, name = len(call.images), "labels_other"
    if is_traced(labels):
        labels = jnp.asarray(labels)[None] if call.single else jnp.asarray(labels)
        if labels.ndim != 2 or len(labels) != batch or not labels.shape[1]:
            raise InputError(
                f"{name}: Expected ({batch}, K) under tracing, got shape {labels.shape}."
            )
        return _traced_label_sets(labels, call.network.trace.classes, name)
    rows = [labels] if call.single else labels
    try:
        lists = [np.asarray(row) for row in rows]  # pyrefly: ignore[not-iterable]
    except (TypeError, ValueError) as error:
        raise InputTypeError(
            f"{name}: Expected a list of ints per image, got {labels!r}."
        ) from error
    if len(lists) != batch:
        raise InputError(f"{name}: Expected {batch} lists, one per image, got {len(lists)}.")
    chosen = [_label_list(row, i, call.network.trace.classes, name) for i, row in enumerate(lists)]
    padded = np.full((batch, max(1, *map(len, chosen)) if chosen else 1), -1, np.int32)
    for row, values in zip(padded, chosen, strict=True):
        row[: len(values)] = values
    return jnp.asarray(padded)


def _traced_label_sets(labels: jax.Array, classes: int, name: str) -> jax.Array:
    """Labels (N, K) of which no value is known; all -1 in a row with one that would be refused."""
    if labels.dtype == bool:
        if labels.shape[1] != classes:
            raise InputError(f"{name}: Expected {classes} booleans, got {labels.shape[1]}.")
        return jnp.where(labels, jnp.arange(classes, dtype=jnp.int32)[None], -1)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputTypeError(f"{name}: Expected integers, got dtype {labels.dtype}.")
    labels = labels.astype(jnp.int32)
    equal = (labels[:, :, None] == labels[:, None]) & (labels >= 0)[:, None]
    is_wrong = (labels < -1) | (labels >= classes) | (equal.sum(1) > 1)
    return jnp.where(is_wrong.any(1, keepdims=True), -1, labels)


def _label_list(row: np.ndarray, image: int, classes: int, name: str) -> np.ndarray:
    if row.ndim != 1:
        raise InputError(f"{name}: Expected a list of ints per image, got {row} for image {image}.")
    if row.dtype == bool:
        if row.size != classes:
            raise InputError(f"{name}: Expected {classes} booleans, got {row.size}.")
        return np.flatnonzero(row)
    if row.size and not np.issubdtype(row.dtype, np.integer):
        raise InputTypeError(f"{name}: Expected integers, got dtype {row.dtype}.")
    if row.size and (row.min() < -1 or row.max() >= classes):
        raise InputError(
            f"{name}: Expected 0 <= label < {classes} (or -1 as filling), got {row.tolist()} "
            f"for image {image}."
        )
    values = row[row >= 0].astype(np.int32)
    if np.unique(values).size != values.size:
        raise InputError(
            f"{name}: Expected every label once, got {row.tolist()} for image {image}."
        )
    return values
