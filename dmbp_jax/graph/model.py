"""What a caller hands in, checked in plain Python before any tracing.

Every function that takes `(params, x, label, apply_fn=...)` goes through here, so all of them
accept the same shapes and refuse the same mistakes with the same words.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.errors import InputError, InputTypeError

ApplyFn = Callable[[Any, jax.Array], Any]  # logits; Flax types its own `apply` as a union


@dataclass(frozen=True)
class Skeleton:
    """`params` without its arrays: tree structure and the leaves that are not arrays. Hashable."""

    treedef: Any
    static_leaves: tuple[Any, ...]  # `_ARRAY` where an array goes

    def merge(self, arrays: tuple[jax.Array, ...]) -> Any:
        """Put the arrays back where they were."""
        remaining = iter(arrays)
        leaves = [next(remaining) if leaf is _ARRAY else leaf for leaf in self.static_leaves]
        return jax.tree.unflatten(self.treedef, leaves)


class _Array:
    def __repr__(self) -> str:
        return "<array>"


_ARRAY = _Array()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Model:
    """`apply_fn` and `params` as one pytree: arrays are its leaves, all the rest is static.

    Modules may carry functions or numbers among their leaves (Equinox does); these become part
    of the static structure, so a `Model` passes through `jax.jit` whatever it was made from.
    """

    arrays: tuple[jax.Array, ...]
    apply_fn: ApplyFn = field(metadata={"static": True})
    skeleton: Skeleton = field(metadata={"static": True})

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (N, classes) of images (N, H, W, C)."""
        return self.apply_fn(self.skeleton.merge(self.arrays), x)


class Images(NamedTuple):
    """Checked images: `x` is always (N, H, W, C); `single` says that the N was added here."""

    x: jax.Array
    single: bool


