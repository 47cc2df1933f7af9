"""The generated dataset: textured objects of ten classes on clutter, with the mask of each object.

What a map of the built-in network should show is known here, pixel by pixel.
"""

from dmbp_jax.data.generated.drawing import Sample as Sample
from dmbp_jax.data.generated.drawing import generate as generate
from dmbp_jax.data.generated.scenes import CLASSES as CLASSES
from dmbp_jax.data.generated.scenes import compose as compose
from dmbp_jax.data.generated.scenes import rival as rival
