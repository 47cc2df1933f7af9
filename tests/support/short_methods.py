"""Every method with few samples, so that it takes a moment; and one method of each engine path."""

import pytest

from dmbp_jax import DMBP
from dmbp_jax.methods import METHODS

SHORT = {
    "integrated_gradients": {"n_steps": 5},
    "smoothgrad": {"n_samples": 5},
    "blur_ig": {"n_steps": 5},
    "rise": {"n_masks": 11, "cells": 3},
    "lpr": {"steps": 3},
    "dmbp": {"config": DMBP(steps=5)},
}
# A gradient, one that samples, one that reads a site, a random one with masks on the pixels, an
# optimised one. The others take the same paths.
KINDS = ("gradient", "integrated_gradients", "gradcam", "rise", "dmbp")
every_method = pytest.mark.parametrize("name", METHODS)
one_of_each_kind = pytest.mark.parametrize(
    "name",
    [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in METHODS],
)


def run(network, name, params, x, label, **options):
    """A map by a method of this name."""
    return METHODS[name](params, x, label, apply_fn=network, **(SHORT.get(name, {}) | options))


def slow_beside(cases, *dear):
    """Cases of a test, of which the dear ones are slow."""
    several = [case if isinstance(case, tuple) else (case,) for case in cases]
    dear = [case if isinstance(case, tuple) else (case,) for case in dear]
    return [
        pytest.param(*case, marks=[pytest.mark.slow] if case in dear else []) for case in several
    ]
