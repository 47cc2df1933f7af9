"""What becomes of the rows and columns of a value in each operation (`axes`)."""

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from dmbp_jax.graph.factors import (
    POSITIONS,
    as_one,
    axis_of,
    groups,
    holds,
    join,
    other,
    regroup,
    unknown,
)
from dmbp_jax.graph.operations import POINTWISE
from dmbp_jax.graph.program import Axes, Axis, Factor
from dmbp_jax.graph.steps import Step

_CROPPED = 1  # cells that a layer may leave out at an edge, as where a residual is cut to size

Read = Sequence[Axes | None]
Rule = Callable[[Step, Read, tuple[int, ...], int, Sequence[bool]], Axes | None]


def rule_of(step: Step) -> Rule | None:
    is_function = step.piece is not None and step.name not in _RULES
    return _elementwise if is_function or step.name in POINTWISE else _RULES.get(step.name)


def _first(read: Read) -> Axes:
    return next(axes for axes in read if axes is not None)


def _elementwise(
    step: Step, read: Read, out: tuple[int, ...], number: int, literal: Sequence[bool]
) -> Axes | None:
    found = [
        tuple(map(_widened, axes, out))
        for axes in read
        if axes is not None and len(axes) == len(out)
    ]
    return join(found) if found else None


def _widened(axis: Axis, size: int) -> Axis:
    """An axis of one element is the same everywhere."""
    return axis if axis.factors else other(size)


