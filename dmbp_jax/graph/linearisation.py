"""How a network becomes affine at x where the paper says nothing: slopes, and products (METHOD §7).

One value, made where a call is checked; every pass of the call reads it from the network.
"""

from dataclasses import dataclass

from dmbp_jax.checks import check_choice, check_count, check_number

SLOPES = ("secant", "tangent", "segments")
PRODUCTS = ("refuse", "freeze")


@dataclass(frozen=True)
class Linearisation:
    """Choices of a call, checked when made.

    Attributes:
      slope: of an activation that is not piecewise linear; `pointwise` of the public functions.
      segments: how many, with the slope "segments".
      products: what becomes of products of two values that depend on x; `nonaffine` there.
    """

    slope: str = "secant"
    segments: int = 8
    products: str = "refuse"

    def __post_init__(self) -> None:
        check_choice(self.slope, "pointwise", SLOPES)
        check_number(check_count(self.segments, "segments"), "segments", high=256)
        check_choice(self.products, "nonaffine", PRODUCTS)
