"""Share of the explained number that a map carries: what its sum leaves out is drawn nowhere.

Not one of the paper's numbers; it says when a map with a good rank order shows next to nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dmbp_jax.dmbp.explainer import carried_share
from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.errors import InputError
from dmbp_jax.graph.call import check_finite
from dmbp_jax.metrics.heatmaps import as_array, check_maps


@on_any_mesh("heatmap")
def carried(heatmap: Any, total: ArrayLike) -> jax.Array:
    r"""Share of a method's own total that the pixels of its map carry.

    \(|\sum_p h_p| \,/\, (|\sum_p h_p| + |t - \sum_p h_p|)\), with t what the map should add up to:
    F(x) − F_0 for gradient × input (the label's logit without the output bias, `Attribution.y`),
    F(x) − F(x′) for Integrated Gradients and DeepLift with baseline x′, y⁺ or y⁻ for a map of one
    sign of DMBP. 1 is a complete map. Near 0 almost all of t lies in biases, which no pixel shows.

    Maps with no such target (Guided Backprop, FullGrad after its scaling, Grad-CAM) have no share.

    Args:
      heatmap: signed, (H, W) or (N, H, W), or an `Attribution`: one map per image and class.
      total: t, (N,), a scalar for a single map.

    Returns:
      (N,) in [0, 1], a scalar for a single map; 1 where the map and t are both 0; float64 for
      float64 maps, else float32.

    Raises:
      InputError: `total` of another length, or a value that is not finite.
      InputTypeError: not a numeric array.

    Example:
      >>> import jax.numpy as jnp
      >>> heatmap = jnp.array([[3.0, 1.0], [-2.0, 0.0]])
      >>> float(carried(heatmap, 2.0)), float(carried(heatmap, 8.0))
      (1.0, 0.25)

    Source: ours. `Attribution.carried` is this number of both signs' maps.
    """
    maps, single = check_maps(heatmap)
    totals = as_array(total, "total")
    expected = () if single else (maps.shape[0],)
    if totals.shape != expected:
        raise InputError(f"total: Expected shape {expected}, got {totals.shape}.")
    check_finite(totals, "total")
    sums = maps.sum((1, 2))
    shares = carried_share(sums, jnp.reshape(totals, (-1,)).astype(sums.dtype))
    return shares[0] if single else shares
