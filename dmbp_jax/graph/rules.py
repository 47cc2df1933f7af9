"""What a pass does at the sites of a network: every method of this package is a set of rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax

from dmbp_jax.graph.pieces import Choice, Piece


def choosing(choices: list[Choice]) -> Callable[..., jax.Array]:
    """The rule that keeps the network as it is and records the choice of every piece."""

    def rule(index: int, piece: Piece, *z: jax.Array) -> jax.Array:
        choices.append(piece.choose(*z))
        return piece.apply(choices[index], *z)

    return rule


def applying(choices: Sequence[Choice]) -> Callable[..., jax.Array]:
    """The rule that applies every piece with a recorded choice: the network becomes affine."""
    return lambda index, piece, *z: piece.apply(choices[index], *z)


@dataclass(frozen=True)
class Rules:
    """What to do at every piece and bias. Defaults evaluate the network as it is."""

    # `(index, piece, *z) -> value` at an activation, a pool or a frozen factor with inputs z;
    # `index` is that of its site
    piece: Callable[..., jax.Array] = lambda index, piece, *z: piece(*z)
    # `(index, value, bias) -> value`, where `value` already contains the additive constant `bias`;
    # None (the default) skips it
    bias: Callable[[int, jax.Array, jax.Array], jax.Array] | None = None
    # `(index, value) -> value` at a masked piece, after its intercept was given to `bias`; None
    # (the default) skips it
    after: Callable[[int, jax.Array], jax.Array] | None = None
