"""Checks of numbers, counts and choices in plain Python: the ground floor, free of JAX.

Every message names the argument, what was expected and what came.
"""

import math
from typing import Any

import numpy as np

from dmbp_jax.errors import InputError, InputTypeError


def check_count(value: Any, name: str, minimum: int = 1) -> int:
    """Check an integer argument with a lower bound."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InputTypeError(f"{name}: Expected an int, got {type(value).__name__} {value!r}.")
    if value < minimum:
        raise InputError(f"{name}: Expected at least {minimum}, got {value}.")
    return int(value)


def check_number(
    value: Any, name: str, *, low: float = -math.inf, high: float = math.inf, above: bool = False
) -> float:
    """Check a finite number in [low, high], or in (low, high] with `above`."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputTypeError(f"{name}: Expected a number, got {type(value).__name__} {value!r}.")
    inside = low < value <= high if above else low <= value <= high
    if not inside or not math.isfinite(value):
        first = "(" if above or low == -math.inf else "["
        last = ")" if high == math.inf else "]"
        raise InputError(
            f"{name}: Expected a number in {first}{low:g}, {high:g}{last}, got {value}."
        )
    return float(value)


def check_choice(value: Any, name: str, choices: tuple[str, ...]) -> Any:
    """Check one of a few names."""
    allowed = ", ".join(repr(choice) for choice in choices)
    if not isinstance(value, str):
        raise InputTypeError(
            f"{name}: Expected one of {allowed}, got {type(value).__name__} {value!r}."
        )
    if value not in choices:
        raise InputError(f"{name}: Expected one of {allowed}, got {value!r}.")
    return value
