"""What a pass does at the sites of a network: every method of this package is a set of rules."""

from collections.abc import Callable
from dataclasses import dataclass

import jax


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
