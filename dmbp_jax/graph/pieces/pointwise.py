"""Any function of one value, element by element: slope ⊙ z + intercept at x, f(z) exact there.

Nothing in Eq. 4 to 14 needs the gate to be 0 or 1, or to come from a ReLU. The paper's conclusion
claims the leaky ReLU and, by approximation, sigmoid and tanh; the slopes here are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from dmbp_jax.graph.linearisation import Linearisation
from dmbp_jax.graph.operations import AFFINE_POINTWISE
from dmbp_jax.graph.pieces.protocol import Choice
from dmbp_jax.graph.steps import Step, interpret

RANGE = 4.0  # beyond, tanh is within 0.1 % of its asymptote, sigmoid within 2 %


@dataclass(frozen=True, eq=False)
class Pointwise:
    """f(z), element by element, however it is written.

    The slope of a piecewise-linear f is that of the piece z lies in: exact, f′(z). The slope of any
    other f is a choice: "secant" is (f(z) − f(0)) / z, and f′(z) near 0; "tangent" is f′(z);
    "segments" is that of the segment z lies in, of f drawn as a polygon (`segment_of`).
    """

    kind: str  # what the list of sites calls it
    exact: bool  # whether f is piecewise linear
    nodes: tuple[Step, ...]  # its steps, in order
    source: int  # name of z in them
    # its slope
    linearisation: Linearisation = Linearisation()  # noqa: RUF009 (frozen)
    # values by name, what `nodes` reads beside z
    constants: Mapping[int, Any] = field(default_factory=dict)
    masked: ClassVar[bool] = True
    has_intercept: ClassVar[bool] = True

    @property
    def operation(self) -> str:
        """The last operation that is not affine."""
        names = [node.name for node in self.nodes]
        return next((name for name in reversed(names) if name not in AFFINE_POINTWISE), names[-1])

    def bind(self, constants: Mapping[int, Any], linearisation: Linearisation) -> "Pointwise":
        """The function with its parameters and a choice of slope."""
        return replace(self, constants=constants, linearisation=linearisation)

    def __call__(self, z: jax.Array) -> jax.Array:
        """f(z)."""
        values = interpret(self.nodes, {**self.constants, self.source: z})
        return values[self.nodes[-1].results[0]]

    def choose(self, z: jax.Array) -> Choice:
        """Slope and intercept, each of the shape of z."""
        value, derivative = self(z), self._derivative(z)
        if self.exact or self.linearisation.pointwise == "tangent":
            return derivative, value - derivative * z
        if self.linearisation.pointwise == "segments":
            low, high = segment_of(z, self.linearisation.segments)
            slope = (self(high) - self(low)) / (high - low)
            slope = jnp.where(jnp.isfinite(slope), slope, derivative)  # f may be nothing at an end
            return slope, value - slope * z
        # (f(z) − f(0)) / z is rounding alone near 0, and nothing where f(0) is infinite.
        at_zero = self(jnp.zeros_like(z))
        is_far = abs(z) > jnp.sqrt(jnp.finfo(z.dtype).eps)
        secant = (value - at_zero) / jnp.where(is_far, z, 1)
        is_secant = is_far & jnp.isfinite(secant)
        slope = jnp.where(is_secant, secant, derivative)
        return slope, jnp.where(is_secant, at_zero, value - slope * z)

    def apply(self, choice: Choice, z: jax.Array) -> jax.Array:
        """Slope ⊙ z + intercept."""
        slope, intercept = choice
        return slope * z + intercept

    def _derivative(self, z: jax.Array) -> jax.Array:
        """f′(z); at a corner of f, that of the side where it is smaller.

        How f is written must not matter: a ReLU's gate is closed at 0. At a jump of a
        piecewise-linear f its own derivative counts.
        """
        info, sides = jnp.finfo(z.dtype), _sides(z)
        (value, own), *beside = (jax.jvp(self, (at,), (jnp.ones_like(z),)) for at in (z, *sides))
        left, right = (slope for _, slope in beside)
        takes_left = abs(left) <= abs(right)
        side = jnp.where(takes_left, left, right)
        is_own = abs(own - side) <= jnp.sqrt(info.eps) * (abs(left) + abs(right))
        if self.exact:
            at_z = jnp.where(
                takes_left, *(f + s * (z - at) for (f, s), at in zip(beside, sides, strict=True))
            )
            is_own |= ~(abs(at_z - value) <= 64 * info.eps * (abs(value) + abs(side * z)))
        return jnp.where(is_own, own, side)


def _sides(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A little less than z, and a little more."""
    info = jnp.finfo(z.dtype)
    step = jnp.where(z == 0, jnp.sqrt(info.tiny), 4 * info.eps * abs(z)).astype(z.dtype)
    return z - step, z + step


def segment_of(z: jax.Array, segments: int) -> tuple[jax.Array, jax.Array]:
    """Both ends of the segment z lies in: of equal parts of [−4, 4], or of a tail on either side.

    A tail is the line through f(±4) and f(±8), the asymptote of a function that has reached it.
    """
    width = 2 * RANGE / segments
    number = jnp.clip(jnp.floor((z + RANGE) / width), 0, segments - 1)
    low = number * width - RANGE
    ends = jnp.where(z > RANGE, RANGE, low), jnp.where(z > RANGE, 2 * RANGE, low + width)
    below = z < -RANGE
    return jnp.where(below, -2 * RANGE, ends[0]), jnp.where(below, -RANGE, ends[1])
