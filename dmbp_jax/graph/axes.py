"""Where the rows and columns of the image are in every value of a network: one pass from x.

The layout of x is known, (N, H, W, C). Every operation says what becomes of each axis: features
first or last, patches as tokens, windows merged into the batch. What cannot be told is unknown, and
whoever needs positions refuses it by name (`as_picture`).
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax

from dmbp_jax.errors import UnknownAxesError
from dmbp_jax.graph.operations import POINTWISE
from dmbp_jax.graph.pieces import FrozenFactor
from dmbp_jax.graph.program import Axes, Axis, Factor, Site, Step

_POSITIONS = ("row", "column")
_SLACK = 3  # cells by which a layer may lie off the middle of the image, as strides and pads do


def name_axes(steps: Sequence[Step], image: int, shape: tuple[int, ...]) -> dict[int, Axes]:
    """The axes of every value that depends on x; those left out are unknown.

    Args:
      image: name of x.
      shape: of x, (1, H, W, C).
    """
    _, height, width, channels = shape
    axes: dict[int, Axes] = {
        image: (
            Axis(),
            _axis(Factor("row", height, Fraction(0), Fraction(1))),
            _axis(Factor("column", width, Fraction(0), Fraction(1))),
            _other(channels),
        )
    }
    literal: set[Any] = set()  # constants that no array of the network is read for
    for step in steps:
        if step.kind == "constant":
            read = [operand for operand in step.operands if isinstance(operand, int)]
            literal.update(step.results if literal.issuperset(read) else ())
        elif isinstance(step.piece, FrozenFactor):  # from which rows to which, of an attention
            for node in step.piece.nodes:
                inside = (True,) * len(node.operands)
                _follow(Step("affine", *node, step.scope, inside), axes, literal)
            if step.piece.value in axes:
                axes[step.results[0]] = axes[step.piece.value]
        else:
            _follow(step, axes, literal)
    height_and_width = {"row": height, "column": width}
    return {name: found for name, found in axes.items() if _is_readable(found, height_and_width)}


def _follow(step: Step, axes: dict[int, Axes], literal: Collection[Any]) -> None:
    """Add the axes of what a step returns."""
    read = [axes.get(operand) if isinstance(operand, int) else None for operand in step.operands]
    if not any(found is not None for found in read):
        return
    rule = _rule_of(step)
    is_literal = [not isinstance(o, int) or o in literal for o in step.operands]
    for number, result in enumerate(step.results):
        out = step.equation.outvars[number].aval.shape
        found = rule(step, read, out, number, is_literal) if rule else None
        axes[result] = found or tuple(map(_unknown, out))


def as_picture(value: jax.Array, site: Site) -> jax.Array:
    """The value of a site as (1, rows, columns, features); the class token of a ViT is left out.

    Raises:
      UnknownAxesError: it is not known where its rows and columns are.
    """
    axes = check_axes(site)
    kept = tuple(
        slice(axis.before, size - axis.after) for axis, size in zip(axes, site.shape, strict=True)
    )
    factors = [factor for axis in axes for factor in axis.factors]
    order = sorted(range(len(factors)), key=lambda number: _rank(factors[number]))
    sizes = [_size(f for f in factors if f.kind == kind) for kind in _POSITIONS]
    if order == list(range(len(factors))) and value[kept].shape[:3] == (1, *sizes):
        return value[kept] if value.ndim == 4 else value[kept].reshape(1, *sizes, -1)
    split = value[kept].reshape([factor.size for factor in factors])
    return split.transpose(order).reshape(1, *sizes, -1)


def check_axes(site: Site) -> Axes:
    """The axes of a site.

    Raises:
      UnknownAxesError: they are not known.
    """
    if site.axes is None:
        raise UnknownAxesError(
            f"Expected layers whose rows and columns can be followed from the image, got "
            f"{site.name!r} of shape {site.shape}, which was reached by rolling, gathering or "
            "mixing positions."
        )
    return site.axes


def _rank(factor: Factor) -> tuple[int, Fraction]:
    """Rows first, then columns, the coarse ones first, then all others as they are."""
    kind = (*_POSITIONS, "other").index(factor.kind)
    return kind, -factor.step if kind < 2 else Fraction(0)


def _size(factors: Iterable[Factor]) -> int:
    return math.prod(factor.size for factor in factors)


def _is_readable(axes: Axes, extent: Mapping[str, int]) -> bool:
    """Whether nothing is unknown, and rows and columns are whole and lie in the middle of x."""
    factors = [factor for axis in axes for factor in axis.factors]
    if any(factor.kind == "unknown" for factor in factors):
        return False
    featured = [axis for axis in axes if any(factor.kind == "other" for factor in axis.factors)]
    if len(featured) > 1 and any(_holds(axis) == "position" for axis in featured):
        return False  # parts of rows and features, as in a pixel shuffle, or features: who knows
    for kind in _POSITIONS:
        parts = sorted((f for f in factors if f.kind == kind), key=lambda f: -f.step)
        if any(a.step != b.size * b.step for a, b in itertools.pairwise(parts)):
            return False
        if parts:
            start, end = parts[0].start, parts[0].start + parts[0].size * parts[0].step
            if abs(start - (extent[kind] - end)) > _SLACK * parts[0].step:
                return False
    return True


def _axis(*factors: Factor) -> Axis:
    """An axis of these factors, from the coarse to the fine; neighbours that fit become one."""
    joined: list[Factor] = []
    for factor in factors:
        if factor.size == 1:
            continue
        last = joined[-1] if joined else None
        if last and last.kind == factor.kind and last.step == factor.size * factor.step:
            joined[-1] = Factor(last.kind, last.size * factor.size, last.start, factor.step)
        else:
            joined.append(factor)
    return Axis(tuple(joined))


def _other(size: int) -> Axis:
    return _axis(Factor("other", size))


def _unknown(size: int) -> Axis:
    return _axis(Factor("unknown", size))


def _holds(axis: Axis) -> str:
    """What an axis holds: "position" where it has rows or columns, else "unknown" or "other"."""
    kinds = {factor.kind for factor in axis.factors}
    if "unknown" in kinds:
        return "unknown"
    return "position" if kinds & set(_POSITIONS) else "other"


def _as_one(axis: Axis) -> Factor | None:
    """The rows or columns of an axis that a window moves along; of a pixel shuffle with its parts.

    None if it has none, or more.
    """
    if axis.before or axis.after or not axis.factors:
        return None
    first, *others = axis.factors
    if first.kind not in _POSITIONS or any(factor.kind != "other" for factor in others):
        return None
    parts = _size(others)
    return Factor(first.kind, first.size * parts, first.start, first.step / parts)


def _join(found: Sequence[Axes]) -> Axes:
    """Of values that are added: what is known of one is known of all."""
    return tuple(_join_axis(axes) for axes in zip(*found, strict=True))


def _join_axis(axes: Sequence[Axis]) -> Axis:
    by_kind = {_holds(axis): axis for axis in reversed(axes)}
    if "position" not in by_kind:
        return by_kind.get("unknown", axes[0])
    wanted = _signature(by_kind["position"])
    if any(_holds(axis) == "position" and _signature(axis) != wanted for axis in axes):
        return _unknown(_size(axes[0].factors) + axes[0].before + axes[0].after)
    return by_kind["position"]


def _signature(axis: Axis) -> Any:
    return axis.before, axis.after, [(factor.kind, factor.size) for factor in axis.factors]


Read = Sequence[Axes | None]
Rule = Callable[[Step, Read, tuple[int, ...], int, Sequence[bool]], Axes | None]


def _rule_of(step: Step) -> Rule | None:
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
    return _join(found) if found else None


def _widened(axis: Axis, size: int) -> Axis:
    """An axis of one element is the same everywhere."""
    return axis if axis.factors else _other(size)


def _keep(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes | None:
    """Multiple results, one for each operand; or an operation along an axis."""
    return read[number if len(step.results) > 1 else 0]


def _transpose(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes:
    return tuple(_first(read)[axis] for axis in step.params["permutation"])


def _reverse(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes:
    turned = step.params["dimensions"]
    return tuple(
        _unknown(out[at]) if at in turned and _holds(axis) == "position" else axis
        for at, axis in enumerate(_first(read))
    )


def _reduce(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes:
    gone = step.params.get("axes", step.params.get("dimensions"))
    return tuple(axis for at, axis in enumerate(_first(read)) if at not in gone)


def _broadcast(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes:
    axes = list(map(_other, out))
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
    for sizes_in, sizes_out in _groups(shape, out):
        group = axes[at : at + len(sizes_in)]
        at += len(sizes_in)
        held = [axis for axis in group if axis.factors]
        if len(held) == 1 and max(sizes_in) == max(sizes_out, default=1):
            found += [held[0] if size > 1 else Axis() for size in sizes_out]
        elif any(axis.before or axis.after for axis in group):
            found += map(_unknown, sizes_out)
        else:
            found += _regroup([factor for axis in group for factor in axis.factors], sizes_out)
    return tuple(found)


def _groups(shape: Sequence[int], out: Sequence[int]) -> Iterable[tuple[list[int], list[int]]]:
    """Neighbouring axes of the operand and of the result that hold the same elements."""
    before, after = list(shape), list(out)
    while before or after:
        left, right = before[:1], after[:1]
        del before[:1], after[:1]
        while math.prod(left) != math.prod(right):
            if math.prod(left) < math.prod(right):
                left.append(before.pop(0))
            else:
                right.append(after.pop(0))
        yield left, right


def _regroup(factors: list[Factor], sizes: Sequence[int]) -> list[Axis]:
    """The factors of some axes as those of others, from the coarse to the fine."""
    found, rest = [], list(factors)
    for size in sizes:
        mine: list[Factor] = []
        while _size(mine) < size:
            factor, wanted = rest.pop(0), size // _size(mine)
            if size % _size(mine) or (factor.size % wanted and wanted % factor.size):
                return list(map(_unknown, sizes))
            if factor.size > wanted:
                fine = factor.size // wanted
                rest.insert(0, Factor(factor.kind, fine, Fraction(0), factor.step))
                factor = Factor(factor.kind, wanted, factor.start, factor.step * fine)
            mine.append(factor)
        found.append(_axis(*mine))
    return found


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
    one = _as_one(axis)
    if one is None:
        return _other(out) if _holds(axis) == "other" and not axis.before else _unknown(out)
    step = one.step / window.spread
    start = one.start + (one.step - step) / 2
    reach = (window.size - 1) * window.dilation + 1
    start += step * (Fraction(reach - window.stride, 2) - window.low)
    return _axis(Factor(one.kind, out, start, step * window.stride))


def _convolution(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes | None:
    params, axes = step.params, read[0]
    if axes is None or params["batch_group_count"] > 1:
        return None
    numbers = params["dimension_numbers"]
    kernel = step.equation.invars[1].aval.shape
    found = list(map(_other, out))
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
            return _unknown(size)
    return _slide(axis, _Window(1, stride, -start, stop - length), size)


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
        axis if before == size else _other(size) if _holds(axis) == "other" else _unknown(size)
        for axis, before, size in zip(read[0], shape, out, strict=True)
    )


def _gather(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes | None:
    numbers, sizes = step.params["dimension_numbers"], step.params["slice_sizes"]
    shape, axes = step.equation.invars[0].aval.shape, read[0]
    if axes is None or getattr(numbers, "operand_batching_dims", ()):
        return None
    picked = [axis for axis, size, length in zip(axes, sizes, shape, strict=True) if size < length]
    lost = any(_holds(axis) != "other" for axis in picked)
    found = [_unknown(size) if lost else _other(size) for size in out]
    kept = [at for at in range(len(shape)) if at not in numbers.collapsed_slice_dims]
    for into, at in zip(numbers.offset_dims, kept, strict=True):
        if sizes[at] == shape[at]:
            found[into] = axes[at]
    return tuple(found)


def _concatenate(step: Step, read: Read, out: tuple[int, ...], number: int, _: Any) -> Axes | None:
    at = step.params["dimension"]
    sizes = [variable.aval.shape[at] for variable in step.equation.invars]
    known = [axes for axes in read if axes is not None]
    others = _join([(*axes[:at], *axes[at + 1 :]) for axes in known])
    own = [_other(n) if axes is None else axes[at] for axes, n in zip(read, sizes, strict=True)]
    positions = [number for number, axis in enumerate(own) if _holds(axis) != "other"]
    if not positions:
        joined = _other(out[at])
    elif len(positions) == 1 and _holds(own[positions[0]]) == "position":
        (mine,) = positions
        factors, before, after = own[mine]
        before, after = before + sum(sizes[:mine]), after + sum(sizes[mine + 1 :])
        joined = Axis(factors, before, after)
    else:
        joined = _unknown(out[at])
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
    made = list(map(_other, new))
    if any(_holds(axis) == "unknown" for axis in summed):
        made = list(map(_unknown, new)) if len(summed) == 1 and len(free) > 1 else made
    elif summed and all(_is_position(axis) for axis in summed):
        one = _as_one(summed[0]) if len(summed) == 1 else None
        if one is not None and len(new) == 1 and literal[1 - mine]:  # as `jax.image.resize`
            made = [_axis(Factor(one.kind, new[0], one.start, one.step * one.size / new[0]))]
        else:  # a mixture of all positions
            made = list(map(_unknown, new))
    sides = (free, made) if mine == 0 else (made, free)
    return (*(axes[at] for at in batched[mine]), *sides[0], *sides[1])


def _is_position(axis: Axis) -> bool:
    return bool(axis.factors) and all(factor.kind in _POSITIONS for factor in axis.factors)


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
