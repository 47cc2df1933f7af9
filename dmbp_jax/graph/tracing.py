"""From a JAX function to its program: one trace of the network at one image, kept for later calls.

Class count, sites, decomposition and every method read the same trace.
"""

import re
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.convolution import bind_convolution
from dmbp_jax.graph.graph import Graph
from dmbp_jax.graph.identity import identity
from dmbp_jax.graph.jaxprs import bind, evaluate, value_bytes, without_dead_code
from dmbp_jax.graph.model import Model, is_traced
from dmbp_jax.graph.passes import make_program
from dmbp_jax.graph.pieces import FAMILIES, Equation, PieceFamily, families
from dmbp_jax.graph.pieces.max_pool import WindowPool
from dmbp_jax.graph.program import Program
from dmbp_jax.graph.zeros import is_zero

_KEPT = 16  # traces of one function, the oldest go first


class Trace:
    """What one trace of a network found, without its arrays. Hashed by identity.

    Attributes:
      jaxpr: equations of `(arrays..., constants..., x (1, H, W, C)) -> logits (1, classes)`.
      classes: number of logits.
      image_dtype: of x.
      bytes_per_image: of all values that one forward pass computes.
      identity: equal traces of any process have the same; None where it is not known.
    """

    def __init__(self, jaxpr: Any, constants: Sequence[Any]):
        self.jaxpr = jaxpr
        self.classes: int = jaxpr.outvars[0].aval.shape[1]
        self.image_dtype = jaxpr.invars[-1].aval.dtype
        self.bytes_per_image = value_bytes(jaxpr)
        self._zeros = tuple(map(is_zero, constants))
        self._programs: dict[tuple[tuple[PieceFamily, ...], str], Program] = {}

    @cached_property
    def identity(self) -> str | None:
        """What is computed, with which constants known to be zero; with built-in pieces only."""
        content = identity(self.jaxpr)
        return None if content is None else f"{content} {self._zeros}"

    def program(self, nonaffine: str = "refuse") -> Program:
        """The flat program, with the pieces that are registered now.

        Args:
          nonaffine: "refuse" or "freeze", as in `attribute`.

        Raises:
          NonAffineError, ControlFlowError, NoReluError: the network is not supported.
        """
        key = families(), nonaffine
        if key not in self._programs:
            self._programs[key] = make_program(self.jaxpr, self._zeros, *key)
        return self._programs[key]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TracedNetwork:
    """A network as its trace and its arrays: a pytree that goes through `jax.jit` in their place.

    It holds neither `apply_fn` nor what that captured, so nothing of the caller outlives the call.

    Attributes:
      inputs: arrays of the network, then constants that its function captured.
      trace: static.
      nonaffine: what becomes of products of two values that depend on x, as in `attribute`.
    """

    inputs: tuple[jax.Array, ...]
    trace: Trace = field(metadata={"static": True})
    nonaffine: str = field(metadata={"static": True}, default="refuse")

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.trace.classes

    @property
    def image_dtype(self) -> Any:
        """Dtype of the images it was traced with."""
        return self.trace.image_dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (N, classes) of images (N, H, W, C), each image by itself."""
        return jax.vmap(lambda image: self.logits(image))(x)

    def logits(self, image: jax.Array) -> jax.Array:
        """Logits (classes,) of one image (H, W, C)."""
        jaxpr = self.trace.jaxpr
        arrays = self.inputs[: len(jaxpr.invars) - 1]
        constants = self.inputs[len(arrays) :]
        return evaluate(jaxpr, constants, [*arrays, image[None]], _bind)[0][0]

    def program(self) -> Program:
        """As `Trace.program`."""
        return self.trace.program(self.nonaffine)

    def graph(self, pointwise: str = "secant", segments: int = 8) -> Graph:
        """The network with its arrays, to be run with rules inside one JAX trace.

        Args:
          pointwise, segments: slope of the smooth activations, as in `DMBP`.
        """
        return Graph(self.program(), self.inputs, pointwise, segments)

    @property
    def identity(self) -> str | None:
        """As `Trace.identity`; None where somebody registered pieces, whose code is not known."""
        content = self.trace.identity
        return None if content is None or families() != FAMILIES else f"{content} {self.nonaffine}"

    def with_arrays(self, arrays: Sequence[jax.Array]) -> "TracedNetwork":
        """The same network with other parameters of the same shapes."""
        return replace(self, inputs=(*arrays, *self.inputs[len(arrays) :]))


def _bind(equation: Any, values: Sequence[Any]) -> list[Any]:
    """As `bind`, in the form in which XLA runs it fastest on a CPU: convolutions of the image, and
    max-pools, which have the derivative of their piece.
    """
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        return [bind_convolution(equation, *values)]
    if name == "reduce_window_max" and jnp.issubdtype(values[0].dtype, jnp.floating):
        pool = WindowPool.match(Equation(name, False, params, (True,), (False,)))
        if pool is not None:
            return [pool(values[0])]
    return bind(equation, values)


def trace(
    model: Model, image: jax.Array | jax.ShapeDtypeStruct, precision: str | None = None
) -> TracedNetwork:
    """Trace a network at one image (1, H, W, C); only shape and dtype of the image matter.

    The trace is kept: for as long as a plain `apply_fn` lives, and of other callables (a bound
    method, a callable pytree) for the newest few.

    Args:
      model: the network.
      image: what it is traced with.
      precision: of convolutions and matrix products, as in `jax.default_matmul_precision`.

    Raises:
      InputError: the network refuses images of this shape, or does not return (N, classes).
      InputTypeError: it does not return one floating-point array.
      Any error of the network's own code, with a note that says when it was raised.
    """
    shapes = tuple((np.shape(a), jnp.result_type(a)) for a in model.arrays)
    here = (tuple(image.shape), jnp.result_type(image.dtype), precision, *settings_of_traces())
    kept = _kept_traces(model.apply_fn)
    key = (model.apply_fn if kept is _of_others else None, model.skeleton, shapes, here)
    if key not in kept:
        found, constants = _trace(model, shapes, here[0], here[1], precision)
        if is_traced(constants):  # captured from another trace, which they must not outlive
            return TracedNetwork((*model.arrays, *constants), found)
        kept[key] = found, constants
        while len(kept) > _KEPT:
            kept.popitem(last=False)
    found, constants = kept[key]
    return TracedNetwork((*model.arrays, *constants), found)


_Kept = OrderedDict[Any, tuple[Trace, tuple[Any, ...]]]
_of_functions: weakref.WeakKeyDictionary[FunctionType, _Kept] = weakref.WeakKeyDictionary()
_of_others: _Kept = OrderedDict()


def _kept_traces(apply_fn: Any) -> _Kept:
    if isinstance(apply_fn, FunctionType):
        return _of_functions.setdefault(apply_fn, OrderedDict())
    return _of_others


def settings_of_traces() -> tuple[Any, ...]:
    """Settings of JAX that change what a trace finds."""
    config: Any = jax.config
    return (
        config.jax_enable_x64,
        config.jax_default_matmul_precision,
        config.jax_numpy_dtype_promotion,
    )


def _trace(
    model: Model, shapes: Any, image_shape: tuple[int, ...], dtype: Any, precision: str | None
) -> tuple[Trace, tuple[Any, ...]]:
    arrays = tuple(jax.ShapeDtypeStruct(*shape) for shape in shapes)
    image = jax.ShapeDtypeStruct(image_shape, dtype)
    call = model.apply_fn, model.skeleton
    try:
        with jax.default_matmul_precision(precision):
            closed, result = jax.make_jaxpr(
                lambda arrays, x: call[0](call[1].merge(arrays), x), return_shape=True
            )(arrays, image)
    except Exception as error:
        if _speaks_of_shapes(error):
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"x: Expected images the network accepts, got shape {image_shape[1:]} per image; "
                f"the network said: {reason}"
            ) from error
        error.add_note(f"Raised while the network was traced with one image {image_shape}.")
        raise
    _check_logits(result, image_shape)
    jaxpr, constants = without_dead_code(closed)
    return Trace(jaxpr, constants), tuple(constants)


def _speaks_of_shapes(error: Exception) -> bool:
    """Whether JAX or Flax refused the shape of something, rather than the network being wrong."""
    words = r"shapes?|dimensions?|dims?|channels?|features?|axis|axes|rank|ndim|broadcast\w*|sizes?"
    return isinstance(error, (TypeError, ValueError)) and bool(
        re.search(rf"\b({words})\b", str(error), re.IGNORECASE)
    )


def _check_logits(result: Any, image_shape: tuple[int, ...]) -> None:
    if not hasattr(result, "shape") or not jnp.issubdtype(result.dtype, jnp.floating):
        raise InputTypeError(
            "apply_fn: Expected one floating-point array of logits, "
            f"got {jax.tree.map(lambda a: (a.shape, str(a.dtype)), result)}."
        )
    if len(result.shape) != 2 or result.shape[0] != 1:
        raise InputError(
            "apply_fn: Expected logits of shape (N, classes) for images (N, H, W, C), "
            f"got {result.shape} for {image_shape}. Wrap a per-image function with jax.vmap."
        )
