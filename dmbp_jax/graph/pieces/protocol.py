"""What a piece is: an operation that is affine once its choice at x is fixed (paper Eq. 3, 12).

A ReLU is affine once its gates are known, a max-pool once its winners are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax

Choice = Any  # a pytree of arrays: gates, winners, slopes and intercepts


class Piece(Protocol):
    """An operation that is affine in its inputs for a fixed choice.

    `apply(choose(*z), *z) == self(*z)`, and for a fixed choice `apply` is
    slope(choice) ⊙ z + intercept(choice).

    Attributes:
      kind: what it is called in the list of sites, such as "relu".
      masked: whether it carries a mask σ: True of activations, False of pools.
      has_intercept: whether `apply` adds a constant. It counts as a bias (Eq. 14), not in the map.
    """

    @property
    def kind(self) -> str:
        """What it is called."""
        ...

    masked: ClassVar[bool]
    has_intercept: ClassVar[bool]

    @property
    def choose(self) -> Callable[..., Choice]:
        """`(*z) -> choice`: what x fixes."""
        ...

    @property
    def apply(self) -> Callable[..., jax.Array]:
        """`(choice, *z) -> value`: the value for a fixed choice, affine in z."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> jax.Array:
        """The ordinary value."""
        ...


class PieceFamily(Protocol):
    """Recognises the operations of one family; a class of pieces with a static `match` is one."""

    def match(self, equation: "Equation") -> Piece | None:
        """The piece that computes this operation, or None."""
        ...


@dataclass(frozen=True)
class Equation:
    """What a family sees of one operation of a network.

    Attributes:
      name: name of the primitive, such as "max"; of a call (`jax.jit`, `jax.custom_jvp`,
        `jax.custom_vjp`), the name of the called function.
      is_call: whether it is a call. A call that no family claims is looked into.
      params: parameters of the primitive.
      depends: which operands depend on x. The piece is called with those, in order.
      is_zero: which operands are known to be zero everywhere.
    """

    name: str
    is_call: bool
    params: Mapping[str, Any]
    depends: tuple[bool, ...]
    is_zero: tuple[bool, ...]
