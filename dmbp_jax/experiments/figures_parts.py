"""Parts of the paper's figures: the mappings ∇F, ∇F⁺, ∇F⁻ (Fig. 2), inserted pictures (Fig. 3)."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray
from PIL import Image

from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.dmbp.decompose import stored_masks
from dmbp_jax.dmbp.decomposition import masked_map
from dmbp_jax.graph.call import check_call
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.metrics import blur_images


def mappings(
    params: Any,
    x: ArrayLike,
    label: int,
    masks: Sequence[ArrayLike],
    *,
    apply_fn: ApplyFn | None = None,
    nonaffine: str = "refuse",
    config: DMBP = DMBP(),  # noqa: B008 (frozen)
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """∇F, ∇F⁺ and ∇F⁻ at x: the linear mappings themselves, before any product with x (Eq. 11).

    Args:
      params, apply_fn, nonaffine: as in `dmbp_jax.attribute`.
      x: (H, W, C).
      label: the logit that is decomposed.
      masks: Σ_l of every activation, as `attribute(..., return_masks=True)` keeps them.
      config: with which they were learned; the slopes of smooth activations are as it says.

    Returns:
      Three arrays, shape of x.
    """
    slopes = {"pointwise": config.pointwise, "segments": config.segments}
    call = check_call(params, x, label, apply_fn, nonaffine=nonaffine, **slopes)
    graph = call.network.graph()
    frozen = graph.freeze(call.images)
    sigma = stored_masks(list(map(jnp.asarray, masks)), graph.masked)
    # Frozen at x the network is affine: its gradient is the map of an input that is 1 everywhere.
    ones = jnp.ones_like(call.images)
    signs = ([jnp.ones_like(m) for m in sigma], sigma, [1 - m for m in sigma])
    open_, positive, negative = (
        np.asarray(masked_map(frozen, ones, [1 / m for m in masks], jnp.int32(label))[0])
        for masks in signs
    )
    return open_, positive, negative


def insert(x: NDArray[Any], heatmap: NDArray[Any], share: float) -> NDArray[Any]:
    """The blurred input with its most important pixels sharp, as the insertion metric makes it.

    Args:
      x: (H, W, C).
      heatmap: (H, W); of equal pixels the first in row-major order comes first.
      share: of the pixels that are inserted, in [0, 1].

    Returns:
      (H, W, C).
    """
    order = np.argsort(-heatmap, axis=None, kind="stable")
    sharp = np.zeros(heatmap.size, bool)
    sharp[order[: round(share * heatmap.size)]] = True
    blurred = np.asarray(blur_images(jnp.asarray(x)[None])[0])
    return np.where(sharp.reshape(heatmap.shape)[..., None], x, blurred)


def colours_of(x: NDArray[Any], picture: Image.Image) -> Callable[[NDArray[Any]], Image.Image]:
    """From inputs like x to pictures, whatever the order, mean and scale of the channels.

    Preprocessing is an affine function of a pixel's colours; it is found from x and its picture by
    least squares.
    """
    values = x.reshape(-1, x.shape[-1]).astype(np.float64)
    design = np.column_stack([values, np.ones(len(values))])
    colours = np.asarray(picture.convert("RGB"), np.float64).reshape(-1, 3)
    weights = np.linalg.lstsq(design, colours, rcond=None)[0]

    def to_picture(other: NDArray[Any]) -> Image.Image:
        pixels = other @ weights[:-1] + weights[-1]
        return Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))

    return to_picture
