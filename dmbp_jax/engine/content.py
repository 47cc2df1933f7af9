"""What a function is by content: its code and what it captured, so that one made anew is the same.

Python compares closures by identity: the equation of a method with its settings, or the two of an
`optax.GradientTransformation`.
"""

from collections.abc import Callable
from functools import cached_property, partial
from types import FunctionType, MethodType
from typing import Any

from dmbp_jax.graph.captures import captured


class ByContent:
    """A function that equals every other with its content: a static field of an explainer."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    @cached_property
    def content(self) -> Any:
        """As `content`."""
        return content(self.function)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByContent) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)


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
        parts = (value.__defaults__, value.__kwdefaults__, captured(value))
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


class _Same:
    """Equal to the same object only, which it keeps alive."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)
