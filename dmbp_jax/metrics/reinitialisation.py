"""Layer re-initialisation (paper Table 3): does the map change when the classifier is drawn anew?

A map that survives does not explain the network's decision: it draws edges.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dmbp_jax.engine.scores import first_choice
from dmbp_jax.errors import InputError, InputTypeError, SiteNotFoundError
from dmbp_jax.graph.model import ApplyFn, Model, bind, check_images, check_labels, count_classes
from dmbp_jax.metrics.curves import DEFAULT_CHUNK
from dmbp_jax.metrics.heatmaps import check_heatmap, fit_heatmap
from dmbp_jax.metrics.rank_correlation import spearman


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Reinitialisation:
    """Rank correlation between maps of a network and of its re-drawn copy.

    Attributes:
      correlation: (N,), a scalar for a single image; NaN where undefined.
      defined: (N,) bool: False where one of the two maps is constant or not finite.
      mean: scalar, over the images where it is defined; NaN if there is none.
      count: scalar int, the number of those images.
      original: (N, H, W) heat maps of the network as given.
      redrawn: (N, H, W) heat maps of the copy.
    """

    correlation: jax.Array
    defined: jax.Array
    mean: jax.Array
    count: jax.Array
    original: jax.Array
    redrawn: jax.Array


def layer_reinitialisation(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None,
    method: Callable[..., Any],
    *,
    apply_fn: ApplyFn | None = None,
    key: jax.Array,
    last_layer: str | None = None,
    heatmap: Any = None,
) -> Reinitialisation:
    r"""Rank correlation of a method's maps before and after the last layer is drawn anew.

    \(\rho_n = \mathrm{Spearman}(h(F, x_n), h(\tilde F, x_n))\) of the signed heat maps, where
    \(\tilde F\) is the network after `redraw_last_layer`. A faithful method comes out near 0.

    Args:
      params: with `apply_fn`, any pytree; without, a callable pytree (`dmbp_jax.Network`, ...).
      x: (H, W, C) or (N, H, W, C) floating point, preprocessed.
      label: int, (N,) ints, or None for the first choice of the network *as given*, which is
        then the target for both maps.
      method: `f(params, x, label, apply_fn=apply_fn)` to an array (H, W), one shaped like x, or
        an `Attribution`: `dmbp_jax.attribute` or an entry of `dmbp_jax.methods.METHODS`. A
        method with noise must get the same key both times (`functools.partial(f, key=...)`).
      apply_fn: `(params, x) -> logits`.
      key: PRNG key of the new weights.
      last_layer: path of the layer or its weights, when it cannot be found (`redraw_last_layer`).
      heatmap: the maps of the network as given, if they are known already.

    Returns:
      `Reinitialisation`; images with a constant map, or one that is not finite, are NaN there
      and left out of `mean`.

    Raises:
      InputError, InputTypeError: arguments or maps that do not fit, an ambiguous last layer.
      SiteNotFoundError: `last_layer` names no weights.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jax.random.normal(jax.random.key(0), (4, 4, 1))
      >>> params = {"kernel": jax.random.normal(jax.random.key(1), (16, 3))}
      >>> net = lambda params, x: x.reshape(-1, 16) @ params["kernel"]
      >>> edges = lambda params, x, label, apply_fn: jnp.abs(x)        # sees no network at all
      >>> result = layer_reinitialisation(params, x, 0, edges, apply_fn=net, key=jax.random.key(2))
      >>> round(float(result.mean), 6)
      1.0
    """
    if not callable(method):
        raise InputTypeError(
            "method: Expected a function (params, x, label, apply_fn=...) -> heat map, "
            f"got {type(method).__name__}."
        )
    model, images = bind(params, apply_fn), check_images(x)
    classes = count_classes(model, images.x)
    labels = check_labels(label, images.x.shape[0], classes, images.single)
    if labels is None:
        labels = first_choice(model, images.x, DEFAULT_CHUNK)
    target = labels[0] if images.single else labels
    new = redraw_last_layer(params, images.x, apply_fn=apply_fn, key=key, last_layer=last_layer)
    x = images.x[0] if images.single else images.x
    if heatmap is None:
        original = fit_heatmap(method(params, x, target, apply_fn=apply_fn), images)
    else:
        original = check_heatmap(heatmap, images)
    redrawn = fit_heatmap(method(new, x, target, apply_fn=apply_fn), images)
    correlation = spearman(original, redrawn)
    defined = jnp.isfinite(correlation)
    count, mean = defined.sum(), jnp.nanmean(correlation)
    if images.single:
        correlation, defined = correlation[0], defined[0]
        original, redrawn = original[0], redrawn[0]
    return Reinitialisation(correlation, defined, mean, count, original, redrawn)


def redraw_last_layer(
    params: Any,
    x: ArrayLike,
    *,
    apply_fn: ApplyFn | None = None,
    key: jax.Array,
    last_layer: str | None = None,
) -> Any:
    r"""The same parameters with the last layer's weights drawn from \(N(\bar w, s_w^2)\).

    \(\bar w\) and \(s_w\) are the mean and (population) standard deviation of those weights. Its
    bias and every other parameter stay as they are.

    The last layer is found by what it does: logit c depends on slice c of its weights and on no
    other slice, along an axis as long as there are classes. This needs no names and holds for
    dense and 1x1 convolutional classifiers of any framework.

    Args:
      params: as for `layer_reinitialisation`.
      x: (H, W, C) or (N, H, W, C); the first image is used to find the last layer.
      apply_fn: `(params, x) -> logits`.
      key: PRNG key of the new weights.
      last_layer: instead of searching, a path in `params` joined by "/", as `"params/fc"` or
        `"params/fc/kernel"`.

    Raises:
      InputError: no or more than one layer fits; the message lists all weights.
      SiteNotFoundError: `last_layer` names no weights, or weights of several layers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> params = {"a": jnp.ones((4, 5)), "b": jnp.arange(15.0).reshape(5, 3)}
      >>> net = lambda p, x: jax.nn.relu(x.reshape(-1, 4) @ p["a"]) @ p["b"]
      >>> new = redraw_last_layer(params, jnp.ones((2, 2, 1)), apply_fn=net, key=jax.random.key(0))
      >>> [bool((new[name] == params[name]).all()) for name in "ab"]
      [True, False]
    """
    model, images = bind(params, apply_fn), check_images(x)
    classes = count_classes(model, images.x)
    paths = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in _arrays(params)]
    weights = {
        path: i
        for i, (path, array) in enumerate(zip(paths, model.arrays, strict=True))
        if array.ndim >= 2 and jnp.issubdtype(array.dtype, jnp.floating)
    }
    if last_layer is None:
        chosen = weights[_find_last_layer(model, images.x[:1], weights, classes)]
    else:
        chosen = weights[_named_layer(last_layer, list(weights))]
    old = jnp.asarray(model.arrays[chosen])
    new = old.mean() + old.std() * jax.random.normal(key, old.shape, old.dtype)
    return model.skeleton.merge(_exchanged(model, {chosen: new}).arrays)


def _arrays(params: Any) -> list[tuple[Any, Any]]:
    """Paths and leaves of `params` that are arrays, in the order of `Model.arrays`."""
    return [(p, leaf) for p, leaf in jax.tree.leaves_with_path(params) if hasattr(leaf, "ndim")]


def _exchanged(model: Model, new: dict[int, jax.Array]) -> Model:
    return replace(model, arrays=tuple(new.get(i, a) for i, a in enumerate(model.arrays)))


def _find_last_layer(model: Model, x: jax.Array, weights: dict[str, int], classes: int) -> str:
    """The one kernel of which the top logit sees its own slice and no other."""
    candidates = [name for name, i in weights.items() if classes in model.arrays[i].shape]
    fits = _sees_own_slice(model, x, tuple(weights[name] for name in candidates))
    fitting = [name for name, fit in zip(candidates, fits, strict=True) if fit]
    if len(fitting) == 1:
        return fitting[0]
    found = "none" if not fitting else ", ".join(fitting)
    raise InputError(
        f"last_layer: Expected one layer whose slice c makes logit c, found {found}. Name it: "
        f"last_layer= one of {', '.join(weights) or '(params has no weights with two axes)'}."
    )


@partial(jax.jit, static_argnames="candidates")
def _sees_own_slice(
    model: Model, x: jax.Array, candidates: tuple[int, ...]
) -> tuple[jax.Array, ...]:
    """For each candidate, whether the top logit depends on that slice of it and no other.

    The top logit, because behind a final ReLU only a positive one has a gradient.
    """

    def logits(kernels: dict[int, jax.Array]) -> jax.Array:
        return _exchanged(model, kernels)(x)[0]

    values, pullback = jax.vjp(logits, {i: model.arrays[i] for i in candidates})
    top = values.argmax()
    (gradients,) = pullback(jax.nn.one_hot(top, values.size, dtype=values.dtype))
    return tuple(_is_one_slice(gradients[i], top, values.size) for i in candidates)


def _is_one_slice(gradient: jax.Array, index: jax.Array, classes: int) -> jax.Array:
    fits = []
    for axis in (a for a, size in enumerate(gradient.shape) if size == classes):
        seen = (gradient != 0).any([a for a in range(gradient.ndim) if a != axis])
        fits.append(seen[index] & (seen.sum() == 1))
    return jnp.stack(fits).any()


def _named_layer(last_layer: str, names: list[str]) -> str:
    wanted = last_layer.strip("/")
    matches = [name for name in names if name == wanted or name.startswith(wanted + "/")]
    if len(matches) != 1:
        found = "none" if not matches else ", ".join(matches)
        raise SiteNotFoundError(
            f"last_layer: Expected the path of one layer's weights, {last_layer!r} fits {found}. "
            f"Weights: {', '.join(names)}."
        )
    return matches[0]
