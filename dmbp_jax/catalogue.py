"""The catalogue of attribution methods: one row each, free of JAX, resolved on first use.

`METHODS`, the command line's choices, the titles of tables and how a map is drawn derive from it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from dmbp_jax.errors import InputError

# What DMBP's maps do with the part of the evidence that biases carry; the first is the default.
BIASES = ("drop", "spread", "carry")


@dataclass(frozen=True)
class Method:
    """One attribution method.

    Attributes:
      name: its key in `METHODS`, on the command line and in records.
      title: in tables and pictures.
      module: where the function called `name` lives.
      signed: whether negative values mean evidence against the label.
      coarse: whether the map is (H, W), without channels.
      has_zero: whether zero means "no evidence"; if not, pictures are drawn around the mean.
      random: whether the map depends on `key=`.
      options: keyword arguments beyond the convention that all methods share.
      abbreviation: in the head of the paper's tables.
      variants: objectives that the paper's Table 1 compares, the default last.
    """

    name: str
    title: str
    module: str = "dmbp_jax.methods"
    signed: bool = True
    coarse: bool = False
    has_zero: bool = True
    random: bool = False
    options: tuple[str, ...] = ()
    abbreviation: str = ""
    variants: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[str, ...]:
        """Its rows in the paper's tables, one for each variant; the default has the plain name."""
        return (*(f"{self.name}-{variant}" for variant in self.variants[:-1]), self.name)

    @property
    def function(self) -> Callable[..., Any]:
        """`f(params, x, label, *, apply_fn, key, chunk_size, **options)`; imports JAX."""
        return getattr(import_module(self.module), self.name)


CATALOGUE: tuple[Method, ...] = (
    Method(
        "gradient", "ND = gradient × input", options=("multiply_by_inputs",), abbreviation="Grad"
    ),
    Method(
        "integrated_gradients",
        "Integrated Gradients",
        options=("n_steps", "rule", "baseline", "multiply_by_inputs"),
        abbreviation="IG",
    ),
    Method(
        "smoothgrad",
        "SmoothGrad",
        random=True,
        options=("n_samples", "noise_fraction", "multiply_by_inputs"),
        abbreviation="SG",
    ),
    Method(
        "blur_ig",
        "Blur IG",
        options=("max_sigma", "n_steps", "grad_step", "spacing"),
        abbreviation="BIG",
    ),
    Method(
        "deeplift",
        "DeepLift",
        options=("baseline", "multiply_by_inputs", "nonaffine"),
        abbreviation="DL",
    ),
    Method(
        "guided_backprop",
        "Guided Backprop",
        options=("multiply_by_inputs", "nonaffine"),
        abbreviation="GBp",
    ),
    Method(
        "guided_gradcam",
        "Guided Grad-CAM",
        options=("layer", "multiply_by_inputs", "nonaffine"),
        abbreviation="GGC",
    ),
    Method(
        "gradcam",
        "Grad-CAM",
        signed=False,
        coarse=True,
        options=("layer", "nonaffine"),
        abbreviation="GC",
    ),
    Method(
        "fullgrad",
        "FullGrad",
        signed=False,
        coarse=True,
        options=("nonaffine", "pointwise", "segments"),
        abbreviation="FG",
    ),
    Method(
        "rise",
        "RISE",
        signed=False,
        coarse=True,
        has_zero=False,
        random=True,
        options=("n_masks", "cells", "keep", "activation"),
        abbreviation="RISE",
    ),
    Method(
        "lpr",
        "LPR",
        signed=False,
        coarse=True,
        options=(
            *("steps", "learning_rate", "area_weight", "baseline"),
            *("nonaffine", "pointwise", "segments"),
        ),
        abbreviation="LPR",
    ),
    Method(
        "dmbp",
        "DMBP",
        options=("config", "nonaffine", "biases"),
        abbreviation="DMBP",
        variants=("positive", "positive-negative", "all"),
    ),
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
