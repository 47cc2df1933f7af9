"""Layer re-initialisation (paper, Table 3): does the map change with the weights of the last layer?

A map that stays the same does not explain the network's decision: it draws edges.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dmbp_jax.checks import check_count
from dmbp_jax.engine.keys import check_key
from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.engine.scores import target_labels
from dmbp_jax.errors import InputTypeError
from dmbp_jax.graph.call import check_call
from dmbp_jax.graph.model import ApplyFn, split_arrays
from dmbp_jax.metrics.heatmaps import fit_heatmap
from dmbp_jax.metrics.last_layer import find_last_layer, redraw
from dmbp_jax.metrics.ranks import spearman


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Reinitialisation:
    """Rank correlations between maps of a network and of its R re-drawn copies.

    For a single image the N is absent. A correlation is NaN where one of the two maps is constant
    or not finite, and for a re-drawing that changes no weight (of a layer whose weights are all
    equal): there is nothing to compare. Means leave NaN out, and are NaN where nothing is left.

    Attributes:
      correlations: (R, N), rank correlation of the signed maps.
      correlations_absolute: (R, N), rank correlation of |map|: whether the places stay, whatever
        their signs.
      original: (N, H, W) heat maps of the network as given.
      redrawn: (R, N, H, W) heat maps of the copies.
    """

    correlations: jax.Array
    correlations_absolute: jax.Array
    original: jax.Array
    redrawn: jax.Array

    @property
    def correlation(self) -> jax.Array:
        """(N,), mean over the re-drawings of `correlations`."""
        return jnp.nanmean(self.correlations, axis=0)

    @property
    def correlation_absolute(self) -> jax.Array:
        """(N,), mean over the re-drawings of `correlations_absolute`."""
        return jnp.nanmean(self.correlations_absolute, axis=0)

    @property
    def defined(self) -> jax.Array:
        """(N,) bool, whether `correlation` is a number."""
        return jnp.isfinite(self.correlation)

    @property
    def mean(self) -> jax.Array:
        """Mean of `correlation` over the images."""
        return jnp.nanmean(self.correlation)

    @property
    def mean_absolute(self) -> jax.Array:
        """Mean of `correlation_absolute` over the images."""
        return jnp.nanmean(self.correlation_absolute)

    @property
    def count(self) -> jax.Array:
        """Number of images where `correlation` is defined."""
        return self.defined.sum()


@on_any_mesh("x")
def layer_reinitialisation(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None,
    method: Callable[..., Any],
    *,
    apply_fn: ApplyFn | None = None,
    key: Any,
    redraws: int = 5,
    last_layer: str | None = None,
    heatmap: Any = None,
) -> Reinitialisation:
    r"""Rank correlation of a method's maps before and after the last layer is re-drawn.

    \(\rho_{rn} = \mathrm{Spearman}(h(F, x_n), h(\tilde F_r, x_n))\), where \(\tilde F_r\) is the
    network after `redraw_last_layer`, and the same of \(|h|\). A re-drawn layer may turn the sign
    of every unit's contribution and leave its place: then the signed correlation is near 0 and
    the absolute one is not. Read both. The paper's Table 3 has one number per method.

    Args:
      params: with `apply_fn`, any pytree; without, a callable pytree (`dmbp_jax.Network`, ...).
      x: (H, W, C) or (N, H, W, C) floating point, preprocessed.
      label: int, (N,) ints, or None for the first choice of the network *as given*, which is
        then the target for all maps.
      method: `f(params, x, label, apply_fn=apply_fn)` to an array (H, W), one shaped like x, or
        an `Attribution`: `dmbp_jax.attribute` or an entry of `dmbp_jax.methods.METHODS`. A
        method with noise must get the same key every time (`functools.partial(f, key=...)`).
      apply_fn: `(params, x) -> logits`.
      key: a random key; re-drawing r takes `jax.random.fold_in(key, r)`. One of another kind than
        Threefry is made into a Threefry key (`dmbp_jax.engine.keys`).
      redraws: number of re-drawings R, at least 1. The correlation of one re-drawing depends on
        its weights; the mean over several is what to report.
      last_layer: path of the layer or its weights, when it cannot be found (`redraw_last_layer`).
      heatmap: the maps of the network as given, if they are known already.

    Returns:
      `Reinitialisation`; images whose map is constant or not finite, before or after every
      re-drawing, are NaN there and left out of `mean`.

    Raises:
      InputError, InputTypeError: arguments or maps that do not fit, an ambiguous last layer.
      SiteNotFoundError: `last_layer` names no weights.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jax.random.normal(jax.random.key(0), (4, 4, 1))
      >>> params = {"kernel": jax.random.normal(jax.random.key(1), (16, 3))}
      >>> net = lambda params, x: x.reshape(-1, 16) @ params["kernel"]
      >>> edges = lambda params, x, label, apply_fn: jnp.abs(x)   # does not depend on the network
      >>> result = layer_reinitialisation(params, x, 0, edges, apply_fn=net, key=jax.random.key(2))
      >>> round(float(result.mean), 6), round(float(result.mean_absolute), 6)
      (1.0, 1.0)
    """
    if not callable(method):
        raise InputTypeError(
            "method: Expected a function (params, x, label, apply_fn=...) -> heat map, "
            f"got {type(method).__name__}."
        )
    check_count(redraws, "redraws")
    key = check_key(key)
    call = check_call(params, x, label, apply_fn)
    images = call.images, call.single
    layer = find_last_layer(params, call, last_layer)
    x, target = call.unbatch((call.images, target_labels(call)))
    if heatmap is None:
        original = fit_heatmap(method(params, x, target, apply_fn=apply_fn), *images)
    else:
        original = fit_heatmap(heatmap, *images, finite=True)
    redrawn, signed, absolute = [], [], []
    for number in range(redraws):
        new = redraw(params, layer, jax.random.fold_in(key, number))
        maps = fit_heatmap(method(new, x, target, apply_fn=apply_fn), *images)
        redrawn.append(maps)
        changed = _differ(params, new, layer)
        signed.append(jnp.where(changed, spearman(original, maps), jnp.nan))
        absolute.append(jnp.where(changed, spearman(jnp.abs(original), jnp.abs(maps)), jnp.nan))
    correlations, absolutes, made = (jnp.stack(one) for one in (signed, absolute, redrawn))
    if call.single:
        correlations, absolutes, made = correlations[:, 0], absolutes[:, 0], made[:, 0]
        original = original[0]
    return Reinitialisation(correlations, absolutes, original, made)


def _differ(params: Any, new: Any, layer: int) -> jax.Array:
    """Whether weights were drawn anew: of equal ones the mean alone may be rounded."""
    before, after = (jnp.asarray(split_arrays(one)[0][layer]) for one in (params, new))
    return (before.max() > before.min()) & jnp.any(before != after)
