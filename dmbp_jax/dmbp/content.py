"""What a function is by content: its code and what it captured. An optimiser made anew is the same.

An `optax.GradientTransformation` is two closures, which Python compares by identity.
"""

from functools import partial
from types import FunctionType, MethodType
from typing import Any


def content(value: Any, above: tuple[int, ...] = ()) -> Any:
    """A hashable value; equal ones are of functions, or tuples of them, that do the same.

    Numbers and texts are compared by type and value, functions by their code, defaults and
    captured values, and anything else, arrays among them, by identity.

    Args:
      value: a function, a tuple of functions, or something that one captured.
      above: what it is captured in.
    """
    if id(value) in above:  # a function that captured itself
        return "above", above.index(id(value))
    inside = partial(content, above=(*above, id(value)))
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return type(value), repr(value)  # 0.0 is -0.0, and NaN is not NaN
    if isinstance(value, FunctionType):
        captured = [cell.cell_contents for cell in value.__closure__ or () if not _is_empty(cell)]
        parts = (value.__defaults__, value.__kwdefaults__, tuple(captured))
        return value.__code__, id(value.__globals__), inside(parts)
    if isinstance(value, MethodType):
        return MethodType, inside((value.__func__, value.__self__))
    if isinstance(value, partial):
        return partial, inside((value.func, value.args, value.keywords))
    if isinstance(value, (tuple, list)):
        return type(value), tuple(map(inside, value))
    if type(value) is dict:
        return dict, tuple((inside(key), inside(one)) for key, one in value.items())
    return _Same(value)


def _is_empty(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


class _Same:
    """Equal to the same object only, which it keeps alive."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)
