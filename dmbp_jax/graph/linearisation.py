"""How a network becomes affine at x where the paper says nothing: slopes, and products (METHOD §7).

One value, made where a call is checked; every pass of the call reads it from the network.
"""

from dataclasses import dataclass

from dmbp_jax.checks import check_choice, check_count, check_number

SLOPES = ("secant", "tangent", "segments")
PRODUCTS = ("refuse", "freeze")


@dataclass(frozen=True)
class Linearisation:
    """Choices of a call, named as in the public functions; checked when made."""

    pointwise: str = "secant"  # slope of an activation that is not piecewise linear
    segments: int = 8  # how many, with the slope "segments"
    nonaffine: str = "refuse"  # what becomes of products of two values that depend on x

    def __post_init__(self) -> None:
        check_choice(self.pointwise, "pointwise", SLOPES)
        check_number(check_count(self.segments, "segments"), "segments", high=256)
        check_choice(self.nonaffine, "nonaffine", PRODUCTS)
