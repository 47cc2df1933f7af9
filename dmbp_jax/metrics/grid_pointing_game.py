"""Grid pointing game (Böhle et al. 2021): in a mosaic of images, does the map find its own cell?

Ground truth without annotation: only one cell of the mosaic shows the target class.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.checks import check_count
from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.images import check_images
from dmbp_jax.graph.model import is_traced
from dmbp_jax.metrics.attribution_inside import share_inside
from dmbp_jax.metrics.heatmaps import check_maps


@on_any_mesh("images")
def mosaic(images: ArrayLike, n: int) -> jax.Array:
    """Lay n * n images, row by row, into one image.

    Choose images of distinct classes that the network recognises surely. A network with global
    average pooling takes the mosaic as it is; for others shrink the images first.

    Args:
      images: (n * n, H, W, C) floating point, preprocessed.
      n: images a side.

    Returns:
      (n * H, n * W, C).

    Raises:
      InputError: not n * n images.
      InputTypeError: not floating point, or `n` not an int.

    Example:
      >>> import jax.numpy as jnp
      >>> mosaic(jnp.arange(4.0).reshape(4, 1, 1, 1), 2)[..., 0].tolist()
      [[0.0, 1.0], [2.0, 3.0]]
    """
    n = check_count(n, "n")
    x = check_images(images, "images").x
    count, height, width, channels = x.shape
    if count != n * n:
        raise InputError(f"images: Expected n * n = {n * n} images, got {count}.")
    grid = x.reshape(n, n, height, width, channels).swapaxes(1, 2)
    return grid.reshape(n * height, n * width, channels)


@on_any_mesh("heatmap")
def grid_pointing_game(heatmap: Any, cell: ArrayLike, n: int) -> jax.Array:
    r"""Share of the positive attribution that lies inside the target's own cell.

    \(\sum_{p \in \mathrm{cell}} h_p^+ \,/\, \sum_p h_p^+\), with \(h^+ = \max(h, 0)\). A map that
    finds nothing (no positive value) scores 0, as in the authors' code: leaving it out would
    reward blank maps. A uniform map scores \(1 / n^2\).

    Args:
      heatmap: signed maps of mosaics, (n H, n W) or (N, n H, n W), or an `Attribution`.
      cell: int or (N,) ints: the target's cell, counted row by row from 0.
      n: images a side.

    Returns:
      (N,) in [0, 1], a scalar for a single map.

    Raises:
      InputError: a map that n does not divide, a cell outside [0, n * n), a wrong number of cells.
      InputTypeError: cells that are not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> heatmap = jnp.array([[3.0, 1.0], [-5.0, 0.0]])
      >>> float(grid_pointing_game(heatmap, 0, 2))
      0.75
    """
    n = check_count(n, "n")
    maps, single = check_maps(heatmap)
    if maps.shape[1] % n or maps.shape[2] % n:
        raise InputError(f"heatmap: Expected sides that {n} divides, got {maps.shape[1:]}.")
    own = _cell_masks(_check_cells(cell, maps.shape[0], n), maps.shape, n)
    shares = share_inside(maps, own)
    return shares[0] if single else shares


def _cell_masks(cells: jax.Array, shape: tuple[int, ...], n: int) -> jax.Array:
    """(N, H, W) bool: the pixels of each map's cell."""
    _, height, width = shape
    row, column = jnp.arange(height) // (height // n), jnp.arange(width) // (width // n)
    return (n * row[:, None] + column[None])[None] == cells[:, None, None]


def _check_cells(cell: ArrayLike, batch: int, n: int) -> jax.Array:
    cells = cell if is_traced(cell) else np.asarray(cell)
    if not jnp.issubdtype(jnp.result_type(cells), jnp.integer):
        raise InputTypeError(f"cell: Expected integers, got dtype {jnp.result_type(cells)}.")
    if np.shape(cells) not in ((), (batch,)):
        raise InputError(f"cell: Expected an int or {batch} ints, got shape {np.shape(cells)}.")
    if not is_traced(cells) and (np.min(cells) < 0 or np.max(cells) >= n * n):
        raise InputError(f"cell: Expected 0 <= cell < {n * n}, got {cells}.")
    return jnp.broadcast_to(jnp.asarray(cells, jnp.int32), (batch,))
