"""A network frozen at x: what one forward pass fixes, and what can be asked of the affine rest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from dmbp_jax.graph.pieces import Choice, Piece
from dmbp_jax.graph.rules import Rules, applying

if TYPE_CHECKING:
    from dmbp_jax.graph.graph import Graph


class Fixed(NamedTuple):
    """What one ordinary forward pass at x fixes: the arrays of a `FrozenNetwork`."""

    choices: tuple[Choice, ...]  # of every piece; of a ReLU H_l = 1[z_l > 0], of a pool its winners
    before_pieces: tuple[jax.Array, ...]  # the first layer's pre-activation
    logits: jax.Array  # F(x), (classes,)
    output_bias: jax.Array  # F_0, (classes,)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class FrozenNetwork:
    """A network with all fixed that x decides, gates, winners, factors: it is affine (Eq. 4).

    F_0 is the constant of the closed network: every activation 0, winners fixed, at x = 0. At x
    itself a path that bypasses every activation would count as a constant; Eq. 11 counts it in y⁺
    and y⁻.

    Activations are numbered in order of evaluation, as masks are.
    """

    graph: "Graph" = field(metadata={"static": True})
    fixed: Fixed

    @property
    def gates(self) -> tuple[Choice, ...]:
        """The choices of the activations."""
        return tuple(self.fixed.choices[site.index] for site in self.graph.masked)

    def rules(
        self,
        activation: Callable[..., jax.Array] | None = None,
        bias: Callable[[int, jax.Array, jax.Array], jax.Array] | None = None,
        after: Callable[[int, jax.Array], jax.Array] | None = None,
    ) -> Rules:
        """Rules that apply every piece with its choice.

        Args:
          activation: `(number, piece, choice, *z) -> value` at an activation instead.
          bias: as in `Rules`.
          after: `(number, value) -> value` at an activation.
        """
        numbers = {site.index: number for number, site in enumerate(self.graph.masked)}

        def piece(index: int, piece: Piece, *z: jax.Array) -> jax.Array:
            choice = self.fixed.choices[index]
            if activation is None or index not in numbers:
                return piece.apply(choice, *z)
            return activation(numbers[index], piece, choice, *z)

        numbered = None if after is None else lambda index, value: after(numbers[index], value)
        return Rules(piece, bias, numbered)

    def logits(self, activation: Callable[..., jax.Array] | None = None) -> jax.Array:
        """Logits (classes,) at x with another rule at activations, from `before_pieces`."""
        return self.graph.run_from(self.fixed.before_pieces, self.rules(activation))[0]

    def without_biases(self, x: jax.Array) -> "FrozenNetwork":
        """The linear part: its logits are ∇ₓFᵀx, what the pixels at x carry (Eq. 11).

        They are F(x) − F(0) with every choice fixed at x, in one pass.
        """
        linear = self.graph.without_biases()
        before = linear.before_pieces(x)
        logits = linear.run_from(before, Rules(applying(self.fixed.choices)))[0]
        closed = jnp.zeros_like(self.fixed.output_bias)
        return FrozenNetwork(linear, Fixed(self.fixed.choices, before, logits, closed))

    def bias_products(
        self,
        x: jax.Array,
        label: jax.Array,
        after: Callable[[int, jax.Array], jax.Array] | None = None,
    ) -> tuple[jax.Array, list[jax.Array]]:
        """The map ∇ₓF ⊙ x and every ∇_{b_l}F ⊙ b_l of Eq. 14.

        Args:
          x: (1, H, W, C).
          after: as in `rules`.

        Returns:
          `(map (1, H, W, C), one array per bias, in the shape of the value it is added to)`.
        """
        biases: list[jax.Array] = []

        def logit(x: jax.Array, probes: Sequence[jax.Array]) -> jax.Array:
            def bias(index: int, value: jax.Array, constant: jax.Array) -> jax.Array:
                biases.append(constant)
                return value + probes[index]

            return self.graph.run(x, self.rules(bias=bias, after=after))[0, label]

        probes = [jnp.zeros(site.shape, site.dtype) for site in self.graph.biases]
        _, pull_back = jax.vjp(logit, x, probes)
        gradient, bias_gradients = pull_back(jnp.ones((), self.fixed.logits.dtype))
        return gradient * x, _multiply(bias_gradients, biases)

    def output_products(self, x: jax.Array, label: jax.Array) -> list[jax.Array]:
        """The part of `bias_products` that is F_0: what reaches the logit past all activations.

        Returns:
          One array per bias, in the shape of the value it is added to; their sum is F_0 of the
          label.
        """
        zeros = [jnp.zeros(site.shape, site.dtype) for site in self.graph.biases]
        biases = list(zeros)

        def logit(probes: Sequence[jax.Array]) -> jax.Array:
            def bias(index: int, value: jax.Array, constant: jax.Array) -> jax.Array:
                biases[index] = constant
                return value + probes[index]

            return self.graph.run_closed(jnp.zeros_like(x), self.rules(bias=bias))[0, label]

        _, pull_back = jax.vjp(logit, zeros)
        (gradients,) = pull_back(jnp.ones((), self.fixed.logits.dtype))
        return _multiply(gradients, biases)


def _multiply(gradients: Sequence[jax.Array], biases: Sequence[jax.Array]) -> list[jax.Array]:
    """∇b ⊙ b, 0 where no gradient arrives: −∞ that a pool or a softmax never chose adds nothing."""
    pairs = zip(gradients, biases, strict=True)
    return [jnp.where(g == 0, 0, g * b) for g, b in pairs]
