"""Operations that are affine once their choice at x is fixed, one file per family."""

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.pieces.frozen import FrozenFactor as FrozenFactor
from dmbp_jax.graph.pieces.maximum import Maximum as Maximum
from dmbp_jax.graph.pieces.pointwise import Pointwise as Pointwise
from dmbp_jax.graph.pieces.pools import GlobalPool
from dmbp_jax.graph.pieces.pools import WindowPool as WindowPool
from dmbp_jax.graph.pieces.protocol import Choice as Choice
from dmbp_jax.graph.pieces.protocol import Equation as Equation
from dmbp_jax.graph.pieces.protocol import Piece as Piece
from dmbp_jax.graph.pieces.protocol import PieceFamily as PieceFamily
from dmbp_jax.graph.pieces.relu import Relu as Relu

FAMILIES: tuple[PieceFamily, ...] = (Relu, WindowPool, GlobalPool, Maximum)
_registered: list[PieceFamily] = []


def register_piece(family: PieceFamily) -> PieceFamily:
    """Teach the graph a new operation; may be used as a decorator of a class of pieces.

    Registered families are asked before the built-in ones, the newest first.

    Args:
      family: has `match(equation) -> piece or None`, see `Equation` and `Piece`.

    Returns:
      `family`.

    Raises:
      InputTypeError: no function `match`.
      InputError: registered already.

    Example:
      >>> from dataclasses import dataclass
      >>> import jax, jax.numpy as jnp
      >>> @jax.jit
      ... def squareplus(z):
      ...     return (z + jnp.sqrt(z * z + 4)) / 2
      >>> @dataclass(frozen=True)
      ... class Squareplus:  # slope by the secant through f(0), so that F stays exact at x
      ...     kind: str = "squareplus"
      ...     masked: bool = True
      ...     has_intercept: bool = True
      ...     @staticmethod
      ...     def match(equation):
      ...         return Squareplus() if equation.name == "squareplus" else None
      ...     def __call__(self, z):
      ...         return squareplus(z)
      ...     def choose(self, z):
      ...         return jnp.where(z == 0, 0.5, (squareplus(z) - 1) / jnp.where(z == 0, 1, z))
      ...     def apply(self, choice, z):
      ...         return choice * z + 1
      >>> register_piece(Squareplus) is Squareplus
      True
      >>> unregister_piece(Squareplus)
    """
    if not callable(getattr(family, "match", None)):
        raise InputTypeError(
            "family: Expected an object with match(equation) -> piece or None, "
            f"got {type(family).__name__} without it."
        )
    if family in (*_registered, *FAMILIES):
        raise InputError(f"family: Expected one that is not registered yet, got {family!r}.")
    _registered.insert(0, family)
    return family


def unregister_piece(family: PieceFamily) -> None:
    """Take back `register_piece`."""
    if family not in _registered:
        raise InputError(f"family: Expected a registered one, got {family!r}.")
    _registered.remove(family)


def families() -> tuple[PieceFamily, ...]:
    """All families, in the order in which they are asked."""
    return (*_registered, *FAMILIES)
