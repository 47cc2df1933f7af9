"""A call of the network, checked in plain Python before compiling: `(params, x, label, apply_fn)`.

Every public function goes through here, so all of them accept the same shapes and refuse the same
mistakes with the same words.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.checks import check_count
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.linearisation import Linearisation
from dmbp_jax.graph.model import ApplyFn, Model, bind, is_traced, plain_array
from dmbp_jax.graph.program import Site
from dmbp_jax.graph.tracing import TracedNetwork, trace


@dataclass(frozen=True)
class Call:
    """A checked call."""

    network: TracedNetwork
    images: jax.Array  # (N, H, W, C)
    labels: jax.Array | None  # (N,) int32, or None for the network's top-1 of each image
    single: bool  # whether the caller gave one image, and N was added here
    chunk_size: int | None = None  # images at once, or None for as many as fit
    low: TracedNetwork | None = None  # in a lower precision, where one was asked for
    params: Any = None  # this and the next two as they were given
    apply_fn: ApplyFn | None = None
    key: Any = None

    def unbatch(self, results: Any) -> Any:
        """Take the leading axis away again where the caller gave a single image.

        Rows of a label that is no class, which only a traced one can be, have no numbers.
        """
        if self.labels is not None and is_traced(self.labels):
            results = jax.tree.map(partial(only_where, self.labels >= 0), results)
        return take_rows(results, 0) if self.single else results


def only_where(known: jax.Array, rows: jax.Array) -> jax.Array:
    """NaN, or False, in the other rows."""
    known = known.reshape(*known.shape, *[1] * (rows.ndim - known.ndim))
    if rows.dtype == bool:
        return rows & known
    is_number = jnp.issubdtype(rows.dtype, jnp.inexact)
    return jnp.where(known, rows, jnp.full_like(rows, jnp.nan)) if is_number else rows


@jax.jit
def take_rows(rows: Any, index: ArrayLike) -> Any:
    """One program for all leaves; outside of one, every shape of a leaf would be compiled."""
    return jax.tree.map(lambda a: a[index], rows)


def check_call(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None = None,
    apply_fn: ApplyFn | None = None,
    chunk_size: int | None = None,
    *,
    dtype: str | None = None,
    precision: str | None = None,
    **linearised: Any,
) -> Call:
    """Bind, check and trace what every public function takes.

    Args:
      params, x, label, apply_fn, chunk_size: as in `dmbp_jax.attribute`.
      dtype: one less precise than the images is that of a second network, `Call.low`; any other
        is that of the network and of the images.
      precision: as in `jax.default_matmul_precision`.
      linearised: of `Linearisation`.
    """
    linearisation = Linearisation(**linearised)
    model = bind(params, apply_fn)
    images, single = check_images(x)
    if chunk_size is not None:
        check_count(chunk_size, "chunk_size")
    low = _is_lower(dtype, images.dtype)
    if dtype is not None and not low:
        model, images = model.astype(dtype), images.astype(dtype)

    def traced(model: Model, dtype: Any) -> TracedNetwork:
        like = jax.ShapeDtypeStruct(images.shape, dtype)
        return replace(trace(model, like, precision), linearisation=linearisation)

    network = traced(model, images.dtype)
    labels = check_labels(label, len(images), network.trace.classes, single)
    in_low = traced(model.astype(dtype), dtype) if dtype is not None and low else None
    return Call(network, images, labels, single, chunk_size, in_low, params, apply_fn)


def _is_lower(dtype: str | None, own: Any) -> bool:
    """Whether a dtype, which JAX must have now, is less precise than that of the images."""
    if dtype is None:
        return False
    if jax.dtypes.canonicalize_dtype(dtype) != jnp.dtype(dtype):
        raise InputError(
            f"dtype: Expected one that JAX has, got {dtype!r}, which needs jax_enable_x64."
        )
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(own, dtype) == own != jnp.dtype(dtype)


def check_images(x: ArrayLike, name: str = "x") -> tuple[jax.Array, bool]:
    """Floating-point images (N, H, W, C), and whether N was added to a single one."""
    if not isinstance(x, jax.Array):
        x = plain_array(x, name)
    dtype, shape = x.dtype, np.shape(x)
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
    single = len(shape) == 3
    if not isinstance(x, jax.Array):  # in NumPy: every operation of JAX would be compiled
        with np.errstate(over="ignore"):
            x = x.astype(jax.dtypes.canonicalize_dtype(dtype), copy=False)
    check_finite(x, name)
    return jnp.asarray(x[None] if single else x), single


def check_finite(values: jax.Array | np.ndarray, name: str) -> None:
    """Refuse NaN and infinity, except in a traced array, of which no value is known."""
    with jax.ensure_compile_time_eval():  # of an array that a jitted function captured
        if is_traced(values) or (isinstance(values, jax.Array) and bool(_all_finite(values))):
            return
    host = np.asarray(values)
    if len(bad := np.argwhere(~np.isfinite(host))):
        index = tuple(bad[0].tolist())
        raise InputError(f"{name}: Expected finite values, got {host[index]} at index {index}.")


@jax.jit
def _all_finite(x: jax.Array) -> jax.Array:
    return jnp.isfinite(x).all()


def check_labels(
    label: ArrayLike | None, batch: int, classes: int, single: bool, name: str = "label"
) -> jax.Array | None:
    """Check labels and return them as (N,) int32; None stays None (the network's top-1)."""
    if label is None:
        return None
    if isinstance(label, (str, bytes, bool)):
        raise InputTypeError(
            f"{name}: Expected an int, (N,) ints or None, got {type(label).__name__} {label!r}."
        )
    try:
        labels = jnp.asarray(label) if is_traced(label) else np.asarray(jax.device_get(label))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputTypeError(
            f"{name}: Expected an int, (N,) ints or None, got {label!r}."
        ) from error
    shape = np.shape(labels)
    if shape == (0,) and not single:
        raise InputError(f"{name}: Expected one label per image ({batch}), got 0.")
    if labels.dtype.kind not in "iu":
        raise InputTypeError(f"{name}: Expected integers, got dtype {labels.dtype}.")
    if shape not in ((), (batch,)):
        raise InputError(
            f"{name}: Expected an int or {batch} labels, one per image, got shape {shape}."
        )
    if is_traced(labels):  # what is no class becomes -1, see `Call.unbatch`
        with jax.numpy_dtype_promotion("standard"):
            labels = labels.astype(jnp.promote_types(labels.dtype, jnp.int32))
        labels = jnp.where((labels >= 0) & (labels < classes), labels, -1)
        return jnp.broadcast_to(labels.astype(jnp.int32), (batch,))
    flat = np.ravel(labels)
    outside = np.flatnonzero((flat < 0) | (flat >= classes))
    if outside.size:
        where = "" if shape == () else f" at position {outside[0]}"
        raise InputError(
            f"{name}: Expected 0 <= {name} < {classes}, got {flat[outside[0]]}{where}."
        )
    # In NumPy: every operation of JAX would be a program to compile.
    return jnp.asarray(np.broadcast_to(labels.astype(np.int32), (batch,)))


@jax.transfer_guard("allow")  # of a picture of NumPy, which is asked for
def sites(
    params: Any, x: ArrayLike, *, apply_fn: ApplyFn | None = None, nonaffine: str = "refuse"
) -> tuple[Site, ...]:
    """List every activation, pool, frozen factor and bias of a network, in order of evaluation.

    Args:
      params: a callable pytree, or any pytree when `apply_fn` is given.
      x: (H, W, C) or (N, H, W, C) float image; only its shape and dtype matter.
      apply_fn: `(params, x) -> logits`.
      nonaffine: as in `attribute`; with "freeze" the factors that are constants at x are listed
        with kind "frozen".

    Returns:
      A tuple of `Site`; `site.name` is what `gradcam(layer=...)` takes.

    Raises:
      InputError, InputTypeError: as `attribute`.
      NonAffineError, ControlFlowError, NoReluError: the network is not supported; the message
        names the operation and its scope.

    Example:
      >>> import dmbp_jax, jax.numpy as jnp
      >>> def network(params, x):
      ...     return jnp.maximum(x.mean((1, 2)) @ params, 0) @ params
      >>> [(s.kind, s.name, s.shape) for s in
      ...  dmbp_jax.sites(jnp.eye(3), jnp.ones((8, 8, 3)), apply_fn=network)]
      [('relu', 'relu', (1, 3))]
    """
    call = check_call(params, x, apply_fn=apply_fn, nonaffine=nonaffine)
    return tuple(site.as_network for site in call.network.program().sites)
