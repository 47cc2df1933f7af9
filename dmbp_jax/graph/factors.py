"""Axes as products of rows, columns and other things: joined, split, and regrouped (`axes`)."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from dmbp_jax.graph.program import Axes, Axis, Factor

POSITIONS = ("row", "column")


def size_of(factors: Iterable[Factor]) -> int:
    return math.prod(factor.size for factor in factors)


def axis_of(*factors: Factor) -> Axis:
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


def other(size: int) -> Axis:
    return axis_of(Factor("other", size))


def unknown(size: int) -> Axis:
    return axis_of(Factor("unknown", size))


def holds(axis: Axis) -> str:
    """What an axis holds: "position" where it has rows or columns, else "unknown" or "other"."""
    kinds = {factor.kind for factor in axis.factors}
    if "unknown" in kinds:
        return "unknown"
    return "position" if kinds & set(POSITIONS) else "other"


def as_one(axis: Axis) -> Factor | None:
    """The rows or columns of an axis that a window moves along; of a pixel shuffle with its parts.

    None if it has none, or more.
    """
    if axis.before or axis.after or not axis.factors:
        return None
    first, *others = axis.factors
    if first.kind not in POSITIONS or any(factor.kind != "other" for factor in others):
        return None
    parts = size_of(others)
    return Factor(first.kind, first.size * parts, first.start, first.step / parts)


def join(found: Sequence[Axes]) -> Axes:
    """Of values that are added: what is known of one is known of all."""
    return tuple(_join_axis_of(axes) for axes in zip(*found, strict=True))


def _join_axis_of(axes: Sequence[Axis]) -> Axis:
    by_kind = {holds(axis): axis for axis in reversed(axes)}
    if "position" not in by_kind:
        return by_kind.get("unknown", axes[0])
    wanted = _signature(by_kind["position"])
    if any(holds(axis) == "position" and _signature(axis) != wanted for axis in axes):
        return unknown(size_of(axes[0].factors) + axes[0].before + axes[0].after)
    return by_kind["position"]


def _signature(axis: Axis) -> Any:
    return axis.before, axis.after, [(factor.kind, factor.size) for factor in axis.factors]


def groups(shape: Sequence[int], out: Sequence[int]) -> Iterable[tuple[list[int], list[int]]]:
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


def regroup(factors: list[Factor], sizes: Sequence[int]) -> list[Axis]:
    """The factors of some axes as those of others, from the coarse to the fine."""
    found, rest = [], list(factors)
    for size in sizes:
        mine: list[Factor] = []
        while size_of(mine) < size:
            factor, wanted = rest.pop(0), size // size_of(mine)
            if size % size_of(mine) or (factor.size % wanted and wanted % factor.size):
                return list(map(unknown, sizes))
            if factor.size > wanted:
                fine = factor.size // wanted
                rest.insert(0, Factor(factor.kind, fine, Fraction(0), factor.step))
                factor = Factor(factor.kind, wanted, factor.start, factor.step * fine)
            mine.append(factor)
        found.append(axis_of(*mine))
    return found
