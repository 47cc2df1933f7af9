"""Whether a network treats every image by itself: the logits of a batch are those of its images.

The axis of the images is followed through a trace with a few of them. Where it is lost the network
is run: if images change the logits of others, it is refused, as every map is of one image.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from dmbp_jax.errors import UnsupportedNetworkError
from dmbp_jax.graph.jaxprs import body, called_jaxpr, evaluate, join_scopes, scan_loop
from dmbp_jax.graph.operations import CALLS, POINTWISE, place

IMAGES = 5  # of the trace: of two, half of all shuffles leave each at its place


class Axis(NamedTuple):
    """Where the images are: the axis `position` runs over (outer, images, inner)."""

    position: int
    outer: int = 1
    inner: int = 1


# One image alone, inside a loop over the images: whatever happens to it, no other one is there.
_ALONE = Axis(-1)
Axes = Sequence[Axis | None]  # None: does not depend on x


class _LostError(Exception):
    """The images cannot be followed through an operation."""


def check_images_apart(jaxpr: Any, constants: Sequence[Any], arrays: Sequence[Any]) -> None:
    """Refuse a network that mixes the images of a batch.

    Args:
      jaxpr: equations of `(arrays..., x (IMAGES, H, W, C)) -> logits (IMAGES, classes)`.
      constants: of the jaxpr.
      arrays: of the network; random ones take the place of those that are traced.

    Raises:
      UnsupportedNetworkError: the logits of an image depend on the other ones.
    """
    axes = [*[None] * (len(jaxpr.invars) - 1), Axis(0)]
    try:
        (logits,) = _follow(jaxpr, [None] * len(constants), axes, "")
        where = "at its output"
    except _LostError as lost:
        logits, where = _ALONE, str(lost)
    if logits in (None, Axis(0)) or not _changes(jaxpr, constants, arrays):
        return
    raise UnsupportedNetworkError(
        "Expected a network that treats every image of a batch by itself, got one whose logits of "
        f"an image change with the other images, by {where} (use normalisation layers in inference "
        "mode, with running statistics; write what is done to one image, and jax.vmap it)."
    )


def _changes(jaxpr: Any, constants: Sequence[Any], arrays: Sequence[Any]) -> bool:
    """Whether logits of images change with other images, more than from run to run."""
    rng = np.random.default_rng(0)

    def concrete(value: Any) -> Any:
        if not isinstance(value, (jax.core.Tracer, jax.ShapeDtypeStruct)):
            return value
        if not jnp.issubdtype(value.dtype, jnp.floating):
            return np.zeros(value.shape, value.dtype)
        return rng.normal(size=value.shape).astype(value.dtype)

    given = [[concrete(value) for value in values] for values in (constants, arrays)]
    aval = jaxpr.invars[-1].aval
    images, others = rng.normal(size=(2, *aval.shape)).astype(aval.dtype)

    @jax.jit
    def logits(constants: Any, arrays: Any, x: jax.Array) -> jax.Array:
        return evaluate(jaxpr, constants, [*arrays, x])[0]

    def run(x: np.ndarray) -> np.ndarray:
        return np.asarray(logits(*given, x), np.float64)

    at = np.arange(IMAGES)
    with jax.ensure_compile_time_eval():
        before = run(images)
        noise = np.abs(run(images) - before).max()
        for changed in (at % 2 == 0, at % 2 == 1, at < 2, at >= 2):
            after = run(np.where(changed.reshape(-1, 1, 1, 1), others, images))
            if np.abs(after - before)[~changed].max() > 10 * noise:
                return True
    return False


def _follow(jaxpr: Any, constants: Axes, arguments: Axes, scope: str) -> list[Axis | None]:
    """The axes of a jaxpr's results."""
    axes: dict[Any, Axis | None] = dict(zip(jaxpr.constvars, constants, strict=True))
    axes.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Axis | None:
        return None if isinstance(atom, jex.Literal) else axes[atom]

    for equation in jaxpr.eqns:
        here = join_scopes(scope, str(equation.source_info.name_stack))
        found = _through(equation, [read(atom) for atom in equation.invars], here)
        axes.update(zip(equation.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _through(equation: Any, axes: Axes, scope: str) -> Axes:
    """The axes of one equation's results."""
    name, count = equation.primitive.name, len(equation.outvars)
    dependent = {axis for axis in axes if axis is not None}
    if len(dependent) == 0 or dependent == {_ALONE}:
        return [*dependent, *[None] * (not dependent)] * count
    if name in CALLS:
        inner, constants = body(called_jaxpr(equation))
        return _follow(inner, [None] * len(constants), axes, scope)
    if name == "scan":
        return _through_scan(equation, axes, scope)
    rule = _RULES.get(name)
    if rule is None and name in _ELEMENTWISE:
        rule = _elementwise
    found = None if rule is None or _ALONE in dependent else rule(equation, axes)
    if found is None:
        raise _LostError(f"{name!r} {place(scope)}")
    return [found] * count


def _through_scan(equation: Any, axes: Axes, scope: str) -> Axes:
    loop = scan_loop(equation)
    first = loop.constants + loop.carry
    constants, carry = axes[: loop.constants], list(axes[loop.constants : first])
    elements = [_element(axis) for axis in axes[first:]]
    inner = [None] * len(loop.body_constants)
    while True:
        results = _follow(loop.body, inner, [*constants, *carry, *elements], scope)
        after = results[: loop.carry]
        if any(a is not None and a != b for a, b in zip(carry, after, strict=True)):
            raise _LostError(f"'scan' {place(scope)}")
        if _ALONE in after:  # one image after the other
            raise _LostError(f"'scan' {place(scope)}")
        if after == carry:
            return [*carry, *map(_stacked, results[loop.carry :])]
        carry = after


def _element(axis: Axis | None) -> Axis | None:
    if axis is None or axis == _ALONE:
        return axis
    return _ALONE if axis == Axis(0) else axis._replace(position=axis.position - 1)


def _stacked(axis: Axis | None) -> Axis | None:
    if axis is None:
        return None
    return Axis(0) if axis == _ALONE else axis._replace(position=axis.position + 1)


def _only(axes: Axes) -> Axis | None:
    """The axis of all operands that depend on x, if it is one."""
    found = {axis for axis in axes if axis is not None}
    return found.pop() if len(found) == 1 else None


def _elementwise(equation: Any, axes: Axes) -> Axis | None:
    return _only(axes)


def _unless(*parameters: str) -> Callable[[Any, Axes], Axis | None]:
    """An operation that leaves all axes where they are but works along those of its parameters."""

    def rule(equation: Any, axes: Axes) -> Axis | None:
        axis = _only(axes)
        along = [equation.params[name] for name in parameters if name in equation.params]
        return None if axis is None or axis.position in np.ravel(along) else axis

    return rule


def _removes(parameter: str) -> Callable[[Any, Axes], Axis | None]:
    """An operation that takes the axes of its parameter away, by a sum or as they are 1."""

    def rule(equation: Any, axes: Axes) -> Axis | None:
        axis, removed = _only(axes), equation.params[parameter]
        if axis is None or axis.position in removed:
            return None
        return axis._replace(position=axis.position - sum(d < axis.position for d in removed))

    return rule


def _whole(*parameters: str) -> Callable[[Any, Axes], Axis | None]:
    """An operation on windows: each parameter is, at the axis of the images, as if absent."""

    def rule(equation: Any, axes: Axes) -> Axis | None:
        axis = _only(axes)
        if axis is None:
            return None
        size = equation.invars[0].aval.shape[axis.position]
        for name in parameters:
            value = equation.params[name]
            allowed = {"slice_sizes": size, "limit_indices": size, "start_indices": 0}
            if value is not None and np.any(
                np.asarray(value[axis.position]) != allowed.get(name, _ABSENT.get(name, 1))
            ):
                return None
        return axis if axes[0] is not None and not any(axes[1:]) else None

    return rule


_ABSENT = {"padding": 0, "padding_config": 0}


def _reshape(equation: Any, axes: Axes) -> Axis | None:
    axis = axes[0]
    if axis is None or equation.params.get("dimensions") is not None:
        return None
    before, after = (one.aval.shape for one in (equation.invars[0], equation.outvars[0]))
    stride = math.prod(before[axis.position + 1 :]) * axis.inner  # of an image, in the flat array
    for position, size in enumerate(after):
        own = math.prod(after[position + 1 :])
        outer, rest = divmod(own * size, stride * IMAGES)
        if own and stride % own == 0 and outer and rest == 0:
            return Axis(position, outer, stride // own)
    return None


def _transpose(equation: Any, axes: Axes) -> Axis | None:
    axis = axes[0]
    assert axis is not None
    return axis._replace(position=tuple(equation.params["permutation"]).index(axis.position))


def _broadcast(equation: Any, axes: Axes) -> Axis | None:
    axis = _only(axes[:1])
    if axis is None:
        return None
    return axis._replace(position=equation.params["broadcast_dimensions"][axis.position])


def _product(equation: Any, axes: Axes) -> Axis | None:
    summed, batch = equation.params["dimension_numbers"]
    ranks = [one.aval.ndim for one in equation.invars]
    found = set()
    for side, axis in enumerate(axes):
        if axis is None:
            continue
        free = [d for d in range(ranks[side]) if d not in (*summed[side], *batch[side])]
        others = side * (ranks[0] - len(summed[0]) - len(batch[0]))
        if axis.position in batch[side]:
            found.add(axis._replace(position=tuple(batch[side]).index(axis.position)))
        elif axis.position in free and None in axes:
            position = len(batch[0]) + others + free.index(axis.position)
            found.add(axis._replace(position=position))
        else:
            return None
    return found.pop() if len(found) == 1 else None


def _convolution(equation: Any, axes: Axes) -> Axis | None:
    axis, numbers = axes[0], equation.params["dimension_numbers"]
    if axis is None or axes[1] is not None or equation.params["batch_group_count"] != 1:
        return None
    if axis.position != numbers.lhs_spec[0]:
        return None
    return axis._replace(position=numbers.out_spec[0])


_ELEMENTWISE = POINTWISE | {
    *("stop_gradient", "real", "imag", "round", "floor", "ceil", "rem", "nextafter", "xor"),
    *("lgamma", "digamma", "pvary", "pcast", "sharding_constraint", "layout_constraint"),
    *("bessel_i0e", "bessel_i1e", "population_count", "shift_left", "shift_right_logical"),
}
_REDUCTIONS = ("sum", "max", "min", "prod", "and", "or", "xor")
_RULES: dict[str, Callable[[Any, Axes], Axis | None]] = {
    **dict.fromkeys([f"reduce_{name}" for name in _REDUCTIONS], _removes("axes")),
    **dict.fromkeys(["argmax", "argmin"], _removes("axes")),
    **dict.fromkeys(["cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"], _unless("axis")),
    **dict.fromkeys(
        [f"reduce_window_{name}" for name in ("sum", "max", "min")],
        _whole("window_dimensions", "window_strides", "padding"),
    ),
    "squeeze": _removes("dimensions"),
    "sort": _unless("dimension"),
    "concatenate": _unless("dimension"),
    "split": _unless("axis"),
    "rev": _unless("dimensions"),
    "pad": _whole("padding_config"),
    "slice": _whole("start_indices", "limit_indices", "strides"),
    "dynamic_slice": _whole("slice_sizes"),
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "dot_general": _product,
    "conv_general_dilated": _convolution,
}
