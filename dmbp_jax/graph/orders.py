"""Orders of axes: how an operation is written for operands that are stored with other axes first.

The order (0, 2, 3, 1) says that axis i of what is stored is axis `order[i]` of the network's value.
A convolution asks for its order, batch, space, features; what follows keeps the order it gets.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import lax

from dmbp_jax.graph.operations import POINTWISE

Order = tuple[int, ...]


class Arranged(NamedTuple):
    """An operation of operands that are stored in these orders."""

    params: Mapping[str, Any]  # of the primitive
    reads: Sequence[Order]  # order of each operand
    makes: Sequence[Order]  # order of each result

    @property
    def is_plain(self) -> bool:
        """Whether nothing is turned."""
        return all(map(is_plain, (*self.reads, *self.makes)))


def plain(rank: int) -> Order:
    """The order of the network itself."""
    return tuple(range(rank))


def is_plain(order: Order) -> bool:
    """Whether a value is stored as the network has it."""
    return order == plain(len(order))


def as_it_is(equation: Any) -> Arranged:
    """An operation of values as the network has them."""
    reads, makes = (
        [plain(len(_shape(variable))) for variable in variables]
        for variables in (equation.invars, equation.outvars)
    )
    return Arranged(equation.params, reads, makes)


def arrange(equation: Any, orders: Sequence[Order]) -> Arranged:
    """An operation of operands that come in these orders.

    One without a rule, or that its rule does not cover, reads and makes values as the network has
    them.
    """
    name = equation.primitive.name
    if name == "conv_general_dilated":
        return _convolution(equation)
    if all(map(is_plain, orders)):
        return as_it_is(equation)
    if name in POINTWISE:
        found = _together(equation, orders)
    else:
        found = _RULES[name](equation, orders) if name in _RULES else None
    return found or as_it_is(equation)


def _shape(variable: Any) -> tuple[int, ...]:
    return getattr(variable.aval, "shape", ())


def _convolution(equation: Any) -> Arranged:
    """Batch, space, features; the axes of space follow each other as they do in the network.

    A kernel of one position may stay as it is: the matrix of a product is read from both sides.
    """
    params, kernel_shape = equation.params, _shape(equation.invars[1])
    numbers = params["dimension_numbers"]
    rank = len(numbers.lhs_spec)
    space = sorted(range(rank - 2), key=lambda axis: numbers.lhs_spec[2 + axis])

    def spatial(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[axis] for axis in space)

    def last(spec: Sequence[int]) -> Order:
        return spec[0], *spatial(spec[2:]), spec[1]

    image = 0, rank - 1, *range(1, rank - 1)
    changed: dict[str, Any] = {
        key: spatial(params[key])
        for key in ("window_strides", "padding", "lhs_dilation", "rhs_dilation")
    }
    out_features, in_features, *window = numbers.rhs_spec
    kernel, kernel_spec = plain(rank), numbers.rhs_spec
    if any(kernel_shape[axis] > 1 for axis in window):
        kernel = *spatial(window), in_features, out_features
        kernel_spec = rank - 1, rank - 2, *range(rank - 2)
    changed["dimension_numbers"] = lax.ConvDimensionNumbers(image, kernel_spec, image)
    return Arranged(
        {**params, **changed}, (last(numbers.lhs_spec), kernel), [last(numbers.out_spec)]
    )


def _together(equation: Any, orders: Sequence[Order]) -> Arranged | None:
    """All operands and results in the first order that is not the network's; numbers have none."""
    turned = next(order for order in orders if not is_plain(order))
    if not all(len(order) in (0, len(turned)) for order in orders):
        return None
    makes = [turned if _shape(variable) else () for variable in equation.outvars]
    return Arranged(equation.params, [turned if order else () for order in orders], makes)


def _along(key: str) -> Callable[..., Arranged | None]:
    """As `_together`; a parameter names an axis."""

    def rule(equation: Any, orders: Sequence[Order]) -> Arranged | None:
        found = _together(equation, orders)
        if found is None:
            return None
        axis = found.makes[0].index(found.params[key])
        return found._replace(params={**found.params, key: axis})

    return rule


