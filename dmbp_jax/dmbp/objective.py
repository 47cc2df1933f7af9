"""The objective (paper Eq. 10) and its variants (Table 1): value, and derivative to y⁺ and y⁻.

The loop asks an `Objective`, one of `OBJECTIVES` or the caller's own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dmbp_jax.errors import InputError, InputTypeError


@dataclass(frozen=True)
class Objective:
    """A loss L(y, y⁺, y⁻) that the masks minimise, for `DMBP(loss=...)`.

    Attributes:
      value: `(y, y_positive, y_negative) -> L`, of scalars; the nuisance is ỹ = y − y⁺ − y⁻.
      one_sided: whether ∂L/∂y⁺ or ∂L/∂y⁻ is zero at every point, so that a step needs the backward
        pass of one sign only. The other sign is then ignored.

    Raises:
      InputTypeError: `value` is no function, `one_sided` no bool.

    Example:
      >>> from dmbp_jax import DMBP
      >>> def squared(y, y_positive, y_negative):  # y⁻ − y⁺ + ỹ²
      ...     return y_negative - y_positive + (y - y_positive - y_negative) ** 2
      >>> config = DMBP(loss=Objective(squared))
      >>> y_positive, y_negative = config.objective().derivative(1.0, 1.0, -0.5)  # ỹ = 0.5
      >>> float(y_positive), float(y_negative)
      (-2.0, 0.0)
    """

    value: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    one_sided: bool = False

    def __post_init__(self) -> None:
        if not callable(self.value):
            raise InputTypeError(
                "value: Expected a function of (y, y_positive, y_negative), "
                f"got {type(self.value).__name__} {self.value!r}."
            )
        if not isinstance(self.one_sided, bool):
            raise InputTypeError(
                f"one_sided: Expected a bool, got {type(self.one_sided).__name__} "
                f"{self.one_sided!r}."
            )

    def derivative(self, y: Any, y_positive: Any, y_negative: Any) -> tuple[jax.Array, jax.Array]:
        """(∂L/∂y⁺, ∂L/∂y⁻), in the dtype of y."""
        return jax.grad(self.value, argnums=(1, 2))(y, y_positive, y_negative)


def check_objective(objective: Objective) -> None:
    """Check that an objective returns a scalar, without running it."""
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    value = jax.eval_shape(objective.value, scalar, scalar, scalar)
    is_scalar = isinstance(value, jax.ShapeDtypeStruct) and value.shape == ()
    if not is_scalar or not jnp.issubdtype(value.dtype, jnp.floating):
        raise InputError(f"loss.value: Expected a floating-point scalar, got {value}.")


def _all(y: jax.Array, y_positive: jax.Array, y_negative: jax.Array) -> jax.Array:
    """y⁻ − y⁺ + |ỹ| = max(y − 2y⁺, 2y⁻ − y): one sign has a gradient, y⁺ at the kink ỹ = 0."""
    pulls_up = y - y_positive - y_negative >= 0
    return jnp.where(pulls_up, y - 2 * y_positive, 2 * y_negative - y)


OBJECTIVES: dict[str, Objective] = {
    "all": Objective(_all, one_sided=True),
    "positive-negative": Objective(lambda y, y_positive, y_negative: y_negative - y_positive),
    "positive": Objective(lambda y, y_positive, y_negative: -y_positive, one_sided=True),
}
