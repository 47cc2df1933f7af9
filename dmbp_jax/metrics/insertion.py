"""Insertion metric (IM, paper Sec. 4.1): the target's probability as a blurred image gets sharp.

A faithful map puts the pixels first that the network needs to see the target.
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
    activation: Activation | None = None,
    order: Order = "decreasing",
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
    score = score_activation(activation, params, apply_fn)
    arguments = check_curve_arguments(call, heatmap, order, step, points, score)
    images = call.images
    start = make_baseline(as_baseline(blur, "blur"), images, "blur", params)
    return score_curve(arguments, start, images, target_labels(call)[:, None])
