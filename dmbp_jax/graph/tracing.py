"""From a JAX function to its program: one trace of the network at one image, kept for later calls.

Class count, sites, decomposition and every method read the same trace. Arrays are its inputs, those
too that the function captured; Python values are part of it, as of a program of `jax.jit`.
"""

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.captures import may_read_arrays
from dmbp_jax.graph.convolution import bind_convolution
from dmbp_jax.graph.graph import Graph
from dmbp_jax.graph.identity import Identity, identity
from dmbp_jax.graph.jaxprs import (
    Body,
    bind,
    evaluate,
    shapes_are_refused,
    value_bytes,
    without_dead_code,
)
from dmbp_jax.graph.linearisation import Linearisation
from dmbp_jax.graph.mixing import IMAGES, check_images_apart, refusal_of_batches
from dmbp_jax.graph.model import Model
from dmbp_jax.graph.passes import make_program
from dmbp_jax.graph.pieces import FAMILIES, Equation, PieceFamily, families
from dmbp_jax.graph.pieces.pools import WindowPool
from dmbp_jax.graph.program import Program
from dmbp_jax.graph.steps import is_zero


class Trace:
    """What one trace of a network found, without its arrays: one object for equal programs.

    Attributes:
      jaxpr: equations of `(arrays..., constants..., x (1, H, W, C)) -> logits (1, classes)`.
      classes: number of logits.
      image_dtype: of x.
      bytes_per_image: of all values that one forward pass computes.
      identity: what it computes, with which constants known to be zero.
      compiled: programs of this network (`engine/compiling.py`); they go when it goes.
    """

    def __init__(self, jaxpr: Any, zeros: tuple[bool, ...]):
        self.jaxpr = jaxpr
        self.classes: int = jaxpr.outvars[0].aval.shape[1]
        self.image_dtype = jaxpr.invars[-1].aval.dtype
        self.bytes_per_image = value_bytes(jaxpr)
        digest, others = identity(jaxpr)
        self.identity = Identity(f"{digest} {zeros}", others)
        self.compiled: dict[Any, Any] = {}
        self._zeros = zeros
        self._programs: dict[tuple[tuple[PieceFamily, ...], str, bool], Program] = {}

    def program(self, nonaffine: str) -> Program:
        """The flat program, with the pieces that are registered now, as `make_program`."""
        key = families(), nonaffine, turning_pays()
        if key not in self._programs:
            self._programs[key] = make_program(self.jaxpr, self._zeros, *key)
        return self._programs[key]


def turning_pays() -> bool:
    """Whether axes are turned (`orders`): on a CPU. On a GPU XLA chooses the layouts."""
    return jax.default_backend() == "cpu"


@dataclass(frozen=True)
class TracedNetwork:
    """A network as its trace and its arrays: a pytree that goes through `jax.jit` in their place.

    It holds neither `apply_fn` nor what that captured. Its tree structure, which JAX keeps with
    what it compiled, does not keep the trace, so nothing of a network outlives it.
    """

    # arrays of the network, then constants that its function captured
    inputs: tuple[jax.Array, ...]
    trace: Trace  # static
    # how it is made affine at x; static
    linearisation: Linearisation = Linearisation()  # noqa: RUF009 (frozen)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (N, classes) of images (N, H, W, C), each image by itself."""
        return jax.vmap(lambda image: self.logits(image))(x)

    def logits(self, image: jax.Array) -> jax.Array:
        """Logits (classes,) of one image (H, W, C)."""
        return evaluate(self.trace.jaxpr, [*self.inputs, image[None]], _bind)[0][0]

    def program(self) -> Program:
        """As `Trace.program`."""
        return self.trace.program(self.linearisation.nonaffine)

    def graph(self) -> Graph:
        """The network with its arrays, to be run with rules inside one JAX trace."""
        return Graph(self.program(), self.inputs, self.linearisation)

    @property
    def identity(self) -> str | None:
        """By content, in every process; None where it holds something that has no description, or
        somebody registered pieces, whose code is not known.
        """
        digest, others = self.trace.identity
        return None if others or families() != FAMILIES else f"{digest} {self.linearisation}"

    def with_arrays(self, arrays: Sequence[jax.Array]) -> "TracedNetwork":
        """The same network with other parameters of the same shapes."""
        return replace(self, inputs=(*arrays, *self.inputs[len(arrays) :]))


def _flatten(network: TracedNetwork) -> tuple[Any, Any]:
    return (network.inputs,), (weakref.ref(network.trace), network.linearisation)


def _unflatten(static: Any, inputs: Any) -> TracedNetwork:
    reference, linearisation = static
    return TracedNetwork(inputs[0], reference(), linearisation)


jax.tree_util.register_pytree_node(TracedNetwork, _flatten, _unflatten)


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


class _Known(NamedTuple):
    trace: Trace
    is_final: bool  # the function reads no array beside its arguments
    placed: str | None  # where logits come to depend on the place in a batch, or on its size


_KEPT = 32  # calls with another function or shape; the oldest go first
_newest: OrderedDict[Any, _Known] = OrderedDict()


