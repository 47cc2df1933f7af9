"""Where the rows and columns of the image are in every value of a network: one pass from x.

The layout of x is known, (N, H, W, C). Every operation says what becomes of each axis: features
first or last, patches as tokens, windows merged into the batch. What cannot be told is unknown, and
whoever needs positions refuses it by name (`as_picture`).
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import jax

from dmbp_jax.errors import UnknownAxesError
from dmbp_jax.graph.axes_of_operations import rule_of
from dmbp_jax.graph.factors import POSITIONS, axis_of, holds, other, size_of, unknown
from dmbp_jax.graph.pieces import FrozenFactor
from dmbp_jax.graph.program import Axes, Axis, Factor, Site
from dmbp_jax.graph.steps import Step

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
            axis_of(Factor("row", height, Fraction(0), Fraction(1))),
            axis_of(Factor("column", width, Fraction(0), Fraction(1))),
            other(channels),
        )
    }
    literal: set[Any] = set()  # constants that no array of the network is read for
    for step in steps:
        if step.kind == "constant":
            read = [operand for operand in step.operands if isinstance(operand, int)]
            literal.update(step.results if literal.issuperset(read) else ())
        elif isinstance(step.piece, FrozenFactor):  # from which rows to which, of an attention
            for node in step.piece.nodes:
                _follow(replace(node, piece=None), axes, literal)
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
    rule = rule_of(step)
    is_literal = [not isinstance(o, int) or o in literal for o in step.operands]
    for number, result in enumerate(step.results):
        out = step.equation.outvars[number].aval.shape
        found = rule(step, read, out, number, is_literal) if rule else None
        axes[result] = found or tuple(map(unknown, out))


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
    sizes = [size_of(f for f in factors if f.kind == kind) for kind in POSITIONS]
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
    kind = (*POSITIONS, "other").index(factor.kind)
    return kind, -factor.step if kind < 2 else Fraction(0)


def _is_readable(axes: Axes, extent: Mapping[str, int]) -> bool:
    """Whether nothing is unknown, and rows and columns are whole and lie in the middle of x."""
    factors = [factor for axis in axes for factor in axis.factors]
    if any(factor.kind == "unknown" for factor in factors):
        return False
    featured = [axis for axis in axes if any(factor.kind == "other" for factor in axis.factors)]
    if len(featured) > 1 and any(holds(axis) == "position" for axis in featured):
        return False  # parts of rows and features, as in a pixel shuffle, or features: who knows
    for kind in POSITIONS:
        parts = sorted((f for f in factors if f.kind == kind), key=lambda f: -f.step)
        if any(a.step != b.size * b.step for a, b in itertools.pairwise(parts)):
            return False
        if parts:
            start, end = parts[0].start, parts[0].start + parts[0].size * parts[0].step
            if abs(start - (extent[kind] - end)) > _SLACK * parts[0].step:
                return False
    return True