def _keep(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes | None:
    """Multiple results, one for each operand; or an operation along an axis."""
    return read[number if len(step.results) > 1 else 0]


def _transpose(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes:
    return tuple(_first(read)[axis] for axis in step.params["permutation"])


def _reverse(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes:
    turned = step.params["dimensions"]
    return tuple(
        unknown(out[at]) if at in turned and holds(axis) == "position" else axis
        for at, axis in enumerate(_first(read))
    )


def _reduce(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes:
    gone = step.params.get("axes", step.params.get("dimensions"))
    return tuple(axis for at, axis in enumerate(_first(read)) if at not in gone)


def _broadcast(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes:
    axes = list(map(other, out))
    shape = step.equation.invars[0].aval.shape
    for at, axis in zip(step.params["broadcast_dimensions"], range(len(shape)), strict=True):
        if shape[axis] == out[at]:
            axes[at] = _first(read)[axis]
    return tuple(axes)


def _reshape(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes | None:
    shape, axes = step.equation.invars[0].aval.shape, _first(read)
    if step.params["dimensions"] is not None or 0 in shape:
        return None
    found: list[Axis] = []
    at = 0
    for sizes_in, sizes_out in groups(shape, out):
        group = axes[at : at + len(sizes_in)]
        at += len(sizes_in)
        held = [axis for axis in group if axis.factors]
        if len(held) == 1 and max(sizes_in) == max(sizes_out, default=1):
            found += [held[0] if size > 1 else Axis() for size in sizes_out]
        elif any(axis.before or axis.after for axis in group):
            found += map(unknown, sizes_out)
        else:
            found += regroup([factor for axis in group for factor in axis.factors], sizes_out)
    return tuple(found)


class _Window(NamedTuple):
    """What a window does along one axis."""

    size: int = 1
    stride: int = 1
    low: int = 0
    high: int = 0
    dilation: int = 1
    spread: int = 1  # dilation of what is read


def _slide(axis: Axis, window: _Window, out: int) -> Axis:
    """The axis along which a window moved: every result lies in the middle of what it read."""
    if window == _Window():
        return axis
    if out == 1:
        return Axis()
    one = as_one(axis)
    if one is None:
        return other(out) if holds(axis) == "other" and not axis.before else unknown(out)
    step = one.step / window.spread
    start = one.start + (one.step - step) / 2
    reach = (window.size - 1) * window.dilation + 1
    start += step * (Fraction(reach - window.stride, 2) - window.low)
    return axis_of(Factor(one.kind, out, start, step * window.stride))


def _convolution(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes | None:
    params, axes = step.params, read[0]
    if axes is None or params["batch_group_count"] > 1:
        return None
    numbers = params["dimension_numbers"]
    kernel = step.equation.invars[1].aval.shape
    found = list(map(other, out))
    found[numbers.out_spec[0]] = axes[numbers.lhs_spec[0]]
    for at in range(len(out) - 2):
        low, high = params["padding"][at]
        size, stride = kernel[numbers.rhs_spec[2 + at]], params["window_strides"][at]
        dilations = params["rhs_dilation"][at], params["lhs_dilation"][at]
        window = _Window(size, stride, low, high, *dilations)
        into = numbers.out_spec[2 + at]
        found[into] = _slide(axes[numbers.lhs_spec[2 + at]], window, out[into])
    return tuple(found)


def _pool(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes:
    params = step.params
    windows = zip(
        params["window_dimensions"],
        params["window_strides"],
        params["padding"],
        params["window_dilation"],
        params["base_dilation"],
        strict=True,
    )
    return tuple(
        _slide(axis, _Window(size, stride, low, high, dilation, spread), length)
        for axis, (size, stride, (low, high), dilation, spread), length in zip(
            _first(read), windows, out, strict=True
        )
    )


def _pad(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes | None:
    if read[0] is None:
        return None
    return tuple(
        _slide(axis, _Window(low=low, high=high, spread=interior + 1), size)
        for axis, (low, high, interior), size in zip(
            read[0], step.params["padding_config"], out, strict=True
        )
    )


def _cut(axis: Axis, start: int, size: int, stride: int, length: int) -> Axis:
    """Part of an axis of some length: every `stride`th of `size` elements."""
    stop = start + (size - 1) * stride + 1
    if axis.before or axis.after:
        inside = axis.before <= start and stop <= length - axis.after and stride == 1
        if size > 1 and inside and stop - start == length - axis.before - axis.after:
            return Axis(axis.factors)
        if (start, stop, stride) != (0, length, 1):
            return unknown(size)
    part = _slide(axis, _Window(1, stride, -start, stop - length), size)
    whole, kept = as_one(axis), as_one(part)
    if whole is not None and kept is not None and kept.kind == whole.kind:
        left_out = max(kept.start, 0) - max(whole.start, 0)
        if left_out > _CROPPED * whole.step:  # a map of the middle is not one of the picture
            return unknown(size)
    return part


def _slice(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes:
    params, shape = step.params, step.equation.invars[0].aval.shape
    strides = params["strides"] or (1,) * len(shape)
    parts = zip(_first(read), params["start_indices"], out, strides, shape, strict=True)
    return tuple(itertools.starmap(_cut, parts))


def _split(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes:
    axes, at = list(_first(read)), step.params["axis"]
    length = step.equation.invars[0].aval.shape[at]
    axes[at] = _cut(axes[at], sum(step.params["sizes"][:number]), out[at], 1, length)
    return tuple(axes)


def _resized(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes | None:
    """Some elements along an axis, nobody knows which: positions are lost."""
    if read[0] is None or len(read[0]) != len(out):
        return None
    shape = step.equation.invars[0].aval.shape
    return tuple(
        axis if before == size else other(size) if holds(axis) == "other" else unknown(size)
        for axis, before, size in zip(read[0], shape, out, strict=True)
    )


def _gather(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes | None:
    numbers, sizes = step.params["dimension_numbers"], step.params["slice_sizes"]
    shape, axes = step.equation.invars[0].aval.shape, read[0]
    if axes is None or getattr(numbers, "operand_batching_dims", ()):
        return None
    picked = [axis for axis, size, length in zip(axes, sizes, shape, strict=True) if size < length]
    lost = any(holds(axis) != "other" for axis in picked)
    found = [unknown(size) if lost else other(size) for size in out]
    kept = [at for at in range(len(shape)) if at not in numbers.collapsed_slice_dims]
    for into, at in zip(numbers.offset_dims, kept, strict=True):
        if sizes[at] == shape[at]:
            found[into] = axes[at]
    return tuple(found)


def _concatenate(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes | None:
    at = step.params["dimension"]
    sizes = [variable.aval.shape[at] for variable in step.equation.invars]
    known = [axes for axes in read if axes is not None]
    others = join([(*axes[:at], *axes[at + 1 :]) for axes in known])
    own = [other(n) if axes is None else axes[at] for axes, n in zip(read, sizes, strict=True)]
    positions = [number for number, axis in enumerate(own) if holds(axis) != "other"]
    if not positions:
        joined = other(out[at])
    elif len(positions) == 1 and holds(own[positions[0]]) == "position":
        (mine,) = positions
        factors, before, after = own[mine]
        before, after = before + sum(sizes[:mine]), after + sum(sizes[mine + 1 :])
        joined = Axis(factors, before, after)
    else:
        joined = unknown(out[at])
    return (*others[:at], joined, *others[at:])


def _product(
    step: Step, read: Read, out: tuple[int, ...], number: int, literal: Sequence[bool]
) -> Axes | None:
    contracted, batched = step.params["dimension_numbers"]
    if read[0] is not None and read[1] is not None:
        used = [(*one, *other) for one, other in zip(contracted, batched, strict=True)]
        free = [
            axis
            for axes, gone in zip(read, used, strict=True)
            for at, axis in enumerate(axes or ())
            if at not in gone
        ]
        return (*(read[0][at] for at in batched[0]), *free)
    mine = 0 if read[0] is not None else 1
    axes, shape = _first(read), step.equation.invars[1 - mine].aval.shape
    others = (*contracted[1 - mine], *batched[1 - mine])
    free = [axis for at, axis in enumerate(axes) if at not in (*contracted[mine], *batched[mine])]
    new = [size for at, size in enumerate(shape) if at not in others]
    summed = [axes[at] for at in contracted[mine]]
    made = list(map(other, new))
    if any(holds(axis) == "unknown" for axis in summed):
        made = list(map(unknown, new)) if len(summed) == 1 and len(free) > 1 else made
    elif summed and all(_is_position(axis) for axis in summed):
        one = as_one(summed[0]) if len(summed) == 1 else None
        if one is not None and len(new) == 1 and literal[1 - mine]:  # as `jax.image.resize`
            made = [axis_of(Factor(one.kind, new[0], one.start, one.step * one.size / new[0]))]
        else:  # a mixture of all positions
            made = list(map(unknown, new))
    sides = (free, made) if mine == 0 else (made, free)
    return (*(axes[at] for at in batched[mine]), *sides[0], *sides[1])


def _is_position(axis: Axis) -> bool:
    return bool(axis.factors) and all(factor.kind in POSITIONS for factor in axis.factors)


_RULES: dict[str, Rule] = {
    "transpose": _transpose,
    "rev": _reverse,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "conv_general_dilated": _convolution,
    "pad": _pad,
    "slice": _slice,
    "split": _split,
    "gather": _gather,
    "concatenate": _concatenate,
    "dot_general": _product,
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "squeeze"), _reduce),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min"), _pool),
    **dict.fromkeys(("dynamic_slice", "dynamic_update_slice"), _resized),
    **dict.fromkeys(("scatter", "scatter-add", "scatter-sub"), _resized),
    **dict.fromkeys(("cumsum", "real", "sharding_constraint", "layout_constraint"), _keep),
    **dict.fromkeys(("optimization_barrier", "pvary", "pcast", "device_put"), _keep),
}