def trace(
    model: Model, images: jax.Array | jax.ShapeDtypeStruct, precision: str | None = None
) -> TracedNetwork:
    """Trace a network at one of its images (N, H, W, C); only their shape and dtype matter.

    A function that may read arrays which are not its arguments is traced at every call, and these
    arrays are inputs; any other once. Equal programs are one trace, so that a function written anew
    for each call is compiled once. A second trace shows whether the network mixes images: one image
    too is refused then, as it is not the one that a batch has. Several are refused where logits
    depend on the place in the batch, or on its size.
    """
    image = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    shapes = tuple((np.shape(a), jnp.result_type(a)) for a in model.arrays)
    is_function = isinstance(model.apply_fn, FunctionType)
    function = weakref.ref(model.apply_fn) if is_function else model.apply_fn
    here = image.shape, image.dtype, precision, *settings_of_traces()
    key = function, model.skeleton, shapes, here
    known = _newest.get(key)
    if known is not None and known.is_final:
        _newest[key] = _newest.pop(key, known)  # the newest; another thread may have taken it out
        _check_placed(known, images.shape[0])
        return TracedNetwork(model.arrays, known.trace)
    placed = None if known is None else known.placed
    with jax.default_matmul_precision(precision):
        jaxpr, constants = _trace_one_image(model, image)
        new = Trace(jaxpr, (*(False for _ in model.arrays), *map(is_zero, constants)))
        equal = (one.trace for one in list(_newest.values()) if one.trace.identity == new.identity)
        found = next(equal, new)
        if known is None or known.trace is not found:  # as of a module that is in training mode now
            warned = _warn_of_training(jaxpr.eqns, jaxpr.invars[: len(model.arrays)])
            placed = _check_images_apart(model, image, jaxpr, (*model.arrays, *constants))
            placed = None if warned else placed
    _newest.pop(key, None)
    known = _Known(found, not (constants or _may_read_arrays(model)), placed)
    _newest[key] = known
    while len(_newest) > _KEPT:
        _newest.popitem(last=False)
    _check_placed(known, images.shape[0])
    return TracedNetwork((*model.arrays, *constants), found)


def settings_of_traces() -> tuple[Any, ...]:
    """Settings of JAX that change a trace."""
    config: Any = jax.config
    return (
        config.jax_enable_x64,
        config.jax_default_matmul_precision,
        config.jax_numpy_dtype_promotion,
        config.jax_default_prng_impl,
        config.jax_threefry_partitionable,
    )


def _may_read_arrays(model: Model) -> bool:
    try:
        params = model.skeleton.without_arrays()
    except Exception:  # a class of the caller's that takes arrays alone
        return True
    return may_read_arrays(model.apply_fn, params)


def _make_jaxpr(model: Model, images: jax.ShapeDtypeStruct) -> tuple[Any, Any]:
    """The jaxpr of a network and its result, as it is."""
    apply_fn, skeleton = model.apply_fn, model.skeleton
    like = [jax.ShapeDtypeStruct(np.shape(a), jnp.result_type(a)) for a in model.arrays]
    return jax.make_jaxpr(lambda arrays, x: apply_fn(skeleton.merge(arrays), x), return_shape=True)(
        tuple(like), images
    )


def _trace_one_image(model: Model, image: jax.ShapeDtypeStruct) -> tuple[Body, tuple[Any, ...]]:
    try:
        closed, result = _make_jaxpr(model, image)
    except Exception as error:
        if shapes_are_refused(lambda: _make_jaxpr(model, image)):
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"x: Expected images the network accepts, got shape {image.shape[1:]} per image; "
                f"the network said: {reason}"
            ) from error
        error.add_note(f"Raised while the network was traced with one image {image.shape}.")
        raise
    return _logits_of_inputs(closed, result, image.shape)


def _check_images_apart(
    model: Model, image: jax.ShapeDtypeStruct, one: Body, inputs: Sequence[Any]
) -> str | None:
    """As `check_images_apart`, by a trace with a few images beside that of one."""
    batch = jax.ShapeDtypeStruct((IMAGES, *image.shape[1:]), image.dtype)
    try:
        closed, result = _make_jaxpr(model, batch)
    except Exception:  # it takes one image at a time
        return None
    several, constants = _logits_of_inputs(closed, result, batch.shape)
    return check_images_apart(one, inputs, several, (*model.arrays, *constants))


def _check_placed(known: _Known, count: int) -> None:
    if count > 1 and known.placed is not None:
        raise refusal_of_batches("with its place among others, or with their number", known.placed)


def _logits_of_inputs(
    closed: Any, result: Any, shape: tuple[int, ...]
) -> tuple[Body, tuple[Any, ...]]:
    """What the logits need of `(arrays..., constants..., x) -> logits`, and the constants."""
    if not hasattr(result, "shape") or not jnp.issubdtype(result.dtype, jnp.floating):
        raise InputTypeError(
            "apply_fn: Expected one floating-point array of logits, "
            f"got {jax.tree.map(lambda a: (a.shape, str(a.dtype)), result)}."
        )
    if len(result.shape) != 2 or result.shape[0] != shape[0]:
        raise InputError(
            "apply_fn: Expected logits of shape (N, classes) for images (N, H, W, C), "
            f"got {result.shape} for {shape}. Wrap a per-image function with jax.vmap."
        )
    return without_dead_code(closed)


def _warn_of_training(equations: Sequence[Any], params: Sequence[Any]) -> bool:
    """Warn of a module that counts its random numbers, as those of Flax do in training mode."""
    of_params = set(map(id, params))
    is_training = any(
        equation.primitive.name == "random_fold_in"
        and all(id(operand) in of_params for operand in equation.invars)
        for equation in equations
    )
    if is_training:
        warnings.warn(
            "params: Expected a network in inference mode, got one that draws the next random "
            "numbers of its own stream (dropout?): the maps are those of one draw. "
            "Call its eval() first.",
            stacklevel=4,
        )
    return is_training
