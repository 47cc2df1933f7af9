"""Pictures of attribution maps: overlays, diverging maps, panels and galleries (NumPy, Pillow).

Maps are signed and raw everywhere else in the package; scaling them for the eye happens here.
"""

from dmbp_jax.pictures.layout import grid, panel
from dmbp_jax.pictures.maps import diverging, seismic, shared_scale
from dmbp_jax.pictures.overlays import authors_overlay, overlay

__all__ = ["authors_overlay", "diverging", "grid", "overlay", "panel", "seismic", "shared_scale"]
