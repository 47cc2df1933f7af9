"""The generated dataset: textured objects of ten classes on clutter, with the mask of each object.

What a map of the built-in network should show is known here, pixel by pixel.
"""

from dmbp_jax.data.generated.dataset import GeneratedDataset, generate
from dmbp_jax.data.generated.drawing import Sample, render
from dmbp_jax.data.generated.scenes import (
    CLASSES,
    MAX_OBJECTS,
    SIZE,
    Scene,
    Thing,
    compose,
    rival,
)

__all__ = [
    "CLASSES",
    "MAX_OBJECTS",
    "SIZE",
    "GeneratedDataset",
    "Sample",
    "Scene",
    "Thing",
    "compose",
    "generate",
    "render",
    "rival",
]
