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
      weights: the same arguments to `(∂L/∂y⁺, ∂L/∂y⁻)`; None (the default) derives `value`.
      one_sided: whether one of the two weights is zero at every point, so that a step needs the
        backward pass of one sign only. The other sign is then ignored.

    Raises:
      InputTypeError: `value` or `weights` is no function, `one_sided` no bool.

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
    weights: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]] | None = None
    one_sided: bool = False

    def __post_init__(self) -> None:
        for name in ("value", "weights"):
            function = getattr(self, name)
            if not callable(function) and (name == "value" or function is not None):
                raise InputTypeError(
                    f"{name}: Expected a function of (y, y_positive, y_negative), "
                    f"got {type(function).__name__} {function!r}."
                )
        if not isinstance(self.one_sided, bool):
            raise InputTypeError(
                f"one_sided: Expected a bool, got {type(self.one_sided).__name__} "
                f"{self.one_sided!r}."
            )

    def derivative(self, y: Any, y_positive: Any, y_negative: Any) -> tuple[jax.Array, jax.Array]:
        """(∂L/∂y⁺, ∂L/∂y⁻), in the dtype of y."""
        if self.weights is None:
            return jax.grad(self.value, argnums=(1, 2))(y, y_positive, y_negative)
        dtype = jnp.result_type(y)
        positive, negative = self.weights(y, y_positive, y_negative)
        return jnp.asarray(positive, dtype), jnp.asarray(negative, dtype)


def check_objective(objective: Objective) -> None:
    """Check that the functions of an objective return scalars, without running them.

    Raises:
      InputError: they return something else.
    """
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    value = jax.eval_shape(objective.value, scalar, scalar, scalar)
    if not _is_scalar(value):
        raise InputError(f"loss.value: Expected a floating-point scalar, got {value}.")
    if objective.weights is not None:
        pair = jax.eval_shape(objective.weights, scalar, scalar, scalar)
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(map(_is_scalar, pair)):
            raise InputError(f"loss.weights: Expected two floating-point scalars, got {pair}.")


def _is_scalar(value: Any) -> bool:
    is_array = isinstance(value, jax.ShapeDtypeStruct) and value.shape == ()
    return is_array and jnp.issubdtype(value.dtype, jnp.floating)


def _all(y: jax.Array, y_positive: jax.Array, y_negative: jax.Array) -> jax.Array:
    return y_negative - y_positive + jnp.abs(y - y_positive - y_negative)


def _all_weights(
    y: jax.Array, y_positive: jax.Array, y_negative: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # L = max(y − 2y⁺, 2y⁻ − y): one sign has a gradient; at the kink ỹ = 0 it is y⁺.
    pull_up = y - y_positive - y_negative >= 0
    return jnp.where(pull_up, -2.0, 0.0).astype(y.dtype), jnp.where(pull_up, 0.0, 2.0).astype(
        y.dtype
    )


OBJECTIVES: dict[str, Objective] = {
    "all": Objective(_all, _all_weights, one_sided=True),
    "positive-negative": Objective(
        value=lambda y, y_positive, y_negative: y_negative - y_positive,
        weights=lambda y, y_positive, y_negative: (-jnp.ones_like(y), jnp.ones_like(y)),
        one_sided=False,
    ),
    "positive": Objective(
        value=lambda y, y_positive, y_negative: -y_positive,
        weights=lambda y, y_positive, y_negative: (-jnp.ones_like(y), jnp.zeros_like(y)),
        one_sided=True,
    ),
}