def _per_axis(*keys: str) -> Callable[..., Arranged]:
    """Parameters with an entry for each axis of the first operand; any other is a number."""

    def rule(equation: Any, orders: Sequence[Order]) -> Arranged:
        params, order = dict(equation.params), orders[0]
        for key in keys:
            if params[key] is not None:
                params[key] = tuple(params[key][axis] for axis in order)
        return Arranged(params, orders, [order])

    return rule


_EVERY = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")


def _window(equation: Any, orders: Sequence[Order]) -> Arranged | None:
    """Turned only where the first of equal winners stays the network's first."""
    wide = [axis for axis in orders[0] if equation.params["window_dimensions"][axis] > 1]
    return _per_axis(*_EVERY)(equation, orders) if wide == sorted(wide) else None


def _of_axes(key: str, removes: bool = True) -> Callable[..., Arranged | None]:
    """A parameter names several axes, which may go."""

    def rule(equation: Any, orders: Sequence[Order]) -> Arranged | None:
        (order,), axes = orders, equation.params[key]
        is_sum = equation.primitive.name not in ("reduce_max", "reduce_min")
        # The first of equal winners stays the network's first.
        if not is_sum and [axis for axis in order if axis in axes] != sorted(axes):
            return None
        kept = [axis for axis in order if axis not in axes or not removes]
        made = tuple(sorted(kept).index(axis) for axis in kept)
        stored = tuple(sorted(order.index(axis) for axis in axes))
        return Arranged({**equation.params, key: stored}, orders, [made])

    return rule


def _transpose(equation: Any, orders: Sequence[Order]) -> Arranged:
    """Nothing moves: the result is the operand in another order."""
    (order,), permutation = orders, equation.params["permutation"]
    made = tuple(permutation.index(axis) for axis in order)
    return Arranged({**equation.params, "permutation": plain(len(order))}, orders, [made])


def _broadcast(equation: Any, orders: Sequence[Order]) -> Arranged | None:
    """New axes come first."""
    (order,), shape = orders, _shape(equation.outvars[0])
    if equation.params.get("sharding") is not None:
        return None
    old = [equation.params["broadcast_dimensions"][axis] for axis in order]
    new = [axis for axis in range(len(shape)) if axis not in old]
    changed = {
        "shape": tuple(shape[axis] for axis in (*new, *old)),
        "broadcast_dimensions": tuple(range(len(new), len(shape))),
    }
    return Arranged({**equation.params, **changed}, orders, [(*new, *old)])


def _reshape(equation: Any, orders: Sequence[Order]) -> Arranged | None:
    """Axes are split, or merged once they are stored side by side; axes of length 1 come first."""
    (order,), params = orders, equation.params
    if params.get("sharding") is not None or params.get("dimensions") is not None:
        return None
    before, after = _shape(equation.invars[0]), _shape(equation.outvars[0])
    found = sorted(parts(before, after), key=lambda part: order.index(part[0][0]))
    read = [axis for old, _ in found for axis in old]
    if read == [axis for axis in order if before[axis] != 1]:
        read = order
    else:
        read = [axis for axis in order if before[axis] == 1] + read
    made = [axis for axis, length in enumerate(after) if length == 1]
    made += [axis for _, new in found for axis in new]
    sizes = tuple(after[axis] for axis in made)
    return Arranged({**params, "new_sizes": sizes}, [tuple(read)], [tuple(made)])


def parts(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Axes longer than 1 of two shapes of one size, in the smallest parts that are of one size."""
    left, right = (
        [axis for axis, length in enumerate(shape) if length != 1] for shape in (before, after)
    )
    found = []
    while left and right:
        old, new = [left.pop(0)], [right.pop(0)]
        while (a := np.prod([before[n] for n in old])) != (b := np.prod([after[n] for n in new])):
            old, new = ([*old, left.pop(0)], new) if a < b else (old, [*new, right.pop(0)])
        found.append((old, new))
    return found


_RULES: dict[str, Callable[[Any, Sequence[Order]], Arranged | None]] = {
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min"), _of_axes("axes")),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min"), _window),
    **dict.fromkeys(("cumsum", "split"), _along("axis")),
    "concatenate": _along("dimension"),
    "pad": _per_axis("padding_config"),
    "slice": _per_axis("start_indices", "limit_indices", "strides"),
    "rev": _of_axes("dimensions", removes=False),
    "squeeze": _of_axes("dimensions"),
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
}
