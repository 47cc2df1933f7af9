"""Deletion metric (RISE): the target's probability as its most important pixels disappear.

Not one of the paper's numbers; the mirror image of insertion, and a check of it.
"""

from typing import Any

from jax.typing import ArrayLike

from dmbp_jax.engine.baselines import Baseline, make_baseline
from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.engine.scores import target_labels
from dmbp_jax.graph.call import check_call
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.metrics.curves import (
    Activation,
    Curve,
    Order,
    check_curve_arguments,
    score_activation,
    score_curve,
)
from dmbp_jax.metrics.heatmaps import as_baseline


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
    activation: Activation | None = None,
    order: Order = "decreasing",
    chunk_size: int | None = None,
) -> Curve:
    r"""Probability of the target while pixels are deleted, most important first.

    Point k of the curve scores the image that is `baseline` where the rank \(r < k\) and x
    elsewhere; low is good. Onto the same blur, with a step that divides H W and no two pixels of
    equal value, decreasing deletion passes the images of increasing insertion backwards, so the
    two areas are equal.

    Args:
      params: as for `insertion`, like every argument not listed here.
      x: (H, W, C) or (N, H, W, C) floating point, preprocessed.
      label: int, (N,) ints, or None for the network's first choice.
      heatmap: signed, (H, W) or (N, H, W), or shaped like x, or an `Attribution`.
      apply_fn: `(params, x) -> logits`.
      baseline: what a deleted pixel becomes: `"zero"` (RISE; the mean colour for networks that
        subtract it), a blur (`"rise"`, `("gaussian", size, sigma)`), or an array shaped like x.
      step: pixels a step; 224 when neither `step` nor `points` is given.
      points: number of equally spaced points instead of `step`.
      activation: `"softmax"`, `"sigmoid"`, `"none"`, or None for the network's own.
      order: `"increasing"` deletes the least important first.
      chunk_size: pictures in one forward pass, None is as many as fit; never changes the values.

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
    score = score_activation(activation, params, apply_fn)
    arguments = check_curve_arguments(call, heatmap, order, step, points, score)
    finish = make_baseline(as_baseline(baseline, "baseline"), call.images, "baseline", params)
    return score_curve(arguments, call.images, finish, target_labels(call)[:, None])
