"""`apply_fn` and `params` as one value: the arrays apart from everything that is static."""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.errors import InputTypeError

ApplyFn = Callable[[Any, jax.Array], Any]  # logits; Flax types its own `apply` as a union


@dataclass(frozen=True)
class Skeleton:
    """`params` without its arrays: tree structure and the leaves that are not arrays. Hashable."""

    treedef: Any
    static_leaves: tuple[Any, ...]  # `_ARRAY` where an array goes
    kinds: tuple[Any, ...]  # of these: Python takes 1, 1.0 and True for equal, and 0.0 and -0.0

    def merge(self, arrays: tuple[jax.Array, ...]) -> Any:
        """Put the arrays back where they were."""
        remaining = iter(arrays)
        leaves = [next(remaining) if leaf is _ARRAY else leaf for leaf in self.static_leaves]
        return jax.tree.unflatten(self.treedef, leaves)

    def without_arrays(self) -> Any:
        """The same with a placeholder in place of each."""
        return jax.tree.unflatten(self.treedef, self.static_leaves)


_Jitted = type(jax.jit(lambda: None))
_ARRAY = object()


@dataclass(frozen=True)
class Model:
    """`apply_fn` and `params`: arrays, and how to put them back into what `apply_fn` takes.

    Modules may carry functions or numbers among their leaves (Equinox does); these are static.
    """

    arrays: tuple[jax.Array, ...]
    apply_fn: ApplyFn
    skeleton: Skeleton

    def astype(self, dtype: str) -> "Model":
        """The same network with its floating-point arrays in another dtype."""
        cast = tuple(
            jnp.asarray(a, dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a
            for a in self.arrays
        )
        return replace(self, arrays=cast)


def is_traced(*values: Any) -> bool:
    """Whether any leaf is a tracer, so that its value cannot be looked at."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def split_arrays(params: Any) -> tuple[tuple[jax.Array, ...], Skeleton]:
    """The arrays of `params`, and what `Skeleton.merge` puts them back into."""
    leaves, treedef = jax.tree.flatten(params)
    arrays = tuple(_native(leaf) for leaf in leaves if _is_array(leaf))
    static = tuple(_ARRAY if _is_array(leaf) else leaf for leaf in leaves)
    kinds = tuple((type(one), repr(one)) if isinstance(one, float) else type(one) for one in static)
    return arrays, Skeleton(treedef, static, kinds)


def plain_array(value: Any, name: str) -> np.ndarray:
    """A value of any library as an array of NumPy, in a dtype that JAX knows."""
    try:
        array = np.asarray(value)
    except Exception as error:
        raise InputTypeError(
            f"{name}: Expected an array, got {type(value).__name__}: {error}"
        ) from error
    if np.ma.is_masked(value):
        raise InputTypeError(f"{name}: Expected an array, got one with masked values.")
    native = {np.dtype(np.longdouble): np.float64, np.dtype(np.clongdouble): np.complex128}
    dtype = np.dtype(native.get(array.dtype, array.dtype)).newbyteorder("=")
    if dtype.kind not in "?biufcV" or dtype.names is not None:
        raise InputTypeError(f"{name}: Expected an array of numbers, got dtype {array.dtype}.")
    return array.astype(dtype, copy=False)


def bind(params: Any, apply_fn: ApplyFn | None = None) -> Model:
    """Join `params` and `apply_fn` into a `Model`."""
    if apply_fn is None:
        if not callable(params):
            raise InputTypeError(
                "params: Expected a callable pytree (a dmbp_jax.Network, an NNX or Equinox module) "
                f"when apply_fn is not given, got {type(params).__name__}. "
                "Pass apply_fn=lambda params, x: logits."
            )
        apply_fn = operator.call  # params(x)
    elif not callable(apply_fn):
        raise InputTypeError(
            f"apply_fn: Expected a function (params, x) -> logits, got {type(apply_fn).__name__}."
        )
    while isinstance(apply_fn, _Jitted):  # it would read what it captured once and for all
        apply_fn = apply_fn.__wrapped__  # pyrefly: ignore[missing-attribute]
    arrays, skeleton = split_arrays(params)
    try:
        hash((apply_fn, skeleton))
    except TypeError as error:
        raise InputTypeError(
            f"params: Expected arrays or hashable values as leaves, got {error}."
        ) from error
    return Model(arrays, apply_fn, skeleton)


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return True
    return all(hasattr(leaf, name) for name in ("__array__", "dtype", "shape"))  # of any library


def _native(leaf: Any) -> Any:
    of_jax = isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct))
    return leaf if of_jax else plain_array(leaf, "params")
