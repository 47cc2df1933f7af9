"""A call of the network, checked in plain Python before compiling: `(params, x, label, apply_fn)`.

Every public function goes through here, so all of them accept the same shapes and refuse the same
mistakes with the same words.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.checks import check_choice, check_count
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.images import check_images
from dmbp_jax.graph.model import ApplyFn, bind, is_traced
from dmbp_jax.graph.tracing import TracedNetwork, trace

NONAFFINE = ("refuse", "freeze")


@dataclass(frozen=True)
class Call:
    """A checked call.

    Attributes:
      network: the traced network.
      images: (N, H, W, C).
      labels: (N,) int32, or None for the network's top-1 of each image.
      single: whether the caller gave one image, and N was added here.
      chunk_size: images at once, or None for as many as fit.
    """

    network: TracedNetwork
    images: jax.Array
    labels: jax.Array | None
    single: bool
    chunk_size: int | None = None

    def unbatch(self, results: Any) -> Any:
        """Take the leading axis away again where the caller gave a single image."""
        return jax.tree.map(lambda a: a[0], results) if self.single else results


def check_call(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None = None,
    apply_fn: ApplyFn | None = None,
    chunk_size: int | None = None,
    *,
    dtype: str | None = None,
    precision: str | None = None,
    nonaffine: str = "refuse",
) -> Call:
    """Bind, check and trace what every public function takes.

    Args:
      params, x, label, apply_fn, chunk_size: as in `dmbp_jax.attribute`.
      dtype: cast floating-point parameters to it before tracing; images stay as they are.
      precision: as in `jax.default_matmul_precision`.
      nonaffine: "refuse" or "freeze", as in `dmbp_jax.attribute`.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`.
    """
    check_choice(nonaffine, "nonaffine", NONAFFINE)
    model = bind(params, apply_fn)
    images, single = check_images(x)
    if chunk_size is not None:
        check_count(chunk_size, "chunk_size")
    if dtype is not None:
        model = model.astype(dtype)
    image = jax.ShapeDtypeStruct((1, *images.shape[1:]), dtype or images.dtype)
    network = replace(trace(model, image, precision), nonaffine=nonaffine)
    labels = check_labels(label, len(images), network.classes, single)
    return Call(network, images, labels, single, chunk_size)


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
