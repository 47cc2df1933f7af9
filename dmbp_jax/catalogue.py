"""The catalogue of attribution methods: one row each, free of JAX, resolved on first use.

`METHODS`, the command line's choices, the titles of tables and how a map is drawn derive from it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import Any

from dmbp_jax.errors import InputError

# What DMBP's maps do with the part of the evidence that biases carry; the first is the default.
BIASES = ("drop", "spread", "refine", "carry")


_SHARED = ("params", "x", "label", "apply_fn", "key", "chunk_size", "progress", "return_residual")


@dataclass(frozen=True)
class Method:
    """One attribution method.

    Attributes:
      name: its key in `METHODS`, on the command line and in records.
      title: in tables and pictures.
      signed: whether negative values mean evidence against the label.
      coarse: whether the map is (H, W), without channels.
      has_zero: whether zero means "no evidence"; if not, pictures are drawn around the mean.
      random: whether the map depends on `key=`.
      variants: objectives that the paper's Table 1 compares, the default last.
      module: where the function called `name` lives.
    """

    name: str
    title: str
    signed: bool = True
    coarse: bool = False
    has_zero: bool = True
    random: bool = False
    variants: tuple[str, ...] = ()
    module: str = "dmbp_jax.methods"

    @property
    def rows(self) -> tuple[str, ...]:
        """Its rows in the paper's tables, one for each variant; the default has the plain name."""
        return (*(f"{self.name}-{variant}" for variant in self.variants[:-1]), self.name)

    @property
    def function(self) -> Callable[..., Any]:
        """`f(params, x, label, *, apply_fn, key, chunk_size, **options)`; imports JAX."""
        return getattr(import_module(self.module), self.name)

    @property
    def options(self) -> tuple[str, ...]:
        """Keyword arguments that change its map, beyond the convention that all methods share."""
        return tuple(name for name in signature(self.function).parameters if name not in _SHARED)


CATALOGUE: tuple[Method, ...] = (
    Method("gradient", "ND = gradient × input"),
    Method("integrated_gradients", "Integrated Gradients"),
    Method("smoothgrad", "SmoothGrad", random=True),
    Method("blur_ig", "Blur IG"),
    Method("deeplift", "DeepLift"),
    Method("guided_backprop", "Guided Backprop"),
    Method("guided_gradcam", "Guided Grad-CAM"),
    Method("gradcam", "Grad-CAM", signed=False, coarse=True),
    Method("fullgrad", "FullGrad", signed=False, coarse=True),
    Method("rise", "RISE", signed=False, coarse=True, has_zero=False, random=True),
    Method("lpr", "LPR", signed=False, coarse=True),
    Method("dmbp", "DMBP", variants=("positive", "positive-negative", "all")),
)

ROWS: tuple[str, ...] = tuple(row for method in CATALOGUE for row in method.rows)


def find_method(name: str) -> Method:
    """The row called `name`.

    Raises:
      InputError: no method has this name; the message lists all.
    """
    for method in CATALOGUE:
        if method.name == name:
            return method
    names = ", ".join(method.name for method in CATALOGUE)
    raise InputError(f"method: Expected one of {names}, got {name!r}.")
