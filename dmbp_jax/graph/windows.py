"""Windows: along which axes the results of a convolution, a pool or a pad each read some elements
of the first operand, and which.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from dmbp_jax.graph.steps import Step


class Window(NamedTuple):
    """What each result reads along one axis."""

    size: int
    stride: int
    padding: tuple[int, int]
    dilation: int  # from one element of the window to the next
    spread: int  # from one element of the operand to the next, with zeros between


_ONE = Window(1, 1, (0, 0), 1, 1)  # each result reads the element at its place


def windows(step: Step) -> dict[int, Window]:
    """The window of a step along each axis of its first operand where there is one."""
    params, axes = step.params, range(len(step.shapes[0]))
    found: Iterable[Any] = ()
    if step.name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        axes, sizes = numbers.lhs_spec[2:], [step.shapes[1][axis] for axis in numbers.rhs_spec[2:]]
        keys = "window_strides", "padding", "rhs_dilation", "lhs_dilation"
        found = zip(sizes, *map(params.get, keys), strict=True)
    elif step.name.startswith("reduce_window"):
        keys = "window_dimensions", "window_strides", "padding", "window_dilation", "base_dilation"
        found = zip(*map(params.get, keys), strict=True)
    elif step.name == "pad":
        found = [(1, 1, (low, high), 1, 1 + n) for low, high, n in params["padding_config"]]
    return {axis: Window._make(one) for axis, one in zip(axes, found, strict=False) if one != _ONE}