def is_traced(*values: Any) -> bool:
    """Whether any leaf is a tracer, so that its value cannot be looked at."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def call_params(params: Any, x: jax.Array) -> jax.Array:
    """The `apply_fn` of a callable pytree: `params(x)`."""
    return params(x)


def bind(params: Any, apply_fn: ApplyFn | None = None) -> Model:
    """Join `params` and `apply_fn` into a `Model`.

    Raises:
      InputTypeError: `apply_fn` is not callable, or is missing while `params` is not callable,
        or a leaf of `params` is neither an array nor hashable.
    """
    if apply_fn is None:
        if not callable(params):
            raise InputTypeError(
                "params: Expected a callable pytree (a dmbp_jax.Network, an NNX or Equinox module) "
                f"when apply_fn is not given, got {type(params).__name__}. "
                "Pass apply_fn=lambda params, x: logits."
            )
        apply_fn = call_params
    elif not callable(apply_fn):
        raise InputTypeError(
            f"apply_fn: Expected a function (params, x) -> logits, got {type(apply_fn).__name__}."
        )
    leaves, treedef = jax.tree.flatten(params)
    arrays = tuple(leaf for leaf in leaves if _is_array(leaf))
    skeleton = Skeleton(treedef, tuple(_ARRAY if _is_array(leaf) else leaf for leaf in leaves))
    try:
        hash((apply_fn, skeleton))
    except TypeError as error:
        raise InputTypeError(
            f"params: Expected arrays or hashable values as leaves, got {error}."
        ) from error
    return Model(arrays, apply_fn, skeleton)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct))


def check_images(x: ArrayLike, name: str = "x") -> Images:
    """Check (H, W, C) or (N, H, W, C) floating-point images and add the batch axis.

    Raises:
      InputTypeError: not an array, or not a floating-point dtype.
      InputError: wrong rank, an empty axis, or a value that is not finite.
    """
    if isinstance(x, (str, bytes)) or not hasattr(x, "dtype"):
        try:
            x = np.asarray(x)
        except Exception as error:
            raise InputTypeError(f"{name}: Expected an array, got {type(x).__name__}.") from error
    dtype, shape = x.dtype, np.shape(x)  # pyrefly: ignore[missing-attribute]
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputTypeError(
            f"{name}: Expected a floating-point dtype (a preprocessed image), got {dtype}. "
            "Preprocess it first, for instance with net.preprocess(...)."
        )
    if len(shape) not in (3, 4):
        raise InputError(f"{name}: Expected shape (H, W, C) or (N, H, W, C), got {shape}.")
    if len(shape) == 4 and shape[0] == 0:
        raise InputError(f"{name}: Expected at least one image, got an empty batch {shape}.")
    if 0 in shape:
        raise InputError(f"{name}: Expected no empty axis, got shape {shape}.")
    x = jnp.asarray(x)
    if not is_traced(x) and not bool(jnp.isfinite(x).all()):
        bad = np.argwhere(~np.isfinite(np.asarray(x, np.float32)))[0]
        raise InputError(
            f"{name}: Expected finite values, got {np.asarray(x)[tuple(bad)]} "
            f"at index {tuple(int(i) for i in bad)}."
        )
    single = len(shape) == 3
    return Images(x[None] if single else x, single)


def count_classes(model: Model, x: jax.Array) -> int:
    """Number of classes of a network, by abstract evaluation on one image of the batch `x`.

    Raises:
      InputError: the network refuses this image shape, or does not return (N, classes).
      InputTypeError: the network does not return one floating-point array.
    """
    return _count_classes(*abstract(model), tuple(x.shape[1:]), jnp.result_type(x))


def abstract(model: Model) -> tuple[Any, tuple[jax.ShapeDtypeStruct, ...]]:
    """Structure and array shapes of a model: a hashable key that holds no array and no tracer."""
    leaves, treedef = jax.tree.flatten(model)
    return treedef, tuple(jax.ShapeDtypeStruct(np.shape(a), jnp.result_type(a)) for a in leaves)


@lru_cache(maxsize=64)
def _count_classes(treedef: Any, leaves: Any, image_shape: tuple[int, ...], dtype: Any) -> int:
    one_image = jax.ShapeDtypeStruct((1, *image_shape), dtype)
    try:
        logits = jax.eval_shape(lambda m, x: m(x), jax.tree.unflatten(treedef, leaves), one_image)
    except (TypeError, ValueError, AssertionError, ArithmeticError, LookupError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"x: Expected images the network accepts, got shape {image_shape} per image; "
            f"the network said: {reason}"
        ) from error
    except AttributeError as error:
        if "shape" in str(error) or "ndim" in str(error):
            raise InputTypeError(f"apply_fn: Expected JAX code, got an error: {error}") from error
        raise
    if not hasattr(logits, "shape") or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise InputTypeError(
            "apply_fn: Expected one floating-point array of logits, "
            f"got {jax.tree.map(lambda a: (a.shape, str(a.dtype)), logits)}."
        )
    if len(logits.shape) != 2 or logits.shape[0] != 1:
        raise InputError(
            "apply_fn: Expected logits of shape (N, classes) for images (N, H, W, C), "
            f"got {logits.shape} for {(1, *image_shape)}. "
            "Wrap a per-image function with jax.vmap."
        )
    return logits.shape[1]


def check_labels(
    label: ArrayLike | None, batch: int, classes: int, single: bool, name: str = "label"
) -> jax.Array | None:
    """Check labels and return them as (N,) int32; None stays None (the network's top-1).

    Raises:
      InputTypeError: not integers (class names are looked up with `net.label_index`).
      InputError: not a scalar or (N,), or outside [0, classes).
    """
    if label is None:
        return None
    if isinstance(label, (str, bytes, bool)):
        raise InputTypeError(
            f"{name}: Expected an int, (N,) ints or None, got {type(label).__name__} {label!r}."
        )
    try:
        labels = label if is_traced(label) else np.asarray(label)
        shape, dtype = np.shape(labels), jnp.result_type(labels)
    except (TypeError, ValueError) as error:
        raise InputTypeError(
            f"{name}: Expected an int, (N,) ints or None, got {label!r}."
        ) from error
    if shape == (0,) and not single:
        raise InputError(f"{name}: Expected one label per image ({batch}), got 0.")
    if not jnp.issubdtype(dtype, jnp.integer):
        raise InputTypeError(f"{name}: Expected integers, got dtype {dtype}.")
    if shape not in ((), (batch,)):
        raise InputError(
            f"{name}: Expected an int or {batch} labels, one per image, got shape {shape}."
        )
    if not is_traced(labels):
        flat = np.ravel(labels)
        outside = np.flatnonzero((flat < 0) | (flat >= classes))
        if outside.size:
            where = "" if shape == () else f" at position {outside[0]}"
            raise InputError(
                f"{name}: Expected 0 <= label < {classes}, got {flat[outside[0]]}{where}."
            )
    return jnp.broadcast_to(jnp.asarray(labels, jnp.int32), (batch,))
