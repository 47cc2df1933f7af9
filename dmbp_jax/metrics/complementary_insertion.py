"""Complementary insertion metric (cIM, paper Sec. 4.1): what speaks against the target.

Pixels are inserted least important first; what then appears should be the image's other classes.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.engine.baselines import Baseline, make_baseline
from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.call import check_call
from dmbp_jax.graph.model import ApplyFn, is_traced
from dmbp_jax.metrics.curves import (
    Activation,
    Curve,
    check_curve_arguments,
    score_activation,
    score_curve,
)
from dmbp_jax.metrics.heatmaps import as_baseline

LabelSets = ArrayLike | Sequence[int] | Sequence[Sequence[int]]


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
    activation: Activation | None = None,
    chunk_size: int | None = None,
) -> Curve:
    r"""Mean probability of the image's other labels while pixels are inserted, least first.

    Point k of the curve is \(\frac{1}{|L|} \sum_{c \in L} p_c(x_k)\) over the other ground-truth
    labels L of the image, with \(x_k\) as in `insertion` but in increasing order of attribution
    (pixels of equal value: row-major).

    An image without another label has no cIM: its scores and area are **NaN**, never zero, so
    take means with `jnp.nanmean`.

    Args:
      params: as for `insertion`, like every argument not listed here.
      x: (H, W, C) or (N, H, W, C) floating point, preprocessed.
      labels_other: the other labels of each image, the target not among them. A list of ints for
        a single image, a list of such lists for a batch (lengths may differ, empty is allowed);
        or an int array (N, K) filled up with -1; or a bool array (N, classes).
      heatmap: map of the *target*: signed, (H, W) or (N, H, W), or shaped like x, or an
        `Attribution`.
      apply_fn: `(params, x) -> logits`.
      blur: `"rise"`, `("gaussian", size, sigma)`, `"zero"`, or an array shaped like x.
      step: pixels a step; 224 when neither `step` nor `points` is given.
      points: number of equally spaced points instead of `step`.
      activation: `"softmax"`, `"sigmoid"`, `"none"`, or None for the network's own.
      chunk_size: pictures in one forward pass, None is as many as fit; never changes the values.

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
    score = score_activation(activation, params, apply_fn)
    arguments = check_curve_arguments(call, heatmap, "increasing", step, points, score)
    images = call.images
    labels = check_label_sets(labels_other, len(images), call.network.classes, call.single)
    start = make_baseline(as_baseline(blur, "blur"), images, "blur", params)
    return score_curve(arguments, start, images, labels)


def check_label_sets(
    labels: LabelSets, batch: int, classes: int, single: bool, name: str = "labels_other"
) -> jax.Array:
    """Label lists as (N, K) int32, filled up with -1; K is at least 1.

    Raises:
      InputTypeError: not integers or booleans.
      InputError: not one list per image, outside [0, classes), or a label named twice.
    """
    if is_traced(labels):
        return _traced_label_sets(jnp.asarray(labels), batch, single, name)
    rows = [labels] if single else labels
    try:
        lists = [np.asarray(row) for row in rows]  # pyrefly: ignore[not-iterable]
    except (TypeError, ValueError) as error:
        raise InputTypeError(
            f"{name}: Expected a list of ints per image, got {labels!r}."
        ) from error
    if len(lists) != batch:
        raise InputError(f"{name}: Expected {batch} lists, one per image, got {len(lists)}.")
    chosen = [_label_list(row, i, classes, name) for i, row in enumerate(lists)]
    padded = np.full((batch, max(1, *map(len, chosen)) if chosen else 1), -1, np.int32)
    for row, values in zip(padded, chosen, strict=True):
        row[: len(values)] = values
    return jnp.asarray(padded)


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


def _traced_label_sets(labels: jax.Array, batch: int, single: bool, name: str) -> jax.Array:
    labels = labels[None] if single else labels
    if labels.ndim != 2 or labels.shape[0] != batch or not labels.shape[1]:
        raise InputError(f"{name}: Expected ({batch}, K) under tracing, got shape {labels.shape}.")
    if labels.dtype == bool:
        return jnp.where(labels, jnp.arange(labels.shape[1], dtype=jnp.int32), -1)
    return labels.astype(jnp.int32)
